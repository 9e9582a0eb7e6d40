//! How far a member has done with what it read, and when that is to be committed. Pure.
//!
//! One commit is in flight at a time; what is done meanwhile gathers for the next one. The first after a quiet time
//! leaves at once, so that a slow trickle of records is committed record by record.
//!
//! Invariant: an offset is offered for a commit only after it was noted as done, and again until a commit that held
//! it, or a later one, was accepted.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_base::{Offset, TopicPartition};
use tokio::time::Instant;

pub(super) type Offsets = BTreeMap<TopicPartition, Offset>;

#[derive(Debug)]
pub(super) struct Progress {
    interval: Duration,
    /// Not committed yet, those in flight included.
    done: Offsets,
    in_flight: Option<Offsets>,
    not_before: Option<Instant>,
}

impl Progress {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, done: Offsets::new(), in_flight: None, not_before: None }
    }

    /// Everything below the offset is done with.
    pub(super) fn note(&mut self, partition: TopicPartition, offset: Offset) {
        let known = self.done.entry(partition).or_insert(offset);
        *known = offset.max(*known);
    }

    /// Whether nothing is left to commit.
    pub(super) fn is_committed(&self) -> bool {
        self.done.is_empty()
    }

    /// From here on nothing waits for the interval to pass: these are the last commits.
    pub(super) fn hurry(&mut self) {
        self.interval = Duration::ZERO;
        self.not_before = None;
    }

    /// What to commit now, if it is time; nothing while a commit is in flight.
    pub(super) fn take(&mut self, now: Instant) -> Option<Offsets> {
        let early = self.not_before.is_some_and(|not_before| now < not_before);
        if early || self.in_flight.is_some() || self.done.is_empty() {
            return None;
        }
        self.not_before = Some(now + self.interval);
        self.in_flight = Some(self.done.clone());
        self.in_flight.clone()
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = self.in_flight.is_none() && !self.done.is_empty();
        self.not_before.filter(|_| waits)
    }

    /// The commit in flight was accepted.
    pub(super) fn accept(&mut self) {
        for (partition, offset) in self.in_flight.take().unwrap_or_default() {
            if self.done.get(&partition) == Some(&offset) {
                self.done.remove(&partition);
            }
        }
    }

    /// The commit in flight was not accepted: it is offered again, but not before then.
    pub(super) fn refuse(&mut self, not_before: Instant) {
        self.in_flight = None;
        self.not_before = self.not_before.max(Some(not_before));
    }

    /// A partition that cannot be committed: it is not there any more.
    pub(super) fn drop_partition(&mut self, partition: &TopicPartition) {
        self.done.remove(partition);
    }

    /// The partitions belong to somebody else now.
    pub(super) fn forget(&mut self) {
        self.done.clear();
        self.in_flight = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn offsets(pairs: &[(i32, i64)]) -> Option<Offsets> {
        Some(pairs.iter().map(|(index, offset)| (partition(*index), Offset(*offset))).collect())
    }

    #[test]
    fn the_first_commit_leaves_at_once_and_the_next_after_the_interval() {
        let (start, mut progress) = (Instant::now(), Progress::new(INTERVAL));
        assert_eq!(progress.take(start), None);
        progress.note(partition(0), Offset(5));
        assert_eq!(progress.take(start), offsets(&[(0, 5)]));
        progress.note(partition(0), Offset(6));
        progress.note(partition(1), Offset(1));
        assert_eq!(progress.take(start + INTERVAL), None, "one is in flight");
        progress.accept();
        assert_eq!(progress.deadline(), Some(start + INTERVAL));
        assert_eq!(progress.take(start), None);
        assert_eq!(progress.take(start + INTERVAL), offsets(&[(0, 6), (1, 1)]));
        progress.accept();
        assert!(progress.is_committed());
        assert_eq!(progress.deadline(), None);
    }

    #[test]
    fn what_was_refused_is_offered_again_with_what_was_done_since() {
        let (start, mut progress) = (Instant::now(), Progress::new(INTERVAL));
        progress.note(partition(0), Offset(5));
        progress.take(start);
        progress.note(partition(1), Offset(2));
        let later = start + INTERVAL * 2;
        progress.refuse(later);
        assert_eq!(progress.deadline(), Some(later));
        assert_eq!(progress.take(start + INTERVAL), None);
        assert_eq!(progress.take(later), offsets(&[(0, 5), (1, 2)]));
    }

    #[test]
    fn an_offset_never_moves_back() {
        let mut progress = Progress::new(INTERVAL);
        progress.note(partition(0), Offset(5));
        progress.note(partition(0), Offset(3));
        assert_eq!(progress.take(Instant::now()), offsets(&[(0, 5)]));
    }

    #[test]
    fn a_late_answer_to_what_was_forgotten_changes_nothing() {
        let (start, mut progress) = (Instant::now(), Progress::new(INTERVAL));
        progress.note(partition(0), Offset(5));
        progress.take(start);
        progress.forget();
        progress.note(partition(0), Offset(2));
        progress.accept();
        assert_eq!(progress.take(start + INTERVAL), offsets(&[(0, 2)]));
    }

    #[test]
    fn the_last_commits_do_not_wait() {
        let (start, mut progress) = (Instant::now(), Progress::new(INTERVAL));
        progress.note(partition(0), Offset(5));
        progress.take(start);
        progress.note(partition(0), Offset(6));
        progress.hurry();
        progress.accept();
        assert_eq!(progress.take(start), offsets(&[(0, 6)]));
    }
}
