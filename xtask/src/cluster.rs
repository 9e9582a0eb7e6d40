//! `cargo xtask cluster`: three real processes on loopback, their faults, and what clients notice (shell).
//!
//! The same files configure Apache Kafka and Ottla, so that a claim about the one can be tried on the other.

pub(crate) mod ask;
mod check;
mod client;
mod cut;
mod directories;
mod failover;
mod faults;
mod fetchers;
mod files;
mod hints;
mod idle;
mod join;
mod kinds;
mod ledger;
mod load;
mod members;
mod minimum;
mod network;
pub(crate) mod nodes;
mod parted;
mod racks;
mod recorder;
mod records;
mod replicas;
mod space;
mod throttle;
mod told;
mod unclean;
mod upgrade;
pub(crate) mod volume;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use faults::{Fault, Faults};
use kinds::Kind;
use network::Network;
use nodes::Ground;
use volume::Volume;

use crate::broker::Target;
use crate::interop;
use crate::interop::three_nodes::tools;
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
    /// Replication goes on while the number of fetchers changes.
    Fetchers(Against),
    /// Measure what many partitions cost while nobody uses them.
    Idle(Idle),
    /// Consumers read from a follower in their own rack.
    Racks(Against),
    /// Play Kafka's own tools, and compare what they print with what Apache Kafka makes them print.
    Tools(Tools),
    /// Break brokers' connections to the active controller, and see that no leader moves.
    Cut(Cut),
    /// A leader that is cut off from the active controller alone sends its clients on.
    Parted(Against),
    /// Nodes without a file join each other from machines of their own, and go on without the first.
    Join,
    /// Replace an earlier build node by node under load, and go back.
    Upgrade(Upgrade),
    /// A leader whose disk is full hands over to one that has room.
    Space,
    /// Who lacks records leads only where an operator permits it.
    Unclean(Against),
    /// What acks=all is answered while fewer are in sync than `min.insync.replicas` asks for.
    Minimum(Against),
    /// A log directory that fails moves the leaders of what is in it, and no others.
    Directories,
    /// A reassignment takes as long as an operator's throttle says, and nothing else waits.
    Throttle(Against),
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    #[arg(long, default_value_t = 3_000)]
    partitions: i32,
    #[arg(long, default_value_t = 40)]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Tools {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// Keep what they print, instead of comparing it.
    #[arg(long)]
    take: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Against {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Check {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// Go on for so long at least.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Go on until so many faults have happened, the three kinds of kills first; without it, until each kind has.
    #[arg(long)]
    faults: Option<usize>,
    /// What the faults are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records that each producer writes per second at most.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Who writes, reads and commits.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    clients: Vec<Kind>,
    /// Cut the network, too: the nodes are in network namespaces, which needs the right to make them.
    #[arg(long)]
    network: bool,
    /// Fill disks, too: each node has a small file system in memory, which needs the right to mount one.
    #[arg(long)]
    disks: bool,
}

/// Enough for a quarter of an hour, with what Apache Kafka and Ottla set aside.
const VOLUME_MEBIBYTES: u32 = 1_536;

impl Check {
    fn ground(&self) -> Ground {
        let volume_mebibytes = self.disks.then_some(VOLUME_MEBIBYTES);
        Ground { network: self.network, volume_mebibytes, ..Ground::default() }
    }

    /// Without the faults that this machine does not let us cause, which are skipped by name.
    fn without_what_is_refused(mut self) -> (Self, Tally) {
        let mut skipped = Tally::default();
        if self.network && !Network::is_possible() {
            self.network = false;
            skipped.skipped.push("cut networks: no network namespace can be made".to_owned());
        }
        if self.disks && !Volume::is_possible(&std::env::temp_dir()) {
            self.disks = false;
            skipped.skipped.push("full disks: no file system can be mounted".to_owned());
        }
        (self, skipped)
    }

    /// So many faults happen at least.
    fn least(&self) -> usize {
        let round = || Faults::new(self.seed, 1, &self.more_faults()).kinds().len();
        self.faults.unwrap_or_else(round)
    }

    /// What the ground allows beside kills, stops and pauses.
    fn more_faults(&self) -> Vec<Fault> {
        let cuts = self.network.then_some(&Fault::CUTS[..]);
        let fills = self.disks.then_some(&Fault::FILLS[..]);
        [cuts.unwrap_or_default(), fills.unwrap_or_default()].concat()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Failover {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    /// How many leaders are killed, every other one the active controller; from 60 on their p99 counts, before the slowest.
    #[arg(long, default_value_t = 60)]
    kills: usize,
    /// Who writes.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    clients: Vec<Kind>,
}

#[derive(Debug, Args)]
pub(crate) struct Cut {
    #[arg(long, value_enum, default_value_t = Target::Ottla)]
    target: Target,
    #[arg(long, default_value_t = 100)]
    times: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// The commit that is upgraded from; without it the latest tag, or, while there is none, what was written a day ago.
    #[arg(long)]
    from: Option<String>,
    /// Records that each producer writes per second at most.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
}

/// Carries a command out, in a directory that is kept when it fails.
pub(crate) fn run(command: &Command) -> Result<Tally> {
    match command {
        Command::Check(check) => {
            let name = format!("{}: what is acknowledged survives every fault", check.target);
            let (check, skipped) = check.clone().without_what_is_refused();
            let mut tally =
                in_directory(check.target, &name, |directory| check::run(&check, directory))?;
            tally.add(skipped);
            Ok(tally)
        }
        Command::Failover(failover) => {
            let name = format!("{}: another leader takes over", failover.target);
            in_directory(failover.target, &name, |directory| failover::run(failover, directory))
        }
        Command::Hints(Against { target }) => {
            let name = format!("{target}: who does not lead says who does");
            in_directory(*target, &name, |directory| hints::run(*target, directory))
        }
        Command::Fetchers(Against { target }) => {
            let name = format!("{target}: replication goes on while its fetchers change");
            in_directory(*target, &name, |directory| fetchers::run(*target, directory))
        }
        Command::Idle(idle) => {
            let name = format!("{}: many partitions that nobody uses", idle.target);
            in_directory(idle.target, &name, |directory| idle::run(idle, directory))
        }
        Command::Throttle(Against { target }) => {
            let name = format!("{target}: a throttled reassignment takes its time");
            in_directory(*target, &name, |directory| throttle::run(*target, directory))
        }
        Command::Space => {
            let name = "a leader that wants more room than there is hands over";
            let mut tally = in_directory(Target::Ottla, name, space::run)?;
            let name = "a leader whose disk is full hands over";
            if Volume::is_possible(&std::env::temp_dir()) {
                tally.add(in_directory(Target::Ottla, name, space::run_on_volumes)?);
            } else {
                tally.skipped.push(format!("{name}: no file system can be mounted"));
            }
            Ok(tally)
        }
        Command::Unclean(Against { target }) => {
            let name = format!("{target}: who lacks records leads only where it is permitted");
            in_directory(*target, &name, |directory| unclean::run(*target, directory))
        }
        Command::Minimum(Against { target }) => {
            let name = format!("{target}: acks=all is refused while too few are in sync");
            in_directory(*target, &name, |directory| minimum::run(*target, directory))
        }
        Command::Directories => {
            let name = "a log directory that fails moves only its leaders";
            if !interop::can_trace() {
                let skipped = vec![format!("{name}: no process can be traced")];
                return Ok(Tally { skipped, ..Tally::default() });
            }
            let (clients, skipped) = there(&Kind::ALL);
            let mut tally = in_directory(Target::Ottla, name, |directory| {
                directories::run(&clients, directory)
            })?;
            tally.add(skipped);
            Ok(tally)
        }
        Command::Racks(Against { target }) => {
            let name = format!("{target}: consumers read from a follower in their own rack");
            in_directory(*target, &name, |directory| racks::run(*target, directory))
        }
        Command::Tools(Tools { target, take }) => {
            let name = format!("{target}: Kafka's tools print what they print on Apache Kafka");
            in_directory(*target, &name, |directory| tools::run(*target, *take, directory))
        }
        Command::Cut(cut) => {
            let name = format!("{}: broken connections move no leader", cut.target);
            if !cut::is_possible() {
                let skipped = vec![format!("{name}: needs `ss -K`")];
                return Ok(Tally { skipped, ..Tally::default() });
            }
            in_directory(cut.target, &name, |directory| cut::run(cut, directory))
        }
        Command::Parted(Against { target }) => {
            let name = format!("{target}: a leader without a controller sends its clients on");
            if !Network::is_possible() {
                let skipped = vec![format!("{name}: no network namespace can be made")];
                return Ok(Tally { skipped, ..Tally::default() });
            }
            in_directory(*target, &name, |directory| parted::run(*target, directory))
        }
        Command::Join => {
            let name = "nodes on three machines join, and go on without the first";
            if !Network::is_possible() {
                let skipped = vec![format!("{name}: no network namespace can be made")];
                return Ok(Tally { skipped, ..Tally::default() });
            }
            in_directory(Target::Ottla, name, join::run)
        }
        Command::Upgrade(upgrade) => {
            let (clients, skipped) = there(&Kind::ALL);
            let name = "an earlier build is replaced node by node under load, and comes back";
            let mut tally = in_directory(Target::Ottla, name, |directory| {
                upgrade::run_upgrade(upgrade, &clients, directory)
            })?;
            tally.add(skipped);
            Ok(tally)
        }
    }
}

/// The short forms that every change has time for.
pub(crate) fn run_short() -> Result<Tally> {
    let target = Target::Ottla;
    let (clients, skipped) = there(&Kind::ALL);
    let check = Check {
        target,
        seconds: 1,
        faults: None,
        seed: 1,
        rate: 1_000,
        clients: clients.clone(),
        network: false,
        disks: false,
    };
    let mut tally = run(&Command::Check(check))?;
    tally.add(run(&Command::Failover(Failover { target, kills: 2, clients }))?);
    tally.add(run(&Command::Cut(Cut { target, times: 10 }))?);
    tally.add(run(&Command::Hints(Against { target }))?);
    tally.add(run(&Command::Racks(Against { target }))?);
    tally.add(run(&Command::Fetchers(Against { target }))?);
    tally.add(run(&Command::Space)?);
    tally.add(run(&Command::Unclean(Against { target }))?);
    tally.add(run(&Command::Minimum(Against { target }))?);
    tally.add(run(&Command::Directories)?);
    tally.add(run(&Command::Throttle(Against { target }))?);
    tally.add(run(&Command::Parted(Against { target }))?);
    tally.add(run(&Command::Join)?);
    tally.add(skipped);
    Ok(tally)
}

/// What takes as long as it takes: every fault, again and again, with every kind of client.
///
/// Apache Kafka has a share of it, for comparison: what the checker finds there, too, is no fault of Ottla. Its disks do not
/// fill, since it stops by itself then.
pub(crate) fn check_long(target: Target) -> Result<Tally> {
    let (clients, mut tally) = there(&Kind::ALL);
    let (seconds, faults, seeds) = match target {
        Target::Ottla => (600, 30, LONG_SEEDS.as_slice()),
        Target::Kafka => (300, 12, &LONG_SEEDS[..1]),
    };
    for seed in seeds {
        tally.add(run(&Command::Check(Check {
            target,
            seconds,
            faults: Some(faults),
            seed: *seed,
            rate: 1_000,
            clients: clients.clone(),
            network: true,
            disks: target == Target::Ottla,
        }))?);
    }
    Ok(tally)
}

pub(crate) fn failover_long() -> Result<Tally> {
    let (clients, mut tally) = there(&Kind::ALL);
    tally.add(run(&Command::Failover(Failover { target: Target::Ottla, kills: 60, clients }))?);
    Ok(tally)
}

pub(crate) fn cut_long() -> Result<Tally> {
    run(&Command::Cut(Cut { target: Target::Ottla, times: 100 }))
}

pub(crate) fn upgrade_long() -> Result<Tally> {
    run(&Command::Upgrade(Upgrade { from: None, rate: 1_000 }))
}

/// The kinds of clients that this machine can build, and the others as skipped; where `CI` is set, they are missed.
fn there(kinds: &[Kind]) -> (Vec<Kind>, Tally) {
    let can_be_built =
        |kind: &Kind| kind.needs().iter().all(|name| workspace::find_program(name).is_some());
    let (there, away): (Vec<Kind>, Vec<Kind>) = kinds.iter().partition(|kind| can_be_built(kind));
    let mut tally = Tally::default();
    for kind in away {
        let what = format!("{} under faults needs {}", kind.name(), kind.needs().join(", "));
        if workspace::is_continuous_integration() {
            tally.failed.push(what);
        } else {
            tally.skipped.push(what);
        }
    }
    (there, tally)
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

const LONG_SEEDS: [u64; 2] = [1, 2];

/// How many nodes a cluster has, each of them a broker and a controller.
const NODES: i32 = 3;

/// Longer than anything that goes as it should, with Apache Kafka beside a compiler.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(120);
