//! The whole cluster at one point of the metadata log. Pure.
//!
//! Cloning is cheap, and applying a record copies only the path to what it changes: all maps
//! share their structure. State changes only by [`Image::apply`].
//!
//! Invariants, [`Image::check`]ed in tests:
//!
//! - `topic_by_name(t.name).id == t.id` for every topic, and there are no other names.
//! - A configuration map that is kept is not empty.
//! - A log directory belongs to one broker.

mod cluster;
mod difference;
mod records;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ottla_base::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId};

pub(crate) use cluster::UNKNOWN_EPOCH;
pub use cluster::{Broker, Controller, Endpoint};
pub use topics::{LeaderTold, Partition, Topic};

use crate::delta::{ConfigResource, Delta};
use crate::feature::{self, SupportedLevels};
use ottla_protocol::records::{ConfigRecord, FeatureLevelRecord, MetadataRecord};

/// A record that contradicts the image: the log is not the one that led to the image, or is corrupt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(
        "{record} is not acted on by this version, and to pass it over would lose it: a later one wrote this log, or Apache \
         Kafka, whose topics `ottla topic adopt` takes over"
    )]
    Unsupported { record: &'static str },
    #[error("{record}: there is no topic with id {id}")]
    NoTopic { record: &'static str, id: TopicId },
    #[error("{record}: topic {topic} has no partition {partition}")]
    NoPartition { record: &'static str, topic: Arc<str>, partition: i32 },
    #[error("TopicRecord: topic {name} exists already")]
    TopicExists { name: Arc<str> },
    #[error("{record}: broker {broker} is not registered with epoch {epoch}")]
    NoBroker { record: &'static str, broker: BrokerId, epoch: i64 },
    #[error(
        "feature {name} is at level {level}, and this version understands {min} to {max}: a later one wrote this log"
    )]
    Feature { name: Arc<str>, level: i16, min: i16, max: i16 },
    #[error("{record}: there is no topic called {name}")]
    NoSuchName { record: &'static str, name: Arc<str> },
    #[error("{record}: field {field} cannot be {value}")]
    Value { record: &'static str, field: &'static str, value: i64 },
}

/// The cluster's state after a prefix of the metadata log.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub cluster_id: Arc<str>,
    /// The last record applied, −1 before the first; also the epoch of the finalized features.
    pub offset: Offset,
    /// The leader epoch of that record.
    pub epoch: LeaderEpoch,
    features: OrdMap<Arc<str>, i16>,
    topics: OrdMap<TopicId, Topic>,
    topic_ids: OrdMap<Arc<str>, TopicId>,
    /// Names by [`collision_key`](crate::topic_name::collision_key).
    collisions: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    configs: OrdMap<ConfigResource, OrdMap<Arc<str>, Arc<str>>>,
    brokers: OrdMap<BrokerId, Arc<Broker>>,
    controllers: OrdMap<i32, Arc<Controller>>,
    next_producer_id: ProducerId,
}

impl Image {
    /// The state before any record.
    pub fn new(cluster_id: impl Into<Arc<str>>) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            offset: Offset(-1),
            epoch: LeaderEpoch(-1),
            features: OrdMap::new(),
            topics: OrdMap::new(),
            topic_ids: OrdMap::new(),
            collisions: OrdMap::new(),
            configs: OrdMap::new(),
            brokers: OrdMap::new(),
            controllers: OrdMap::new(),
            next_producer_id: ProducerId(0),
        }
    }

    /// The finalized levels by feature; a level of 0 is not kept.
    pub fn features(&self) -> impl Iterator<Item = (&str, i16)> {
        self.features.iter().map(|(name, level)| (&**name, *level))
    }

    #[must_use]
    pub fn feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }

    /// Whether partitions remember who may lead them from outside their ISR (KIP-966).
    #[must_use]
    pub fn has_eligible_leader_replicas(&self) -> bool {
        self.feature(feature::ELIGIBLE_LEADER_REPLICAS).is_some_and(|level| level >= 1)
    }

    /// Whether the cluster was formatted: nothing may be decided before.
    #[must_use]
    pub fn is_formatted(&self) -> bool {
        self.feature(feature::METADATA_VERSION).is_some()
    }

    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    #[must_use]
    pub fn topic_by_name(&self, name: &str) -> Option<&Topic> {
        self.topic_ids.get(name).and_then(|id| self.topics.get(id))
    }

    /// All topics, ordered by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topic_ids.values().filter_map(|id| self.topics.get(id))
    }

    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    #[must_use]
    pub fn partition(&self, topic: TopicId, partition: PartitionIndex) -> Option<&Partition> {
        self.topic(topic)?.partition(partition)
    }

    /// A topic whose metrics would be those of a topic called `name`.
    #[must_use]
    pub fn colliding_topic(&self, name: &str) -> Option<&str> {
        let key = crate::topic_name::collision_key(name)?;
        self.collisions.get(&*key)?.iter().next().map(|name| &**name)
    }

    /// What was set for the resource itself, ordered by key; defaults are not in here.
    pub fn config(&self, resource: &ConfigResource) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.configs.get(resource).into_iter().flat_map(OrdMap::iter);
        entries.map(|(key, value)| (&**key, &**value))
    }

    /// What was set for the resource itself under this key.
    #[must_use]
    pub fn config_value(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.configs.get(resource)?.get(key).map(|value| &**value)
    }

    /// The resources for which anything was set.
    pub fn config_resources(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id).map(|broker| &**broker)
    }

    /// All registered brokers, fenced ones included, ordered by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().map(|broker| &**broker)
    }

    /// Whether a broker is active and has the log directory of its replica: it can lead then, whatever data it has.
    #[must_use]
    pub fn has_usable_replica(&self, partition: &Partition, id: BrokerId) -> bool {
        let directory = partition.directory_of(id);
        let has = |broker: &Broker| directory.is_some_and(|it| broker.has_online(it));
        self.broker(id).is_some_and(|broker| broker.is_active() && has(broker))
    }

    /// The registered controllers, ordered by id.
    pub fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.controllers.values().map(|controller| &**controller)
    }

    /// The first producer id that no block has been handed out for.
    #[must_use]
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// Applies the next record of the log.
    ///
    /// # Errors
    /// [`ApplyError`]: the log is another one, damaged, or a later version's. Nothing has changed then.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        self.apply_into(record, &mut Delta::default())
    }

    /// Applies the next record of the log, and notes in `delta` what it changed.
    ///
    /// # Errors
    /// As [`Image::apply`].
    pub fn apply_into(
        &mut self,
        record: &MetadataRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        use MetadataRecord as Record;
        match record {
            Record::FeatureLevel(record) => self.apply_feature_level(record, delta)?,
            Record::Topic(record) => self.apply_topic(record, delta)?,
            Record::RemoveTopic(record) => self.apply_remove_topic(record, delta)?,
            Record::Partition(record) => self.apply_partition(record, delta)?,
            Record::PartitionChange(record) => self.apply_partition_change(record, delta)?,
            Record::ClearElr(record) => self.apply_clear_elr(record, delta)?,
            Record::Config(record) => self.apply_config(record, delta),
            Record::RegisterBroker(record) => self.apply_register_broker(record, delta),
            Record::UnregisterBroker(record) => self.apply_unregister_broker(record, delta)?,
            Record::FenceBroker(record) => {
                self.apply_fencing("FenceBrokerRecord", record.id, record.epoch, true, delta)?;
            }
            Record::UnfenceBroker(record) => {
                self.apply_fencing("UnfenceBrokerRecord", record.id, record.epoch, false, delta)?;
            }
            Record::BrokerRegistrationChange(record) => {
                self.apply_broker_registration_change(record, delta)?;
            }
            Record::RegisterController(record) => self.apply_register_controller(record, delta),
            Record::ProducerIds(record) => {
                self.next_producer_id = ProducerId(record.next_producer_id);
                delta.producer_ids = true;
            }
            Record::NoOp(_) => {}
            Record::DelegationToken(_)
            | Record::RemoveDelegationToken(_)
            | Record::UserScramCredential(_)
            | Record::RemoveUserScramCredential(_)
            | Record::ClientQuota(_)
            | Record::AccessControlEntry(_)
            | Record::RemoveAccessControlEntry(_)
            | Record::ZkMigrationState(_)
            | Record::BeginTransaction(_)
            | Record::EndTransaction(_)
            | Record::AbortTransaction(_) => {
                return Err(ApplyError::Unsupported { record: record.name() });
            }
        }
        Ok(())
    }

    /// A level that is not understood says that what follows is not either.
    fn apply_feature_level(
        &mut self,
        record: &FeatureLevelRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let name: Arc<str> = (*record.name).into();
        let (level, levels) = (record.feature_level, feature::levels_of(&name));
        if level != 0 && !levels.contains(level) {
            let SupportedLevels { min, max } = levels;
            return Err(ApplyError::Feature { name, level, min, max });
        }
        delta.features.insert(Arc::clone(&name));
        if record.feature_level == 0 {
            self.features.remove(&name);
        } else {
            self.features.insert(name, record.feature_level);
        }
        Ok(())
    }

    fn apply_config(&mut self, record: &ConfigRecord, delta: &mut Delta) {
        let resource =
            ConfigResource { kind: record.resource_type, name: (*record.resource_name).into() };
        let mut entries = self.configs.get(&resource).cloned().unwrap_or_default();
        match &record.value {
            Some(value) => {
                entries.insert((*record.name).into(), (**value).into());
            }
            None => {
                entries.remove(&*record.name);
            }
        }
        self.put_config(&resource, entries);
        delta.configs.insert(resource);
    }

    fn put_config(&mut self, resource: &ConfigResource, entries: OrdMap<Arc<str>, Arc<str>>) {
        if entries.is_empty() {
            self.configs.remove(resource);
        } else {
            self.configs.insert(resource.clone(), entries);
        }
    }

    /// Panics where an invariant does not hold. Walks over everything: for tests.
    pub fn check(&self) {
        assert_eq!(self.topics.len(), self.topic_ids.len());
        for topic in self.topics.values() {
            assert_eq!(self.topic_ids.get(&topic.name), Some(&topic.id));
        }
        assert!(self.configs.values().all(|entries| !entries.is_empty()));
        let directories = self.brokers().flat_map(|broker| &broker.directories);
        let mut directories: Vec<_> = directories.collect();
        let all = directories.len();
        directories.sort();
        directories.dedup();
        assert_eq!(directories.len(), all, "a directory belongs to two brokers");
    }
}
