//! Which tests to run, in which parts (pure, but for asking git for the commit).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Request;
use super::judge::{Expectations, Several};
use super::outcome::{Baseline, class_of, method_of};
use super::runner::{Nodes, Unit};
use crate::process::run_ok;
use crate::workspace;

/// In how many parts the test command goes through all tests, a part for each commit.
const PARTS: usize = 3;

/// One of several parts, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (index, of) = text.split_once('/').context("a shard is I/N, such as 1/4")?;
        let (index, of) = (index.parse()?, of.parse()?);
        ensure!(1 <= index && index <= of, "there is no part {index} of {of}");
        Ok(Self { index, of })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl Shard {
    /// Any commit's part; over many commits, all parts.
    pub(super) fn of_commit(commit: &str) -> Result<Self> {
        let head = commit.get(..8).context("a commit has forty digits")?;
        let number = usize::from_str_radix(head, 16).context("a commit is hexadecimal")?;
        Ok(Self { index: number % PARTS + 1, of: PARTS })
    }
}

/// The commit that is checked out.
pub(super) fn commit() -> Result<String> {
    let mut command = Command::new("git");
    command.args(["rev-parse", "HEAD"]).current_dir(workspace::root());
    Ok(run_ok(command, b"", Duration::from_secs(20))?.stdout_text().trim().to_owned())
}

/// The tests that the request names, in its shard.
pub(super) fn chosen(
    baseline: &Baseline,
    tests: Vec<String>,
    request: &Request<'_>,
) -> BTreeSet<String> {
    let named: Vec<String> =
        tests.into_iter().filter(|test| is_named(test, request.only)).collect();
    match request.shard {
        None => named.into_iter().collect(),
        Some(shard) => part(named, shard, |test| baseline.seconds(test)),
    }
}

fn is_named(test: &str, only: &[String]) -> bool {
    let method = format!("{}.{}", class_of(test), method_of(test));
    only.is_empty() || only.iter().any(|name| *name == class_of(test) || *name == method)
}

/// Deals the methods out, the longest first, each to the part with the least so far.
fn part(tests: Vec<String>, shard: Shard, seconds: impl Fn(&str) -> f64) -> BTreeSet<String> {
    let mut methods: BTreeMap<(String, String), (f64, Vec<String>)> = BTreeMap::new();
    for test in tests {
        let key = (class_of(&test).to_owned(), method_of(&test).to_owned());
        let (sum, of_method) = methods.entry(key).or_default();
        *sum += seconds(&test);
        of_method.push(test);
    }
    let mut methods: Vec<(f64, Vec<String>)> = methods.into_values().collect();
    methods.sort_by(|left, right| right.0.total_cmp(&left.0));
    let mut parts = vec![(0.0_f64, BTreeSet::new()); shard.of];
    for (seconds, tests) in methods {
        let least = parts.iter_mut().min_by(|left, right| left.0.total_cmp(&right.0));
        if let Some((sum, part)) = least {
            *sum += seconds;
            part.extend(tests);
        }
    }
    parts.into_iter().nth(shard.index - 1).map(|(_, tests)| tests).unwrap_or_default()
}

/// The classes that hold these tests; one of which some tests run on one node and some on several is there twice.
pub(super) fn units(
    baseline: &Baseline,
    tests: &BTreeSet<String>,
    classes: &[String],
    nodes_of: impl Fn(&str) -> Nodes,
) -> Result<Vec<Unit>> {
    let mut by_class: BTreeMap<(&str, Nodes), Unit> = BTreeMap::new();
    for test in tests {
        let simple = class_of(test);
        let suffix = format!(".{simple}");
        let Some(class) = classes.iter().find(|class| class.ends_with(&suffix)) else {
            bail!("{test} is in the baseline, but there is no class of that name");
        };
        let nodes = nodes_of(test);
        let unit = by_class.entry((simple, nodes)).or_insert_with(|| Unit {
            class: class.clone(),
            methods: Vec::new(),
            nodes,
            seconds: 0.0,
        });
        unit.seconds += baseline.seconds(test);
        let method = method_of(test).to_owned();
        if !method.is_empty() && !unit.methods.contains(&method) {
            unit.methods.push(method);
        }
    }
    Ok(by_class.into_values().collect())
}

/// All classes, or those that the request names, whether the baseline knows their tests or not.
pub(super) fn all_units(
    baseline: &Baseline,
    several: &Several,
    classes: &[String],
    request: &Request<'_>,
) -> Vec<Unit> {
    let simple = |class: &str| class.rsplit_once('.').map_or("", |(_, name)| name).to_owned();
    let mut units = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let name = simple(class);
        let only: Vec<&String> =
            request.only.iter().filter(|only| class_of(only) == name).collect();
        let mine = request.shard.is_none_or(|shard| index % shard.of == shard.index - 1);
        if mine && (request.only.is_empty() || !only.is_empty()) {
            let named = only.iter().map(|only| method_of(only).to_owned());
            let named: Vec<String> = named.filter(|method| !method.is_empty()).collect();
            units.extend(units_of(baseline, several, class, &name, named));
        }
    }
    units
}

/// The classes that the request names and the baseline knows nothing of: they run, and count as failed.
pub(super) fn unknown_units(
    expectations: &Expectations,
    classes: &[String],
    request: &Request<'_>,
) -> Vec<Unit> {
    let Expectations { baseline, several, .. } = expectations;
    let is_known = |class: &str| baseline.tests.keys().any(|test| class_of(test) == class);
    let mut units = all_units(baseline, several, classes, request);
    units.retain(|unit| !request.only.is_empty() && !is_known(unit.simple_name()));
    units
}

/// A class whose tests are not all alike in their nodes is run twice, by the methods that the baseline knows.
fn units_of(
    baseline: &Baseline,
    several: &Several,
    class: &str,
    name: &str,
    named: Vec<String>,
) -> Vec<Unit> {
    let known = baseline.tests.keys().filter(|test| class_of(test) == name);
    let known: BTreeSet<String> = known.map(|test| method_of(test).to_owned()).collect();
    let methods = if named.is_empty() { known } else { named.iter().cloned().collect() };
    let mut by_nodes: BTreeMap<Nodes, Vec<String>> = BTreeMap::new();
    for method in methods {
        let nodes = several.nodes_of(&format!("{name}.{method}"));
        by_nodes.entry(nodes).or_default().push(method);
    }
    if by_nodes.is_empty() {
        by_nodes.insert(several.of_class(name).unwrap_or(Nodes::One), Vec::new());
    }
    let is_whole = by_nodes.len() == 1 && named.is_empty();
    let unit = |(nodes, methods): (Nodes, Vec<String>)| {
        let is_mine = |test: &&String| {
            class_of(test) == name && methods.iter().any(|method| method == method_of(test))
        };
        let seconds =
            baseline.tests.keys().filter(is_mine).map(|test| baseline.seconds(test)).sum();
        let methods = if is_whole { Vec::new() } else { methods };
        Unit { class: class.to_owned(), methods, nodes, seconds }
    };
    by_nodes.into_iter().map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_has_its_turn_and_none_has_two() {
        let tests: Vec<String> = (0..50).map(|i| format!("C{}.m{}[{}]", i % 5, i % 7, i)).collect();
        let mut seen = BTreeSet::new();
        for index in 1..=PARTS {
            let shard = Shard { index, of: PARTS };
            let part = part(tests.clone(), shard, |test| test.len() as f64);
            assert!(part.len() > 5, "part {shard} has {} tests", part.len());
            assert!(part.iter().all(|test| seen.insert(test.clone())));
        }
        assert_eq!(seen.len(), tests.len());
    }

    #[test]
    fn a_commit_has_a_part() {
        let shard = Shard::of_commit("0000000540c03a").unwrap();
        assert_eq!(shard.of, PARTS);
        assert!(Shard::of_commit("nothing hexadecimal").is_err());
    }

    #[test]
    fn a_shard_is_counted_from_one() {
        assert_eq!("4/4".parse::<Shard>().unwrap(), Shard { index: 4, of: 4 });
        for wrong in ["0/4", "5/4", "4", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_class_runs_only_the_methods_that_are_chosen() {
        let text = "A.b[1]\tpassed\t1.0\nA.b[2]\tpassed\t2.0\nA.c\tpassed\t4.0\n";
        let baseline = Baseline::parse(text).unwrap();
        let tests = BTreeSet::from(["A.b[1]".to_owned(), "A.b[2]".to_owned()]);
        let one = |_: &str| Nodes::One;
        let units = units(&baseline, &tests, &["org.A".to_owned()], one).unwrap();
        let [unit] = units.as_slice() else { panic!("one class: {units:?}") };
        assert_eq!((unit.class.as_str(), unit.seconds), ("org.A", 3.0));
        assert_eq!(unit.methods, ["b"]);
    }

    #[test]
    fn a_class_with_tests_for_one_and_for_several_nodes_is_two_units() {
        let baseline = Baseline::parse("A.b\tpassed\t1.0\nA.c[1]\tpassed\t2.0\n").unwrap();
        let several = Several::parse("A.c | combined\n    Why.\n").unwrap();
        let classes = ["org.A".to_owned()];
        let tests: BTreeSet<String> = baseline.tests.keys().cloned().collect();
        let of = |units: Vec<Unit>| -> Vec<(Nodes, Vec<String>)> {
            units.into_iter().map(|unit| (unit.nodes, unit.methods)).collect()
        };
        let expected =
            [(Nodes::One, vec!["b".to_owned()]), (Nodes::Combined, vec!["c".to_owned()])];
        let nodes_of = |test: &str| several.nodes_of(test);
        assert_eq!(of(units(&baseline, &tests, &classes, nodes_of).unwrap()), expected);
        assert_eq!(of(units_of(&baseline, &several, "org.A", "A", Vec::new())), expected);
    }
}
