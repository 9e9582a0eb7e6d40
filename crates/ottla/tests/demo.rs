//! `ottla cluster demo`: real processes, which are gone when it is, however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn ottla() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ottla"))
}

/// A demo that is ready, and what it said it is.
struct Demo {
    process: Child,
    is: Value,
}

impl Demo {
    fn start(nodes: u8, data: &Path) -> Self {
        let mut process = demo(nodes, data).stdout(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        for line in lines {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let is = serde_json::from_str(&text).unwrap_or_else(|_| panic!("it is not ready: {text}"));
        Self { process, is }
    }

    fn cluster_id(&self) -> &str {
        self.is["cluster_id"].as_str().unwrap()
    }

    fn clients(&self, node: usize) -> String {
        self.is["nodes"][node]["clients"].as_str().unwrap().to_owned()
    }

    fn bootstrap(&self) -> String {
        let servers = self.is["bootstrap_servers"].as_array().unwrap();
        servers.iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join(",")
    }

    fn pid(&self, node: usize) -> Pid {
        let pid = self.is["nodes"][node]["pid"].as_i64().unwrap();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = ottla();
        command.args(arguments).args(["--bootstrap", &self.bootstrap(), "--timeout", "60s"]);
        command
    }
}

/// A test that fails leaves nothing behind.
impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn demo(nodes: u8, data: &Path) -> Command {
    let mut command = ottla();
    command.args(["cluster", "demo", "-o", "json", "--timeout", "60s", "--nodes"]);
    command.arg(nodes.to_string()).arg("--data-dir").arg(data);
    command.stdin(Stdio::null());
    command
}

/// Waits until no process holds a node's data directory any more.
fn wait_until_free(directory: &Path) {
    let lock = File::open(directory.join(".lock")).unwrap();
    let (free, is_free) = mpsc::channel();
    std::thread::spawn(move || free.send(lock.lock()));
    is_free.recv_timeout(LIMIT).expect("the node goes on").unwrap();
}

fn succeed(command: &mut Command) -> Output {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

#[test]
fn a_signal_stops_the_nodes_cleanly_and_the_next_demo_goes_on_with_them() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Demo::start(1, data.path());
    TcpStream::connect(first.clients(0)).unwrap();
    assert!(first.end(Signal::INT).success());
    assert!(test_kill_process(first.pid(0)).is_err(), "the node is left");
    assert!(data.path().join("node-1/.kafka_cleanshutdown").exists());
    let mut again = Demo::start(1, data.path());
    assert_eq!(
        (again.cluster_id(), again.clients(0)),
        (first.cluster_id(), first.clients(0)),
        "clients find it where it was"
    );
    assert!(again.end(Signal::TERM).success());
    assert!(test_kill_process(again.pid(0)).is_err(), "the node is left");
}

#[test]
fn a_demo_that_is_killed_takes_its_nodes_with_it() {
    let data = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(1, data.path());
    assert!(!demo.end(Signal::KILL).success());
    let node = data.path().join("node-1");
    wait_until_free(&node);
    assert!(node.join(".kafka_cleanshutdown").exists(), "it has stopped by itself");
}

#[test]
fn a_node_that_does_not_start_ends_the_demo_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Demo::start(1, data.path());
    let clients = first.clients(0);
    first.end(Signal::INT);
    let _taken = TcpListener::bind(&clients).unwrap();
    let output = demo(1, data.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("node 1 did not start: exit status: 1"), "{said}");
    assert!(
        said.contains(&format!("node 1 | ottla: can't listen on PLAINTEXT://{clients}")),
        "{said}"
    );
    wait_until_free(&data.path().join("node-1"));
}

#[test]
fn a_configuration_that_cannot_be_starts_nothing() {
    let data = tempfile::tempdir().unwrap();
    let output = demo(3, data.path()).args(["--set", "num.partitions=0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("num.partitions=0 is not allowed"), "{said}");
    assert!(!data.path().join("node-1").exists());
}

#[test]
fn three_nodes_are_a_cluster_that_outlives_the_death_of_one() {
    let data = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(3, data.path());
    let info = succeed(&mut demo.client(&["cluster", "info", "-o", "json"]));
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["cluster_id"].as_str(), Some(demo.cluster_id()));
    let brokers = info["brokers"].as_array().unwrap();
    assert_eq!(brokers.len(), 3, "{info}");
    assert!(brokers.iter().all(|broker| broker["fenced"] == false), "{info}");
    succeed(&mut demo.client(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "3",
        "--replication-factor",
        "3",
    ]));
    produce(&demo, "before 1\nbefore 2\n");
    kill_process(demo.pid(1), Signal::KILL).unwrap();
    wait_until_free(&data.path().join("node-2"));
    produce(&demo, "after 1\nafter 2\n");
    let consumed = succeed(&mut demo.client(&["consume", "orders", "--until-end"]));
    let consumed = String::from_utf8(consumed.stdout).unwrap();
    let mut lines: Vec<&str> = consumed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["after 1", "after 2", "before 1", "before 2"]);
    assert!(demo.end(Signal::INT).success());
    for node in 0..3 {
        assert!(test_kill_process(demo.pid(node)).is_err(), "node {node} is left");
    }
}

fn produce(demo: &Demo, lines: &str) {
    let mut command = demo.client(&["produce", "orders"]);
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(process.wait().unwrap().success());
}
