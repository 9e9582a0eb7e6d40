//! A log directory on a simulated disk, and whoever uses it: one seed decides what is done, and what goes wrong.
//!
//! Everything is done to the real `ottla-log` and to a [`Model`](model::Model) beside it. The disk stops the process at any of its
//! calls, loses what was not synced, fails calls, turns bits; then the directory is opened again, and must hold what it
//! has promised. The laws are in [`model`]; each is checked after every start, and what is alive every few steps.
//!
//! Two runs of a seed make the same calls: no threads, no real clock, and the faults, the work and the log itself draw
//! from a stream each.

mod appends;
pub(crate) mod batches;
mod checks;
mod cleaning;
mod compaction;
mod flips;
pub mod model;
mod trims;
mod world;

use crate::law::{Run, caught};
use crate::planted::Bug;
pub use world::World;

/// Plays a seed to its end, or to the first violation. A panic is one.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Run {
    let mut world = World::new(seed, bug);
    if traced {
        world.disk().start_trace();
    }
    let result = caught(|| world.play());
    Run { counts: world.disk().counts(), trace: world.disk().take_trace(), result }
}
