//! One member of a group. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use crate::shard::ReplyTo;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: ByteString,
    pub(super) instance_id: Option<ByteString>,
    pub(super) client_id: ByteString,
    pub(super) client_host: ByteString,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocol_type: ByteString,
    /// In the order of the member's preference.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    pub(super) awaiting_join: Option<ReplyTo>,
    pub(super) awaiting_sync: Option<ReplyTo>,
    /// Whether its first JoinGroup is still open: it does not know its id, and cannot send heartbeats.
    pub(super) is_new: bool,
}

/// A way to assign that a member knows, and what the assigning member needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: ByteString,
    pub(super) metadata: Bytes,
}

impl Protocol {
    /// Each name once, as it came first. Copies: a slice of a frame would keep all of the frame.
    pub(super) fn list(protocols: &[JoinGroupRequestProtocol]) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let new = protocols.iter().filter(|protocol| seen.insert(&protocol.name));
        let copy = |protocol: &JoinGroupRequestProtocol| Self {
            name: ByteString::from(&*protocol.name),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        };
        new.map(copy).collect()
    }
}

impl Member {
    pub(super) const fn is_awaiting_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    /// Empty for a protocol that the member does not know.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|known| known.name == protocol);
        known.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// Whether its silence is as it should be: the broker owes it an answer.
    pub(super) const fn has_satisfied_heartbeat(&self) -> bool {
        // A new member may be gone although its request is open: it is given up after a while.
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}
