//! ListPartitionReassignments (key 46), version 0: the partitions that are moving, from where and to where.
//!
//! - Null topics mean all. What is not there is not mentioned.
//! - Known difference: the cluster's own topics are among them, too, while they get the copies that they lack by themselves.
//! - Known difference: an index that is named twice is answered once, and they come in order. Apache Kafka answers as often as it is
//!   asked, however long that gets.

use ottla_metadata::controller;
use ottla_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::Context;

pub(super) fn handle(
    context: &Context,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    if !context.broker.controller.is_here() {
        // This node may have missed what others know.
        return ListPartitionReassignmentsResponse {
            error_code: context.not_controller(),
            ..ListPartitionReassignmentsResponse::default()
        };
    }
    controller::list_partition_reassignments(&context.broker.image(), &request)
}
