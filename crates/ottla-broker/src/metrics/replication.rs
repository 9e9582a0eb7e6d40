//! How many replicas the partitions have that they should have, and who serves, by an image of the metadata.

use std::sync::Arc;

use ottla_base::BrokerId;
use ottla_metadata::{ConfigResource, Image, Partition, Topic};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
pub(crate) struct ReplicationMetrics {
    leaders: Gauge,
    under_replicated: Gauge,
    at_min_isr: Gauge,
    under_min_isr: Gauge,
    leaderless: Gauge,
    active_controller: Gauge,
    active_brokers: Gauge,
    fenced_brokers: Gauge,
}

/// Partitions by what is wrong with them, as Apache Kafka counts them: those that one broker leads, and all that nobody leads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    leaders: i64,
    under_replicated: i64,
    at_min_isr: i64,
    under_min_isr: i64,
    leaderless: i64,
}

impl ReplicationMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut gauge =
            |name, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("leaders", "Partitions that this broker leads", &self.leaders);
        gauge(
            "partitions_under_replicated",
            "Partitions that this broker leads with fewer replicas in sync than there are",
            &self.under_replicated,
        );
        gauge(
            "partitions_at_min_isr",
            "Partitions that this broker leads with just as many replicas in sync as acks=all needs",
            &self.at_min_isr,
        );
        gauge(
            "partitions_under_min_isr",
            "Partitions that this broker leads with fewer replicas in sync than acks=all needs",
            &self.under_min_isr,
        );
        gauge(
            "partitions_without_leader",
            "Partitions of the cluster that nobody leads",
            &self.leaderless,
        );
        gauge(
            "active_controller",
            "1 on the node that is the active controller",
            &self.active_controller,
        );
        gauge("brokers_active", "Registered brokers that serve", &self.active_brokers);
        gauge("brokers_fenced", "Registered brokers that do not serve", &self.fenced_brokers);
    }

    /// What one broker sees; `min_insync_replicas` is what holds for topics that do not set it.
    pub(crate) fn set(
        &self,
        image: &Image,
        broker: BrokerId,
        min_insync_replicas: usize,
        is_active_controller: bool,
    ) {
        let counts = Counts::of(image, broker, min_insync_replicas);
        self.leaders.set(counts.leaders);
        self.under_replicated.set(counts.under_replicated);
        self.at_min_isr.set(counts.at_min_isr);
        self.under_min_isr.set(counts.under_min_isr);
        self.leaderless.set(counts.leaderless);
        self.active_controller.set(is_active_controller.into());
        let count = |fenced| image.brokers().map(|it| i64::from(it.fenced == fenced)).sum();
        self.fenced_brokers.set(count(true));
        self.active_brokers.set(count(false));
    }
}

impl Counts {
    fn of(image: &Image, broker: BrokerId, min_insync_replicas: usize) -> Self {
        let mut counts = Self::default();
        for topic in image.topics() {
            let min_isr = min_isr(image, topic, min_insync_replicas);
            for (_, partition) in topic.partitions() {
                counts.leaderless += i64::from(partition.leader == BrokerId::NONE);
                if partition.leader == broker {
                    counts.add_led(partition, topic.least_isr(partition, min_isr));
                }
            }
        }
        counts
    }

    fn add_led(&mut self, partition: &Partition, least: usize) {
        let in_sync = partition.isr.len();
        // Those that a reassignment adds are not missed yet.
        let wanted = partition.replicas.len().saturating_sub(partition.adding_replicas.len());
        self.leaders += 1;
        self.under_replicated += i64::from(in_sync < wanted);
        self.at_min_isr += i64::from(in_sync == least);
        self.under_min_isr += i64::from(in_sync < least);
    }
}

fn min_isr(image: &Image, topic: &Topic, default: usize) -> usize {
    let resource = ConfigResource::topic(Arc::clone(&topic.name));
    let own = image.config_value(&resource, "min.insync.replicas");
    own.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use ottla_base::Uuid;
    use ottla_metadata::Delta;
    use ottla_protocol::records::{ConfigRecord, MetadataRecord, PartitionRecord, TopicRecord};

    use super::*;

    fn image(min_isr: Option<&str>, partitions: &[(i32, &[i32])]) -> Image {
        let (mut image, mut delta) = (Image::new("cluster"), Delta::default());
        let topic_id = Uuid([1; 16]);
        let mut records: Vec<MetadataRecord> =
            vec![MetadataRecord::Topic(TopicRecord { name: "t".into(), topic_id })];
        records.extend(min_isr.map(|value| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: ConfigResource::TOPIC,
                resource_name: "t".into(),
                name: "min.insync.replicas".into(),
                value: Some(value.into()),
            })
        }));
        records.extend((0..).zip(partitions).map(|(partition_id, (leader, isr))| {
            MetadataRecord::Partition(PartitionRecord {
                partition_id,
                topic_id,
                replicas: vec![1, 2, 3],
                isr: isr.to_vec(),
                leader: *leader,
                directories: vec![Uuid([9; 16]); 3],
                ..PartitionRecord::default()
            })
        }));
        for record in &records {
            image.apply_into(record, &mut delta).unwrap();
        }
        image
    }

    #[test]
    fn partitions_count_where_they_are_led_and_without_a_leader_everywhere() {
        let partitions: &[(i32, &[i32])] =
            &[(1, &[1, 2, 3]), (1, &[1, 2]), (1, &[1]), (2, &[2]), (-1, &[3])];
        let counts = Counts::of(&image(None, partitions), BrokerId(1), 2);
        let expected = Counts {
            leaders: 3,
            under_replicated: 2,
            at_min_isr: 1,
            under_min_isr: 1,
            leaderless: 1,
        };
        assert_eq!(counts, expected);
        // No partition needs more replicas than it has.
        let strict = Counts::of(&image(Some("7"), partitions), BrokerId(1), 1);
        assert_eq!((strict.at_min_isr, strict.under_min_isr), (1, 2));
    }
}
