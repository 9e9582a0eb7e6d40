//! A segment's offset and time index: believed as they are, cut off with the segment, or written anew. Shell.

use std::sync::Arc;

use ottla_env::disk::Open;

use crate::error::{Context, StorageError};
use crate::index::{self, Entry, Index, OffsetEntry, TimeEntry};
use crate::log::Active;
use crate::names;
use crate::policy::roll;
use crate::segment::Segment;

/// A segment whose indexes can be believed; `None` when they must be rebuilt.
pub(super) fn open(segment: &Arc<Segment>) -> Result<Option<Active>, StorageError> {
    let path = segment.path(names::LOG);
    let size = segment.disk().status(&path).context("stat", &path)?.len;
    let offsets: Option<Index<OffsetEntry>> = open_file(segment, names::INDEX)?;
    let times: Option<Index<TimeEntry>> = open_file(segment, names::TIME_INDEX)?;
    let (Some(offsets), Some(times)) = (offsets, times) else { return Ok(None) };
    // Zeros are what Kafka's preallocated indexes leave behind when Kafka is killed; the first batch of a segment
    // never has an entry, and timestamps rise, so no honest last entry looks like them.
    let doubtful_offset = offsets.last().is_some_and(|last| {
        u64::from(last.position) >= size || !plausible(last.relative_offset, 1)
    });
    let doubtful_time = times.last().is_some_and(|last| {
        size == 0 || last.timestamp < 0 || !plausible(last.relative_offset, times.len() - 1)
    });
    if doubtful_offset || doubtful_time {
        return Ok(None);
    }
    Ok(Some(Active::existing(Arc::clone(segment), 0, 0, size, offsets, times)))
}

fn plausible(relative_offset: u32, minimum: u32) -> bool {
    relative_offset >= minimum && i32::try_from(relative_offset).is_ok()
}

/// The number of entries and the last one; `None` when the file is missing or not made of entries.
fn open_file<E: Entry>(segment: &Segment, suffix: &str) -> Result<Option<Index<E>>, StorageError> {
    let (disk, path) = (segment.disk(), segment.path(suffix));
    let opened = disk.open_if_there(&path, Open::Read).context("open", &path)?;
    let Some(file) = opened else { return Ok(None) };
    let len = file.metadata().context("stat", &path)?.len();
    let entries = u32::try_from(len / E::SIZE as u64).ok().filter(|_| len % E::SIZE as u64 == 0);
    let Some(entries) = entries else { return Ok(None) };
    let last = match entries.checked_sub(1) {
        Some(last) => {
            let entries = index::read_entries(disk, &file, last, 1);
            entries.context("read", &path)?.first().copied()
        }
        None => None,
    };
    Ok(Some(Index::on_disk(entries, last)))
}

/// Reads the headers after the last index entry. Returns the offset after the last batch.
pub(super) fn observe_tail(
    active: &mut Active,
    index_interval_bytes: u64,
) -> Result<i64, StorageError> {
    let segment = Arc::clone(&active.segment);
    let mut next_offset = segment.base_offset;
    if active.size == 0 {
        return Ok(next_offset);
    }
    let (file, path) = (segment.log_file()?, segment.path(names::LOG));
    let position = active.offsets.last().map_or(0, |entry| u64::from(entry.position));
    let mut scan = segment.scan(&file, &path, position, active.size);
    while let Some(found) = scan.next()? {
        if roll::relative(segment.base_offset, found.header.last_offset()).is_none() {
            return Err(StorageError::corrupt(
                &path,
                found.position,
                "an offset of another segment",
            ));
        }
        active.observe(&found.header, found.position, index_interval_bytes);
        next_offset = found.header.next_offset();
    }
    let damage = segment.damage().unwrap_or_default();
    if let Some(last) = damage.last().filter(|last| last.end_position >= active.size) {
        next_offset = next_offset.max(last.end_offset.0);
    }
    Ok(next_offset)
}

/// Opens a segment again after its file was cut off, to so many bytes, at the batch that holds `offset`. Returns where its
/// batches end, too.
pub(crate) fn reopen_cut(
    segment: &Arc<Segment>,
    offset: i64,
    size: u64,
    index_interval_bytes: u64,
) -> Result<(Active, i64), StorageError> {
    let kept = |relative: u32| i64::from(relative) < offset.saturating_sub(segment.base_offset);
    // Should the offsets on the way there be wrong, no entry may point behind the end all the same.
    cut::<OffsetEntry>(segment, names::INDEX, |entry| {
        kept(entry.relative_offset) && u64::from(entry.position) < size
    })?;
    cut::<TimeEntry>(segment, names::TIME_INDEX, |entry| kept(entry.relative_offset))?;
    let path = segment.path(names::LOG);
    let missing = || StorageError::corrupt(&path, 0, "its indexes are gone");
    let mut active = open(segment)?.ok_or_else(missing)?;
    let end = observe_tail(&mut active, index_interval_bytes)?;
    Ok((active, end))
}

fn cut<E: Entry>(
    segment: &Segment,
    suffix: &str,
    keep: impl Fn(&E) -> bool,
) -> Result<(), StorageError> {
    let (disk, path) = (segment.disk(), segment.path(suffix));
    let file = disk.open(&path, Open::Write).context("open", &path)?;
    let entries = file.metadata().context("stat", &path)?.len() / E::SIZE as u64;
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    let kept = index::count_in_file(disk, &file, entries, keep).context("read", &path)?;
    disk.set_len(&file, u64::from(kept) * E::SIZE as u64).context("truncate", &path)
}

/// Durably and as a whole where a crash must not leave a part of it. Leaves a file that is empty already as it is: after
/// a crash there may be thousands.
pub(super) fn replace<E: Entry>(
    segment: &Segment,
    suffix: &str,
    entries: &Index<E>,
    as_a_whole: bool,
) -> Result<(), StorageError> {
    let (disk, path) = (segment.disk(), segment.path(suffix));
    let (_, bytes) = entries.unwritten();
    if bytes.is_empty() && disk.status(&path).is_ok_and(|status| status.len == 0) {
        return Ok(());
    }
    if !as_a_whole || bytes.is_empty() {
        return disk.write(&path, &bytes).map(drop).context("write", &path);
    }
    let beside = names::with_ending(&path, names::CLEANED);
    let file = disk.write(&beside, &bytes).context("write", &beside)?;
    disk.sync_data(&file).context("flush", &beside)?;
    disk.rename(&beside, &path).context("replace", &path)
}
