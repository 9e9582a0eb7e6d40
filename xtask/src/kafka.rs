//! Starts Apache Kafka itself: one process, broker and controller, formatted on first use (shell).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::broker::{Launch, Launched, free_port};
use crate::process::{Process, run_ok};
use crate::program::Program;
use crate::{interop, workspace};

const CLUSTER_ID: &str = "Interop-Cluster-Id-000";
const FORMAT_LIMIT: Duration = Duration::from_secs(60);

/// Heap of a broker that tests start. Override with `OTTLA_KAFKA_HEAP` (Kafka's own is 1g).
const HEAP: &str = "512m";

/// What a cluster of one needs so that its internal topics can exist at all.
const SINGLE_NODE: &[(&str, &str)] = &[
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
];

/// Starts a broker and waits until it says that it is ready.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Launched> {
    let program = program()?;
    let properties = launch.directory.join("server.properties");
    let address = match launch.address {
        Some(address) => address.to_owned(),
        None => format(launch, &program, &properties)?,
    };
    let command = program.serve(&properties);
    let mut process = Process::spawn("Apache Kafka", command, launch.log)?;
    let is_ready = |line: &str| program.is_ready(line);
    let (_, ready_after) = process.wait_for_line(launch.limit, is_ready)?;
    Ok(Launched { process, address, ready_after })
}

/// The broker's Java command: Kafka's jars and its start script's collector settings.
pub(crate) fn java(jars: &Path, heap: &str) -> Command {
    let mut command = java_with_logging("SYSTEM_OUT");
    command
        .arg(format!("-Xmx{heap}"))
        .args(["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"])
        .args(["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"])
        .arg("-cp")
        .arg(jars.join("*"));
    command
}

/// A Java command for tools and clients: starts fast, logs to standard error.
pub(crate) fn java_tools(jars: &Path, classes: &Path) -> Command {
    let mut path = classes.as_os_str().to_owned();
    path.push(":");
    path.push(jars.join("*"));
    let mut command = java_with_logging("SYSTEM_ERR");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command.arg("-cp").arg(path);
    command
}

fn java_with_logging(target: &str) -> Command {
    let logging = workspace::root().join("interop/java/log4j2.properties");
    let mut command = Command::new("java");
    command
        .arg("-Djava.awt.headless=true")
        .arg(format!("-Dlog.target={target}"))
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    command
}

/// Who says how large the heap is wants it whole from the start, as Kafka's own script does.
fn program() -> Result<Program> {
    let jars = interop::fetch::kafka_jars()?;
    let heap = std::env::var("OTTLA_KAFKA_HEAP").ok();
    let options = heap.iter().map(|heap| format!("-Xms{heap}")).collect();
    Ok(Program::Kafka { jars, heap: heap.unwrap_or_else(|| HEAP.to_owned()), options })
}

/// Writes the configuration, formats the directory; gives the address to listen on.
fn format(launch: &Launch<'_>, program: &Program, properties: &Path) -> Result<String> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let controller = format!("127.0.0.1:{}", free_port()?);
    let text = server_properties(launch, &address, &controller);
    std::fs::write(properties, text)
        .with_context(|| format!("cannot write {}", properties.display()))?;
    if !launch.data_directory.join("meta.properties").exists() {
        let options = ["--standalone", "--ignore-formatted", "--cluster-id", CLUSTER_ID];
        let command = program.format(properties, &options);
        run_ok(command, b"", FORMAT_LIMIT).context("Apache Kafka's format failed")?;
    }
    Ok(address)
}

fn server_properties(launch: &Launch<'_>, address: &str, controller: &str) -> String {
    let data: PathBuf = launch.data_directory.to_path_buf();
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("listeners=PLAINTEXT://{address},CONTROLLER://{controller}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("controller.quorum.bootstrap.servers={controller}"),
        format!("log.dirs={}", data.display()),
    ];
    lines.extend(SINGLE_NODE.iter().map(|(name, value)| format!("{name}={value}")));
    lines.extend(launch.settings.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n") + "\n"
}
