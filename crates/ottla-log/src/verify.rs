//! Checks a data directory, or one partition's directory in it, without changing anything. Shell: reads.
//!
//! Nothing is locked, so that a broker may run on the directory or start meanwhile: what it writes during the check may
//! then look unfinished, and is reported as that. Directories that Apache Kafka wrote are checked the same way.
//!
//! What is looked at: every batch of every segment ([`crate::Damage`]), with [`Options::deep`] also every record; each
//! entry of the offset, time and transaction indexes; snapshots of producers; the text files. Every finding says what
//! the broker will do about it at its next start.

pub(crate) mod directory;
pub(crate) mod index;
pub(crate) mod partition;
pub(crate) mod texts;

use std::ops::Range;
use std::path::{Path, PathBuf};

use ottla_base::Offset;
use ottla_env::{Disk, OsDisk};
use ottla_records::NO_PRODUCER_ID;

use crate::error::StorageError;

/// How closely to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Decompress the records and read each of them.
    pub deep: bool,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Worth knowing; nothing is lost.
    Note,
    /// What a crash leaves behind: the next start mends it, and nothing that was acknowledged is lost.
    Unfinished,
    /// Not what was written.
    Damage,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub weight: Weight,
    pub path: PathBuf,
    /// The byte in that file.
    pub position: Option<u64>,
    pub offsets: Option<Range<Offset>>,
    pub what: String,
    /// What the broker will do about it when it starts next.
    pub next_start: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub partitions: u64,
    pub segments: u64,
    pub batches: u64,
    /// Counted from the batches' headers.
    pub records: u64,
    pub bytes: u64,
    /// −1 if there is none.
    pub largest_producer_id: i64,
    /// A process holds the directory's lock.
    pub in_use: bool,
    /// The last process closed the directory properly.
    pub clean: bool,
    pub findings: Vec<Finding>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            partitions: 0,
            segments: 0,
            batches: 0,
            records: 0,
            bytes: 0,
            largest_producer_id: NO_PRODUCER_ID,
            in_use: false,
            clean: false,
            findings: Vec::new(),
        }
    }
}

impl Report {
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.weight == Weight::Damage)
    }

    fn add(
        &mut self,
        weight: Weight,
        path: &Path,
        what: impl ToString,
        next_start: impl ToString,
    ) -> &mut Finding {
        self.findings.push(Finding {
            weight,
            path: path.to_owned(),
            position: None,
            offsets: None,
            what: what.to_string(),
            next_start: next_start.to_string(),
        });
        self.findings.last_mut().expect("one was just added")
    }
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{} is neither a data directory nor that of a partition (TOPIC-N)", .0.display())]
    NotALogDirectory(PathBuf),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Checks a directory.
///
/// # Errors
/// [`VerifyError::NotALogDirectory`], or [`VerifyError::Storage`] where something cannot be read. Whatever is wrong in
/// what can be is in the report.
pub fn verify(path: &Path, options: Options) -> Result<Report, VerifyError> {
    directory::verify(&OsDisk, path, options)
}

/// Checks one log's directory, and tells where the log ends. Nothing around it is looked at.
pub(crate) fn verify_log(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
) -> Result<(Report, Offset), StorageError> {
    let mut report = Report::default();
    let alone = partition::Surroundings::default();
    let end = partition::verify(disk, path, None, &alone, options, &mut report)?;
    Ok((report, end))
}
