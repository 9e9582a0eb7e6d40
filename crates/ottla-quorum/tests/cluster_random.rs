//! Voters are cut off, killed, restarted, added and removed at random moments, while decisions are made: what was answered
//! stays, nobody ever sees anything else, and an epoch has one leader.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Change, Cluster, directory_id, initial_voter, notes, voter_sets, within};
use ottla_base::{BrokerId, LeaderEpoch, Uuid};
use ottla_quorum::{SubmitError, VoterChangeError};
use tempfile::TempDir;

/// Numbers that look random, from a seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of(&mut self, ids: &[i32]) -> i32 {
        ids[self.below(ids.len())]
    }
}

/// One thing that happens to the cluster.
async fn disturb(cluster: &mut Cluster, numbers: &mut Numbers) {
    let ids = cluster.ids();
    let id = numbers.one_of(&ids);
    let rest: Vec<i32> = ids.iter().copied().filter(|other| *other != id).collect();
    match numbers.below(8) {
        0 => cluster.network.part(&[id], &rest),
        1 => cluster.network.cut_one_way(id, numbers.one_of(&rest)),
        2 | 3 => cluster.network.heal(),
        4 | 5 => cluster.restart(id).await,
        6 => cluster.voter(id).quorum.peer_lost(BrokerId(numbers.one_of(&rest))).await,
        _ => {
            cluster.network.heal();
            cluster.active().await;
        }
    }
}

/// Everybody is asked to decide; returns whether one did.
async fn put_somewhere(cluster: &Cluster, name: &str) -> bool {
    for voter in cluster.voters.values() {
        match voter.put(name).await {
            Ok(()) => return true,
            Err(SubmitError::NotController) => {}
            Err(error) => panic!("{error}"),
        }
    }
    false
}

/// All come to agree, and have what was answered, which was something.
async fn check_answered(cluster: &Cluster, answered: &BTreeSet<String>, seed: u64, steps: usize) {
    let there = notes(&cluster.agree().await);
    let lost: Vec<_> = answered.difference(&there).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    assert!(answered.len() > steps / 4, "seed {seed}: only {} were answered", answered.len());
}

async fn run(cluster: Cluster, seed: u64, steps: usize) {
    let mut numbers = Numbers(seed);
    let mut cluster = cluster;
    let mut answered = BTreeSet::from(["the last word".to_owned()]);
    cluster.active().await;
    for step in 0..steps {
        disturb(&mut cluster, &mut numbers).await;
        for number in 0..numbers.below(4) {
            let name = format!("{step}-{number}");
            if put_somewhere(&cluster, &name).await {
                answered.insert(name);
            }
        }
    }
    cluster.network.heal();
    check_answered(&cluster, &answered, seed, steps).await;
    cluster.check_published();
}

#[tokio::test]
async fn three_voters_lose_nothing_that_was_answered_whatever_happens() {
    for seed in [1, 2, 3] {
        run(Cluster::start(3).await, seed, 30).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_voters_on_several_threads_lose_nothing_that_was_answered_whatever_happens() {
    run(Cluster::start(5).await, 4, 40).await;
}

#[tokio::test]
async fn voters_who_keep_little_of_their_log_lose_nothing_that_was_answered_whatever_happens() {
    for seed in [5, 6, 7, 8] {
        let voters = (1..=3).map(initial_voter).collect();
        run(Cluster::start_forgetful(voters).await, seed, 60).await;
    }
}

/// The voters that a cluster begins with, and all nodes that may be voters some time.
const FIRST: i32 = 3;
const ALL: i32 = 5;

/// A cluster whose voters change.
struct Changing {
    cluster: Cluster,
    numbers: Numbers,
    /// What the nodes that do not run now have on disk.
    down: BTreeMap<i32, TempDir>,
    /// The directory that each node has now.
    directories: BTreeMap<i32, Uuid>,
    leaders: BTreeMap<LeaderEpoch, i32>,
    changes: usize,
    disks: u8,
    /// Those who began the cluster, as long as they have the disk that they began with.
    first: i32,
}

impl Changing {
    async fn start(cluster: Cluster, seed: u64) -> Self {
        let first = i32::try_from(cluster.voters.len()).unwrap();
        let mut it = Self {
            first,
            cluster,
            numbers: Numbers(seed),
            down: BTreeMap::new(),
            directories: (1..=ALL).map(|id| (id, directory_id(id))).collect(),
            leaders: BTreeMap::new(),
            changes: 0,
            disks: 100,
        };
        for id in first + 1..=ALL {
            it.start_node(id, tempfile::tempdir().unwrap()).await;
        }
        it.cluster.active().await;
        it
    }

    /// Whoever has not begun the cluster waits for its log.
    async fn start_node(&mut self, id: i32, path: TempDir) {
        if id <= self.first && self.directories[&id] == directory_id(id) {
            self.cluster.start_voter(id, path).await;
        } else {
            self.cluster.start_observer(id, self.directories[&id], path).await;
        }
    }

    async fn start_one(&mut self) {
        if let Some((id, path)) = self.down.pop_first() {
            self.start_node(id, path).await;
        }
    }

    /// A node that no log names a voter comes back on a new disk.
    async fn lose_disk(&mut self, id: i32) {
        let names = |it: &cluster::Voter| it.voters().iter().any(|(voter, _)| *voter == id);
        if !self.down.is_empty() || self.cluster.voters.values().any(names) {
            return;
        }
        self.cluster.kill(id);
        self.disks += 1;
        self.directories.insert(id, Uuid([self.disks; 16]));
        self.start_node(id, tempfile::tempdir().unwrap()).await;
    }

    /// A node comes back on a new disk, once all vote and have what any of them had. Earlier it might be the only one that
    /// votes, or be asked for the vote without which there is no majority: nobody decides anything after that.
    async fn lose_a_voters_disk(&mut self, id: i32) {
        self.recover().await;
        self.all_vote().await;
        self.cluster.agree().await;
        let path = self.cluster.kill(id);
        drop(path);
        self.disks += 1;
        self.changes += 1;
        self.directories.insert(id, Uuid([self.disks; 16]));
        self.start_node(id, tempfile::tempdir().unwrap()).await;
        self.all_vote().await;
    }

    /// Waits until every node votes, on the disk that it has.
    async fn all_vote(&self) {
        let all: Vec<(i32, Uuid)> = self.directories.iter().map(|(id, it)| (*id, *it)).collect();
        within("all nodes to be voters", async {
            while self.cluster.voters.values().any(|node| node.voters() != all) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Nobody asks for a change, and the voters grow to all that there are.
    async fn run_growing(mut self, seed: u64, steps: usize) {
        let mut answered = BTreeSet::from(["the last word".to_owned()]);
        for step in 0..steps {
            let id = self.numbers.one_of(&(1..=ALL).collect::<Vec<_>>());
            match self.numbers.below(8) {
                0 | 1 if self.down.len() < 2 && !self.down.contains_key(&id) => {
                    let path = self.cluster.kill(id);
                    self.down.insert(id, path);
                }
                0..=2 => self.start_one().await,
                3 if step > steps / 3 => self.lose_a_voters_disk(id).await,
                4 | 5 => {
                    let rest: Vec<i32> = (1..=ALL).filter(|other| *other != id).collect();
                    match self.numbers.below(2) {
                        0 => self.cluster.network.part(&[id], &rest),
                        _ => self.cluster.network.cut_one_way(id, self.numbers.one_of(&rest)),
                    }
                }
                _ => self.recover().await,
            }
            self.note_leaders();
            self.decide(step, &mut answered).await;
        }
        self.recover().await;
        self.all_vote().await;
        check_answered(&self.cluster, &answered, seed, steps).await;
        self.cluster.check_published();
        for node in self.cluster.voters.values() {
            check_sets(&voter_sets(node), seed);
        }
    }

    /// Asks whoever leads to give a node a vote, or to take it away.
    async fn change_voters(&mut self, id: i32) {
        for node in self.cluster.voters.values() {
            let voters = node.voters();
            let voter = voters.iter().find(|(voter, _)| *voter == id);
            let change = match voter {
                Some((_, directory)) => Change::Remove(id, *directory),
                None => Change::Add(id, self.directories[&id]),
            };
            let changed = tokio::time::timeout(Duration::from_millis(700), node.change(change));
            match changed.await {
                Ok(Ok(())) => {
                    self.changes += 1;
                    return;
                }
                Ok(Err(VoterChangeError::Stopped(why))) => panic!("{why}"),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn disturb(&mut self) {
        let id = self.numbers.one_of(&(1..=ALL).collect::<Vec<_>>());
        match self.numbers.below(8) {
            0 if self.down.len() < 2 && !self.down.contains_key(&id) => {
                let path = self.cluster.kill(id);
                self.down.insert(id, path);
            }
            1 => self.start_one().await,
            2 | 3 => {
                self.recover().await;
                self.change_voters(id).await;
            }
            4 => self.change_voters(id).await,
            5 => self.lose_disk(id).await,
            6 => {
                let rest: Vec<i32> = (1..=ALL).filter(|other| *other != id).collect();
                match self.numbers.below(3) {
                    0 => self.cluster.network.part(&[id], &rest),
                    1 => self.cluster.network.cut_one_way(id, self.numbers.one_of(&rest)),
                    _ => self.cluster.network.heal(),
                }
            }
            _ => self.recover().await,
        }
    }

    /// All run, reach each other, and have a leader.
    async fn recover(&mut self) {
        self.cluster.network.heal();
        while !self.down.is_empty() {
            self.start_one().await;
        }
        self.cluster.active().await;
    }

    /// Asks for up to three decisions, and notes which were answered.
    async fn decide(&mut self, step: usize, answered: &mut BTreeSet<String>) {
        for number in 0..self.numbers.below(4) {
            let name = format!("{step}-{number}");
            if put_somewhere(&self.cluster, &name).await {
                answered.insert(name);
            }
            self.note_leaders();
        }
    }

    /// Whoever is active leads its epoch alone.
    fn note_leaders(&mut self) {
        for (id, node) in &self.cluster.voters {
            if let Some(epoch) = *node.quorum.active().borrow() {
                let leader = *self.leaders.entry(epoch).or_insert(*id);
                assert_eq!(leader, *id, "epoch {epoch} has two leaders");
            }
        }
    }

    /// Returns how often the voters have changed.
    async fn run(mut self, seed: u64, steps: usize) -> usize {
        let mut answered = BTreeSet::from(["the last word".to_owned()]);
        for step in 0..steps {
            self.disturb().await;
            self.note_leaders();
            self.decide(step, &mut answered).await;
        }
        self.recover().await;
        check_answered(&self.cluster, &answered, seed, steps).await;
        self.cluster.check_published();
        self.agree_on_voters().await;
        self.changes
    }

    async fn agree_on_voters(&self) {
        let views = || self.cluster.voters.values().map(cluster::Voter::voters);
        within("all to know the same voters", async {
            while views().collect::<BTreeSet<_>>().len() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Enough of all worlds together, and some in each: a change that a busy machine has no time for is given up.
fn check_changed(changes: &[usize]) {
    assert!(changes.iter().all(|it| *it > 0), "{changes:?} changes");
    assert!(changes.iter().sum::<usize>() > 3 * changes.len(), "only {changes:?} changes");
}

#[tokio::test]
async fn voters_that_come_and_go_lose_nothing_that_was_answered_whatever_happens() {
    let mut changes = Vec::new();
    for seed in [11, 12, 13] {
        let world = Changing::start(Cluster::start(FIRST).await, seed).await;
        changes.push(world.run(seed, 60).await);
    }
    check_changed(&changes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_that_come_and_go_and_keep_little_of_their_log_lose_nothing_that_was_answered() {
    let mut changes = Vec::new();
    for seed in [14, 15] {
        let voters = (1..=FIRST).map(initial_voter).collect();
        let world = Changing::start(Cluster::start_forgetful(voters).await, seed).await;
        changes.push(world.run(seed, 60).await);
    }
    check_changed(&changes);
}

/// What comes by itself comes in pairs, or makes an even number odd; only a lost vote leaves an even number behind.
fn check_sets(all: &[Vec<Vec<i32>>], seed: u64) {
    for pair in all.windows(2) {
        let sizes = |sets: &[Vec<i32>]| sets.iter().map(Vec::len).collect::<Vec<_>>();
        let (before, after) = (sizes(&pair[0]), sizes(&pair[1]));
        let is_fine = match (&*before, &*after) {
            ([one], [other]) => {
                one % 2 == 1 && other + 1 == *one || one % 2 == 0 && one + 1 == *other
            }
            ([one], [same, other]) => one == same && one % 2 == 1 && one + 2 == *other,
            ([_, one], [other]) => one == other,
            _ => false,
        };
        assert!(is_fine, "seed {seed}: {pair:?} of {all:?}");
    }
}

#[tokio::test]
async fn voters_that_come_by_themselves_lose_nothing_that_was_answered_whatever_happens() {
    for seed in [21, 22, 23] {
        let cluster = Cluster::start_growing(1).await;
        Changing::start(cluster, seed).await.run_growing(seed, 50).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_that_come_by_themselves_and_keep_little_of_their_log_lose_nothing() {
    for seed in [24, 25] {
        let cluster = Cluster::start_growing_and_forgetful(1).await;
        Changing::start(cluster, seed).await.run_growing(seed, 50).await;
    }
}
