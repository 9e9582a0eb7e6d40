//! What a log ought to hold, as simple as it can be said, and the laws that it is held to. Pure.
//!
//! While a log is open it is exactly its model. After a crash:
//! - every batch is one that was offered at its very offset, byte by byte, and none is there twice,
//! - the batches before the flushed offset are those that were there, all of them,
//! - leader epochs do not fall from batch to batch,
//! - the log starts no earlier than it was said to, and no later than it may have been about to or its first batch does,
//! - it ends no earlier than the last batch that was flushed,
//! - its producers are what its batches make of them, those included that were deleted on request or by retention,
//! - an epoch is known for each of its batches, and it is that of the batch.
//!
//! A log that is compacted is held to the same, but that batches are what [`compaction`](super::compaction) may have left of
//! them, and that of its producers epoch, last sequence number and open transaction count, as its batches make them that were
//! written or those that are left.
//!
//! What was cut off by a truncation, or failed to be appended, may be there again after a crash, where nothing else
//! was flushed in its place: nobody was told that it would not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{Offset, ProducerId, Uuid};
use ottla_log::LogConfig;
use ottla_log::producers::{Producer, Producers, Written};
use ottla_records::ValidBatch;

use super::batches::number_of;
use super::compaction::{Compacted, is_left_of};
use crate::law::{Checked, law};

/// See the module.
///
/// Invariant: `start <= end`, `flushed <= end`, and `batches` lie in `start..end`, but that the first may begin earlier.
#[derive(Debug)]
pub struct Model {
    pub(crate) id: Uuid,
    pub(crate) config: Arc<LogConfig>,
    /// What the batches before the first of `batches` make of their producers.
    base: Producers,
    /// As they were written, whatever compaction has left of them.
    pub(crate) batches: Vec<ValidBatch>,
    pub(crate) compacted: Compacted,
    /// Everything that was ever offered, by the offset that it would have got.
    offered: BTreeMap<i64, Vec<ValidBatch>>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Everything before it was said to be on the disk.
    pub(crate) flushed: i64,
    /// Where the log may start after something that was interrupted.
    pub(crate) start_max: i64,
    /// Something was interrupted that empties the log and lets it start anywhere.
    pub(crate) restarting: bool,
    pub(crate) epoch: i32,
    /// Retention was interrupted: of segments that it has left, the snapshots may be gone.
    pub(crate) lacks_snapshots: bool,
    /// The log was cut off since, where only such a snapshot tells who wrote what is deleted, here as in Apache Kafka.
    may_forget_deleted: bool,
}

/// What a log was found to be after a start.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) batches: Vec<ValidBatch>,
    pub(crate) producers: Producers,
    pub(crate) first_segment: i64,
}

impl Model {
    pub(crate) fn new(id: Uuid, config: Arc<LogConfig>) -> Self {
        Self {
            id,
            config,
            base: Producers::default(),
            batches: Vec::new(),
            compacted: Compacted::default(),
            offered: BTreeMap::new(),
            start: 0,
            end: 0,
            flushed: 0,
            start_max: 0,
            restarting: false,
            epoch: 0,
            lacks_snapshots: false,
            may_forget_deleted: false,
        }
    }

    /// What the log ought to know of its producers.
    pub(crate) fn producers(&self) -> Producers {
        let mut producers = self.base.clone();
        self.batches.iter().for_each(|batch| producers.append(&Written::of(batch)));
        producers
    }

    pub(crate) fn offered(&self) -> impl DoubleEndedIterator<Item = &ValidBatch> {
        self.offered.values().flatten()
    }

    pub(crate) fn base_producers(&self) -> &Producers {
        &self.base
    }

    /// Whether a log may hold a batch: it was offered, or is what compaction has left of one.
    pub(crate) fn was_offered(&self, batch: &ValidBatch) -> bool {
        let there = self.offered.get(&batch.base_offset().0);
        let is_one = |it: &ValidBatch| it.to_bytes() == batch.to_bytes();
        there.is_some_and(|there| there.iter().any(is_one)) || self.compacted.is_left(batch)
    }

    /// The same for a log of which nobody knows how far a compaction of it has come.
    pub(crate) fn may_hold(&self, batch: &ValidBatch) -> bool {
        let mut there = self.offered.get(&batch.base_offset().0).into_iter().flatten();
        let is_compacted = self.config.compact;
        self.was_offered(batch) || is_compacted && there.any(|it| is_left_of(batch, it))
    }

    /// Batches are about to be appended, at offsets that they have by now.
    pub(crate) fn offer(&mut self, batches: &[ValidBatch]) {
        for batch in batches {
            self.offered.entry(batch.base_offset().0).or_default().push(batch.clone());
        }
    }

    pub(crate) fn appended(&mut self, batches: &[ValidBatch]) {
        self.batches.extend(batches.iter().cloned());
        self.end = batches.last().map_or(self.end, |batch| batch.next_offset().0);
    }

    /// The log starts later.
    pub(crate) fn start_at(&mut self, start: i64) {
        self.start = self.start.max(start);
        self.start_max = self.start_max.max(self.start);
        let start = self.start;
        let gone = self.batches.partition_point(|batch| batch.next_offset().0 <= start);
        for batch in self.batches.drain(..gone) {
            self.compacted.may_have_taken_unseen |= self.compacted.of(&batch) != Some(&batch);
            self.base.append(&Written::of(&batch));
        }
    }

    /// Where it ends once it is cut off: behind the last whole batch.
    fn cut_end(&self, offset: i64) -> i64 {
        let kept = self.batches.iter().rfind(|batch| batch.next_offset().0 <= offset);
        kept.map_or(self.start, |batch| batch.next_offset().0)
    }

    /// Before it is cut off: from now on nothing beyond is promised.
    pub(crate) fn about_to_cut(&mut self, offset: i64) {
        self.flushed = self.flushed.min(self.cut_end(offset));
    }

    /// `end` is where the log says that it ends now.
    pub(crate) fn cut(&mut self, offset: i64, end: i64) -> Checked {
        let low = self.cut_end(offset);
        law!(
            OpenLog,
            (low..=offset).contains(&end),
            "cut at {offset}, it ends at {end}, not in {low}..={offset}"
        );
        self.end = end;
        self.batches.retain(|batch| batch.next_offset().0 <= offset);
        self.compacted.cut(end);
        // Its producers are made anew of what is left.
        self.compacted.is_read_anew |= self.compacted.may_have_replaced();
        self.may_forget_deleted |= self.lacks_snapshots;
        self.flushed = self.flushed.min(self.end);
        Ok(())
    }

    pub(crate) fn restart_at(&mut self, offset: i64) {
        self.batches.clear();
        self.base = Producers::default();
        self.compacted = self.compacted.restarted();
        (self.start, self.end, self.flushed, self.start_max) = (offset, offset, offset, offset);
    }

    /// Holds a log to the laws after a crash, and goes on from what it is. `false` when there is nothing to go on from.
    pub(crate) fn accept(&mut self, found: Found) -> Checked<bool> {
        law!(Start, found.start <= found.end, "the log is {}..{}", found.start, found.end);
        if std::mem::take(&mut self.restarting) {
            // What was before the log's start is there again, and may have been compacted.
            let rewritten = |batch: &&ValidBatch| !self.was_offered(batch) && self.may_hold(batch);
            let rewritten = found.batches.iter().filter(rewritten).cloned().collect();
            self.compacted.add_left(rewritten);
            self.check_each(&found.batches)?;
            return Ok(self.adopt_anew(found));
        }
        // A replica's log may begin with a gap, and then it starts where its first batch is.
        let first = self.batches.first().map_or(self.end, |batch| batch.base_offset().0);
        let (low, high) = (self.start, self.start_max.max(first));
        law!(
            Start,
            (low..=high).contains(&found.start),
            "the log starts at {}, which was promised to be in {low}..={high}",
            found.start
        );
        self.start_at(found.start);
        self.compacted.is_given_up = false;
        self.end_interrupted_compaction(&found)?;
        self.check_each(&found.batches)?;
        let flushed = self.flushed;
        let promised = |batch: &&ValidBatch| batch.next_offset().0 <= flushed;
        let end = self.batches.iter().rfind(promised).map_or(low, |it| it.next_offset().0);
        law!(Flushed, found.end >= end, "it ends at {}, and was flushed up to {end}", found.end);
        let promised: Vec<_> = self.there().into_iter().filter(|it| promised(&it)).collect();
        let there = found.batches.get(..promised.len()).unwrap_or(&found.batches);
        law!(
            Flushed,
            promised == there,
            "of what was flushed up to {flushed}, {:?}, there is {:?}",
            promised.iter().map(summary).collect::<Vec<_>>(),
            there.iter().map(summary).collect::<Vec<_>>()
        );
        self.replace_batches(found.batches);
        let last = self.batches.last().map(|batch| batch.next_offset().0);
        let begins_anew = last.is_none() && found.first_segment == self.start;
        if begins_anew && found.producers.is_empty() {
            self.base = Producers::default();
        }
        law!(
            Order,
            found.end >= last.unwrap_or(self.start),
            "it ends at {}, and its last batch at {last:?}",
            found.end
        );
        (self.end, self.flushed, self.start_max) = (found.end, found.end, self.start);
        self.compacted.is_read_anew |= self.compacted.may_have_replaced();
        let expected = self.producers();
        law!(
            Producers,
            self.has_producers(&found.producers, &expected),
            "its producers are\n{:?}\nand its batches {:?} make of them\n{expected:?}",
            found.producers,
            self.batches.iter().map(summary).collect::<Vec<_>>()
        );
        Ok(true)
    }

    /// Takes over what there is, but for that of which compaction has left something or nothing.
    fn replace_batches(&mut self, found: Vec<ValidBatch>) {
        let bound = self.compacted.bound;
        self.batches.retain(|batch| batch.next_offset().0 <= bound);
        self.batches.extend(found.into_iter().filter(|batch| batch.base_offset().0 >= bound));
    }

    /// Of an interrupted compaction there may be anything from nothing to all; nothing, if it had not flushed yet what it
    /// was to compact.
    fn end_interrupted_compaction(&mut self, found: &Found) -> Checked {
        let Some(terms) = self.compacted.interrupted.take() else { return Ok(()) };
        if self.flushed < terms.bound {
            return Ok(());
        }
        let done = self.compacted_to(&found.batches, terms)?;
        self.compacted.found_done = Some(done).filter(|done| done.batches > 0);
        Ok(())
    }

    /// Whether these may be the log's producers. Where compaction has taken some of their batches away, each is what all its
    /// batches make of it, but for those before the last one, or what those that are left make of it: a marker that is a
    /// header alone tells nobody the epoch that it had, here as in Apache Kafka. What transaction is open no compaction changes.
    fn has_producers(&self, found: &Producers, expected: &Producers) -> bool {
        if found == expected {
            return true;
        }
        let is_compacted = self.compacted.may_know_less();
        let mut left = self.base.clone();
        self.there().iter().for_each(|batch| left.append(&Written::of(batch)));
        let ids: BTreeSet<ProducerId> =
            [found, expected].iter().flat_map(|it| it.iter()).map(|(id, _)| id).collect();
        ids.into_iter().all(|id| {
            let (found, expected, left) = (found.get(id), expected.get(id), left.get(id));
            if found == expected || found.is_none() && self.may_forget(id) {
                return true;
            }
            let is_as_left = essence(found) == essence(left) && open(found) == open(expected);
            let may_be = essence(found) == essence(expected)
                || is_as_left
                || found.is_none() && expected.is_some_and(|it| self.may_be_unknown(it));
            is_compacted && may_be
        })
    }

    /// Whether all that a producer has written may be deleted, and nothing tells of it.
    fn may_forget(&self, id: ProducerId) -> bool {
        let has_written = |it: &ValidBatch| it.header().producer_id == id.0;
        self.may_forget_deleted && !self.batches.iter().any(has_written)
    }

    /// Whether of a producer there may have been nothing but markers before the log's start, where nobody sees them go.
    fn may_be_unknown(&self, producer: &Producer) -> bool {
        let has_nothing_else =
            producer.batches().is_empty() && producer.transaction_first_offset.is_none();
        self.compacted.may_have_taken_unseen && has_nothing_else
    }

    /// After something that empties the log was interrupted: it may be all there, or a part of it, or nothing. Returns
    /// whether it can be told what its producers are to be.
    fn adopt_anew(&mut self, found: Found) -> bool {
        let begins_earlier = found.start < self.start;
        self.start_at(found.start);
        self.compacted.begin_anew(&found.batches);
        self.batches = found.batches;
        if begins_earlier || found.producers != self.producers() {
            self.base = Producers::default();
        }
        (self.start, self.end, self.flushed) = (found.start, found.end, found.end);
        self.start_max = self.start;
        found.producers == self.producers()
    }

    fn check_each(&self, batches: &[ValidBatch]) -> Checked {
        let mut numbers = BTreeSet::new();
        let mut before: Option<&ValidBatch> = None;
        for batch in batches {
            law!(Offered, self.was_offered(batch), "nobody has offered {:?}", summary(batch));
            if let Some(number) = number_of(batch) {
                law!(
                    Offered,
                    numbers.insert(number),
                    "batch {number} is there twice, at {}",
                    batch.base_offset()
                );
            }
            if let Some(before) = before {
                let (epoch, last) =
                    (batch.header().partition_leader_epoch, before.header().partition_leader_epoch);
                law!(
                    Order,
                    epoch >= last,
                    "at {} epoch {epoch} follows {last}",
                    batch.base_offset()
                );
                law!(
                    Order,
                    batch.base_offset() >= before.next_offset(),
                    "{} follows {}",
                    batch.base_offset(),
                    before.next_offset()
                );
            }
            before = Some(batch);
        }
        Ok(())
    }

    /// Holds an open log to being its model.
    pub(crate) fn check_open(&self, found: &Found) -> Checked {
        law!(
            OpenLog,
            (found.start, found.end) == (self.start, self.end),
            "the open log is {}..{}, not {}..{}",
            found.start,
            found.end,
            self.start,
            self.end
        );
        let of_model = self.there();
        let expected: Vec<_> = of_model.iter().map(summary).collect();
        let there: Vec<_> = found.batches.iter().map(summary).collect();
        law!(OpenLog, expected == there, "the open log holds {there:?}, not {expected:?}");
        let same = of_model.iter().zip(&found.batches).all(|(a, b)| a.to_bytes() == b.to_bytes());
        law!(OpenLog, same, "a batch of the open log has other bytes");
        let expected = self.producers();
        law!(
            Producers,
            self.has_producers(&found.producers, &expected),
            "it knows {:?}, not {expected:?}",
            found.producers
        );
        Ok(())
    }
}

/// What counts of a producer whose batches are compacted.
fn essence(producer: Option<&Producer>) -> Option<(i16, i32, Option<Offset>)> {
    producer.map(|it| (it.epoch, it.last_sequence(), it.transaction_first_offset))
}

fn open(producer: Option<&Producer>) -> Option<Offset> {
    producer.and_then(|it| it.transaction_first_offset)
}

/// A batch in a message: its offsets, epoch and number.
pub(crate) fn summary(batch: &ValidBatch) -> (i64, i64, i32, Option<u64>) {
    let header = batch.header();
    (header.base_offset, header.next_offset(), header.partition_leader_epoch, number_of(batch))
}
