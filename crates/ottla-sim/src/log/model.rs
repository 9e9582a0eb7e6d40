//! What a log ought to hold, as simple as it can be said, and the laws that it is held to. Pure.
//!
//! While a log is open it is exactly its model. After a crash:
//! - every batch is one that was offered at its very offset, byte by byte, and none is there twice,
//! - the batches before the flushed offset are those that were there, all of them,
//! - leader epochs do not fall from batch to batch,
//! - the log starts no earlier than it was said to, and no later than it may have been about to or its first batch does,
//! - it ends no earlier than the last batch that was flushed,
//! - its producers are what its batches make of them, those included that were deleted on request or by retention,
//! - an epoch is known for each of its offsets, and it is that of the batch.
//!
//! What was cut off by a truncation, or failed to be appended, may be there again after a crash, where nothing else
//! was flushed in its place: nobody was told that it would not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::Uuid;
use ottla_log::LogConfig;
use ottla_log::producers::{Producers, Written};
use ottla_records::ValidBatch;

use super::batches::number_of;
use super::{Checked, Violation, law};

/// See the module.
///
/// Invariant: `start <= end`, `flushed <= end`, and `batches` lie in `start..end`, but that the first may begin earlier.
#[derive(Debug)]
pub struct Model {
    pub(crate) id: Uuid,
    pub(crate) config: Arc<LogConfig>,
    /// What the batches before the first of `batches` make of their producers.
    base: Producers,
    pub(crate) batches: Vec<ValidBatch>,
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
            offered: BTreeMap::new(),
            start: 0,
            end: 0,
            flushed: 0,
            start_max: 0,
            restarting: false,
            epoch: 0,
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

    pub(crate) fn was_offered(&self, batch: &ValidBatch) -> bool {
        let there = self.offered.get(&batch.base_offset().0);
        there.is_some_and(|there| there.iter().any(|it| it.to_bytes() == batch.to_bytes()))
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
            (low..=offset).contains(&end),
            "cut at {offset}, it ends at {end}, not in {low}..={offset}"
        );
        self.end = end;
        self.batches.retain(|batch| batch.next_offset().0 <= offset);
        self.flushed = self.flushed.min(self.end);
        Ok(())
    }

    pub(crate) fn restart_at(&mut self, offset: i64) {
        self.batches.clear();
        self.base = Producers::default();
        (self.start, self.end, self.flushed, self.start_max) = (offset, offset, offset, offset);
        self.restarting = false;
    }

    /// Holds a log to the laws after a crash, and goes on from what it is. `false` when there is nothing to go on from.
    pub(crate) fn accept(&mut self, found: Found) -> Checked<bool> {
        law!(found.start <= found.end, "the log is {}..{}", found.start, found.end);
        self.check_each(&found.batches)?;
        if std::mem::take(&mut self.restarting) {
            return Ok(self.adopt_anew(found));
        }
        // A replica's log may begin with a gap, and then it starts where its first batch is.
        let first = self.batches.first().map_or(self.end, |batch| batch.base_offset().0);
        let (low, high) = (self.start, self.start_max.max(first));
        law!(
            (low..=high).contains(&found.start),
            "the log starts at {}, which was promised to be in {low}..={high}",
            found.start
        );
        let flushed = self.flushed;
        let promised = |batch: &&ValidBatch| batch.next_offset().0 <= flushed;
        let end = self.batches.iter().rfind(promised).map_or(low, |it| it.next_offset().0);
        law!(found.end >= end, "it ends at {}, and was flushed up to {end}", found.end);
        self.start_at(found.start);
        let promised: Vec<_> = self.batches.iter().filter(promised).map(summary).collect();
        let there: Vec<_> = found.batches.iter().take(promised.len()).map(summary).collect();
        law!(
            promised == there,
            "of what was flushed up to {flushed}, {promised:?}, there is {there:?}"
        );
        self.batches = found.batches;
        let last = self.batches.last().map(|batch| batch.next_offset().0);
        let begins_anew = last.is_none() && found.first_segment == self.start;
        if begins_anew && found.producers.is_empty() {
            self.base = Producers::default();
        }
        law!(
            found.end >= last.unwrap_or(self.start),
            "it ends at {}, and its last batch at {last:?}",
            found.end
        );
        (self.end, self.flushed, self.start_max) = (found.end, found.end, self.start);
        let expected = self.producers();
        law!(
            found.producers == expected,
            "its producers are\n{:?}\nand its batches {:?} make of them\n{expected:?}",
            found.producers,
            self.batches.iter().map(summary).collect::<Vec<_>>()
        );
        Ok(true)
    }

    /// After something that empties the log was interrupted: it may be all there, or a part of it, or nothing. Returns
    /// whether it can be told what its producers are to be.
    fn adopt_anew(&mut self, found: Found) -> bool {
        let begins_earlier = found.start < self.start;
        self.start_at(found.start);
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
            law!(self.was_offered(batch), "nobody has offered {:?}", summary(batch));
            if let Some(number) = number_of(batch) {
                law!(
                    numbers.insert(number),
                    "batch {number} is there twice, at {}",
                    batch.base_offset()
                );
            }
            if let Some(before) = before {
                let (epoch, last) =
                    (batch.header().partition_leader_epoch, before.header().partition_leader_epoch);
                law!(epoch >= last, "at {} epoch {epoch} follows {last}", batch.base_offset());
                law!(
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
            (found.start, found.end) == (self.start, self.end),
            "the open log is {}..{}, not {}..{}",
            found.start,
            found.end,
            self.start,
            self.end
        );
        let expected: Vec<_> = self.batches.iter().map(summary).collect();
        let there: Vec<_> = found.batches.iter().map(summary).collect();
        law!(expected == there, "the open log holds {there:?}, not {expected:?}");
        let same =
            self.batches.iter().zip(&found.batches).all(|(a, b)| a.to_bytes() == b.to_bytes());
        law!(same, "a batch of the open log has other bytes");
        let expected = self.producers();
        law!(found.producers == expected, "it knows {:?}, not {expected:?}", found.producers);
        Ok(())
    }
}

/// A batch in a message: its offsets, epoch and number.
pub(crate) fn summary(batch: &ValidBatch) -> (i64, i64, i32, Option<u64>) {
    let header = batch.header();
    (header.base_offset, header.next_offset(), header.partition_leader_epoch, number_of(batch))
}

impl From<String> for Violation {
    fn from(text: String) -> Self {
        Self(text)
    }
}
