//! Kafka's identifiers and units as types of their own, so that an offset is never added to an epoch.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

identifier! {
    /// The position of a record in a partition's log, counted in records from 0; never a byte position.
    Offset(i64)
}
identifier! {
    /// The term of a partition's leadership; rises with each election. −1 means unknown.
    LeaderEpoch(i32)
}
identifier! {
    /// The number of a partition within its topic, from 0.
    PartitionIndex(i32)
}
identifier! {
    /// A node of the cluster (`node.id`). −1 means none.
    BrokerId(i32)
}
identifier! {
    /// An idempotent producer's id, handed out by the controller in blocks. −1 means none.
    ProducerId(i64)
}
identifier! {
    /// Milliseconds since 1970-01-01 UTC. −1 means none.
    Timestamp(i64)
}

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An offset and a count of records make an offset.
impl Add<i64> for Offset {
    type Output = Self;

    fn add(self, records: i64) -> Self {
        Self(self.0 + records)
    }
}

/// The number of offsets between two offsets.
impl Sub for Offset {
    type Output = i64;

    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

impl LeaderEpoch {
    /// What Kafka's protocol carries when the epoch is not known.
    pub const UNKNOWN: Self = Self(-1);
}

impl Timestamp {
    /// What Kafka's protocol carries when there is no timestamp.
    pub const NONE: Self = Self(-1);
}

impl BrokerId {
    /// What Kafka's protocol carries when there is no such broker.
    pub const NONE: Self = Self(-1);
}

/// One partition of a named topic; displayed as Kafka names its directory, `topic-0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: PartitionIndex,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition: PartitionIndex(partition) }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
