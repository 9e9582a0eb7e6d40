//! How much of a segment's indexes can be believed after a crash, so that recovery need not read what was flushed long
//! ago. Shell.
//!
//! A recovery point is written only when everything that the indexes say of the batches before it is on disk (see
//! `Shared::checkpoint`). What they say of later batches may be torn, or zeros: it is cut off. The batch that the last
//! entry names is read whole; should it not be there, the indexes are rebuilt from the segment's beginning.

use std::fs::File;

use ottla_base::Offset;
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_records::{BatchHeader, HEADER_LEN, RawBatch};

use crate::error::{Context, StorageError};
use crate::index::{self, Entry, Index, OffsetEntry, TimeEntry};
use crate::names;
use crate::policy::roll;
use crate::segment::Segment;
use crate::txn_index::{self, AbortedTransaction};

/// Entries that are read at once.
const READ_AT_ONCE: u32 = 4096;

/// Where reading may begin, and the indexes of what lies before.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    /// Where the batch begins that the last entry names.
    pub(super) position: u64,
    pub(super) offsets: Index<OffsetEntry>,
    pub(super) times: Index<TimeEntry>,
    /// Those whose markers are before the offset up to which indexes are believed.
    pub(super) aborted: Vec<AbortedTransaction>,
}

/// What the indexes of a segment of `len` bytes say of the batches that end before an offset; their files are cut down to
/// that. `None` when that is nothing, or wrong.
pub(super) fn open(
    segment: &Segment,
    log: &File,
    len: u64,
    before: Offset,
    has_aborted: bool,
) -> Result<Option<Trusted>, StorageError> {
    let Some(end) = roll::relative(segment.base_offset, before.0) else { return Ok(None) };
    let rises = |earlier: Option<OffsetEntry>, entry: OffsetEntry| {
        let (offset, position) = earlier.map_or((0, 0), |it| (it.relative_offset, it.position));
        entry.relative_offset > offset && entry.position > position
    };
    let Some((offsets_file, offsets)) = read(segment, names::INDEX, |earlier, entry| {
        rises(earlier, entry) && entry.relative_offset < end && u64::from(entry.position) < len
    })?
    else {
        return Ok(None);
    };
    let Some(last) = offsets.last() else { return Ok(None) };
    let Some((times_file, times)) =
        read(segment, names::TIME_INDEX, |earlier, entry: TimeEntry| {
            let rises = |it: TimeEntry| {
                entry.timestamp > it.timestamp && entry.relative_offset > it.relative_offset
            };
            entry.timestamp >= 0
                && entry.relative_offset <= last.relative_offset
                && earlier.is_none_or(rises)
        })?
    else {
        return Ok(None);
    };
    if times.last().is_none() {
        // The first entry would be written anew and not flushed, and after another crash zeros are a timestamp of 0.
        return Ok(None);
    }
    let aborted = if has_aborted { read_aborted(segment, before)? } else { Some(Vec::new()) };
    let Some(aborted) = aborted else { return Ok(None) };
    if !is_there(segment, log, len, last).context("read", &segment.path(names::LOG))? {
        return Ok(None);
    }
    cut(segment.disk(), &offsets_file, &offsets).context("cut", &segment.path(names::INDEX))?;
    cut(segment.disk(), &times_file, &times).context("cut", &segment.path(names::TIME_INDEX))?;
    Ok(Some(Trusted { position: last.position.into(), offsets, times, aborted }))
}

/// The entries from the first one on for which `fits` holds, given the one before.
fn read<E: Entry>(
    segment: &Segment,
    suffix: &str,
    fits: impl Fn(Option<E>, E) -> bool,
) -> Result<Option<(File, Index<E>)>, StorageError> {
    let path = segment.path(suffix);
    let opened = segment.disk().open_if_there(&path, Open::Write).context("open", &path)?;
    let Some(file) = opened else { return Ok(None) };
    let (mut count, mut last) = (0, None);
    loop {
        let entries = index::read_entries(segment.disk(), &file, count, READ_AT_ONCE);
        let entries = entries.context("read", &path)?;
        for entry in &entries {
            if !fits(last, *entry) {
                return Ok(Some((file, Index::on_disk(count, last))));
            }
            (count, last) = (count + 1, Some(*entry));
        }
        if entries.is_empty() {
            return Ok(Some((file, Index::on_disk(count, last))));
        }
    }
}

/// The transactions whose markers are before an offset; `None` when what says so makes no sense.
fn read_aborted(
    segment: &Segment,
    before: Offset,
) -> Result<Option<Vec<AbortedTransaction>>, StorageError> {
    let path = segment.path(names::TXN_INDEX);
    let bytes = segment.disk().read(&path).context("read", &path)?;
    let (entries, _torn) = bytes.as_chunks::<{ txn_index::ENTRY_LEN }>();
    let is_before = |entry: &[u8; txn_index::ENTRY_LEN]| {
        txn_index::decode(entry)
            .is_none_or(|decoded| decoded.iter().all(|it| it.last_offset < before))
    };
    let count = entries.iter().take_while(|entry| is_before(entry)).count();
    let kept = bytes.get(..count * txn_index::ENTRY_LEN).unwrap_or_default();
    let is_plausible = txn_index::is_plausible(kept, segment.base_offset);
    Ok(txn_index::decode(kept).filter(|_| is_plausible))
}

/// Whether the batch that an entry names is where it says, and whole.
fn is_there(segment: &Segment, log: &File, len: u64, entry: OffsetEntry) -> std::io::Result<bool> {
    let position = u64::from(entry.position);
    let read = |len| segment.disk().read_up_to(log, position, len);
    let Ok(header) = BatchHeader::parse(&read(HEADER_LEN)?) else { return Ok(false) };
    let last_offset = roll::relative(segment.base_offset, header.last_offset());
    let size = header.size_in_bytes();
    if last_offset != Some(entry.relative_offset) || len - position < size as u64 {
        return Ok(false);
    }
    Ok(RawBatch::parse(read(size)?.into()).and_then(RawBatch::verify_crc).is_ok())
}

fn cut<E: Entry>(disk: &dyn Disk, file: &File, index: &Index<E>) -> std::io::Result<()> {
    let len = u64::from(index.len()) * E::SIZE as u64;
    if file.metadata()?.len() == len {
        return Ok(());
    }
    disk.set_len(file, len)
}
