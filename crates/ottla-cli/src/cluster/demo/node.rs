//! One node of a demo as a process: how it is formatted, started, listened to and stopped.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::demo::layout::NodeFiles;
use crate::failure::{Exit, Failure, note};
use crate::output::printable;

/// What a node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It serves clients.
    Ready {
        node: u8,
    },
    Ended {
        node: u8,
        how: String,
    },
}

/// What a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    NotYet,
    Gently,
    AtOnce,
}

/// This program, to be run once more.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    /// `--set` of every node.
    set: Vec<OsString>,
}

impl Program {
    pub(super) fn this(set: &[String]) -> Result<Self, Failure> {
        let set = set.iter().flat_map(|pair| ["--set".into(), pair.into()]).collect();
        Ok(Self { path: std::env::current_exe()?, set })
    }

    /// A command that knows nothing of the properties in this process's environment: they are not those of all nodes.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(name).kill_on_drop(true).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("KAFKA_") {
                command.env_remove(variable);
            }
        }
        command
    }

    pub(super) async fn random_uuid(&self) -> Result<String, Failure> {
        self.done(self.command("random-uuid")).await
    }

    pub(super) async fn format(&self, node: &NodeFiles, cluster_id: &str) -> Result<(), Failure> {
        let mut command = self.command("format");
        command.arg("--config").arg(&node.config).args(&self.set);
        command.args(["--ignore-formatted", "--cluster-id", cluster_id]);
        self.done(command).await.map(drop)
    }

    async fn done(&self, mut command: Command) -> Result<String, Failure> {
        let output = command.output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim_end();
        Err(Failure::new(Exit::Failed, said.strip_prefix("error: ").unwrap_or(said)))
    }

    /// Starts a node. It is in a group of its own, so that Ctrl-C reaches this process alone.
    pub(super) fn serve(&self, node: &NodeFiles) -> Result<Child, Failure> {
        let mut command = self.command("serve");
        command.arg("--until-stdin-ends").arg("--config").arg(&node.config).args(&self.set);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.process_group(0).spawn()?)
    }
}

/// Passes on what a node says, until it has ended; stops it when asked.
pub(super) async fn run(
    node: u8,
    mut child: Child,
    mut stop: watch::Receiver<Stop>,
    events: mpsc::Sender<Event>,
) {
    let mut stdin = child.stdin.take();
    let mut readers = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        readers.spawn(read(node, stdout, Some(events.clone())));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.spawn(read(node, stderr, None));
    }
    let ended = tokio::select! {
        ended = child.wait() => ended,
        () = asked(&mut stop, Stop::Gently) => {
            drop(stdin.take());
            tokio::select! {
                ended = child.wait() => ended,
                () = asked(&mut stop, Stop::AtOnce) => {
                    drop(child.start_kill());
                    child.wait().await
                }
            }
        }
    };
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    while readers.join_next().await.is_some() {}
    // Nobody hears it while all nodes are being stopped.
    drop(events.send(Event::Ended { node, how }).await);
}

/// Returns when so much is asked, or whoever could ask is gone.
async fn asked(stop: &mut watch::Receiver<Stop>, so_much: Stop) {
    drop(stop.wait_for(|stop| *stop >= so_much).await);
}

/// Prints lines behind the node's name.
async fn read(node: u8, pipe: impl AsyncRead + Unpin, ready: Option<mpsc::Sender<Event>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        note(&format!("node {node} | {}", printable(&line)));
        if let Some(events) = &ready
            && line.contains(" ready in ")
        {
            drop(events.send(Event::Ready { node }).await);
        }
    }
}
