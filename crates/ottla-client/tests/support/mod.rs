//! A broker for tests: one topic, one partition, one group, and answers that a script decides.

#![allow(dead_code, reason = "each test file uses its part")]

mod group;

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use ottla_base::{ErrorCode, LeaderEpoch, Offset, Timestamp, Uuid};
use ottla_protocol::frame::{Incoming, encode_response};
use ottla_protocol::messages::api_versions_response::ApiVersion;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use ottla_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ottla_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ottla_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use ottla_protocol::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse,
};
use ottla_protocol::{ApiKey, Message, Records};
use ottla_records::{BatchBuilder, Compression, RawBatch};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) use group::GroupScript;

const TOPIC_ID: Uuid = Uuid::from_u128(77);

/// What the broker does; each list of refusals is used up from its front, one a request.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) api_versions_max: i16,
    pub(crate) metadata_max: i16,
    pub(crate) produce_refusals: Vec<ErrorCode>,
    pub(crate) fetch_refusals: Vec<ErrorCode>,
    pub(crate) list_offsets_refusals: Vec<ErrorCode>,
    pub(crate) create_refusals: Vec<ErrorCode>,
    /// The record counts of the batches that the partition holds.
    pub(crate) log: Vec<i32>,
    pub(crate) garbage: bool,
    pub(crate) group: GroupScript,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            api_versions_max: 4,
            metadata_max: 13,
            produce_refusals: Vec::new(),
            fetch_refusals: Vec::new(),
            list_offsets_refusals: Vec::new(),
            create_refusals: Vec::new(),
            log: Vec::new(),
            garbage: false,
            group: GroupScript::default(),
        }
    }
}

#[derive(Debug)]
struct State {
    script: Script,
    port: u16,
    asked: Vec<(ApiKey, i16)>,
    stored: Vec<String>,
    sequences: Vec<i32>,
    group_log: Vec<String>,
    connections: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct Broker {
    state: Arc<Mutex<State>>,
    port: u16,
    listener: JoinHandle<()>,
}

impl Broker {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            script,
            port,
            asked: Vec::new(),
            stored: Vec::new(),
            sequences: Vec::new(),
            group_log: Vec::new(),
            connections: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = tokio::spawn(converse(stream, Arc::clone(&shared)));
                shared.lock().unwrap().connections.push(connection);
            }
        });
        Self { state, port, listener }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listened; nobody does any more.
    pub(crate) async fn stopped(self) -> String {
        self.listener.abort();
        // The socket is closed once the task that holds it is gone.
        let address = self.address();
        let _ = self.listener.await;
        address
    }

    pub(crate) fn drop_connections(&self) {
        self.state().connections.drain(..).for_each(|connection| connection.abort());
    }

    /// The versions in which requests of a kind came.
    pub(crate) fn asked(&self, api: ApiKey) -> Vec<i16> {
        let state = self.state();
        let of_kind = state.asked.iter().filter(|(asked, _)| *asked == api);
        of_kind.map(|(_, version)| *version).collect()
    }

    /// The values that it took.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.state().stored.clone()
    }

    /// The sequence numbers of the records that it took.
    pub(crate) fn sequences(&self) -> Vec<i32> {
        self.state().sequences.clone()
    }

    /// What the group's members did, a line each.
    pub(crate) fn group_log(&self) -> Vec<String> {
        self.state().group_log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn converse(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Ok(length) = stream.read_u32().await {
        let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let answer = state.lock().unwrap().answer(frame.freeze());
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, frame: Bytes) -> Bytes {
        let mut incoming = Incoming::decode(frame).unwrap();
        self.asked.push((incoming.api, incoming.header.request_api_version));
        if self.script.garbage {
            return Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
        #[allow(clippy::wildcard_enum_match_arm, reason = "a broker serves what it advertises")]
        match incoming.api {
            ApiKey::ApiVersions => self.api_versions(&incoming),
            ApiKey::Metadata => {
                let response = self.metadata(incoming.message().unwrap());
                reply(&incoming, &response)
            }
            ApiKey::InitProducerId => {
                reply(&incoming, &InitProducerIdResponse { producer_id: 5, ..Default::default() })
            }
            ApiKey::Produce => {
                let response = self.produce(incoming.message().unwrap());
                reply(&incoming, &response)
            }
            ApiKey::Fetch => {
                let response = self.fetch(incoming.message().unwrap());
                reply(&incoming, &response)
            }
            ApiKey::ListOffsets => {
                let response = self.list_offsets(incoming.message().unwrap());
                reply(&incoming, &response)
            }
            ApiKey::CreateTopics => {
                let response = self.create_topics(incoming.message().unwrap());
                reply(&incoming, &response)
            }
            other => match self.answer_member(&mut incoming) {
                Some(answer) => answer,
                None => panic!("nobody advertised {}", other.name()),
            },
        }
    }

    fn api_versions(&self, incoming: &Incoming) -> Bytes {
        let served = [
            (ApiKey::ApiVersions, self.script.api_versions_max),
            (ApiKey::Metadata, self.script.metadata_max),
            (ApiKey::InitProducerId, 5),
            (ApiKey::Produce, 13),
            (ApiKey::Fetch, 18),
            (ApiKey::ListOffsets, 11),
            (ApiKey::CreateTopics, 7),
        ];
        let served: Vec<_> = served.into_iter().chain(self.script.group.served.clone()).collect();
        let version = incoming.header.request_api_version;
        let known = version <= self.script.api_versions_max;
        let response = ApiVersionsResponse {
            error_code: if known { ErrorCode::NONE } else { ErrorCode::UNSUPPORTED_VERSION },
            api_keys: served
                .into_iter()
                .map(|(api, max_version)| ApiVersion {
                    api_key: api.key(),
                    min_version: 0,
                    max_version,
                })
                .collect(),
            ..ApiVersionsResponse::default()
        };
        reply_in(incoming, &response, if known { version } else { 0 })
    }

    fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let topic = |name: &str| MetadataResponseTopic {
            error_code: match name {
                "orders" => ErrorCode::NONE,
                _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            },
            name: Some(name.into()),
            topic_id: TOPIC_ID,
            partitions: vec![MetadataResponsePartition {
                leader_id: 1,
                leader_epoch: 3,
                replica_nodes: vec![1],
                isr_nodes: vec![1],
                ..MetadataResponsePartition::default()
            }],
            ..MetadataResponseTopic::default()
        };
        let names = request.topics.unwrap_or_default();
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "127.0.0.1".into(),
                port: self.port.into(),
                ..MetadataResponseBroker::default()
            }],
            controller_id: 1,
            topics: names.iter().map(|asked| topic(asked.name.as_deref().unwrap())).collect(),
            ..MetadataResponse::default()
        }
    }

    fn produce(&mut self, request: ProduceRequest) -> ProduceResponse {
        let error_code = next(&mut self.script.produce_refusals);
        if error_code == ErrorCode::NONE {
            for partition in request.topic_data.iter().flat_map(|topic| &topic.partition_data) {
                let records = partition.records.as_ref().and_then(Records::bytes).unwrap();
                self.store(&RawBatch::parse(records.clone()).unwrap());
            }
        }
        ProduceResponse {
            responses: vec![TopicProduceResponse {
                topic_id: TOPIC_ID,
                partition_responses: vec![PartitionProduceResponse {
                    error_code,
                    ..PartitionProduceResponse::default()
                }],
                ..TopicProduceResponse::default()
            }],
            ..ProduceResponse::default()
        }
    }

    fn store(&mut self, batch: &RawBatch) {
        let sequences = batch.header().base_sequence..;
        for (sequence, record) in sequences.zip(batch.records().unwrap()) {
            let value = record.unwrap().value.unwrap_or_default();
            self.stored.push(String::from_utf8(value.to_vec()).unwrap());
            self.sequences.push(sequence);
        }
    }

    fn log_end(&self) -> i64 {
        self.script.log.iter().map(|count| i64::from(*count)).sum()
    }

    fn fetch(&mut self, request: FetchRequest) -> FetchResponse {
        let wanted = request.topics.first().and_then(|topic| topic.partitions.first()).unwrap();
        assert_eq!(wanted.current_leader_epoch, 3, "the epoch that Metadata told");
        let mut error_code = next(&mut self.script.fetch_refusals);
        if error_code == ErrorCode::NONE && !(0..=self.log_end()).contains(&wanted.fetch_offset) {
            error_code = ErrorCode::OFFSET_OUT_OF_RANGE;
        }
        let has_records = error_code == ErrorCode::NONE;
        let records = has_records.then(|| Records::Bytes(self.batches_from(wanted.fetch_offset)));
        FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic_id: TOPIC_ID,
                partitions: vec![PartitionData {
                    error_code,
                    high_watermark: self.log_end(),
                    records,
                    ..PartitionData::default()
                }],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        }
    }

    /// Whole batches, the first of which holds the offset.
    fn batches_from(&self, offset: i64) -> Bytes {
        let mut bytes = BytesMut::new();
        let mut base = 0;
        for count in &self.script.log {
            let mut batch = BatchBuilder::new(Compression::None).at(Offset(base), LeaderEpoch(3));
            (0..*count).for_each(|_| batch.append(Timestamp(0), None, None, &[]));
            base += i64::from(*count);
            if offset < base {
                bytes.extend_from_slice(&batch.build_bytes());
            }
        }
        bytes.freeze()
    }

    fn list_offsets(&mut self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let asked = request.topics.first().and_then(|topic| topic.partitions.first()).unwrap();
        let offset = if asked.timestamp == -1 { self.log_end() } else { 0 };
        ListOffsetsResponse {
            topics: vec![ListOffsetsTopicResponse {
                name: "orders".into(),
                partitions: vec![ListOffsetsPartitionResponse {
                    error_code: next(&mut self.script.list_offsets_refusals),
                    offset,
                    ..ListOffsetsPartitionResponse::default()
                }],
            }],
            ..ListOffsetsResponse::default()
        }
    }

    fn create_topics(&mut self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        CreateTopicsResponse {
            topics: vec![CreatableTopicResult {
                name: request.topics.first().unwrap().name.clone(),
                error_code: next(&mut self.script.create_refusals),
                num_partitions: 1,
                ..CreatableTopicResult::default()
            }],
            ..CreateTopicsResponse::default()
        }
    }
}

/// The front of a list of refusals, then no error any more.
fn next(refusals: &mut Vec<ErrorCode>) -> ErrorCode {
    if refusals.is_empty() { ErrorCode::NONE } else { refusals.remove(0) }
}

fn reply(incoming: &Incoming, response: &impl Message) -> Bytes {
    reply_in(incoming, response, incoming.header.request_api_version)
}

fn reply_in(incoming: &Incoming, response: &impl Message, version: i16) -> Bytes {
    encode_response(incoming.api, version, incoming.header.correlation_id, response).unwrap().bytes
}
