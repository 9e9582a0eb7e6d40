//! One partition's replication: what its leader knows of its replicas, what readers may see, and how a follower comes to
//! hold what its leader holds. Pure.
//!
//! A partition with one replica goes through the same rules as one with three. The rules are told in
//! `docs/replication.md`.

pub mod follower;
mod progress;
mod reading;
mod throttle;

pub use follower::Follower;
pub use progress::{
    Command, CommittedIsr, DOUBT, FetchRefusal, FetchStanding, Fetched, FollowerFlushed, IsrMember,
    Leadership, Progress, Proposal, ProposalId, UNKNOWN_BROKER_EPOCH,
};
pub use reading::{Readable, nearest};
pub use throttle::{Rate, Throttled, Windows};
