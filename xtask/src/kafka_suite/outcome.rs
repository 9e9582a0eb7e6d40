//! What became of a test, and the list of what Apache Kafka made of all of them (pure).

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The end of one test, named `Class.method[I]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Outcome {
    pub(super) test: String,
    #[serde(rename = "result")]
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
    /// Why it failed or was skipped, as the test said it.
    #[serde(default)]
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn failed(test: impl Into<String>, message: impl Into<String>) -> Self {
        Self { test: test.into(), verdict: Verdict::Failed, seconds: 0.0, message: message.into() }
    }
}

/// The class of a test, without its package.
pub(super) fn class_of(test: &str) -> &str {
    test.split_once('.').map_or(test, |(class, _)| class)
}

/// The method of a test, without the number of the invocation.
pub(super) fn method_of(test: &str) -> &str {
    let method = test.split_once('.').map_or("", |(_, method)| method);
    method.split_once('[').map_or(method, |(method, _)| method)
}

/// What Apache Kafka gave. A test that is not steady there has several outcomes.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    pub(super) tests: BTreeMap<String, Vec<Outcome>>,
}

impl Baseline {
    /// Reads lines of `test`, verdict, seconds, and the message if there is one, between tabs.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut baseline = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let outcome = parse_line(line).with_context(|| format!("not an outcome: {line:?}"))?;
            baseline.add(outcome);
        }
        Ok(baseline)
    }

    /// Adds an outcome, unless the same test is known to end like this.
    pub(super) fn add(&mut self, outcome: Outcome) {
        let outcome = Outcome { message: lasting(&outcome.message), ..outcome };
        let known = self.tests.entry(outcome.test.clone()).or_default();
        let same =
            |other: &&Outcome| other.verdict == outcome.verdict && other.message == outcome.message;
        if !known.iter().any(|other| same(&other)) {
            known.push(outcome);
            known.sort_by_key(|outcome| outcome.verdict);
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::from(
            "# What Apache Kafka 4.3.1 itself gave: cargo xtask kafka-suite --target kafka --take-baseline\n",
        );
        for outcome in self.tests.values().flatten() {
            let Outcome { test, verdict, seconds, message } = outcome;
            write!(text, "{test}\t{}\t{seconds:.1}", verdict.word()).ok();
            if !message.is_empty() {
                write!(text, "\t{message}").ok();
            }
            text.push('\n');
        }
        text
    }

    /// How long a test takes, at most, in seconds.
    pub(super) fn seconds(&self, test: &str) -> f64 {
        let outcomes = self.tests.get(test).map(Vec::as_slice).unwrap_or_default();
        outcomes.iter().map(|outcome| outcome.seconds).fold(0.0, f64::max)
    }
}

fn parse_line(line: &str) -> Result<Outcome> {
    let mut fields = line.splitn(4, '\t');
    let mut field = || fields.next().context("a field is missing");
    let test = field()?.to_owned();
    let verdict = match field()? {
        "passed" => Verdict::Passed,
        "failed" => Verdict::Failed,
        "skipped" => Verdict::Skipped,
        other => bail!("{other:?} is no verdict"),
    };
    let seconds = field()?.parse()?;
    Ok(Outcome { test, verdict, seconds, message: field().unwrap_or_default().to_owned() })
}

/// The part of a message that the next run will say again: its first line, with ports, times,
/// hashes and ids replaced.
pub(super) fn lasting(message: &str) -> String {
    let line: String = message.lines().next().unwrap_or_default().replace('\t', " ");
    let mut text = String::new();
    let mut word = String::new();
    for character in line.chars().take(400).chain([' ']) {
        if character.is_alphanumeric() || character == '-' || character == '_' {
            word.push(character);
            continue;
        }
        text.push_str(if is_fleeting(&word, text.ends_with('@')) { "#" } else { &word });
        text.push(character);
        word.clear();
    }
    text.trim_end().to_owned()
}

/// Small numbers stay: they count something that the test expects.
fn is_fleeting(word: &str, is_hash: bool) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    (is_hash && !word.is_empty()) || digits >= 4 || (digits > 0 && word.len() >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_what_does_not_change_from_run_to_run() {
        let message = "java.lang.RuntimeException: no connection to 127.0.0.1:4711\n  at line 2";
        assert_eq!(lasting(message), "java.lang.RuntimeException: no connection to 127.0.0.1:#");
        assert_eq!(lasting("Node@1a2b: 2 of 3, topic-0"), "Node@#: 2 of 3, topic-0");
        assert_eq!(lasting("id lV3GmZk0QYyVwFbJ1cJzTg"), "id #");
    }

    #[test]
    fn a_test_without_a_steady_outcome_keeps_each() {
        let text = "A.b[1]\tfailed\t2.0\tno luck\nA.b[1]\tpassed\t1.0\nA.c\tskipped\t0.0\twhy\n";
        let mut baseline = Baseline::parse(text).unwrap();
        assert_eq!(baseline.seconds("A.b[1]"), 2.0);
        baseline.add(Outcome::failed("A.b[1]", "no luck"));
        let rendered = baseline.render();
        let lines: Vec<&str> = rendered.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["A.b[1]\tpassed\t1.0", "A.b[1]\tfailed\t2.0\tno luck", "A.c\tskipped\t0.0\twhy"]
        );
    }

    #[test]
    fn a_test_s_name_has_a_class_and_a_method() {
        assert_eq!((class_of("A.b[1]"), method_of("A.b[1]")), ("A", "b"));
        assert_eq!((class_of("A"), method_of("A")), ("A", ""));
    }
}
