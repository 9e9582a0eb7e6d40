//! Offsets by time, by the special times, and what can't be looked up.

use anyhow::Result;
use ottla_protocol::messages::ListOffsetsRequest;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_records::Compression;

use super::super::both::Both;
use super::batches::{LONG_AGO, compressed, plain};
use super::{invalid_names, versions, write};

const TOPIC: &str = "offsets";
const APPEND_TIME: &str = "offsets-append-time";

pub(super) fn run(both: &mut Both) -> Result<()> {
    make_topics(both)?;
    for version in versions::<ListOffsetsRequest>() {
        special_times(both, version)?;
        times(both, version)?;
        addressing(both, version)?;
        epochs_and_readers(both, version)?;
    }
    Ok(())
}

/// Partition 0 has times out of order and ties, partition 1 is compressed, partition 2 is empty, and partition 3 has
/// no times.
fn make_topics(both: &mut Both) -> Result<()> {
    both.create(TOPIC, 4, &[])?;
    both.create(APPEND_TIME, 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let value: Option<&[u8]> = Some(b"v");
    for times in [&[1000_i64, 1001, 1002][..], &[2000, 5000, 3000], &[4000], &[5000, 100]] {
        let drafts: Vec<_> = times.iter().map(|time| (*time, None, value)).collect();
        write(both, TOPIC, 0, &plain(&drafts))?;
        write(both, TOPIC, 1, &compressed(Compression::Lz4, &drafts))?;
    }
    write(both, TOPIC, 3, &plain(&[(-LONG_AGO - 1, None, value)]))?;
    write(both, APPEND_TIME, 0, &plain(&[(0, None, value), (1, None, value)]))
}

fn request(topic: &str, partitions: &[(i32, i64)]) -> ListOffsetsRequest {
    let partition = |(partition_index, timestamp): &(i32, i64)| ListOffsetsPartition {
        partition_index: *partition_index,
        current_leader_epoch: -1,
        timestamp: *timestamp,
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: partitions.iter().map(partition).collect(),
        }],
        ..Default::default()
    }
}

fn ask(both: &mut Both, version: i16, what: &str, request: &ListOffsetsRequest) -> Result<()> {
    both.ask(version, what, |_| request.clone())?;
    Ok(())
}

fn special_times(both: &mut Both, version: i16) -> Result<()> {
    for time in -8..=-1 {
        let all = [(0, time), (1, time), (2, time), (3, time)];
        ask(both, version, &format!("time {time}"), &request(TOPIC, &all))?;
        let what = format!("time {time} of a topic with the broker's times");
        ask(both, version, &what, &request(APPEND_TIME, &[(0, time)]))?;
    }
    ask(both, version, "time -100", &request(TOPIC, &[(0, -100)]))?;
    ask(both, version, "the earliest possible time", &request(TOPIC, &[(0, i64::MIN)]))
}

fn times(both: &mut Both, version: i16) -> Result<()> {
    for after in [0, 999, 1000, 1001, 1500, 2000, 2500, 3000, 3500, 4000, 4001, 5000, 5001] {
        let time = LONG_AGO + after;
        let all = [(0, time), (1, time), (2, time), (3, time)];
        ask(both, version, &format!("{after} ms"), &request(TOPIC, &all))?;
    }
    ask(both, version, "time 0", &request(TOPIC, &[(0, 0), (2, 0), (3, 0)]))?;
    ask(both, version, "the latest possible time", &request(TOPIC, &[(0, i64::MAX)]))?;
    ask(both, version, "a time before the broker's times", &request(APPEND_TIME, &[(0, LONG_AGO)]))
}

fn addressing(both: &mut Both, version: i16) -> Result<()> {
    for partition in [4, 99, -1] {
        for time in [-1, LONG_AGO, -100] {
            let what = format!("the unknown partition {partition}, time {time}");
            ask(both, version, &what, &request(TOPIC, &[(partition, time)]))?;
        }
    }
    for name in invalid_names().into_iter().chain(["offsets-unknown".to_owned()]) {
        let short: String = name.chars().take(16).collect();
        let what = format!("the unknown topic {short:?}");
        ask(both, version, &what, &request(&name, &[(0, -1), (1, -2)]))?;
    }
    let twice = [(0, -1), (1, -1), (0, -2)];
    ask(both, version, "a partition twice", &request(TOPIC, &twice))?;
    let mut several = request(TOPIC, &[(1, -1), (0, -2), (9, -1)]);
    several.topics.extend(request(APPEND_TIME, &[(0, -1)]).topics);
    several.topics.extend(request("offsets-unknown", &[(0, -1)]).topics);
    ask(both, version, "several topics", &several)?;
    let mut same = request(TOPIC, &[(0, -1)]);
    same.topics.extend(request(TOPIC, &[(1, -1)]).topics);
    ask(both, version, "a topic in two places", &same)?;
    ask(both, version, "no topics", &ListOffsetsRequest { replica_id: -1, ..Default::default() })?;
    ask(both, version, "no partitions", &request(TOPIC, &[]))
}

fn epochs_and_readers(both: &mut Both, version: i16) -> Result<()> {
    if version >= 4 {
        for epoch in [0, 1, -2, i32::MAX] {
            for time in [-1, -2, -3, LONG_AGO] {
                let mut request = request(TOPIC, &[(0, time)]);
                let partitions = request.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| partition.current_leader_epoch = epoch);
                let what = format!("leader epoch {epoch}, time {time}");
                ask(both, version, &what, &request)?;
            }
        }
    }
    if version >= 2 {
        for isolation_level in [1, 2, -1] {
            let all = [(0, -1), (0, -2), (1, -3), (2, -1)];
            let request = ListOffsetsRequest { isolation_level, ..request(TOPIC, &all[2..]) };
            ask(both, version, &format!("isolation level {isolation_level}"), &request)?;
        }
    }
    for replica_id in [-2, -3, 1, 5] {
        let request = ListOffsetsRequest { replica_id, ..request(TOPIC, &[(0, -1)]) };
        ask(both, version, &format!("as replica {replica_id}"), &request)?;
    }
    Ok(())
}
