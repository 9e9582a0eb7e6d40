//! What all connections of a broker share: who it is, its partitions, the way to the controller.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, PartitionIndex, ProducerId, TopicId};
use ottla_config::ReplicaSelector;
use ottla_env::Clock;
use ottla_log::LogCleaner;
use ottla_metadata::Image;
use ottla_protocol::messages::CreateTopicsRequest;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_quorum::Quorum;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::automatic_topics::AutomaticTopics;
use crate::configuration::Configuration;
use crate::controller_channel::ControllerChannel;
use crate::fetch_session::Sessions;
use crate::group_coordinator::GroupCoordinator;
use crate::handlers::HeartbeatConnections;
use crate::hang_ups::HangUps;
use crate::hearsay::Hearsay;
use crate::joining::Claims;
use crate::log_directories::LogDirectories;
use crate::log_levels::LogLevels;
use crate::log_moves::LogMoves;
use crate::metrics::Metrics;
use crate::peers::Purpose;
use crate::producer_ids::ProducerIds;
use crate::replica::Replica;
use crate::replicas::Replicas;
use crate::throttles::Throttles;

/// What connections and handlers need of the configuration. Units are in the names.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `socket.request.max.bytes`
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`; `None` is no bound.
    pub queued_bytes_max: Option<usize>,
    /// `connections.max.idle.ms`
    pub connections_max_idle: Duration,
    /// `socket.send.buffer.bytes`; `None` leaves it to the operating system.
    pub socket_send_buffer: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the operating system.
    pub socket_receive_buffer: Option<usize>,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: usize,
    /// `replica.selector.class`
    pub replica_selector: ReplicaSelector,
    /// `max.incremental.fetch.session.cache.slots`
    pub fetch_session_slots: usize,
    /// `max.request.partition.size.limit`
    pub partitions_described_max: usize,
    /// `auto.create.topics.enable`
    pub auto_create_topics: bool,
}

/// As whom the controller knows a broker.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub id: BrokerId,
    pub epoch: i64,
}

/// One running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub node_id: BrokerId,
    pub cluster_id: ByteString,
    pub settings: Settings,
    pub configuration: Arc<Configuration>,
    pub log_levels: LogLevels,
    pub clock: Arc<dyn Clock>,
    pub quorum: Arc<Quorum>,
    pub controller: Arc<ControllerChannel>,
    pub replicas: Arc<Replicas>,
    pub directories: Arc<LogDirectories>,
    pub moves: Arc<LogMoves>,
    pub hang_ups: Arc<HangUps>,
    pub hearsay: Arc<Hearsay>,
    pub groups: Arc<GroupCoordinator>,
    pub cleaner: Option<Arc<LogCleaner>>,
    pub automatic_topics: AutomaticTopics,
    pub throttles: Arc<Throttles>,
    /// Whether this node is a controller as well.
    pub is_controller: bool,
    pub state: State,
}

/// What a broker keeps for itself while it runs.
#[derive(Debug)]
pub(crate) struct State {
    registration: OnceLock<Registration>,
    pub fetch_sessions: Mutex<Sessions>,
    pub heartbeat_connections: HeartbeatConnections,
    /// Ids of nodes that are about to join, given while this node is the active controller.
    pub claims: Claims,
    producer_ids: ProducerIds,
    pub metrics: Metrics,
    /// A permit for each byte that requests may take which wait to be handled, if that is bounded.
    pub queued_bytes: Option<Arc<Semaphore>>,
    /// A permit for each large batch that may be decompressed at one time.
    pub decompressions: Semaphore,
    /// Topics whose automatic creation is under way, so that a client that asks ten times a second
    /// causes one request to the controller.
    being_created: Mutex<HashSet<ByteString>>,
    /// Whether clients are served: its listener may be open before, for what controllers send.
    serves_clients: AtomicBool,
    not_ready: ArcSwapOption<String>,
    started: Instant,
}

impl State {
    #[must_use]
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            registration: OnceLock::new(),
            fetch_sessions: Mutex::new(Sessions::new(settings.fetch_session_slots)),
            heartbeat_connections: HeartbeatConnections::default(),
            claims: Claims::default(),
            producer_ids: ProducerIds::default(),
            metrics: Metrics::default(),
            queued_bytes: settings.queued_bytes_max.map(|max| Arc::new(Semaphore::new(max))),
            decompressions: Semaphore::new(half_of_the_cores()),
            being_created: Mutex::default(),
            serves_clients: AtomicBool::new(false),
            not_ready: ArcSwapOption::from_pointee("starting".to_owned()),
            started: Instant::now(),
        }
    }
}

impl Broker {
    /// The cluster's metadata as this broker has applied it, and what it has heard beyond that of its own partitions.
    #[must_use]
    pub(crate) fn image(&self) -> Arc<Image> {
        self.hearsay.amend(self.quorum.image())
    }

    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION
    pub(crate) fn replica(&self, topic: &str, partition: i32) -> Result<Arc<Replica>, ErrorCode> {
        let image = self.image();
        let topic = image.topic_by_name(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        self.hosted(&image, topic.id, partition)
    }

    /// # Errors
    /// UNKNOWN_TOPIC_ID, or UNKNOWN_TOPIC_OR_PARTITION for a partition that the topic does not have.
    pub(crate) fn replica_by_id(
        &self,
        id: TopicId,
        partition: i32,
    ) -> Result<Arc<Replica>, ErrorCode> {
        let image = self.image();
        image.topic(id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        self.hosted(&image, id, partition)
    }

    fn hosted(
        &self,
        image: &Image,
        id: TopicId,
        partition: i32,
    ) -> Result<Arc<Replica>, ErrorCode> {
        let known = image
            .partition(id, PartitionIndex(partition))
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        self.replicas.find(id, partition).ok_or_else(|| {
            // What is carried out is newer than what everybody sees: a partition that has left may seem to be here still.
            let is_unopened = self.replicas.is_unopened(id, PartitionIndex(partition));
            if is_unopened && known.replicas.contains(&self.node_id) {
                ErrorCode::KAFKA_STORAGE_ERROR
            } else {
                ErrorCode::NOT_LEADER_OR_FOLLOWER
            }
        })
    }

    /// An id for a new idempotent producer.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS
    pub(crate) async fn next_producer_id(&self) -> Result<ProducerId, ErrorCode> {
        let registration =
            self.state.registration.get().ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)?;
        self.state.producer_ids.next(&self.controller, *registration).await
    }

    /// The controller has taken this broker; said once.
    pub(crate) fn set_registered(&self, registration: Registration) {
        let _ = self.state.registration.set(registration);
    }

    /// Asks the controller for topics with the broker's defaults, and does not wait for it.
    pub(crate) fn create_automatically(self: &Arc<Self>, mut names: Vec<ByteString>) {
        names.retain(|name| self.state.being_created.lock().insert(name.clone()));
        if names.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let topics = names.iter().map(|name| broker.automatic_topics.creatable(name.clone()));
            let request =
                CreateTopicsRequest { topics: topics.collect(), ..CreateTopicsRequest::default() };
            match broker.controller.ask(Purpose::Controller, request).await {
                Ok(response) => response.topics.iter().for_each(log_created),
                Err(error) => warn!(%error, "topics were not created automatically"),
            }
            let mut being_created = broker.state.being_created.lock();
            names.iter().for_each(|name| _ = being_created.remove(name));
        });
    }

    /// Makes a topic of the cluster's own, if it is not there, and waits until it is.
    ///
    /// # Errors
    /// What the controller says against it.
    pub(crate) async fn ensure_internal_topic(&self, name: &'static str) -> Result<(), ErrorCode> {
        if self.image().topic_by_name(name).is_some() {
            return Ok(());
        }
        let topic = self.automatic_topics.creatable(ByteString::from_static(name));
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response = self.controller.ask(Purpose::Controller, request).await;
        let response = response.map_err(|_| ErrorCode::NOT_CONTROLLER)?;
        response.topics.iter().for_each(log_created);
        match response.topics.first().map(|topic| topic.error_code) {
            // Two clients found it missing at the same time.
            Some(ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Some(error) => Err(error),
            None => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        }
    }

    /// A number that a client can't foresee, such as a fetch session's id.
    #[must_use]
    pub(crate) fn random_i32(&self) -> i32 {
        let mut bytes = [0; 4];
        // Without a random source the ids are merely foreseeable; they are no secret.
        let _ = ottla_env::sys::random_bytes(&mut bytes);
        i32::from_ne_bytes(bytes)
    }

    /// From now on.
    pub(crate) fn serve_clients(&self) {
        self.state.serves_clients.store(true, Ordering::Release);
    }

    #[must_use]
    pub(crate) fn serves_clients(&self) -> bool {
        self.state.serves_clients.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self) {
        self.state.not_ready.store(None);
    }

    pub(crate) fn set_not_ready(&self, reason: &str) {
        self.state.not_ready.store(Some(Arc::new(reason.to_owned())));
    }

    /// Why clients are not served, if they are not.
    #[must_use]
    pub(crate) fn not_ready(&self) -> Option<Arc<String>> {
        self.state.not_ready.load_full()
    }

    /// What is wrong with the log directories, a line each.
    #[must_use]
    pub(crate) fn disk_problems(&self) -> String {
        self.directories.problems()
    }

    #[must_use]
    pub(crate) fn render_metrics(&self) -> String {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.state.metrics.partitions.set(count(self.replicas.len()));
        self.state.metrics.producer_ids.set(count(self.replicas.producer_count()));
        self.state.metrics.quarantined_ranges.set(count(self.replicas.quarantined_count()));
        let members = self.directories.members().iter();
        let scrubbed: u64 = members.map(|it| it.directory.scrub_progress().bytes).sum();
        self.state.metrics.scrubbed_bytes.set(i64::try_from(scrubbed).unwrap_or(i64::MAX));
        self.state.metrics.fetch_sessions.set(count(self.state.fetch_sessions.lock().len()));
        for member in self.directories.members() {
            let is_full = member.directory.is_full();
            self.state.metrics.set_directory(member.path(), !member.is_online(), is_full);
        }
        for unreadable in self.directories.unreadable() {
            self.state.metrics.set_directory(&unreadable.path, true, false);
        }
        let min_isr = self.configuration.live().topic_defaults.min_insync_replicas;
        self.state.metrics.replication.set(
            &self.quorum.image(),
            self.node_id,
            usize::try_from(min_isr).unwrap_or(1),
            self.quorum.active().borrow().is_some(),
        );
        if let Some(cleaner) = &self.cleaner {
            self.state.metrics.cleaner.set(&cleaner.state());
        }
        self.state.metrics.render(self.state.started.elapsed())
    }
}

fn log_created(topic: &CreatableTopicResult) {
    if topic.error_code.is_error() {
        let reason = topic.error_message.as_deref().unwrap_or_default();
        warn!(topic = %topic.name, code = %topic.error_code, reason, "topic was not created automatically");
    } else {
        info!(topic = %topic.name, partitions = topic.num_partitions, "topic created automatically");
    }
}

/// The other half is there for those whose requests are small, and for what keeps this node in its cluster.
fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
