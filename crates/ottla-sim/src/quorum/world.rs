//! The nodes, what is asked of them, and the end, at which everything is healed and all must agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::Clock as _;
use ottla_metadata::{Image, Outcome};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::{SubmitError, VoterChangeError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Bug;
use super::history::{History, decisions, name_of};
use super::network::{Network, There, there};
use super::node::{Node, Setup, directory_id, voter};
use crate::law::{Checked, Law, Violation, law};
use crate::links::Weather;
use crate::{Counts, Random};

/// How long a world lives before it is healed.
const LIFE: Duration = Duration::from_secs(25);
/// How long it may take then until all agree. An observer that has heard nothing asks again after seconds.
const REST: Duration = Duration::from_secs(60);
/// How long somebody waits who has asked for something.
const PATIENCE: Duration = Duration::from_secs(5);

/// What nodes, network and those who ask have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) history: Mutex<History>,
    pub(super) network: Mutex<Network>,
    /// The longest time that a call of each node's disk takes.
    disk_takes: Mutex<Vec<Duration>>,
    /// For whom a vote is asked just now, as often as it is.
    candidates: Mutex<Vec<usize>>,
    began: Instant,
}

impl Shared {
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let at = self.began.elapsed();
        self.history.lock().note(|| format!("{:>7.3} {}", at.as_secs_f64(), line()));
    }

    pub(super) fn count(&self, what: &str) {
        self.history.lock().counts.add(what);
    }

    pub(super) fn disk_takes(&self, node: usize) -> Duration {
        self.disk_takes.lock()[node]
    }

    pub(super) fn set_disk(&self, node: usize, takes: Duration) {
        self.disk_takes.lock()[node] = takes;
    }

    /// Whether somebody is asked just now to give this node a vote.
    pub(super) fn may_come_to_vote(&self, node: usize) -> bool {
        self.candidates.lock().contains(&node)
    }

    fn end_candidacy(&self, node: usize) {
        let mut candidates = self.candidates.lock();
        if let Some(at) = candidates.iter().position(|it| *it == node) {
            candidates.swap_remove(at);
        }
    }

    /// Whether somebody else takes itself for the active controller.
    pub(super) fn is_active_elsewhere(&self, node: usize) -> bool {
        let is_active = |there: &There| there.quorum.active().borrow().is_some();
        self.network.lock().others(node).any(is_active)
    }

    /// Waits while a node is held up.
    pub(super) async fn held_up(&self, node: usize) {
        loop {
            let until = self.network.lock().held_up(node);
            let Some(until) = until else { return };
            tokio::time::sleep_until(until).await;
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    /// By their ids, which begin with 1.
    pub(super) nodes: BTreeMap<usize, Node>,
    pub(super) shared: Arc<Shared>,
    /// Draws what goes wrong.
    pub(super) chance: Random,
    /// Draws what is asked for.
    work: Random,
    asked: u64,
    /// How many disks there have been, beside the first ones.
    pub(super) disks: usize,
    /// Whether nodes without a vote are there, and voters change.
    pub(super) changes_voters: bool,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut chance = Random::new(seed, 1);
        let first = [1, 3, 3, 3, 5][chance.below(5)];
        let changes_voters = first < 5 && chance.happens(7_000);
        let all = if changes_voters { 5 } else { first };
        let setup = Setup {
            voters: (1..=first).map(|id| voter(id, directory_id(id))).collect(),
            nodes: all,
            is_forgetful: chance.happens(5_000),
            want_votes: changes_voters && chance.happens(5_000),
            bug,
        };
        let shared = Shared {
            history: Mutex::new(History::new(traced)),
            network: Mutex::new(Network::new(seed, all + 1, bug)),
            disk_takes: Mutex::new(vec![Duration::from_millis(2); all + 1]),
            candidates: Mutex::default(),
            began: Instant::now(),
        };
        Self {
            seed,
            setup,
            nodes: (1..=all).map(|id| (id, Node::new(id, seed))).collect(),
            shared: Arc::new(shared),
            chance,
            work: Random::new(seed, 3),
            asked: 0,
            disks: 0,
            changes_voters,
        }
    }

    /// What it has shown.
    pub(super) fn end(&self) -> (Counts, Vec<String>) {
        self.shared.network.lock().end();
        let mut history = self.shared.history.lock();
        let mut counts = history.counts.clone();
        self.nodes.values().for_each(|node| counts.merge(&node.disk.counts()));
        let mut trace = history.trace.take().unwrap_or_default();
        // What happens in the same millisecond happens at once.
        trace.sort_by(|one, other| one.get(..7).cmp(&other.get(..7)).then_with(|| one.cmp(other)));
        (counts, trace)
    }

    pub(super) async fn play(&mut self) -> Checked {
        for id in self.ids() {
            self.start(id).await;
        }
        let end = Instant::now() + LIFE;
        while Instant::now() < end {
            self.pass_time().await;
            self.go_wrong().await;
            for _ in 0..self.work.below(4) {
                self.ask();
            }
            self.shared.history.lock().check()?;
        }
        self.heal();
        self.rest().await
    }

    pub(super) fn ids(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    pub(super) async fn start(&mut self, id: usize) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.start(&self.setup, self.seed, &self.shared).await;
        }
    }

    async fn pass_time(&mut self) {
        let longest = if self.chance.happens(8_000) { 120 } else { 1_500 };
        let pause = Duration::from_millis(1 + self.chance.below(longest) as u64);
        self.pass(pause).await;
    }

    pub(super) async fn pass(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
        self.nodes.values().for_each(|node| node.clock.advance(pause));
    }

    /// Whoever takes itself for the active controller; the first one, if there are two.
    pub(super) fn active(&self) -> Option<usize> {
        let is_active = |id: &usize| {
            let there = there(&self.shared.network, *id);
            there.is_some_and(|there| there.quorum.active().borrow().is_some())
        };
        self.ids().into_iter().find(is_active)
    }

    /// Asks some node for a decision; most know nothing of who leads.
    fn ask(&mut self) {
        let ids = self.ids();
        let Some(id) = self.work.pick(&ids).copied() else { return };
        let changes = self.work.happens(7_000);
        self.ask_of(id, changes);
    }

    pub(super) fn ask_of(&mut self, id: usize, changes: bool) {
        self.asked += 1;
        let number = self.asked;
        let Some(there) = there(&self.shared.network, id) else { return };
        tokio::spawn(decide(number, changes, id, there, Arc::clone(&self.shared)));
    }

    /// Has whoever leads give a node a vote, or take it away.
    pub(super) fn change_voters(&mut self, id: usize) {
        let Some(member) = self.nodes.get(&id).map(Node::member) else { return };
        for leader in self.ids() {
            let Some(there) = there(&self.shared.network, leader) else { continue };
            let quorum = Arc::clone(&there.quorum);
            if quorum.active().borrow().is_none() {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            shared.candidates.lock().push(id);
            let change = async move {
                let before = quorum.voters().iter().find(|it| it.id == member.id).copied();
                let (what, changed) = match before {
                    Some(voter) => ("voter removed", quorum.remove_voter(voter, PATIENCE).await),
                    None => {
                        let newcomer = voter(id, member.directory_id);
                        ("voter added", quorum.add_voter(newcomer, PATIENCE).await)
                    }
                };
                let what = match changed {
                    Ok(()) => what,
                    Err(VoterChangeError::Behind(_)) => "voter not added: behind",
                    Err(VoterChangeError::Needed(_)) => "voter not removed: needed",
                    Err(VoterChangeError::TimedOut) => "voter change timed out",
                    Err(_) => "voter change refused",
                };
                shared.end_candidacy(id);
                shared.note(|| format!("node {id}: {what}"));
                shared.count(what);
            };
            tokio::spawn(there.cover(change));
            return;
        }
    }

    /// Everything works again.
    fn heal(&mut self) {
        self.shared.note(|| "everything is healed".to_owned());
        {
            let mut network = self.shared.network.lock();
            network.links.heal();
            network.weather = Weather::default();
        }
        for id in self.ids() {
            self.shared.set_disk(id, Duration::from_millis(2));
            self.nodes[&id].calm();
        }
    }

    /// A process without a quorum ends, and is started again, as all others that are not there.
    async fn start_all(&mut self) {
        for id in self.ids() {
            if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.has_failed()) {
                node.crash(true, &self.shared);
            }
            self.start(id).await;
        }
    }

    /// All come to agree, and have everything that was answered.
    async fn rest(&mut self) -> Checked {
        let begun = Instant::now();
        let image = loop {
            self.start_all().await;
            let last = self.last_word().await;
            self.shared.history.lock().check()?;
            let images: Vec<_> = self.images();
            if let Some(image) = images.first()
                && last
                && images.len() == self.nodes.len()
                && images.iter().all(|it| it.offset == image.offset)
            {
                break Arc::clone(image);
            }
            law!(AtRest, begun.elapsed() < REST, "at rest: {}", self.describe());
        };
        self.count_rest();
        self.shared.history.lock().check_end(&image)?;
        self.check_logs()
    }

    /// One more decision, from whoever is active; returns whether it was answered, after a while.
    async fn last_word(&mut self) -> bool {
        self.pass_time().await;
        let before = self.shared.history.lock().answered().len();
        for id in self.ids() {
            self.asked += 1;
            if let Some(there) = there(&self.shared.network, id) {
                decide(self.asked, true, id, there, Arc::clone(&self.shared)).await;
            }
        }
        let is_answered = self.shared.history.lock().answered().len() > before;
        tokio::time::sleep(Duration::from_secs(1)).await;
        is_answered
    }

    fn images(&self) -> Vec<Arc<Image>> {
        self.nodes.values().filter_map(|node| Some(node.process()?.quorum.image())).collect()
    }

    fn describe(&self) -> String {
        let node = |node: &Node| match node.process() {
            Some(process) => format!(
                "node {} is at {} and active in {:?}, voters {:?}",
                node.id,
                process.quorum.image().offset,
                process.quorum.metrics().active_epoch,
                process.quorum.voters().iter().map(|voter| voter.id.0).collect::<Vec<_>>()
            ),
            None => format!("node {} is down", node.id),
        };
        self.nodes.values().map(node).collect::<Vec<_>>().join("; ")
    }

    fn count_rest(&self) {
        self.shared.count("came to rest");
        for node in self.nodes.values() {
            let voters = node.process().map_or(0, |process| process.quorum.voters().len());
            let begins = node.log().keys().next().copied();
            let is_snapshot = |path: &std::path::Path| {
                path.extension().is_some_and(|extension| extension == "checkpoint")
                    && path.starts_with("__cluster_metadata-0")
            };
            if voters > self.setup.voters.len() && self.setup.want_votes {
                self.shared.count("more voters than at first");
            }
            if node.disk.files().iter().any(|(path, _)| is_snapshot(path)) {
                self.shared.count("snapshot kept");
            }
            if begins.is_some_and(|offset| offset > 0) {
                self.shared.count("log begins after a snapshot");
            }
        }
    }

    /// They begin where each was cut last, and are the same from there on.
    fn check_logs(&self) -> Checked {
        let mut everywhere: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
        for node in self.nodes.values() {
            for (offset, batch) in node.log() {
                let first = everywhere.entry(offset).or_insert_with(|| batch.clone());
                law!(
                    EqualLogs,
                    *first == batch,
                    "the logs differ at offset {offset}, on node {}",
                    node.id
                );
            }
        }
        let is_empty = everywhere.is_empty() && !self.setup.is_forgetful;
        law!(EqualLogs, !is_empty, "the logs are empty");
        Ok(())
    }

    /// The wall clock of a node jumps.
    pub(super) fn jump_clock(&mut self, id: usize) {
        let jump = self.chance.below(20_000) as i64 - 10_000;
        let Some(node) = self.nodes.get(&id) else { return };
        let now = node.clock.now_ms();
        node.clock.set(ottla_base::Timestamp(now.0 + jump));
        self.shared.count("clock jumped");
    }
}

/// Has a decision made, by a node that may not be the one that decides; one that changes nothing only looks.
async fn decide(number: u64, changes: bool, id: usize, there: There, shared: Arc<Shared>) {
    let before = shared.history.lock().answered();
    let record = ConfigRecord {
        resource_type: 32,
        resource_name: name_of(number).into(),
        name: "consumer.session.timeout.ms".into(),
        value: Some("45000".into()),
    };
    let decision = there.quorum.decide(move |desk| {
        let records = if changes { vec![record.into()] } else { Vec::new() };
        Outcome { records, reply: decisions(desk.image) }
    });
    let decided = tokio::time::timeout(PATIENCE, there.cover(decision)).await;
    drop(there);
    shared.held_up(id).await;
    shared.note(|| format!("decision {number} of node {id}: {decided:?}"));
    match decided {
        Ok(Ok(seen)) => {
            let mut history = shared.history.lock();
            let what = if changes { "decision answered" } else { "look answered" };
            history.counts.add(what);
            let checked = history.answer(number, &before, seen, changes);
            history.hold(checked);
        }
        Ok(Err(SubmitError::NotController)) => shared.count("decision refused: NOT_CONTROLLER"),
        Ok(Err(SubmitError::Stopped)) => shared.count("decision refused: stopped"),
        Ok(Err(SubmitError::Unwritable)) => {
            shared.history.lock().hold(Err(Violation::of(Law::Reason, "an unwritable record")));
        }
        Err(_) => shared.count("decision unanswered"),
    }
}
