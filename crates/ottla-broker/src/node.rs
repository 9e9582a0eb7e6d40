//! A node: opens the data, starts the controller and the broker, listens, and stops in the opposite order.

#[cfg(test)]
mod fixtures;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ottla_base::{BrokerId, Offset, Uuid};
use ottla_client::Address as ClientAddress;
use ottla_config::{
    BrokerConfig, Formation, Listener as ListenerConfig, SecurityProtocol,
    Settings as ConfigSettings, Voter,
};
use ottla_env::{Clock, SystemClock};
use ottla_log::{DirectoryOptions, LogDirectory};
use ottla_metadata::controller::Policy;
use ottla_metadata::{Endpoint, feature};
use ottla_protocol::messages::{
    BrokerRegistrationRequest, ControllerRegistrationResponse, broker_registration_request,
};
use ottla_quorum::{InitialVoter, Quorum, SnapshotLimits, Timing};
use ottla_replication::Windows;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::adoption::Wishes;
use crate::automatic_topics::AutomaticTopics;
use crate::broker::{Broker, Parts, Registration, Settings};
use crate::cleaner;
use crate::configuration::Configuration;
use crate::controller_channel::ControllerChannel;
use crate::directory_reports::{DirectoryReports, FailureWatch};
use crate::fetchers::{FetchSettings, Fetchers};
use crate::follower_watch;
use crate::group_coordinator::GroupCoordinator;
use crate::handovers;
use crate::hang_ups::HangUps;
use crate::hearsay;
use crate::http;
use crate::isr_changes;
use crate::lifecycle::{self, Intervals, Lifecycle};
use crate::listener::{Connections, Listener, Role, accept, stopped};
use crate::log_directories::{DataDirectories, LogDirectories};
use crate::log_levels::LogLevels;
use crate::log_moves::LogMoves;
use crate::peers::{BrokerAddresses, Peers, Purpose, QuorumTransport};
use crate::replicas::Replicas;
use crate::throttles::Throttles;
use crate::topic_config;
use crate::topics::plan::Incarnation;
use crate::topics::{MissingLogs, Topics};

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// Formatted.
    pub directories: DataDirectories,
    pub cluster_id: String,
    /// The controllers that the cluster began with, where formatting has written them down.
    pub initial_voters: Vec<InitialVoter>,
    /// The levels of features that a new cluster begins with; the latest of those that are not named.
    pub levels: BTreeMap<String, i16>,
    pub config: BrokerConfig,
    /// What was set and where: the controller shows it in answers.
    pub settings: ConfigSettings,
    pub log_levels: LogLevels,
}

/// A listener's name and where it is bound, shown as `PLAINTEXT://127.0.0.1:9092`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub name: String,
    pub socket: SocketAddr,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.socket)
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    broker: Arc<Broker>,
    quorum: Arc<Quorum>,
    directories: Arc<LogDirectories>,
    failures: Arc<FailureWatch>,
    /// Of a node that is a broker.
    lifecycle: Option<Arc<Lifecycle>>,
    listeners: Vec<Address>,
    http_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// The epoch of a node that was no broker.
const NO_EPOCH: i64 = -1;

/// How long a stop waits for connections; what was appended is answered well before.
const FAREWELL_MAX: Duration = Duration::from_secs(4);

/// How many files logs may have open, and how many sockets clients.
#[derive(Debug, Clone, Copy)]
struct OpenFiles {
    logs_max: usize,
    sockets_max: usize,
}

impl OpenFiles {
    /// More do not make a broker faster.
    const LOGS_MAX: usize = 16_384;
    /// What the process itself has open, the controller's connections, and files that are open for a moment.
    const OTHERS: usize = 64;

    /// Gives logs half of what the process may open.
    fn share(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let logs_max = (limit / 2).min(Self::LOGS_MAX);
        let sockets_max = limit.saturating_sub(logs_max + Self::OTHERS).max(1);
        Self { logs_max, sockets_max }
    }
}

/// A bound listener that does not accept yet.
struct Bound {
    config: ListenerConfig,
    role: Role,
    socket: TcpListener,
    address: SocketAddr,
}

impl Node {
    /// Starts a node; when this returns, clients are served.
    ///
    /// # Errors
    /// When an address is taken, the data can't be used, or the controller does not come up.
    pub async fn start(options: NodeOptions) -> anyhow::Result<Self> {
        let config = &options.config;
        let limit = ottla_env::sys::raise_open_file_limit().context("the limit of open files")?;
        let open_files = OpenFiles::share(limit);
        let bound = bind_all(config).await?;
        let http = bind_http(config, &options.settings).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let replicas = Arc::new(Replicas::default());
        let directories = open_directories(&options, &clock, open_files.logs_max).await?;
        let reports = Arc::<DirectoryReports>::default();
        let failures = Arc::new(FailureWatch::new(&directories, Arc::clone(&reports)));
        directories.add_listener(&(Arc::clone(&replicas) as _));
        directories.add_listener(&(Arc::clone(&failures) as _));
        let configuration = Arc::new(Configuration::new(config.node_id, options.settings.clone()));
        let groups = Arc::new(GroupCoordinator::new(config, Arc::clone(&clock)));
        let moves = Arc::new(LogMoves::new(
            Arc::clone(&directories),
            Arc::clone(&replicas),
            Arc::clone(&reports),
            Arc::clone(&configuration),
        ));
        let cleaner = cleaner::start(&configuration.live().cleaner, &replicas, &clock)?;
        let incarnation_id = ottla_env::random_uuid()?;
        let hang_ups = Arc::<HangUps>::default();
        let throttles = Arc::new(Throttles::new(throttle_windows(config)));
        let fetchers = Arc::new(Fetchers::new(
            Arc::clone(&clock),
            fetch_settings(config),
            Arc::clone(&throttles),
            Arc::clone(&hang_ups),
        ));
        let topics = Arc::new(Topics {
            me: Incarnation { broker: config.node_id, id: incarnation_id },
            clock: Arc::clone(&clock),
            lag_max: milliseconds(config.replica_lag_time_max_ms),
            fetch_backoff: milliseconds(config.replica_fetch_backoff_ms.into()),
            fetchers: Arc::clone(&fetchers),
            throttles: Arc::clone(&throttles),
            directories: Arc::clone(&directories),
            replicas: Arc::clone(&replicas),
            configuration: Arc::clone(&configuration),
            groups: Arc::clone(&groups),
            reports: Arc::clone(&reports),
            moves: Arc::clone(&moves),
            started: AtomicBool::new(false),
            strays: parking_lot::Mutex::default(),
            missing: MissingLogs::default(),
            cleaner: cleaner.clone(),
            published: parking_lot::Mutex::default(),
        });
        let wishes = Wishes::read(&directories)?;
        let peers = Arc::new(Peers::new(config.node_id));
        let metadata = directories.metadata();
        let quorum =
            start_quorum(&options, &bound, metadata, &clock, &topics, Arc::clone(&peers)).await?;
        let controller = Arc::new(ControllerChannel::new(
            config.node_id,
            Arc::clone(&quorum),
            Arc::clone(&peers),
            controllers(config),
        ));
        let listeners = bound.iter().map(Bound::address).collect();
        let (for_controllers, for_clients): (Vec<_>, Vec<_>) =
            bound.into_iter().partition(|bound| bound.role == Role::Controller);
        let request = registration(&options, &for_clients, &directories, incarnation_id);
        let broker = Arc::new(Broker::new(Parts {
            node_id: config.node_id,
            cluster_id: options.cluster_id.as_str().into(),
            settings: settings(config, &options.settings),
            configuration,
            log_levels: options.log_levels,
            clock: Arc::clone(&clock),
            quorum: Arc::clone(&quorum),
            controller: Arc::clone(&controller),
            replicas: Arc::clone(&replicas),
            directories: Arc::clone(&directories),
            moves: Arc::clone(&moves),
            hang_ups,
            groups,
            cleaner,
            automatic_topics: AutomaticTopics::new(config, &options.settings),
            throttles,
            is_controller: config.process_roles.controller,
        }));
        let (stop, stopping) = watch::channel(false);
        let http_address = http.as_ref().and_then(|socket| socket.local_addr().ok());
        let mut tasks = JoinSet::new();
        // Voters must hear each other before there is a controller that a broker could register with.
        listen_for_controllers(&mut tasks, for_controllers, &broker, &stopping);
        // Who waits for the others is alive, and not ready: `/healthz` and `/readyz` say so.
        serve_operator(&mut tasks, http, &broker, &stopping);
        let roles = config.process_roles;
        if roles.controller && !quorum.is_alone() {
            let (channel, request) = (Arc::clone(&controller), quorum.controller_registration());
            let registered =
                async move { channel.ask_until_answered(Purpose::Controller, request).await };
            if !roles.broker {
                check_taken(&unless_failed(&failures, &quorum, registered).await?)?;
            } else {
                // If it is refused, so is the broker of this node, which ends the start.
                tasks.spawn(unless_stopped(stopping.clone(), async move {
                    if let Err(error) = check_taken(&registered.await) {
                        error!("{error}");
                    }
                }));
            }
        }
        if !roles.broker {
            broker.set_ready();
            return Ok(Self {
                broker,
                quorum,
                directories,
                failures,
                lifecycle: None,
                listeners,
                http_address,
                stop,
                tasks,
            });
        }
        let mut for_clients = Some(for_clients);
        let hears_controllers =
            !roles.controller || (config.controllers_meet_brokers() && !quorum.is_alone());
        if hears_controllers {
            // What controllers send comes in where clients do; those wait until they are served.
            let bound = for_clients.take().unwrap_or_default();
            serve_clients(&mut tasks, bound, &broker, config, open_files, &stopping);
        }
        let intervals = intervals(config);
        let register = lifecycle::register(&controller, request, intervals);
        let registration = unless_failed(&failures, &quorum, register).await??;
        broker.set_registered(registration);
        let applied = quorum.applied(Offset(registration.epoch));
        unless_failed(&failures, &quorum, applied).await?;
        let addresses = Arc::new(BrokerAddresses::new(
            peers,
            Arc::clone(&quorum),
            config.inter_broker_listener_name.clone(),
        ));
        let to_others = Arc::clone(&addresses);
        begin_replication(&mut tasks, &broker, registration, to_others, &fetchers, &stopping);
        let lifecycle = Arc::new(Lifecycle::new(
            registration,
            Arc::clone(&controller),
            Arc::clone(&quorum),
            intervals,
        ));
        unless_failed(&failures, &quorum, lifecycle.unfenced()).await?;
        wishes.fulfil(&registration, &directories, &quorum).await?;
        topics.set_strays_aside();
        moves.begin_again();
        broker.serve_clients();
        if let Some(bound) = for_clients {
            serve_clients(&mut tasks, bound, &broker, config, open_files, &stopping);
        }
        spawn_retention(&mut tasks, &broker, config, &stopping);
        tasks.spawn(Arc::clone(&lifecycle).keep_alive(stopping.clone()));
        let parts = hearsay::Parts {
            node_id: config.node_id,
            quorum: Arc::clone(&quorum),
            controller: Arc::clone(&controller),
            replicas: Arc::clone(&replicas),
            topics: Arc::clone(&topics),
            addresses,
        };
        let is_unheard = lifecycle.is_unheard();
        tasks.spawn(Arc::clone(&broker.hearsay).listen(parts, is_unheard, stopping.clone()));
        let parts = handovers::Parts {
            node_id: config.node_id,
            quorum: Arc::clone(&quorum),
            directories: Arc::clone(&directories),
            replicas: Arc::clone(&broker.replicas),
            fetchers,
            reports: Arc::clone(&reports),
        };
        tasks.spawn(Arc::clone(&replicas.outboxes.handovers).run(parts, stopping.clone()));
        tasks.spawn(reports.send(controller, registration, stopping.clone()));
        tasks.spawn(topics.make_missing_logs(stopping.clone()));
        tasks.spawn(moves.run(stopping));
        broker.set_ready();
        Ok(Self {
            broker,
            quorum,
            directories,
            failures,
            lifecycle: Some(lifecycle),
            listeners,
            http_address,
            stop,
            tasks,
        })
    }

    /// Where clients and controllers connect, with the ports that port 0 became.
    #[must_use]
    pub fn listeners(&self) -> &[Address] {
        &self.listeners
    }

    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Waits for something that a node can't go on after, and says what it was.
    pub async fn failed(&self) -> String {
        failed(&self.failures, &self.quorum).await
    }

    /// Lets others take over, stops accepting, answers what was begun, ends the controller, writes everything to disk, and
    /// leaves the marker that spares the next start its recovery.
    ///
    /// # Errors
    /// When the disk fails; the next start then recovers.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.broker.set_not_ready("stopping");
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.leave().await;
        }
        self.stop.send_replace(true);
        // Those who wait for records or for the disk are answered at once.
        self.broker.replicas.all().iter().for_each(|replica| replica.retire());
        self.say_farewell().await;
        self.quorum.shutdown().await;
        let (directories, epoch) = (
            self.directories,
            self.lifecycle.as_ref().map_or(NO_EPOCH, |lifecycle| lifecycle.epoch()),
        );
        let cleaner = self.broker.cleaner.clone();
        let close = move || {
            cleaner.iter().for_each(|cleaner| cleaner.stop());
            directories.close(epoch)
        };
        tokio::task::spawn_blocking(close).await??;
        info!("stopped cleanly");
        Ok(())
    }

    /// Waits for the connections to finish what they began, but not for a peer that does not take its answer.
    async fn say_farewell(&mut self) {
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL_MAX, all_gone).await.is_err() {
            warn!("closing connections whose peers do not read their answers");
            self.tasks.shutdown().await;
        }
    }
}

/// Whether the active controller has taken this one.
fn check_taken(response: &ControllerRegistrationResponse) -> anyhow::Result<()> {
    let why = response.error_message.as_deref().unwrap_or_default();
    let code = response.error_code;
    ensure!(!code.is_error(), "the active controller does not take this one: {code} {why}");
    Ok(())
}

impl Bound {
    fn address(&self) -> Address {
        Address { name: self.config.name.clone(), socket: self.address }
    }
}

async fn bind_all(config: &BrokerConfig) -> anyhow::Result<Vec<Bound>> {
    let roles =
        [(Role::Broker, &config.listeners), (Role::Controller, &config.controller_listeners)];
    let mut bound = Vec::new();
    for (role, listeners) in roles {
        for listener in listeners {
            let socket = bind(config, listener).await?;
            let address = socket.local_addr()?;
            bound.push(Bound { config: listener.clone(), role, socket, address });
        }
    }
    Ok(bound)
}

/// Binds a listener.
///
/// # Errors
/// When the address is taken, or not this machine's.
pub async fn bind(config: &BrokerConfig, listener: &ListenerConfig) -> anyhow::Result<TcpListener> {
    let backlog = u32::try_from(config.socket_listen_backlog_size).unwrap_or(50);
    let socket = bind_one_of_its_addresses(listener, backlog).await;
    socket.with_context(|| {
        format!("can't listen on {listener}: choose another address with --listen")
    })
}

async fn bind_one_of_its_addresses(
    listener: &ListenerConfig,
    backlog: u32,
) -> anyhow::Result<TcpListener> {
    // Every interface: IPv6 with IPv4 mapped into it, as the JVM does; IPv4 alone where there is no IPv6.
    let hosts = listener.host.as_deref().map_or_else(|| vec!["::", "0.0.0.0"], |host| vec![host]);
    let mut last_error = None;
    for host in hosts {
        for address in tokio::net::lookup_host((host, listener.port)).await? {
            match listen(address, backlog) {
                Ok(socket) => return Ok(socket),
                Err(error) => last_error = Some(error),
            }
        }
    }
    match last_error {
        Some(error) => Err(error.into()),
        None => bail!("no such host"),
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// The operator's port. A second broker on one machine finds the default port taken; it goes
/// without, with a warning. A port that somebody chose must be free.
async fn bind_http(
    config: &BrokerConfig,
    settings: &ConfigSettings,
) -> anyhow::Result<Option<TcpListener>> {
    const PROPERTY: &str = "ottla.http.listener";
    let Some((host, port)) = &config.http_listener else { return Ok(None) };
    match TcpListener::bind((host.as_str(), *port)).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if settings.is_set(PROPERTY) => {
            Err(error).with_context(|| format!("{PROPERTY}: can't listen on {host}:{port}"))
        }
        Err(error) => {
            warn!(%error, "no metrics: {host}:{port} is taken; set {PROPERTY}");
            Ok(None)
        }
    }
}

async fn open_directories(
    options: &NodeOptions,
    clock: &Arc<dyn Clock>,
    open_files_max: usize,
) -> anyhow::Result<Arc<LogDirectories>> {
    let config = &options.config;
    let log_config = topic_config::log_config(&config.topic_defaults);
    let defaults = DirectoryOptions::default();
    let directory_options = DirectoryOptions {
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
        open_files_max: open_files_max / options.directories.to_open().count(),
        ..defaults
    };
    let (given, clock) = (options.directories.clone(), Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || {
        LogDirectories::open(&given, &log_config, &directory_options, &clock)
    });
    Ok(Arc::new(opened.await??))
}

async fn start_quorum(
    options: &NodeOptions,
    bound: &[Bound],
    directory: &Arc<LogDirectory>,
    clock: &Arc<dyn Clock>,
    topics: &Arc<Topics>,
    peers: Arc<Peers>,
) -> anyhow::Result<Arc<Quorum>> {
    let config = ottla_quorum::Config {
        node_id: options.config.node_id,
        cluster_id: options.cluster_id.as_str().into(),
        directory_id: options.directories.metadata.id,
        incarnation_id: ottla_env::random_uuid()?,
        controller_endpoints: controller_endpoints(&options.config, bound),
        voters: initial_voters(options),
        joins: options.initial_voters.is_empty()
            && options.config.formation() == Formation::RecordedVoters,
        endpoints: endpoints_of_follower(&options.config, bound),
        wants_vote: options.config.process_roles.controller
            && options.config.controller_quorum_auto_join_enable,
        contacts: contacts(&options.config),
        timing: Timing::default(),
        levels: options.levels.clone(),
        policy: Policy::from_settings(options.settings.clone()),
        segment_bytes: u64::try_from(options.config.metadata_log_segment_bytes).unwrap_or(u64::MAX),
        segment_ms: options.config.metadata_log_segment_ms,
        snapshots: snapshot_limits(&options.config),
    };
    let dependencies = ottla_quorum::Dependencies {
        directory: Arc::clone(directory),
        clock: Arc::clone(clock),
        publisher: Arc::clone(topics) as _,
        transport: Arc::new(QuorumTransport::new(peers)),
        workers: Arc::new(ottla_quorum::Threads),
    };
    Ok(Arc::new(Quorum::start(config, dependencies).await?))
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
fn controller_endpoints(config: &BrokerConfig, bound: &[Bound]) -> Vec<Endpoint> {
    if config.controllers_meet_brokers() {
        return inter_broker_endpoints(config, bound);
    }
    endpoints(config, bound, Role::Controller)
}

/// Where a leader reaches this node with the metadata log.
fn endpoints_of_follower(config: &BrokerConfig, bound: &[Bound]) -> Vec<Endpoint> {
    if config.process_roles.controller {
        return controller_endpoints(config, bound);
    }
    inter_broker_endpoints(config, bound)
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
fn registration(
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
        features: feature::supported()
            .map(|(name, levels)| broker_registration_request::Feature {
                name: name.into(),
                min_supported_version: levels.min,
                max_supported_version: levels.max,
            })
            .collect(),
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

/// What this machine is called, as Kafka tells clients when no host is configured.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Lets replicas ask and tell other brokers and the controller, as this broker is known to them now.
fn begin_replication(
    tasks: &mut JoinSet<()>,
    broker: &Arc<Broker>,
    registration: Registration,
    addresses: Arc<BrokerAddresses>,
    fetchers: &Fetchers,
    stopping: &watch::Receiver<bool>,
) {
    let (replicas, clock) = (&broker.replicas, &broker.clock);
    let outboxes = &replicas.outboxes;
    outboxes.flush_reports.begin(registration, Arc::clone(&addresses));
    fetchers.begin(registration, addresses);
    let sender = isr_changes::Sender {
        registration,
        controller: Arc::clone(&broker.controller),
        replicas: Arc::clone(replicas),
        clock: Arc::clone(clock),
    };
    tasks.spawn(Arc::clone(&outboxes.isr_changes).send(sender, stopping.clone()));
    let (replicas, clock) = (Arc::clone(replicas), Arc::clone(clock));
    tasks.spawn(follower_watch::watch_followers(replicas, clock, stopping.clone()));
}

fn listen_for_controllers(
    tasks: &mut JoinSet<()>,
    bound: Vec<Bound>,
    broker: &Arc<Broker>,
    stopping: &watch::Receiver<bool>,
) {
    let connections = Arc::new(Connections::new(usize::MAX));
    for Bound { config, role, socket, .. } in bound {
        let listener = Arc::new(Listener {
            is_protected: false,
            connections: Arc::clone(&connections),
            name: config.name,
            role,
            serves_controllers: true,
        });
        tasks.spawn(accept(socket, listener, Arc::clone(broker), stopping.clone()));
    }
}

fn serve_clients(
    tasks: &mut JoinSet<()>,
    bound: Vec<Bound>,
    broker: &Arc<Broker>,
    config: &BrokerConfig,
    open_files: OpenFiles,
    stopping: &watch::Receiver<bool>,
) {
    let inter_broker = &config.inter_broker_listener_name;
    let is_shared = config.controllers_meet_brokers();
    let connections = Arc::new(Connections::new(open_files.sockets_max));
    let has_others = bound.len() > 1;
    for Bound { config, role, socket, .. } in bound {
        let listener = Arc::new(Listener {
            is_protected: config.name == *inter_broker && has_others,
            serves_controllers: config.name == *inter_broker && is_shared,
            connections: Arc::clone(&connections),
            name: config.name,
            role,
        });
        tasks.spawn(accept(socket, listener, Arc::clone(broker), stopping.clone()));
    }
}

fn serve_operator(
    tasks: &mut JoinSet<()>,
    http: Option<TcpListener>,
    broker: &Arc<Broker>,
    stopping: &watch::Receiver<bool>,
) {
    let Some(socket) = http else { return };
    let serving = http::serve(socket, Arc::clone(broker), stopping.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            warn!(%error, "the operator's port is closed");
        }
    });
}

fn spawn_retention(
    tasks: &mut JoinSet<()>,
    broker: &Arc<Broker>,
    config: &BrokerConfig,
    stopping: &watch::Receiver<bool>,
) {
    let first = milliseconds(config.log_initial_task_delay_ms);
    let interval = milliseconds(config.log_retention_check_interval_ms.max(1));
    let broker = Arc::clone(broker);
    let work = move || enforce_retention(Arc::clone(&broker));
    tasks.spawn(periodically(first, interval, stopping.clone(), work));
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
fn controllers(config: &BrokerConfig) -> HashMap<BrokerId, ClientAddress> {
    let voters = config.controller_quorum_voters.iter();
    let address = |it: &Voter| ClientAddress { host: it.host.clone(), port: it.port };
    voters.map(|voter| (BrokerId(voter.id), address(voter))).collect()
}

fn intervals(config: &BrokerConfig) -> Intervals {
    Intervals {
        heartbeat: milliseconds(config.broker_heartbeat_interval_ms.into()),
        registration_max: milliseconds(config.initial_broker_registration_timeout_ms.into()),
    }
}

fn fetch_settings(config: &BrokerConfig) -> FetchSettings {
    FetchSettings {
        wait_max_ms: config.replica_fetch_wait_max_ms,
        min_bytes: config.replica_fetch_min_bytes,
        max_bytes: config.replica_fetch_max_bytes,
        response_max_bytes: config.replica_fetch_response_max_bytes,
        fetchers: usize::try_from(config.num_replica_fetchers).unwrap_or(1),
    }
}

fn throttle_windows(config: &BrokerConfig) -> Windows {
    Windows {
        count: usize::try_from(config.replication_quota_window_num).unwrap_or(1),
        size: Duration::from_secs(
            u64::try_from(config.replication_quota_window_size_seconds).unwrap_or(1),
        ),
    }
}

fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Waits until the node can't go on, and says why.
async fn failed(failures: &FailureWatch, quorum: &Quorum) -> String {
    let mut fatal = failures.fatal();
    tokio::select! {
        biased;
        Ok(reason) = fatal.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
        reason = quorum.stopped() => reason,
    }
}

/// What a start waits for, be it for ever; an error once nothing will come of it.
async fn unless_failed<T>(
    failures: &FailureWatch,
    quorum: &Quorum,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        reason = failed(failures, quorum) => bail!("{reason}"),
        done = work => Ok(done),
    }
}

/// Gives up when the node stops.
async fn unless_stopped(mut stopping: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stopped(&mut stopping) => {}
    }
}

/// Does something for the first time after `first`, and then again whenever `interval` has passed, until the node stops.
async fn periodically<Work: Future<Output = ()>>(
    first: Duration,
    interval: Duration,
    mut stopping: watch::Receiver<bool>,
    work: impl Fn() -> Work,
) {
    let mut wait = first;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => work().await,
            () = stopped(&mut stopping) => return,
        }
        wait = interval;
    }
}

/// Deletes what is older or larger than its topic allows.
async fn enforce_retention(broker: Arc<Broker>) {
    let done = tokio::task::spawn_blocking(move || {
        let now = broker.clock.now_ms();
        broker.replicas.all().iter().for_each(|replica| replica.enforce_retention(now));
    });
    if let Err(error) = done.await {
        warn!(%error, "retention did not run");
    }
}

fn settings(config: &BrokerConfig, set: &ConfigSettings) -> Settings {
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn periodic_work_begins_after_its_own_delay_and_ends_with_the_node() {
        let (first, interval) = (Duration::ZERO, Duration::from_secs(3600));
        let (stop, stopping) = watch::channel(false);
        let (done, mut runs) = mpsc::unbounded_channel();
        let work = move || {
            let done = done.clone();
            async move { done.send(()).unwrap() }
        };
        let task = tokio::spawn(periodically(first, interval, stopping, work));
        runs.recv().await.unwrap();
        stop.send(true).unwrap();
        task.await.unwrap();
        assert!(runs.recv().await.is_none(), "the second run is an hour away");
    }
}
