//! zstd (RFC 8878) through the reference library. Pure.

use zstd::stream::{read, write};

use super::CodecFault;

pub(super) type Reader<'a> = read::Decoder<'static, &'a [u8]>;
pub(super) type Writer = write::Encoder<'static, Vec<u8>>;

/// The largest window that a frame may ask for, 128 MiB: zstd's own limit, and what level 22
/// uses. The memory is reserved, but only touched as far as bytes are really decompressed.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) fn reader(body: &[u8]) -> Result<Reader<'_>, CodecFault> {
    let mut reader = read::Decoder::with_buffer(body).map_err(|_| "no memory for a decoder")?;
    reader
        .window_log_max(WINDOW_LOG_MAX)
        .map_err(|_| "the library refuses its own window limit")?;
    Ok(reader)
}

pub(super) fn writer(out: Vec<u8>, level: Option<i32>, length: Option<usize>) -> Writer {
    let levels = zstd::compression_level_range();
    let level =
        level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*levels.start(), *levels.end());
    let mut writer = write::Encoder::new(out, level).expect("a level in range is accepted");
    let length = length.map(|length| u64::try_from(length).expect("lengths fit in 64 bits"));
    // Without it, the highest levels take hundreds of megabytes for the smallest batch.
    writer.set_pledged_src_size(length).expect("nothing has been written yet");
    writer
}
