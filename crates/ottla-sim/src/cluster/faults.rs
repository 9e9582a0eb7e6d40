//! What goes wrong, and when.

use std::time::Duration;

use super::node::Wake;
use super::world::{Event, World};
use crate::Plan;
use crate::law::Checked;
use crate::links::Weather;

/// How long a broker waits that wants to end.
const LEAVING_MAX: Duration = Duration::from_millis(1_500);

impl World {
    pub(super) fn go_wrong(&mut self) -> Checked {
        if self.is_healing {
            return Ok(());
        }
        let pause = if self.chance.happens(3_000) { 100 } else { 1_200 };
        let pause = Duration::from_millis(20 + self.chance.below(pause) as u64);
        self.after(pause, Event::Fault);
        let at = self.chance.below(self.nodes.len());
        match self.chance.below(100) {
            0..16 => self.kill(at),
            16..22 => self.ask_to_leave(at),
            22..36 => self.pause(at),
            36..52 => self.cut_links(at),
            52..66 => {
                if !self.network.links.are_whole() {
                    self.counts.add("links healed");
                    self.network.links.heal();
                }
            }
            66..78 => self.change_weather(),
            78..84 => self.jump_clock(at),
            84..90 => self.slow_disk(at),
            90..94 => self.disturb_disk(at),
            94..96 => self.learn_late(at),
            _ => return self.leave_controller_alone(),
        }
        Ok(())
    }

    /// Its connections break, and whoever reaches a majority takes its place.
    fn leave_controller_alone(&mut self) -> Checked {
        let before = self.controller.host.filter(|host| self.is_controller(*host));
        self.fail_over()?;
        if before.is_some() && self.controller.host != before {
            self.counts.add("controller left alone");
        }
        Ok(())
    }

    /// At once, or amid what the process says to several others.
    fn kill(&mut self, at: usize) {
        if self.nodes[at].process.is_none() {
            return;
        }
        if self.chance.happens(2_500) {
            self.nodes[at].sends = Some(self.chance.below(30));
        } else {
            let loses_power = self.chance.happens(5_000);
            self.crash(at, loses_power);
        }
    }

    /// A controlled shutdown.
    fn ask_to_leave(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        if process.epoch.is_none() || process.leaves {
            return;
        }
        process.leaves = true;
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} is asked to end"));
        self.wake(at, Duration::ZERO, Wake::HeartbeatAgain);
        self.wake(at, LEAVING_MAX, Wake::GiveUpLeaving);
    }

    /// Long enough to be fenced, sometimes.
    fn pause(&mut self, at: usize) {
        let longest = if self.chance.happens(5_000) { 800 } else { 5_000 };
        let pause = Duration::from_millis(50 + self.chance.below(longest) as u64);
        self.pause_for(at, pause);
    }

    pub(super) fn pause_for(&mut self, at: usize, pause: Duration) {
        if !self.nodes[at].is_running() {
            return;
        }
        let id = self.nodes[at].id;
        self.note(|| format!("{id:?} pauses for {pause:?}"));
        self.counts.add("process paused");
        self.nodes[at].pause(self.now, self.now + pause);
        self.after(pause, Event::Resume(at));
    }

    /// Whoever applies metadata at a node is busy with something else.
    pub(super) fn learn_late(&mut self, at: usize) {
        // Whoever starts has read what there is before it does anything.
        if !self.nodes[at].is_running() {
            return;
        }
        let pause = Duration::from_millis(500 + self.chance.below(3_500) as u64);
        self.nodes[at].learns_from = Some(self.now + pause);
        self.note(|| format!("metadata waits at {at} for {pause:?}"));
    }

    fn cut_links(&mut self, at: usize) {
        let count = self.nodes.len();
        let other = (at + 1 + self.chance.below(count - 1)) % count;
        match self.chance.below(5) {
            4 => self.cut_clients_off(at),
            0 => {
                self.counts.add("link cut one way");
                self.network.links.cut(at, other);
            }
            1 | 2 => {
                self.counts.add("link cut");
                self.network.links.cut(at, other);
                self.network.links.cut(other, at);
            }
            _ => {
                self.counts.add("node cut off");
                for other in (0..count).filter(|other| *other != at) {
                    self.network.links.cut(at, other);
                    self.network.links.cut(other, at);
                }
            }
        }
        self.note(|| format!("links of {at} to {other} are cut"));
    }

    /// From a node that the others reach: it hears no questions, or its answers do not get through, or both.
    fn cut_clients_off(&mut self, at: usize) {
        let clients = self.nodes.len();
        let which = self.chance.below(3);
        self.counts.add("node cut off from clients");
        if which != 0 {
            self.network.links.cut(at, clients);
        }
        if which != 1 {
            self.network.links.cut(clients, at);
        }
    }

    fn change_weather(&mut self) {
        self.network.weather = Weather::draw(&mut self.chance);
    }

    fn jump_clock(&mut self, at: usize) {
        let jump = Duration::from_millis(self.chance.below(4_000) as u64);
        let clock = &self.nodes[at].clock;
        if self.chance.happens(5_000) {
            self.counts.add("clock jumped");
            clock.advance(jump);
        } else {
            self.counts.add("wall clock set back");
            let now = ottla_env::Clock::now_ms(&**clock).0 - jump.as_millis() as i64;
            clock.set(ottla_base::Timestamp(now));
        }
    }

    fn slow_disk(&mut self, at: usize) {
        let longest = [0, 60, 600, 4_000][self.chance.below(4)];
        if longest > 0 {
            self.counts.add("slow disk");
        }
        self.nodes[at].flush_takes = Duration::from_millis(self.chance.below(longest + 1) as u64);
    }

    /// The process stops amid a call of the disk, or calls fail.
    fn disturb_disk(&mut self, at: usize) {
        if self.nodes[at].process.is_none() {
            return;
        }
        let plan = match self.chance.below(3) {
            0 => Plan { sync_error: 400, ..Plan::default() },
            _ => Plan { stop_in: Some(self.chance.below(60) as u64), ..Plan::default() },
        };
        self.nodes[at].plan = Plan::default();
        self.nodes[at].disk.set_plan(plan);
    }
}
