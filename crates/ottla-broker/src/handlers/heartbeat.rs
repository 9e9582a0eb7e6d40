//! Heartbeat (key 12), versions 0–4: a member says that it lives, and hears whether it must join again.
//!
//! - v3: static members.

use ottla_base::ErrorCode;
use ottla_coordinator::group::Request;
use ottla_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: HeartbeatRequest) -> Outcome {
    let group = request.group_id.clone();
    let answer = context.broker.groups.ask(&group, Request::Heartbeat(request)).await;
    let response = answer.unwrap_or_else(|error| HeartbeatResponse {
        // While the group is being read nobody's session ends.
        error_code: match error {
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => ErrorCode::NONE,
            error => error,
        },
        ..HeartbeatResponse::default()
    });
    context.answer(&response)
}
