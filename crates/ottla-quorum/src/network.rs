//! The way to other voters: openraft's network on a [`Transport`]. Shell.
//!
//! Every call has an end: a voter that does not answer in time is unreachable, and is asked again a little later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use ottla_base::{BrokerId, LeaderEpoch, Uuid};
use ottla_metadata::Endpoint;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::members;
use crate::raft::{Membership, TypeConfig, Voter};
use crate::snapshot::store::Checkpoint;
use crate::snapshot::transfer;
use crate::storage::Storage;
use crate::transport::{Lane, Transport};
use crate::wire::{self, Address, Answer, Request, WireError};

pub(crate) type CallError = Unreachable<TypeConfig>;

/// Makes the ways to single voters.
#[derive(Debug, Clone)]
pub(crate) struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setup: Setup,
    said: Mutex<Said>,
    caught_up: Mutex<BTreeMap<i32, CaughtUp>>,
}

/// When a member had the leader's whole log, for the last time that is known, and in whose epoch.
#[derive(Debug, Clone, Copy)]
struct CaughtUp {
    term: i32,
    at: Instant,
}

/// A moment, and the last entry that this node had then.
#[derive(Debug, Clone, Copy)]
struct Extent {
    at: Instant,
    last: Option<u64>,
}

impl Extent {
    /// When a member was caught up that says now that it has the log up to an entry: also one that has all that there was
    /// when it said so the time before, however much has been written since. As in Kafka's `LeaderState`.
    fn caught_up_at(self, before: Option<Self>, matched: Option<u64>) -> Option<Instant> {
        let reached = |extent: &Self| matched >= extent.last;
        [Some(self), before].into_iter().flatten().find(reached).map(|extent| extent.at)
    }
}

/// Why members were not reached, as far as it was said in the log: each reason once, until the member answers again. One
/// that is gone is found to be so in several ways in turn, many times a minute.
#[derive(Debug, Default)]
struct Said(BTreeMap<i32, BTreeSet<String>>);

impl Said {
    /// Whether this is to be said.
    fn is_news(&mut self, member: i32, outcome: Result<(), &str>) -> bool {
        match outcome {
            Ok(()) => self.0.remove(&member).is_some(),
            Err(why) => self.0.entry(member).or_default().insert(why.to_owned()),
        }
    }
}

/// What a node knows before it asks others anything.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) cluster_id: ByteString,
    pub(crate) node_id: BrokerId,
    pub(crate) storage: Storage,
    /// Where voters are whose addresses the log does not tell.
    pub(crate) addresses: BTreeMap<i32, Vec<Endpoint>>,
    /// How long entries may be under way: the other disk's flush is part of it.
    pub(crate) append_patience: Duration,
    /// The longest pause before a voter is tried again.
    pub(crate) pause_max: Duration,
}

impl Setup {
    /// Where a member is: what the log says, or the configuration where that says nothing.
    fn endpoints<'a>(&'a self, number: i32, in_log: &'a [Endpoint]) -> &'a [Endpoint] {
        match in_log {
            [] => self.addresses.get(&number).map_or(&[], |endpoints| &**endpoints),
            endpoints => endpoints,
        }
    }
}

impl Peers {
    pub(crate) fn new(setup: Setup) -> Self {
        Self(Arc::new(Shared { setup, said: Mutex::default(), caught_up: Mutex::default() }))
    }

    /// Where a voter is, by the log or by the configuration.
    pub(crate) fn endpoints_of(&self, id: BrokerId, members: &Membership) -> Vec<Endpoint> {
        let in_log = members.get_node(&id.0).map_or(&[][..], |it| &it.endpoints);
        self.0.setup.endpoints(id.0, in_log).to_vec()
    }

    /// When a member had the whole log of this node for the last time, as far as is known from this epoch.
    pub(crate) fn caught_up_at(&self, member: i32, epoch: LeaderEpoch) -> Option<Instant> {
        let caught_up = self.0.caught_up.lock().get(&member).copied();
        caught_up.filter(|it| it.term == epoch.0).map(|it| it.at)
    }

    /// Asks whoever is at an address, whatever log it has.
    pub(crate) async fn ask_at(
        &self,
        id: BrokerId,
        endpoints: &[Endpoint],
        request: &Request,
        patience: Duration,
    ) -> Result<Answer, String> {
        let voter = Voter { directory_id: Uuid::ZERO, endpoints: endpoints.to_vec() };
        let shared = Arc::clone(&self.0);
        Peer { shared, id: id.0, voter, is_for_heartbeats: false, acknowledged: None }
            .call(request, patience)
            .await
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: i32, voter: &Voter) -> Peer {
        let shared = Arc::clone(&self.0);
        Peer {
            shared,
            id: target,
            voter: voter.clone(),
            is_for_heartbeats: false,
            acknowledged: None,
        }
    }

    async fn new_heartbeat_client(&mut self, target: i32, voter: &Voter) -> Peer {
        Peer { is_for_heartbeats: true, ..self.new_client(target, voter).await }
    }
}

/// The way to one voter.
#[derive(Debug)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
    id: i32,
    voter: Voter,
    is_for_heartbeats: bool,
    /// When it last said how far it is.
    acknowledged: Option<Extent>,
}

impl Peer {
    pub(crate) async fn ask(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let answer = self.call(&request, patience).await;
        self.note(&answer);
        answer.map_err(CallError::from_string)
    }

    async fn call(&self, request: &Request, patience: Duration) -> Result<Answer, String> {
        let setup = &self.shared.setup;
        let lane = self.lane_of(request);
        let address = Address {
            cluster_id: setup.cluster_id.clone(),
            sender: setup.node_id,
            receiver: BrokerId(members::node_id(self.id)),
            receiver_directory: self.voter.directory_id,
            origin: setup.storage.origin(),
        };
        let garbled = |error: WireError| error.to_string();
        let request = wire::encode_request(&address, request).map_err(garbled)?;
        // openraft keeps this way to a voter for as long as it leads, wherever that voter moves.
        let newest = setup.storage.endpoints_of(self.id, self.voter.directory_id);
        let in_log = newest.as_deref().unwrap_or(&self.voter.endpoints);
        let endpoints = setup.endpoints(self.id, in_log);
        let call = setup.transport.call(address.receiver, endpoints, lane, request);
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let answer = wire::decode_answer(answer).map_err(garbled)?;
        if let Answer::Refused(refusal) = answer {
            return Err(format!("it refuses this node's requests: {refusal}"));
        }
        Ok(answer)
    }

    const fn lane_of(&self, request: &Request) -> Lane {
        match request {
            Request::Vote(_) | Request::PreVote(_) => Lane::Leadership,
            Request::Append(_) if self.is_for_heartbeats => Lane::Leadership,
            // A leader that hands over wants whoever takes over to have its entries first.
            Request::Append(_)
            | Request::TransferLeader(_)
            | Request::Piece(_)
            | Request::Observe { .. } => Lane::Log,
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.shared.setup.storage
    }

    /// How long entries, or a piece of a snapshot, may be under way.
    pub(crate) fn patience(&self) -> Duration {
        self.shared.setup.append_patience
    }

    fn note(&self, answer: &Result<Answer, String>) {
        let outcome = answer.as_ref().map(|_| ()).map_err(|why| &**why);
        if !self.shared.said.lock().is_news(self.id, outcome) {
            return;
        }
        let node = members::node_id(self.id);
        match outcome {
            Ok(()) => tracing::info!(node, "a node of the quorum is reachable again"),
            Err(why) => tracing::info!(node, why, "a node of the quorum cannot be reached"),
        }
    }

    /// It has the log up to an entry.
    fn note_progress(&mut self, term: i32, matched: Option<u64>) {
        let now = Extent { at: Instant::now(), last: self.storage().last_index() };
        if let Some(at) = now.caught_up_at(self.acknowledged.replace(now), matched) {
            let mut caught_up = self.shared.caught_up.lock();
            // Heartbeats and entries go there beside each other.
            match caught_up.get_mut(&self.id).filter(|known| known.term == term) {
                Some(known) => known.at = known.at.max(at),
                None => _ = caught_up.insert(self.id, CaughtUp { term, at }),
            }
        }
    }

    async fn vote_with(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer = self.ask(request, option.soft_ttl()).await?;
        let Answer::Vote(response) = answer else { return Err(unfitting(&answer).into()) };
        Ok(response)
    }
}

pub(crate) fn unfitting(answer: &Answer) -> CallError {
    CallError::from_string(format!("an answer to something else: {answer:?}"))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let patience = if self.is_for_heartbeats { option.soft_ttl() } else { self.patience() };
        let term = rpc.vote.leader_id.term;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let answer = self.ask(Request::Append(rpc), patience).await?;
        let Answer::Append(response) = answer else { return Err(unfitting(&answer).into()) };
        if response == AppendEntriesResponse::Success {
            self.note_progress(term, last.map(|last| last.index()));
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_with(Request::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_with(Request::PreVote(rpc), &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer = self.ask(Request::TransferLeader(request), option.soft_ttl()).await?;
        if answer == (Answer::TransferLeader { accepted: true }) {
            return Ok(Ok(()));
        }
        Err(CallError::from_string("it does not take over").into())
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Checkpoint>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = transfer::send(self, vote, &snapshot.snapshot) => Ok(sent?),
        }
    }

    /// Twice as long each time, so that a voter that is back has the entries soon.
    fn backoff(&self) -> Option<Backoff> {
        const FIRST: Duration = Duration::from_millis(10);
        let pause_max = self.shared.setup.pause_max;
        let pauses = std::iter::successors(Some(FIRST), |pause| Some(*pause * 2))
            .take_while(move |pause| *pause < pause_max);
        Some(Backoff::new(pauses.chain(std::iter::repeat(pause_max))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_member_cannot_be_reached_is_said_once_however_often_the_reasons_take_turns() {
        let mut said = Said::default();
        let (silent, refused) = (Err("no answer in time"), Err("connection refused"));
        assert!(!said.is_news(1, Ok(())), "it has answered all the time");
        let tries = [silent, refused, silent, refused, silent];
        assert_eq!(tries.map(|it| said.is_news(1, it)), [true, true, false, false, false]);
        assert!(said.is_news(2, silent), "another one");
        assert_eq!([(); 2].map(|()| said.is_news(1, Ok(()))), [true, false]);
        assert!(said.is_news(1, silent), "the next time");
    }

    #[test]
    fn a_member_that_has_what_there_was_the_last_time_is_caught_up_though_more_was_written() {
        let begin = Instant::now();
        let after = |seconds, last| Extent { at: begin + Duration::from_secs(seconds), last };
        let (before, now) = (after(1, Some(10)), after(2, Some(20)));
        assert_eq!(now.caught_up_at(Some(before), Some(20)), Some(now.at));
        assert_eq!(now.caught_up_at(Some(before), Some(10)), Some(before.at));
        assert_eq!(now.caught_up_at(Some(before), Some(9)), None);
        assert_eq!(now.caught_up_at(None, Some(10)), None);
        assert_eq!(after(3, Some(0)).caught_up_at(None, None), None);
    }
}
