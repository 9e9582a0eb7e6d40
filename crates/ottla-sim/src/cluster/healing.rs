//! In the end nothing goes wrong any more, and everything must go on: each partition has a leader, all replicas are in sync,
//! hold the same, have what was acknowledged, and take more records.
//!
//! Left out is what has lost all its disks that counted: there is nobody who could lead it.

use ottla_base::{BrokerId, Uuid};
use ottla_coordinator::group::group_partition;
use ottla_metadata::topic_name::CONSUMER_OFFSETS;

use super::clients::{Client, FIRST_LAST, PRODUCED, TOPICS};
use super::members::{GROUPS, Owes};
use super::network::Key;
use super::world::{Event, World};
use crate::Plan;
use crate::law::{Checked, Law, Violation, law};
use crate::links::Weather;

impl World {
    pub(super) fn heal(&mut self) {
        self.note(|| "all heals".to_owned());
        self.is_healing = true;
        self.network.links.heal();
        self.network.weather = Weather::default();
        for at in 0..self.nodes.len() {
            self.nodes[at].flush_takes = Default::default();
            self.nodes[at].learns_from = None;
            self.nodes[at].sends = None;
            self.nodes[at].plan = Plan::default();
            self.nodes[at].disk.set_plan(Plan::default());
            if self.nodes[at].process.is_none() {
                self.after(Default::default(), Event::Start(at));
            }
            if self.nodes[at].paused_until.is_some() {
                self.nodes[at].paused_until = Some(self.now);
                self.after(Default::default(), Event::Resume(at));
            }
        }
    }

    /// Whoever has produced so far stops, and each partition gets one batch more.
    pub(super) fn say_last_words(&mut self) -> Checked {
        for topic in TOPICS {
            if self.controller.image.topic_by_name(topic).is_none() {
                self.create_topic(topic)?;
            }
        }
        self.clients.iter_mut().for_each(|client| client.stops = true);
        self.members.iter_mut().for_each(|member| member.owes = Some(Owes::Commit));
        let image = self.controller.image.clone();
        let keys = image.topics().flat_map(|topic| {
            let index = |(index, _)| (&*topic.name, index);
            topic.partitions().map(index)
        });
        for (name, index) in keys {
            let Some(topic) = PRODUCED.iter().find(|topic| **topic == name) else { continue };
            self.clients.push(Client::last(topic, index));
            self.after(Default::default(), Event::Client(self.clients.len() - 1));
        }
        Ok(())
    }

    pub(super) fn check_rest(&mut self) -> Checked {
        let image = self.controller.image.clone();
        for at in 0..self.nodes.len() {
            let id = self.nodes[at].id;
            let broker = image.broker(id);
            let is_there = broker.is_some_and(|broker| !broker.fenced);
            law!(AtRest, is_there, "at rest {id:?} is not back: {broker:?}");
        }
        for topic in image.topics() {
            for (index, partition) in topic.partitions() {
                let key = (topic.id, index);
                let name = format!("at rest {}-{index}", topic.name);
                let lost = |id: &BrokerId| partition.directory_of(*id) == Some(Uuid::LOST_DIR);
                let heirs = [
                    &partition.isr,
                    &partition.eligible_leader_replicas,
                    &partition.last_known_elr,
                ];
                let heirs = heirs.into_iter().find(|brokers| !brokers.is_empty());
                if heirs.is_none_or(|brokers| brokers.iter().all(lost)) {
                    self.counts.add("all disks lost that counted");
                    continue;
                }
                law!(
                    AtRest,
                    partition.leader != BrokerId::NONE,
                    "{name}: nobody leads: {partition:?}"
                );
                law!(
                    AtRest,
                    partition.isr.len() == partition.replicas.len() && !partition.is_moving(),
                    "{name}: not all are in sync: {partition:?}"
                );
                self.check_equal(key, &partition.replicas, &name)?;
                self.check_acknowledged(key, &name)?;
                let said = self.clients[FIRST_LAST..]
                    .iter()
                    .find(|it| it.topic == &*topic.name && it.partition == index);
                let min = said.is_none_or(|client| client.has_said_last_words);
                let can = partition.replicas.len();
                law!(
                    AtRest,
                    min,
                    "{name}: a produce is not acknowledged by {can} replicas: {partition:?}"
                );
                if &*topic.name == CONSUMER_OFFSETS {
                    self.check_groups(key, partition.leader, topic.partition_count())?;
                }
            }
        }
        Ok(())
    }

    fn check_groups(&mut self, key: Key, leader: BrokerId, partitions: usize) -> Checked {
        for group in GROUPS {
            if group_partition(group, partitions as i32) == key.1.0 {
                self.check_group(group)?;
            }
        }
        let is_coordinated = self.check_coordinator(leader.0 as usize - 1, key)?;
        law!(AtRest, is_coordinated, "at rest {key:?} is not coordinated by {leader:?}");
        Ok(())
    }

    fn check_equal(&self, key: Key, replicas: &[BrokerId], name: &str) -> Checked {
        let committed = self.committed_of(key);
        let mut ends = Vec::new();
        for id in replicas {
            let process = self.nodes[id.0 as usize - 1].process.as_ref();
            let missing = |what: String| Violation::of(Law::AtRest, what);
            let process = process.ok_or_else(|| missing(format!("{id:?} does not run")))?;
            let replica = process.replicas.find(key.0, key.1.0);
            let replica = replica.ok_or_else(|| missing(format!("{name}: no log on {id:?}")))?;
            ends.push((replica.log().log_end_offset(), replica.log().flushed_offset()));
        }
        ends.dedup();
        law!(
            Equal,
            ends.len() == 1,
            "{name}: the replicas differ: {ends:?}, {committed} committed"
        );
        Ok(())
    }
}
