//! Any bytes as a produced record batch: refused or stored, but then readable to the last byte.

use std::hash::DefaultHasher;
use std::ops::ControlFlow;

use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_records::{
    BatchError, Batches, Compression, HEADER_LEN, RawBatch, Record, Rules, TimestampType,
    ValidBatch, crc32c, parse_produced, validate,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// Decompressed bytes that the reading half of the check is willing to hold.
const READ_LIMIT: usize = 1 << 24;

/// The first byte chooses the rules, the second whether length and checksum are put right.
pub fn run(data: &[u8]) {
    let [choice, repair, batch @ ..] = data else {
        return;
    };
    let mut batch = batch.to_vec();
    if repair & 1 == 1 {
        repair_batch(&mut batch);
    }
    let batch = Bytes::from(batch);
    for found in Batches::new(batch.clone()).flatten() {
        read_all(&found);
    }
    let Ok(raw) = parse_produced(batch, 12) else {
        return;
    };
    if let Ok(valid) = validate(raw, &rules(*choice), NOW) {
        check_stored(valid);
    }
}

/// Without a right length and checksum, hardly anything would be seen of what lies behind them.
fn repair_batch(batch: &mut [u8]) {
    if batch.len() < HEADER_LEN {
        return;
    }
    let length = i32::try_from(batch.len() - 12).expect("fuzzers send less than 2 GiB");
    put(batch, 0, &0_i64.to_be_bytes());
    put(batch, 8, &length.to_be_bytes());
    put(batch, 16, &[2]);
    let crc = batch.get(21..).map_or(0, crc32c);
    put(batch, 17, &crc.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, field: &[u8]) {
    if let Some(target) = batch.get_mut(at..at + field.len()) {
        target.copy_from_slice(field);
    }
}

fn rules(choice: u8) -> Rules {
    let mut rules = Rules::new(TopicPartition::new("fuzz", 0));
    rules.compacted = choice & 1 == 1;
    if choice & 2 == 2 {
        rules.timestamp_type = TimestampType::LogAppendTime;
    }
    rules.codec = Compression::from_id(i16::from(choice >> 2 & 7)).map(Into::into);
    rules
}

/// Who reads records and who only looks them over sees the same.
fn read_all(batch: &RawBatch) {
    let Ok(records) = batch.records_within(READ_LIMIT) else {
        return;
    };
    let mut read = Vec::new();
    let is_readable = records
        .map(|record| {
            record.map(|it| {
                read.push((it.offset, it.timestamp, it.key.is_some(), it.value.is_some()))
            })
        })
        .all(|record| record.is_ok());
    let mut seen = Vec::new();
    let looked_over = batch.look_over(|it| {
        seen.push((it.offset, it.timestamp, it.key.is_some(), it.has_value));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((looked_over.is_ok(), seen), (is_readable, read));
}

fn check_stored(mut valid: ValidBatch) {
    valid.assign(Offset(100), LeaderEpoch(1));
    let stored = RawBatch::parse(valid.to_bytes()).expect("what is stored is one batch");
    let valid = stored.clone().verify_crc().expect("what is stored has the right checksum");
    let Ok(records) = stored.records_within(READ_LIMIT) else {
        return;
    };
    let mut next_offset = 100;
    let mut odd = Vec::new();
    for record in records {
        let record = record.expect("what is stored can be read");
        assert_eq!(record.offset, Offset(next_offset));
        next_offset += 1;
        if is_odd(record.offset) {
            odd.push(record);
        }
    }
    assert_eq!(next_offset, stored.header().next_offset());
    check_compacted(&valid, &odd);
}

fn is_odd(offset: Offset) -> bool {
    offset.0 % 2 == 1
}

/// What compaction leaves are the same records.
fn check_compacted(valid: &ValidBatch, odd: &[Record]) {
    let sifted = valid
        .sift(DefaultHasher::new, |record| is_odd(record.offset))
        .expect("what can be read can be looked over");
    assert_eq!(sifted.is_empty(), odd.is_empty());
    if odd.is_empty() {
        return;
    }
    for horizon in [None, Some(NOW)] {
        let left = match sifted.retained(horizon) {
            Err(BatchError::TooMuchRetained { .. }) => return,
            left => left.expect("what can be looked over can be copied"),
        };
        let left = RawBatch::parse(left.to_bytes()).expect("what is left is one batch");
        let left = left.verify_crc().expect("what is left has the right checksum");
        let left = left.records().expect("what is left can be read");
        let left: Vec<Record> = left.map(|record| record.expect("as it could before")).collect();
        assert_eq!(left, odd);
    }
}
