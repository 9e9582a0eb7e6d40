//! The files of a node: its properties, the same for Apache Kafka and for Ottla, and a formatted directory (shell).

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::NODES;
use super::network::Network;
use crate::broker::Target;
use crate::interop::operator::traced;
use crate::ports;
use crate::process::run_ok;
use crate::program::Program;

const FORMAT_LIMIT: Duration = Duration::from_secs(90);
const CLUSTER_ID: &str = "Three-Nodes-Id-0000000";
/// Three of them share a small machine with their clients.
const HEAP: &str = "256m";

/// What all nodes are configured with, beside who and where they are.
const SETTINGS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("offsets.topic.num.partitions", "6"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
    ("share.coordinator.state.topic.replication.factor", "3"),
    ("share.coordinator.state.topic.min.isr", "2"),
    ("group.initial.rebalance.delay.ms", "0"),
    // Apache Kafka's cleaner asks for 128 MiB, half of the heap.
    ("log.cleaner.dedupe.buffer.size", "2097152"),
    // Apache Kafka leaves aside what it does not know.
    ("ottla.http.listener", "127.0.0.1:0"),
];

/// Of `strace`, to let flushes fail.
const FAILING_FLUSHES: [&str; 4] =
    ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"];

/// Who and where a node is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: i32,
    pub(super) host: Ipv4Addr,
    /// Of the listener for clients and brokers.
    pub(super) port: u16,
    pub(super) controller_port: u16,
    pub(super) directory: PathBuf,
    /// The names of its log directories, the one with the metadata first.
    pub(super) log_dirs: &'static [&'static str],
    /// Files whose flushes fail.
    pub(super) failing: Vec<PathBuf>,
    /// Properties of this node, beside what all clusters have.
    pub(super) more: Vec<(String, String)>,
    /// The build of Ottla that runs here, if not the one under test.
    pub(super) binary: Option<PathBuf>,
    /// Levels of features other than those of a new cluster, as `NAME=LEVEL`.
    pub(super) levels: &'static [&'static str],
}

impl Place {
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its log directories.
    pub(super) fn data(&self) -> Vec<PathBuf> {
        self.log_dirs.iter().map(|name| self.disk().join(name)).collect()
    }

    /// Where a file system of its own may be mounted.
    pub(super) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    /// Writes the properties and formats the directory.
    pub(super) fn prepare(&self, target: Target, voters: &str) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create {}", self.directory.display()))?;
        fs::write(self.properties(), self.text(voters)).context("cannot write the properties")?;
        let levels = self.levels.iter().flat_map(|level| ["--feature", level]);
        let options: Vec<&str> = ["--cluster-id", CLUSTER_ID].into_iter().chain(levels).collect();
        let command = self.program(target)?.format(&self.properties(), &options);
        run_ok(command, b"", FORMAT_LIMIT)
            .with_context(|| format!("{target}'s format failed"))
            .map(drop)
    }

    fn text(&self, voters: &str) -> String {
        let Self { id, host, port, controller_port, .. } = self;
        let listeners = format!("PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}");
        let log_dirs: Vec<_> = self.data().iter().map(|path| path.display().to_string()).collect();
        let mut lines = vec![
            format!("node.id={id}"),
            format!("listeners={listeners}"),
            format!("controller.quorum.voters={voters}"),
            format!("log.dirs={}", log_dirs.join(",")),
        ];
        lines.extend(SETTINGS.iter().map(|(name, value)| format!("{name}={value}")));
        lines.extend(self.more.iter().map(|(name, value)| format!("{name}={value}")));
        lines.join("\n") + "\n"
    }

    fn program(&self, target: Target) -> Result<Program> {
        match &self.binary {
            Some(binary) => Ok(Program::Ottla(binary.clone())),
            None => Program::of(target, HEAP),
        }
    }

    /// What starts the node.
    pub(super) fn command(&self, target: Target) -> Result<Command> {
        let command = self.program(target)?.serve(&self.properties());
        if self.failing.is_empty() {
            return Ok(command);
        }
        let mut options: Vec<String> = Vec::new();
        for file in &self.failing {
            options.extend(["-P".to_owned(), file.display().to_string()]);
        }
        options.extend(FAILING_FLUSHES.map(str::to_owned));
        Ok(traced(&command, &self.directory.join("strace.log"), &options))
    }
}

/// `1@127.0.0.1:9093,…`
pub(super) fn voters(places: &[Place]) -> String {
    let voter = |place: &Place| format!("{}@{}:{}", place.id, place.host, place.controller_port);
    places.iter().map(voter).collect::<Vec<_>>().join(",")
}

/// The places of a new cluster: on loopback, or at the nodes' ends of a network.
pub(super) fn places(directory: &Path, network: Option<&Network>) -> Result<Vec<Place>> {
    let ports = ports::free(usize::try_from(2 * NODES)?)?;
    let place = |(id, ports): (i32, &[u16])| {
        let [port, controller_port] = *ports else { bail!("two ports each") };
        let host = network.map_or(Ok(Ipv4Addr::LOCALHOST), |network| network.address(id))?;
        let directory = directory.join(format!("node-{id}"));
        Ok(Place {
            id,
            host,
            port,
            controller_port,
            directory,
            log_dirs: &["data"],
            failing: Vec::new(),
            more: Vec::new(),
            binary: None,
            levels: &[],
        })
    };
    (1..=NODES).zip(ports.chunks(2)).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_all_voters_and_listens_where_they_look_for_it() {
        let places = places(Path::new("/d"), None).unwrap();
        let voters = voters(&places);
        for place in &places {
            let text = place.text(&voters);
            assert!(text.contains(&format!("node.id={}\n", place.id)));
            assert!(voters.contains(&format!("{}@127.0.0.1:{}", place.id, place.controller_port)));
            assert!(text.contains(&format!("CONTROLLER://127.0.0.1:{}\n", place.controller_port)));
        }
        assert_eq!(voters.split(',').count(), 3);
    }
}
