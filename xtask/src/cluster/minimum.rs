//! What acks=all is answered while fewer are in sync than `min.insync.replicas` asks for (shell).
//!
//! Three replicas, of which all must be in sync. One is paused while a record waits for it: the record stays, is not
//! acknowledged, and nobody sees it, as the high watermark stands still while too few are in sync (KIP-966). So its answer is
//! REQUEST_TIMED_OUT. NOT_ENOUGH_REPLICAS_AFTER_APPEND is for those only who leave between the high watermark's arrival and
//! the answer.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ottla_base::ErrorCode;

use super::client::Acks;
use super::nodes::{Cluster, properties};
use super::{SETTLE_LIMIT, ask, records};
use crate::broker::Target;

const TOPIC: &str = "minimum";
const LAG_MAX: &str = "2000";
/// Long enough that the ISR has shrunk by then.
const WAIT: Duration = Duration::from_secs(5);
/// Of those who need not wait.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    let more = properties(&[
        ("replica.lag.time.max.ms", LAG_MAX),
        // It is the leader that puts the follower out of the ISR, and not the controller.
        ("broker.session.timeout.ms", "60000"),
    ]);
    Cluster::start_with(target, directory, |_| more.clone())?.explaining(try_all)
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    // Whoever is paused must not be the active controller, which is needed.
    let leader = cluster.controller()?;
    let [paused, other] = cluster.beside(leader)?;
    cluster.create_assigned(TOPIC, &[vec![leader, paused, other]])?;
    set_minimum(cluster, 3)?;
    cluster.until("a minimum of three", SETTLE_LIMIT, |cluster| {
        let code = records::write(cluster, leader, TOPIC, "all have", Acks::All, LIMIT)?;
        Ok((code == ErrorCode::NONE).then_some(()))
    })?;

    cluster.pause(paused)?;
    let begun = Instant::now();
    let waiting = records::write(cluster, leader, TOPIC, "too few have", Acks::All, WAIT)?;
    let took = begun.elapsed();
    println!("in flight while a follower falls out of the ISR: {waiting} after {took:.1?}");
    let isr = isr(cluster)?;
    ensure!(isr == BTreeSet::from([leader, other]), "in sync are {isr:?}");
    ensure!(waiting == ErrorCode::REQUEST_TIMED_OUT, "in flight: {waiting}");
    for (acks, value, expected) in [
        (Acks::All, "nobody has", ErrorCode::NOT_ENOUGH_REPLICAS),
        (Acks::Leader, "the leader has", ErrorCode::NONE),
    ] {
        let code = records::write(cluster, leader, TOPIC, value, acks, LIMIT)?;
        println!("with two in sync of three that are asked for, {acks:?}: {code}");
        ensure!(code == expected, "{acks:?}: {code}, not {expected}");
    }
    let seen = records::read_all(cluster, TOPIC)?;
    ensure!(seen == ["all have"], "what too few have is seen: {seen:?}");
    set_minimum(cluster, 2)?;
    cluster.until("two are enough", SETTLE_LIMIT, |cluster| {
        let code = records::write(cluster, leader, TOPIC, "two have", Acks::All, LIMIT)?;
        Ok((code == ErrorCode::NONE).then_some(()))
    })?;

    cluster.resume(paused)?;
    cluster.await_whole(Some(TOPIC))?;
    let found = records::read_all(cluster, TOPIC)?;
    println!("in the end: {found:?}");
    ensure!(found == ["all have", "too few have", "the leader has", "two have"], "{found:?}");
    Ok(())
}

fn set_minimum(cluster: &Cluster, minimum: u8) -> Result<()> {
    let minimum = minimum.to_string();
    cluster.first(|address| ask::configure_topic(address, TOPIC, "min.insync.replicas", &minimum))
}

fn isr(cluster: &Cluster) -> Result<BTreeSet<i32>> {
    let view = cluster.view(Some(TOPIC))?;
    Ok(view.partitions.into_values().flat_map(|it| it.isr).collect())
}
