//! JoinGroup: a member comes, comes back, or says what has changed. Pure.

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};

use super::member::Protocol;
use super::{ClassicGroup, Member, State, with_client_reason};
use crate::group::request::StaticMemberReplaced;
use crate::group::turn::Turn;
use crate::group::{Caller, JoinGroup, Next, Settings, names};
use crate::shard::ReplyTo;

/// From this version on a new member first gets an id, and joins with it (KIP-394).
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
/// From this version on the leader can be told not to assign again.
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

impl ClassicGroup {
    pub(crate) fn join(&mut self, turn: &mut Turn<'_>, to: ReplyTo, join: &JoinGroup) {
        let request = &join.request;
        let is_unknown = request.member_id.is_empty();
        let names = request.protocols.iter().map(|protocol| &protocol.name);
        if !self.has_room(turn.settings, &request.member_id) {
            self.drop_member(turn, &owned(&request.member_id));
            refuse(turn, to, "", ErrorCode::GROUP_MAX_SIZE_REACHED);
        } else if !self.accepts_protocols(&request.protocol_type, names) {
            refuse(turn, to, &request.member_id, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        } else if is_unknown {
            self.join_as_new(turn, to, join);
        } else if self.pending_joins.contains(&request.member_id) {
            if request.group_instance_id.is_some() {
                // Static members are never told to come back with an id; Kafka stumbles over this.
                return refuse(turn, to, "", ErrorCode::UNKNOWN_SERVER_ERROR);
            }
            let id = owned(&request.member_id);
            self.add_member(turn, to, &join.caller, request, id);
        } else {
            self.join_again(turn, to, request);
        }
    }

    fn has_room(&self, settings: &Settings, id: &str) -> bool {
        match self.state {
            State::Empty => true,
            // Those who wait are counted, not the members: the last to come back are out when the limit was lowered.
            State::PreparingRebalance => {
                self.members.get(id).is_some_and(Member::is_awaiting_join)
                    || self.joined_count() < settings.members_max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(id) || self.members.len() < settings.members_max
            }
        }
    }

    fn join_as_new(&mut self, turn: &mut Turn<'_>, to: ReplyTo, join: &JoinGroup) {
        let (caller, request) = (&join.caller, &join.request);
        let instance = request.group_instance_id.as_ref();
        let id = names::member_id(&caller.client_id, instance.map(|id| &**id), join.random);
        let before = instance.and_then(|instance| self.static_members.get(instance)).cloned();
        if let Some(old_id) = before {
            self.replace_static_member(turn, to, join, &old_id, id);
        } else if instance.is_none() && caller.version >= MEMBER_ID_REQUIRED_SINCE {
            turn.set_session(&self.id, &id, request.session_timeout_ms);
            self.pending_joins.insert(id.clone());
            // A rebalance waits for whoever is to join with an id: it must not be lost to a log that is stored late.
            turn.reply_at_once(to, refusal(&id, ErrorCode::MEMBER_ID_REQUIRED));
        } else {
            self.add_member(turn, to, caller, request, id);
        }
    }

    fn add_member(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        caller: &Caller,
        request: &JoinGroupRequest,
        id: ByteString,
    ) {
        let member = Member {
            id: id.clone(),
            instance_id: request.group_instance_id.as_ref().map(owned),
            client_id: owned(&caller.client_id),
            client_host: caller.client_host.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocol_type: owned(&request.protocol_type),
            protocols: Protocol::list(&request.protocols),
            assignment: bytes::Bytes::new(),
            awaiting_join: Some(to),
            awaiting_sync: None,
            is_new: true,
        };
        let reason = with_client_reason(format!("member {id} joined"), request.reason.as_deref());
        self.note_newcomer();
        self.add(member);
        // It does not know its id and cannot send heartbeats. Were it not given up after a while, clients that
        // time out and try again during a long rebalance would leave one dead member behind each time.
        turn.set_session(&self.id, &id, turn.settings.new_member_join_timeout_ms);
        self.rebalance(turn, reason);
    }

    /// Somebody who says that it is a member.
    fn join_again(&mut self, turn: &mut Turn<'_>, to: ReplyTo, request: &JoinGroupRequest) {
        let id = &request.member_id;
        if let Err(error) = self.check_member(id, request.group_instance_id.as_ref()) {
            let answer = JoinGroupResponse {
                error_code: error,
                member_id: id.clone(),
                protocol_name: None,
                ..JoinGroupResponse::default()
            };
            return turn.reply(to, answer);
        }
        let has_changed = self
            .members
            .get(id)
            .is_some_and(|member| member.protocols != Protocol::list(&request.protocols));
        let what = match self.state {
            State::PreparingRebalance => "joined again",
            State::CompletingRebalance | State::Stable if has_changed => {
                "wants other topics or another way to assign them"
            }
            State::Stable if self.is_leader(id) => "leads the group and joined again",
            // It may not have got the answer to its join, or a follower asks again.
            State::CompletingRebalance | State::Stable => {
                let answer = self.join_response(id);
                return turn.reply(to, answer);
            }
            State::Empty => return refuse(turn, to, id, ErrorCode::UNKNOWN_MEMBER_ID),
        };
        let reason = with_client_reason(format!("member {id} {what}"), request.reason.as_deref());
        self.update_member(turn, to, request);
        self.rebalance(turn, reason);
    }

    fn update_member(&mut self, turn: &mut Turn<'_>, to: ReplyTo, request: &JoinGroupRequest) {
        self.update(&request.member_id, |member| {
            if let Some(forgotten) = member.awaiting_join.replace(to) {
                // The client gave up on its first request; its connection is most likely gone.
                refuse(turn, forgotten, &request.member_id, ErrorCode::UNKNOWN_MEMBER_ID);
            }
            member.take_over(request);
        });
    }
}

impl Member {
    fn take_over(&mut self, request: &JoinGroupRequest) {
        self.protocols = Protocol::list(&request.protocols);
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.session_timeout_ms = request.session_timeout_ms;
    }
}

/// Static members: who comes back under its instance id takes the place it had (KIP-345).
impl ClassicGroup {
    fn replace_static_member(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        join: &JoinGroup,
        old_id: &ByteString,
        new_id: ByteString,
    ) {
        let request = &join.request;
        self.fence(turn, old_id);
        let old_leader = self.leader.clone();
        let Some(old) = self.rename_member(old_id, &new_id) else { return };
        self.update(&new_id, |member| {
            member.take_over(request);
            member.awaiting_join = Some(to);
        });
        turn.set_session(&self.id, &new_id, request.session_timeout_ms);
        let instance = request.group_instance_id.as_deref().unwrap_or_default();
        let reason = |what: &str| {
            let what = format!("member {new_id} came {what} as instance {instance}");
            with_client_reason(what, request.reason.as_deref())
        };
        match self.state {
            State::Stable if self.protocol.as_ref() == Some(&self.preferred_protocol()) => {
                turn.append(self.to_record(&|member| member.assignment.clone()));
                turn.then(Next::StaticMemberReplaced(Box::new(StaticMemberReplaced {
                    group: self.id.clone(),
                    version: join.caller.version,
                    generation: self.generation,
                    new_member: new_id,
                    old,
                    old_leader,
                })));
            }
            State::Stable => self.rebalance(turn, reason("back with other wishes")),
            // The leader may be assigning to the old id at this moment.
            State::CompletingRebalance => self.prepare_rebalance(turn, reason("back")),
            State::Empty | State::PreparingRebalance => self.complete_join_if_all_have(turn),
        }
    }

    /// Tells whoever still waits under an id that it belongs to somebody else now.
    fn fence(&mut self, turn: &mut Turn<'_>, id: &ByteString) {
        let (join, sync) = self.take_waiting(id);
        if let Some(waiting) = join {
            let answer = JoinGroupResponse {
                error_code: ErrorCode::FENCED_INSTANCE_ID,
                member_id: id.clone(),
                protocol_name: None,
                ..JoinGroupResponse::default()
            };
            turn.reply(waiting, answer);
        }
        if let Some(waiting) = sync {
            let answer = SyncGroupResponse {
                error_code: ErrorCode::FENCED_INSTANCE_ID,
                protocol_name: None,
                ..SyncGroupResponse::default()
            };
            turn.reply(waiting, answer);
        }
    }

    /// Gives a static member another id. Returns the member as it was.
    fn rename_member(&mut self, from: &ByteString, to: &ByteString) -> Option<Member> {
        let old = self.members.remove(from)?;
        if let Some(instance) = &old.instance_id {
            self.static_members.insert(instance.clone(), to.clone());
        }
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
        if self.pending_syncs.remove(from) {
            self.pending_syncs.insert(to.clone());
        }
        self.members.insert(to.clone(), Member { id: to.clone(), is_new: false, ..old.clone() });
        Some(old)
    }

    /// A static member's new id is stored: it may go on with the assignment that it had.
    pub(crate) fn on_static_member_stored(
        &mut self,
        turn: &mut Turn<'_>,
        replaced: &StaticMemberReplaced,
    ) {
        let id = &replaced.new_member;
        let is_leader = self.is_leader(id);
        let mut answer = self.join_response(id);
        if replaced.version >= SKIP_ASSIGNMENT_SINCE {
            answer.skip_assignment = is_leader;
        } else {
            // A leader of an older version would assign anew: it is told of the one before.
            answer.members = Vec::new();
            answer.leader = replaced.old_leader.clone().unwrap_or_default();
        }
        if let Some(waiting) = self.take_waiting(id).0 {
            turn.reply(waiting, answer);
        }
    }

    /// A static member's new id was not stored, or not in time: all is as before, unless the group has gone on.
    ///
    /// Once it rebalances, it does so with what the member said when it came back: others were let in that may share no
    /// protocol with what the member was before, and the answer that the member waits for is that of the rebalance. Apache
    /// Kafka takes the member back in any case, and cannot complete a rebalance that has no protocol left.
    pub(crate) fn on_static_member_not_stored(
        &mut self,
        turn: &mut Turn<'_>,
        replaced: StaticMemberReplaced,
        error: ErrorCode,
    ) {
        if self.state != State::Stable || self.generation != replaced.generation {
            return;
        }
        let (waiting, _) = self.take_waiting(&replaced.new_member);
        let old_id = replaced.old.id.clone();
        if self.rename_member(&replaced.new_member, &old_id).is_some() {
            turn.cancel_session(&self.id, &replaced.new_member);
            turn.set_session(&self.id, &old_id, replaced.old.session_timeout_ms);
            self.update(&old_id, |member| *member = replaced.old);
        }
        if let Some(waiting) = waiting {
            let answer = JoinGroupResponse {
                error_code: error,
                generation_id: self.generation,
                protocol_name: self.protocol.clone(),
                protocol_type: self.protocol_type.clone(),
                leader: replaced.old_leader.unwrap_or_default(),
                ..JoinGroupResponse::default()
            };
            turn.reply(waiting, answer);
        }
    }
}

fn refuse(turn: &mut Turn<'_>, to: ReplyTo, member_id: &str, error: ErrorCode) {
    turn.reply(to, refusal(member_id, error));
}

fn refusal(member_id: &str, error_code: ErrorCode) -> JoinGroupResponse {
    let member_id = member_id.into();
    JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() }
}

/// A copy: a slice of a frame would keep all of the frame.
fn owned(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}
