//! The compression codecs of a batch's records, with the framing that Kafka's clients expect. Pure.
//!
//! Decompression never trusts a length that the bytes merely claim: every buffer is bounded by
//! what the input can really expand to, or grows only as bytes arrive, up to a limit of the caller's.
//!
//! | codec | framing | levels (default) |
//! | --- | --- | --- |
//! | gzip | RFC 1952 | 1–9 (6) |
//! | snappy | snappy-java's blocks; one bare block is also read | – |
//! | lz4 | LZ4 frame of independent blocks | 1–17 (9): accepted, one speed |
//! | zstd | RFC 8878 frames | −131072–22 (3) |

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::Bytes;

use crate::error::BatchError;

/// Which codec a batch's records are compressed with: bits 0–2 of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    #[must_use]
    pub const fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    #[must_use]
    pub fn from_id(id: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.id() == id)
    }

    /// The name in a producer's `compression.type`. (A topic's property says `uncompressed` for none.)
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The name is not one of Kafka's five codecs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression name: {0}")]
pub struct UnknownCompressionName(pub String);

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
            .ok_or_else(|| UnknownCompressionName(name.to_owned()))
    }
}

/// A codec to write with, and how hard it tries. `None` is the codec's default level, as in Kafka.
/// A level out of the codec's range is taken to the nearest one that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {
    pub compression: Compression,
    pub level: Option<i32>,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        Self { compression, level: None }
    }
}

/// Compresses `bytes` whole.
#[must_use]
pub fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, Some(bytes.len()));
    compressor.write(bytes);
    compressor.finish()
}

/// Decompresses `body` whole. The result grows as bytes arrive; above `limit` bytes it is refused.
///
/// # Errors
/// [`BatchError::TooMuchDecompressed`] above the limit, [`BatchError::Decompression`] where the bytes are not this
/// codec's.
pub fn decompress(
    compression: Compression,
    body: &Bytes,
    limit: usize,
) -> Result<Bytes, BatchError> {
    let too_much =
        BatchError::TooMuchDecompressed { limit: u64::try_from(limit).unwrap_or(u64::MAX) };
    if compression == Compression::None {
        return if body.len() <= limit { Ok(body.clone()) } else { Err(too_much) };
    }
    let mut decompressor = Decompressor::new(compression, body)?;
    let mut chunk = Chunk::default();
    let mut whole = Vec::new();
    while decompressor.fill(&mut chunk)? {
        if chunk.bytes().len() > limit - whole.len() {
            return Err(too_much);
        }
        whole.extend_from_slice(chunk.bytes());
    }
    Ok(whole.into())
}

/// Bytes that the stream codecs decompress at a time.
const CHUNK_LEN: usize = 32 * 1024;

/// A buffer that one piece of decompressed bytes after another is put into.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    len: usize,
}

impl Chunk {
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Room for `len` bytes, of which `write` says how many it has put there.
    fn fill_with<E>(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        self.len = 0;
        self.len = write(self.buffer.get_mut(..len).expect("resized to at least len"))?.min(len);
        Ok(self.len)
    }

    fn fill_from(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.fill_with(CHUNK_LEN, |room| reader.read(room))
    }

    fn copy_from(&mut self, bytes: &[u8]) {
        self.buffer.clear();
        self.buffer.extend_from_slice(bytes);
        self.len = bytes.len();
    }
}

/// What went wrong inside a codec; for the log only, since no client can act on the difference.
type CodecFault = &'static str;

/// A codec at work on one batch's body.
pub(crate) enum Decompressor<'a> {
    Gzip(Box<gzip::Reader<'a>>),
    Snappy(snappy::Blocks<'a>),
    Lz4(lz4::Blocks<'a>),
    Zstd(zstd::Reader<'a>),
}

impl<'a> Decompressor<'a> {
    pub(crate) fn new(compression: Compression, body: &'a [u8]) -> Result<Self, BatchError> {
        let decompressor = match compression {
            Compression::None => {
                return Err(BatchError::Decompression(compression, "not compressed"));
            }
            Compression::Gzip => Ok(Self::Gzip(Box::new(gzip::reader(body)))),
            Compression::Snappy => snappy::Blocks::new(body).map(Self::Snappy),
            Compression::Lz4 => lz4::Blocks::new(body).map(Self::Lz4),
            Compression::Zstd => zstd::reader(body).map(Self::Zstd),
        };
        decompressor.map_err(|fault| BatchError::Decompression(compression, fault))
    }

    /// Puts the next piece into `chunk`, which may be empty in the middle; false at the end.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) -> Result<bool, BatchError> {
        let (compression, filled) = match self {
            Self::Gzip(reader) => (Compression::Gzip, fill_from(reader, chunk)),
            Self::Snappy(blocks) => (Compression::Snappy, blocks.fill(chunk)),
            Self::Lz4(blocks) => (Compression::Lz4, blocks.fill(chunk)),
            Self::Zstd(reader) => (Compression::Zstd, fill_from(reader, chunk)),
        };
        filled.map_err(|fault| BatchError::Decompression(compression, fault))
    }
}

fn fill_from(reader: &mut impl Read, chunk: &mut Chunk) -> Result<bool, CodecFault> {
    match chunk.fill_from(reader) {
        Ok(length) => Ok(length > 0),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("it ends too early"),
        Err(_) => Err("it is corrupt"),
    }
}

/// A codec at work on a batch that is being built.
enum Compressor {
    None(Vec<u8>),
    Gzip(Box<gzip::Writer>),
    Snappy(Box<snappy::Writer>),
    Lz4(Box<lz4::Writer>),
    Zstd(zstd::Writer),
}

/// Writing to memory fails in no codec.
const INFALLIBLE: &str = "compressing into memory does not fail";

impl Compressor {
    /// `length` is that of all that will be written, where it is known: zstd then plans for it.
    fn new(codec: Codec, length: Option<usize>) -> Self {
        let out = Vec::new();
        match codec.compression {
            Compression::None => Self::None(out),
            Compression::Gzip => Self::Gzip(Box::new(gzip::writer(out, codec.level))),
            Compression::Snappy => Self::Snappy(Box::new(snappy::Writer::new(out))),
            Compression::Lz4 => Self::Lz4(Box::new(lz4::writer(out))),
            Compression::Zstd => Self::Zstd(zstd::writer(out, codec.level, length)),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::None(out) => out.extend_from_slice(bytes),
            Self::Gzip(writer) => writer.write_all(bytes).expect(INFALLIBLE),
            Self::Snappy(writer) => writer.write(bytes),
            Self::Lz4(writer) => writer.write_all(bytes).expect(INFALLIBLE),
            Self::Zstd(writer) => writer.write_all(bytes).expect(INFALLIBLE),
        }
    }

    /// Bytes that have left the codec so far: the result is at least this long.
    fn written(&self) -> usize {
        match self {
            Self::None(out) => out.len(),
            Self::Gzip(writer) => writer.get_ref().len(),
            Self::Snappy(writer) => writer.written(),
            Self::Lz4(writer) => writer.get_ref().len(),
            Self::Zstd(writer) => writer.get_ref().len(),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::None(out) => out,
            Self::Gzip(writer) => writer.finish().expect(INFALLIBLE),
            Self::Snappy(writer) => writer.finish(),
            Self::Lz4(writer) => writer.finish().expect(INFALLIBLE),
            Self::Zstd(writer) => writer.finish().expect(INFALLIBLE),
        }
    }
}

/// Compresses records that come in pieces, as long as the result may still be small enough to be kept.
pub(crate) struct Recompressor {
    codec: Codec,
    /// Begun when there is more than may be staged.
    compressor: Option<Compressor>,
    /// Single bytes of lengths and deltas are gathered, because codecs are slow to take them one by one; and what is
    /// gathered to the end is of a length that codecs can plan for.
    staged: Vec<u8>,
    staged_max: usize,
    limit: usize,
}

impl Recompressor {
    pub(crate) fn new(codec: Codec, limit: usize) -> Self {
        Self::staging(codec, limit, CHUNK_LEN)
    }

    /// With so many bytes at most that wait for others.
    pub(crate) fn staging(codec: Codec, limit: usize, staged_max: usize) -> Self {
        let staged = Vec::with_capacity(CHUNK_LEN.min(staged_max));
        Self { codec, compressor: None, staged, staged_max, limit }
    }

    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.staged.len() + bytes.len() > self.staged_max {
            self.flush();
        }
        if bytes.len() > self.staged_max {
            self.pass_on(bytes);
        } else {
            self.staged.extend_from_slice(bytes);
        }
    }

    /// The whole result, or `None` when it is longer than the limit.
    pub(crate) fn finish(mut self) -> Option<Vec<u8>> {
        if self.compressor.is_some() {
            self.flush();
        }
        let compressed = match self.compressor {
            Some(compressor) => compressor.finish(),
            None if self.codec.compression == Compression::None => self.staged,
            None => compress(self.codec, &self.staged),
        };
        (compressed.len() <= self.limit).then_some(compressed)
    }

    fn flush(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        self.pass_on(&staged);
        self.staged = staged;
        self.staged.clear();
    }

    /// Nothing that is already too long grows further: a small batch must not fill the memory.
    fn pass_on(&mut self, bytes: &[u8]) {
        let compressor = self.compressor.get_or_insert_with(|| Compressor::new(self.codec, None));
        if compressor.written() <= self.limit {
            compressor.write(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
