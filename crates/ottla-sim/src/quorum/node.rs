//! A controller with its disk and clock: how it starts, and how it ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_base::{BrokerId, LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, ManualClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::{Delta, Endpoint, Image, feature};
use ottla_quorum::{
    Config, Dependencies, InitialVoter, Member, Publisher, Quorum, SnapshotLimits, Standstill,
};
use ottla_records::Batches;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Bug;
use super::network::Access;
use super::workers::SimulatedWorkers;
use super::world::Shared;
use crate::law::{Law, Violation};
use crate::planted::PlantedDisk;
use crate::{Plan, Random, SimulatedDisk};

/// A snapshot after every few changes, and a log that is short.
const FORGETFUL: SnapshotLimits = SnapshotLimits {
    bytes_between: 1_200,
    interval_ms: 0,
    retention_bytes: 5_000,
    retention_ms: -1,
};

/// How names of snapshots end.
pub(super) const SNAPSHOT: &str = ".checkpoint";

/// What all nodes of a world have in common.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) voters: Vec<InitialVoter>,
    /// How many there are, with those that begin without a vote.
    pub(super) nodes: usize,
    pub(super) is_forgetful: bool,
    /// Whether those who have none come to have a vote by themselves.
    pub(super) want_votes: bool,
    pub(super) bug: Option<Bug>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) disk: Arc<SimulatedDisk>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) directory_id: Uuid,
    lives: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Down,
    Running(Process),
    /// Its tasks are coming to their end.
    Ending(JoinHandle<()>),
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) quorum: Arc<Quorum>,
    pub(super) standstill: Arc<Standstill>,
    directory: Arc<LogDirectory>,
    is_over: Arc<AtomicBool>,
    /// Nothing more is decided here: such a process ends.
    has_stopped: Arc<AtomicBool>,
}

pub(super) fn endpoint(id: usize) -> Endpoint {
    Endpoint {
        listener: "CONTROLLER".into(),
        host: format!("node{id}").into(),
        port: 9093,
        security_protocol: 0,
    }
}

/// That of a node's first disk; later ones have numbers from 100 on.
pub(super) fn directory_id(number: usize) -> Uuid {
    Uuid([number as u8; 16])
}

pub(super) fn voter(id: usize, directory_id: Uuid) -> InitialVoter {
    InitialVoter { id: BrokerId(id as i32), directory_id, endpoints: vec![endpoint(id)] }
}

impl Node {
    pub(super) fn new(id: usize, seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let disk = SimulatedDisk::new(Random::new(seed, 100 + id as u64), Arc::clone(&clock));
        let (disk, directory_id) = (Arc::new(disk), directory_id(id));
        Self { id, disk, clock, directory_id, lives: 0, state: State::Down }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            State::Running(process) => Some(process),
            State::Down | State::Ending(_) => None,
        }
    }

    fn take_process(&mut self) -> Option<Process> {
        self.process()?;
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(process) => Some(process),
            State::Down | State::Ending(_) => None,
        }
    }

    /// Whether there is a process that cannot go on.
    pub(super) fn has_failed(&self) -> bool {
        self.process().is_some_and(|process| {
            self.disk.has_stopped() || process.has_stopped.load(Ordering::Relaxed)
        })
    }

    fn is_down(&self) -> bool {
        matches!(self.state, State::Down)
    }

    pub(super) fn member(&self) -> Member {
        Member { id: BrokerId(self.id as i32), directory_id: self.directory_id }
    }

    /// Comes back with another disk, which is empty.
    pub(super) fn replace_disk(&mut self, seed: u64, directory_id: Uuid) {
        let stream = 1_000 + self.lives * 10 + self.id as u64;
        let disk = SimulatedDisk::new(Random::new(seed, stream), Arc::clone(&self.clock));
        self.disk = Arc::new(disk);
        self.directory_id = directory_id;
    }

    fn config(&self, setup: &Setup) -> Config {
        let begins = setup.voters.iter().any(|it| it.directory_id == self.directory_id);
        let (node_id, incarnation_id) = (BrokerId(self.id as i32), Uuid([8; 16]));
        let alone = Config::alone(node_id, "cluster", self.directory_id, incarnation_id);
        Config {
            controller_endpoints: vec![endpoint(self.id)],
            voters: if begins { setup.voters.clone() } else { Vec::new() },
            joins: !begins,
            wants_vote: setup.want_votes,
            endpoints: vec![endpoint(self.id)],
            // A node that comes back with an empty disk is told where the others are.
            contacts: (1..=setup.nodes).map(endpoint).collect(),
            levels: [(feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), 0)].into(),
            segment_bytes: if setup.is_forgetful { 800 } else { alone.segment_bytes },
            snapshots: if setup.is_forgetful { FORGETFUL } else { alone.snapshots },
            ..alone
        }
    }

    fn open(&self, setup: &Setup, shared: &Shared) -> Option<Arc<LogDirectory>> {
        let disk: Arc<dyn Disk> = match setup.bug {
            Some(Bug::Disk(bug)) => Arc::new(PlantedDisk::new(bug, Arc::clone(&self.disk))),
            Some(Bug::WipedDiskCounted | Bug::AnswersRemembered) | None => {
                Arc::clone(&self.disk) as _
            }
        };
        let options = DirectoryOptions {
            disk,
            threads: false,
            recovery_threads: 1,
            ..DirectoryOptions::default()
        };
        let log_config = LogConfig { file_delete_delay_ms: 0, ..LogConfig::default() };
        let clock = Arc::clone(&self.clock) as _;
        match LogDirectory::open(self.disk.root(), log_config, options, clock) {
            Ok(directory) => Some(Arc::new(directory)),
            Err(error) => {
                let what = format!("the directory of node {} does not open: {error}", self.id);
                self.check_reason(what, shared);
                None
            }
        }
    }

    /// Starts a process, if the last one is over; one that the disk does not let start is over again.
    pub(super) async fn start(&mut self, setup: &Setup, seed: u64, shared: &Arc<Shared>) {
        if let State::Ending(ending) = &mut self.state {
            ending.await.unwrap();
            self.state = State::Down;
        }
        if !self.is_down() {
            return;
        }
        self.lives += 1;
        let (id, life) = (self.id, self.lives);
        shared.note(|| format!("node {id} starts life {life}"));
        self.count_remains(shared);
        self.check_vote(shared);
        let Some(directory) = self.open(setup, shared) else { return self.fail_to_start(shared) };
        let is_over = Arc::<AtomicBool>::default();
        let random = |which: u64| Random::new(seed, 10_000 * which + life * 10 + id as u64);
        let workers = SimulatedWorkers::new(id, [random(1), random(2)], shared, &is_over);
        let dependencies = Dependencies {
            directory: Arc::clone(&directory),
            clock: Arc::clone(&self.clock) as _,
            publisher: Arc::new(Witness::new(id, shared)),
            transport: Arc::new(Access { node: id, life, shared: Arc::clone(shared) }),
            workers: Arc::new(workers),
        };
        let standstill = Arc::<Standstill>::default();
        let starting = Quorum::start(self.config(setup), dependencies);
        match Arc::clone(&standstill).cover(starting).await {
            Ok(quorum) => {
                let quorum = Arc::new(quorum);
                let there = (Arc::clone(&quorum), Arc::clone(&standstill));
                shared.network.lock().join(id, life, there);
                tokio::spawn(watch_leadership(id, Arc::clone(&quorum), Arc::clone(shared)));
                let has_stopped = Arc::<AtomicBool>::default();
                tokio::spawn(watch_end(Arc::clone(&quorum), Arc::clone(&has_stopped)));
                let process = Process { quorum, standstill, directory, is_over, has_stopped };
                self.state = State::Running(process);
            }
            Err(error) => {
                self.check_reason(format!("node {id} does not start: {error}"), shared);
                self.fail_to_start(shared);
            }
        }
    }

    /// Whatever a process has left, the next one starts from it, unless the disk fails.
    fn check_reason(&self, what: String, shared: &Shared) {
        let has_reason = self.disk.has_stopped() || self.disk.faults() > 0;
        let violation = Violation::of(Law::Starts, what);
        shared.history.lock().hold(if has_reason { Ok(()) } else { Err(violation) });
    }

    fn fail_to_start(&mut self, shared: &Shared) {
        shared.count("start failed");
        self.disk.stop();
        self.disk.lose_power();
    }

    /// The process ends here and now. What was not synced is lost with the power.
    pub(super) fn crash(&mut self, loses_power: bool, shared: &Arc<Shared>) {
        let Some(process) = self.take_process() else { return };
        shared.count(if loses_power { "power lost" } else { "process killed" });
        let id = self.id;
        shared.note(|| format!("node {id} ends, power lost: {loses_power}"));
        shared.network.lock().leave(id);
        // What its tasks still do changes nothing on the disk.
        self.disk.stop();
        process.standstill.end();
        let disk = Arc::clone(&self.disk);
        self.state = State::Ending(tokio::spawn(async move {
            process.quorum.shutdown().await;
            release(process).await;
            if loses_power {
                disk.lose_power();
            } else {
                disk.restart();
            }
        }));
    }

    /// As somebody does who has time.
    pub(super) fn end_cleanly(&mut self, shared: &Arc<Shared>) {
        if self.process().is_some_and(|process| process.standstill.is_on()) {
            return;
        }
        let Some(process) = self.take_process() else { return };
        let (id, shared, disk) = (self.id, Arc::clone(shared), Arc::clone(&self.disk));
        shared.note(|| format!("node {id} is asked to end"));
        self.state = State::Ending(tokio::spawn(async move {
            process.quorum.shutdown().await;
            shared.network.lock().leave(id);
            let closed = process.directory.close(-1);
            release(process).await;
            if closed.is_ok() {
                shared.count("clean end");
                disk.restart();
            } else {
                shared.count("clean end that the disk did not allow");
                disk.lose_power();
            }
        }));
    }

    /// The record batches that the metadata log here still has, by their offsets.
    pub(super) fn log(&self) -> BTreeMap<i64, Vec<u8>> {
        let Some(process) = self.process() else { return BTreeMap::new() };
        let log = process.directory.log(&metadata_log()).unwrap();
        let is_segment = |path: &std::path::Path| {
            path.starts_with("__cluster_metadata-0")
                && path.extension().is_some_and(|extension| extension == "log")
        };
        let segments = self.disk.files().into_iter().filter(|(path, _)| is_segment(path));
        let batches = segments.flat_map(|(_, bytes)| Batches::new(bytes.into()));
        let batches = batches.map(|batch| batch.unwrap());
        let there = batches.filter(|it| it.header().base_offset >= log.log_start_offset().0);
        there.map(|batch| (batch.header().base_offset, batch.bytes().to_vec())).collect()
    }

    fn check_vote(&self, shared: &Shared) {
        let mut history = shared.history.lock();
        let checked = history.start_from(self.id, self.epoch_of_vote());
        history.hold(checked);
    }

    /// As `quorum-state` says; zero where there is none.
    fn epoch_of_vote(&self) -> LeaderEpoch {
        let files = self.disk.files();
        let state = files.iter().find(|(path, _)| path.ends_with("quorum-state"));
        let text = state.map(|(_, bytes)| String::from_utf8_lossy(bytes));
        let epoch = text.as_deref().and_then(|text| text.split_once("\"leaderEpoch\":"));
        epoch.map_or(LeaderEpoch(0), |(_, rest)| {
            let digits = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap_or_default();
            LeaderEpoch(digits.parse().unwrap())
        })
    }

    /// Counts a log that a snapshot of the leader should have taken the place of: the process before has ended between the two.
    fn count_remains(&self, shared: &Shared) {
        let (mut snapshot, mut last) = (None, None);
        for (path, bytes) in self.disk.files() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let id = name.strip_suffix(SNAPSHOT).and_then(|name| name.split_once('-'));
            if let Some((end, _epoch)) = id {
                snapshot = snapshot.max(end.parse::<i64>().ok());
            } else if name.ends_with(".log") {
                // After a crash, what follows may be torn.
                let whole = Batches::new(bytes.into()).map_while(Result::ok);
                last = last.max(whole.map(|batch| batch.header().last_offset()).max());
            }
        }
        if snapshot.zip(last).is_some_and(|(end, last)| last + 1 < end) {
            shared.count("log that ends before its snapshot");
        }
    }

    /// Nothing goes wrong with the disk any more.
    pub(super) fn calm(&self) {
        self.disk.set_plan(Plan::default());
    }
}

fn metadata_log() -> TopicPartition {
    TopicPartition::new("__cluster_metadata", 0)
}

/// Nobody of the process is there any more: two of them on one disk would be no crash.
async fn release(process: Process) {
    let Process { quorum, directory, is_over, .. } = process;
    let log = directory.log(&metadata_log()).map(|log| Arc::downgrade(&log));
    until("its quorum", || Arc::strong_count(&quorum) == 1).await;
    drop(quorum);
    until("its directory", || Arc::strong_count(&directory) == 1).await;
    drop(directory);
    until("its log", || log.as_ref().map_or(0, Weak::strong_count) == 0).await;
    is_over.store(true, Ordering::Relaxed);
}

async fn until(what: &str, is_free: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_free() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a process has ended, and somebody still has {what}");
}

async fn watch_end(quorum: Arc<Quorum>, has_stopped: Arc<AtomicBool>) {
    quorum.stopped().await;
    has_stopped.store(true, Ordering::Relaxed);
}

async fn watch_leadership(id: usize, quorum: Arc<Quorum>, shared: Arc<Shared>) {
    let mut active = quorum.active();
    drop(quorum);
    loop {
        let epoch = *active.borrow_and_update();
        if let Some(epoch) = epoch {
            shared.note(|| format!("node {id} is active in {epoch}"));
            let mut history = shared.history.lock();
            history.counts.add("controller elected");
            let checked = history.lead(id, epoch);
            history.hold(checked);
        }
        if active.changed().await.is_err() {
            return;
        }
    }
}

/// Tells what a node publishes, in one of its lives.
#[derive(Debug)]
struct Witness {
    node: usize,
    shared: Arc<Shared>,
    last: Mutex<Offset>,
}

impl Witness {
    fn new(node: usize, shared: &Arc<Shared>) -> Self {
        Self { node, shared: Arc::clone(shared), last: Mutex::new(Offset(-1)) }
    }
}

impl Publisher for Witness {
    fn publish(&self, image: &Arc<Image>, _delta: &Delta) {
        let before = std::mem::replace(&mut *self.last.lock(), image.offset);
        let node = self.node;
        self.shared.note(|| format!("node {node} publishes {}", image.offset));
        let mut history = self.shared.history.lock();
        let checked = history.publish(node, before, image);
        history.hold(checked);
    }
}
