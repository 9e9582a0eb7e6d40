//! Kills the broker again and again under a producer: what was acknowledged stays (shell).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::adapter::{Adapter, Library, number};
use super::session::{SETTINGS, Session, eventually};
use super::{Length, Test};
use crate::broker::Target;

const TOPIC: &str = "stream";
const PARTITIONS: i32 = 3;
/// How many acknowledgements each life of the broker must earn before it is killed.
const PER_LIFE: i64 = 1_500;

/// What a producer may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// None is missing, none has moved; a retry may have written a record twice.
    AtLeastOnce,
    /// Its records are there once each, with nothing between them.
    ExactlyOnce,
}

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, promise| {
        let name = format!("durability: {sentence}");
        let run = move |session: &mut Session| kill_again_and_again(session, promise);
        Test::new(name, Library::Confluent.needs(), run).without_broker()
    };
    vec![
        test(
            "what was acknowledged survives kill -9 after kill -9, in order",
            Promise::AtLeastOnce,
        ),
        test(
            "what an idempotent producer retries across kill -9 is there once, in order",
            Promise::ExactlyOnce,
        ),
    ]
}

fn kill_again_and_again(session: &mut Session, promise: Promise) -> Result<()> {
    let target = session.target();
    let idempotence = promise == Promise::ExactlyOnce;
    // Each return costs Apache Kafka several seconds, and Ottla next to nothing: a life is one second. With idempotence every
    // third one ends in peace, so that a night kills hundreds of times all the same.
    let lives = match (target, session.length) {
        (Target::Kafka, Length::Short) => 2,
        (Target::Kafka, Length::Long) => 5,
        (Target::Ottla, Length::Short) => 8,
        (Target::Ottla, Length::Long) => 300,
    };
    let directory = session.directory().join(format!("durability-{promise:?}"));
    let mut broker = target.start(&directory, SETTINGS)?;
    let mut client = Adapter::new(Library::Confluent, broker.address(), &directory);
    // So many segments that a retry finds its first copy in the one before.
    client.create(TOPIC, PARTITIONS, &[("segment.ms", "100")])?;
    client.ask(json!({
        "do": "start-stream", "topic": TOPIC, "partitions": PARTITIONS, "idempotence": idempotence,
    }))?;
    let (mut enough, mut stops) = (0, 0);
    for life in 1..=lives {
        enough += PER_LIFE;
        wait_for(&mut client, enough).with_context(|| format!("in life {life}"))?;
        // Of a producer's five batches Apache Kafka remembers one across a clean restart, and takes retries for gaps.
        if idempotence && target == Target::Ottla && life % 3 == 0 {
            broker.stop()?;
            stops += 1;
        } else {
            broker.kill9()?;
        }
        broker.restart()?;
    }
    wait_for(&mut client, enough + PER_LIFE).context("after the last kill")?;
    let answer = client.ask(json!({ "do": "end-stream" }))?;
    let failed = number(&answer, "failed")?;
    ensure!(failed == 0, "{failed} records were given up");
    let acknowledged = answer.get("acknowledged").cloned().unwrap_or_default();
    let acknowledged: Vec<(i32, i64, u64)> =
        serde_json::from_value(acknowledged).context("acknowledgements")?;
    for partition in 0..PARTITIONS {
        let of_partition: BTreeMap<i64, u64> = acknowledged
            .iter()
            .filter(|entry| entry.0 == partition)
            .map(|&(_, offset, number)| (offset, number))
            .collect();
        check(&mut client, partition, &of_partition, promise)
            .with_context(|| format!("{TOPIC}-{partition}"))?;
    }
    let (killed, count) = (lives - stops, acknowledged.len());
    println!("       killed {killed} times, stopped {stops} times, {count} records acknowledged");
    broker.stop()
}

fn wait_for(client: &mut Adapter, count: i64) -> Result<()> {
    eventually(Duration::from_secs(60), || {
        let progress = client.ask(json!({ "do": "stream-progress" }))?;
        Ok((number(&progress, "acknowledged")? >= count).then_some(()))
    })
}

fn check(
    client: &mut Adapter,
    partition: i32,
    acknowledged: &BTreeMap<i64, u64>,
    promise: Promise,
) -> Result<()> {
    let (low, high) = client.watermarks(TOPIC, partition)?;
    let read = client.consume(TOPIC, partition, low, usize::try_from(high - low)?)?;
    let mut found = BTreeMap::new();
    let mut latest = None;
    for (offset, record) in &read {
        let value = record.value.as_deref().unwrap_or_default();
        let number: u64 = std::str::from_utf8(value)?.parse().context("a value is a number")?;
        found.insert(*offset, number);
        if latest.is_none_or(|latest| number > latest) {
            let expected = latest.map_or(u64::try_from(partition)?, |latest| latest + 3);
            ensure!(number == expected, "record {number} follows {latest:?} at offset {offset}");
            latest = Some(number);
        } else {
            let may_repeat = promise == Promise::AtLeastOnce;
            ensure!(may_repeat, "record {number} is there again, at offset {offset}");
        }
    }
    for (offset, number) in acknowledged {
        let there = found.get(offset);
        ensure!(there == Some(number), "offset {offset} was {number}, now it is {there:?}");
    }
    Ok(())
}
