//! Moving a log to another directory: a copy is made beside it, followed until it is complete, and put in its place. Shell.
//!
//! The copy is in a directory called `…-future` and is nobody's log until the move ends. The end is a sequence of steps
//! each of which is durable before the next, so that after a crash one of the two is complete, and known to be:
//!
//! 1. nothing is appended any more; what was is in the copy, all of it on disk
//! 2. the copy is marked: it is as good as the log
//! 3. the log is renamed `…-delete`
//! 4. the copy gets the log's name
//! 5. the mark goes
//!
//! A marked copy of a log that is nowhere takes its place when the directories are opened again. As long as the log is
//! there, the copy counts for nothing: its mark is taken away before the first append.
//!
//! Meanwhile the log is written, cut off at its end and shortened at its start, all of which the copy follows; compaction
//! leaves it alone, as in Apache Kafka.
//!
//! Invariants: the copy's records are those of the log up to the lowest offset at which the log was cut off since the
//! copy followed last; while appends wait at most [`REST_BYTES`] are copied, and twice as many flushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_base::{Offset, TopicPartition};
use ottla_records::{Batches, RawBatch, ValidBatch};

use crate::directory::{Leftover, LogDirectory};
use crate::error::{Context, CreateError, ReadError, StorageError};
use crate::log::{Log, Origin};

/// How much is copied at once.
const STEP_BYTES: usize = 1 << 20;
/// How much of the copy may be left to copy, and how much to flush, while appends wait.
const REST_BYTES: u64 = 8 << 20;

/// Why a log was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch is not what it was when it was written. What is wrong must not get a new checksum, nor a second life.
    #[error("the log {log} is corrupt at offset {offset}: {what}")]
    Corrupt { log: TopicPartition, offset: Offset, what: String },
    #[error("the log {0} is not in the directory that it is to be moved from")]
    Gone(TopicPartition),
    /// The log was given away, and the disk has failed before its copy could take its place, which is what the next start
    /// does. Until then the log can be read, and nothing more.
    #[error("the log {log} was given away, and its copy can't take its place: {error}")]
    GivenAway { log: TopicPartition, error: StorageError },
    /// More was appended than may be copied while appends wait: the move goes on.
    #[error("the log {0} has grown too much meanwhile")]
    Behind(TopicPartition),
}

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub bytes: u64,
    /// Whether the copy had all of the log a moment ago, and most of it on disk: the rest may follow while appends wait.
    pub nearly_done: bool,
}

/// A log on its way to another directory.
#[derive(Debug)]
pub struct Move {
    source: Arc<LogDirectory>,
    target: Arc<LogDirectory>,
    current: Arc<Log>,
    future: Arc<Log>,
    /// What was copied since the copy was flushed, in bytes.
    unflushed: AtomicU64,
}

impl Drop for Move {
    fn drop(&mut self) {
        self.current.end_copy();
    }
}

impl Move {
    /// Begins a copy in the target, empty. It is a copy of this very log: another topic may have had its name since.
    ///
    /// # Errors
    /// [`MoveError::Gone`] where the log is not in the source, or no more.
    pub fn begin(
        source: Arc<LogDirectory>,
        target: Arc<LogDirectory>,
        log: &Arc<Log>,
    ) -> Result<Self, MoveError> {
        let (partition, current) = (log.topic_partition(), Arc::clone(log));
        if !source.log(partition).is_some_and(|it| Arc::ptr_eq(&it, log)) {
            return Err(MoveError::Gone(partition.clone()));
        }
        if !current.begin_copy() {
            return Err(CreateError::Exists { log: partition.to_string() }.into());
        }
        let future = target.create_future(&current).inspect_err(|_| current.end_copy())?;
        Ok(Self { source, target, current, future, unflushed: AtomicU64::new(0) })
    }

    #[must_use]
    pub fn source(&self) -> &Arc<LogDirectory> {
        &self.source
    }

    #[must_use]
    pub fn target(&self) -> &Arc<LogDirectory> {
        &self.target
    }

    /// The copy.
    #[must_use]
    pub fn future(&self) -> &Arc<Log> {
        &self.future
    }

    /// Copies some more: nothing where what was to be read has been cut off or deleted at the same time, which the next step
    /// begins with.
    ///
    /// # Errors
    /// [`MoveError::Read`] or [`MoveError::Corrupt`] where the log cannot be read, [`MoveError::Storage`] where the
    /// copy can't be written or its disk has no room. The log is as it was, and the copy goes on from where it is.
    pub fn step(&self) -> Result<Copied, MoveError> {
        let end = self.current.log_end_offset();
        let bytes = self.copy_next()?;
        self.future.settle_as(&self.current);
        let is_whole = self.future.log_end_offset() >= end && !self.current.is_cut();
        if is_whole && self.unflushed.load(Ordering::Relaxed) > REST_BYTES {
            self.future.flush()?;
            self.unflushed.store(0, Ordering::Relaxed);
            return Ok(Copied { bytes, nearly_done: false });
        }
        Ok(Copied { bytes, nearly_done: is_whole })
    }

    /// Copies what is left, and lets the copy take the log's place. Returns it, as the log that counts from now on.
    ///
    /// The caller lets nobody append meanwhile.
    ///
    /// # Errors
    /// After an error the log is where it was, and a copy that could not be made sure of is as nothing; unless the log's
    /// disk has failed, which its directory says, or the target's, which is [`MoveError::GivenAway`]. After
    /// [`MoveError::Behind`], and where the target has no room, the move may go on.
    pub fn finish(&self) -> Result<Arc<Log>, MoveError> {
        self.current.pause();
        let prepared = self.prepare();
        if prepared.is_err() {
            self.current.resume();
        }
        prepared?;
        let Some(renamed) = self.source.give_away(&self.current)? else {
            return Err(MoveError::Gone(self.current.topic_partition().clone()));
        };
        let taken_up = self.target.take_up(&self.future, self.current.cleaned_to());
        taken_up.map_err(|error| {
            let log = self.current.topic_partition().clone();
            MoveError::GivenAway { log, error }
        })?;
        self.source.discard_given_away(renamed, &self.current);
        Ok(Arc::clone(&self.future))
    }

    /// Makes the copy as good as the log, and marks it, durably.
    fn prepare(&self) -> Result<(), MoveError> {
        self.follow()?;
        let (end, mut copied) = (self.current.log_end_offset(), 0);
        while self.future.log_end_offset() < end {
            if copied >= REST_BYTES {
                return Err(MoveError::Behind(self.current.topic_partition().clone()));
            }
            copied += self.copy_slice()?;
        }
        let copied_end = self.future.log_end_offset();
        if copied_end != end {
            return Err(self.corrupt(end, format!("its copy ends at {copied_end}")));
        }
        self.future.adopt(&self.current)?;
        self.target.complete_future(&self.future)?;
        Ok(())
    }

    /// Removes the copy.
    ///
    /// # Errors
    /// [`StorageError::Io`] where it can't be renamed: the next start finds it among its [`LogDirectory::leftovers`].
    pub fn abandon(self) -> Result<(), StorageError> {
        self.target.discard_future(self.future.topic_partition())
    }

    /// Takes away from the copy what is no longer in the log: a follower cuts off what its leader does not have, and
    /// records may have been deleted from the front, even those that come next.
    fn follow(&self) -> Result<(), MoveError> {
        let cut = self.current.take_cut();
        let start = self.current.log_start_offset();
        if let Some(cut) = cut.filter(|cut| *cut > self.future.log_start_offset()) {
            self.future.truncate_to(cut)?;
        } else if cut.is_some() {
            self.future.truncate_fully_and_start_at(start)?;
        }
        if start > self.future.log_end_offset() {
            self.future.truncate_fully_and_start_at(start)?;
        }
        Ok(())
    }

    fn copy_next(&self) -> Result<u64, MoveError> {
        let is_gone = || self.current.log_start_offset() > self.future.log_end_offset();
        match self.follow().and_then(|()| self.copy_slice()) {
            Err(MoveError::Read(_) | MoveError::Corrupt { .. }) if self.current.is_cut() => Ok(0),
            Err(MoveError::Read(_)) if is_gone() => Ok(0),
            copied => copied,
        }
    }

    /// Copies what comes next, of one segment at most. Returns how many bytes.
    fn copy_slice(&self) -> Result<u64, MoveError> {
        let batches = self.next_batches()?;
        let bytes = batches.iter().map(|batch| batch.size_in_bytes() as u64).sum();
        self.target.claim_room(bytes)?;
        self.append(batches)?;
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    fn next_batches(&self) -> Result<Vec<ValidBatch>, MoveError> {
        let from = self.future.log_end_offset();
        let slice = self.current.read(from, STEP_BYTES, self.current.log_end_offset(), true)?;
        let Some(range) = slice.source else { return Ok(Vec::new()) };
        let path = self.current.directory();
        let bytes = range.read().context("read a log in", path)?;
        let mut batches = Vec::new();
        let mut read = Batches::new(bytes);
        for batch in &mut read {
            let next = batches.last().map_or(from, ValidBatch::next_offset);
            let batch = batch.and_then(RawBatch::verify_crc);
            let batch = batch.map_err(|error| self.corrupt(next, error))?;
            // Its place is not covered by its checksum.
            if batch.next_offset() > self.current.log_end_offset() {
                return Err(self.corrupt(next, "a batch is behind the end of the log"));
            }
            batches.push(batch);
        }
        if batches.is_empty() {
            return Err(self.corrupt(from, "it ends within a batch"));
        }
        Ok(batches)
    }

    fn append(&self, mut batches: Vec<ValidBatch>) -> Result<(), MoveError> {
        // The first batch that is read may begin before the offset that was asked for, where records were deleted.
        let end = self.future.log_end_offset();
        let is_empty = end == self.future.log_start_offset();
        if let Some(first) = batches.first().filter(|first| first.base_offset() < end && is_empty) {
            self.future.truncate_fully_and_start_at(first.base_offset())?;
        }
        if batches.is_empty() {
            return Ok(());
        }
        match self.future.append(&mut batches, Origin::Replica) {
            Ok(_) => Ok(()),
            Err(crate::AppendError::Storage(error)) => Err(error.into()),
            Err(crate::AppendError::Refused(refusal)) => Err(self.corrupt(end, refusal)),
        }
    }

    /// The whole segment is looked at, so that nobody else gets to read what is damaged.
    fn corrupt(&self, offset: Offset, what: impl ToString) -> MoveError {
        let log = self.current.topic_partition().clone();
        if let Err(error) = self.current.doubt(offset) {
            tracing::warn!(%log, %offset, %error, "cannot look for damage");
        }
        MoveError::Corrupt { log, offset, what: what.to_string() }
    }
}

/// Ends moves that an earlier process has begun: a copy that had become as good as its log, which is gone, takes its
/// place; any other copy of a log that is there is removed. Returns which moves of these are to begin again, and where to.
///
/// A copy of a log that is nowhere stays as it is, if it is not complete: the log may be in a directory that can't be
/// opened now.
///
/// # Errors
/// [`StorageError`] where a copy can't be renamed or opened: the moves before it are settled, and those behind it wait
/// for the next start.
pub fn settle(
    directories: &[Arc<LogDirectory>],
) -> Result<Vec<(Leftover, Arc<LogDirectory>)>, StorageError> {
    let mut interrupted = Vec::new();
    for directory in directories {
        for leftover in directory.leftovers() {
            let name = &leftover.partition;
            // A topic that was made anew has other logs of the same names.
            let is_its_log =
                |log: Arc<Log>| leftover.topic_id.is_none() || log.topic_id() == leftover.topic_id;
            if directories.iter().any(|it| it.log(name).is_some_and(is_its_log)) {
                directory.discard_leftover(&leftover)?;
                interrupted.push((leftover, Arc::clone(directory)));
            } else if leftover.is_complete && directory.log(name).is_none() {
                directory.promote_leftover(&leftover)?;
                tracing::info!(log = %leftover.partition, directory = %directory.path().display(), "a move is complete");
            } else {
                tracing::warn!(
                    log = %leftover.partition,
                    directory = %directory.path().display(),
                    "an unfinished copy of a log that is nowhere stays, and is not used"
                );
            }
        }
    }
    Ok(interrupted)
}
