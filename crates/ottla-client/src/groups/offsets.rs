//! What a group has committed: read, set and forgotten.
//!
//! Offsets are asked for by topic names, in the last version that does so for a single group: those in topics that are
//! gone have no topic id, and a user wants to see them all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{ErrorCode, Offset, TopicId, TopicPartition};
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponsePartition;
use ottla_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetFetchRequest,
};

use super::quoted;
use crate::admin::check;
use crate::client::{Client, Target};
use crate::error::ClientError;
use crate::metadata::Metadata;

/// How far a group has read in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Of the next record to be read.
    pub offset: Offset,
    /// Whatever the one who committed wanted to note.
    pub metadata: String,
}

/// What became of each partition.
pub type Outcomes = BTreeMap<TopicPartition, Result<(), ClientError>>;

impl Client {
    /// All that a group has committed. Nothing at all, when there is no such group.
    ///
    /// # Errors
    /// When the coordinator cannot be asked until the client's timeout, or refuses.
    pub async fn committed(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        self.fetch_committed(group, None, false).await
    }

    /// What a group has committed in these partitions. Waits until transactions that commit there are over.
    pub(crate) async fn committed_in(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        self.fetch_committed(group, Some(partitions), true).await
    }

    async fn fetch_committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        const LAST_BY_NAME_OF_ONE_GROUP: i16 = 7;
        let topic = |(name, partition_indexes): (&Arc<str>, _)| OffsetFetchRequestTopic {
            name: (&**name).into(),
            partition_indexes,
        };
        let topics = |partitions| by_topic(partitions).into_iter().map(topic).collect();
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: partitions.map(topics),
            require_stable,
            ..OffsetFetchRequest::default()
        };
        self.persist(|| async {
            let target = Target::Broker(self.coordinator(group).await?);
            let response = self.send_at_most(target, &request, LAST_BY_NAME_OF_ONE_GROUP).await?;
            check(format!("offsets of {}", quoted(group)), response.error_code, None)?;
            let mut committed = BTreeMap::new();
            for topic in response.topics {
                let name: Arc<str> = (*topic.name).into();
                for part in topic.partitions {
                    let partition = TopicPartition::new(Arc::clone(&name), part.partition_index);
                    check(format!("the offset in {partition}"), part.error_code, None)?;
                    committed.extend(found(part).map(|found| (partition, found)));
                }
            }
            Ok(committed)
        })
        .await
    }

    /// Sets offsets of a group that has no members. The topics must be in [`Client::metadata`].
    ///
    /// # Errors
    /// The outer one where the coordinator cannot be asked, or is none, until the client's timeout. The inner ones
    /// where it refuses a partition.
    pub async fn set_committed(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<Outcomes, ClientError> {
        let request = commit_request(group, offsets, &self.metadata());
        self.persist(|| async {
            let coordinator = Target::Broker(self.coordinator(group).await?);
            let response = self.send(coordinator, &request).await?;
            retry_as_a_whole(commit_results(&request, &response, offsets))
        })
        .await
    }

    /// Forgets what a group has committed in partitions that none of its members reads.
    ///
    /// # Errors
    /// As [`Client::set_committed`], and the outer one where it refuses them all, as for a group that is not there.
    pub async fn delete_committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Outcomes, ClientError> {
        let topic = |(name, indexes): (&Arc<str>, Vec<i32>)| OffsetDeleteRequestTopic {
            name: (&**name).into(),
            partitions: indexes
                .into_iter()
                .map(|partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        };
        let request = OffsetDeleteRequest {
            group_id: group.into(),
            topics: by_topic(partitions).into_iter().map(topic).collect(),
        };
        self.persist(|| async {
            let coordinator = Target::Broker(self.coordinator(group).await?);
            let response = self.send(coordinator, &request).await?;
            check(format!("offsets of {}", quoted(group)), response.error_code, None)?;
            let codes = response.topics.iter().flat_map(|topic| {
                let named = |index| TopicPartition::new(&*topic.name, index);
                topic.partitions.iter().map(move |it| (named(it.partition_index), it.error_code))
            });
            retry_as_a_whole(outcomes(codes.collect(), partitions))
        })
        .await
    }
}

/// A commit by nobody in particular: who is a member adds who it is.
pub(crate) fn commit_request(
    group: &str,
    offsets: &BTreeMap<TopicPartition, Offset>,
    metadata: &Metadata,
) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, offset) in offsets {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition.0,
            committed_offset: offset.0,
            committed_metadata: Some("".into()),
            ..OffsetCommitRequestPartition::default()
        });
    }
    let topic = |(name, partitions): (&Arc<str>, _)| OffsetCommitRequestTopic {
        name: (&**name).into(),
        topic_id: metadata.topics.get(name).map_or(TopicId::ZERO, |topic| topic.id),
        partitions,
    };
    OffsetCommitRequest {
        group_id: group.into(),
        topics: topics.into_iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    }
}

/// What an answer says of each partition; from version 10 on, it names topics by id.
pub(crate) fn commit_results(
    request: &OffsetCommitRequest,
    response: &OffsetCommitResponse,
    offsets: &BTreeMap<TopicPartition, Offset>,
) -> Outcomes {
    let mut codes = BTreeMap::new();
    for topic in &response.topics {
        let mut same = request.topics.iter().filter(|asked| match &*topic.name {
            "" => asked.topic_id == topic.topic_id,
            name => &*asked.name == name,
        });
        let Some(asked) = same.next() else { continue };
        for part in &topic.partitions {
            codes.insert(TopicPartition::new(&*asked.name, part.partition_index), part.error_code);
        }
    }
    outcomes(codes, offsets.keys())
}

fn outcomes<'a>(
    codes: BTreeMap<TopicPartition, ErrorCode>,
    asked: impl IntoIterator<Item = &'a TopicPartition>,
) -> Outcomes {
    let outcome = |partition: &TopicPartition| {
        let code = codes.get(partition).copied().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
        (partition.clone(), check(format!("the offset in {partition}"), code, None))
    };
    asked.into_iter().map(outcome).collect()
}

/// A coordinator that moves refuses all partitions alike. That a partition is not there will not change.
fn retry_as_a_whole(outcomes: Outcomes) -> Result<Outcomes, ClientError> {
    let is_of_coordinator = |error: &&ClientError| {
        let is_missing = matches!(
            error,
            ClientError::Refused {
                code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID,
                ..
            }
        );
        error.is_retriable() && !is_missing
    };
    let mut refusals = outcomes.values().filter_map(|outcome| outcome.as_ref().err());
    match refusals.find(is_of_coordinator).cloned() {
        Some(error) => Err(error),
        None => Ok(outcomes),
    }
}

/// Nothing, where nothing is committed.
fn found(part: OffsetFetchResponsePartition) -> Option<Committed> {
    let metadata = part.metadata.unwrap_or_default().to_string();
    let offset = Offset(part.committed_offset);
    (offset >= Offset::ZERO).then_some(Committed { offset, metadata })
}

fn by_topic<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> BTreeMap<&'a Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<_, BTreeSet<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().insert(partition.partition.0);
    }
    topics.into_iter().map(|(name, indexes)| (name, indexes.into_iter().collect())).collect()
}
