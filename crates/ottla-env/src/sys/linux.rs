//! The calls that only Linux has.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{VECTORS_MAX, portable};

/// How far apart [`looks_cached`] looks. Read-ahead and eviction work on larger pieces than a page, so a hole between
/// two looks is rare; it costs one blocking disk read, not a wrong answer.
const LOOK_BYTES: usize = 64 * 1024;
/// `cachestat`, which libc does not name yet; calls of that age have one number on all architectures but one.
const SYS_CACHESTAT: libc::c_long = 451;

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

/// Writes everything dirty on the file system that holds `file` to the disk, and reports a failure of any of it;
/// `Unsupported` where the running kernel would keep it to itself.
pub fn sync_filesystem(file: &File) -> io::Result<()> {
    static REPORTS_FAILURES: LazyLock<bool> = LazyLock::new(|| {
        rustix::system::uname().release().to_str().is_ok_and(syncfs_reports_failures)
    });
    if super::SYNCS_ARE_LEFT_OUT {
        return Ok(());
    }
    if !*REPORTS_FAILURES {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(rustix::fs::syncfs(file)?)
}

/// Whether `syncfs` says what could not be written, on a kernel of this release: since Linux 5.8. One that does not say its
/// number is taken for older.
fn syncfs_reports_failures(release: &str) -> bool {
    let mut numbers = release.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end).and_then(|digits| digits.parse::<u32>().ok())
    });
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    version.is_some_and(|version| version >= (5, 8))
}

/// Whether reading `len` bytes at `position` would probably not wait for the disk.
pub fn is_cached(file: &File, position: u64, len: usize) -> bool {
    static CAN_COUNT: AtomicBool = AtomicBool::new(true);
    is_cached_by(file, position, len, &CAN_COUNT, count_cached)
}

/// The same by counting pages for as long as that works.
fn is_cached_by(
    file: &File,
    position: u64,
    len: usize,
    can_count: &AtomicBool,
    count: impl Fn(&File, u64, usize) -> io::Result<u64>,
) -> bool {
    if can_count.load(Ordering::Relaxed) {
        match count(file, position, len) {
            // Pages of a file on overlayfs are those of the file below, and none are counted: there one has to look.
            Ok(0) => {}
            Ok(cached) if cached < pages(position, len) => return false,
            // A page that is on its way from the disk counts, too. They come in their order, so look at the last one.
            Ok(_) => return is_byte_cached(file, last(position, len)),
            // Linux before 6.5, or a sandbox that forbids it: nobody asks again.
            Err(_) => can_count.store(false, Ordering::Relaxed),
        }
    }
    looks_cached(file, position, len)
}

/// The position of the last byte; of an empty range the first.
fn last(position: u64, len: usize) -> u64 {
    position + (len as u64).saturating_sub(1)
}

/// How many pages hold something of a range.
fn pages(position: u64, len: usize) -> u64 {
    let page = rustix::param::page_size() as u64;
    last(position, len) / page - position / page + 1
}

/// How many of these pages are in the page cache: read, written, dirty or on their way to or from the disk.
#[expect(unsafe_code, reason = "neither the standard library nor rustix has this call")]
fn count_cached(file: &File, position: u64, len: usize) -> io::Result<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    /// Pages.
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cached: u64,
        dirty: u64,
        in_writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    // No length means all of the file.
    let range = Range { offset: position, len: len.max(1) as u64 };
    let mut counts = Counts::default();
    let (range, into) = (&raw const range, &raw mut counts);
    // SAFETY: the kernel reads a `struct cachestat_range` and writes a `struct cachestat`, which the two structures equal
    // field by field and which outlive the call; the descriptor is open for as long as the file is borrowed.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range, into, 0_u32) };
    if result == 0 { Ok(counts.cached) } else { Err(io::Error::last_os_error()) }
}

/// The same by looking at some bytes, for any Linux.
fn looks_cached(file: &File, position: u64, len: usize) -> bool {
    let last = last(position, len);
    (position..last).step_by(LOOK_BYTES).chain([last]).all(|at| is_byte_cached(file, at))
}

fn is_byte_cached(file: &File, position: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    // EAGAIN is "not in the cache". A file system without RWF_NOWAIT (overlayfs before 6.0, some FUSE) says
    // EOPNOTSUPP; "not cached" is then the safe answer. The end of the file needs no disk.
    rustix::io::preadv2(file, &mut buffers, position, ReadWriteFlags::NOWAIT).is_ok()
}

/// Waits until some of the file is in the page cache, without a copy of it: the null device takes pages as they are. Returns
/// how much that was; zero only at the end of the file.
///
/// All of it is asked for at once, or it would come in the pieces that go through a pipe, each of which waits for the disk.
pub fn bring_in(file: &File, position: u64, len: usize) -> io::Result<usize> {
    static NOWHERE: LazyLock<Option<File>> = LazyLock::new(null_device);
    let Some(nowhere) = &*NOWHERE else { return portable::bring_in(file, position, len) };
    rustix::fs::fadvise(file, position, (len as u64).try_into().ok(), Advice::WillNeed)?;
    match rustix::fs::sendfile(nowhere, file, Some(&mut { position }), len) {
        // Some file systems give no pages away.
        Err(Errno::INVAL) => portable::bring_in(file, position, len),
        result => Ok(result?),
    }
}

/// A sandbox may have none, or an ordinary file under its name, which would be filled with what others have written.
fn null_device() -> Option<File> {
    let device = OpenOptions::new().write(true).open("/dev/null").ok()?;
    device.metadata().ok()?.file_type().is_char_device().then_some(device)
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

/// Sends the buffers' bytes, one behind the other. With `more` the kernel is told that others follow at once, so that a header
/// and the file range behind it share packets. Returns how many were taken; a full non-blocking socket gives `WouldBlock`.
pub fn send(socket: BorrowedFd<'_>, buffers: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
    let buffers = buffers.get(..VECTORS_MAX).unwrap_or(buffers);
    let more = if more { SendFlags::MORE } else { SendFlags::empty() };
    let mut nothing_else = SendAncillaryBuffer::default();
    Ok(sendmsg(socket, buffers, &mut nothing_else, SendFlags::NOSIGNAL | more)?)
}

/// Lets a socket send as fast as its peer reads, for a peer on this machine: there is no network to be gentle with. A
/// congestion control that spreads its packets over time (BBR) does so by timers, and a sender that does not wait for them
/// pays for each. Every Linux has Reno, and lets everybody choose it.
pub fn send_without_pacing(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(socket, "reno")?)
}

/// Lets a connection break when what was sent has not been acknowledged by the other machine for so long. Otherwise Linux goes
/// on trying for a quarter of an hour, in pauses that double: after a cut the next try may come as late again as the cut
/// was long. How long the other process takes to answer does not matter.
pub fn give_up_unacknowledged_after(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(socket, ms)?)
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

#[cfg(test)]
mod tests;
