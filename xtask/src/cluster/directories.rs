//! Three nodes with two log directories each, one of which fails: only what is led from it moves (shell).
//!
//! The disk fails when a file on it is flushed that is made on purpose (`strace` answers EIO): so it is whole until then.
//! Meanwhile clients write, read and commit, and what they were promised is looked for in the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::ask::View;
use super::check::{Checked, PARTITIONS, TOPIC, await_served, await_whole};
use super::client::{Client, Direct};
use super::kinds::Kind;
use super::load::Load;
use super::nodes::{Cluster, Ground};
use super::{SETTLE_LIMIT, ask, replicas};
use crate::broker::Target;

/// Whose second directory fails.
const NODE: i32 = 1;
/// One of its partitions is in each directory.
const TRAP: &str = "trap";
/// Whichever of them is there.
const FAILING: &[&str] =
    &["b/trap-0/00000000000000000000.log", "b/trap-1/00000000000000000000.log"];
const RATE: u32 = 500;
/// It leads four of six partitions, three of which are in each directory: some in both.
const ASSIGNMENTS: [[i32; 3]; PARTITIONS as usize] =
    [[NODE, 2, 3], [NODE, 3, 2], [NODE, 2, 3], [NODE, 3, 2], [2, 3, NODE], [3, 2, NODE]];

pub(super) fn run(clients: &[Kind], directory: &Path) -> Result<()> {
    let ground =
        Ground { log_dirs: Some(&["a", "b"]), failing: Some((NODE, FAILING)), ..Ground::default() };
    let mut cluster = Cluster::start_on(Target::Ottla, directory, &ground)?;
    let checked = Checked { clients: clients.to_vec(), rate: RATE, assignments: Some(ASSIGNMENTS) };
    checked.run(&mut cluster, directory, fail_and_mend)
}

fn fail_and_mend(cluster: &mut Cluster, load: &Load) -> Result<()> {
    await_served(cluster, load)?;
    await_whole(cluster)?;
    let before = cluster.view(Some(TOPIC))?;
    let failing = in_second_directory(cluster)?;
    let is_led = |partition: &i32| before.partitions.get(partition).and_then(|it| it.leader);
    let (led, others): (Vec<i32>, Vec<i32>) =
        (0..PARTITIONS).partition(|partition| is_led(partition) == Some(NODE));
    let (moving, staying): (Vec<i32>, Vec<i32>) =
        led.iter().partition(|partition| failing.contains(partition));
    println!("node {NODE} leads {staying:?} in a, {moving:?} in b, and does not lead {others:?}");
    ensure!(!staying.is_empty() && !moving.is_empty(), "it does not lead in both directories");

    let mut trap = set_trap(cluster)?;
    cluster.until(
        "other leaders of what was in b, all of it out of sync",
        SETTLE_LIMIT,
        |cluster| {
            // Until it springs: where many files wait, one call flushes all that the disk has.
            (0..2).try_for_each(|partition| trap.write(partition, SETTLE_LIMIT))?;
            Ok(has_failed_over(&before, &cluster.view(Some(TOPIC))?, &failing).then_some(()))
        },
    )?;
    await_progress(cluster, load)?;
    await_served(cluster, load)?;
    let after = cluster.view(Some(TOPIC))?;
    for partition in staying.iter().chain(&others) {
        let of =
            |view: &View| view.partitions.get(partition).map(|it| (it.leader, it.leader_epoch));
        ensure!(
            of(&before) == of(&after),
            "the leader of {TOPIC}-{partition}, and its epoch, were {:?}, and are {:?}",
            of(&before),
            of(&after)
        );
    }
    ensure!(has_failed_over(&before, &after, &failing), "what was in b has gone back: {after:?}");

    let broker = children(cluster.pid(NODE)?)?;
    cluster.kill9(NODE)?;
    // `strace` is gone at once, and the broker, which dies with it, still has the directories for a moment.
    cluster.until("the end of the broker", SETTLE_LIMIT, |_| {
        // One that nobody has waited for yet has no program any more.
        Ok(broker.iter().all(|process| !process.join("exe").exists()).then_some(()))
    })?;
    cluster.mend(NODE)?;
    cluster.restart(NODE)?;
    await_whole(cluster)?;
    cluster.await_whole(Some(TRAP))?;
    await_served(cluster, load)
}

/// The partitions that the node has in the directory which is going to fail.
fn in_second_directory(cluster: &Cluster) -> Result<Vec<i32>> {
    let nodes: BTreeMap<i32, Vec<PathBuf>> = cluster.data_directories().into_iter().collect();
    let data = nodes.get(&NODE).context("it is there")?;
    let mut failing = Vec::new();
    for partition in 0..PARTITIONS {
        if replicas::directory(data, TOPIC, partition)?.parent()
            == data.get(1).map(PathBuf::as_path)
        {
            failing.push(partition);
        }
    }
    Ok(failing)
}

/// What is written to lets the disk fail; who does that is told of nothing but another leader.
fn set_trap(cluster: &mut Cluster) -> Result<Direct> {
    let led_by_it = vec![NODE, 2, 3];
    cluster.first(|address| {
        ask::create_assigned(address, TRAP, &[led_by_it.clone(), led_by_it.clone()])
    })?;
    Ok(Direct::new(TRAP, cluster.addresses()))
}

/// Whether none of these partitions counts on the node any more, and those that it led have another leader.
fn has_failed_over(before: &View, now: &View, failing: &[i32]) -> bool {
    failing.iter().all(|partition| {
        let (Some(before), Some(now)) =
            (before.partitions.get(partition), now.partitions.get(partition))
        else {
            return false;
        };
        let has_moved = now.leader_epoch > before.leader_epoch;
        now.leader.is_some_and(|leader| leader != NODE)
            && !now.isr.contains(&NODE)
            && (has_moved || before.leader != Some(NODE))
    })
}

/// Waits until more was acknowledged in every partition, wherever it is led.
fn await_progress(cluster: &mut Cluster, load: &Load) -> Result<()> {
    let before = load.ask_ends()?;
    cluster.until("more records in every partition", SETTLE_LIMIT, |_| {
        let now = load.ask_ends()?;
        let grows =
            |(partition, end): (&i32, &i64)| now.get(partition).is_some_and(|now| now > end);
        Ok(before.iter().all(grows).then_some(()))
    })
}

/// The processes that one has started, as directories that are there as long as they are.
fn children(pid: u32) -> Result<Vec<PathBuf>> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let children: Vec<_> =
        text.split_whitespace().map(|child| Path::new("/proc").join(child)).collect();
    ensure!(!children.is_empty(), "process {pid} has no children");
    Ok(children)
}
