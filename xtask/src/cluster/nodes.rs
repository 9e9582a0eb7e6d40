//! The nodes of a cluster as processes: started, killed, paused, stopped, started again (shell).
//!
//! Nothing is waited for by sleeping a guessed time: whoever waits asks the nodes again and again, and gives up after a
//! limit with what they wrote last. Dropped, all nodes are killed; they also die with the thread that started them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::ask::{self, View};
use super::files::{self, Place};
use super::network::Network;
use super::volume::Volume;
use super::{NODES, SETTLE_LIMIT};
use crate::broker::Target;
use crate::process::{Process, describe, tail};

const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Between two questions to the same nodes.
const PAUSE: Duration = Duration::from_millis(20);
/// So much of each node's output is shown when something fails.
const LINES_SHOWN: usize = 25;

#[derive(Debug)]
enum State {
    Running(Process),
    /// SIGSTOP: it is there, and silent.
    Paused(Process),
    Away,
}

#[derive(Debug)]
struct Node {
    place: Place,
    state: State,
    starts: u32,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    target: Target,
    nodes: Vec<Node>,
    /// These two go last: what is on them must be gone by then.
    volumes: BTreeMap<i32, Volume>,
    pub(super) network: Option<Network>,
}

/// What a cluster stands on: loopback and a common disk, or something that can fail.
#[derive(Debug, Clone, Default)]
pub(super) struct Ground {
    pub(super) network: bool,
    /// The size of each node's own file system, in MiB.
    pub(super) volume_mebibytes: Option<u32>,
    /// The build of Ottla that the nodes begin with, if not the one under test.
    pub(super) binary: Option<PathBuf>,
    /// Levels of features other than those of a new cluster, as `NAME=LEVEL`.
    pub(super) levels: &'static [&'static str],
    /// The names of each node's log directories, if there are several; the metadata is in the first.
    pub(super) log_dirs: Option<&'static [&'static str]>,
    /// A node, and files below its disk whose flushes fail.
    pub(super) failing: Option<(i32, &'static [&'static str])>,
}

/// Properties as [`Cluster::start_with`] takes them.
pub(super) fn properties(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Cluster {
    /// Starts a new cluster, and waits until all of it is there.
    pub(crate) fn start(target: Target, directory: &Path) -> Result<Self> {
        Self::start_with(target, directory, |_| Vec::new())
    }

    /// The same, where each node is configured with more. A property that is said twice is what it is said last.
    pub(crate) fn start_with(
        target: Target,
        directory: &Path,
        more: impl Fn(i32) -> Vec<(String, String)>,
    ) -> Result<Self> {
        Self::begin(target, directory, &Ground::default(), more)
    }

    /// The same at other levels of features than those of a new cluster, as `NAME=LEVEL`.
    pub(crate) fn start_at(
        levels: &'static [&'static str],
        target: Target,
        directory: &Path,
        more: impl Fn(i32) -> Vec<(String, String)>,
    ) -> Result<Self> {
        Self::begin(target, directory, &Ground { levels, ..Ground::default() }, more)
    }

    /// The same, on ground that can fail.
    pub(super) fn start_on(target: Target, directory: &Path, ground: &Ground) -> Result<Self> {
        Self::begin(target, directory, ground, |_| Vec::new())
    }

    fn begin(
        target: Target,
        directory: &Path,
        ground: &Ground,
        more: impl Fn(i32) -> Vec<(String, String)>,
    ) -> Result<Self> {
        let ids: Vec<i32> = (1..=NODES).collect();
        let network = ground.network.then(|| Network::start(&ids)).transpose()?;
        let mut places = files::places(directory, network.as_ref())?;
        for place in &mut places {
            place.binary.clone_from(&ground.binary);
            place.levels = ground.levels;
            place.log_dirs = ground.log_dirs.unwrap_or(place.log_dirs);
            if let Some((_, files)) = ground.failing.filter(|(id, _)| *id == place.id) {
                place.failing = files.iter().map(|file| place.disk().join(file)).collect();
            }
            place.more = more(place.id);
        }
        let voters = files::voters(&places);
        let mut volumes = BTreeMap::new();
        for place in &places {
            if let Some(mebibytes) = ground.volume_mebibytes {
                volumes.insert(place.id, Volume::mount(&place.disk(), mebibytes)?);
            }
            place.prepare(target, &voters)?;
        }
        let node = |place| Node { place, state: State::Away, starts: 0 };
        let nodes = places.into_iter().map(node).collect();
        let mut cluster = Self { target, nodes, volumes, network };
        for id in cluster.ids() {
            cluster.restart(id)?;
        }
        cluster.await_whole(None)?;
        Ok(cluster)
    }

    /// Whether all nodes are there and not paused.
    pub(crate) fn is_running(&mut self) -> bool {
        self.answering().len() == self.nodes.len() && self.check_running().is_ok()
    }

    /// The nodes that are not there, and those that have ended by themselves.
    pub(crate) fn away(&mut self) -> Vec<i32> {
        for node in &mut self.nodes {
            node.note_end();
        }
        let away = self.nodes.iter().filter(|node| matches!(node.state, State::Away));
        away.map(|node| node.place.id).collect()
    }

    /// Of each node, by its number: where controllers find it.
    pub(crate) fn controller_ports(&self) -> Vec<(i32, u16)> {
        self.nodes.iter().map(|node| (node.place.id, node.place.controller_port)).collect()
    }

    pub(crate) fn ids(&self) -> Vec<i32> {
        self.nodes.iter().map(|node| node.place.id).collect()
    }

    /// The two others of three nodes.
    pub(super) fn beside(&self, node: i32) -> Result<[i32; 2]> {
        let others: Vec<i32> = self.ids().into_iter().filter(|id| *id != node).collect();
        let [one, other] = *others else { bail!("three nodes, of which {others:?}") };
        Ok([one, other])
    }

    /// What clients are told: all nodes, whether they are there or not.
    pub(crate) fn bootstrap(&self) -> String {
        self.addresses().join(",")
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.address()).collect()
    }

    pub(crate) fn address_of(&self, id: i32) -> Result<String> {
        Ok(self.place(id)?.address())
    }

    /// Those that run, by node.
    pub(super) fn processes(&self) -> Vec<(i32, u32)> {
        let process = |node: &Node| match &node.state {
            State::Running(process) => Some((node.place.id, process.pid())),
            State::Paused(_) | State::Away => None,
        };
        self.nodes.iter().filter_map(process).collect()
    }

    /// The log directories, by node.
    pub(crate) fn data_directories(&self) -> Vec<(i32, Vec<PathBuf>)> {
        self.nodes.iter().map(|node| (node.place.id, node.place.data())).collect()
    }

    /// Those that run and are not paused.
    fn answering(&self) -> Vec<&Node> {
        self.nodes.iter().filter(|node| matches!(node.state, State::Running(_))).collect()
    }

    /// A node's disk works from its next start on.
    pub(super) fn mend(&mut self, id: i32) -> Result<()> {
        self.node(id)?.place.failing.clear();
        Ok(())
    }

    /// The build that a node is started with from now on.
    pub(super) fn set_binary(&mut self, id: i32, binary: &Path) -> Result<()> {
        self.node(id)?.place.binary = Some(binary.to_path_buf());
        Ok(())
    }

    fn place(&self, id: i32) -> Result<&Place> {
        let node = self.nodes.iter().find(|node| node.place.id == id);
        Ok(&node.with_context(|| format!("there is no node {id}"))?.place)
    }

    fn node(&mut self, id: i32) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.place.id == id);
        node.with_context(|| format!("there is no node {id}"))
    }

    /// Starts a node that is away on what its directory holds; does not wait until it is ready.
    pub(crate) fn restart(&mut self, id: i32) -> Result<()> {
        let Self { target, nodes, network, .. } = self;
        let (target, network) = (*target, network.as_ref());
        let node = nodes.iter_mut().find(|node| node.place.id == id);
        let node = node.with_context(|| format!("there is no node {id}"))?;
        ensure!(matches!(node.state, State::Away), "node {id} is there already");
        node.starts += 1;
        let command = node.place.command(target)?;
        let command = match network {
            Some(network) => network.enter(id, &command),
            None => command,
        };
        node.state = State::Running(Process::spawn(&node.name(), command, &node.log())?);
        Ok(())
    }

    /// SIGKILL; the process is gone when this returns.
    pub(crate) fn kill9(&mut self, id: i32) -> Result<()> {
        self.node(id)?.take_running()?.kill()
    }

    /// SIGTERM; must stop cleanly.
    pub(crate) fn stop(&mut self, id: i32) -> Result<()> {
        let target = self.target;
        let status = self.node(id)?.take_running()?.stop(STOP_LIMIT)?;
        ensure!(target.has_stopped_cleanly(status), "node {id} stopped with {}", describe(status));
        Ok(())
    }

    /// SIGSTOP: connections stay open, and nothing is answered.
    pub(super) fn pause(&mut self, id: i32) -> Result<()> {
        let node = self.node(id)?;
        let process = node.take_running()?;
        process.send(Signal::STOP);
        node.state = State::Paused(process);
        Ok(())
    }

    /// SIGCONT: goes on, believing that no time has passed.
    pub(super) fn resume(&mut self, id: i32) -> Result<()> {
        let node = self.node(id)?;
        match std::mem::replace(&mut node.state, State::Away) {
            State::Paused(process) => {
                process.send(Signal::CONT);
                node.state = State::Running(process);
                Ok(())
            }
            State::Running(_) | State::Away => bail!("node {id} is not paused"),
        }
    }

    /// The disk of a node that has one of its own.
    pub(super) fn volume(&self, id: i32) -> Result<&Volume> {
        self.volumes.get(&id).with_context(|| format!("node {id} has no disk of its own"))
    }

    /// The network that the cluster was started on.
    pub(super) fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("the nodes have no network of their own")
    }

    /// Whether a node has ended by itself; if so, it is away from now on.
    pub(super) fn has_ended(&mut self, id: i32) -> Result<bool> {
        Ok(self.node(id)?.note_end())
    }

    /// Waits until `found` gives a value. What fails meanwhile is tried again: nodes are away on purpose.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.check_running()?;
            let tried = found(self);
            if let Ok(Some(value)) = tried {
                return Ok(value);
            }
            if Instant::now() > deadline {
                let why = tried.err().map_or_else(String::new, |error| format!(" ({error:#})"));
                return Err(self.failure(&format!("{what}: not within {limit:?}{why}")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// An error if a node ended that nobody has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        let gone = self.nodes.iter_mut().find_map(|node| node.has_ended().then(|| node.name()));
        match gone {
            Some(name) => Err(self.failure(&format!("{name} has ended by itself"))),
            None => Ok(()),
        }
    }

    /// Does something with the cluster; an error tells what the nodes wrote last, too.
    pub(super) fn explaining<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        work(self).map_err(|error| self.failure(&format!("{error:#}")))
    }

    /// An error, and what the nodes wrote last.
    pub(crate) fn failure(&self, what: &str) -> anyhow::Error {
        let mut text = what.to_owned();
        for node in &self.nodes {
            let state = match node.state {
                State::Running(_) => "running",
                State::Paused(_) => "paused",
                State::Away => "away",
            };
            let log = node.log();
            text += &format!("\n-- {} ({state}), {}:\n", node.name(), log.display());
            text += &tail(&log, LINES_SHOWN);
        }
        anyhow!(text)
    }

    /// Makes a topic with as many replicas as the cluster's default says, and waits until all of them are in sync.
    pub(super) fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<()> {
        self.create(topic, |address| ask::create_topic(address, topic, partitions))
    }

    /// The same with the replicas where `assignments` says, the preferred leader first.
    pub(crate) fn create_assigned(&mut self, topic: &str, assignments: &[Vec<i32>]) -> Result<()> {
        self.create(topic, |address| ask::create_assigned(address, topic, assignments))
    }

    /// By whichever node takes the request.
    fn create(&mut self, topic: &str, create: impl Fn(&str) -> Result<()>) -> Result<()> {
        self.until("a topic made", SETTLE_LIMIT, |cluster| cluster.first(&create).map(Some))?;
        self.await_whole(Some(topic))
    }

    /// Waits until every node says that all of them are there, and that every replica of the topic is in its ISR.
    pub(crate) fn await_whole(&mut self, topic: Option<&str>) -> Result<()> {
        let count = self.nodes.len();
        self.until("all nodes there and in every ISR", SETTLE_LIMIT, |cluster| {
            for node in cluster.answering() {
                if !ask::view(&node.place.address(), topic)?.is_whole(count) {
                    return Ok(None);
                }
            }
            Ok((cluster.answering().len() == count).then_some(()))
        })
    }

    /// The process of a node that runs.
    pub(crate) fn pid(&self, id: i32) -> Result<u32> {
        let node = self.nodes.iter().find(|node| node.place.id == id);
        match node.map(|node| &node.state) {
            Some(State::Running(process) | State::Paused(process)) => Ok(process.pid()),
            Some(State::Away) | None => bail!("node {id} is away"),
        }
    }

    pub(super) fn controller_port(&self, id: i32) -> Result<u16> {
        Ok(self.place(id)?.controller_port)
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Waits until some other node says that a node is fenced which may be unreachable, or the last to hear of it.
    pub(super) fn await_fenced_by_others(&mut self, id: i32) -> Result<()> {
        self.until(&format!("node {id} fenced"), SETTLE_LIMIT, |cluster| {
            let others = cluster.answering().into_iter().filter(|node| node.place.id != id);
            let told = others.filter_map(|node| ask::unfenced(&node.place.address()).ok());
            Ok(told.into_iter().any(|unfenced| !unfenced.contains(&id)).then_some(()))
        })
    }

    /// Waits until all nodes are there and say that every partition is led.
    pub(crate) fn await_led(&mut self) -> Result<()> {
        self.await_whole(None)?;
        self.until("a leader of every partition", SETTLE_LIMIT, |cluster| {
            for address in cluster.addresses() {
                if !ask::are_all_led(&address)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Waits until the others say that a node is fenced.
    pub(crate) fn await_fenced(&mut self, id: i32) -> Result<()> {
        self.until(&format!("node {id} fenced"), SETTLE_LIMIT, |cluster| {
            // Metadata may name one that hung up for a while longer.
            Ok((!cluster.first(ask::unfenced)?.contains(&id)).then_some(()))
        })
    }

    /// Waits until the preferred replica of every partition leads it, which it has been asked to do.
    pub(crate) fn await_preferred(&mut self, topic: &str) -> Result<()> {
        self.until("the preferred leaders", SETTLE_LIMIT, |cluster| {
            let view = cluster.view(Some(topic))?;
            if view.is_preferred() {
                return Ok(Some(()));
            }
            let partitions: Vec<i32> = view.partitions.into_keys().collect();
            cluster.first(|address| ask::elect_preferred(address, topic, &partitions))?;
            Ok(None)
        })
    }

    /// What the first node that answers believes.
    pub(crate) fn view(&self, topic: Option<&str>) -> Result<View> {
        self.first(|address| ask::view(address, topic))
    }

    /// Who leads a partition, once somebody does who is there.
    pub(super) fn leader(&mut self, topic: &str, partition: i32) -> Result<i32> {
        self.until(&format!("a leader of {topic}-{partition}"), SETTLE_LIMIT, |cluster| {
            let view = cluster.view(Some(topic))?;
            let leader = view.partitions.get(&partition).and_then(|it| it.leader);
            Ok(leader.filter(|id| cluster.is_answering(*id)))
        })
    }

    pub(crate) fn controller(&mut self) -> Result<i32> {
        self.until("an active controller", SETTLE_LIMIT, |cluster| {
            let id = cluster.first(ask::active_controller)?;
            Ok(Some(id).filter(|id| cluster.is_answering(*id)))
        })
    }

    pub(super) fn coordinator(&mut self, group: &str) -> Result<i32> {
        self.until(&format!("a coordinator of {group}"), SETTLE_LIMIT, |cluster| {
            let id = cluster.first(|address| ask::coordinator(address, group))?;
            Ok(Some(id).filter(|id| cluster.is_answering(*id)))
        })
    }

    fn is_answering(&self, id: i32) -> bool {
        self.answering().iter().any(|node| node.place.id == id)
    }

    /// The first answer that is no error; the nodes in turn.
    pub(crate) fn first<T>(&self, ask: impl Fn(&str) -> Result<T>) -> Result<T> {
        let mut latest = anyhow!("no node is running");
        for node in self.answering() {
            match ask(&node.place.address()) {
                Ok(answer) => return Ok(answer),
                Err(error) => latest = error.context(node.name()),
            }
        }
        Err(latest)
    }
}

impl Node {
    fn name(&self) -> String {
        format!("node {}", self.place.id)
    }

    /// Whether its process has ended by itself.
    fn has_ended(&mut self) -> bool {
        match &mut self.state {
            State::Running(process) => !process.is_running(),
            State::Paused(_) | State::Away => false,
        }
    }

    /// The same; if so, it is away from now on.
    fn note_end(&mut self) -> bool {
        let has_ended = self.has_ended();
        if has_ended {
            self.state = State::Away;
        }
        has_ended
    }

    /// What it writes, a file for each start.
    fn log(&self) -> PathBuf {
        self.place.directory.join(format!("output-{}.log", self.starts))
    }

    fn take_running(&mut self) -> Result<Process> {
        match std::mem::replace(&mut self.state, State::Away) {
            State::Running(process) => Ok(process),
            other => {
                self.state = other;
                bail!("{} is not running", self.name())
            }
        }
    }
}
