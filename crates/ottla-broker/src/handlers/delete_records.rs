//! DeleteRecords (key 21), versions 0–2: lets partitions begin at a later offset.
//!
//! - All versions mean the same. Offset −1 stands for the high watermark.
//! - The answer comes when the new beginning is on disk. A single replica has nobody else to wait for, so that the
//!   request's timeout never ends.

use std::collections::BTreeMap;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset};
use ottla_metadata::topic_name;
use ottla_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ottla_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Context;
use crate::answer::Outcome;

const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

pub(super) async fn handle(context: Context, request: DeleteRecordsRequest) -> Outcome {
    // Each deletion writes a file, so none of this runs on a thread that connections share.
    let answered = tokio::task::spawn_blocking(move || {
        let topics = by_partition(request).into_iter().map(|(name, partitions)| {
            let delete = |(index, offset)| delete(&context, &name, index, offset);
            let partitions = partitions.into_iter().map(delete).collect();
            DeleteRecordsTopicResult { name: name.clone(), partitions }
        });
        let response = DeleteRecordsResponse { topics: topics.collect(), ..Default::default() };
        context.answer(&response)
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

fn delete(
    context: &Context,
    topic: &str,
    partition_index: i32,
    offset: i64,
) -> DeleteRecordsPartitionResult {
    match try_delete(context, topic, partition_index, offset) {
        Ok(start) => DeleteRecordsPartitionResult {
            partition_index,
            low_watermark: start.0,
            error_code: ErrorCode::NONE,
        },
        Err(error_code) => DeleteRecordsPartitionResult {
            partition_index,
            low_watermark: NO_LOW_WATERMARK,
            error_code,
        },
    }
}

fn try_delete(
    context: &Context,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Offset, ErrorCode> {
    let replica = context.broker.replica(topic, partition)?;
    if topic_name::is_internal(topic) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    replica.check_alive()?;
    replica.delete_records((offset != HIGH_WATERMARK).then_some(Offset(offset)))
}
