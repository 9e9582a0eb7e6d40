//! Named deadlines, the next one first. Pure.
//!
//! Deadlines are on a clock that nobody sets: were they on the wall clock, a clock that is put right would end all
//! sessions at once, or none for an hour.
//!
//! Invariants:
//! - each name has at most one deadline, and stands in both maps or in neither
//! - a timer that is set is due later than now: what a timer sets off cannot keep others from their turn

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A timer that is set, moved or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange<T> {
    /// Due after so long from now.
    Set(T, Duration),
    Cancel(T),
}

/// The least time that passes before a timer is due.
const SOONEST: Duration = Duration::from_millis(1);

/// All timers of one machine.
#[derive(Debug)]
pub struct Timers<T> {
    deadlines: BTreeMap<T, Duration>,
    order: BTreeSet<(Duration, T)>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<T: Clone + Ord> Timers<T> {
    /// `now` is the time since some moment that stays the same.
    pub fn change(&mut self, now: Duration, change: TimerChange<T>) {
        match change {
            TimerChange::Set(timer, after) => {
                let deadline = now.saturating_add(after.max(SOONEST));
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
    pub fn next_deadline(&self) -> Option<Duration> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a timer whose time has come, the earliest first.
    pub fn pop_due(&mut self, now: Duration) -> Option<T> {
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

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn timers_come_due_in_order_and_only_then() {
        let mut timers = Timers::default();
        timers.change(ms(5), Set("b", ms(15)));
        timers.change(ms(5), Set("a", ms(5)));
        assert_eq!(timers.next_deadline(), Some(ms(10)));
        assert_eq!(timers.pop_due(ms(9)), None);
        assert_eq!(timers.pop_due(ms(20)), Some("a"));
        assert_eq!(timers.pop_due(ms(20)), Some("b"));
        assert_eq!(timers.pop_due(ms(20)), None);
    }

    #[test]
    fn a_timer_that_sets_itself_again_at_once_gives_others_their_turn() {
        let mut timers = Timers::default();
        timers.change(ms(0), Set("eager", ms(0)));
        timers.change(ms(0), Set("other", ms(1)));
        let mut due = Vec::new();
        while let Some(timer) = timers.pop_due(ms(1)) {
            timers.change(ms(1), Set("eager", ms(0)));
            due.push(timer);
        }
        assert_eq!(due, ["eager", "other"]);
    }

    #[test]
    fn a_timer_that_is_set_again_moves_and_one_that_is_cancelled_is_gone() {
        let mut timers = Timers::default();
        timers.change(ms(0), Set("a", ms(10)));
        timers.change(ms(0), Set("a", ms(30)));
        timers.change(ms(0), Set("b", ms(20)));
        timers.change(ms(0), Cancel("b"));
        timers.change(ms(0), Cancel("never set"));
        assert_eq!(timers.pop_due(ms(29)), None);
        assert_eq!(timers.pop_due(ms(30)), Some("a"));
        assert_eq!(timers.next_deadline(), None);
    }
}
