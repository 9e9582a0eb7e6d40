//! Appending: batches get their place, go to disk in one write, and only then become visible.

use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_records::{BatchHeader, HEADER_LEN, TimestampType, ValidBatch};

use super::{Active, Log, UnsyncedNames, Writer};
use crate::error::{AppendError, Context, StorageError};
use crate::index::UNWRITTEN_MAX;
use crate::names;
use crate::policy::roll::{self, Incoming};
use crate::segment::Segment;

/// Who has made the batches, and who decides their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client has, and this log decides: they follow its end, in this leader epoch, if their producer has not sent
    /// them before and has left none out.
    Client(LeaderEpoch),
    /// The leader's own node has, whose records have no sequence numbers; this log decides.
    Leader(LeaderEpoch),
    /// Another log has taken them: offsets and epochs are in the batches, and stay as they are.
    Replica,
}

/// Where batches went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// The broker's time in the first batch, or [`Timestamp::NONE`] when it has its producer's.
    pub log_append_time: Timestamp,
    pub log_start_offset: Offset,
    /// They were there before, and nothing was appended: their producer has sent them again.
    pub duplicate: bool,
}

/// Up to where a log is written down with all that belongs to it, once that is flushed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecoveryPoint {
    offset: Offset,
    /// How often the log had been cut off by then.
    truncations: u64,
}

impl Log {
    /// Appends one batch of this node's own as the leader.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_batch(
        &self,
        mut batch: ValidBatch,
        leader_epoch: LeaderEpoch,
    ) -> Result<Appended, AppendError> {
        self.append(std::slice::from_mut(&mut batch), Origin::Leader(leader_epoch))
    }

    /// Appends one batch of a client as the leader.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_produced(
        &self,
        mut batch: ValidBatch,
        leader_epoch: LeaderEpoch,
    ) -> Result<Appended, AppendError> {
        self.append(std::slice::from_mut(&mut batch), Origin::Client(leader_epoch))
    }

    /// Appends batches, all of them or none, into one segment. Afterwards the batches say where they are.
    ///
    /// A batch larger than `segment.bytes` gets a segment of its own: refusing it is the caller's choice.
    ///
    /// # Errors
    /// [`AppendError::Refused`] where a producer's epoch, sequence numbers or transaction speak against it.
    /// [`StorageError::Full`] for a client's batches without room, [`StorageError::OutOfOrder`] for a replica's before
    /// the log's end, [`StorageError::TooLarge`] for what fits into no segment, [`StorageError::Closed`],
    /// [`StorageError::Poisoned`], or what the disk says. Nothing is appended then.
    ///
    /// # Panics
    /// Without a batch.
    pub fn append(
        &self,
        batches: &mut [ValidBatch],
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        let mut writer = self.lock_writer()?;
        if let Some(before) = self.check_producers(&writer, batches, origin)? {
            return Ok(before);
        }
        let size = size_of(batches);
        if let Origin::Client(_) = origin {
            self.env().room.claim(size)?;
        }
        let appended = self.append_new(&mut writer, batches, origin);
        if appended.is_ok() {
            self.env().room.written();
        }
        appended.map_err(|error| self.env().room.judge(error, size).into())
    }

    /// If this fails, the log is as it was.
    pub(super) fn append_new(
        &self,
        writer: &mut Writer,
        batches: &mut [ValidBatch],
        origin: Origin,
    ) -> Result<Appended, StorageError> {
        self.place(batches, origin)?;
        let config = self.config();
        let now_ms = self.env().now_ms();
        self.roll_if_due(writer, batches, now_ms)?;
        let file = self.active_file(writer)?;
        self.note_epochs(batches)?;
        // Also where it fails, for more than an append then: what is cut off again must not come back behind flushed batches.
        self.mark_appended(writer, &file, batches, now_ms);
        if let Err(error) = self.write_indexed(writer, &file, batches) {
            writer.mark_dirty(&file, now_ms);
            return Err(error);
        }
        self.note_producers(writer, batches);
        self.note_appended_bytes(batches);
        let (appended, index_due) = self.publish(batches, config.index_interval_bytes);
        if index_due {
            self.write_indexes_later_if_not_now();
        }
        self.request_flush_if_due(writer, &config, now_ms);
        Ok(appended)
    }

    /// Notes where the epochs of batches begin that are about to be appended.
    fn note_epochs(&self, batches: &[ValidBatch]) -> Result<(), StorageError> {
        let begins = |batch: &ValidBatch| {
            (LeaderEpoch(batch.header().partition_leader_epoch), batch.base_offset())
        };
        let (end, changes) = {
            let state = self.state.read();
            let (end, epochs) = (Offset(state.log_end_offset), &state.epochs);
            let is_new = |(epoch, offset)| epochs.would_assign(epoch, offset);
            (end, epochs.reaches(end) || batches.iter().map(begins).any(is_new))
        };
        if !changes {
            return Ok(());
        }
        self.update_epochs(|epochs| {
            // What an append noted that failed afterwards: beside that, an older epoch would seem to begin only now.
            epochs.truncate_from_end(end);
            for (epoch, offset) in batches.iter().map(begins) {
                epochs.assign(epoch, offset);
            }
            true
        })
    }

    fn mark_appended(
        &self,
        writer: &mut Writer,
        file: &Arc<File>,
        batches: &[ValidBatch],
        now_ms: i64,
    ) {
        if !self.flushes_on_commit() {
            // Nobody is about to flush it.
            return writer.mark_dirty(file, now_ms);
        }
        let end = {
            let active = &self.state.read().active;
            (active.segment.base_offset, active.size)
        };
        writer.note_dirty_since(now_ms);
        writer.dirty.add_appended(file, end, batches);
    }

    /// Gives every batch its offsets, or checks those that it has.
    fn place(&self, batches: &mut [ValidBatch], origin: Origin) -> Result<(), StorageError> {
        let mut end = self.log_end_offset();
        for batch in batches {
            match origin {
                Origin::Client(leader_epoch) | Origin::Leader(leader_epoch) => {
                    batch.assign(end, leader_epoch);
                }
                Origin::Replica if batch.base_offset() < end => {
                    let found = batch.base_offset();
                    return Err(StorageError::OutOfOrder { log_end_offset: end, found });
                }
                Origin::Replica => {}
            }
            if batch.next_offset() <= batch.base_offset() {
                return Err(StorageError::TooLarge { what: "the offset of a batch" });
            }
            end = batch.next_offset();
        }
        Ok(())
    }

    fn roll_if_due(
        &self,
        writer: &mut Writer,
        batches: &[ValidBatch],
        now_ms: i64,
    ) -> Result<(), StorageError> {
        let (first, last) =
            batches.first().zip(batches.last()).expect("there is a batch to append");
        let size = size_of(batches);
        let max_timestamp = batches.iter().map(|batch| batch.max_timestamp().0).max();
        let incoming = Incoming {
            size,
            max_timestamp: max_timestamp.unwrap_or(-1),
            last_offset: last.last_offset().0,
        };
        if i32::try_from(size).is_err()
            || roll::relative(first.base_offset().0, incoming.last_offset).is_none()
        {
            return Err(StorageError::TooLarge { what: "a batch" });
        }
        self.load_first_timestamp()?;
        let active = self.state.read().active.describe();
        let beyond = i32::try_from(active.size + incoming.size).is_err();
        if beyond || roll::should_roll(&active, &incoming, &self.config(), now_ms) {
            // At the log's end, so that no gap in a replica's offsets is one between two segments, which recovery
            // takes for a loss.
            let end = self.log_end_offset();
            let reachable = roll::relative(end.0, incoming.last_offset).is_some();
            self.roll_to(writer, if reachable { end } else { first.base_offset() })?;
        }
        Ok(())
    }

    /// After a restart the first batch's timestamp is still on disk.
    fn load_first_timestamp(&self) -> Result<(), StorageError> {
        let (segment, size) = {
            let active = &self.state.read().active;
            if active.size == 0 || active.first_timestamp.is_some() {
                return Ok(());
            }
            (Arc::clone(&active.segment), active.size)
        };
        let timestamp = segment.first_timestamp(size)?;
        self.state.write().active.first_timestamp = Some(timestamp.unwrap_or(-1));
        Ok(())
    }

    /// The file to append to, created if this is the segment's first batch.
    pub(super) fn active_file(&self, writer: &mut Writer) -> Result<Arc<File>, StorageError> {
        let (segment, created) = {
            let active = &self.state.read().active;
            (Arc::clone(&active.segment), active.created)
        };
        if created {
            return segment.log_file();
        }
        let file = segment.create_files()?;
        writer.unsynced_names = writer.unsynced_names.max(UnsyncedNames::Files);
        let config = self.config();
        {
            // Whatever fails from here on: its files go when it goes.
            let active = &mut self.state.write().active;
            (active.created, active.allocated) = (true, Some(config.preallocate));
        }
        if config.preallocate {
            let allocated = self.env().room.allocate(&file, config.segment_bytes);
            allocated.context("preallocate", &segment.path(names::LOG))?;
        }
        Ok(file)
    }

    /// Gives back what was allocated for the active segment beyond its records (`preallocate`): nothing more comes.
    pub(super) fn trim_active(&self) {
        let (segment, size) = {
            let active = &self.state.read().active;
            (Arc::clone(&active.segment), active.size)
        };
        let path = segment.path(names::LOG);
        let trimmed = segment.log_file().and_then(|file| {
            // Of the length that it has: blocks beyond it go all the same.
            self.env().disk.set_len(&file, size).context("trim", &path)
        });
        if let Err(error) = trimmed {
            tracing::warn!(log = %self.partition, %error, "a segment keeps more room than it needs");
        }
    }

    /// Writes the batches, and before them what the transaction index says of them.
    fn write_indexed(
        &self,
        writer: &mut Writer,
        file: &File,
        batches: &[ValidBatch],
    ) -> Result<(), StorageError> {
        let position = self.state.read().active.size;
        let aborted = self.note_transactions(batches);
        let indexed = self.write_aborted(writer, &aborted);
        let written = indexed.and_then(|indexed| {
            let written = self.write(file, batches, position);
            if let (Err(_), Some(indexed)) = (&written, indexed) {
                self.cut_aborted(&indexed);
            }
            written
        });
        if written.is_err() {
            self.restore_transactions(writer);
        }
        written
    }

    /// One write for everything. If it fails, the file is cut back to where it ended: nothing was appended.
    fn write(
        &self,
        file: &File,
        batches: &[ValidBatch],
        position: u64,
    ) -> Result<(), StorageError> {
        let headers: Vec<[u8; HEADER_LEN]> =
            batches.iter().map(|b| b.header().to_bytes()).collect();
        let mut buffers: Vec<IoSlice<'_>> = Vec::with_capacity(batches.len() * 2);
        for (header, batch) in headers.iter().zip(batches) {
            buffers.push(IoSlice::new(header));
            buffers.push(IoSlice::new(batch.body()));
        }
        let disk = &self.env().disk;
        let Err(source) = disk.write_at(file, &mut buffers, position) else {
            return Ok(());
        };
        let path = self.state.read().active.segment.path(names::LOG);
        let cut = disk.set_len(file, position).context("cut back", &path);
        let error = StorageError::Io { action: "append to", path, source };
        if let Err(cut) = cut {
            // Garbage that we cannot remove would be found behind good batches.
            self.env().poison(&cut);
        }
        Err(error)
    }

    /// Both counts call for a checkpoint or a snapshot when they are large.
    fn note_appended_bytes(&self, batches: &[ValidBatch]) {
        let bytes = size_of(batches);
        self.env().appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unsnapshotted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Shows the batches to readers. Returns whether so many more index entries wait that they should be written.
    fn publish(&self, batches: &[ValidBatch], index_interval_bytes: u64) -> (Appended, bool) {
        let (first, last) =
            batches.first().zip(batches.last()).expect("there is a batch to append");
        let mut state = self.state.write();
        let unwritten_before = state.active.offsets.unwritten_len();
        for batch in batches {
            state.active.appended(batch.header(), index_interval_bytes);
        }
        state.log_end_offset = last.next_offset().0;
        state.check();
        let appended = Appended {
            base_offset: first.base_offset(),
            last_offset: last.last_offset(),
            log_append_time: log_append_time(first.header()),
            log_start_offset: Offset(state.log_start_offset),
            duplicate: false,
        };
        let unwritten = state.active.offsets.unwritten_len();
        (appended, unwritten / UNWRITTEN_MAX > unwritten_before / UNWRITTEN_MAX)
    }

    /// Closes the active segment and begins a new one at the log's end.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or what the disk says: the old segment goes on then.
    pub fn roll(&self) -> Result<(), StorageError> {
        let mut writer = self.lock_writer()?;
        let end = self.log_end_offset();
        self.roll_to(&mut writer, end)
    }

    pub(super) fn roll_to(
        &self,
        writer: &mut Writer,
        base_offset: Offset,
    ) -> Result<(), StorageError> {
        let (replaces_empty, same_name, may_be_allocated) = {
            let mut state = self.state.write();
            state.active.push_largest_timestamp();
            let Active { segment, size, allocated, .. } = &state.active;
            (*size == 0, segment.base_offset == base_offset.0, *allocated != Some(false))
        };
        match (replaces_empty, same_name) {
            (true, true) => return Ok(()),
            (true, false) => self.discard_empty_active()?,
            (false, _) => {
                self.write_indexes()?;
                self.mark_indexes_dirty(writer)?;
                // Whatever the topic's configuration has become meanwhile.
                if may_be_allocated {
                    self.trim_active();
                }
            }
        }
        if let Some(snapshot) = self.snapshot_producers(writer, base_offset)? {
            writer.mark_dirty(&Arc::new(snapshot), self.env().now_ms());
        }
        let jitter_ms = self.env().draw_jitter_ms(&self.config());
        let segment = Arc::new(Segment::new(Arc::clone(&self.home), base_offset.0));
        let next = Active::planned(segment, self.env().now_ms(), jitter_ms);
        let mut state = self.state.write();
        let previous = std::mem::replace(&mut state.active, next);
        if !replaces_empty {
            state.sealed.push(previous.into());
        }
        drop(state);
        tracing::debug!(log = %self.partition, %base_offset, "began a new segment");
        self.request_flush_of(writer);
        Ok(())
    }

    /// Removes the files of an active segment without records: its name would say that the log begins there.
    fn discard_empty_active(&self) -> Result<(), StorageError> {
        let segment = {
            let mut state = self.state.write();
            state.active.created = false;
            Arc::clone(&state.active.segment)
        };
        segment.remove_files()
    }

    /// For records that readers see already: whoever appended them must not be told that they were not. The entries
    /// stay in memory, and as many more try again.
    fn write_indexes_later_if_not_now(&self) {
        if let Err(error) = self.write_indexes() {
            tracing::warn!(log = %self.partition, %error, "cannot write an index yet");
        }
    }

    /// Lets the next flush cover the active segment's indexes. Recovery believes those of a segment once something
    /// that was appended behind it is flushed.
    pub(super) fn mark_indexes_dirty(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let segment = Arc::clone(&self.state.read().active.segment);
        let now_ms = self.env().now_ms();
        for file in segment.open_indexes()? {
            writer.mark_dirty(&Arc::new(file), now_ms);
        }
        Ok(())
    }

    /// Writes the index entries that only memory has, and a snapshot of the producers if that is asked for: what a
    /// checkpoint flushes next, and recovery believes. Returns up to where that is. A log that only pauses may go on as it
    /// is; of one that is closed there is no more than was said before.
    pub(crate) fn write_for_checkpoint(
        &self,
        with_snapshot: bool,
    ) -> Result<RecoveryPoint, StorageError> {
        let mut writer = self.writer.lock();
        let truncations = self.truncations();
        if writer.closed {
            let known = self.env().recovery_points.get(&self.partition).unwrap_or(Offset::ZERO);
            return Ok(RecoveryPoint { offset: known, truncations });
        }
        let end = self.log_end_offset();
        self.write_indexes()?;
        if with_snapshot && let Some(snapshot) = self.snapshot_producers(&mut writer, end)? {
            writer.mark_dirty(&Arc::new(snapshot), self.env().now_ms());
        }
        Ok(RecoveryPoint { offset: end, truncations })
    }

    /// What a flush has made of a point that was written before it; nothing once the log was cut off, since something else
    /// may have taken the place of what was flushed.
    pub(crate) fn still_flushed(&self, point: RecoveryPoint) -> Option<Offset> {
        (self.truncations() == point.truncations).then(|| point.offset.min(self.recovery_point()))
    }

    /// Writes the index entries that only memory has. The caller holds the writer.
    pub(super) fn write_indexes(&self) -> Result<(), StorageError> {
        let (segment, offsets, times) = {
            let active = &self.state.read().active;
            if active.offsets.unwritten_len() == 0 && active.times.unwritten_len() == 0 {
                return Ok(());
            }
            (Arc::clone(&active.segment), active.offsets.clone(), active.times.clone())
        };
        segment.write_index(names::INDEX, &offsets)?;
        segment.write_index(names::TIME_INDEX, &times)?;
        let mut state = self.state.write();
        state.active.offsets.written();
        state.active.times.written();
        Ok(())
    }
}

impl Writer {
    /// A file was changed in another way than by an append to the active segment.
    pub(super) fn mark_dirty(&mut self, file: &Arc<File>, now_ms: i64) {
        self.note_dirty_since(now_ms);
        self.dirty.add(file);
    }

    fn note_dirty_since(&mut self, now_ms: i64) {
        if self.dirty.is_empty() {
            self.dirty_since_ms = now_ms;
        }
    }
}

pub(super) fn size_of(batches: &[ValidBatch]) -> u64 {
    batches.iter().map(|batch| batch.size_in_bytes() as u64).sum()
}

fn log_append_time(header: &BatchHeader) -> Timestamp {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => Timestamp::NONE,
        TimestampType::LogAppendTime => Timestamp(header.max_timestamp),
    }
}
