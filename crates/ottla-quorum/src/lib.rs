//! The controllers' quorum: openraft above a Kafka log, and the controller that decides through it. Shell.
//!
//! [`Quorum`] is the handle. Behind it, a request meets, in this order: the controller (`controller`), which
//! decides on an image that includes everything appended so far; openraft; the log (`storage`), on which one
//! openraft entry is one record batch; and, once the entry is committed, the state machine (`state_machine`), which
//! applies it to the image that everybody sees, tells the [`Publisher`] and releases the reply.
//!
//! Invariants:
//!
//! - Nothing is committed that a majority of the voters has not on disk.
//! - A reply is released after its records are on a majority's disks, applied and published here.
//! - A decision made in one leader epoch is appended in no other.
//! - No type of openraft's reaches the disk: `storage::format` is the whole of it.
//!
//! Voters reach each other through a [`Transport`], which somebody else provides (`network`, `wire`, `service`).
//!
//! The log does not grow for ever: `snapshot` keeps images beside it, and lets go of what is before them.
//!
//! Nodes that have no vote follow the log all the same (`observers`), and become voters when that is asked for
//! (`quorum::changes`).

#[cfg(test)]
extern crate self as ottla_quorum;

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod controller;
mod members;
mod network;
mod observers;
mod publisher;
mod quorum;
mod raft;
mod refusals;
mod runtime;
mod service;
mod snapshot;
mod standstill;
mod state_machine;
mod storage;
mod transport;
mod wire;
mod workers;

pub use controller::{Desk, Leader, SubmitError};
pub use publisher::Publisher;
pub use quorum::{
    Config, Dependencies, InitialVoter, Member, Metrics, Quorum, StartError, Timing,
    VoterChangeError, VoterState,
};
pub use runtime::draw_lots_from;
pub use service::ServeError;
pub use snapshot::policy::SnapshotLimits;
pub use standstill::Standstill;
pub use storage::begun::BEGUN_NAME;
pub use storage::room::{RESERVE_NAME, give_up_reserve};
pub use transport::{Called, Lane, NoTransport, Transport};
pub use wire::{sender_of, vote_given};
pub use workers::{InOrder, Threads, Work, Workers};
