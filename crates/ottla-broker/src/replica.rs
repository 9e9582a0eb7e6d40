//! One partition on this broker: its log, whether this broker leads it, what readers may see, and who waits for more.
//!
//! Invariants: `high_watermark` equals that of the leader's progress, or what the leader has told, outside of a change;
//! `led` has the leader epochs of this broker while it leads; within one leader epoch neither the role nor the high watermark
//! goes back.

#[cfg(test)]
mod fixtures;
mod following;
mod leading;
mod led;
mod serving;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ottla_base::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition, Uuid,
};
use ottla_log::producers::ProducerRefusal;
use ottla_log::{Appended, Log, LogConfig, StorageError};
use ottla_metadata::topic_name;
use ottla_records::{Rules, ValidBatch};
use ottla_replication::Progress;
use parking_lot::{Mutex, RwLock};

use crate::blocking::beside_the_others;
use crate::fetchers::FetchNews;
use crate::flush_reports::FlushReports;
use crate::follower_watch::FollowerWatch;
use crate::handovers::Handovers;
use crate::isr_changes::IsrChanges;
use crate::waiters::Waiters;
#[cfg(test)]
pub(crate) use fixtures::{
    deposed, following, lead_again, leading, leading_with, one_record, unflushed_log,
    unflushed_log_on,
};
use following::Following;
pub use following::{Errand, Fetched};
use led::Led;
pub use serving::{Question, Served, Visible};

/// One partition on this broker.
#[derive(Debug)]
pub struct Replica {
    pub topic_id: TopicId,
    pub partition: TopicPartition,
    /// Another one after a move to another directory.
    log: ArcSwap<Log>,
    /// Those who wait for the high watermark, for the partition's disk or for its leadership.
    pub(crate) waiters: Waiters,
    /// Followers that have everything: each append wakes them.
    pub(crate) followers: Waiters,
    /// Those who wait for followers to delete records, too: each fetch of a follower wakes them.
    pub(crate) deletions: Waiters,
    broker: BrokerId,
    state: Mutex<State>,
    rules: RwLock<Arc<Rules>>,
    outboxes: Outboxes,
    /// The partition was deleted, or its broker stops: nobody should wait for it any longer.
    retired: AtomicBool,
    /// It was deleted, or is to be elsewhere: it is not here any more.
    gone: AtomicBool,
    /// A flush of the log directory failed: reads go on, nothing more is acknowledged.
    offline: AtomicBool,
    /// A copy for readers, who must not wait behind an append.
    high_watermark: AtomicI64,
    /// A copy for those who wait.
    led: Led,
    /// Who fetches this partition, while somebody does.
    fetch_news: ArcSwapOption<FetchNews>,
    /// Whether followers here that are not in sync may be held back.
    throttled_as_leader: AtomicBool,
    /// Whether this replica may be held back while it is not in sync.
    throttled_as_follower: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Of the newest metadata that this replica was told.
    epoch: LeaderEpoch,
    role: Role,
    /// The log directory that the controller takes the log to be in, as far as this replica was told.
    assigned: Option<Uuid>,
    /// When the watch is going to look at this replica, if it is.
    watched: Option<Duration>,
}

#[derive(Debug)]
enum Role {
    /// Nobody leads, or this broker has not registered yet.
    Idle,
    Leader(Box<Progress>),
    Follower(Following),
}

/// What an operator has said about one replica (`leader.` and `follower.replication.throttled.replicas`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throttling {
    pub as_leader: bool,
    pub as_follower: bool,
}

/// Where replicas leave what others are to be told.
#[derive(Debug, Clone, Default)]
pub struct Outboxes {
    /// The controller.
    pub isr_changes: Arc<IsrChanges>,
    /// Leaders elsewhere.
    pub flush_reports: Arc<FlushReports>,
    /// This broker's own clock.
    pub(crate) follower_watch: Arc<FollowerWatch>,
    /// Other members of the ISR, when the disk is full.
    pub(crate) handovers: Arc<Handovers>,
}

/// What a replica must know beside the metadata of its partition.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// That of this broker's registration, or `None` while the metadata is older than it: nothing is led then.
    pub broker_epoch: Option<i64>,
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
    /// `replica.fetch.backoff.ms`
    pub fetch_backoff: Duration,
    /// On the monotonic clock.
    pub now: Duration,
}

/// What a replica is from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Idle,
    Leads,
    Follows(BrokerId),
}

/// Where a batch went, and in which leader epoch: in another one the same offset means something else.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub appended: Appended,
    pub epoch: LeaderEpoch,
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this broker does not lead the partition")]
    NotLeader,
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
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
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

/// `flush.messages`: before anybody hears of what was appended. That keeps the thread for as long as the disk takes.
fn flush_if_due(log: &Log) -> Result<(), StorageError> {
    if log.is_flush_due() { beside_the_others(|| log.flush_due()) } else { Ok(()) }
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
    /// A replica that neither leads nor follows yet. `high_watermark` is the largest that is known from before.
    #[must_use]
    pub fn new(
        broker: BrokerId,
        topic_id: TopicId,
        log: Arc<Log>,
        high_watermark: Offset,
        rules: Rules,
        outboxes: &Outboxes,
    ) -> Self {
        let within = high_watermark.min(log.log_end_offset()).max(log.log_start_offset());
        let partition = log.topic_partition().clone();
        Self {
            topic_id,
            partition,
            log: ArcSwap::new(log),
            waiters: Waiters::default(),
            followers: Waiters::default(),
            deletions: Waiters::default(),
            broker,
            state: Mutex::new(State {
                epoch: LeaderEpoch::UNKNOWN,
                role: Role::Idle,
                assigned: None,
                watched: None,
            }),
            rules: RwLock::new(Arc::new(rules)),
            outboxes: outboxes.clone(),
            retired: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            high_watermark: AtomicI64::new(within.0),
            led: Led::not(),
            fetch_news: ArcSwapOption::empty(),
            throttled_as_leader: AtomicBool::new(false),
            throttled_as_follower: AtomicBool::new(false),
        }
    }

    /// The log that counts now. Whoever holds one that has been moved can still read it for a while.
    #[must_use]
    pub fn log(&self) -> Arc<Log> {
        self.log.load_full()
    }

    /// Not while the log is replaced, by one that would not know of it.
    pub(crate) fn set_log_config(&self, config: Arc<LogConfig>) {
        let _state = self.state.lock();
        self.log().set_config(config);
    }

    /// Lets the log be replaced by a copy of it, all of which is on disk. Nothing is appended meanwhile.
    pub(crate) fn replace_log<E>(
        &self,
        replace: impl FnOnce() -> Result<Arc<Log>, E>,
    ) -> Result<(), E> {
        let state = self.state.lock();
        let log = replace()?;
        log.note_high_watermark(self.high_watermark());
        self.log.store(log);
        drop(state);
        self.on_flushed();
        self.tell_fetcher();
        Ok(())
    }

    pub(crate) fn set_throttled(&self, throttling: Throttling) {
        self.throttled_as_leader.store(throttling.as_leader, Ordering::Relaxed);
        self.throttled_as_follower.store(throttling.as_follower, Ordering::Relaxed);
        self.tell_fetcher();
    }

    #[must_use]
    pub(crate) fn is_throttled_as_leader(&self) -> bool {
        self.throttled_as_leader.load(Ordering::Relaxed)
    }

    #[must_use]
    pub(crate) fn is_throttled_as_follower(&self) -> bool {
        self.throttled_as_follower.load(Ordering::Relaxed)
    }

    /// Whom to tell that this replica would ask its leader something else.
    pub(crate) fn set_fetch_news(&self, news: Option<Arc<FetchNews>>) {
        self.fetch_news.store(news);
    }

    pub(crate) fn tell_fetcher(&self) {
        if let Some(news) = &*self.fetch_news.load() {
            news.tell(self.topic_id, self.partition.partition);
        }
    }

    /// The log directory that the controller takes the log to be in, as the metadata says.
    #[must_use]
    pub(crate) fn assigned_directory(&self) -> Option<Uuid> {
        self.state.lock().assigned
    }

    /// What a produced batch must fulfil.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }

    /// Whether only Kafka's own admin client may produce to this topic.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        topic_name::is_internal(&self.partition.topic)
    }

    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER once the partition was taken away, which makes a client look for it again.
    pub fn check_alive(&self) -> Result<(), ErrorCode> {
        if self.retired.load(Ordering::Acquire) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        Ok(())
    }

    /// Ends all waits on this partition, and asks its leader for nothing more: its disk failed.
    pub fn take_offline(&self) {
        self.offline.store(true, Ordering::Release);
        self.tell_fetcher();
        self.wake_all();
    }

    /// # Errors
    /// KAFKA_STORAGE_ERROR once a flush has failed: what waits for one is never acknowledged.
    pub fn check_disk(&self) -> Result<(), ErrorCode> {
        if self.offline.load(Ordering::Acquire) {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        Ok(())
    }

    /// Ends all waits on this partition, which is not here any more.
    pub fn take_away(&self) {
        self.gone.store(true, Ordering::Release);
        self.retire();
    }

    /// Ends all waits on this partition.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.led.end();
        self.wake_all();
    }

    fn wake_all(&self) {
        self.waiters.wake();
        self.followers.wake();
        self.deletions.wake();
    }

    /// The largest epoch that is not newer than `asked`, and where it ended in this log.
    #[must_use]
    pub fn end_offset_for_epoch(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
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
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.lock().epoch
    }

    /// Who leads, and in which epoch, by the newest metadata that this replica was told.
    #[must_use]
    pub(crate) fn leader(&self) -> (BrokerId, LeaderEpoch) {
        let state = self.state.lock();
        let leader = match &state.role {
            Role::Leader(_) => self.broker,
            Role::Follower(following) => following.leader(),
            Role::Idle => BrokerId::NONE,
        };
        (leader, state.epoch)
    }

    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER unless this broker leads.
    pub fn check_leads(&self) -> Result<(), ErrorCode> {
        self.led_epoch().map(|_| ()).ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    }

    /// The epoch in which this broker leads, if it does.
    #[must_use]
    pub fn led_epoch(&self) -> Option<LeaderEpoch> {
        self.led.reign().map(|reign| reign.now)
    }

    /// Whether this broker has led without a break since a leader epoch in which it led: all that was appended from then on is
    /// its own, and is still there.
    #[must_use]
    pub fn has_led_since(&self, epoch: LeaderEpoch) -> bool {
        self.led.reign().is_some_and(|reign| reign.covers(epoch))
    }

    /// Whether what was appended below `until` in a leader epoch is visible.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER once this broker has not led all the time since: what became of it is not known here.
    pub fn is_visible(&self, until: Offset, epoch: LeaderEpoch) -> Result<bool, ErrorCode> {
        // In this order: a high watermark that others' records have raised was stored after this broker's reign had ended, so
        // that whoever has read it finds that reign over. While it lasts, what was appended is still there.
        let is_visible = self.high_watermark() >= until;
        match self.has_led_since(epoch) {
            true => Ok(is_visible),
            false => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }

    /// Whether a client's idea of the leader epoch fits; −1 asks for no check (KIP-320).
    ///
    /// # Errors
    /// FENCED_LEADER_EPOCH for an older epoch than ours, UNKNOWN_LEADER_EPOCH for a newer one.
    pub fn check_leader_epoch(&self, claimed: i32) -> Result<(), ErrorCode> {
        let epoch = self.leader_epoch().0;
        match claimed {
            -1 => Ok(()),
            claimed if claimed < epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            claimed if claimed > epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }

    /// Appends a batch of this broker's own, and asks for a flush, whose end is what makes it visible. It was decided by what
    /// the log has said since a leader epoch: once somebody else has led, it is not appended.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then, or the disk has failed.
    pub fn append(&self, batch: ValidBatch, since: LeaderEpoch) -> Result<Placed, AppendError> {
        self.append_with(batch, Some(since), true, Log::append_batch, Log::request_flush)
    }

    /// Appends a client's batch, unless the client has sent it before. A flush is due then as well: the first copy may
    /// still wait for one. With `needs_all` the caller waits for it, and begins it once there is nothing more to append;
    /// otherwise nobody is in a hurry unless somebody waits for records, or `flush.messages` says that it is on the disk
    /// when this returns.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then, or the disk has failed.
    pub fn append_produced(
        &self,
        batch: ValidBatch,
        needs_all: bool,
    ) -> Result<Placed, AppendError> {
        let ask = match needs_all {
            true => Log::join_next_flush,
            false if self.waiters.is_empty() => Log::request_unawaited_flush,
            false => Log::request_flush,
        };
        self.append_with(batch, None, needs_all, Log::append_produced, ask)
    }

    /// Somebody waits for what is visible here, and so for the flush of what is appended.
    pub(crate) fn hurry(&self) {
        let log = self.log();
        if log.flushed_offset() < log.log_end_offset() {
            log.request_flush();
        }
    }

    /// What an append for which all in sync must have the records will ask again.
    ///
    /// # Errors
    /// [`AppendError::NotLeader`] and [`AppendError::NotEnoughReplicas`].
    pub(crate) fn check_enough_replicas(&self) -> Result<(), AppendError> {
        match &self.state.lock().role {
            Role::Leader(progress) if progress.has_enough_replicas() => Ok(()),
            Role::Leader(_) => Err(AppendError::NotEnoughReplicas),
            Role::Follower(_) | Role::Idle => Err(AppendError::NotLeader),
        }
    }

    fn append_with(
        &self,
        batch: ValidBatch,
        decided_since: Option<LeaderEpoch>,
        needs_all: bool,
        append: fn(&Log, ValidBatch, LeaderEpoch) -> Result<Appended, ottla_log::AppendError>,
        ask_for_flush: fn(&Log),
    ) -> Result<Placed, AppendError> {
        let mut state = self.state.lock();
        let State { epoch, role: Role::Leader(progress), watched, .. } = &mut *state else {
            return Err(AppendError::NotLeader);
        };
        let epoch = *epoch;
        // A reign begins and ends where the role changes, which it can't meanwhile.
        if decided_since.is_some_and(|since| !self.has_led_since(since)) {
            return Err(AppendError::NotLeader);
        }
        if needs_all && !progress.has_enough_replicas() {
            return Err(AppendError::NotEnoughReplicas);
        }
        let log = self.log();
        if batch.size_in_bytes() as u64 > log.config().segment_bytes {
            return Err(AppendError::LargerThanSegment);
        }
        let appended =
            append(&log, batch, epoch).inspect_err(|error| self.heed_full_disk(error))?;
        progress.on_append(log.log_end_offset());
        self.watch(progress, watched);
        drop(state);
        self.followers.wake();
        if !(needs_all && log.flushes_on_commit()) {
            // Nobody may wait for the disk afterwards.
            flush_if_due(&log)?;
        }
        let flushed = log.flushed_offset();
        if flushed > appended.last_offset {
            // `flush.messages`, or the page cache counts as the disk (`log.flush.on.commit=false`).
            self.on_flushed();
        } else {
            ask_for_flush(&log);
        }
        Ok(Placed { appended, epoch })
    }

    /// Another member of the ISR may have room.
    fn heed_full_disk(&self, error: &ottla_log::AppendError) {
        if matches!(error, ottla_log::AppendError::Storage(StorageError::Full { .. })) {
            self.outboxes.handovers.look();
        }
    }

    /// Deletes what the topic's configuration no longer keeps, nothing that is not visible yet.
    pub fn enforce_retention(&self, now: Timestamp) {
        if self.check_disk().is_err() {
            return;
        }
        match self.log().enforce_retention(now.0, self.high_watermark()) {
            Ok(removed) if removed.segments > 0 => {
                let (segments, bytes) = (removed.segments, removed.bytes);
                tracing::info!(partition = %self.partition, segments, bytes, "retention");
                // The leader is told where this log begins.
                self.tell_fetcher();
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
    pub fn check_deletion(&self, before: Option<Offset>) -> Result<Offset, ErrorCode> {
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
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ottla_env::FaultyDisk;
    use ottla_log::DirectoryOptions;
    use ottla_replication::follower::EpochEnd;

    use super::fixtures::{
        TERMS, a_partition, log_directory_with, log_with, of_a_producer, unflushed_log_on,
        without_threads,
    };
    use super::*;

    fn unflushed(directory: &tempfile::TempDir) -> Replica {
        leading(unflushed_log(directory, &[]), &Outboxes::default())
    }

    #[test]
    fn a_log_that_could_not_be_cut_off_is_compared_and_cut_off_again() {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::<FaultyDisk>::default());
        // So many that the index waits to be written, which a full disk refuses.
        let log = unflushed_log_on(Arc::clone(&disk) as _, &directory, &[Timestamp(1_000); 200]);
        let leader = BrokerId(2);
        let replica = following(log, leader);
        let diverged = EpochEnd { epoch: LeaderEpoch(0), end_offset: Offset(1) };
        let answer = |now| {
            let asked = replica.next_fetch(leader, now).unwrap();
            replica.on_fetched(leader, &asked, Fetched::Diverged(diverged), now);
            replica.log().log_end_offset()
        };
        disk.fail_writes(Some(std::io::ErrorKind::StorageFull));
        assert_eq!(answer(Duration::ZERO), Offset(200));
        disk.fail_writes(None);
        let later = replica.fetch_deadline().unwrap();
        assert_eq!(answer(later), Offset(1));
    }

    #[test]
    fn what_is_visible_is_shown_once_records_are_deleted_that_could_not_be_at_first() {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::<FaultyDisk>::default());
        let log = unflushed_log_on(Arc::clone(&disk) as _, &directory, &[Timestamp(1_000); 3]);
        log.flush().unwrap();
        let leader = BrokerId(2);
        let replica = following(log, leader);
        let hear = |now| {
            let asked = replica.next_fetch(leader, now).unwrap();
            let (high_watermark, log_start) = (Offset(3), Offset(2));
            let nothing_new = Fetched::Records { records: Bytes::new(), high_watermark, log_start };
            replica.on_fetched(leader, &asked, nothing_new, now);
            (replica.log().log_start_offset(), replica.high_watermark())
        };
        disk.stop_after(Some(0));
        assert_eq!(hear(Duration::ZERO), (Offset(0), Offset(0)));
        assert!(disk.has_stopped());
        disk.stop_after(None);
        let later = replica.fetch_deadline().unwrap();
        assert_eq!(hear(later), (Offset(2), Offset(3)));
    }

    #[test]
    fn a_follower_whose_disk_has_failed_asks_for_nothing_and_reports_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let log = unflushed_log(&directory, &[Timestamp(1_000); 3]);
        let leader = BrokerId(2);
        let replica = following(log, leader);
        let asked = replica.next_fetch(leader, Duration::ZERO).unwrap();
        let (high_watermark, log_start) = (Offset(3), Offset(0));
        let nothing_new = || Fetched::Records { records: Bytes::new(), high_watermark, log_start };
        replica.on_fetched(leader, &asked, nothing_new(), Duration::ZERO);
        replica.log().flush().unwrap();
        let me = crate::broker::Registration { id: BrokerId(1), epoch: 1 };
        let reported = || replica.outboxes.flush_reports.take(leader, me);
        replica.report_flushed_again();
        assert!(reported().is_some());

        replica.take_offline();
        replica.on_flushed();
        replica.report_flushed_again();
        replica.on_fetched(leader, &asked, nothing_new(), Duration::ZERO);
        assert_eq!((reported(), replica.next_fetch(leader, Duration::MAX)), (None, None));
    }

    #[test]
    fn a_configuration_that_comes_while_the_log_is_replaced_is_that_of_the_new_one() {
        let [old, new] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let replica = unflushed(&old);
        std::thread::scope(|scope| {
            let replaced = replica.replace_log(|| {
                scope.spawn(|| {
                    let kept_for_ever = LogConfig { retention_ms: -1, ..LogConfig::default() };
                    replica.set_log_config(Arc::new(kept_for_ever));
                });
                assert!(replica.state.try_lock().is_none(), "whoever sets one waits for this");
                Ok::<_, StorageError>(unflushed_log(&new, &[]))
            });
            replaced.unwrap();
        });
        assert_eq!(replica.log().config().retention_ms, -1);
    }

    #[test]
    fn a_retry_is_as_invisible_as_its_first_copy_until_that_is_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let replica = unflushed(&directory);
        let append =
            |sequence| replica.append_produced(of_a_producer(sequence), true).unwrap().appended;
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

    #[test]
    fn whoever_asks_after_this_broker_leads_again_is_not_told_that_it_has_led_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let replica = unflushed(&directory);
        let of_epoch_0 = || replica.is_visible(Offset::ZERO, LeaderEpoch(0));
        assert_eq!(of_epoch_0(), Ok(true));
        let nobody_leads = ottla_metadata::Partition {
            leader: BrokerId::NONE,
            leader_epoch: LeaderEpoch(1),
            ..a_partition(&[replica.broker])
        };
        assert_eq!(replica.follow_metadata(&nobody_leads, &TERMS), Standing::Idle);
        assert_eq!(of_epoch_0(), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        lead_again(&replica, LeaderEpoch(2));
        assert_eq!(of_epoch_0(), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        assert_eq!(replica.is_visible(Offset::ZERO, LeaderEpoch(2)), Ok(true));
    }

    #[test]
    fn what_too_few_have_by_the_time_it_is_visible_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let log = unflushed_log(&directory, &[]);
        let replica = leading_with(log, &Outboxes::default(), &[BrokerId(2)]);
        let Placed { appended, epoch } = replica.append_produced(of_a_producer(0), true).unwrap();
        replica.log().flush().unwrap();
        replica.on_flushed();
        assert_eq!(replica.is_visible(appended.last_offset.next(), epoch), Ok(true));
        assert_eq!(replica.check_still_enough(), Ok(()));
        replica.on_min_isr_changed(2);
        let too_few = ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND;
        assert_eq!(replica.check_still_enough(), Err(too_few));
    }

    #[test]
    fn whoever_waits_for_records_has_those_flushed_that_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (logs, log) = log_directory_with(without_threads(), LogConfig::default(), &directory);
        log.append_batch(one_record(Timestamp(1_000)), LeaderEpoch(0)).unwrap();
        let replica = leading(log, &Outboxes::default());
        assert_eq!(logs.flush_requested(), 0);
        replica.hurry();
        assert_eq!(logs.flush_requested(), 1);
        replica.hurry();
        assert_eq!(logs.flush_requested(), 0, "there is nothing to flush");
    }

    /// A replica that leads a log on this disk with `flush.messages=2`, which nobody flushes but who appends.
    fn flushing_every_second(
        disk: &Arc<FaultyDisk>,
        directory: &tempfile::TempDir,
        flush_on_commit: bool,
    ) -> Replica {
        let disk = Arc::clone(disk) as _;
        let options = DirectoryOptions { disk, flush_on_commit, ..without_threads() };
        let config = LogConfig { flush_messages: 2, ..LogConfig::default() };
        leading(log_with(options, config, directory), &Outboxes::default())
    }

    #[test]
    fn what_flush_messages_wants_on_disk_is_not_answered_before_whatever_is_waited_for() {
        for (flush_on_commit, needs_all) in [(true, false), (false, false), (false, true)] {
            let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::<FaultyDisk>::default());
            let replica = flushing_every_second(&disk, &directory, flush_on_commit);
            let stall = disk.stall_syncs();
            replica.append_produced(of_a_producer(0), needs_all).unwrap();
            std::thread::scope(|scope| {
                let second = scope.spawn(|| {
                    replica.append_produced(of_a_producer(1), needs_all).unwrap();
                });
                assert!(stall.holds_a_sync_within(Duration::from_secs(20)));
                assert!(!second.is_finished());
                drop(stall);
            });
            assert_eq!(replica.high_watermark(), Offset(2), "whoever waits for it is told");
            assert_eq!(replica.log().recovery_point(), Offset(2));
        }
    }

    #[test]
    fn what_flush_messages_wants_on_a_disk_that_fails_is_not_acknowledged() {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::<FaultyDisk>::default());
        let replica = flushing_every_second(&disk, &directory, true);
        replica.append_produced(of_a_producer(0), false).unwrap();
        disk.fail_syncs_under(directory.path());
        let error = replica.append_produced(of_a_producer(1), false).unwrap_err();
        assert_eq!(error.code(), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(replica.high_watermark(), Offset(0));
    }

    /// What a leader answers that has one record, and knows of nobody else who has it.
    fn a_fetched_record() -> Fetched {
        let mut batch = one_record(Timestamp(1_000));
        batch.assign(Offset(0), LeaderEpoch(0));
        let records = [&batch.header().to_bytes()[..], batch.body()].concat().into();
        Fetched::Records { records, high_watermark: Offset(0), log_start: Offset(0) }
    }

    #[test]
    fn a_follower_asks_for_a_flush_unless_the_page_cache_counts_as_the_disk() {
        for flush_on_commit in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let options = DirectoryOptions { flush_on_commit, ..without_threads() };
            let (logs, log) = log_directory_with(options, LogConfig::default(), &directory);
            let leader = BrokerId(2);
            let replica = following(log, leader);
            let asked = replica.next_fetch(leader, Duration::ZERO).unwrap();
            replica.on_fetched(leader, &asked, a_fetched_record(), Duration::ZERO);
            assert_eq!(replica.log().log_end_offset(), Offset(1));
            assert_eq!(logs.flush_requested(), usize::from(flush_on_commit));
        }
    }

    #[test]
    fn a_follower_says_nothing_of_records_before_flush_messages_has_them_on_disk() {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Arc::<FaultyDisk>::default());
        let options = DirectoryOptions {
            disk: Arc::clone(&disk) as _,
            flush_on_commit: false,
            ..without_threads()
        };
        let config = LogConfig { flush_messages: 1, ..LogConfig::default() };
        let leader = BrokerId(2);
        let replica = following(log_with(options, config, &directory), leader);
        let asked = replica.next_fetch(leader, Duration::ZERO).unwrap();
        let answer = a_fetched_record();
        let me = crate::broker::Registration { id: BrokerId(1), epoch: 1 };
        // The last thing that a report says is how far the log is flushed.
        let reported =
            || replica.outboxes.flush_reports.take(leader, me).map(|it| it.slice(it.len() - 8..));
        let stall = disk.stall_syncs();
        std::thread::scope(|scope| {
            let follows =
                scope.spawn(|| replica.on_fetched(leader, &asked, answer, Duration::ZERO));
            assert!(stall.holds_a_sync_within(Duration::from_secs(20)));
            assert!(!follows.is_finished());
            assert_eq!(reported().as_deref(), Some(&0_i64.to_be_bytes()[..]));
            drop(stall);
        });
        assert_eq!(reported().as_deref(), Some(&1_i64.to_be_bytes()[..]));
        assert_eq!(replica.log().recovery_point(), Offset(1));
    }
}
