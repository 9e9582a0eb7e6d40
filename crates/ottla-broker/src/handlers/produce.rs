//! Produce (key 0), versions 3–13: appends record batches, one per partition.
//!
//! - acks=0: no answer; a failure closes the connection. acks=1: answered after the append.
//!   acks=all: answered when the high watermark covers the records, or REQUEST_TIMED_OUT. If too few replicas are in sync
//!   by then, NOT_ENOUGH_REPLICAS_AFTER_APPEND: the records are there and stay, a retry of them is known for one.
//! - A batch that an idempotent producer has sent before is answered as it was then, if it is one of its latest five:
//!   with the first one's offsets and its largest timestamp, and with acks=all not before the first one is visible.
//! - v7: zstd. v8: errors per record. v10: the current leader on NOT_LEADER_OR_FOLLOWER. v13: topic ids.
//! - Versions 0–2 are advertised but refused, as in Apache Kafka: old librdkafka needs to see them.
//! - Known difference: the records of a batch are numbered 0, 1, 2, … or it is INVALID_RECORD. Apache Kafka looks at the number
//!   of records and at the last offset in the header: it stores an uncompressed batch as it is, so that readers get offsets
//!   that other records have, numbers the records itself where it compresses them anew, and answers UNKNOWN_SERVER_ERROR to a
//!   batch that stays compressed. (A batch with gaps, as compaction leaves them, is refused by both.)
//! - Known difference: a record is as long as it says in a compressed batch, too, or the batch is INVALID_RECORD. Apache Kafka
//!   stores it unless it compresses it anew, and consumers fail on it.
//! - Known difference: a batch of more than 2 GiB when decompressed is MESSAGE_TOO_LARGE, and at most 10,000 faulty records are
//!   named. Apache Kafka has no bound for either.
//! - Known difference: where a disk is full (`log.dir.reserved.bytes`), clients hear KAFKA_STORAGE_ERROR, which they retry; so
//!   does whoever sends what would follow a batch that found no room, in place of OUT_OF_ORDER_SEQUENCE_NUMBER. Apache Kafka's
//!   log directory goes offline.
//! - Known difference: after a restart, too, a retry of any of a producer's last five batches is recognised, where
//!   Apache Kafka may know the last one only and take the others for gaps.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, LeaderEpoch, Offset, TopicId};
use ottla_metadata::topic_name;
use ottla_protocol::Records;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use ottla_protocol::messages::{ProduceRequest, ProduceResponse};
use ottla_records::{BatchHeader, RawBatch, Rejection, parse_produced, validate_within};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::current_leader::Leaders;
use crate::answer::{CloseReason, Outcome};
use crate::blocking::beside_the_others;
use crate::replica::{AppendError, Placed, Replica};

const CURRENT_LEADER_SINCE: i16 = 10;

const ACKS_ALL: i16 = -1;
const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;

/// So many bytes of a request are decompressed where it came in, which takes milliseconds; what is larger waits for its turn.
const DECOMPRESSED_AT_ONCE: u64 = 16 << 20;
/// For so long a request is appended where it came in, where nobody may look after the sockets meanwhile. A thousand partitions
/// that get their first records are thousands of new files.
const AT_ONCE: Duration = Duration::from_millis(5);

/// The only client that may write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// What must be visible before an answer: everything below an offset, if it is still what was appended in this leader
/// epoch.
#[derive(Debug, Clone, Copy)]
struct Until {
    offset: Offset,
    epoch: LeaderEpoch,
}

/// A partition whose answer waits.
struct Wait {
    topic: usize,
    partition: usize,
    replica: Arc<Replica>,
    until: Until,
}

/// A request on its way into the logs.
struct Appending {
    context: Context,
    acks: i16,
    timeout: Duration,
    refused: Option<ErrorCode>,
    /// What is not appended yet, and the topic's place in the answer.
    rest: VecDeque<(usize, PartitionProduceData)>,
    waits: Vec<Wait>,
    response: ProduceResponse,
}

pub(super) fn handle(context: Context, request: ProduceRequest) -> Outcome {
    let mut appending = Appending::new(context, request);
    let mut at_once = Budget { decompressed: DECOMPRESSED_AT_ONCE, time: Some(AT_ONCE) };
    match appending.go_on(&mut at_once) {
        Progress::Done => appending.finish(),
        stopped @ (Progress::Large | Progress::Slow) => {
            Outcome::Alone(Box::pin(append_the_rest(appending, stopped)))
        }
    }
}

/// What takes long keeps no thread from those who have others to serve, or have to say that this broker lives. To decompress
/// much it waits for its turn.
async fn append_the_rest(mut appending: Appending, mut stopped: Progress) -> Outcome {
    let broker = Arc::clone(&appending.context.broker);
    if stopped == Progress::Slow {
        let mut budget = Budget { decompressed: DECOMPRESSED_AT_ONCE, time: None };
        stopped = beside_the_others(|| appending.go_on(&mut budget));
    }
    if stopped == Progress::Large {
        let turn = broker.state.decompressions.acquire().await.expect("nobody closes it");
        let mut unlimited = Budget { decompressed: u64::MAX, time: None };
        beside_the_others(|| appending.go_on(&mut unlimited));
        drop(turn);
    }
    broker.directories.begin_flush();
    appending.finish()
}

/// What may be done of a request before it goes on elsewhere.
struct Budget {
    /// Bytes.
    decompressed: u64,
    /// No new partition is begun after it.
    time: Option<Duration>,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// What is next needs more to be decompressed than may be.
    Large,
    /// It has taken too long.
    Slow,
}

impl Appending {
    fn new(context: Context, mut request: ProduceRequest) -> Self {
        let refused = refuse_all(&request);
        keep_last_of_each(&mut request.topic_data);
        let mut response = ProduceResponse::default();
        let mut rest = VecDeque::new();
        for (index, topic) in request.topic_data.into_iter().enumerate() {
            response.responses.push(begin_answer(&topic));
            rest.extend(topic.partition_data.into_iter().map(|data| (index, data)));
        }
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        Self { context, acks: request.acks, timeout, refused, rest, waits: Vec::new(), response }
    }

    /// Appends until all is appended, or the budget does not do for what is next.
    fn go_on(&mut self, budget: &mut Budget) -> Progress {
        let begun = Instant::now();
        while let Some((index, data)) = self.rest.pop_front() {
            let topic = self.response.responses.get_mut(index).expect("each topic has its answer");
            let (context, partition) = (&self.context, data.index);
            let result = self.refused.map_or(Ok(()), Err).map_err(Refusal::from).and_then(|()| {
                let name = (topic.topic_id, &*topic.name);
                let (replica, raw) = find(context, self.acks, name, &data)?;
                let decompressed = &mut budget.decompressed;
                let appended = append(context, self.acks, &replica, &raw, partition, decompressed)?;
                Ok((appended, replica))
            });
            let answers = &mut topic.partition_responses;
            match result {
                Ok((None, _)) => {
                    self.rest.push_front((index, data));
                    return Progress::Large;
                }
                Ok((Some((answer, until)), replica)) => {
                    self.waits.push(Wait {
                        topic: index,
                        partition: answers.len(),
                        replica,
                        until,
                    });
                    answers.push(answer);
                }
                Err(refusal) => answers.push(refusal.into_response(partition)),
            }
            let is_late = || budget.time.is_some_and(|time| begun.elapsed() > time);
            if !self.rest.is_empty() && is_late() {
                return Progress::Slow;
            }
        }
        Progress::Done
    }

    fn finish(self) -> Outcome {
        let Self { context, acks, timeout, waits, response, .. } = self;
        match acks {
            ACKS_NONE => silent(&context, &response),
            ACKS_ALL if !waits.is_empty() => Outcome::AfterFlush {
                has_followers: waits.iter().any(|wait| !wait.replica.followers.is_empty()),
                pending: Box::pin(answer_when_visible(context, response, waits, timeout)),
            },
            _ => answer(&context, response),
        }
    }
}

/// Why nothing of the request is appended: records of a transaction under no transactional id.
fn refuse_all(request: &ProduceRequest) -> Option<ErrorCode> {
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let mut records = partitions.filter_map(|data| data.records.as_ref()?.bytes());
    let is_transactional = records.any(|bytes| {
        BatchHeader::parse(bytes).is_ok_and(|header| header.attributes.is_transactional())
    });
    (is_transactional && request.transactional_id.is_none())
        .then_some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
}

/// Of a partition that is named several times the last one counts, and a topic without partitions is
/// not answered: both as in Apache Kafka.
fn keep_last_of_each(topics: &mut Vec<TopicProduceData>) {
    let mut seen = HashSet::new();
    for topic in topics.iter_mut().rev() {
        let (name, id) = (topic.name.clone(), topic.topic_id);
        topic.partition_data.reverse();
        topic.partition_data.retain(|data| seen.insert((name.clone(), id, data.index)));
        topic.partition_data.reverse();
    }
    topics.retain(|topic| !topic.partition_data.is_empty());
}

/// A copy of the name: a slice would keep the whole frame, records and all, for as long as the answer waits.
fn begin_answer(topic: &TopicProduceData) -> TopicProduceResponse {
    TopicProduceResponse {
        name: ByteString::from(&*topic.name),
        topic_id: topic.topic_id,
        ..TopicProduceResponse::default()
    }
}

/// One partition's replica, and the batch that is for it. What is wrong with the request is said wherever the partition is.
fn find(
    context: &Context,
    acks: i16,
    topic: (TopicId, &str),
    data: &PartitionProduceData,
) -> Result<(Arc<Replica>, RawBatch), Refusal> {
    let found = context.replica(topic, data.index);
    if let Err(code) = found
        && ![ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::KAFKA_STORAGE_ERROR].contains(&code)
    {
        return Err(code.into());
    }
    let bytes = match &data.records {
        Some(Records::Bytes(bytes)) => bytes.clone(),
        Some(Records::Deferred { .. }) | None => Bytes::new(),
    };
    let raw = parse_produced(bytes, context.version)?;
    if ![ACKS_ALL, ACKS_NONE, ACKS_LEADER].contains(&acks) {
        return Err(ErrorCode::INVALID_REQUIRED_ACKS.into());
    }
    let is_internal = match &found {
        Ok(replica) => replica.is_internal(),
        Err(_) => is_internal(context, topic),
    };
    if is_internal && context.client_id.as_deref() != Some(ADMIN_CLIENT) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION.into());
    }
    Ok((found?, raw))
}

/// Whether only Kafka's own admin client may produce to a topic, of which no partition needs to be here.
fn is_internal(context: &Context, (id, name): (TopicId, &str)) -> bool {
    if context.names_topics_by_id() {
        let image = context.broker.image();
        return image.topic(id).is_some_and(|topic| topic_name::is_internal(&topic.name));
    }
    topic_name::is_internal(name)
}

/// Appends one partition's batch; with the answer comes the offset below which all must be visible. `None` where the budget
/// does not do.
fn append(
    context: &Context,
    acks: i16,
    replica: &Replica,
    raw: &RawBatch,
    partition: i32,
    budget: &mut u64,
) -> Result<Option<(PartitionProduceResponse, Until)>, Refusal> {
    // Who does not lead has no say about records, and where too few would have them no more than their batch's form is
    // looked at.
    replica.check_leads()?;
    let needs_all = acks == ACKS_ALL;
    let refuse = |error: &AppendError| Refusal::of_append(error, replica.log().log_start_offset());
    if needs_all {
        replica.check_enough_replicas().map_err(|error| refuse(&error))?;
    }
    let is_transactional = raw.header().attributes.is_transactional();
    let valid = validate_within(raw, &replica.rules(), context.broker.clock.now_ms(), budget)
        .map_err(|rejection| Refusal::of_records(rejection, replica.log().log_start_offset()))?;
    let Some(batch) = valid else { return Ok(None) };
    if is_transactional {
        // There is no coordinator that could have begun this transaction.
        return Err(ErrorCode::INVALID_TXN_STATE.into());
    }
    let (size, records) = (batch.size_in_bytes(), batch.header().record_count);
    let Placed { appended, epoch } =
        replica.append_produced(batch, needs_all).map_err(|error| refuse(&error))?;
    if !appended.duplicate {
        context.broker.state.metrics.appended(size, records);
    }
    let response = PartitionProduceResponse {
        index: partition,
        base_offset: appended.base_offset.0,
        log_append_time_ms: appended.log_append_time.0,
        log_start_offset: appended.log_start_offset.0,
        ..PartitionProduceResponse::default()
    };
    Ok(Some((response, Until { offset: appended.last_offset.next(), epoch })))
}

/// With acks=0 the only way to tell a client of a failure is to hang up.
fn silent(context: &Context, response: &ProduceResponse) -> Outcome {
    context.done();
    let failure = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|partition| partition.error_code)
        .find(|code| code.is_error());
    match failure {
        Some(code) => Outcome::Close(CloseReason::SilentProduceFailed(code)),
        None => Outcome::Silent,
    }
}

async fn answer_when_visible(
    context: Context,
    mut response: ProduceResponse,
    waits: Vec<Wait>,
    timeout: Duration,
) -> Outcome {
    wait_for_all(&mut response, &waits, Instant::now() + timeout).await;
    answer(&context, response)
}

/// What is known of a partition counts, however much later that of another one is: each change of any of them is a look at
/// all of which nothing is known yet.
async fn wait_for_all(response: &mut ProduceResponse, waits: &[Wait], deadline: Instant) {
    let woken = Arc::new(Notify::new());
    // Whoever looks after this misses no change.
    let registered = waits.iter().map(|wait| (wait, wait.replica.waiters.register(&woken)));
    let mut pending: Vec<_> = registered.collect();
    loop {
        pending.retain(|(wait, _)| match wait.look() {
            None => true,
            Some(result) => {
                note(response, wait, result);
                false
            }
        });
        if pending.is_empty() || timeout_at(deadline, woken.notified()).await.is_err() {
            break;
        }
    }
    for (wait, _) in pending {
        note(response, wait, Err(ErrorCode::REQUEST_TIMED_OUT));
    }
}

fn note(response: &mut ProduceResponse, wait: &Wait, result: Result<(), ErrorCode>) {
    let Err(code) = result else { return };
    let partition = response
        .responses
        .get_mut(wait.topic)
        .and_then(|topic| topic.partition_responses.get_mut(wait.partition))
        .expect("a wait names its place in the answer");
    partition.error_code = code;
}

/// Answers, and says who leads the partitions that this broker does not.
fn answer(context: &Context, mut response: ProduceResponse) -> Outcome {
    if context.version >= CURRENT_LEADER_SINCE {
        let mut leaders = Leaders::known_to(context);
        for topic in &mut response.responses {
            let name = (topic.topic_id, &*topic.name);
            let not_led = |it: &&mut PartitionProduceResponse| {
                it.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER
            };
            for partition in topic.partition_responses.iter_mut().filter(not_led) {
                if let Some(leader) = leaders.of(name, partition.index) {
                    partition.current_leader = leader.into();
                }
            }
        }
        response.node_endpoints = leaders.endpoints();
    }
    context.answer(&response)
}

impl Wait {
    /// What becomes of the records, once it is known.
    fn look(&self) -> Option<Result<(), ErrorCode>> {
        match self.is_visible() {
            Ok(true) => Some(self.replica.check_still_enough()),
            Ok(false) => None,
            Err(code) => Some(Err(code)),
        }
    }

    fn is_visible(&self) -> Result<bool, ErrorCode> {
        let is_visible = self.replica.is_visible(self.until.offset, self.until.epoch);
        if is_visible != Ok(true) {
            // In this order: a node whose metadata is on the disk that failed stops, and the disk is why.
            self.replica.check_disk()?;
        }
        is_visible
    }
}

/// Why one partition's records were not appended.
#[derive(Debug)]
struct Refusal {
    code: ErrorCode,
    /// Where the log starts, if it was looked at; −1 otherwise.
    log_start_offset: i64,
    /// Only a refusal that names records carries its message, as in Apache Kafka.
    message: Option<ByteString>,
    record_errors: Vec<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, log_start_offset: -1, message: None, record_errors: Vec::new() }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        tracing::debug!(code = %rejection.code, reason = rejection.message, "batch refused");
        let message = rejection.wire_message().map(ByteString::from);
        let record_errors =
            rejection.record_errors.into_iter().map(|error| BatchIndexAndErrorMessage {
                batch_index: error.batch_index,
                batch_index_error_message: Some(error.message.into()),
            });
        Self {
            code: rejection.code,
            log_start_offset: -1,
            message,
            record_errors: record_errors.collect(),
        }
    }
}

impl Refusal {
    /// The log was looked at before its rules refused the records. Apache Kafka tells where it starts, unless the
    /// error is one of those that it expects of an append.
    fn of_records(rejection: Rejection, log_start_offset: Offset) -> Self {
        let is_expected =
            matches!(rejection.code, ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::CORRUPT_MESSAGE);
        let log_start_offset = if is_expected { -1 } else { log_start_offset.0 };
        Self { log_start_offset, ..rejection.into() }
    }

    /// As above: that a batch does not fit what its producer sent before is not expected, nor that the ISR is too small.
    fn of_append(error: &AppendError, log_start_offset: Offset) -> Self {
        let is_expected =
            !matches!(error, AppendError::Refused(_) | AppendError::NotEnoughReplicas);
        let log_start_offset = if is_expected { -1 } else { log_start_offset.0 };
        Self { log_start_offset, ..error.code().into() }
    }

    fn into_response(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            index,
            error_code: self.code,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: self.log_start_offset,
            record_errors: self.record_errors,
            error_message: self.message,
            ..PartitionProduceResponse::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ottla_base::{BrokerId, PartitionIndex, Timestamp, Uuid};
    use ottla_protocol::ApiKey;
    use ottla_protocol::header::RequestHeader;
    use ottla_protocol::messages::CreateTopicsRequest;
    use ottla_protocol::messages::create_topics_request::CreatableTopic;
    use ottla_protocol::messages::produce_response::LeaderIdAndEpoch;

    use super::*;
    use crate::handlers::Session;
    use crate::listener::{Role, unused};
    use crate::node::Node;
    use crate::replica::{Outboxes, deposed, leading_with, one_record, unflushed_log};

    fn flush(replica: &Replica) {
        replica.log().flush().unwrap();
        replica.on_flushed();
    }

    /// A node with a topic `t` of one partition, which it leads.
    async fn node_with_a_topic(directory: &tempfile::TempDir) -> (Node, Arc<Replica>) {
        node_with_partitions(directory, 1).await
    }

    async fn node_with_partitions(
        directory: &tempfile::TempDir,
        num_partitions: i32,
    ) -> (Node, Arc<Replica>) {
        let node = Node::alone(directory.path()).await;
        let topic = CreatableTopic {
            name: "t".into(),
            num_partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let created = node.ask(request).await;
        assert_eq!(created.topics[0].error_code, ErrorCode::NONE);
        let replica = node.broker().replica("t", 0).unwrap();
        (node, replica)
    }

    async fn produce(node: &Node, acks: i16, topic_id: TopicId) -> PartitionProduceResponse {
        let records = one_record(Timestamp(1_000)).to_bytes();
        let partition = PartitionProduceData { index: 0, records: Some(Records::Bytes(records)) };
        let topic = TopicProduceData {
            topic_id,
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks,
            timeout_ms: 10_000,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        node.ask(request).await.responses.remove(0).partition_responses.remove(0)
    }

    #[tokio::test]
    async fn a_request_that_takes_long_goes_on_where_it_has_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let (node, replica) = node_with_partitions(&directory, 3).await;
        let records = one_record(Timestamp(1_000)).to_bytes();
        let data =
            |index| PartitionProduceData { index, records: Some(Records::Bytes(records.clone())) };
        let topic_id = replica.topic_id;
        let partition_data = (0..3).map(data).collect();
        let topic = TopicProduceData { topic_id, partition_data, ..TopicProduceData::default() };
        let request = ProduceRequest { topic_data: vec![topic], ..ProduceRequest::default() };
        let listener = Arc::new(unused(Role::Broker, true));
        let session = Session::new(listener, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let header = RequestHeader { request_api_version: 13, ..RequestHeader::default() };
        let context = Context::new(node.broker(), &session, ApiKey::Produce, &header);
        let mut appending = Appending::new(context, request);
        let mut go_on = |time| {
            let progress = appending.go_on(&mut Budget { decompressed: u64::MAX, time });
            (progress, appending.response.responses[0].partition_responses.len())
        };
        // One at least is appended each time.
        assert_eq!(go_on(Some(Duration::ZERO)), (Progress::Slow, 1));
        assert_eq!(go_on(Some(Duration::ZERO)), (Progress::Slow, 2));
        assert_eq!(go_on(None), (Progress::Done, 3));
        for index in 0..3 {
            let log = node.broker().replica("t", index).unwrap().log();
            assert_eq!(log.log_end_offset(), Offset(1));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_request_is_said_wherever_the_partition_is() {
        let directory = tempfile::tempdir().unwrap();
        let (node, replica) = node_with_a_topic(&directory).await;
        node.broker().replicas.remove(replica.topic_id, PartitionIndex(0));
        let code = async |acks| produce(&node, acks, replica.topic_id).await.error_code;
        assert_eq!(code(2).await, ErrorCode::INVALID_REQUIRED_ACKS);
        assert_eq!(code(ACKS_ALL).await, ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let unknown = produce(&node, 2, Uuid([9; 16])).await.error_code;
        assert_eq!(unknown, ErrorCode::UNKNOWN_TOPIC_ID);
    }

    #[tokio::test]
    async fn a_partition_that_has_just_left_is_no_failed_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (node, replica) = node_with_a_topic(&directory).await;
        let (replicas, index) = (&node.broker().replicas, PartitionIndex(0));
        let code = || node.broker().replica("t", 0).unwrap_err();
        replicas.remove(replica.topic_id, index);
        assert_eq!(code(), ErrorCode::NOT_LEADER_OR_FOLLOWER);
        replicas.note_unopened(replica.topic_id, index);
        assert_eq!(code(), ErrorCode::KAFKA_STORAGE_ERROR);
    }

    #[tokio::test]
    async fn a_leader_that_the_replica_has_heard_of_is_told_before_everybody_sees_it() {
        let directory = tempfile::tempdir().unwrap();
        let (node, replica) = node_with_a_topic(&directory).await;
        deposed(&replica, &unflushed_log(&tempfile::tempdir().unwrap(), &[Timestamp(2_000)]));
        let answer = produce(&node, ACKS_ALL, replica.topic_id).await;
        assert_eq!(answer.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let LeaderIdAndEpoch { leader_id, leader_epoch } = answer.current_leader;
        assert_eq!((leader_id, leader_epoch), (2, 1));
    }

    #[test]
    fn what_waits_for_an_answer_does_not_keep_the_request() {
        let frame = Bytes::from(vec![b'n'; 1 << 20]);
        let name = ByteString::try_from(frame.slice(..5)).unwrap();
        let answer = begin_answer(&TopicProduceData { name, ..TopicProduceData::default() });
        assert!(frame.is_unique());
        assert_eq!(answer.name, "nnnnn");
    }

    #[tokio::test]
    async fn what_was_visible_in_time_is_acknowledged_whatever_becomes_of_it_while_others_are_waited_for()
     {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let lead = |at: usize| {
            let log = unflushed_log(&directories[at], &[]);
            Arc::new(leading_with(log, &Outboxes::default(), &[BrokerId(2)]))
        };
        let (slow, quick) = (lead(0), lead(1));
        let mut waits = Vec::new();
        for (partition, replica) in [&slow, &quick].into_iter().enumerate() {
            let batch = one_record(Timestamp(1_000));
            let Placed { appended, epoch } = replica.append_produced(batch, true).unwrap();
            let until = Until { offset: appended.last_offset.next(), epoch };
            let replica = Arc::clone(replica);
            waits.push(Wait { topic: 0, partition, replica, until });
        }
        let partition_responses = vec![PartitionProduceResponse::default(); 2];
        let mut response = ProduceResponse {
            responses: vec![TopicProduceResponse { partition_responses, ..Default::default() }],
            ..ProduceResponse::default()
        };
        {
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut waiting = std::pin::pin!(wait_for_all(&mut response, &waits, deadline));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            flush(&quick);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            deposed(&quick, &unflushed_log(&directories[2], &[Timestamp(2_000)]));
            flush(&slow);
            assert!(futures_util::poll!(&mut waiting).is_ready());
        }
        let found = response.responses[0].partition_responses.iter();
        let found: Vec<ErrorCode> = found.map(|partition| partition.error_code).collect();
        assert_eq!(found, [ErrorCode::NONE; 2]);
    }
}
