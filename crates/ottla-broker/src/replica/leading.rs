//! A replica as its metadata has it, and what a leader is told: flushes, followers' fetches, the controller's answers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Offset};
use ottla_metadata::Partition;
use ottla_replication::{
    Command, CommittedIsr, FetchRefusal, FetchStanding, Fetched, FollowerFlushed, Leadership,
    Progress, ProposalId,
};
use parking_lot::MutexGuard;

use super::following::Following;
use super::{Replica, Role, Standing, State, Terms};

impl Replica {
    /// The metadata says this of the partition now.
    pub fn follow_metadata(&self, partition: &Partition, terms: &Terms) -> Standing {
        let mut state = self.state.lock();
        // A change may be older than the image that this replica was made from.
        if partition.leader_epoch >= state.epoch {
            self.change_role(&mut state, partition, terms);
        }
        let standing = match &state.role {
            Role::Idle => Standing::Idle,
            Role::Leader(_) => Standing::Leads,
            Role::Follower(following) => Standing::Follows(following.leader()),
        };
        self.carry_out(&mut state);
        drop(state);
        self.wake_all();
        standing
    }

    fn change_role(&self, state: &mut State, partition: &Partition, terms: &Terms) {
        state.assigned = partition.directory_of(self.broker);
        let is_same_epoch = partition.leader_epoch == state.epoch;
        let replicas: BTreeSet<BrokerId> = partition.replicas.iter().copied().collect();
        let isr: BTreeSet<BrokerId> = partition.isr.iter().copied().collect();
        let leads = partition.leader == self.broker && terms.broker_epoch.is_some();
        match &mut state.role {
            Role::Leader(progress) if leads && is_same_epoch => {
                progress.on_replicas_changed(&replicas);
                // Before the ISR: a smaller one counts for nothing under the minimum of before.
                progress.on_min_insync_replicas_changed(terms.min_insync_replicas);
                progress.on_isr_committed(CommittedIsr {
                    leader_epoch: partition.leader_epoch,
                    partition_epoch: partition.partition_epoch,
                    isr,
                });
                return;
            }
            Role::Follower(following)
                if is_same_epoch && following.leader() == partition.leader =>
            {
                return;
            }
            Role::Leader(_) | Role::Follower(_) | Role::Idle => {}
        }
        state.epoch = partition.leader_epoch;
        state.role = if leads {
            let log = self.log();
            Role::Leader(Box::new(Progress::new(Leadership {
                leader: self.broker,
                broker_epoch: terms.broker_epoch.unwrap_or(-1),
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                replicas,
                isr,
                min_insync_replicas: terms.min_insync_replicas,
                lag_max: terms.lag_max,
                high_watermark: self.high_watermark(),
                flushed: log.flushed_offset(),
                log_end: log.log_end_offset(),
                now: terms.now,
            })))
        } else if partition.leader == BrokerId::NONE || partition.leader == self.broker {
            Role::Idle
        } else {
            let epoch = partition.leader_epoch;
            Role::Follower(Following::new(self, partition.leader, epoch, terms.fetch_backoff))
        };
        // Before a follower hears of anything: see `is_visible`.
        match leads {
            true => self.led.lead(partition.leader_epoch),
            false => self.led.end(),
        }
        let high_watermark = match &state.role {
            Role::Leader(progress) => progress.high_watermark(),
            Role::Follower(following) => following.high_watermark(),
            Role::Idle => return,
        };
        // A transaction may have ended beyond what is sure to stay.
        if let Err(error) = self.log().unsettle_transactions(high_watermark) {
            tracing::error!(partition = %self.partition, %error, "the ends of transactions can't be read again");
        }
    }

    /// The log's flusher has been at it.
    pub fn on_flushed(&self) {
        let mut state = self.state.lock();
        // The log knows best: what its flusher reports may be from before a truncation.
        match &mut state.role {
            Role::Leader(progress) => progress.on_flushed(self.log().flushed_offset()),
            Role::Follower(following) => following.on_flushed(self),
            Role::Idle => {}
        }
        self.conclude(state);
    }

    /// A follower asks for records.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER if this broker does not lead, or why the fetch does not count.
    pub fn on_fetch(&self, fetched: Fetched) -> Result<FetchStanding, ErrorCode> {
        let standing = self
            .with_progress(|progress| progress.on_fetch(fetched))
            .ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?
            .map_err(|refusal: FetchRefusal| refusal.code());
        // It may begin later now.
        self.deletions.wake();
        standing
    }

    /// Whether an operator has this broker hold back a follower: it is meant for this replica, and the follower is not in
    /// sync.
    pub(crate) fn is_throttled_for(&self, follower: BrokerId) -> bool {
        self.is_throttled_as_leader()
            && match &self.state.lock().role {
                Role::Leader(progress) => !progress.isr().contains(&follower),
                Role::Follower(_) | Role::Idle => false,
            }
    }

    /// From where on all replicas that live have their records; `None` while one of them has not said.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION once the partition was taken away, NOT_LEADER_OR_FOLLOWER if this broker does not lead, or
    /// stops, KAFKA_STORAGE_ERROR if its disk has failed.
    pub(crate) fn low_watermark(
        &self,
        is_alive: impl Fn(BrokerId) -> bool,
    ) -> Result<Option<Offset>, ErrorCode> {
        self.check_disk()?;
        if self.gone.load(Ordering::Acquire) {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        self.check_alive()?;
        match &self.state.lock().role {
            Role::Leader(progress) => {
                Ok(progress.low_watermark(self.log().log_start_offset(), is_alive))
            }
            Role::Follower(_) | Role::Idle => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }

    /// # Errors
    /// OFFSET_NOT_AVAILABLE while a new leader does not know what earlier ones have made visible (KIP-207).
    pub(crate) fn check_knows_latest(&self) -> Result<(), ErrorCode> {
        match &self.state.lock().role {
            Role::Leader(progress) if progress.high_watermark() < progress.epoch_start() => {
                Err(ErrorCode::OFFSET_NOT_AVAILABLE)
            }
            Role::Leader(_) | Role::Follower(_) | Role::Idle => Ok(()),
        }
    }

    /// # Errors
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND where what has become visible is to be acknowledged, and too few are in sync by
    /// now.
    pub fn check_still_enough(&self) -> Result<(), ErrorCode> {
        match &self.state.lock().role {
            Role::Leader(progress) if !progress.is_still_enough() => {
                Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
            }
            Role::Leader(_) | Role::Follower(_) | Role::Idle => Ok(()),
        }
    }

    /// A follower has something on disk.
    pub fn on_follower_flushed(&self, report: FollowerFlushed) {
        self.with_progress(|progress| progress.on_follower_flushed(report));
    }

    /// A broker may join ISRs, or may not any longer.
    pub fn on_eligibility_changed(&self, broker: BrokerId, is_eligible: bool) {
        self.with_progress(|progress| progress.on_eligibility_changed(broker, is_eligible));
    }

    /// The controller has taken a proposal, and the metadata will have it.
    pub fn on_isr_accepted(&self, id: ProposalId) {
        self.with_progress(|progress| progress.on_alter_accepted(id));
    }

    /// An ISR counts from now on; the metadata says so by [`Replica::follow_metadata`].
    pub fn on_isr_committed(&self, committed: CommittedIsr) {
        self.with_progress(|progress| progress.on_isr_committed(committed));
    }

    /// The controller has not taken a proposal.
    pub fn on_isr_refused(&self, id: ProposalId, error: ErrorCode, now: Duration) {
        self.with_progress(|progress| progress.on_alter_refused(id, error, now));
    }

    /// It is not known whether the controller has heard of a proposal, or will.
    pub fn on_isr_unanswered(&self, id: ProposalId, now: Duration) {
        self.with_progress(|progress| progress.on_alter_unanswered(id, now));
    }

    pub fn on_min_isr_changed(&self, min_insync_replicas: usize) {
        self.with_progress(|progress| {
            progress.on_min_insync_replicas_changed(min_insync_replicas);
        });
    }

    /// When this leader has to look after its followers.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state.lock().role {
            Role::Leader(progress) => progress.deadline(),
            Role::Follower(_) | Role::Idle => None,
        }
    }

    fn with_progress<T>(&self, event: impl FnOnce(&mut Progress) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let Role::Leader(progress) = &mut state.role else { return None };
        let answer = event(progress);
        self.conclude(state);
        Some(answer)
    }

    /// Does what follows from an event, and lets go of the state before it wakes anybody.
    fn conclude(&self, mut state: MutexGuard<'_, State>) {
        let has_moved = self.carry_out(&mut state);
        drop(state);
        if has_moved {
            self.waiters.wake();
        }
    }

    /// Does what a leader's progress says must be done; whether the high watermark has moved.
    fn carry_out(&self, state: &mut State) -> bool {
        let State { role: Role::Leader(progress), watched, .. } = state else { return false };
        let mut has_moved = false;
        for command in progress.take_commands() {
            match command {
                Command::AdvanceHighWatermark(offset) => {
                    self.set_high_watermark(offset);
                    has_moved = true;
                }
                Command::AlterPartition(proposal) => {
                    self.outboxes.isr_changes.propose(
                        self.topic_id,
                        self.partition.partition,
                        proposal,
                    );
                }
            }
        }
        // A leader that has just begun may know of a higher one.
        let known = progress.high_watermark();
        if known > self.high_watermark() {
            self.set_high_watermark(known);
            has_moved = true;
        }
        self.watch(progress, watched);
        has_moved
    }

    /// Has the watch look at this replica in time.
    pub(super) fn watch(&self, progress: &Progress, watched: &mut Option<Duration>) {
        let Some(at) = progress.deadline() else { return };
        if watched.is_none_or(|watched| at < watched) {
            *watched = Some(at);
            self.outboxes.follower_watch.watch(self.topic_id, self.partition.partition, at);
        }
    }

    /// Followers that lag may have to leave the ISR. The watch looks, and knows nothing of this replica until it is told
    /// again.
    pub(crate) fn look_after_followers(&self, now: Duration) {
        let mut state = self.state.lock();
        state.watched = None;
        if let Role::Leader(progress) = &mut state.role
            && progress.deadline().is_some_and(|due| due <= now)
        {
            progress.on_time(now);
        }
        self.conclude(state);
    }

    pub(super) fn set_high_watermark(&self, offset: Offset) {
        self.high_watermark.store(offset.0, Ordering::Release);
        self.log().note_high_watermark(offset);
    }
}
