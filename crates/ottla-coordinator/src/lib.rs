//! Coordinators: each a state machine over one partition of an internal topic, rebuilt by replaying it. Pure.
//!
//! [`shard`] is the contract between such a machine and [`runtime`], which runs it; [`group`] is the first machine: consumer
//! groups of the classic protocol and the offsets that groups commit, in `__consumer_offsets`.
//!
//! Absent: the log, sockets, clocks and chance. Time and random identifiers come in as arguments; records, replies
//! and timers go out as data. Whether this broker leads a partition, too, is somebody else's to know.

pub mod group;
pub mod runtime;
pub mod shard;
pub mod timeline;
pub mod timers;

pub use runtime::{Loading, Log, Now, Replies, Runtime};
pub use shard::{Outcome, ReplyTo, Shard, StoredRecord};
pub use timeline::Timeline;
pub use timers::{TimerChange, Timers};
