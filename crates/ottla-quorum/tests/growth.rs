//! Voters that come by themselves: in pairs, or to make an even number odd, whoever is killed meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::Duration;

use cluster::{
    Change, Cluster, Voter, directory_id, is_fed, knows, new, notes, voter_sets, voters, within,
};
use ottla_base::Uuid;

/// Waits until a node's log names these voters, and no others beside them.
async fn settles(node: &Voter, expected: &[i32]) {
    within(&format!("{expected:?} alone to be the voters"), async {
        while voter_sets(node).last() != Some(&vec![expected.to_vec()]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Long enough for a leader to do what it should not: it looks ten times a second while nodes that want a vote are late, and
/// each asks every three seconds.
async fn nothing_changes(cluster: &Cluster, node: i32, expected: &[i32]) {
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < until {
        assert_eq!(cluster.voter(node).voters(), voters(expected));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn two_nodes_stay_one_voter_and_the_third_makes_three_in_one_step() {
    let mut cluster = Cluster::start_growing(1).await;
    cluster.put(&[1], "alone").await;
    cluster.start_observer(2, directory_id(2), new()).await;
    is_fed(cluster.voter(1), 2).await;
    nothing_changes(&cluster, 1, &[1]).await;
    let path = cluster.kill(2);
    cluster.put(&[1], "the second is not needed").await;
    cluster.start_observer(2, directory_id(2), path).await;
    cluster.start_observer(3, directory_id(3), new()).await;
    for id in 1..=3 {
        settles(cluster.voter(id), &[1, 2, 3]).await;
    }
    assert!(notes(&cluster.agree().await).contains("alone"));
    let both = vec![vec![1], vec![1, 2, 3]];
    let expected = [vec![vec![1]], both, vec![vec![1, 2, 3]]];
    for id in 1..=3 {
        assert_eq!(voter_sets(cluster.voter(id)), expected, "what the log of {id} says");
    }
    // Two of them are a majority, whoever they are.
    cluster.kill(1);
    cluster.put(&[2, 3], "without the first").await;
}

#[tokio::test]
async fn an_even_number_becomes_odd_with_one_and_five_are_enough() {
    let mut cluster = Cluster::start_growing(2).await;
    let active = cluster.active().await;
    cluster.start_observer(3, directory_id(3), new()).await;
    knows(cluster.voter(active), &voters(&[1, 2, 3])).await;
    cluster.start_observer(4, directory_id(4), new()).await;
    is_fed(cluster.voter(active), 4).await;
    nothing_changes(&cluster, active, &[1, 2, 3]).await;
    cluster.start_observer(5, directory_id(5), new()).await;
    knows(cluster.voter(active), &voters(&[1, 2, 3, 4, 5])).await;
    cluster.start_observer(6, directory_id(6), new()).await;
    cluster.start_observer(7, directory_id(7), new()).await;
    is_fed(cluster.voter(active), 7).await;
    nothing_changes(&cluster, active, &[1, 2, 3, 4, 5]).await;
    // By hand there may be more, and what is even then becomes odd.
    cluster.change(&[active], Change::Add(6, directory_id(6))).await;
    knows(cluster.voter(active), &voters(&[1, 2, 3, 4, 5, 6, 7])).await;
    cluster.agree().await;
}

#[tokio::test]
async fn who_has_lost_its_disk_is_a_voter_again_and_its_vote_counts() {
    let mut cluster = Cluster::start_growing(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    for (id, disk) in [(3, 33), (1, 11), (2, 22)] {
        cluster.kill(id);
        let directory = Uuid([disk; 16]);
        cluster.start_observer(id, directory, new()).await;
        for node in cluster.voters.values() {
            within("the new disk to vote", async {
                while !node.voters().contains(&(id, directory)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        cluster.put(&[1, 2, 3], &format!("with the new disk of {id}")).await;
    }
    assert!(notes(&cluster.agree().await).contains("before"));
    cluster.kill(3);
    cluster.put(&[1, 2], "by two new disks").await;
}

#[tokio::test]
async fn a_vote_is_not_taken_from_a_directory_that_answers() {
    let mut cluster = Cluster::start_growing(3).await;
    let active = cluster.active().await;
    // A second node of the same id: it is reached at another place.
    let (id, directory) = (if active == 3 { 2 } else { 3 }, Uuid([99; 16]));
    cluster.start_impostor(8, id, directory, new()).await;
    is_fed(cluster.voter(active), id).await;
    nothing_changes(&cluster, active, &[1, 2, 3]).await;
}

/// A leader is ended after so many requests since its log named five voters, until the change is done before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_anywhere_in_the_change_leaves_one_that_others_finish() {
    let mut left_behind = 0;
    for requests in 0..14 {
        let mut cluster = Cluster::start_growing(3).await;
        cluster.put(&[1, 2, 3], "before").await;
        let leader = cluster.active().await;
        cluster.network.set_fuse(leader, 3, requests);
        cluster.start_observer(4, directory_id(4), new()).await;
        cluster.start_observer(5, directory_id(5), new()).await;
        cluster.network.blown(leader).await;
        let path = cluster.kill(leader);
        let left = cluster.ids();
        let has_two =
            |id: &i32| voter_sets(cluster.voter(*id)).last().is_some_and(|it| it.len() == 2);
        left_behind += usize::from(left.iter().any(has_two));
        cluster.put(&left, "without it").await;
        let all = voters(&[1, 2, 3, 4, 5]);
        for id in &left {
            knows(cluster.voter(*id), &all).await;
        }
        cluster.put(&left, "of five").await;
        cluster.start_voter(leader, path).await;
        let there = notes(&cluster.agree().await);
        let expected = ["before", "without it", "of five"];
        assert!(expected.iter().all(|it| there.contains(*it)), "after {requests}: {there:?}");
        cluster.check_published();
        for node in cluster.voters.values() {
            settles(node, &[1, 2, 3, 4, 5]).await;
        }
    }
    assert!(left_behind > 0, "no leader died while two sets were in the log");
}

/// The same where nobody else could lead: it comes back itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_that_dies_anywhere_in_the_change_finishes_it_when_it_is_back() {
    for requests in 0..14 {
        let mut cluster = Cluster::start_growing(1).await;
        cluster.put(&[1], "before").await;
        cluster.network.set_fuse(1, 1, requests);
        cluster.start_observer(2, directory_id(2), new()).await;
        cluster.start_observer(3, directory_id(3), new()).await;
        cluster.network.blown(1).await;
        let path = cluster.kill(1);
        cluster.start_voter(1, path).await;
        cluster.put(&[1, 2, 3], "after").await;
        for id in 1..=3 {
            knows(cluster.voter(id), &voters(&[1, 2, 3])).await;
        }
        let there = notes(&cluster.agree().await);
        assert!(there.contains("before") && there.contains("after"), "after {requests}: {there:?}");
        cluster.check_published();
        for node in cluster.voters.values() {
            settles(node, &[1, 2, 3]).await;
        }
    }
}
