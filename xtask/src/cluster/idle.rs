//! What three nodes with many partitions cost while nobody writes or reads (shell).

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::nodes::Cluster;
use super::{Idle, NODES};
use crate::bench::procfs::cpu_time;

const TOPIC: &str = "idle";

pub(super) fn run(idle: &Idle, directory: &Path) -> Result<()> {
    let mut cluster = Cluster::start(idle.target, directory)?;
    cluster.create_topic(TOPIC, idle.partitions)?;
    // What the beginning has left behind is done with.
    thread::sleep(Duration::from_secs(idle.seconds / 4));
    let processes = cluster.processes();
    let times = || processes.iter().map(|(_, pid)| cpu_time(*pid)).collect::<Result<Vec<_>>>();
    let before = times()?;
    thread::sleep(Duration::from_secs(idle.seconds));
    let after = times()?;
    cluster.check_running()?;
    println!("{} partitions, each on {NODES} nodes, for {} s:", idle.partitions, idle.seconds);
    for ((id, _), (before, after)) in processes.iter().zip(before.iter().zip(after)) {
        let share = (after - *before).as_secs_f64() / idle.seconds as f64 * 100.0;
        println!("node {id}: {share:.2} % of a processor");
    }
    Ok(())
}
