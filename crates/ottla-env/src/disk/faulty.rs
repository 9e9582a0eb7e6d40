//! The operating system's disk with faults where a test wants them. Shell.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Disk, DiskLayer, Open, OsDisk};
use crate::sys::{self, DiskSpace};

/// A disk that does what the system's does until it is told otherwise.
#[derive(Debug, Default)]
pub struct FaultyDisk {
    faults: Mutex<Faults>,
    /// Told when syncs begin or cease to wait.
    stalled: Condvar,
}

/// Syncs wait until this is dropped.
#[derive(Debug)]
pub struct Stall<'a>(&'a FaultyDisk);

impl Stall<'_> {
    /// Blocks until a sync waits; returns whether one does within this time.
    #[must_use]
    pub fn holds_a_sync_within(&self, limit: Duration) -> bool {
        let mut faults = self.0.faults.lock();
        let is_idle = |faults: &mut Faults| faults.syncs_waiting == 0;
        !self.0.stalled.wait_while_for(&mut faults, is_idle, limit).timed_out()
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.faults.lock().syncs_wait = false;
        self.0.stalled.notify_all();
    }
}

#[derive(Debug, Default)]
struct Faults {
    syncs_fail_under: Option<PathBuf>,
    next_sync_fails_of: Option<PathBuf>,
    free: Option<u64>,
    writes_fail_with: Option<io::ErrorKind>,
    flipped: Option<u64>,
    changes_left: Option<u64>,
    has_refused: bool,
    syncs_wait: bool,
    syncs_waiting: usize,
}

impl FaultyDisk {
    /// Lets all syncs of what is below this path fail from now on.
    pub fn fail_syncs_under(&self, path: &Path) {
        self.faults.lock().syncs_fail_under = Some(path.to_owned());
    }

    /// Lets the next sync of this file or directory fail, and none after it.
    pub fn fail_next_sync_of(&self, path: &Path) {
        self.faults.lock().next_sync_fails_of = Some(path.to_owned());
    }

    /// Lets all syncs wait until what this returns is dropped, as a disk that stands still does; writes go on, which the
    /// page cache takes.
    pub fn stall_syncs(&self) -> Stall<'_> {
        self.faults.lock().syncs_wait = true;
        Stall(self)
    }

    /// Says that so many bytes are free; `None` says what is.
    pub fn set_free(&self, bytes: Option<u64>) {
        self.faults.lock().free = bytes;
    }

    /// Lets all writes fail before they have written anything; `None` lets them succeed.
    pub fn fail_writes(&self, with: Option<io::ErrorKind>) {
        self.faults.lock().writes_fail_with = with;
    }

    /// Whatever is read from the byte at this position of any file comes with a bit flipped.
    pub fn flip_reads_at(&self, position: Option<u64>) {
        self.faults.lock().flipped = position;
    }

    /// Lets so many more changes of the disk succeed, syncs included, and none after them; `None` lets all succeed.
    pub fn stop_after(&self, changes: Option<u64>) {
        let mut faults = self.faults.lock();
        (faults.changes_left, faults.has_refused) = (changes, false);
    }

    /// Whether a change was asked for that did not succeed any more.
    pub fn has_stopped(&self) -> bool {
        self.faults.lock().has_refused
    }

    fn change(&self) -> io::Result<()> {
        let mut faults = self.faults.lock();
        match &mut faults.changes_left {
            None => Ok(()),
            Some(0) => {
                faults.has_refused = true;
                Err(io::Error::other("injected: the disk is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn check_sync(&self, path: &Path) -> io::Result<()> {
        let mut faults = self.faults.lock();
        faults.syncs_waiting += 1;
        self.stalled.notify_all();
        self.stalled.wait_while(&mut faults, |faults| faults.syncs_wait);
        faults.syncs_waiting -= 1;
        let fails_this_time = faults.next_sync_fails_of.take_if(|it| it == path).is_some();
        let fails = faults.syncs_fail_under.as_ref().is_some_and(|it| path.starts_with(it));
        if fails || fails_this_time {
            Err(io::Error::other("injected: the disk is broken"))
        } else {
            Ok(())
        }
    }
}

impl DiskLayer for FaultyDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        if matches!(how, Open::Create | Open::Replace) {
            self.change()?;
        }
        OsDisk.open(path, how)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.remove_directory(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = OsDisk.read_at(file, buffer, position)?;
        let flipped = self.faults.lock().flipped.and_then(|at| at.checked_sub(position));
        let flipped = flipped.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < read);
        if let Some(byte) = flipped.and_then(|at| buffer.get_mut(at)) {
            *byte ^= 1;
        }
        Ok(read)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.change()?;
        match self.faults.lock().writes_fail_with {
            Some(kind) => Err(kind.into()),
            None => OsDisk.write_at(file, buffers, position),
        }
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.change()?;
        OsDisk.set_len(file, len)
    }

    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()> {
        self.change()?;
        OsDisk.allocate(file, position, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.change()?;
        self.check_sync(&sys::path_of(file)?)?;
        OsDisk.sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        self.check_sync(path)?;
        OsDisk.sync_directory(path)
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        self.change()?;
        self.check_sync(path)?;
        OsDisk.sync_file_system(path, within)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let space = OsDisk.space(path)?;
        Ok(DiskSpace { usable: self.faults.lock().free.unwrap_or(space.usable), ..space })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn syncs_wait_while_the_disk_stands_still_and_writes_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let faulty = FaultyDisk::default();
        let disk: &dyn Disk = &faulty;
        let stall = faulty.stall_syncs();
        let file = disk.write(&directory.path().join("file"), b"1").unwrap();
        thread::scope(|scope| {
            let sync = scope.spawn(|| disk.sync_data(&file).unwrap());
            assert!(stall.holds_a_sync_within(Duration::from_secs(20)));
            assert!(!sync.is_finished());
            drop(stall);
        });
        disk.sync_directory(directory.path()).unwrap();
    }

    #[test]
    fn syncs_fail_under_one_path_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let faulty = FaultyDisk::default();
        let disk: &dyn Disk = &faulty;
        let [broken, sound] = ["broken", "sound"].map(|name| directory.path().join(name));
        let file_in = |path: &Path| {
            disk.create_directory(path).unwrap();
            disk.write(&path.join("file"), b"1").unwrap()
        };
        let files = [file_in(&broken), file_in(&sound)];
        faulty.fail_syncs_under(&broken);
        assert!(disk.sync_data(&files[0]).is_err() && disk.sync_directory(&broken).is_err());
        disk.sync_data(&files[1]).unwrap();
        disk.sync_directory(&sound).unwrap();
        faulty.fail_next_sync_of(&sound);
        disk.sync_data(&files[1]).unwrap();
        assert!(disk.sync_directory(&sound).is_err());
        disk.sync_directory(&sound).unwrap();
    }
}
