//! A topic whose logs are there already, written by another cluster: it gets the id that they name. Pure.
//!
//! Nothing of Kafka's protocol asks for this: a broker does, of itself, for directories that its operator has put
//! among its logs (docs/decisions/015-adoption.md).

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, ProducerId, TopicId};
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla_protocol::records::ProducerIdsRecord;

use super::brokers::check_epoch;
use super::create_topics::{Draw, create_topic};
use super::{Outcome, Policy, RECORDS_MAX, Rejection};
use crate::MetadataRecord;
use crate::image::Image;
use crate::topic_name;

/// A topic that a broker wants to adopt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    pub name: String,
    pub id: TopicId,
    /// The broker that has the logs.
    pub broker: BrokerId,
    pub broker_epoch: i64,
    /// For each partition, the epoch that its leader gets: later than any that its log knows.
    pub leader_epochs: Vec<LeaderEpoch>,
    /// Of all in its logs; −1 for none. They are another cluster's: were one given out here, its sequence numbers would
    /// be compared with those of a stranger.
    pub largest_producer_id: ProducerId,
    pub configs: Vec<(String, String)>,
}

struct Known(TopicId);

impl Draw for Known {
    fn topic_id(&mut self) -> TopicId {
        self.0
    }

    fn placement_seed(&mut self) -> u64 {
        0
    }
}

/// Makes the topic known, all of its partitions with it, or says what speaks against it.
///
/// # Errors
/// STALE_BROKER_EPOCH, TOPIC_ALREADY_EXISTS for its id or name, INVALID_REQUEST for a topic of the cluster's own, or
/// without an id or a partition, POLICY_VIOLATION for too many partitions at once, and what else speaks against
/// creating it.
pub fn adopt_topic(
    image: &Image,
    policy: &Policy,
    adoption: &Adoption,
) -> Result<Outcome<()>, Rejection> {
    let invalid = |message: String| Rejection::new(ErrorCode::INVALID_REQUEST, message);
    check_epoch(image, adoption.broker, adoption.broker_epoch)?;
    let Adoption { name, id, .. } = adoption;
    if topic_name::is_internal(name) || name == topic_name::CLUSTER_METADATA {
        return Err(invalid(format!("Topic '{name}' is one of the cluster's own.")));
    }
    if let Some(topic) = image.topic(*id) {
        let message = format!("Topic '{}' has the id {id} already.", topic.name);
        return Err(Rejection::new(ErrorCode::TOPIC_ALREADY_EXISTS, message));
    }
    if *id == TopicId::ZERO || adoption.leader_epochs.is_empty() {
        return Err(invalid("A topic has an id and at least one partition.".to_owned()));
    }
    let (in_effect, topic) = (policy.in_effect(image), creatable(adoption));
    let created = create_topic(image, policy, &in_effect, &topic, &mut Known(*id))?;
    let mut records = created.records;
    if records.len() > RECORDS_MAX {
        return Err(Rejection::too_many_records());
    }
    for record in &mut records {
        if let MetadataRecord::Partition(partition) = record {
            let index = usize::try_from(partition.partition_id).unwrap_or(usize::MAX);
            let epoch = adoption.leader_epochs.get(index);
            partition.leader_epoch = epoch.map_or(0, |epoch| epoch.0);
        }
    }
    if adoption.largest_producer_id >= image.next_producer_id() {
        let next = adoption.largest_producer_id.0.checked_add(1);
        let next = next.ok_or_else(|| invalid("No producer id is left.".to_owned()))?;
        records.push(
            ProducerIdsRecord {
                broker_id: adoption.broker.0,
                broker_epoch: adoption.broker_epoch,
                next_producer_id: next,
            }
            .into(),
        );
    }
    Ok(Outcome { records, reply: () })
}

fn creatable(adoption: &Adoption) -> CreatableTopic {
    let assignment = |partition_index: i32| CreatableReplicaAssignment {
        partition_index,
        broker_ids: vec![adoption.broker.0],
    };
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.as_str().into(),
        value: Some(value.as_str().into()),
    };
    CreatableTopic {
        name: adoption.name.as_str().into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: (0..)
            .zip(&adoption.leader_epochs)
            .map(|(index, _)| assignment(index))
            .collect(),
        configs: adoption.configs.iter().map(config).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::records::TopicRecord;

    use super::*;
    use crate::controller::brokers::tests::image_with_brokers;

    fn adoption() -> Adoption {
        Adoption {
            name: "orders".to_owned(),
            id: TopicId::from_u128(77),
            broker: BrokerId(1),
            broker_epoch: 1,
            largest_producer_id: ProducerId(41),
            leader_epochs: vec![LeaderEpoch(4), LeaderEpoch(0)],
            configs: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
        }
    }

    fn refusal(image: &Image, adoption: &Adoption) -> ErrorCode {
        adopt_topic(image, &Policy::default(), adoption).unwrap_err().code
    }

    #[test]
    fn the_topic_keeps_its_id_and_its_leaders_begin_after_those_that_wrote_the_logs() {
        let image = image_with_brokers(&[1]);
        let outcome = adopt_topic(&image, &Policy::default(), &adoption()).unwrap();
        let topic = TopicRecord { name: "orders".into(), topic_id: TopicId::from_u128(77) };
        assert_eq!(outcome.records[0], topic.into());
        let epochs = outcome.records.iter().filter_map(|record| {
            let MetadataRecord::Partition(it) = record else { return None };
            Some((it.partition_id, it.leader, it.leader_epoch))
        });
        assert_eq!(epochs.collect::<Vec<_>>(), [(0, 1, 4), (1, 1, 0)]);
        let ids = ProducerIdsRecord { broker_id: 1, broker_epoch: 1, next_producer_id: 42 };
        assert_eq!(outcome.records.last(), Some(&ids.into()));
        assert_eq!(outcome.records.len(), 5, "topic, configuration, two partitions, producer ids");
    }

    #[test]
    fn what_exists_already_or_makes_no_sense_is_refused() {
        let image = image_with_brokers(&[1]);
        let policy = Policy::default();
        let mut taken = image.clone();
        for record in adopt_topic(&image, &policy, &adoption()).unwrap().records {
            taken.apply(&record).unwrap();
        }
        let same_name = Adoption { id: TopicId::from_u128(78), ..adoption() };
        let same_id = Adoption { name: "other".to_owned(), ..adoption() };
        for refused in [&adoption(), &same_name, &same_id] {
            assert_eq!(refusal(&taken, refused), ErrorCode::TOPIC_ALREADY_EXISTS);
        }
        let internal = Adoption { name: "__consumer_offsets".to_owned(), ..adoption() };
        assert_eq!(refusal(&image, &internal), ErrorCode::INVALID_REQUEST);
        let none = Adoption { leader_epochs: vec![], ..adoption() };
        assert_eq!(refusal(&image, &none), ErrorCode::INVALID_REQUEST);
        let elsewhere = Adoption { broker: BrokerId(2), ..adoption() };
        assert_eq!(refusal(&image, &elsewhere), ErrorCode::STALE_BROKER_EPOCH);
        let earlier = Adoption { broker_epoch: 0, ..adoption() };
        assert_eq!(refusal(&image, &earlier), ErrorCode::STALE_BROKER_EPOCH);
        let configs = vec![("cleanup.policy".to_owned(), "burn".to_owned())];
        let odd = Adoption { configs, ..adoption() };
        assert_eq!(refusal(&image, &odd), ErrorCode::INVALID_CONFIG);
    }
}
