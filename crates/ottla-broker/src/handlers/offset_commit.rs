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

#[cfg(test)]
mod tests {
    use ottla_base::Uuid;
    use ottla_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
    use ottla_protocol::records::{MetadataRecord, PartitionRecord, TopicRecord};

    use super::*;

    const TOPIC: TopicId = Uuid([7; 16]);
    const OTHER: TopicId = Uuid([8; 16]);

    /// One topic of two partitions.
    fn image() -> Image {
        let mut image = Image::new("cluster");
        let partition = |partition_id| PartitionRecord {
            partition_id,
            topic_id: TOPIC,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            ..Default::default()
        };
        let topic = TopicRecord { name: "t".into(), topic_id: TOPIC };
        let records: [MetadataRecord; 3] = [topic.into(), partition(0).into(), partition(1).into()];
        records.iter().for_each(|record| image.apply(record).unwrap());
        image
    }

    fn asked(name: &str, topic_id: TopicId, indexes: &[i32]) -> OffsetCommitRequestTopic {
        let partition = |index: &i32| OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: 10 + i64::from(*index),
            ..Default::default()
        };
        let partitions = indexes.iter().map(partition).collect();
        OffsetCommitRequestTopic { name: name.into(), topic_id, partitions }
    }

    fn answered(
        name: &str,
        topic_id: TopicId,
        indexes: &[i32],
        error_code: ErrorCode,
    ) -> OffsetCommitResponseTopic {
        refuse(&asked(name, topic_id, indexes), error_code)
    }

    #[test]
    fn what_exists_is_asked_for_by_name_and_id_and_what_does_not_is_answered() {
        let [by_name, by_id] = [9, 10].map(|version| {
            let mut topics = if version < TOPIC_IDS_SINCE {
                [("t", &[1, 5, 0][..]), ("t", &[6]), ("u", &[0])]
                    .map(|(name, indexes)| asked(name, Uuid::ZERO, indexes))
                    .to_vec()
            } else {
                [(TOPIC, &[1, 5, 0][..]), (TOPIC, &[6]), (OTHER, &[0])]
                    .map(|(id, indexes)| asked("", id, indexes))
                    .to_vec()
            };
            let unknown = take_unknown(&image(), version, &mut topics);
            assert_eq!(topics, [asked("t", TOPIC, &[1, 0])]);
            merge(unknown)
        });
        let partitions = answered("t", TOPIC, &[5, 6], ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let topic = answered("u", Uuid::ZERO, &[0], ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(by_name, [topic, partitions.clone()]);
        let topic = answered("", OTHER, &[0], ErrorCode::UNKNOWN_TOPIC_ID);
        assert_eq!(by_id, [partitions, topic]);
    }
}
