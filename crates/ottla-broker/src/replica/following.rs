//! A replica that follows: what it asks its leader, and what it does with the answers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use ottla_log::{Log, StorageError};
use ottla_replication::Follower;
use ottla_replication::follower::{
    Answer, Command, EpochEnd, Failure, Fetch, FlushReport, LeaderOffsets, LocalLog, Start,
};

use super::{Replica, Role, flush_if_due};

/// The conversation with one leader in one leader epoch.
#[derive(Debug)]
pub(super) struct Following {
    leader: BrokerId,
    follower: Follower,
}

/// What a leader has answered for one partition.
#[derive(Debug)]
pub enum Fetched {
    Records { records: Bytes, high_watermark: Offset, log_start: Offset },
    Diverged(EpochEnd),
    Refused(ErrorCode),
}

impl Fetched {
    /// Bytes of records.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Records { records, .. } => records.len(),
            Self::Diverged(_) | Self::Refused(_) => 0,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the fetcher must do for a partition beside fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    Nothing,
    AskLeaderOffsets,
}

impl Following {
    pub(super) fn new(
        replica: &Replica,
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
        backoff: Duration,
    ) -> Self {
        let follower = Follower::new(Start {
            leader_epoch,
            log: local(&replica.log()),
            high_watermark: replica.high_watermark(),
            backoff,
        });
        Self { leader, follower }
    }

    pub(super) const fn leader(&self) -> BrokerId {
        self.leader
    }

    pub(super) const fn high_watermark(&self) -> Offset {
        self.follower.high_watermark()
    }

    /// The log's flusher was at it.
    pub(super) fn on_flushed(&mut self, replica: &Replica) {
        if replica.check_disk().is_err() {
            return;
        }
        // What it has reported may be from before a truncation: the log knows.
        self.follower.on_flushed(replica.log().flushed_offset());
        let _ = replica.obey(self, &mut Bytes::new(), Duration::ZERO);
    }
}

fn local(log: &Log) -> LocalLog {
    LocalLog {
        log_start: log.log_start_offset(),
        log_end: log.log_end_offset(),
        flushed: log.flushed_offset(),
        last_epoch: log.latest_epoch(),
    }
}

impl Replica {
    /// What to ask this leader for, if it is the leader and the time has come.
    #[must_use]
    pub fn next_fetch(&self, leader: BrokerId, now: Duration) -> Option<Fetch> {
        match &mut self.state.lock().role {
            Role::Follower(following) if following.leader == leader && self.takes_records() => {
                following.follower.on_trimmed(self.log().log_start_offset());
                // What had to be done before the first question.
                let _ = self.obey(following, &mut Bytes::new(), now);
                following.follower.fetch(now)
            }
            Role::Follower(_) | Role::Leader(_) | Role::Idle => None,
        }
    }

    /// Whose log this one is to become, if this broker follows.
    #[must_use]
    pub(crate) fn followed_leader(&self) -> Option<BrokerId> {
        match &self.state.lock().role {
            Role::Follower(following) => Some(following.leader),
            Role::Leader(_) | Role::Idle => None,
        }
    }

    /// When [`Replica::next_fetch`] gives something again, if it is a matter of time.
    #[must_use]
    pub fn fetch_deadline(&self) -> Option<Duration> {
        match &self.state.lock().role {
            Role::Follower(following) => following.follower.deadline(),
            Role::Leader(_) | Role::Idle => None,
        }
    }

    /// Whether an operator's throttle applies: it is meant for this replica, and the replica is behind, as far as it knows.
    #[must_use]
    pub(crate) fn is_throttled_and_lags(&self, leader: BrokerId) -> bool {
        self.is_throttled_as_follower()
            && match &self.state.lock().role {
                Role::Follower(following) if following.leader == leader => {
                    !following.follower.has_what_is_visible()
                }
                Role::Follower(_) | Role::Leader(_) | Role::Idle => false,
            }
    }

    /// The leader has answered. Records are in the log when this returns, and wait for a flush, which the caller begins once it
    /// has nothing more to append.
    pub fn on_fetched(
        &self,
        leader: BrokerId,
        asked: &Fetch,
        fetched: Fetched,
        now: Duration,
    ) -> Errand {
        self.with_following(leader, |following| {
            let mut records = Bytes::new();
            let answer = match fetched {
                Fetched::Records { records: found, high_watermark, log_start } => {
                    records = found;
                    Answer::Records { is_empty: records.is_empty(), high_watermark, log_start }
                }
                Fetched::Diverged(leader) => {
                    let found = self.log().end_offset_for_epoch(leader.epoch);
                    let local = found.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
                    Answer::Diverged { leader, local }
                }
                Fetched::Refused(code) => Answer::Refused(code),
            };
            following.follower.on_answer(asked, answer, now);
            self.obey(following, &mut records, now)
        })
    }

    /// Tells the leader once more what is on disk here: a report is lost with its connection, and one that comes before the
    /// first fetch of this registration means nothing to the leader.
    pub fn report_flushed_again(&self) {
        let state = self.state.lock();
        let Role::Follower(following) = &state.role else { return };
        if let Some(report) = following.follower.report() {
            self.report(following.leader, report);
        }
    }

    /// Nothing once the disk has failed: with `log.flush.on.commit=false` an append counts as flushed whose flush has failed.
    fn report(&self, leader: BrokerId, report: FlushReport) {
        if self.check_disk().is_err() {
            return;
        }
        let FlushReport { leader_epoch, flushed } = report;
        let partition = self.partition.partition;
        self.outboxes.flush_reports.flushed(
            leader,
            self.topic_id,
            partition,
            leader_epoch,
            flushed,
        );
    }

    /// The leader has said where its log begins and ends, or has not.
    pub fn on_leader_offsets(
        &self,
        leader: BrokerId,
        found: Result<LeaderOffsets, ErrorCode>,
        now: Duration,
    ) {
        self.with_following(leader, |following| {
            following.follower.on_leader_offsets(found, now);
            self.obey(following, &mut Bytes::new(), now)
        });
    }

    fn with_following(
        &self,
        leader: BrokerId,
        event: impl FnOnce(&mut Following) -> Errand,
    ) -> Errand {
        let before = self.high_watermark();
        let mut state = self.state.lock();
        let errand = match &mut state.role {
            Role::Follower(following) if following.leader == leader && self.takes_records() => {
                event(following)
            }
            Role::Follower(_) | Role::Leader(_) | Role::Idle => Errand::Nothing,
        };
        drop(state);
        if self.high_watermark() != before {
            self.waiters.wake();
        }
        errand
    }

    /// Whether what comes from the leader has a place: the log is not closed or deleted, nor will be at once, and its disk has
    /// not failed. Who asked on from a failed disk would be taken for a follower that keeps up while nothing is written, and
    /// then hold up everybody in the ISR.
    fn takes_records(&self) -> bool {
        !self.retired.load(Ordering::Acquire) && self.check_disk().is_ok()
    }

    /// Carries out what the follower commands, until it commands nothing more.
    fn obey(&self, following: &mut Following, records: &mut Bytes, now: Duration) -> Errand {
        let mut errand = Errand::Nothing;
        let log = self.log();
        loop {
            let commands = following.follower.take_commands();
            if commands.is_empty() {
                return errand;
            }
            for command in commands {
                match command {
                    Command::Append { up_to } => {
                        self.append_fetched(following, std::mem::take(records), up_to, now);
                    }
                    Command::Truncate { to } => {
                        tracing::info!(partition = %self.partition, %to, "cut off what the leader does not have");
                        self.cut_off(following, log.truncate_to(to), now);
                    }
                    Command::RestartAt(offset) => {
                        tracing::info!(partition = %self.partition, %offset, "begun anew where the leader's log begins");
                        self.cut_off(following, log.truncate_fully_and_start_at(offset), now);
                    }
                    Command::AskLeaderOffsets => errand = Errand::AskLeaderOffsets,
                    Command::SetHighWatermark(offset) => self.set_high_watermark(offset),
                    Command::DeleteRecordsTo(offset) => {
                        if let Err(error) = log.delete_records_to(offset) {
                            tracing::error!(partition = %self.partition, %error, "records can't be deleted");
                            let (failure, shown) = (failure_of(&error), self.high_watermark());
                            let follower = &mut following.follower;
                            follower.on_deletion_failed(local(&log), shown, failure, now);
                            // What is commanded after it must not happen without it.
                            break;
                        }
                    }
                    Command::ReportFlushed(report) => self.report(following.leader, report),
                }
            }
        }
    }

    fn append_fetched(
        &self,
        following: &mut Following,
        records: Bytes,
        up_to: LeaderEpoch,
        now: Duration,
    ) {
        let log = self.log();
        let appended = log.append_as_follower(records, up_to);
        let appended = appended.and_then(|_| match log.flushes_on_commit() {
            // It hears of what is on the disk alone.
            true => Ok(()),
            false => Ok(flush_if_due(&log)?),
        });
        // Also after a failure: a part may be there. Nothing waits where the page cache counts as the disk.
        if log.flushed_offset() < log.log_end_offset() {
            log.join_next_flush();
        }
        match appended {
            Ok(()) => {
                following.follower.on_appended(local(&log));
            }
            Err(error) => {
                // That the disk is full has been said once, for all partitions.
                if error.is_full() {
                    tracing::debug!(partition = %self.partition, %error, "what the leader has sent can't be appended");
                    self.outboxes.handovers.stuck(self);
                } else {
                    tracing::error!(partition = %self.partition, %error, "what the leader has sent can't be appended");
                }
                let failure = if error.is_passing() { Failure::Passing } else { Failure::Lasting };
                following.follower.on_log_failed(local(&log), failure, now);
            }
        }
    }

    fn cut_off(&self, following: &mut Following, result: Result<(), StorageError>, now: Duration) {
        let log = self.log();
        match result {
            Ok(()) => following.follower.on_truncated(local(&log)),
            Err(error) => {
                tracing::error!(partition = %self.partition, %error, "the log can't be cut off");
                following.follower.on_log_failed(local(&log), failure_of(&error), now);
            }
        }
    }
}

/// A call of the disk that fails once may succeed the next time. A disk that is gone, or that has lost what it was given, says
/// so with another error.
fn failure_of(error: &StorageError) -> Failure {
    match error {
        StorageError::Full { .. } | StorageError::Io { .. } => Failure::Passing,
        StorageError::Corrupt { .. }
        | StorageError::Poisoned { .. }
        | StorageError::Closed { .. }
        | StorageError::OutOfOrder { .. }
        | StorageError::TooLarge { .. } => Failure::Lasting,
    }
}
