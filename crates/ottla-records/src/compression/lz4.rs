//! The LZ4 frame format, the part of it that Kafka's clients read: version 1, independent blocks,
//! no dictionary. Pure.
//!
//! Blocks are taken apart here rather than by a library's frame reader, because a log must not hold
//! what a Java consumer cannot read: linked blocks and frames without an end mark are refused as
//! Kafka refuses them, and a content checksum is skipped as Kafka skips it.

use lz4_flex::block::decompress_into;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{Chunk, CodecFault};

const MAGIC: u32 = 0x184d_2204;
const VERSION: u8 = 1;
/// The highest bit of a block's length: the block is stored as it is.
const STORED: u32 = 0x8000_0000;
/// No LZ4 block expands further: each byte of a long match's length stands for 255.
const EXPANSION_MAX: usize = 255;

pub(crate) type Writer = FrameEncoder<Vec<u8>>;

pub(super) fn writer(out: Vec<u8>) -> Writer {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    FrameEncoder::with_frame_info(info, out)
}

/// The blocks of a frame that have not been decompressed.
pub(crate) struct Blocks<'a> {
    rest: &'a [u8],
    block_len_max: usize,
    block_checksums: bool,
    content_checksum: bool,
    finished: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, CodecFault> {
        let mut rest = body;
        if take_u32(&mut rest)? != MAGIC {
            return Err("it does not begin with the magic number");
        }
        let descriptor = rest;
        let [flags, block_descriptor] = take(&mut rest)?;
        if flags >> 6 != VERSION {
            return Err("the frame has an unknown version");
        }
        if flags & 0b0010_0000 == 0 {
            return Err("the frame's blocks depend on one another");
        }
        if flags & 0b0000_0011 != 0 || block_descriptor & 0b1000_1111 != 0 {
            return Err("the frame sets reserved bits");
        }
        if flags & 0b0000_1000 != 0 {
            // The size of the content: a claim that nothing here needs.
            take::<8>(&mut rest)?;
        }
        let covered = descriptor.get(..descriptor.len() - rest.len()).unwrap_or_default();
        let [checksum] = take(&mut rest)?;
        if XxHash32::oneshot(0, covered).to_le_bytes()[1] != checksum {
            return Err("the frame descriptor does not match its checksum");
        }
        Ok(Self {
            rest,
            block_len_max: block_len_max(block_descriptor >> 4)?,
            block_checksums: flags & 0b0001_0000 != 0,
            content_checksum: flags & 0b0000_0100 != 0,
            finished: false,
        })
    }

    pub(super) fn fill(&mut self, chunk: &mut Chunk) -> Result<bool, CodecFault> {
        if self.finished {
            chunk.copy_from(&[]);
            return Ok(false);
        }
        let length = take_u32(&mut self.rest)?;
        if length & !STORED == 0 {
            return self.finish(chunk);
        }
        let block = self.take_block(length & !STORED)?;
        if self.block_checksums && take_u32(&mut self.rest)? != XxHash32::oneshot(0, block) {
            return Err("a block does not match its checksum");
        }
        if length & STORED != 0 {
            chunk.copy_from(block);
        } else {
            let room = self.block_len_max.min(block.len().saturating_mul(EXPANSION_MAX));
            chunk
                .fill_with(room, |room| decompress_into(block, room))
                .map_err(|_| "a block is corrupt")?;
        }
        Ok(true)
    }

    fn take_block(&mut self, length: u32) -> Result<&'a [u8], CodecFault> {
        let length = usize::try_from(length).map_err(|_| "a block is too long")?;
        if length > self.block_len_max {
            return Err("a block is longer than the frame allows");
        }
        let (block, rest) = self.rest.split_at_checked(length).ok_or("it ends within a block")?;
        self.rest = rest;
        Ok(block)
    }

    fn finish(&mut self, chunk: &mut Chunk) -> Result<bool, CodecFault> {
        if self.content_checksum {
            take::<4>(&mut self.rest)?;
        }
        self.finished = true;
        chunk.copy_from(&[]);
        Ok(false)
    }
}

/// 64 KiB, 256 KiB, 1 MiB or 4 MiB.
fn block_len_max(code: u8) -> Result<usize, CodecFault> {
    match code {
        4..=7 => Ok(1 << (2 * code + 8)),
        _ => Err("the frame has an unknown block size"),
    }
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, CodecFault> {
    Ok(u32::from_le_bytes(take(rest)?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodecFault> {
    let (taken, after) = rest.split_first_chunk().ok_or("it ends too early")?;
    *rest = after;
    Ok(*taken)
}
