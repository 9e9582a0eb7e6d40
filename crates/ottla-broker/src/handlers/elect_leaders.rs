//! ElectLeaders (key 43), versions 0–2: preferred or other leaders for partitions; the controller decides.
//!
//! - v0 knows preferred leaders only. v1: unclean elections, and an error for the request as a whole.
//! - Null topics mean all partitions, of which those that need no election are left out.
//! - Known difference: a request whose answer might take more than 64 MiB, where each partition was refused in words, is not carried
//!   out; the connection is closed.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ottla_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::Context;
use super::impatience::has_no_time;
use crate::answer::{CloseReason, Outcome, Room};

const ERROR_SINCE: i16 = 1;

pub(super) async fn handle(context: Context, request: ElectLeadersRequest) -> Outcome {
    if let Err(reason) = check_room(context.version, &request) {
        return Outcome::Close(reason);
    }
    let asks_the_controller =
        request.topic_partitions.as_ref().is_none_or(|topics| !topics.is_empty());
    let mut response = if has_no_time(request.timeout_ms) && asks_the_controller {
        timed_out(&request)
    } else {
        let decide = context
            .broker
            .quorum
            .decide(move |desk| controller::elect_leaders(desk.image, desk.policy, &request));
        decide.await.unwrap_or_else(|error| ElectLeadersResponse {
            error_code: context.submit_error(&error),
            ..ElectLeadersResponse::default()
        })
    };
    if context.version < ERROR_SINCE {
        response.error_code = ErrorCode::NONE;
    }
    context.answer(&response)
}

fn timed_out(request: &ElectLeadersRequest) -> ElectLeadersResponse {
    let error_code = ErrorCode::REQUEST_TIMED_OUT;
    let partition =
        |id: &i32| PartitionResult { partition_id: *id, error_code, error_message: None };
    let topics = request.topic_partitions.iter().flatten().map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic.partitions.iter().map(partition).collect(),
    });
    ElectLeadersResponse {
        error_code,
        replica_election_results: topics.collect(),
        ..ElectLeadersResponse::default()
    }
}

/// The most that an answer about one partition takes beside the name of its topic.
const PARTITION_BYTES_MAX: usize = 128;

/// Whether everything can be refused in words, which name the topic for each of its partitions. Afterwards it would be too late:
/// leaders have changed by then.
fn check_room(version: i16, request: &ElectLeadersRequest) -> Result<(), CloseReason> {
    let mut room = Room::new(version);
    request.topic_partitions.iter().flatten().try_for_each(|topic| {
        room.reserve(topic.partitions.len(), PARTITION_BYTES_MAX + topic.topic.len())
    })
}
