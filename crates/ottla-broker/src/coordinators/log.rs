//! A coordinator's partition of the log: reading it from the front, appending at its end. Shell.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{ErrorCode, LeaderEpoch, Offset};
use ottla_coordinator::{Loading, Log, Shard, StoredRecord};
use ottla_env::Clock;
use ottla_log::ReadError;
use ottla_protocol::DecodeError;
use ottla_records::{BatchBuilder, BatchError, Batches, Compression, Record, ValidBatch};
use tracing::warn;

use crate::replica::Replica;

/// How much is read at once when a partition is taken up.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// How large a batch may be before it is compressed: a small request can ask for very many records.
const UNCOMPRESSED_MAX: usize = 8 * 1024 * 1024;

/// How records are stored.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub compression: Compression,
    /// `offsets.commit.timeout.ms`: how long a client waits for what must be stored.
    pub store_timeout: Duration,
}

/// Why a partition could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("reading {0}")]
    Io(#[from] std::io::Error),
    #[error("at offset {at}: {error}")]
    Batch { at: Offset, error: BatchError },
    #[error("the record at offset {at}: {error}")]
    Record { at: Offset, error: DecodeError },
    #[error("the log ends at offset {0}, before its end")]
    Short(Offset),
    #[error("the thread that reads it panicked")]
    Panicked,
    #[error("stopped meanwhile")]
    Stopped,
}

/// A partition that is led here, in one reign: leader epochs in which nobody else leads.
#[derive(Debug, Clone)]
pub struct PartitionLog {
    replica: Arc<Replica>,
    /// In which the partition was taken up. What is decided is appended while the reign goes on, or not at all.
    since: LeaderEpoch,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

impl fmt::Display for PartitionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.replica.partition.fmt(f)
    }
}

impl PartitionLog {
    #[must_use]
    pub fn new(
        replica: Arc<Replica>,
        since: LeaderEpoch,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { replica, since, settings, clock }
    }

    /// Whether this broker has led the partition without a break since it was taken up, and can store.
    #[must_use]
    pub fn is_led(&self) -> bool {
        self.replica.has_led_since(self.since)
            && self.replica.check_alive().is_ok()
            && self.replica.check_disk().is_ok()
    }

    /// Everything below is committed; `None` once the reign is over in which the partition was taken up. This broker may follow
    /// by then, and where its own records were others may stand, which count for nothing here.
    pub(super) fn committed(&self) -> Option<Offset> {
        // In this order: a high watermark that was read before the reign is one of that reign, or of before it.
        let high_watermark = self.replica.high_watermark();
        self.is_led().then_some(high_watermark)
    }

    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    pub(super) fn is_empty(&self) -> bool {
        let log = self.replica.log();
        log.log_start_offset() == log.log_end_offset()
    }

    #[must_use]
    pub fn end(&self) -> Offset {
        self.replica.log().log_end_offset()
    }

    pub(super) fn loading<S: Shard>(&self, shard: S) -> Loading<S> {
        Loading::new(shard, self.replica.log().log_start_offset(), self.settings.store_timeout)
    }

    /// A batch that makes no sense is looked at with all that is around it.
    fn doubt(&self, at: Offset, error: BatchError) -> LoadError {
        if let Err(error) = self.replica.log().doubt(at) {
            warn!(partition = %self, %at, %error, "a damaged batch can't be looked at");
        }
        LoadError::Batch { at, error }
    }

    /// Replays everything that there is, and what others write meanwhile. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn load<S: Shard>(&self, shard: S) -> Result<Loading<S>, LoadError> {
        self.read(|| self.end(), shard)
    }

    /// Replays everything below an offset. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn load_until<S: Shard>(&self, end: Offset, shard: S) -> Result<Loading<S>, LoadError> {
        self.read(|| end, shard)
    }

    fn read<S: Shard>(&self, end: impl Fn() -> Offset, shard: S) -> Result<Loading<S>, LoadError> {
        let log = self.replica.log();
        let start = log.log_start_offset();
        let mut loading = Loading::new(shard, start, self.settings.store_timeout);
        let mut from = start;
        loop {
            let end = end();
            if from >= end {
                return Ok(loading);
            }
            if !self.is_led() {
                return Err(LoadError::Stopped);
            }
            let slice = log.read(from, READ_BYTES, end, true)?;
            let bytes = slice.source.ok_or(LoadError::Short(from))?.read()?;
            let before = from;
            for batch in Batches::new(bytes) {
                let batch = batch.and_then(|batch| batch.verify_crc());
                let batch = batch.map_err(|error| self.doubt(from, error))?;
                from = batch.next_offset();
                // If it is of a later reign, before which others committed, this coordinator ends before it answers.
                loading.next_batch(from, self.replica.high_watermark());
                replay(&mut loading, &batch, start)?;
            }
            if from == before {
                return Err(LoadError::Short(from));
            }
        }
    }
}

fn replay<S: Shard>(
    loading: &mut Loading<S>,
    batch: &ValidBatch,
    start: Offset,
) -> Result<(), LoadError> {
    if batch.header().attributes.is_control() {
        return Ok(());
    }
    let at = batch.base_offset();
    for record in batch.records().map_err(|error| LoadError::Batch { at, error })? {
        let record = record.map_err(|error| LoadError::Batch { at, error })?;
        // Records may have been deleted up to the middle of a batch.
        if record.offset >= start {
            replay_record(loading, record)?;
        }
    }
    Ok(())
}

fn replay_record<S: Shard>(loading: &mut Loading<S>, record: Record) -> Result<(), LoadError> {
    let Record { offset, key, value, .. } = record;
    let Some(key) = key else {
        warn!(%offset, "a record without a key is passed over");
        return Ok(());
    };
    // Copies: a slice would keep all of what was read with it.
    let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
    match S::Record::decode(own(key), value.map(own)) {
        Ok(Some(record)) => loading.replay(offset, &record),
        Ok(None) => warn!(%offset, "a record of an unknown kind is passed over"),
        Err(error) => return Err(LoadError::Record { at: offset, error }),
    }
    Ok(())
}

impl<R: StoredRecord> Log<R> for PartitionLog {
    fn fitting(&self, records: &[R]) -> usize {
        let sensible = self.replica.rules().max_message_bytes / 2;
        let mut batch = self.new_batch();
        let fits = |record: &&R| {
            let added = self.add(&mut batch, *record);
            added.is_ok() && batch.size_in_bytes() <= sensible
        };
        records.iter().take_while(fits).count()
    }

    fn bytes_max(&self) -> usize {
        UNCOMPRESSED_MAX.max(self.replica.rules().max_message_bytes)
    }

    fn append(&mut self, records: &[R]) -> Result<Range<Offset>, ErrorCode> {
        let (max, bytes_max) = (self.replica.rules().max_message_bytes, Log::<R>::bytes_max(self));
        let mut batch = self.new_batch();
        for record in records {
            self.add(&mut batch, record)?;
            if batch.size_in_bytes() > bytes_max {
                return Err(ErrorCode::MESSAGE_TOO_LARGE);
            }
        }
        let batch = batch.build();
        if batch.size_in_bytes() > max {
            return Err(ErrorCode::MESSAGE_TOO_LARGE);
        }
        let placed =
            self.replica.append(batch, self.since).map_err(|error| match error.code() {
                ErrorCode::NOT_LEADER_OR_FOLLOWER => ErrorCode::NOT_COORDINATOR,
                code => code,
            })?;
        let appended = placed.appended;
        Ok(appended.base_offset..appended.last_offset.next())
    }

    fn note_refused(&self, error: ErrorCode) {
        warn!(partition = %self, %error, "what nobody needs any more can't be deleted from the partition now");
    }
}

impl PartitionLog {
    fn new_batch(&self) -> BatchBuilder {
        BatchBuilder::new(self.settings.compression)
    }

    fn add<R: StoredRecord>(&self, batch: &mut BatchBuilder, record: &R) -> Result<(), ErrorCode> {
        let (key, value) = record.encode().map_err(|error| {
            warn!(partition = %self, %error, "a record can't be encoded");
            ErrorCode::UNKNOWN_SERVER_ERROR
        })?;
        batch.append(self.clock.now_ms(), Some(&key), value.as_deref(), &[]);
        Ok(())
    }
}
