//! Apache Kafka's own command line tools (shell).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Test;
use super::adapter::{Library, Writing};
use super::fetch;
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use crate::kafka;
use crate::process::run_ok;

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("tools: {sentence}"), Library::Java.needs(), run)
    };
    let mut tests = vec![
        test("BrokerApiVersionsCommand lists the broker's versions", api_versions),
        test("TopicCommand creates, lists and deletes", topic_command),
        test("TopicCommand describes partitions and configuration", topic_describe)
            .of_one()
            .once_served("DescribeConfigs(32)"),
        test("TopicCommand's mistakes are answered with Kafka's errors", topic_mistakes).of_one(),
        test("GetOffsetShell finds every kind of offset", get_offset_shell),
        test("ProducerPerformance's records all arrive", producer_performance),
        test("VerifiableProducer has every record acknowledged", verifiable_producer),
        test("TransactionsCommand describes who has written to a partition", describe_producers),
        test("EndToEndLatency sends and receives one record at a time", end_to_end_latency)
            .once_served("OffsetCommit(8)"),
    ];
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let name = format!("tools: the console consumer prints what the producer read, {codec}");
        tests.push(Test::new(name, Library::Java.needs(), move |session| console(session, codec)));
    }
    tests
}

/// Runs a tool that is given the broker's address; an exit status but 0 is an error.
fn tool(session: &mut Session, class: &str, arguments: &[&str], input: &[u8]) -> Result<String> {
    let output = any(session, class, arguments, input)?;
    let (out, err) = (&output.out, &output.err);
    ensure!(output.status == 0, "{class} {arguments:?}: exit {}\n{out}\n{err}", output.status);
    Ok(output.out)
}

fn any(
    session: &mut Session,
    class: &str,
    arguments: &[&str],
    input: &[u8],
) -> Result<super::adapter::ToolOutput> {
    let bootstrap = session.bootstrap();
    let mut all = vec!["--bootstrap-server", &bootstrap];
    all.extend(arguments);
    session.adapter(Library::Java).tool(class, &all, input)
}

fn api_versions(session: &mut Session) -> Result<()> {
    let shown = tool(session, "tools.BrokerApiVersionsCommand", &[], b"")?;
    let address = session.bootstrap();
    ensure!(shown.contains(&address), "{address} is not named:\n{shown}");
    for api in ["Produce(0): 0 to 13", "Fetch(1): 4 to 18", "ApiVersions(18): 0 to "] {
        ensure!(shown.contains(api), "{api:?} is missing:\n{shown}");
    }
    ensure!(!shown.contains("ERROR"), "it shows an error:\n{shown}");
    Ok(())
}

const TOPICS: &str = "tools.TopicCommand";

fn topic_command(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("topic-command");
    let create = ["--create", "--topic", &topic, "--partitions", "3"];
    let shown = tool(session, TOPICS, &create, b"")?;
    ensure!(shown.contains(&format!("Created topic {topic}.")), "it says {shown}");
    let listed = tool(session, TOPICS, &["--list"], b"")?;
    ensure!(listed.lines().any(|line| line == topic), "it is not listed: {listed}");
    tool(session, TOPICS, &["--create", "--if-not-exists", "--topic", &topic], b"")?;
    tool(session, TOPICS, &["--delete", "--topic", &topic], b"")?;
    eventually(Duration::from_secs(10), || {
        let listed = tool(session, TOPICS, &["--list"], b"")?;
        Ok((!listed.lines().any(|line| line == topic)).then_some(()))
    })
    .context("a deleted topic is still listed")
}

fn topic_describe(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("topic-describe");
    let config = "retention.ms=7654321";
    let create = ["--create", "--topic", &topic, "--partitions", "3", "--config", config];
    tool(session, TOPICS, &create, b"")?;
    let described = tool(session, TOPICS, &["--describe", "--topic", &topic], b"")?;
    let expected = ["PartitionCount: 3", "ReplicationFactor: 1", config, "Leader: 1", "Isr: 1"];
    for word in expected {
        ensure!(described.contains(word), "{word:?} is missing:\n{described}");
    }
    let partitions = described.lines().filter(|line| line.contains("Partition: ")).count();
    ensure!(partitions == 3, "{partitions} partitions are described:\n{described}");
    Ok(())
}

/// The tool prints the broker's words; Kafka's error codes show as the client's exceptions.
fn topic_mistakes(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("mistakes");
    tool(session, TOPICS, &["--create", "--topic", &topic], b"")?;
    let again = any(session, TOPICS, &["--create", "--topic", &topic], b"")?;
    ensure!(again.status == 1, "creating it again: exit {}, {}", again.status, again.out);
    let create = |topic: &str, partitions: i32, more: Value| {
        let mut request =
            json!({ "do": "create", "topic": topic, "partitions": partitions, "configs": {} });
        if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
            request.extend(more.clone());
        }
        request
    };
    let mistakes = [
        (create(&topic, 1, json!({})), "TopicExistsException"),
        (create("no/slash", 1, json!({})), "InvalidTopicException"),
        (create("..", 1, json!({})), "InvalidTopicException"),
        (create("zero", 0, json!({})), "InvalidPartitionsException"),
        (create("factor", 1, json!({ "replication": 3 })), "InvalidReplicationFactorException"),
        (create("config", 1, json!({ "configs": { "no.such": "1" } })), "InvalidConfig"),
        (create("value", 1, json!({ "configs": { "retention.ms": "long" } })), "InvalidConfig"),
        (json!({ "do": "delete", "topic": "nobody-made-this" }), "UnknownTopicOrPartition"),
    ];
    for (request, error) in mistakes {
        let Err(refusal) = session.adapter(Library::Java).ask(request.clone()) else {
            bail!("{request} was accepted");
        };
        ensure!(refusal.to_string().contains(error), "{request} is no {error}: {refusal}");
    }
    Ok(())
}

fn describe_producers(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("describe-producers");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let writing = Writing { idempotence: true, ..Writing::default() };
    let time = now_ms();
    for count in [3, 5] {
        let record = |n: i64| Record::new(0, time + n, None, Some(b"value"));
        let records: Vec<Record> = (0..count).map(record).collect();
        session.write(Library::Java, &topic, &records, writing)?;
    }
    let describe = ["describe-producers", "--topic", &topic, "--partition", "0"];
    let shown = tool(session, "tools.TransactionsCommand", &describe, b"")?;
    let mut lines = shown.lines().filter(|line| !line.trim().is_empty());
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let columns =
        ["ProducerEpoch", "LastSequence", "LastTimestamp", "CurrentTransactionStartOffset"];
    let places: Vec<usize> =
        columns.iter().filter_map(|column| head.iter().position(|other| other == column)).collect();
    let row = |line: &str| -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        places.iter().filter_map(|place| words.get(*place).map(|word| (*word).to_owned())).collect()
    };
    let mut rows: Vec<Vec<String>> = lines.map(row).collect();
    rows.sort();
    let producer = |last: i64| {
        ["0".to_owned(), last.to_string(), (time + last).to_string(), "None".to_owned()].to_vec()
    };
    ensure!(rows == [producer(2), producer(4)], "it shows {rows:?}:\n{shown}");
    Ok(())
}

fn get_offset_shell(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("offset-shell");
    session.adapter(Library::Java).create(&topic, 2, &[])?;
    let start = now_ms() - 100_000;
    // The largest timestamp is not the last one.
    let times = [start, start + 1000, start + 9000, start + 2000];
    let records: Vec<Record> =
        times.iter().map(|&time| Record::new(0, time, None, Some(b"x"))).collect();
    session.write(Library::Java, &topic, &records, Writing::default())?;
    let in_between = (start + 500).to_string();
    let expectations = [
        ("latest", "0:4 1:0"),
        ("-1", "0:4 1:0"),
        ("earliest", "0:0 1:0"),
        ("-2", "0:0 1:0"),
        ("max-timestamp", "0:2"),
        ("-3", "0:2"),
        ("earliest-local", "0:0 1:0"),
        ("-4", "0:0 1:0"),
        ("latest-tiered", ""),
        ("-5", ""),
        (in_between.as_str(), "0:1"),
    ];
    for (time, expected) in expectations {
        let arguments = ["--topic", &topic, "--time", time];
        let shown = tool(session, "tools.GetOffsetShell", &arguments, b"")?;
        // A partition without such an offset has a line without a number, or no line.
        let found: Vec<&str> = shown
            .lines()
            .filter_map(|line| line.strip_prefix(&topic)?.strip_prefix(':'))
            .filter(|line| !line.ends_with(':') && !line.ends_with(":-1"))
            .collect();
        ensure!(found.join(" ") == expected, "--time {time} shows {shown:?}, not {expected:?}");
    }
    Ok(())
}

fn end_offset(session: &mut Session, topic: &str) -> Result<i64> {
    Ok(session.adapter(Library::Java).watermarks(topic, 0)?.1)
}

fn producer_performance(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("performance");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let count = "50000";
    let mut arguments = vec!["--topic", &topic, "--num-records", count, "--record-size", "100"];
    arguments.extend(["--throughput", "-1", "--command-property", "acks=all"]);
    let shown = tool(session, "tools.ProducerPerformance", &arguments, b"")?;
    ensure!(shown.contains("50000 records sent"), "it says {shown}");
    let end = end_offset(session, &topic)?;
    ensure!(end == 50_000, "the partition ends at {end}");
    Ok(())
}

/// In a process of its own: it closes its producer only when its process ends.
fn verifiable_producer(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("verifiable");
    session.adapter(Library::Java).create(&topic, 1, &[])?;
    let mut command = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
    command
        .args(["org.apache.kafka.tools.VerifiableProducer", "--topic", &topic])
        .args(["--bootstrap-server", &session.bootstrap(), "--max-messages", "2000"])
        .args(["--acks", "-1"]);
    let shown = run_ok(command, b"", LIMIT)?.stdout_text();
    let events: Vec<Value> =
        shown.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    ensure!(named("producer_send_success") == 2000, "acknowledged: {shown:.500}");
    ensure!(named("producer_send_error") == 0, "refused: {shown:.500}");
    let read = session.adapter(Library::Java).consume(&topic, 0, 0, 2000)?;
    let values = read.iter().map(|(_, record)| record.value.clone().unwrap_or_default());
    ensure!(values.eq((0..2000).map(|i| i.to_string().into_bytes())), "the values differ");
    Ok(())
}

fn end_to_end_latency(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("latency");
    let mut arguments = vec!["--topic", &topic, "--num-records", "200"];
    arguments.extend(["--producer-acks", "all", "--record-size", "100"]);
    let shown = tool(session, "tools.EndToEndLatency", &arguments, b"")?;
    ensure!(shown.contains("Percentiles"), "it says {shown}");
    Ok(())
}

fn console(session: &mut Session, codec: &str) -> Result<()> {
    let topic = session.new_topic(&format!("console-{codec}"));
    let lines: String =
        (0..100).map(|i| format!("a:1,b:two\tkey {i}\tvalue {i}, Öttla\n")).collect();
    let mut write = vec!["--topic", &topic, "--compression-codec", codec];
    write.extend(["--reader-property", "parse.key=true"]);
    write.extend(["--reader-property", "parse.headers=true"]);
    tool(session, "tools.ConsoleProducer", &write, lines.as_bytes())?;
    let mut read = vec!["--topic", &topic, "--partition", "0", "--offset", "earliest"];
    read.extend(["--max-messages", "100", "--timeout-ms", "20000"]);
    read.extend(["--formatter-property", "print.key=true"]);
    read.extend(["--formatter-property", "print.headers=true"]);
    let printed = tool(session, "tools.consumer.ConsoleConsumer", &read, b"")?;
    ensure!(printed == lines, "printed {printed:.300}…, written {lines:.300}…");
    Ok(())
}
