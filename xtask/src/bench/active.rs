//! How long an acknowledgement from the disk takes when the records go to many partitions (shell).
//!
//! Requests are due at fixed times, whatever the answers do: a late answer does not delay the next request, and every
//! latency counts from when its request was due.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::driver::{self, Batch, Connection, in_threads};
use super::latency::percentile;
use super::subject::Contestant;
use super::table::{Row, Section, Subject};
use super::wire::many as wire;
use super::wire::{TopicId, produced};
use super::{Bench, Stage, in_turn, milliseconds};

/// How many partitions take turns.
const ACTIVE: [i32; 4] = [1, 100, 1_000, 10_000];
/// Apache Kafka creates and deletes more of them for minutes, beside the brokers whose turn it is then.
const KAFKA_MAX: i32 = 1_000;
/// No more fit into one request that creates a topic: Apache Kafka's own limit.
const PER_TOPIC_MAX: i32 = 5_000;
const VALUE_LEN: usize = 100;
const ACKS_ALL: i16 = -1;
/// Each with a connection and a share of the requests.
const PRODUCERS: usize = 16;
/// Of all producers together: a few in each flush, far from what the machine can do.
const REQUESTS_PER_SECOND: u32 = 1_000;
const SECONDS: u64 = 5;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for active in ACTIVE {
        let title = format!("acks=all, 1,000 requests/s in turn to {active} partitions");
        let mut p50 = Row::least(format!("{title}, p50"), "ms");
        let mut p99 = Row::median(format!("{title}, p99"), "ms");
        let mut brokers = bench.brokers();
        brokers.retain(|subject| *subject != Subject::Kafka || active <= KAFKA_MAX);
        // Once, and for the rest of the run: ext4 looks long for a free inode where thousands have just been deleted.
        let mut targets = BTreeMap::new();
        for contestant in brokers.iter().filter_map(|subject| bench.contestant(*subject)) {
            targets.insert(contestant.subject, create(contestant, active)?);
        }
        for (run, subject) in in_turn(&brokers, bench.runs) {
            let Some(contestant) = bench.contestant(subject) else { continue };
            bench.say_run(&title, run, subject);
            let latencies = once(contestant, targets.get(&subject).context("no partitions")?)
                .with_context(|| format!("{} failed", subject.name()))?;
            if run > 0 {
                let at = |share| percentile(&latencies, share).context("no latencies");
                p50.add(subject, milliseconds(at(0.5)?));
                p99.add(subject, milliseconds(at(0.99)?));
            }
        }
        rows.extend([p50, p99]);
    }
    Ok(Section::new(Stage::Active, rows))
}

/// Latencies in rising order.
fn once(contestant: &Contestant, targets: &[(TopicId, i32)]) -> Result<Vec<Duration>> {
    let batch = Batch::filled(VALUE_LEN, 0)?.bytes;
    let start = Instant::now();
    let address = contestant.address();
    let produced =
        in_threads(PRODUCERS, |number| produce(address, number, targets, &batch, start))?;
    let mut latencies = produced.concat();
    latencies.sort_unstable();
    Ok(latencies)
}

/// The partitions of new topics, each written to once.
fn create(contestant: &Contestant, active: i32) -> Result<Vec<(TopicId, i32)>> {
    let batch = Batch::filled(VALUE_LEN, 0)?.bytes;
    let mut connection = Connection::open(contestant.address())?;
    let mut targets = Vec::new();
    for (name, partitions) in topics(active) {
        let topic = driver::create_topic(contestant.address(), &name, partitions)?;
        let partitions: Vec<i32> = (0..partitions).collect();
        let all = [(&topic, partitions.as_slice())];
        let frame = wire::produce(all.into_iter(), ACKS_ALL, &batch);
        driver::until_known(&mut connection, &frame, partitions.len())?;
        targets.extend(partitions.into_iter().map(|partition| (topic, partition)));
    }
    Ok(targets)
}

/// Names and partitions of the topics that have so many in all.
fn topics(active: i32) -> impl Iterator<Item = (String, i32)> {
    let starts = (0..active).step_by(PER_TOPIC_MAX as usize);
    starts
        .map(move |start| (format!("active-{active}-{start}"), (active - start).min(PER_TOPIC_MAX)))
}

/// One producer's share: request number `n` of all of them is due at `n` times the interval, and goes to partition
/// `n` modulo their number.
fn produce(
    address: &str,
    number: usize,
    targets: &[(TopicId, i32)],
    batch: &[u8],
    start: Instant,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let interval = Duration::from_secs(1) / REQUESTS_PER_SECOND;
    let all = usize::try_from(u64::from(REQUESTS_PER_SECOND) * SECONDS)?;
    let mut latencies = Vec::new();
    for request in (number..all).step_by(PRODUCERS) {
        let due = start + interval * u32::try_from(request)?;
        let (topic, partition) = targets.get(request % targets.len()).context("no partitions")?;
        let partition = [*partition];
        let target = [(topic, partition.as_slice())];
        let frame = wire::produce(target.into_iter(), ACKS_ALL, batch);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        produced(connection.call(&frame)?)?;
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}
