//! What CreateTopics makes and refuses, record by record.

use super::*;
use crate::controller::brokers::tests::{fence, image_with_brokers, partition_record};
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopicConfig,
};

/// Ids counted from 10,000; stripes that begin wherever seed 0 puts them.
struct Counted(u128);

impl Draw for Counted {
    fn topic_id(&mut self) -> TopicId {
        self.0 += 1;
        TopicId::from_u128(9_999 + self.0)
    }

    fn placement_seed(&mut self) -> u64 {
        0
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn with_config(key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig { name: key.into(), value: value.map(Into::into) };
    CreatableTopic { configs: vec![config], ..topic("t", 1, 1) }
}

fn with_assignments(assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |&(partition_index, ids): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index,
        broker_ids: ids.to_vec(),
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic("t", -1, -1)
    }
}

fn create_in(image: &Image, topics: Vec<CreatableTopic>) -> Outcome<CreateTopicsResponse> {
    let request = CreateTopicsRequest { topics, ..Default::default() };
    create_topics(image, &Policy::default(), &request, &mut Counted(0))
}

fn create(topics: Vec<CreatableTopic>) -> Outcome<CreateTopicsResponse> {
    create_in(&image_with_brokers(&[1]), topics)
}

/// The refusal of the one topic asked for.
fn refusal_in(image: &Image, topic: CreatableTopic) -> (ErrorCode, String) {
    let outcome = create_in(image, vec![topic]);
    assert_eq!(outcome.records, []);
    let [result] = &*outcome.reply.topics else { panic!("{outcome:?}") };
    (result.error_code, result.error_message.as_deref().unwrap_or_default().to_owned())
}

fn refusal(topic: CreatableTopic) -> (ErrorCode, String) {
    refusal_in(&image_with_brokers(&[1]), topic)
}

fn partition(index: i32, replicas: &[i32], isr: &[i32]) -> MetadataRecord {
    partition_record(TopicId::from_u128(10_000), index, replicas, isr)
}

fn topic_record(name: &str, id: u128) -> MetadataRecord {
    TopicRecord { name: name.into(), topic_id: TopicId::from_u128(id) }.into()
}

#[test]
fn a_topic_becomes_its_record_then_its_configuration_then_its_partitions() {
    let config = |name: &str, value: &str| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    let configs = vec![config("retention.ms", "5"), config("cleanup.policy", "compact")];
    let outcome = create(vec![CreatableTopic { configs, ..topic("t", 2, 1) }]);
    let config = |key, value| config_record("t", key, value);
    let expected = [
        topic_record("t", 10_000),
        config("cleanup.policy", "compact"),
        config("retention.ms", "5"),
        partition(0, &[1], &[1]),
        partition(1, &[1], &[1]),
    ];
    assert_eq!(outcome.records, expected);
    let [result] = &*outcome.reply.topics else { panic!("{outcome:?}") };
    assert_eq!(result.error_code, ErrorCode::NONE);
    assert_eq!(result.error_message, None);
    assert_eq!(result.topic_id, TopicId::from_u128(10_000));
    assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
}

#[test]
fn minus_one_asks_for_the_brokers_defaults() {
    let policy = Policy { num_partitions: 3, default_replication_factor: 2, ..Policy::default() };
    let request = CreateTopicsRequest { topics: vec![topic("t", -1, -1)], ..Default::default() };
    let image = image_with_brokers(&[1, 2]);
    let outcome = create_topics(&image, &policy, &request, &mut Counted(0));
    let result = &outcome.reply.topics[0];
    assert_eq!((result.num_partitions, result.replication_factor), (3, 2));
}

#[test]
fn validating_only_gives_the_same_reply_and_no_records() {
    let topics = vec![topic("t", 1, 1)];
    let request = CreateTopicsRequest { topics, validate_only: true, ..Default::default() };
    let image = image_with_brokers(&[1]);
    let outcome = create_topics(&image, &Policy::default(), &request, &mut Counted(0));
    assert_eq!(outcome.records, []);
    assert_eq!(outcome.reply.topics, create(vec![topic("t", 1, 1)]).reply.topics);
}

#[test]
fn one_bad_topic_does_not_stop_the_others() {
    let outcome = create(vec![topic("a", 1, 1), topic("b c", 1, 1), topic("d", 1, 1)]);
    let codes: Vec<_> = outcome.reply.topics.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::INVALID_TOPIC_EXCEPTION, ErrorCode::NONE]);
    assert_eq!(outcome.records.len(), 4);
}

#[test]
fn names_that_are_taken_or_share_their_metrics_are_refused() {
    let mut image = image_with_brokers(&[1]);
    for record in create(vec![topic("a.b", 1, 1)]).records {
        image.apply(&record).unwrap();
    }
    assert_eq!(
        refusal_in(&image, topic("a.b", 1, 1)),
        (ErrorCode::TOPIC_ALREADY_EXISTS, "Topic 'a.b' already exists.".to_owned())
    );
    assert_eq!(
        refusal_in(&image, topic("a_b", 1, 1)),
        (
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            "Topic 'a_b' collides with existing topic: a.b".to_owned()
        )
    );
}

/// No topic may have that name either, but Apache Kafka says of the two what it finds last.
#[test]
fn a_dot_collides_with_an_underscore() {
    let mut image = image_with_brokers(&[1]);
    for record in create(vec![topic("_", 1, 1)]).records {
        image.apply(&record).unwrap();
    }
    let message = "Topic '.' collides with existing topic: _".to_owned();
    let expected = (ErrorCode::INVALID_TOPIC_EXCEPTION, message);
    assert_eq!(refusal_in(&image, topic(".", 1, 1)), expected);
    assert!(refusal_in(&image, topic("..", 1, 1)).1.contains("'..' is not allowed"));
}

#[test]
fn a_name_given_twice_is_refused_once_and_created_never() {
    let outcome = create(vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1)]);
    let answers: Vec<_> =
        outcome.reply.topics.iter().map(|it| (&*it.name, it.error_code)).collect();
    assert_eq!(answers, [("b", ErrorCode::NONE), ("a", ErrorCode::INVALID_REQUEST)]);
    assert_eq!(outcome.reply.topics[1].error_message.as_deref(), Some("Duplicate topic name."));
    assert_eq!(outcome.records[0], topic_record("b", 10_000));
}

#[test]
fn the_metadata_log_cannot_be_created_as_a_topic() {
    assert_eq!(
        refusal(topic("__cluster_metadata", 1, 1)),
        (
            ErrorCode::INVALID_REQUEST,
            "Creation of internal topic __cluster_metadata is prohibited.".to_owned()
        )
    );
}

#[test]
fn counts_that_make_no_sense_are_refused() {
    for partitions in [0, -2] {
        assert_eq!(
            refusal(topic("t", partitions, 1)),
            (
                ErrorCode::INVALID_PARTITIONS,
                "Number of partitions was set to an invalid non-positive value.".to_owned()
            )
        );
    }
    for factor in [0, -2] {
        assert_eq!(
            refusal(topic("t", 1, factor)),
            (
                ErrorCode::INVALID_REPLICATION_FACTOR,
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned()
            )
        );
    }
    assert_eq!(
        refusal(topic("t", 1, 2)),
        (
            ErrorCode::INVALID_REPLICATION_FACTOR,
            "Unable to replicate the partition 2 time(s): The target replication factor of 2 \
             cannot be reached because only 1 broker(s) are registered or some brokers have all \
             their log directories cordoned."
                .to_owned()
        )
    );
}

#[test]
fn a_request_for_more_than_ten_thousand_partitions_is_refused_whole() {
    let outcome = create(vec![topic("a", 10_000, 1), topic("b", 1, 1)]);
    assert_eq!(outcome.records, []);
    for result in &outcome.reply.topics {
        assert_eq!(result.error_code, ErrorCode::POLICY_VIOLATION);
        let message = "Excessively large number of partitions per request.";
        assert_eq!(result.error_message.as_deref(), Some(message));
    }
    // The topic's own record is one too many.
    let (code, message) = refusal(topic("a", 10_000, 1));
    assert_eq!(code, ErrorCode::POLICY_VIOLATION);
    assert_eq!(message, "Unable to perform excessively large batch operation.");
    assert_eq!(create(vec![topic("a", 9_999, 1)]).records.len(), 10_000);
}

#[test]
fn counts_from_a_hostile_request_do_not_overflow() {
    let outcome = create(vec![topic("a", i32::MAX, 1), topic("b", i32::MAX, 1)]);
    assert_eq!(outcome.reply.topics[0].error_code, ErrorCode::POLICY_VIOLATION);
}

#[test]
fn assignments_are_taken_in_the_order_of_their_partitions() {
    let mut image = image_with_brokers(&[1, 2]);
    fence(&mut image, 2);
    let outcome = create_in(&image, vec![with_assignments(&[(1, &[1, 2]), (0, &[2, 1])])]);
    let expected =
        [topic_record("t", 10_000), partition(0, &[2, 1], &[1]), partition(1, &[1, 2], &[1])];
    assert_eq!(outcome.records, expected);
}

#[test]
fn assignments_that_make_no_sense_are_refused() {
    let mut image = image_with_brokers(&[1, 2, 3]);
    fence(&mut image, 3);
    let refuse = |assignments: &[(i32, &[i32])]| {
        let (code, message) = refusal_in(&image, with_assignments(assignments));
        assert_eq!(code, ErrorCode::INVALID_REPLICA_ASSIGNMENT, "{message}");
        message
    };
    assert_eq!(
        refuse(&[(0, &[1]), (2, &[1])]),
        "partitions should be a consecutive 0-based integer sequence"
    );
    assert_eq!(
        refuse(&[(0, &[1]), (0, &[2])]),
        "Found multiple manual partition assignments for partition 0"
    );
    assert_eq!(
        refuse(&[(0, &[])]),
        "The manual partition assignment includes an empty replica list."
    );
    assert_eq!(
        refuse(&[(0, &[1, 9])]),
        "The manual partition assignment includes broker 9, but no such broker is registered."
    );
    assert_eq!(
        refuse(&[(0, &[2, 2])]),
        "The manual partition assignment includes the broker 2 more than once."
    );
    assert_eq!(
        refuse(&[(0, &[1, 2]), (1, &[1])]),
        "The manual partition assignment includes a partition with 1 replica(s), but this is not \
         consistent with previous partitions, which have 2 replica(s)."
    );
    assert_eq!(
        refuse(&[(0, &[3])]),
        "All brokers specified in the manual partition assignment for partition 0 are fenced or \
         in controlled shutdown."
    );
}

#[test]
fn counts_beside_assignments_are_refused() {
    let assigned = with_assignments(&[(0, &[1])]);
    let (code, message) = refusal(CreatableTopic { replication_factor: 1, ..assigned.clone() });
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    assert_eq!(
        message,
        "A manual partition assignment was specified, but replication factor was not set to -1."
    );
    let (code, message) = refusal(CreatableTopic { num_partitions: 1, ..assigned });
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    assert_eq!(
        message,
        "A manual partition assignment was specified, but numPartitions was not set to -1."
    );
}

#[test]
fn a_configuration_that_is_not_allowed_is_refused() {
    let refuse = |key: &str, value| {
        let (code, message) = refusal(with_config(key, value));
        assert_eq!(code, ErrorCode::INVALID_CONFIG, "{message}");
        message
    };
    assert_eq!(refuse("no.such", Some("1")), "Unknown topic config name: no.such");
    assert_eq!(
        refuse("retention.ms", None),
        "Null value not supported for topic configs: retention.ms"
    );
    assert!(refuse("retention.ms", Some("soon")).contains("retention.ms"));
    let long = "x".repeat(32_768);
    assert_eq!(
        refuse("cleanup.policy", Some(&long)),
        "The configuration value cannot be added because it exceeds the maximum value size of \
         32767 bytes."
    );
}

#[test]
fn the_reply_shows_the_whole_configuration_and_where_it_comes_from() {
    let outcome = create(vec![with_config("retention.ms", Some("5"))]);
    let configs = outcome.reply.topics[0].configs.as_deref().unwrap();
    let entry = |name: &str| {
        let entry = configs.iter().find(|it| &*it.name == name).unwrap();
        (entry.value.as_deref(), entry.config_source)
    };
    assert_eq!(entry("retention.ms"), (Some("5"), 1));
    assert_eq!(entry("max.message.bytes"), (Some("1048588"), 5));
    assert!(configs.iter().all(|it| &*it.name != "internal.segment.bytes"));
    assert!(configs.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn all_brokers_fenced_is_a_matter_of_the_replication_factor() {
    let mut image = image_with_brokers(&[1]);
    fence(&mut image, 1);
    let (code, message) = refusal_in(&image, topic("t", 1, 1));
    assert_eq!(code, ErrorCode::INVALID_REPLICATION_FACTOR);
    assert_eq!(
        message,
        "Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have \
         all their log directories cordoned."
    );
}
