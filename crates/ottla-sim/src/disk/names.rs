//! What of one directory is on the disk, and what was done to its names since. Pure.
//!
//! A crash takes the changes of one directory back from the last one on, as journals do; each directory goes its own
//! way.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::Random;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    File(usize),
    Directory(usize),
}

pub(crate) type Names = BTreeMap<OsString, Node>;

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(OsString, Node),
    Remove(OsString),
    Rename(OsString, OsString),
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Put(name, node) => _ = names.insert(name.clone(), *node),
            Self::Remove(name) => _ = names.remove(name),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// Invariant: `durable` with all of `changes` is `visible`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    durable: Names,
    changes: Vec<Change>,
    pub(crate) visible: Names,
    /// Of one that is being rebuilt after a crash: which one it was before.
    pub(crate) source: Option<usize>,
}

impl Directory {
    pub(crate) fn durable(names: Names) -> Self {
        Self { visible: names.clone(), durable: names, ..Self::default() }
    }

    pub(crate) fn rebuilding(source: usize) -> Self {
        Self { source: Some(source), ..Self::default() }
    }

    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.changes.push(change);
    }

    pub(crate) fn sync(&mut self) {
        self.changes.clear();
        self.durable.clone_from(&self.visible);
    }

    /// What a loss of power leaves, and how many changes it took back.
    pub(crate) fn after_crash(&self, random: &mut Random) -> (Names, usize) {
        let count = match random.below(4) {
            0 => 0,
            1 => self.changes.len(),
            _ => random.below(self.changes.len() + 1),
        };
        let mut names = self.durable.clone();
        self.changes.iter().take(count).for_each(|change| change.apply(&mut names));
        (names, self.changes.len() - count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_takes_back_the_last_changes_since_the_sync_and_no_others() {
        let mut directory = Directory::default();
        directory.change(Change::Put("a".into(), Node::File(1)));
        directory.sync();
        directory.change(Change::Put("b".into(), Node::File(2)));
        directory.change(Change::Rename("b".into(), "a".into()));
        directory.change(Change::Remove("a".into()));
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let (names, lost) = directory.after_crash(&mut Random::new(seed, 0));
            found.insert((lost, format!("{names:?}")));
        }
        let expected = [
            (0, "{}"),
            (1, r#"{"a": File(2)}"#),
            (2, r#"{"a": File(1), "b": File(2)}"#),
            (3, r#"{"a": File(1)}"#),
        ];
        assert!(found.into_iter().eq(expected.map(|(lost, names)| (lost, names.to_owned()))));
    }
}
