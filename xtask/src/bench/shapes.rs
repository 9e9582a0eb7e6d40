//! Produce in other shapes than the main rows have: record sizes, codecs, and many producers at once (shell).

use std::time::{Duration, Instant};

use anyhow::Result;
use ottla_records::Compression;

use super::driver::{self, Batch, in_threads};
use super::load::to_floor;
use super::subject::{Contestant, warm_page_cache};
use super::table::{Row, Section, Subject};
use super::wire::{self, TopicId};
use super::{Bench, Stage, in_turn};

const TOPIC: &str = "shapes";
const BATCH_BYTES: usize = 64 * 1024;
const ACKS_ALL: i16 = -1;

/// One row's load.
struct Shape {
    name: String,
    batch: Batch,
    producers: usize,
    /// Of values, before compression.
    value_len: usize,
}

fn shapes() -> Result<Vec<Shape>> {
    let mut shapes = Vec::new();
    for (value_len, name) in
        [(10, "10 B"), (100, "100 B"), (1024, "1 KiB"), (100 * 1024, "100 KiB")]
    {
        let batch = Batch::filled(value_len, BATCH_BYTES)?;
        shapes.push(Shape { name: format!("{name} records"), batch, producers: 1, value_len });
    }
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let name = format!("1 KiB records, {codec:?}").to_lowercase().replace("kib", "KiB");
        let batch = Batch::text(1024, BATCH_BYTES, codec)?;
        shapes.push(Shape { name, batch, producers: 1, value_len: 1024 });
    }
    let batch = Batch::filled(1024, BATCH_BYTES)?;
    let name = "1 KiB records, 16 producers".to_owned();
    shapes.push(Shape { name, batch, producers: 16, value_len: 1024 });
    Ok(shapes)
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let bytes: u64 = if bench.quick { 100_000_000 } else { 500_000_000 };
    let mut rows = Vec::new();
    for shape in shapes()? {
        let title = format!("produce, acks=all, {}", shape.name);
        let mut cost = Row::least(&title, "CPU s per GB of values");
        let mut speed = Row::most(&title, "MB/s of values");
        for (run, subject) in in_turn(&bench.subjects, bench.runs) {
            bench.say_run(&title, run, subject);
            let values = u64::try_from(shape.value_len)? * shape.batch.records;
            let requests = (bytes / values).div_ceil(u64::try_from(shape.producers)?);
            warm_page_cache(&bench.directory, bytes)?;
            let Some((elapsed, cpu)) = once(bench, subject, &shape, requests)? else { continue };
            let sent = (values * requests) as f64 * shape.producers as f64 / 1e9;
            if run > 0 {
                cost.add(subject, cpu.as_secs_f64() / sent);
                speed.add(subject, sent * 1e3 / elapsed.as_secs_f64());
            }
        }
        rows.extend([cost, speed]);
    }
    Ok(Section::new(Stage::Shapes, rows))
}

/// A floor serves one connection only.
fn once(
    bench: &Bench,
    subject: Subject,
    shape: &Shape,
    requests: u64,
) -> Result<Option<(Duration, Duration)>> {
    if let Some(contestant) = bench.contestant(subject) {
        return produce(contestant, shape, requests).map(Some);
    }
    if shape.producers > 1 {
        return Ok(None);
    }
    let mut frame = wire::produce(&TopicId::default(), ACKS_ALL, &shape.batch.bytes);
    to_floor(bench, subject, &mut frame, requests).map(Some)
}

/// Every producer has a partition of its own.
fn produce(contestant: &Contestant, shape: &Shape, requests: u64) -> Result<(Duration, Duration)> {
    let partitions = i32::try_from(shape.producers)?;
    let topic = driver::create_topic(contestant.address(), TOPIC, partitions)?;
    let address = contestant.address();
    let measured = contestant.cpu(|| {
        let started = Instant::now();
        in_threads(shape.producers, |partition| {
            let partitions = [i32::try_from(partition)?];
            let target = [(&topic, partitions.as_slice())];
            let mut frame = wire::many::produce(target.into_iter(), ACKS_ALL, &shape.batch.bytes);
            driver::produce(address, &mut frame, requests)
        })?;
        Ok(started.elapsed())
    })?;
    contestant.delete_topic(TOPIC)?;
    Ok(measured)
}
