//! What a client knows of a cluster: its brokers, and the topics it has asked for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, TopicId};
use ottla_protocol::messages::MetadataResponse;
use ottla_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use crate::address::Address;

/// A snapshot. It may be behind the cluster: a broker that is not the leader any more says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub cluster_id: Option<String>,
    /// The broker that controller requests go to; with KRaft any broker forwards them.
    pub controller: Option<BrokerId>,
    pub brokers: BTreeMap<BrokerId, Broker>,
    pub topics: BTreeMap<Arc<str>, Topic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    pub address: Address,
    pub rack: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    /// Zero when the broker is too old to know of topic ids.
    pub id: TopicId,
    pub is_internal: bool,
    /// By number, without gaps.
    pub partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// `None` while there is no leader.
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub offline_replicas: Vec<BrokerId>,
}

/// What an answer said of topics that it did not describe.
pub(crate) type TopicErrors = BTreeMap<Arc<str>, ErrorCode>;

impl Metadata {
    /// Takes in an answer. Topics that it does not mention stay as they are, unless it was to `all`.
    pub(crate) fn apply(&mut self, response: MetadataResponse, all: bool) -> TopicErrors {
        self.cluster_id = response.cluster_id.map(|id| id.to_string());
        self.controller = known(response.controller_id);
        self.brokers = response.brokers.into_iter().filter_map(broker).collect();
        if all {
            self.topics.clear();
        }
        let mut errors = TopicErrors::new();
        for topic in response.topics {
            let Some(name) = topic.name.as_ref().map(|name| Arc::<str>::from(&**name)) else {
                continue;
            };
            if topic.error_code == ErrorCode::NONE {
                self.topics.insert(name.clone(), describe(name, topic));
            } else {
                self.topics.remove(&name);
                errors.insert(name, topic.error_code);
            }
        }
        errors
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(&partition)
    }

    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<BrokerId> {
        self.partition(topic, partition)?.leader
    }

    /// Where brokers listen, the ones asked first to be tried first.
    pub(crate) fn addresses(&self) -> BTreeSet<Address> {
        self.brokers.values().map(|broker| broker.address.clone()).collect()
    }
}

impl Topic {
    /// The replica count of its first partition; partitions differ only in the midst of a change.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.partitions.values().next().map_or(0, |partition| partition.replicas.len())
    }
}

fn known(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}

fn broker(broker: MetadataResponseBroker) -> Option<(BrokerId, Broker)> {
    let id = BrokerId(broker.node_id);
    let port = u16::try_from(broker.port).ok()?;
    let address = Address { host: broker.host.to_string(), port };
    Some((id, Broker { id, address, rack: broker.rack.map(|rack| rack.to_string()) }))
}

fn describe(name: Arc<str>, topic: MetadataResponseTopic) -> Topic {
    Topic {
        name,
        id: topic.topic_id,
        is_internal: topic.is_internal,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

fn partition(partition: MetadataResponsePartition) -> (i32, Partition) {
    let brokers = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect();
    let index = partition.partition_index;
    let description = Partition {
        index,
        leader: known(partition.leader_id),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        replicas: brokers(partition.replica_nodes),
        isr: brokers(partition.isr_nodes),
        offline_replicas: brokers(partition.offline_replicas),
    };
    (index, description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(topics: &[(&str, ErrorCode)]) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "h".into(),
                port: 9092,
                ..MetadataResponseBroker::default()
            }],
            controller_id: 1,
            topics: topics
                .iter()
                .map(|(name, error_code)| MetadataResponseTopic {
                    name: Some((*name).into()),
                    error_code: *error_code,
                    partitions: vec![MetadataResponsePartition {
                        leader_id: -1,
                        ..MetadataResponsePartition::default()
                    }],
                    ..MetadataResponseTopic::default()
                })
                .collect(),
            ..MetadataResponse::default()
        }
    }

    #[test]
    fn topics_that_an_answer_does_not_mention_stay_unless_it_lists_all() {
        let mut metadata = Metadata::default();
        metadata.apply(answer(&[("a", ErrorCode::NONE), ("b", ErrorCode::NONE)]), true);
        metadata.apply(answer(&[("c", ErrorCode::NONE)]), false);
        assert_eq!(metadata.topics.keys().map(|name| &**name).collect::<String>(), "abc");
        metadata.apply(answer(&[("c", ErrorCode::NONE)]), true);
        assert_eq!(metadata.topics.len(), 1);
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten_and_reported() {
        let mut metadata = Metadata::default();
        metadata.apply(answer(&[("a", ErrorCode::NONE)]), false);
        let gone = answer(&[("a", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)]);
        let errors = metadata.apply(gone, false);
        assert_eq!(errors.get("a"), Some(&ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert!(metadata.topics.is_empty());
    }

    #[test]
    fn a_partition_without_leader_has_none() {
        let mut metadata = Metadata::default();
        metadata.apply(answer(&[("a", ErrorCode::NONE)]), false);
        assert!(metadata.partition("a", 0).is_some());
        assert_eq!(metadata.leader("a", 0), None);
    }
}
