//! A cluster of brokers, and whoever uses it: one seed decides what is done, and what goes wrong.
//!
//! The brokers' replicas, their logs and the controller's decisions are the real ones; the network, the disks, the clocks
//! and the processes are played. The metadata log is taken to be linearizable: whoever is the active controller appends to
//! it at once, and everybody reads the same. The quorum that makes it so is not played here.
//!
//! Groups' coordinators are real as well, on the logs of their partitions; their members are played.
//!
//! The laws are in [`laws`] and [`group_laws`]. Two runs of a seed do the same: no threads, no real clock, and the work, the faults, the
//! network, the disks and the logs draw from a stream each.

mod clients;
mod controller;
mod coordinating;
mod dispatch;
mod faults;
mod group_laws;
mod healing;
mod laws;
mod members;
mod network;
mod node;
mod publish;
mod serving;
mod world;

use crate::law::{Run, caught};
pub use world::World;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What a follower has fetched counts as what it has on disk: acks=all is answered before the flush.
    AnsweredBeforeFlush,
    /// A leader forgets whom it has proposed to join.
    JoinerNotCounted,
    /// A leader goes by a smaller ISR before the controller has agreed.
    LeaverNotAwaited,
    /// Nobody compares epochs, so that no log is cut off.
    NoTruncation,
    /// Of the epoch of a follower that it does not know, a leader says that it ends where the one before it does (KIP-279).
    EndOfAnotherEpoch,
    /// The controller takes an ISR from whoever led once.
    StaleLeaderAccepted,
    /// A broker comes back with an empty disk under the old disk's name.
    WipedDiskCounted,
    /// A broker that was killed says that it ended cleanly.
    UncleanEndHidden,
    /// A process that starts follows metadata that is older than its logs.
    MetadataReplayed,
    /// A leader goes by an ISR before the `min.insync.replicas` beside it.
    IsrBeforeMinimum,
    /// A coordinator answers before what it has stored is committed.
    CommitNotAwaited,
    /// A coordinator that leads no longer goes by the high watermark of whoever it follows.
    FollowersWatermark,
    /// What a partition is read for ends at its high watermark, not at its end.
    LoadEndsEarly,
    /// A coordinator does not end when its node leads no longer.
    CoordinatorNotPutDown,
}

/// Plays a seed to its end, or to the first violation. A panic is one.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Run {
    let mut world = World::new(seed, bug, traced);
    let result = caught(|| world.play());
    let (counts, trace) = world.told();
    Run { counts, trace, result }
}
