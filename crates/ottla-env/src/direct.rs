//! Reading a file past the page cache: what is there stays, and nothing is added. Shell.
//!
//! The bytes come from the disk itself, so this sees what the page cache hides. Where a file system cannot do it
//! (`O_DIRECT`), pages that were not cached before are dropped again after they were read: all of them but those whose
//! read, which asking for them begins, is over before the answer.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::sys;

/// What every disk's block size divides, and the page size of most machines.
const BLOCK: usize = 4096;
/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A file that is read without a trace.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    is_direct: bool,
    buffer: Vec<u8>,
    /// Which bytes of the file the buffer holds.
    held: Range<u64>,
}

impl DirectFile {
    /// Opens a file that exists.
    ///
    /// # Errors
    /// `NotFound`, or what else the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        match sys::open_direct(path) {
            Ok(file) => Ok(Self::new(file, true)),
            Err(error) if is_unsupported(&error) => Self::open_cached(path),
            Err(error) => Err(error),
        }
    }

    /// For file systems that read through the page cache only.
    fn open_cached(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // No more than what is asked for is brought in.
        sys::advise_random(&file)?;
        Ok(Self::new(file, false))
    }

    fn new(file: File, is_direct: bool) -> Self {
        Self { file, is_direct, buffer: Vec::new(), held: 0..0 }
    }

    /// Whether the page cache is passed by.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Fills as much of `out` as the file has from `position` on; less than all of it only at the file's end.
    ///
    /// # Errors
    /// What the system says; a part of `out` may be filled then.
    pub fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = position + filled as u64;
            if !self.held.contains(&at) {
                self.fill(at)?;
            }
            let skip = usize::try_from(at - self.held.start).unwrap_or(usize::MAX);
            let held = usize::try_from(self.held.end - self.held.start).unwrap_or(0);
            let start = self.aligned();
            let bytes = self.buffer.get(start + skip.min(held)..start + held).unwrap_or_default();
            let len = bytes.len().min(rest.len());
            if len == 0 {
                break;
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
            filled += len;
        }
        Ok(filled)
    }

    /// Where the buffer's first aligned byte is.
    fn aligned(&self) -> usize {
        self.buffer.as_ptr().align_offset(BLOCK).min(BLOCK)
    }

    fn fill(&mut self, position: u64) -> io::Result<()> {
        let start = position - position % BLOCK as u64;
        self.buffer.resize(READ_BYTES + BLOCK, 0);
        self.held = start..start;
        let cached = if self.is_direct { Vec::new() } else { cached_pages(&self.file, start) };
        let aligned = self.aligned();
        let room = self.buffer.get_mut(aligned..aligned + READ_BYTES).unwrap_or_default();
        let read = loop {
            match self.file.read_at(room, start) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.held = start..start + read as u64;
        if !self.is_direct {
            drop_others(&self.file, start, read, &cached)?;
        }
        Ok(())
    }
}

/// Which of the pages of the next read are in the page cache.
fn cached_pages(file: &File, start: u64) -> Vec<bool> {
    let page = |number: usize| sys::is_cached(file, start + (number * BLOCK) as u64, 1);
    (0..READ_BYTES / BLOCK).map(page).collect()
}

/// Drops the pages again that a read brought in.
fn drop_others(file: &File, start: u64, read: usize, cached: &[bool]) -> io::Result<()> {
    // Where nobody can tell, what was there is more likely to be dropped than to be kept: leave all of it.
    if cached.iter().all(|cached| !cached) && !sys::is_cached(file, start, 1) {
        return Ok(());
    }
    let pages = read.div_ceil(BLOCK);
    for (number, cached) in cached.iter().enumerate().take(pages) {
        if !cached {
            sys::drop_cached(file, start + (number * BLOCK) as u64, BLOCK as u64)?;
        }
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LEN: usize = 3 * READ_BYTES + 1234;

    fn file(directory: &tempfile::TempDir) -> (std::path::PathBuf, Vec<u8>) {
        let path = directory.path().join("file");
        let bytes: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        std::fs::write(&path, &bytes).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        (path, bytes)
    }

    /// On a disk: in memory nothing can be dropped.
    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    /// How many bytes of the file are in the page cache, as `fincore` of util-linux tells.
    fn resident(path: &Path) -> u64 {
        let mut command = Command::new("fincore");
        let output =
            command.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output();
        let text =
            String::from_utf8(output.expect("fincore is part of util-linux").stdout).unwrap();
        text.trim().parse().unwrap()
    }

    fn read_in_odd_pieces(file: &mut DirectFile) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), [0; 5003]);
        loop {
            let read = file.read_at(all.len() as u64, &mut piece).unwrap();
            all.extend_from_slice(&piece[..read]);
            if read < piece.len() {
                return all;
            }
        }
    }

    #[test]
    fn what_is_cached_stays_and_what_is_not_stays_out() {
        let directory = on_disk();
        let (path, bytes) = file(&directory);
        let plain = File::open(&path).unwrap();
        type Opened = fn(&Path) -> io::Result<DirectFile>;
        for open in [DirectFile::open as Opened, DirectFile::open_cached as Opened] {
            sys::drop_cached(&plain, 0, LEN as u64).unwrap();
            assert_eq!(resident(&path), 0, "nothing else holds the file");
            let mut direct = open(&path).unwrap();
            // Through the page cache some pages are taken for cached while they come in: by far not most of them.
            let left = if direct.is_direct() { 0 } else { LEN as u64 / 2 };
            assert_eq!(read_in_odd_pieces(&mut direct), bytes);
            let added = resident(&path);
            assert!(added <= left, "direct: {}, {added} bytes stayed", direct.is_direct());
            sys::drop_cached(&plain, 0, LEN as u64).unwrap();
            // Two pages in the middle, as a reader left them.
            sys::advise_random(&plain).unwrap();
            sys::read_full_at(&plain, &mut [0; 2 * BLOCK], 40 * BLOCK as u64).unwrap();
            let before = resident(&path);
            assert!(before >= 2 * BLOCK as u64, "{before}");
            assert_eq!(read_in_odd_pieces(&mut open(&path).unwrap()), bytes);
            let after = resident(&path);
            let kept = before..=before + left;
            assert!(kept.contains(&after), "direct: {}, {before} → {after}", direct.is_direct());
        }
    }

    #[test]
    fn a_read_beyond_the_end_is_short() {
        let directory = on_disk();
        let (path, bytes) = file(&directory);
        let mut direct = DirectFile::open(&path).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(direct.read_at(LEN as u64 - 10, &mut buffer).unwrap(), 10);
        assert_eq!(buffer[..10], bytes[LEN - 10..]);
        assert_eq!(direct.read_at(LEN as u64 + 10, &mut buffer).unwrap(), 0);
    }
}
