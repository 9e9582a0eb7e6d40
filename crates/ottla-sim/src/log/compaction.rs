//! What compaction may take from a log, and what it must leave. Pure.
//!
//! The model goes on holding everything that was written, and beside it what compaction has left of some batches. Of the
//! part before a bound, that is before the last stable offset and the active segment:
//! - what stays is where it was: a batch keeps its offsets, epoch, producer and sequence numbers, a record everything,
//! - a record goes only if it has no key, is of an aborted transaction, has a later one of its key before the bound that is
//!   of none, or is a tombstone whose horizon had passed before,
//! - nothing goes that is younger than `min.compaction.lag.ms`,
//! - a horizon is written once, `delete.retention.ms` from then,
//! - a transaction's marker goes only after its horizon, and after all records of its transaction,
//! - a producer's last batch stays, as a header alone if need be,
//! - after a compaction that came to its end nothing is left before its end that a later record makes obsolete, and
//!   nothing of an aborted transaction.
//!
//! Whatever was replaced, everything before the bound was on the disk first: a loss of power takes none of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_log::producers::Producers;
use ottla_records::{BatchHeader, ControlType, Record, ValidBatch};

use super::model::{Model, summary};
use crate::law::{Checked, law};

/// What a compaction is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Nothing is touched from here on.
    pub(crate) bound: i64,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_compaction_lag_ms: i64,
}

/// What compactions have made of a log.
///
/// Invariant: `left` names batches of the model before `bound` only, and `bound <= flushed`.
#[derive(Debug, Default)]
pub(crate) struct Compacted {
    /// By base offset, of each batch that is not as it was written, what is left; `None` where nothing is.
    left: BTreeMap<i64, Option<ValidBatch>>,
    /// Everything that a compaction has touched is before this.
    pub(crate) bound: i64,
    /// Where the log ended when it was compacted last. It was committed then, so nobody cuts it off before.
    pub(crate) end: i64,
    /// One that was interrupted, and of which nobody knows how far it came.
    pub(crate) interrupted: Option<Terms>,
    /// Of what lies before the log's start something may be gone, where nobody sees it.
    pub(crate) may_have_taken_unseen: bool,
    /// A start has read what is left since: until then the log knows what it was told.
    pub(crate) is_read_anew: bool,
    /// What a start has found that one had done.
    pub(crate) found_done: Option<Done>,
    /// What it has left behind cannot be removed, so that this process compacts the log no more.
    pub(crate) is_given_up: bool,
}

/// What a compaction has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) batches: usize,
    pub(crate) records: usize,
    pub(crate) tombstones: usize,
    pub(crate) aborted: usize,
    pub(crate) markers: usize,
    pub(crate) emptied: usize,
}

impl Done {
    /// What it has done at all, for the counts.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let counts = [
            (self.records, "compaction removed records"),
            (self.tombstones, "compaction dropped a tombstone"),
            (self.aborted, "compaction removed what was aborted"),
            (self.markers, "compaction dropped a marker"),
            (self.emptied, "compaction left a header alone"),
        ];
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(_, name)| name)
    }
}

impl Compacted {
    /// Whether batches may be gone or shorter that somebody's producers came from.
    pub(crate) fn may_have_replaced(&self) -> bool {
        self.may_have_taken_unseen || !self.left.is_empty()
    }

    /// Whether the log may know less of its producers than it was told.
    pub(crate) fn may_know_less(&self) -> bool {
        self.is_read_anew && self.may_have_replaced()
    }

    pub(crate) fn of<'a>(&'a self, written: &'a ValidBatch) -> Option<&'a ValidBatch> {
        self.left.get(&written.base_offset().0).map_or(Some(written), Option::as_ref)
    }

    pub(crate) fn is_left(&self, batch: &ValidBatch) -> bool {
        self.left.get(&batch.base_offset().0).is_some_and(|left| left.as_ref() == Some(batch))
    }

    /// Of the same log without records: the process is the same, too.
    pub(crate) fn restarted(&self) -> Self {
        Self { is_given_up: self.is_given_up, ..Self::default() }
    }

    pub(crate) fn add_left(&mut self, batches: Vec<ValidBatch>) {
        self.left.extend(batches.into_iter().map(|batch| (batch.base_offset().0, Some(batch))));
    }

    /// Nothing is left from an offset on: a log that begins anew may be cut off where it was compacted before.
    pub(crate) fn cut(&mut self, end: i64) {
        self.left.split_off(&end);
    }

    /// What was found in a log that begins anew is all that is known of it.
    pub(crate) fn begin_anew(&mut self, found: &[ValidBatch]) {
        let there: Vec<ValidBatch> =
            found.iter().filter(|batch| self.is_left(batch)).cloned().collect();
        let left = there.into_iter().map(|batch| (batch.base_offset().0, Some(batch)));
        *self = Self { left: left.collect(), ..Self::default() };
    }
}

impl Model {
    /// The batches that are there.
    pub(crate) fn there(&self) -> Vec<ValidBatch> {
        self.batches.iter().filter_map(|batch| self.compacted.of(batch)).cloned().collect()
    }

    /// Everything before it is decided, when everything before `high_watermark` stays.
    pub(crate) fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let transactions = Transactions::of(&self.batches, self.base_producers());
        let undecided = transactions.first_undecided(high_watermark);
        undecided.unwrap_or(high_watermark).max(self.start).min(high_watermark)
    }

    /// Holds what is there to what a compaction may have made of the log, and takes it over.
    ///
    /// Of batches before the log's start, which are compacted with the segment that they are in, nobody sees what became;
    /// only their producers tell after a start, by the timestamps of what was left.
    pub(crate) fn compacted_to(&mut self, found: &[ValidBatch], terms: Terms) -> Checked<Done> {
        self.compacted.may_have_taken_unseen |= !self.base_producers().is_empty();
        let there = self.there();
        let (before, _) = split(&there, terms.bound);
        let (after, _) = split(found, terms.bound);
        let transactions = Transactions::of(&self.batches, self.base_producers());
        let producers = self.producers();
        let compaction = Compaction::new(before, after, &transactions, terms);
        let done = compaction.check(&producers)?;
        if before == after {
            return Ok(done);
        }
        let mut after: BTreeMap<i64, &ValidBatch> =
            after.iter().map(|batch| (batch.base_offset().0, batch)).collect();
        for written in self.batches.iter().filter(|batch| batch.next_offset().0 <= terms.bound) {
            let at = written.base_offset().0;
            let left = after.remove(&at);
            if left != Some(written) {
                self.compacted.left.insert(at, left.cloned());
            }
        }
        self.compacted.bound = self.compacted.bound.max(terms.bound);
        self.flushed = self.flushed.max(terms.bound);
        Ok(done)
    }

    /// Holds a log that was compacted up to an offset to having nothing left there that is obsolete.
    pub(crate) fn check_complete(&self, cleaned_to: i64) -> Checked {
        let all = self.there();
        let (there, _) = split(&all, cleaned_to);
        let transactions = Transactions::of(&self.batches, self.base_producers());
        let newest = newest_of_keys(there, &transactions);
        for batch in there.iter().filter(|batch| !is_control(batch)) {
            let is_aborted = transactions.aborted.contains(&batch.base_offset().0);
            for record in records(batch).iter().filter(|it| it.offset.0 >= self.start) {
                let at = record.offset.0;
                law!(Compaction, !is_aborted, "{at} is of an aborted transaction, and still there");
                let newest = record.key.as_ref().and_then(|key| newest.get(key)).copied();
                law!(
                    Compaction,
                    newest == Some(at),
                    "{at} is made obsolete by {newest:?}, and still there"
                );
            }
        }
        Ok(())
    }
}

/// The batches that end before an offset, and the others.
fn split(batches: &[ValidBatch], at: i64) -> (&[ValidBatch], &[ValidBatch]) {
    batches.split_at(batches.partition_point(|batch| batch.next_offset().0 <= at))
}

fn is_control(batch: &ValidBatch) -> bool {
    batch.header().attributes.is_control()
}

fn records(batch: &ValidBatch) -> Vec<Record> {
    batch.records().into_iter().flatten().flatten().collect()
}

/// Whether a batch is another one of which records were taken away. Its horizon is somebody else's business.
pub(crate) fn is_left_of(left: &ValidBatch, written: &ValidBatch) -> bool {
    let same = |batch: &ValidBatch| {
        let header = batch.header();
        BatchHeader {
            batch_length: 0,
            crc: 0,
            attributes: header.attributes.with_delete_horizon(false),
            base_timestamp: 0,
            max_timestamp: 0,
            record_count: 0,
            ..*header
        }
    };
    let (kept, all) = (records(left), records(written));
    let is_counted = usize::try_from(left.header().record_count) == Ok(kept.len());
    let mut rest = all.iter();
    same(left) == same(written) && is_counted && kept.iter().all(|it| rest.any(|of| of == it))
}

fn newest_of_keys(batches: &[ValidBatch], transactions: &Transactions) -> BTreeMap<Bytes, i64> {
    let is_aborted = |batch: &&ValidBatch| transactions.aborted.contains(&batch.base_offset().0);
    let committed = batches.iter().filter(|batch| !is_control(batch) && !is_aborted(batch));
    let keyed =
        committed.flat_map(records).filter_map(|record| Some((record.key?, record.offset.0)));
    keyed.collect()
}

/// The transactions of a log, by the base offsets of the batches in them.
#[derive(Debug, Default)]
struct Transactions {
    open: BTreeMap<i64, (i64, Vec<i64>)>,
    /// Where each one began that has ended, and its marker's last offset.
    ended: Vec<(i64, i64)>,
    aborted: BTreeSet<i64>,
    /// By a marker's base offset, what it ends.
    ended_by: BTreeMap<i64, Vec<i64>>,
}

impl Transactions {
    /// Those in batches as they were written, after what others have made of their producers.
    fn of(batches: &[ValidBatch], before: &Producers) -> Self {
        let mut transactions = Self::default();
        for (id, producer) in before.iter() {
            if let Some(first) = producer.transaction_first_offset {
                transactions.open.insert(id.0, (first.0, Vec::new()));
            }
        }
        batches.iter().for_each(|batch| transactions.add(batch));
        transactions
    }

    fn add(&mut self, batch: &ValidBatch) {
        let (header, at) = (batch.header(), batch.base_offset().0);
        if is_control(batch) {
            self.end(batch);
        } else if header.attributes.is_transactional() {
            self.open.entry(header.producer_id).or_insert((at, Vec::new())).1.push(at);
        }
    }

    fn end(&mut self, marker: &ValidBatch) {
        let record = records(marker).into_iter().next();
        let key = record.and_then(|record| record.key);
        let control = key.and_then(|key| ControlType::from_key(&key).ok().flatten());
        let (Some(control), Some((first, batches))) =
            (control, self.open.remove(&marker.header().producer_id))
        else {
            return;
        };
        self.ended.push((first, marker.last_offset().0));
        if control == ControlType::Abort {
            self.aborted.extend(&batches);
        }
        self.ended_by.insert(marker.base_offset().0, batches);
    }

    fn first_undecided(&self, high_watermark: i64) -> Option<i64> {
        let is_above = |(_, marker): &&(i64, i64)| *marker >= high_watermark;
        let ended = self.ended.iter().filter(is_above).map(|(first, _)| *first);
        self.open.values().map(|(first, _)| *first).chain(ended).min()
    }
}

/// A log before and after it was compacted, up to the bound.
struct Compaction<'a> {
    before: &'a [ValidBatch],
    after: &'a [ValidBatch],
    transactions: &'a Transactions,
    terms: Terms,
    newest: BTreeMap<Bytes, i64>,
}

impl<'a> Compaction<'a> {
    fn new(
        before: &'a [ValidBatch],
        after: &'a [ValidBatch],
        transactions: &'a Transactions,
        terms: Terms,
    ) -> Self {
        let newest = newest_of_keys(before, transactions);
        Self { before, after, transactions, terms, newest }
    }

    fn check(&self, producers: &Producers) -> Checked<Done> {
        let mut done = Done::default();
        let mut after = self.after.iter().peekable();
        for before in self.before {
            let left = after.next_if(|batch| batch.base_offset() == before.base_offset());
            if left != Some(before) {
                self.check_age(before)?;
                done.batches += 1;
            }
            match left {
                Some(left) if left == before => {}
                Some(left) => self.check_left(before, left, &mut done)?,
                None => self.check_gone(before, &records(before), &mut done)?,
            }
        }
        let surplus = after.next().map(summary);
        law!(Compaction, surplus.is_none(), "compaction has brought about {surplus:?}");
        self.check_last_batches(producers)?;
        Ok(done)
    }

    fn check_age(&self, batch: &ValidBatch) -> Checked {
        let (age_ms, lag_ms) =
            (self.terms.now_ms - batch.max_timestamp().0, self.terms.min_compaction_lag_ms);
        law!(
            Compaction,
            lag_ms == 0 || age_ms >= lag_ms,
            "{:?} was compacted at {age_ms} ms",
            summary(batch)
        );
        Ok(())
    }

    fn check_left(&self, before: &ValidBatch, left: &ValidBatch, done: &mut Done) -> Checked {
        law!(
            Compaction,
            is_left_of(left, before),
            "{:?} is not what was {:?}",
            left.header(),
            before.header()
        );
        let kept: BTreeSet<i64> = records(left).iter().map(|record| record.offset.0).collect();
        let is_gone = |record: &Record| !kept.contains(&record.offset.0);
        let gone: Vec<Record> = records(before).into_iter().filter(is_gone).collect();
        if kept.is_empty() {
            done.emptied += 1;
        } else {
            let (old, new) =
                (before.header().delete_horizon_ms(), left.header().delete_horizon_ms());
            let due = self.terms.now_ms + self.terms.delete_retention_ms;
            law!(
                Compaction,
                new == old || old.is_none() && new == Some(due),
                "the horizon of {:?} was {old:?}, and is {new:?}, not {due}",
                summary(before)
            );
        }
        self.check_gone(before, &gone, done)
    }

    /// Whether these records of a batch may have gone.
    fn check_gone(&self, batch: &ValidBatch, gone: &[Record], done: &mut Done) -> Checked {
        let horizon = batch.header().delete_horizon_ms();
        let has_passed = horizon.is_some_and(|horizon| horizon <= self.terms.now_ms);
        if is_control(batch) {
            return self.check_marker_gone(batch, has_passed || gone.is_empty(), done);
        }
        if self.transactions.aborted.contains(&batch.base_offset().0) {
            done.aborted += gone.len();
            return Ok(());
        }
        for record in gone {
            let newest = record.key.as_ref().and_then(|key| self.newest.get(key)).copied();
            let is_obsolete = newest != Some(record.offset.0);
            let is_over = record.value.is_none() && has_passed;
            law!(
                Compaction,
                is_obsolete || is_over,
                "{} was the newest of its key, with the horizon {horizon:?} at {}, and is gone",
                record.offset,
                self.terms.now_ms
            );
            done.records += 1;
            done.tombstones += usize::from(!is_obsolete);
        }
        Ok(())
    }

    fn check_marker_gone(&self, marker: &ValidBatch, may_go: bool, done: &mut Done) -> Checked {
        let at = marker.base_offset();
        law!(Compaction, may_go, "the marker at {at} is gone before its horizon");
        let ended = self.transactions.ended_by.get(&at.0).map_or(&[][..], Vec::as_slice);
        let is_there =
            |it: &&ValidBatch| ended.contains(&it.base_offset().0) && it.header().record_count > 0;
        let there = self.after.iter().find(is_there).map(summary);
        law!(
            Compaction,
            there.is_none(),
            "the marker at {at} is gone before {there:?}, which it ends"
        );
        done.markers += 1;
        Ok(())
    }

    fn check_last_batches(&self, producers: &Producers) -> Checked {
        for (id, producer) in producers.iter() {
            let Some(last) = producer.batches().last() else { continue };
            let is_it = |batch: &ValidBatch| batch.last_offset() == last.last_offset;
            law!(
                Compaction,
                !self.before.iter().any(is_it) || self.after.iter().any(is_it),
                "the last batch of producer {id} is gone, which ended at {}",
                last.last_offset
            );
        }
        Ok(())
    }
}
