//! Making a log shorter: retention at its start, truncation at its end, closing or removing all of it.

use std::fs::File;
use std::sync::Arc;

use ottla_base::{Offset, TopicPartition};
use parking_lot::MutexGuard;

use super::{Active, Log, NoFlush, Sealed, UnsyncedNames, Writer};
use crate::environment::DurableOffsets;
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::index::{Floor, Index};
use crate::names;
use crate::policy::retention::{self, Reason, SegmentInfo};
use crate::policy::roll;
use crate::quarantine;
use crate::recovery;
use crate::recovery::producers::Restored;
use crate::segment::Segment;

/// What retention took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub segments: usize,
    pub bytes: u64,
}

/// A log that is about to start later. It does so once [`Trim::change`] is durable and [`Trim::finish`] is called.
#[derive(Debug)]
pub(crate) struct Trim<'a> {
    log: &'a Log,
    start: Offset,
    _writer: MutexGuard<'a, Writer>,
}

impl Trim<'_> {
    /// What has to be written first; nothing if the log starts there already.
    pub(crate) fn change(&self) -> Option<(TopicPartition, Offset)> {
        let is_later = self.start > self.log.log_start_offset();
        is_later.then(|| (self.log.partition.clone(), self.start))
    }

    pub(crate) fn finish(self) -> Result<Offset, StorageError> {
        self.log.state.write().log_start_offset = self.start.0;
        self.log.forget_epochs_before(self.start);
        Ok(self.start)
    }
}

/// Where a log is to be cut off at its end.
#[derive(Debug)]
struct Cut {
    /// Which segments go: those that begin behind it.
    offset: Offset,
    /// Batches stay that end before it: what is damaged goes as a whole.
    stays_before: Offset,
    /// What stays of the file of the segment that holds the offset.
    size: u64,
    /// How many entries stay of its transaction index, if some go.
    aborted: Option<usize>,
}

impl Log {
    /// Deletes the segments that retention no longer keeps, all of them wholly below `safe_below`
    /// (the high watermark); none while the log is being compacted.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or what the disk says. Segments go oldest first: those
    /// that stay follow each other without a gap.
    pub fn enforce_retention(
        self: &Arc<Self>,
        now_ms: i64,
        safe_below: Offset,
    ) -> Result<Removed, StorageError> {
        // What a compaction has taken note of must still be there when it is done; the next run makes up for it.
        let compaction = self.config().compact.then(|| self.cleaning.try_lock());
        if matches!(compaction, Some(None)) {
            return Ok(Removed::default());
        }
        let planned = self.plan_retention(now_ms, safe_below)?;
        let Some((last, _)) = planned.last() else { return Ok(Removed::default()) };
        self.env().check_health()?;
        // A crash may bring back some of them and not the others. What the others made of their producers is then in the
        // snapshot where the first one begins that stays: recovery believes it if all before that is known to be flushed.
        let settled = self.settle(last.end_offset);
        let mut writer = self.lock_writer()?;
        let mut removals = self.plan_retention(now_ms, safe_below)?;
        let known = self.env().recovery_points.get(&self.partition).unwrap_or(Offset::ZERO);
        removals.retain(|(segment, _)| segment.end_offset <= known);
        // On a full disk nothing can be noted; what was noted before is enough for some of them.
        let Some((last, _)) = removals.last() else { return settled.map(|()| Removed::default()) };
        if last.is_active {
            self.roll_to(&mut writer, self.log_end_offset())?;
        }
        if !self.keeps_a_file(removals.len()) {
            // Only the new segment's name will tell where the log ends.
            self.create_active_durably(&mut writer)?;
        }
        for (SegmentInfo { base_offset, .. }, reason) in &removals {
            tracing::info!(log = %self.partition, %base_offset, ?reason, "deleting a segment");
        }
        self.keep_producers_of_oldest(&writer, removals.len())?;
        self.discard_oldest(removals.len())
    }

    /// The segments that are to go, oldest first, and why.
    fn plan_retention(
        &self,
        now_ms: i64,
        safe_below: Offset,
    ) -> Result<Vec<(SegmentInfo, Reason)>, StorageError> {
        let mut segments = self.segment_infos()?;
        let (start, config) = (self.log_start_offset(), self.config());
        let plan = |segments: &[_]| retention::plan(segments, now_ms, &config, start, safe_below);
        let mut removals = plan(&segments);
        let mut is_old = true;
        for (info, removal) in segments.iter_mut().zip(&removals) {
            if removal.reason == Reason::Time {
                let newest_ms = self.newest_ms_by_batches(info.base_offset)?;
                is_old &= newest_ms.is_none_or(|newest_ms| newest_ms == info.largest_timestamp);
                info.largest_timestamp = newest_ms.unwrap_or(info.largest_timestamp);
            }
        }
        if !is_old {
            removals = plan(&segments);
        }
        let reasons = removals.into_iter().map(|removal| removal.reason);
        Ok(segments.into_iter().zip(reasons).collect())
    }

    fn newest_ms_by_batches(&self, base_offset: Offset) -> Result<Option<i64>, StorageError> {
        let (segment, [times, offsets], size) = {
            let state = self.state.read();
            let mut sealed = state.sealed.iter();
            let Some(it) = sealed.find(|it| it.segment.base_offset == base_offset.0) else {
                let (segment, size) = (Arc::clone(&state.active.segment), state.active.size);
                drop(state);
                return self.newest_ms_of_active(&segment, size);
            };
            (Arc::clone(&it.segment), [it.time_entries, it.offset_entries], it.size)
        };
        segment.newest_ms_by_batches(times, offsets, size).map(Some)
    }

    /// What it was opened with may have been damaged, too; what was appended since is known.
    fn newest_ms_of_active(
        &self,
        segment: &Arc<Segment>,
        size: u64,
    ) -> Result<Option<i64>, StorageError> {
        if let Some(largest) = segment.largest_by_batches(size)? {
            self.state.write().active.raise_largest(segment, &largest);
        }
        let state = self.state.read();
        let largest = state.active.largest.filter(|_| Arc::ptr_eq(&state.active.segment, segment));
        Ok(largest.map(|it| it.timestamp.0).filter(|timestamp| *timestamp >= 0))
    }

    /// Whether there are files of a segment when so many of the closed ones are gone. One that is new has none before
    /// its first batch.
    fn keeps_a_file(&self, removed: usize) -> bool {
        let state = self.state.read();
        state.active.created || state.sealed.len() > removed
    }

    /// Takes segments away at the log's start. It starts later only once no crash can bring them back; what cannot be
    /// taken away stays, with all that follows it.
    fn discard_oldest(&self, count: usize) -> Result<Removed, StorageError> {
        let oldest: Vec<Arc<Segment>> = {
            let state = self.state.read();
            state.sealed.iter().take(count).map(|sealed| Arc::clone(&sealed.segment)).collect()
        };
        let mut discarded = 0;
        let result = oldest.iter().try_for_each(|segment| {
            self.discard(segment)?;
            discarded += 1;
            Ok(())
        });
        if discarded == 0 {
            return result.map(|()| Removed::default());
        }
        let path = self.home.path();
        let synced = self.env().disk.sync_directory(&path).context("flush", &path);
        if let Err(error) = &synced {
            self.env().poison(error);
        }
        let removed = self.take_oldest(discarded);
        self.forget_epochs_before(self.log_start_offset());
        if removed.iter().any(|sealed| sealed.segment.damage().is_some()) {
            self.write_quarantine()?;
        }
        synced.and(result).map(|()| Removed {
            segments: removed.len(),
            bytes: removed.iter().map(|sealed| sealed.size).sum(),
        })
    }

    /// In memory whatever happens, since recovery does the same with what the file says: a full disk is no reason to
    /// delete nothing.
    fn forget_epochs_before(&self, start: Offset) {
        if let Err(error) = self.update_epochs(|epochs| epochs.truncate_from_start(start)) {
            tracing::warn!(log = %self.partition, %error, "cannot write the leader epochs yet");
            self.state.write().epochs.truncate_from_start(start);
        }
    }

    /// Lets the log start at a later offset, durably; whole segments before it go with the next retention run.
    /// Returns where the log starts now: never earlier than before, never after its end.
    ///
    /// Each call writes a file; [`LogDirectory::delete_records`](crate::LogDirectory::delete_records) does so once for
    /// many logs.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or the file with the starts can't be written: the log
    /// starts where it did.
    pub fn delete_records_to(&self, offset: Offset) -> Result<Offset, StorageError> {
        let trim = self.begin_trim(offset)?;
        self.env().log_starts.set_all(trim.change())?;
        trim.finish()
    }

    /// Keeps writers away, so that the new start is still right when it is on disk.
    pub(crate) fn begin_trim(&self, offset: Offset) -> Result<Trim<'_>, StorageError> {
        let _writer = self.lock_writer()?;
        let start = offset.min(self.log_end_offset()).max(self.log_start_offset());
        Ok(Trim { log: self, start, _writer })
    }

    /// Cuts off everything at and after an offset, as a follower does that has diverged from its leader.
    /// An offset inside a batch takes the whole batch away.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or what the disk says. Then nothing is cut off; or all of
    /// it, and the same call makes up for the rest; or the directory is offline.
    pub fn truncate_to(&self, offset: Offset) -> Result<(), StorageError> {
        // The long part, before anybody waits. What can't be read now is read again below, or said.
        let is_cut = (self.first_base_offset()..self.log_end_offset()).contains(&offset);
        let stays_before = self.state.read().whole_before(offset);
        let foreseen = is_cut.then(|| self.foresee_producers(stays_before).ok()).flatten();
        // A flush under way would report offsets that are about to mean something else.
        let no_flush = self.flush_lock();
        let mut writer = self.lock_writer()?;
        let end = self.log_end_offset();
        if offset >= end {
            // An epoch that began here and wrote nothing is forgotten all the same: a leader that knows nothing of it would
            // be asked about it for ever.
            return self.update_epochs(|epochs| epochs.truncate_from_end(end));
        }
        self.leave_journal(&no_flush)?;
        if offset < self.first_base_offset() {
            return self.restart_at(&mut writer, offset);
        }
        self.expect_recovery_from(offset)?;
        self.write_indexes()?;
        let cut = self.find_cut(offset)?;
        let restored = self.producers_before(&writer, cut.stays_before, foreseen)?;
        self.note_cut(&mut writer, cut.stays_before);
        let done = self.cut_off(&mut writer, &cut, restored);
        done.inspect_err(|error| self.env().poison(error))?;
        // A retry forgets the rest.
        self.write_quarantine()?;
        let end = self.log_end_offset();
        self.update_epochs(|epochs| epochs.truncate_from_end(end))
    }

    /// Drops everything and begins again, empty, at an offset: a follower that has fallen behind its leader's start.
    ///
    /// # Errors
    /// As [`Log::truncate_to`].
    pub fn truncate_fully_and_start_at(&self, offset: Offset) -> Result<(), StorageError> {
        let no_flush = self.flush_lock();
        self.leave_journal(&no_flush)?;
        let mut writer = self.lock_writer()?;
        self.restart_at(&mut writer, offset)
    }

    /// Writes what memory still holds, and lets nothing more be written. The caller flushes.
    pub(crate) fn close(&self) -> Result<(), StorageError> {
        let mut writer = self.writer.lock();
        writer.closed = true;
        let (has_records, is_empty, is_allocated) = {
            let mut state = self.state.write();
            // The next start takes the largest timestamp from the time index.
            state.active.push_largest_timestamp();
            let has_records = state.active.size > 0;
            let is_allocated = state.active.allocated == Some(true);
            (has_records, !has_records && state.sealed.is_empty(), is_allocated)
        };
        if has_records {
            self.write_indexes()?;
            self.mark_indexes_dirty(&mut writer)?;
            if is_allocated || self.config().preallocate {
                self.trim_active();
            }
        }
        if is_empty && writer.producers.is_empty() {
            return Ok(());
        }
        if self.has_unsettled_ends() {
            // The next start has to know what was open before these, and an earlier snapshot tells.
            return Ok(());
        }
        // The next start need not read the log for them. It would, if this did not reach the disk.
        let end = self.log_end_offset();
        self.snapshot_producers(&mut writer, end)?;
        Ok(())
    }

    /// Lets nothing more be written or flushed, because the log is about to be renamed away, with what this returns.
    pub(crate) fn close_for_deletion(&self) -> NoFlush<'_> {
        let no_flush = self.flush_lock();
        let mut writer = self.writer.lock();
        writer.closed = true;
        self.forget_high_watermark();
        writer.dirty.take();
        writer.unsynced_names = UnsyncedNames::None;
        no_flush
    }

    pub(super) fn first_base_offset(&self) -> Offset {
        Offset(self.state.read().first_segment().base_offset)
    }

    /// What retention looks at.
    ///
    /// # Errors
    /// [`StorageError`] where a segment's time index, or the time when its file was written, cannot be read.
    pub fn segment_infos(&self) -> Result<Vec<SegmentInfo>, StorageError> {
        let (sealed, mut active, active_segment) = {
            let state = self.state.read();
            let sealed = state.sealed_with_ends().map(|(sealed, end)| {
                let info = SegmentInfo {
                    base_offset: Offset(sealed.segment.base_offset),
                    end_offset: Offset(end),
                    size: sealed.size,
                    largest_timestamp: -1,
                    is_active: false,
                };
                (info, Arc::clone(&sealed.segment), sealed.time_entries)
            });
            let active = SegmentInfo {
                base_offset: Offset(state.active.segment.base_offset),
                end_offset: Offset(state.log_end_offset),
                size: state.active.size,
                largest_timestamp: state.active.largest.map_or(-1, |largest| largest.timestamp.0),
                is_active: true,
            };
            (sealed.collect::<Vec<_>>(), active, Arc::clone(&state.active.segment))
        };
        if active.size > 0 && active.largest_timestamp < 0 {
            active.largest_timestamp = active_segment.modified_ms()?;
        }
        let with_time = |(info, segment, time_entries): (SegmentInfo, Arc<Segment>, u32)| {
            Ok(SegmentInfo { largest_timestamp: segment.newest_ms(time_entries)?, ..info })
        };
        sealed.into_iter().map(with_time).chain([Ok(active)]).collect()
    }

    fn take_oldest(&self, count: usize) -> Vec<Sealed> {
        let mut state = self.state.write();
        let removed: Vec<Sealed> = state.sealed.drain(..count).collect();
        state.log_start_offset = state.log_start_offset.max(state.first_segment().base_offset);
        state.check();
        removed
    }

    /// Finds what stays when the log is cut off at an offset that is not before its first segment. Reads what it needs to
    /// know before anything is changed.
    fn find_cut(&self, offset: Offset) -> Result<Cut, StorageError> {
        let (stays_before, (segment, size, entries)) = {
            let state = self.state.read();
            (state.whole_before(offset), state.segment_of(offset))
        };
        let aborted = segment.aborted_before(stays_before)?;
        if size == 0 {
            return Ok(Cut { offset, stays_before, size, aborted });
        }
        let file = segment.log_file()?;
        // From the last batch with an entry that stays.
        let entry = match roll::relative(segment.base_offset, stays_before.0 - 1) {
            Some(last) => segment.offset_floor(Floor::InFile(entries), last)?,
            None => None,
        };
        let from = entry.map_or(0, |entry| u64::from(entry.position));
        let found = segment.find(&file, from, size, stays_before.0)?;
        let position = found.map_or(size, |found| found.position);
        let damage = segment.damage().unwrap_or_default();
        let damage = quarantine::first_after(&damage, stays_before.0);
        let size = damage.map_or(position, |damage| damage.position.min(position));
        Ok(Cut { offset, stays_before, size, aborted })
    }

    /// What fails in here leaves memory and disk apart, which only the next start can bring together again: the caller
    /// takes the directory offline.
    fn cut_off(
        &self,
        writer: &mut Writer,
        cut: &Cut,
        restored: Restored,
    ) -> Result<(), StorageError> {
        self.discard_after(cut.offset)?;
        self.cut_active(writer, cut)?;
        self.replace_producers(writer, restored);
        self.env().log_starts.lower(&self.partition, cut.offset)?;
        self.lower_recovery_point(self.log_end_offset())
    }

    /// Durably: what is appended from here on takes the place of what was in these segments, and must not meet it again.
    fn discard_after(&self, offset: Offset) -> Result<(), StorageError> {
        let taken = self.take_segments_after(offset);
        if taken.is_empty() {
            return Ok(());
        }
        taken.iter().try_for_each(|segment| self.discard(segment))?;
        let path = self.home.path();
        self.env().disk.sync_directory(&path).context("flush", &path)
    }

    /// Takes the segments out that begin after an offset, newest first; the one that holds it becomes active.
    fn take_segments_after(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let mut state = self.state.write();
        let mut taken = Vec::new();
        while state.active.segment.base_offset > offset.0
            && let Some(last) = state.sealed.pop()
        {
            // What is remembered of a segment that was closed does not hold for one that is written again.
            let home = Arc::clone(&self.home);
            let segment = Arc::new(Segment::new(home, last.segment.base_offset));
            segment.set_damage(last.segment.damage().map_or_else(Vec::new, |it| it.to_vec()));
            let next = Active::planned(segment, state.active.created_ms, state.active.jitter_ms);
            let previous = std::mem::replace(&mut state.active, next);
            state.active.created = true;
            state.active.size = last.size;
            state.active.offsets = Index::on_disk(last.offset_entries, None);
            if previous.created {
                taken.push(previous.segment);
            }
        }
        taken
    }

    fn cut_active(&self, writer: &mut Writer, cut: &Cut) -> Result<(), StorageError> {
        let (segment, size, created, created_ms, jitter_ms) = {
            let Active { segment, size, created, created_ms, jitter_ms, .. } =
                &self.state.read().active;
            (Arc::clone(segment), *size, *created, *created_ms, *jitter_ms)
        };
        if size > 0 {
            self.cut_file(writer, &segment, cut.size)?;
        }
        // Behind the last batch: an offset in a gap is not where a segment may begin one day, since recovery takes gaps
        // between segments for losses.
        let (mut active, end) = if created {
            if let Some(kept) = cut.aborted {
                segment.cut_aborted(kept)?;
            }
            let interval = self.config().index_interval_bytes;
            recovery::indexes::reopen_cut(&segment, cut.stays_before.0, cut.size, interval)?
        } else {
            let end = segment.base_offset;
            (Active::planned(segment, created_ms, jitter_ms), end)
        };
        active.created_ms = created_ms;
        active.jitter_ms = jitter_ms;
        let mut state = self.state.write();
        state.active = active;
        state.log_start_offset = state.log_start_offset.min(cut.offset.0);
        state.log_end_offset = end.max(state.log_start_offset);
        state.flushed_offset = state.flushed_offset.min(state.log_end_offset);
        state.check();
        Ok(())
    }

    fn cut_file(
        &self,
        writer: &mut Writer,
        segment: &Segment,
        size: u64,
    ) -> Result<(), StorageError> {
        let file = segment.log_file()?;
        let truncated = self.env().disk.set_len(&file, size);
        truncated.context("truncate", &segment.path(names::LOG))?;
        segment.set_damage(quarantine::before(&segment.damage().unwrap_or_default(), size));
        writer.mark_dirty(&file, self.env().now_ms());
        self.keep_cut(&file)
    }

    /// Where the page cache counts as the disk, what comes after the cut is visible without any flush, and a checkpoint says so.
    /// A loss of power that undoes the cut would show what was cut off in its place.
    fn keep_cut(&self, file: &File) -> Result<(), StorageError> {
        let env = self.env();
        if env.options.flush_on_commit {
            return Ok(());
        }
        env.disk.sync_data(file).context("flush", &self.home.path())
    }

    fn restart_at(&self, writer: &mut Writer, offset: Offset) -> Result<(), StorageError> {
        self.expect_recovery_from(offset)?;
        self.env().log_starts.remove(&self.partition)?;
        let begun = self.begin_anew(writer, offset);
        begun.inspect_err(|error| self.env().poison(error))?;
        // Nothing is left of what was there. A retry, or the next append, makes up for the rest.
        self.create_active_durably(writer)?;
        self.write_quarantine()?;
        self.write_epochs(&EpochCache::default())
    }

    /// Lets go of all segments. What fails in here leaves some that nobody knows of, with a gap behind them that the next
    /// start would take for a loss: the caller takes the directory offline.
    fn begin_anew(&self, writer: &mut Writer, offset: Offset) -> Result<(), StorageError> {
        self.forget_producers(writer)?;
        self.note_cut(writer, Offset(i64::MIN));
        writer.dirty.take();
        let segments = self.take_all_segments(offset);
        segments.iter().rev().try_for_each(|segment| self.discard(segment))?;
        self.lower_recovery_point(offset)
    }

    /// Takes all segments out that have files, oldest first; the log is empty, and begins at an offset.
    fn take_all_segments(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let segment = Arc::new(Segment::new(Arc::clone(&self.home), offset.0));
        let now_ms = self.env().now_ms();
        let mut state = self.state.write();
        let next = Active::planned(segment, now_ms, state.active.jitter_ms);
        let active = std::mem::replace(&mut state.active, next);
        let sealed = std::mem::take(&mut state.sealed).into_iter().map(|sealed| sealed.segment);
        (state.log_start_offset, state.log_end_offset) = (offset.0, offset.0);
        state.flushed_offset = offset.0;
        state.epochs = EpochCache::default();
        state.check();
        sealed.chain(active.created.then_some(active.segment)).collect()
    }

    /// Before anything is cut off: where this cannot be written, as on a full disk, nothing has changed. A checkpoint may
    /// undo it until the flushed offset is lowered, too, and so it is said again then. Where a segment begins, since what was
    /// flushed ends between two batches.
    fn expect_recovery_from(&self, offset: Offset) -> Result<(), StorageError> {
        let env = self.env();
        // What could not be written earlier would be written when it is too late to say no.
        let others = [&env.cleaned, &env.high_watermarks, &env.log_starts];
        others.into_iter().try_for_each(DurableOffsets::settle)?;
        let base_offset = {
            let state = self.state.read();
            let bases = state.segments().map(|segment| segment.base_offset);
            bases.rev().find(|base| *base <= offset.0).unwrap_or(0)
        };
        env.recovery_points.lower(&self.partition, Offset(base_offset))?;
        let others = [&env.cleaned, &env.high_watermarks];
        others.into_iter().try_for_each(|points| points.lower(&self.partition, offset))
    }

    /// What is appended from here on is neither on disk nor compacted nor visible, whatever the last checkpoints say. The caller
    /// has lowered the flushed offset, so that no checkpoint raises it again.
    fn lower_recovery_point(&self, end: Offset) -> Result<(), StorageError> {
        self.lower_high_watermark(end);
        let env = self.env();
        let points = [&env.recovery_points, &env.cleaned, &env.high_watermarks];
        points.into_iter().try_for_each(|points| points.lower(&self.partition, end))
    }

    pub(super) fn create_active_durably(&self, writer: &mut Writer) -> Result<(), StorageError> {
        self.active_file(writer)?;
        let path = self.home.path();
        self.env().disk.sync_directory(&path).context("flush", &path)
    }

    /// Renames a segment's files out of the way; they are deleted later, when readers have finished. Without its log
    /// file it is gone: what else cannot be renamed is removed by the next start.
    fn discard(&self, segment: &Segment) -> Result<(), StorageError> {
        let discarded = segment.retire(&names::SEGMENT_SUFFIXES)?;
        segment.close_files();
        self.env().discard_later(discarded, self.config().file_delete_delay_ms);
        Ok(())
    }
}
