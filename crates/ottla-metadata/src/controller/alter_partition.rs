//! AlterPartition: a leader says who follows it closely enough to be in the ISR. Pure.
//!
//! The request names the epochs that the leader knows. Whoever knows less than the controller is told so and learns the
//! rest from the metadata; whoever knows more is talking to a controller that is not the active one any more.

use ottla_base::{BrokerId, ErrorCode, PartitionIndex, TopicId};
use ottla_protocol::messages::alter_partition_request::{BrokerState, PartitionData};
use ottla_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, alter_partition_response,
};

use super::brokers::check_epoch;
use super::draft::Draft;
use super::partition_change::{Elections, PartitionChange};
use super::{Outcome, Policy, Rejection};
use crate::image::{Image, Partition, UNKNOWN_EPOCH};

/// Changes the ISRs that the request's broker leads, each partition on its own.
///
/// `version` is the request's: before version 3 it says nothing of the epochs of the ISR's members.
#[must_use]
pub fn alter_partition(
    image: &Image,
    policy: &Policy,
    request: &AlterPartitionRequest,
    version: i16,
) -> Outcome<AlterPartitionResponse> {
    let sender = BrokerId(request.broker_id);
    if let Err(Rejection { code, .. }) = check_epoch(image, sender, request.broker_epoch) {
        let reply = AlterPartitionResponse { error_code: code, ..Default::default() };
        return Outcome::unchanged(reply);
    }
    let elections = Elections::of(image, policy);
    let mut draft = Draft::on(image);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let alter = |wanted: &PartitionData| {
            let isr = wanted_isr(wanted, version);
            let index = PartitionIndex(wanted.partition_index);
            match alter(&mut draft, &elections, sender, topic.topic_id, wanted, &isr) {
                Ok(()) => state(&draft.image, topic.topic_id, index),
                Err(code) => refused(index, code),
            }
        };
        let partitions = topic.partitions.iter().map(alter).collect();
        let topic_id = topic.topic_id;
        topics.push(alter_partition_response::TopicData { topic_id, partitions });
    }
    let reply = AlterPartitionResponse { topics, ..Default::default() };
    Outcome { records: draft.records, reply }
}

fn wanted_isr(wanted: &PartitionData, version: i16) -> Vec<BrokerState> {
    if version >= 3 {
        return wanted.new_isr_with_epochs.clone();
    }
    let any_epoch = |id: &i32| BrokerState { broker_id: *id, broker_epoch: UNKNOWN_EPOCH };
    wanted.new_isr.iter().map(any_epoch).collect()
}

fn refused(index: PartitionIndex, code: ErrorCode) -> alter_partition_response::PartitionData {
    alter_partition_response::PartitionData {
        partition_index: index.0,
        error_code: code,
        ..Default::default()
    }
}

/// What became of a partition.
fn state(
    image: &Image,
    topic_id: TopicId,
    index: PartitionIndex,
) -> alter_partition_response::PartitionData {
    let Some(partition) = image.partition(topic_id, index) else {
        return refused(index, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    };
    alter_partition_response::PartitionData {
        partition_index: index.0,
        error_code: ErrorCode::NONE,
        leader_id: partition.leader.0,
        leader_epoch: partition.leader_epoch.0,
        isr: partition.isr.iter().map(|id| id.0).collect(),
        leader_recovery_state: partition.leader_is_recovering.into(),
        partition_epoch: partition.partition_epoch,
    }
}

fn alter(
    draft: &mut Draft,
    elections: &Elections,
    sender: BrokerId,
    topic_id: TopicId,
    wanted: &PartitionData,
    isr: &[BrokerState],
) -> Result<(), ErrorCode> {
    let image = &draft.image;
    let index = PartitionIndex(wanted.partition_index);
    let topic = image.topic(topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
    let partition = topic.partition(index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    check_epochs(partition, sender, wanted)?;
    let is_recovering = check_isr(partition, wanted, isr)?;
    if !isr.iter().all(|member| is_eligible(image, partition, member)) {
        return Err(ErrorCode::INELIGIBLE_REPLICA);
    }
    let election = elections.automatic(image, topic);
    let mut change = PartitionChange::new(elections, image, topic, index, partition, election);
    change.target.isr = isr.iter().map(|member| BrokerId(member.broker_id)).collect();
    change.target.leader_is_recovering = is_recovering;
    let record = change.record();
    draft.extend(record.into_iter().collect());
    // The change can complete a reassignment that moves the partition away from the leader that asked for it.
    let leader = draft.image.partition(topic_id, index).map(|partition| partition.leader);
    if leader == Some(sender) { Ok(()) } else { Err(ErrorCode::NEW_LEADER_ELECTED) }
}

fn check_epochs(
    partition: &Partition,
    sender: BrokerId,
    wanted: &PartitionData,
) -> Result<(), ErrorCode> {
    let leader_epoch = partition.leader_epoch.0;
    if wanted.leader_epoch > leader_epoch || wanted.partition_epoch > partition.partition_epoch {
        Err(ErrorCode::NOT_CONTROLLER)
    } else if wanted.leader_epoch < leader_epoch {
        Err(ErrorCode::FENCED_LEADER_EPOCH)
    } else if sender != partition.leader {
        Err(ErrorCode::INVALID_REQUEST)
    } else if wanted.partition_epoch < partition.partition_epoch {
        Err(ErrorCode::INVALID_UPDATE_VERSION)
    } else {
        Ok(())
    }
}

/// Whether the leader says that it is still recovering, as it must while it is alone in the ISR after an unclean
/// election, and cannot do again afterwards.
fn check_isr(
    partition: &Partition,
    wanted: &PartitionData,
    isr: &[BrokerState],
) -> Result<bool, ErrorCode> {
    let mut ids: Vec<BrokerId> = isr.iter().map(|member| BrokerId(member.broker_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let is_recovering = match wanted.leader_recovery_state {
        0 => false,
        1 => true,
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    let fits = ids.len() == isr.len()
        && ids.iter().all(|id| partition.replicas.contains(id))
        && ids.contains(&partition.leader)
        && !(is_recovering && (ids.len() > 1 || !partition.leader_is_recovering));
    if fits { Ok(is_recovering) } else { Err(ErrorCode::INVALID_REQUEST) }
}

/// Nobody joins whose log directory has failed, which the leader does not know: it could not lead, and nothing would take it
/// out again. Whoever is a member may stay, such as a leader that only reads.
fn is_eligible(image: &Image, partition: &Partition, member: &BrokerState) -> bool {
    let id = BrokerId(member.broker_id);
    image.broker(id).is_some_and(|broker| broker.may_join_isr(member.broker_epoch))
        && (partition.is_in_isr(id) || image.has_usable_replica(partition, id))
}

#[cfg(test)]
mod tests;
