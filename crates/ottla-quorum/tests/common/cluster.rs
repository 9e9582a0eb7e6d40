//! Several voters in one process, on a network whose links can be cut.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, Offset, TopicPartition, Uuid};
use ottla_env::{FaultyDisk, SystemClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::controller::{BrokerEpoch, Policy};
use ottla_metadata::{Delta, Endpoint, Image, Outcome, feature};
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
};
use ottla_protocol::records::{ConfigRecord, VotersRecord};
use ottla_protocol::{Decoder, Message};
use ottla_quorum::{
    Called, Config, Dependencies, InitialVoter, Lane, Member, Publisher, Quorum, SnapshotLimits,
    StartError, SubmitError, Threads, Timing, Transport, VoterChangeError,
};
use ottla_records::{Batches, ControlType, RawBatch};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fast, but not so fast that a busy machine has elections of its own accord.
pub const TIMING: Timing =
    Timing { heartbeat_ms: 50, election_timeout_min_ms: 150, election_timeout_max_ms: 300 };

/// A snapshot after every few changes; the log's beginning goes soon.
pub const FORGETFUL: SnapshotLimits =
    SnapshotLimits { bytes_between: 1000, interval_ms: 0, retention_bytes: 4000, retention_ms: -1 };

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// The network: who is there, and which links are cut, each in one direction.
#[derive(Debug, Default)]
pub struct Network {
    nodes: Mutex<BTreeMap<i32, Arc<Quorum>>>,
    cut: Mutex<BTreeSet<(i32, i32)>>,
    /// A node answers what another one sends on a lane in turn.
    turns: Mutex<BTreeMap<(i32, i32, Lane), Turn>>,
    /// How many requests each node has sent.
    sent: Mutex<BTreeMap<i32, usize>>,
    fuse: Mutex<Option<Fuse>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// What ends a node in the midst of a change of the voters.
#[derive(Debug)]
struct Fuse {
    node: i32,
    voters: usize,
    requests: usize,
}

impl Network {
    fn node(&self, id: i32) -> io::Result<Arc<Quorum>> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&id).cloned().ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    fn turn(&self, from: i32, to: i32, lane: Lane) -> Turn {
        Arc::clone(self.turns.lock().unwrap().entry((from, to, lane)).or_default())
    }

    /// Lets a node be reached, on new connections.
    fn join(&self, id: i32, quorum: Arc<Quorum>) {
        self.turns.lock().unwrap().retain(|(from, to, _), _| *from != id && *to != id);
        self.nodes.lock().unwrap().insert(id, quorum);
    }

    /// What a killed node still does is seen by nobody.
    fn is_there(&self, id: i32, quorum: &Arc<Quorum>) -> bool {
        self.nodes.lock().unwrap().get(&id).is_some_and(|there| Arc::ptr_eq(there, quorum))
    }

    fn is_cut(&self, from: i32, to: i32) -> bool {
        self.cut.lock().unwrap().contains(&(from, to))
    }

    /// What is sent between the two groups is lost, and so are the answers that are under way.
    pub fn part(&self, some: &[i32], others: &[i32]) {
        let mut cut = self.cut.lock().unwrap();
        for (one, other) in some.iter().flat_map(|one| others.iter().map(move |it| (*one, *it))) {
            cut.extend([(one, other), (other, one)]);
        }
    }

    pub fn cut_one_way(&self, from: i32, to: i32) {
        self.cut.lock().unwrap().insert((from, to));
    }

    /// Ends a node when it has sent so many requests since it knew of more voters than these.
    pub fn set_fuse(&self, node: i32, voters: usize, requests: usize) {
        *self.fuse.lock().unwrap() = Some(Fuse { node, voters, requests });
    }

    /// Whether a node ends before it sends one more request.
    fn blows(&self, from: i32) -> bool {
        let mut fuse = self.fuse.lock().unwrap();
        let Some(burning) = fuse.as_mut().filter(|fuse| fuse.node == from) else { return false };
        if self.node(from).is_ok_and(|it| it.voters().len() <= burning.voters) {
            return false;
        }
        if let Some(left) = burning.requests.checked_sub(1) {
            burning.requests = left;
            return false;
        }
        *fuse = None;
        self.nodes.lock().unwrap().remove(&from);
        true
    }

    /// Waits until nobody reaches a node any more.
    pub async fn blown(&self, node: i32) {
        within("the fuse to blow", async {
            while self.node(node).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// How many requests a node has sent so far.
    pub fn sent_by(&self, node: i32) -> usize {
        self.sent.lock().unwrap().get(&node).copied().unwrap_or(0)
    }

    pub fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

/// What becomes of a voter: its id, and its log directory's.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Add(i32, Uuid),
    Remove(i32, Uuid),
}

/// A node's access to the network.
#[derive(Debug)]
struct Access {
    from: i32,
    network: Arc<Network>,
    is_killed: Arc<AtomicBool>,
}

impl Transport for Access {
    fn call(&self, to: BrokerId, endpoints: &[Endpoint], lane: Lane, request: Bytes) -> Called {
        let host = || endpoints.first()?.host.strip_prefix("node")?.parse().ok();
        let to = host().unwrap_or(to.0);
        let (from, network) = (self.from, Arc::clone(&self.network));
        let is_killed = Arc::clone(&self.is_killed);
        Box::pin(async move {
            *network.sent.lock().unwrap().entry(from).or_default() += 1;
            if network.blows(from) {
                is_killed.store(true, Ordering::Relaxed);
            }
            // Nobody answers on a link that is cut; whoever waits has to give up.
            if network.is_cut(from, to) || is_killed.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let quorum = network.node(to)?;
            let (turn, there) = (network.turn(from, to, lane), Arc::clone(&quorum));
            // Whether anybody still waits for the answer or not.
            let answer = tokio::spawn(async move {
                let _turn = turn.lock_owned().await;
                there.serve(request).await
            });
            let answer = answer.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            if !network.is_there(to, &quorum) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if network.is_cut(to, from) {
                return std::future::pending().await;
            }
            Ok(answer)
        })
    }
}

/// Tells how far a node's image is, and keeps all that were published.
#[derive(Debug)]
pub struct Watcher {
    pub published: Mutex<Vec<Arc<Image>>>,
    /// The names of all decisions that a delta has told of.
    pub told: Mutex<BTreeSet<Arc<str>>>,
    visible: watch::Sender<u64>,
}

impl Publisher for Watcher {
    fn publish(&self, image: &Arc<Image>, delta: &Delta) {
        self.told.lock().unwrap().extend(delta.configs.iter().map(|it| Arc::clone(&it.name)));
        self.published.lock().unwrap().push(Arc::clone(image));
    }

    fn visible(&self, _delta: &Delta) {
        self.visible.send_modify(|count| *count += 1);
    }
}

/// The sets of voters that a node's log names one after the other: two at once while they change.
pub fn voter_sets(node: &Voter) -> Vec<Vec<Vec<i32>>> {
    let mut all: Vec<Vec<Vec<i32>>> = Vec::new();
    for bytes in node.log().into_values() {
        let batch = RawBatch::parse(bytes).unwrap();
        if !batch.header().attributes.is_control() {
            continue;
        }
        let records = batch.records().unwrap().map(Result::unwrap);
        let is_set =
            |key: &Bytes| ControlType::from_key(key).unwrap() == Some(ControlType::KRaftVoters);
        let sets = records.filter(|it| is_set(it.key.as_ref().unwrap())).map(|it| {
            let set = VotersRecord::decode(&mut Decoder::new(it.value.unwrap()), 0).unwrap();
            set.voters.iter().map(|voter| voter.voter_id).collect()
        });
        let sets: Vec<Vec<i32>> = sets.collect();
        if !sets.is_empty() && all.last() != Some(&sets) {
            all.push(sets);
        }
    }
    all
}

/// What a decision of these tests writes: the configuration of a group of this name.
pub fn note(name: &str) -> ConfigRecord {
    ConfigRecord {
        resource_type: 32,
        resource_name: name.into(),
        name: "consumer.session.timeout.ms".into(),
        value: Some("45000".into()),
    }
}

/// The names of all decisions that an image has.
pub fn notes(image: &Image) -> BTreeSet<String> {
    image.config_resources().map(|it| it.name.to_string()).collect()
}

#[derive(Debug)]
pub struct Voter {
    pub quorum: Arc<Quorum>,
    pub directory: Arc<LogDirectory>,
    pub watcher: Arc<Watcher>,
    pub path: TempDir,
    pub disk: Arc<FaultyDisk>,
    is_killed: Arc<AtomicBool>,
}

impl Voter {
    pub async fn put(&self, name: &str) -> Result<(), SubmitError> {
        let record = note(name);
        let decision =
            self.quorum.decide(move |_| Outcome { records: vec![record.into()], reply: () });
        within(&format!("an answer to {name}"), decision).await
    }

    /// Asks for a change of the voters once.
    pub async fn change(&self, change: Change) -> Result<(), VoterChangeError> {
        let patience = Duration::from_secs(5);
        match change {
            Change::Add(id, directory_id) => {
                let newcomer = InitialVoter { directory_id, ..initial_voter(id) };
                self.quorum.add_voter(newcomer, patience).await
            }
            Change::Remove(id, directory_id) => {
                let voter = Member { id: BrokerId(id), directory_id };
                self.quorum.remove_voter(voter, patience).await
            }
        }
    }

    /// The voters' ids and directories, as this node knows them.
    pub fn voters(&self) -> Vec<(i32, Uuid)> {
        self.quorum.voters().iter().map(|it| (it.id.0, it.directory_id)).collect()
    }

    /// Asks for a decision that changes nothing.
    pub async fn ask(&self) -> Result<(), SubmitError> {
        within("an answer", self.quorum.decide(|_| Outcome::unchanged(()))).await
    }

    /// Waits until the image has everything up to this offset.
    pub async fn reaches(&self, offset: Offset) {
        self.sees(&format!("offset {offset}"), |image| image.offset >= offset).await;
    }

    pub async fn sees(&self, what: &str, is_so: impl Fn(&Image) -> bool) {
        let mut visible = self.watcher.visible.subscribe();
        within(what, async {
            while !is_so(&self.quorum.image()) {
                visible.changed().await.unwrap();
            }
        })
        .await;
    }

    /// Registers a broker, and lets it be unfenced by its first heartbeat.
    pub async fn add_broker(&self, id: i32) -> BrokerEpoch {
        let request = BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid([u8::try_from(id).unwrap(); 16]),
            features: feature::of_registration(),
            log_dirs: vec![directory_id(id)],
            ..Default::default()
        };
        let epoch = self.quorum.register_broker(request).await.unwrap().unwrap();
        let response = self.heartbeat(id, epoch).await.unwrap();
        assert!(!response.is_fenced);
        epoch
    }

    pub async fn heartbeat(
        &self,
        id: i32,
        epoch: BrokerEpoch,
    ) -> Result<BrokerHeartbeatResponse, SubmitError> {
        let request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: epoch.0,
            current_metadata_offset: self.quorum.image().offset.0,
            ..Default::default()
        };
        Ok(self.quorum.broker_heartbeat(request).await?.unwrap())
    }

    /// All batches of the metadata log that are still there, by the offsets that they begin at.
    pub fn log(&self) -> BTreeMap<i64, Bytes> {
        let files = std::fs::read_dir(super::common::metadata_log(self.path.path())).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let segments = paths.filter(|path| path.extension() == Some("log".as_ref()));
        // One that is gone since is before the log's beginning by now.
        let read = |path: PathBuf| match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(Batches::new(read.unwrap().into())),
        };
        let batches = segments.filter_map(read).flatten();
        let log = self.directory.log(&TopicPartition::new("__cluster_metadata", 0)).unwrap();
        let batches = batches.map(Result::unwrap).map(|it| (it.header().base_offset, it));
        let there = batches.filter(|(offset, _)| *offset >= log.log_start_offset().0);
        there.map(|(offset, batch)| (offset, batch.bytes().clone())).collect()
    }
}

#[derive(Debug)]
pub struct Cluster {
    pub network: Arc<Network>,
    pub voters: BTreeMap<i32, Voter>,
    config: Vec<InitialVoter>,
    policy: Policy,
    timing: Timing,
    segment_bytes: u64,
    snapshots: SnapshotLimits,
    /// Whether nodes that have no vote ask for one, and know where all others would be.
    pub grows: bool,
    /// What the voters that were killed have published.
    graves: Vec<Arc<Watcher>>,
}

pub fn directory_id(id: i32) -> Uuid {
    Uuid([u8::try_from(id).unwrap(); 16])
}

pub fn initial_voter(id: i32) -> InitialVoter {
    let endpoint = Endpoint {
        listener: "CONTROLLER".into(),
        host: format!("node{id}").into(),
        port: 9093,
        security_protocol: 0,
    };
    InitialVoter { id: BrokerId(id), directory_id: directory_id(id), endpoints: vec![endpoint] }
}

/// An empty disk.
pub fn new() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Each on the directory that it begins with.
pub fn voters(ids: &[i32]) -> Vec<(i32, Uuid)> {
    ids.iter().map(|id| (*id, directory_id(*id))).collect()
}

/// Waits until this node knows these as the voters.
pub async fn knows(node: &Voter, expected: &[(i32, Uuid)]) {
    within(&format!("{expected:?} to be the voters"), async {
        while node.voters() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until this leader feeds a node that has no vote.
pub async fn is_fed(node: &Voter, id: i32) {
    within(&format!("{id} to be an observer"), async {
        while !node.quorum.observer_states().iter().any(|it| it.voter.id.0 == id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

impl Cluster {
    /// Voters 1 to `count`, who know each other's directories.
    pub async fn start(count: i32) -> Self {
        Self::start_with((1..=count).map(initial_voter).collect()).await
    }

    pub async fn start_with(config: Vec<InitialVoter>) -> Self {
        Self::of(config).start_all().await
    }

    pub async fn start_with_policy(count: i32, policy: Policy) -> Self {
        let cluster = Self::of((1..=count).map(initial_voter).collect());
        Self { policy, ..cluster }.start_all().await
    }

    pub async fn start_with_timing(count: i32, timing: Timing) -> Self {
        let cluster = Self::of((1..=count).map(initial_voter).collect());
        Self { timing, ..cluster }.start_all().await
    }

    /// Voters who keep little of their log: whoever falls behind gets a snapshot.
    pub async fn start_forgetful(config: Vec<InitialVoter>) -> Self {
        let cluster = Self::of(config);
        Self { segment_bytes: 700, snapshots: FORGETFUL, ..cluster }.start_all().await
    }

    /// Voters 1 to `count`, to whom others will come by themselves.
    pub async fn start_growing(count: i32) -> Self {
        let cluster = Self::of((1..=count).map(initial_voter).collect());
        Self { grows: true, ..cluster }.start_all().await
    }

    /// The same, who keep little of their log.
    pub async fn start_growing_and_forgetful(count: i32) -> Self {
        let cluster = Self::of((1..=count).map(initial_voter).collect());
        let (segment_bytes, snapshots) = (700, FORGETFUL);
        Self { grows: true, segment_bytes, snapshots, ..cluster }.start_all().await
    }

    fn of(config: Vec<InitialVoter>) -> Self {
        Self {
            network: Arc::default(),
            voters: BTreeMap::new(),
            config,
            policy: Policy::default(),
            timing: TIMING,
            segment_bytes: 1 << 30,
            snapshots: SnapshotLimits::default(),
            grows: false,
            graves: Vec::new(),
        }
    }

    async fn start_all(self) -> Self {
        let mut cluster = self;
        for voter in cluster.config.clone() {
            cluster.start_voter(voter.id.0, tempfile::tempdir().unwrap()).await;
        }
        cluster
    }

    pub async fn start_voter(&mut self, id: i32, path: TempDir) {
        self.start_voter_at(id, id, path).await;
    }

    /// At the place where another node would be.
    pub async fn start_voter_at(&mut self, at: i32, id: i32, path: TempDir) {
        let (policy, timing) = (self.policy.clone(), self.timing);
        let (segment_bytes, snapshots) = (self.segment_bytes, self.snapshots);
        let endpoints = initial_voter(at).endpoints;
        let config = config(id, self.config.clone());
        let config = Config { policy, timing, segment_bytes, snapshots, endpoints, ..config };
        let voter = start_at(at, config, path, &self.network).await.unwrap();
        self.voters.insert(at, voter);
    }

    /// At its own place, where nobody has written down that it is; it takes itself to be at another one.
    pub async fn start_voter_that_guesses(&mut self, id: i32, guess: i32, path: TempDir) {
        let config = Config {
            policy: self.policy.clone(),
            timing: self.timing,
            endpoints: initial_voter(guess).endpoints,
            place_is_guessed: true,
            ..config(id, self.config.clone())
        };
        let voter = start_at(id, config, path, &self.network).await.unwrap();
        self.voters.insert(id, voter);
    }

    /// Starts a node that has no vote, in a directory of this id.
    pub async fn start_observer(&mut self, id: i32, directory_id: Uuid, path: TempDir) {
        self.start_impostor(id, id, directory_id, path).await;
    }

    /// The same at the place where another node would be.
    pub async fn start_impostor(&mut self, at: i32, id: i32, directory_id: Uuid, path: TempDir) {
        let (policy, timing) = (self.policy.clone(), self.timing);
        let elsewhere = (1..=9).filter(|_| self.grows).map(initial_voter);
        let running = self.voters.keys().copied().map(initial_voter);
        let contacts = self.config.iter().cloned().chain(running).chain(elsewhere);
        let contacts = contacts.flat_map(|it| it.endpoints).collect();
        let (segment_bytes, snapshots) = (self.segment_bytes, self.snapshots);
        let config = Config {
            policy,
            timing,
            segment_bytes,
            snapshots,
            directory_id,
            contacts,
            wants_vote: self.grows,
            joins: true,
            endpoints: initial_voter(at).endpoints,
            ..config(id, Vec::new())
        };
        let observer = start_at(at, config, path, &self.network).await.unwrap();
        self.voters.insert(at, observer);
    }

    /// Has a node of this id and directory become a voter, or lose its vote, by whoever leads, however often that changes.
    pub async fn change(&self, ids: &[i32], change: Change) {
        within(&format!("{change:?}"), async {
            loop {
                let active = self.active_of(ids).await;
                match self.voter(active).change(change).await {
                    Ok(()) => return,
                    Err(VoterChangeError::Duplicate { .. } | VoterChangeError::NotFound { .. }) => {
                        return;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
    }

    /// Ends a voter at once; returns what it leaves on disk.
    pub fn kill(&mut self, id: i32) -> TempDir {
        self.network.nodes.lock().unwrap().remove(&id);
        let voter = self.voters.remove(&id).unwrap();
        voter.is_killed.store(true, Ordering::Relaxed);
        self.graves.push(Arc::clone(&voter.watcher));
        super::common::copy_of(voter.path.path())
    }

    pub async fn restart(&mut self, id: i32) {
        let path = self.kill(id);
        self.start_voter(id, path).await;
    }

    pub fn voter(&self, id: i32) -> &Voter {
        &self.voters[&id]
    }

    pub fn ids(&self) -> Vec<i32> {
        self.voters.keys().copied().collect()
    }

    /// Waits until one of these is the active controller.
    pub async fn active_of(&self, ids: &[i32]) -> i32 {
        let mut waits = JoinSet::new();
        for id in ids.iter().copied() {
            let mut active = self.voter(id).quorum.active();
            waits.spawn(async move {
                let has_ended = active.wait_for(Option::is_some).await.is_err();
                if has_ended {
                    std::future::pending().await
                }
                id
            });
        }
        within("an active controller", waits.join_next()).await.unwrap().unwrap()
    }

    pub async fn active(&self) -> i32 {
        self.active_of(&self.ids()).await
    }

    /// Has this decided by whoever is active among these, however often that changes. A decision may take effect twice.
    pub async fn put(&self, ids: &[i32], name: &str) {
        within(&format!("{name} to be decided"), async {
            loop {
                let active = self.active_of(ids).await;
                match self.voter(active).put(name).await {
                    Ok(()) => return,
                    Err(SubmitError::NotController) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
    }

    /// Waits until all have what the active controller has, and asserts that they have the same.
    pub async fn agree(&self) -> Image {
        self.put(&self.ids(), "the last word").await;
        let images = loop {
            let images: Vec<_> = self.voters.values().map(|it| it.quorum.image()).collect();
            let furthest = images.iter().map(|image| image.offset).max().unwrap();
            if images.iter().all(|image| image.offset == furthest) {
                break images;
            }
            for voter in self.voters.values() {
                voter.reaches(furthest).await;
            }
        };
        assert!(images.iter().all(|image| image == &images[0]), "the images differ");
        self.logs_agree_to(images[0].offset).await;
        Image::clone(&images[0])
    }

    /// Waits until all logs have the same up to this offset, which is committed.
    ///
    /// Who was sent a snapshot shows its image a moment before it gives up the log that it had, which may end in what
    /// was never committed.
    async fn logs_agree_to(&self, committed: Offset) {
        let wait = async {
            while self.difference_to(committed).is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("the logs differ up to {committed}: {:?}", self.difference_to(committed));
        }
    }

    /// The first batch that is not the same everywhere. Logs begin where each was cut last, which may be at its end. What
    /// comes after this state may be one thing here and another one there, for a while after an election.
    fn difference_to(&self, committed: Offset) -> Option<[Bytes; 2]> {
        let mut everywhere: BTreeMap<i64, Bytes> = BTreeMap::new();
        let batches = self.voters.values().flat_map(Voter::log);
        batches.filter(|(offset, _)| *offset <= committed.0).find_map(|(offset, batch)| {
            let first = everywhere.entry(offset).or_insert_with(|| batch.clone());
            (*first != batch).then(|| [first.clone(), batch])
        })
    }
}

impl Cluster {
    /// Whoever was at an offset has seen the same cluster there, also those who were killed or led in vain.
    pub fn check_published(&self) {
        let mut seen: BTreeMap<Offset, Arc<Image>> = BTreeMap::new();
        for watcher in self.graves.iter().chain(self.voters.values().map(|it| &it.watcher)) {
            for image in &*watcher.published.lock().unwrap() {
                let first = seen.entry(image.offset).or_insert_with(|| Arc::clone(image));
                assert_eq!(**first, **image, "at offset {}", image.offset);
            }
        }
    }
}

pub fn config(id: i32, voters: Vec<InitialVoter>) -> Config {
    Config {
        controller_endpoints: initial_voter(id).endpoints,
        voters,
        endpoints: initial_voter(id).endpoints,
        contacts: initial_voter(1).endpoints,
        timing: TIMING,
        // Without it nothing is configured but what a test configures.
        levels: [(feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), 0)].into(),
        ..Config::alone(BrokerId(id), "cluster", directory_id(id), Uuid([8; 16]))
    }
}

fn open(path: &Path, disk: Arc<FaultyDisk>) -> Arc<LogDirectory> {
    let clock = Arc::new(SystemClock::new());
    let options = DirectoryOptions { disk, ..DirectoryOptions::default() };
    Arc::new(LogDirectory::open(path, LogConfig::default(), options, clock).unwrap())
}

pub async fn start(
    config: Config,
    path: TempDir,
    network: &Arc<Network>,
) -> Result<Voter, StartError> {
    start_at(config.node_id.0, config, path, network).await
}

async fn start_at(
    id: i32,
    config: Config,
    path: TempDir,
    network: &Arc<Network>,
) -> Result<Voter, StartError> {
    let disk = Arc::new(FaultyDisk::default());
    let directory = open(path.path(), Arc::clone(&disk));
    let (visible, _) = watch::channel(0);
    let watcher =
        Arc::new(Watcher { published: Mutex::default(), told: Mutex::default(), visible });
    let is_killed = Arc::new(AtomicBool::new(false));
    let access =
        Access { from: id, network: Arc::clone(network), is_killed: Arc::clone(&is_killed) };
    let dependencies = Dependencies {
        directory: Arc::clone(&directory),
        clock: Arc::new(SystemClock::new()),
        publisher: Arc::clone(&watcher) as Arc<dyn Publisher>,
        transport: Arc::new(access),
        workers: Arc::new(Threads),
    };
    let quorum = Arc::new(Quorum::start(config, dependencies).await?);
    network.join(id, Arc::clone(&quorum));
    Ok(Voter { quorum, directory, watcher, path, disk, is_killed })
}
