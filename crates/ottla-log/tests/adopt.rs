//! Logs that Apache Kafka 4.3.1 wrote (`tests/kafka`, with the records that its consumer delivered): checked, announced,
//! and read back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_env::ManualClock;
use ottla_log::adopt::{AdoptError, Adoption, announce};
use ottla_log::verify::{Options, Weight, verify};
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory};
use support::read_all;

const TOPICS: [(&str, i32); 3] = [("codecs", 1), ("compacted", 1), ("transactional", 2)];

fn written_by_kafka() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka")
}

fn open(path: &Path) -> LogDirectory {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let (config, options) = (LogConfig::default(), DirectoryOptions::default());
    LogDirectory::open(path, config, options, clock).unwrap()
}

/// A data directory of Ottla's, closed.
fn empty_data_directory(clean: bool) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let logs = open(temporary.path());
    if clean {
        logs.close(1).unwrap();
    }
    let meta = "version=1\ncluster.id=c\nnode.id=1\ndirectory.id=d\n";
    std::fs::write(temporary.path().join("meta.properties"), meta).unwrap();
    temporary
}

/// With Kafka's logs put among its own.
fn data_directory(clean: bool) -> tempfile::TempDir {
    let temporary = empty_data_directory(clean);
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            let name = format!("{topic}-{partition}");
            let to = temporary.path().join(&name);
            std::fs::create_dir(&to).unwrap();
            for entry in std::fs::read_dir(written_by_kafka().join(&name)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    temporary
}

fn announce_all(directory: &Path) -> Vec<Adoption> {
    let announce = |(topic, _): (&str, i32)| {
        announce(&[directory.join(format!("{topic}-0"))], vec![], false).unwrap()
    };
    TOPICS.into_iter().map(announce).collect()
}

/// `PARTITION OFFSET KEY VALUE`, as Kafka's consumer printed it.
fn delivered(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(written_by_kafka().join(file)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn records(log: &Log, is_wanted: impl Fn(i64, Offset) -> bool) -> Vec<String> {
    let partition = log.topic_partition().partition;
    let mut lines = Vec::new();
    for batch in read_all(log) {
        batch.clone().verify_crc().unwrap();
        let attributes = batch.header().attributes;
        if attributes.is_control() {
            continue;
        }
        let producer = if attributes.is_transactional() { batch.header().producer_id } else { -1 };
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            if is_wanted(producer, record.offset) {
                let text = |bytes: Option<&bytes::Bytes>| {
                    bytes.map_or_else(
                        || "null".to_owned(),
                        |bytes| String::from_utf8(bytes.to_vec()).unwrap(),
                    )
                };
                let (key, value) = (text(record.key.as_ref()), text(record.value.as_ref()));
                lines.push(format!("{partition} {} {key} {value}", record.offset));
            }
        }
    }
    lines
}

fn all_records(logs: &LogDirectory, topic: &str, partitions: i32) -> Vec<String> {
    let log = |partition| logs.log(&TopicPartition::new(topic, partition)).unwrap();
    (0..partitions).flat_map(|partition| records(&log(partition), |_, _| true)).collect()
}

#[test]
fn nothing_is_wrong_with_what_kafka_wrote() {
    let directory = data_directory(true);
    let report = verify(directory.path(), Options { deep: true }).unwrap();
    let wrong: Vec<_> =
        report.findings.iter().filter(|finding| finding.weight > Weight::Note).collect();
    assert_eq!(wrong, Vec::<&ottla_log::verify::Finding>::new());
    assert_eq!(report.partitions, 4);
    assert!(report.batches > 20, "{}", report.batches);
}

#[test]
fn announced_logs_are_read_as_kafka_delivered_them_whether_or_not_a_crash_came_before() {
    for clean in [true, false] {
        let directory = data_directory(clean);
        let announced = announce_all(directory.path());
        let logs = open(directory.path());
        let mut pending = logs.adoptions().unwrap();
        pending.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert_eq!(pending, announced);
        for (topic, partitions) in TOPICS {
            assert_eq!(all_records(&logs, topic, partitions), delivered(topic), "clean: {clean}");
        }
        for adoption in pending {
            logs.adopted(&adoption).unwrap();
        }
        assert_eq!(logs.adoptions().unwrap(), []);
    }
}

#[test]
fn readers_of_committed_data_get_what_kafka_gave_them() {
    let directory = data_directory(true);
    announce_all(directory.path());
    let logs = open(directory.path());
    let mut found = Vec::new();
    for partition in 0..2 {
        let log = logs.log(&TopicPartition::new("transactional", partition)).unwrap();
        let end = log.log_end_offset();
        assert_eq!(log.last_stable_offset(end), end);
        let aborted = log.aborted_transactions(&(Offset(0)..end)).unwrap();
        assert!(!aborted.is_empty());
        let is_committed = |producer: i64, offset: Offset| {
            !aborted.iter().any(|it| {
                it.producer_id.0 == producer && (it.first_offset..it.last_offset).contains(&offset)
            })
        };
        found.extend(records(&log, is_committed));
    }
    assert_eq!(found, delivered("committed"));
    assert!(found.len() < delivered("transactional").len());
    let indexes = || {
        let path = |n| format!("transactional-{n}/00000000000000000000.txnindex");
        [0, 1].map(|n| std::fs::read(directory.path().join(path(n))).unwrap())
    };
    let written_by_kafka = indexes();
    logs.scrub();
    assert_eq!(logs.scrub_progress().segments, 5);
    assert_eq!(indexes(), written_by_kafka);
}

#[test]
fn records_are_appended_behind_those_of_kafka() {
    let directory = data_directory(true);
    announce_all(directory.path());
    let logs = open(directory.path());
    let log = logs.log(&TopicPartition::new("codecs", 0)).unwrap();
    let epoch = LeaderEpoch(log.latest_epoch().unwrap().0 + 1);
    let mut builder = ottla_records::BatchBuilder::new(ottla_records::Compression::None);
    builder.append(Timestamp(1_000), Some(b"k"), Some(b"new"), &[]);
    let end = log.log_end_offset();
    log.append_batch(builder.build(), epoch).unwrap();
    let mut expected = delivered("codecs");
    expected.push(format!("0 {end} k new"));
    assert_eq!(records(&log, |_, _| true), expected);
}

#[test]
fn what_cannot_be_adopted_is_refused_and_left_as_it_is() {
    let directory = data_directory(true);
    let path = |name: &str| directory.path().join(name);
    let refused = |name: &str| announce(&[path(name)], vec![], false).unwrap_err();
    std::fs::rename(path("transactional-0"), path("elsewhere")).unwrap();
    assert!(matches!(refused("transactional-1"), AdoptError::Missing { missing: 0, .. }));
    std::fs::rename(path("elsewhere"), path("transactional-0")).unwrap();

    let metadata = path("transactional-1/partition.metadata");
    let own = std::fs::read(&metadata).unwrap();
    std::fs::copy(path("codecs-0/partition.metadata"), &metadata).unwrap();
    assert!(matches!(refused("transactional-0"), AdoptError::OtherTopic { .. }));
    std::fs::remove_file(&metadata).unwrap();
    assert!(matches!(refused("transactional-0"), AdoptError::NoTopicId(_)));
    std::fs::write(&metadata, own).unwrap();

    let log = path("transactional-1/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    assert!(matches!(refused("transactional-0"), AdoptError::Damaged(_)));
    bytes[100] ^= 1;
    std::fs::write(&log, &bytes).unwrap();

    assert!(matches!(refused("meta.properties"), AdoptError::NotAPartition(_)));
    let logs = open(directory.path());
    assert!(matches!(refused("transactional-0"), AdoptError::Open(_)), "a broker is running");
    drop(logs);
    let markers: BTreeSet<_> = TOPICS
        .into_iter()
        .map(|(topic, _)| path(&format!("{topic}-0/ottla.adopt")))
        .filter(|marker| marker.exists())
        .collect();
    assert_eq!(markers, BTreeSet::new());
    announce(&[path("transactional-1")], vec![], false).unwrap();
}

#[test]
fn damage_that_was_accepted_is_quarantined_and_the_rest_is_read() {
    let directory = data_directory(false);
    let log = directory.path().join("codecs-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    // The length of the first batch.
    bytes[9] ^= 0x40;
    std::fs::write(&log, &bytes).unwrap();
    announce(&[directory.path().join("codecs-0")], vec![], true).unwrap();
    let logs = open(directory.path());
    let codecs = logs.log(&TopicPartition::new("codecs", 0)).unwrap();
    codecs.doubt(Offset(0)).unwrap();
    let [damage] = &codecs.quarantined()[..] else { panic!("{:?}", codecs.quarantined()) };
    assert_eq!(damage.position, 0);
    assert_eq!(std::fs::metadata(&log).unwrap().len(), bytes.len() as u64, "nothing is cut off");
    let end = codecs.log_end_offset();
    assert!(codecs.read(Offset(0), 1, end, true).is_err());
    assert!(codecs.read(damage.end_offset, 1, end, true).unwrap().source.is_some());
}

/// Kafka's format, with one producer that has no batches.
fn snapshot_of(producer_id: i64) -> Vec<u8> {
    let mut checked = 1_i32.to_be_bytes().to_vec();
    checked.extend(producer_id.to_be_bytes());
    checked.extend(0_i16.to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend(0_i32.to_be_bytes());
    checked.extend(1_000_i64.to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    let crc = ottla_records::crc32c(&checked);
    [&1_i16.to_be_bytes()[..], &crc.to_be_bytes(), &checked].concat()
}

#[test]
fn an_id_that_only_a_snapshot_remembers_is_not_given_out_again() {
    let directory = data_directory(true);
    let path = directory.path().join("codecs-0");
    let id = || announce(std::slice::from_ref(&path), vec![], false).unwrap().largest_producer_id;
    let in_batches = id();
    assert!(in_batches < 4711, "{in_batches}");
    std::fs::write(path.join("00000000000000000060.snapshot"), snapshot_of(4711)).unwrap();
    assert_eq!(id(), 4711);
    let logs = open(directory.path());
    let log = logs.log(&TopicPartition::new("codecs", 0)).unwrap();
    assert!(log.producers().iter().any(|(id, _)| id.0 == 4711), "the log does remember it");
}

#[test]
fn partitions_in_several_data_directories_are_announced_when_each_of_these_is_named() {
    let (a, b) = (data_directory(true), empty_data_directory(true));
    let of_a = |name: &str| a.path().join(name);
    let of_b = |name: &str| b.path().join(name);
    std::fs::rename(of_a("transactional-1"), of_b("transactional-1")).unwrap();
    let announce = |paths: &[PathBuf]| announce(paths, vec![], false);

    let alone = announce(&[of_b("transactional-1")]).unwrap_err();
    assert!(matches!(alone, AdoptError::Missing { missing: 0, last: 1, .. }), "{alone}");
    let others = announce(&[of_a("codecs-0"), of_b("transactional-1")]).unwrap_err();
    assert!(matches!(others, AdoptError::TwoTopics { .. }), "{others}");
    std::fs::create_dir(of_b("transactional-0")).unwrap();
    let twice = announce(&[of_a("transactional-0"), of_b("transactional-1")]).unwrap_err();
    assert!(matches!(twice, AdoptError::Twice { .. }), "{twice}");
    std::fs::remove_dir(of_b("transactional-0")).unwrap();

    let both = [of_b("transactional-1"), of_a("transactional-0"), of_a("transactional-1")];
    let announced = announce(&both).unwrap();
    assert_eq!(announced.partitions, 2);
    let (in_a, in_b) = (open(a.path()), open(b.path()));
    assert_eq!(in_a.adoptions().unwrap(), [announced]);
    assert_eq!(in_b.adoptions().unwrap(), []);
    let mut found = all_records(&in_a, "transactional", 1);
    let log = in_b.log(&TopicPartition::new("transactional", 1)).unwrap();
    found.extend(records(&log, |_, _| true));
    assert_eq!(found, delivered("transactional"));
}
