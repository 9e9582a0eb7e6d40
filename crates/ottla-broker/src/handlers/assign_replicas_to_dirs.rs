//! AssignReplicasToDirs (key 73), version 0: a broker says in which of its log directories replicas are (KIP-858).
//!
//! - Controllers only, for brokers.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, refusal};

impl ControllerRequest for AssignReplicasToDirsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> AssignReplicasToDirsResponse {
        let decided = quorum.decide_or_reject(move |desk| {
            controller::assign_replicas_to_dirs(desk.image, desk.policy, &self)
        });
        let decided = decided.await;
        refusal("where replicas are is", decided).unwrap_or_else(|error_code| {
            AssignReplicasToDirsResponse { error_code, ..AssignReplicasToDirsResponse::default() }
        })
    }

    fn error_of(response: &AssignReplicasToDirsResponse) -> ErrorCode {
        response.error_code
    }
}
