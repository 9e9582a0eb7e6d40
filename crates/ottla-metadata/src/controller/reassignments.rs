//! AlterPartitionReassignments and ListPartitionReassignments: which brokers hold a partition. Pure.
//!
//! A partition moves in two steps. First the brokers that it moves to become replicas besides those that it has. Once
//! they are all in the ISR, whichever change brings that about completes the reassignment
//! ([`Reassignment::completed`]): the brokers that it leaves are removed, with a new leader epoch.
//!
//! A second request before the first is completed replaces it. What the first was adding and the second wants as well
//! goes on being waited for; Apache Kafka forgets it, or waits for ever for a replica that it removes. It does not matter whether
//! the second comes with the same request: Apache Kafka then decides both on the partition as it was, so that what it is left
//! with belongs to neither.

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

use super::draft::Draft;
use super::new_partitions::{check_replicas, invalid_assignment};
use super::partition_change::{Election, Elections, PartitionChange};
use super::{Outcome, Policy, RECORDS_MAX, Rejection};
use crate::MetadataRecord;
use crate::image::{Image, Partition, Topic};

/// Where a partition is to be, and what that means for where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reassignment {
    /// Those that stay or are added, in their new order, then those that are removed.
    replicas: Vec<BrokerId>,
    adding: Vec<BrokerId>,
    removing: Vec<BrokerId>,
}

impl Reassignment {
    fn to(target: &[BrokerId], partition: &Partition) -> Self {
        let was_there = |id: &&BrokerId| {
            partition.replicas.contains(id) && !partition.adding_replicas.contains(id)
        };
        let adding: BTreeSet<BrokerId> =
            target.iter().filter(|id| !was_there(id)).copied().collect();
        let goes = |id: &&BrokerId| !target.contains(id);
        let removing: BTreeSet<BrokerId> =
            partition.replicas.iter().filter(goes).copied().collect();
        Self {
            replicas: target.iter().chain(&removing).copied().collect(),
            adding: adding.into_iter().collect(),
            removing: removing.into_iter().collect(),
        }
    }

    /// Lets a partition move to these brokers; they will be in this order.
    pub(super) fn begin(
        change: &mut PartitionChange<'_>,
        target: &[BrokerId],
        partition: &Partition,
    ) {
        let Self { replicas, adding, removing } = Self::to(target, partition);
        change.set_replicas(replicas);
        change.target.adding_replicas = adding;
        change.target.removing_replicas = removing;
    }

    /// Replicas and ISR after a reassignment that has what it needs; `None` if it does not, or there is none.
    pub(super) fn completed(partition: &Partition) -> Option<(Vec<BrokerId>, Vec<BrokerId>)> {
        if !partition.is_moving() {
            return None;
        }
        let Partition { adding_replicas: adding, removing_replicas: removing, .. } = partition;
        let without = |brokers: &[BrokerId]| -> Vec<BrokerId> {
            brokers.iter().filter(|id| !removing.contains(id)).copied().collect()
        };
        let (replicas, isr) = (without(&partition.replicas), without(&partition.isr));
        let is_in_isr = |id: &BrokerId| isr.contains(id);
        // With fewer replicas than before all of them must be in sync: the ISR would become smaller than it need be.
        let awaited = if adding.len() < removing.len() { &replicas } else { adding };
        let is_complete = !isr.is_empty() && awaited.iter().all(is_in_isr);
        (is_complete && adding.iter().all(is_in_isr)).then_some((replicas, isr))
    }
}

/// Begins, replaces or calls off reassignments, each partition on its own, one after the other.
#[must_use]
pub fn alter_partition_reassignments(
    image: &Image,
    policy: &Policy,
    request: &AlterPartitionReassignmentsRequest,
) -> Outcome<AlterPartitionReassignmentsResponse> {
    let mut reply = AlterPartitionReassignmentsResponse::default();
    if request.topics.is_empty() {
        return Outcome::unchanged(reply);
    }
    let may_change_factor = request.allow_replication_factor_change;
    let elections = Elections::of(image, policy);
    let mut draft = Draft::on(image);
    let mut alter = |topic: &str, partition: &ReassignablePartition| {
        let altered = alter(&draft.image, &elections, topic, partition, may_change_factor)?;
        if draft.records.len() == RECORDS_MAX && altered.is_some() {
            // Kafka, too, carries out what comes before, and has no words for the rest.
            return Err(Rejection::wordless(ErrorCode::UNKNOWN_SERVER_ERROR));
        }
        draft.extend(altered.into_iter().collect());
        Ok(())
    };
    let topic = |topic: &ReassignableTopic| {
        let alter = |partition: &ReassignablePartition| {
            let (error_code, error_message) =
                Rejection::fields(alter(&topic.name, partition).err());
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
    Outcome { records: draft.records, reply }
}

fn alter(
    image: &Image,
    elections: &Elections,
    name: &str,
    wanted: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<Option<MetadataRecord>, Rejection> {
    let unknown = |message| Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    let index = wanted.partition_index;
    let topic = image
        .topic_by_name(name)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let partition = topic
        .partition(PartitionIndex(index))
        .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
    let index = PartitionIndex(index);
    let mut change =
        PartitionChange::new(elections, image, topic, index, partition, Election::Online);
    match &wanted.replicas {
        None => {
            change.election = elections.automatic(image, topic);
            call_off(&mut change, topic, index, partition)?;
        }
        Some(replicas) => {
            check_replicas(image, replicas, None)?;
            if !may_change_factor {
                check_factor(partition, replicas.len())?;
            }
            let target: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
            Reassignment::begin(&mut change, &target, partition);
        }
    }
    Ok(change.record())
}

/// Without those that were being added, and with all that were there before.
fn call_off(
    change: &mut PartitionChange<'_>,
    topic: &Topic,
    index: PartitionIndex,
    partition: &Partition,
) -> Result<(), Rejection> {
    if !partition.is_moving() {
        return Err(Rejection::wordless(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
    }
    let without_added = |brokers: &[BrokerId]| -> Vec<BrokerId> {
        brokers.iter().filter(|id| !partition.adding_replicas.contains(id)).copied().collect()
    };
    let (replicas, isr) = (without_added(&partition.replicas), without_added(&partition.isr));
    if replicas.is_empty() {
        let message = "Invalid replica assignment: addingReplicas contains all replicas.";
        return Err(invalid_assignment(message.to_owned()));
    }
    change.set_replicas(replicas);
    // Where nobody of before is in sync, somebody must lead who lacks data. Kafka then takes the first replica into
    // the ISR even when that is fenced, and tells nobody that it has to recover.
    if isr.is_empty() && !change.can_elect_uncleanly() {
        return Err(invalid_assignment(format!(
            "Unable to revert partition assignment for {}:{index} because it would require an \
             unclean leader election.",
            topic.name
        )));
    }
    change.target.isr = isr;
    change.target.adding_replicas.clear();
    change.target.removing_replicas.clear();
    Ok(())
}

/// Compares with what the partition has when a reassignment that is under way is completed.
fn check_factor(partition: &Partition, wanted: usize) -> Result<(), Rejection> {
    let stays = |id: &&BrokerId| !partition.removing_replicas.contains(id);
    let present = partition.replicas.iter().filter(stays).count();
    if wanted == present {
        return Ok(());
    }
    let message = format!("The replication factor is changed from {present} to {wanted}");
    Err(Rejection::new(ErrorCode::INVALID_REPLICATION_FACTOR, message))
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
    let partitions: Vec<_> =
        asked.filter(|(_, partition)| partition.is_moving()).map(reassignment).collect();
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment { name: (&*topic.name).into(), partitions })
}

#[cfg(test)]
mod tests;
