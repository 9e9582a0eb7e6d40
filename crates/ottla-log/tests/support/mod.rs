//! A temporary log directory, and batches to fill it with.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory, OpenError};
use ottla_records::{
    BatchBuilder, Batches, Compression, ControlType, EndTransactionMarker, RawBatch, ValidBatch,
};
use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

/// A directory that is gone after the test; it outlives the processes that the test plays.
pub struct Directory {
    temporary: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub options: DirectoryOptions,
}

impl Directory {
    pub fn new() -> Self {
        Self {
            temporary: temporary_directory(),
            clock: Arc::new(ManualClock::at(Timestamp(1_000_000))),
            options: DirectoryOptions::default(),
        }
    }

    /// Everything is read again whenever the test says so, and by nobody else: the directory's own thread would be at it all
    /// the time.
    pub fn always_due() -> Self {
        let mut directory = Self::new();
        directory.options.scrub_interval_ms = 0;
        directory.options.scrub_bytes_per_second = 0;
        directory
    }

    pub fn open(&self, config: LogConfig) -> Open {
        self.try_open(config).unwrap()
    }

    pub fn try_open(&self, config: LogConfig) -> Result<Open, OpenError> {
        let path = self.path();
        let clock = Arc::clone(&self.clock);
        let directory = LogDirectory::open(&path, config.clone(), self.options.clone(), clock)?;
        Ok(Open { directory, config: Arc::new(config) })
    }

    pub fn path(&self) -> PathBuf {
        self.temporary.path().join("data")
    }

    /// The names in the directory that end like this.
    pub fn names(&self, ending: &str) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending)).collect()
    }
}

/// In memory where the machine has such a place: these tests flush thousands of times.
pub fn temporary_directory() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap()
}

/// Two segments of small batches, with an index entry for nearly each, closed properly.
pub fn closed_directory() -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 420, index_interval_bytes: 50, ..LogConfig::default() };
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let options = DirectoryOptions::default();
    let logs = LogDirectory::open(temporary.path(), config.clone(), options, clock).unwrap();
    let partition = TopicPartition::new("t", 0);
    let log = logs.create(partition, Uuid([7; 16]), Arc::new(config)).unwrap();
    for n in 0..8 {
        let mut builder = BatchBuilder::new(Compression::None).producer(4, 0, n);
        builder.append(Timestamp(1_000 + i64::from(n)), None, Some(b"value"), &[]);
        log.append_batch(builder.build(), LeaderEpoch(n / 5)).unwrap();
    }
    log.flush().unwrap();
    logs.close(1).unwrap();
    let meta = "version=1\ncluster.id=c\nnode.id=1\ndirectory.id=d\n";
    fs::write(temporary.path().join("meta.properties"), meta).unwrap();
    temporary
}

/// What a process has open. Dropping it is a crash.
#[derive(Debug)]
pub struct Open {
    directory: LogDirectory,
    config: Arc<LogConfig>,
}

impl Open {
    pub fn create(&self, topic: &str, partition: i32) -> Arc<Log> {
        let id = Uuid([7; 16]);
        let partition = TopicPartition::new(topic, partition);
        self.directory.create(partition, id, Arc::clone(&self.config)).unwrap()
    }

    pub fn log(&self, topic: &str, partition: i32) -> Arc<Log> {
        self.directory.log(&TopicPartition::new(topic, partition)).unwrap()
    }

    /// Reads everything again that is flushed. What its indexes say of aborted transactions and of time stays as it is.
    pub fn scrub_changes_no_index(&self) {
        let before = self.indexes();
        self.directory.scrub();
        assert_eq!(self.indexes(), before);
    }

    fn indexes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let partition = fs::read_dir(self.directory.path().join("t-0")).unwrap();
        let paths = partition.map(|entry| entry.unwrap().path());
        let is_index = |path: &PathBuf| {
            path.extension().is_some_and(|it| it == "txnindex" || it == "timeindex")
        };
        let mut found: Vec<_> =
            paths.filter(is_index).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        found.sort();
        found
    }

    pub fn close(self) {
        self.directory.close(5).unwrap();
    }

    /// Of a directory that is offline: no clean start may follow.
    pub fn close_with_error(self) {
        self.directory.close(5).unwrap_err();
    }
}

impl Deref for Open {
    type Target = LogDirectory;

    fn deref(&self) -> &LogDirectory {
        &self.directory
    }
}

/// A batch of so many records with values of so many bytes.
pub fn batch(records: i64, value_len: usize) -> ValidBatch {
    batch_at(records, value_len, 1_000)
}

/// The first record has this timestamp, and each one after it one millisecond more.
pub fn batch_at(records: i64, value_len: usize, timestamp: i64) -> ValidBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..records {
        builder.append(Timestamp(timestamp + n), None, Some(&vec![b'x'; value_len]), &[]);
    }
    builder.build()
}

/// A batch of an idempotent producer, to be built.
#[derive(Debug, Clone, Copy)]
pub struct Draft {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub records: i64,
    pub timestamp: i64,
    pub in_transaction: bool,
}

impl Draft {
    /// The first producer's records from a sequence number on.
    pub fn new(sequence: i32, records: i64) -> Self {
        let (id, epoch, timestamp, in_transaction) = (1, 0, 1_000, false);
        Self { id, epoch, sequence, records, timestamp, in_transaction }
    }

    pub fn build(self) -> ValidBatch {
        let mut builder =
            BatchBuilder::new(Compression::None).producer(self.id, self.epoch, self.sequence);
        builder.transactional = self.in_transaction;
        for n in 0..self.records {
            builder.append(Timestamp(self.timestamp + n), None, Some(&[b'x'; 40]), &[]);
        }
        builder.build()
    }
}

/// The end of a producer's transaction.
pub fn marker(
    control: ControlType,
    id: i64,
    epoch: i16,
    coordinator_epoch: i32,
    timestamp: i64,
) -> ValidBatch {
    let marker = EndTransactionMarker { coordinator_epoch };
    BatchBuilder::end_of_transaction((id, epoch), control, marker, Timestamp(timestamp)).build()
}

/// Every batch in the log, read as a consumer reads.
pub fn read_all(log: &Log) -> Vec<RawBatch> {
    let mut batches = Vec::new();
    let mut at = log.log_start_offset();
    while at < log.log_end_offset() {
        let slice = log.read(at, 300, log.log_end_offset(), true).unwrap();
        let Some(source) = slice.source else { break };
        for batch in Batches::new(source.read().unwrap()) {
            let batch = batch.unwrap();
            at = Offset(batch.header().next_offset());
            batches.push(batch);
        }
    }
    batches
}

/// A part of so many, rounded down.
pub fn share_of(count: i64, share: f64) -> i64 {
    #[allow(clippy::cast_precision_loss, reason = "a test's small numbers")]
    let part = (count as f64 * share) as i64;
    part
}

/// So many cases. What fails once is kept beside the test's file, to be committed and tried first for ever after.
pub fn configuration(cases: u32) -> ProptestConfig {
    let failure_persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(failure_persistence)),
        ..ProptestConfig::with_cases(cases)
    }
}
