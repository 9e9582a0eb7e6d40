//! Consumers of one partition: twenty against one, and one that reads yesterday beside one that reads now (shell).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::driver::{self, Batch, in_threads, joined};
use super::latency::percentile;
use super::load::floor_file;
use super::subject::{Contestant, FloorProcess};
use super::table::{Row, Section, Subject};
use super::wire::{self, TopicId};
use super::{Bench, Stage, in_turn, milliseconds};
use crate::page_cache;

const VALUE_LEN: usize = 1024;
const BATCH_BYTES: usize = 64 * 1024;
const MANY: usize = 20;
const SHARED: &str = "shared";
const OLD: &str = "yesterday";
const NOW: &str = "now";
const GIB: u64 = 1 << 30;
/// Of the old data, at most this part may be in the page cache before a run.
const RESIDENT_MAX: f64 = 0.01;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = many_readers(bench)?;
    rows.extend(cold_reader(bench)?);
    Ok(Section::new(Stage::Readers, rows))
}

fn many_readers(bench: &Bench) -> Result<Vec<Row>> {
    let bytes = if bench.quick { GIB / 4 } else { GIB };
    let mut one = Row::least("consume with one consumer", "CPU s per GB");
    let mut many = Row::least("consume with 20 consumers of one partition", "CPU s per GB");
    let mut ratio = Row::median("20 consumers against one, broker CPU per GB", "×");
    let batch = Batch::filled(VALUE_LEN, BATCH_BYTES)?;
    let mut topics = Vec::new();
    for contestant in &bench.contestants {
        let topic = contestant.create_topic(SHARED)?;
        fill(contestant, &topic, &batch, bytes)?;
        topics.push((contestant, topic));
    }
    let floor_file = floor_file(bench);
    write_floor_file(&floor_file, &batch, bytes)?;
    rustix::fs::sync();
    let mut subjects = bench.brokers();
    subjects.push(Subject::Floor);
    for (run, subject) in in_turn(&subjects, bench.runs) {
        bench.say_run("one consumer and 20", run, subject);
        let found = topics.iter().find(|(contestant, _)| contestant.subject == subject);
        let read = |consumers, passes| match found {
            Some((contestant, topic)) => read(contestant, topic, consumers, passes, &batch, bytes),
            None => read_floor(&floor_file, consumers, passes, bytes),
        };
        let alone = read(1, MANY)?;
        let together = read(MANY, 1)?;
        if run > 0 {
            one.add(subject, alone);
            many.add(subject, together);
            ratio.add(subject, together / alone);
        }
    }
    for (contestant, _) in topics {
        contestant.delete_topic(SHARED)?;
    }
    fs::remove_file(&floor_file).context("cannot remove the floor's file")?;
    Ok(vec![one, many, ratio])
}

/// The bytes that a broker's log of this partition has.
fn write_floor_file(path: &Path, batch: &Batch, bytes: u64) -> Result<()> {
    let mut file = File::create(path).context("cannot create the floor's file")?;
    for _ in 0..requests(batch, bytes)? {
        file.write_all(&batch.bytes).context("cannot write the floor's file")?;
    }
    Ok(())
}

fn fill(contestant: &Contestant, topic: &TopicId, batch: &Batch, bytes: u64) -> Result<()> {
    let mut frame = wire::produce(topic, 1, &batch.bytes);
    driver::produce(contestant.address(), &mut frame, requests(batch, bytes)?)?;
    driver::await_end(contestant.address(), topic, end(batch, bytes)?)
}

fn requests(batch: &Batch, bytes: u64) -> Result<u64> {
    Ok(bytes / u64::try_from(batch.bytes.len())?)
}

fn end(batch: &Batch, bytes: u64) -> Result<i64> {
    Ok(i64::try_from(requests(batch, bytes)? * batch.records)?)
}

/// CPU seconds of the broker for each GB that so many consumers get at the same time, each all of it so many times.
fn read(
    contestant: &Contestant,
    topic: &TopicId,
    consumers: usize,
    passes: usize,
    batch: &Batch,
    bytes: u64,
) -> Result<f64> {
    let (address, end) = (contestant.address(), end(batch, bytes)?);
    let (_, cpu) = contestant.cpu(|| {
        in_threads(consumers, |_| {
            (0..passes).try_for_each(|_| driver::consume(address, topic, end).map(drop))
        })
    })?;
    Ok(per_gigabyte(cpu, bytes, consumers * passes))
}

/// The same of the floor.
fn read_floor(file: &Path, consumers: usize, passes: usize, bytes: u64) -> Result<f64> {
    let floor = FloorProcess::send(file, consumers)?;
    let each = bytes * u64::try_from(passes)?;
    let (_, cpu) =
        floor.cpu(|| in_threads(consumers, |_| driver::drain(&floor.address, each).map(drop)))?;
    Ok(per_gigabyte(cpu, bytes, consumers * passes))
}

fn per_gigabyte(cpu: Duration, bytes: u64, times: usize) -> f64 {
    let delivered = bytes as f64 * times as f64;
    cpu.as_secs_f64() / (delivered / 1e9)
}

/// Latencies of a consumer at the end of one partition, alone and while another reads a whole other one from the disk.
fn cold_reader(bench: &Bench) -> Result<Vec<Row>> {
    let bytes = if bench.quick { GIB } else { 4 * GIB };
    let mut alone = Row::median("end to end, acks=1, nobody reads from the disk, p99", "ms");
    let mut beside = Row::median("end to end beside a full cold scan, p99", "ms");
    let mut ratio = Row::median("a cold scan's effect on that p99", "×");
    let mut speed = Row::most("the cold scan itself", "MB/s");
    let batch = Batch::filled(VALUE_LEN, BATCH_BYTES)?;
    for subject in bench.brokers() {
        // One at a time: each has gigabytes on the disk.
        let contestant = bench.contestant(subject).context("a broker that does not take part")?;
        let old = contestant.create_topic(OLD)?;
        fill(contestant, &old, &batch, bytes)?;
        for run in 0..=bench.runs {
            bench.say_run("a cold scan beside the newest records", run, subject);
            let before = tail(bench, contestant, &AtomicBool::new(true))?;
            drop_from_cache(&contestant.broker.data_directory().join(format!("{OLD}-0")))?;
            let done = AtomicBool::new(false);
            let (address, end) = (contestant.address(), end(&batch, bytes)?);
            let (scan, during) = thread::scope(|scope| {
                let scan = scope.spawn(|| {
                    let took = driver::consume(address, &old, end);
                    done.store(true, Ordering::Release);
                    took
                });
                let during = tail(bench, contestant, &done);
                (joined(scan), during)
            });
            let (scan, during) = (scan?, during?);
            if run > 0 {
                let p99 = |latencies: &[Duration]| {
                    percentile(latencies, 0.99).map(milliseconds).context("no latencies")
                };
                let (before, during) = (p99(&before)?, p99(&during)?);
                alone.add(subject, before);
                beside.add(subject, during);
                ratio.add(subject, during / before);
                speed.add(subject, bytes as f64 / 1e6 / scan.as_secs_f64());
            }
        }
        contestant.delete_topic(OLD)?;
    }
    Ok(vec![alone, beside, ratio, speed])
}

/// One record at a time from a producer to a consumer that already waits: so many, and then until `done`.
fn tail(bench: &Bench, contestant: &Contestant, done: &AtomicBool) -> Result<Vec<Duration>> {
    let batch = Batch::filled(100, 0)?;
    let topic = contestant.create_topic(NOW)?;
    let frame = wire::produce(&topic, 1, &batch.bytes);
    let at_least = bench.scale.latency_records;
    let latencies = driver::end_to_end_until(contestant.address(), &topic, &frame, |sent| {
        sent < at_least || !done.load(Ordering::Acquire)
    });
    contestant.delete_topic(NOW)?;
    let mut latencies = latencies?;
    latencies.sort_unstable();
    Ok(latencies)
}

/// Writes a partition's files to the disk and lets go of them; proves that they are gone.
fn drop_from_cache(partition: &Path) -> Result<()> {
    rustix::fs::sync();
    let (mut all, mut resident) = (0.0, 0.0);
    for path in log_files(partition)? {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        page_cache::drop_file(&file)?;
        all += file.metadata()?.len() as f64;
        resident += page_cache::resident_bytes(&path)? as f64;
    }
    let part = resident / f64::max(all, 1.0);
    ensure!(part < RESIDENT_MAX, "{part:.3} of the old data are still in the page cache");
    Ok(())
}

fn log_files(partition: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(partition).with_context(|| format!("cannot list {}", partition.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    Ok(files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect())
}
