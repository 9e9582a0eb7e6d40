//! Who elects: the voters that a new cluster begins with, and what the log of an old one says. Pure but for the log.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_base::{BrokerId, Uuid};
use ottla_metadata::Endpoint;

use super::Config;
use crate::controller::Limits;
use crate::observers::is_voter;
use crate::raft::Voter;
use crate::storage::Storage;

/// A voter of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialVoter {
    pub id: BrokerId,
    /// The id of the log directory that its metadata log is in; zero where that is not known. Where it is not known of
    /// all voters, the log names their ids alone (`kraft.version` 0).
    pub directory_id: Uuid,
    /// Where it can be reached as a controller.
    pub endpoints: Vec<Endpoint>,
}

/// How soon voters notice that the leader is gone, in milliseconds.
///
/// A leader that falls silent is replaced after `election_timeout_max_ms`, in which it may still believe to lead, and
/// a time between the two limits, which is drawn by lot; one whose connections break, much sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader makes itself heard.
    pub heartbeat_ms: u64,
    pub election_timeout_min_ms: u64,
    pub election_timeout_max_ms: u64,
}

impl Default for Timing {
    /// For a local network: 600 to 800 ms without a word.
    fn default() -> Self {
        Self::within(800)
    }
}

impl Timing {
    /// A leader is replaced that is silent for so long, at most, in milliseconds from 400 to 4,000: half of it is its lease. In
    /// less time a machine may pause. Leaders of partitions count on a controller that has paused for five seconds to know that
    /// it leads no more (`ottla_replication`'s `DOUBT`).
    #[must_use]
    pub fn within(silence_ms: u64) -> Self {
        let lease = silence_ms.clamp(400, 4_000) / 2;
        let heartbeat_ms = if lease < 400 { lease / 4 } else { 100 };
        Self { heartbeat_ms, election_timeout_min_ms: lease / 2, election_timeout_max_ms: lease }
    }

    pub(crate) fn limits(self) -> Limits {
        let lease = Duration::from_millis(self.election_timeout_max_ms);
        Limits { lease, patience: lease * 2 }
    }

    /// How long a voter waits for those before it to be elected.
    pub(crate) fn stagger(self, place: usize) -> Duration {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Duration::from_millis(self.heartbeat_ms / 2).saturating_mul(place)
    }
}

/// Whether this node gives an empty log its first entry, as each voter does. Whoever is none gets it from them: what a lone
/// voter writes (its directory, the time), nobody else can know.
pub(super) fn begins(config: &Config) -> bool {
    let is_named = config.voters.iter().any(|voter| voter.id == config.node_id);
    !config.joins && (is_named || config.voters.is_empty())
}

/// The voters that a new log names: the same on every voter, whatever else their configurations say.
pub(super) fn first(config: &Config) -> Result<BTreeMap<i32, Voter>, String> {
    let alone =
        Voter { directory_id: config.directory_id, endpoints: config.controller_endpoints.clone() };
    if config.voters.iter().all(|voter| voter.id == config.node_id) {
        return Ok(BTreeMap::from([(config.node_id.0, alone)]));
    }
    let by_directory = config.voters.iter().all(|voter| voter.directory_id != Uuid::ZERO);
    let known = |voter: &InitialVoter| match by_directory {
        true => Voter { directory_id: voter.directory_id, endpoints: voter.endpoints.clone() },
        false => Voter { directory_id: Uuid::ZERO, endpoints: Vec::new() },
    };
    let voters: BTreeMap<i32, Voter> =
        config.voters.iter().map(|voter| (voter.id.0, known(voter))).collect();
    if voters.len() != config.voters.len() {
        return Err("a voter is named twice".to_owned());
    }
    Ok(voters)
}

/// What the voters that the log names are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// This node is the only one.
    Alone,
    /// They know each other's log directories: one that has lost its log is another voter.
    ByDirectory,
    /// They know each other's ids: one that has lost its log cannot be told from one that has not.
    ById,
    /// This node is none of them.
    Observer,
}

/// A log that is still empty is somebody else's.
pub(super) fn company(config: &Config, storage: &Storage) -> Company {
    let Some(voters) = storage.voters() else { return Company::Observer };
    let id = config.node_id;
    if !is_voter(&voters, id.0) {
        return Company::Observer;
    }
    if voters.voter_ids().count() == 1 {
        return Company::Alone;
    }
    match voters.get_node(&id.0).map_or(Uuid::ZERO, |voter| voter.directory_id) {
        Uuid::ZERO => Company::ById,
        _ => Company::ByDirectory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_silent_for_its_lease_and_the_longest_wait_is_replaced() {
        for (silence_ms, heartbeat_ms, min_ms, max_ms) in [
            (800, 100, 200, 400),
            (60_000, 100, 1_000, 2_000),
            (500, 62, 125, 250),
            (0, 50, 100, 200),
        ] {
            let expected = Timing {
                heartbeat_ms,
                election_timeout_min_ms: min_ms,
                election_timeout_max_ms: max_ms,
            };
            assert_eq!(Timing::within(silence_ms), expected, "{silence_ms} ms");
        }
        assert_eq!(Timing::default(), Timing::within(800));
    }
}
