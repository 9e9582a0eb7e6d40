//! Elections and what else follows from a change, record by record.

use super::*;
use crate::controller::brokers::tests::{
    directory_of, fence, finalize_eligible, image_with_brokers, partition_record,
};
use ottla_base::TopicId;
use ottla_protocol::records::{BrokerRegistrationChangeRecord, ConfigRecord, TopicRecord};

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
    let elections = Elections::of(image, &Policy::default());
    PartitionChange::new(&elections, image, topic, index, topic.partition(index).unwrap(), election)
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

/// Who only reads cannot follow either: it leaves the ISR together with the leadership.
#[test]
fn whoever_leads_without_its_directory_leaves_the_isr_as_soon_as_somebody_else_has_everything() {
    let mut image = image(&[1, 2], &[1]);
    lose_directory(&mut image);
    let relieved = PartitionChangeRecord { leader: 2, isr: Some(vec![2]), ..record() };
    assert_eq!(with_isr(&image, &[1, 2]).record(), Some(relieved.into()));
    fence(&mut image, 2);
    let joined = PartitionChangeRecord { isr: Some(vec![1, 2]), leader: -1, ..record() };
    assert_eq!(with_isr(&image, &[1, 2]).record(), Some(joined.into()));
}

#[test]
fn an_eligible_replica_takes_over_from_who_only_reads_whatever_may_be_lost() {
    let read = PartitionChangeRecord { eligible_leader_replicas: Some(vec![3]), ..record() };
    let mut image = eligible_image(&[1], read);
    lose_directory(&mut image);
    for election in [Election::Preferred, Election::Online, Election::Unclean] {
        let elected = PartitionChangeRecord {
            leader: 3,
            isr: Some(vec![3]),
            eligible_leader_replicas: Some(vec![]),
            ..record()
        };
        assert_eq!(change(&image, election).record(), Some(elected.into()), "{election:?}");
    }
    fence(&mut image, 3);
    assert_eq!(change(&image, Election::Online).record(), None);
}

#[test]
fn whoever_leads_without_its_directory_gives_way_where_loss_is_accepted() {
    let mut image = image(&[1, 2], &[1]);
    lose_directory(&mut image);
    let elected = PartitionChangeRecord {
        leader: 2,
        isr: Some(vec![2]),
        leader_recovery_state: 1,
        ..record()
    };
    assert_eq!(change(&image, Election::Unclean).record(), Some(elected.into()));
    fence(&mut image, 2);
    assert_eq!(change(&image, Election::Unclean).record(), None);
}

#[test]
fn nobody_is_elected_without_its_directory() {
    let mut image = image(&[1, 2], &[1]);
    image.apply(&PartitionChangeRecord { leader: -1, ..record() }.into()).unwrap();
    lose_directory(&mut image);
    assert_eq!(change(&image, Election::Online).record(), None);
    let last =
        PartitionChangeRecord { isr: Some(vec![]), last_known_elr: Some(vec![1]), ..record() };
    let mut image = eligible_image(&[1], PartitionChangeRecord { leader: -1, ..last });
    lose_directory(&mut image);
    assert_eq!(change(&image, Election::Online).record(), None);
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

/// As [`image`], with replicas outside the ISR that may lead, and a minimum of two in sync.
fn eligible_image(isr: &[i32], change: PartitionChangeRecord) -> Image {
    let mut image = image(&[1, 2, 3], isr);
    finalize_eligible(&mut image);
    set_min_isr(&mut image, "2");
    image.apply(&change.into()).unwrap();
    image
}

fn set_min_isr(image: &mut Image, value: &str) {
    let record = ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: "t".into(),
        name: "min.insync.replicas".into(),
        value: Some(value.into()),
    };
    image.apply(&record.into()).unwrap();
}

fn with_isr<'a>(image: &'a Image, isr: &[i32]) -> PartitionChange<'a> {
    let mut change = change(image, Election::Online);
    change.target.isr = isr.iter().copied().map(BrokerId).collect();
    change
}

#[test]
fn whoever_leaves_an_isr_that_becomes_too_small_stays_eligible_until_it_is_large_enough() {
    let image =
        eligible_image(&[1, 2, 3], PartitionChangeRecord { isr: Some(vec![1, 2]), ..record() });
    let shrunk = PartitionChangeRecord {
        isr: Some(vec![1]),
        eligible_leader_replicas: Some(vec![2]),
        ..record()
    };
    assert_eq!(with_isr(&image, &[1]).record(), Some(shrunk.clone().into()));
    let image = eligible_image(&[1, 2], shrunk);
    let grown = PartitionChangeRecord {
        isr: Some(vec![1, 3]),
        eligible_leader_replicas: Some(vec![]),
        ..record()
    };
    assert_eq!(with_isr(&image, &[1, 3]).record(), Some(grown.into()));
}

#[test]
fn the_minimum_is_no_larger_than_the_partition_itself() {
    let mut image = eligible_image(&[1, 2, 3], record());
    set_min_isr(&mut image, "5");
    let shrunk = PartitionChangeRecord {
        isr: Some(vec![1, 2]),
        eligible_leader_replicas: Some(vec![3]),
        ..record()
    };
    assert_eq!(with_isr(&image, &[1, 2]).record(), Some(shrunk.into()));
    image.apply(&partition_record(TOPIC, 0, &[1, 2], &[1, 2])).unwrap();
    assert_eq!(with_isr(&image, &[1, 2]).record(), None);
}

#[test]
fn whose_log_is_doubted_is_not_eligible() {
    let image =
        eligible_image(&[1, 2], PartitionChangeRecord { isr: Some(vec![1, 2]), ..record() });
    let mut change = change(&image, Election::Online);
    change.doubt(BrokerId(2));
    let shrunk = PartitionChangeRecord { isr: Some(vec![1]), ..record() };
    assert_eq!(change.record(), Some(shrunk.into()));
}

#[test]
fn a_leader_from_outside_the_isr_is_alone_in_it() {
    let without_leader = PartitionChangeRecord {
        isr: Some(vec![]),
        eligible_leader_replicas: Some(vec![2, 3]),
        last_known_elr: Some(vec![1]),
        leader: -1,
        ..record()
    };
    let image = eligible_image(&[1], without_leader);
    for election in [Election::Preferred, Election::Online, Election::Unclean] {
        let elected = PartitionChangeRecord {
            isr: Some(vec![2]),
            eligible_leader_replicas: Some(vec![3]),
            last_known_elr: Some(vec![]),
            leader: 2,
            ..record()
        };
        assert_eq!(change(&image, election).record(), Some(elected.into()), "{election:?}");
    }
}

#[test]
fn while_anybody_is_in_the_isr_nobody_leads_from_outside() {
    let mut image = eligible_image(
        &[1, 2],
        PartitionChangeRecord {
            isr: Some(vec![1]),
            eligible_leader_replicas: Some(vec![2]),
            ..record()
        },
    );
    fence(&mut image, 1);
    let nobody = PartitionChangeRecord { leader: -1, last_known_elr: Some(vec![1]), ..record() };
    assert_eq!(change(&image, Election::Online).record(), Some(nobody.into()));
}

#[test]
fn where_nobody_is_left_the_last_leader_leads_and_is_said_to_be_recovering() {
    let alone = PartitionChangeRecord {
        isr: Some(vec![]),
        last_known_elr: Some(vec![2]),
        leader: -1,
        ..record()
    };
    let mut image = eligible_image(&[2], alone);
    let elected = PartitionChangeRecord {
        isr: Some(vec![2]),
        last_known_elr: Some(vec![]),
        leader: 2,
        leader_recovery_state: 1,
        ..record()
    };
    assert_eq!(change(&image, Election::Online).record(), Some(elected.into()));
    fence(&mut image, 2);
    assert_eq!(change(&image, Election::Online).record(), None);
}

#[test]
fn the_last_leader_does_not_lead_from_an_empty_disk() {
    let lost = PartitionChangeRecord {
        isr: Some(vec![]),
        last_known_elr: Some(vec![1]),
        leader: -1,
        directories: Some(vec![Uuid::LOST_DIR, directory_of(2), directory_of(3)]),
        ..record()
    };
    assert_eq!(change(&eligible_image(&[1], lost), Election::Online).record(), None);
}

/// Levels went down and up again while nobody led: whoever comes back with an empty disk is not who led last.
#[test]
fn where_the_last_leader_is_not_known_it_is_not_who_is_doubted_just_now() {
    let mut image = image(&[1, 2, 3], &[1, 2, 3]);
    image.apply(&PartitionChangeRecord { leader: -1, ..record() }.into()).unwrap();
    finalize_eligible(&mut image);
    (1..=3).for_each(|id| fence(&mut image, id));
    let mut change = change(&image, Election::Online);
    change.doubt(BrokerId(1));
    let left =
        PartitionChangeRecord { isr: Some(vec![2, 3]), last_known_elr: Some(vec![2]), ..record() };
    assert_eq!(change.record(), Some(left.into()));
}

#[test]
fn whoever_is_no_replica_any_more_is_not_remembered_while_there_is_somebody_else() {
    let without_leader = PartitionChangeRecord {
        isr: Some(vec![]),
        eligible_leader_replicas: Some(vec![2]),
        last_known_elr: Some(vec![1]),
        leader: -1,
        ..record()
    };
    let mut image = eligible_image(&[1], without_leader);
    fence(&mut image, 2);
    let mut change = change(&image, Election::Online);
    change.set_replicas(vec![BrokerId(2), BrokerId(3)]);
    let moved = PartitionChangeRecord {
        replicas: Some(vec![2, 3]),
        directories: Some(vec![directory_of(2), directory_of(3)]),
        last_known_elr: Some(vec![2]),
        leader: -1,
        ..record()
    };
    assert_eq!(change.record(), Some(moved.into()));
}
