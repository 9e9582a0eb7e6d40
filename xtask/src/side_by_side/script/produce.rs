//! Batches that are stored, and batches that are refused for each reason that there is; in the end, what is stored.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ottla_protocol::Records;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{
    FetchRequest, ListOffsetsRequest, ProduceRequest, fetch_request, list_offsets_request,
};
use ottla_records::Compression;

use super::super::both::Both;
use super::super::subject::{NOBODYS_ID, Subject, now_ms};
use super::batches::{self, LONG_AGO, at, changed, damaged, plain, sized, three, with_body};
use super::{invalid_names, produce_request, topic_id, topic_name, versions};

const PLAIN: &str = "produce";
const APPEND_TIME: &str = "produce-append-time";
const COMPACTED: &str = "produce-compacted";
const SMALL: &str = "produce-small";
const ODD_OFFSETS: &str = "produce-odd-offsets";
const LARGE: &str = "produce-large";
const STRICT_TIMES: &str = "produce-strict-times";
const TWO_IN_SYNC: &str = "produce-two-in-sync";

const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

pub(super) fn run(both: &mut Both) -> Result<()> {
    make_topics(both)?;
    for version in versions::<ProduceRequest>() {
        acknowledgements(both, version)?;
        addressing(both, version)?;
        damage(both, version)?;
        odd_fields(both, version)?;
        odd_records(both, version)?;
        codecs(both, version)?;
        sizes(both, version)?;
        keys(both, version)?;
        times(both, version)?;
    }
    stored(both)
}

fn make_topics(both: &mut Both) -> Result<()> {
    both.create(PLAIN, 3, &[])?;
    both.create(ODD_OFFSETS, 1, &[])?;
    both.create(APPEND_TIME, 1, &[("message.timestamp.type", "LogAppendTime")])?;
    both.create(COMPACTED, 1, &[("cleanup.policy", "compact")])?;
    both.create(SMALL, 1, &[("max.message.bytes", "1000")])?;
    let large = [("max.message.bytes", "4000000"), ("segment.bytes", "1048576")];
    both.create(LARGE, 1, &large)?;
    let strict = [
        ("message.timestamp.before.max.ms", "3600000"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    both.create(STRICT_TIMES, 1, &strict)?;
    both.create(TWO_IN_SYNC, 1, &[("min.insync.replicas", "2")])?;
    for (name, _) in CODECS {
        both.create(&format!("produce-{name}"), 1, &[("compression.type", name)])?;
    }
    Ok(())
}

fn send(both: &mut Both, version: i16, what: &str, topic: &str, batch: Bytes) -> Result<()> {
    both.ask(version, what, |subject| {
        produce_request(subject, version, topic, 0, Some(batch.clone()))
    })?;
    Ok(())
}

fn acknowledgements(both: &mut Both, version: i16) -> Result<()> {
    for acks in [-1, 1, 2, -2, i16::MAX] {
        both.ask(version, &format!("acks={acks}"), |subject| ProduceRequest {
            acks,
            ..produce_request(subject, version, PLAIN, 0, Some(three()))
        })?;
    }
    for timeout_ms in [0, -1] {
        both.ask(version, &format!("a timeout of {timeout_ms} ms"), |subject| ProduceRequest {
            acks: 1,
            timeout_ms,
            ..produce_request(subject, version, PLAIN, 0, Some(three()))
        })?;
    }
    both.ask(version, "acks=all without enough replicas", |subject| {
        produce_request(subject, version, TWO_IN_SYNC, 0, Some(three()))
    })?;
    both.set_up(|subject| {
        let request = produce_request(subject, version, PLAIN, 0, Some(three()));
        // What was written with acks=1 is not visible at once; before this answer it is.
        subject.expect(version, &ProduceRequest { acks: -1, ..request.clone() })?;
        let before = end_of(subject, PLAIN)?;
        subject.send(version, &ProduceRequest { acks: 0, ..request })?;
        let what = "what was produced with acks=0 to be visible";
        subject.wait_for(what, |subject| Ok(end_of(subject, PLAIN)? > before))
    })?;
    both.ask(7, &format!("log end after acks=0 in v{version}"), |_| log_end(PLAIN))?;
    both.talk(&format!("Produce v{version}: acks=0 that fails"), |subject, connection| {
        let request = produce_request(subject, version, PLAIN, 99, Some(three()));
        let request = ProduceRequest { acks: 0, ..request };
        let frame = ottla_protocol::frame::encode_request(version, 1, None, &request)?;
        connection.send(&frame.bytes);
        Ok(vec![connection.receive()?])
    })
}

fn end_of(subject: &mut Subject, topic: &str) -> Result<i64> {
    let answer = subject.expect(7, &log_end(topic))?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(partitions.next().context("one partition was asked for")?.offset)
}

fn log_end(topic: &str) -> ListOffsetsRequest {
    let partition = list_offsets_request::ListOffsetsPartition {
        partition_index: 0,
        current_leader_epoch: -1,
        timestamp: -1,
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![partition],
        }],
        ..Default::default()
    }
}

fn partition(index: i32, batch: Bytes) -> PartitionProduceData {
    PartitionProduceData { index, records: Some(Records::Bytes(batch)) }
}

fn topic(
    subject: &Subject,
    version: i16,
    name: &str,
    partition_data: Vec<PartitionProduceData>,
) -> TopicProduceData {
    TopicProduceData {
        name: topic_name(version, name),
        topic_id: topic_id(subject, version, name),
        partition_data,
    }
}

fn request(topic_data: Vec<TopicProduceData>) -> ProduceRequest {
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data, ..Default::default() }
}

fn addressing(both: &mut Both, version: i16) -> Result<()> {
    both.ask(version, "several partitions of several topics", |subject| {
        request(vec![
            topic(subject, version, PLAIN, vec![partition(0, three()), partition(2, three())]),
            topic(subject, version, APPEND_TIME, vec![partition(0, three())]),
        ])
    })?;
    for index in [99, -1, i32::MAX] {
        both.ask(version, &format!("the unknown partition {index}"), |subject| {
            produce_request(subject, version, PLAIN, index, Some(three()))
        })?;
    }
    both.ask(version, "a good and an unknown partition", |subject| {
        let partitions = vec![partition(0, three()), partition(7, three())];
        request(vec![topic(subject, version, PLAIN, partitions)])
    })?;
    both.ask(version, "a partition twice", |subject| {
        let partitions = vec![partition(1, sized(1)), partition(1, sized(2))];
        request(vec![topic(subject, version, PLAIN, partitions)])
    })?;
    both.ask(version, "no topics", |_| request(Vec::new()))?;
    both.ask(version, "no partitions", |subject| {
        request(vec![topic(subject, version, PLAIN, Vec::new())])
    })?;
    if version >= 13 {
        for (what, topic_id) in [("an unknown id", NOBODYS_ID), ("no id", ottla_base::Uuid::ZERO)] {
            both.ask(version, what, |_| {
                let partition_data = vec![partition(0, three())];
                request(vec![TopicProduceData { topic_id, partition_data, ..Default::default() }])
            })?;
        }
    } else {
        for name in invalid_names().into_iter().chain(["produce-unknown".to_owned()]) {
            let short: String = name.chars().take(16).collect();
            both.ask(version, &format!("the unknown topic {short:?}"), |_| {
                let partition_data = vec![partition(0, three())];
                let name = name.as_str().into();
                request(vec![TopicProduceData { name, partition_data, ..Default::default() }])
            })?;
        }
    }
    both.ask(version, "a transactional id, and a batch without transaction", |subject| {
        ProduceRequest {
            transactional_id: Some("t".into()),
            ..produce_request(subject, version, PLAIN, 0, Some(three()))
        }
    })?;
    Ok(())
}

fn damage(both: &mut Both, version: i16) -> Result<()> {
    if version == 13 {
        // Apache Kafka leaves this unanswered, which takes its time to see.
        both.ask(version, "null for records", |subject| {
            produce_request(subject, version, PLAIN, 0, None)
        })?;
    }
    for (what, batch) in damaged_batches() {
        send(both, version, &what, PLAIN, batch.clone())?;
        // What is wrong besides: which is said first?
        both.ask(version, &format!("{what}, and acks=2"), |subject| ProduceRequest {
            acks: 2,
            ..produce_request(subject, version, PLAIN, 0, Some(batch.clone()))
        })?;
        send(both, version, &format!("{what}, and too few replicas"), TWO_IN_SYNC, batch)?;
    }
    Ok(())
}

fn damaged_batches() -> Vec<(String, Bytes)> {
    let batch = three();
    let half = batch.slice(..batch.len() / 2);
    let mut batches = vec![
        ("no bytes for records".to_owned(), Bytes::new()),
        ("one byte for records".to_owned(), batch.slice(..1)),
        ("a header that is cut off".to_owned(), batch.slice(..60)),
        ("a batch that is cut off".to_owned(), half.clone()),
        ("a wrong checksum".to_owned(), damaged(&batch, at::CRC, &[1, 2, 3, 4])),
        ("a flipped byte".to_owned(), damaged(&batch, at::RECORDS + 4, &[0xee])),
        ("two batches".to_owned(), [&batch[..], &batch[..]].concat().into()),
        ("a batch and a half".to_owned(), [&batch[..], &half[..]].concat().into()),
        ("a batch and three bytes".to_owned(), [&batch[..], &[0, 0, 0]].concat().into()),
    ];
    for magic in [0, 1, 3, 0xff_u8] {
        batches.push((format!("magic {magic}"), damaged(&batch, at::MAGIC, &[magic])));
    }
    for length in [0_i32, -1, 48, 49, i32::MAX] {
        let wrong = changed(&batch, at::LENGTH, &length.to_be_bytes());
        batches.push((format!("a length of {length}"), wrong));
    }
    batches
}

/// Header fields that no producer writes so, each under a right checksum.
fn odd_fields(both: &mut Both, version: i16) -> Result<()> {
    let batch = three();
    let mut odd = |what: &str, place: usize, bytes: &[u8]| {
        send(both, version, what, PLAIN, changed(&batch, place, bytes))
    };
    odd("a base offset", at::BASE_OFFSET, &77_i64.to_be_bytes())?;
    odd("a negative base offset", at::BASE_OFFSET, &(-1_i64).to_be_bytes())?;
    odd("a leader epoch", at::LEADER_EPOCH, &5_i32.to_be_bytes())?;
    for (what, attributes) in [
        ("codec 5", 5_i16),
        ("codec 6", 6),
        ("codec 7", 7),
        ("LogAppendTime", 8),
        ("a transaction", 16),
        ("a control batch", 32),
        ("a transaction's control batch", 48),
        ("a delete horizon", 64),
        ("an unused attribute", 128),
        ("all attributes", -1),
    ] {
        odd(what, at::ATTRIBUTES, &attributes.to_be_bytes())?;
    }
    for delta in [0_i32, 1, 3, -1, i32::MAX] {
        odd(&format!("last offset delta {delta}"), at::LAST_OFFSET_DELTA, &delta.to_be_bytes())?;
    }
    for count in [0_i32, 1, 2, 4, -1, i32::MAX] {
        odd(&format!("a count of {count}"), at::RECORD_COUNT, &count.to_be_bytes())?;
    }
    for time in [-1_i64, -2, LONG_AGO - 1, LONG_AGO + 99] {
        odd(&format!("maximum timestamp {time}"), at::MAX_TIMESTAMP, &time.to_be_bytes())?;
    }
    for time in [-1_i64, -2, i64::MAX, i64::MIN] {
        odd(&format!("base timestamp {time}"), at::BASE_TIMESTAMP, &time.to_be_bytes())?;
    }
    odd("a producer epoch without id", at::PRODUCER_EPOCH, &0_i16.to_be_bytes())?;
    odd("a sequence without id", at::BASE_SEQUENCE, &0_i32.to_be_bytes())?;
    odd("a producer id without sequence", at::PRODUCER_ID, &(1_i64 << 40).to_be_bytes())?;
    odd("a negative producer id", at::PRODUCER_ID, &(-2_i64).to_be_bytes())
}

/// Records that are wrong inside, under a right header and checksum.
fn odd_records(both: &mut Both, version: i16) -> Result<()> {
    let one = plain(&[(0, Some(b"k"), Some(b"v"))]);
    let mut odd = |what: &str, body: &[u8]| send(both, version, what, PLAIN, with_body(&one, body));
    // Length, attributes, timestamp delta, offset delta, key, value, headers; zigzag, so 2 stands for 1.
    odd("a sound record", &[16, 0, 0, 0, 2, b'k', 2, b'v', 0])?;
    odd("a record with attributes", &[16, 1, 0, 0, 2, b'k', 2, b'v', 0])?;
    odd("a record with a timestamp delta", &[16, 0, 4, 0, 2, b'k', 2, b'v', 0])?;
    odd("a record with a negative timestamp delta", &[16, 0, 3, 0, 2, b'k', 2, b'v', 0])?;
    odd("a record shorter than it says", &[16, 0, 0, 0, 2, b'k', 2, b'v'])?;
    odd("a record longer than it says", &[14, 0, 0, 0, 2, b'k', 2, b'v', 0])?;
    odd("a key of length -2", &[14, 0, 0, 0, 3, 2, b'v', 0, 0])?;
    odd("a key that is too long", &[16, 0, 0, 0, 40, b'k', 2, b'v', 0])?;
    odd("a value that is too long", &[16, 0, 0, 0, 2, b'k', 40, b'v', 0])?;
    odd("a negative count of headers", &[16, 0, 0, 0, 2, b'k', 2, b'v', 1])?;
    odd("too many headers", &[16, 0, 0, 0, 2, b'k', 2, b'v', 40])?;
    odd("a header without key", &[20, 0, 0, 0, 2, b'k', 2, b'v', 2, 1, 0])?;
    odd("a header whose key is no text", &[24, 0, 0, 0, 2, b'k', 2, b'v', 2, 4, 0xc3, 0x28, 0])?;
    odd("a negative record length", &[1, 0, 0, 0, 2, b'k', 2, b'v', 0])?;
    odd("a varint that does not end", &[0xff; 12])?;
    odd("bytes behind the last record", &[16, 0, 0, 0, 2, b'k', 2, b'v', 0, 0, 0])?;
    odd("no bytes", &[])?;
    // Only one of the two brokers stores these, so they have a topic of their own.
    for (delta, byte) in [(1, 2), (-1, 1)] {
        let what = format!("a record with offset delta {delta}");
        let body = [16, 0, 0, byte, 2, b'k', 2, b'v', 0];
        send(both, version, &what, ODD_OFFSETS, with_body(&one, &body))?;
    }
    Ok(())
}

fn codecs(both: &mut Both, version: i16) -> Result<()> {
    let value = vec![b'x'; 300];
    let drafts: [batches::Draft<'_>; 3] =
        [(0, Some(b"a"), Some(&value)), (2, Some(b"b"), None), (1, None, Some(b""))];
    for (name, compression) in CODECS {
        let batch = batches::compressed(compression, &drafts);
        send(both, version, name, PLAIN, batch.clone())?;
        for (topic, _) in CODECS {
            let what = format!("{name} to a topic of compression.type={topic}");
            send(both, version, &what, &format!("produce-{topic}"), batch.clone())?;
        }
        send(both, version, &format!("{name} with LogAppendTime"), APPEND_TIME, batch.clone())?;
        if compression != Compression::None {
            let garbage = with_body(&batch, b"this is not what the codec wrote");
            send(both, version, &format!("{name} that is garbage"), PLAIN, garbage)?;
            let body = batch.get(at::RECORDS..batch.len() - 1).unwrap_or_default();
            let cut = with_body(&batch, body);
            send(both, version, &format!("{name} that is cut off"), PLAIN, cut)?;
            let count = 2_i32.to_be_bytes();
            let more = changed(&batch, at::RECORD_COUNT, &count);
            send(both, version, &format!("{name} with a record too many"), PLAIN, more)?;
        }
    }
    Ok(())
}

fn sizes(both: &mut Both, version: i16) -> Result<()> {
    let overhead = sized(0).len();
    for bytes in [900, 1000 - overhead - 1, 1000 - overhead, 1000 - overhead + 1, 5000] {
        let batch = sized(bytes);
        let what = format!("{} bytes where 1000 are allowed", batch.len());
        send(both, version, &what, SMALL, batch)?;
    }
    let zeros = vec![0; 5000];
    let compressed = batches::compressed(Compression::Gzip, &[(0, None, Some(&zeros))]);
    send(both, version, "few compressed bytes where 1000 are allowed", SMALL, compressed)?;
    send(both, version, "more bytes than a segment", LARGE, sized(2_000_000))?;
    send(both, version, "more bytes than the default allows", PLAIN, sized(1_048_588))?;
    Ok(())
}

fn keys(both: &mut Both, version: i16) -> Result<()> {
    let value: Option<&[u8]> = Some(b"v");
    for (what, drafts) in [
        ("a key", vec![(0, Some(&b"k"[..]), value)]),
        ("no key", vec![(0, None, value)]),
        ("keys and a missing one", vec![(0, Some(b"k"), value), (1, None, value), (2, None, None)]),
        ("an empty key", vec![(0, Some(&b""[..]), value)]),
    ] {
        let compacted = format!("{what} to a compacted topic");
        send(both, version, &compacted, COMPACTED, plain(&drafts))?;
        let batch = batches::compressed(Compression::Lz4, &drafts);
        send(both, version, &format!("{compacted}, compressed"), COMPACTED, batch)?;
    }
    Ok(())
}

fn times(both: &mut Both, version: i16) -> Result<()> {
    send(both, version, "the broker's time", APPEND_TIME, three())?;
    let since = now_ms() - LONG_AGO;
    let hour = 3_600_000;
    let value: Option<&[u8]> = Some(b"v");
    for (what, drafts) in [
        ("a time of now", vec![(since, None, value)]),
        ("a time that is too early", vec![(0, None, value)]),
        ("a time that is too late", vec![(since + 2 * hour, None, value)]),
        ("times of which one is too early", vec![(since, None, value), (0, None, value)]),
        ("times that are early and late", vec![(0, None, value), (since + 9 * hour, None, value)]),
    ] {
        send(both, version, what, STRICT_TIMES, plain(&drafts))?;
        let batch = batches::compressed(Compression::Gzip, &drafts);
        send(both, version, &format!("{what}, compressed"), STRICT_TIMES, batch)?;
    }
    let late = plain(&[(since + 2 * hour, None, value)]);
    send(both, version, "a time that is later than the default allows", PLAIN, late)?;
    let timeless = plain(&[(-LONG_AGO - 1, None, value)]);
    send(both, version, "no time", PLAIN, timeless.clone())?;
    send(both, version, "no time where time is checked", STRICT_TIMES, timeless)?;
    send(both, version, "a negative time", PLAIN, plain(&[(-LONG_AGO - 5, None, value)]))
}

/// What all that has left in the logs.
fn stored(both: &mut Both) -> Result<()> {
    let mut topics = [(PLAIN, 3), (APPEND_TIME, 1), (COMPACTED, 1), (SMALL, 1), (STRICT_TIMES, 1)]
        .map(|(topic, partitions)| (topic.to_owned(), partitions))
        .to_vec();
    topics.extend(CODECS.map(|(name, _)| (format!("produce-{name}"), 1)));
    for (topic, partitions) in topics {
        for partition in 0..partitions {
            both.ask(17, &format!("what is stored in {topic}-{partition}"), |subject| {
                whole(subject, &topic, partition)
            })?;
        }
    }
    Ok(())
}

/// All that a partition holds.
pub(super) fn whole(subject: &Subject, topic: &str, partition: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        max_bytes: i32::MAX,
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic_id: subject.id(topic),
            partitions: vec![fetch_request::FetchPartition {
                partition,
                current_leader_epoch: -1,
                partition_max_bytes: i32::MAX,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
