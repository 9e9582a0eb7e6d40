//! A truncation that fails at one of its calls while the process goes on: either nothing more is written, or a retry
//! succeeds; and what is appended and flushed after it is there after a crash.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset};
use ottla_env::disk::{DirectoryEntry, Open as How, Status};
use ottla_env::{Disk, DiskLayer, OsDisk};
use ottla_log::producers::Producers;
use ottla_log::{EpochEntry, Log, LogConfig, StorageError};
use ottla_records::ControlType;
use parking_lot::Mutex;
use support::{Directory, Draft, Open, marker, read_all};

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One call.
    Once,
    /// One call that changes something, and all of those that come after it.
    Gone,
    /// One call that takes room, and all of those that come after it.
    Full,
}

/// A disk that fails at a call of its own choosing.
#[derive(Debug, Default)]
struct FailingDisk(Mutex<Option<Armed>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    calls_left: u64,
    has_failed: bool,
}

impl FailingDisk {
    fn arm(&self, fault: Fault, after: u64) {
        *self.0.lock() = Some(Armed { fault, calls_left: after, has_failed: false });
    }

    /// Does what it is told again. Returns whether it has not.
    fn mend(&self) -> bool {
        self.0.lock().take().is_some_and(|armed| armed.has_failed)
    }

    fn read(&self) -> io::Result<()> {
        self.call(|fault| fault == Fault::Once)
    }

    fn change(&self) -> io::Result<()> {
        self.call(|fault| fault != Fault::Full)
    }

    fn take_room(&self) -> io::Result<()> {
        self.call(|_| true)
    }

    fn call(&self, concerns: impl Fn(Fault) -> bool) -> io::Result<()> {
        let mut armed = self.0.lock();
        let Some(armed) = armed.as_mut().filter(|armed| concerns(armed.fault)) else {
            return Ok(());
        };
        if armed.calls_left > 0 {
            armed.calls_left -= 1;
            return Ok(());
        }
        let is_over = armed.has_failed && armed.fault == Fault::Once;
        armed.has_failed = true;
        match armed.fault {
            _ if is_over => Ok(()),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Once | Fault::Gone => Err(io::Error::other("injected")),
        }
    }
}

impl DiskLayer for FailingDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        match how {
            How::Create | How::Replace => self.take_room()?,
            How::Read | How::Write => self.read()?,
        }
        OsDisk.open(path, how)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        self.read()?;
        OsDisk.status(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.read()?;
        OsDisk.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.remove_file(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read()?;
        OsDisk.read_at(file, buffer, position)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.take_room()?;
        OsDisk.write_at(file, buffers, position)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.change()?;
        OsDisk.set_len(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.change()?;
        OsDisk.sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        OsDisk.sync_directory(path)
    }

    fn sync_file_system(&self, path: &Path, within: &File) -> io::Result<()> {
        self.change()?;
        OsDisk.sync_file_system(path, within)
    }
}

/// All that a log says of itself.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    offsets: (Offset, Offset),
    /// Where each batch begins and ends, and its checksum.
    batches: Vec<(i64, i64, u32)>,
    producers: Producers,
    epochs: Vec<EpochEntry>,
    /// Of aborted transactions the producers and offsets.
    aborted: Vec<(i64, i64, i64)>,
    largest_timestamp: Option<Offset>,
}

fn look(log: &Log) -> Seen {
    let offsets = (log.log_start_offset(), log.log_end_offset());
    let aborted = log.aborted_transactions(&(offsets.0..offsets.1)).unwrap();
    let aborted = aborted.iter().map(|it| (it.producer_id.0, it.first_offset.0, it.last_offset.0));
    let batches = read_all(log);
    let batches = batches.iter().map(|batch| batch.header());
    Seen {
        offsets,
        batches: batches.map(|it| (it.base_offset, it.next_offset(), it.crc)).collect(),
        producers: log.producers(),
        epochs: log.epoch_entries(),
        aborted: aborted.collect(),
        largest_timestamp: log.max_timestamp().unwrap().map(|found| found.offset),
    }
}

struct World {
    directory: Directory,
    disk: Arc<FailingDisk>,
    open: Option<Open>,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 700, index_interval_bytes: 100, ..LogConfig::default() }
}

const TRANSACTIONAL: i64 = 5;
const BATCHES: i32 = 30;
const START: Offset = Offset(4);
/// What was visible at the checkpoint.
const VISIBLE: Offset = Offset(26);

impl World {
    /// Several segments of producers in several epochs, some of whose transactions are aborted; the first half is in a
    /// checkpoint, nearly all is flushed, and the first offsets are deleted.
    fn new() -> Self {
        let disk = Arc::new(FailingDisk::default());
        let mut directory = Directory::new();
        directory.options.disk = Arc::clone(&disk) as _;
        directory.options.threads = false;
        let open = directory.open(config());
        let log = open.create("t", 0);
        let mut transactions = 0;
        for n in 0..BATCHES {
            let epoch = LeaderEpoch(n / 6);
            let timestamp = 1_000 + i64::from(n);
            let draft = match n % 5 {
                3 => {
                    transactions += 1;
                    let sequence = transactions - 1;
                    let draft = Draft { id: TRANSACTIONAL, ..Draft::new(sequence, 1) };
                    Draft { in_transaction: true, timestamp, ..draft }
                }
                4 => {
                    let abort = marker(ControlType::Abort, TRANSACTIONAL, 0, 0, timestamp);
                    log.append_batch(abort, epoch).unwrap();
                    continue;
                }
                _ => {
                    let draft = Draft::new((n / 5 * 3 + n % 5) * 2, 2);
                    Draft { timestamp, ..draft }
                }
            };
            log.append_produced(draft.build(), epoch).unwrap();
            if n == BATCHES / 2 {
                assert_eq!(log.log_end_offset(), VISIBLE);
                log.note_high_watermark(VISIBLE);
                open.checkpoint().unwrap();
                open.checkpoint_high_watermarks().unwrap();
                log.delete_records_to(START).unwrap();
            }
            if n == BATCHES - 4 {
                log.flush().unwrap();
            }
        }
        assert!(log.segment_count() > 4, "{}", log.segment_count());
        Self { directory, disk, open: Some(open) }
    }

    fn log(&self) -> Arc<Log> {
        self.open.as_ref().unwrap().log("t", 0)
    }

    fn is_online(&self) -> bool {
        let health = self.open.as_ref().unwrap().check_health();
        assert!(matches!(health, Ok(()) | Err(StorageError::Poisoned { .. })), "{health:?}");
        health.is_ok()
    }

    /// The process is killed, and the next one starts.
    fn crash(&mut self) {
        self.open = None;
        self.open = Some(self.directory.open(config()));
    }

    /// Goes on as if nothing had happened: what is appended and flushed must be there after a crash, and all before it.
    fn go_on(&mut self, case: &str) {
        let log = self.log();
        for n in 0..12 {
            let draft = Draft { id: 8, timestamp: 5_000, ..Draft::new(n, 1) };
            log.append_produced(draft.build(), LeaderEpoch(9)).unwrap();
        }
        log.flush().unwrap();
        let before = look(&log);
        drop(log);
        self.crash();
        assert_eq!(look(&self.log()), before, "{case}");
    }
}

/// How a log becomes shorter, and at which offset.
#[derive(Debug, Clone, Copy)]
struct Cut {
    begins_anew: bool,
    offset: Offset,
}

impl Cut {
    fn make(self, log: &Log) -> Result<(), StorageError> {
        match self.begins_anew {
            true => log.truncate_fully_and_start_at(self.offset),
            false => log.truncate_to(self.offset),
        }
    }

    /// Whether a checkpoint says that more is visible, or that the log starts later.
    fn contradicts_a_checkpoint(self) -> bool {
        self.offset < VISIBLE
    }
}

/// Within each segment, between two of them, before the log's start; and anew behind its end and in its middle.
fn cuts() -> Vec<Cut> {
    let world = World::new();
    let log = world.log();
    let bases = log.segment_infos().unwrap();
    let bases: Vec<i64> = bases.iter().map(|info| info.base_offset.0).collect();
    let last = bases.last().unwrap() + 3;
    assert!(last < log.log_end_offset().0);
    let cut = |offset| Cut { begins_anew: false, offset: Offset(offset) };
    let anew = |offset| Cut { begins_anew: true, offset: Offset(offset) };
    vec![
        cut(last),
        cut(bases[bases.len() - 2]),
        cut(bases[1] + 4),
        cut(START.0 - 2),
        anew(100),
        anew(17),
    ]
}

/// Lets one call after the other fail. Returns how often the directory was offline, and how often it was not.
fn sweep(cut: Cut, fault: Fault, retries: bool) -> (u64, u64) {
    let world = World::new();
    let log = world.log();
    let whole = look(&log);
    cut.make(&log).unwrap();
    let shortened = look(&log);
    let (mut offline, mut online) = (0, 0);
    for after in 0.. {
        let case = format!("{cut:?}, {fault:?} after {after} calls, retried: {retries}");
        let mut world = World::new();
        world.disk.arm(fault, after);
        let result = cut.make(&world.log());
        if !world.disk.mend() {
            assert!(result.is_ok(), "{case}: {result:?}");
            return (offline, online);
        }
        if world.is_online() {
            online += 1;
            let log = world.log();
            if result.is_ok() || retries {
                cut.make(&log).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(look(&log), shortened, "{case}");
            } else {
                // A file that could not be replaced says more of epochs until the next append.
                let (epochs, seen) = (shortened.epochs.clone(), look(&log));
                let is_shortened = Seen { epochs, ..seen.clone() } == shortened;
                assert!(is_shortened || seen == whole, "{case}: {seen:?}");
            }
            drop(log);
        } else {
            offline += 1;
            result.unwrap_err();
            world.crash();
            let (seen, stays) = (look(&world.log()), &shortened.batches);
            let start = seen.batches.get(..stays.len());
            assert!(start == Some(stays) || stays.is_empty(), "{case}: {seen:?}");
        }
        world.go_on(&case);
    }
    unreachable!("a truncation makes a number of calls")
}

#[test]
fn after_a_truncation_that_failed_halfway_the_directory_is_offline_or_a_retry_succeeds() {
    for cut in cuts() {
        for fault in [Fault::Once, Fault::Gone] {
            let (offline, online) = sweep(cut, fault, true);
            assert!(offline > 2 && online > 2, "{cut:?}, {fault:?}: {offline}, {online}");
        }
        sweep(cut, Fault::Once, false);
    }
}

#[test]
fn a_truncation_that_finds_no_room_leaves_the_directory_online() {
    for cut in cuts() {
        for retries in [true, false] {
            let (offline, online) = sweep(cut, Fault::Full, retries);
            assert!(online > 2, "{cut:?}: {online}");
            assert!(offline == 0 || cut.contradicts_a_checkpoint(), "{cut:?}: {offline}");
        }
    }
}

#[test]
fn nor_does_one_on_a_disk_on_which_the_last_checkpoint_found_no_room_either() {
    for cut in cuts() {
        let world = World::new();
        let log = world.log();
        // The indexes need no more room.
        log.roll().unwrap();
        log.flush().unwrap();
        log.note_high_watermark(log.log_end_offset());
        world.disk.arm(Fault::Full, 0);
        world.open.as_ref().unwrap().checkpoint_high_watermarks().unwrap_err();
        cut.make(&log).unwrap_err();
        assert!(world.disk.mend() && world.is_online(), "{cut:?}");
        cut.make(&log).unwrap();
    }
}
