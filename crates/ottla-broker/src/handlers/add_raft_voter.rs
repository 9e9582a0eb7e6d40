//! AddRaftVoter (key 80), versions 0–1: makes an observer a voter about the metadata log (KIP-853); its leader decides.
//!
//! - Only where the log knows the voters with their directories (`kraft.version` 1), else UNSUPPORTED_VERSION. One change at a
//!   time: REQUEST_TIMED_OUT while another is not committed.
//! - An id that a voter has is DUPLICATE_VOTER, whatever the directory: the lost one is removed first.
//! - v1: whether to wait until the change is committed.
//! - Known difference: the answer waits until the change is committed always.
//! - Known difference: an observer that has not all of the log yet is waited for, for as long as the request allows, 5 to 10 s;
//!   Apache Kafka refuses it at once, and takes one that had all of it within the last hour. A node that is no observer is refused
//!   as one that lags behind; Apache Kafka asks it for its versions first.
//! - Known difference: controllers that become voters by themselves (`controller.quorum.auto.join.enable`) do not send this, and come in
//!   odd numbers, so that two nodes have one voter. Apache Kafka's become two, and neither can be lost.

use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_metadata::Endpoint;
use ottla_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use ottla_quorum::{InitialVoter, Member, Quorum, VoterChangeError};

use super::Context;
use crate::answer::Outcome;
use crate::controller_requests::ControllerRequest;

/// How long the new voter may take to catch up, and the others to write the change down: within these bounds as long as
/// the request says.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(10);

pub(super) async fn handle(context: Context, request: AddRaftVoterRequest) -> Outcome {
    let mut response = request.decide(&context.broker.quorum, context.version).await;
    response.error_code = not_leader(&context, response.error_code);
    context.answer(&response)
}

impl ControllerRequest for AddRaftVoterRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> AddRaftVoterResponse {
        let (error_code, error_message) = match add(quorum, self).await {
            Ok(()) => (ErrorCode::NONE, None),
            Err((code, message)) => (code, Some(message.into())),
        };
        AddRaftVoterResponse { error_code, error_message, ..AddRaftVoterResponse::default() }
    }

    fn error_of(response: &AddRaftVoterResponse) -> ErrorCode {
        as_controllers(response.error_code)
    }
}

/// What is said instead of no error.
pub(super) type Refusal = (ErrorCode, String);

async fn add(quorum: &Quorum, request: AddRaftVoterRequest) -> Result<(), Refusal> {
    check_cluster(quorum, request.cluster_id.as_deref())?;
    check_leads(quorum)?;
    let voter = valid_voter("Add", request.voter_id, request.voter_directory_id)?;
    let endpoints: Vec<Endpoint> =
        request.listeners.iter().map(|it| endpoint(&it.name, &it.host, it.port)).collect();
    check_reachable(quorum, &endpoints)?;
    let newcomer = InitialVoter { id: voter.id, directory_id: voter.directory_id, endpoints };
    let asked = u64::try_from(request.timeout_ms).unwrap_or_default();
    let patience = Duration::from_millis(asked).clamp(PATIENCE_MIN, PATIENCE_MAX);
    quorum.add_voter(newcomer, patience).await.map_err(|error| refusal(&error))
}

/// A listener that a request names.
pub(super) fn endpoint(name: &str, host: &str, port: u16) -> Endpoint {
    Endpoint {
        listener: name.into(),
        host: host.into(),
        port,
        // Neither the request nor the log says; whoever connects takes it from the listener's name.
        security_protocol: 0,
    }
}

/// The new voter must listen where controllers meet: on the listener that this one's first is called by.
pub(super) fn check_reachable(quorum: &Quorum, endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let own = quorum.controller_registration();
    let name = own.listeners.first().map(|it| it.name.clone()).unwrap_or_default();
    if endpoints.iter().any(|it| *it.listener == *name) {
        return Ok(());
    }
    let shown = endpoints.iter().map(|it| {
        let Endpoint { listener, host, port, .. } = it;
        format!("ListenerName({listener})={host}/<unresolved>:{port}")
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let message = format!(
        "Add voter request didn't include the endpoint (Endpoints(endpoints={{{shown}}})) for the default listener \
         ListenerName({name})"
    );
    Err((ErrorCode::INVALID_REQUEST, message))
}

pub(super) fn check_cluster(quorum: &Quorum, given: Option<&str>) -> Result<(), Refusal> {
    let cluster_id = &*quorum.image().cluster_id;
    match given.filter(|given| *given != cluster_id) {
        Some(given) => Err((
            ErrorCode::INCONSISTENT_CLUSTER_ID,
            format!("The given id \"{given}\" doesn't match the cluster id \"{cluster_id}\""),
        )),
        None => Ok(()),
    }
}

/// Before anything else is looked at: another node answers that.
pub(super) fn check_leads(quorum: &Quorum) -> Result<(), Refusal> {
    match quorum.metrics().active_epoch {
        Some(_) => Ok(()),
        None => Err((ErrorCode::NOT_LEADER_OR_FOLLOWER, String::new())),
    }
}

pub(super) fn valid_voter(what: &str, id: i32, directory_id: Uuid) -> Result<Member, Refusal> {
    if id < 0 || directory_id == Uuid::ZERO {
        let message = format!("{what} voter request didn't include a valid voter");
        return Err((ErrorCode::INVALID_REQUEST, message));
    }
    Ok(Member { id: BrokerId(id), directory_id })
}

/// The error code of each reason, and Kafka's words.
pub(super) fn refusal(error: &VoterChangeError) -> Refusal {
    let code = match error {
        VoterChangeError::NotLeader | VoterChangeError::Stopped(_) => {
            ErrorCode::NOT_LEADER_OR_FOLLOWER
        }
        VoterChangeError::Pending
        | VoterChangeError::NotEstablished
        | VoterChangeError::Needed(_)
        | VoterChangeError::Behind(_)
        | VoterChangeError::TimedOut => ErrorCode::REQUEST_TIMED_OUT,
        VoterChangeError::Unsupported(_) => ErrorCode::UNSUPPORTED_VERSION,
        VoterChangeError::Duplicate { .. } => ErrorCode::DUPLICATE_VOTER,
        VoterChangeError::NotFound { .. } => ErrorCode::VOTER_NOT_FOUND,
    };
    (code, error.to_string())
}

/// What a client is told where another node leads: a request that a broker has carried here is carried on.
pub(super) fn not_leader(context: &Context, code: ErrorCode) -> ErrorCode {
    if code != ErrorCode::NOT_LEADER_OR_FOLLOWER {
        return code;
    }
    match context.not_controller() {
        ErrorCode::NOT_CONTROLLER => code,
        unanswered => unanswered,
    }
}

/// The same to a node that looks for the active controller.
pub(super) fn as_controllers(code: ErrorCode) -> ErrorCode {
    if code == ErrorCode::NOT_LEADER_OR_FOLLOWER { ErrorCode::NOT_CONTROLLER } else { code }
}
