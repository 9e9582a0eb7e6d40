//! Ten thousand partitions on one broker: made, written to, killed, started again, and left alone (shell).
//!
//! The brokers are not those of the other parts of a run: each starts on an empty directory and is gone afterwards.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::driver::{self, Batch, Connection, in_threads};
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
/// So long after its start a broker looks for the first time for what it may delete; later every five minutes.
const FIRST_HOUSEKEEPING: Duration = Duration::from_secs(35);
/// With a look for what may be deleted and five checkpoints of what need not be recovered, which each minute has.
const IDLE: Duration = Duration::from_secs(330);
/// With a checkpoint only.
const IDLE_QUICK: Duration = Duration::from_secs(65);

/// Writers at once, where all partitions are to be written to within
const WRITERS: usize = 4;
/// so long before the kill -9. What was written earlier, a broker may have put in order since.
const FRESH: Duration = Duration::from_secs(1);
/// The first times may be slower: files are opened, and a checkpoint may be under way.
const ATTEMPTS: usize = 5;

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
    written_again: Row,
    ready_after_kill: Row,
    resident_after_kill: Row,
    /// Who was killed when not all was written to in the last moment, in whatever round.
    stale: BTreeSet<Subject>,
}

impl Rows {
    fn new(quick: bool) -> Self {
        let idle =
            if quick { "CPU idle, 65 s with a checkpoint and no retention" } else { "CPU idle" };
        let of = |what: &str| format!("10,000 partitions, {what}");
        Self {
            created: Row::least(of("created as ten times 1,000 topics"), "s"),
            created_in_one: Row::least("9,999 partitions, created as one topic", "s"),
            written: Row::least(of("first record to each, acks=all"), "s"),
            resident: Row::median(of("memory, resident"), "MiB"),
            open_files: Row::median(of("open files"), "files"),
            idle: Row::greatest(of(idle), "ms per s"),
            stopped: Row::least(of("stop"), "ms"),
            ready: Row::least(of("start after a clean stop"), "ms"),
            written_again: Row::greatest(of("a record to each before kill -9, four writers"), "s"),
            ready_after_kill: Row::greatest(of("all written, kill -9, start"), "ms"),
            resident_after_kill: Row::median(of("memory after that, resident"), "MiB"),
            stale: BTreeSet::new(),
        }
    }

    /// A start after a kill counts only if all were written to just before, in every round.
    fn into_vec(mut self) -> Vec<Row> {
        for subject in self.stale {
            self.ready_after_kill.withdraw(subject);
            self.resident_after_kill.withdraw(subject);
        }
        vec![
            self.created,
            self.created_in_one,
            self.written,
            self.resident,
            self.open_files,
            self.idle,
            self.stopped,
            self.ready,
            self.written_again,
            self.ready_after_kill,
            self.resident_after_kill,
        ]
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Rows::new(bench.quick);
    // Removed at the end: ext4 looks long for a free inode where tens of thousands have just been deleted.
    let mut directories = Vec::new();
    for subject in bench.solo_brokers() {
        // Apache Kafka takes minutes for one of these lives.
        let runs = if subject == Subject::Kafka { 1 } else { bench.runs };
        for run in 1..=runs {
            bench.say_run("10,000 partitions", run, subject);
            live(bench, subject, run, &mut rows, &mut directories)
                .with_context(|| format!("{} failed", subject.name()))?;
        }
    }
    Ok(Section::new(Stage::Partitions, rows.into_vec()))
}

fn live(
    bench: &Bench,
    subject: Subject,
    run: u32,
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
    let since_start = Instant::now();
    let topics = create(&contestant, rows)?;
    write(&contestant, &topics, Some(rows))?;
    rest(&contestant, rows)?;
    if run == 1 {
        // One window: it is long, and nobody chooses among several.
        thread::sleep(FIRST_HOUSEKEEPING.saturating_sub(since_start.elapsed()));
        idle(&contestant, if bench.quick { IDLE_QUICK } else { IDLE }, rows)?;
    }
    let started = Instant::now();
    contestant.broker.stop()?;
    rows.stopped.add(subject, milliseconds(started.elapsed()));
    contestant.broker.restart()?;
    rows.ready.add(subject, milliseconds(contestant.broker.ready_after()));
    let started = write_at_once(contestant.address(), &topics)?;
    contestant.broker.kill9()?;
    let since = started.elapsed();
    rows.written_again.add(subject, since.as_secs_f64());
    if since > FRESH {
        bench
            .say(&format!("kill -9 {since:?} after the first of the last records: does not count"));
        rows.stale.insert(subject);
    }
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

/// A request for each thousand partitions, with a record for each of them.
fn frames(topics: &[TopicId]) -> Result<Vec<Vec<u8>>> {
    let batch = Batch::filled(VALUE_LEN, 0)?;
    let frame = |topics: &[TopicId]| {
        wire::produce(topics.iter().map(|id| (id, &[0][..])), -1, &batch.bytes)
    };
    Ok(topics.chunks(PER_REQUEST).map(frame).collect())
}

/// One record to every partition from several writers, again until that takes no longer than it may; when the last time
/// began.
fn write_at_once(address: &str, topics: &[TopicId]) -> Result<Instant> {
    let frames = frames(topics)?;
    let mut started = Instant::now();
    for _ in 0..ATTEMPTS {
        started = Instant::now();
        in_threads(WRITERS, |writer| {
            let mut connection = Connection::open(address)?;
            let mut own = frames.iter().skip(writer).step_by(WRITERS);
            own.try_for_each(|frame| driver::until_known(&mut connection, frame, PER_REQUEST))
        })?;
        // The kill takes its time, too.
        if started.elapsed() < FRESH * 9 / 10 {
            break;
        }
    }
    Ok(started)
}

/// One record to every partition, a thousand in each request.
fn write(contestant: &Contestant, topics: &[TopicId], rows: Option<&mut Rows>) -> Result<()> {
    let frames = frames(topics)?;
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
    Ok(())
}

fn idle(contestant: &Contestant, window: Duration, rows: &mut Rows) -> Result<()> {
    let pid = contestant.pid()?;
    let before = procfs::cpu_time(pid)?;
    thread::sleep(window);
    let used = procfs::cpu_time(pid)?.saturating_sub(before);
    rows.idle.add(contestant.subject, milliseconds(used) / window.as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_counts_only_if_all_partitions_were_written_to_just_before_each_kill() {
        let mut rows = Rows::new(false);
        for (subject, is_stale) in [(Subject::Ottla, false), (Subject::Kafka, true)] {
            [1.0, 2.0].into_iter().for_each(|run| rows.ready_after_kill.add(subject, run));
            rows.ready.add(subject, 3.0);
            if is_stale {
                rows.stale.insert(subject);
            }
        }
        let rows = rows.into_vec();
        let of = |title: &str, subject| {
            rows.iter().find(|row| row.title.contains(title)).unwrap().counted(subject)
        };
        assert_eq!(of("all written, kill -9", Subject::Ottla), Some(2.0));
        assert_eq!(of("all written, kill -9", Subject::Kafka), None);
        assert_eq!(of("start after a clean stop", Subject::Kafka), Some(3.0));
    }

    #[test]
    fn a_short_run_says_that_it_looked_for_a_short_while() {
        let told = |quick| Rows::new(quick).idle.title;
        assert_eq!(told(false), "10,000 partitions, CPU idle");
        assert!(told(true).contains("65 s"));
        assert!(IDLE_QUICK > Duration::from_secs(60) && IDLE > Duration::from_secs(300));
    }
}
