//! A compaction that fails halfway while the process goes on: what it leaves on the disk must do no harm to what comes
//! after it, nor to the next start.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what it does not expect"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_env::{Disk, DiskLayer, OsDisk};
use ottla_log::{CleanableLogs, CleanerOptions, Log, LogCleaner, LogConfig, StorageError};
use ottla_records::{BatchBuilder, Compression};
use parking_lot::Mutex;
use support::{Directory, Open, read_all};

/// What a call does, to which name: `read`, `write`, `remove …`, `rename … …`, `sync`, `sync directory`.
type Hook = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// A disk that asks before it reads or changes anything.
#[derive(Default)]
struct AskingDisk(Mutex<Option<Hook>>);

impl fmt::Debug for AskingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskingDisk")
    }
}

impl AskingDisk {
    fn set(&self, hook: impl FnMut(&str) -> io::Result<()> + Send + 'static) {
        *self.0.lock() = Some(Box::new(hook));
    }

    fn ask(&self, what: &str) -> io::Result<()> {
        // The hook may well make calls of its own.
        let Some(mut hook) = self.0.lock().take() else { return Ok(()) };
        let answer = hook(what);
        self.0.lock().get_or_insert(hook);
        answer
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl DiskLayer for AskingDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(&format!("rename {} {}", name(from), name(to)))?;
        OsDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask(&format!("remove {}", name(path)))?;
        OsDisk.remove_file(path)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.ask("read")?;
        OsDisk.read_at(file, buffer, position)
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        self.ask("write")?;
        OsDisk.write_at(file, buffers, position)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.ask("sync")?;
        OsDisk.sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.ask("sync directory")?;
        OsDisk.sync_directory(path)
    }
}

fn fails() -> io::Result<()> {
    Err(io::Error::other("injected"))
}

#[derive(Debug)]
struct OneLog(Arc<Log>);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.0.log_end_offset())]
    }
}

struct World {
    directory: Directory,
    disk: Arc<AskingDisk>,
    open: Option<Open>,
}

const SEGMENTS: i64 = 4;

impl World {
    /// Some closed segments, each with a record of its own and one of a key that all have, and all of it on disk.
    fn new() -> Self {
        let disk = Arc::new(AskingDisk::default());
        let mut directory = Directory::new();
        directory.options.disk = Arc::clone(&disk) as _;
        directory.options.threads = false;
        let open = directory.open(config());
        let log = open.create("t", 0);
        for segment in 0..SEGMENTS {
            for key in [format!("own {segment}"), "shared".to_owned()] {
                let mut builder = BatchBuilder::new(Compression::None);
                let value = format!("value {segment}");
                builder.append(Timestamp(1_000), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
                log.append_batch(builder.build(), LeaderEpoch(0)).unwrap();
            }
            log.roll().unwrap();
        }
        open.checkpoint().unwrap();
        Self { directory, disk, open: Some(open) }
    }

    fn log(&self) -> Arc<Log> {
        self.open.as_ref().unwrap().log("t", 0)
    }

    fn clean(&self) -> usize {
        let options = CleanerOptions { threads: 0, ..CleanerOptions::default() };
        let logs = Arc::new(OneLog(self.log()));
        let clock = Arc::clone(&self.directory.clock);
        LogCleaner::start(logs, options, clock).unwrap().clean_all_due()
    }

    /// The process ends, and another one begins on a disk that does what it is told.
    fn reopen(&mut self) {
        self.open = None;
        *self.disk.0.lock() = None;
        self.open = Some(self.directory.open(config()));
    }

    fn names(&self, ending: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("t-0")).unwrap();
        let names = entries.map(|entry| name(&entry.unwrap().path()));
        names.filter(|name| name.ends_with(ending)).collect()
    }

    /// By key, where it was written last.
    fn newest(&self) -> BTreeMap<String, i64> {
        let batches = read_all(&self.log()).into_iter();
        let records = batches.flat_map(|batch| batch.records().unwrap().map(Result::unwrap));
        let key = |key: Option<bytes::Bytes>| String::from_utf8(key.unwrap().to_vec()).unwrap();
        records.map(|record| (key(record.key), record.offset.0)).collect()
    }
}

/// Every segment stays one of its own.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 200,
        index_interval_bytes: 1,
        delete: false,
        compact: true,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

#[test]
fn a_compaction_without_room_leaves_nothing_behind_that_a_later_one_could_be_mistaken_for() {
    let mut world = World::new();
    world.disk.set(|what| if what == "write" { fails() } else { Ok(()) });
    assert_eq!(world.clean(), 0);
    assert_eq!(world.names(".cleaned"), Vec::<String>::new());
    // The segment that it was about is deleted, and the next compaction interrupted while it replaces another one.
    world.disk.set(|_| Ok(()));
    let log = world.log();
    log.delete_records_to(Offset(2)).unwrap();
    assert_eq!(log.enforce_retention(0, log.log_end_offset()).unwrap().segments, 1);
    let newest = world.newest();
    let mut has_stopped = false;
    world.disk.set(move |what| {
        has_stopped |= what.ends_with(".log.swap 00000000000000000002.log");
        if has_stopped { fails() } else { Ok(()) }
    });
    assert_eq!(world.clean(), 0);
    drop(log);
    world.reopen();
    assert_eq!(world.newest(), newest);
}

#[test]
fn a_log_is_not_compacted_on_as_long_as_something_unfinished_cannot_be_removed() {
    let mut world = World::new();
    world.disk.set(|what| {
        let is_removal = what.starts_with("remove") && what.ends_with(".log.cleaned");
        if what == "write" || is_removal { fails() } else { Ok(()) }
    });
    assert_eq!(world.clean(), 0);
    assert!(world.log().is_uncleanable());
    let newest = world.newest();
    world.reopen();
    assert!(world.clean() > 0);
    assert_eq!((world.newest(), world.names(".cleaned")), (newest, Vec::new()));
}

#[test]
fn a_directory_that_cannot_be_synced_before_segments_are_replaced_is_offline() {
    let mut world = World::new();
    let mut is_renamed = false;
    world.disk.set(move |what| {
        is_renamed |= what.ends_with(".log.swap");
        if is_renamed && what == "sync directory" { fails() } else { Ok(()) }
    });
    let newest = world.newest();
    assert_eq!(world.clean(), 0);
    let health = world.open.as_ref().unwrap().check_health();
    assert!(matches!(health, Err(StorageError::Poisoned { .. })), "{health:?}");
    world.reopen();
    assert_eq!((world.newest(), world.names(".swap")), (newest, Vec::new()));
}

#[test]
fn what_was_made_from_segments_that_have_changed_meanwhile_never_gets_a_name_that_counts() {
    let world = World::new();
    let log = world.log();
    let names = Arc::new(Mutex::new(Vec::new()));
    let (noted, cut) = (Arc::clone(&names), Arc::clone(&log));
    let mut writes = 0;
    world.disk.set(move |what| {
        noted.lock().push(what.to_owned());
        writes += usize::from(what == "write");
        if writes == 1 && what == "sync" {
            // Everything is read, and what is kept is being written.
            cut.truncate_to(Offset(1)).unwrap();
        }
        Ok(())
    });
    assert_eq!(world.clean(), 0);
    assert_eq!(log.log_end_offset(), Offset(1), "it was cut off meanwhile");
    let swaps: Vec<_> =
        names.lock().iter().filter(|what| what.starts_with("rename")).cloned().collect();
    assert_eq!(swaps, Vec::<String>::new());
    assert_eq!(world.names(".cleaned"), Vec::<String>::new());
}

#[test]
fn what_a_compaction_reads_of_a_log_that_is_cut_off_under_it_is_not_taken_for_damage() {
    let mut cuts = 0;
    for at in 0.. {
        let world = World::new();
        let log = world.log();
        let (cut, mut reads) = (Arc::clone(&log), 0);
        world.disk.set(move |what| {
            reads += usize::from(what == "read");
            if what == "read" && reads == at + 1 {
                cut.truncate_to(Offset(0)).unwrap();
            }
            Ok(())
        });
        world.clean();
        assert!(!log.is_uncleanable(), "cut off before read {at}");
        if log.log_end_offset() > Offset(0) {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > SEGMENTS, "{cuts} cuts");
}

#[test]
fn a_log_that_is_to_be_compacted_no_longer_keeps_all_that_was_not_replaced_by_then() {
    let world = World::new();
    let log = world.log();
    let batches = read_all(&log).len();
    let (changed, mut is_changed) = (Arc::clone(&log), false);
    world.disk.set(move |what| {
        if what == "write" && !is_changed {
            is_changed = true;
            changed.set_config(Arc::new(LogConfig { compact: false, delete: true, ..config() }));
        }
        Ok(())
    });
    assert_eq!(world.clean(), 0);
    assert_eq!(read_all(&log).len(), batches);
    assert_eq!(world.names(".cleaned"), Vec::<String>::new());
}

#[test]
fn retention_leaves_the_segments_of_a_log_alone_while_it_is_compacted() {
    let world = World::new();
    let log = world.log();
    let both = LogConfig { delete: true, retention_ms: -1, retention_bytes: 1, ..config() };
    log.set_config(Arc::new(both));
    let removed = Arc::new(Mutex::new(None));
    let (noted, retained) = (Arc::clone(&removed), Arc::clone(&log));
    world.disk.set(move |what| {
        if what == "write" && noted.lock().is_none() {
            let end = retained.log_end_offset();
            *noted.lock() = Some(retained.enforce_retention(0, end).unwrap().segments);
        }
        Ok(())
    });
    assert_eq!(world.clean(), 1);
    assert_eq!(*removed.lock(), Some(0));
    assert!(log.enforce_retention(0, log.log_end_offset()).unwrap().segments > 0);
}

#[test]
fn nothing_is_compacted_on_a_disk_that_has_failed() {
    let world = World::new();
    let other = world.open.as_ref().unwrap().create("other", 0);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), Some(b"key"), Some(b"value"), &[]);
    other.append_batch(builder.build(), LeaderEpoch(0)).unwrap();
    world.disk.set(|what| if what == "sync" { fails() } else { Ok(()) });
    other.flush().unwrap_err();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    world.disk.set(move |what| {
        noted.lock().push(what.to_owned());
        Ok(())
    });
    assert_eq!(world.clean(), 0);
    assert_eq!(*asked.lock(), Vec::<String>::new());
}

#[test]
fn a_segment_whose_log_file_cannot_be_renamed_away_takes_the_directory_offline() {
    let mut world = World::new();
    world.disk.set(|what| {
        let is_it = what.contains(".log ") && what.ends_with(".log.deleted");
        if is_it { fails() } else { Ok(()) }
    });
    let newest = world.newest();
    assert_eq!(world.clean(), 0);
    world.open.as_ref().unwrap().check_health().unwrap_err();
    world.reopen();
    assert_eq!(world.newest(), newest);
}

#[test]
fn a_directory_in_which_damage_was_met_can_be_opened_again_once_it_is_let_go_of() {
    let mut world = World::new();
    let path = world.directory.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(world.clean(), 0);
    assert!(world.log().is_uncleanable());
    world.reopen();
}

#[test]
fn a_producers_last_batch_is_on_disk_before_an_earlier_one_goes_because_of_it() {
    let world = World::new();
    let log = world.log();
    let append = |sequence| {
        let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, sequence);
        builder.append(Timestamp(1_000), Some(b"shared"), Some(b"value"), &[]);
        log.append_produced(builder.build(), LeaderEpoch(0)).unwrap();
    };
    append(0);
    log.roll().unwrap();
    world.open.as_ref().unwrap().checkpoint().unwrap();
    append(1);
    let end = log.log_end_offset();
    assert!(log.flushed_offset() < end);
    let (noted, flushed) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&log));
    let notes = Arc::clone(&noted);
    world.disk.set(move |what| {
        if what.ends_with(".log.swap") {
            notes.lock().push(flushed.flushed_offset());
        }
        Ok(())
    });
    assert!(world.clean() > 0);
    assert_eq!(noted.lock().first(), Some(&end));
}

#[test]
fn a_recovery_point_is_moved_for_a_compaction_only_when_the_indexes_before_it_are_written() {
    let world = World::new();
    let log = world.log();
    let append = || {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(Timestamp(1_000), Some(b"shared"), Some(b"value"), &[]);
        log.append_batch(builder.build(), LeaderEpoch(0)).unwrap();
    };
    append();
    log.roll().unwrap();
    append();
    append();
    assert!(world.clean() > 0);
    let points = world.directory.path().join("recovery-point-offset-checkpoint");
    let points = std::fs::read_to_string(points).unwrap();
    assert_eq!(points.lines().last(), Some(&*format!("t 0 {}", log.log_end_offset())));
    let index = world.directory.path().join("t-0/00000000000000000009.index");
    assert_eq!(std::fs::metadata(index).unwrap().len(), 8, "of the second batch");
}
