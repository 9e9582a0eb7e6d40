//! The codecs: round trips, Java's framings, and bytes that lie about their length.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64 << 20;

fn round_trip(codec: Codec, bytes: &[u8]) -> Bytes {
    decompress(codec.compression, &compress(codec, bytes).into(), LIMIT)
        .expect("it was just compressed")
}

fn fails(compression: Compression, body: impl Into<Bytes>) -> bool {
    decompress(compression, &body.into(), LIMIT).is_err()
}

fn compressing() -> impl Iterator<Item = Compression> {
    Compression::ALL.into_iter().filter(|compression| *compression != Compression::None)
}

#[test]
fn names_and_ids_find_their_codec() {
    for compression in Compression::ALL {
        assert_eq!(compression.name().parse(), Ok(compression));
        assert_eq!(Compression::from_id(compression.id()), Some(compression));
    }
    assert_eq!("brotli".parse::<Compression>(), Err(UnknownCompressionName("brotli".to_owned())));
    assert_eq!(Compression::from_id(5), None);
}

#[test]
fn lengths_around_every_block_boundary_survive() {
    let bytes: Vec<u8> =
        (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for compression in Compression::ALL {
        for length in [1, 15, 16, 17, 32_767, 32_768, 32_769, 65_536, 65_537, 1_200_000] {
            let bytes = &bytes[..length];
            assert_eq!(round_trip(compression.into(), bytes), bytes, "{compression:?} {length}");
        }
    }
}

#[test]
fn every_level_can_be_asked_for_and_nonsense_is_taken_to_the_nearest() {
    for compression in Compression::ALL {
        for level in [i32::MIN, -7, -1, 0, 1, 3, 9, 17, 22, i32::MAX] {
            let codec = Codec { compression, level: Some(level) };
            assert_eq!(
                round_trip(codec, b"abcabcabcabc".repeat(9).as_slice()),
                "abcabcabcabc".repeat(9)
            );
        }
    }
}

#[test]
fn a_higher_level_takes_fewer_bytes() {
    let text: Vec<u8> = (0..5000_u32)
        .flat_map(|n| format!("order {} of {}\n", n, n * n % 977).into_bytes())
        .collect();
    for (compression, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, 1, 19)] {
        let length = |level| compress(Codec { compression, level: Some(level) }, &text).len();
        assert!(length(high) < length(low), "{compression:?}");
    }
}

#[test]
fn output_above_the_limit_is_refused() {
    let zeros = vec![0; 1 << 20];
    for compression in Compression::ALL {
        let body = Bytes::from(compress(compression.into(), &zeros));
        assert!(decompress(compression, &body, 1 << 20).is_ok(), "{compression:?}");
        assert_eq!(
            decompress(compression, &body, (1 << 20) - 1),
            Err(BatchError::TooMuchDecompressed { limit: (1 << 20) - 1 })
        );
    }
}

#[test]
fn every_cut_off_body_is_refused() {
    let bytes: Vec<u8> = (0..500_u32).flat_map(u32::to_le_bytes).collect();
    for compression in compressing() {
        let body = compress(compression.into(), &bytes);
        for length in (0..body.len()).step_by(7).chain([body.len() - 1]) {
            let result = decompress(compression, &Bytes::copy_from_slice(&body[..length]), LIMIT);
            // Snappy's framing has no end mark: cut between two blocks, it is short, not broken.
            assert!(
                result.map_or(true, |whole| whole.len() < bytes.len()),
                "{compression:?} {length}"
            );
        }
    }
}

#[test]
fn snappy_is_framed_as_java_does_it() {
    let body = compress(Compression::Snappy.into(), b"hello");
    assert_eq!(body[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    assert_eq!(body[16..20], u32::try_from(body.len() - 20).expect("small").to_be_bytes());
}

#[test]
fn a_bare_snappy_block_is_read_too() {
    let bytes = b"a block from a client that does not know Java's framing";
    let bare = snap::raw::Encoder::new().compress_vec(bytes).expect("small");
    assert_eq!(
        decompress(Compression::Snappy, &bare.into(), LIMIT).expect("valid"),
        bytes.as_slice()
    );
}

#[test]
fn two_snappy_streams_in_a_row_are_one() {
    let mut body = compress(Compression::Snappy.into(), b"first ");
    body.extend(compress(Compression::Snappy.into(), b"second"));
    assert_eq!(
        decompress(Compression::Snappy, &body.into(), LIMIT).expect("valid"),
        "first second"
    );
}

#[test]
fn two_gzip_members_in_a_row_are_one() {
    let mut body = compress(Compression::Gzip.into(), b"first ");
    body.extend(compress(Compression::Gzip.into(), b"second"));
    assert_eq!(decompress(Compression::Gzip, &body.into(), LIMIT).expect("valid"), "first second");
}

#[test]
fn a_snappy_block_that_claims_four_gigabytes_is_refused_before_memory_is_taken() {
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    assert!(fails(Compression::Snappy, claim.to_vec()));

    let mut framed = compress(Compression::Snappy.into(), b"");
    framed.extend(7_u32.to_be_bytes());
    framed.extend(claim);
    assert!(fails(Compression::Snappy, framed));

    let mut long_block = compress(Compression::Snappy.into(), b"");
    long_block.extend(u32::MAX.to_be_bytes());
    assert!(fails(Compression::Snappy, long_block));
}

#[test]
fn an_lz4_frame_that_java_could_not_read_is_refused() {
    let mut linked =
        FrameOptions { mode: lz4_flex::frame::BlockMode::Linked, end_mark: true }.frame();
    assert!(fails(Compression::Lz4, linked.clone()));

    linked =
        FrameOptions { mode: lz4_flex::frame::BlockMode::Independent, end_mark: false }.frame();
    assert!(fails(Compression::Lz4, linked));

    let mut bad_descriptor = compress(Compression::Lz4.into(), b"hello");
    bad_descriptor[6] ^= 1;
    assert!(fails(Compression::Lz4, bad_descriptor));
}

struct FrameOptions {
    mode: lz4_flex::frame::BlockMode,
    end_mark: bool,
}

impl FrameOptions {
    fn frame(&self) -> Vec<u8> {
        let info = lz4_flex::frame::FrameInfo::new().block_mode(self.mode);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(b"hello").expect(INFALLIBLE);
        let mut frame = encoder.finish().expect(INFALLIBLE);
        if !self.end_mark {
            frame.truncate(frame.len() - 4);
        }
        frame
    }
}

#[test]
fn an_lz4_frame_with_checksums_and_a_content_size_is_read() {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(10));
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(b"0123456789").expect(INFALLIBLE);
    let frame = encoder.finish().expect(INFALLIBLE);
    assert_eq!(
        decompress(Compression::Lz4, &frame.clone().into(), LIMIT).expect("valid"),
        "0123456789"
    );

    // Magic 4, flags and block descriptor 2, content size 8, checksum 1, block length 4: then the block.
    let mut bad_block = frame;
    bad_block[19] ^= 1;
    assert!(fails(Compression::Lz4, bad_block));
}

#[test]
fn an_unknown_snappy_framing_version_is_refused() {
    assert!(fails(Compression::Snappy, b"\x82SNAPPY\0\0\0\0\0\0\0\0\x01".to_vec()));
}

proptest! {
    #[test]
    fn any_bytes_survive_any_codec(bytes: Vec<u8>, id in 0_i16..=4) {
        let compression = Compression::from_id(id).expect("0 to 4");
        prop_assert_eq!(round_trip(compression.into(), &bytes), bytes);
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(bytes: Vec<u8>, id in 1_i16..=4) {
        let compression = Compression::from_id(id).expect("1 to 4");
        let _ = decompress(compression, &bytes.into(), 1 << 20);
    }

    #[test]
    fn a_flipped_byte_never_panics(at: prop::sample::Index, flip in 1_u8.., id in 1_i16..=4) {
        let compression = Compression::from_id(id).expect("1 to 4");
        let mut body = compress(compression.into(), &b"some text, some text".repeat(50));
        let at = at.index(body.len());
        body[at] ^= flip;
        let _ = decompress(compression, &body.into(), 1 << 20);
    }
}
