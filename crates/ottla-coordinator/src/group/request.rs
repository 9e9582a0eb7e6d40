//! What a group shard can be asked, and what it answers. Pure.
//!
//! Bodies are Kafka's messages; beside them stands what a handler knows and a message does not say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, TopicId, Uuid};
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::list_groups_response::ListedGroup;
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ottla_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};

/// Who sent a request, and in which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub version: i16,
    pub client_id: ByteString,
    /// `/127.0.0.1`: as Java writes an address.
    pub client_host: ByteString,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinGroup {
    pub caller: Caller,
    pub request: JoinGroupRequest,
    /// For the id of a new member.
    pub random: Uuid,
}

/// Versions below 3 name one member, outside of `members`: the handler has moved it there.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaveGroup {
    pub request: LeaveGroupRequest,
}

/// Topics that do not exist are sorted out before.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitOffsets {
    pub version: i16,
    pub request: OffsetCommitRequest,
}

/// `topics: None` asks for all offsets of the group.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOffsets {
    pub group: OffsetFetchRequestGroup,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroups {
    pub version: i16,
    pub groups: Vec<ByteString>,
    /// Whether to tell why and when each last rebalanced, which no version of Kafka asks for.
    pub last_rebalance: bool,
}

/// Which groups to list. An empty filter lets everything through; case does not matter, nor space around a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListGroups {
    states: BTreeSet<String>,
    types: BTreeSet<String>,
}

impl ListGroups {
    #[must_use]
    pub fn new(states: &[ByteString], types: &[ByteString]) -> Self {
        Self {
            states: states.iter().map(|name| name.trim().to_ascii_lowercase()).collect(),
            types: types.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    pub(crate) fn lets_through(&self, state: &str, kind: &str) -> bool {
        let is_in = |names: &BTreeSet<String>, name: &str| {
            names.is_empty() || names.contains(&name.to_ascii_lowercase())
        };
        is_in(&self.states, state) && is_in(&self.types, kind)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDeleted {
    pub id: TopicId,
    pub name: ByteString,
}

/// Asked of the latest state.
#[derive(Debug, Clone)]
pub enum Request {
    Join(JoinGroup),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroup),
    Commit(CommitOffsets),
    /// With `require_stable`: waits for what is not committed yet.
    FetchStable(FetchOffsets),
    DeleteOffsets(OffsetDeleteRequest),
    DeleteGroups(Vec<ByteString>),
    /// Topics are gone: so are the offsets in them. Nobody waits for the reply.
    TopicsDeleted(Vec<TopicDeleted>),
}

/// Asked of the committed state.
#[derive(Debug, Clone)]
pub enum Query {
    Fetch(FetchOffsets),
    Describe(DescribeGroups),
    List(Arc<ListGroups>),
}

/// Each kind of answer once, with the way into it and out of it.
macro_rules! replies {
    ($($(#[$doc:meta])* $variant:ident($answer:ty),)*) => {
        #[derive(Debug, Clone, PartialEq)]
        pub enum Reply {
            $($(#[$doc])* $variant($answer),)*
        }

        $(impl From<$answer> for Reply {
            fn from(answer: $answer) -> Self {
                Self::$variant(answer)
            }
        }

        /// Gives the reply back if it is another one.
        impl TryFrom<Reply> for $answer {
            type Error = Reply;

            fn try_from(reply: Reply) -> Result<Self, Reply> {
                if let Reply::$variant(answer) = reply { Ok(answer) } else { Err(reply) }
            }
        })*
    };
}

replies! {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    /// An error stands for all partitions.
    Commit(Result<OffsetCommitResponse, ErrorCode>),
    Fetch(OffsetFetchResponseGroup),
    DeleteOffsets(OffsetDeleteResponse),
    DeleteGroups(Vec<DeletableGroupResult>),
    Describe(Vec<DescribedGroup>),
    List(Vec<ListedGroup>),
}

/// The timers of a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A member was not heard from for its session timeout.
    Session { group: ByteString, member: ByteString },
    /// Members had their time to join.
    Join { group: ByteString },
    /// Members had their time to ask for their assignment.
    Sync { group: ByteString },
    /// It is time to look for offsets that nobody needs any more.
    Expiry,
    /// It is time for the next part of a walk over all groups.
    Sweep,
}

/// What follows when records are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A group that did not exist was stored.
    GroupCreated { group: ByteString },
    /// A leader's assignment was stored: members may have it, if the generation is still the same.
    AssignmentStored {
        group: ByteString,
        generation: i32,
        /// By member id; who is not named gets nothing.
        assignments: BTreeMap<ByteString, Bytes>,
    },
    /// A static member came back under a new id, and the group need not rebalance.
    StaticMemberReplaced(Box<StaticMemberReplaced>),
    /// Offsets and groups that nobody needs any more were deleted.
    Swept(super::SweptPart),
}

/// What is needed to go on, or back, once it is known whether a static member's new id was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMemberReplaced {
    pub group: ByteString,
    pub version: i16,
    /// Of the group when the member came back.
    pub generation: i32,
    pub new_member: ByteString,
    /// The member as it was before.
    pub(crate) old: super::classic::Member,
    /// Who led the group before.
    pub old_leader: Option<ByteString>,
}
