//! Voters that come and go (KIP-853), one change at a time. Shell: who may is a question to the members.
//!
//! A change is one entry that names the new set, and holds from the moment that it is in a log; openraft appends it only
//! after the one before it, and the leader's first entry, are committed. Where one vote comes or goes, any majority of the
//! one set and any of the other have a voter in common. Where two come, the entry names both sets, so that a majority of
//! each is needed, and a second entry names the new one alone; whoever leads writes that (`finish`). So whatever a crash
//! leaves behind is what the log names.
//!
//! Invariants: a node becomes a voter only after the leader has seen its disk have all that the leader's had when the
//! change was asked for; sets that follow each other differ in one voter, or stand in one entry; none is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftPayload;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftDataMetrics;
use ottla_base::BrokerId;
use ottla_metadata::Endpoint;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::growth::{self, Claim, Plan, Seat, Wait};
use super::{InitialVoter, Member, Quorum, progress};
use crate::controller::QuorumRaft;
use crate::members::{node_id, second};
use crate::observers::{self, Lead, is_voter, lead, move_here};
use crate::raft::{Membership, Payload, TypeConfig, Voter};
use crate::service::Service;
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
    /// Too few of the voters that would be left are heard of: they could commit nothing, not even this.
    #[error("Aborted remove voter operation for {0} since the others are no majority without it")]
    Needed(Member),
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
    ///
    /// # Errors
    /// [`VoterChangeError`]. After [`VoterChangeError::TimedOut`] or [`VoterChangeError::NotLeader`] the change may be
    /// committed all the same.
    pub async fn add_voter(
        &self,
        newcomer: InitialVoter,
        patience: Duration,
    ) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + patience;
        let voter = Member { id: newcomer.id, directory_id: newcomer.directory_id };
        let changes = self.changes();
        let _turn = changes.turn()?;
        self.check_changeable("adding")?;
        let voters = self.voters();
        if voters.iter().any(|it| it.id == voter.id) {
            return Err(VoterChangeError::Duplicate { voter, voters });
        }
        changes.add(vec![newcomer], deadline).await
    }

    /// Takes a voter's vote away: it goes on as an observer, and if it leads, another voter takes over.
    ///
    /// # Errors
    /// As [`Quorum::add_voter`].
    pub async fn remove_voter(
        &self,
        voter: Member,
        patience: Duration,
    ) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + patience;
        let changes = self.changes();
        let _turn = changes.turn()?;
        self.check_changeable("removing")?;
        let voters = self.voters();
        if !voters.contains(&voter) || voters.len() == 1 {
            return Err(VoterChangeError::NotFound { voter, voters });
        }
        changes.remove(voter, deadline).await
    }

    /// Has the log name the place where a voter is now.
    ///
    /// # Errors
    /// As [`Quorum::add_voter`].
    pub async fn update_voter(
        &self,
        voter: InitialVoter,
        patience: Duration,
    ) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + patience;
        let changes = self.changes();
        let _turn = changes.turn()?;
        self.check_changeable("updating")?;
        let InitialVoter { id, directory_id, endpoints } = voter;
        let (voter, voters) = (Member { id, directory_id }, self.voters());
        if !voters.contains(&voter) {
            return Err(VoterChangeError::NotFound { voter, voters });
        }
        let _changing = changes.changing(deadline).await?;
        let moved = Voter { directory_id, endpoints };
        match tokio::time::timeout_at(deadline, move_here(&self.raft, id, &moved)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(VoterChangeError::Pending),
            Err(_) => Err(VoterChangeError::TimedOut),
        }
    }

    fn changes(&self) -> Changes<'_> {
        Changes { raft: &self.raft, service: &self.service }
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
}

/// How the voters are changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changes<'a> {
    pub(crate) raft: &'a QuorumRaft,
    pub(crate) service: &'a Service,
}

/// How long a change that nobody has asked for may take before something else is looked at.
const GROWING_PATIENCE: Duration = Duration::from_secs(2);

/// What has become of the voters without anybody having asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grown {
    /// There is nothing to do before the members or their wishes change.
    Settled,
    /// Something has been done, or may soon be.
    Growing,
}

impl Changes<'_> {
    /// Gives votes to the observers that want them, and takes those of lost directories away, where [`growth::plan`] says
    /// so. This node has led for so long.
    pub(crate) async fn grow(self, led_for: Duration) -> Grown {
        let Some(lead) = lead(self.raft) else { return Grown::Settled };
        if lead.members.get_joint_config().len() != 1 || !is_by_directory(&lead.members) {
            return Grown::Settled;
        }
        let claims = self.claims(&lead.members);
        let plan = growth::plan(&self.seats(&lead.members, led_for), &claims);
        self.note(&plan, &lead.members, &claims);
        match plan {
            Plan::Wait(_) => return Grown::Settled,
            Plan::Keep if claims.is_empty() => return Grown::Settled,
            Plan::Keep => return Grown::Growing,
            Plan::Remove(_) | Plan::Add(_) => {}
        }
        // A person's change may have come in between, or be under way; then it is looked at again.
        let Ok(_turn) = self.turn() else { return Grown::Growing };
        if observers::members(self.raft) != lead.members {
            return Grown::Growing;
        }
        if let Err(error) = self.carry_out(plan, &lead.members).await {
            tracing::debug!(%error, "the voters are not changed yet");
            self.service.observers.forget_targets();
        }
        Grown::Growing
    }

    async fn carry_out(self, plan: Plan, members: &Membership) -> Result<(), VoterChangeError> {
        let deadline = Instant::now() + GROWING_PATIENCE;
        match plan {
            Plan::Keep | Plan::Wait(_) => Ok(()),
            Plan::Remove(voter) => {
                tracing::info!(%voter, "a voter's directory is lost: its node asks for a vote with another one");
                self.remove(voter, deadline).await
            }
            Plan::Add(added) => {
                let newcomers = added.iter().filter_map(|it| newcomer(*it, members));
                self.add(newcomers.collect(), deadline).await
            }
        }
    }

    fn seats(self, members: &Membership, led_for: Duration) -> Vec<Seat> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let seat = |number: i32| {
            let directory_id = members.get_node(&number)?.directory_id;
            let (_, silent_for) = progress(&metrics, number);
            // Nobody has answered a leader that has just begun.
            let is_heard = number == self.service.node_id.0
                || silent_for.min(led_for) < self.service.lease.saturating_mul(2);
            let voter = Member { id: BrokerId(node_id(number)), directory_id };
            Some(Seat { voter, is_heard })
        };
        members.voter_ids().filter_map(seat).collect()
    }

    /// One that has once had all that this leader had when it was first looked at, and answers, is ready.
    fn claims(self, members: &Membership) -> Vec<Claim> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let last = self.service.storage.last_index();
        let claim = |number: i32| {
            let directory_id = members.get_node(&number)?.directory_id;
            let target = self.service.observers.target(number, last)?;
            let is_ready = is_caught_up(&metrics, number, target, self.service.lease);
            Some(Claim { member: Member { id: BrokerId(node_id(number)), directory_id }, is_ready })
        };
        members.learner_ids().filter_map(claim).collect()
    }

    /// Says it once why a node that wants a vote has none.
    fn note(self, plan: &Plan, members: &Membership, claims: &[Claim]) {
        let wait = match plan {
            Plan::Wait(wait) => Some(*wait),
            Plan::Keep | Plan::Remove(_) | Plan::Add(_) => None,
        };
        if !self.service.observers.waits(wait) {
            return;
        }
        let voters = members.voter_ids().count();
        for Claim { member, .. } in claims {
            match wait {
                Some(Wait::ForAnother) => {
                    tracing::info!(observer = %member.id, voters, "{}", for_another(voters));
                }
                Some(Wait::Enough) => {
                    tracing::info!(observer = %member.id, voters, "there are enough voters: more are added by hand");
                }
                None => {}
            }
        }
    }

    /// Observers become voters: of several, all or none.
    async fn add(
        self,
        newcomers: Vec<InitialVoter>,
        deadline: Instant,
    ) -> Result<(), VoterChangeError> {
        let _changing = self.changing(deadline).await?;
        let mut prepared = Vec::new();
        for newcomer in newcomers {
            let voter = Member { id: newcomer.id, directory_id: newcomer.directory_id };
            let target = self.prepare(voter, newcomer.endpoints, deadline).await?;
            prepared.push((voter, target));
        }
        // The first may have fallen silent while the others were prepared.
        let metrics = self.raft.data_metrics().borrow_watched().clone();
        for (voter, target) in &prepared {
            if !is_caught_up(&metrics, voter.id.0, *target, self.service.lease) {
                return Err(VoterChangeError::Behind(*voter));
            }
        }
        let lead = lead(self.raft).ok_or(VoterChangeError::NotLeader)?;
        let added = prepared.iter().map(|(voter, _)| voter.id.0);
        let ids = lead.members.voter_ids().chain(added).collect();
        let nodes = nodes(&lead.members);
        self.replace_voters(lead, ids, nodes, deadline).await?;
        for (voter, _) in prepared {
            tracing::info!(%voter, "a voter was added");
        }
        Ok(())
    }

    async fn remove(self, voter: Member, deadline: Instant) -> Result<(), VoterChangeError> {
        let _changing = self.changing(deadline).await?;
        let lead = lead(self.raft).ok_or(VoterChangeError::NotLeader)?;
        self.check_dispensable(voter, &lead.members).await?;
        let left = lead.members.voter_ids().filter(|number| node_id(*number) != voter.id.0);
        let ids = left.collect();
        let mut nodes = nodes(&lead.members);
        // openraft's leader resigns only when it is no learner either; it asks the next one to be fed. And who follows with
        // another directory is the same node, which has the removed one's no more, and gets its number.
        if voter.id == self.service.node_id || nodes.contains_key(&second(voter.id.0)) {
            nodes.remove(&voter.id.0);
        }
        self.replace_voters(lead, ids, nodes, deadline).await?;
        tracing::info!(%voter, "a voter was removed");
        Ok(())
    }

    /// Waits a moment for most of the others to answer.
    async fn check_dispensable(
        self,
        voter: Member,
        members: &Membership,
    ) -> Result<(), VoterChangeError> {
        let begun = Instant::now();
        let left = members.voter_ids().filter(|number| node_id(*number) != voter.id.0);
        let left: Vec<i32> = left.collect();
        let mut metrics = self.raft.data_metrics();
        let heard = async {
            loop {
                let count = {
                    let metrics = metrics.borrow_and_update();
                    let answers = |number: &&i32| progress(&metrics, **number).1 < begun.elapsed();
                    let is_here = |number: &&i32| **number == self.service.node_id.0;
                    left.iter().filter(|number| is_here(number) || answers(number)).count()
                };
                if count * 2 > left.len() {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        match tokio::time::timeout(self.service.lease.saturating_mul(2), heard).await {
            Ok(true) => Ok(()),
            // Nobody answers whoever leads no longer.
            Ok(false) | Err(_) if lead(self.raft).is_none() => Err(VoterChangeError::NotLeader),
            Ok(false) | Err(_) => Err(VoterChangeError::Needed(voter)),
        }
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

    /// Sees to it that a learner of openraft's has the number and the addresses that the voter will have, and all of
    /// the log up to here; returns up to where that is.
    async fn prepare(
        self,
        voter: Member,
        endpoints: Vec<Endpoint>,
        deadline: Instant,
    ) -> Result<Option<u64>, VoterChangeError> {
        let behind = VoterChangeError::Behind(voter);
        let before = lead(self.raft).ok_or(VoterChangeError::NotLeader)?;
        if !is_observer(voter, &before.members) {
            return Err(behind);
        }
        let learner = Voter { directory_id: voter.directory_id, endpoints };
        let number = voter.id.0;
        let fed = self.service.observers.feed_here(self.raft, voter.id, learner.clone(), None);
        match tokio::time::timeout_at(deadline, fed).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(VoterChangeError::Pending),
            Err(_) => return Err(VoterChangeError::TimedOut),
        }
        let lead = lead(self.raft).ok_or(VoterChangeError::NotLeader)?;
        if lead.members.get_node(&number) != Some(&learner) {
            return Err(behind);
        }
        let target = self.service.storage.last_index();
        let lease = self.service.lease;
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
            Ok(true) => Ok(target),
            Ok(false) | Err(_) => Err(behind),
        }
    }

    /// In one entry where the sets differ in one voter, else in two, of which the first names both sets.
    async fn replace_voters(
        self,
        lead: Lead,
        ids: BTreeSet<i32>,
        nodes: BTreeMap<i32, Voter>,
        deadline: Instant,
    ) -> Result<(), VoterChangeError> {
        let old: BTreeSet<i32> = lead.members.voter_ids().collect();
        let is_step = old.symmetric_difference(&ids).count() <= 1;
        let sets = if is_step { vec![ids] } else { vec![old, ids] };
        let proposed = Membership::new(sets, nodes);
        let proposed = proposed.map_err(|error| VoterChangeError::Stopped(error.to_string()))?;
        let appended = async {
            append(self.raft, lead, proposed).await?;
            if is_step { Ok(()) } else { finish(self.raft).await }
        };
        let appended = tokio::time::timeout_at(deadline, appended).await;
        appended.unwrap_or(Err(VoterChangeError::TimedOut))
    }
}

/// Why a lone node that wants a vote waits.
pub(crate) fn for_another(voters: usize) -> &'static str {
    match voters {
        1 => {
            "a second voter would make things worse, as neither could then be lost: waits for a third node"
        }
        _ => {
            "one more voter would make an even number, which stands no more losses: waits for one more node"
        }
    }
}

fn is_observer(it: Member, members: &Membership) -> bool {
    let is_it = |number: i32, node: &Voter| {
        node_id(number) == it.id.0 && node.directory_id == it.directory_id
    };
    members.nodes().any(|(number, node)| is_it(*number, node) && !is_voter(members, *number))
}

/// A member that follows, as the voter that it may become: it is reached where it is fed.
fn newcomer(member: Member, members: &Membership) -> Option<InitialVoter> {
    let mut nodes = members.nodes();
    let (_, node) = nodes.find(|(number, node)| {
        node_id(**number) == member.id.0 && node.directory_id == member.directory_id
    })?;
    let Member { id, directory_id } = member;
    Some(InitialVoter { id, directory_id, endpoints: node.endpoints.clone() })
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

/// Two sets in one entry become the one of those who come: the second half of a change, by whoever leads.
pub(crate) async fn finish(raft: &QuorumRaft) -> Result<(), VoterChangeError> {
    let lead = lead(raft).ok_or(VoterChangeError::NotLeader)?;
    let [_, .., last] = &**lead.members.get_joint_config() else { return Ok(()) };
    let last = last.clone();
    let proposed = Membership::new(vec![last], nodes(&lead.members));
    let proposed = proposed.map_err(|error| VoterChangeError::Stopped(error.to_string()))?;
    append(raft, lead, proposed).await
}
