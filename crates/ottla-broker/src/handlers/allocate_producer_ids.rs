//! AllocateProducerIds (key 67), version 0: a block of ids for idempotent producers.
//!
//! - Controllers only, for brokers.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, code_of};

impl ControllerRequest for AllocateProducerIdsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> AllocateProducerIdsResponse {
        let decided =
            quorum.decide(move |desk| controller::allocate_producer_ids(desk.image, &self));
        decided.await.unwrap_or_else(|error| AllocateProducerIdsResponse {
            error_code: code_of(&error),
            ..AllocateProducerIdsResponse::default()
        })
    }

    fn error_of(response: &AllocateProducerIdsResponse) -> ErrorCode {
        response.error_code
    }
}
