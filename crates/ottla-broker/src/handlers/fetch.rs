//! Fetch (key 1), versions 4–18: records from offsets on, as ranges of segment files that nobody copies.
//!
//! - Waits until `min_bytes` are there, `max_wait_ms` passed, or something is wrong; woken by the
//!   high watermark, not by a clock.
//! - The first batch of an answer comes whole, however small the limits (KIP-74).
//! - v4: isolation level. v7: sessions (KIP-227). v9: leader epochs. v12: diverging epochs.
//!   v13: topic ids. v16: the current leader's endpoint.
//! - Readers of committed data get nothing at or after the last stable offset, and beside it the aborted transactions that have
//!   records up to the next index entry: Apache Kafka's bound.
//! - A follower that is not in sync gets no more than an operator allows (`leader.replication.throttled.rate`), where its
//!   replica is named in `leader.replication.throttled.replicas`.
//! - A follower gets everything up to the end of the log, and so tells its leader how far it is (KIP-595). v15: it names
//!   itself in a tagged field, with its broker epoch.
//! - v11: a consumer that names its rack is sent to an in-sync follower there, if the broker's `replica.selector.class` says
//!   so (KIP-392). A follower answers consumers up to the high watermark that it has heard of, and OFFSET_OUT_OF_RANGE
//!   beyond its own log.
//! - Known difference: records that are damaged on disk are refused with CORRUPT_MESSAGE, and those before and after them are
//!   served. Apache Kafka sends the damaged bytes, and leaves it to consumers to find out.
//! - Known difference: from a log directory whose flush has failed everything is still served that was visible before. Apache
//!   Kafka answers KAFKA_STORAGE_ERROR.
//! - Known difference: all fetch sessions together have at most a million partitions; beyond that a fetch gets no session, as
//!   where all places for sessions are taken. Apache Kafka bounds the number of sessions only.
//! - Known difference: a follower that consumers may read from is answered at once when the high watermark has moved. Apache
//!   Kafka's leader answers when the time is over for which the follower would wait for records.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, Offset};
use ottla_config::ReplicaSelector;
use ottla_log::{Log, Slice};
use ottla_protocol::Records;
use ottla_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use ottla_protocol::messages::{FetchRequest, FetchResponse};
use ottla_replication::Fetched;
use ottla_replication::follower::EpochEnd;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::current_leader::Leaders;
use super::read_replica::NearbyReader;
use crate::answer::{Outcome, Source};
use crate::fetch_session::{
    Begun, Kind, NOBODY_COMPARES, PartitionAnswer, PartitionKey, PartitionRequest, RequestHead,
};
use crate::replica::{Question, Replica, Served, Visible};

const READ_COMMITTED: i8 = 1;
const STORAGE_ERRORS_SINCE: i16 = 6;
const SESSIONS_SINCE: i16 = 7;
const FOLLOWER_FETCH_SINCE: i16 = 11;
const CURRENT_LEADER_SINCE: i16 = 16;

pub(super) async fn handle(context: Context, request: FetchRequest) -> Outcome {
    if !(0..=READ_COMMITTED).contains(&request.isolation_level) {
        return context.answer(&unknown_server_error(&context, &request));
    }
    let limits = Limits::of(&context, &request);
    let begun = begin_session(&context, request);
    let (kind, partitions) = match begun {
        Ok(begun) => begun,
        Err(error_code) => {
            return context.answer(&FetchResponse { error_code, ..FetchResponse::default() });
        }
    };
    let targets = resolve(&context, partitions);
    let mut results = wait_for_records(&context, &targets, &limits).await;
    if limits.read_committed {
        for (target, found) in targets.iter().zip(&mut results) {
            if let Ok(replica) = &target.replica {
                found.look_up_aborted(&replica.log(), Offset(target.request.fetch_offset));
            }
        }
    }
    respond(&context, kind, targets, results, &limits)
}

/// What Apache Kafka makes of a request that it chokes on.
fn unknown_server_error(context: &Context, request: &FetchRequest) -> FetchResponse {
    let error_code = ErrorCode::UNKNOWN_SERVER_ERROR;
    let mut response = FetchResponse { error_code, ..FetchResponse::default() };
    if context.version >= SESSIONS_SINCE {
        response.session_id = request.session_id;
    }
    if !context.names_topics_by_id() {
        for topic in &request.topics {
            let partitions = topic.partitions.iter().map(|asked| PartitionData {
                error_code,
                aborted_transactions: Some(Vec::new()),
                ..empty(asked.partition)
            });
            response.responses.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                partitions: partitions.collect(),
                ..FetchableTopicResponse::default()
            });
        }
    }
    response
}

/// Of a partition that is named several times the last one counts, in the place of the first.
fn keep_last_of_each(partitions: Vec<PartitionRequest>) -> Vec<PartitionRequest> {
    let mut kept: Vec<PartitionRequest> = Vec::with_capacity(partitions.len());
    let mut places = HashMap::with_capacity(partitions.len());
    for partition in partitions {
        let place = *places.entry(partition.key.clone()).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = partition,
            None => kept.push(partition),
        }
    }
    kept
}

/// How much to wait for, and how much to answer with. Units: bytes.
struct Limits {
    min_bytes: usize,
    /// May be negative, which fails the first partition.
    max_bytes: i64,
    deadline: Instant,
    follower: Option<Follower>,
    /// A consumer in a rack that matters.
    reader: Option<NearbyReader>,
    read_committed: bool,
}

/// The broker that fetches to replicate.
#[derive(Debug, Clone, Copy)]
struct Follower {
    id: BrokerId,
    /// −1 where the request's version has no place for it.
    epoch: i64,
}

impl Follower {
    /// A consumer names no replica, and neither does a tool that reads for debugging.
    fn of(request: &FetchRequest) -> Option<Self> {
        let state = &request.replica_state;
        let (id, epoch) = match state.replica_id {
            0.. => (state.replica_id, state.replica_epoch),
            _ => (request.replica_id, -1),
        };
        (id >= 0).then_some(Self { id: BrokerId(id), epoch })
    }

    /// Whether it may join ISRs: it is the broker that is registered under this id, and serves.
    fn is_eligible(self, context: &Context) -> bool {
        let image = context.broker.image();
        image.broker(self.id).is_some_and(|registered| registered.may_join_isr(self.epoch))
    }
}

impl Limits {
    fn of(context: &Context, request: &FetchRequest) -> Self {
        let most = i64::try_from(context.broker.settings.fetch_bytes_max).unwrap_or(i64::MAX);
        let max_bytes = i64::from(request.max_bytes).min(most);
        let min_bytes = i64::from(request.min_bytes).min(max_bytes);
        let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let follower = Follower::of(request);
        // Whoever asks in an older version would not understand.
        let may_go_elsewhere = follower.is_none() && context.version >= FOLLOWER_FETCH_SINCE;
        let reader = may_go_elsewhere.then(|| NearbyReader::of(context, &request.rack_id));
        Self {
            min_bytes: usize::try_from(min_bytes).unwrap_or(0),
            max_bytes,
            deadline: Instant::now() + max_wait,
            follower,
            reader: reader.flatten(),
            read_committed: request.isolation_level == READ_COMMITTED,
        }
    }
}

fn begin_session(context: &Context, request: FetchRequest) -> Result<Begun, ErrorCode> {
    let head = RequestHead {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        uses_topic_ids: context.names_topics_by_id(),
        is_privileged: Follower::of(&request).is_some(),
    };
    let key = |topic: &ByteString, topic_id, partition| PartitionKey {
        topic_id,
        topic: topic.clone(),
        partition,
    };
    let forgotten: Vec<_> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|p| key(&topic.topic, topic.topic_id, *p)))
        .collect();
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|asked| PartitionRequest {
            key: key(&topic.topic, topic.topic_id, asked.partition),
            fetch_offset: asked.fetch_offset,
            partition_max_bytes: asked.partition_max_bytes,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            log_start_offset: asked.log_start_offset,
            told_high_watermark: NOBODY_COMPARES,
        })
    });
    let partitions: Vec<_> = keep_last_of_each(partitions.collect());
    let now_ms = context.broker.clock.now_ms().0;
    let random_id = || context.broker.random_i32();
    context
        .broker
        .state
        .fetch_sessions
        .lock()
        .begin(now_ms, head, partitions, &forgotten, random_id)
}

/// Whether the answer has to have a partition, of which a session remembers what it says.
fn must_answer(context: &Context, kind: Kind, key: &PartitionKey, found: &Found) -> bool {
    let sessions = || context.broker.state.fetch_sessions.lock();
    match kind {
        Kind::Sessionless => true,
        Kind::Full { session_id } => {
            sessions().answered(session_id, key, news(found));
            true
        }
        Kind::Incremental { session_id } => sessions().must_answer(session_id, key, news(found)),
    }
}

/// A partition that is asked for, and where it is.
struct Target {
    request: PartitionRequest,
    replica: Result<Arc<Replica>, ErrorCode>,
}

impl Target {
    /// Whether an operator has its followers held back while they are not in sync.
    fn is_throttled(&self) -> bool {
        self.replica.as_ref().is_ok_and(|replica| replica.is_throttled_as_leader())
    }
}

fn resolve(context: &Context, partitions: Vec<PartitionRequest>) -> Vec<Target> {
    let find = |it: &PartitionKey| context.replica((it.topic_id, &it.topic), it.partition);
    partitions.into_iter().map(|request| Target { replica: find(&request.key), request }).collect()
}

/// What one partition gives.
enum Found {
    /// No such partition: known before anything is read.
    NotHere(ErrorCode),
    Failed(ErrorCode),
    Diverged {
        end: EpochEnd,
        visible: Visible,
    },
    /// Another replica is nearer to the consumer, which has what is asked for.
    Elsewhere {
        replica: BrokerId,
        visible: Visible,
    },
    Records {
        slice: Option<Slice>,
        visible: Visible,
        /// Only for readers of committed data, once it is known what they get.
        aborted: Vec<AbortedTransaction>,
    },
}

impl Found {
    /// Adds the aborted transactions that have records in what was found, and maybe some that begin right behind it: as many as
    /// fit into what lies between two index entries.
    fn look_up_aborted(&mut self, log: &Log, from: Offset) {
        let Self::Records { slice: Some(slice), aborted, .. } = self else { return };
        if slice.is_empty() {
            return;
        }
        let found = log.aborted_transactions(&(from..log.end_of(slice)));
        match found {
            Ok(found) => *aborted = found.iter().map(transaction).collect(),
            Err(error) => {
                tracing::error!(partition = %log.topic_partition(), %error, "aborted transactions can't be read");
                *self = Self::Failed(ErrorCode::KAFKA_STORAGE_ERROR);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Records { slice: Some(slice), .. } => slice.len(),
            Self::Records { slice: None, .. }
            | Self::NotHere(_)
            | Self::Failed(_)
            | Self::Elsewhere { .. }
            | Self::Diverged { .. } => 0,
        }
    }

    /// Whether the client should hear of this at once.
    const fn is_urgent(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Diverged { .. } | Self::Elsewhere { .. })
    }
}

/// Who looks at the partitions, and whether for the first time.
struct Look {
    follower: Option<(Follower, IsEligible)>,
    /// Anybody but consumers that know of follower fetching (KIP-392).
    needs_leader: bool,
    /// Followers serve consumers, who wait for them to hear how far they may read.
    tells_high_watermark: bool,
    now: Duration,
    is_first: bool,
    /// How long followers wait that are held back, if they do.
    throttled: Option<Duration>,
}

/// Whether a follower may join ISRs.
type IsEligible = bool;

impl Look {
    fn first(context: &Context, limits: &Limits) -> Self {
        let eligible = |follower: Follower| (follower, follower.is_eligible(context));
        Self {
            follower: limits.follower.map(eligible),
            needs_leader: limits.follower.is_some() || context.version < FOLLOWER_FETCH_SINCE,
            tells_high_watermark: limits.follower.is_some()
                && context.broker.settings.replica_selector == ReplicaSelector::RackAware,
            now: context.broker.clock.monotonic(),
            throttled: None,
            is_first: true,
        }
    }

    /// Tells the leader where its follower is; up to where the follower may read.
    fn tell(
        &self,
        replica: &Replica,
        asked: &PartitionRequest,
        from: Offset,
    ) -> Result<Offset, ErrorCode> {
        let Some((follower, is_eligible)) = self.follower.filter(|_| self.is_first) else {
            return Ok(replica.log().log_end_offset());
        };
        let fetched = Fetched {
            replica: follower.id,
            broker_epoch: follower.epoch,
            is_eligible,
            fetch_offset: from,
            log_start_offset: Offset(asked.log_start_offset),
            // Our own followers do, and only they fetch here.
            reports_flushes: true,
            now: self.now,
        };
        let standing = replica.on_fetch(fetched).map_err(|code| match code {
            // Who names no leader epoch may be as stale as this broker (Kafka's words for older followers).
            ErrorCode::UNKNOWN_LEADER_EPOCH if asked.current_leader_epoch < 0 => {
                ErrorCode::NOT_LEADER_OR_FOLLOWER
            }
            code => code,
        });
        standing.map(|standing| standing.log_end)
    }
}

async fn wait_for_records(context: &Context, targets: &[Target], limits: &Limits) -> Vec<Found> {
    let woken = Arc::new(Notify::new());
    let is_follower = limits.follower.is_some();
    let mut look = Look::first(context, limits);
    // Registered before the first look, so that no append in between is missed.
    let replicas = targets.iter().filter_map(|target| target.replica.as_ref().ok());
    let _registrations: Vec<_> = replicas
        .flat_map(|replica| {
            let appends = is_follower.then(|| replica.followers.register(&woken));
            let is_told = !is_follower || look.tells_high_watermark;
            appends.into_iter().chain(is_told.then(|| replica.waiters.register(&woken)))
        })
        .collect();
    loop {
        // What is held back is looked at again as soon as more may go.
        look.throttled = throttled(context, targets, limits);
        let until = look
            .throttled
            .map_or(limits.deadline, |wait| (Instant::now() + wait).min(limits.deadline));
        let found = read_all(targets, limits, &look);
        let was_first = std::mem::replace(&mut look.is_first, false);
        let bytes: usize = found.iter().map(Found::len).sum();
        let enough = bytes >= limits.min_bytes
            || !targets.iter().any(|target| target.replica.is_ok())
            || found.iter().any(Found::is_urgent)
            || look.tells_high_watermark && has_untold_high_watermark(targets, &found)
            || limits.deadline <= Instant::now();
        if was_first && !enough && !is_follower {
            // What came before this was registered is in no hurry otherwise.
            let replicas = targets.iter().filter_map(|target| target.replica.as_ref().ok());
            replicas.for_each(|replica| replica.hurry());
        }
        let is_last = until == limits.deadline;
        if enough || timeout_at(until, woken.notified()).await.is_err() && is_last {
            return found;
        }
    }
}

/// How long a follower has to wait for what is held back, if that is too much now.
fn throttled(context: &Context, targets: &[Target], limits: &Limits) -> Option<Duration> {
    let throttle = &context.broker.throttles.leader;
    if limits.follower.is_none()
        || !throttle.is_bound()
        || !targets.iter().any(Target::is_throttled)
    {
        return None;
    }
    throttle.wait(context.broker.clock.monotonic())
}

/// Whether a high watermark has moved that the asker's session has told.
fn has_untold_high_watermark(targets: &[Target], found: &[Found]) -> bool {
    targets.iter().zip(found).any(|(target, found)| match found {
        Found::Records { visible, .. } => {
            visible.high_watermark.0 > target.request.told_high_watermark
        }
        Found::NotHere(_) | Found::Failed(_) | Found::Diverged { .. } | Found::Elsewhere { .. } => {
            false
        }
    })
}

/// Plans the read of every partition in turn, until the answer is full.
fn read_all(targets: &[Target], limits: &Limits, look: &Look) -> Vec<Found> {
    let mut left = limits.max_bytes;
    let mut is_first = true;
    targets
        .iter()
        .map(|target| {
            let found = read(target, left, is_first, limits, look);
            left = (left - i64::try_from(found.len()).unwrap_or(i64::MAX)).max(0);
            is_first &= found.len() == 0;
            found
        })
        .collect()
}

fn read(target: &Target, bytes_left: i64, is_first: bool, limits: &Limits, look: &Look) -> Found {
    match &target.replica {
        // The partition exists: there is no point in waiting, and the client may have to go elsewhere.
        Err(code @ (ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR)) => {
            Found::Failed(*code)
        }
        Err(code) => Found::NotHere(*code),
        Ok(replica) => read_replica(replica, &target.request, bytes_left, is_first, limits, look)
            .unwrap_or_else(Found::Failed),
    }
}

fn read_replica(
    replica: &Replica,
    asked: &PartitionRequest,
    bytes_left: i64,
    is_first: bool,
    limits: &Limits,
    look: &Look,
) -> Result<Found, ErrorCode> {
    let elsewhere = |it: &NearbyReader| it.preferred(replica, Offset(asked.fetch_offset));
    if let Some(nearest) = limits.reader.as_ref().and_then(elsewhere) {
        let visible = replica.visible(asked.current_leader_epoch)?;
        return Ok(Found::Elsewhere { replica: nearest, visible });
    }
    // It is told where the log ends, and given nothing.
    let is_held_back = look.throttled.is_some()
        && limits.follower.is_some_and(|follower| replica.is_throttled_for(follower.id));
    let bytes_max = bytes_left.min(asked.partition_max_bytes.into());
    let question = Question {
        current_leader_epoch: asked.current_leader_epoch,
        fetch_offset: Offset(asked.fetch_offset),
        last_fetched_epoch: asked.last_fetched_epoch,
        max_bytes: if is_held_back { 0 } else { bytes_max },
        min_one_batch: is_first && !is_held_back,
        needs_leader: look.needs_leader,
    };
    let served = replica.serve(&question, |_, visible| match look.follower {
        Some(_) => look.tell(replica, asked, question.fetch_offset),
        None if limits.read_committed => Ok(visible.last_stable),
        None => Ok(visible.high_watermark),
    })?;
    Ok(match served {
        Served::Diverged { end, visible } => Found::Diverged { end, visible },
        Served::Records { slice, visible } => {
            Found::Records { slice, visible, aborted: Vec::new() }
        }
    })
}

fn transaction(aborted: &ottla_log::AbortedTransaction) -> AbortedTransaction {
    AbortedTransaction { producer_id: aborted.producer_id.0, first_offset: aborted.first_offset.0 }
}

fn respond(
    context: &Context,
    kind: Kind,
    targets: Vec<Target>,
    results: Vec<Found>,
    limits: &Limits,
) -> Outcome {
    let mut topics = Topics::default();
    let mut sources = Vec::new();
    let mut leaders = Leaders::known_to(context);
    let is_follower = limits.follower.is_some();
    if is_follower && context.broker.throttles.leader.is_bound() {
        note_throttled(context, &targets, &results);
    }
    let (not_here, here): (Vec<_>, Vec<_>) =
        targets.into_iter().zip(results).partition(|(_, found)| matches!(found, Found::NotHere(_)));
    // What is not here comes last, as in Apache Kafka.
    for (target, found) in here.into_iter().chain(not_here) {
        let key = target.request.key;
        if !must_answer(context, kind, &key, &found) {
            continue;
        }
        let mut data = partition_data(key.partition, found, limits.read_committed, &mut sources);
        data.error_code = as_known(data.error_code, context.version);
        if context.version >= CURRENT_LEADER_SINCE
            && [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH]
                .contains(&data.error_code)
            && let Some(leader) = leaders.of((key.topic_id, &key.topic), key.partition)
        {
            data.current_leader = leader.into();
        }
        topics.push(key, data);
    }
    let response = FetchResponse {
        session_id: kind.session_id(),
        responses: topics.responses,
        // A follower knows where the others are.
        node_endpoints: if is_follower { Vec::new() } else { leaders.endpoints() },
        ..FetchResponse::default()
    };
    context.answer_with(&response, sources)
}

/// Whoever asks in a version that has no KAFKA_STORAGE_ERROR would not try again.
fn as_known(code: ErrorCode, version: i16) -> ErrorCode {
    let is_unknown = code == ErrorCode::KAFKA_STORAGE_ERROR && version < STORAGE_ERRORS_SINCE;
    if is_unknown { ErrorCode::NOT_LEADER_OR_FOLLOWER } else { code }
}

/// All bytes count that go to followers of throttled replicas, be they in sync or not: as in Apache Kafka.
fn note_throttled(context: &Context, targets: &[Target], results: &[Found]) {
    let of_throttled = targets.iter().zip(results).filter(|(target, _)| target.is_throttled());
    let bytes = of_throttled.map(|(_, found)| found.len()).sum();
    context.broker.throttles.leader.note(bytes, context.broker.clock.monotonic());
}

/// What an incremental session compares with what it told last time.
fn news(found: &Found) -> PartitionAnswer {
    let answer = |error, high_watermark, log_start_offset| PartitionAnswer {
        error,
        high_watermark,
        log_start_offset,
        has_records: found.len() > 0,
        has_news: matches!(found, Found::Diverged { .. } | Found::Elsewhere { .. }),
    };
    match found {
        Found::NotHere(code) | Found::Failed(code) => answer(*code, -1, -1),
        Found::Diverged { visible, .. }
        | Found::Elsewhere { visible, .. }
        | Found::Records { visible, .. } => {
            answer(ErrorCode::NONE, visible.high_watermark.0, visible.log_start.0)
        }
    }
}

fn partition_data(
    partition_index: i32,
    found: Found,
    read_committed: bool,
    sources: &mut Vec<Source>,
) -> PartitionData {
    let empty = empty(partition_index);
    let seen = |visible: Visible| PartitionData {
        high_watermark: visible.high_watermark.0,
        last_stable_offset: visible.last_stable.0,
        log_start_offset: visible.log_start.0,
        aborted_transactions: read_committed.then(Vec::new),
        ..empty.clone()
    };
    match found {
        Found::NotHere(error_code) => {
            PartitionData { error_code, aborted_transactions: Some(Vec::new()), ..empty }
        }
        Found::Failed(error_code) => PartitionData { error_code, ..empty },
        Found::Diverged { end, visible } => PartitionData {
            diverging_epoch: EpochEndOffset { epoch: end.epoch.0, end_offset: end.end_offset.0 },
            // Nothing was read, so that nothing is known of these.
            aborted_transactions: None,
            ..seen(visible)
        },
        Found::Elsewhere { replica, visible } => PartitionData {
            preferred_read_replica: replica.0,
            // Nothing was read, so that nothing is known of these.
            aborted_transactions: None,
            ..seen(visible)
        },
        Found::Records { slice, visible, aborted, .. } => PartitionData {
            aborted_transactions: read_committed.then_some(aborted),
            records: Some(slice.and_then(source_of).map_or_else(Records::default, |source| {
                let slot =
                    u32::try_from(sources.len()).expect("fewer partitions than bytes in a frame");
                let len = u32::try_from(source.len()).expect("fetch limits are int32");
                sources.push(source);
                Records::Deferred { slot, len }
            })),
            ..seen(visible)
        },
    }
}

fn source_of(slice: Slice) -> Option<Source> {
    let range = slice.source?;
    Some(Source::File { file: range.file, position: range.position, len: range.len })
}

/// A partition of which nothing can be said.
fn empty(partition_index: i32) -> PartitionData {
    PartitionData {
        partition_index,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        preferred_read_replica: -1,
        aborted_transactions: None,
        records: Some(Records::default()),
        ..PartitionData::default()
    }
}

/// Groups neighbours of one topic; a topic whose partitions are apart is answered in several places.
#[derive(Default)]
struct Topics {
    responses: Vec<FetchableTopicResponse>,
}

impl Topics {
    fn push(&mut self, key: PartitionKey, data: PartitionData) {
        match self.responses.last_mut() {
            Some(last) if last.topic == key.topic && last.topic_id == key.topic_id => {
                last.partitions.push(data);
            }
            _ => self.responses.push(FetchableTopicResponse {
                topic: key.topic,
                topic_id: key.topic_id,
                partitions: vec![data],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{LeaderEpoch, Timestamp, Uuid};
    use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker};

    use super::*;
    use crate::replica::{Outboxes, leading, unflushed_log};

    fn abort_transaction(log: &Log, id: i64) {
        let mut data = BatchBuilder::new(Compression::None).producer(id, 0, 0).transactional();
        data.append(Timestamp(1), None, Some(b"value"), &[]);
        log.append_batch(data.build(), LeaderEpoch(0)).unwrap();
        let (abort, marker) = (ControlType::Abort, EndTransactionMarker { coordinator_epoch: 0 });
        let end = BatchBuilder::end_of_transaction((id, 0), abort, marker, Timestamp(1));
        log.append_batch(end.build(), LeaderEpoch(0)).unwrap();
    }

    #[test]
    fn a_reader_of_committed_data_is_told_what_was_aborted_of_what_it_gets() {
        let temporary = tempfile::tempdir().unwrap();
        let log = unflushed_log(&temporary, &[]);
        (0..1_000).for_each(|id| abort_transaction(&log, id));
        log.flush().unwrap();
        let replica = leading(Arc::clone(&log), &Outboxes::default());
        assert_eq!(replica.high_watermark(), Offset(2_000));
        let (topic_id, topic) = (Uuid([7; 16]), ByteString::from_static("t"));
        let asked = PartitionRequest {
            key: PartitionKey { topic_id, topic, partition: 0 },
            fetch_offset: 1_000,
            partition_max_bytes: 1_000,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            told_high_watermark: NOBODY_COMPARES,
        };
        let limits = Limits {
            min_bytes: 1,
            max_bytes: 1 << 20,
            deadline: Instant::now(),
            follower: None,
            reader: None,
            read_committed: true,
        };
        let look = Look {
            follower: None,
            needs_leader: true,
            tells_high_watermark: false,
            now: Duration::ZERO,
            is_first: true,
            throttled: None,
        };
        let mut found = read_replica(&replica, &asked, 1 << 20, true, &limits, &look).unwrap();
        assert_eq!(found.len(), 1_000);
        found.look_up_aborted(&log, Offset(1_000));
        let data = partition_data(0, found, true, &mut Vec::new());
        let told = data.aborted_transactions.unwrap();
        assert_eq!((told[0].producer_id, told[0].first_offset), (500, 1_000));
        // A transaction takes more than 150 bytes, and index entries are 4 KiB apart.
        assert!((6..35).contains(&told.len()), "{} are told", told.len());
    }

    #[test]
    fn beside_where_logs_part_is_what_is_known_of_this_one_without_a_read() {
        let visible =
            Visible { high_watermark: Offset(9), last_stable: Offset(7), log_start: Offset(1) };
        let end = EpochEnd { epoch: LeaderEpoch(3), end_offset: Offset(5) };
        let data = partition_data(0, Found::Diverged { end, visible }, true, &mut Vec::new());
        let offsets = (data.high_watermark, data.last_stable_offset, data.log_start_offset);
        assert_eq!((offsets, data.aborted_transactions), ((9, 7, 1), None));
    }

    #[test]
    fn a_client_too_old_for_storage_errors_is_sent_to_look_for_the_leader() {
        let [storage, leader] = [ErrorCode::KAFKA_STORAGE_ERROR, ErrorCode::NOT_LEADER_OR_FOLLOWER];
        assert_eq!((as_known(storage, 5), as_known(storage, 6)), (leader, storage));
        assert_eq!(as_known(ErrorCode::OFFSET_OUT_OF_RANGE, 4), ErrorCode::OFFSET_OUT_OF_RANGE);
    }
}
