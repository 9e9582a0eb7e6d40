//! The differences that we know of, each with its reason, from `interop/side-by-side/known-differences.txt` (pure).
//!
//! ```text
//! # A comment.
//! Fetch v* limits* | responses[0].partitions[0].records
//!     Why it differs, in indented lines.
//! ```
//! Before the bar stands the step, behind it the field; `*` stands for anything. An entry that no difference meets
//! is an error: it would hide one that comes later.

use anyhow::{Context, Result, ensure};

use super::value::Difference;

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
        let mut entries: Vec<Entry> = Vec::new();
        let mut reasons = 0;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with(' ') {
                ensure!(!entries.is_empty(), "line {number}: a reason before the first entry");
                reasons = entries.len();
                continue;
            }
            ensure!(reasons == entries.len(), "line {number}: the entry above has no reason");
            let (step, field) =
                line.split_once('|').with_context(|| format!("line {number}: no bar"))?;
            entries.push(Entry {
                step: step.trim().to_owned(),
                field: field.trim().to_owned(),
                met: 0,
            });
        }
        ensure!(reasons == entries.len(), "the last entry has no reason");
        Ok(Self { entries })
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

/// Whether `text` fits `pattern`, in which `*` stands for any number of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(path: &str) -> Difference {
        Difference { path: path.to_owned(), left: String::new(), right: String::new() }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text) in [("a", "a"), ("a*c", "abbc"), ("*", ""), ("*[*].x", "topics[12].x")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("", "a"), ("*[*].x", "topics[12].y")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
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

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        for text in ["a | b\nc | d\n  reason\n", "a | b\n", "  reason\na | b\n", "a b\n  reason\n"]
        {
            assert!(KnownDifferences::parse(text).is_err(), "{text}");
        }
    }
}
