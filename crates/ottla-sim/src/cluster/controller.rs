//! The active controller: the real decisions, on one log of metadata. Where it is, it has that node's clock.
//!
//! Whatever it decides is committed at once. When its node stops or is left alone, another one takes over: it knows what was
//! committed, and begins with no idea of who is alive.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Offset, PartitionIndex, TopicId, Uuid};
use ottla_metadata::controller::{
    self, BrokerEpoch, Draw, Liveness, Outcome, Policy, Rounds, Situation,
};
use ottla_metadata::{Image, MetadataRecord, Partition, feature};
use ottla_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
};
use ottla_protocol::records::PartitionChangeRecord;

use super::Bug;
use super::network::{Body, Key, Place};
use super::node::Process;
use super::world::{Event, World};
use crate::law::{Checked, law};

/// Records that came to be together.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) records: Vec<MetadataRecord>,
    /// The offset of the last of them.
    pub(super) last: Offset,
}

#[derive(Debug)]
pub(super) struct Controller {
    pub(super) image: Image,
    pub(super) commits: Vec<Commit>,
    next_offset: Offset,
    policy: Policy,
    liveness: Liveness,
    rounds: Rounds,
    /// The node that it is on, while there is one.
    pub(super) host: Option<usize>,
    pub(super) host_life: u64,
    failover_is_due: bool,
    /// Where it was last.
    last_host: Option<usize>,
    /// From whom to whom each partition has gone last.
    turns: BTreeMap<Key, (BrokerId, BrokerId)>,
}

/// How long a broker may be silent.
pub(super) const SESSION: Duration = Duration::from_millis(1_500);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(40);

pub(super) struct Drawn {
    pub(super) id: TopicId,
    pub(super) seed: u64,
}

impl Draw for Drawn {
    fn topic_id(&mut self) -> TopicId {
        self.id
    }

    fn placement_seed(&mut self) -> u64 {
        self.seed
    }
}

impl Controller {
    pub(super) fn new() -> Self {
        let policy = Policy {
            broker_session_timeout: SESSION,
            leader_balance_interval: Some(Duration::from_secs(6)),
            unclean_election_interval: Duration::from_secs(3),
            ..Policy::default()
        };
        let image = Image::new("cluster");
        let mut controller = Self {
            liveness: Liveness::new(&image, &policy, Duration::ZERO),
            rounds: Rounds::new(&policy, Duration::ZERO),
            image,
            commits: Vec::new(),
            next_offset: Offset(0),
            policy,
            host: None,
            host_life: 0,
            failover_is_due: false,
            last_host: None,
            turns: BTreeMap::new(),
        };
        let records =
            controller::format(&controller.image, &controller.policy, &BTreeMap::new()).records;
        controller.append(records);
        controller
    }

    fn append(&mut self, records: Vec<MetadataRecord>) {
        for record in &records {
            self.image.apply(record).unwrap();
        }
        self.next_offset = self.next_offset + records.len() as i64;
        let last = self.next_offset + -1;
        self.image.offset = last;
        self.commits.push(Commit { records, last });
    }

    fn take_over(&mut self, host: usize, id: BrokerId, life: u64, now: Duration) {
        (self.host, self.host_life) = (Some(host), life);
        self.last_host = self.host;
        self.policy.node_id = id;
        self.liveness = Liveness::new(&self.image, &self.policy, now);
        self.rounds = Rounds::new(&self.policy, now);
    }
}

impl World {
    /// Whether a node is where the active controller is, and can act.
    pub(super) fn is_controller(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        self.controller.host == Some(at)
            && node.is_running()
            && node.life == self.controller.host_life
    }

    /// Decides something, if there is a controller to do so, and commits it.
    pub(super) fn decide<T>(
        &mut self,
        decision: impl FnOnce(&mut Liveness, &mut Rounds, Situation<'_>) -> Outcome<T>,
    ) -> Checked<Option<T>> {
        let Some(host) = self.controller.host.filter(|host| self.is_controller(*host)) else {
            return Ok(None);
        };
        let now = self.nodes[host].time(self.now);
        let Controller { image, policy, liveness, rounds, next_offset, .. } = &mut self.controller;
        let situation = Situation { image, policy, next_offset: *next_offset, now };
        let outcome = decision(liveness, rounds, situation);
        if !outcome.records.is_empty() {
            self.commit(outcome.records)?;
        }
        Ok(Some(outcome.reply))
    }

    pub(super) fn commit(&mut self, records: Vec<MetadataRecord>) -> Checked {
        let before = self.controller.image.clone();
        self.note(|| format!("commit {records:?}"));
        self.controller.append(records);
        self.controller.image.check();
        self.check_commit(&before)?;
        self.spread_metadata();
        Ok(())
    }

    /// Everybody is told how far the log goes; who misses it is told again at the next tick.
    fn spread_metadata(&mut self) {
        let Some(host) = self.controller.host else { return };
        let end = self.controller.commits.len();
        for at in 0..self.nodes.len() {
            let is_behind = self.nodes[at].process.as_ref().is_some_and(|it| it.applied < end);
            if is_behind {
                self.send(Place::Node(host), Place::Node(at), Body::Metadata(end));
            }
        }
    }

    pub(super) fn control(&mut self) -> Checked {
        self.after(TICK, Event::Control);
        let Some(host) = self.controller.host.filter(|host| self.is_controller(*host)) else {
            if !self.controller.failover_is_due {
                self.controller.failover_is_due = true;
                let delay = Duration::from_millis(200 + self.chance.below(800) as u64);
                self.after(delay, Event::Failover);
            }
            return Ok(());
        };
        let now = self.nodes[host].time(self.now);
        if self.controller.liveness.deadline().is_some_and(|deadline| deadline <= now) {
            let silent = self.decide(|liveness, _, situation| liveness.on_deadline(situation))?;
            for _ in silent.into_iter().flatten() {
                self.counts.add("broker fenced");
            }
        }
        let image = &self.controller.image;
        if self.controller.rounds.deadline(image).is_some_and(|deadline| deadline <= now) {
            let grown = self.decide(|_, rounds, situation| rounds.on_deadline(situation))?;
            if grown.flatten().is_some() {
                self.counts.add("topic of the cluster's own got its copies");
            }
        }
        self.spread_metadata();
        Ok(())
    }

    /// Somebody who reaches a majority becomes the active controller.
    pub(super) fn fail_over(&mut self) -> Checked {
        self.controller.failover_is_due = false;
        let count = self.nodes.len();
        let reaches = |at: usize, other: usize| {
            let (at, other) = (Place::Node(at), Place::Node(other));
            !self.network.is_cut(at, other) && !self.network.is_cut(other, at)
        };
        let is_running = |at: &usize| self.nodes[*at].is_running();
        let can_lead = |at: &usize| {
            let reached = (0..count).filter(|other| reaches(*at, *other)).filter(is_running);
            is_running(at) && reached.count() * 2 > count
        };
        let able: Vec<usize> = (0..count).filter(can_lead).collect();
        let Some(host) = self.chance.pick(&able).copied() else {
            self.controller.host = None;
            return Ok(());
        };
        if self.controller.last_host.is_some_and(|last| last != host) {
            self.counts.add("controller failed over");
        }
        let (now, id, life) =
            (self.nodes[host].time(self.now), self.nodes[host].id, self.nodes[host].life);
        self.note(|| format!("controller on {id:?}"));
        self.controller.take_over(host, id, life, now);
        self.spread_metadata();
        Ok(())
    }

    /// A broker that starts makes itself known.
    pub(super) fn register(&mut self, at: usize) -> Checked<Option<Result<i64, ErrorCode>>> {
        let node = &self.nodes[at];
        let Some(process) = &node.process else { return Ok(None) };
        let request = BrokerRegistrationRequest {
            broker_id: node.id.0,
            cluster_id: "cluster".into(),
            incarnation_id: process.incarnation,
            features: feature::of_registration(),
            log_dirs: vec![node.directory_id],
            previous_broker_epoch: self.previous_epoch(process, node.id),
            ..Default::default()
        };
        self.decide(|liveness, _, situation| match liveness.on_registration(situation, &request) {
            Ok(Outcome { records, reply: BrokerEpoch(epoch) }) => {
                Outcome { records, reply: Ok(epoch) }
            }
            Err(rejection) => Outcome::unchanged(Err(rejection.code)),
        })
    }

    /// The epoch in which the process before this one ended cleanly, as this one says; −1 if it did not.
    fn previous_epoch(&self, process: &Process, id: BrokerId) -> i64 {
        let ended = process.directory.previous_broker_epoch();
        let registered = || self.controller.image.broker(id).map(|broker| broker.epoch);
        let hidden = (self.bug == Some(Bug::UncleanEndHidden)).then(registered).flatten();
        ended.or(hidden).unwrap_or(-1)
    }

    pub(super) fn hear_heartbeat(
        &mut self,
        request: &BrokerHeartbeatRequest,
    ) -> Checked<Option<Body>> {
        let reply = self.decide(|liveness, _, situation| {
            match liveness.on_heartbeat(situation, request) {
                Ok(Outcome { records, reply }) => Outcome { records, reply: Ok(reply) },
                Err(rejection) => Outcome::unchanged(Err(rejection.code)),
            }
        })?;
        Ok(reply.map(Body::Beaten))
    }

    /// The connection of a process that ends is cut, which the controller learns where it can.
    pub(super) fn lose_connection(&mut self, at: usize, epoch: Option<i64>) {
        let Some(host) = self.controller.host.filter(|host| self.is_controller(*host)) else {
            return;
        };
        let is_cut = self.network.is_cut(Place::Node(at), Place::Node(host));
        if let Some(epoch) = epoch.filter(|_| !is_cut) {
            let (now, id) = (self.nodes[host].time(self.now), self.nodes[at].id);
            self.controller.liveness.on_connection_lost(id, BrokerEpoch(epoch), now);
        }
    }

    pub(super) fn alter(
        &mut self,
        request: &AlterPartitionRequest,
    ) -> Checked<Option<AlterPartitionResponse>> {
        if self.bug == Some(Bug::StaleLeaderAccepted) {
            self.believe(request)?;
        }
        let response = self.decide(|_, _, Situation { image, policy, .. }| {
            controller::alter_partition(image, policy, request, 3)
        })?;
        if let Some(response) = &response {
            self.count_alter(response);
        }
        Ok(response)
    }

    /// Takes the word of whoever has led once.
    fn believe(&mut self, request: &AlterPartitionRequest) -> Checked {
        let wanted = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |wanted| (topic.topic_id, wanted)));
        for (topic_id, wanted) in wanted {
            let index = PartitionIndex(wanted.partition_index);
            let now = self.controller.image.partition(topic_id, index);
            if now.is_some_and(|now| wanted.leader_epoch < now.leader_epoch.0) {
                let isr = wanted.new_isr_with_epochs.iter().map(|it| it.broker_id).collect();
                let change = PartitionChangeRecord {
                    partition_id: index.0,
                    topic_id,
                    isr: Some(isr),
                    ..Default::default()
                };
                self.commit(vec![change.into()])?;
            }
        }
        Ok(())
    }

    fn count_alter(&mut self, response: &AlterPartitionResponse) {
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<(ErrorCode, usize)> =
            partitions.map(|it| (it.error_code, it.isr.len())).collect();
        if response.error_code.is_error() {
            self.counts.add(format!("AlterPartition refused: {}", response.error_code));
        }
        for (code, members) in codes {
            match code {
                ErrorCode::NONE if members == 1 => self.counts.add("ISR of one"),
                ErrorCode::NONE => self.counts.add("another ISR"),
                code => self.counts.add(format!("AlterPartition refused: {code}")),
            }
        }
    }

    pub(super) fn incarnation(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(self.number()) << 32 | 1 << 20)
    }

    /// Nothing that a node says may make a broker lead that was not in sync, or that is not; and epochs rise.
    fn check_commit(&mut self, before: &Image) -> Checked {
        let image = self.controller.image.clone();
        for topic in image.topics() {
            for (index, now) in topic.partitions() {
                let name = format!("{}-{index}", topic.name);
                let Some(then) = before.partition(topic.id, index) else { continue };
                if now == then {
                    continue;
                }
                law!(
                    RisingEpochs,
                    now.leader_epoch >= then.leader_epoch
                        && now.partition_epoch > then.partition_epoch,
                    "{name}: epochs fall"
                );
                law!(
                    LeaderInSync,
                    now.leader == BrokerId::NONE || now.is_in_isr(now.leader),
                    "{name}: it is led by somebody who is not in sync: {now:?}"
                );
                if now.leader == then.leader {
                    continue;
                }
                law!(
                    RisingEpochs,
                    now.leader_epoch > then.leader_epoch,
                    "{name}: another leader, the same epoch"
                );
                if now.leader == BrokerId::NONE {
                    self.counts.add("nobody leads");
                    continue;
                }
                law!(
                    CleanElection,
                    may_lead(then, now),
                    "{name}: an unclean election that nobody asked for: {then:?}, then {now:?}"
                );
                if then.eligible_leader_replicas.contains(&now.leader) {
                    self.counts.add("leader from outside the ISR");
                }
                if now.leader_is_recovering {
                    self.counts.add("last leader leads again");
                    if self.is_cached {
                        self.model.give_up((topic.id, index), now.leader_epoch);
                        self.told.give_up((topic.id, index));
                    }
                }
                self.counts.add("leader elected");
                let key = (topic.id, index);
                self.note_turn(key, then.leader, now.leader);
                self.note_zombies(key, now);
                self.unstick();
            }
        }
        Ok(())
    }
}

impl World {
    /// One leads after the other and before it, and neither hears from the other.
    fn note_turn(&mut self, key: Key, from: BrokerId, to: BrokerId) {
        if from == BrokerId::NONE {
            return;
        }
        let before = self.controller.turns.insert(key, (from, to));
        let place = |id: BrokerId| Place::Node(id.0 as usize - 1);
        let (one, other) = (place(from), place(to));
        let is_apart = self.network.is_cut(one, other) && self.network.is_cut(other, one);
        if before == Some((to, from)) && is_apart {
            self.counts.add("two lead in turn");
        }
    }

    /// Whoever goes on to lead in an earlier epoch, and was silent for longer than its session, is one.
    fn note_zombies(&mut self, key: Key, elected: &Partition) {
        let image = &self.controller.image;
        for node in self.nodes.iter_mut().filter(|node| node.id != elected.leader) {
            let Some(process) = node.process.as_mut().filter(|it| !it.leaves) else { continue };
            let registered = image.broker(node.id).filter(|it| Some(it.epoch) == process.epoch);
            let replica = process.replicas.find(key.0, key.1.0);
            let led = replica.and_then(|replica| replica.led_epoch());
            if let Some(epoch) = led.filter(|epoch| *epoch < elected.leader_epoch)
                && registered.is_some_and(|broker| broker.fenced)
            {
                process.zombie_in.insert(key, epoch);
            }
        }
    }
}

/// Who may lead: a member of the ISR, one that joins it as its reassignment ends, whoever is eligible outside, or who led
/// last and says that it may lack something. Nobody asks for more here.
fn may_lead(then: &Partition, now: &Partition) -> bool {
    let leader = now.leader;
    if now.leader_is_recovering {
        return then.last_known_elr == [leader];
    }
    let is_moved = then.is_moving() && !now.is_moving();
    then.is_in_isr(leader)
        || then.eligible_leader_replicas.contains(&leader)
        || is_moved && then.is_in_isr(then.leader) && now.is_in_isr(leader)
}
