//! Flushing: what was appended reaches the disk, and the flushed offset follows.
//!
//! Asking for a flush returns at once; the directory's flusher gathers requests and serves them together.

use std::path::Path;
use std::sync::atomic::Ordering;

use ottla_base::{Offset, Uuid};
use ottla_env::disk::Open;
use parking_lot::MutexGuard;

use super::dirty::{End, Unflushed};
use super::{Log, UnsyncedNames, Writer};
use crate::config::LogConfig;
use crate::error::{Context, StorageError};
use crate::flusher;
use crate::journal::Tail;
use crate::names;

/// While somebody has this, nobody else flushes the log that it is of.
pub(crate) type NoFlush<'a> = MutexGuard<'a, ()>;

/// Everything of one log that a flush must write, and what is flushed once it has.
#[derive(Debug)]
pub(crate) struct FlushWork {
    pub(crate) end_offset: i64,
    pub(crate) unflushed: Unflushed,
    pub(crate) unsynced_names: UnsyncedNames,
}

impl FlushWork {
    /// Whether it is little that was appended, and no more: then the journal can have it.
    pub(crate) fn may_be_journaled(&self) -> bool {
        self.unflushed.end.is_some() && self.unsynced_names == UnsyncedNames::None
    }

    /// How many calls it takes to write this to disk one by one.
    pub(crate) fn sync_calls(&self) -> usize {
        let names = match self.unsynced_names {
            UnsyncedNames::None => 0,
            UnsyncedNames::Files => 1,
            UnsyncedNames::Directory => 3,
        };
        self.unflushed.files.len() + usize::from(self.unflushed.has_others) + names
    }
}

impl Log {
    /// Asks the directory's flusher to make everything appended so far durable, and to tell its listeners.
    pub fn request_flush(&self) {
        self.join_next_flush();
        self.env().flushes.wake();
    }

    /// The same, where nobody waits for it: under load it begins milliseconds later, and covers more.
    pub fn request_unawaited_flush(&self) {
        self.join_next_flush();
        self.env().flushes.wake_unawaited();
    }

    /// Lets what was appended so far be made durable by the directory's next flush, which the caller begins soon with
    /// [`LogDirectory::begin_flush`](crate::LogDirectory::begin_flush), if nobody else does before.
    pub fn join_next_flush(&self) {
        if !self.flush_requested.swap(true, Ordering::AcqRel) {
            let this = self.this.upgrade().expect("a log is only reached through its Arc");
            self.env().flushes.push(this);
        }
    }

    /// The flusher has taken this log off its queue: whoever appends from now on asks again.
    pub(crate) fn flush_dequeued(&self) {
        self.flush_requested.store(false, Ordering::Release);
    }

    /// Makes everything appended so far durable, on this thread. Listeners are told by whoever calls the flusher, not
    /// by this. Returns the flushed offset.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] if the directory was offline before. Any other one has taken it offline.
    pub fn flush(&self) -> Result<Offset, StorageError> {
        self.flush_while(&self.flush.lock())
    }

    /// `flush.messages`: makes everything durable, on this thread, if so many records wait for it. Whoever has appended calls
    /// this before anybody hears of that, since Apache Kafka flushes before its append returns; the append itself does not, so
    /// that nobody who wants to append waits for the disk as well. Listeners are told as by [`Log::flush`].
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] once a flush of the directory has failed, this one or another.
    pub fn flush_due(&self) -> Result<(), StorageError> {
        let flushing = self.flush.lock();
        // Whoever was at it meanwhile may have written this, too.
        if self.is_flush_due() {
            let flushed = self.flush_while(&flushing);
            // What the disk has said once holds for everybody from now on.
            flushed.map_err(|error| self.env().check_health().err().unwrap_or(error))?;
        }
        self.env().check_health()
    }

    fn flush_while(&self, _flushing: &NoFlush<'_>) -> Result<Offset, StorageError> {
        self.env().check_health()?;
        let work = self.take_flush_work();
        if let Err(error) = self.sync(&work) {
            self.env().poison(&error);
            return Err(error);
        }
        Ok(self.flush_done(&work))
    }

    /// Takes what waits to be flushed. The caller holds the flush lock until the work is done.
    pub(crate) fn take_flush_work(&self) -> FlushWork {
        let mut writer = self.writer.lock();
        FlushWork {
            end_offset: self.state.read().log_end_offset,
            unflushed: writer.dirty.take(),
            unsynced_names: std::mem::take(&mut writer.unsynced_names),
        }
    }

    /// What the journal would note of this work.
    pub(crate) fn tail<'a>(&self, work: &'a FlushWork) -> Option<Tail<'a>> {
        let End { base_offset, position, bytes } = work.unflushed.end.as_ref()?;
        Some(Tail {
            log: self.home.path().file_name()?.to_str()?.to_owned(),
            topic_id: self.topic_id.unwrap_or(Uuid::ZERO),
            base_offset: *base_offset,
            position: *position,
            bytes: bytes.as_slice().into(),
        })
    }

    /// The journal has something of this log, or may have. The caller holds the flush lock.
    pub(crate) fn note_journaled(&self, sequence: u64) {
        self.journaled.store(sequence, Ordering::Relaxed);
    }

    /// Before anything is done to the log's files but appends, and before they have other names: what the journal has of it
    /// would be written over that after a crash. In a directory that is offline nothing is done but that, and the journal may
    /// have what the logs' files have lost.
    ///
    /// # Errors
    /// [`StorageError::Io`] where the journal cannot be emptied: it still says what is so.
    pub(crate) fn leave_journal(&self, _no_flush: &NoFlush<'_>) -> Result<(), StorageError> {
        if self.env().check_health().is_err() {
            return Ok(());
        }
        let sequence = self.journaled.load(Ordering::Relaxed);
        self.env().journal.release(self.env(), sequence)
    }

    /// Waits for the flush that is under way, and keeps others from beginning one.
    pub(crate) fn flush_lock(&self) -> NoFlush<'_> {
        self.flush.lock()
    }

    /// Writes this log's files to disk, one by one if that covers all of them.
    pub(crate) fn sync(&self, work: &FlushWork) -> Result<(), StorageError> {
        if work.unflushed.has_others {
            return match flusher::sync_file_system(self.env())? {
                true => Ok(()),
                false => self.sync_all_files(),
            };
        }
        let path = self.home.path();
        for file in &work.unflushed.files {
            self.env().disk.sync_data(file).context("flush a segment of", &path)?;
        }
        self.sync_names(&path, work.unsynced_names)
    }

    /// Writes every file of this log to disk, and their names.
    pub(crate) fn sync_all_files(&self) -> Result<(), StorageError> {
        let (disk, directory) = (&self.env().disk, self.home.path());
        for entry in disk.list(&directory).context("list", &directory)? {
            let path = directory.join(&entry.name);
            // Retention may have just taken it away.
            if let Some(file) = disk.open_if_there(&path, Open::Read).context("open", &path)? {
                disk.sync_data(&file).context("flush", &path)?;
            }
        }
        self.sync_names(&directory, UnsyncedNames::Directory)
    }

    fn sync_names(&self, path: &Path, unsynced: UnsyncedNames) -> Result<(), StorageError> {
        if unsynced == UnsyncedNames::None {
            return Ok(());
        }
        let disk = &self.env().disk;
        let metadata = path.join(names::PARTITION_METADATA);
        if unsynced == UnsyncedNames::Directory {
            let opened = disk.open_if_there(&metadata, Open::Read);
            // Without it the next start takes the log for a stray.
            if let Some(file) = opened.context("open", &metadata)? {
                disk.sync_data(&file).context("flush", &metadata)?;
            }
        }
        disk.sync_directory(path).context("flush", path)?;
        match path.parent().filter(|_| unsynced == UnsyncedNames::Directory) {
            Some(parent) => disk.sync_directory(parent).context("flush", parent),
            None => Ok(()),
        }
    }

    /// Notes that the work is on disk. Returns the flushed offset.
    pub(crate) fn flush_done(&self, work: &FlushWork) -> Offset {
        let mut state = self.state.write();
        let flushed = work.end_offset.min(state.log_end_offset);
        state.flushed_offset = state.flushed_offset.max(flushed);
        state.check();
        Offset(state.flushed_offset)
    }

    /// What is on disk whatever `log.flush.on.commit` says: recovery may begin here.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        Offset(self.state.read().flushed_offset)
    }

    /// `flush.messages` and `flush.ms`, for those who set them.
    pub(super) fn request_flush_if_due(&self, writer: &Writer, config: &LogConfig, now_ms: i64) {
        let waited_ms = now_ms.saturating_sub(writer.dirty_since_ms);
        if self.unflushed() >= config.flush_messages || waited_ms >= config.flush_ms {
            self.request_flush_of(writer);
        }
    }

    /// Whether so many records wait for the disk that `flush.messages` wants them there: then [`Log::flush_due`] is called.
    #[must_use]
    pub fn is_flush_due(&self) -> bool {
        self.unflushed() >= self.config.read().flush_messages
    }

    /// How many records wait for the disk, about.
    fn unflushed(&self) -> i64 {
        let state = self.state.read();
        state.log_end_offset - state.flushed_offset
    }

    /// Asks for a flush if there is anything to flush.
    pub(super) fn request_flush_of(&self, writer: &Writer) {
        if !writer.dirty.is_empty() {
            self.request_flush();
        }
    }

    /// `flush.ms` of a log that nobody appends to any more.
    pub(crate) fn request_overdue_flush(&self, now_ms: i64) {
        let config = self.config();
        if config.flush_ms == i64::MAX {
            return;
        }
        let writer = self.writer.lock();
        if now_ms.saturating_sub(writer.dirty_since_ms) >= config.flush_ms {
            self.request_flush_of(&writer);
        }
    }
}
