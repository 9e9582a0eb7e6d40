//! Named deadlines, the next one first. Pure.
//!
//! Invariant: each name has at most one deadline, and stands in both maps or in neither.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::Timestamp;

/// A timer that is set, moved or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange<T> {
    Set(T, Timestamp),
    Cancel(T),
}

/// All timers of one machine.
#[derive(Debug)]
pub struct Timers<T> {
    deadlines: BTreeMap<T, Timestamp>,
    order: BTreeSet<(Timestamp, T)>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<T: Clone + Ord> Timers<T> {
    pub fn change(&mut self, change: TimerChange<T>) {
        match change {
            TimerChange::Set(timer, deadline) => {
                if let Some(before) = self.deadlines.insert(timer.clone(), deadline) {
                    self.order.remove(&(before, timer.clone()));
                }
                self.order.insert((deadline, timer));
            }
            TimerChange::Cancel(timer) => {
                if let Some(deadline) = self.deadlines.remove(&timer) {
                    self.order.remove(&(deadline, timer));
                }
            }
        }
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a timer whose time has come, the earliest first.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimerChange::{Cancel, Set};

    #[test]
    fn timers_come_due_in_order_and_only_then() {
        let mut timers = Timers::default();
        timers.change(Set("b", Timestamp(20)));
        timers.change(Set("a", Timestamp(10)));
        assert_eq!(timers.next_deadline(), Some(Timestamp(10)));
        assert_eq!(timers.pop_due(Timestamp(9)), None);
        assert_eq!(timers.pop_due(Timestamp(20)), Some("a"));
        assert_eq!(timers.pop_due(Timestamp(20)), Some("b"));
        assert_eq!(timers.pop_due(Timestamp(20)), None);
    }

    #[test]
    fn a_timer_that_is_set_again_moves_and_one_that_is_cancelled_is_gone() {
        let mut timers = Timers::default();
        timers.change(Set("a", Timestamp(10)));
        timers.change(Set("a", Timestamp(30)));
        timers.change(Set("b", Timestamp(20)));
        timers.change(Cancel("b"));
        timers.change(Cancel("never set"));
        assert_eq!(timers.pop_due(Timestamp(29)), None);
        assert_eq!(timers.pop_due(Timestamp(30)), Some("a"));
        assert_eq!(timers.next_deadline(), None);
    }
}
