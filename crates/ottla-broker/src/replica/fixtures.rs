//! Logs and replicas to test with.

use std::sync::Arc;
use std::time::Duration;

use ottla_base::{BrokerId, LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, OsDisk, SystemClock};
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory};
use ottla_metadata::Partition;
use ottla_records::{BatchBuilder, Compression, Rules, ValidBatch};
use ottla_replication::follower::EpochEnd;

use super::{Fetched, Outboxes, Replica, Standing, Terms};

/// A batch of one record.
pub(crate) fn one_record(time: Timestamp) -> ValidBatch {
    with_a_record(BatchBuilder::new(Compression::None), time)
}

/// A batch of one record of an idempotent producer.
pub(super) fn of_a_producer(sequence: i32) -> ValidBatch {
    let builder = BatchBuilder::new(Compression::None).producer(5, 0, sequence);
    with_a_record(builder, Timestamp(1_000))
}

fn with_a_record(mut builder: BatchBuilder, time: Timestamp) -> ValidBatch {
    builder.append(time, None, Some(b"value"), &[]);
    builder.build()
}

/// A log with a record for each of these times, which nobody flushes but the test.
pub(crate) fn unflushed_log(directory: &tempfile::TempDir, times: &[Timestamp]) -> Arc<Log> {
    unflushed_log_on(Arc::new(OsDisk), directory, times)
}

pub(crate) fn unflushed_log_on(
    disk: Arc<dyn Disk>,
    directory: &tempfile::TempDir,
    times: &[Timestamp],
) -> Arc<Log> {
    let options = DirectoryOptions { disk, ..DirectoryOptions::default() };
    let log = log_with(options, LogConfig::default(), directory);
    for time in times {
        log.append_batch(one_record(*time), LeaderEpoch(0)).unwrap();
    }
    log
}

/// An empty log.
pub(super) fn log_with(
    options: DirectoryOptions,
    config: LogConfig,
    directory: &tempfile::TempDir,
) -> Arc<Log> {
    log_directory_with(options, config, directory).1
}

/// The same with the log directory that it is in.
pub(super) fn log_directory_with(
    options: DirectoryOptions,
    config: LogConfig,
    directory: &tempfile::TempDir,
) -> (LogDirectory, Arc<Log>) {
    let clock = Arc::new(SystemClock::new());
    let logs = LogDirectory::open(directory.path(), config.clone(), options, clock).unwrap();
    let (partition, id) = (TopicPartition::new("t", 0), Uuid([7; 16]));
    let log = logs.create(partition, id, Arc::new(config)).unwrap();
    (logs, log)
}

/// Of a directory that flushes nothing by itself.
pub(super) fn without_threads() -> DirectoryOptions {
    DirectoryOptions { threads: false, ..DirectoryOptions::default() }
}

/// A replica that leads a partition of its own, in leader epoch 0.
pub(crate) fn leading(log: Arc<Log>, outboxes: &Outboxes) -> Replica {
    leading_with(log, outboxes, &[])
}

pub(super) const TERMS: Terms = Terms {
    broker_epoch: Some(1),
    min_insync_replicas: 1,
    lag_max: Duration::from_secs(30),
    fetch_backoff: Duration::from_secs(1),
    now: Duration::ZERO,
};

/// In leader epoch 0, with the first of its replicas as leader and alone in sync.
pub(super) fn a_partition(replicas: &[BrokerId]) -> Partition {
    let leader = *replicas.first().unwrap();
    Partition {
        replicas: replicas.to_vec(),
        directories: vec![Uuid::UNASSIGNED_DIR; replicas.len()],
        isr: vec![leader],
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        eligible_leader_replicas: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_is_recovering: false,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
    }
}

/// A replica that leads a partition in leader epoch 0, in which the others are not in sync yet.
pub(crate) fn leading_with(log: Arc<Log>, outboxes: &Outboxes, others: &[BrokerId]) -> Replica {
    let me = BrokerId(1);
    let (id, rules) = (log.topic_id().unwrap(), Rules::new(log.topic_partition().clone()));
    let start = log.log_start_offset();
    let replica = Replica::new(me, id, log, start, rules, outboxes);
    let partition = a_partition(&[&[me], others].concat());
    assert_eq!(replica.follow_metadata(&partition, &TERMS), Standing::Leads);
    replica
}

/// Lets who leads lead in a later epoch, alone.
pub(crate) fn lead_again(replica: &Replica, leader_epoch: LeaderEpoch) {
    let partition = Partition {
        leader_epoch,
        partition_epoch: leader_epoch.0,
        ..a_partition(&[replica.broker])
    };
    assert_eq!(replica.follow_metadata(&partition, &TERMS), Standing::Leads);
}

/// A replica that follows a partition in leader epoch 0, whose leader is alone in sync.
pub(crate) fn following(log: Arc<Log>, leader: BrokerId) -> Replica {
    let me = BrokerId(1);
    let (id, rules) = (log.topic_id().unwrap(), Rules::new(log.topic_partition().clone()));
    let start = log.log_start_offset();
    let replica = Replica::new(me, id, log, start, rules, &Outboxes::default());
    let partition = Partition { isr: vec![leader], leader, ..a_partition(&[me, leader]) };
    assert_eq!(replica.follow_metadata(&partition, &TERMS), Standing::Follows(leader));
    replica
}

/// Broker 2 leads in leader epoch 1, in which it has committed something else than what was appended here.
pub(crate) fn deposed(replica: &Replica, others: &Log) {
    let leader = BrokerId(2);
    let partition = Partition {
        isr: vec![leader],
        leader,
        leader_epoch: LeaderEpoch(1),
        partition_epoch: 1,
        ..a_partition(&[replica.broker, leader])
    };
    assert_eq!(replica.follow_metadata(&partition, &TERMS), Standing::Follows(leader));
    let end = others.log_end_offset();
    let hear = |fetched| {
        let asked = replica.next_fetch(leader, Duration::ZERO).unwrap();
        replica.on_fetched(leader, &asked, fetched, Duration::ZERO);
    };
    hear(Fetched::Diverged(EpochEnd { epoch: LeaderEpoch(0), end_offset: Offset(0) }));
    let records = others.read(Offset(0), 10_000, end, true).unwrap().source.unwrap();
    let records = records.read().unwrap();
    hear(Fetched::Records { records, high_watermark: end, log_start: Offset(0) });
    replica.log().flush().unwrap();
    replica.on_flushed();
    assert_eq!(replica.high_watermark(), end);
}
