//! `cargo xtask test`: every check of the project in stages, each with a time budget (shell).

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::broker::Target;
use crate::interop::Length;
use crate::process::{run_showing, shown};
use crate::tally::{Tally, from_cargo, with_reason};
use crate::{interop, kafka_suite, nightly, ottla, workspace};

/// Budgets add up to less than the 30 minutes that a clean clone may take on two cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Format, lints, generated code.
    Check,
    /// The release build of the broker, the tests, and the clients that drive it.
    Build,
    /// Unit and property tests.
    Unit,
    /// Real clients against the built broker.
    Clients,
    /// The same requests to Ottla and to Apache Kafka.
    SideBySide,
    /// A part of Apache Kafka's own client tests, another one for each commit.
    KafkaSuite,
    /// Three nodes, of which one at a time is killed, stopped and paused under load; and, where this machine allows it,
    /// cut off from its controller, and left without room on its disk.
    Cluster,
}

impl Stage {
    pub(crate) const ALL: [Self; 7] = [
        Self::Check,
        Self::Build,
        Self::Unit,
        Self::Cluster,
        Self::Clients,
        Self::SideBySide,
        Self::KafkaSuite,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Build => "build",
            Self::Unit => "unit and property",
            Self::Clients => "clients",
            Self::SideBySide => "side by side",
            Self::KafkaSuite => "kafka suite",
            Self::Cluster => "cluster",
        }
    }

    fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::SideBySide => 120,
            Self::Check => 150,
            Self::Unit => 180,
            Self::Cluster => 190,
            Self::KafkaSuite => 240,
            Self::Clients => 360,
            Self::Build => 540,
        })
    }

    /// A stage over its budget is flagged; one that takes three times as long is ended.
    fn limit(self) -> Duration {
        self.budget() * 3
    }

    pub(crate) fn run(self) -> Result<Tally> {
        match self {
            Self::Check => Ok(check(self.limit())),
            Self::Build => build(self.limit()),
            Self::Unit => unit(self.limit()),
            Self::Clients => interop::run(Target::Ottla, &[], Length::Short, 1),
            Self::SideBySide => side_by_side(),
            Self::KafkaSuite => kafka_suite::run_turn(self.limit()),
            Self::Cluster => cluster(),
        }
    }
}

/// One line of the closing table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    /// None for what takes as long as it takes.
    budget: Option<Duration>,
    pub(crate) tally: Tally,
}

impl Row {
    /// Runs something and times it; its failure does not keep the next one from running.
    pub(crate) fn of(name: &'static str, run: impl FnOnce() -> Result<Tally>) -> Self {
        println!("\n== {name}");
        let started = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Tally::failed(with_reason(name, &error))
        });
        Self { name, took: started.elapsed(), budget: None, tally }
    }
}

/// Runs all stages or one, and sums up; `write` leaves the results in `docs/nightly.md`, whose first parts they are.
pub(crate) fn run(only: Option<Stage>, write: bool) -> Result<Tally> {
    let mut rows = Vec::new();
    for stage in only.map_or_else(|| Stage::ALL.to_vec(), |only| vec![only]) {
        let row = nightly::play(stage.name(), || stage.run(), write)?;
        rows.push(Row { budget: Some(stage.budget()), ..row });
    }
    Ok(close(rows))
}

/// Prints the table, and what failed and was skipped.
pub(crate) fn close(rows: Vec<Row>) -> Tally {
    print_table(&rows);
    let mut total = Tally::default();
    for row in rows {
        total.add(row.tally);
    }
    report(&total);
    total
}

fn print_table(rows: &[Row]) {
    println!("\n{:<30} {:>8} {:>8}  result", "stage", "seconds", "budget");
    for Row { name, took, budget, tally } in rows {
        let over = if budget.is_some_and(|budget| *took > budget) { "  OVER BUDGET" } else { "" };
        let budget = budget.map_or("-".to_owned(), |budget| budget.as_secs().to_string());
        println!("{name:<30} {:>8.1} {budget:>8}  {tally}{over}", took.as_secs_f64());
    }
}

/// Names what failed and what was skipped; the last line is the one that machines read.
pub(crate) fn report(total: &Tally) {
    println!();
    for skipped in &total.skipped {
        println!("skipped: {skipped}");
    }
    for failed in &total.failed {
        println!("failed: {failed}");
    }
    println!("{total}");
}

fn check(limit: Duration) -> Tally {
    let mut tally = Tally::default();
    let mut cargo = |name: &str, arguments: &[&str]| {
        let mut command = workspace::cargo();
        command.args(arguments);
        tally.add(step(name, command, limit));
    };
    cargo("format", &["fmt", "--all", "--check"]);
    cargo(
        "lints",
        &["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
    );
    tally.add(outcome("generated code is fresh", crate::protocol::run(true)));
    tally
}

pub(crate) fn step(name: &str, command: Command, limit: Duration) -> Tally {
    let line = shown(&command);
    let status = run_showing(command, limit, |line| println!("{line}"));
    outcome(
        name,
        status.and_then(|status| {
            anyhow::ensure!(status.success(), "{line}: {status}");
            Ok(())
        }),
    )
}

pub(crate) fn outcome(name: &str, result: Result<()>) -> Tally {
    match result {
        Ok(()) => {
            println!("ok     {name}");
            Tally::passed(1)
        }
        Err(error) => {
            println!("FAILED {name}: {error:#}");
            Tally::failed(with_reason(name, &error))
        }
    }
}

fn build(limit: Duration) -> Result<Tally> {
    ottla::binary()?;
    let mut tests = workspace::cargo();
    tests.args(["test", "--quiet", "--locked", "--workspace", "--no-run"]);
    let mut tally = step("the tests build", tests, limit);
    tally.add(interop::build_clients(Length::Short));
    Ok(tally)
}

fn side_by_side() -> Result<Tally> {
    #[cfg(feature = "side-by-side")]
    return crate::side_by_side::run(None);
    #[cfg(not(feature = "side-by-side"))]
    anyhow::bail!("this build of xtask is only for `protocol`")
}

fn cluster() -> Result<Tally> {
    #[cfg(feature = "cluster")]
    return crate::cluster::run_short();
    #[cfg(not(feature = "cluster"))]
    anyhow::bail!("this build of xtask is only for `protocol`")
}

/// The cases that properties are tried with are the same everywhere, so that a failure is the fault of what has changed;
/// the nightly tries others.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Counts what cargo test counts: unit, property and documentation tests of the workspace.
fn unit(limit: Duration) -> Result<Tally> {
    let mut tests = workspace::cargo();
    tests.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    tests.env(PROPERTY_SEED.0, PROPERTY_SEED.1);
    let mut output = CargoOutput::default();
    let status = run_showing(tests, limit, |line| {
        println!("{line}");
        output.read(line);
    })?;
    let mut tally = output.tally();
    if !status.success() && tally.is_success() {
        tally.add(Tally::failed("cargo test"));
    }
    Ok(tally)
}

/// What cargo test has printed so far, as far as it counts: which tests there were, and what each that failed said first.
#[derive(Debug, Default)]
struct CargoOutput {
    tally: Tally,
    /// By the test's name.
    reasons: BTreeMap<String, String>,
    /// Whose output is being printed.
    of: Option<String>,
    /// A panic was announced, and its message comes next.
    panicked: bool,
}

impl CargoOutput {
    fn read(&mut self, line: &str) {
        if let Some((passed, _, ignored)) = from_cargo(line) {
            let skipped = vec!["an ignored test".to_owned(); ignored];
            self.tally.add(Tally { passed, skipped, ..Tally::default() });
            self.of = None;
        } else if let Some(name) = between(line, "test ", " ... FAILED") {
            self.tally.add(Tally::failed(name));
        } else if let Some(name) = between(line, "---- ", " stdout ----") {
            self.of = Some(name.to_owned());
        } else if let Some(of) = self.of.as_ref().filter(|_| self.panicked) {
            self.reasons.entry(of.clone()).or_insert_with(|| line.to_owned());
        }
        self.panicked = line.starts_with("thread '") && line.contains(" panicked at ");
    }

    fn tally(self) -> Tally {
        let Self { mut tally, reasons, .. } = self;
        for failed in &mut tally.failed {
            if let Some(reason) = reasons.get(failed) {
                *failed = with_reason(failed, reason);
            }
        }
        tally
    }
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_suffix(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_counted_with_what_they_said_and_passed_ones_by_cargo_s_sum() {
        let mut output = CargoOutput::default();
        for line in [
            "test wire::tests::a_name ... FAILED",
            "test wire::tests::silent ... FAILED",
            "test wire::tests::another ... ok",
            "---- wire::tests::a_name stdout ----",
            "",
            "thread 'wire::tests::a_name' (12) panicked at crates/wire/src/lib.rs:3:9:",
            "waited in vain",
            "thread 'wire::tests::a_name' (12) panicked at crates/wire/src/lib.rs:5:9:",
            "and then fell",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            output.read(line);
        }
        let tally = output.tally();
        assert_eq!(tally.to_string(), "1 passed, 2 failed");
        assert_eq!(tally.failed, ["wire::tests::a_name: waited in vain", "wire::tests::silent"]);
    }

    #[test]
    fn the_budgets_leave_room_in_half_an_hour() {
        let total: Duration = Stage::ALL.iter().map(|stage| stage.budget()).sum();
        assert!(total < Duration::from_secs(30 * 60));
    }
}
