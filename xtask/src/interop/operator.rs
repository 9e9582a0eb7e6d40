//! The binary as an operator meets it: starting, configuring, watching and stopping a broker (shell).

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::Timestamp;
use ottla_protocol::Records;
use ottla_protocol::frame::encode_request;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{FetchRequest, ProduceRequest};
use ottla_records::{BatchBuilder, Compression};
use rustix::process::Signal;
use serde_json::Value;

use super::Test;
use super::session::{Session, eventually};
use crate::process::{Finished, Process, describe, run, run_ok, tail};
use crate::side_by_side::connection::Connection;
use crate::{ottla, workspace};

pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// Kafka 4.3's own `config/server.properties`, without its comments.
const STOCK: &str = "crates/ottla-config/tests/kafka/server.properties";

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&Path) -> Result<()>| {
        let run = move |session: &mut Session| run(&new_directory(session)?);
        Test::new(format!("operator: {sentence}"), &[], run).without_broker()
    };
    vec![
        test("one line says that it is ready: version, time, listeners, directory", ready_line),
        test("SIGTERM and SIGINT end it with success and a clean directory", polite_signals),
        test("a peer that does not read does not keep it from stopping", stalled_reader),
        test("a second signal stops it at once", second_signal),
        test("a second process on the same directory is refused", second_process),
        test("--ephemeral leaves nothing behind", ephemeral),
        test("Kafka's stock server.properties starts it, without a warning", stock_configuration),
        test("KAFKA_ variables configure it as they do Kafka's image", environment),
        test("a malformed value is refused: property, value, line, what is allowed", malformed),
        test(
            "an unknown property is a warning with the nearest name, or refused",
            unknown_property,
        ),
        test("/healthz, /readyz and every documented metric are served", http),
        test("the log is JSON on request, a line an object", json_log),
        test("garbage on a connection costs one line that names the peer", garbage),
    ]
}

pub(super) fn new_directory(session: &mut Session) -> Result<PathBuf> {
    let directory = session.new_topic("operator");
    let directory = session.directory().join(directory);
    fs::create_dir_all(&directory).context("no directory")?;
    Ok(directory)
}

/// `ottla serve` on free ports.
pub(super) fn serve(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(ottla::binary()?);
    command.args(["serve", "--set", "ottla.http.listener=127.0.0.1:0"]).args(arguments);
    Ok(command)
}

pub(super) fn serve_in(directory: &Path) -> Result<Command> {
    let mut command = serve(&["--listen", "127.0.0.1:0", "--data-dir"])?;
    command.arg(directory.join("data"));
    Ok(command)
}

/// A broker's command under `strace`, which writes to `trace`: the broker dies with it.
pub(crate) fn traced(broker: &Command, trace: &Path, options: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(trace).args(options);
    command.args(["setpriv", "--pdeathsig", "KILL"]).arg(broker.get_program());
    command.args(broker.get_args());
    command
}

/// A broker that says that it is ready.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) log: PathBuf,
    pub(super) ready: Ready,
}

/// What the ready line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) version: String,
    pub(super) milliseconds: u64,
    /// Without the HTTP address.
    pub(super) listeners: Vec<String>,
    pub(super) http: String,
    pub(super) data: PathBuf,
}

impl Running {
    pub(super) fn start(command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join("output.log");
        let mut process = Process::spawn("Ottla", command, &log)?;
        let (_, line) = process.next_line(Instant::now() + LIMIT)?;
        let ready = Ready::parse(&line).with_context(|| format!("not a ready line: {line}"))?;
        Ok(Self { process, log, ready })
    }

    /// Of the first listener.
    pub(super) fn address(&self) -> &str {
        let listener = self.ready.listeners.first().map(String::as_str).unwrap_or_default();
        listener.rsplit_once('/').map_or(listener, |(_, address)| address)
    }

    pub(super) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("the log can't be read")
    }

    pub(super) fn wait_for(&self, words: &str) -> Result<()> {
        eventually(LIMIT, || Ok(self.log()?.contains(words).then_some(())))
            .with_context(|| format!("{words:?} is not in the log:\n{}", tail(&self.log, 20)))
    }

    pub(super) fn end(self, signal: Signal) -> Result<ExitStatus> {
        self.process.send(signal);
        self.process.wait(LIMIT)
    }
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let (version, rest) = line.strip_prefix("Ottla ")?.split_once(" ready in ")?;
        let (milliseconds, rest) = rest.split_once(" ms: listening on ")?;
        let (addresses, data) = rest.split_once(", data in ")?;
        let (http, listeners): (Vec<_>, Vec<_>) = addresses
            .split(", ")
            .map(str::to_owned)
            .partition(|address| address.starts_with("http://"));
        Some(Self {
            version: version.to_owned(),
            milliseconds: milliseconds.parse().ok()?,
            listeners,
            http: http.first()?.strip_prefix("http://")?.to_owned(),
            data: PathBuf::from(data),
        })
    }
}

/// Another command of the same binary, which must end with success.
pub(super) fn client(address: &str, arguments: &[&str], input: &str) -> Result<Finished> {
    let mut command = Command::new(ottla::binary()?);
    command.args(arguments).args(["--bootstrap", address]);
    run_ok(command, input.as_bytes(), LIMIT)
}

/// To write one record with acks=all.
pub(super) fn produce_request(
    topic: &str,
    partition: i32,
    timestamp: Timestamp,
    value: &[u8],
) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(timestamp, None, Some(value), &[]);
    let records = Some(Records::Bytes(builder.build_bytes()));
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic_data =
        vec![TopicProduceData { name: topic.into(), partition_data, ..Default::default() }];
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data, ..Default::default() }
}

fn produce(running: &Running, value: &str) -> Result<()> {
    client(running.address(), &["produce", "orders"], &format!("{value}\n")).map(drop)
}

fn consumed(running: &Running) -> Result<String> {
    let read = ["consume", "orders", "--until-end"];
    client(running.address(), &read, "").map(|finished| finished.stdout_text())
}

fn ready_line(directory: &Path) -> Result<()> {
    let started = Instant::now();
    let mut running = Running::start(serve_in(directory)?, directory)?;
    let ready = running.ready.clone();
    ensure!(u128::from(ready.milliseconds) <= started.elapsed().as_millis(), "{ready:?}");
    ensure!(ready.data == directory.join("data") && ready.data.is_dir(), "{ready:?}");
    let version = Command::new(ottla::binary()?).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    ensure!(version == format!("ottla {}", ready.version), "--version says {version:?}");
    ensure!(
        ready.listeners.len() == 1 && ready.listeners.iter().all(|it| it.starts_with("PLAINTEXT"))
    );
    ensure!(!running.address().ends_with(":0"), "port 0 is no port: {ready:?}");
    produce(&running, "a")?;
    ensure!(consumed(&running)? == "a\n", "what was written is not read");
    running.process.send(Signal::TERM);
    let rest = running.process.next_line(Instant::now() + LIMIT);
    ensure!(rest.is_err(), "standard output has a second line: {rest:?}");
    Ok(())
}

fn polite_signals(directory: &Path) -> Result<()> {
    let mut expected = String::new();
    for (value, signal) in [("a", Signal::TERM), ("b", Signal::INT), ("c", Signal::TERM)] {
        let running = Running::start(serve_in(directory)?, directory)?;
        let marker = running.ready.data.join(".kafka_cleanshutdown");
        ensure!(!marker.exists(), "a running broker's directory is marked as clean");
        produce(&running, value)?;
        expected.push_str(value);
        expected.push('\n');
        let read = consumed(&running)?;
        ensure!(read == expected, "{read:?} is read, {expected:?} was written");
        let status = running.end(signal)?;
        ensure!(status.success(), "{signal:?}: {}", describe(status));
        ensure!(marker.exists(), "{signal:?} leaves no marker");
    }
    Ok(())
}

/// How long a stop may wait for peers, and for the disk.
const FAREWELL_MAX: Duration = Duration::from_secs(8);

fn stalled_reader(directory: &Path) -> Result<()> {
    let running = Running::start(serve_in(directory)?, directory)?;
    let stalled = stall(&running)?;
    let marker = running.ready.data.join(".kafka_cleanshutdown");
    let asked = Instant::now();
    let status = running.end(Signal::TERM)?;
    ensure!(status.success(), "it ended with {}", describe(status));
    ensure!(asked.elapsed() < FAREWELL_MAX, "it waited {:?}", asked.elapsed());
    ensure!(marker.exists(), "the directory is not marked as clean");
    drop(stalled);
    Ok(())
}

/// A client that asks for more than fits into all buffers on the way, and then does not read it.
fn stall(running: &Running) -> Result<Connection> {
    let line = "x".repeat(1_000) + "\n";
    client(running.address(), &["produce", "orders"], &line.repeat(40_000))?;
    let partition = FetchPartition { partition_max_bytes: i32::MAX, ..Default::default() };
    let topic =
        FetchTopic { topic: "orders".into(), partitions: vec![partition], ..Default::default() };
    let fetch = FetchRequest { topics: vec![topic], ..Default::default() };
    let mut stalled = Connection::open(running.address())?;
    stalled.send(&encode_request(12, 1, None, &fetch)?.bytes);
    stalled.wait_for_an_answer_to_begin()?;
    Ok(stalled)
}

/// A peer that does not read its answer holds the polite way of stopping up for a while.
fn second_signal(directory: &Path) -> Result<()> {
    let running = Running::start(serve_in(directory)?, directory)?;
    let stalled = stall(&running)?;
    running.process.send(Signal::TERM);
    running.wait_for("stopping: a second signal stops at once")?;
    let asked = Instant::now();
    let (log, data) = (running.log.clone(), running.ready.data.clone());
    let status = running.end(Signal::INT)?;
    let took = asked.elapsed();
    ensure!(status.code() == Some(1), "it ended with {}", describe(status));
    ensure!(fs::read_to_string(&log)?.contains("stopped at once"), "the log does not say so");
    ensure!(took < Duration::from_millis(1500), "at once was {took:?}");
    ensure!(!data.join(".kafka_cleanshutdown").exists(), "the directory is marked as clean");
    drop(stalled);
    let running = Running::start(serve_in(directory)?, directory)?;
    let last = ["consume", "orders", "--from", "-1", "--until-end", "--format", "%o"];
    let last = client(running.address(), &last, "")?.stdout_text();
    ensure!(last == "39999\n", "the last record has offset {last}");
    Ok(())
}

fn second_process(directory: &Path) -> Result<()> {
    let running = Running::start(serve_in(directory)?, directory)?;
    let refused = run(serve_in(directory)?, b"", LIMIT)?;
    let said = refused.stderr_text();
    ensure!(refused.status.code() == Some(1), "{}: {said}", describe(refused.status));
    let named = running.ready.data.display().to_string();
    ensure!(said.contains(&named) && said.contains("another process"), "it says {said}");
    produce(&running, "still there")
}

fn ephemeral(directory: &Path) -> Result<()> {
    let temporary = directory.join("temporary");
    fs::create_dir_all(&temporary)?;
    let listed = || Ok::<_, anyhow::Error>(fs::read_dir(&temporary)?.count());
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = serve(&["--ephemeral", "--listen", "127.0.0.1:0"])?;
        command.env("TMPDIR", &temporary);
        let running = Running::start(command, directory)?;
        ensure!(running.ready.data.starts_with(&temporary), "{:?}", running.ready);
        produce(&running, "a")?;
        ensure!(listed()? == 1, "the data is somewhere else");
        let status = running.end(signal)?;
        ensure!(status.success(), "{signal:?}: {}", describe(status));
        ensure!(listed()? == 0, "{signal:?} leaves the data behind");
    }
    Ok(())
}

/// Only addresses and directory are given otherwise: tests share a machine.
fn stock_configuration(directory: &Path) -> Result<()> {
    let file = workspace::root().join(STOCK);
    let mut command = serve(&[
        "--set",
        "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        "--set",
        "advertised.listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
    ])?;
    command.arg("--config").arg(file).arg("--data-dir").arg(directory.join("data"));
    let running = Running::start(command, directory)?;
    let names: Vec<&str> =
        running.ready.listeners.iter().filter_map(|it| it.split(':').next()).collect();
    ensure!(names == ["PLAINTEXT", "CONTROLLER"], "it listens on {names:?}");
    produce(&running, "a")?;
    ensure!(consumed(&running)? == "a\n", "what was written is not read");
    let log = running.log()?;
    let complaint = log.lines().find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(complaint.is_none(), "it complains: {complaint:?}");
    Ok(())
}

fn environment(directory: &Path) -> Result<()> {
    let mut command = serve_in(directory)?;
    command.env("KAFKA_NUM_PARTITIONS", "3").env("KAFKA_LOG_RETENTION_MS", "-1");
    let running = Running::start(command, directory)?;
    let created = client(running.address(), &["topic", "create", "orders"], "")?.stdout_text();
    ensure!(created.contains("3 partitions"), "it says {created}");
    drop(running);
    // The command line counts before the environment.
    let mut command = serve_in(directory)?;
    command.env("KAFKA_NUM_PARTITIONS", "3").args(["--set", "num.partitions=4"]);
    let running = Running::start(command, directory)?;
    let created = client(running.address(), &["topic", "create", "payments"], "")?.stdout_text();
    ensure!(created.contains("4 partitions"), "it says {created}");
    Ok(())
}

/// Writes a configuration and runs `serve` with it, which is expected to end.
fn refused(directory: &Path, properties: &str, more: &[&str]) -> Result<String> {
    let file = directory.join("server.properties");
    fs::write(&file, properties)?;
    let mut command = serve_in(directory)?;
    command.arg("--config").arg(&file).args(more);
    let finished = run(command, b"", LIMIT)?;
    let said = finished.stderr_text();
    ensure!(finished.status.code() == Some(2), "{}: {said}", describe(finished.status));
    ensure!(finished.stdout.is_empty(), "standard output is for the ready line");
    ensure!(!directory.join("data").exists(), "a directory was made all the same");
    Ok(said)
}

fn malformed(directory: &Path) -> Result<()> {
    let said = refused(directory, "# mine\n\nnum.partitions=0\nlog.segment.bytes=ten\n", &[])?;
    let expected = [
        "server.properties line 3",
        "num.partitions=0",
        "at least 1",
        "server.properties line 4",
        "log.segment.bytes=ten",
        "Not a number",
    ];
    for words in expected {
        ensure!(said.contains(words), "{words:?} is missing: {said}");
    }
    Ok(())
}

fn unknown_property(directory: &Path) -> Result<()> {
    let properties = "\
        node.id=1\nlog.retention.hour=3\nvendor.key=x\nprocess.roles=broker,controller\n\
        controller.listener.names=CONTROLLER\nlisteners=PLAINTEXT://:0,CONTROLLER://127.0.0.1:0\n";
    let said = refused(directory, properties, &["--strict-config"])?;
    for words in ["line 2", "log.retention.hour", "log.retention.hours"] {
        ensure!(said.contains(words), "{words:?} is missing: {said}");
    }
    let mut command = serve_in(directory)?;
    command.arg("--config").arg(directory.join("server.properties"));
    let running = Running::start(command, directory)?;
    let log = running.log()?;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    let of = |name: &str| warnings.iter().filter(|line| line.contains(name)).count();
    ensure!(of("log.retention.hours") == 1 && of("vendor.key") == 1, "{warnings:?}");
    ensure!(warnings.len() == 2, "{warnings:?}");
    Ok(())
}

/// Status and body.
pub(super) fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).context("the operator's port is closed")?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn http(directory: &Path) -> Result<()> {
    let running = Running::start(serve_in(directory)?, directory)?;
    produce(&running, "a")?;
    let address = &running.ready.http;
    ensure!(get(address, "/healthz")? == (200, "ok\n".to_owned()));
    ensure!(get(address, "/readyz")? == (200, "ready\n".to_owned()));
    ensure!(get(address, "/nothing")?.0 == 404);
    let (status, metrics) = get(address, "/metrics")?;
    ensure!(status == 200 && metrics.trim_end().ends_with("# EOF"), "{status}: {metrics}");
    let documented = fs::read_to_string(workspace::root().join("docs/metrics.md"))?;
    let names = documented.lines().filter_map(|line| line.strip_prefix("| `ottla_"));
    let names: Vec<&str> = names.filter_map(|rest| rest.split(['`', '{']).next()).collect();
    ensure!(names.len() > 5, "the documentation names {names:?}");
    for name in names {
        let name = format!("ottla_{name}");
        let is_sample = |line: &str| line.starts_with(&name);
        ensure!(metrics.lines().any(is_sample), "{name} is documented, and not in:\n{metrics}");
    }
    ensure!(metrics.contains("ottla_records_in_total 1\n"), "one record was written:\n{metrics}");
    Ok(())
}

fn json_log(directory: &Path) -> Result<()> {
    let mut command = serve_in(directory)?;
    command.args(["--set", "ottla.log.format=json"]);
    let running = Running::start(command, directory)?;
    let mut peer = Connection::open(running.address())?;
    let from = peer.local_address()?.to_string();
    peer.send(b"GET / HTTP/1.1\r\n\r\n");
    peer.receive()?;
    let log = running.log.clone();
    ensure!(running.end(Signal::TERM)?.success(), "it did not stop");
    let log = fs::read_to_string(log)?;
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("Ottla "))
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect::<Result<_>>()?;
    for line in &lines {
        let words = ["timestamp", "level", "message", "target"];
        ensure!(words.iter().all(|word| line.get(word).is_some_and(Value::is_string)), "{line}");
    }
    let warned = |line: &&Value| {
        line.get("peer") == Some(&from.as_str().into()) && line.get("level") == Some(&"WARN".into())
    };
    ensure!(lines.iter().filter(warned).count() == 1, "no warning names {from}: {log}");
    Ok(())
}

fn garbage(directory: &Path) -> Result<()> {
    let running = Running::start(serve_in(directory)?, directory)?;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], &[0xff; 100], &[0, 0, 0, 4, 0, 99, 0, 0]] {
        let mut peer = Connection::open(running.address())?;
        let from = peer.local_address()?.to_string();
        peer.send(bytes);
        peer.finish_sending();
        peer.receive()?;
        let log = running.log()?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&from)).collect();
        ensure!(matches!(&*lines, [line] if line.contains("WARN")), "{from}: {lines:?}");
    }
    produce(&running, "a")
}
