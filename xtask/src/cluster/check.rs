//! Faults under load, and then the question whether every promise was kept (shell).

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::faults::{Absence, Drawn, Fault, Faults, Whom, left_out};
use super::kinds::Kind;
use super::ledger::{Finding, History, Verdict, judge};
use super::load::{Load, Written};
use super::members::Membership;
use super::nodes::Cluster;
use super::told::Complaints;
use super::{Check, ask, recorder, replicas};
use crate::broker::Target;

pub(super) const TOPIC: &str = "checked";
pub(super) const PARTITIONS: i32 = 6;
/// So many acknowledgements show that clients are served.
const SERVED: u64 = 300;
/// So long a silence of all clients shows that they are not.
const STALLED: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
/// The longest that all of the clients may have to wait.
const SERVED_LIMIT: Duration = Duration::from_secs(60);
/// So many findings of each kind are shown.
const SHOWN: usize = 5;

/// What was noted, in addition to the history of records.
struct Outcome {
    history: History,
    /// By the kind of client.
    memberships: BTreeMap<&'static str, Membership>,
    took: Duration,
}

/// Who writes, reads and commits while something happens, and how much.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) clients: Vec<Kind>,
    /// Records that each producer writes per second at most.
    pub(super) rate: u32,
    /// Where the replicas of the partitions are, the preferred leaders first, if that is not left to the controller.
    pub(super) assignments: Option<[[i32; 3]; PARTITIONS as usize]>,
}

pub(super) fn run(check: &Check, directory: &Path) -> Result<()> {
    println!("seed {}, at least {} s and {} faults", check.seed, check.seconds, check.least());
    let checked = Checked { clients: check.clients.clone(), rate: check.rate, assignments: None };
    let mut cluster = Cluster::start_on(check.target, directory, &check.ground())?;
    checked.run(&mut cluster, directory, |cluster, load| {
        for (fault, count) in inflict_all(check, cluster, load)? {
            println!("{count:4} x {fault}");
        }
        Ok(())
    })
}

impl Checked {
    /// Lets clients work while `act` does something to the cluster, and holds what is left to what was promised.
    pub(super) fn run(
        &self,
        cluster: &mut Cluster,
        directory: &Path,
        act: impl FnOnce(&mut Cluster, &Load) -> Result<()>,
    ) -> Result<()> {
        for kind in &self.clients {
            recorder::prepare(*kind)?;
        }
        match self.assignments {
            None => cluster.create_topic(TOPIC, PARTITIONS)?,
            Some(assignments) => {
                cluster.create_assigned(TOPIC, &assignments.map(|nodes| nodes.to_vec()))?;
            }
        }
        let directory = directory.to_path_buf();
        let load =
            Load::new(cluster.bootstrap(), TOPIC, PARTITIONS, self.rate, directory, &self.clients);
        let outcome = cluster.explaining(|cluster| under_load(self, cluster, &load, act))?;
        let verdict = judge(&outcome.history);
        report(&outcome, &verdict);
        conclude(&outcome, &verdict)?;
        check_commits(self, &load, &outcome)?;
        check_told(&load.into_told())?;
        replicas::await_alike(cluster, TOPIC, PARTITIONS)?;
        tell_elections(cluster)
    }
}

/// Consumers and commits may be told of what trying again helps against, and of nothing else.
fn check_told(told: &Complaints) -> Result<()> {
    told.lines().iter().for_each(|line| println!("{line}"));
    let unforgivable = told.unforgivable();
    ensure!(unforgivable.is_empty(), "errors that are not retriable: {}", unforgivable.join("; "));
    Ok(())
}

/// What happened to leaders and controllers, which says how hard the test was.
fn tell_elections(cluster: &mut Cluster) -> Result<()> {
    let view = cluster.view(Some(TOPIC))?;
    let elections: i32 = view.partitions.values().map(|it| it.leader_epoch).sum();
    let epoch = cluster.first(ask::controller_epoch)?;
    println!("{elections} elections of partition leaders, and the controller's epoch is {epoch}");
    Ok(())
}

fn under_load(
    checked: &Checked,
    cluster: &mut Cluster,
    load: &Load,
    act: impl FnOnce(&mut Cluster, &Load) -> Result<()>,
) -> Result<Outcome> {
    thread::scope(|scope| {
        let abandon = load.abandon_on_drop();
        let started = Instant::now();
        let kinds = checked.clients.iter().copied();
        let each = |kind: Kind| kind.writers().iter().map(move |writer| (kind, *writer));
        let start = |(kind, writer)| (writer, scope.spawn(move || load.write(kind, writer)));
        let writers: Vec<_> = kinds.clone().flat_map(each).map(start).collect();
        let read = |kind: Kind| (kind, scope.spawn(move || load.read(kind)));
        let readers: Vec<_> = kinds.clone().map(read).collect();
        let take_part = |kind: Kind| (kind, scope.spawn(move || load.take_part(kind)));
        let members: Vec<_> = kinds.map(take_part).collect();

        act(cluster, load)?;
        load.end_writing();
        let mut history = History { partitions: PARTITIONS, ..History::default() };
        for (writer, thread) in writers {
            let Written { acknowledged, sent } = joined(thread)?;
            history.acknowledged.extend(acknowledged);
            history.sent.insert(writer, sent);
        }
        let took = started.elapsed();
        load.end_reading(load.ask_ends()?);
        for (kind, thread) in readers {
            history.meanwhile.insert(kind.name(), joined(thread)?);
        }
        let mut memberships = BTreeMap::new();
        for (kind, thread) in members {
            memberships.insert(kind.name(), joined(thread)?);
        }
        history.finally = load.read_with_librdkafka("reader")?;
        drop(abandon);
        Ok(Outcome { history, memberships, took })
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
    let mut faults = Faults::new(check.seed, PARTITIONS, &check.more_faults());
    let round = faults.kinds();
    while started.elapsed() < least || counts.values().sum::<usize>() < check.least() {
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
    let count: usize = counts.values().sum();
    println!("{count} faults in {:.0} s", started.elapsed().as_secs_f64());
    let left_out = left_out(&round, &counts);
    ensure!(left_out.is_empty(), "in a whole round nobody was hit by {}", left_out.join("; "));
    Ok(counts)
}

/// Returns which nodes it hit, in words.
fn inflict(cluster: &mut Cluster, load: &Load, drawn: &Drawn) -> Result<String> {
    let node = match drawn.fault {
        Fault::Kill(whom) | Fault::Pause(whom) | Fault::Cut(whom) | Fault::Fill(whom) => {
            find(cluster, load, whom, drawn.partition)?
        }
        Fault::StopInTurn => return stop_in_turn(cluster, load, drawn.absence),
        Fault::PartLeaderFromController => return part_from_controller(cluster, load),
    };
    match drawn.fault {
        Fault::Cut(_) => {
            cluster.network()?.pull(node)?;
            cluster.await_fenced_by_others(node)?;
            await_served(cluster, load)?;
            cluster.network()?.plug(node)?;
        }
        Fault::Fill(_) => fill(cluster, load, node)?,
        Fault::Pause(_) => {
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

fn find(cluster: &mut Cluster, load: &Load, whom: Whom, partition: i32) -> Result<i32> {
    match whom {
        Whom::Leader => cluster.leader(TOPIC, partition),
        Whom::Controller => cluster.controller(),
        Whom::Coordinator => cluster.coordinator(load.a_group(partition)),
    }
}

fn fill(cluster: &mut Cluster, load: &Load, node: i32) -> Result<()> {
    cluster.volume(node)?.fill()?;
    let has_ended = match cluster.target() {
        Target::Kafka => await_stalled(cluster, load, node)?,
        Target::Ottla => {
            await_handed_over(cluster, load, node)?;
            false
        }
    };
    cluster.volume(node)?.free()?;
    if has_ended {
        cluster.restart(node)?;
    }
    await_served(cluster, load)
}

fn stop_in_turn(cluster: &mut Cluster, load: &Load, absence: Absence) -> Result<String> {
    for node in cluster.ids() {
        cluster.stop(node)?;
        return_after(cluster, load, node, absence)?;
        await_whole(cluster)?;
    }
    Ok("every node".to_owned())
}

/// The leader can't be seen to live by the controller, though clients, the third node and its own see it.
fn part_from_controller(cluster: &mut Cluster, load: &Load) -> Result<String> {
    let controller = cluster.controller()?;
    let elsewhere = |cluster: &Cluster| -> Result<Option<i32>> {
        let view = cluster.view(Some(TOPIC))?;
        let mut leaders = view.partitions.values().filter_map(|it| it.leader);
        Ok(leaders.find(|id| *id != controller))
    };
    if elsewhere(cluster)?.is_none() {
        // Whoever was away last leads nothing yet: the controller leads all, and there is nobody to part from.
        cluster.await_preferred(TOPIC)?;
    }
    let node = elsewhere(cluster)?.context("every partition prefers the active controller")?;
    cluster.network()?.part([node, controller])?;
    let fenced = cluster.await_fenced_by_others(node);
    let served = fenced.and_then(|()| await_served(cluster, load));
    cluster.network()?.join([node, controller])?;
    served?;
    await_whole(cluster)?;
    Ok(format!("node {node} from node {controller}"))
}

/// Waits until a full disk keeps clients of Apache Kafka from being served, or has ended its node, which is told.
fn await_stalled(cluster: &mut Cluster, load: &Load, node: i32) -> Result<bool> {
    let (mut latest, mut since) = (load.acknowledged(), Instant::now());
    let begun = Instant::now();
    loop {
        if cluster.has_ended(node)? {
            return Ok(true);
        }
        cluster.check_running()?;
        let now = load.acknowledged();
        if now != latest {
            (latest, since) = (now, Instant::now());
        }
        if since.elapsed() > STALLED {
            return Ok(false);
        }
        ensure!(begun.elapsed() < SERVED_LIMIT, "a full disk stops nobody");
        thread::sleep(POLL);
    }
}

/// Others with room are to lead in place of a node whose disk is full, and all clients are served while it is.
fn await_handed_over(cluster: &mut Cluster, load: &Load, full: i32) -> Result<()> {
    cluster.until("leaders whose disks have room", SERVED_LIMIT, |cluster| {
        let view = cluster.view(Some(TOPIC))?;
        let mut leaders = view.partitions.values().map(|it| it.leader);
        Ok(leaders.all(|leader| leader.is_some_and(|leader| leader != full)).then_some(()))
    })?;
    await_served(cluster, load)
}

fn return_after(cluster: &mut Cluster, load: &Load, node: i32, absence: Absence) -> Result<()> {
    if absence == Absence::UntilServed {
        await_served(cluster, load)?;
    }
    cluster.restart(node)
}

/// The group's offsets are replicated like records, and another node must have them before the next fault.
pub(super) fn await_whole(cluster: &mut Cluster) -> Result<()> {
    cluster.await_whole(Some(TOPIC))?;
    cluster.await_whole(Some("__consumer_offsets"))
}

/// Waits until more records of each producer are acknowledged.
pub(super) fn await_served(cluster: &mut Cluster, load: &Load) -> Result<()> {
    let before = load.acknowledged();
    cluster.until("clients being served", SERVED_LIMIT, |_| {
        let now = load.acknowledged();
        let behind = before
            .iter()
            .find(|(writer, count)| now.get(writer).is_none_or(|now| *now < **count + SERVED));
        match behind {
            Some((writer, _)) => bail!("the {} producer is not", writer.name()),
            None => Ok(Some(())),
        }
    })
}

fn report(outcome: &Outcome, verdict: &Verdict) {
    let Outcome { history, memberships, took } = outcome;
    for writer in history.sent.keys().copied() {
        let of_writer = |it: &&super::ledger::Acknowledged| it.record.writer == writer;
        let count = history.acknowledged.iter().filter(of_writer).count();
        let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64();
        println!(
            "{count} records of the {} producer acknowledged, {rate:.0} a second",
            writer.name()
        );
    }
    for (name, membership) in memberships {
        let read = history.meanwhile.get(name).map_or(0, Vec::len);
        println!(
            "{read} records read by {name} meanwhile, {} offsets committed, {} visits of guests",
            membership.commits, membership.visits
        );
    }
    println!(
        "{} records in the end; {} copies by retries of the plain producer, {} of its records overtaken",
        history.finally.len(),
        verdict.repeated,
        verdict.overtaken,
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
    let mut count = verdict.findings.len();
    for (name, membership) in &outcome.memberships {
        let went_back = &membership.went_back;
        for (partition, offset, committed) in went_back.iter().take(SHOWN) {
            println!(
                "FOUND {name}'s group at {offset} of partition {partition}, after it committed {committed}"
            );
        }
        count += went_back.len();
        let read = outcome.history.meanwhile.get(name).map_or(0, Vec::len);
        ensure!(read > 0 && membership.commits > 0, "{name} has not read or committed anything");
        let has_guests = *name == Kind::Librdkafka.name();
        ensure!(!has_guests || membership.visits > 0, "no guest has come and gone");
    }
    ensure!(count == 0, "{count} findings");
    Ok(())
}

/// What a coordinator has confirmed is there in the end; it may be more where an answer was lost.
fn check_commits(checked: &Checked, load: &Load, outcome: &Outcome) -> Result<()> {
    for kind in &checked.clients {
        let kept = load.ask_committed(kind.group())?;
        let membership = outcome.memberships.get(kind.name()).context("every kind is a member")?;
        for (partition, confirmed) in &membership.committed {
            let found = kept.get(partition).copied().unwrap_or(-1);
            ensure!(
                found >= *confirmed,
                "{}'s group committed {confirmed} in partition {partition}, and {found} is left",
                kind.name()
            );
        }
    }
    println!("the groups have kept their commits");
    Ok(())
}
