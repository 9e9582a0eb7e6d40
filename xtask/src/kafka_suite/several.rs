//! Several nodes, as one test wants them (shell).
//!
//! Ottla and Apache Kafka get the same properties files. There are as many brokers as a test declares, and no
//! more, since tests count them: either each is a controller, too, or the controllers are nodes of their own. Dropped, all
//! nodes are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cluster::{Properties, Wanted, copy};
use super::fetch;
use crate::broker::Target;
use crate::ports;
use crate::process::{Process, describe, run_ok};

/// Three of Apache Kafka's start at once, beside a second lane's three.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Tests count controllers that are no brokers from here on.
const FIRST_CONTROLLER: u32 = 3000;

/// What three nodes on a small machine need.
const DEFAULTS: &[(&str, &str)] = &[("log.cleaner.dedupe.buffer.size", "2097152")];
/// What only Ottla knows, and Apache Kafka would show to tests as unknown.
const OTTLA: &str = "ottla.http.listener=127.0.0.1:0";

#[derive(Debug)]
struct Node {
    id: u32,
    /// Where clients find it; None for a controller only.
    port: Option<u16>,
    /// Where other nodes find it as a controller, `HOST:PORT`; None for a broker only.
    controller: Option<String>,
    directory: PathBuf,
    process: Option<Process>,
    /// It has said so since its last start.
    is_ready: bool,
    starts: u32,
}

#[derive(Debug)]
pub(super) struct Nodes {
    target: Target,
    wanted: Wanted,
    voters: String,
    /// The lane's.
    directory: PathBuf,
    nodes: Vec<Node>,
}

impl Nodes {
    /// Starts them all, and waits until each says that it is ready.
    pub(super) fn start(target: Target, wanted: &Wanted, directory: &Path) -> Result<Self> {
        let brokers = &wanted.brokers;
        let controllers = FIRST_CONTROLLER..FIRST_CONTROLLER + wanted.controllers;
        let ids: Vec<u32> = brokers.iter().copied().chain(controllers).collect();
        let ports = ports::free(2 * ids.len())?;
        let is_controller = |id| wanted.controllers == 0 || !brokers.contains(&id);
        let node = |(id, ports): (u32, &[u16])| match *ports {
            [port, controller] => {
                let port = brokers.contains(&id).then_some(port);
                Some(Node::new(directory, id, port, is_controller(id).then_some(controller)))
            }
            _ => None,
        };
        let nodes: Option<Vec<Node>> = ids.into_iter().zip(ports.chunks(2)).map(node).collect();
        let mut cluster = Self {
            target,
            wanted: wanted.clone(),
            voters: String::new(),
            directory: directory.to_path_buf(),
            nodes: nodes.context("two ports each")?,
        };
        cluster.voters = cluster.voters();
        for node in &cluster.nodes {
            node.prepare(target, wanted, &cluster.voters, directory)?;
        }
        for node in &mut cluster.nodes {
            node.spawn(target)?;
        }
        for node in &mut cluster.nodes {
            node.await_ready(target)?;
        }
        Ok(cluster)
    }

    /// `0@127.0.0.1:20001,…`
    fn voters(&self) -> String {
        let voter = |node: &Node| Some(format!("{}@{}", node.id, node.controller.as_ref()?));
        self.nodes.iter().filter_map(voter).collect::<Vec<_>>().join(",")
    }

    pub(super) fn bootstrap(&self) -> String {
        let addresses = self.nodes.iter().filter_map(Node::address);
        addresses.collect::<Vec<_>>().join(",")
    }

    pub(super) fn controllers(&self) -> String {
        let addresses = self.nodes.iter().filter_map(|node| node.controller.clone());
        addresses.collect::<Vec<_>>().join(",")
    }

    fn node(&mut self, id: u32) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.with_context(|| format!("there is no node {id}"))
    }

    /// SIGTERM: leads nothing any more when it is gone.
    pub(super) fn stop(&mut self, id: u32) -> Result<()> {
        let target = self.target;
        let running = self.node(id)?.process.take().context("it is stopped already")?;
        let status = running.stop(STOP_LIMIT)?;
        ensure!(target.has_stopped_cleanly(status), "node {id} stopped with {}", describe(status));
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, id: u32) -> Result<()> {
        self.node(id)?.process.take().context("it is stopped already")?.kill()
    }

    /// On its old directory and ports, or as one more broker; gives where clients find it. With `own` properties, these are
    /// what it has beside the cluster's. Back when it is ready, unless it can't be before others are there, too: without
    /// a majority of the controllers none is.
    pub(super) fn start_again(&mut self, id: u32, own: Option<Properties>) -> Result<String> {
        if let Some(own) = own {
            self.configure(id, own)?;
        }
        let target = self.target;
        let node = self.node(id)?;
        ensure!(node.process.is_none(), "node {id} is running already");
        let address = node.address().unwrap_or_default();
        node.spawn(target)?;
        let voters = self.nodes.iter().filter(|node| node.controller.is_some());
        let (running, away): (Vec<_>, Vec<_>) = voters.partition(|node| node.process.is_some());
        if running.len() > away.len() {
            self.nodes.iter_mut().try_for_each(|node| node.await_ready(target))?;
        }
        Ok(address)
    }

    fn configure(&mut self, id: u32, own: Properties) -> Result<()> {
        self.wanted.servers.insert(id, own);
        if self.node(id).is_err() {
            let port = ports::free(1)?.into_iter().next();
            self.nodes.push(Node::new(&self.directory, id, port, None));
        }
        let Self { target, ref wanted, ref voters, ref directory, ref nodes } = *self;
        let node = nodes.iter().find(|node| node.id == id).context("it is there now")?;
        node.prepare(target, wanted, voters, directory)
    }
}

impl Node {
    fn new(lane: &Path, id: u32, port: Option<u16>, controller: Option<u16>) -> Self {
        Self {
            id,
            port,
            controller: controller.map(|port| format!("localhost:{port}")),
            directory: lane.join("broker").join(format!("node-{id}")),
            process: None,
            is_ready: false,
            starts: 0,
        }
    }

    /// A broker's, as the suite's own cluster names it, which some tests expect to see printed.
    fn address(&self) -> Option<String> {
        self.port.map(|port| format!("localhost:{port}"))
    }

    fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    /// Its own log directories, or as many as the test wants disks.
    fn data(&self, wanted: &Wanted) -> Vec<PathBuf> {
        let disk = |disk| self.directory.join(format!("data-{disk}"));
        wanted.log_dirs(self.id).unwrap_or_else(|| (0..wanted.disks.max(1)).map(disk).collect())
    }

    /// Writes its properties, and formats its log directories unless they are formatted.
    fn prepare(&self, target: Target, wanted: &Wanted, voters: &str, lane: &Path) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create {}", self.directory.display()))?;
        let text = self.text(target, wanted, voters);
        fs::write(self.properties(), text).context("cannot write server.properties")?;
        match target {
            _ if self.data(wanted).iter().all(|data| data.join("meta.properties").exists()) => {
                Ok(())
            }
            Target::Ottla => self.format(target, wanted),
            Target::Kafka => self.format_kafka(wanted, lane),
        }
    }

    fn text(&self, target: Target, wanted: &Wanted, voters: &str) -> String {
        let dirs: Vec<_> =
            self.data(wanted).iter().map(|data| data.display().to_string()).collect();
        let mut lines = vec![
            format!("node.id={}", self.id),
            format!("controller.quorum.voters={voters}"),
            format!("log.dirs={}", dirs.join(",")),
        ];
        lines.extend(self.role(&wanted.listener));
        lines.extend((target == Target::Ottla).then(|| OTTLA.to_owned()));
        lines.extend(wanted.lines_of(self.id, DEFAULTS));
        lines.join("\n") + "\n"
    }

    /// What it is, and where it listens.
    fn role(&self, listener: &str) -> Vec<String> {
        let (mut roles, mut listeners, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(port) = self.port {
            roles.push("broker");
            listeners.push(format!("{listener}://127.0.0.1:{port}"));
            lines.push(format!("advertised.listeners={listener}://localhost:{port}"));
        }
        if let Some(controller) = &self.controller {
            roles.push("controller");
            listeners.push(format!("CONTROLLER://{controller}"));
        }
        lines.push(format!("process.roles={}", roles.join(",")));
        lines.push(format!("listeners={}", listeners.join(",")));
        lines
    }

    fn format(&self, target: Target, wanted: &Wanted) -> Result<()> {
        let options = wanted.format_options();
        let command = fetch::program(target)?.format(&self.properties(), &options);
        let formatted = run_ok(command, b"", START_LIMIT);
        formatted.with_context(|| format!("{target}'s format failed")).map(drop)
    }

    /// Formatting takes a JVM; what it writes is the same for the same node, disks, version and features.
    fn format_kafka(&self, wanted: &Wanted, lane: &Path) -> Result<()> {
        let data = self.data(wanted);
        let options = wanted.format_options().concat();
        let template = lane.join(format!("formatted-node-{}-{}{options}", self.id, data.len()));
        if !template.exists() {
            self.format(Target::Kafka, wanted)?;
            for (disk, data) in data.iter().enumerate() {
                copy(data, &template.join(disk.to_string()))?;
            }
            return Ok(());
        }
        for (disk, data) in data.iter().enumerate() {
            copy(&template.join(disk.to_string()), data)?;
        }
        Ok(())
    }

    fn spawn(&mut self, target: Target) -> Result<()> {
        self.starts += 1;
        let log = self.directory.join(format!("output-{}.log", self.starts));
        let command = fetch::program(target)?.serve(&self.properties());
        self.process = Some(Process::spawn(&format!("node {}", self.id), command, &log)?);
        self.is_ready = false;
        Ok(())
    }

    /// At once for a node that is stopped.
    fn await_ready(&mut self, target: Target) -> Result<()> {
        if let Some(process) = self.process.as_mut().filter(|_| !self.is_ready) {
            let program = fetch::program(target)?;
            process.wait_for_line(START_LIMIT, |line| program.is_ready(line))?;
            self.is_ready = true;
        }
        Ok(())
    }
}
