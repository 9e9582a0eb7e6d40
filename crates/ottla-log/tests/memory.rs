//! What a small batch that decompresses to a gigabyte costs those who look into it: no more memory than any other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what it does not expect"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_log::{Log, LogConfig, TimestampLookup};
use ottla_records::compression::compress;
use ottla_records::{
    BatchBuilder, BatchHeader, Codec, Compression, HEADER_LEN, Rules, ValidBatch, crc32c,
    parse_produced, validate,
};
use support::{Directory, Open};

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

/// Compressed records that never were in memory as they are: zstd's frames may follow one another.
#[derive(Default)]
struct Body {
    frames: Vec<u8>,
    pending: Vec<u8>,
    records: i32,
}

const FRAME: usize = 1 << 20;

impl Body {
    fn put(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= FRAME {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.frames.extend(compress(Codec::from(Compression::Zstd), &self.pending));
        self.pending.clear();
    }

    fn put_zeros(&mut self, count: usize) {
        self.end_frame();
        let frame = compress(Codec::from(Compression::Zstd), &vec![0; FRAME]);
        (0..count / FRAME).for_each(|_| self.frames.extend_from_slice(&frame));
        self.put(&vec![0; count % FRAME]);
    }

    /// A record whose timestamp is its offset, and whose key or value may be many zeros.
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
            self.put_zeros(key_zeros);
        }
        self.put(&value_len);
        if value_zeros < FRAME {
            self.put(&vec![0; value_zeros]);
        } else {
            self.put_zeros(value_zeros);
        }
        self.put(&[0]);
        self.records += 1;
    }

    /// The batch, as a producer would send it and a broker accepts it.
    fn into_batch(mut self) -> ValidBatch {
        self.end_frame();
        let mut builder = BatchBuilder::new(Compression::Zstd);
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

const GIGABYTE: usize = 1 << 30;
const MANY: i32 = 1_000_000;

/// A gigabyte of zeros in one record, between two small ones.
fn one_large_value() -> ValidBatch {
    let mut body = Body::default();
    body.add(b"superseded", 0, 0);
    body.add(b"large", 0, GIGABYTE);
    body.add(b"small", 0, 0);
    body.into_batch()
}

/// The same as a key, which others are compared with.
fn one_large_key() -> ValidBatch {
    let mut body = Body::default();
    body.add(b"superseded", 0, 0);
    body.add(b"large", GIGABYTE, 0);
    body.add(b"small", 0, 0);
    body.into_batch()
}

/// A hundred megabytes of records, of a hundred keys; those of one come to an end with another batch.
fn many_records() -> ValidBatch {
    let mut body = Body::default();
    for n in 0..MANY {
        let key = if n % 100 == 0 { "superseded".to_owned() } else { format!("key {n}") };
        body.add(key.as_bytes(), 0, 90);
    }
    body.into_batch()
}

struct Fixture {
    log: Arc<Log>,
    _open: Open,
    _directory: Directory,
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
        Self { log, _open: open, _directory: directory }
    }
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
