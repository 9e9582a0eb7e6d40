//! A node with its replicas: it answers fetches and produces, asks its leaders, and tells what it has to tell.

use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch};
use ottla_broker::parts::{
    AppendError, Placed, Question as Asked, Replica, Served, alter_partition_request,
    decode_flush_report,
};
use ottla_replication::follower::{EpochEnd, Fetch, LeaderOffsets};
use ottla_replication::{CommittedIsr, Fetched as Progressed};

use super::Bug;
use super::network::{Body, CONTROLLER_TIMEOUT, FetchAnswer, Follower, Key, Place, Produce};
use super::node::{Parked, Process, Question, Unacknowledged, Wake, bytes_of};
use super::world::World;
use crate::log::batches::number_of;

const FETCH_WAIT: Duration = Duration::from_millis(250);
const FETCH_TIMEOUT: Duration = Duration::from_millis(900);
const FETCH_BYTES: i64 = 1_200;

impl World {
    pub(super) fn hear_fetch(
        &mut self,
        at: usize,
        key: Key,
        number: u64,
        from: Follower,
        fetch: Fetch,
    ) -> Option<Body> {
        let until = self.now + FETCH_WAIT;
        let parked = Parked { key, number, from, fetch, until };
        let answer = self.answer_fetch(at, &parked, true);
        if answer.is_none() {
            self.nodes[at].process.as_mut()?.parked.push(parked);
        }
        answer
    }

    /// The answer, unless it is worth waiting for another one.
    fn answer_fetch(&mut self, at: usize, asked: &Parked, is_first: bool) -> Option<Body> {
        let now = self.nodes[at].time(self.now);
        let Parked { key, number, from, fetch, until } = asked.clone();
        let process = self.nodes[at].process.as_ref()?;
        let answer = match process.replicas.find(key.0, key.1.0) {
            None => FetchAnswer::Refused(ErrorCode::UNKNOWN_TOPIC_ID),
            Some(replica) => serve(self.bug, process, &replica, from, &fetch, now, is_first)
                .unwrap_or_else(FetchAnswer::Refused),
        };
        let is_empty =
            matches!(&answer, FetchAnswer::Records { records, .. } if records.is_empty());
        (!is_empty || self.now >= until).then_some(Body::Fetched { key, number, fetch, answer })
    }

    pub(super) fn leader_offsets(
        &self,
        at: usize,
        key: Key,
        epoch: LeaderEpoch,
    ) -> Result<LeaderOffsets, ErrorCode> {
        let process = self.nodes[at].process.as_ref();
        let replica = process.and_then(|process| process.replicas.find(key.0, key.1.0));
        let replica = replica.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        replica.check_leader_epoch(epoch.0)?;
        replica.check_leads()?;
        let log = replica.log();
        Ok(LeaderOffsets { log_start: log.log_start_offset(), log_end: log.log_end_offset() })
    }

    pub(super) fn ask_offsets(
        &mut self,
        at: usize,
        key: Key,
        leader: BrokerId,
        epoch: LeaderEpoch,
    ) {
        self.counts.add("leader asked where its log begins and ends");
        let number = self.number();
        let Some(process) = &mut self.nodes[at].process else { return };
        process.questions.insert(key, Question { number, leader, for_offsets: true });
        let to = Place::Node(leader.0 as usize - 1);
        self.send(Place::Node(at), to, Body::AskOffsets { key, number, epoch });
        self.wake(at, FETCH_TIMEOUT, Wake::GiveUpFetch(key, number));
    }

    /// As if the connection had failed.
    pub(super) fn give_up_fetch(&mut self, at: usize, key: Key, number: u64) {
        let now = self.nodes[at].time(self.now);
        let Some(process) = &mut self.nodes[at].process else { return };
        let question = process.questions.get(&key).copied();
        let Some(question) = question.filter(|it| it.number == number) else { return };
        process.questions.remove(&key);
        self.counts.add(if question.for_offsets {
            "leader does not say where its log begins and ends"
        } else {
            "fetch unanswered"
        });
        if let Some(replica) = process.replicas.find(key.0, key.1.0) {
            replica.on_leader_offsets(question.leader, Err(ErrorCode::NETWORK_EXCEPTION), now);
        }
    }

    pub(super) fn hear_produce(&mut self, at: usize, produce: Produce) -> Option<Body> {
        let Produce { client, attempt, topic, partition, batch, needs_all } = produce;
        let refuse = |code| Some(Body::Produced { client, attempt, result: Err(code) });
        self.nodes[at].time(self.now);
        self.nodes[at].disk.enter("produce");
        let process = self.nodes[at].process.as_mut()?;
        let Some(topic) = process.image.topic_by_name(topic).map(|topic| topic.id) else {
            return refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let key = (topic, partition);
        let Some(replica) = process.replicas.find(topic, partition.0) else {
            return refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        };
        let number = number_of(&batch)?;
        let placed = match replica.append_produced(batch, needs_all) {
            Ok(placed) => placed,
            Err(error) => {
                // It was one until it learned so, just now.
                let was_zombie = matches!(error, AppendError::NotLeader)
                    && process.zombie_in.remove(&key).is_some();
                let has_too_few = matches!(error, AppendError::NotEnoughReplicas);
                let code = error.code();
                self.counts.add(format!("produce refused: {code}"));
                if was_zombie {
                    self.counts.add("zombie's append refused");
                }
                if has_too_few && self.is_deposed(at, key) {
                    self.counts.add("leader that is none any more has too few in sync");
                }
                return refuse(code);
            }
        };
        let Placed { appended, epoch } = placed;
        if appended.duplicate {
            self.counts.add("duplicate refused");
        }
        let is_of_zombie = process.zombie_in.get(&key) == Some(&epoch);
        if is_of_zombie {
            self.counts.add("zombie appends");
        } else if self.is_deposed(at, key) {
            self.counts.add("leader appends that is none any more");
        }
        let base = appended.base_offset;
        if !needs_all {
            return Some(Body::Produced { client, attempt, result: Ok(base) });
        }
        let until = appended.last_offset.next();
        let is_late = self.chance.happens(2_000);
        let looks_from = self.now + Duration::from_millis(if is_late { 30 } else { 0 });
        let waits = Unacknowledged {
            key,
            client,
            attempt,
            number,
            base,
            until,
            epoch,
            looks_from,
            is_of_zombie,
        };
        self.nodes[at].process.as_mut()?.produces.push(waits);
        None
    }

    /// Whether the controller has another leader for what this node takes itself to lead.
    pub(super) fn is_deposed(&self, at: usize, (topic, index): Key) -> bool {
        let leader = self.controller.image.partition(topic, index).map(|it| it.leader);
        leader != Some(self.nodes[at].id)
    }

    /// Whatever an event has made possible, until the process stops.
    pub(super) fn look_around(&mut self, at: usize) {
        let steps: [fn(&mut Self, usize); 8] = [
            Self::answer_parked,
            Self::acknowledge,
            Self::coordinate,
            Self::ask_leaders,
            Self::report_flushes,
            Self::propose,
            Self::plan_flush,
            Self::plan_look,
        ];
        for step in steps {
            if !self.nodes[at].disk.has_stopped() {
                step(self, at);
            }
        }
    }

    fn answer_parked(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        let parked = std::mem::take(&mut process.parked);
        for asked in parked {
            match self.answer_fetch(at, &asked, false) {
                Some(answer) => {
                    let to = Place::Node(asked.from.id.0 as usize - 1);
                    self.send(Place::Node(at), to, answer);
                }
                None => {
                    if let Some(process) = &mut self.nodes[at].process {
                        process.parked.push(asked);
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        let waiting = std::mem::take(&mut process.produces);
        for waits in waiting {
            let Unacknowledged { client, attempt, .. } = waits;
            let result = match self.is_written(at, &waits) {
                Ok(true) => {
                    self.check_enough(at, &waits);
                    self.model.acknowledged(&waits);
                    self.counts.add("acks=all acknowledged");
                    Ok(waits.base)
                }
                Ok(false) => {
                    if let Some(process) = &mut self.nodes[at].process {
                        process.produces.push(waits);
                    }
                    continue;
                }
                Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND) => {
                    self.counts.add("append never acknowledged: too few by then");
                    Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
                }
                Err(code) => {
                    self.counts.add("append never acknowledged: leads no longer");
                    if waits.is_of_zombie {
                        self.counts.add("zombie's append never acknowledged");
                    }
                    Err(code)
                }
            };
            let answer = Body::Produced { client, attempt, result };
            self.send(Place::Node(at), Place::Clients, answer);
        }
    }

    /// Whether acks=all may be answered, as whoever waits for that finds out.
    fn is_written(&self, at: usize, waits: &Unacknowledged) -> Result<bool, ErrorCode> {
        if self.now < waits.looks_from {
            return Ok(false);
        }
        let (topic, index) = waits.key;
        let process = self.nodes[at].process.as_ref();
        let replica = process.and_then(|process| process.replicas.find(topic, index.0));
        let replica = replica.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        let is_visible = replica.is_visible(waits.until, waits.epoch)?;
        if is_visible {
            replica.check_still_enough()?;
        }
        Ok(is_visible)
    }

    fn ask_leaders(&mut self, at: usize) {
        let now = self.nodes[at].time(self.now);
        let Some(registration) = self.nodes[at].registration() else { return };
        let Some(process) = &self.nodes[at].process else { return };
        let free = |(key, _): &(&Key, &BrokerId)| !process.questions.contains_key(*key);
        let free: Vec<(Key, BrokerId)> =
            process.follows.iter().filter(free).map(|(key, leader)| (*key, *leader)).collect();
        for (key, leader) in free {
            let Some(process) = &self.nodes[at].process else { return };
            let Some(replica) = process.replicas.find(key.0, key.1.0) else { continue };
            let Some(fetch) = replica.next_fetch(leader, now) else { continue };
            let number = self.number();
            if let Some(process) = &mut self.nodes[at].process {
                process.questions.insert(key, Question { number, leader, for_offsets: false });
            }
            let from = Follower { id: registration.id, epoch: registration.epoch };
            let to = Place::Node(leader.0 as usize - 1);
            self.send(Place::Node(at), to, Body::Fetch { key, number, from, fetch });
            self.wake(at, FETCH_TIMEOUT, Wake::GiveUpFetch(key, number));
        }
    }

    fn report_flushes(&mut self, at: usize) {
        let Some(registration) = self.nodes[at].registration() else { return };
        for to in 0..self.nodes.len() {
            let Some(process) = &self.nodes[at].process else { return };
            let reports = &process.replicas.outboxes.flush_reports;
            if let Some(report) = reports.take(self.nodes[to].id, registration) {
                self.send(Place::Node(at), Place::Node(to), Body::Flushed(report));
            }
        }
    }

    /// Counts what is said of lives and epochs that are over.
    pub(super) fn count_late(&mut self, at: usize, report: &Bytes) {
        let Some(process) = &self.nodes[at].process else { return };
        let (mut is_of_earlier_life, mut of_earlier_epochs) = (false, 0);
        let read = decode_flush_report(report.clone(), |topic, index, flushed| {
            let registered = process.image.broker(flushed.replica);
            is_of_earlier_life |= registered.is_some_and(|it| flushed.broker_epoch < it.epoch);
            let Some(replica) = process.replicas.find(topic, index.0) else { return };
            let is_over = flushed.leader_epoch < replica.leader_epoch();
            of_earlier_epochs += u64::from(is_over && replica.check_leads().is_ok());
        });
        read.expect("brokers write reports that brokers can read");
        if is_of_earlier_life {
            self.counts.add("flush reported of an earlier life");
        }
        for _ in 0..of_earlier_epochs {
            self.counts.add("flush reported of an earlier epoch");
        }
    }

    fn propose(&mut self, at: usize) {
        let now = self.nodes[at].time(self.now);
        let (registration, host) = (self.nodes[at].registration(), self.controller.host);
        let Some((registration, host)) = registration.zip(host) else { return };
        let number = self.number();
        let Some(process) = &mut self.nodes[at].process else { return };
        if process.alter.is_some() {
            return;
        }
        let proposals = process.replicas.outboxes.isr_changes.take();
        if proposals.is_empty() {
            return;
        }
        let mut seen = Vec::new();
        for ((topic, index), proposal) in &proposals {
            let Some(replica) = process.replicas.find(*topic, index.0) else { continue };
            let Some(partition) = process.image.partition(*topic, *index) else { continue };
            let joins = proposal.isr.len() > partition.isr.len();
            let waits = replica.high_watermark() < replica.log().flushed_offset();
            seen.push(match (joins, waits) {
                (true, true) => "joiner proposed while the high watermark waits",
                (true, false) => "joiner proposed",
                (false, _) => "leaver proposed",
            });
            if joins && self.bug == Some(Bug::JoinerNotCounted) {
                replica.on_isr_refused(proposal.id(), ErrorCode::OPERATION_NOT_ATTEMPTED, now);
            }
            if !joins && self.bug == Some(Bug::LeaverNotAwaited) {
                replica.on_isr_committed(CommittedIsr {
                    leader_epoch: proposal.leader_epoch,
                    partition_epoch: proposal.partition_epoch + 1,
                    isr: proposal.isr.iter().map(|member| member.broker).collect(),
                });
            }
        }
        let request = alter_partition_request(registration, &proposals);
        process.alter = Some((number, proposals));
        seen.into_iter().for_each(|what| self.counts.add(what));
        let deadline = self.now + CONTROLLER_TIMEOUT;
        self.send(Place::Node(at), Place::Node(host), Body::Alter { number, request, deadline });
        self.wake(at, CONTROLLER_TIMEOUT, Wake::GiveUpAlter(number));
    }

    fn plan_flush(&mut self, at: usize) {
        let takes = self.nodes[at].flush_takes;
        let quick = Duration::from_micros(200 + self.chance.below(4_000) as u64);
        let Some(process) = &mut self.nodes[at].process else { return };
        let is_unflushed =
            |log: &std::sync::Arc<ottla_log::Log>| log.flushed_offset() < log.log_end_offset();
        if process.flush_is_due || !process.directory.logs().iter().any(is_unflushed) {
            return;
        }
        process.flush_is_due = true;
        self.wake(at, quick + takes, Wake::Flush);
    }

    /// The node looks at what is due when the first of it is.
    fn plan_look(&mut self, at: usize) {
        let now = self.nodes[at].time(self.now);
        let here = self.now;
        let Some(process) = &mut self.nodes[at].process else { return };
        let replicas = process.replicas.all();
        let lags = replicas.iter().filter_map(|replica| replica.deadline());
        let asks = replicas.iter().filter_map(|replica| replica.fetch_deadline());
        let due = lags
            .chain(asks)
            .chain(process.coordinators_deadlines())
            .min()
            .map(|due| due.saturating_sub(now));
        let parked = process.parked.iter().map(|it| it.until);
        let late = process.produces.iter().map(|it| it.looks_from).filter(|from| *from > here);
        let late = late.chain(process.coordinators_busy_until().filter(|until| *until > here));
        let waits = parked.chain(late).map(|until| until.saturating_sub(here)).min();
        let Some(pause) = due.into_iter().chain(waits).min() else { return };
        let pause = pause.clamp(Duration::from_millis(5), super::publish::LAG_MAX / 2);
        if process.looks_at.is_none_or(|at| at > here + pause) {
            process.looks_at = Some(here + pause);
            self.wake(at, pause, Wake::Look);
        }
    }
}

fn serve(
    bug: Option<Bug>,
    process: &Process,
    replica: &Replica,
    from: Follower,
    fetch: &Fetch,
    now: Duration,
    is_first: bool,
) -> Result<FetchAnswer, ErrorCode> {
    let claimed = fetch.last_fetched_epoch.filter(|_| bug != Some(Bug::NoTruncation));
    let believed = match claimed {
        Some(epoch) if bug == Some(Bug::EndOfAnotherEpoch) => {
            replica.end_offset_for_epoch(epoch).map(|(known, _)| known)
        }
        _ => claimed,
    };
    let asked = Asked {
        current_leader_epoch: fetch.current_leader_epoch.0,
        fetch_offset: fetch.fetch_offset,
        last_fetched_epoch: believed.map_or(-1, |epoch| epoch.0),
        max_bytes: FETCH_BYTES,
        min_one_batch: true,
        needs_leader: true,
    };
    let is_eligible =
        process.image.broker(from.id).is_some_and(|registered| registered.may_join_isr(from.epoch));
    let fetched = Progressed {
        replica: from.id,
        broker_epoch: from.epoch,
        is_eligible,
        fetch_offset: fetch.fetch_offset,
        log_start_offset: fetch.log_start_offset,
        reports_flushes: bug != Some(Bug::AnsweredBeforeFlush),
        now,
    };
    let served = replica.serve(&asked, |log, _| {
        if is_first {
            replica.on_fetch(fetched).map(|standing| standing.log_end)
        } else {
            Ok(log.log_end_offset())
        }
    })?;
    match served {
        Served::Diverged { end, .. } => {
            let epoch = if believed == claimed { end.epoch } else { claimed.unwrap_or(end.epoch) };
            Ok(FetchAnswer::Diverged(EpochEnd { epoch, ..end }))
        }
        Served::Records { slice, visible } => Ok(FetchAnswer::Records {
            records: bytes_of(slice.and_then(|slice| slice.source))
                .map_err(|_| ErrorCode::KAFKA_STORAGE_ERROR)?,
            high_watermark: visible.high_watermark,
            log_start: visible.log_start,
        }),
    }
}
