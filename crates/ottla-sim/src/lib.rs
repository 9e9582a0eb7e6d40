//! Worlds in which everything goes wrong, each from one seed: a disk, the log on it, and a cluster of brokers with
//! such logs.
//! For tests only.
//!
//! What is absent: threads, the real clock and the system's random numbers. Two runs of a seed do the same.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm,
    reason = "a simulation stops at what it does not expect, and its numbers are small"
)]

pub mod cluster;
mod counts;
pub mod disk;
mod law;
mod links;
pub mod log;
pub mod planted;
pub mod quorum;
mod random;
pub mod seeds;

pub use counts::Counts;
pub use disk::{Plan, SimulatedDisk};
pub use law::{Law, Run, Violation};
pub use random::{Random, SharedRandom};
