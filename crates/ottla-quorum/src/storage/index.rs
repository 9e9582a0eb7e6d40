//! Where the entries of the metadata log are: entry index to offset and term. Pure.
//!
//! Eight bytes per entry. The log's first entries may be gone, into a snapshot: of them the last one is known.
//!
//! Invariants: base offsets rise strictly; terms never fall; `base_offsets.back() < end_offset`.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use ottla_base::Offset;
use ottla_records::BatchHeader;

use crate::raft::{LogId, log_id};

/// The map of a log's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogIndex {
    /// The last entry that is gone from the log's beginning.
    purged: Option<LogId>,
    base_offsets: VecDeque<i64>,
    end_offset: i64,
    /// Each term with the index of its first entry; of the first term that may be gone.
    terms: Vec<(i32, u64)>,
}

impl LogIndex {
    /// Of a log that is empty so far, and begins at an offset, after an entry.
    pub(crate) fn starting_after(purged: Option<LogId>, offset: Offset) -> Self {
        let (base_offsets, terms) = (VecDeque::new(), Vec::new());
        Self { purged, base_offsets, end_offset: offset.0, terms }
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The index of the first entry that is there, or will be.
    pub(crate) fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index() + 1)
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.first_index() + self.base_offsets.len() as u64
    }

    /// The offset of the first entry that is there, or will be.
    pub(crate) fn start_offset(&self) -> Offset {
        Offset(self.base_offsets.front().copied().unwrap_or(self.end_offset))
    }

    /// The offset after the last record.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset(self.end_offset)
    }

    /// The last entry, be it there or gone.
    pub(crate) fn last(&self) -> Option<LogId> {
        if self.base_offsets.is_empty() {
            return self.purged;
        }
        let index = self.next_index() - 1;
        Some(log_id(self.term(index)?, index))
    }

    pub(crate) fn base_offset(&self, index: u64) -> Option<Offset> {
        let at = usize::try_from(index.checked_sub(self.first_index())?).ok()?;
        self.base_offsets.get(at).copied().map(Offset)
    }

    /// The entry before the first one that is there has a last offset, too.
    pub(crate) fn last_offset(&self, index: u64) -> Option<Offset> {
        if self.purged.is_some_and(|purged| purged.index() == index) {
            return Some(Offset(self.start_offset().0 - 1));
        }
        self.base_offset(index)?;
        let next = self.base_offset(index + 1).map_or(self.end_offset, |offset| offset.0);
        Some(Offset(next - 1))
    }

    pub(crate) fn term(&self, index: u64) -> Option<i32> {
        self.base_offset(index)?;
        let after = self.terms.partition_point(|(_, first)| *first <= index);
        self.terms.get(after.checked_sub(1)?).map(|(term, _)| *term)
    }

    /// The part of a range of indexes that there is.
    pub(crate) fn clamp(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.clamp(self.first_index(), self.next_index());
        range.start.clamp(self.first_index(), end)..end
    }

    /// Adds the batch that follows the last one.
    pub(crate) fn push(&mut self, batch: &BatchHeader) {
        assert_eq!(batch.base_offset, self.end_offset, "batches follow one another");
        let term = batch.partition_leader_epoch;
        match self.terms.last() {
            Some((last, _)) if *last == term => {}
            Some((last, _)) if *last > term => panic!("term {term} after term {last}"),
            _ => self.terms.push((term, self.next_index())),
        }
        self.base_offsets.push_back(batch.base_offset);
        self.end_offset = batch.next_offset();
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        let Some(offset) = self.base_offset(index) else { return };
        self.end_offset = offset.0;
        let kept = usize::try_from(index - self.first_index()).expect("an index that is there");
        self.base_offsets.truncate(kept);
        self.terms.retain(|(_, first)| *first < index);
    }

    /// Removes the entries up to one that is there.
    pub(crate) fn purge(&mut self, upto: LogId) {
        let removed = (upto.index() + 1).saturating_sub(self.first_index());
        let removed = usize::try_from(removed).unwrap_or(usize::MAX).min(self.base_offsets.len());
        self.base_offsets.drain(..removed);
        self.purged = Some(upto);
        let gone = self.terms.partition_point(|(_, first)| *first <= self.first_index());
        self.terms.drain(..gone.saturating_sub(1));
    }

    /// The last entry of each term within the range: what openraft knows terms by. From other entries it would take
    /// the terms of entries for those of their neighbours.
    pub(crate) fn key_log_ids(&self, range: RangeInclusive<u64>) -> Vec<LogId> {
        let end = self.next_index().min(range.end().saturating_add(1));
        let ends = self.terms.iter().skip(1).map(|(_, first)| *first).chain([self.next_index()]);
        let lasts = self.terms.iter().zip(ends).filter_map(|((term, first), after)| {
            let last = after.min(end).checked_sub(1)?;
            (last >= (*first).max(self.first_index()) && range.contains(&last))
                .then(|| log_id(*term, last))
        });
        lasts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_records::{BatchBuilder, Compression};

    /// Entries given as (term, records).
    fn index_of(entries: &[(i32, usize)]) -> LogIndex {
        index_after(None, 0, entries)
    }

    fn index_after(purged: Option<LogId>, start: i64, entries: &[(i32, usize)]) -> LogIndex {
        let mut index = LogIndex::starting_after(purged, Offset(start));
        for &(term, records) in entries {
            let mut builder =
                BatchBuilder::new(Compression::None).at(index.end_offset(), LeaderEpoch(term));
            (0..records).for_each(|_| builder.append(Timestamp(0), None, None, &[]));
            index.push(builder.build().header());
        }
        index
    }

    #[test]
    fn an_entry_reaches_from_its_base_offset_to_the_next_ones() {
        let index = index_of(&[(0, 2), (1, 1), (1, 3)]);
        let range = |at| (index.base_offset(at).unwrap().0, index.last_offset(at).unwrap().0);
        assert_eq!([range(0), range(1), range(2)], [(0, 1), (2, 2), (3, 5)]);
        assert_eq!((index.next_index(), index.end_offset()), (3, Offset(6)));
        assert_eq!(index.last(), Some(log_id(1, 2)));
        assert_eq!((index.base_offset(3), index.last_offset(3)), (None, None));
    }

    #[test]
    fn truncating_forgets_entries_and_the_terms_that_began_with_them() {
        let mut index = index_of(&[(0, 2), (1, 1), (4, 3), (4, 1)]);
        index.truncate(2);
        assert_eq!(index, index_of(&[(0, 2), (1, 1)]));
        index.truncate(9);
        assert_eq!(index, index_of(&[(0, 2), (1, 1)]));
        index.truncate(0);
        assert_eq!(index, index_of(&[]));
        assert_eq!(index.last(), None);
    }

    #[test]
    fn key_entries_are_the_last_of_each_term_within_the_range() {
        let index = index_of(&[(0, 1), (1, 1), (1, 1), (5, 1), (5, 1), (5, 1)]);
        let keys = |range| index.key_log_ids(range);
        let ids = |ids: &[(i32, u64)]| -> Vec<_> {
            ids.iter().map(|(term, at)| log_id(*term, *at)).collect()
        };
        assert_eq!(keys(0..=5), ids(&[(0, 0), (1, 2), (5, 5)]));
        assert_eq!(keys(2..=4), ids(&[(1, 2), (5, 4)]));
        assert_eq!(keys(1..=1), ids(&[(1, 1)]));
        assert_eq!(keys(3..=9), ids(&[(5, 5)]));
        assert_eq!(keys(6..=9), ids(&[]));
    }

    #[test]
    fn entries_that_are_gone_leave_the_others_where_they_were() {
        let all = [(0, 2), (1, 1), (1, 3), (4, 1), (4, 1)];
        let whole = index_of(&all);
        for upto in 0..all.len() {
            let mut index = whole.clone();
            let last = log_id(all[upto].0, upto as u64);
            index.purge(last);
            let start = whole.last_offset(upto as u64).unwrap().0 + 1;
            assert_eq!(index.purged(), Some(last));
            assert_eq!(index.last(), whole.last());
            assert_eq!(index.next_index(), 5);
            for at in upto as u64 + 1..6 {
                assert_eq!(index.base_offset(at), whole.base_offset(at));
                assert_eq!(index.last_offset(at), whole.last_offset(at));
                assert_eq!(index.term(at), whole.term(at));
            }
            assert_eq!(index.base_offset(upto as u64), None);
            assert_eq!(index.last_offset(upto as u64), Some(Offset(start - 1)));
            assert_eq!(index.clamp(0..9), upto as u64 + 1..5);
            let there = index_after(Some(last), start, &all[upto + 1..]);
            assert_eq!(index.key_log_ids(0..=9), there.key_log_ids(0..=9), "up to {upto}");
            let mut cut = index.clone();
            cut.truncate(upto as u64 + 1);
            assert_eq!(cut.last(), Some(last));
            assert_eq!(cut.end_offset(), Offset(start));
        }
    }
}
