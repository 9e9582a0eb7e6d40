//! Groups: who is a member of which, in the classic protocol, and the offsets that groups commit. Pure.
//!
//! One [`GroupShard`] stands for one partition of `__consumer_offsets`, whose records are Kafka's. What is stored
//! there ([`Stored`]) is a function of the log. What only matters while this broker coordinates — who waits for whom
//! in a rebalance, session timeouts — is in a [`ClassicGroup`] beside it, and is made anew from what is stored when
//! the partition is loaded.
//!
//! Invariants:
//! - every group that is stored has a [`ClassicGroup`]
//! - a group that neither is stored nor will be by records under way has no [`ClassicGroup`]

mod classic;
mod names;
mod offsets;
mod request;
mod settings;
mod shard;
mod stored;
mod sweep;
mod turn;

pub use classic::{ClassicGroup, Rebalance};
pub use names::{group_partition, member_id};
pub use request::{
    Caller, CommitOffsets, DescribeGroups, FetchOffsets, JoinGroup, LeaveGroup, ListGroups, Next,
    Query, Reply, Request, StaticMemberReplaced, Timer, TopicDeleted,
};
pub use settings::Settings;
pub use shard::GroupShard;
pub use stored::{CommittedOffset, Stored};
pub use sweep::SweptPart;
