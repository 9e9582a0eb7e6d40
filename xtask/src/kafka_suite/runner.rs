//! One JVM that runs one test class, and asks us for brokers (shell).

use std::fs;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cluster::{Cluster, Started};
use super::fetch;
use super::outcome::Outcome;
use crate::kafka;
use crate::process::Process;

/// A test that has said nothing for so long is hung: its own limit is 120 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(200);

/// Of what nodes a test's cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Nodes {
    /// One, whatever the test declares.
    One,
    /// As many brokers as the test declares, each of them a controller.
    Combined,
    /// As many brokers and as many controllers as the test declares.
    Isolated,
}

/// Which tests of a class to run.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// With its package.
    pub(super) class: String,
    /// None means all.
    pub(super) methods: Vec<String>,
    /// On how many nodes.
    pub(super) nodes: Nodes,
    /// How long it takes on Apache Kafka, in seconds.
    pub(super) seconds: f64,
}

impl Unit {
    pub(super) fn simple_name(&self) -> &str {
        self.class.rsplit_once('.').map_or(&*self.class, |(_, name)| name)
    }

    pub(super) fn log_name(&self) -> String {
        let nodes = match self.nodes {
            Nodes::One => "",
            Nodes::Combined => "-combined",
            Nodes::Isolated => "-isolated",
        };
        format!("{}{nodes}.log", self.simple_name())
    }
}

/// Runs a class to its end, and sends every outcome as it comes.
pub(super) fn run(
    unit: &Unit,
    cluster: &mut Cluster,
    log: &Path,
    deadline: Instant,
    outcomes: &Sender<Outcome>,
) -> Result<()> {
    let mut process = start(unit, log)?;
    let mut current: Option<String> = None;
    loop {
        let line = process.next_line(deadline.min(Instant::now() + SILENCE_LIMIT));
        let Ok((_, line)) = line else {
            let test = current.unwrap_or_else(|| unit.simple_name().to_owned());
            let hung = Outcome::failed(test, "it did not end in time, or its JVM did");
            outcomes.send(hung).ok();
            break;
        };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message.get("ended").is_some() {
            break;
        }
        if let Some(test) = message.get("started").and_then(Value::as_str) {
            current = Some(test.to_owned());
        } else if message.get("do").is_some() {
            let answer = answer(&message, cluster)
                .unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
            process.write_line(&answer.to_string())?;
        } else {
            let outcome: Outcome =
                serde_json::from_value(message).with_context(|| format!("not a result: {line}"))?;
            outcomes.send(outcome).ok();
            current = None;
        }
    }
    cluster.stop();
    Ok(())
}

/// In the log's directory, where its temporary files go, too.
fn start(unit: &Unit, log: &Path) -> Result<Process> {
    let mut command = kafka::java_tools(&fetch::jars()?, &fetch::classes()?);
    let directory = log.parent().context("a log is in a directory")?;
    let temporary = directory.join("tmp");
    fs::create_dir_all(&temporary).context("no directory for temporary files")?;
    command.arg(format!("-Djava.io.tmpdir={}", temporary.display())).current_dir(directory);
    match unit.nodes {
        Nodes::One => command.arg("-Dsuite.one=true"),
        Nodes::Combined => &mut command,
        Nodes::Isolated => command.arg("-Dsuite.isolated=true"),
    };
    command.args(["suite.Runner", &unit.class]).args(&unit.methods);
    Process::spawn(unit.simple_name(), command, log)
}

/// Does what a test asks for.
fn answer(request: &Value, cluster: &mut Cluster) -> Result<Value> {
    match request.get("do").and_then(Value::as_str).unwrap_or_default() {
        "start" => {
            let wanted = serde_json::from_value(request.clone()).context("not understood")?;
            Ok(match cluster.start(&wanted)? {
                Started::At { bootstrap, controllers } => {
                    json!({ "bootstrap": bootstrap, "controllers": controllers })
                }
                Started::Impossible(reason) => json!({ "skip": reason }),
            })
        }
        "stop" => {
            cluster.stop();
            Ok(json!({}))
        }
        "stop-broker" => cluster.stop_broker(node(request)?).map(|()| json!({})),
        "kill-broker" => cluster.kill_broker(node(request)?).map(|()| json!({})),
        "start-broker" => {
            let own = request.get("properties").cloned().map(serde_json::from_value).transpose();
            let bootstrap = cluster.start_broker(node(request)?, own.context("not understood")?)?;
            Ok(json!({ "bootstrap": bootstrap }))
        }
        other => anyhow::bail!("unknown request {other:?}"),
    }
}

fn node(request: &Value) -> Result<u32> {
    let node = request.get("node").and_then(Value::as_u64).context("which node?")?;
    u32::try_from(node).context("no node has such an id")
}
