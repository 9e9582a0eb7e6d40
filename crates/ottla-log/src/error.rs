//! What can go wrong with a log, by whose fault. Pure.

use std::io;
use std::path::{Path, PathBuf};

use ottla_base::Offset;
use ottla_env::disk;
use ottla_records::BatchError;

use crate::producers::ProducerRefusal;

/// The disk, or the data on it, is not as it should be; or the log is no longer there.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is corrupt at byte {position}: {what}", .path.display())]
    Corrupt { path: PathBuf, position: u64, what: String },
    /// A flush failed earlier. What the disk holds since then is unknown, so nothing more is written there.
    #[error("log directory {} is offline: a flush failed ({reason})", .directory.display())]
    Poisoned { directory: PathBuf, reason: String },
    /// What clients append is refused, to keep room for the broker's own writes. Nothing is wrong with the disk.
    #[error("the disk of log directory {} is full", .directory.display())]
    Full { directory: PathBuf },
    /// The log was deleted, or its directory was closed.
    #[error("the log {log} is closed")]
    Closed { log: String },
    /// A batch that comes with an offset must not begin before the log's end.
    #[error("a batch at offset {found} cannot follow the log end offset {log_end_offset}")]
    OutOfOrder { log_end_offset: Offset, found: Offset },
    /// Offsets and byte positions are bounded by the file formats.
    #[error("{what} does not fit into a segment")]
    TooLarge { what: &'static str },
}

impl StorageError {
    /// Whether it is only room that was lacking.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
            || matches!(self, Self::Io { source, .. } if disk::is_full(source))
    }

    pub(crate) fn corrupt(path: &Path, position: u64, what: impl ToString) -> Self {
        Self::Corrupt { path: path.to_owned(), position, what: what.to_string() }
    }
}

/// Of the kind that tells whether the disk was full.
impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        let is_full = error.is_full();
        let kind = if is_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Self::new(kind, error)
    }
}

/// Says what was being done to which file.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { action, path: path.to_owned(), source })
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Refused(#[from] ProducerRefusal),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why what a leader has answered was not appended, or only in part.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("the batch after offset {} of the leader's answer is damaged: {error}", .after.map_or(-1, |after| after.0))]
    Damaged { after: Option<Offset>, error: BatchError },
    #[error("a batch at offset {found} of the leader's answer cannot follow offset {end}")]
    OutOfOrder { end: Offset, found: Offset },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FollowError {
    /// Whether it is only room that was lacking.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_full())
    }

    /// Whether another answer, or the same one later, may be appended: nothing is wrong with the disk.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::OutOfOrder { .. } => true,
            // What failed halfway was cut off again; a disk that is gone says so with another error.
            Self::Storage(error) => {
                matches!(error, StorageError::Full { .. } | StorageError::Io { .. })
            }
        }
    }
}

/// Why nothing can be read at an offset.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(
        "offsets {first_offset}..{end_offset} are damaged on disk, and were asked for at {requested}"
    )]
    Quarantined { requested: Offset, first_offset: Offset, end_offset: Offset },
    #[error("offset {requested} is not in {log_start_offset}..={log_end_offset}")]
    OutOfRange { requested: Offset, log_start_offset: Offset, log_end_offset: Offset },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a log directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{} is in use by another process, which holds the lock on {}; stop it or choose another directory",
        .directory.display(), .directory.join(".lock").display()
    )]
    Locked { directory: PathBuf },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OpenError {
    /// Whether it is only room that was lacking.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_full())
    }
}

/// Why a log cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the log {log} already exists")]
    Exists { log: String },
    /// The one that was asked for is offline or not there, or all are.
    #[error("there is no log directory for {log}")]
    NoDirectory { log: String },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl CreateError {
    /// Whether no other log can be created there either: it is full, or offline.
    #[must_use]
    pub fn concerns_directory(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_full() || matches!(error, StorageError::Poisoned { .. }))
    }
}
