//! AlterReplicaLogDirs (key 34), versions 1–2: moves partitions to other log directories of this broker.
//!
//! - Answered when the move has begun; DescribeLogDirs shows how far it is. Only v2 is flexible.
//! - A directory is named by its absolute path. Of several for one partition, the last counts.
//! - A partition that this broker does not hold is REPLICA_NOT_AVAILABLE, or UNKNOWN_TOPIC_OR_PARTITION if there is
//!   none; should it be created here later, it is created in that directory.
//! - While any directory is offline nothing is moved: KAFKA_STORAGE_ERROR.
//! - Known difference: a copy that the end of the process has interrupted begins again, with nothing. Apache Kafka goes on where
//!   it was.

use std::collections::BTreeMap;
use std::path::Path;

use bytestring::ByteString;
use ottla_base::{ErrorCode, TopicPartition};
use ottla_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use ottla_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::Context;
use crate::answer::Outcome;
use crate::log_directories::Found;

/// The file name that a copy gets must fit the file system: topic, partition, 32 digits and `-future`.
const FILE_NAME_MAX: usize = 255;
const COPY_SUFFIX_LEN: usize = ".-future".len() + 32;

pub(super) async fn handle(context: Context, request: AlterReplicaLogDirsRequest) -> Outcome {
    // Directories are made.
    let answered = tokio::task::spawn_blocking(move || {
        let results = alter_all(&context, request);
        context.answer(&AlterReplicaLogDirsResponse { results, ..Default::default() })
    });
    answered.await.expect("the beginning of a move does not panic")
}

fn alter_all(
    context: &Context,
    request: AlterReplicaLogDirsRequest,
) -> Vec<AlterReplicaLogDirTopicResult> {
    let mut topics = BTreeMap::<ByteString, BTreeMap<i32, ByteString>>::new();
    for directory in request.dirs {
        for topic in directory.topics {
            let partitions = topics.entry(topic.name).or_default();
            partitions.extend(topic.partitions.iter().map(|it| (*it, directory.path.clone())));
        }
    }
    // A topic without partitions is not answered.
    topics.retain(|_, partitions| !partitions.is_empty());
    let topic = |(topic_name, partitions): (ByteString, BTreeMap<i32, ByteString>)| {
        let result = |(partition_index, path): (i32, ByteString)| {
            let altered = alter(context, &topic_name, partition_index, &path);
            let error_code = altered.err().unwrap_or(ErrorCode::NONE);
            AlterReplicaLogDirPartitionResult { partition_index, error_code }
        };
        let partitions = partitions.into_iter().map(result).collect();
        AlterReplicaLogDirTopicResult { topic_name, partitions }
    };
    topics.into_iter().map(topic).collect()
}

fn alter(context: &Context, topic: &str, partition: i32, path: &str) -> Result<(), ErrorCode> {
    let broker = &context.broker;
    let name = TopicPartition::new(topic, partition);
    if name.to_string().len() + COPY_SUFFIX_LEN > FILE_NAME_MAX {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let target = match broker.directories.find(Path::new(path)) {
        Found::Online(target) => target,
        Found::Offline => return Err(ErrorCode::KAFKA_STORAGE_ERROR),
        Found::Unknown => return Err(ErrorCode::LOG_DIR_NOT_FOUND),
    };
    let image = broker.image();
    let topic_id = image.topic_by_name(topic).map(|topic| topic.id);
    if let Some(replica) = topic_id.and_then(|id| broker.replicas.find(id, partition)) {
        replica.check_disk()?;
        return broker.moves.begin(&replica, target);
    }
    let known = topic_id.and_then(|id| image.partition(id, name.partition));
    // A partition whose replica is to be here, and is not, is in a directory that can't be read.
    if known.is_some_and(|it| it.replicas.contains(&broker.node_id)) {
        return Err(ErrorCode::KAFKA_STORAGE_ERROR);
    }
    let is_known = known.is_some();
    broker.moves.wish(name, target.id);
    Err(if is_known {
        ErrorCode::REPLICA_NOT_AVAILABLE
    } else {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    })
}
