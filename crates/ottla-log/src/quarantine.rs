//! What of a log is known to be damaged, kept beside it so that a restart knows, too. The text is pure.
//!
//! `ottla.quarantine` in a partition's directory is there only while something is quarantined. Its text is that of
//! Kafka's checkpoints: version 0, the number of lines, and for each range one line
//!
//! `SEGMENT POSITION END_POSITION FIRST_OFFSET END_OFFSET FAULT`
//!
//! with the base offset of the segment, half-open ranges, and one word for the fault. Apache Kafka passes over the file.
//! A line is only believed in that something is wrong there, and only if it still is: the bytes may have been restored while
//! nobody looked, and the file has no checksum. The next start reads such a segment from its beginning, up to there.

use std::path::Path;

use ottla_base::{Offset, TopicPartition};
use ottla_env::Disk;
use ottla_env::disk::DirectoryEntry;
use tracing::field::display;

use crate::audit::{Damage, Fault};
use crate::checkpoint::{self, CheckpointError};
use crate::error::{Context, StorageError};
use crate::names;

/// Damage, and the base offset of the segment that it is in.
pub(crate) type Entry = (i64, Damage);

const FAULTS: [(Fault, &str); 4] = [
    (Fault::NotABatch, "not-a-batch"),
    (Fault::Checksum, "checksum"),
    (Fault::Offsets, "offsets"),
    (Fault::LeaderEpoch, "leader-epoch"),
];

impl Fault {
    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        FAULTS.into_iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }
}

/// Where `offset` is read next, and whether that may be.
pub(crate) fn first_after(damage: &[Damage], offset: i64) -> Option<&Damage> {
    damage.iter().find(|damage| damage.end_offset.0 > offset)
}

/// What stays when a segment is cut off at a position.
pub(crate) fn before(damage: &[Damage], position: u64) -> Vec<Damage> {
    damage.iter().filter(|damage| damage.end_position <= position).cloned().collect()
}

/// Somebody must act on this: the disk lies, and the records are lost unless there is a copy. Recovery knows the partition
/// by the path only.
pub(crate) fn report_damage(partition: Option<&TopicPartition>, segment: &Path, damage: &Damage) {
    let Damage { position, end_position, first_offset, end_offset, what, .. } = damage;
    let partition = partition.map(display);
    tracing::error!(
        partition, %first_offset, %end_offset, segment = %segment.display(), position, end_position, what,
        "damaged records: reads of these offsets are refused, and those before and after go on"
    );
}

/// What was damaged is as it was written.
pub(crate) fn report_sound(partition: Option<&TopicPartition>, segment: &Path, damage: &Damage) {
    let Damage { first_offset, end_offset, .. } = damage;
    let partition = partition.map(display);
    tracing::info!(
        partition, %first_offset, %end_offset, segment = %segment.display(),
        "sound again: these offsets are served"
    );
}

fn to_text(entries: &[Entry]) -> String {
    checkpoint::write(entries.iter().map(|(segment, it)| {
        let Damage { position, end_position, first_offset, end_offset, .. } = it;
        let fault = it.fault.name();
        format!("{segment} {position} {end_position} {first_offset} {end_offset} {fault}")
    }))
}

fn from_text(text: &str) -> Result<Vec<Entry>, CheckpointError> {
    let entry = |[segment, position, end_position, first, end, fault]: [&str; 6]| {
        let named = FAULTS.into_iter().find(|(_, name)| *name == fault);
        let (fault, name) = named.ok_or_else(|| CheckpointError::Line(fault.to_owned()))?;
        let damage = Damage {
            position: checkpoint::number(position)?,
            end_position: checkpoint::number(end_position)?,
            first_offset: Offset(checkpoint::number(first)?),
            end_offset: Offset(checkpoint::number(end)?),
            fault,
            what: format!("found earlier: {name}"),
        };
        Ok((checkpoint::number(segment)?, damage))
    };
    checkpoint::read(text)?.into_iter().map(entry).collect()
}

/// What was known when the log was used last, of a directory with these entries: there is rarely a file to be opened. One
/// that is itself damaged is as good as none: scrub finds all again.
pub(crate) fn read(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirectoryEntry],
) -> Result<Vec<Entry>, StorageError> {
    if !entries.iter().any(|entry| entry.name == names::QUARANTINE) {
        return Ok(Vec::new());
    }
    let path = directory.join(names::QUARANTINE);
    let Some(text) = checkpoint::read_if_exists(disk, &path)? else { return Ok(Vec::new()) };
    Ok(from_text(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "ignoring what was quarantined");
        Vec::new()
    }))
}

/// Writes it down durably; nothing to keep is no file.
pub(crate) fn write(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[Entry],
) -> Result<(), StorageError> {
    let path = directory.join(names::QUARANTINE);
    if !entries.is_empty() {
        return checkpoint::replace_durably(disk, &path, &to_text(entries));
    }
    match disk.remove_if_there(&path).context("remove", &path)? {
        true => disk.sync_directory(directory).context("sync", directory),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_survives_the_file() {
        let entry = |(fault, name): (Fault, &str)| {
            let (first_offset, end_offset) = (Offset(12), Offset(15));
            let what = format!("found earlier: {name}");
            let damage =
                Damage { position: 70, end_position: 90, first_offset, end_offset, fault, what };
            (7, damage)
        };
        let entries: Vec<_> = FAULTS.into_iter().map(entry).collect();
        assert!(to_text(&entries).starts_with("0\n4\n7 70 90 12 15 not-a-batch\n"));
        assert_eq!(from_text(&to_text(&entries)), Ok(entries));
        assert!(from_text("0\n1\n7 70 90 12 15 gremlins\n").is_err());
    }
}
