//! One change of one partition: who leads it afterwards, and the record that says all of it. Pure.
//!
//! Whoever wants a change states the target's replicas, ISR and so on; the rest follows from that, in one place
//! for fencing, shutdown, AlterPartition, elections and reassignments, as in Kafka. What holds afterwards:
//!
//! - The leader is in the ISR, active, and has its log directory online, or there is none. Only where nobody else
//!   could, the last member of the ISR leads without its directory: see [`PartitionChange::last_resort`].
//! - The ISR is not empty: its last member stays, as it may hold what nobody else does.
//! - The leader epoch rises with every change of the leader, and whenever a replica is removed.
//! - A leader from outside the ISR is alone in it, and marked as recovering.
//!
//! Absent: eligible leader replicas (KIP-966). That feature is not among those that this release can finalize.

use ottla_base::{BrokerId, PartitionIndex, Uuid};
use ottla_protocol::records::PartitionChangeRecord;

use super::Policy;
use super::reassignments::Reassignment;
use crate::MetadataRecord;
use crate::delta::ConfigResource;
use crate::image::{Broker, Image, Partition, Topic};

/// How far an election may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// The first replica leads if it is in the ISR; else as in `Online`.
    Preferred,
    /// A leader that can stay stays; else the first replica that is in the ISR leads.
    Online,
    /// As `Online`, and where nobody in the ISR can lead, the first replica that can: what it lacks is lost.
    Unclean,
}

/// Which topics accept that what a new leader lacks is lost (`unclean.leader.election.enable`).
#[derive(Debug)]
pub(super) struct Elections {
    unclean_by_default: bool,
}

impl Elections {
    pub(super) fn of(image: &Image, policy: &Policy) -> Self {
        Self { unclean_by_default: policy.topic_defaults(image).unclean_leader_election_enable }
    }

    pub(super) fn is_unclean(&self, image: &Image, topic: &Topic) -> bool {
        let resource = ConfigResource::topic(topic.name.clone());
        let own = image.config(&resource).find(|(key, _)| *key == "unclean.leader.election.enable");
        own.map_or(self.unclean_by_default, |(_, value)| value.eq_ignore_ascii_case("true"))
    }

    /// Where a partition loses its leader without anybody having asked for an election.
    pub(super) fn automatic(&self, image: &Image, topic: &Topic) -> Election {
        if self.is_unclean(image, topic) { Election::Unclean } else { Election::Online }
    }
}

/// A change being prepared.
#[derive(Debug)]
pub(super) struct PartitionChange<'a> {
    image: &'a Image,
    topic: &'a Topic,
    index: PartitionIndex,
    partition: &'a Partition,
    pub(super) election: Election,
    /// What the partition is to be; leader and epochs are not looked at.
    pub(super) target: Partition,
}

impl<'a> PartitionChange<'a> {
    pub(super) fn new(
        image: &'a Image,
        topic: &'a Topic,
        index: PartitionIndex,
        partition: &'a Partition,
        election: Election,
    ) -> Self {
        Self { image, topic, index, partition, election, target: partition.clone() }
    }

    /// Replicas keep their directories; new ones get their broker's default.
    pub(super) fn set_replicas(&mut self, replicas: Vec<BrokerId>) {
        let directory = |id: &BrokerId| {
            self.target.directory_of(*id).unwrap_or_else(|| self.default_directory(*id))
        };
        self.target.directories = replicas.iter().map(directory).collect();
        self.target.replicas = replicas;
    }

    fn default_directory(&self, id: BrokerId) -> Uuid {
        self.image.broker(id).map_or(Uuid::UNASSIGNED_DIR, Broker::default_directory)
    }

    /// The record of the change; `None` if there is nothing to change.
    pub(super) fn record(mut self) -> Option<MetadataRecord> {
        self.complete_reassignment();
        match self.elect() {
            Some(Elected::Cleanly(leader)) => self.target.leader = leader,
            Some(Elected::Uncleanly(leader)) => {
                self.target.leader = leader;
                self.target.isr = vec![leader];
                self.target.leader_is_recovering = true;
            }
            None => self.target.leader = BrokerId::NONE,
        }
        if self.target.isr.is_empty() {
            self.target.isr.clone_from(&self.partition.isr);
        }
        self.target.eligible_leader_replicas.clear();
        self.replace_lost_directories();
        self.difference()
    }

    fn complete_reassignment(&mut self) {
        if let Some((replicas, isr)) = Reassignment::completed(&self.target) {
            self.set_replicas(replicas);
            self.target.isr = isr;
            self.target.adding_replicas.clear();
            self.target.removing_replicas.clear();
        }
    }

    fn elect(&self) -> Option<Elected> {
        let replicas = &self.target.replicas;
        let can_lead = |id: &BrokerId| self.target.is_in_isr(*id) && self.is_usable(*id);
        let preferred = replicas.first().filter(|_| self.election == Election::Preferred);
        let clean = preferred
            .filter(|id| can_lead(id))
            .or_else(|| Some(&self.partition.leader).filter(|id| self.can_stay(**id)))
            .or_else(|| replicas.iter().find(|id| can_lead(id)));
        if let Some(leader) = clean {
            return Some(Elected::Cleanly(*leader));
        }
        let unclean = self.unclean_leader().map(Elected::Uncleanly);
        unclean.or_else(|| self.last_resort().map(Elected::Cleanly))
    }

    fn unclean_leader(&self) -> Option<BrokerId> {
        let mut replicas = self.target.replicas.iter().copied();
        replicas.find(|id| self.election == Election::Unclean && self.is_usable(*id))
    }

    /// Whether there would be a leader even if nobody were in the ISR.
    pub(super) fn can_elect_uncleanly(&self) -> bool {
        self.unclean_leader().is_some()
    }

    fn can_stay(&self, leader: BrokerId) -> bool {
        self.target.is_in_isr(leader) && self.is_usable(leader)
            || self.last_resort() == Some(leader)
    }

    /// The only member of the ISR, whose directory is missing for now or has failed while it led: clients learn from
    /// it that it is there, and may still read. A directory that is known to be lost gives no leader.
    fn last_resort(&self) -> Option<BrokerId> {
        let [last] = *self.target.isr else { return None };
        let is_lost = self.target.directory_of(last).is_none_or(|it| it == Uuid::LOST_DIR);
        (!is_lost && self.image.broker(last).is_some_and(Broker::is_active)).then_some(last)
    }

    /// Whether the broker may lead, and has the replica's log directory.
    fn is_usable(&self, id: BrokerId) -> bool {
        let directory = self.target.directory_of(id);
        let has = |broker: &Broker| directory.is_some_and(|it| broker.has_online(it));
        self.image.broker(id).is_some_and(|broker| broker.is_active() && has(broker))
    }

    /// Whoever lost its log and is not relied on any more begins a new one.
    fn replace_lost_directories(&mut self) {
        let is_lost = |(id, directory): (&BrokerId, &Uuid)| {
            (*directory == Uuid::LOST_DIR && !self.target.is_in_isr(*id))
                .then(|| self.default_directory(*id))
        };
        let replicas = self.target.replicas.iter().zip(&self.target.directories);
        let directories: Vec<Uuid> = replicas
            .map(|(id, directory)| is_lost((id, directory)).unwrap_or(*directory))
            .collect();
        self.target.directories = directories;
    }

    fn difference(&self) -> Option<MetadataRecord> {
        const NO_CHANGE: i8 = -1;
        let Self { partition: before, target: after, .. } = self;
        let has_lost_a_replica = before.replicas.iter().any(|id| !after.replicas.contains(id));
        let begins_an_epoch = before.leader != after.leader || has_lost_a_replica;
        let recovers = before.leader_is_recovering != after.leader_is_recovering;
        let unchanged = PartitionChangeRecord {
            partition_id: self.index.0,
            topic_id: self.topic.id,
            ..Default::default()
        };
        let record = PartitionChangeRecord {
            isr: changed(&before.isr, &after.isr),
            leader: if begins_an_epoch { after.leader.0 } else { unchanged.leader },
            replicas: changed(&before.replicas, &after.replicas),
            removing_replicas: changed(&before.removing_replicas, &after.removing_replicas),
            adding_replicas: changed(&before.adding_replicas, &after.adding_replicas),
            leader_recovery_state: if recovers {
                after.leader_is_recovering.into()
            } else {
                NO_CHANGE
            },
            directories: (before.directories != after.directories)
                .then(|| after.directories.clone()),
            eligible_leader_replicas: changed(
                &before.eligible_leader_replicas,
                &after.eligible_leader_replicas,
            ),
            ..unchanged.clone()
        };
        (record != unchanged).then(|| record.into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elected {
    Cleanly(BrokerId),
    Uncleanly(BrokerId),
}

fn changed(before: &[BrokerId], after: &[BrokerId]) -> Option<Vec<i32>> {
    (before != after).then(|| after.iter().map(|id| id.0).collect())
}

#[cfg(test)]
mod tests;
