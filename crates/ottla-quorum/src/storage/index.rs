//! Where the entries of the metadata log are: entry index to offset and term. Pure.
//!
//! Eight bytes per entry. Invariants: base offsets rise strictly; terms never fall; `base_offsets.back() < end_offset`.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use ottla_base::Offset;
use ottla_records::BatchHeader;

use crate::raft::{LogId, log_id};

/// The map of a log's entries, the first of which has index 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogIndex {
    base_offsets: VecDeque<i64>,
    end_offset: i64,
    /// Each term with the index of its first entry.
    terms: Vec<(i32, u64)>,
}

impl LogIndex {
    pub(crate) fn starting_at(offset: Offset) -> Self {
        Self { base_offsets: VecDeque::new(), end_offset: offset.0, terms: Vec::new() }
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.base_offsets.len() as u64
    }

    /// The offset after the last record.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset(self.end_offset)
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        let index = self.next_index().checked_sub(1)?;
        Some(log_id(self.term(index)?, index))
    }

    pub(crate) fn base_offset(&self, index: u64) -> Option<Offset> {
        let at = usize::try_from(index).ok()?;
        self.base_offsets.get(at).copied().map(Offset)
    }

    pub(crate) fn last_offset(&self, index: u64) -> Option<Offset> {
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
        let end = range.end.min(self.next_index());
        range.start.min(end)..end
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
        self.base_offsets.truncate(usize::try_from(index).expect("an index that is there"));
        self.terms.retain(|(_, first)| *first < index);
    }

    /// The last entry of each term within the range: what openraft knows terms by. From other entries it would take
    /// the terms of entries for those of their neighbours.
    pub(crate) fn key_log_ids(&self, range: RangeInclusive<u64>) -> Vec<LogId> {
        let end = self.next_index().min(range.end().saturating_add(1));
        let ends = self.terms.iter().skip(1).map(|(_, first)| *first).chain([self.next_index()]);
        let lasts = self.terms.iter().zip(ends).filter_map(|((term, first), after)| {
            let last = after.min(end).checked_sub(1)?;
            (last >= *first && range.contains(&last)).then(|| log_id(*term, last))
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
        let mut index = LogIndex::starting_at(Offset(0));
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
}
