//! AlterPartition (key 56), versions 2–3: a leader proposes who is in sync with it.
//!
//! - Controllers only, for brokers.
//! - v3: each of them with its broker epoch, so that a broker that has restarted since does not join (KIP-903).
//! - Known difference: a replica whose log directory is not among those that its broker has is not taken into the ISR
//!   (INELIGIBLE_REPLICA). Apache Kafka's controller does not look.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, code_of};

impl ControllerRequest for AlterPartitionRequest {
    async fn decide(self, quorum: &Quorum, version: i16) -> AlterPartitionResponse {
        let decided = quorum.decide(move |desk| {
            controller::alter_partition(desk.image, desk.policy, &self, version)
        });
        decided.await.unwrap_or_else(|error| AlterPartitionResponse {
            error_code: code_of(&error),
            ..AlterPartitionResponse::default()
        })
    }

    fn error_of(response: &AlterPartitionResponse) -> ErrorCode {
        response.error_code
    }
}
