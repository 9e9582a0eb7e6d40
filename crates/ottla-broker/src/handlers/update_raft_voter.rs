//! UpdateRaftVoter (key 82), version 0: a voter about the metadata log is reached at other places (KIP-853); its leader decides.
//!
//! - Controllers only, for each other. The leader's epoch must be named: FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
//! - A voter is an id and a directory: another directory is VOTER_NOT_FOUND.
//! - INVALID_REQUEST without a place on the listener where controllers meet, and where the levels of `kraft.version` that the
//!   voter knows do not include the one that holds.
//! - The answer names the leader, its epoch and its place, whatever the error.
//! - Known difference: the answer waits until the change is committed, for 5 s at most; Apache Kafka's does not, and the next request
//!   may be told REQUEST_TIMED_OUT.
//! - Known difference: where the log knows the voters by their ids alone, it is UNSUPPORTED_VERSION, which Apache Kafka's voters take for an
//!   answer. Apache Kafka's leader remembers the places until an update of `kraft.version`, which is not served here.
//! - Known difference: a leader that is told of itself says again where it is; Apache Kafka's stops.
//! - Nodes of this program do not send it: they say where they are when they ask to be fed.

use std::time::Duration;

use ottla_base::ErrorCode;
use ottla_metadata::Endpoint;
use ottla_protocol::messages::update_raft_voter_request::KRaftVersionFeature;
use ottla_protocol::messages::update_raft_voter_response::CurrentLeader;
use ottla_protocol::messages::{UpdateRaftVoterRequest, UpdateRaftVoterResponse};
use ottla_quorum::{InitialVoter, Quorum};

use super::Context;
use super::add_raft_voter::{
    check_cluster, check_leads, check_reachable, endpoint, refusal, valid_voter,
};
use crate::answer::Outcome;

/// How long the others may take to write the change down; the request does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// The level of `kraft.version` where the log knows the voters with their directories.
const WITH_DIRECTORIES: i16 = 1;

pub(super) async fn handle(context: Context, request: UpdateRaftVoterRequest) -> Outcome {
    let quorum = &context.broker.quorum;
    let error_code = update(quorum, request).await.err().unwrap_or(ErrorCode::NONE);
    let current_leader = current_leader(quorum, context.endpoint_name());
    let response = UpdateRaftVoterResponse {
        error_code,
        current_leader,
        ..UpdateRaftVoterResponse::default()
    };
    context.answer(&response)
}

async fn update(quorum: &Quorum, request: UpdateRaftVoterRequest) -> Result<(), ErrorCode> {
    check_cluster(quorum, request.cluster_id.as_deref()).map_err(|(code, _)| code)?;
    let (epoch, _) = quorum.epoch();
    if request.current_leader_epoch < epoch.0 {
        return Err(ErrorCode::FENCED_LEADER_EPOCH);
    }
    if request.current_leader_epoch > epoch.0 {
        return Err(ErrorCode::UNKNOWN_LEADER_EPOCH);
    }
    check_leads(quorum).map_err(|(code, _)| code)?;
    let voter = valid_voter("Update", request.voter_id, request.voter_directory_id);
    let voter = voter.map_err(|(code, _)| code)?;
    let endpoints: Vec<Endpoint> =
        request.listeners.iter().map(|it| endpoint(&it.name, &it.host, it.port)).collect();
    check_reachable(quorum, &endpoints).map_err(|(code, _)| code)?;
    let knows = request.k_raft_version_feature;
    if !is_range(&knows) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let by_directory = quorum.voters().iter().all(|it| it.directory_id != ottla_base::Uuid::ZERO);
    let held = if by_directory { WITH_DIRECTORIES } else { 0 };
    if !(knows.min_supported_version..=knows.max_supported_version).contains(&held) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let voter = InitialVoter { id: voter.id, directory_id: voter.directory_id, endpoints };
    quorum.update_voter(voter, PATIENCE).await.map_err(|error| refusal(&error).0)
}

const fn is_range(it: &KRaftVersionFeature) -> bool {
    0 <= it.min_supported_version && it.min_supported_version <= it.max_supported_version
}

/// Who leads, reached by the listener that the request came in on.
fn current_leader(quorum: &Quorum, listener: &str) -> CurrentLeader {
    let (epoch, leader) = quorum.epoch();
    let places = leader.map(|id| quorum.endpoints_of(id)).unwrap_or_default();
    let place = places.iter().find(|it| *it.listener == *listener);
    CurrentLeader {
        leader_id: leader.map_or(-1, |id| id.0),
        leader_epoch: epoch.0,
        host: place.map(|it| (&*it.host).into()).unwrap_or_default(),
        port: place.map_or(0, |it| it.port.into()),
    }
}
