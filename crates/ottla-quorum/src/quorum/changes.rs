//! Voters that come and go (KIP-853), one at a time. Shell: who may is a question to the members, the change one entry.
//!
//! A change is one entry that names the new set, and holds from the moment that it is in a log; openraft appends it only
//! after the one before it, and the leader's first entry, are committed. So any majority of the one set and any of the
//! other have a voter in common, and whatever a crash leaves behind is one of the sets that the log names.
//!
//! Invariants: a node becomes a voter only after the leader has seen its disk have all that the leader's had when the
//! change was asked for; sets that follow each other differ in one voter; none is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftPayload;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftDataMetrics;
use ottla_metadata::Endpoint;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::{InitialVoter, Member, Quorum, progress};
use crate::controller::QuorumRaft;
use crate::members::node_id;
use crate::observers::{Lead, lead};
use crate::raft::{Membership, Payload, TypeConfig, Voter};
use crate::storage::format::is_by_directory;

/// Why the voters were not changed, in the words of Apache Kafka where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoterChangeError {
    #[error("this node does not lead the voters, or has stopped leading them")]
    NotLeader,
    #[error("Request timed out waiting for leader to handle previous voter change request")]
    Pending,
    #[error(
        "Request timed out waiting for leader to establish HWM and fence previous voter changes"
    )]
    NotEstablished,
    /// The log knows the voters by their ids alone.
    #[error("Cluster doesn't support {0} voter because the kraft.version feature is 0")]
    Unsupported(&'static str),
    #[error("The voter id for {voter} is already part of the set of voters {}.", set(.voters))]
    Duplicate { voter: Member, voters: Vec<Member> },
    /// There is no such voter, or no other.
    #[error("Cannot remove voter {voter} from the set of voters {}", set(.voters))]
    NotFound { voter: Member, voters: Vec<Member> },
    /// It is no observer, has not all of the log, or is not heard of.
    #[error("Aborted add voter operation for {0} since it is lagging behind")]
    Behind(Member),
    /// The change is in the log, and may yet be committed.
    #[error("The request timed out.")]
    TimedOut,
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}

/// As Java shows a set of them.
fn set(voters: &[Member]) -> String {
    let shown: Vec<String> = voters.iter().map(ToString::to_string).collect();
    format!("[{}]", shown.join(", "))
}

impl Quorum {
    /// Makes an observer a voter, reached at these endpoints as a controller. Waits for it to catch up, and for the
    /// change to be committed, for so long at most.
    pub async fn add_voter(
        &self,
        newcomer: InitialVoter,
        patience: Duration,
    ) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + patience;
        let voter = Member { id: newcomer.id, directory_id: newcomer.directory_id };
        let _turn = self.turn()?;
        self.check_changeable("adding")?;
        let voters = self.voters();
        if voters.iter().any(|it| it.id == voter.id) {
            return Err(VoterChangeError::Duplicate { voter, voters });
        }
        let _changing = self.changing(deadline).await?;
        self.prepare(voter, newcomer.endpoints, deadline).await?;
        let lead = lead(&self.raft).ok_or(VoterChangeError::NotLeader)?;
        let ids = lead.members.voter_ids().chain([voter.id.0]).collect();
        let nodes = nodes(&lead.members);
        self.replace_voters(lead, ids, nodes, deadline).await?;
        tracing::info!(%voter, "a voter was added");
        Ok(())
    }

    /// Takes a voter's vote away: it goes on as an observer, and if it leads, another voter takes over.
    pub async fn remove_voter(
        &self,
        voter: Member,
        patience: Duration,
    ) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + patience;
        let _turn = self.turn()?;
        self.check_changeable("removing")?;
        let voters = self.voters();
        if !voters.contains(&voter) || voters.len() == 1 {
            return Err(VoterChangeError::NotFound { voter, voters });
        }
        let _changing = self.changing(deadline).await?;
        let lead = lead(&self.raft).ok_or(VoterChangeError::NotLeader)?;
        let left = lead.members.voter_ids().filter(|number| node_id(*number) != voter.id.0);
        let ids = left.collect();
        let mut nodes = nodes(&lead.members);
        if voter.id == self.service.node_id {
            // openraft's leader resigns only when it is no learner either. It asks the next one to be fed.
            nodes.remove(&voter.id.0);
        }
        self.replace_voters(lead, ids, nodes, deadline).await?;
        tracing::info!(%voter, "a voter was removed");
        Ok(())
    }

    /// The turn of whoever wants the voters changed; another one does not wait for it.
    fn turn(&self) -> Result<MutexGuard<'_, ()>, VoterChangeError> {
        self.service.observers.voters.try_lock().map_err(|_| VoterChangeError::Pending)
    }

    /// The turn of whoever changes the members, observers among them.
    async fn changing(&self, deadline: Instant) -> Result<MutexGuard<'_, ()>, VoterChangeError> {
        let changing = self.service.observers.changing.lock();
        let changing = tokio::time::timeout_at(deadline, changing).await;
        changing.map_err(|_| VoterChangeError::Pending)
    }

    fn check_changeable(&self, what: &'static str) -> Result<(), VoterChangeError> {
        let lead = lead(&self.raft).ok_or(VoterChangeError::NotLeader)?;
        if self.controller.active.borrow().is_none() {
            return Err(VoterChangeError::NotEstablished);
        }
        if !is_by_directory(&lead.members) {
            return Err(VoterChangeError::Unsupported(what));
        }
        Ok(())
    }

    /// Sees to it that a learner of openraft's has the number and the addresses that the voter will have, and all of
    /// the log up to here.
    async fn prepare(
        &self,
        voter: Member,
        endpoints: Vec<Endpoint>,
        deadline: Instant,
    ) -> Result<(), VoterChangeError> {
        let behind = VoterChangeError::Behind(voter);
        if !self.observer_states().iter().any(|it| it.voter == voter) {
            return Err(behind);
        }
        let learner = Voter { directory_id: voter.directory_id, endpoints };
        let number = voter.id.0;
        let fed = self.service.observers.feed_here(&self.raft, voter.id, learner.clone());
        match tokio::time::timeout_at(deadline, fed).await {
            Ok(Ok(())) => {}
            Ok(Err(())) => return Err(VoterChangeError::Pending),
            Err(_) => return Err(VoterChangeError::TimedOut),
        }
        let lead = lead(&self.raft).ok_or(VoterChangeError::NotLeader)?;
        if lead.members.get_node(&number) != Some(&learner) {
            return Err(behind);
        }
        let target = self.storage.last_index();
        let lease = self.timing.limits().lease;
        let mut metrics = self.raft.data_metrics();
        let caught_up = async {
            loop {
                if is_caught_up(&metrics.borrow_and_update(), number, target, lease) {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(behind),
        }
    }

    async fn replace_voters(
        &self,
        lead: Lead,
        ids: BTreeSet<i32>,
        nodes: BTreeMap<i32, Voter>,
        deadline: Instant,
    ) -> Result<(), VoterChangeError> {
        let proposed = Membership::new(vec![ids], nodes);
        let proposed = proposed.map_err(|error| VoterChangeError::Stopped(error.to_string()))?;
        let appended = append(&self.raft, lead, proposed);
        let appended = tokio::time::timeout_at(deadline, appended).await;
        appended.unwrap_or(Err(VoterChangeError::TimedOut))
    }
}

fn nodes(members: &Membership) -> BTreeMap<i32, Voter> {
    members.nodes().map(|(number, voter)| (*number, voter.clone())).collect()
}

/// Whether a member has the entry of this index, and was heard of so lately that it may be counted on for a majority.
fn is_caught_up(
    metrics: &RaftDataMetrics<TypeConfig>,
    number: i32,
    target: Option<u64>,
    lease: Duration,
) -> bool {
    let (index, silent_for) = progress(metrics, number);
    index >= target && silent_for < lease
}

/// One entry that names the members anew; returns when it is committed.
async fn append(
    raft: &QuorumRaft,
    lead: Lead,
    proposed: Membership,
) -> Result<(), VoterChangeError> {
    raft.runtime_config().tick(true);
    match raft.append_membership(proposed, Payload::blank(), [lead.unchanged]).await {
        Ok(_) => Ok(()),
        Err(RaftError::Fatal(error)) => Err(VoterChangeError::Stopped(error.to_string())),
        Err(RaftError::APIError(error)) => {
            tracing::debug!(%error, "the voters were not changed");
            Err(match error {
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                    VoterChangeError::NotLeader
                }
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_) => VoterChangeError::Pending,
            })
        }
    }
}

/// Two sets that a crash, or another program, has left in one entry become the one of those who come.
pub(crate) async fn finish(raft: &QuorumRaft) {
    let Some(lead) = lead(raft) else { return };
    let [_, .., last] = &**lead.members.get_joint_config() else { return };
    let last = last.clone();
    let Ok(proposed) = Membership::new(vec![last.clone()], nodes(&lead.members)) else { return };
    if append(raft, lead, proposed).await.is_ok() {
        tracing::info!(voters = ?last, "a change of the voters that was left behind is finished");
    }
}
