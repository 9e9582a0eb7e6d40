//! Snappy in the framing of the Java library snappy-java, which is what Kafka means by snappy. Pure.
//!
//! A 16-byte header (`82 "SNAPPY" 00`, version, oldest compatible version), then blocks, each a
//! big-endian length and a bare snappy block of at most 32 KiB of input. A body without the header
//! is one bare block: clients on other libraries used to send that, and Kafka reads it.

use bytes::BufMut;
use snap::raw::{Decoder, Encoder, decompress_len};

use super::{Chunk, CodecFault};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
const VERSION: i32 = 1;
const BLOCK_LEN: usize = 32 * 1024;
/// The first four bytes of the magic, where a block length would stand: a second stream follows.
const MAGIC_AS_LENGTH: u32 = 0x8253_4e41;
/// No snappy block expands further: its best element is 3 bytes for a copy of 64.
const EXPANSION_MAX: usize = 22;

/// The blocks of a body that have not been decompressed.
pub(crate) struct Blocks<'a> {
    rest: &'a [u8],
    framed: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, CodecFault> {
        if body.is_empty() {
            return Err("it is empty");
        }
        let Some(header) = body.first_chunk::<HEADER_LEN>() else {
            return Ok(Self { rest: body, framed: false });
        };
        let Some((_, versions)) =
            header.split_first_chunk::<8>().filter(|(magic, _)| **magic == MAGIC)
        else {
            return Ok(Self { rest: body, framed: false });
        };
        let version = versions.first_chunk().copied().map_or(0, i32::from_be_bytes);
        if version < VERSION {
            return Err("its framing has an unknown version");
        }
        Ok(Self { rest: body.get(HEADER_LEN..).unwrap_or_default(), framed: true })
    }

    pub(super) fn fill(&mut self, chunk: &mut Chunk) -> Result<bool, CodecFault> {
        let Some(block) = self.next_block()? else {
            chunk.copy_from(&[]);
            return Ok(false);
        };
        let length = decompress_len(block).map_err(|_| "a block has no length")?;
        if length > block.len().saturating_mul(EXPANSION_MAX) {
            return Err("a block claims more than it can hold");
        }
        chunk
            .fill_with(length, |room| Decoder::new().decompress(block, room))
            .map_err(|_| "a block is corrupt")?;
        Ok(true)
    }

    fn next_block(&mut self) -> Result<Option<&'a [u8]>, CodecFault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let mut length = self.take_length()?;
        while length == MAGIC_AS_LENGTH {
            self.rest = self.rest.get(HEADER_LEN - 4..).ok_or("it ends within a header")?;
            if self.rest.is_empty() {
                return Ok(None);
            }
            length = self.take_length()?;
        }
        let length = usize::try_from(length).map_err(|_| "a block is too long")?;
        let (block, rest) = self.rest.split_at_checked(length).ok_or("it ends within a block")?;
        self.rest = rest;
        Ok(Some(block))
    }

    fn take_length(&mut self) -> Result<u32, CodecFault> {
        let (length, rest) = self.rest.split_first_chunk().ok_or("it ends within a length")?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*length))
    }
}

/// Gathers input into blocks of 32 KiB.
pub(crate) struct Writer {
    out: Vec<u8>,
    pending: Vec<u8>,
    encoder: Encoder,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        out.put_i32(VERSION);
        out.put_i32(VERSION);
        Self { out, pending: Vec::with_capacity(BLOCK_LEN), encoder: Encoder::new() }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_LEN - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == BLOCK_LEN {
                self.write_block();
            }
        }
    }

    pub(super) fn written(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.pending.is_empty() {
            self.write_block();
        }
        self.out
    }

    fn write_block(&mut self) {
        let block = self
            .encoder
            .compress_vec(&self.pending)
            .expect("32 KiB is below the limit of the format, 4 GiB");
        self.out.put_u32(u32::try_from(block.len()).expect("about 32 KiB"));
        self.out.extend_from_slice(&block);
        self.pending.clear();
    }
}
