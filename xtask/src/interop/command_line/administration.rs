//! Whoever administers with Ottla's command line: properties that change, topics that grow, records that go (shell).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::Test;
use super::super::session::{Session, eventually};
use super::{at, contains, done, done_as_json, fails, test};

/// How long Apache Kafka may take to apply what it has confirmed.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("properties of a topic are set, shown and deleted", topic_properties),
        test("properties of one and of all brokers are set, shown and deleted", broker_properties),
        test("the cluster's own topics are not deleted by the way", internal_topics),
        test("a topic grows, and its oldest records are deleted", grow_and_delete),
    ]
}

/// The value and the source of one of a resource's own properties.
fn own(session: &Session, resource: &str, name: &str) -> Result<Option<(String, String)>> {
    let all = done_as_json(session, &["config", "describe", resource])?;
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
    done(session, &["topic", "create", &topic], "")?;
    let set = ["config", "set", &resource, "retention.ms=1234567", "cleanup.policy=compact,delete"];
    let printed = done(session, &set, "")?;
    contains(&printed, &["retention.ms, cleanup.policy"])?;
    becomes(session, &resource, "retention.ms", Some(("1234567", "DYNAMIC_TOPIC_CONFIG")))?;
    becomes(
        session,
        &resource,
        "cleanup.policy",
        Some(("compact,delete", "DYNAMIC_TOPIC_CONFIG")),
    )?;
    done(session, &["config", "delete", &resource, "retention.ms"], "")?;
    becomes(session, &resource, "retention.ms", None)?;
    let wrong = fails(session, &["config", "set", &resource, "retention.ms=soon"], 1)?;
    contains(&wrong, &["INVALID_CONFIG"])?;
    fails(session, &["config", "set", "topic/nobody-made-this", "retention.ms=1"], 4)?;
    fails(session, &["config", "describe", "topic/nobody-made-this"], 4).map(drop)
}

fn broker_properties(session: &mut Session) -> Result<()> {
    let name = "log.cleaner.backoff.ms";
    let one = |value| Some((value, "DYNAMIC_BROKER_CONFIG"));
    let all = |value| Some((value, "DYNAMIC_DEFAULT_BROKER_CONFIG"));
    done(session, &["config", "set", "brokers", "log.cleaner.backoff.ms=14000"], "")?;
    becomes(session, "brokers", name, all("14000"))?;
    becomes(session, "broker/1", name, all("14000"))?;
    done(session, &["config", "set", "broker/1", "log.cleaner.backoff.ms=13000"], "")?;
    becomes(session, "broker/1", name, one("13000"))?;
    done(session, &["config", "delete", "broker/1", name], "")?;
    becomes(session, "broker/1", name, all("14000"))?;
    done(session, &["config", "delete", "brokers", name], "")?;
    becomes(session, "brokers", name, None)?;
    contains(&fails(session, &["config", "set", "broker/1", "node.id=3"], 1)?, &["node.id"])?;
    let misspelt = fails(session, &["config", "set", "brokers", "num.network.thread=1"], 1)?;
    contains(&misspelt, &["Did you mean num.network.threads?"])?;
    let nobody = ["config", "describe", "broker/77", "--timeout", "3s"];
    contains(
        &fails(session, &nobody, 4)?,
        &["broker 77 is not in the cluster", "ottla cluster info"],
    )
}

fn internal_topics(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-internal");
    done(session, &["topic", "create", &topic], "")?;
    done(session, &["produce", &topic], "a\n")?;
    let read = ["consume", &topic, "--group", &topic, "--count", "1"];
    done(session, &read, "")?;
    let offsets = "__consumer_offsets";
    let refused = fails(session, &["topic", "delete", &topic, offsets], 1)?;
    contains(&refused, &[offsets, "--internal"])?;
    let left = done(session, &["topic", "list", "--internal"], "")?;
    contains(&left, &[&topic, offsets])
}

fn grow_and_delete(session: &mut Session) -> Result<()> {
    let topic = session.new_topic("cli-grows");
    done(session, &["topic", "create", &topic], "")?;
    let lines: String = (0..10).map(|line| format!("{line}\n")).collect();
    done(session, &["produce", &topic], &lines)?;
    done(session, &["topic", "delete-records", &topic, "--before", "4"], "")?;
    let consume = ["consume", &topic, "--from", "beginning", "--until-end", "--format", "%v"];
    let left = done(session, &consume, "")?;
    ensure!(left == "4\n5\n6\n7\n8\n9\n", "left are {left:?}");
    fails(session, &["topic", "delete-records", &topic, "--before", "11"], 1)?;
    done(session, &["topic", "delete-records", &topic, "--before", "end"], "")?;
    let left = done(session, &consume, "")?;
    ensure!(left.is_empty(), "left are {left:?}");
    done(session, &["topic", "alter", &topic, "--partitions", "3"], "")?;
    eventually(SETTLE, || {
        let shown = done_as_json(session, &["topic", "describe", &topic])?;
        let partitions = at(&shown, "/0/partitions")?.as_array();
        Ok(partitions.is_some_and(|all| all.len() == 3).then_some(()))
    })?;
    fails(session, &["topic", "alter", &topic, "--partitions", "2"], 1).map(drop)
}
