//! `cargo xtask nightly`: everything that `test` runs, and what it has no time for (shell).
//!
//! It takes hours. Each part is written down as soon as it has ended, with the commit that it ran on, so that a night may
//! be made of several runs, and one that is interrupted keeps what it had.

mod night;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::broker::Target;
use crate::interop::{self, FLUSH_ORDER, Length};
use crate::machine::Machine;
use crate::process;
use crate::tally::Tally;
use crate::test::{self, Row, Stage};
use crate::{kafka_suite, workspace};
use night::{Night, Played};

struct Part {
    name: &'static str,
    run: Box<dyn Fn() -> Result<Tally>>,
}

impl Part {
    fn new(name: &'static str, run: impl Fn() -> Result<Tally> + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// What is run each night, in this order: first all that `test` runs.
    fn all() -> Vec<Self> {
        let mut parts =
            Vec::from(Stage::ALL.map(|stage| Self::new(stage.name(), move || stage.run())));
        let clients = |target, nodes| move || interop::run(target, &[], Length::Long, nodes);
        parts.extend([
            Self::new("properties, cases of tonight", try_properties),
            Self::new("simulated disk, at length", || simulate("log")),
            Self::new("simulated cluster, at length", || simulate("cluster")),
            Self::new("simulated quorum, at length", || simulate("quorum")),
            Self::new("a build without its syncs is found out", find_planted),
            Self::new("clients, old and new, at length", clients(Target::Ottla, 1)),
            Self::new("clients, old and new, on three nodes", clients(Target::Ottla, 3)),
            // The clients must find the same on Apache Kafka: a test that it fails is a wrong test.
            Self::new("clients on Apache Kafka", clients(Target::Kafka, 1)),
            Self::new("all of the kafka suite", kafka_suite::run_all),
            Self::new("three nodes under faults, at length", cluster),
            Self::new("optimised build", || Ok(crate::dist())),
        ]);
        parts
    }
}

/// Runs all of it, or the parts whose name contains `only`; `write` leaves the results in `docs/nightly.md`, beside
/// those of the other parts.
pub(crate) fn run(only: Option<&str>, write: bool) -> Result<Tally> {
    let parts = Part::all();
    let order = order(&parts);
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    ensure!(order.iter().any(|name| is_wanted(name)), "there is only: {}", order.join("; "));
    let wanted = parts.iter().filter(|part| is_wanted(part.name));
    let rows = wanted.map(|Part { name, run }| play(name, run, write)).collect::<Result<_>>()?;
    Ok(test::close(rows))
}

fn order(parts: &[Part]) -> Vec<&'static str> {
    parts.iter().map(|part| part.name).collect()
}

/// Runs one part; `write` leaves its result in `docs/nightly.md`, beside those of the other parts.
pub(crate) fn play(
    name: &'static str,
    run: impl FnOnce() -> Result<Tally>,
    write: bool,
) -> Result<Row> {
    if !write {
        return Ok(Row::of(name, run));
    }
    // As the machine is before, and the commit that is tested.
    let machine = Machine::describe(&interop::fetch::kafka_jars()?)?;
    let row = Row::of(name, run);
    let order = order(&Part::all());
    let mut night = Night::published(&order)?;
    night.put(Played::of(&row, &machine));
    night.publish()?;
    Ok(row)
}

/// So many worlds are played each night; an ordinary test plays hundreds. One that fails names its seed.
const SEEDS: &str = "10000";
const SIMULATION_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

fn simulate(what: &str) -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--locked", "-p", "ottla-sim", "--test", what]);
    command.args(["--", "--nocapture"]).env("OTTLA_SIM_SEEDS", SEEDS);
    Ok(test::step(what, command, SIMULATION_LIMIT))
}

/// An ordinary test tries hundreds of cases, and always the same ones.
const CASES: &str = "20000";
const PROPERTIES_LIMIT: Duration = Duration::from_secs(20 * 60);

fn try_properties() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--locked", "-p", "ottla-records", "--test", "round_trip"]);
    command.args(["-p", "ottla-metadata", "-p", "ottla-coordinator", "--test", "random"]);
    command.args(["-p", "ottla-log", "--test", "model", "--test", "compaction", "--test", "moves"]);
    command.env("PROPTEST_CASES", CASES);
    Ok(test::step("properties", command, PROPERTIES_LIMIT))
}

fn cluster() -> Result<Tally> {
    #[cfg(feature = "cluster")]
    return crate::cluster::run_long();
    #[cfg(not(feature = "cluster"))]
    anyhow::bail!("this build of xtask is only for `protocol`")
}

const PLANTED_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The test that watches the system calls must fail on a broker that leaves the syncs out.
fn find_planted() -> Result<Tally> {
    let target = workspace::root().join("target/planted");
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "-p", "ottla", "--target-dir"]).arg(&target);
    build.env("RUSTFLAGS", "--cfg planted_no_sync");
    process::run_ok(build, b"", PLANTED_LIMIT)?;
    let mut watch = Command::new(std::env::current_exe()?);
    watch.args(["interop", FLUSH_ORDER]).env("OTTLA_BINARY", target.join("debug/ottla"));
    let watched = process::run(watch, b"", PLANTED_LIMIT)?;
    let said = watched.stdout_text();
    let is_found = !watched.status.success() && said.contains("comes before its flush");
    let found = is_found.then_some(()).with_context(|| format!("nobody has noticed: {said}"));
    Ok(test::outcome("a build without its syncs is found out", found))
}
