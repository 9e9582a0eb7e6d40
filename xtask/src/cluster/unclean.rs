//! Who lacks records leads only where an operator has said so (shell).
//!
//! Two of three replicas stop in turn, the third one writes on alone, and is killed; then the two are back, and it is not.
//! Of three topics one says nothing of unclean leaders, one permits them, and of one an unclean election is asked for.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::ErrorCode;

use super::ask::{self, Election};
use super::client::{Acks, Direct};
use super::nodes::{Cluster, properties};
use super::{SETTLE_LIMIT, records, replicas};
use crate::broker::Target;

const KEPT: &str = "kept";
const PERMITTED: &str = "permitted";
const ASKED: &str = "asked";
const TOPICS: [&str; 3] = [KEPT, PERMITTED, ASKED];
const LIMIT: Duration = Duration::from_secs(30);
const RECORDS: usize = 5;

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    let more = properties(&[
        // Who is alone in sync takes records.
        ("min.insync.replicas", "1"),
        // A new controller waits so long for who may be there still.
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "500"),
    ]);
    Cluster::start_with(target, directory, |_| more.clone())?.explaining(try_all)
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    // The one that is alone must hear that it is, which nobody could tell it but the active controller.
    let last = cluster.controller()?;
    let [one, other] = cluster.beside(last)?;
    for topic in TOPICS {
        cluster.create_assigned(topic, &[vec![last, one, other]])?;
    }
    let permit = |address: &str| {
        ask::configure_topic(address, PERMITTED, "unclean.leader.election.enable", "true")
    };
    cluster.first(permit)?;
    write(cluster, "all have")?;

    for (stopped, left) in [(one, [last, other].into()), (other, [last].into())] {
        cluster.stop(stopped)?;
        await_isr(cluster, &left)?;
    }
    for topic in TOPICS {
        for value in values("one has") {
            let code = records::write(cluster, last, topic, &value, Acks::Leader, LIMIT)?;
            ensure!(code == ErrorCode::NONE, "{topic}: {code} of whoever is alone");
        }
    }
    cluster.kill9(last)?;
    let killed_at = Instant::now();
    for node in [one, other] {
        cluster.restart(node)?;
    }
    await_there_without(cluster, last, [one, other])?;
    println!(
        "node {last} is fenced {:.1?} after it was killed, and two are there that lack records",
        killed_at.elapsed()
    );

    let permitted = await_leader(cluster, PERMITTED)?;
    ensure!(permitted != last, "the one that is away leads");
    println!("{PERMITTED}: led by node {permitted}");
    // What the controller is asked for comes after all that it does by itself.
    let elect = |election, topic| move |address: &str| ask::elect(address, election, topic, &[0]);
    let refused = cluster.first(elect(Election::Preferred, KEPT))?;
    println!("{KEPT}: an election of its preferred leader is answered with {refused:?}");
    ensure!(refused == [ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE], "{KEPT}: {refused:?}");
    let elected = cluster.first(elect(Election::Unclean, ASKED))?;
    println!("{ASKED}: an unclean election is answered with {elected:?}");
    ensure!(elected == [ErrorCode::NONE], "{ASKED}: {elected:?}");
    let asked = await_leader(cluster, ASKED)?;
    ensure!(asked != last, "the one that is away leads");
    println!("{ASKED}: led by node {asked}");
    for node in [one, other] {
        let view = ask::view(&cluster.address_of(node)?, Some(KEPT))?;
        let partition = view.partitions.get(&0).context("it is there")?;
        ensure!(partition.leader.is_none(), "{KEPT}: node {node} says {partition:?}");
        let code = records::write(cluster, node, KEPT, "nobody has", Acks::Leader, LIMIT)?;
        ensure!(code == ErrorCode::NOT_LEADER_OR_FOLLOWER, "{KEPT}: node {node} answers {code}");
    }
    println!("{KEPT}: led by nobody, and neither node takes a record");
    for topic in [PERMITTED, ASKED] {
        let mut writer = Direct::new(topic, cluster.addresses());
        writer.write_value(0, b"without it", LIMIT)?;
    }

    cluster.restart(last)?;
    for topic in TOPICS {
        cluster.await_whole(Some(topic))?;
    }
    let shared = values("all have");
    for (topic, more) in [
        (KEPT, values("one has")),
        (PERMITTED, vec!["without it".to_owned()]),
        (ASKED, vec!["without it".to_owned()]),
    ] {
        let expected = [shared.clone(), more].concat();
        let mut found = records::read_all(cluster, topic)?;
        println!("{topic}: {} records, the last {:?}", found.len(), found.last());
        // Whoever has no answer after half a second writes again, and its producer is not idempotent.
        found.dedup();
        ensure!(found == expected, "{topic}: {found:?} instead of {expected:?}");
        replicas::await_alike(cluster, topic, 1)?;
    }
    Ok(())
}

fn values(what: &str) -> Vec<String> {
    (0..RECORDS).map(|number| format!("{what} {number}")).collect()
}

/// To all topics, acknowledged by all replicas.
fn write(cluster: &Cluster, what: &str) -> Result<()> {
    for topic in TOPICS {
        let mut writer = Direct::new(topic, cluster.addresses());
        for value in values(what) {
            writer.write_value(0, value.as_bytes(), LIMIT)?;
        }
    }
    Ok(())
}

/// Waits until these are in sync, in all topics, as whoever is there says.
fn await_isr(cluster: &mut Cluster, isr: &BTreeSet<i32>) -> Result<()> {
    cluster.until(&format!("{isr:?} in sync, and no others"), SETTLE_LIMIT, |cluster| {
        for topic in TOPICS {
            let view = cluster.view(Some(topic))?;
            if view.partitions.values().any(|it| it.isr != *isr) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Waits until both of these say that both are there, and that another one is fenced.
fn await_there_without(cluster: &mut Cluster, away: i32, there: [i32; 2]) -> Result<()> {
    cluster.until(&format!("node {away} fenced, and the others not"), SETTLE_LIMIT, |cluster| {
        for node in there {
            if ask::unfenced(&cluster.address_of(node)?)? != BTreeSet::from(there) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

fn await_leader(cluster: &mut Cluster, topic: &str) -> Result<i32> {
    cluster.until(&format!("a leader of {topic}"), SETTLE_LIMIT, |cluster| {
        Ok(cluster.view(Some(topic))?.partitions.get(&0).and_then(|it| it.leader))
    })
}
