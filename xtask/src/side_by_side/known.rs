//! The differences that we know of, each with its reason, from `interop/side-by-side/known-differences.txt` (pure).
//!
//! ```text
//! # A comment.
//! Fetch v* limits* | responses[0].partitions[0].records
//!     Why it differs, in indented lines.
//! ```
//! Before the bar stands the step, behind it the field; `*` stands for anything. An entry that no difference meets
//! is an error: it would hide one that comes later.

use anyhow::Result;

use super::value::Difference;
use crate::pattern::{self, matches};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    step: String,
    field: String,
    met: usize,
}

#[derive(Debug, Default)]
pub(super) struct KnownDifferences {
    entries: Vec<Entry>,
}

impl KnownDifferences {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let entry = |entry: pattern::Entry| Entry { step: entry.left, field: entry.right, met: 0 };
        Ok(Self { entries: pattern::parse_list(text)?.into_iter().map(entry).collect() })
    }

    /// Whether we know of this difference; remembers that it was met.
    pub(super) fn covers(&mut self, step: &str, difference: &Difference) -> bool {
        let covers = |entry: &&mut Entry| {
            matches(&entry.step, step) && matches(&entry.field, &difference.path)
        };
        match self.entries.iter_mut().find(covers) {
            Some(entry) => {
                entry.met += 1;
                true
            }
            None => false,
        }
    }

    /// Entries that nothing met.
    pub(super) fn unused(&self) -> impl Iterator<Item = String> {
        let unused = self.entries.iter().filter(|entry| entry.met == 0);
        unused.map(|entry| format!("{} | {}", entry.step, entry.field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(path: &str) -> Difference {
        Difference { path: path.to_owned(), left: String::new(), right: String::new() }
    }

    #[test]
    fn an_entry_covers_what_it_names_and_is_unused_until_then() {
        let text =
            "# why\nFetch v* | responses[*].records\n    Because.\n\nMetadata v1: a | x\n  So.\n";
        let mut known = KnownDifferences::parse(text).unwrap();
        assert!(known.covers("Fetch v12: limits", &difference("responses[3].records")));
        assert!(!known.covers("Fetch v12: limits", &difference("responses[3].topic")));
        assert_eq!(known.unused().collect::<Vec<_>>(), ["Metadata v1: a | x"]);
    }
}
