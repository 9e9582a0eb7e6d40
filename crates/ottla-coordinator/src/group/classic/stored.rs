//! A group as it is stored: Kafka's `GroupMetadata` record, and the way back. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::Timestamp;
use ottla_protocol::messages::ConsumerProtocolSubscription;
use ottla_protocol::records::group_metadata_value::MemberMetadata;
use ottla_protocol::records::{GroupMetadataKey, GroupMetadataValue, GroupRecord};
use ottla_protocol::{Decoder, Message as _};

use super::member::Protocol;
use super::{CONSUMER, ClassicGroup, Member, State};
use crate::group::turn::Turn;

/// Every version of a subscription begins like the first one.
const SUBSCRIPTION_VERSION: i16 = 0;

impl ClassicGroup {
    /// The record that stores the group with these assignments.
    pub(crate) fn to_record(&self, assignment: &dyn Fn(&Member) -> Bytes) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let stored = |member: &Member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: assignment(member),
        };
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since.map_or(-1, |time| time.0),
            members: self.members.values().map(stored).collect(),
        };
        GroupRecord::GroupMetadata(GroupMetadataKey { group: self.id.clone() }, Some(value))
    }

    /// The record of a group that nobody has joined yet.
    pub(crate) fn to_empty_record(&self) -> GroupRecord {
        let value = GroupMetadataValue {
            protocol_type: ByteString::new(),
            generation: 0,
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_since.map_or(-1, |time| time.0),
            members: Vec::new(),
        };
        GroupRecord::GroupMetadata(GroupMetadataKey { group: self.id.clone() }, Some(value))
    }

    /// A group as a coordinator finds it: stable, or empty.
    pub(crate) fn from_stored(id: ByteString, value: &GroupMetadataValue) -> Self {
        let some = |text: &ByteString| Some(text.clone()).filter(|text| !text.is_empty());
        let mut group = Self::new(id, Timestamp::NONE);
        for member in &value.members {
            group.add(restored(member, value));
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        let since = value.current_state_timestamp;
        group.state_since = (since != -1).then_some(Timestamp(since));
        group.generation = value.generation;
        group.protocol_type = some(&value.protocol_type);
        group.protocol.clone_from(&value.protocol);
        if let Some(leader) = value.leader.as_ref().filter(|id| group.members.contains_key(*id)) {
            group.leader = Some(leader.clone());
        }
        group.subscribed_topics = group.computed_subscriptions();
        group
    }

    /// The coordinator begins: every member gets its session time to show that it lives.
    pub(crate) fn on_loaded(&mut self, turn: &mut Turn<'_>) {
        for member in self.members.values() {
            turn.set_session(&self.id, &member.id, member.session_timeout_ms);
        }
        let (size, max) = (self.members.len(), turn.settings.members_max);
        if size > max {
            let reason = format!("{size} members are more than group.max.size allows ({max})");
            self.prepare_rebalance(turn, reason);
        }
    }

    /// `None` when the group's members are not consumers, or what they say can't be read.
    pub(super) fn computed_subscriptions(&self) -> Option<BTreeSet<ByteString>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed(member.metadata(protocol))?);
        }
        Some(topics)
    }
}

fn restored(member: &MemberMetadata, group: &GroupMetadataValue) -> Member {
    Member {
        id: member.member_id.clone(),
        instance_id: member.group_instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        // Not stored by the oldest version.
        rebalance_timeout_ms: match member.rebalance_timeout {
            -1 => member.session_timeout,
            timeout_ms => timeout_ms,
        },
        session_timeout_ms: member.session_timeout,
        protocol_type: group.protocol_type.clone(),
        protocols: vec![Protocol {
            name: group.protocol.clone().unwrap_or_default(),
            metadata: member.subscription.clone(),
        }],
        assignment: member.assignment.clone(),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}

fn subscribed(metadata: Bytes) -> Option<Vec<ByteString>> {
    let mut input = Decoder::new(metadata);
    let version = input.i16().ok()?;
    if version < SUBSCRIPTION_VERSION {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut input, SUBSCRIPTION_VERSION);
    Some(subscription.ok()?.topics.iter().map(|topic| ByteString::from(&**topic)).collect())
}
