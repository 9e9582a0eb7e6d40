//! Committed entries become the image that everybody sees. Shell.
//!
//! What was on disk when the log was opened is applied first and published at once; from then on every run of
//! committed entries is published, in order, and only then are their replies released.
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
use ottla_base::LeaderEpoch;
use ottla_metadata::{Delta, Image};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use crate::publisher::Publisher;
use crate::raft::{CommittedLeaderId, Entry, LogId, Proposal, StoredMembership, TypeConfig};
use crate::raft::{Verdict, Voter, epoch_of};
use crate::storage::Storage;

type Meta = SnapshotMeta<CommittedLeaderId, i32, Voter>;
type NoSnapshot = Snapshot<CommittedLeaderId, i32, Voter, ()>;

/// The most entries that are published together.
const PUBLISHED_MAX: usize = 1024;

/// How far the log was applied, and what that led to.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    /// The leader epoch of the last entry; `None` before the first.
    pub(crate) epoch: Option<LeaderEpoch>,
    pub(crate) image: Arc<Image>,
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
    pub(crate) fn new(
        storage: Storage,
        publisher: Arc<dyn Publisher>,
        cluster_id: Arc<str>,
    ) -> (Self, View) {
        let image = Image::new(cluster_id);
        let shared = Arc::new(image.clone());
        let visible = Arc::new(ArcSwap::new(Arc::clone(&shared)));
        let (applied, receiver) = watch::channel(Applied { epoch: None, image: shared });
        let view = View { image: Arc::clone(&visible), applied: receiver };
        let machine = Self {
            publish_from: storage.committed().map(|log_id| log_id.index()),
            storage,
            publisher,
            image,
            delta: Delta::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            has_published: false,
            visible,
            applied,
        };
        (machine, view)
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<Verdict> {
        let log_id = entry.log_id();
        let epoch = epoch_of(&log_id);
        let verdict = match &entry.payload {
            EntryPayload::Blank => Verdict::Applied,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership.clone());
                Verdict::Applied
            }
            EntryPayload::Normal(proposal) => self.apply_records(proposal, epoch)?,
        };
        if let Some(offset) = self.storage.last_offset(log_id.index()) {
            self.image.offset = offset;
        }
        self.image.epoch = epoch;
        self.last_applied = Some(log_id);
        Ok(verdict)
    }

    fn apply_records(&mut self, proposal: &Proposal, epoch: LeaderEpoch) -> io::Result<Verdict> {
        for record in &*proposal.records {
            self.image.apply_into(record, &mut self.delta).map_err(io::Error::other)?;
        }
        Ok(if proposal.epoch == epoch { Verdict::Applied } else { Verdict::Superseded })
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
        self.applied.send_replace(Applied { epoch, image });
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
    type SnapshotData = ();
    type SnapshotBuilder = NoSnapshots;

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

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(&mut self, _meta: &Meta, _snapshot: ()) -> Result<(), io::Error> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<NoSnapshot>, io::Error> {
        Ok(None)
    }
}

/// Snapshots come with the checkpoints of the metadata log; until then the log is kept whole.
#[derive(Debug)]
pub(crate) struct NoSnapshots;

impl RaftSnapshotBuilder<TypeConfig> for NoSnapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<NoSnapshot, io::Error> {
        Err(no_snapshots())
    }
}

fn no_snapshots() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "there are no snapshots of the metadata log yet")
}
