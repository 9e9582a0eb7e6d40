//! Identifiers, units and error codes that every room shares. Pure: no I/O, no clock.

mod error_code;
mod ids;
mod uuid;

pub use error_code::ErrorCode;
pub use ids::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicPartition,
};
pub use uuid::{ParseUuidError, TopicId, Uuid};
