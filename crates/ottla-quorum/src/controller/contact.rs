//! When a leader last heard of a majority: one that has not for too long decides nothing, and stops leading. Shell.
//!
//! That is for the sake of those who would wait in vain; what holds an old leader from contradicting a new one is that
//! nothing is answered without a majority.
//!
//! openraft keeps a leader without a majority in office, and refuses its writes. It would go on in the same term when
//! the others come back, with entries in its log of which the controller has told its clients that they failed. So the
//! controller resigns instead: who decides next begins a new term.

use std::time::Duration;

use openraft::Instant as _;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftDataMetrics;
use ottla_base::LeaderEpoch;
use tokio::time::Instant;

use super::QuorumRaft;
use crate::raft::TypeConfig;
use crate::storage::Storage;

/// How long a leader may hear nothing of a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// After this, openraft takes no changes from it.
    pub(crate) lease: Duration,
    /// After this, it gives up.
    pub(crate) patience: Duration,
}

pub(crate) struct Contact {
    metrics: WatchReceiverOf<TypeConfig, RaftDataMetrics<TypeConfig>>,
    /// Tells whether this node is a majority by itself.
    storage: Storage,
    limits: Limits,
    /// Since when this node leads, and in which epoch.
    led: Option<(LeaderEpoch, Instant)>,
}

impl Contact {
    pub(crate) fn new(raft: &QuorumRaft, storage: Storage, limits: Limits) -> Self {
        Self { metrics: raft.data_metrics(), storage, limits, led: None }
    }

    pub(crate) fn note_led(&mut self, epoch: Option<LeaderEpoch>) {
        if self.led.map(|(led, _)| led) != epoch {
            self.led = epoch.map(|epoch| (epoch, Instant::now()));
        }
    }

    /// Whether what this node decides has a chance to be committed.
    pub(crate) fn may_decide(&self) -> bool {
        self.storage.is_alone() || self.silence() < self.limits.lease
    }

    /// The epoch to resign from, if it is time for that.
    pub(crate) fn lost(&self) -> Option<LeaderEpoch> {
        let (epoch, _) = self.led.filter(|_| !self.storage.is_alone())?;
        (self.silence() >= self.limits.patience).then_some(epoch)
    }

    /// When to look again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.led.filter(|_| !self.storage.is_alone())?;
        let left = self.limits.patience.saturating_sub(self.silence());
        Some(Instant::now() + left)
    }

    /// How long nothing was heard of a majority; a new leader was elected by one.
    fn silence(&self) -> Duration {
        let led = self.led.map_or(Duration::MAX, |(_, since)| since.elapsed());
        let heard = self.metrics.borrow_watched().last_quorum_acked;
        heard.map_or(led, |at| at.elapsed().min(led))
    }
}
