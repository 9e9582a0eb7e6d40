//! The calls that only Linux has.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

/// Linux keeps at most this many buffers of one vectored write.
const VECTORS_MAX: usize = 1024;
/// How far apart [`is_cached`] looks. Read-ahead and eviction work on larger pieces than a page, so a hole between
/// two probes is rare; it costs one blocking disk read, not a wrong answer.
const PROBE_BYTES: usize = 64 * 1024;

/// Reserves blocks for the file without changing its length; the file system may not support it.
pub fn allocate(file: &File, position: u64, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, position, len) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Writes everything dirty on the file system that holds `file` to the disk, and reports a failure of any of it.
pub fn sync_filesystem(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Whether reading `len` bytes at `position` would probably not wait for the disk.
pub fn is_cached(file: &File, position: u64, len: usize) -> bool {
    let last = position + (len as u64).saturating_sub(1);
    (position..last).step_by(PROBE_BYTES).chain([last]).all(|at| is_byte_cached(file, at))
}

fn is_byte_cached(file: &File, position: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    // EAGAIN is "not in the cache". A file system without RWF_NOWAIT (overlayfs before 6.0, some FUSE) says
    // EOPNOTSUPP; "not cached" is then the safe answer. The end of the file needs no disk.
    rustix::io::preadv2(file, &mut buffers, position, ReadWriteFlags::NOWAIT).is_ok()
}

/// Moves up to `len` bytes of the file to a socket without copying them through this process.
/// Returns how many; zero only at the end of the file. A full non-blocking socket gives `WouldBlock`.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    position: u64,
    len: usize,
) -> io::Result<usize> {
    let mut position = position;
    Ok(rustix::fs::sendfile(socket, file, Some(&mut position), len)?)
}

/// Sends bytes and tells the kernel that more will follow at once, so that a header and the file range
/// behind it share packets. Returns how many were taken; a full non-blocking socket gives `WouldBlock`.
pub fn send_more(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::SendFlags;
    Ok(rustix::net::send(socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

/// Writes some of the buffers at `position` and returns how many bytes.
pub fn write_vectored_at(file: &File, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
    let buffers = buffers.get(..VECTORS_MAX).unwrap_or(buffers);
    Ok(rustix::io::pwritev(file, buffers, position)?)
}

/// Fills the buffer from the kernel's random number generator.
pub fn random_bytes(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match rustix::rand::getrandom(&mut *buffer, rustix::rand::GetRandomFlags::empty()) {
            Ok(filled) => buffer = buffer.get_mut(filled..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keeps the kernel from backing this process with 2 MiB pages: an allocator that asks for them holds many
/// times what is in use, and a broker's memory is small and scattered.
pub fn disable_huge_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}
