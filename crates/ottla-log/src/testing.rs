//! What unit tests of several modules begin with.

use std::path::Path;
use std::sync::Arc;

use ottla_base::{Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, ManualClock};
use ottla_records::{BatchBuilder, Compression, ValidBatch};

use crate::{DirectoryOptions, Log, LogConfig, LogDirectory};

/// A new log on a disk of the test's own, in a directory without threads at time 1,000.
pub(crate) fn log_on(
    path: &Path,
    disk: Arc<dyn Disk>,
    config: LogConfig,
) -> (LogDirectory, Arc<Log>) {
    let options = DirectoryOptions { disk, threads: false, ..DirectoryOptions::default() };
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let directory = LogDirectory::open(path, config.clone(), options, clock).unwrap();
    let partition = TopicPartition::new("t", 0);
    let log = directory.create(partition, Uuid([7; 16]), Arc::new(config)).unwrap();
    (directory, log)
}

/// A batch of one record.
pub(crate) fn batch(value: &[u8]) -> ValidBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1), None, Some(value), &[]);
    builder.build()
}
