//! The segment that is being written: its size, its growing indexes, and where the latest batches begin.
//! The bookkeeping is pure; the caller has done the writing.

use std::collections::VecDeque;
use std::sync::Arc;

use ottla_base::{Offset, Timestamp};
use ottla_records::BatchHeader;

use crate::index::{Floor, Index, OffsetEntry, TimeEntry};
use crate::policy::roll::{self, ActiveSegment};
use crate::segment::{Segment, TimestampOffset};

/// How many of the latest batches are remembered: enough for those between high watermark and log end.
const MARKS_MAX: usize = 64;

/// Where one of the latest batches is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) position: u64,
    pub(crate) end_position: u64,
}

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Whether its files exist: those of an empty log are created by the first append.
    pub(crate) created: bool,
    pub(crate) created_ms: i64,
    pub(crate) jitter_ms: i64,
    /// Whether blocks were allocated for it ahead (`preallocate`); `None` when that was in an earlier life, if it was.
    pub(crate) allocated: Option<bool>,
    pub(crate) size: u64,
    /// The largest timestamp of the first batch; `None` when there is no batch, or nobody has looked yet.
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    pub(crate) largest: Option<TimestampOffset>,
    marks: VecDeque<Mark>,
}

impl Active {
    /// A segment that has no files yet.
    pub(crate) const fn planned(segment: Arc<Segment>, created_ms: i64, jitter_ms: i64) -> Self {
        Self {
            segment,
            created: false,
            created_ms,
            jitter_ms,
            allocated: Some(false),
            size: 0,
            first_timestamp: None,
            offsets: Index::empty(),
            times: Index::empty(),
            largest: None,
            marks: VecDeque::new(),
        }
    }

    /// A segment whose files and indexes are complete on disk.
    pub(crate) fn existing(
        segment: Arc<Segment>,
        created_ms: i64,
        jitter_ms: i64,
        size: u64,
        offsets: Index<OffsetEntry>,
        times: Index<TimeEntry>,
    ) -> Self {
        let base_offset = segment.base_offset;
        let largest = times.last().map(|entry| TimestampOffset {
            timestamp: Timestamp(entry.timestamp),
            offset: Offset(base_offset + i64::from(entry.relative_offset)),
        });
        let planned = Self::planned(segment, created_ms, jitter_ms);
        Self { created: true, allocated: None, size, offsets, times, largest, ..planned }
    }

    /// What the roll policy looks at.
    pub(crate) fn describe(&self) -> ActiveSegment {
        ActiveSegment {
            base_offset: self.segment.base_offset,
            size: self.size,
            created_ms: self.created_ms,
            first_timestamp: self.first_timestamp,
            offset_entries: self.offsets.len(),
            time_entries: self.times.len(),
            jitter_ms: self.jitter_ms,
        }
    }

    /// A batch was written at the end.
    pub(crate) fn appended(&mut self, header: &BatchHeader, index_interval_bytes: u64) {
        let position = self.size;
        if position == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        self.observe(header, position, index_interval_bytes);
        self.size = position + header.size_in_bytes() as u64;
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            position,
            end_position: self.size,
        });
    }

    /// Adds the index entries that a batch at this position calls for. Recovery calls this as well as the append,
    /// so that a rebuilt index equals the one it replaces.
    pub(crate) fn observe(
        &mut self,
        header: &BatchHeader,
        position: u64,
        index_interval_bytes: u64,
    ) {
        let last_offset = header.last_offset();
        let so_far = self.largest.map_or(-1, |largest| largest.timestamp.0);
        if header.max_timestamp > so_far {
            let timestamp = Timestamp(header.max_timestamp);
            self.largest = Some(TimestampOffset { timestamp, offset: Offset(last_offset) });
        }
        let last_entry = self.offsets.last().map_or(0, |entry| u64::from(entry.position));
        if position - last_entry > index_interval_bytes {
            self.offsets.push(OffsetEntry {
                relative_offset: self.relative(last_offset),
                position: u32::try_from(position).expect("appends stay below 2 GiB"),
            });
            self.push_largest_timestamp();
        }
    }

    /// A batch has a larger timestamp than is known: the time index that told, when the log was opened, was damaged.
    pub(crate) fn raise_largest(&mut self, segment: &Arc<Segment>, largest: &TimeEntry) {
        let is_larger = self.largest.is_none_or(|it| it.timestamp.0 < largest.timestamp);
        if is_larger && Arc::ptr_eq(&self.segment, segment) {
            self.largest = Some(TimestampOffset {
                timestamp: Timestamp(largest.timestamp),
                offset: Offset(segment.base_offset + i64::from(largest.relative_offset)),
            });
        }
    }

    /// Adds the largest timestamp to the time index, unless it is there: periodically, and when the segment closes.
    pub(crate) fn push_largest_timestamp(&mut self) {
        let Some(largest) = self.largest else { return };
        let known = self.times.last().map_or(-1, |entry| entry.timestamp);
        if largest.timestamp.0 > known {
            let relative_offset = self.relative(largest.offset.0);
            self.times.push(TimeEntry { timestamp: largest.timestamp.0, relative_offset });
        }
    }

    /// The batch that holds `offset`, or the first one after it, if it is among the latest ones.
    pub(crate) fn mark_for(&self, offset: i64) -> Option<Mark> {
        let at = self.marks.partition_point(|mark| mark.last_offset < offset);
        let mark = self.marks.get(at)?;
        // The first one remembered may have a forgotten neighbour that is a better answer.
        (at > 0 || mark.base_offset <= offset || mark.position == 0).then_some(*mark)
    }

    pub(crate) fn floor(&self, offset: i64) -> Floor<OffsetEntry> {
        let relative_offset = roll::relative(self.segment.base_offset, offset).unwrap_or(u32::MAX);
        self.offsets.floor(|entry| entry.relative_offset <= relative_offset)
    }

    fn relative(&self, offset: i64) -> u32 {
        roll::relative(self.segment.base_offset, offset)
            .expect("the roll policy keeps offsets in range")
    }
}
