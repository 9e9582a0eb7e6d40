//! What arrives at a node, and what a process wants, is done; afterwards the node does whatever that has made possible.

use std::time::Duration;

use ottla_base::ErrorCode;
use ottla_broker::parts::{Errand, Fetched};
use ottla_protocol::messages::BrokerHeartbeatRequest;
use ottla_replication::follower::Fetch;

use super::Bug;
use super::controller::SESSION;
use super::network::{Body, FetchAnswer, Key, Message, Place};
use super::node::{Process, Wake};
use super::world::{Event, World};
use crate::law::{Checked, Law, Violation};

const HEARTBEAT: Duration = Duration::from_millis(300);
const IMPATIENCE: Duration = Duration::from_millis(20);
const HOUSEKEEPING: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn deliver(&mut self, message: Message) -> Checked {
        let Message { from, to, body } = message;
        let Place::Node(at) = to else {
            return self.hear(body);
        };
        let is_too_late = body.answers().is_some_and(|number| number < self.nodes[at].life);
        if self.nodes[at].process.is_none() || is_too_late {
            return Ok(());
        }
        self.note(|| format!("{to:?} from {from:?}: {}", brief(&body)));
        let answer = match body {
            Body::Register { .. } | Body::Heartbeat(_) | Body::Alter { .. } => {
                self.ask_controller(at, body)?
            }
            body => self.tell(at, from, body)?,
        };
        if let Some(answer) = answer {
            self.send(to, from, answer);
        }
        self.settle(at)
    }

    /// A question to the controller, which may be elsewhere by now.
    fn ask_controller(&mut self, at: usize, body: Body) -> Checked<Option<Body>> {
        if !self.is_controller(at) {
            return Ok(None);
        }
        match body {
            // Its sender is the one that will be registered.
            Body::Register { life } => {
                let sender = self.nodes.iter().position(|node| node.life == life);
                let Some(sender) = sender.filter(|at| self.nodes[*at].process.is_some()) else {
                    return Ok(None);
                };
                let result = self.register(sender)?;
                Ok(result.map(|result| Body::Registered { life, result }))
            }
            Body::Heartbeat(request) => self.hear_heartbeat(&request),
            Body::Alter { number, request, deadline } => {
                if self.now > deadline {
                    self.counts.add("AlterPartition too late");
                    return Ok(None);
                }
                let response = self.alter(&request)?;
                Ok(response.map(|response| Body::Altered { number, response }))
            }
            _ => Ok(None),
        }
    }

    fn tell(&mut self, at: usize, from: Place, body: Body) -> Checked<Option<Body>> {
        match body {
            Body::Fetch { key, number, from, fetch } => {
                return Ok(self.hear_fetch(at, key, number, from, fetch));
            }
            Body::Fetched { key, number, fetch, answer } => {
                self.hear_answer(at, from, key, number, &fetch, answer);
            }
            Body::AskOffsets { key, number, epoch } => {
                let found = self.leader_offsets(at, key, epoch);
                return Ok(Some(Body::Offsets { key, number, found }));
            }
            Body::Offsets { key, number, found } => {
                let now = self.nodes[at].time(self.now);
                let Some(process) = &mut self.nodes[at].process else { return Ok(None) };
                let question = process.questions.get(&key).copied();
                if let Some(question) = question.filter(|it| it.number == number) {
                    process.questions.remove(&key);
                    if let Some(replica) = process.replicas.find(key.0, key.1.0) {
                        replica.on_leader_offsets(question.leader, found, now);
                    }
                }
            }
            Body::Flushed(report) => {
                self.count_late(at, &report);
                if let Some(process) = &self.nodes[at].process {
                    process.replicas.on_flushed_elsewhere(report);
                }
            }
            Body::Altered { number, response } => self.hear_alter(at, number, Ok(response)),
            Body::Registered { life, result } if life == self.nodes[at].life => {
                let Some(process) = &mut self.nodes[at].process else { return Ok(None) };
                match result {
                    Ok(epoch) if process.epoch.is_none() => {
                        process.epoch = Some(epoch);
                        self.set_strays_aside(at);
                        self.unstick();
                        self.wake(at, Duration::ZERO, Wake::Heartbeat);
                    }
                    Ok(_) => {}
                    Err(ErrorCode::DUPLICATE_BROKER_REGISTRATION) => {
                        self.counts.add("registration refused: the process before is not over");
                    }
                    Err(code) => {
                        let what = format!("registration refused: {code}");
                        return Err(Violation::of(Law::Registered, what));
                    }
                }
            }
            Body::Beaten(Ok(response)) if response.should_shut_down => {
                self.stop_cleanly(at, "clean end");
            }
            Body::Beaten(Ok(response)) if response.is_fenced => {
                self.wake(at, IMPATIENCE * 2, Wake::HeartbeatAgain);
            }
            Body::Beaten(Err(code)) => {
                self.counts.add(format!("heartbeat refused: {code}"));
            }
            Body::Metadata(until) => self.learn(at, until)?,
            Body::Produce(produce) => return Ok(self.hear_produce(at, produce)),
            Body::Ask { asker, group, ask } => return Ok(self.hear_ask(at, asker, group, *ask)),
            Body::Registered { .. }
            | Body::Beaten(_)
            | Body::Produced { .. }
            | Body::Answer { .. }
            | Body::Register { .. }
            | Body::Heartbeat(_)
            | Body::Alter { .. } => {}
        }
        Ok(None)
    }

    fn hear_answer(
        &mut self,
        at: usize,
        from: Place,
        key: Key,
        number: u64,
        fetch: &Fetch,
        answer: FetchAnswer,
    ) {
        let (now, Place::Node(leader)) = (self.nodes[at].time(self.now), from) else { return };
        let leader = self.nodes[leader].id;
        let disk = std::sync::Arc::clone(&self.nodes[at].disk);
        let Some(process) = &mut self.nodes[at].process else { return };
        if process.questions.get(&key).is_some_and(|question| question.number == number) {
            process.questions.remove(&key);
        } else {
            self.counts.add("answer that nobody waits for any more");
        }
        let Some(replica) = process.replicas.find(key.0, key.1.0) else { return };
        let before = replica.log().log_end_offset();
        let fetched = match answer {
            FetchAnswer::Records { records, high_watermark, log_start } => {
                Fetched::Records { records, high_watermark, log_start }
            }
            FetchAnswer::Diverged(end) => Fetched::Diverged(end),
            FetchAnswer::Refused(code) => {
                self.counts.add(format!("fetch refused: {code}"));
                Fetched::Refused(code)
            }
        };
        let diverged = matches!(fetched, Fetched::Diverged(_));
        let is_foreign =
            matches!(fetched, Fetched::Diverged(end) if !knows(&replica.log(), end.epoch));
        let is_idle = matches!(&fetched, Fetched::Records { records, .. } if records.is_empty());
        disk.enter("follow");
        let errand = replica.on_fetched(leader, fetch, fetched, now);
        if is_idle {
            replica.report_flushed_again();
        }
        if replica.log().log_end_offset() < before {
            self.counts.add("records cut off in a new epoch");
            if is_foreign {
                self.counts.add("records cut off up to an epoch that the leader does not name");
            }
            let times = process.cut_off.entry(key).or_default();
            *times += 1;
            if *times > 1 {
                self.counts.add("records cut off in more than one step");
            }
        } else if diverged {
            self.counts.add("logs compared anew");
        } else if replica.log().log_end_offset() > before {
            process.cut_off.remove(&key);
        }
        if errand == Errand::AskLeaderOffsets {
            self.ask_offsets(at, key, leader, fetch.current_leader_epoch);
        }
    }

    fn hear_alter(
        &mut self,
        at: usize,
        number: u64,
        answer: Result<ottla_protocol::messages::AlterPartitionResponse, ErrorCode>,
    ) {
        let now = self.nodes[at].time(self.now);
        let Some(process) = &mut self.nodes[at].process else { return };
        if process.alter.as_ref().is_none_or(|(waiting, _)| *waiting != number) {
            self.counts.add("answer of the controller that nobody waits for any more");
            return;
        }
        let Some((_, proposals)) = process.alter.take() else { return };
        process.replicas.on_isrs_answered(&proposals, answer, now);
    }

    pub(super) fn on_wake(&mut self, at: usize, wake: Wake) -> Checked {
        let looks_at = self.nodes[at].process.as_ref().and_then(|process| process.looks_at);
        if matches!(wake, Wake::Look) && looks_at.is_none_or(|at| self.now < at) {
            // It has looked since this was planned, and planned another one.
            return Ok(());
        }
        match wake {
            Wake::Register => self.ask_to_register(at),
            Wake::Heartbeat => {
                self.beat(at);
                self.wake(at, HEARTBEAT, Wake::Heartbeat);
            }
            Wake::HeartbeatAgain => self.beat(at),
            Wake::Flush => self.flush(at),
            Wake::Housekeep => {
                self.wake(at, HOUSEKEEPING, Wake::Housekeep);
                self.nodes[at].time(self.now);
                self.nodes[at].disk.enter("housekeeping");
                if let Some(process) = &self.nodes[at].process {
                    process.directory.housekeep();
                }
            }
            Wake::Look => {
                let now = self.nodes[at].time(self.now);
                if let Some(process) = &mut self.nodes[at].process {
                    process.looks_at = None;
                    process.replicas.on_time(now);
                }
            }
            Wake::Load(number) => self.load(at, number)?,
            Wake::GiveUpLeaving => self.stop_cleanly(at, "clean end that nobody has allowed"),
            Wake::GiveUpFetch(key, number) => self.give_up_fetch(at, key, number),
            Wake::GiveUpAlter(number) => {
                let is_open = |process: &Process| {
                    process.alter.as_ref().is_some_and(|(waiting, _)| *waiting == number)
                };
                if self.nodes[at].process.as_ref().is_some_and(is_open) {
                    self.counts.add("AlterPartition unanswered");
                    self.hear_alter(at, number, Err(ErrorCode::NETWORK_EXCEPTION));
                }
            }
        }
        self.settle(at)
    }

    fn ask_to_register(&mut self, at: usize) {
        let Some(process) = &self.nodes[at].process else { return };
        if process.epoch.is_some() {
            return;
        }
        let life = self.nodes[at].life;
        if let Some(host) = self.controller.host {
            self.send(Place::Node(at), Place::Node(host), Body::Register { life });
        }
        self.wake(at, Duration::from_millis(250), Wake::Register);
    }

    /// The broker beside the active controller needs none, but sends them as well: it may be beside it no longer.
    fn beat(&mut self, at: usize) {
        let node = &self.nodes[at];
        let Some(process) = &node.process else { return };
        let Some(epoch) = process.epoch else { return };
        let request = BrokerHeartbeatRequest {
            broker_id: node.id.0,
            broker_epoch: epoch,
            current_metadata_offset: process.image.offset.0,
            want_shut_down: process.leaves,
            ..Default::default()
        };
        if let Some(host) = self.controller.host {
            self.send(Place::Node(at), Place::Node(host), Body::Heartbeat(request));
        }
    }

    fn flush(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.time(self.now);
        node.disk.enter("flush");
        let Some(process) = &mut node.process else { return };
        process.flush_is_due = false;
        process.directory.flush_requested();
    }

    /// A process that has stopped, or whose only disk has failed, is no more.
    pub(super) fn settle(&mut self, at: usize) -> Checked {
        if self.nodes[at].process.is_none() {
            return Ok(());
        }
        self.look_around(at);
        // Also at who ends now: others may have been shown what it has made visible in its last moment. Whoever looks does
        // no harm.
        let committed = self.model.committed();
        let disk = std::sync::Arc::clone(&self.nodes[at].disk);
        disk.read_remains(|| self.check_node(at))?;
        let has_stopped = self.nodes[at].disk.has_stopped();
        let is_doomed = self.nodes[at].process.as_ref().is_some_and(|process| process.is_doomed);
        if has_stopped || is_doomed || self.is_offline(at) {
            let has_failed = self.nodes[at].disk.has_failed_sync();
            self.counts.add(match (has_stopped, self.nodes[at].is_cut_short) {
                (true, true) => "process ends between two messages",
                (true, false) => "crash amid a call of the disk",
                (false, _) => "disk failed",
            });
            let loses_power = has_failed || self.chance.happens(5_000);
            if self.model.committed() > committed {
                self.counts.add("records become visible in the last moment of a process");
            }
            self.crash(at, loses_power);
        }
        Ok(())
    }

    /// The process closes its logs, and only then ends; whatever happens to the machine afterwards loses nothing.
    fn stop_cleanly(&mut self, at: usize, why: &'static str) {
        let Some(process) = &self.nodes[at].process else { return };
        let Some(epoch) = process.epoch.filter(|_| process.leaves) else { return };
        self.nodes[at].disk.enter("close");
        process.replicas.all().iter().for_each(|replica| replica.retire());
        if process.directory.close(epoch).is_err() {
            let loses_power = self.nodes[at].disk.has_failed_sync() || self.chance.happens(5_000);
            self.counts.add("end that was to be clean");
            return self.crash(at, loses_power);
        }
        let loses_power = self.chance.happens(5_000);
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} ends cleanly, power lost: {loses_power}"));
        self.counts.add(why);
        self.nodes[at].is_clean = true;
        self.end_process(at, loses_power);
    }

    pub(super) fn crash(&mut self, at: usize, loses_power: bool) {
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} stops, power lost: {loses_power}"));
        self.counts.add(if loses_power { "power lost" } else { "process killed" });
        self.end_process(at, loses_power);
    }

    fn end_process(&mut self, at: usize, loses_power: bool) {
        let epoch = self.nodes[at].process.as_ref().and_then(|process| process.epoch);
        self.stop_node(at, loses_power);
        self.lose_connection(at, epoch);
        self.model.forget(at);
        let longest = if self.chance.happens(7_000) { 400 } else { 5_000 };
        let delay = Duration::from_millis(10 + self.chance.below(longest) as u64);
        self.after(if self.is_healing { IMPATIENCE } else { delay }, Event::Start(at));
    }

    fn stop_node(&mut self, at: usize, loses_power: bool) {
        self.nodes[at].end_process(loses_power);
        if self.is_cached && loses_power && !self.nodes[at].is_clean {
            self.model.tear(at);
        }
    }

    /// A process begins where the one before it has left off.
    pub(super) fn start(&mut self, at: usize) -> Checked {
        if self.nodes[at].process.is_some() {
            return Ok(());
        }
        self.nodes[at].time(self.now);
        if self.nodes[at].life > 0 && !self.is_healing && self.chance.happens(900) {
            self.wipe(at);
        }
        let plan = self.nodes[at].plan;
        self.nodes[at].disk.set_plan(plan);
        self.nodes[at].disk.enter("recovery");
        let opened = self.nodes[at].open(self.is_cached);
        let directory = match opened {
            Ok(directory) if !self.nodes[at].disk.has_stopped() => directory,
            Ok(directory) => {
                drop(directory);
                self.stop_node(at, true);
                self.after(IMPATIENCE, Event::Start(at));
                return Ok(());
            }
            Err(error) => {
                let what = format!("it cannot be opened: {error}");
                return Err(Violation::of(Law::Reason, what));
            }
        };
        let incarnation = self.incarnation();
        let replicas = std::sync::Arc::new(ottla_broker::parts::Replicas::default());
        directory.add_listener(std::sync::Arc::clone(&replicas) as _);
        let number = self.number();
        let node = &mut self.nodes[at];
        (node.life, node.is_clean) = (number, false);
        let (known, id) = (node.applied, node.id);
        node.process = Some(Process {
            directory,
            replicas,
            image: ottla_metadata::Image::new("cluster"),
            applied: 0,
            incarnation,
            // The bug makes logs before the metadata tells of this process.
            has_begun: self.bug == Some(Bug::MetadataReplayed),
            strays: Default::default(),
            epoch: None,
            follows: Default::default(),
            questions: Default::default(),
            cut_off: Default::default(),
            parked: Vec::new(),
            produces: Vec::new(),
            zombie_in: Default::default(),
            coordinators: Vec::new(),
            taken_up: 0,
            alter: None,
            flush_is_due: false,
            leaves: false,
            is_doomed: false,
            looks_at: None,
        });
        self.note(|| format!("{id:?} starts with {known} commits"));
        self.counts.add("process started");
        let known = match self.bug {
            Some(Bug::MetadataReplayed) => known - self.chance.below(6).min(known),
            _ => known,
        };
        self.learn(at, known)?;
        self.wake(at, Duration::ZERO, Wake::Register);
        self.wake(at, HOUSEKEEPING, Wake::Housekeep);
        self.settle(at)
    }

    fn wipe(&mut self, at: usize) {
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} gets an empty disk"));
        self.counts.add("disk wiped");
        self.nodes[at].wipe(self.bug == Some(Bug::WipedDiskCounted));
    }

    pub(super) fn resume(&mut self, at: usize) -> Checked {
        let Some(paused) = self.nodes[at].wake_up(self.now) else { return Ok(()) };
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} wakes up"));
        if paused > SESSION && self.nodes[at].registration().is_some() {
            self.counts.add("process paused for longer than its session");
        }
        Ok(())
    }
}

/// Whether there are records of an epoch in a log.
fn knows(log: &ottla_log::Log, epoch: ottla_base::LeaderEpoch) -> bool {
    log.end_offset_for_epoch(epoch).is_some_and(|(found, _)| found == epoch)
}

fn brief(body: &Body) -> String {
    let text = format!("{body:?}");
    match body {
        // The partitions in it are in no order.
        Body::Flushed(report) => format!("Flushed in {} bytes", report.len()),
        Body::Fetched { .. } | Body::Produce(_) => text.chars().take(200).collect(),
        _ => text,
    }
}
