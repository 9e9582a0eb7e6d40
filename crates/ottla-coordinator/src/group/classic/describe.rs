//! What people and tools are told of a group. Pure.

use bytes::Bytes;
use bytestring::ByteString;
use ottla_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use ottla_protocol::messages::list_groups_response::ListedGroup;

use super::{ClassicGroup, Member, State};

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

    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: ByteString::from_static(self.state.name()),
            group_type: ByteString::from_static(TYPE),
        }
    }

    /// Whether a list of groups in these states, or of these types, would name it. Case does not matter.
    pub(crate) fn passes(&self, states: &[ByteString], types: &[ByteString]) -> bool {
        let is_in = |names: &[ByteString], name: &str| {
            names.is_empty() || names.iter().any(|it| it.trim().eq_ignore_ascii_case(name))
        };
        is_in(states, self.state.name()) && is_in(types, TYPE)
    }
}
