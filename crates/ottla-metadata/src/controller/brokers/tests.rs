//! Registration, fencing and leadership, record by record.

use super::*;
use ottla_base::LeaderEpoch;
use ottla_protocol::records::{
    BrokerRegistrationChangeRecord, FeatureLevelRecord, FenceBrokerRecord, PartitionChangeRecord,
    PartitionRecord, TopicRecord,
};

use crate::MetadataRecord;

/// A formatted cluster without eligible leader replicas, with unfenced brokers, each of epoch 1, with one directory named
/// after it.
pub(crate) fn image_with_brokers(ids: &[i32]) -> Image {
    let mut image = Image::new("cluster");
    let levels = [(feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), 0)].into();
    let records = super::super::format(&image, &Policy::default(), &levels).records;
    records.iter().for_each(|record| image.apply(record).unwrap());
    for &id in ids {
        register(&mut image, &registration(id, id), 1);
        unfence(&mut image, id);
    }
    image
}

/// Replicas may lead from outside the ISR from now on.
pub(crate) fn finalize_eligible(image: &mut Image) {
    let record = FeatureLevelRecord {
        name: feature::ELIGIBLE_LEADER_REPLICAS.into(),
        feature_level: feature::ELIGIBLE_LEADER_REPLICAS_LEVEL,
    };
    image.apply(&record.into()).unwrap();
}

/// The result of a registration that is not refused.
pub(crate) fn register(
    image: &mut Image,
    request: &BrokerRegistrationRequest,
    epoch: i64,
) -> Outcome<BrokerEpoch> {
    let outcome = register_broker(image, &Policy::default(), request, epoch).unwrap();
    outcome.records.iter().for_each(|record| image.apply(record).unwrap());
    outcome
}

pub(crate) fn fence(image: &mut Image, id: i32) {
    let epoch = image.broker(BrokerId(id)).unwrap().epoch;
    image.apply(&FenceBrokerRecord { id, epoch }.into()).unwrap();
}

pub(crate) fn unfence(image: &mut Image, id: i32) -> Outcome<()> {
    let epoch = image.broker(BrokerId(id)).unwrap().epoch;
    let outcome = unfence_broker(image, &Policy::default(), BrokerId(id), epoch).unwrap();
    outcome.records.iter().for_each(|record| image.apply(record).unwrap());
    outcome
}

/// A partition in its first epoch, led by the first of `isr`.
pub(crate) fn partition_record(
    topic_id: Uuid,
    index: i32,
    replicas: &[i32],
    isr: &[i32],
) -> MetadataRecord {
    PartitionRecord {
        partition_id: index,
        topic_id,
        replicas: replicas.to_vec(),
        isr: isr.to_vec(),
        leader: isr[0],
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|id| directory_of(*id)).collect(),
        ..Default::default()
    }
    .into()
}

pub(crate) fn directory_of(id: i32) -> Uuid {
    Uuid::from_u128(1000 + u128::try_from(id).unwrap())
}

pub(crate) fn registration(id: i32, incarnation: i32) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest {
        broker_id: id,
        cluster_id: "cluster".into(),
        incarnation_id: Uuid::from_u128(u128::try_from(incarnation).unwrap()),
        listeners: vec![broker_registration_request::Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: 0,
        }],
        features: vec![broker_registration_request::Feature {
            name: "metadata.version".into(),
            min_supported_version: 7,
            max_supported_version: 30,
        }],
        log_dirs: vec![directory_of(id)],
        ..Default::default()
    }
}

fn create_partition(image: &mut Image, replicas: &[i32], isr: &[i32]) -> ottla_base::TopicId {
    let topic_id = Uuid::from_u128(500);
    image.apply(&TopicRecord { name: "t".into(), topic_id }.into()).unwrap();
    image.apply(&partition_record(topic_id, 0, replicas, isr)).unwrap();
    topic_id
}

#[test]
fn a_new_broker_is_registered_fenced_with_the_epoch_given() {
    let mut image = image_with_brokers(&[]);
    let outcome = register(&mut image, &registration(1, 9), 77);
    assert_eq!(outcome.reply, BrokerEpoch(77));
    let record = RegisterBrokerRecord {
        broker_id: 1,
        incarnation_id: Uuid::from_u128(9),
        broker_epoch: 77,
        end_points: vec![register_broker_record::BrokerEndpoint {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: 0,
        }],
        features: vec![register_broker_record::BrokerFeature {
            name: "metadata.version".into(),
            min_supported_version: 7,
            max_supported_version: 30,
        }],
        fenced: true,
        log_dirs: vec![directory_of(1)],
        ..Default::default()
    };
    assert_eq!(outcome.records, [record.into()]);
}

#[test]
fn the_same_incarnation_keeps_its_epoch_and_stays_unfenced() {
    let mut image = image_with_brokers(&[1]);
    let outcome = register(&mut image, &registration(1, 1), 77);
    assert_eq!(outcome.reply, BrokerEpoch(1));
    let [MetadataRecord::RegisterBroker(record)] = &*outcome.records else { panic!("{outcome:?}") };
    assert_eq!((record.broker_epoch, record.fenced), (1, false));
}

#[test]
fn a_broker_that_restarts_alone_leads_again_in_a_later_epoch() {
    let mut image = image_with_brokers(&[1]);
    let topic_id = create_partition(&mut image, &[1], &[1]);

    let outcome = register(&mut image, &registration(1, 2), 50);
    let leaderless =
        PartitionChangeRecord { partition_id: 0, topic_id, leader: -1, ..Default::default() };
    assert_eq!(outcome.records[1..], [leaderless.into()]);

    let outcome = unfence(&mut image, 1);
    let change = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 50,
        fenced: -1,
        ..Default::default()
    };
    let leads =
        PartitionChangeRecord { partition_id: 0, topic_id, leader: 1, ..Default::default() };
    assert_eq!(outcome.records, [change.into(), leads.into()]);

    let partition = image.partition(topic_id, 0.into()).unwrap();
    assert_eq!(partition.leader, BrokerId(1));
    assert_eq!(partition.leader_epoch, LeaderEpoch(2));
    assert_eq!(partition.isr, [BrokerId(1)]);
}

#[test]
fn a_broker_that_restarts_among_others_leaves_the_isr_and_its_leadership_to_them() {
    let mut image = image_with_brokers(&[1, 2, 3]);
    let topic_id = create_partition(&mut image, &[1, 2, 3], &[1, 3]);
    let outcome = register(&mut image, &registration(1, 9), 50);
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id,
        leader: 3,
        isr: Some(vec![3]),
        ..Default::default()
    };
    assert_eq!(outcome.records[1..], [change.into()]);
}

/// Broker 1 again, on a new disk.
fn registration_with_new_disk() -> BrokerRegistrationRequest {
    BrokerRegistrationRequest { log_dirs: vec![directory_of(77)], ..registration(1, 9) }
}

#[test]
fn a_broker_that_lost_its_disk_begins_anew_where_others_have_the_data() {
    let mut image = image_with_brokers(&[1, 2]);
    let topic_id = create_partition(&mut image, &[1, 2], &[1, 2]);
    register(&mut image, &registration_with_new_disk(), 50);
    let partition = image.partition(topic_id, 0.into()).unwrap();
    assert_eq!((partition.leader, &*partition.isr), (BrokerId(2), &[BrokerId(2)][..]));
    assert_eq!(partition.directories, [directory_of(77), directory_of(2)]);
}

#[test]
fn a_broker_that_lost_its_disk_never_leads_with_an_empty_log_what_only_it_had() {
    let mut image = image_with_brokers(&[1, 2]);
    let topic_id = create_partition(&mut image, &[1, 2], &[1]);
    register(&mut image, &registration_with_new_disk(), 50);
    assert_eq!(unfence(&mut image, 1).records.len(), 1);
    let partition = image.partition(topic_id, 0.into()).unwrap();
    assert_eq!((partition.leader, &*partition.isr), (BrokerId::NONE, &[BrokerId(1)][..]));
    assert_eq!(partition.directories, [Uuid::LOST_DIR, directory_of(2)]);
}

#[test]
fn a_broker_that_misses_one_of_its_disks_leads_what_is_on_it_when_that_is_back() {
    let mut image = image_with_brokers(&[1]);
    let topic_id = create_partition(&mut image, &[1], &[1]);
    let both = vec![directory_of(1), directory_of(5)];
    let other = vec![directory_of(5)];
    let starts = [(both.clone(), BrokerId(1)), (other, BrokerId::NONE), (both, BrokerId(1))];
    for (start, (log_dirs, leader)) in (8..).zip(starts) {
        let request = BrokerRegistrationRequest { log_dirs, ..registration(1, start) };
        register(&mut image, &request, i64::from(start) * 10);
        unfence(&mut image, 1);
        let partition = image.partition(topic_id, 0.into()).unwrap();
        assert_eq!((partition.leader, &*partition.directories), (leader, &[directory_of(1)][..]));
    }
}

#[test]
fn unfencing_twice_changes_nothing() {
    let mut image = image_with_brokers(&[1]);
    assert_eq!(unfence(&mut image, 1), Outcome::unchanged(()));
}

#[test]
fn registrations_that_do_not_fit_the_cluster_are_refused() {
    let image = image_with_brokers(&[1]);
    let refuse = |change: fn(&mut BrokerRegistrationRequest)| {
        let mut request = registration(2, 2);
        change(&mut request);
        register_broker(&image, &Policy::default(), &request, 5).unwrap_err().code
    };
    assert_eq!(refuse(|it| it.cluster_id = "other".into()), ErrorCode::INCONSISTENT_CLUSTER_ID);
    assert_eq!(refuse(|it| it.log_dirs.clear()), ErrorCode::INVALID_REGISTRATION);
    assert_eq!(refuse(|it| it.log_dirs = vec![Uuid::LOST_DIR]), ErrorCode::INVALID_REGISTRATION);
    assert_eq!(refuse(|it| it.log_dirs = vec![directory_of(1)]), ErrorCode::INVALID_REGISTRATION);
    assert_eq!(
        refuse(|it| it.log_dirs = vec![directory_of(2); 2]),
        ErrorCode::INVALID_REGISTRATION
    );
    assert_eq!(refuse(|it| it.features.clear()), ErrorCode::INVALID_REGISTRATION);
    let migrating = refuse(|it| it.is_migrating_zk_broker = true);
    assert_eq!(migrating, ErrorCode::BROKER_ID_NOT_REGISTERED);
    let too_old = refuse(|it| it.features[0].max_supported_version = 29);
    assert_eq!(too_old, ErrorCode::UNSUPPORTED_VERSION);
}

#[test]
fn a_broker_that_does_not_know_a_finalized_feature_is_refused() {
    let mut image = image_with_brokers(&[]);
    finalize_eligible(&mut image);
    let rejection =
        register_broker(&image, &Policy::default(), &registration(1, 1), 1).unwrap_err();
    assert_eq!(
        rejection.message,
        "Unable to register because the broker does not support finalized version 1 of \
         eligible.leader.replicas.version. The broker wants a version between 0 and 0, inclusive."
    );
}

#[test]
fn a_controller_is_noted_with_its_listeners() {
    let request = ControllerRegistrationRequest {
        controller_id: 3,
        incarnation_id: Uuid::from_u128(4),
        listeners: vec![controller_registration_request::Listener {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port: 9093,
            security_protocol: 0,
        }],
        features: vec![controller_registration_request::Feature {
            name: "metadata.version".into(),
            min_supported_version: 7,
            max_supported_version: 30,
        }],
        ..Default::default()
    };
    let mut image = image_with_brokers(&[]);
    image.apply(&register_controller(&image, &request).unwrap().records[0]).unwrap();
    let controller = image.controllers().next().unwrap();
    assert_eq!((controller.id, controller.endpoints[0].port), (3, 9093));
    finalize_eligible(&mut image);
    let refused = register_controller(&image, &request).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UNSUPPORTED_VERSION);
    assert!(refused.message.contains("the controller does not support finalized version 1"));
}
