//! Every answer that a leader can get about its ISR.

use super::*;
use crate::MetadataRecord;
use crate::controller::brokers::tests::{
    directory_of, fence, image_with_brokers, partition_record, register, registration, unfence,
};
use crate::controller::fencing::begin_shutdown;
use ottla_base::Uuid;
use ottla_protocol::messages::alter_partition_request::TopicData;
use ottla_protocol::records::{BrokerRegistrationChangeRecord, PartitionChangeRecord, TopicRecord};

const TOPIC: TopicId = TopicId::from_u128(9);

/// Brokers 1 to 4; 1 leads a partition that 2 and 3 have, too. Only 2 is in sync.
fn image() -> Image {
    let mut image = image_with_brokers(&[1, 2, 3, 4]);
    image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC }.into()).unwrap();
    image.apply(&partition_record(TOPIC, 0, &[1, 2, 3], &[1, 2])).unwrap();
    image
}

fn wanted(isr: &[(i32, i64)]) -> PartitionData {
    let member = |(broker_id, broker_epoch): &(i32, i64)| BrokerState {
        broker_id: *broker_id,
        broker_epoch: *broker_epoch,
    };
    PartitionData {
        partition_index: 0,
        leader_epoch: 0,
        new_isr: Vec::new(),
        new_isr_with_epochs: isr.iter().map(member).collect(),
        leader_recovery_state: 0,
        partition_epoch: 0,
    }
}

const ALL: &[(i32, i64)] = &[(1, 1), (2, 1), (3, 1)];

fn request(partition: PartitionData) -> AlterPartitionRequest {
    let topics = vec![TopicData { topic_id: TOPIC, partitions: vec![partition] }];
    AlterPartitionRequest { broker_id: 1, broker_epoch: 1, topics }
}

fn altered(image: &Image, partition: PartitionData) -> Outcome<AlterPartitionResponse> {
    alter_partition(image, &Policy::default(), &request(partition), 3)
}

fn code(outcome: &Outcome<AlterPartitionResponse>) -> ErrorCode {
    outcome.reply.topics[0].partitions[0].error_code
}

fn refusal(image: &Image, partition: PartitionData) -> ErrorCode {
    let outcome = altered(image, partition);
    assert_eq!(outcome.records, []);
    code(&outcome)
}

fn change() -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: 0, topic_id: TOPIC, ..Default::default() }
}

#[test]
fn the_isr_grows_and_shrinks_as_the_leader_says_and_its_epoch_stays() {
    let outcome = altered(&image(), wanted(ALL));
    let record = PartitionChangeRecord { isr: Some(vec![1, 2, 3]), ..change() };
    assert_eq!(outcome.records, [record.into()]);
    let expected = alter_partition_response::PartitionData {
        partition_index: 0,
        error_code: ErrorCode::NONE,
        leader_id: 1,
        leader_epoch: 0,
        isr: vec![1, 2, 3],
        leader_recovery_state: 0,
        partition_epoch: 1,
    };
    assert_eq!(outcome.reply.topics[0].partitions, [expected]);

    let outcome = altered(&image(), wanted(&[(1, 1)]));
    let record = PartitionChangeRecord { isr: Some(vec![1]), ..change() };
    assert_eq!(outcome.records, [record.into()]);
    assert_eq!(outcome.reply.topics[0].partitions[0].leader_epoch, 0);
}

#[test]
fn an_isr_that_is_right_already_changes_nothing() {
    let outcome = altered(&image(), wanted(&[(1, 1), (2, 1)]));
    assert_eq!((&*outcome.records, code(&outcome)), (&[][..], ErrorCode::NONE));
    assert_eq!(outcome.reply.topics[0].partitions[0].partition_epoch, 0);
}

#[test]
fn a_request_of_version_2_names_no_epochs() {
    let partition = PartitionData { new_isr: vec![1, 2, 3], ..wanted(&[]) };
    let outcome = alter_partition(&image(), &Policy::default(), &request(partition), 2);
    assert_eq!(outcome.reply.topics[0].partitions[0].isr, [1, 2, 3]);
}

#[test]
fn a_broker_of_another_registration_is_refused_as_a_whole() {
    let stale = AlterPartitionRequest { broker_epoch: 0, ..request(wanted(ALL)) };
    let outcome = alter_partition(&image(), &Policy::default(), &stale, 3);
    assert_eq!(outcome.records, []);
    assert_eq!(outcome.reply.error_code, ErrorCode::STALE_BROKER_EPOCH);
}

#[test]
fn what_there_is_not_is_refused() {
    let mut elsewhere = request(wanted(ALL));
    elsewhere.topics[0].topic_id = TopicId::from_u128(10);
    let outcome = alter_partition(&image(), &Policy::default(), &elsewhere, 3);
    assert_eq!(code(&outcome), ErrorCode::UNKNOWN_TOPIC_ID);
    let partition = PartitionData { partition_index: 1, ..wanted(ALL) };
    assert_eq!(refusal(&image(), partition), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn who_knows_other_epochs_than_the_controller_is_refused() {
    let mut image = image();
    image.apply(&PartitionChangeRecord { leader: 1, ..change() }.into()).unwrap();
    let refuse = |leader_epoch, partition_epoch| {
        refusal(&image, PartitionData { leader_epoch, partition_epoch, ..wanted(ALL) })
    };
    assert_eq!(refuse(0, 1), ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!(refuse(1, 0), ErrorCode::INVALID_UPDATE_VERSION);
    assert_eq!(refuse(2, 1), ErrorCode::NOT_CONTROLLER);
    assert_eq!(refuse(1, 2), ErrorCode::NOT_CONTROLLER);
    assert_eq!(refuse(0, 2), ErrorCode::NOT_CONTROLLER);
}

#[test]
fn who_does_not_lead_has_no_say() {
    let request = AlterPartitionRequest { broker_id: 2, ..request(wanted(ALL)) };
    let outcome = alter_partition(&image(), &Policy::default(), &request, 3);
    assert_eq!((&*outcome.records, code(&outcome)), (&[][..], ErrorCode::INVALID_REQUEST));
}

#[test]
fn an_isr_that_cannot_be_is_refused() {
    let image = image();
    for isr in [&[][..], &[(2, 1)], &[(1, 1), (4, 1)], &[(1, 1), (1, 1)], &[(1, 1), (-1, -1)]] {
        assert_eq!(refusal(&image, wanted(isr)), ErrorCode::INVALID_REQUEST, "{isr:?}");
    }
}

#[test]
fn a_fenced_broker_does_not_join_the_isr_nor_one_that_shuts_down_or_restarted() {
    let mut fenced = image();
    fence(&mut fenced, 3);
    assert_eq!(refusal(&fenced, wanted(ALL)), ErrorCode::INELIGIBLE_REPLICA);
    let mut leaving = image();
    let shuts_down = BrokerRegistrationChangeRecord {
        broker_id: 3,
        broker_epoch: 1,
        in_controlled_shutdown: 1,
        ..Default::default()
    };
    leaving.apply(&shuts_down.into()).unwrap();
    assert_eq!(refusal(&leaving, wanted(ALL)), ErrorCode::INELIGIBLE_REPLICA);
    let other_epoch = &[(1, 1), (2, 1), (3, 7)];
    assert_eq!(refusal(&image(), wanted(other_epoch)), ErrorCode::INELIGIBLE_REPLICA);
    let any_epoch = &[(1, 1), (2, 1), (3, -1)];
    assert_eq!(code(&altered(&image(), wanted(any_epoch))), ErrorCode::NONE);
}

#[test]
fn a_leader_from_outside_the_isr_is_alone_until_it_has_recovered_and_recovers_once() {
    let mut image = image();
    let unclean = PartitionChangeRecord {
        leader: 1,
        isr: Some(vec![1]),
        leader_recovery_state: 1,
        ..change()
    };
    image.apply(&unclean.into()).unwrap();
    let report = |leader_recovery_state, isr| PartitionData {
        leader_epoch: 1,
        partition_epoch: 1,
        leader_recovery_state,
        ..wanted(isr)
    };
    assert_eq!(refusal(&image, report(1, ALL)), ErrorCode::INVALID_REQUEST);
    assert_eq!(refusal(&image, report(2, ALL)), ErrorCode::INVALID_REQUEST);
    assert_eq!(refusal(&image, report(1, &[(1, 1)])), ErrorCode::NONE);
    let outcome = altered(&image, report(0, &[(1, 1)]));
    let recovered = PartitionChangeRecord { leader_recovery_state: 0, ..change() };
    assert_eq!(outcome.records, [recovered.into()]);
    image.apply(&outcome.records[0]).unwrap();
    let again = PartitionData { partition_epoch: 2, ..report(1, &[(1, 1)]) };
    assert_eq!(refusal(&image, again), ErrorCode::INVALID_REQUEST);
}

#[test]
fn a_partition_named_twice_is_changed_once() {
    let mut request = request(wanted(ALL));
    request.topics[0].partitions.push(wanted(&[(1, 1)]));
    let outcome = alter_partition(&image(), &Policy::default(), &request, 3);
    let codes: Vec<_> =
        outcome.reply.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::INVALID_UPDATE_VERSION]);
    let _: &[MetadataRecord; 1] = outcome.records[..].try_into().unwrap();
}

/// Its directory has failed; another replica has copied all of it.
#[test]
fn a_leader_that_only_reads_is_replaced_by_the_first_that_it_takes_into_the_isr() {
    let mut image = image();
    let only_reads = PartitionChangeRecord {
        isr: Some(vec![1]),
        directories: Some(vec![Uuid::from_u128(7000), directory_of(2), directory_of(3)]),
        ..change()
    };
    image.apply(&only_reads.into()).unwrap();
    let partition = PartitionData { partition_epoch: 1, ..wanted(&[(1, 1), (2, 1)]) };
    let outcome = altered(&image, partition);
    let relieved = PartitionChangeRecord { leader: 2, isr: Some(vec![2]), ..change() };
    assert_eq!(outcome.records, [MetadataRecord::from(relieved)]);
    assert_eq!(code(&outcome), ErrorCode::NEW_LEADER_ELECTED);
}

/// Nothing was written since it has failed, so that it seems to keep up.
#[test]
fn a_replica_in_a_directory_that_has_failed_does_not_join_and_who_has_everything_leads_after_a_restart()
 {
    let mut image = image();
    let failed = PartitionChangeRecord {
        isr: Some(vec![1]),
        directories: Some(vec![directory_of(1), Uuid::from_u128(7000), directory_of(3)]),
        ..change()
    };
    image.apply(&failed.into()).unwrap();
    let joined = altered(&image, PartitionData { partition_epoch: 1, ..wanted(&ALL[..2]) });
    joined.records.iter().for_each(|record| image.apply(record).unwrap());
    assert_eq!(code(&joined), ErrorCode::INELIGIBLE_REPLICA);

    let mut draft = Draft::on(&image);
    begin_shutdown(&mut draft, &Policy::default(), BrokerId(1));
    let mut image = draft.image;
    register(&mut image, &registration(1, 11), 2);
    unfence(&mut image, 1);
    let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
    assert_eq!((partition.leader, &*partition.isr), (BrokerId(1), &[BrokerId(1)][..]));
}

#[test]
fn a_member_whose_directory_has_failed_stays_until_it_is_taken_out() {
    let mut image = image();
    let failed = PartitionChangeRecord {
        directories: Some(vec![directory_of(1), Uuid::from_u128(7000), directory_of(3)]),
        ..change()
    };
    image.apply(&failed.into()).unwrap();
    let joined = altered(&image, PartitionData { partition_epoch: 1, ..wanted(ALL) });
    assert_eq!(code(&joined), ErrorCode::NONE);
    let record = PartitionChangeRecord { isr: Some(vec![1, 2, 3]), ..change() };
    assert_eq!(joined.records, [MetadataRecord::from(record)]);
}
