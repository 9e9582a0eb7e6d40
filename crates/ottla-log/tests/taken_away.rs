//! A log is taken away while a flush of it is under way, which knows its directory by the name that it is about to lose.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod support;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ottla_base::{LeaderEpoch, Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, DiskLayer, ManualClock, OsDisk};
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory, Move};
use parking_lot::Mutex;
use support::{batch, temporary_directory};

/// How long a flush lets somebody rename the log if he does not wait for it. Whoever does wait costs the test this.
const PATIENCE: Duration = Duration::from_millis(200);

/// A disk on which the next flush takes so long that a directory can be renamed meanwhile.
#[derive(Debug)]
struct SlowDisk {
    is_slow: AtomicBool,
    begun: Sender<()>,
    renames: Sender<()>,
    renamed: Mutex<Receiver<()>>,
}

impl DiskLayer for SlowDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        if self.is_slow.swap(false, Ordering::Relaxed) {
            self.begun.send(()).unwrap();
            let _waits_for_us = self.renamed.lock().recv_timeout(PATIENCE);
        }
        OsDisk.sync_data(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)?;
        if to.is_dir() {
            self.renames.send(()).unwrap();
        }
        Ok(())
    }
}

struct Fixture {
    temporary: tempfile::TempDir,
    disk: Arc<SlowDisk>,
    begun: Receiver<()>,
}

impl Fixture {
    fn new() -> Self {
        let ((begins, begun), (renames, renamed)) = (channel(), channel());
        let disk = SlowDisk {
            is_slow: AtomicBool::new(false),
            begun: begins,
            renames,
            renamed: Mutex::new(renamed),
        };
        Self { temporary: temporary_directory(), disk: Arc::new(disk), begun }
    }

    fn open(&self, name: &str) -> Arc<LogDirectory> {
        let options = DirectoryOptions {
            disk: Arc::clone(&self.disk) as _,
            threads: false,
            ..DirectoryOptions::default()
        };
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let path = self.temporary.path().join(name);
        Arc::new(LogDirectory::open(&path, LogConfig::default(), options, clock).unwrap())
    }

    /// Takes a log away in the middle of its first flush.
    fn flush_while(&self, log: &Log, take_away: impl FnOnce() + Send) {
        log.append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
        self.disk.is_slow.store(true, Ordering::Relaxed);
        let begun = &self.begun;
        thread::scope(|scope| {
            let flush = scope.spawn(|| log.flush());
            begun.recv().unwrap();
            take_away();
            flush.join().unwrap().unwrap();
        });
    }
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn create(directory: &LogDirectory, partition: i32) -> Arc<Log> {
    let config = Arc::new(LogConfig::default());
    directory.create(name(partition), Uuid([7; 16]), config).unwrap()
}

#[test]
fn a_log_that_is_taken_away_while_it_is_flushed_leaves_its_directory_online() {
    let fixture = Fixture::new();
    let directory = fixture.open("a");
    let (deleted, stray) = (create(&directory, 0), create(&directory, 1));
    fixture.flush_while(&deleted, || assert!(directory.delete(&name(0)).unwrap()));
    directory.check_health().unwrap();
    fixture.flush_while(&stray, || assert!(directory.set_aside(&name(1)).unwrap()));
    directory.check_health().unwrap();
    assert_eq!(directory.log_count(), 0);
    create(&directory, 0).append_batch(batch(1, 10), LeaderEpoch(0)).unwrap();
}

#[test]
fn a_copy_that_is_given_up_while_it_is_flushed_leaves_its_directory_online() {
    let fixture = Fixture::new();
    let [from, to] = ["a", "b"].map(|name| fixture.open(name));
    let log = create(&from, 0);
    let moving = Move::begin(from, Arc::clone(&to), &log).unwrap();
    fixture.flush_while(&moving.future().clone(), || moving.abandon().unwrap());
    to.check_health().unwrap();
    assert!(to.futures().is_empty());
}
