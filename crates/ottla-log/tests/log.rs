//! A log as its users see it: append, read, roll, reopen, look up, retain, truncate, delete.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_base::{LeaderEpoch, Offset, ProducerId, Timestamp, TopicPartition, Uuid};
use ottla_log::producers::{Producer, ProducerRefusal};
use ottla_log::{AppendError, Appended, Log, LogConfig, Origin, ReadError};
use ottla_records::ControlType;
use support::{Directory, Draft, batch, batch_at, marker, read_all};

const END: Offset = Offset(i64::MAX);

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

#[test]
fn what_is_appended_can_be_read() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let appended = log.append_batch(batch(3, 100), LeaderEpoch(7)).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(0), Offset(2)));
    let appended = log.append_batch(batch(1, 100), LeaderEpoch(7)).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(3), Offset(3)));
    assert_eq!(log.log_end_offset(), Offset(4));
    let bases: Vec<_> = read_all(&log).iter().map(|b| b.header().base_offset).collect();
    assert_eq!(bases, [0, 3]);
    let epochs: Vec<_> = read_all(&log).iter().map(|b| b.header().partition_leader_epoch).collect();
    assert_eq!(epochs, [7, 7]);
}

#[test]
fn a_read_from_inside_a_batch_begins_with_the_whole_batch() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(10, 10), LeaderEpoch(0)).unwrap();
    log.append_batch(batch(10, 10), LeaderEpoch(0)).unwrap();
    let slice = log.read(Offset(13), 1 << 20, END, true).unwrap();
    assert_eq!(slice.first_offset, Offset(10));
}

#[test]
fn the_upper_bound_cuts_between_batches() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let sizes: Vec<usize> = (0..200)
        .map(|_| {
            let batch = batch(2, 30);
            let size = batch.size_in_bytes();
            log.append_batch(batch, LeaderEpoch(0)).unwrap();
            size
        })
        .collect();
    for bound in 0..=400_usize {
        let slice = log.read(Offset(0), 1 << 20, Offset(bound as i64), true).unwrap();
        let whole: usize = sizes[..bound / 2].iter().sum();
        assert_eq!(slice.len(), whole, "below {bound}");
    }
}

#[test]
fn the_first_batch_comes_whole_or_not_at_all() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let large = batch(1, 1000);
    let size = large.size_in_bytes();
    log.append_batch(large, LeaderEpoch(0)).unwrap();
    log.append_batch(batch(1, 1000), LeaderEpoch(0)).unwrap();
    assert_eq!(log.read(Offset(0), 100, END, true).unwrap().len(), size);
    assert_eq!(log.read(Offset(0), 100, END, false).unwrap().len(), 0);
    assert_eq!(log.read(Offset(0), size + 5, END, false).unwrap().len(), size + 5);
}

#[test]
fn offsets_outside_of_the_log_are_refused_and_its_end_is_not() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    assert!(log.read(Offset(0), 1, END, true).unwrap().is_empty());
    log.append_batch(batch(5, 10), LeaderEpoch(0)).unwrap();
    assert!(log.read(Offset(5), 1, END, true).unwrap().is_empty());
    for outside in [-1, 6] {
        assert!(matches!(
            log.read(Offset(outside), 1, END, true),
            Err(ReadError::OutOfRange { log_end_offset: Offset(5), .. })
        ));
    }
}

#[test]
fn reads_stay_within_a_segment_and_say_where_the_next_begins() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    for _ in 0..20 {
        log.append_batch(batch(1, 300), LeaderEpoch(0)).unwrap();
    }
    assert!(log.segment_count() > 3);
    let slice = log.read(Offset(0), 1 << 20, END, true).unwrap();
    let next = slice.next_segment.unwrap();
    assert!(next > Offset(0) && next < Offset(20));
    assert_eq!(log.read(next, 1 << 20, END, true).unwrap().first_offset, next);
    assert_eq!(read_all(&log).len(), 20);
}

#[test]
fn a_log_is_the_same_after_a_clean_close_and_after_a_crash() {
    for clean in [true, false] {
        let directory = Directory::new();
        let open = directory.open(small_segments());
        let log = open.create("t", 3);
        for epoch in 0..30 {
            log.append_batch(batch_at(2, 150, 1_000 + i64::from(epoch)), LeaderEpoch(epoch / 10))
                .unwrap();
        }
        let before = (read_all(&log), log.epoch_entries(), log.max_timestamp().unwrap());
        let topic_id = log.topic_id();
        if clean {
            open.close();
        } else {
            drop(open);
        }
        drop(log);
        let open = directory.open(small_segments());
        let log = open.log("t", 3);
        assert_eq!(log.log_end_offset(), Offset(60));
        assert_eq!(log.flushed_offset(), Offset(60));
        assert_eq!(log.topic_id(), topic_id);
        assert_eq!((read_all(&log), log.epoch_entries(), log.max_timestamp().unwrap()), before);
        let appended = log.append_batch(batch(1, 10), LeaderEpoch(3)).unwrap();
        assert_eq!(appended.base_offset, Offset(60));
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let error = directory.try_open(LogConfig::default()).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(open);
    directory.try_open(LogConfig::default()).unwrap();
}

#[test]
fn records_are_found_by_time() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    assert_eq!(log.max_timestamp().unwrap(), None);
    for n in 0..40 {
        log.append_batch(batch_at(2, 100, 1_000 * n), LeaderEpoch(4)).unwrap();
    }
    // Each batch has records at its timestamp and one millisecond later.
    let offset = |timestamp| {
        let found = log.offset_for_timestamp(Timestamp(timestamp)).unwrap();
        found.map(|found| (found.timestamp.0, found.offset.0, found.leader_epoch.0))
    };
    assert_eq!(offset(0), Some((0, 0, 4)));
    assert_eq!(offset(1), Some((1, 1, 4)));
    assert_eq!(offset(2), Some((1_000, 2, 4)));
    assert_eq!(offset(20_001), Some((20_001, 41, 4)));
    assert_eq!(offset(39_001), Some((39_001, 79, 4)));
    assert_eq!(offset(39_002), None);
    let newest = log.max_timestamp().unwrap().unwrap();
    assert_eq!((newest.timestamp, newest.offset), (Timestamp(39_001), Offset(79)));
    log.delete_records_to(Offset(10)).unwrap();
    assert_eq!(offset(0), Some((5_000, 10, 4)));
}

#[test]
fn a_jitter_above_the_age_of_a_segment_does_not_make_one_segment_of_each_batch() {
    let directory = Directory::new();
    let config =
        LogConfig { segment_ms: 1_000, segment_jitter_ms: i64::MAX, ..LogConfig::default() };
    for life in 1..=5 {
        let open = directory.open(config.clone());
        let log = if life == 1 { open.create("t", 0) } else { open.log("t", 0) };
        for _ in 0..10 {
            log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
        }
        assert_eq!(log.segment_infos().unwrap().len(), 1);
    }
    let open = directory.open(config);
    let log = open.log("t", 0);
    for n in 1..=10 {
        log.append_batch(batch_at(1, 10, 10_000 * n), LeaderEpoch(0)).unwrap();
        assert_eq!(log.segment_infos().unwrap().len(), 1 + n as usize);
        log.append_batch(batch_at(1, 10, 10_000 * n), LeaderEpoch(0)).unwrap();
        assert_eq!(log.segment_infos().unwrap().len(), 1 + n as usize);
    }
}

#[test]
fn a_log_has_the_jitter_of_its_own_configuration_and_not_of_the_one_that_it_was_opened_with() {
    let directory = Directory::new();
    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1_000;
    let of_the_broker =
        LogConfig { segment_ms: YEAR_MS, segment_jitter_ms: YEAR_MS, ..LogConfig::default() };
    drop(directory.open(of_the_broker.clone()).create("t", 0));
    let open = directory.open(of_the_broker);
    let log = open.log("t", 0);
    log.set_config(Arc::new(LogConfig { segment_ms: 1_000, ..LogConfig::default() }));
    for _ in 0..3 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    assert_eq!(log.segment_infos().unwrap().len(), 1);
}

#[test]
fn old_segments_go_and_readers_in_flight_do_not_notice() {
    let directory = Directory::new();
    let config = LogConfig { retention_ms: 10_000, ..small_segments() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    for n in 0..40 {
        log.append_batch(batch_at(1, 200, 1_000 * n), LeaderEpoch(0)).unwrap();
    }
    let slice = log.read(Offset(0), 1 << 20, END, true).unwrap();
    let removed = log.enforce_retention(40_000, Offset(40)).unwrap();
    assert!(removed.segments > 3);
    let start = log.log_start_offset();
    assert!(start > Offset(20) && start <= Offset(30));
    assert!(matches!(log.read(Offset(0), 1, END, true), Err(ReadError::OutOfRange { .. })));
    let source = slice.source.unwrap();
    assert_eq!(source.read().unwrap().len(), source.len);
    assert_eq!(read_all(&log).first().unwrap().header().base_offset, start.0);
}

#[test]
fn a_log_whose_records_have_all_expired_still_knows_its_end() {
    let directory = Directory::new();
    let config = LogConfig { retention_ms: 10, ..small_segments() };
    let open = directory.open(config.clone());
    let log = open.create("t", 0);
    for n in 0..9 {
        log.append_batch(batch_at(1, 200, n), LeaderEpoch(0)).unwrap();
    }
    log.enforce_retention(1_000_000, Offset(9)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(9), Offset(9)));
    assert_eq!(log.size_in_bytes(), 0);
    drop((open, log));
    let open = directory.open(config);
    let log = open.log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(9), Offset(9)));
}

#[test]
fn deleted_records_stay_deleted_after_a_crash() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    for _ in 0..20 {
        log.append_batch(batch(1, 200), LeaderEpoch(0)).unwrap();
    }
    assert_eq!(log.delete_records_to(Offset(10)).unwrap(), Offset(10));
    assert_eq!(log.delete_records_to(Offset(5)).unwrap(), Offset(10));
    drop((open, log));
    let open = directory.open(small_segments());
    let log = open.log("t", 0);
    assert_eq!(log.log_start_offset(), Offset(10));
    assert!(log.enforce_retention(0, Offset(20)).unwrap().segments > 1);
    assert_eq!(log.delete_records_to(Offset(99)).unwrap(), Offset(20));
}

const LOG_STARTS: &str = "log-start-offset-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";

/// Lets the next replacement of a checkpoint, and only the next one, leave a link in its place.
fn mark_next_write(directory: &Directory, checkpoint: &str) {
    let temporary = directory.path().join(format!("{checkpoint}.tmp"));
    std::os::unix::fs::symlink(directory.path().join("written"), temporary).unwrap();
}

/// What [`mark_next_write`] left: whether there was exactly one write since then.
fn was_written_once(directory: &Directory, checkpoint: &str) -> bool {
    directory.path().join(checkpoint).is_symlink()
}

#[test]
fn what_earlier_logs_left_in_the_checkpoints_goes_with_one_write_of_each() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let create_all = || (0..10).map(|n| open.create("t", n)).collect::<Vec<_>>();
    let logs = create_all();
    for log in &logs {
        log.append_batch(batch(20, 10), LeaderEpoch(0)).unwrap();
        log.delete_records_to(Offset(5)).unwrap();
    }
    open.checkpoint().unwrap();
    for log in &logs {
        open.delete(log.topic_partition()).unwrap();
    }
    for checkpoint in [LOG_STARTS, RECOVERY_POINTS] {
        mark_next_write(&directory, checkpoint);
    }
    create_all();
    for checkpoint in [LOG_STARTS, RECOVERY_POINTS] {
        assert!(was_written_once(&directory, checkpoint), "{checkpoint}");
    }
}

#[test]
fn however_many_logs_are_to_start_later_one_write_makes_that_durable() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let logs: Vec<_> = (0..10).map(|partition| open.create("t", partition)).collect();
    for log in &logs {
        log.append_batch(batch(20, 10), LeaderEpoch(0)).unwrap();
    }
    let trims = |offset| logs.iter().cloned().zip((offset..).map(Offset)).collect::<Vec<_>>();
    mark_next_write(&directory, LOG_STARTS);
    let starts = open.delete_records(&trims(5)).unwrap();
    let starts: Vec<i64> = starts.into_iter().map(|start| start.unwrap().0).collect();
    assert_eq!(starts, (5..15).collect::<Vec<_>>());
    assert!(was_written_once(&directory, LOG_STARTS));
    // Nothing changes any more: nothing is written.
    let again = open.delete_records(&trims(5)).unwrap();
    assert!(again.into_iter().map(Result::unwrap).eq(starts.iter().copied().map(Offset)));
    assert!(was_written_once(&directory, LOG_STARTS));
    // A deleted log answers for itself only, and all that are deleted cost one write together.
    open.delete(logs[3].topic_partition()).unwrap();
    open.delete(logs[4].topic_partition()).unwrap();
    let last: Vec<_> = open.delete_records(&trims(100)).unwrap();
    let last: Vec<_> = last.into_iter().map(|start| start.ok().map(|start| start.0)).collect();
    let expected = (0..10).map(|n| (n != 3 && n != 4).then_some(20));
    assert_eq!(last, expected.collect::<Vec<_>>());
    mark_next_write(&directory, LOG_STARTS);
    open.checkpoint().unwrap();
    assert!(was_written_once(&directory, LOG_STARTS));
    drop((open, logs));
    let open = directory.open(small_segments());
    assert_eq!(open.logs().len(), 8);
    assert!(open.logs().iter().all(|log| log.log_start_offset() == Offset(20)));
}

#[test]
fn no_log_starts_later_when_that_cannot_be_made_durable() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let logs = [open.create("t", 0), open.create("t", 1)];
    for log in &logs {
        log.append_batch(batch(20, 10), LeaderEpoch(0)).unwrap();
    }
    let in_the_way = directory.path().join("log-start-offset-checkpoint.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    let trims = logs.clone().map(|log| (log, Offset(5)));
    assert!(open.delete_records(&trims).is_err());
    assert!(logs.iter().all(|log| log.log_start_offset() == Offset(0)));
    std::fs::remove_dir(in_the_way).unwrap();
    let starts = open.delete_records(&trims).unwrap();
    assert!(starts.into_iter().all(|start| start.unwrap() == Offset(5)));
}

#[test]
fn truncation_takes_everything_from_an_offset_on() {
    for target in 0..=60 {
        let directory = Directory::new();
        let open = directory.open(small_segments());
        let log = open.create("t", 0);
        for n in 0..30 {
            let batch = batch_at(2, 50, 1_000 + i64::from(n));
            log.append_batch(batch, LeaderEpoch(n / 7)).unwrap();
        }
        let before = read_all(&log);
        log.truncate_to(Offset(target)).unwrap();
        // A batch that holds the offset goes as a whole.
        let kept = usize::try_from(target / 2).unwrap();
        assert_eq!(log.log_end_offset(), Offset(target / 2 * 2));
        assert_eq!(read_all(&log), before[..kept]);
        assert!(log.epoch_entries().iter().all(|e| e.start_offset < log.log_end_offset()));
        let newest = log.max_timestamp().unwrap().map(|found| found.timestamp.0);
        assert_eq!(newest, kept.checked_sub(1).map(|last| 1_000 + last as i64 + 1));
        log.append_batch(batch(2, 50), LeaderEpoch(9)).unwrap();
        let expected = read_all(&log);
        assert_eq!(expected.len(), kept + 1);
        drop((open, log));
        let open = directory.open(small_segments());
        assert_eq!(read_all(&open.log("t", 0)), expected);
    }
}

#[test]
fn a_log_can_begin_again_at_any_offset() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    for _ in 0..20 {
        log.append_batch(batch(1, 200), LeaderEpoch(0)).unwrap();
    }
    log.truncate_fully_and_start_at(Offset(5_000_000_000)).unwrap();
    assert_eq!(log.log_start_offset(), Offset(5_000_000_000));
    assert_eq!(log.epoch_entries(), []);
    drop((open, log));
    let open = directory.open(small_segments());
    let log = open.log("t", 0);
    assert_eq!(log.log_end_offset(), Offset(5_000_000_000));
    let appended = log.append_batch(batch(1, 1), LeaderEpoch(1)).unwrap();
    assert_eq!(appended.base_offset, Offset(5_000_000_000));
}

#[test]
fn a_replica_keeps_offsets_and_epochs_and_refuses_to_go_back() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let mut first = batch(2, 10);
    first.assign(Offset(100), LeaderEpoch(3));
    let mut second = batch(2, 10);
    second.assign(Offset(110), LeaderEpoch(4));
    let mut batches = [first, second];
    let appended = log.append(&mut batches, Origin::Replica).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(100), Offset(111)));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(4)));
    assert_eq!(log.end_offset_for_epoch(LeaderEpoch(3)), Some((LeaderEpoch(3), Offset(110))));
    assert!(log.append(&mut batches, Origin::Replica).is_err());
    assert_eq!(log.read(Offset(105), 1000, END, true).unwrap().first_offset, Offset(110));
}

#[test]
fn a_deleted_log_leaves_its_name_free_and_its_files_for_a_while() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    let partition = TopicPartition::new("t", 0);
    assert!(open.delete(&partition).unwrap());
    assert!(!open.delete(&partition).unwrap());
    assert!(log.append_batch(batch(1, 10), LeaderEpoch(0)).is_err());
    let again = open.create("t", 0);
    assert_eq!(again.log_end_offset(), Offset(0));
    assert_ne!(again.topic_id(), Some(Uuid::ZERO));
    assert_eq!(directory.names("-delete").len(), 1);
    directory.clock.advance(Duration::from_secs(61));
    open.housekeep();
    assert_eq!(directory.names("-delete"), Vec::<String>::new());
}

#[test]
fn an_unknown_log_can_be_set_aside() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    open.create("t", 0).append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    assert!(open.set_aside(&TopicPartition::new("t", 0)).unwrap());
    open.close();
    let open = directory.open(LogConfig::default());
    assert_eq!(open.logs().len(), 0);
    assert_eq!(directory.names("-stray").len(), 1);
}

#[test]
fn a_flush_moves_the_flushed_offset_and_tells_the_listeners() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (sender, receiver) = std::sync::mpsc::channel();
    open.add_listener(Arc::new(move |log: &Arc<Log>, offset: Offset| {
        let _ = sender.send((log.topic_partition().clone(), offset));
    }));
    let logs: Vec<_> = (0..20).map(|partition| open.create("t", partition)).collect();
    for log in &logs {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
        assert_eq!(log.flushed_offset(), Offset(0));
        log.request_flush();
    }
    let mut told: Vec<_> = receiver.iter().take(20).collect();
    told.sort();
    let expected: Vec<_> = (0..20).map(|p| (TopicPartition::new("t", p), Offset(1))).collect();
    assert_eq!(told, expected);
    assert!(logs.iter().all(|log| log.flushed_offset() == Offset(1)));
    logs[0].append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    assert_eq!(logs[0].flush().unwrap(), Offset(2));
}

#[test]
fn what_joins_a_flush_is_flushed_by_whoever_begins_one_and_each_is_told() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (sender, receiver) = std::sync::mpsc::channel();
    open.add_listener(Arc::new(move |log: &Arc<Log>, offset: Offset| {
        let _ = sender.send((log.topic_partition().partition.0, offset));
    }));
    let logs: Vec<_> = (0..4).map(|partition| open.create("t", partition)).collect();
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(|| {
                for n in 0..200 {
                    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
                    match n % 3 {
                        0 => log.request_flush(),
                        _ => log.join_next_flush(),
                    }
                    open.begin_flush();
                }
            });
        }
    });
    let mut told = [Offset(0); 4];
    while told != [Offset(200); 4] {
        let (partition, offset) = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        let told = &mut told[usize::try_from(partition).unwrap()];
        *told = offset.max(*told);
    }
    logs[0].append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    logs[0].join_next_flush();
    assert_eq!(logs[0].flushed_offset(), Offset(200), "nobody has begun a flush");
    open.begin_flush();
    // An earlier flush may have told again what one before it had told.
    while receiver.recv_timeout(Duration::from_secs(60)).unwrap() != (0, Offset(201)) {}
}

#[test]
fn whoever_waits_for_a_flush_is_told_however_it_was_asked_for() {
    const EACH: i64 = 300;
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let waits_for = |log: &Arc<Log>, n: i64| {
        match n % 3 {
            0 => log.request_flush(),
            1 => log.request_unawaited_flush(),
            _ => {
                log.join_next_flush();
                open.begin_flush();
            }
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while log.flushed_offset() <= Offset(n) {
            assert!(Instant::now() < deadline, "{n} of {:?}", log.topic_partition());
            std::thread::yield_now();
        }
    };
    let logs: Vec<_> = (0..3).map(|partition| open.create("t", partition)).collect();
    std::thread::scope(|scope| {
        for (log, waits_for) in logs.iter().zip([&waits_for; 3]) {
            scope.spawn(move || {
                for n in 0..EACH {
                    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
                    waits_for(log, n);
                }
            });
        }
        for _ in 0..20 {
            open.checkpoint().unwrap();
        }
    });
}

#[test]
fn direct_flushes_and_requested_ones_do_not_wait_for_each_other_for_ever() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let logs: Vec<_> = (0..4).map(|partition| open.create("t", partition)).collect();
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(|| {
                for _ in 0..200 {
                    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
                    log.request_flush();
                    log.flush().unwrap();
                }
            });
        }
        for _ in 0..50 {
            open.checkpoint().unwrap();
        }
    });
    assert!(logs.iter().all(|log| log.flushed_offset() == Offset(200)));
}

#[test]
fn a_segment_written_again_after_a_truncation_is_searched_anew() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    log.append_batch(batch_at(1, 800, 1), LeaderEpoch(0)).unwrap();
    log.append_batch(batch_at(1, 800, 2), LeaderEpoch(0)).unwrap();
    assert_eq!(log.max_timestamp().unwrap().unwrap().timestamp, Timestamp(2));
    log.truncate_to(Offset(0)).unwrap();
    log.append_batch(batch_at(1, 800, 9), LeaderEpoch(0)).unwrap();
    log.append_batch(batch_at(1, 800, 3), LeaderEpoch(0)).unwrap();
    assert_eq!(log.max_timestamp().unwrap().unwrap().timestamp, Timestamp(9));
    assert_eq!(log.offset_for_timestamp(Timestamp(5)).unwrap().unwrap().offset, Offset(0));
}

#[test]
fn a_replica_may_begin_far_beyond_what_a_segment_can_count() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let mut far = batch(2, 10);
    far.assign(Offset(10_000_000_000), LeaderEpoch(0));
    log.append(&mut [far], Origin::Replica).unwrap();
    let slice = log.read(Offset(0), 1000, END, true).unwrap();
    assert_eq!(slice.first_offset, Offset(10_000_000_000));
    drop((open, log));
    let open = directory.open(LogConfig::default());
    assert_eq!(open.log("t", 0).log_end_offset(), Offset(10_000_000_002));
}

#[test]
fn records_of_idle_logs_are_flushed_when_flush_ms_is_over() {
    let directory = Directory::new();
    let config = LogConfig { flush_ms: 500, ..LogConfig::default() };
    let open = directory.open(config);
    let (sender, receiver) = std::sync::mpsc::channel();
    open.add_listener(Arc::new(move |_: &Arc<Log>, offset: Offset| {
        let _ = sender.send(offset);
    }));
    let log = open.create("t", 0);
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    directory.clock.advance(Duration::from_millis(499));
    open.housekeep();
    assert_eq!(log.flushed_offset(), Offset(0));
    directory.clock.advance(Duration::from_millis(1));
    open.housekeep();
    assert_eq!(receiver.recv().unwrap(), Offset(1));
}

#[test]
fn a_flush_is_due_after_so_many_records() {
    let directory = Directory::new();
    let config = LogConfig { flush_messages: 3, ..LogConfig::default() };
    let open = directory.open(config);
    let (sender, receiver) = std::sync::mpsc::channel();
    open.add_listener(Arc::new(move |_: &Arc<Log>, offset: Offset| {
        let _ = sender.send(offset);
    }));
    let log = open.create("t", 0);
    log.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Offset(3));
}

#[test]
fn what_was_allocated_for_a_segment_is_given_back_when_it_is_rolled_and_when_the_log_is_closed() {
    let directory = Directory::new();
    let segment_bytes = 1 << 20;
    let config = LogConfig { preallocate: true, segment_bytes, ..LogConfig::default() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    let is_trimmed = |segment: &str| {
        let metadata = std::fs::metadata(directory.path().join("t-0").join(segment)).unwrap();
        let (allocated, blksize) = (metadata.blocks() * 512, metadata.blksize());
        assert!(metadata.len() > 0);
        assert!(
            allocated >= segment_bytes || allocated <= metadata.len().next_multiple_of(blksize)
        );
        allocated < segment_bytes
    };
    let [first, second] = ["00000000000000000000.log", "00000000000000000001.log"];
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    assert!(!is_trimmed(first));
    log.roll().unwrap();
    assert!(is_trimmed(first));
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    assert!(!is_trimmed(second));
    assert_eq!(read_all(&log).len(), 2);
    // Whatever the configuration has become meanwhile.
    log.set_config(Arc::new(LogConfig::default()));
    open.close();
    drop(log);
    assert!(is_trimmed(second));
    let open =
        directory.open(LogConfig { preallocate: true, segment_bytes, ..LogConfig::default() });
    let log = open.log("t", 0);
    log.roll().unwrap();
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    let third = "00000000000000000002.log";
    assert!(!is_trimmed(third));
    drop((log, open));
    directory.open(LogConfig::default()).log("t", 0).roll().unwrap();
    assert!(is_trimmed(third), "in the life before");
}

#[test]
fn without_flush_on_commit_records_count_as_flushed_at_once() {
    let mut directory = Directory::new();
    directory.options.flush_on_commit = false;
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    assert_eq!(log.flushed_offset(), Offset(2));
}

fn produce(log: &Log, draft: Draft) -> Result<Appended, AppendError> {
    log.append_produced(draft.build(), LeaderEpoch(0))
}

#[test]
fn a_batch_that_comes_again_is_not_appended_again_and_answered_with_its_first_place() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    let drafts = [0, 3, 6, 9, 12].map(|sequence| Draft::new(sequence, 3));
    let first = drafts.map(|draft| produce(&log, draft).unwrap());
    log.append_batch(batch(7, 300), LeaderEpoch(0)).unwrap();
    let batches = read_all(&log);
    for (draft, first) in drafts.into_iter().zip(first) {
        assert_eq!((first.duplicate, first.log_append_time), (false, Timestamp::NONE));
        let again = produce(&log, draft).unwrap();
        let log_append_time = Timestamp(1_002);
        assert_eq!(again, Appended { duplicate: true, log_append_time, ..first });
    }
    assert_eq!(read_all(&log), batches);
    assert_eq!(log.log_end_offset(), Offset(22));
}

#[test]
fn a_refused_batch_leaves_everything_as_it_was() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    produce(&log, Draft { epoch: 2, ..Draft::new(0, 3) }).unwrap();
    let known = log.producers();
    // As large as what would begin a new segment.
    let large = Draft { epoch: 2, ..Draft::new(7, 30) };
    let old = Draft { epoch: 1, ..Draft::new(3, 30) };
    let producer_id = ProducerId(1);
    for (draft, expected) in [
        (large, ProducerRefusal::OutOfOrderSequence { producer_id, found: 7, last: 2 }),
        (old, ProducerRefusal::OldEpoch { producer_id, found: 1, current: 2 }),
    ] {
        let Err(AppendError::Refused(refusal)) = produce(&log, draft) else {
            panic!("{draft:?} is not refused")
        };
        assert_eq!(refusal, expected);
        assert_eq!((log.log_end_offset(), log.segment_count()), (Offset(3), 1));
        assert_eq!(log.producers(), known);
    }
    assert!(!produce(&log, Draft { epoch: 2, ..Draft::new(3, 3) }).unwrap().duplicate);
}

#[test]
fn what_this_node_and_other_logs_append_is_not_asked_for_sequence_numbers() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    for _ in 0..2 {
        log.append_batch(Draft::new(7, 3).build(), LeaderEpoch(0)).unwrap();
    }
    let mut replicated = Draft::new(100, 3).build();
    replicated.assign(Offset(6), LeaderEpoch(0));
    let batches = std::slice::from_mut(&mut replicated);
    let appended = log.append(batches, Origin::Replica).unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (Offset(6), false));
    let last = log.producers().get(ProducerId(1)).map(Producer::last_sequence);
    assert_eq!(last, Some(102));
}

#[test]
fn a_truncation_takes_back_what_was_known_of_the_batches_that_it_takes() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    let mut known = vec![log.producers()];
    for n in 0..20_i32 {
        let transaction = Draft { in_transaction: n > 8, ..Draft::new(n * 2, 2) };
        produce(&log, transaction).unwrap();
        known.push(log.producers());
    }
    log.append_batch(marker(ControlType::Commit, 1, 0, 3, 1_500), LeaderEpoch(0)).unwrap();
    assert!(log.segment_count() > 3);
    for batches in (0..20).rev() {
        let offset = Offset(batches * 2);
        log.truncate_to(offset + (batches % 2)).unwrap();
        assert_eq!(log.producers(), known[batches as usize], "{batches} batches are left");
    }
    assert_eq!(log.producer_count(), 0);
    produce(&log, Draft::new(77, 1)).unwrap();
    log.truncate_fully_and_start_at(Offset(500)).unwrap();
    assert!(log.producers().is_empty());
}

#[test]
fn a_log_of_a_deleted_name_does_not_know_its_producers() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    produce(&log, Draft::new(0, 3)).unwrap();
    open.delete(log.topic_partition()).unwrap();
    let again = open.create("t", 0);
    let appended = produce(&again, Draft::new(0, 3)).unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (Offset(0), false));
}

#[test]
fn idle_producers_are_forgotten_when_it_is_time_to_look_for_them_and_not_before() {
    let mut directory = Directory::new();
    directory.options.producer_id_expiration_ms = 10_000;
    directory.options.producer_id_expiration_check_interval_ms = 4_000;
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    let now = 1_000_000;
    produce(&log, Draft { id: 1, timestamp: now, ..Draft::new(0, 1) }).unwrap();
    produce(&log, Draft { id: 2, timestamp: now + 6_000, ..Draft::new(0, 1) }).unwrap();
    let ids = || log.producers().iter().map(|(id, _)| id.0).collect::<Vec<_>>();
    for (seconds, expected) in [(9, &[1, 2][..]), (1, &[1, 2]), (2, &[1, 2]), (1, &[2]), (4, &[])] {
        directory.clock.advance(Duration::from_secs(seconds));
        open.housekeep();
        assert_eq!(ids(), expected);
        assert_eq!(log.producer_count(), expected.len());
    }
    // Whoever comes back begins anew, wherever it goes on.
    assert!(!produce(&log, Draft::new(1, 1)).unwrap().duplicate);
}

#[test]
fn how_long_producers_are_remembered_may_change() {
    let mut directory = Directory::new();
    directory.options.producer_id_expiration_check_interval_ms = 0;
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    produce(&log, Draft { id: 1, timestamp: 1_000_000, ..Draft::new(0, 1) }).unwrap();
    directory.clock.advance(Duration::from_secs(10));
    open.housekeep();
    assert_eq!(log.producer_count(), 1);
    open.set_producer_id_expiration_ms(9_000);
    open.housekeep();
    assert_eq!(log.producer_count(), 0);
}

#[test]
fn a_snapshot_brings_nobody_back_who_was_idle_for_too_long() {
    let mut directory = Directory::new();
    directory.options.producer_id_expiration_ms = 10_000;
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    produce(&log, Draft { id: 1, timestamp: 1_000_000, ..Draft::new(0, 1) }).unwrap();
    produce(&log, Draft { id: 2, timestamp: 1_006_000, ..Draft::new(0, 1) }).unwrap();
    drop(log);
    open.close();
    directory.clock.advance(Duration::from_secs(12));
    let open = directory.open(small_segments());
    let ids: Vec<_> = open.log("t", 0).producers().iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [2]);
}

#[test]
fn records_that_readers_see_are_appended_even_if_an_index_cannot_be_written() {
    let directory = Directory::new();
    let often = LogConfig { index_interval_bytes: 1, ..LogConfig::default() };
    let open = directory.open(often);
    let log = open.create("t", 0);
    let append = || log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    append();
    let index = directory.path().join("t-0/00000000000000000000.index");
    std::fs::remove_file(&index).unwrap();
    std::fs::create_dir(&index).unwrap();
    for n in 1..600 {
        assert_eq!(append().base_offset, Offset(n));
    }
    std::fs::remove_dir(&index).unwrap();
    for _ in 600..1200 {
        append();
    }
    let len = std::fs::metadata(&index).unwrap().len();
    assert!(len > 600 * 8, "the entries that had to wait are written, too: {len} bytes");
    for offset in [0, 300, 1199].map(Offset) {
        let slice = log.read(offset, 1, log.log_end_offset(), true).unwrap();
        assert_eq!(slice.first_offset, offset);
    }
}
