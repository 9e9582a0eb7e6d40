//! Nodes without a file on three machines, as a person types it: each has a network of its own, and loopback leads to
//! nobody else (shell).
//!
//! The first begins without `--listen`, as one does on a single machine: the others wait, and say why. Afterwards the
//! cluster goes on without it, killed and cut off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::ask;
use super::network::Network;
use crate::ottla;
use crate::process::{Process, run_ok, tail};

const TOPIC: &str = "joined";
const PORT: u16 = 9092;
const MACHINES: [i32; 3] = [1, 2, 3];
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a log file, or at the cluster.
const PAUSE: Duration = Duration::from_millis(50);
const LINES_SHOWN: usize = 25;

struct Machines<'a> {
    network: &'a Network,
    directory: &'a Path,
    binary: PathBuf,
    running: BTreeMap<i32, Process>,
    starts: BTreeMap<i32, u32>,
}

pub(super) fn run(directory: &Path) -> Result<()> {
    // It goes last, when nobody is in it any more.
    let network = Network::start(&MACHINES)?;
    let mut machines = Machines {
        network: &network,
        directory,
        binary: ottla::binary()?,
        running: BTreeMap::new(),
        starts: BTreeMap::new(),
    };
    try_all(&mut machines).map_err(|error| machines.failure(&error))
}

fn try_all(machines: &mut Machines<'_>) -> Result<()> {
    let [one, two, three] = addresses(machines)?;
    machines.serve(1, &[])?;
    for (machine, address) in [(2, &two), (3, &three)] {
        machines.serve(machine, &["--listen", address, "--join", &one])?;
        machines.await_log(machine, "is reached from its own machine alone")?;
    }
    machines.stop(1)?;
    machines.serve(1, &["--listen", &one])?;
    for machine in MACHINES {
        machines.await_log(machine, "the voters are now 1, 2, 3")?;
    }
    let safe = ["--replication-factor", "3", "--config", "min.insync.replicas=2"];
    machines.client(&[&["topic", "create", TOPIC], &safe[..]].concat(), &two, "")?;
    machines.write("all of them", &one)?;

    machines.kill(1)?;
    machines.write("the first is killed", &three)?;
    machines.serve(1, &["--listen", &one])?;
    machines.await_whole(&one)?;

    machines.network.pull(1)?;
    machines.write("the first is cut off", &two)?;
    machines.network.plug(1)?;
    machines.await_whole(&one)?;

    let read = machines.client(&["consume", TOPIC, "--until-end"], &one, "")?;
    let lines: Vec<&str> = read.lines().collect();
    let written = ["all of them", "the first is killed", "the first is cut off"];
    ensure!(lines == written, "read {lines:?}");
    Ok(())
}

/// Where each is to be found.
fn addresses(machines: &Machines<'_>) -> Result<[String; 3]> {
    let [one, two, three] = MACHINES.map(|machine| machines.network.address(machine));
    Ok([one?, two?, three?].map(|address| format!("{address}:{PORT}")))
}

impl Machines<'_> {
    fn log(&self, machine: i32) -> PathBuf {
        let starts = self.starts.get(&machine).copied().unwrap_or_default();
        self.directory.join(format!("machine-{machine}-{starts}.log"))
    }

    /// Does not wait until it is ready.
    fn serve(&mut self, machine: i32, options: &[&str]) -> Result<()> {
        *self.starts.entry(machine).or_default() += 1;
        let mut command = Command::new(&self.binary);
        let data = self.directory.join(format!("machine-{machine}"));
        command.arg("serve").arg("--data-dir").arg(data).args(options);
        let command = self.network.enter(machine, &command);
        let name = format!("machine {machine}");
        self.running.insert(machine, Process::spawn(&name, command, &self.log(machine))?);
        Ok(())
    }

    fn take(&mut self, machine: i32) -> Result<Process> {
        self.running.remove(&machine).with_context(|| format!("nothing runs on {machine}"))
    }

    /// Once it is ready.
    fn stop(&mut self, machine: i32) -> Result<()> {
        let mut process = self.take(machine)?;
        process.wait_for_line(LIMIT, |line| line.contains(" ready in ").then_some(()))?;
        let status = process.stop(LIMIT)?;
        ensure!(status.success(), "machine {machine} stopped with {status}");
        Ok(())
    }

    fn kill(&mut self, machine: i32) -> Result<()> {
        self.take(machine)?.kill()
    }

    /// What a command prints that a person types elsewhere.
    fn client(&self, arguments: &[&str], at: &str, input: &str) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).args(["--bootstrap", at, "--timeout", "60s"]);
        Ok(run_ok(command, input.as_bytes(), 2 * LIMIT)?.stdout_text())
    }

    fn write(&self, line: &str, at: &str) -> Result<()> {
        self.client(&["produce", TOPIC], at, &format!("{line}\n")).map(drop)
    }

    fn await_log(&self, machine: i32, what: &str) -> Result<()> {
        let log = self.log(machine);
        let is_said = || Ok(std::fs::read_to_string(&log)?.contains(what));
        until(is_said).with_context(|| format!("machine {machine} does not say: {what}"))
    }

    /// All have everything, as the node here knows.
    fn await_whole(&self, at: &str) -> Result<()> {
        let all = || ask::view(at, Some(TOPIC)).map(|view| view.is_whole(MACHINES.len()));
        until(all).context("not all are in sync")
    }

    fn failure(&self, why: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("{why:#}");
        for machine in MACHINES {
            let log = self.log(machine);
            text +=
                &format!("\n-- machine {machine}, {}:\n{}", log.display(), tail(&log, LINES_SHOWN));
        }
        anyhow!(text)
    }
}

/// Asks again and again until it is so. What fails meanwhile is tried again: nodes are away on purpose.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let last = is_so();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not within {LIMIT:?} ({last:?})");
        thread::sleep(PAUSE);
    }
}
