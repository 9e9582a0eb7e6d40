//! What a log's directory holds when it is opened, leftovers removed. Shell.

use std::path::Path;

use ottla_base::Offset;
use ottla_env::Disk;
use ottla_env::disk::DirectoryEntry;

use crate::checkpoint;
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::names;

/// What a log's directory holds.
pub(super) struct Inventory {
    /// The base offsets of the segments, in order.
    pub(super) logs: Vec<Offset>,
    pub(super) snapshots: Vec<Offset>,
    /// The base offsets of those segments that have a transaction index.
    pub(super) txn_indexes: Vec<Offset>,
}

/// Sorts what there is, and removes leftovers on the way.
pub(super) fn take(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirectoryEntry],
) -> Result<Inventory, StorageError> {
    let (mut logs, mut snapshots, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut txn_indexes = Vec::new();
    for entry in entries {
        let path = directory.join(&entry.name);
        let name = entry.name.to_string_lossy();
        if name.ends_with(names::DELETED) {
            disk.remove_file(&path).context("remove", &path)?;
            continue;
        }
        match names::parse_segment_file(&name) {
            Some((base_offset, names::LOG)) => logs.push(base_offset),
            Some((offset, names::SNAPSHOT)) => snapshots.push(offset),
            Some((base_offset, suffix @ (names::INDEX | names::TIME_INDEX | names::TXN_INDEX))) => {
                others.push((base_offset, path));
                if suffix == names::TXN_INDEX {
                    txn_indexes.push(base_offset);
                }
            }
            _ => {}
        }
    }
    logs.sort_unstable();
    for (base_offset, path) in others {
        if logs.binary_search(&base_offset).is_err() {
            tracing::warn!(path = %path.display(), "removing an index without a segment");
            disk.remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(Inventory { logs, snapshots, txn_indexes })
}

/// The epochs on disk; none when the file is damaged, and then the records tell.
pub(super) fn read_epochs(disk: &dyn Disk, directory: &Path) -> Result<EpochCache, StorageError> {
    let path = directory.join(names::LEADER_EPOCHS);
    let text = checkpoint::read_if_exists(disk, &path)?.unwrap_or_default();
    Ok(EpochCache::from_text(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "rebuilding the leader epochs from the log");
        EpochCache::default()
    }))
}
