//! Moves of a partition between brokers, from the request to the change that completes them.

use super::*;
use crate::controller::alter_partition;
use crate::controller::brokers::tests::{
    directory_of, fence, image_with_brokers, partition_record, unfence,
};
use ottla_base::{LeaderEpoch, TopicId};
use ottla_protocol::messages::AlterPartitionRequest;
use ottla_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ottla_protocol::records::{ConfigRecord, TopicRecord};

use crate::delta::ConfigResource;

const TOPIC: TopicId = TopicId::from_u128(9);

/// Brokers 1 to 5, and a partition that the first of `isr` leads.
fn image(replicas: &[i32], isr: &[i32]) -> Image {
    let mut image = image_with_brokers(&[1, 2, 3, 4, 5]);
    image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC }.into()).unwrap();
    image.apply(&partition_record(TOPIC, 0, replicas, isr)).unwrap();
    image
}

fn apply(image: &mut Image, records: &[MetadataRecord]) {
    records.iter().for_each(|record| image.apply(record).unwrap());
    image.check();
}

fn partition(image: &Image) -> &Partition {
    image.partition(TOPIC, PartitionIndex(0)).unwrap()
}

fn request(
    topic: &str,
    partition_index: i32,
    replicas: Option<&[i32]>,
) -> AlterPartitionReassignmentsRequest {
    let replicas = replicas.map(<[i32]>::to_vec);
    let partitions = vec![ReassignablePartition { partition_index, replicas }];
    let topics = vec![ReassignableTopic { name: topic.into(), partitions }];
    AlterPartitionReassignmentsRequest { topics, ..Default::default() }
}

fn altered(
    image: &mut Image,
    request: &AlterPartitionReassignmentsRequest,
) -> (ErrorCode, Option<String>) {
    let outcome = alter_partition_reassignments(image, &Policy::default(), request);
    apply(image, &outcome.records);
    let result = &outcome.reply.responses[0].partitions[0];
    (result.error_code, result.error_message.as_deref().map(str::to_owned))
}

fn move_to(image: &mut Image, replicas: &[i32]) {
    assert_eq!(altered(image, &request("t", 0, Some(replicas))), (ErrorCode::NONE, None));
}

/// The leader reports who is in sync.
fn report(image: &mut Image, isr: &[i32]) -> ErrorCode {
    let state = partition(image);
    let member = |id: &i32| BrokerState { broker_id: *id, broker_epoch: 1 };
    let partitions = vec![PartitionData {
        partition_index: 0,
        leader_epoch: state.leader_epoch.0,
        new_isr: Vec::new(),
        new_isr_with_epochs: isr.iter().map(member).collect(),
        leader_recovery_state: 0,
        partition_epoch: state.partition_epoch,
    }];
    let request = AlterPartitionRequest {
        broker_id: state.leader.0,
        broker_epoch: 1,
        topics: vec![TopicData { topic_id: TOPIC, partitions }],
    };
    let outcome = alter_partition(image, &Policy::default(), &request, 3);
    apply(image, &outcome.records);
    outcome.reply.topics[0].partitions[0].error_code
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}

/// Replicas, adding, removing.
fn moves(image: &Image) -> [Vec<i32>; 3] {
    let Partition { replicas, adding_replicas, removing_replicas, .. } = partition(image);
    [ids(replicas), ids(adding_replicas), ids(removing_replicas)]
}

#[test]
fn a_partition_that_is_where_it_is_wanted_stays_there() {
    let mut image = image(&[1, 2], &[1, 2]);
    let before = image.clone();
    move_to(&mut image, &[1, 2]);
    assert_eq!(image, before);
}

#[test]
fn a_new_order_takes_effect_at_once_and_the_leader_stays() {
    let mut image = image(&[1, 2, 3], &[1, 2, 3]);
    move_to(&mut image, &[3, 1, 2]);
    assert_eq!(moves(&image), [vec![3, 1, 2], vec![], vec![]]);
    let state = partition(&image);
    assert_eq!((state.leader, state.leader_epoch), (BrokerId(1), LeaderEpoch(0)));
    assert_eq!(state.directories, [3, 1, 2].map(directory_of));
}

#[test]
fn a_partition_leaves_its_brokers_when_those_it_moves_to_are_in_sync() {
    let mut image = image(&[1, 2], &[1, 2]);
    move_to(&mut image, &[3, 4]);
    assert_eq!(moves(&image), [vec![3, 4, 1, 2], vec![3, 4], vec![1, 2]]);
    assert_eq!(partition(&image).leader_epoch, LeaderEpoch(0));

    assert_eq!(report(&mut image, &[1, 2, 3]), ErrorCode::NONE);
    assert_eq!(moves(&image)[0], [3, 4, 1, 2]);
    assert_eq!(report(&mut image, &[1, 2, 3, 4]), ErrorCode::NEW_LEADER_ELECTED);
    assert_eq!(moves(&image), [vec![3, 4], vec![], vec![]]);
    let state = partition(&image);
    assert_eq!((state.leader, state.leader_epoch), (BrokerId(3), LeaderEpoch(1)));
    assert_eq!(ids(&state.isr), [3, 4]);
    assert_eq!(state.directories, [3, 4].map(directory_of));
}

#[test]
fn a_leader_that_stays_begins_an_epoch_when_another_replica_is_removed() {
    let mut image = image(&[1, 2], &[1, 2]);
    move_to(&mut image, &[1, 3]);
    assert_eq!(report(&mut image, &[1, 2, 3]), ErrorCode::NONE);
    assert_eq!(moves(&image), [vec![1, 3], vec![], vec![]]);
    let state = partition(&image);
    assert_eq!((state.leader, state.leader_epoch), (BrokerId(1), LeaderEpoch(1)));
}

#[test]
fn fewer_replicas_are_left_only_when_all_of_them_are_in_sync() {
    let mut image = image(&[1, 2, 3], &[1, 2]);
    move_to(&mut image, &[1, 3]);
    assert_eq!(moves(&image), [vec![1, 3, 2], vec![], vec![2]]);
    assert_eq!(report(&mut image, &[1, 2, 3]), ErrorCode::NONE);
    assert_eq!(moves(&image), [vec![1, 3], vec![], vec![]]);
    move_to(&mut image, &[1]);
    assert_eq!(moves(&image), [vec![1], vec![], vec![]]);
}

#[test]
fn a_second_move_replaces_the_first_and_goes_on_waiting_for_what_both_want() {
    let mut image = image(&[1, 2], &[1, 2]);
    move_to(&mut image, &[1, 3]);
    move_to(&mut image, &[3, 4]);
    assert_eq!(moves(&image), [vec![3, 4, 1, 2], vec![3, 4], vec![1, 2]]);
    move_to(&mut image, &[1, 2]);
    assert_eq!(moves(&image), [vec![1, 2], vec![], vec![]]);
}

/// Apache Kafka would have broker 3 and 4 wait for ever to be added to replicas that they are not among.
#[test]
fn a_partition_that_is_named_twice_goes_where_the_second_says() {
    for (second, expected) in [
        (Some(&[2, 1][..]), [vec![2, 1], vec![], vec![]]),
        (Some(&[3, 5][..]), [vec![3, 5, 1, 2, 4], vec![3, 5], vec![1, 2, 4]]),
        (None, [vec![1, 2], vec![], vec![]]),
    ] {
        let mut image = image(&[1, 2], &[1, 2]);
        let mut twice = request("t", 0, Some(&[3, 4]));
        twice.topics.extend(request("t", 0, second).topics);
        let outcome = alter_partition_reassignments(&image, &Policy::default(), &twice);
        apply(&mut image, &outcome.records);
        assert_eq!(moves(&image), expected, "{second:?}");
        let results = outcome.reply.responses.iter().map(|topic| topic.partitions[0].error_code);
        assert!(results.eq([ErrorCode::NONE; 2]));
        assert_eq!(ids(&partition(&image).isr), [1, 2]);
    }
}

#[test]
fn a_move_that_is_called_off_leaves_the_replicas_of_before() {
    let mut image = image(&[1, 2], &[1, 2]);
    move_to(&mut image, &[3, 4]);
    report(&mut image, &[1, 2, 3]);
    assert_eq!(altered(&mut image, &request("t", 0, None)), (ErrorCode::NONE, None));
    assert_eq!(moves(&image), [vec![1, 2], vec![], vec![]]);
    assert_eq!(ids(&partition(&image).isr), [1, 2]);
    let none = altered(&mut image, &request("t", 0, None));
    assert_eq!(none, (ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, None));
}

#[test]
fn a_move_is_called_off_against_the_data_only_where_the_topic_accepts_that() {
    let mut image = image(&[1], &[1]);
    move_to(&mut image, &[2, 3]);
    report(&mut image, &[1, 2]);
    fence(&mut image, 1);
    // Broker 1 leaves the ISR as it would have on being fenced.
    let gone = ottla_protocol::records::PartitionChangeRecord {
        partition_id: 0,
        topic_id: TOPIC,
        leader: 2,
        isr: Some(vec![2]),
        ..Default::default()
    };
    apply(&mut image, &[gone.into()]);
    let (code, message) = altered(&mut image, &request("t", 0, None));
    assert_eq!(code, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(
        message.unwrap(),
        "Unable to revert partition assignment for t:0 because it would require an unclean leader \
         election."
    );
    let unclean = ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: "t".into(),
        name: "unclean.leader.election.enable".into(),
        value: Some("true".into()),
    };
    apply(&mut image, &[unclean.into()]);
    // Nobody who was there before can lead.
    let (code, _) = altered(&mut image, &request("t", 0, None));
    assert_eq!(code, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    unfence(&mut image, 1);
    assert_eq!(altered(&mut image, &request("t", 0, None)).0, ErrorCode::NONE);
    let state = partition(&image);
    assert_eq!((state.leader, &*state.isr), (BrokerId(1), &[BrokerId(1)][..]));
    assert!(state.leader_is_recovering);
}

#[test]
fn the_number_of_replicas_may_be_kept_from_changing() {
    let mut image = image(&[1, 2], &[1, 2]);
    let strict = |replicas: &[i32]| AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: false,
        ..request("t", 0, Some(replicas))
    };
    let (code, message) = altered(&mut image, &strict(&[1, 2, 3]));
    assert_eq!(code, ErrorCode::INVALID_REPLICATION_FACTOR);
    assert_eq!(message.unwrap(), "The replication factor is changed from 2 to 3");
    assert_eq!(altered(&mut image, &strict(&[3, 4])).0, ErrorCode::NONE);
    // Four replicas for now, but two when the move is complete.
    assert_eq!(altered(&mut image, &strict(&[4, 5])).0, ErrorCode::NONE);
    let (code, _) = altered(&mut image, &strict(&[1, 2, 3, 4]));
    assert_eq!(code, ErrorCode::INVALID_REPLICATION_FACTOR);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut image = image(&[1], &[1]);
    let mut refuse = |topic, index, replicas: Option<&[i32]>| {
        altered(&mut image, &request(topic, index, replicas)).0
    };
    assert_eq!(refuse("x", 0, Some(&[1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(refuse("t", 5, Some(&[1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(refuse("t", 0, None), ErrorCode::NO_REASSIGNMENT_IN_PROGRESS);
    assert_eq!(refuse("t", 0, Some(&[])), ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(refuse("t", 0, Some(&[9])), ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(refuse("t", 0, Some(&[2, 2])), ErrorCode::INVALID_REPLICA_ASSIGNMENT);
}

#[test]
fn of_too_many_at_once_the_first_ones_move() {
    let mut image = image(&[1], &[1]);
    let count = i32::try_from(RECORDS_MAX).unwrap() + 1;
    for index in 1..count {
        image.apply(&partition_record(TOPIC, index, &[1], &[1])).unwrap();
    }
    let partition =
        |partition_index| ReassignablePartition { partition_index, replicas: Some(vec![2]) };
    let partitions = (0..count).map(partition).collect();
    let topics = vec![ReassignableTopic { name: "t".into(), partitions }];
    let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
    let outcome = alter_partition_reassignments(&image, &Policy::default(), &request);
    assert_eq!(outcome.records.len(), RECORDS_MAX);
    let results = &outcome.reply.responses[0].partitions;
    assert!(results[..RECORDS_MAX].iter().all(|it| it.error_code == ErrorCode::NONE));
    let last = &results[RECORDS_MAX];
    assert_eq!(last.error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(last.error_message, None);
}

#[test]
fn only_what_moves_is_listed() {
    let mut image = image(&[1], &[1]);
    let all = ListPartitionReassignmentsRequest { topics: None, ..Default::default() };
    assert_eq!(list_partition_reassignments(&image, &all).topics, []);
    move_to(&mut image, &[2]);
    let listed = list_partition_reassignments(&image, &all).topics;
    let listed = &listed[0].partitions[0];
    assert_eq!((&*listed.replicas, &*listed.adding_replicas), (&[2, 1][..], &[2][..]));
    assert_eq!(listed.removing_replicas, [1]);
}
