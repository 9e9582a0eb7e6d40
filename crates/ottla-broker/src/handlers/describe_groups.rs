//! DescribeGroups (key 15), versions 0–6: groups of the classic protocol and their members.
//!
//! - v3: allowed operations on request. v4: static members. v6: GROUP_ID_NOT_FOUND for a group that is not there,
//!   which before was described as Dead.
//! - Known difference: an answer of more than 64 MiB is not given; the connection is closed.
//! - Known difference: who asks with a tagged field of ours is told, in tagged fields of ours, why and when a group last
//!   rebalanced; nobody else is sent them (docs/decisions/009-private-fields.md).

use std::collections::{BTreeSet, HashMap};

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_coordinator::group::{self, Query};
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{Context, authorized};
use crate::answer::{Outcome, Room};

const OPERATIONS_SINCE: i16 = 3;

pub(super) async fn handle(context: Context, request: DescribeGroupsRequest) -> Outcome {
    let mut described = HashMap::new();
    let last_rebalance = request.ottla_include_last_rebalance;
    let asked: BTreeSet<ByteString> = request.groups.iter().cloned().collect();
    for ids in context.broker.groups.by_partition(asked) {
        for mut group in describe(&context, ids, last_rebalance).await {
            if request.include_authorized_operations
                && context.version >= OPERATIONS_SINCE
                && !group.error_code.is_error()
            {
                group.authorized_operations = authorized::GROUP;
            }
            described.insert(group.group_id.clone(), group);
        }
    }
    let mut room = Room::new(context.version);
    let groups = request.groups.iter().filter_map(|id| described.get(id));
    let groups: Result<_, _> = groups.map(|group| room.admit(group.clone())).collect();
    match groups {
        Ok(groups) => {
            context.answer(&DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() })
        }
        Err(reason) => Outcome::Close(reason),
    }
}

/// Groups of one partition, each of them once.
async fn describe(
    context: &Context,
    groups: Vec<ByteString>,
    last_rebalance: bool,
) -> Vec<DescribedGroup> {
    let Some(first) = groups.first().cloned() else { return Vec::new() };
    let asked =
        group::DescribeGroups { version: context.version, groups: groups.clone(), last_rebalance };
    let query = Query::Describe(asked);
    let described = context.broker.groups.query(&first, query).await;
    described.unwrap_or_else(|error| groups.into_iter().map(|id| refuse(id, error)).collect())
}

fn refuse(group_id: ByteString, error_code: ErrorCode) -> DescribedGroup {
    DescribedGroup { group_id, error_code, ..DescribedGroup::default() }
}
