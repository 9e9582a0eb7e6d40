//! From a frame to an outcome: the table of served APIs, and one file per API below.
//!
//! The directory listing is the compatibility statement: an API without a file here is not served
//! and not advertised.

mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod authorized;
mod config_changes;
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
mod produce;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod unregister_broker;
mod update_features;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_coordinator::group::Caller;
use ottla_protocol::frame::Incoming;
use ottla_protocol::{ApiKey, Decoder, Message, Request};
use ottla_quorum::SubmitError;

use crate::answer::{Answer, CloseReason, Outcome, Source};
use crate::broker::Broker;
use crate::listener::{Listener, Role};

/// The APIs that this broker serves, each in all the stable versions that Kafka 4.3 serves, and
/// whether a controller listener serves them too.
const SERVED: [(ApiKey, bool); 46] = [
    (ApiKey::Produce, false),
    (ApiKey::Fetch, false),
    (ApiKey::ListOffsets, false),
    (ApiKey::Metadata, false),
    (ApiKey::OffsetCommit, false),
    (ApiKey::OffsetFetch, false),
    (ApiKey::FindCoordinator, false),
    (ApiKey::JoinGroup, false),
    (ApiKey::Heartbeat, false),
    (ApiKey::LeaveGroup, false),
    (ApiKey::SyncGroup, false),
    (ApiKey::DescribeGroups, false),
    (ApiKey::ListGroups, false),
    (ApiKey::SaslHandshake, true),
    (ApiKey::ApiVersions, true),
    (ApiKey::CreateTopics, true),
    (ApiKey::DeleteTopics, true),
    (ApiKey::DeleteRecords, false),
    (ApiKey::InitProducerId, false),
    (ApiKey::OffsetForLeaderEpoch, false),
    (ApiKey::DescribeAcls, true),
    (ApiKey::CreateAcls, true),
    (ApiKey::DeleteAcls, true),
    (ApiKey::DescribeConfigs, true),
    (ApiKey::AlterConfigs, true),
    (ApiKey::AlterReplicaLogDirs, false),
    (ApiKey::DescribeLogDirs, false),
    (ApiKey::SaslAuthenticate, true),
    (ApiKey::CreatePartitions, true),
    (ApiKey::DeleteGroups, false),
    (ApiKey::ElectLeaders, true),
    (ApiKey::IncrementalAlterConfigs, true),
    (ApiKey::AlterPartitionReassignments, true),
    (ApiKey::ListPartitionReassignments, true),
    (ApiKey::OffsetDelete, false),
    (ApiKey::DescribeClientQuotas, false),
    (ApiKey::DescribeUserScramCredentials, true),
    (ApiKey::DescribeQuorum, true),
    (ApiKey::UpdateFeatures, true),
    (ApiKey::DescribeCluster, true),
    (ApiKey::DescribeProducers, false),
    (ApiKey::UnregisterBroker, true),
    (ApiKey::DescribeTransactions, false),
    (ApiKey::ListTransactions, false),
    (ApiKey::ListConfigResources, false),
    (ApiKey::DescribeTopicPartitions, false),
];

/// The APIs of a listener in the order of their keys, with the versions that are served.
pub(crate) fn served(role: Role) -> impl Iterator<Item = (ApiKey, RangeInclusive<i16>)> {
    SERVED
        .into_iter()
        .filter(move |(_, on_controller)| role == Role::Broker || *on_controller)
        .map(|(api_key, _)| (api_key, api_key.stable_versions()))
}

/// What a client is told when the controller did not take its request.
fn submit_error(error: &SubmitError) -> ErrorCode {
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
}

impl Session {
    #[must_use]
    pub(crate) const fn new(listener: Arc<Listener>, peer: IpAddr) -> Self {
        Self { listener, peer, client_id: None }
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

    /// The listener by whose endpoints the brokers are named in an answer.
    fn endpoint_name(&self) -> &str {
        &self.listener.name
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
    dispatch(broker, session, frame).unwrap_or_else(Outcome::Close)
}

fn dispatch(
    broker: &Arc<Broker>,
    session: &mut Session,
    frame: Bytes,
) -> Result<Outcome, CloseReason> {
    let Incoming { api, header, body } = Incoming::decode(frame)?;
    let version = header.request_api_version;
    let Some((_, versions)) = served(session.listener.role).find(|(key, _)| *key == api) else {
        return Err(CloseReason::NotServed(api.name()));
    };
    session.remember(header.client_id.as_deref());
    let context = Context {
        broker: Arc::clone(broker),
        listener: Arc::clone(&session.listener),
        api_key: api,
        version,
        correlation_id: header.correlation_id,
        client_id: session.client_id.clone(),
        peer: session.peer,
        received: Instant::now(),
    };
    if versions.contains(&version) {
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
        ApiKey::UnregisterBroker => now(&context, input, unregister_broker::handle)?,
        ApiKey::DescribeTransactions => now(&context, input, describe_transactions::handle)?,
        ApiKey::ListTransactions => now(&context, input, list_transactions::handle)?,
        ApiKey::ListConfigResources => now(&context, input, list_config_resources::handle)?,
        ApiKey::DescribeTopicPartitions => now(&context, input, describe_topic_partitions::handle)?,
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
