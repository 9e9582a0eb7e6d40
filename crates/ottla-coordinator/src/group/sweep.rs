//! Walks over all groups of a shard, a part at a time, so that nobody waits behind thousands of groups. Pure.

use std::collections::VecDeque;
use std::ops::Bound;

use bytestring::ByteString;

use super::TopicDeleted;

/// How many groups are looked at before others get their turn.
pub(super) const GROUPS_AT_ONCE: usize = 500;

/// What is done to each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Delete offsets that nobody needs any more.
    Expire,
    /// Delete offsets in topics that are gone.
    Forget(Vec<TopicDeleted>),
}

/// The walks under way, the first of them somewhere in the middle.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    tasks: VecDeque<Task>,
    /// The last group that the first walk has seen.
    seen: Option<ByteString>,
}

impl Sweeps {
    pub(super) fn begin(&mut self, task: Task) {
        if !self.tasks.contains(&task) {
            self.tasks.push_back(task);
        }
    }

    /// What to do, and from which group on.
    pub(super) fn current(&self) -> Option<(&Task, Bound<&str>)> {
        let from = self.seen.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.tasks.front().map(|task| (task, from))
    }

    /// Notes how far the first walk has come; `None` when it is over. Whether there is more to do.
    pub(super) fn advance(&mut self, seen: Option<ByteString>) -> bool {
        if seen.is_none() {
            self.tasks.pop_front();
        }
        self.seen = seen;
        !self.tasks.is_empty()
    }
}
