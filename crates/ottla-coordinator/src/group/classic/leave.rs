//! LeaveGroup: members go, or are sent away by an administrator under their instance id. Pure.

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::leave_group_response::MemberResponse;

use super::{ClassicGroup, State, with_client_reason};
use crate::group::turn::Turn;

impl ClassicGroup {
    pub(crate) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        leaving: &[MemberIdentity],
    ) -> Vec<MemberResponse> {
        let mut gone = Vec::new();
        let mut answers = Vec::new();
        for identity in leaving {
            let error_code = match self.leave_one(turn, identity) {
                Ok(()) => {
                    gone.push(&*identity.member_id);
                    ErrorCode::NONE
                }
                Err(error) => error,
            };
            answers.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code,
            });
        }
        if gone.is_empty() {
            return answers;
        }
        match self.state {
            State::Stable | State::CompletingRebalance => {
                let left = match &*gone {
                    [one] => format!("member {one} left"),
                    several => format!("members {} left", several.join(", ")),
                };
                let why = leaving.iter().find_map(|identity| identity.reason.as_deref());
                self.rebalance(turn, with_client_reason(left, why));
            }
            State::PreparingRebalance => self.complete_join_if_all_have(turn),
            State::Empty => {}
        }
        answers
    }

    fn leave_one(
        &mut self,
        turn: &mut Turn<'_>,
        identity: &MemberIdentity,
    ) -> Result<(), ErrorCode> {
        let instance = identity.group_instance_id.as_ref();
        let id: ByteString = if identity.member_id.is_empty() {
            let id = instance.and_then(|instance| self.static_members.get(instance));
            id.cloned().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?
        } else {
            if !self.pending_joins.contains(&identity.member_id) {
                self.check_member(&identity.member_id, instance)?;
            }
            identity.member_id.clone()
        };
        turn.cancel_session(&self.id, &id);
        self.drop_member(turn, &id);
        Ok(())
    }
}

/// Nobody can leave a group that is not there.
pub(crate) fn unknown_members(leaving: &[MemberIdentity]) -> Vec<MemberResponse> {
    let unknown = |identity: &MemberIdentity| MemberResponse {
        member_id: identity.member_id.clone(),
        group_instance_id: identity.group_instance_id.clone(),
        error_code: ErrorCode::UNKNOWN_MEMBER_ID,
    };
    leaving.iter().map(unknown).collect()
}
