//! Records applied to an image, and what the delta says about them.

use super::*;
use ottla_base::Uuid;
use ottla_protocol::records::{
    AccessControlEntryRecord, BeginTransactionRecord, BrokerRegistrationChangeRecord,
    ClearElrRecord, FenceBrokerRecord, PartitionChangeRecord, PartitionRecord,
    RegisterBrokerRecord, RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord,
};

const TOPIC: TopicId = Uuid([7; 16]);

fn topic(name: &str, topic_id: TopicId) -> MetadataRecord {
    TopicRecord { name: name.into(), topic_id }.into()
}

fn partition(partition_id: i32) -> MetadataRecord {
    PartitionRecord {
        partition_id,
        topic_id: TOPIC,
        replicas: vec![1, 2],
        isr: vec![1, 2],
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: vec![Uuid([1; 16]), Uuid([2; 16])],
        ..Default::default()
    }
    .into()
}

fn change() -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: 0, topic_id: TOPIC, ..Default::default() }
}

fn config(name: &str, key: &str, value: Option<&str>) -> MetadataRecord {
    ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: name.into(),
        name: key.into(),
        value: value.map(Into::into),
    }
    .into()
}

fn register(broker_id: i32, broker_epoch: i64) -> MetadataRecord {
    let log_dirs = vec![Uuid([u8::try_from(broker_id).unwrap(); 16])];
    RegisterBrokerRecord { broker_id, broker_epoch, log_dirs, fenced: true, ..Default::default() }
        .into()
}

fn apply(image: &mut Image, records: impl IntoIterator<Item = MetadataRecord>) -> Delta {
    let mut delta = Delta::default();
    for record in records {
        image.apply_into(&record, &mut delta).unwrap();
    }
    image.check();
    delta
}

fn image_of(records: impl IntoIterator<Item = MetadataRecord>) -> Image {
    let mut image = Image::new("cluster");
    apply(&mut image, records);
    image
}

#[test]
fn a_new_topic_is_found_by_name_and_by_id_and_told_as_created() {
    let mut image = Image::new("cluster");
    let delta = apply(&mut image, [topic("t", TOPIC), partition(0), partition(1)]);
    let topic = image.topic_by_name("t").unwrap();
    assert_eq!(image.topic(TOPIC), Some(topic));
    assert_eq!((topic.partition_count(), topic.replication_factor()), (2, 2));
    assert_eq!(delta, Delta { created: [TOPIC].into(), ..Delta::default() });
}

#[test]
fn a_clone_keeps_what_was_while_the_image_goes_on() {
    let before = image_of([topic("t", TOPIC), partition(0)]);
    let mut after = before.clone();
    apply(&mut after, [RemoveTopicRecord { topic_id: TOPIC }.into()]);
    assert!(before.topic(TOPIC).is_some());
    assert!(after.topic(TOPIC).is_none());
}

#[test]
fn a_change_bumps_the_partition_epoch_and_a_named_leader_the_leader_epoch() {
    let mut image = image_of([topic("t", TOPIC), partition(0)]);
    let shrink = PartitionChangeRecord { isr: Some(vec![1]), ..change() };
    let delta = apply(&mut image, [shrink.into()]);
    let state = image.partition(TOPIC, 0.into()).unwrap();
    assert_eq!((state.leader_epoch, state.partition_epoch), (LeaderEpoch(0), 1));
    assert_eq!(state.isr, [BrokerId(1)]);
    assert_eq!(state.replicas, [BrokerId(1), BrokerId(2)]);
    assert_eq!(delta, Delta { changed: [(TOPIC, 0.into())].into(), ..Delta::default() });

    apply(&mut image, [PartitionChangeRecord { leader: 1, ..change() }.into()]);
    let state = image.partition(TOPIC, 0.into()).unwrap();
    assert_eq!((state.leader_epoch, state.partition_epoch), (LeaderEpoch(1), 2));
}

#[test]
fn new_replicas_and_directories_replace_the_old_ones() {
    let mut image = image_of([topic("t", TOPIC), partition(0)]);
    let directories = vec![Uuid([9; 16])];
    let moved = PartitionChangeRecord {
        replicas: Some(vec![3]),
        directories: Some(directories.clone()),
        ..change()
    };
    apply(&mut image, [moved.into()]);
    let state = image.partition(TOPIC, 0.into()).unwrap();
    assert_eq!((&*state.replicas, &state.directories), (&[BrokerId(3)][..], &directories));
}

#[test]
fn a_removed_topic_takes_its_configuration_and_its_collisions_along() {
    let mut image =
        image_of([topic("a.b", TOPIC), partition(0), config("a.b", "retention.ms", Some("1"))]);
    assert_eq!(image.colliding_topic("a_b"), Some("a.b"));

    let delta = apply(&mut image, [RemoveTopicRecord { topic_id: TOPIC }.into()]);
    assert_eq!(image.topic_by_name("a.b"), None);
    assert_eq!(image.colliding_topic("a_b"), None);
    assert_eq!(image.config_resources().count(), 0);
    let expected = Delta {
        deleted: [(TOPIC, "a.b".into())].into(),
        configs: [ConfigResource::topic("a.b")].into(),
        ..Delta::default()
    };
    assert_eq!(delta, expected);
}

#[test]
fn what_is_created_and_deleted_in_one_delta_is_neither() {
    let mut image = Image::new("cluster");
    let remove = RemoveTopicRecord { topic_id: TOPIC }.into();
    let delta = apply(&mut image, [topic("t", TOPIC), partition(0), remove]);
    assert!(delta.is_empty(), "{delta:?}");
}

#[test]
fn a_topic_deleted_and_created_anew_in_one_delta_is_both_under_its_two_ids() {
    let mut image = image_of([topic("t", TOPIC), partition(0)]);
    let again = Uuid([8; 16]);
    let remove = RemoveTopicRecord { topic_id: TOPIC }.into();
    let delta = apply(&mut image, [change().into(), remove, topic("t", again)]);
    assert_eq!(delta.created, [again].into());
    assert_eq!(delta.deleted, [(TOPIC, "t".into())].into());
    assert!(delta.changed.is_empty());
    assert_eq!(image.topic_by_name("t").unwrap().id, again);
}

#[test]
fn a_configuration_is_set_changed_and_with_null_removed() {
    let mut image = image_of([config("t", "a", Some("1")), config("t", "b", Some("2"))]);
    apply(&mut image, [config("t", "a", Some("3")), config("t", "b", None)]);
    let resource = ConfigResource::topic("t");
    assert_eq!(image.config(&resource).collect::<Vec<_>>(), [("a", "3")]);
    apply(&mut image, [config("t", "a", None), config("t", "never there", None)]);
    assert_eq!(image.config_resources().count(), 0);
}

#[test]
fn topics_are_listed_by_name() {
    let ids = [1, 2, 3].map(|byte| Uuid([byte; 16]));
    let image = image_of([topic("c", ids[0]), topic("a", ids[1]), topic("b", ids[2])]);
    let names: Vec<&str> = image.topics().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_broker_is_fenced_unfenced_and_removed_by_the_epoch_it_has() {
    let mut image = image_of([register(1, 10)]);
    let unfence = |broker_epoch| -> MetadataRecord {
        BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch,
            fenced: -1,
            ..Default::default()
        }
        .into()
    };
    let delta = apply(&mut image, [unfence(10)]);
    assert!(image.broker(BrokerId(1)).unwrap().is_active());
    assert_eq!(delta.brokers, [BrokerId(1)].into());

    let stale = image.apply(&unfence(9)).unwrap_err();
    let record = "BrokerRegistrationChangeRecord";
    assert_eq!(stale, ApplyError::NoBroker { record, broker: BrokerId(1), epoch: 9 });

    apply(&mut image, [FenceBrokerRecord { id: 1, epoch: 10 }.into()]);
    assert!(image.broker(BrokerId(1)).unwrap().fenced);
    apply(&mut image, [UnregisterBrokerRecord { broker_id: 1, broker_epoch: 10 }.into()]);
    assert_eq!(image.brokers().count(), 0);
}

#[test]
fn a_replica_goes_to_the_directory_of_a_broker_that_has_one() {
    let image = image_of([register(1, 10)]);
    let mut broker = image.broker(BrokerId(1)).unwrap().clone();
    assert_eq!(broker.default_directory(), Uuid([1; 16]));
    broker.directories.push(Uuid([2; 16]));
    assert_eq!(broker.default_directory(), Uuid::UNASSIGNED_DIR);
    assert!(broker.has_uncordoned_directory());
    broker.cordoned_directories = Some(broker.directories.clone());
    assert!(!broker.has_uncordoned_directory());
}

#[test]
fn records_that_contradict_the_image_are_errors_and_change_nothing() {
    let image = image_of([topic("t", TOPIC), partition(0), register(1, 7)]);
    let unknown = Uuid([6; 16]);
    let elsewhere = PartitionChangeRecord { partition_id: 5, ..change() };
    let invalid = PartitionChangeRecord { leader_recovery_state: 7, ..change() };
    let half_invalid = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 7,
        fenced: -1,
        in_controlled_shutdown: 7,
        ..Default::default()
    };
    let records: [MetadataRecord; 6] = [
        half_invalid.into(),
        topic("t", unknown),
        topic("u", TOPIC),
        RemoveTopicRecord { topic_id: unknown }.into(),
        elsewhere.into(),
        invalid.into(),
    ];
    for record in records {
        let mut after = image.clone();
        let mut delta = Delta::default();
        assert!(after.apply_into(&record, &mut delta).is_err(), "{record:?}");
        assert_eq!((after, delta.is_empty()), (image.clone(), true), "{record:?}");
    }
}

#[test]
fn a_record_that_is_not_understood_is_never_passed_over() {
    let records: [MetadataRecord; 2] =
        [AccessControlEntryRecord::default().into(), BeginTransactionRecord::default().into()];
    for record in records {
        let error = Image::new("cluster").apply(&record).unwrap_err();
        assert_eq!(error, ApplyError::Unsupported { record: record.name() });
    }
}

fn level(name: &str, feature_level: i16) -> MetadataRecord {
    FeatureLevelRecord { name: name.into(), feature_level }.into()
}

#[test]
fn a_feature_at_level_zero_is_not_finalized() {
    const NAME: &str = "eligible.leader.replicas.version";
    let mut image = image_of([level(NAME, 1)]);
    assert_eq!(image.features().collect::<Vec<_>>(), [(NAME, 1)]);
    assert!(image.has_eligible_leader_replicas());
    apply(&mut image, [level(NAME, 0), level("group.version", 0)]);
    assert_eq!(image.features().count(), 0);
}

/// Everything that an image may hold, with every field that a record has.
fn full_image() -> Image {
    use ottla_protocol::records::{
        ProducerIdsRecord, RegisterControllerRecord, register_broker_record,
        register_controller_record,
    };
    let broker = RegisterBrokerRecord {
        broker_id: 1,
        incarnation_id: Uuid([4; 16]),
        broker_epoch: 7,
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
        rack: Some("r".into()),
        fenced: false,
        in_controlled_shutdown: true,
        log_dirs: vec![Uuid([1; 16]), Uuid([2; 16])],
        cordoned_log_dirs: Some(vec![Uuid([2; 16])]),
        ..Default::default()
    };
    let controller = RegisterControllerRecord {
        controller_id: 3000,
        incarnation_id: Uuid([5; 16]),
        end_points: vec![register_controller_record::ControllerEndpoint {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port: 9093,
            security_protocol: 3,
        }],
        features: vec![register_controller_record::ControllerFeature {
            name: "metadata.version".into(),
            min_supported_version: 7,
            max_supported_version: 30,
        }],
        ..Default::default()
    };
    let partition_of_all = PartitionRecord {
        partition_id: 1,
        topic_id: TOPIC,
        replicas: vec![1, 2, 3],
        isr: vec![2],
        removing_replicas: vec![1],
        adding_replicas: vec![3],
        leader: 2,
        leader_recovery_state: 1,
        leader_epoch: 4,
        partition_epoch: 9,
        directories: vec![Uuid([1; 16]), Uuid([2; 16]), Uuid::LOST_DIR],
        eligible_leader_replicas: Some(vec![1]),
        last_known_elr: Some(vec![3]),
    };
    image_of([
        level("eligible.leader.replicas.version", 1),
        level("metadata.version", 30),
        broker.into(),
        controller.into(),
        topic("t", TOPIC),
        partition_of_all.into(),
        config("t", "retention.ms", Some("1")),
        config("t", "a", Some("")),
        ProducerIdsRecord { next_producer_id: 1000, ..Default::default() }.into(),
    ])
}

#[test]
fn an_image_is_written_as_records_in_kafkas_order_and_is_made_anew_from_them() {
    let image = full_image();
    let records: Vec<_> = image.records().collect();
    let names: Vec<_> = records.iter().map(MetadataRecord::name).collect();
    let expected = [
        "FeatureLevelRecord",
        "FeatureLevelRecord",
        "RegisterBrokerRecord",
        "RegisterControllerRecord",
        "TopicRecord",
        "PartitionRecord",
        "ConfigRecord",
        "ConfigRecord",
        "ProducerIdsRecord",
    ];
    assert_eq!(names, expected);
    let MetadataRecord::FeatureLevel(first) = &records[0] else { panic!("{:?}", records[0]) };
    assert_eq!(&*first.name, "metadata.version");
    let read = records
        .iter()
        .map(|record| MetadataRecord::decode(crate::record::encode(record).unwrap()).unwrap().1);
    assert_eq!(image_of(read), image);
    assert_eq!(Image::new("cluster").records().count(), 0);
}

#[test]
fn what_is_different_is_named_whatever_led_there() {
    let (before, after) = (full_image(), image_of([topic("u", Uuid([8; 16])), register(2, 5)]));
    let delta = after.delta_since(&before);
    assert_eq!(delta.created, [Uuid([8; 16])].into());
    assert_eq!(delta.deleted.keys().copied().collect::<Vec<_>>(), [TOPIC]);
    assert_eq!(delta.brokers, [BrokerId(1), BrokerId(2)].into());
    assert_eq!(delta.controllers, [3000].into());
    assert_eq!(delta.configs, [ConfigResource::topic("t")].into());
    assert_eq!(delta.features.len(), 2);
    assert!(delta.producer_ids);
    assert!(before.delta_since(&before.clone()).is_empty());
}

#[test]
fn a_level_that_a_later_release_has_finalized_is_not_passed_over() {
    for (name, finalized) in [("metadata.version", 31), ("metadata.version", 6), ("new.version", 1)]
    {
        let error = Image::new("cluster").apply(&level(name, finalized)).unwrap_err();
        assert!(matches!(error, ApplyError::Feature { level, .. } if level == finalized));
        assert!(error.to_string().contains("a later one wrote this log"), "{error}");
    }
}

#[test]
fn to_clear_eligible_leader_replicas_is_a_change_of_the_partitions_that_had_some() {
    let eligible = PartitionChangeRecord {
        partition_id: 1,
        topic_id: TOPIC,
        eligible_leader_replicas: Some(vec![2]),
        last_known_elr: Some(vec![3]),
        ..Default::default()
    };
    let begun = [topic("t", TOPIC), partition(0), partition(1), eligible.into()];
    let index = |index| (TOPIC, PartitionIndex(index));
    for name in ["", "t"] {
        let mut image = image_of(begun.clone());
        let clear = || -> MetadataRecord { ClearElrRecord { topic_name: name.into() }.into() };
        let delta = apply(&mut image, [clear()]);
        assert_eq!(delta.changed.into_iter().collect::<Vec<_>>(), [index(1)]);
        let cleared = image.partition(TOPIC, PartitionIndex(1)).unwrap();
        assert_eq!(
            (&*cleared.eligible_leader_replicas, &*cleared.last_known_elr),
            (&[][..], &[][..])
        );
        assert_eq!(cleared.partition_epoch, 2);
        assert!(apply(&mut image, [clear()]).is_empty());
    }
    let unknown = ClearElrRecord { topic_name: "x".into() };
    assert!(image_of(begun).apply(&unknown.into()).is_err());
}

#[test]
fn of_what_is_told_and_what_is_known_the_later_leader_counts() {
    let image = image_of([topic("t", TOPIC), partition(0), partition(1)]);
    let told = |leader, epoch| LeaderTold {
        leader: BrokerId(leader),
        leader_epoch: LeaderEpoch(epoch),
        isr: vec![BrokerId(leader)],
    };
    let (later, known, elsewhere) = (told(2, 3), told(2, 0), told(2, 9));
    let view = image.with_later_leaders([
        (TOPIC, PartitionIndex(0), &later),
        (TOPIC, PartitionIndex(1), &known),
        (TOPIC, PartitionIndex(2), &elsewhere),
        (Uuid([8; 16]), PartitionIndex(0), &elsewhere),
    ]);
    view.check();
    let before = image.partition(TOPIC, PartitionIndex(0)).unwrap();
    let expected = Partition {
        leader: BrokerId(2),
        leader_epoch: LeaderEpoch(3),
        isr: vec![BrokerId(2)],
        ..before.clone()
    };
    assert_eq!(view.partition(TOPIC, PartitionIndex(0)), Some(&expected));
    let others = |image: &Image| image.partition(TOPIC, PartitionIndex(1)).cloned();
    assert_eq!(others(&view), others(&image));
    assert_eq!((view.topic_count(), view.topic(TOPIC).unwrap().partition_count()), (1, 2));
}
