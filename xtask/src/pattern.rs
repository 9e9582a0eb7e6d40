//! Patterns in which `*` stands for anything, and lists of them with reasons (pure).
//!
//! ```text
//! # A comment.
//! left pattern | right pattern
//!     Why, in indented lines.
//! ```

use anyhow::{Context, Result, ensure};

/// Whether `text` fits `pattern`, in which `*` stands for any number of characters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
}

/// One line `left | right` of a list, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) left: String,
    pub(crate) right: String,
    pub(crate) reason: String,
}

/// Reads a list; an entry without a reason is refused.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let entry = entries.last_mut();
            let entry =
                entry.with_context(|| format!("line {number}: a reason before the first entry"))?;
            if !entry.reason.is_empty() {
                entry.reason.push(' ');
            }
            entry.reason.push_str(line.trim());
            continue;
        }
        let explained = entries.last().is_none_or(|entry| !entry.reason.is_empty());
        ensure!(explained, "line {number}: the entry above has no reason");
        let (left, right) =
            line.split_once('|').with_context(|| format!("line {number}: no bar"))?;
        let (left, right) = (left.trim().to_owned(), right.trim().to_owned());
        entries.push(Entry { left, right, reason: String::new() });
    }
    let explained = entries.last().is_none_or(|entry| !entry.reason.is_empty());
    ensure!(explained, "the last entry has no reason");
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_entry_has_two_sides_and_a_reason_of_any_number_of_lines() {
        let text = "# why\nA.* | some *\n    Because\n    of this.\n\nB | *\n  So.\n";
        let entries = parse_list(text).unwrap();
        let entry = |left: &str, right: &str, reason: &str| Entry {
            left: left.to_owned(),
            right: right.to_owned(),
            reason: reason.to_owned(),
        };
        assert_eq!(entries, [entry("A.*", "some *", "Because of this."), entry("B", "*", "So.")]);
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        for text in ["a | b\nc | d\n  reason\n", "a | b\n", "  reason\na | b\n", "a b\n  reason\n"]
        {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }
}
