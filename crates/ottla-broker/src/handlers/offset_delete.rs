//! OffsetDelete (key 47), version 0: a group forgets how far it has read in topics that it reads no longer.
//!
//! - Known difference: a partition that a request names more than once is answered once.

use std::collections::HashMap;

use ottla_base::{ErrorCode, PartitionIndex};
use ottla_coordinator::group::Request;
use ottla_metadata::Image;
use ottla_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use ottla_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ottla_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, mut request: OffsetDeleteRequest) -> Outcome {
    let image = context.broker.image();
    let unknown = take_unknown(&image, &mut request.topics);
    let group = request.group_id.clone();
    let deleted = context.broker.groups.ask(&group, Request::DeleteOffsets(request)).await;
    let mut response: OffsetDeleteResponse = deleted.unwrap_or_else(|error_code| {
        OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() }
    });
    // An error of the whole is all that is said.
    if !response.error_code.is_error() {
        merge(&mut response.topics, unknown);
    }
    context.answer(&response)
}

/// Takes out what does not exist; returns the answers about it.
fn take_unknown(
    image: &Image,
    topics: &mut Vec<OffsetDeleteRequestTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut unknown = Vec::new();
    for topic in &mut *topics {
        let found = image.topic_by_name(&topic.name);
        let mut partitions = Vec::new();
        topic.partitions.retain(|partition| {
            let index = PartitionIndex(partition.partition_index);
            let is_there = found.is_some_and(|topic| topic.partition(index).is_some());
            if !is_there {
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: index.0,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                });
            }
            is_there
        });
        if !partitions.is_empty() {
            unknown.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions });
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    unknown
}

/// Each topic once.
fn merge(topics: &mut Vec<OffsetDeleteResponseTopic>, more: Vec<OffsetDeleteResponseTopic>) {
    let mut places: HashMap<_, _> =
        topics.iter().enumerate().map(|(place, topic)| (topic.name.clone(), place)).collect();
    for topic in more {
        let place = *places.entry(topic.name.clone()).or_insert(topics.len());
        match topics.get_mut(place) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => topics.push(topic),
        }
    }
}
