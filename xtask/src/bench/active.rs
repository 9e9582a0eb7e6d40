//! How long an acknowledgement from the disk takes when the records go to many partitions (shell).
//!
//! Each request has batches for many partitions, as those of a producer to many partitions have, and several
//! arrive at once, so that one flush has hundreds of logs to make durable, however quick the disk is. Beside it the same
//! requests with the same bytes in one batch for one partition.
//!
//! Requests are due at fixed times, whatever the answers do: a late answer does not delay the next request of another
//! connection, and every latency counts from when its request was due.
//!
//! The subjects share a file system, and a flush of all of it writes what any of them has left: each run begins with nothing
//! left. Partitions have different lengths to begin with, as those of a running cluster do: if all were of one, all would
//! need the next page of their files in the same moment.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::disk;
use super::driver::{self, Batch, Connection, in_threads};
use super::latency::percentile;
use super::subject::Contestant;
use super::table::{Row, Section, Subject};
use super::wire::TopicId;
use super::wire::many as wire;
use super::{Bench, Stage, in_turn, milliseconds};

/// How many partitions take turns.
const ACTIVE: [i32; 4] = [1, 100, 1_000, 10_000];
/// Apache Kafka creates and deletes more of them for minutes, beside the brokers whose turn it is then.
const KAFKA_MAX: i32 = 1_000;
/// No more fit into one request that creates a topic: Apache Kafka's own limit.
const PER_TOPIC_MAX: i32 = 5_000;
const VALUE_LEN: usize = 100;
const ACKS_ALL: i16 = -1;
/// Each with a connection, a share of the requests, and one request in flight.
const PRODUCERS: usize = 16;
/// Of all producers together.
const REQUESTS_PER_SECOND: u32 = 200;
/// Due at the same moment, from as many connections: with those batches they are for some five hundred partitions.
const AT_ONCE: usize = 8;
const SECONDS: u32 = 5;
const REQUESTS: u32 = REQUESTS_PER_SECOND * SECONDS;
/// As many partitions get a batch with each request, where there are so many.
const BATCHES: usize = 64;
/// A partition that is written to less often is not active.
const WRITES_MIN: usize = 5;
/// How many lengths partitions have to begin with, spread over a page of a file.
const LENGTHS: usize = 16;
const PAGE_LEN: usize = 4096;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for active in ACTIVE {
        let title = title(active);
        let mut p50 = Row::percentile(0.5, format!("{title}, p50"), "ms");
        let mut p99 = Row::percentile(0.99, format!("{title}, p99"), "ms");
        let mut shared = Row::median(format!("{title}, for each flush of the disk"), "batches");
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
            disk::write_everything(&bench.directory)?;
            let flushes = disk::flushes(&bench.directory)?;
            let latencies = once(contestant, targets.get(&subject).context("no partitions")?)
                .with_context(|| format!("{} failed", subject.name()))?;
            let flushes = disk::flushes(&bench.directory)?.saturating_sub(flushes);
            if run > 0 {
                let at = |share| percentile(&latencies, share).context("no latencies");
                p50.add(subject, milliseconds(at(0.5)?));
                p99.add(subject, milliseconds(at(0.99)?));
                // The others answer from the page cache.
                if subject == Subject::Ottla {
                    let batches =
                        latencies.len() * batches(targets.get(&subject).map_or(0, Vec::len));
                    shared.add(subject, batches as f64 / f64::from(u32::try_from(flushes.max(1))?));
                }
            }
        }
        rows.extend([p50, p99, shared]);
    }
    Ok(Section::new(Stage::Active, rows))
}

fn title(active: i32) -> String {
    format!("acks=all, {REQUESTS_PER_SECOND} requests/s to {active} partitions")
}

/// How many batches a request has.
fn batches(active: usize) -> usize {
    BATCHES.min(active)
}

/// Those whose turn it is with this request: the ones after those of the request before, and after the last the first.
fn turn<T: Copy>(targets: &[T], request: usize) -> impl Iterator<Item = T> {
    let batches = batches(targets.len());
    targets.iter().copied().cycle().skip(request * batches % targets.len().max(1)).take(batches)
}

/// What each partition gets of a request: one record, or so many that they have the bytes of the batches that a
/// request to many partitions has.
fn batch(active: usize) -> Result<Vec<u8>> {
    let one = Batch::filled(VALUE_LEN, 0)?.bytes;
    match BATCHES / batches(active).max(1) {
        0 | 1 => Ok(one),
        times => Ok(Batch::filled(VALUE_LEN, one.len() * times)?.bytes),
    }
}

/// Latencies in rising order.
fn once(contestant: &Contestant, targets: &[(TopicId, i32)]) -> Result<Vec<Duration>> {
    let batch = batch(targets.len())?;
    let writes = usize::try_from(REQUESTS)? * batches(targets.len()) / targets.len().max(1);
    ensure!(writes >= WRITES_MIN, "a partition is written to {writes} times only");
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
    let mut connection = Connection::open(contestant.address())?;
    let mut targets = Vec::new();
    for (name, partitions) in topics(active) {
        let topic = driver::create_topic(contestant.address(), &name, partitions)?;
        for (length, first) in first_batches()?.into_iter().enumerate() {
            let of_length: Vec<i32> = (0..partitions).skip(length).step_by(LENGTHS).collect();
            if !of_length.is_empty() {
                let all = [(&topic, of_length.as_slice())];
                let frame = wire::produce(all.into_iter(), ACKS_ALL, &first);
                driver::until_known(&mut connection, &frame, of_length.len())?;
            }
        }
        targets.extend((0..partitions).map(|partition| (topic, partition)));
    }
    Ok(targets)
}

/// What a partition begins with, by its number modulo [`LENGTHS`].
fn first_batches() -> Result<Vec<Vec<u8>>> {
    let lengths = (0..LENGTHS).map(|number| VALUE_LEN + number * PAGE_LEN / LENGTHS);
    lengths.map(|len| Ok(Batch::filled(len, 0)?.bytes)).collect()
}

/// Names and partitions of the topics that have so many in all.
fn topics(active: i32) -> impl Iterator<Item = (String, i32)> {
    let starts = (0..active).step_by(PER_TOPIC_MAX as usize);
    starts
        .map(move |start| (format!("active-{active}-{start}"), (active - start).min(PER_TOPIC_MAX)))
}

/// One producer's share of all requests.
fn produce(
    address: &str,
    number: usize,
    targets: &[(TopicId, i32)],
    batch: &[u8],
    start: Instant,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let mut latencies = Vec::new();
    for request in (number..usize::try_from(REQUESTS)?).step_by(PRODUCERS) {
        let due = start + due_after(request)?;
        let frame = frame(targets, request, batch);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let taken = wire::all_produced(connection.call(&frame)?)?;
        ensure!(taken == batches(targets.len()), "{taken} partitions took their batch");
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

/// Those that are due at once take the time of all of them.
fn due_after(request: usize) -> Result<Duration> {
    let before = u32::try_from(request - request % AT_ONCE)?;
    Ok(Duration::from_secs(1) * before / REQUESTS_PER_SECOND)
}

fn frame(targets: &[(TopicId, i32)], request: usize, batch: &[u8]) -> Vec<u8> {
    let turn: Vec<_> = turn(targets, request).collect();
    let of_topics = turn.chunk_by(|one, other| one.0 == other.0);
    let of_topics: Vec<(TopicId, Vec<i32>)> = of_topics
        .filter_map(|chunk| Some((chunk.first()?.0, chunk.iter().map(|it| it.1).collect())))
        .collect();
    let of_topics = of_topics.iter().map(|(topic, partitions)| (topic, partitions.as_slice()));
    wire::produce(of_topics, ACKS_ALL, batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_written_to_again_and_again() {
        for active in ACTIVE {
            let active = usize::try_from(active).unwrap();
            let targets: Vec<usize> = (0..active).collect();
            let mut writes = vec![0; active];
            for request in 0..usize::try_from(REQUESTS).unwrap() {
                turn(&targets, request).for_each(|target| writes[target] += 1);
            }
            let (least, most) = (writes.iter().min().unwrap(), writes.iter().max().unwrap());
            assert!(*least >= WRITES_MIN && most - least <= 1, "{active}: {least} to {most} times");
        }
    }

    #[test]
    fn a_request_has_each_partition_once() {
        for active in [1, 63, 64, 65, 1_000] {
            let targets: Vec<usize> = (0..active).collect();
            for request in 0..100 {
                let mut turn: Vec<_> = turn(&targets, request).collect();
                turn.sort_unstable();
                turn.dedup();
                assert_eq!(turn.len(), batches(active));
            }
        }
    }

    #[test]
    fn some_requests_are_due_at_once_and_come_from_connections_of_their_own() {
        let due: Vec<_> = (0..2 * AT_ONCE).map(|request| due_after(request).unwrap()).collect();
        let (first, second) = due.split_at(AT_ONCE);
        assert!(first.iter().all(Duration::is_zero));
        assert!(second.iter().all(|due| *due == Duration::from_millis(40)));
        const { assert!(AT_ONCE <= PRODUCERS && AT_ONCE * BATCHES > 500) };
    }

    #[test]
    fn partitions_begin_at_different_places_of_a_page() {
        let lengths: Vec<_> = first_batches().unwrap().iter().map(Vec::len).collect();
        let steps: Vec<_> = lengths.windows(2).map(|two| two[1] - two[0]).collect();
        // A longer value needs a byte more for its length, and so does a longer record.
        assert!(steps.iter().all(|step| step.abs_diff(PAGE_LEN / LENGTHS) <= 2), "{steps:?}");
        assert!((lengths[LENGTHS - 1] - lengths[0]).abs_diff(PAGE_LEN - PAGE_LEN / LENGTHS) <= 2);
    }

    #[test]
    fn one_partition_gets_the_bytes_that_many_get() {
        let bytes = |active| batch(active).unwrap().len() * batches(active);
        let (one, many) = (bytes(1), bytes(1_000));
        assert!(one <= many && one > many - many / 50, "{one} and {many} bytes");
    }
}
