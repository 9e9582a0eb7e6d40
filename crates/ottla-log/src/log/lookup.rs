//! Finding offsets by time, for ListOffsets.

use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_records::RawBatch;

use super::Log;
use crate::error::{Context, StorageError};
use crate::index::{Floor, TimeEntry};
use crate::names;
use crate::policy::roll;
use crate::scan::Found;
use crate::segment::{Segment, TimestampOffset};

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampLookup {
    pub timestamp: Timestamp,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// A segment, and the largest timestamp in it.
struct Candidate {
    segment: Arc<Segment>,
    size: u64,
    largest: Option<TimestampOffset>,
    offset_floor_in_file: u32,
    time_floor_in_file: u32,
}

impl Log {
    /// The first record at or after the log start whose timestamp is at least `timestamp`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where a batch that has to be looked into is damaged, [`StorageError::Closed`],
    /// [`StorageError::Poisoned`], or what the disk says.
    pub fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampLookup>, StorageError> {
        self.write_indexes_for_lookup()?;
        let log_start_offset = self.log_start_offset();
        for candidate in self.candidates()? {
            if candidate.largest.is_none_or(|largest| largest.timestamp < timestamp) {
                continue;
            }
            let found = candidate.first_at_or_after(timestamp, log_start_offset);
            let found = found.inspect_err(|error| self.note_corruption(error))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first of the records that have the largest timestamp in the log (KIP-734); where none has one, the first.
    ///
    /// # Errors
    /// As [`Log::offset_for_timestamp`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampLookup>, StorageError> {
        self.write_indexes_for_lookup()?;
        let mut newest: Option<(TimestampOffset, Candidate)> = None;
        for candidate in self.candidates()? {
            let largest = candidate.largest.unwrap_or_else(|| candidate.without_timestamps());
            if newest.as_ref().is_none_or(|(newest, _)| newest.timestamp < largest.timestamp) {
                newest = Some((largest, candidate));
            }
        }
        match newest {
            None => Ok(None),
            Some((largest, candidate)) => {
                let found = candidate.record_at(largest);
                found.inspect_err(|error| self.note_corruption(error))
            }
        }
    }

    /// Lookups by time are rare, so they all go through the files. A log that only pauses can be looked through.
    fn write_indexes_for_lookup(&self) -> Result<(), StorageError> {
        let writer = self.writer.lock();
        if writer.closed {
            return Err(StorageError::Closed { log: self.partition.to_string() });
        }
        self.env().check_health()?;
        self.write_indexes()
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StorageError> {
        let (mut candidates, active) = {
            let state = self.state.read();
            let sealed = state.sealed.iter().map(|sealed| Candidate {
                segment: Arc::clone(&sealed.segment),
                size: sealed.size,
                largest: None,
                offset_floor_in_file: sealed.offset_entries,
                time_floor_in_file: sealed.time_entries,
            });
            let active = &state.active;
            let active = Candidate {
                segment: Arc::clone(&active.segment),
                size: active.size,
                largest: active.largest,
                offset_floor_in_file: active.offsets.len(),
                time_floor_in_file: active.times.len(),
            };
            (sealed.collect::<Vec<_>>(), active)
        };
        for candidate in &mut candidates {
            let entry = candidate.segment.largest(candidate.time_floor_in_file)?;
            candidate.largest = entry.map(|entry| TimestampOffset {
                timestamp: Timestamp(entry.timestamp),
                offset: candidate.absolute(entry.relative_offset),
            });
        }
        candidates.push(active);
        candidates.retain(|candidate| candidate.size > 0);
        Ok(candidates)
    }
}

impl Candidate {
    fn absolute(&self, relative_offset: u32) -> Offset {
        Offset(self.segment.base_offset + i64::from(relative_offset))
    }

    fn without_timestamps(&self) -> TimestampOffset {
        TimestampOffset { timestamp: Timestamp::NONE, offset: self.absolute(0) }
    }

    fn first_at_or_after(
        &self,
        timestamp: Timestamp,
        log_start_offset: Offset,
    ) -> Result<Option<TimestampLookup>, StorageError> {
        let entries = Floor::InFile(self.time_floor_in_file);
        let entry = match self.segment.time_floor(entries, timestamp.0)? {
            Some(entry) if self.bears_out(&entry)? => Some(entry),
            Some(_) | None => None,
        };
        let from = entry.map_or(Offset(0), |entry| self.absolute(entry.relative_offset));
        let newer = |found: &Found| found.header.max_timestamp >= timestamp.0;
        self.scan(from.max(log_start_offset), newer, |batch| {
            let found = batch.first_at_or_after(timestamp, log_start_offset);
            found.map_err(|error| error.to_string())
        })
    }

    /// An index has no checksum.
    fn bears_out(&self, entry: &TimeEntry) -> Result<bool, StorageError> {
        self.segment.bears_out(entry, self.offset_floor_in_file, self.size)
    }

    fn record_at(&self, largest: TimestampOffset) -> Result<Option<TimestampLookup>, StorageError> {
        let relative_offset = roll::relative(self.segment.base_offset, largest.offset.0);
        let entry = relative_offset
            .map(|relative_offset| TimeEntry { timestamp: largest.timestamp.0, relative_offset });
        let is_sound = match entry {
            Some(entry) => largest.timestamp == Timestamp::NONE || self.bears_out(&entry)?,
            None => false,
        };
        let from = if is_sound { largest.offset } else { self.absolute(0) };
        let same = |found: &Found| found.header.max_timestamp == largest.timestamp.0;
        let found = self.scan(from, same, |batch| {
            let offset = batch.offset_of_max_timestamp().map_err(|error| error.to_string())?;
            Ok(offset.map(|offset| (largest.timestamp, offset)))
        })?;
        if found.is_none() && !is_sound && self.segment.damage().is_none() {
            // The housekeeper looks at the whole segment.
            let (path, what) =
                (self.segment.path(names::TIME_INDEX), "no batch is as new as it says");
            return Err(StorageError::corrupt(&path, 0, what));
        }
        Ok(found)
    }

    /// Looks into the batches from an offset on that pass the test of their header, until one has what is sought.
    fn scan(
        &self,
        from: Offset,
        worth_reading: impl Fn(&Found) -> bool,
        search: impl Fn(&RawBatch) -> Result<Option<(Timestamp, Offset)>, String>,
    ) -> Result<Option<TimestampLookup>, StorageError> {
        let disk = self.segment.disk();
        let (file, path) = (self.segment.log_file()?, self.segment.path(names::LOG));
        let entries = Floor::InFile(self.offset_floor_in_file);
        let position = self.segment.begin_of(&file, entries, from, self.size)?;
        let mut scan = self.segment.scan(&file, &path, position, self.size);
        while let Some(found) = scan.next()? {
            if !worth_reading(&found) {
                continue;
            }
            let bytes = disk.read_up_to(&file, found.position, found.header.size_in_bytes());
            let bytes = bytes.context("read", &path)?;
            let corrupt = |what: String| StorageError::corrupt(&path, found.position, what);
            let batch = RawBatch::parse(bytes.into());
            let batch = batch.and_then(|batch| batch.check_crc().map(|()| batch));
            let batch = batch.map_err(|error| corrupt(error.to_string()))?;
            if let Some((timestamp, offset)) = search(&batch).map_err(corrupt)? {
                let leader_epoch = LeaderEpoch(found.header.partition_leader_epoch);
                return Ok(Some(TimestampLookup { timestamp, offset, leader_epoch }));
            }
        }
        Ok(None)
    }
}
