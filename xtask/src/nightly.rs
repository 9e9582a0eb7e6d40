//! `cargo xtask nightly`: everything that `test` runs, and what it has no time for (shell).
//!
//! It takes hours. Each part is written down as soon as it has ended, with the commit that it ran on, so that a night may
//! be made of several runs, and one that is interrupted keeps what it had. Each night plays other simulated worlds, and says
//! which.

mod night;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// That of its worlds or its bytes, if it draws some.
    first_seed: Option<u64>,
    run: Box<dyn Fn() -> Result<Tally>>,
}

impl Part {
    fn new(name: &'static str, run: impl Fn() -> Result<Tally> + 'static) -> Self {
        Self { name, first_seed: None, run: Box::new(run) }
    }

    /// Plays the worlds of a day; `what` is the test that does.
    fn simulation(name: &'static str, what: &'static str, first_seed: u64) -> Self {
        Self::seeded(name, first_seed, move |first_seed| simulate(what, first_seed))
    }

    fn seeded(
        name: &'static str,
        first_seed: u64,
        run: impl Fn(u64) -> Result<Tally> + 'static,
    ) -> Self {
        let part = Self::new(name, move || run(first_seed));
        Self { first_seed: Some(first_seed), ..part }
    }

    /// What is run each night, in this order: first all that `test` runs.
    fn all() -> Result<Vec<Self>> {
        let first_seed = first_seed()?;
        let mut parts =
            Vec::from(Stage::ALL.map(|stage| Self::new(stage.name(), move || stage.run())));
        let clients = |target, nodes| move || interop::run(target, &[], Length::Long, nodes);
        parts.extend([
            Self::new("properties, cases of tonight", try_properties),
            Self::simulation("simulated disk, at length", "log", first_seed),
            Self::simulation("simulated cluster, at length", "cluster", first_seed),
            Self::simulation("simulated quorum, at length", "quorum", first_seed),
            Self::seeded("fuzzers, bytes of tonight", first_seed, fuzz),
            Self::new("a build without its syncs is found out", find_planted),
            Self::new("clients, old and new, at length", clients(Target::Ottla, 1)),
            Self::new("clients, old and new, on three nodes", clients(Target::Ottla, 3)),
            // The clients must find the same on Apache Kafka: a test that it fails is a wrong test.
            Self::new("clients on Apache Kafka", clients(Target::Kafka, 1)),
            Self::new("all of the kafka suite", kafka_suite::run_all),
        ]);
        parts.extend(clusters());
        parts.push(Self::new("optimised build", || Ok(crate::dist())));
        Ok(parts)
    }
}

/// Runs all of it, or the parts whose name contains `only`; `write` leaves the results in `docs/nightly.md`, beside
/// those of the other parts.
pub(crate) fn run(only: Option<&str>, write: bool) -> Result<Tally> {
    let parts = Part::all()?;
    let order = order(&parts);
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    ensure!(order.iter().any(|name| is_wanted(name)), "there is only: {}", order.join("; "));
    let wanted = parts.iter().filter(|part| is_wanted(part.name));
    let rows = wanted
        .map(|Part { name, first_seed, run }| play_from(name, *first_seed, run, write))
        .collect::<Result<_>>()?;
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
    play_from(name, None, run, write)
}

fn play_from(
    name: &'static str,
    first_seed: Option<u64>,
    run: impl FnOnce() -> Result<Tally>,
    write: bool,
) -> Result<Row> {
    if !write {
        return Ok(Row::of(name, run));
    }
    // As the machine is before, and the commit that is tested.
    let machine = Machine::describe(&interop::fetch::kafka_jars()?)?;
    let row = Row::of(name, run);
    let parts = Part::all()?;
    let order = order(&parts);
    let mut night = Night::published(&order)?;
    night.put(Played::of(&row, first_seed, &machine));
    night.publish()?;
    Ok(row)
}

/// So many worlds are played each night; an ordinary test plays hundreds. One that fails names its seed.
const SEEDS: u64 = 10_000;
const SIMULATION_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);
/// Which worlds are played; without it, those that no other day has.
const FIRST: &str = "OTTLA_SIM_FIRST";

fn simulate(what: &str, first_seed: u64) -> Result<Tally> {
    println!("{SEEDS} seeds from {first_seed} on; {FIRST}={first_seed} plays them again");
    let mut command = workspace::cargo();
    command.args(["test", "--release", "--locked", "-p", "ottla-sim", "--test", what]);
    command.args(["--", "--nocapture"]);
    command.env("OTTLA_SIM_SEEDS", SEEDS.to_string()).env(FIRST, first_seed.to_string());
    Ok(test::step(what, command, SIMULATION_LIMIT))
}

fn first_seed() -> Result<u64> {
    match std::env::var(FIRST) {
        Ok(first) => first.parse().with_context(|| format!("{FIRST}={first} is no number")),
        Err(_) => Ok(first_seed_on(SystemTime::now())),
    }
}

/// Each day has seeds of its own. Those below the first of them are for ordinary tests.
fn first_seed_on(time: SystemTime) -> u64 {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (seconds / DAY_SECONDS + 1) * SEEDS
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

/// So long each room's fuzzers go on: ten minutes in all, beside the build.
const FUZZ_SECONDS: &str = "120";
const FUZZED: [&str; 5] = ["ottla-records", "ottla-protocol", "ottla-log", "ottla-quorum", "ottla"];
const FUZZ_LIMIT: Duration = Duration::from_secs(40 * 60);

/// The fuzzers' functions under seeded mutations of sound bytes, as ordinary tests run them, for longer and with other seeds. It
/// is no libFuzzer: nothing is learned from what the code does with the bytes. The build is the one of ordinary tests, which
/// finds numbers that overflow.
fn fuzz(first_seed: u64) -> Result<Tally> {
    println!("seeds from {first_seed} on; {FIRST}={first_seed} takes them again");
    let mut command = workspace::cargo();
    command.args(["test", "--locked"]);
    FUZZED.iter().for_each(|room| _ = command.args(["-p", room]));
    command.args(["--test", "fuzz", "--bin", "ottla", "--", "--nocapture", "mutated"]);
    command.env("OTTLA_FUZZ_SECONDS", FUZZ_SECONDS);
    command.env("OTTLA_FUZZ_FIRST", first_seed.to_string());
    Ok(test::step("fuzz", command, FUZZ_LIMIT))
}

/// What three real nodes go through; nothing in a build of xtask that is only for `protocol`.
#[cfg(feature = "cluster")]
fn clusters() -> Vec<Part> {
    use crate::cluster;
    vec![
        Part::new("three nodes under faults, at length", || cluster::check_long(Target::Ottla)),
        Part::new("three nodes of Apache Kafka under faults", || {
            cluster::check_long(Target::Kafka)
        }),
        Part::new("sixty leaders killed", cluster::failover_long),
        Part::new("a hundred times a controller's connections cut", cluster::cut_long),
        Part::new("an earlier build upgraded, and back", cluster::upgrade_long),
    ]
}

#[cfg(not(feature = "cluster"))]
fn clusters() -> Vec<Part> {
    Vec::new()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_a_day_are_those_of_no_other_and_of_no_ordinary_test() {
        let first = |hours: u64| first_seed_on(UNIX_EPOCH + Duration::from_secs(hours * 60 * 60));
        assert_eq!(first(0), SEEDS);
        assert_eq!(first(23), first(0));
        assert_eq!(first(24), first(0) + SEEDS);
        assert_eq!(first(47), first(24));
    }
}
