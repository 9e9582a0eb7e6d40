//! The threads that compact logs: each takes the dirtiest log that is due, and rests when there is none. Shell.
//!
//! Which logs are due, how far, and what is kept is decided in [`policy::compaction`](crate::policy::compaction); how one
//! log is gone through is in [`clean`](mod@clean); how segments are replaced is in the log.
//!
//! Invariants: a log is compacted by one thread at a time, which holds its `cleaning`; a log in which something is wrong
//! is not touched again until the process starts anew, and nothing of it that is wrong was copied.

mod clean;
mod input;
pub(crate) mod output;
mod throttle;

use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ottla_base::{Offset, TopicPartition};
use ottla_env::Clock;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::StorageError;
use crate::log::{Compactable, Log};
use crate::policy::compaction::Dirtiness;
use clean::{Interrupted, Limits, Report, clean};
use throttle::Throttle;

/// The settings of all compactions of a process, `log.cleaner.*`.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerOptions {
    /// `log.cleaner.threads`
    pub threads: usize,
    /// `log.cleaner.backoff.ms`: how long a thread rests that has found nothing to do.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: memory for keys, of all threads together.
    pub dedupe_buffer_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`: the share of it that keys may fill.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`: memory for reading and writing, of all threads together.
    pub io_buffer_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: how much all threads may read and write together.
    pub io_bytes_per_second: f64,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            backoff: Duration::from_secs(15),
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            io_bytes_per_second: f64::MAX,
        }
    }
}

/// The logs that there are, and their high watermarks.
pub trait CleanableLogs: Send + Sync + Debug {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)>;

    /// Retention has deleted the oldest segments of a log.
    fn shortened(&self, _log: &Arc<Log>) {}
}

/// What the cleaner has done since the process started, and what it saw when it last looked around.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CleanerState {
    pub cleanings: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub batches_dropped: u64,
    /// The share of new data in the log that had the largest one.
    pub dirtiest_ratio: f64,
    /// How long records have waited at most beyond `max.compaction.lag.ms`.
    pub overdue: Duration,
    /// How full the memory for keys was in the last compaction.
    pub keys_share: f64,
    /// How long the last compaction took.
    pub last_duration: Duration,
    pub uncleanable_logs: usize,
    pub uncleanable_bytes: u64,
    /// How long ago a thread last looked around.
    pub idle: Duration,
}

/// The cleaner of a process, for the logs of all its directories.
#[derive(Debug)]
pub struct LogCleaner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    logs: Arc<dyn CleanableLogs>,
    clock: Arc<dyn Clock>,
    options: RwLock<CleanerOptions>,
    throttle: Mutex<Throttle>,
    state: Mutex<CleanerState>,
    looked_at: Mutex<Duration>,
    stop: Mutex<bool>,
    /// Told when the cleaner stops or its options change.
    changed: Condvar,
}

/// A log that is due, and what of it is.
struct Due {
    log: Arc<Log>,
    found: Compactable,
}

impl LogCleaner {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread: those that were started have ended again.
    pub fn start(
        logs: Arc<dyn CleanableLogs>,
        options: CleanerOptions,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let looked_at = Mutex::new(clock.monotonic());
        let shared = Arc::new(Shared {
            logs,
            clock,
            options: RwLock::new(options),
            throttle: Mutex::default(),
            state: Mutex::default(),
            looked_at,
            stop: Mutex::new(false),
            changed: Condvar::new(),
        });
        let cleaner = Self { shared, threads: Mutex::default() };
        cleaner.start_missing_threads()?;
        Ok(cleaner)
    }

    /// Takes over other options: the threads look at them before each compaction, and begin or end as there are to be
    /// more or fewer. None is interrupted.
    pub fn reconfigure(&self, options: CleanerOptions) {
        if *self.shared.options.read() == options {
            return;
        }
        *self.shared.options.write() = options;
        self.shared.wake();
        if let Err(error) = self.start_missing_threads() {
            tracing::error!(%error, "cannot start a cleaner thread");
        }
    }

    /// Ends all compactions where they are, and waits for the threads. What they have not finished is thrown away.
    pub fn stop(&self) {
        *self.shared.stop.lock() = true;
        self.shared.wake();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads.into_iter().flatten() {
            let _ = thread.join();
        }
    }

    /// How many threads there are right now: those that are to end may still be at work.
    #[must_use]
    pub fn threads_running(&self) -> usize {
        let threads = self.threads.lock();
        threads.iter().flatten().filter(|thread| !thread.is_finished()).count()
    }

    #[must_use]
    pub fn state(&self) -> CleanerState {
        let idle = self.shared.clock.monotonic().saturating_sub(*self.shared.looked_at.lock());
        CleanerState { idle, ..*self.shared.state.lock() }
    }

    /// Compacts what is due, on this thread, until nothing is. Returns how many logs that were.
    pub fn clean_all_due(&self) -> usize {
        let mut failed = HashSet::new();
        let mut cleaned = 0;
        while let Some(is_cleaned) = self.shared.clean_dirtiest(&mut failed) {
            cleaned += usize::from(is_cleaned);
        }
        cleaned
    }

    fn start_missing_threads(&self) -> io::Result<()> {
        let wanted = self.shared.options.read().threads;
        let mut threads = self.threads.lock();
        let missing = threads.len().max(wanted) - threads.len();
        threads.extend((0..missing).map(|_| None));
        for (index, slot) in threads.iter_mut().enumerate().take(wanted) {
            if slot.as_ref().is_none_or(JoinHandle::is_finished) {
                let shared = Arc::clone(&self.shared);
                let name = format!("log-cleaner-{index}");
                *slot = Some(thread::Builder::new().name(name).spawn(move || shared.run(index))?);
            }
        }
        Ok(())
    }
}

impl Drop for LogCleaner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, index: usize) {
        let mut failed = HashSet::new();
        while !self.is_stopped() && index < self.options.read().threads {
            let found = self.clean_dirtiest(&mut failed);
            self.enforce_retention();
            if found.is_none() {
                failed.clear();
                self.rest(index);
            }
        }
    }

    fn wake(&self) {
        let _stop = self.stop.lock();
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *self.stop.lock()
    }

    /// Waits for the backoff to pass, or for something to change.
    fn rest(&self, index: usize) {
        let mut stop = self.stop.lock();
        let (backoff, threads) = {
            let options = self.options.read();
            (options.backoff, options.threads)
        };
        if !*stop && index < threads {
            self.changed.wait_for(&mut stop, backoff);
        }
    }

    /// Compacts the dirtiest log that is due, but for those that have failed; says whether it did not. `None` if there
    /// is no such log.
    fn clean_dirtiest(&self, failed: &mut HashSet<TopicPartition>) -> Option<bool> {
        let mut due = self.due(failed);
        let ratio = |due: &Due| due.found.dirtiness.ratio();
        due.sort_by(|a, b| ratio(b).total_cmp(&ratio(a)));
        for Due { log, found } in due {
            let Some(_cleaning) = log.cleaning.try_lock() else { continue };
            let is_cleaned = self.clean(&log, found);
            if !is_cleaned {
                failed.insert(log.topic_partition().clone());
            }
            return Some(is_cleaned);
        }
        None
    }

    fn due(&self, failed: &HashSet<TopicPartition>) -> Vec<Due> {
        *self.looked_at.lock() = self.clock.monotonic();
        let now_ms = self.clock.now_ms().0;
        let mut due = Vec::new();
        let mut seen = CleanerState::default();
        for (log, high_watermark) in self.logs.logs() {
            let config = log.config();
            if !config.compact || failed.contains(log.topic_partition()) {
                continue;
            }
            let found = match log.dirtiness(high_watermark, now_ms) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    let (log, error) = (log.topic_partition(), &error);
                    tracing::warn!(%log, %error, "cannot tell how dirty a log is");
                    continue;
                }
            };
            let dirtiness = &found.dirtiness;
            if log.is_uncleanable() || log.is_kept_by_damage(&found.sources) {
                seen.uncleanable_logs += 1;
                seen.uncleanable_bytes += dirtiness.cleanable_bytes;
                continue;
            }
            seen.dirtiest_ratio = seen.dirtiest_ratio.max(dirtiness.ratio());
            let overdue_ms = u64::try_from(dirtiness.overdue_ms).unwrap_or(0);
            seen.overdue = seen.overdue.max(Duration::from_millis(overdue_ms));
            if dirtiness.is_due(&config) {
                due.push(Due { log, found });
            }
        }
        let mut state = self.state.lock();
        *state = CleanerState {
            dirtiest_ratio: seen.dirtiest_ratio,
            overdue: seen.overdue,
            uncleanable_logs: seen.uncleanable_logs,
            uncleanable_bytes: seen.uncleanable_bytes,
            ..*state
        };
        due
    }

    /// Returns whether it has come to its end.
    fn clean(&self, log: &Arc<Log>, found: Compactable) -> bool {
        let started = self.clock.monotonic();
        let now_ms = self.clock.now_ms().0;
        let pace = |bytes| self.pace(bytes);
        let dirtiness = found.dirtiness;
        match clean(log, found, self.limits(), now_ms, &pace) {
            Ok(report) => {
                self.count(log, &dirtiness, &report, started);
                true
            }
            Err(Interrupted::Stopped | Interrupted::Overtaken) => {
                tracing::debug!(log = %log.topic_partition(), "compaction was interrupted");
                false
            }
            Err(Interrupted::Storage(error)) => {
                self.report_failure(log, &error);
                false
            }
        }
    }

    fn report_failure(&self, log: &Log, error: &StorageError) {
        let partition = log.topic_partition();
        match error {
            StorageError::Corrupt { .. }
            | StorageError::TooLarge { .. }
            | StorageError::OutOfOrder { .. } => {
                log.uncleanable.store(true, Ordering::Relaxed);
                log.note_corruption(error);
                tracing::error!(log = %partition, %error, "compaction has met damage: the log is not compacted any more");
            }
            StorageError::Io { .. } | StorageError::Full { .. } => {
                tracing::warn!(log = %partition, %error, "compaction failed, and is tried again later");
            }
            // Somebody has said so already.
            StorageError::Poisoned { .. } | StorageError::Closed { .. } => {}
        }
    }

    fn count(&self, log: &Log, dirtiness: &Dirtiness, report: &Report, started: Duration) {
        let took = self.clock.monotonic().saturating_sub(started);
        tracing::info!(
            log = %log.topic_partition(),
            from = %dirtiness.first_dirty_offset,
            to = %report.end,
            bytes_before = report.bytes_read,
            bytes_after = report.bytes_written,
            keys = report.keys,
            ?took,
            "compacted"
        );
        let mut state = self.state.lock();
        state.cleanings += 1;
        state.bytes_read += report.bytes_read;
        state.bytes_written += report.bytes_written;
        state.batches_dropped += report.batches_dropped;
        state.last_duration = took;
        #[allow(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = report.keys as f64 / report.keys_max.max(1) as f64;
        state.keys_share = share;
    }

    fn limits(&self) -> Limits {
        let options = self.options.read();
        let threads = options.threads.max(1);
        Limits {
            keys_bytes: options.dedupe_buffer_bytes / threads as u64,
            load_factor: options.load_factor,
            // One half to read into, one to write from.
            buffer_bytes: options.io_buffer_bytes / threads / 2,
        }
    }

    /// Waits until so many more bytes are within the rate.
    fn pace(&self, bytes: usize) -> Result<(), Interrupted> {
        let rate = self.options.read().io_bytes_per_second;
        let wait = self.throttle.lock().moved(bytes, self.clock.monotonic(), rate);
        let mut stop = self.stop.lock();
        if !*stop && !wait.is_zero() {
            self.changed.wait_for(&mut stop, wait);
        }
        if *stop { Err(Interrupted::Stopped) } else { Ok(()) }
    }

    /// A compacted log may have old segments to delete, too. Kafka's cleaner looks for them as often as it looks around.
    fn enforce_retention(&self) {
        let now_ms = self.clock.now_ms().0;
        for (log, high_watermark) in self.logs.logs() {
            if !log.config().compact || log.is_uncleanable() || self.is_stopped() {
                continue;
            }
            match log.enforce_retention(now_ms, high_watermark) {
                Ok(removed) if removed.segments > 0 => self.logs.shortened(&log),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(log = %log.topic_partition(), %error, "retention failed");
                }
            }
        }
    }
}
