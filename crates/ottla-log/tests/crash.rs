//! What a crash leaves behind, and that nothing but the torn end is lost: damage at every byte, and of every file.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    reason = "a test stops at what it does not expect, and its numbers are small"
)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, ProducerId, Uuid};
use ottla_env::{Disk, DiskLayer, OsDisk, disk as open};
use ottla_log::producers::Producers;
use ottla_log::{CreateError, Log, LogConfig, Origin};
use ottla_records::{Batches, RawBatch};
use parking_lot::Mutex;
use support::{Directory, Draft, Open, batch, batch_at, read_all};

const FIRST_LOG: &str = "00000000000000000000.log";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2000, index_interval_bytes: 100, ..LogConfig::default() }
}

/// Every file of a partition, and the recovery points beside it.
fn save(partition: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
    let recovery_points = partition.with_file_name("recovery-point-offset-checkpoint");
    let files = files.chain([recovery_points].into_iter().filter(|path| path.exists()));
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn restore(partition: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(partition).unwrap();
    fs::create_dir(partition).unwrap();
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

fn files_with(partition: &Path, ending: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = save(partition);
    files.retain(|path, _| path.to_str().unwrap().ends_with(ending));
    files
}

/// A partition directory with so many batches, flushed up to the second and then killed.
fn crashed(directory: &Directory, batches: i64) -> (PathBuf, Vec<RawBatch>) {
    let open = directory.open(config());
    let log = open.create("t", 0);
    for n in 0..batches {
        log.append_batch(batch_at(2, 20, 1_000 + n), LeaderEpoch(0)).unwrap();
        if n == 1 {
            open.checkpoint().unwrap();
        }
    }
    (directory.path().join("t-0"), read_all(&log))
}

#[test]
fn whatever_happens_to_the_end_of_the_log_every_whole_batch_before_it_survives() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 5);
    let saved = save(&partition);
    let path = partition.join(FIRST_LOG);
    let original = saved[&path].clone();
    let size = batches[0].bytes().len();
    let damages: [fn(&mut Vec<u8>, usize); 5] = [
        |bytes, at| bytes.truncate(at),
        |bytes, at| bytes[at..].fill(0),
        |bytes, at| bytes[at..].fill(0xff),
        |bytes, at| bytes[at] ^= 0x10,
        |bytes, at| {
            let copy = bytes[..at].to_vec();
            bytes.truncate(at);
            bytes.extend(copy);
        },
    ];
    for at in 2 * size..original.len() {
        for (number, damage) in damages.iter().enumerate() {
            restore(&partition, &saved);
            let mut bytes = original.clone();
            damage(&mut bytes, at);
            // Some damage changes nothing: a zero where a zero was. The offset and epoch of a batch are not
            // protected by its checksum; a change that still makes sense cannot be found.
            let is_intact = |n: &usize| {
                bytes.get(n * size..(n + 1) * size) == Some(&original[n * size..(n + 1) * size])
            };
            let intact = (0..batches.len()).take_while(is_intact).count();
            let unprotected = (0..16).contains(&(at % size)) && number == 3;
            fs::write(&path, bytes).unwrap();
            let open = directory.open(config());
            let log = open.log("t", 0);
            let found = read_all(&log);
            if unprotected {
                assert_eq!(found[..intact], batches[..intact]);
                continue;
            }
            assert_eq!(found, batches[..intact], "damage {number} at byte {at}");
            assert_eq!(log.log_end_offset(), Offset(intact as i64 * 2));
            assert_eq!(log.flushed_offset(), log.log_end_offset());
            log.append_batch(batch(1, 1), LeaderEpoch(1)).unwrap();
            assert_eq!(read_all(&log).len(), intact + 1);
        }
    }
}

#[test]
fn bytes_after_the_last_batch_are_cut_off_whatever_they_are() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 4);
    let saved = save(&partition);
    let path = partition.join(FIRST_LOG);
    let tails: [Vec<u8>; 5] =
        [vec![0], vec![0; 5000], vec![0xff; 61], vec![2; 300], saved[&path][..100].to_vec()];
    for tail in tails {
        restore(&partition, &saved);
        let mut bytes = saved[&path].clone();
        bytes.extend(tail);
        fs::write(&path, bytes).unwrap();
        let open = directory.open(config());
        assert_eq!(read_all(&open.log("t", 0)), batches);
        assert_eq!(fs::read(&path).unwrap(), saved[&path]);
    }
}

#[test]
fn segments_after_a_torn_one_are_deleted() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 60);
    let logs = files_with(&partition, ".log");
    assert!(logs.len() >= 3);
    let (path, bytes) = logs.iter().nth(1).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    let open = directory.open(config());
    let found = read_all(&open.log("t", 0));
    let first_two: usize = logs.values().take(2).map(Vec::len).sum();
    let expected = first_two / batches[0].bytes().len() - 1;
    assert_eq!(found, batches[..expected]);
    assert_eq!(files_with(&partition, ".log").len(), 2);
}

#[test]
fn segments_after_one_that_lost_whole_batches_are_deleted_and_their_retries_appended() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    produce(&log, 0..60);
    let batches = read_all(&log);
    let partition = directory.path().join("t-0");
    drop((open, log));
    let logs = files_with(&partition, ".log");
    assert!(logs.len() >= 4);
    let size = batches[0].bytes().len();
    let (path, bytes) = logs.iter().nth(1).unwrap();
    fs::write(path, &bytes[..bytes.len() - 2 * size]).unwrap();
    let open = directory.open(config());
    let log = open.log("t", 0);
    let kept = logs.values().take(2).map(Vec::len).sum::<usize>() / size - 2;
    assert_eq!(read_all(&log), batches[..kept]);
    assert_eq!(files_with(&partition, ".log").len(), 2);
    produce(&log, i32::try_from(kept).unwrap()..60);
    assert_eq!(read_all(&log).len(), batches.len());
}

#[test]
fn gaps_in_the_offsets_of_a_replica_are_no_loss() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    for n in 0..60 {
        let mut batch = batch(2, 20);
        batch.assign(Offset(n * 10), LeaderEpoch(0));
        log.append(&mut [batch], Origin::Replica).unwrap();
    }
    let batches = read_all(&log);
    drop((open, log));
    assert!(files_with(&directory.path().join("t-0"), ".log").len() >= 4);
    let open = directory.open(config());
    assert_eq!(read_all(&open.log("t", 0)), batches);
}

#[test]
fn damaged_indexes_are_rebuilt_after_a_crash() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 60);
    let saved = save(&partition);
    let damages: [fn(&Path); 5] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, []).unwrap(),
        |path| fs::write(path, [0xee; 7]).unwrap(),
        |path| fs::write(path, [0xee; 1200]).unwrap(),
        |path| fs::write(path, vec![0; 10 << 20]).unwrap(),
    ];
    for ending in [".index", ".timeindex"] {
        for damage in damages {
            restore(&partition, &saved);
            files_with(&partition, ending).keys().for_each(|path| damage(path));
            let open = directory.open(config());
            let log = open.log("t", 0);
            assert_eq!(read_all(&log), batches);
            assert_eq!(log.max_timestamp().unwrap().map(|found| found.offset), Some(Offset(119)));
        }
    }
}

#[test]
fn damaged_indexes_do_not_lead_readers_astray_even_after_a_clean_close() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 60);
    directory.open(config()).close();
    let whole = directory.path();
    let marker = fs::read(whole.join(".kafka_cleanshutdown")).unwrap();
    let saved = save(&partition);
    let damages: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes.fill(0xee),
        |bytes| bytes.fill(0),
        |bytes| bytes.clear(),
        |bytes| bytes.resize(bytes.len() * 3, 0),
        |bytes| bytes.reverse(),
        |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0x11);
        },
    ];
    for damage in damages {
        restore(&partition, &saved);
        fs::write(whole.join(".kafka_cleanshutdown"), &marker).unwrap();
        for (path, mut bytes) in files_with(&partition, "index") {
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
        let open = directory.open(config());
        let log = open.log("t", 0);
        assert_eq!(read_all(&log), batches);
        for offset in 0..120 {
            let bound = Offset(offset + 9);
            let slice = log.read(Offset(offset), 1 << 20, bound, true).unwrap();
            assert_eq!(slice.first_offset, Offset(offset / 2 * 2));
            for batch in Batches::new(slice.source.unwrap().read().unwrap()) {
                assert!(batch.unwrap().header().next_offset() <= bound.0);
            }
        }
    }
}

#[test]
fn a_rebuilt_index_equals_the_one_that_was_written_along_the_way() {
    let directory = Directory::new();
    let many = LogConfig { segment_bytes: 400_000, index_interval_bytes: 300, ..config() };
    let open = directory.open(many.clone());
    let log = open.create("t", 0);
    for n in 0..6000_i64 {
        // Timestamps go back now and then; sizes vary.
        let timestamp = 1_000 + n - (n % 7) * 3;
        let len = usize::try_from(n % 13).unwrap() * 20;
        log.append_batch(batch_at(1 + n % 3, len, timestamp), LeaderEpoch(0)).unwrap();
    }
    drop(log);
    open.close();
    let partition = directory.path().join("t-0");
    let indexes = |_: ()| (files_with(&partition, ".index"), files_with(&partition, ".timeindex"));
    let incremental = indexes(());
    assert!(incremental.0.len() > 2);
    for path in incremental.0.keys().chain(incremental.1.keys()) {
        fs::remove_file(path).unwrap();
    }
    directory.open(many.clone()).close();
    assert_eq!(indexes(()), incremental, "rebuilt although the directory was closed properly");

    fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
    fs::remove_file(directory.path().join("recovery-point-offset-checkpoint")).unwrap();
    directory.open(many).close();
    assert_eq!(indexes(()), incremental, "rebuilt after a crash");
}

/// Notes which files are opened and when something is synced.
#[derive(Debug, Default)]
struct NotingDisk(Mutex<Vec<String>>);

impl DiskLayer for NotingDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn open(&self, path: &Path, how: open::Open) -> io::Result<File> {
        self.0.lock().push(path.file_name().unwrap().to_str().unwrap().to_owned());
        OsDisk.open(path, how)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.0.lock().push("sync".to_owned());
        OsDisk.sync_data(file)
    }
}

/// A log whose first segment has index entries and was flushed, killed while the next one was written.
fn sparsely_indexed() -> Directory {
    let directory = Directory::new();
    let open = directory.open(LogConfig { index_interval_bytes: 300, ..config() });
    let log = open.create("t", 0);
    for n in 0..11 {
        log.append_batch(batch_at(1, 30, 1_000 + n), LeaderEpoch(0)).unwrap();
    }
    log.roll().unwrap();
    open.checkpoint().unwrap();
    log.append_batch(batch_at(1, 30, 2_000), LeaderEpoch(0)).unwrap();
    drop((log, open));
    directory
}

#[test]
fn a_recovery_that_indexes_more_finely_than_before_writes_times_to_disk_before_offsets() {
    let mut directory = sparsely_indexed();
    let disk = Arc::new(NotingDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    let index = directory.path().join("t-0/00000000000000000000.index");
    let before = fs::metadata(&index).unwrap().len();
    directory.open(LogConfig { index_interval_bytes: 1, ..config() });
    assert!(before > 0 && fs::metadata(&index).unwrap().len() > before, "there are new entries");
    let notes = disk.0.lock();
    let last = |suffix: &str| {
        let name = format!("00000000000000000000.{suffix}");
        notes.iter().rposition(|note| *note == name).unwrap()
    };
    let synced = notes.iter().take(last("index")).rposition(|note| note == "sync");
    assert!(synced > Some(last("timeindex")), "{notes:?}");
}

#[test]
fn a_time_index_of_which_nothing_can_be_believed_is_replaced_as_a_whole() {
    let mut directory = sparsely_indexed();
    let path = directory.path().join("t-0/00000000000000000000.timeindex");
    let before = fs::read(&path).unwrap();
    // The last entry alone, which is of a batch behind those that the offsets' index names.
    fs::write(&path, &before[before.len() - 12..]).unwrap();
    let disk = Arc::new(NotingDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    directory.open(LogConfig { index_interval_bytes: 300, ..config() });
    assert_eq!(fs::read(&path).unwrap(), before);
    // Written in place and not flushed, it would be zeros after a loss of power, which are a timestamp and an offset.
    let notes = disk.0.lock();
    assert!(notes.iter().any(|note| note == "sync"), "{notes:?}");
}

#[test]
fn leader_epochs_are_those_of_records_that_a_crash_has_brought_back() {
    // What followed the first one was cut off, or all of it, and one of epoch 2 appended: of all that only the epochs' file
    // reached the disk.
    for epochs in ["0\n2\n1 0\n2 1\n", "0\n1\n2 1\n"] {
        let directory = Directory::new();
        let open = directory.open(config());
        let log = open.create("t", 0);
        log.append_batch(batch(1, 30), LeaderEpoch(1)).unwrap();
        // As from a leader whose log was compacted.
        let mut after_gap = batch(1, 30);
        after_gap.assign(Offset(2), LeaderEpoch(1));
        log.append(&mut [after_gap], Origin::Replica).unwrap();
        let entries = log.epoch_entries();
        drop((log, open));
        fs::write(directory.path().join("t-0/leader-epoch-checkpoint"), epochs).unwrap();
        let log = directory.open(config()).log("t", 0);
        assert_eq!(log.log_end_offset(), Offset(3));
        assert_eq!(log.epoch_entries(), entries, "{epochs:?}");
    }
}

#[test]
fn leader_epochs_are_found_again_in_the_records() {
    for clean in [true, false] {
        for text in [None, Some(""), Some("garbage"), Some("0\n1\n0 0\n")] {
            let directory = Directory::new();
            let open = directory.open(config());
            let log = open.create("t", 0);
            for epoch in 0..40 {
                log.append_batch(batch(1, 30), LeaderEpoch(epoch / 9)).unwrap();
            }
            let epochs = log.epoch_entries();
            if clean {
                open.close()
            } else {
                drop(open)
            }
            drop(log);
            let path = directory.path().join("t-0/leader-epoch-checkpoint");
            match text {
                None => fs::remove_file(&path).unwrap(),
                Some(text) => fs::write(&path, text).unwrap(),
            }
            let open = directory.open(config());
            if !(clean && text == Some("0\n1\n0 0\n")) {
                assert_eq!(open.log("t", 0).epoch_entries(), epochs, "clean: {clean}, {text:?}");
            }
        }
    }
}

#[test]
fn leftovers_are_removed_and_strangers_left_alone() {
    let directory = Directory::new();
    let (partition, batches) = crashed(&directory, 3);
    let path = directory.path();
    for leftover in [
        "00000000000000000000.log.deleted",
        "00000000000000000009.index",
        "00000000000000000000.log.cleaned",
    ] {
        fs::write(partition.join(leftover), "x").unwrap();
    }
    fs::write(partition.join("00000000000000000004-0000000001.checkpoint"), "x").unwrap();
    fs::create_dir(path.join("t-0.0123456789abcdef0123456789abcdef-delete")).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    fs::create_dir(path.join("empty-3")).unwrap();
    let open = directory.open(config());
    open.housekeep();
    assert_eq!(read_all(&open.log("t", 0)), batches);
    assert_eq!(open.log("empty", 3).topic_id(), None);
    assert_eq!(open.logs().len(), 2);
    assert_eq!(directory.names("-delete"), Vec::<String>::new());
    assert_eq!(directory.names("lost+found").len(), 1);
    let mut names: Vec<_> = save(&partition).into_keys().collect();
    names.retain(|path| path.starts_with(&partition));
    names.retain(|path| !path.to_str().unwrap().contains("00000000000000000000."));
    let names: Vec<_> =
        names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "00000000000000000004-0000000001.checkpoint",
            "leader-epoch-checkpoint",
            "partition.metadata"
        ]
    );
}

#[test]
fn the_marker_of_a_clean_shutdown_is_kafkas_and_is_believed_once() {
    let directory = Directory::new();
    let open = directory.open(config());
    open.create("t", 0).append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    open.close();
    let marker = directory.path().join(".kafka_cleanshutdown");
    assert_eq!(fs::read_to_string(&marker).unwrap(), r#"{"version":0,"brokerEpoch":5}"#);
    let open = directory.open(config());
    assert_eq!(open.previous_broker_epoch(), Some(5));
    assert!(!marker.exists());
    drop(open);
    assert_eq!(directory.open(config()).previous_broker_epoch(), None);
}

#[test]
fn a_log_whose_segments_were_lost_begins_again_where_it_started() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    for _ in 0..10 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    log.delete_records_to(Offset(7)).unwrap();
    drop((open, log));
    let partition = directory.path().join("t-0");
    let bytes = fs::read(partition.join(FIRST_LOG)).unwrap();
    fs::write(partition.join(FIRST_LOG), &bytes[..bytes.len() / 2]).unwrap();
    let open = directory.open(config());
    let log = open.log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(7), Offset(7)));
    log.append_batch(batch(1, 10), LeaderEpoch(1)).unwrap();
    drop((open, log));
    let open = directory.open(config());
    assert_eq!(open.log("t", 0).log_end_offset(), Offset(8));
}

#[test]
fn a_damaged_recovery_point_only_costs_time() {
    for text in ["", "1\n", "0\n1\nt 0 99999\n", "0\n1\nt 0 4\n", "x"] {
        let directory = Directory::new();
        let (_, batches) = crashed(&directory, 20);
        fs::write(directory.path().join("recovery-point-offset-checkpoint"), text).unwrap();
        let open = directory.open(config());
        let found = read_all(&open.log("t", 0));
        assert_eq!(found, batches, "with a checkpoint of {text:?}");
        assert!(Batches::new(found[0].bytes().clone()).next().is_some());
    }
}

/// Changes the last byte of the first segment's last batch.
fn harm_last_batch(partition: &Path) {
    let path = partition.join(FIRST_LOG);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_follows_a_truncation_is_checked_although_it_lies_below_the_last_checkpoint() {
    for fully in [true, false] {
        let directory = Directory::new();
        let open = directory.open(config());
        let log = open.create("t", 0);
        for _ in 0..9 {
            log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
        }
        open.checkpoint().unwrap();
        if fully {
            log.truncate_fully_and_start_at(Offset(0)).unwrap();
        } else {
            log.truncate_to(Offset(0)).unwrap();
        }
        log.append_batch(batch(1, 10), LeaderEpoch(1)).unwrap();
        drop((open, log));
        harm_last_batch(&directory.path().join("t-0"));
        assert_eq!(directory.open(config()).log("t", 0).log_end_offset(), Offset(0));
    }
}

#[test]
fn a_log_created_anew_does_not_inherit_the_recovery_point_of_its_name() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    for _ in 0..9 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    open.checkpoint().unwrap();
    open.delete(log.topic_partition()).unwrap();
    open.create("t", 0).append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    drop((open, log));
    harm_last_batch(&directory.path().join("t-0"));
    assert_eq!(directory.open(config()).log("t", 0).log_end_offset(), Offset(0));
}

/// A log that starts at 10 and ends at 20.
fn trimmed(open: &Open) -> Arc<Log> {
    let log = open.create("t", 0);
    for _ in 0..20 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    log.delete_records_to(Offset(10)).unwrap();
    log
}

/// Creates the log again, and looks whether all of it is there after another crash.
fn create_again_and_crash(directory: &Directory, open: Open) {
    let log = open.create("t", 0);
    for _ in 0..5 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    drop((open, log));
    let log = directory.open(config()).log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(5)));
    assert_eq!(read_all(&log).len(), 5);
}

#[test]
fn a_log_created_anew_does_not_inherit_the_start_of_its_name() {
    let directory = Directory::new();
    let open = directory.open(config());
    open.delete(trimmed(&open).topic_partition()).unwrap();
    create_again_and_crash(&directory, open);
}

#[test]
fn nor_does_it_after_a_crash_between_the_renaming_of_the_old_log_and_anything_else() {
    let directory = Directory::new();
    let open = directory.open(config());
    drop((trimmed(&open), open));
    let path = directory.path();
    let renamed = format!("t-0.{}-delete", "a".repeat(32));
    fs::rename(path.join("t-0"), path.join(renamed)).unwrap();
    create_again_and_crash(&directory, directory.open(config()));
}

/// Notes what becomes of directories.
#[derive(Debug, Default)]
struct DirectoryDisk(Mutex<Vec<&'static str>>, AtomicBool);

impl DiskLayer for DirectoryDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().push("rename");
        OsDisk.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.lock().push(if path.ends_with("data") { "sync names" } else { "sync a log" });
        match self.1.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the disk is gone")),
            false => OsDisk.sync_directory(path),
        }
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.0.lock().push("remove");
        OsDisk.remove_directory(path)
    }
}

#[test]
fn the_files_of_deleted_logs_go_only_when_no_crash_can_give_those_their_names_back() {
    let mut directory = Directory::new();
    let disk = Arc::new(DirectoryDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    let open = directory.open(config());
    let logs = [0, 1].map(|partition| open.create("t", partition));
    disk.0.lock().clear();
    logs.iter().for_each(|log| assert!(open.delete(log.topic_partition()).unwrap()));
    directory.clock.advance(Duration::from_secs(61));
    open.housekeep();
    let calls = disk.0.lock().clone();
    assert_eq!(calls[..5], ["rename", "rename", "sync names", "remove", "remove"]);
}

#[test]
fn the_files_of_deleted_logs_stay_for_the_next_start_once_their_names_could_not_be_flushed() {
    let mut directory = Directory::new();
    let disk = Arc::new(DirectoryDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    let open = directory.open(config());
    let logs = [0, 1].map(|partition| open.create("t", partition));
    open.delete(logs[0].topic_partition()).unwrap();
    directory.clock.advance(Duration::from_secs(30));
    open.delete(logs[1].topic_partition()).unwrap();
    directory.clock.advance(Duration::from_secs(31));
    disk.1.store(true, Ordering::Relaxed);
    open.housekeep();
    assert!(open.check_health().is_err());
    disk.1.store(false, Ordering::Relaxed);
    directory.clock.advance(Duration::from_secs(31));
    open.housekeep();
    assert!(!disk.0.lock().contains(&"remove"));
    drop((logs, open));
    directory.open(config()).housekeep();
    assert_eq!(directory.names("-delete"), Vec::<String>::new());
}

/// Notes which files are cut off and synced, by their inodes.
#[derive(Debug, Default)]
struct CutDisk(Mutex<Vec<(&'static str, u64)>>);

impl CutDisk {
    fn note(&self, what: &'static str, file: &File) {
        self.0.lock().push((what, file.metadata().unwrap().ino()));
    }
}

impl DiskLayer for CutDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.note("cut", file);
        OsDisk.set_len(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.note("sync", file);
        OsDisk.sync_data(file)
    }
}

/// What becomes of a segment's file while the log is truncated within it.
fn calls_of_a_truncation(flush_on_commit: bool) -> Vec<&'static str> {
    let mut directory = Directory::new();
    let disk = Arc::new(CutDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    directory.options.flush_on_commit = flush_on_commit;
    let open = directory.open(config());
    let log = open.create("t", 0);
    for _ in 0..3 {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
    }
    disk.0.lock().clear();
    log.truncate_to(Offset(1)).unwrap();
    let file = fs::metadata(directory.path().join("t-0").join(FIRST_LOG)).unwrap().ino();
    let calls = disk.0.lock().clone();
    calls.into_iter().filter(|(_, of)| *of == file).map(|(what, _)| what).collect()
}

#[test]
fn a_cut_is_on_disk_before_what_follows_it_is_visible_with_or_without_flush_on_commit() {
    assert_eq!(calls_of_a_truncation(false), ["cut", "sync"]);
    // The flush that makes what follows visible syncs the cut as well.
    assert_eq!(calls_of_a_truncation(true), ["cut"]);
}

#[test]
fn a_log_whose_start_cannot_be_forgotten_is_deleted_but_its_name_is_not_given_away() {
    let directory = Directory::new();
    let open = directory.open(config());
    let partition = trimmed(&open).topic_partition().clone();
    // Nothing can be written in the place of the checkpoint, as on a full disk.
    let in_the_way = directory.path().join("log-start-offset-checkpoint.tmp");
    fs::create_dir(&in_the_way).unwrap();
    assert!(open.delete(&partition).unwrap());
    let again = (*open).create(partition, Uuid([8; 16]), Arc::default());
    assert!(matches!(again, Err(CreateError::Storage(_))));
    directory.clock.advance(Duration::from_secs(61));
    open.housekeep();
    assert_eq!(directory.names("-delete"), Vec::<String>::new());
    fs::remove_dir(&in_the_way).unwrap();
    create_again_and_crash(&directory, open);
}

#[test]
fn an_empty_segment_that_was_recovered_does_not_outlive_a_truncation() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    log.append_batch(batch(4, 20), LeaderEpoch(0)).unwrap();
    log.roll().unwrap();
    log.append_batch(batch(1, 20), LeaderEpoch(0)).unwrap();
    drop((open, log));
    let second = directory.path().join("t-0/00000000000000000004.log");
    fs::write(second, []).unwrap();
    let open = directory.open(config());
    let log = open.log("t", 0);
    log.roll().unwrap();
    log.truncate_to(Offset(0)).unwrap();
    drop(log);
    open.close();
    assert_eq!(directory.open(config()).log("t", 0).log_end_offset(), Offset(0));
}

/// Writes so many batches of three records, of two producers in turn.
fn produce(log: &Log, batches: std::ops::Range<i32>) {
    for n in batches {
        let draft = Draft { id: i64::from(n % 2), ..Draft::new(n / 2 * 3, 3) };
        let appended = log.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
        assert!(!appended.duplicate);
    }
}

/// A directory with so many batches of producers in several segments, closed or killed, and what was known of them.
fn with_producers(directory: &Directory, batches: i32, clean: bool) -> (PathBuf, Producers) {
    let open = directory.open(config());
    let log = open.create("t", 0);
    produce(&log, 0..batches);
    let producers = log.producers();
    assert_eq!(producers.len(), 2);
    if clean {
        open.close();
    } else {
        open.checkpoint().unwrap();
    }
    (directory.path().join("t-0"), producers)
}

/// What a snapshot says, as the file's whole contents.
fn sealed(version: i16, entries: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes()[..], &ottla_records::crc32c(entries).to_be_bytes(), entries].concat()
}

#[test]
fn producers_are_known_again_after_a_clean_close_and_after_a_crash() {
    for clean in [true, false] {
        for batches in [2, 11, 30, 61] {
            let directory = Directory::new();
            let (_, producers) = with_producers(&directory, batches, clean);
            let open = directory.open(config());
            assert_eq!(open.log("t", 0).producers(), producers, "{batches}, clean: {clean}");
            produce(&open.log("t", 0), batches..batches + 3);
        }
    }
}

#[test]
fn after_a_clean_close_the_log_is_not_read_for_its_producers() {
    let directory = Directory::new();
    let (partition, producers) = with_producers(&directory, 61, true);
    let snapshots = files_with(&partition, ".snapshot");
    let (newest, _) = snapshots.last_key_value().unwrap();
    assert!(newest.ends_with("00000000000000000183.snapshot"), "{}", newest.display());
    // Other producers than those in the log.
    let one: Vec<u8> = [&1_i32.to_be_bytes()[..], &9_i64.to_be_bytes(), &[0; 38]].concat();
    fs::write(newest, sealed(1, &one)).unwrap();
    let open = directory.open(config());
    let found = open.log("t", 0).producers();
    assert_eq!(found.iter().map(|(id, _)| id).collect::<Vec<_>>(), [ProducerId(9)]);
    assert_ne!(found, producers);
}

#[test]
fn a_damaged_snapshot_is_removed_and_what_it_said_is_read_from_the_log() {
    let damages: [fn(&Path); 8] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, []).unwrap(),
        |path| fs::write(path, [0; 10]).unwrap(),
        |path| fs::write(path, [0xee; 700]).unwrap(),
        |path| fs::write(path, sealed(2, &[0; 4])).unwrap(),
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        },
        |path| {
            let mut bytes = fs::read(path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        },
        |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, [&bytes[..], &bytes[..]].concat()).unwrap();
        },
    ];
    for clean in [true, false] {
        for (number, damage) in damages.iter().enumerate() {
            for harmed in [1, 2, usize::MAX] {
                let directory = Directory::new();
                let (partition, producers) = with_producers(&directory, 61, clean);
                let snapshots = files_with(&partition, ".snapshot");
                assert!(snapshots.len() >= 4);
                let newest_first = snapshots.keys().rev().take(harmed);
                newest_first.clone().for_each(|path| damage(path));
                let open = directory.open(config());
                let found = open.log("t", 0).producers();
                assert_eq!(found, producers, "damage {number} to {harmed}, clean: {clean}");
                let left = newest_first.filter(|path| path.exists()).count();
                assert_eq!(left, 0, "damage {number} to {harmed}, clean: {clean}");
            }
        }
    }
}

#[test]
fn a_snapshot_that_is_whole_but_of_another_place_is_not_believed() {
    let directory = Directory::new();
    let (partition, producers) = with_producers(&directory, 61, true);
    let snapshots = files_with(&partition, ".snapshot");
    let paths: Vec<_> = snapshots.keys().collect();
    // The newest under the name of the one before it: offsets that had not been written there.
    let [.., before, newest] = paths.as_slice() else { panic!("there are several snapshots") };
    fs::rename(newest, before).unwrap();
    let open = directory.open(config());
    assert_eq!(open.log("t", 0).producers(), producers);
    assert!(!before.exists());
}

#[test]
fn what_a_torn_end_takes_away_its_producers_forget_and_so_do_snapshots_that_know_of_it() {
    let directory = Directory::new();
    let (partition, _) = with_producers(&directory, 60, false);
    let snapshots = files_with(&partition, ".snapshot");
    let (newest, lie) = snapshots.last_key_value().unwrap();
    let logs = files_with(&partition, ".log");
    let (path, bytes) = logs.iter().next_back().unwrap();
    // The last segment is lost, and a batch of the one before it: the newest snapshot is of more than is left. No
    // flush had covered them.
    fs::remove_file(directory.path().join("recovery-point-offset-checkpoint")).unwrap();
    fs::remove_file(path).unwrap();
    let (path, bytes) = logs.iter().nth_back(1).map_or((path, bytes), |before| before);
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    let open = directory.open(config());
    let log = open.log("t", 0);
    let left = i32::try_from(log.log_end_offset().0 / 3).unwrap();
    assert!(!newest.exists(), "{} tells of batches that are gone", newest.display());
    // Other batches take their places, and the log grows past the offset that the snapshot was of.
    produce(&log, left..left + 1);
    for _ in 0..60 {
        log.append_batch(batch(1, 30), LeaderEpoch(0)).unwrap();
    }
    let producers = log.producers();
    assert_eq!(producers.get(ProducerId(0)).map(|it| it.batches().len()), Some(5));
    drop((open, log));
    let reopened = directory.open(config());
    assert_eq!(reopened.log("t", 0).producers(), producers);
    assert_ne!(fs::read(newest).ok().as_ref(), Some(lie));
}

#[test]
fn snapshots_are_kept_where_segments_begin_and_at_the_end_and_nowhere_else() {
    let directory = Directory::new();
    let names = |partition: &Path, ending| -> Vec<String> {
        let files = files_with(partition, ending);
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.keys().map(stem).collect()
    };
    let (partition, _) = with_producers(&directory, 40, true);
    for _ in 0..3 {
        let open = directory.open(config());
        let log = open.log("t", 0);
        log.append_batch(batch(1, 30), LeaderEpoch(0)).unwrap();
        let mut expected = names(&partition, ".log");
        assert_eq!(expected.remove(0), format!("{:020}", 0), "there is none at the log's start");
        let end = log.log_end_offset();
        drop(log);
        open.close();
        expected.push(format!("{:020}", end.0));
        assert_eq!(names(&partition, ".snapshot"), expected);
        fs::write(partition.join("00000000000000000001.snapshot"), "nobody knows").unwrap();
    }
    let open = directory.open(config());
    assert!(!partition.join("00000000000000000001.snapshot").exists());
    let keep_little = LogConfig { retention_bytes: 1, ..config() };
    let log = open.log("t", 0);
    log.set_config(Arc::new(keep_little));
    log.enforce_retention(0, log.log_end_offset()).unwrap();
    let (logs, snapshots) = (names(&partition, ".log"), names(&partition, ".snapshot"));
    assert_eq!(logs.len(), 1);
    assert_eq!(snapshots.first(), logs.first(), "the rest went with the segments");
}

#[test]
fn producers_outlive_the_deletion_of_all_their_records() {
    for clean in [true, false] {
        let directory = Directory::new();
        let open = directory.open(config());
        let log = open.create("t", 0);
        produce(&log, 0..61);
        let producers = log.producers();
        log.set_config(Arc::new(LogConfig { retention_ms: 1, ..config() }));
        log.enforce_retention(i64::MAX, log.log_end_offset()).unwrap();
        assert_eq!(log.log_start_offset(), log.log_end_offset());
        assert_eq!(log.producers(), producers);
        drop(log);
        if clean {
            open.close();
        } else {
            drop(open);
        }
        assert_eq!(directory.open(config()).log("t", 0).producers(), producers);
    }
}

#[test]
fn producers_outlive_a_deletion_of_which_a_crash_undoes_a_part() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    let early = Draft { id: 9, ..Draft::new(0, 1) };
    log.append_produced(early.build(), LeaderEpoch(0)).unwrap();
    produce(&log, 0..61);
    let producers = log.producers();
    let partition = directory.path().join("t-0");
    let before = files_with(&partition, ".log");
    log.set_config(Arc::new(LogConfig { retention_bytes: 3_000, ..config() }));
    log.enforce_retention(0, log.log_end_offset()).unwrap();
    drop((log, open));
    let kept = files_with(&partition, ".log");
    let gone: Vec<_> = before.iter().filter(|(path, _)| !kept.contains_key(*path)).collect();
    assert!(gone.len() > 2, "{}", gone.len());
    let (path, bytes) = gone.last().unwrap();
    fs::write(path, bytes).unwrap();
    assert_eq!(directory.open(config()).log("t", 0).producers(), producers);
}

#[test]
fn what_one_start_forgot_of_producers_the_next_one_does_not_remember() {
    let directory = Directory::new();
    let open = directory.open(config());
    let log = open.create("t", 0);
    let early = Draft { id: 9, ..Draft::new(0, 1) };
    log.append_produced(early.build(), LeaderEpoch(0)).unwrap();
    produce(&log, 0..61);
    let keep_little = LogConfig { retention_bytes: 3_000, ..config() };
    log.set_config(Arc::new(keep_little));
    log.enforce_retention(0, log.log_end_offset()).unwrap();
    drop(log);
    // No checkpoint says that any of it was flushed, and the snapshot at the start is lost: what is left knows more.
    drop(open);
    let partition = directory.path().join("t-0");
    let snapshots: Vec<PathBuf> = files_with(&partition, ".snapshot").into_keys().collect();
    assert!(snapshots.len() > 1, "{snapshots:?}");
    fs::remove_file(&snapshots[0]).unwrap();
    let open = directory.open(config());
    let producers = open.log("t", 0).producers();
    open.checkpoint().unwrap();
    drop(open);
    assert_eq!(directory.open(config()).log("t", 0).producers(), producers);
}

#[test]
fn a_log_that_never_held_a_record_has_no_snapshot() {
    let directory = Directory::new();
    let open = directory.open(config());
    open.create("t", 0);
    open.close();
    directory.open(config()).close();
    let partition = directory.path().join("t-0");
    assert!(files_with(&partition, ".snapshot").is_empty());
}

#[test]
fn what_follows_a_truncation_into_a_gap_is_not_taken_for_torn() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let replicated = |base_offset| {
        let mut batch = batch(2, 20);
        batch.assign(Offset(base_offset), LeaderEpoch(0));
        log.append(&mut [batch], Origin::Replica).unwrap();
    };
    replicated(0);
    // Compaction has left nothing between them at the leader.
    replicated(9);
    log.truncate_to(Offset(5)).unwrap();
    log.roll().unwrap();
    replicated(7);
    log.flush().unwrap();
    let expected = read_all(&log);
    drop((log, open));
    let log = directory.open(LogConfig::default()).log("t", 0);
    assert_eq!((log.log_end_offset(), read_all(&log)), (Offset(9), expected));
}
