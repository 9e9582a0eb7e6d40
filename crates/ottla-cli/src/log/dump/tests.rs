use std::path::Path;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_protocol::records::{
    GroupRecord, LeaderChangeMessage, MetadataRecord, OffsetCommitKey, OffsetCommitValue,
    TopicRecord, encode_versioned,
};
use ottla_records::{BatchBuilder, Compression, ControlType};

use super::*;

fn look(paths: &[&Path], output: OutputFormat, records: bool) -> (Vec<String>, u64) {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let mut out = Vec::new();
    let damaged = dump(&DumpArguments { paths, records }, output, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(str::to_owned).collect(), damaged)
}

fn text_of(path: &Path) -> (Vec<String>, u64) {
    look(&[path], OutputFormat::Table, true)
}

fn written_by_kafka() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ottla-log/tests/kafka")
}

/// A partition's directory with one segment.
fn directory(name: &str, batches: Vec<BatchBuilder>) -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join(name);
    std::fs::create_dir(&directory).unwrap();
    let (mut bytes, mut offset) = (Vec::new(), 0);
    for batch in batches {
        let count = i64::from(batch.record_count());
        bytes.extend_from_slice(&batch.at(Offset(offset), LeaderEpoch(2)).build_bytes());
        offset += count;
    }
    let path = directory.join("00000000000000000000.log");
    std::fs::write(&path, bytes).unwrap();
    (temporary, path)
}

type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn batch(records: &[KeyAndValue<'_>]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    for (key, value) in records {
        builder.append(Timestamp(1_000), *key, *value, &[]);
    }
    builder
}

/// What `kafka-dump-log.sh --deep-iteration` of Apache Kafka 4.3.1 prints of the fixture, as far as the names and
/// values go: "none" is Java's "OptionalLong.empty", and headers and contents are left out.
const BY_KAFKA: [&str; 6] = [
    "baseOffset: 0 lastOffset: 2 count: 3 baseSequence: 0 lastSequence: 2 producerId: 6 producerEpoch: 0 \
     partitionLeaderEpoch: 0 isTransactional: true isControl: false deleteHorizonMs: none position: 0 \
     CreateTime: 1795657213536 size: 103 magic: 2 compresscodec: none crc: 1578575775 isvalid: true",
    "| offset: 0 CreateTime: 1795657213535 keySize: 2 valueSize: 5 sequence: 0",
    "| offset: 1 CreateTime: 1795657213536 keySize: 2 valueSize: 5 sequence: 1",
    "| offset: 2 CreateTime: 1795657213536 keySize: 2 valueSize: 5 sequence: 2",
    "baseOffset: 3 lastOffset: 3 count: 1 baseSequence: -1 lastSequence: -1 producerId: 6 producerEpoch: 1 \
     partitionLeaderEpoch: 0 isTransactional: true isControl: true deleteHorizonMs: none position: 103 \
     CreateTime: 1795657214248 size: 78 magic: 2 compresscodec: none crc: 2178130796 isvalid: true",
    "| offset: 3 CreateTime: 1795657214248 keySize: 4 valueSize: 6 sequence: -1",
];

#[test]
fn batches_and_records_are_shown_as_kafkas_own_tool_shows_them() {
    let path = written_by_kafka().join("transactional-0/00000000000000000000.log");
    let (lines, damaged) = text_of(&path);
    assert_eq!(damaged, 0);
    for (line, expected) in lines.iter().skip(1).zip(BY_KAFKA) {
        assert_eq!(line.split(" headers: ").next(), Some(expected));
    }
    assert!(lines[2].ends_with(" headers: [] key: k0 payload: tx0-0"), "{}", lines[2]);
    assert!(lines[6].ends_with(" endTxnMarker: COMMIT coordinatorEpoch: 0"), "{}", lines[6]);
}

#[test]
fn without_records_a_batch_is_one_line() {
    let path = written_by_kafka().join("codecs-0/00000000000000000000.log");
    let (lines, _) = look(&[&path], OutputFormat::Table, false);
    assert!(lines.iter().skip(1).all(|line| line.starts_with("baseOffset: ")), "{lines:?}");
    for codec in Compression::ALL {
        let name = format!("compresscodec: {} ", codec.name());
        assert!(lines.iter().any(|line| line.contains(&name)), "{name}");
    }
}

#[test]
fn every_line_of_json_is_an_object_that_says_of_what_it_is() {
    let kafka = written_by_kafka();
    let paths = [&*kafka.join("transactional-0"), &*kafka.join("compacted-0")];
    let (lines, damaged) = look(&paths, OutputFormat::Json, true);
    assert_eq!(damaged, 0);
    let objects = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let objects: Vec<_> = objects.collect();
    assert!(objects.iter().all(|it| it["file"].as_str().unwrap().contains("tests/kafka")));
    for kind in [
        "batch",
        "record",
        "timestamp",
        "aborted_transaction",
        "producer",
        "leader_epoch",
        "partition_metadata",
    ] {
        assert!(objects.iter().any(|it| it["type"] == kind), "{kind}");
    }
    let batch = &objects.iter().find(|it| it["type"] == "batch").unwrap();
    let expected = serde_json::json!([0, 2, 6, true, null, "CreateTime", 1_795_657_213_536_i64]);
    let found = ["base_offset", "last_offset", "producer_id", "is_transactional"]
        .into_iter()
        .chain(["delete_horizon_ms", "timestamp_type", "max_timestamp"])
        .map(|name| batch[name].clone());
    assert_eq!(serde_json::Value::Array(found.collect()), expected);
    assert_eq!((&batch["is_valid"], &batch["compression"]), (&true.into(), &"none".into()));
    let record = objects.iter().find(|it| it["type"] == "record").unwrap();
    assert_eq!((&record["key"], &record["value"]), (&"k0".into(), &"tx0-0".into()));
}

#[test]
fn a_flipped_byte_is_shown_as_invalid_and_what_follows_it_is_shown() {
    let kafka = written_by_kafka().join("transactional-0/00000000000000000000.log");
    let mut bytes = std::fs::read(kafka).unwrap();
    bytes[80] ^= 0x10;
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("00000000000000000000.log");
    std::fs::write(&path, bytes).unwrap();
    let (lines, damaged) = look(&[&path], OutputFormat::Table, false);
    assert_eq!(damaged, 1);
    assert!(
        lines[1].starts_with("damage: position: 0 endPosition: 103 firstOffset: 0 endOffset: 3"),
        "{}",
        lines[1]
    );
    assert!(lines[2].ends_with("crc: 1578575775 isvalid: false"), "{}", lines[2]);
    assert_eq!(lines[3], BY_KAFKA[4]);
    let arguments = DumpArguments { paths: vec![path], records: true };
    let failure = run_to(&arguments, OutputFormat::Json, &mut io::sink()).unwrap_err();
    assert_eq!(failure, Failure::new(Exit::Failed, "1 problem was found"));
}

#[test]
fn records_that_cannot_be_read_are_damage_though_the_checksum_is_right() {
    let mut batch = batch(&[(None, Some(b"v"))]).build_bytes().to_vec();
    let body = batch.len() - 8;
    batch[body..].fill(0xff);
    let crc = ottla_records::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("00000000000000000000.log");
    std::fs::write(&path, batch).unwrap();
    assert_eq!(look(&[&path], OutputFormat::Table, false).1, 0, "nobody looked at the records");
    let (lines, damaged) = text_of(&path);
    assert_eq!(damaged, 1);
    assert!(lines[1].ends_with("isvalid: true"), "{}", lines[1]);
    assert!(lines[2].starts_with("damage: what: records can't be read: "), "{}", lines[2]);
}

#[test]
fn bytes_that_are_not_text_are_hexadecimal_in_text_and_base64_in_json() {
    let mut builder = batch(&[]);
    let headers = [("h", Some(&b"\x1b[31m"[..])), ("n", None)];
    builder.append(Timestamp(7), None, Some(&[0, 0xff]), &headers);
    let (_directory, path) = directory("orders-0", vec![builder]);
    let (lines, _) = text_of(&path);
    let expected = "headers: [h=\\u{1b}[31m,n=null] key: null payload: 0x00ff";
    assert!(lines[2].ends_with(expected), "{}", lines[2]);
    let (lines, _) = look(&[&path], OutputFormat::Json, true);
    let expected = concat!(
        r#""headers":[{"name":"h","value":"\u001b[31m"},{"name":"n","value":null}],"#,
        r#""key":null,"value":"AP8=","value_encoding":"base64"}"#
    );
    assert!(lines[1].ends_with(expected), "{}", lines[1]);
}

#[test]
fn the_clusters_own_records_are_decoded_in_their_own_topics_only() {
    let key = OffsetCommitKey { group: "g".into(), topic: "orders".into(), partition: 3 };
    let value = OffsetCommitValue { offset: 42, ..OffsetCommitValue::default() };
    let commit = GroupRecord::OffsetCommit(key, Some(value));
    let (key, value) = commit.encode(3).unwrap();
    let records = [(Some(&*key), value.as_deref()), (Some(&b"\x7f\x00"[..]), None)];
    let (_directory, path) = directory("__consumer_offsets-7", vec![batch(&records)]);
    let (lines, damaged) = text_of(&path);
    assert_eq!(damaged, 0, "what a later version wrote is no damage");
    assert!(lines[2].contains("record: OffsetCommit(OffsetCommitKey { group: \"g\""), "{lines:?}");
    assert!(lines[2].contains("offset: 42"), "{lines:?}");
    assert!(lines[3].contains("undecodable: ") && lines[3].contains("key: "), "{lines:?}");
    let (_directory, path) = directory("offsets-7", vec![batch(&records)]);
    assert!(text_of(&path).0[2].contains("key: "));

    let topic = TopicRecord { name: "orders".into(), ..TopicRecord::default() };
    let value = MetadataRecord::from(topic).encode(0).unwrap();
    let metadata = batch(&[(None, Some(&value))]);
    let (_directory, path) = directory("__cluster_metadata-0", vec![metadata]);
    let (lines, _) = text_of(&path);
    assert!(lines[2].contains("record: TopicRecord version 0 Topic("), "{lines:?}");
}

#[test]
fn control_records_are_told_by_their_type() {
    let message = LeaderChangeMessage { leader_id: 4, ..LeaderChangeMessage::default() };
    let mut leader = BatchBuilder::control();
    // The version is the message's own first field.
    let value = encode_versioned(&message, 0).unwrap().slice(2..);
    leader.append_control(Timestamp(1), ControlType::LeaderChange, &value);
    let mut later = BatchBuilder::control();
    later.append(Timestamp(1), Some(&[0, 0, 0, 99]), Some(b"x"), &[]);
    let (_directory, path) = directory("__cluster_metadata-0", vec![leader, later]);
    let (lines, _) = text_of(&path);
    assert!(lines[2].contains("controlType: LeaderChange message: "), "{lines:?}");
    assert!(lines[2].contains("leader_id: 4"), "{lines:?}");
    assert!(lines[4].contains("controlType: unknown"), "{lines:?}");
}

#[test]
fn nobody_reading_on_is_no_failure_and_a_full_disk_is() {
    struct Closed(io::ErrorKind);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let paths = vec![written_by_kafka().join("codecs-0")];
    let arguments = DumpArguments { paths, records: true };
    let dump_to = |kind, output| dump(&arguments, output, &mut Closed(kind)).map_err(|it| it.exit);
    for output in [OutputFormat::Table, OutputFormat::Json] {
        assert_eq!(dump_to(io::ErrorKind::BrokenPipe, output), Ok(0));
        assert_eq!(dump_to(io::ErrorKind::StorageFull, output), Err(Exit::Failed));
    }
}

#[test]
fn what_is_no_file_of_a_log_is_wrong_usage() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = |path: &Path| DumpArguments { paths: vec![path.to_owned()], records: false };
    let failure =
        run_to(&arguments(temporary.path()), OutputFormat::Table, &mut io::sink()).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.cure.is_some());
    let missing = temporary.path().join("00000000000000000000.log");
    let failure = run_to(&arguments(&missing), OutputFormat::Table, &mut io::sink()).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}
