//! The controllers' quorum: openraft above a Kafka log, and the controller that decides through it. Shell.
//!
//! [`Quorum`] is the handle. Behind it, a request meets, in this order: the controller (`controller`), which
//! decides on an image that includes everything appended so far; openraft; the log (`storage`), on which one
//! openraft entry is one record batch; and, once the entry is committed, the state machine (`state_machine`), which
//! applies it to the image that everybody sees, tells the [`Publisher`] and releases the reply.
//!
//! Invariants:
//!
//! - Nothing is committed that this node's own log has not on disk.
//! - A reply is released after its records are on disk, applied and published.
//! - A decision made in one leader epoch is appended in no other.
//! - No type of openraft's reaches the disk: `storage::format` is the whole of it.
//!
//! Absent: snapshots, and the transport between several voters.

#[cfg(test)]
extern crate self as ottla_quorum;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod controller;
mod network;
mod publisher;
mod quorum;
mod raft;
mod state_machine;
mod storage;

pub use controller::{Desk, SubmitError};
pub use publisher::Publisher;
pub use quorum::{Config, Dependencies, Member, Metrics, Quorum, StartError};
