//! Controllers that come and go, with Apache Kafka's own tool, against nodes in processes of their own (shell).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::adapter::{Library, ToolOutput};
use super::session::{Session, eventually};
use crate::broker::free_port;
use crate::process::{Process, run_ok};
use crate::program::Program;

const LIMIT: Duration = Duration::from_secs(90);
const CLUSTER_ID: &str = "Coming-and-going-00000";
const HEAP: &str = "256m";
const CLASS: &str = "tools.MetadataQuorumCommand";

pub(super) fn tests() -> Vec<Test> {
    let name =
        "tools: MetadataQuorumCommand adds a controller to a lone one, and removes the first";
    let test = Test::new(name, Library::Java.needs(), add_and_remove);
    vec![test.once_served("AddRaftVoter(80)").once_served("RemoveRaftVoter(81)")]
}

/// A broker that is a controller, too. Dropped, it is killed.
struct Node {
    directory: PathBuf,
    client: String,
    controller: String,
    id: usize,
    process: Option<Process>,
}

impl Node {
    fn new(directory: &Path, id: usize) -> Result<Self> {
        let directory = directory.join(format!("voters-{id}"));
        fs::create_dir_all(&directory)?;
        let [client, controller] = [free_port()?, free_port()?].map(|it| format!("127.0.0.1:{it}"));
        Ok(Self { directory, client, controller, id, process: None })
    }

    fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }

    fn write(&self, controllers: &str) -> Result<()> {
        let Self { directory, client, controller, id, .. } = self;
        let lines = [
            "process.roles=broker,controller".to_owned(),
            format!("node.id={id}"),
            format!("listeners=PLAINTEXT://{client},CONTROLLER://{controller}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("controller.quorum.bootstrap.servers={controllers}"),
            format!("log.dirs={}", directory.join("data").display()),
            "log.cleaner.dedupe.buffer.size=2097152".to_owned(),
            "ottla.http.listener=127.0.0.1:0".to_owned(),
        ];
        fs::write(self.properties(), lines.join("\n") + "\n").context("cannot write the properties")
    }

    fn format(&self, program: &Program, how: &str) -> Result<()> {
        let command = program.format(&self.properties(), &["--cluster-id", CLUSTER_ID, how]);
        run_ok(command, b"", LIMIT).map(drop)
    }

    fn start(&mut self, program: &Program) -> Result<()> {
        let command = program.serve(&self.properties());
        let log = self.directory.join("server.log");
        let mut process = Process::spawn(&format!("node {}", self.id), command, &log)?;
        process.wait_for_line(LIMIT, |line| program.is_ready(line))?;
        self.process = Some(process);
        Ok(())
    }

    /// The log directory's id, as its `meta.properties` has it.
    fn directory_id(&self) -> Result<String> {
        let text = fs::read_to_string(self.directory.join("data/meta.properties"))?;
        let found = text.lines().find_map(|line| line.strip_prefix("directory.id="));
        Ok(found.context("no directory.id")?.to_owned())
    }
}

fn tool(session: &mut Session, arguments: &[&str]) -> Result<ToolOutput> {
    session.adapter(Library::Java).tool(CLASS, arguments, b"")
}

fn succeed(session: &mut Session, arguments: &[&str], words: &str) -> Result<()> {
    let ToolOutput { status, out, err } = tool(session, arguments)?;
    ensure!(status == 0 && out.contains(words), "{arguments:?}: exit {status}\n{out}\n{err}");
    Ok(())
}

fn fail(session: &mut Session, arguments: &[&str], words: &str) -> Result<()> {
    let ToolOutput { status, out, err } = tool(session, arguments)?;
    let all = out + &err;
    ensure!(status != 0 && all.contains(words), "{arguments:?}: exit {status}\n{all}");
    Ok(())
}

/// The ids of the nodes in a line of `describe --status`, such as `CurrentVoters: [{"id": 1, …}]`.
fn ids(status: &str, name: &str) -> Vec<usize> {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let parts = line.split("\"id\":").skip(1);
    let digits =
        |part: &str| part.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    parts.filter_map(digits).collect()
}

fn until_members(
    session: &mut Session,
    at: &str,
    voters: &[usize],
    observers: &[usize],
) -> Result<()> {
    let mut status = String::new();
    eventually(LIMIT, || {
        status = tool(session, &["--bootstrap-server", at, "describe", "--status"])?.out;
        let are = (ids(&status, "CurrentVoters"), ids(&status, "CurrentObservers"));
        Ok((are == (voters.to_vec(), observers.to_vec())).then_some(()))
    })
    .with_context(|| format!("not the voters {voters:?}, the observers {observers:?}:\n{status}"))
}

fn add_and_remove(session: &mut Session) -> Result<()> {
    let program = Program::of(session.target(), HEAP)?;
    let directory = session.directory().to_path_buf();
    let mut one = Node::new(&directory, 1)?;
    let mut two = Node::new(&directory, 2)?;
    let controllers = format!("{},{}", one.controller, two.controller);
    one.write(&controllers)?;
    two.write(&controllers)?;
    one.format(&program, "--standalone")?;
    two.format(&program, "--no-initial-controllers")?;
    one.start(&program)?;
    two.start(&program)?;
    let (first, second) = (one.directory_id()?, two.directory_id()?);
    until_members(session, &one.client, &[1], &[2])?;

    let at = ["--bootstrap-server", &one.client];
    let remove_last =
        ["remove-controller", "--controller-id", "1", "--controller-directory-id", &first];
    fail(session, &[&at[..], &remove_last].concat(), "VoterNotFoundException")?;
    let file = two.properties();
    let file = file.to_str().context("a path that is no text")?;
    let add = ["--command-config", file, "add-controller"];
    let added = format!("Added controller 2 with directory id {second}");
    succeed(session, &[&at[..], &add].concat(), &added)?;
    until_members(session, &one.client, &[1, 2], &[])?;
    fail(session, &[&at[..], &add].concat(), "DuplicateVoterException")?;

    // The leader goes; this time the controller itself is asked.
    let at = ["--bootstrap-controller", &one.controller];
    // Two blanks: the tool leaves a word out when it has really done it.
    let removed = format!("Removed  KRaft controller 1 with directory id {first}");
    succeed(session, &[&at[..], &remove_last].concat(), &removed)?;
    until_members(session, &two.client, &[2], &[1])?;
    drop(one);
    let create = ["--bootstrap-server", &two.client, "--create", "--topic", "without-the-first"];
    let created = session.adapter(Library::Java).tool("tools.TopicCommand", &create, b"")?;
    ensure!(created.status == 0, "{}{}", created.out, created.err);
    Ok(())
}
