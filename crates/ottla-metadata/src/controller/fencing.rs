//! What becomes of partitions when a broker goes, comes back, or is about to go. Pure.

use ottla_base::{BrokerId, PartitionIndex, Uuid};
use ottla_protocol::records::BrokerRegistrationChangeRecord;

use super::Policy;
use super::draft::Draft;
use super::partition_change::{Elections, PartitionChange};
use crate::MetadataRecord;
use crate::image::{Broker, Image, Partition, Topic};

/// Keeps brokers from leading and from being seen, and takes them out of every ISR.
///
/// All are fenced before the first one's partitions are looked at: nothing is lost by an unclean election for the
/// sake of a leader that is about to be fenced itself.
pub(super) fn fence(draft: &mut Draft, policy: &Policy, ids: &[BrokerId]) {
    for id in ids {
        if let Some(broker) = draft.image.broker(*id).filter(|broker| !broker.fenced) {
            let change = BrokerRegistrationChangeRecord { fenced: 1, ..change_of(broker) };
            draft.push(change);
        }
    }
    ids.iter().for_each(|id| leave(draft, policy, *id));
}

/// Lets a broker lead, first of all what waited for somebody who can: what nobody leads, or somebody who only reads.
pub(super) fn unfence(draft: &mut Draft, policy: &Policy, id: BrokerId) {
    let Some(broker) = draft.image.broker(id).filter(|broker| broker.fenced) else { return };
    let change = BrokerRegistrationChangeRecord { fenced: -1, ..change_of(broker) };
    draft.push(change);
    let image = draft.image.clone();
    let waits = |partition: &Partition| !image.has_usable_replica(partition, partition.leader);
    change_all(draft, policy, waits, |_| ());
}

/// Moves leaderships away from a broker that wants to go, as far as there is somebody to take them.
pub(super) fn begin_shutdown(draft: &mut Draft, policy: &Policy, id: BrokerId) {
    let Some(broker) = draft.image.broker(id) else { return };
    if !broker.in_controlled_shutdown {
        let change =
            BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change_of(broker) };
        draft.push(change);
    }
    leave(draft, policy, id);
}

/// A change of this registration that changes nothing yet.
pub(super) fn change_of(broker: &Broker) -> BrokerRegistrationChangeRecord {
    BrokerRegistrationChangeRecord {
        broker_id: broker.id.0,
        broker_epoch: broker.epoch,
        ..Default::default()
    }
}

/// Takes a broker out of every ISR, and so out of the leadership. What it has stays as good as it is: where the ISR becomes
/// too small, it may lead from outside.
pub(super) fn leave(draft: &mut Draft, policy: &Policy, id: BrokerId) {
    let is_meant = |partition: &Partition| partition.is_in_isr(id);
    change_all(draft, policy, is_meant, |change| {
        change.target.isr.retain(|member| *member != id);
    });
}

/// Nobody relies any more on what a broker has of the partitions that are `affected`: it leaves their ISRs, and may not
/// lead from outside either.
pub(super) fn doubt(
    draft: &mut Draft,
    policy: &Policy,
    id: BrokerId,
    affected: impl Fn(&Partition) -> bool,
) {
    let is_meant = |partition: &Partition| {
        let is_relied_on =
            partition.is_in_isr(id) || partition.eligible_leader_replicas.contains(&id);
        is_relied_on && affected(partition)
    };
    change_all(draft, policy, is_meant, |change| change.doubt(id));
}

/// A broker's logs are gone, all of them.
pub(super) fn lose_logs(draft: &mut Draft, policy: &Policy, id: BrokerId) {
    let is_meant = |partition: &Partition| partition.replicas.contains(&id);
    change_all(draft, policy, is_meant, |change| {
        let replicas = change.target.replicas.iter().zip(&mut change.target.directories);
        replicas.filter(|(replica, _)| **replica == id).for_each(|(_, it)| *it = Uuid::LOST_DIR);
        change.doubt(id);
    });
}

/// Changes all partitions that are `meant`, with an election where that leaves them without a leader.
pub(super) fn change_all(
    draft: &mut Draft,
    policy: &Policy,
    is_meant: impl Fn(&Partition) -> bool,
    edit: impl Fn(&mut PartitionChange<'_>),
) {
    let image = &draft.image;
    let elections = Elections::of(image, policy);
    let meant = partitions(image).filter(|(_, _, partition)| is_meant(partition));
    let record = |(topic, index, partition): (&Topic, PartitionIndex, &Partition)| {
        let election = elections.automatic(image, topic);
        let mut change = PartitionChange::new(&elections, image, topic, index, partition, election);
        edit(&mut change);
        change.record()
    };
    let records: Vec<MetadataRecord> = meant.filter_map(record).collect();
    draft.extend(records);
}

pub(super) fn partitions(
    image: &Image,
) -> impl Iterator<Item = (&Topic, PartitionIndex, &Partition)> {
    image.topics().flat_map(|topic| {
        topic.partitions().map(move |(index, partition)| (topic, index, partition))
    })
}

#[cfg(test)]
mod tests;
