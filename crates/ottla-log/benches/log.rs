//! What it costs to append to a log, to find an offset and a timestamp, and to compact a batch: `cargo bench -p ottla-log`.
//!
//! In memory where the machine has such a place, so that it is the log that is measured, not the disk.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at what it does not expect")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::SystemClock;
use ottla_log::policy::compaction::batches::{Filter, Survey};
use ottla_log::policy::compaction::keys::NewestOffsets;
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory};
use ottla_records::{BatchBuilder, Compression, ValidBatch};

const RECORDS: i64 = 10;
const BATCHES: i64 = 50_000;

fn main() {
    divan::main();
}

struct Fixture {
    log: Arc<Log>,
    _directory: LogDirectory,
    _temporary: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let in_memory = Path::new("/dev/shm");
        let temporary = match in_memory.is_dir() {
            true => tempfile::tempdir_in(in_memory),
            false => tempfile::tempdir(),
        };
        let temporary = temporary.unwrap();
        let config = LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() };
        let clock = Arc::new(SystemClock::new());
        let options = DirectoryOptions::default();
        let directory =
            LogDirectory::open(temporary.path(), config.clone(), options, clock).unwrap();
        let partition = TopicPartition::new("t", 0);
        let log = directory.create(partition, Uuid([7; 16]), Arc::new(config)).unwrap();
        Self { log, _directory: directory, _temporary: temporary }
    }

    fn filled() -> Self {
        let fixture = Self::new();
        for n in 0..BATCHES {
            fixture.log.append_batch(batch(100, n), LeaderEpoch(0)).unwrap();
        }
        fixture
    }
}

fn batch(value_len: usize, timestamp: i64) -> ValidBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..RECORDS {
        builder.append(Timestamp(timestamp), None, Some(&vec![b'x'; value_len]), &[]);
    }
    builder.build()
}

/// A batch of ten records with values of so many bytes.
#[divan::bench(args = [10, 100, 1024], sample_count = 2000)]
fn append(bencher: Bencher<'_, '_>, value_len: usize) {
    let fixture = Fixture::new();
    let bytes = batch(value_len, 1_000).size_in_bytes();
    bencher
        .counter(BytesCount::new(bytes))
        .with_inputs(|| batch(value_len, 1_000))
        .bench_local_values(|batch| fixture.log.append_batch(batch, LeaderEpoch(0)).unwrap());
}

/// Offsets all over a log of fifty thousand batches.
#[divan::bench]
fn find_offset(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::filled();
    let end = fixture.log.log_end_offset();
    let mut offset = 0;
    bencher.bench_local(|| {
        offset = (offset + 7_919) % end.0;
        fixture.log.read(Offset(offset), 1, end, true).unwrap()
    });
}

/// As a consumer that keeps up reads.
#[divan::bench]
fn find_the_latest_offset(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::filled();
    let end = fixture.log.log_end_offset();
    bencher.bench_local(|| fixture.log.read(Offset(end.0 - 5), 1, end, true).unwrap());
}

#[divan::bench]
fn find_timestamp(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::filled();
    let mut timestamp = 0;
    bencher.bench_local(|| {
        timestamp = (timestamp + 7_919) % BATCHES;
        fixture.log.offset_for_timestamp(Timestamp(timestamp)).unwrap()
    });
}

/// A hundred and sixty records of a hundred bytes, whose keys come back after so many.
fn keyed(compression: Compression, keys: usize) -> ValidBatch {
    let mut builder = BatchBuilder::new(compression);
    for n in 0..160 {
        let key = format!("customer {}", n % keys);
        let value =
            format!("{{\"order\":{n},\"customer\":\"c-{}\",\"state\":\"placed\"}}", n * 7919);
        let value: Vec<u8> = value.bytes().cycle().take(100).collect();
        builder.append(Timestamp(1_000), Some(key.as_bytes()), Some(&value), &[]);
    }
    builder.build()
}

fn survey_of(batch: &ValidBatch) -> NewestOffsets {
    let newest = NewestOffsets::new(1 << 20, 0.9, 1_000, [7; 16]);
    let mut survey = Survey::new(Offset(0), newest, &[]);
    survey.add(batch).unwrap().unwrap();
    survey.finish()
}

/// The first way through a batch: what its keys are.
#[divan::bench(args = Compression::ALL)]
fn survey(bencher: Bencher<'_, '_>, compression: Compression) {
    let batch = keyed(compression, 80);
    bencher.bench_local(|| survey_of(&batch).len());
}

/// The second one, where half of the records go.
#[divan::bench(args = Compression::ALL)]
fn compact_to_a_half(bencher: Bencher<'_, '_>, compression: Compression) {
    compact(bencher, &keyed(compression, 80));
}

/// The second one, where all records stay.
#[divan::bench(args = Compression::ALL)]
fn compact_to_the_same(bencher: Bencher<'_, '_>, compression: Compression) {
    compact(bencher, &keyed(compression, 160));
}

fn compact(bencher: Bencher<'_, '_>, batch: &ValidBatch) {
    let mut filter = Filter::new(survey_of(batch), Offset(1 << 20), 0, 0);
    let last_written = BTreeMap::new();
    bencher.bench_local(|| filter.judge(batch, &last_written).unwrap());
}
