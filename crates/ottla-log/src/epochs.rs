//! Which leader epoch wrote which offsets: the start offset of every epoch in a log. Pure.
//!
//! Invariant: epochs and start offsets both rise strictly from entry to entry.
//! A follower asks where an epoch ended, and cuts off whatever it holds of that epoch beyond (KIP-101, KIP-279).

use ottla_base::{LeaderEpoch, Offset};

use crate::checkpoint::{self, CheckpointError};

/// The first offset that was written in a leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: LeaderEpoch,
    pub start_offset: Offset,
}

impl EpochEntry {
    /// What a text of Kafka's `leader-epoch-checkpoint` says, line by line.
    pub(crate) fn all(text: &str) -> Result<Vec<Self>, CheckpointError> {
        checkpoint::read(text)?.into_iter().map(Self::parse).collect()
    }

    /// The fields of one line.
    pub(crate) fn parse([epoch, start_offset]: [&str; 2]) -> Result<Self, CheckpointError> {
        Ok(Self {
            epoch: LeaderEpoch(checkpoint::number(epoch)?),
            start_offset: Offset(checkpoint::number(start_offset)?),
        })
    }
}

/// The epochs of one log, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    #[must_use]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` writes from `start_offset` on. Entries that contradict it are dropped: they belong to
    /// records that were cut off. Returns whether anything changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if !self.would_assign(epoch, start_offset) {
            return false;
        }
        while self.latest().is_some_and(|e| e.epoch >= epoch || e.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// Whether [`EpochCache::assign`] would change anything.
    #[must_use]
    pub fn would_assign(&self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        let known =
            |latest: EpochEntry| latest.epoch == epoch && latest.start_offset <= start_offset;
        epoch.0 >= 0 && !self.latest().is_some_and(known)
    }

    /// The largest epoch up to `epoch`, and the offset after its last record.
    ///
    /// `None` when the log has never heard of an epoch as large. An epoch older than all that are left gives
    /// itself and the start of the oldest one.
    #[must_use]
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if epoch.0 == -1 {
            return None;
        }
        if self.latest()?.epoch == epoch {
            return Some((epoch, log_end_offset));
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries.get(next)?.start_offset;
        let floor = next.checked_sub(1).and_then(|at| self.entries.get(at));
        Some((floor.map_or(epoch, |entry| entry.epoch), end_offset))
    }

    /// The epoch that wrote the record at this offset.
    #[must_use]
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map(|entry| entry.epoch)
    }

    /// Whether an epoch begins at or after the log's end, where nothing of it can be.
    #[must_use]
    pub fn reaches(&self, log_end_offset: Offset) -> bool {
        self.latest().is_some_and(|latest| latest.start_offset >= log_end_offset)
    }

    /// Forgets what begins at or after the log's new end. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, log_end_offset: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < log_end_offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets what ended before the log's new start; the epoch at the start now begins there.
    pub fn truncate_from_start(&mut self, log_start_offset: Offset) -> bool {
        let passed = self.entries.partition_point(|entry| entry.start_offset <= log_start_offset);
        let Some(last_passed) = passed.checked_sub(1) else { return false };
        self.entries.drain(..last_passed);
        let first = self.entries.first_mut().expect("the last one passed stays");
        let changed = last_passed > 0 || first.start_offset != log_start_offset;
        first.start_offset = log_start_offset;
        changed
    }

    /// The text of Kafka's `leader-epoch-checkpoint`.
    #[must_use]
    pub fn to_text(&self) -> String {
        checkpoint::write(self.entries.iter().map(|e| format!("{} {}", e.epoch, e.start_offset)))
    }

    /// Reads that text; entries that contradict an earlier one win, as in Kafka.
    pub(crate) fn from_text(text: &str) -> Result<Self, CheckpointError> {
        Ok(Self::of(&EpochEntry::all(text)?))
    }

    /// Entries that contradict an earlier one win.
    pub(crate) fn of(entries: &[EpochEntry]) -> Self {
        let mut cache = Self::default();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start_offset) in entries {
            cache.assign(LeaderEpoch(*epoch), Offset(*start_offset));
        }
        cache
    }

    fn end(cache: &EpochCache, epoch: i32) -> Option<(i32, i64)> {
        cache.end_offset_for(LeaderEpoch(epoch), Offset(100)).map(|(e, o)| (e.0, o.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let cache = cache(&[(2, 10), (5, 30), (7, 60)]);
        assert_eq!(end(&cache, 2), Some((2, 30)));
        assert_eq!(end(&cache, 4), Some((2, 30)), "the largest epoch up to the one asked for");
        assert_eq!(end(&cache, 5), Some((5, 60)));
        assert_eq!(end(&cache, 7), Some((7, 100)), "the latest epoch ends at the log's end");
        assert_eq!(end(&cache, 1), Some((1, 10)), "before all that is left");
        assert_eq!(end(&cache, 8), None);
        assert_eq!(end(&cache, -1), None);
        assert_eq!(end(&EpochCache::default(), 0), None);
    }

    #[test]
    fn a_contradicting_entry_replaces_what_it_contradicts() {
        assert_eq!(cache(&[(1, 10), (2, 20), (3, 15)]), cache(&[(1, 10), (3, 15)]));
        assert_eq!(cache(&[(1, 10), (3, 20), (2, 30)]), cache(&[(1, 10), (2, 30)]));
        assert_eq!(cache(&[(1, 10), (1, 12)]), cache(&[(1, 10)]), "a known epoch keeps its start");
    }

    #[test]
    fn truncation_keeps_the_epoch_of_the_first_record() {
        let mut log = cache(&[(1, 0), (2, 10), (3, 20)]);
        assert!(log.truncate_from_start(Offset(15)));
        assert_eq!(log, cache(&[(2, 15), (3, 20)]));
        assert!(log.truncate_from_end(Offset(20)));
        assert_eq!(log, cache(&[(2, 15)]));
        assert!(!log.truncate_from_end(Offset(16)));
        assert!(!log.truncate_from_start(Offset(15)));
    }

    #[test]
    fn an_offset_belongs_to_the_last_epoch_that_began_by_then() {
        let log = cache(&[(1, 5), (2, 10)]);
        assert_eq!(log.epoch_for(Offset(4)), None);
        assert_eq!(log.epoch_for(Offset(9)), Some(LeaderEpoch(1)));
        assert_eq!(log.epoch_for(Offset(10)), Some(LeaderEpoch(2)));
    }

    #[test]
    fn the_text_is_kafkas() {
        let log = cache(&[(0, 0), (4, 1234)]);
        assert_eq!(log.to_text(), "0\n2\n0 0\n4 1234\n");
        assert_eq!(EpochCache::from_text(&log.to_text()), Ok(log));
        assert_eq!(EpochCache::from_text(""), Ok(EpochCache::default()));
    }
}
