//! What CreateTopics and CreatePartitions have in common: where a new partition's replicas are, and its record. Pure.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, ErrorCode, PartitionIndex, TopicId};
use ottla_protocol::records::PartitionRecord;

use super::Rejection;
use super::placement::{Placer, directory};
use crate::MetadataRecord;
use crate::image::{Broker, Image};

/// The replicas of one partition, and those of them that are in sync from the start.
pub(super) type Placed = (Vec<BrokerId>, Vec<BrokerId>);

/// Lets the placer, which must have checked the factor, choose the replicas of one more partition.
pub(super) fn place_next(
    image: &Image,
    placer: &mut Placer,
    factor: i16,
) -> Result<Placed, Rejection> {
    let replicas = placer.place(factor);
    let isr = active(image, &replicas);
    if isr.is_empty() {
        let message = format!(
            "Unable to replicate the partition {factor} time(s): All brokers are currently fenced \
             or in controlled shutdown."
        );
        return Err(Rejection::new(ErrorCode::INVALID_REPLICATION_FACTOR, message));
    }
    Ok((replicas, isr))
}

fn active(image: &Image, replicas: &[BrokerId]) -> Vec<BrokerId> {
    let is_active = |id: &BrokerId| image.broker(*id).is_some_and(Broker::is_active);
    replicas.iter().copied().filter(is_active).collect()
}

/// `factor` is that of the partitions before.
pub(super) fn check_assignment(
    image: &Image,
    partition: i32,
    broker_ids: &[i32],
    factor: Option<usize>,
) -> Result<Placed, Rejection> {
    check_replicas(image, broker_ids, factor)?;
    let replicas: Vec<BrokerId> = broker_ids.iter().copied().map(BrokerId).collect();
    let isr = active(image, &replicas);
    if isr.is_empty() {
        return Err(invalid_assignment(format!(
            "All brokers specified in the manual partition assignment for partition {partition} \
             are fenced or in controlled shutdown."
        )));
    }
    Ok((replicas, isr))
}

/// Whether these brokers, in this order, may hold a partition.
pub(super) fn check_replicas(
    image: &Image,
    broker_ids: &[i32],
    factor: Option<usize>,
) -> Result<(), Rejection> {
    if broker_ids.is_empty() {
        let message = "The manual partition assignment includes an empty replica list.";
        return Err(invalid_assignment(message.to_owned()));
    }
    let mut seen = BTreeSet::new();
    let mut sorted = broker_ids.to_vec();
    sorted.sort_unstable();
    for id in sorted {
        let Some(broker) = image.broker(BrokerId(id)) else {
            return Err(invalid_assignment(format!(
                "The manual partition assignment includes broker {id}, but no such broker is \
                 registered."
            )));
        };
        if !broker.has_uncordoned_directory() {
            return Err(invalid_assignment(format!(
                "The manual partition assignment includes broker {id}, but all its log \
                 directories are cordoned."
            )));
        }
        if !seen.insert(id) {
            return Err(invalid_assignment(format!(
                "The manual partition assignment includes the broker {id} more than once."
            )));
        }
    }
    let replicas = broker_ids.len();
    if let Some(factor) = factor
        && factor != replicas
    {
        return Err(invalid_assignment(format!(
            "The manual partition assignment includes a partition with {replicas} replica(s), but \
             this is not consistent with previous partitions, which have {factor} replica(s)."
        )));
    }
    Ok(())
}

pub(super) fn invalid_assignment(message: String) -> Rejection {
    Rejection::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message)
}

pub(super) fn partition_record(
    image: &Image,
    topic_id: TopicId,
    partition: PartitionIndex,
    replicas: &[BrokerId],
    isr: &[BrokerId],
) -> MetadataRecord {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    PartitionRecord {
        partition_id: partition.0,
        topic_id,
        replicas: ids(replicas),
        isr: ids(isr),
        leader: isr.first().map_or(BrokerId::NONE.0, |leader| leader.0),
        leader_recovery_state: 0,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|id| directory(image, *id)).collect(),
        ..Default::default()
    }
    .into()
}
