//! A leader whose disk is full hands over, does not get its partitions back while it is full, and comes back afterwards
//! (shell).
//!
//! The disk is made full by asking for more room to be left free than there is (`log.dir.reserved.bytes`, Ottla's own).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::ErrorCode;
use ottla_protocol::messages::IncrementalAlterConfigsRequest;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::ask::{self, Caller};
use super::check::create;
use super::client::{Client, Direct};
use super::nodes::Cluster;
use super::{NODES, SETTLE_LIMIT};
use crate::broker::Target;

const TOPIC: &str = "space";
const LIMIT: Duration = Duration::from_secs(30);
const BROKER_RESOURCE: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
/// More than any disk has.
const ALL: &str = "1000000000000000000";

pub(super) fn run(directory: &Path) -> Result<()> {
    let mut cluster = Cluster::start(Target::Ottla, NODES, directory)?;
    let tried = try_all(&mut cluster);
    tried.map_err(|error| cluster.failure(&format!("{error:#}")))
}

fn try_all(cluster: &mut Cluster) -> Result<()> {
    create(cluster, |address| ask::create_assigned(address, TOPIC, &[vec![1, 2, 3]]))?;
    cluster.await_whole(Some(TOPIC))?;
    let mut writer = Direct::new(TOPIC, cluster.addresses());
    writer.write(0, LIMIT)?;
    ensure!(cluster.leader(TOPIC, 0)? == 1, "node 1 is to lead first");

    reserve(cluster, 1, Some(ALL))?;
    let begun = Instant::now();
    writer.write(0, LIMIT).context("nothing can be written after the disk is full")?;
    println!("after the disk is full the next record took {:.2?}", begun.elapsed());
    let (leader, isr) = state(cluster)?;
    ensure!(leader != 1 && !isr.contains(&1), "led by {leader}, in sync {isr:?}");
    // Again and again: node 1 has everything, and must not lead nor hold the others up.
    for _ in 0..20 {
        cluster.first(elect_preferred).ok();
        let begun = Instant::now();
        writer.write(0, LIMIT)?;
        ensure!(begun.elapsed() < Duration::from_secs(2), "a record took {:.2?}", begun.elapsed());
        let (leader, isr) = state(cluster)?;
        ensure!(leader != 1 && !isr.contains(&1), "led by {leader}, in sync {isr:?}");
    }

    reserve(cluster, 1, None)?;
    cluster.until("all in sync again", SETTLE_LIMIT, |cluster| {
        Ok((state(cluster)?.1.len() == 3).then_some(()))
    })?;
    cluster.await_preferred(TOPIC)?;
    writer.write(0, LIMIT)?;
    // All at once: somebody keeps leading, and what is there can be read; then it goes on.
    for node in 1..=NODES {
        reserve(cluster, node, Some(ALL))?;
    }
    ensure!(writer.write(0, Duration::from_secs(2)).is_err(), "there is no room anywhere");
    for node in 1..=NODES {
        reserve(cluster, node, None)?;
    }
    writer.write(0, LIMIT)?;
    cluster.await_whole(Some(TOPIC))
}

/// The leader, and the ISR.
fn state(cluster: &Cluster) -> Result<(i32, Vec<i32>)> {
    let view = cluster.view(Some(TOPIC))?;
    let partition = view.partitions.get(&0).context("it is there")?;
    Ok((partition.leader.unwrap_or(-1), partition.isr.clone()))
}

fn elect_preferred(address: &str) -> Result<()> {
    ask::elect_preferred(address, TOPIC, &[0])
}

fn reserve(cluster: &Cluster, node: i32, bytes: Option<&str>) -> Result<()> {
    let address = cluster.address_of(node)?;
    set(&address, &node.to_string(), "log.dir.reserved.bytes", bytes)
}

/// Sets a property of one broker, or of all under the empty name, or takes it back.
pub(super) fn set(address: &str, broker: &str, name: &str, value: Option<&str>) -> Result<()> {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(Into::into),
    };
    let resource = AlterConfigsResource {
        resource_type: BROKER_RESOURCE,
        resource_name: broker.into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = Caller::open(address, LIMIT)?.call(1, &request)?;
    let result = answer.responses.first().context("IncrementalAlterConfigs tells of nothing")?;
    ensure!(
        result.error_code == ErrorCode::NONE,
        "{:?}: {:?}",
        result.error_code,
        result.error_message
    );
    Ok(())
}
