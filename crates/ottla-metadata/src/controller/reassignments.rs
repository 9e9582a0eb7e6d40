//! AlterPartitionReassignments and ListPartitionReassignments: which brokers hold a partition. Pure.
//!
//! Data does not move between brokers yet. Where a partition is already where the request wants it — the only place
//! in a cluster of one — there is nothing to do; anything else is refused.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, ErrorCode, PartitionIndex};
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ottla_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::Rejection;
use super::new_partitions::check_replicas;
use crate::image::{Image, Partition, Topic};

/// Says of each partition whether it is where it is wanted, and if not, why it does not go there.
#[must_use]
pub fn alter_partition_reassignments(
    image: &Image,
    request: &AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut reply = AlterPartitionReassignmentsResponse::default();
    if request.topics.is_empty() {
        return reply;
    }
    let may_change_factor = request.allow_replication_factor_change;
    let topic = |topic: &ReassignableTopic| {
        let alter = |partition: &ReassignablePartition| {
            let altered = alter(image, &topic.name, partition, may_change_factor);
            let (error_code, error_message) = Rejection::fields(altered.err());
            ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code,
                error_message,
            }
        };
        ReassignableTopicResponse {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(alter).collect(),
        }
    };
    reply.responses = request.topics.iter().map(topic).collect();
    reply.allow_replication_factor_change = may_change_factor;
    reply.error_message = None;
    reply
}

fn alter(
    image: &Image,
    name: &str,
    wanted: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<(), Rejection> {
    let unknown = |message| Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    let index = wanted.partition_index;
    let topic = image
        .topic_by_name(name)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let partition = topic
        .partition(PartitionIndex(index))
        .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
    let Some(replicas) = &wanted.replicas else {
        // Nothing moves, so nothing can be called off.
        return Err(Rejection::wordless(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
    };
    check_replicas(image, replicas, None)?;
    let present = partition.replicas.len();
    if !may_change_factor && replicas.len() != present {
        let message =
            format!("The replication factor is changed from {present} to {}", replicas.len());
        return Err(Rejection::new(ErrorCode::INVALID_REPLICATION_FACTOR, message));
    }
    if replicas.iter().copied().map(BrokerId).eq(partition.replicas.iter().copied()) {
        return Ok(());
    }
    let message = "Partitions cannot move between brokers in this release.";
    Err(Rejection::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message))
}

/// The partitions on the move; null topics mean all.
#[must_use]
pub fn list_partition_reassignments(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        None => image.topics().filter_map(|topic| ongoing(topic, topic.partitions())).collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|asked| {
                let topic = image.topic_by_name(&asked.name)?;
                // Each index once and looked up: a request may name as many as there are, many times.
                let indexes: BTreeSet<_> =
                    asked.partition_indexes.iter().copied().map(PartitionIndex).collect();
                let found = |index| Some((index, topic.partition(index)?));
                ongoing(topic, indexes.into_iter().filter_map(found))
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse { topics, error_message: None, ..Default::default() }
}

fn ongoing<'a>(
    topic: &Topic,
    asked: impl Iterator<Item = (PartitionIndex, &'a Partition)>,
) -> Option<OngoingTopicReassignment> {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    let reassignment =
        |(index, partition): (PartitionIndex, &Partition)| OngoingPartitionReassignment {
            partition_index: index.0,
            replicas: ids(&partition.replicas),
            adding_replicas: ids(&partition.adding_replicas),
            removing_replicas: ids(&partition.removing_replicas),
        };
    let moves = |partition: &Partition| {
        !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
    };
    let partitions: Vec<_> =
        asked.filter(|(_, partition)| moves(partition)).map(reassignment).collect();
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment { name: (&*topic.name).into(), partitions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::image_with_brokers;
    use ottla_base::TopicId;
    use ottla_protocol::records::{PartitionRecord, TopicRecord};

    fn image(adding_replicas: &[i32]) -> Image {
        let mut image = image_with_brokers(&[1, 2]);
        let topic_id = TopicId::from_u128(9);
        image.apply(&TopicRecord { name: "t".into(), topic_id }.into()).unwrap();
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            adding_replicas: adding_replicas.to_vec(),
            ..Default::default()
        };
        image.apply(&partition.into()).unwrap();
        image
    }

    fn altered(topic: &str, partition_index: i32, replicas: Option<&[i32]>) -> (ErrorCode, String) {
        let replicas = replicas.map(<[i32]>::to_vec);
        let partitions = vec![ReassignablePartition { partition_index, replicas }];
        let topics = vec![ReassignableTopic { name: topic.into(), partitions }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        let reply = alter_partition_reassignments(&image(&[]), &request);
        let result = &reply.responses[0].partitions[0];
        (result.error_code, result.error_message.as_deref().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_partition_that_is_where_it_is_wanted_stays_there() {
        assert_eq!(altered("t", 0, Some(&[1])).0, ErrorCode::NONE);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(altered("x", 0, Some(&[1])).0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(altered("t", 5, Some(&[1])).0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(altered("t", 0, None).0, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS);
        assert_eq!(altered("t", 0, Some(&[])).0, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
        assert_eq!(altered("t", 0, Some(&[9])).0, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
        assert_eq!(altered("t", 0, Some(&[2])).0, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    }

    #[test]
    fn only_what_moves_is_listed() {
        let all = ListPartitionReassignmentsRequest { topics: None, ..Default::default() };
        assert_eq!(list_partition_reassignments(&image(&[]), &all).topics, []);
        let listed = list_partition_reassignments(&image(&[2]), &all).topics;
        assert_eq!(listed[0].partitions[0].adding_replicas, [2]);
    }
}
