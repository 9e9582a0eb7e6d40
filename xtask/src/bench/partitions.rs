//! Ten thousand partitions on one broker: made, written to, killed, started again, and left alone (shell).
//!
//! The brokers are not those of the other parts of a run: each starts on an empty directory and is gone afterwards.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::driver::{self, Batch, Connection};
use super::subject::Contestant;
use super::table::{Row, Section, Subject};
use super::wire::many as wire;
use super::wire::{TopicId, create_topic, created};
use super::{Bench, Directory, Stage, milliseconds, procfs};

const PARTITIONS: usize = 10_000;
/// No more fit into one request: a topic and its partitions are at most 10,000 records, for Apache Kafka, too.
const WIDE_PARTITIONS: i32 = 9_999;
/// Requests of a thousand topics, or of a thousand batches.
const PER_REQUEST: usize = 1_000;
const VALUE_LEN: usize = 100;
/// A broker that is starting its thousands of logs may not be idle yet when it is ready.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

/// The rows in the order in which a broker's life fills them.
struct Rows {
    created: Row,
    created_in_one: Row,
    written: Row,
    resident: Row,
    open_files: Row,
    idle: Row,
    stopped: Row,
    ready: Row,
    ready_after_kill: Row,
    resident_after_kill: Row,
}

impl Rows {
    fn new() -> Self {
        let of = |what: &str| format!("10,000 partitions, {what}");
        Self {
            created: Row::least(of("created as ten times 1,000 topics"), "s"),
            created_in_one: Row::least("9,999 partitions, created as one topic", "s"),
            written: Row::least(of("first record to each, acks=all"), "s"),
            resident: Row::median(of("memory, resident"), "MiB"),
            open_files: Row::median(of("open files"), "files"),
            idle: Row::greatest(of("CPU idle"), "ms per s"),
            stopped: Row::least(of("stop"), "ms"),
            ready: Row::least(of("start after a clean stop"), "ms"),
            ready_after_kill: Row::greatest(of("all written, kill -9, start"), "ms"),
            resident_after_kill: Row::median(of("memory after that, resident"), "MiB"),
        }
    }

    fn into_vec(self) -> Vec<Row> {
        vec![
            self.created,
            self.created_in_one,
            self.written,
            self.resident,
            self.open_files,
            self.idle,
            self.stopped,
            self.ready,
            self.ready_after_kill,
            self.resident_after_kill,
        ]
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Rows::new();
    // Removed at the end: ext4 looks long for a free inode where tens of thousands have just been deleted.
    let mut directories = Vec::new();
    for subject in bench.solo_brokers() {
        // Apache Kafka takes minutes for one of these lives.
        let runs = if subject == Subject::Kafka { 1 } else { bench.runs };
        for run in 1..=runs {
            bench.say_run("10,000 partitions", run, subject);
            live(bench, subject, &mut rows, &mut directories)
                .with_context(|| format!("{} failed", subject.name()))?;
        }
    }
    Ok(Section::new(Stage::Partitions, rows.into_vec()))
}

fn live(
    bench: &Bench,
    subject: Subject,
    rows: &mut Rows,
    directories: &mut Vec<Directory>,
) -> Result<()> {
    let mut start = || {
        let directory = bench.empty_directory(&format!("partitions-{}", directories.len()))?;
        let contestant = Contestant::start(subject, &directory.0);
        directories.push(directory);
        contestant
    };
    let mut contestant = start()?;
    let topics = create(&contestant, rows)?;
    write(&contestant, &topics, Some(rows))?;
    rest(&contestant, rows)?;
    let started = Instant::now();
    contestant.broker.stop()?;
    rows.stopped.add(subject, milliseconds(started.elapsed()));
    contestant.broker.restart()?;
    rows.ready.add(subject, milliseconds(contestant.broker.ready_after()));
    write(&contestant, &topics, None)?;
    contestant.broker.kill9()?;
    contestant.broker.restart()?;
    rows.ready_after_kill.add(subject, milliseconds(contestant.broker.ready_after()));
    rows.resident_after_kill.add(subject, procfs::memory(contestant.pid()?)?.resident);
    // Ready is who serves: every partition takes another record.
    write(&contestant, &topics, None)?;
    contestant.broker.kill9()?;
    let contestant = start()?;
    let mut connection = Connection::open(contestant.address())?;
    let started = Instant::now();
    let frame = create_topic("wide", WIDE_PARTITIONS);
    created(connection.call(&frame)?)?;
    rows.created_in_one.add(subject, started.elapsed().as_secs_f64());
    Ok(())
}

fn create(contestant: &Contestant, rows: &mut Rows) -> Result<Vec<TopicId>> {
    let names: Vec<String> = (0..PARTITIONS).map(|number| format!("many-{number}")).collect();
    let mut connection = Connection::open(contestant.address())?;
    let mut topics = Vec::new();
    let started = Instant::now();
    for names in names.chunks(PER_REQUEST) {
        topics.extend(wire::all_created(connection.call(&wire::create_topics(names))?)?);
    }
    rows.created.add(contestant.subject, started.elapsed().as_secs_f64());
    ensure!(topics.len() == PARTITIONS, "{} topics were created", topics.len());
    Ok(topics)
}

/// One record to every partition, a thousand in each request.
fn write(contestant: &Contestant, topics: &[TopicId], rows: Option<&mut Rows>) -> Result<()> {
    let batch = Batch::filled(VALUE_LEN, 0)?;
    let frames: Vec<_> = topics
        .chunks(PER_REQUEST)
        .map(|topics| wire::produce(topics.iter().map(|id| (id, &[0][..])), -1, &batch.bytes))
        .collect();
    let mut connection = Connection::open(contestant.address())?;
    let started = Instant::now();
    for frame in &frames {
        driver::until_known(&mut connection, frame, PER_REQUEST)?;
    }
    if let Some(rows) = rows {
        rows.written.add(contestant.subject, started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn rest(contestant: &Contestant, rows: &mut Rows) -> Result<()> {
    thread::sleep(SETTLE);
    let (subject, pid) = (contestant.subject, contestant.pid()?);
    rows.resident.add(subject, procfs::memory(pid)?.resident);
    let open_files = std::fs::read_dir(PathBuf::from(format!("/proc/{pid}/fd")))?.count();
    rows.open_files.add(subject, f64::from(u32::try_from(open_files)?));
    let before = procfs::cpu_time(pid)?;
    thread::sleep(IDLE);
    let used = procfs::cpu_time(pid)?.saturating_sub(before);
    rows.idle.add(subject, milliseconds(used) / IDLE.as_secs_f64());
    Ok(())
}
