//! DeleteRecords (key 21), versions 0–2: lets partitions begin at a later offset.
//!
//! - All versions mean the same. Offset −1 stands for the high watermark.
//! - The answer comes when the new beginning is on disk, with one write for all partitions. A single replica has nobody else to wait for, so that the
//!   request's timeout never ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset};
use ottla_log::StorageError;
use ottla_metadata::topic_name;
use ottla_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ottla_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Context;
use crate::answer::Outcome;
use crate::replica::Replica;

const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

/// A partition that may begin later, and where.
type Deletion = (Arc<Replica>, Offset);
/// Or why it may not.
type Checked = Result<Deletion, ErrorCode>;

pub(super) async fn handle(context: Context, request: DeleteRecordsRequest) -> Outcome {
    // A file is written, so none of this runs on a thread that connections share.
    let answered = tokio::task::spawn_blocking(move || {
        let topics = delete_all(&context, by_partition(request));
        context.answer(&DeleteRecordsResponse { topics, ..Default::default() })
    });
    answered.await.expect("a deletion does not panic")
}

/// Each partition once; of several offsets for one the last counts.
fn by_partition(request: DeleteRecordsRequest) -> BTreeMap<ByteString, BTreeMap<i32, i64>> {
    let mut topics = BTreeMap::<ByteString, BTreeMap<i32, i64>>::new();
    for topic in request.topics {
        let partitions =
            topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset));
        // A topic without partitions is not answered.
        if !topic.partitions.is_empty() {
            topics.entry(topic.name).or_default().extend(partitions);
        }
    }
    topics
}

/// Checks each partition by itself, and deletes from all that pass at once.
fn delete_all(
    context: &Context,
    topics: BTreeMap<ByteString, BTreeMap<i32, i64>>,
) -> Vec<DeleteRecordsTopicResult> {
    let checked: Vec<(ByteString, Vec<_>)> = topics
        .into_iter()
        .map(|(topic, partitions)| {
            let check = |(index, offset)| (index, check(context, &topic, index, offset));
            let partitions = partitions.into_iter().map(check).collect();
            (topic, partitions)
        })
        .collect();
    let partitions = checked.iter().flat_map(|(_, partitions)| partitions);
    let deletions = partitions.filter_map(|(_, checked)| checked.as_ref().ok().cloned()).collect();
    let mut starts = delete(context, deletions).into_iter();
    let mut start = |_| starts.next().expect("each deletion has a result");
    let answer = |(topic, partitions): (ByteString, Vec<(i32, Checked)>)| {
        let results = partitions.into_iter();
        let results = results.map(|(index, checked)| result(index, checked.and_then(&mut start)));
        DeleteRecordsTopicResult { name: topic, partitions: results.collect() }
    };
    checked.into_iter().map(answer).collect()
}

fn check(context: &Context, topic: &str, partition: i32, offset: i64) -> Checked {
    let replica = context.broker.replica(topic, partition)?;
    if topic_name::is_internal(topic) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    replica.check_alive()?;
    replica.check_leads()?;
    let before = replica.check_deletion((offset != HIGH_WATERMARK).then_some(Offset(offset)))?;
    Ok((replica, before))
}

/// Where each partition begins now, which may have been later already. Segments go with the next retention run.
fn delete(context: &Context, deletions: Vec<Deletion>) -> Vec<Result<Offset, ErrorCode>> {
    let log = |(replica, before): &Deletion| (replica.log(), *before);
    let trims: Vec<_> = deletions.iter().map(log).collect();
    let starts = context.broker.directories.delete_records(&trims, storage_error);
    // Who waits for records that are gone now must be told.
    deletions.iter().for_each(|(replica, _)| replica.waiters.wake());
    starts
}

fn storage_error(error: StorageError) -> ErrorCode {
    tracing::error!(%error, "records can't be deleted");
    ErrorCode::KAFKA_STORAGE_ERROR
}

fn result(partition_index: i32, start: Result<Offset, ErrorCode>) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: start.map_or(NO_LOW_WATERMARK, |start| start.0),
        error_code: start.err().unwrap_or(ErrorCode::NONE),
    }
}
