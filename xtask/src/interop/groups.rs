//! Apache Kafka's command line tools for consumer groups, and the tools that consume in one (shell).

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Test;
use super::adapter::{Library, ToolOutput, Writing, part};
use super::fetch;
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::kafka;
use crate::process::Process;

const GROUPS: &str = "tools.consumer.group.ConsumerGroupCommand";
const LIMIT: Duration = Duration::from_secs(30);
/// Records in each of the three partitions of a test's topic, a second apart.
const EACH: i64 = 10;

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("tools: {sentence}"), Library::Java.needs(), run)
            .once_served("OffsetCommit(8)")
    };
    vec![
        test("ConsumerGroupCommand lists groups with their types and states", list),
        test("ConsumerGroupCommand describes offsets, members and state", describe),
        test("ConsumerGroupCommand resets offsets in every way", reset_offsets),
        test("ConsumerGroupCommand moves no offset of a group with members", reset_active),
        test("ConsumerGroupCommand deletes offsets and groups", delete)
            .once_served("OffsetDelete(47)"),
        test("GroupsCommand lists groups of every kind", groups_command),
        test("DeleteRecordsCommand deletes up to an offset", delete_records)
            .once_served("DeleteRecords(21)"),
        test("ClusterTool tells the cluster's id and its endpoints", cluster_tool),
        test("ConsumerPerformance reads what was written", consumer_performance),
        test("the console consumer commits for its group", console_group),
        test("VerifiableConsumer is told of each rebalance and commits", verifiable_consumer),
        test("DumpLogSegments decodes what groups committed", dump_offsets).of_one(),
    ]
}

fn any(session: &mut Session, class: &str, arguments: &[&str]) -> Result<ToolOutput> {
    let bootstrap = session.bootstrap();
    let mut all = vec!["--bootstrap-server", &bootstrap];
    all.extend(arguments);
    session.adapter(Library::Java).tool(class, &all, b"")
}

fn tool(session: &mut Session, class: &str, arguments: &[&str]) -> Result<String> {
    let output = any(session, class, arguments)?;
    let (out, err) = (&output.out, &output.err);
    ensure!(output.status == 0, "{class} {arguments:?}: exit {}\n{out}\n{err}", output.status);
    ensure!(!out.contains("Error:"), "{class} {arguments:?} says {out}");
    Ok(output.out)
}

/// The rows of a table that a tool prints, each as a map from the heading.
fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut headings: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"GROUP") {
            headings = words;
        } else if !words.is_empty() && words.len() >= headings.len() && !headings.is_empty() {
            let pairs = headings.iter().zip(&words);
            rows.push(pairs.map(|(name, word)| ((*name).to_owned(), (*word).to_owned())).collect());
        }
    }
    rows
}

fn cell<'a>(row: &'a BTreeMap<String, String>, heading: &str) -> &'a str {
    row.get(heading).map_or("", String::as_str)
}

/// A topic of three partitions with records, and a group without members that stands at 4.
struct Idle {
    topic: String,
    group: String,
    /// The time of the first records.
    start: i64,
}

impl Idle {
    fn new(session: &mut Session, stem: &str) -> Result<Self> {
        let topic = session.new_topic(stem);
        let group = format!("{topic}-group");
        let start = now_ms() - 3_600_000;
        let client = session.adapter(Library::Java);
        client.create(&topic, 3, &[])?;
        let records: Vec<Record> = (0..EACH)
            .flat_map(|second| (0..3).map(move |partition| (partition, second * 1_000)))
            .map(|(partition, after)| Record::new(partition, start + after, None, Some(b"x")))
            .collect();
        client.produce(&topic, &records, Writing::default())?;
        let idle = Self { topic, group, start };
        idle.commit(session, 4)?;
        Ok(idle)
    }

    fn commit(&self, session: &mut Session, offset: i64) -> Result<()> {
        let offsets = json!({ "0": offset, "1": offset, "2": offset });
        let request =
            json!({ "do": "commit", "group": self.group, "topic": self.topic, "offsets": offsets });
        session.adapter(Library::Java).ask(request).map(drop)
    }

    fn committed(&self, session: &mut Session) -> Result<Vec<i64>> {
        let found = session.adapter(Library::Java).committed(&self.group, &self.topic)?;
        Ok(found.into_values().collect())
    }
}

fn list(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-list")?;
    let listed = tool(session, GROUPS, &["--list"])?;
    ensure!(listed.lines().any(|line| line == idle.group), "it is not listed: {listed}");
    let states = tool(session, GROUPS, &["--list", "--state"])?;
    let row = table(&states).into_iter().find(|row| cell(row, "GROUP") == idle.group);
    let row = row.with_context(|| format!("it has no state: {states}"))?;
    ensure!(cell(&row, "STATE") == "Empty", "its state: {row:?}");
    let stable = tool(session, GROUPS, &["--list", "--state", "Stable"])?;
    ensure!(!stable.contains(&idle.group), "an empty group is listed as stable: {stable}");
    Ok(())
}

fn describe(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-describe")?;
    let shown = tool(session, GROUPS, &["--describe", "--group", &idle.group])?;
    let rows = table(&shown);
    ensure!(rows.len() == 3, "{} partitions are described: {shown}", rows.len());
    for row in &rows {
        let found = ["CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"].map(|heading| cell(row, heading));
        ensure!(found == ["4", "10", "6"], "{row:?}");
    }
    let join = json!({
        "do": "join", "member": idle.group, "group": idle.group, "topic": idle.topic,
        "session": 6000, "assignor": "range", "instance": null,
    });
    session.adapter(Library::Java).ask(join)?;
    eventually(LIMIT, || {
        let shown = tool(session, GROUPS, &["--describe", "--group", &idle.group, "--state"])?;
        let row = table(&shown).pop().unwrap_or_default();
        Ok((cell(&row, "STATE") == "Stable" && cell(&row, "#MEMBERS") == "1").then_some(()))
    })
    .context("the state with one member")?;
    let arguments = ["--describe", "--group", &idle.group, "--members", "--verbose"];
    let members = tool(session, GROUPS, &arguments)?;
    let row = table(&members).pop().with_context(|| format!("no member: {members}"))?;
    ensure!(cell(&row, "#PARTITIONS") == "3", "the member: {members}");
    ensure!(members.contains(&idle.topic), "what it is assigned is not told: {members}");
    let all = tool(session, GROUPS, &["--describe", "--all-groups", "--state"])?;
    ensure!(all.contains(&idle.group), "it is not among all groups: {all}");
    session.adapter(Library::Java).ask(json!({ "do": "leave", "member": idle.group }))?;
    let gone = any(session, GROUPS, &["--describe", "--group", "nobody-made-this"])?;
    let said = format!("{}{}", gone.out, gone.err);
    ensure!(
        said.contains("nobody-made-this not found"),
        "of a group that is not there it says {said}"
    );
    Ok(())
}

fn reset_offsets(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-reset")?;
    let at = |after: i64| -> Result<String> { datetime(idle.start + after) };
    let (fifth, late) = (at(5_000)?, at(3_600_000)?);
    let plan = session.directory().join("reset.csv");
    fs::write(&plan, format!("{},0,2\n{},2,3\n", idle.topic, idle.topic))?;
    let plan = plan.display().to_string();
    let two = format!("{}:0,2", idle.topic);
    let whole = idle.topic.clone();
    let expectations: [(&[&str], &str, [i64; 3]); 10] = [
        (&["--to-earliest"], &whole, [0, 0, 0]),
        (&["--to-latest"], &whole, [EACH, EACH, EACH]),
        (&["--to-offset", "7"], &whole, [7, 7, 7]),
        (&["--to-offset", "99"], &whole, [EACH, EACH, EACH]),
        (&["--shift-by", "-3"], &two, [1, 4, 1]),
        (&["--shift-by", "2"], &whole, [6, 6, 6]),
        (&["--to-datetime", &fifth], &whole, [5, 5, 5]),
        (&["--by-duration", "PT1M"], &whole, [EACH, EACH, EACH]),
        (&["--to-current"], &whole, [4, 4, 4]),
        (&["--from-file", &plan], "", [2, 4, 3]),
    ];
    for (way, topic, expected) in expectations {
        idle.commit(session, 4)?;
        let mut arguments = vec!["--reset-offsets", "--group", &idle.group];
        arguments.extend(way);
        if !topic.is_empty() {
            arguments.extend(["--topic", topic]);
        }
        let planned = tool(session, GROUPS, &[&arguments[..], &["--dry-run"]].concat())?;
        ensure!(planned.contains("NEW-OFFSET"), "{way:?} plans {planned}");
        let still = idle.committed(session)?;
        ensure!(still == [4, 4, 4], "{way:?} --dry-run moved the group to {still:?}");
        tool(session, GROUPS, &[&arguments[..], &["--execute"]].concat())?;
        let moved = idle.committed(session)?;
        ensure!(moved == expected, "{way:?} moved the group to {moved:?}, not {expected:?}");
    }
    let exported = ["--reset-offsets", "--group", &idle.group, "--topic", &whole, "--to-datetime"];
    let exported = tool(session, GROUPS, &[&exported[..], &[&late, "--export"]].concat())?;
    let line = format!("{},1,{EACH}", idle.topic);
    ensure!(exported.replace('"', "").contains(&line), "it exports {exported}");
    Ok(())
}

/// As the tool reads it: `2026-01-31T12:34:56.789` in UTC, by way of the `date` that is everywhere.
fn datetime(milliseconds: i64) -> Result<String> {
    let mut command = std::process::Command::new("date");
    let seconds = format!("@{}.{:03}", milliseconds / 1000, milliseconds % 1000);
    command.args(["--utc", "--date", &seconds, "+%Y-%m-%dT%H:%M:%S.%3NZ"]);
    Ok(crate::process::run_ok(command, b"", LIMIT)?.stdout_text().trim().to_owned())
}

fn reset_active(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-active")?;
    let join = json!({
        "do": "join", "member": idle.group, "group": idle.group, "topic": idle.topic,
        "session": 6000, "assignor": "range", "instance": null,
    });
    session.adapter(Library::Java).ask(join)?;
    eventually(LIMIT, || Ok((idle.committed(session)? == [EACH; 3]).then_some(())))
        .context("the member does not read to the end")?;
    let arguments = ["--reset-offsets", "--group", &idle.group, "--topic", &idle.topic];
    let refused =
        any(session, GROUPS, &[&arguments[..], &["--to-earliest", "--execute"]].concat())?;
    let said = format!("{}{}", refused.out, refused.err);
    ensure!(said.contains("inactive"), "it says {said}");
    let committed = idle.committed(session)?;
    ensure!(committed == [EACH; 3], "it moved the group to {committed:?}");
    let refused = any(session, GROUPS, &["--delete", "--group", &idle.group])?;
    let said = format!("{}{}", refused.out, refused.err);
    ensure!(said.contains("not empty"), "deleting it, it says {said}");
    session.adapter(Library::Java).ask(json!({ "do": "leave", "member": idle.group })).map(drop)
}

fn delete(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-delete")?;
    let one = format!("{}:1", idle.topic);
    let arguments = ["--delete-offsets", "--group", &idle.group, "--topic", &one];
    let shown = tool(session, GROUPS, &arguments)?;
    ensure!(shown.contains("Successful"), "deleting an offset, it says {shown}");
    let left = session.adapter(Library::Java).committed(&idle.group, &idle.topic)?;
    ensure!(left.keys().copied().collect::<Vec<_>>() == [0, 2], "there are left {left:?}");
    let shown = tool(session, GROUPS, &["--delete", "--group", &idle.group])?;
    ensure!(shown.contains("successful"), "deleting the group, it says {shown}");
    let listed = tool(session, GROUPS, &["--list"])?;
    ensure!(!listed.lines().any(|line| line == idle.group), "it is still listed");
    let again = any(session, GROUPS, &["--delete", "--group", &idle.group])?;
    let said = format!("{}{}", again.out, again.err);
    ensure!(said.contains("GroupIdNotFound") || said.contains("not be found"), "it says {said}");
    Ok(())
}

fn groups_command(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-groups")?;
    let shown = tool(session, "tools.GroupsCommand", &["--list"])?;
    // No table: a group that nobody joined has no protocol, and an empty cell.
    let row = shown.lines().find(|line| line.split_whitespace().next() == Some(&idle.group));
    let row = row.with_context(|| format!("it is not listed: {shown}"))?;
    ensure!(row.split_whitespace().nth(1) == Some("Classic"), "its type: {row:?}");
    let share = tool(session, "tools.GroupsCommand", &["--list", "--share"])?;
    ensure!(!share.contains(&idle.group), "it is listed as a share group: {share}");
    Ok(())
}

fn delete_records(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-delete-records")?;
    let file = session.directory().join("delete-records.json");
    let partitions = json!([
        { "topic": idle.topic, "partition": 0, "offset": 3 },
        { "topic": idle.topic, "partition": 1, "offset": -1 },
    ]);
    fs::write(&file, json!({ "partitions": partitions, "version": 1 }).to_string())?;
    let file = file.display().to_string();
    let shown = tool(session, "tools.DeleteRecordsCommand", &["--offset-json-file", &file])?;
    ensure!(shown.contains("low_watermark: 3"), "it says {shown}");
    for (partition, low) in [(0, 3), (1, EACH), (2, 0)] {
        let seen = session.adapter(Library::Java).watermarks(&idle.topic, partition)?;
        ensure!(seen == (low, EACH), "partition {partition} has {seen:?}, not {low}");
    }
    Ok(())
}

fn cluster_tool(session: &mut Session) -> Result<()> {
    let bootstrap = session.bootstrap();
    let mut run = |arguments: &[&str]| -> Result<String> {
        let all = [arguments, &["--bootstrap-server", &bootstrap]].concat();
        let output = session.adapter(Library::Java).tool("tools.ClusterTool", &all, b"")?;
        ensure!(output.status == 0, "{arguments:?}: {}{}", output.out, output.err);
        Ok(output.out)
    };
    let id = run(&["cluster-id"])?;
    let id = id.trim().strip_prefix("Cluster ID: ").with_context(|| format!("it says {id}"))?;
    ensure!(id.len() == 22, "a cluster id has 22 characters: {id}");
    let endpoints = run(&["list-endpoints"])?;
    let (host, port) = bootstrap.split_once(':').context("an address has a port")?;
    ensure!(endpoints.contains(host) && endpoints.contains(port), "it lists {endpoints}");
    Ok(())
}

fn consumer_performance(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-performance")?;
    let arguments = ["--topic", &idle.topic, "--num-records", "30", "--timeout", "20000"];
    let shown = tool(session, "tools.ConsumerPerformance", &arguments)?;
    let count = shown.lines().last().and_then(|line| line.split(", ").nth(4));
    ensure!(count == Some("30"), "it read {count:?}: {shown}");
    Ok(())
}

fn console_group(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-console")?;
    let group = format!("{}-console", idle.topic);
    let arguments = ["--topic", &idle.topic, "--group", &group, "--from-beginning"];
    let more = ["--max-messages", "30", "--timeout-ms", "20000"];
    let all = [&arguments[..], &more[..]].concat();
    let printed = tool(session, "tools.consumer.ConsoleConsumer", &all)?;
    ensure!(printed.lines().count() == 30, "{} lines were printed", printed.lines().count());
    let committed = session.adapter(Library::Java).committed(&group, &idle.topic)?;
    ensure!(committed.into_values().sum::<i64>() == 30, "it did not commit what it read");
    let more = ["--max-messages", "1", "--timeout-ms", "2000"];
    let again = any(session, "tools.consumer.ConsoleConsumer", &[&arguments[..], &more].concat())?;
    ensure!(again.out.trim().is_empty(), "asked again, it prints {:.200}", again.out);
    Ok(())
}

fn verifiable_consumer(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-verifiable")?;
    let group = format!("{}-verifiable", idle.topic);
    let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
    command
        .args(["org.apache.kafka.tools.VerifiableConsumer", "--topic", &idle.topic])
        .args(["--bootstrap-server", &session.bootstrap(), "--group-id", &group])
        .args(["--max-messages", "30", "--reset-policy", "earliest"]);
    let log = session.directory().join("verifiable-consumer.log");
    let mut process = Process::spawn("VerifiableConsumer", command, &log)?;
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let deadline = Instant::now() + LIMIT;
    while seen.get("offsets_committed").copied().unwrap_or_default() < 30 {
        let (_, line) = process.next_line(deadline).with_context(|| format!("saw {seen:?}"))?;
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let name = part(&event, "/name").as_str().unwrap_or_default().to_owned();
        let count = match name.as_str() {
            "records_consumed" => part(&event, "/count").as_i64().unwrap_or_default(),
            // An event tells where each partition stands now.
            "offsets_committed" => {
                let offsets = part(&event, "/offsets").as_array().cloned().unwrap_or_default();
                offsets.iter().filter_map(|at| part(at, "/offset").as_i64()).sum()
            }
            _ => 1,
        };
        *seen.entry(name).or_default() += count;
    }
    ensure!(seen.contains_key("partitions_assigned"), "it was not told of an assignment");
    ensure!(seen.get("records_consumed") == Some(&30), "it consumed {seen:?}");
    Ok(())
}

fn dump_offsets(session: &mut Session) -> Result<()> {
    let idle = Idle::new(session, "tool-dump")?;
    let data = session.broker.data_directory()?;
    let mut logs = Vec::new();
    for entry in fs::read_dir(&data)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = path.join("00000000000000000000.log");
        if name.starts_with("__consumer_offsets-") && log.exists() {
            logs.push(log.display().to_string());
        }
    }
    ensure!(!logs.is_empty(), "there is no __consumer_offsets in {}", data.display());
    let arguments = ["--offsets-decoder", "--files", &logs.join(",")];
    let output = session.adapter(Library::Java).tool("tools.DumpLogSegments", &arguments, b"")?;
    ensure!(output.status == 0, "exit {}: {}", output.status, output.err);
    let of_group: Vec<&str> =
        output.out.lines().filter(|line| line.contains(&idle.group)).collect();
    ensure!(of_group.len() >= 3, "{} lines tell of the group", of_group.len());
    let told = of_group.iter().any(|line| line.contains("\"offset\":4"));
    ensure!(told, "what was committed is not decoded: {:?}", of_group.first());
    let key = format!("\"topic\":\"{}\"", idle.topic);
    ensure!(of_group.iter().any(|line| line.contains(&key)), "{:?}", of_group.first());
    Ok(())
}
