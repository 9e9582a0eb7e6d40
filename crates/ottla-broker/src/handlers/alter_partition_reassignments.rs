//! AlterPartitionReassignments (key 45), versions 0–1: moves partitions to other brokers, of which there are none.
//!
//! - v1: whether the number of replicas may change (KIP-860).
//! - A partition stays where it is wanted, if it is there already; there is no move to call off.
//! - Known difference: partitions do not move between brokers yet; a cluster of one has nowhere to move them.

use ottla_metadata::controller;
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

use super::Context;
use crate::answer::Outcome;

const FACTOR_CHANGE_SINCE: i16 = 1;

pub(super) async fn handle(
    context: Context,
    request: AlterPartitionReassignmentsRequest,
) -> Outcome {
    let decide = context.broker.quorum.decide(move |desk| {
        controller::alter_partition_reassignments(desk.image, desk.policy, &request)
    });
    let mut response = decide.await.unwrap_or_else(|error| AlterPartitionReassignmentsResponse {
        error_code: context.submit_error(&error),
        error_message: Some(error.to_string().into()),
        ..AlterPartitionReassignmentsResponse::default()
    });
    if context.version < FACTOR_CHANGE_SINCE {
        response.allow_replication_factor_change = true;
    }
    context.answer(&response)
}
