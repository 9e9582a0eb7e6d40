//! A leader whose disk is full hands over, does not get its partitions back while it is full, and comes back afterwards;
//! a follower leaves the ISR and comes back (shell).
//!
//! A disk is made full in two ways: by asking for more room to be left free than there is (`log.dir.reserved.bytes`, Ottla's
//! own), which needs no rights; and, where a file system may be mounted for each node, by a file that takes all of it, so that
//! no room can be had for a record at all.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::Direct;
use super::nodes::{Cluster, Ground};
use super::{NODES, SETTLE_LIMIT, ask, records, replicas};
use crate::broker::Target;

const TOPIC: &str = "space";
const LIMIT: Duration = Duration::from_secs(30);
/// `replica.lag.time.max.ms`: how long a follower that is only slow holds everybody up.
const LAG_MAX: Duration = Duration::from_secs(30);
/// Of each node's own file system.
const VOLUME_MEBIBYTES: u32 = 256;
const RECORDS: usize = 20;
const FULL_FOR: Duration = Duration::from_secs(3);
const PACE: Duration = Duration::from_millis(300);
/// More than any disk has.
const ALL: &str = "1000000000000000000";

pub(super) fn run(directory: &Path) -> Result<()> {
    Cluster::start(Target::Ottla, directory)?.explaining(try_all)
}

/// With disks that are full indeed.
pub(super) fn run_on_volumes(directory: &Path) -> Result<()> {
    let ground = Ground { volume_mebibytes: Some(VOLUME_MEBIBYTES), ..Ground::default() };
    Cluster::start_on(Target::Ottla, directory, &ground)?.explaining(|cluster| {
        // With what is left free by itself a broker refuses records before a write fails. With nothing left free it knows
        // of a full disk by a write that has failed, and by nothing else.
        fill(cluster, "reserved", None)?;
        fill(cluster, "unreserved", Some("0"))
    })
}

/// The leader's disk is filled to the last byte: another one leads, all goes on, and all that was acknowledged is there.
fn fill(cluster: &mut Cluster, topic: &'static str, reserved: Option<&str>) -> Result<()> {
    let leader = 1;
    if let Some(bytes) = reserved {
        reserve(cluster, leader, Some(bytes))?;
    }
    cluster.create_assigned(topic, &[vec![leader, 2, 3]])?;
    let mut acknowledged = Acknowledged::new(cluster, topic);
    for _ in 0..RECORDS {
        acknowledged.write()?;
    }
    ensure!(cluster.leader(topic, 0)? == leader, "node {leader} is to lead first");

    cluster.volume(leader)?.fill()?;
    let took = acknowledged.write().context("nothing can be written after the disk is full")?;
    println!("{topic}: after the disk is full the next record took {took:.2?}");
    cluster.until("another leader, without the full one", SETTLE_LIMIT, |cluster| {
        let (leads, isr) = state(cluster, topic)?;
        Ok((leads != leader && !isr.contains(&leader)).then_some(()))
    })?;
    // As long as it takes to look at the disk several times, and at a pace at which its node has everything in between.
    let full_since = Instant::now();
    while full_since.elapsed() < FULL_FOR {
        thread::sleep(PACE);
        cluster.first(|address| ask::elect_preferred(address, topic, &[0])).ok();
        let took = acknowledged.write()?;
        ensure!(took < Duration::from_secs(2), "a record took {took:.2?}");
        // Without a reserve the metadata's own room is given up in the end, and records are tried there again.
        let (leads, isr) = state(cluster, topic)?;
        let is_away = leads != leader && !isr.contains(&leader);
        ensure!(is_away || reserved.is_some(), "led by {leads}, in sync {isr:?}");
    }

    cluster.volume(leader)?.free()?;
    let begun = Instant::now();
    cluster.await_whole(Some(topic))?;
    println!("{topic}: in sync again {:.2?} after there is room", begun.elapsed());
    cluster.await_preferred(topic)?;
    acknowledged.write()?;
    acknowledged.check_read(cluster)?;
    replicas::await_alike(cluster, topic, 1)
}

/// Records that were acknowledged, each of a value of its own.
struct Acknowledged {
    topic: &'static str,
    writer: Direct,
    count: usize,
}

impl Acknowledged {
    fn new(cluster: &Cluster, topic: &'static str) -> Self {
        Self { topic, writer: Direct::new(topic, cluster.addresses()), count: 0 }
    }

    /// Writes one more, and returns how long it took.
    fn write(&mut self) -> Result<Duration> {
        self.write_within(LIMIT)
    }

    fn write_within(&mut self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        self.writer.write_value(0, value(self.count).as_bytes(), limit)?;
        self.count += 1;
        Ok(begun.elapsed())
    }

    /// All of them can be read, from offset 0 on.
    fn check_read(&self, cluster: &Cluster) -> Result<()> {
        let found: BTreeSet<String> = records::read_all(cluster, self.topic)?.into_iter().collect();
        let lost = (0..self.count).filter(|number| !found.contains(&value(*number))).count();
        ensure!(lost == 0, "{lost} of {} acknowledged records can't be read", self.count);
        println!("{}: all {} acknowledged records can be read", self.topic, self.count);
        Ok(())
    }
}

/// Longer than what may be left of the last block of a file.
fn value(number: usize) -> String {
    format!("{number:010000}")
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    cluster.create_assigned(TOPIC, &[vec![1, 2, 3]])?;
    let mut acknowledged = Acknowledged::new(cluster, TOPIC);
    acknowledged.write()?;
    ensure!(cluster.leader(TOPIC, 0)? == 1, "node 1 is to lead first");

    // Node 1 learns of the change a moment later than it is acknowledged, and may take one more record until then.
    reserve(cluster, 1, Some(ALL))?;
    let begun = Instant::now();
    acknowledged.write().context("nothing can be written after the disk is full")?;
    println!("after the disk is full the next record took {:.2?}", begun.elapsed());
    cluster.until("another leader, without the full one", SETTLE_LIMIT, |cluster| {
        let (leader, isr) = state(cluster, TOPIC)?;
        Ok((leader != 1 && !isr.contains(&1)).then_some(()))
    })?;
    // Again and again: node 1 has everything, and must not lead nor hold the others up.
    for _ in 0..20 {
        cluster.first(elect_preferred).ok();
        let begun = Instant::now();
        acknowledged.write()?;
        ensure!(begun.elapsed() < Duration::from_secs(2), "a record took {:.2?}", begun.elapsed());
        let (leader, isr) = state(cluster, TOPIC)?;
        ensure!(leader != 1 && !isr.contains(&1), "led by {leader}, in sync {isr:?}");
    }

    reserve(cluster, 1, None)?;
    cluster.until("all in sync again", SETTLE_LIMIT, |cluster| {
        Ok((state(cluster, TOPIC)?.1.len() == 3).then_some(()))
    })?;
    cluster.await_preferred(TOPIC)?;
    acknowledged.write()?;
    // A follower holds nobody up either: Apache Kafka's would have ended.
    reserve(cluster, 2, Some(ALL))?;
    let deadline = Instant::now() + SETTLE_LIMIT;
    while state(cluster, TOPIC)? != (1, BTreeSet::from([1, 3])) {
        ensure!(Instant::now() < deadline, "the full follower stays: {:?}", state(cluster, TOPIC)?);
        let begun = Instant::now();
        acknowledged.write()?;
        let took = begun.elapsed();
        println!("with a full follower a record took {took:.2?}");
        ensure!(took < LAG_MAX / 2, "a record took {took:.2?}");
    }
    reserve(cluster, 2, None)?;
    cluster.until("all in sync once more", SETTLE_LIMIT, |cluster| {
        Ok((state(cluster, TOPIC)?.1.len() == 3).then_some(()))
    })?;
    // All at once: somebody keeps leading, and what is there can be read; then it goes on.
    for node in 1..=NODES {
        reserve(cluster, node, Some(ALL))?;
    }
    ensure!(
        acknowledged.write_within(Duration::from_secs(2)).is_err(),
        "there is no room anywhere"
    );
    let leader = cluster.until("a leader without room", LIMIT, |cluster| {
        Ok(Some(state(cluster, TOPIC)?.0).filter(|leader| *leader > 0))
    })?;
    println!("without room anywhere node {leader} leads");
    acknowledged.check_read(cluster)?;
    for node in 1..=NODES {
        reserve(cluster, node, None)?;
    }
    acknowledged.write()?;
    cluster.await_whole(Some(TOPIC))
}

/// The leader, and the ISR.
fn state(cluster: &Cluster, topic: &str) -> Result<(i32, BTreeSet<i32>)> {
    let view = cluster.view(Some(topic))?;
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
