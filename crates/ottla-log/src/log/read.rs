//! Reading: from an offset to a range of bytes in a segment file, which the caller sends as it is.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ottla_base::Offset;
use ottla_env::Disk;

use super::{Log, Sealed, State};
use crate::error::{ReadError, StorageError};
use crate::index::{Ceiling, Floor, OffsetEntry};
use crate::policy::roll;
use crate::quarantine;
use crate::scan::{Found, READ_BYTES};
use crate::segment::Segment;

/// Bytes of a segment file. They stay readable after the segment is deleted, for as long as this exists.
#[derive(Debug, Clone)]
pub struct FileRange {
    pub file: Arc<File>,
    pub position: u64,
    pub len: usize,
    pub disk: Arc<dyn Disk>,
}

impl FileRange {
    /// Copies the bytes into memory; fewer only if the file was truncated meanwhile.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self) -> io::Result<Bytes> {
        self.disk.read_up_to(&self.file, self.position, self.len).map(Bytes::from)
    }
}

/// What a read found. Within one segment: the caller reads on for more.
#[derive(Debug, Clone)]
pub struct Slice {
    /// `None` when there is nothing to read: at the upper bound, or when the first batch is too large.
    pub source: Option<FileRange>,
    /// The base offset of the first batch in the slice, at or before the offset asked for.
    pub first_offset: Offset,
    /// Where the next segment begins, if this slice reaches the end of its segment and another one follows.
    pub next_segment: Option<Offset>,
    /// All records of the slice lie before.
    before: Offset,
    /// Where it ends, if it ends earlier than it had to.
    cut: Option<Cut>,
}

/// Where less was read of a segment than could have been. Whoever keeps it keeps no directory locked.
#[derive(Debug, Clone)]
struct Cut {
    segment: Weak<Segment>,
    position: u64,
}

impl Slice {
    #[must_use]
    pub fn len(&self) -> usize {
        self.source.as_ref().map_or(0, |range| range.len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn empty(at: Offset) -> Self {
        Self { source: None, first_offset: at, next_segment: None, before: at, cut: None }
    }
}

/// Where a batch is in its segment.
#[derive(Debug, Clone, Copy)]
struct Located {
    base_offset: i64,
    position: u64,
    end_position: u64,
}

impl From<Found> for Located {
    fn from(found: Found) -> Self {
        Self {
            base_offset: found.header.base_offset,
            position: found.position,
            end_position: found.end(),
        }
    }
}

/// How to find a batch: already known, or to be searched from an index entry on.
#[derive(Debug, Clone, Copy)]
enum Place {
    Known(Located),
    After(Floor<OffsetEntry>),
}

/// What a read needs of one segment, taken under the lock so that the disk is read outside of it.
#[derive(Debug)]
struct View {
    segment: Arc<Segment>,
    size: u64,
    start: Place,
    /// `None` when everything in the segment is below the upper bound.
    limit: Option<Place>,
    next_segment: Option<i64>,
    /// The offset behind the segment's last one, about.
    end_offset: i64,
}

impl Log {
    /// Reads whole batches from the one that holds `from` up to `upper_bound` (exclusive), about `max_bytes` of
    /// them. The range may end in the middle of a batch, which clients expect. With `min_one_batch` the first batch
    /// is returned whole even if it is larger than `max_bytes` (KIP-74); without, it is not returned at all.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] for an offset before the log's start or behind its end, [`ReadError::Quarantined`]
    /// where what comes next is damaged, [`ReadError::Storage`] where a file cannot be read, even at a second try.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        min_one_batch: bool,
    ) -> Result<Slice, ReadError> {
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            match self.try_read(from, max_bytes, upper_bound, min_one_batch) {
                // Retention or truncation took the segment away between the look at the state and the look at the
                // file. The state knows when they have finished.
                Err(ReadError::Storage(error)) if attempts_left > 0 => {
                    tracing::debug!(log = %self.partition, %from, %error, "reading again");
                    drop(self.writer.lock());
                }
                Err(ReadError::Storage(error)) => {
                    self.note_corruption(&error);
                    return Err(error.into());
                }
                result => return result,
            }
        }
    }

    fn try_read(
        &self,
        from: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        min_one_batch: bool,
    ) -> Result<Slice, ReadError> {
        let mut at = from.0;
        loop {
            let Some(view) = self.state.read().view(at, upper_bound.0)? else {
                return Ok(Slice::empty(from));
            };
            let barrier = view.barrier(at)?;
            let file = view.segment.log_file()?;
            let Some(first) = view.locate(&file, at, view.start)? else {
                // Compaction can leave the end of a segment without records.
                match view.next_segment {
                    Some(next) => at = next,
                    None => return Ok(Slice::empty(from)),
                }
                continue;
            };
            if first.position >= barrier {
                // Nothing is left between what was asked for and the damage.
                return Err(view.quarantined(at));
            }
            let first_len = first.end_position - first.position;
            let max_bytes = match max_bytes as u64 {
                max_bytes if max_bytes >= first_len => max_bytes,
                _ if min_one_batch => first_len,
                _ => return Ok(Slice::empty(from)),
            };
            let limit = view.limit_position(&file, upper_bound.0, first.position + max_bytes)?;
            let limit = limit.min(barrier);
            let Some(available) = limit.checked_sub(first.position).filter(|len| *len > 0) else {
                return Ok(Slice::empty(from));
            };
            let len = available.min(max_bytes);
            let end = first.position + len;
            let is_cut = len < available;
            return Ok(Slice {
                source: Some(FileRange {
                    file,
                    position: first.position,
                    len: usize::try_from(len).expect("a usize is 64 bits"),
                    disk: Arc::clone(&self.env().disk),
                }),
                first_offset: Offset(first.base_offset),
                next_segment: view.next_segment.filter(|_| end == view.size).map(Offset),
                before: upper_bound.min(Offset(view.end_offset)),
                cut: is_cut.then(|| Cut { segment: Arc::downgrade(&view.segment), position: end }),
            });
        }
    }
}

impl Log {
    /// An offset that all records of a slice lie before, and all but an index interval of those that are not in it lie behind:
    /// that of the first index entry behind the slice, as far as the index can be read.
    #[must_use]
    pub fn end_of(&self, slice: &Slice) -> Offset {
        let Some(Cut { segment, position }) = &slice.cut else { return slice.before };
        let Some(segment) = segment.upgrade() else { return slice.before };
        let ceiling = self.state.read().ceiling(&segment, *position);
        let entry = match ceiling {
            Ceiling::Known(entry) => entry,
            // It may have got another name just now, or be gone.
            Ceiling::InFile(len, next) => match segment.offset_ceiling(len, *position) {
                Ok(Some(entry)) => {
                    Some(entry).filter(|entry| is_behind(&segment, entry, *position))
                }
                Ok(None) => next,
                Err(_) => return slice.before,
            },
        };
        let end = entry.map(|entry| segment.base_offset + i64::from(entry.relative_offset));
        end.map_or(slice.before, |end| slice.before.min(Offset(end)))
    }
}

/// Whether an index entry, which has no checksum, names an offset behind all batches that begin before a position.
fn is_behind(segment: &Segment, entry: &OffsetEntry, position: u64) -> bool {
    let offset = segment.base_offset + i64::from(entry.relative_offset);
    let at = u64::from(entry.position);
    let found = segment.log_file().and_then(|file| segment.batch_at(&file, at, u64::MAX));
    found.is_ok_and(|found| found.is_some_and(|found| found.header.base_offset <= offset))
        && at >= position
}

impl State {
    /// The first index entry of a segment at or behind a position, or where to look for it; that there is none of a segment that
    /// has gone.
    fn ceiling(&self, segment: &Arc<Segment>, position: u64) -> Ceiling<OffsetEntry> {
        if Arc::ptr_eq(&self.active.segment, segment) {
            let is_before = |entry: &OffsetEntry| u64::from(entry.position) < position;
            return self.active.offsets.ceiling(is_before);
        }
        let after = self.sealed.partition_point(|it| it.segment.base_offset < segment.base_offset);
        match self.sealed.get(after).filter(|it| Arc::ptr_eq(&it.segment, segment)) {
            Some(sealed) => Ceiling::InFile(sealed.offset_entries, None),
            None => Ceiling::Known(None),
        }
    }

    /// The segment to read at an offset; `None` when there is nothing below the upper bound.
    fn view(&self, from: i64, upper_bound: i64) -> Result<Option<View>, ReadError> {
        if from < self.log_start_offset || from > self.log_end_offset {
            return Err(ReadError::OutOfRange {
                requested: Offset(from),
                log_start_offset: Offset(self.log_start_offset),
                log_end_offset: Offset(self.log_end_offset),
            });
        }
        if from >= upper_bound.min(self.log_end_offset) {
            return Ok(None);
        }
        let active = &self.active;
        // A replica's log may begin with a gap.
        let from = from.max(self.first_segment().base_offset);
        if from >= active.segment.base_offset {
            // What it held was cut off, and it may have no file any more.
            if active.size == 0 {
                return Ok(None);
            }
            let all = upper_bound >= self.log_end_offset;
            return Ok(Some(View {
                segment: Arc::clone(&active.segment),
                size: active.size,
                start: self.place_in_active(from),
                limit: (!all).then(|| self.place_in_active(upper_bound)),
                next_segment: None,
                end_offset: self.log_end_offset,
            }));
        }
        let after = self.sealed.partition_point(|sealed| sealed.segment.base_offset <= from);
        let Some(sealed) = after.checked_sub(1).and_then(|at| self.sealed.get(at)) else {
            let what = format!("no segment holds offset {from}");
            let path = active.segment.path(crate::names::LOG);
            return Err(StorageError::corrupt(&path, 0, what).into());
        };
        let next = self.sealed.get(after).map_or(&active.segment, |sealed| &sealed.segment);
        let all = upper_bound >= next.base_offset;
        Ok(Some(View {
            segment: Arc::clone(&sealed.segment),
            size: sealed.size,
            start: sealed.place(from),
            limit: (!all).then(|| sealed.place(upper_bound)),
            next_segment: Some(next.base_offset),
            end_offset: next.base_offset,
        }))
    }

    fn place_in_active(&self, offset: i64) -> Place {
        match self.active.mark_for(offset) {
            Some(mark) => Place::Known(Located {
                base_offset: mark.base_offset,
                position: mark.position,
                end_position: mark.end_position,
            }),
            None => Place::After(self.active.floor(offset)),
        }
    }
}

impl Sealed {
    fn place(&self, offset: i64) -> Place {
        Place::After(if offset <= self.segment.base_offset {
            Floor::Known(None)
        } else {
            Floor::InFile(self.offset_entries)
        })
    }
}

impl View {
    /// Where damage begins that no read from `offset` on may pass.
    fn barrier(&self, offset: i64) -> Result<u64, ReadError> {
        let Some(damage) = self.segment.damage() else { return Ok(u64::MAX) };
        match quarantine::first_after(&damage, offset) {
            None => Ok(u64::MAX),
            Some(ahead) if ahead.first_offset.0 > offset => Ok(ahead.position),
            Some(_) => Err(self.quarantined(offset)),
        }
    }

    fn quarantined(&self, offset: i64) -> ReadError {
        let damage = self.segment.damage().unwrap_or_default();
        let ahead = quarantine::first_after(&damage, offset);
        ReadError::Quarantined {
            requested: Offset(offset),
            first_offset: ahead.map_or(Offset(offset), |damage| damage.first_offset),
            end_offset: ahead.map_or(Offset(offset), |damage| damage.end_offset),
        }
    }

    /// The first batch that ends at or after an offset.
    fn locate(
        &self,
        file: &File,
        offset: i64,
        place: Place,
    ) -> Result<Option<Located>, StorageError> {
        let floor = match place {
            Place::Known(located) => return Ok(Some(located)),
            Place::After(floor) => floor,
        };
        let (entry, next) = self.index_entries(floor, offset)?;
        let position = entry.map_or(0, |entry| u64::from(entry.position));
        let next = next.map(|entry| u64::from(entry.position));
        match next.and_then(|next| self.known_by_index(file, position..next, offset)) {
            Some(located) => Ok(Some(located)),
            None => self.search(file, position, offset),
        }
    }

    /// The batch of an index entry behind the offset, if it holds it: that of large batches, each of which has an entry.
    /// Then one header is read, and none of the batch before.
    fn known_by_index(&self, file: &File, range: Range<u64>, offset: i64) -> Option<Located> {
        if range.end.checked_sub(range.start)? < READ_BYTES as u64 {
            // What a search reads first has it, too.
            return None;
        }
        // Whatever is wrong there, the search finds out and says so.
        let found = self.segment.batch_at(file, range.end, self.size).ok()??;
        let offsets = found.header.base_offset..=found.header.last_offset();
        offsets.contains(&offset).then(|| Located::from(found))
    }

    /// Where the first batch begins that is not wholly below the upper bound, or anything beyond `enough`.
    fn limit_position(
        &self,
        file: &File,
        upper_bound: i64,
        enough: u64,
    ) -> Result<u64, StorageError> {
        let floor = match self.limit {
            None => return Ok(self.size),
            Some(Place::Known(located)) => return Ok(located.position),
            Some(Place::After(floor)) => floor,
        };
        // The entry's batch begins below the upper bound; if all that is wanted lies before it, it will do. An entry
        // whose last offset is the bound itself belongs to the first batch that is left out, and lies right there.
        let (entry, _) = self.index_entries(floor, upper_bound)?;
        let position = entry.map_or(0, |entry| u64::from(entry.position));
        if position >= enough && position <= self.size {
            return Ok(position);
        }
        let located = self.search(file, position, upper_bound)?;
        Ok(located.map_or(self.size, |located| located.position))
    }

    /// The index entry at or before an offset, and the one behind it if that is known, too.
    fn index_entries(
        &self,
        floor: Floor<OffsetEntry>,
        offset: i64,
    ) -> Result<(Option<OffsetEntry>, Option<OffsetEntry>), StorageError> {
        let base_offset = self.segment.base_offset;
        let relative_offset = roll::relative(base_offset, offset).unwrap_or(u32::MAX);
        let all = (self.end_offset - base_offset).max(1);
        self.segment.offset_neighbours(
            floor,
            relative_offset,
            f64::from(relative_offset) / all as f64,
        )
    }

    fn search(
        &self,
        file: &File,
        position: u64,
        offset: i64,
    ) -> Result<Option<Located>, StorageError> {
        let found = self.segment.find(file, position, self.size, offset)?;
        Ok(found.map(Located::from))
    }
}
