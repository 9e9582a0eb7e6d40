//! What a crash leaves of a compaction: removed where nothing had been replaced yet, else brought to its end. Shell.
//!
//! A cleaned segment is written to `.cleaned` files; when they are on disk they become `.swap` files, all four of them,
//! though an index may be empty; when that is on disk the segments that it was made from are renamed away; when that
//! is on disk the `.swap` files lose their ending. So:
//!
//! - While there is a `.cleaned` file, nothing was replaced yet.
//! - While there is a `.swap` file and no `.cleaned` one, of every file of that name without the ending the `.swap` file
//!   is the newer one; where only the one without the ending is left, it is the new one.
//! - Segments between a `.swap` log's base and its end are those that it was made from. Those after its end are renamed
//!   away one by one, oldest first (see [`Log::swap_in`](crate::Log)): what a crash leaves of them is as good as it was.
//!
//! Apache Kafka's cleaner leaves the same names behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ottla_base::Offset;
use ottla_env::Disk;
use ottla_env::disk::{DirectoryEntry, Open};

use crate::error::{Context, StorageError};
use crate::names;
use crate::scan::HeaderScan;

/// The base offset of a segment, the suffix of a file of it, and where it is.
type Named = (Offset, String, PathBuf);

/// What compactions have left in a log's directory.
#[derive(Debug)]
pub(crate) struct Left {
    /// Files of segments that take the place of those that they were made from.
    pub(crate) finished: Vec<Named>,
    /// Files that are removed.
    unfinished: Vec<Named>,
}

impl Left {
    /// Going by what is in the directory.
    pub(crate) fn of(directory: &Path, entries: &[DirectoryEntry]) -> Self {
        let cleaned = named(directory, entries, names::CLEANED);
        let first_unfinished = cleaned.iter().map(|(base_offset, ..)| *base_offset).min();
        let is_finished =
            |(base_offset, ..): &Named| first_unfinished.is_none_or(|first| *base_offset < first);
        let swaps = named(directory, entries, names::SWAP);
        let (finished, swaps): (Vec<_>, Vec<_>) = swaps.into_iter().partition(is_finished);
        Self { finished, unfinished: [cleaned, swaps].concat() }
    }
}

/// Leaves no `.cleaned` and no `.swap` file in a log's directory, which holds these entries. Returns whether any was
/// there.
pub(super) fn complete(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirectoryEntry],
) -> Result<bool, StorageError> {
    let Left { finished, unfinished } = Left::of(directory, entries);
    if finished.is_empty() && unfinished.is_empty() {
        return Ok(false);
    }
    let segments = named(directory, entries, "");
    for (_, _, path) in &unfinished {
        disk.remove_file(path).context("remove", path)?;
    }
    let bases: BTreeSet<Offset> = finished.iter().map(|(base_offset, ..)| *base_offset).collect();
    for base_offset in bases {
        tracing::info!(directory = %directory.display(), %base_offset, "ending a compaction that a crash has interrupted");
        let files = finished.iter().filter(|(base, ..)| *base == base_offset);
        swap(disk, directory, base_offset, &files.collect::<Vec<_>>(), &segments)?;
    }
    disk.sync_directory(directory).context("flush", directory)?;
    Ok(true)
}

fn swap(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: Offset,
    files: &[&Named],
    segments: &[Named],
) -> Result<(), StorageError> {
    if let Some((.., log)) = files.iter().find(|(_, suffix, _)| suffix == names::LOG) {
        remove_sources(disk, segments, base_offset, end_of(disk, log)?)?;
        // The sources must be gone for good before the log has its name, as they are when no crash comes between.
        disk.sync_directory(directory).context("flush", directory)?;
    }
    for (_, suffix, path) in files {
        let target = names::segment_file(directory, base_offset, suffix);
        disk.rename(path, &target).context("rename", path)?;
    }
    Ok(())
}

/// Removes the segments after a cleaned one's base up to its end; those at its base are renamed over.
fn remove_sources(
    disk: &dyn Disk,
    segments: &[Named],
    base: Offset,
    end: Offset,
) -> Result<(), StorageError> {
    for (offset, suffix, path) in segments {
        let is_source = *offset > base && *offset < end;
        if is_source && names::SEGMENT_SUFFIXES.contains(&suffix.as_str()) {
            // Another compaction's end may have taken it already.
            disk.remove_if_there(path).context("remove", path)?;
        }
    }
    Ok(())
}

/// The offset after the last batch of a segment that was written whole.
fn end_of(disk: &dyn Disk, log: &Path) -> Result<Offset, StorageError> {
    let file = disk.open(log, Open::Read).context("open", log)?;
    let len = file.metadata().context("stat", log)?.len();
    let mut scan = HeaderScan::new(disk, &file, log, 0, len);
    let mut end = Offset(0);
    while let Some(found) = scan.next()? {
        end = Offset(found.header.next_offset());
    }
    Ok(end)
}

/// The files of segments whose names have this ending after the suffix.
fn named(directory: &Path, entries: &[DirectoryEntry], ending: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.name.to_string_lossy();
        let plain = name.strip_suffix(ending).unwrap_or_default();
        if let Some((base_offset, suffix)) = names::parse_segment_file(plain) {
            found.push((base_offset, suffix.to_owned(), directory.join(&entry.name)));
        }
    }
    found
}
