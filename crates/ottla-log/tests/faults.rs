//! What a log directory does when its disk fails, and when the disk is full.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_env::FaultyDisk;
use ottla_log::{AppendError, FlushListener, Log, LogConfig, StorageError};
use ottla_records::{BatchBuilder, Compression};
use parking_lot::Mutex;
use support::{Directory, batch, read_all};

const EPOCH: LeaderEpoch = LeaderEpoch(0);

fn on(disk: &Arc<FaultyDisk>) -> Directory {
    let mut directory = Directory::new();
    directory.options.disk = Arc::clone(disk) as _;
    directory
}

fn is_full(result: Result<ottla_log::Appended, AppendError>) -> bool {
    matches!(result, Err(AppendError::Storage(StorageError::Full { .. })))
}

/// Notes which directories have failed.
#[derive(Debug, Default)]
struct Failures(Mutex<Vec<PathBuf>>);

impl FlushListener for Failures {
    fn flushed(&self, _: &Arc<Log>, _: Offset) {}

    fn poisoned(&self, directory: &Path, _: &StorageError) {
        self.0.lock().push(directory.to_owned());
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more_and_everything_is_still_read() {
    let disk = Arc::new(FaultyDisk::default());
    let mut directory = on(&disk);
    let open = directory.open(LogConfig::default());
    let failures = Arc::new(Failures::default());
    open.add_listener(Arc::clone(&failures) as _);
    let log = open.create("t", 0);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    log.flush().unwrap();
    log.append_batch(batch(1, 10), EPOCH).unwrap();
    disk.fail_syncs_under(&directory.path());
    log.flush().unwrap_err();
    assert_eq!(*failures.0.lock(), [directory.path()]);
    assert_eq!(log.flushed_offset(), Offset(2), "what was not flushed never will have been");
    assert!(matches!(open.check_health(), Err(StorageError::Poisoned { .. })));
    log.append_batch(batch(1, 10), EPOCH).unwrap_err();
    log.flush().unwrap_err();
    assert_eq!(failures.0.lock().len(), 1, "it fails once");
    assert_eq!(read_all(&log).len(), 2);
    drop(log);
    open.close_with_error();
    // Which disk it is that the next process believes is played in crates/ottla-sim.
    let mark = directory.path().join(".ottla_sync_failed");
    assert!(mark.exists());
    directory.options.disk = Arc::new(FaultyDisk::default());
    let open = directory.open(LogConfig::default());
    assert!(has_record_lock(&directory.path().join(".lock")), "it was read anew without the lock");
    open.close();
    assert!(!mark.exists(), "the cache was let go of once");
}

/// Whether this process has the kind of lock that Java sees, which ends with any handle of the file.
fn has_record_lock(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return true };
    let (process, inode) = (std::process::id(), std::fs::metadata(path).unwrap().ino());
    let ours = format!(" {process} ");
    let of_file = format!(":{inode} ");
    locks.lines().any(|it| it.contains("POSIX") && it.contains(&ours) && it.contains(&of_file))
}

/// Whether the directory is offline after this was done to a log whose checkpoints speak of it, with one sync that fails.
fn is_offline_after(fails: &str, work: impl FnOnce(&Log) -> Result<(), StorageError>) -> bool {
    let disk = Arc::new(FaultyDisk::default());
    let mut directory = on(&disk);
    directory.options.threads = false;
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    for _ in 0..5 {
        log.append_batch(batch(1, 10), EPOCH).unwrap();
    }
    open.checkpoint().unwrap();
    disk.fail_next_sync_of(&directory.path().join(fails));
    work(&log).unwrap_err();
    matches!(open.check_health(), Err(StorageError::Poisoned { .. }))
}

#[test]
fn a_checkpoint_or_a_name_that_could_not_be_flushed_is_not_flushed_again() {
    let delete = |log: &Log| log.delete_records_to(Offset(2)).map(drop);
    let truncate = |log: &Log| log.truncate_to(Offset(2));
    let restart = |log: &Log| log.truncate_fully_and_start_at(Offset(9));
    assert!(is_offline_after("", delete), "the name of the log starts");
    assert!(is_offline_after("log-start-offset-checkpoint.tmp", delete), "the log starts");
    assert!(is_offline_after("", truncate), "the name of the recovery points");
    assert!(is_offline_after("recovery-point-offset-checkpoint.tmp", truncate), "those");
    assert!(is_offline_after("t-0", restart), "the name of the first segment");
}

#[test]
fn what_recovery_could_not_flush_is_not_believed_by_the_next_start() {
    let disk = Arc::new(FaultyDisk::default());
    let directory = on(&disk);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(1, 10), EPOCH).unwrap();
    drop((log, open));
    disk.fail_syncs_under(&directory.path());
    directory.try_open(LogConfig::default()).unwrap_err();
    assert!(directory.path().join(".ottla_sync_failed").exists());
}

#[test]
fn a_write_without_room_leaves_the_log_as_it_was_and_the_next_one_may_succeed() {
    let disk = Arc::new(FaultyDisk::default());
    let directory = on(&disk);
    let open = directory.open(LogConfig { segment_bytes: 200, ..LogConfig::default() });
    let log = open.create("t", 0);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        log.append_produced(batch(1, 100), EPOCH).unwrap();
        let before = read_all(&log).len();
        disk.fail_writes(Some(kind));
        assert!(is_full(log.append_produced(batch(1, 100), EPOCH)));
        assert!(open.is_full());
        assert!(is_full(log.append_produced(batch(1, 100), EPOCH)), "the disk is not even tried");
        open.housekeep();
        assert!(open.is_full(), "nothing has been written since");
        disk.fail_writes(None);
        open.housekeep();
        log.append_produced(batch(1, 100), EPOCH).unwrap();
        assert!(!open.is_full());
        assert_eq!(read_all(&log).len(), before + 1);
    }
    open.check_health().unwrap();
    log.flush().unwrap();
    drop(log);
    open.close();
    let log = directory.open(LogConfig::default()).log("t", 0);
    assert_eq!((read_all(&log).len(), log.log_end_offset()), (4, Offset(4)));
}

#[test]
fn behind_a_batch_that_found_no_room_there_is_no_gap_in_what_its_producer_sends() {
    let disk = Arc::new(FaultyDisk::default());
    let directory = on(&disk);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let send = |sequence| {
        let mut builder = BatchBuilder::new(Compression::None).producer(4, 0, sequence);
        builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
        log.append_produced(builder.build(), EPOCH)
    };
    send(0).unwrap();
    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    assert!(is_full(send(1)));
    assert!(is_full(send(2)), "it was on its way when the one before it was refused");
    assert!(send(0).unwrap().duplicate, "what is there needs no room");
    disk.fail_writes(None);
    open.housekeep();
    assert!(matches!(send(2), Err(AppendError::Refused(_))), "with room it is a gap");
    for sequence in [1, 2] {
        assert!(!send(sequence).unwrap().duplicate);
    }
}

#[test]
fn the_reserve_is_for_the_brokers_own_records() {
    let disk = Arc::new(FaultyDisk::default());
    let mut directory = on(&disk);
    directory.options.reserved_bytes = 1_000;
    disk.set_free(Some(1_100));
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    assert!(is_full(log.append_produced(batch(1, 200), EPOCH)));
    log.append_batch(batch(1, 200), EPOCH).unwrap();
    log.flush().unwrap();
    log.delete_records_to(Offset(1)).unwrap();
    log.roll().unwrap();
    disk.set_free(Some(1_500));
    open.housekeep();
    log.append_produced(batch(1, 200), EPOCH).unwrap();
    open.check_health().unwrap();
}
