//! The laws that worlds are held to, by name, and how one is found broken. Pure.
//!
//! Each world says at its place what its laws mean: [`crate::log::model`], `cluster/laws.rs`, `cluster/group_laws.rs`,
//! `quorum/history.rs`. A planted bug is found only by a law that is stated for it: a panic, or a law that has nothing to do with it, shows
//! nothing of it.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::Counts;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    // Of every world.
    /// Nothing panics.
    NoPanic,
    /// What fails has a reason: a fault of the disk, a disk that is full, or a directory that is offline.
    Reason,
    /// What a log says that it has can be read, with right checksums.
    Readable,
    /// Once everything is healed, everything goes on.
    AtRest,

    // Of a log.
    /// An open log is exactly its model.
    OpenLog,
    /// Every batch is one that was offered at its very offset, and none is there twice.
    Offered,
    /// Leader epochs do not fall from batch to batch, and each begins where the one before it has ended, or later.
    Order,
    /// What was flushed is there after a crash, all of it.
    Flushed,
    /// A log starts no earlier than it was said to, and no later than it may have been about to.
    Start,
    /// Its producers are what its batches make of them.
    Producers,
    /// The epoch that is known for each batch is its own.
    KnownEpochs,
    /// Every entry of an index names a batch that is there, and times are found by them.
    Indexes,
    /// After a sync that failed the directory is offline.
    FailedSync,
    /// Compaction takes what it may, and leaves what it must.
    Compaction,
    /// A batch with a turned bit is never taken for a sound one, and recovery lets none pass.
    TurnedBit,

    // Of a cluster.
    /// In each leader epoch one process leads at most.
    OneLeader,
    /// A leader's high watermark never falls within its epoch.
    Watermark,
    /// Nothing is visible that its leader has not on disk.
    VisibleOnDisk,
    /// What was visible once is the same wherever it is visible.
    Committed,
    /// What was acknowledged with acks=all is committed where it was said to be.
    Acknowledged,
    /// Whoever is relied on (ISR, eligible leaders) has all that is committed, on disk.
    ReliedOn,
    /// Who leads without something that was committed has lost its power before.
    LostByPower,
    /// Of idempotent producers nothing is committed twice.
    Once,
    /// Whoever answers acks=all knows of as many in sync as `min.insync.replicas` asks for.
    Enough,
    /// Epochs rise, with each leader and each change.
    RisingEpochs,
    /// Whoever is elected may lead.
    CleanElection,
    /// Whoever leads is in the ISR.
    LeaderInSync,
    /// A process that starts is registered, once the one before it is over.
    Registered,
    /// At rest all replicas of a partition are the same.
    Equal,

    // Of groups.
    /// Whoever coordinates has each commit that was answered, or a later one.
    CommitKept,
    /// A coordinator answers only while nobody else has led since it has read its log.
    Coordinates,
    /// A coordinator's groups and offsets are those of its log.
    GroupsOfLog,
    /// Whoever asks for committed offsets hears what the log says below the high watermark.
    FetchedCommitted,
    /// Generations never fall, and commits are of the last one.
    Generations,
    /// All members of a generation have their parts of one assignment.
    OneAssignment,

    // Of a quorum.
    /// At each offset there is one state of the cluster, whoever publishes it.
    OneState,
    /// What a node publishes does not fall within a life.
    PublishedInOrder,
    /// Whatever a process has left, the next one starts from it, unless the disk fails.
    Starts,
    /// In an epoch at most one node is the active controller.
    OneActive,
    /// A decision is made on a state with all that was answered before it was asked for.
    Informed,
    /// What was answered is there at the end.
    AnswersKept,
    /// What a process has answered to whoever asked for its vote is on its disk when the next one starts.
    VoteKept,
    /// At rest all logs are the same, byte by byte.
    EqualLogs,
}

/// What was found to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub law: Law,
    pub text: String,
}

impl Violation {
    pub(crate) fn of(law: Law, text: impl Into<String>) -> Self {
        Self { law, text: text.into() }
    }

    /// Says where.
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        Self { text: format!("{place}: {}", self.text), ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.text)
    }
}

/// What could not be read, in words.
impl From<String> for Violation {
    fn from(text: String) -> Self {
        Self::of(Law::Readable, text)
    }
}

pub(crate) type Checked<T = ()> = Result<T, Violation>;

/// Fails with the name of a law and a message unless a condition holds.
macro_rules! law {
    ($law:ident, $holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err($crate::law::Violation::of($crate::law::Law::$law, format!($($message)+)));
        }
    };
}
pub(crate) use law;

/// Plays; a panic is a violation.
pub(crate) fn caught(play: impl FnOnce() -> Checked) -> Checked {
    panic::catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Err(Violation::of(Law::NoPanic, text))
    })
}

/// What one seed has shown.
#[derive(Debug)]
pub struct Run {
    pub counts: Counts,
    pub trace: Vec<String>,
    pub result: Result<(), Violation>,
}
