//! DescribeLogDirs (key 35), versions 1–5: the log directories, the logs in them and their sizes, and the room on their
//! disks. One that has failed, now or before the start, is answered with KAFKA_STORAGE_ERROR and nothing else.
//!
//! - v3: an error for the request as a whole. v4: total and usable bytes. v5: whether the directory is cordoned.
//! - Null topics mean all; the metadata log is not among them.
//! - How far a replica is behind is told against what is visible, and of a copy on its way to another directory against the
//!   replica.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{ErrorCode, PartitionIndex};
use ottla_log::Log;
use ottla_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ottla_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use tracing::warn;

use super::Context;
use crate::answer::Outcome;
use crate::log_directories::Member;

/// The offset lag of a log that no topic owns.
const UNKNOWN_LAG: i64 = -1;

pub(super) async fn handle(context: Context, request: DescribeLogDirsRequest) -> Outcome {
    // The file system may take its time.
    let answered = tokio::task::spawn_blocking(move || {
        let results = describe_all(&context, &request);
        context.answer(&DescribeLogDirsResponse { results, ..Default::default() })
    });
    answered.await.expect("a look at the disk does not panic")
}

fn describe_all(context: &Context, request: &DescribeLogDirsRequest) -> Vec<DescribeLogDirsResult> {
    let directories = &context.broker.directories;
    let members = directories.members().iter().map(|member| describe(context, request, member));
    members.chain(directories.unreadable().iter().map(|it| offline(&it.path))).collect()
}

fn offline(path: &Path) -> DescribeLogDirsResult {
    let absolute = std::path::absolute(path);
    DescribeLogDirsResult {
        log_dir: absolute.as_deref().unwrap_or(path).display().to_string().into(),
        error_code: ErrorCode::KAFKA_STORAGE_ERROR,
        ..DescribeLogDirsResult::default()
    }
}

fn describe(
    context: &Context,
    request: &DescribeLogDirsRequest,
    member: &Member,
) -> DescribeLogDirsResult {
    let offline = offline(member.path());
    if !member.is_online() {
        return offline;
    }
    let space = match ottla_env::sys::disk_space(member.path()) {
        Ok(space) => space,
        Err(error) => {
            warn!(%error, "the file system does not say how much room it has");
            return offline;
        }
    };
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    DescribeLogDirsResult {
        topics: topics(context, request, member),
        total_bytes: bytes(space.total),
        usable_bytes: bytes(space.usable),
        ..DescribeLogDirsResult { error_code: ErrorCode::NONE, ..offline }
    }
}

fn topics(
    context: &Context,
    request: &DescribeLogDirsRequest,
    member: &Member,
) -> Vec<DescribeLogDirsTopic> {
    let asked = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|index| (&*topic.topic, PartitionIndex(*index)))
        });
        partitions.collect::<HashSet<_>>()
    });
    let is_asked = |log: &&Arc<Log>| {
        let name = log.topic_partition();
        let key = (&*name.topic, name.partition);
        asked.as_ref().is_none_or(|asked| asked.contains(&key))
    };
    let mut topics = BTreeMap::<ByteString, Vec<DescribeLogDirsPartition>>::new();
    let name = |log: &Log| ByteString::from(&*log.topic_partition().topic);
    for log in member.logs().iter().filter(is_asked) {
        topics.entry(name(log)).or_default().push(partition(context, log, false));
    }
    for future in member.directory.futures().iter().filter(is_asked) {
        topics.entry(name(future)).or_default().push(partition(context, future, true));
    }
    let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
    topics.into_iter().map(topic).collect()
}

/// A log, or a copy of one in the making.
fn partition(context: &Context, log: &Log, is_future_key: bool) -> DescribeLogDirsPartition {
    let index = log.topic_partition().partition.0;
    let replica = log.topic_id().and_then(|id| context.broker.replicas.find(id, index));
    let lag = replica.map(|it| match is_future_key {
        true => it.log().log_end_offset() - log.log_end_offset(),
        false => (it.high_watermark() - log.log_end_offset()).max(0),
    });
    DescribeLogDirsPartition {
        partition_index: index,
        partition_size: i64::try_from(log.size_in_bytes()).unwrap_or(i64::MAX),
        offset_lag: lag.unwrap_or(UNKNOWN_LAG),
        is_future_key,
    }
}
