//! Groups and their members. Which request describes a group depends on its type: that of the newer type goes first,
//! as in Kafka's own tools, and who is not described by it is of the older one.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, Timestamp, TopicPartition};
use ottla_protocol::ApiKey;
use ottla_protocol::messages::consumer_group_describe_response::{self as newer, Member};
use ottla_protocol::messages::describe_groups_response::{self as older, DescribedGroupMember};
use ottla_protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};

use super::{CLASSIC, CONSUMER, byte_strings, quoted};
use crate::admin::check;
use crate::client::{Client, Target};
use crate::consumer::assignment_in;
use crate::error::ClientError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    pub id: String,
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// In Kafka's words: `Stable`, `Empty`, `PreparingRebalance` and so on.
    pub state: String,
    pub coordinator: BrokerId,
    pub protocol_type: String,
    /// How partitions are assigned; empty while there are no members.
    pub assignor: String,
    pub members: Vec<GroupMember>,
    /// Only Ottla tells, and only since the coordinator began.
    pub last_rebalance: Option<LastRebalance>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// `None` when the members are no consumers, so that only they know what it means.
    pub assignment: Option<Vec<TopicPartition>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRebalance {
    pub at: Timestamp,
    pub reason: String,
}

impl Client {
    /// # Errors
    /// Refused with GROUP_ID_NOT_FOUND where there is no such group of the classic or the consumer type.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        self.persist(|| async {
            let coordinator = self.coordinator(group).await?;
            let ids = [group.to_owned()];
            let described = self.describe_groups_at(coordinator, &ids).await?;
            let missing = || ClientError::refused(quoted(group), ErrorCode::UNKNOWN_SERVER_ERROR);
            described.into_values().next().unwrap_or_else(|| Err(missing()))
        })
        .await
    }

    /// Groups by their ids, asked for at the broker that coordinates all of them.
    ///
    /// # Errors
    /// The outer one where the broker cannot be asked. The inner ones as in [`Client::describe_group`].
    pub async fn describe_groups_at(
        &self,
        coordinator: BrokerId,
        groups: &[String],
    ) -> Result<BTreeMap<String, Result<GroupDescription, ClientError>>, ClientError> {
        let target = Target::Broker(coordinator);
        let mut described = BTreeMap::new();
        if self.knows(target, ApiKey::ConsumerGroupDescribe, 0).await? {
            let request = ConsumerGroupDescribeRequest {
                group_ids: byte_strings(groups),
                include_authorized_operations: false,
            };
            for group in self.send(target, &request).await?.groups {
                if !is_of_another_type(group.error_code) {
                    described.insert(group.group_id.to_string(), newer(coordinator, group));
                }
            }
        }
        let is_left = |group: &&String| !described.contains_key(*group);
        let left: Vec<_> = groups.iter().filter(is_left).collect();
        if !left.is_empty() {
            let request = DescribeGroupsRequest {
                groups: byte_strings(&left),
                ottla_include_last_rebalance: true,
                ..DescribeGroupsRequest::default()
            };
            for group in self.send(target, &request).await?.groups {
                described.insert(group.group_id.to_string(), older(coordinator, group));
            }
        }
        Ok(described)
    }
}

/// Kafka serves the newer request also where the newer groups are switched off.
fn is_of_another_type(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::GROUP_ID_NOT_FOUND | ErrorCode::UNSUPPORTED_VERSION)
}

fn newer(
    coordinator: BrokerId,
    group: newer::DescribedGroup,
) -> Result<GroupDescription, ClientError> {
    let message = group.error_message.map(|message| message.to_string());
    check(quoted(&group.group_id), group.error_code, message)?;
    Ok(GroupDescription {
        id: group.group_id.to_string(),
        kind: CONSUMER,
        state: group.group_state.to_string(),
        coordinator,
        protocol_type: CONSUMER.to_owned(),
        assignor: group.assignor_name.to_string(),
        members: group.members.into_iter().map(newer_member).collect(),
        last_rebalance: None,
    })
}

fn newer_member(member: Member) -> GroupMember {
    let partitions = member.assignment.topic_partitions.iter().flat_map(|topic| {
        let partition = |index: &i32| TopicPartition::new(&*topic.topic_name, *index);
        topic.partitions.iter().map(partition)
    });
    let mut assignment: Vec<_> = partitions.collect();
    assignment.sort();
    GroupMember {
        id: member.member_id.to_string(),
        instance_id: member.instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assignment: Some(assignment),
    }
}

fn older(
    coordinator: BrokerId,
    group: older::DescribedGroup,
) -> Result<GroupDescription, ClientError> {
    // Before version 6, a group that is not there was described as one that has ended.
    let is_gone = group.error_code == ErrorCode::NONE && &*group.group_state == "Dead";
    let code = if is_gone { ErrorCode::GROUP_ID_NOT_FOUND } else { group.error_code };
    check(quoted(&group.group_id), code, group.error_message.map(|message| message.to_string()))?;
    let are_consumers = &*group.protocol_type == CONSUMER;
    let reason = group.ottla_last_rebalance_reason.map(|reason| reason.to_string());
    let at = Timestamp(group.ottla_last_rebalance_time_ms);
    Ok(GroupDescription {
        id: group.group_id.to_string(),
        kind: CLASSIC,
        state: group.group_state.to_string(),
        coordinator,
        protocol_type: group.protocol_type.to_string(),
        assignor: group.protocol_data.to_string(),
        members: group.members.into_iter().map(|it| older_member(it, are_consumers)).collect(),
        last_rebalance: reason.map(|reason| LastRebalance { at, reason }),
    })
}

fn older_member(member: DescribedGroupMember, is_consumer: bool) -> GroupMember {
    let assignment = |bytes: Bytes| {
        // While the group rebalances nobody has anything.
        if bytes.is_empty() { Some(Vec::new()) } else { assignment_in(bytes).ok() }
    };
    GroupMember {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assignment: is_consumer.then(|| assignment(member.member_assignment)).flatten(),
    }
}
