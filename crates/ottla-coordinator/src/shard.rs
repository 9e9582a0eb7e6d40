//! What a coordinator's state machine and the runtime that runs it promise each other. Pure.
//!
//! The [runtime](crate::runtime) hands in requests, due timers and the news that records are committed. The machine answers with an
//! [`Outcome`]: records to append, replies, timers. Then, in this order:
//!
//! 1. The records are appended as one batch. If the log refuses them, nothing was changed by them: the replies of
//!    the outcome become errors, and [`Shard::on_refused`] is told.
//! 2. At once, while others have not seen them yet, they are replayed ([`Shard::replay`]): the next request is
//!    decided on a state that includes them. Deciding on committed state alone would let two requests in flight see
//!    the same state.
//! 3. The replies wait until those records — or, without records, all that were appended before — are committed:
//!    nobody is told of what a crash could take back. They do not wait for ever: after a time they become errors, as
//!    in Kafka, and [`Shard::on_overdue`] is told. Only what tells nothing of what is stored ([`Outcome::at_once`]) leaves
//!    as soon as the outcome's own records are appended.
//! 4. Then [`Shard::on_committed`] runs what was to follow.
//!
//! Timers, too, only produce outcomes. State that is stored changes only in `replay`; what a machine remembers beside
//! it (who waits for whom) is gone when the partition moves away, together with everybody who waited.

use std::fmt;

use bytes::Bytes;
use ottla_base::{ErrorCode, Offset, Timestamp};
use ottla_protocol::{DecodeError, EncodeError};

use crate::timers::TimerChange;

/// Who asked. The runtime knows whom it stands for; a machine only keeps it and gives it back, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// One partition's state machine.
pub trait Shard {
    /// What can be asked that is decided on the latest state.
    type Request;
    /// What can be asked of the committed state, and is answered at once.
    type Query;
    type Reply;
    type Record: StoredRecord;
    /// The name of a timer: setting it again moves it.
    type Timer: Clone + Ord;
    /// What follows when records are committed, as data.
    type Next;

    fn handle(
        &mut self,
        now: Timestamp,
        reply_to: ReplyTo,
        request: Self::Request,
    ) -> Outcome<Self>;

    /// The fewest bytes that the records of a request take, if any of them can be told before it is handled: what can't be
    /// stored is refused before it takes memory.
    fn records_bytes_min(&self, request: &Self::Request) -> usize;

    fn on_timer(&mut self, now: Timestamp, timer: Self::Timer) -> Outcome<Self>;

    /// The records that came with `next` are committed.
    fn on_committed(&mut self, now: Timestamp, next: Self::Next) -> Outcome<Self>;

    /// The records that came with `next` were not appended.
    fn on_refused(&mut self, now: Timestamp, next: Self::Next, error: ErrorCode) -> Outcome<Self>;

    /// The records that came with `next` were appended, and are not committed after a long time. They may be later.
    fn on_overdue(&mut self, now: Timestamp, next: Self::Next, error: ErrorCode) -> Outcome<Self>;

    /// Everything in the log was replayed: requests come from now on.
    fn on_loaded(&mut self, now: Timestamp) -> Outcome<Self>;

    /// Answers from what is committed.
    fn query(&self, query: Self::Query) -> Self::Reply;

    /// Takes a record into the state.
    fn replay(&mut self, offset: Offset, record: &Self::Record);

    /// Everything below this offset was appended and replayed.
    fn appended(&mut self, end: Offset);

    /// Everything below this offset is committed.
    fn committed(&mut self, end: Offset);
}

/// A record in the form that it has in the log.
pub trait StoredRecord: Sized {
    /// The key, and the value or `None` where the key is deleted.
    ///
    /// # Errors
    /// For what the record's version cannot say.
    fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError>;

    /// `None` for a kind of record that this release does not know: a newer one wrote it.
    ///
    /// # Errors
    /// For bytes that are no record.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self>, DecodeError>;
}

/// What came of one event. See the module's text for what is done with it, and when.
pub struct Outcome<S: Shard + ?Sized> {
    pub records: Vec<S::Record>,
    /// Whether the records may be spread over several batches: each of them stands for itself, and nobody waits for them. If
    /// [`Shard::on_refused`] is told, some of them may have been stored.
    pub is_divisible: bool,
    pub replies: Vec<(ReplyTo, S::Reply)>,
    /// Replies that no crash can make untrue: they tell nothing of what is stored.
    pub at_once: Vec<(ReplyTo, S::Reply)>,
    pub timers: Vec<TimerChange<S::Timer>>,
    pub next: Option<S::Next>,
}

impl<S: Shard + ?Sized> Default for Outcome<S> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            is_divisible: false,
            replies: Vec::new(),
            at_once: Vec::new(),
            timers: Vec::new(),
            next: None,
        }
    }
}

impl<S: Shard + ?Sized> fmt::Debug for Outcome<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("records", &self.records.len())
            .field("replies", &self.replies.len())
            .field("at_once", &self.at_once.len())
            .field("timers", &self.timers.len())
            .field("next", &self.next.is_some())
            .finish_non_exhaustive()
    }
}
