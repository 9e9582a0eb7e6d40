//! Room on the disk of a log directory: what clients append may not take the last of it, which is kept for the broker's
//! own writes. Shell.
//!
//! The file system is asked before an append only when so much was appended since the last time that the answer may have
//! changed, and by the housekeeper. Once something did not fit, the disk counts as full until there is room for that, and
//! some more: what is smaller is tried meanwhile, as the housekeeper finds room for it, but whoever looks at the state sees
//! one that does not come and go with each attempt. What did not fit is refused without a question until the housekeeper
//! has looked.
//!
//! A disk may refuse a write though the file system says that there is room, as where a quota ends first. Then only the
//! next write can tell whether it is over: one is let through each time the housekeeper has looked, and the disk counts as
//! full until one has succeeded. Where what was led here is led elsewhere nobody writes anything, so that the housekeeper
//! tries it, too, with a file of its own.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use ottla_env::Disk;
use ottla_env::disk::{Open, is_full};
use parking_lot::Mutex;

use crate::error::StorageError;

/// Such a part of the free room may be appended before the file system is asked again.
const ASK_AGAIN_PARTS: u64 = 4;

const ROOMY: u8 = 0;
const FULL: u8 = 1;
/// Full still, as far as anybody knows, but the next write is to tell.
const PROBING: u8 = 2;
/// Full still, but for what is smaller than what did not fit.
const TIGHT: u8 = 3;

/// So much must be free beside what did not fit, or a hundredth of the disk, if that is less.
const MARGIN_BYTES_MAX: u64 = 16 << 20;
const MARGIN_PARTS: u64 = 100;
/// No more than such a part of the disk is waited for: what did not fit may be more than ever will.
const WANTED_PARTS: u64 = 4;

/// What the housekeeper tries to write. It has no name by the time that anything is in it.
const PROBE: &str = "room.tmp";
/// As much as a file system gives a file at least.
const PROBE_BLOCK: [u8; 4096] = [0; 4096];

/// Whether clients' records still fit.
#[derive(Debug)]
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// `log.dir.reserved.bytes`
    reserved: AtomicU64,
    /// What may be appended before the file system is asked again.
    unasked: AtomicI64,
    state: AtomicU8,
    /// The most that did not fit since the disk has been full.
    refused: AtomicU64,
    /// Whether it was a write that has failed, and not the file system that says how little is left.
    write_failed: AtomicBool,
    asking: Mutex<()>,
}

impl Room {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, reserved: u64) -> Self {
        Self {
            disk,
            path,
            reserved: AtomicU64::new(reserved),
            unasked: AtomicI64::new(0),
            state: AtomicU8::new(ROOMY),
            refused: AtomicU64::new(0),
            write_failed: AtomicBool::new(false),
            asking: Mutex::default(),
        }
    }

    /// Clients may append again as soon as this leaves room for them.
    pub(crate) fn set_reserved(&self, bytes: u64) {
        if self.reserved.swap(bytes, Ordering::Relaxed) != bytes {
            self.refused.store(0, Ordering::Relaxed);
            self.unasked.store(0, Ordering::Relaxed);
            self.look();
        }
    }

    /// Whether something did not fit, and nobody knows yet that it would by now.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) != ROOMY
    }

    fn refuses(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FULL
    }

    /// An error while there is none.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.refuses() { Err(self.full()) } else { Ok(()) }
    }

    /// Claims room for what a client wants to append.
    pub(crate) fn claim(&self, bytes: u64) -> Result<(), StorageError> {
        self.check()?;
        if self.reserved.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let unasked = self.unasked.fetch_sub(bytes, Ordering::Relaxed);
        if unasked >= bytes || self.ask(bytes.unsigned_abs()) { Ok(()) } else { Err(self.full()) }
    }

    /// An error unless so much is free beside the reserve, and a margin: for a write of the broker's own that can wait. Without a
    /// reserve, or where nobody knows, the write will tell.
    pub(crate) fn check_spare(&self, bytes: u64) -> Result<(), StorageError> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let wanted = bytes.saturating_add(reserved).saturating_add(MARGIN_BYTES_MAX.min(reserved));
        if reserved == 0 || self.space().0 >= wanted { Ok(()) } else { Err(self.full()) }
    }

    /// Allocates blocks for an empty file, ahead of what will be written to it: only a hint, and so it goes without where half of
    /// what is free beside the reserve would not do. What is allocated does not count as free when somebody wants to write.
    pub(crate) fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let unreserved = self.disk.space(&self.path).map(|it| it.usable.saturating_sub(reserved));
        if unreserved.is_ok_and(|unreserved| unreserved / 2 < bytes) {
            return Ok(());
        }
        let allocated = self.disk.allocate(file, 0, bytes);
        // So much less is free that the next claim must ask.
        self.unasked.store(0, Ordering::Relaxed);
        match allocated {
            // A quota, say. What the file has got of it stays otherwise.
            Err(error) if is_full(&error) => self.disk.set_len(file, 0),
            allocated => allocated,
        }
    }

    /// Asks whether there is room now, if there was none.
    pub(crate) fn look(&self) {
        if self.reserved.load(Ordering::Relaxed) > 0 || self.is_full() {
            self.ask(0);
        }
        if self.state.load(Ordering::Relaxed) == PROBING {
            self.probe();
        }
    }

    /// How much is free, of how much.
    fn space(&self) -> (u64, u64) {
        match self.disk.space(&self.path) {
            Ok(space) => (space.usable, space.total),
            // The write will tell.
            Err(error) => {
                tracing::debug!(directory = %self.path.display(), %error, "how much is free is not known");
                (u64::MAX, u64::MAX)
            }
        }
    }

    fn ask(&self, bytes: u64) -> bool {
        let _one_at_a_time = self.asking.lock();
        let reserved = self.reserved.load(Ordering::Relaxed);
        let (free, total) = self.space();
        let unreserved = free.saturating_sub(reserved);
        if unreserved < bytes || free < reserved {
            self.refused.fetch_max(bytes, Ordering::Relaxed);
            self.fill(false, free);
            return false;
        }
        let until_asked = unreserved / ASK_AGAIN_PARTS;
        self.unasked.store(i64::try_from(until_asked).unwrap_or(i64::MAX), Ordering::Relaxed);
        if self.write_failed.load(Ordering::Relaxed) {
            if self.is_full() {
                self.state.store(PROBING, Ordering::Relaxed);
            }
        } else if self.is_full() && unreserved < self.wanted(total.saturating_sub(reserved)) {
            self.state.store(TIGHT, Ordering::Relaxed);
        } else {
            self.refused.store(0, Ordering::Relaxed);
            if self.state.swap(ROOMY, Ordering::Relaxed) != ROOMY {
                self.say_roomy();
            }
        }
        true
    }

    /// Tries what clients would, where the file system says that there is room.
    fn probe(&self) {
        let (unreserved, wanted) = self.unreserved_and_wanted();
        if unreserved < wanted {
            return;
        }
        match self.write_probe(wanted) {
            Ok(()) => self.written(),
            Err(error) => {
                tracing::debug!(directory = %self.path.display(), %error, "nothing can be written yet");
            }
        }
    }

    fn write_probe(&self, bytes: u64) -> io::Result<()> {
        let path = self.path.join(PROBE);
        let file = self.disk.open(&path, Open::Replace)?;
        self.disk.remove_file(&path)?;
        self.disk.allocate(&file, 0, bytes)?;
        self.disk.write_all_at(&file, &PROBE_BLOCK, 0)
    }

    /// How much is free beside the reserve, and how much is to be.
    fn unreserved_and_wanted(&self) -> (u64, u64) {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let (free, total) = self.space();
        (free.saturating_sub(reserved), self.wanted(total.saturating_sub(reserved)))
    }

    /// How much must be free beside the reserve until the disk does not count as full any more.
    fn wanted(&self, unreserved_total: u64) -> u64 {
        let margin = MARGIN_BYTES_MAX.min(unreserved_total / MARGIN_PARTS);
        let wanted = self.refused.load(Ordering::Relaxed).saturating_add(margin);
        wanted.min(unreserved_total / WANTED_PARTS)
    }

    fn fill(&self, write_failed: bool, free: u64) {
        self.write_failed.store(write_failed, Ordering::Relaxed);
        if self.state.swap(FULL, Ordering::Relaxed) == ROOMY {
            let reserved = self.reserved.load(Ordering::Relaxed);
            tracing::error!(
                directory = %self.path.display(),
                free,
                reserved,
                "the disk is full: clients' records are refused until there is room again; delete topics or records, \
                 add room, or lower log.dir.reserved.bytes"
            );
        }
    }

    fn say_roomy(&self) {
        tracing::info!(directory = %self.path.display(), "the disk has room again: records are accepted");
    }

    /// A write went through, which may have been smaller than what did not fit.
    pub(crate) fn written(&self) {
        if self.state.load(Ordering::Relaxed) != PROBING {
            return;
        }
        let (unreserved, wanted) = self.unreserved_and_wanted();
        let next = if unreserved < wanted { TIGHT } else { ROOMY };
        let probed =
            self.state.compare_exchange(PROBING, next, Ordering::Relaxed, Ordering::Relaxed);
        if probed.is_err() {
            return;
        }
        self.write_failed.store(false, Ordering::Relaxed);
        if next == ROOMY {
            self.refused.store(0, Ordering::Relaxed);
            self.say_roomy();
        }
    }

    /// What a failed write of so many bytes means, once nothing of it is left: that the disk is full is no fault of the disk.
    pub(crate) fn judge(&self, error: StorageError, bytes: u64) -> StorageError {
        if let StorageError::Io { source, .. } = &error
            && is_full(source)
        {
            self.refused.fetch_max(bytes, Ordering::Relaxed);
            let free = self.disk.space(&self.path).map_or(0, |space| space.usable);
            self.fill(true, free);
            return self.full();
        }
        error
    }

    fn full(&self) -> StorageError {
        StorageError::Full { directory: self.path.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use ottla_env::FaultyDisk;

    use super::*;

    fn room(disk: &Arc<FaultyDisk>, reserved: u64) -> Room {
        Room::new(Arc::clone(disk) as _, Path::new("/").to_owned(), reserved)
    }

    /// Of which nothing is reserved, and on which a write of so many bytes has just failed.
    fn overfull(disk: &Arc<FaultyDisk>, bytes: u64) -> (Room, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(Arc::clone(disk) as _, directory.path().to_owned(), 0);
        assert!(matches!(room.judge(no_space(), bytes), StorageError::Full { .. }));
        (room, directory)
    }

    fn no_space() -> StorageError {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        StorageError::Io { action: "append to", path: PathBuf::new(), source }
    }

    #[test]
    fn the_file_system_is_asked_again_only_after_a_part_of_what_was_free() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(1_400));
        let room = room(&disk, 1_000);
        room.claim(10).unwrap();
        // A quarter of 400 is not used up yet, so that nobody notices.
        disk.set_free(Some(0));
        room.claim(90).unwrap();
        assert!(matches!(room.claim(20), Err(StorageError::Full { .. })));
        assert!(room.is_full());
    }

    #[test]
    fn what_would_touch_the_reserve_is_refused_until_there_is_more_or_less_is_reserved() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(1_400));
        let room = room(&disk, 1_000);
        room.claim(400).unwrap();
        assert!(room.claim(401).is_err());
        assert!(room.claim(1).is_err(), "nobody asks while it is full");
        room.look();
        room.claim(1).unwrap();
        disk.set_free(Some(999));
        room.look();
        assert!(room.is_full());
        room.set_reserved(500);
        room.claim(1).unwrap();
    }

    #[test]
    fn a_disk_stays_full_until_there_is_room_for_what_did_not_fit_and_some_more() {
        let disk = Arc::new(FaultyDisk::default());
        let margin = MARGIN_BYTES_MAX.min(disk.space(Path::new("/")).unwrap().total / 200);
        let (reserved, large) = (1_000, margin);
        disk.set_free(Some(reserved + large - 1));
        let room = room(&disk, reserved);
        assert!(room.claim(large).is_err());
        for _ in 0..3 {
            room.look();
            assert!(room.is_full(), "nothing has changed");
            room.claim(1).unwrap();
            assert!(room.claim(large).is_err());
            assert!(room.claim(1).is_err(), "nobody asks until somebody has looked");
        }
        disk.set_free(Some(reserved + large));
        room.look();
        room.claim(1).unwrap();
        assert!(room.is_full(), "the next one would not fit again");
        disk.set_free(Some(reserved + large + MARGIN_BYTES_MAX));
        room.look();
        assert!(!room.is_full());
        room.claim(large).unwrap();
    }

    #[test]
    fn what_no_disk_of_this_size_has_room_for_is_not_waited_for() {
        let disk = Arc::new(FaultyDisk::default());
        let total = disk.space(Path::new("/")).unwrap().total;
        disk.set_free(Some(total / 2));
        let room = room(&disk, 1_000);
        assert!(room.claim(total).is_err());
        assert!(room.is_full());
        room.look();
        assert!(!room.is_full());
    }

    #[test]
    fn what_is_allocated_ahead_takes_nothing_of_the_reserve_and_is_left_out_where_room_is_short() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(1 << 20));
        let room = room(&disk, 1 << 19);
        room.claim(1).unwrap();
        let file = tempfile::tempfile().unwrap();
        let allocated = || file.metadata().unwrap().blocks() * 512;
        room.allocate(&file, (1 << 18) + 1).unwrap();
        assert_eq!((allocated(), room.is_full()), (0, false));
        room.allocate(&file, 1 << 18).unwrap();
        assert_eq!(allocated(), 1 << 18);
        disk.set_free(Some(1 << 19));
        assert!(room.claim(1).is_err(), "what was allocated is not free any more");
    }

    #[test]
    fn after_a_write_that_failed_only_a_write_tells_that_there_is_room() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(1 << 30));
        disk.fail_writes(Some(io::ErrorKind::QuotaExceeded));
        let (room, _directory) = overfull(&disk, 1);
        assert!(room.claim(1).is_err());
        for _ in 0..2 {
            room.look();
            room.claim(1).unwrap();
            assert!(room.is_full(), "it may be tried, and nothing says that it will go well");
            room.judge(no_space(), 1);
            assert!(room.claim(1).is_err(), "the quota is still used up");
        }
        room.look();
        room.claim(1).unwrap();
        room.written();
        assert!(!room.is_full());
    }

    #[test]
    fn where_nobody_writes_any_more_the_housekeeper_finds_out_that_there_is_room() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(1 << 30));
        disk.fail_writes(Some(io::ErrorKind::QuotaExceeded));
        let (room, directory) = overfull(&disk, 1);
        room.look();
        assert!(room.is_full());
        disk.fail_writes(None);
        room.look();
        assert!(!room.is_full());
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_small_write_that_goes_through_is_no_room_for_what_did_not_fit() {
        let disk = Arc::new(FaultyDisk::default());
        disk.set_free(Some(900));
        let (room, _directory) = overfull(&disk, 1_000);
        room.look();
        room.claim(10).unwrap();
        room.written();
        for _ in 0..2 {
            assert!(room.is_full());
            room.claim(10).unwrap();
            room.look();
        }
        disk.set_free(Some(1_000 + MARGIN_BYTES_MAX));
        room.look();
        assert!(!room.is_full());
    }
}
