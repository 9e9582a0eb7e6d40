//! What is asked: one file per API, and one for what is no request at all.

mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod batches;
mod compaction;
mod connections;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_quorum;
mod describe_topic_partitions;
mod dynamic_configs;
mod elect_leaders;
mod features_and_brokers;
mod fetch;
mod fetch_sessions;
mod find_coordinator;
mod group_administration;
mod group_membership;
mod group_offsets;
mod hostile_lengths;
mod hostile_repetition;
mod idempotence;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod offsets_topic_growth;
mod partition_reassignments;
mod produce;
mod quotas_and_credentials;
mod security;
mod transactions;

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ottla_base::{ErrorCode, Uuid};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{ProduceRequest, ProduceResponse};
use ottla_protocol::{Records, Request};

use super::both::Both;
use super::subject::{NOBODYS_ID, Subject};

/// A number of steps that can run alone: each makes its own topics.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) run: fn(&mut Both) -> Result<()>,
}

/// In the order in which they run. Asking Apache Kafka for a coordinator makes a topic that all would see, so that
/// comes last.
pub(super) const ALL: &[Script] = &[
    Script { name: "api-versions", run: api_versions::run },
    Script { name: "connections", run: connections::run },
    Script { name: "metadata", run: metadata::run },
    Script { name: "create-topics", run: create_topics::run },
    Script { name: "create-partitions", run: create_partitions::run },
    Script { name: "delete-topics", run: delete_topics::run },
    Script { name: "describe-cluster", run: describe_cluster::run },
    Script { name: "describe-quorum", run: describe_quorum::run },
    Script { name: "describe-topic-partitions", run: describe_topic_partitions::run },
    Script { name: "describe-configs", run: describe_configs::run },
    Script { name: "alter-configs", run: alter_configs::run },
    Script { name: "dynamic-configs", run: dynamic_configs::run },
    Script { name: "list-config-resources", run: list_config_resources::run },
    Script { name: "produce", run: produce::run },
    Script { name: "idempotence", run: idempotence::run },
    Script { name: "fetch", run: fetch::run },
    Script { name: "sessions", run: fetch_sessions::run },
    Script { name: "list-offsets", run: list_offsets::run },
    Script { name: "offset-for-leader-epoch", run: offset_for_leader_epoch::run },
    Script { name: "init-producer-id", run: init_producer_id::run },
    Script { name: "delete-records", run: delete_records::run },
    Script { name: "compaction", run: compaction::run },
    Script { name: "describe-log-dirs", run: describe_log_dirs::run },
    Script { name: "alter-replica-log-dirs", run: alter_replica_log_dirs::run },
    Script { name: "elect-leaders", run: elect_leaders::run },
    Script { name: "partition-reassignments", run: partition_reassignments::run },
    Script { name: "quotas-and-credentials", run: quotas_and_credentials::run },
    Script { name: "security", run: security::run },
    Script { name: "features-and-brokers", run: features_and_brokers::run },
    Script { name: "find-coordinator", run: find_coordinator::run },
    Script { name: "group-membership", run: group_membership::run },
    Script { name: "group-offsets", run: group_offsets::run },
    Script { name: "group-administration", run: group_administration::run },
    Script { name: "transactions", run: transactions::run },
    Script { name: "hostile-lengths", run: hostile_lengths::run },
    Script { name: "hostile-repetition", run: hostile_repetition::run },
    Script { name: "offsets-topic-growth", run: offsets_topic_growth::run },
];

/// Names that no topic may have, each for a reason of its own.
fn invalid_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["", ".", "..", "a b", "a/b", "a:b", "ü", "\u{0}"].map(str::to_owned).into();
    names.push("a".repeat(250));
    names
}

fn versions<R: Request>() -> RangeInclusive<i16> {
    R::KEY.stable_versions()
}

/// Produce v13 and Fetch v13 name topics by id, the versions before by name.
fn topic_name(version: i16, topic: &str) -> bytestring::ByteString {
    if version < 13 { topic.into() } else { Default::default() }
}

fn topic_id(subject: &Subject, version: i16, topic: &str) -> Uuid {
    if version < 13 { Uuid::ZERO } else { subject.id(topic) }
}

/// A request with one batch for one partition.
fn produce_request(
    subject: &Subject,
    version: i16,
    topic: &str,
    partition: i32,
    records: Option<Bytes>,
) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic_name(version, topic),
            topic_id: topic_id(subject, version, topic),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: records.map(Records::Bytes),
            }],
        }],
        ..Default::default()
    }
}

/// Writes one batch to both, which is not compared.
fn write(both: &mut Both, topic: &str, partition: i32, batch: &Bytes) -> Result<()> {
    both.set_up(|subject| {
        let request = produce_request(subject, 12, topic, partition, Some(batch.clone()));
        let response: ProduceResponse = subject.expect(12, &request)?;
        let answer = response.responses.iter().flat_map(|topic| &topic.partition_responses).next();
        let answer = answer.context("the answer names no partition")?;
        ensure!(answer.error_code == ErrorCode::NONE, "{topic}: {answer:?}");
        Ok(())
    })
}
