//! `cargo xtask nightly`: everything that `test` runs, and what it has no time for (shell).

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::broker::Target;
use crate::interop::{self, FLUSH_ORDER, Length};
use crate::machine::Machine;
use crate::process;
use crate::tally::Tally;
use crate::test::{self, Row};
use crate::{kafka_suite, workspace};

/// Runs all of it; `write` leaves the result in `docs/nightly.md`.
pub(crate) fn run(write: bool) -> Result<Tally> {
    // As the machine is before, and the commit that is tested.
    let machine = Machine::describe(&interop::fetch::kafka_jars()?)?;
    let mut rows = test::run_stages(None);
    rows.push(Row::of("properties, cases of tonight", try_properties));
    rows.push(Row::of("simulated disk and cluster, at length", simulate));
    rows.push(Row::of("a build without its syncs is found out", find_planted));
    rows.push(Row::of("clients, old and new, at length", || {
        interop::run(Target::Ottla, &[], Length::Long, 1)
    }));
    rows.push(Row::of("clients, old and new, on three nodes", || {
        interop::run(Target::Ottla, &[], Length::Long, 3)
    }));
    // The clients must find the same on Apache Kafka: a test that it fails is a wrong test.
    rows.push(Row::of("clients on Apache Kafka", || {
        interop::run(Target::Kafka, &[], Length::Long, 1)
    }));
    rows.push(Row::of("all of the kafka suite", kafka_suite::run_all));
    rows.push(Row::of("three nodes under faults, at length", cluster));
    rows.push(Row::of("optimised build", || Ok(crate::dist())));
    if write {
        let path = workspace::root().join("docs/nightly.md");
        fs::write(&path, markdown(&machine, &rows)).context("the result can't be written")?;
    }
    Ok(test::close(rows))
}

/// So many worlds are played each night; an ordinary test plays hundreds. One that fails names its seed.
const SEEDS: &str = "10000";
const SIMULATION_LIMIT: Duration = Duration::from_secs(60 * 60);

fn simulate() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--locked", "-p", "ottla-sim"]);
    command.args(["--test", "log", "--test", "cluster", "--test", "quorum"]);
    command.args(["--", "--nocapture"]).env("OTTLA_SIM_SEEDS", SEEDS);
    Ok(test::step("simulated disk and cluster", command, SIMULATION_LIMIT))
}

/// An ordinary test tries hundreds of cases, and always the same ones.
const CASES: &str = "20000";
const PROPERTIES_LIMIT: Duration = Duration::from_secs(20 * 60);

fn try_properties() -> Result<Tally> {
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--locked", "-p", "ottla-records", "--test", "round_trip"]);
    command.args(["-p", "ottla-metadata", "-p", "ottla-coordinator", "--test", "random"]);
    command.args(["-p", "ottla-log", "--test", "model", "--test", "compaction"]);
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

fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut text = format!(
        "# The last night\n\n`cargo xtask nightly --write` wrote this.\n\n{}\n\n\
         | what | seconds | result |\n| --- | ---: | --- |\n",
        machine.markdown()
    );
    for Row { name, took, tally, .. } in rows {
        writeln!(text, "| {name} | {:.0} | {tally} |", took.as_secs_f64()).ok();
    }
    let named = |text: &mut String, heading: &str, names: Vec<&String>| {
        if !names.is_empty() {
            write!(text, "\n## {heading}\n\n").ok();
            for name in names {
                writeln!(text, "- {name}").ok();
            }
        }
    };
    named(&mut text, "Failed", rows.iter().flat_map(|row| &row.tally.failed).collect());
    named(&mut text, "Skipped", rows.iter().flat_map(|row| &row.tally.skipped).collect());
    text
}
