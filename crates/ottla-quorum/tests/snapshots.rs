//! A quorum of one whose log's beginning goes into snapshots: it starts from them, and from nothing that is none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Node, copy_of, metadata_log, try_start_snapshotting};
use ottla_base::{LeaderEpoch, Offset, TopicPartition};
use ottla_metadata::{Image, Outcome};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::{SnapshotLimits, StartError};
use ottla_records::Batches;

/// Segments so small that many of them go.
const SEGMENT_BYTES: u64 = 2000;
const LIMITS: SnapshotLimits = SnapshotLimits {
    bytes_between: 3000,
    interval_ms: 0,
    retention_bytes: 20_000,
    retention_ms: -1,
};

async fn try_start(path: &Path) -> Result<Node, StartError> {
    try_start_snapshotting(path, SEGMENT_BYTES, LIMITS).await
}

async fn start(path: &Path) -> Node {
    try_start(path).await.unwrap()
}

/// Sets a group's configuration; groups repeat, so that the image stays small.
async fn change(node: &Node, number: usize) {
    let record = ConfigRecord {
        resource_type: 32,
        resource_name: format!("group-{}", number % 7).into(),
        name: "consumer.session.timeout.ms".into(),
        value: Some((45_000 + number).to_string().into()),
    };
    let decision = node.quorum.decide(move |_| Outcome { records: vec![record.into()], reply: () });
    decision.await.unwrap();
}

/// Makes changes while this, of how many were made, holds.
async fn change_while(node: &Node, what: &str, mut goes_on: impl FnMut(usize) -> bool) {
    let mut number = 0;
    while goes_on(number) {
        change(node, number).await;
        number += 1;
        assert!(number < 10_000, "{what}");
    }
}

/// Makes changes until so many snapshots are there, a hundred at least.
async fn change_until(node: &Node, path: &Path, count: usize) {
    let goes_on = |number| snapshots(path).len() < count || number < 100;
    change_while(node, "there are no snapshots", goes_on).await;
}

async fn change_until_the_log_is_cut(node: &Node) {
    change_while(node, "the log is kept whole", |_| log_start(node) == Offset(0)).await;
}

/// The snapshots, oldest first.
fn snapshots(path: &Path) -> Vec<PathBuf> {
    names(path, ".checkpoint")
}

fn names(path: &Path, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(metadata_log(path)).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut found: Vec<_> = paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(ending) && name.as_bytes()[20] == b'-'
        })
        .collect();
    found.sort();
    found
}

/// Bytes of all files that were not deleted.
fn bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(metadata_log(path)).unwrap().map(|file| file.unwrap());
    let alive = files.filter(|file| !file.path().to_string_lossy().ends_with(".deleted"));
    alive.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn log_start(node: &Node) -> Offset {
    let log = node.directory.log(&TopicPartition::new("__cluster_metadata", 0)).unwrap();
    log.log_start_offset()
}

/// The same cluster, but for where its log is by now.
fn assert_same_state(mut one: Image, other: &Image) {
    (one.offset, one.epoch) = (other.offset, other.epoch);
    assert_eq!(one, *other);
}

#[tokio::test]
async fn a_start_goes_on_from_the_newest_snapshot_after_a_stop_and_after_a_crash() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    change_until(&node, path.path(), 3).await;
    let image = Image::clone(&node.quorum.image());
    let crashed = copy_of(path.path());
    node.stop().await;
    assert!(names(path.path(), ".part").is_empty());
    for path in [path.path(), crashed.path()] {
        let node = start(path).await;
        assert_same_state(image.clone(), &node.quorum.image());
        let (first, delta) = node.recorder.0.lock().unwrap()[0].clone();
        assert_same_state(image.clone(), &first);
        // Seven groups, and the cluster's own `min.insync.replicas`.
        assert_eq!(delta.configs.len(), 8, "all of it is told as new");
        change(&node, 1).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn the_log_and_old_snapshots_go_and_never_what_the_newest_snapshot_needs() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    change_until_the_log_is_cut(&node).await;
    // What one snapshot and two segments add, and indexes, is on top of what may be kept.
    let goes_on = |number| number < 1000 || bytes(path.path()) > 40_000;
    change_while(&node, "more is kept than may be", goes_on).await;
    let kept = snapshots(path.path());
    assert!(!kept.is_empty() && kept.len() < 10, "{kept:?}");
    let newest = kept.last().unwrap().file_name().unwrap().to_str().unwrap()[..20].to_owned();
    assert!(log_start(&node) > Offset(0));
    assert!(log_start(&node).0 <= newest.parse().unwrap());
    let image = Image::clone(&node.quorum.image());
    node.stop().await;
    let node = start(path.path()).await;
    assert_same_state(image, &node.quorum.image());
}

/// Every byte of every kind of damage would take too long; every part of the file has some.
#[tokio::test]
async fn a_damaged_snapshot_is_never_taken_for_one_and_an_older_one_is() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    change_until(&node, path.path(), 3).await;
    let image = Image::clone(&node.quorum.image());
    node.stop().await;
    let newest = snapshots(path.path()).pop().unwrap();
    let name = newest.file_name().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    let batches = Batches::new(whole.clone().into()).map(|batch| batch.unwrap().bytes().len());
    // Between two batches nothing but the missing footer tells that it is cut off.
    let ends = batches.scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    let cuts = ends.flat_map(|end| [end - 1, end]).chain([0, 1, 60, 61, 100]);
    let cuts = cuts.filter(|len| *len < whole.len());
    let mut damaged: Vec<Vec<u8>> = cuts.map(|len| whole[..len].to_vec()).collect();
    assert!(damaged.len() >= 10, "header, records, footer");
    for at in [5, 20, 70, 100, whole.len() / 2, whole.len() - 5] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        damaged.push(flipped);
    }
    damaged.push([&*whole, &whole].concat());
    for (number, bytes) in damaged.into_iter().enumerate() {
        let copy = copy_of(path.path());
        std::fs::write(metadata_log(copy.path()).join(name), bytes).unwrap();
        let node = start(copy.path()).await;
        assert_same_state(image.clone(), &node.quorum.image());
        assert!(!metadata_log(copy.path()).join(name).exists(), "number {number} was taken");
        assert_eq!(names(copy.path(), ".checkpoint.damaged").len(), 1);
    }
}

#[tokio::test]
async fn without_a_whole_snapshot_and_without_the_logs_beginning_a_node_does_not_start() {
    let path = tempfile::tempdir().unwrap();
    let node = start(path.path()).await;
    change_until_the_log_is_cut(&node).await;
    node.stop().await;
    let copy = copy_of(path.path());
    for snapshot in snapshots(copy.path()) {
        let len = std::fs::metadata(&snapshot).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&snapshot).unwrap();
        file.set_len(len - 1).unwrap();
    }
    let error = try_start(copy.path()).await.unwrap_err().to_string();
    assert!(error.contains("no whole snapshot") && error.contains("cut off"), "{error}");
    // They are still there for whoever wants to look.
    assert!(!snapshots(copy.path()).is_empty());

    let copy = copy_of(path.path());
    snapshots(copy.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let error = try_start(copy.path()).await.unwrap_err().to_string();
    assert!(error.contains("no whole snapshot") && error.contains("there is none"), "{error}");
}

#[tokio::test]
async fn a_half_written_snapshot_is_removed_and_one_of_a_whole_log_is_not_needed() {
    let path = tempfile::tempdir().unwrap();
    let keeps_all = SnapshotLimits { retention_bytes: -1, ..LIMITS };
    let node = try_start_snapshotting(path.path(), SEGMENT_BYTES, keeps_all).await.unwrap();
    change_until(&node, path.path(), 2).await;
    let image = Image::clone(&node.quorum.image());
    node.stop().await;
    for snapshot in snapshots(path.path()) {
        let part = format!("{}.0.part", snapshot.display());
        std::fs::rename(&snapshot, &part).unwrap();
    }
    let node = start(path.path()).await;
    assert_same_state(image, &node.quorum.image());
    node.stop().await;
    assert!(names(path.path(), ".part").is_empty());
}

#[tokio::test]
async fn entries_are_counted_on_from_a_snapshot_whatever_came_before() {
    let path = tempfile::tempdir().unwrap();
    for epoch in 1..=4 {
        let node = start(path.path()).await;
        assert_eq!(node.quorum.metrics().active_epoch, Some(LeaderEpoch(epoch)));
        let count = snapshots(path.path()).len();
        let goes_on = |number| snapshots(path.path()).len() <= count && number < 300;
        change_while(&node, "300 are enough", goes_on).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn time_makes_a_snapshot_due_of_everything_that_is_there() {
    let path = tempfile::tempdir().unwrap();
    let limits = SnapshotLimits { bytes_between: 1 << 40, interval_ms: 50, ..LIMITS };
    let node = try_start_snapshotting(path.path(), SEGMENT_BYTES, limits).await.unwrap();
    for number in 0..3 {
        change(&node, number).await;
        let end = format!("{:020}-", node.quorum.image().offset.0 + 1);
        let patience = tokio::time::Instant::now() + Duration::from_secs(20);
        while !snapshots(path.path()).iter().any(|it| it.to_string_lossy().contains(&end)) {
            assert!(tokio::time::Instant::now() < patience, "there is no snapshot of {end}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_of_nothing_that_a_storage_tool_has_left_is_passed_over() {
    let path = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(metadata_log(path.path())).unwrap();
    let name = "00000000000000000000-0000000000.checkpoint";
    std::fs::write(metadata_log(path.path()).join(name), b"who the first voters are").unwrap();
    for _ in 0..2 {
        let node = start(path.path()).await;
        change(&node, 1).await;
        node.stop().await;
    }
    assert!(metadata_log(path.path()).join(name).exists());
}
