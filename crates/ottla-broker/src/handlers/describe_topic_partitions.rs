//! DescribeTopicPartitions (key 75), version 0: partitions of topics in pages (KIP-966).
//!
//! Topics come in the order of their names. A page ends after `response_partition_limit`
//! partitions, or `max.request.partition.size.limit`, and names where the next one begins.

use std::collections::BTreeSet;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode};
use ottla_metadata::{Image, Topic, topic_name};
use ottla_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use ottla_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::partition_view::{View, ids};
use super::{Context, authorized};

pub(super) fn handle(
    context: &Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = context.broker.image();
    if !is_well_formed(&request) {
        return refuse(&request);
    }
    let asked = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut left = asked.min(context.broker.settings.partitions_described_max).max(1);
    let (first_topic, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (ByteString::new(), 0),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in asked_names(&image, &request, &first_topic) {
        if left == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic_by_name(&name) else {
            response.topics.push(missing(name));
            continue;
        };
        let from = if name == first_topic { first_partition } else { 0 };
        let view = View { image: &image, listener: context.endpoint_name() };
        let (described, next) = describe(view, topic, from, left);
        left -= described.partitions.len();
        response.topics.push(described);
        if let Some(next) = next {
            response.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    response
}

fn cursor(topic_name: ByteString, partition_index: i32) -> Cursor {
    Cursor { topic_name, partition_index }
}

/// A cursor names a partition of one of the topics that are asked for.
fn is_well_formed(request: &DescribeTopicPartitionsRequest) -> bool {
    request.cursor.as_ref().is_none_or(|cursor| {
        let is_asked = request.topics.is_empty()
            || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
        is_asked && cursor.partition_index >= 0
    })
}

fn refuse(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST,
        name: Some(topic.name.clone()),
        topic_authorized_operations: authorized::NOT_ASKED,
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

/// The names to describe in order, from the cursor's topic on; all topics when none is named.
fn asked_names(
    image: &Image,
    request: &DescribeTopicPartitionsRequest,
    first: &ByteString,
) -> BTreeSet<ByteString> {
    let mut names: BTreeSet<ByteString> = if request.topics.is_empty() {
        image.topics().map(|topic| ByteString::from(&*topic.name)).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.clone()).collect()
    };
    names.split_off(first)
}

fn missing(name: ByteString) -> DescribeTopicPartitionsResponseTopic {
    let error_code = if topic_name::validate(&name).is_err() {
        ErrorCode::INVALID_TOPIC_EXCEPTION
    } else {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    };
    DescribeTopicPartitionsResponseTopic {
        error_code,
        is_internal: topic_name::is_internal(&name),
        name: Some(name),
        topic_authorized_operations: authorized::TOPIC,
        ..Default::default()
    }
}

/// At most `limit` partitions from `from` on, and the partition to go on with.
fn describe(
    view: View<'_>,
    topic: &Topic,
    from: i32,
    limit: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let mut rest = topic.partitions().filter(|(index, _)| index.0 >= from);
    let partitions = rest.by_ref().take(limit).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition {
            partition_index: index.0,
            leader_id: view.leader(partition).unwrap_or(BrokerId::NONE).0,
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: ids(&partition.replicas),
            isr_nodes: ids(&partition.isr),
            eligible_leader_replicas: Some(ids(&partition.eligible_leader_replicas)),
            last_known_elr: Some(ids(&partition.last_known_elr)),
            offline_replicas: view.offline_replicas(partition),
            ..Default::default()
        }
    });
    let described = DescribeTopicPartitionsResponseTopic {
        name: Some((&*topic.name).into()),
        topic_id: topic.id,
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: authorized::TOPIC,
        ..Default::default()
    };
    (described, rest.next().map(|(index, _)| index.0))
}
