//! Whoever produces, and whoever administers.

use std::cmp::Ordering;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Offset, PartitionIndex};
use ottla_metadata::controller::{self, ConfigChange, Operation, Situation, Via};
use ottla_metadata::{ConfigResource, topic_name};
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, CreateTopicsRequest,
    DeleteTopicsRequest, DeleteTopicsResponse, ElectLeadersRequest,
};
use ottla_records::ValidBatch;

use super::controller::Drawn;
use super::network::{Body, Place, Produce};
use super::publish::{MIN_ISR, min_insync_replicas};
use super::world::{Event, World};
use crate::Random;
use crate::law::{Checked, law};
use crate::log::batches::Draft;

/// The last is one of the cluster's own: with one replica it does not stay that way. Only coordinators write to it.
pub(super) const TOPICS: [&str; 3] = ["a", "b", topic_name::CONSUMER_OFFSETS];
pub(super) const PRODUCED: [&str; 2] = ["a", "b"];
const TIMEOUT: Duration = Duration::from_millis(1_200);

/// One producer: one batch at a time, sent again until it is known what became of it.
#[derive(Debug)]
pub(super) struct Client {
    /// Its id, epoch and next sequence number.
    producer: Option<(i64, i16, i32)>,
    needs_all: bool,
    pub(super) topic: &'static str,
    pub(super) partition: PartitionIndex,
    waiting: Option<Waiting>,
    /// The last batch of all is acknowledged.
    pub(super) has_said_last_words: bool,
    pub(super) stops: bool,
}

#[derive(Debug)]
struct Waiting {
    attempt: u64,
    attempts: u32,
    batch: ValidBatch,
    records: i32,
}

impl Client {
    pub(super) fn new(at: usize, work: &mut Random) -> Self {
        let is_idempotent = at > 0 && at != HASTY && work.happens(6_000);
        Self {
            producer: is_idempotent.then_some((at as i64 + 1, 0, 0)),
            needs_all: at == 0 || at != HASTY && work.happens(7_000),
            topic: PRODUCED[at % PRODUCED.len()],
            partition: PartitionIndex(0),
            waiting: None,
            has_said_last_words: false,
            stops: false,
        }
    }

    /// Says one thing more, to one partition, until it is acknowledged.
    pub(super) fn last(topic: &'static str, partition: PartitionIndex) -> Self {
        Self {
            producer: None,
            needs_all: true,
            topic,
            partition,
            waiting: None,
            has_said_last_words: false,
            stops: false,
        }
    }
}

impl World {
    pub(super) fn act(&mut self, client: usize) -> Checked {
        let (number, now_ms) = (self.number(), 1_000_000 + self.now.as_millis() as i64);
        let (records, value_len) = (self.work.between(1, 3), self.work.below(150));
        let this = &mut self.clients[client];
        if this.stops || this.has_said_last_words {
            return Ok(());
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let draft = Draft {
                producer: this.producer,
                in_transaction: false,
                records,
                value_len,
                timestamp: now_ms,
                number,
                keys: None,
            };
            Waiting { attempt: 0, attempts: 0, batch: draft.build(), records: records as i32 }
        });
        (waiting.attempt, waiting.attempts) = (number, waiting.attempts + 1);
        let produce = Produce {
            client,
            attempt: number,
            topic: this.topic,
            partition: this.partition,
            batch: waiting.batch.clone(),
            needs_all: this.needs_all,
        };
        if let Some(leader) = self.leader_as_told(produce.topic, produce.partition) {
            let to = Place::Node(leader.0 as usize - 1);
            self.send(Place::Clients, to, Body::Produce(produce));
        }
        self.after(TIMEOUT, Event::ClientTimeout { client, attempt: number });
        Ok(())
    }

    /// What some broker says, which may not be so any more.
    fn leader_as_told(&mut self, topic: &str, partition: PartitionIndex) -> Option<BrokerId> {
        let at = self.work.below(self.nodes.len());
        let image = &self.nodes[at].process.as_ref()?.image;
        let partition = image.topic_by_name(topic)?.partition(partition)?;
        Some(partition.leader).filter(|leader| *leader != BrokerId::NONE)
    }

    pub(super) fn give_up(&mut self, client: usize, attempt: u64) -> Checked {
        let waiting = self.clients[client].waiting.as_ref();
        if waiting.is_some_and(|waiting| waiting.attempt == attempt) {
            self.counts.add("produce unanswered");
            return self.act(client);
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, body: Body) -> Checked {
        let (client, attempt, result) = match body {
            Body::Produced { client, attempt, result } => (client, attempt, result),
            Body::Answer { asker, result } => return self.hear_coordinator(asker, *result),
            _ => return Ok(()),
        };
        let pause = Duration::from_millis(5 + self.work.below(120) as u64);
        let this = &mut self.clients[client];
        let Some(waiting) = this.waiting.as_ref().filter(|it| it.attempt == attempt) else {
            return Ok(());
        };
        match result {
            Ok(Offset(_)) => {
                if let Some((_, _, sequence)) = &mut this.producer {
                    *sequence += waiting.records;
                }
                this.waiting = None;
                this.has_said_last_words = client >= FIRST_LAST;
                self.counts.add("produce answered");
            }
            Err(code) => self.on_refused(client, code),
        }
        self.after(pause, Event::Client(client));
        Ok(())
    }

    /// Most things are tried again; what is lost in the meantime makes a producer begin a new epoch.
    fn on_refused(&mut self, client: usize, code: ErrorCode) {
        let gives_up = self.work.happens(500);
        let this = &mut self.clients[client];
        let attempts = this.waiting.as_ref().map_or(0, |waiting| waiting.attempts);
        let is_lost = [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::INVALID_PRODUCER_EPOCH]
            .contains(&code);
        if client < FIRST_LAST && (is_lost && attempts > 3 || gives_up || attempts > 20) {
            if let Some((_, epoch, sequence)) = &mut this.producer {
                (*epoch, *sequence) = (*epoch + 1, 0);
            }
            this.waiting = None;
            self.counts.add("client gives up a batch");
        }
        if client < FIRST_LAST && code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            this.topic = PRODUCED[self.work.below(PRODUCED.len())];
        }
    }

    /// Creates, deletes, moves, elects.
    pub(super) fn administer(&mut self) -> Checked {
        let pause = 200 + self.work.below(1_300) as u64;
        if !self.is_healing {
            self.after(Duration::from_millis(pause), Event::Admin);
        }
        let topic = TOPICS[self.work.below(TOPICS.len())];
        let is_there = self.controller.image.topic_by_name(topic).is_some();
        match self.work.below(12) {
            _ if !is_there => self.create_topic(topic),
            0 => self.delete_topic(topic),
            1..4 => self.reassign(topic),
            4..6 => self.elect_preferred(),
            6..8 => self.let_two_lead_in_turn(topic),
            _ => self.change_min_isr(topic),
        }
    }

    /// What a topic asks of its ISR becomes more or less, while records are on their way.
    fn change_min_isr(&mut self, name: &str) -> Checked {
        let before = self.min_isr_of(name);
        let min_isr = [1, 1, 2, 2, 3][self.work.below(5)];
        let min_isr = Some(min_isr).filter(|_| self.work.happens(9_000));
        let operation = Operation {
            key: MIN_ISR.into(),
            code: if min_isr.is_some() { Operation::SET } else { Operation::DELETE },
            value: min_isr.map(|it| it.to_string().into()),
        };
        let change = ConfigChange {
            kind: ConfigResource::TOPIC,
            name: name.into(),
            operations: vec![operation],
            replaces_all: false,
        };
        let answers = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::alter_configs(image, policy, &[], &[change], Via::Controller, false)
        })?;
        let Some(answers) = answers else { return Ok(()) };
        let rejection = answers.into_iter().find_map(|answer| answer.rejection);
        law!(Reason, rejection.is_none(), "{MIN_ISR} of {name} cannot be changed: {rejection:?}");
        match self.min_isr_of(name).cmp(&before) {
            Ordering::Greater => {
                self.counts.add("min.insync.replicas raised");
                self.let_leader_learn_late(name);
            }
            Ordering::Less => self.counts.add("min.insync.replicas lowered"),
            Ordering::Equal => {}
        }
        Ok(())
    }

    /// By the time that it hears of a larger minimum, there may be a smaller ISR.
    fn let_leader_learn_late(&mut self, name: &str) {
        let topic = self.controller.image.topic_by_name(name);
        let Some(partition) = topic.and_then(|topic| topic.partition(PartitionIndex(0))) else {
            return;
        };
        let leader = Some(partition.leader).filter(|leader| *leader != BrokerId::NONE);
        let silent = partition.isr.iter().find(|member| **member != partition.leader).copied();
        if let Some(leader) = leader.filter(|_| !self.is_healing && self.work.happens(9_000)) {
            self.learn_late(leader.0 as usize - 1);
            if let Some(silent) = silent.filter(|_| self.work.happens(5_000)) {
                self.pause_for(silent.0 as usize - 1, Duration::from_millis(2_500));
            }
        }
    }

    fn min_isr_of(&self, name: &str) -> usize {
        let image = &self.controller.image;
        image.topic_by_name(name).map_or(1, |topic| min_insync_replicas(image, topic))
    }

    pub(super) fn create_topic(&mut self, name: &str) -> Checked {
        let factor = [3, 3, 3, 2, 1][self.work.below(5)];
        let min_isr = self.work.between(1, 2);
        let config =
            CreatableTopicConfig { name: MIN_ISR.into(), value: Some(min_isr.to_string().into()) };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: self.partitions_of(name) as i32,
            replication_factor: factor,
            configs: vec![config],
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let mut draw = Drawn { id: self.new_topic_id(), seed: self.work.draw() };
        let reply = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::create_topics(image, policy, &request, &mut draw)
        })?;
        if reply.is_some_and(|reply| !reply.topics[0].error_code.is_error()) {
            self.counts.add("topic created");
        }
        Ok(())
    }

    fn delete_topic(&mut self, name: &str) -> Checked {
        let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..Default::default() };
        let reply = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::delete_topics(image, policy, &request, 5)
        })?;
        let is_deleted = |reply: DeleteTopicsResponse| {
            reply.responses.iter().all(|topic| !topic.error_code.is_error())
        };
        if reply.is_some_and(is_deleted) {
            self.counts.add("topic deleted");
        }
        // Under the same name, there may soon be another one.
        if self.work.happens(5_000) { self.create_topic(name) } else { Ok(()) }
    }

    fn reassign(&mut self, name: &str) -> Checked {
        let mut ids: Vec<i32> = self.nodes.iter().map(|node| node.id.0).collect();
        self.work.shuffle(&mut ids);
        ids.truncate(1 + self.work.below(3));
        let replicas = (!self.work.happens(1_500)).then_some(ids);
        let count = self.partitions_of(name);
        let index = PartitionIndex(self.work.below(count) as i32);
        self.assign(name, index, replicas)
    }

    fn assign(&mut self, name: &str, index: PartitionIndex, replicas: Option<Vec<i32>>) -> Checked {
        let is_cancelled = replicas.is_none();
        let partitions = vec![ReassignablePartition { partition_index: index.0, replicas }];
        let topics = vec![ReassignableTopic { name: name.into(), partitions }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        let reply = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::alter_partition_reassignments(image, policy, &request)
        })?;
        let is_accepted = |reply: AlterPartitionReassignmentsResponse| {
            let mut partitions = reply.responses.iter().flat_map(|topic| &topic.partitions);
            !reply.error_code.is_error() && partitions.all(|it| !it.error_code.is_error())
        };
        if reply.is_some_and(is_accepted) {
            let what = if is_cancelled { "reassignment cancelled" } else { "reassignment" };
            self.counts.add(what);
        }
        Ok(())
    }

    /// Neither hears from the other, and both stay in sync: each has records by then that the other has not, in epochs that
    /// the other does not know.
    fn let_two_lead_in_turn(&mut self, name: &'static str) -> Checked {
        let index = PartitionIndex(self.work.below(self.partitions_of(name)) as i32);
        let topic = self.controller.image.topic_by_name(name);
        let Some(partition) = topic.and_then(|topic| topic.partition(index)) else {
            return Ok(());
        };
        let (one, mut members) = (partition.leader, partition.isr.iter());
        let Some(other) = members.find(|member| **member != one).copied() else { return Ok(()) };
        if self.is_healing || one == BrokerId::NONE {
            return Ok(());
        }
        let (from, to) = (one.0 as usize - 1, other.0 as usize - 1);
        self.network.links.cut(from, to);
        self.network.links.cut(to, from);
        if PRODUCED.contains(&name) {
            self.clients[HASTY].topic = name;
        }
        self.counts.add("two are to lead in turn");
        self.note(|| format!("{one:?} and {other:?} lead {name}-{index} in turn"));
        let mut delay = Duration::ZERO;
        for leader in [other, one, other, one].into_iter().take(self.work.between(2, 4) as usize) {
            delay += Duration::from_millis(60 + self.work.below(320) as u64);
            self.after(delay, Event::Prefer { topic: name, index, leader });
        }
        Ok(())
    }

    /// Somebody wants this broker to lead.
    pub(super) fn prefer(
        &mut self,
        topic: &str,
        index: PartitionIndex,
        leader: BrokerId,
    ) -> Checked {
        let found = self.controller.image.topic_by_name(topic);
        let Some(partition) = found.and_then(|topic| topic.partition(index)) else {
            return Ok(());
        };
        let is_possible = partition.replicas.contains(&leader) && !partition.is_moving();
        if self.is_healing || !is_possible {
            return Ok(());
        }
        let others = partition.replicas.iter().filter(|id| **id != leader);
        let replicas = std::iter::once(&leader).chain(others).map(|id| id.0).collect();
        self.assign(topic, index, Some(replicas))?;
        self.elect_preferred()
    }

    fn partitions_of(&self, topic: &str) -> usize {
        if topic == topic_name::CONSUMER_OFFSETS { self.group_partitions } else { 1 }
    }

    /// Of all partitions.
    fn elect_preferred(&mut self) -> Checked {
        let request = ElectLeadersRequest { topic_partitions: None, ..Default::default() };
        let reply = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::elect_leaders(image, policy, &request)
        })?;
        let results = reply.into_iter().flat_map(|reply| reply.replica_election_results);
        let partitions = results.flat_map(|topic| topic.partition_result);
        for _ in partitions.filter(|partition| !partition.error_code.is_error()) {
            self.counts.add("preferred election");
        }
        Ok(())
    }
}

/// It asks for acks=1, and goes where two lead in turn: records come to be there that are on one disk.
const HASTY: usize = 4;
/// Clients from here on come in the end, to see whether each partition takes records.
pub(super) const FIRST_LAST: usize = 5;
