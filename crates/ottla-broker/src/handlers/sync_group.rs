//! SyncGroup (key 14), versions 0–5: the leader hands in the assignment, everybody gets their part.
//!
//! Answered when the leader has handed it in and it is stored.
//!
//! - v3: static members. v5: protocol type and name, which must be there.

use ottla_base::ErrorCode;
use ottla_coordinator::group::Request;
use ottla_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::Context;
use crate::answer::Outcome;

const PROTOCOL_SINCE: i16 = 5;

pub(super) async fn handle(context: Context, request: SyncGroupRequest) -> Outcome {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let answer = if context.version >= PROTOCOL_SINCE && !names_protocol {
        Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)
    } else {
        // A copy: this waits for others, and a slice would keep the whole frame.
        let group = String::from(&*request.group_id);
        context.broker.groups.ask(&group, Request::Sync(request)).await
    };
    let response = answer.unwrap_or_else(|error_code| SyncGroupResponse {
        error_code,
        ..SyncGroupResponse::default()
    });
    context.answer(&response)
}
