//! One change of one partition: who leads it afterwards, and the record that says all of it. Pure.
//!
//! Whoever wants a change states the target's replicas, ISR and so on; the rest follows from that, in one place
//! for fencing, shutdown, AlterPartition, elections and reassignments, as in Kafka. What holds afterwards:
//!
//! - The leader is in the ISR, active, and has its log directory online, or there is none. Only who leads already may
//!   stay without its directory, where nobody else has the data or may lead without: see
//!   [`PartitionChange::may_go_on_reading`]. It leaves the ISR with the first change that finds an heir.
//! - The leader epoch rises with every change of the leader, and whenever a replica is removed.
//! - A leader that may lack data is alone in the ISR, and marked as recovering.
//!
//! Without eligible leader replicas the ISR is not empty: its last member stays, as it may hold what nobody else does.
//! With them (KIP-966):
//!
//! - `eligible_leader_replicas` is empty unless the ISR is smaller than min(`min.insync.replicas`, replicas). Then no
//!   leader moves its high watermark, so that whoever left the ISR since has all that was acknowledged.
//! - Nobody is in both; whoever is in it is a replica whose log nobody has reason to doubt.
//! - Whoever is elected from it is alone in the ISR.
//! - Where nobody is left in either, who led last (`last_known_elr`) may lead when it is back; it may lack data.
//!
//! Kafka takes the replication factor of the topic's first partition, keeps brokers in it that are no replicas any more or
//! whose directory has failed, and elects who led last even from an empty disk. Each of these can elect somebody who
//! lacks acknowledged records, and none of them happens here.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, PartitionIndex, Uuid};
use ottla_protocol::records::PartitionChangeRecord;

use super::Policy;
use super::placement::directory;
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

/// What topics say about elections: whether what a new leader lacks may be lost (`unclean.leader.election.enable`), and
/// who counts as having everything (`min.insync.replicas`).
#[derive(Debug)]
pub(super) struct Elections {
    unclean_by_default: bool,
    min_isr_by_default: i32,
    has_eligible: bool,
}

impl Elections {
    pub(super) fn of(image: &Image, policy: &Policy) -> Self {
        let defaults = policy.topic_defaults(image);
        Self {
            unclean_by_default: defaults.unclean_leader_election_enable,
            min_isr_by_default: defaults.min_insync_replicas,
            has_eligible: image.has_eligible_leader_replicas(),
        }
    }

    pub(super) fn is_unclean(&self, image: &Image, topic: &Topic) -> bool {
        let resource = ConfigResource::topic(topic.name.clone());
        let own = image.config_value(&resource, "unclean.leader.election.enable");
        own.map_or(self.unclean_by_default, |value| value.eq_ignore_ascii_case("true"))
    }

    /// `min.insync.replicas`, as set; `None` where nobody outside the ISR is eligible.
    fn min_isr(&self, image: &Image, topic: &Topic) -> Option<usize> {
        if !self.has_eligible {
            return None;
        }
        let own =
            image.config_value(&ConfigResource::topic(topic.name.clone()), MIN_INSYNC_REPLICAS);
        let own = own.and_then(|value| value.trim().parse().ok());
        Some(usize::try_from(own.unwrap_or(self.min_isr_by_default)).unwrap_or(1))
    }

    /// Where a partition loses its leader without anybody having asked for an election.
    pub(super) fn automatic(&self, image: &Image, topic: &Topic) -> Election {
        if self.is_unclean(image, topic) { Election::Unclean } else { Election::Online }
    }
}

pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A change being prepared.
#[derive(Debug)]
pub(super) struct PartitionChange<'a> {
    image: &'a Image,
    topic: &'a Topic,
    index: PartitionIndex,
    partition: &'a Partition,
    pub(super) election: Election,
    /// `min.insync.replicas`; `None` where nobody outside the ISR is eligible.
    min_isr: Option<usize>,
    /// Whoever leaves the ISR with this change and may not have what it had.
    doubted: Option<BrokerId>,
    /// What the partition is to be; leader and epochs are not looked at.
    pub(super) target: Partition,
}

impl<'a> PartitionChange<'a> {
    pub(super) fn new(
        elections: &Elections,
        image: &'a Image,
        topic: &'a Topic,
        index: PartitionIndex,
        partition: &'a Partition,
        election: Election,
    ) -> Self {
        let min_isr = elections.min_isr(image, topic);
        let target = partition.clone();
        Self { image, topic, index, partition, election, min_isr, doubted: None, target }
    }

    /// Replicas keep their directories; new ones get their broker's default.
    pub(super) fn set_replicas(&mut self, replicas: Vec<BrokerId>) {
        let directory = |id: &BrokerId| {
            self.target.directory_of(*id).unwrap_or_else(|| directory(self.image, *id))
        };
        self.target.directories = replicas.iter().map(directory).collect();
        self.target.replicas = replicas;
    }

    /// A replica leaves the ISR, and what it has is not relied on.
    pub(super) fn doubt(&mut self, id: BrokerId) {
        self.target.isr.retain(|member| *member != id);
        self.doubted = Some(id);
    }

    /// The record of the change; `None` if there is nothing to change.
    pub(super) fn record(mut self) -> Option<MetadataRecord> {
        self.relieve_reader();
        self.complete_reassignment();
        self.settle_eligible();
        match self.elect() {
            Some(Elected::Cleanly(leader)) => self.let_lead(leader),
            Some(Elected::Uncleanly(leader)) => {
                self.target.leader = leader;
                self.target.isr = vec![leader];
                self.target.eligible_leader_replicas.clear();
                self.target.leader_is_recovering = true;
            }
            None => self.target.leader = BrokerId::NONE,
        }
        self.remember_leader();
        if self.target.isr.is_empty() && self.min_isr.is_none() {
            self.target.isr.clone_from(&self.partition.isr);
        }
        self.replace_lost_directories();
        self.difference()
    }

    /// A leader whose directory has failed cannot follow either: in the ISR it would hold up whoever takes over.
    fn relieve_reader(&mut self) {
        let leader = self.partition.leader;
        if self.only_reads(leader) && has_heir(self.image, &self.target, leader) {
            self.doubt(leader);
        }
    }

    /// Whoever leaves an ISR that is too small to acknowledge anything still has all that was acknowledged.
    fn settle_eligible(&mut self) {
        let (doubted, target) = (self.doubted, &mut self.target);
        let topic = self.topic;
        if self.min_isr.is_none_or(|it| target.isr.len() >= topic.least_isr(target, it)) {
            target.eligible_leader_replicas.clear();
            return;
        }
        let before = target.eligible_leader_replicas.iter().chain(&self.partition.isr);
        let stays = |id: &&BrokerId| {
            target.has_log(**id) && !target.isr.contains(id) && doubted != Some(**id)
        };
        let eligible: BTreeSet<BrokerId> = before.filter(stays).copied().collect();
        target.eligible_leader_replicas = eligible.into_iter().collect();
    }

    /// Whoever comes from outside the ISR is alone in it.
    fn let_lead(&mut self, leader: BrokerId) {
        let target = &mut self.target;
        target.leader = leader;
        if !target.isr.is_empty() {
            return;
        }
        target.isr = vec![leader];
        target.eligible_leader_replicas.retain(|id| *id != leader);
        let topic = self.topic;
        if self.min_isr.is_some_and(|it| target.isr.len() >= topic.least_isr(target, it)) {
            target.eligible_leader_replicas.clear();
        }
    }

    /// Who led last is remembered while nobody leads.
    fn remember_leader(&mut self) {
        let any_sure =
            |it: &Partition| it.isr.iter().chain(&it.eligible_leader_replicas).next().copied();
        let (before, target) = (self.partition.leader, &mut self.target);
        if target.leader != BrokerId::NONE || self.min_isr.is_none() {
            target.last_known_elr.clear();
        } else {
            let remembered = target.last_known_elr.first().copied();
            let last = remembered.or_else(|| Some(before).filter(|id| *id != BrokerId::NONE));
            // A partition that has had no leader since before this feature was on may still have an ISR. Who is
            // doubted with this change is the last to be remembered from it.
            let candidates =
                [last, any_sure(target), any_sure(self.partition)].into_iter().flatten();
            // Who is no replica any more, or has nothing left, will not lead: somebody else comes in its place.
            let has_log = |id: &BrokerId| target.has_log(*id);
            let last = candidates.clone().find(has_log).or_else(|| candidates.clone().next());
            target.last_known_elr = last.into_iter().collect();
        }
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
        let (replicas, present) = (&self.target.replicas, &self.partition.leader);
        let can_lead = |id: &BrokerId| self.has_all(*id) && self.is_usable(*id);
        let preferred = replicas.first().filter(|_| self.election == Election::Preferred);
        let clean = preferred
            .filter(|id| can_lead(id))
            .or_else(|| Some(present).filter(|id| can_lead(id)))
            .or_else(|| replicas.iter().find(|id| can_lead(id)));
        if let Some(leader) = clean {
            return Some(Elected::Cleanly(*leader));
        }
        let uncertain = self.last_leader().filter(|id| self.is_usable(*id));
        let unclean = uncertain.or_else(|| self.unclean_leader()).map(Elected::Uncleanly);
        unclean.or_else(|| self.may_go_on_reading().then_some(Elected::Cleanly(*present)))
    }

    /// Whether a replica has all that was acknowledged.
    fn has_all(&self, id: BrokerId) -> bool {
        let Partition { isr, eligible_leader_replicas, .. } = &self.target;
        isr.contains(&id) || isr.is_empty() && eligible_leader_replicas.contains(&id)
    }

    /// Who led last, where nobody is left who surely has everything: what it has is the best there is.
    fn last_leader(&self) -> Option<BrokerId> {
        let Partition { isr, eligible_leader_replicas, last_known_elr, .. } = &self.target;
        let is_last =
            self.min_isr.is_some() && isr.is_empty() && eligible_leader_replicas.is_empty();
        let [last] = **last_known_elr else { return None };
        is_last.then_some(last)
    }

    fn unclean_leader(&self) -> Option<BrokerId> {
        let mut replicas = self.target.replicas.iter().copied();
        replicas.find(|id| self.election == Election::Unclean && self.is_usable(*id))
    }

    /// Whether there would be a leader even if nobody were in the ISR.
    pub(super) fn can_elect_uncleanly(&self) -> bool {
        self.unclean_leader().is_some()
    }

    /// Whether the leader is the only one that there is, and its directory has failed while it led: it still reads from
    /// it, and clients learn from it that it is there. Nobody is elected into that.
    fn may_go_on_reading(&self) -> bool {
        let leader = self.partition.leader;
        *self.target.isr == [leader] && self.only_reads(leader)
    }

    /// Whether a broker runs without the directory that a replica is in.
    fn only_reads(&self, id: BrokerId) -> bool {
        let is_active = || self.image.broker(id).is_some_and(Broker::is_active);
        self.target.has_log(id) && !self.is_usable(id) && is_active()
    }

    fn is_usable(&self, id: BrokerId) -> bool {
        self.image.has_usable_replica(&self.target, id)
    }

    /// Whoever lost its log and is not relied on any more begins a new one.
    fn replace_lost_directories(&mut self) {
        let is_lost = |(id, lost): (&BrokerId, &Uuid)| {
            let is_relied_on = self.target.is_in_isr(*id) || self.last_leader() == Some(*id);
            (*lost == Uuid::LOST_DIR && !is_relied_on).then(|| directory(self.image, *id))
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
            partition_id: unchanged.partition_id,
            topic_id: unchanged.topic_id,
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
            last_known_elr: changed(&before.last_known_elr, &after.last_known_elr),
        };
        (record != unchanged).then(|| record.into())
    }
}

/// Whether somebody else has all that was acknowledged and can lead.
pub(super) fn has_heir(image: &Image, partition: &Partition, id: BrokerId) -> bool {
    let Partition { isr, eligible_leader_replicas, .. } = partition;
    let mut others = isr.iter().chain(eligible_leader_replicas).filter(|other| **other != id);
    others.any(|other| image.has_usable_replica(partition, *other))
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
