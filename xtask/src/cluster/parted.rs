//! A leader that is cut off from the active controller alone sends its clients to whoever leads meanwhile (shell).
//!
//! The controller fences it, which it is not told; the third node knows, and the clients reach all of them. They are
//! librdkafka's as it comes, and both talk to the old leader: a producer whose record waits there for the follower that is
//! cut off, and a consumer. Apache Kafka's old leader never finds out: it answers REQUEST_TIMED_OUT, and the same leader in Metadata.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::ask;
use super::client::{Client as _, Librdkafka};
use super::nodes::{Cluster, Ground};
use crate::broker::Target;

const TOPIC: &str = "parted";
/// Whoever is the active controller, another leads.
const ASSIGNMENTS: [[i32; 3]; 3] = [[1, 2, 3], [2, 3, 1], [3, 1, 2]];
/// From when the controller has fenced the leader to when clients must be served: the leader asks others every half second, each
/// of whom may take two seconds to answer.
const GOAL: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    let ground = Ground { network: true, ..Ground::default() };
    Cluster::start_on(target, directory, &ground)?.explaining(try_all)
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    cluster.create_assigned(TOPIC, &ASSIGNMENTS.map(Vec::from))?;
    cluster.await_preferred(TOPIC)?;
    let controller = cluster.controller()?;
    let [node, third] = cluster.beside(controller)?;
    let partition = node - 1;
    ensure!(cluster.leader(TOPIC, partition)? == node, "node {node} is to lead {partition}");
    let mut writer = Librdkafka::plain(TOPIC, &cluster.bootstrap())?;
    let reader = reader(cluster, partition)?;
    writer.write(partition, LIMIT)?;
    read(&reader, LIMIT).context("before the cut")?;

    cluster.network()?.part([node, controller])?;
    let (fenced_at, written_at) = thread::scope(|scope| -> Result<_> {
        let writing = scope.spawn(|| {
            writer.write(partition, LIMIT).context("nothing is written")?;
            anyhow::Ok(Instant::now())
        });
        cluster.await_fenced_by_others(node)?;
        let fenced_at = Instant::now();
        let written_at = writing.join().map_err(|_| anyhow!("the writer panicked"))??;
        Ok((fenced_at, written_at))
    })?;
    read(&reader, LIMIT).context("nothing is read")?;
    let [written, read] =
        [written_at, Instant::now()].map(|it| it.saturating_duration_since(fenced_at));
    println!(
        "after node {node} was fenced a record was written in {written:.2?} and read in {read:.2?}"
    );
    ensure!(written.max(read) < GOAL, "that took more than {GOAL:?}");
    // Who asks the old leader hears the same as who asks another.
    let view = |node| ask::view(&cluster.address_of(node)?, Some(TOPIC));
    let [old, new] = [view(node)?, view(third)?];
    let led =
        |view: &ask::View| view.partitions.get(&partition).map(|it| (it.leader, it.leader_epoch));
    ensure!(led(&old) == led(&new), "node {node} says {old:?}, and node {third} {new:?}");

    cluster.network()?.join([node, controller])?;
    let joined_at = Instant::now();
    cluster.await_whole(Some(TOPIC))?;
    println!("all in sync again {:.2?} after the cut was mended", joined_at.elapsed());
    cluster.await_preferred(TOPIC)?;
    writer.write(partition, LIMIT).context("when node {node} leads again")
}

/// Of one partition from its beginning.
fn reader(cluster: &Cluster, partition: i32) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap()).set("group.id", "readers");
    config.set("enable.auto.commit", "false");
    let reader: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    reader.assign(&all)?;
    Ok(reader)
}

/// Waits for a record.
fn read(reader: &BaseConsumer, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        // Brokers that do not answer are an error on the way, and no end.
        if let Some(Ok(_)) = reader.poll(Duration::from_millis(20)) {
            return Ok(());
        }
    }
    Err(anyhow!("no record within {limit:?}"))
}
