//! Voters are cut off, killed and restarted at random moments, while decisions are made: what was answered stays, and
//! nobody ever sees anything else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeSet;

use cluster::{Cluster, initial_voter, notes};
use ottla_base::BrokerId;
use ottla_quorum::SubmitError;

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
    let there = notes(&cluster.agree().await);
    let lost: Vec<_> = answered.difference(&there).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    assert!(answered.len() > steps / 4, "seed {seed}: only {} were answered", answered.len());
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
