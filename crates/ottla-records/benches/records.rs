//! What it costs to check a batch, to sum it up, and to squeeze it: `cargo bench -p ottla-records`.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at what it does not expect")]

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use ottla_base::{Offset, Timestamp, TopicPartition};
use ottla_records::{
    BatchBuilder, Codec, Compression, RawBatch, Rules, compression, crc32c, parse_produced,
    validate,
};

const BATCH_BYTES: usize = 16 * 1024;
const PRODUCE_VERSION: i16 = 13;
const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn main() {
    divan::main();
}

/// Text that repeats itself about as much as events in JSON do.
fn value(n: usize, len: usize) -> Vec<u8> {
    let text = format!("{{\"order\":{n},\"customer\":\"c-{}\",\"state\":\"placed\"}}", n * 7919);
    text.bytes().cycle().take(len).collect()
}

fn batch(compression: Compression, value_len: usize) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for n in 0..(BATCH_BYTES / value_len).max(1) {
        builder.append(Timestamp(1_000), None, Some(&value(n, value_len)), &[]);
    }
    builder.build_bytes()
}

#[divan::bench(args = [64, 1024, 16 * 1024, 1024 * 1024])]
fn crc(bencher: Bencher<'_, '_>, len: usize) {
    let bytes = value(1, len);
    bencher.counter(BytesCount::new(len)).bench_local(|| crc32c(black_box(&bytes)));
}

/// A batch as a producer sends it, uncompressed, with values of so many bytes.
#[divan::bench(args = [10, 100, 1024, 100 * 1024])]
fn validation(bencher: Bencher<'_, '_>, value_len: usize) {
    check(bencher, &batch(Compression::None, value_len));
}

/// The same where the records must be unpacked to be looked at.
#[divan::bench(args = CODECS)]
fn validation_compressed(bencher: Bencher<'_, '_>, compression: Compression) {
    check(bencher, &batch(compression, 100));
}

fn check(bencher: Bencher<'_, '_>, bytes: &Bytes) {
    let rules = Rules::new(TopicPartition::new("t", 0));
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let raw = parse_produced(bytes.clone(), PRODUCE_VERSION).unwrap();
        validate(raw, &rules, Timestamp(1_000)).unwrap()
    });
}

/// To the end of a batch, which has no record that is young enough.
#[divan::bench(args = Compression::ALL)]
fn find_timestamp(bencher: Bencher<'_, '_>, compression: Compression) {
    let bytes = batch(compression, 100);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let raw = RawBatch::parse(bytes.clone()).unwrap();
        raw.first_at_or_after(Timestamp(1_001), Offset(0)).unwrap()
    });
}

#[divan::bench(args = CODECS)]
fn compression(bencher: Bencher<'_, '_>, compression: Compression) {
    let bytes = value(1, BATCH_BYTES);
    let codec = Codec::from(compression);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| compression::compress(codec, black_box(&bytes)));
}

#[divan::bench(args = CODECS)]
fn decompression(bencher: Bencher<'_, '_>, compression: Compression) {
    let packed = compression::compress(Codec::from(compression), &value(1, BATCH_BYTES));
    let packed = Bytes::from(packed);
    bencher
        .counter(BytesCount::new(BATCH_BYTES))
        .bench_local(|| compression::decompress(compression, black_box(&packed), 1 << 20).unwrap());
}
