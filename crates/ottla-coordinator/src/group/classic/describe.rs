//! What people and tools are told of a group. Pure.

use bytes::Bytes;
use bytestring::ByteString;
use ottla_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use ottla_protocol::messages::list_groups_response::ListedGroup;

use super::{ClassicGroup, Member, Rebalance, State};
use crate::group::ListGroups;

/// Kafka's name for this kind of group.
const TYPE: &str = "classic";

impl ClassicGroup {
    pub(crate) fn describe(&self) -> DescribedGroup {
        // What members have told is of use only beside an assignment.
        let protocol = self.protocol.clone().filter(|_| self.state == State::Stable);
        let described = |member: &Member| DescribedGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            member_metadata: match &protocol {
                Some(protocol) => member.metadata(protocol),
                None => Bytes::new(),
            },
            member_assignment: member.assignment.clone(),
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: ByteString::from_static(self.state.name()),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.clone().unwrap_or_default(),
            members: self.members.values().map(described).collect(),
            ..DescribedGroup::default()
        }
    }

    /// With what Kafka's protocol has no place for, in fields of our own.
    pub(crate) fn describe_with_last_rebalance(&self) -> DescribedGroup {
        let mut described = self.describe();
        if let Some(Rebalance { at, reason }) = self.last_rebalance() {
            described.ottla_last_rebalance_time_ms = at.0;
            described.ottla_last_rebalance_reason = Some(reason.as_str().into());
        }
        described
    }

    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: ByteString::from_static(self.state.name()),
            group_type: ByteString::from_static(TYPE),
        }
    }

    /// Whether a list with these filters names the group.
    pub(crate) fn passes(&self, asked: &ListGroups) -> bool {
        asked.lets_through(self.state.name(), TYPE)
    }
}
