//! What a run of records changed, so that a broker touches only that. Pure.
//!
//! A delta names things; what they are now stands in the image that it led to, what they were in the one that it began
//! with. Invariants:
//! a topic is never in both `created` and `deleted`; `changed` holds no partition of either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{BrokerId, PartitionIndex, TopicId};

/// What a configuration belongs to, under the type code of Kafka's protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    pub kind: i8,
    /// The topic's name, the broker's id in digits, or nothing for the default of all brokers.
    pub name: Arc<str>,
}

impl ConfigResource {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    /// Levels of log lines, which are not kept.
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
    pub const KINDS: [i8; 5] =
        [Self::TOPIC, Self::BROKER, Self::BROKER_LOGGER, Self::CLIENT_METRICS, Self::GROUP];

    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self { kind: Self::TOPIC, name: name.into() }
    }

    pub fn group(name: impl Into<Arc<str>>) -> Self {
        Self { kind: Self::GROUP, name: name.into() }
    }

    pub fn broker(id: BrokerId) -> Self {
        Self { kind: Self::BROKER, name: id.to_string().into() }
    }

    #[must_use]
    pub fn default_broker() -> Self {
        Self { kind: Self::BROKER, name: "".into() }
    }
}

/// The difference between two images, gathered while records were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    pub created: BTreeSet<TopicId>,
    /// And their names. Who held their partitions stands in the image before: in the one that they were deleted from,
    /// they may have been held elsewhere already.
    pub deleted: BTreeMap<TopicId, Arc<str>>,
    /// Partitions, changed or added, of topics that were there before.
    pub changed: BTreeSet<(TopicId, PartitionIndex)>,
    pub configs: BTreeSet<ConfigResource>,
    pub brokers: BTreeSet<BrokerId>,
    pub controllers: BTreeSet<i32>,
    pub features: BTreeSet<Arc<str>>,
    pub producer_ids: bool,
}

impl Delta {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn topic_created(&mut self, id: TopicId) {
        self.created.insert(id);
    }

    pub(crate) fn topic_deleted(&mut self, id: TopicId, name: Arc<str>) {
        self.changed.retain(|(topic, _)| *topic != id);
        if !self.created.remove(&id) {
            self.deleted.insert(id, name);
        }
    }

    pub(crate) fn partition_changed(&mut self, topic: TopicId, partition: PartitionIndex) {
        if !self.created.contains(&topic) {
            self.changed.insert((topic, partition));
        }
    }
}
