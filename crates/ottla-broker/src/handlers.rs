//! From a frame to an outcome: the table of served APIs, and one file per API below.
//!
//! What has no row in the table is neither served nor advertised. An API's file opens with its card, of which
//! `docs/compatibility.md` is made; the other files below hold what handlers have in common.

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
mod call;
mod config_changes;
mod context;
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
mod impatience;
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
mod session;
mod sync_group;
mod unregister_broker;
mod update_features;
mod update_raft_voter;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ApiKey;
use ottla_protocol::frame::Incoming;
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AlterConfigsRequest, AlterPartitionRequest,
    AssignReplicasToDirsRequest, BrokerRegistrationRequest, ControllerRegistrationRequest,
    IncrementalAlterConfigsRequest,
};
use ottla_protocol::peer::PeerRequest;

use crate::answer::{CloseReason, Outcome};
use crate::broker::Broker;
use crate::listener::{Listener, Role};
use call::{Call, Called};
use context::Context;
pub(crate) use session::{HeartbeatConnections, Session};

/// The APIs that are served, each in all the stable versions that Kafka 4.3 serves.
static SERVED: [Api; 56] = [
    api(ApiKey::Produce, By::Broker, |it| it.at_once(produce::handle)),
    api(ApiKey::Fetch, By::Broker, |it| it.later(fetch::handle)),
    api(ApiKey::ListOffsets, By::Broker, |it| it.later(list_offsets::handle)),
    api(ApiKey::Metadata, By::Broker, |it| it.later(metadata::handle)),
    api(ApiKey::OffsetCommit, By::Broker, |it| it.later(offset_commit::handle)),
    api(ApiKey::OffsetFetch, By::Broker, |it| it.later(offset_fetch::handle)),
    api(ApiKey::FindCoordinator, By::Broker, |it| it.later(find_coordinator::handle)),
    api(ApiKey::JoinGroup, By::Broker, |it| it.later(join_group::handle)),
    api(ApiKey::Heartbeat, By::Broker, |it| it.later(heartbeat::handle)),
    api(ApiKey::LeaveGroup, By::Broker, |it| it.later(leave_group::handle)),
    api(ApiKey::SyncGroup, By::Broker, |it| it.later(sync_group::handle)),
    api(ApiKey::DescribeGroups, By::Broker, |it| it.later(describe_groups::handle)),
    api(ApiKey::ListGroups, By::Broker, |it| it.later(list_groups::handle)),
    api(ApiKey::SaslHandshake, By::Both, |it| it.now(sasl_handshake::handle)),
    api(ApiKey::ApiVersions, By::Both, |it| it.now(api_versions::handle)),
    api(ApiKey::CreateTopics, By::Forwarded, |it| it.later(create_topics::handle)),
    api(ApiKey::DeleteTopics, By::Forwarded, |it| it.later(delete_topics::handle)),
    api(ApiKey::DeleteRecords, By::Broker, |it| it.later(delete_records::handle)),
    api(ApiKey::InitProducerId, By::Broker, |it| it.later(init_producer_id::handle)),
    api(ApiKey::OffsetForLeaderEpoch, By::Broker, |it| it.now(offset_for_leader_epoch::handle)),
    api(ApiKey::DescribeAcls, By::Both, |it| it.at_once(describe_acls::handle)),
    api(ApiKey::CreateAcls, By::Forwarded, |it| it.at_once(create_acls::handle)),
    api(ApiKey::DeleteAcls, By::Forwarded, |it| it.at_once(delete_acls::handle)),
    api(ApiKey::DescribeConfigs, By::Both, |it| it.at_once(describe_configs::handle)),
    api(ApiKey::AlterConfigs, By::Screened, |it| {
        it.later(config_changes::handle::<AlterConfigsRequest>)
    }),
    api(ApiKey::AlterReplicaLogDirs, By::Broker, |it| it.later(alter_replica_log_dirs::handle)),
    api(ApiKey::DescribeLogDirs, By::Broker, |it| it.later(describe_log_dirs::handle)),
    api(ApiKey::SaslAuthenticate, By::Both, |it| it.now(sasl_authenticate::handle)),
    api(ApiKey::CreatePartitions, By::Forwarded, |it| it.later(create_partitions::handle)),
    api(ApiKey::DeleteGroups, By::Broker, |it| it.later(delete_groups::handle)),
    api(ApiKey::ElectLeaders, By::Forwarded, |it| it.later(elect_leaders::handle)),
    api(ApiKey::IncrementalAlterConfigs, By::Screened, |it| {
        it.later(config_changes::handle::<IncrementalAlterConfigsRequest>)
    }),
    api(ApiKey::AlterPartitionReassignments, By::Forwarded, |it| {
        it.later(alter_partition_reassignments::handle)
    }),
    api(ApiKey::ListPartitionReassignments, By::Forwarded, |it| {
        it.now(list_partition_reassignments::handle)
    }),
    api(ApiKey::OffsetDelete, By::Broker, |it| it.later(offset_delete::handle)),
    api(ApiKey::DescribeClientQuotas, By::Broker, |it| it.now(describe_client_quotas::handle)),
    api(ApiKey::DescribeUserScramCredentials, By::Both, |it| {
        it.now(describe_user_scram_credentials::handle)
    }),
    api(ApiKey::DescribeQuorum, By::Forwarded, |it| it.now(describe_quorum::handle)),
    api(ApiKey::AlterPartition, By::Controller, |it| it.asked::<AlterPartitionRequest>()),
    api(ApiKey::UpdateFeatures, By::Forwarded, |it| it.later(update_features::handle)),
    api(ApiKey::Envelope, By::Controller, |it| it.later(envelope::handle)),
    api(ApiKey::DescribeCluster, By::Both, |it| it.now(describe_cluster::handle)),
    api(ApiKey::DescribeProducers, By::Broker, |it| it.at_once(describe_producers::handle)),
    api(ApiKey::BrokerRegistration, By::Controller, |it| it.asked::<BrokerRegistrationRequest>()),
    api(ApiKey::BrokerHeartbeat, By::Controller, |it| it.later(broker_heartbeat::handle)),
    api(ApiKey::UnregisterBroker, By::Forwarded, |it| it.later(unregister_broker::handle)),
    api(ApiKey::DescribeTransactions, By::Broker, |it| it.now(describe_transactions::handle)),
    api(ApiKey::ListTransactions, By::Broker, |it| it.now(list_transactions::handle)),
    api(ApiKey::AllocateProducerIds, By::Controller, |it| it.asked::<AllocateProducerIdsRequest>()),
    api(ApiKey::ControllerRegistration, By::Controller, |it| {
        it.asked::<ControllerRegistrationRequest>()
    }),
    api(ApiKey::AssignReplicasToDirs, By::Controller, |it| {
        it.asked::<AssignReplicasToDirsRequest>()
    }),
    api(ApiKey::ListConfigResources, By::Broker, |it| it.now(list_config_resources::handle)),
    api(ApiKey::DescribeTopicPartitions, By::Broker, |it| {
        it.now(describe_topic_partitions::handle)
    }),
    api(ApiKey::AddRaftVoter, By::Forwarded, |it| it.later(add_raft_voter::handle)),
    api(ApiKey::RemoveRaftVoter, By::Forwarded, |it| it.later(remove_raft_voter::handle)),
    api(ApiKey::UpdateRaftVoter, By::Controller, |it| it.later(update_raft_voter::handle)),
];

/// An API that is served.
struct Api {
    key: ApiKey,
    by: By,
    /// Reads a request, and has it handled.
    call: fn(Call) -> Called,
}

const fn api(key: ApiKey, by: By, call: fn(Call) -> Called) -> Api {
    Api { key, by, call }
}

/// Who serves an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Broker,
    /// A broker by itself, and a controller.
    Both,
    /// The active controller; a broker carries such a request to it.
    Forwarded,
    /// As above, of which a broker answers some itself and carries the rest.
    Screened,
    /// A controller, for brokers and other controllers.
    Controller,
}

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
        .iter()
        .filter(move |api| api.by.serves(role) || (tells_all && api.by.serves(Role::Controller)))
        .map(|api| (api.key, api.key.stable_versions()))
}

/// An API, if this listener serves it.
fn served_by(listener: &Listener, key: ApiKey) -> Option<&'static Api> {
    let is_served = |by: By| {
        by.serves(listener.role) || (listener.serves_controllers && by.serves(Role::Controller))
    };
    SERVED.iter().find(|api| api.key == key && is_served(api.by))
}

/// Whether brokers carry such requests to the active controller.
fn is_forwarded(key: ApiKey) -> bool {
    SERVED.iter().any(|api| api.key == key && matches!(api.by, By::Forwarded | By::Screened))
}

/// Handles one request. What it comes to may have to wait: [`Outcome::Later`].
pub(crate) fn handle(broker: &Arc<Broker>, session: &mut Session, frame: Bytes) -> Outcome {
    if let Some(request) = PeerRequest::decode(&frame) {
        return peer::handle(broker, session, request);
    }
    dispatch(broker, session, frame).unwrap_or_else(Outcome::Close)
}

fn dispatch(broker: &Arc<Broker>, session: &mut Session, frame: Bytes) -> Called {
    let Incoming { api: key, header, body } = Incoming::decode(frame.clone())?;
    let Some(api) = served_by(&session.listener, key) else {
        return Err(CloseReason::NotServed(key.name()));
    };
    let is_early = session.listener.role == Role::Broker && !broker.serves_clients();
    // Nodes must hear each other before there is a controller that could let this broker in.
    if is_early && api.by != By::Controller && key != ApiKey::ApiVersions {
        return Err(CloseReason::NotServed("clients, before this broker is let in"));
    }
    session.remember(header.client_id.as_deref());
    let context = Context::new(broker, session, key, &header);
    let version = context.version;
    if key.stable_versions().contains(&version) {
        let carried_in = is_for_another_node(api, &context).then_some(frame);
        (api.call)(Call { api, context, body, carried_in })
    } else if key == ApiKey::ApiVersions {
        Ok(api_versions::unsupported_version(context))
    } else {
        Err(CloseReason::UnsupportedVersion { api: key.name(), version })
    }
}

/// Whether the active controller, which is not here, must decide on a client's request.
fn is_for_another_node(api: &Api, context: &Context) -> bool {
    context.listener.role == Role::Broker
        && api.by == By::Forwarded
        && !context.broker.controller.is_here()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::unused as listener;

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
        let all = SERVED.each_ref().map(|api| api.key);
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
        let by = |listener, key| served_by(listener, key).map(|api| api.by);
        for api in &SERVED {
            let served = Some(api.by);
            assert_eq!(by(&both, api.key), served);
            assert_eq!(by(&clients, api.key), served.filter(|by| *by != By::Controller));
            assert_eq!(by(&controllers, api.key), served.filter(|by| *by != By::Broker));
        }
    }
}
