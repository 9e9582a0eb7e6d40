//! Topics and partitions of an image, and the records that change them. Pure.

use std::sync::Arc;

use imbl::OrdMap;
use ottla_base::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, Uuid};
use ottla_protocol::records::{
    ClearElrRecord, PartitionChangeRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
};

use super::{ApplyError, Image};
use crate::delta::{ConfigResource, Delta};
use crate::topic_name::{collision_key, is_internal};

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub(super) partitions: OrdMap<PartitionIndex, Arc<Partition>>,
}

impl Topic {
    #[must_use]
    pub fn partition(&self, partition: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(&partition).map(|partition| &**partition)
    }

    /// All partitions, ordered by index.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        self.partitions.iter().map(|(index, partition)| (*index, &**partition))
    }

    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// How many replicas the first partition has, which is what Kafka calls the topic's factor.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.partitions.values().next().map_or(0, |partition| partition.replicas.len())
    }

    /// How large the ISR of one of its partitions must be for acks=all: as [`Partition::least_isr`], but that a topic of the
    /// cluster's own, which gets more copies by itself, is written to meanwhile as it was when it had one. Nobody has asked for
    /// the copies that are on their way, so nobody expects a stop until they are there.
    #[must_use]
    pub fn least_isr(&self, partition: &Partition, min_insync_replicas: usize) -> usize {
        let Partition { replicas, adding_replicas: adding, .. } = partition;
        let had_one = !adding.is_empty() && replicas.len() == adding.len() + 1;
        let least = partition.least_isr(min_insync_replicas);
        if had_one && is_internal(&self.name) { least.min(1) } else { least }
    }
}

/// Who holds a partition and who leads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// In the order of preference as leader.
    pub replicas: Vec<BrokerId>,
    /// The log directory of each replica, in the order of `replicas`.
    pub directories: Vec<Uuid>,
    pub isr: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    /// Who has all that was acknowledged, though not in the ISR: empty unless the ISR is smaller than
    /// `min.insync.replicas`. In the order of their ids.
    pub eligible_leader_replicas: Vec<BrokerId>,
    /// While there is no leader: who led last.
    pub last_known_elr: Vec<BrokerId>,
    /// [`BrokerId::NONE`] while nobody in the ISR is there.
    pub leader: BrokerId,
    /// Whether the leader came from outside the ISR and has not recovered yet.
    pub leader_is_recovering: bool,
    pub leader_epoch: LeaderEpoch,
    /// Rises with every change of the partition.
    pub partition_epoch: i32,
}

impl Partition {
    #[must_use]
    pub fn is_in_isr(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker)
    }

    /// Whether what a replica has may be all there is of what was acknowledged: it is in the ISR, or may lead from outside.
    #[must_use]
    pub fn relies_on(&self, broker: BrokerId) -> bool {
        let outside = self.eligible_leader_replicas.iter().chain(&self.last_known_elr);
        self.is_in_isr(broker) || outside.copied().any(|id| id == broker)
    }

    /// Whether a reassignment is under way.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// Whether it knows of anybody who may lead it from outside the ISR.
    #[must_use]
    pub fn remembers(&self) -> bool {
        !self.eligible_leader_replicas.is_empty() || !self.last_known_elr.is_empty()
    }

    /// How large the ISR must be for acks=all: `min.insync.replicas`, as far as there are replicas.
    #[must_use]
    pub fn least_isr(&self, min_insync_replicas: usize) -> usize {
        min_insync_replicas.min(self.replicas.len())
    }

    /// The log directory that a broker's replica is in, as far as that is known.
    #[must_use]
    pub fn directory_of(&self, broker: BrokerId) -> Option<Uuid> {
        let at = self.replicas.iter().position(|replica| *replica == broker)?;
        self.directories.get(at).copied()
    }

    /// Whether a broker has a replica, and has not lost its log.
    #[must_use]
    pub fn has_log(&self, broker: BrokerId) -> bool {
        self.directory_of(broker).is_some_and(|directory| directory != Uuid::LOST_DIR)
    }

    fn from_record(record: &PartitionRecord) -> Result<Self, ApplyError> {
        Ok(Self {
            replicas: ids(&record.replicas),
            directories: fit(record.directories.clone(), record.replicas.len()),
            isr: ids(&record.isr),
            removing_replicas: ids(&record.removing_replicas),
            adding_replicas: ids(&record.adding_replicas),
            eligible_leader_replicas: optional_ids(record.eligible_leader_replicas.as_deref()),
            last_known_elr: optional_ids(record.last_known_elr.as_deref()),
            leader: BrokerId(record.leader),
            leader_is_recovering: is_recovering("PartitionRecord", record.leader_recovery_state)?,
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
        })
    }

    /// What a change record does not mention stays; naming a leader, even the same one, begins an epoch.
    fn change(&mut self, record: &PartitionChangeRecord) -> Result<(), ApplyError> {
        const NO_LEADER_CHANGE: i32 = -2;
        const NO_STATE_CHANGE: i8 = -1;
        replace(&mut self.replicas, record.replicas.as_deref());
        let directories = record.directories.clone();
        let directories = directories.unwrap_or_else(|| std::mem::take(&mut self.directories));
        self.directories = fit(directories, self.replicas.len());
        replace(&mut self.isr, record.isr.as_deref());
        replace(&mut self.removing_replicas, record.removing_replicas.as_deref());
        replace(&mut self.adding_replicas, record.adding_replicas.as_deref());
        replace(&mut self.eligible_leader_replicas, record.eligible_leader_replicas.as_deref());
        replace(&mut self.last_known_elr, record.last_known_elr.as_deref());
        if record.leader != NO_LEADER_CHANGE {
            self.leader = BrokerId(record.leader);
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0.saturating_add(1));
        }
        if record.leader_recovery_state != NO_STATE_CHANGE {
            let state = record.leader_recovery_state;
            self.leader_is_recovering = is_recovering("PartitionChangeRecord", state)?;
        }
        self.partition_epoch = self.partition_epoch.saturating_add(1);
        Ok(())
    }
}

/// Who leads a partition, as another node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderTold {
    /// [`BrokerId::NONE`] while nobody leads.
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
}

impl Image {
    /// What is known here, and in addition what the metadata log says further on of some partitions, as it was told: of each
    /// the later leader epoch counts. Not a state of the log, but what clients should be told.
    #[must_use]
    pub fn with_later_leaders<'a>(
        &self,
        told: impl IntoIterator<Item = (TopicId, PartitionIndex, &'a LeaderTold)>,
    ) -> Self {
        let mut image = self.clone();
        for (topic, index, told) in told {
            let Some(topic) = image.topics.get_mut(&topic) else { continue };
            let known = topic.partition(index);
            let Some(known) = known.filter(|it| it.leader_epoch < told.leader_epoch) else {
                continue;
            };
            let later = Partition {
                leader: told.leader,
                leader_epoch: told.leader_epoch,
                isr: told.isr.clone(),
                ..known.clone()
            };
            topic.partitions.insert(index, Arc::new(later));
        }
        image
    }

    pub(super) fn apply_topic(
        &mut self,
        record: &TopicRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let name: Arc<str> = (*record.name).into();
        if self.topic_ids.contains_key(&name) || self.topics.contains_key(&record.topic_id) {
            return Err(ApplyError::TopicExists { name });
        }
        let id = record.topic_id;
        if let Some(key) = collision_key(&name) {
            let names = self.collisions.entry(key.into()).or_default();
            names.insert(Arc::clone(&name));
        }
        self.topic_ids.insert(Arc::clone(&name), id);
        self.topics.insert(id, Topic { name, id, partitions: OrdMap::new() });
        delta.topic_created(id);
        Ok(())
    }

    /// Removes the topic with its partitions and its configuration.
    pub(super) fn apply_remove_topic(
        &mut self,
        record: &RemoveTopicRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let id = record.topic_id;
        let no_topic = ApplyError::NoTopic { record: "RemoveTopicRecord", id };
        let topic = self.topics.remove(&id).ok_or(no_topic)?;
        self.topic_ids.remove(&topic.name);
        if let Some(key) = collision_key(&topic.name) {
            self.remove_collision(&key, &topic.name);
        }
        let resource = ConfigResource::topic(Arc::clone(&topic.name));
        if self.configs.remove(&resource).is_some() {
            delta.configs.insert(resource);
        }
        delta.topic_deleted(id, topic.name);
        Ok(())
    }

    fn remove_collision(&mut self, key: &str, name: &str) {
        let Some(names) = self.collisions.get_mut(key) else { return };
        names.remove(name);
        if names.is_empty() {
            self.collisions.remove(key);
        }
    }

    pub(super) fn apply_partition(
        &mut self,
        record: &PartitionRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let topic = self.topic_mut("PartitionRecord", record.topic_id)?;
        let partition = Arc::new(Partition::from_record(record)?);
        let index = PartitionIndex(record.partition_id);
        topic.partitions.insert(index, partition);
        delta.partition_changed(record.topic_id, index);
        Ok(())
    }

    pub(super) fn apply_partition_change(
        &mut self,
        record: &PartitionChangeRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let topic = self.topic_mut("PartitionChangeRecord", record.topic_id)?;
        let index = PartitionIndex(record.partition_id);
        let no_partition = || ApplyError::NoPartition {
            record: "PartitionChangeRecord",
            topic: Arc::clone(&topic.name),
            partition: record.partition_id,
        };
        let mut partition =
            topic.partitions.get(&index).map(|it| Partition::clone(it)).ok_or_else(no_partition)?;
        partition.change(record)?;
        topic.partitions.insert(index, Arc::new(partition));
        delta.partition_changed(record.topic_id, index);
        Ok(())
    }

    /// Forgets who may lead from outside the ISR: in the topic that is named, or in all. Counts as a change of each
    /// partition where there was somebody.
    pub(super) fn apply_clear_elr(
        &mut self,
        record: &ClearElrRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let no_such = || ApplyError::NoSuchName {
            record: "ClearElrRecord",
            name: (*record.topic_name).into(),
        };
        let topics: Vec<&Topic> = if record.topic_name.is_empty() {
            self.topics.values().collect()
        } else {
            vec![self.topic_by_name(&record.topic_name).ok_or_else(no_such)?]
        };
        let changes = topics.into_iter().flat_map(|topic| {
            let remembering = topic.partitions().filter(|(_, partition)| partition.remembers());
            remembering.map(|(index, _)| PartitionChangeRecord {
                partition_id: index.0,
                topic_id: topic.id,
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                ..Default::default()
            })
        });
        let changes: Vec<PartitionChangeRecord> = changes.collect();
        changes.iter().try_for_each(|change| self.apply_partition_change(change, delta))
    }

    fn topic_mut(&mut self, record: &'static str, id: TopicId) -> Result<&mut Topic, ApplyError> {
        self.topics.get_mut(&id).ok_or(ApplyError::NoTopic { record, id })
    }
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn optional_ids(list: Option<&[i32]>) -> Vec<BrokerId> {
    list.map(ids).unwrap_or_default()
}

fn replace(list: &mut Vec<BrokerId>, new: Option<&[i32]>) {
    if let Some(new) = new {
        *list = ids(new);
    }
}

/// Records older than KIP-858 carry no directories: such replicas count as being migrated.
fn fit(mut directories: Vec<Uuid>, replicas: usize) -> Vec<Uuid> {
    if directories.is_empty() {
        directories.resize(replicas, Uuid::MIGRATING_DIR);
    }
    directories
}

fn is_recovering(record: &'static str, state: i8) -> Result<bool, ApplyError> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            Err(ApplyError::Value { record, field: "LeaderRecoveryState", value: i64::from(other) })
        }
    }
}
