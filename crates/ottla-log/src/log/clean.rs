//! Compaction's view of a log, and the moment in which cleaned segments take the place of those they were made from.
//!
//! A compaction holds no lock while it reads and writes: it takes note of the segments, and when it is done they must
//! still be those of the log. If they were cut off, deleted or written again meanwhile, its work is thrown away.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_base::Offset;

use super::{Log, Sealed, Writer};
use crate::cleaner::output::Cleaned;
use crate::error::{Context, StorageError};
use crate::flusher;
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::names;
use crate::policy::compaction::{self, Dirtiness};
use crate::segment::Segment;

/// A closed segment, as compaction found it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u64,
    pub(crate) offset_entries: u32,
    pub(crate) policy: compaction::Segment,
}

/// What could be compacted of a log, and how often it had been cut off when that was looked at.
#[derive(Debug)]
pub(crate) struct Compactable {
    pub(crate) dirtiness: Dirtiness,
    pub(crate) sources: Vec<Source>,
    pub(crate) truncations: u64,
}

/// The log has changed under a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overtaken;

impl Log {
    /// Whether compaction has met something in this log that it must not touch.
    #[must_use]
    pub fn is_uncleanable(&self) -> bool {
        self.uncleanable.load(Ordering::Relaxed)
    }

    /// Whether a segment is damaged that would be compacted: a batch with a wrong offset has a sound checksum, and must not be
    /// written anew. The first time that it is asked and so, it is said.
    pub(crate) fn is_kept_by_damage(&self, sources: &[Source]) -> bool {
        let mut damaged = sources.iter().filter(|source| source.segment.damage().is_some());
        let first = damaged.next().map(|source| source.policy.base_offset);
        let was_known = self.kept_by_damage.swap(first.is_some(), Ordering::Relaxed);
        if let Some(segment) = first.filter(|_| !was_known) {
            tracing::warn!(log = %self.partition, %segment, "the log is not compacted as long as it has a segment that is damaged on disk");
        }
        first.is_some()
    }

    /// Up to where the log has been compacted, as the checkpoint file says.
    #[must_use]
    pub fn cleaned_to(&self) -> Option<Offset> {
        self.env().cleaned.get(&self.partition)
    }

    /// How much there is to compact; `None` if there is nothing that could be.
    pub(crate) fn dirtiness(
        &self,
        high_watermark: Offset,
        now_ms: i64,
    ) -> Result<Option<Compactable>, StorageError> {
        let config = self.config();
        // Before the segments, so that no cut between the two goes unnoticed.
        let Ok(truncations) = self.check_compactable() else { return Ok(None) };
        let sources = self.sources(config.max_compaction_lag_ms < i64::MAX)?;
        let segments: Vec<_> = sources.iter().map(|source| source.policy).collect();
        let last_stable_offset = self.last_stable_offset(high_watermark);
        let cleaned_to = self.cleaned_to();
        let dirtiness = {
            let state = self.state.read();
            let log = compaction::Log {
                segments: &segments,
                active_base_offset: Offset(state.active.segment.base_offset),
                log_start_offset: Offset(state.log_start_offset),
                log_end_offset: Offset(state.log_end_offset),
                last_stable_offset,
                cleaned_to,
            };
            Dirtiness::of(&log, &config, now_ms)
        };
        Ok(dirtiness.map(|dirtiness| Compactable { dirtiness, sources, truncations }))
    }

    fn sources(&self, with_first_timestamps: bool) -> Result<Vec<Source>, StorageError> {
        let sealed: Vec<(Arc<Segment>, u64, u32, u32)> = {
            let state = self.state.read();
            let sealed = state.sealed.iter();
            sealed
                .map(|it| (Arc::clone(&it.segment), it.size, it.offset_entries, it.time_entries))
                .collect()
        };
        let source =
            |(segment, size, offset_entries, time_entries): (Arc<Segment>, _, u32, u32)| {
                let first_timestamp = match with_first_timestamps {
                    true => segment.first_timestamp_of_sealed(size)?,
                    false => None,
                };
                let policy = compaction::Segment {
                    base_offset: Offset(segment.base_offset),
                    size,
                    offset_index_bytes: u64::from(offset_entries) * OffsetEntry::SIZE as u64,
                    time_index_bytes: u64::from(time_entries) * TimeEntry::SIZE as u64,
                    largest_timestamp: segment.newest_ms(time_entries)?,
                    first_timestamp,
                };
                Ok(Source { segment, size, offset_entries, policy })
            };
        sealed.into_iter().map(source).collect()
    }

    /// How often the log was cut off so far; an error once it may not be compacted: closed, copied, in a directory that has
    /// failed, or of a topic that is not to be compacted any more.
    pub(crate) fn check_compactable(&self) -> Result<u64, Overtaken> {
        let writer = self.writer.lock();
        if self.may_be_compacted(&writer) { Ok(self.truncations()) } else { Err(Overtaken) }
    }

    /// An error unless so much can be written without a touch to what is kept for the broker's other writes.
    pub(crate) fn check_spare_room(&self, bytes: u64) -> Result<(), StorageError> {
        self.env().room.check_spare(bytes)
    }

    fn may_be_compacted(&self, writer: &Writer) -> bool {
        writer.accepts_writes()
            && writer.copied.is_none()
            && self.config.read().compact
            && self.env().check_health().is_ok()
    }

    /// Notes durably that everything before an offset is on disk, its indexes included. From then on recovery does not
    /// take a gap between two segments for a loss, and compaction may leave some.
    pub(crate) fn settle(self: &Arc<Self>, offset: Offset) -> Result<(), StorageError> {
        let points = &self.env().recovery_points;
        if points.get(&self.partition).is_some_and(|known| known >= offset) {
            return Ok(());
        }
        loop {
            // As at every checkpoint: recovery believes what the indexes say of the batches before it.
            let point = self.write_for_checkpoint(false)?;
            flusher::flush_everything(self.env(), std::slice::from_ref(self))?;
            // Nobody cuts the log off between the look and the write.
            let _writer = self.lock_writer()?;
            if let Some(flushed) = self.still_flushed(point) {
                return points.set_all([(self.partition.clone(), flushed)]);
            }
        }
    }

    /// Notes up to where the log has been compacted, if it still is the same log.
    pub(crate) fn note_cleaned(
        &self,
        end: Offset,
        truncations: u64,
    ) -> Result<Result<(), Overtaken>, StorageError> {
        let _writer = self.lock_writer()?;
        if self.truncations() != truncations {
            return Ok(Err(Overtaken));
        }
        self.env().cleaned.set_all([(self.partition.clone(), end)])?;
        Ok(Ok(()))
    }

    /// Replaces segments by the one that was made from them, unless they are no longer those of the log. Readers find
    /// the one or the other.
    ///
    /// A crash at any point leaves what recovery brings to an end: see `recovery/swaps.rs` for the order of things.
    pub(crate) fn swap_in(
        &self,
        sources: &[Source],
        cleaned: Cleaned,
    ) -> Result<Result<(), Overtaken>, StorageError> {
        let directory = self.home.path();
        // What is noted of it from here on is not of these segments.
        if let Err(error) = self.leave_journal(&self.flush_lock()) {
            self.abandon(&cleaned);
            return Err(error);
        }
        let writer = self.lock_writer().ok().filter(|writer| self.may_be_compacted(writer));
        let at = writer.as_ref().and_then(|_| self.position_of(sources));
        let (Some(writer), Some(at)) = (writer, at) else {
            self.abandon(&cleaned);
            return Ok(Err(Overtaken));
        };
        // From here on a crash leaves what takes the place of these segments: nobody may change them meanwhile.
        if let Err(error) = cleaned.announce(&directory) {
            if self.env().check_health().is_ok() {
                self.abandon(&cleaned);
            }
            return Err(error);
        }
        let replaced = self.replace_files(&directory, sources, &cleaned, writer.newest_snapshot);
        let retired = match replaced {
            Ok(retired) => retired,
            Err(error) => {
                // What is there is half of this and half of that. The next start puts it in order.
                self.env().poison(&error);
                return Err(error);
            }
        };
        let mut state = self.state.write();
        let end = at + sources.len();
        let segment = cleaned.into_sealed();
        state.sealed.splice(at..end, [segment]);
        state.check();
        drop(state);
        drop(writer);
        self.env().discard_later(retired, self.config().file_delete_delay_ms);
        Ok(Ok(()))
    }

    /// Throws an unfinished segment away. One that stays would be taken for a part of a later compaction by the next
    /// start, and that one for unfinished: so there is none until then.
    pub(crate) fn abandon(&self, cleaned: &Cleaned) {
        if let Err(error) = cleaned.abandon() {
            tracing::warn!(log = %self.partition, %error, "cannot remove an unfinished compaction: the log is not compacted any more");
            self.uncleanable.store(true, Ordering::Relaxed);
        }
    }

    /// Where these segments are in the log, in this order and with nothing in between.
    fn position_of(&self, sources: &[Source]) -> Option<usize> {
        let state = self.state.read();
        let first = sources.first()?;
        let is_first = |sealed: &Sealed| Arc::ptr_eq(&sealed.segment, &first.segment);
        let at = state.sealed.iter().position(is_first)?;
        let there = state.sealed.get(at..at + sources.len())?;
        let same = there.iter().zip(sources).all(|(a, b)| Arc::ptr_eq(&a.segment, &b.segment));
        same.then_some(at)
    }

    /// Returns the files that are to be removed later.
    fn replace_files(
        &self,
        directory: &std::path::Path,
        sources: &[Source],
        cleaned: &Cleaned,
        newest_snapshot: Option<Offset>,
    ) -> Result<Vec<PathBuf>, StorageError> {
        let sync = || self.env().disk.sync_directory(directory).context("flush", directory);
        let mut retired = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let base_offset = Offset(source.segment.base_offset);
            // Who wrote what before the first one is still what its snapshot says.
            let keeps_snapshot = at == 0 || newest_snapshot == Some(base_offset);
            let suffixes: &[&str] =
                if keeps_snapshot { &names::CLEANED_SUFFIXES } else { &names::SEGMENT_SUFFIXES };
            if at > 0 && base_offset >= cleaned.end() {
                // Recovery can't know that this one belongs to the others: it must not be gone before they are.
                sync()?;
            }
            retired.extend(source.segment.retire(suffixes)?);
        }
        sync()?;
        cleaned.take_place()?;
        sync()?;
        cleaned.tidy()?;
        Ok(retired)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::sync::atomic::AtomicUsize;

    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_env::{Disk, DiskLayer, OsDisk};
    use ottla_records::{BatchBuilder, Compression};

    use super::*;
    use crate::LogConfig;
    use crate::audit::{Damage, Fault};
    use crate::testing::log_on;

    /// Counts reads.
    #[derive(Debug, Default)]
    struct CountingDisk(AtomicUsize);

    impl DiskLayer for CountingDisk {
        fn below(&self) -> &dyn Disk {
            &OsDisk
        }

        fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            OsDisk.read_at(file, buffer, position)
        }
    }

    #[test]
    fn whoever_looks_again_how_long_records_have_waited_reads_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Arc::new(CountingDisk::default());
        let config = LogConfig { compact: true, max_compaction_lag_ms: 5, ..LogConfig::default() };
        let (_directory, log) = log_on(temporary.path(), Arc::clone(&disk) as _, config);
        for at in [10, 20] {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(Timestamp(at), Some(b"k"), Some(b"v"), &[]);
            let batch = builder.build();
            log.append_batch(batch.clone(), LeaderEpoch(0)).unwrap();
            log.append_batch(batch, LeaderEpoch(0)).unwrap();
            log.roll().unwrap();
        }
        let look = || {
            disk.0.store(0, Ordering::Relaxed);
            let Compactable { sources, .. } =
                log.dirtiness(log.log_end_offset(), 1_000).unwrap().unwrap();
            let first = |source: &Source| source.policy.first_timestamp;
            (sources.iter().map(first).collect::<Vec<_>>(), disk.0.load(Ordering::Relaxed) > 0)
        };
        assert_eq!(look(), (vec![Some(10), Some(20)], true));
        assert_eq!(look(), (vec![Some(10), Some(20)], false));
        // What is passed over because it is damaged is not forgotten for good.
        let segment = Segment::new(Arc::clone(log.home()), 0);
        let size = log.size_in_bytes() / 2;
        segment.set_damage(vec![Damage {
            position: 0,
            end_position: size,
            first_offset: Offset(0),
            end_offset: Offset(2),
            fault: Fault::Checksum,
            what: String::new(),
        }]);
        assert_eq!(segment.first_timestamp_of_sealed(size).unwrap(), None);
        segment.set_damage(Vec::new());
        assert_eq!(segment.first_timestamp_of_sealed(size).unwrap(), Some(10));
    }
}
