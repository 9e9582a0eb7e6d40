//! What it costs to append to a log, to find an offset, and to find a timestamp: `cargo bench -p ottla-log`.
//!
//! In memory where the machine has such a place, so that it is the log that is measured, not the disk.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at what it does not expect")]

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::SystemClock;
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
