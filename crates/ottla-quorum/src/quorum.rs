//! The handle to the quorum, and how it starts and stops. Shell.

#[cfg(test)]
mod tests;

mod changes;
pub(crate) mod growth;
mod voters;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftDataMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::{Raft, SnapshotPolicy};
use ottla_base::{BrokerId, LeaderEpoch, Offset, TopicPartition, Uuid};
use ottla_env::{Clock, sys};
use ottla_log::{CreateError, Log, LogConfig, LogDirectory};
use ottla_metadata::controller::{self, BrokerEpoch, Draw, Policy};
use ottla_metadata::{Endpoint, Image, Outcome, Rejection, feature, topic_name};
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    ControllerRegistrationRequest, UpdateFeaturesRequest, UpdateFeaturesResponse,
    controller_registration_request,
};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::controller::{
    Controller, Desk, Handle, Leader, Parts, QuorumRaft, Round, SubmitError, Submitted,
};
use crate::network::{Peers, Setup};
use crate::observers::{self, Attendance, Observers, is_voter};
use crate::publisher::Publisher;
use crate::raft::{TypeConfig, Voter};
use crate::refusals::Refusals;
use crate::service::{Heard, ServeError, Service};
use crate::snapshot::keeper::Keeper;
use crate::snapshot::policy::SnapshotLimits;
use crate::snapshot::transfer::Inbox;
use crate::standstill;
use crate::state_machine::{Applied, StateMachine};
use crate::storage::format::kraft_version;
use crate::storage::vote::VoteFile;
use crate::storage::{Begun, LogError, Place, Storage};
use crate::transport::Transport;
use crate::workers::Workers;
pub use changes::VoterChangeError;
pub(crate) use changes::{Changes, Grown, finish, for_another};
use voters::Company;
pub use voters::{InitialVoter, Timing};

/// The topic id of the metadata log in every cluster of Kafka's.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_id: BrokerId,
    pub cluster_id: Arc<str>,
    /// The id of the log directory that holds the metadata log (`meta.properties`).
    pub directory_id: Uuid,
    /// New with every start of the process.
    pub incarnation_id: Uuid,
    /// Where this node can be reached as a controller.
    pub controller_endpoints: Vec<Endpoint>,
    /// Who elects the first leader; the same on all nodes. Empty where this node is alone.
    /// Once there is a log, its voters count; only addresses that it does not tell are still taken from here.
    pub voters: Vec<InitialVoter>,
    /// Whether the log is somebody else's: an empty one is never begun here.
    pub joins: bool,
    /// Where the leader reaches this node while that has no vote.
    pub endpoints: Vec<Endpoint>,
    /// Whether nobody has written those down: a guess is not told where the log names a place already.
    pub place_is_guessed: bool,
    /// Whether it asks for a vote while it has none.
    pub wants_vote: bool,
    /// Where to ask who leads, beside the voters that are known.
    pub contacts: Vec<Endpoint>,
    pub timing: Timing,
    /// The levels of features that a new cluster begins with; the latest of those that are not named.
    pub levels: BTreeMap<String, i16>,
    /// What the node's configuration says about decisions; its `node_id` is this node's, whatever it says.
    pub policy: Policy,
    /// `metadata.log.segment.bytes`.
    pub segment_bytes: u64,
    /// `metadata.log.segment.ms`.
    pub segment_ms: i64,
    /// When the log's beginning goes into a snapshot.
    pub snapshots: SnapshotLimits,
}

impl Config {
    /// A node that nobody else is told of, with a log whose segments end by their size alone: what whoever has no configuration
    /// begins with.
    #[must_use]
    pub fn alone(
        node_id: BrokerId,
        cluster_id: &str,
        directory_id: Uuid,
        incarnation_id: Uuid,
    ) -> Self {
        Self {
            node_id,
            cluster_id: cluster_id.into(),
            directory_id,
            incarnation_id,
            controller_endpoints: Vec::new(),
            voters: Vec::new(),
            joins: false,
            endpoints: Vec::new(),
            place_is_guessed: false,
            wants_vote: false,
            contacts: Vec::new(),
            timing: Timing::default(),
            levels: BTreeMap::new(),
            policy: Policy::default(),
            segment_bytes: 1 << 30,
            segment_ms: i64::MAX,
            snapshots: SnapshotLimits::default(),
        }
    }
}

/// What the quorum works with.
#[derive(Debug)]
pub struct Dependencies {
    /// Where `__cluster_metadata-0` is, or will be.
    pub directory: Arc<LogDirectory>,
    pub clock: Arc<dyn Clock>,
    pub publisher: Arc<dyn Publisher>,
    /// The way to the other voters.
    pub transport: Arc<dyn Transport>,
    /// Who does what may block.
    pub workers: Arc<dyn Workers>,
}

/// The quorum could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("{0}")]
    Log(String),
    #[error("{0}")]
    Voters(String),
    #[error("the quorum stopped while it started: {0}")]
    Stopped(String),
}

/// How far this node is with the metadata log, and whether it leads it: for DescribeQuorum, and for tests to count flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// The epoch in which this node is the active controller, if it is.
    pub active_epoch: Option<LeaderEpoch>,
    pub log_end_offset: Offset,
    /// The last offset that is committed, applied and published.
    pub applied_offset: Offset,
    /// How often the log was flushed.
    pub flushes: u64,
    /// Appends that those flushes made durable; each may be of several requests.
    pub appends: u64,
}

/// A member of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub id: BrokerId,
    /// The log directory that its metadata log is in; zero where the voters are known by their ids alone.
    pub directory_id: Uuid,
}

impl fmt::Display for Member {
    /// As Apache Kafka's messages show one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaKey(id={}, directoryId={})", self.id, self.directory_id)
    }
}

/// How far a voter has followed its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterState {
    pub voter: Member,
    /// Where its log ends, as far as it has said so.
    pub log_end_offset: Offset,
    /// How long ago it answered last; the leader itself does so all the time.
    pub silent_for: Duration,
    /// How long ago it was when it had the leader's whole log for the last time, if that is known.
    pub behind_for: Option<Duration>,
}

/// The controllers' quorum, of which this node is a voter or an observer. Dropping it leaves the disk as a crash would.
pub struct Quorum {
    raft: QuorumRaft,
    storage: Storage,
    log: Arc<Log>,
    image: Arc<ArcSwap<Image>>,
    applied: watch::Receiver<Applied>,
    controller: Handle,
    snapshots: Keeper,
    service: Arc<Service>,
    peers: Peers,
    _attendance: AbortOnDropHandle,
    registration: ControllerRegistrationRequest,
    timing: Timing,
}

impl fmt::Debug for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quorum").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Opens the metadata log, or begins one.
    ///
    /// As the only voter, returns once this node is the active controller, everything that was committed is published,
    /// and the cluster has its first records. With others, returns at once: the image is empty until a leader has said
    /// what is committed, and controllers are registered with the active one ([`Quorum::controller_registration`]).
    ///
    /// # Errors
    /// [`StartError`] where the log or its snapshot cannot be opened or made sense of, the configured voters cannot be,
    /// or the quorum stops before it is there.
    pub async fn start(config: Config, dependencies: Dependencies) -> Result<Self, StartError> {
        let Dependencies { directory, clock, publisher, transport, workers } = dependencies;
        let place = place(&config, &directory);
        check_there(&directory, &place)?;
        let log = open_log(&config, &directory)?;
        let vote_file = VoteFile::in_directory(Arc::clone(&place.disk), &place.path);
        let (storage, snapshot) =
            Storage::open(Arc::clone(&log), vote_file, place, Arc::clone(&clock), workers)
                .map_err(|error| StartError::Log(error.to_string()))?;
        if storage.last_index().is_none() && voters::begins(&config) {
            let first = voters::first(&config).map_err(StartError::Voters)?;
            storage.begin(first).map_err(|error| StartError::Log(error.to_string()))?;
        }
        let company = voters::company(&config, &storage);
        let is_alone = company == Company::Alone;
        let (machine, view) =
            StateMachine::new(storage.clone(), snapshot, publisher, Arc::clone(&config.cluster_id));
        let peers = peers(&config, transport, storage.clone());
        let raft = start_raft(&config, company, peers.clone(), storage.clone(), machine).await?;
        let controller = Controller::start(Parts {
            raft: raft.clone(),
            log: Arc::clone(&log),
            applied: view.applied.clone(),
            policy: Policy { node_id: config.node_id, ..config.policy.clone() },
            levels: config.levels.clone(),
            clock: Arc::clone(&clock),
            draw: Box::new(SystemDraw),
            storage: storage.clone(),
            limits: config.timing.limits(),
        });
        let snapshots = Keeper::start(
            raft.clone(),
            storage.clone(),
            view.applied.clone(),
            config.snapshots,
            clock,
        );
        let service = Arc::new(service(&config, storage.clone()));
        let attendance = Attendance {
            raft: raft.clone(),
            service: Arc::clone(&service),
            peers: peers.clone(),
            myself: Voter {
                directory_id: config.directory_id,
                endpoints: config.endpoints.clone(),
            },
            is_guessed: config.place_is_guessed,
            wants_vote: config.wants_vote,
            contacts: config.contacts.clone(),
        };
        let attendance = AbortOnDropHandle(standstill::spawn(attendance.run()));
        let registration = controller_registration(&config);
        let timing = config.timing;
        let (image, applied) = (view.image, view.applied);
        let quorum = Self {
            raft,
            storage,
            log,
            image,
            applied,
            controller,
            snapshots,
            service,
            peers,
            registration,
            timing,
            _attendance: attendance,
        };
        if is_alone {
            quorum.lead().await?;
        }
        Ok(quorum)
    }

    /// Elects this node, without waiting for a timeout: nobody else could lead.
    async fn lead(&self) -> Result<(), StartError> {
        let stopped = |error: &dyn fmt::Display| StartError::Stopped(error.to_string());
        self.raft.trigger().elect(false).await.map_err(|error| stopped(&error))?;
        let mut active = self.controller.active.clone();
        if active.wait_for(Option::is_some).await.is_err() {
            return Err(StartError::Stopped(self.stopped().await));
        }
        let registration = self.controller_registration();
        let registered = self.decide_or_reject(move |desk| {
            controller::register_controller(desk.image, &registration)
        });
        registered.await.map_err(|error| stopped(&error))?.map_err(|rejection| stopped(&rejection))
    }

    /// Whether this node is the only voter, by its own log.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.storage.is_alone()
    }

    /// Answers what the [`Transport`] of another voter has carried here.
    ///
    /// # Errors
    /// [`ServeError::Malformed`] where the bytes are no voter's request, [`ServeError::Stopped`] once the quorum has
    /// stopped.
    pub async fn serve(&self, request: Bytes) -> Result<Bytes, ServeError> {
        self.service.serve(&self.raft, request).await
    }

    /// Who leads, as far as this node knows; it keeps naming a leader that is gone until it hears of another, or asks
    /// for votes itself. Requests to the active controller go there.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.controller.leader.clone()
    }

    /// The newest epoch that this node knows of, and who leads it, if that is known.
    #[must_use]
    pub fn epoch(&self) -> (LeaderEpoch, Option<BrokerId>) {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        let leader = vote.committed.then_some(BrokerId(vote.leader_id.voted_for));
        (LeaderEpoch(vote.leader_id.term), leader)
    }

    /// The epoch in which this node is the active controller, while it is.
    #[must_use]
    pub fn active(&self) -> watch::Receiver<Option<LeaderEpoch>> {
        self.controller.active.clone()
    }

    /// The connection to a voter has broken. If it was the leader's, an election begins before the timeouts that a
    /// silent leader would be given: if the leader lives, those who hear of it refuse, and nothing changes.
    ///
    /// The voters who notice go one after the other, by their ids: votes at the same time would be split.
    pub async fn peer_lost(&self, id: BrokerId) {
        let (vote, place) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let others = metrics.membership_config.voter_ids().filter(|voter| *voter != id.0);
            (metrics.vote, others.take_while(|voter| *voter != self.service.node_id.0).count())
        };
        let is_leader = vote.committed && vote.leader_id.voted_for == id.0;
        if !is_leader || id == self.service.node_id {
            return;
        }
        self.service.heard.lost();
        if self.raft.metrics().borrow_watched().running_state.is_err() {
            // This node is stopping, and openraft calls it an error to be asked then.
            return;
        }
        if !is_voter(&observers::members(&self.raft), self.service.node_id.0) {
            // Without a vote it asks again for whoever leads.
            return;
        }
        // What a leader says when it hands over: do not believe in me any longer.
        let gone = TransferLeaderRequest::new(vote, id.0, None);
        if self.raft.handle_transfer_leader(gone).await.is_err() {
            return;
        }
        tokio::time::sleep(self.timing.stagger(place)).await;
        if self.raft.server_metrics().borrow_watched().vote == vote
            && self.raft.trigger().elect(true).await.is_err()
        {
            tracing::debug!("no election: the quorum has stopped");
        }
    }

    /// The cluster as it is committed. Cheap.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Makes a decision in its turn; answered when all of its records are committed, applied and published, or none of
    /// them ever will be.
    ///
    /// # Errors
    /// [`SubmitError::NotController`] where this node does not lead, or has stopped leading meanwhile: the records may
    /// be committed all the same. [`SubmitError::Unwritable`] where a record cannot be written: nothing has changed.
    /// [`SubmitError::Stopped`] once the quorum has stopped.
    pub async fn decide<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Desk<'_>) -> Outcome<R> + Send + 'static,
    ) -> Result<R, SubmitError> {
        self.submit(Round::Own, decide).await
    }

    async fn submit<R: Send + 'static>(
        &self,
        round: Round,
        decide: impl FnOnce(&mut Desk<'_>) -> Outcome<R> + Send + 'static,
    ) -> Result<R, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Submitted { decide, reply, round });
        let sent = self.controller.requests.send(request).await;
        sent.map_err(|_| SubmitError::Stopped)?;
        answer.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// As [`Quorum::decide`], for a decision that may be a refusal: nothing is recorded then.
    ///
    /// # Errors
    /// As [`Quorum::decide`]; the inner one is the refusal.
    pub async fn decide_or_reject<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Desk<'_>) -> Result<Outcome<R>, Rejection> + Send + 'static,
    ) -> Result<Result<R, Rejection>, SubmitError> {
        self.decide(|desk| or_reject(decide(desk))).await
    }

    /// Changes the levels of features (KIP-584).
    ///
    /// `version` is that of the request. The voters are those of the moment of the decision: one that has come since the
    /// request was sent may not support what it asks for.
    ///
    /// # Errors
    /// As [`Quorum::decide`]. What is refused is said in the answer.
    pub async fn update_features(
        &self,
        request: UpdateFeaturesRequest,
        version: i16,
    ) -> Result<UpdateFeaturesResponse, SubmitError> {
        let raft = self.raft.clone();
        self.decide(move |desk| {
            let members = observers::members(&raft);
            let voters = observers::ordered(&members, true);
            let voters: Vec<BrokerId> = voters.iter().map(|(_, voter)| voter.id).collect();
            let kraft_version = kraft_version(&members);
            let (image, policy) = (desk.image, desk.policy);
            controller::update_features(image, policy, &voters, kraft_version, &request, version)
        })
        .await
    }

    /// Registers a broker, fenced; it names the epoch that it gets in all later requests.
    ///
    /// # Errors
    /// As [`Quorum::decide`]; the inner one is the refusal.
    pub async fn register_broker(
        &self,
        request: BrokerRegistrationRequest,
    ) -> Result<Result<BrokerEpoch, Rejection>, SubmitError> {
        let id = BrokerId(request.broker_id);
        let listeners = request.listeners.iter();
        let at: Vec<_> = listeners.map(|it| format!("{}:{}", it.host, it.port)).collect();
        let decided = self
            .decide_or_reject(move |desk| {
                let situation = desk.situation();
                desk.liveness.on_registration(situation, &request)
            })
            .await;
        self.note_refusal(id, &at.join(", "), &decided);
        decided
    }

    fn note_refusal<R>(
        &self,
        broker: BrokerId,
        at: &str,
        decided: &Result<Result<R, Rejection>, SubmitError>,
    ) {
        let Ok(Err(rejection)) = decided else { return };
        if self.service.refusals.is_due(broker, &format!("{at} {rejection}"), Instant::now()) {
            tracing::warn!(%broker, at, %rejection, "a broker is refused");
        }
    }

    /// Whether this node does not get the metadata, as another node with its id is in the cluster.
    #[must_use]
    pub fn is_id_taken(&self) -> bool {
        self.service.is_id_taken.load(Ordering::Relaxed)
    }

    /// A broker says that it is there, and what it wants. Brokers do so all the time, so that an answer which changes nothing
    /// waits for the voters' next heartbeats.
    ///
    /// # Errors
    /// As [`Quorum::decide`]; the inner one is the refusal.
    pub async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeatRequest,
    ) -> Result<Result<BrokerHeartbeatResponse, Rejection>, SubmitError> {
        let id = BrokerId(request.broker_id);
        let decided = self.submit(Round::Next, move |desk| {
            let situation = desk.situation();
            or_reject(desk.liveness.on_heartbeat(situation, &request))
        });
        let decided = decided.await;
        self.note_refusal(id, "", &decided);
        decided
    }

    /// The connection that this registration's last heartbeat came on has ended: the broker is fenced soon, unless it
    /// is heard from again.
    ///
    /// # Errors
    /// As [`Quorum::decide`].
    pub async fn connection_lost(
        &self,
        id: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<(), SubmitError> {
        self.submit(Round::Next, move |desk| {
            desk.liveness.on_connection_lost(id, epoch, desk.now);
            Outcome::unchanged(())
        })
        .await
    }

    /// Waits until this node has applied the record at an offset.
    pub async fn applied(&self, offset: Offset) {
        let mut applied = self.applied.clone();
        // An error means that the quorum has stopped, of which `stopped` tells.
        let _ = applied.wait_for(|applied| applied.image.offset >= offset).await;
    }

    /// Waits until what this node has applied satisfies.
    pub async fn image_when(&self, mut is_so: impl FnMut(&Image) -> bool) {
        let mut applied = self.applied.clone();
        let _ = applied.wait_for(|applied| is_so(&applied.image)).await;
    }

    /// How this node is to be registered as a controller.
    #[must_use]
    pub fn controller_registration(&self) -> ControllerRegistrationRequest {
        self.registration.clone()
    }

    /// Those who elect the leader, ordered by id.
    #[must_use]
    pub fn voters(&self) -> Vec<Member> {
        self.members(true).into_iter().map(|(_, member)| member).collect()
    }

    /// The level of `kraft.version`: 1 where the log knows the voters with their directories, else 0.
    #[must_use]
    pub fn kraft_version(&self) -> i16 {
        kraft_version(&observers::members(&self.raft))
    }

    /// Voters, or observers, with openraft's numbers.
    fn members(&self, voters: bool) -> Vec<(i32, Member)> {
        observers::ordered(&observers::members(&self.raft), voters)
    }

    /// Where a voter is reached as a controller, by the metadata log; nothing where that knows its id alone.
    #[must_use]
    pub fn endpoints_of(&self, voter: BrokerId) -> Vec<Endpoint> {
        let voters = self.storage.voters();
        let node = voters.as_ref().and_then(|voters| voters.get_node(&voter.0));
        node.map(|voter| voter.endpoints.clone()).unwrap_or_default()
    }

    /// How far the voters have followed, as this node knows while it leads; ordered by id.
    #[must_use]
    pub fn voter_states(&self) -> Vec<VoterState> {
        self.states(self.members(true))
    }

    /// The same of those who follow without a vote. Only the leader knows of them.
    #[must_use]
    pub fn observer_states(&self) -> Vec<VoterState> {
        self.states(self.members(false))
    }

    fn states(&self, members: Vec<(i32, Member)>) -> Vec<VoterState> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let own = self.log.log_end_offset();
        let epoch = *self.controller.active.borrow();
        let state = |(number, voter): (i32, Member)| {
            if number == self.service.node_id.0 {
                return VoterState {
                    voter,
                    log_end_offset: own,
                    silent_for: Duration::ZERO,
                    behind_for: Some(Duration::ZERO),
                };
            }
            let (index, silent_for) = progress(&metrics, number);
            let last = index.and_then(|index| self.storage.last_offset(index));
            VoterState {
                voter,
                log_end_offset: last.map_or(Offset::ZERO, Offset::next),
                silent_for,
                behind_for: epoch
                    .and_then(|epoch| self.peers.caught_up_at(number, epoch))
                    .map(|at| at.elapsed()),
            }
        };
        members.into_iter().map(state).collect()
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let (flushes, appends) = self.storage.flush_counts();
        Metrics {
            active_epoch: *self.controller.active.borrow(),
            log_end_offset: self.log.log_end_offset(),
            applied_offset: self.image.load().offset,
            flushes,
            appends,
        }
    }

    /// Returns, with the reason, when nothing more can be decided: the disk failed, or somebody has called
    /// [`Quorum::shutdown`]. A node without a quorum must not go on.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "the quorum has ended".to_owned();
            }
        }
    }

    /// Stops deciding, and makes everything durable. The log itself is closed with its directory. A leader of others
    /// hands over first, unless it has ([`Quorum::hand_over`]).
    pub async fn shutdown(&self) {
        self.storage.room().stop();
        self.hand_over().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the quorum did not stop cleanly");
        }
        self.snapshots.stop().await;
        let storage = self.storage.clone();
        if self.storage.aside(move || storage.close()).await.is_err() {
            tracing::error!("the metadata log was not closed");
        }
    }

    /// Where this node leads others, lets the one of them lead that has most of the log, and waits for that as long as an
    /// election would take. Once: what a stop begins with, while the others can still tell this node who leads.
    pub async fn hand_over(&self) {
        if self.controller.leaving.swap(true, Ordering::Relaxed) {
            return;
        }
        let target = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let progress = metrics.replication.iter().flatten();
            let members = metrics.membership_config.membership();
            let others = progress
                .filter(|(id, _)| **id != self.service.node_id.0 && is_voter(members, **id));
            others.max_by_key(|(_, matching)| **matching).map(|(id, _)| *id)
        };
        let Some(target) = target else { return };
        if self.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
        let mut leader = self.controller.leader.clone();
        let is_other = |leader: &Option<Leader>| {
            leader.is_some_and(|leader| leader.id != self.service.node_id)
        };
        let patience = Duration::from_millis(self.timing.election_timeout_max_ms);
        if tokio::time::timeout(patience, leader.wait_for(is_other)).await.is_err() {
            tracing::info!("no other voter has taken the leadership over in time");
        }
    }
}

fn or_reject<R>(decided: Result<Outcome<R>, Rejection>) -> Outcome<Result<R, Rejection>> {
    match decided {
        Ok(Outcome { records, reply }) => Outcome { records, reply: Ok(reply) },
        Err(rejection) => Outcome::unchanged(Err(rejection)),
    }
}

/// The last entry that a member has, as its leader knows, and how long ago it answered last.
pub(crate) fn progress(
    metrics: &RaftDataMetrics<TypeConfig>,
    number: i32,
) -> (Option<u64>, Duration) {
    let replicated = metrics.replication.as_ref().and_then(|all| all.get(&number));
    let index = replicated.and_then(|last| last.as_ref()).map(|last| last.index());
    let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&number));
    (index, heard.and_then(|at| *at).map_or(Duration::MAX, |at| at.elapsed()))
}

fn open_log(config: &Config, directory: &LogDirectory) -> Result<Arc<Log>, CreateError> {
    let partition = partition();
    let log_config = Arc::new(LogConfig {
        segment_bytes: config.segment_bytes,
        segment_ms: config.segment_ms,
        retention_ms: -1,
        retention_bytes: -1,
        // What is in a snapshot goes, and nothing else (`snapshot::keeper`).
        delete: false,
        compact: false,
        ..LogConfig::default()
    });
    match directory.log(&partition) {
        Some(log) => {
            log.set_config(log_config);
            Ok(log)
        }
        None => directory.create(partition, METADATA_TOPIC_ID, log_config),
    }
}

/// Before anything is made where a lost log is to be put back.
fn check_there(
    directory: &LogDirectory,
    Place { disk, path, .. }: &Place,
) -> Result<(), StartError> {
    let refused = |error: LogError| StartError::Log(error.to_string());
    let begun = Begun::of_log(Arc::clone(disk), path).map_err(|it| refused(it.into()))?;
    if begun.is_noted() && directory.log(&partition()).is_none() {
        return Err(refused(LogError::Gone(path.clone())));
    }
    Ok(())
}

fn partition() -> TopicPartition {
    TopicPartition::new(topic_name::CLUSTER_METADATA, 0)
}

fn place(config: &Config, directory: &LogDirectory) -> Place {
    Place {
        path: directory.path().join(partition().to_string()),
        cluster_id: Arc::clone(&config.cluster_id),
        node_id: config.node_id,
        directory_id: config.directory_id,
        disk: Arc::clone(directory.disk()),
    }
}

fn peers(config: &Config, transport: Arc<dyn Transport>, storage: Storage) -> Peers {
    let address = |voter: &InitialVoter| (voter.id.0, voter.endpoints.clone());
    Peers::new(Setup {
        transport,
        cluster_id: (*config.cluster_id).into(),
        node_id: config.node_id,
        storage,
        addresses: config.voters.iter().map(address).collect(),
        append_patience: config.timing.limits().patience,
        pause_max: Duration::from_millis(config.timing.heartbeat_ms),
    })
}

fn service(config: &Config, storage: Storage) -> Service {
    Service {
        cluster_id: config.cluster_id.to_string(),
        node_id: config.node_id,
        storage,
        lease: config.timing.limits().lease,
        heard: Heard::default(),
        inbox: Inbox::default(),
        observers: Observers::default(),
        refusals: Refusals::default(),
        is_id_taken: AtomicBool::default(),
    }
}

async fn start_raft(
    config: &Config,
    company: Company,
    peers: Peers,
    storage: Storage,
    machine: StateMachine,
) -> Result<QuorumRaft, StartError> {
    let raft_config = openraft::Config {
        cluster_name: config.cluster_id.to_string(),
        heartbeat_interval: config.timing.heartbeat_ms,
        election_timeout_min: config.timing.election_timeout_min_ms,
        election_timeout_max: config.timing.election_timeout_max_ms,
        // A lone voter has nobody to send heartbeats to and nobody's silence to notice: no timer runs at all.
        enable_tick: company != Company::Alone,
        // A voter that comes back without its log gets it anew, as with Kafka's static voters.
        allow_log_reversion: Some(company == Company::ById),
        // A leader that comes back begins a new epoch, as Kafka's does: entries that it had not on disk may be
        // elsewhere under the same epoch and index.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        // The keeper decides, and writes them; openraft is told.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..openraft::Config::default()
    };
    let raft_config =
        raft_config.validate().map_err(|error| StartError::Stopped(error.to_string()))?;
    Raft::new(config.node_id.0, Arc::new(raft_config), peers, storage, machine)
        .await
        .map_err(|error| StartError::Stopped(error.to_string()))
}

fn controller_registration(config: &Config) -> ControllerRegistrationRequest {
    let listener = |it: &Endpoint| controller_registration_request::Listener {
        name: (*it.listener).into(),
        host: (*it.host).into(),
        port: it.port,
        security_protocol: it.security_protocol,
    };
    let feature = |(name, levels): (&str, feature::SupportedLevels)| {
        controller_registration_request::Feature {
            name: name.into(),
            min_supported_version: levels.min,
            max_supported_version: levels.max,
        }
    };
    ControllerRegistrationRequest {
        controller_id: config.node_id.0,
        incarnation_id: config.incarnation_id,
        zk_migration_ready: false,
        listeners: config.controller_endpoints.iter().map(listener).collect(),
        features: feature::supported().map(feature).collect(),
    }
}

/// A task that ends with its owner.
struct AbortOnDropHandle(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDropHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Chance from the operating system.
#[derive(Debug, Clone, Copy)]
struct SystemDraw;

impl Draw for SystemDraw {
    fn topic_id(&mut self) -> Uuid {
        ottla_env::random_uuid().expect(HAS_CHANCE)
    }

    fn placement_seed(&mut self) -> u64 {
        let mut bytes = [0; 8];
        sys::random_bytes(&mut bytes).expect(HAS_CHANCE);
        u64::from_le_bytes(bytes)
    }
}

const HAS_CHANCE: &str = "the operating system has random numbers";
