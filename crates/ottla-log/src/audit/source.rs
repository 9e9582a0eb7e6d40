//! Where an audit reads from, and the piece of it that is in memory.

use std::fs::File;
use std::io;

use ottla_env::Disk;

/// Bytes by position.
pub(crate) trait Source {
    /// Fills as much of `out` as there is; less than all of it only at the end.
    fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize>;

    /// So many bytes were read of what belongs to it.
    fn was_read_beside(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }
}

/// A file as the page cache has it.
#[derive(Debug)]
pub(crate) struct FileSource<'a>(pub(crate) &'a dyn Disk, pub(crate) &'a File);

impl Source for FileSource<'_> {
    fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(self.1, out, position)
    }
}

impl Source for &[u8] {
    fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(position).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..len), rest.get(..len)) {
            out.copy_from_slice(rest);
        }
        Ok(len)
    }
}

/// A piece of a source in memory.
pub(crate) struct Window<'a> {
    source: &'a mut dyn Source,
    end: u64,
    bytes: Vec<u8>,
    start: u64,
    apart: Vec<u8>,
}

impl<'a> Window<'a> {
    /// How much is read at once.
    pub(crate) const STEP: usize = 256 * 1024;

    pub(crate) const fn new(source: &'a mut dyn Source, end: u64) -> Self {
        Self { source, end, bytes: Vec::new(), start: 0, apart: Vec::new() }
    }

    /// The bytes at a position; fewer only at the end. Later positions are read ahead.
    pub(crate) fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        self.get_ahead(position, len, Self::STEP)
    }

    /// Like [`Window::get`], but this much is read at once.
    pub(crate) fn get_ahead(
        &mut self,
        position: u64,
        len: usize,
        read_ahead: usize,
    ) -> io::Result<&[u8]> {
        if self.held(position, len).is_none() {
            let wanted = self.left(position).min(len.max(read_ahead));
            self.bytes.resize(wanted, 0);
            let read = self.source.read_at(position, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.start = position;
            // One large batch must not keep its memory for the rest of the file.
            if wanted <= Self::STEP && self.bytes.capacity() > 4 * Self::STEP {
                self.bytes.shrink_to(Self::STEP);
            }
        }
        let at = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        Ok(rest.get(..len).unwrap_or(rest))
    }

    /// Like [`Window::get`], for a look ahead after which the reading goes on before it.
    pub(crate) fn peek(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        if self.held(position, len).is_some() {
            return self.get(position, len);
        }
        self.apart.resize(self.left(position).min(len), 0);
        let read = self.source.read_at(position, &mut self.apart)?;
        self.apart.truncate(read);
        Ok(&self.apart)
    }

    pub(crate) fn left(&self, position: u64) -> usize {
        usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX)
    }

    fn held(&self, position: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let wanted = len.min(self.left(position));
        (wanted > 0 && self.bytes.len() >= at.checked_add(wanted)?).then_some(at)
    }
}
