//! Records from offsets on: limits, offsets and epochs that are out of range, partitions that are not there.

use std::time::Duration;

use anyhow::Result;
use bytestring::ByteString;
use ottla_base::Uuid;
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ottla_records::Compression;

use super::super::both::Both;
use super::super::subject::{NOBODYS_ID, Subject};
use super::batches::{self, plain, sized, three};
use super::{invalid_names, topic_id, topic_name, versions, write};

const TOPIC: &str = "fetch";
const LARGE: &str = "fetch-large";
const ZSTD: &str = "fetch-zstd";
/// How many records partition 0 of [`TOPIC`] has, three to a batch.
const END: i64 = 30;

pub(super) fn run(both: &mut Both) -> Result<()> {
    make_topics(both)?;
    for version in versions::<FetchRequest>() {
        offsets(both, version)?;
        limits(both, version)?;
        addressing(both, version)?;
        epochs(both, version)?;
        isolation(both, version)?;
        others(both, version)?;
    }
    Ok(())
}

fn make_topics(both: &mut Both) -> Result<()> {
    both.create(TOPIC, 4, &[])?;
    both.create(LARGE, 1, &[])?;
    both.create(ZSTD, 1, &[("compression.type", "zstd")])?;
    for _ in 0..END / 3 {
        write(both, TOPIC, 0, &three())?;
    }
    write(both, TOPIC, 1, &three())?;
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let drafts: [batches::Draft<'_>; 2] =
            [(0, Some(b"k"), Some(&[b'c'; 200])), (1, None, None)];
        write(both, TOPIC, 3, &batches::compressed(compression, &drafts))?;
    }
    write(both, LARGE, 0, &sized(100_000))?;
    write(both, LARGE, 0, &sized(10))?;
    write(both, LARGE, 0, &sized(100_000))?;
    write(both, ZSTD, 0, &batches::compressed(Compression::Zstd, &[(0, None, Some(b"v"))]))
}

/// Does not wait, is in no session, has no limits.
fn request(topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 50_000_000,
        session_epoch: -1,
        topics,
        ..Default::default()
    }
}

fn from(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch: -1,
        partition_max_bytes: 1_000_000,
        ..Default::default()
    }
}

fn topic(
    subject: &Subject,
    version: i16,
    name: &str,
    partitions: Vec<FetchPartition>,
) -> FetchTopic {
    FetchTopic {
        topic: topic_name(version, name),
        topic_id: topic_id(subject, version, name),
        partitions,
    }
}

/// One partition of [`TOPIC`].
fn ask(both: &mut Both, version: i16, what: &str, partition: &FetchPartition) -> Result<()> {
    both.ask(version, what, |subject| {
        request(vec![topic(subject, version, TOPIC, vec![partition.clone()])])
    })?;
    Ok(())
}

fn offsets(both: &mut Both, version: i16) -> Result<()> {
    for offset in [0, 1, 3, 4, END - 1, END, END + 1, -1, -2, i64::MAX, i64::MIN] {
        ask(both, version, &format!("from offset {offset} on"), &from(0, offset))?;
    }
    ask(both, version, "from an empty partition", &from(2, 0))?;
    ask(both, version, "behind the end of an empty partition", &from(2, 1))?;
    ask(both, version, "compressed batches", &from(3, 0))?;
    ask(both, version, "from the middle of a compressed batch on", &from(3, 1))?;
    ask(
        both,
        version,
        "a log start",
        &FetchPartition { log_start_offset: if version >= 5 { 7 } else { -1 }, ..from(0, 0) },
    )
}

fn limits(both: &mut Both, version: i16) -> Result<()> {
    let batch = i32::try_from(three().len()).unwrap_or(i32::MAX);
    let sizes = [0, 1, -1, batch - 1, batch, batch + 1, 2 * batch, 2 * batch + 60, i32::MAX];
    for bytes in sizes {
        let limited = FetchPartition { partition_max_bytes: bytes, ..from(0, 0) };
        ask(both, version, &format!("limits: {bytes} bytes of a partition"), &limited)?;
        both.ask(version, &format!("limits: {bytes} bytes in all"), |subject| FetchRequest {
            max_bytes: bytes,
            ..request(vec![topic(subject, version, TOPIC, vec![from(0, 0), from(1, 0)])])
        })?;
        both.ask(version, &format!("limits: {bytes} bytes of two partitions each"), |subject| {
            let limited =
                |partition| FetchPartition { partition_max_bytes: bytes, ..from(partition, 0) };
            request(vec![topic(subject, version, TOPIC, vec![limited(0), limited(1)])])
        })?;
    }
    both.ask(version, "limits: a batch larger than all of them", |subject| FetchRequest {
        max_bytes: 1000,
        ..request(vec![topic(
            subject,
            version,
            LARGE,
            vec![FetchPartition { partition_max_bytes: 10, ..from(0, 0) }],
        )])
    })?;
    both.ask(version, "limits: a large batch behind a small one", |subject| FetchRequest {
        max_bytes: 10_000,
        ..request(vec![topic(subject, version, LARGE, vec![from(0, 1)])])
    })?;
    both.ask(version, "limits: a large batch of the second partition", |subject| FetchRequest {
        max_bytes: 10_000,
        ..request(vec![
            topic(subject, version, TOPIC, vec![from(1, 0)]),
            topic(subject, version, LARGE, vec![from(0, 0)]),
        ])
    })?;
    for min_bytes in [0, -1, 1_000_000, i32::MAX] {
        both.ask(version, &format!("limits: at least {min_bytes} bytes"), |subject| {
            FetchRequest {
                min_bytes,
                max_wait_ms: 20,
                ..request(vec![topic(subject, version, TOPIC, vec![from(0, 0)])])
            }
        })?;
    }
    for max_wait_ms in [-1, 20] {
        both.ask(version, &format!("waits {max_wait_ms} ms for what does not come"), |subject| {
            FetchRequest {
                max_wait_ms,
                ..request(vec![topic(subject, version, TOPIC, vec![from(0, END)])])
            }
        })?;
    }
    Ok(())
}

fn addressing(both: &mut Both, version: i16) -> Result<()> {
    for partition in [4, 99, -1, i32::MAX] {
        ask(both, version, &format!("the unknown partition {partition}"), &from(partition, 0))?;
    }
    both.ask(version, "several partitions of several topics", |subject| {
        request(vec![
            topic(subject, version, TOPIC, vec![from(1, 0), from(2, 0), from(9, 0), from(0, 99)]),
            topic(subject, version, ZSTD, vec![from(0, 1)]),
        ])
    })?;
    both.ask(version, "a partition twice", |subject| {
        request(vec![topic(subject, version, TOPIC, vec![from(1, 0), from(1, 3)])])
    })?;
    both.ask(version, "no topics", |_| request(Vec::new()))?;
    both.ask(version, "no partitions", |subject| {
        request(vec![topic(subject, version, TOPIC, Vec::new())])
    })?;
    let unknown = |topic: ByteString, topic_id| {
        request(vec![FetchTopic { topic, topic_id, partitions: vec![from(0, 0)] }])
    };
    if version < 13 {
        for name in invalid_names().into_iter().chain(["fetch-unknown".to_owned()]) {
            let short: String = name.chars().take(16).collect();
            both.ask(version, &format!("the unknown topic {short:?}"), |_| {
                unknown(name.as_str().into(), Uuid::ZERO)
            })?;
        }
    } else {
        for (what, id) in [("an unknown id", NOBODYS_ID), ("no id", Uuid::ZERO)] {
            both.ask(version, what, |_| unknown(ByteString::new(), id))?;
        }
    }
    Ok(())
}

fn epochs(both: &mut Both, version: i16) -> Result<()> {
    if version >= 9 {
        for epoch in [0, 1, -2, i32::MAX] {
            let known = FetchPartition { current_leader_epoch: epoch, ..from(0, 0) };
            ask(both, version, &format!("leader epoch {epoch}"), &known)?;
        }
    }
    if version >= 12 {
        for (epoch, offset) in [(0, 0), (0, 3), (0, END), (0, END + 1), (5, 3), (-1, 3), (-2, 3)] {
            let what = format!("last fetched epoch {epoch}, from offset {offset} on");
            let fetched = FetchPartition { last_fetched_epoch: epoch, ..from(0, offset) };
            ask(both, version, &what, &fetched)?;
        }
    }
    Ok(())
}

fn isolation(both: &mut Both, version: i16) -> Result<()> {
    for isolation_level in [1, 2, -1] {
        both.ask(version, &format!("isolation level {isolation_level}"), |subject| FetchRequest {
            isolation_level,
            ..request(vec![topic(
                subject,
                version,
                TOPIC,
                vec![from(1, 0), from(2, 0), from(9, 0)],
            )])
        })?;
    }
    Ok(())
}

fn others(both: &mut Both, version: i16) -> Result<()> {
    both.ask(version, "a topic of zstd", |subject| {
        request(vec![topic(subject, version, ZSTD, vec![from(0, 0)])])
    })?;
    for replica_id in [-2, 5] {
        both.ask(version, &format!("as replica {replica_id}"), |subject| {
            let plain = request(vec![topic(subject, version, TOPIC, vec![from(0, 0)])]);
            if version < 15 {
                return FetchRequest { replica_id, ..plain };
            }
            let replica_state = ReplicaState { replica_id, ..Default::default() };
            FetchRequest { replica_state, ..plain }
        })?;
    }
    if version >= 11 {
        both.ask(version, "from a rack", |subject| FetchRequest {
            rack_id: "elsewhere".into(),
            ..request(vec![topic(subject, version, TOPIC, vec![from(0, 0)])])
        })?;
    }
    woken(both, version)
}

/// A fetch that waits for long is woken by what is written meanwhile.
fn woken(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("fetch-woken-{version}");
    both.create(&name, 1, &[])?;
    let step = format!("Fetch v{version}: woken by an append");
    both.talk(&step, |subject, connection| {
        let waiting = FetchRequest {
            max_wait_ms: 15_000,
            ..request(vec![topic(subject, version, &name, vec![from(0, 0)])])
        };
        let waiting = ottla_protocol::frame::encode_request(version, 1, None, &waiting)?;
        connection.send(&waiting.bytes);
        // It need not be waiting already when the records come, but mostly it is.
        std::thread::sleep(Duration::from_millis(10));
        let batch = Some(plain(&[(0, None, Some(b"at last"))]));
        let write = super::produce_request(subject, 12, &name, 0, batch);
        let write = ottla_protocol::frame::encode_request(12, 2, None, &write)?;
        let mut other = subject.fresh_connection()?;
        other.send(&write.bytes);
        let written = other.receive()?;
        let started = std::time::Instant::now();
        let fetched = connection.receive()?;
        anyhow::ensure!(started.elapsed() < Duration::from_secs(10), "nobody was woken");
        Ok(vec![written, super::connections::kind(&fetched)])
    })
}
