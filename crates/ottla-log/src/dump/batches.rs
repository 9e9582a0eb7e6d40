//! The batches of a segment, and what lies between them.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use ottla_base::Offset;
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_records::{BatchHeader, HEADER_LEN, RawBatch};

use super::{Entry, Visit};
use crate::audit::{self, Damage, FileSource, Seen};
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::names;
use crate::verify::partition::Surroundings;
use crate::verify::{Report, directory, texts};

/// What is known of a segment from what is around it.
struct Place {
    surroundings: Surroundings,
    epochs: Option<EpochCache>,
    /// Where the next segment begins.
    next: Option<i64>,
}

pub(super) fn read(
    disk: &dyn Disk,
    path: &Path,
    base_offset: Offset,
    visit: Visit<'_>,
) -> Result<ControlFlow<()>, StorageError> {
    let Place { surroundings, epochs, next } = place(disk, path, base_offset)?;
    let file = disk.open(path, Open::Read).context("open", path)?;
    let size = file.metadata().context("stat", path)?.len();
    let stretch = surroundings.stretch(size, base_offset.0, next, epochs.as_ref());
    let mut failure = None;
    let mut flow = ControlFlow::Continue(());
    let mut show = |seen: Seen<'_>| {
        flow = match seen {
            Seen::Batch(position, batch) => visit(Entry::Batch { position, batch, is_valid: true }),
            Seen::Damage(damage) => {
                let is_unfinished = surroundings.is_torn(damage, size, next);
                match visit(Entry::Damage { damage, is_unfinished }) {
                    ControlFlow::Continue(()) => damaged(disk, &file, damage, visit)
                        .unwrap_or_else(|error| {
                            failure = Some(error);
                            ControlFlow::Break(())
                        }),
                    stop => stop,
                }
            }
        };
        flow
    };
    audit::audit_all(&mut FileSource(disk, &file), &stretch, &mut show).context("read", path)?;
    match failure {
        Some(error) => Err(error).context("read", path),
        None => Ok(flow),
    }
}

fn place(disk: &dyn Disk, path: &Path, base_offset: Offset) -> Result<Place, StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let absolute = std::path::absolute(path).context("find", path)?;
    let is_in_a_log = matches!(names::parse_segment_file(&name), Some((_, names::LOG)));
    let Some(parent) = absolute.parent().filter(|_| is_in_a_log) else {
        return Ok(Place { surroundings: Surroundings::default(), epochs: None, next: None });
    };
    let (_, surroundings) = directory::around(disk, parent)?;
    // What is wrong with the file is shown where the file is.
    let epochs = texts::leader_epochs(disk, parent, &mut Report::default())?;
    let entries = disk.list(parent).context("list", parent)?;
    let bases = entries.iter().filter_map(|entry| {
        match names::parse_segment_file(&entry.name.to_string_lossy()) {
            Some((base, names::LOG)) => Some(base),
            _ => None,
        }
    });
    let next = bases.filter(|base| *base > base_offset).min().map(|base| base.0);
    Ok(Place { surroundings, epochs, next })
}

/// The batches that can still be made out in damaged bytes, each with the header that it has now.
fn damaged(
    disk: &dyn Disk,
    file: &File,
    damage: &Damage,
    visit: Visit<'_>,
) -> std::io::Result<ControlFlow<()>> {
    let mut position = damage.position;
    while position < damage.end_position {
        let left = damage.end_position - position;
        let head = bytes_at(disk, file, position, HEADER_LEN)?;
        let Ok(header) = BatchHeader::parse(&head) else { break };
        let size = header.size_in_bytes();
        if size as u64 > left {
            break;
        }
        let Ok(batch) = RawBatch::parse(bytes_at(disk, file, position, size)?) else { break };
        let is_valid = batch.check_crc().is_ok();
        if visit(Entry::Batch { position, batch: &batch, is_valid }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        position += size as u64;
    }
    Ok(ControlFlow::Continue(()))
}

fn bytes_at(disk: &dyn Disk, file: &File, position: u64, len: usize) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let read = disk.read_at(file, &mut bytes, position)?;
    bytes.truncate(read);
    Ok(bytes.into())
}
