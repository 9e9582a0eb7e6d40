//! What everything stands on that plays a disk: the log does nothing with files but through `Disk`, and nothing by
//! itself if it is told not to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../../ottla-base/tests/purity/sources.rs"]
mod sources;
mod support;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ottla_base::{LeaderEpoch, Offset};
use ottla_env::{Disk, DiskLayer, OsDisk};
use ottla_log::{Log, LogConfig, LogDirectory};
use sources::sources_of;
use support::{Directory, batch, read_all};

/// What leads around the disk, as it would be written in the sources.
const BANNED: [&str; 17] = [
    "fs::",
    "File::open",
    "File::create",
    "OpenOptions",
    "FileExt",
    "tempfile",
    "io::Read",
    "io::Write",
    ".exists()",
    ".is_dir()",
    ".is_file()",
    "file.set_len",
    "file.sync_",
    "sys::read",
    "sys::write",
    "sys::sync",
    "sys::allocate",
];

fn around_the_disk(text: &str) -> Option<&'static str> {
    let (code, _tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    // As a type it does nothing.
    let code = code.replace("std::fs::File;", "").replace("std::fs::File>", "");
    BANNED.into_iter().find(|banned| code.contains(banned))
}

#[test]
fn nothing_in_the_log_goes_around_the_disk() {
    let files = sources_of(env!("CARGO_MANIFEST_DIR"));
    assert!(files.len() > 20);
    // Those are tests, too.
    for (path, text) in files.iter().filter(|(path, _)| !path.ends_with("/tests.rs")) {
        assert_eq!(around_the_disk(text), None, "{path}");
    }
    for forbidden in [
        "use std::fs::{self, File};",
        "std::fs::rename(from, to)",
        "File::open(&path)",
        "sys::sync_data(&file)",
    ] {
        assert!(around_the_disk(forbidden).is_some(), "{forbidden}");
    }
}

/// The system's disk, which counts syncs and can be full.
#[derive(Debug, Default)]
struct PlayedDisk {
    syncs: AtomicUsize,
    room: AtomicUsize,
    cannot_allocate: AtomicBool,
    cannot_read: AtomicBool,
    cannot_open_directories: AtomicBool,
}

impl DiskLayer for PlayedDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn read_at(&self, file: &std::fs::File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if self.cannot_read.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk does not answer"));
        }
        OsDisk.read_at(file, buffer, at)
    }

    fn write_at(
        &self,
        file: &std::fs::File,
        buffers: &mut [IoSlice<'_>],
        position: u64,
    ) -> io::Result<()> {
        let len: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let room = self.room.load(Ordering::Relaxed);
        let Some(left) = room.checked_sub(len) else {
            // As a disk does that is full: what has room is in the file.
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            OsDisk.write_at(file, &mut [IoSlice::new(&bytes[..room])], position)?;
            return Err(io::ErrorKind::StorageFull.into());
        };
        self.room.store(left, Ordering::Relaxed);
        OsDisk.write_at(file, buffers, position)
    }

    fn allocate(&self, file: &std::fs::File, position: u64, len: u64) -> io::Result<()> {
        if self.cannot_allocate.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk does not answer"));
        }
        if len > self.room.load(Ordering::Relaxed) as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        OsDisk.allocate(file, position, len)
    }

    fn sync_data(&self, file: &std::fs::File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        OsDisk.sync_data(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.cannot_open_directories.load(Ordering::Relaxed) {
            // Too many files are open: nothing is wrong with the disk.
            return Err(io::Error::from_raw_os_error(24));
        }
        OsDisk.sync_directory(path)
    }
}

fn played(room: usize) -> (Directory, Arc<PlayedDisk>) {
    let disk = Arc::new(PlayedDisk { room: AtomicUsize::new(room), ..PlayedDisk::default() });
    let mut directory = Directory::new();
    directory.options.disk = Arc::clone(&disk) as _;
    directory.options.threads = false;
    directory.options.recovery_threads = 1;
    (directory, disk)
}

#[test]
fn without_threads_a_flush_happens_when_somebody_asks_for_the_requested_ones() {
    let (directory, disk) = played(usize::MAX);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    open.add_listener(Arc::new(move |_: &Arc<Log>, offset| hearing.lock().push(offset)));
    log.append_batch(batch(3, 10), LeaderEpoch(0)).unwrap();
    assert_eq!(open.flush_requested(), 0);
    log.request_flush();
    log.request_flush();
    let before = disk.syncs.load(Ordering::Relaxed);
    assert_eq!((log.flushed_offset(), heard.lock().len()), (Offset(0), 0));
    assert_eq!(open.flush_requested(), 1);
    assert_eq!((log.flushed_offset(), heard.lock().clone()), (Offset(3), vec![Offset(3)]));
    assert!(disk.syncs.load(Ordering::Relaxed) > before);
    assert_eq!(open.flush_requested(), 0);
    open.housekeep();
    drop(log);
    open.close();
    assert_eq!(directory.open(LogConfig::default()).log("t", 0).log_end_offset(), Offset(3));
}

#[test]
fn what_a_full_disk_took_of_a_batch_is_cut_off_and_the_log_goes_on_when_there_is_room() {
    let (directory, disk) = played(1 << 20);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    disk.room.store(70, Ordering::Relaxed);
    let error = log.append_batch(batch(1, 100), LeaderEpoch(0)).unwrap_err();
    assert!(error.to_string().contains("is full"), "{error}");
    let segment = directory.path().join("t-0/00000000000000000000.log");
    assert_eq!(std::fs::metadata(&segment).unwrap().len(), log.size_in_bytes());
    disk.room.store(1 << 20, Ordering::Relaxed);
    log.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(3));
    assert_eq!(read_all(&log).len(), 2);
}

#[test]
fn a_log_whose_creation_failed_on_a_full_disk_is_created_when_there_is_room() {
    let (directory, disk) = played(1 << 20);
    let open = directory.open(LogConfig::default());
    disk.room.store(10, Ordering::Relaxed);
    let config = Arc::new(LogConfig::default());
    let name = ottla_base::TopicPartition::new("t", 0);
    let id = ottla_base::Uuid([7; 16]);
    for _ in 0..2 {
        let error = LogDirectory::create(&open, name.clone(), id, Arc::clone(&config)).unwrap_err();
        assert!(error.to_string().contains("partition.metadata"), "{error}");
    }
    disk.room.store(1 << 20, Ordering::Relaxed);
    LogDirectory::create(&open, name, id, config).unwrap();
    assert_eq!(directory.names("-stray"), Vec::<String>::new());
}

#[test]
fn retention_makes_room_on_a_full_disk_and_what_it_took_stays_away() {
    let (directory, disk) = played(1 << 20);
    let config = LogConfig { segment_bytes: 200, retention_bytes: 0, ..LogConfig::default() };
    let open = directory.open(config.clone());
    let log = open.create("t", 0);
    for _ in 0..3 {
        log.append_batch(batch(1, 100), LeaderEpoch(0)).unwrap();
    }
    open.checkpoint().unwrap();
    disk.room.store(0, Ordering::Relaxed);
    // The last one has all that there is of the log's end.
    let removed = log.enforce_retention(0, Offset(2)).unwrap();
    assert_eq!((removed.segments, log.log_start_offset()), (2, Offset(2)));
    drop((log, open));
    disk.room.store(1 << 20, Ordering::Relaxed);
    assert_eq!(directory.open(config).log("t", 0).log_start_offset(), Offset(2));
}

#[test]
fn on_a_full_disk_retention_removes_what_was_noted_to_be_flushed_while_there_was_room() {
    let (directory, disk) = played(1 << 20);
    let config = LogConfig { segment_bytes: 200, retention_bytes: 0, ..LogConfig::default() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    for flushed in [true, true, true, false, false] {
        log.append_batch(batch(1, 100), LeaderEpoch(0)).unwrap();
        if flushed {
            open.checkpoint().unwrap();
        }
    }
    disk.room.store(0, Ordering::Relaxed);
    let removed = log.enforce_retention(0, Offset(4)).unwrap();
    assert_eq!((removed.segments, log.log_start_offset()), (3, Offset(3)));
    log.enforce_retention(0, Offset(4)).unwrap_err();
    disk.room.store(1 << 20, Ordering::Relaxed);
    assert_eq!(log.enforce_retention(0, Offset(4)).unwrap().segments, 1);
}

#[test]
fn a_log_ends_where_it_did_when_retention_took_all_of_it_before_the_new_segment_had_a_file() {
    let (directory, _) = played(1 << 20);
    let config = LogConfig { retention_bytes: 0, ..LogConfig::default() };
    let open = directory.open(config.clone());
    let log = open.create("t", 0);
    log.append_batch(batch(3, 100), LeaderEpoch(0)).unwrap();
    log.roll().unwrap();
    log.flush().unwrap();
    assert_eq!(log.enforce_retention(0, Offset(3)).unwrap().segments, 1);
    drop((log, open));
    let log = directory.open(config).log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(3), Offset(3)));
}

#[test]
fn the_file_of_a_segment_whose_creation_failed_goes_when_the_segment_goes() {
    let (directory, disk) = played(1 << 20);
    let config = LogConfig { preallocate: true, segment_bytes: 200, ..LogConfig::default() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    log.append_batch(batch(3, 100), LeaderEpoch(0)).unwrap();
    disk.cannot_allocate.store(true, Ordering::Relaxed);
    log.append_batch(batch(1, 100), LeaderEpoch(0)).unwrap_err();
    disk.cannot_allocate.store(false, Ordering::Relaxed);
    log.truncate_to(Offset(2)).unwrap();
    let log_files = || {
        let names = std::fs::read_dir(directory.path().join("t-0")).unwrap();
        names
            .filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|it| it == "log"))
            .count()
    };
    assert_eq!((log_files(), log.log_end_offset()), (1, Offset(0)));
}

#[test]
fn a_segment_for_which_a_disk_has_no_room_in_advance_is_written_all_the_same() {
    let (directory, _) = played(10_000);
    let config = LogConfig { preallocate: true, segment_bytes: 20_000, ..LogConfig::default() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    log.append_batch(batch(3, 100), LeaderEpoch(0)).unwrap();
    assert_eq!((log.log_end_offset(), open.is_full()), (Offset(3), false));
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let (directory, disk) = played(1 << 20);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(3, 100), LeaderEpoch(0)).unwrap();
    log.flush().unwrap();
    log.delete_records_to(Offset(2)).unwrap();
    drop((log, open));
    disk.cannot_read.store(true, Ordering::Relaxed);
    let error = directory.try_open(LogConfig::default()).unwrap_err();
    assert!(error.to_string().contains("checkpoint"), "{error}");
    disk.cannot_read.store(false, Ordering::Relaxed);
    assert_eq!(directory.open(LogConfig::default()).log("t", 0).log_start_offset(), Offset(2));
}

#[test]
fn a_start_that_was_written_although_its_write_failed_does_not_fall_to_the_next_log_of_that_name() {
    let (directory, disk) = played(1 << 20);
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(3, 100), LeaderEpoch(0)).unwrap();
    log.flush().unwrap();
    disk.cannot_open_directories.store(true, Ordering::Relaxed);
    log.delete_records_to(Offset(2)).unwrap_err();
    disk.cannot_open_directories.store(false, Ordering::Relaxed);
    drop(log);
    assert!(open.delete(&ottla_base::TopicPartition::new("t", 0)).unwrap());
    let log = open.create("t", 0);
    log.append_batch(batch(1, 100), LeaderEpoch(0)).unwrap();
    log.flush().unwrap();
    drop((log, open));
    let log = directory.open(LogConfig::default()).log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(1)));
}
