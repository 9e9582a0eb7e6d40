//! Who leads when brokers go and come, where data may be lost and where not.

use super::*;
use crate::controller::brokers::tests::{
    directory_of, finalize_eligible, image_with_brokers, partition_record,
};
use crate::delta::ConfigResource;
use ottla_base::{LeaderEpoch, TopicId};
use ottla_protocol::records::{ConfigRecord, PartitionChangeRecord, TopicRecord};

const TOPIC: TopicId = TopicId::from_u128(9);

fn draft(unclean: Option<&str>, replicas: &[i32], isr: &[i32]) -> Draft {
    let mut draft = Draft::on(&image_with_brokers(&[1, 2, 3]));
    draft.push(TopicRecord { name: "t".into(), topic_id: TOPIC });
    draft.push(partition_record(TOPIC, 0, replicas, isr));
    if unclean.is_some() {
        draft.push(ConfigRecord {
            resource_type: ConfigResource::TOPIC,
            resource_name: "t".into(),
            name: "unclean.leader.election.enable".into(),
            value: unclean.map(Into::into),
        });
    }
    draft
}

fn state(draft: &Draft) -> (i32, Vec<i32>, bool) {
    draft.image.check();
    let partition = draft.image.partition(TOPIC, PartitionIndex(0)).unwrap();
    let isr = partition.isr.iter().map(|id| id.0).collect();
    (partition.leader.0, isr, partition.leader_is_recovering)
}

#[test]
fn the_first_replica_in_the_isr_takes_over() {
    let mut draft = draft(None, &[3, 2, 1], &[3, 1, 2]);
    fence(&mut draft, &Policy::default(), &[BrokerId(3)]);
    assert_eq!(state(&draft), (2, vec![1, 2], false));
}

#[test]
fn the_last_of_the_isr_stays_in_it_and_leads_when_it_comes_back() {
    let mut draft = draft(None, &[1, 2], &[1, 2]);
    let policy = Policy::default();
    fence(&mut draft, &policy, &[BrokerId(1)]);
    fence(&mut draft, &policy, &[BrokerId(2)]);
    assert_eq!(state(&draft), (-1, vec![2], false));
    unfence(&mut draft, &policy, BrokerId(1));
    assert_eq!(state(&draft), (-1, vec![2], false));
    unfence(&mut draft, &policy, BrokerId(2));
    assert_eq!(state(&draft), (2, vec![2], false));
    let partition = draft.image.partition(TOPIC, PartitionIndex(0)).unwrap();
    assert_eq!(partition.leader_epoch, LeaderEpoch(3));
}

#[test]
fn a_replica_that_lacks_data_leads_only_where_the_topic_accepts_that() {
    for (unclean, expected) in [
        (None, (-1, vec![1], false)),
        (Some("false"), (-1, vec![1], false)),
        (Some("true"), (2, vec![2], true)),
    ] {
        let mut draft = draft(unclean, &[1, 2], &[1]);
        fence(&mut draft, &Policy::default(), &[BrokerId(1)]);
        assert_eq!(state(&draft), expected, "{unclean:?}");
    }
}

#[test]
fn a_broker_that_comes_back_leads_what_it_lacks_data_of_where_the_topic_accepts_that() {
    let policy = Policy::default();
    for (unclean, expected) in [(None, (-1, vec![1], false)), (Some("true"), (2, vec![2], true))] {
        let mut draft = draft(unclean, &[1, 2], &[1]);
        fence(&mut draft, &policy, &[BrokerId(2)]);
        fence(&mut draft, &policy, &[BrokerId(1)]);
        assert_eq!(state(&draft).0, -1);
        unfence(&mut draft, &policy, BrokerId(2));
        assert_eq!(state(&draft), expected, "{unclean:?}");
    }
}

#[test]
fn nothing_is_lost_for_a_leader_that_is_fenced_with_the_one_before_it() {
    let mut draft = draft(Some("true"), &[1, 2], &[1]);
    fence(&mut draft, &Policy::default(), &[BrokerId(1), BrokerId(2)]);
    assert_eq!(state(&draft), (-1, vec![1], false));
}

#[test]
fn the_default_for_all_topics_counts_where_a_topic_says_nothing() {
    let mut draft = draft(None, &[1, 2], &[1]);
    draft.push(ConfigRecord {
        resource_type: ConfigResource::BROKER,
        resource_name: "".into(),
        name: "unclean.leader.election.enable".into(),
        value: Some("true".into()),
    });
    fence(&mut draft, &Policy::default(), &[BrokerId(1)]);
    assert_eq!(state(&draft), (2, vec![2], true));
}

#[test]
fn fencing_twice_writes_nothing_twice() {
    let mut draft = draft(None, &[1, 2], &[1, 2]);
    fence(&mut draft, &Policy::default(), &[BrokerId(1)]);
    let records = draft.records.len();
    fence(&mut draft, &Policy::default(), &[BrokerId(1)]);
    fence(&mut draft, &Policy::default(), &[BrokerId(9)]);
    assert_eq!(draft.records.len(), records);
}

/// Broker 1 reads from a directory that has failed. Whoever was eligible was away then.
#[test]
fn an_eligible_replica_that_comes_back_takes_over_from_who_only_reads() {
    let policy = Policy::default();
    let mut draft = draft(None, &[1, 2, 3], &[1]);
    let image = &mut draft.image;
    finalize_eligible(image);
    let only_reads = PartitionChangeRecord {
        partition_id: 0,
        topic_id: TOPIC,
        eligible_leader_replicas: Some(vec![3]),
        directories: Some(vec![Uuid::from_u128(7000), directory_of(2), directory_of(3)]),
        ..Default::default()
    };
    let two = ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: "t".into(),
        name: "min.insync.replicas".into(),
        value: Some("2".into()),
    };
    draft.push(two);
    draft.push(only_reads);
    fence(&mut draft, &policy, &[BrokerId(3)]);
    assert_eq!(state(&draft), (1, vec![1], false));
    unfence(&mut draft, &policy, BrokerId(3));
    assert_eq!(state(&draft), (3, vec![3], false));
}
