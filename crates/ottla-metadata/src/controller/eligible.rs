//! What becomes of those who may lead from outside the ISR when what makes them eligible changes. Pure.
//!
//! Whoever is eligible has all that was acknowledged as long as `min.insync.replicas` stays what it was: with a smaller one
//! the leader acknowledges more. So whenever it is set, the partitions that it is about forget whom they had, with Kafka's
//! ClearElrRecord. Where nobody leads, nothing was acknowledged since, and nothing is forgotten: Kafka does forget it there,
//! and such a partition then waits for an election that may lose records.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, PartitionIndex};
use ottla_protocol::records::{ClearElrRecord, ConfigRecord, PartitionChangeRecord};

use super::Policy;
use super::fencing::partitions;
use super::partition_change::MIN_INSYNC_REPLICAS;
use crate::MetadataRecord;
use crate::delta::ConfigResource;
use crate::image::{Image, Partition, Topic};

/// What must follow these records in the same batch.
pub(super) fn after_config_changes(
    image: &Image,
    records: &[MetadataRecord],
) -> Vec<MetadataRecord> {
    if !image.has_eligible_leader_replicas() {
        return Vec::new();
    }
    let topic_of = |record: &MetadataRecord| {
        let MetadataRecord::Config(it) = record else { return None };
        let topic = match it.resource_type {
            ConfigResource::TOPIC => it.resource_name.to_string(),
            _ => String::new(),
        };
        (&*it.name == MIN_INSYNC_REPLICAS).then_some(topic)
    };
    let topics: Vec<String> = records.iter().filter_map(topic_of).collect();
    forget(image, &topics)
}

/// Topics, of which the empty name stands for all, forget whom they had, but where nobody leads.
fn forget(image: &Image, topics: &[String]) -> Vec<MetadataRecord> {
    let clear = |name: &String| ClearElrRecord { topic_name: name.as_str().into() }.into();
    let names: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    let is_meant = |topic: &Topic| names.contains("") || names.contains(&*topic.name);
    let kept = partitions(image).filter(|(topic, _, it)| {
        is_meant(topic) && it.leader == BrokerId::NONE && it.isr.is_empty() && it.remembers()
    });
    let keep = |(topic, index, it): (&Topic, PartitionIndex, &Partition)| {
        let restored = PartitionChangeRecord {
            eligible_leader_replicas: Some(ids(&it.eligible_leader_replicas)),
            last_known_elr: Some(ids(&it.last_known_elr)),
            ..change_of(topic, index)
        };
        restored.into()
    };
    topics.iter().map(clear).chain(kept.map(keep)).collect()
}

/// What must come before the feature is finalized at 1: one `min.insync.replicas` for the whole cluster, which all
/// brokers have at the same place in the log, and none of a broker's own.
pub(super) fn begin(image: &Image, policy: &Policy) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    let has_min_isr = |it: &ConfigResource| image.config_value(it, MIN_INSYNC_REPLICAS).is_some();
    if !has_min_isr(&ConfigResource::default_broker()) {
        records.push(cluster_min_isr(policy));
    }
    let has_own = |it: &&ConfigResource| {
        it.kind == ConfigResource::BROKER && !it.name.is_empty() && has_min_isr(it)
    };
    let own = image.config_resources().filter(has_own);
    records.extend(own.map(|resource| min_isr_record(&resource.name, None)));
    if partitions(image).any(|(_, _, partition)| partition.remembers()) {
        records.extend(forget(image, &[String::new()]));
    }
    records
}

/// What must come before the feature is finalized at 0: nobody is eligible any more. An ISR that is empty becomes what it
/// would be without the feature: those who have everything, or else who led last.
pub(super) fn end(image: &Image) -> Vec<MetadataRecord> {
    let remembering: Vec<_> = partitions(image).filter(|(_, _, it)| it.remembers()).collect();
    let with_isr = |(topic, index, it): &(&Topic, PartitionIndex, &Partition)| {
        let isr = [&it.eligible_leader_replicas, &it.last_known_elr];
        let isr = isr.into_iter().find(|brokers| !brokers.is_empty())?;
        let record = PartitionChangeRecord { isr: Some(ids(isr)), ..change_of(topic, *index) };
        it.isr.is_empty().then(|| record.into())
    };
    let mut records: Vec<MetadataRecord> = remembering.iter().filter_map(with_isr).collect();
    if !remembering.is_empty() {
        records.push(ClearElrRecord::default().into());
    }
    records
}

/// What all brokers have unless a topic says otherwise: what this controller's file says.
pub(super) fn cluster_min_isr(policy: &Policy) -> MetadataRecord {
    min_isr_record("", Some(policy.settings.int(MIN_INSYNC_REPLICAS).to_string()))
}

fn min_isr_record(broker: &str, value: Option<String>) -> MetadataRecord {
    ConfigRecord {
        resource_type: ConfigResource::BROKER,
        resource_name: broker.into(),
        name: MIN_INSYNC_REPLICAS.into(),
        value: value.map(Into::into),
    }
    .into()
}

fn change_of(topic: &Topic, index: PartitionIndex) -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: index.0, topic_id: topic.id, ..Default::default() }
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}
