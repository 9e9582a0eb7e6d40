//! A log directory: the logs in it, their recovery, their checkpoints, and the threads that serve them. Shell.
//!
//! Invariant: a process that writes here holds the lock on `.lock`, and `.kafka_cleanshutdown` is durably gone
//! before the first write.
//!
//! Invariant: no log that can be used finds in `log-start-offset-checkpoint` or in `replication-offset-checkpoint` what an
//! earlier log of its name left there. Kafka's format has no place for a topic id, so that a line cannot tell whose it is.
//!
//! Lock order: what a log locks by itself, but for its state; the recovery points (whose writer asks the logs); `logs`;
//! the states of logs; the log starts, the compacted offsets and the high watermarks.

mod futures;
mod opening;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ottla_base::{Offset, TopicId, TopicPartition, Uuid};
use ottla_env::{Clock, Disk};
use parking_lot::{Condvar, Mutex, RwLock};

pub use futures::Leftover;
use opening::Opener;
pub(crate) use opening::lock;

use crate::adopt::{self, Adoption};
use crate::checkpoint;
use crate::config::{DirectoryOptions, LogConfig};
use crate::environment::{Environment, Home};
use crate::error::{Context, CreateError, OpenError, StorageError};
use crate::flusher::{self, FlushListener};
use crate::journal;
use crate::log::{Active, Log, RecoveryPoint, State, Trim, UnsyncedNames};
use crate::names;
use crate::partition_metadata::{self, PartitionMetadata};
use crate::recovery::producers::Restored;
use crate::scrub::{self, ScrubProgress};
use crate::segment::Segment;

/// How often the housekeeper looks for something to do.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// An open log directory. Dropping it without [`LogDirectory::close`] is what a crash is: the next start recovers.
#[derive(Debug)]
pub struct LogDirectory {
    shared: Arc<Shared>,
    config: Arc<LogConfig>,
    previous_broker_epoch: Option<i64>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    env: Arc<Environment>,
    /// Copies of logs in other directories, on their way here.
    futures: RwLock<BTreeMap<TopicPartition, Arc<Log>>>,
    leftovers: Mutex<Vec<Leftover>>,
    /// In the order of their names, so that what is done to all of them is done in the same order each time.
    logs: RwLock<BTreeMap<TopicPartition, Arc<Log>>>,
    checkpointed_at: Mutex<Duration>,
    producers_expired_at: Mutex<Duration>,
    high_watermarks_written_at: Mutex<Duration>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl LogDirectory {
    /// Locks and opens a directory, creating it if needed, and recovers every log in it. New logs and those
    /// recovered get `config` until somebody sets another.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another process has the directory; [`StorageError`] where something cannot be read
    /// or written. Damage in a log is no error: it is mended, cut off or quarantined.
    pub fn open(
        path: &Path,
        config: LogConfig,
        options: DirectoryOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let disk = Arc::clone(&options.disk);
        disk.create_directories(path).context("create", path)?;
        let lock = lock(&*disk, path)?;
        let failed_mark = path.join(names::SYNC_FAILED);
        let has_failed = disk.status(&failed_mark).is_ok();
        if has_failed {
            tracing::warn!(directory = %path.display(), "the last process could not write here: reading what the disk has");
            opening::read_anew(&*disk, path)?;
        }
        let previous =
            opening::take_clean_shutdown_marker(&*disk, path, || journal::discard(&*disk, path))?;
        let clean = previous.is_some();
        let env = Arc::new(Environment::new(path.to_owned(), clock, options, lock)?);
        if !clean {
            journal::replay(&env)?;
        }
        let config = Arc::new(config);
        let (logs, leftovers) = opening::list_logs(&env)?;
        let logs = Opener::new(&env, Arc::clone(&config), clean).open_all(logs)?;
        if has_failed {
            env.disk.remove_file(&failed_mark).context("remove", &failed_mark)?;
        }
        let shared = Arc::new(Shared {
            env,
            logs: RwLock::new(logs),
            futures: RwLock::default(),
            leftovers: Mutex::new(leftovers),
            checkpointed_at: Mutex::default(),
            producers_expired_at: Mutex::default(),
            high_watermarks_written_at: Mutex::default(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        });
        shared.write_checkpoints_at_rest()?;
        shared.write_high_watermarks()?;
        let threads = match shared.env.options.threads {
            true => start_threads(&shared).context("start a thread for", path)?,
            false => Vec::new(),
        };
        let previous_broker_epoch = previous.flatten();
        Ok(Self { shared, config, previous_broker_epoch, threads: Mutex::new(threads) })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.env.path
    }

    /// What everything here is written to. Who writes more here looks after failed syncs.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.env.options.disk
    }

    /// The epoch that the broker had when it last closed this directory; `None` after a crash.
    #[must_use]
    pub fn previous_broker_epoch(&self) -> Option<i64> {
        self.previous_broker_epoch
    }

    /// Adds somebody who is told when records reach the disk.
    pub fn add_listener(&self, listener: Arc<dyn FlushListener>) {
        self.shared.env.health.listeners.write().push(listener);
    }

    /// Fails once the directory is offline.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] from the failure on that has taken it offline, for as long as it is open.
    pub fn check_health(&self) -> Result<(), StorageError> {
        self.shared.env.check_health()
    }

    #[must_use]
    pub fn log(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.shared.logs.read().get(partition).cloned()
    }

    #[must_use]
    pub fn logs(&self) -> Vec<Arc<Log>> {
        self.shared.logs()
    }

    #[must_use]
    pub fn log_count(&self) -> usize {
        self.shared.logs.read().len()
    }

    /// Creates an empty log. Its directory becomes durable with its first flush; segment files come with the first
    /// append.
    ///
    /// # Errors
    /// [`CreateError::Exists`] where a log has the name; [`CreateError::Storage`] once the directory is offline, or
    /// when the disk fails. There is no new log then.
    pub fn create(
        &self,
        partition: TopicPartition,
        topic_id: TopicId,
        config: Arc<LogConfig>,
    ) -> Result<Arc<Log>, CreateError> {
        let env = &self.shared.env;
        env.check_health()?;
        self.forget_recovery_point(&partition)?;
        let mut logs = self.shared.logs.write();
        if logs.contains_key(&partition) {
            return Err(CreateError::Exists { log: partition.to_string() });
        }
        env.forget_earlier(&partition, &logs)?;
        let path = env.path.join(partition.to_string());
        make_home(env, &partition, topic_id, &path)?;
        let log = empty_log(env, &path, partition.clone(), Some(topic_id), Offset(0), config);
        logs.insert(partition, Arc::clone(&log));
        Ok(log)
    }

    /// What is noted of an earlier log of this name is not about the one that comes. The recovery points are locked before
    /// the logs, and go first; the rest goes with [`Environment::forget_earlier`].
    fn forget_recovery_point(&self, partition: &TopicPartition) -> Result<(), StorageError> {
        let env = &self.shared.env;
        let files = [&env.recovery_points, &env.log_starts, &env.cleaned, &env.high_watermarks];
        for offsets in files {
            offsets.settle()?;
        }
        // All that are left of others go at once: there may be many such logs.
        if env.recovery_points.get(partition).is_some() {
            env.recovery_points.retain(|log| self.log(log).is_some())?;
        }
        Ok(())
    }

    /// Lets logs start at later offsets, as [`Log::delete_records_to`] does with one, but writes the file with the
    /// starts only once, however many they are. If it can't be written, none of them has changed.
    ///
    /// Answers in the order of `trims`, which names no log twice.
    ///
    /// # Errors
    /// The outer one where the file can't be written. An inner one where a log is closed or the directory offline: that
    /// log has not changed.
    pub fn delete_records(
        &self,
        trims: &[(Arc<Log>, Offset)],
    ) -> Result<Vec<Result<Offset, StorageError>>, StorageError> {
        let env = &self.shared.env;
        let distinct: HashSet<_> = trims.iter().map(|(log, _)| Arc::as_ptr(log)).collect();
        assert_eq!(distinct.len(), trims.len(), "a log would wait for itself");
        let _one_at_a_time = env.trims.lock();
        let begun: Vec<_> = trims.iter().map(|(log, offset)| log.begin_trim(*offset)).collect();
        env.log_starts.set_all(begun.iter().flatten().filter_map(Trim::change))?;
        Ok(begun.into_iter().map(|trim| trim?.finish()).collect())
    }

    /// Takes a log away: its name is free at once, its files go after `file.delete.delay.ms`. `false` if there is
    /// no such log.
    ///
    /// # Errors
    /// [`StorageError::Io`] where it can't be renamed: it can be read as before then, but nothing more is appended.
    pub fn delete(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        let Some(log) = self.log(partition) else { return Ok(false) };
        let Some(renamed) = self.rename_away(&log, names::deleted_directory)? else {
            return Ok(false);
        };
        let delay_ms = log.config().file_delete_delay_ms;
        self.shared.env.discard_later(vec![renamed], delay_ms);
        Ok(true)
    }

    /// Sets a log aside that the cluster does not know, under a name that no log has; its files stay. `false` if there
    /// is no such log.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub fn set_aside(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        let Some(log) = self.log(partition) else { return Ok(false) };
        Ok(self.rename_away(&log, names::stray_directory)?.is_some())
    }

    /// Takes this very log away, and says where to; nothing if it is not here any more, whatever has its name now.
    fn rename_away(
        &self,
        log: &Log,
        new_name: fn(&TopicPartition, Uuid) -> String,
    ) -> Result<Option<PathBuf>, StorageError> {
        let env = &self.shared.env;
        let partition = log.topic_partition();
        let renamed = env.path.join(new_name(partition, random_name(env)?));
        // Not while `logs` is locked: whoever writes may wait for the recovery points, and those wait for `logs`.
        let no_flush = log.close_for_deletion();
        log.leave_journal(&no_flush)?;
        let mut logs = self.shared.logs.write();
        if !logs.get(partition).is_some_and(|known| std::ptr::eq(&**known, log)) {
            return Ok(None);
        }
        log.rename(&renamed, &no_flush)?;
        drop(no_flush);
        logs.remove(partition);
        // Where it started stays in the file until the next checkpoint, or until somebody wants the name: should a
        // crash take the rename back, the log starts there again.
        Ok(Some(renamed))
    }

    /// Begins a flush of all logs that wait for one: on this thread if that is quick, which saves to wake another one
    /// and to be woken by it, and in the flusher's otherwise. Listeners are told as usual.
    pub fn begin_flush(&self) {
        flusher::flush_here_or_there(&self.shared.env);
    }

    /// Flushes the logs that have asked for it, and tells the listeners, on this thread. Returns how many they were.
    pub fn flush_requested(&self) -> usize {
        flusher::flush_here(&self.shared.env)
    }

    /// Does what is due: removes deleted files, flushes what `flush.ms` says, forgets idle producers, writes
    /// checkpoints. A thread of the directory calls this every second.
    pub fn housekeep(&self) {
        self.shared.housekeep();
    }

    /// Topics that somebody has announced with [`adopt::announce`], and that wait to be made known.
    ///
    /// # Errors
    /// [`StorageError::Io`] where they cannot be read. An announcement that makes no sense is logged, and passed over.
    pub fn adoptions(&self) -> Result<Vec<Adoption>, StorageError> {
        adopt::pending(&*self.shared.env.disk, self.path())
    }

    /// The topic is known now.
    ///
    /// # Errors
    /// [`StorageError::Io`] where the announcement cannot be removed: it is found again.
    pub fn adopted(&self, adoption: &Adoption) -> Result<(), StorageError> {
        adopt::forget(&*self.shared.env.disk, self.path(), &adoption.topic)
    }

    /// Reads again what is due to be, at once and at full speed. A thread of the directory does it slowly.
    pub fn scrub(&self) {
        scrub::round(&self.shared.env, &self.logs(), &|_| true);
    }

    /// How much was read again since the start.
    #[must_use]
    pub fn scrub_progress(&self) -> ScrubProgress {
        self.shared.env.scrubbed.progress()
    }

    /// Changes for how long producers are remembered that write nothing more.
    pub fn set_producer_id_expiration_ms(&self, expiration_ms: i64) {
        self.shared.env.producer_id_expiration_ms.store(expiration_ms, Ordering::Relaxed);
    }

    /// Notes what of every log is visible, for the next start.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] once the directory is offline, [`StorageError::Io`] where the file cannot be written:
    /// what it says then was true at some time.
    pub fn checkpoint_high_watermarks(&self) -> Result<(), StorageError> {
        self.shared.env.check_health()?;
        self.shared.write_high_watermarks()
    }

    /// Changes how much of the disk is left free of clients' records.
    pub fn set_reserved_bytes(&self, bytes: u64) {
        self.shared.env.room.set_reserved(bytes);
    }

    /// Whether what clients append is refused for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.env.room.is_full()
    }

    /// Makes everything durable and notes from where recovery would have to begin.
    ///
    /// # Errors
    /// [`StorageError`] where something cannot be written: a flush that fails has taken the directory offline, and
    /// after anything else the next start reads more than it would have to.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        self.shared.checkpoint()
    }

    /// Closes all logs, flushes everything, and leaves the marker that spares the next start its recovery.
    ///
    /// # Errors
    /// [`StorageError`] where something cannot be written. The logs are closed all the same, and without the marker the
    /// next start recovers them.
    pub fn close(&self, broker_epoch: i64) -> Result<(), StorageError> {
        self.stop_threads();
        let env = &self.shared.env;
        let logs = self.logs();
        let closed = opening::in_threads(env.options.recovery_threads, &logs, |log| log.close());
        closed.into_iter().collect::<Result<(), _>>()?;
        env.check_health()?;
        flusher::flush_everything(env, &logs)?;
        self.shared.write_checkpoints_at_rest()?;
        self.shared.write_high_watermarks()?;
        env.health.listeners.write().clear();
        let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        checkpoint::replace_durably(&*env.disk, &env.path.join(names::CLEAN_SHUTDOWN), &text)
    }

    fn stop_threads(&self) {
        *self.shared.stop.lock() = true;
        self.shared.stopped.notify_all();
        self.shared.env.flushes.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A listener may drop the last handle to the directory from the flusher's own thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        self.stop_threads();
        // Nobody looks at these logs any more. They hold the directory's lock, and the directory holds them.
        let doubts = std::mem::take(&mut *self.shared.env.doubts.lock());
        drop(doubts);
    }
}

impl Shared {
    fn logs(&self) -> Vec<Arc<Log>> {
        self.logs.read().values().cloned().collect()
    }

    fn look_at_doubts(&self) {
        for (log, offset) in std::mem::take(&mut *self.env.doubts.lock()) {
            if let Err(error) = log.doubt(offset) {
                tracing::warn!(partition = %log.topic_partition(), %offset, %error, "a damaged segment can't be read");
            }
        }
    }

    fn scrub_until_stopped(&self) {
        let options = &self.env.options;
        let pace = |bytes| self.wait(scrub::pause(bytes, options.scrub_bytes_per_second));
        while self.wait(scrub::look_interval(options.scrub_interval_ms)) {
            scrub::round(&self.env, &self.logs(), &pace);
        }
    }

    /// Before no more fits into it, and a round has to do it.
    fn settle_journal(&self) {
        if self.env.journal.is_settling_due()
            && let Err(error) = flusher::sync_file_system(&self.env)
        {
            self.env.poison(&error);
        }
    }

    /// Waits so long; `false` if the directory is closed meanwhile.
    fn wait(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop {
            self.stopped.wait_for(&mut stop, time);
        }
        !*stop
    }

    fn housekeep(&self) {
        self.env.empty_trash();
        self.look_at_doubts();
        self.env.room.look();
        self.settle_journal();
        let now_ms = self.env.now_ms();
        let logs = self.logs();
        for log in &logs {
            log.request_overdue_flush(now_ms);
        }
        let options = &self.env.options;
        let is_due = |last: &Mutex<Duration>, interval_ms| {
            self.env.clock.monotonic() >= *last.lock() + Duration::from_millis(interval_ms)
        };
        let expire_interval_ms = options.producer_id_expiration_check_interval_ms;
        if is_due(&self.producers_expired_at, expire_interval_ms) {
            *self.producers_expired_at.lock() = self.env.clock.monotonic();
            logs.iter().for_each(|log| log.expire_producers(now_ms));
        }
        if is_due(&self.high_watermarks_written_at, options.high_watermark_interval_ms)
            && self.env.check_health().is_ok()
            && let Err(error) = self.write_high_watermarks()
        {
            tracing::error!(directory = %self.env.path.display(), %error, "cannot write the high watermarks");
        }
        let appended = self.env.appended_bytes.load(Ordering::Relaxed);
        if (is_due(&self.checkpointed_at, options.checkpoint_interval_ms)
            || appended >= options.checkpoint_bytes)
            && let Err(error) = self.checkpoint()
        {
            tracing::error!(directory = %self.env.path.display(), %error, "cannot write a checkpoint");
        }
    }

    /// Invariant: once a recovery point is on disk, so is all that the indexes say of the batches before it, and nothing
    /// more is said of those. Recovery believes it.
    fn checkpoint(&self) -> Result<(), StorageError> {
        *self.checkpointed_at.lock() = self.env.clock.monotonic();
        self.env.appended_bytes.store(0, Ordering::Relaxed);
        let flushed = self.flush_for_checkpoint()?;
        self.note_checkpoint(&flushed)
    }

    /// Makes durable what has changed since the last checkpoint.
    fn flush_for_checkpoint(&self) -> Result<Flushed, StorageError> {
        let logs = self.logs();
        let known = |log: &Arc<Log>| self.env.recovery_points.get(log.topic_partition());
        let mut changed: Vec<&Arc<Log>> =
            logs.iter().filter(|log| known(log) != Some(log.log_end_offset())).collect();
        let snapshots = snapshots_due(&mut changed, self.env.options.snapshot_lag_bytes);
        let mut points = HashMap::with_capacity(changed.len());
        for (number, log) in changed.iter().enumerate() {
            let point = log.write_for_checkpoint(number < snapshots)?;
            points.insert(Arc::as_ptr(log), (Arc::clone(log), point));
        }
        if !changed.is_empty() {
            flusher::flush_everything(&self.env, &logs)?;
        }
        Ok(points)
    }

    /// Of a log that is newer than these points, or was cut off since, recovery may believe what it could before.
    fn note_checkpoint(&self, flushed: &Flushed) -> Result<(), StorageError> {
        self.write_checkpoints(|log| {
            let point = flushed.get(&Arc::as_ptr(log));
            point.and_then(|(_, point)| log.still_flushed(*point)).unwrap_or(Offset::ZERO)
        })
    }

    /// Notes what of every log is visible and flushed, if that has changed: what a loss of power may take back, with a cut
    /// that was not flushed either, something else may be in the place of. Of a log that is about to go nothing is said, and
    /// of one that is cut off meanwhile either less already, or less soon.
    fn write_high_watermarks(&self) -> Result<(), StorageError> {
        *self.high_watermarks_written_at.lock() = self.env.clock.monotonic();
        let logs = self.logs();
        let noted = |log: &Arc<Log>| {
            let noted = log.noted_high_watermark()?.min(log.flushed_offset());
            Some((log.topic_partition().clone(), noted))
        };
        self.env.high_watermarks.replace(|_| logs.iter().filter_map(noted).collect())
    }

    /// As [`Self::checkpoint`], when everything was just flushed and nobody writes.
    fn write_checkpoints_at_rest(&self) -> Result<(), StorageError> {
        self.write_checkpoints(|log| log.recovery_point())
    }

    /// Notes how far every log is flushed with all that belongs to it, if that has changed. A log that was cut off since
    /// is flushed up to there.
    fn write_checkpoints(&self, point: impl Fn(&Arc<Log>) -> Offset) -> Result<(), StorageError> {
        self.env.recovery_points.replace(|known| {
            let logs = self.logs.read();
            // Retention or a compaction may have noted more while the others were asked, and go on from there.
            let point = |log: &Arc<Log>| {
                let known = known.get(log.topic_partition()).copied().unwrap_or(Offset::ZERO);
                (log.topic_partition().clone(), known.max(point(log)).min(log.recovery_point()))
            };
            // A copy that is to become a log here is still to be opened.
            let leftovers = self.leftovers.lock();
            let kept = leftovers.iter().filter_map(|leftover| {
                let partition = &leftover.partition;
                known.get(partition).map(|point| (partition.clone(), *point))
            });
            kept.chain(logs.values().map(point)).collect()
        })?;
        self.env.forget_others(&self.logs.read())
    }
}

/// Logs by their place in memory, which no other takes as long as they are in here, and how far a checkpoint has flushed them.
type Flushed = HashMap<*const Log, (Arc<Log>, RecoveryPoint)>;

/// Creates a log's directory. One that has its name and is no log's is what is left where this has failed before: it is
/// set aside.
fn make_home(
    env: &Environment,
    partition: &TopicPartition,
    topic_id: TopicId,
    path: &Path,
) -> Result<(), StorageError> {
    let mut created = env.disk.create_directory(path);
    if created.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
        let aside = env.path.join(names::stray_directory(partition, random_name(env)?));
        env.disk.rename(path, &aside).context("set aside", path)?;
        created = env.disk.create_directory(path);
    }
    created.context("create", path)?;
    let written = write_topic_id(&*env.disk, path, topic_id);
    if written.is_err() {
        let _ = env.disk.remove_directory(path);
    }
    written
}

/// A log without records in a directory that is there.
fn empty_log(
    env: &Arc<Environment>,
    path: &Path,
    partition: TopicPartition,
    topic_id: Option<TopicId>,
    start: Offset,
    config: Arc<LogConfig>,
) -> Arc<Log> {
    let home = Arc::new(Home::new(Arc::clone(env), path));
    let segment = Arc::new(Segment::new(Arc::clone(&home), start.0));
    let active = Active::planned(segment, env.now_ms(), env.draw_jitter_ms(&config));
    let state = State::empty(active, Default::default());
    let (restored, unsynced) = (Restored::default(), UnsyncedNames::Directory);
    Log::new(partition, topic_id, home, config, state, restored, unsynced)
}

fn random_name(env: &Environment) -> Result<Uuid, StorageError> {
    let mut unique = [0; 16];
    env.options.random.fill(&mut unique).context("name the remains of", &env.path)?;
    Ok(Uuid(unique))
}

/// Brings those logs to the front, and counts them, whose producers are to be written down, so that recovery has no more
/// bytes to look through for the others'.
fn snapshots_due(logs: &mut [&Arc<Log>], lag_bytes_max: u64) -> usize {
    logs.sort_by_cached_key(|log| std::cmp::Reverse(log.unsnapshotted_bytes()));
    let mut lag_bytes: u64 = logs.iter().map(|log| log.unsnapshotted_bytes()).sum();
    let is_due = |log: &&&Arc<Log>| {
        let is_due = lag_bytes > lag_bytes_max;
        lag_bytes = lag_bytes.saturating_sub(log.unsnapshotted_bytes());
        is_due
    };
    logs.iter().take_while(is_due).count()
}

fn start_threads(shared: &Arc<Shared>) -> std::io::Result<Vec<JoinHandle<()>>> {
    let housekeeper = {
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name("log-housekeeper".to_owned());
        thread.spawn(move || {
            while shared.wait(HOUSEKEEPING_INTERVAL) {
                shared.housekeep();
            }
        })?
    };
    let mut threads = vec![flusher::start(Arc::clone(&shared.env))?, housekeeper];
    if shared.env.options.scrub_bytes_per_second > 0 {
        let shared = Arc::clone(shared);
        let scrubber = thread::Builder::new().name("log-scrubber".to_owned());
        threads.push(scrubber.spawn(move || shared.scrub_until_stopped())?);
    }
    Ok(threads)
}

/// Writes `partition.metadata`, not durably.
fn write_topic_id(
    disk: &dyn Disk,
    directory: &Path,
    topic_id: TopicId,
) -> Result<(), StorageError> {
    let metadata = directory.join(names::PARTITION_METADATA);
    let text = partition_metadata::to_text(topic_id);
    disk.write(&metadata, text.as_bytes()).context("write", &metadata).map(drop)
}

/// The topic id in `partition.metadata`; `None` when a crash came before it was written.
pub(crate) fn read_topic_id(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Option<TopicId>, StorageError> {
    let text = checkpoint::read_if_exists(disk, &directory.join(names::PARTITION_METADATA))?;
    Ok(text.and_then(|text| PartitionMetadata::of(&text).topic_id))
}

#[cfg(test)]
mod tests {
    use ottla_base::LeaderEpoch;
    use ottla_env::{ManualClock, OsDisk};

    use super::*;
    use crate::testing::{batch, log_on};

    #[test]
    fn what_takes_the_place_of_what_a_checkpoint_has_flushed_waits_for_the_next_one() {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, log) = log_on(temporary.path(), Arc::new(OsDisk), LogConfig::default());
        let append = |epoch| log.append_batch(batch(b"value"), LeaderEpoch(epoch)).unwrap();
        (0..3).for_each(|_| _ = append(0));
        let shared = &directory.shared;
        let flushed = shared.flush_for_checkpoint().unwrap();
        log.truncate_to(Offset(1)).unwrap();
        (0..3).for_each(|_| _ = append(1));
        log.flush().unwrap();
        shared.note_checkpoint(&flushed).unwrap();
        let known = || shared.env.recovery_points.get(log.topic_partition());
        assert_eq!(known(), Some(Offset::ZERO), "its indexes and epochs are not on disk");
        shared.checkpoint().unwrap();
        assert_eq!(known(), Some(Offset(4)));
    }

    #[test]
    fn whoever_waits_to_delete_a_log_that_is_written_keeps_nobody_from_the_others() {
        let temporary = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(ottla_base::Timestamp(1_000)));
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        let directory =
            LogDirectory::open(temporary.path(), config.clone(), options, clock).unwrap();
        let partition = TopicPartition::new("t", 0);
        let log = directory.create(partition.clone(), Uuid([7; 16]), Arc::new(config)).unwrap();
        let writing = log.begin_trim(Offset::ZERO).unwrap();
        let held = Arc::strong_count(&log);
        thread::scope(|scope| {
            let deletion = scope.spawn(|| directory.delete(&partition));
            while Arc::strong_count(&log) == held {
                thread::yield_now();
            }
            let are_free = directory.shared.logs.try_read().is_some();
            drop(writing);
            assert!(deletion.join().unwrap().unwrap());
            assert!(are_free);
        });
    }
}
