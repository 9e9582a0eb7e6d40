//! The partitions that this broker holds.
//!
//! Invariant: a partition is in `by_partition` exactly if its topic is in the metadata image that was applied last, this
//! broker is one of its replicas, and its log could be opened; if only that is not so, it is in `unopened`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, Offset, PartitionIndex, TopicId};
use ottla_log::{CleanableLogs, FlushListener, Log, StorageError};
use parking_lot::RwLock;

use crate::flush_reports;
use crate::replica::{Outboxes, Replica};

/// All partitions on this broker, by topic id and partition.
#[derive(Debug, Default)]
pub struct Replicas {
    by_partition: RwLock<HashMap<(TopicId, PartitionIndex), Arc<Replica>>>,
    unopened: RwLock<HashSet<(TopicId, PartitionIndex)>>,
    pub outboxes: Outboxes,
}

impl FlushListener for Replicas {
    fn flushed(&self, log: &Arc<Log>, _: Offset) {
        // One that has been moved away, or a copy on its way here, has nothing to say.
        if let Some(replica) = self.of_log(log).filter(|it| Arc::ptr_eq(&it.log(), log)) {
            replica.on_flushed();
        }
    }

    /// Nothing that waits for this disk will ever be acknowledged.
    fn poisoned(&self, directory: &Path, _: &StorageError) {
        let all = self.all();
        let in_it = all.iter().filter(|replica| replica.log().directory() == directory);
        in_it.for_each(|replica| replica.take_offline());
    }
}

impl CleanableLogs for Replicas {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        let by_partition = self.by_partition.read();
        let compacted = by_partition.values().filter(|replica| replica.log().config().compact);
        compacted.map(|replica| (replica.log(), replica.high_watermark())).collect()
    }

    fn shortened(&self, log: &Arc<Log>) {
        if let Some(replica) = self.of_log(log) {
            replica.tell_fetcher();
        }
    }
}

impl Replicas {
    /// A follower's report on what it has on disk, as its broker has written it.
    pub fn on_flushed_elsewhere(&self, report: Bytes) {
        let told = flush_reports::decode(report, |topic, partition, word| {
            if let Some(replica) = self.find(topic, partition.0) {
                replica.on_follower_flushed(word);
            }
        });
        if let Err(error) = told {
            tracing::warn!(%error, "a follower's report on its flushes makes no sense");
        }
    }

    /// A broker may join ISRs, or may not any longer.
    pub fn on_eligibility_changed(&self, broker: BrokerId, is_eligible: bool) {
        self.all().iter().for_each(|it| it.on_eligibility_changed(broker, is_eligible));
    }

    /// Lets leaders look after followers that lag, where it is time: what the watch does for one after the other.
    pub fn on_time(&self, now: Duration) {
        let all = self.all();
        let due = |replica: &&Arc<Replica>| replica.deadline().is_some_and(|due| due <= now);
        all.iter().filter(due).for_each(|replica| replica.look_after_followers(now));
    }

    /// That of the partition that a log is of.
    fn of_log(&self, log: &Log) -> Option<Arc<Replica>> {
        self.find(log.topic_id()?, log.topic_partition().partition.0)
    }

    #[must_use]
    pub fn find(&self, topic_id: TopicId, partition: i32) -> Option<Arc<Replica>> {
        self.by_partition.read().get(&(topic_id, PartitionIndex(partition))).cloned()
    }

    pub fn insert(&self, replica: Arc<Replica>) {
        let key = (replica.topic_id, replica.partition.partition);
        self.by_partition.write().insert(key, replica);
        self.unopened.write().remove(&key);
    }

    /// This broker is to hold a partition whose log can't be opened.
    pub fn note_unopened(&self, topic_id: TopicId, partition: PartitionIndex) {
        self.unopened.write().insert((topic_id, partition));
    }

    /// It is to be elsewhere by now.
    pub fn forget_unopened(&self, topic_id: TopicId, partition: PartitionIndex) {
        self.unopened.write().remove(&(topic_id, partition));
    }

    #[must_use]
    pub fn is_unopened(&self, topic_id: TopicId, partition: PartitionIndex) -> bool {
        self.unopened.read().contains(&(topic_id, partition))
    }

    /// Takes a partition out; those who wait for it look again and find it gone.
    pub fn remove(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<Arc<Replica>> {
        self.forget_unopened(topic_id, partition);
        let removed = self.by_partition.write().remove(&(topic_id, partition));
        if let Some(replica) = &removed {
            replica.take_away();
        }
        removed
    }

    #[must_use]
    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.by_partition.read().values().cloned().collect()
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_partition.read().len()
    }

    /// Ranges of records that are refused because the disk has changed them.
    #[must_use]
    pub(crate) fn quarantined_count(&self) -> usize {
        self.by_partition.read().values().map(|replica| replica.log().quarantined_count()).sum()
    }

    /// Producers that the partitions remember; one that writes to several counts for each.
    #[must_use]
    pub(crate) fn producer_count(&self) -> usize {
        self.by_partition.read().values().map(|replica| replica.log().producer_count()).sum()
    }
}
