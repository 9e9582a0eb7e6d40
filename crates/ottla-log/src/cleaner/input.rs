//! Reads the batches of a segment one after the other, a large piece of the file at a time, and trusts none of them
//! that does not fit its checksum. Shell.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::Offset;
use ottla_records::{BatchError, BatchHeader, HEADER_LEN, RawBatch, ValidBatch};

use crate::error::{Context, StorageError};
use crate::index::Floor;
use crate::log::Source;
use crate::names;
use crate::policy::roll;
use crate::segment::Segment;

pub(super) struct Input {
    segment: Arc<Segment>,
    file: Arc<File>,
    path: PathBuf,
    /// Where `piece` begins.
    position: u64,
    end: u64,
    piece: Bytes,
    buffer_bytes: usize,
}

/// A batch, and how many bytes were read from the file to get it.
pub(super) struct Read {
    pub(super) batch: ValidBatch,
    pub(super) position: u64,
    pub(super) bytes_read: usize,
}

impl Input {
    /// Begins with the first batch of a segment.
    pub(super) fn whole(source: &Source, buffer_bytes: usize) -> Result<Self, StorageError> {
        let (file, path) = (source.segment.log_file()?, source.segment.path(names::LOG));
        let (segment, piece) = (Arc::clone(&source.segment), Bytes::new());
        Ok(Self { segment, file, path, position: 0, end: source.size, piece, buffer_bytes })
    }

    /// Begins with the batch that holds an offset, or the first one after it.
    pub(super) fn from(
        source: &Source,
        offset: Offset,
        buffer_bytes: usize,
    ) -> Result<Self, StorageError> {
        let mut input = Self::whole(source, buffer_bytes)?;
        if let Some(relative_offset) = roll::relative(source.segment.base_offset, offset.0) {
            let floor = Floor::InFile(source.offset_entries);
            let entry = source.segment.offset_floor(floor, relative_offset)?;
            let from = entry.map_or(0, |entry| u64::from(entry.position));
            let found = source.segment.find(&input.file, from, source.size, offset.0)?;
            input.position = found.map_or(source.size, |found| found.position);
        }
        Ok(input)
    }

    pub(super) fn next(&mut self) -> Result<Option<Read>, StorageError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let first = self.want(HEADER_LEN)?;
        let header = BatchHeader::parse(&self.piece).map_err(|error| self.corrupt(error))?;
        let size = header.size_in_bytes();
        let second = self.want(size)?;
        if self.piece.len() < size {
            return Err(self.corrupt("a batch is cut off"));
        }
        let parsed = RawBatch::parse(self.piece.slice(..size)).and_then(RawBatch::verify_crc);
        let batch = parsed.map_err(|error| self.corrupt(error))?;
        if batch.header().last_offset_delta < 0 {
            return Err(self.corrupt("a batch ends before it begins"));
        }
        let position = self.position;
        self.position += size as u64;
        self.piece = self.piece.slice(size..);
        Ok(Some(Read { batch, position, bytes_read: first + second }))
    }

    /// Brings so many bytes into memory, if the file has them. Returns how many were read for that.
    fn want(&mut self, len: usize) -> Result<usize, StorageError> {
        if self.piece.len() >= len {
            return Ok(0);
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = self.buffer_bytes.max(len).min(left);
        let read = self.segment.disk().read_up_to(&self.file, self.position, wanted);
        self.piece = read.context("read", &self.path)?.into();
        Ok(self.piece.len())
    }

    fn corrupt(&self, what: impl ToString) -> StorageError {
        StorageError::corrupt(&self.path, self.position, what)
    }

    /// The records of a batch make no sense, although its checksum is right; or there is no room for what stays of it.
    pub(super) fn unusable_at(&self, position: u64, error: &BatchError) -> StorageError {
        if let BatchError::TooMuchRetained { .. } = error {
            return StorageError::TooLarge { what: "what compaction keeps of a batch" };
        }
        StorageError::corrupt(&self.path, position, error)
    }
}
