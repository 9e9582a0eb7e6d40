//! Kafka's checkpoint files: a version, a count, and one entry per line. The text is pure; reading and writing
//! files is the shell's part of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::FromStr;

use ottla_base::{Offset, TopicPartition};
use ottla_env::Disk;
use ottla_env::disk::Open;

use crate::error::{Context, StorageError};
use crate::names;

/// What is wrong with a checkpoint's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("version {0:?} of a checkpoint is not known")]
    Version(String),
    #[error("line {0:?} of a checkpoint is malformed")]
    Line(String),
    #[error("a checkpoint has {found} entries where it announces {announced}")]
    Count { announced: usize, found: usize },
}

/// The offsets of many partitions, as in `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint` and
/// `replication-offset-checkpoint`.
pub type Offsets = BTreeMap<TopicPartition, Offset>;

/// The text for these lines.
pub(crate) fn write(lines: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("0\n{}\n", lines.len());
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The fields of each line. A file without lines, as a crash may leave it, is an empty checkpoint.
pub(crate) fn read<const FIELDS: usize>(
    text: &str,
) -> Result<Vec<[&str; FIELDS]>, CheckpointError> {
    let mut lines = text.lines();
    let (Some(version), Some(count)) = (lines.next(), lines.next()) else { return Ok(Vec::new()) };
    if version != "0" {
        return Err(CheckpointError::Version(version.to_owned()));
    }
    let announced = number(count)?;
    if let Some(last) = text.lines().last().filter(|_| !text.ends_with('\n')) {
        // Cut off in the middle, a number looks like another one.
        return Err(CheckpointError::Line(last.to_owned()));
    }
    let entries: Vec<_> = lines.map(fields).collect::<Result<_, _>>()?;
    if entries.len() != announced {
        return Err(CheckpointError::Count { announced, found: entries.len() });
    }
    Ok(entries)
}

fn fields<const FIELDS: usize>(line: &str) -> Result<[&str; FIELDS], CheckpointError> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    fields.try_into().map_err(|_| CheckpointError::Line(line.to_owned()))
}

pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, CheckpointError> {
    text.parse().map_err(|_| CheckpointError::Line(text.to_owned()))
}

#[must_use]
pub fn offsets_to_text(offsets: &Offsets) -> String {
    write(offsets.iter().map(|(log, offset)| format!("{} {} {offset}", log.topic, log.partition)))
}

/// Reads the text of an offset checkpoint: a line `TOPIC PARTITION OFFSET` for each partition. A text of less than two
/// lines, as a crash may leave it, is an empty one.
///
/// # Errors
/// [`CheckpointError`] for another version than 0, a line that is malformed or cut off, or a count that is not that of
/// the lines.
pub fn offsets_from_text(text: &str) -> Result<Offsets, CheckpointError> {
    let entry = |[topic, partition, offset]: [&str; 3]| {
        Ok((TopicPartition::new(topic, number(partition)?), Offset(number(offset)?)))
    };
    read(text)?.into_iter().map(entry).collect()
}

/// Reads an offset checkpoint; a file that is not there is an empty one.
pub(crate) fn read_offsets(disk: &dyn Disk, path: &Path) -> Result<Offsets, StorageError> {
    let Some(text) = read_if_exists(disk, path)? else { return Ok(Offsets::new()) };
    offsets_from_text(&text).map_err(|error| StorageError::corrupt(path, 0, error))
}

/// Writes an offset checkpoint so that after a crash the file holds either the old or the new one.
pub(crate) fn write_offsets(
    disk: &dyn Disk,
    path: &Path,
    offsets: &Offsets,
) -> Result<(), StorageError> {
    replace_durably(disk, path, &offsets_to_text(offsets))
}

/// What is no text makes no sense to whoever reads it, and is no reason to fail here.
pub(crate) fn read_if_exists(disk: &dyn Disk, path: &Path) -> Result<Option<String>, StorageError> {
    match disk.read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", path),
    }
}

/// Replaces a small file at once, and waits until the new contents are on disk.
pub(crate) fn replace_durably(
    disk: &dyn Disk,
    path: &Path,
    text: &str,
) -> Result<(), StorageError> {
    replace(disk, path, text, true)
}

/// Replaces a small file at once; a later flush of the file system makes it durable.
pub(crate) fn replace_lazily(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), StorageError> {
    replace(disk, path, text, false)
}

fn replace(disk: &dyn Disk, path: &Path, text: &str, durably: bool) -> Result<(), StorageError> {
    let temporary = &names::with_ending(path, names::TEMPORARY);
    let file = disk.open(temporary, Open::Replace).context("create", temporary)?;
    disk.write_all_at(&file, text.as_bytes(), 0).context("write", temporary)?;
    if durably {
        disk.sync_data(&file).context("sync", temporary)?;
    }
    disk.rename(temporary, path).context("replace", path)?;
    match path.parent().filter(|_| durably) {
        Some(parent) => disk.sync_directory(parent).context("sync", parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ottla_env::OsDisk;

    use super::*;

    #[test]
    fn the_text_is_kafkas() {
        let offsets = Offsets::from([
            (TopicPartition::new("b", 1), Offset(7)),
            (TopicPartition::new("a", 10), Offset(0)),
        ]);
        let text = offsets_to_text(&offsets);
        assert_eq!(text, "0\n2\na 10 0\nb 1 7\n");
        assert_eq!(offsets_from_text(&text), Ok(offsets));
        assert_eq!(offsets_from_text(""), Ok(Offsets::new()));
    }

    #[test]
    fn a_damaged_checkpoint_is_refused() {
        let version = CheckpointError::Version("1".to_owned());
        assert_eq!(offsets_from_text("1\n0\n"), Err(version));
        let count = CheckpointError::Count { announced: 2, found: 1 };
        assert_eq!(offsets_from_text("0\n2\na 0 1\n"), Err(count));
        let line = CheckpointError::Line("a 0".to_owned());
        assert_eq!(offsets_from_text("0\n1\na 0\n"), Err(line));
        let cut_off = CheckpointError::Line("a 0 1".to_owned());
        assert_eq!(offsets_from_text("0\n1\na 0 1"), Err(cut_off));
        let number = CheckpointError::Line("x".to_owned());
        assert_eq!(offsets_from_text("0\n1\na 0 x\n"), Err(number));
    }

    #[test]
    fn a_checkpoint_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        assert_eq!(read_offsets(&OsDisk, &path).unwrap(), Offsets::new());
        for offset in [1, 2] {
            let offsets = Offsets::from([(TopicPartition::new("a", 0), Offset(offset))]);
            write_offsets(&OsDisk, &path, &offsets).unwrap();
            assert_eq!(read_offsets(&OsDisk, &path).unwrap(), offsets);
        }
        assert_eq!(OsDisk.list(directory.path()).unwrap().len(), 1);
    }
}
