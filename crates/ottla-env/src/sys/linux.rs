//! The calls that only Linux has.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, OFlags};
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

/// Opens a file to be read past the page cache; position, length and memory must then be multiples of the block size.
/// `InvalidInput` where the file system cannot.
pub fn open_direct(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Whether a process holds a lock on a file, without asking for it: that would keep others from it for a moment.
pub fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(metadata), Ok(locks)) = (path.metadata(), std::fs::read_to_string("/proc/locks"))
    else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131083 0 EOF`; of Kafka's lock it says POSIX.
    let id = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    locks.lines().any(|line| line.split_whitespace().any(|word| word == id))
}

/// Switches read-ahead off for this open file.
pub fn advise_random(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::Random)?)
}

/// Lets go of the cached pages that lie wholly within a range; those that are still to be written stay.
pub fn drop_cached(file: &File, position: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, position, len.try_into().ok(), Advice::DontNeed)?)
}

/// Writes everything dirty on the file system that holds `file` to the disk, and reports a failure of any of it.
pub fn sync_filesystem(file: &File) -> io::Result<()> {
    if super::SYNCS_ARE_LEFT_OUT {
        return Ok(());
    }
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
