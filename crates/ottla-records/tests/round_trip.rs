//! Whatever is built is valid, and read back as it was given, in every codec.

use bytes::Bytes;
use ottla_base::{ErrorCode, LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_records::{
    BatchBuilder, BatchError, Batches, Compression, Header, RawBatch, Record, Rules, validate,
};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn rules() -> Rules {
    Rules::new(TopicPartition::new("topic", 0))
}

fn field() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from))
}

fn header() -> impl Strategy<Value = Header> {
    (".{0,10}", field()).prop_map(|(key, value)| Header { key: key.into_bytes().into(), value })
}

fn record() -> impl Strategy<Value = Record> {
    let timestamp = (0..=NOW.0).prop_map(Timestamp);
    (timestamp, field(), field(), prop::collection::vec(header(), 0..4)).prop_map(
        |(timestamp, key, value, headers)| Record {
            offset: Offset(0),
            timestamp,
            key,
            value,
            headers,
        },
    )
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 1..30).prop_map(|mut records| {
        for (offset, record) in records.iter_mut().enumerate() {
            record.offset = Offset(i64::try_from(offset).expect("below 30"));
        }
        records
    })
}

fn build(compression: Compression, records: &[Record]) -> RawBatch {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let headers: Vec<(String, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|header| (header.key_text().into_owned(), header.value.as_deref()))
            .collect();
        let headers: Vec<_> = headers.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    RawBatch::parse(builder.build_bytes()).expect("just built")
}

fn read(batch: &RawBatch) -> Vec<Record> {
    batch.records().expect("readable").collect::<Result<_, _>>().expect("readable")
}

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #[test]
    fn records_survive_every_codec(records in records(), compression in compression()) {
        prop_assert_eq!(read(&build(compression, &records)), records);
    }

    #[test]
    fn a_topics_codec_changes_the_bytes_and_not_the_records(
        records in records(),
        sent in compression(),
        stored in compression(),
    ) {
        let rules = Rules { codec: Some(stored.into()), ..rules() };
        let mut valid = validate(build(sent, &records), &rules, NOW).expect("valid");
        prop_assert_eq!(valid.header().attributes.compression(), Ok(stored));
        valid.assign(Offset(0), LeaderEpoch(0));
        let raw = RawBatch::parse(valid.to_bytes()).expect("one batch");
        raw.clone().verify_crc().expect("a right checksum");
        prop_assert_eq!(read(&raw), records);
    }

    #[test]
    fn a_batch_keeps_its_checksum_wherever_it_is_put(records in records(), offset in 0_i64.., epoch: i32) {
        let mut valid = validate(build(Compression::None, &records), &rules(), NOW).expect("valid");
        valid.assign(Offset(offset), LeaderEpoch(epoch));
        let raw = RawBatch::parse(valid.to_bytes()).expect("one batch");
        prop_assert!(raw.verify_crc().is_ok());
    }

    #[test]
    fn every_flipped_bit_under_the_checksum_is_noticed(
        records in records(),
        at: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let mut bytes = build(Compression::None, &records).bytes().to_vec();
        let at = 21 + at.index(bytes.len() - 21);
        bytes[at] ^= 1 << bit;
        let rejection = validate(RawBatch::parse(bytes.into()).expect("one batch"), &rules(), NOW);
        prop_assert_eq!(rejection.map_err(|rejection| rejection.code), Err(ErrorCode::CORRUPT_MESSAGE));
    }
}

fn one_record(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(NOW, None, Some(value), &[]);
    builder.build_bytes()
}

#[test]
fn batches_end_quietly_before_one_that_is_cut_off() {
    let (first, second) = (one_record(b"first"), one_record(b"second"));
    let run = [first.as_ref(), second.as_ref()].concat();
    for cut in first.len()..run.len() {
        let mut batches = Batches::new(Bytes::copy_from_slice(&run[..cut]));
        assert_eq!(batches.next().expect("whole").expect("sound").bytes(), &first);
        assert_eq!(batches.next(), None);
        assert_eq!(batches.remaining().len(), cut - first.len());
    }
    assert_eq!(Batches::new(run.into()).count(), 2);
}

#[test]
fn batches_end_after_one_that_is_broken() {
    let run = [one_record(b"first").as_ref(), &[0; 100]].concat();
    let found: Vec<_> = Batches::new(run.into()).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], Err(BatchError::TooSmall { size: 12, minimum: 61 }));
}

#[test]
fn a_record_shares_the_memory_of_its_uncompressed_batch() {
    let bytes = one_record(b"shared");
    let [record] =
        read(&RawBatch::parse(bytes.clone()).expect("one batch")).try_into().expect("one record");
    let value = record.value.expect("not null");
    assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn the_body_of_a_valid_batch_shares_the_memory_of_the_request() {
    let bytes = one_record(b"shared");
    let valid =
        validate(RawBatch::parse(bytes.clone()).expect("one batch"), &rules(), NOW).expect("valid");
    assert!(bytes.as_ptr_range().contains(&valid.body().as_ptr()));
}

#[test]
fn a_reader_sets_its_own_limit_to_what_is_decompressed() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.append(NOW, None, Some(&[0; 10_000]), &[]);
    let batch = RawBatch::parse(builder.build_bytes()).expect("one batch");
    assert!(batch.records_within(20_000).is_ok());
    assert_eq!(
        batch.records_within(9_999).map(drop),
        Err(BatchError::TooMuchDecompressed { limit: 9_999 })
    );
}

#[test]
fn a_long_list_of_faulty_records_is_counted_whole_and_listed_in_part() {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..20_000 {
        builder.append(NOW, None, None, &[]);
    }
    let batch = RawBatch::parse(builder.build_bytes()).expect("one batch");
    let rules = Rules { compacted: true, ..rules() };
    let rejection = validate(batch, &rules, NOW).expect_err("no record has a key");
    assert_eq!(rejection.code, ErrorCode::INVALID_RECORD);
    assert_eq!(rejection.record_errors.len(), 10_000);
    assert!(rejection.message.contains("20000 record errors"), "{}", rejection.message);
}

#[test]
#[should_panic(expected = "at least one record")]
fn an_empty_batch_cannot_be_built() {
    let _ = BatchBuilder::new(Compression::None).build();
}
