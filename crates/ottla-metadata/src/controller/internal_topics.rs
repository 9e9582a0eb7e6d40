//! Topics of the cluster's own that were made with one copy, since there was one broker: they get the others once there are
//! brokers for them. Pure.
//!
//! The copies that are wanted are what a person has set for the topic (1 stays 1), or Kafka's default, 3, where nobody has: what a lone
//! node without a file is given for itself is nobody's choice. Only a topic of which every partition has exactly one replica grows,
//! and whole, in one decision: who has set another number by hand keeps it, and there is no half of it that anybody could find
//! after a crash. It is an ordinary reassignment, which is seen and can be called off like any other; one that is called off for all
//! partitions begins anew, as long as nobody has set the number.
//!
//! Invariants: the replica that is there stays, and leads until the others are in sync; only active brokers are added; nothing
//! grows that does not have all of its partitions led.

use std::sync::Arc;

use ottla_base::BrokerId;
use ottla_config::settings::Settings;

use super::draft::Draft;
use super::partition_change::{Election, Elections, PartitionChange};
use super::placement::Placer;
use super::reassignments::Reassignment;
use super::{Policy, RECORDS_MAX};
use crate::MetadataRecord;
use crate::image::{Broker, Image, Partition, Topic};
use crate::topic_name;

/// The topics, and what says how many copies of them there are to be.
const FACTORS: [(&str, &str); 3] = [
    (topic_name::CONSUMER_OFFSETS, "offsets.topic.replication.factor"),
    (topic_name::TRANSACTION_STATE, "transaction.state.log.replication.factor"),
    (topic_name::SHARE_GROUP_STATE, "share.coordinator.state.topic.replication.factor"),
];

/// How many copies of each topic are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted([(&'static str, i16); FACTORS.len()]);

/// A topic that gets more copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    pub topic: Arc<str>,
    pub partitions: usize,
    pub replication_factor: i16,
}

impl Wanted {
    pub(super) fn by(settings: &Settings) -> Self {
        let defaults = Settings::default();
        Self(FACTORS.map(|(topic, property)| {
            let chosen = if settings.is_chosen(property) { settings } else { &defaults };
            (topic, chosen.short(property))
        }))
    }

    /// The first topic that can grow now, and to how many copies. Cheap where there is none.
    pub(super) fn next<'a>(&self, image: &'a Image) -> Option<(&'a Topic, i16)> {
        self.0.iter().find_map(|(name, factor)| {
            let topic = image.topic_by_name(name)?;
            can_grow(image, topic, *factor).then_some((topic, *factor))
        })
    }
}

fn can_grow(image: &Image, topic: &Topic, factor: i16) -> bool {
    let has_one = |partition: &Partition| partition.replicas.len() == 1;
    // Most are told apart by their first partition.
    let is_small = topic.partitions().next().is_some_and(|(_, first)| has_one(first));
    if factor <= 1 || !is_small {
        return false;
    }
    let takers = image.brokers().filter(|broker| takes_replicas(broker)).count();
    if usize::try_from(factor).is_ok_and(|factor| takers < factor) {
        return false;
    }
    let is_ready = |partition: &Partition| {
        has_one(partition)
            && !partition.is_moving()
            && image.has_usable_replica(partition, partition.leader)
    };
    let mut partitions = topic.partitions();
    partitions.all(|(_, partition)| is_ready(partition))
        && topic.partitions().count() <= RECORDS_MAX
}

fn takes_replicas(broker: &Broker) -> bool {
    broker.is_active() && broker.has_uncordoned_directory()
}

/// Begins to give a topic its copies.
pub(super) fn grow(draft: &mut Draft, policy: &Policy, wanted: &Wanted) -> Option<Grown> {
    let image = &draft.image;
    let (topic, factor) = wanted.next(image)?;
    let elections = Elections::of(image, policy);
    // Which order is drawn matters to nobody, but that it is not the same for every topic.
    let seed = topic.id.0.iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
    let mut placer = Placer::among(image, seed, takes_replicas);
    let records = topic.partitions().filter_map(|(index, partition)| {
        let target = with(image, placer.place(factor), partition.leader);
        let election = Election::Online;
        let mut change = PartitionChange::new(&elections, image, topic, index, partition, election);
        Reassignment::begin(&mut change, &target, partition);
        change.record()
    });
    let records: Vec<MetadataRecord> = records.collect();
    let grown = Grown {
        topic: Arc::clone(&topic.name),
        partitions: records.len(),
        replication_factor: factor,
    };
    draft.extend(records);
    Some(grown)
}

/// The brokers that were drawn, with the one that has the data among them: in place of one of its own rack, or the last.
fn with(image: &Image, mut drawn: Vec<BrokerId>, leader: BrokerId) -> Vec<BrokerId> {
    if drawn.contains(&leader) {
        return drawn;
    }
    let rack = |id: BrokerId| image.broker(id).and_then(|broker| broker.rack.clone());
    let place = match drawn.iter().rposition(|id| rack(*id) == rack(leader)) {
        Some(at) => drawn.get_mut(at),
        None => drawn.last_mut(),
    };
    if let Some(place) = place {
        *place = leader;
    }
    drawn
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ottla_base::{PartitionIndex, TopicId};
    use ottla_config::settings::Sources;
    use ottla_protocol::messages::alter_partition_request::{
        BrokerState, PartitionData, TopicData,
    };
    use ottla_protocol::messages::{AlterPartitionRequest, ListPartitionReassignmentsRequest};
    use ottla_protocol::records::{PartitionChangeRecord, RegisterBrokerRecord, TopicRecord};

    use super::*;
    use crate::controller::brokers::tests::{
        directory_of, fence, finalize_eligible, image_with_brokers, partition_record,
    };
    use crate::controller::{alter_partition, list_partition_reassignments};

    const TOPIC: TopicId = TopicId::from_u128(9);

    fn policy(set: &[&str]) -> Policy {
        let set = set.iter().map(|&it| it.to_owned()).collect();
        // Without a file, and alone: the factors of a lone node are built in.
        let loaded = ottla_config::load(&Sources { set, ..Sources::default() });
        Policy::from_settings(loaded.unwrap_or_else(|rejected| panic!("{rejected}")).settings)
    }

    fn image(brokers: &[i32], name: &str, partitions: &[&[i32]]) -> Image {
        let mut image = image_with_brokers(brokers);
        image.apply(&TopicRecord { name: name.into(), topic_id: TOPIC }.into()).unwrap();
        for (index, replicas) in (0..).zip(partitions) {
            image.apply(&partition_record(TOPIC, index, replicas, replicas)).unwrap();
        }
        image
    }

    fn grown(image: &mut Image, policy: &Policy) -> Option<(usize, i16)> {
        let wanted = Wanted::by(&policy.settings);
        let mut draft = Draft::on(image);
        let grown = grow(&mut draft, policy, &wanted);
        *image = draft.image;
        grown.map(|it| (it.partitions, it.replication_factor))
    }

    #[test]
    fn a_topic_grows_to_what_is_set_or_three_once_there_are_brokers_for_that() {
        const OFFSETS: &str = topic_name::CONSUMER_OFFSETS;
        let one: &[&[i32]] = &[&[1], &[1]];
        let set = |factor| format!("offsets.topic.replication.factor={factor}");
        for (brokers, name, partitions, chosen, expected) in [
            (vec![1], OFFSETS, one, None, None),
            (vec![1, 2], OFFSETS, one, None, None),
            (vec![1, 2, 3], OFFSETS, one, None, Some((2, 3))),
            (vec![1, 2, 3], topic_name::TRANSACTION_STATE, one, None, Some((2, 3))),
            (vec![1, 2, 3], topic_name::SHARE_GROUP_STATE, one, None, Some((2, 3))),
            (vec![1, 2, 3], "orders", one, None, None),
            (vec![1, 2, 3], OFFSETS, one, Some(1), None),
            (vec![1, 2], OFFSETS, one, Some(2), Some((2, 2))),
            (vec![1, 2, 3, 4], OFFSETS, one, Some(5), None),
            // One is as somebody wanted it, or is on its way.
            (vec![1, 2, 3], OFFSETS, &[&[1], &[1, 2]], None, None),
            (vec![1, 2, 3], OFFSETS, &[&[2, 1], &[1, 2]], None, None),
        ] {
            let mut image = image(&brokers, name, partitions);
            let chosen = chosen.map(set);
            let set: Vec<&str> = chosen.iter().map(|it| &**it).collect();
            let now = grown(&mut image, &policy(&set));
            assert_eq!(now, expected, "{brokers:?} {name} {partitions:?} {set:?}");
            assert_eq!(grown(&mut image, &policy(&set)), None, "it has begun already");
        }
    }

    #[test]
    fn nothing_grows_while_a_partition_is_led_by_nobody_or_a_broker_is_away() {
        let mut waiting = image(&[1, 2, 3, 4], topic_name::CONSUMER_OFFSETS, &[&[1], &[4]]);
        fence(&mut waiting, 2);
        let mut led_by_nobody = waiting.clone();
        fence(&mut waiting, 3);
        assert_eq!(grown(&mut waiting, &policy(&[])), None, "two brokers are there");
        fence(&mut led_by_nobody, 4);
        assert_eq!(grown(&mut led_by_nobody, &policy(&[])), None);
    }

    #[test]
    fn a_broker_that_is_away_gets_nothing_though_its_rack_has_nobody_else() {
        let mut image = image_with_brokers(&[]);
        for (id, rack) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            let rack = Some(rack.into());
            let log_dirs = vec![directory_of(id)];
            let broker =
                RegisterBrokerRecord { broker_id: id, rack, log_dirs, ..Default::default() };
            image.apply(&RegisterBrokerRecord { fenced: false, ..broker }.into()).unwrap();
        }
        fence(&mut image, 4);
        let name = topic_name::CONSUMER_OFFSETS.into();
        image.apply(&TopicRecord { name, topic_id: TOPIC }.into()).unwrap();
        image.apply(&partition_record(TOPIC, 0, &[1], &[1])).unwrap();
        assert_eq!(grown(&mut image, &policy(&[])), Some((1, 3)));
        let replicas = &image.partition(TOPIC, PartitionIndex(0)).unwrap().replicas;
        assert!(replicas.iter().all(|id| id.0 != 4), "{replicas:?}");
    }

    /// What a leader says when one more follower has everything.
    fn join(image: &mut Image, index: i32) {
        let partition = image.partition(TOPIC, PartitionIndex(index)).unwrap().clone();
        let next = partition.replicas.iter().find(|id| !partition.isr.contains(id)).unwrap();
        let state = |id: &BrokerId| BrokerState {
            broker_id: id.0,
            broker_epoch: image.broker(*id).unwrap().epoch,
        };
        let leader = state(&partition.leader);
        let request = AlterPartitionRequest {
            broker_id: leader.broker_id,
            broker_epoch: leader.broker_epoch,
            topics: vec![TopicData {
                topic_id: TOPIC,
                partitions: vec![PartitionData {
                    partition_index: index,
                    leader_epoch: partition.leader_epoch.0,
                    partition_epoch: partition.partition_epoch,
                    new_isr_with_epochs: partition.isr.iter().chain([next]).map(state).collect(),
                    ..Default::default()
                }],
            }],
        };
        let records = alter_partition(image, &Policy::default(), &request, 3).records;
        assert!(!records.is_empty(), "{partition:?}");
        records.iter().for_each(|record| image.apply(record).unwrap());
    }

    /// With two replicas that must be in sync, as far as there are so many.
    #[test]
    fn a_topic_that_grows_is_written_to_as_before_until_all_are_in_sync() {
        let least_isr = |image: &Image| {
            let topic = image.topic(TOPIC).unwrap();
            topic.least_isr(topic.partition(PartitionIndex(0)).unwrap(), 2)
        };
        let mut image = image(&[1, 2, 3], topic_name::CONSUMER_OFFSETS, &[&[1]]);
        assert_eq!(least_isr(&image), 1);
        assert_eq!(grown(&mut image, &policy(&[])), Some((1, 3)));
        assert_eq!(least_isr(&image), 1);
        join(&mut image, 0);
        assert_eq!(least_isr(&image), 1);
        join(&mut image, 0);
        assert_eq!(least_isr(&image), 2);
    }

    /// What somebody has asked for is as in Apache Kafka.
    #[test]
    fn what_is_added_to_another_topic_or_to_several_copies_counts_at_once() {
        for (name, replicas, expected) in
            [("orders", &[1][..], 2), (topic_name::CONSUMER_OFFSETS, &[1, 2], 2)]
        {
            let mut image = image(&[1, 2, 3], name, &[replicas]);
            let adding = PartitionChangeRecord {
                partition_id: 0,
                topic_id: TOPIC,
                replicas: Some(vec![1, 2, 3]),
                adding_replicas: Some((1..=3).filter(|id| !replicas.contains(id)).collect()),
                directories: Some([1, 2, 3].map(directory_of).into()),
                ..Default::default()
            };
            image.apply(&adding.into()).unwrap();
            let topic = image.topic(TOPIC).unwrap();
            let partition = topic.partition(PartitionIndex(0)).unwrap();
            assert_eq!(topic.least_isr(partition, 2), expected, "{name}");
        }
    }

    /// A leader that needs nobody else acknowledges what whoever leaves the ISR does not have.
    #[test]
    fn nobody_is_eligible_beside_a_leader_that_needs_nobody() {
        let mut image = image(&[1, 2, 3], topic_name::CONSUMER_OFFSETS, &[&[1]]);
        finalize_eligible(&mut image);
        let policy = policy(&["min.insync.replicas=2"]);
        assert_eq!(grown(&mut image, &policy), Some((1, 3)));
        join(&mut image, 0);
        let topic = image.topic(TOPIC).unwrap();
        let (index, partition) = topic.partitions().next().unwrap();
        let elections = Elections::of(&image, &policy);
        let election = Election::Online;
        let mut change =
            PartitionChange::new(&elections, &image, topic, index, partition, election);
        change.target.isr = vec![BrokerId(1)];
        let record = change.record().unwrap();
        image.apply(&record).unwrap();
        let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
        assert_eq!(
            (&*partition.isr, &*partition.eligible_leader_replicas),
            (&[BrokerId(1)][..], &[][..])
        );
    }

    #[test]
    fn what_has_the_data_leads_until_all_are_in_sync_and_the_copies_are_spread_over_the_racks() {
        let mut image = image_with_brokers(&[]);
        for id in 0..6 {
            let rack = Some(format!("rack {}", id / 2).into());
            let log_dirs = vec![directory_of(id)];
            let broker =
                RegisterBrokerRecord { broker_id: id, rack, log_dirs, ..Default::default() };
            image.apply(&RegisterBrokerRecord { fenced: false, ..broker }.into()).unwrap();
        }
        let name = topic_name::CONSUMER_OFFSETS.into();
        image.apply(&TopicRecord { name, topic_id: TOPIC }.into()).unwrap();
        for index in 0..50 {
            image.apply(&partition_record(TOPIC, index, &[0], &[0])).unwrap();
        }
        assert_eq!(grown(&mut image, &policy(&[])), Some((50, 3)));
        let all = ListPartitionReassignmentsRequest { topics: None, ..Default::default() };
        let listed = list_partition_reassignments(&image, &all).topics;
        assert_eq!(listed[0].partitions.len(), 50);
        for index in 0..50 {
            let while_it_moves = |image: &Image| {
                let partition = image.partition(TOPIC, PartitionIndex(index)).unwrap().clone();
                assert_eq!((partition.leader, partition.leader_epoch.0), (BrokerId(0), 0));
                assert_eq!(partition.isr[0], BrokerId(0));
                partition
            };
            assert_eq!(while_it_moves(&image).adding_replicas.len(), 2);
            join(&mut image, index);
            while_it_moves(&image);
            join(&mut image, index);
            let partition = while_it_moves(&image);
            assert!(!partition.is_moving() && partition.isr.len() == 3, "{partition:?}");
            let racks: std::collections::BTreeSet<i32> =
                partition.replicas.iter().map(|id| id.0 / 2).collect();
            assert_eq!(racks.len(), 3, "{partition:?}");
        }
        let mut preferred: BTreeMap<BrokerId, usize> = BTreeMap::new();
        let topic = image.topic(TOPIC).unwrap();
        for (_, partition) in topic.partitions() {
            *preferred.entry(partition.replicas[0]).or_default() += 1;
        }
        let most = preferred.values().max().unwrap();
        assert!(preferred.len() >= 5 && *most <= 25, "{preferred:?}");
        assert_eq!(list_partition_reassignments(&image, &all).topics, []);
        assert_eq!(grown(&mut image, &policy(&[])), None);
    }
}
