//! The producer's task: takes batches as their partitions become free, sends them to the leaders,
//! and decides what an answer means for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::Records;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::produce_response::PartitionProduceResponse;
use ottla_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
};
use ottla_records::{BatchBuilder, HeaderSlice, RawBatch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Acks, Shared, TooLarge};
use crate::accumulator::Draft;
use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;
use crate::metadata::Metadata;
use crate::retry::longer;

/// Batches for one broker in one request, before compression: well below what brokers accept.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What a broker made of one request, batch by batch.
type Answered = Vec<(Draft, Result<(), ClientError>)>;

/// Who the broker takes this producer for.
#[derive(Debug, Clone, Copy)]
struct Identity {
    id: i64,
    epoch: i16,
}

/// Runs until the producer is dropped.
pub(super) async fn run(client: Client, shared: Arc<Shared>) {
    shared.work.notified().await;
    let mut sender = match identity(&client, &shared).await {
        Ok(identity) => Sender { client, shared, identity, requests: JoinSet::new() },
        Err(error) => {
            shared.state().failure = Some(error);
            shared.progress.notify_waiters();
            return;
        }
    };
    loop {
        let wake = sender.send_ready().await;
        sender.wait(wake).await;
    }
}

/// A number from the cluster, when batches are to be numbered and the cluster can.
async fn identity(client: &Client, shared: &Shared) -> Result<Option<Identity>, ClientError> {
    if !shared.options.idempotent || shared.options.acks != Acks::All {
        return Ok(None);
    }
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let ask = || async {
        let response: InitProducerIdResponse = client.send(Target::Any, &request).await?;
        match response.error_code {
            ErrorCode::NONE => {
                Ok(Some(Identity { id: response.producer_id, epoch: response.producer_epoch }))
            }
            code => Err(ClientError::refused("asking for a producer id", code)),
        }
    };
    match client.persist(ask).await {
        Err(error) if error.is_unsupported() => Ok(None),
        result => result,
    }
}

struct Sender {
    client: Client,
    shared: Arc<Shared>,
    identity: Option<Identity>,
    requests: JoinSet<Answered>,
}

impl Sender {
    /// Sends every batch that may leave; returns when to look again at those that wait for a retry.
    async fn send_ready(&mut self) -> Option<Instant> {
        let (ready, wake) = self.shared.state().accumulator.take_ready(Instant::now());
        if ready.is_empty() {
            return wake;
        }
        let (by_leader, leaderless) = group(&self.client.metadata(), ready);
        for (leader, drafts) in by_leader {
            for drafts in portions(drafts) {
                let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
                let identity = self.identity;
                self.requests.spawn(send(client, shared, leader, drafts, identity));
            }
        }
        if !leaderless.is_empty() {
            let no_leader = ErrorCode::LEADER_NOT_AVAILABLE;
            let error =
                |draft: &Draft| ClientError::refused(draft.partition.to_string(), no_leader);
            let answered = leaderless.into_iter().map(|draft| {
                let error = error(&draft);
                (draft, Err(error))
            });
            self.settle(answered.collect()).await;
            return Some(Instant::now());
        }
        wake
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        let shared = Arc::clone(&self.shared);
        let alarm = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(answered) = self.requests.join_next() => {
                // A request that panicked is a bug of ours: its batches are lost, nothing may seem stored.
                self.settle(answered.expect("sending does not panic")).await;
            }
            () = shared.work.notified() => {}
            () = alarm => {}
        }
    }

    /// Takes each batch off the list, or puts it back, or gives up on all.
    async fn settle(&self, answered: Answered) {
        let mut stale: Vec<Arc<str>> = Vec::new();
        for (draft, result) in answered {
            let Err(error) = result else {
                self.deliver(draft);
                continue;
            };
            if is_too_large(&error) {
                self.split_or_leave_out(draft);
            } else if self.may_retry(&draft, &error) {
                stale.push(Arc::clone(&draft.partition.topic));
                let pause =
                    (0..draft.batch.attempts).fold(Duration::ZERO, |pause, _| longer(pause));
                self.shared.state().accumulator.put_back(draft, Instant::now() + pause);
            } else {
                self.fail(draft, error);
            }
        }
        self.shared.progress.notify_waiters();
        self.refresh(&stale).await;
    }

    /// Leaders have moved, or brokers went away: ask those that are left. The next attempt tells if it helped.
    async fn refresh(&self, topics: &[Arc<str>]) {
        if !topics.is_empty() {
            let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            let _ = self.client.refresh(TopicFilter::Named(&names)).await;
        }
    }

    fn deliver(&self, draft: Draft) {
        let mut state = self.shared.state();
        let records = u64::try_from(draft.batch.builder.record_count()).unwrap_or(0);
        state.delivered.records += records;
        state.delivered.bytes += u64::try_from(draft.batch.builder.size_in_bytes()).unwrap_or(0);
        state.accumulator.finish(draft);
    }

    fn may_retry(&self, draft: &Draft, error: &ClientError) -> bool {
        error.is_retriable() && draft.batch.since.elapsed() < self.shared.options.delivery_timeout
    }

    fn fail(&self, draft: Draft, error: ClientError) {
        let mut state = self.shared.state();
        state.accumulator.finish(draft);
        state.failure.get_or_insert(error);
    }

    /// A broker's limit may be below ours: halve until it fits, or until it is a single record that does not. That one
    /// is left out: the others can be stored without it.
    fn split_or_leave_out(&self, draft: Draft) {
        let mut state = self.shared.state();
        let parts = if let &[number] = &*draft.batch.numbers {
            let bytes = draft.batch.builder.size_in_bytes();
            state.too_large.push(TooLarge { number, bytes });
            Vec::new()
        } else {
            halves(draft.batch.builder.clone())
        };
        state.accumulator.replace(draft, parts);
    }
}

fn is_too_large(error: &ClientError) -> bool {
    let codes = [ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::RECORD_LIST_TOO_LARGE];
    matches!(error, ClientError::Refused { code, .. } if codes.contains(code))
}

fn halves(mut builder: BatchBuilder) -> Vec<BatchBuilder> {
    let codec = builder.codec;
    let count = usize::try_from(builder.record_count()).unwrap_or(0);
    builder.codec = ottla_records::Compression::None.into();
    let bytes = builder.build_bytes();
    let batch = RawBatch::parse(bytes).expect("a builder builds a batch");
    let records = batch.records().expect("it is not compressed");
    let mut parts = [BatchBuilder::new(codec), BatchBuilder::new(codec)];
    for (place, record) in records.enumerate() {
        let record = record.expect("a builder builds records");
        let names: Vec<_> = record.headers.iter().map(|header| header.key_text()).collect();
        let headers: Vec<HeaderSlice<'_>> = names
            .iter()
            .zip(&record.headers)
            .map(|(name, header)| (&**name, header.value.as_deref()))
            .collect();
        let [first, second] = &mut parts;
        let part = if place < count / 2 { first } else { second };
        part.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    parts.into()
}

fn group(metadata: &Metadata, drafts: Vec<Draft>) -> (BTreeMap<BrokerId, Vec<Draft>>, Vec<Draft>) {
    let mut by_leader: BTreeMap<BrokerId, Vec<Draft>> = BTreeMap::new();
    let mut leaderless = Vec::new();
    for draft in drafts {
        match metadata.leader(&draft.partition.topic, draft.partition.partition.0) {
            Some(leader) => by_leader.entry(leader).or_default().push(draft),
            None => leaderless.push(draft),
        }
    }
    (by_leader, leaderless)
}

/// As many requests as keep each below the limit.
fn portions(drafts: Vec<Draft>) -> Vec<Vec<Draft>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for draft in drafts {
        bytes += draft.batch.builder.size_in_bytes();
        if bytes > REQUEST_BYTES_MAX && portions.last().is_some_and(|last| !last.is_empty()) {
            portions.push(Vec::new());
            bytes = draft.batch.builder.size_in_bytes();
        }
        portions.last_mut().expect("there is at least one").push(draft);
    }
    portions
}

async fn send(
    client: Client,
    shared: Arc<Shared>,
    leader: BrokerId,
    drafts: Vec<Draft>,
    identity: Option<Identity>,
) -> Answered {
    let acks = shared.options.acks;
    let timeout = client.options().request_timeout;
    let request = ProduceRequest {
        acks: acks.code(),
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topic_data(&client.metadata(), &drafts, identity),
        ..ProduceRequest::default()
    };
    let target = Target::Broker(leader);
    if acks == Acks::None {
        let result = client.send_unanswered(target, &request).await;
        return drafts.into_iter().map(|draft| (draft, result.clone())).collect();
    }
    match client.send(target, &request).await {
        Ok(response) => match_up(&client.metadata(), drafts, response),
        Err(error) => drafts.into_iter().map(|draft| (draft, Err(error.clone()))).collect(),
    }
}

fn topic_data(
    metadata: &Metadata,
    drafts: &[Draft],
    identity: Option<Identity>,
) -> Vec<TopicProduceData> {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for draft in drafts {
        let name = &*draft.partition.topic;
        let place = topics.iter().position(|topic| *topic.name == *name).unwrap_or_else(|| {
            topics.push(TopicProduceData {
                name: name.into(),
                topic_id: metadata.topics.get(name).map(|topic| topic.id).unwrap_or_default(),
                ..TopicProduceData::default()
            });
            topics.len() - 1
        });
        let topic = topics.get_mut(place).expect("it was found there or put there");
        topic.partition_data.push(PartitionProduceData {
            index: draft.partition.partition.0,
            records: Some(Records::Bytes(batch_bytes(draft, identity))),
        });
    }
    topics
}

fn batch_bytes(draft: &Draft, identity: Option<Identity>) -> bytes::Bytes {
    let builder = draft.batch.builder.clone();
    match identity {
        None => builder.build_bytes(),
        Some(Identity { id, epoch }) => {
            builder.producer(id, epoch, draft.batch.base_sequence()).build_bytes()
        }
    }
}

/// Finds each batch's part of the answer, by topic name or by topic id as the version has it.
fn match_up(metadata: &Metadata, drafts: Vec<Draft>, response: ProduceResponse) -> Answered {
    let mut parts: BTreeMap<(Arc<str>, i32), PartitionProduceResponse> = BTreeMap::new();
    for topic in response.responses {
        let by_id = || metadata.topics.values().find(|known| known.id == topic.topic_id);
        let name = match &*topic.name {
            "" => by_id().map(|known| Arc::clone(&known.name)),
            name => Some(name.into()),
        };
        let Some(name) = name else { continue };
        for partition in topic.partition_responses {
            parts.insert((Arc::clone(&name), partition.index), partition);
        }
    }
    drafts
        .into_iter()
        .map(|draft| {
            let key = (Arc::clone(&draft.partition.topic), draft.partition.partition.0);
            let result = outcome(&draft, parts.remove(&key));
            (draft, result)
        })
        .collect()
}

fn outcome(draft: &Draft, part: Option<PartitionProduceResponse>) -> Result<(), ClientError> {
    // A leader that knows nothing of the topic any more may leave it out of the answer.
    let code = part.as_ref().map_or(ErrorCode::UNKNOWN_TOPIC_ID, |part| part.error_code);
    match code {
        // An earlier attempt was stored after all.
        ErrorCode::NONE | ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Ok(()),
        code => Err(ClientError::Refused {
            what: format!("{} took no record", draft.partition),
            code,
            message: part.and_then(|part| part.error_message).map(|message| message.to_string()),
        }),
    }
}
