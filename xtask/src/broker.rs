//! One broker in a directory of its own — Apache Kafka or Ottla — that tests and benchmarks start,
//! kill, restart and stop (shell).
//!
//! ```text
//! let mut broker = Target::Ottla.start(directory, &[("num.partitions", "1")])?;
//! broker.address();          // 127.0.0.1:PORT, the same after every restart
//! broker.kill9()?;           // SIGKILL
//! broker.restart()?;         // same directory, same port
//! broker.stop()?;            // SIGTERM, must end with success
//! ```
//! Dropped, it is killed. It dies with the thread that started it (see [`crate::process`]).

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::process::Process;
use crate::{kafka, ottla};

/// Apache Kafka starts in 3.3 s on an idle machine and in 15 s beside a compiler.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Which broker the tests drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    Kafka,
    Ottla,
}

impl Target {
    /// With success, or with Java's 143 for "ended by SIGTERM".
    pub(crate) fn has_stopped_cleanly(self, status: ExitStatus) -> bool {
        status.success() || (self == Self::Kafka && status.code() == Some(143))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "kafka",
            Self::Ottla => "ottla",
        })
    }
}

impl Target {
    /// Starts a broker in `directory` (made if missing) with Kafka's property names.
    pub(crate) fn start(self, directory: &Path, settings: &[(&str, &str)]) -> Result<Broker> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let mut broker = Broker {
            target: self,
            directory: directory.to_path_buf(),
            settings: settings.iter().map(owned).collect(),
            address: None,
            process: None,
            starts: 0,
            ready_after: Duration::ZERO,
        };
        broker.restart()?;
        Ok(broker)
    }

    /// With two log directories, so that partitions have somewhere to move to.
    pub(crate) fn start_with_two_directories(
        self,
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Broker> {
        let [first, second] = two_data_directories(directory);
        let log_dirs = format!("{},{}", first.display(), second.display());
        self.start(directory, &[settings, &[("log.dirs", &log_dirs)]].concat())
    }
}

/// Where a broker with two log directories that works in `directory` has them.
pub(crate) fn two_data_directories(directory: &Path) -> [PathBuf; 2] {
    ["data", "data-2"].map(|name| directory.join(name))
}

/// A started broker; see the module's text.
#[derive(Debug)]
pub(crate) struct Broker {
    target: Target,
    directory: PathBuf,
    settings: Vec<(String, String)>,
    /// Known from the first start on, and kept: clients reconnect to it.
    address: Option<String>,
    process: Option<Process>,
    starts: u32,
    ready_after: Duration,
}

/// What one start needs to know.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) data_directory: &'a Path,
    pub(crate) settings: &'a [(String, String)],
    /// The address of the start before this one.
    pub(crate) address: Option<&'a str>,
    /// Where the program's output goes.
    pub(crate) log: &'a Path,
    pub(crate) limit: Duration,
}

/// What one start gave.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// From the start of the process to its own word that it is ready.
    pub(crate) ready_after: Duration,
}

impl Broker {
    /// `HOST:PORT` of the client listener.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// From the latest start of the process to its own word that it is ready.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The process number, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether its process lives.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Where it works.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The log directory: partitions, `meta.properties`, `__cluster_metadata-0`.
    pub(crate) fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What the broker wrote since its last start.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join(format!("output-{}.log", self.starts))
    }

    /// SIGKILL: no flush, no goodbye.
    pub(crate) fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the broker is not running")?.kill()
    }

    /// Starts again on the same directory and port; kills the broker first if it still runs.
    pub(crate) fn restart(&mut self) -> Result<()> {
        if let Some(running) = self.process.take() {
            running.kill()?;
        }
        self.starts += 1;
        let (log, data_directory) = (self.log(), self.data_directory());
        let launch = Launch {
            directory: &self.directory,
            data_directory: &data_directory,
            settings: &self.settings,
            address: self.address.as_deref(),
            log: &log,
            limit: START_LIMIT,
        };
        let launched = match self.target {
            Target::Kafka => kafka::launch(&launch)?,
            Target::Ottla => ottla::launch(&launch)?,
        };
        self.address = Some(launched.address);
        self.ready_after = launched.ready_after;
        self.process = Some(launched.process);
        Ok(())
    }

    /// SIGTERM; must stop cleanly.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let running = self.process.take().context("the broker is not running")?;
        let status = running.stop(STOP_LIMIT)?;
        if !self.target.has_stopped_cleanly(status) {
            bail!("{} stopped with {}", self.target, crate::process::describe(status));
        }
        Ok(())
    }
}

/// A port that was free a moment ago. Whoever takes it in between makes the start fail, loudly.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr().context("a bound listener has an address")?.port())
}
