//! What a node that does not lead says of the one that does, beside its refusal (KIP-951) (shell).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ottla_base::{ErrorCode, TopicId};
use ottla_protocol::Records;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{FetchRequest, ProduceRequest};
use ottla_records::{BatchBuilder, Compression};

use super::SETTLE_LIMIT;
use super::ask::{self, Caller};
use super::nodes::Cluster;
use crate::broker::Target;

const TOPIC: &str = "hints";
const LIMIT: Duration = Duration::from_secs(10);
/// Whom nothing is told of.
const NOBODY: (i32, i32) = (-1, -1);

/// What an answer says: the error, the leader and its epoch, and the nodes' ids, ports and racks.
type Gist = (ErrorCode, (i32, i32), Vec<(i32, i32, Option<String>)>);

pub(super) fn run(target: Target, directory: &Path) -> Result<()> {
    let more = |node| vec![("broker.rack".to_owned(), format!("rack-{node}"))];
    Cluster::start_with(target, directory, more)?.explaining(try_all)
}

/// Node 3 has nothing of partition 0. Partition 1 has been moved, so that its leader epoch is no longer the first one.
fn try_all(cluster: &mut Cluster) -> Result<()> {
    cluster.create_assigned(TOPIC, &[vec![1, 2], vec![1, 2]])?;
    cluster.first(|address| ask::reassign(address, TOPIC, 1, &[2, 3]))?;
    let epoch = cluster.until("partition 1 led by node 2", SETTLE_LIMIT, |cluster| {
        let view = ask::view(&cluster.address_of(3)?, Some(TOPIC))?;
        let partition = view.partitions.get(&1).context("it is there")?;
        let epoch = partition.leader_epoch;
        let is_moved = partition.leader == Some(2) && partition.isr == BTreeSet::from([2, 3]);
        Ok((is_moved && epoch > 0).then_some(epoch))
    })?;
    let port = |node| -> Result<i32> {
        let address = cluster.address_of(node)?;
        let (_, port) = address.rsplit_once(':').context("an address has a port")?;
        Ok(port.parse()?)
    };
    let node = |id| -> Result<_> { Ok(vec![(id, port(id)?, Some(format!("rack-{id}")))]) };
    let not_led = ErrorCode::NOT_LEADER_OR_FOLLOWER;
    let fenced = ErrorCode::FENCED_LEADER_EPOCH;
    let old = epoch - 1;
    let address = |node| cluster.address_of(node);
    let of_1: Gist = (not_led, (1, 0), node(1)?);
    let of_2: Gist = (not_led, (2, epoch), node(2)?);
    let cases = [
        ("produce 9 tells nothing", produce(&address(2)?, 9, 0)?, (not_led, NOBODY, vec![])),
        ("produce 10 to a follower", produce(&address(2)?, 10, 0)?, of_1.clone()),
        ("produce 13 to a node without it", produce(&address(3)?, 13, 0)?, of_1.clone()),
        ("produce 13 to the one before", produce(&address(1)?, 13, 1)?, of_2.clone()),
        ("fetch 15 tells nothing", fetch(&address(3)?, 15, 0, -1, -1)?, (not_led, NOBODY, vec![])),
        ("fetch 16 from a node without it", fetch(&address(3)?, 16, 0, -1, -1)?, of_1),
        ("fetch 18 from the one before", fetch(&address(1)?, 18, 1, -1, -1)?, of_2),
        (
            "fetch 18 in an old epoch",
            fetch(&address(3)?, 18, 1, old, -1)?,
            (fenced, (2, epoch), node(2)?),
        ),
        (
            "fetch 18 in an old epoch from the leader",
            fetch(&address(2)?, 18, 1, old, -1)?,
            (fenced, (2, epoch), node(2)?),
        ),
        (
            "fetch 18 in a newer epoch tells nothing",
            fetch(&address(2)?, 18, 1, epoch + 1, -1)?,
            (ErrorCode::UNKNOWN_LEADER_EPOCH, NOBODY, vec![]),
        ),
        (
            "fetch 18 by a follower is told no addresses",
            fetch(&address(3)?, 18, 1, -1, 1)?,
            (not_led, (2, epoch), vec![]),
        ),
    ];
    for (what, found, expected) in cases {
        ensure!(found == expected, "{what}: {found:?}, not {expected:?}");
    }
    println!("hints on the new leader: all as it should be");
    Ok(())
}

fn produce(address: &str, version: i16, partition: i32) -> Result<Gist> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(ottla_base::Timestamp(1), None, Some(b"value"), &[]);
    let records = Some(Records::Bytes(builder.build_bytes()));
    let topic = TopicProduceData {
        name: if version < 13 { TOPIC.into() } else { Default::default() },
        topic_id: if version < 13 { TopicId::ZERO } else { ask::topic_id(address, TOPIC)? },
        partition_data: vec![PartitionProduceData { index: partition, records }],
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 5_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let answer = Caller::open(address, LIMIT)?.call(version, &request)?;
    let nodes = answer.node_endpoints.iter();
    let nodes = nodes.map(|it| (it.node_id, it.port, it.rack.as_deref().map(str::to_owned)));
    let mut partitions = answer.responses.iter().flat_map(|it| &it.partition_responses);
    let found = partitions.next().context("Produce tells of no partition")?;
    let leader = (found.current_leader.leader_id, found.current_leader.leader_epoch);
    Ok((found.error_code, leader, nodes.collect()))
}

/// By a consumer, or by a broker that wants to follow.
fn fetch(address: &str, version: i16, partition: i32, epoch: i32, follower: i32) -> Result<Gist> {
    let partition = FetchPartition {
        partition,
        current_leader_epoch: epoch,
        partition_max_bytes: 4_096,
        ..FetchPartition::default()
    };
    let topic_id = ask::topic_id(address, TOPIC)?;
    let request = FetchRequest {
        replica_state: ReplicaState { replica_id: follower, ..ReplicaState::default() },
        topics: vec![FetchTopic { topic_id, partitions: vec![partition], ..Default::default() }],
        ..FetchRequest::default()
    };
    let answer = Caller::open(address, LIMIT)?.call(version, &request)?;
    ensure!(answer.error_code == ErrorCode::NONE, "Fetch: {:?}", answer.error_code);
    let nodes = answer.node_endpoints.iter();
    let nodes = nodes.map(|it| (it.node_id, it.port, it.rack.as_deref().map(str::to_owned)));
    let mut partitions = answer.responses.iter().flat_map(|it| &it.partitions);
    let found = partitions.next().context("Fetch tells of no partition")?;
    let leader = (found.current_leader.leader_id, found.current_leader.leader_epoch);
    Ok((found.error_code, leader, nodes.collect()))
}
