//! Kafka Connect, unmodified: a file that becomes a topic that becomes a file (shell).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Test;
use super::adapter::{Adapter, Library, part};
use super::fetch;
use super::session::{Session, eventually};
use crate::broker::free_port;
use crate::kafka;
use crate::process::Process;

const LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("connect: {sentence}"), Library::Java.needs(), run)
            .once_served("DescribeConfigs(32)")
            .once_served("OffsetCommit(8)")
    };
    vec![
        test("standalone, a file goes through a topic into a file, and on after a restart", alone),
        test("distributed, connectors are made over REST and survive kill -9", distributed),
    ]
}

/// The two files and the topic between them.
struct Pipe {
    directory: PathBuf,
    topic: String,
    lines: usize,
}

impl Pipe {
    fn new(session: &mut Session, stem: &str) -> Result<Self> {
        let topic = session.new_topic(stem);
        let directory = session.directory().join(&topic);
        Self::of(session.adapter(Library::Java), topic, directory)
    }

    fn of(java: &mut Adapter, topic: String, directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        java.create(&topic, 1, &[])?;
        Ok(Self { directory, topic, lines: 0 })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(&mut self, count: usize) -> Result<()> {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(self.path("source.txt"))?;
        for line in self.lines..self.lines + count {
            // ASCII: the connector counts characters, and goes back to that many bytes.
            writeln!(file, "line {line} of many")?;
        }
        self.lines += count;
        Ok(())
    }

    /// Waits until the sink's file holds every line once, in order.
    fn arrives(&self) -> Result<()> {
        let expected: String =
            (0..self.lines).map(|line| format!("line {line} of many\n")).collect();
        let read = || fs::read_to_string(self.path("sink.txt")).unwrap_or_default();
        let arrived = eventually(LIMIT, || Ok((read() == expected).then_some(())));
        arrived.with_context(|| format!("{} of {} lines came", read().lines().count(), self.lines))
    }

    /// Waits until the sink's file holds every line once at least: Connect's producer is not idempotent.
    #[cfg(feature = "cluster")]
    fn arrives_at_least_once(&self) -> Result<()> {
        let read = || fs::read_to_string(self.path("sink.txt")).unwrap_or_default();
        let missing = || {
            let read = read();
            let there: std::collections::BTreeSet<&str> = read.lines().collect();
            let is_missing = |line: &String| !there.contains(line.as_str());
            (0..self.lines).map(|line| format!("line {line} of many")).find(is_missing)
        };
        let arrived = eventually(LIMIT, || Ok(missing().is_none().then_some(())));
        arrived.with_context(|| format!("{:?} never came, of {}", missing(), self.lines))
    }

    fn source(&self) -> Value {
        json!({
            "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
            "tasks.max": "1", "file": self.path("source.txt"), "topic": self.topic,
        })
    }

    fn sink(&self) -> Value {
        json!({
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
            "tasks.max": "1", "file": self.path("sink.txt"), "topics": self.topic,
        })
    }
}

/// Writes a properties file; gives its path.
fn properties(path: &Path, lines: &[(&str, String)]) -> Result<PathBuf> {
    let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_path_buf())
}

fn worker(bootstrap: &str, rest: &str) -> Vec<(&'static str, String)> {
    let converter = "org.apache.kafka.connect.storage.StringConverter";
    vec![
        ("bootstrap.servers", bootstrap.to_owned()),
        ("key.converter", converter.to_owned()),
        ("value.converter", converter.to_owned()),
        ("listeners", format!("http://{rest}")),
        ("plugin.discovery", "service_load".to_owned()),
        ("offset.flush.interval.ms", "500".to_owned()),
        ("consumer.session.timeout.ms", "3000".to_owned()),
        ("consumer.heartbeat.interval.ms", "300".to_owned()),
    ]
}

fn connect(pipe: &Pipe, class: &str, files: &[PathBuf], run: u32) -> Result<Process> {
    let (jars, classes) = fetch::applications()?;
    let mut command = kafka::java_tools(&jars, &classes);
    command.arg(format!("org.apache.kafka.connect.cli.{class}")).args(files);
    Process::spawn("Connect", command, &pipe.directory.join(format!("connect-{run}.log")))
}

fn alone(session: &mut Session) -> Result<()> {
    let mut pipe = Pipe::new(session, "connect-alone")?;
    let rest = format!("127.0.0.1:{}", free_port()?);
    let mut of_worker = worker(&session.bootstrap(), &rest);
    of_worker.push(("offset.storage.file.filename", pipe.path("offsets")));
    let mut files = vec![properties(&pipe.directory.join("worker.properties"), &of_worker)?];
    for (name, config) in [("source", pipe.source()), ("sink", pipe.sink())] {
        let mut lines = vec![("name", format!("{}-{name}", pipe.topic))];
        let config = config.as_object().cloned().unwrap_or_default();
        let pairs = config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        lines.extend(pairs.map(|(key, value)| (key, value.unwrap_or_default().to_owned())));
        files.push(properties(&pipe.directory.join(format!("{name}.properties")), &lines)?);
    }
    pipe.write(100)?;
    let process = connect(&pipe, "ConnectStandalone", &files, 1)?;
    pipe.arrives().context("the first lines")?;
    pipe.write(100)?;
    pipe.arrives().context("lines that were added")?;
    process.stop(STOP_LIMIT)?;
    pipe.write(100)?;
    let process = connect(&pipe, "ConnectStandalone", &files, 2)?;
    pipe.arrives().context("after a restart")?;
    process.stop(STOP_LIMIT).map(drop)
}

/// Where a worker that shares its work is configured, with topics of its own of so many replicas.
fn distributed_worker(
    pipe: &Pipe,
    bootstrap: &str,
    rest: &str,
    replication: &str,
) -> Result<PathBuf> {
    let mut of_worker = worker(bootstrap, rest);
    of_worker.push(("group.id", format!("{}-workers", pipe.topic)));
    for storage in ["config", "offset", "status"] {
        let (topic, factor) = match storage {
            "config" => ("config.storage.topic", "config.storage.replication.factor"),
            "offset" => ("offset.storage.topic", "offset.storage.replication.factor"),
            _ => ("status.storage.topic", "status.storage.replication.factor"),
        };
        of_worker.push((topic, format!("{}-{storage}", pipe.topic)));
        of_worker.push((factor, replication.to_owned()));
    }
    of_worker.extend([
        ("session.timeout.ms", "3000".to_owned()),
        ("heartbeat.interval.ms", "300".to_owned()),
        ("scheduled.rebalance.max.delay.ms", "0".to_owned()),
    ]);
    properties(&pipe.directory.join("worker.properties"), &of_worker)
}

/// The names of the two connectors.
fn connectors(pipe: &Pipe) -> [String; 2] {
    ["source", "sink"].map(|name| format!("{}-{name}", pipe.topic))
}

fn make_connectors(pipe: &Pipe, rest: &str) -> Result<()> {
    let [source, sink] = connectors(pipe);
    for (name, config) in [(&source, pipe.source()), (&sink, pipe.sink())] {
        // Until the worker has joined its group it answers that it cannot.
        eventually(LIMIT, || {
            let put = request(rest, "PUT", &format!("/connectors/{name}/config"), &config);
            Ok(put.ok().filter(|(status, _)| *status == 201 || *status == 200))
        })
        .with_context(|| format!("{name} is not made"))?;
    }
    Ok(())
}

/// A file goes into a file while something happens to the three nodes, which calls back now and then.
#[cfg(feature = "cluster")]
pub(super) fn through(
    java: &mut Adapter,
    bootstrap: &str,
    directory: &Path,
    happen: impl FnOnce(&mut Adapter, &mut dyn FnMut(&mut Adapter) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut pipe = Pipe::of(java, "connect".to_owned(), directory.join("connect"))?;
    let rest = format!("127.0.0.1:{}", free_port()?);
    let files = [distributed_worker(&pipe, bootstrap, &rest, "3")?];
    let process = connect(&pipe, "ConnectDistributed", &files, 1)?;
    make_connectors(&pipe, &rest)?;
    pipe.write(100)?;
    pipe.arrives().context("before anything happens")?;
    happen(java, &mut |_| pipe.write(100))?;
    pipe.arrives_at_least_once().context("after all")?;
    for name in connectors(&pipe) {
        let (_, status) =
            request(&rest, "GET", &format!("/connectors/{name}/status"), &Value::Null)?;
        let task = part(&status, "/tasks/0/state");
        ensure!(*task == "RUNNING", "the status of {name}: {status}");
    }
    process.stop(STOP_LIMIT).map(drop)
}

fn distributed(session: &mut Session) -> Result<()> {
    let mut pipe = Pipe::new(session, "connect-distributed")?;
    let rest = format!("127.0.0.1:{}", free_port()?);
    let files = [distributed_worker(&pipe, &session.bootstrap(), &rest, "1")?];
    let process = connect(&pipe, "ConnectDistributed", &files, 1)?;
    make_connectors(&pipe, &rest)?;
    let [source, sink] = connectors(&pipe);
    pipe.write(100)?;
    pipe.arrives().context("the first lines")?;
    // What the source read is committed with the next flush; before that, lines would come twice.
    eventually(LIMIT, || {
        let (_, offsets) =
            request(&rest, "GET", &format!("/connectors/{}/offsets", source), &Value::Null)?;
        let length = fs::metadata(pipe.path("source.txt"))?.len();
        Ok((*part(&offsets, "/offsets/0/offset/position") == length).then_some(()))
    })
    .context("the source's offset is not committed")?;
    let group = format!("connect-{}", sink);
    eventually(LIMIT, || {
        let committed = session.adapter(Library::Java).committed(&group, &pipe.topic)?;
        Ok((committed.get(&0) == Some(&i64::try_from(pipe.lines)?)).then_some(()))
    })
    .context("the sink's offset is not committed")?;
    process.kill()?;
    pipe.write(100)?;
    let process = connect(&pipe, "ConnectDistributed", &files, 2)?;
    pipe.arrives().context("after kill -9")?;
    let (_, status) = request(&rest, "GET", &format!("/connectors/{}/status", sink), &Value::Null)?;
    ensure!(*part(&status, "/connector/state") == "RUNNING", "the sink's status: {status}");
    process.stop(STOP_LIMIT).map(drop)
}

/// One HTTP request; the status and the body.
fn request(address: &str, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}
