//! Groups as administrators see them: listed, described, deleted, in every version.

use anyhow::Result;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetCommitRequest,
};

use super::super::both::Both;
use super::group_membership::Talk;
use super::versions;

const TOPIC: &str = "group-administration";

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(super::find_coordinator::wait_for_a_coordinator)?;
    both.create(TOPIC, 1, &[])?;
    for version in versions::<ListGroupsRequest>() {
        list(both, version)?;
    }
    for version in versions::<DescribeGroupsRequest>() {
        describe(both, version)?;
    }
    for version in versions::<DeleteGroupsRequest>() {
        delete(both, version)?;
    }
    Ok(())
}

/// Groups: one without members, one with a member that has not been assigned anything, one that is stable.
fn make_groups(both: &mut Both, name: &str) -> Result<()> {
    both.ask(9, "a simple group", |_| OffsetCommitRequest {
        group_id: format!("{name}-simple").into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    })?;
    Talk::new(both, 4, &format!("{name}-joined")).first("first")?;
    let mut talk = Talk::new(both, 4, &format!("{name}-stable"));
    let ids = talk.first("first")?;
    talk.sync("it gets nothing", &ids, 1, |_| ())
}

fn list(both: &mut Both, version: i16) -> Result<()> {
    make_groups(both, &format!("list-{version}"))?;
    let filters: &[(&[&str], &[&str])] = match version {
        ..4 => &[(&[], &[])],
        4 => &[
            (&[], &[]),
            (&["Stable"], &[]),
            (&["stable"], &[]),
            (&[" STABLE "], &[]),
            (&["Empty", "CompletingRebalance"], &[]),
            (&["Dead"], &[]),
            (&["nonsense"], &[]),
            (&[""], &[]),
        ],
        _ => &[
            (&[], &[]),
            (&["Stable"], &["classic"]),
            (&[], &["Classic"]),
            (&[], &["CLASSIC", "consumer"]),
            (&[], &["consumer"]),
            (&[], &["share"]),
            (&[], &["nonsense"]),
            (&["Empty"], &[""]),
            (&[], &[" classic "]),
        ],
    };
    for (states, types) in filters {
        both.ask(version, &format!("states {states:?}, types {types:?}"), |_| ListGroupsRequest {
            states_filter: states.iter().map(|it| (*it).into()).collect(),
            types_filter: types.iter().map(|it| (*it).into()).collect(),
        })?;
    }
    Ok(())
}

fn describe(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("describe-{version}");
    make_groups(both, &name)?;
    let all = [
        format!("{name}-simple"),
        format!("{name}-joined-4"),
        format!("{name}-stable-4"),
        "unknown".to_owned(),
        String::new(),
    ];
    for operations in [false, true].into_iter().filter(|operations| !operations || version >= 3) {
        let mut ask = |what: &str, groups: &[String]| {
            both.ask(version, &format!("{what}, operations: {operations}"), |_| {
                DescribeGroupsRequest {
                    groups: groups.iter().map(|it| it.as_str().into()).collect(),
                    include_authorized_operations: operations,
                    ..DescribeGroupsRequest::default()
                }
            })
            .map(drop)
        };
        for group in &all {
            ask(&format!("{group:?}"), std::slice::from_ref(group))?;
        }
        ask("all", &all)?;
        ask("none", &[])?;
        ask("twice", &[all[0].clone(), all[0].clone()])?;
    }
    ask_with_our_field(both, version, &[&all[0], "unknown"])
}

/// Apache Kafka passes over a field that it does not know. About groups that never rebalanced both say the same.
fn ask_with_our_field(both: &mut Both, version: i16, groups: &[&str]) -> Result<()> {
    both.ask(version, "with why they last rebalanced, which they never did", |_| {
        DescribeGroupsRequest {
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ottla_include_last_rebalance: true,
            ..DescribeGroupsRequest::default()
        }
    })
    .map(drop)
}

fn delete(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("delete-{version}");
    make_groups(both, &name)?;
    let mut ask = |what: &str, groups: &[&str]| {
        both.ask(version, what, |_| DeleteGroupsRequest {
            groups_names: groups.iter().map(|it| (*it).into()).collect(),
        })
        .map(drop)
    };
    let (simple, joined, stable) =
        (format!("{name}-simple"), format!("{name}-joined-4"), format!("{name}-stable-4"));
    ask("groups with members", &[&joined, &stable])?;
    ask("an unknown group", &["unknown"])?;
    ask("no group id", &[""])?;
    ask("none", &[])?;
    ask("a group without members, and an unknown one", &[&simple, "unknown", &simple])?;
    ask("a group that is gone", &[&simple])?;
    describe_one(both, &simple)
}

fn describe_one(both: &mut Both, group: &str) -> Result<()> {
    both.ask(6, &format!("{group} after it was deleted"), |_| DescribeGroupsRequest {
        groups: vec![group.into()],
        ..DescribeGroupsRequest::default()
    })
    .map(drop)
}
