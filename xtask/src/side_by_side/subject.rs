//! One of the two brokers: a connection to it, and what only it knows — its port, its ids (shell).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, Uuid};
use ottla_protocol::frame::encode_request;
use ottla_protocol::header::ResponseHeader;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::describe_quorum_request;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::{
    CreateTopicsRequest, DescribeQuorumRequest, ListOffsetsRequest, MetadataRequest,
};
use ottla_protocol::{Decoder, Message as _, Request};

use super::connection::{Connection, Reply};
use super::records;
use super::value::Value;
use crate::broker::{Broker, two_data_directories};

const CLIENT_ID: &str = "side-by-side";
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const SETTLE_PAUSE: Duration = Duration::from_millis(5);
/// A time that differs from ours by less is the broker's clock, and not what a script wrote.
const NOW_TOLERANCE_MS: i64 = 3_600_000;

/// An id that no topic has.
pub(super) const NOBODYS_ID: Uuid = Uuid([7; 16]);

/// What came of a request.
#[derive(Debug, Clone)]
pub(crate) enum Outcome<T> {
    Answered(T),
    Closed,
    Nothing,
}

impl<T> Outcome<T> {
    pub(crate) fn answer(self) -> Option<T> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Closed | Self::Nothing => None,
        }
    }
}

/// Which of its listeners a broker is asked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Broker,
    Controller,
}

/// A listener, and the connection to it.
#[derive(Debug)]
struct Door {
    address: String,
    connection: Option<Connection>,
}

impl Door {
    fn to(address: &str) -> Self {
        Self { address: address.to_owned(), connection: None }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.address)?);
        }
        self.connection.as_mut().context("it was just opened")
    }

    fn port(&self) -> &str {
        self.address.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

#[derive(Debug)]
pub(crate) struct Subject {
    broker: Door,
    controller: Door,
    /// Where [`Subject::ask`] asks.
    pub(super) via: Via,
    /// The process, and what it writes: for what shows in neither answer nor connection.
    pub(super) pid: u32,
    pub(super) log: PathBuf,
    /// Its log directories, for what no answer tells of them.
    pub(super) data_directories: [PathBuf; 2],
    cluster_id: String,
    directory_id: String,
    /// Connections of others, who wait while we go on asking: by their names.
    others: BTreeMap<String, Connection>,
    correlation_id: i32,
    /// Names of all topics that there ever were.
    names: BTreeMap<Uuid, String>,
    /// Ids of the topics by name, the latest if there were several.
    ids: BTreeMap<String, Uuid>,
    /// What a script calls the members of groups, by the ids that the broker gave them.
    members: BTreeMap<String, String>,
}

impl Subject {
    pub(crate) fn connect(broker: &Broker) -> Result<Self> {
        let mut subject = Self {
            broker: Door::to(broker.address()),
            controller: Door::to(""),
            via: Via::Broker,
            pid: broker.pid().context("the broker is not running")?,
            log: broker.log(),
            data_directories: two_data_directories(broker.directory()),
            cluster_id: String::new(),
            directory_id: String::new(),
            others: BTreeMap::new(),
            correlation_id: 0,
            names: BTreeMap::new(),
            ids: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        subject.learn()?;
        Ok(subject)
    }

    /// Learns where the controller is, and in which directory.
    pub(super) fn learn_quorum(&mut self) -> Result<()> {
        let response = self.expect(2, &describe_quorum())?;
        let listeners = response.nodes.iter().flat_map(|node| &node.listeners);
        let controller = listeners.into_iter().next().context("no listener for controllers")?;
        self.controller = Door::to(&format!("{}:{}", controller.host, controller.port));
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let voter = partitions.flat_map(|partition| &partition.current_voters).next();
        self.directory_id = voter.context("nobody votes")?.replica_directory_id.to_string();
        Ok(())
    }

    /// The id of a topic, as it was when it was last learned.
    ///
    /// # Panics
    /// When no script has made the topic.
    pub(super) fn id(&self, topic: &str) -> Uuid {
        *self.ids.get(topic).unwrap_or_else(|| panic!("no script has made {topic}"))
    }

    /// How many topics there are, as it was last learned.
    pub(crate) fn topic_count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn fresh_connection(&self) -> Result<Connection> {
        Connection::open(&self.broker.address)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<Outcome<R::Response>> {
        self.exchange(self.via, version, request)
    }

    fn exchange<R: Request>(
        &mut self,
        via: Via,
        version: i16,
        request: &R,
    ) -> Result<Outcome<R::Response>> {
        self.send_via(via, version, request)?;
        let door = self.door(via);
        let reply = door.connection()?.receive()?;
        if !matches!(reply, Reply::Frame(_)) {
            door.connection = None;
        }
        match reply {
            Reply::Frame(frame) => self.decode::<R>(frame, version).map(Outcome::Answered),
            Reply::Closed => Ok(Outcome::Closed),
            Reply::Nothing => Ok(Outcome::Nothing),
        }
    }

    /// Sends a request from somebody else, on a connection of its own.
    pub(super) fn send_from<R: Request>(
        &mut self,
        who: &str,
        version: i16,
        request: &R,
    ) -> Result<()> {
        let client = Some(ByteString::from(CLIENT_ID));
        let frame = encode_request(version, self.correlation_id, client, request)?;
        if !self.others.contains_key(who) {
            let connection = self.fresh_connection()?;
            self.others.insert(who.to_owned(), connection);
        }
        self.others.get_mut(who).context("it was just opened")?.send(&frame.bytes);
        Ok(())
    }

    /// Waits for the answer to what somebody else has sent.
    pub(super) fn answer_to<R: Request>(
        &mut self,
        who: &str,
        version: i16,
    ) -> Result<Outcome<R::Response>> {
        let connection = self.others.get_mut(who);
        match connection.with_context(|| format!("{who} has sent nothing"))?.receive()? {
            Reply::Frame(frame) => decode_any::<R>(frame, version).map(Outcome::Answered),
            Reply::Closed => Ok(Outcome::Closed),
            Reply::Nothing => Ok(Outcome::Nothing),
        }
    }

    /// Somebody else hangs up.
    pub(super) fn hang_up(&mut self, who: &str) {
        self.others.remove(who);
    }

    /// Calls a member of a group by a name, whatever the broker calls it.
    pub(super) fn name_member(&mut self, id: &str, name: &str) {
        self.members.insert(id.to_owned(), name.to_owned());
    }

    /// Sends a request whose answer nobody waits for.
    pub(super) fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        self.send_via(Via::Broker, version, request)
    }

    fn send_via<R: Request>(&mut self, via: Via, version: i16, request: &R) -> Result<()> {
        self.correlation_id += 1;
        let client = Some(ByteString::from(CLIENT_ID));
        let frame = encode_request(version, self.correlation_id, client, request)?;
        self.door(via).connection()?.send(&frame.bytes);
        Ok(())
    }

    fn door(&mut self, via: Via) -> &mut Door {
        match via {
            Via::Broker => &mut self.broker,
            Via::Controller => &mut self.controller,
        }
    }

    fn decode<R: Request>(&self, frame: Bytes, version: i16) -> Result<R::Response> {
        let (correlation_id, response) = decode_frame::<R>(frame, version)?;
        ensure!(
            correlation_id == self.correlation_id,
            "the answer is to request {correlation_id}, not to {}",
            self.correlation_id
        );
        Ok(response)
    }

    /// Asks for something that belongs to the set-up: no answer is an error.
    pub(crate) fn expect<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let outcome = self.exchange(Via::Broker, version, request)?;
        outcome.answer().with_context(|| format!("{} v{version} got no answer", R::NAME))
    }

    /// Makes a topic and waits until it can be used.
    pub(super) fn create(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.into(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs.iter().map(config).collect(),
                ..Default::default()
            }],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let response = self.expect(7, &request)?;
        let failed = response.topics.iter().find(|topic| topic.error_code != ErrorCode::NONE);
        ensure!(failed.is_none(), "{topic} could not be made: {failed:?}");
        self.wait_until_usable(topic, partitions)
    }

    /// Apache Kafka answers CreateTopics before the broker has applied it.
    pub(super) fn wait_until_usable(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let partition = |partition_index| ListOffsetsPartition {
            partition_index,
            current_leader_epoch: -1,
            timestamp: -1,
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: (0..partitions).map(partition).collect(),
            }],
            ..Default::default()
        };
        self.wait_for(&format!("{topic} to be usable"), |subject| {
            let response = subject.expect(9, &request)?;
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            Ok(partitions.all(|partition| partition.error_code == ErrorCode::NONE))
        })?;
        self.learn()
    }

    /// Waits until the broker that answers has applied a deletion.
    pub(super) fn wait_until_gone(&mut self, topic: &str) -> Result<()> {
        self.wait_for(&format!("{topic} to be gone"), |subject| {
            subject.learn()?;
            Ok(!subject.ids.contains_key(topic))
        })
    }

    pub(super) fn wait_for(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !is_so(self)? {
            if Instant::now() > deadline {
                bail!("{} took too long for {what}", self.broker.address);
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// Learns the ids of all topics.
    pub(super) fn learn(&mut self) -> Result<()> {
        let response = self.expect(12, &MetadataRequest { topics: None, ..Default::default() })?;
        self.cluster_id = response.cluster_id.map_or_else(String::new, |id| id.to_string());
        self.ids.clear();
        for topic in response.topics {
            let name = topic.name.unwrap_or_default().to_string();
            self.names.insert(topic.topic_id, name.clone());
            self.ids.insert(name, topic.topic_id);
        }
        Ok(())
    }

    /// Replaces what must differ between two brokers by a name of what it is. Texts for people differ, too, where they
    /// need not be `worded` alike.
    pub(super) fn normalise(&self, mut answer: Value, worded: bool) -> Value {
        answer.each_field(&mut |name, value| {
            let Value::Leaf(text) = &*value else { return };
            if worded && name == "error_message" {
                return;
            }
            if let Some(replaced) = self.replacement(name, text) {
                *value = replaced;
            }
        });
        answer
    }

    fn replacement(&self, field: &str, text: &str) -> Option<Value> {
        let number: Option<i64> = text.parse().ok();
        let named = |name: &str| Some(Value::leaf(name));
        match field {
            "topic_id" => {
                let id: Uuid = text.parse().ok()?;
                match self.names.get(&id) {
                    Some(name) => Some(Value::leaf(format!("(id of {name})"))),
                    None if id == Uuid::ZERO || id == NOBODYS_ID => None,
                    None => named("(new id)"),
                }
            }
            "cluster_id" if text.trim_matches('"') == self.cluster_id => named("(cluster id)"),
            "port" if text == self.broker.port() => named("(own port)"),
            "port" if text == self.controller.port() => named("(controller's port)"),
            "replica_directory_id" if text == self.directory_id => named("(directory id)"),
            "session_id" if number? > 0 => named("(session)"),
            // An offset in the metadata log.
            "finalized_features_epoch" if number? > 0 => named("(metadata offset)"),
            // Texts are for people; what a client decides on is the code.
            "error_message" | "batch_index_error_message" if text.len() > 2 && text != "None" => {
                named("(text)")
            }
            "member_id" | "leader" if text.len() > MEMBER_SUFFIX_LEN => {
                let id = text.trim_matches('"');
                let name = self.members.get(id).map_or("new member", |name| name);
                is_member_id(id).then(|| Value::leaf(format!("({name})")))
            }
            // Apache Kafka's documentation is not ours.
            "documentation" if text != "None" => named("(text)"),
            "last_fetch_timestamp"
            | "last_caught_up_timestamp"
            | "log_append_time_ms"
            | "timestamp"
            | "base_timestamp"
            | "max_timestamp"
            | "last_timestamp" => is_about_now(number?).then(|| Value::leaf("(now)")),
            "records" if text.starts_with("b\"") => {
                Some(self.normalise(records::describe(records::unquoted(text)), false))
            }
            _ => None,
        }
    }
}

/// The question about the metadata log.
pub(super) fn describe_quorum() -> DescribeQuorumRequest {
    let partition = describe_quorum_request::PartitionData { partition_index: 0 };
    let topic = describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![partition],
    };
    DescribeQuorumRequest { topics: vec![topic] }
}

fn decode_any<R: Request>(frame: Bytes, version: i16) -> Result<R::Response> {
    decode_frame::<R>(frame, version).map(|(_, response)| response)
}

/// The correlation id and the body.
fn decode_frame<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response)> {
    let mut input = Decoder::new(frame);
    let header_version = R::KEY.response_header_version(version);
    let header = ResponseHeader::decode(&mut input, header_version)?;
    let response = R::Response::decode(&mut input, version)?;
    input.finish().context("bytes are left behind the answer")?;
    Ok((header.correlation_id, response))
}

/// `-01234567-89ab-cdef-0123-456789abcdef`: what makes a member's id its own.
const MEMBER_SUFFIX_LEN: usize = 37;

fn is_member_id(text: &str) -> bool {
    let suffix = text.len().checked_sub(MEMBER_SUFFIX_LEN).and_then(|at| text.get(at..));
    suffix.is_some_and(|suffix| {
        let dashes = suffix.bytes().enumerate().filter(|(_, byte)| *byte == b'-');
        dashes.map(|(at, _)| at).eq([0, 9, 14, 19, 24])
            && suffix.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    })
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn is_about_now(time_ms: i64) -> bool {
    (now_ms() - time_ms).abs() < NOW_TOLERANCE_MS
}
