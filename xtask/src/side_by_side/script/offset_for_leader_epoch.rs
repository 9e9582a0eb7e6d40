//! Where leader epochs ended.

use anyhow::Result;
use ottla_protocol::messages::OffsetForLeaderEpochRequest;
use ottla_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::super::both::Both;
use super::batches::three;
use super::{invalid_names, versions, write};

const TOPIC: &str = "epochs";
const UNKNOWN: i32 = -1;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create(TOPIC, 2, &[])?;
    write(both, TOPIC, 0, &three())?;
    for version in versions::<OffsetForLeaderEpochRequest>() {
        epochs(both, version)?;
        addressing(both, version)?;
    }
    Ok(())
}

fn request(topic: &str, partition: i32, current: i32, asked: i32) -> OffsetForLeaderEpochRequest {
    OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: topic.into(),
            partitions: vec![OffsetForLeaderPartition {
                partition,
                current_leader_epoch: current,
                leader_epoch: asked,
            }],
        }],
    }
}

fn epochs(both: &mut Both, version: i16) -> Result<()> {
    for partition in [0, 1] {
        for current in [UNKNOWN, 0, 1, -2] {
            for asked in [0, 1, 7, -1, -2, i32::MAX] {
                let what = format!("partition {partition}, leader epoch {current}, end of {asked}");
                both.ask(version, &what, |_| request(TOPIC, partition, current, asked))?;
            }
        }
    }
    Ok(())
}

fn addressing(both: &mut Both, version: i16) -> Result<()> {
    for partition in [2, -1] {
        let what = format!("the unknown partition {partition}");
        both.ask(version, &what, |_| request(TOPIC, partition, UNKNOWN, 0))?;
    }
    for name in invalid_names().into_iter().chain(["epochs-unknown".to_owned()]) {
        let short: String = name.chars().take(16).collect();
        both.ask(version, &format!("the unknown topic {short:?}"), |_| {
            request(&name, 0, UNKNOWN, 0)
        })?;
    }
    both.ask(version, "several partitions", |_| {
        let mut several = request(TOPIC, 1, UNKNOWN, 0);
        several.topics.extend(request("epochs-unknown", 0, UNKNOWN, 0).topics);
        several.topics.extend(request(TOPIC, 0, UNKNOWN, 0).topics);
        several
    })?;
    both.ask(version, "no topics", |_| OffsetForLeaderEpochRequest {
        replica_id: -1,
        ..Default::default()
    })?;
    for replica_id in [-2, 1, 5] {
        both.ask(version, &format!("as replica {replica_id}"), |_| OffsetForLeaderEpochRequest {
            replica_id: if version >= 3 { replica_id } else { -2 },
            ..request(TOPIC, 0, UNKNOWN, 0)
        })?;
    }
    Ok(())
}
