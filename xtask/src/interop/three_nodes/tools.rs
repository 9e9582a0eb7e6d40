//! Kafka's own tools for administrators on three nodes, one of which goes away and comes back (shell).
//!
//! What each of them prints is kept in `interop/three-nodes/tools.txt`, as Apache Kafka 4.3.1 gave it
//! (`cargo xtask cluster tools --target kafka --take`), and a run must give the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::adapter::{ToolOutput, Writing, part};
use super::super::fetch;
use super::super::record::Record;
use super::super::session::{Session, eventually, now_ms};
use super::transcript::{self, Entry, Names};
use super::{Levels, Place};
use crate::broker::Target;
use crate::cluster::ask;
use crate::process::Process;
use crate::{kafka, workspace};

const LIMIT: Duration = Duration::from_secs(60);
const HEADING: &str = "# What Kafka's tools print on three nodes of Apache Kafka 4.3.1, in a form that another cluster can share.
# Taken with `cargo xtask cluster tools --target kafka --take`; read by `cargo xtask interop 'three nodes'`.
";

/// With eligible leader replicas Apache Kafka does not reach the end of this play: in two of two tries a fetcher marked
/// partitions as failed, and they never were whole again.
const LEVELS: Levels = &["eligible.leader.replicas.version=0"];

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const DELETE_RECORDS: &str = "tools.DeleteRecordsCommand";
const ELECTION: &str = "tools.LeaderElectionCommand";
const FEATURES: &str = "tools.FeatureCommand";
const LOG_DIRS: &str = "tools.LogDirsCommand";
const OFFSETS: &str = "tools.GetOffsetShell";
const QUORUM: &str = "tools.MetadataQuorumCommand";
const REASSIGN: &str = "tools.reassign.ReassignPartitionsCommand";
const TOPICS: &str = "tools.TopicCommand";

fn file() -> PathBuf {
    workspace::root().join("interop/three-nodes/tools.txt")
}

pub(super) fn compare(session: &mut Session) -> Result<()> {
    let place = Place::of(session, "three-nodes-tools", LEVELS)?;
    let expected = fs::read_to_string(file()).context("cannot read the transcript")?;
    transcript::same(&transcript::parse(&expected), &play(place)?)
}

/// Plays the tools on a cluster of its own, and keeps what they print or compares it with what is kept.
pub(crate) fn run(target: Target, take: bool, directory: &Path) -> Result<()> {
    let entries = play(Place::start(target, directory, LEVELS)?)?;
    if take {
        fs::write(file(), transcript::render(HEADING, &entries)).context("cannot be written")?;
        return Ok(());
    }
    let expected = fs::read_to_string(file()).context("cannot read the transcript")?;
    transcript::same(&transcript::parse(&expected), &entries)
}

fn play(place: Place) -> Result<Vec<Entry>> {
    let names = Names(place.names());
    let mut stage = Stage { place, names, entries: Vec::new() };
    let played = stage.whole().and_then(|()| stage.moving()).and_then(|()| stage.one_away());
    let played = played.and_then(|()| stage.back_again());
    if let Err(error) = played {
        let so_far = transcript::render("", &stage.entries);
        return Err(stage.place.explain(&error.context(so_far)));
    }
    Ok(stage.entries)
}

/// The cluster on which the tools are played, and what they have printed.
struct Stage {
    place: Place,
    names: Names,
    entries: Vec<Entry>,
}

impl Stage {
    /// All nodes are there.
    fn whole(&mut self) -> Result<()> {
        self.tool(TOPICS, &["--create", "--topic", "moved", "--replica-assignment", "1:2,2:1"])?;
        self.tool(TOPICS, &["--create", "--topic", "alone", "--replica-assignment", "1"])?;
        let three = ["--create", "--topic", "three", "--replica-assignment", "3:1:2"];
        self.tool(TOPICS, &three)?;
        let strict = [&three[..2], &["strict"], &three[3..]].concat();
        self.tool(TOPICS, &[&strict[..], &["--config", "min.insync.replicas=3"]].concat())?;
        self.tool(TOPICS, &["--create", "--topic", "last", "--replica-assignment", "3"])?;
        for topic in ["moved", "alone", "three", "strict", "last"] {
            self.place.cluster.await_whole(Some(topic))?;
        }
        self.write("three", 20)?;
        self.tool(TOPICS, &["--describe", "--topic", "moved,three,strict"])?;
        self.tool(TOPICS, &["--create", "--topic", "four", "--replication-factor", "4"])?;
        self.tool(CONFIGS, &["--describe", "--topic", "strict"])?;
        let alter = ["--alter", "--entity-type", "brokers", "--entity-name", "2"];
        self.tool(CONFIGS, &[&alter[..], &["--add-config", "message.max.bytes=3000"]].concat())?;
        let describe = ["--describe", "--entity-type", "brokers", "--entity-name", "2"];
        self.until(CONFIGS, &describe, "message.max.bytes=3000")?;
        self.tool(CONFIGS, &[&alter[..], &["--delete-config", "message.max.bytes"]].concat())?;
        self.metadata_version()?;
        self.command_first("tools.ClusterTool", &["list-endpoints"], "")?;
        self.quorum()?;
        self.log_dirs()?;
        self.tool(OFFSETS, &["--topic", "three"])?;
        let plan = r#"{"partitions":[{"topic":"three","partition":0,"offset":5}],"version":1}"#;
        let plan = self.plan("delete-records", plan)?;
        self.tool(DELETE_RECORDS, &["--offset-json-file", &plan])?;
        self.tool(OFFSETS, &["--topic", "three", "--time", "earliest"])?;
        self.tool(OFFSETS, &["--topic-partitions", "three:0", "--time", "max-timestamp"])?;
        self.versions()?;
        self.replica_verification()
    }

    /// Partitions move from node to node.
    fn moving(&mut self) -> Result<()> {
        let topics = self.plan("topics", r#"{"topics":[{"topic":"alone"}],"version":1}"#)?;
        let generate = ["--generate", "--topics-to-move-json-file", &topics];
        self.tool(REASSIGN, &[&generate[..], &["--broker-list", "3"]].concat())?;
        self.tool(REASSIGN, &[&generate[..], &["--broker-list", "3,7"]].concat())?;
        let plan = self.plan(
            "plan",
            r#"{"version":1,"partitions":[{"topic":"moved","partition":0,"replicas":[3,2]},{"topic":"alone","partition":0,"replicas":[3]}]}"#,
        )?;
        self.write("moved", 20)?;
        self.write("alone", 20)?;
        let execute = ["--execute", "--reassignment-json-file", &plan];
        let throttled = ["--throttle", "10000000", "--replica-alter-log-dirs-throttle", "1000000"];
        self.tool(REASSIGN, &[&execute[..], &throttled].concat())?;
        self.throttles("3")?;
        let verify = ["--verify", "--reassignment-json-file", &plan];
        let completed = ["alone-0", "moved-0"].map(|it| format!("of partition {it} is completed."));
        self.until_all(REASSIGN, &verify, &completed.each_ref().map(String::as_str))?;
        self.throttles("3")?;
        self.until(REASSIGN, &["--list"], "No partition reassignments found.")?;
        for topic in ["moved", "alone"] {
            self.place.cluster.await_whole(Some(topic))?;
        }
        let preferred = ["--election-type", "preferred", "--all-topic-partitions"];
        self.any(ELECTION, &preferred)?;
        self.place.cluster.await_preferred("moved")?;
        self.tool(TOPICS, &["--describe", "--topic", "moved,alone"])?;
        self.tool(OFFSETS, &["--topic", "moved,alone"])?;
        let unknown =
            r#"{"version":1,"partitions":[{"topic":"moved","partition":0,"replicas":[3,9]}]}"#;
        let unknown = self.plan("unknown", unknown)?;
        self.tool(REASSIGN, &["--execute", "--reassignment-json-file", &unknown])
    }

    /// The third node is stopped, and what was to move there waits.
    fn one_away(&mut self) -> Result<()> {
        self.place.cluster.stop(3)?;
        self.place.cluster.await_fenced(3)?;
        // The controllers know; each broker hears of it.
        for topic in ["three", "strict", "moved"] {
            self.place.cluster.until("an ISR without node 3", LIMIT, |cluster| {
                let partitions = cluster.view(Some(topic))?.partitions;
                Ok(partitions.values().all(|it| !it.isr.contains(&3)).then_some(()))
            })?;
        }
        self.command_first("tools.ClusterTool", &["list-endpoints"], "")?;
        let fenced = ["list-endpoints", "--include-fenced-brokers"];
        self.command_first("tools.ClusterTool", &fenced, "")?;
        for filter in [
            "--under-replicated-partitions",
            "--unavailable-partitions",
            "--at-min-isr-partitions",
            "--under-min-isr-partitions",
        ] {
            self.tool(TOPICS, &["--describe", filter])?;
        }
        let elect = ["--election-type", "preferred", "--topic", "three", "--partition", "0"];
        self.tool(ELECTION, &elect)?;
        let plan =
            r#"{"version":1,"partitions":[{"topic":"moved","partition":1,"replicas":[1,3]}]}"#;
        let plan = self.plan("waiting", plan)?;
        // The tool moves nothing to a node that is away; the controller does, and the move waits for the node.
        self.tool(REASSIGN, &["--execute", "--reassignment-json-file", &plan])?;
        self.place.cluster.first(|address| ask::reassign(address, "moved", 1, &[1, 3]))?;
        self.until(REASSIGN, &["--list"], "moved-1")?;
        self.tool(REASSIGN, &["--execute", "--reassignment-json-file", &plan])?;
        self.tool(REASSIGN, &["--verify", "--reassignment-json-file", &plan])?;
        self.tool(TOPICS, &["--describe", "--topic", "moved", "--partitions", "1"])?;
        self.tool(REASSIGN, &["--cancel", "--reassignment-json-file", &plan])?;
        self.until(REASSIGN, &["--list"], "No partition reassignments found.")?;
        self.tool(REASSIGN, &["--cancel", "--reassignment-json-file", &plan])?;
        self.tool(REASSIGN, &["--verify", "--reassignment-json-file", &plan])?;
        self.command_first("tools.ClusterTool", &["unregister"], "3")?;
        self.command_first("tools.ClusterTool", &fenced, "")
    }

    fn back_again(&mut self) -> Result<()> {
        self.place.cluster.restart(3)?;
        for topic in ["moved", "alone", "three", "strict", "last"] {
            self.place.cluster.await_whole(Some(topic))?;
        }
        self.tool(TOPICS, &["--describe", "--unavailable-partitions"])?;
        self.tool(TOPICS, &["--describe", "--under-replicated-partitions"])?;
        let elect = ["--election-type", "preferred", "--topic", "three", "--partition", "0"];
        self.tool(ELECTION, &elect)?;
        self.place.cluster.await_preferred("three")?;
        self.tool(ELECTION, &elect)?;
        let unclean = ["--election-type", "unclean", "--topic", "three", "--partition", "0"];
        self.tool(ELECTION, &unclean)?;
        self.tool(TOPICS, &["--describe", "--topic", "three"])?;
        self.tool(OFFSETS, &["--topic", "three,moved,alone"])
    }

    fn write(&mut self, topic: &str, count: usize) -> Result<()> {
        let records: Vec<Record> =
            (0..count).map(|_| Record::new(0, now_ms(), None, Some(b"value"))).collect();
        self.place.java.produce(topic, &records, Writing::default()).map(drop)
    }

    /// A file for a tool; gives its path.
    fn plan(&mut self, name: &str, text: &str) -> Result<String> {
        let path = self.place.directory.join(format!("{name}.json"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let path = path.display().to_string();
        self.names.0.insert(path.clone(), format!("{name}.json"));
        Ok(path)
    }

    /// Runs a tool, which is not judged yet; gives what it printed.
    fn any(&mut self, class: &str, arguments: &[&str]) -> Result<ToolOutput> {
        let bootstrap = self.place.cluster.bootstrap();
        let all = [&["--bootstrap-server", &bootstrap], arguments].concat();
        self.place.java.tool(class, &all, b"")
    }

    fn note(&mut self, class: &str, arguments: &[&str], status: i64, lines: Vec<String>) {
        let name = class.rsplit('.').next().unwrap_or(class);
        let arguments = self.names.lines(&arguments.join(" ")).concat();
        let lines = [vec![format!("exit {status}")], lines].concat();
        self.entries.push(Entry { command: format!("{name} {arguments}"), lines });
    }

    /// Runs a tool, and keeps what it printed.
    fn tool(&mut self, class: &str, arguments: &[&str]) -> Result<()> {
        let output = self.any(class, arguments)?;
        let lines = self.names.lines(&output.out);
        self.note(class, arguments, output.status, lines);
        Ok(())
    }

    /// The same, when the tool has printed these words: what was asked for takes its time.
    fn until(&mut self, class: &str, arguments: &[&str], words: &str) -> Result<()> {
        self.until_all(class, arguments, &[words])
    }

    fn until_all(&mut self, class: &str, arguments: &[&str], words: &[&str]) -> Result<()> {
        let output = eventually(LIMIT, || {
            let output = self.any(class, arguments)?;
            Ok(words.iter().all(|words| output.out.contains(words)).then_some(output))
        });
        let output = output.with_context(|| format!("{class} {arguments:?}: no {words:?}"))?;
        let lines = self.names.lines(&output.out);
        self.note(class, arguments, output.status, lines);
        Ok(())
    }

    /// A tool that wants its command before where the cluster is, and perhaps a broker's id.
    fn command_first(&mut self, class: &str, arguments: &[&str], id: &str) -> Result<()> {
        let bootstrap = self.place.cluster.bootstrap();
        let (command, more) = arguments.split_first().context("a command")?;
        let mut all = [&[command, "--bootstrap-server", &bootstrap], more].concat();
        if !id.is_empty() {
            all.extend(["--id", id]);
        }
        let output = self.place.java.tool(class, &all, b"")?;
        let mut lines = self.names.lines(&output.out);
        lines.sort();
        self.note(class, arguments, output.status, lines);
        Ok(())
    }

    /// Who leads, how far the log is, and when a voter was last heard of, is another thing each time.
    fn quorum(&mut self) -> Result<()> {
        let status = self.any(QUORUM, &["describe", "--status"])?;
        let fields = self.names.lines(&status.out);
        let field = |line: &String| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.trim();
            let varies = ["LeaderId", "LeaderEpoch", "HighWatermark"].contains(&name)
                || name.starts_with("MaxFollowerLag");
            format!("{name}: {}", if varies { "…" } else { value })
        };
        let fields = fields.iter().map(field).collect();
        self.note(QUORUM, &["describe", "--status"], status.status, fields);
        let replication = self.any(QUORUM, &["describe", "--replication"])?;
        let mut rows = Vec::new();
        for line in self.names.lines(&replication.out) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The node and what it is; leader and followers are of both kinds, whoever leads.
            let node = words.first().copied().unwrap_or_default();
            let is_voter = words.iter().any(|word| ["Leader", "Follower"].contains(word));
            rows.push(if is_voter { format!("{node} … voter") } else { words.join(" ") });
        }
        rows.sort();
        self.note(QUORUM, &["describe", "--replication"], replication.status, rows);
        Ok(())
    }

    /// Who has which partition: sizes are of what the clients and the brokers made of the records.
    fn log_dirs(&mut self) -> Result<()> {
        let arguments = ["--describe", "--topic-list", "three,moved"];
        let output = self.any(LOG_DIRS, &arguments)?;
        let json = output.out.lines().find(|line| line.starts_with('{')).context("no JSON")?;
        let shown: Value = serde_json::from_str(json)?;
        let mut lines: Vec<String> =
            output.out.lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect();
        let list = |value: &Value, name: &str| part(value, name).as_array().cloned();
        let mut rows = Vec::new();
        for broker in list(&shown, "/brokers").context("no brokers")? {
            for directory in list(&broker, "/logDirs").context("no directories")? {
                for partition in list(&directory, "/partitions").context("no partitions")? {
                    let [id, error] = [part(&broker, "/broker"), part(&directory, "/error")];
                    let [name, lag, is_future] = ["/partition", "/offsetLag", "/isFuture"]
                        .map(|field| part(&partition, field));
                    rows.push(format!("{id} {error} {name} lag {lag} future {is_future}"));
                }
            }
        }
        rows.sort();
        lines.extend(rows);
        self.note(LOG_DIRS, &arguments, output.status, lines);
        Ok(())
    }

    /// The throttles of a move, as the brokers hold them.
    fn throttles(&mut self, broker: &str) -> Result<()> {
        self.tool(CONFIGS, &["--describe", "--entity-type", "brokers", "--entity-name", broker])?;
        self.tool(CONFIGS, &["--describe", "--entity-type", "topics", "--entity-name", "moved"])
    }

    /// Of the features, the one that tells of the release; the records before it give the epoch.
    fn metadata_version(&mut self) -> Result<()> {
        let output = self.any(FEATURES, &["describe"])?;
        let line = output.out.lines().find(|line| line.contains("metadata.version"));
        let (line, _) = line.and_then(|line| line.split_once("Epoch:")).context("no version")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        self.note(FEATURES, &["describe"], output.status, vec![words.join(" ")]);
        Ok(())
    }

    /// Which nodes answer; the versions of each API are compared elsewhere.
    fn versions(&mut self) -> Result<()> {
        const CLASS: &str = "tools.BrokerApiVersionsCommand";
        let output = self.any(CLASS, &[])?;
        let lines = self.names.lines(&output.out);
        let mut nodes: Vec<String> =
            lines.into_iter().filter(|line| line.contains(" -> (")).collect();
        nodes.sort();
        self.note(CLASS, &[], output.status, nodes);
        Ok(())
    }

    /// It goes on for ever, in a process of its own, and says now and then what the replicas differ in.
    fn replica_verification(&mut self) -> Result<()> {
        const CLASS: &str = "org.apache.kafka.tools.ReplicaVerificationTool";
        let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
        command.args([CLASS, "--broker-list", &self.place.cluster.bootstrap()]);
        command.args(["--topics-include", "three", "--report-interval-ms", "300", "--time", "-2"]);
        let log = self.place.directory.join("replica-verification.log");
        let mut process = Process::spawn("ReplicaVerificationTool", command, &log)?;
        let deadline = Instant::now() + LIMIT;
        let line = loop {
            let (_, line) = process.next_line(deadline)?;
            if line.contains("max lag is 0 for partition three-0") {
                break line;
            }
            ensure!(Instant::now() < deadline, "the replicas of three-0 never agree");
        };
        process.kill()?;
        let (_, said) = line.split_once(": ").context("a time first")?;
        self.note(CLASS, &["--topics-include three"], 0, vec![said.to_owned()]);
        Ok(())
    }
}
