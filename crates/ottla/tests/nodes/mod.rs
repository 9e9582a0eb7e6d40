//! Nodes as real processes on loopback, each with a configuration file and a data directory of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ottla_client::{Address, Connection, Limits, Speaker};
use ottla_protocol::Request;
use ottla_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState};
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::metadata_response::MetadataResponseTopic;
use ottla_protocol::messages::{
    DescribeQuorumRequest, ListOffsetsRequest, MetadataRequest, describe_quorum_request,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No test waits longer for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn ottla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.stdin(Stdio::null());
    command
}

pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A running node. Dropped, it is killed.
pub struct Running {
    process: Child,
    out: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Running {
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let log_file = File::options().create(true).append(true).open(&log).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(log_file).spawn().unwrap();
        let (line, out) = mpsc::channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|it| line.send(it)).ok()
        });
        Self { process, out, log }
    }

    /// The line that says that it is ready.
    pub fn ready(&self) -> String {
        self.out.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("not ready:\n{}", self.log()))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has this.
    pub fn says(&self, what: &str) {
        let said = wait_for(|| self.log().contains(what));
        assert!(said, "it never says {what}:\n{}", self.log());
    }

    /// From here on Linux counts the peak of its memory anew.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
    }

    /// A line of its memory, `VmRSS` or `VmHWM`, in MiB.
    pub fn memory_mib(&self, name: &str) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> (i32, String) {
        let mut status = None;
        let ended = wait_for(|| {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "it goes on:\n{}", self.log());
        (status.unwrap().code().unwrap_or(-1), self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Asks again and again until it is so. Whether it ever was.
pub fn wait_for(mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if is_so() {
            return true;
        }
        // Between two looks at a file or a process: nobody tells when those change.
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// The files and addresses of some nodes; node ids count from 1.
pub struct Nodes {
    pub root: TempDir,
    pub clients: Vec<String>,
    pub controllers: Vec<String>,
    pub running: BTreeMap<usize, Running>,
    pub controllers_only: BTreeSet<usize>,
}

impl Nodes {
    /// Nothing is written and started yet.
    pub fn new(count: usize) -> Self {
        let sockets: Vec<_> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            sockets.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
        let (clients, controllers) = addresses.split_at(count);
        Self {
            root: tempfile::tempdir().unwrap(),
            clients: clients.to_vec(),
            controllers: controllers.to_vec(),
            running: BTreeMap::new(),
            controllers_only: BTreeSet::new(),
        }
    }

    /// `controller.quorum.voters` for the first of them.
    pub fn voters(&self, count: usize) -> String {
        let voter = |(at, address): (usize, &String)| format!("{}@{address}", at + 1);
        let voters: Vec<_> = self.controllers.iter().take(count).enumerate().map(voter).collect();
        format!("controller.quorum.voters={}", voters.join(","))
    }

    /// `controller.quorum.bootstrap.servers` for the first of them.
    pub fn servers(&self, count: usize) -> String {
        format!("controller.quorum.bootstrap.servers={}", self.controllers[..count].join(","))
    }

    pub fn data(&self, id: usize) -> PathBuf {
        self.root.path().join(format!("node-{id}"))
    }

    fn file(&self, id: usize) -> PathBuf {
        self.root.path().join(format!("node-{id}.properties"))
    }

    /// Writes the configuration of a node with these roles.
    pub fn write(&mut self, id: usize, roles: &str, properties: &[&str]) {
        if roles == "controller" {
            self.controllers_only.insert(id);
        }
        let clients = format!("PLAINTEXT://{}", self.clients[id - 1]);
        let controllers = format!("CONTROLLER://{}", self.controllers[id - 1]);
        let listeners = match roles {
            "broker" => clients,
            "controller" => controllers,
            _ => format!("{clients},{controllers}"),
        };
        let mut lines = vec![
            format!("process.roles={roles}"),
            format!("node.id={id}"),
            format!("listeners={listeners}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("log.dirs={}", self.data(id).display()),
            "ottla.http.listener=127.0.0.1:0".to_owned(),
        ];
        lines.extend(properties.iter().map(|&it| it.to_owned()));
        std::fs::write(self.file(id), lines.join("\n")).unwrap();
    }

    pub fn format(&self, id: usize, arguments: &[&str]) -> Ended {
        let mut command = ottla();
        command.args(["format", "--config"]).arg(self.file(id)).args(arguments);
        command.output().unwrap().into()
    }

    pub fn start(&mut self, id: usize) {
        let log = self.root.path().join(format!("node-{id}.log"));
        let mut command = ottla();
        command.args(["serve", "--config"]).arg(self.file(id));
        self.running.insert(id, Running::start(&mut command, log));
    }

    /// Starts a node without a file, at its address for clients, with these options.
    pub fn serve(&mut self, id: usize, options: &[&str]) {
        let address = self.clients[id - 1].clone();
        self.serve_with(id, &[&["--listen", &address], options].concat());
    }

    /// Starts a node without a file, with these options.
    pub fn serve_with(&mut self, id: usize, options: &[&str]) {
        let log = self.root.path().join(format!("node-{id}.log"));
        let mut command = ottla();
        command.args(["serve", "--data-dir"]).arg(self.data(id));
        command.args(["--set", "ottla.http.listener=127.0.0.1:0"]).args(options);
        self.running.insert(id, Running::start(&mut command, log));
    }

    pub fn ready(&self, ids: &[usize]) {
        ids.iter().for_each(|id| _ = self.running[id].ready());
    }

    pub fn kill(&mut self, id: usize) {
        self.running.get_mut(&id).unwrap().end(Signal::KILL);
        self.running.remove(&id);
    }

    /// Runs a client's command against the nodes that run.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let servers: Vec<_> = self.running.keys().map(|id| self.clients[id - 1].as_str()).collect();
        let mut command = ottla();
        command.args(arguments).args(["--bootstrap", &servers.join(","), "--timeout", "60s"]);
        command
    }

    pub fn succeed(&self, arguments: &[&str]) -> String {
        let ended: Ended = self.client(arguments).output().unwrap().into();
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.out, ended.err);
        ended.out
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    pub fn produce(&self, topic: &str, lines: &str) {
        let mut command = self.client(&["produce", topic]);
        let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(process.wait().unwrap().success());
    }

    pub fn consume(&self, topic: &str) -> Vec<String> {
        let text = self.succeed(&["consume", topic, "--until-end"]);
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }
}

/// What the node at this address says of the metadata log, or hears from the controller that leads.
pub fn quorum(address: &str) -> PartitionData {
    let topic = |partitions| describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions,
    };
    let partition = describe_quorum_request::PartitionData { partition_index: 0 };
    let request = DescribeQuorumRequest { topics: vec![topic(vec![partition])] };
    let mut response = ask(address, &request);
    response.topics.remove(0).partitions.remove(0)
}

pub fn address(address: &str) -> Address {
    let (host, port) = address.rsplit_once(':').unwrap();
    Address { host: host.to_owned(), port: port.parse().unwrap() }
}

/// Sends a request to a listener, in the highest version that it serves.
pub fn ask<R: Request>(address: &str, request: &R) -> R::Response {
    let address = self::address(address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connection =
            Connection::open(&address, "test".into(), Speaker::Client, LIMIT).await.unwrap();
        connection.send(request, Limits::within(LIMIT)).await.unwrap()
    })
}

/// What the node at this address knows of a topic; it makes none.
pub fn topic(address: &str, name: &'static str) -> MetadataResponseTopic {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    ask(address, &request).topics.remove(0)
}

/// Where what consumers see of a topic's first partition ends.
pub fn end_offset(address: &str, topic: &'static str) -> i64 {
    let newest = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![newest] };
    let request = ListOffsetsRequest { topics: vec![topic], ..Default::default() };
    ask(address, &request).topics[0].partitions[0].offset
}

pub fn ids(states: &[ReplicaState]) -> Vec<i32> {
    states.iter().map(|it| it.replica_id).collect()
}

/// A property of a `meta.properties` file.
pub fn meta(data: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(data.join("meta.properties")).unwrap();
    let begin = format!("{name}=");
    text.lines().find_map(|line| line.strip_prefix(&begin)).unwrap().to_owned()
}
