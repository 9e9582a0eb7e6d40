//! Bytes that lie about lengths and counts: decoding returns, and takes memory in proportion to what was sent.

#![expect(
    unsafe_code,
    reason = "an allocator that counts is the only witness of what decoding allocates"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use ottla_base::SplitMix64;
use ottla_protocol::Decoder;
use support::Entry;
use support::random::Writer;

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // While a thread ends its counters may be gone, and nobody reads them any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes of memory a byte of input may cost. The worst that is sent in good faith is a list of empty texts:
/// one byte each on the wire, 32 in memory.
const BYTES_PER_BYTE: usize = 64;
/// What an error or a first small allocation costs.
const BYTES_ANYWAY: usize = 1024;

fn assert_decoding_is_cheap(entry: &Entry, version: i16, bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    // Bytes count their first sharing as an allocation; do it beforehand.
    let shared = frame.clone();
    let before = LIVE.get();
    PEAK.set(before);
    let _ = (entry.decode)(frame, version);
    let taken = usize::try_from(PEAK.get() - before).expect("the peak begins at what is live");
    let allowed = BYTES_ANYWAY + BYTES_PER_BYTE * bytes.len();
    assert!(
        taken <= allowed,
        "{} {version}: {taken} bytes for {}: {shared:?}",
        entry.name,
        bytes.len()
    );
}

/// What a length can be replaced by: the bytes of a varint or an integer that says too much, or null.
const LIES: [&[u8]; 10] = [
    &[0],
    &[1],
    &[0x7f],
    &[0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0x3f, 0xff],
];

#[test]
fn a_lie_at_any_place_costs_little() {
    for schema in support::schemas() {
        let entry = support::find(&schema.name).unwrap();
        for version in entry.versions.clone() {
            let bytes = Writer::random(&schema, version, 3).message();
            let bytes = &bytes[..bytes.len().min(200)];
            for at in 0..bytes.len() {
                for lie in LIES {
                    let mut lying = bytes.to_vec();
                    lying.splice(at..(at + lie.len()).min(bytes.len()), lie.iter().copied());
                    assert_decoding_is_cheap(entry, version, &lying);
                }
            }
        }
    }
}

/// With enough bytes behind it a lie about a count may well be believed.
#[test]
fn a_lie_with_bytes_to_back_it_costs_in_proportion_to_those() {
    for schema in support::schemas() {
        let entry = support::find(&schema.name).unwrap();
        for version in entry.versions.clone() {
            let bytes = Writer::random(&schema, version, 5).message();
            let bytes = &bytes[..bytes.len().min(60)];
            for padding in [0, 1] {
                for at in 0..bytes.len() {
                    let mut lying = bytes[..at].to_vec();
                    let flexible = schema.flexible.contains(version);
                    lying.extend(if flexible { &[0x80, 0x1e][..] } else { &[0, 0, 0x0f, 0][..] });
                    lying.resize(lying.len() + 4000, padding);
                    assert_decoding_is_cheap(entry, version, &lying);
                }
            }
        }
    }
}

#[test]
fn a_message_that_is_cut_off_anywhere_is_refused() {
    for schema in support::schemas() {
        let entry = support::find(&schema.name).unwrap();
        for version in entry.versions.clone() {
            let bytes = Writer::random(&schema, version, 4).message();
            for len in 0..bytes.len().min(300) {
                let result = (entry.decode)(Bytes::copy_from_slice(&bytes[..len]), version);
                assert!(result.is_err(), "{} {version}: {:?}", schema.name, &bytes[..len]);
            }
        }
    }
}

#[test]
fn noise_is_read_or_refused_but_never_panics() {
    let mut random = SplitMix64::new(1);
    for entry in support::table::ALL {
        for version in entry.versions.clone() {
            for _ in 0..50 {
                let len = random.below(120);
                let noise: Vec<u8> =
                    (0..len).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
                assert_decoding_is_cheap(entry, version, &noise);
            }
        }
    }
}

#[test]
fn an_unknown_tagged_field_is_skipped() {
    // ApiVersionsRequest 3: two texts, then tag 1000 with three bytes, and tag 7 with none.
    let bytes = [&[2, b'a', 2, b'b', 2][..], &[0xe8, 0x07, 3, 1, 2, 3], &[7, 0]].concat();
    let entry = support::find("ApiVersionsRequest").unwrap();
    let plain = (entry.rewrite)(bytes.into(), 3).unwrap();
    assert_eq!(plain, [2, b'a', 2, b'b', 0].as_slice());
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for entry in support::table::ALL {
        for version in [i16::MIN, -1, entry.versions.end() + 1, i16::MAX] {
            assert!((entry.decode)(Bytes::from_static(&[0; 100]), version).is_err());
            assert!((entry.write_default)(version).is_err());
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_read_as_kafka_reads_it() {
    let mut input = Decoder::new(Bytes::from_static(b"\x00\x03a\xffb"));
    assert_eq!(input.string(false).unwrap(), "a\u{fffd}b");
}
