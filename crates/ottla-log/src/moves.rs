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

use std::sync::Arc;

use ottla_base::{Offset, TopicPartition};
use ottla_records::{Batches, RawBatch, ValidBatch};

use crate::directory::LogDirectory;
use crate::error::{Context, CreateError, ReadError, StorageError};
use crate::log::{Log, Origin};

/// How much is copied at once.
const STEP_BYTES: usize = 1 << 20;

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
}

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub bytes: u64,
    /// Whether so little is left that the rest may be copied while appends wait.
    pub nearly_done: bool,
}

/// A log on its way to another directory.
#[derive(Debug)]
pub struct Move {
    source: Arc<LogDirectory>,
    target: Arc<LogDirectory>,
    current: Arc<Log>,
    future: Arc<Log>,
}

impl Move {
    /// Begins a copy in the target, empty.
    pub fn begin(
        source: Arc<LogDirectory>,
        target: Arc<LogDirectory>,
        partition: &TopicPartition,
    ) -> Result<Self, MoveError> {
        let current = source.log(partition).ok_or_else(|| MoveError::Gone(partition.clone()))?;
        let future = target.create_future(&current)?;
        Ok(Self { source, target, current, future })
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

    /// Copies some more.
    pub fn step(&self) -> Result<Copied, MoveError> {
        self.follow_start()?;
        let batches = self.next_batches()?;
        let bytes: u64 = batches.iter().map(|batch| batch.size_in_bytes() as u64).sum();
        self.target.claim_room(bytes)?;
        self.append(batches)?;
        let nearly_done = bytes < STEP_BYTES as u64 / 2;
        if nearly_done {
            // What appends must wait for in the end is as little as possible.
            self.future.flush()?;
        }
        Ok(Copied { bytes, nearly_done })
    }

    /// Copies what is left, and lets the copy take the log's place. Returns it, as the log that counts from now on.
    ///
    /// The caller lets nobody append meanwhile. After an error the log is where it was, and a copy that could not be
    /// made sure of is as nothing; unless a disk has failed, which its directory says.
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
        self.target.take_up(&self.future, self.current.cleaned_to())?;
        self.source.discard_given_away(renamed, &self.current);
        Ok(Arc::clone(&self.future))
    }

    /// Makes the copy as good as the log, and marks it, durably.
    fn prepare(&self) -> Result<(), MoveError> {
        while self.future.log_end_offset() < self.current.log_end_offset() {
            self.follow_start()?;
            let batches = self.next_batches()?;
            self.append(batches)?;
        }
        self.follow_start()?;
        self.future.adopt(&self.current)?;
        self.target.complete_future(&self.future)?;
        Ok(())
    }

    /// Removes the copy.
    pub fn abandon(&self) -> Result<(), StorageError> {
        self.target.discard_future(self.future.topic_partition())
    }

    /// Records may have been deleted from the front meanwhile, even those that come next.
    fn follow_start(&self) -> Result<(), StorageError> {
        let start = self.current.log_start_offset();
        if start > self.future.log_end_offset() {
            self.future.truncate_fully_and_start_at(start)?;
        }
        Ok(())
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
pub fn settle(
    directories: &[Arc<LogDirectory>],
) -> Result<Vec<(TopicPartition, Arc<LogDirectory>)>, StorageError> {
    let mut interrupted = Vec::new();
    for directory in directories {
        for leftover in directory.leftovers() {
            let name = &leftover.partition;
            if directories.iter().any(|it| it.log(name).is_some()) {
                directory.discard_leftover(&leftover)?;
                interrupted.push((leftover.partition, Arc::clone(directory)));
            } else if leftover.is_complete {
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
