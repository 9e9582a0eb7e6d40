//! Partitions that are to move, and have nowhere to go.

use anyhow::Result;
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest,
};

use super::super::both::Both;
use super::{invalid_names, versions};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("moved", 2, &[])?;
    ask_all(both)?;
    both.through_controllers(ask_all)
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<AlterPartitionReassignmentsRequest>() {
        alter_all(both, version)?;
    }
    for version in versions::<ListPartitionReassignmentsRequest>() {
        list(both, version, None)?;
        list(both, version, Some(&[]))?;
        list(both, version, Some(&[("moved", &[0, 1, 2, -1])]))?;
        list(both, version, Some(&[("moved", &[]), ("nobody-made-this", &[0])]))?;
    }
    Ok(())
}

fn list(both: &mut Both, version: i16, topics: Option<&[(&str, &[i32])]>) -> Result<()> {
    let topic = |(name, indexes): &(&str, &[i32])| ListPartitionReassignmentsTopics {
        name: (*name).into(),
        partition_indexes: indexes.to_vec(),
    };
    let request = ListPartitionReassignmentsRequest {
        timeout_ms: 10_000,
        topics: topics.map(|topics| topics.iter().map(topic).collect()),
    };
    both.ask(version, &format!("{topics:?}"), |_| request.clone())?;
    Ok(())
}

fn alter_all(both: &mut Both, version: i16) -> Result<()> {
    let mut alter = |topic: &str, partition, replicas: Option<&[i32]>| {
        alter(both, version, true, &[(topic, partition, replicas)])
    };
    for replicas in
        [None, Some(&[1][..]), Some(&[]), Some(&[2]), Some(&[-1]), Some(&[1, 1]), Some(&[1, 2])]
    {
        alter("moved", 0, replicas)?;
    }
    alter("moved", 2, Some(&[1]))?;
    alter("moved", -1, None)?;
    alter("nobody-made-this", 0, Some(&[1]))?;
    alter("__cluster_metadata", 0, Some(&[1]))?;
    for name in invalid_names() {
        alter(&name, 0, None)?;
    }
    let several = [("moved", 0, Some(&[1][..])), ("moved", 1, None), ("nobody-made-this", 0, None)];
    self::alter(both, version, true, &several)?;
    self::alter(both, version, true, &[])?;
    for timeout_ms in [0, -1] {
        alter_within(both, version, true, &several, timeout_ms)?;
        alter_within(both, version, true, &[], timeout_ms)?;
    }
    if version >= 1 {
        self::alter(both, version, false, &[("moved", 0, Some(&[1]))])?;
        self::alter(both, version, false, &[("moved", 0, Some(&[]))])?;
        self::alter(both, version, false, &[])?;
    }
    Ok(())
}

type Wanted<'a> = (&'a str, i32, Option<&'a [i32]>);

fn alter(
    both: &mut Both,
    version: i16,
    may_change_factor: bool,
    wanted: &[Wanted<'_>],
) -> Result<()> {
    alter_within(both, version, may_change_factor, wanted, 10_000)
}

fn alter_within(
    both: &mut Both,
    version: i16,
    may_change_factor: bool,
    wanted: &[Wanted<'_>],
    timeout_ms: i32,
) -> Result<()> {
    let topic = |(name, partition_index, replicas): &Wanted<'_>| ReassignableTopic {
        name: (*name).into(),
        partitions: vec![ReassignablePartition {
            partition_index: *partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        }],
    };
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms,
        allow_replication_factor_change: may_change_factor,
        topics: wanted.iter().map(topic).collect(),
    };
    let what = format!("{wanted:?}, factor may change: {may_change_factor}, in {timeout_ms} ms");
    both.ask(version, &what, |_| request.clone())?;
    Ok(())
}
