//! Bugs to be found: a disk between the log and the simulated one that leaves out what must not be left out.
//!
//! The log has no hooks for them. Each is one thing that a log could forget to do, undone on its way to the disk.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use ottla_env::disk::{DirectoryEntry, Open};
use ottla_env::{Disk, DiskLayer};
use parking_lot::Mutex;

use crate::SimulatedDisk;

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Records are said to be flushed that nobody has synced.
    NoSync,
    /// The same of the logs' records alone: votes and whatever else there is are synced.
    RecordsNotSynced,
    /// Files are synced, their names are not.
    DirectoryNotSynced,
    /// After a crash the indexes are taken as they are.
    IndexTrusted,
    /// Snapshots of more than is left of the log stay, and are believed once it is as long again.
    SnapshotNewerThanLog,
    /// After a failed sync the next process takes for written what is in the page cache.
    CacheTrusted,
    /// What a compaction has written takes the place of its sources before it is on the disk.
    CleanedNotSynced,
    /// A compaction drops records before those are on the disk that make them obsolete.
    CleanedAheadOfFlush,
    /// Recovery knows nothing of compactions that were interrupted while they replaced segments.
    SwapIgnored,
    /// What is noted in the journal is not on the disk when it is said to be.
    JournalNotSynced,
    /// A start does not look into the journal.
    JournalIgnored,
    /// What is settled, or must not come back, stays in the journal.
    JournalNotEmptied,
    /// A voter's vote does not get to the disk.
    VoteForgotten,
}

#[derive(Debug)]
pub(crate) struct PlantedDisk {
    bug: Bug,
    disk: Arc<SimulatedDisk>,
    /// Index files whose rebuilding is left out.
    kept: Mutex<BTreeSet<u64>>,
    /// What compactions have written.
    cleaned: Mutex<BTreeSet<u64>>,
    /// Segments.
    logs: Mutex<BTreeSet<u64>>,
    journals: Mutex<BTreeSet<u64>>,
}

impl PlantedDisk {
    pub(crate) fn new(bug: Bug, disk: Arc<SimulatedDisk>) -> Self {
        Self {
            bug,
            disk,
            kept: Mutex::default(),
            cleaned: Mutex::default(),
            logs: Mutex::default(),
            journals: Mutex::default(),
        }
    }

    fn is_journal(&self, file: &File) -> io::Result<bool> {
        Ok(self.journals.lock().contains(&file.metadata()?.ino()))
    }

    fn is_compacting(&self) -> bool {
        self.disk.activity() == "compaction"
    }

    fn keeps_index(&self, path: &Path) -> bool {
        let extension = path.extension().and_then(OsStr::to_str);
        self.bug == Bug::IndexTrusted
            && self.disk.activity() == "recovery"
            && matches!(extension, Some("index" | "timeindex"))
    }
}

fn is_journal(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with("ottla.journal."))
}

impl DiskLayer for PlantedDisk {
    fn below(&self) -> &dyn Disk {
        &*self.disk
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        if how == Open::Replace && self.keeps_index(path) && self.disk.status(path).is_ok() {
            let file = self.disk.open(path, Open::Create)?;
            self.kept.lock().insert(file.metadata()?.ino());
            return Ok(file);
        }
        let is_journal = is_journal(path);
        // Only a start opens it so.
        if is_journal && self.bug == Bug::JournalIgnored && how == Open::Write {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.disk.open(path, how)?;
        if is_journal {
            self.journals.lock().insert(file.metadata()?.ino());
        }
        if path.extension().is_some_and(|extension| extension == "cleaned") {
            self.cleaned.lock().insert(file.metadata()?.ino());
        }
        if path.extension().is_some_and(|extension| extension == "log") {
            self.logs.lock().insert(file.metadata()?.ino());
        }
        Ok(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = self.disk.list(directory)?;
        if self.bug == Bug::SwapIgnored && self.disk.activity() == "recovery" {
            entries.retain(|entry| !entry.name.as_encoded_bytes().ends_with(b".swap"));
        }
        Ok(entries)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let is_snapshot = path.extension().is_some_and(|extension| extension == "snapshot");
        if self.bug == Bug::SnapshotNewerThanLog && is_snapshot {
            return Ok(());
        }
        self.disk.remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.bug == Bug::VoteForgotten && to.ends_with("quorum-state") {
            return Ok(());
        }
        self.disk.rename(from, to)
    }

    fn drop_cached(&self, file: &File) -> io::Result<()> {
        if self.bug == Bug::CacheTrusted {
            return Ok(());
        }
        self.disk.drop_cached(file)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        if self.disk.activity() == "recovery" && self.kept.lock().contains(&file.metadata()?.ino())
        {
            return Ok(());
        }
        // An entry has something in it.
        let is_emptied = position == 0 && buffers.iter().all(|it| it.iter().all(|byte| *byte == 0));
        if is_emptied && self.bug == Bug::JournalNotEmptied && self.is_journal(file)? {
            return Ok(());
        }
        self.disk.write_at(file, buffers, position)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let is_cleaned = self.cleaned.lock().contains(&file.metadata()?.ino());
        let is_log = self.logs.lock().contains(&file.metadata()?.ino());
        let is_left_out = self.bug == Bug::NoSync
            || self.bug == Bug::RecordsNotSynced && is_log
            || self.bug == Bug::JournalNotSynced && self.is_journal(file)?
            || self.bug == Bug::CleanedNotSynced && is_cleaned
            || self.bug == Bug::CleanedAheadOfFlush && self.is_compacting() && !is_cleaned;
        if is_left_out { Ok(()) } else { self.disk.sync_data(file) }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.bug == Bug::DirectoryNotSynced { Ok(()) } else { self.disk.sync_directory(path) }
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        if self.bug == Bug::RecordsNotSynced {
            // Then each file is synced by itself.
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.bug == Bug::DirectoryNotSynced {
            self.disk.sync_all_files();
            return Ok(());
        }
        let is_left_out =
            self.bug == Bug::NoSync || self.bug == Bug::CleanedAheadOfFlush && self.is_compacting();
        if is_left_out { Ok(()) } else { self.disk.sync_file_system(path, within) }
    }
}
