//! A broker follows the metadata: logs come and go, replicas lead and follow. What is to be done is said by the broker's own
//! `topics/plan.rs`, and is done here as its `topics.rs` does it.

use std::sync::Arc;
use std::time::Duration;

use ottla_base::{PartitionIndex, TopicId, TopicPartition, Uuid};
use ottla_broker::parts::{Incarnation, Partitions, Replica, Standing, Step, Terms};
use ottla_env::Clock;
use ottla_log::{Log, LogConfig};
use ottla_metadata::{ConfigResource, Delta, Image, Partition, Topic, topic_name};
use ottla_records::Rules;
use ottla_replication::CommittedIsr;

use super::Bug;
use super::network::Key;
use super::node::{Node, Process};
use super::world::World;
use crate::Counts;
use crate::law::{Checked, Law, Violation};

pub(super) const LAG_MAX: Duration = Duration::from_millis(1_500);
pub(super) const MIN_ISR: &str = "min.insync.replicas";
const FETCH_BACKOFF: Duration = Duration::from_secs(1);

/// What is needed to follow metadata, without the rest of the world.
struct Follows<'a> {
    bug: Option<Bug>,
    me: Incarnation,
    directory_id: Uuid,
    now: Duration,
    clock: Arc<dyn Clock>,
    process: &'a mut Process,
    /// What was known before.
    before: Image,
    counts: &'a mut Counts,
    /// A disk that fails is a reason for anything.
    failures: Vec<String>,
}

impl World {
    /// Applies commits up to one, together or one by one.
    pub(super) fn learn(&mut self, at: usize, until: usize) -> Checked {
        let until = until.min(self.controller.commits.len());
        let (here, faults, bug) = (self.now, self.nodes[at].disk.faults(), self.bug);
        let node = &mut self.nodes[at];
        let (now, learns_from) = (node.time(here), node.learns_from);
        let (id, directory_id) = (node.id, node.directory_id);
        let clock: Arc<dyn Clock> = Arc::clone(&node.clock) as _;
        let Node { process: Some(process), disk, applied, metadata_waits, .. } = node else {
            return Ok(());
        };
        if process.applied >= until {
            return Ok(());
        }
        if learns_from.is_some_and(|from| here < from) {
            *metadata_waits = true;
            return Ok(());
        }
        if std::mem::take(metadata_waits) {
            self.counts.add("metadata learned late");
        }
        let before = process.image.clone();
        disk.enter("metadata");
        let mut delta = Delta::default();
        for commit in &self.controller.commits[process.applied..until] {
            for record in &commit.records {
                process.image.apply_into(record, &mut delta).unwrap();
            }
            process.image.offset = commit.last;
        }
        process.applied = until;
        *applied = until.max(*applied);
        let me = Incarnation { broker: id, id: process.incarnation };
        let counts = &mut self.counts;
        let failures = Vec::new();
        let mut follows =
            Follows { bug, me, directory_id, now, clock, process, before, counts, failures };
        follows.publish(&delta);
        let failures = follows.failures;
        let has_reason = disk.has_stopped() || disk.faults() > faults;
        let has_reason = has_reason || process.directory.check_health().is_err();
        match failures.first() {
            Some(failure) if !has_reason => {
                let what = format!("{id:?}: a log cannot be made or deleted: {failure}");
                Err(Violation::of(Law::Reason, what))
            }
            Some(_) => {
                // It would be without this log until it is started again.
                process.is_doomed = true;
                Ok(())
            }
            None => {
                let process = self.nodes[at].process.as_ref();
                if process.is_some_and(|process| process.epoch.is_some()) {
                    self.set_strays_aside(at);
                }
                Ok(())
            }
        }
    }

    pub(super) fn is_offline(&self, at: usize) -> bool {
        let process = self.nodes[at].process.as_ref();
        process.is_some_and(|process| process.directory.check_health().is_err())
    }

    /// Logs that nothing has come to own since the start are set aside, once the process is registered.
    pub(super) fn set_strays_aside(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        for (name, topic_id) in std::mem::take(&mut process.strays) {
            let log = process.directory.log(&name);
            let is_it = log.is_some_and(|log| log.topic_id() == topic_id);
            if is_it && process.directory.set_aside(&name).is_ok() {
                self.counts.add("stray log set aside");
            }
        }
    }
}

impl Follows<'_> {
    fn publish(&mut self, delta: &Delta) {
        let image = self.process.image.clone();
        let before = self.before.clone();
        let before = self.process.has_begun.then_some(&before);
        let Some(steps) = self.me.steps(before, &image, delta, false) else { return };
        steps.into_iter().for_each(|step| self.take(&image, step));
        self.process.has_begun = true;
    }

    fn take(&mut self, image: &Image, step: Step<'_>) {
        match step {
            Step::Begin => {
                let logs = self.process.directory.logs();
                let named = logs.iter().map(|log| (log.topic_partition().clone(), log.topic_id()));
                self.process.strays = self.me.strays(image, named);
            }
            Step::Gone { topic, held } => {
                held.into_iter().for_each(|index| self.drop_replica(topic, index));
            }
            Step::Made { topic, held } => self.follow_all(image, topic, &held),
            Step::Changed { topic, held, left } => {
                for index in left {
                    if self.process.replicas.find(topic.id, index.0).is_some() {
                        self.drop_replica(topic, index);
                    }
                }
                self.follow_all(image, topic, &held);
            }
            Step::Eligible { broker, is_active } => {
                self.process.replicas.on_eligibility_changed(broker, is_active);
            }
            Step::Reconfigured { topic } => self.reconfigure(image, topic),
        }
    }

    fn follow_all(&mut self, image: &Image, topic: &Topic, held: &Partitions<'_>) {
        for (index, partition) in held {
            match self.process.replicas.find(topic.id, index.0) {
                Some(replica) => self.settle(image, topic, *index, partition, &replica),
                None => self.create(image, topic, *index, partition),
            }
        }
    }

    fn reconfigure(&self, image: &Image, topic: &Topic) {
        for (index, partition) in topic.partitions() {
            if let Some(replica) = self.process.replicas.find(topic.id, index.0) {
                let min_isr = topic.least_isr(partition, min_insync_replicas(image, topic));
                replica.on_min_isr_changed(min_isr);
            }
        }
    }

    fn create(
        &mut self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) {
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
        self.process.strays.remove(&(name.clone(), Some(topic.id)));
        let assigned = partition.directory_of(self.me.broker).unwrap_or(Uuid::UNASSIGNED_DIR);
        let Some(log) = self.open_log(&name, topic.id, assigned) else { return };
        let high_watermark = log.noted_high_watermark();
        let high_watermark = high_watermark.unwrap_or_else(|| log.log_start_offset());
        let outboxes = &self.process.replicas.outboxes;
        let rules = Rules::new(name);
        let replica = Replica::new(self.me.broker, topic.id, log, high_watermark, rules, outboxes);
        let replica = Arc::new(replica);
        self.process.replicas.insert(Arc::clone(&replica));
        self.settle(image, topic, index, partition, &replica);
    }

    /// The log as it is on the disk, or a new one; none where it is said to be on another disk.
    fn open_log(&mut self, name: &TopicPartition, id: TopicId, assigned: Uuid) -> Option<Arc<Log>> {
        let directory = &self.process.directory;
        if let Some(log) = directory.log(name) {
            if log.topic_id() == Some(id) {
                log.set_config(Arc::new(log_config()));
                return Some(log);
            }
            drop(log);
            match directory.set_aside(name) {
                Ok(_) => self.counts.add("log of an earlier topic of this name set aside"),
                Err(error) => self.failures.push(error.to_string()),
            }
        }
        let is_here =
            [self.directory_id, Uuid::UNASSIGNED_DIR, Uuid::MIGRATING_DIR].contains(&assigned);
        if !is_here {
            self.counts.add("replica on a disk that is gone");
            return None;
        }
        let created = directory.create(name.clone(), id, Arc::new(log_config()));
        created.map_err(|error| self.failures.push(error.to_string())).ok()
    }

    fn settle(
        &mut self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        replica: &Arc<Replica>,
    ) {
        let terms = Terms {
            broker_epoch: self.me.registered(image).map(|broker| broker.epoch),
            min_insync_replicas: topic.least_isr(partition, min_insync_replicas(image, topic)),
            lag_max: LAG_MAX,
            fetch_backoff: FETCH_BACKOFF,
            now: self.now,
        };
        if self.learns_two_limits_at_once(image, topic, index, partition) {
            self.counts.add("smaller ISR and larger minimum learned at once");
            if self.bug == Some(Bug::IsrBeforeMinimum) {
                replica.on_isr_committed(CommittedIsr {
                    leader_epoch: partition.leader_epoch,
                    partition_epoch: partition.partition_epoch,
                    isr: partition.isr.iter().copied().collect(),
                });
            }
        }
        let standing = replica.follow_metadata(partition, &terms);
        let key: Key = (topic.id, index);
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            match standing {
                Standing::Leads => self.process.take_up(replica, Arc::clone(&self.clock)),
                Standing::Follows(_) | Standing::Idle => self.process.put_down(key),
            }
        }
        match standing {
            Standing::Follows(leader) => {
                let before = self.process.follows.insert(key, leader);
                if before != Some(leader) {
                    self.process.questions.remove(&key);
                }
            }
            Standing::Leads | Standing::Idle => {
                let led = replica.led_epoch();
                if led.is_some() && led != self.process.zombie_in.get(&key).copied() {
                    self.process.zombie_in.remove(&key);
                }
                self.process.follows.remove(&key);
                self.process.questions.remove(&key);
            }
        }
    }

    /// Whether a leader stays one, with fewer in sync and more asked for than it knew.
    fn learns_two_limits_at_once(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) -> bool {
        let before = self.before.partition(topic.id, index);
        before.is_some_and(|before| {
            let stays =
                (before.leader, before.leader_epoch) == (self.me.broker, partition.leader_epoch);
            let is_smaller = partition.isr.len() < before.isr.len();
            let min_isr = |image| partition.least_isr(min_insync_replicas(image, topic));
            stays
                && is_smaller
                && before.replicas == partition.replicas
                && min_isr(&self.before) < min_isr(image)
        })
    }

    fn drop_replica(&mut self, topic: &Topic, index: PartitionIndex) {
        let key = (topic.id, index);
        if &*topic.name == topic_name::CONSUMER_OFFSETS {
            self.process.put_down(key);
        }
        self.process.replicas.remove(topic.id, index);
        self.process.follows.remove(&key);
        self.process.questions.remove(&key);
        let name = TopicPartition { topic: Arc::clone(&topic.name), partition: index };
        if let Err(error) = self.process.directory.delete(&name) {
            self.failures.push(error.to_string());
        }
    }
}

/// Small segments, so that there are several.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 3_000,
        index_interval_bytes: 300,
        file_delete_delay_ms: 500,
        ..LogConfig::default()
    }
}

pub(super) fn min_insync_replicas(image: &Image, topic: &Topic) -> usize {
    let resource = ConfigResource::topic(Arc::clone(&topic.name));
    let own = image.config_value(&resource, MIN_ISR);
    own.and_then(|value| value.parse().ok()).unwrap_or(1)
}
