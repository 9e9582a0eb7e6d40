//! A node: opens the data, starts the controller and the broker, listens, and stops in the opposite order.

mod background;
mod bind;
mod data;
#[cfg(test)]
mod fixtures;
mod listening;
mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ottla_base::Offset;
use ottla_config::{BrokerConfig, Settings as ConfigSettings};
use ottla_protocol::messages::{BrokerRegistrationRequest, ControllerRegistrationResponse};
use ottla_quorum::{Dependencies, InitialVoter, Quorum};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::adoption::Wishes;
use crate::automatic_topics::AutomaticTopics;
use crate::broker::{Broker, State};
use crate::controller_channel::ControllerChannel;
use crate::directory_reports::FailureWatch;
use crate::lifecycle::{self, Lifecycle};
use crate::listener::{Role, stopped};
use crate::log_directories::DataDirectories;
use crate::log_levels::LogLevels;
use crate::peers::{BrokerAddresses, Peers, Purpose, QuorumTransport};
pub use bind::bind;
use bind::{Bound, bind_all, bind_http};
use data::Data;
pub use options::UNWRITTEN_HOST;
use options::{
    OpenFiles, addresses, controllers, intervals, quorum_config, registration, settings,
};

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

/// A listener's name and where it is, shown as `PLAINTEXT://127.0.0.1:9092`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub name: String,
    /// Where it is bound.
    pub socket: SocketAddr,
    /// `HOST:PORT` as others are told it, if it is bound to every interface: nobody can connect to `0.0.0.0`.
    pub advertised: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.advertised {
            Some(address) => write!(f, "{}://{address}", self.name),
            None => write!(f, "{}://{}", self.name, self.socket),
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    broker: Arc<Broker>,
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

impl Node {
    /// Starts a node; when this returns, clients are served.
    ///
    /// # Errors
    /// When an address is taken, the data can't be used, or the controller does not come up.
    pub async fn start(options: NodeOptions) -> anyhow::Result<Self> {
        let config = options.config.clone();
        let limit = ottla_env::sys::raise_open_file_limit().context("the limit of open files")?;
        let OpenFiles { logs_max, sockets_max } = OpenFiles::share(limit);
        let bound = bind_all(&config).await?;
        let http = bind_http(&config, &options.settings).await?;
        let data = Data::open(&options, logs_max).await?;
        let wishes = Wishes::read(&data.directories)?;
        let peers = Arc::new(Peers::new(config.node_id));
        let quorum = start_quorum(&options, &bound, &data, &peers).await?;
        let listeners = addresses(&config, &bound);
        let (for_controllers, for_clients): (Vec<_>, Vec<_>) =
            bound.into_iter().partition(|bound| bound.role == Role::Controller);
        let request = registration(&options, &for_clients, &data.directories, data.incarnation_id);
        let mut node = Self {
            broker: Arc::new(broker(options, &data, quorum, &peers)),
            failures: Arc::clone(&data.failures),
            lifecycle: None,
            listeners,
            http_address: http.as_ref().and_then(|socket| socket.local_addr().ok()),
            stop: watch::Sender::new(false),
            tasks: JoinSet::new(),
        };
        // Voters must hear each other before there is a controller that a broker could register with.
        node.listen_for_controllers(for_controllers);
        // Who waits for the others is alive, and not ready: `/healthz` and `/readyz` say so.
        node.serve_operator(http);
        node.register_controller(&config).await?;
        if config.process_roles.broker {
            let joining =
                Joining { config, data, wishes, peers, request, for_clients, sockets_max };
            node.become_broker(joining).await?;
        }
        node.broker.set_ready();
        Ok(node)
    }

    /// Waits until the active controller has taken this one, if it is one, and not a broker that waits for the same.
    async fn register_controller(&mut self, config: &BrokerConfig) -> anyhow::Result<()> {
        let (roles, quorum) = (config.process_roles, &self.broker.quorum);
        if !roles.controller || quorum.is_alone() {
            return Ok(());
        }
        let channel = Arc::clone(&self.broker.controller);
        let request = quorum.controller_registration();
        let registered =
            async move { channel.ask_until_answered(Purpose::Controller, request).await };
        if !roles.broker {
            return check_taken(&self.unless_failed(registered).await?);
        }
        // If it is refused, so is the broker of this node, which ends the start.
        self.spawn(|stopping| {
            unless_stopped(stopping, async move {
                if let Err(error) = check_taken(&registered.await) {
                    error!("{error}");
                }
            })
        });
        Ok(())
    }

    /// Registers with the controller, catches up with the cluster, and serves clients.
    async fn become_broker(&mut self, joining: Joining) -> anyhow::Result<()> {
        let Joining { config, data, wishes, peers, request, for_clients, sockets_max } = joining;
        let broker = Arc::clone(&self.broker);
        let mut for_clients = Some(for_clients);
        if hears_controllers_where_clients_come_in(&config, &broker.quorum) {
            // Clients wait there until they are served.
            let bound = for_clients.take().unwrap_or_default();
            self.listen_for_clients(bound, &config, sockets_max);
        }
        let intervals = intervals(&config);
        let registered = lifecycle::register(&broker.controller, request, intervals);
        let registration = self.unless_failed(registered).await??;
        broker.set_registered(registration);
        self.unless_failed(broker.quorum.applied(Offset(registration.epoch))).await?;
        let quorum = Arc::clone(&broker.quorum);
        let listener = config.inter_broker_listener_name.clone();
        let addresses = Arc::new(BrokerAddresses::new(peers, quorum, listener));
        self.begin_replication(&data, registration, &addresses);
        let (controller, quorum) = (Arc::clone(&broker.controller), Arc::clone(&broker.quorum));
        let lifecycle = Arc::new(Lifecycle::new(registration, controller, quorum, intervals));
        self.lifecycle = Some(Arc::clone(&lifecycle));
        self.unless_failed(lifecycle.unfenced()).await?;
        wishes.fulfil(&registration, &data.directories, &broker.quorum).await?;
        data.topics.set_strays_aside();
        data.moves.begin_again();
        broker.serve_clients();
        if let Some(bound) = for_clients {
            self.listen_for_clients(bound, &config, sockets_max);
        }
        self.begin_upkeep(&data, &config, &lifecycle, registration, addresses);
        Ok(())
    }

    /// A task that ends with the node.
    fn spawn<Work: Future<Output = ()> + Send + 'static>(
        &mut self,
        work: impl FnOnce(watch::Receiver<bool>) -> Work,
    ) {
        self.tasks.spawn(work(self.stop.subscribe()));
    }

    /// What a start waits for, be it for ever; an error once nothing will come of it.
    async fn unless_failed<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            reason = self.failed() => bail!("{reason}"),
            done = work => Ok(done),
        }
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
        let mut fatal = self.failures.fatal();
        tokio::select! {
            biased;
            Ok(reason) = fatal.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
            reason = self.broker.quorum.stopped() => reason,
        }
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
        // While whoever leads next can still say so here.
        self.broker.quorum.hand_over().await;
        self.stop.send_replace(true);
        // Those who wait for records or for the disk are answered at once.
        self.broker.replicas.all().iter().for_each(|replica| replica.retire());
        self.say_farewell().await;
        self.broker.quorum.shutdown().await;
        let epoch = self.lifecycle.as_ref().map_or(NO_EPOCH, |lifecycle| lifecycle.epoch());
        let directories = Arc::clone(&self.broker.directories);
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

/// What becomes a broker.
struct Joining {
    config: BrokerConfig,
    data: Data,
    wishes: Wishes,
    peers: Arc<Peers>,
    request: BrokerRegistrationRequest,
    for_clients: Vec<Bound>,
    sockets_max: usize,
}

/// Whether what controllers send comes in where clients do.
fn hears_controllers_where_clients_come_in(config: &BrokerConfig, quorum: &Quorum) -> bool {
    !config.process_roles.controller || (config.controllers_meet_brokers() && !quorum.is_alone())
}

async fn start_quorum(
    options: &NodeOptions,
    bound: &[Bound],
    data: &Data,
    peers: &Arc<Peers>,
) -> anyhow::Result<Arc<Quorum>> {
    let config = quorum_config(options, bound, ottla_env::random_uuid()?);
    let dependencies = Dependencies {
        directory: Arc::clone(data.directories.metadata()),
        clock: Arc::clone(&data.clock),
        publisher: Arc::clone(&data.topics) as _,
        transport: Arc::new(QuorumTransport::new(Arc::clone(peers))),
        workers: Arc::new(ottla_quorum::Threads),
    };
    Ok(Arc::new(Quorum::start(config, dependencies).await?))
}

fn broker(options: NodeOptions, data: &Data, quorum: Arc<Quorum>, peers: &Arc<Peers>) -> Broker {
    let NodeOptions { cluster_id, config, settings: set, log_levels, .. } = options;
    let settings = settings(&config, &set);
    let controller = ControllerChannel::new(
        config.node_id,
        Arc::clone(&quorum),
        Arc::clone(peers),
        controllers(&config),
    );
    Broker {
        node_id: config.node_id,
        cluster_id: cluster_id.as_str().into(),
        state: State::new(&settings),
        settings,
        configuration: Arc::clone(&data.configuration),
        log_levels,
        clock: Arc::clone(&data.clock),
        quorum,
        controller: Arc::new(controller),
        replicas: Arc::clone(&data.replicas),
        directories: Arc::clone(&data.directories),
        moves: Arc::clone(&data.moves),
        hang_ups: Arc::clone(&data.hang_ups),
        hearsay: Arc::default(),
        groups: Arc::clone(&data.groups),
        cleaner: data.cleaner.clone(),
        automatic_topics: AutomaticTopics::new(&config, &set),
        throttles: Arc::clone(&data.throttles),
        is_controller: config.process_roles.controller,
    }
}

/// Whether the active controller has taken this one.
fn check_taken(response: &ControllerRegistrationResponse) -> anyhow::Result<()> {
    let why = response.error_message.as_deref().unwrap_or_default();
    let code = response.error_code;
    ensure!(!code.is_error(), "the active controller does not take this one: {code} {why}");
    Ok(())
}

/// Gives up when the node stops.
async fn unless_stopped(mut stopping: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stopped(&mut stopping) => {}
    }
}
