//! Walks the headers of the batches in a segment file, from one batch to the next. Shell: reads.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ottla_env::Disk;
use ottla_records::{BatchHeader, HEADER_LEN};

use crate::audit::Damage;
use crate::error::{Context, StorageError};

/// One read brings in an index interval of small batches.
pub(crate) const READ_BYTES: usize = 8 * 1024;

/// A batch in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Found {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size_in_bytes() as u64
    }
}

/// An iteration over batch headers between two byte positions, the first of which is where a batch begins.
pub(crate) struct HeaderScan<'a> {
    disk: &'a dyn Disk,
    file: &'a File,
    path: &'a Path,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_position: u64,
    /// How much the next read asks for: where batches are large, no more than a header.
    read_bytes: usize,
    damage: Option<Arc<[Damage]>>,
}

impl<'a> HeaderScan<'a> {
    pub(crate) fn new(
        disk: &'a dyn Disk,
        file: &'a File,
        path: &'a Path,
        position: u64,
        end: u64,
    ) -> Self {
        Self {
            disk,
            file,
            path,
            position,
            end,
            buffer: Vec::new(),
            buffer_position: position,
            read_bytes: READ_BYTES,
            damage: None,
        }
    }

    /// For who looks at one batch only.
    pub(crate) fn one_header(self) -> Self {
        Self { read_bytes: HEADER_LEN, ..self }
    }

    /// Passes over what is known to be damaged.
    pub(crate) fn around(self, damage: Option<Arc<[Damage]>>) -> Self {
        Self { damage, ..self }
    }

    fn pass_damage(&mut self) {
        for damage in self.damage.iter().flat_map(|damage| damage.iter()) {
            if (damage.position..damage.end_position).contains(&self.position) {
                self.position = damage.end_position;
            }
        }
    }

    /// The next batch, or an error where there is something else; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, StorageError> {
        self.pass_damage();
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let header = match self.buffered() {
            Some(bytes) => BatchHeader::parse(bytes),
            None => {
                self.fill().context("read", self.path)?;
                BatchHeader::parse(&self.buffer)
            }
        };
        let header = header.map_err(|error| StorageError::corrupt(self.path, position, error))?;
        let found = Found { position, header };
        if found.end() > self.end {
            let what = format!("a batch of {} bytes is cut off", header.size_in_bytes());
            return Err(StorageError::corrupt(self.path, position, what));
        }
        if header.last_offset_delta < 0 {
            return Err(StorageError::corrupt(
                self.path,
                position,
                "a batch ends before it begins",
            ));
        }
        self.position = found.end();
        let is_large = header.size_in_bytes() > READ_BYTES;
        self.read_bytes = if is_large { HEADER_LEN } else { READ_BYTES };
        Ok(Some(found))
    }

    /// The first batch that ends at or after an offset.
    pub(crate) fn find(&mut self, offset: i64) -> Result<Option<Found>, StorageError> {
        while let Some(found) = self.next()? {
            if found.header.last_offset() >= offset {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn buffered(&self) -> Option<&[u8]> {
        let at = usize::try_from(self.position - self.buffer_position).ok()?;
        self.buffer.get(at..).filter(|bytes| bytes.len() >= HEADER_LEN)
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = left.min(self.read_bytes);
        self.buffer.resize(wanted, 0);
        let read = self.disk.read_at(self.file, &mut self.buffer, self.position)?;
        self.buffer.truncate(read);
        self.buffer_position = self.position;
        Ok(())
    }
}
