//! Who votes about the metadata log, who leads it, and how far each is.

use anyhow::Result;
use ottla_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use ottla_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use super::super::both::Both;
use super::super::subject::describe_quorum;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.through_controllers(ask_all)?;
    ask_all(both)
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<DescribeQuorumRequest>() {
        ask(both, version, "the metadata log", &describe_quorum())?;
        for (topic, partitions) in [
            ("__cluster_metadata", &[1][..]),
            ("__cluster_metadata", &[-1]),
            ("__cluster_metadata", &[0, 1]),
            ("__cluster_metadata", &[]),
            ("no-such-topic", &[0]),
            ("", &[0]),
        ] {
            let request = DescribeQuorumRequest { topics: vec![about(topic, partitions)] };
            ask(both, version, &format!("{topic:?} {partitions:?}"), &request)?;
        }
        let topics = vec![about("__cluster_metadata", &[0]), about("other", &[0])];
        ask(both, version, "two topics", &DescribeQuorumRequest { topics })?;
        ask(both, version, "nothing", &DescribeQuorumRequest { topics: Vec::new() })?;
    }
    Ok(())
}

fn about(topic: &str, partitions: &[i32]) -> TopicData {
    let partition = |partition_index: &i32| PartitionData { partition_index: *partition_index };
    TopicData { topic_name: topic.into(), partitions: partitions.iter().map(partition).collect() }
}

fn ask(both: &mut Both, version: i16, what: &str, request: &DescribeQuorumRequest) -> Result<()> {
    both.ask_edited(version, what, |_, _| request.clone(), without_offsets)?;
    Ok(())
}

/// Offsets in the metadata log: each broker has written what it had to write.
fn without_offsets(response: &mut DescribeQuorumResponse) {
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.high_watermark = partition.high_watermark.min(1);
        for voter in &mut partition.current_voters {
            voter.log_end_offset = voter.log_end_offset.min(1);
        }
    }
}
