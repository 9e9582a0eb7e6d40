//! DeleteRecords (key 21), versions 0–2: lets partitions begin at a later offset.
//!
//! - All versions mean the same. Offset −1 stands for the high watermark.
//! - The answer comes when the new beginning is on disk, with one write for all partitions, and all replicas on live
//!   brokers begin there, too, as they tell with their fetches; REQUEST_TIMED_OUT if that takes longer than the request
//!   allows.
//! - Known difference: records with acks=0 or 1 are not there for this until they are on disk, which takes milliseconds; with
//!   `log.flush.on.commit=false` they are at once, as in Apache Kafka.
//! - Known difference: in the moment in which a copy takes the place of a log in another directory (AlterReplicaLogDirs), the
//!   partition is refused with KAFKA_STORAGE_ERROR, which clients retry. Apache Kafka's requests wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, Offset};
use ottla_log::StorageError;
use ottla_metadata::topic_name;
use ottla_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ottla_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Context;
use crate::answer::Outcome;
use crate::replica::Replica;

const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

/// A partition that may begin later, and where.
type Deletion = (Arc<Replica>, Offset);
/// Or why it may not.
type Checked = Result<Deletion, ErrorCode>;

/// The partitions of each topic.
type Topics = Vec<(ByteString, Vec<(i32, Checked)>)>;

pub(super) async fn handle(context: Context, request: DeleteRecordsRequest) -> Outcome {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let here = context.clone();
    // A file is written, so this does not run on a thread that connections share.
    let deleted = tokio::task::spawn_blocking(move || delete_all(&here, by_partition(request)));
    let deleted = deleted.await.expect("a deletion does not panic");
    let deadline = Instant::now() + timeout;
    let is_alive =
        |id| context.broker.image().broker(id).is_some_and(|registered| !registered.fenced);
    let mut topics = Vec::with_capacity(deleted.len());
    for (name, checked) in deleted {
        let mut partitions = Vec::with_capacity(checked.len());
        for (index, checked) in checked {
            partitions.push(match checked {
                Ok(deletion) => {
                    result(index, deleted_everywhere(&deletion, deadline, is_alive).await)
                }
                Err(code) => result(index, Err(code.into())),
            });
        }
        topics.push(DeleteRecordsTopicResult { name, partitions });
    }
    context.answer(&DeleteRecordsResponse { topics, ..Default::default() })
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
fn delete_all(context: &Context, topics: BTreeMap<ByteString, BTreeMap<i32, i64>>) -> Topics {
    let mut checked: Topics = topics
        .into_iter()
        .map(|(topic, partitions)| {
            let check = |(index, offset)| (index, check(context, &topic, index, offset));
            let partitions = partitions.into_iter().map(check).collect();
            (topic, partitions)
        })
        .collect();
    let partitions = checked.iter().flat_map(|(_, partitions)| partitions);
    let deletions = partitions.filter_map(|(_, checked)| checked.as_ref().ok().cloned()).collect();
    let mut results = delete(context, deletions).into_iter();
    let partitions = checked.iter_mut().flat_map(|(_, partitions)| partitions);
    for (_, checked) in partitions.filter(|(_, checked)| checked.is_ok()) {
        if let Err(code) = results.next().expect("each deletion has a result") {
            *checked = Err(code);
        }
    }
    checked
}

fn check(context: &Context, topic: &str, partition: i32, offset: i64) -> Checked {
    let found = context.broker.replica(topic, partition);
    // Of a topic that is there, wherever the partition is.
    if topic_name::is_internal(topic)
        && found.as_ref().err() != Some(&ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let replica = found?;
    replica.check_alive()?;
    replica.check_leads()?;
    let before = replica.check_deletion((offset != HIGH_WATERMARK).then_some(Offset(offset)))?;
    Ok((replica, before))
}

/// Where each log begins now, which may have been later already. Segments go with the next retention run.
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

/// Why a partition has not begun later, and from where on its records are there.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: ErrorCode,
    low_watermark: Option<Offset>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, low_watermark: None }
    }
}

/// Waits until no replica on a live broker has the records any longer; the low watermark then.
async fn deleted_everywhere(
    (replica, before): &Deletion,
    deadline: Instant,
    is_alive: impl Fn(BrokerId) -> bool,
) -> Result<Offset, Failure> {
    let woken = Arc::new(Notify::new());
    let _registration = replica.deletions.register(&woken);
    loop {
        let low_watermark = replica.low_watermark(&is_alive)?;
        if let Some(reached) = low_watermark.filter(|reached| reached >= before) {
            return Ok(reached);
        }
        if timeout_at(deadline, woken.notified()).await.is_err() {
            return Err(Failure { code: ErrorCode::REQUEST_TIMED_OUT, low_watermark });
        }
    }
}

fn result(partition_index: i32, deleted: Result<Offset, Failure>) -> DeleteRecordsPartitionResult {
    let (low_watermark, error_code) = match deleted {
        Ok(reached) => (Some(reached), ErrorCode::NONE),
        Err(Failure { code, low_watermark }) => (low_watermark, code),
    };
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: low_watermark.map_or(NO_LOW_WATERMARK, |offset| offset.0),
        error_code,
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::Timestamp;
    use ottla_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };
    use ottla_replication::Fetched;

    use super::*;
    use crate::node::Node;
    use crate::replica::{leading_with, unflushed_log};

    const FOLLOWER: BrokerId = BrokerId(2);

    /// A partition with a follower, from which records before offset 2 are to go.
    fn deletion(directory: &tempfile::TempDir) -> Deletion {
        let log = unflushed_log(directory, &[Timestamp(1_000); 3]);
        log.flush().unwrap();
        let replica = Arc::new(leading_with(log, &Default::default(), &[FOLLOWER]));
        replica.log().delete_records_to(Offset(2)).unwrap();
        (replica, Offset(2))
    }

    fn fetch(replica: &Replica, log_start_offset: i64) {
        let fetched = Fetched {
            replica: FOLLOWER,
            broker_epoch: 1,
            is_eligible: true,
            fetch_offset: Offset(3),
            log_start_offset: Offset(log_start_offset),
            reports_flushes: true,
            now: Duration::ZERO,
        };
        replica.on_fetch(fetched).unwrap();
    }

    #[tokio::test]
    async fn a_deletion_waits_for_each_live_follower_to_begin_as_late() {
        let directory = tempfile::tempdir().unwrap();
        let deletion = deletion(&directory);
        let deadline = Instant::now() + Duration::from_secs(60);
        let fetches = async {
            for log_start in [0, 1, 2] {
                fetch(&deletion.0, log_start);
                tokio::task::yield_now().await;
            }
        };
        let (reached, ()) =
            tokio::join!(deleted_everywhere(&deletion, deadline, |_| true), fetches);
        assert_eq!(reached, Ok(Offset(2)));
    }

    #[tokio::test]
    async fn a_deletion_that_a_follower_has_not_heard_of_in_time_says_where_the_records_still_are()
    {
        let directory = tempfile::tempdir().unwrap();
        let deletion = deletion(&directory);
        let timed_out =
            |low_watermark| Err(Failure { code: ErrorCode::REQUEST_TIMED_OUT, low_watermark });
        let now = Instant::now();
        assert_eq!(deleted_everywhere(&deletion, now, |_| true).await, timed_out(None));
        fetch(&deletion.0, 1);
        assert_eq!(deleted_everywhere(&deletion, now, |_| true).await, timed_out(Some(Offset(1))));
    }

    /// The cluster's own topic, of which no partition is here.
    #[tokio::test]
    async fn records_of_an_internal_topic_stay_wherever_its_partitions_are() {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::alone(directory.path()).await;
        let name = topic_name::CONSUMER_OFFSETS;
        let code = async |index| {
            let partition = DeleteRecordsPartition { partition_index: index, offset: 0 };
            let topic = DeleteRecordsTopic { name: name.into(), partitions: vec![partition] };
            let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
            node.ask(request).await.topics[0].partitions[0].error_code
        };
        assert_eq!(code(0).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        node.broker().ensure_internal_topic(name).await.unwrap();
        let replica = node.broker().replica(name, 0).unwrap();
        node.broker().replicas.remove(replica.topic_id, replica.partition.partition);
        assert_eq!(code(0).await, ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert_eq!(code(9_999).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }

    #[tokio::test]
    async fn a_deletion_whose_partition_is_taken_away_meanwhile_finds_none() {
        let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(deletion_during(Replica::take_away).await, Err(code.into()));
    }

    #[tokio::test]
    async fn a_deletion_whose_broker_stops_meanwhile_is_to_ask_the_next_leader() {
        let code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        assert_eq!(deletion_during(Replica::retire).await, Err(code.into()));
    }

    async fn deletion_during(event: fn(&Replica)) -> Result<Offset, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let deletion = deletion(&directory);
        let deadline = Instant::now() + Duration::from_secs(60);
        let meanwhile = async { event(&deletion.0) };
        tokio::join!(deleted_everywhere(&deletion, deadline, |_| true), meanwhile).0
    }

    #[tokio::test]
    async fn a_deletion_does_not_wait_for_a_broker_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let deletion = deletion(&directory);
        let now = Instant::now();
        assert_eq!(deleted_everywhere(&deletion, now, |_| false).await, Ok(Offset(2)));
    }
}
