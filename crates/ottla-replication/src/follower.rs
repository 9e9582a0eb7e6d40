//! A follower's conversation with one leader in one leader epoch: what to ask for, what to do with the answers.
//!
//! Pure: answers and what became of the log come in as method calls; what must happen next goes out as [`Command`]s. The
//! shell carries one out before it tells of anything else, and then says how the log is.
//!
//! A Fetch tells the epoch of the follower's last record. Where the leader's log does not go on from there, its answer
//! says how far the two may agree, the follower cuts off what is beyond, and asks again (KIP-595). Nothing else shortens
//! a log, but a leader whose log has become shorter (unclean elections) or begins later than this one ends.
//!
//! Flushes are reported once it is known that the leader's log holds what this one holds: before, an offset on this disk
//! may mean something else than in the leader's log.
//!
//! Invariants, checked after every event by [`Follower::check`]:
//!
//! - `log_start <= high_watermark <= log_end`, `flushed <= log_end`
//! - the high watermark falls only where the log is cut off below it
//! - nothing is reported before the leader's log is known to agree, nor more than is flushed

#[cfg(test)]
mod tests;

use std::time::Duration;

use ottla_base::{ErrorCode, LeaderEpoch, Offset};

/// A follower of one partition in one leader epoch.
#[derive(Debug)]
pub struct Follower {
    leader_epoch: LeaderEpoch,
    backoff: Duration,
    state: State,
    log: LocalLog,
    high_watermark: Offset,
    /// The leader's log holds what this one holds.
    agrees: bool,
    reported: Option<Offset>,
    /// What the leader has told along with the records that are being appended.
    told: Told,
    commands: Vec<Command>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The log to become shorter.
    Truncating,
    /// The leader's answer.
    Fetching,
    /// The log to become longer.
    Appending,
    /// Where the leader's log begins and ends.
    Asking,
    /// A better time to ask.
    BackingOff(Duration),
    /// Another leader, or another leader epoch: this conversation is over.
    AwaitingMetadata,
}

/// A follower's own log, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLog {
    pub log_start: Offset,
    pub log_end: Offset,
    /// What is on disk; exclusive.
    pub flushed: Offset,
    /// The latest in its list of epochs.
    pub last_epoch: Option<LeaderEpoch>,
}

/// What a follower begins with.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub leader_epoch: LeaderEpoch,
    pub log: LocalLog,
    /// The largest that this replica has ever heard of.
    pub high_watermark: Offset,
    /// `replica.fetch.backoff.ms`
    pub backoff: Duration,
}

/// What a Fetch asks for this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub last_fetched_epoch: Option<LeaderEpoch>,
    pub log_start_offset: Offset,
}

/// The offset after the last record of the largest epoch in a log up to some epoch, and that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

/// What the leader has answered to a Fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Records that follow, or none.
    Records {
        is_empty: bool,
        high_watermark: Offset,
        log_start: Offset,
    },
    /// The logs disagree. `local` is what this log says to the epoch that the leader names.
    Diverged {
        leader: EpochEnd,
        local: Option<EpochEnd>,
    },
    Refused(ErrorCode),
}

/// Where the leader's log begins and ends, asked with ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderOffsets {
    pub log_start: Offset,
    pub log_end: Offset,
}

/// What this follower has on disk of the log that it shares with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushReport {
    pub leader_epoch: LeaderEpoch,
    /// Exclusive.
    pub flushed: Offset,
}

/// Why the log is not as it was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The answer was damaged on its way, or there is no room: another one may fit.
    Passing,
    /// The disk has failed.
    Lasting,
}

/// What must happen next. Data, never an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Append the records of the answer, but none of a later epoch and what follows it: whoever has become leader since,
    /// has answered a question that was meant for another log (KAFKA-18723). Then [`Follower::on_appended`].
    Append {
        up_to: LeaderEpoch,
    },
    /// Cut off everything at and after an offset. Then [`Follower::on_truncated`].
    Truncate {
        to: Offset,
    },
    /// Drop everything, and begin again, empty, at an offset. Then [`Follower::on_truncated`].
    RestartAt(Offset),
    /// Ask where the leader's log begins and ends. Then [`Follower::on_leader_offsets`].
    AskLeaderOffsets,
    SetHighWatermark(Offset),
    /// Durably: what is commanded after it relies on it, and must not happen without it. Then
    /// [`Follower::on_deletion_failed`], if it has failed.
    DeleteRecordsTo(Offset),
    /// Tell the leader. It may be told again, or later, but then what [`Follower::report`] says.
    ReportFlushed(FlushReport),
}

#[derive(Debug, Clone, Copy)]
struct Told {
    high_watermark: Offset,
    log_start: Offset,
}

impl Follower {
    /// A log whose records tell no epochs can't be compared: all is cut off that is not known to be committed.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let Start { leader_epoch, log, high_watermark, backoff } = start;
        let high_watermark = high_watermark.min(log.log_end).max(log.log_start);
        let is_comparable = log.last_epoch.is_some() || log.log_end == high_watermark;
        let mut follower = Self {
            leader_epoch,
            backoff,
            state: State::Fetching,
            log,
            high_watermark,
            agrees: false,
            reported: None,
            told: Told { high_watermark, log_start: log.log_start },
            commands: Vec::new(),
        };
        if !is_comparable {
            follower.cut_off(Command::Truncate { to: high_watermark });
        }
        follower.check();
        follower
    }

    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Whether this log is known to agree with the leader's up to the high watermark that the leader has told last: Kafka's
    /// idea of a follower that is not to be throttled.
    #[must_use]
    pub fn has_what_is_visible(&self) -> bool {
        self.agrees && self.told.high_watermark <= self.log.log_end
    }

    /// Whether the log goes on only under another leader or in another leader epoch.
    #[cfg(test)]
    fn is_over(&self) -> bool {
        self.state == State::AwaitingMetadata
    }

    /// What to ask the leader for; `None` while something else comes first.
    #[must_use]
    pub fn fetch(&mut self, now: Duration) -> Option<Fetch> {
        if self.deadline().is_some_and(|until| until <= now) {
            self.state = State::Fetching;
        }
        (self.state == State::Fetching).then(|| self.question())
    }

    /// When [`Follower::fetch`] will give something again, if it is only a matter of time.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::BackingOff(until) => Some(until),
            State::Truncating
            | State::Fetching
            | State::Appending
            | State::Asking
            | State::AwaitingMetadata => None,
        }
    }

    /// What the leader is to know of this follower's disk, for a connection that is new.
    #[must_use]
    pub fn report(&self) -> Option<FlushReport> {
        let (leader_epoch, flushed) = (self.leader_epoch, self.log.flushed);
        self.agrees.then_some(FlushReport { leader_epoch, flushed })
    }

    /// The leader has answered a Fetch. An answer to any but the one that [`Follower::fetch`] gives now changes nothing.
    pub fn on_answer(&mut self, asked: &Fetch, answer: Answer, now: Duration) {
        if self.state != State::Fetching || !self.question().is_the_same(asked) {
            return;
        }
        match answer {
            Answer::Records { is_empty, high_watermark, log_start } => {
                self.agrees = true;
                self.told = Told { high_watermark, log_start };
                self.delete_before(log_start.min(self.log.log_end));
                // Before an append, which takes its time.
                self.report_news();
                if is_empty {
                    self.heed();
                } else {
                    self.state = State::Appending;
                    self.commands.push(Command::Append { up_to: self.leader_epoch });
                }
            }
            Answer::Diverged { leader, local } => self.on_diverged(leader, local, now),
            Answer::Refused(error) => self.on_refused(error, now),
        }
        self.settle();
    }

    /// The records of the answer were appended, or some of them.
    pub fn on_appended(&mut self, log: LocalLog) {
        self.see(log);
        self.state = State::Fetching;
        self.heed();
        self.settle();
    }

    /// What was to be cut off is gone.
    pub fn on_truncated(&mut self, log: LocalLog) {
        self.see(log);
        self.state = State::Fetching;
        self.settle();
    }

    /// The log could not be cut off or continued as it was to be, or only in part.
    pub fn on_log_failed(&mut self, log: LocalLog, failure: Failure, now: Duration) {
        self.see(log);
        // A log that could not be cut off is compared with the leader's again before anything is appended to it, if its
        // records tell their epochs.
        let is_comparable = log.last_epoch.is_some();
        self.state = match (failure, self.state) {
            (Failure::Passing, State::Fetching | State::Appending) => {
                State::BackingOff(now + self.backoff)
            }
            (Failure::Passing, State::Truncating) if is_comparable => {
                State::BackingOff(now + self.backoff)
            }
            _ => State::AwaitingMetadata,
        };
        self.settle();
    }

    /// Records could not be deleted, and so nothing has happened of what was commanded after it: the high watermark is still
    /// this one, and the leader was told nothing. It is told when it has answered again, and they are gone.
    pub fn on_deletion_failed(
        &mut self,
        log: LocalLog,
        high_watermark: Offset,
        failure: Failure,
        now: Duration,
    ) {
        (self.agrees, self.reported) = (false, None);
        self.high_watermark = high_watermark;
        self.on_log_failed(log, failure, now);
    }

    /// The leader has said where its log begins and ends, or has not.
    pub fn on_leader_offsets(&mut self, found: Result<LeaderOffsets, ErrorCode>, now: Duration) {
        if self.state != State::Asking {
            return;
        }
        let end = self.log.log_end;
        match found {
            Ok(leader) if leader.log_end < end => {
                self.cut_off(Command::Truncate { to: leader.log_end });
            }
            Ok(leader) if leader.log_start > end => {
                self.cut_off(Command::RestartAt(leader.log_start));
            }
            // It has changed since.
            Ok(_) => self.back_off(now),
            Err(ErrorCode::FENCED_LEADER_EPOCH) => self.state = State::AwaitingMetadata,
            Err(_) => self.back_off(now),
        }
        self.settle();
    }

    /// The log begins here, as it says now: retention has deleted what was visible.
    pub fn on_trimmed(&mut self, log_start: Offset) {
        if log_start > self.log.log_start {
            self.log.log_start = log_start;
            self.raise_high_watermark(log_start);
        }
        self.settle();
    }

    /// So much of the log is on disk, as the log says now: what it said before a truncation may no longer be so.
    pub fn on_flushed(&mut self, flushed: Offset) {
        // Of what is being appended the rest comes with `on_appended`.
        self.log.flushed = self.log.flushed.max(flushed.min(self.log.log_end));
        self.settle();
    }

    #[must_use]
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    fn question(&self) -> Fetch {
        Fetch {
            current_leader_epoch: self.leader_epoch,
            fetch_offset: self.log.log_end,
            last_fetched_epoch: self.log.last_epoch,
            log_start_offset: self.log.log_start,
        }
    }

    /// Both logs agree up to where the epoch ends that both know, in the log in which it ends earlier. Where this log
    /// does not know the epoch that the leader names, that of the next older one is compared with the next Fetch
    /// (KIP-279).
    fn on_diverged(&mut self, leader: EpochEnd, local: Option<EpochEnd>, now: Duration) {
        if leader.end_offset < Offset::ZERO || leader.epoch < LeaderEpoch(0) {
            self.back_off(now);
            return;
        }
        let to = match local {
            Some(local) if local.epoch == leader.epoch => local.end_offset.min(leader.end_offset),
            Some(local) => local.end_offset,
            None => leader.end_offset,
        };
        // Also where nothing is beyond: an epoch without records is forgotten then.
        self.cut_off(Command::Truncate { to: to.min(self.log.log_end) });
    }

    fn on_refused(&mut self, error: ErrorCode, now: Duration) {
        match error {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                self.state = State::Asking;
                self.commands.push(Command::AskLeaderOffsets);
            }
            // There is a newer leader epoch.
            ErrorCode::FENCED_LEADER_EPOCH => self.state = State::AwaitingMetadata,
            // With most others the leader is the one whose metadata is behind: nothing will be heard of that here.
            _ => self.back_off(now),
        }
    }

    fn cut_off(&mut self, command: Command) {
        (self.agrees, self.reported) = (false, None);
        self.state = State::Truncating;
        self.commands.push(command);
    }

    fn see(&mut self, log: LocalLog) {
        let before = self.high_watermark;
        self.log = log;
        // A log may begin again before its start, with the whole of the batch in which it lies.
        self.reported = self.reported.min(Some(log.flushed));
        self.high_watermark = before.min(log.log_end).max(log.log_start);
        if self.high_watermark != before {
            self.commands.push(Command::SetHighWatermark(self.high_watermark));
        }
    }

    fn back_off(&mut self, now: Duration) {
        self.state = State::BackingOff(now + self.backoff);
    }

    /// Takes over what the leader has told of its watermarks, as far as this log goes.
    fn heed(&mut self) {
        let Told { high_watermark, log_start } = self.told;
        self.raise_high_watermark(high_watermark.min(self.log.log_end));
        self.delete_before(log_start.min(self.high_watermark));
    }

    /// What the leader has deleted it has shown before: it was committed. But here other records may be in its place. Of
    /// the epochs before its first record a leader says that they ended there, and so nothing is cut off that differs
    /// below. It must go before it can be taken for visible, or this log for in sync.
    fn delete_before(&mut self, log_start: Offset) {
        if log_start > self.log.log_start {
            self.log.log_start = log_start;
            self.commands.push(Command::DeleteRecordsTo(log_start));
            self.raise_high_watermark(log_start);
        }
    }

    fn raise_high_watermark(&mut self, high_watermark: Offset) {
        if high_watermark > self.high_watermark {
            self.high_watermark = high_watermark;
            self.commands.push(Command::SetHighWatermark(high_watermark));
        }
    }

    fn settle(&mut self) {
        self.report_news();
        self.check();
    }

    fn report_news(&mut self) {
        if let Some(report) = self.report().filter(|it| Some(it.flushed) > self.reported) {
            self.reported = Some(report.flushed);
            self.commands.push(Command::ReportFlushed(report));
        }
    }

    fn check(&self) {
        let LocalLog { log_start, log_end, flushed, .. } = self.log;
        assert!(log_start <= self.high_watermark, "what was deleted was visible");
        assert!(self.high_watermark <= log_end, "readers see only what was appended");
        assert!(flushed <= log_end, "flushed before appended");
        assert!(self.reported.is_none() || self.agrees, "reported before compared");
        assert!(self.reported <= Some(flushed), "reported before flushed");
    }
}

impl Fetch {
    /// Where the log begins makes no difference to the answer.
    fn is_the_same(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.current_leader_epoch, it.fetch_offset, it.last_fetched_epoch);
        of(self) == of(other)
    }
}
