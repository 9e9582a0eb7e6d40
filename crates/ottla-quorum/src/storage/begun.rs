//! The note that a node has had a metadata log, beside the log's own directory. Shell.
//!
//! Whoever has lost the log, or took it away, has forgotten what it acknowledged and whom it voted for, and must not go on
//! under the name that `meta.properties` gives the directory: others count on what it had. Without the note such a node would
//! look like one that has just been formatted.
//!
//! Invariant: if the note is there, entries have been durable, in the log or in a snapshot; and nothing is acknowledged
//! before the note is there, but on a full disk. A vote alone leaves none: who has a vote that counts has had the entry that
//! names the voters. No log becomes empty again: the first entry of a cluster is the same everywhere, and committed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla_env::Disk;
use ottla_env::disk::is_full;

/// Of an empty file.
pub const BEGUN_NAME: &str = "ottla.begun";

/// See the module.
#[derive(Debug)]
pub(crate) struct Begun {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    is_noted: AtomicBool,
}

impl Begun {
    /// What is noted of the log in this directory.
    pub(crate) fn of_log(disk: Arc<dyn Disk>, log: &Path) -> io::Result<Self> {
        let directory = log.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let is_noted = match disk.status(&directory.join(BEGUN_NAME)) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(Self { disk, directory, is_noted: AtomicBool::new(is_noted) })
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Relaxed)
    }

    /// Notes that there are entries, which are durable; the note is, too, when this returns. On a disk without room it is
    /// left to the next time: the node is to go on.
    pub(crate) fn note(&self) -> io::Result<()> {
        if self.is_noted() {
            return Ok(());
        }
        let path = self.directory.join(BEGUN_NAME);
        let noted =
            self.disk.write(&path, b"").and_then(|_| self.disk.sync_directory(&self.directory));
        match noted {
            Ok(()) => self.is_noted.store(true, Ordering::Relaxed),
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
