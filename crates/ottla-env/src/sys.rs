//! Every call to the operating system that is not in the standard library. Shell.
//!
//! `linux` holds the calls that only Linux has; `portable` holds a body for each of them that works on any Unix.
//! Both are compiled and tested on Linux; the functions exported here are the best ones that the platform has.
//! Each fails with what the system says; a function tells of the kinds that its callers act on.

#![expect(clippy::missing_errors_doc, reason = "told once, above")]

mod portable;

#[cfg(target_os = "linux")]
mod linux;

use std::fs::{File, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub use linux::{
    advise_random, allocate, bring_in, disable_huge_pages, drop_cached,
    give_up_unacknowledged_after, is_cached, is_locked, open_direct, random_bytes, send, send_file,
    send_without_pacing, sync_filesystem, write_vectored_at,
};
#[cfg(not(target_os = "linux"))]
pub use portable::{
    advise_random, allocate, bring_in, disable_huge_pages, drop_cached,
    give_up_unacknowledged_after, is_cached, is_locked, open_direct, random_bytes, send, send_file,
    send_without_pacing, sync_filesystem, write_vectored_at,
};

/// Linux takes at most this many buffers of one vectored call.
const VECTORS_MAX: usize = 1024;

/// Only in the build that `cargo xtask nightly` makes to see that such a bug is found. No feature of Cargo's, so that
/// nobody gets it with all features.
pub(crate) const SYNCS_ARE_LEFT_OUT: bool = cfg!(planted_no_sync);

/// Makes the file's contents (and its length) survive a loss of power.
///
/// An error must never be answered with another try: Linux reports a lost page once and then calls it clean.
pub fn sync_data(file: &File) -> io::Result<()> {
    if SYNCS_ARE_LEFT_OUT {
        return Ok(());
    }
    file.sync_data()
}

/// Makes the names in a directory (files created, renamed, removed) survive a loss of power.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    if SYNCS_ARE_LEFT_OUT {
        return Ok(());
    }
    File::open(path)?.sync_all()
}

/// Whether a file could not be opened because too many are.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let full = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| full.contains(&code))
}

/// Takes the lock on an open file that no other process can hold at the same time.
/// `false` when somebody has it already. The lock ends with the file handle, also by `kill -9`.
///
/// There are two kinds, which do not see each other: `flock`, which also keeps two handles of one process apart, and POSIX
/// record locks, which Java takes: Apache Kafka may be at work in the same directory. A record lock of another process is
/// looked for before, and one is held beside: on network file systems both are of one kind, and the second is refused
/// because of the first. The record lock ends as soon as this process closes any handle of the file.
pub fn lock_exclusive(file: &File) -> io::Result<bool> {
    if is_record_locked(file)? {
        return Ok(false);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    let _refused_by_our_own = rustix::fs::fcntl_lock(file, exclusive);
    Ok(true)
}

/// Whether another process has a POSIX record lock on a file.
fn is_record_locked(file: &File) -> io::Result<bool> {
    use rustix::process::{FlockType, fcntl_getlk};
    Ok(fcntl_getlk(file, &FlockType::WriteLock.into())?.is_some())
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub total: u64,
    /// What this process may still take.
    pub usable: u64,
}

/// The room on the file system that a path is on.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(DiskSpace { total: bytes(stat.f_blocks), usable: bytes(stat.f_bavail) })
}

/// What an open file is called. Where the system has no `/proc`, an error.
pub fn path_of(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Raises the soft limit on open files to the hard limit, and returns what it is now.
pub fn raise_open_file_limit() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Writes all of the buffers at `position`, however many calls that takes.
///
/// After an error any part of them may be in the file: the caller knows where its file ended before.
pub fn write_all_vectored_at(
    file: &File,
    mut buffers: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        match write_vectored_at(file, buffers, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut buffers, written);
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills as much of `buffer` as the file has from `position` on; less than all of it only at the file's end.
pub fn read_full_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Brings `len` bytes of the file from `position` on into the page cache, blocking until they are there.
///
/// Little by little, and nothing beyond: what the kernel would read ahead by itself, up to megabytes at once, would stand
/// in the disk's queue before the flush that somebody waits for. From now on it does so no more for this handle.
pub fn read_ahead(file: &File, position: u64, len: usize) -> io::Result<()> {
    advise_random(file)?;
    let (mut at, mut left) = (position, len);
    while left > 0 {
        match bring_in(file, at, left.min(READ_AHEAD_STEP)) {
            Ok(0) => break,
            Ok(there) => {
                at += there as u64;
                left = left.saturating_sub(there);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How much is read at once to warm the page cache.
const READ_AHEAD_STEP: usize = 256 * 1024;

#[cfg(test)]
mod tests;
