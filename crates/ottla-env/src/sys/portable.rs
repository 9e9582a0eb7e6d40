//! Bodies that any Unix can run, slower than Linux's own calls but with the same results.
#![cfg_attr(
    target_os = "linux",
    allow(
        dead_code,
        unreachable_pub,
        reason = "on Linux only tests call these, beside the real ones"
    )
)]

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::VECTORS_MAX;

const COPY_BYTES: usize = 64 * 1024;

/// A hint that is not taken.
pub fn allocate(_file: &File, _position: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Nobody can say without taking the lock.
pub fn is_locked(_path: &Path) -> bool {
    false
}

/// There is no portable way past the page cache.
pub fn open_direct(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A hint that is not taken.
pub fn advise_random(_file: &File) -> io::Result<()> {
    Ok(())
}

/// A hint that is not taken.
pub fn drop_cached(_file: &File, _position: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Elsewhere `sync` has no error to report, and does not wait: only the file itself can be made sure of.
pub fn sync_filesystem(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody can say; the caller reads where waiting does no harm.
pub fn is_cached(_file: &File, _position: u64, _len: usize) -> bool {
    false
}

/// Reads some of the file, which leaves it in the page cache. Returns how much that was.
pub fn bring_in(file: &File, position: u64, len: usize) -> io::Result<usize> {
    let mut buffer = vec![0; len];
    super::read_full_at(file, &mut buffer, position)
}

/// Sends bytes, of the first buffers at least; there is no portable way to say that more will follow.
pub fn send(socket: BorrowedFd<'_>, buffers: &[IoSlice<'_>], _more: bool) -> io::Result<usize> {
    Ok(rustix::io::writev(socket, buffers.get(..VECTORS_MAX).unwrap_or(buffers))?)
}

/// What congestion control does there is left to the system.
pub fn send_without_pacing(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// When a connection breaks is left to the system.
pub fn give_up_unacknowledged_after(_socket: BorrowedFd<'_>, _limit: Duration) -> io::Result<()> {
    Ok(())
}

/// Copies up to 64 KiB of the file to a socket.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    position: u64,
    len: usize,
) -> io::Result<usize> {
    let mut buffer = vec![0; len.min(COPY_BYTES)];
    let read = super::read_full_at(file, &mut buffer, position)?;
    Ok(rustix::io::write(socket, buffer.get(..read).unwrap_or_default())?)
}

/// Writes the first buffer that is not empty.
pub fn write_vectored_at(file: &File, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
    let first = buffers.iter().find(|buffer| !buffer.is_empty());
    first.map_or(Ok(0), |buffer| file.write_at(buffer, position))
}

/// Fills the buffer from the random device.
pub fn random_bytes(buffer: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(buffer)
}

/// Other systems have no such switch, and nothing to switch off.
pub fn disable_huge_pages() -> io::Result<()> {
    Ok(())
}
