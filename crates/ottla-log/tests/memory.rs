//! What a small batch that decompresses to a gigabyte costs those who look into it: no more memory than any other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what it does not expect"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_log::{CleanableLogs, CleanerOptions, Log, LogCleaner, LogConfig, TimestampLookup};
use ottla_records::compression::compress;
use ottla_records::{
    BatchBuilder, BatchHeader, Codec, Compression, HEADER_LEN, RawBatch, Rules, ValidBatch, crc32c,
    parse_produced, validate,
};
use support::{Directory, Open, read_all};

/// Counts what the current thread holds at most. What zstd's own library allocates goes past it: its window, of which
/// a frame says how large it is, up to 128 MiB (docs/decisions/002-compression-and-checksum-libraries.md).
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn hold(change: isize) {
    // While a thread ends its counters may be gone, and nobody reads them any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "the allocator's interface; every call is handed on as it came")]
// SAFETY: all memory comes from and goes back to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST: isize = 16 << 20;

/// The result of `work`, which must not hold more than [`MOST`] at any time.
fn frugal<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let held = HELD.get();
    PEAK.set(held);
    let result = work();
    let taken = PEAK.get() - held;
    assert!(taken < MOST, "{what} took {taken} bytes");
    result
}

/// Compressed records that never were in memory as they are: zstd's frames and LZ4's blocks follow one another.
struct Body {
    compression: Compression,
    frames: Vec<u8>,
    pending: Vec<u8>,
    records: i32,
}

const FRAME: usize = 1 << 20;

/// An LZ4 frame's magic number and descriptor: version 1, independent blocks of up to 4 MiB.
const LZ4_OPENING: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
const LZ4_BLOCK: usize = 4 << 20;
const LZ4_STORED: u32 = 0x8000_0000;

/// A block that repeats as many random bytes as are nearly too far apart for a block of 64 KiB.
fn lz4_repetition() -> Vec<u8> {
    const PERIOD: usize = 60_000;
    const LAST: &[u8] = b"bytes";
    let write_length = |length: usize, out: &mut Vec<u8>| {
        out.resize(out.len() + (length - 15) / 255, 255);
        out.push(u8::try_from((length - 15) % 255).unwrap());
    };
    let mut state = 1_u64;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let mut block = vec![0xff];
    write_length(PERIOD, &mut block);
    block.extend(random.take(PERIOD));
    block.extend(u16::try_from(PERIOD).unwrap().to_le_bytes());
    write_length(LZ4_BLOCK - PERIOD - LAST.len() - 4, &mut block);
    block.push(0x50);
    block.extend(LAST);
    block
}

impl Body {
    fn new(compression: Compression) -> Self {
        let opening: &[u8] = if compression == Compression::Lz4 { &LZ4_OPENING } else { &[] };
        Self { compression, frames: opening.to_vec(), pending: Vec::new(), records: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= FRAME {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        if self.compression == Compression::Lz4 {
            self.put_lz4_block(LZ4_STORED, &self.pending.clone());
        } else {
            self.frames.extend(compress(Codec::from(self.compression), &self.pending));
        }
        self.pending.clear();
    }

    fn put_lz4_block(&mut self, flag: u32, block: &[u8]) {
        self.frames.extend((u32::try_from(block.len()).unwrap() | flag).to_le_bytes());
        self.frames.extend(block);
    }

    /// Zeros; or, in LZ4, a repetition of random bytes.
    fn put_much(&mut self, count: usize) {
        self.end_frame();
        if self.compression == Compression::Lz4 {
            let block = lz4_repetition();
            (0..count / LZ4_BLOCK).for_each(|_| self.put_lz4_block(0, &block));
        } else {
            let frame = compress(Codec::from(self.compression), &vec![0; FRAME]);
            (0..count / FRAME).for_each(|_| self.frames.extend_from_slice(&frame));
        }
    }

    /// A record whose timestamp is its offset, and whose key or value may be much.
    fn add(&mut self, key: &[u8], key_zeros: usize, value_zeros: usize) {
        let mut fields = vec![0];
        write_varint(i64::from(self.records), &mut fields);
        write_varint(i64::from(self.records), &mut fields);
        let key_len = key.len() + key_zeros;
        write_varint(key_len.try_into().unwrap(), &mut fields);
        let mut value_len = Vec::new();
        write_varint(value_zeros.try_into().unwrap(), &mut value_len);
        let length = fields.len() + key_len + value_len.len() + value_zeros + 1;
        let mut opening = Vec::new();
        write_varint(length.try_into().unwrap(), &mut opening);
        opening.extend(fields);
        opening.extend(key);
        self.put(&opening);
        if key_zeros > 0 {
            self.put_much(key_zeros);
        }
        self.put(&value_len);
        if value_zeros < FRAME {
            self.put(&vec![0; value_zeros]);
        } else {
            self.put_much(value_zeros);
        }
        self.put(&[0]);
        self.records += 1;
    }

    /// The batch, as a producer would send it and a broker accepts it.
    fn into_batch(mut self) -> ValidBatch {
        self.end_frame();
        if self.compression == Compression::Lz4 {
            self.put_lz4_block(0, &[]);
        }
        let mut builder = BatchBuilder::new(self.compression);
        builder.append(Timestamp(0), None, None, &[]);
        let header = BatchHeader {
            batch_length: (HEADER_LEN - 12 + self.frames.len()).try_into().unwrap(),
            last_offset_delta: self.records - 1,
            max_timestamp: i64::from(self.records) - 1,
            record_count: self.records,
            ..*builder.build().header()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(self.frames);
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let rules = Rules {
            max_message_bytes: bytes.len(),
            compacted: true,
            ..Rules::new(TopicPartition::new("t", 0))
        };
        validate(parse_produced(Bytes::from(bytes), 13).unwrap(), &rules, Timestamp(0)).unwrap()
    }
}

fn write_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// A gigabyte takes a minute without optimisation, and shows nothing else: it is sixteen times what may be taken already.
const LARGE: usize = 256 << 20;
const MANY: i32 = 1_000_000;

/// Zeros in one record, between two small ones.
fn one_large_value() -> ValidBatch {
    let mut body = Body::new(Compression::Zstd);
    body.add(b"superseded", 0, 0);
    body.add(b"large", 0, LARGE);
    body.add(b"small", 0, 0);
    body.into_batch()
}

/// The same as a key, which others are compared with.
fn one_large_key() -> ValidBatch {
    let mut body = Body::new(Compression::Zstd);
    body.add(b"superseded", 0, 0);
    body.add(b"large", LARGE, 0);
    body.add(b"small", 0, 0);
    body.into_batch()
}

/// A hundred megabytes of records, of a hundred keys.
fn many_records() -> ValidBatch {
    let mut body = Body::new(Compression::Zstd);
    for n in 0..MANY {
        let key = if n % 100 == 0 { "superseded".to_owned() } else { format!("key {}", n % 100) };
        body.add(key.as_bytes(), 0, 90);
    }
    body.into_batch()
}

struct Fixture {
    log: Arc<Log>,
    _open: Open,
    directory: Directory,
}

impl Fixture {
    fn new(batch: ValidBatch) -> Self {
        let directory = Directory::new();
        let open = directory.open(LogConfig {
            delete: false,
            compact: true,
            min_cleanable_dirty_ratio: 0.0,
            ..LogConfig::default()
        });
        let log = open.create("t", 0);
        log.append_batch(batch, LeaderEpoch(0)).unwrap();
        Self { log, _open: open, directory }
    }

    /// Appends a newer record of the key `superseded`, and compacts everything but the segment after it.
    fn compact(&self) -> usize {
        for _ in 0..2 {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(Timestamp(0), Some(b"superseded"), Some(b"newer"), &[]);
            self.log.append_batch(builder.build(), LeaderEpoch(0)).unwrap();
            self.log.roll().unwrap();
        }
        let logs = OneLog(Arc::clone(&self.log));
        // Room for some keys, which is none for records.
        let options = CleanerOptions {
            threads: 0,
            dedupe_buffer_bytes: 1 << 20,
            ..CleanerOptions::default()
        };
        let clock = Arc::clone(&self.directory.clock);
        let cleaner = LogCleaner::start(Arc::new(logs), options, clock).unwrap();
        frugal("compaction", || cleaner.clean_all_due())
    }

    fn first_batch(&self) -> RawBatch {
        read_all(&self.log).remove(0)
    }
}

#[derive(Debug)]
struct OneLog(Arc<Log>);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.0.log_end_offset())]
    }
}

fn offsets(batch: &RawBatch) -> Vec<i64> {
    let mut offsets = Vec::new();
    let broken_off = batch.look_over(|record| {
        offsets.push(record.offset.0);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(broken_off, Ok(None));
    offsets
}

#[test]
fn a_look_up_by_time_takes_no_memory_for_records_that_are_not_asked_for() {
    for batch in [one_large_value(), one_large_key(), many_records()] {
        let last = batch.header().last_offset();
        let newest = TimestampLookup {
            timestamp: Timestamp(last),
            offset: Offset(last),
            leader_epoch: LeaderEpoch(0),
        };
        let Fixture { log, .. } = &Fixture::new(batch);
        let found = frugal("a time", || log.offset_for_timestamp(Timestamp(last)).unwrap());
        assert_eq!(found, Some(newest));
        let found = frugal("the newest record", || log.max_timestamp().unwrap());
        assert_eq!(found, Some(newest));
    }
}

#[test]
fn a_compaction_takes_no_memory_for_what_it_copies() {
    for batch in [one_large_value(), one_large_key()] {
        let fixture = Fixture::new(batch);
        assert_eq!(fixture.compact(), 1);
        assert_eq!(offsets(&fixture.first_batch()), [1, 2]);
    }
}

#[test]
fn a_compaction_takes_no_memory_for_very_many_records() {
    let fixture = Fixture::new(many_records());
    assert_eq!(fixture.compact(), 1);
    let last_of_each: Vec<i64> = (i64::from(MANY) - 99..i64::from(MANY)).collect();
    assert_eq!(offsets(&fixture.first_batch()), last_of_each);
}

/// No level that a broker would choose finds the repetitions, so what stays would be as long as it is uncompressed. To
/// leave the batch as it is would be no way out: the record that is superseded would come back with the end of a tombstone.
#[test]
fn a_batch_that_would_grow_beyond_bounds_ends_the_compaction_of_its_log_and_nothing_else() {
    let mut body = Body::new(Compression::Lz4);
    body.add(b"superseded", 0, 0);
    body.add(b"large", 0, 8 * LZ4_BLOCK);
    let batch = body.into_batch();
    assert!(batch.size_in_bytes() < 1 << 20);
    let fixture = Fixture::new(batch);
    assert_eq!((fixture.compact(), fixture.log.is_uncleanable()), (0, true));
    assert_eq!(offsets(&fixture.first_batch()), [0, 1]);
}
