//! What tools print, in a form that two clusters can share, and the comparison of two of those (pure).
//!
//! ```text
//! $ kafka-topics --describe --topic t
//! exit 0
//! Topic: t  TopicId: ID …
//! ```
//! Ports, ids and paths are replaced; blanks at the ends of lines and the traces of Java's stack are not kept.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// One command, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) command: String,
    pub(super) lines: Vec<String>,
}

/// What is replaced: texts by their names, such as a port by the node's.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) BTreeMap<String, String>);

impl Names {
    /// A printed text as transcripts keep it.
    pub(super) fn lines(&self, printed: &str) -> Vec<String> {
        let is_kept = |line: &&str| !line.is_empty() && !line.starts_with("\tat ");
        let lines = printed.lines().map(str::trim_end).filter(is_kept);
        lines.map(|line| self.line(line)).collect()
    }

    fn line(&self, line: &str) -> String {
        let mut text = line.to_owned();
        for (found, name) in &self.0 {
            text = text.replace(found, name);
        }
        let mut shared = String::new();
        let mut word = String::new();
        for character in text.chars().chain([' ']) {
            if character.is_ascii_alphanumeric() || "-_".contains(character) {
                word.push(character);
                continue;
            }
            shared.push_str(if is_id(&word) { "ID" } else { &word });
            shared.push(character);
            word.clear();
        }
        shared.trim_end().to_owned()
    }
}

/// Kafka's ids are 22 characters of URL-safe base64; no word of the tools that long is spelled in mixed case.
fn is_id(word: &str) -> bool {
    let has = |wanted: fn(char) -> bool| word.chars().any(wanted);
    word.len() == 22 && has(|c| c.is_ascii_lowercase()) && has(|c| c.is_ascii_uppercase())
}

pub(super) fn render(heading: &str, entries: &[Entry]) -> String {
    let mut text = heading.to_owned();
    for Entry { command, lines } in entries {
        text += &format!("\n$ {command}\n");
        for line in lines {
            text += &format!("{line}\n");
        }
    }
    text
}

pub(super) fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        match (line.strip_prefix("$ "), entries.last_mut()) {
            (Some(command), _) => {
                entries.push(Entry { command: command.to_owned(), lines: Vec::new() });
            }
            (None, Some(entry)) => entry.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    entries
}

/// An error that shows every command after which something else was printed.
pub(super) fn same(expected: &[Entry], found: &[Entry]) -> Result<()> {
    let mut differences = String::new();
    for (expected, found) in expected.iter().zip(found) {
        if expected != found {
            differences += &format!(
                "\n$ {}\n--- Apache Kafka:\n{}\n--- here, $ {}:\n{}\n",
                expected.command,
                expected.lines.join("\n"),
                found.command,
                found.lines.join("\n")
            );
        }
    }
    if expected.len() != found.len() {
        differences += &format!("\n{} commands, not {}", found.len(), expected.len());
    }
    if !differences.is_empty() {
        bail!("the tools print something else: {differences}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_clusters_do_not_share_is_replaced() {
        let names = Names(BTreeMap::from([("20001".to_owned(), "PORT-1".to_owned())]));
        let printed = "1 127.0.0.1:20001  \n\nTopicId: lV3GmZk0QYyVwFbJ1cJzTg x";
        assert_eq!(names.lines(printed), ["1 127.0.0.1:PORT-1", "TopicId: ID x"]);
    }

    #[test]
    fn a_transcript_is_read_as_it_was_written() {
        let entry = |command: &str, lines: &[&str]| Entry {
            command: command.to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let entries = vec![entry("a --b", &["exit 0", "x"]), entry("c", &["exit 1"])];
        assert_eq!(parse(&render("# What.\n", &entries)), entries);
        assert!(same(&entries, &entries).is_ok());
        let other = vec![entry("a --b", &["exit 0", "y"]), entry("c", &["exit 1"])];
        assert!(same(&entries, &other).unwrap_err().to_string().contains('y'));
        assert!(same(&entries, &entries[..1]).is_err());
    }
}
