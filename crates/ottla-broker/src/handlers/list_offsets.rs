//! ListOffsets (key 2), versions 1–11: the offset that belongs to a time, real or special.
//!
//! - v2: isolation level. v4: leader epochs. v7: −3, the record with the largest timestamp.
//!   v8: −4, earliest local. v9: −5, latest tiered. v11: −6, earliest pending upload (KIP-1023).
//! - There is no tiered storage: −4 is the log start, −5 and −6 find nothing.
//! - A time without a record at or after it gives offset −1, without an error.
//! - A new leader that does not know yet what is visible says OFFSET_NOT_AVAILABLE (before v5: LEADER_NOT_AVAILABLE) of
//!   the latest offset, and of a time that it finds nothing for.
//! - Known difference: records with acks=0 or 1 are not there for this until they are on disk, which takes milliseconds; with
//!   `log.flush.on.commit=false` they are at once, as in Apache Kafka.
//! - Known difference: a record is looked for by its time, or as the one with the largest, only while its directory is online and
//!   has room for entries of the index; else it is KAFKA_STORAGE_ERROR. Apache Kafka has mapped that room before.
//! - Known difference: a record is looked for by its time in segment after segment until there is one. Apache Kafka looks into the
//!   first segment only that has, or has had, a record of that time or later; a segment whose records have no times counts with
//!   that of its file. If there is none left in that segment, the answer is −1.

use std::collections::HashMap;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset, Timestamp};
use ottla_log::TimestampLookup;
use ottla_protocol::messages::list_offsets_request::ListOffsetsPartition;
use ottla_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ottla_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::Context;
use crate::answer::Outcome;
use crate::replica::Replica;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;

/// A replica id by which a tool asks for the log's end instead of the high watermark.
const DEBUGGING_REPLICA: i32 = -2;

pub(super) async fn handle(context: Context, request: ListOffsetsRequest) -> Outcome {
    // A look-up by time may read a cold segment, so none of this runs on a thread that connections share.
    let answered = tokio::task::spawn_blocking(move || {
        let response = list(&context, request);
        context.answer(&response)
    });
    answered.await.expect("a look-up does not panic")
}

fn list(context: &Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let replica_id = request.replica_id;
    let request_level = request.isolation_level;
    let is_known_isolation = (0..=1).contains(&request_level);
    let mut response = ListOffsetsResponse::default();
    for (name, partitions) in by_topic(request) {
        let partitions = partitions.into_iter().map(|Asked { partition, is_repeated }| {
            let result = if !is_known_isolation {
                Err(ErrorCode::UNKNOWN_SERVER_ERROR)
            } else if is_repeated {
                Err(ErrorCode::INVALID_REQUEST)
            } else {
                let end = End { replica_id, read_committed: request_level == 1 };
                look_up(context, &name, end, &partition)
            };
            result.unwrap_or_else(|error_code| ListOffsetsPartitionResponse {
                error_code,
                ..nothing(partition.partition_index)
            })
        });
        let partitions = partitions.collect();
        response.topics.push(ListOffsetsTopicResponse { name: name.clone(), partitions });
    }
    response
}

/// A partition of the request, and whether it is there several times.
struct Asked {
    partition: ListOffsetsPartition,
    is_repeated: bool,
}

/// Each topic once, each partition once, in the order of their first mention, as Apache Kafka answers.
fn by_topic(request: ListOffsetsRequest) -> Vec<(ByteString, Vec<Asked>)> {
    let mut topics: Vec<(ByteString, Vec<Asked>)> = Vec::new();
    let mut topic_at = HashMap::new();
    let mut partition_at = HashMap::new();
    for topic in request.topics {
        for partition in topic.partitions {
            let at = *topic_at.entry(topic.name.clone()).or_insert_with(|| {
                topics.push((topic.name.clone(), Vec::new()));
                topics.len() - 1
            });
            let Some((_, partitions)) = topics.get_mut(at) else { continue };
            let seen =
                *partition_at.entry((at, partition.partition_index)).or_insert(partitions.len());
            match partitions.get_mut(seen) {
                Some(repeated) => repeated.is_repeated = true,
                None => partitions.push(Asked { partition, is_repeated: false }),
            }
        }
    }
    topics
}

fn look_up(
    context: &Context,
    topic: &str,
    end: End,
    asked: &ListOffsetsPartition,
) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
    check_version(context.version, asked.timestamp)?;
    let replica = context.broker.replica(topic, asked.partition_index)?;
    replica.check_leader_epoch(asked.current_leader_epoch)?;
    if end.replica_id != DEBUGGING_REPLICA {
        replica.check_leads()?;
    }
    let found = find(context.version, &replica, end, asked.timestamp)?;
    Ok(match found {
        Some(found) => ListOffsetsPartitionResponse {
            timestamp: found.timestamp,
            offset: found.offset.0,
            // Version 4 is the first that can say it.
            leader_epoch: if context.version >= 4 { found.leader_epoch } else { -1 },
            ..nothing(asked.partition_index)
        },
        None => nothing(asked.partition_index),
    })
}

fn find(
    version: i16,
    replica: &Replica,
    end: End,
    timestamp: i64,
) -> Result<Option<Found>, ErrorCode> {
    // Asked before anything is looked up, which may become visible meanwhile.
    let known = end.check_known(version, replica);
    Ok(match timestamp {
        LATEST => known.map(|()| Some(latest(replica, end)))?,
        EARLIEST | EARLIEST_LOCAL => Some(earliest(replica)),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        time => match visible(replica, end, by_time(replica, time)?) {
            None => known.map(|()| None)?,
            found => found,
        },
    })
}

struct Found {
    timestamp: i64,
    offset: Offset,
    leader_epoch: i32,
}

/// Which end of a partition is meant by its latest offset.
#[derive(Debug, Clone, Copy)]
struct End {
    replica_id: i32,
    read_committed: bool,
}

impl End {
    /// A consumer's, not a follower's or a tool's.
    const fn is_of_consumers(self) -> bool {
        !matches!(self.replica_id, DEBUGGING_REPLICA | 0..)
    }

    fn offset(self, replica: &Replica) -> Offset {
        let high_watermark = replica.high_watermark();
        match self.is_of_consumers() {
            false => replica.log().log_end_offset(),
            true if self.read_committed => replica.log().last_stable_offset(high_watermark),
            true => high_watermark,
        }
    }

    /// Whether this end can be told: a new leader has to hear from its followers first.
    fn check_known(self, version: i16, replica: &Replica) -> Result<(), ErrorCode> {
        if !self.is_of_consumers() {
            return Ok(());
        }
        replica.check_knows_latest().map_err(|code| match version {
            OFFSET_NOT_AVAILABLE_SINCE.. => code,
            _ => ErrorCode::LEADER_NOT_AVAILABLE,
        })
    }
}

fn latest(replica: &Replica, end: End) -> Found {
    Found { timestamp: -1, offset: end.offset(replica), leader_epoch: replica.leader_epoch().0 }
}

fn by_time(replica: &Replica, time: i64) -> Result<Option<TimestampLookup>, ErrorCode> {
    let log = replica.log();
    let found = match time {
        MAX_TIMESTAMP => log.max_timestamp(),
        time => log.offset_for_timestamp(Timestamp(time)),
    };
    found.map_err(storage)
}

fn earliest(replica: &Replica) -> Found {
    let log = replica.log();
    let offset = log.log_start_offset();
    // An empty log has no record to have an epoch, whatever there was; the next one will have the leader's.
    let has_records = offset < log.log_end_offset();
    let epoch = log.epoch_for_offset(offset).filter(|_| has_records);
    let leader_epoch = epoch.unwrap_or_else(|| replica.leader_epoch()).0;
    Found { timestamp: -1, offset, leader_epoch }
}

/// A record that a crash could still take back is not found yet.
fn visible(replica: &Replica, end: End, found: Option<TimestampLookup>) -> Option<Found> {
    let found = found.filter(|found| found.offset < end.offset(replica))?;
    Some(Found {
        timestamp: found.timestamp.0,
        offset: found.offset,
        leader_epoch: found.leader_epoch.0,
    })
}

/// A special time is refused in a version that did not have it.
fn check_version(version: i16, timestamp: i64) -> Result<(), ErrorCode> {
    let since = match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    };
    if version >= since { Ok(()) } else { Err(ErrorCode::UNSUPPORTED_VERSION) }
}

fn storage(error: ottla_log::StorageError) -> ErrorCode {
    tracing::error!(%error, "look-up by time failed");
    ErrorCode::KAFKA_STORAGE_ERROR
}

fn nothing(partition_index: i32) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::LeaderEpoch;

    use super::*;
    use crate::replica::{lead_again, leading, unflushed_log};

    /// What a leader answers that has found a record in its log of which it does not know yet whether it stays.
    fn asked(version: i16, replica_id: i32, timestamp: i64) -> Result<Option<i64>, ErrorCode> {
        let directory = tempfile::tempdir().unwrap();
        let log = unflushed_log(&directory, &[Timestamp(1_000)]);
        let replica = leading(log, &Default::default());
        let end = End { replica_id, read_committed: false };
        let found = find(version, &replica, end, timestamp);
        found.map(|found| found.map(|found| found.offset.0))
    }

    #[test]
    fn a_leader_that_does_not_know_what_is_visible_says_so_of_the_end_and_of_times() {
        for timestamp in [LATEST, MAX_TIMESTAMP, 1_000, 2_000] {
            assert_eq!(asked(11, -1, timestamp), Err(ErrorCode::OFFSET_NOT_AVAILABLE));
            assert_eq!(asked(4, -1, timestamp), Err(ErrorCode::LEADER_NOT_AVAILABLE));
        }
        assert_eq!(asked(11, -1, EARLIEST), Ok(Some(0)));
    }

    #[test]
    fn followers_and_tools_are_told_of_all_that_the_log_has() {
        for replica_id in [2, DEBUGGING_REPLICA] {
            assert_eq!(asked(11, replica_id, LATEST), Ok(Some(1)));
            assert_eq!(asked(11, replica_id, 1_000), Ok(Some(0)));
            assert_eq!(asked(11, replica_id, 2_000), Ok(None));
        }
    }
    /// The leader of epoch 1 has found records of epoch 0, all of which are deleted then.
    #[test]
    fn a_log_without_records_begins_in_the_leaders_epoch_whatever_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let log = unflushed_log(&directory, &[Timestamp(1_000)]);
        let replica = leading(log, &Default::default());
        lead_again(&replica, LeaderEpoch(1));
        assert_eq!(earliest(&replica).leader_epoch, 0);
        replica.log().flush().unwrap();
        replica.log().delete_records_to(Offset(1)).unwrap();
        let Found { offset, leader_epoch, .. } = earliest(&replica);
        assert_eq!((offset, leader_epoch), (Offset(1), 1));
    }
}
