//! What several voters promise: one of them decides, what it has answered stays, and all see the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, TIMING, config, initial_voter, notes, within};
use ottla_base::{BrokerId, LeaderEpoch, Offset, TopicPartition, Uuid};
use ottla_metadata::Outcome;
use ottla_metadata::controller::{BrokerEpoch, Policy, RECONNECT_GRACE};
use ottla_quorum::{InitialVoter, Leader, SubmitError, Timing, VoterState};

fn others(cluster: &Cluster, id: i32) -> Vec<i32> {
    cluster.ids().into_iter().filter(|other| *other != id).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn of_three_voters_one_decides_and_all_see_the_same() {
    let cluster = Cluster::start(3).await;
    let active = cluster.active().await;
    cluster.voter(active).put("a").await.unwrap();
    assert_eq!(notes(&cluster.voter(active).quorum.image()), set(&["a"]));
    for other in others(&cluster, active) {
        assert_eq!(cluster.voter(other).put("b").await, Err(SubmitError::NotController));
    }
    let image = cluster.agree().await;
    assert_eq!(notes(&image), set(&["a", "the last word"]));
    assert!(image.is_formatted());
    let leader = Some(Leader { id: BrokerId(active), epoch: image.epoch });
    for voter in cluster.voters.values() {
        assert_eq!(*voter.quorum.leader().borrow(), leader);
        let members: Vec<_> = voter.quorum.voters().iter().map(|it| it.id.0).collect();
        assert_eq!(members, [1, 2, 3]);
    }
}

/// For longer than they believe in a leader that is silent, and than a leader goes on that nobody answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_whose_disks_stand_still_depose_no_leader() {
    let timing = Timing::default();
    let cluster = Cluster::start_with_timing(3, timing).await;
    cluster.agree().await;
    let active = cluster.active().await;
    let leader = cluster.voter(active);
    let epochs = || cluster.voters.values().map(|it| it.quorum.epoch()).collect::<Vec<_>>();
    let before = epochs();
    let followers = others(&cluster, active);
    let stalls: Vec<_> = followers.iter().map(|id| cluster.voter(*id).disk.stall_syncs()).collect();
    let long = Duration::from_millis(4 * timing.election_timeout_max_ms);
    let stalled = async {
        // What each has got, and cannot acknowledge.
        assert!(stalls.iter().all(|stall| stall.holds_a_sync_within(PATIENCE)));
        let begun = Instant::now();
        let has_answered_long_after = |follower: &VoterState| {
            begun.elapsed().checked_sub(follower.silent_for).is_some_and(|at| at >= long)
        };
        within("heartbeats to be answered", async {
            while !leader.quorum.voter_states().iter().all(has_answered_long_after) {
                assert_eq!(epochs(), before);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(!notes(&leader.quorum.image()).contains("a"), "no majority has it on disk");
        drop(stalls);
    };
    let (answer, ()) = tokio::join!(leader.put("a"), stalled);
    answer.unwrap();
    assert_eq!(epochs(), before);
    assert!(notes(&cluster.agree().await).contains("a"));
}

#[tokio::test]
async fn voters_who_are_known_by_their_ids_alone_are_a_quorum_too() {
    let unknown = |id| InitialVoter { directory_id: Uuid::ZERO, ..initial_voter(id) };
    let cluster = Cluster::start_with(vec![initial_voter(1), unknown(2), unknown(3)]).await;
    cluster.put(&[1, 2, 3], "a").await;
    cluster.agree().await;
    let members = cluster.voter(1).quorum.voters();
    assert!(members.iter().all(|member| member.directory_id == Uuid::ZERO), "{members:?}");
}

/// Three voters that know each other by their ids alone, and agree on one decision.
async fn known_by_their_ids() -> Cluster {
    let unknown = |id| InitialVoter { directory_id: Uuid::ZERO, ..initial_voter(id) };
    let cluster = Cluster::start_with((1..=3).map(unknown).collect()).await;
    cluster.put(&[1, 2, 3], "a").await;
    cluster.agree().await;
    cluster
}

#[tokio::test]
async fn a_voter_known_by_its_id_alone_that_has_lost_its_log_gets_it_anew() {
    let mut cluster = known_by_their_ids().await;
    let active = cluster.active().await;
    let follower = others(&cluster, active)[0];
    cluster.kill(follower);
    cluster.start_voter(follower, tempfile::tempdir().unwrap()).await;
    assert_eq!(notes(&cluster.agree().await), set(&["a", "the last word"]));
    assert_eq!(cluster.active().await, active);
}

/// Its own file names nobody, so that nothing tells it that it is a voter: it must not vote as if it had not voted before.
#[tokio::test]
async fn a_voter_known_by_its_id_alone_that_comes_back_empty_as_an_observer_does_not_count() {
    let mut cluster = known_by_their_ids().await;
    cluster.kill(3);
    cluster.start_observer(3, Uuid([33; 16]), tempfile::tempdir().unwrap()).await;
    cluster.put(&[1, 2], "b").await;
    let active = cluster.active_of(&[1, 2]).await;
    cluster.kill(3 - active);
    let quorum = &cluster.voter(active).quorum;
    within("it to step down", quorum.active().wait_for(Option::is_none)).await.unwrap();
    assert_eq!(cluster.voter(active).put("c").await, Err(SubmitError::NotController));
    assert_eq!(cluster.voter(3).quorum.metrics().log_end_offset, Offset::ZERO);
    assert_eq!(cluster.voter(3).quorum.epoch().0, LeaderEpoch(0), "it has voted for nobody");
}

#[tokio::test]
async fn five_voters_decide_without_any_two_and_not_without_three() {
    let mut cluster = Cluster::start(5).await;
    let mut expected = BTreeSet::new();
    for round in 0..2 {
        let active = cluster.active().await;
        let name = format!("before {round}");
        cluster.put(&cluster.ids(), &name).await;
        expected.insert(name);
        cluster.kill(active);
    }
    let left = cluster.ids();
    cluster.put(&left, "without two").await;
    expected.extend(set(&["without two", "the last word"]));
    assert_eq!(notes(&cluster.agree().await), expected);

    let active = cluster.active().await;
    cluster.kill(others(&cluster, active)[0]);
    assert_eq!(cluster.voter(active).put("without three").await, Err(SubmitError::NotController));
    assert!(!notes(&cluster.voter(active).quorum.image()).contains("without three"));
}

#[tokio::test]
async fn another_voter_decides_when_the_active_one_is_killed_and_it_catches_up_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.active().await;
    for number in 0..20 {
        cluster.voter(first).put(&format!("a{number}")).await.unwrap();
    }
    let epoch = cluster.voter(first).quorum.image().epoch;
    let left = cluster.kill(first);
    cluster.put(&cluster.ids(), "b").await;
    let second = cluster.active().await;
    assert!(cluster.voter(second).quorum.image().epoch > epoch);

    cluster.start_voter(first, left).await;
    let names = notes(&cluster.agree().await);
    assert_eq!(names.len(), 22);
    let back = cluster.voter(first);
    // It has published everything at once, not entry by entry.
    assert!(back.watcher.published.lock().unwrap().len() < 20);
}

#[tokio::test]
async fn an_active_controller_that_is_cut_off_is_believed_by_nobody() {
    let cluster = Cluster::start(3).await;
    let old = cluster.active().await;
    let rest = others(&cluster, old);
    cluster.voter(old).put("before").await.unwrap();
    let epoch = cluster.voter(old).quorum.active().borrow().unwrap();

    cluster.network.part(&[old], &rest);
    // It is appended there, and there alone; nobody is left waiting for it.
    let lonely = cluster.voter(old);
    let end = lonely.quorum.metrics().log_end_offset;
    assert_eq!(lonely.put("cut off").await, Err(SubmitError::NotController));
    assert!(lonely.quorum.metrics().log_end_offset > end);
    within("it to step down", async {
        lonely.quorum.active().wait_for(Option::is_none).await.unwrap();
        lonely.quorum.leader().wait_for(Option::is_none).await.unwrap();
    })
    .await;
    assert_eq!(lonely.put("cut off later").await, Err(SubmitError::NotController));

    cluster.put(&rest, "meanwhile").await;
    let new = cluster.active_of(&rest).await;
    assert!(cluster.voter(new).quorum.active().borrow().unwrap() > epoch);

    cluster.network.heal();
    let image = cluster.agree().await;
    assert_eq!(notes(&image), set(&["before", "meanwhile", "the last word"]));
    for published in &*lonely.watcher.published.lock().unwrap() {
        assert!(!notes(published).contains("cut off"));
    }
}

#[tokio::test]
async fn a_leader_without_a_majority_steps_down_though_nobody_asks_it_for_anything() {
    let cluster = Cluster::start(3).await;
    let old = cluster.active().await;
    let cut = Instant::now();
    for other in others(&cluster, old) {
        // It is heard, and hears nothing: the others see no reason for an election.
        cluster.network.cut_one_way(other, old);
    }
    let mut active = cluster.voter(old).quorum.active();
    within("it to step down", active.wait_for(Option::is_none)).await.unwrap();
    assert!(cut.elapsed() >= Duration::from_millis(TIMING.election_timeout_max_ms));
    cluster.network.heal();
    cluster.agree().await;
}

#[tokio::test]
async fn a_leader_that_misses_its_majority_for_a_moment_goes_on_in_its_epoch() {
    let timing =
        Timing { heartbeat_ms: 100, election_timeout_min_ms: 400, election_timeout_max_ms: 800 };
    let cluster = Cluster::start_with_timing(3, timing).await;
    let leader = cluster.active().await;
    let voter = cluster.voter(leader);
    // Answers hang on what was proposed before: nothing is left open.
    voter.put("before").await.unwrap();
    let epoch = *voter.quorum.active().borrow();
    for other in others(&cluster, leader) {
        cluster.network.cut_one_way(other, leader);
    }
    // It cannot be sure any more that nobody else leads, and says so.
    within("it to doubt", async { while voter.ask().await.is_ok() {} }).await;
    assert_eq!(voter.put("meanwhile").await, Err(SubmitError::NotController));
    cluster.network.heal();
    within("it to be sure", async { while voter.ask().await.is_err() {} }).await;
    voter.put("after").await.unwrap();
    assert_eq!(*voter.quorum.active().borrow(), epoch);
    assert_eq!(notes(&cluster.agree().await), set(&["before", "after", "the last word"]));
}

/// A lease that outlasts an election by far, if voters do not wait for its end.
const LONG_LEASE: Timing =
    Timing { heartbeat_ms: 100, election_timeout_min_ms: 1_000, election_timeout_max_ms: 2_000 };

#[tokio::test]
async fn a_leader_that_is_cut_off_does_not_answer_without_what_another_one_has_answered() {
    let cluster = Cluster::start_with_timing(3, LONG_LEASE).await;
    let old = cluster.active().await;
    let rest = others(&cluster, old);
    cluster.voter(old).put("before").await.unwrap();
    cluster.network.part(&[old], &rest);
    // They lose their connections to it at once, and need not wait until it gives up.
    tokio::join!(
        cluster.voter(rest[0]).quorum.peer_lost(BrokerId(old)),
        cluster.voter(rest[1]).quorum.peer_lost(BrokerId(old)),
    );
    let new = cluster.active_of(&rest).await;
    cluster.voter(new).put("after").await.unwrap();
    assert!(cluster.voter(old).quorum.active().borrow().is_some(), "it still believes to lead");
    // Whether it is asked while it is cut off, or hears at once who leads by now.
    let (asked, told, ()) = tokio::join!(
        cluster.voter(old).ask(),
        cluster.voter(old).quorum.connection_lost(BrokerId(11), BrokerEpoch(1)),
        async { cluster.network.heal() },
    );
    assert_eq!((asked, told), (Err(SubmitError::NotController), Err(SubmitError::NotController)));
    assert_eq!(notes(&cluster.agree().await), set(&["before", "after", "the last word"]));
}

#[tokio::test]
async fn a_voter_that_was_cut_off_does_not_disturb_the_leader_when_it_is_back() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.active().await;
    let rest = others(&cluster, leader);
    cluster.network.part(&[rest[0]], &[leader, rest[1]]);
    let epoch = *cluster.voter(leader).quorum.active().borrow();
    // Long enough for several elections that it cannot win.
    let until = Instant::now() + Duration::from_millis(5 * TIMING.election_timeout_max_ms);
    let mut number = 0;
    while Instant::now() < until {
        cluster.voter(leader).put(&format!("a{number}")).await.unwrap();
        number += 1;
    }
    cluster.network.heal();
    cluster.agree().await;
    assert_eq!(*cluster.voter(leader).quorum.active().borrow(), epoch);
}

#[tokio::test]
async fn a_broken_connection_to_the_leader_brings_an_election_at_once_if_it_is_dead() {
    let mut cluster = Cluster::start(3).await;
    cluster.agree().await;
    let old = cluster.active().await;
    let before = Instant::now();
    cluster.kill(old);
    let left = cluster.ids();
    tokio::join!(
        cluster.voter(left[0]).quorum.peer_lost(BrokerId(old)),
        cluster.voter(left[1]).quorum.peer_lost(BrokerId(old)),
    );
    cluster.active().await;
    // Its silence alone would have had to last as long as the lease, and another timeout.
    let timeouts = TIMING.election_timeout_max_ms + TIMING.election_timeout_min_ms;
    assert!(before.elapsed() < Duration::from_millis(timeouts), "{:?}", before.elapsed());
    cluster.agree().await;
}

#[tokio::test]
async fn a_broken_connection_to_the_leader_changes_nothing_if_it_lives() {
    let cluster = Cluster::start(3).await;
    cluster.agree().await;
    let leader = cluster.active().await;
    let epoch = *cluster.voter(leader).quorum.active().borrow();
    for (round, id) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        for lost in cluster.ids() {
            cluster.voter(id).quorum.peer_lost(BrokerId(lost)).await;
        }
        // It has heard of the leader again before the next voter loses it: together they would be a majority.
        cluster.voter(leader).put(&format!("round {round}")).await.unwrap();
        let offset = cluster.voter(leader).quorum.image().offset;
        cluster.voter(id).reaches(offset).await;
    }
    cluster.agree().await;
    assert_eq!(*cluster.voter(leader).quorum.active().borrow(), epoch);
}

#[tokio::test]
async fn a_leader_that_is_shut_down_hands_over_without_a_pause() {
    let mut cluster = Cluster::start(3).await;
    cluster.agree().await;
    let old = cluster.active().await;
    let before = Instant::now();
    cluster.voter(old).quorum.shutdown().await;
    let rest = others(&cluster, old);
    cluster.put(&rest, "after").await;
    let lease = Duration::from_millis(TIMING.election_timeout_max_ms);
    assert!(before.elapsed() < lease, "{:?}", before.elapsed());
    cluster.restart(old).await;
    assert!(notes(&cluster.agree().await).contains("after"));
}

#[tokio::test]
async fn each_voter_in_turn_may_be_restarted_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let mut expected = set(&["the last word"]);
    for round in 0..2 {
        for id in cluster.ids() {
            let name = format!("{round}-{id}");
            cluster.put(&cluster.ids(), &name).await;
            expected.insert(name);
            cluster.restart(id).await;
        }
    }
    assert_eq!(notes(&cluster.agree().await), expected);
}

#[tokio::test]
async fn all_voters_may_be_killed_at_once_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let mut expected = set(&["the last word"]);
    for round in 0..3 {
        let name = format!("round {round}");
        cluster.put(&cluster.ids(), &name).await;
        expected.insert(name);
        let left: Vec<_> = cluster.ids().into_iter().map(|id| (id, cluster.kill(id))).collect();
        for (id, path) in left {
            cluster.start_voter(id, path).await;
        }
    }
    assert_eq!(notes(&cluster.agree().await), expected);
}

#[tokio::test]
async fn a_voter_that_has_begun_with_other_voters_or_in_another_cluster_is_not_listened_to() {
    let mut cluster = Cluster::start(3).await;
    cluster.agree().await;
    let follower = others(&cluster, cluster.active().await)[0];
    cluster.kill(follower);
    let voters = || (1..=3).map(initial_voter).collect::<Vec<_>>();
    let mut moved = voters();
    moved[0].endpoints[0].port = 1;
    let strange = [
        config(follower, moved),
        ottla_quorum::Config { cluster_id: "other".into(), ..config(follower, voters()) },
    ];
    for config in strange {
        let path = tempfile::tempdir().unwrap();
        let voter = cluster::start(config, path, &cluster.network).await.unwrap();
        cluster.put(&cluster.ids(), "meanwhile").await;
        assert!(notes(&voter.quorum.image()).is_empty());
        assert_eq!(voter.quorum.image().epoch, LeaderEpoch(-1));
        assert_eq!(*voter.quorum.leader().borrow(), None);
    }
    cluster.agree().await;
}

#[tokio::test]
async fn a_log_in_another_directory_than_it_names_is_no_voters() {
    let mut cluster = Cluster::start(3).await;
    cluster.agree().await;
    let (left, _) = (cluster.kill(2), cluster.kill(3));
    cluster.start_observer(2, Uuid([99; 16]), left).await;
    let active = &cluster.voter(1).quorum;
    within("the only voter to step down", active.active().wait_for(Option::is_none)).await.unwrap();
    assert_eq!(cluster.voter(1).put("a").await, Err(SubmitError::NotController));
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_fenced_and_one_that_does_not_is_not() {
    let policy = Policy { broker_session_timeout: Duration::from_millis(400), ..Policy::default() };
    let cluster = Cluster::start_with_policy(3, policy).await;
    let active = cluster.voter(cluster.active().await);
    let begin = Instant::now();
    let silent = active.add_broker(11).await;
    let alive = active.add_broker(12).await;
    let is_fenced = |id| active.quorum.image().broker(BrokerId(id)).unwrap().fenced;
    within("the silent one to be fenced", async {
        while !is_fenced(11) {
            active.heartbeat(12, alive).await.unwrap();
        }
    })
    .await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    assert!(!is_fenced(12));
    // It is let in again as soon as it is heard from.
    assert!(!active.heartbeat(11, silent).await.unwrap().is_fenced);
}

#[tokio::test]
async fn heartbeats_of_brokers_have_the_voters_send_nothing_more_than_they_do() {
    let cluster = Cluster::start_with_timing(3, LONG_LEASE).await;
    let id = cluster.active().await;
    let active = cluster.voter(id);
    let epoch = active.add_broker(11).await;
    cluster.agree().await;
    let (begin, before) = (Instant::now(), cluster.network.sent_by(id));
    for _ in 0..10 {
        active.heartbeat(11, epoch).await.unwrap();
    }
    let sent = cluster.network.sent_by(id) - before;
    // To either of the others, as often as a leader says that it lives, and at both ends of the time.
    let rounds = begin.elapsed().as_millis() / u128::from(LONG_LEASE.heartbeat_ms) + 2;
    assert!(sent as u128 <= 2 * rounds, "{sent} requests in {rounds} rounds");
    assert_eq!(*active.quorum.active().borrow(), Some(cluster.agree().await.epoch));
}

#[tokio::test]
async fn a_broker_whose_connection_breaks_is_fenced_soon_unless_it_is_heard_from() {
    let cluster = Cluster::start(3).await;
    let active = cluster.voter(cluster.active().await);
    let gone = active.add_broker(11).await;
    let back = active.add_broker(12).await;
    let begin = Instant::now();
    active.quorum.connection_lost(BrokerId(11), gone).await.unwrap();
    active.quorum.connection_lost(BrokerId(12), back).await.unwrap();
    active.heartbeat(12, back).await.unwrap();
    active.sees("it to be fenced", |image| image.broker(BrokerId(11)).unwrap().fenced).await;
    assert!(begin.elapsed() >= RECONNECT_GRACE);
    assert!(!active.quorum.image().broker(BrokerId(12)).unwrap().fenced);
}

#[tokio::test]
async fn a_new_controller_gives_every_broker_a_session_and_fences_those_who_do_not_use_it() {
    let session = Duration::from_millis(600);
    let policy = Policy { broker_session_timeout: session, ..Policy::default() };
    let mut cluster = Cluster::start_with_policy(3, policy).await;
    let old = cluster.active().await;
    cluster.voter(old).add_broker(11).await;
    cluster.kill(old);
    let new = cluster.voter(cluster.active().await);
    let begin = Instant::now();
    assert!(!new.quorum.image().broker(BrokerId(11)).unwrap().fenced);
    new.sees("it to be fenced", |image| image.broker(BrokerId(11)).unwrap().fenced).await;
    // The session began a little before this test saw that there is a new controller.
    assert!(begin.elapsed() >= session / 2, "{:?}", begin.elapsed());
    cluster.agree().await;
}

#[tokio::test]
async fn a_controller_that_is_cut_off_fences_nobody() {
    // The session ends when the leader cannot be sure any more, and has not given up yet.
    let policy = Policy { broker_session_timeout: Duration::from_millis(450), ..Policy::default() };
    let cluster = Cluster::start_with_policy(3, policy).await;
    let old = cluster.active().await;
    let rest = others(&cluster, old);
    let epoch = cluster.voter(old).add_broker(11).await;
    cluster.voter(old).heartbeat(11, epoch).await.unwrap();
    cluster.network.part(&[old], &rest);
    let end = cluster.voter(old).quorum.metrics().log_end_offset;
    let mut active = cluster.voter(old).quorum.active();
    within("it to step down", active.wait_for(Option::is_none)).await.unwrap();
    assert_eq!(cluster.voter(old).quorum.metrics().log_end_offset, end);
}

/// The offset that a voter's log begins at.
fn log_start(cluster: &Cluster, id: i32) -> Offset {
    let partition = TopicPartition::new("__cluster_metadata", 0);
    cluster.voter(id).directory.log(&partition).unwrap().log_start_offset()
}

/// Decisions by these, until the active one of them has nothing any more of what was at `end`.
async fn forget(cluster: &Cluster, ids: &[i32], end: Offset) {
    let mut number = 0;
    loop {
        let active = cluster.active_of(ids).await;
        if log_start(cluster, active) > end {
            return;
        }
        cluster.put(ids, &format!("change {}", number % 10)).await;
        number += 1;
        assert!(number < 1000, "the log is kept whole");
    }
}

#[tokio::test]
async fn a_voter_that_was_cut_off_for_too_long_gets_a_snapshot_and_goes_on_from_there() {
    let cluster = Cluster::start_forgetful((1..=3).map(initial_voter).collect()).await;
    let active = cluster.active().await;
    cluster.put(&[active], "a").await;
    let rest = others(&cluster, active);
    let (behind, ids) = (rest[0], [active, rest[1]]);
    cluster.network.part(&[behind], &ids);
    let end = cluster.voter(behind).quorum.image().offset;
    forget(&cluster, &ids, end).await;
    cluster.network.heal();
    let image = cluster.agree().await;
    assert!(notes(&image).contains("a") && notes(&image).contains("change 9"));
    assert!(log_start(&cluster, behind) > end, "it has got the log, not a snapshot");
    cluster.check_published();
    // What was published there names what has come with the snapshot.
    let told = cluster.voter(behind).watcher.told.lock().unwrap().clone();
    let names: BTreeSet<_> = told.into_iter().map(|name| name.to_string()).collect();
    assert!(names.is_superset(&notes(&image)), "{names:?}");
}

#[tokio::test]
async fn a_voter_that_comes_back_after_too_long_or_with_nothing_gets_a_snapshot() {
    let unknown = |id| InitialVoter { directory_id: Uuid::ZERO, ..initial_voter(id) };
    for has_lost_its_log in [false, true] {
        let mut cluster = Cluster::start_forgetful((1..=3).map(unknown).collect()).await;
        let active = cluster.active().await;
        cluster.put(&[active], "a").await;
        let rest = others(&cluster, active);
        let end = cluster.voter(rest[0]).quorum.image().offset;
        let mut path = cluster.kill(rest[0]);
        if has_lost_its_log {
            path = tempfile::tempdir().unwrap();
        }
        forget(&cluster, &[active, rest[1]], end).await;
        cluster.start_voter(rest[0], path).await;
        cluster.agree().await;
        assert!(log_start(&cluster, rest[0]) > end, "it has got the log, not a snapshot");
        // And it is as good a voter as any.
        cluster.kill(active);
        cluster.put(&rest, "b").await;
        cluster.restart(rest[0]).await;
        let image = cluster.agree().await;
        assert!(notes(&image).contains("a") && notes(&image).contains("b"));
        cluster.check_published();
    }
}

#[tokio::test]
async fn a_voter_that_falls_behind_with_records_that_were_never_committed_gives_them_up() {
    let cluster = Cluster::start_forgetful((1..=3).map(initial_voter).collect()).await;
    let active = cluster.active().await;
    cluster.put(&[active], "a").await;
    let rest = others(&cluster, active);
    cluster.network.part(&[active], &rest);
    let end = cluster.voter(active).quorum.metrics().log_end_offset;
    let records = (0..200).map(|number| cluster::note(&format!("lost {number}")).into()).collect();
    let decision = |_: &mut ottla_quorum::Desk<'_>| Outcome { records, reply: () };
    let refused = within("an answer", cluster.voter(active).quorum.decide(decision)).await;
    assert_eq!(refused, Err(SubmitError::NotController));
    assert_eq!(cluster.voter(active).quorum.metrics().log_end_offset, end + 200);
    forget(&cluster, &rest, end).await;
    cluster.network.heal();
    let image = cluster.agree().await;
    assert!(notes(&image).iter().all(|name| !name.starts_with("lost")));
    cluster.check_published();
}
