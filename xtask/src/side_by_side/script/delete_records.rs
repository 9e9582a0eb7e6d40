//! Partitions that begin later, and what can't be deleted.

use anyhow::Result;
use ottla_protocol::messages::DeleteRecordsRequest;
use ottla_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::{FetchRequest, ListOffsetsRequest, fetch_request};

use super::super::both::Both;
use super::{batches, invalid_names, versions, write};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("trim-compacted", 1, &[("cleanup.policy", "compact")])?;
    both.create("trim-both", 1, &[("cleanup.policy", "compact,delete")])?;
    both.create("trim-neither", 1, &[("cleanup.policy", "")])?;
    for topic in ["trim-compacted", "trim-both", "trim-neither"] {
        write(both, topic, 0, &batches::sized(10))?;
    }
    for version in versions::<DeleteRecordsRequest>() {
        trimmed(both, version)?;
        refused(both, version)?;
        policies(both, version)?;
    }
    Ok(())
}

fn topic(name: &str, partitions: &[(i32, i64)]) -> DeleteRecordsTopic {
    let partition = |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
        partition_index,
        offset,
    };
    DeleteRecordsTopic { name: name.into(), partitions: partitions.iter().map(partition).collect() }
}

fn ask(both: &mut Both, version: i16, what: &str, topics: Vec<DeleteRecordsTopic>) -> Result<()> {
    let request = DeleteRecordsRequest { topics, timeout_ms: 10_000 };
    both.ask(version, what, |_| request.clone())?;
    Ok(())
}

fn trimmed(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("trim-{version}");
    both.create(&name, 2, &[])?;
    for partition in [0, 0, 0, 1] {
        write(both, &name, partition, &batches::three())?;
    }
    for offset in [0, 4, 4, 2] {
        ask(both, version, &format!("up to {offset}"), vec![topic(&name, &[(0, offset)])])?;
        left(both, &name, offset)?;
    }
    ask(both, version, "above the end", vec![topic(&name, &[(0, 10)])])?;
    let both_partitions = vec![topic(&name, &[(0, 5), (1, 1), (2, 0)])];
    ask(both, version, "three partitions, of which there are two", both_partitions)?;
    ask(both, version, "everything", vec![topic(&name, &[(0, -1)])])?;
    left(both, &name, 8)?;
    ask(both, version, "everything again", vec![topic(&name, &[(0, -1)])])?;
    write(both, &name, 0, &batches::three())?;
    left(both, &name, 9)?;
    let impatient = DeleteRecordsRequest { topics: vec![topic(&name, &[(0, 10)])], timeout_ms: 0 };
    both.ask(version, "without time to wait", |_| impatient.clone())?;
    left(both, &name, 9)
}

/// Where the log begins and ends, and what a reader gets who asks for an offset.
fn left(both: &mut Both, name: &str, offset: i64) -> Result<()> {
    for timestamp in [-2, -1] {
        both.ask(9, &format!("offset {timestamp} of {name}"), |_| ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: name.into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: 0,
                    current_leader_epoch: -1,
                    timestamp,
                }],
            }],
            ..Default::default()
        })?;
    }
    both.ask(12, &format!("{name} from {offset}"), |_| FetchRequest {
        max_bytes: 1 << 20,
        topics: vec![fetch_request::FetchTopic {
            topic: name.into(),
            partitions: vec![fetch_request::FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })?;
    Ok(())
}

fn refused(both: &mut Both, version: i16) -> Result<()> {
    ask(both, version, "an unknown topic", vec![topic("nobody-made-this", &[(0, 0)])])?;
    ask(both, version, "the metadata log", vec![topic("__cluster_metadata", &[(0, 0)])])?;
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        ask(both, version, &format!("the invalid name {short:?}"), vec![topic(&name, &[(0, 0)])])?;
    }
    for offset in [-2, -3, i64::MIN, i64::MAX, 2] {
        ask(both, version, &format!("offset {offset}"), vec![topic("trim-both", &[(0, offset)])])?;
    }
    ask(both, version, "unknown partitions", vec![topic("trim-both", &[(1, 0), (-1, 0)])])?;
    ask(both, version, "a partition twice", vec![topic("trim-both", &[(0, 9), (0, 0)])])?;
    let twice = vec![topic("trim-both", &[(0, 0)]), topic("trim-both", &[(0, 9)])];
    ask(both, version, "a topic twice", twice)?;
    ask(both, version, "no partitions", vec![topic("trim-both", &[])])?;
    ask(both, version, "no topics", Vec::new())
}

fn policies(both: &mut Both, version: i16) -> Result<()> {
    for name in ["trim-compacted", "trim-both", "trim-neither"] {
        ask(both, version, name, vec![topic(name, &[(0, 1)])])?;
        ask(both, version, &format!("{name}, everything"), vec![topic(name, &[(0, -1)])])?;
    }
    Ok(())
}
