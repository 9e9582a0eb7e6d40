//! A group of the classic protocol: members join, one of them leads and assigns, all ask for their part. Pure.
//!
//! ```text
//! Empty ── first join ─► PreparingRebalance ── all joined, or time is up ─► CompletingRebalance
//!   ▲                        ▲      │ nobody is left                             │ the leader's assignment is stored
//!   └────────────────────────┼──────┘                                            ▼
//!                            └── a member joins, leaves or falls silent ────── Stable
//! ```
//! A group that is deleted is gone; Kafka calls its state Dead.
//!
//! Invariants, checked after every event by [`ClassicGroup::check`]:
//! - the leader, if there is one, is a member; without members there is none
//! - every static member is a member, under one id
//! - who is pending is not a member yet; whose sync is pending is one
//! - in `Empty` there are no members; wherever there are any, all of them support one protocol, and in `CompletingRebalance`
//!   and `Stable` the group's
//! - nobody waits for a join in `Stable` but a static member that came back, nobody for a sync outside of
//!   `CompletingRebalance`

mod describe;
mod heartbeat;
mod join;
mod leave;
mod member;
mod rebalance;
mod stored;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::messages::JoinGroupResponse;

pub(crate) use leave::unknown_members;
pub(crate) use member::Member;
pub(crate) use sync::refused as sync_refused;

use rebalance::InitialDelay;

use super::Timer;
use super::turn::Turn;
use crate::shard::ReplyTo;

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

/// The states of a group that exists; the names are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicGroup {
    pub(crate) id: ByteString,
    state: State,
    /// Whether the rebalance under way began without members.
    is_initial: bool,
    /// `None` for a group that was stored by a Kafka that did not note it.
    state_since: Option<Timestamp>,
    generation: i32,
    protocol_type: Option<ByteString>,
    protocol: Option<ByteString>,
    leader: Option<ByteString>,
    members: BTreeMap<ByteString, Member>,
    supporters: Supporters,
    /// Member ids by group instance id.
    static_members: BTreeMap<ByteString, ByteString>,
    /// Ids that were given out and have not joined yet.
    pending_joins: BTreeSet<ByteString>,
    /// Members of this generation that have not asked for their assignment yet.
    pending_syncs: BTreeSet<ByteString>,
    /// What all members together subscribe to, if they are consumers whose subscriptions can be read.
    subscribed_topics: Option<BTreeSet<ByteString>>,
    initial_delay: Option<InitialDelay>,
    last_rebalance: Option<Rebalance>,
}

/// How many members know each protocol. Counted, because members may name very many of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Supporters(BTreeMap<ByteString, usize>);

impl Supporters {
    fn count(&self, protocol: &str) -> usize {
        self.0.get(protocol).copied().unwrap_or(0)
    }

    fn add(&mut self, member: &Member) {
        for protocol in &member.protocols {
            *self.0.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, member: &Member) {
        for protocol in &member.protocols {
            if let Some(count) = self.0.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&protocol.name);
                }
            }
        }
    }
}

/// Why and when a group last rebalanced, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebalance {
    pub at: Timestamp,
    pub reason: String,
}

/// Of a client's own words, in characters: as many as Kafka's Java client sends.
const CLIENT_REASON_MAX: usize = 255;

/// What happened, and what the client says about it, if anything.
fn with_client_reason(what: String, said: Option<&str>) -> String {
    match said.filter(|said| !said.is_empty()) {
        Some(said) => {
            let said: String = said.chars().take(CLIENT_REASON_MAX).collect();
            format!("{what}: {said}")
        }
        None => what,
    }
}

impl ClassicGroup {
    pub(crate) fn new(id: ByteString, now: Timestamp) -> Self {
        Self {
            id,
            state: State::Empty,
            is_initial: false,
            state_since: Some(now),
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            supporters: Supporters::default(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            subscribed_topics: None,
            initial_delay: None,
            last_rebalance: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    #[must_use]
    pub const fn last_rebalance(&self) -> Option<&Rebalance> {
        self.last_rebalance.as_ref()
    }

    fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// A topic whose offsets somebody may still need. Consumers whose subscriptions can't be read might need any.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// The time from which on an offset that was committed at `committed_at` is not needed, or `None` while it is
    /// (KIP-211).
    pub(crate) fn offsets_idle_since(&self, committed_at: Timestamp) -> Option<Timestamp> {
        match self.state {
            _ if self.protocol_type.is_none() => Some(committed_at),
            State::Empty => Some(self.state_since.unwrap_or(committed_at)),
            State::Stable if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => {
                Some(committed_at)
            }
            State::Stable | State::PreparingRebalance | State::CompletingRebalance => None,
        }
    }

    /// # Errors
    /// UNKNOWN_MEMBER_ID; FENCED_INSTANCE_ID when the instance has come back under another id.
    fn check_member(&self, member: &str, instance: Option<&ByteString>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            let current = self.static_members.get(instance).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
            if current != member {
                return Err(ErrorCode::FENCED_INSTANCE_ID);
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    /// Whether offsets may be committed by whoever says that it is this member of this generation.
    ///
    /// # Errors
    /// What the client is told instead.
    pub(crate) fn check_commit(
        &self,
        member: &str,
        instance: Option<&ByteString>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.is_empty() {
            // An administrator, or a consumer that assigns its partitions itself.
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if self.state == State::CompletingRebalance {
            // The member knows the new generation, but not yet what it owns in it.
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Ok(())
    }

    /// A commit shows that a member lives, except while it should be asking for its assignment.
    pub(crate) fn session_kept_by_commit(&self, member: &str) -> Option<(&ByteString, i32)> {
        if !matches!(self.state, State::Stable | State::PreparingRebalance) {
            return None;
        }
        self.members.get(member).map(|member| (&member.id, member.session_timeout_ms))
    }

    /// # Errors
    /// NON_EMPTY_GROUP
    pub(crate) fn check_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() { Ok(()) } else { Err(ErrorCode::NON_EMPTY_GROUP) }
    }

    /// # Errors
    /// NON_EMPTY_GROUP where it can't be known what members still need.
    pub(crate) fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() || self.uses_consumer_protocol() {
            Ok(())
        } else {
            Err(ErrorCode::NON_EMPTY_GROUP)
        }
    }

    fn enter(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.state_since = Some(now);
    }

    fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(member.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_joins.remove(&member.id);
        self.supporters.add(&member);
        self.members.insert(member.id.clone(), member);
    }

    /// Forgets a member, or an id that was given out. Whoever waits under it must have been answered.
    fn remove(&mut self, id: &str) {
        if let Some(member) = self.members.remove(id) {
            debug_assert!(member.awaiting_join.is_none() && member.awaiting_sync.is_none());
            self.supporters.remove(&member);
            if let Some(instance) = &member.instance_id {
                self.static_members.remove(instance);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_joins.remove(id);
        self.pending_syncs.remove(id);
    }

    /// Changes what a member can do.
    fn update(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(id) {
            self.supporters.remove(member);
            change(member);
            self.supporters.add(member);
        }
    }

    fn joined_count(&self) -> usize {
        self.members.values().filter(|member| member.is_awaiting_join()).count()
    }

    fn all_have_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(Member::is_awaiting_join)
    }

    /// The longest time that any member asks for, in milliseconds.
    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    /// The protocol that most members prefer among those that all support; of equals, the first by name.
    ///
    /// Joins that would leave members without such a protocol are refused. Were one let through, the protocol would be one
    /// that most support, and the others of this group would not understand each other; the process has other groups.
    fn preferred_protocol(&self) -> ByteString {
        let most = self.supporters.0.values().max().copied();
        let is_candidate = |name: &str| Some(self.supporters.count(name)) == most;
        let mut votes: BTreeMap<&ByteString, usize> = BTreeMap::new();
        for member in self.members.values() {
            let names = member.protocols.iter().map(|protocol| &protocol.name);
            if let Some(vote) = names.into_iter().find(|name| is_candidate(name)) {
                *votes.entry(vote).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        let winner = votes.into_iter().find(|(_, count)| Some(*count) == most);
        winner.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn supported_by_all(&self, protocol: &str) -> bool {
        self.supporters.count(protocol) == self.members.len()
    }

    /// Whether a member with these protocols could be in the group.
    fn accepts_protocols<'a>(
        &self,
        protocol_type: &str,
        mut names: impl Iterator<Item = &'a ByteString>,
    ) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && names.next().is_some();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && names.any(|name| self.supported_by_all(name))
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check(&self) {
        assert_eq!(self.leader.is_some(), !self.members.is_empty());
        assert!(self.leader.iter().all(|leader| self.members.contains_key(leader)));
        for (instance, id) in &self.static_members {
            let member = self.members.get(id).expect("a static member is a member");
            assert_eq!(member.instance_id.as_ref(), Some(instance));
        }
        let is_static = |member: &&Member| member.instance_id.is_some();
        assert_eq!(self.members.values().filter(is_static).count(), self.static_members.len());
        let mut supporters = Supporters::default();
        self.members.values().for_each(|member| supporters.add(member));
        assert_eq!(self.supporters, supporters);
        assert!(self.pending_joins.iter().all(|id| !self.members.contains_key(id)));
        assert!(self.pending_syncs.iter().all(|id| self.members.contains_key(id)));
        assert!(self.state != State::Empty || self.members.is_empty());
        if matches!(self.state, State::CompletingRebalance | State::Stable)
            && !self.members.is_empty()
        {
            let protocol = self.protocol.as_deref().expect("a generation has a protocol");
            assert!(self.supported_by_all(protocol));
        }
        let shared = self.supporters.0.values().any(|count| *count == self.members.len());
        assert!(shared || self.members.is_empty(), "no protocol is known to all members");
        let waits_for_sync = self.members.values().any(|member| member.awaiting_sync.is_some());
        assert!(!waits_for_sync || self.state == State::CompletingRebalance);
    }

    /// The group could not be stored: whoever waits for it is told so.
    pub(crate) fn refuse_all(self, turn: &mut Turn<'_>, error: ErrorCode) {
        for member in self.members.into_values() {
            turn.cancel_session(&self.id, &member.id);
            if let Some(waiting) = member.awaiting_join {
                turn.reply(waiting, JoinGroupResponse { error_code: error, ..Default::default() });
            }
        }
        for id in &self.pending_joins {
            turn.cancel_session(&self.id, id);
        }
        turn.cancel_timer(Timer::Join { group: self.id });
    }

    /// Takes out everybody who waits under an id.
    fn take_waiting(&mut self, id: &str) -> (Option<ReplyTo>, Option<ReplyTo>) {
        self.members
            .get_mut(id)
            .map(|member| (member.awaiting_join.take(), member.awaiting_sync.take()))
            .unwrap_or_default()
    }
}
