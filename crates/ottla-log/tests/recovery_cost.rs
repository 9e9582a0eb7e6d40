//! What recovery reads after a crash: what was written since the last checkpoint, whatever the size of the data.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    reason = "a test stops at what it does not expect, and its numbers are small"
)]

mod support;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_env::{Disk, DiskLayer, OsDisk};
use ottla_log::{DirectoryOptions, Log, LogConfig};
use ottla_records::ControlType;
use support::{Directory, Draft, Open, batch, marker, read_all};

/// The operating system's disk, and how many bytes were read from it.
#[derive(Default)]
struct CountingDisk {
    read: AtomicU64,
    /// What else is to happen in the midst of the next read.
    at_next_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for CountingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountingDisk").field("read", &self.read).finish_non_exhaustive()
    }
}

impl DiskLayer for CountingDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let happens = self.at_next_read.lock().unwrap().take();
        if let Some(happens) = happens {
            happens();
        }
        let read = OsDisk.read_at(file, buffer, position)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A directory whose reads are counted, and that asks for snapshots early.
fn directory() -> (Directory, Arc<CountingDisk>) {
    let disk = Arc::new(CountingDisk::default());
    let mut directory = Directory::new();
    directory.options = DirectoryOptions {
        disk: Arc::clone(&disk) as _,
        snapshot_lag_bytes: 256 * KIB,
        ..DirectoryOptions::default()
    };
    (directory, disk)
}

/// Appends so many bytes in batches of about 16 KiB.
fn fill(log: &Log, bytes: u64) {
    let end = log.size_in_bytes() + bytes;
    while log.size_in_bytes() < end {
        log.append_batch(batch(16, 1000), LeaderEpoch(0)).unwrap();
    }
}

/// What the start after a crash reads, when so much was there at the last checkpoint and so much came after it.
fn bytes_read(before: u64, after: u64) -> u64 {
    let (directory, disk) = directory();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    fill(&log, before);
    open.checkpoint().unwrap();
    fill(&log, after);
    let end = log.log_end_offset();
    drop((open, log));
    disk.read.store(0, Ordering::Relaxed);
    let open = directory.open(LogConfig::default());
    assert_eq!(open.log("t", 0).log_end_offset(), end);
    disk.read.load(Ordering::Relaxed)
}

#[test]
fn recovery_reads_what_came_after_the_checkpoint_and_not_what_was_there_before() {
    let (small, large) = (bytes_read(MIB, MIB), bytes_read(64 * MIB, MIB));
    assert!(small < 3 * MIB, "{small} bytes are read after one megabyte");
    // What grows is the index: eight bytes and twelve for each batch.
    assert!(
        large < small + 64 * MIB / 100,
        "{large} bytes are read of 64 megabytes, {small} of one"
    );
    let longer = bytes_read(MIB, 8 * MIB);
    assert!(longer > 7 * MIB, "{longer} bytes are read: the test would not notice");
}

/// A log of so many bytes in small batches in one segment, and a checkpoint.
fn one_large_segment() -> (Directory, Arc<CountingDisk>, Open, Arc<Log>) {
    let (directory, disk) = directory();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    while log.size_in_bytes() < 64 * MIB {
        log.append_batch(batch(1, 2000), LeaderEpoch(0)).unwrap();
    }
    open.checkpoint().unwrap();
    (directory, disk, open, log)
}

fn begin(log: &Log, id: i64) {
    let draft = Draft { id, in_transaction: true, ..Draft::new(0, 2) };
    log.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
}

fn abort(log: &Log, id: i64) {
    log.append_batch(marker(ControlType::Abort, id, 0, 0, 1_000), LeaderEpoch(0)).unwrap();
}

/// How many bytes are read by this.
fn read_by<T>(disk: &CountingDisk, act: impl FnOnce() -> T) -> u64 {
    disk.read.store(0, Ordering::Relaxed);
    act();
    disk.read.load(Ordering::Relaxed)
}

#[test]
fn a_replica_s_first_role_after_a_restart_reads_little_of_its_segment_and_the_next_ones_nothing() {
    for (crashes, has_transaction) in [(true, false), (false, false), (true, true), (false, true)] {
        let (directory, disk, open, log) = one_large_segment();
        if has_transaction {
            begin(&log, 7);
            open.checkpoint().unwrap();
        }
        let first = log.log_end_offset();
        begin(&log, 8);
        let high_watermark = log.log_end_offset();
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
        if has_transaction {
            abort(&log, 7);
        }
        log.flush().unwrap();
        log.note_high_watermark(high_watermark);
        open.checkpoint_high_watermarks().unwrap();
        drop(log);
        if crashes {
            drop(open)
        } else {
            open.close()
        }
        let open = directory.open(LogConfig::default());
        let log = open.log("t", 0);
        let end = log.log_end_offset();
        assert_eq!((log.segment_count(), log.noted_high_watermark()), (1, Some(high_watermark)));
        let unsettle = |high_watermark| log.unsettle_transactions(high_watermark).unwrap();
        let read = read_by(&disk, || unsettle(high_watermark));
        let case = format!("crashes: {crashes}, has a transaction: {has_transaction}");
        assert!(read < MIB, "{read} bytes are read; {case}");
        let stable = if has_transaction { Offset(first.0 - 2) } else { first };
        assert_eq!(log.last_stable_offset(high_watermark), stable, "{case}");
        abort(&log, 8);
        assert_eq!(log.last_stable_offset(high_watermark), stable, "{case}");
        let read = read_by(&disk, || unsettle(high_watermark));
        assert_eq!((read, log.last_stable_offset(high_watermark)), (0, stable), "{case}");
        log.note_high_watermark(end);
        let read = read_by(&disk, || unsettle(end));
        assert_eq!((read, log.last_stable_offset(end)), (0, first), "{case}");
    }
}

#[test]
fn the_roles_of_a_log_that_was_always_open_cost_nothing() {
    let (_directory, disk, _open, log) = one_large_segment();
    let high_watermark = log.log_end_offset();
    begin(&log, 7);
    abort(&log, 7);
    for at in [Offset::ZERO, high_watermark] {
        let read = read_by(&disk, || log.unsettle_transactions(at).unwrap());
        assert_eq!((read, log.last_stable_offset(high_watermark)), (0, high_watermark));
    }
    // What is cut off was remembered to no purpose.
    log.note_high_watermark(log.log_end_offset());
    log.truncate_to(high_watermark).unwrap();
    begin(&log, 8);
    abort(&log, 8);
    let read = read_by(&disk, || log.unsettle_transactions(high_watermark).unwrap());
    let stable = log.last_stable_offset(Offset(high_watermark.0 + 1));
    assert_eq!((read, stable), (0, high_watermark));
}

#[test]
fn a_truncation_reads_what_came_after_a_snapshot_and_not_what_was_there_before() {
    let (_directory, disk, open, log) = one_large_segment();
    for id in [7, 8] {
        begin(&log, id);
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    let to = Offset(log.log_end_offset().0 - 1);
    let read = read_by(&disk, || log.truncate_to(to).unwrap());
    assert!(read < MIB, "{read} bytes are read");
    assert_eq!((log.log_end_offset(), log.last_stable_offset(to)), (to, Offset(to.0 - 5)));
    drop(open);
}

#[test]
fn a_truncation_that_has_much_to_read_keeps_no_flush_waiting() {
    let (directory, disk, open, log) = one_large_segment();
    // The only snapshot is of one batch more.
    let to = Offset(log.log_end_offset().0 - 1);
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    let (flushed, is_flushed) = mpsc::channel();
    let flush = {
        let log = Arc::clone(&log);
        move || {
            let (done, is_done) = mpsc::channel();
            let thread = thread::spawn(move || done.send(log.flush()));
            flushed.send((is_done.recv_timeout(Duration::from_secs(20)), thread)).unwrap();
        }
    };
    *disk.at_next_read.lock().unwrap() = Some(Box::new(flush));
    log.truncate_to(to).unwrap();
    let (flushed, thread) = is_flushed.try_recv().unwrap();
    let _ = thread.join();
    assert!(flushed.is_ok(), "no flush was done before the truncation was");
    assert_eq!(flushed.unwrap().unwrap(), Offset(to.0 + 2));
    assert_eq!((log.log_end_offset(), log.flushed_offset()), (to, to));
    drop((directory, open));
}

#[test]
fn a_log_recovered_from_its_checkpoint_is_the_log_that_was_there() {
    for since in [0, 1, 40] {
        let (directory, _) = directory();
        let config = LogConfig { index_interval_bytes: 1000, ..LogConfig::default() };
        let open = directory.open(config.clone());
        let log = open.create("t", 0);
        let append = |range: std::ops::Range<i32>| {
            for n in range {
                let timestamp = 1_000 + i64::from(n);
                let draft = Draft { id: i64::from(n % 3), timestamp, ..Draft::new(n / 3 * 10, 10) };
                let epoch = LeaderEpoch(n / 1000);
                log.append_produced(draft.build(), epoch).unwrap();
                if n % 40 == 0 {
                    let aborted = Draft {
                        id: 9,
                        in_transaction: true,
                        timestamp,
                        ..Draft::new(n / 40 * 10, 10)
                    };
                    log.append_produced(aborted.build(), epoch).unwrap();
                }
                if n % 40 == 30 {
                    log.append_batch(marker(ControlType::Abort, 9, 0, 0, timestamp), epoch)
                        .unwrap();
                }
            }
        };
        append(0..3000);
        open.checkpoint().unwrap();
        append(3000..3000 + since);
        let state = |log: &Log| {
            let by_time =
                [1_000, 1_777, 3_999].map(|at| log.offset_for_timestamp(Timestamp(at)).unwrap());
            let aborted = log.aborted_transactions(&(Offset::ZERO..log.log_end_offset())).unwrap();
            let producers = (log.producers(), aborted);
            (producers, log.log_end_offset(), log.epoch_entries(), by_time, read_all(log))
        };
        let expected = state(&log);
        assert!(expected.0.1.len() >= 75, "there are transactions to be remembered");
        drop((open, log));
        let partition = directory.path().join("t-0");
        let read = |ending: &str| fs::read(partition.join(format!("{:020}.{ending}", 0))).unwrap();
        let open = directory.open(config);
        assert_eq!(state(&open.log("t", 0)), expected);
        let (offsets, times) = (read("index"), read("timeindex"));
        assert!(!offsets.is_empty() && !times.is_empty());
        drop(open);
        // From the first byte on it would be the same.
        for file in ["index", "timeindex"] {
            fs::remove_file(partition.join(format!("{:020}.{file}", 0))).unwrap();
        }
        drop(directory.open(LogConfig { index_interval_bytes: 1000, ..LogConfig::default() }));
        assert_eq!((read("index"), read("timeindex")), (offsets, times));
    }
}

#[test]
fn so_many_bytes_make_a_checkpoint_due_before_its_time() {
    let mut directory = Directory::new();
    directory.options.checkpoint_bytes = MIB;
    directory.options.threads = false;
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let noted =
        || fs::read_to_string(directory.path().join("recovery-point-offset-checkpoint")).ok();
    open.housekeep();
    fill(&log, 512 * KIB);
    let before = noted();
    open.housekeep();
    assert_eq!(noted(), before);
    fill(&log, 512 * KIB);
    open.housekeep();
    assert_eq!(noted(), Some(format!("0\n1\nt 0 {}\n", log.log_end_offset().0)));
}
