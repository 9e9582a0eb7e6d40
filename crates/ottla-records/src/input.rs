//! Where the bytes of records come from while they are only looked over: memory, or a decompressor. Pure.
//!
//! Validation walks a batch once and keeps nothing, so it needs three operations only, and the
//! same walk serves plain, compressed and to-be-recompressed batches.

use crate::compression::{Chunk, Compression, Decompressor, Recompressor};
use crate::error::BatchError;
use crate::record::RECORDS_LEN_MAX;

/// Bytes that a batch may decompress to.
pub(crate) const DECOMPRESSED_MAX: u64 = RECORDS_LEN_MAX as u64;

const TOO_SHORT: BatchError = BatchError::Record("the batch ends within a record");

/// A forward-only run of bytes.
pub(crate) trait Input {
    fn byte(&mut self) -> Result<u8, BatchError>;

    /// Some of the next `max` bytes, at least one of them; `max` is not 0.
    fn chunk(&mut self, max: usize) -> Result<&[u8], BatchError>;

    /// Bytes consumed so far.
    fn position(&self) -> u64;

    /// Whether nothing is left.
    fn at_end(&mut self) -> Result<bool, BatchError>;

    /// Shows the next `count` bytes, piece by piece.
    #[inline(always)]
    fn pieces(&mut self, mut count: usize, mut show: impl FnMut(&[u8])) -> Result<(), BatchError> {
        while count > 0 {
            let piece = self.chunk(count)?;
            show(piece);
            count -= piece.len();
        }
        Ok(())
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        self.pieces(count, |_| ())
    }
}

/// Records that lie in memory as they are.
pub(crate) struct Plain<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline(always)]
    fn end_of(&self, count: usize) -> Result<usize, BatchError> {
        let end = self.at.saturating_add(count);
        if end <= self.bytes.len() { Ok(end) } else { Err(TOO_SHORT) }
    }
}

impl Input for Plain<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = self.bytes.get(self.at).ok_or(TOO_SHORT)?;
        self.at += 1;
        Ok(*byte)
    }

    fn chunk(&mut self, max: usize) -> Result<&[u8], BatchError> {
        let start = self.at;
        self.at = self.end_of(max)?;
        Ok(self.bytes.get(start..self.at).expect("end_of stays within the bytes"))
    }

    #[inline(always)]
    fn position(&self) -> u64 {
        wide(self.at)
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.at == self.bytes.len())
    }

    #[inline(always)]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        self.at = self.end_of(count)?;
        Ok(())
    }
}

/// Records that are decompressed chunk by chunk; memory stays at one chunk however much comes out.
pub(crate) struct Compressed<'a> {
    decompressor: Decompressor<'a>,
    chunk: Chunk,
    /// Where the chunk begins in the decompressed run, and how much of it has been read.
    chunk_start: u64,
    chunk_read: usize,
    /// A few kilobytes can hold gigabytes of zeros: there is an end to what is decompressed.
    limit: u64,
}

impl<'a> Compressed<'a> {
    pub(crate) fn new(
        compression: Compression,
        body: &'a [u8],
        limit: u64,
    ) -> Result<Self, BatchError> {
        Ok(Self {
            decompressor: Decompressor::new(compression, body)?,
            chunk: Chunk::default(),
            chunk_start: 0,
            chunk_read: 0,
            limit,
        })
    }

    /// Replaces a chunk that has been read; false at the end.
    #[cold]
    fn refill(&mut self) -> Result<bool, BatchError> {
        self.chunk_start += wide(self.chunk.bytes().len());
        self.chunk_read = 0;
        let more = self.decompressor.fill(&mut self.chunk)?;
        if self.chunk_start + wide(self.chunk.bytes().len()) > self.limit {
            return Err(BatchError::TooMuchDecompressed { limit: self.limit });
        }
        Ok(more)
    }
}

impl Input for Compressed<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, BatchError> {
        loop {
            if let Some(byte) = self.chunk.bytes().get(self.chunk_read) {
                self.chunk_read += 1;
                return Ok(*byte);
            }
            if !self.refill()? {
                return Err(TOO_SHORT);
            }
        }
    }

    fn chunk(&mut self, max: usize) -> Result<&[u8], BatchError> {
        while self.chunk_read == self.chunk.bytes().len() {
            if !self.refill()? {
                return Err(TOO_SHORT);
            }
        }
        let start = self.chunk_read;
        let end = self.chunk.bytes().len().min(start.saturating_add(max));
        self.chunk_read = end;
        Ok(self.chunk.bytes().get(start..end).expect("start <= end <= length of the chunk"))
    }

    #[inline(always)]
    fn position(&self) -> u64 {
        self.chunk_start + wide(self.chunk_read)
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        while self.chunk_read == self.chunk.bytes().len() {
            if !self.refill()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Hands all that is read on to a compressor, so that looking over a batch also recompresses it.
pub(crate) struct Tee<'a, I> {
    pub(crate) input: I,
    pub(crate) recompressor: &'a mut Recompressor,
}

impl<I: Input> Input for Tee<'_, I> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = self.input.byte()?;
        self.recompressor.write(&[byte]);
        Ok(byte)
    }

    fn chunk(&mut self, max: usize) -> Result<&[u8], BatchError> {
        let chunk = self.input.chunk(max)?;
        self.recompressor.write(chunk);
        Ok(chunk)
    }

    fn position(&self) -> u64 {
        self.input.position()
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        self.input.at_end()
    }
}

#[inline(always)]
fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("lengths fit in 64 bits")
}
