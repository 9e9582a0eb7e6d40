//! OffsetFetch (key 9), versions 1–10: how far groups have read.
//!
//! - v2: an error of the whole, and all topics of a group. v5: leader epochs. v7: stable offsets only.
//!   v8: several groups. v10: topic ids.
//! - Known difference: an answer of more than 64 MiB is not given; the connection is closed.

use ottla_base::{ErrorCode, TopicId};
use ottla_coordinator::group::{FetchOffsets, Query, Request};
use ottla_metadata::Image;
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use ottla_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::Context;
use crate::answer::{CloseReason, Outcome, Room};

const WHOLE_ERROR_SINCE: i16 = 2;
const SEVERAL_GROUPS_SINCE: i16 = 8;
const TOPIC_IDS_SINCE: i16 = 10;

pub(super) async fn handle(context: Context, request: OffsetFetchRequest) -> Outcome {
    match fetch_all(&context, request).await {
        Ok(response) => context.answer(&response),
        Err(reason) => Outcome::Close(reason),
    }
}

async fn fetch_all(
    context: &Context,
    request: OffsetFetchRequest,
) -> Result<OffsetFetchResponse, CloseReason> {
    let mut room = Room::new(context.version);
    let require_stable = request.require_stable;
    if context.version >= SEVERAL_GROUPS_SINCE {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(fetch_within(&mut room, context, group, require_stable).await?);
        }
        return Ok(OffsetFetchResponse { groups, ..OffsetFetchResponse::default() });
    }
    let found = fetch_within(&mut room, context, only_group(request), require_stable).await?;
    Ok(OffsetFetchResponse {
        error_code: found.error_code,
        topics: found.topics.into_iter().map(old_topic).collect(),
        ..OffsetFetchResponse::default()
    })
}

/// The least that an answer takes for a partition: its index, the offset, how long the metadata is, a code.
const PARTITION_BYTES: usize = 16;
/// The least that it takes for a topic or a group beside the name: how long that is, and how many there are in it.
const LIST_BYTES: usize = 2;

/// A group may be named again and again, with all of its offsets, and a partition in it with all of its metadata.
async fn fetch_within(
    room: &mut Room,
    context: &Context,
    asked: OffsetFetchRequestGroup,
    require_stable: bool,
) -> Result<OffsetFetchResponseGroup, CloseReason> {
    for topic in asked.topics.iter().flatten() {
        room.reserve(topic.partition_indexes.len(), PARTITION_BYTES)?;
    }
    let names_partitions = asked.topics.is_some();
    let by_id = context.version >= TOPIC_IDS_SINCE;
    let found = fetch(context, asked, require_stable).await;
    room.reserve(1, LIST_BYTES + found.group_id.len())?;
    for topic in &found.topics {
        let name_len = if by_id { size_of::<TopicId>() } else { topic.name.len() };
        room.reserve(1, LIST_BYTES + name_len)?;
        if !names_partitions {
            room.reserve(topic.partitions.len(), PARTITION_BYTES)?;
        }
        for partition in &topic.partitions {
            room.reserve(1, partition.metadata.as_ref().map_or(0, |it| it.len()))?;
        }
    }
    Ok(found)
}

/// A request of a version that asks for one group, in the form of those that ask for several.
fn only_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            topic_id: TopicId::ZERO,
            partition_indexes: topic.partition_indexes,
        });
        topics.collect()
    });
    OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() }
}

fn old_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    });
    OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
}

async fn fetch(
    context: &Context,
    asked: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let image = context.broker.image();
    let by_id = context.version >= TOPIC_IDS_SINCE;
    let (group, unknown) = if by_id { name_topics(&image, asked) } else { (asked, Vec::new()) };
    let (groups, id) = (&context.broker.groups, group.group_id.clone());
    let fetch = FetchOffsets { group: group.clone() };
    let found: Result<OffsetFetchResponseGroup, _> = if require_stable {
        groups.ask(&id, Request::FetchStable(fetch)).await
    } else {
        groups.query(&id, Query::Fetch(fetch)).await
    };
    match found {
        Ok(mut found) => {
            if by_id {
                identify_topics(&image, &mut found.topics);
            }
            found.topics.extend(unknown);
            found
        }
        Err(error) => refuse(context.version, &group, error),
    }
}

/// Topics by their names; and the answers about those whose ids nobody has.
fn name_topics(
    image: &Image,
    mut group: OffsetFetchRequestGroup,
) -> (OffsetFetchRequestGroup, Vec<OffsetFetchResponseTopics>) {
    let mut unknown = Vec::new();
    if let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match image.topic(topic.topic_id) {
            Some(found) => {
                topic.name = (&*found.name).into();
                true
            }
            None => {
                unknown.push(failed(topic, ErrorCode::UNKNOWN_TOPIC_ID, None));
                false
            }
        });
    }
    (group, unknown)
}

/// The ids of topics that were committed by name. One that is gone has none, and can't be told.
fn identify_topics(image: &Image, topics: &mut Vec<OffsetFetchResponseTopics>) {
    topics.retain_mut(|topic| {
        if topic.topic_id == TopicId::ZERO {
            topic.topic_id = image.topic_by_name(&topic.name).map_or(TopicId::ZERO, |it| it.id);
        }
        topic.topic_id != TopicId::ZERO
    });
}

fn refuse(
    version: i16,
    group: &OffsetFetchRequestGroup,
    error: ErrorCode,
) -> OffsetFetchResponseGroup {
    // Consumers before 3.9 do not know what to do about the other one.
    let error = match error {
        ErrorCode::COORDINATOR_NOT_AVAILABLE => ErrorCode::NOT_COORDINATOR,
        error => error,
    };
    let group_id = group.group_id.clone();
    if version >= WHOLE_ERROR_SINCE {
        return OffsetFetchResponseGroup { group_id, error_code: error, ..Default::default() };
    }
    let topics = group.topics.iter().flatten();
    OffsetFetchResponseGroup {
        group_id,
        topics: topics.map(|topic| failed(topic, error, Some("".into()))).collect(),
        ..OffsetFetchResponseGroup::default()
    }
}

fn failed(
    topic: &OffsetFetchRequestTopics,
    error_code: ErrorCode,
    metadata: Option<bytestring::ByteString>,
) -> OffsetFetchResponseTopics {
    let partition = |partition_index: &i32| OffsetFetchResponsePartitions {
        partition_index: *partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: metadata.clone().or_else(|| Some("".into())),
        error_code,
    };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    }
}
