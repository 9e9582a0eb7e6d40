//! The same with clients that people use: Kafka's `ProducerPerformance`, and kcat (shell).
//!
//! Their own CPU time competes with the broker's, so that their throughput says less than the
//! broker's cost per record, which also holds with them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::latency::PERCENTILES;
use super::subject::warm_page_cache;
use super::table::{Row, Section};
use super::{Bench, Stage, in_turn};
use crate::process::run_ok;
use crate::{interop, kafka, workspace};

const TOPIC: &str = "clients";
const RECORD_LEN: u32 = 100;
const LIMIT: Duration = Duration::from_secs(300);
const CLIENT_HEAP: &str = "512m";

/// What `ProducerPerformance` says in its last line.
#[derive(Debug, PartialEq)]
struct Told {
    records_per_second: f64,
    /// Milliseconds: 50th, 99th and 99.9th percentile, queueing in the client included.
    latencies: [f64; 3],
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for acks in ["1", "all"] {
        rows.extend(produce(bench, acks)?);
    }
    if workspace::find_program("kcat").is_some() {
        rows.extend(consume(bench)?);
    } else {
        bench.say("kcat is not installed: its rows are skipped");
    }
    Ok(Section::new(Stage::Clients, rows))
}

fn produce(bench: &Bench, acks: &str) -> Result<Vec<Row>> {
    let title = format!("ProducerPerformance, 100-byte records, acks={acks}");
    let mut cost = Row::least(title.clone(), "CPU s per million");
    let mut speed = Row::most(title.clone(), "thousand records/s");
    let mut latencies =
        PERCENTILES.map(|(share, name)| Row::percentile(share, format!("{title}, {name}"), "ms"));
    let records = bench.scale.client_records;
    for (run, subject) in in_turn(&bench.subjects, bench.runs) {
        let Some(contestant) = bench.contestant(subject) else { continue };
        bench.say_run(&title, run, subject);
        warm_page_cache(&bench.directory, records * u64::from(RECORD_LEN + 10))?;
        contestant.create_topic(TOPIC)?;
        let (told, cpu) =
            contestant.cpu(|| producer_performance(contestant.address(), acks, records))?;
        contestant.delete_topic(TOPIC)?;
        if run > 0 {
            cost.add(subject, cpu.as_secs_f64() / (records as f64 / 1e6));
            speed.add(subject, told.records_per_second / 1e3);
            for (row, latency) in latencies.iter_mut().zip(told.latencies) {
                row.add(subject, latency);
            }
        }
    }
    let mut rows = vec![cost, speed];
    rows.extend(latencies);
    Ok(rows)
}

fn producer_performance(address: &str, acks: &str, records: u64) -> Result<Told> {
    let mut command = kafka::java(&interop::fetch::kafka_jars()?, CLIENT_HEAP);
    command
        .args(["org.apache.kafka.tools.ProducerPerformance", "--topic", TOPIC])
        .args(["--throughput", "-1", "--bootstrap-server", address])
        .args(["--num-records", &records.to_string(), "--record-size", &RECORD_LEN.to_string()])
        .args(["--command-property", &format!("acks={acks}")])
        // Producer ids are a matter of their own; here every acks runs alike.
        .args(["--command-property", "enable.idempotence=false"]);
    let text = run_ok(command, b"", LIMIT)?.stdout_text();
    told(&text).with_context(|| format!("cannot read ProducerPerformance's output:\n{text}"))
}

/// `N records sent, N records/sec (N MB/sec), N ms avg latency, …, N ms 50th, N ms 95th, …`.
fn told(text: &str) -> Option<Told> {
    let line = text.lines().rev().find(|line| line.contains("99.9th"))?;
    let before = |what: &str| -> Option<f64> {
        let (number, _) = line.split_once(what)?;
        number.trim_end().rsplit([' ', ',']).next()?.parse().ok()
    };
    Some(Told {
        records_per_second: before("records/sec")?,
        latencies: [before("ms 50th")?, before("ms 99th")?, before("ms 99.9th")?],
    })
}

fn consume(bench: &Bench) -> Result<Vec<Row>> {
    let title = "kcat reads 100-byte records";
    let mut cost = Row::least(title, "CPU s per million");
    let mut speed = Row::most(title, "thousand records/s");
    let records = bench.scale.client_records;
    for contestant in &bench.contestants {
        contestant.create_topic(TOPIC)?;
        producer_performance(contestant.address(), "1", records)?;
    }
    rustix::fs::sync();
    for (run, subject) in in_turn(&bench.subjects, bench.runs) {
        let Some(contestant) = bench.contestant(subject) else { continue };
        bench.say_run(title, run, subject);
        let passes = bench.scale.client_passes;
        let pass = || kcat(contestant.address(), records);
        let (elapsed, cpu) =
            contestant.cpu(|| (0..passes).map(|_| pass()).sum::<Result<Duration>>())?;
        if run > 0 {
            let records = records * u64::from(passes);
            cost.add(subject, cpu.as_secs_f64() / (records as f64 / 1e6));
            speed.add(subject, records as f64 / elapsed.as_secs_f64() / 1e3);
        }
    }
    for contestant in &bench.contestants {
        contestant.delete_topic(TOPIC)?;
    }
    Ok(vec![cost, speed])
}

/// Reads one partition from its beginning, assigned rather than through a group.
fn kcat(address: &str, records: u64) -> Result<Duration> {
    let mut command = Command::new("kcat");
    command
        .args(["-C", "-q", "-b", address, "-t", TOPIC, "-p", "0", "-o", "beginning"])
        // One line for a million records is all that has to be printed.
        .args(["-c", &records.to_string(), "-f", ""]);
    let started = Instant::now();
    run_ok(command, b"", LIMIT)?;
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_producer_performance_is_understood() {
        let text = "100 records sent, 20.0 records/sec (0.00 MB/sec), 1.0 ms avg latency.\n\
            1000 records sent, 3210.5 records/sec (0.31 MB/sec), 2.10 ms avg latency, \
            180.00 ms max latency, 2 ms 50th, 4 ms 95th, 17 ms 99th, 180 ms 99.9th.\n";
        let expected = Told { records_per_second: 3210.5, latencies: [2.0, 17.0, 180.0] };
        assert_eq!(told(text), Some(expected));
    }
}
