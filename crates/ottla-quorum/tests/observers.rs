//! What nodes without a vote promise: they see what is committed, whoever leads, and change no majority.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{Cluster, PATIENCE, Voter, directory_id, notes, within};
use ottla_base::{BrokerId, Offset, TopicPartition, Uuid};
use ottla_metadata::controller::BrokerEpoch;
use ottla_metadata::{MetadataRecord, Outcome, feature};
use ottla_protocol::messages::{BrokerHeartbeatRequest, BrokerRegistrationRequest};
use ottla_quorum::SubmitError;
use ottla_records::RawBatch;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Those whom the active one of these nodes feeds.
fn observers(cluster: &Cluster, active: i32) -> Vec<(i32, Uuid)> {
    let states = cluster.voter(active).quorum.observer_states();
    states.iter().map(|it| (it.voter.id.0, it.voter.directory_id)).collect()
}

fn new() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn an_observer_of_a_lone_voter_sees_what_is_committed_and_decides_nothing() {
    let mut cluster = Cluster::start(1).await;
    cluster.put(&[1], "before").await;
    cluster.start_observer(4, directory_id(4), new()).await;
    cluster.put(&[1], "after").await;
    assert_eq!(notes(&cluster.agree().await), set(&["before", "after", "the last word"]));
    assert_eq!(observers(&cluster, 1), [(4, directory_id(4))]);
    assert_eq!(cluster.voter(4).put("no").await, Err(SubmitError::NotController));
    assert_eq!(cluster.voter(1).quorum.voters().len(), 1);
    cluster.kill(4);
    cluster.put(&[1], "it is not needed").await;
}

#[tokio::test]
async fn observers_follow_every_leader_and_come_back_after_a_restart() {
    let mut cluster = Cluster::start(3).await;
    cluster.start_observer(4, directory_id(4), new()).await;
    cluster.start_observer(5, directory_id(5), new()).await;
    cluster.put(&[1, 2, 3], "a").await;
    cluster.agree().await;
    let first = cluster.active_of(&[1, 2, 3]).await;
    assert_eq!(observers(&cluster, first), [(4, directory_id(4)), (5, directory_id(5))]);
    cluster.kill(first);
    let path = cluster.kill(4);
    let left: Vec<i32> = [1, 2, 3].into_iter().filter(|id| *id != first).collect();
    cluster.put(&left, "b").await;
    cluster.start_observer(4, directory_id(4), path).await;
    assert_eq!(notes(&cluster.agree().await), set(&["a", "b", "the last word"]));
    cluster.check_published();
    // Two of three voters are gone: observers make no majority.
    let second = cluster.active_of(&left).await;
    let last = left.into_iter().find(|id| *id != second).unwrap();
    cluster.kill(last);
    let quorum = &cluster.voter(second).quorum;
    within("it to step down", quorum.active().wait_for(Option::is_none)).await.unwrap();
    assert_eq!(cluster.voter(second).put("c").await, Err(SubmitError::NotController));
}

#[tokio::test]
async fn a_voter_that_lost_its_disk_follows_as_an_observer_and_is_no_voter() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "a").await;
    cluster.kill(3);
    let another = Uuid([33; 16]);
    cluster.start_observer(3, another, new()).await;
    assert_eq!(notes(&cluster.agree().await), set(&["a", "the last word"]));
    let active = cluster.active_of(&[1, 2]).await;
    assert_eq!(observers(&cluster, active), [(3, another)]);
    let voters = cluster.voter(active).quorum.voters();
    assert_eq!(voters[2].id, BrokerId(3));
    assert_eq!(voters[2].directory_id, directory_id(3), "the lost one is still named");
    // With another voter gone, there is no majority, whatever the new disk has.
    let other = 3 - active;
    cluster.kill(other);
    let quorum = &cluster.voter(active).quorum;
    within("it to step down", quorum.active().wait_for(Option::is_none)).await.unwrap();
    // It is restarted on what it has, and still no voter.
    let path = cluster.kill(3);
    cluster.start_observer(3, another, path).await;
    assert_eq!(cluster.voter(3).put("b").await, Err(SubmitError::NotController));
}

fn registration(id: i32) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest {
        broker_id: id,
        cluster_id: "cluster".into(),
        incarnation_id: directory_id(id),
        features: feature::of_registration(),
        log_dirs: vec![directory_id(id)],
        ..Default::default()
    }
}

/// Where a voter's log has a broker's registration.
fn registered_at(voter: &Voter, id: i32) -> i64 {
    let is_it = |value: Bytes| {
        let (_, record) = MetadataRecord::decode(value).unwrap();
        matches!(record, MetadataRecord::RegisterBroker(it) if it.broker_id == id)
    };
    let found = voter.log().into_iter().find_map(|(offset, bytes)| {
        let batch = RawBatch::parse(bytes).unwrap();
        if batch.header().attributes.is_control() {
            return None;
        }
        let mut records = batch.records().unwrap().map(Result::unwrap);
        Some(offset + records.position(|it| is_it(it.value.unwrap()))? as i64)
    });
    found.unwrap()
}

/// Whether a broker that has followed the log up to an offset is let in.
async fn is_let_in(voter: &Voter, id: i32, epoch: BrokerEpoch, offset: i64) -> bool {
    let request = BrokerHeartbeatRequest {
        broker_id: id,
        broker_epoch: epoch.0,
        current_metadata_offset: offset,
        ..Default::default()
    };
    !voter.quorum.broker_heartbeat(request).await.unwrap().unwrap().is_fenced
}

/// The records of an observer's membership are nobody's decision, and count as others do.
#[tokio::test]
async fn the_epoch_of_a_broker_is_where_its_registration_is_though_an_observer_came_before() {
    let mut cluster = Cluster::start(1).await;
    cluster.put(&[1], "before").await;
    cluster.start_observer(4, directory_id(4), new()).await;
    cluster.agree().await;
    let voter = cluster.voter(1);
    let epoch = voter.quorum.register_broker(registration(5)).await.unwrap().unwrap();
    assert_eq!(epoch.0, registered_at(voter, 5));
    assert!(!is_let_in(voter, 5, epoch, epoch.0 - 1).await);
    assert!(is_let_in(voter, 5, epoch, epoch.0).await);
}

/// The decision is made for one offset, and its records come to be at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_knows_its_registration_before_it_is_let_in_though_an_observer_comes_meanwhile() {
    let mut cluster = Cluster::start(1).await;
    cluster.put(&[1], "before").await;
    let voter = cluster.voter(1);
    let log = voter.directory.log(&TopicPartition::new("__cluster_metadata", 0)).unwrap();
    let quorum = Arc::clone(&voter.quorum);
    let (decides, is_deciding) = tokio::sync::oneshot::channel();
    let registered = tokio::spawn(async move {
        let decision = quorum.decide(move |desk| {
            let end = log.log_end_offset();
            decides.send(()).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while log.log_end_offset() == end {
                assert!(Instant::now() < deadline, "nobody came");
                std::thread::yield_now();
            }
            let situation = desk.situation();
            let Outcome { records, reply } =
                desk.liveness.on_registration(situation, &registration(5)).unwrap();
            Outcome { records, reply }
        });
        within("the registration", decision).await.unwrap()
    });
    is_deciding.await.unwrap();
    cluster.start_observer(4, directory_id(4), new()).await;
    let epoch = registered.await.unwrap();
    let voter = cluster.voter(1);
    let offset = registered_at(voter, 5);
    assert!(epoch.0 < offset, "nothing came between");
    assert!(!is_let_in(voter, 5, epoch, offset - 1).await);
    assert!(is_let_in(voter, 5, epoch, offset).await);
}

#[tokio::test]
async fn a_node_with_the_id_of_one_that_lives_does_not_take_its_place() {
    let mut cluster = Cluster::start(1).await;
    let (first, second) = (directory_id(4), Uuid([44; 16]));
    cluster.start_observer(4, first, new()).await;
    for name in ["a", "after it was added"] {
        cluster.put(&[1], name).await;
        cluster.voter(4).sees(name, |image| notes(image).contains(name)).await;
    }
    let before = cluster.voter(1).quorum.image().offset;
    cluster.start_impostor(5, 4, second, new()).await;
    within("the second to have asked often, and the first again", async {
        let first_had = cluster.network.sent_by(4);
        while cluster.network.sent_by(5) < 20 || cluster.network.sent_by(4) == first_had {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(cluster.voter(1).quorum.image().offset, before, "the log has grown");
    assert_eq!(observers(&cluster, 1), [(4, first)]);
    cluster.put(&[1], "b").await;
    cluster.voter(4).sees("b", |image| notes(image).contains("b")).await;
    assert!(cluster.voter(5).quorum.image().offset < before, "the second one is fed");
    // Once the first is gone its place is free.
    let path = cluster.kill(4);
    cluster.voter(5).sees("b", |image| notes(image).contains("b")).await;
    assert_eq!(observers(&cluster, 1), [(4, second)]);
    cluster.start_observer(4, first, path).await;
    cluster.put(&[1], "c").await;
    cluster.voter(5).sees("c", |image| notes(image).contains("c")).await;
    assert_eq!(observers(&cluster, 1), [(4, second)]);
}

/// The one that would have to say so is the twin itself.
#[tokio::test]
async fn a_node_with_the_id_of_the_active_controller_is_told_so_and_gets_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.put(&[1, 2, 3], "a").await;
    let active = cluster.active_of(&[1, 2, 3]).await;
    cluster.start_impostor(5, active, Uuid([55; 16]), new()).await;
    let twin = &cluster.voter(5).quorum;
    within("it to be told", async {
        while !twin.is_id_taken() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(twin.image().offset, Offset(-1));
    assert_eq!(observers(&cluster, active), []);
    assert!((1..=3).all(|id| !cluster.voter(id).quorum.is_id_taken()));
    cluster.put(&[1, 2, 3], "b").await;
}
