//! Who a member is: a node id together with a log directory, where openraft knows members by a number alone. Pure.
//!
//! A node whose disk was wiped comes back with the id that a voter has, and another directory. It must not vote in that
//! voter's name, and must be fed nevertheless, as an observer. So there may be two members of one node id, and one of
//! them has a number of its own, below zero, which never leaves the process: on the leader that is the observer, and on
//! the node itself the voter that has its id.
//!
//! Invariant: a node is a voter to its own openraft only if the log names its id with its directory, or knows voters by
//! their ids alone.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{BrokerId, Uuid};

use crate::raft::{Entry, Membership, Voter};
use openraft::EntryPayload;

/// No node has this id: a question to whoever is at an address.
pub(crate) const ANYBODY: i32 = -1;

/// The number of the second member that has this node id.
pub(crate) const fn second(id: i32) -> i32 {
    -2 - id
}

/// The node id of a member.
pub(crate) const fn node_id(number: i32) -> i32 {
    if number <= -2 { -2 - number } else { number }
}

/// Whether two members have the same log, as far as it is known.
pub(crate) fn is_same_log(one: &Voter, other: Uuid) -> bool {
    [Uuid::ZERO, other].contains(&one.directory_id)
}

/// Voters as the log names them.
pub(crate) fn as_written(membership: &Membership) -> Membership {
    let configs = membership.get_joint_config().iter();
    let configs: Vec<BTreeSet<i32>> =
        configs.map(|config| config.iter().copied().map(node_id).collect()).collect();
    let voters = membership.voter_ids();
    let nodes: BTreeMap<i32, Voter> = voters
        .filter_map(|number| Some((node_id(number), membership.get_node(&number)?.clone())))
        .collect();
    Membership::new(configs, nodes).unwrap_or_default()
}

/// The node that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Myself {
    pub(crate) id: BrokerId,
    pub(crate) directory_id: Uuid,
}

impl Myself {
    /// Voters as they are to this node's openraft: whoever has its id and another directory is somebody else.
    pub(crate) fn sees(self, membership: Membership) -> Membership {
        let own = membership.get_node(&self.id.0);
        if own.is_none_or(|voter| is_same_log(voter, self.directory_id)) {
            return membership;
        }
        let seen = |id: i32| if id == self.id.0 { second(id) } else { id };
        let configs = membership.get_joint_config().iter();
        let configs: Vec<BTreeSet<i32>> =
            configs.map(|config| config.iter().copied().map(seen).collect()).collect();
        let nodes: BTreeMap<i32, Voter> =
            membership.nodes().map(|(id, voter)| (seen(*id), voter.clone())).collect();
        Membership::new(configs, nodes).unwrap_or(membership)
    }

    pub(crate) fn sees_in(self, mut entry: Entry) -> Entry {
        if let EntryPayload::Membership(membership) = &mut entry.payload {
            *membership = self.sees(std::mem::take(membership));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[(i32, u8)]) -> Membership {
        let voter = |(id, directory): &(i32, u8)| {
            (*id, Voter { directory_id: Uuid([*directory; 16]), endpoints: Vec::new() })
        };
        let ids = voters.iter().map(|(id, _)| *id).collect();
        let nodes: BTreeMap<i32, Voter> = voters.iter().map(voter).collect();
        Membership::new(vec![ids], nodes).unwrap()
    }

    #[test]
    fn a_voter_with_this_nodes_id_and_another_directory_is_somebody_else() {
        let me = Myself { id: BrokerId(2), directory_id: Uuid([2; 16]) };
        let voters = |it: &Membership| it.voter_ids().collect::<Vec<_>>();
        for (seen, expected) in [
            (membership(&[(1, 1), (2, 2)]), vec![1, 2]),
            (membership(&[(1, 0), (2, 0)]), vec![1, 2]),
            (membership(&[(1, 1), (3, 3)]), vec![1, 3]),
            (membership(&[(1, 1), (2, 9)]), vec![-4, 1]),
            (membership(&[(2, 9)]), vec![-4]),
        ] {
            assert_eq!(voters(&me.sees(seen.clone())), expected);
            assert_eq!(as_written(&me.sees(seen.clone())), seen);
        }
    }

    #[test]
    fn every_member_has_a_node_id() {
        for id in [0, 1, i32::MAX - 2] {
            assert_eq!((node_id(id), node_id(second(id))), (id, id));
            assert!(second(id) < ANYBODY);
        }
        assert_eq!(node_id(ANYBODY), ANYBODY);
    }
}
