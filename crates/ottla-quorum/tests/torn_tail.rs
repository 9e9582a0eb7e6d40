//! A crash in the middle of CreateTopics leaves all of a request's topics, or nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{copy_of, create_request, segment, start, start_with_broker, try_start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_log_is_cut_each_request_is_there_whole_or_not_at_all() {
    let path = tempfile::tempdir().unwrap();
    let node = start_with_broker(path.path()).await;
    let mut ends = vec![(len(path.path()), 0)];
    for (request, names) in [&["a"][..], &["b", "c"]].into_iter().enumerate() {
        node.create_with(create_request(names, 1)).await.unwrap();
        ends.push((len(path.path()), request + 1));
    }
    let whole = std::fs::read(segment(path.path())).unwrap();
    let expected: [&[&str]; 3] = [&[], &["a"], &["a", "b", "c"]];

    for cut in ends[0].0..=ends[2].0 {
        let copy = copy_of(path.path());
        std::fs::write(segment(copy.path()), &whole[..cut]).unwrap();
        let again = start(copy.path()).await;
        let requests = ends.iter().rev().find(|(end, _)| *end <= cut).unwrap().1;
        assert_eq!(again.topics(), expected[requests], "cut at byte {cut}");
        for topic in again.quorum.image().topics() {
            assert_eq!(topic.partition_count(), 1);
        }
    }
}

#[tokio::test]
async fn a_log_cut_within_its_first_entries_can_be_begun_again() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    let whole = std::fs::read(segment(path.path())).unwrap();
    drop(node);
    for cut in 0..whole.len() {
        let copy = copy_of(path.path());
        std::fs::write(segment(copy.path()), &whole[..cut]).unwrap();
        // It comes when the first entry is on disk: a crash that leaves less leaves none.
        std::fs::remove_file(copy.path().join("ottla.begun")).unwrap();
        let again = try_start(copy.path()).await;
        let again = again.unwrap_or_else(|error| panic!("cut at byte {cut}: {error}"));
        assert!(again.quorum.image().is_formatted(), "cut at byte {cut}");
    }
}

#[tokio::test]
async fn a_record_that_is_not_understood_keeps_the_node_from_starting() {
    use ottla_base::{LeaderEpoch, Timestamp, TopicPartition};
    use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
    use ottla_protocol::records::{AccessControlEntryRecord, MetadataRecord};
    use ottla_records::{BatchBuilder, Compression};

    let path = tempfile::tempdir().unwrap();
    start(path.path()).await.stop().await;
    let clock = std::sync::Arc::new(ottla_env::SystemClock::new());
    let (config, options) = (LogConfig::default(), DirectoryOptions::default());
    let directory = LogDirectory::open(path.path(), config, options, clock).unwrap();
    let log = directory.log(&TopicPartition::new("__cluster_metadata", 0)).unwrap();
    let mut builder = BatchBuilder::new(Compression::None);
    let record = MetadataRecord::from(AccessControlEntryRecord::default());
    builder.append(Timestamp(0), None, Some(&record.encode(0).unwrap()), &[]);
    log.append_batch(builder.build(), LeaderEpoch(1)).unwrap();
    directory.close(-1).unwrap();
    drop((log, directory));

    let error = try_start(path.path()).await.unwrap_err().to_string();
    assert!(error.contains("AccessControlEntryRecord"), "{error}");
}

fn len(path: &std::path::Path) -> usize {
    usize::try_from(std::fs::metadata(segment(path)).unwrap().len()).unwrap()
}
