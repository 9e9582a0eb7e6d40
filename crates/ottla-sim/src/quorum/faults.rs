//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

use ottla_base::BrokerId;
use tokio::time::Instant;

use super::Bug;
use super::network::{There, there};
use super::node::{Node, SNAPSHOT, directory_id};
use super::world::World;
use crate::Plan;
use crate::links::Weather;

/// How often, and how long, a stranded leader is asked: until after it has resigned.
const STRANDED_LOOKS: usize = 50;
const STRANDED_PAUSE: Duration = Duration::from_millis(20);

impl World {
    pub(super) async fn go_wrong(&mut self) {
        let ids = self.ids();
        let Some(id) = self.chance.pick(&ids).copied() else { return };
        match self.chance.below(100) {
            0..9 => {
                let loses_power = self.chance.happens(6_000);
                self.crash(id, loses_power);
            }
            9..11 => self.end_cleanly(id),
            11..35 => self.start_one().await,
            35..42 => self.cut_links(id),
            42..60 => self.heal_links(),
            60..66 => self.change_weather(),
            66..71 => self.slow_disk(id),
            71..76 => self.disturb_disk(id),
            76..80 => self.hold_up(id),
            80..82 => self.jump_clock(id),
            82..85 => self.lose_peer(id),
            85..88 => self.lose_disk(id),
            88..95 if self.changes_voters => self.change_voters(id),
            95 => self.stand_still(id),
            96..98 => {
                let active = self.active();
                active.into_iter().for_each(|id| self.stand_still(id));
            }
            98.. => self.strand_leader().await,
            _ => {}
        }
        self.crash_stopped();
    }

    fn crash(&mut self, id: usize, loses_power: bool) {
        let process = self.nodes.get(&id).and_then(Node::process);
        let was_active = process.is_some_and(|it| it.quorum.active().borrow().is_some());
        if was_active {
            self.shared.count("active controller crashed");
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.crash(loses_power, &self.shared);
        }
    }

    fn end_cleanly(&mut self, id: usize) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.end_cleanly(&self.shared);
        }
    }

    /// A process whose disk has stopped amid a call is over; so is one without a quorum.
    fn crash_stopped(&mut self) {
        let failed = self.nodes.values().filter(|node| node.has_failed()).map(|node| node.id);
        for id in failed.collect::<Vec<_>>() {
            let is_crash = self.nodes[&id].disk.has_stopped();
            let what = if is_crash { "crash amid a call of the disk" } else { "disk failed" };
            self.shared.count(what);
            let loses_power = self.chance.happens(6_000);
            self.crash(id, loses_power);
        }
    }

    async fn start_one(&mut self) {
        let is_away = |node: &&Node| node.process().is_none();
        let away = self.nodes.values().find(is_away).map(|node| node.id);
        let Some(id) = away else { return };
        self.start(id).await;
        if self.setup.is_forgetful && self.chance.happens(5_000) {
            self.stop_beside_snapshot(id);
        }
    }

    /// The process stops soon after the next snapshot has its name: one of those who were away may be sent it by the leader, and
    /// has its old log beside it then.
    fn stop_beside_snapshot(&mut self, id: usize) {
        let plan =
            Plan { stop_after: Some((SNAPSHOT, self.chance.below(6) as u64)), ..Plan::default() };
        if let Some(node) = self.nodes.get(&id).filter(|node| node.process().is_some()) {
            node.disk.set_plan(plan);
        }
    }

    fn cut_links(&mut self, id: usize) {
        let others: Vec<usize> = self.ids().into_iter().filter(|other| *other != id).collect();
        let Some(other) = self.chance.pick(&others).copied() else { return };
        let mut network = self.shared.network.lock();
        match self.chance.below(4) {
            0 => network.links.cut(id, other),
            1 => {
                network.links.cut(id, other);
                network.links.cut(other, id);
            }
            _ => {
                for other in others {
                    network.links.cut(id, other);
                    network.links.cut(other, id);
                }
            }
        }
        drop(network);
        self.shared.count("links cut");
        self.shared.note(|| format!("links of node {id} are cut"));
    }

    fn heal_links(&mut self) {
        let mut network = self.shared.network.lock();
        if network.links.are_whole() {
            return;
        }
        network.links.heal();
        drop(network);
        self.shared.count("links healed");
    }

    fn change_weather(&mut self) {
        self.shared.network.lock().weather = Weather::draw(&mut self.chance);
    }

    fn slow_disk(&mut self, id: usize) {
        let longest = [2, 2, 60, 600, 1_500][self.chance.below(5)];
        if longest > 2 {
            self.shared.count("slow disk");
        }
        self.shared.set_disk(id, Duration::from_millis(longest));
    }

    /// The process stops amid a call of the disk, or calls fail.
    fn disturb_disk(&mut self, id: usize) {
        let Some(node) = self.nodes.get(&id).filter(|node| node.process().is_some()) else {
            return;
        };
        let plan = match self.chance.below(5) {
            0 => Plan { sync_error: 1_000, ..Plan::default() },
            1 => Plan { no_space: 1_000, ..Plan::default() },
            _ => Plan { stop_in: Some(self.chance.below(40) as u64), ..Plan::default() },
        };
        self.shared.note(|| format!("disk of node {id}: {plan:?}"));
        node.disk.set_plan(plan);
    }

    /// Long enough for others to elect somebody else, sometimes.
    fn hold_up(&mut self, id: usize) {
        let pause = Duration::from_millis(50 + self.chance.below(2_500) as u64);
        self.shared.network.lock().hold_up(id, Instant::now() + pause);
        self.shared.count("node held up");
        self.shared.note(|| format!("node {id} is held up for {pause:?}"));
    }

    /// A connection breaks, of a node that may live.
    fn lose_peer(&mut self, id: usize) {
        let Some(there) = there(&self.shared.network, id) else { return };
        let leader = *there.quorum.leader().borrow();
        let Some(leader) = leader.filter(|leader| leader.id.0 != id as i32) else { return };
        self.shared.count("connection to the leader broken");
        let quorum = Arc::clone(&there.quorum);
        tokio::spawn(there.cover(async move { quorum.peer_lost(BrokerId(leader.id.0)).await }));
    }

    /// The active controller is cut off from all others, who elect another one; meanwhile it is asked what it sees, and
    /// they for what it does not. Half of the time their connections to it break at once, and they need not wait until it has
    /// given up.
    async fn strand_leader(&mut self) {
        let Some(stranded) = self.active() else { return };
        let others: Vec<usize> = self.ids().into_iter().filter(|id| *id != stranded).collect();
        if others.is_empty() {
            return;
        }
        {
            let mut network = self.shared.network.lock();
            for other in &others {
                network.links.cut(stranded, *other);
                network.links.cut(*other, stranded);
            }
        }
        self.shared.count("active controller cut off");
        self.shared.note(|| format!("node {stranded} is active, and cut off"));
        if self.chance.happens(5_000) {
            self.shared.count("all connections to a stranded leader broken");
            others.iter().for_each(|id| self.lose_peer(*id));
        }
        for _ in 0..STRANDED_LOOKS {
            self.pass(STRANDED_PAUSE).await;
            if self.shared.is_active_elsewhere(stranded) {
                self.shared.count("look asked of a stranded leader while another one is active");
            }
            self.ask_of(stranded, false);
            others.iter().for_each(|id| self.ask_of(*id, true));
        }
        self.heal_links();
    }

    /// The process is stopped and goes on later, as if nothing had happened: with timers that are all over at once, and with
    /// what has come meanwhile; at first it may see only the timers.
    fn stand_still(&mut self, id: usize) {
        let Some(there) = there(&self.shared.network, id).filter(|it| !it.standstill.is_on())
        else {
            return;
        };
        let pause = Duration::from_millis(50 + self.chance.below(4_000) as u64);
        let until = Instant::now() + pause;
        let deafness = if self.chance.happens(5_000) { 0 } else { 5 };
        self.shared.network.lock().hold_up(id, until + Duration::from_millis(deafness));
        there.standstill.begin();
        self.shared.count("process stood still");
        let was_active = *there.quorum.active().borrow();
        if was_active.is_some() {
            self.shared.count("active controller stood still");
        }
        self.shared.note(|| format!("node {id} stands still for {pause:?}"));
        let shared = Arc::clone(&self.shared);
        let quorum = Arc::downgrade(&there.quorum);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            // The same process, which has not ended meanwhile.
            let is_active = |it: &There| it.is_of(&quorum) && it.quorum.active().borrow().is_some();
            let is_active = self::there(&shared.network, id).as_ref().is_some_and(is_active);
            if is_active && shared.is_active_elsewhere(id) {
                shared.count("zombie wakes as active controller while another one is");
            }
            shared.note(|| format!("node {id} goes on"));
            there.standstill.end();
        });
    }

    /// A node comes back with an empty disk: one that no log names a voter, or is about to, so that nobody counts on what it had.
    fn lose_disk(&mut self, id: usize) {
        if self.setup.bug == Some(Bug::WipedDiskCounted) {
            return self.wipe_in_secret(id);
        }
        let is_named = self.nodes.values().any(|node| match node.process() {
            Some(process) => process.quorum.voters().iter().any(|it| it.id.0 == id as i32),
            None => true,
        });
        let is_named = is_named || self.shared.may_come_to_vote(id);
        let Some(node) = self.nodes.get_mut(&id).filter(|_| !is_named) else { return };
        self.disks += 1;
        node.crash(false, &self.shared);
        self.shared.history.lock().forget_votes(id);
        node.replace_disk(self.seed, directory_id(100 + self.disks));
        self.shared.count("disk of an observer replaced");
    }

    fn wipe_in_secret(&mut self, id: usize) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.crash(false, &self.shared);
        self.shared.history.lock().forget_votes(id);
        node.replace_disk(self.seed, directory_id(id));
    }
}
