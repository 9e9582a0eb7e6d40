//! What is different between two images that no run of records joins: a node that was given a snapshot. Pure.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ottla_base::TopicId;

use super::{Image, Topic};
use crate::delta::Delta;

impl Image {
    /// What led from an earlier image to this one, as if the records between them had been applied, but that what was
    /// changed and changed back is not named.
    #[must_use]
    pub fn delta_since(&self, before: &Self) -> Delta {
        let mut delta = Delta {
            configs: changed_keys(&before.configs, &self.configs).cloned().collect(),
            brokers: changed_keys(&before.brokers, &self.brokers).copied().collect(),
            controllers: changed_keys(&before.controllers, &self.controllers).copied().collect(),
            features: changed_keys(&before.features, &self.features).cloned().collect(),
            producer_ids: before.next_producer_id != self.next_producer_id,
            ..Delta::default()
        };
        for difference in before.topics.diff(&self.topics) {
            match difference {
                DiffItem::Add(id, _) => delta.topic_created(*id),
                DiffItem::Remove(id, topic) => {
                    delta.topic_deleted(*id, Arc::clone(&topic.name));
                }
                DiffItem::Update { old: (id, before), new: (_, after) } => {
                    note_partitions(*id, before, after, &mut delta);
                }
            }
        }
        delta
    }
}

fn note_partitions(id: TopicId, before: &Topic, after: &Topic, delta: &mut Delta) {
    for index in changed_keys(&before.partitions, &after.partitions) {
        delta.partition_changed(id, *index);
    }
}

/// The keys of what was added, changed or removed.
fn changed_keys<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    after: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(after).map(|difference| match difference {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}
