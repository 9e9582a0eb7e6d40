//! Identifiers, units and error codes that every room shares. Pure: no I/O, no clock.

mod error_code;
mod hash;
mod ids;
mod random;
mod uuid;

pub use error_code::ErrorCode;
pub use hash::java_hash_code;
pub use ids::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicPartition,
};
pub use random::SplitMix64;
pub use uuid::{ParseUuidError, TopicId, Uuid};
