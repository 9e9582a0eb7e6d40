//! What a broker has to do when the metadata changes. Pure.
//!
//! Before the metadata includes the registration of this process there is nothing to do. What comes before that is the
//! cluster's past, replayed: its topics may have been deleted since and made anew under the same names, and today's logs would
//! be taken for theirs.

use std::collections::BTreeSet;

use ottla_base::{BrokerId, PartitionIndex, TopicId, TopicPartition, Uuid};
use ottla_metadata::{Broker, ConfigResource, Delta, Image, Partition, Topic};

/// One process of a broker, from its start to its end.
#[derive(Debug, Clone, Copy)]
pub struct Incarnation {
    pub broker: BrokerId,
    pub id: Uuid,
}

/// Partitions of one topic, and what the metadata says of them.
pub type Partitions<'a> = Vec<(PartitionIndex, &'a Partition)>;

/// A log, by its name and the topic that it says it belongs to, if it says so.
pub type NamedLog = (TopicPartition, Option<TopicId>);

/// One thing to do; steps are carried out in their order.
#[derive(Debug)]
pub enum Step<'a> {
    /// What was there at the start is taken up: a log that nothing owns by now is a stray, and a topic that comes later is a
    /// new one.
    Begin,
    /// A topic is gone, and with it the partitions that this broker held, whether or not they ever had a replica here.
    Gone { topic: &'a Topic, held: Vec<PartitionIndex> },
    /// A topic is there, of which this broker holds these partitions.
    Made { topic: &'a Topic, held: Partitions<'a> },
    /// Partitions of a topic have changed, or were added: this broker holds these, and those no longer, if it did.
    Changed { topic: &'a Topic, held: Partitions<'a>, left: Vec<PartitionIndex> },
    /// Whether another broker may be in an ISR.
    Eligible { broker: BrokerId, is_active: bool },
    /// A topic's configuration has changed.
    Reconfigured { topic: &'a Topic },
}

impl Incarnation {
    /// The broker as it is registered, if this process is what has registered it.
    #[must_use]
    pub fn registered<'a>(&self, image: &'a Image) -> Option<&'a Broker> {
        image.broker(self.broker).filter(|broker| broker.incarnation_id == self.id)
    }

    /// What has to be done as `before`, the image that was carried out last, has become `image` by `delta`; with new defaults
    /// all topics are configured anew. While nothing was carried out yet there is no image before, and nothing to do (`None`)
    /// until this process can begin.
    #[must_use]
    pub fn steps<'a>(
        &self,
        before: Option<&'a Image>,
        image: &'a Image,
        delta: &Delta,
        has_new_defaults: bool,
    ) -> Option<Vec<Step<'a>>> {
        let Some(before) = before else {
            self.registered(image)?;
            let made = image.topics().map(|topic| self.made(topic));
            return Some(std::iter::once(Step::Begin).chain(made).collect());
        };
        // What is here is what the image before has said: a partition may have left this broker and been deleted since.
        let deleted = delta.deleted.keys().filter_map(|id| before.topic(*id));
        let mut steps: Vec<_> = deleted.map(|topic| self.gone(topic)).collect();
        let created = delta.created.iter().filter_map(|id| image.topic(*id));
        steps.extend(created.map(|topic| self.made(topic)));
        let changed: Vec<_> = delta.changed.iter().copied().collect();
        let by_topic = changed.chunk_by(|one, next| one.0 == next.0);
        steps.extend(by_topic.filter_map(|changed| self.changed(image, changed)));
        // What it means for leaders that other brokers come and go is among the partitions that have changed.
        let others = delta.brokers.iter().filter(|id| **id != self.broker);
        steps.extend(others.map(|id| Step::Eligible {
            broker: *id,
            is_active: image.broker(*id).is_some_and(Broker::is_active),
        }));
        if has_new_defaults {
            steps.extend(image.topics().map(|topic| Step::Reconfigured { topic }));
        } else {
            let topics = delta.configs.iter().filter(|it| it.kind == ConfigResource::TOPIC);
            let topics = topics.filter_map(|resource| image.topic_by_name(&resource.name));
            steps.extend(topics.map(|topic| Step::Reconfigured { topic }));
        }
        Some(steps)
    }

    fn holds(&self, partition: &Partition) -> bool {
        partition.replicas.contains(&self.broker)
    }

    fn made<'a>(&self, topic: &'a Topic) -> Step<'a> {
        let held = topic.partitions().filter(|(_, partition)| self.holds(partition)).collect();
        Step::Made { topic, held }
    }

    fn gone<'a>(&self, topic: &'a Topic) -> Step<'a> {
        let held = topic.partitions().filter(|(_, partition)| self.holds(partition));
        Step::Gone { topic, held: held.map(|(index, _)| index).collect() }
    }

    /// Of partitions of one topic.
    fn changed<'a>(
        &self,
        image: &'a Image,
        changed: &[(TopicId, PartitionIndex)],
    ) -> Option<Step<'a>> {
        let topic = image.topic(changed.first()?.0)?;
        let partitions = changed.iter().filter_map(|(_, index)| {
            let partition = topic.partition(*index)?;
            Some((*index, partition))
        });
        let (held, left): (Vec<_>, Vec<_>) =
            partitions.partition(|(_, partition)| self.holds(partition));
        let left = left.into_iter().map(|(index, _)| index).collect();
        Some(Step::Changed { topic, held, left })
    }

    /// Which of these logs no topic owns, or another broker holds now.
    #[must_use]
    pub fn strays(
        &self,
        image: &Image,
        logs: impl IntoIterator<Item = NamedLog>,
    ) -> BTreeSet<NamedLog> {
        let is_stray = |(name, id): &NamedLog| {
            // A copy under another name has the id of a topic, and is none of its partitions.
            let is_named = |topic: &&Topic| topic.name == name.topic;
            let topic = id.and_then(|id| image.topic(id)).filter(is_named);
            let partition = topic.and_then(|topic| topic.partition(name.partition));
            !partition.is_some_and(|partition| self.holds(partition))
        };
        logs.into_iter().filter(is_stray).collect()
    }
}
