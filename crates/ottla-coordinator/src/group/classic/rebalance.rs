//! The way from one generation to the next. Pure.

use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::messages::join_group_response::JoinGroupResponseMember;
use ottla_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

use super::{ClassicGroup, Member, Rebalance, State};
use crate::group::Timer;
use crate::group::turn::Turn;

/// How long a group that was empty waits for more members (KIP-134), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// Of the wait under way.
    delay_ms: i32,
    /// What may still be added when members go on joining.
    remaining_ms: i32,
    /// Whether somebody joined during the wait.
    has_newcomer: bool,
}

/// How soon to look again for static members that do not come, whatever timeout they ask for.
const NOBODY_CAME_PAUSE_MS: i32 = 100;

impl ClassicGroup {
    /// Begins a rebalance, or goes on with the one under way.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>, reason: String) {
        if self.state == State::PreparingRebalance {
            self.complete_join_if_all_have(turn);
        } else {
            self.prepare_rebalance(turn, reason);
        }
    }

    pub(crate) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>, reason: String) {
        if self.state == State::CompletingRebalance {
            self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
            self.answer_syncs(turn, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.pending_syncs.clear();
        turn.cancel_timer(Timer::Sync { group: self.id.clone() });
        self.is_initial = self.is_empty();
        self.enter(State::PreparingRebalance, turn.now);
        self.last_rebalance = Some(Rebalance { at: turn.now, reason });
        if self.is_initial {
            self.wait_for_first_members(turn);
        } else if self.all_have_joined() {
            self.complete_join(turn);
        } else {
            self.set_join_timer(turn, self.rebalance_timeout_ms());
        }
    }

    fn wait_for_first_members(&mut self, turn: &mut Turn<'_>) {
        let delay_ms = turn.settings.initial_rebalance_delay_ms;
        let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
        self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms, has_newcomer: false });
        self.set_join_timer(turn, delay_ms);
    }

    fn set_join_timer(&self, turn: &mut Turn<'_>, after_ms: i32) {
        turn.set_timer(Timer::Join { group: self.id.clone() }, i64::from(after_ms));
    }

    /// Somebody joined while the group waits for its first members.
    pub(super) fn note_newcomer(&mut self) {
        if let Some(delay) = &mut self.initial_delay {
            delay.has_newcomer = true;
        }
    }

    /// Members had their time to join.
    pub(crate) fn on_join_timer(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match self.initial_delay {
            Some(InitialDelay { delay_ms, remaining_ms, has_newcomer: true })
                if remaining_ms > 0 =>
            {
                let next_ms = turn.settings.initial_rebalance_delay_ms.min(remaining_ms);
                self.initial_delay = Some(InitialDelay {
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                    has_newcomer: false,
                });
                self.set_join_timer(turn, next_ms);
            }
            Some(_) | None => self.complete_join(turn),
        }
    }

    /// Ends the wait for members when there is nobody left to wait for. The first members of a group wait for others
    /// in any case.
    pub(super) fn complete_join_if_all_have(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::PreparingRebalance && !self.is_initial && self.all_have_joined() {
            self.complete_join(turn);
        }
    }

    /// Ends the wait for members: who has not joined is out, except static members, who may come back.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_>) {
        turn.cancel_timer(Timer::Join { group: self.id.clone() });
        self.initial_delay = None;
        let is_out = |member: &&Member| !member.is_awaiting_join() && member.instance_id.is_none();
        let out: Vec<_> =
            self.members.values().filter(is_out).map(|member| member.id.clone()).collect();
        for id in out {
            self.drop_member(turn, &id);
            turn.cancel_session(&self.id, &id);
        }
        if self.elect_joined_leader() || self.members.is_empty() {
            self.begin_generation(turn);
        } else {
            // Only static members, and none has come: go on until their sessions end.
            self.set_join_timer(turn, self.rebalance_timeout_ms().max(NOBODY_CAME_PAUSE_MS));
        }
    }

    /// A leader that has not come is replaced by somebody who has. Whether anybody leads now.
    fn elect_joined_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_some_and(Member::is_awaiting_join) {
            return true;
        }
        let joined = self.members.values().find(|member| member.is_awaiting_join());
        match joined {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    fn begin_generation(&mut self, turn: &mut Turn<'_>) {
        self.generation = self.generation.wrapping_add(1);
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.subscribed_topics = self.computed_subscriptions();
            self.enter(State::Empty, turn.now);
            turn.append(self.to_record(&|_| Bytes::new()));
            return;
        }
        self.protocol = Some(self.preferred_protocol());
        self.subscribed_topics = self.computed_subscriptions();
        self.enter(State::CompletingRebalance, turn.now);
        self.pending_syncs.extend(self.members.keys().cloned());
        let answers: Vec<_> = self.members.keys().map(|id| self.join_response(id)).collect();
        for (member, answer) in self.members.values_mut().zip(answers) {
            if let Some(waiting) = member.awaiting_join.take() {
                turn.reply(waiting, answer);
            }
            member.is_new = false;
            turn.set_session(&self.id, &member.id, member.session_timeout_ms);
        }
        let after_ms = i64::from(self.rebalance_timeout_ms());
        turn.set_timer(Timer::Sync { group: self.id.clone() }, after_ms);
    }

    /// What a member of this generation is told. The leader learns of all.
    pub(super) fn join_response(&self, id: &str) -> JoinGroupResponse {
        JoinGroupResponse {
            members: if self.is_leader(id) { self.joined_members() } else { Vec::new() },
            member_id: id.into(),
            generation_id: self.generation,
            protocol_name: self.protocol.clone(),
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            ..JoinGroupResponse::default()
        }
    }

    pub(super) fn joined_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }

    /// Answers everybody who waits for an assignment.
    pub(super) fn answer_syncs(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        let is_ok = !error.is_error();
        for member in self.members.values_mut() {
            let Some(waiting) = member.awaiting_sync.take() else { continue };
            let answer = SyncGroupResponse {
                error_code: error,
                protocol_name: self.protocol.clone().filter(|_| is_ok),
                protocol_type: self.protocol_type.clone().filter(|_| is_ok),
                assignment: member.assignment.clone(),
                ..SyncGroupResponse::default()
            };
            turn.reply(waiting, answer);
            // Its session may have ended while it waited, unnoticed.
            turn.set_session(&self.id, &member.id, member.session_timeout_ms);
        }
    }

    /// Members had their time to ask for their assignment: who has not is out.
    pub(crate) fn on_sync_timer(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable)
            || self.pending_syncs.is_empty()
        {
            return;
        }
        let late = std::mem::take(&mut self.pending_syncs);
        for id in &late {
            self.drop_member(turn, id);
            turn.cancel_session(&self.id, id);
        }
        let names: Vec<&str> = late.iter().map(|id| &**id).collect();
        let reason = format!("{} did not ask for an assignment in time", names.join(", "));
        self.prepare_rebalance(turn, reason);
    }
}
