//! AlterPartitionReassignments (key 45), versions 0–1: moves partitions to other brokers; the controller decides.
//!
//! - v1: whether the number of replicas may change (KIP-860).
//! - The new replicas are added first; once they are all in sync, the old ones go. Null replicas call a move off.
//! - Known difference: a request that replaces an earlier one goes on waiting for those that both add; Apache Kafka forgets
//!   them, or waits for ever for one that it removes. It does not matter whether both come with one request: Apache Kafka decides
//!   each on the partition as it was, and leaves it with a part of either.
//! - Known difference: a move is not called off (INVALID_REPLICA_ASSIGNMENT) while none of the brokers of before can lead
//!   and none of them is in sync, also where unclean elections are allowed. Apache Kafka takes the first of them into the ISR,
//!   fenced, and does not mark the partition as recovering.
//! - Known difference: a topic of the cluster's own (`__consumer_offsets`) whose partitions all have one replica is given the number
//!   that is set for it, or 3, as soon as there are brokers for that: also after all of them were moved back to one
//!   by hand. Who wants one sets that (`offsets.topic.replication.factor=1`). Apache Kafka never grows a topic by itself. As long as
//!   such a partition is on its way from one replica to more, by itself or by hand, one in sync is enough for it, whatever
//!   `min.insync.replicas` says.
//! - Known difference: a request whose answer might take more than 64 MiB, where each partition was refused in words, is not carried
//!   out; the connection is closed.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use ottla_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

use super::Context;
use super::impatience::has_no_time;
use crate::answer::{CloseReason, Outcome, Room};

const FACTOR_CHANGE_SINCE: i16 = 1;

pub(super) async fn handle(
    context: Context,
    request: AlterPartitionReassignmentsRequest,
) -> Outcome {
    if let Err(reason) = check_room(context.version, &request) {
        return Outcome::Close(reason);
    }
    let mut response = if has_no_time(request.timeout_ms) && !request.topics.is_empty() {
        timed_out(&request)
    } else {
        let decide = context.broker.quorum.decide(move |desk| {
            controller::alter_partition_reassignments(desk.image, desk.policy, &request)
        });
        decide.await.unwrap_or_else(|error| AlterPartitionReassignmentsResponse {
            error_code: context.submit_error(&error),
            error_message: Some(error.to_string().into()),
            ..AlterPartitionReassignmentsResponse::default()
        })
    };
    if context.version < FACTOR_CHANGE_SINCE {
        response.allow_replication_factor_change = true;
    }
    context.answer(&response)
}

fn timed_out(request: &AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    let error_code = ErrorCode::REQUEST_TIMED_OUT;
    let partition = |it: &ReassignablePartition| ReassignablePartitionResponse {
        partition_index: it.partition_index,
        error_code,
        error_message: None,
    };
    let topics = request.topics.iter().map(|topic| ReassignableTopicResponse {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(partition).collect(),
    });
    AlterPartitionReassignmentsResponse {
        error_code,
        error_message: None,
        responses: topics.collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

/// The most that an answer about one partition takes beside the name of its topic.
const PARTITION_BYTES_MAX: usize = 192;

/// Whether everything can be refused in words, which name the topic for each of its partitions. Afterwards it would be too late:
/// partitions move by then.
fn check_room(
    version: i16,
    request: &AlterPartitionReassignmentsRequest,
) -> Result<(), CloseReason> {
    let mut room = Room::new(version);
    request.topics.iter().try_for_each(|topic| {
        room.reserve(topic.partitions.len(), PARTITION_BYTES_MAX + topic.name.len())
    })
}
