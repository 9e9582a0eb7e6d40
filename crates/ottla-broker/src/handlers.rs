//! From a frame to an outcome: the table of served APIs, and one file per API below.
//!
//! The directory listing is the compatibility statement: an API without a file here is not served
//! and not advertised.

mod add_raft_voter;
mod allocate_producer_ids;
mod alter_configs;
mod alter_partition;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod assign_replicas_to_dirs;
mod authorized;
mod broker_heartbeat;
mod broker_registration;
mod config_changes;
mod controller_registration;
mod create_acls;
mod create_partitions;
mod create_topics;
mod current_leader;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod envelope;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod partition_view;
mod peer;
mod produce;
mod read_replica;
mod remove_raft_voter;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod unregister_broker;
mod update_features;
mod update_raft_voter;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode};
use ottla_coordinator::group::Caller;
use ottla_metadata::controller::BrokerEpoch;
use ottla_metadata::{Broker as BrokerRegistration, Image};
use ottla_protocol::frame::Incoming;
use ottla_protocol::messages::{
    AddRaftVoterRequest, AllocateProducerIdsRequest, AlterPartitionReassignmentsRequest,
    AlterPartitionRequest, AssignReplicasToDirsRequest, BrokerRegistrationRequest,
    ControllerRegistrationRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteAclsRequest, DeleteTopicsRequest, DescribeQuorumRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, RemoveRaftVoterRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};
use ottla_protocol::peer::PeerRequest;
use ottla_protocol::{ApiKey, Decoder, Message, Request};
use ottla_quorum::SubmitError;
use parking_lot::Mutex;

use crate::answer::{Answer, CloseReason, Outcome, Source};
use crate::broker::Broker;
use crate::controller_channel::Forwarded;
use crate::controller_requests::ControllerRequest;
use crate::listener::{Listener, Role};
pub(crate) use describe_quorum::VotersCaughtUp;

/// Who serves an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Broker,
    /// A broker by itself, and a controller.
    Both,
    /// The active controller; a broker carries such a request to it.
    Forwarded,
    /// A controller, for brokers and other controllers.
    Controller,
}

/// The APIs that are served, each in all the stable versions that Kafka 4.3 serves.
const SERVED: [(ApiKey, By); 56] = [
    (ApiKey::Produce, By::Broker),
    (ApiKey::Fetch, By::Broker),
    (ApiKey::ListOffsets, By::Broker),
    (ApiKey::Metadata, By::Broker),
    (ApiKey::OffsetCommit, By::Broker),
    (ApiKey::OffsetFetch, By::Broker),
    (ApiKey::FindCoordinator, By::Broker),
    (ApiKey::JoinGroup, By::Broker),
    (ApiKey::Heartbeat, By::Broker),
    (ApiKey::LeaveGroup, By::Broker),
    (ApiKey::SyncGroup, By::Broker),
    (ApiKey::DescribeGroups, By::Broker),
    (ApiKey::ListGroups, By::Broker),
    (ApiKey::SaslHandshake, By::Both),
    (ApiKey::ApiVersions, By::Both),
    (ApiKey::CreateTopics, By::Forwarded),
    (ApiKey::DeleteTopics, By::Forwarded),
    (ApiKey::DeleteRecords, By::Broker),
    (ApiKey::InitProducerId, By::Broker),
    (ApiKey::OffsetForLeaderEpoch, By::Broker),
    (ApiKey::DescribeAcls, By::Both),
    (ApiKey::CreateAcls, By::Forwarded),
    (ApiKey::DeleteAcls, By::Forwarded),
    (ApiKey::DescribeConfigs, By::Both),
    (ApiKey::AlterConfigs, By::Forwarded),
    (ApiKey::AlterReplicaLogDirs, By::Broker),
    (ApiKey::DescribeLogDirs, By::Broker),
    (ApiKey::SaslAuthenticate, By::Both),
    (ApiKey::CreatePartitions, By::Forwarded),
    (ApiKey::DeleteGroups, By::Broker),
    (ApiKey::ElectLeaders, By::Forwarded),
    (ApiKey::IncrementalAlterConfigs, By::Forwarded),
    (ApiKey::AlterPartitionReassignments, By::Forwarded),
    (ApiKey::ListPartitionReassignments, By::Forwarded),
    (ApiKey::OffsetDelete, By::Broker),
    (ApiKey::DescribeClientQuotas, By::Broker),
    (ApiKey::DescribeUserScramCredentials, By::Both),
    (ApiKey::DescribeQuorum, By::Forwarded),
    (ApiKey::AlterPartition, By::Controller),
    (ApiKey::UpdateFeatures, By::Forwarded),
    (ApiKey::Envelope, By::Controller),
    (ApiKey::DescribeCluster, By::Both),
    (ApiKey::DescribeProducers, By::Broker),
    (ApiKey::BrokerRegistration, By::Controller),
    (ApiKey::BrokerHeartbeat, By::Controller),
    (ApiKey::UnregisterBroker, By::Forwarded),
    (ApiKey::DescribeTransactions, By::Broker),
    (ApiKey::ListTransactions, By::Broker),
    (ApiKey::AllocateProducerIds, By::Controller),
    (ApiKey::ControllerRegistration, By::Controller),
    (ApiKey::AssignReplicasToDirs, By::Controller),
    (ApiKey::ListConfigResources, By::Broker),
    (ApiKey::DescribeTopicPartitions, By::Broker),
    (ApiKey::AddRaftVoter, By::Forwarded),
    (ApiKey::RemoveRaftVoter, By::Forwarded),
    (ApiKey::UpdateRaftVoter, By::Controller),
];

impl By {
    const fn serves(self, role: Role) -> bool {
        match role {
            Role::Broker => !matches!(self, Self::Controller),
            Role::Controller => !matches!(self, Self::Broker),
        }
    }
}

/// The APIs that a listener tells of, in the order of their keys, with the versions that are served: clients are told the
/// same whether it serves controllers or not.
pub(crate) fn told(
    listener: &Listener,
    is_node: bool,
) -> impl Iterator<Item = (ApiKey, RangeInclusive<i16>)> {
    let (role, tells_all) = (listener.role, listener.serves_controllers && is_node);
    SERVED
        .into_iter()
        .filter(move |(_, by)| by.serves(role) || (tells_all && by.serves(Role::Controller)))
        .map(|(api_key, _)| (api_key, api_key.stable_versions()))
}

/// Who serves an API, if this listener does.
fn served_by(listener: &Listener, api: ApiKey) -> Option<By> {
    let is_served = |by: By| {
        by.serves(listener.role) || (listener.serves_controllers && by.serves(Role::Controller))
    };
    SERVED.into_iter().find(|(key, by)| *key == api && is_served(*by)).map(|(_, by)| by)
}

fn is_forwarded(api: ApiKey) -> bool {
    SERVED.contains(&(api, By::Forwarded))
}

/// What a client is told when the controller did not take its request.
pub(crate) fn submit_error(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::NotController | SubmitError::Stopped => ErrorCode::NOT_CONTROLLER,
        SubmitError::Unwritable => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// What a connection's requests have in common.
#[derive(Debug)]
pub(crate) struct Session {
    pub listener: Arc<Listener>,
    peer: IpAddr,
    client_id: Option<ByteString>,
    /// The request comes from a broker that carries it for a client.
    carried: Option<Arc<Carried>>,
    /// The voter that has spoken through this connection: when it breaks, that one may be gone.
    voter: Option<BrokerId>,
    is_closed_by_us: bool,
    /// Of this connection alone.
    id: u64,
}

/// A request that a broker carries here for a client.
#[derive(Debug, Default)]
struct Carried {
    /// Its answer is that this node is not the active controller, which is the broker's business.
    found_no_controller: AtomicBool,
}

/// The connection that each broker's last heartbeat came through: only when that one breaks, its broker may be gone.
///
/// Only those count that the controller has accepted: anybody can send one in another's name. So there are as many entries as brokers
/// that are registered, and each goes with its connection.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatConnections(Mutex<HashMap<BrokerId, (u64, BrokerEpoch)>>);

impl HeartbeatConnections {
    fn note(&self, broker: BrokerId, epoch: BrokerEpoch, session: u64) {
        self.0.lock().insert(broker, (session, epoch));
    }

    /// The brokers whose last heartbeats came through this connection, which has ended.
    fn ended(&self, session: u64) -> Vec<(BrokerId, BrokerEpoch)> {
        let its_own = |_: &BrokerId, (last, _): &mut (u64, BrokerEpoch)| *last == session;
        self.0.lock().extract_if(its_own).map(|(id, (_, epoch))| (id, epoch)).collect()
    }
}

static NEXT_SESSION: AtomicU64 = AtomicU64::new(0);

impl Session {
    #[must_use]
    pub(crate) fn new(listener: Arc<Listener>, peer: IpAddr) -> Self {
        Self {
            listener,
            peer,
            client_id: None,
            carried: None,
            voter: None,
            is_closed_by_us: false,
            id: NEXT_SESSION.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// For a request that a broker carries here for a client.
    #[must_use]
    pub(crate) fn forwarded(listener: &Listener, client: IpAddr) -> Self {
        let listener = Arc::new(listener.of_the_controller());
        Self { carried: Some(Arc::default()), ..Self::new(listener, client) }
    }

    /// The connection ends because this node has closed it, which says nothing about those who spoke through it: where
    /// nothing happens, voters have nothing to say about the log for hours.
    pub(crate) const fn closed_by_us(&mut self) {
        self.is_closed_by_us = true;
    }

    /// The connection has ended: those who spoke through it may have died.
    pub(crate) fn ended(&self, broker: &Broker) {
        let (voter, heartbeats_of) = (self.voter, broker.heartbeat_connections.ended(self.id));
        if self.is_closed_by_us || (voter.is_none() && heartbeats_of.is_empty()) {
            return;
        }
        let quorum = Arc::clone(&broker.quorum);
        tokio::spawn(async move {
            for (id, epoch) in heartbeats_of {
                // If this node is not the active controller, it is no matter.
                let _ = quorum.connection_lost(id, epoch).await;
            }
            if let Some(voter) = voter {
                quorum.peer_lost(voter).await;
            }
        });
    }

    /// Copies the client id when it is another one: a slice would keep the request's whole frame.
    fn remember(&mut self, client_id: Option<&str>) {
        if self.client_id.as_deref() != client_id {
            self.client_id = client_id.map(ByteString::from);
        }
    }

    /// The client id of the latest request, for the log.
    #[must_use]
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}

/// What a handler knows of its request beside the body.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub broker: Arc<Broker>,
    pub listener: Arc<Listener>,
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<ByteString>,
    peer: IpAddr,
    carried: Option<Arc<Carried>>,
    /// That of the connection.
    session: u64,
    /// Why this broker has carried the request to no controller.
    unanswered: Option<ErrorCode>,
    received: Instant,
}

impl Context {
    fn done(&self) {
        self.broker.metrics.request_done(self.api_key, self.received.elapsed());
    }

    /// Who asks, as groups remember their members.
    fn caller(&self) -> Caller {
        Caller {
            version: self.version,
            client_id: self.client_id.clone().unwrap_or_default(),
            client_host: java_address(self.peer).into(),
        }
    }

    /// As [`submit_error`], to whoever has asked.
    fn submit_error(&self, error: &SubmitError) -> ErrorCode {
        match submit_error(error) {
            ErrorCode::NOT_CONTROLLER => self.not_controller(),
            code => code,
        }
    }

    /// What is said where this node is not the active controller.
    fn not_controller(&self) -> ErrorCode {
        if let Some(carried) = &self.carried {
            carried.found_no_controller.store(true, Ordering::Release);
        }
        self.unanswered.unwrap_or(ErrorCode::NOT_CONTROLLER)
    }

    /// The listener by whose endpoints the brokers are named in an answer.
    fn endpoint_name(&self) -> &str {
        &self.listener.name
    }

    /// Whom clients are told to ask for the controller's decisions: a broker that carries them there, this one if it serves.
    fn controller_id(&self, image: &Image) -> i32 {
        let serves = |broker: &&BrokerRegistration| !broker.fenced;
        let this = image.broker(self.broker.node_id).filter(serves);
        this.or_else(|| image.brokers().find(serves)).map_or(BrokerId::NONE, |broker| broker.id).0
    }

    fn answer<M: Message>(&self, body: &M) -> Outcome {
        self.answer_with(body, Vec::new())
    }

    /// Answers with file ranges in the slots of the body's deferred records.
    fn answer_with<M: Message>(&self, body: &M, sources: Vec<Source>) -> Outcome {
        self.done();
        match Answer::new(self.api_key, self.version, self.correlation_id, body, sources) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Close(error.into()),
        }
    }
}

/// An address as Java writes one without a name: `/127.0.0.1`, `/0:0:0:0:0:0:0:1`.
fn java_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}

/// Handles one request. What it comes to may have to wait: [`Outcome::Later`].
pub(crate) fn handle(broker: &Arc<Broker>, session: &mut Session, frame: Bytes) -> Outcome {
    if let Some(request) = PeerRequest::decode(&frame) {
        return peer::handle(broker, session, request);
    }
    dispatch(broker, session, frame).unwrap_or_else(Outcome::Close)
}

fn dispatch(
    broker: &Arc<Broker>,
    session: &mut Session,
    frame: Bytes,
) -> Result<Outcome, CloseReason> {
    let Incoming { api, header, body } = Incoming::decode(frame.clone())?;
    let version = header.request_api_version;
    let Some(by) = served_by(&session.listener, api) else {
        return Err(CloseReason::NotServed(api.name()));
    };
    let versions = api.stable_versions();
    let is_early = session.listener.role == Role::Broker && !broker.serves_clients();
    // Nodes must hear each other before there is a controller that could let this broker in.
    if is_early && by != By::Controller && api != ApiKey::ApiVersions {
        return Err(CloseReason::NotServed("clients, before this broker is let in"));
    }
    session.remember(header.client_id.as_deref());
    let context = Context {
        broker: Arc::clone(broker),
        listener: Arc::clone(&session.listener),
        api_key: api,
        version,
        correlation_id: header.correlation_id,
        client_id: session.client_id.clone(),
        peer: session.peer,
        carried: session.carried.clone(),
        session: session.id,
        unanswered: None,
        received: Instant::now(),
    };
    if versions.contains(&version) {
        if is_for_another_node(&context) {
            check_carried(&context, &body)?;
            return Ok(Outcome::Later(Box::pin(forward(context, body, frame))));
        }
        route(context, body)
    } else if api == ApiKey::ApiVersions {
        Ok(api_versions::unsupported_version(context))
    } else {
        Err(CloseReason::UnsupportedVersion { api: api.name(), version })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what is not listed is not served")]
fn route(context: Context, input: Decoder) -> Result<Outcome, CloseReason> {
    Ok(match context.api_key {
        ApiKey::Produce => at_once(context, input, produce::handle)?,
        ApiKey::Fetch => later(context, input, fetch::handle)?,
        ApiKey::ListOffsets => later(context, input, list_offsets::handle)?,
        ApiKey::Metadata => later(context, input, metadata::handle)?,
        ApiKey::OffsetCommit => later(context, input, offset_commit::handle)?,
        ApiKey::OffsetFetch => later(context, input, offset_fetch::handle)?,
        ApiKey::FindCoordinator => later(context, input, find_coordinator::handle)?,
        ApiKey::JoinGroup => later(context, input, join_group::handle)?,
        ApiKey::Heartbeat => later(context, input, heartbeat::handle)?,
        ApiKey::LeaveGroup => later(context, input, leave_group::handle)?,
        ApiKey::SyncGroup => later(context, input, sync_group::handle)?,
        ApiKey::DescribeGroups => later(context, input, describe_groups::handle)?,
        ApiKey::ListGroups => later(context, input, list_groups::handle)?,
        ApiKey::SaslHandshake => now(&context, input, sasl_handshake::handle)?,
        ApiKey::ApiVersions => now(&context, input, api_versions::handle)?,
        ApiKey::CreateTopics => later(context, input, create_topics::handle)?,
        ApiKey::DeleteTopics => later(context, input, delete_topics::handle)?,
        ApiKey::DeleteRecords => later(context, input, delete_records::handle)?,
        ApiKey::InitProducerId => later(context, input, init_producer_id::handle)?,
        ApiKey::OffsetForLeaderEpoch => now(&context, input, offset_for_leader_epoch::handle)?,
        ApiKey::DescribeAcls => at_once(context, input, describe_acls::handle)?,
        ApiKey::BrokerRegistration => asked::<BrokerRegistrationRequest>(context, input)?,
        ApiKey::BrokerHeartbeat => later(context, input, broker_heartbeat::handle)?,
        ApiKey::AlterPartition => asked::<AlterPartitionRequest>(context, input)?,
        ApiKey::AssignReplicasToDirs => asked::<AssignReplicasToDirsRequest>(context, input)?,
        ApiKey::AllocateProducerIds => asked::<AllocateProducerIdsRequest>(context, input)?,
        ApiKey::ControllerRegistration => asked::<ControllerRegistrationRequest>(context, input)?,
        ApiKey::Envelope => later(context, input, envelope::handle)?,
        ApiKey::CreateAcls => at_once(context, input, create_acls::handle)?,
        ApiKey::DeleteAcls => at_once(context, input, delete_acls::handle)?,
        ApiKey::DescribeConfigs => at_once(context, input, describe_configs::handle)?,
        ApiKey::AlterConfigs => later(context, input, alter_configs::handle)?,
        ApiKey::AlterReplicaLogDirs => later(context, input, alter_replica_log_dirs::handle)?,
        ApiKey::DescribeLogDirs => later(context, input, describe_log_dirs::handle)?,
        ApiKey::SaslAuthenticate => now(&context, input, sasl_authenticate::handle)?,
        ApiKey::CreatePartitions => later(context, input, create_partitions::handle)?,
        ApiKey::DeleteGroups => later(context, input, delete_groups::handle)?,
        ApiKey::ElectLeaders => later(context, input, elect_leaders::handle)?,
        ApiKey::IncrementalAlterConfigs => {
            later(context, input, incremental_alter_configs::handle)?
        }
        ApiKey::AlterPartitionReassignments => {
            later(context, input, alter_partition_reassignments::handle)?
        }
        ApiKey::ListPartitionReassignments => {
            now(&context, input, list_partition_reassignments::handle)?
        }
        ApiKey::OffsetDelete => later(context, input, offset_delete::handle)?,
        ApiKey::DescribeClientQuotas => now(&context, input, describe_client_quotas::handle)?,
        ApiKey::DescribeUserScramCredentials => {
            now(&context, input, describe_user_scram_credentials::handle)?
        }
        ApiKey::DescribeQuorum => now(&context, input, describe_quorum::handle)?,
        ApiKey::UpdateFeatures => later(context, input, update_features::handle)?,
        ApiKey::DescribeCluster => now(&context, input, describe_cluster::handle)?,
        ApiKey::DescribeProducers => at_once(context, input, describe_producers::handle)?,
        ApiKey::UnregisterBroker => later(context, input, unregister_broker::handle)?,
        ApiKey::DescribeTransactions => now(&context, input, describe_transactions::handle)?,
        ApiKey::ListTransactions => now(&context, input, list_transactions::handle)?,
        ApiKey::ListConfigResources => now(&context, input, list_config_resources::handle)?,
        ApiKey::DescribeTopicPartitions => now(&context, input, describe_topic_partitions::handle)?,
        ApiKey::AddRaftVoter => later(context, input, add_raft_voter::handle)?,
        ApiKey::RemoveRaftVoter => later(context, input, remove_raft_voter::handle)?,
        ApiKey::UpdateRaftVoter => later(context, input, update_raft_voter::handle)?,
        other => return Err(CloseReason::NotServed(other.name())),
    })
}

fn body<R: Request>(context: &Context, mut input: Decoder) -> Result<R, CloseReason> {
    // Bytes behind the request are passed over, as Apache Kafka passes them over.
    Ok(R::decode(&mut input, context.version)?)
}

/// For a handler that knows at once whether there is an answer.
fn at_once<R: Request>(
    context: Context,
    input: Decoder,
    handler: impl FnOnce(Context, R) -> Outcome,
) -> Result<Outcome, CloseReason> {
    let request = body(&context, input)?;
    Ok(handler(context, request))
}

/// For a handler that answers from what is in memory.
fn now<R: Request>(
    context: &Context,
    input: Decoder,
    handler: impl FnOnce(&Context, R) -> R::Response,
) -> Result<Outcome, CloseReason> {
    let request = body(context, input)?;
    Ok(context.answer(&handler(context, request)))
}

/// For a handler that waits: for records, for the controller, for a disk.
fn later<R: Request, F: Future<Output = Outcome> + Send + 'static>(
    context: Context,
    input: Decoder,
    handler: impl FnOnce(Context, R) -> F,
) -> Result<Outcome, CloseReason> {
    let request = body(&context, input)?;
    Ok(Outcome::Later(Box::pin(handler(context, request))))
}

/// For what a broker asks a controller.
fn asked<R: ControllerRequest>(context: Context, input: Decoder) -> Result<Outcome, CloseReason> {
    later(context, input, |context, request: R| async move {
        let response = request.decide(&context.broker.quorum, context.version).await;
        context.answer(&response)
    })
}

/// What this broker looks at before it carries it to the controller.
const CHECKED_HERE: [ApiKey; 2] = [ApiKey::AlterConfigs, ApiKey::IncrementalAlterConfigs];

/// Whether the active controller, which is not here, must decide on a client's request.
fn is_for_another_node(context: &Context) -> bool {
    context.listener.role == Role::Broker
        && is_forwarded(context.api_key)
        && !context.broker.controller.is_here()
        && !CHECKED_HERE.contains(&context.api_key)
}

/// Whether a request can be read: one that cannot ends its client's connection, not that to the controller.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not listed is not carried")]
fn check_carried(context: &Context, input: &Decoder) -> Result<(), CloseReason> {
    fn check<R: Request>(context: &Context, input: Decoder) -> Result<(), CloseReason> {
        body::<R>(context, input).map(|_| ())
    }
    let check = match context.api_key {
        ApiKey::CreateTopics => check::<CreateTopicsRequest>,
        ApiKey::DeleteTopics => check::<DeleteTopicsRequest>,
        ApiKey::CreateAcls => check::<CreateAclsRequest>,
        ApiKey::DeleteAcls => check::<DeleteAclsRequest>,
        ApiKey::CreatePartitions => check::<CreatePartitionsRequest>,
        ApiKey::ElectLeaders => check::<ElectLeadersRequest>,
        ApiKey::AlterPartitionReassignments => check::<AlterPartitionReassignmentsRequest>,
        ApiKey::ListPartitionReassignments => check::<ListPartitionReassignmentsRequest>,
        ApiKey::DescribeQuorum => check::<DescribeQuorumRequest>,
        ApiKey::UpdateFeatures => check::<UpdateFeaturesRequest>,
        ApiKey::UnregisterBroker => check::<UnregisterBrokerRequest>,
        ApiKey::AddRaftVoter => check::<AddRaftVoterRequest>,
        ApiKey::RemoveRaftVoter => check::<RemoveRaftVoterRequest>,
        other => return Err(CloseReason::NotServed(other.name())),
    };
    check(context, input.clone())
}

/// How long a client's request may look for a controller. Most clients give up after 30 s.
const FORWARDING_MAX: Duration = Duration::from_secs(20);

/// Lets the controller answer, which may be this node by then. Where none has, the handler says so.
async fn forward(mut context: Context, body: Decoder, frame: Bytes) -> Outcome {
    let deadline = tokio::time::Instant::now() + FORWARDING_MAX;
    match context.broker.controller.forward(frame, context.peer, deadline).await {
        Ok(Forwarded::Answer(answer)) => {
            context.done();
            return Outcome::Answer(Answer::raw(with_length(&answer)));
        }
        Ok(Forwarded::Here) => {}
        Err(error) => {
            tracing::debug!(api = context.api_key.name(), %error, "not forwarded");
            context.unanswered = Some(error.code());
        }
    }
    route(context, body).unwrap_or_else(Outcome::Close)
}

fn with_length(frame: &[u8]) -> Bytes {
    let length = i32::try_from(frame.len()).expect("an answer came in a frame");
    [&length.to_be_bytes(), frame].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Connections;

    fn listener(role: Role, serves_controllers: bool) -> Listener {
        Listener {
            name: "PLAINTEXT".to_owned(),
            role,
            serves_controllers,
            is_protected: false,
            connections: Arc::new(Connections::new(usize::MAX)),
        }
    }

    #[test]
    fn a_connection_ends_for_the_brokers_that_have_come_through_it_last_and_is_forgotten() {
        let connections = HeartbeatConnections::default();
        let [one, two, three] = [1, 2, 3].map(BrokerId);
        connections.note(one, BrokerEpoch(1), 7);
        connections.note(two, BrokerEpoch(2), 7);
        connections.note(three, BrokerEpoch(3), 7);
        // One broker has connected anew, another has restarted.
        connections.note(one, BrokerEpoch(1), 8);
        connections.note(two, BrokerEpoch(5), 7);
        let mut ended = connections.ended(7);
        ended.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(ended, [(two, BrokerEpoch(5)), (three, BrokerEpoch(3))]);
        assert_eq!(connections.ended(7), []);
        assert_eq!(connections.ended(8), [(one, BrokerEpoch(1))]);
        assert!(connections.0.lock().is_empty());
    }

    fn told_to(listener: &Listener, is_node: bool) -> Vec<ApiKey> {
        told(listener, is_node).map(|(key, _)| key).collect()
    }

    #[test]
    fn clients_are_told_the_same_by_a_listener_that_serves_controllers_too_and_nodes_are_told_all()
    {
        let (clients, controllers) =
            (listener(Role::Broker, false), listener(Role::Controller, true));
        let both = listener(Role::Broker, true);
        assert_eq!(told_to(&both, false), told_to(&clients, false));
        let all = SERVED.map(|(key, _)| key);
        assert_eq!(told_to(&both, true), all);
        for it in [&clients, &controllers] {
            assert_eq!(told_to(it, true), told_to(it, false));
            assert!(told_to(it, true).len() < all.len());
        }
        assert_eq!(told_to(&both.of_the_controller(), false), told_to(&controllers, false));
    }

    #[test]
    fn what_controllers_serve_closes_a_connection_of_clients_unless_their_listener_serves_controllers()
     {
        let (clients, controllers) =
            (listener(Role::Broker, false), listener(Role::Controller, true));
        let both = listener(Role::Broker, true);
        for (key, by) in SERVED {
            assert_eq!(served_by(&both, key), Some(by));
            assert_eq!(served_by(&clients, key), Some(by).filter(|by| *by != By::Controller));
            assert_eq!(served_by(&controllers, key), Some(by).filter(|by| *by != By::Broker));
        }
    }
}
