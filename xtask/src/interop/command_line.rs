//! Ottla's own command line, which must serve an administrator of Apache Kafka as well (shell).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Test;
use super::session::{Session, eventually};
use crate::ottla;
use crate::process::{Finished, run};

const LIMIT: Duration = Duration::from_secs(30);
/// How long Apache Kafka may take to apply what it has confirmed.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) fn tests() -> Vec<Test> {
    let test = |sentence: &str, run: fn(&mut Session) -> Result<()>| {
        Test::new(format!("command line: {sentence}"), &[], run)
    };
    vec![
        test("properties of a topic are set, shown and deleted", topic_properties),
        test("properties of one and of all brokers are set, shown and deleted", broker_properties),
        test("a topic grows, and its oldest records are deleted", grow_and_delete),
    ]
}

/// Runs `ottla`; it must end with this exit code.
fn ottla(session: &Session, exit: i32, arguments: &[&str], input: &str) -> Result<Finished> {
    let mut command = Command::new(ottla::binary()?);
    command.args(arguments).args(["--bootstrap", &session.bootstrap()]);
    let finished = run(command, input.as_bytes(), LIMIT)?;
    let (code, said) = (finished.status.code(), finished.stderr_text());
    ensure!(code == Some(exit), "ottla {arguments:?}: exit {code:?} in place of {exit}\n{said}");
    Ok(finished)
}

fn prints(session: &Session, arguments: &[&str], input: &str) -> Result<String> {
    Ok(ottla(session, 0, arguments, input)?.stdout_text())
}

fn json(session: &Session, arguments: &[&str]) -> Result<Value> {
    let printed = prints(session, &[arguments, &["--output", "json"]].concat(), "")?;
    serde_json::from_str(&printed).with_context(|| format!("ottla {arguments:?}: {printed}"))
}

/// The value and the source of one of a resource's own properties.
fn own(session: &Session, resource: &str, name: &str) -> Result<Option<(String, String)>> {
    let all = json(session, &["config", "describe", resource])?;
    let mut entries = all.as_array().context("no list of properties")?.iter();
    let found = entries.find(|entry| entry["name"] == name);
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    Ok(found.map(|entry| (text(entry, "value"), text(entry, "source"))))
}

fn becomes(
    session: &Session,
    resource: &str,
    name: &str,
    expected: Option<(&str, &str)>,
) -> Result<()> {
    let mut last = None;
    eventually(SETTLE, || {
        last = own(session, resource, name)?;
        let same = last.as_ref().map(|(value, source)| (value.as_str(), source.as_str()));
        Ok((same == expected).then_some(()))
    })
    .with_context(|| format!("{name} of {resource} is {last:?}, not {expected:?}"))
}

fn topic_properties(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-configs");
    let resource = format!("topic/{topic}");
    prints(session, &["topic", "create", &topic], "")?;
    let set = ["config", "set", &resource, "retention.ms=1234567", "cleanup.policy=compact,delete"];
    let printed = prints(session, &set, "")?;
    ensure!(printed.contains("retention.ms, cleanup.policy"), "{printed}");
    becomes(session, &resource, "retention.ms", Some(("1234567", "DYNAMIC_TOPIC_CONFIG")))?;
    becomes(
        session,
        &resource,
        "cleanup.policy",
        Some(("compact,delete", "DYNAMIC_TOPIC_CONFIG")),
    )?;
    prints(session, &["config", "delete", &resource, "retention.ms"], "")?;
    becomes(session, &resource, "retention.ms", None)?;
    let wrong = ottla(session, 1, &["config", "set", &resource, "retention.ms=soon"], "")?;
    ensure!(wrong.stderr_text().contains("INVALID_CONFIG"), "{}", wrong.stderr_text());
    ottla(session, 4, &["config", "set", "topic/nobody-made-this", "retention.ms=1"], "")?;
    ottla(session, 4, &["config", "describe", "topic/nobody-made-this"], "").map(drop)
}

fn broker_properties(session: &mut Session) -> Result<()> {
    let name = "log.cleaner.backoff.ms";
    let one = |value| Some((value, "DYNAMIC_BROKER_CONFIG"));
    let all = |value| Some((value, "DYNAMIC_DEFAULT_BROKER_CONFIG"));
    prints(session, &["config", "set", "brokers", "log.cleaner.backoff.ms=14000"], "")?;
    becomes(session, "brokers", name, all("14000"))?;
    becomes(session, "broker/1", name, all("14000"))?;
    prints(session, &["config", "set", "broker/1", "log.cleaner.backoff.ms=13000"], "")?;
    becomes(session, "broker/1", name, one("13000"))?;
    prints(session, &["config", "delete", "broker/1", name], "")?;
    becomes(session, "broker/1", name, all("14000"))?;
    prints(session, &["config", "delete", "brokers", name], "")?;
    becomes(session, "brokers", name, None)?;
    let refused = ottla(session, 1, &["config", "set", "broker/1", "node.id=3"], "")?;
    ensure!(refused.stderr_text().contains("node.id"), "{}", refused.stderr_text());
    Ok(())
}

fn grow_and_delete(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-grows");
    prints(session, &["topic", "create", &topic], "")?;
    let lines: String = (0..10).map(|line| format!("{line}\n")).collect();
    prints(session, &["produce", &topic], &lines)?;
    prints(session, &["topic", "delete-records", &topic, "--before", "4"], "")?;
    let consume = ["consume", &topic, "--from", "beginning", "--until-end", "--format", "%v"];
    let left = prints(session, &consume, "")?;
    ensure!(left == "4\n5\n6\n7\n8\n9\n", "left are {left:?}");
    ottla(session, 1, &["topic", "delete-records", &topic, "--before", "11"], "")?;
    prints(session, &["topic", "delete-records", &topic, "--before", "end"], "")?;
    let left = prints(session, &consume, "")?;
    ensure!(left.is_empty(), "left are {left:?}");
    prints(session, &["topic", "alter", &topic, "--partitions", "3"], "")?;
    eventually(SETTLE, || {
        let shown = json(session, &["topic", "describe", &topic])?;
        let partitions = shown.pointer("/0/partitions").and_then(Value::as_array);
        Ok(partitions.is_some_and(|all| all.len() == 3).then_some(()))
    })?;
    ottla(session, 1, &["topic", "alter", &topic, "--partitions", "2"], "").map(drop)
}
