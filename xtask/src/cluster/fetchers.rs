//! Replication goes on while the number of fetchers changes (`num.replica.fetchers`) (shell).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::{Client, Direct};
use super::nodes::Cluster;
use super::{ask, replicas};
use crate::broker::Target;

const TOPIC: &str = "fetchers";
const PARTITIONS: i32 = 12;
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// Kafka takes no larger steps than to the double and the half.
const COUNTS: [Option<&str>; 5] = [Some("2"), Some("4"), Some("3"), Some("2"), None];

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    Cluster::start(target, directory)?.explaining(try_all)
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    cluster.create_topic(TOPIC, PARTITIONS)?;
    let mut writer = Direct::new(TOPIC, cluster.addresses());
    let mut worst = Duration::ZERO;
    for count in COUNTS {
        let name = "num.replica.fetchers";
        cluster.first(|address| ask::configure_broker(address, "", name, count))?;
        for _ in 0..5 {
            for partition in 0..PARTITIONS {
                let begun = Instant::now();
                writer.write(partition, WRITE_LIMIT)?;
                worst = worst.max(begun.elapsed());
            }
        }
        cluster.await_whole(Some(TOPIC))?;
    }
    println!("no record took longer than {worst:.1?} to be acknowledged by all");
    ensure!(worst < Duration::from_secs(5), "somebody was not fetched for a while");
    replicas::await_alike(cluster, TOPIC, PARTITIONS)
}
