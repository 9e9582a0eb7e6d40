//! Nodes that follow the metadata log without a vote: how they ask for it, and how a leader feeds them. Shell.
//!
//! An observer asks whoever it knows of, is told who leads, and asks there. The leader makes it a learner of openraft's,
//! and sends it what voters get. Kafka's log has no record for learners, so the entry that adds one names the voters
//! once more, and nobody but this leader knows of its observers. That is enough: they ask again when they hear nothing,
//! and every few seconds anyway; one that does not is let go. One that wants a vote says so whenever it asks, and the
//! leader decides (`quorum::growth`).
//!
//! Invariant: observers have no part in any majority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::Precondition;
use ottla_base::{BrokerId, Uuid};
use ottla_metadata::Endpoint;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::{QuorumRaft, until};
use crate::members::{ANYBODY, is_same_log, node_id, second};
use crate::network::Peers;
use crate::quorum::growth::Wait;
use crate::quorum::{Changes, Grown, Member, finish, for_another, progress};
use crate::raft::{Membership, TypeConfig, Voter};
use crate::service::Service;
use crate::storage::format::is_by_directory;
use crate::wire::{Answer, Request};

/// How often an observer asks to be fed, though it hears from the leader.
const ASKING_INTERVAL: Duration = Duration::from_secs(3);
/// How long an observer is silent until another node may take its id: somewhat longer than between two questions.
const GONE_AFTER: Duration = Duration::from_secs(4);
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
    asked: Mutex<BTreeMap<i32, Asked>>,
    /// Why those who want a vote have none, if there is something to say.
    wait: Mutex<Option<Wait>>,
}

/// Why a node is not fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotFed {
    /// Another change is under way, or this node has stopped leading.
    Now,
    /// Another node of its id is fed, and lives.
    Taken,
}

/// What an observer has asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// When it did so last.
    at: Instant,
    /// The log directory of whoever did.
    directory_id: Uuid,
    wants_vote: bool,
    /// Once it has the log up to here, it has caught up.
    target: Option<Option<u64>>,
}

impl Asked {
    fn now(directory_id: Uuid) -> Self {
        Self { at: Instant::now(), directory_id, wants_vote: false, target: None }
    }
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
    pub(crate) async fn feed(
        &self,
        raft: &QuorumRaft,
        id: BrokerId,
        observer: Voter,
        wants_vote: bool,
    ) -> Answer {
        if let Some(leader) = leads_elsewhere(raft) {
            let members = members(raft);
            let at = leader.and_then(|id| members.get_node(&id.0));
            let endpoints = at.map(|it| it.endpoints.clone()).unwrap_or_default();
            return Answer::Leader { leader, endpoints };
        }
        if raft.server_metrics().borrow_watched().id == id.0 {
            return Answer::Taken;
        }
        let fed = self.feed_as_leader(raft, id, observer, wants_vote);
        match tokio::time::timeout(PATIENCE, fed).await {
            Ok(Ok(())) => Answer::Fed { wait: self.wait.lock().filter(|_| wants_vote) },
            Ok(Err(NotFed::Taken)) => Answer::Taken,
            // It asks again.
            Ok(Err(NotFed::Now)) | Err(_) => Answer::Leader { leader: None, endpoints: Vec::new() },
        }
    }

    async fn feed_as_leader(
        &self,
        raft: &QuorumRaft,
        id: BrokerId,
        observer: Voter,
        wants_vote: bool,
    ) -> Result<(), NotFed> {
        let _turn = self.changing.lock().await;
        move_here(raft, id, &observer).await.map_err(|()| NotFed::Now)?;
        self.feed_here(raft, id, observer, Some(wants_vote)).await
    }

    /// Makes a node a learner, in the turn of whoever calls.
    ///
    /// One that is there already with another directory or address goes first, in an entry of its own: openraft would
    /// go on where it was with the old one, and take what that had on disk for what this one has. But not while the one
    /// with the other directory lives: two nodes that were given one id would take turns for ever, and each turn is two
    /// entries on every voter's disk.
    ///
    /// Whether it wants a vote stays as it was where that is not said.
    pub(crate) async fn feed_here(
        &self,
        raft: &QuorumRaft,
        id: BrokerId,
        observer: Voter,
        wants_vote: Option<bool>,
    ) -> Result<(), NotFed> {
        let Lead { members, .. } = lead(raft).ok_or(NotFed::Now)?;
        let voter = members.get_node(&id.0).filter(|_| is_voter(&members, id.0));
        let number = match voter {
            Some(voter) if is_same_log(voter, observer.directory_id) => return Ok(()),
            Some(_) => second(id.0),
            None => id.0,
        };
        let is_known = members.get_node(&number) == Some(&observer);
        if is_known {
            self.note(number, observer.directory_id, wants_vote, is_known);
            return Ok(());
        }
        let before = [id.0, second(id.0)].into_iter();
        let outdated: BTreeSet<i32> = before
            .filter(|it| members.get_node(it).is_some() && !is_voter(&members, *it))
            .collect();
        let is_another_alive = |number: &i32| {
            let known = members.get_node(number).map_or(Uuid::ZERO, |known| known.directory_id);
            known != observer.directory_id && self.lives(raft, *number, known)
        };
        if outdated.iter().any(is_another_alive) {
            return Err(NotFed::Taken);
        }
        self.note(number, observer.directory_id, wants_vote, is_known);
        let change = async |change| change_members(raft, change).await.map_err(|()| NotFed::Now);
        if !outdated.is_empty() {
            change(ChangeMembers::RemoveNodes(outdated)).await?;
        }
        change(ChangeMembers::AddNodes(BTreeMap::from([(number, observer)]))).await?;
        tracing::info!(observer = %id, "a node follows the metadata log without a vote");
        Ok(())
    }

    /// Whether an observer has answered lately, or asked. One that stands still for a moment does neither, and must not
    /// lose its place to another node for that.
    fn lives(&self, raft: &QuorumRaft, number: i32, directory_id: Uuid) -> bool {
        let (_, silent_for) = progress(&raft.data_metrics().borrow_watched(), number);
        let asked = self.asked.lock().get(&number).copied();
        let asked = asked.filter(|asked| asked.directory_id == directory_id);
        asked.map_or(silent_for, |asked| asked.at.elapsed().min(silent_for)) < GONE_AFTER
    }

    fn note(&self, number: i32, directory_id: Uuid, wants_vote: Option<bool>, is_known: bool) {
        let mut asked = self.asked.lock();
        let it = asked.entry(number).or_insert_with(|| Asked::now(directory_id));
        (it.at, it.directory_id) = (Instant::now(), directory_id);
        it.wants_vote = wants_vote.unwrap_or(it.wants_vote);
        if !is_known {
            it.target = None;
        }
    }

    /// Up to where an observer that wants a vote has to have the log; `last` is where it ends now.
    pub(crate) fn target(&self, number: i32, last: Option<u64>) -> Option<Option<u64>> {
        let mut asked = self.asked.lock();
        let it = asked.get_mut(&number).filter(|it| it.wants_vote)?;
        Some(*it.target.get_or_insert(last))
    }

    /// Whoever has not caught up in time after all has to reach where the log ends now before that is tried again.
    pub(crate) fn forget_targets(&self) {
        self.asked.lock().values_mut().for_each(|it| it.target = None);
    }

    /// Why those who want a vote have none; returns whether that is new.
    pub(crate) fn waits(&self, wait: Option<Wait>) -> bool {
        std::mem::replace(&mut *self.wait.lock(), wait) != wait
    }

    /// Lets go of observers that have not asked for too long. Those of a leader that has just begun have their time, too.
    async fn forget(&self, raft: &QuorumRaft) {
        let _turn = self.changing.lock().await;
        let silent: Vec<i32> = {
            let mut asked = self.asked.lock();
            let members = members(raft);
            asked.retain(|number, _| members.get_node(number).is_some());
            let mut is_silent = |number: &i32| {
                let directory_id =
                    members.get_node(number).map_or(Uuid::ZERO, |it| it.directory_id);
                let asked = asked.entry(*number).or_insert_with(|| Asked::now(directory_id));
                asked.at.elapsed() > FORGOTTEN_AFTER
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

/// Has the log name the place where a voter is now, in the turn of whoever calls. It does nothing where the log names that
/// place already, or another directory, or no places at all.
pub(crate) async fn move_here(raft: &QuorumRaft, id: BrokerId, moved: &Voter) -> Result<(), ()> {
    let Lead { members, unchanged } = lead(raft).ok_or(())?;
    if !has_moved(&members, id, moved) || members.get_joint_config().len() != 1 {
        return Ok(());
    }
    let change = ChangeMembers::SetNodes(BTreeMap::from([(id.0, as_in_log(moved))]));
    raft.change_membership_if(change, true, [unchanged]).await.map_err(|error| {
        tracing::debug!(%error, "a voter's place was not changed");
    })?;
    let place = moved.endpoints.first();
    let place = place.map(|it| format!("{}:{}", it.host, it.port)).unwrap_or_default();
    tracing::info!(voter = %id, place, "a voter is reached at another place than before");
    Ok(())
}

/// Whether a voter of this directory is at other places than the log names.
fn has_moved(members: &Membership, id: BrokerId, there: &Voter) -> bool {
    let known = members.get_node(&id.0).filter(|_| is_voter(members, id.0));
    let is_it = |known: &&Voter| {
        known.directory_id == there.directory_id && there.directory_id != Uuid::ZERO
    };
    known.filter(is_it).is_some_and(|known| {
        !there.endpoints.is_empty() && as_in_log(known).endpoints != as_in_log(there).endpoints
    })
}

/// Where a voter says that it is. A guess may be a name that only its own machine knows, and voters that each replace
/// what somebody has written by such a name don't find each other any more: it stays where the log says that it is.
/// A lone voter has nobody to lose.
fn told_place(members: &Membership, id: BrokerId, there: &Voter, is_guessed: bool) -> Voter {
    let counts = !is_guessed || members.voter_ids().eq([id.0]) || !has_moved(members, id, there);
    let known = members.get_node(&id.0).filter(|known| !counts && !known.endpoints.is_empty());
    known.unwrap_or(there).clone()
}

/// The log does not tell by what protocol a member is reached.
fn as_in_log(voter: &Voter) -> Voter {
    let endpoints = voter.endpoints.iter().cloned();
    let endpoints = endpoints.map(|it| Endpoint { security_protocol: 0, ..it });
    Voter { directory_id: voter.directory_id, endpoints: endpoints.collect() }
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
    /// Whether nobody has written down where that is.
    pub(crate) is_guessed: bool,
    pub(crate) wants_vote: bool,
    /// Where to ask, beside the leader and the voters that the log names.
    pub(crate) contacts: Vec<Endpoint>,
}

/// What an attendant remembers.
#[derive(Debug, Default)]
struct Memory {
    /// When it asked last to be fed.
    asked: Option<Instant>,
    /// Since when this node leads, if it does.
    led_since: Option<Instant>,
    /// The voters that were last said to be.
    voters: Vec<Member>,
    /// What it was last told about its wish for a vote.
    wait: Option<Wait>,
}

impl Attendance {
    /// Runs until it is dropped, or the quorum has stopped.
    pub(crate) async fn run(self) {
        let mut server = self.raft.server_metrics();
        let mut memory = Memory { voters: self.voters_in_log(), ..Memory::default() };
        loop {
            let (members, leads) = {
                let server = server.borrow_and_update();
                if server.membership_config.log_id() == server.committed_membership_config.log_id()
                {
                    memory.say_voters(server.membership_config.membership());
                }
                (server.membership_config.membership().clone(), server.state.is_leader())
            };
            let pause = if leads {
                self.lead(&members, &mut memory).await
            } else {
                memory.led_since = None;
                self.follow(&members, &mut memory).await
            };
            let ended = tokio::select! {
                biased;
                changed = server.changed() => changed.is_err(),
                () = until(pause.map(|it| Instant::now() + it)) => false,
            };
            if ended {
                return;
            }
        }
    }

    fn voters_in_log(&self) -> Vec<Member> {
        self.service.storage.voters().map(|members| voters(&members)).unwrap_or_default()
    }

    /// Looks after the members. Returns when to look again.
    async fn lead(&self, members: &Membership, memory: &mut Memory) -> Option<Duration> {
        let led_for = memory.led_since.get_or_insert_with(Instant::now).elapsed();
        memory.wait = None;
        self.service.observers.forget(&self.raft).await;
        let here = self.told_place(members);
        if has_moved(members, self.service.node_id, &here) && !self.move_myself(&here).await {
            return Some(LOOKING_INTERVAL);
        }
        if members.get_joint_config().len() > 1 {
            if let Err(error) = finish(&self.raft).await {
                tracing::debug!(%error, "a change of the voters is not finished yet");
            }
            return Some(LOOKING_INTERVAL);
        }
        let changes = Changes { raft: &self.raft, service: &self.service };
        match changes.grow(led_for).await {
            Grown::Growing => Some(LOOKING_INTERVAL),
            Grown::Settled => members.learner_ids().next().map(|_| ASKING_INTERVAL),
        }
    }

    /// Whether the log names the place where this leader is now.
    async fn move_myself(&self, here: &Voter) -> bool {
        let _turn = self.service.observers.changing.lock().await;
        move_here(&self.raft, self.service.node_id, here).await.is_ok()
    }

    fn told_place(&self, members: &Membership) -> Voter {
        told_place(members, self.service.node_id, &self.myself, self.is_guessed)
    }

    /// Sees to it that this node is fed. Returns when to look again.
    async fn follow(&self, members: &Membership, memory: &mut Memory) -> Option<Duration> {
        if is_voter(members, self.service.node_id.0) {
            memory.wait = None;
            return self.ask_as_voter(members, memory).await;
        }
        let is_fed = self.service.hears_a_leader()
            && memory.asked.is_some_and(|asked| asked.elapsed() < ASKING_INTERVAL);
        if is_fed {
            return Some(LOOKING_INTERVAL);
        }
        match self.ask_somebody(members).await {
            Some(Answer::Fed { wait }) => {
                memory.asked = Some(Instant::now());
                self.service.is_id_taken.store(false, Ordering::Relaxed);
                memory.say_wait(wait, members);
            }
            Some(Answer::Taken) => self.say_taken(),
            _ => {}
        }
        Some(LOOKING_INTERVAL)
    }

    /// A voter that was away may have lost its vote meanwhile: nobody tells it, and its own log still gives it one. Who
    /// leads feeds it as an observer if it asks, and does nothing for a voter, but for one that is at another place than
    /// the log names. Returns when to look again.
    async fn ask_as_voter(&self, members: &Membership, memory: &mut Memory) -> Option<Duration> {
        if !is_by_directory(members) {
            return None;
        }
        let moved = has_moved(members, self.service.node_id, &self.told_place(members));
        if !moved {
            memory.asked.get_or_insert_with(Instant::now);
        }
        let is_due = memory.asked.is_none_or(|asked| asked.elapsed() >= ASKING_INTERVAL);
        if is_due && (moved || !self.service.hears_a_leader()) {
            memory.asked = Some(Instant::now());
            self.ask_somebody(members).await;
        }
        Some(ASKING_INTERVAL)
    }

    fn say_taken(&self) {
        if !self.service.is_id_taken.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                node = %self.service.node_id,
                "this node does not get the metadata: another node with its id, and other directories, is in the cluster; \
                 give one of them another node.id, or stop it"
            );
        }
    }

    /// The leader's answer, if it has been found: that this node is fed, or that another one of its id is.
    async fn ask_somebody(&self, members: &Membership) -> Option<Answer> {
        let leader = leads_elsewhere(&self.raft).flatten();
        let known = leader.map(|id| self.peers.endpoints_of(id, members));
        let voters = members.voter_ids().map(|id| self.peers.endpoints_of(BrokerId(id), members));
        let contacts = self.contacts.iter().map(|it| vec![it.clone()]);
        let mut tried: Vec<Vec<Endpoint>> = Vec::new();
        for place in known.into_iter().chain(voters).chain(contacts) {
            if place.is_empty() || tried.contains(&place) {
                continue;
            }
            match self.ask(&place, members).await {
                Some(answer @ (Answer::Fed { .. } | Answer::Taken)) => return Some(answer),
                Some(Answer::Leader { leader: Some(id), endpoints }) => {
                    let told = if endpoints.is_empty() {
                        self.peers.endpoints_of(id, members)
                    } else {
                        endpoints
                    };
                    if !tried.contains(&told)
                        && let Some(answer @ (Answer::Fed { .. } | Answer::Taken)) =
                            self.ask(&told, members).await
                    {
                        return Some(answer);
                    }
                    tried.push(told);
                }
                _ => {}
            }
            tried.push(place);
        }
        None
    }

    async fn ask(&self, place: &[Endpoint], members: &Membership) -> Option<Answer> {
        let observer = self.told_place(members);
        let request = Request::Observe { observer, wants_vote: self.wants_vote };
        match self.peers.ask_at(BrokerId(ANYBODY), place, &request, PATIENCE).await {
            Ok(answer) => Some(answer),
            Err(why) => {
                tracing::debug!(at = ?place.first(), why, "nobody to follow there");
                None
            }
        }
    }
}

impl Memory {
    fn say_voters(&mut self, members: &Membership) {
        let voters = voters(members);
        if members.get_joint_config().len() != 1 || voters == self.voters {
            return;
        }
        let ids: Vec<String> = voters.iter().map(|voter| voter.id.to_string()).collect();
        tracing::info!("the voters are now {}", ids.join(", "));
        self.voters = voters;
    }

    fn say_wait(&mut self, wait: Option<Wait>, members: &Membership) {
        if std::mem::replace(&mut self.wait, wait) == wait {
            return;
        }
        match wait {
            Some(Wait::ForAnother) => {
                tracing::info!("this node has no vote: {}", for_another(voters(members).len()));
            }
            Some(Wait::Enough) => {
                tracing::info!(
                    "this node has no vote: there are enough voters, more are added by hand"
                );
            }
            None => {}
        }
    }
}

fn voters(members: &Membership) -> Vec<Member> {
    ordered(members, true).into_iter().map(|(_, voter)| voter).collect()
}

/// Voters, or observers, with openraft's numbers, ordered by their ids.
pub(crate) fn ordered(members: &Membership, voters: bool) -> Vec<(i32, Member)> {
    let chosen = members.nodes().filter(|(number, _)| is_voter(members, **number) == voters);
    let member = |(number, voter): (&i32, &Voter)| {
        let id = BrokerId(node_id(*number));
        (*number, Member { id, directory_id: voter.directory_id })
    };
    let mut all: Vec<_> = chosen.map(member).collect();
    all.sort_by_key(|(_, member)| member.id);
    all
}
