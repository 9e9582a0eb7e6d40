//! Three brokers that hold three replicas of everything: what a gigabyte costs all of them together, how long acks=all
//! takes, and how long it takes until the partitions of a dead broker can be written again (shell).
//!
//! The clusters are those of `cargo xtask cluster`: the same properties for Apache Kafka and for Ottla, on loopback and on one
//! disk, which all three brokers of a cluster flush.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::ErrorCode;
use ottla_protocol::Records;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::driver::{self, Batch, in_threads};
use super::latency::percentile;
use super::subject::{FloorProcess, warm_page_cache};
use super::table::{Row, Section, Subject};
use super::wire::{self, TopicId};
use super::{Bench, Directory, Stage, in_turn, milliseconds, procfs};
use crate::broker::Target;
use crate::cluster::ask::{self, Caller};
use crate::cluster::nodes::Cluster;

const ACKS_ALL: i16 = -1;
/// One topic of one partition for each node to lead.
const LEADERS: [[i32; 3]; 3] = [[1, 2, 3], [2, 3, 1], [3, 1, 2]];
/// A record of 1 KiB in batches of 64 KiB, as in the part about produce.
const VALUE_LEN: usize = 1_024;
const BATCH_LEN: usize = 64 * 1_024;
/// What a broker still does after its last answer (flushes, bookkeeping) counts too.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How many partitions the broker leads that is killed.
const LED: [i32; 2] = [1_000, 10_000];
/// Apache Kafka makes more of them for minutes.
const KAFKA_MAX: i32 = 1_000;
/// No more fit into one request that creates a topic: Apache Kafka's own limit.
const PER_TOPIC_MAX: i32 = 5_000;
const PER_REQUEST: usize = 1_000;
const WRITE_LIMIT: Duration = Duration::from_secs(180);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = under_load(bench)?;
    for led in LED {
        rows.push(failover(bench, led)?);
    }
    Ok(Section::new(Stage::Cluster, rows))
}

/// A cluster that takes part, on an empty directory.
struct Contestant {
    subject: Subject,
    cluster: Cluster,
    /// Goes last.
    _directory: Directory,
}

impl Contestant {
    fn start(bench: &Bench, subject: Subject, name: &str) -> Result<Self> {
        bench.say(&format!("three brokers: {}", subject.name()));
        let directory = bench.empty_directory(&format!("{name}-{}", subject.name()))?;
        let unflushed = vec![("log.flush.on.commit".to_owned(), "false".to_owned())];
        let (target, more) = match subject {
            Subject::Kafka => (Target::Kafka, Vec::new()),
            Subject::Unflushed => (Target::Ottla, unflushed),
            _ => (Target::Ottla, Vec::new()),
        };
        let cluster = Cluster::start_with(target, &directory.0, |_| more.clone())?;
        Ok(Self { subject, cluster, _directory: directory })
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.cluster.ids().into_iter().map(|id| self.cluster.pid(id)).collect()
    }

    /// CPU time of all three.
    fn cpu_time(&self) -> Result<Duration> {
        self.pids()?.into_iter().map(procfs::cpu_time).sum()
    }

    /// Makes the topics of `LEADERS`, and gives address and id of each.
    fn create(&mut self, name: &str) -> Result<Vec<(String, TopicId)>> {
        let mut made = Vec::new();
        for assignment in LEADERS {
            let topic = format!("{name}-{}", assignment[0]);
            self.cluster.create_assigned(&topic, &[assignment.to_vec()])?;
            let id = self.cluster.first(|address| ask::topic_id(address, &topic))?;
            made.push((self.cluster.address_of(assignment[0])?, id.0));
        }
        Ok(made)
    }
}

fn under_load(bench: &Bench) -> Result<Vec<Row>> {
    let subjects = bench.brokers();
    let start = |subject: &Subject| Contestant::start(bench, *subject, "cluster");
    let mut contestants = subjects.iter().map(start).collect::<Result<Vec<_>>>()?;
    let title = "rf 3, acks=all, 1 KiB records";
    let mut cost = Row::least(format!("{title}, three brokers together"), "CPU s per GB");
    let mut speed = Row::most(format!("{title}, three producers"), "MB/s");
    let mut p50 = Row::least("rf 3, acks=all, one record at a time, p50", "ms");
    let mut p99 = Row::median("rf 3, acks=all, one record at a time, p99", "ms");
    let mut slowest = Row::greatest("rf 3, acks=all, one record at a time, the slowest", "ms");
    for (run, subject) in in_turn(&subjects, bench.runs) {
        let Some(contestant) = contestants.iter_mut().find(|it| it.subject == subject) else {
            continue;
        };
        bench.say_run(title, run, subject);
        let (bytes, took, cpu) = produce(bench, contestant, &format!("load-{run}"))?;
        if run > 0 {
            cost.add(subject, cpu.as_secs_f64() / (bytes / 1e9));
            speed.add(subject, bytes / 1e6 / took.as_secs_f64());
        }
    }
    for (run, subject) in in_turn(&bench.subjects, bench.runs) {
        bench.say_run("acks=all, one record at a time", run, subject);
        let contestant = contestants.iter_mut().find(|it| it.subject == subject);
        let mut latencies = one_at_a_time(bench, subject, contestant, run)?;
        latencies.sort_unstable();
        if run > 0 {
            for (row, share) in [(&mut p50, 0.5), (&mut p99, 0.99), (&mut slowest, 1.0)] {
                row.add(subject, milliseconds(percentile(&latencies, share).context("none")?));
            }
        }
    }
    let mut memory = Row::median("three brokers after that, memory, resident", "MiB");
    for contestant in &contestants {
        let resident = |pid| procfs::memory(pid).map(|memory| memory.resident);
        let all = contestant.pids()?.into_iter().map(resident).sum::<Result<f64>>()?;
        memory.add(contestant.subject, all);
    }
    Ok(vec![cost, speed, p50, p99, slowest, memory])
}

/// A third of the data to each node, from a producer of its own. Bytes, time, and what it has cost all brokers.
fn produce(
    bench: &Bench,
    contestant: &mut Contestant,
    name: &str,
) -> Result<(f64, Duration, Duration)> {
    let batch = Batch::filled(VALUE_LEN, BATCH_LEN)?;
    let requests = bench.scale.cluster_records / batch.records / u64::try_from(LEADERS.len())?;
    let bytes = requests * batch.records * u64::try_from(VALUE_LEN * LEADERS.len())?;
    let targets = contestant.create(name)?;
    warm_page_cache(&bench.directory, bytes * 3)?;
    let before = contestant.cpu_time()?;
    let started = Instant::now();
    in_threads(targets.len(), |share| {
        let (address, topic) = targets.get(share).context("a topic for each")?;
        driver::produce(address, &mut wire::produce(topic, ACKS_ALL, &batch.bytes), requests)
    })?;
    let took = started.elapsed();
    thread::sleep(AFTERMATH);
    let cpu = contestant.cpu_time()?.saturating_sub(before);
    for assignment in LEADERS {
        let topic = format!("{name}-{}", assignment[0]);
        contestant.cluster.first(|address| driver::delete_topic(address, &topic))?;
    }
    Ok((bytes as f64, took, cpu))
}

/// From the send to the answer, for each record; a floor answers by itself.
fn one_at_a_time(
    bench: &Bench,
    subject: Subject,
    contestant: Option<&mut Contestant>,
    run: u32,
) -> Result<Vec<Duration>> {
    let batch = Batch::filled(100, 0)?.bytes;
    let records = bench.scale.latency_records;
    let Some(contestant) = contestant else {
        let file = bench.directory.join("floor.log");
        let floor = FloorProcess::receive(&file, subject == Subject::FlushingFloor)?;
        let frame = wire::produce(&TopicId::default(), ACKS_ALL, &batch);
        return driver::round_trips(&floor.address, &frame, records);
    };
    let targets = contestant.create(&format!("one-{run}"))?;
    let mut latencies = Vec::new();
    for (address, topic) in &targets {
        let frame = wire::produce(topic, ACKS_ALL, &batch);
        let share = records / u32::try_from(targets.len())?;
        latencies.extend(driver::round_trips(address, &frame, share)?);
    }
    Ok(latencies)
}

/// From kill -9 of a broker to the acknowledgement of a record in the last of the partitions that it led.
fn failover(bench: &Bench, led: i32) -> Result<Row> {
    let title = format!("kill -9 of a broker that leads {led} partitions, to the last one written");
    let mut row = Row::greatest(title.as_str(), "s");
    for subject in bench.solo_brokers() {
        let runs = match subject {
            Subject::Kafka if led > KAFKA_MAX => 0,
            Subject::Kafka => 1,
            _ => bench.runs,
        };
        for run in 1..=runs {
            bench.say_run(&title, run, subject);
            let took = fail_once(bench, subject, led);
            let took = took.with_context(|| format!("{} failed", subject.name()))?;
            row.add(subject, took.as_secs_f64());
        }
    }
    Ok(row)
}

type Pending = BTreeMap<String, BTreeSet<i32>>;

fn fail_once(bench: &Bench, subject: Subject, led: i32) -> Result<Duration> {
    let mut contestant = Contestant::start(bench, subject, "failover")?;
    let cluster = &mut contestant.cluster;
    let controller = cluster.controller()?;
    let victim = cluster.ids().into_iter().find(|id| *id != controller).context("a broker")?;
    let others = cluster.ids().into_iter().filter(|id| *id != victim);
    let mut assignment = vec![victim];
    assignment.extend(others);
    let mut all = Pending::new();
    for start in (0..led).step_by(usize::try_from(PER_TOPIC_MAX)?) {
        let (topic, count) = (format!("led-{start}"), (led - start).min(PER_TOPIC_MAX));
        cluster.create_assigned(&topic, &vec![assignment.clone(); usize::try_from(count)?])?;
        all.insert(topic, (0..count).collect());
    }
    // Every partition has a record, and every node has written to it.
    write_all(cluster, all.clone())?;
    cluster.kill9(victim)?;
    write_all(cluster, all)
}

/// Writes a record to every partition, again and again to those that do not take it; the time until all have.
fn write_all(cluster: &Cluster, mut pending: Pending) -> Result<Duration> {
    let batch = Batch::filled(100, 0)?.bytes;
    let started = Instant::now();
    while pending.values().any(|partitions| !partitions.is_empty()) {
        ensure!(started.elapsed() < WRITE_LIMIT, "not all partitions are written: {pending:?}");
        for (topic, partitions) in &mut pending {
            // Whoever is away, or leads no more, is asked again.
            let written = write_some(cluster, topic, partitions, &batch).unwrap_or_default();
            partitions.retain(|partition| !written.contains(partition));
        }
        thread::sleep(PAUSE);
    }
    Ok(started.elapsed())
}

/// The partitions that have taken their record.
fn write_some(
    cluster: &Cluster,
    topic: &str,
    pending: &BTreeSet<i32>,
    batch: &[u8],
) -> Result<BTreeSet<i32>> {
    let view = cluster.view(Some(topic))?;
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (partition, it) in view.partitions.iter().filter(|(id, _)| pending.contains(id)) {
        by_leader.entry(it.leader.unwrap_or(-1)).or_default().push(*partition);
    }
    let mut written = BTreeSet::new();
    for (leader, partitions) in by_leader {
        let Some(address) = view.brokers.get(&leader) else { continue };
        let Ok(mut caller) = Caller::open(address, ANSWER_LIMIT) else { continue };
        for some in partitions.chunks(PER_REQUEST) {
            let answer = caller.call(12, &request(topic, some, batch))?;
            let told = answer.responses.iter().flat_map(|it| &it.partition_responses);
            let taken = told.filter(|it| it.error_code == ErrorCode::NONE);
            written.extend(taken.map(|it| it.index));
        }
    }
    Ok(written)
}

fn request(topic: &str, partitions: &[i32], batch: &[u8]) -> ProduceRequest {
    let data = |index: &i32| PartitionProduceData {
        index: *index,
        records: Some(Records::Bytes(batch.to_vec().into())),
    };
    let partition_data = partitions.iter().map(data).collect();
    let topic = TopicProduceData { name: topic.into(), partition_data, ..Default::default() };
    ProduceRequest {
        acks: ACKS_ALL,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}
