//! How long a broker takes to start again after kill -9, against how much data it has (shell).

use std::time::Duration;

use anyhow::{Context, Result};

use super::driver::{self, Batch};
use super::subject::Contestant;
use super::table::{Row, Section, Subject};
use super::{Bench, Stage, milliseconds, wire};

const TOPIC: &str = "restart";
const VALUE_LEN: usize = 1024;
const BATCH_BYTES: usize = 256 * 1024;
const GIB: u64 = 1 << 30;
/// The leader's own answer: the page cache holds what the last seconds brought.
const ACKS_LEADER: i16 = 1;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let sizes = if bench.quick { [GIB / 4, GIB] } else { [GIB, 8 * GIB] };
    let mut rows = Vec::new();
    for size in sizes {
        let name = format!("{} MiB in one partition, kill -9 while written, start", size >> 20);
        let mut row = Row::greatest(&name, "ms");
        for subject in bench.solo_brokers() {
            let runs = if subject == Subject::Kafka { 1 } else { bench.runs.min(3) };
            for run in 1..=runs {
                bench.say_run(&name, run, subject);
                let took = once(bench, subject, size);
                let took = took.with_context(|| format!("{} failed", subject.name()))?;
                row.add(subject, milliseconds(took));
            }
        }
        rows.push(row);
    }
    Ok(Section::new(Stage::Restart, rows))
}

fn once(bench: &Bench, subject: Subject, bytes: u64) -> Result<Duration> {
    let directory = bench.empty_directory("restart")?;
    let mut contestant = Contestant::start(subject, &directory.0)?;
    let topic = contestant.create_topic(TOPIC)?;
    let batch = Batch::filled(VALUE_LEN, BATCH_BYTES)?;
    let requests = bytes / u64::try_from(batch.bytes.len())?;
    let mut frame = wire::produce(&topic, ACKS_LEADER, &batch.bytes);
    driver::produce(contestant.address(), &mut frame, requests)?;
    contestant.broker.kill9()?;
    contestant.broker.restart()?;
    let took = contestant.broker.ready_after();
    // What was acknowledged by a page cache that survived is there.
    let end = i64::try_from(requests * batch.records)?;
    driver::await_end(contestant.address(), &topic, end)?;
    contestant.broker.kill9()?;
    Ok(took)
}
