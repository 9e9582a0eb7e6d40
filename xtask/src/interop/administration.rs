//! Apache Kafka's own tools for administrators, and what is left of their work after kill -9 (shell).
//!
//! What a tool prints is looked at where it tells what the broker did; it is the same text for both brokers, since
//! the tests run against both.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Test;
use super::adapter::{Adapter, Library, ToolOutput, Writing};
use super::record::Record;
use super::session::{SETTINGS, Session, eventually, now_ms};
use crate::broker::{Target, two_data_directories};

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const TOPICS: &str = "tools.TopicCommand";

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("administration: {sentence}"), Library::Java.needs(), run)
    };
    vec![
        test("ConfigCommand changes a topic, and says what is wrong", topic_configs),
        test("ConfigCommand changes the broker and the default of all brokers", broker_configs)
            .of_one(),
        test("ConfigCommand changes client metrics", client_metrics_configs),
        test("ConfigCommand changes a group", group_configs).once_served("ListGroups(16)"),
        test("ConfigCommand changes levels of log lines", log_levels),
        test("TopicCommand adds partitions, and takes none away", more_partitions),
        test("DeleteRecordsCommand deletes from the front", delete_records),
        test("LogDirsCommand shows sizes", log_dirs).of_one(),
        test("MetadataQuorumCommand shows the one voter", metadata_quorum).of_one(),
        test("FeatureCommand shows levels, and does not lower them", features),
        test("LeaderElectionCommand finds nothing to do", leader_election),
        test("ReassignPartitionsCommand has nothing to list", reassignments),
        test("ReassignPartitionsCommand moves a partition to another directory", other_directory)
            .without_broker(),
        test("AclCommand hears that there is no authorizer", acls),
        test("ClusterTool names the cluster and its endpoints", cluster),
        test("TransactionsCommand has nothing to list", transactions),
        test("what was changed is there after kill -9", after_kill).without_broker(),
    ]
}

/// Someone who runs tools against a broker.
struct Tools<'a> {
    adapter: &'a mut Adapter,
    bootstrap: String,
}

impl<'a> Tools<'a> {
    fn of(session: &'a mut Session) -> Self {
        let bootstrap = session.bootstrap();
        Self { adapter: session.adapter(Library::Java), bootstrap }
    }

    fn any(&mut self, class: &str, arguments: &[&str]) -> Result<ToolOutput> {
        let bootstrap = self.bootstrap.clone();
        let all = [&["--bootstrap-server", &bootstrap], arguments].concat();
        self.adapter.tool(class, &all, b"")
    }

    /// Runs a tool that must succeed; gives what it printed.
    fn run(&mut self, class: &str, arguments: &[&str]) -> Result<String> {
        let ToolOutput { status, out, err } = self.any(class, arguments)?;
        ensure!(status == 0, "{class} {arguments:?}: exit {status}\n{out}\n{err}");
        Ok(out)
    }

    /// Runs a tool that must fail, and say this.
    fn fail(&mut self, class: &str, arguments: &[&str], words: &str) -> Result<()> {
        let ToolOutput { status, out, err } = self.any(class, arguments)?;
        ensure!(status != 0, "{class} {arguments:?} succeeded:\n{out}");
        let all = out + &err;
        ensure!(all.contains(words), "{class} {arguments:?} does not say {words:?}:\n{all}");
        Ok(())
    }

    /// Runs a tool until it prints this: Apache Kafka answers before its broker has applied a change.
    fn until(&mut self, class: &str, arguments: &[&str], words: &[&str]) -> Result<String> {
        let mut printed = String::new();
        eventually(Duration::from_secs(10), || {
            printed = self.run(class, arguments)?;
            Ok(words.iter().all(|word| printed.contains(word)).then_some(()))
        })
        .with_context(|| format!("{class} {arguments:?} does not print {words:?}"))?;
        Ok(printed)
    }
}

fn topic_configs(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("configs");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let mut tools = Tools::of(session);
    let about = ["--entity-type", "topics", "--entity-name", &topic];
    let with = |more: &[&'static str]| [&about[..], more].concat();
    let alter =
        with(&["--alter", "--add-config", "retention.ms=1234567,cleanup.policy=[compact,delete]"]);
    let printed = tools.run(CONFIGS, &alter)?;
    ensure!(
        printed.contains(&format!("Completed updating config for topic {topic}.")),
        "{printed}"
    );
    let described = ["retention.ms=1234567", "DYNAMIC_TOPIC_CONFIG:retention.ms=1234567"];
    let described = [
        &described[..],
        &["cleanup.policy=compact,delete", "DEFAULT_CONFIG:log.cleanup.policy=delete"],
    ]
    .concat();
    tools.until(CONFIGS, &with(&["--describe"]), &described)?;
    let all = tools.run(CONFIGS, &with(&["--describe", "--all"]))?;
    for property in
        ["max.message.bytes=1048588", "compression.type=producer", "segment.bytes=1073741824"]
    {
        ensure!(all.contains(property), "{property} is missing:\n{all}");
    }
    tools.run(CONFIGS, &with(&["--alter", "--delete-config", "retention.ms"]))?;
    eventually(Duration::from_secs(10), || {
        let left = tools.run(CONFIGS, &with(&["--describe"]))?;
        Ok((!left.contains("retention.ms")).then_some(()))
    })
    .context("a deleted property is still set")?;
    let wrong = [
        (&["--alter", "--add-config", "no.such=1"][..], "Unknown topic config name: no.such"),
        (&["--alter", "--add-config", "retention.ms=soon"], "Not a number of type LONG"),
    ];
    for (change, words) in wrong {
        tools.fail(CONFIGS, &with(change), words)?;
    }
    let nobody = ["--entity-type", "topics", "--entity-name", "nobody-made-this"];
    let alter = [&nobody[..], &["--alter", "--add-config", "retention.ms=1"]].concat();
    tools.fail(CONFIGS, &alter, "nobody-made-this")
}

fn broker_configs(session: &mut Session) -> Result<()> {
    let mut tools = Tools::of(session);
    let own = ["--entity-type", "brokers", "--entity-name", "1"];
    let default = ["--entity-type", "brokers", "--entity-default"];
    let change = |tools: &mut Tools<'_>, about: &[&str], change: &[&str]| {
        tools.run(CONFIGS, &[about, &["--alter"], change].concat()).map(drop)
    };
    let describe = |about: &[&'static str]| [about, &["--describe"]].concat();
    change(&mut tools, &own, &["--add-config", "log.retention.ms=7000000"])?;
    change(&mut tools, &default, &["--add-config", "log.retention.ms=8000000"])?;
    let words = [
        "log.retention.ms=7000000",
        "DYNAMIC_BROKER_CONFIG:log.retention.ms=7000000",
        "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=8000000",
        "DEFAULT_CONFIG:log.retention.hours=168",
    ];
    tools.until(CONFIGS, &describe(&own), &words)?;
    tools.until(CONFIGS, &describe(&default), &["log.retention.ms=8000000"])?;
    let all = tools.run(CONFIGS, &[&own[..], &["--describe", "--all"]].concat())?;
    for property in
        ["num.partitions=1 ", "message.max.bytes=1048588 ", "offsets.topic.num.partitions=50 "]
    {
        ensure!(all.contains(property), "{property:?} is missing:\n{all}");
    }
    let refused = [
        ("num.partitions=3", "Cannot update these configs dynamically: [num.partitions]"),
        ("log.retention.ms=0", "log.retention.ms must be unlimited (-1)"),
        ("num.io.threads=100", "should not be greater than double the current value 8"),
    ];
    for (config, words) in refused {
        let alter = [&own[..], &["--alter", "--add-config", config]].concat();
        tools.fail(CONFIGS, &alter, words)?;
    }
    for about in [&own[..], &default] {
        change(&mut tools, about, &["--delete-config", "log.retention.ms"])?;
    }
    Ok(())
}

fn client_metrics_configs(session: &mut Session) -> Result<()> {
    set_and_deleted(session, "client-metrics", "interval.ms", "60000")
}

fn group_configs(session: &mut Session) -> Result<()> {
    set_and_deleted(session, "groups", "consumer.session.timeout.ms", "50000")?;
    let about = ["--entity-type", "groups", "--entity-name", "administrators"];
    let alter =
        [&about[..], &["--alter", "--add-config", "consumer.session.timeout.ms=1"]].concat();
    let words = "must be greater than or equal to group.consumer.min.session.timeout.ms";
    Tools::of(session).fail(CONFIGS, &alter, words)
}

/// Sets a property of a resource that nobody has used yet, looks at it, and deletes it.
fn set_and_deleted(session: &mut Session, kind: &str, name: &str, value: &str) -> Result<()> {
    let mut tools = Tools::of(session);
    let about = ["--entity-type", kind, "--entity-name", "administrators"];
    let config = format!("{name}={value}");
    tools.run(CONFIGS, &[&about[..], &["--alter", "--add-config", &config]].concat())?;
    tools.until(CONFIGS, &[&about[..], &["--describe"]].concat(), &[&config])?;
    tools.run(CONFIGS, &[&about[..], &["--alter", "--delete-config", name]].concat())?;
    Ok(())
}

fn log_levels(session: &mut Session) -> Result<()> {
    let mut tools = Tools::of(session);
    let about = ["--entity-type", "broker-loggers", "--entity-name", "1"];
    let with = |more: &[&'static str]| [&about[..], more].concat();
    tools.run(CONFIGS, &with(&["--alter", "--add-config", "root=ERROR"]))?;
    tools.until(CONFIGS, &with(&["--describe"]), &["root=ERROR"])?;
    tools.run(CONFIGS, &with(&["--alter", "--add-config", "root=WARN"]))?;
    let loud = with(&["--alter", "--add-config", "root=LOUD"]);
    tools.fail(CONFIGS, &loud, "Cannot set the log level of root to LOUD")
}

fn more_partitions(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("partitions");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let mut tools = Tools::of(session);
    let alter = |count| ["--alter", "--topic", &topic, "--partitions", count];
    tools.run(TOPICS, &alter("3"))?;
    tools.until(TOPICS, &["--describe", "--topic", &topic], &["PartitionCount: 3"])?;
    tools.fail(TOPICS, &alter("2"), "would not be an increase")?;
    tools.fail(TOPICS, &alter("3"), "Topic already has 3 partition")?;
    let record = Record::new(2, now_ms(), None, Some(b"in the new partition"));
    session.write(Library::Java, &topic, &[record], Writing::default())?;
    session.check_topic(Library::Java, &topic)
}

/// A file that says where partitions are to begin.
fn offsets_file(session: &Session, name: &str, offsets: &[(&str, i32, i64)]) -> Result<PathBuf> {
    let partition = |(topic, partition, offset): &(&str, i32, i64)| serde_json::json!({ "topic": topic, "partition": partition, "offset": offset });
    let partitions: Vec<Value> = offsets.iter().map(partition).collect();
    let text = serde_json::json!({ "partitions": partitions, "version": 1 }).to_string();
    let path = session.directory().join(format!("{name}.json"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

const DELETE_RECORDS: &str = "tools.DeleteRecordsCommand";

fn delete_records(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("front");
    session.adapter(Library::Java).create(&topic, 2, &[])?;
    let records: Vec<Record> =
        (0..20).map(|i| Record::new(i % 2, now_ms(), None, Some(b"to be deleted"))).collect();
    session.adapter(Library::Java).produce(&topic, &records, Writing::default())?;
    let file = offsets_file(session, &topic, &[(&topic, 0, 4), (&topic, 1, -1)])?;
    let path = file.display().to_string();
    let printed = Tools::of(session).run(DELETE_RECORDS, &["--offset-json-file", &path])?;
    for partition in
        [format!("{topic}-0\tlow_watermark: 4"), format!("{topic}-1\tlow_watermark: 10")]
    {
        ensure!(printed.contains(&partition), "{partition:?} is missing:\n{printed}");
    }
    let adapter = session.adapter(Library::Java);
    ensure!(adapter.watermarks(&topic, 0)? == (4, 10), "partition 0 begins elsewhere");
    ensure!(adapter.watermarks(&topic, 1)? == (10, 10), "partition 1 begins elsewhere");
    let file = offsets_file(session, &topic, &[(&topic, 0, 11)])?;
    let path = file.display().to_string();
    let printed = Tools::of(session).any(DELETE_RECORDS, &["--offset-json-file", &path])?;
    let all = printed.out + &printed.err;
    ensure!(all.contains("OffsetOutOfRangeException"), "an offset beyond the end:\n{all}");
    Ok(())
}

fn log_dirs(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("sizes");
    session.adapter(Library::Java).create(&topic, 2, &[])?;
    let record = Record::new(1, now_ms(), None, Some(&[b'x'; 1000]));
    session.adapter(Library::Java).produce(&topic, &[record], Writing::default())?;
    let directory = session.broker.data_directory()?;
    let arguments = ["--describe", "--topic-list", &topic];
    let printed = Tools::of(session).run("tools.LogDirsCommand", &arguments)?;
    let json = printed.lines().find(|line| line.starts_with('{')).context("no JSON")?;
    let described: Value = serde_json::from_str(json)?;
    let log_dir = described.pointer("/brokers/0/logDirs/0").context("no log directory")?;
    let name = log_dir.get("logDir").and_then(Value::as_str).context("no name")?;
    ensure!(
        std::fs::canonicalize(name)? == std::fs::canonicalize(&directory)?,
        "{name} is not {}",
        directory.display()
    );
    let partitions =
        log_dir.get("partitions").and_then(Value::as_array).context("no partitions")?;
    let size = |partition: i32| {
        let name = format!("{topic}-{partition}");
        let found =
            partitions.iter().find(|it| it.get("partition") == Some(&Value::from(name.as_str())));
        found.and_then(|it| it.get("size")?.as_i64())
    };
    ensure!(size(0) == Some(0), "an empty partition: {json}");
    ensure!(
        size(1).is_some_and(|size| (1000..2000).contains(&size)),
        "a record of 1000 bytes: {json}"
    );
    Ok(())
}

fn metadata_quorum(session: &mut Session) -> Result<()> {
    const CLASS: &str = "tools.MetadataQuorumCommand";
    let mut tools = Tools::of(session);
    let status = tools.run(CLASS, &["describe", "--status"])?;
    for words in [
        "LeaderId:",
        "LeaderEpoch:",
        "HighWatermark:",
        "MaxFollowerLag:",
        "CurrentVoters:",
        "CurrentObservers:       []",
    ] {
        ensure!(status.contains(words), "{words:?} is missing:\n{status}");
    }
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit([' ', '\t']).next().unwrap_or_default().to_owned()
    };
    ensure!(of("LeaderId:") == "1" && of("MaxFollowerLag:") == "0", "{status}");
    let replication = tools.run(CLASS, &["describe", "--replication", "--human-readable"])?;
    ensure!(replication.contains("Leader"), "no leader among the replicas:\n{replication}");
    Ok(())
}

fn features(session: &mut Session) -> Result<()> {
    const CLASS: &str = "tools.FeatureCommand";
    let mut tools = Tools::of(session);
    let described = tools.run(CLASS, &["describe"])?;
    let line = described.lines().find(|line| line.contains("metadata.version"));
    let line = line.context("no metadata.version")?;
    ensure!(line.contains("FinalizedVersionLevel: 4.3-IV0"), "{line}");
    let downgrade = ["downgrade", "--metadata", "4.2-IV1"];
    tools.fail(CLASS, &downgrade, "Refusing to perform the requested downgrade")
}

fn leader_election(session: &mut Session) -> Result<()> {
    const CLASS: &str = "tools.LeaderElectionCommand";
    let topic = session.new_topic("elected");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let mut tools = Tools::of(session);
    let one = ["--election-type", "preferred", "--topic", &topic, "--partition", "0"];
    let printed = tools.run(CLASS, &one)?;
    ensure!(printed.contains("Valid replica already elected for partitions"), "{printed}");
    tools.run(CLASS, &["--election-type", "preferred", "--all-topic-partitions"])?;
    let unknown =
        ["--election-type", "preferred", "--topic", "nobody-made-this", "--partition", "0"];
    tools.fail(CLASS, &unknown, "1 replica(s) could not be elected")
}

fn reassignments(session: &mut Session) -> Result<()> {
    let mut tools = Tools::of(session);
    let printed = tools.run("tools.reassign.ReassignPartitionsCommand", &["--list"])?;
    ensure!(printed.contains("No partition reassignments found."), "{printed}");
    Ok(())
}

fn other_directory(session: &mut Session) -> Result<()> {
    const REASSIGN: &str = "tools.reassign.ReassignPartitionsCommand";
    let home = session.directory().join("other-directory");
    let [first, second] = two_data_directories(&home);
    let mut broker = session.target().start_with_two_directories(&home, SETTINGS)?;
    let bootstrap = broker.address().to_owned();
    let mut adapter = Adapter::new(Library::Java, &bootstrap, &home);
    adapter.create("moved", 1, &[])?;
    let records: Vec<Record> =
        (0..10).map(|_| Record::new(0, now_ms(), None, Some(b"x"))).collect();
    adapter.produce("moved", &records, Writing::default())?;
    let is_in = |directory: &PathBuf| directory.join("moved-0").is_dir();
    let (from, to) = if is_in(&first) { (first, second) } else { (second, first) };
    ensure!(is_in(&from) && !is_in(&to), "the partition is nowhere, or twice");
    let file = home.join("reassignment.json");
    let log_dir = to.display().to_string();
    let partition = serde_json::json!(
        { "topic": "moved", "partition": 0, "replicas": [1], "log_dirs": [log_dir] }
    );
    let plan = serde_json::json!({ "version": 1, "partitions": [partition] });
    std::fs::write(&file, plan.to_string())?;
    let file = file.display().to_string();
    let mut tools = Tools { adapter: &mut adapter, bootstrap };
    let printed = tools.run(REASSIGN, &["--execute", "--reassignment-json-file", &file])?;
    ensure!(printed.contains("Successfully started"), "{printed}");
    let verify = ["--verify", "--reassignment-json-file", &file];
    tools.until(
        REASSIGN,
        &verify,
        &["Reassignment of replica moved-0-1 completed successfully."],
    )?;
    ensure!(is_in(&to) && !is_in(&from), "the partition is not where the tool says");
    let printed = tools.run("tools.LogDirsCommand", &["--describe", "--topic-list", "moved"])?;
    let (current, copy) = ("\"isFuture\":false", "\"isFuture\":true");
    ensure!(printed.contains(current) && !printed.contains(copy), "{printed}");
    let read = adapter.consume("moved", 0, 0, 10)?;
    ensure!(read.len() == 10, "{} of 10 records are read", read.len());
    broker.stop()
}

fn acls(session: &mut Session) -> Result<()> {
    Tools::of(session).fail("tools.AclCommand", &["--list"], "No Authorizer is configured")
}

fn cluster(session: &mut Session) -> Result<()> {
    const CLASS: &str = "tools.ClusterTool";
    let bootstrap = session.bootstrap();
    let adapter = session.adapter(Library::Java);
    let mut run = |arguments: &[&str], words: &str| {
        // This one wants its command first.
        let (command, more) = arguments.split_first().context("a command")?;
        let all = [&[command, "--bootstrap-server", &bootstrap], more].concat();
        let ToolOutput { out, err, .. } = adapter.tool(CLASS, &all, b"")?;
        let printed = out + &err;
        ensure!(printed.contains(words), "{arguments:?} does not print {words:?}:\n{printed}");
        Ok(())
    };
    run(&["cluster-id"], "Cluster ID: ")?;
    run(&["list-endpoints"], "unfenced")?;
    run(&["unregister", "--id", "77"], "Broker ID 77 is not currently registered")
}

fn transactions(session: &mut Session) -> Result<()> {
    let printed = Tools::of(session).run("tools.TransactionsCommand", &["list"])?;
    let rows = printed.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(rows == 1, "more than a headline:\n{printed}");
    Ok(())
}

fn after_kill(session: &mut Session) -> Result<()> {
    let directory = session.directory().join("administration");
    let mut broker = session.target().start(&directory, SETTINGS)?;
    let bootstrap = broker.address().to_owned();
    let mut adapter = Adapter::new(Library::Java, &bootstrap, &directory);
    adapter.create("kept", 1, &[])?;
    let records: Vec<Record> =
        (0..10).map(|_| Record::new(0, now_ms(), None, Some(b"x"))).collect();
    adapter.produce("kept", &records, Writing::default())?;
    let file = offsets_file(session, "kept", &[("kept", 0, 4)])?.display().to_string();
    let mut tools = Tools { adapter: &mut adapter, bootstrap };
    let changes = [
        ("topics", Some("kept"), "retention.ms=-1"),
        ("brokers", Some("1"), "message.max.bytes=3000"),
        ("brokers", None, "log.retention.ms=9000000"),
        ("client-metrics", Some("s"), "interval.ms=60000"),
    ];
    let about = |kind: &'static str, name: Option<&'static str>| {
        let name =
            name.map_or_else(|| vec!["--entity-default"], |name| vec!["--entity-name", name]);
        [vec!["--entity-type", kind], name].concat()
    };
    for (kind, name, config) in changes {
        let alter = [about(kind, name), vec!["--alter", "--add-config", config]].concat();
        tools.run(CONFIGS, &alter)?;
    }
    tools.run(TOPICS, &["--alter", "--topic", "kept", "--partitions", "3"])?;
    tools.run(DELETE_RECORDS, &["--offset-json-file", &file])?;
    // Apache Kafka writes down where logs begin only now and then: it is stopped, and Ottla is killed.
    match broker.target() {
        Target::Kafka => broker.stop()?,
        Target::Ottla => broker.kill9()?,
    }
    broker.restart()?;
    for (kind, name, config) in changes {
        let describe = [about(kind, name), vec!["--describe"]].concat();
        tools.until(CONFIGS, &describe, &[config])?;
    }
    tools.until(TOPICS, &["--describe", "--topic", "kept"], &["PartitionCount: 3"])?;
    ensure!(adapter.watermarks("kept", 0)? == (4, 10), "deleted records are back");
    // In effect, not only remembered.
    let large = Record::new(0, now_ms(), None, Some(&[b'x'; 4000]));
    let refused = adapter.produce("kept", &[large], Writing::default());
    let refusal = refused.err().context("a record above message.max.bytes was taken")?;
    ensure!(format!("{refusal:#}").contains("TooLarge"), "refused otherwise: {refusal:#}");
    broker.stop()
}
