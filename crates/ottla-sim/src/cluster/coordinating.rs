//! A node coordinates groups: it takes up the partitions of `__consumer_offsets` that it leads, reads them, answers, and puts
//! them down. Machines and logs are the broker's own; played is what its tasks do: when each of them gets its turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::{ErrorCode, LeaderEpoch, Offset};
use ottla_broker::parts::{
    Coordinator, Event, LoadError, LogSettings, PartitionLog, Replica, ReplySender,
};
use ottla_coordinator::group::{GroupShard, Query, Reply, Request, Settings, group_partition};
use ottla_env::Clock;
use ottla_metadata::topic_name::CONSUMER_OFFSETS;
use ottla_protocol::messages::HeartbeatResponse;
use ottla_records::Compression;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::Bug;
use super::group_laws::{Plain, Promise};
use super::network::{Body, Key, Place};
use super::node::{Process, Wake};
use super::world::World;
use crate::law::{Checked, Law, Violation};

/// What a client asks a group's coordinator.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Request(Request),
    Query(Query),
}

impl Ask {
    fn event(self, reply: ReplySender<GroupShard>) -> Event<GroupShard> {
        match self {
            Self::Request(request) => Event::Ask(request, reply),
            Self::Query(query) => Event::Query(query, reply),
        }
    }

    pub(super) fn is_commit(&self) -> bool {
        matches!(self, Self::Request(Request::Commit(_)))
    }

    fn is_rebalance(&self) -> bool {
        matches!(self, Self::Request(Request::Join(_) | Request::Sync(_)))
    }
}

/// Who asks, and for the how manieth time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) member: usize,
    pub(super) attempt: u64,
}

/// A question that a coordinator has heard and not answered.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    ask: Ask,
    answer: Receiver<Result<Reply, ErrorCode>>,
    promise: Promise,
}

/// A partition that a node has taken up, for as long as nobody else leads.
#[derive(Debug)]
pub(super) struct Coordinated {
    /// No other that this process has taken up has it.
    number: u64,
    pub(super) key: Key,
    /// The leader epoch in which it was taken up.
    pub(super) since: LeaderEpoch,
    /// That of its last turn.
    epoch: LeaderEpoch,
    state: State,
    /// Whoever asks does not find it any more.
    is_put_down: bool,
    /// Its task does not get its turn before.
    busy_until: Option<Duration>,
    inbox: VecDeque<(Asker, Ask)>,
    asked: Vec<Asked>,
    /// When it had its last turn.
    pub(super) high_watermark: Offset,
    /// What its log says.
    pub(super) plain: Plain,
    /// What its log says below the high watermark.
    pub(super) committed: Plain,
    /// Where its log ended when it was read.
    pub(super) loaded: Offset,
    /// The generation of each group that it has told somebody of, and how often the group was deleted before.
    pub(super) told: BTreeMap<(ByteString, u32), i32>,
}

#[derive(Debug)]
enum State {
    TakenUp(PartitionLog),
    Loading(PartitionLog),
    Up(Box<Coordinator<GroupShard>>),
    Ended,
}

impl Process {
    /// This node leads a partition of the topic.
    pub(super) fn take_up(&mut self, replica: &Arc<Replica>, clock: Arc<dyn Clock>) {
        let Some(epoch) = replica.led_epoch() else { return };
        let key = (replica.topic_id, replica.partition.partition);
        let is_it =
            |it: &Coordinated| it.key == key && replica.has_led_since(it.since) && !it.is_put_down;
        if self.coordinators.iter().any(is_it) {
            return;
        }
        self.put_down(key);
        self.taken_up += 1;
        let log = PartitionLog::new(Arc::clone(replica), epoch, LOG_SETTINGS, clock);
        self.coordinators.push(Coordinated {
            number: self.taken_up,
            key,
            since: epoch,
            epoch,
            state: State::TakenUp(log),
            is_put_down: false,
            busy_until: None,
            inbox: VecDeque::new(),
            asked: Vec::new(),
            high_watermark: Offset(-1),
            plain: Plain::default(),
            committed: Plain::default(),
            loaded: Offset(-1),
            told: BTreeMap::new(),
        });
    }

    /// It leads one no longer.
    pub(super) fn put_down(&mut self, key: Key) {
        let of_it = self.coordinators.iter_mut().filter(|it| it.key.1 == key.1);
        of_it.for_each(|it| it.is_put_down = true);
    }

    /// When a task of a coordinator gets its turn that it does not get at once.
    pub(super) fn coordinators_busy_until(&self) -> impl Iterator<Item = Duration> {
        self.coordinators.iter().filter_map(|it| it.busy_until)
    }

    /// When coordinators look at their timers, on this node's clock.
    pub(super) fn coordinators_deadlines(&self) -> impl Iterator<Item = Duration> {
        self.coordinators.iter().filter_map(|it| match &it.state {
            State::Up(coordinator) => coordinator.next_deadline(),
            State::TakenUp(_) | State::Loading(_) | State::Ended => None,
        })
    }
}

impl World {
    /// A client asks whom it takes for its group's coordinator.
    pub(super) fn hear_ask(
        &mut self,
        at: usize,
        asker: Asker,
        group: &str,
        mut ask: Ask,
    ) -> Option<Body> {
        if let Ask::Request(Request::Join(join)) = &mut ask {
            join.random = self.incarnation();
        }
        let process = self.nodes[at].process.as_mut()?;
        let topic = process.image.topic_by_name(CONSUMER_OFFSETS);
        let index = topic.map(|topic| group_partition(group, topic.partition_count() as i32));
        let found =
            process.coordinators.iter_mut().find(|it| Some(it.key.1.0) == index && !it.is_put_down);
        let result = match found.map(|it| (&it.state, &mut it.inbox)) {
            Some((State::Up(_), inbox)) => {
                inbox.push_back((asker, ask));
                return None;
            }
            Some((State::TakenUp(_) | State::Loading(_), _)) => match ask {
                // While the group is read nobody's session ends.
                Ask::Request(Request::Heartbeat(_)) => {
                    Ok(Reply::Heartbeat(HeartbeatResponse::default()))
                }
                Ask::Request(_) | Ask::Query(_) => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            },
            Some((State::Ended, _)) | None => Err(ErrorCode::NOT_COORDINATOR),
        };
        if let Err(code) = result {
            self.counts.add(format!("group: {code}"));
        }
        Some(Body::Answer { asker, result: Box::new(result) })
    }

    /// Each coordinator of a node has its turn, if it has any reason to.
    pub(super) fn coordinate(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        if process.coordinators.is_empty() {
            return;
        }
        let mut coordinators = std::mem::take(&mut process.coordinators);
        self.nodes[at].disk.enter("coordinate");
        for coordinated in &mut coordinators {
            if let Err(broken) = self.take_turn(at, coordinated) {
                self.model.broken.get_or_insert(broken);
            }
        }
        coordinators.retain(|it| !matches!(it.state, State::Ended));
        if let Some(process) = &mut self.nodes[at].process {
            process.coordinators = coordinators;
        }
    }

    fn take_turn(&mut self, at: usize, it: &mut Coordinated) -> Checked {
        match std::mem::replace(&mut it.state, State::Ended) {
            State::TakenUp(log) => {
                let longest = if self.chance.happens(2_500) { 1_500 } else { 4 };
                let takes = Duration::from_millis(self.chance.below(longest) as u64);
                self.wake(at, takes, Wake::Load(it.number));
                it.state = State::Loading(log);
            }
            State::Loading(log) if !it.is_put_down && log.is_led() => {
                it.state = State::Loading(log)
            }
            State::Loading(_) => self.counts.add("coordinator ends while it loads"),
            State::Ended => {}
            State::Up(coordinator) if self.waits(at, it, &coordinator) => {
                it.state = State::Up(coordinator);
            }
            State::Up(mut coordinator) => {
                let goes_on = self.run(at, it, &mut coordinator)?;
                if goes_on {
                    it.state = State::Up(coordinator);
                } else {
                    self.end(at, it, coordinator)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is nothing to do for the task, or it has not got its turn yet.
    fn waits(
        &mut self,
        at: usize,
        it: &mut Coordinated,
        coordinator: &Coordinator<GroupShard>,
    ) -> bool {
        match it.busy_until.take() {
            Some(until) if until > self.now => {
                it.busy_until = Some(until);
                return true;
            }
            Some(_) => return false,
            None => {}
        }
        let (replica, now) = (coordinator.replica(), self.nodes[at].time(self.now));
        let leads = replica.has_led_since(it.since);
        let has_moved = replica.high_watermark() != it.high_watermark;
        let is_due = coordinator.next_deadline().is_some_and(|due| due <= now);
        if leads && !has_moved && !is_due && it.inbox.is_empty() {
            return true;
        }
        if !self.chance.happens(if leads { 200 } else { 5_000 }) {
            return false;
        }
        self.counts.add(if leads { "coordinator is late" } else { "coordinator ends late" });
        // What the next leader has committed takes a while to be heard of.
        let longest = if leads { 75 } else { 600 };
        let late = Duration::from_millis(5 + self.chance.below(longest) as u64);
        it.busy_until = Some(self.now + late);
        true
    }

    /// What a task does until it waits. Whether it will be woken again.
    fn run(
        &mut self,
        at: usize,
        it: &mut Coordinated,
        coordinator: &mut Coordinator<GroupShard>,
    ) -> Checked<bool> {
        let now = self.nodes[at].time(self.now);
        let disk = Arc::clone(&self.nodes[at].disk);
        let log = coordinator.replica().log();
        let mut is_due = coordinator.next_deadline().is_some_and(|due| due <= now);
        loop {
            let leads = self.settle_coordinator(coordinator);
            if disk.has_stopped() {
                // It says nothing any more.
                return Ok(true);
            }
            it.high_watermark = coordinator.replica().high_watermark();
            if let Some(epoch) = coordinator.replica().led_epoch().filter(|_| leads)
                && std::mem::replace(&mut it.epoch, epoch) < epoch
            {
                self.counts.add("coordinator goes on in a later epoch");
            }
            if leads {
                disk.calmly(|| it.plain.read_on(&log))?;
                disk.calmly(|| it.committed.read_until(it.high_watermark, &log))?;
            }
            self.give_answers(at, it)?;
            if !leads {
                return Ok(false);
            }
            if std::mem::take(&mut is_due) {
                let before = it.plain.removed;
                coordinator.on_time();
                if !disk.has_stopped() {
                    disk.calmly(|| it.plain.read_on(&log))?;
                }
                if it.plain.removed > before {
                    self.counts.add("offsets expired");
                }
            } else if let Some((asker, ask)) = it.inbox.pop_front() {
                let (sender, answer) = tokio::sync::oneshot::channel();
                let before = log.log_end_offset();
                let mut promise = self.promise(at, it, &ask)?;
                coordinator.on_event(ask.clone().event(sender));
                if !disk.has_stopped() {
                    disk.calmly(|| promise.is_placed(before, &log))?;
                    self.note_place(it.key, &ask, &promise);
                }
                it.asked.push(Asked { asker, ask, answer, promise });
            } else {
                coordinator.shard().check();
                return Ok(true);
            }
        }
    }

    fn settle_coordinator(&self, coordinator: &mut Coordinator<GroupShard>) -> bool {
        let replica = Arc::clone(coordinator.replica());
        match self.bug {
            Some(Bug::CommitNotAwaited) => coordinator.on_committed(replica.log().log_end_offset()),
            Some(Bug::FollowersWatermark) => coordinator.on_committed(replica.high_watermark()),
            _ => {}
        }
        coordinator.settle() || self.bug == Some(Bug::CoordinatorNotPutDown)
    }

    fn give_answers(&mut self, at: usize, it: &mut Coordinated) -> Checked {
        for mut asked in std::mem::take(&mut it.asked) {
            let result = match asked.answer.try_recv() {
                Ok(result) => result,
                Err(TryRecvError::Closed) => Err(ErrorCode::NOT_COORDINATOR),
                Err(TryRecvError::Empty) => {
                    it.asked.push(asked);
                    continue;
                }
            };
            if let Ok(reply) = &result {
                self.hold_to(at, it, &asked.ask, &asked.promise, reply)?;
            }
            self.answer(at, asked.asker, result);
        }
        Ok(())
    }

    fn answer(&mut self, at: usize, asker: Asker, result: Result<Reply, ErrorCode>) {
        if let Err(code) = &result {
            self.counts.add(format!("group: {code}"));
        }
        let answer = Body::Answer { asker, result: Box::new(result) };
        self.send(Place::Node(at), Place::Clients, answer);
    }

    /// The task is over: whoever waits is sent away.
    fn end(
        &mut self,
        at: usize,
        it: &mut Coordinated,
        coordinator: Box<Coordinator<GroupShard>>,
    ) -> Checked {
        drop(coordinator);
        if it.asked.iter().any(|asked| asked.ask.is_commit()) {
            self.counts.add("coordinator ends while a commit waits");
        }
        if it.asked.iter().any(|asked| asked.ask.is_rebalance()) {
            self.counts.add("coordinator ends amid a rebalance");
        }
        self.counts.add("coordinator ends");
        self.give_answers(at, it)?;
        for (asker, _) in std::mem::take(&mut it.inbox) {
            self.answer(at, asker, Err(ErrorCode::NOT_COORDINATOR));
        }
        Ok(())
    }

    /// A partition that was taken up is read.
    pub(super) fn load(&mut self, at: usize, number: u64) -> Checked {
        let clock = Arc::clone(&self.nodes[at].clock);
        self.nodes[at].time(self.now);
        let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
        let found = process.coordinators.iter().position(|it| it.number == number);
        let Some(mut it) = found.map(|index| process.coordinators.remove(index)) else {
            return Ok(());
        };
        let State::Loading(log) = std::mem::replace(&mut it.state, State::Ended) else {
            return Ok(());
        };
        let disk = Arc::clone(&self.nodes[at].disk);
        disk.enter("load");
        let until = match self.bug {
            Some(Bug::LoadEndsEarly) => log.replica().high_watermark(),
            _ => log.end(),
        };
        let replica = Arc::clone(log.replica());
        match log.load_until(until, GroupShard::new(settings())) {
            Ok(loaded) => {
                let coordinator = Coordinator::new(loaded, log, clock);
                if disk.has_stopped() {
                    return Ok(());
                }
                disk.calmly(|| it.plain.read_on(&replica.log()))?;
                it.loaded = replica.log().log_end_offset();
                self.counts.add("coordinator loaded");
                self.check_loaded(at, &it, coordinator.shard())?;
                it.state = State::Up(Box::new(coordinator));
            }
            Err(LoadError::Stopped) => self.counts.add("coordinator ends while it loads"),
            Err(error) => {
                let has_reason = disk.has_stopped() || replica.check_disk().is_err();
                if !has_reason {
                    let what = format!("{:?} cannot be read: {error}", it.key);
                    return Err(Violation::of(Law::Readable, what));
                }
            }
        }
        if let Some(process) = &mut self.nodes[at].process {
            process.coordinators.push(it);
        }
        Ok(())
    }

    /// At rest: whoever coordinates knows what its log says.
    pub(super) fn check_coordinator(&mut self, at: usize, key: Key) -> Checked<bool> {
        let Some(process) = &mut self.nodes[at].process else { return Ok(false) };
        let found = process.coordinators.iter().position(|it| it.key == key && !it.is_put_down);
        let Some(it) = found.map(|index| process.coordinators.remove(index)) else {
            return Ok(false);
        };
        let State::Up(coordinator) = &it.state else { return Ok(false) };
        self.check_loaded(at, &it, coordinator.shard())?;
        Ok(true)
    }
}

/// What is not needed any more goes soon.
pub(super) const RETENTION: Duration = Duration::from_millis(2_500);
const RETENTION_CHECK: Duration = Duration::from_millis(900);

const LOG_SETTINGS: LogSettings =
    LogSettings { compression: Compression::None, store_timeout: Duration::from_millis(800) };

fn settings() -> Settings {
    Settings {
        session_timeout_min_ms: 100,
        initial_rebalance_delay_ms: 50,
        offsets_retention_ms: RETENTION.as_millis() as i64,
        offsets_retention_check_interval_ms: RETENTION_CHECK.as_millis() as i64,
        ..Settings::default()
    }
}
