//! What a log does with files and directories: a trait, and the operating system behind it. Shell.
//!
//! Everything that changes a disk, reads from it or waits for it is one call here, with what it changes and where, so
//! that a test can lose what was not synced, fail a call, or stop the world before it. Files stay the system's own, since
//! a broker sends them with `sendfile`; how long an open file is may be asked of it directly.
//!
//! What survives a loss of power, and all that a caller may count on: bytes and length of a file whose
//! [`Disk::sync_data`] returned after they were written, and names whose directory's [`Disk::sync_directory`] returned
//! after they were made, changed or removed. [`Disk::sync_file_system`] does both for everything.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::SystemTime;

use crate::direct::DirectFile;
use crate::sys::{self, DiskSpace};

mod faulty;
mod layer;

pub use faulty::{FaultyDisk, Stall};
pub use layer::DiskLayer;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// One that exists, to read it.
    Read,
    /// One that exists, to read and write it.
    Write,
    /// To read and write it, and it may not exist yet; what it holds stays.
    Create,
    /// To read and write it, and it may not exist yet; what it holds goes.
    Replace,
}

/// Whether it is only room that a call has lacked: on the disk, or within a quota.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error of a sync says that the disk may have lost what it was given: any does, for want of room as well, unless
/// there was nothing to sync, or it could not be opened for it.
#[must_use]
pub fn is_failure(error: &io::Error) -> bool {
    let is_not_there = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported);
    !(is_not_there || sys::is_out_of_files(error))
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    pub name: OsString,
    pub is_directory: bool,
}

/// What is known of a file or directory without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub len: u64,
    pub is_directory: bool,
    pub modified: SystemTime,
}

/// A disk, passed to every shell that keeps files.
///
/// An error of a sync must never be answered with another try: the system reports a lost page once and then calls it
/// clean.
///
/// # Errors
/// Each call fails with what the system says; a method tells of the kinds that its callers act on.
#[expect(clippy::missing_errors_doc, reason = "told once, above")]
pub trait Disk: Debug + Send + Sync {
    /// `NotFound` where there is no such file, and `how` does not create it.
    fn open(&self, path: &Path, how: Open) -> io::Result<File>;

    /// Opens a file that exists, to read it past the page cache; `None` from a disk that has no such thing.
    fn open_direct(&self, _path: &Path) -> io::Result<Option<DirectFile>> {
        Ok(None)
    }

    fn status(&self, path: &Path) -> io::Result<Status>;

    /// The names in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// Its parent must exist, else `NotFound`; what has the name already, `AlreadyExists`.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the place of what has the new name, if that is a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// With all that is in it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Fills as much of `buffer` as the file has from `position` on; less than all of it only at the file's end.
    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Lets the next reads see what is on the disk where a failed sync has left something else in the page cache. What is
    /// still to be written stays.
    fn drop_cached(&self, file: &File) -> io::Result<()> {
        sys::drop_cached(file, 0, file.metadata()?.len())
    }

    /// Writes all of the buffers. After an error any part of them may be in the file.
    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    fn set_len(&self, file: &File, len: u64) -> io::Result<()>;

    /// Reserves blocks without changing the file's length; a hint where the file system cannot.
    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()>;

    fn sync_data(&self, file: &File) -> io::Result<()>;

    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Of the whole file system that holds a path; `Unsupported` where the platform cannot.
    ///
    /// `within` is any file there, open since before the writes that this is for: a handle is told of each failure once, but
    /// of none that somebody else was told of before it was opened.
    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()>;

    /// The room on the file system that holds a path.
    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        sys::disk_space(path)
    }
}

/// What is made of those calls, the same for every disk. They fail as those do.
#[expect(clippy::missing_errors_doc, reason = "told once, above")]
impl dyn Disk + '_ {
    /// All that a file holds.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        self.read_up_to(&file, 0, len)
    }

    /// So many bytes of a file from a position on; fewer only at its end.
    pub fn read_up_to(&self, file: &File, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(file, &mut bytes, position)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// `None` if there is no such file.
    pub fn open_if_there(&self, path: &Path, how: Open) -> io::Result<Option<File>> {
        match self.open(path, how) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Returns whether there was such a file.
    pub fn remove_if_there(&self, path: &Path) -> io::Result<bool> {
        match self.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// `InvalidData` where it is no UTF-8.
    pub fn read_to_string(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// After an error any part of the bytes may be in the file.
    pub fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_at(file, &mut [IoSlice::new(bytes)], position)
    }

    /// Lets a file hold these bytes and nothing else. Not at once, and not durably.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let file = self.open(path, Open::Replace)?;
        self.write_all_at(&file, bytes, 0)?;
        Ok(file)
    }

    /// Creates a directory and those above it, as far as they do not exist.
    pub fn create_directories(&self, path: &Path) -> io::Result<()> {
        let mut created = self.create_directory(path);
        if let Err(error) = &created
            && error.kind() == io::ErrorKind::NotFound
            && let Some(parent) = path.parent()
        {
            self.create_directories(parent)?;
            created = self.create_directory(path);
        }
        created.or_else(|error| match self.status(path) {
            Ok(status) if status.is_directory => Ok(()),
            _ => Err(error),
        })
    }
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        options.create(matches!(how, Open::Create | Open::Replace)).truncate(how == Open::Replace);
        options.open(path)
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<DirectFile>> {
        DirectFile::open(path).map(Some)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        let metadata = fs::metadata(path)?;
        Ok(Status {
            len: metadata.len(),
            is_directory: metadata.is_dir(),
            modified: metadata.modified()?,
        })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let is_directory = entry.file_type()?.is_dir();
            Ok(DirectoryEntry { name: entry.file_name(), is_directory })
        };
        fs::read_dir(directory)?.map(entry).collect()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        sys::read_full_at(file, buffer, position)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        sys::write_all_vectored_at(file, buffers, position)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()> {
        sys::allocate(file, position, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        sys::sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sys::sync_directory(path)
    }

    fn sync_file_system(&self, _: &Path, within: &File) -> io::Result<()> {
        sys::sync_filesystem(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &dyn Disk = &OsDisk;

    #[test]
    fn a_file_is_opened_as_asked_and_keeps_or_loses_what_it_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for how in [Open::Read, Open::Write] {
            assert_eq!(DISK.open(&path, how).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert!(DISK.open_if_there(&path, how).unwrap().is_none());
        }
        let file = DISK.open(&path, Open::Create).unwrap();
        DISK.write_all_at(&file, b"0123456789", 0).unwrap();
        DISK.set_len(&file, 8).unwrap();
        for how in [Open::Read, Open::Write, Open::Create] {
            let file = DISK.open(&path, how).unwrap();
            let mut buffer = [0; 4];
            assert_eq!(DISK.read_at(&file, &mut buffer, 6).unwrap(), 2);
            assert_eq!(&buffer[..2], b"67");
            assert_eq!(DISK.read_up_to(&file, 6, 4).unwrap(), b"67");
            assert_eq!(DISK.write_all_at(&file, b"x", 0).is_ok(), how != Open::Read);
            assert!(DISK.open_if_there(&path, how).unwrap().is_some());
        }
        assert_eq!(DISK.read_to_string(&path).unwrap(), "x1234567");
        DISK.open(&path, Open::Replace).unwrap();
        assert_eq!(DISK.read(&path).unwrap(), b"");
        DISK.write(&path, &[0xff]).unwrap();
        assert_eq!(DISK.read(&path).unwrap(), [0xff]);
        assert_eq!(DISK.read_to_string(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn names_are_made_listed_changed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (inner, file) = (directory.path().join("a/b"), directory.path().join("a/c"));
        let missing = DISK.create_directory(&inner).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        DISK.create_directories(&inner).unwrap();
        DISK.create_directories(&inner).unwrap();
        DISK.write(&file, b"12").unwrap();
        assert!(DISK.create_directories(&file).is_err(), "a file is no directory");
        let mut entries = DISK.list(&directory.path().join("a")).unwrap();
        entries.sort();
        let entry = |name: &str, is_directory| DirectoryEntry { name: name.into(), is_directory };
        assert_eq!(entries, [entry("b", true), entry("c", false)]);
        let status = DISK.status(&file).unwrap();
        assert_eq!((status.len, status.is_directory), (2, false));
        DISK.rename(&file, &inner.join("d")).unwrap();
        assert!(DISK.status(&file).is_err());
        DISK.write(&file, b"").unwrap();
        DISK.remove_file(&file).unwrap();
        assert!(!DISK.remove_if_there(&file).unwrap());
        DISK.write(&file, b"").unwrap();
        assert!(DISK.remove_if_there(&file).unwrap());
        assert!(DISK.remove_if_there(&inner).is_err(), "a directory is no file");
        DISK.remove_directory(&directory.path().join("a")).unwrap();
        assert_eq!(DISK.list(directory.path()).unwrap(), []);
    }

    #[test]
    fn a_sync_that_was_not_tried_says_nothing_against_the_disk() {
        let gone = tempfile::tempdir().unwrap().path().join("gone");
        assert!(!is_failure(&DISK.sync_directory(&gone).unwrap_err()));
        let of = io::Error::from_raw_os_error;
        let [io_error, no_space, too_many_files] = [5, 28, 24].map(of);
        assert!(is_failure(&io_error) && is_failure(&no_space));
        assert!(!is_failure(&too_many_files));
    }

    #[test]
    fn everything_can_be_synced() {
        let directory = tempfile::tempdir().unwrap();
        let file = DISK.write(&directory.path().join("file"), b"1").unwrap();
        DISK.allocate(&file, 0, 1 << 16).unwrap();
        DISK.sync_data(&file).unwrap();
        DISK.sync_directory(directory.path()).unwrap();
        if cfg!(target_os = "linux") {
            DISK.sync_file_system(directory.path(), &File::open(directory.path()).unwrap())
                .unwrap();
        }
    }
}
