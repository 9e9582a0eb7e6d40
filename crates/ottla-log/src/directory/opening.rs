//! Opening a log directory: its lock, what the last process has left, and all of its logs, several at a time. Shell.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use ottla_base::{Offset, TopicPartition};
use ottla_env::disk::Open;
use ottla_env::{Disk, sys};

use super::{Leftover, read_topic_id};
use crate::checkpoint::{self, Offsets};
use crate::config::LogConfig;
use crate::environment::{Environment, Home};
use crate::error::{Context, OpenError, StorageError};
use crate::flusher;
use crate::log::{Log, UnsyncedNames};
use crate::names::{self, DirectoryName};
use crate::recovery::{self, Opened, Opening};

/// Takes the lock on a directory; whoever has the file has it.
pub(crate) fn lock(disk: &dyn Disk, directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(names::LOCK);
    let file = disk.open(&path, Open::Create).context("open", &path)?;
    if sys::lock_exclusive(&file).context("lock", &path)? {
        Ok(file)
    } else {
        Err(OpenError::Locked { directory: directory.to_owned() })
    }
}

/// After a failed write the page cache may hold what the disk never got, and count it as written. What is read from here
/// on is what the disk has.
pub(super) fn read_anew(disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
    let entries = match disk.list(directory) {
        // Such as `lost+found`: nobody reads there.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        entries => entries.context("list", directory)?,
    };
    for entry in entries {
        let path = directory.join(&entry.name);
        if entry.is_directory {
            read_anew(disk, &path)?;
        } else if entry.name != names::LOCK {
            // To close that one would give up a part of the lock.
            let file = disk.open(&path, Open::Read).context("open", &path)?;
            disk.drop_cached(&file).context("read anew", &path)?;
        }
    }
    Ok(())
}

/// Whether the last process closed the directory properly, and its broker epoch. The marker is durably gone when
/// this returns: should this process crash, the next one must not believe it. What must be done while it is there comes first.
pub(super) fn take_clean_shutdown_marker(
    disk: &dyn Disk,
    directory: &Path,
    first: impl FnOnce() -> Result<(), StorageError>,
) -> Result<Option<Option<i64>>, StorageError> {
    let path = directory.join(names::CLEAN_SHUTDOWN);
    let Some(text) = checkpoint::read_if_exists(disk, &path)? else { return Ok(None) };
    first()?;
    disk.remove_file(&path).context("remove", &path)?;
    disk.sync_directory(directory).context("flush", directory)?;
    Ok(Some(parse_broker_epoch(&text)))
}

/// The number after `"brokerEpoch":`. Older versions of Kafka leave the file empty.
fn parse_broker_epoch(text: &str) -> Option<i64> {
    let (_, value) = text.split_once("\"brokerEpoch\"")?;
    let value = value.trim_start().strip_prefix(':')?.trim_start();
    let end = value.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(value.len());
    value.get(..end)?.parse().ok()
}

/// Where logs are, and what moves have left.
pub(super) type Listed = (Vec<(TopicPartition, PathBuf)>, Vec<Leftover>);

/// The logs in a directory. What was deleted is thrown away; anything else is left alone.
pub(super) fn list_logs(env: &Environment) -> Result<Listed, StorageError> {
    let (mut logs, mut leftovers) = (Vec::new(), Vec::new());
    let mut deleted = Vec::new();
    for entry in env.disk.list(&env.path).context("list", &env.path)? {
        if !entry.is_directory {
            continue;
        }
        let path = env.path.join(&entry.name);
        match DirectoryName::parse(&entry.name.to_string_lossy()) {
            DirectoryName::Log(partition) => logs.push((partition, path)),
            DirectoryName::Deleted => deleted.push(path),
            DirectoryName::Future(partition) => {
                leftovers.push(Leftover::found(&*env.disk, partition, path));
            }
            DirectoryName::Other => tracing::debug!(path = %path.display(), "not a log"),
        }
    }
    env.discard_later(deleted, 0);
    Ok((logs, leftovers))
}

/// Does the work for each item, in up to so many threads, of which this is one. The results come in the items' order.
pub(super) fn in_threads<T: Sync, R: Send + Sync>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work_on = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((item, result)) = items.get(at).zip(results.get(at)) else { return };
            let _ = result.set(work(item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(work_on);
        }
        work_on();
    });
    let results = results.into_iter();
    results.map(|result| result.into_inner().expect("every item was worked on")).collect()
}

/// Opens the logs of one directory.
pub(super) struct Opener<'a> {
    env: &'a Arc<Environment>,
    config: Arc<LogConfig>,
    /// As the last process left them: whoever changes them asks for the logs, which the caller may have locked.
    recovery_points: Offsets,
    /// The last process closed it properly.
    clean: bool,
    /// Something was not as it should be in some log.
    mended: AtomicBool,
}

impl<'a> Opener<'a> {
    /// `clean` says that the last process closed the directory properly.
    pub(super) fn new(env: &'a Arc<Environment>, config: Arc<LogConfig>, clean: bool) -> Self {
        let recovery_points = env.recovery_points.all();
        Self { env, config, recovery_points, clean, mended: AtomicBool::new(false) }
    }

    /// Opens logs in several threads, and flushes what was recovered: after a crash it may be in the page cache only.
    pub(super) fn open_all(
        &self,
        logs: Vec<(TopicPartition, PathBuf)>,
    ) -> Result<BTreeMap<TopicPartition, Arc<Log>>, StorageError> {
        let threads = self.env.options.recovery_threads;
        let opened = in_threads(threads, &logs, |(partition, path)| self.open(partition, path));
        let opened: Vec<Arc<Log>> = opened.into_iter().collect::<Result<_, _>>()?;
        let is_unflushed = !self.clean || self.mended.load(Ordering::Relaxed);
        if is_unflushed && !opened.is_empty() {
            flusher::sync_recovered(self.env, &opened)?;
        }
        Ok(opened.into_iter().map(|log| (log.topic_partition().clone(), log)).collect())
    }

    fn open(&self, partition: &TopicPartition, path: &Path) -> Result<Arc<Log>, StorageError> {
        // Nobody writes a negative one, and the file has no checksum.
        let noted = |offset: Option<Offset>| offset.unwrap_or(Offset::ZERO).max(Offset::ZERO);
        let opening = Opening {
            clean: self.clean,
            recovery_point: noted(self.recovery_points.get(partition).copied()),
            cleaned_to: noted(self.env.cleaned.get(partition)),
            log_start_offset: noted(self.env.log_starts.get(partition)),
            config: &self.config,
        };
        let home = Arc::new(Home::new(Arc::clone(self.env), path));
        let Opened { state, restored, mended } = recovery::open(&home, &opening)?;
        self.mended.fetch_or(mended, Ordering::Relaxed);
        let start = Offset(state.log_start_offset);
        if opening.log_start_offset > start {
            // Nothing can be meant by it, and later it would be a place in the log.
            self.env.log_starts.lower(partition, start)?;
        }
        if opening.cleaned_to > Offset(state.log_end_offset) {
            // Likewise: what is appended up to there would count as compacted.
            self.env.cleaned.lower(partition, start)?;
        }
        let topic_id = read_topic_id(&*self.env.disk, path)?;
        let config = Arc::clone(&self.config);
        let unsynced = UnsyncedNames::None;
        let log = Log::new(partition.clone(), topic_id, home, config, state, restored, unsynced);
        if let Some(checkpointed) = self.env.high_watermarks.get(partition) {
            log.restore_high_watermark(checkpointed);
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn work_is_shared_by_so_many_threads_and_its_results_keep_their_order() {
        for (threads, meet) in [(0, 1), (1, 1), (3, 3), (9, 6)] {
            // Nobody goes on before so many work at once.
            let together = Barrier::new(meet);
            let squares = in_threads(threads, &[1, 2, 3, 4, 5, 6], |n| {
                together.wait();
                n * n
            });
            assert_eq!(squares, [1, 4, 9, 16, 25, 36]);
        }
        assert_eq!(in_threads(3, &[], |n: &i32| *n), []);
    }
}
