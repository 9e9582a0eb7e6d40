//! Room on the disk for what a node must have written before it may go on: it waits for that, with a little in reserve. Shell.
//!
//! Apache Kafka's broker ends where its disk is full. A voter that cannot write its log or its vote says nothing instead, as
//! one that stands still: the others go on without it, with another leader if need be, and it goes on when there is room.
//!
//! The reserve is a file beside the log whose blocks are allocated while there is room, and that is given up to the first
//! write that has none: what makes room, as the deletion of a topic or another leader elsewhere, has to be written, too.
//! `log.dir.reserved.bytes` keeps clients' records from the last of the disk, but nobody else's files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla_base::TopicPartition;
use ottla_env::Disk;
use ottla_env::disk::{Open, is_full};
use ottla_metadata::topic_name;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Of the file in the log's directory.
pub const RESERVE_NAME: &str = "reserve";
/// Thousands of changes of the metadata.
const RESERVE_BYTES: u64 = 1 << 20;
/// So much must be free for the reserve to be allocated again.
const AMPLE_BYTES: u64 = 16 * RESERVE_BYTES;
/// How often it is tried to have the reserve back.
const LOOKING_INTERVAL: Duration = Duration::from_secs(10);
/// How often a write is tried while there is no room.
const PAUSE: Duration = Duration::from_millis(250);
/// More than is written where a log is cut off: a few checkpoints.
const CUT_BYTES: u64 = 256 << 10;

/// Gives the reserve of a log directory's metadata up, before anybody has opened that; whether there was one.
pub fn give_up_reserve(disk: &dyn Disk, log_directory: &Path) -> bool {
    let partition = TopicPartition::new(topic_name::CLUSTER_METADATA, 0).to_string();
    disk.remove_file(&log_directory.join(partition).join(RESERVE_NAME)).is_ok()
}

/// The room beside one metadata log.
#[derive(Debug)]
pub(crate) struct Room {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// Whether there is something to see to after a write.
    is_short: AtomicBool,
    state: Mutex<State>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    has_reserve: bool,
    /// A write is tried again and again.
    is_waiting: bool,
    /// When the reserve was last tried to be allocated.
    looked: Instant,
}

impl Room {
    /// In the directory of a log, which exists. Without the reserve if there is no room for that.
    pub(crate) fn beside(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        let state = State { has_reserve: false, is_waiting: false, looked: Instant::now() };
        let (stopping, _) = watch::channel(false);
        let is_short = AtomicBool::new(true);
        let room = Self { disk, directory, is_short, state: Mutex::new(state), stopping };
        room.restock(&mut room.state.lock());
        room
    }

    /// After a write that has failed: returns when it is worth another try, or the error where there is none, because it
    /// failed for another reason or the node stops.
    pub(crate) async fn wait(&self, error: io::Error) -> io::Result<()> {
        if !is_full(&error) {
            return Err(error);
        }
        if self.give_up_reserve() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.state.lock().is_waiting, true) {
            tracing::error!(
                directory = %self.directory.display(),
                "the disk is full to the last byte: this node decides and learns nothing about the cluster until there is room"
            );
        }
        let mut stopping = self.stopping.subscribe();
        match tokio::time::timeout(PAUSE, stopping.wait_for(|it| *it)).await {
            Ok(_) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Returns when there is room for what is written where a log is cut off, which must not end halfway.
    pub(crate) async fn wait_for_cut(&self) -> io::Result<()> {
        while self.is_short_of(CUT_BYTES) {
            self.wait(io::ErrorKind::StorageFull.into()).await?;
        }
        Ok(())
    }

    /// A write went through.
    pub(crate) fn written(&self) {
        if !self.is_short.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_waiting) {
            tracing::info!(directory = %self.directory.display(), "the disk has room for the metadata again");
        }
        if state.looked.elapsed() >= LOOKING_INTERVAL {
            self.restock(&mut state);
        }
    }

    /// Nobody waits any more, from now on. What a node writes when it stops, and at its next start, may have the reserve.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        if self.is_short_of(CUT_BYTES) {
            self.give_up_reserve();
        }
    }

    fn is_short_of(&self, bytes: u64) -> bool {
        self.disk.space(&self.directory).is_ok_and(|space| space.usable < bytes)
    }

    /// Whether there was one.
    fn give_up_reserve(&self) -> bool {
        let mut state = self.state.lock();
        self.is_short.store(true, Ordering::Relaxed);
        if !std::mem::take(&mut state.has_reserve) {
            return false;
        }
        state.looked = Instant::now();
        tracing::warn!(
            directory = %self.directory.display(),
            bytes = RESERVE_BYTES,
            "the disk is full to the last byte: the reserve is given up to the metadata"
        );
        self.remove_reserve();
        true
    }

    /// Allocates the reserve where much more than that is free; one of an earlier run is kept in any case.
    fn restock(&self, state: &mut State) {
        state.looked = Instant::now();
        let is_there = self.disk.status(&self.directory.join(RESERVE_NAME)).is_ok();
        if !is_there && self.is_short_of(AMPLE_BYTES) {
            return;
        }
        match self.allocate_reserve() {
            Ok(()) => {
                state.has_reserve = true;
                self.is_short.store(state.is_waiting, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!(%error, "no reserve for the metadata");
                self.remove_reserve();
            }
        }
    }

    fn allocate_reserve(&self) -> io::Result<()> {
        let file = self.disk.open(&self.directory.join(RESERVE_NAME), Open::Create)?;
        self.disk.allocate(&file, 0, RESERVE_BYTES)
    }

    fn remove_reserve(&self) {
        match self.disk.remove_file(&self.directory.join(RESERVE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the reserve for the metadata cannot be removed");
            }
            _ => {}
        }
    }
}
