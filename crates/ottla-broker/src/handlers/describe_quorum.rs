//! DescribeQuorum (key 55), versions 0–2: who votes about the metadata log, who leads it, how far each of them is.
//!
//! - v1: when a replica last fetched and was last caught up; a leader always is. v2: directory ids, and where the
//!   voters are reached.
//! - Anything but partition 0 of the metadata log is UNKNOWN_TOPIC_OR_PARTITION.
//! - Observers are the nodes that follow without a vote: brokers that are no controllers, controllers that are no voters.

use std::time::Duration;

use ottla_base::{ErrorCode, Uuid};
use ottla_metadata::{Endpoint, topic_name};
use ottla_protocol::messages::describe_quorum_request;
use ottla_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use ottla_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ottla_quorum::{Member, VoterState};

use super::Context;

const DIRECTORIES_AND_NODES_SINCE: i16 = 2;

/// In place of a time.
const NEVER: i64 = -1;

pub(super) fn handle(context: &Context, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    if !is_about_the_metadata_log(&request) {
        let message = "Only partition 0 of the metadata log is voted about.";
        return refuse(&request, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    }
    let metrics = context.broker.quorum.metrics();
    let Some(epoch) = metrics.active_epoch else {
        return not_active(context, &request);
    };
    let voters = context.broker.quorum.voter_states();
    let observers = context.broker.quorum.observer_states();
    let now = context.broker.clock.now_ms().0;
    let names_more = context.version >= DIRECTORIES_AND_NODES_SINCE;
    let state = |it: &VoterState| {
        let heard = at(now, it.silent_for);
        let caught_up = it.behind_for.map_or(NEVER, |behind_for| at(now, behind_for));
        let is_caught_up = it.log_end_offset >= metrics.log_end_offset;
        ReplicaState {
            replica_id: it.voter.id.0,
            replica_directory_id: if names_more { it.voter.directory_id } else { Uuid::ZERO },
            log_end_offset: it.log_end_offset.0,
            last_fetch_timestamp: heard,
            last_caught_up_timestamp: if is_caught_up { caught_up.max(heard) } else { caught_up },
        }
    };
    let partition = PartitionData {
        leader_id: context.broker.node_id.0,
        leader_epoch: epoch.0,
        high_watermark: metrics.applied_offset.next().0,
        current_voters: voters.iter().map(state).collect(),
        observers: observers.iter().map(state).collect(),
        ..PartitionData::default()
    };
    let topic =
        TopicData { topic_name: topic_name::CLUSTER_METADATA.into(), partitions: vec![partition] };
    DescribeQuorumResponse {
        topics: vec![topic],
        nodes: if names_more {
            voters.iter().map(|it| node(context, &it.voter)).collect()
        } else {
            Vec::new()
        },
        ..DescribeQuorumResponse::default()
    }
}

fn not_active(context: &Context, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    match context.not_controller() {
        ErrorCode::NOT_CONTROLLER => {
            let message = "This node is not the active controller.";
            refuse(request, ErrorCode::NOT_LEADER_OR_FOLLOWER, message)
        }
        error_code => DescribeQuorumResponse { error_code, ..DescribeQuorumResponse::default() },
    }
}

/// When it was, so long ago; what is too long ago never was.
fn at(now: i64, ago: Duration) -> i64 {
    i64::try_from(ago.as_millis()).map_or(NEVER, |ago| (now - ago).max(NEVER))
}

fn is_about_the_metadata_log(request: &DescribeQuorumRequest) -> bool {
    let [topic] = &*request.topics else { return false };
    let [partition] = &*topic.partitions else { return false };
    &*topic.topic_name == topic_name::CLUSTER_METADATA && partition.partition_index == 0
}

/// Where a voter is reached, as it has registered.
fn node(context: &Context, voter: &Member) -> Node {
    let image = context.broker.image();
    let registration = image.controllers().find(|controller| controller.id == voter.id.0);
    let listener = |endpoint: &Endpoint| Listener {
        name: (&*endpoint.listener).into(),
        host: (&*endpoint.host).into(),
        port: endpoint.port,
    };
    let endpoints = registration.map(|it| &*it.endpoints).unwrap_or_default();
    Node { node_id: voter.id.0, listeners: endpoints.iter().map(listener).collect() }
}

fn refuse(
    request: &DescribeQuorumRequest,
    error_code: ErrorCode,
    message: &str,
) -> DescribeQuorumResponse {
    let partition = |it: &describe_quorum_request::PartitionData| PartitionData {
        partition_index: it.partition_index,
        error_code,
        error_message: Some(message.into()),
        ..PartitionData::default()
    };
    let topic = |it: &describe_quorum_request::TopicData| TopicData {
        topic_name: it.topic_name.clone(),
        partitions: it.partitions.iter().map(partition).collect(),
    };
    DescribeQuorumResponse {
        topics: request.topics.iter().map(topic).collect(),
        ..DescribeQuorumResponse::default()
    }
}
