//! Offsets that groups commit: committing, reading, deleting, expiring. Pure.

use std::collections::BTreeSet;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Timestamp, TopicId};
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ottla_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use ottla_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use ottla_protocol::records::{GroupRecord, OffsetCommitKey, OffsetCommitValue};

use super::classic::ClassicGroup;
use super::stored::{CommittedOffset, Stored};
use super::turn::Turn;
use super::{Settings, TopicDeleted};

/// A request that leaves it to the broker how long an offset is kept.
const DEFAULT_RETENTION: i64 = -1;

/// The offsets of a request that was admitted, one record each.
pub(crate) fn commit(turn: &mut Turn<'_>, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let group = owned(&request.group_id);
    let expires_at = match request.retention_time_ms {
        DEFAULT_RETENTION => -1,
        retention_ms => turn.now.0.saturating_add(retention_ms),
    };
    let topics = request.topics.iter().map(|topic| {
        let topic_name = owned(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let error_code = if is_too_large(partition, turn.settings) {
                ErrorCode::OFFSET_METADATA_TOO_LARGE
            } else {
                let key = OffsetCommitKey {
                    group: group.clone(),
                    topic: topic_name.clone(),
                    partition: partition.partition_index,
                };
                let value = value(turn.now, expires_at, topic, partition);
                turn.append(GroupRecord::OffsetCommit(key, Some(value)));
                ErrorCode::NONE
            };
            OffsetCommitResponsePartition { partition_index: partition.partition_index, error_code }
        });
        OffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: topic.name.clone(),
            topic_id: topic.topic_id,
        }
    });
    OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() }
}

/// A record of a commit takes more than its texts: the offset, the partition, when it was committed.
const RECORD_BYTES_MIN: usize = 30;

/// No more than what the records of a commit take.
pub(crate) fn records_bytes_min(request: &OffsetCommitRequest, settings: &Settings) -> usize {
    let bytes = request.topics.iter().map(|topic| {
        let stored = topic.partitions.iter().filter(|it| !is_too_large(it, settings));
        let each = RECORD_BYTES_MIN + request.group_id.len() + topic.name.len();
        each * stored.count()
    });
    bytes.sum()
}

/// Kafka counts the metadata as Java does, in UTF-16 units.
fn is_too_large(partition: &OffsetCommitRequestPartition, settings: &Settings) -> bool {
    let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
    metadata.len() > settings.offset_metadata_max
        && metadata.encode_utf16().count() > settings.offset_metadata_max
}

fn value(
    now: Timestamp,
    expires_at: i64,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_ref().map(owned).unwrap_or_default(),
        commit_timestamp: now.0,
        expire_timestamp: expires_at,
        topic_id: topic.topic_id,
    }
}

/// What a group has committed: in the partitions that are asked for, or in all.
pub(crate) fn fetch(
    stored: &Stored,
    request: &OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let topics = match &request.topics {
        Some(topics) => topics
            .iter()
            .map(|topic| {
                let find = |partition: &i32| {
                    let found = stored.offset(&request.group_id, &topic.name, *partition);
                    let found = found.filter(|found| is_of(found, topic.topic_id));
                    found.map_or_else(|| nothing(*partition), |it| committed(*partition, it))
                };
                OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: topic.partition_indexes.iter().map(find).collect(),
                }
            })
            .collect(),
        None => all(stored, &request.group_id),
    };
    OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        topics,
        ..OffsetFetchResponseGroup::default()
    }
}

fn all(stored: &Stored, group: &str) -> Vec<OffsetFetchResponseTopics> {
    let topics = stored.offsets(group).into_iter().flat_map(imbl::OrdMap::iter);
    topics
        .map(|(name, partitions)| OffsetFetchResponseTopics {
            name: name.clone(),
            topic_id: TopicId::ZERO,
            partitions: partitions.iter().map(|(index, it)| committed(*index, it)).collect(),
        })
        .collect()
}

/// Whether an offset was committed for the topic that has this id, as far as both are known.
fn is_of(offset: &CommittedOffset, topic_id: TopicId) -> bool {
    offset.topic_id == TopicId::ZERO || topic_id == TopicId::ZERO || offset.topic_id == topic_id
}

fn committed(partition_index: i32, offset: &CommittedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: offset.offset.0,
        committed_leader_epoch: offset.leader_epoch.0,
        metadata: Some(offset.metadata.clone()),
        error_code: ErrorCode::NONE,
    }
}

pub(crate) fn nothing(partition_index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(ByteString::new()),
        error_code: ErrorCode::NONE,
    }
}

/// Deletes offsets of topics that the group does not read any more. A partition that is named again is passed over.
pub(crate) fn delete(
    turn: &mut Turn<'_>,
    stored: &Stored,
    group: &ClassicGroup,
    request: &OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut seen = BTreeSet::new();
    let topics = request.topics.iter().map(|topic| {
        let is_subscribed = group.is_subscribed_to(&topic.name);
        let error_code =
            if is_subscribed { ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC } else { ErrorCode::NONE };
        let found = stored.offsets(&group.id).and_then(|topics| topics.get_key_value(&topic.name));
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let new = indexes.filter(|index| seen.insert((&*topic.name, *index)));
        let partitions = new.map(|partition_index| {
            if let Some((name, offsets)) = found.filter(|_| !is_subscribed)
                && offsets.contains_key(&partition_index)
            {
                turn.append(tombstone(&group.id, name, partition_index));
            }
            OffsetDeleteResponsePartition { partition_index, error_code }
        });
        OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name.clone() }
    });
    let topics = topics.filter(|topic| !topic.partitions.is_empty());
    OffsetDeleteResponse { topics: topics.collect(), ..OffsetDeleteResponse::default() }
}

/// Deletes all offsets of a group.
pub(crate) fn delete_all(turn: &mut Turn<'_>, stored: &Stored, group: &ByteString) {
    for (topic, partitions) in stored.offsets(group).into_iter().flat_map(imbl::OrdMap::iter) {
        for index in partitions.keys() {
            turn.append(tombstone(group, topic, *index));
        }
    }
}

/// Deletes the offsets of a group that nobody needs any more (KIP-211). Whether none is left.
pub(crate) fn expire(turn: &mut Turn<'_>, stored: &Stored, group: &ClassicGroup) -> bool {
    let mut none_is_left = true;
    for (topic, partitions) in stored.offsets(&group.id).into_iter().flat_map(imbl::OrdMap::iter) {
        let is_needed = group.is_subscribed_to(topic);
        for (index, offset) in partitions {
            if !is_needed && is_expired(turn, group, offset) {
                turn.append(tombstone(&group.id, topic, *index));
            } else {
                none_is_left = false;
            }
        }
    }
    none_is_left
}

fn is_expired(turn: &Turn<'_>, group: &ClassicGroup, offset: &CommittedOffset) -> bool {
    let Some(since) = group.offsets_idle_since(offset.committed_at) else { return false };
    match offset.expires_at {
        Some(expires_at) => expires_at <= turn.now,
        None => turn.now.0.saturating_sub(since.0) >= turn.settings.offsets_retention_ms,
    }
}

/// Deletes a group's offsets in topics that are gone, and not those in a topic that has the same name now.
pub(crate) fn forget_topics(
    turn: &mut Turn<'_>,
    stored: &Stored,
    group: &ByteString,
    topics: &[TopicDeleted],
) {
    let Some(offsets) = stored.offsets(group) else { return };
    for topic in topics {
        for (index, offset) in offsets.get(&*topic.name).into_iter().flatten() {
            if is_of(offset, topic.id) {
                turn.append(tombstone(group, &topic.name, *index));
            }
        }
    }
}

fn tombstone(group: &ByteString, topic: &ByteString, partition: i32) -> GroupRecord {
    let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition };
    GroupRecord::OffsetCommit(key, None)
}

/// A copy: a slice of a frame would keep all of the frame.
fn owned(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}
