//! What validation costs in memory: nothing for a sound batch, and never what a hostile one claims.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use ottla_base::{Timestamp, TopicPartition};
use ottla_records::{
    BatchBuilder, Compression, RawBatch, Rules, TimestampType, crc32c, parse_produced, validate,
    validate_within,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Counts what the current thread allocates, and how much it holds at most.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn hold(change: isize) {
    HELD.set(HELD.get() + change);
    PEAK.set(PEAK.get().max(HELD.get()));
}

fn signed(length: usize) -> isize {
    isize::try_from(length).expect("an allocation is at most isize::MAX")
}

#[expect(unsafe_code, reason = "the allocator's interface; every call is handed on as it came")]
// SAFETY: all memory comes from and goes back to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        hold(signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-signed(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How often `work` allocates, and how many bytes it holds at most.
fn measured<T>(work: impl FnOnce() -> T) -> (usize, isize) {
    let (count, held) = (COUNT.get(), HELD.get());
    PEAK.set(held);
    let result = work();
    let measured = (COUNT.get() - count, PEAK.get() - held);
    drop(result);
    measured
}

fn rules() -> Rules {
    Rules::new(TopicPartition::new("topic", 0))
}

fn batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for index in 0..100 {
        builder.append(
            Timestamp(NOW.0 + index),
            Some(b"key"),
            Some(&[7; 100]),
            &[("h", Some(b"x"))],
        );
    }
    builder.build_bytes()
}

#[test]
fn validating_an_uncompressed_batch_allocates_nothing() {
    let bytes = batch(Compression::None);
    // The first clone of some `Bytes` allocates their reference count; a request's bytes have one.
    let _shared = bytes.clone();
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        let rules = Rules { timestamp_type, ..rules() };
        let bytes = bytes.clone();
        let (count, _) = measured(|| validate(parse_produced(bytes, 12)?, &rules, NOW));
        assert_eq!(count, 0);
    }
}

#[test]
fn a_compressed_batch_is_validated_in_chunks() {
    let mut builder = BatchBuilder::new(Compression::Snappy);
    builder.append(NOW, None, Some(&vec![0; 50 << 20]), &[]);
    let bytes = builder.build_bytes();
    let rules = Rules { max_message_bytes: bytes.len(), ..rules() };
    let (_, peak) = measured(|| validate(parse_produced(bytes, 12)?, &rules, NOW));
    assert!(peak < 1 << 20, "{peak} bytes for 50 MiB that are only looked over");
}

#[test]
fn a_batch_beyond_the_budget_is_put_off_and_one_within_it_takes_it_up() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.append(NOW, None, Some(&vec![0; 5 << 20]), &[]);
    let raw = parse_produced(builder.build_bytes(), 12).expect("one batch");
    let mut budget: u64 = 12 << 20;
    for left in [7, 2] {
        assert!(validate_within(&raw, &rules(), NOW, &mut budget).expect("valid").is_some());
        assert_eq!(budget.div_ceil(1 << 20), left);
    }
    assert!(validate_within(&raw, &rules(), NOW, &mut budget).expect("no fault").is_none());
    assert_eq!(budget, 0);
    let plain = RawBatch::parse(batch(Compression::None)).expect("one batch");
    let valid = validate_within(&plain, &rules(), NOW, &mut budget).expect("valid");
    assert!(valid.is_some(), "nothing is decompressed");
}

#[test]
fn recompression_stops_when_the_result_is_too_large() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Lz4] {
        let mut builder = BatchBuilder::new(compression);
        builder.append(NOW, None, Some(&vec![0; 50 << 20]), &[]);
        let bytes = builder.build_bytes();
        let rules = Rules { codec: Some(Compression::None.into()), ..rules() };
        let (_, peak) = measured(|| validate(parse_produced(bytes, 12)?, &rules, NOW));
        assert!(peak < 4 << 20, "{peak} bytes, though 1 MiB is allowed");
    }
}

/// Every field of a batch, claimed to be as large, as small and as negative as it can be.
#[test]
fn no_claim_of_a_length_takes_memory() {
    let extremes: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        // The largest, the smallest and an endless variable-length integer.
        &[0xfe, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff; 12],
    ];
    for compression in Compression::ALL {
        let sound = batch(compression);
        // Header, framing and the first records; for codecs, all of the small body.
        for at in 0..sound.len().min(200) {
            for extreme in extremes {
                let mut bytes = sound.to_vec();
                let end = bytes.len().min(at + extreme.len());
                bytes[at..end].copy_from_slice(&extreme[..end - at]);
                if at >= 21 {
                    let crc = crc32c(&bytes[21..]);
                    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
                }
                let bytes = Bytes::from(bytes);
                let (_, validating) =
                    measured(|| validate(RawBatch::parse(bytes.clone())?, &rules(), NOW));
                assert!(validating < 1 << 20, "{compression:?} {extreme:x?} at {at}: {validating}");
                let (_, reading) = measured(|| {
                    RawBatch::parse(bytes.clone())
                        .and_then(|raw| raw.records()?.collect::<Result<Vec<_>, _>>())
                });
                assert!(reading < 2 << 20, "{compression:?} {extreme:x?} at {at}: {reading}");
            }
        }
    }
}
