//! `ottla cluster demo`: a cluster of real processes on this machine, for as long as the command runs.
//!
//! Each node is this program once more: `ottla format`, then `ottla serve --until-stdin-ends`. Its standard input is a
//! pipe whose other end only this process has: however this process ends, the pipe ends, and the node stops.
//!
//! The nodes' lines go to standard error behind the node's name. Standard output has what there is, once it is ready.

mod layout;
mod node;

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::connection::ConnectionArguments;
use crate::failure::{Exit, Failure, note};
use crate::output::{or_dash, print_json, print_line, table};
use layout::{Layout, NodeFiles};
use node::{Event, Program, Stop};

/// How long nodes may take to stop before they are killed; a node itself waits 4 s for its clients.
const STOP_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// How many nodes, each of them broker and controller
    #[arg(long, value_name = "COUNT", default_value = "3")]
    pub nodes: NonZeroU8,
    /// Where to keep configuration and data for the next time [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Set one property on all nodes, such as num.partitions=3
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Serialize)]
struct DemoJson<'a> {
    cluster_id: &'a str,
    bootstrap_servers: Vec<&'a str>,
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    id: u8,
    pid: Option<u32>,
    clients: &'a str,
    controllers: &'a str,
    config: &'a Path,
    data: &'a Path,
}

pub(super) async fn run(
    connection: &ConnectionArguments,
    arguments: &DemoArguments,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (_temporary, root) = match &arguments.data_dir {
        Some(root) => (None, root.clone()),
        None => {
            let temporary = tempfile::tempdir()?;
            let root = temporary.path().to_path_buf();
            (Some(temporary), root)
        }
    };
    let program = Program::this(&arguments.set)?;
    let layout = Layout::prepare(&root, arguments.nodes.get(), &program).await?;
    for node in &layout.nodes {
        program.format(node, &layout.cluster_id).await?;
    }
    let demo = Demo::start(layout, &program)?;
    demo.run(connection, &mut signals).await
}

/// The nodes, each in a task of its own.
struct Demo {
    layout: Layout,
    pids: Vec<Option<u32>>,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<Stop>,
}

impl Demo {
    fn start(layout: Layout, program: &Program) -> Result<Self, Failure> {
        let (sender, events) = mpsc::channel(64);
        let stop = watch::Sender::new(Stop::NotYet);
        let mut tasks = JoinSet::new();
        let mut pids = Vec::new();
        for node in &layout.nodes {
            let child = program.serve(node)?;
            pids.push(child.id());
            tasks.spawn(node::run(node.id, child, stop.subscribe(), sender.clone()));
        }
        Ok(Self { layout, pids, tasks, events, stop })
    }

    /// Returns when all nodes have stopped.
    async fn run(
        mut self,
        connection: &ConnectionArguments,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let started = self.wait_until_ready(connection, signals).await;
        let result = match started {
            Ok(true) => self.watch(signals).await,
            Ok(false) => Ok(()),
            Err(failure) => Err(failure),
        };
        self.stop(signals).await;
        result
    }

    /// Whether all nodes serve clients; not if a signal came first.
    async fn wait_until_ready(
        &mut self,
        connection: &ConnectionArguments,
        signals: &mut Signals,
    ) -> Result<bool, Failure> {
        let patience = tokio::time::sleep(connection.timeout);
        tokio::pin!(patience);
        let mut waiting: Vec<u8> = self.layout.nodes.iter().map(|node| node.id).collect();
        while !waiting.is_empty() {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Ready { node }) => waiting.retain(|id| *id != node),
                    Some(Event::Ended { node, how }) => {
                        let message = format!("node {node} did not start: {how}");
                        return Err(Failure::new(Exit::Failed, message));
                    }
                    None => return Err(Failure::new(Exit::Failed, "all nodes have ended")),
                },
                () = signals.next() => return Ok(false),
                () = &mut patience => {
                    let ids: Vec<String> = waiting.iter().map(u8::to_string).collect();
                    let message = format!("not ready in time: nodes {}", ids.join(", "));
                    return Err(Failure::new(Exit::Unreachable, message));
                }
            }
        }
        self.announce(connection.wants_json())?;
        Ok(true)
    }

    /// Goes on, whatever happens to single nodes, until a signal or the end of the last one.
    async fn watch(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let mut running = self.layout.nodes.len();
        while running > 0 {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Ended { node, how }) => {
                        running -= 1;
                        note(&format!("node {node} has ended: {how}"));
                    }
                    Some(Event::Ready { .. }) => {}
                    None => break,
                },
                () = signals.next() => return Ok(()),
            }
        }
        Err(Failure::new(Exit::Failed, "all nodes have ended"))
    }

    /// Asks all nodes to stop; a second signal, or impatience, kills them.
    async fn stop(mut self, signals: &mut Signals) {
        self.stop.send_replace(Stop::Gently);
        // Nobody reads them any more, and nobody must wait for that.
        self.events.close();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all_ended => return,
            () = signals.next() => note("killing the nodes, as a second signal asked"),
            () = tokio::time::sleep(STOP_MAX) => note("killing nodes that do not stop"),
        }
        self.stop.send_replace(Stop::AtOnce);
        while self.tasks.join_next().await.is_some() {}
    }

    fn announce(&self, as_json: bool) -> Result<(), Failure> {
        let nodes: Vec<(&NodeFiles, Option<u32>)> =
            self.layout.nodes.iter().zip(self.pids.iter().copied()).collect();
        let servers: Vec<&str> = nodes.iter().map(|(node, _)| node.clients.as_str()).collect();
        if as_json {
            return print_json(&DemoJson {
                cluster_id: &self.layout.cluster_id,
                bootstrap_servers: servers,
                nodes: nodes.into_iter().map(|(node, pid)| json(node, pid)).collect(),
            });
        }
        let rows = nodes.iter().map(|(node, pid)| {
            [
                node.id.to_string(),
                node.clients.clone(),
                node.controllers.clone(),
                or_dash(*pid),
                node.config.display().to_string(),
                node.data.display().to_string(),
            ]
        });
        let head = ["NODE", "CLIENTS", "CONTROLLERS", "PID", "CONFIGURATION", "DATA"];
        print_line(&format!(
            "Cluster {} is ready, bootstrap servers {}\n\n{}\n\nCtrl-C stops it.",
            self.layout.cluster_id,
            servers.join(","),
            table(head, rows.collect())
        ))
    }
}

fn json(node: &NodeFiles, pid: Option<u32>) -> NodeJson<'_> {
    NodeJson {
        id: node.id,
        pid,
        clients: &node.clients,
        controllers: &node.controllers,
        config: &node.config,
        data: &node.data,
    }
}

/// The ways to ask this command to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
