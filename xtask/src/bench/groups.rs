//! Consumer groups: ten thousand members that heartbeat and commit, and a restart on a million commits (shell).
//!
//! Members send what the Java consumer sends at its defaults, a heartbeat every three seconds and a commit every
//! five, at fixed times: an answer that is late does not delay the next question, and its latency counts from when
//! the question was due. They do not fetch, which is not the coordinator's work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::driver::{self, Connection, in_threads, joined};
use super::latency::percentile;
use super::subject::Contestant;
use super::table::{Row, Section};
use super::wire::groups::{self as wire, Joined, Member};
use super::wire::{api_versions, versions_told};
use super::{Bench, Stage, in_turn, milliseconds, procfs};

const GROUPS: usize = 1_000;
const MEMBERS_PER_GROUP: usize = 10;
/// Each has its share of the groups.
const THREADS: usize = 50;
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

const TOPIC: &str = "groups";
const PARTITIONS: i32 = 100;
/// Times the groups and the partitions: a million commits.
const COMMIT_ROUNDS: i64 = 10;

const READY_LIMIT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(1);

pub(super) fn measure(bench: &mut Bench) -> Result<Section> {
    for contestant in &bench.contestants {
        driver::create_topic(contestant.address(), TOPIC, PARTITIONS)?;
        await_coordinators(contestant.address())?;
    }
    let mut rows = active_groups(bench)?;
    rows.push(restarts(bench)?);
    Ok(Section::new(Stage::Groups, rows))
}

/// The first who asks makes the broker create `__consumer_offsets`; then each of its partitions has to be loaded.
fn await_coordinators(address: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    retry("there is no group coordinator", || {
        let answer = connection.call(&wire::find_coordinator("first"))?;
        Ok(wire::coordinator_found(answer)?.then_some(()))
    })?;
    offsets(&mut connection).map(drop)
}

/// What the groups have committed, when all of their coordinators are ready to tell.
fn offsets(connection: &mut Connection) -> Result<Vec<i64>> {
    let groups: Vec<String> =
        (0..THREADS).flat_map(|share| group_names("commits", share)).collect();
    let frame = wire::fetch_offsets(&groups, TOPIC);
    retry("not all group coordinators are ready", || {
        wire::offsets_fetched(connection.call(&frame)?)
    })
}

fn retry<T>(otherwise: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{otherwise} after {} s", READY_LIMIT.as_secs());
        }
        thread::sleep(RETRY_PAUSE);
    }
}

fn active_groups(bench: &Bench) -> Result<Vec<Row>> {
    let title = "1,000 groups of 10 members";
    let mut p50 = Row::least(format!("{title}, heartbeat p50"), "ms");
    let mut p99 = Row::median(format!("{title}, heartbeat p99"), "ms");
    let mut commit_p99 = Row::median(format!("{title}, commit p99"), "ms");
    let mut cores = Row::least(format!("{title}, CPU"), "cores");
    let mut resident = Row::median(format!("{title}, memory, resident"), "MiB");
    for (run, subject) in in_turn(&bench.brokers(), bench.runs) {
        let Some(contestant) = bench.contestant(subject) else { continue };
        bench.say_run(title, run, subject);
        let lived = live(contestant, run, bench.scale.heartbeats)
            .with_context(|| format!("{} failed", subject.name()))?;
        if run > 0 {
            let at = |latencies: &[Duration], share| {
                percentile(latencies, share).map(milliseconds).context("no latencies")
            };
            p50.add(subject, at(&lived.heartbeats, 0.5)?);
            p99.add(subject, at(&lived.heartbeats, 0.99)?);
            commit_p99.add(subject, at(&lived.commits, 0.99)?);
            cores.add(subject, lived.cores);
            resident.add(subject, lived.resident);
        }
    }
    Ok(vec![p50, p99, commit_p99, cores, resident])
}

/// What the lives of ten thousand members cost; latencies in rising order.
struct Lived {
    heartbeats: Vec<Duration>,
    commits: Vec<Duration>,
    cores: f64,
    resident: f64,
}

/// Members who have joined, and the connections that they did it over.
struct Joiners {
    members: Vec<Member>,
    connections: Vec<Connection>,
}

/// Everybody joins, heartbeats so many times and commits meanwhile, and leaves.
fn live(contestant: &Contestant, run: u32, heartbeats: u32) -> Result<Lived> {
    let address = contestant.address();
    let mut shares =
        in_threads(THREADS, |share| join(address, &group_names(&format!("live-{run}"), share)))?;
    let window = HEARTBEAT_INTERVAL * heartbeats;
    let pid = contestant.pid()?;
    let before = procfs::cpu_time(pid)?;
    let start = Instant::now();
    let end = start + window;
    let (mut heartbeats, mut commits) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let mut threads: Vec<(ScopedJoinHandle<'_, _>, ScopedJoinHandle<'_, _>)> = Vec::new();
        for share in &mut shares {
            let Joiners { members, connections } = share;
            let members = &*members;
            let commits = scope.spawn(move || commit_regularly(address, members, start, end));
            let heart = scope.spawn(move || beat(members, connections, start, end));
            threads.push((heart, commits));
        }
        for (heart, committer) in threads {
            heartbeats.extend(joined(heart)?);
            commits.extend(joined(committer)?);
        }
        anyhow::Ok(())
    })?;
    let cpu = procfs::cpu_time(pid)?.saturating_sub(before);
    let resident = procfs::memory(pid)?.resident;
    let cores = cpu.as_secs_f64() / start.elapsed().as_secs_f64();
    leave(&mut shares)?;
    heartbeats.sort_unstable();
    commits.sort_unstable();
    Ok(Lived { heartbeats, commits, cores, resident })
}

fn group_names(prefix: &str, share: usize) -> Vec<String> {
    let own = (0..GROUPS).filter(|group| group % THREADS == share);
    own.map(|group| format!("{prefix}-{group}")).collect()
}

/// Lets all members of some groups join them at the same time.
fn join(address: &str, groups: &[String]) -> Result<Joiners> {
    let all = groups.iter().flat_map(|group| (0..MEMBERS_PER_GROUP).map(move |_| group));
    let mut connections = Vec::new();
    let mut requests = Vec::new();
    for group in all.clone() {
        let mut connection = Connection::open(address)?;
        // As clients do; and nobody queues up for a connection who has not been let in.
        versions_told(connection.call(&api_versions())?)?;
        connections.push(connection);
        requests.push(wire::join_group(group, ""));
    }
    let mut ids = Vec::new();
    ask_all(&mut connections, &requests, |answer| {
        match wire::joined(answer)? {
            Joined::AsMember(id) => ids.push(id),
            Joined::Done { .. } => bail!("a member joined without a name"),
        }
        Ok(())
    })?;
    requests = all.clone().zip(&ids).map(|(group, id)| wire::join_group(group, id)).collect();
    let mut groups = all;
    let (mut members, mut syncs) = (Vec::new(), Vec::new());
    ask_all(&mut connections, &requests, |answer| {
        let Joined::Done { generation, leader, id } = wire::joined(answer)? else {
            bail!("a member that has a name was given another");
        };
        let group = groups.next().context("more answers than members")?.clone();
        let is_leader = leader == id;
        let member = Member { group, generation, id };
        syncs.push(wire::sync_group(&member, is_leader));
        members.push(member);
        Ok(())
    })?;
    ask_all(&mut connections, &syncs, wire::synced)?;
    Ok(Joiners { members, connections })
}

/// Sends every connection its request before it waits for any answer.
fn ask_all(
    connections: &mut [Connection],
    requests: &[Vec<u8>],
    mut understand: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for (connection, request) in connections.iter_mut().zip(requests) {
        connection.send(request)?;
    }
    connections.iter_mut().try_for_each(|connection| understand(connection.receive()?))
}

/// Calls again and again, each of `len` callers once in `interval`, evenly spread; from when each call was due to its
/// end.
fn regularly(
    len: usize,
    interval: Duration,
    (start, end): (Instant, Instant),
    mut call: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Duration>> {
    let step = interval / u32::try_from(len).context("too many callers")?;
    let mut latencies = Vec::new();
    let mut due = start;
    for caller in (0..len).cycle() {
        due += step;
        if due >= end {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        call(caller)?;
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

fn beat(
    members: &[Member],
    connections: &mut [Connection],
    start: Instant,
    end: Instant,
) -> Result<Vec<Duration>> {
    let frames: Vec<_> = members.iter().map(wire::heartbeat).collect();
    regularly(members.len(), HEARTBEAT_INTERVAL, (start, end), |member| {
        let (connection, frame) =
            connections.get_mut(member).zip(frames.get(member)).context("no such member")?;
        wire::heart_was_heard(connection.call(frame)?)
    })
}

/// Over a connection of its own: a commit waits for the disk, and nobody's heartbeat should wait with it.
fn commit_regularly(
    address: &str,
    members: &[Member],
    start: Instant,
    end: Instant,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let frames: Vec<_> = members.iter().map(|member| wire::commit(member, TOPIC, 1, 7)).collect();
    regularly(members.len(), COMMIT_INTERVAL, (start, end), |member| {
        wire::committed(connection.call(frames.get(member).context("no such member")?)?)
    })
}

fn leave(shares: &mut [Joiners]) -> Result<()> {
    for Joiners { members, connections } in shares {
        let connection = connections.first_mut().context("nobody has joined")?;
        for members in members.chunk_by(|one, other| one.group == other.group) {
            let group = &members.first().context("a group without members")?.group;
            let members: Vec<_> = members.iter().collect();
            wire::left(connection.call(&wire::leave_group(group, &members))?)?;
        }
    }
    Ok(())
}

/// From the start of a process to its answer where a thousand groups stand, after a million commits.
fn restarts(bench: &mut Bench) -> Result<Row> {
    let title = "restart with a million commits, to all groups' offsets";
    let mut row = Row::least(title, "ms");
    for contestant in &bench.contestants {
        bench.say(&format!("a million commits: {}", contestant.subject.name()));
        commit_a_million(contestant.address())?;
    }
    for (run, subject) in in_turn(&bench.brokers(), bench.runs) {
        bench.say_run(title, run, subject);
        let contestant = bench.contestants.iter_mut().find(|one| one.subject == subject);
        let took = restart(contestant.context("a broker that does not take part")?)?;
        if run > 0 {
            row.add(subject, milliseconds(took));
        }
    }
    Ok(row)
}

fn commit_a_million(address: &str) -> Result<()> {
    let failed = AtomicBool::new(false);
    let work = |share| -> Result<()> {
        let mut connection = Connection::open(address)?;
        for offset in 1..=COMMIT_ROUNDS {
            for group in group_names("commits", share) {
                let frame = wire::commit(&Member::outsider(group), TOPIC, PARTITIONS, offset);
                wire::committed(connection.call(&frame)?)?;
                if failed.load(Ordering::Relaxed) {
                    bail!("another thread failed");
                }
            }
        }
        Ok(())
    };
    in_threads(THREADS, |share| {
        work(share).inspect_err(|_| failed.store(true, Ordering::Relaxed))
    })?;
    Ok(())
}

fn restart(contestant: &mut Contestant) -> Result<Duration> {
    contestant.broker.stop()?;
    let started = Instant::now();
    contestant.broker.restart()?;
    let offsets = offsets(&mut Connection::open(contestant.address())?)?;
    let took = started.elapsed();
    if offsets != vec![COMMIT_ROUNDS; GROUPS] {
        bail!("{} has lost commits: {offsets:?}", contestant.subject.name());
    }
    Ok(took)
}
