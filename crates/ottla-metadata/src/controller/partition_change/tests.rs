//! Elections and what else follows from a change, record by record.

use super::*;
use crate::controller::brokers::tests::{
    directory_of, fence, image_with_brokers, partition_record,
};
use ottla_base::TopicId;
use ottla_protocol::records::{BrokerRegistrationChangeRecord, TopicRecord};

const TOPIC: TopicId = TopicId::from_u128(9);

fn image(replicas: &[i32], isr: &[i32]) -> Image {
    let mut image = image_with_brokers(&[1, 2, 3]);
    image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC }.into()).unwrap();
    image.apply(&partition_record(TOPIC, 0, replicas, isr)).unwrap();
    image
}

fn change(image: &Image, election: Election) -> PartitionChange<'_> {
    let topic = image.topic(TOPIC).unwrap();
    let index = PartitionIndex(0);
    PartitionChange::new(image, topic, index, topic.partition(index).unwrap(), election)
}

fn record() -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: 0, topic_id: TOPIC, ..Default::default() }
}

/// Broker 1 has another directory only.
fn lose_directory(image: &mut Image) {
    let change = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 1,
        log_dirs: vec![directory_of(8)],
        ..Default::default()
    };
    image.apply(&change.into()).unwrap();
}

#[test]
fn without_need_nothing_changes_whatever_the_election() {
    let image = image(&[1, 2], &[1, 2]);
    for election in [Election::Preferred, Election::Online, Election::Unclean] {
        assert_eq!(change(&image, election).record(), None, "{election:?}");
    }
}

#[test]
fn a_leader_that_can_stay_gives_way_to_the_preferred_one_only_when_that_is_asked_for() {
    let image = image(&[1, 2], &[2, 1]);
    assert_eq!(change(&image, Election::Online).record(), None);
    let preferred = PartitionChangeRecord { leader: 1, ..record() };
    assert_eq!(change(&image, Election::Preferred).record(), Some(preferred.into()));
}

#[test]
fn nobody_leads_whose_directory_is_offline_while_another_can() {
    let mut image = image(&[1, 2], &[2, 1]);
    lose_directory(&mut image);
    assert_eq!(change(&image, Election::Preferred).record(), None);
    fence(&mut image, 2);
    let nobody = PartitionChangeRecord { leader: -1, ..record() };
    assert_eq!(change(&image, Election::Online).record(), Some(nobody.into()));
}

#[test]
fn who_alone_is_in_the_isr_keeps_its_leadership_without_its_directory() {
    let mut image = image(&[1, 2], &[1]);
    lose_directory(&mut image);
    assert_eq!(change(&image, Election::Online).record(), None);
    assert_eq!(change(&image, Election::Preferred).record(), None);
}

#[test]
fn a_lost_log_is_never_elected_and_its_directory_replaced_once_nobody_relies_on_it() {
    let mut image = image(&[1, 2], &[1]);
    let lost = PartitionChangeRecord {
        leader: -1,
        directories: Some(vec![Uuid::LOST_DIR, directory_of(2)]),
        ..record()
    };
    image.apply(&lost.into()).unwrap();
    assert_eq!(change(&image, Election::Online).record(), None);
    let elected = PartitionChangeRecord {
        leader: 2,
        isr: Some(vec![2]),
        leader_recovery_state: 1,
        directories: Some(vec![directory_of(1), directory_of(2)]),
        ..record()
    };
    assert_eq!(change(&image, Election::Unclean).record(), Some(elected.into()));
}

#[test]
fn an_unclean_election_takes_the_first_replica_that_can_lead() {
    let mut image = image(&[1, 2, 3], &[1]);
    fence(&mut image, 1);
    fence(&mut image, 2);
    let elected = PartitionChangeRecord {
        leader: 3,
        isr: Some(vec![3]),
        leader_recovery_state: 1,
        ..record()
    };
    assert_eq!(change(&image, Election::Unclean).record(), Some(elected.into()));
    let nobody = PartitionChangeRecord { leader: -1, ..record() };
    assert_eq!(change(&image, Election::Online).record(), Some(nobody.into()));
}

#[test]
fn eligible_leader_replicas_of_another_time_are_forgotten_with_the_next_change() {
    let mut image = image(&[1, 2], &[1]);
    let elr = PartitionChangeRecord { eligible_leader_replicas: Some(vec![2]), ..record() };
    image.apply(&elr.into()).unwrap();
    let mut change = change(&image, Election::Online);
    change.target.isr = vec![BrokerId(1), BrokerId(2)];
    let grown = PartitionChangeRecord {
        isr: Some(vec![1, 2]),
        eligible_leader_replicas: Some(vec![]),
        ..record()
    };
    assert_eq!(change.record(), Some(grown.into()));
}
