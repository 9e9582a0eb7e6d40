//! Whether a broker whose connections to the active controller break, again and again, keeps what it leads (shell).
//!
//! A broker that lives must not lose a partition because a connection broke: `ss -K` breaks them, both ends at once, and
//! nothing else is disturbed. Every leader's epoch must be what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::nodes::Cluster;
use super::{Cut, SETTLE_LIMIT};
use crate::process::run_ok;
use crate::workspace;

const TOPIC: &str = "kept";
const PARTITIONS: i32 = 30;
const SS_LIMIT: Duration = Duration::from_secs(10);
const PROBE_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn run(cut: &Cut, directory: &Path) -> Result<()> {
    let mut cluster = Cluster::start(cut.target, directory)?;
    cluster.create_topic(TOPIC, PARTITIONS)?;
    let (broken, took) = cluster.explaining(|cluster| cut_all(cut, cluster))?;
    println!(
        "{} times cut, {broken} connections in all, in {:.1} s: every leader of {PARTITIONS} partitions as before",
        cut.times,
        took.as_secs_f64()
    );
    Ok(())
}

fn cut_all(cut: &Cut, cluster: &mut Cluster) -> Result<(usize, Duration)> {
    let controller = cluster.controller()?;
    let before = epochs(cluster)?;
    let others: Vec<i32> = cluster.ids().into_iter().filter(|id| *id != controller).collect();
    let (started, mut broken) = (Instant::now(), 0);
    for (time, node) in (0..cut.times).zip(others.iter().cycle()) {
        broken += cut_once(cluster, *node, controller).with_context(|| format!("cut {time}"))?;
    }
    // What was cut last is there again: whoever would be fenced has been by now.
    cluster.await_whole(Some(TOPIC))?;
    for node in others {
        await_connected(cluster, node, controller)?;
    }
    let after = epochs(cluster)?;
    let is_other = |partition: &&i32| before.get(partition) != after.get(partition);
    let moved: Vec<_> = before.keys().filter(is_other).collect();
    ensure!(moved.is_empty(), "partitions {moved:?} were given another leader");
    Ok((broken, started.elapsed()))
}

/// Leader and leader epoch: the epoch would tell of a leader that has come back meanwhile, too.
fn epochs(cluster: &Cluster) -> Result<BTreeMap<i32, (Option<i32>, i32)>> {
    let view = cluster.view(Some(TOPIC))?;
    Ok(view.partitions.into_iter().map(|(id, it)| (id, (it.leader, it.leader_epoch))).collect())
}

/// Breaks every connection from a node to the active controller, and returns how many there were.
fn cut_once(cluster: &mut Cluster, node: i32, controller: i32) -> Result<usize> {
    let ports = await_connected(cluster, node, controller)?;
    let to = cluster.controller_port(controller)?;
    for port in &ports {
        kill_connection(*port, to)?;
    }
    let left = connections(cluster.pid(node)?, to)?;
    ensure!(left.is_disjoint(&ports), "connections of {ports:?} were not broken");
    Ok(ports.len())
}

/// The node's own ports of its connections to the active controller, once it has some.
fn await_connected(cluster: &mut Cluster, node: i32, controller: i32) -> Result<BTreeSet<u16>> {
    cluster.until(&format!("node {node} connected to its controller"), SETTLE_LIMIT, |cluster| {
        let found = connections(cluster.pid(node)?, cluster.controller_port(controller)?)?;
        Ok(Some(found).filter(|found| !found.is_empty()))
    })
}

fn ss(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ss");
    command.args(arguments);
    Ok(run_ok(command, b"", SS_LIMIT)?.stdout_text())
}

/// Local ports of a process's connections to a port.
fn connections(pid: u32, to: u16) -> Result<BTreeSet<u16>> {
    let text = ss(&["-Htnp", "state", "established", "dport", "=", &to.to_string()])?;
    let owned = text.lines().filter(|line| line.contains(&format!("pid={pid},")));
    Ok(owned.filter_map(local_port).collect())
}

/// `0 0 127.0.0.1:40000 127.0.0.1:20001 users:(("ottla",pid=7,fd=9))`
fn local_port(line: &str) -> Option<u16> {
    let local = line.split_ascii_whitespace().nth(2)?;
    local.rsplit_once(':')?.1.parse().ok()
}

fn kill_connection(from: u16, to: u16) -> Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    ss(&["-K", "-t", "sport", "=", &from, "dport", "=", &to]).map(drop)
}

/// Tries it on a connection of our own: Linux may be built without this, or keep it from us.
pub(super) fn is_possible() -> bool {
    let try_it = || -> Result<bool> {
        workspace::find_program("ss").context("there is no program `ss`")?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let to = listener.local_addr()?.port();
        let mut stream = TcpStream::connect(("127.0.0.1", to))?;
        stream.set_read_timeout(Some(PROBE_LIMIT))?;
        kill_connection(stream.local_addr()?.port(), to)?;
        let error = stream.read(&mut [0]).err().map(|error| error.kind());
        Ok(error.is_some_and(|kind| kind != std::io::ErrorKind::WouldBlock))
    };
    try_it().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_our_end_is_found_in_what_ss_says() {
        let line = r#"0      0      [::ffff:127.0.0.1]:40000 127.0.0.1:20001 users:(("ottla",pid=7,fd=9))"#;
        assert_eq!(local_port(line), Some(40_000));
        assert_eq!(local_port(""), None);
    }
}
