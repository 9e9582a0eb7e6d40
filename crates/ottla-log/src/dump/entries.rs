//! Indexes, snapshots of producers, and the text files.

use std::ops::ControlFlow;
use std::path::Path;

use ottla_base::Offset;
use ottla_env::Disk;

use super::{Entry, Visit};
use crate::checkpoint;
use crate::epochs::EpochEntry;
use crate::error::{Context, StorageError};
use crate::index::{Entry as IndexEntry, OffsetEntry, TimeEntry};
use crate::partition_metadata::PartitionMetadata;
use crate::producers::snapshot;
use crate::txn_index::Versioned;
use crate::verify::index;

type Flow = Result<ControlFlow<()>, StorageError>;

pub(super) fn offset_index(disk: &dyn Disk, path: &Path, base: Offset, visit: Visit<'_>) -> Flow {
    let key = |it: &OffsetEntry| i64::from(it.relative_offset);
    index_file::<OffsetEntry>(disk, path, Some(&key), visit, &|it| Entry::Offset {
        offset: Offset(base.0.saturating_add(it.relative_offset.into())),
        position: it.position,
    })
}

pub(super) fn time_index(disk: &dyn Disk, path: &Path, base: Offset, visit: Visit<'_>) -> Flow {
    let key = |it: &TimeEntry| it.timestamp;
    index_file::<TimeEntry>(disk, path, Some(&key), visit, &|it| Entry::Time {
        timestamp: it.timestamp,
        offset: Offset(base.0.saturating_add(it.relative_offset.into())),
    })
}

pub(super) fn transaction_index(disk: &dyn Disk, path: &Path, visit: Visit<'_>) -> Flow {
    index_file::<Versioned>(disk, path, None, visit, &|it| Entry::Aborted {
        version: it.version,
        producer_id: it.transaction.producer_id,
        first_offset: it.transaction.first_offset,
        last_offset: it.transaction.last_offset,
        last_stable_offset: it.transaction.last_stable_offset,
    })
}

/// What entries must rise in.
type Key<'a, E> = &'a dyn Fn(&E) -> i64;

fn index_file<E: IndexEntry>(
    disk: &dyn Disk,
    path: &Path,
    key: Option<Key<'_, E>>,
    visit: Visit<'_>,
    entry: &dyn Fn(&E) -> Entry<'static>,
) -> Flow {
    let Some(found) = index::read::<E>(disk, path)? else {
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(gone).context("read", path);
    };
    let wrong = |at: usize, what: &str, visit: Visit<'_>| {
        let position = u64::try_from(at * E::SIZE).ok();
        visit(Entry::Wrong { position, what })
    };
    let mut show = || -> ControlFlow<()> {
        let mut previous = None;
        for (at, it) in found.entries.iter().enumerate() {
            visit(entry(it))?;
            let now = key.map(|key| key(it));
            if previous.is_some() && previous >= now {
                wrong(at, "this entry does not rise above the one before it", visit)?;
            }
            previous = now;
        }
        if found.unused > 0 {
            visit(Entry::Unused { entries: found.unused })?;
        }
        if found.rest > 0 {
            wrong(found.entries.len() + found.unused, &index::excess(found.rest), visit)?;
        }
        ControlFlow::Continue(())
    };
    Ok(show())
}

pub(super) fn producers(disk: &dyn Disk, path: &Path, offset: Offset, visit: Visit<'_>) -> Flow {
    let bytes = disk.read(path).context("read", path)?;
    let producers = match snapshot::decode(&bytes, offset) {
        Ok(producers) => producers,
        Err(error) => return Ok(wrong(error, visit)),
    };
    let mut show = || -> ControlFlow<()> {
        for (id, producer) in producers.iter() {
            if producer.batches().is_empty() {
                visit(Entry::Producer { id, producer, batch: None })?;
            }
            for batch in producer.batches() {
                visit(Entry::Producer { id, producer, batch: Some(*batch) })?;
            }
        }
        ControlFlow::Continue(())
    };
    Ok(show())
}

pub(super) fn leader_epochs(disk: &dyn Disk, path: &Path, visit: Visit<'_>) -> Flow {
    let text = read_text(disk, path)?;
    let lines = match checkpoint::read(&text) {
        Ok(lines) => lines,
        Err(error) => return Ok(wrong(error, visit)),
    };
    // Not by way of the cache, which drops what contradicts a later line.
    for fields @ [epoch, start_offset] in lines {
        let flow = match EpochEntry::parse(fields) {
            Ok(EpochEntry { epoch, start_offset }) => {
                visit(Entry::LeaderEpoch { epoch, start_offset })
            }
            Err(_) => wrong(format!("{epoch:?} and {start_offset:?} are not numbers"), visit),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

pub(super) fn offsets(disk: &dyn Disk, path: &Path, visit: Visit<'_>) -> Flow {
    let text = read_text(disk, path)?;
    Ok(match checkpoint::offsets_from_text(&text) {
        Ok(offsets) => offsets.iter().try_for_each(|(partition, offset)| {
            visit(Entry::PartitionOffset { partition, offset: *offset })
        }),
        Err(error) => wrong(error, visit),
    })
}

pub(super) fn partition_metadata(disk: &dyn Disk, path: &Path, visit: Visit<'_>) -> Flow {
    let text = read_text(disk, path)?;
    let PartitionMetadata { version, topic_id } = PartitionMetadata::of(&text);
    Ok(match (version, topic_id) {
        (Some(version), Some(topic_id)) => visit(Entry::PartitionMetadata { version, topic_id }),
        (None, _) => wrong("it names no version", visit),
        (_, None) => wrong("it names no topic id", visit),
    })
}

pub(super) fn text(disk: &dyn Disk, path: &Path, visit: Visit<'_>) -> Flow {
    let text = read_text(disk, path)?;
    Ok(text.lines().try_for_each(|line| visit(Entry::Line(line))))
}

/// Bytes that are no text are shown as what they are not, where they are.
fn read_text(disk: &dyn Disk, path: &Path) -> Result<String, StorageError> {
    let bytes = disk.read(path).context("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wrong(what: impl ToString, visit: Visit<'_>) -> ControlFlow<()> {
    visit(Entry::Wrong { position: None, what: &what.to_string() })
}
