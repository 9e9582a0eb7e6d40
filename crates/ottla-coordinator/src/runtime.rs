//! Runs a [`Shard`] on its partition of the log: appends, replays, parks replies until they are safe. Pure: the log
//! is behind [`Log`], time is an argument.
//!
//! Invariants:
//! - `committed <= end`; replies are parked in the order of the offsets that they wait for, all above `committed`
//! - a record is replayed exactly once, right after it was appended, before anything else is decided
//! - each [`ReplyTo`] that was handed in is given back at most once

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use ottla_base::{ErrorCode, Offset, Timestamp};

use crate::shard::{Outcome, ReplyTo, Shard};
use crate::timers::Timers;

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, for what is stored and shown.
    pub time: Timestamp,
    /// Since some moment that stays the same, for measuring: never set back.
    pub monotonic: Duration,
}

/// The end of a partition's log, as its leader sees it.
pub trait Log<R> {
    /// Appends records as one batch, all or none; if they `may_be_divided`, as several that follow one another.
    /// Returns the offsets of those that were appended: divided, they may be fewer than were given.
    ///
    /// # Errors
    /// The produce error, when nothing was appended.
    fn append(&mut self, records: &[R], may_be_divided: bool) -> Result<Range<Offset>, ErrorCode>;
}

/// Replies that may go out: an answer, or why there is none.
pub type Replies<R> = Vec<(ReplyTo, Result<R, ErrorCode>)>;

/// A shard whose partition is still being read.
#[derive(Debug)]
pub struct Loading<S> {
    shard: S,
    end: Offset,
}

impl<S: Shard> Loading<S> {
    #[must_use]
    pub const fn new(shard: S) -> Self {
        Self { shard, end: Offset::ZERO }
    }

    /// Takes in the next record of the log.
    pub fn replay(&mut self, offset: Offset, record: &S::Record) {
        self.shard.replay(offset, record);
        self.end = offset.next();
    }

    /// Everything below `end` was read. How much of that is committed, [`Runtime::on_committed`] is told.
    pub fn finish<L: Log<S::Record>>(
        mut self,
        now: Now,
        end: Offset,
        log: &mut L,
    ) -> (Runtime<S>, Replies<S::Reply>) {
        if self.end > Offset::ZERO {
            self.shard.appended(self.end);
        }
        let mut runtime = Runtime {
            shard: self.shard,
            timers: Timers::default(),
            parked: VecDeque::new(),
            end: end.max(self.end),
            committed: Offset::ZERO,
        };
        let outcome = runtime.shard.on_loaded(now.time);
        let replies = runtime.carry_out(now, outcome, log);
        (runtime, replies)
    }
}

/// A shard that coordinates.
pub struct Runtime<S: Shard> {
    shard: S,
    timers: Timers<S::Timer>,
    parked: VecDeque<Parked<S>>,
    end: Offset,
    committed: Offset,
}

/// What waits for everything below `end` to be committed.
struct Parked<S: Shard> {
    end: Offset,
    replies: Vec<(ReplyTo, S::Reply)>,
    next: Option<S::Next>,
}

impl<S: Shard> fmt::Debug for Runtime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("end", &self.end)
            .field("committed", &self.committed)
            .field("parked", &self.parked.len())
            .finish_non_exhaustive()
    }
}

impl<S: Shard> Runtime<S> {
    #[must_use]
    pub const fn shard(&self) -> &S {
        &self.shard
    }

    /// When [`Runtime::on_time`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next_deadline()
    }

    #[must_use]
    pub fn query(&self, query: S::Query) -> S::Reply {
        self.shard.query(query)
    }

    pub fn request<L: Log<S::Record>>(
        &mut self,
        now: Now,
        to: ReplyTo,
        request: S::Request,
        log: &mut L,
    ) -> Replies<S::Reply> {
        let outcome = self.shard.handle(now.time, to, request);
        self.carry_out(now, outcome, log)
    }

    /// Runs the timers that are due.
    pub fn on_time<L: Log<S::Record>>(&mut self, now: Now, log: &mut L) -> Replies<S::Reply> {
        let mut replies = Vec::new();
        while let Some(timer) = self.timers.pop_due(now.monotonic) {
            let outcome = self.shard.on_timer(now.time, timer);
            replies.append(&mut self.carry_out(now, outcome, log));
        }
        replies
    }

    /// Everything below `end` is committed.
    pub fn on_committed<L: Log<S::Record>>(
        &mut self,
        now: Now,
        end: Offset,
        log: &mut L,
    ) -> Replies<S::Reply> {
        let mut replies = Vec::new();
        let end = end.min(self.end);
        if self.committed < end {
            self.committed = end;
            self.shard.committed(end);
        }
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.end <= end) {
            replies.extend(parked.replies.into_iter().map(|(to, reply)| (to, Ok(reply))));
            if let Some(next) = parked.next {
                let outcome = self.shard.on_committed(now.time, next);
                replies.append(&mut self.carry_out(now, outcome, log));
            }
        }
        replies
    }

    fn carry_out<L: Log<S::Record>>(
        &mut self,
        now: Now,
        mut outcome: Outcome<S>,
        log: &mut L,
    ) -> Replies<S::Reply> {
        outcome.timers.drain(..).for_each(|change| self.timers.change(now.monotonic, change));
        if !outcome.records.is_empty() {
            match log.append(&outcome.records, outcome.is_divisible) {
                Ok(offsets) => self.replay(offsets, &outcome.records),
                Err(error) => return self.refuse(now, outcome, told(error), log),
            }
        }
        let Outcome { replies, next, .. } = outcome;
        if replies.is_empty() && next.is_none() {
            return Vec::new();
        }
        self.parked.push_back(Parked { end: self.end, replies, next });
        self.on_committed(now, self.committed, log)
    }

    fn replay(&mut self, offsets: Range<Offset>, records: &[S::Record]) {
        let mut offset = offsets.start;
        for record in records {
            if offset == offsets.end {
                break;
            }
            self.shard.replay(offset, record);
            offset = offset.next();
        }
        assert_eq!(offset, offsets.end, "no more was appended than was given");
        self.shard.appended(offsets.end);
        self.end = offsets.end;
    }

    fn refuse<L: Log<S::Record>>(
        &mut self,
        now: Now,
        outcome: Outcome<S>,
        error: ErrorCode,
        log: &mut L,
    ) -> Replies<S::Reply> {
        let mut replies: Replies<S::Reply> =
            outcome.replies.into_iter().map(|(to, _)| (to, Err(error))).collect();
        if let Some(next) = outcome.next {
            let outcome = self.shard.on_refused(now.time, next, error);
            replies.append(&mut self.carry_out(now, outcome, log));
        }
        replies
    }
}

/// What clients are told when a coordinator's own records are not accepted: as in Kafka, codes that make them look
/// for the coordinator again where that can help.
fn told(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::REQUEST_TIMED_OUT => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => {
            ErrorCode::NOT_COORDINATOR
        }
        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::INVALID_FETCH_SIZE => ErrorCode::UNKNOWN_SERVER_ERROR,
        other => other,
    }
}
