//! Clients that write one record at a time, and keep trying until it is acknowledged (shell).
//!
//! Several, because what a client waits for is partly its own doing: one that asks and sends again at once, which sees what
//! the cluster needs and no more, and librdkafka as it comes. [`super::recorder`] has those of other languages.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_records::{BatchBuilder, Compression};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::ask::{self, Caller};
use super::nodes::Cluster;

/// Writes a record, and returns when it is acknowledged.
pub(super) trait Client: Send {
    fn name(&self) -> &'static str;
    /// Begins anew, as a client does that knows of no trouble yet.
    fn renew(&mut self) -> Result<()>;
    fn write(&mut self, partition: i32, limit: Duration) -> Result<()>;
}

/// Speaks Kafka's protocol itself: on any error or silence it asks the nodes in turn who leads, and sends again.
#[derive(Debug)]
pub(super) struct Direct {
    topic: &'static str,
    nodes: Vec<String>,
    callers: BTreeMap<String, Caller>,
    /// By partition.
    leaders: BTreeMap<i32, String>,
}

impl Direct {
    /// How it is configured, for the report.
    pub(super) const DESCRIPTION: &str = "own client: acks=all, 500 ms for an answer, 5 ms between attempts, Metadata from the nodes in turn after an error";
    /// A leader that waits for followers answers late, and is asked again: that costs no time.
    const ANSWER_LIMIT: Duration = Duration::from_millis(500);
    const PAUSE: Duration = Duration::from_millis(5);

    pub(super) fn new(topic: &'static str, nodes: Vec<String>) -> Self {
        Self { topic, nodes, callers: BTreeMap::new(), leaders: BTreeMap::new() }
    }

    /// Calls a node; after an error the connection is not used again.
    fn with_caller<T>(
        &mut self,
        address: &str,
        call: impl FnOnce(&mut Caller) -> Result<T>,
    ) -> Result<T> {
        let mut caller = match self.callers.remove(address) {
            Some(caller) => caller,
            None => Caller::open(address, Self::ANSWER_LIMIT)?,
        };
        let answer = call(&mut caller)?;
        self.callers.insert(address.to_owned(), caller);
        Ok(answer)
    }

    /// Writes a record with this value, and returns when it is acknowledged.
    pub(super) fn write_value(
        &mut self,
        partition: i32,
        value: &[u8],
        limit: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while let Err(error) = self.attempt(partition, value) {
            ensure!(Instant::now() < deadline, "nothing written within {limit:?}: {error:#}");
            // A client that never rests would take from the nodes what they need to recover.
            thread::sleep(Self::PAUSE);
        }
        Ok(())
    }

    fn attempt(&mut self, partition: i32, value: &[u8]) -> Result<()> {
        // Taken out: whoever fails is looked for anew.
        let leader = match self.leaders.remove(&partition) {
            Some(leader) => leader,
            None => self.find_leader(partition)?,
        };
        let request = request(self.topic, partition, value, Acks::All, SERVER_LIMIT)?;
        let code = self.with_caller(&leader, |caller| {
            let answer = caller.call(12, &request)?;
            let mut partitions = answer.responses.iter().flat_map(|it| &it.partition_responses);
            Ok(partitions.next().context("Produce tells of no partition")?.error_code)
        })?;
        ensure!(code == ErrorCode::NONE, "Produce: {code:?}");
        self.leaders.insert(partition, leader);
        Ok(())
    }

    fn find_leader(&mut self, partition: i32) -> Result<String> {
        let topic = self.topic;
        let mut latest = anyhow!("there are no nodes");
        for node in self.nodes.clone() {
            let view = self.with_caller(&node, |caller| ask::view_through(caller, Some(topic)));
            let leader = view.and_then(|view| {
                let leader = view.partitions.get(&partition).and_then(|it| it.leader);
                let address = leader.and_then(|leader| view.brokers.get(&leader));
                address.cloned().context("nobody leads")
            });
            match leader {
                Ok(address) => {
                    // Another is asked first next time, should this one be wrong.
                    self.nodes.rotate_left(1);
                    return Ok(address);
                }
                Err(error) => latest = error,
            }
        }
        Err(latest)
    }
}

impl Client for Direct {
    fn name(&self) -> &'static str {
        "own client"
    }

    fn renew(&mut self) -> Result<()> {
        self.callers.clear();
        self.leaders.clear();
        Ok(())
    }

    fn write(&mut self, partition: i32, limit: Duration) -> Result<()> {
        self.write_value(partition, b"record", limit)
    }
}

/// How long a broker may wait for followers.
const SERVER_LIMIT: Duration = Duration::from_secs(10);

/// Whom an answer is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    Leader,
    All,
}

/// One record for one partition; the broker waits for followers for so long at most.
pub(super) fn request(
    topic: &str,
    partition: i32,
    value: &[u8],
    acks: Acks,
    limit: Duration,
) -> Result<ProduceRequest> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(i64::try_from(now.as_millis())?), None, Some(value), &[]);
    let records = Some(Records::Bytes(builder.build_bytes()));
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data =
        vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    let acks = match acks {
        Acks::Leader => 1,
        Acks::All => -1,
    };
    let timeout_ms = i32::try_from(limit.as_millis())?;
    Ok(ProduceRequest { acks, timeout_ms, topic_data, ..Default::default() })
}

/// librdkafka, with the pauses that it comes with.
pub(super) struct Librdkafka {
    topic: &'static str,
    bootstrap: String,
    settings: &'static [(&'static str, &'static str)],
    producer: BaseProducer<Answer>,
}

impl Librdkafka {
    const SETTINGS: &[(&str, &str)] =
        &[("acks", "all"), ("enable.idempotence", "true"), ("linger.ms", "0")];
    const PLAIN: &[(&str, &str)] = &[("acks", "all"), ("max.in.flight", "1"), ("linger.ms", "0")];

    /// How it is configured, for the report.
    pub(super) fn description() -> String {
        let settings = Self::SETTINGS.iter().map(|(name, value)| format!("{name}={value}"));
        format!("librdkafka: {}", settings.collect::<Vec<_>>().join(", "))
    }

    pub(super) fn new(topic: &'static str, bootstrap: &str) -> Result<Self> {
        Self::with(topic, bootstrap, Self::SETTINGS)
    }

    /// Without idempotence, and with one request in flight: it asks nobody new as long as it gets answers.
    pub(super) fn plain(topic: &'static str, bootstrap: &str) -> Result<Self> {
        Self::with(topic, bootstrap, Self::PLAIN)
    }

    fn with(
        topic: &'static str,
        bootstrap: &str,
        settings: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(Answer::default())?;
        Ok(Self { topic, bootstrap: bootstrap.to_owned(), settings, producer })
    }
}

impl Client for Librdkafka {
    fn name(&self) -> &'static str {
        "librdkafka"
    }

    fn renew(&mut self) -> Result<()> {
        *self = Self::with(self.topic, &self.bootstrap, self.settings)?;
        Ok(())
    }

    fn write(&mut self, partition: i32, limit: Duration) -> Result<()> {
        let record = BaseRecord::<(), _, _>::to(self.topic).partition(partition).payload("record");
        self.producer.send(record).map_err(|(error, _)| error)?;
        let deadline = Instant::now() + limit;
        loop {
            // It does not return before its time is up, and what it returns late would count.
            self.producer.poll(Duration::from_millis(1));
            match self.producer.context().take() {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => bail!("given up: {error}"),
                None => ensure!(Instant::now() < deadline, "nothing written within {limit:?}"),
            }
        }
    }
}

/// Writes so many records with the same value to partition 0 with librdkafka, and returns how long it took until all of them
/// were acknowledged by all in sync.
pub(super) fn write_many(
    cluster: &Cluster,
    topic: &str,
    value: &[u8],
    count: usize,
    limit: Duration,
) -> Result<Duration> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap()).set("acks", "all");
    let producer: BaseProducer = config.create()?;
    let begun = Instant::now();
    for _ in 0..count {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(limit).context("not all was acknowledged")?;
    Ok(begun.elapsed())
}

/// What became of the one record under way.
#[derive(Debug, Default)]
struct Answer(Mutex<Option<Result<(), String>>>);

impl Answer {
    fn take(&self) -> Option<Result<(), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Answer {}

impl ProducerContext for Answer {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let answer = result.as_ref().map(drop).map_err(|(error, _)| error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}
