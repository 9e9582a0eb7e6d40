//! CPU time and throughput of producing and consuming, with the driver (shell).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::driver::{self, Batch};
use super::subject::{Contestant, FloorProcess, warm_page_cache};
use super::table::{Row, Section, Subject};
use super::wire::{self, TopicId};
use super::{Bench, Stage, in_turn};

const GIGABYTE: f64 = 1e9;
const TOPIC: &str = "bench";

/// What every run reads so often: so that a floor, too, is at it for about a second of CPU time. What a program does
/// once, and what disturbs it, is a small part of that.
const SMALL_READ_PASSES: u32 = 10;
const LARGE_READ_PASSES: u32 = 5;

/// How the cost of a load is counted.
#[derive(Debug, Clone, Copy)]
enum Per {
    MillionRecords,
    Gigabyte,
}

/// Records of one size, in batches of one size.
#[derive(Debug)]
struct Load {
    name: &'static str,
    value_len: usize,
    batch: Batch,
    requests: u64,
    read_passes: u32,
    per: Per,
}

impl Load {
    fn records(&self) -> u64 {
        self.batch.records * self.requests
    }

    /// What lies on disk afterwards.
    fn bytes(&self) -> Result<u64> {
        Ok(u64::try_from(self.batch.bytes.len())? * self.requests)
    }

    /// How many of the row's units went through: millions of records, or GB of values.
    fn amount(&self) -> f64 {
        match self.per {
            Per::MillionRecords => self.records() as f64 / 1e6,
            Per::Gigabyte => self.records() as f64 * self.value_len as f64 / GIGABYTE,
        }
    }

    fn rows(&self, what: &str) -> Rows {
        let name = self.name;
        let (cost, speed, speed_factor) = match self.per {
            Per::MillionRecords => ("CPU s per million", "thousand records/s", 1e3),
            Per::Gigabyte => ("CPU s per GB", "MB/s", 1e3),
        };
        Rows {
            cost: Row::least(format!("{what} {name}"), cost),
            speed: Row::most(format!("{what} {name}, one connection"), speed),
            speed_factor,
        }
    }
}

/// Cost and throughput of the same runs.
struct Rows {
    cost: Row,
    speed: Row,
    /// From units per second to the speed's unit.
    speed_factor: f64,
}

impl Rows {
    fn add(&mut self, subject: Subject, amount: f64, elapsed: Duration, cpu: Duration) {
        self.cost.add(subject, cpu.as_secs_f64() / amount);
        self.speed.add(subject, amount / elapsed.as_secs_f64() * self.speed_factor);
    }
}

/// 100-byte records in batches of the client's default size, 1 KiB records in larger ones.
fn loads(bench: &Bench) -> Result<[Load; 2]> {
    let small = Batch::filled(100, 16 * 1024)?;
    let large = Batch::filled(1024, 64 * 1024)?;
    let small_requests = bench.scale.small_records / small.records;
    let large_requests = bench.scale.large_records / large.records;
    Ok([
        Load {
            name: "100-byte records",
            value_len: 100,
            batch: small,
            requests: small_requests,
            read_passes: SMALL_READ_PASSES,
            per: Per::MillionRecords,
        },
        Load {
            name: "1 KiB records",
            value_len: 1024,
            batch: large,
            requests: large_requests,
            read_passes: LARGE_READ_PASSES,
            per: Per::Gigabyte,
        },
    ])
}

pub(super) fn produce(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for load in loads(bench)? {
        for (acks, acks_name) in [(1, "acks=1"), (-1, "acks=all")] {
            let mut pair = load.rows(&format!("produce, {acks_name},"));
            for (run, subject) in in_turn(&bench.subjects, bench.runs) {
                if subject == Subject::FlushingFloor && acks == 1 {
                    continue;
                }
                bench.say_run(&pair.cost.title, run, subject);
                warm_page_cache(&bench.directory, load.bytes()?)?;
                let (elapsed, cpu) = produce_once(bench, subject, &load, acks)?;
                if run > 0 {
                    pair.add(subject, load.amount(), elapsed, cpu);
                }
            }
            rows.extend([pair.cost, pair.speed]);
        }
    }
    Ok(Section::new(Stage::Produce, rows))
}

fn produce_once(
    bench: &Bench,
    subject: Subject,
    load: &Load,
    acks: i16,
) -> Result<(Duration, Duration)> {
    let Some(contestant) = bench.contestant(subject) else {
        let mut frame = wire::produce(&TopicId::default(), acks, &load.batch.bytes);
        return to_floor(bench, subject, &mut frame, load.requests);
    };
    let topic = contestant.create_topic(TOPIC)?;
    let measured = contestant.cpu(|| send(contestant.address(), &topic, load, acks))?;
    contestant.delete_topic(TOPIC)?;
    Ok(measured)
}

/// Sends a request so many times to a floor, over the one connection that it serves.
pub(super) fn to_floor(
    bench: &Bench,
    subject: Subject,
    frame: &mut [u8],
    requests: u64,
) -> Result<(Duration, Duration)> {
    let file = floor_file(bench);
    let floor = FloorProcess::receive(&file, subject == Subject::FlushingFloor)?;
    let measured = floor.cpu(|| driver::produce(&floor.address, frame, requests));
    std::fs::remove_file(&file).context("cannot remove the floor's file")?;
    measured
}

fn send(address: &str, topic: &TopicId, load: &Load, acks: i16) -> Result<Duration> {
    let mut frame = wire::produce(topic, acks, &load.batch.bytes);
    driver::produce(address, &mut frame, load.requests)
}

pub(super) fn consume(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for load in loads(bench)? {
        let sources = fill(bench, &load)?;
        let mut pair = load.rows("consume,");
        for (run, subject) in in_turn(&bench.subjects, bench.runs) {
            let Some(source) = sources.iter().find(|source| source.subject() == subject) else {
                continue;
            };
            bench.say_run(&pair.cost.title, run, subject);
            let (elapsed, cpu) = source.read(&load)?;
            if run > 0 {
                pair.add(subject, load.amount() * f64::from(load.read_passes), elapsed, cpu);
            }
        }
        for source in sources {
            source.remove()?;
        }
        rows.extend([pair.cost, pair.speed]);
    }
    Ok(Section::new(Stage::Consume, rows))
}

/// Data that lies in the page cache, and who serves it.
enum Source<'a> {
    Topic(&'a Contestant, TopicId),
    File(PathBuf, u64),
}

/// Writes the same bytes for every subject.
fn fill<'a>(bench: &'a Bench, load: &Load) -> Result<Vec<Source<'a>>> {
    let mut sources = Vec::new();
    for contestant in &bench.contestants {
        bench.say(&format!("filling a topic of {}", contestant.subject.name()));
        let topic = contestant.create_topic(TOPIC)?;
        send(contestant.address(), &topic, load, 1)?;
        sources.push(Source::Topic(contestant, topic));
    }
    if bench.subjects.contains(&Subject::Floor) {
        let file = floor_file(bench);
        let floor = FloorProcess::receive(&file, false)?;
        send(&floor.address, &TopicId::default(), load, 1)?;
        sources.push(Source::File(file, load.bytes()?));
    }
    // What was written must not be on its way to the disk while others are read.
    rustix::fs::sync();
    Ok(sources)
}

impl Source<'_> {
    fn subject(&self) -> Subject {
        match self {
            Self::Topic(contestant, _) => contestant.subject,
            Self::File(..) => Subject::Floor,
        }
    }

    fn read(&self, load: &Load) -> Result<(Duration, Duration)> {
        match self {
            Self::Topic(contestant, topic) => {
                let end = i64::try_from(load.records())?;
                let pass = || driver::consume(contestant.address(), topic, end);
                contestant.cpu(|| (0..load.read_passes).map(|_| pass()).sum())
            }
            Self::File(file, bytes) => {
                let floor = FloorProcess::send(file, 1)?;
                floor.cpu(|| driver::drain(&floor.address, *bytes * u64::from(load.read_passes)))
            }
        }
    }

    fn remove(self) -> Result<()> {
        match self {
            Self::Topic(contestant, _) => contestant.delete_topic(TOPIC),
            Self::File(file, _) => {
                std::fs::remove_file(file).context("cannot remove the floor's file")
            }
        }
    }
}

pub(super) fn floor_file(bench: &Bench) -> PathBuf {
    bench.directory.join("floor.log")
}
