//! A reassignment that an operator holds back takes as long as its bytes take at that rate, and nothing else waits for it
//! (shell).
//!
//! Kafka's own `kafka-reassign-partitions.sh --throttle` sets the throttle, and `--verify` takes it away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_protocol::messages::DescribeConfigsRequest;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;

use super::SETTLE_LIMIT;
use super::ask::Caller;
use super::client::write_many;
use super::nodes::Cluster;
use crate::broker::Target;
use crate::process::run_ok;
use crate::{interop, kafka};

const MOVED: &str = "moved";
const OTHER: &str = "other";
const MOVED_BYTES: usize = 16_000_000;
/// Through followers that are in sync while the other is held back.
const MEANWHILE_BYTES: usize = 8_000_000;
const BYTES_PER_SECOND: usize = 2_000_000;
const VALUE: [u8; 10_000] = [b'v'; 10_000];
const LIMIT: Duration = Duration::from_secs(120);
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    Cluster::start(target, directory)?.explaining(|cluster| try_all(cluster, directory))
}

fn try_all(cluster: &mut Cluster, directory: &Path) -> Result<()> {
    cluster.create_assigned(MOVED, &[vec![1, 2]])?;
    cluster.create_assigned(OTHER, &[vec![1, 2, 3]])?;
    write(cluster, MOVED, MOVED_BYTES)?;
    let plan = directory.join("plan.json");
    let partition = format!(r#"{{"topic":"{MOVED}","partition":0,"replicas":[1,3]}}"#);
    fs::write(&plan, format!(r#"{{"version":1,"partitions":[{partition}]}}"#))?;
    let rate = BYTES_PER_SECOND.to_string();
    reassign(cluster, &plan, directory, &["--execute", "--throttle", &rate])?;
    let begun = Instant::now();
    let set = throttles(cluster)?;
    ensure!(set.len() == 8, "the tool has set {set:?}");

    // Followers in sync are not held back, neither of this partition nor of another one.
    let unthrottled = write(cluster, OTHER, MEANWHILE_BYTES)?;
    let meanwhile = write(cluster, MOVED, BYTES_PER_SECOND)?;
    cluster.until("the reassignment done", SETTLE_LIMIT, |cluster| {
        let view = cluster.view(Some(MOVED))?;
        let partition = view.partitions.get(&0).context("it is there")?;
        let is_moved = partition.isr == BTreeSet::from([1, 3]) && partition.replicas == [1, 3];
        Ok(is_moved.then_some(()))
    })?;
    let took = begun.elapsed();
    let bytes = MOVED_BYTES + BYTES_PER_SECOND;
    let expected = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
    println!("{bytes} bytes at {BYTES_PER_SECOND} per second: {took:.1?}, expected {expected:.1?}");
    println!(
        "meanwhile {MEANWHILE_BYTES} bytes of another topic took {unthrottled:.1?}, {BYTES_PER_SECOND} of this one {meanwhile:.1?}"
    );
    ensure!(took > expected * 7 / 10, "it was not held back");
    ensure!(took < expected * 2, "it was held back by far more than that");
    for time in [unthrottled, meanwhile] {
        ensure!(time < expected / 2, "followers in sync were held back: {time:?}");
    }

    reassign(cluster, &plan, directory, &["--verify"])?;
    cluster.until("no throttle any more", SETTLE_LIMIT, |cluster| {
        Ok(throttles(cluster)?.is_empty().then_some(()))
    })
}

/// How long it took to have so many bytes acknowledged by all in sync.
fn write(cluster: &Cluster, topic: &str, bytes: usize) -> Result<Duration> {
    write_many(cluster, topic, &VALUE, bytes / VALUE.len(), LIMIT)
}

fn reassign(cluster: &Cluster, plan: &Path, directory: &Path, more: &[&str]) -> Result<()> {
    let mut command: Command = kafka::java_tools(&interop::fetch::kafka_jars()?, directory);
    command.arg("org.apache.kafka.tools.reassign.ReassignPartitionsCommand");
    command.args(["--bootstrap-server", &cluster.bootstrap(), "--reassignment-json-file"]);
    command.arg(plan).args(more);
    let done = run_ok(command, b"", LIMIT)?;
    println!("{more:?}: {}", done.stdout_text().trim().replace('\n', "; "));
    Ok(())
}

/// What is set of throttles, of the topic and of the three brokers.
fn throttles(cluster: &Cluster) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (kind, name) in [
        (TOPIC_RESOURCE, MOVED),
        (BROKER_RESOURCE, "1"),
        (BROKER_RESOURCE, "2"),
        (BROKER_RESOURCE, "3"),
    ] {
        // A broker knows its own configuration only.
        let address = cluster.address_of(name.parse().unwrap_or(1))?;
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            ..DescribeConfigsResource::default()
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let answer = Caller::open(&address, LIMIT)?.call(4, &request)?;
        let configs = answer.results.into_iter().flat_map(|result| result.configs);
        let set = configs.filter(|it| it.name.contains("replication.throttled"));
        let set = set.filter(|it| it.value.as_ref().is_some_and(|value| !value.is_empty()));
        found.extend(set.map(|it| format!("{name}: {}={}", it.name, it.value.unwrap_or_default())));
    }
    Ok(found)
}
