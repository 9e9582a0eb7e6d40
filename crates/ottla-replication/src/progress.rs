//! How far each replica holds the leader's log on disk, what readers may see, and who is in sync.
//!
//! Pure: appends, completed flushes, followers' fetches and the controller's answers come in as method calls; what must
//! happen next goes out as [`Command`]s, which the broker executes. Time is counted from any fixed moment and never goes
//! back. One of these lives as long as one leader epoch.
//!
//! "Acknowledged means on disk; visible means that no crash takes it back": the high watermark is the smallest *flushed*
//! offset over the in-sync replicas (ISR), not the smallest copied one as in Apache Kafka. Where the log is configured to
//! call the page cache safe, it reports each append as flushed, and Kafka's rule comes out. It comes out, too, for
//! followers that do not report flushes: Kafka's own.
//!
//! Whoever is proposed for the ISR counts at once, and whoever is to leave it counts until the controller has agreed:
//! the *maximal* ISR (KIP-497). A follower that is nearly there counts as well, since it would never arrive if the high
//! watermark ran ahead of it.
//!
//! Invariants, checked after every event by [`Progress::check`]:
//!
//! - `high_watermark <= log_end`, and it never moves back within one leader epoch.
//! - `flushed <= log_end`, of the leader and of each follower.
//! - The leader is in the ISR, and in every one that it proposes.
//! - While the committed ISR is smaller than `min_isr`, the high watermark stands still.
//! - One proposal is under way at most, and it is about the newest partition epoch that is known.

mod peer;
mod proposal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset};

use crate::reading::Readable;
use peer::Peer;
use proposal::{Change, Pending, Reaction, Waiting};
pub use proposal::{DOUBT, IsrMember, Proposal, ProposalId};

/// How long a proposal waits that the controller has failed to look at, as Kafka's brokers wait.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// What a Fetch carries when its sender's broker epoch is not known, and a proposal that of a member never heard from.
pub const UNKNOWN_BROKER_EPOCH: i64 = -1;

/// The replication state of one partition, on its leader, in one leader epoch.
#[derive(Debug)]
pub struct Progress {
    leader: BrokerId,
    broker_epoch: i64,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    /// Where the log ended when this leader epoch began: whoever has not got so far may lack what earlier leaders have
    /// acknowledged.
    epoch_start: Offset,
    log_end: Offset,
    /// What this leader has on disk; exclusive.
    flushed: Offset,
    high_watermark: Offset,
    peers: BTreeMap<BrokerId, Peer>,
    /// As the controller has committed it last, as far as is known here.
    isr: BTreeSet<BrokerId>,
    min_insync_replicas: usize,
    lag_max: Duration,
    /// The latest time that an event has told.
    now: Duration,
    pending: Option<Pending>,
    /// The controller has refused to let somebody leave: it is asked again then, at the earliest.
    next_leave: Duration,
    proposals: u64,
    advanced: Option<Offset>,
    to_send: Option<Proposal>,
}

/// What a leader begins with.
#[derive(Debug, Clone)]
pub struct Leadership {
    pub leader: BrokerId,
    /// That of the leader's own registration.
    pub broker_epoch: i64,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub replicas: BTreeSet<BrokerId>,
    pub isr: BTreeSet<BrokerId>,
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub lag_max: Duration,
    /// The largest that this replica has ever heard of.
    pub high_watermark: Offset,
    /// What of the log is on this broker's disk; exclusive.
    pub flushed: Offset,
    pub log_end: Offset,
    pub now: Duration,
}

/// A follower's Fetch, of whose log it is known that it is a part of this leader's up to the fetch offset: the last
/// epoch that it has fetched fits.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    pub replica: BrokerId,
    pub broker_epoch: i64,
    /// Not fenced, not in a controlled shutdown, and registered with this broker epoch (or it has told none).
    pub is_eligible: bool,
    /// Where its log ends.
    pub fetch_offset: Offset,
    pub log_start_offset: Offset,
    /// Whether it tells how far it has flushed. Of one that does not, the fetch offset counts.
    pub reports_flushes: bool,
    pub now: Duration,
}

/// A follower says what it has on disk of the log that it shares with this leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerFlushed {
    pub replica: BrokerId,
    pub broker_epoch: i64,
    pub leader_epoch: LeaderEpoch,
    /// Exclusive.
    pub flushed: Offset,
}

/// What a follower is answered beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchStanding {
    pub high_watermark: Offset,
    /// What it may read: everything, whether it is visible or not.
    pub log_end: Offset,
}

/// Why a follower's fetch does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchRefusal {
    #[error("broker {0} is no replica of this partition as far as its leader knows")]
    NotAReplica(BrokerId),
    #[error("broker {replica} has fetched in broker epoch {current} already, and now in {found}")]
    OldBrokerEpoch { replica: BrokerId, found: i64, current: i64 },
    #[error("offset {0} is beyond the leader's log")]
    BeyondEnd(Offset),
}

impl FetchRefusal {
    /// Kafka's code for it: each but the last makes the follower ask again later.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotAReplica(_) => ErrorCode::UNKNOWN_LEADER_EPOCH,
            Self::OldBrokerEpoch { .. } => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            Self::BeyondEnd(_) => ErrorCode::OFFSET_OUT_OF_RANGE,
        }
    }
}

/// The ISR as the controller has committed it, told by its answer or by the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedIsr {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: BTreeSet<BrokerId>,
}

/// What the broker must do next. Data, never an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Wake delayed fetches, and acks=all produces that wait for an offset up to this one.
    AdvanceHighWatermark(Offset),
    /// Ask the controller for another ISR, and tell what it says.
    AlterPartition(Proposal),
}

impl Progress {
    /// A new leader starts a new epoch: what the other replicas hold is not yet known.
    ///
    /// # Panics
    /// If more is flushed than there is, or the leader is not in the ISR.
    #[must_use]
    pub fn new(leadership: Leadership) -> Self {
        let Leadership { leader, replicas, isr, now, .. } = leadership;
        let peers = replicas.into_iter().filter(|replica| *replica != leader);
        let peers =
            peers.map(|replica| (replica, Peer::new(isr.contains(&replica).then_some(now))));
        let mut progress = Self {
            leader,
            broker_epoch: leadership.broker_epoch,
            leader_epoch: leadership.leader_epoch,
            partition_epoch: leadership.partition_epoch,
            epoch_start: leadership.log_end,
            log_end: leadership.log_end,
            flushed: leadership.flushed,
            // After an unclean election it may be known of more than is left.
            high_watermark: leadership.high_watermark.min(leadership.log_end),
            peers: peers.collect(),
            isr,
            min_insync_replicas: leadership.min_insync_replicas,
            lag_max: leadership.lag_max,
            now,
            pending: None,
            next_leave: now,
            proposals: 0,
            advanced: None,
            to_send: None,
        };
        progress.settle();
        progress
    }

    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What this leader has on disk; exclusive.
    #[must_use]
    pub const fn flushed(&self) -> Offset {
        self.flushed
    }

    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Where the log ended when this leader epoch began. Until the high watermark is there, nobody knows what is
    /// committed, and the latest offset can't be told (KIP-207).
    #[must_use]
    pub const fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// The committed ISR.
    #[must_use]
    pub const fn isr(&self) -> &BTreeSet<BrokerId> {
        &self.isr
    }

    /// Whether a replica holds the high watermark back: it is in sync, or is proposed to be.
    fn is_in_maximal_isr(&self, replica: BrokerId) -> bool {
        let joiner = || self.pending.as_ref().and_then(Pending::joiner);
        self.isr.contains(&replica) || joiner() == Some(replica)
    }

    /// The smaller of `min.insync.replicas` and the replication factor.
    #[must_use]
    pub fn min_isr(&self) -> usize {
        self.min_insync_replicas.min(self.peers.len() + 1)
    }

    /// Whether acks=all may be accepted: the ISR, as committed, is as large as `min.insync.replicas` asks.
    #[must_use]
    pub fn has_enough_replicas(&self) -> bool {
        self.isr.len() >= self.min_isr()
    }

    /// Whether what is visible now may be called written by as many as `min.insync.replicas` asks: as in Kafka, who is
    /// proposed to join counts. The ISR may have become smaller, or the property larger, since the high watermark has moved.
    #[must_use]
    pub fn is_still_enough(&self) -> bool {
        let joiner = self.pending.as_ref().and_then(Pending::joiner);
        let joins = joiner.is_some_and(|joiner| !self.isr.contains(&joiner));
        self.isr.len() + usize::from(joins) >= self.min_isr()
    }

    /// The followers that a consumer may read from at an offset, as Kafka has it (KIP-392): in sync, so that they do not
    /// stay behind, and known to have it. One that has not said where its log begins and ends is none.
    pub fn readable_at(&self, offset: Offset) -> impl Iterator<Item = Readable> + '_ {
        let in_sync = self.peers.iter().filter(|(replica, _)| self.isr.contains(*replica));
        in_sync.filter_map(move |(replica, peer)| {
            let (log_start, flushed) = (peer.log_start?, peer.flushed?);
            let caught_up_at = peer.caught_up_at(self.log_end, self.now)?;
            (log_start <= offset && offset <= flushed).then_some(Readable {
                replica: *replica,
                flushed,
                caught_up_at,
            })
        })
    }

    /// From where on records can be read on each replica that is alive, where this leader's log begins at `own`: what
    /// DeleteRecords waits for. `None` while one of them has not been heard from.
    #[must_use]
    pub fn low_watermark(
        &self,
        own: Offset,
        is_alive: impl Fn(BrokerId) -> bool,
    ) -> Option<Offset> {
        let alive = self.peers.iter().filter(|(replica, _)| is_alive(**replica));
        alive.map(|(_, peer)| peer.log_start).try_fold(own, |low, start| Some(low.min(start?)))
    }

    /// The leader's log now ends at `log_end`; nothing of it needs to be on disk.
    ///
    /// # Panics
    /// If the log became shorter: a leader never truncates its own log.
    pub fn on_append(&mut self, log_end: Offset) {
        assert!(self.log_end <= log_end, "a leader never truncates its own log");
        self.log_end = log_end;
        self.check();
    }

    /// Everything below `flushed` is on this leader's disk. Reports may arrive out of order; an old one changes nothing.
    ///
    /// # Panics
    /// If it is more than there is, such as what was flushed before this log was cut off: ask the log what is flushed now.
    pub fn on_flushed(&mut self, flushed: Offset) {
        self.flushed = self.flushed.max(flushed);
        self.settle();
    }

    /// A follower asks for records, and so tells where its log ends.
    ///
    /// # Errors
    /// [`FetchRefusal`] for an offset behind this log's end, by who is no replica, or in an earlier broker epoch than
    /// before: the replica stands where it stood.
    pub fn on_fetch(&mut self, fetched: Fetched) -> Result<FetchStanding, FetchRefusal> {
        let (replica, log_end) = (fetched.replica, self.log_end);
        if fetched.fetch_offset > log_end {
            return Err(FetchRefusal::BeyondEnd(fetched.fetch_offset));
        }
        self.now = self.now.max(fetched.now);
        let peer = self.peers.get_mut(&replica).ok_or(FetchRefusal::NotAReplica(replica))?;
        peer.on_fetch(&fetched, log_end)?;
        self.propose_join();
        self.settle();
        Ok(FetchStanding { high_watermark: self.high_watermark, log_end })
    }

    /// A follower has something on disk. A report counts that is of this leader epoch, by the same incarnation of the
    /// broker that fetches, and of no more than there is.
    pub fn on_follower_flushed(&mut self, report: FollowerFlushed) {
        if report.leader_epoch != self.leader_epoch || report.flushed > self.log_end {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&report.replica) {
            peer.on_flushed(&report);
            self.propose_join();
            self.settle();
        }
    }

    /// A broker was fenced or begins to shut down, or is no longer: what [`Fetched::is_eligible`] would say now. The high
    /// watermark does not wait for a joiner that may not join. Who has not fetched yet, or not since it left the ISR, joins with
    /// its next fetch only: it may be of another registration, or be away for a reason of its own, such as its disk.
    pub fn on_eligibility_changed(&mut self, replica: BrokerId, is_eligible: bool) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.is_eligible = is_eligible;
            self.propose_join();
            self.settle();
        }
    }

    /// The metadata has an ISR. Of a late or a repeated message nothing changes. Where `min.insync.replicas` has changed
    /// with it, that comes first.
    pub fn on_isr_committed(&mut self, committed: CommittedIsr) {
        let CommittedIsr { leader_epoch, partition_epoch, isr } = committed;
        let is_known = partition_epoch == self.partition_epoch && isr == self.isr;
        if leader_epoch != self.leader_epoch || partition_epoch < self.partition_epoch || is_known {
            return;
        }
        if !isr.contains(&self.leader) {
            // Another leader was elected, and the metadata will say so.
            self.give_up_until_metadata();
            return;
        }
        for left in self.isr.difference(&isr) {
            // The controller may have fenced it: it is waited for once it fetches again.
            if let Some(peer) = self.peers.get_mut(left) {
                peer.must_fetch = true;
            }
        }
        (self.isr, self.partition_epoch) = (isr, partition_epoch);
        // Whatever was proposed before this can no longer be applied: the controller compares partition epochs.
        (self.pending, self.to_send) = (None, None);
        self.propose_join();
        self.settle();
    }

    /// The controller has taken a proposal. It counts as under way until the metadata has it: only there does the ISR stand
    /// beside the `min.insync.replicas` that it was committed under. With an older one the high watermark might pass
    /// somebody who has just left the ISR, and whom the controller takes for having everything (KIP-966).
    pub fn on_alter_accepted(&mut self, id: ProposalId) {
        if self.pending.as_ref().is_some_and(|pending| pending.proposal.id() == id) {
            self.give_up_until_metadata();
        }
    }

    /// The controller, or the way there, has refused a proposal. An answer to any but the latest changes nothing.
    pub fn on_alter_refused(&mut self, id: ProposalId, error: ErrorCode, now: Duration) {
        self.now = self.now.max(now);
        let Some(pending) = self.pending.as_mut().filter(|it| it.proposal.id() == id) else {
            return;
        };
        match Reaction::to(error) {
            Reaction::GiveUp if pending.is_doubtful(self.now) => {
                pending.waiting = Waiting::Until(self.now + RETRY_BACKOFF);
            }
            Reaction::GiveUp => {
                match pending.change {
                    Change::Leave(_) => self.next_leave = self.now + self.lag_max / 2,
                    Change::Join(joiner) => {
                        // It may be proposed again when it fetches again.
                        self.peers.entry(joiner).and_modify(|peer| peer.must_fetch = true);
                    }
                }
                self.pending = None;
                self.propose_join();
            }
            Reaction::AwaitMetadata => pending.waiting = Waiting::ForMetadata,
            Reaction::Retry => pending.waiting = Waiting::Until(self.now + RETRY_BACKOFF),
        }
        self.settle();
    }

    /// A proposal was given up after it was sent: it is not known whether the controller has heard of it, or will.
    pub fn on_alter_unanswered(&mut self, id: ProposalId, now: Duration) {
        self.now = self.now.max(now);
        if let Some(pending) = self.pending.as_mut().filter(|it| it.proposal.id() == id) {
            pending.doubtful_until = Some(self.now + DOUBT);
            if pending.waiting == Waiting::ForAnswer {
                pending.waiting = Waiting::Until(self.now + RETRY_BACKOFF);
            }
        }
        self.settle();
    }

    /// The replicas that the partition is assigned to, as the metadata has them.
    pub fn on_replicas_changed(&mut self, replicas: &BTreeSet<BrokerId>) {
        self.peers.retain(|replica, _| replicas.contains(replica));
        for replica in replicas.iter().filter(|replica| **replica != self.leader) {
            self.peers.entry(*replica).or_insert_with(|| Peer::new(None));
        }
        self.settle();
    }

    pub fn on_min_insync_replicas_changed(&mut self, min_insync_replicas: usize) {
        self.min_insync_replicas = min_insync_replicas;
        self.settle();
    }

    /// Proposes to go on without those who are silent or behind for too long, and repeats what has failed.
    pub fn on_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if let Some(pending) = &mut self.pending
            && pending.is_due(self.now)
        {
            pending.waiting = Waiting::ForAnswer;
            self.to_send = Some(pending.proposal.clone());
        }
        self.propose_leave();
        self.propose_join();
        self.settle();
    }

    /// When [`Progress::on_time`] is to be called; an append or any other event may bring it forward. `None` where
    /// nobody is behind.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let retry = self.pending.as_ref().and_then(Pending::deadline);
        let due = |(replica, peer): (&BrokerId, &Peer)| {
            let due = peer.deadline(self.log_end, self.lag_max)?;
            if self.isr.contains(replica) {
                self.pending.is_none().then(|| due.max(self.next_leave))
            } else {
                (peer.may_join() && due > self.now).then_some(due)
            }
        };
        self.peers.iter().filter_map(due).chain(retry).min()
    }

    pub fn take_commands(&mut self) -> impl Iterator<Item = Command> + use<> {
        let advanced = self.advanced.take().map(Command::AdvanceHighWatermark);
        let proposed = self.to_send.take().map(Command::AlterPartition);
        advanced.into_iter().chain(proposed)
    }

    /// A follower joins that has everything on disk that readers may have seen, and everything that earlier leaders may
    /// have acknowledged: all before this leader epoch. One at a time, as in Kafka.
    fn propose_join(&mut self) {
        if self.pending.is_some() {
            return;
        }
        let needed = self.high_watermark.max(self.epoch_start);
        let may_join = |(replica, peer): &(&BrokerId, &Peer)| {
            peer.may_join() && peer.flushed >= Some(needed) && !self.isr.contains(replica)
        };
        if let Some((joiner, _)) = self.peers.iter().find(may_join) {
            let joiner = *joiner;
            self.propose(Change::Join(joiner));
        }
    }

    fn propose_leave(&mut self) {
        if self.pending.is_some() || self.now < self.next_leave {
            return;
        }
        let (log_end, now, lag_max) = (self.log_end, self.now, self.lag_max);
        let is_behind = |replica: &BrokerId| {
            let peer = self.peers.get(replica);
            peer.is_none_or(|peer| !peer.is_caught_up(log_end, now, lag_max))
        };
        let followers = self.isr.iter().filter(|replica| **replica != self.leader);
        let leavers: BTreeSet<BrokerId> = followers.filter(|it| is_behind(it)).copied().collect();
        if !leavers.is_empty() {
            self.propose(Change::Leave(leavers));
        }
    }

    fn propose(&mut self, change: Change) {
        self.proposals += 1;
        let isr = change.applied_to(&self.isr).map(|broker| IsrMember {
            broker,
            broker_epoch: if broker == self.leader {
                self.broker_epoch
            } else {
                let known = self.peers.get(&broker).and_then(|peer| peer.broker_epoch);
                known.unwrap_or(UNKNOWN_BROKER_EPOCH)
            },
        });
        let proposal = Proposal {
            number: self.proposals,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: isr.collect(),
        };
        self.to_send = Some(proposal.clone());
        self.pending =
            Some(Pending { proposal, change, waiting: Waiting::ForAnswer, doubtful_until: None });
    }

    fn give_up_until_metadata(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.waiting = Waiting::ForMetadata;
            self.to_send = None;
        }
    }

    /// What follows from whatever has just changed.
    fn settle(&mut self) {
        self.advance_high_watermark();
        self.check();
    }

    fn advance_high_watermark(&mut self) {
        if !self.has_enough_replicas() {
            return;
        }
        if let Some(slowest) = self.slowest()
            && self.high_watermark < slowest
        {
            self.high_watermark = slowest;
            self.advanced = Some(slowest);
        }
    }

    /// What all have on disk that count. `None` while one of them has not been heard from in this epoch: it holds the
    /// high watermark where the previous leader left it.
    fn slowest(&self) -> Option<Offset> {
        let is_known =
            |replica: &BrokerId| *replica == self.leader || self.peers.contains_key(replica);
        if !self.isr.iter().all(is_known) {
            return None;
        }
        let counting = self.peers.iter().filter(|(replica, peer)| self.counts(**replica, peer));
        counting.map(|(_, peer)| peer.flushed).try_fold(self.flushed, |low, it| Some(low.min(it?)))
    }

    fn counts(&self, replica: BrokerId, peer: &Peer) -> bool {
        self.is_in_maximal_isr(replica)
            || peer.may_join() && peer.is_caught_up(self.log_end, self.now, self.lag_max)
    }

    fn check(&self) {
        assert!(self.high_watermark <= self.log_end, "readers see only what was appended");
        assert!(self.flushed <= self.log_end, "flushed before appended");
        assert!(self.isr.contains(&self.leader), "the leader is in sync with itself");
        for (replica, peer) in &self.peers {
            assert!(*replica != self.leader, "the leader does not follow itself");
            assert!(peer.flushed <= Some(self.log_end), "a follower has what the leader has");
        }
        if let Some(pending) = &self.pending {
            pending.check(self.leader, self.partition_epoch, &self.isr);
        }
    }
}
