//! DescribeQuorum (key 55), versions 0–2: who votes about the metadata log, who leads it, how far each of them is.
//!
//! - v1: when a replica last fetched and was last caught up; a leader always is. v2: directory ids, and where the
//!   voters are reached.
//! - Anything but partition 0 of the metadata log is UNKNOWN_TOPIC_OR_PARTITION.
//! - Observers are the nodes that follow without a vote: brokers that are no controllers, controllers that are no voters.

use std::collections::HashMap;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Uuid};
use ottla_metadata::{Endpoint, topic_name};
use ottla_protocol::messages::describe_quorum_request;
use ottla_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use ottla_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ottla_quorum::{Member, VoterState};
use parking_lot::Mutex;

use super::Context;

const DIRECTORIES_AND_NODES_SINCE: i16 = 2;

/// When each voter was last seen to have the leader's whole log, by those who asked.
#[derive(Debug, Default)]
pub(crate) struct VotersCaughtUp(Mutex<CaughtUp>);

#[derive(Debug, Default)]
struct CaughtUp {
    /// In which this node leads.
    epoch: LeaderEpoch,
    /// Milliseconds since 1970.
    at: HashMap<BrokerId, i64>,
}

impl CaughtUp {
    /// What is known from an earlier epoch is not about this leader.
    fn begin(&mut self, epoch: LeaderEpoch) {
        if std::mem::replace(&mut self.epoch, epoch) != epoch {
            self.at.clear();
        }
    }

    /// When a voter was caught up last, which may be `now`; −1 if it never was.
    fn at(&mut self, voter: BrokerId, now: Option<i64>) -> i64 {
        let at = self.at.entry(voter).or_insert(-1);
        *at = now.unwrap_or(-1).max(*at);
        *at
    }
}

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
    let mut caught_up = context.broker.state.voters_caught_up.0.lock();
    caught_up.begin(epoch);
    let mut state = |it: &VoterState| {
        let heard = heard_at(now, it.silent_for);
        let is_caught_up = it.log_end_offset >= metrics.log_end_offset;
        ReplicaState {
            replica_id: it.voter.id.0,
            replica_directory_id: if names_more { it.voter.directory_id } else { Uuid::ZERO },
            log_end_offset: it.log_end_offset.0,
            last_fetch_timestamp: heard,
            last_caught_up_timestamp: caught_up.at(it.voter.id, is_caught_up.then_some(heard)),
        }
    };
    let partition = PartitionData {
        leader_id: context.broker.node_id.0,
        leader_epoch: epoch.0,
        high_watermark: metrics.applied_offset.next().0,
        current_voters: voters.iter().map(&mut state).collect(),
        observers: observers.iter().map(&mut state).collect(),
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

/// When a voter was heard of, or −1 if it never was.
fn heard_at(now: i64, silent_for: Duration) -> i64 {
    i64::try_from(silent_for.as_millis()).map_or(-1, |silent_for| (now - silent_for).max(-1))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_that_falls_behind_was_caught_up_when_it_last_was() {
        let (mut caught_up, voter) = (CaughtUp::default(), BrokerId(2));
        caught_up.begin(LeaderEpoch(3));
        assert_eq!(caught_up.at(voter, None), -1);
        assert_eq!(caught_up.at(voter, Some(1_000)), 1_000);
        assert_eq!(caught_up.at(voter, None), 1_000);
        caught_up.begin(LeaderEpoch(4));
        assert_eq!(caught_up.at(voter, None), -1, "another leader has not seen it");
    }
}
