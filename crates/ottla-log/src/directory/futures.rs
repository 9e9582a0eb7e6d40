//! The `…-future` logs of a directory: copies of logs in other directories, made by [`crate::Move`]. Shell.
//!
//! Invariant: while a log of the name exists in any directory that is open, no copy of it is marked as complete, except
//! between the last two steps of a move.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{Offset, TopicId, TopicPartition};

use super::{LogDirectory, Opener, empty_log, random_name, read_topic_id, write_topic_id};
use crate::checkpoint;
use crate::error::{Context, CreateError, StorageError};
use crate::flusher;
use crate::log::Log;
use crate::names;

/// What an earlier process has left of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub partition: TopicPartition,
    /// `None` when a crash came before it was written.
    pub topic_id: Option<TopicId>,
    path: PathBuf,
    /// Whether it was as good as the log.
    pub is_complete: bool,
}

impl LogDirectory {
    /// The copies in the making.
    #[must_use]
    pub fn futures(&self) -> Vec<Arc<Log>> {
        self.shared.futures.read().values().cloned().collect()
    }

    pub(crate) fn create_future(&self, current: &Arc<Log>) -> Result<Arc<Log>, CreateError> {
        let env = &self.shared.env;
        env.check_health()?;
        let partition = current.topic_partition().clone();
        let mut futures = self.shared.futures.write();
        if futures.contains_key(&partition) || self.log(&partition).is_some() {
            return Err(CreateError::Exists { log: partition.to_string() });
        }
        self.forget_recovery_point(&partition)?;
        env.forget_earlier(&partition, &self.shared.logs.read())?;
        let path = env.path.join(names::future_directory(&partition, random_name(env)?));
        env.disk.create_directory(&path).context("create", &path)?;
        let topic_id = current.topic_id();
        if let Some(topic_id) = topic_id {
            write_topic_id(&*env.disk, &path, topic_id)?;
        }
        let (start, config) = (current.log_start_offset(), current.config());
        let future = empty_log(env, &path, partition.clone(), topic_id, start, config);
        futures.insert(partition, Arc::clone(&future));
        Ok(future)
    }

    pub(crate) fn claim_room(&self, bytes: u64) -> Result<(), StorageError> {
        self.shared.env.room.claim(bytes)
    }

    /// Makes everything in the copy durable, and then the mark that says so, and where the log starts: until the copy is a
    /// log, no checkpoint tells of it.
    pub(crate) fn complete_future(&self, future: &Arc<Log>) -> Result<(), StorageError> {
        let env = &self.shared.env;
        flusher::flush_everything(env, std::slice::from_ref(future))?;
        future.flush()?;
        let point = (future.topic_partition().clone(), future.log_end_offset());
        env.recovery_points.set_all([point])?;
        let start = future.log_start_offset().to_string();
        checkpoint::replace_durably(&*env.disk, &mark_in(&future.home().path()), &start)
    }

    /// Takes a log away, durably, whose copy is marked; nothing if it is deleted, also where another one has its name since.
    /// Nobody may append to it any more: should this fail, the disk has.
    pub(crate) fn give_away(&self, current: &Log) -> Result<Option<PathBuf>, StorageError> {
        let env = &self.shared.env;
        let given_away = self.rename_away(current, names::deleted_directory);
        let given_away = given_away.and_then(|renamed| {
            env.disk.sync_directory(&env.path).context("flush", &env.path)?;
            Ok(renamed)
        });
        given_away.inspect_err(|error| env.poison(error))
    }

    /// Gives a marked copy the name of the log that is no longer there.
    pub(crate) fn take_up(
        &self,
        future: &Arc<Log>,
        cleaned_to: Option<Offset>,
    ) -> Result<(), StorageError> {
        let taken = self.try_take_up(future, cleaned_to);
        taken.inspect_err(|error| self.shared.env.poison(error))
    }

    fn try_take_up(
        &self,
        future: &Arc<Log>,
        cleaned_to: Option<Offset>,
    ) -> Result<(), StorageError> {
        let env = &self.shared.env;
        let partition = future.topic_partition();
        let path = env.path.join(partition.to_string());
        let no_flush = future.flush_lock();
        future.leave_journal(&no_flush)?;
        // Whoever writes down the starts asks which logs there are: it must not forget this one.
        let mut logs = self.shared.logs.write();
        env.cleaned.set_all(cleaned_to.map(|offset| (partition.clone(), offset)))?;
        if future.starts_within_a_segment() {
            env.log_starts.set_all([(partition.clone(), future.log_start_offset())])?;
        }
        let copied_in = future.home().path();
        future.rename(&path, &no_flush)?;
        env.follow_rename(&copied_in, &path);
        env.disk.sync_directory(&env.path).context("flush", &env.path)?;
        logs.insert(partition.clone(), Arc::clone(future));
        drop(logs);
        self.shared.futures.write().remove(partition);
        self.remove_mark(&path);
        Ok(())
    }

    /// A mark on a log says nothing any more.
    fn remove_mark(&self, path: &Path) {
        if let Err(error) = self.shared.env.disk.remove_file(&mark_in(path)) {
            tracing::debug!(path = %path.display(), %error, "a mark stays on a log");
        }
    }

    pub(crate) fn discard_given_away(&self, renamed: PathBuf, log: &Log) {
        let delay_ms = log.config().file_delete_delay_ms;
        self.shared.env.discard_later(vec![renamed], delay_ms);
    }

    /// Removes a copy that is not to become a log.
    pub(crate) fn discard_future(&self, partition: &TopicPartition) -> Result<(), StorageError> {
        let Some(future) = self.shared.futures.write().remove(partition) else { return Ok(()) };
        let no_flush = future.close_for_deletion();
        future.leave_journal(&no_flush)?;
        let renamed = self.deleted_path(partition)?;
        future.rename(&renamed, &no_flush)?;
        self.shared.env.discard_later(vec![renamed], 0);
        Ok(())
    }

    fn deleted_path(&self, partition: &TopicPartition) -> Result<PathBuf, StorageError> {
        Ok(self.path().join(names::deleted_directory(partition, random_name(&self.shared.env)?)))
    }

    /// What moves that did not end have left here.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Leftover> {
        self.shared.leftovers.lock().clone()
    }

    fn forget_leftover(&self, leftover: &Leftover) {
        self.shared.leftovers.lock().retain(|it| it.path != leftover.path);
    }

    /// Removes a copy whose log is where it was, or is deleted. Its mark is durably gone when this returns.
    pub(crate) fn discard_leftover(&self, leftover: &Leftover) -> Result<(), StorageError> {
        let env = &self.shared.env;
        let renamed = self.deleted_path(&leftover.partition)?;
        env.disk.rename(&leftover.path, &renamed).context("rename", &leftover.path)?;
        env.disk.sync_directory(&env.path).context("flush", &env.path)?;
        self.forget_leftover(leftover);
        env.discard_later(vec![renamed], 0);
        Ok(())
    }

    /// Lets a complete copy take the place of its log, which is nowhere: the move had come so far.
    pub(crate) fn promote_leftover(&self, leftover: &Leftover) -> Result<Arc<Log>, StorageError> {
        assert!(leftover.is_complete, "what is not complete is no log");
        let env = &self.shared.env;
        let path = env.path.join(leftover.partition.to_string());
        let mark = checkpoint::read_if_exists(&*env.disk, &mark_in(&leftover.path))?;
        let start = mark.as_deref().and_then(|start| start.parse().ok()).unwrap_or(0);
        let opener = Opener::new(env, Arc::clone(&self.config), false);
        let mut logs = self.shared.logs.write();
        env.log_starts.set_all([(leftover.partition.clone(), Offset(start))])?;
        env.disk.rename(&leftover.path, &path).context("rename", &leftover.path)?;
        env.disk.sync_directory(&env.path).context("flush", &env.path)?;
        let opened = opener.open_all(vec![(leftover.partition.clone(), path.clone())])?;
        let log = opened.into_values().next();
        let log = log.ok_or_else(|| StorageError::corrupt(&path, 0, "it is not there"))?;
        logs.insert(leftover.partition.clone(), Arc::clone(&log));
        drop(logs);
        self.forget_leftover(leftover);
        self.remove_mark(&path);
        Ok(log)
    }
}

impl Leftover {
    pub(super) fn found(
        disk: &dyn ottla_env::Disk,
        partition: TopicPartition,
        path: PathBuf,
    ) -> Self {
        let is_complete = disk.status(&mark_in(&path)).is_ok();
        let topic_id = read_topic_id(disk, &path).ok().flatten();
        Self { partition, topic_id, path, is_complete }
    }
}

fn mark_in(path: &Path) -> PathBuf {
    path.join(names::COMPLETE_COPY)
}
