//! Faults under load, and then the question whether every promise was kept (shell).

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::faults::{Absence, Drawn, Fault, Faults};
use super::ledger::{Finding, History, Verdict, Writer, judge};
use super::load::{GROUP, Load, Membership, Written};
use super::nodes::Cluster;
use super::{Check, NODES, SETTLE_LIMIT, ask, replicas};

const TOPIC: &str = "checked";
const PARTITIONS: i32 = 6;
/// So many acknowledgements show that clients are served.
const SERVED: u64 = 300;
/// The longest that all of the clients may have to wait.
const SERVED_LIMIT: Duration = Duration::from_secs(60);
/// So many findings of each kind are shown.
const SHOWN: usize = 5;

/// What was noted, in addition to the history of records.
struct Outcome {
    history: History,
    membership: Membership,
    faults: BTreeMap<Fault, usize>,
}

pub(super) fn run(check: &Check, directory: &Path) -> Result<()> {
    println!("seed {}, at least {} s and {} faults", check.seed, check.seconds, check.faults);
    let mut cluster = Cluster::start(check.target, NODES, directory)?;
    create(&mut cluster, |address| ask::create_topic(address, TOPIC, PARTITIONS))?;
    cluster.await_whole(Some(TOPIC))?;
    let load = Load::new(cluster.bootstrap(), TOPIC, PARTITIONS, check.rate);
    let outcome = under_load(check, &mut cluster, &load);
    let outcome = outcome.map_err(|error| cluster.failure(&format!("{error:#}")))?;
    let verdict = judge(&outcome.history);
    report(&outcome, &verdict);
    conclude(&outcome, &verdict)?;
    await_same_replicas(&mut cluster)
}

/// Makes a topic, by whichever node takes the request.
pub(super) fn create(cluster: &mut Cluster, create: impl Fn(&str) -> Result<()>) -> Result<()> {
    cluster.until("a topic made", SETTLE_LIMIT, |cluster| cluster.first(&create).map(Some))
}

fn under_load(check: &Check, cluster: &mut Cluster, load: &Load) -> Result<Outcome> {
    thread::scope(|scope| {
        let abandon = load.abandon_on_drop();
        let writers = Writer::ALL.map(|writer| (writer, scope.spawn(move || load.write(writer))));
        let follower = scope.spawn(|| load.read("follower"));
        let member = scope.spawn(|| load.take_part());

        let faults = inflict_all(check, cluster, load)?;
        load.end_writing();
        let mut history = History { partitions: PARTITIONS, ..History::default() };
        for (writer, thread) in writers {
            let Written { acknowledged, sent } = joined(thread)?;
            history.acknowledged.extend(acknowledged);
            history.sent.insert(writer, sent);
        }
        load.end_reading(load.ask_ends()?);
        history.meanwhile = joined(follower)?;
        let membership = joined(member)?;
        history.finally = load.read("reader")?;
        drop(abandon);
        Ok(Outcome { history, membership, faults })
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
}

/// One fault after another; each is over, and all replicas are back in their ISR, before the next.
fn inflict_all(
    check: &Check,
    cluster: &mut Cluster,
    load: &Load,
) -> Result<BTreeMap<Fault, usize>> {
    let started = Instant::now();
    let least = Duration::from_secs(check.seconds);
    let mut counts = BTreeMap::new();
    let mut faults = Faults::new(check.seed, PARTITIONS);
    while started.elapsed() < least || counts.values().sum::<usize>() < check.faults {
        await_served(cluster, load)?;
        let drawn = faults.next().context("faults never end")?;
        let begun = Instant::now();
        let hit = inflict(cluster, load, &drawn);
        let hit = hit.with_context(|| format!("{} ({drawn:?})", drawn.fault))?;
        let (at, took) = ((begun - started).as_secs_f64(), begun.elapsed().as_secs_f64());
        println!("{at:6.1} s  {}: {hit}; whole again after {took:.1} s", drawn.fault);
        *counts.entry(drawn.fault).or_default() += 1;
    }
    await_served(cluster, load)?;
    Ok(counts)
}

/// Returns which nodes it hit, in words.
fn inflict(cluster: &mut Cluster, load: &Load, drawn: &Drawn) -> Result<String> {
    let node = match drawn.fault {
        Fault::KillLeader | Fault::PauseLeader => cluster.leader(TOPIC, drawn.partition)?,
        Fault::KillController | Fault::PauseController => cluster.controller()?,
        Fault::KillCoordinator => cluster.coordinator(GROUP)?,
        Fault::StopInTurn => return stop_in_turn(cluster, load, drawn.absence),
    };
    match drawn.fault {
        Fault::PauseLeader | Fault::PauseController => {
            cluster.pause(node)?;
            cluster.await_fenced(node)?;
            await_served(cluster, load)?;
            cluster.resume(node)?;
        }
        _ => {
            cluster.kill9(node)?;
            return_after(cluster, load, node, drawn.absence)?;
        }
    }
    await_whole(cluster)?;
    Ok(format!("node {node}"))
}

fn stop_in_turn(cluster: &mut Cluster, load: &Load, absence: Absence) -> Result<String> {
    for node in cluster.ids() {
        cluster.stop(node)?;
        return_after(cluster, load, node, absence)?;
        await_whole(cluster)?;
    }
    Ok("every node".to_owned())
}

fn return_after(cluster: &mut Cluster, load: &Load, node: i32, absence: Absence) -> Result<()> {
    if absence == Absence::UntilServed {
        await_served(cluster, load)?;
    }
    cluster.restart(node)
}

/// The group's offsets are replicated like records, and another node must have them before the next fault.
fn await_whole(cluster: &mut Cluster) -> Result<()> {
    cluster.await_whole(Some(TOPIC))?;
    cluster.await_whole(Some("__consumer_offsets"))
}

/// Waits until more records are acknowledged.
fn await_served(cluster: &mut Cluster, load: &Load) -> Result<()> {
    let enough = load.acknowledged() + SERVED;
    cluster.until("clients being served", SERVED_LIMIT, |_| {
        Ok((load.acknowledged() >= enough).then_some(()))
    })
}

fn report(outcome: &Outcome, verdict: &Verdict) {
    let Outcome { history, membership, faults } = outcome;
    for (fault, count) in faults {
        println!("{count:4} x {fault}");
    }
    for writer in Writer::ALL {
        let of_writer = |it: &&super::ledger::Acknowledged| it.record.writer == writer;
        let count = history.acknowledged.iter().filter(of_writer).count();
        println!("{count} records of the {} producer acknowledged", writer.name());
    }
    println!(
        "{} records read meanwhile, {} in the end; {} copies by retries of the plain producer; {} commits of the group",
        history.meanwhile.len(),
        history.finally.len(),
        verdict.repeated,
        membership.commits
    );
}

/// An error if a promise was broken, or if so little happened that none could have been.
fn conclude(outcome: &Outcome, verdict: &Verdict) -> Result<()> {
    let mut by_kind: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &verdict.findings {
        by_kind.entry(finding.kind()).or_default().push(finding);
    }
    for (kind, findings) in &by_kind {
        println!("FOUND {} x {kind}", findings.len());
        findings.iter().take(SHOWN).for_each(|finding| println!("      {finding}"));
    }
    let went_back = &outcome.membership.went_back;
    for (partition, offset, committed) in went_back.iter().take(SHOWN) {
        println!(
            "FOUND the group at {offset} of partition {partition}, after it committed {committed}"
        );
    }
    let count = verdict.findings.len() + went_back.len();
    ensure!(count == 0, "{count} findings");
    if outcome.history.meanwhile.is_empty() || outcome.membership.commits == 0 {
        bail!("nothing was read or committed while faults happened");
    }
    Ok(())
}

/// Followers may be behind by what nobody waits for any more, but not for long.
fn await_same_replicas(cluster: &mut Cluster) -> Result<()> {
    let nodes = cluster.data_directories();
    cluster.until("replicas that are alike", SETTLE_LIMIT, |_| {
        match replicas::difference(&nodes, TOPIC, PARTITIONS)? {
            Some(difference) => bail!(difference),
            None => Ok(Some(())),
        }
    })?;
    println!("the replicas of all {PARTITIONS} partitions are alike, byte by byte");
    Ok(())
}
