//! FindCoordinator (key 10), versions 0–6: which broker coordinates a group.
//!
//! - v4: several keys at once. v6: share groups.
//! - Known difference: the first group makes the topic that groups are stored in, and its coordinator is told at once if
//!   this broker has heard of the topic by then, where Apache Kafka sends every client away with
//!   COORDINATOR_NOT_AVAILABLE to ask again.
//! - Known difference: transactions and share groups are not there yet; asking for their
//!   coordinator is refused with UNSUPPORTED_VERSION, which clients report at once, but librdkafka after its own timeout.
//! - Known difference: an answer of more than 64 MiB is not given; the connection is closed.

use bytestring::ByteString;
use ottla_base::{ErrorCode, PartitionIndex};
use ottla_metadata::topic_name;
use ottla_protocol::messages::find_coordinator_response::Coordinator;
use ottla_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::Context;
use crate::answer::{Outcome, Room};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

const SEVERAL_KEYS_SINCE: i16 = 4;

pub(super) async fn handle(context: Context, request: FindCoordinatorRequest) -> Outcome {
    let topic = make_topic(&context, &request).await;
    if context.version >= SEVERAL_KEYS_SINCE {
        let mut room = Room::new(context.version);
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            match room.admit(find(&context, request.key_type, key, topic)) {
                Ok(found) => coordinators.push(found),
                Err(reason) => return Outcome::Close(reason),
            }
        }
        let response = FindCoordinatorResponse { coordinators, ..Default::default() };
        return context.answer(&response);
    }
    let found = find(&context, request.key_type, request.key, topic);
    // The old form says NONE where the new one says nothing.
    let message =
        if found.error_code.is_error() { found.error_message } else { Some("NONE".into()) };
    context.answer(&FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    })
}

/// Makes the topic that coordinators keep their groups in, if it is not there: asked for once, however many keys there are.
async fn make_topic(context: &Context, request: &FindCoordinatorRequest) -> Result<(), ErrorCode> {
    let has_key = context.version < SEVERAL_KEYS_SINCE || !request.coordinator_keys.is_empty();
    if request.key_type != GROUP || !has_key {
        return Ok(());
    }
    context.broker.ensure_internal_topic(topic_name::CONSUMER_OFFSETS).await
}

/// `topic` is what came of making the topic of groups.
fn find(
    context: &Context,
    key_type: i8,
    key: ByteString,
    topic: Result<(), ErrorCode>,
) -> Coordinator {
    match key_type {
        GROUP => match topic {
            Ok(()) => leader_of_its_partition(context, topic_name::CONSUMER_OFFSETS, key),
            Err(_) => refuse(key, ErrorCode::COORDINATOR_NOT_AVAILABLE, ""),
        },
        TRANSACTION | SHARE => {
            refuse(key, ErrorCode::UNSUPPORTED_VERSION, "This release has no such coordinator.")
        }
        other => {
            refuse(key, ErrorCode::INVALID_REQUEST, &format!("Unknown coordinator type: {other}"))
        }
    }
}

/// Whoever leads the partition that a key belongs to coordinates it.
fn leader_of_its_partition(context: &Context, topic: &str, key: ByteString) -> Coordinator {
    let image = context.broker.image();
    let leader = image.topic_by_name(topic).and_then(|topic| {
        topic.partition(PartitionIndex(context.broker.groups.partition_of(&key).ok()?))
    });
    let broker = leader.and_then(|partition| image.broker(partition.leader));
    let broker = broker.filter(|broker| !broker.fenced);
    let found =
        broker.and_then(|broker| Some((broker.id, broker.endpoint(context.endpoint_name())?)));
    match found {
        Some((id, endpoint)) => Coordinator {
            key,
            node_id: id.0,
            host: (&*endpoint.host).into(),
            port: endpoint.port.into(),
            error_message: Some("".into()),
            ..Coordinator::default()
        },
        None => refuse(key, ErrorCode::COORDINATOR_NOT_AVAILABLE, ""),
    }
}

fn refuse(key: ByteString, error_code: ErrorCode, message: &str) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code,
        error_message: Some(message.into()),
        ..Coordinator::default()
    }
}
