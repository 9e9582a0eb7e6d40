//! What has been seen of a quorum, and the laws that it is held to.
//!
//! - At each offset there is one state of the cluster, whoever publishes it, in whatever life.
//! - What a node publishes does not fall, within a life.
//! - In an epoch at most one node is the active controller.
//! - Whatever a process has left, the next one starts from it, unless the disk fails.
//! - A vote that was given is on the disk when the next process starts from it.
//! - A decision that is answered was made on a state that includes all that was answered before it was asked for.
//! - What was answered is there at the end, and so is what somebody was shown who asked and changed nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset};
use ottla_metadata::Image;

use crate::Counts;
use crate::law::{Checked, Violation, law};

/// What the names of decisions begin with.
const NAME: &str = "decision-";

/// A decision by its number; it is the configuration of a group of this name.
pub(super) fn name_of(number: u64) -> String {
    format!("{NAME}{number}")
}

/// The decisions that a state includes.
pub(super) fn decisions(image: &Image) -> BTreeSet<u64> {
    let number = |name: &str| name.strip_prefix(NAME)?.parse().ok();
    image.config_resources().filter_map(|resource| number(&resource.name)).collect()
}

#[derive(Debug, Default)]
pub(super) struct History {
    states: BTreeMap<Offset, Arc<Image>>,
    active: BTreeMap<LeaderEpoch, usize>,
    answered: BTreeSet<u64>,
    /// The last epoch in which each node has given somebody its vote, since it has the disk that it has.
    votes: BTreeMap<usize, LeaderEpoch>,
    broken: Option<Violation>,
    pub(super) counts: Counts,
    pub(super) trace: Option<Vec<String>>,
}

impl History {
    pub(super) fn new(is_traced: bool) -> Self {
        Self { trace: is_traced.then(Vec::new), ..Self::default() }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// The first violation that was found.
    pub(super) fn check(&self) -> Checked {
        self.broken.clone().map_or(Ok(()), Err)
    }

    pub(super) fn hold(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.broken.get_or_insert(violation);
        }
    }

    /// A node has published a state; `before` is the last one in this life.
    pub(super) fn publish(&mut self, node: usize, before: Offset, image: &Arc<Image>) -> Checked {
        let at = image.offset;
        law!(PublishedInOrder, at >= before, "node {node} publishes {at} after {before}");
        let first = self.states.entry(at).or_insert_with(|| Arc::clone(image));
        law!(
            OneState,
            **first == **image,
            "node {node} sees another state at offset {at} than was seen before"
        );
        Ok(())
    }

    pub(super) fn lead(&mut self, node: usize, epoch: LeaderEpoch) -> Checked {
        let first = *self.active.entry(epoch).or_insert(node);
        law!(OneActive, first == node, "nodes {first} and {node} are both active in epoch {epoch}");
        Ok(())
    }

    pub(super) fn give_vote(&mut self, node: usize, epoch: LeaderEpoch) {
        let last = self.votes.entry(node).or_insert(epoch);
        *last = epoch.max(*last);
    }

    /// The node gets another disk.
    pub(super) fn forget_votes(&mut self, node: usize) {
        self.votes.remove(&node);
    }

    /// A node starts from a vote in this epoch.
    pub(super) fn start_from(&self, node: usize, epoch: LeaderEpoch) -> Checked {
        let given = self.votes.get(&node).copied().unwrap_or(epoch);
        law!(
            VoteKept,
            given <= epoch,
            "node {node} has given its vote in epoch {given}, and starts in {epoch}"
        );
        Ok(())
    }

    pub(super) fn answered(&self) -> BTreeSet<u64> {
        self.answered.clone()
    }

    /// Decision `number` is answered, which was made on a state with the decisions in `seen`; `before` were answered
    /// before it was asked for. One that changes nothing shows what it has seen.
    pub(super) fn answer(
        &mut self,
        number: u64,
        before: &BTreeSet<u64>,
        seen: BTreeSet<u64>,
        changes: bool,
    ) -> Checked {
        let missing: Vec<_> = before.difference(&seen).collect();
        law!(
            Informed,
            missing.is_empty(),
            "decision {number} was made without {missing:?}, answered before"
        );
        if changes {
            self.answered.insert(number);
        } else {
            self.answered.extend(seen);
        }
        Ok(())
    }

    /// Everything that was answered is in the state that all have come to.
    pub(super) fn check_end(&self, image: &Image) -> Checked {
        let there = decisions(image);
        let lost: Vec<_> = self.answered.difference(&there).collect();
        law!(AnswersKept, lost.is_empty(), "lost: {lost:?}, of {} answered", self.answered.len());
        Ok(())
    }
}
