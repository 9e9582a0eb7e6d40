//! What compaction leaves of each batch, as Kafka decides it (KIP-58, KIP-98, KIP-534). Pure.
//!
//! A record stays if no later one has its key; without a key it goes. A tombstone, which deletes its key, stays until
//! the batch's delete horizon, which the first compaction that meets it sets to `delete.retention.ms` from then.
//! Records of aborted transactions go, whatever their keys. A transaction's marker stays until nothing of the transaction is
//! left, and then until its delete horizon.
//!
//! Nothing is dropped beyond the offset up to which keys are known. Two batches stay although nothing is left in them,
//! as headers alone: the last one of each producer, which has its sequence number, and the last one of the part that is
//! compacted, which tells where that ends.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ottla_base::{Offset, ProducerId, Timestamp};
use ottla_records::{BatchError, Seen, Sifted, ValidBatch};

use super::keys::{Full, KeyHasher, NewestOffsets};
use super::transactions::{Met, Part};
use crate::producers::Producers;
use crate::txn_index::AbortedTransaction;

/// Where a producer has written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWritten {
    /// `None` if only the marker is left of what it wrote.
    data_offset: Option<Offset>,
    epoch: i16,
}

/// Where each of these producers has written last.
#[must_use]
pub fn last_written(producers: &Producers) -> BTreeMap<ProducerId, LastWritten> {
    let last = |(id, producer): (ProducerId, &crate::producers::Producer)| {
        let data_offset = producer.batches().last().map(|batch| batch.last_offset);
        (id, LastWritten { data_offset, epoch: producer.epoch })
    };
    producers.iter().map(last).collect()
}

/// The first way through the dirty part of a log: which offset of each key is the newest.
#[derive(Debug)]
pub struct Survey {
    first_dirty_offset: Offset,
    newest: NewestOffsets,
    transactions: Met,
}

impl Survey {
    /// `aborted` are the aborted transactions in the dirty part.
    #[must_use]
    pub fn new(
        first_dirty_offset: Offset,
        newest: NewestOffsets,
        aborted: &[AbortedTransaction],
    ) -> Self {
        let mut transactions = Met::default();
        transactions.expect(aborted);
        Self { first_dirty_offset, newest, transactions }
    }

    /// Takes in the next batch; `Full` where the map is, and the survey ends.
    ///
    /// # Errors
    /// [`BatchError`] where the records cannot be read; the map knows some of them then.
    pub fn add(&mut self, batch: &ValidBatch) -> Result<Result<(), Full>, BatchError> {
        let part = self.transactions.meet(batch);
        let is_control = batch.header().attributes.is_control();
        if !is_control && part == Part::Needed {
            let hasher = self.newest.hasher();
            let full = batch.look_over_keys(
                || hasher.clone(),
                |record| match record.key {
                    Some(key) if record.offset >= self.first_dirty_offset => {
                        match self.newest.put(&key, record.offset) {
                            Ok(()) => ControlFlow::Continue(()),
                            Err(full) => ControlFlow::Break(full),
                        }
                    }
                    _ => ControlFlow::Continue(()),
                },
            )?;
            if let Some(full) = full {
                return Ok(Err(full));
            }
        }
        if batch.last_offset() >= self.first_dirty_offset {
            self.newest.set_latest(batch.last_offset());
        }
        Ok(Ok(()))
    }

    /// A segment was taken in whole, and the next one begins here.
    pub fn end_segment(&mut self, next_base_offset: Offset) {
        self.newest.set_latest(Offset(next_base_offset.0 - 1));
    }

    #[must_use]
    pub fn finish(self) -> NewestOffsets {
        self.newest
    }
}

/// What is known to one compaction while it goes through a log for the second time.
#[derive(Debug)]
pub struct Filter {
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    /// Where the part ends that may be compacted.
    pub end: Offset,
    newest: NewestOffsets,
    transactions: Met,
}

/// What to write in place of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Drop,
    /// The batch as it is, byte for byte.
    Keep,
    Replace(ValidBatch),
}

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// This belongs into the transaction index of the segment that the batch goes to.
    pub aborted: Option<AbortedTransaction>,
}

impl Verdict {
    /// What of a batch is written.
    #[must_use]
    pub fn size_in_bytes(&self, judged: &ValidBatch) -> usize {
        match &self.outcome {
            Outcome::Drop => 0,
            Outcome::Keep => judged.size_in_bytes(),
            Outcome::Replace(batch) => batch.size_in_bytes(),
        }
    }
}

impl Filter {
    #[must_use]
    pub fn new(newest: NewestOffsets, end: Offset, now_ms: i64, delete_retention_ms: i64) -> Self {
        Self { now_ms, delete_retention_ms, end, newest, transactions: Met::default() }
    }

    /// Makes known which aborted transactions have records in the segment that comes next.
    pub fn expect(&mut self, aborted: &[AbortedTransaction]) {
        self.transactions.expect(aborted);
    }

    /// Decides what becomes of the next batch, given what was last written of its producers.
    ///
    /// # Errors
    /// [`BatchError`] where the records cannot be read, or those that stay would be too large.
    pub fn judge(
        &mut self,
        batch: &ValidBatch,
        last_written: &BTreeMap<ProducerId, LastWritten>,
    ) -> Result<Verdict, BatchError> {
        let part = self.transactions.meet(batch);
        let header = batch.header();
        let is_control = header.attributes.is_control();
        let is_dispensable = part == Part::Dispensable;
        let horizon_passed = header.delete_horizon_ms().is_some_and(|at| at <= self.now_ms);
        let drops_records = is_dispensable && (horizon_passed || !is_control);
        let stays_empty = self.stays_empty(batch, last_written);
        let aborted = match part {
            Part::AbortMarker(transaction) => Some(transaction),
            Part::Dispensable | Part::Needed => None,
        };
        let drop = Verdict { outcome: Outcome::Drop, aborted };
        if drops_records && !stays_empty {
            return Ok(drop);
        }
        let sifted = if drops_records { None } else { Some(self.sift(batch)?) };
        let Some(kept) = sifted.filter(|kept| !kept.is_empty()) else {
            let outcome =
                if stays_empty { Outcome::Replace(batch.emptied()) } else { Outcome::Drop };
            return Ok(Verdict { outcome, ..drop });
        };
        let wants_horizon = kept.has_tombstones() || is_dispensable && is_control;
        let outcome = match header.delete_horizon_ms() {
            None if wants_horizon => {
                let horizon = self.now_ms.saturating_add(self.delete_retention_ms);
                Outcome::Replace(kept.retained(Some(Timestamp(horizon)))?)
            }
            _ if kept.is_whole() => Outcome::Keep,
            horizon => Outcome::Replace(kept.retained(horizon.map(Timestamp))?),
        };
        Ok(Verdict { outcome, aborted })
    }

    fn stays_empty(
        &self,
        batch: &ValidBatch,
        last_written: &BTreeMap<ProducerId, LastWritten>,
    ) -> bool {
        let header = batch.header();
        let last = last_written.get(&ProducerId(header.producer_id));
        let is_its_producers_last = last.is_some_and(|last| match last.data_offset {
            Some(offset) => batch.last_offset() == offset,
            None => header.attributes.is_control() && header.producer_epoch == last.epoch,
        });
        header.has_producer_id() && is_its_producers_last || batch.next_offset() == self.end
    }

    fn sift<'a>(&self, batch: &'a ValidBatch) -> Result<Sifted<'a>, BatchError> {
        let is_control = batch.header().attributes.is_control();
        let horizon = batch.header().delete_horizon_ms();
        let tombstones_stay = horizon.is_none_or(|horizon| self.now_ms < horizon);
        let hasher = self.newest.hasher();
        batch.sift(|| hasher.clone(), |record| is_control || self.stays(record, tombstones_stay))
    }

    fn stays(&self, record: &Seen<KeyHasher>, tombstones_stay: bool) -> bool {
        if record.offset > self.newest.latest() {
            return true;
        }
        let Some(key) = &record.key else { return false };
        let is_newest = self.newest.get(key).is_none_or(|newest| record.offset >= newest);
        is_newest && (record.has_value || tombstones_stay)
    }
}

#[cfg(test)]
mod tests;
