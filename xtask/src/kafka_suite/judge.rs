//! Compares outcomes with Apache Kafka's, test by test (pure).
//!
//! Equal is: the same verdict, and for a failure the same message. What is not equal stands in
//! `known-differences.txt` with its reason, or counts as failed. What waits for something that is
//! not there yet stands in `waiting.txt`, and is not run until that is there. What runs on several nodes stands in
//! `several-nodes.txt`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use super::outcome::{Baseline, Outcome, Verdict, class_of, lasting, method_of};
use super::runner::Nodes;
use crate::pattern::{Entry, matches, parse_list};
use crate::tally::Tally;

#[derive(Debug)]
pub(super) struct Expectations {
    pub(super) baseline: Baseline,
    /// `test | message`.
    known: Vec<Entry>,
    /// `test | Name(key)` of the API that must be there, or words for what else is missing.
    waiting: Vec<Entry>,
    pub(super) several: Several,
}

/// The tests that run on several nodes: `test | combined`, or `test | isolated`.
#[derive(Debug, Default)]
pub(super) struct Several(Vec<(Entry, Nodes)>);

impl Several {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let entries = parse_list(text)?.into_iter();
        let with_nodes = entries.map(|entry| {
            let nodes = match &*entry.right {
                "combined" => Nodes::Combined,
                "isolated" => Nodes::Isolated,
                other => bail!("{other:?} is no kind of nodes"),
            };
            Ok((entry, nodes))
        });
        Ok(Self(with_nodes.collect::<Result<_>>()?))
    }

    /// What nodes a test has, by its class and method.
    pub(super) fn nodes_of(&self, test: &str) -> Nodes {
        let name = format!("{}.{}", class_of(test), method_of(test));
        let entry = self.0.iter().find(|(entry, _)| matches(&entry.left, &name));
        entry.map_or(Nodes::One, |(_, nodes)| *nodes)
    }

    /// The entries for a class, where it has any, in which no method is named.
    pub(super) fn of_class(&self, class: &str) -> Option<Nodes> {
        let all = format!("{class}.*");
        self.0.iter().find(|(entry, _)| entry.left == all).map(|(_, nodes)| *nodes)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().map(|(entry, _)| entry)
    }
}

impl Expectations {
    pub(super) fn parse(baseline: &str, known: &str, waiting: &str, several: &str) -> Result<Self> {
        Ok(Self {
            baseline: Baseline::parse(baseline).context("the baseline")?,
            known: parse_list(known).context("known-differences.txt")?,
            waiting: parse_list(waiting).context("waiting.txt")?,
            several: Several::parse(several).context("several-nodes.txt")?,
        })
    }

    /// Drops what need not wait any more: the API is `served`.
    pub(super) fn stop_waiting(&mut self, served: impl Fn(&str) -> bool) {
        self.waiting.retain(|entry| !served(&entry.right));
    }

    /// What a test waits for.
    pub(super) fn waits_for(&self, test: &str) -> Option<&str> {
        let entry = self.waiting.iter().find(|entry| matches(&entry.left, test));
        entry.map(|entry| entry.right.as_str())
    }

    pub(super) fn nodes_of(&self, test: &str) -> Nodes {
        self.several.nodes_of(test)
    }

    /// Entries of the lists that fit no test of Apache Kafka's suite.
    pub(super) fn pointless(&self) -> Vec<String> {
        let fits =
            |entry: &&Entry| self.baseline.tests.keys().any(|test| matches(&entry.left, test));
        let all = self.known.iter().chain(&self.waiting).chain(self.several.entries());
        let entries = all.filter(|entry| !fits(entry));
        entries.map(|entry| format!("{} | {} fits no test", entry.left, entry.right)).collect()
    }

    /// What the outcomes of the tests in `planned` come to.
    pub(super) fn judge(&self, planned: &BTreeSet<String>, outcomes: &[Outcome]) -> Judgement {
        let mut judgement = Judgement::default();
        let mut met = vec![false; self.known.len()];
        for outcome in outcomes {
            self.judge_one(outcome, &mut met, &mut judgement);
        }
        let ran: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.test.as_str()).collect();
        for test in planned.iter().filter(|test| !ran.contains(test.as_str())) {
            judgement.failed(test, "it did not run");
        }
        for (entry, _) in self.known.iter().zip(met).filter(|(_, met)| !met) {
            if ran.iter().any(|test| matches(&entry.left, test)) {
                judgement.failed(&entry.left, "the known difference was not met");
            }
        }
        judgement
    }

    fn judge_one(&self, outcome: &Outcome, met: &mut [bool], judgement: &mut Judgement) {
        let test = &outcome.test;
        let message = lasting(&outcome.message);
        let Some(theirs) = self.baseline.tests.get(test) else {
            return judgement.failed(test, &format!("not in the baseline: {message}"));
        };
        let same = theirs.iter().any(|other| {
            other.verdict == outcome.verdict
                && (other.verdict != Verdict::Failed || other.message == message)
        });
        let known = self
            .known
            .iter()
            .zip(met.iter_mut())
            .find(|(entry, _)| matches(&entry.left, test) && matches(&entry.right, &message));
        match (outcome.verdict, same, known) {
            (Verdict::Passed, true, _) => judgement.passed += 1,
            (Verdict::Failed, true, _) => judgement.as_kafka_fails.push(test.clone()),
            (Verdict::Skipped, true, _) => judgement.as_kafka_skips.push(test.clone()),
            // Nothing is wrong with a test that passes here and not there.
            (Verdict::Passed, false, _) => judgement.better.push(test.clone()),
            (Verdict::Failed | Verdict::Skipped, false, Some((_, met))) => {
                *met = true;
                judgement.known.push(test.clone());
            }
            (Verdict::Failed | Verdict::Skipped, false, None) => judgement.failed(test, &message),
        }
    }
}

/// How a run compares with Apache Kafka's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) passed: usize,
    pub(super) better: Vec<String>,
    pub(super) as_kafka_fails: Vec<String>,
    pub(super) as_kafka_skips: Vec<String>,
    pub(super) known: Vec<String>,
    pub(super) failed: Vec<String>,
}

impl Judgement {
    fn failed(&mut self, test: &str, why: &str) {
        self.failed.push(format!("{test}: {why}"));
    }

    pub(super) fn tally(self) -> Tally {
        let mut tally = Tally::passed(self.passed + self.better.len());
        tally.failed = self.failed.into_iter().map(|test| format!("kafka suite: {test}")).collect();
        let skipped = [
            (self.as_kafka_fails, "fails on Apache Kafka, too, with the same words"),
            (self.as_kafka_skips, "is skipped on Apache Kafka, too"),
            (self.known, "a known difference"),
        ];
        for (tests, why) in skipped {
            let named = tests.iter().map(|test| format!("kafka suite: {test}: {why}"));
            tally.skipped.extend(named);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASELINE: &str = "A.fails\tfailed\t1.0\tno port #\nA.passes\tpassed\t1.0\n\
                            A.skips\tskipped\t0.0\tneeds more\nB.other[1]\tpassed\t2.0\n";

    fn judged(known: &str, outcomes: &[Outcome]) -> Judgement {
        let expectations = Expectations::parse(BASELINE, known, "", "").unwrap();
        let planned = outcomes.iter().map(|outcome| outcome.test.clone()).collect();
        expectations.judge(&planned, outcomes)
    }

    fn outcome(test: &str, verdict: Verdict, message: &str) -> Outcome {
        Outcome { verdict, ..Outcome::failed(test, message) }
    }

    #[test]
    fn a_failure_of_apache_kafka_excuses_one_with_the_same_message_only() {
        let same = judged("", &[Outcome::failed("A.fails", "no port 17171")]);
        assert_eq!(same.as_kafka_fails, ["A.fails"]);
        assert!(same.tally().is_success());
        let other = judged("", &[Outcome::failed("A.fails", "no luck")]);
        assert_eq!(other.failed, ["A.fails: no luck"]);
    }

    #[test]
    fn a_skipped_test_is_no_answer_where_apache_kafka_gave_one() {
        let skipped = outcome("A.passes", Verdict::Skipped, "not today");
        assert_eq!(judged("", &[skipped]).failed, ["A.passes: not today"]);
        let skipped = outcome("A.skips", Verdict::Skipped, "needs more");
        assert_eq!(judged("", &[skipped]).as_kafka_skips, ["A.skips"]);
    }

    #[test]
    fn a_difference_that_is_known_counts_only_while_it_is_met() {
        let known = "A.passes | no *\n    Because.\n";
        let met = judged(known, &[Outcome::failed("A.passes", "no luck")]);
        assert_eq!((met.known.len(), met.failed.len()), (1, 0));
        let unmet = judged(known, &[outcome("A.passes", Verdict::Passed, "")]);
        assert_eq!(unmet.failed, ["A.passes: the known difference was not met"]);
        let not_run = judged(known, &[outcome("B.other[1]", Verdict::Passed, "")]);
        assert!(not_run.failed.is_empty());
    }

    #[test]
    fn a_planned_test_that_did_not_run_and_an_unplanned_one_fail() {
        let expectations = Expectations::parse(BASELINE, "", "", "").unwrap();
        let planned = BTreeSet::from(["A.passes".to_owned()]);
        let judgement = expectations.judge(&planned, &[]);
        assert_eq!(judgement.failed, ["A.passes: it did not run"]);
        let unknown = judged("", &[outcome("A.new", Verdict::Passed, "")]);
        assert_eq!(unknown.failed, ["A.new: not in the baseline: "]);
    }

    #[test]
    fn a_test_waits_until_its_api_is_served() {
        let waiting = "B.* | Share(76)\n    Share groups.\n";
        let mut expectations = Expectations::parse(BASELINE, "", waiting, "").unwrap();
        assert_eq!(expectations.waits_for("B.other[1]"), Some("Share(76)"));
        expectations.stop_waiting(|api| api == "Share(76)");
        assert_eq!(expectations.waits_for("B.other[1]"), None);
    }

    #[test]
    fn an_entry_that_fits_no_test_is_pointless() {
        let list = "C.* | x\n    Why.\n";
        let expectations = Expectations::parse(BASELINE, list, "", "").unwrap();
        assert_eq!(expectations.pointless(), ["C.* | x fits no test"]);
    }

    #[test]
    fn a_test_has_the_nodes_that_the_first_entry_says() {
        let several =
            Several::parse("A.b | isolated\n    Why.\nA.* | combined\n    Why.\n").unwrap();
        assert_eq!(several.nodes_of("A.b[1]"), Nodes::Isolated);
        assert_eq!(several.nodes_of("A.c"), Nodes::Combined);
        assert_eq!(several.nodes_of("B.b"), Nodes::One);
        assert_eq!((several.of_class("A"), several.of_class("B")), (Some(Nodes::Combined), None));
        assert!(Several::parse("A.* | many\n    Why.\n").is_err());
    }
}
