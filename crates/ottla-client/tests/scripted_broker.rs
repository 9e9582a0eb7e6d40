//! The client against a broker that answers from a script: what it does when brokers are old, move or refuse.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it was set up")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{ErrorCode, Offset, Timestamp, TopicPartition};
use ottla_client::{
    Client, ClientError, ClientOptions, Consumer, ConsumerOptions, OffsetQuery, Polled, Position,
    Producer, ProducerOptions, ProducerRecord, Target,
};
use ottla_client::{Isolation, NewTopic};
use ottla_protocol::ApiKey;
use ottla_protocol::messages::DescribeClusterRequest;
use support::{Broker, Script};

fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    }
}

async fn client(broker: &Broker) -> Client {
    Client::connect(&[broker.address()], options()).await.unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

async fn consumer(broker: &Broker, position: Position) -> Consumer {
    let client = client(broker).await;
    client.topic("orders").await.unwrap();
    let positions = BTreeMap::from([(partition(), position)]);
    Consumer::assign(client, positions, ConsumerOptions::default()).await.unwrap()
}

async fn offsets(consumer: &mut Consumer) -> Vec<i64> {
    match consumer.poll().await.unwrap() {
        Polled::Records(fetched) => fetched.records.iter().map(|record| record.offset).collect(),
        other @ Polled::Repositioned(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_broker_that_refuses_our_version_of_api_versions_is_asked_in_its_own() {
    let broker = Broker::start(Script { api_versions_max: 0, ..Script::default() }).await;
    client(&broker).await;
    assert_eq!(broker.asked(ApiKey::ApiVersions), [4, 0]);
}

#[tokio::test]
async fn a_request_goes_out_in_the_highest_version_of_both() {
    let broker = Broker::start(Script { metadata_max: 8, ..Script::default() }).await;
    client(&broker).await;
    assert_eq!(broker.asked(ApiKey::Metadata), [8]);
}

#[tokio::test]
async fn a_request_that_the_broker_does_not_serve_is_not_sent() {
    let broker = Broker::start(Script::default()).await;
    let request = DescribeClusterRequest::default();
    let error = client(&broker).await.send(Target::Any, &request).await.unwrap_err();
    assert!(error.is_unsupported());
    assert!(error.to_string().contains("does not serve DescribeCluster"), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_the_error_names_every_address() {
    let gone = Broker::start(Script::default()).await.stopped().await;
    let error = Client::connect(&[&gone], options()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)));
    assert!(error.to_string().contains(&gone), "{error}");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named() {
    let broker = Broker::start(Script::default()).await;
    let error = client(&broker).await.topic("nope").await.unwrap_err();
    assert!(matches!(error, ClientError::NoSuchTopic(topic) if &*topic == "nope"));
}

#[tokio::test]
async fn records_arrive_in_order_whatever_the_broker_refuses_at_first() {
    let refusals = vec![ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::MESSAGE_TOO_LARGE];
    let broker = Broker::start(Script { produce_refusals: refusals, ..Script::default() }).await;
    let producer = Producer::new(client(&broker).await, ProducerOptions::default());
    let values = ["a", "b", "c", "d"];
    for value in values {
        let value = Some(Bytes::from(value));
        let record = ProducerRecord { value, ..ProducerRecord::default() };
        producer.send(&"orders".into(), &record).await.unwrap();
    }
    assert_eq!(producer.flush().await.unwrap().records, 4);
    assert_eq!(broker.stored(), values);
    assert_eq!(broker.sequences(), [0, 1, 2, 3], "numbered without a gap, though sent again");
}

#[tokio::test]
async fn a_refusal_that_cannot_pass_fails_the_flush_with_the_brokers_words() {
    let refusals = vec![ErrorCode::TOPIC_AUTHORIZATION_FAILED];
    let broker = Broker::start(Script { produce_refusals: refusals, ..Script::default() }).await;
    let producer = Producer::new(client(&broker).await, ProducerOptions::default());
    producer.send(&"orders".into(), &ProducerRecord::default()).await.unwrap();
    let error = producer.flush().await.unwrap_err();
    assert!(error.to_string().contains("TOPIC_AUTHORIZATION_FAILED"), "{error}");
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_refused_before_anything_is_sent() {
    let broker = Broker::start(Script::default()).await;
    let producer = Producer::new(client(&broker).await, ProducerOptions::default());
    let record = ProducerRecord { partition: Some(1), ..ProducerRecord::default() };
    let error = producer.send(&"orders".into(), &record).await.unwrap_err();
    assert!(matches!(error, ClientError::NoSuchPartition(_)));
    assert_eq!(broker.asked(ApiKey::Produce), []);
}

#[tokio::test]
async fn reading_begins_in_the_middle_of_a_batch_and_skips_what_is_before() {
    let broker = Broker::start(Script { log: vec![3, 2], ..Script::default() }).await;
    let mut consumer = consumer(&broker, Position::At(Offset(1))).await;
    assert_eq!(offsets(&mut consumer).await, [1, 2, 3, 4]);
    assert!(consumer.has_reached_end());
}

#[tokio::test]
async fn reading_goes_on_after_the_leader_has_moved() {
    let refusals = vec![ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::UNKNOWN_LEADER_EPOCH];
    let script = Script { fetch_refusals: refusals, log: vec![1], ..Script::default() };
    let broker = Broker::start(script).await;
    let mut consumer = consumer(&broker, Position::Earliest).await;
    assert_eq!(offsets(&mut consumer).await, [0]);
}

#[tokio::test]
async fn a_position_outside_of_the_log_moves_to_its_nearest_end() {
    let broker = Broker::start(Script { log: vec![2], ..Script::default() }).await;
    let mut consumer = consumer(&broker, Position::At(Offset(99))).await;
    match consumer.poll().await.unwrap() {
        Polled::Repositioned(moved) => {
            assert_eq!((moved.from, moved.to), (Offset(99), Offset(2)));
        }
        other @ Polled::Records(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_offset_is_asked_for_again_until_there_is_a_leader() {
    let refusals = vec![ErrorCode::LEADER_NOT_AVAILABLE, ErrorCode::OFFSET_NOT_AVAILABLE];
    let script = Script { list_offsets_refusals: refusals, log: vec![2], ..Script::default() };
    let broker = Broker::start(script).await;
    let client = client(&broker).await;
    client.topic("orders").await.unwrap();
    let queries = BTreeMap::from([(partition(), OffsetQuery::AtOrAfter(Timestamp(0)))]);
    let listed = client.list_offsets(queries, Isolation::ReadUncommitted).await;
    let found = listed.get(&partition()).unwrap().as_ref().unwrap().unwrap();
    assert_eq!(found.offset, Offset(0));
}

#[tokio::test]
async fn creating_a_topic_goes_to_the_controller_until_it_is_one() {
    let refusals = vec![ErrorCode::NOT_CONTROLLER];
    let broker = Broker::start(Script { create_refusals: refusals, ..Script::default() }).await;
    let topic = NewTopic { name: "new".to_owned(), ..NewTopic::default() };
    let created = client(&broker).await.create_topic(&topic).await.unwrap();
    assert_eq!((&*created.name, created.partitions), ("new", Some(1)));
}

#[tokio::test]
async fn a_broken_connection_is_opened_again() {
    let broker = Broker::start(Script::default()).await;
    let client = client(&broker).await;
    broker.drop_connections();
    let topic = NewTopic { name: "new".to_owned(), ..NewTopic::default() };
    client.create_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn garbage_in_place_of_an_answer_is_an_error_and_no_panic() {
    let broker = Broker::start(Script { garbage: true, ..Script::default() }).await;
    let error = Client::connect(&[broker.address()], options()).await.unwrap_err();
    assert!(error.to_string().contains("no broker answers"), "{error}");
}
