//! End-to-end latency: one record at a time, from the producer's send to its arrival at a consumer
//! that already waits (shell).

use std::time::Duration;

use anyhow::{Context, Result};

use super::driver::{self, Batch};
use super::subject::FloorProcess;
use super::table::{Row, Section, Subject};
use super::wire::{self, TopicId};
use super::{Bench, Stage, in_turn};

const TOPIC: &str = "latency";
const VALUE_LEN: usize = 100;
pub(super) const PERCENTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for (acks, acks_name) in [(1, "acks=1"), (-1, "acks=all")] {
        let title = format!("end to end, {acks_name}");
        let mut percentiles = PERCENTILES
            .map(|(share, name)| Row::percentile(share, format!("{title}, {name}"), "ms"));
        for (run, subject) in in_turn(&bench.subjects, bench.runs) {
            bench.say_run(&title, run, subject);
            let mut latencies = once(bench, subject, acks)?;
            latencies.sort_unstable();
            if run > 0 {
                for (row, (share, _)) in percentiles.iter_mut().zip(PERCENTILES) {
                    let latency = percentile(&latencies, share).context("no latencies")?;
                    row.add(subject, super::milliseconds(latency));
                }
            }
        }
        rows.extend(percentiles);
    }
    Ok(Section::new(Stage::Latency, rows))
}

fn once(bench: &Bench, subject: Subject, acks: i16) -> Result<Vec<Duration>> {
    let batch = Batch::filled(VALUE_LEN, 0)?;
    let records = bench.scale.latency_records;
    let Some(contestant) = bench.contestant(subject) else {
        let file = bench.directory.join("floor.log");
        let floor = FloorProcess::receive(&file, subject == Subject::FlushingFloor)?;
        let frame = wire::produce(&TopicId::default(), acks, &batch.bytes);
        return driver::round_trips(&floor.address, &frame, records);
    };
    let topic = contestant.create_topic(TOPIC)?;
    let frame = wire::produce(&topic, acks, &batch.bytes);
    let latencies = driver::end_to_end(contestant.address(), &topic, &frame, records);
    let latencies = latencies.with_context(|| format!("{} failed", subject.name()))?;
    contestant.delete_topic(TOPIC)?;
    Ok(latencies)
}

/// The smallest value that at least `share` of all values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let below = sorted.iter().enumerate().take_while(|&(index, _)| {
        let up_to_here = index as f64 / sorted.len() as f64;
        up_to_here < share
    });
    below.last().map(|(_, &value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let sorted: Vec<_> = (1..=1000).map(Duration::from_millis).collect();
        let at = |share| percentile(&sorted, share).map(|value| value.as_millis());
        assert_eq!(PERCENTILES.map(|(share, _)| at(share)), [Some(500), Some(990), Some(999)]);
        assert_eq!(percentile(&[], 0.5), None);
    }
}
