//! What a quorum of one promises: order, durability, visibility, restarts.

mod common;

use std::sync::Arc;

use common::{copy_of, create_request, start, start_with_broker};
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch};
use ottla_metadata::{Outcome, controller};
use ottla_protocol::messages::{AllocateProducerIdsRequest, DeleteTopicsRequest};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::SubmitError;

#[tokio::test]
async fn a_new_cluster_is_formatted_and_knows_its_controller() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    let image = node.quorum.image();
    assert_eq!(
        image.features().collect::<Vec<_>>(),
        [("eligible.leader.replicas.version", 1), ("metadata.version", 30)]
    );
    let controller = image.controllers().next().unwrap();
    assert_eq!((controller.id, controller.endpoints[0].port), (1, 9093));
    assert_eq!(node.quorum.metrics().active_epoch, Some(LeaderEpoch(1)));
}

#[tokio::test]
async fn a_created_topic_is_on_disk_visible_and_published_before_the_answer() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    assert_eq!(node.create(&["t"]).await, Ok(vec![ErrorCode::NONE]));

    let image = node.quorum.image();
    let topic = image.topic_by_name("t").unwrap();
    assert_eq!(topic.partition(0.into()).unwrap().leader, BrokerId(1));
    let (published, delta) = node.recorder.last();
    assert!(Arc::ptr_eq(&published, &image));
    assert_eq!(delta.created, [topic.id].into());
    assert_eq!(image.offset.next(), node.quorum.metrics().log_end_offset);
    assert_eq!(image.epoch, LeaderEpoch(1));

    let after_crash = copy_of(path.path());
    let again = start(after_crash.path()).await;
    assert_eq!(again.topics(), ["t"]);
}

#[tokio::test]
async fn everything_is_there_after_a_restart_in_a_later_epoch() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    node.create(&["a", "b", "c"]).await.unwrap();
    let delete = DeleteTopicsRequest { topic_names: vec!["b".into()], ..Default::default() };
    let deleted = node
        .quorum
        .decide(move |desk| controller::delete_topics(desk.image, desk.policy, &delete, 5));
    deleted.await.unwrap();
    let before = node.quorum.image();
    node.stop().await;

    let node = start(path.path()).await;
    assert_eq!(node.quorum.metrics().active_epoch, Some(LeaderEpoch(2)));
    assert_eq!(node.topics(), ["a", "c"]);
    let image = node.quorum.image();
    for topic in before.topics() {
        assert_eq!(image.topic(topic.id), Some(topic));
    }
    assert_eq!(image.brokers().count(), 1);
    assert!(image.offset > before.offset);

    // The first publication tells everything as new.
    let (first, delta) = node.recorder.0.lock().unwrap().first().unwrap().clone();
    assert_eq!(first.topic_count(), 2);
    assert_eq!(delta.created.len(), 2);
    assert!(delta.deleted.is_empty());
    assert!(delta.brokers.contains(&BrokerId(1)));
}

#[tokio::test]
async fn a_log_of_many_segments_is_read_like_one_of_one() {
    let path = tempfile::tempdir().unwrap();
    let node = common::try_start_with(path.path(), 500).await.unwrap();
    let epoch = node.register().await;
    node.unfence(epoch).await;
    for number in 0..20 {
        node.create(&[&format!("t{number:02}")]).await.unwrap();
    }
    let topics = node.topics();
    let segments = |path: &std::path::Path| {
        let files = std::fs::read_dir(common::metadata_log(path)).unwrap();
        files
            .filter(|file| file.as_ref().unwrap().path().extension() == Some("log".as_ref()))
            .count()
    };
    assert!(segments(path.path()) > 5);
    let crashed = copy_of(path.path());
    node.stop().await;
    for path in [path.path(), crashed.path()] {
        let node = common::try_start_with(path, 500).await.unwrap();
        assert_eq!(node.topics(), topics);
        node.create(&["more"]).await.unwrap();
    }
}

#[tokio::test]
async fn epochs_rise_with_every_start_whether_the_last_stop_was_clean_or_not() {
    let path = tempfile::tempdir().unwrap();
    for epoch in 1..=3 {
        let node = start(path.path()).await;
        assert_eq!(node.quorum.metrics().active_epoch, Some(LeaderEpoch(epoch)));
        node.stop().await;
    }
    let mut crashed = copy_of(path.path());
    for epoch in 4..=6 {
        let node = start(crashed.path()).await;
        assert_eq!(node.quorum.metrics().active_epoch, Some(LeaderEpoch(epoch)));
        crashed = copy_of(crashed.path());
    }
}

#[tokio::test]
async fn a_broker_gets_a_new_epoch_with_every_incarnation_and_leads_in_a_later_one() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    node.create(&["t"]).await.unwrap();
    let first = node.quorum.image().broker(BrokerId(1)).unwrap().epoch;
    let epoch = node.register().await;
    assert!(epoch.0 > first);
    let leader = || {
        let image = node.quorum.image();
        let partition = image.topic_by_name("t").unwrap().partition(0.into()).unwrap();
        (partition.leader, partition.leader_epoch)
    };
    assert_eq!(leader(), (BrokerId(-1), LeaderEpoch(1)));
    node.unfence(epoch).await;
    assert_eq!(leader(), (BrokerId(1), LeaderEpoch(2)));
    // The epoch is the offset of the registration, or of what came with it.
    assert!(epoch.0 <= node.quorum.image().offset.0);
}

#[tokio::test]
async fn producer_ids_are_never_handed_out_twice_not_even_after_a_restart() {
    let path = tempfile::tempdir().unwrap();
    let mut starts = Vec::new();
    for _ in 0..2 {
        let node = start_with_broker(path.path()).await;
        let broker_epoch = node.quorum.image().broker(BrokerId(1)).unwrap().epoch;
        let request = AllocateProducerIdsRequest { broker_id: 1, broker_epoch };
        for _ in 0..2 {
            let request = request.clone();
            let allocated = node
                .quorum
                .decide(move |desk| controller::allocate_producer_ids(desk.image, &request));
            let block = allocated.await.unwrap();
            assert_eq!((block.error_code, block.producer_id_len), (ErrorCode::NONE, 1000));
            starts.push(block.producer_id_start);
        }
        node.stop().await;
    }
    assert_eq!(starts, [0, 1000, 2000, 3000]);
}

#[tokio::test]
async fn of_many_who_create_the_same_topic_at_once_one_succeeds() {
    let path = tempfile::tempdir().unwrap();
    let node = Arc::new(start_with_broker(path.path()).await);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.create(&["t"]).await.unwrap()[0] })
        })
        .collect();
    let mut codes = Vec::new();
    for task in tasks {
        codes.push(task.await.unwrap());
        // Whoever is told that the topic exists can see it.
        assert_eq!(node.topics(), ["t"]);
    }
    codes.sort();
    assert_eq!(codes[0], ErrorCode::NONE);
    assert!(codes[1..].iter().all(|code| *code == ErrorCode::TOPIC_ALREADY_EXISTS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_creators_share_the_flushes() {
    let path = tempfile::tempdir().unwrap();
    let node = Arc::new(start_with_broker(path.path()).await);
    let before = node.quorum.metrics();
    let tasks: Vec<_> = (0..500)
        .map(|number| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.create(&[&format!("t{number}")]).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), [ErrorCode::NONE]);
    }
    assert_eq!(node.topics().len(), 500);
    let flushes = node.quorum.metrics().flushes - before.flushes;
    assert!(flushes < 250, "{flushes} flushes for 500 topics");
}

#[tokio::test]
async fn a_request_that_changes_nothing_writes_nothing() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    let before = node.quorum.metrics();
    assert_eq!(node.create(&["no such name"]).await, Ok(vec![ErrorCode::INVALID_TOPIC_EXCEPTION]));
    let mut request = create_request(&["t"], 1);
    request.validate_only = true;
    node.create_with(request).await.unwrap();
    assert_eq!(node.quorum.metrics(), before);
}

/// A name of invalid bytes grows when it is read: from what a request can say to what a record can't.
#[tokio::test]
async fn a_change_that_no_record_can_hold_is_refused_and_the_next_one_is_not() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    let before = node.quorum.metrics();
    let too_long = ConfigRecord {
        resource_type: 32,
        resource_name: "\u{fffd}".repeat(11_000).into(),
        name: "consumer.session.timeout.ms".into(),
        value: Some("45000".into()),
    };
    let decided =
        node.quorum.decide(move |_| Outcome { records: vec![too_long.into()], reply: () });
    assert_eq!(decided.await, Err(SubmitError::Unwritable));
    assert_eq!(node.quorum.metrics(), before);
    assert_eq!(node.create(&["t"]).await, Ok(vec![ErrorCode::NONE]));
}

#[tokio::test]
async fn after_shutdown_nothing_is_decided_any_more() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    node.quorum.shutdown().await;
    let result = node.create(&["t"]).await;
    assert!(matches!(result, Err(SubmitError::Stopped | SubmitError::NotController)), "{result:?}");
    node.quorum.stopped().await;
}

/// Counts, where time would depend on the machine: bytes, flushes and entries per topic stay what they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_two_thousand_topics_costs_what_the_first_did() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    let mut costs = Vec::new();
    for thousand in 0..2 {
        let before = (node.quorum.metrics(), std::fs::metadata(common::segment(path.path())));
        for number in 0..1000 {
            let name = format!("topic-{thousand}-{number:04}");
            assert_eq!(node.create(&[&name]).await, Ok(vec![ErrorCode::NONE]));
        }
        let after = (node.quorum.metrics(), std::fs::metadata(common::segment(path.path())));
        costs.push((
            after.0.flushes - before.0.flushes,
            after.0.log_end_offset - before.0.log_end_offset,
            after.1.unwrap().len() - before.1.unwrap().len(),
        ));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!((costs[0].0, costs[0].1), (1000, 2000));
    assert_eq!(node.topics().len(), 2000);
}

#[tokio::test]
async fn a_directory_whose_log_is_gone_is_not_taken_for_a_new_one() {
    let path = tempfile::tempdir().unwrap();
    start(path.path()).await.stop().await;
    let note = path.path().join("ottla.begun");
    // As a directory that an older version has made: it gets the note.
    std::fs::remove_file(&note).unwrap();
    start(path.path()).await.stop().await;
    assert!(note.exists());
    // The files alone, with the vote left, and then all.
    std::fs::remove_file(common::segment(path.path())).unwrap();
    let error = common::try_start(path.path()).await.unwrap_err().to_string();
    assert!(error.contains("is gone"), "{error}");
    std::fs::remove_dir_all(common::metadata_log(path.path())).unwrap();
    let error = common::try_start(path.path()).await.unwrap_err().to_string();
    assert!(error.contains("formatted anew"), "{error}");
    assert!(!common::metadata_log(path.path()).exists(), "where it is to be put back");
    // As one that was only formatted.
    std::fs::remove_file(&note).unwrap();
    assert!(start(path.path()).await.quorum.image().is_formatted());
}
