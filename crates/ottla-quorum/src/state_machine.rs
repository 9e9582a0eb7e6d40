//! Committed entries become the image that everybody sees. Shell.
//!
//! What was on disk when the log was opened, a snapshot and the entries after it, is applied first and published at once;
//! from then on every run of committed entries is published, in order, and only then are their replies released.
//!
//! Snapshots are not written here: `snapshot::keeper` does that with the image that everybody sees, and openraft is told
//! when one is on disk.
//!
//! Invariant: the visible image has been published.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::{EntryPayload, OptionalSend};
use ottla_base::{LeaderEpoch, Timestamp};
use ottla_metadata::{Delta, Image};
use ottla_records::ValidBatch;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use crate::members::{Myself, as_written};
use crate::publisher::Publisher;
use crate::raft::{CommittedLeaderId, Entry, LogId, Proposal, StoredMembership, TypeConfig};
use crate::raft::{Verdict, Voter, epoch_of};
use crate::snapshot::store::Checkpoint;
use crate::snapshot::{Extent, SnapshotId, Voters};
use crate::storage::Storage;

type Meta = SnapshotMeta<CommittedLeaderId, i32, Voter>;
pub(crate) type StoredSnapshot = Snapshot<CommittedLeaderId, i32, Voter, Checkpoint>;

/// The most entries that are published together.
const PUBLISHED_MAX: usize = 1024;

/// How far the log was applied, and what that led to.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    /// The leader epoch of the last entry; `None` before the first.
    pub(crate) epoch: Option<LeaderEpoch>,
    pub(crate) image: Arc<Image>,
    /// Where that is; `None` before an entry has named the voters.
    pub(crate) extent: Option<Arc<Extent>>,
    /// How many bytes of the log were applied since the start.
    pub(crate) bytes: u64,
}

/// What the rest of the process sees of the state machine.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) image: Arc<ArcSwap<Image>>,
    pub(crate) applied: watch::Receiver<Applied>,
}

pub(crate) struct StateMachine {
    storage: Storage,
    publisher: Arc<dyn Publisher>,
    image: Image,
    /// What changed since something was last published.
    delta: Delta,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    voters: Option<Arc<Voters>>,
    /// The CRC of the log's first entry, as far as it is known.
    origin: Option<u32>,
    /// The time of the last entry applied.
    timestamp: Timestamp,
    bytes: u64,
    /// The snapshot that was found at the start, until openraft asks for it.
    restored: Option<Checkpoint>,
    /// Nothing is published before this entry is applied: the last one that is known to be committed at the start.
    publish_from: Option<u64>,
    has_published: bool,
    visible: Arc<ArcSwap<Image>>,
    applied: watch::Sender<Applied>,
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine")
            .field("last_applied", &self.last_applied)
            .finish_non_exhaustive()
    }
}

impl StateMachine {
    /// `restored` is the snapshot that the log goes on from.
    pub(crate) fn new(
        storage: Storage,
        restored: Option<Checkpoint>,
        publisher: Arc<dyn Publisher>,
        cluster_id: Arc<str>,
    ) -> (Self, View) {
        let image = Image::new(cluster_id);
        let shared = Arc::new(image.clone());
        let visible = Arc::new(ArcSwap::new(Arc::clone(&shared)));
        let nothing = Applied { epoch: None, image: shared, extent: None, bytes: 0 };
        let (applied, receiver) = watch::channel(nothing);
        let view = View { image: Arc::clone(&visible), applied: receiver };
        let machine = Self {
            publish_from: storage.committed().map(|log_id| log_id.index()),
            storage,
            publisher,
            image,
            delta: Delta::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            voters: None,
            origin: None,
            timestamp: Timestamp::NONE,
            bytes: 0,
            restored,
            has_published: false,
            visible,
            applied,
        };
        (machine, view)
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<Verdict> {
        let log_id = entry.log_id();
        let epoch = epoch_of(&log_id);
        let batch = entry.batch.as_ref().ok_or_else(|| io::Error::other("an entry of no log"))?;
        self.note_batch(log_id, batch);
        let verdict = match &entry.payload {
            EntryPayload::Blank => Verdict::Applied,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership.clone());
                let (membership, batch) = (as_written(membership), batch.clone());
                self.voters = Some(Arc::new(Voters { index: log_id.index(), membership, batch }));
                Verdict::Applied
            }
            EntryPayload::Normal(proposal) => self.apply_records(proposal)?,
        };
        if let Some(offset) = self.storage.last_offset(log_id.index()) {
            self.image.offset = offset;
        }
        self.image.epoch = epoch;
        self.last_applied = Some(log_id);
        Ok(verdict)
    }

    fn note_batch(&mut self, log_id: LogId, batch: &ValidBatch) {
        if log_id.index() == 0 {
            self.origin = Some(batch.header().crc);
        }
        self.timestamp = batch.max_timestamp();
        self.bytes += batch.size_in_bytes() as u64;
    }

    /// Where the last entry that was applied ends.
    fn extent(&self) -> Option<Arc<Extent>> {
        let last = self.last_applied?;
        let id = SnapshotId { end_offset: self.image.offset.next(), epoch: self.image.epoch };
        let voters = Arc::clone(self.voters.as_ref()?);
        let (timestamp, origin) = (self.timestamp, self.origin);
        Some(Arc::new(Extent { id, entries: last.index() + 1, timestamp, origin, voters }))
    }

    /// Goes on from a snapshot.
    fn restore(&mut self, extent: &Extent, image: Image) {
        self.delta = image.delta_since(&self.visible.load());
        self.image = image;
        self.last_applied = Some(extent.last());
        self.membership = extent.membership(self.storage.myself());
        self.voters = Some(Arc::clone(&extent.voters));
        (self.origin, self.timestamp) = (extent.origin, extent.timestamp);
    }

    fn apply_records(&mut self, proposal: &Proposal) -> io::Result<Verdict> {
        for record in &*proposal.records {
            self.image.apply_into(record, &mut self.delta).map_err(io::Error::other)?;
        }
        Ok(proposal.verdict)
    }

    /// Makes what was applied visible, and then lets go of those who wait for it.
    fn release(&mut self, replies: &mut Vec<(ApplyResponder<TypeConfig>, Verdict)>) {
        let applied_index = self.last_applied.map(|log_id| log_id.index());
        if self.publish_from <= applied_index {
            self.publish();
        }
        if let Some(index) = applied_index {
            self.storage.forget_before(index + 1);
        }
        for (responder, verdict) in replies.drain(..) {
            responder.send(verdict);
        }
    }

    fn publish(&mut self) {
        let image = Arc::new(self.image.clone());
        let delta = std::mem::take(&mut self.delta);
        if !self.has_published || !delta.is_empty() {
            without_blocking_others(|| self.publisher.publish(&image, &delta));
            self.has_published = true;
        }
        self.visible.store(Arc::clone(&image));
        self.publisher.visible(&delta);
        let epoch = self.last_applied.as_ref().map(epoch_of);
        let (extent, bytes) = (self.extent(), self.bytes);
        self.applied.send_replace(Applied { epoch, image, extent, bytes });
    }
}

/// Publishers make directories and files. On a runtime with several threads, its other tasks move aside.
fn without_blocking_others(work: impl FnOnce()) {
    if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work);
    } else {
        work();
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Written;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut replies = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let verdict = self.apply_entry(entry)?;
            replies.extend(responder.map(|responder| (responder, verdict)));
            if replies.len() >= PUBLISHED_MAX {
                self.release(&mut replies);
            }
        }
        self.release(&mut replies);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Written {
        Written(self.storage.clone())
    }

    /// At the start, and when the leader has sent one that is newer than everything here.
    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        mut checkpoint: Checkpoint,
    ) -> Result<(), io::Error> {
        let extent = Arc::clone(&checkpoint.extent);
        if meta.last_log_id != Some(extent.last()) {
            return Err(io::Error::other(format!("a snapshot of something else than {meta}")));
        }
        let image = match checkpoint.image.take() {
            Some(image) => image,
            None => self.storage.snapshots().load_image(extent.id)?,
        };
        while let Err(error) = self.storage.install(&checkpoint) {
            self.storage.room().wait(error).await?;
        }
        self.restore(&extent, image);
        self.release(&mut Vec::new());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StoredSnapshot>, io::Error> {
        let restored = self.restored.take();
        let newest = restored.or_else(|| self.storage.snapshots().newest());
        Ok(newest.map(|checkpoint| stored(checkpoint, self.storage.myself())))
    }
}

pub(crate) fn stored(checkpoint: Checkpoint, myself: Myself) -> StoredSnapshot {
    let (last, membership) = (checkpoint.extent.last(), checkpoint.extent.membership(myself));
    let meta = Meta { last_log_id: Some(last), last_membership: membership };
    StoredSnapshot { meta, snapshot: checkpoint }
}

/// Tells openraft of the snapshot that was written last: it asks for one only when there is one.
#[derive(Debug)]
pub(crate) struct Written(Storage);

impl RaftSnapshotBuilder<TypeConfig> for Written {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> Result<StoredSnapshot, io::Error> {
        let newest = self.0.snapshots().newest();
        let newest = newest.map(|checkpoint| stored(checkpoint, self.0.myself()));
        newest.ok_or_else(|| io::Error::other("no snapshot was written yet"))
    }
}
