//! JoinGroup (key 11), versions 0–9: a member comes, comes back, or says what has changed.
//!
//! Answered when the others have joined, too, or had their time to.
//!
//! - v0: no rebalance timeout; the session's counts. v4: MEMBER_ID_REQUIRED hands out an id first (KIP-394).
//!   v5: static members. v7: protocol type. v8: the reason. v9: the leader may be told not to assign.
//! - Known difference: a member that names more than a thousand protocols is refused with INVALID_REQUEST.

use ottla_coordinator::group::{JoinGroup, Request};
use ottla_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::Context;
use crate::answer::Outcome;

const NULL_PROTOCOL_SINCE: i16 = 7;

pub(super) async fn handle(context: Context, mut request: JoinGroupRequest) -> Outcome {
    if context.version == 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    // A copy: this waits for others, and a slice would keep the whole frame.
    let group = String::from(&*request.group_id);
    let random = ottla_env::random_uuid().expect("the operating system has random numbers");
    let join = JoinGroup { caller: context.caller(), request, random };
    let broker = &context.broker;
    let answer = broker.groups.ask(&group, Request::Join(join)).await;
    let mut response = answer.unwrap_or_else(|error_code| JoinGroupResponse {
        error_code,
        ..JoinGroupResponse::default()
    });
    // Where null can be said, Kafka says it for nothing.
    let protocol = response.protocol_name.take().filter(|name| !name.is_empty());
    response.protocol_name = match protocol {
        None if context.version < NULL_PROTOCOL_SINCE => Some("".into()),
        protocol => protocol,
    };
    context.answer(&response)
}
