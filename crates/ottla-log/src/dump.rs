//! Reads the files of a log entry by entry, for people who want to see them. Shell: reads.
//!
//! Nothing is locked and nothing is changed. A segment's batches are read as [`crate::verify`] reads them: what is
//! damaged is shown where it lies, and the reading goes on behind it. Of a segment that is not part of the log, because
//! it waits to be deleted or was just compacted, nothing around it says what its offsets may be.

mod batches;
mod entries;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ottla_base::{LeaderEpoch, Offset, ProducerId, TopicId, TopicPartition};
use ottla_env::{Disk, OsDisk};
use ottla_records::RawBatch;

use crate::audit::Damage;
use crate::error::{Context, StorageError};
use crate::names::{self, DirectoryName};
use crate::producers::{Producer, WrittenBatch};

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Batches, from this offset on: a segment, or a snapshot of the metadata.
    Batches(Offset),
    /// Entries of offsets, counted from this one.
    OffsetIndex(Offset),
    /// Entries of times, with offsets counted from this one.
    TimeIndex(Offset),
    TransactionIndex,
    /// The producers as the offsets before this one leave them.
    Producers(Offset),
    LeaderEpochs,
    /// An offset for each of many partitions.
    Offsets,
    PartitionMetadata,
    /// Lines for people.
    Text,
    /// Nothing that can be shown.
    Other,
}

/// A file, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpFile {
    pub path: PathBuf,
    pub kind: Kind,
    /// The partition whose directory it is in.
    pub partition: Option<TopicPartition>,
}

/// What is in a file, in order.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    Batch {
        position: u64,
        batch: &'a RawBatch,
        /// The checksum is that of the bytes.
        is_valid: bool,
    },
    Damage {
        damage: &'a Damage,
        /// What a crash, or a broker that is just writing, leaves at the end of a log: nothing that was acknowledged.
        is_unfinished: bool,
    },
    /// Something else that does not belong here.
    Wrong {
        position: Option<u64>,
        what: &'a str,
    },
    Offset {
        offset: Offset,
        position: u32,
    },
    Time {
        timestamp: i64,
        offset: Offset,
    },
    Aborted {
        version: i16,
        producer_id: ProducerId,
        first_offset: Offset,
        last_offset: Offset,
        last_stable_offset: Offset,
    },
    /// Entries of zeros at the end of an index: room that Kafka took in advance.
    Unused {
        entries: usize,
    },
    /// A producer and one of the batches that are remembered of it, if any is.
    Producer {
        id: ProducerId,
        producer: &'a Producer,
        batch: Option<WrittenBatch>,
    },
    LeaderEpoch {
        epoch: LeaderEpoch,
        start_offset: Offset,
    },
    PartitionOffset {
        partition: &'a TopicPartition,
        offset: Offset,
    },
    PartitionMetadata {
        version: &'a str,
        topic_id: TopicId,
    },
    Line(&'a str),
}

/// Whoever looks at the entries, and says whether there is to be more.
pub type Visit<'a> = &'a mut dyn FnMut(Entry<'_>) -> ControlFlow<()>;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{} is the directory of no partition (TOPIC-N), and no file of one", .0.display())]
    NotALogDirectory(PathBuf),
    #[error("{} is no file of a log, going by its name", .0.display())]
    UnknownFile(PathBuf),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The files behind a path: itself, or all of a partition's directory in the order of their names.
///
/// # Errors
/// [`DumpError::UnknownFile`] and [`DumpError::NotALogDirectory`] going by the names, [`StorageError::Io`] where there
/// is nothing or it cannot be listed.
pub fn files(path: &Path) -> Result<Vec<DumpFile>, DumpError> {
    let disk: &dyn Disk = &OsDisk;
    if !disk.status(path).context("find", path)?.is_directory {
        let file = DumpFile::new(path)?;
        if file.kind == Kind::Other {
            return Err(DumpError::UnknownFile(path.to_owned()));
        }
        return Ok(vec![file]);
    }
    let mut entries = disk.list(path).context("list", path)?;
    entries.sort();
    let files = entries.iter().filter(|entry| !entry.is_directory);
    let files: Vec<DumpFile> =
        files.map(|entry| DumpFile::new(&path.join(&entry.name))).collect::<Result<_, _>>()?;
    // The files of a data directory speak of many logs.
    let is_of_a_log =
        |file: &DumpFile| !matches!(file.kind, Kind::Offsets | Kind::Text | Kind::Other);
    if !files.iter().any(is_of_a_log) {
        return Err(DumpError::NotALogDirectory(path.to_owned()));
    }
    Ok(files)
}

impl DumpFile {
    fn new(path: &Path) -> Result<Self, StorageError> {
        let absolute = std::path::absolute(path).context("find", path)?;
        let name = |path: Option<&Path>| {
            let name = path.and_then(Path::file_name).unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let partition = match DirectoryName::parse(&name(absolute.parent())) {
            DirectoryName::Log(partition) | DirectoryName::Future(partition) => Some(partition),
            DirectoryName::Deleted | DirectoryName::Other => None,
        };
        Ok(Self { path: path.to_owned(), kind: kind(&name(Some(&absolute))), partition })
    }

    /// Shows what is in the file. `Break` where `visit` has broken off.
    ///
    /// # Errors
    /// [`StorageError::Io`] where it cannot be read. What makes no sense in it is shown, and no error.
    pub fn read(&self, visit: Visit<'_>) -> Result<ControlFlow<()>, StorageError> {
        let disk: &dyn Disk = &OsDisk;
        match self.kind {
            Kind::Batches(base_offset) => batches::read(disk, &self.path, base_offset, visit),
            Kind::OffsetIndex(base) => entries::offset_index(disk, &self.path, base, visit),
            Kind::TimeIndex(base) => entries::time_index(disk, &self.path, base, visit),
            Kind::TransactionIndex => entries::transaction_index(disk, &self.path, visit),
            Kind::Producers(offset) => entries::producers(disk, &self.path, offset, visit),
            Kind::LeaderEpochs => entries::leader_epochs(disk, &self.path, visit),
            Kind::Offsets => entries::offsets(disk, &self.path, visit),
            Kind::PartitionMetadata => entries::partition_metadata(disk, &self.path, visit),
            Kind::Text => entries::text(disk, &self.path, visit),
            Kind::Other => Ok(ControlFlow::Continue(())),
        }
    }
}

fn kind(name: &str) -> Kind {
    match name {
        names::LEADER_EPOCHS => return Kind::LeaderEpochs,
        names::PARTITION_METADATA => return Kind::PartitionMetadata,
        names::RECOVERY_POINTS
        | names::LOG_START_OFFSETS
        | names::CLEANED_OFFSETS
        | names::HIGH_WATERMARKS => return Kind::Offsets,
        names::ADOPT | names::QUARANTINE | names::META_PROPERTIES | names::QUORUM_STATE => {
            return Kind::Text;
        }
        _ => {}
    }
    if let Some(end_offset) = name.strip_suffix(names::METADATA_SNAPSHOT) {
        // The records of a snapshot are numbered from 0, whatever offset it stands for.
        let is_snapshot = end_offset == "bootstrap"
            || end_offset.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        return if is_snapshot { Kind::Batches(Offset::ZERO) } else { Kind::Other };
    }
    match names::parse_segment_file(without_ending(name)) {
        Some((offset, names::LOG)) => Kind::Batches(offset),
        Some((offset, names::INDEX)) => Kind::OffsetIndex(offset),
        Some((offset, names::TIME_INDEX)) => Kind::TimeIndex(offset),
        Some((_, names::TXN_INDEX)) => Kind::TransactionIndex,
        Some((offset, names::SNAPSHOT)) => Kind::Producers(offset),
        _ => Kind::Other,
    }
}

/// The name that a file has while it is part of its log.
fn without_ending(name: &str) -> &str {
    if let Some(deleted) = name.strip_suffix(names::DELETED) {
        // There is a number before it where an earlier one of this name waits, too.
        let numbered = deleted.rsplit_once('.').filter(|(_, n)| n.parse::<u32>().is_ok());
        return numbered.map_or(deleted, |(plain, _)| plain);
    }
    let endings = [names::CLEANED, names::SWAP];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}
