//! The world: its time, its events, and the order in which they come.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_base::{BrokerId, PartitionIndex, TopicId};

use super::Bug;
use super::clients::{Client, FIRST_LAST};
use super::controller::Controller;
use super::group_laws::Told;
use super::laws::Model;
use super::members::{MEMBERS, Member};
use super::network::{Body, Message, Network, Place};
use super::node::{Node, Wake};
use crate::law::Checked;
use crate::{Counts, Random};

#[derive(Debug)]
pub(super) enum Event {
    Deliver(Message),
    /// Something that a process wants to do later. It is nothing to the process after it.
    Wake {
        at: usize,
        life: u64,
        wake: Wake,
    },
    /// The controller looks at its deadlines.
    Control,
    /// Another controller takes over.
    Failover,
    Start(usize),
    Resume(usize),
    Client(usize),
    ClientTimeout {
        client: usize,
        attempt: u64,
    },
    Member(usize),
    MemberTimeout {
        member: usize,
        attempt: u64,
    },
    Admin,
    /// A broker is to lead.
    Prefer {
        topic: &'static str,
        index: PartitionIndex,
        leader: BrokerId,
    },
    Fault,
}

/// See the module.
pub struct World {
    pub(super) bug: Option<Bug>,
    pub(super) now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    numbered: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) controller: Controller,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) members: Vec<Member>,
    /// Of `__consumer_offsets`.
    pub(super) group_partitions: usize,
    pub(super) work: Random,
    pub(super) chance: Random,
    pub(super) model: Model,
    pub(super) told: Told,
    pub(super) counts: Counts,
    pub(super) is_healing: bool,
    /// Whether the page cache counts as the disk (`log.flush.on.commit=false`): then whoever loses power has lost what it
    /// acknowledged, and nobody may rely on it.
    pub(super) is_cached: bool,
    trace: Option<Vec<String>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Until everything heals.
const TROUBLE: Duration = Duration::from_secs(24);
const SETTLING: Duration = Duration::from_secs(14);
/// What the last produce of each partition may take.
const LAST_WORDS: Duration = Duration::from_secs(6);

/// A process and its log directory hold each other.
impl Drop for World {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.end_process(false));
    }
}

impl World {
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut work = Random::new(seed, 10);
        let is_cached = bug == Some(Bug::UncleanEndHidden) || seed % 4 == 3;
        let count = if work.happens(6_000) { 3 } else { 3 + work.below(3) };
        let nodes = (0..count).map(|at| Node::new(at, seed)).collect();
        let clients = (0..FIRST_LAST).map(|at| Client::new(at, &mut work)).collect();
        Self {
            bug,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            numbered: 0,
            nodes,
            controller: Controller::new(),
            network: Network::new(Random::new(seed, 12), count),
            clients,
            group_partitions: if work.happens(3_500) { 2 } else { 1 },
            members: (0..MEMBERS.len()).map(Member::new).collect(),
            work,
            chance: Random::new(seed, 11),
            model: Model::default(),
            told: Told::default(),
            counts: Counts::default(),
            is_healing: false,
            is_cached,
            trace: traced.then(Vec::new),
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.4} {}", now.as_secs_f64(), line()));
        }
    }

    pub(super) fn told(&mut self) -> (Counts, Vec<String>) {
        (std::mem::take(&mut self.counts), self.trace.take().unwrap_or_default())
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        let number = self.number();
        self.queue.insert((self.now + delay, number), event);
    }

    pub(super) fn wake(&mut self, at: usize, delay: Duration, wake: Wake) {
        let life = self.nodes[at].life;
        self.after(delay, Event::Wake { at, life, wake });
    }

    /// What was sent before the sender's process stopped is on its way, and afterwards nothing is.
    pub(super) fn send(&mut self, from: Place, to: Place, body: Body) {
        if let Place::Node(at) = from
            && !self.nodes[at].sends_one()
        {
            return;
        }
        let message = Message { from, to, body };
        self.network.keep_copy(&message, self.now);
        let fate = self.network.fate(&message);
        if let Some(seen) = fate.seen {
            self.counts.add(seen);
        }
        for delay in fate.arrivals {
            self.after(delay, Event::Deliver(message.clone()));
        }
    }

    /// Somebody begins to lead, or a life: that is when what was said before it does harm.
    pub(super) fn unstick(&mut self) {
        if self.is_healing {
            return;
        }
        for (delay, message, is_very_late) in self.network.unstick(self.now) {
            self.counts.add(if is_very_late {
                "report of a flush very late"
            } else {
                "report of a flush twice"
            });
            self.after(delay, Event::Deliver(message));
        }
    }

    /// Trouble, then healing, then rest.
    pub(super) fn play(&mut self) -> Checked {
        self.begin();
        self.run_until(TROUBLE)?;
        self.heal();
        self.run_until(TROUBLE + SETTLING)?;
        self.say_last_words()?;
        self.run_until(TROUBLE + SETTLING + LAST_WORDS)?;
        self.check_rest()
    }

    fn begin(&mut self) {
        for at in 0..self.nodes.len() {
            self.after(Duration::from_millis(at as u64), Event::Start(at));
        }
        self.after(Duration::from_millis(50), Event::Control);
        for client in 0..self.clients.len() {
            self.after(Duration::from_millis(300), Event::Client(client));
        }
        for member in 0..self.members.len() {
            self.after(Duration::from_millis(400), Event::Member(member));
        }
        self.after(Duration::from_millis(200), Event::Admin);
        self.after(Duration::from_millis(1_500), Event::Fault);
    }

    fn run_until(&mut self, end: Duration) -> Checked {
        while let Some(next) = self.queue.first_entry() {
            if next.key().0 > end {
                break;
            }
            let ((now, _), event) = next.remove_entry();
            self.now = now;
            self.take(event)?;
            self.bury()?;
        }
        self.now = end;
        Ok(())
    }

    fn take(&mut self, event: Event) -> Checked {
        if let Some(until) = self.paused_until(&event) {
            // It is as if nothing had happened meanwhile.
            self.after(until.saturating_sub(self.now), event);
            return Ok(());
        }
        match event {
            Event::Deliver(message) => self.deliver(message),
            Event::Wake { at, life, wake } if self.nodes[at].life == life => self.on_wake(at, wake),
            Event::Wake { .. } => Ok(()),
            Event::Control => self.control(),
            Event::Failover => self.fail_over(),
            Event::Start(at) => self.start(at),
            Event::Resume(at) => self.resume(at),
            Event::Client(client) => self.act(client),
            Event::ClientTimeout { client, attempt } => self.give_up(client, attempt),
            Event::Member(member) => self.act_as_member(member),
            Event::MemberTimeout { member, attempt } => self.give_up_asking(member, attempt),
            Event::Admin => self.administer(),
            Event::Prefer { topic, index, leader } => self.prefer(topic, index, leader),
            Event::Fault => self.go_wrong(),
        }
    }

    /// The active controller speaks in other nodes' events as well, and its process may end there.
    fn bury(&mut self) -> Checked {
        for at in 0..self.nodes.len() {
            if self.nodes[at].process.is_some() && self.nodes[at].disk.has_stopped() {
                self.settle(at)?;
            }
        }
        Ok(())
    }

    fn paused_until(&self, event: &Event) -> Option<Duration> {
        let at = match event {
            Event::Deliver(Message { to: Place::Node(at), .. }) | Event::Wake { at, .. } => *at,
            Event::Deliver(_)
            | Event::Control
            | Event::Failover
            | Event::Start(_)
            | Event::Resume(_)
            | Event::Client(_)
            | Event::ClientTimeout { .. }
            | Event::Member(_)
            | Event::MemberTimeout { .. }
            | Event::Admin
            | Event::Prefer { .. }
            | Event::Fault => return None,
        };
        self.nodes[at].paused_until
    }

    pub(super) fn new_topic_id(&mut self) -> TopicId {
        TopicId::from_u128(u128::from(self.number()) << 64 | 7)
    }
}
