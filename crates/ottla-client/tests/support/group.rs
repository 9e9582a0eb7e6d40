//! The broker's group: one member at a time, which leads and gets what it assigns itself.

#![allow(clippy::indexing_slicing, reason = "a test ends where something is not as it was set up")]

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::ApiKey;
use ottla_protocol::frame::Incoming;
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::join_group_response::JoinGroupResponseMember;
use ottla_protocol::messages::list_groups_response::ListedGroup;
use ottla_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ottla_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use ottla_protocol::messages::{
    ConsumerGroupDescribeResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorResponse, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse, consumer_group_describe_response,
};

use super::{State, TOPIC_ID, next, reply};

/// What the coordinator does; refusals are used up from the front, one a request.
#[derive(Debug, Default)]
pub(crate) struct GroupScript {
    /// The APIs for groups that the broker serves, each up to this version.
    pub(crate) served: Vec<(ApiKey, i16)>,
    pub(crate) find_refusals: Vec<ErrorCode>,
    pub(crate) join_refusals: Vec<ErrorCode>,
    pub(crate) heartbeat_refusals: Vec<ErrorCode>,
    pub(crate) commit_refusals: Vec<ErrorCode>,
    pub(crate) committed: Option<i64>,
    pub(crate) generation: i32,
}

impl GroupScript {
    /// Of a broker that knows groups as Kafka 4.3 does.
    pub(crate) fn served() -> Self {
        let served = vec![
            (ApiKey::FindCoordinator, 6),
            (ApiKey::JoinGroup, 9),
            (ApiKey::SyncGroup, 5),
            (ApiKey::Heartbeat, 4),
            (ApiKey::LeaveGroup, 5),
            (ApiKey::OffsetFetch, 10),
            (ApiKey::OffsetCommit, 10),
            (ApiKey::ListGroups, 5),
            (ApiKey::DescribeGroups, 6),
        ];
        Self { served, ..Self::default() }
    }
}

impl State {
    #[allow(clippy::wildcard_enum_match_arm, reason = "what is left is not about groups")]
    pub(super) fn answer_member(&mut self, incoming: &mut Incoming) -> Option<Bytes> {
        Some(match incoming.api {
            ApiKey::FindCoordinator => {
                let response = FindCoordinatorResponse {
                    error_code: next(&mut self.script.group.find_refusals),
                    node_id: 1,
                    host: "127.0.0.1".into(),
                    port: self.port.into(),
                    ..FindCoordinatorResponse::default()
                };
                reply(incoming, &response)
            }
            ApiKey::JoinGroup => {
                let response = self.join(&incoming.message().unwrap());
                reply(incoming, &response)
            }
            ApiKey::SyncGroup => {
                let response = self.sync(incoming.message().unwrap());
                reply(incoming, &response)
            }
            ApiKey::Heartbeat => {
                let error_code = next(&mut self.script.group.heartbeat_refusals);
                reply(incoming, &HeartbeatResponse { error_code, ..HeartbeatResponse::default() })
            }
            ApiKey::LeaveGroup => {
                let request: LeaveGroupRequest = incoming.message().unwrap();
                let reason = request.members[0].reason.clone().unwrap_or_default();
                self.group_log.push(format!("left: {reason}"));
                reply(incoming, &LeaveGroupResponse::default())
            }
            ApiKey::OffsetFetch => {
                let response = self.offset_fetch();
                reply(incoming, &response)
            }
            ApiKey::OffsetCommit => {
                let response = self.offset_commit(incoming.message().unwrap());
                reply(incoming, &response)
            }
            ApiKey::ListGroups => {
                let response = self.list(incoming.message().unwrap());
                reply(incoming, &response)
            }
            ApiKey::DescribeGroups => {
                let response = describe(&incoming.message().unwrap());
                reply(incoming, &response)
            }
            ApiKey::ConsumerGroupDescribe => reply(incoming, &describe_newer()),
            _ => return None,
        })
    }

    fn join(&mut self, request: &JoinGroupRequest) -> JoinGroupResponse {
        let reason = request.reason.as_deref().unwrap_or("none");
        self.group_log.push(format!("join {:?}, reason {reason}", request.member_id));
        let error_code = next(&mut self.script.group.join_refusals);
        if error_code.is_error() {
            return JoinGroupResponse { error_code, ..JoinGroupResponse::default() };
        }
        if request.member_id.is_empty() {
            return JoinGroupResponse {
                error_code: ErrorCode::MEMBER_ID_REQUIRED,
                member_id: "m".into(),
                ..JoinGroupResponse::default()
            };
        }
        self.script.group.generation += 1;
        JoinGroupResponse {
            generation_id: self.script.group.generation,
            protocol_type: Some(request.protocol_type.clone()),
            protocol_name: Some(request.protocols[0].name.clone()),
            leader: request.member_id.clone(),
            member_id: request.member_id.clone(),
            members: vec![JoinGroupResponseMember {
                member_id: request.member_id.clone(),
                metadata: request.protocols[0].metadata.clone(),
                ..JoinGroupResponseMember::default()
            }],
            ..JoinGroupResponse::default()
        }
    }

    fn sync(&mut self, request: SyncGroupRequest) -> SyncGroupResponse {
        let assignment = request.assignments.into_iter().next().unwrap().assignment;
        SyncGroupResponse { assignment, ..SyncGroupResponse::default() }
    }

    fn offset_fetch(&self) -> OffsetFetchResponse {
        OffsetFetchResponse {
            topics: vec![OffsetFetchResponseTopic {
                name: "orders".into(),
                partitions: vec![OffsetFetchResponsePartition {
                    committed_offset: self.script.group.committed.unwrap_or(-1),
                    metadata: Some("".into()),
                    ..OffsetFetchResponsePartition::default()
                }],
            }],
            ..OffsetFetchResponse::default()
        }
    }

    fn offset_commit(&mut self, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let topic = &request.topics[0];
        let offset = topic.partitions[0].committed_offset;
        let error_code = next(&mut self.script.group.commit_refusals);
        let (member, generation) = (&request.member_id, request.generation_id_or_member_epoch);
        if error_code.is_error() {
            self.group_log.push(format!("refused commit {offset}"));
        } else {
            self.script.group.committed = Some(offset);
            self.group_log.push(format!("commit {offset} by {member:?} in {generation}"));
        }
        OffsetCommitResponse {
            topics: vec![OffsetCommitResponseTopic {
                topic_id: TOPIC_ID,
                partitions: vec![OffsetCommitResponsePartition {
                    error_code,
                    ..OffsetCommitResponsePartition::default()
                }],
                ..OffsetCommitResponseTopic::default()
            }],
            ..OffsetCommitResponse::default()
        }
    }

    fn list(&mut self, request: ListGroupsRequest) -> ListGroupsResponse {
        let filters = [request.states_filter, request.types_filter];
        self.group_log.push(format!("list {filters:?}"));
        ListGroupsResponse {
            groups: vec![ListedGroup {
                group_id: "old".into(),
                protocol_type: "consumer".into(),
                ..ListedGroup::default()
            }],
            ..ListGroupsResponse::default()
        }
    }
}

/// The group "old" is there, and tells who asks why it rebalanced.
fn describe(request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
    let described = |id: &ByteString| match &**id {
        "old" => DescribedGroup {
            group_id: "old".into(),
            group_state: "Stable".into(),
            protocol_type: "consumer".into(),
            protocol_data: "range".into(),
            ottla_last_rebalance_reason: request
                .ottla_include_last_rebalance
                .then(|| "member m left".into()),
            ottla_last_rebalance_time_ms: 7,
            ..DescribedGroup::default()
        },
        _ => DescribedGroup {
            group_id: id.clone(),
            group_state: "Dead".into(),
            ..DescribedGroup::default()
        },
    };
    let groups = request.groups.iter().map(described).collect();
    DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
}

/// The newer request knows the group "new" only.
fn describe_newer() -> ConsumerGroupDescribeResponse {
    let group =
        |id: &str, error_code, state: &str| consumer_group_describe_response::DescribedGroup {
            group_id: id.into(),
            error_code,
            group_state: state.into(),
            ..consumer_group_describe_response::DescribedGroup::default()
        };
    ConsumerGroupDescribeResponse {
        groups: vec![
            group("new", ErrorCode::NONE, "Assigning"),
            group("old", ErrorCode::GROUP_ID_NOT_FOUND, ""),
        ],
        ..ConsumerGroupDescribeResponse::default()
    }
}
