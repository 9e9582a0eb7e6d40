//! Metadata (key 3), versions 0–13: brokers, topics, partitions; creates topics that are asked for by name.
//!
//! - v0: an empty list asks for all topics; from v1 null does, and an empty list asks for none.
//! - v4: auto-creation can be declined. A topic that is being created answers
//!   UNKNOWN_TOPIC_OR_PARTITION, and the client asks again, as with Apache Kafka.
//! - v8: authorized operations. v10: topic ids. v12: topics can be asked for by id.
//! - Known difference: an answer that would name a leader which has just hung up waits until the controller has decided, for
//!   2 s at most, and such a broker is named for three seconds although it is fenced. Apache Kafka names a dead broker,
//!   and its partitions' leader, for nine seconds.
//! - Known difference: a broker that no controller answers tells of later leaders of its partitions that it has heard of from
//!   other brokers. Apache Kafka's tells of itself for as long as it is cut off.

use std::collections::{HashMap, HashSet};

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, PartitionIndex, TopicId};
use ottla_metadata::{Broker, Image, Partition, Topic, topic_name};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ottla_protocol::messages::{MetadataRequest, MetadataResponse};

use super::partition_view::View;
use super::{Context, authorized};
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: MetadataRequest) -> Outcome {
    await_leaders(&context, &request).await;
    let response = answer(&context, &request);
    context.answer(&response)
}

/// Waits while a leader that would be named is in doubt ([`crate::hang_ups`]). Other answers on this connection wait, too, for
/// no longer than acks=all records do that the same broker has not copied.
async fn await_leaders(context: &Context, request: &MetadataRequest) {
    let doubts = context.broker.hang_ups.doubts(context.broker.clock.monotonic());
    if doubts.is_empty() {
        return;
    }
    let image = context.broker.image();
    let is_leading = |id: BrokerId| image.broker(id).is_some_and(|broker| !broker.fenced);
    let named: HashMap<_, _> = asked_of(&image, asked_topics(context.version, request))
        .flat_map(|topic| topic.partitions().map(|(_, partition)| partition.leader))
        .filter_map(|leader| Some((leader, *doubts.get(&leader)?)))
        .filter(|(leader, _)| is_leading(*leader))
        .collect();
    let Some(longest) = named.values().max() else { return };
    let is_decided =
        |image: &Image| named.keys().all(|id| image.broker(*id).is_none_or(|broker| broker.fenced));
    let _ = tokio::time::timeout(*longest, context.broker.quorum.image_when(is_decided)).await;
}

/// The topics that are there of those that are asked for; `None` asks for all.
fn asked_of<'a>(
    image: &'a Image,
    asked: Option<&'a [MetadataRequestTopic]>,
) -> Box<dyn Iterator<Item = &'a Topic> + Send + 'a> {
    let found = |asked: &'a MetadataRequestTopic| match asked.topic_id {
        TopicId::ZERO => image.topic_by_name(asked.name.as_deref()?),
        id => image.topic(id),
    };
    match asked {
        None => Box::new(image.topics()),
        Some(asked) => Box::new(asked.iter().filter_map(found)),
    }
}

/// Whether clients are told of a broker: it is not fenced, or has hung up a moment ago without having said goodbye.
fn is_named(context: &Context, broker: &Broker) -> bool {
    let now = || context.broker.clock.monotonic();
    let is_missed = || context.broker.hang_ups.is_named(broker.id, now());
    !broker.fenced || (!broker.in_controlled_shutdown && is_missed())
}

fn answer(context: &Context, request: &MetadataRequest) -> MetadataResponse {
    let image = context.broker.image();
    let mut topics = match asked_topics(context.version, request) {
        None => image.topics().map(|topic| describe(context, &image, topic)).collect(),
        Some(asked) => {
            if let Some(error_code) = asked.iter().find_map(|topic| malformed(context, topic)) {
                return refuse(error_code, asked);
            }
            distinct(asked)
                .into_iter()
                .map(|topic| find(context, &image, topic))
                .collect::<Vec<_>>()
        }
    };
    if request.include_topic_authorized_operations {
        // Also of a topic that does not exist, but not of an unknown id, which has no name.
        for topic in topics.iter_mut().filter(|topic| topic.name.is_some()) {
            topic.topic_authorized_operations = authorized::TOPIC;
        }
    }
    create_missing(context, request, &topics);
    let brokers = image.brokers().filter(|broker| is_named(context, broker)).filter_map(|broker| {
        let endpoint = broker.endpoint(context.endpoint_name())?;
        let rack = broker.rack.as_deref().map(ByteString::from);
        Some(MetadataResponseBroker {
            node_id: broker.id.0,
            host: (&*endpoint.host).into(),
            port: endpoint.port.into(),
            rack,
        })
    });
    MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(context.broker.cluster_id.clone()),
        controller_id: context.controller_id(&image),
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            authorized::CLUSTER
        } else {
            authorized::NOT_ASKED
        },
        ..MetadataResponse::default()
    }
}

/// Each topic once. If any is asked for by id, only those are answered, as in Apache Kafka.
fn distinct(asked: &[MetadataRequestTopic]) -> Vec<&MetadataRequestTopic> {
    let by_id = asked.iter().any(|topic| topic.topic_id != TopicId::ZERO);
    let mut seen = HashSet::new();
    asked
        .iter()
        .filter(|topic| !by_id || topic.topic_id != TopicId::ZERO)
        .filter(|topic| {
            let name = topic.name.as_ref().filter(|_| !by_id);
            seen.insert((topic.topic_id, name))
        })
        .collect()
}

/// Why the whole request is refused: before version 12 a topic can only be asked for by name, and
/// later by neither name nor id makes Apache Kafka stumble.
fn malformed(context: &Context, topic: &MetadataRequestTopic) -> Option<ErrorCode> {
    let (has_id, has_name) = (topic.topic_id != TopicId::ZERO, topic.name.is_some());
    if context.version < 12 && (has_id || !has_name) {
        return Some(ErrorCode::INVALID_REQUEST);
    }
    (!has_id && !has_name).then_some(ErrorCode::UNKNOWN_SERVER_ERROR)
}

fn refuse(error_code: ErrorCode, asked: &[MetadataRequestTopic]) -> MetadataResponse {
    let topics = asked.iter().map(|topic| MetadataResponseTopic {
        error_code,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        topic_authorized_operations: authorized::NOT_ASKED,
        ..Default::default()
    });
    MetadataResponse {
        topics: topics.collect(),
        controller_id: -1,
        cluster_authorized_operations: authorized::NOT_ASKED,
        error_code,
        ..MetadataResponse::default()
    }
}

/// `None` asks for all topics.
fn asked_topics(version: i16, request: &MetadataRequest) -> Option<&[MetadataRequestTopic]> {
    let topics = request.topics.as_deref()?;
    (version > 0 || !topics.is_empty()).then_some(topics)
}

fn find(context: &Context, image: &Image, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    if asked.topic_id != TopicId::ZERO {
        return image.topic(asked.topic_id).map_or_else(
            || {
                missing(
                    ErrorCode::UNKNOWN_TOPIC_ID,
                    &MetadataRequestTopic { name: None, ..asked.clone() },
                )
            },
            |topic| describe(context, image, topic),
        );
    }
    let name = asked.name.as_deref().unwrap_or_default();
    match image.topic_by_name(name) {
        Some(topic) => describe(context, image, topic),
        None if topic_name::validate(name).is_err() => {
            missing(ErrorCode::INVALID_TOPIC_EXCEPTION, asked)
        }
        None => missing(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, asked),
    }
}

fn missing(error_code: ErrorCode, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code,
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        is_internal: asked.name.as_deref().is_some_and(topic_name::is_internal),
        topic_authorized_operations: authorized::NOT_ASKED,
        ..Default::default()
    }
}

fn describe(context: &Context, image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let view = View { image, listener: context.endpoint_name() };
    let partitions = topic
        .partitions()
        .map(|(index, partition)| described(context.version, view, index, partition));
    MetadataResponseTopic {
        name: Some((&*topic.name).into()),
        topic_id: topic.id,
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: authorized::NOT_ASKED,
        ..Default::default()
    }
}

/// Version 0 leaves out replicas that cannot be reached, and says so; before version 6 a missing listener is a missing leader.
fn described(
    version: i16,
    view: View<'_>,
    index: PartitionIndex,
    partition: &Partition,
) -> MetadataResponsePartition {
    let told = |brokers: &[BrokerId]| {
        let told = brokers.iter().filter(|id| version > 0 || view.is_reachable(**id));
        told.map(|id| id.0).collect::<Vec<_>>()
    };
    let (replica_nodes, isr_nodes) = (told(&partition.replicas), told(&partition.isr));
    let is_complete =
        replica_nodes.len() == partition.replicas.len() && isr_nodes.len() == partition.isr.len();
    let (leader, error_code) = match view.leader(partition) {
        Ok(leader) if is_complete => (leader, ErrorCode::NONE),
        Ok(leader) => (leader, ErrorCode::REPLICA_NOT_AVAILABLE),
        Err(code) if version >= LISTENER_NOT_FOUND_SINCE => (BrokerId::NONE, code),
        Err(_) => (BrokerId::NONE, ErrorCode::LEADER_NOT_AVAILABLE),
    };
    MetadataResponsePartition {
        error_code,
        partition_index: index.0,
        leader_id: leader.0,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes,
        isr_nodes,
        offline_replicas: view.offline_replicas(partition),
    }
}

const LISTENER_NOT_FOUND_SINCE: i16 = 6;

/// Asks the controller for the topics that do not exist, and does not wait for it.
fn create_missing(context: &Context, request: &MetadataRequest, topics: &[MetadataResponseTopic]) {
    let declined = context.version >= 4 && !request.allow_auto_topic_creation;
    if declined || !context.broker.settings.auto_create_topics {
        return;
    }
    let missing = topics
        .iter()
        .filter(|topic| topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        .filter_map(|topic| topic.name.clone());
    let names: Vec<_> = missing.collect();
    if !names.is_empty() {
        context.broker.create_automatically(names);
    }
}
