//! What a topic costs when there are many (shell).

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::{ErrorCode, Timestamp, Uuid};
use ottla_protocol::Records;
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{CreateTopicsRequest, ProduceRequest};
use ottla_records::{BatchBuilder, Compression};

use super::session::{SETTINGS, Session};
use super::{Length, Test};
use crate::bench::procfs::{cpu_time, mebibytes};
use crate::broker::{Broker, Target};
use crate::side_by_side::subject::Subject;

pub(super) fn tests() -> Vec<Test> {
    let name = "scale: the last of many topics, created one by one, costs what the first cost";
    vec![
        Test::new(name, &[], create_many).without_broker(),
        Test::new(WRITTEN_TO_ALL, &[], write_to_all).without_broker(),
    ]
}

const WRITTEN_TO_ALL: &str = "scale: a thousand topics come with one request, and kill -9 right after a record to each loses none of them";

/// How many topics are created, how many of them are compared at either end, and how much more the last may cost.
///
/// The short form runs beside whatever else the machine does, and its few topics are over in a moment.
const SHORT: Plan = Plan { topics: 1_500, compared: 500, factor_max: 3.0 };
const LONG: Plan = Plan { topics: 10_000, compared: 1_000, factor_max: 1.5 };

#[derive(Debug, Clone, Copy)]
struct Plan {
    topics: usize,
    compared: usize,
    factor_max: f64,
}

/// Times are taken in pieces of so many topics: a neighbour on the machine disturbs some of them, not their median.
const PIECE: usize = 50;

/// What a number of topics took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Of a typical piece.
    elapsed: Duration,
    /// Of the broker, which no neighbour on the machine adds to.
    cpu: Duration,
}

fn create_many(session: &mut Session) -> Result<()> {
    let target = session.target();
    // What we promise for a night's many topics is not Apache Kafka's promise.
    let plan = match (target, session.length) {
        (Target::Ottla, Length::Long) => LONG,
        (Target::Kafka, _) | (Target::Ottla, Length::Short) => SHORT,
    };
    let mut broker = target.start(&session.directory().join("scale"), SETTINGS)?;
    let mut subject = Subject::connect(&broker)?;
    let mut costs = Vec::new();
    for first in (0..plan.topics).step_by(plan.compared) {
        costs.push(create(&mut subject, &broker, first..first + plan.compared)?);
    }
    let resident =
        mebibytes(&format!("/proc/{}/status", broker.pid().unwrap_or_default()), "VmRSS:")?;
    print(&plan, &costs, resident);
    judge(&plan, &costs)?;
    starts_again(&mut broker, plan.topics)
}

const TOPICS: usize = 1_000;
/// A tenth of what ten thousand may take, and ten times that for a machine that does other things, too.
const READY_MAX: Duration = Duration::from_secs(2);
const CREATED_MAX: Duration = Duration::from_secs(10);

fn write_to_all(session: &mut Session) -> Result<()> {
    let target = session.target();
    let mut broker = target.start(&session.directory().join("scale-written"), SETTINGS)?;
    let mut subject = Subject::connect(&broker)?;
    let started = Instant::now();
    let topics = (0..TOPICS).map(named).collect();
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let answer = subject.expect(7, &request)?;
    let created = started.elapsed();
    let failed = answer.topics.iter().find(|topic| topic.error_code != ErrorCode::NONE);
    ensure!(failed.is_none(), "not created: {failed:?}");
    let ids: Vec<Uuid> = answer.topics.iter().map(|topic| topic.topic_id).collect();
    write_once(&mut subject, &ids, 0)?;
    broker.kill9()?;
    broker.restart()?;
    let ready = broker.ready_after();
    println!(
        "       {TOPICS} topics in {} ms; ready {} ms after kill -9",
        created.as_millis(),
        ready.as_millis()
    );
    // The next offset tells that the record before it is there.
    write_once(&mut Subject::connect(&broker)?, &ids, 1)?;
    if target == Target::Ottla {
        ensure!(created <= CREATED_MAX, "the topics took {created:?}");
        ensure!(ready <= READY_MAX, "ready only {ready:?} after kill -9");
    }
    broker.stop()
}

/// Writes a record to every topic, as soon as the broker knows all of them: each gets this offset.
fn write_once(subject: &mut Subject, ids: &[Uuid], offset: i64) -> Result<()> {
    let mut left = ids.to_vec();
    let deadline = Instant::now() + KNOWN_LIMIT;
    while !left.is_empty() {
        ensure!(Instant::now() < deadline, "{} topics do not take their record", left.len());
        let answer = subject.expect(13, &one_record_each(&left))?;
        let partitions = answer.responses.iter().flat_map(|topic| {
            topic.partition_responses.iter().map(|partition| (topic.topic_id, partition))
        });
        for (id, partition) in partitions {
            if partition.error_code == ErrorCode::NONE {
                ensure!(partition.base_offset == offset, "a record is at {partition:?}");
                left.retain(|other| *other != id);
            }
        }
    }
    Ok(())
}

/// Apache Kafka answers CreateTopics before its broker has applied it.
const KNOWN_LIMIT: Duration = Duration::from_secs(30);

fn one_record_each(ids: &[Uuid]) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), None, Some(b"one of a thousand"), &[]);
    let batch = builder.build_bytes();
    let data = |id: &Uuid| TopicProduceData {
        topic_id: *id,
        partition_data: vec![PartitionProduceData {
            index: 0,
            records: Some(Records::Bytes(batch.clone())),
        }],
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: ids.iter().map(data).collect(),
        ..Default::default()
    }
}

fn named(number: usize) -> CreatableTopic {
    CreatableTopic {
        name: format!("many-{number}").into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    }
}

fn create(subject: &mut Subject, broker: &Broker, numbers: Range<usize>) -> Result<Cost> {
    let pid = broker.pid().context("the broker is gone")?;
    let cpu = cpu_time(pid)?;
    let mut pieces = Vec::new();
    for first in numbers.step_by(PIECE) {
        let started = Instant::now();
        create_piece(subject, first..first + PIECE)?;
        pieces.push(started.elapsed());
    }
    pieces.sort();
    let elapsed = *pieces.get(pieces.len() / 2).context("no topics")?;
    Ok(Cost { elapsed, cpu: cpu_time(pid)?.saturating_sub(cpu) })
}

fn create_piece(subject: &mut Subject, numbers: Range<usize>) -> Result<()> {
    for number in numbers {
        let topics = vec![named(number)];
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let answer = subject.expect(7, &request)?;
        let code = answer.topics.first().context("the answer names no topic")?.error_code;
        ensure!(code == ErrorCode::NONE, "topic {number}: {code:?}");
    }
    Ok(())
}

fn print(plan: &Plan, costs: &[Cost], resident_mib: f64) {
    let piece = f64::from(u32::try_from(PIECE).unwrap_or(u32::MAX));
    let compared = f64::from(u32::try_from(plan.compared).unwrap_or(u32::MAX));
    let shown: Vec<String> = costs
        .iter()
        .map(|cost| {
            let elapsed = cost.elapsed.as_secs_f64() * 1000.0 / piece;
            let cpu = cost.cpu.as_secs_f64() * 1000.0 / compared;
            format!("{elapsed:.2}/{cpu:.2}")
        })
        .collect();
    println!(
        "       {} topics, {} after {}: elapsed/CPU ms per topic {}; {resident_mib:.0} MiB resident",
        plan.topics,
        plan.compared,
        plan.compared,
        shown.join(" ")
    );
}

fn judge(plan: &Plan, costs: &[Cost]) -> Result<()> {
    let (Some(first), Some(last)) = (costs.first(), costs.last()) else { return Ok(()) };
    let factor = |last: Duration, first: Duration| last.as_secs_f64() / first.as_secs_f64();
    let elapsed = factor(last.elapsed, first.elapsed);
    let cpu = factor(last.cpu, first.cpu);
    ensure!(
        elapsed.max(cpu) <= plan.factor_max,
        "the last {} topics cost {elapsed:.2} times the time and {cpu:.2} times the CPU of the first, {} at most",
        plan.compared,
        plan.factor_max
    );
    Ok(())
}

fn starts_again(broker: &mut Broker, topics: usize) -> Result<()> {
    broker.kill9()?;
    broker.restart()?;
    let there = Subject::connect(broker)?.topic_count();
    ensure!(there == topics, "{there} of {topics} topics are there after kill -9");
    println!("       after kill -9 it is ready in {} ms", broker.ready_after().as_millis());
    broker.stop()
}
