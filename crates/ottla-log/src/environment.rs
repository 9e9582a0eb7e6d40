//! What all logs of a directory share: its path, clock, open files, health, and the queue to its flusher. Shell.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ottla_base::{Offset, TopicPartition};
use ottla_env::{Clock, Disk};
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::{self, Offsets};
use crate::config::{DirectoryOptions, LogConfig};
use crate::error::{Context, StorageError};
use crate::files::FileCache;
use crate::flusher::FlushQueue;
use crate::health::{Health, WatchedDisk};
use crate::journal::Journal;
use crate::log::{DirtyLimit, Log};
use crate::names;
use crate::producers::Producers;
use crate::room::Room;
use crate::scrub;

pub(crate) struct Environment {
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    /// In place of the option, so that no failed sync goes unheeded.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: DirectoryOptions,
    /// In place of the option, since it may change.
    pub(crate) producer_id_expiration_ms: AtomicI64,
    pub(crate) files: FileCache,
    pub(crate) flushes: FlushQueue,
    pub(crate) journal: Journal,
    pub(crate) room: Room,
    pub(crate) health: Arc<Health>,
    /// The logs that start later than their first segment does, because records were deleted on request.
    pub(crate) log_starts: DurableOffsets,
    /// Held by whoever keeps the writers of several logs away: in whatever order, there is only one at a time.
    pub(crate) trims: Mutex<()>,
    /// Up to where each log was flushed at the last checkpoint. It must not exceed what the log was cut down to
    /// since: recovery does not check the batches below.
    pub(crate) recovery_points: DurableOffsets,
    /// Up to where each log has been compacted. It must not exceed what the log was cut down to since: what took the
    /// place of those records is as new as any.
    pub(crate) cleaned: DurableOffsets,
    /// What of each log was visible at the last checkpoint, as Kafka keeps it. It must not exceed what the log was cut down
    /// to since: another leader's records may have taken the place of those.
    pub(crate) high_watermarks: DurableOffsets,
    pub(crate) scrubbed: scrub::Counters,
    /// Logs in which something made no sense, and the base offset of the segment.
    pub(crate) doubts: Mutex<Vec<(Arc<Log>, Offset)>>,
    /// Bytes appended to all logs since the last checkpoint.
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) dirty_limit: Arc<DirtyLimit>,
    trash: Mutex<Vec<Trash>>,
    /// Held for as long as anybody can write: the lock goes with the last log.
    pub(crate) lock: File,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Environment {
    pub(crate) fn new(
        path: PathBuf,
        clock: Arc<dyn Clock>,
        options: DirectoryOptions,
        lock: File,
    ) -> Result<Self, StorageError> {
        // Those that wait for a flush, those that a flush is under way for, and as many again for all others.
        let dirty_limit = Arc::new(DirtyLimit::new(options.open_files_max / 4));
        let files = FileCache::new(options.open_files_max / 2);
        let health = Arc::new(Health::new(path.clone(), Arc::clone(&options.disk)));
        let disk: Arc<dyn Disk> =
            Arc::new(WatchedDisk::new(Arc::clone(&options.disk), Arc::clone(&health)));
        let room = Room::new(Arc::clone(&disk), path.clone(), options.reserved_bytes);
        let journal = Journal::new(
            Arc::clone(&disk),
            Arc::clone(&options.random),
            &path,
            options.journal_bytes,
        );
        let offsets = |name| DurableOffsets::read(Arc::clone(&disk), path.join(name));
        Ok(Self {
            log_starts: offsets(names::LOG_START_OFFSETS)?,
            recovery_points: offsets(names::RECOVERY_POINTS)?,
            cleaned: offsets(names::CLEANED_OFFSETS)?,
            high_watermarks: offsets(names::HIGH_WATERMARKS)?,
            path,
            clock,
            disk,
            producer_id_expiration_ms: AtomicI64::new(options.producer_id_expiration_ms),
            options,
            files,
            flushes: FlushQueue::default(),
            journal,
            room,
            health,
            trims: Mutex::default(),
            scrubbed: scrub::Counters::default(),
            doubts: Mutex::default(),
            appended_bytes: AtomicU64::new(0),
            dirty_limit,
            trash: Mutex::default(),
            lock,
        })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms().0
    }

    /// Forgets who was idle for too long.
    pub(crate) fn expire(&self, producers: &mut Producers, now_ms: i64) {
        producers.expire(now_ms, self.producer_id_expiration_ms.load(Ordering::Relaxed));
    }

    /// Fails once a flush has failed: nothing that was written since then can be promised to anybody.
    pub(crate) fn check_health(&self) -> Result<(), StorageError> {
        self.health.check()
    }

    /// Takes the directory offline for good. A sync that fails does so by itself.
    pub(crate) fn poison(&self, error: &StorageError) {
        self.health.poison(error);
    }

    /// Lets the files of log starts, of compacted offsets and of high watermarks speak of these logs only, with one write of
    /// each for all that are gone.
    pub(crate) fn forget_others(
        &self,
        logs: &BTreeMap<TopicPartition, Arc<Log>>,
    ) -> Result<(), StorageError> {
        self.log_starts.retain(|log| logs.contains_key(log))?;
        self.cleaned.retain(|log| logs.contains_key(log))?;
        self.high_watermarks.retain(|log| logs.contains_key(log))
    }

    /// What is left of an earlier log of this name would delete records of the one that comes at the next start, keep them
    /// from being compacted, or show them to readers too early.
    pub(crate) fn forget_earlier(
        &self,
        partition: &TopicPartition,
        logs: &BTreeMap<TopicPartition, Arc<Log>>,
    ) -> Result<(), StorageError> {
        let is_noted = |offsets: &DurableOffsets| offsets.get(partition).is_some();
        let noted = [&self.log_starts, &self.cleaned, &self.high_watermarks];
        match noted.into_iter().any(is_noted) {
            true => self.forget_others(logs),
            false => Ok(()),
        }
    }

    /// Removes files or directories once readers have had time to finish.
    pub(crate) fn discard_later(&self, paths: Vec<PathBuf>, delay_ms: i64) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        let due = self.clock.monotonic().saturating_add(delay);
        self.trash.lock().extend(paths.into_iter().map(|path| Trash { due, path }));
    }

    /// A log's directory has another name, and what is to be removed of it is there.
    pub(crate) fn follow_rename(&self, from: &Path, to: &Path) {
        for trash in self.trash.lock().iter_mut() {
            if let Ok(name) = trash.path.strip_prefix(from) {
                trash.path = to.join(name);
            }
        }
    }

    /// Removes what is due. What cannot be removed is removed by the next start.
    pub(crate) fn empty_trash(&self) {
        let now = self.clock.monotonic();
        let mut due = Vec::new();
        self.trash.lock().retain(|trash| {
            let keep = trash.due > now;
            if !keep {
                due.push(trash.path.clone());
            }
            keep
        });
        let is_directory =
            |path: &PathBuf| self.disk.status(path).is_ok_and(|status| status.is_directory);
        let (directories, files): (Vec<PathBuf>, Vec<PathBuf>) =
            due.into_iter().partition(is_directory);
        let removals = files.iter().map(|path| (path, self.disk.remove_file(path)));
        let are_renamed = directories.is_empty() || self.sync_names();
        let gone = directories.iter().filter(|_| are_renamed);
        let gone = gone.map(|path| (path, self.disk.remove_directory(path)));
        for (path, removed) in removals.chain(gone) {
            match removed {
                Ok(()) => tracing::debug!(path = %path.display(), "deleted"),
                // Its directory went first.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot delete"),
            }
        }
    }

    /// Makes it durable that logs have other names now. Before that none of their files may go: a loss of power could take
    /// the renaming back and not the removals, and a log that a partition may own again would lack its first segments. A flush
    /// that has failed is not tried again, and leaves all of them to the next start.
    fn sync_names(&self) -> bool {
        if self.check_health().is_err() {
            return false;
        }
        let synced = self.disk.sync_directory(&self.path).context("flush", &self.path);
        synced.inspect_err(|error| self.poison(error)).is_ok()
    }

    /// How much earlier than `segment.ms` a new segment is to be rolled: drawn, and always less than that time, since
    /// a segment would otherwise end with its first batch.
    pub(crate) fn draw_jitter_ms(&self, config: &LogConfig) -> i64 {
        let bound = config.segment_jitter_ms.min(config.segment_ms).max(0);
        if bound == 0 {
            return 0;
        }
        let mut bytes = [0; 8];
        // Without random numbers all logs roll at once, which is what they do without jitter.
        let _ = self.options.random.fill(&mut bytes);
        (i64::from_le_bytes(bytes) & i64::MAX).checked_rem(bound).unwrap_or(0)
    }
}

/// Something to be removed.
#[derive(Debug)]
struct Trash {
    due: Duration,
    path: PathBuf,
}

/// An offset checkpoint file, and what it says: one offset for each of some logs.
///
/// Invariant: the map is what the file holds durably, unless it is doubtful.
#[derive(Debug)]
pub(crate) struct DurableOffsets {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    offsets: Mutex<Offsets>,
    /// The latest write has failed. Changes only while the offsets are locked.
    is_doubtful: AtomicBool,
}

impl DurableOffsets {
    /// Reads the file. One that is damaged counts as empty: recovery takes longer, and records that were deleted
    /// on request are there again. One that cannot be read may be sound, and the next start might believe it while
    /// this one did not.
    pub(crate) fn read(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, StorageError> {
        let offsets = match checkpoint::read_offsets(&*disk, &path) {
            Ok(offsets) => offsets,
            Err(error @ StorageError::Corrupt { .. }) => {
                tracing::warn!(%error, "ignoring a damaged checkpoint");
                Offsets::new()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { disk, path, offsets: Mutex::new(offsets), is_doubtful: AtomicBool::new(false) })
    }

    /// Lets the file say what the map says, after a write that has failed and may have changed it all the same.
    pub(crate) fn settle(&self) -> Result<(), StorageError> {
        if !self.is_doubtful.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut offsets = self.offsets.lock();
        let unchanged = offsets.clone();
        self.write(&mut offsets, unchanged)
    }

    pub(crate) fn get(&self, log: &TopicPartition) -> Option<Offset> {
        self.offsets.lock().get(log).copied()
    }

    pub(crate) fn all(&self) -> Offsets {
        self.offsets.lock().clone()
    }

    /// Sets the offsets of these logs, with one write however many they are.
    pub(crate) fn set_all(
        &self,
        logs: impl IntoIterator<Item = (TopicPartition, Offset)>,
    ) -> Result<(), StorageError> {
        let mut logs = logs.into_iter().peekable();
        if logs.peek().is_none() {
            return Ok(());
        }
        let mut offsets = self.offsets.lock();
        let mut changed = offsets.clone();
        changed.extend(logs);
        self.write(&mut offsets, changed)
    }

    /// Lets the file say no more than `offset` of this log.
    pub(crate) fn lower(&self, log: &TopicPartition, offset: Offset) -> Result<(), StorageError> {
        self.settle()?;
        if self.get(log).is_none_or(|known| known <= offset) {
            return Ok(());
        }
        self.set_all([(log.clone(), offset)])
    }

    pub(crate) fn remove(&self, log: &TopicPartition) -> Result<(), StorageError> {
        self.retain(|known| known != log)
    }

    pub(crate) fn retain(
        &self,
        keep: impl Fn(&TopicPartition) -> bool,
    ) -> Result<(), StorageError> {
        self.settle()?;
        let mut offsets = self.offsets.lock();
        if offsets.keys().all(&keep) {
            return Ok(());
        }
        let mut changed = offsets.clone();
        changed.retain(|log, _| keep(log));
        self.write(&mut offsets, changed)
    }

    /// Replaces all of them, given what they are. They are asked for while nobody else can change the file, so that what
    /// another thread lowers meanwhile is not raised again, nor the other way round.
    pub(crate) fn replace(
        &self,
        with: impl FnOnce(&Offsets) -> Offsets,
    ) -> Result<(), StorageError> {
        let mut offsets = self.offsets.lock();
        let changed = with(&offsets);
        if changed == *offsets && !self.is_doubtful.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.write(&mut offsets, changed)
    }

    fn write(&self, offsets: &mut Offsets, changed: Offsets) -> Result<(), StorageError> {
        self.is_doubtful.store(true, Ordering::Relaxed);
        checkpoint::write_offsets(&*self.disk, &self.path, &changed)?;
        self.is_doubtful.store(false, Ordering::Relaxed);
        *offsets = changed;
        Ok(())
    }
}

/// Where a log lives, for all of its segments; deleting the log renames it.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) env: Arc<Environment>,
    path: RwLock<Arc<Path>>,
}

impl Home {
    pub(crate) fn new(env: Arc<Environment>, path: &Path) -> Self {
        Self { env, path: RwLock::new(path.into()) }
    }

    pub(crate) fn path(&self) -> Arc<Path> {
        Arc::clone(&self.path.read())
    }

    /// Renames the directory; later opens of its files look under the new name.
    pub(crate) fn rename(&self, to: &Path) -> Result<(), StorageError> {
        let mut path = self.path.write();
        self.env.disk.rename(&path, to).context("rename", &path)?;
        *path = to.into();
        Ok(())
    }
}
