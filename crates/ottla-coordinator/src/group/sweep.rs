//! Walks over all groups of a shard, a part at a time, so that nobody waits behind thousands of groups. Pure.

use std::collections::VecDeque;

use bytestring::ByteString;

use super::TopicDeleted;

/// How many groups are looked at before others get their turn.
pub(super) const GROUPS_AT_ONCE: usize = 500;

/// How long what could not be stored is left alone.
pub(super) const SWEEP_AGAIN_MS: i64 = 5_000;

/// A part of a walk, which is gone through again if what it deletes could not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweptPart {
    pub(super) task: Task,
    /// The last group before it.
    pub(super) after: Option<ByteString>,
}

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

    /// What to do next.
    pub(super) fn current(&self) -> Option<SweptPart> {
        let task = self.tasks.front()?.clone();
        Some(SweptPart { task, after: self.seen.clone() })
    }

    /// Goes back to a part that was the last to be gone through.
    pub(super) fn go_back(&mut self, part: SweptPart) {
        if self.tasks.front() != Some(&part.task) {
            self.tasks.push_front(part.task);
        }
        self.seen = part.after;
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
