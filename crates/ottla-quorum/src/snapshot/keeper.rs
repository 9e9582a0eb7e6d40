//! The task that takes snapshots when they are due, and lets go of old ones and of the log before them. Shell.
//!
//! It works with the image that everybody sees, which never changes: nobody waits while it is written. A snapshot that
//! cannot be written is tried again when the next one is due; nothing depends on it but the log's length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ottla_base::Offset;
use ottla_env::Clock;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::policy::{self, Since, SnapshotLimits};
use super::store::Kept;
use crate::controller::{QuorumRaft, until};
use crate::raft::log_id;
use crate::standstill;
use crate::state_machine::Applied;
use crate::storage::Storage;

/// How long it is left alone that something should go and can't.
const PAUSE: Duration = Duration::from_secs(1);

/// A handle to the task, which ends with it.
#[derive(Debug)]
pub(crate) struct Keeper {
    task: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl Keeper {
    /// Starts the task. It ends when the state machine is gone.
    pub(crate) fn start(
        raft: QuorumRaft,
        storage: Storage,
        applied: watch::Receiver<Applied>,
        limits: SnapshotLimits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let newest = storage.snapshots().newest_extent();
        let end_offset = newest.map_or(Offset::ZERO, |newest| newest.id.end_offset);
        let since = Since { end_offset, bytes: 0, at: Duration::ZERO };
        let task = Task {
            raft,
            storage,
            applied,
            limits,
            clock,
            since,
            began,
            let_go_at: began,
            stop: Arc::clone(&stop),
        };
        Self { task: Mutex::new(Some(standstill::spawn(task.run()))), stop }
    }

    /// Waits for the end of what is under way; the state machine must be gone, or about to go.
    pub(crate) async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let task = self.task.lock().take();
        if let Some(task) = task
            && task.await.is_err()
        {
            tracing::error!("the task that takes snapshots of the metadata panicked");
        }
    }
}

struct Task {
    raft: QuorumRaft,
    storage: Storage,
    applied: watch::Receiver<Applied>,
    limits: SnapshotLimits,
    clock: Arc<dyn Clock>,
    /// The last snapshot that was taken, tried or received, or the start.
    since: Since,
    began: Instant,
    /// When it was last tried to let something go.
    let_go_at: Instant,
    stop: Arc<AtomicBool>,
}

impl Task {
    async fn run(mut self) {
        self.let_go().await;
        loop {
            let (due, expiry) = (self.deadline(), self.expiry());
            tokio::select! {
                biased;
                () = until(expiry) => self.let_go().await,
                changed = self.applied.changed() => if changed.is_err() { return },
                () = until(due) => {}
            }
            if self.note_received() || self.take_if_due().await {
                self.let_go().await;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let applied = self.applied.borrow();
        let end = applied.extent.as_ref()?.id.end_offset;
        self.began.checked_add(self.since.deadline(&self.limits, end)?)
    }

    /// When an old snapshot is to go.
    fn expiry(&self) -> Option<Instant> {
        let now = self.clock.now_ms();
        let expiry = policy::next_expiry(&self.storage.snapshots().kept(), &self.limits, now)?;
        let left = u64::try_from(expiry.0.saturating_sub(now.0)).unwrap_or_default();
        let at = Instant::now().checked_add(Duration::from_millis(left))?;
        Some(at.max(self.let_go_at + PAUSE))
    }

    /// Whether a newer snapshot has come from the leader.
    fn note_received(&mut self) -> bool {
        let newest = self.storage.snapshots().newest_extent();
        let newer = newest.filter(|newest| newest.id.end_offset > self.since.end_offset);
        let Some(newest) = newer else { return false };
        let bytes = self.applied.borrow().bytes;
        self.since = Since { end_offset: newest.id.end_offset, bytes, at: self.began.elapsed() };
        true
    }

    /// Returns whether one was taken.
    async fn take_if_due(&mut self) -> bool {
        let Applied { extent, image, bytes, .. } = self.applied.borrow_and_update().clone();
        let Some(extent) = extent else { return false };
        let (end_offset, now) = (extent.id.end_offset, self.began.elapsed());
        if !self.since.is_due(&self.limits, end_offset, bytes, now) {
            return false;
        }
        self.since = Since { end_offset, bytes, at: now };
        let (storage, stop, id) = (self.storage.clone(), Arc::clone(&self.stop), extent.id);
        let write = move || storage.snapshots().write(&extent, &image, &stop);
        match self.storage.aside(write).await {
            Ok(Ok(())) => {
                tracing::info!(snapshot = %id, "wrote a snapshot of the metadata");
                true
            }
            Ok(Err(error)) if self.stop.load(Ordering::Relaxed) => {
                tracing::debug!(snapshot = %id, %error, "a snapshot of the metadata was given up");
                false
            }
            Ok(Err(error)) => {
                tracing::error!(snapshot = %id, %error, "cannot write a snapshot of the metadata");
                false
            }
            Err(_) => {
                tracing::error!(snapshot = %id, "writing a snapshot of the metadata panicked");
                false
            }
        }
    }

    /// Tells openraft of the newest snapshot, and lets go of what nobody needs any more.
    async fn let_go(&mut self) {
        self.let_go_at = Instant::now();
        let kept = self.storage.snapshots().kept();
        let size = self.storage.size_in_bytes();
        let first = policy::first_kept(&kept, size, &self.limits, self.clock.now_ms());
        let (Some(first), Some(newest)) = (first, kept.last().copied()) else { return };
        if !self.adopted(newest).await {
            return;
        }
        // As long as no snapshot has gone, nothing of the log goes.
        let oldest = kept.first().map(|oldest| oldest.id);
        if oldest == Some(first.id) && !self.storage.is_trimmed() {
            return;
        }
        if self.raft.trigger().purge_log(first.entries - 1).await.is_err() {
            return;
        }
        let storage = self.storage.clone();
        let work = move || {
            let trimmed = storage.trim_to(first.id.end_offset).map_err(std::io::Error::other);
            // On a full disk the one may fail and the other help.
            storage.snapshots().delete_before(first.id).and(trimmed)
        };
        match self.storage.aside(work).await {
            Ok(Ok(())) => {}
            // It is only longer than it might be.
            Ok(Err(error)) => tracing::warn!(%error, "cannot make the metadata log shorter"),
            Err(_) => tracing::error!("making the metadata log shorter panicked"),
        }
    }

    /// Waits until openraft knows of a snapshot; whether it does.
    async fn adopted(&self, newest: Kept) -> bool {
        let last = log_id(newest.id.epoch.0, newest.entries - 1);
        let mut metrics = self.raft.data_metrics();
        if metrics.borrow_watched().snapshot < Some(last)
            && self.raft.trigger().snapshot().await.is_err()
        {
            return false;
        }
        while metrics.borrow_watched().snapshot < Some(last) {
            if self.stop.load(Ordering::Relaxed) || metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    }
}
