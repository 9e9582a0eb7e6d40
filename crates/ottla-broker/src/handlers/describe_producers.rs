//! DescribeProducers (key 61), version 0: the idempotent producers that a partition's log remembers (KIP-664).
//!
//! - Known difference: an answer of more than 64 MiB is not given; the connection is closed.

use bytestring::ByteString;
use ottla_base::{ErrorCode, ProducerId};
use ottla_log::producers::Producer;
use ottla_metadata::topic_name;
use ottla_protocol::messages::describe_producers_request::TopicRequest;
use ottla_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use ottla_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use super::Context;
use crate::answer::{CloseReason, Outcome, Room};

pub(super) fn handle(context: Context, request: DescribeProducersRequest) -> Outcome {
    let mut room = Room::new(context.version);
    let describe = |topic| describe(&context, topic, &mut room);
    let topics: Result<_, _> = request.topics.into_iter().map(describe).collect();
    match topics {
        Ok(topics) => context
            .answer(&DescribeProducersResponse { topics, ..DescribeProducersResponse::default() }),
        Err(reason) => Outcome::Close(reason),
    }
}

fn describe(
    context: &Context,
    topic: TopicRequest,
    room: &mut Room,
) -> Result<TopicResponse, CloseReason> {
    let checked = check_topic(context, &topic.name);
    let partitions = topic.partition_indexes.iter().map(|index| {
        room.admit(match &checked {
            Ok(()) => describe_partition(context, &topic.name, *index),
            Err((code, message)) => PartitionResponse {
                partition_index: *index,
                error_code: *code,
                error_message: Some(message.clone()),
                ..PartitionResponse::default()
            },
        })
    });
    Ok(TopicResponse { partitions: partitions.collect::<Result<_, _>>()?, name: topic.name })
}

/// What is wrong with the topic is said in words, what is wrong with a partition is not: as Apache Kafka does.
fn check_topic(context: &Context, name: &str) -> Result<(), (ErrorCode, ByteString)> {
    topic_name::validate(name)
        .map_err(|message| (ErrorCode::INVALID_TOPIC_EXCEPTION, message.into()))?;
    match context.broker.image().topic_by_name(name) {
        Some(_) => Ok(()),
        None => {
            let message = "This server does not host this topic-partition.";
            Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message.into()))
        }
    }
}

fn describe_partition(context: &Context, topic: &str, partition_index: i32) -> PartitionResponse {
    match context.broker.replica(topic, partition_index) {
        Ok(replica) => {
            let producers = replica.log().producers();
            let active_producers = producers.iter().map(|(id, it)| producer_state(id, it));
            PartitionResponse {
                partition_index,
                active_producers: active_producers.collect(),
                ..PartitionResponse::default()
            }
        }
        Err(error_code) => {
            PartitionResponse { partition_index, error_code, ..PartitionResponse::default() }
        }
    }
}

fn producer_state(id: ProducerId, producer: &Producer) -> ProducerState {
    ProducerState {
        producer_id: id.0,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.last_sequence(),
        last_timestamp: producer.last_timestamp.0,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_first_offset.map_or(-1, |offset| offset.0),
    }
}
