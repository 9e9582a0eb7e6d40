//! OffsetCommit (key 8), versions 2–10: a group remembers how far it has read.
//!
//! - v2–4: the client may say how long to keep the offsets. v6: leader epochs. v7: static members.
//!   v9: GROUP_ID_NOT_FOUND instead of ILLEGAL_GENERATION. v10: topic ids.

use std::collections::BTreeMap;

use ottla_base::{ErrorCode, PartitionIndex, TopicId};
use ottla_coordinator::group::{CommitOffsets, Request};
use ottla_metadata::{Image, Topic};
use ottla_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use ottla_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ottla_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::Context;
use crate::answer::Outcome;

const TOPIC_IDS_SINCE: i16 = 10;

pub(super) async fn handle(context: Context, mut request: OffsetCommitRequest) -> Outcome {
    let image = context.broker.image();
    let mut answers = take_unknown(&image, context.version, &mut request.topics);
    if !request.topics.is_empty() {
        let group = request.group_id.clone();
        // Indexes without what is committed for them: a request may name millions.
        let mut refused: Vec<_> =
            request.topics.iter().map(|topic| refuse(topic, ErrorCode::NONE)).collect();
        let commit = Request::Commit(CommitOffsets { version: context.version, request });
        let committed: Result<Result<OffsetCommitResponse, _>, _> =
            context.broker.groups.ask(&group, commit).await;
        answers.extend(match committed.and_then(|answer| answer) {
            Ok(response) => response.topics,
            Err(error) => {
                let partitions = refused.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| partition.error_code = error);
                refused
            }
        });
    }
    let topics = merge(answers);
    context.answer(&OffsetCommitResponse { topics, ..OffsetCommitResponse::default() })
}

/// Takes out what does not exist; returns the answers about it. What is left has both its name and its id.
fn take_unknown(
    image: &Image,
    version: i16,
    topics: &mut Vec<OffsetCommitRequestTopic>,
) -> Vec<OffsetCommitResponseTopic> {
    let by_id = version >= TOPIC_IDS_SINCE;
    let mut unknown = Vec::new();
    for topic in &mut *topics {
        let found =
            if by_id { image.topic(topic.topic_id) } else { image.topic_by_name(&topic.name) };
        let Some(found) = found else {
            let error = if by_id {
                ErrorCode::UNKNOWN_TOPIC_ID
            } else {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            };
            unknown.push(refuse(topic, error));
            topic.partitions.clear();
            continue;
        };
        (topic.name, topic.topic_id) = ((&*found.name).into(), found.id);
        let missing = take_missing(topic, found);
        if !missing.partitions.is_empty() {
            unknown.push(missing);
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    unknown
}

/// Takes out the partitions that the topic does not have.
fn take_missing(asked: &mut OffsetCommitRequestTopic, topic: &Topic) -> OffsetCommitResponseTopic {
    let mut partitions = Vec::new();
    asked.partitions.retain(|partition| {
        let partition_index = partition.partition_index;
        let is_there = topic.partition(PartitionIndex(partition_index)).is_some();
        if !is_there {
            let error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            partitions.push(OffsetCommitResponsePartition { partition_index, error_code });
        }
        is_there
    });
    OffsetCommitResponseTopic { name: asked.name.clone(), topic_id: asked.topic_id, partitions }
}

fn refuse(topic: &OffsetCommitRequestTopic, error_code: ErrorCode) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code,
    });
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

/// Each topic once.
fn merge(answers: Vec<OffsetCommitResponseTopic>) -> Vec<OffsetCommitResponseTopic> {
    let mut merged: BTreeMap<(TopicId, _), OffsetCommitResponseTopic> = BTreeMap::new();
    for answer in answers {
        let key = (answer.topic_id, answer.name.clone());
        match merged.get_mut(&key) {
            Some(topic) => topic.partitions.extend(answer.partitions),
            None => _ = merged.insert(key, answer),
        }
    }
    merged.into_values().collect()
}
