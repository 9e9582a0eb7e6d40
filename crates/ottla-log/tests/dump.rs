//! What `ottla log dump` shows: every entry of every file, of Ottla's and of Apache Kafka's, and damage where it lies.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ottla_base::Uuid;
use ottla_log::dump::{DumpError, Entry, Kind, files};
use support::closed_directory;

const BATCH_LEN: usize = 73;

/// The entries of one file, in short.
fn look(path: &Path) -> Vec<String> {
    let (mut found, files) = (Vec::new(), files(path).unwrap());
    for file in files {
        let flow = file.read(&mut |entry| {
            found.push(short(&entry));
            ControlFlow::Continue(())
        });
        assert!(flow.unwrap().is_continue());
    }
    found
}

fn short(entry: &Entry<'_>) -> String {
    match entry {
        Entry::Batch { position, batch, is_valid } => {
            let header = batch.header();
            let (base, last) = (header.base_offset, header.last_offset());
            format!("batch {base}..={last} at {position} {is_valid}")
        }
        Entry::Damage { damage, is_unfinished } => {
            let (first, end) = (damage.first_offset, damage.end_offset);
            let (from, to) = (damage.position, damage.end_position);
            format!("damage {first}..{end} at {from}..{to} unfinished {is_unfinished}")
        }
        Entry::Wrong { position, what } => format!("wrong at {position:?}: {what}"),
        Entry::Offset { offset, position } => format!("offset {offset} at {position}"),
        Entry::Time { timestamp, offset } => format!("time {timestamp} offset {offset}"),
        Entry::Aborted { producer_id, first_offset, last_offset, .. } => {
            format!("aborted {producer_id} {first_offset}..={last_offset}")
        }
        Entry::Unused { entries } => format!("unused {entries}"),
        Entry::Producer { id, producer, batch } => {
            let last = batch.map_or(-1, |batch| batch.last_sequence);
            format!("producer {id} epoch {} sequence {last}", producer.epoch)
        }
        Entry::LeaderEpoch { epoch, start_offset } => format!("epoch {epoch} at {start_offset}"),
        Entry::PartitionOffset { partition, offset } => format!("{partition} {offset}"),
        Entry::PartitionMetadata { version, topic_id } => format!("version {version} {topic_id}"),
        Entry::Line(line) => format!("line {line}"),
    }
}

fn segment(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join("t-0").join(name)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.get_mut(at).unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn every_entry_of_every_file_is_shown() {
    let directory = closed_directory();
    let first = look(&segment(&directory, "00000000000000000000.log"));
    assert_eq!(first.len(), 5);
    assert_eq!(first.first().unwrap(), "batch 0..=0 at 0 true");
    assert_eq!(first.last().unwrap(), "batch 4..=4 at 292 true");
    let index = look(&segment(&directory, "00000000000000000005.index"));
    assert_eq!(index, ["offset 6 at 73", "offset 7 at 146"]);
    let times = look(&segment(&directory, "00000000000000000005.timeindex"));
    assert_eq!(times, ["time 1006 offset 6", "time 1007 offset 7"]);
    let producers = look(&segment(&directory, "00000000000000000008.snapshot"));
    let expected = (3..8).map(|n| format!("producer 4 epoch 0 sequence {n}"));
    assert_eq!(producers, expected.collect::<Vec<_>>());
    let epochs = look(&segment(&directory, "leader-epoch-checkpoint"));
    assert_eq!(epochs, ["epoch 0 at 0", "epoch 1 at 5"]);
    let metadata = look(&segment(&directory, "partition.metadata"));
    assert_eq!(metadata, [format!("version 0 {}", Uuid([7; 16]))]);
    let points = look(&directory.path().join("recovery-point-offset-checkpoint"));
    assert_eq!(points, ["t-0 8"]);
    let whole = look(&directory.path().join("t-0"));
    assert_eq!(whole.iter().filter(|line| line.starts_with("batch")).count(), 8);
    assert!(!whole.iter().any(|line| line.starts_with("damage") || line.starts_with("wrong")));
}

#[test]
fn a_flipped_byte_makes_its_batch_invalid_and_no_other() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000000.log");
    for at in [2 * BATCH_LEN + 25, 2 * BATCH_LEN + 70, 2 * BATCH_LEN + 18] {
        flip(&path, at);
        let found = look(&path);
        let expected = [
            "batch 0..=0 at 0 true",
            "batch 1..=1 at 73 true",
            "damage 2..3 at 146..219 unfinished false",
            "batch 2",
            "batch 3..=3 at 219 true",
            "batch 4..=4 at 292 true",
        ];
        assert_eq!(found.len(), expected.len(), "{at}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{at}: {found}");
        }
        assert!(found.get(3).unwrap().ends_with("at 146 false"), "{at}: {found:?}");
        flip(&path, at);
    }
    assert!(!look(&path).iter().any(|line| line.starts_with("damage")));
}

#[test]
fn reading_goes_on_behind_a_length_that_leads_nowhere() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000000.log");
    flip(&path, BATCH_LEN + 8);
    let found = look(&path);
    assert_eq!(found.get(1).unwrap(), "damage 1..2 at 73..146 unfinished false");
    assert_eq!(found.get(2).unwrap(), "batch 2..=2 at 146 true");
}

#[test]
fn an_offset_that_belongs_to_another_batch_is_damage_though_the_checksum_is_right() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000000.log");
    flip(&path, 4 * BATCH_LEN);
    let found = look(&path);
    assert_eq!(found.get(4).unwrap(), "damage 4..5 at 292..365 unfinished false");
    assert!(found.get(5).unwrap().ends_with("at 292 true"), "{found:?}");
}

#[test]
fn a_torn_end_is_unfinished_only_where_recovery_will_cut_it_off() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000005.log");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let torn = look(&path);
    assert_eq!(torn.last().unwrap(), "damage 7..8 at 146..209 unfinished false", "closed at 8");
    std::fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
    let points = "0\n1\nt 0 6\n";
    std::fs::write(directory.path().join("recovery-point-offset-checkpoint"), points).unwrap();
    let torn = look(&path);
    assert!(torn.last().unwrap().ends_with("at 146..209 unfinished true"), "{torn:?}");
}

#[test]
fn a_segment_on_its_way_out_is_read_by_itself() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000000.log");
    for ending in [".deleted", ".1.deleted", ".12.deleted", ".cleaned", ".swap"] {
        let other = PathBuf::from(format!("{}{ending}", path.display()));
        std::fs::copy(&path, &other).unwrap();
        // It holds offsets that the next segment has, too.
        let next = std::fs::read(segment(&directory, "00000000000000000005.log")).unwrap();
        let whole = [std::fs::read(&path).unwrap(), next].concat();
        std::fs::write(&other, whole).unwrap();
        let found = look(&other);
        assert_eq!(found.len(), 8, "{found:?}");
        assert!(found.iter().all(|line| line.ends_with(" true")), "{found:?}");
    }
}

#[test]
fn damage_to_the_other_files_is_told() {
    let directory = closed_directory();
    let index = segment(&directory, "00000000000000000000.index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 9, 7]);
    std::fs::write(&index, bytes).unwrap();
    let found = look(&index);
    assert!(found.iter().any(|line| line.contains("does not rise")), "{found:?}");
    assert!(found.last().unwrap().contains("1 bytes follow"), "{found:?}");
    let snapshot = segment(&directory, "00000000000000000008.snapshot");
    flip(&snapshot, 12);
    assert_eq!(look(&snapshot), ["wrong at None: a snapshot's checksum is wrong"]);
    for name in ["partition.metadata", "leader-epoch-checkpoint"] {
        std::fs::write(segment(&directory, name), [0xff, b'\n', b'\n']).unwrap();
        let found = look(&segment(&directory, name));
        assert!(found.iter().all(|line| line.starts_with("wrong")), "{found:?}");
        assert_eq!(found.len(), 1, "{name}");
    }
}

#[test]
fn whoever_has_seen_enough_is_shown_no_more() {
    let directory = closed_directory();
    let path = segment(&directory, "00000000000000000000.log");
    flip(&path, 2 * BATCH_LEN + 30);
    for wanted in 1..6 {
        let mut seen = 0;
        let flow = files(&path).unwrap().first().unwrap().read(&mut |_| {
            seen += 1;
            if seen == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((seen, flow.unwrap()), (wanted, ControlFlow::Break(())));
    }
}

#[test]
fn what_apache_kafka_wrote_is_shown_whole() {
    let kafka = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka");
    for name in ["codecs-0", "compacted-0", "transactional-0", "transactional-1"] {
        let found = look(&kafka.join(name));
        let of = |kind: &str| found.iter().filter(|line| line.starts_with(kind)).count();
        assert_eq!((of("damage"), of("wrong")), (0, 0), "{name}: {found:?}");
        assert!(of("batch") > 0 && of("epoch") > 0 && of("version 0") == 1, "{name}: {found:?}");
        assert!(of("producer") > 0 || name == "codecs-0", "{name}: {found:?}");
        assert_eq!(of("aborted") > 0, name.starts_with("transactional"), "{name}: {found:?}");
    }
}

#[test]
fn what_is_no_file_of_a_log_is_not_shown() {
    let directory = closed_directory();
    let data = files(directory.path());
    assert!(matches!(data, Err(DumpError::NotALogDirectory(_))), "{data:?}");
    let unknown = directory.path().join("t-0/notes");
    std::fs::write(&unknown, "x").unwrap();
    assert!(matches!(files(&unknown), Err(DumpError::UnknownFile(_))));
    let kinds = files(&directory.path().join("t-0")).unwrap();
    assert_eq!(kinds.iter().filter(|file| file.kind == Kind::Other).count(), 1);
    assert!(matches!(files(&directory.path().join("none")), Err(DumpError::Storage(_))));
}
