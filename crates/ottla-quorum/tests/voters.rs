//! Voters that come and go: what a change promises, whoever is cut off or killed meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cluster::{
    Change, Cluster, PATIENCE, Voter, directory_id, initial_voter, is_fed, knows, new, notes,
    voters, within,
};
use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_metadata::{Outcome, feature};
use ottla_protocol::messages::UpdateFeaturesRequest;
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_quorum::{InitialVoter, Member, VoterChangeError};

const fn member(id: i32, directory: u8) -> Member {
    Member { id: BrokerId(id), directory_id: Uuid([directory; 16]) }
}

/// One voter, and two observers that have become voters.
async fn grown_to_three() -> Cluster {
    let mut cluster = Cluster::start(1).await;
    cluster.put(&[1], "alone").await;
    for id in [2, 3] {
        cluster.start_observer(id, directory_id(id), new()).await;
        cluster.change(&[1], Change::Add(id, directory_id(id))).await;
    }
    cluster
}

#[tokio::test]
async fn a_lone_voter_gets_company_and_may_then_be_lost() {
    let mut cluster = grown_to_three().await;
    assert_eq!(cluster.voter(1).voters(), voters(&[1, 2, 3]));
    cluster.put(&[1], "of three").await;
    let first = cluster.kill(1);
    cluster.put(&[2, 3], "without the first").await;
    cluster.start_voter(1, first).await;
    let there = notes(&cluster.agree().await);
    assert!(["alone", "of three", "without the first"].iter().all(|it| there.contains(*it)));
    // Of three voters, two are a majority, and one is none.
    let active = cluster.active().await;
    for id in cluster.ids().into_iter().filter(|id| *id != active) {
        cluster.kill(id);
    }
    let quorum = &cluster.voter(active).quorum;
    within("it to step down", quorum.active().wait_for(Option::is_none)).await.unwrap();
}

#[tokio::test]
async fn a_removed_voter_goes_on_as_an_observer_and_its_vote_is_not_needed() {
    let mut cluster = Cluster::start(3).await;
    let active = cluster.active().await;
    let removed = if active == 3 { 2 } else { 3 };
    cluster.change(&[1, 2, 3], Change::Remove(removed, directory_id(removed))).await;
    let left: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != removed).collect();
    knows(cluster.voter(removed), &voters(&left)).await;
    cluster.put(&left, "seen").await;
    assert!(notes(&cluster.agree().await).contains("seen"));
    let observers = cluster.voter(active).quorum.observer_states();
    assert_eq!(observers.iter().map(|it| it.voter.id.0).collect::<Vec<_>>(), [removed]);
    let path = cluster.kill(removed);
    cluster.put(&left, "without it").await;
    cluster.start_voter(removed, path).await;
    assert!(notes(&cluster.agree().await).contains("without it"));
}

#[tokio::test]
async fn a_removed_leader_resigns_and_follows_another() {
    let cluster = Cluster::start(3).await;
    let first = cluster.active().await;
    let epoch = cluster.voter(first).quorum.active().borrow().unwrap();
    cluster.voter(first).change(Change::Remove(first, directory_id(first))).await.unwrap();
    let quorum = &cluster.voter(first).quorum;
    within("it to resign", quorum.active().wait_for(Option::is_none)).await.unwrap();
    let left: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != first).collect();
    let second = cluster.active_of(&left).await;
    assert!(cluster.voter(second).quorum.active().borrow().unwrap() > epoch);
    cluster.put(&left, "by another").await;
    cluster.agree().await;
    is_fed(cluster.voter(second), first).await;
    assert_eq!(cluster.voter(first).voters(), voters(&left));
}

#[tokio::test]
async fn of_two_voters_the_leader_may_leave_and_the_other_is_alone() {
    let mut cluster = Cluster::start(2).await;
    let first = cluster.active().await;
    let other = 3 - first;
    cluster.change(&[1, 2], Change::Remove(first, directory_id(first))).await;
    cluster.put(&[other], "alone").await;
    cluster.kill(first);
    cluster.restart(other).await;
    cluster.put(&[other], "alone after a restart").await;
    assert!(cluster.voter(other).quorum.is_alone());
    assert!(notes(&cluster.agree().await).contains("alone"));
}

#[tokio::test]
async fn a_voter_that_was_removed_while_it_was_away_learns_of_it_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let active = cluster.active().await;
    let away = if active == 3 { 2 } else { 3 };
    let path = cluster.kill(away);
    cluster.change(&[active], Change::Remove(away, directory_id(away))).await;
    let left: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != away).collect();
    cluster.put(&left, "without it").await;
    // Nobody remembers it: only a leader that has removed it knows that it was there.
    let others: Vec<_> = left.iter().map(|id| (*id, cluster.kill(*id))).collect();
    for (id, path) in others {
        cluster.start_voter(id, path).await;
    }
    cluster.put(&left, "by whoever leads").await;
    cluster.start_voter(away, path).await;
    knows(cluster.voter(away), &voters(&left)).await;
    cluster.agree().await;
}

#[tokio::test]
async fn a_voter_whose_disk_is_lost_is_replaced_by_the_new_one() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    cluster.kill(3);
    let another = Uuid([33; 16]);
    cluster.start_observer(3, another, new()).await;
    let early = cluster.active_of(&[1, 2]).await;
    is_fed(cluster.voter(early), 3).await;
    let refused = cluster.voter(early).change(Change::Add(3, another)).await;
    assert!(matches!(refused, Err(VoterChangeError::Duplicate { .. })), "{refused:?}");
    cluster.change(&[1, 2], Change::Remove(3, directory_id(3))).await;
    let active = cluster.active_of(&[1, 2]).await;
    let added = cluster.voter(active).change(Change::Add(3, another)).await;
    assert_eq!(added, Ok(()), "the removed one's number is free at once");
    let expected = [voters(&[1, 2]), vec![(3, another)]].concat();
    knows(cluster.voter(3), &expected).await;
    // The new disk's vote counts.
    cluster.kill(2);
    cluster.put(&[1, 3], "with the new disk").await;
    let path = cluster.kill(3);
    cluster.start_observer(3, another, path).await;
    cluster.put(&[1, 3], "and after its restart").await;
    assert!(notes(&cluster.agree().await).contains("before"));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_in_kafkas_words() {
    let mut cluster = Cluster::start(1).await;
    let shown = |id: i32| format!("ReplicaKey(id={id}, directoryId={})", directory_id(id));
    let refused = async |cluster: &Cluster, change| {
        cluster.voter(1).change(change).await.unwrap_err().to_string()
    };
    assert_eq!(
        refused(&cluster, Change::Add(1, directory_id(1))).await,
        format!("The voter id for {0} is already part of the set of voters [{0}].", shown(1))
    );
    for id in [1, 2] {
        assert_eq!(
            refused(&cluster, Change::Remove(id, directory_id(id))).await,
            format!("Cannot remove voter {} from the set of voters [{}]", shown(id), shown(1))
        );
    }
    let behind = format!("Aborted add voter operation for {} since it is lagging behind", shown(2));
    assert_eq!(refused(&cluster, Change::Add(2, directory_id(2))).await, behind);
    // One that does not answer has not all of the log.
    cluster.start_observer(2, directory_id(2), new()).await;
    is_fed(cluster.voter(1), 2).await;
    cluster.network.part(&[1], &[2]);
    cluster.put(&[1], "unheard").await;
    let short = Duration::from_millis(300);
    let late = cluster.voter(1).quorum.add_voter(initial_voter(2), short).await;
    assert_eq!(late.unwrap_err().to_string(), behind);
    let follower = cluster.voter(2).change(Change::Add(2, directory_id(2))).await;
    assert_eq!(follower, Err(VoterChangeError::NotLeader));
    assert_eq!(cluster.voter(1).voters(), voters(&[1]));
}

#[tokio::test]
async fn a_voter_is_not_removed_while_the_others_are_no_majority_without_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    let active = cluster.active_of(&[1, 2, 3]).await;
    let [kept, lost] = [1, 2, 3].into_iter().filter(|id| *id != active).collect::<Vec<_>>()[..]
    else {
        panic!("three voters");
    };
    cluster.kill(lost);
    // Whether it is the leader itself or the last one that follows it.
    for id in [kept, active] {
        let refused = cluster.voter(active).change(Change::Remove(id, directory_id(id))).await;
        assert!(
            matches!(refused, Err(VoterChangeError::Needed(it)) if it.id.0 == id),
            "{refused:?}"
        );
    }
    cluster.put(&[active, kept], "all goes on").await;
    cluster.change(&[active, kept], Change::Remove(lost, directory_id(lost))).await;
    knows(cluster.voter(kept), &voters(&[active.min(kept), active.max(kept)])).await;
}

#[tokio::test]
async fn voters_who_are_known_by_their_ids_alone_do_not_change() {
    let by_id = |id| InitialVoter { directory_id: Uuid::ZERO, ..initial_voter(id) };
    let cluster = Cluster::start_with([1, 2, 3].map(by_id).to_vec()).await;
    let active = cluster.active().await;
    let add = cluster.voter(active).change(Change::Add(4, directory_id(4))).await.unwrap_err();
    let because = "voter because the kraft.version feature is 0";
    assert_eq!(add.to_string(), format!("Cluster doesn't support adding {because}"));
    let remove = cluster.voter(active).change(Change::Remove(1, Uuid::ZERO)).await.unwrap_err();
    assert_eq!(remove.to_string(), format!("Cluster doesn't support removing {because}"));
}

#[tokio::test]
async fn one_change_at_a_time_is_under_way() {
    let cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    let active = cluster.active().await;
    let others: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != active).collect();
    cluster.network.part(&[active], &others);
    let node = cluster.voter(active);
    let change = Change::Remove(others[0], directory_id(others[0]));
    let (first, second) = tokio::join!(biased; node.change(change), node.change(change));
    assert!(first.is_err(), "nobody else has it");
    assert_eq!(second, Err(VoterChangeError::Pending));
    cluster.network.heal();
    cluster.agree().await;
    assert_eq!(node.voters(), voters(&[1, 2, 3]), "what was never committed is given up");
}

#[tokio::test]
async fn an_observer_on_another_disk_gets_the_whole_log_under_the_same_number() {
    let mut cluster = Cluster::start(1).await;
    cluster.start_observer(2, directory_id(2), new()).await;
    cluster.put(&[1], "before").await;
    cluster.agree().await;
    cluster.kill(2);
    let another = Uuid([22; 16]);
    cluster.start_observer(2, another, new()).await;
    cluster.put(&[1], "after").await;
    assert!(notes(&cluster.agree().await).contains("before"));
    cluster.change(&[1], Change::Add(2, another)).await;
    assert_eq!(cluster.voter(1).voters(), [(1, directory_id(1)), (2, another)]);
    assert_eq!(cluster.voter(1).quorum.voters()[1], member(2, 22));
}

/// Waits until this node's log names a voter's host.
async fn knows_host(node: &Voter, id: i32, host: &str) {
    within(&format!("{id} to be at {host}"), async {
        while node.quorum.endpoints_of(BrokerId(id)).iter().all(|it| *it.host != *host) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_comes_back_at_another_place_says_so_and_its_vote_counts() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    // The first is a leader that goes, as a rule; each is reached at its new place alone.
    for (id, left) in [(1, [2, 3]), (2, [3, 11]), (3, [11, 12])] {
        let path = cluster.kill(id);
        cluster.put(&left, "without it").await;
        cluster.start_voter_at(id + 10, id, path).await;
        for node in cluster.voters.values() {
            knows_host(node, id, &format!("node{}", id + 10)).await;
        }
    }
    cluster.agree().await;
    cluster.kill(11);
    cluster.put(&[12, 13], "by two that have moved").await;
    assert_eq!(cluster.voter(12).voters(), voters(&[1, 2, 3]));
}

/// As where properties name this listener's place to clients alone: what a machine calls itself may be known nowhere else.
#[tokio::test]
async fn a_place_that_is_guessed_does_not_replace_the_one_that_the_log_names() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    for id in [1, 2, 3] {
        let path = cluster.kill(id);
        cluster.start_voter_that_guesses(id, id + 10, path).await;
        cluster.put(&[1, 2, 3], &format!("{id} is back")).await;
    }
    // Whoever really has moved says so at its start, as those before it would have done.
    let path = cluster.kill(1);
    cluster.start_voter_at(21, 1, path).await;
    for node in cluster.voters.values() {
        knows_host(node, 1, "node21").await;
        for (id, host) in [(2, "node2"), (3, "node3")] {
            assert_eq!(*node.quorum.endpoints_of(BrokerId(id))[0].host, *host);
        }
    }
    cluster.kill(21);
    cluster.put(&[2, 3], "by two that are found where they are").await;
}

#[tokio::test]
async fn a_lone_voter_at_another_place_names_it_and_is_still_alone() {
    let mut cluster = Cluster::start(1).await;
    let path = cluster.kill(1);
    cluster.start_voter_at(11, 1, path).await;
    knows_host(cluster.voter(11), 1, "node11").await;
    let offset = cluster.voter(11).quorum.metrics().log_end_offset;
    assert!(cluster.voter(11).quorum.is_alone());
    let path = cluster.kill(11);
    cluster.start_voter_at(11, 1, path).await;
    // A new epoch is one more record; the place is not said again.
    cluster.voter(11).ask().await.unwrap();
    assert!(cluster.voter(11).quorum.metrics().log_end_offset.0 <= offset.0 + 2);
    cluster.start_observer(2, directory_id(2), new()).await;
    cluster.change(&[11], Change::Add(2, directory_id(2))).await;
    assert_eq!(cluster.voter(11).voters(), voters(&[1, 2]));
}

#[tokio::test]
async fn a_voters_place_is_changed_by_whoever_leads_and_for_the_directory_that_votes() {
    let cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "before").await;
    let active = cluster.active().await;
    let update = async |at: i32, id: i32, directory_id: Uuid, host: i32| {
        let endpoints = initial_voter(host).endpoints;
        let voter = InitialVoter { id: BrokerId(id), directory_id, endpoints };
        cluster.voter(at).quorum.update_voter(voter, Duration::from_secs(5)).await
    };
    for (id, directory) in [(4, directory_id(4)), (3, directory_id(9))] {
        let refused = update(active, id, directory, 13).await;
        assert!(matches!(refused, Err(VoterChangeError::NotFound { .. })), "{refused:?}");
    }
    let (other, third) = if active == 3 { (2, 1) } else { (3, 3 - active) };
    assert_eq!(update(active, other, directory_id(other), other).await, Ok(()), "it is there");
    let elsewhere = update(third, other, directory_id(other), other).await;
    assert_eq!(elsewhere, Err(VoterChangeError::NotLeader));
}

/// A level must be supported by every voter, and a voter that is not registered says nothing of what it supports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_becomes_a_voter_while_an_update_of_features_waits_for_its_turn_is_asked_too() {
    let mut cluster = Cluster::start(1).await;
    cluster.put(&[1], "a").await;
    cluster.start_observer(2, directory_id(2), new()).await;
    let voter = cluster.voter(1);
    is_fed(voter, 2).await;
    let (release, released) = mpsc::channel();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let quorum = Arc::clone(&voter.quorum);
    let other = tokio::spawn(async move {
        let decision = quorum.decide(move |_| {
            begin.send(()).unwrap();
            released.recv_timeout(PATIENCE).unwrap();
            Outcome::unchanged(())
        });
        decision.await
    });
    begun.await.unwrap();
    let key = FeatureUpdateKey {
        feature: feature::METADATA_VERSION.into(),
        max_version_level: feature::METADATA_VERSION_LEVEL,
        upgrade_type: 1,
        ..Default::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![key], ..Default::default() };
    let mut update = pin!(voter.quorum.update_features(request, 2));
    tokio::select! {
        biased;
        _ = &mut update => panic!("it did not wait for its turn"),
        () = tokio::task::yield_now() => {}
    }
    voter.change(Change::Add(2, directory_id(2))).await.unwrap();
    release.send(()).unwrap();
    within("the other decision", other).await.unwrap().unwrap();
    let response = within("the update", update).await.unwrap();
    assert_eq!(response.error_code, ErrorCode::INVALID_UPDATE_VERSION);
    assert!(response.error_message.unwrap().contains("controller 2 has not registered"));
}
