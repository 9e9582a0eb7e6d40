//! An image as the records that make it from nothing: what a snapshot of the metadata log holds. Pure.
//!
//! The order is Kafka's: `metadata.version` and the other features, brokers, controllers, each topic with its
//! partitions, configurations, producer ids. Among equals it is that of their keys, so that equal images give equal
//! records.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{BrokerId, PartitionIndex, TopicId};
use ottla_protocol::records::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord,
    RegisterBrokerRecord, RegisterControllerRecord, TopicRecord, register_broker_record,
    register_controller_record,
};

use super::{Broker, Controller, Image, Partition, Topic};
use crate::feature::{self, SupportedLevels};

impl Image {
    /// Applied to an empty image of the same cluster, these make this one, but for its offset and epoch.
    pub fn records(&self) -> impl Iterator<Item = MetadataRecord> {
        let brokers = self.brokers().map(|broker| register_broker(broker).into());
        let controllers = self.controllers().map(|it| register_controller(it).into());
        self.feature_records()
            .chain(brokers)
            .chain(controllers)
            .chain(self.topics.values().flat_map(topic_records))
            .chain(self.config_records())
            .chain(self.producer_ids_record())
    }

    /// `metadata.version` comes first: a reader learns from it how to take the rest.
    fn feature_records(&self) -> impl Iterator<Item = MetadataRecord> {
        let is_version = |name: &str| name == feature::METADATA_VERSION;
        let first = self.features().filter(move |(name, _)| is_version(name));
        let others = self.features().filter(move |(name, _)| !is_version(name));
        first.chain(others).map(|(name, feature_level)| {
            FeatureLevelRecord { name: name.into(), feature_level }.into()
        })
    }

    fn config_records(&self) -> impl Iterator<Item = MetadataRecord> {
        self.configs.iter().flat_map(|(resource, entries)| {
            entries.iter().map(|(name, value)| {
                let record = ConfigRecord {
                    resource_type: resource.kind,
                    resource_name: text(&resource.name),
                    name: text(name),
                    value: Some(text(value)),
                };
                record.into()
            })
        })
    }

    /// Kafka names no broker here: nobody is given these ids yet.
    fn producer_ids_record(&self) -> Option<MetadataRecord> {
        let next_producer_id = self.next_producer_id.0;
        let record = ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id };
        (next_producer_id > 0).then(|| record.into())
    }
}

fn topic_records(topic: &Topic) -> impl Iterator<Item = MetadataRecord> {
    let record = TopicRecord { name: text(&topic.name), topic_id: topic.id };
    let partition =
        |(index, it): (PartitionIndex, &Partition)| partition_record(topic.id, index, it).into();
    std::iter::once(record.into()).chain(topic.partitions().map(partition))
}

fn partition_record(
    topic_id: TopicId,
    index: PartitionIndex,
    partition: &Partition,
) -> PartitionRecord {
    PartitionRecord {
        partition_id: index.0,
        topic_id,
        replicas: ids(&partition.replicas),
        isr: ids(&partition.isr),
        removing_replicas: ids(&partition.removing_replicas),
        adding_replicas: ids(&partition.adding_replicas),
        leader: partition.leader.0,
        leader_recovery_state: partition.leader_is_recovering.into(),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch,
        directories: partition.directories.clone(),
        eligible_leader_replicas: ids_if_any(&partition.eligible_leader_replicas),
        last_known_elr: ids_if_any(&partition.last_known_elr),
    }
}

fn register_broker(broker: &Broker) -> RegisterBrokerRecord {
    let endpoint = |it: &super::Endpoint| register_broker_record::BrokerEndpoint {
        name: text(&it.listener),
        host: text(&it.host),
        port: it.port,
        security_protocol: it.security_protocol,
    };
    let feature = |(name, min_supported_version, max_supported_version)| {
        register_broker_record::BrokerFeature { name, min_supported_version, max_supported_version }
    };
    RegisterBrokerRecord {
        broker_id: broker.id.0,
        is_migrating_zk_broker: false,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        end_points: broker.endpoints.iter().map(endpoint).collect(),
        features: levels(&broker.features).map(feature).collect(),
        rack: broker.rack.as_deref().map(Into::into),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.directories.clone(),
        cordoned_log_dirs: broker.cordoned_directories.clone(),
    }
}

fn register_controller(controller: &Controller) -> RegisterControllerRecord {
    let endpoint = |it: &super::Endpoint| register_controller_record::ControllerEndpoint {
        name: text(&it.listener),
        host: text(&it.host),
        port: it.port,
        security_protocol: it.security_protocol,
    };
    let feature = |(name, min_supported_version, max_supported_version)| {
        register_controller_record::ControllerFeature {
            name,
            min_supported_version,
            max_supported_version,
        }
    };
    RegisterControllerRecord {
        controller_id: controller.id,
        incarnation_id: controller.incarnation_id,
        zk_migration_ready: false,
        end_points: controller.endpoints.iter().map(endpoint).collect(),
        features: levels(&controller.features).map(feature).collect(),
    }
}

fn levels(
    features: &BTreeMap<Arc<str>, SupportedLevels>,
) -> impl Iterator<Item = (ByteString, i16, i16)> {
    features.iter().map(|(name, levels)| (text(name), levels.min, levels.max))
}

fn text(text: &str) -> ByteString {
    text.into()
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn ids_if_any(brokers: &[BrokerId]) -> Option<Vec<i32>> {
    (!brokers.is_empty()).then(|| ids(brokers))
}
