//! The small text files, and the snapshots: read as the broker reads them, and then a little more strictly.

use std::path::Path;

use ottla_base::Offset;
use ottla_env::Disk;

use super::{Report, Weight};
use crate::checkpoint;
use crate::epochs::{EpochCache, EpochEntry};
use crate::error::{Context, StorageError};
use crate::names;
use crate::partition_metadata::PartitionMetadata;
use crate::producers::snapshot;

/// Whose directory this is.
pub(super) fn meta_properties(
    disk: &dyn Disk,
    path: &Path,
    report: &mut Report,
) -> Result<(), StorageError> {
    const REFUSED: &str = "the broker does not start on this directory";
    let Some(text) = checkpoint::read_if_exists(disk, path)? else {
        report.add(Weight::Damage, path, "it is missing", REFUSED);
        return Ok(());
    };
    let value = |key: &str| {
        let entry = |line: &str| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        };
        text.lines().find_map(entry)
    };
    let version = value("version");
    if version.as_deref() != Some("1") {
        let what = format!("version {:?} is not 1", version.unwrap_or_default());
        report.add(Weight::Damage, path, what, REFUSED);
    }
    for key in ["cluster.id", "node.id", "directory.id"] {
        if value(key).is_none_or(|value| value.is_empty()) {
            report.add(Weight::Damage, path, format!("{key} is missing"), REFUSED);
        }
    }
    Ok(())
}

/// The topic's id.
pub(super) fn partition_metadata(
    disk: &dyn Disk,
    directory: &Path,
    report: &mut Report,
) -> Result<(), StorageError> {
    const STRAY: &str = "the partition is set aside as -stray";
    let path = directory.join(names::PARTITION_METADATA);
    let Some(text) = checkpoint::read_if_exists(disk, &path)? else {
        report.add(Weight::Damage, &path, "it is missing: nobody knows the topic's id", STRAY);
        return Ok(());
    };
    let PartitionMetadata { version, topic_id } = PartitionMetadata::of(&text);
    if version != Some("0") {
        report.add(Weight::Damage, &path, "its version is not 0", "read all the same");
    }
    if topic_id.is_none() {
        report.add(Weight::Damage, &path, "it names no topic id", STRAY);
    }
    Ok(())
}

/// The leader epochs; `None` where the file cannot be believed.
pub(crate) fn leader_epochs(
    disk: &dyn Disk,
    directory: &Path,
    report: &mut Report,
) -> Result<Option<EpochCache>, StorageError> {
    const REBUILT: &str = "rebuilt from the batches";
    let path = directory.join(names::LEADER_EPOCHS);
    let Some(text) = checkpoint::read_if_exists(disk, &path)? else { return Ok(None) };
    let entries = match EpochEntry::all(&text) {
        Ok(entries) => entries,
        Err(error) => {
            report.add(Weight::Damage, &path, error, REBUILT);
            return Ok(None);
        }
    };
    let falls = entries.windows(2).find_map(|pair| match pair {
        [a, b] if b.epoch <= a.epoch || b.start_offset < a.start_offset => Some(*b),
        _ => None,
    });
    if let Some(entry) = falls {
        let what = format!("epoch {} at {} does not rise", entry.epoch, entry.start_offset);
        report.add(Weight::Damage, &path, what, "the later entry counts");
        return Ok(None);
    }
    Ok(Some(EpochCache::of(&entries)).filter(|cache| !cache.entries().is_empty()))
}

/// A snapshot of producers.
pub(super) fn producer_snapshot(
    disk: &dyn Disk,
    path: &Path,
    offset: Offset,
    log_end: Offset,
    report: &mut Report,
) -> Result<(), StorageError> {
    const REMOVED: &str = "removed: the batches tell what it said";
    let bytes = disk.read(path).context("read", path)?;
    if let Err(error) = snapshot::decode(&bytes, offset) {
        report.add(Weight::Damage, path, error, REMOVED);
    } else if offset > log_end {
        let what = format!("it is of the first {offset} offsets, and the log ends at {log_end}");
        report.add(Weight::Damage, path, what, REMOVED);
    }
    Ok(())
}
