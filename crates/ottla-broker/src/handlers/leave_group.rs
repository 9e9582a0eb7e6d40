//! LeaveGroup (key 13), versions 0–5: members go, or are sent away by an administrator.
//!
//! - Before v3: one member, which is answered by the code of the whole. v3: several, static ones by instance id.
//!   v5: reasons.

use ottla_base::ErrorCode;
use ottla_coordinator::group::{LeaveGroup, Request};
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::Context;
use crate::answer::Outcome;

const SEVERAL_SINCE: i16 = 3;

pub(super) async fn handle(context: Context, mut request: LeaveGroupRequest) -> Outcome {
    if context.version < SEVERAL_SINCE {
        let member_id = std::mem::take(&mut request.member_id);
        request.members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
    }
    let group = request.group_id.clone();
    let leave = Request::Leave(LeaveGroup { request });
    let answer = context.broker.groups.ask(&group, leave).await;
    let mut response = answer.unwrap_or_else(|error_code| LeaveGroupResponse {
        error_code,
        ..LeaveGroupResponse::default()
    });
    if context.version < SEVERAL_SINCE {
        let members = std::mem::take(&mut response.members);
        if let (ErrorCode::NONE, Some(member)) = (response.error_code, members.first()) {
            response.error_code = member.error_code;
        }
    }
    context.answer(&response)
}
