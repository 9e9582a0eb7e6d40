//! A state, and what it was at each offset that is not committed yet. Pure.
//!
//! The state must be cheap to clone (maps that share their structure): one clone is kept for each batch that was
//! appended and is not committed.
//!
//! Invariants:
//! - the ends of the versions that are kept rise strictly, and are above the committed end
//! - the last version that is kept, or else the committed one, equals the current one, unless a batch is half replayed

use std::collections::VecDeque;

use ottla_base::Offset;

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Timeline<S> {
    current: S,
    committed: S,
    committed_end: Offset,
    /// The state after each batch, and the offset after that batch.
    uncommitted: VecDeque<(Offset, S)>,
}

impl<S: Clone + Default> Default for Timeline<S> {
    fn default() -> Self {
        Self {
            current: S::default(),
            committed: S::default(),
            committed_end: Offset::ZERO,
            uncommitted: VecDeque::new(),
        }
    }
}

impl<S: Clone> Timeline<S> {
    /// The state after everything that was replayed.
    #[must_use]
    pub const fn current(&self) -> &S {
        &self.current
    }

    /// The state after everything that is committed.
    #[must_use]
    pub const fn committed(&self) -> &S {
        &self.committed
    }

    /// For replaying records. [`Timeline::appended`] must follow.
    pub const fn replay(&mut self) -> &mut S {
        &mut self.current
    }

    /// A batch that ends before `end` was replayed.
    pub fn appended(&mut self, end: Offset) {
        let last = self.uncommitted.back().map_or(self.committed_end, |(last, _)| *last);
        assert!(last < end, "batches follow one another");
        self.uncommitted.push_back((end, self.current.clone()));
    }

    /// Everything before `end` is committed.
    pub fn commit(&mut self, end: Offset) {
        while let Some((_, state)) = self.uncommitted.pop_front_if(|(version, _)| *version <= end) {
            self.committed = state;
        }
        self.committed_end = self.committed_end.max(end);
    }

    /// Forgets everything that is not committed.
    pub fn revert(&mut self) {
        self.uncommitted.clear();
        self.current = self.committed.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imbl::OrdMap;

    fn put(timeline: &mut Timeline<OrdMap<u8, u8>>, key: u8, value: u8, end: i64) {
        timeline.replay().insert(key, value);
        timeline.appended(Offset(end));
    }

    #[test]
    fn what_is_committed_lags_behind_and_catches_up() {
        let mut timeline = Timeline::default();
        put(&mut timeline, 1, 10, 1);
        put(&mut timeline, 1, 11, 2);
        assert_eq!(timeline.current().get(&1), Some(&11));
        assert_eq!(timeline.committed().get(&1), None);
        timeline.commit(Offset(1));
        assert_eq!(timeline.committed().get(&1), Some(&10));
        timeline.commit(Offset(2));
        assert_eq!(timeline.committed(), timeline.current());
    }

    #[test]
    fn half_of_a_batch_is_never_committed() {
        let mut timeline = Timeline::default();
        put(&mut timeline, 1, 10, 3);
        timeline.commit(Offset(2));
        assert_eq!(timeline.committed().get(&1), None);
    }

    #[test]
    fn reverting_leaves_what_is_committed() {
        let mut timeline = Timeline::default();
        put(&mut timeline, 1, 10, 1);
        timeline.commit(Offset(1));
        put(&mut timeline, 1, 11, 2);
        timeline.revert();
        assert_eq!(timeline.current().get(&1), Some(&10));
        put(&mut timeline, 2, 20, 2);
        timeline.commit(Offset(2));
        assert_eq!(timeline.committed().len(), 2);
    }
}
