//! `cargo xtask cluster`: three real processes on loopback, their faults, and what clients notice (shell).
//!
//! The same files configure Apache Kafka and Ottla, so that a claim about the one can be tried on the other.

mod ask;
mod check;
mod client;
mod failover;
mod faults;
mod files;
mod hints;
mod ledger;
mod load;
mod nodes;
mod ports;
mod racks;
mod replicas;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::broker::Target;
use crate::tally::Tally;
use crate::test::outcome;
use crate::workspace;

/// What is done with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write and read while nodes are killed, stopped and paused, and hold what is left to what was promised.
    Check(Check),
    /// Measure how long a killed leader keeps a client from writing.
    Failover(Failover),
    /// A node that does not lead says who does.
    Hints(Against),
    /// Consumers read from a follower in their own rack.
    Racks(Against),
}

#[derive(Debug, Args)]
pub(crate) struct Against {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// Go on for so long at least.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Go on until so many faults have happened, the three kinds of kills first.
    #[arg(long, default_value_t = 3)]
    faults: usize,
    /// What the faults are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records that each of the two producers writes per second at most.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Failover {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// How many leaders are killed, every other one the active controller.
    #[arg(long, default_value_t = 30)]
    kills: usize,
}

/// Carries a command out, in a directory that is kept when it fails.
pub(crate) fn run(command: &Command) -> Result<Tally> {
    match command {
        Command::Check(check) => {
            let name = format!("{}: what is acknowledged survives every fault", check.target);
            in_directory(check.target, &name, |directory| check::run(check, directory))
        }
        Command::Failover(failover) => {
            let name = format!("{}: another leader takes over", failover.target);
            in_directory(failover.target, &name, |directory| failover::run(failover, directory))
        }
        Command::Hints(Against { target }) => {
            let name = format!("{target}: who does not lead says who does");
            in_directory(*target, &name, |directory| hints::run(*target, directory))
        }
        Command::Racks(Against { target }) => {
            let name = format!("{target}: consumers read from a follower in their own rack");
            in_directory(*target, &name, |directory| racks::run(*target, directory))
        }
    }
}

/// What every change has time for.
pub(crate) fn run_short() -> Result<Tally> {
    let target = Target::Ottla;
    let mut tally =
        run(&Command::Check(Check { target, seconds: 20, faults: 3, seed: 1, rate: 2_000 }))?;
    tally.add(run(&Command::Hints(Against { target }))?);
    tally.add(run(&Command::Racks(Against { target }))?);
    Ok(tally)
}

fn in_directory(
    target: Target,
    name: &str,
    work: impl FnOnce(&Path) -> Result<()>,
) -> Result<Tally> {
    let directory = workspace::run_directory(&format!("cluster-{target}"))?;
    let tally = outcome(name, work(&directory));
    workspace::leave_run_directory(&directory, tally.is_success());
    Ok(tally)
}

/// How many nodes a cluster has, each of them a broker and a controller.
const NODES: i32 = 3;

/// Longer than anything that goes as it should, with Apache Kafka beside a compiler.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
