//! One fetch from one leader: the request, and the answer taken apart into records.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset, TopicId, TopicPartition};
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_protocol::messages::fetch_response::PartitionData;
use ottla_protocol::messages::{FetchRequest, FetchResponse};
use ottla_records::{BatchError, Batches, RawBatch, Record, TimestampType};

use super::{ConsumedRecord, ConsumerOptions};
use crate::client::{Client, Target};
use crate::error::ClientError;
use crate::visible::Visibility;

/// A partition, and from where it is to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) partition: TopicPartition,
    pub(super) topic_id: TopicId,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) offset: Offset,
    pub(super) served: u64,
}

#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) partition: TopicPartition,
    pub(super) result: Result<Parsed, ClientError>,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) records: Vec<ConsumedRecord>,
    pub(super) next_offset: Offset,
}

pub(super) async fn fetch(
    client: Client,
    leader: BrokerId,
    wanted: Vec<Wanted>,
    options: ConsumerOptions,
) -> Vec<Arrived> {
    let request = request(&wanted, &options);
    let time = options.max_wait + client.options().request_timeout;
    let response = client.send_within(Target::Broker(leader), &request, time).await;
    let parts = response.and_then(|response| parts(&wanted, response));
    wanted
        .into_iter()
        .map(|wanted| {
            let result = match &parts {
                Ok(parts) => read(&wanted, parts),
                Err(error) => Err(error.clone()),
            };
            Arrived { partition: wanted.partition, result }
        })
        .collect()
}

/// Without a fetch session: each request names all of its partitions, in order: when the answer is
/// full, the broker leaves out the last ones.
fn request(wanted: &[Wanted], options: &ConsumerOptions) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for wanted in wanted {
        let name = &*wanted.partition.topic;
        let place = topics.iter().position(|topic| *topic.topic == *name).unwrap_or_else(|| {
            topics.push(FetchTopic {
                topic: name.into(),
                topic_id: wanted.topic_id,
                ..FetchTopic::default()
            });
            topics.len() - 1
        });
        let topic = topics.get_mut(place).expect("it was found there or put there");
        topic.partitions.push(FetchPartition {
            partition: wanted.partition.partition.0,
            current_leader_epoch: wanted.leader_epoch.0,
            fetch_offset: wanted.offset.0,
            partition_max_bytes: options.partition_max_bytes,
            ..FetchPartition::default()
        });
    }
    FetchRequest {
        max_wait_ms: i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: options.min_bytes,
        max_bytes: options.max_bytes,
        isolation_level: options.isolation.code(),
        topics,
        ..FetchRequest::default()
    }
}

type Parts = BTreeMap<(Arc<str>, i32), PartitionData>;

/// The answer by topic and partition; from version 13 on, it names topics by id.
fn parts(wanted: &[Wanted], response: FetchResponse) -> Result<Parts, ClientError> {
    if response.error_code != ErrorCode::NONE {
        return Err(ClientError::refused("fetching", response.error_code));
    }
    let mut parts = Parts::new();
    for topic in response.responses {
        let mut same = wanted.iter().filter(|wanted| match &*topic.topic {
            "" => wanted.topic_id == topic.topic_id,
            name => &*wanted.partition.topic == name,
        });
        let Some(name) = same.next().map(|wanted| &wanted.partition.topic) else { continue };
        for part in topic.partitions {
            parts.insert((Arc::clone(name), part.partition_index), part);
        }
    }
    Ok(parts)
}

fn read(wanted: &Wanted, parts: &Parts) -> Result<Parsed, ClientError> {
    let key = (Arc::clone(&wanted.partition.topic), wanted.partition.partition.0);
    let part = parts.get(&key);
    // A leader that knows nothing of the topic any more may leave it out of the answer.
    let code = part.map_or(ErrorCode::UNKNOWN_TOPIC_ID, |part| part.error_code);
    match part {
        Some(part) if code == ErrorCode::NONE => parse(wanted, part),
        _ => Err(ClientError::refused(format!("reading {}", wanted.partition), code)),
    }
}

/// Records of whole batches, from the wanted offset on: a broker begins with the batch that holds
/// it, and may end in the middle of one.
fn parse(wanted: &Wanted, part: &PartitionData) -> Result<Parsed, ClientError> {
    let bytes = part.records.as_ref().and_then(|records| records.bytes()).cloned();
    let mut visibility = Visibility::new(part.aborted_transactions.clone());
    let mut parsed = Parsed { records: Vec::new(), next_offset: wanted.offset };
    for batch in Batches::new(bytes.unwrap_or_default()) {
        let next_offset = parsed.next_offset;
        let corrupt = |error: BatchError| ClientError::CorruptBatch {
            partition: wanted.partition.clone(),
            offset: next_offset.0,
            what: error.to_string(),
        };
        let batch = batch.map_err(corrupt)?;
        batch.clone().verify_crc().map_err(corrupt)?;
        if visibility.shows(&batch).map_err(corrupt)? {
            append_records(wanted, &batch, &mut parsed.records).map_err(corrupt)?;
        }
        parsed.next_offset = next_offset.max(Offset(batch.header().next_offset()));
    }
    Ok(parsed)
}

fn append_records(
    wanted: &Wanted,
    batch: &RawBatch,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), BatchError> {
    let timestamp_type = batch.header().attributes.timestamp_type();
    for record in batch.records()? {
        let record = record?;
        if wanted.offset <= record.offset {
            records.push(consumed(wanted, timestamp_type, record));
        }
    }
    Ok(())
}

fn consumed(wanted: &Wanted, timestamp_type: TimestampType, record: Record) -> ConsumedRecord {
    ConsumedRecord {
        partition: wanted.partition.partition.0,
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        timestamp_type,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| (header.key_text().into_owned(), header.value))
            .collect(),
    }
}
