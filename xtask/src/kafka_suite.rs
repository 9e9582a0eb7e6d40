//! Apache Kafka's own client integration tests, run against Ottla or Apache Kafka (shell).
//!
//! The tests come as they are published; what stands in for their in-process cluster asks us for a
//! broker, fresh for each test and with the test's own properties. What Apache Kafka gives in the
//! same mode is kept in `interop/kafka-suite/baseline.txt`, and every difference is accounted for.

mod cluster;
mod fetch;
mod judge;
mod outcome;
mod plan;
mod runner;
mod several;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::broker::Target;
use crate::interop::adapter::{Adapter, Library};
use crate::tally::{Tally, with_reason};
use crate::{interop, workspace};
use cluster::Cluster;
use judge::{Expectations, Several};
use outcome::{Outcome, Verdict};
use plan::Shard;
use runner::Unit;

const DIRECTORY: &str = "interop/kafka-suite";
/// All tests on Apache Kafka take more than an hour.
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The broker to drive.
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// Run one part of so many, each about as long as the others.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// How many tests run at the same time, each with its own broker.
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Add the outcomes to the baseline instead of comparing them with it.
    #[arg(long)]
    take_baseline: bool,
    /// Run only these: a class without its package, or class.method.
    #[arg(value_name = "CLASS[.METHOD]")]
    only: Vec<String>,
}

/// Runs as the command line says.
pub(crate) fn run(arguments: &Arguments) -> Result<Tally> {
    let request = Request::of(arguments);
    if arguments.take_baseline { take_baseline(&request) } else { compare(&request) }
}

/// The part that the commit's turn it is, in the test command; all parts have their turns.
pub(crate) fn run_turn(limit: Duration) -> Result<Tally> {
    let shard = Shard::of_commit(&plan::commit()?)?;
    println!("part {shard} of Kafka's own client tests, chosen by the commit");
    compare(&Request { target: Target::Ottla, shard: Some(shard), lanes: 2, only: &[], limit })
}

/// All of it.
pub(crate) fn run_all() -> Result<Tally> {
    let limit = LONGEST;
    compare(&Request { target: Target::Ottla, shard: None, lanes: 2, only: &[], limit })
}

struct Request<'a> {
    target: Target,
    shard: Option<Shard>,
    lanes: usize,
    only: &'a [String],
    limit: Duration,
}

impl<'a> Request<'a> {
    fn of(arguments: &'a Arguments) -> Self {
        let Arguments { target, shard, lanes, take_baseline: _, only } = arguments;
        Self { target: *target, shard: *shard, lanes: *lanes, only, limit: LONGEST }
    }
}

fn file(name: &str) -> PathBuf {
    workspace::root().join(DIRECTORY).join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(file(name)).with_context(|| format!("cannot read {DIRECTORY}/{name}"))
}

fn expectations() -> Result<Expectations> {
    let (known, waiting) = (read("known-differences.txt")?, read("waiting.txt")?);
    Expectations::parse(&read("baseline.txt")?, &known, &waiting, &read("several-nodes.txt")?)
}

/// Runs the tests that are asked for and accounts for every difference from Apache Kafka.
fn compare(request: &Request<'_>) -> Result<Tally> {
    if let Some(missing) = interop::missing_program(&["java", "javac", "jar", "mvn"]) {
        let mut tally = Tally::default();
        interop::miss("kafka suite", missing, &mut tally);
        return Ok(tally);
    }
    let mut expectations = expectations()?;
    let pointless = expectations.pointless();
    if request.target == Target::Ottla {
        forget_what_is_served(&mut expectations)?;
    } else {
        expectations.stop_waiting(|_| true);
    }
    let tests: Vec<String> = expectations.baseline.tests.keys().cloned().collect();
    let chosen: BTreeSet<String> = plan::chosen(&expectations.baseline, tests, request);
    let (waiting, planned): (BTreeSet<String>, BTreeSet<String>) =
        chosen.into_iter().partition(|test| expectations.waits_for(test).is_some());
    let nodes_of = |test: &str| expectations.nodes_of(test);
    let classes = fetch::test_classes()?;
    let mut units = plan::units(&expectations.baseline, &planned, &classes, nodes_of)?;
    units.extend(plan::unknown_units(&expectations, &classes, request));
    let mut outcomes = Vec::new();
    run_units(request, units, |outcome| {
        outcomes.push(outcome);
        Ok(())
    })?;
    let judgement = expectations.judge(&planned, &of_plan(outcomes, &planned));
    for better in &judgement.better {
        println!("passes here, but not on Apache Kafka: {better}");
    }
    let mut tally = judgement.tally();
    tally.failed.extend(pointless.into_iter().map(|entry| format!("kafka suite: {entry}")));
    report_waiting(&expectations, &waiting, &mut tally);
    Ok(tally)
}

/// A method's invocations run together, also those that are not part of the plan.
fn of_plan(mut outcomes: Vec<Outcome>, planned: &BTreeSet<String>) -> Vec<Outcome> {
    let elsewhere = |test: &str| {
        let method = test.split('[').next().unwrap_or_default();
        test.ends_with(']') && planned.iter().any(|other| other.starts_with(&format!("{method}[")))
    };
    outcomes.retain(|outcome| planned.contains(&outcome.test) || !elsewhere(&outcome.test));
    outcomes
}

fn report_waiting(expectations: &Expectations, tests: &BTreeSet<String>, tally: &mut Tally) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for test in tests {
        *counts.entry(expectations.waits_for(test).unwrap_or_default()).or_default() += 1;
    }
    // Some hundreds have their names in the file: one line for what they wait for is enough.
    for (what, count) in counts {
        tally.skipped.push(format!("kafka suite: {count} tests wait for {what}: waiting.txt"));
    }
}

fn forget_what_is_served(expectations: &mut Expectations) -> Result<()> {
    let directory = workspace::run_directory("kafka-suite-served")?;
    let broker = Target::Ottla.start(&directory.join("broker"), &[])?;
    let mut java = Adapter::new(Library::Java, broker.address(), &directory);
    let bootstrap = ["--bootstrap-server", broker.address()];
    let shown = java.tool("tools.BrokerApiVersionsCommand", &bootstrap, b"")?;
    let served = |api: &str| {
        let mut lines = shown.out.lines().filter(|line| !line.contains("UNSUPPORTED"));
        api.ends_with(')') && lines.any(|line| line.contains(&format!("{api}: ")))
    };
    expectations.stop_waiting(served);
    drop(broker);
    fs::remove_dir_all(&directory).ok();
    Ok(())
}

/// Outcomes are kept as they come: the whole takes more than an hour.
fn take_baseline(request: &Request<'_>) -> Result<Tally> {
    let mut baseline = outcome::Baseline::parse(&read("baseline.txt").unwrap_or_default())?;
    let several = Several::parse(&read("several-nodes.txt")?)?;
    let units = plan::all_units(&baseline, &several, &fetch::test_classes()?, request);
    let mut tally = Tally::default();
    run_units(request, units, |outcome| {
        tally.add(match outcome.verdict {
            Verdict::Passed => Tally::passed(1),
            Verdict::Failed => Tally::failed(with_reason(&outcome.test, &outcome.message)),
            Verdict::Skipped => Tally { skipped: vec![outcome.test.clone()], ..Tally::default() },
        });
        baseline.add(outcome);
        fs::write(file("baseline.txt"), baseline.render()).context("cannot write the baseline")
    })?;
    Ok(tally)
}

/// Runs all units, several at a time, the longest first; prints the outcomes as they come.
fn run_units(
    request: &Request<'_>,
    mut units: Vec<Unit>,
    mut take: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let directory = workspace::run_directory(&format!("kafka-suite-{}", request.target))?;
    println!("{} classes, logs in {}", units.len(), directory.display());
    fetch::classes()?;
    if request.target == Target::Kafka {
        cluster::learn(&directory)?;
    }
    units.sort_by(|left, right| right.seconds.total_cmp(&left.seconds));
    let queue = Mutex::new(VecDeque::from(units));
    let deadline = Instant::now() + request.limit;
    let (sender, outcomes) = channel();
    let lane = |number: usize, sender: Sender<Outcome>| {
        let directory = directory.join(format!("lane-{number}"));
        run_lane(request.target, &directory, &queue, deadline, &sender)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (1..=request.lanes.max(1))
            .map(|number| {
                let (lane, sender) = (&lane, sender.clone());
                scope.spawn(move || lane(number, sender))
            })
            .collect();
        drop(sender);
        for outcome in outcomes {
            print(&outcome);
            take(outcome)?;
        }
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane does not panic"))
    })
}

fn run_lane(
    target: Target,
    directory: &Path,
    queue: &Mutex<VecDeque<Unit>>,
    deadline: Instant,
    sender: &Sender<Outcome>,
) -> Result<()> {
    let mut cluster = Cluster::new(target, directory)?;
    let next = || queue.lock().expect("no lane panics").pop_front();
    while let Some(unit) = next().filter(|_| Instant::now() < deadline) {
        let log = directory.join(unit.log_name());
        runner::run(&unit, &mut cluster, &log, deadline, sender)?;
    }
    Ok(())
}

fn print(outcome: &Outcome) {
    let Outcome { test, verdict, seconds, message } = outcome;
    let first = message.lines().next().unwrap_or_default();
    match verdict {
        Verdict::Passed => println!("ok      {seconds:6.1} s {test}"),
        Verdict::Failed => println!("failed  {seconds:6.1} s {test}: {first:.300}"),
        Verdict::Skipped => println!("skipped {seconds:6.1} s {test}: {first:.300}"),
    }
}
