//! What must hold, whatever happens; checked at a node after each event there.
//!
//! - In each leader epoch one process leads at most.
//! - A leader's high watermark never falls within its epoch, and is nowhere beyond what its broker has on disk.
//! - What was visible once is the same wherever it is visible, for ever: it is *committed*. What was acknowledged with
//!   acks=all is committed where it was said to be.
//! - The leader of the day, and each running member of the ISR, have all that is committed; the members on their disks.
//! - Of idempotent producers nothing is committed twice.
//!
//! In [`super::controller`]: epochs rise, and whoever leads was in sync. In [`super::healing`]: in the end all goes on.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use ottla_log::Log;
use ottla_records::Batches;

use super::network::Key;
use super::node::Unacknowledged;
use super::world::World;
use crate::log::batches::number_of;
use crate::log::{Checked, Violation, law};

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
    acknowledged: u64,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    partitions: BTreeMap<Key, Partition>,
    seen: BTreeMap<(usize, Key), Seen>,
    broken: Option<Violation>,
}

impl Model {
    /// What a process knew is no more.
    pub(super) fn forget(&mut self, at: usize) {
        self.seen.retain(|(node, _), _| *node != at);
    }

    /// A leader has answered with acks=all.
    pub(super) fn acknowledged(&mut self, waits: &Unacknowledged) {
        let Unacknowledged { key, number, base, .. } = waits;
        let partition = self.partitions.entry(*key).or_default();
        partition.acknowledged += 1;
        // Visible or not: what is committed is looked at after this event, and before the next.
        let (key, number, base) = (*key, *number, *base);
        self.broken = self.broken.take().or_else(|| {
            let committed = &self.partitions.get(&key)?.committed;
            let there = committed.iter().find(|entry| entry.base == base)?;
            (there.number != number).then(|| {
                Violation(format!("{key:?}: {base} was acknowledged, and something else is there"))
            })
        });
    }
}

impl Partition {
    fn end(&self) -> Offset {
        self.committed.last().map_or(Offset(0), |entry| entry.next)
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
            let key = (replica.topic_id, replica.partition.partition);
            let log = replica.log();
            let name = Named(&replica.partition, self.nodes[at].id);
            let seen = self.model.seen.entry((at, key)).or_default();
            let partition = self.model.partitions.entry(key).or_default();
            read_on(seen, &log).map_err(|what| Violation(format!("{name}: {what}")))?;
            // The high watermark of a leader that has just begun may be another one's.
            let high_watermark = replica.high_watermark();
            law!(high_watermark <= log.log_end_offset(), "{name}: visible beyond the end");
            if let Some(epoch) = replica.led_epoch() {
                let me = (at, self.nodes[at].life);
                let leader = *partition.leaders.entry(epoch.0).or_insert(me);
                law!(leader == me, "{name}: two lead in {epoch:?}: {leader:?} and {me:?}");
                let flushed = log.flushed_offset();
                law!(high_watermark <= flushed, "{name}: {high_watermark} visible of {flushed}");
                if let Some((before, highest)) = seen.led
                    && before == epoch
                {
                    law!(high_watermark >= highest, "{name}: the high watermark falls");
                }
                seen.led = Some((epoch, high_watermark));
                commit(partition, seen, high_watermark, &name)?;
            } else {
                seen.led = None;
            }
            agree(partition, seen);
            let visible = seen.entries.iter().take_while(|it| it.next <= high_watermark).count();
            law!(
                visible <= seen.agreeing,
                "{name}: other records are visible below {high_watermark} than elsewhere: {:?}, not {:?}",
                seen.entries.get(seen.agreeing),
                partition.committed.get(seen.agreeing)
            );
        }
        self.check_members()
    }

    /// Those whom the controller relies on have all that is committed.
    fn check_members(&mut self) -> Checked {
        for topic in self.controller.image.topics() {
            for (index, state) in topic.partitions() {
                let key = (topic.id, index);
                let Some(partition) = self.model.partitions.get(&key) else { continue };
                for member in &state.isr {
                    let at = member.0 as usize - 1;
                    let Some(process) = &self.nodes[at].process else { continue };
                    let Some(replica) = process.replicas.find(topic.id, index.0) else { continue };
                    let Some(seen) = self.model.seen.get_mut(&(at, key)) else { continue };
                    agree(partition, seen);
                    let name = Named(&replica.partition, *member);
                    law!(
                        seen.agreeing == partition.committed.len(),
                        "{name} is in sync with {} of {} batches that are committed, in {:?}: {state:?}",
                        seen.agreeing,
                        partition.committed.len(),
                        replica.leader_epoch()
                    );
                    let (flushed, end) = (replica.log().flushed_offset(), partition.end());
                    law!(flushed >= end, "{name} is in sync with {flushed} of {end} on disk");
                }
            }
        }
        Ok(())
    }

    /// So much was acknowledged and is committed.
    pub(super) fn committed_of(&self, key: Key) -> (usize, u64) {
        let partition = self.model.partitions.get(&key);
        partition.map_or((0, 0), |it| (it.committed.len(), it.acknowledged))
    }
}

/// A replica, for a message that is seldom written.
struct Named<'a>(&'a TopicPartition, BrokerId);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {:?}", self.0, self.1)
    }
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
        law!(is_new, "{name}: a batch of an idempotent producer is there twice: {entry:?}");
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
                number: number_of(&batch).ok_or("a batch without a number")?,
                is_idempotent: batch.header().producer_id >= 0,
            });
        }
    }
}
