//! Heartbeat: a member says that it lives; and what happens when it does not. Pure.

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::messages::{HeartbeatRequest, JoinGroupResponse};

use super::{ClassicGroup, State};
use crate::group::turn::Turn;

impl ClassicGroup {
    /// Keeps a member's session.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS tells a member, whose session is kept, to join again.
    pub(crate) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if let Some(member) = self.members.get(&request.member_id) {
            turn.set_session(&self.id, &member.id, member.session_timeout_ms);
        }
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(()),
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// A member, or an id that was given out, was not heard from for too long.
    pub(crate) fn on_session_timer(&mut self, turn: &mut Turn<'_>, id: &ByteString) {
        if self.pending_joins.contains(id) {
            self.remove(id);
            return self.complete_join_after_removal(turn);
        }
        let Some(member) = self.members.get(id).filter(|member| !member.has_satisfied_heartbeat())
        else {
            return;
        };
        let silent_ms = member.session_timeout_ms;
        self.drop_member(turn, id);
        match self.state {
            State::Stable | State::CompletingRebalance => {
                self.rebalance(turn, format!("member {id} was not heard from for {silent_ms} ms"));
            }
            State::PreparingRebalance => self.complete_join_after_removal(turn),
            State::Empty => {}
        }
    }

    /// Unlike with other events, not even the first members of a group are waited for any longer.
    fn complete_join_after_removal(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::PreparingRebalance && self.all_have_joined() {
            self.complete_join(turn);
        }
    }

    /// Removes a member; one that waits for an answer hears that it is unknown, and may try again.
    pub(super) fn drop_member(&mut self, turn: &mut Turn<'_>, id: &ByteString) {
        let error_code = ErrorCode::UNKNOWN_MEMBER_ID;
        let (join, sync) = self.take_waiting(id);
        if let Some(waiting) = join {
            turn.reply(waiting, JoinGroupResponse { error_code, ..JoinGroupResponse::default() });
        }
        if let Some(waiting) = sync {
            turn.reply(waiting, super::sync_refused(error_code));
        }
        self.remove(id);
    }
}
