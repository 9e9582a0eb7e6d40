//! The clients that write and read while faults happen: what they have in common, and librdkafka's, each in a thread of
//! its own (shell). The others are [`super::recorder`]'s.
//!
//! Producers with acks=all, of librdkafka's one idempotent and one not; a consumer that follows all partitions; a member of a
//! group that commits what it has read, and with librdkafka's a guest, who comes and goes. They note what they are told and judge little: [`super::ledger`] does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ottla_base::ErrorCode;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};

use super::SETTLE_LIMIT;
use super::kinds::Kind;
use super::ledger::{Acknowledged, Read, Record, Writer};
use super::members::Membership;
use super::recorder;
use super::told::{Complaint, Complaints, Role};

const POLL: Duration = Duration::from_millis(20);
const ASK_LIMIT: Duration = Duration::from_secs(20);
const IN_FLIGHT_MAX: i32 = 2_000;
/// A client that tries again soon, and forever: the limits are on what the cluster may take, not on it.
const CLIENT: &[(&str, &str)] = &[
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.ms", "20"),
    ("reconnect.backoff.max.ms", "500"),
];
const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("linger.ms", "5"),
    ("request.timeout.ms", "5000"),
    ("message.timeout.ms", "120000"),
    ("retry.backoff.ms", "50"),
    ("retry.backoff.max.ms", "500"),
];

/// What the clients have in common, and how they are told to end.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) bootstrap: String,
    pub(super) topic: &'static str,
    pub(super) partitions: i32,
    /// Records per second and producer.
    pub(super) rate: u32,
    /// Where programs write their logs.
    pub(super) directory: PathBuf,
    acknowledged: BTreeMap<Writer, Arc<AtomicU64>>,
    told: Mutex<Complaints>,
    written: AtomicBool,
    /// Up to where the consumers read, once nothing more is written.
    ends: OnceLock<BTreeMap<i32, i64>>,
    abandoned: AtomicBool,
}

/// What a producer noted.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) acknowledged: Vec<Acknowledged>,
    pub(super) sent: u64,
}

/// Dropped, all clients end, whatever they were doing.
#[derive(Debug)]
pub(super) struct AbandonOnDrop<'a>(&'a Load);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Load {
    pub(super) fn new(
        bootstrap: String,
        topic: &'static str,
        partitions: i32,
        rate: u32,
        directory: PathBuf,
        kinds: &[Kind],
    ) -> Self {
        let writers = kinds.iter().flat_map(|kind| kind.writers());
        Self {
            bootstrap,
            topic,
            partitions,
            rate,
            directory,
            acknowledged: writers.map(|writer| (*writer, Arc::default())).collect(),
            told: Mutex::default(),
            written: AtomicBool::new(false),
            ends: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    pub(super) fn abandon_on_drop(&self) -> AbandonOnDrop<'_> {
        AbandonOnDrop(self)
    }

    /// How many records of each producer were acknowledged so far.
    pub(super) fn acknowledged(&self) -> BTreeMap<Writer, u64> {
        let count =
            |(writer, count): (&Writer, &Arc<AtomicU64>)| (*writer, count.load(Ordering::Relaxed));
        self.acknowledged.iter().map(count).collect()
    }

    /// Counts one that is acknowledged.
    pub(super) fn count(&self, writer: Writer) {
        if let Some(count) = self.acknowledged.get(&writer) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A consumer of this kind was told of an error.
    pub(super) fn note(&self, kind: Kind, role: Role, complaint: Complaint) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.note(kind.name(), role, complaint);
    }

    /// Of what consumers were told.
    pub(super) fn into_told(self) -> Complaints {
        self.told.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the groups that take part, any of them in turn.
    pub(super) fn a_group(&self, turn: i32) -> &'static str {
        let is_there =
            |kind: &Kind| kind.writers().iter().any(|it| self.acknowledged.contains_key(it));
        let groups: Vec<_> = Kind::ALL.into_iter().filter(is_there).map(Kind::group).collect();
        let turn = usize::try_from(turn).unwrap_or_default() % groups.len().max(1);
        groups.get(turn).copied().unwrap_or_default()
    }

    /// The producers finish what they have begun.
    pub(super) fn end_writing(&self) {
        self.written.store(true, Ordering::Relaxed);
    }

    /// The consumers go on to here, and end.
    pub(super) fn end_reading(&self, ends: BTreeMap<i32, i64>) {
        self.ends.set(ends).ok();
    }

    pub(super) fn is_written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn ends(&self) -> Option<&BTreeMap<i32, i64>> {
        self.ends.get()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in CLIENT.iter().chain(settings) {
            config.set(*name, *value);
        }
        config
    }

    /// Writes until [`Load::end_writing`], and until all of it is acknowledged.
    pub(super) fn write(&self, kind: Kind, writer: Writer) -> Result<Written> {
        match kind {
            Kind::Librdkafka => self.write_with_librdkafka(writer),
            Kind::Java | Kind::FranzGo => recorder::write(self, kind, writer),
        }
    }

    /// Reads all partitions from their beginning to [`Load::end_reading`].
    pub(super) fn read(&self, kind: Kind) -> Result<Vec<Read>> {
        match kind {
            Kind::Librdkafka => self.read_with_librdkafka("follower"),
            Kind::Java | Kind::FranzGo => recorder::read(self, kind),
        }
    }

    /// Takes part in a group, and commits again and again.
    pub(super) fn take_part(&self, kind: Kind) -> Result<Membership> {
        match kind {
            Kind::Librdkafka => self.take_part_with_librdkafka(),
            Kind::Java | Kind::FranzGo => recorder::take_part(self, kind),
        }
    }

    fn write_with_librdkafka(&self, writer: Writer) -> Result<Written> {
        let mut config = self.config(PRODUCER);
        match writer {
            Writer::Idempotent => config.set("enable.idempotence", "true"),
            // With several requests in flight a retry may overtake: nobody promises an order then.
            _ => config.set("max.in.flight", "1"),
        };
        let count = self.acknowledged.get(&writer).context("a producer of this load")?;
        let notes = Notes::new(writer, count);
        let producer: BaseProducer<Notes> = config.create_with_context(notes)?;
        let started = Instant::now();
        let mut number = 0;
        while !self.is_written() && !self.is_abandoned() {
            let due = u64::try_from(started.elapsed().as_millis())? * u64::from(self.rate) / 1000;
            while number < due && producer.in_flight_count() < IN_FLIGHT_MAX {
                self.send(&producer, Record { writer, number })?;
                number += 1;
            }
            producer.poll(POLL);
        }
        if !self.is_abandoned() {
            let flushed = producer.flush(SETTLE_LIMIT);
            flushed.with_context(|| format!("the {} producer can't finish", writer.name()))?;
        }
        producer.context().written(number)
    }

    fn send(&self, producer: &BaseProducer<Notes>, record: Record) -> Result<()> {
        let (number, value) = (usize::try_from(record.number)?, record.value());
        let mut next = BaseRecord::<(), _, _>::with_opaque_to(self.topic, number)
            .partition(record.partition(self.partitions))
            .payload(&value);
        while let Err((error, unsent)) = producer.send(next) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            ensure!(is_full, "the {} producer can't go on: {error}", record.writer.name());
            producer.poll(POLL);
            next = unsent;
        }
        Ok(())
    }

    pub(super) fn read_with_librdkafka(&self, who: &str) -> Result<Vec<Read>> {
        let consumer = self.reader(who)?;
        let mut reads = Vec::new();
        self.poll(&consumer, Role::Reader, &format!("the {who}"), BTreeMap::new, |message| {
            reads.push(read_of(message));
            Ok(())
        })?;
        Ok(reads)
    }

    /// A consumer of all partitions from their beginning, that is told when its offset is out of range.
    fn reader(&self, group: &str) -> Result<BaseConsumer> {
        let settings = [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("fetch.wait.max.ms", "100"),
        ];
        let consumer: BaseConsumer = self.config(&settings).create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..self.partitions {
            all.add_partition_offset(self.topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        Ok(consumer)
    }

    /// Polls until all that was written is read, by this consumer or elsewhere.
    pub(super) fn poll<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        role: Role,
        who: &str,
        elsewhere: impl Fn() -> BTreeMap<i32, i64>,
        mut see: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut positions, mut deadline) = (BTreeMap::new(), None);
        while !self.is_abandoned() {
            let polled = self.polled(consumer, role).with_context(|| who.to_owned())?;
            if let Some(message) = polled {
                let next = message.offset() + 1;
                raise(&mut positions, message.partition(), next);
                see(&message)?;
            }
            let Some(ends) = self.ends.get() else { continue };
            for (partition, offset) in elsewhere() {
                raise(&mut positions, partition, offset);
            }
            if has_reached(&positions, ends) {
                break;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + SETTLE_LIMIT);
            ensure!(Instant::now() < deadline, "{who} stands at {positions:?} of {ends:?}");
        }
        Ok(())
    }

    /// The next message. Brokers that can't be reached are no error while they are away on purpose; an offset that is out
    /// of range is one always.
    pub(super) fn polled<'a, C: ConsumerContext>(
        &self,
        consumer: &'a BaseConsumer<C>,
        role: Role,
    ) -> Result<Option<BorrowedMessage<'a>>> {
        match consumer.poll(POLL) {
            Some(Ok(message)) => return Ok(Some(message)),
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                bail!("was told that its offset is out of range")
            }
            Some(Err(error)) => self.note(Kind::Librdkafka, role, complaint(&error)),
            None => {}
        }
        Ok(None)
    }

    /// What a group's coordinator says that was committed, by partition.
    pub(super) fn ask_committed(&self, group: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer = self.reader(group)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(self.topic, partition);
        }
        let found = consumer.committed_offsets(list, ASK_LIMIT)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { -1 };
        let elements = found.elements();
        Ok(elements.iter().map(|it| (it.partition(), offset(it.offset()))).collect())
    }

    /// Where the partitions end, all of which begin at 0.
    pub(super) fn ask_ends(&self) -> Result<BTreeMap<i32, i64>> {
        let consumer = self.reader("asking")?;
        let mut ends = BTreeMap::new();
        for partition in 0..self.partitions {
            let (low, high) = consumer.fetch_watermarks(self.topic, partition, ASK_LIMIT)?;
            ensure!(low == 0, "{}-{partition} begins at {low}", self.topic);
            ends.insert(partition, high);
        }
        Ok(ends)
    }
}

pub(super) fn raise(offsets: &mut BTreeMap<i32, i64>, partition: i32, offset: i64) {
    let known = offsets.entry(partition).or_default();
    *known = offset.max(*known);
}

fn has_reached(positions: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> bool {
    let position = |partition| positions.get(partition).copied().unwrap_or_default();
    ends.iter().all(|(partition, end)| position(partition) >= *end)
}

/// What librdkafka has been told: Kafka's codes are its, and what has not come from a broker has negative ones.
pub(super) fn complaint(error: &KafkaError) -> Complaint {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            // It does not know the coordinator yet, or any more.
            | RDKafkaErrorCode::WaitingForCoordinator,
        ) => Complaint::Unreachable,
        // A rebalance has taken the partitions that it commits for.
        Some(RDKafkaErrorCode::AssignmentLost) => {
            Complaint::Answer(ErrorCode::REBALANCE_IN_PROGRESS)
        }
        Some(code) if code as i32 > 0 => {
            Complaint::numbered(i16::try_from(code as i32).unwrap_or(-1), &error.to_string())
        }
        _ => Complaint::Other(error.to_string()),
    }
}

fn read_of(message: &BorrowedMessage<'_>) -> Read {
    Read {
        partition: message.partition(),
        offset: message.offset(),
        record: Record::from_value(message.payload().unwrap_or_default()),
    }
}

/// Where a producer's answers go: librdkafka calls it from [`BaseProducer::poll`].
#[derive(Debug)]
struct Notes {
    writer: Writer,
    count: Arc<AtomicU64>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<Acknowledged>,
    given_up: Vec<(Record, String)>,
}

impl Notes {
    fn new(writer: Writer, count: &Arc<AtomicU64>) -> Self {
        Self { writer, count: Arc::clone(count), told: Mutex::default() }
    }

    /// What was acknowledged. With one node away at most, and two minutes of time, nothing may be given up.
    fn written(&self, sent: u64) -> Result<Written> {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((record, error)) = told.given_up.first() {
            bail!("{} records were given up, the first {record}: {error}", told.given_up.len());
        }
        Ok(Written { acknowledged: told.acknowledged, sent })
    }
}

impl ClientContext for Notes {}

impl ProducerContext for Notes {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let record =
            Record { writer: self.writer, number: u64::try_from(number).unwrap_or_default() };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                let partition = message.partition();
                told.acknowledged.push(Acknowledged { partition, offset, record });
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => told.given_up.push((record, error.to_string())),
        }
    }
}
