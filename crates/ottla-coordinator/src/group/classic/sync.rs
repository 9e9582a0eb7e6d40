//! SyncGroup: the leader hands in who gets what, everybody asks for their part. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{ClassicGroup, State};
use crate::group::turn::Turn;
use crate::group::{Next, Timer};
use crate::shard::ReplyTo;

impl ClassicGroup {
    pub(crate) fn sync(&mut self, turn: &mut Turn<'_>, to: ReplyTo, request: &SyncGroupRequest) {
        if let Err(error) = self.check_sync(request) {
            return turn.reply(to, refused(error));
        }
        match self.state {
            State::PreparingRebalance => {
                turn.reply(to, refused(ErrorCode::REBALANCE_IN_PROGRESS));
            }
            State::CompletingRebalance => {
                self.note_sync(turn, &request.member_id);
                if let Some(member) = self.members.get_mut(&request.member_id)
                    && let Some(forgotten) = member.awaiting_sync.replace(to)
                {
                    turn.reply(forgotten, refused(ErrorCode::REBALANCE_IN_PROGRESS));
                }
                if self.is_leader(&request.member_id) {
                    self.store_assignment(turn, request);
                }
            }
            State::Stable => {
                self.note_sync(turn, &request.member_id);
                let member = self.members.get(&request.member_id);
                let answer = SyncGroupResponse {
                    protocol_name: self.protocol.clone(),
                    protocol_type: self.protocol_type.clone(),
                    assignment: member.map(|it| it.assignment.clone()).unwrap_or_default(),
                    ..SyncGroupResponse::default()
                };
                turn.reply(to, answer);
            }
            // A group without members has been refused above.
            State::Empty => turn.reply(to, refused(ErrorCode::UNKNOWN_MEMBER_ID)),
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let differs = |named: &Option<ByteString>, known: &Option<ByteString>| {
            named.is_some() && named != known
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        Ok(())
    }

    fn note_sync(&mut self, turn: &mut Turn<'_>, member: &str) {
        self.pending_syncs.remove(member);
        if self.pending_syncs.is_empty() {
            turn.cancel_timer(Timer::Sync { group: self.id.clone() });
        }
    }

    /// The assignment is stored before anybody hears of it.
    fn store_assignment(&mut self, turn: &mut Turn<'_>, request: &SyncGroupRequest) {
        let assignments: BTreeMap<_, _> = request
            .assignments
            .iter()
            // Nobody else can ask for one: who comes later makes the group rebalance.
            .filter(|it| self.members.contains_key(&it.member_id))
            .map(|it| (ByteString::from(&*it.member_id), Bytes::copy_from_slice(&it.assignment)))
            .collect();
        turn.append(
            self.to_record(&|member| assignments.get(&member.id).cloned().unwrap_or_default()),
        );
        turn.then(Next::AssignmentStored {
            group: self.id.clone(),
            generation: self.generation,
            assignments,
        });
    }

    /// The leader's assignment is stored. Whether the group still waits for it: another member may have joined.
    pub(crate) fn on_assignment_stored(
        &mut self,
        turn: &mut Turn<'_>,
        generation: i32,
        assignments: &BTreeMap<ByteString, Bytes>,
    ) {
        if !self.awaits_assignment_of(generation) {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = assignments.get(&member.id).cloned().unwrap_or_default();
        }
        self.answer_syncs(turn, ErrorCode::NONE);
        self.enter(State::Stable, turn.now);
    }

    /// The leader's assignment was not stored: everybody joins again.
    pub(crate) fn on_assignment_not_stored(
        &mut self,
        turn: &mut Turn<'_>,
        generation: i32,
        error: ErrorCode,
    ) {
        if !self.awaits_assignment_of(generation) {
            return;
        }
        self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.answer_syncs(turn, error);
        self.prepare_rebalance(turn, format!("the assignment could not be stored: {error}"));
    }

    fn awaits_assignment_of(&self, generation: i32) -> bool {
        self.state == State::CompletingRebalance && self.generation == generation
    }
}

pub(crate) fn refused(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error, ..SyncGroupResponse::default() }
}
