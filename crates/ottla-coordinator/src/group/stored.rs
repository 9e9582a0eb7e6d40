//! What a partition of `__consumer_offsets` says: the groups, and the offsets they committed. Pure.
//!
//! A function of the log: changed only by replaying. Cloning is cheap, all maps share their structure.
//!
//! Invariants:
//! - no group has an empty map of offsets, no topic either
//! - a group whose record was deleted is not there, even if offsets of it are left

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use imbl::OrdMap;
use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicId};
use ottla_protocol::records::{
    GroupMetadataKey, GroupMetadataValue, GroupRecord, OffsetCommitKey, OffsetCommitValue,
};
use ottla_protocol::{DecodeError, EncodeError, Malformed};

use crate::shard::StoredRecord;

/// An offset as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: Offset,
    /// Of the record before the offset; −1 when the client did not say.
    pub leader_epoch: LeaderEpoch,
    pub metadata: ByteString,
    pub committed_at: Timestamp,
    /// Only of clients that say how long they want an offset to be kept.
    pub expires_at: Option<Timestamp>,
    /// Zero when the client named the topic only.
    pub topic_id: TopicId,
}

pub(crate) type TopicOffsets = OrdMap<i32, CommittedOffset>;
pub(crate) type GroupOffsets = OrdMap<ByteString, TopicOffsets>;

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored {
    /// What was last stored of each group; nothing for one that has only ever committed offsets.
    groups: OrdMap<ByteString, Option<Arc<GroupMetadataValue>>>,
    offsets: OrdMap<ByteString, GroupOffsets>,
}

impl Stored {
    pub(crate) fn groups(
        &self,
    ) -> impl Iterator<Item = (&ByteString, Option<&GroupMetadataValue>)> {
        self.groups.iter().map(|(id, value)| (id, value.as_deref()))
    }

    /// A group is there from its first record, or its first offset, until it is deleted.
    pub(crate) fn has_group(&self, id: &str) -> bool {
        self.groups.contains_key(id)
    }

    pub(crate) fn offsets(&self, group: &str) -> Option<&GroupOffsets> {
        self.offsets.get(group).filter(|_| self.has_group(group))
    }

    #[must_use]
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets(group)?.get(topic)?.get(&partition)
    }

    /// How many offsets there are. Walks over all topics of all groups.
    #[must_use]
    pub fn offset_count(&self) -> usize {
        self.offsets.values().flat_map(OrdMap::values).map(OrdMap::len).sum()
    }

    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn replay(&mut self, record: &GroupRecord) {
        if let GroupRecord::OffsetCommit(key, value) = record {
            match value {
                Some(value) => self.put_offset(key, value),
                None => self.remove_offset(key),
            }
        } else if let GroupRecord::GroupMetadata(key, value) = record {
            self.put_group(key, value.as_ref());
        }
        // Records of other kinds of groups are for those who know them.
    }

    fn put_group(&mut self, key: &GroupMetadataKey, value: Option<&GroupMetadataValue>) {
        match value {
            Some(value) => {
                self.groups.insert(key.group.clone(), Some(Arc::new(value.clone())));
            }
            None => {
                self.groups.remove(&*key.group);
            }
        }
    }

    fn put_offset(&mut self, key: &OffsetCommitKey, value: &OffsetCommitValue) {
        if !self.groups.contains_key(&*key.group) {
            self.groups.insert(key.group.clone(), None);
        }
        let topics = match self.offsets.get_mut(&*key.group) {
            Some(topics) => topics,
            None => self.offsets.entry(key.group.clone()).or_default(),
        };
        let partitions = match topics.get_mut(&*key.topic) {
            Some(partitions) => partitions,
            None => topics.entry(key.topic.clone()).or_default(),
        };
        partitions.insert(key.partition, CommittedOffset::from(value));
    }

    fn remove_offset(&mut self, key: &OffsetCommitKey) {
        let Some(topics) = self.offsets.get_mut(&*key.group) else { return };
        let Some(partitions) = topics.get_mut(&*key.topic) else { return };
        partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&*key.topic);
        }
        if topics.is_empty() {
            self.offsets.remove(&*key.group);
        }
    }
}

impl From<&OffsetCommitValue> for CommittedOffset {
    fn from(value: &OffsetCommitValue) -> Self {
        let expires_at = value.expire_timestamp;
        Self {
            offset: Offset(value.offset),
            leader_epoch: LeaderEpoch(value.leader_epoch),
            metadata: value.metadata.clone(),
            committed_at: Timestamp(value.commit_timestamp),
            expires_at: (expires_at != -1).then_some(Timestamp(expires_at)),
            topic_id: value.topic_id,
        }
    }
}

impl StoredRecord for GroupRecord {
    fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        self.encode(value_version(self))
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self>, DecodeError> {
        match Self::decode(key, value) {
            Ok(record) => Ok(Some(record)),
            Err(DecodeError { what: Malformed::UnknownKey(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The version in which Kafka 4.3 stores a record's value.
fn value_version(record: &GroupRecord) -> i16 {
    if let GroupRecord::OffsetCommit(_, Some(value)) = record {
        // The only version that can say when the offset expires.
        if value.expire_timestamp == -1 { 4 } else { 1 }
    } else if let GroupRecord::GroupMetadata(..) = record {
        3
    } else {
        *record.versions().end()
    }
}
