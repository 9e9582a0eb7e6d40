//! Asks partitions' leaders for offsets: the ends of a log, or where a time begins in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{ErrorCode, Offset, Timestamp, TopicPartition};
use ottla_protocol::messages::ListOffsetsRequest;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use tokio::task::JoinSet;

use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;
use crate::metadata::Metadata;
use crate::retry::Patience;

/// Whether records of open transactions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Everything that is replicated; Kafka's default.
    #[default]
    ReadUncommitted,
    /// What lies below the first open transaction, without what was rolled back.
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    Earliest,
    /// The offset that the next record will have.
    Latest,
    /// Of the first record at or after this time.
    AtOrAfter(Timestamp),
}

impl OffsetQuery {
    fn code(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            // Negative times have meanings of their own on the wire.
            Self::AtOrAfter(time) => time.0.max(0),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    pub offset: Offset,
    /// Of the record, when a time was asked for; else −1.
    pub timestamp: Timestamp,
}

/// `None`: no record is that young.
type Listed = BTreeMap<TopicPartition, Result<Option<ListedOffset>, ClientError>>;

impl Client {
    /// The offsets asked for, `None` where no record is young enough. Follows leaders that move;
    /// a partition that fails for good has its error in the answer.
    pub async fn list_offsets(
        &self,
        queries: BTreeMap<TopicPartition, OffsetQuery>,
        isolation: Isolation,
    ) -> Listed {
        let mut patience = Patience::new(self.options().timeout);
        let mut listed = Listed::new();
        let mut open = queries;
        loop {
            for (partition, result) in self.list_offsets_once(&open, isolation).await {
                if !result.as_ref().is_err_and(ClientError::is_retriable) {
                    open.remove(&partition);
                }
                listed.insert(partition, result);
            }
            if open.is_empty() || !patience.pause().await {
                return listed;
            }
            let topics: Vec<&str> = open.keys().map(|partition| &*partition.topic).collect();
            // The next round tells whether it helped.
            let _ = self.refresh(TopicFilter::Named(&topics)).await;
        }
    }

    async fn list_offsets_once(
        &self,
        queries: &BTreeMap<TopicPartition, OffsetQuery>,
        isolation: Isolation,
    ) -> Listed {
        let metadata = self.metadata();
        let mut listed = Listed::new();
        let mut by_leader: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (partition, query) in queries {
            match metadata.leader(&partition.topic, partition.partition.0) {
                Some(leader) => {
                    by_leader.entry(leader).or_default().push((partition.clone(), *query));
                }
                None => {
                    listed.insert(partition.clone(), Err(leaderless(&metadata, partition)));
                }
            }
        }
        let mut requests = JoinSet::new();
        for (leader, queries) in by_leader {
            let request = request(&metadata, &queries, isolation);
            let client = self.clone();
            requests.spawn(async move {
                let response = client.send(Target::Broker(leader), &request).await;
                let topics = response.map(|response| response.topics);
                match_up(
                    queries,
                    topics.map(|topics| {
                        topics
                            .into_iter()
                            .map(|topic| ((*topic.name).into(), topic.partitions))
                            .collect()
                    }),
                )
            });
        }
        for answered in requests.join_all().await {
            listed.extend(answered);
        }
        listed
    }
}

/// Why a partition has no leader that we could ask.
fn leaderless(metadata: &Metadata, partition: &TopicPartition) -> ClientError {
    match metadata.topics.get(&partition.topic) {
        Some(topic) if !topic.partitions.contains_key(&partition.partition.0) => {
            ClientError::NoSuchPartition(partition.clone())
        }
        Some(_) => ClientError::refused(partition.to_string(), ErrorCode::LEADER_NOT_AVAILABLE),
        None => ClientError::refused(
            format!("topic \"{}\"", partition.topic),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ),
    }
}

fn request(
    metadata: &Metadata,
    queries: &[(TopicPartition, OffsetQuery)],
    isolation: Isolation,
) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, query) in queries {
        let index = partition.partition.0;
        let known = metadata.partition(&partition.topic, index);
        topics.entry(&partition.topic).or_default().push(ListOffsetsPartition {
            partition_index: index,
            current_leader_epoch: known.map_or(-1, |known| known.leader_epoch.0),
            timestamp: query.code(),
        });
    }
    let topic = |(name, partitions): (&str, _)| ListOffsetsTopic { name: name.into(), partitions };
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: isolation.code(),
        topics: topics.into_iter().map(topic).collect(),
        ..ListOffsetsRequest::default()
    }
}

type Parts = BTreeMap<Arc<str>, Vec<ListOffsetsPartitionResponse>>;

fn match_up(
    queries: Vec<(TopicPartition, OffsetQuery)>,
    response: Result<Parts, ClientError>,
) -> Listed {
    let find = |partition: &TopicPartition| {
        let parts = response.as_ref().map_err(Clone::clone)?;
        let parts = parts.get(&partition.topic).into_iter().flatten();
        let mut parts = parts.filter(|part| part.partition_index == partition.partition.0);
        parts.next().map_or_else(
            || Err(ClientError::refused(partition.to_string(), ErrorCode::UNKNOWN_SERVER_ERROR)),
            |part| listed(partition, part),
        )
    };
    queries.into_iter().map(|(partition, _)| (partition.clone(), find(&partition))).collect()
}

fn listed(
    partition: &TopicPartition,
    part: &ListOffsetsPartitionResponse,
) -> Result<Option<ListedOffset>, ClientError> {
    if part.error_code != ErrorCode::NONE {
        return Err(ClientError::refused(format!("offsets of {partition}"), part.error_code));
    }
    let found = ListedOffset { offset: Offset(part.offset), timestamp: Timestamp(part.timestamp) };
    Ok((part.offset >= 0).then_some(found))
}
