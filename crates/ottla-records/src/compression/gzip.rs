//! gzip (RFC 1952) through flate2 on zlib-rs. Several members in a row are one stream, as in Java. Pure.

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

pub(super) type Reader<'a> = MultiGzDecoder<&'a [u8]>;
pub(super) type Writer = GzEncoder<Vec<u8>>;

pub(super) fn reader(body: &[u8]) -> Reader<'_> {
    MultiGzDecoder::new(body)
}

pub(super) fn writer(out: Vec<u8>, level: Option<i32>) -> Writer {
    let level = match level {
        // Kafka writes −1 for zlib's own default.
        None | Some(-1) => flate2::Compression::default(),
        Some(level) => {
            flate2::Compression::new(u32::try_from(level.clamp(1, 9)).expect("clamped to 1..=9"))
        }
    };
    GzEncoder::new(out, level)
}
