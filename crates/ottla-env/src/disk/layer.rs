//! A disk above another one, for whoever is about a few of its calls only. Pure but for the disk below.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;

use super::{DirectoryEntry, Disk, Open, Status};
use crate::direct::DirectFile;
use crate::sys::DiskSpace;

/// A [`Disk`] that passes on every call which it does not handle itself. All reads come by: none goes past the page cache,
/// unless the layer has it so.
#[expect(clippy::missing_errors_doc, reason = "told at [`Disk`]")]
pub trait DiskLayer: Debug + Send + Sync {
    fn below(&self) -> &dyn Disk;

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        self.below().open(path, how)
    }

    fn open_direct(&self, _path: &Path) -> io::Result<Option<DirectFile>> {
        Ok(None)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        self.below().status(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.below().list(directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.below().create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.below().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.below().remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.below().remove_directory(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.below().read_at(file, buffer, position)
    }

    fn drop_cached(&self, file: &File) -> io::Result<()> {
        self.below().drop_cached(file)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.below().write_at(file, buffers, position)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.below().set_len(file, len)
    }

    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()> {
        self.below().allocate(file, position, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.below().sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.below().sync_directory(path)
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        self.below().sync_file_system(path, within)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.below().space(path)
    }
}

impl<L: DiskLayer> Disk for L {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        DiskLayer::open(self, path, how)
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<DirectFile>> {
        DiskLayer::open_direct(self, path)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        DiskLayer::status(self, path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        DiskLayer::list(self, directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        DiskLayer::create_directory(self, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        DiskLayer::rename(self, from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        DiskLayer::remove_file(self, path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        DiskLayer::remove_directory(self, path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        DiskLayer::read_at(self, file, buffer, position)
    }

    fn drop_cached(&self, file: &File) -> io::Result<()> {
        DiskLayer::drop_cached(self, file)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        DiskLayer::write_at(self, file, buffers, position)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        DiskLayer::set_len(self, file, len)
    }

    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()> {
        DiskLayer::allocate(self, file, position, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        DiskLayer::sync_data(self, file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        DiskLayer::sync_directory(self, path)
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        DiskLayer::sync_file_system(self, path, within)
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        DiskLayer::space(self, path)
    }
}
