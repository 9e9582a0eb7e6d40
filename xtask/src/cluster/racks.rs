//! Consumers that read from a follower in their own rack: who is sent where, and what a follower answers (shell).
//!
//! Node 1 leads, and each node is in a rack of its own. First questions on the wire, then librdkafka and Kafka's own
//! consumer, of whom it is looked up whom they have asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ottla_base::ErrorCode;
use ottla_protocol::Records;
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_protocol::messages::fetch_response::PartitionData;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::SETTLE_LIMIT;
use super::ask::Caller;
use super::client::{Client, Direct, write_many};
use super::nodes::{Cluster, properties};
use crate::broker::Target;
use crate::process::run_ok;
use crate::{interop, kafka};

const TOPIC: &str = "racks";
const SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const RECORDS: i32 = 20_000;
const VALUE: [u8; 500] = [b'v'; 500];
const READ_LIMIT: Duration = Duration::from_secs(60);
const LEADER: i32 = 1;

/// Which rack a node is in.
fn rack(node: i32) -> &'static str {
    match node {
        1 => "a",
        2 => "b",
        _ => "c",
    }
}

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    let more =
        |node| properties(&[("broker.rack", rack(node)), ("replica.selector.class", SELECTOR)]);
    let mut cluster = Cluster::start_with(target, directory, more)?;
    cluster.explaining(|cluster| try_all(target, cluster, directory))
}

fn try_all(target: Target, cluster: &mut Cluster, directory: &Path) -> Result<()> {
    cluster.create_assigned(TOPIC, &[vec![1, 2, 3]])?;
    write_many(cluster, TOPIC, &VALUE, usize::try_from(RECORDS)?, READ_LIMIT)?;
    on_the_wire(cluster)?;
    promptness(target, cluster)?;
    librdkafka(cluster)?;
    java(cluster, directory)
}

/// What is asked of one node; versions before 11 have no rack.
#[derive(Debug, Clone, Copy)]
struct Question {
    node: i32,
    version: i16,
    rack: &'static str,
    offset: i64,
    wait: Duration,
}

impl Question {
    fn of(node: i32, rack: &'static str, offset: i64) -> Self {
        Self { node, version: 12, rack, offset, wait: Duration::ZERO }
    }

    fn ask(self, cluster: &Cluster) -> Result<PartitionData> {
        self.ask_at(&cluster.address_of(self.node)?)
    }

    fn ask_at(self, address: &str) -> Result<PartitionData> {
        let partition = FetchPartition {
            partition: 0,
            fetch_offset: self.offset,
            partition_max_bytes: 4_096,
            ..FetchPartition::default()
        };
        let topic = TOPIC.into();
        let request = FetchRequest {
            max_wait_ms: i32::try_from(self.wait.as_millis())?,
            min_bytes: 1,
            rack_id: self.rack.into(),
            topics: vec![FetchTopic { topic, partitions: vec![partition], ..Default::default() }],
            ..FetchRequest::default()
        };
        let mut caller = Caller::open(address, self.wait + Duration::from_secs(5))?;
        let answer = caller.call(self.version, &request)?;
        ensure!(answer.error_code == ErrorCode::NONE, "Fetch: {:?}", answer.error_code);
        let mut partitions = answer.responses.into_iter().flat_map(|it| it.partitions);
        partitions.next().context("Fetch tells of no partition")
    }
}

fn bytes(answer: &PartitionData) -> usize {
    match &answer.records {
        Some(Records::Bytes(bytes)) => bytes.len(),
        Some(Records::Deferred { .. }) | None => 0,
    }
}

/// Whom the answer names, and whether it has records.
fn gist(answer: &PartitionData) -> (ErrorCode, i32, bool) {
    (answer.error_code, answer.preferred_read_replica, bytes(answer) > 0)
}

const NOBODY: i32 = -1;

fn on_the_wire(cluster: &mut Cluster) -> Result<()> {
    let end = i64::from(RECORDS);
    cluster.until("followers that have everything", SETTLE_LIMIT, |cluster| {
        let answer = Question::of(LEADER, "b", end).ask(cluster)?;
        Ok((answer.preferred_read_replica == 2).then_some(()))
    })?;
    cluster.until("a follower that shows everything", SETTLE_LIMIT, |cluster| {
        Ok((Question::of(2, "b", 0).ask(cluster)?.high_watermark == end).then_some(()))
    })?;
    let of = Question::of;
    let none = ErrorCode::NONE;
    let old = |node| Question { version: 10, rack: "", ..of(node, "", 0) };
    let expected = [
        ("the leader, of a rack with a follower", of(LEADER, "b", 0), (none, 2, false)),
        ("the leader, of another such rack", of(LEADER, "c", 7), (none, 3, false)),
        ("the leader, of its own rack", of(LEADER, "a", 0), (none, NOBODY, true)),
        ("the leader, of a rack where nobody is", of(LEADER, "z", 0), (none, NOBODY, true)),
        ("the leader, of no rack", of(LEADER, "", 0), (none, NOBODY, true)),
        ("the leader, in a version without racks", old(LEADER), (none, NOBODY, true)),
        ("a follower, of its rack", of(2, "b", 0), (none, NOBODY, true)),
        ("a follower, of another rack", of(3, "b", 0), (none, NOBODY, true)),
        ("a follower, of no rack", of(2, "", 0), (none, NOBODY, true)),
        ("a follower, at its end", of(2, "b", end), (none, NOBODY, false)),
        (
            "a follower, beyond its end",
            of(2, "b", end + 1),
            (ErrorCode::OFFSET_OUT_OF_RANGE, NOBODY, false),
        ),
        (
            "the leader, beyond its end",
            of(LEADER, "b", end + 1),
            (ErrorCode::OFFSET_OUT_OF_RANGE, NOBODY, false),
        ),
        (
            "a follower, in a version without racks",
            old(2),
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, NOBODY, false),
        ),
    ];
    for (what, question, expected) in expected {
        let answer = question.ask(cluster)?;
        ensure!(gist(&answer) == expected, "{what}: {:?}, not {expected:?}", gist(&answer));
    }
    println!("on the wire: all as it should be");
    Ok(())
}

/// How long a reader of a follower waits for a record that is acknowledged.
fn promptness(target: Target, cluster: &mut Cluster) -> Result<()> {
    let mut writer = Direct::new(TOPIC, cluster.addresses());
    let follower = cluster.address_of(2)?;
    let mut times = Vec::new();
    for nth in 0..5 {
        let wait = Duration::from_secs(5);
        let end = i64::from(RECORDS) + nth;
        let question = Question { wait, ..Question::of(2, "b", end) };
        let took = thread::scope(|scope| {
            let reading = scope.spawn(|| (question.ask_at(&follower), Instant::now()));
            writer.write(0, READ_LIMIT)?;
            let written = Instant::now();
            let Ok((answer, read)) = reading.join() else { bail!("the reader panicked") };
            ensure!(bytes(&answer?) > 0, "nothing was read in {wait:?}");
            Ok(read.saturating_duration_since(written))
        })?;
        times.push(took);
    }
    times.sort_unstable();
    println!("from an acknowledgement to the follower's reader: {times:?}");
    let median = times.get(2).copied().unwrap_or_default();
    // Apache Kafka's follower may hear of it only when its fetch has waited for half a second.
    let bound = Duration::from_millis(if target == Target::Kafka { 1_000 } else { 250 });
    ensure!(median < bound, "the median is {median:?}");
    Ok(())
}

/// Bytes that librdkafka has received, by node.
#[derive(Debug, Default)]
struct Received(Mutex<BTreeMap<i32, u64>>);

impl ClientContext for Received {
    fn stats(&self, statistics: Statistics) {
        let brokers = statistics.brokers.into_values();
        let received = brokers.map(|it| (it.nodeid, it.rxbytes)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = received;
    }
}

impl ConsumerContext for Received {}

fn librdkafka(cluster: &Cluster) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap()).set("group.id", "none");
    config.set("client.rack", rack(2)).set("statistics.interval.ms", "200");
    // Small answers, so that there are many of them after the first.
    config.set("fetch.message.max.bytes", "65536");
    let consumer: BaseConsumer<Received> = config.create_with_context(Received::default())?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + READ_LIMIT;
    let mut read = 0;
    while read < RECORDS {
        ensure!(Instant::now() < deadline, "{read} of {RECORDS} records read");
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            record?;
            read += 1;
        }
    }
    let most = u64::try_from(RECORDS)? * VALUE.len() as u64 * 9 / 10;
    loop {
        ensure!(Instant::now() < deadline, "received, by node: {:?}", consumer.context().0);
        consumer.poll(Duration::from_millis(100));
        let received = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
        if received.get(&2).is_some_and(|bytes| *bytes > most) {
            println!("librdkafka has received, by node: {:?}", *received);
            return Ok(());
        }
    }
}

const DEBUG_LOG: &str = "\
status = warn
appender.console.type = Console
appender.console.name = OUT
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %m%n
rootLogger.level = debug
rootLogger.appenderRef.console.ref = OUT
";

fn java(cluster: &Cluster, directory: &Path) -> Result<()> {
    let logging = directory.join("log4j2.properties");
    fs::write(&logging, DEBUG_LOG)?;
    let mut command = kafka::java_tools(&interop::fetch::kafka_jars()?, directory);
    command.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    let (bootstrap, count) = (cluster.bootstrap(), RECORDS.to_string());
    command.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
    command.args(["--bootstrap-server", &bootstrap, "--topic", TOPIC, "--from-beginning"]);
    command.args(["--max-messages", &count, "--timeout-ms", "30000"]);
    for property in ["client.rack=c", "max.partition.fetch.bytes=262144"] {
        command.args(["--command-property", property]);
    }
    let done = run_ok(command, b"", READ_LIMIT)?;
    let read = done.stdout_text().lines().count();
    ensure!(read == usize::try_from(RECORDS)?, "Kafka's consumer has read {read} records");
    let said = done.stderr_text();
    let asked = |node: i32| {
        let whom = format!("(id: {node} rack: ");
        let is_fetch = |line: &&str| line.contains("FetchRequest") && line.contains("Sending");
        said.lines().filter(is_fetch).filter(|line| line.contains(&whom)).count()
    };
    let [leader, nearest] = [LEADER, 3].map(asked);
    println!("Kafka's consumer has asked the leader {leader} times, and its neighbour {nearest}");
    ensure!(nearest > leader, "it was to ask its neighbour");
    Ok(())
}
