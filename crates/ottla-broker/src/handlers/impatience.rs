//! Requests whose time is over before the controller looks at them. Pure.
//!
//! Apache Kafka's controller has a queue, and answers REQUEST_TIMED_OUT in place of what has waited in it for too long. That is
//! always so where there was no time to wait, and nothing is carried out then. What needs no decision waits in no queue.

use std::collections::BTreeMap;

pub(super) const fn has_no_time(timeout_ms: i32) -> bool {
    timeout_ms <= 0
}

/// Whether something is named exactly once: what is named twice is refused before the controller is asked about the rest.
pub(super) fn names_any_once<T: Ord>(names: impl IntoIterator<Item = T>) -> bool {
    let mut counts = BTreeMap::<T, usize>::new();
    names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
    counts.values().any(|count| *count == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_is_not_what_the_controller_is_asked_about() {
        assert!(!names_any_once([0; 0]));
        assert!(names_any_once([1, 1, 2]));
        assert!(!names_any_once([1, 1, 1]));
    }
}
