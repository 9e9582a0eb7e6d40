//! A log moves from one directory to another, and whatever comes in between, it is in one of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::{FaultyDisk, ManualClock};
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory, Move, MoveError, settle};
use support::{Draft, batch, read_all, temporary_directory};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// Two directories on one disk.
struct Pair {
    temporary: tempfile::TempDir,
    disk: Arc<FaultyDisk>,
    clock: Arc<ManualClock>,
    config: LogConfig,
}

impl Pair {
    fn new() -> Self {
        Self {
            temporary: temporary_directory(),
            disk: Arc::default(),
            clock: Arc::new(ManualClock::at(Timestamp(1_000_000))),
            config: LogConfig { segment_bytes: 1_000, ..LogConfig::default() },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn open(&self) -> [Arc<LogDirectory>; 2] {
        ["a", "b"].map(|name| {
            let options = DirectoryOptions {
                disk: Arc::clone(&self.disk) as _,
                threads: false,
                recovery_threads: 1,
                ..DirectoryOptions::default()
            };
            let (config, clock) = (self.config.clone(), Arc::clone(&self.clock) as _);
            Arc::new(LogDirectory::open(&self.path(name), config, options, clock).unwrap())
        })
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.path(directory)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("t-0")).collect()
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn create(directory: &LogDirectory, config: &LogConfig) -> Arc<Log> {
    directory.create(partition(), Uuid([7; 16]), Arc::new(config.clone())).unwrap()
}

fn begin([from, to]: &[Arc<LogDirectory>; 2]) -> Result<Move, MoveError> {
    Move::begin(Arc::clone(from), Arc::clone(to), &partition())
}

fn copy_all(moving: &Move) -> Result<(), MoveError> {
    while !moving.step()?.nearly_done {}
    Ok(())
}

fn bases(log: &Log) -> Vec<i64> {
    read_all(log).iter().map(|batch| batch.header().base_offset).collect()
}

#[test]
fn a_log_moves_with_what_is_appended_meanwhile() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    for _ in 0..20 {
        log.append_batch(batch(2, 100), EPOCH).unwrap();
    }
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    log.append_batch(batch(2, 100), EPOCH).unwrap();
    assert_eq!(both[1].futures().len(), 1);
    assert!(both[1].log(&partition()).is_none(), "a copy in the making is no log");
    let moved = moving.finish().unwrap();
    assert_eq!(read_all(&moved), read_all(&log), "whoever still reads the old one may go on");
    assert!(moved.segment_infos().unwrap().len() > 2);
    assert_eq!(moved.flushed_offset(), Offset(42));
    log.append_batch(batch(1, 1), EPOCH).unwrap_err();
    moved.append_batch(batch(1, 1), EPOCH).unwrap();
    assert_eq!((both[0].log_count(), both[1].log_count()), (0, 1));
    assert!(both[1].futures().is_empty());
    assert_eq!(pair.names("b"), ["t-0"]);
    let bases_before = bases(&moved);
    drop((moving, log, moved));
    for directory in both {
        directory.close(1).unwrap();
    }
    let both = pair.open();
    assert_eq!(bases(&both[1].log(&partition()).unwrap()), bases_before);
    both[0].housekeep();
    assert_eq!(pair.names("a"), [""; 0]);
}

#[test]
fn what_the_batches_alone_do_not_tell_moves_too() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    let draft = |id, sequence| Draft { id, ..Draft::new(sequence, 3) };
    log.append_produced(draft(5, 0).build(), LeaderEpoch(1)).unwrap();
    for sequence in [0, 3, 6] {
        log.append_produced(draft(6, sequence).build(), LeaderEpoch(2)).unwrap();
    }
    log.assign_epoch(LeaderEpoch(9)).unwrap();
    log.flush().unwrap();
    // Into the middle of a batch, and behind all that producer 5 has written.
    log.delete_records_to(Offset(5)).unwrap();
    let (epochs, producers) = (log.epoch_entries(), log.producers());
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    let moved = moving.finish().unwrap();
    drop((moving, log));
    let check = |moved: &Log| {
        assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(5), Offset(12)));
        assert_eq!(moved.producers(), producers);
        assert_eq!(bases(moved), [3, 6, 9]);
    };
    check(&moved);
    assert_eq!(moved.epoch_entries(), epochs);
    // A crash.
    drop((moved, both));
    let both = pair.open();
    check(&both[1].log(&partition()).unwrap());
}

#[test]
fn records_deleted_while_the_log_is_copied_do_not_come_back() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    for _ in 0..20 {
        log.append_batch(batch(2, 100), EPOCH).unwrap();
    }
    log.flush().unwrap();
    log.delete_records_to(Offset(30)).unwrap();
    log.enforce_retention(1_000_000, Offset(30)).unwrap();
    let moved = moving.finish().unwrap();
    assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(30), Offset(42)));
    drop((moving, log, moved, both));
    let both = pair.open();
    let moved = both[1].log(&partition()).unwrap();
    assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(30), Offset(42)));
}

#[test]
fn a_flipped_bit_is_not_copied() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    log.flush().unwrap();
    let moving = begin(&both).unwrap();
    let size = log.size_in_bytes();
    for position in 0..size {
        pair.disk.flip_reads_at(Some(position));
        let copied = moving.step();
        pair.disk.flip_reads_at(None);
        // Kafka's checksum does not cover a batch's place, nor its leader epoch; nor is a length that a flip has made
        // too large more than a batch that is not all there yet.
        let in_batch = position % (size / 2);
        if in_batch >= 16 {
            assert!(matches!(copied, Err(MoveError::Corrupt { .. })), "{position}: {copied:?}");
            assert_eq!(log.quarantined_count(), 1, "{position}");
        }
        // The bytes are sound again.
        log.doubt(Offset(0)).unwrap();
        assert_eq!(log.quarantined_count(), 0, "{position}");
        moving.future().truncate_fully_and_start_at(Offset(0)).unwrap();
    }
    copy_all(&moving).unwrap();
    assert_eq!(read_all(&moving.finish().unwrap()), read_all(&log));
}

#[test]
fn a_move_that_is_given_up_leaves_nothing() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    assert!(begin(&both).is_err(), "there is one copy");
    moving.abandon().unwrap();
    both[1].housekeep();
    assert_eq!(pair.names("b"), [""; 0]);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    begin(&both).unwrap();
}

#[test]
fn wherever_a_move_is_cut_off_the_log_is_in_one_directory_as_a_whole() {
    let (mut in_source, mut in_target, mut promoted) = (0, 0, 0);
    for changes in 0.. {
        let pair = Pair::new();
        let both = pair.open();
        let log = create(&both[0], &pair.config);
        for _ in 0..10 {
            log.append_batch(batch(2, 100), EPOCH).unwrap();
        }
        log.flush().unwrap();
        log.delete_records_to(Offset(5)).unwrap();
        let written = read_all(&log);
        pair.disk.stop_after(Some(changes));
        let moved = begin(&both).and_then(|moving| {
            copy_all(&moving)?;
            moving.finish().map(drop)
        });
        pair.disk.stop_after(None);
        drop((log, both));

        let both = pair.open();
        let promotes = both[1].leftovers().iter().any(|leftover| leftover.is_complete);
        settle(&both).unwrap();
        let logs: Vec<_> = both.iter().map(|it| it.log(&partition())).collect();
        assert_eq!(logs.iter().flatten().count(), 1, "after {changes} changes");
        let log = logs.iter().flatten().next().unwrap();
        assert_eq!(read_all(log), written, "after {changes} changes");
        assert_eq!(log.log_start_offset(), Offset(5), "after {changes} changes");
        log.append_batch(batch(1, 1), EPOCH).unwrap();
        both.iter().for_each(|directory| directory.housekeep());
        let names = [pair.names("a"), pair.names("b")].concat();
        assert_eq!(names, ["t-0"], "after {changes} changes");
        match logs[1] {
            Some(_) if promotes => promoted += 1,
            Some(_) => in_target += 1,
            None => in_source += 1,
        }
        if moved.is_ok() {
            break;
        }
    }
    assert!(in_source > 10 && in_target > 0 && promoted > 0, "{in_source} {in_target} {promoted}");
}
