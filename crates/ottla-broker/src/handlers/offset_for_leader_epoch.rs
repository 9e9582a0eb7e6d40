//! OffsetForLeaderEpoch (key 23), versions 2–4: where a leader epoch ended in our log (KIP-101, KIP-320).
//!
//! Answers with the largest epoch that is not newer than the asked one and its end offset, or with
//! −1 and −1 when we know of none.

use std::sync::Arc;

use ottla_base::{ErrorCode, LeaderEpoch};
use ottla_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use ottla_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use ottla_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::Context;
use crate::replica::Replica;

pub(super) fn handle(
    context: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| OffsetForLeaderTopicResult {
        partitions: topic
            .partitions
            .into_iter()
            .map(|asked| {
                let replica = context.broker.replica(&topic.topic, asked.partition);
                look_up(replica, &asked).unwrap_or_else(|error_code| EpochEndOffset {
                    error_code,
                    ..unknown(asked.partition)
                })
            })
            .collect(),
        topic: topic.topic,
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn look_up(
    replica: Result<Arc<Replica>, ErrorCode>,
    asked: &OffsetForLeaderPartition,
) -> Result<EpochEndOffset, ErrorCode> {
    let replica = replica?;
    replica.check_leader_epoch(asked.current_leader_epoch)?;
    replica.check_leads()?;
    let found = replica.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch));
    Ok(match found {
        Some((epoch, end)) => {
            EpochEndOffset { leader_epoch: epoch.0, end_offset: end.0, ..unknown(asked.partition) }
        }
        None => unknown(asked.partition),
    })
}

fn unknown(partition: i32) -> EpochEndOffset {
    EpochEndOffset { partition, leader_epoch: -1, end_offset: -1, ..EpochEndOffset::default() }
}
