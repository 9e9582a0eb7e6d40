//! The partitions that this broker holds: each a log, what readers may see of it, and who waits for more.
//!
//! Invariants: `high_watermark` equals `progress.high_watermark()` outside of [`Replica::advance`],
//! and never falls; a partition is in `by_partition` exactly if its topic is in the metadata image
//! that was applied last.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ottla_base::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicPartition,
};
use ottla_log::producers::ProducerRefusal;
use ottla_log::{Appended, CleanableLogs, FlushListener, Log, StorageError};
use ottla_metadata::topic_name;
use ottla_records::{Rules, ValidBatch};
use ottla_replication::{Command, Progress, UNKNOWN_BROKER_EPOCH};
use parking_lot::{Mutex, RwLock};

use crate::waiters::Waiters;

/// One partition on this broker.
#[derive(Debug)]
pub(crate) struct Replica {
    pub topic_id: TopicId,
    pub partition: TopicPartition,
    /// Another one after a move to another directory.
    log: ArcSwap<Log>,
    pub waiters: Waiters,
    broker: BrokerId,
    leadership: Mutex<Leadership>,
    rules: RwLock<Arc<Rules>>,
    /// The partition was deleted, or its broker stops: nobody should wait for it any longer.
    retired: AtomicBool,
    /// A flush of the log directory failed: reads go on, nothing more is acknowledged.
    offline: AtomicBool,
    /// A copy for readers, who must not wait behind an append.
    high_watermark: AtomicI64,
}

#[derive(Debug)]
struct Leadership {
    epoch: LeaderEpoch,
    progress: Progress,
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("the ISR is smaller than min.insync.replicas")]
    NotEnoughReplicas,
    #[error("the batch is larger than segment.bytes")]
    LargerThanSegment,
    #[error(transparent)]
    Refused(#[from] ProducerRefusal),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ottla_log::AppendError> for AppendError {
    fn from(error: ottla_log::AppendError) -> Self {
        match error {
            ottla_log::AppendError::Refused(refusal) => Self::Refused(refusal),
            ottla_log::AppendError::Storage(error) => Self::Storage(error),
        }
    }
}

impl AppendError {
    /// Kafka's code for it.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NotEnoughReplicas => ErrorCode::NOT_ENOUGH_REPLICAS,
            Self::LargerThanSegment => ErrorCode::RECORD_LIST_TOO_LARGE,
            Self::Refused(refusal) => {
                tracing::debug!(reason = %refusal, "batch refused");
                code_of(refusal)
            }
            Self::Storage(error) => {
                report(error);
                ErrorCode::KAFKA_STORAGE_ERROR
            }
        }
    }
}

/// That a disk has failed or is full was said when it happened; each batch that it costs is not worth another line.
fn report(error: &StorageError) {
    match error {
        StorageError::Poisoned { .. } | StorageError::Full { .. } | StorageError::Closed { .. } => {
            tracing::debug!(%error, "batch refused");
        }
        StorageError::Io { .. }
        | StorageError::Corrupt { .. }
        | StorageError::OutOfOrder { .. }
        | StorageError::TooLarge { .. } => tracing::error!(%error, "append failed"),
    }
}

fn code_of(refusal: &ProducerRefusal) -> ErrorCode {
    match refusal {
        ProducerRefusal::OldEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        ProducerRefusal::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ProducerRefusal::OutsideTransaction { .. } => ErrorCode::INVALID_TXN_STATE,
        ProducerRefusal::OldCoordinatorEpoch { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
    }
}

impl Replica {
    #[must_use]
    pub(crate) fn new(
        broker: BrokerId,
        topic_id: TopicId,
        log: Arc<Log>,
        epoch: LeaderEpoch,
        min_isr: usize,
        rules: Rules,
    ) -> Self {
        let isr = BTreeSet::from([broker]);
        // One replica: recovery vouches for everything it left in the log.
        let end = log.log_end_offset();
        let progress = leading(broker, epoch, isr, min_isr, log.log_start_offset(), [end, end]);
        let high_watermark = AtomicI64::new(progress.high_watermark().0);
        let leadership = Mutex::new(Leadership { epoch, progress });
        let partition = log.topic_partition().clone();
        let waiters = Waiters::default();
        Self {
            topic_id,
            partition,
            log: ArcSwap::new(log),
            waiters,
            broker,
            leadership,
            rules: RwLock::new(Arc::new(rules)),
            retired: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            high_watermark,
        }
    }

    /// The log that counts now. Whoever holds one that has been moved can still read it for a while.
    #[must_use]
    pub(crate) fn log(&self) -> Arc<Log> {
        self.log.load_full()
    }

    /// Lets the log be replaced by a copy of it, all of which is on disk. Nothing is appended meanwhile.
    pub(crate) fn replace_log<E>(
        &self,
        replace: impl FnOnce() -> Result<Arc<Log>, E>,
    ) -> Result<(), E> {
        let leadership = self.leadership.lock();
        let log = replace()?;
        let end = log.flushed_offset();
        log.note_high_watermark(self.high_watermark());
        self.log.store(log);
        drop(leadership);
        self.on_flushed(end);
        Ok(())
    }

    /// What a produced batch must fulfil.
    #[must_use]
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    pub(crate) fn set_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }

    /// Whether only Kafka's own admin client may produce to this topic.
    #[must_use]
    pub(crate) fn is_internal(&self) -> bool {
        topic_name::is_internal(&self.partition.topic)
    }

    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER once the partition was taken away, which makes a client look for it again.
    pub(crate) fn check_alive(&self) -> Result<(), ErrorCode> {
        if self.retired.load(Ordering::Acquire) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        Ok(())
    }

    /// Ends all waits on this partition: its disk failed.
    pub(crate) fn take_offline(&self) {
        self.offline.store(true, Ordering::Release);
        self.waiters.wake();
    }

    /// # Errors
    /// KAFKA_STORAGE_ERROR once a flush has failed: what waits for one is never acknowledged.
    pub(crate) fn check_disk(&self) -> Result<(), ErrorCode> {
        if self.offline.load(Ordering::Acquire) {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        Ok(())
    }

    /// Ends all waits on this partition.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.waiters.wake();
    }

    /// The largest epoch that is not newer than `asked`, and where it ended in this log.
    #[must_use]
    pub(crate) fn end_offset_for_epoch(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let (current, log) = (self.leader_epoch(), self.log());
        if asked == current {
            return Some((current, log.log_end_offset()));
        }
        log.end_offset_for_epoch(asked).or_else(|| {
            // The current epoch has written nothing yet: it is not in the log, and begins at its end.
            let is_older = asked != LeaderEpoch::UNKNOWN && asked < current;
            let newest = log.latest_epoch().unwrap_or(asked);
            is_older.then(|| (newest, log.log_end_offset()))
        })
    }

    /// Everything below is visible to consumers, and no crash takes it back.
    #[must_use]
    pub(crate) fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    #[must_use]
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.leadership.lock().epoch
    }

    /// Whether a client's idea of the leader epoch fits; −1 asks for no check (KIP-320).
    ///
    /// # Errors
    /// FENCED_LEADER_EPOCH for an older epoch than ours, UNKNOWN_LEADER_EPOCH for a newer one.
    pub(crate) fn check_leader_epoch(&self, claimed: i32) -> Result<(), ErrorCode> {
        let epoch = self.leader_epoch().0;
        match claimed {
            -1 => Ok(()),
            claimed if claimed < epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            claimed if claimed > epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }

    /// Appends a batch of this broker's own, and asks for a flush, whose end is what makes it visible.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    pub(crate) fn append(
        &self,
        batch: ValidBatch,
        needs_all: bool,
    ) -> Result<Appended, AppendError> {
        self.append_with(batch, needs_all, Log::append_batch, Log::request_flush)
    }

    /// Appends a client's batch, unless the client has sent it before. A flush is due then as well: the first copy may
    /// still wait for one. With `needs_all` the caller waits for it, and begins it once there is nothing more to append.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    pub(crate) fn append_produced(
        &self,
        batch: ValidBatch,
        needs_all: bool,
    ) -> Result<Appended, AppendError> {
        let ask = if needs_all { Log::join_next_flush } else { Log::request_flush };
        self.append_with(batch, needs_all, Log::append_produced, ask)
    }

    fn append_with(
        &self,
        batch: ValidBatch,
        needs_all: bool,
        append: fn(&Log, ValidBatch, LeaderEpoch) -> Result<Appended, ottla_log::AppendError>,
        ask_for_flush: fn(&Log),
    ) -> Result<Appended, AppendError> {
        let mut leadership = self.leadership.lock();
        if needs_all && !leadership.progress.has_enough_replicas() {
            return Err(AppendError::NotEnoughReplicas);
        }
        let log = self.log();
        if batch.size_in_bytes() as u64 > log.config().segment_bytes {
            return Err(AppendError::LargerThanSegment);
        }
        let appended = append(&log, batch, leadership.epoch)?;
        leadership.progress.on_append(log.log_end_offset());
        drop(leadership);
        let flushed = log.flushed_offset();
        if flushed > appended.last_offset {
            // The page cache counts as the disk (`log.flush.on.commit=false`).
            self.on_flushed(flushed);
        } else {
            ask_for_flush(&log);
        }
        Ok(appended)
    }

    /// The controller made this broker the leader in an epoch, or changed the ISR within one. What
    /// this log has flushed stays as known: the leader's own disk does not change with the epoch.
    pub(crate) fn on_leadership(&self, epoch: LeaderEpoch, isr: BTreeSet<BrokerId>) {
        let mut leadership = self.leadership.lock();
        // A delta may be older than the image that this replica was made from.
        leadership.epoch = epoch.max(leadership.epoch);
        let epoch = leadership.epoch;
        drop(leadership);
        self.advance(|progress| {
            let (min_isr, high_watermark) = (progress.min_isr(), progress.high_watermark());
            let ends = [progress.flushed(), self.log().log_end_offset()];
            *progress = leading(self.broker, epoch, isr, min_isr, high_watermark, ends);
        });
    }

    /// The log's flusher reports that everything below `end` is on disk.
    pub(crate) fn on_flushed(&self, end: Offset) {
        self.advance(|progress| progress.on_flushed(end));
    }

    /// Deletes what the topic's configuration no longer keeps, nothing that is not visible yet.
    pub(crate) fn enforce_retention(&self, now: Timestamp) {
        if self.check_disk().is_err() {
            return;
        }
        match self.log().enforce_retention(now.0, self.high_watermark()) {
            Ok(removed) if removed.segments > 0 => {
                let (segments, bytes) = (removed.segments, removed.bytes);
                tracing::info!(partition = %self.partition, segments, bytes, "retention");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(partition = %self.partition, %error, "retention failed"),
        }
    }

    /// Where the log is to begin when a client asks to delete all records before an offset; `None` means all that are
    /// visible.
    ///
    /// # Errors
    /// POLICY_VIOLATION where compaction alone may delete, OFFSET_OUT_OF_RANGE beyond the high watermark.
    pub(crate) fn check_deletion(&self, before: Option<Offset>) -> Result<Offset, ErrorCode> {
        let config = self.log().config();
        if config.compact && !config.delete {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let high_watermark = self.high_watermark();
        let before = before.unwrap_or(high_watermark);
        if !(Offset::ZERO..=high_watermark).contains(&before) {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        Ok(before)
    }

    pub(crate) fn on_min_isr_changed(&self, min_isr: usize) {
        self.advance(|progress| progress.on_min_insync_replicas_changed(min_isr));
    }

    fn advance(&self, event: impl FnOnce(&mut Progress)) {
        let mut leadership = self.leadership.lock();
        event(&mut leadership.progress);
        for command in leadership.progress.take_commands() {
            match command {
                Command::AdvanceHighWatermark(offset) => {
                    self.high_watermark.store(offset.0, Ordering::Release);
                    self.log().note_high_watermark(offset);
                }
                // With one replica there is nobody to join or to leave.
                Command::AlterPartition(_) => {}
            }
        }
        drop(leadership);
        self.waiters.wake();
    }
}

/// The progress of a leader without followers: what is flushed, and where the log ends.
fn leading(
    broker: BrokerId,
    leader_epoch: LeaderEpoch,
    isr: BTreeSet<BrokerId>,
    min_insync_replicas: usize,
    high_watermark: Offset,
    [flushed, log_end]: [Offset; 2],
) -> Progress {
    Progress::new(ottla_replication::Leadership {
        leader: broker,
        broker_epoch: UNKNOWN_BROKER_EPOCH,
        leader_epoch,
        partition_epoch: 0,
        replicas: BTreeSet::from([broker]),
        isr,
        min_insync_replicas,
        lag_max: Duration::MAX,
        high_watermark,
        flushed,
        log_end,
        now: Duration::ZERO,
    })
}

/// All partitions on this broker, by topic id and partition.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    by_partition: RwLock<HashMap<(TopicId, PartitionIndex), Arc<Replica>>>,
}

impl FlushListener for Replicas {
    fn flushed(&self, log: &Arc<Log>, end: Offset) {
        let partition = log.topic_partition().partition.0;
        if let Some(replica) = log.topic_id().and_then(|id| self.find(id, partition)) {
            // One that has been moved away, or a copy on its way here, has nothing to say.
            if Arc::ptr_eq(&replica.log(), log) {
                replica.on_flushed(end);
            }
        }
    }

    /// Nothing that waits for this disk will ever be acknowledged.
    fn poisoned(&self, directory: &Path, _: &StorageError) {
        let all = self.all();
        let in_it = all.iter().filter(|replica| replica.log().directory() == directory);
        in_it.for_each(|replica| replica.take_offline());
    }
}

impl CleanableLogs for Replicas {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        let by_partition = self.by_partition.read();
        let compacted = by_partition.values().filter(|replica| replica.log().config().compact);
        compacted.map(|replica| (replica.log(), replica.high_watermark())).collect()
    }
}

impl Replicas {
    #[must_use]
    pub(crate) fn find(&self, topic_id: TopicId, partition: i32) -> Option<Arc<Replica>> {
        self.by_partition.read().get(&(topic_id, PartitionIndex(partition))).cloned()
    }

    pub(crate) fn insert(&self, replica: Arc<Replica>) {
        let key = (replica.topic_id, replica.partition.partition);
        self.by_partition.write().insert(key, replica);
    }

    /// Takes a partition out; those who wait for it look again and find it gone.
    pub(crate) fn remove(
        &self,
        topic_id: TopicId,
        partition: PartitionIndex,
    ) -> Option<Arc<Replica>> {
        let removed = self.by_partition.write().remove(&(topic_id, partition));
        if let Some(replica) = &removed {
            replica.retire();
        }
        removed
    }

    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.by_partition.read().values().cloned().collect()
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_partition.read().len()
    }

    /// Ranges of records that are refused because the disk has changed them.
    #[must_use]
    pub(crate) fn quarantined_count(&self) -> usize {
        self.by_partition.read().values().map(|replica| replica.log().quarantined_count()).sum()
    }

    /// Producers that the partitions remember; one that writes to several counts for each.
    #[must_use]
    pub(crate) fn producer_count(&self) -> usize {
        self.by_partition.read().values().map(|replica| replica.log().producer_count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::Uuid;
    use ottla_env::SystemClock;
    use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
    use ottla_records::{BatchBuilder, Compression};

    use super::*;

    /// A partition whose log nobody flushes but the test.
    fn unflushed(directory: &tempfile::TempDir) -> Replica {
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        let clock = Arc::new(SystemClock::new());
        let logs = LogDirectory::open(directory.path(), config.clone(), options, clock).unwrap();
        let (partition, id) = (TopicPartition::new("t", 0), Uuid([7; 16]));
        let log = logs.create(partition.clone(), id, Arc::new(config)).unwrap();
        Replica::new(BrokerId(1), id, log, LeaderEpoch(0), 1, Rules::new(partition))
    }

    fn batch(sequence: i32) -> ValidBatch {
        let mut builder = BatchBuilder::new(Compression::None).producer(5, 0, sequence);
        builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
        builder.build()
    }

    #[test]
    fn a_retry_is_as_invisible_as_its_first_copy_until_that_is_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let replica = unflushed(&directory);
        let append = |sequence| replica.append_produced(batch(sequence), true).unwrap();
        let [first, _] = [append(0), append(1)];
        assert_eq!((first.base_offset, first.duplicate), (Offset(0), false));
        for _ in 0..2 {
            let again = append(0);
            assert_eq!((again.last_offset, again.duplicate), (Offset(0), true));
            assert_eq!(replica.high_watermark(), Offset(0), "nothing is on disk");
        }
        replica.log().flush().unwrap();
        assert_eq!(append(0).last_offset, Offset(0));
        assert_eq!(replica.high_watermark(), Offset(2), "whoever retries need not wait");
    }
}
