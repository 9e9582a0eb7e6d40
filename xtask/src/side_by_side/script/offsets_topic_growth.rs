//! `__consumer_offsets` gets more partitions: what groups have committed is still found, and more can be committed.

use anyhow::{Result, ensure};
use ottla_base::ErrorCode;
use ottla_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::{
    CreatePartitionsRequest, OffsetCommitRequest, OffsetFetchRequest, offset_fetch_request,
};

use super::super::both::Both;

const TOPIC: &str = "offsets-topic-growth";
const OFFSETS: &str = "__consumer_offsets";
/// Enough to be in all partitions before and after.
const GROUPS: i64 = 20;
const COMMIT: i16 = 9;
const FETCH: i16 = 9;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(super::find_coordinator::wait_for_a_coordinator)?;
    both.create(TOPIC, 1, &[])?;
    for group in 0..GROUPS {
        commit(both, group, 100 + group)?;
    }
    both.set_up(|subject| {
        let topic = CreatePartitionsTopic { name: OFFSETS.into(), count: 7, assignments: None };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = subject.expect(3, &request)?;
        let code = answer.results.first().map(|result| result.error_code);
        ensure!(code == Some(ErrorCode::NONE), "{OFFSETS} does not grow: {answer:?}");
        subject.wait_until_usable(OFFSETS, 7)
    })?;
    for group in 0..GROUPS {
        fetch(both, group)?;
        commit(both, group, 200 + group)?;
        fetch(both, group)?;
    }
    Ok(())
}

fn name(group: i64) -> String {
    format!("{TOPIC}-{group}")
}

fn commit(both: &mut Both, group: i64, offset: i64) -> Result<()> {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_leader_epoch: -1,
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: name(group).into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![topic],
        ..Default::default()
    };
    both.ask(COMMIT, &format!("{offset} by group {group}"), |_| request.clone()).map(drop)
}

fn fetch(both: &mut Both, group: i64) -> Result<()> {
    let asked = offset_fetch_request::OffsetFetchRequestGroup {
        group_id: name(group).into(),
        member_epoch: -1,
        topics: None,
        ..Default::default()
    };
    let request = OffsetFetchRequest { groups: vec![asked], ..Default::default() };
    both.ask(FETCH, &format!("of group {group}"), |_| request.clone()).map(drop)
}
