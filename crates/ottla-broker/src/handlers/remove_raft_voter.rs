//! RemoveRaftVoter (key 81), version 0: takes a voter's vote about the metadata log away (KIP-853); its leader decides.
//!
//! - Only where the log knows the voters with their directories (`kraft.version` 1), else UNSUPPORTED_VERSION. One change at a
//!   time: REQUEST_TIMED_OUT while another is not committed.
//! - A voter is an id and a directory: another directory is VOTER_NOT_FOUND, and so is the last voter.
//! - Known difference: REQUEST_TIMED_OUT within a second, and nothing changes, if too few of the voters that would be left are heard of;
//!   Apache Kafka names them the voters, and if no majority of these comes back, nothing is decided any more.
//! - The voter goes on as an observer; if it leads, another voter takes over once that is committed.

use std::time::Duration;

use ottla_base::ErrorCode;
use ottla_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use ottla_quorum::Quorum;

use super::Context;
use super::add_raft_voter::{
    Refusal, as_controllers, check_cluster, check_leads, not_leader, refusal, valid_voter,
};
use crate::answer::Outcome;
use crate::controller_requests::ControllerRequest;

/// How long the others may take to write the change down; the request does not say.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn handle(context: Context, request: RemoveRaftVoterRequest) -> Outcome {
    let mut response = request.decide(&context.broker.quorum, context.version).await;
    response.error_code = not_leader(&context, response.error_code);
    context.answer(&response)
}

impl ControllerRequest for RemoveRaftVoterRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> RemoveRaftVoterResponse {
        let (error_code, error_message) = match remove(quorum, self).await {
            Ok(()) => (ErrorCode::NONE, None),
            Err((code, message)) => (code, Some(message.into())),
        };
        RemoveRaftVoterResponse { error_code, error_message, ..RemoveRaftVoterResponse::default() }
    }

    fn error_of(response: &RemoveRaftVoterResponse) -> ErrorCode {
        as_controllers(response.error_code)
    }
}

async fn remove(quorum: &Quorum, request: RemoveRaftVoterRequest) -> Result<(), Refusal> {
    check_cluster(quorum, request.cluster_id.as_deref())?;
    check_leads(quorum)?;
    let voter = valid_voter("Remove", request.voter_id, request.voter_directory_id)?;
    quorum.remove_voter(voter, PATIENCE).await.map_err(|error| refusal(&error))
}
