//! Controllers that elect each other and decide: one seed decides what is asked of them, and what goes wrong.
//!
//! The voters are the real ones: `ottla-quorum` with openraft, and their logs, votes and snapshots on simulated disks. The
//! network, the disks, the clocks and the processes are played. There is one thread; tokio's clock stands still until
//! everybody waits, and then goes on to whatever comes first. The faults, the work, the network, the disks and the lots that
//! openraft draws each have a stream of their own. Two runs of a seed do the same.
//!
//! The laws are in [`history`]; once everything is healed, all nodes must come to have the same log, byte by byte.

mod faults;
pub mod history;
mod network;
mod node;
mod workers;
mod world;

use crate::law::{Run, caught};
use crate::planted;
use world::World;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Something is left out on the way to the disk.
    Disk(planted::Bug),
    /// A voter comes back with an empty disk under the old disk's name, and begins the log as it did at first.
    WipedDiskCounted,
    /// A controller that is cut off goes on to answer: who sends a message that is lost is told what was answered to it when it
    /// was sent before, so that heartbeats confirm what they were not sent for.
    AnswersRemembered,
}

/// Plays a seed to its end, or to the first violation. A panic is one.
///
/// # Panics
/// Where tokio does not start.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Run {
    // A simulated disk keeps what was ever in it open, and a vote is a new file each time.
    ottla_env::sys::raise_open_file_limit().unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    ottla_quorum::draw_lots_from(seed);
    let _inside = runtime.enter();
    let mut world = World::new(seed, bug, traced);
    let result = caught(|| runtime.block_on(world.play()));
    let (counts, trace) = world.end();
    Run { counts, trace, result }
}
