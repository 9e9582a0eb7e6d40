use std::io::IoSlice;

use ottla_base::{LeaderEpoch, Timestamp, TopicPartition};
use ottla_env::{DiskLayer, FaultyDisk, ManualClock, OsDisk, sys};

use super::*;
use crate::log::Log;
use crate::testing::batch;
use crate::{DirectoryOptions, LogConfig, LogDirectory};

const EPOCH: LeaderEpoch = LeaderEpoch(0);

fn open_on(path: &Path, disk: Arc<dyn Disk>) -> LogDirectory {
    let options = DirectoryOptions {
        disk,
        threads: false,
        flush_at_once_from: 1,
        ..DirectoryOptions::default()
    };
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    LogDirectory::open(path, LogConfig::default(), options, clock).unwrap()
}

fn open(path: &Path) -> LogDirectory {
    open_on(path, Arc::new(OsDisk))
}

fn create(directory: &LogDirectory, partition: i32, id: u8) -> Arc<Log> {
    let partition = TopicPartition::new("t", partition);
    directory.create(partition, Uuid([id; 16]), Arc::default()).unwrap()
}

/// Appends a record to each of these logs, and flushes them together.
fn append(directory: &LogDirectory, logs: &[&Arc<Log>], value: &[u8]) {
    for log in logs {
        log.append_batch(batch(value), EPOCH).unwrap();
        log.join_next_flush();
    }
    assert_eq!(directory.flush_requested(), logs.len());
    for log in logs {
        assert_eq!(log.flushed_offset(), log.log_end_offset());
    }
}

/// Two logs with two records each, of which the second is in the journal.
fn journaled_on(path: &Path, disk: Arc<dyn Disk>) -> (LogDirectory, [Arc<Log>; 2]) {
    let directory = open_on(path, disk);
    let logs = [create(&directory, 0, 7), create(&directory, 1, 8)];
    append(&directory, &[&logs[0], &logs[1]], b"1");
    assert_eq!(noted(path), [] as [&str; 0], "the names of new files are not in it");
    append(&directory, &[&logs[0], &logs[1]], b"2");
    assert_eq!(noted(path), ["t-0", "t-1"]);
    (directory, logs)
}

fn journaled(path: &Path) -> (LogDirectory, [Arc<Log>; 2]) {
    journaled_on(path, Arc::new(OsDisk))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let disk: &dyn Disk = &OsDisk;
    disk.read(path).ok().filter(|bytes| !bytes.is_empty())
}

fn write(path: &Path, bytes: &[u8]) {
    let disk: &dyn Disk = &OsDisk;
    disk.write(path, bytes).unwrap();
}

/// The logs of what is noted, in order.
fn noted(path: &Path) -> Vec<String> {
    let files = paths(path).map(|path| read(&path).unwrap_or_default());
    let entries = files.iter().flat_map(|bytes| entry::decode(bytes).0);
    entries.flat_map(|entry| entry.tails).map(|tail| tail.log).collect()
}

/// As after a loss of power: of what was appended to a log without being put in its place, its file has nothing.
fn lose_second_half(path: &Path, log: &str) {
    let file = path.join(log).join("00000000000000000000.log");
    let file = OsDisk.open(&file, Open::Write).unwrap();
    let len = file.metadata().unwrap().len();
    OsDisk.set_len(&file, len / 2).unwrap();
}

fn end(directory: &LogDirectory, partition: i32) -> Option<i64> {
    directory.log(&TopicPartition::new("t", partition)).map(|log| log.log_end_offset().0)
}

fn ends(directory: &LogDirectory) -> [Option<i64>; 2] {
    [0, 1].map(|partition| end(directory, partition))
}

#[test]
fn what_only_the_journal_has_is_there_after_a_crash() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    drop(journaled(path));
    lose_second_half(path, "t-0");
    lose_second_half(path, "t-1");
    let directory = open(path);
    assert_eq!(ends(&directory), [Some(2), Some(2)]);
    assert_eq!(noted(path), [] as [&str; 0]);
    drop(directory);
    // It is where it belongs by now.
    assert_eq!(ends(&open(path)), [Some(2), Some(2)]);
}

#[test]
fn whoever_checks_the_directory_is_told_what_waits_in_the_journal() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    drop(journaled(path));
    let found = || {
        let report = crate::verify::verify(path, crate::verify::Options::default()).unwrap();
        let of_journal = |it: &crate::verify::Finding| paths(path).contains(&it.path);
        let findings = report.findings.into_iter().filter(of_journal);
        findings.map(|it| (it.weight, it.what)).collect::<Vec<_>>()
    };
    let waits = "the latest appends to 2 logs, which may lack them".to_owned();
    assert_eq!(found(), [(crate::verify::Weight::Unfinished, waits)]);
    open(path).close(0).unwrap();
    assert_eq!(found(), []);
}

#[test]
fn a_clean_start_asks_nobody_what_was_noted() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let (directory, logs) = journaled(path);
    let files = paths(path).map(|path| read(&path));
    directory.close(0).unwrap();
    drop((directory, logs));
    assert_eq!(noted(path), [] as [&str; 0]);
    // As another program would leave them that knows nothing of a journal.
    for (path, bytes) in paths(path).iter().zip(files) {
        bytes.into_iter().for_each(|bytes| write(path, &bytes));
    }
    lose_second_half(path, "t-1");
    assert_eq!(ends(&open(path)), [Some(2), Some(1)]);
    assert_eq!(noted(path), [] as [&str; 0]);
}

#[test]
fn whoever_changes_a_log_otherwise_lets_it_leave_first() {
    type Change = fn(&LogDirectory, &Arc<Log>);
    let changes: [(Change, [Option<i64>; 2]); 4] = [
        (|_, log| log.truncate_to(Offset(1)).unwrap(), [Some(1), Some(2)]),
        (|_, log| log.truncate_fully_and_start_at(Offset(9)).unwrap(), [Some(9), Some(2)]),
        (
            |directory, log| assert!(directory.delete(log.topic_partition()).unwrap()),
            [None, Some(2)],
        ),
        (
            |directory, log| assert!(directory.set_aside(log.topic_partition()).unwrap()),
            [None, Some(2)],
        ),
    ];
    for (change, expected) in changes {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let (directory, logs) = journaled(path);
        change(&directory, &logs[0]);
        assert_eq!(noted(path), [] as [&str; 0]);
        drop((directory, logs));
        assert_eq!(ends(&open(path)), expected);
    }
}

#[test]
fn what_cannot_leave_is_not_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let disk = Arc::new(FaultyDisk::default());
    let (directory, logs) = journaled_on(path, Arc::clone(&disk) as _);
    disk.fail_writes(Some(io::ErrorKind::Other));
    logs[0].truncate_to(Offset(1)).unwrap_err();
    assert_eq!(logs[0].log_end_offset(), Offset(2));
    disk.fail_writes(None);
    // What was half emptied takes nothing more, until it is empty.
    append(&directory, &[&logs[0], &logs[1]], b"3");
    drop((directory, logs));
    assert_eq!(ends(&open(path)), [Some(3), Some(3)]);
}

#[test]
fn a_log_of_another_topic_gets_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    drop(journaled(path));
    for log in ["t-0", "t-1"] {
        lose_second_half(path, log);
    }
    let other = crate::partition_metadata::to_text(Uuid([9; 16]));
    write(&path.join("t-1/partition.metadata"), other.as_bytes());
    assert_eq!(ends(&open(path)), [Some(2), Some(1)]);
}

#[test]
fn a_checkpoint_empties_it_and_it_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let (directory, logs) = journaled(path);
    directory.checkpoint().unwrap();
    assert_eq!(noted(path), [] as [&str; 0]);
    append(&directory, &[&logs[1]], b"3");
    assert_eq!(noted(path), ["t-1"]);
    drop((directory, logs));
    assert_eq!(ends(&open(path)), [Some(2), Some(3)]);
}

/// Lets no file of a journal be emptied, while it is told so.
#[derive(Debug, Default)]
struct Unemptied {
    path: Mutex<Option<PathBuf>>,
}

impl DiskLayer for Unemptied {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let path = self.path.lock();
        if path.is_some() && path.as_deref() == sys::path_of(file).ok().as_deref() {
            return Err(io::Error::other("injected"));
        }
        OsDisk.write_at(file, buffers, position)
    }
}

#[test]
fn a_log_that_is_in_both_files_leaves_both() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let disk = Arc::new(Unemptied::default());
    let (directory, logs) = journaled_on(path, Arc::clone(&disk) as _);
    let first = paths(path).into_iter().find(|path| read(path).is_some()).unwrap();
    *disk.path.lock() = Some(first);
    directory.checkpoint().unwrap();
    append(&directory, &[&logs[0], &logs[1]], b"3");
    assert_eq!(noted(path), ["t-0", "t-1", "t-0", "t-1"], "one could not be emptied");
    logs[0].truncate_to(Offset(1)).unwrap_err();
    logs[0].truncate_to(Offset(1)).unwrap_err();
    *disk.path.lock() = None;
    logs[0].truncate_to(Offset(1)).unwrap();
    assert_eq!(noted(path), [] as [&str; 0]);
    drop((directory, logs));
    assert_eq!(ends(&open(path)), [Some(1), Some(3)]);
}

#[test]
fn what_a_directory_that_is_offline_has_noted_stays() {
    type Change = fn(&LogDirectory, &Arc<Log>);
    let changes: [Change; 3] = [
        |directory, log| assert!(directory.delete(log.topic_partition()).unwrap()),
        |_, log| _ = log.truncate_to(Offset(0)).unwrap_err(),
        |directory, _| _ = directory.checkpoint().unwrap_err(),
    ];
    for change in changes {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let disk = Arc::new(FaultyDisk::default());
        let (directory, logs) = journaled_on(path, Arc::clone(&disk) as _);
        disk.fail_next_sync_of(path);
        directory.checkpoint().unwrap_err();
        change(&directory, &logs[1]);
        assert_eq!(noted(path), ["t-0", "t-1"]);
        drop((directory, logs));
        // What the disk has lost, and the next sync does not tell of.
        lose_second_half(path, "t-0");
        assert_eq!(end(&open(path), 0), Some(2));
    }
}

#[test]
fn nothing_is_adopted_that_the_next_start_would_write_over() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    drop(journaled(path));
    write(&path.join("meta.properties"), b"version=1\n");
    let adopt = || {
        let adopted =
            crate::adopt::announce(&[path.join("t-0"), path.join("t-1")], Vec::new(), false);
        matches!(adopted, Err(crate::adopt::AdoptError::Journaled { .. }))
    };
    assert!(adopt());
    open(path).close(0).unwrap();
    assert!(!adopt());
}
