//! Damage in what was flushed: ranges of offsets that nobody may read, while those before and after are served.
//!
//! Each segment knows its own ([`Segment::damage`]), so that a read looks at one, nearly always empty, list, and so
//! that the ranges go when the segment goes. Whoever reads batches whole says what it found; what is sound again is
//! free again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_base::Offset;
use ottla_records::RawBatch;

use super::aborted::Comparison;
use super::{Log, State};
use crate::audit::{self, Damage, FileSource, Seen, Source, Stretch};
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::index::{Floor, OffsetEntry};
use crate::names;
use crate::policy::roll;
use crate::quarantine;
use crate::segment::{Newest, Segment};

/// A segment, or the flushed part of the one that is written.
#[derive(Debug, Clone)]
pub(crate) struct Auditable {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u64,
    pub(crate) is_sealed: bool,
    pub(super) end_offset: i64,
    /// How often the log was cut off before.
    pub(super) truncations: u64,
}

/// How to find where the flushed part ends of the segment that is written.
#[derive(Debug)]
enum FlushedEnd {
    At(u64),
    /// Behind this entry of the index, and before that end of the log.
    After(Floor<OffsetEntry>, i64),
}

impl FlushedEnd {
    fn of(state: &State) -> Self {
        let flushed = state.flushed_offset;
        if flushed == state.log_end_offset {
            return Self::At(state.active.size);
        }
        match state.active.mark_for(flushed) {
            Some(mark) => Self::At(mark.position),
            None => Self::After(state.active.floor(flushed), state.log_end_offset),
        }
    }

    fn position(self, active: &Auditable) -> Result<u64, StorageError> {
        let (floor, log_end_offset) = match self {
            Self::At(position) => return Ok(position),
            Self::After(floor, log_end_offset) => (floor, log_end_offset),
        };
        let Auditable { segment, size, end_offset: flushed, .. } = active;
        let relative_offset = roll::relative(segment.base_offset, *flushed).unwrap_or(u32::MAX);
        let entry = segment.offset_floor(floor, relative_offset)?;
        let position = entry.map_or(0, |entry| u64::from(entry.position));
        let file = segment.log_file()?;
        match segment.find(&file, position, *size, *flushed) {
            // Flushes end between two batches.
            Ok(Some(found)) if found.header.base_offset == *flushed => Ok(found.position),
            // A length or an offset on the way there is damaged, so that it leads elsewhere.
            Ok(_) | Err(StorageError::Corrupt { .. }) => {
                let mut source = FileSource(segment.disk(), &file);
                active.first_unflushed(&mut source, log_end_offset)
            }
            Err(error) => Err(error),
        }
    }
}

impl Auditable {
    /// Where the first sound batch begins that is not flushed, or damage that reaches beyond what is.
    fn first_unflushed(
        &self,
        source: &mut dyn Source,
        log_end_offset: i64,
    ) -> Result<u64, StorageError> {
        let stretch = Stretch {
            position: 0,
            end: self.size,
            first_offset: self.segment.base_offset,
            end_offset: log_end_offset,
            epochs: None,
            epochs_end: 0,
        };
        let mut position = self.size;
        let mut look = |seen: Seen<'_>| {
            let (begins, is_beyond) = match seen {
                Seen::Batch(begins, batch) => {
                    (begins, batch.header().base_offset >= self.end_offset)
                }
                Seen::Damage(damage) => (damage.position, damage.end_offset.0 > self.end_offset),
            };
            if !is_beyond {
                return ControlFlow::Continue(());
            }
            position = begins;
            ControlFlow::Break(())
        };
        let looked = audit::audit_all(source, &stretch, &mut look);
        looked.context("read", &self.segment.path(names::LOG))?;
        Ok(position)
    }
}

impl Log {
    /// Ranges that are refused to readers.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Damage> {
        self.state.read().damage().into_iter().map(|(_, damage)| damage).collect()
    }

    /// Whether reads of some offsets are refused. Does not allocate.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        let state = self.state.read();
        let sealed = state.sealed.iter().map(|sealed| &sealed.segment);
        let damage = sealed.chain([&state.active.segment]).filter_map(|segment| segment.damage());
        damage.map(|damage| damage.len()).sum()
    }

    /// Somebody could not make sense of a batch: reads the whole segment that holds it, and quarantines what is
    /// damaged.
    ///
    /// # Errors
    /// [`StorageError`] where the segment can't be read, or what is quarantined not be written down: readers are kept
    /// from it all the same, until the next start.
    pub fn doubt(&self, offset: Offset) -> Result<(), StorageError> {
        let holds = |it: &Auditable| it.segment.base_offset <= offset.0;
        let Some(at) = self.auditable(holds)?.pop() else { return Ok(()) };
        let file = at.segment.log_file()?;
        self.audit_segment(&at, &mut FileSource(at.segment.disk(), &file))
    }

    /// Something made no sense to whoever read it: the housekeeper looks at the whole segment soon.
    pub(crate) fn note_corruption(&self, error: &StorageError) {
        let StorageError::Corrupt { path, .. } = error else { return };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((base_offset, _)) = names::parse_segment_file(&name) else { return };
        let Some(this) = self.this.upgrade() else { return };
        let mut doubts = self.env().doubts.lock();
        let is_known =
            |(log, base): &(Arc<Self>, Offset)| Arc::ptr_eq(log, &this) && *base == base_offset;
        if !doubts.iter().any(is_known) {
            doubts.push((this, base_offset));
        }
    }

    /// What can be read whole and must be as it was written, of what is wanted.
    pub(crate) fn auditable(
        &self,
        is_wanted: impl Fn(&Auditable) -> bool,
    ) -> Result<Vec<Auditable>, StorageError> {
        let truncations = {
            // A cut that is under way is counted already, and what is read below would be from before it.
            let _writer = self.writer.lock();
            self.truncations()
        };
        let (mut parts, flushed_end) = {
            let state = self.state.read();
            let sealed = state.sealed_with_ends().map(|(sealed, end_offset)| Auditable {
                segment: Arc::clone(&sealed.segment),
                size: sealed.size,
                is_sealed: true,
                end_offset,
                truncations,
            });
            let active = Auditable {
                segment: Arc::clone(&state.active.segment),
                size: state.active.size,
                is_sealed: false,
                end_offset: state.flushed_offset,
                truncations,
            };
            let parts = sealed.chain([active]).filter(&is_wanted);
            (parts.collect::<Vec<_>>(), FlushedEnd::of(&state))
        };
        parts.retain(|part| part.size > 0 && part.end_offset > part.segment.base_offset);
        if let Some(active) = parts.last_mut().filter(|it| !it.is_sealed) {
            active.size = flushed_end.position(active)?;
        }
        parts.retain(|part| part.size > 0);
        Ok(parts)
    }

    /// Reads a segment whole. Damage that is there when it is read a second time is quarantined; what was quarantined
    /// and is sound now is not any longer. A transaction index that says something else is made anew.
    pub(crate) fn audit_segment(
        &self,
        part: &Auditable,
        source: &mut dyn Source,
    ) -> Result<(), StorageError> {
        let epochs = self.state.read().epochs.clone();
        let mut aborted = Comparison::new(self, part);
        let entry = part.segment.last_time_entry(self.time_entries(&part.segment))?;
        let mut newest = Newest::of(part.segment.base_offset).against(entry);
        let mut compare = |batch: &RawBatch| {
            newest.add(batch.header());
            if let Ok(aborted) = &mut aborted {
                aborted.batch(batch);
            }
        };
        let mut found = self.read_whole(part, &epochs, source, &mut compare)?;
        if !found.is_empty() {
            // It may have been cut off while it was read.
            let again = self.read_whole(part, &epochs, source, &mut |_| {})?;
            found.retain(|damage| again.contains(damage));
            return self.note_damage(part, found);
        }
        self.note_damage(part, found)?;
        self.judge_largest(part, &newest)?;
        let aborted = aborted?;
        let path = part.segment.path(names::LOG);
        source.was_read_beside(aborted.bytes()).context("read", &path)?;
        self.judge_aborted(aborted, |visit| {
            Ok(self.read_whole(part, &epochs, source, visit)?.is_empty())
        })
    }

    /// How many entries the time index of a closed segment has; 0 of any other.
    fn time_entries(&self, segment: &Arc<Segment>) -> u32 {
        self.state.read().sealed_as(segment).map_or(0, |it| it.time_entries)
    }

    /// Holds what is known of the largest timestamp of an undamaged part, by its time index that has no checksum, against what
    /// its batches say.
    fn judge_largest(&self, part: &Auditable, newest: &Newest) -> Result<(), StorageError> {
        let Some(largest) = newest.largest() else { return Ok(()) };
        let Ok(writer) = self.lock_writer() else { return Ok(()) };
        if !self.is_as_read(&writer, part) {
            return Ok(());
        }
        if !part.is_sealed {
            self.state.write().active.raise_largest(&part.segment, &largest);
            return Ok(());
        }
        let Some(entry) = newest.contradicts() else { return Ok(()) };
        let segment = &part.segment;
        segment.correct_largest(&entry, largest);
        segment.write_largest(self.time_entries(segment), &largest)
    }

    fn read_whole(
        &self,
        part: &Auditable,
        epochs: &EpochCache,
        source: &mut dyn Source,
        visit: &mut dyn FnMut(&RawBatch),
    ) -> Result<Vec<Damage>, StorageError> {
        let stretch = Stretch {
            position: 0,
            end: part.size,
            first_offset: part.segment.base_offset,
            end_offset: part.end_offset,
            epochs: Some(epochs),
            epochs_end: i64::MAX,
        };
        let found = audit::audit(source, &stretch, &mut |_, batch| visit(batch));
        Ok(found.context("read", &part.segment.path(names::LOG))?.damage)
    }

    /// Whether the log still has all that was read.
    pub(super) fn holds(&self, part: &Auditable) -> bool {
        let state = self.state.read();
        let is_active = Arc::ptr_eq(&state.active.segment, &part.segment);
        if is_active {
            return state.active.size >= part.size && state.log_end_offset >= part.end_offset;
        }
        state.sealed_as(&part.segment).is_some_and(|it| it.size >= part.size)
    }

    /// A segment was read: this is all that is wrong with it, up to where it was read. What was cut off meanwhile says nothing:
    /// a follower soon has as much again, so that neither the segment nor its size tells.
    fn note_damage(&self, part: &Auditable, found: Vec<Damage>) -> Result<(), StorageError> {
        // Until it is noted nobody cuts anything off, and nobody else notes anything.
        let writer = self.writer.lock();
        if !self.is_as_read(&writer, part) {
            return Ok(());
        }
        let known = part.segment.damage().unwrap_or_default();
        let is_read = |it: &&Damage| it.position < part.size;
        let same =
            |a: &Damage, b: &Damage| a.position == b.position && a.end_position == b.end_position;
        let path = part.segment.path(names::LOG);
        for damage in known.iter().filter(is_read) {
            if !found.iter().any(|found| same(found, damage)) {
                quarantine::report_sound(Some(&self.partition), &path, damage);
            }
        }
        for damage in found.iter().filter(|it| !known.iter().any(|known| same(known, it))) {
            quarantine::report_damage(Some(&self.partition), &path, damage);
        }
        let mut damage = found;
        damage.extend(known.iter().filter(|it| !is_read(it)).cloned());
        damage.sort_by_key(|damage| damage.position);
        if *damage == *known && !self.is_quarantine_stale.load(Ordering::Relaxed) {
            return Ok(());
        }
        part.segment.set_damage(damage);
        self.write_quarantine()
    }

    /// Lets the file say what the segments know, after some were cut or removed. Where that fails, whoever notes damage next
    /// writes it.
    pub(crate) fn write_quarantine(&self) -> Result<(), StorageError> {
        let damage = self.state.read().damage();
        let written = quarantine::write(&*self.env().disk, &self.home.path(), &damage);
        self.is_quarantine_stale.store(written.is_err(), Ordering::Relaxed);
        written
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::LeaderEpoch;
    use ottla_env::{FaultyDisk, OsDisk};

    use super::*;
    use crate::LogConfig;
    use crate::testing::{batch, log_on};

    /// Turns a bit of the last record.
    fn damage(part: &Auditable) {
        let path = part.segment.path(names::LOG);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn damage_that_could_not_be_written_down_is_when_it_is_met_again() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Arc::<FaultyDisk>::default();
        let (_directory, log) =
            log_on(temporary.path(), Arc::clone(&disk) as _, LogConfig::default());
        log.append_batch(batch(b"one"), LeaderEpoch(0)).unwrap();
        log.flush().unwrap();
        let part = log.auditable(|_| true).unwrap().pop().unwrap();
        damage(&part);
        let audit = || {
            let file = part.segment.log_file().unwrap();
            log.audit_segment(&part, &mut FileSource(part.segment.disk(), &file))
        };
        let written = part.segment.path(names::LOG).with_file_name(names::QUARANTINE);
        disk.fail_writes(Some(std::io::ErrorKind::StorageFull));
        audit().unwrap_err();
        assert_eq!((log.quarantined_count(), written.exists()), (1, false));
        disk.fail_writes(None);
        audit().unwrap();
        assert_eq!((log.quarantined_count(), written.exists()), (1, true));
    }

    /// A follower cuts its log off and has as much again before whoever reads the segment has come to its end.
    #[test]
    fn what_was_cut_off_while_it_was_read_says_nothing_about_what_took_its_place() {
        let temporary = tempfile::tempdir().unwrap();
        let (_directory, log) = log_on(temporary.path(), Arc::new(OsDisk), LogConfig::default());
        let append = |value: &[u8], epoch| {
            log.append_batch(batch(value), LeaderEpoch(epoch)).unwrap();
            log.flush().unwrap();
        };
        append(b"one", 0);
        append(b"two", 0);
        let whole = |_: &Auditable| true;
        let read_before = log.auditable(whole).unwrap().pop().unwrap();
        log.truncate_to(Offset(1)).unwrap();
        append(&[7; 100], 1);
        let audit = |part: &Auditable| {
            let file = part.segment.log_file().unwrap();
            log.audit_segment(part, &mut FileSource(part.segment.disk(), &file)).unwrap();
        };
        // The new batch is longer than what was to be read.
        audit(&read_before);
        assert_eq!(log.quarantined(), []);
        audit(&log.auditable(whole).unwrap().pop().unwrap());
        assert_eq!(log.quarantined(), []);
        // The same audit finds what is damaged.
        damage(&read_before);
        audit(&read_before);
        assert_eq!(log.quarantined(), []);
        audit(&log.auditable(whole).unwrap().pop().unwrap());
        assert_eq!(log.quarantined_count(), 1);
    }
}
