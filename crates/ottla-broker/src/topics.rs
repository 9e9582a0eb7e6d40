//! Carries out on this broker what the metadata says: logs of new topics are created, those of deleted ones removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla_base::{BrokerId, PartitionIndex, TopicId, TopicPartition, Uuid};
use ottla_config::TopicConfig;
use ottla_coordinator::group::TopicDeleted;
use ottla_log::{CreateError, Log, LogCleaner};
use ottla_metadata::{ConfigResource, Delta, Image, Partition, Topic, topic_name};
use ottla_quorum::Publisher;
use tracing::{error, info, warn};

use crate::cleaner;
use crate::configuration::Configuration;
use crate::directory_reports::DirectoryReports;
use crate::group_coordinator::GroupCoordinator;
use crate::log_directories::LogDirectories;
use crate::log_moves::LogMoves;
use crate::replicas::{Replica, Replicas};
use crate::topic_config;

/// The logs and replicas of this broker, kept equal to the metadata.
#[derive(Debug)]
pub(crate) struct Topics {
    pub node_id: BrokerId,
    pub directories: Arc<LogDirectories>,
    pub replicas: Arc<Replicas>,
    pub configuration: Arc<Configuration>,
    pub groups: Arc<GroupCoordinator>,
    pub reports: Arc<DirectoryReports>,
    pub moves: Arc<LogMoves>,
    /// Whether what was there at the start has been taken up: from then on, a created topic is a new one.
    pub started: AtomicBool,
    pub cleaner: Option<Arc<LogCleaner>>,
}

impl Publisher for Topics {
    fn publish(&self, image: &Arc<Image>, delta: &Delta) {
        // First of all: what is made below is made with it.
        let defaults_changed = self.configuration.follow(image, delta);
        for topic in delta.deleted.values() {
            self.delete(topic);
        }
        for topic in delta.created.iter().filter_map(|id| image.topic(*id)) {
            self.create_all(image, topic);
        }
        for (topic_id, index) in &delta.changed {
            self.follow(image, *topic_id, *index);
        }
        self.started.store(true, Ordering::Relaxed);
        if defaults_changed {
            let live = self.configuration.live();
            self.directories.set_producer_id_expiration_ms(live.producer_id_expiration_ms);
            self.directories.set_reserved_bytes(live.reserved_bytes);
            if let Some(cleaner) = &self.cleaner {
                cleaner.reconfigure(cleaner::options(&live.cleaner));
            }
            image.topics().for_each(|topic| self.reconfigure(image, topic));
            return;
        }
        let is_topic = |resource: &&ConfigResource| resource.kind == ConfigResource::TOPIC;
        let topics = delta.configs.iter().filter(is_topic);
        for topic in topics.filter_map(|resource| image.topic_by_name(&resource.name)) {
            self.reconfigure(image, topic);
        }
    }

    /// Only now can nobody commit an offset any more in a topic that is gone.
    fn visible(&self, delta: &Delta) {
        self.forget_offsets_in(delta);
    }
}

impl Topics {
    /// Renames logs that no topic owns: never served, never deleted.
    pub(crate) fn set_strays_aside(&self, image: &Image) {
        for log in self.directories.logs() {
            let name = log.topic_partition();
            // A copy under another name has the id of a topic, and is none of its partitions.
            let is_named = |topic: &&Topic| topic.name == name.topic;
            let topic = log.topic_id().and_then(|id| image.topic(id)).filter(is_named);
            if topic.is_none_or(|topic| topic.partition(name.partition).is_none()) {
                self.set_aside(&log);
            }
        }
    }

    fn set_aside(&self, log: &Arc<Log>) {
        let partition = log.topic_partition();
        match self.directories.set_aside(partition) {
            Ok(_) => warn!(%partition, "a log without a topic was set aside as -stray"),
            Err(error) => error!(%partition, %error, "a log without a topic can't be set aside"),
        }
    }

    fn create_all(&self, image: &Image, topic: &Topic) {
        let config = self.config(image, topic);
        for (index, partition) in topic.partitions() {
            self.create(topic, index, partition, &config);
        }
    }

    /// Makes the log of a partition that this broker is to hold.
    fn create(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        config: &TopicConfig,
    ) {
        if partition.replicas.contains(&self.node_id)
            && let Err(error) = self.try_create(topic, index, partition, config)
        {
            // Clients get KAFKA_STORAGE_ERROR for a partition that has no log.
            error!(topic = %topic.name, partition = %index, %error, "log can't be opened");
        }
    }

    fn try_create(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        config: &TopicConfig,
    ) -> Result<(), CreateError> {
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
        let log_config = Arc::new(topic_config::log_config(config));
        let assigned = partition.directory_of(self.node_id).unwrap_or(Uuid::UNASSIGNED_DIR);
        let log = self.open_log(&name, topic.id, assigned, log_config)?;
        if let Some(directory) = self.directories.id_of(&log).filter(|id| *id != assigned) {
            self.reports.assigned(topic.id, index.0, directory);
        }
        let rules = topic_config::rules(name, config);
        let min_isr = min_isr(config, partition);
        let epoch = partition.leader_epoch;
        let replica = Replica::new(self.node_id, topic.id, log, epoch, min_isr, rules);
        let replica = Arc::new(replica);
        self.replicas.insert(Arc::clone(&replica));
        if &*topic.name == topic_name::CONSUMER_OFFSETS && partition.leader == self.node_id {
            self.groups.elected(&replica, topic.partitions().count());
        }
        Ok(())
    }

    /// The partition's log as it is on disk, or a new one.
    fn open_log(
        &self,
        name: &TopicPartition,
        topic_id: TopicId,
        assigned: Uuid,
        config: Arc<ottla_log::LogConfig>,
    ) -> Result<Arc<Log>, CreateError> {
        if let Some(log) = self.directories.log(name) {
            if log.topic_id() == Some(topic_id) {
                log.set_config(config);
                return Ok(log);
            }
            // The name belonged to a topic that was deleted while this broker did not look.
            self.set_aside(&log);
        }
        let may_be_elsewhere = !self.directories.unreadable().is_empty();
        if may_be_elsewhere && !self.started.load(Ordering::Relaxed) {
            return Err(CreateError::NoDirectory { log: name.to_string() });
        }
        let place = match assigned {
            Uuid::UNASSIGNED_DIR | Uuid::MIGRATING_DIR => self.moves.fulfil(name),
            // An empty log in another directory would pass for the one that is not readable now.
            assigned => Some(assigned),
        };
        self.directories.create(name.clone(), topic_id, config, place)
    }

    /// A topic has grown by a partition, or a partition has changed.
    fn follow(&self, image: &Image, topic_id: TopicId, index: PartitionIndex) {
        let Some(topic) = image.topic(topic_id) else { return };
        let Some(partition) = topic.partition(index) else { return };
        let Some(replica) = self.replicas.find(topic_id, index.0) else {
            return self.create(topic, index, partition, &self.config(image, topic));
        };
        let is_group_topic = &*topic.name == topic_name::CONSUMER_OFFSETS;
        if partition.leader == self.node_id {
            // Leader epochs rise while a broker runs, at its own registration for one. Clients compare what a
            // broker says with the metadata (KIP-320), so a broker must never stay behind.
            replica.on_leadership(partition.leader_epoch, partition.isr.iter().copied().collect());
            if is_group_topic {
                self.groups.elected(&replica, topic.partitions().count());
            }
        } else if is_group_topic {
            self.groups.resigned(index.0);
        }
    }

    fn delete(&self, topic: &Topic) {
        for (index, _) in topic.partitions() {
            if &*topic.name == topic_name::CONSUMER_OFFSETS {
                self.groups.resigned(index.0);
            }
            self.replicas.remove(topic.id, index);
            let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
            self.moves.cancel(&name);
            if let Err(error) = self.directories.delete(&name) {
                error!(partition = %name, %error, "log can't be deleted");
            }
        }
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            self.groups.topic_gone();
        }
        info!(topic = %topic.name, id = %topic.id, "topic deleted");
    }

    fn forget_offsets_in(&self, delta: &Delta) {
        let deleted = delta.deleted.values();
        let deleted: Vec<_> = deleted
            .map(|topic| TopicDeleted { id: topic.id, name: (&*topic.name).into() })
            .collect();
        if !deleted.is_empty() {
            self.groups.topics_deleted(&deleted);
        }
    }

    fn reconfigure(&self, image: &Image, topic: &Topic) {
        let config = self.config(image, topic);
        for (index, partition) in topic.partitions() {
            let Some(replica) = self.replicas.find(topic.id, index.0) else { continue };
            replica.log().set_config(Arc::new(topic_config::log_config(&config)));
            replica.set_rules(topic_config::rules(replica.partition.clone(), &config));
            replica.on_min_isr_changed(min_isr(&config, partition));
        }
    }

    fn config(&self, image: &Image, topic: &Topic) -> TopicConfig {
        let resource = ConfigResource::topic(Arc::clone(&topic.name));
        self.configuration.live().topic_defaults.with_overrides(image.config(&resource))
    }
}

/// `min.insync.replicas` never asks for more replicas than the partition has.
fn min_isr(config: &TopicConfig, partition: &Partition) -> usize {
    usize::try_from(config.min_insync_replicas).unwrap_or(1).min(partition.replicas.len())
}
