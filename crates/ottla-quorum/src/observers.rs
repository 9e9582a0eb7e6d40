//! Nodes that follow the metadata log without a vote: how they ask for it, and how a leader feeds them. Shell.
//!
//! An observer asks whoever it knows of, is told who leads, and asks there. The leader makes it a learner of openraft's,
//! and sends it what voters get. Kafka's log has no record for learners, so the entry that adds one names the voters
//! once more, and nobody but this leader knows of its observers. That is enough: they ask again when they hear nothing,
//! and every few seconds anyway; one that does not is let go.
//!
//! Invariant: observers have no part in any majority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::Precondition;
use ottla_base::BrokerId;
use ottla_metadata::Endpoint;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::{QuorumRaft, until};
use crate::members::{ANYBODY, is_same_log, second};
use crate::network::Peers;
use crate::quorum::finish;
use crate::raft::{Membership, TypeConfig, Voter};
use crate::service::Service;
use crate::storage::format::is_by_directory;
use crate::wire::{Answer, Request};

/// How often an observer asks to be fed, though it hears from the leader.
const ASKING_INTERVAL: Duration = Duration::from_secs(3);
/// How long a leader feeds an observer that does not ask any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// How often an observer looks whether it still hears from a leader.
const LOOKING_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer may take: a change of members is committed before it is given.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the leader knows of its observers beside what openraft does.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// One change of members at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Held while a change of the voters is asked for: another one is refused.
    pub(crate) voters: tokio::sync::Mutex<()>,
    /// When each asked last.
    asked: Mutex<BTreeMap<i32, Instant>>,
}

/// The members that openraft here goes by, committed or not.
pub(crate) fn members(raft: &QuorumRaft) -> Membership {
    raft.server_metrics().borrow_watched().membership_config.membership().clone()
}

pub(crate) fn is_voter(members: &Membership, number: i32) -> bool {
    members.voter_ids().any(|voter| voter == number)
}

/// The members, as whoever leads may change them.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) members: Membership,
    /// Nothing has changed them since.
    pub(crate) unchanged: Precondition<TypeConfig>,
}

/// `None` where this node does not lead, or only until others know that it is no member any more: openraft would then
/// append what it could not commit.
pub(crate) fn lead(raft: &QuorumRaft) -> Option<Lead> {
    let server = raft.server_metrics();
    let server = server.borrow_watched();
    let members = server.membership_config.membership();
    let leads = server.state.is_leader() && members.get_node(&server.id).is_some();
    let last_membership_log_id = *server.membership_config.log_id();
    leads.then(|| Lead {
        members: members.clone(),
        unchanged: Precondition::LastMembershipLogId { last_membership_log_id },
    })
}

/// Who leads, if another node does; `None` if this one does.
pub(crate) fn leads_elsewhere(raft: &QuorumRaft) -> Option<Option<BrokerId>> {
    let server = raft.server_metrics();
    let server = server.borrow_watched();
    if server.state.is_leader() {
        return None;
    }
    Some(server.vote.committed.then_some(BrokerId(server.vote.leader_id.voted_for)))
}

impl Observers {
    /// Feeds a node that has asked for it, if this one leads.
    pub(crate) async fn feed(&self, raft: &QuorumRaft, id: BrokerId, observer: Voter) -> Answer {
        if let Some(leader) = leads_elsewhere(raft) {
            let members = members(raft);
            let at = leader.and_then(|id| members.get_node(&id.0));
            let endpoints = at.map(|it| it.endpoints.clone()).unwrap_or_default();
            return Answer::Leader { leader, endpoints };
        }
        let fed = tokio::time::timeout(PATIENCE, self.feed_as_leader(raft, id, observer)).await;
        match fed {
            Ok(Ok(())) => Answer::Fed,
            // Another change is under way, or this node has stopped leading: it asks again.
            Ok(Err(())) | Err(_) => Answer::Leader { leader: None, endpoints: Vec::new() },
        }
    }

    async fn feed_as_leader(
        &self,
        raft: &QuorumRaft,
        id: BrokerId,
        observer: Voter,
    ) -> Result<(), ()> {
        let _turn = self.changing.lock().await;
        self.feed_here(raft, id, observer).await
    }

    /// Makes a node a learner, in the turn of whoever calls.
    ///
    /// One that is there already with another directory or address goes first, in an entry of its own: openraft would
    /// go on where it was with the old one, and take what that had on disk for what this one has.
    pub(crate) async fn feed_here(
        &self,
        raft: &QuorumRaft,
        id: BrokerId,
        observer: Voter,
    ) -> Result<(), ()> {
        let Lead { members, .. } = lead(raft).ok_or(())?;
        let voter = members.get_node(&id.0).filter(|_| is_voter(&members, id.0));
        let number = match voter {
            Some(voter) if is_same_log(voter, observer.directory_id) => return Ok(()),
            Some(_) => second(id.0),
            None => id.0,
        };
        self.asked.lock().insert(number, Instant::now());
        if members.get_node(&number) == Some(&observer) {
            return Ok(());
        }
        let before = [id.0, second(id.0)].into_iter();
        let outdated: BTreeSet<i32> = before
            .filter(|it| members.get_node(it).is_some() && !is_voter(&members, *it))
            .collect();
        if !outdated.is_empty() {
            change_members(raft, ChangeMembers::RemoveNodes(outdated)).await?;
        }
        change_members(raft, ChangeMembers::AddNodes(BTreeMap::from([(number, observer)]))).await?;
        tracing::info!(observer = %id, "a node follows the metadata log without a vote");
        Ok(())
    }

    /// Lets go of observers that have not asked for too long. Those of a leader that has just begun have their time, too.
    async fn forget(&self, raft: &QuorumRaft) {
        let _turn = self.changing.lock().await;
        let silent: Vec<i32> = {
            let mut asked = self.asked.lock();
            let members = members(raft);
            asked.retain(|number, _| members.get_node(number).is_some());
            let mut is_silent = |number: &i32| {
                asked.entry(*number).or_insert_with(Instant::now).elapsed() > FORGOTTEN_AFTER
            };
            let learners: Vec<i32> = members.learner_ids().collect();
            learners.into_iter().filter(|it| is_silent(it)).collect()
        };
        if !silent.is_empty()
            && change_members(raft, ChangeMembers::RemoveNodes(silent.iter().copied().collect()))
                .await
                .is_ok()
        {
            tracing::info!(observers = ?silent, "observers are forgotten: they do not ask any more");
        }
    }
}

/// Returns when the change is committed. Timers run from now on: somebody else has to hear of this leader.
async fn change_members(raft: &QuorumRaft, change: ChangeMembers<i32, Voter>) -> Result<(), ()> {
    raft.runtime_config().tick(true);
    let Lead { unchanged, .. } = lead(raft).ok_or(())?;
    match raft.change_membership_if(change, true, [unchanged]).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "the members were not changed");
            Err(())
        }
    }
}

/// What a node needs to ask for the log, and a leader to forget those who do not.
pub(crate) struct Attendance {
    pub(crate) raft: QuorumRaft,
    pub(crate) service: Arc<Service>,
    pub(crate) peers: Peers,
    /// This node, as it wants to be fed.
    pub(crate) myself: Voter,
    /// Where to ask, beside the leader and the voters that the log names.
    pub(crate) contacts: Vec<Endpoint>,
}

impl Attendance {
    /// Runs until it is dropped, or the quorum has stopped.
    pub(crate) async fn run(self) {
        let mut server = self.raft.server_metrics();
        let mut asked: Option<Instant> = None;
        loop {
            let (members, leads) = {
                let server = server.borrow_and_update();
                (server.membership_config.membership().clone(), server.state.is_leader())
            };
            let pause = if leads {
                self.service.observers.forget(&self.raft).await;
                if members.get_joint_config().len() > 1 {
                    finish(&self.raft).await;
                    Some(LOOKING_INTERVAL)
                } else {
                    members.learner_ids().next().map(|_| ASKING_INTERVAL)
                }
            } else if is_voter(&members, self.service.node_id.0) {
                self.ask_if_forgotten(&members, &mut asked).await
            } else {
                let is_fed = self.service.hears_a_leader()
                    && asked.is_some_and(|asked| asked.elapsed() < ASKING_INTERVAL);
                if !is_fed && self.ask_somebody(&members).await {
                    asked = Some(Instant::now());
                }
                Some(LOOKING_INTERVAL)
            };
            let ended = tokio::select! {
                changed = server.changed() => changed.is_err(),
                () = until(pause.map(|it| Instant::now() + it)) => false,
            };
            if ended {
                return;
            }
        }
    }

    /// A voter that was away may have lost its vote meanwhile: nobody tells it, and its own log still gives it one. Who
    /// leads feeds it as an observer if it asks, and does nothing for a voter. Returns when to look again.
    async fn ask_if_forgotten(
        &self,
        members: &Membership,
        asked: &mut Option<Instant>,
    ) -> Option<Duration> {
        if !is_by_directory(members) {
            return None;
        }
        let last = *asked.get_or_insert_with(Instant::now);
        if !self.service.hears_a_leader() && last.elapsed() >= ASKING_INTERVAL {
            *asked = Some(Instant::now());
            self.ask_somebody(members).await;
        }
        Some(ASKING_INTERVAL)
    }

    /// Whether the leader has been found, and feeds this node.
    async fn ask_somebody(&self, members: &Membership) -> bool {
        let leader = leads_elsewhere(&self.raft).flatten();
        let known = leader.map(|id| self.peers.endpoints_of(id, members));
        let voters = members.voter_ids().map(|id| self.peers.endpoints_of(BrokerId(id), members));
        let contacts = self.contacts.iter().map(|it| vec![it.clone()]);
        let mut tried: Vec<Vec<Endpoint>> = Vec::new();
        for place in known.into_iter().chain(voters).chain(contacts) {
            if place.is_empty() || tried.contains(&place) {
                continue;
            }
            match self.ask(&place).await {
                Some(Answer::Fed) => return true,
                Some(Answer::Leader { leader: Some(id), endpoints }) => {
                    let told = if endpoints.is_empty() {
                        self.peers.endpoints_of(id, members)
                    } else {
                        endpoints
                    };
                    if !tried.contains(&told) && self.ask(&told).await == Some(Answer::Fed) {
                        return true;
                    }
                    tried.push(told);
                }
                _ => {}
            }
            tried.push(place);
        }
        false
    }

    async fn ask(&self, place: &[Endpoint]) -> Option<Answer> {
        let request = Request::Observe(self.myself.clone());
        match self.peers.ask_at(BrokerId(ANYBODY), place, &request, PATIENCE).await {
            Ok(answer) => Some(answer),
            Err(why) => {
                tracing::debug!(at = ?place.first(), why, "nobody to follow there");
                None
            }
        }
    }
}
