//! `cargo xtask bench`: what Ottla costs, beside Apache Kafka and beside a floor (shell).
//!
//! All brokers stay up for the whole run and take turns, so that none is measured on a quieter
//! machine than the others; the first round of everything warms up and does not count; each row says
//! which of the other rounds does. What is measured is the CPU time of the broker's process, which does not
//! depend on what the client costs. docs/performance.md tells how to read the result.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks")]

mod active;
mod clients;
#[cfg(feature = "cluster")]
mod cluster;
mod connections;
mod disk;
mod driver;
pub(crate) mod floor;
mod goals;
mod groups;
pub(crate) mod latency;
mod load;
mod partitions;
pub(crate) mod procfs;
mod readers;
mod report;
mod restart;
mod shapes;
mod startup;
mod subject;
mod table;
mod wire;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::machine::Machine;
use crate::process::run_showing;
use crate::{interop, ottla, workspace};
use report::{Measured, Report};
use subject::Contestant;
use table::{Section, Subject};

const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

const PUBLISHED_RUNS_MIN: u32 = 3;

/// Kafka's own start script gives its broker a heap of 1 GiB, taken at once.
const KAFKA_HEAP: &str = "1g";
const HEAP_VARIABLE: &str = "OTTLA_KAFKA_HEAP";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Versus {
    Kafka,
    Nothing,
}

/// A part of a run, in the order in which they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    Startup,
    Produce,
    Consume,
    Latency,
    Clients,
    Groups,
    /// Record sizes, codecs, one producer and 16.
    Shapes,
    /// One consumer and 20; a cold one beside one that reads the newest records.
    Readers,
    /// acks=all with 1 to 10,000 active partitions.
    Active,
    /// 10,000 partitions: created, started, idle.
    Partitions,
    /// Restart after kill -9 against data size.
    Restart,
    /// 5,000 idle connections.
    Connections,
    /// Three brokers with three replicas: cost, latency, memory, failover of 1,000 and 10,000 partitions.
    Cluster,
    /// Active, partitions, restart and connections.
    Scale,
}

impl Stage {
    /// The heading of its figures; there are none of all of them together.
    const fn title(self) -> &'static str {
        match self {
            Self::Startup => "Start-up and idle",
            Self::Produce => "Produce",
            Self::Consume => "Consume",
            Self::Latency => "Latency",
            Self::Clients => "With other people's clients",
            Self::Groups => "Groups",
            Self::Shapes => "Produce in other shapes",
            Self::Readers => "Many readers, and one from yesterday",
            Self::Active => "Many active partitions",
            Self::Partitions => "Ten thousand partitions",
            Self::Restart => "Restart against data size",
            Self::Connections => "Connections",
            Self::Cluster => "Three brokers",
            Self::Scale => "Scale",
        }
    }

    /// Whether it is one of those that `--only scale` stands for.
    const fn is_of_scale(self) -> bool {
        match self {
            Self::Active | Self::Partitions | Self::Restart | Self::Connections => true,
            Self::Startup
            | Self::Produce
            | Self::Consume
            | Self::Latency
            | Self::Clients
            | Self::Groups
            | Self::Shapes
            | Self::Readers
            | Self::Cluster
            | Self::Scale => false,
        }
    }
}

/// Measures start-up, memory, CPU time, throughput and latency.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to put beside Ottla.
    #[arg(long, value_enum, default_value = "kafka")]
    versus: Versus,
    /// Less data: minutes instead of a quarter of an hour, and coarser figures.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, after one that warms up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Leave Ottla out.
    #[arg(long)]
    without_ottla: bool,
    /// Write the result to docs/benchmarks, as Markdown and as JSON, beside what is there of other parts: of a run on a
    /// quiet machine.
    #[arg(long, conflicts_with_all = ["quick", "without_ottla"])]
    write: bool,
    /// Measure nothing: take the figures that an earlier run left with --json, or only these parts of them.
    #[arg(long, value_name = "FILE", requires = "write", conflicts_with = "json")]
    import: Option<PathBuf>,
    /// Keep brokers and floors on the first core and clients on the others.
    #[arg(long)]
    pin: bool,
    /// Write the figures of every run to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    fn includes(&self, stage: Stage) -> bool {
        if self.only.is_empty() {
            // The short form leaves out what takes minutes.
            let is_long = stage.is_of_scale()
                || matches!(stage, Stage::Shapes | Stage::Readers | Stage::Cluster);
            return !(self.quick && is_long);
        }
        self.only.contains(&stage) || (stage.is_of_scale() && self.only.contains(&Stage::Scale))
    }

    /// The memory after it.
    fn includes_load(&self) -> bool {
        self.includes(Stage::Produce) && self.includes(Stage::Consume)
    }

    /// What is published is comparable: Kafka takes part, and each figure is one of three rounds at least.
    fn check(&self) -> Result<()> {
        if self.write && (self.versus != Versus::Kafka || self.runs < PUBLISHED_RUNS_MIN) {
            bail!("--write asks for --versus kafka and at least {PUBLISHED_RUNS_MIN} --runs");
        }
        if self.write && self.includes(Stage::Startup) && !self.includes_load() {
            bail!(
                "to write the memory after load there must be some: --only startup,produce,consume"
            );
        }
        Ok(())
    }

    fn measured(&self, machine: Machine) -> Measured {
        Measured { machine, quick: self.quick, runs: self.runs, pinned: self.pin }
    }

    fn subjects(&self) -> Vec<Subject> {
        let takes_part = |subject: &Subject| match subject {
            Subject::Kafka => self.versus == Versus::Kafka,
            Subject::Ottla | Subject::Unflushed => !self.without_ottla,
            Subject::Floor | Subject::FlushingFloor => true,
        };
        Subject::ALL.into_iter().filter(takes_part).collect()
    }
}

/// How much is written and read in one run. In a whole one a floor takes about a second of CPU time for it.
#[derive(Debug, Clone, Copy)]
struct Scale {
    small_records: u64,
    large_records: u64,
    /// Through three brokers.
    cluster_records: u64,
    latency_records: u32,
    client_records: u64,
    /// How often kcat reads them.
    client_passes: u32,
    heartbeats: u32,
}

const QUICK: Scale = Scale {
    small_records: 1_000_000,
    large_records: 300_000,
    cluster_records: 300_000,
    latency_records: 2_000,
    client_records: 1_000_000,
    client_passes: 2,
    heartbeats: 2,
};

const FULL: Scale = Scale {
    small_records: 10_000_000,
    large_records: 2_000_000,
    cluster_records: 1_000_000,
    latency_records: 5_000,
    client_records: 2_000_000,
    client_passes: 20,
    heartbeats: 5,
};

/// A run in progress.
#[derive(Debug)]
struct Bench {
    directory: PathBuf,
    subjects: Vec<Subject>,
    contestants: Vec<Contestant>,
    runs: u32,
    quick: bool,
    scale: Scale,
    started: Instant,
}

impl Bench {
    /// The subjects that are brokers.
    fn brokers(&self) -> Vec<Subject> {
        let is_broker = |subject: &Subject| match subject {
            Subject::Kafka | Subject::Ottla | Subject::Unflushed => true,
            Subject::Floor | Subject::FlushingFloor => false,
        };
        self.subjects.iter().copied().filter(is_broker).collect()
    }

    /// The brokers that take part where each has the machine to itself; Apache Kafka only in a whole run.
    fn solo_brokers(&self) -> Vec<Subject> {
        let takes_part = |subject: &Subject| match subject {
            Subject::Kafka => !self.quick,
            Subject::Ottla => true,
            Subject::Unflushed | Subject::Floor | Subject::FlushingFloor => false,
        };
        self.subjects.iter().copied().filter(takes_part).collect()
    }

    /// An empty directory below that of the run.
    fn empty_directory(&self, name: &str) -> Result<Directory> {
        Directory::empty(self.directory.join(name))
    }

    /// The broker of this subject, or none for a floor.
    fn contestant(&self, subject: Subject) -> Option<&Contestant> {
        self.contestants.iter().find(|contestant| contestant.subject == subject)
    }

    fn say(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.started.elapsed().as_secs());
    }

    fn say_run(&self, what: &str, run: u32, subject: Subject) {
        let round = if run == 0 { "warm-up".to_owned() } else { format!("run {run}") };
        self.say(&format!("{what}, {round}: {}", subject.name()));
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.import {
        return report::import(file, &arguments.only);
    }
    arguments.check()?;
    if cfg!(debug_assertions) || std::env::var_os(HEAP_VARIABLE).is_none() {
        return become_optimised();
    }
    let kafka_jars = interop::fetch::kafka_jars()?;
    if !arguments.without_ottla {
        ottla::binary()?;
    }
    let machine = Machine::describe(&kafka_jars)?;
    let directory = Directory::empty(workspace::root().join("target/bench"))?;
    let mut bench = Bench {
        directory: directory.0.clone(),
        subjects: arguments.subjects(),
        contestants: Vec::new(),
        runs: arguments.runs,
        quick: arguments.quick,
        scale: if arguments.quick { QUICK } else { FULL },
        started: Instant::now(),
    };
    let sections = measure(&mut bench, arguments)?;
    bench.say("done");
    report(arguments, Report::of(sections, &arguments.measured(machine)))
}

/// Continues as the release build of this program, which a driver and a floor have to be.
fn become_optimised() -> Result<()> {
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--release", "--package", "xtask", "--bin", "xtask"]);
    build.arg("--message-format=json-render-diagnostics");
    let mut program = None;
    let status = run_showing(build, BUILD_LIMIT, |message| {
        let message: serde_json::Value = serde_json::from_str(message).unwrap_or_default();
        let executable = message.get("executable").and_then(|path| path.as_str());
        program = executable.map(PathBuf::from).or_else(|| program.take());
    })?;
    if !status.success() {
        bail!("the release build of xtask failed");
    }
    let mut command = Command::new(program.context("cargo named no executable")?);
    command.args(std::env::args_os().skip(1));
    let heap = std::env::var(HEAP_VARIABLE).unwrap_or_else(|_| KAFKA_HEAP.to_owned());
    command.env(HEAP_VARIABLE, heap);
    Err(command.exec()).context("cannot start the release build of xtask")
}

fn measure(bench: &mut Bench, arguments: &Arguments) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    let first_start = startup::first_start(bench)?;
    let mut startup = match arguments.includes(Stage::Startup) {
        true => Some(startup::measure(bench, first_start)?),
        false => None,
    };
    if arguments.pin {
        pin(bench)?;
    }
    if arguments.includes(Stage::Produce) {
        sections.push(load::produce(bench)?);
    }
    if arguments.includes(Stage::Consume) {
        sections.push(load::consume(bench)?);
    }
    if arguments.includes(Stage::Latency) {
        sections.push(latency::measure(bench)?);
    }
    if arguments.includes(Stage::Clients) {
        sections.push(clients::measure(bench)?);
    }
    if let Some(startup) = startup.as_mut().filter(|_| arguments.includes_load()) {
        startup::after_load(bench, startup)?;
    }
    if arguments.includes(Stage::Shapes) {
        sections.push(shapes::measure(bench)?);
    }
    if arguments.includes(Stage::Readers) {
        sections.push(readers::measure(bench)?);
    }
    if arguments.includes(Stage::Groups) {
        sections.push(groups::measure(bench)?);
    }
    // The last one: its thousands of partitions stay.
    if arguments.includes(Stage::Active) {
        sections.push(active::measure(bench)?);
    }
    for contestant in &mut bench.contestants {
        contestant.broker.stop()?;
    }
    if arguments.includes(Stage::Partitions) {
        sections.push(partitions::measure(bench)?);
    }
    if arguments.includes(Stage::Restart) {
        sections.push(restart::measure(bench)?);
    }
    if arguments.includes(Stage::Connections) {
        sections.push(connections::measure(bench)?);
    }
    if arguments.includes(Stage::Cluster) {
        sections.push(measure_cluster(bench)?);
    }
    Ok(startup.into_iter().chain(sections).collect())
}

#[cfg(feature = "cluster")]
fn measure_cluster(bench: &Bench) -> Result<Section> {
    cluster::measure(bench)
}

#[cfg(not(feature = "cluster"))]
fn measure_cluster(_: &Bench) -> Result<Section> {
    bail!("this build of xtask is only for `protocol`")
}

/// Brokers on the first core; we, and the clients that we start from now on, on the others.
fn pin(bench: &Bench) -> Result<()> {
    let mut first = CpuSet::new();
    first.set(0);
    for contestant in &bench.contestants {
        for thread in procfs::threads(contestant.pid()?)? {
            sched_setaffinity(Pid::from_raw(thread), &first).context("cannot pin a broker")?;
        }
    }
    let mut others = CpuSet::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (1..cores.max(2)).for_each(|core| others.set(core));
    sched_setaffinity(None, &others).context("cannot pin the clients")
}

/// Every subject once in each round, beginning with another one each time. Round 0 warms up.
fn in_turn(subjects: &[Subject], runs: u32) -> impl Iterator<Item = (u32, Subject)> {
    let subjects = subjects.to_vec();
    (0..=runs).flat_map(move |run| {
        let mut round = subjects.clone();
        let first = usize::try_from(run).unwrap_or(0) % round.len().max(1);
        round.rotate_left(first);
        round.into_iter().map(move |subject| (run, subject))
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn report(arguments: &Arguments, report: Report) -> Result<()> {
    println!("{}", report.markdown());
    if let Some(file) = &arguments.json {
        report::write(file, &report.json()?)?;
    }
    if arguments.write { report.publish() } else { Ok(()) }
}

/// A directory that is empty at first and gone afterwards: a run leaves gigabytes behind.
struct Directory(PathBuf);

impl Directory {
    fn empty(path: PathBuf) -> Result<Self> {
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_subject() {
        let subjects = [Subject::Kafka, Subject::Ottla];
        let turns: Vec<_> = in_turn(&subjects, 1).collect();
        let expected = [(0, subjects[0]), (0, subjects[1]), (1, subjects[1]), (1, subjects[0])];
        assert_eq!(turns, expected);
    }
}
