//! Whether a log directory can still be written, and the disk that notices when it can't. Shell.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ottla_env::disk::{self, Open};
use ottla_env::{DirectFile, Disk, DiskLayer, sys};
use parking_lot::RwLock;

use crate::error::StorageError;
use crate::flusher::FlushListener;
use crate::names;

/// Whether a directory is online, and who is told once it no longer is.
pub(crate) struct Health {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    poison: OnceLock<String>,
    pub(crate) listeners: RwLock<Vec<Arc<dyn FlushListener>>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl Health {
    pub(crate) fn new(directory: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { directory, disk, poison: OnceLock::new(), listeners: RwLock::default() }
    }

    /// Fails once a flush has failed: nothing that was written since then can be promised to anybody.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => {
                let (directory, reason) = (self.directory.clone(), reason.clone());
                Err(StorageError::Poisoned { directory, reason })
            }
        }
    }

    /// Takes the directory offline for good, until the process starts again and recovers what the disk has.
    pub(crate) fn poison(&self, error: &StorageError) {
        if self.poison.set(error.to_string()).is_ok() {
            // For the next process, and for it alone: a loss of power empties the cache, and with it this.
            let mark = self.directory.join(names::SYNC_FAILED);
            if let Err(error) = self.disk.open(&mark, Open::Create) {
                tracing::error!(mark = %mark.display(), %error, "cannot leave a mark; restart the machine, not only this process");
            }
            tracing::error!(
                directory = %self.directory.display(),
                %error,
                "a write to disk failed; the log directory is offline, and nothing more is written to it"
            );
            for listener in self.listeners.read().iter() {
                listener.poisoned(&self.directory, error);
            }
        }
    }
}

/// The disk of a log directory: one sync that fails takes the directory offline, whoever has asked for it and whatever they
/// make of the error. Nobody can try it again.
#[derive(Debug)]
pub(crate) struct WatchedDisk {
    below: Arc<dyn Disk>,
    health: Arc<Health>,
}

impl WatchedDisk {
    pub(crate) fn new(below: Arc<dyn Disk>, health: Arc<Health>) -> Self {
        Self { below, health }
    }

    fn heed(&self, synced: io::Result<()>, path: impl FnOnce() -> PathBuf) -> io::Result<()> {
        synced.inspect_err(|error| {
            if disk::is_failure(error) {
                let source = io::Error::new(error.kind(), error.to_string());
                self.health.poison(&StorageError::Io { action: "flush", path: path(), source });
            }
        })
    }
}

impl DiskLayer for WatchedDisk {
    fn below(&self) -> &dyn Disk {
        &*self.below
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<DirectFile>> {
        self.below.open_direct(path)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let path = || sys::path_of(file).unwrap_or_else(|_| self.health.directory.clone());
        self.heed(self.below.sync_data(file), path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.heed(self.below.sync_directory(path), || path.to_owned())
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        self.heed(self.below.sync_file_system(path, within), || path.to_owned())
    }
}
