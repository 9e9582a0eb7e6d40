//! The project's own commands: `cargo xtask help`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a tool of the project may treat all other cases alike"
)]
#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod bench;
mod broker;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "side-by-side")]
mod compatibility;
mod dist;
mod interop;
mod kafka;
mod kafka_suite;
mod machine;
mod nightly;
mod ottla;
mod page_cache;
mod pattern;
mod ports;
mod process;
mod program;
mod protocol;
#[cfg(feature = "side-by-side")]
mod side_by_side;
mod tally;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use broker::Target;
use interop::Length;
use tally::Tally;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check of the project, in stages; this is what continuous integration runs.
    Test {
        /// Run one stage only.
        #[arg(long, value_name = "STAGE")]
        only: Option<test::Stage>,
        /// Write the result to docs/nightly.md.
        #[arg(long)]
        write: bool,
    },
    /// Drive a broker with real clients in C, Python, Rust, Java, Go and Node, and with Kafka's tools.
    Interop {
        /// The broker to drive.
        #[arg(long, value_enum, default_value_t = Target::Ottla)]
        target: Target,
        /// Kill the broker as often as a night allows.
        #[arg(long)]
        long: bool,
        /// One broker, or three nodes: then those tests run that do not depend on it.
        #[arg(long, default_value_t = 1)]
        nodes: u32,
        /// Run only the tests whose name contains one of these.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Run Apache Kafka's own client integration tests, and compare with what they give there.
    KafkaSuite(kafka_suite::Arguments),
    /// Send Ottla and Apache Kafka the same requests, and compare the answers field by field.
    #[cfg(feature = "side-by-side")]
    SideBySide {
        /// Run only the scripts whose name contains this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Three nodes on loopback: what clients notice of kills, stops and pauses.
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Build the binary that is shipped, and check its size and what it needs.
    Dist,
    /// Everything that `test` runs, long runs, and the clients against Apache Kafka itself.
    Nightly {
        /// Only the parts whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Write the result to docs/nightly.md.
        #[arg(long)]
        write: bool,
    },
    /// Measure Ottla beside Apache Kafka: CPU time, memory, throughput, latency.
    Bench(bench::Arguments),
    /// What `bench` runs beside the brokers: the least that a broker can do.
    #[command(subcommand, hide = true)]
    BenchFloor(bench::floor::Floor),
    /// Generate docs/compatibility.md from the handlers' cards.
    #[cfg(feature = "side-by-side")]
    Compatibility {
        /// Fail if the page is not what the code says; write nothing.
        #[arg(long)]
        check: bool,
    },
    /// Generate the codecs of `ottla-protocol` from Kafka's field tables.
    Protocol {
        /// Fail if the generated files are not what the tables say; write nothing.
        #[arg(long)]
        check: bool,
        /// Take the tables anew from a directory with Apache Kafka's jars.
        #[arg(long, value_name = "JARS", conflicts_with = "check")]
        import: Option<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    Ok(match Arguments::parse().command {
        Task::Test { only, write } => exit_code(&test::run(only, write)?),
        Task::Interop { target, long, nodes, names } => {
            let length = if long { Length::Long } else { Length::Short };
            let tally = interop::run(target, &names, length, nodes)?;
            test::report(&tally);
            exit_code(&tally)
        }
        Task::KafkaSuite(arguments) => {
            let tally = kafka_suite::run(&arguments)?;
            test::report(&tally);
            exit_code(&tally)
        }
        #[cfg(feature = "side-by-side")]
        Task::SideBySide { only } => {
            let tally = side_by_side::run(only.as_deref())?;
            test::report(&tally);
            exit_code(&tally)
        }
        #[cfg(feature = "cluster")]
        Task::Cluster(command) => {
            let tally = cluster::run(&command)?;
            test::report(&tally);
            exit_code(&tally)
        }
        Task::Dist => exit_code(&dist()),
        Task::Nightly { only, write } => exit_code(&nightly::run(only.as_deref(), write)?),
        Task::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS)?,
        Task::BenchFloor(floor) => bench::floor::run(&floor).map(|()| ExitCode::SUCCESS)?,
        #[cfg(feature = "side-by-side")]
        Task::Compatibility { check } => compatibility::run(check).map(|()| ExitCode::SUCCESS)?,
        Task::Protocol { check, import: None } => {
            protocol::run(check).map(|()| ExitCode::SUCCESS)?
        }
        Task::Protocol { import: Some(jars), .. } => {
            protocol::import(&jars).map(|()| ExitCode::SUCCESS)?
        }
    })
}

fn dist() -> Tally {
    test::outcome("the optimised build is one small file that needs only libc", dist::check())
}

fn exit_code(tally: &Tally) -> ExitCode {
    if tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
