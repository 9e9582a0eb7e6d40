//! How long a killed leader keeps a client from writing (shell).
//!
//! Every partition has its replicas in another order, so that whoever is the active controller leads some partition:
//! every other kill is of a leader that is also the active controller.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::Failover;
use super::client::{Client, Direct, Librdkafka};
use super::kinds::Kind;
use super::nodes::Cluster;
use super::recorder::One;
use crate::bench::latency::percentile;
use crate::broker::Target;

const TOPIC: &str = "failover";
/// All orders in which three nodes can be asked to lead.
const ASSIGNMENTS: [[i32; 3]; 6] =
    [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 3, 2], [2, 1, 3], [3, 2, 1]];
/// How long each client writes to all partitions before a kill: it is connected to all nodes, knows the leaders, and what it
/// has asked last is long ago. franz-go asks for metadata every five seconds at most, whatever happens.
const AT_REST: Duration = Duration::from_millis(5_500);
/// Between two of these records.
const PACE: Duration = Duration::from_millis(50);
const WRITE_LIMIT: Duration = Duration::from_secs(60);
const GOAL: Duration = Duration::from_secs(1);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Leader,
    LeaderAndController,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::LeaderAndController => "leader and active controller",
        }
    }
}

/// What was measured, by victim and client.
type Times = BTreeMap<(Victim, &'static str), Vec<Duration>>;

pub(super) fn run(failover: &Failover, directory: &Path) -> Result<()> {
    println!("{}\n{}", Direct::DESCRIPTION, Librdkafka::description());
    println!("java, franz-go: acks=all, and as they come");
    let mut cluster = Cluster::start(failover.target, directory)?;
    cluster.create_assigned(TOPIC, &ASSIGNMENTS.map(Vec::from))?;
    let mut clients: Vec<Box<dyn Client>> = vec![Box::new(Direct::new(TOPIC, cluster.addresses()))];
    for kind in &failover.clients {
        clients.push(match kind {
            Kind::Librdkafka => Box::new(Librdkafka::new(TOPIC, &cluster.bootstrap())?),
            Kind::Java | Kind::FranzGo => {
                Box::new(One::start(*kind, &cluster.bootstrap(), TOPIC, directory)?)
            }
        });
    }
    let mut times = Times::new();
    for kill in 0..failover.kills {
        let victim = if kill % 2 == 0 { Victim::Leader } else { Victim::LeaderAndController };
        let measured =
            cluster.explaining(|cluster| once(cluster, &mut clients, victim, kill / 2))?;
        let line = measured.iter().map(|(name, took)| format!("{name} {}", shown(*took)));
        println!("{:3} {:<28} {}", kill + 1, victim.name(), line.collect::<Vec<_>>().join(", "));
        for (name, took) in measured {
            times.entry((victim, name)).or_default().push(took);
        }
    }
    report(failover, &times)
}

/// Kills one leader, and returns how long each client took to write the next record. Leaves a whole cluster.
fn once(
    cluster: &mut Cluster,
    clients: &mut [Box<dyn Client>],
    victim: Victim,
    turn: usize,
) -> Result<Vec<(&'static str, Duration)>> {
    cluster.await_whole(Some(TOPIC))?;
    cluster.await_preferred(TOPIC)?;
    let (node, partition) = choose(cluster, victim, turn)?;
    rest(clients)?;
    ensure!(cluster.leader(TOPIC, partition)? == node, "the leader has changed before the kill");
    let begun = Instant::now();
    cluster.kill9(node)?;
    let times = thread::scope(|scope| {
        let threads = clients.iter_mut().map(|client| {
            scope.spawn(move || {
                client.write(partition, WRITE_LIMIT).with_context(|| client.name())?;
                Ok((client.name(), begun.elapsed()))
            })
        });
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|it| it.map_err(|_| anyhow!("a client panicked"))?).collect::<Result<Vec<_>>>()
    })?;
    cluster.restart(node)?;
    Ok(times)
}

/// Clients as they are in the middle of a quiet day.
fn rest(clients: &mut [Box<dyn Client>]) -> Result<()> {
    let began = Instant::now();
    clients.iter_mut().try_for_each(|client| client.renew())?;
    let partitions = 0..i32::try_from(ASSIGNMENTS.len())?;
    for partition in partitions.cycle() {
        for client in &mut *clients {
            client.write(partition, WRITE_LIMIT).context("before the kill")?;
        }
        // Not before every partition was written to, however long that took.
        if began.elapsed() > AT_REST && partition == 0 {
            return Ok(());
        }
        thread::sleep(PACE);
    }
    Ok(())
}

/// A node and a partition that it leads; the partitions in turn.
fn choose(cluster: &mut Cluster, victim: Victim, turn: usize) -> Result<(i32, i32)> {
    let controller = cluster.controller()?;
    let view = cluster.view(Some(TOPIC))?;
    let leaders =
        view.partitions.iter().filter_map(|(partition, it)| Some((it.leader?, *partition)));
    let is_meant = |&(leader, _): &(i32, i32)| match victim {
        Victim::Leader => leader != controller,
        Victim::LeaderAndController => leader == controller,
    };
    let candidates: Vec<_> = leaders.filter(is_meant).collect();
    let chosen = candidates.get(turn % candidates.len().max(1)).copied();
    chosen.with_context(|| format!("no partition has such a leader: {view:?}"))
}

fn report(failover: &Failover, times: &Times) -> Result<()> {
    ensure!(!times.is_empty(), "no leader was killed");
    println!("\nfrom kill -9 to the next acknowledged record, {}:", failover.target);
    println!(
        "{:<30} {:<12} {:>5} {:>9} {:>9} {:>9}",
        "killed", "client", "kills", "p50", "p99", "max"
    );
    for ((victim, client), samples) in times {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| shown(at(samples, share)));
        let (count, victim) = (samples.len(), victim.name());
        println!("{victim:<30} {client:<12} {count:>5} {p50:>9} {p99:>9} {max:>9}");
    }
    let missed = missed(times);
    let verdict = if missed.is_empty() { "reached" } else { "MISSED" };
    let goal = if failover.kills < KILLS_FOR_P99 {
        format!("{} for the slowest of each row", shown(SLOWEST))
    } else {
        format!("{} at p99 of each client", shown(GOAL))
    };
    println!("goal: {goal}: {verdict}");
    // It is Ottla's: Apache Kafka is measured to be compared with.
    let is_held = failover.target == Target::Ottla;
    ensure!(missed.is_empty() || !is_held, "{}", missed.join("; "));
    Ok(())
}

/// So many kills tell of p99.
const KILLS_FOR_P99: usize = 60;
/// Of fewer the slowest is held to this, whoever was killed. More than the 3.3 s that franz-go's needed once, at the first kill
/// of a run on a busy machine; less than half of what it takes where a dead node's session has to run out.
const SLOWEST: Duration = Duration::from_secs(4);

/// The clients that miss the goal, each with what it needed.
fn missed(times: &Times) -> Vec<String> {
    let mut by_client: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for ((_, client), samples) in times {
        by_client.entry(client).or_default().extend(samples);
    }
    if by_client.values().any(|samples| samples.len() < KILLS_FOR_P99) {
        return too_slow(times);
    }
    let judged = by_client.iter().map(|(client, samples)| (client, samples, at(samples, 0.99)));
    let too_long = judged.filter(|(.., took)| *took > GOAL);
    let told = too_long.map(|(client, samples, took)| {
        let (milliseconds, kills) = (took.as_millis(), samples.len());
        format!(
            "{client} needs {milliseconds} ms at p99 of {kills} kills, and {GOAL:?} is the goal"
        )
    });
    told.collect()
}

/// Each kind of victim by itself: the one must not hide what the other costs.
fn too_slow(times: &Times) -> Vec<String> {
    let judged = times.iter().map(|((victim, client), samples)| (victim, client, at(samples, 1.0)));
    let too_long = judged.filter(|(.., took)| *took > SLOWEST);
    let told = too_long.map(|(victim, client, took)| {
        let (milliseconds, victim) = (took.as_millis(), victim.name());
        format!("{client} needs {milliseconds} ms after the kill of a {victim}, and {SLOWEST:?} is the goal")
    });
    told.collect()
}

fn at(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    percentile(&sorted, share).unwrap_or_default()
}

fn shown(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(client: &'static str, milliseconds: &[u64]) -> Times {
        let samples = |first: usize| {
            let every_other = milliseconds.iter().skip(first).step_by(2);
            every_other.map(|it| Duration::from_millis(*it)).collect()
        };
        let victims = [(Victim::Leader, 0), (Victim::LeaderAndController, 1)];
        victims.map(|(victim, first)| ((victim, client), samples(first))).into()
    }

    #[test]
    fn with_few_kills_the_slowest_of_each_kind_of_victim_counts() {
        assert_eq!(missed(&times("java", &[300, 4000])), [""; 0]);
        let mut two = times("java", &[300, 4001]);
        two.extend(times("librdkafka", &[900, 900]));
        let expected = "java needs 4001 ms after the kill of a leader and active controller, and 4s is the goal";
        assert_eq!(missed(&two), [expected]);
        let of_three = missed(&times("java", &[300, 400, 4001]));
        let expected = "java needs 4001 ms after the kill of a leader, and 4s is the goal";
        assert_eq!(of_three, [expected]);
    }

    #[test]
    fn with_a_hundred_kills_one_may_take_longer_and_two_may_not() {
        let mut kills = vec![300; 99];
        kills.push(5_000);
        assert_eq!(missed(&times("java", &kills)), [""; 0]);
        kills[50] = 1_500;
        assert_eq!(missed(&times("java", &kills)).len(), 1);
    }
}
