//! What must hold, whatever happens; checked at a node after each event there, also after the one in which its process ends.
//!
//! - In each leader epoch one process leads at most.
//! - A leader's high watermark never falls within its epoch, and is nowhere beyond what its broker has on disk.
//! - What was visible once is the same wherever it is visible, for ever: it is *committed*. What was acknowledged with
//!   acks=all is committed where it was said to be, at the latest when all is at rest.
//! - The leader of the day, and each running member of the ISR, have all that is committed; the members on their disks.
//! - Whoever may lead from outside the ISR (KIP-966) has it as well, on its disk.
//! - Of idempotent producers nothing is committed twice.
//! - Whoever answers acks=all has, in the metadata that it knows, as many in the ISR as `min.insync.replicas` asks, or one
//!   less and somebody who may be about to join.
//!
//! Where the page cache counts as the disk, a machine that loses power may lose what was committed, and two things are
//! different, only there:
//!
//! - A replica that is *torn*, as that has happened to its machine, may lack something until its process is registered. From
//!   then on it is in the ISR, or eligible, only with everything.
//! - Where nobody is left who has everything for certain, who led last may lead with what it has; its election says so
//!   ([`Model::give_up`]). What it lacks is *lost*, and only if it is torn: a process that is killed loses nothing. Whoever
//!   does not lead since then may still show what is lost, until it hears of it, but nothing else; a leader of before that
//!   has not heard of it may even make more visible, and answer it: that is lost as well.
//!
//! In [`super::controller`]: epochs rise, and whoever leads was in sync, and is. In [`super::healing`]: in the end all goes on.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use ottla_broker::parts::Replica;
use ottla_log::Log;
use ottla_records::Batches;

use super::network::Key;
use super::node::Unacknowledged;
use super::publish::min_insync_replicas;
use super::world::World;
use crate::law::{Checked, Law, Violation, law};
use crate::log::batches::number_of;

/// A batch in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    base: Offset,
    next: Offset,
    epoch: i32,
    number: u64,
    pub(super) is_idempotent: bool,
}

/// What is known of a log without reading all of it again.
#[derive(Debug, Default)]
struct Seen {
    entries: Vec<Entry>,
    /// So many of them are known to be those that are committed.
    agreeing: usize,
    led: Option<(LeaderEpoch, Offset)>,
}

#[derive(Debug, Default)]
struct Partition {
    committed: Vec<Entry>,
    idempotent: BTreeSet<u64>,
    leaders: BTreeMap<i32, (usize, u64)>,
    /// The numbers of the batches that were acknowledged with acks=all, by where they were said to be.
    acknowledged: BTreeMap<Offset, u64>,
    /// Who leads next may lack something, and has said so.
    is_given_up: bool,
    /// The epoch of the last election that said so; who leads in an earlier one makes nothing visible any more.
    given_up_in: LeaderEpoch,
    /// What was committed and is no more.
    lost: Vec<Entry>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    partitions: BTreeMap<Key, Partition>,
    seen: BTreeMap<(usize, Key), Seen>,
    /// Replicas whose machine has lost power, with what was only in its page cache.
    torn: BTreeSet<(usize, Key)>,
    pub(super) broken: Option<Violation>,
}

impl Model {
    /// What a process knew is no more.
    pub(super) fn forget(&mut self, at: usize) {
        self.seen.retain(|(node, _), _| *node != at);
    }

    /// A machine has lost what was in its page cache.
    pub(super) fn tear(&mut self, at: usize) {
        self.torn.extend(self.partitions.keys().map(|key| (at, *key)));
    }

    /// Somebody is elected who may lack what is committed, and says so.
    pub(super) fn give_up(&mut self, key: Key, epoch: LeaderEpoch) {
        let partition = self.partitions.entry(key).or_default();
        (partition.is_given_up, partition.given_up_in) = (true, epoch);
    }

    /// A leader has answered with acks=all.
    pub(super) fn acknowledged(&mut self, waits: &Unacknowledged) {
        let Unacknowledged { key, number, base, epoch, .. } = *waits;
        let partition = self.partitions.entry(key).or_default();
        if epoch < partition.given_up_in {
            return;
        }
        let before = partition.acknowledged.insert(base, number);
        // Visible or not: what is committed is looked at after this event, and before the next.
        let mut known = before.into_iter().chain(partition.number_at(base));
        if known.any(|known| known != number) {
            let what = format!("{key:?}: {base} was acknowledged, and something else is there");
            self.broken.get_or_insert_with(|| Violation::of(Law::Acknowledged, what));
        }
    }

    /// How many batches were ever committed and are not lost.
    pub(super) fn committed(&self) -> usize {
        self.partitions.values().map(|partition| partition.committed.len()).sum()
    }

    /// The number of the batch that is committed there.
    pub(super) fn number_at(&self, key: Key, base: Offset) -> Option<u64> {
        self.partitions.get(&key)?.number_at(base)
    }

    fn read(&mut self, at: usize, key: Key, log: &Log) -> Result<(), String> {
        read_on(self.seen.entry((at, key)).or_default(), log)
    }

    /// Who leads first after an election that said so may lack something, and nobody has it any more. Says how much.
    fn lose(&mut self, at: usize, key: Key, epoch: LeaderEpoch) -> Option<usize> {
        let partition = self.partitions.get_mut(&key)?;
        if !partition.is_given_up || epoch < partition.given_up_in {
            return None;
        }
        let lost = partition.lose(self.seen.get_mut(&(at, key))?);
        let left = partition.committed.len();
        let others = self.seen.iter_mut().filter(|((_, it), _)| *it == key);
        others.for_each(|(_, seen)| seen.agreeing = seen.agreeing.min(left));
        Some(lost)
    }
}

impl Partition {
    /// What the new leader has is all that there is.
    fn lose(&mut self, seen: &mut Seen) -> usize {
        agree(self, seen);
        let lost = self.committed.split_off(seen.agreeing);
        for entry in &lost {
            self.idempotent.remove(&entry.number);
        }
        let (end, count) = (self.end(), lost.len());
        let is_there = |base, number| {
            seen.entries.iter().any(|entry| (entry.base, entry.number) == (base, number))
        };
        self.acknowledged.retain(|base, number| *base < end || is_there(*base, *number));
        self.lost.extend(lost);
        self.is_given_up = false;
        count
    }

    fn end(&self) -> Offset {
        self.committed.last().map_or(Offset(0), |entry| entry.next)
    }

    /// The number of the batch that is committed there.
    fn number_at(&self, base: Offset) -> Option<u64> {
        let found = self.committed.binary_search_by_key(&base, |entry| entry.base);
        found.ok().map(|at| self.committed[at].number)
    }
}

impl World {
    pub(super) fn check_node(&mut self, at: usize) -> Checked {
        if let Some(broken) = self.model.broken.take() {
            return Err(broken);
        }
        let Some(process) = &self.nodes[at].process else { return Ok(()) };
        let mut replicas = process.replicas.all();
        // Whoever reads opens files, and others are closed for it.
        replicas.sort_by_key(|replica| (replica.topic_id, replica.partition.partition));
        for replica in replicas {
            self.check_replica(at, &replica)?;
        }
        self.check_members()
    }

    /// An acks=all answer of a leader, held to the minimum that it knows; found broken after this event.
    pub(super) fn check_enough(&mut self, at: usize, waits: &Unacknowledged) {
        let (topic_id, index) = waits.key;
        let Some(process) = &self.nodes[at].process else { return };
        let Some(topic) = process.image.topic(topic_id) else { return };
        let Some(partition) = topic.partition(index) else { return };
        let needed = topic.least_isr(partition, min_insync_replicas(&process.image, topic));
        // Of one that is down by now nobody knows what it had.
        let may_join = |id: &BrokerId| {
            let process = self.nodes[id.0 as usize - 1].process.as_ref();
            let replica = process.and_then(|process| process.replicas.find(topic_id, index.0));
            replica.is_none_or(|replica| replica.log().flushed_offset() >= waits.until)
        };
        let mut others = partition.replicas.iter().filter(|id| !partition.is_in_isr(**id));
        let enough = partition.isr.len() + usize::from(others.any(may_join));
        if enough < needed {
            let name = Named(
                &TopicPartition { topic: topic.name.clone(), partition: index },
                self.nodes[at].id,
            )
            .to_string();
            let what = format!(
                "{name}: acks=all is answered with {enough} of {needed} in sync: {partition:?}"
            );
            self.model.broken.get_or_insert_with(|| Violation::of(Law::Enough, what));
        }
    }

    fn check_replica(&mut self, at: usize, replica: &Replica) -> Checked {
        let key = (replica.topic_id, replica.partition.partition);
        let (log, leads) = (replica.log(), replica.led_epoch());
        let name = Named(&replica.partition, self.nodes[at].id);
        self.model.read(at, key, &log).map_err(|what| Violation::from(what).within(&name))?;
        // The high watermark of a leader that has just begun may be another one's.
        let high_watermark = replica.high_watermark();
        law!(
            VisibleOnDisk,
            high_watermark <= log.log_end_offset(),
            "{name}: visible beyond the end"
        );
        if let Some(epoch) = leads {
            let flushed = log.flushed_offset();
            law!(
                VisibleOnDisk,
                high_watermark <= flushed,
                "{name}: {high_watermark} visible of {flushed}"
            );
            self.check_loss(at, key, epoch, &name)?;
        }
        let me = (at, self.nodes[at].life);
        let seen = self.model.seen.entry((at, key)).or_default();
        let partition = self.model.partitions.entry(key).or_default();
        match leads {
            Some(epoch) => check_leader(partition, seen, (epoch, high_watermark), me, &name)?,
            None => seen.led = None,
        }
        agree(partition, seen);
        let visible = seen.entries.iter().take_while(|it| it.next <= high_watermark);
        let mut others = visible.skip(seen.agreeing);
        let is_new = |it: &&Entry| !partition.lost.contains(it);
        let other = match leads {
            Some(epoch) if epoch < partition.given_up_in => {
                let more: Vec<Entry> = others.filter(is_new).copied().collect();
                if !more.is_empty() {
                    self.counts.add("leader of before makes visible what is lost");
                }
                partition.lost.extend(more);
                None
            }
            Some(_) => others.next(),
            None => others.find(is_new),
        };
        law!(
            Committed,
            other.is_none(),
            "{name}: other records are visible below {high_watermark} than elsewhere: {other:?}, not {:?}",
            partition.committed.get(seen.agreeing)
        );
        Ok(())
    }

    /// Who leads although it may lack something does so for a reason.
    fn check_loss(&mut self, at: usize, key: Key, epoch: LeaderEpoch, name: &Named<'_>) -> Checked {
        let Some(lost) = self.model.lose(at, key, epoch) else { return Ok(()) };
        let is_torn = self.model.torn.contains(&(at, key));
        law!(
            LostByPower,
            lost == 0 || is_torn,
            "{name} leads without {lost} batches, and has lost no power"
        );
        self.counts.add(match lost {
            0 => "last leader had everything",
            _ => "last leader had less than was committed",
        });
        Ok(())
    }

    /// Those whom the controller relies on have all that is committed.
    fn check_members(&mut self) -> Checked {
        for topic in self.controller.image.topics() {
            for (index, state) in topic.partitions() {
                let key = (topic.id, index);
                let Some(partition) = self.model.partitions.get(&key) else { continue };
                let eligible = &state.eligible_leader_replicas;
                for member in state.isr.iter().chain(eligible).filter(|_| !partition.is_given_up) {
                    let at = member.0 as usize - 1;
                    let Some(process) = &self.nodes[at].process else { continue };
                    // Until it is registered, the controller goes by what the process before it had.
                    let broker = self.controller.image.broker(*member);
                    let is_known =
                        broker.is_some_and(|it| it.incarnation_id == process.incarnation);
                    if !is_known && self.model.torn.contains(&(at, key)) {
                        continue;
                    }
                    let Some(replica) = process.replicas.find(topic.id, index.0) else { continue };
                    let Some(seen) = self.model.seen.get_mut(&(at, key)) else { continue };
                    agree(partition, seen);
                    let name = Named(&replica.partition, *member);
                    law!(
                        ReliedOn,
                        seen.agreeing == partition.committed.len(),
                        "{name} is relied on with {} of {} batches that are committed, in {:?}: {state:?}",
                        seen.agreeing,
                        partition.committed.len(),
                        replica.leader_epoch()
                    );
                    let (flushed, end) = (replica.log().flushed_offset(), partition.end());
                    law!(
                        ReliedOn,
                        flushed >= end,
                        "{name} is relied on with {flushed} of {end} on disk"
                    );
                    self.model.torn.remove(&(at, key));
                }
            }
        }
        Ok(())
    }

    /// At rest nothing is on its way any more.
    pub(super) fn check_acknowledged(&self, key: Key, name: &str) -> Checked {
        let Some(partition) = self.model.partitions.get(&key) else { return Ok(()) };
        let missing =
            partition.acknowledged.iter().find(|it| partition.number_at(*it.0) != Some(*it.1));
        law!(
            Acknowledged,
            missing.is_none(),
            "{name}: what was acknowledged is not there: {missing:?}"
        );
        Ok(())
    }

    pub(super) fn committed_of(&self, key: Key) -> usize {
        self.model.partitions.get(&key).map_or(0, |it| it.committed.len())
    }
}

/// A replica, for a message that is seldom written.
struct Named<'a>(&'a TopicPartition, BrokerId);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {:?}", self.0, self.1)
    }
}

fn check_leader(
    partition: &mut Partition,
    seen: &mut Seen,
    (epoch, high_watermark): (LeaderEpoch, Offset),
    me: (usize, u64),
    name: &Named<'_>,
) -> Checked {
    let leader = *partition.leaders.entry(epoch.0).or_insert(me);
    law!(OneLeader, leader == me, "{name}: two lead in {epoch:?}: {leader:?} and {me:?}");
    if let Some((before, highest)) = seen.led
        && before == epoch
    {
        law!(Watermark, high_watermark >= highest, "{name}: the high watermark falls");
    }
    seen.led = Some((epoch, high_watermark));
    if epoch < partition.given_up_in {
        return Ok(());
    }
    commit(partition, seen, high_watermark, name)
}

/// What a leader makes visible is committed.
fn commit(partition: &mut Partition, seen: &mut Seen, until: Offset, name: &Named<'_>) -> Checked {
    agree(partition, seen);
    if seen.agreeing < partition.committed.len() {
        return Ok(());
    }
    let new = seen.entries[seen.agreeing..].iter().take_while(|entry| entry.next <= until);
    for entry in new.copied().collect::<Vec<_>>() {
        let is_new = !entry.is_idempotent || partition.idempotent.insert(entry.number);
        law!(Once, is_new, "{name}: a batch of an idempotent producer is there twice: {entry:?}");
        partition.committed.push(entry);
    }
    Ok(())
}

fn agree(partition: &Partition, seen: &mut Seen) {
    let pairs = partition.committed.iter().zip(&seen.entries).skip(seen.agreeing);
    seen.agreeing += pairs.take_while(|(committed, here)| committed == here).count();
}

/// Follows the log: within one event it becomes shorter or longer, not both.
fn read_on(seen: &mut Seen, log: &Log) -> Result<(), String> {
    let end = log.log_end_offset();
    while seen.entries.last().is_some_and(|entry| entry.next > end) {
        seen.entries.pop();
    }
    seen.agreeing = seen.agreeing.min(seen.entries.len());
    loop {
        let from = seen.entries.last().map_or(Offset(0), |entry| entry.next);
        if from >= end {
            return Ok(());
        }
        let slice = log.read(from, 100_000, end, true).map_err(|error| error.to_string())?;
        let source = slice.source.ok_or("records are missing")?;
        let bytes = source.read().map_err(|error| error.to_string())?;
        for batch in Batches::new(bytes) {
            let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
            let batch = batch.map_err(|error| error.to_string())?;
            if batch.next_offset() <= from {
                continue;
            }
            seen.entries.push(Entry {
                base: batch.base_offset(),
                next: batch.next_offset(),
                epoch: batch.header().partition_leader_epoch,
                // Coordinators' batches have none, and are told by where they are and what is in them.
                number: number_of(&batch).unwrap_or_else(|| u64::from(batch.header().crc)),
                is_idempotent: batch.header().producer_id >= 0,
            });
        }
    }
}
