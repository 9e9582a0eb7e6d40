//! Three brokers and one partition: logs on disks that lose what was not flushed, a network that delays, repeats and drops,
//! a controller, and clients that write to whoever believes to lead. After each event the laws are checked.
//!
//! The laws:
//! - what was below a high watermark once stays as it was, for ever: each leader's high watermark extends the same records;
//! - when it rises under the leader of the day, all of the ISR have these records on disk;
//! - within a leader epoch it never falls;
//! - whoever becomes the leader of the day has all of them;
//! - below its own high watermark each replica's log holds them;
//! - whoever the leader of the day takes for readable up to its high watermark has the log so far.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset, SplitMix64};
use ottla_replication::follower::{
    self, Answer, Failure, Fetch, FlushReport, Follower, LeaderOffsets, Start,
};
use ottla_replication::{
    Command, DOUBT, Fetched, FollowerFlushed, Leadership, Progress, Proposal, UNKNOWN_BROKER_EPOCH,
};

use super::controller::{Controller, Version};
use super::disk::{Disk, Record, offset, place};

const LAG_MAX: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_secs(1);
const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

/// What is wrong on purpose, to see whether the laws find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// What was fetched passes for flushed.
    FetchedIsFlushed,
    /// Whoever is proposed for the ISR counts only when the answer is here.
    JoinerDoesNotCount,
    /// Leaders do not compare epochs, so that nothing is cut off.
    NoTruncation,
    /// A follower reports what is on its disk before that is known to be what its leader has.
    ReportsBeforeComparing,
    /// A refusal of one copy of a proposal passes for one of all copies.
    BelievesRefusals,
}

#[derive(Debug)]
enum Role {
    None,
    Leader(Box<Progress>),
    Follower { follower: Box<Follower>, leader: BrokerId, asked: Option<u64> },
}

#[derive(Debug)]
struct Node {
    id: BrokerId,
    is_alive: bool,
    broker_epoch: i64,
    disk: Disk,
    role: Role,
    /// The version of the metadata that it knows.
    applied: usize,
    high_watermark: i64,
}

#[derive(Debug, Clone)]
enum Message {
    Fetch { broker_epoch: i64, number: u64, fetch: Fetch },
    Answer { to_epoch: i64, number: u64, fetch: Fetch, records: Vec<Record>, answer: Answered },
    Flushed { broker_epoch: i64, report: FlushReport },
}

#[derive(Debug, Clone, Copy)]
enum Answered {
    Records { high_watermark: Offset, log_start: Offset },
    Diverged(follower::EpochEnd),
    Refused(ErrorCode),
}

#[derive(Debug)]
struct Envelope {
    from: BrokerId,
    to: BrokerId,
    message: Message,
}

/// A leader's way to the controller, on which nothing overtakes.
#[derive(Debug)]
struct Alteration {
    from: BrokerId,
    broker_epoch: i64,
    proposal: Proposal,
}

#[derive(Debug)]
pub struct World {
    pub seen: BTreeMap<&'static str, usize>,
    random: SplitMix64,
    planted: Planted,
    min_insync_replicas: usize,
    now: Duration,
    nodes: Vec<Node>,
    network: Vec<Envelope>,
    alterations: VecDeque<Alteration>,
    /// Copies of proposals that were given up, and until when they may arrive.
    late: Vec<(Duration, Alteration)>,
    controller: Controller,
    /// All that was ever below a high watermark.
    committed: Vec<Record>,
    values: u64,
    fetches: u64,
}

pub type Checked = Result<(), String>;

macro_rules! law {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

impl World {
    pub fn new(seed: u64, planted: Planted) -> Self {
        let mut random = SplitMix64::new(seed);
        let min_insync_replicas = 1 + random.below(2);
        let controller = Controller::new(&BROKERS);
        let node = |id: BrokerId| Node {
            id,
            is_alive: true,
            broker_epoch: controller.now().brokers[&id].broker_epoch,
            disk: Disk::default(),
            role: Role::None,
            applied: 0,
            high_watermark: 0,
        };
        let mut world = Self {
            seen: BTreeMap::new(),
            random,
            planted,
            min_insync_replicas,
            now: Duration::from_secs(100),
            nodes: BROKERS.map(node).into(),
            network: Vec::new(),
            alterations: VecDeque::new(),
            late: Vec::new(),
            controller,
            committed: Vec::new(),
            values: 0,
            fetches: 0,
        };
        for at in 0..3 {
            world.take_role(at);
        }
        world
    }

    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn at(id: BrokerId) -> usize {
        usize::try_from(id.0).unwrap() - 1
    }

    /// One event, whatever comes next.
    pub fn step(&mut self) -> Checked {
        self.now += Duration::from_millis(self.random.below(300) as u64);
        let at = self.random.below(3);
        match self.random.below(100) {
            0..25 => self.deliver()?,
            25..40 => self.write(at)?,
            40..55 => self.flush(at)?,
            55..75 => self.ask(at),
            75..82 => self.learn(at)?,
            82..88 => self.alter()?,
            88..93 => self.pass_time(at)?,
            93..95 => self.report_again(at),
            95 if self.random.below(3) == 0 => self.nodes[at].checkpoint(),
            95 => self.delete_records(at),
            96 => self.crash(at),
            97 => self.start(at)?,
            98 => self.change_fencing(at),
            _ => {
                if self.random.below(3) == 0 {
                    self.controller.elect(BROKERS[at]);
                }
            }
        }
        self.check()
    }

    /// Nothing fails any more: in the end all are in sync, and everything is visible.
    pub fn heal(&mut self) -> Checked {
        for round in 0..400 {
            self.now += Duration::from_millis(100);
            for at in 0..3 {
                if !self.nodes[at].is_alive {
                    self.start(at)?;
                }
                while self.nodes[at].applied + 1 < self.controller.versions.len() {
                    self.learn(at)?;
                }
                let id = self.nodes[at].id;
                if self.controller.now().brokers[&id].is_fenced {
                    self.controller.unfence(id);
                }
                self.on_time(at)?;
                if let Role::Follower { asked, .. } = &mut self.nodes[at].role {
                    *asked = None;
                }
                self.ask(at);
                self.flush_up_to(at, usize::MAX)?;
                self.report_again(at);
            }
            for envelope in std::mem::take(&mut self.network) {
                self.receive(envelope)?;
            }
            while let Some(alteration) = self.alterations.pop_front() {
                self.answer_alteration(&alteration, true)?;
            }
            self.check()?;
            if round > 20 && self.is_settled() {
                return Ok(());
            }
        }
        Err(format!("nothing fails, and yet it never settles: {self:#?}"))
    }

    fn is_settled(&self) -> bool {
        let end = self.committed.len();
        let is_settled = |node: &Node| {
            node.disk.records.len() == end && place(Offset(node.high_watermark)) == end
        };
        self.controller.now().isr.len() == 3 && self.nodes.iter().all(is_settled)
    }

    fn write(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let Role::Leader(progress) = &mut node.role else { return Ok(()) };
        let epoch = progress.leader_epoch().0;
        for _ in 0..=self.random.below(3) {
            self.values += 1;
            node.disk.append(Record { epoch, value: self.values });
        }
        progress.on_append(node.disk.end());
        if self.controller.now().leader_epoch > epoch {
            self.see("records of a leader that is none any more");
        }
        self.lead_on(at)
    }

    fn flush(&mut self, at: usize) -> Checked {
        let up_to = self.random.below(self.nodes[at].disk.records.len() + 3);
        self.flush_up_to(at, up_to)
    }

    fn flush_up_to(&mut self, at: usize, up_to: usize) -> Checked {
        let node = &mut self.nodes[at];
        if !node.is_alive {
            return Ok(());
        }
        node.disk.flushed = up_to.min(node.disk.records.len()).max(node.disk.flushed);
        let flushed = offset(node.disk.flushed);
        match &mut node.role {
            Role::None => Ok(()),
            Role::Leader(progress) => {
                progress.on_flushed(flushed);
                self.lead_on(at)
            }
            Role::Follower { follower, .. } => {
                follower.on_flushed(flushed);
                if self.planted == Planted::ReportsBeforeComparing {
                    let leader_epoch = follower.leader_epoch();
                    self.send_report(at, FlushReport { leader_epoch, flushed });
                }
                self.follow_on(at, &[])
            }
        }
    }

    /// A follower asks its leader, unless it waits for an answer, which it does not do for ever.
    fn ask(&mut self, at: usize) {
        let gives_up = self.random.below(8) == 0;
        let now = self.now;
        let node = &mut self.nodes[at];
        let Role::Follower { follower, leader, asked } = &mut node.role else { return };
        if asked.is_some() && !gives_up {
            return;
        }
        let Some(fetch) = follower.fetch(now) else { return };
        self.fetches += 1;
        *asked = Some(self.fetches);
        let (to, broker_epoch, number) = (*leader, node.broker_epoch, self.fetches);
        self.send(BROKERS[at], to, Message::Fetch { broker_epoch, number, fetch });
    }

    fn report_again(&mut self, at: usize) {
        if let Role::Follower { follower, .. } = &self.nodes[at].role
            && let Some(report) = follower.report()
        {
            self.send_report(at, report);
        }
    }

    fn send_report(&mut self, at: usize, report: FlushReport) {
        let node = &self.nodes[at];
        if let Role::Follower { leader, .. } = node.role {
            let broker_epoch = node.broker_epoch;
            self.send(node.id, leader, Message::Flushed { broker_epoch, report });
        }
    }

    fn send(&mut self, from: BrokerId, to: BrokerId, message: Message) {
        self.network.push(Envelope { from, to, message });
    }

    /// Some message arrives, or none does, or one of them twice.
    fn deliver(&mut self) -> Checked {
        if self.network.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.network.len());
        let envelope = self.network.swap_remove(at);
        if self.random.below(20) == 0 {
            self.see("a message that is lost");
            return Ok(());
        }
        if self.random.below(20) == 0 {
            self.see("a message that comes twice");
            let Envelope { from, to, ref message } = envelope;
            self.send(from, to, message.clone());
        }
        self.receive(envelope)
    }

    fn receive(&mut self, envelope: Envelope) -> Checked {
        let Envelope { from, to, message } = envelope;
        let at = Self::at(to);
        if !self.nodes[at].is_alive {
            return Ok(());
        }
        match message {
            Message::Fetch { broker_epoch, number, fetch } => {
                self.serve(at, from, broker_epoch, number, &fetch)
            }
            Message::Answer { to_epoch, number, fetch, records, answer } => {
                if self.nodes[at].broker_epoch != to_epoch {
                    return Ok(());
                }
                self.take_answer(at, number, &fetch, records, answer)
            }
            Message::Flushed { broker_epoch, report } => {
                let Role::Leader(progress) = &mut self.nodes[at].role else { return Ok(()) };
                let FlushReport { leader_epoch, flushed } = report;
                let replica = from;
                progress.on_follower_flushed(FollowerFlushed {
                    replica,
                    broker_epoch,
                    leader_epoch,
                    flushed,
                });
                self.lead_on(at)
            }
        }
    }

    /// What a broker does with a follower's Fetch.
    fn serve(
        &mut self,
        at: usize,
        from: BrokerId,
        broker_epoch: i64,
        number: u64,
        fetch: &Fetch,
    ) -> Checked {
        let (records, answer) = match self.read(at, from, broker_epoch, fetch) {
            Ok(found) => found,
            Err(error) => (Vec::new(), Answered::Refused(error)),
        };
        let to_epoch = broker_epoch;
        let answer = Message::Answer { to_epoch, number, fetch: *fetch, records, answer };
        self.send(BROKERS[at], from, answer);
        self.lead_on(at)
    }

    fn read(
        &mut self,
        at: usize,
        from: BrokerId,
        broker_epoch: i64,
        fetch: &Fetch,
    ) -> Result<(Vec<Record>, Answered), ErrorCode> {
        let is_eligible =
            self.controller.versions[self.nodes[at].applied].is_eligible(from, broker_epoch);
        let reports_flushes = self.planted != Planted::FetchedIsFlushed;
        let node = &mut self.nodes[at];
        let Role::Leader(progress) = &mut node.role else {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        };
        match fetch.current_leader_epoch.cmp(&progress.leader_epoch()) {
            std::cmp::Ordering::Less => return Err(ErrorCode::FENCED_LEADER_EPOCH),
            std::cmp::Ordering::Greater => return Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            std::cmp::Ordering::Equal => {}
        }
        if let Some(last) = fetch.last_fetched_epoch
            && self.planted != Planted::NoTruncation
        {
            let end = node.disk.end_of(last).ok_or(ErrorCode::OFFSET_OUT_OF_RANGE)?;
            if end.epoch < last || end.end_offset < fetch.fetch_offset {
                return Ok((Vec::new(), Answered::Diverged(end)));
            }
        }
        if place(fetch.fetch_offset) < node.disk.start {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        let fetched = Fetched {
            replica: from,
            broker_epoch,
            is_eligible,
            fetch_offset: fetch.fetch_offset,
            log_start_offset: fetch.log_start_offset,
            reports_flushes,
            now: self.now,
        };
        let standing = progress.on_fetch(fetched).map_err(|refusal| refusal.code())?;
        let rest = node.disk.records[place(fetch.fetch_offset)..].iter().copied();
        let records = rest.take(1 + self.random.below(6)).map(Option::unwrap).collect();
        let high_watermark = standing.high_watermark;
        let log_start = offset(node.disk.start);
        Ok((records, Answered::Records { high_watermark, log_start }))
    }

    fn take_answer(
        &mut self,
        at: usize,
        number: u64,
        fetch: &Fetch,
        records: Vec<Record>,
        answer: Answered,
    ) -> Checked {
        let (now, node) = (self.now, &mut self.nodes[at]);
        let Role::Follower { follower, asked, .. } = &mut node.role else { return Ok(()) };
        if *asked == Some(number) {
            *asked = None;
        }
        let answer = match answer {
            Answered::Records { high_watermark, log_start } => {
                let is_empty = records.is_empty();
                Answer::Records { is_empty, high_watermark, log_start }
            }
            Answered::Diverged(leader) => {
                Answer::Diverged { leader, local: node.disk.end_of(leader.epoch) }
            }
            Answered::Refused(error) => Answer::Refused(error),
        };
        follower.on_answer(fetch, answer, now);
        self.follow_on(at, &records)
    }

    /// Carries out what a follower asks for.
    fn follow_on(&mut self, at: usize, records: &[Record]) -> Checked {
        loop {
            let Role::Follower { follower, leader, .. } = &mut self.nodes[at].role else {
                return Ok(());
            };
            let (commands, leader) = (follower.take_commands(), *leader);
            if commands.is_empty() {
                return Ok(());
            }
            for command in commands {
                self.follow(at, leader, records, command)?;
            }
        }
    }

    fn follow(
        &mut self,
        at: usize,
        leader: BrokerId,
        records: &[Record],
        command: follower::Command,
    ) -> Checked {
        let is_damaged = self.random.below(30) == 0;
        let leader_offsets = self.leader_offsets(at, leader);
        let now = self.now;
        let node = &mut self.nodes[at];
        let Role::Follower { follower, .. } = &mut node.role else { return Ok(()) };
        match command {
            follower::Command::Append { up_to } => {
                let fit = records.iter().take_while(|record| record.epoch <= up_to.0).count();
                let fit = if is_damaged { fit / 2 } else { fit };
                records[..fit].iter().for_each(|record| node.disk.append(*record));
                if is_damaged {
                    follower.on_log_failed(node.disk.local(), Failure::Passing, now);
                    self.see("an answer that is damaged");
                } else {
                    follower.on_appended(node.disk.local());
                }
            }
            follower::Command::Truncate { to } => {
                let before = node.disk.records.len();
                node.disk.truncate(place(to));
                let after = node.disk.records.len();
                follower.on_truncated(node.disk.local());
                self.see(if after < before { "records cut off" } else { "an epoch forgotten" });
            }
            follower::Command::RestartAt(start) => {
                node.disk.restart_at(place(start));
                follower.on_truncated(node.disk.local());
                self.see("a log that begins again, later");
            }
            follower::Command::DeleteRecordsTo(start) => {
                node.disk.delete_to(place(start));
                self.see("records deleted after those of the leader");
            }
            follower::Command::AskLeaderOffsets => {
                follower.on_leader_offsets(leader_offsets, now);
                self.see("an offset out of range");
            }
            follower::Command::SetHighWatermark(offset) => {
                node.high_watermark = offset.0;
                // Readers may look now.
                self.check()?;
            }
            follower::Command::ReportFlushed(report) => self.send_report(at, report),
        }
        Ok(())
    }

    /// What the leader answers to ListOffsets, at once.
    fn leader_offsets(&self, at: usize, leader: BrokerId) -> Result<LeaderOffsets, ErrorCode> {
        let Role::Follower { follower, .. } = &self.nodes[at].role else {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        };
        let node = &self.nodes[Self::at(leader)];
        match &node.role {
            Role::Leader(it) if it.leader_epoch() == follower.leader_epoch() => {
                Ok(LeaderOffsets { log_start: offset(node.disk.start), log_end: node.disk.end() })
            }
            _ => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }

    /// Carries out what a leader asks for.
    fn lead_on(&mut self, at: usize) -> Checked {
        let node = &mut self.nodes[at];
        let Role::Leader(progress) = &mut node.role else { return Ok(()) };
        let commands: Vec<Command> = progress.take_commands().collect();
        for command in commands {
            match command {
                Command::AdvanceHighWatermark(offset) => self.advance(at, offset)?,
                Command::AlterPartition(proposal) => self.propose(at, proposal),
            }
        }
        Ok(())
    }

    fn propose(&mut self, at: usize, proposal: Proposal) {
        let node = &mut self.nodes[at];
        let Role::Leader(progress) = &mut node.role else { return };
        let joins = proposal.isr.len() > progress.isr().len();
        let waits = progress.high_watermark() < progress.flushed();
        if joins && self.planted == Planted::JoinerDoesNotCount {
            progress.on_alter_refused(proposal.id(), ErrorCode::INELIGIBLE_REPLICA, self.now);
        }
        let (from, broker_epoch) = (node.id, node.broker_epoch);
        self.alterations.push_back(Alteration { from, broker_epoch, proposal });
        self.see(match (joins, waits) {
            (true, true) => "a joiner while the high watermark waits",
            (true, false) => "a joiner",
            (false, _) => "somebody is to leave",
        });
    }

    fn advance(&mut self, at: usize, high_watermark: Offset) -> Checked {
        let node = &mut self.nodes[at];
        law!(
            node.high_watermark < high_watermark.0,
            "the high watermark of {:?} falls from {} to {high_watermark}",
            node.id,
            node.high_watermark
        );
        node.high_watermark = high_watermark.0;
        let (end, node) = (place(high_watermark), &self.nodes[at]);
        law!(end <= node.disk.flushed, "{:?} shows what it has not flushed", node.id);
        law!(
            node.disk.agrees_with(&self.committed[..end.min(self.committed.len())]),
            "{:?} shows others than those before, up to {high_watermark}",
            node.id
        );
        let more = node.disk.records[..end].iter().skip(self.committed.len());
        let more: Option<Vec<Record>> = more.copied().collect();
        law!(more.is_some(), "{:?} shows records that it does not have", node.id);
        self.committed.extend(more.unwrap_or_default());
        let Role::Leader(progress) = &node.role else { return Ok(()) };
        let now = self.controller.now();
        if now.leader_epoch == progress.leader_epoch().0 {
            for member in &now.isr {
                let disk = &self.nodes[Self::at(*member)].disk;
                law!(
                    disk.flushed >= end && disk.agrees_with(&self.committed[..end]),
                    "{member:?} is in sync and does not have all up to {high_watermark} on disk"
                );
            }
        }
        Ok(())
    }

    /// The controller looks at the oldest proposal, and its answer arrives, or does not.
    fn alter(&mut self) -> Checked {
        if !self.late.is_empty() && self.random.below(3) == 0 {
            self.alter_late();
            return Ok(());
        }
        let Some(alteration) = self.alterations.pop_front() else { return Ok(()) };
        if self.random.below(8) == 0 {
            return self.give_up(alteration);
        }
        let arrives = self.random.below(6) != 0;
        self.answer_alteration(&alteration, arrives)
    }

    /// The broker has waited for too long, and the copy is still on its way.
    fn give_up(&mut self, alteration: Alteration) -> Checked {
        let (at, id) = (Self::at(alteration.from), alteration.proposal.id());
        let (now, node) = (self.now, &mut self.nodes[at]);
        if let Role::Leader(progress) = &mut node.role
            && node.broker_epoch == alteration.broker_epoch
        {
            if self.planted == Planted::BelievesRefusals {
                progress.on_alter_refused(id, ErrorCode::NETWORK_EXCEPTION, now);
            } else {
                progress.on_alter_unanswered(id, now);
            }
        }
        // What cuts off the one may cut off the other.
        if self.random.below(2) == 0
            && let Some(joiner) = self.joiner_of(&alteration)
        {
            self.controller.fence(joiner);
        }
        self.late.push((now + DOUBT, alteration));
        self.lead_on(at)?;
        // The controller can be reached again at once, but for that copy.
        self.now += Duration::from_millis(60);
        self.on_time(at)?;
        match self.alterations.pop_back() {
            Some(again) => self.answer_alteration(&again, true),
            None => Ok(()),
        }
    }

    fn joiner_of(&self, alteration: &Alteration) -> Option<BrokerId> {
        let isr = &self.controller.now().isr;
        let mut members = alteration.proposal.isr.iter().map(|member| member.broker);
        members.find(|member| !isr.contains(member))
    }

    /// The controller hears of a proposal that nobody waits for any more.
    fn alter_late(&mut self) {
        let now = self.now;
        self.late.retain(|(until, _)| now < *until);
        if self.late.is_empty() {
            return;
        }
        let (_, alteration) = self.late.swap_remove(self.random.below(self.late.len()));
        let joiner = self.joiner_of(&alteration).filter(|it| self.nodes[Self::at(*it)].is_alive);
        if let Some(joiner) = joiner {
            self.controller.unfence(joiner);
        }
        let Alteration { from, proposal, .. } = alteration;
        if self.controller.alter(from, &proposal).is_ok() {
            self.see("a copy that was given up, and applied");
        }
    }

    fn answer_alteration(&mut self, alteration: &Alteration, arrives: bool) -> Checked {
        let Alteration { from, broker_epoch, proposal } = alteration;
        let fails = !arrives && self.random.below(2) == 0;
        let answer = if fails {
            Err(ErrorCode::UNKNOWN_SERVER_ERROR)
        } else {
            self.controller.alter(*from, proposal)
        };
        let is_alone = answer.as_ref().is_ok_and(|committed| committed.isr.len() == 1);
        let seen = match answer {
            Ok(_) if is_alone => "an ISR of one",
            Ok(_) => "another ISR",
            Err(ErrorCode::FENCED_LEADER_EPOCH) => "a refusal: an old leader",
            Err(ErrorCode::INVALID_UPDATE_VERSION) => "a refusal: an old ISR",
            Err(ErrorCode::INELIGIBLE_REPLICA) => "a refusal: a broker that may not join",
            Err(_) => "a refusal: later perhaps",
        };
        self.see(seen);
        let at = Self::at(*from);
        let now = self.now;
        let node = &mut self.nodes[at];
        let Role::Leader(progress) = &mut node.role else { return Ok(()) };
        if node.broker_epoch != *broker_epoch {
            return Ok(());
        }
        match answer {
            Ok(_) if arrives => progress.on_alter_accepted(proposal.id()),
            Ok(_) => {
                self.see("an answer of the controller that is lost");
                let Role::Leader(progress) = &mut self.nodes[at].role else { return Ok(()) };
                progress.on_alter_refused(proposal.id(), ErrorCode::NETWORK_EXCEPTION, now);
            }
            Err(error) => {
                progress.on_alter_refused(proposal.id(), error, now);
            }
        }
        self.lead_on(at)
    }

    fn pass_time(&mut self, at: usize) -> Checked {
        let is_long = self.random.below(6) == 0;
        self.now +=
            Duration::from_millis(self.random.below(if is_long { 20_000 } else { 500 }) as u64);
        self.on_time(at)
    }

    fn on_time(&mut self, at: usize) -> Checked {
        let now = self.now;
        if let Role::Leader(progress) = &mut self.nodes[at].role
            && progress.deadline().is_some_and(|deadline| deadline <= now)
        {
            progress.on_time(now);
        }
        self.lead_on(at)
    }

    /// A broker learns the next version of the metadata.
    fn learn(&mut self, at: usize) -> Checked {
        let node = &self.nodes[at];
        if !node.is_alive || node.applied + 1 >= self.controller.versions.len() {
            return Ok(());
        }
        self.nodes[at].applied += 1;
        self.take_role(at);
        self.lead_on(at)?;
        self.follow_on(at, &[])?;
        self.check_leader(at)
    }

    /// What the metadata says, as far as this broker knows it.
    fn take_role(&mut self, at: usize) {
        let (now, min_insync_replicas) = (self.now, self.min_insync_replicas);
        let node = &mut self.nodes[at];
        let version = &self.controller.versions[node.applied];
        let known = match &node.role {
            Role::None => None,
            Role::Leader(progress) => Some(progress.leader_epoch().0),
            Role::Follower { follower, .. } => Some(follower.leader_epoch().0),
        };
        if known == Some(version.leader_epoch) {
            node.follow_metadata(version);
            return;
        }
        let leader_epoch = LeaderEpoch(version.leader_epoch);
        let high_watermark = Offset(node.high_watermark);
        node.role = match version.leader {
            None => Role::None,
            Some(leader) if leader == node.id => {
                node.disk.assign_epoch(version.leader_epoch);
                let progress = Progress::new(Leadership {
                    leader,
                    broker_epoch: UNKNOWN_BROKER_EPOCH,
                    leader_epoch,
                    partition_epoch: version.partition_epoch,
                    replicas: BROKERS.into(),
                    isr: version.isr.clone(),
                    min_insync_replicas,
                    lag_max: LAG_MAX,
                    high_watermark,
                    flushed: offset(node.disk.flushed),
                    log_end: node.disk.end(),
                    now,
                });
                Role::Leader(Box::new(progress))
            }
            Some(leader) => {
                let log = node.disk.local();
                let start = Start { leader_epoch, log, high_watermark, backoff: BACKOFF };
                let follower = Box::new(Follower::new(start));
                Role::Follower { follower, leader, asked: None }
            }
        };
    }

    /// Retention, on each broker by itself, of what is visible there.
    fn delete_records(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_alive {
            let visible = place(Offset(node.high_watermark));
            node.disk.delete_to(visible.saturating_sub(self.random.below(20)));
        }
    }

    fn crash(&mut self, at: usize) {
        if !self.nodes[at].is_alive || self.random.below(3) != 0 {
            return;
        }
        let node = &mut self.nodes[at];
        node.is_alive = false;
        node.role = Role::None;
        if node.disk.crash(&mut self.random) > 0 {
            self.see("a crash that takes records");
        }
    }

    /// A broker that was down starts, registers, and reads the metadata before it does anything.
    fn start(&mut self, at: usize) -> Checked {
        if self.nodes[at].is_alive {
            return Ok(());
        }
        let broker_epoch = self.controller.register(BROKERS[at]);
        let node = &mut self.nodes[at];
        node.is_alive = true;
        node.broker_epoch = broker_epoch;
        let high_watermark = Offset(node.disk.checkpointed_high_watermark);
        node.high_watermark = high_watermark.min(node.disk.end()).max(offset(node.disk.start)).0;
        node.applied = self.controller.versions.len() - 1;
        self.take_role(at);
        self.lead_on(at)?;
        self.follow_on(at, &[])
    }

    /// The controller takes a broker for dead, be it so or not, or for alive.
    fn change_fencing(&mut self, at: usize) {
        let id = BROKERS[at];
        let node = &self.nodes[at];
        let registration = self.controller.now().brokers[&id];
        if registration.is_fenced {
            if node.is_alive && registration.broker_epoch == node.broker_epoch {
                self.controller.unfence(id);
            }
        } else if !node.is_alive || self.random.below(4) == 0 {
            self.controller.fence(id);
        }
        if self.controller.now().leader.is_none() {
            self.see("nobody leads");
        }
    }

    /// The leader of the day has all that was ever visible.
    fn check_leader(&self, at: usize) -> Checked {
        let node = &self.nodes[at];
        let Role::Leader(progress) = &node.role else { return Ok(()) };
        if progress.leader_epoch().0 != self.controller.now().leader_epoch {
            return Ok(());
        }
        law!(
            node.disk.records.len() >= self.committed.len()
                && node.disk.agrees_with(&self.committed),
            "{:?} leads, and lacks some of the {} records that were visible",
            node.id,
            self.committed.len()
        );
        for readable in progress.readable_at(progress.high_watermark()) {
            let follower = &self.nodes[Self::at(readable.replica)];
            law!(
                !follower.is_alive || progress.high_watermark() <= follower.disk.end(),
                "{:?} is said to have what is visible, and does not",
                follower.id
            );
        }
        Ok(())
    }

    fn check(&self) -> Checked {
        for (at, node) in self.nodes.iter().enumerate() {
            self.check_leader(at)?;
            let visible = place(Offset(node.high_watermark));
            if !node.is_alive {
                continue;
            }
            law!(visible <= node.disk.records.len(), "{:?} shows what it does not have", node.id);
            law!(node.disk.start <= visible, "{:?} has deleted what was not visible", node.id);
            law!(
                visible <= self.committed.len()
                    && node.disk.agrees_with(&self.committed[..visible]),
                "{:?} shows other records than its leader",
                node.id
            );
        }
        Ok(())
    }
}

impl Node {
    fn checkpoint(&mut self) {
        if self.is_alive {
            self.disk.checkpointed_high_watermark = self.high_watermark;
        }
    }

    /// Within a leader epoch.
    fn follow_metadata(&mut self, version: &Version) {
        let Role::Leader(progress) = &mut self.role else { return };
        progress.on_isr_committed(version.committed());
        for (broker, registration) in &version.brokers {
            if registration.is_fenced {
                progress.on_eligibility_changed(*broker, false);
            }
        }
    }
}
