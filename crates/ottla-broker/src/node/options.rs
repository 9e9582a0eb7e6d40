//! What each part of a node is started with, from the node's configuration and what is known once its sockets are bound.

use std::collections::HashMap;
use std::time::Duration;

use ottla_base::{BrokerId, Uuid};
use ottla_client::Address as ClientAddress;
use ottla_config::{
    BrokerConfig, Formation, Listener, SecurityProtocol, Settings as ConfigSettings, Voter,
};
use ottla_log::DirectoryOptions;
use ottla_metadata::controller::Policy;
use ottla_metadata::{Endpoint, feature};
use ottla_protocol::messages::{BrokerRegistrationRequest, broker_registration_request};
use ottla_quorum::{Config as QuorumConfig, InitialVoter, SnapshotLimits, Timing};
use ottla_replication::Windows;
use tokio::sync::Semaphore;

use super::bind::Bound;
use super::{Address, NodeOptions};
use crate::broker::Settings;
use crate::fetchers::FetchSettings;
use crate::lifecycle::Intervals;
use crate::listener::Role;
use crate::log_directories::LogDirectories;

/// How many files logs may have open, and how many sockets clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFiles {
    pub logs_max: usize,
    pub sockets_max: usize,
}

impl OpenFiles {
    /// More do not make a broker faster.
    const LOGS_MAX: usize = 16_384;
    /// What the process itself has open, the controller's connections, and files that are open for a moment.
    const OTHERS: usize = 64;

    /// Gives logs half of what the process may open.
    pub(super) fn share(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let logs_max = (limit / 2).min(Self::LOGS_MAX);
        let sockets_max = limit.saturating_sub(logs_max + Self::OTHERS).max(1);
        Self { logs_max, sockets_max }
    }
}

/// `open_files_max` is for all directories together, of which there are so many.
pub(super) fn directory_options(
    config: &BrokerConfig,
    open_files_max: usize,
    directories: usize,
) -> DirectoryOptions {
    let defaults = DirectoryOptions::default();
    DirectoryOptions {
        flush_on_commit: config.log_flush_on_commit,
        scrub_bytes_per_second: u64::try_from(config.scrub_bytes_per_second).unwrap_or(0),
        scrub_interval_ms: u64::try_from(config.scrub_interval_ms)
            .unwrap_or(defaults.scrub_interval_ms),
        recovery_threads: usize::try_from(config.num_recovery_threads_per_data_dir).unwrap_or(1),
        checkpoint_interval_ms: u64::try_from(config.log_flush_offset_checkpoint_interval_ms)
            .unwrap_or(defaults.checkpoint_interval_ms),
        producer_id_expiration_ms: config.producer_id_expiration_ms.into(),
        producer_id_expiration_check_interval_ms: u64::try_from(
            config.producer_id_expiration_check_interval_ms,
        )
        .unwrap_or(defaults.producer_id_expiration_check_interval_ms),
        reserved_bytes: u64::try_from(config.log_dir_reserved_bytes).unwrap_or(0),
        high_watermark_interval_ms: u64::try_from(
            config.replica_high_watermark_checkpoint_interval_ms,
        )
        .unwrap_or(defaults.high_watermark_interval_ms),
        open_files_max: open_files_max / directories,
        ..defaults
    }
}

pub(super) fn quorum_config(
    options: &NodeOptions,
    bound: &[Bound],
    incarnation_id: Uuid,
) -> QuorumConfig {
    QuorumConfig {
        node_id: options.config.node_id,
        cluster_id: options.cluster_id.as_str().into(),
        directory_id: options.directories.metadata.id,
        incarnation_id,
        controller_endpoints: controller_endpoints(options, bound),
        voters: initial_voters(options),
        joins: options.initial_voters.is_empty()
            && options.config.formation() == Formation::RecordedVoters,
        endpoints: endpoints_of_follower(options, bound),
        place_is_guessed: place_is_guessed(&options.config),
        wants_vote: options.config.process_roles.controller
            && options.config.controller_quorum_auto_join_enable,
        contacts: contacts(&options.config),
        timing: timing(&options.config),
        levels: options.levels.clone(),
        policy: Policy::from_settings(options.settings.clone()),
        segment_bytes: u64::try_from(options.config.metadata_log_segment_bytes).unwrap_or(u64::MAX),
        segment_ms: options.config.metadata_log_segment_ms,
        snapshots: snapshot_limits(&options.config),
    }
}

fn timing(config: &BrokerConfig) -> Timing {
    let silence_ms = config.controller_quorum_fetch_timeout_ms;
    silence_ms
        .map_or_else(Timing::default, |ms| Timing::within(u64::try_from(ms).unwrap_or_default()))
}

fn snapshot_limits(config: &BrokerConfig) -> SnapshotLimits {
    let positive = |value: i64| u64::try_from(value).unwrap_or_default();
    SnapshotLimits {
        bytes_between: positive(config.metadata_log_max_record_bytes_between_snapshots),
        interval_ms: positive(config.metadata_log_max_snapshot_interval_ms),
        retention_bytes: config.metadata_max_retention_bytes,
        retention_ms: config.metadata_max_retention_ms,
    }
}

/// Where this node is reached as a controller: where controllers meet, or, without such a listener, where brokers do.
fn controller_endpoints(options: &NodeOptions, bound: &[Bound]) -> Vec<Endpoint> {
    let config = &options.config;
    if config.controllers_meet_brokers() {
        return inter_broker_endpoints(config, bound);
    }
    let mut all = endpoints(config, bound, Role::Controller);
    if place_is_guessed(config) {
        let formatted = options.initial_voters.iter().filter(|it| it.id == config.node_id);
        for written in
            formatted.flat_map(|it| &it.endpoints).filter(|it| &*it.host != UNWRITTEN_HOST)
        {
            let mut told = all.iter_mut();
            if let Some(told) = told.find(|it| it.listener == written.listener) {
                (told.host, told.port) = (written.host.clone(), written.port);
            }
        }
    }
    all
}

/// What `format --standalone` writes where the listener has no host: nobody has said so.
pub const UNWRITTEN_HOST: &str = "localhost";

/// Where a leader reaches this node with the metadata log.
fn endpoints_of_follower(options: &NodeOptions, bound: &[Bound]) -> Vec<Endpoint> {
    if options.config.process_roles.controller {
        return controller_endpoints(options, bound);
    }
    inter_broker_endpoints(&options.config, bound)
}

/// Whether the host where this node is reached as a controller is written nowhere: it is what the machine calls itself.
fn place_is_guessed(config: &BrokerConfig) -> bool {
    let mut told = if config.controllers_meet_brokers() {
        config.advertised_listeners.iter()
    } else {
        config.advertised_controller_listeners.iter()
    };
    let is_meant = |it: &&Listener| {
        !config.controllers_meet_brokers() || it.name == config.inter_broker_listener_name
    };
    told.find(is_meant).is_some_and(|listener| listener.host.is_none())
}

fn inter_broker_endpoints(config: &BrokerConfig, bound: &[Bound]) -> Vec<Endpoint> {
    let mut all = endpoints(config, bound, Role::Broker);
    all.retain(|endpoint| *endpoint.listener == *config.inter_broker_listener_name);
    all
}

/// Where to ask for a controller that leads.
fn contacts(config: &BrokerConfig) -> Vec<Endpoint> {
    let servers = config.controller_quorum_bootstrap_servers.iter();
    let voters = config.controller_quorum_voters.iter().map(|it| (it.host.as_str(), it.port));
    let all = servers.map(|(host, port)| (host.as_str(), *port)).chain(voters);
    all.map(|(host, port)| controller_endpoint(config, host, port)).collect()
}

fn controller_endpoint(config: &BrokerConfig, host: &str, port: u16) -> Endpoint {
    Endpoint {
        listener: config.controller_listener_names.first().map_or("", |name| name).into(),
        host: host.into(),
        port,
        security_protocol: SecurityProtocol::Plaintext.code(),
    }
}

/// What the controller is told of this broker.
pub(super) fn registration(
    options: &NodeOptions,
    bound: &[Bound],
    directories: &LogDirectories,
    incarnation_id: Uuid,
) -> BrokerRegistrationRequest {
    let listeners = endpoints(&options.config, bound, Role::Broker);
    BrokerRegistrationRequest {
        broker_id: options.config.node_id.0,
        cluster_id: options.cluster_id.as_str().into(),
        incarnation_id,
        listeners: listeners
            .iter()
            .map(|endpoint| broker_registration_request::Listener {
                name: (&*endpoint.listener).into(),
                host: (&*endpoint.host).into(),
                port: endpoint.port,
                security_protocol: endpoint.security_protocol,
            })
            .collect(),
        features: feature::of_registration(),
        rack: options.config.rack.as_deref().map(Into::into),
        log_dirs: directories.online(),
        previous_broker_epoch: directories.previous_broker_epoch().unwrap_or(-1),
        ..BrokerRegistrationRequest::default()
    }
}

/// What others are told: the advertised addresses, with the ports and names that are only known now.
fn endpoints(config: &BrokerConfig, bound: &[Bound], role: Role) -> Vec<Endpoint> {
    let advertised = match role {
        Role::Broker => &config.advertised_listeners,
        Role::Controller => &config.advertised_controller_listeners,
    };
    advertised
        .iter()
        .map(|listener| {
            let socket = bound.iter().find(|bound| bound.config.name == listener.name);
            let bound_port = socket.map_or(0, |bound| bound.address.port());
            let host = listener.host.clone().unwrap_or_else(host_name);
            Endpoint {
                listener: listener.name.as_str().into(),
                host: host.as_str().into(),
                port: if listener.port == 0 { bound_port } else { listener.port },
                security_protocol: listener.protocol.code(),
            }
        })
        .collect()
}

/// Where each listener is, for whoever wants to connect.
pub(super) fn addresses(config: &BrokerConfig, bound: &[Bound]) -> Vec<Address> {
    let told = [Role::Broker, Role::Controller].map(|role| endpoints(config, bound, role));
    let address = |bound: &Bound| {
        let name = &bound.config.name;
        let told = told.iter().flatten().find(|it| *it.listener == **name);
        let shown = |it: &Endpoint| {
            let address = ClientAddress { host: it.host.to_string(), port: it.port };
            address.to_string()
        };
        let is_everywhere = bound.address.ip().is_unspecified();
        Address {
            name: name.clone(),
            socket: bound.address,
            advertised: told.filter(|_| is_everywhere).map(shown),
        }
    };
    bound.iter().map(address).collect()
}

/// What this machine is called, as Kafka tells clients when no host is configured.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Those that formatting has written down, or the voters by `controller.quorum.voters`; without either this node is alone.
fn initial_voters(options: &NodeOptions) -> Vec<InitialVoter> {
    let config = &options.config;
    let voters = config.controller_quorum_voters.iter();
    if !options.initial_voters.is_empty() {
        return options.initial_voters.clone();
    }
    let voter = |voter: &Voter| InitialVoter {
        id: BrokerId(voter.id),
        directory_id: Uuid::ZERO,
        endpoints: vec![controller_endpoint(config, &voter.host, voter.port)],
    };
    voters.map(voter).collect()
}

/// Where controllers are by `controller.quorum.voters`.
pub(super) fn controllers(config: &BrokerConfig) -> HashMap<BrokerId, ClientAddress> {
    let voters = config.controller_quorum_voters.iter();
    let address = |it: &Voter| ClientAddress { host: it.host.clone(), port: it.port };
    voters.map(|voter| (BrokerId(voter.id), address(voter))).collect()
}

pub(super) fn intervals(config: &BrokerConfig) -> Intervals {
    Intervals {
        heartbeat: milliseconds(config.broker_heartbeat_interval_ms.into()),
        registration_max: milliseconds(config.initial_broker_registration_timeout_ms.into()),
    }
}

pub(super) fn fetch_settings(config: &BrokerConfig) -> FetchSettings {
    FetchSettings {
        wait_max_ms: config.replica_fetch_wait_max_ms,
        min_bytes: config.replica_fetch_min_bytes,
        max_bytes: config.replica_fetch_max_bytes,
        response_max_bytes: config.replica_fetch_response_max_bytes,
        fetchers: usize::try_from(config.num_replica_fetchers).unwrap_or(1),
    }
}

pub(super) fn throttle_windows(config: &BrokerConfig) -> Windows {
    Windows {
        count: usize::try_from(config.replication_quota_window_num).unwrap_or(1),
        size: Duration::from_secs(
            u64::try_from(config.replication_quota_window_size_seconds).unwrap_or(1),
        ),
    }
}

pub(super) fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

pub(super) fn settings(config: &BrokerConfig, set: &ConfigSettings) -> Settings {
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    // −1 leaves a socket's buffer to the operating system. So does who sets nothing: Kafka's 100 KiB hold less than the
    // five requests of a producer, who is then woken for every piece of them.
    let buffer = |name, bytes: i32| usize::try_from(bytes).ok().filter(|_| set.is_set(name));
    let idle = u64::try_from(config.connections_max_idle_ms).unwrap_or(IDLE_FOR_EVER_MS);
    Settings {
        request_bytes_max: size(config.socket_request_max_bytes),
        queued_bytes_max: config
            .queued_max_request_bytes
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)),
        connections_max_idle: Duration::from_millis(idle.min(IDLE_FOR_EVER_MS)),
        socket_send_buffer: buffer("socket.send.buffer.bytes", config.socket_send_buffer_bytes),
        socket_receive_buffer: buffer(
            "socket.receive.buffer.bytes",
            config.socket_receive_buffer_bytes,
        ),
        fetch_bytes_max: size(config.fetch_max_bytes),
        replica_selector: config.replica_selector_class,
        fetch_session_slots: size(config.max_incremental_fetch_session_cache_slots),
        partitions_described_max: size(config.max_request_partition_size_limit),
        auto_create_topics: config.auto_create_topics_enable,
    }
}

/// A negative `connections.max.idle.ms`: a year.
const IDLE_FOR_EVER_MS: u64 = 365 * 24 * 60 * 60 * 1000;
