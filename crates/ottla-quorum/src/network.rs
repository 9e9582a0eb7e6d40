//! The way to other voters: openraft's network on a [`Transport`]. Shell.
//!
//! Every call has an end: a voter that does not answer in time is unreachable, and is asked again a little later.

use std::collections::BTreeMap;
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
use ottla_base::{BrokerId, Uuid};
use ottla_metadata::Endpoint;
use parking_lot::Mutex;

use crate::members;
use crate::raft::{Membership, TypeConfig, Voter};
use crate::snapshot::store::Checkpoint;
use crate::snapshot::transfer;
use crate::storage::Storage;
use crate::transport::Transport;
use crate::wire::{self, Address, Answer, Request, WireError};

pub(crate) type CallError = Unreachable<TypeConfig>;

/// Makes the ways to single voters.
#[derive(Debug, Clone)]
pub(crate) struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setup: Setup,
    /// What was last said in the log about each voter.
    states: Mutex<BTreeMap<i32, String>>,
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
        Self(Arc::new(Shared { setup, states: Mutex::default() }))
    }

    /// Where a voter is, by the log or by the configuration.
    pub(crate) fn endpoints_of(&self, id: BrokerId, members: &Membership) -> Vec<Endpoint> {
        let in_log = members.get_node(&id.0).map_or(&[][..], |it| &it.endpoints);
        self.0.setup.endpoints(id.0, in_log).to_vec()
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
        Peer { shared, id: id.0, voter, is_for_heartbeats: false }.call(request, patience).await
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: i32, voter: &Voter) -> Peer {
        let shared = Arc::clone(&self.0);
        Peer { shared, id: target, voter: voter.clone(), is_for_heartbeats: false }
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
        let call = setup.transport.call(address.receiver, endpoints, request);
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no answer in {} ms", patience.as_millis())),
        };
        let answer = wire::decode_answer(answer).map_err(garbled)?;
        if let Answer::Refused(refusal) = answer {
            return Err(format!("it refuses this node's requests: {refusal}"));
        }
        Ok(answer)
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.shared.setup.storage
    }

    /// How long entries, or a piece of a snapshot, may be under way.
    pub(crate) fn patience(&self) -> Duration {
        self.shared.setup.append_patience
    }

    /// Says it once when a voter cannot be reached any more, for whatever reason, and once when it can be again.
    fn note(&self, answer: &Result<Answer, String>) {
        let mut states = self.shared.states.lock();
        let was = states.get(&self.id).map_or("", |state| &**state);
        match answer {
            Ok(_) if was.is_empty() => return,
            Ok(_) => tracing::info!(voter = self.id, "the voter is reachable again"),
            Err(why) if was == why => return,
            Err(why) => tracing::info!(voter = self.id, why, "the voter cannot be reached"),
        }
        states.insert(self.id, answer.as_ref().err().cloned().unwrap_or_default());
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
        let answer = self.ask(Request::Append(rpc), patience).await?;
        let Answer::Append(response) = answer else { return Err(unfitting(&answer).into()) };
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
