//! Compares with Apache Kafka 4.3.1: its batches are read and rebuilt, its verdicts are repeated.
//!
//! The files under `golden/` are Kafka's own output; `Golden.java` beside them made them.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_base::{ErrorCode, LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_records::{
    BatchBuilder, Codec, Compression, ControlType, EndTransactionMarker, HeaderSlice, RawBatch,
    Record, Rejection, Rules, TimestampType, ValidBatch, parse_produced, validate,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LEADER_EPOCH: LeaderEpoch = LeaderEpoch(3);

fn golden(name: &str) -> Bytes {
    let path = format!("{}/tests/golden/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).into()
}

fn read(batch: &RawBatch) -> Vec<Record> {
    batch.records().expect("readable").collect::<Result<_, _>>().expect("readable")
}

/// The records of `various` in Golden.java.
fn append_various(builder: &mut BatchBuilder) {
    let long: Vec<u8> = (0..=250).cycle().take(3000).collect();
    let headers: [HeaderSlice<'_>; 4] =
        [("twice", Some(b"1")), ("twice", None), ("", Some(b"")), ("ünï", Some(&[0xff, 0]))];
    let at = |delta| Timestamp(NOW.0 + delta);
    builder.append(at(0), Some(b"k"), Some(b"v"), &[]);
    builder.append(at(5), None, Some(b"only a value"), &[]);
    builder.append(at(-1000), Some(b"only a key"), None, &[]);
    builder.append(at(0), Some(b""), Some(b""), &[]);
    builder.append(at(70_000), Some(b"with headers"), Some(b"x"), &headers);
    builder.append(at(70_000), None, None, &[]);
    builder.append(at(0), Some(b"long"), Some(&long), &[]);
}

/// The records of `large` in Golden.java.
fn append_large(builder: &mut BatchBuilder) {
    for i in 0..200_u32 {
        let value: Vec<u8> =
            (0..1000).map(|j| u8::try_from((i * 31 + j * 7) % 251).expect("below 251")).collect();
        let key = format!("key-{i}");
        builder.append(Timestamp(NOW.0 + i64::from(i)), Some(key.as_bytes()), Some(&value), &[]);
    }
}

fn built(mut builder: BatchBuilder, append: impl Fn(&mut BatchBuilder)) -> RawBatch {
    append(&mut builder);
    RawBatch::parse(builder.build_bytes()).expect("just built")
}

#[test]
fn an_uncompressed_batch_is_built_byte_for_byte_as_kafka_builds_it() {
    let batch = built(BatchBuilder::new(Compression::None), append_various);
    assert_eq!(batch.bytes(), &golden("records-none"));
}

#[test]
fn every_codec_of_kafkas_is_read_and_its_crc_is_right() {
    for compression in Compression::ALL {
        let expected = built(BatchBuilder::new(compression), append_various);
        let batch =
            RawBatch::parse(golden(&format!("records-{}", compression.name()))).expect("a batch");
        assert_eq!(batch.header().attributes, expected.header().attributes);
        assert_eq!(batch.header().max_timestamp, NOW.0 + 70_000);
        assert_eq!(read(&batch), read(&expected), "{compression:?}");
        batch.verify_crc().expect("Kafka's checksum");
    }
}

#[test]
fn bodies_of_many_blocks_are_read() {
    let expected = read(&built(BatchBuilder::new(Compression::None), append_large));
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let batch =
            RawBatch::parse(golden(&format!("large-{}", compression.name()))).expect("a batch");
        assert_eq!(read(&batch), expected, "{compression:?}");
    }
}

#[test]
fn the_fields_of_a_transactional_producer_are_where_kafka_has_them() {
    let builder = BatchBuilder::new(Compression::None)
        .at(Offset(42), LeaderEpoch(9))
        .producer(4_000_000_000, 7, i32::MAX - 1)
        .transactional();
    let batch = built(builder, append_various);
    assert_eq!(batch.bytes(), &golden("transactional"));
    assert_eq!(batch.header().last_sequence(), 4, "seven numbers on, wrapped at the largest");
    assert_eq!(batch.header().last_offset(), 48);
}

#[test]
fn log_append_time_hides_the_records_own_timestamps() {
    let batch = built(BatchBuilder::new(Compression::None).log_append_time(NOW), append_various);
    assert_eq!(batch.bytes(), &golden("log-append-time"));
    assert!(read(&batch).iter().all(|record| record.timestamp == NOW));
    assert_eq!(batch.offset_of_max_timestamp(), Ok(Some(Offset(0))));
}

#[test]
fn the_earliest_record_with_the_largest_timestamp_is_the_answer_to_list_offsets() {
    for compression in Compression::ALL {
        let batch =
            RawBatch::parse(golden(&format!("records-{}", compression.name()))).expect("a batch");
        assert_eq!(batch.offset_of_max_timestamp(), Ok(Some(Offset(4))));
        assert_eq!(
            batch.first_at_or_after(Timestamp(NOW.0 + 1), Offset(0)),
            Ok(Some((Timestamp(NOW.0 + 5), Offset(1))))
        );
        assert_eq!(
            batch.first_at_or_after(Timestamp(NOW.0 + 1), Offset(2)),
            Ok(Some((Timestamp(NOW.0 + 70_000), Offset(4))))
        );
        assert_eq!(batch.first_at_or_after(Timestamp(NOW.0 + 70_001), Offset(0)), Ok(None));
    }
}

#[test]
fn transaction_markers_are_built_byte_for_byte_as_kafka_builds_them() {
    for (control, name) in
        [(ControlType::Abort, "control-abort"), (ControlType::Commit, "control-commit")]
    {
        let mut builder =
            BatchBuilder::control().at(Offset(5), LEADER_EPOCH).producer(77, 2, -1).transactional();
        let marker = EndTransactionMarker { coordinator_epoch: 11 };
        builder.append_control(NOW, control, &marker.to_bytes());
        assert_eq!(builder.build_bytes(), golden(name));
    }
}

#[test]
fn control_records_of_the_quorum_are_built_byte_for_byte_as_kafka_builds_them() {
    for (control, name) in [
        (ControlType::LeaderChange, "control-leader-change"),
        (ControlType::SnapshotHeader, "control-snapshot-header"),
        (ControlType::SnapshotFooter, "control-snapshot-footer"),
        (ControlType::KRaftVersion, "control-kraft-version"),
        (ControlType::KRaftVoters, "control-kraft-voters"),
    ] {
        let kafkas = RawBatch::parse(golden(name)).expect("a batch");
        let [record] = read(&kafkas).try_into().expect("one record");
        let key = record.key.expect("control records have keys");
        assert_eq!(ControlType::from_key(&key), Ok(Some(control)));
        assert!(kafkas.header().attributes.is_control());

        let mut builder = BatchBuilder::control().at(Offset(5), LEADER_EPOCH);
        builder.append_control(NOW, control, &record.value.expect("control records have values"));
        assert_eq!(&builder.build_bytes(), kafkas.bytes(), "{name}");
    }
}

/// One line of `verdicts.txt`: what a Kafka log made of a batch.
struct Verdict {
    name: String,
    produce_version: i16,
    rules: Rules,
    code: ErrorCode,
    wire_message: String,
    record_errors: String,
    batch: Bytes,
    stored: Bytes,
}

impl Verdict {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [name, version, config, code, message, errors, batch, stored] = fields[..] else {
            panic!("not eight fields: {line}");
        };
        Self {
            name: name.to_owned(),
            produce_version: version.parse().expect("a version"),
            rules: rules(config),
            code: ErrorCode(code.parse().expect("a code")),
            wire_message: message.to_owned(),
            record_errors: errors.to_owned(),
            batch: from_hex(batch),
            stored: from_hex(stored),
        }
    }

    /// Ottla's answer to the same batch.
    fn ours(&self) -> Result<ValidBatch, Rejection> {
        let mut valid =
            validate(parse_produced(self.batch.clone(), self.produce_version)?, &self.rules, NOW)?;
        valid.assign(Offset(0), LEADER_EPOCH);
        Ok(valid)
    }

    fn check(&self) {
        let name = &self.name;
        match self.ours() {
            Ok(valid) => {
                assert_eq!(self.code, ErrorCode::NONE, "{name}: Kafka refuses what Ottla accepts");
                self.check_stored(&valid);
            }
            Err(rejection) => {
                assert_eq!(rejection.code, self.code, "{name}: {}", rejection.message);
                assert_eq!(
                    rejection.wire_message().unwrap_or_default(),
                    self.wire_message,
                    "{name}"
                );
                let errors: Vec<String> = rejection
                    .record_errors
                    .iter()
                    .map(|error| format!("{}:{}", error.batch_index, error.message))
                    .collect();
                assert_eq!(errors.join("; "), self.record_errors, "{name}");
            }
        }
    }

    fn check_stored(&self, valid: &ValidBatch) {
        let name = &self.name;
        let ours = RawBatch::parse(valid.to_bytes()).expect("valid");
        let kafkas = RawBatch::parse(self.stored.clone()).expect("Kafka stored it");
        let sent = RawBatch::parse(self.batch.clone()).expect("it was accepted");
        ours.clone().verify_crc().expect("the checksum of what is stored is right");
        if sent.header().attributes.compression() == kafkas.header().attributes.compression() {
            assert_eq!(
                ours.bytes(),
                kafkas.bytes(),
                "{name}: kept batches are stored byte for byte"
            );
            return;
        }
        // Two compressors need not agree on bytes.
        let mut header = *ours.header();
        header.batch_length = kafkas.header().batch_length;
        header.crc = kafkas.header().crc;
        assert_eq!(&header, kafkas.header(), "{name}");
        assert_eq!(read(&ours), read(&kafkas), "{name}");
    }
}

fn rules(config: &str) -> Rules {
    let mut rules = Rules::new(TopicPartition::new("topic", 0));
    for property in config.split(';').filter(|property| !property.is_empty()) {
        let (key, value) = property.split_once('=').expect("key=value");
        match key {
            "message.timestamp.type" if value == "LogAppendTime" => {
                rules.timestamp_type = TimestampType::LogAppendTime;
            }
            "message.timestamp.before.max.ms" => {
                rules.timestamp_before_max_ms = value.parse().expect("a number");
            }
            "message.timestamp.after.max.ms" => {
                rules.timestamp_after_max_ms = value.parse().expect("a number");
            }
            "max.message.bytes" => rules.max_message_bytes = value.parse().expect("a number"),
            "cleanup.policy" => rules.compacted = value.contains("compact"),
            "compression.type" if value == "uncompressed" => {
                rules.codec = Some(Compression::None.into());
            }
            "compression.type" => {
                let compression: Compression = value.parse().expect("a codec");
                rules.codec = Some(Codec::from(compression));
            }
            _ => panic!("a property that these tests do not know: {property}"),
        }
    }
    rules
}

fn from_hex(text: &str) -> Bytes {
    text.as_bytes()
        .chunks(2)
        .map(|pair| {
            let digits = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(digits, 16).expect("hexadecimal")
        })
        .collect::<Vec<u8>>()
        .into()
}

/// Where Ottla differs on purpose: its code for Kafka's, and why.
fn differences() -> BTreeMap<String, (ErrorCode, ErrorCode)> {
    let mut differences = BTreeMap::new();
    // Kafka computes a buffer's limit from the claimed length, which overflows.
    differences.insert(
        "batch length 2147483647".to_owned(),
        (ErrorCode::INVALID_RECORD, ErrorCode::UNKNOWN_SERVER_ERROR),
    );
    // Kafka forgets to translate the exception when the very first integer does not end.
    differences.insert(
        "none with garbage for records".to_owned(),
        (ErrorCode::INVALID_RECORD, ErrorCode::UNKNOWN_SERVER_ERROR),
    );
    // Kafka does not look at offset deltas in uncompressed batches, and stores records at offsets
    // outside of their batch. Byte 64 is such a delta; with these two, byte 63 swallows it.
    let deltas = [1, 2, 3, 126, 127, 128, 255].map(|byte| format!("byte 64 is {byte}"));
    let swallowed = [128, 255].map(|byte| format!("byte 63 is {byte}"));
    for name in deltas.into_iter().chain(swallowed) {
        differences.insert(name, (ErrorCode::INVALID_RECORD, ErrorCode::NONE));
    }
    differences
}

#[test]
fn every_batch_gets_kafkas_verdict() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/verdicts.txt");
    let verdicts = std::fs::read_to_string(path).expect("checked in");
    let mut differences = differences();
    let mut judged = 0;
    for line in verdicts.lines().filter(|line| !line.starts_with('#')) {
        let verdict = Verdict::parse(line);
        judged += 1;
        let Some((ours, kafkas)) = differences.remove(&verdict.name) else {
            verdict.check();
            continue;
        };
        let code = verdict.ours().map_or_else(|rejection| rejection.code, |_| ErrorCode::NONE);
        assert_eq!((code, verdict.code), (ours, kafkas), "{}", verdict.name);
    }
    assert!(judged > 300, "verdicts.txt holds {judged} verdicts only");
    assert!(differences.is_empty(), "no longer judged: {differences:?}");
}
