//! Runs a [`Shard`] on its partition of the log: appends, replays, parks replies until they are safe. Pure: the log
//! is behind [`Log`], time is an argument.
//!
//! Invariants:
//! - `committed <= end`; replies are parked in the order of the offsets that they wait for, all above `committed`
//! - a record is replayed exactly once, right after it was appended, before anything else is decided
//! - each [`ReplyTo`] that was handed in is given back at most once
//! - nothing is parked for longer than the time that storing may take
//! - everything below `end` was replayed; once somebody else has written to the log, nothing is appended any more

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
    /// How many of these records, from the first on, make a batch of a sensible size; at least one.
    fn fitting(&self, records: &[R]) -> usize;

    /// No batch takes more bytes before it is compressed.
    fn bytes_max(&self) -> usize;

    /// Appends records as one batch, all or none. Returns their offsets, which follow one another.
    ///
    /// # Errors
    /// The produce error, when nothing was appended.
    fn append(&mut self, records: &[R]) -> Result<Range<Offset>, ErrorCode>;

    /// Records that nobody waits for were refused: only here can that be said.
    fn note_refused(&self, _error: ErrorCode) {}
}

/// Replies that may go out: an answer, or why there is none.
pub type Replies<R> = Vec<(ReplyTo, Result<R, ErrorCode>)>;

/// A shard whose partition is still being read.
///
/// What was committed when the reading began is shown as soon as it is over, though the log goes on beyond it: nobody is told
/// that a group has committed nothing because what it committed last is not on enough disks yet.
///
/// Invariants:
/// - `kept <= end`; the shard was told of everything below `kept` that it was appended
#[derive(Debug)]
pub struct Loading<S> {
    shard: S,
    /// Of the batch that is being read.
    end: Offset,
    kept: Offset,
    store_timeout: Duration,
}

/// Of so many offsets beyond the high watermark one may be shown late. Kafka shows none late, but keeps no copies: to keep
/// one for each batch of a log whose high watermark is lost would take more memory than there is.
const OFFSETS_PER_LATE_ONE: i64 = 1_000;

impl<S: Shard> Loading<S> {
    /// The log begins at `start`. `store_timeout` is how long anybody waits for what must be stored
    /// (`offsets.commit.timeout.ms`).
    #[must_use]
    pub const fn new(shard: S, start: Offset, store_timeout: Duration) -> Self {
        Self { shard, end: start, kept: start, store_timeout }
    }

    /// The batch before is read, and the next one, which ends before `end`, will be. Everything below `high_watermark` is
    /// committed by now.
    pub fn next_batch(&mut self, end: Offset, high_watermark: Offset) {
        let before = self.end;
        let is_uncommitted = before > high_watermark;
        let has_more_committed = end <= high_watermark;
        let is_due = before - self.kept > (before - high_watermark) / OFFSETS_PER_LATE_ONE;
        if !has_more_committed && (!is_uncommitted || is_due) {
            self.keep();
            self.shard.committed(high_watermark.min(before));
        }
        self.end = end;
    }

    /// Takes in the next record of the batch.
    pub fn replay(&mut self, offset: Offset, record: &S::Record) {
        debug_assert!(offset < self.end, "a record is in a batch");
        self.shard.replay(offset, record);
    }

    /// What was read so far can be shown as soon as it is committed.
    fn keep(&mut self) {
        if self.kept < self.end {
            self.shard.appended(self.end);
            self.kept = self.end;
        }
    }

    /// The last batch was read. How much is committed, [`Runtime::on_committed`] is told. Should the log go on by now, that is
    /// noticed with the first append.
    pub fn finish<L: Log<S::Record>>(mut self, now: Now, log: &mut L) -> Runtime<S> {
        self.keep();
        let mut runtime = Runtime {
            shard: self.shard,
            store_timeout: self.store_timeout,
            timers: Timers::default(),
            parked: VecDeque::new(),
            end: self.end,
            committed: Offset::ZERO,
            is_out_of_step: false,
        };
        let outcome = runtime.shard.on_loaded(now.time);
        let mut given = Vec::new();
        runtime.carry_out(now, outcome, log, &mut given);
        assert!(given.is_empty(), "nobody has asked yet");
        runtime
    }
}

/// A shard that coordinates.
pub struct Runtime<S: Shard> {
    shard: S,
    store_timeout: Duration,
    timers: Timers<S::Timer>,
    parked: VecDeque<Parked<S>>,
    end: Offset,
    committed: Offset,
    is_out_of_step: bool,
}

/// What waits for everything below `end` to be committed.
struct Parked<S: Shard> {
    end: Offset,
    deadline: Duration,
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

    /// Whether the log has records that were never replayed here, as somebody else has written to it: it must be read anew.
    #[must_use]
    pub const fn is_out_of_step(&self) -> bool {
        self.is_out_of_step
    }

    /// When [`Runtime::on_time`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let overdue = self.parked.front().map(|parked| parked.deadline);
        self.timers.next_deadline().into_iter().chain(overdue).min()
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
        if self.shard.records_bytes_min(&request) > log.bytes_max() {
            return vec![(to, Err(told(ErrorCode::MESSAGE_TOO_LARGE)))];
        }
        let mut given = Vec::new();
        let outcome = self.shard.handle(now.time, to, request);
        self.carry_out(now, outcome, log, &mut given);
        self.release(now, log, &mut given);
        given
    }

    /// Runs the timers that are due, and gives up on what is not stored in time.
    pub fn on_time<L: Log<S::Record>>(&mut self, now: Now, log: &mut L) -> Replies<S::Reply> {
        let mut given = Vec::new();
        while let Some(timer) = self.timers.pop_due(now.monotonic) {
            let outcome = self.shard.on_timer(now.time, timer);
            self.carry_out(now, outcome, log, &mut given);
        }
        let is_over = |parked: &mut Parked<S>| parked.deadline <= now.monotonic;
        while let Some(parked) = self.parked.pop_front_if(is_over) {
            let error = told(ErrorCode::REQUEST_TIMED_OUT);
            given.extend(parked.replies.into_iter().map(|(to, _)| (to, Err(error))));
            if let Some(next) = parked.next {
                let outcome = self.shard.on_overdue(now.time, next, error);
                self.tell(now, outcome, log, &mut given);
            }
        }
        self.release(now, log, &mut given);
        given
    }

    /// Everything below `end` is committed.
    pub fn on_committed<L: Log<S::Record>>(
        &mut self,
        now: Now,
        end: Offset,
        log: &mut L,
    ) -> Replies<S::Reply> {
        let mut given = Vec::new();
        let end = end.min(self.end);
        if self.committed < end {
            self.committed = end;
            self.shard.committed(end);
        }
        self.release(now, log, &mut given);
        given
    }

    /// Gives the replies whose time has come, and goes on with what follows, which may park more.
    fn release<L: Log<S::Record>>(&mut self, now: Now, log: &mut L, given: &mut Replies<S::Reply>) {
        let committed = self.committed;
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.end <= committed) {
            given.extend(parked.replies.into_iter().map(|(to, reply)| (to, Ok(reply))));
            if let Some(next) = parked.next {
                let outcome = self.shard.on_committed(now.time, next);
                self.carry_out(now, outcome, log, given);
            }
        }
    }

    /// Sets timers, appends and replays records, parks replies.
    fn carry_out<L: Log<S::Record>>(
        &mut self,
        now: Now,
        mut outcome: Outcome<S>,
        log: &mut L,
        given: &mut Replies<S::Reply>,
    ) {
        outcome.timers.drain(..).for_each(|change| self.timers.change(now.monotonic, change));
        let stored = if outcome.is_divisible {
            self.store_in_parts(&outcome.records, log)
        } else {
            self.store(&outcome.records, log)
        };
        if let Err(error) = stored {
            return self.refuse(now, outcome, told(error), log, given);
        }
        let Outcome { replies, at_once, next, .. } = outcome;
        given.extend(at_once.into_iter().map(|(to, reply)| (to, Ok(reply))));
        if !replies.is_empty() || next.is_some() {
            let deadline = now.monotonic.saturating_add(self.store_timeout);
            self.parked.push_back(Parked { end: self.end, deadline, replies, next });
        }
    }

    fn store<L: Log<S::Record>>(
        &mut self,
        records: &[S::Record],
        log: &mut L,
    ) -> Result<(), ErrorCode> {
        if records.is_empty() {
            return Ok(());
        }
        if self.is_out_of_step {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        let offsets = log.append(records)?;
        if offsets.start != self.end {
            // They are in the log, and whoever reads it anew finds them.
            self.is_out_of_step = true;
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        let mut offset = offsets.start;
        for record in records {
            self.shard.replay(offset, record);
            offset = offset.next();
        }
        debug_assert_eq!(offset, offsets.end, "each record has an offset");
        self.shard.appended(offsets.end);
        self.end = offsets.end;
        Ok(())
    }

    /// Each record stands for itself: those that were stored stay if others can't be.
    fn store_in_parts<L: Log<S::Record>>(
        &mut self,
        mut records: &[S::Record],
        log: &mut L,
    ) -> Result<(), ErrorCode> {
        while !records.is_empty() {
            let count = log.fitting(records).clamp(1, records.len());
            let (part, rest) = records.split_at(count);
            self.store(part, log)?;
            records = rest;
        }
        Ok(())
    }

    fn refuse<L: Log<S::Record>>(
        &mut self,
        now: Now,
        outcome: Outcome<S>,
        error: ErrorCode,
        log: &mut L,
        given: &mut Replies<S::Reply>,
    ) {
        if outcome.is_divisible {
            log.note_refused(error);
        }
        let replies = outcome.replies.into_iter().chain(outcome.at_once);
        given.extend(replies.map(|(to, _)| (to, Err(error))));
        if let Some(next) = outcome.next {
            let outcome = self.shard.on_refused(now.time, next, error);
            self.tell(now, outcome, log, given);
        }
    }

    /// Like [`Self::carry_out`], but the replies, which tell of a failure, go out at once.
    fn tell<L: Log<S::Record>>(
        &mut self,
        now: Now,
        mut outcome: Outcome<S>,
        log: &mut L,
        given: &mut Replies<S::Reply>,
    ) {
        given.extend(outcome.replies.drain(..).map(|(to, reply)| (to, Ok(reply))));
        self.carry_out(now, outcome, log, given);
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
