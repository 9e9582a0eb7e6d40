//! A leader whose disk is full hands over, does not get its partitions back while it is full, and comes back afterwards;
//! a follower leaves the ISR and comes back (shell).
//!
//! The disk is made full by asking for more room to be left free than there is (`log.dir.reserved.bytes`, Ottla's own).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::{Client, Direct};
use super::nodes::Cluster;
use super::{NODES, SETTLE_LIMIT, ask};
use crate::broker::Target;

const TOPIC: &str = "space";
const LIMIT: Duration = Duration::from_secs(30);
/// `replica.lag.time.max.ms`: how long a follower that is only slow holds everybody up.
const LAG_MAX: Duration = Duration::from_secs(30);
/// More than any disk has.
const ALL: &str = "1000000000000000000";

pub(super) fn run(directory: &Path) -> Result<()> {
    Cluster::start(Target::Ottla, directory)?.explaining(try_all)
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    cluster.create_assigned(TOPIC, &[vec![1, 2, 3]])?;
    let mut writer = Direct::new(TOPIC, cluster.addresses());
    writer.write(0, LIMIT)?;
    ensure!(cluster.leader(TOPIC, 0)? == 1, "node 1 is to lead first");

    // Node 1 learns of the change a moment later than it is acknowledged, and may take one more record until then.
    reserve(cluster, 1, Some(ALL))?;
    let begun = Instant::now();
    writer.write(0, LIMIT).context("nothing can be written after the disk is full")?;
    println!("after the disk is full the next record took {:.2?}", begun.elapsed());
    cluster.until("another leader, without the full one", SETTLE_LIMIT, |cluster| {
        let (leader, isr) = state(cluster)?;
        Ok((leader != 1 && !isr.contains(&1)).then_some(()))
    })?;
    // Again and again: node 1 has everything, and must not lead nor hold the others up.
    for _ in 0..20 {
        cluster.first(elect_preferred).ok();
        let begun = Instant::now();
        writer.write(0, LIMIT)?;
        ensure!(begun.elapsed() < Duration::from_secs(2), "a record took {:.2?}", begun.elapsed());
        let (leader, isr) = state(cluster)?;
        ensure!(leader != 1 && !isr.contains(&1), "led by {leader}, in sync {isr:?}");
    }

    reserve(cluster, 1, None)?;
    cluster.until("all in sync again", SETTLE_LIMIT, |cluster| {
        Ok((state(cluster)?.1.len() == 3).then_some(()))
    })?;
    cluster.await_preferred(TOPIC)?;
    writer.write(0, LIMIT)?;
    // A follower holds nobody up either: Apache Kafka's would have ended.
    reserve(cluster, 2, Some(ALL))?;
    let deadline = Instant::now() + SETTLE_LIMIT;
    while state(cluster)? != (1, BTreeSet::from([1, 3])) {
        ensure!(Instant::now() < deadline, "the full follower stays: {:?}", state(cluster)?);
        let begun = Instant::now();
        writer.write(0, LIMIT)?;
        let took = begun.elapsed();
        println!("with a full follower a record took {took:.2?}");
        ensure!(took < LAG_MAX / 2, "a record took {took:.2?}");
    }
    reserve(cluster, 2, None)?;
    cluster.until("all in sync once more", SETTLE_LIMIT, |cluster| {
        Ok((state(cluster)?.1.len() == 3).then_some(()))
    })?;
    // All at once: somebody keeps leading, and what is there can be read; then it goes on.
    for node in 1..=NODES {
        reserve(cluster, node, Some(ALL))?;
    }
    ensure!(writer.write(0, Duration::from_secs(2)).is_err(), "there is no room anywhere");
    for node in 1..=NODES {
        reserve(cluster, node, None)?;
    }
    writer.write(0, LIMIT)?;
    cluster.await_whole(Some(TOPIC))
}

/// The leader, and the ISR.
fn state(cluster: &Cluster) -> Result<(i32, BTreeSet<i32>)> {
    let view = cluster.view(Some(TOPIC))?;
    let partition = view.partitions.get(&0).context("it is there")?;
    Ok((partition.leader.unwrap_or(-1), partition.isr.clone()))
}

fn elect_preferred(address: &str) -> Result<()> {
    ask::elect_preferred(address, TOPIC, &[0])
}

fn reserve(cluster: &Cluster, node: i32, bytes: Option<&str>) -> Result<()> {
    let address = cluster.address_of(node)?;
    ask::configure_broker(&address, &node.to_string(), "log.dir.reserved.bytes", bytes)
}
