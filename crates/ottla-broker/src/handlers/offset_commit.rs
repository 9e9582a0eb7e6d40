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

pub(super) async fn handle(context: Context, request: OffsetCommitRequest) -> Outcome {
    let image = context.broker.image();
    let (known, mut answers) = sort_out(&image, context.version, &request.topics);
    if !known.is_empty() {
        let request = OffsetCommitRequest { topics: known.clone(), ..request };
        let group = request.group_id.clone();
        let commit = Request::Commit(CommitOffsets { version: context.version, request });
        let committed: Result<Result<OffsetCommitResponse, _>, _> =
            context.broker.groups.ask(&group, commit).await;
        answers.extend(match committed.and_then(|answer| answer) {
            Ok(response) => response.topics,
            Err(error) => known.iter().map(|topic| refuse(topic, error)).collect(),
        });
    }
    let topics = merge(answers);
    context.answer(&OffsetCommitResponse { topics, ..OffsetCommitResponse::default() })
}

/// The topics and partitions that exist, and the answers about the others.
fn sort_out(
    image: &Image,
    version: i16,
    asked: &[OffsetCommitRequestTopic],
) -> (Vec<OffsetCommitRequestTopic>, Vec<OffsetCommitResponseTopic>) {
    let by_id = version >= TOPIC_IDS_SINCE;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for topic in asked {
        let found =
            if by_id { image.topic(topic.topic_id) } else { image.topic_by_name(&topic.name) };
        let Some(found) = found else {
            let error = if by_id {
                ErrorCode::UNKNOWN_TOPIC_ID
            } else {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            };
            unknown.push(refuse(topic, error));
            continue;
        };
        let (there, missing) = split(topic, found);
        if !missing.partitions.is_empty() {
            unknown.push(refuse(&missing, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
        if !there.partitions.is_empty() {
            known.push(there);
        }
    }
    (known, unknown)
}

/// A topic of the request with the partitions that exist, and with those that don't.
fn split(
    asked: &OffsetCommitRequestTopic,
    topic: &Topic,
) -> (OffsetCommitRequestTopic, OffsetCommitRequestTopic) {
    let (there, missing) = asked
        .partitions
        .iter()
        .cloned()
        .partition(|it| topic.partition(PartitionIndex(it.partition_index)).is_some());
    let with = |partitions| OffsetCommitRequestTopic {
        name: (&*topic.name).into(),
        topic_id: topic.id,
        partitions,
    };
    (with(there), with(missing))
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
