//! What a voter does for the others: answers their requests. Shell.
//!
//! Invariants: nothing is done for a sender who means another cluster, another node or another log; and a node without a log
//! does nothing for one who means whoever has its id.

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::RaftState;
use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use ottla_base::{BrokerId, Uuid};
use ottla_metadata::Endpoint;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::controller::QuorumRaft;
use crate::members::ANYBODY;
use crate::observers::{Observers, is_voter};
use crate::raft::TypeConfig;
use crate::refusals::Refusals;
use crate::snapshot::transfer::Inbox;
use crate::storage::Storage;
use crate::wire::{self, Address, Answer, Refusal, Request};

/// A request of another voter's was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The bytes are not a request: the connection they came over is of no use.
    #[error("not a voter's request: {0}")]
    Malformed(String),
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) cluster_id: String,
    pub(crate) node_id: BrokerId,
    pub(crate) storage: Storage,
    /// How long a leader that was heard of is believed to live.
    pub(crate) lease: Duration,
    pub(crate) heard: Heard,
    pub(crate) inbox: Inbox,
    pub(crate) observers: Observers,
    /// Brokers that the controller here refuses, and nodes that it does not feed.
    pub(crate) refusals: Refusals,
    /// Whether this node does not get the metadata, as another node with its id does.
    pub(crate) is_id_taken: AtomicBool,
}

/// When a leader was heard of, and when it was last taken for gone.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<HeardAt>);

#[derive(Debug, Default)]
struct HeardAt {
    heard: Option<Instant>,
    lost: Option<Instant>,
}

impl Heard {
    /// The leader is gone, as far as this node can tell.
    pub(crate) fn lost(&self) {
        *self.0.lock() = HeardAt { heard: None, lost: Some(Instant::now()) };
    }

    /// Something came from the leader; it may have taken time to deal with.
    fn note(&self, received: Instant) {
        let mut at = self.0.lock();
        if at.lost.is_none_or(|lost| lost < received) {
            at.heard = at.heard.max(Some(received));
        }
    }

    fn within(&self, lease: Duration) -> bool {
        self.0.lock().heard.is_some_and(|heard| heard.elapsed() < lease)
    }
}

impl Service {
    fn say_twin(&self, id: BrokerId, endpoints: &[Endpoint]) {
        let at: Vec<_> = endpoints.iter().map(|it| format!("{}:{}", it.host, it.port)).collect();
        let at = at.join(", ");
        if self.refusals.is_due(id, &at, Instant::now()) {
            tracing::warn!(
                node = %id,
                at,
                "a node does not get the metadata: another node with its id, and other directories, is in the cluster"
            );
        }
    }

    fn say_empty(&self) {
        if self.refusals.is_due(self.node_id, "its log is empty", Instant::now()) {
            tracing::warn!(
                node = %self.node_id,
                "this node has no vote and gets no metadata: the others know a voter of its id by that alone \
                 (controller.quorum.voters), and its own log is empty. Give it a node.id of its own; or, if it is that voter \
                 and has lost its disk, see operations.md, \"A wiped disk\""
            );
        }
    }

    pub(crate) async fn serve(
        &self,
        raft: &QuorumRaft,
        request: Bytes,
    ) -> Result<Bytes, ServeError> {
        let malformed = |error: wire::WireError| ServeError::Malformed(error.to_string());
        let (address, request) = wire::decode_request(request).map_err(malformed)?;
        let answer = match self.screen(&address, &request) {
            Ok(()) => self.answer(raft, &address, request).await?,
            Err(refusal) => {
                if refusal == Refusal::Empty {
                    self.say_empty();
                }
                Answer::Refused(refusal)
            }
        };
        wire::encode_answer(&answer).map_err(malformed)
    }

    fn screen(&self, address: &Address, request: &Request) -> Result<(), Refusal> {
        let is_observer = matches!(request, Request::Observe { .. });
        if address.cluster_id != *self.cluster_id {
            return Err(Refusal::Cluster);
        }
        let is_meant = address.receiver == self.node_id
            || (is_observer && address.receiver == BrokerId(ANYBODY));
        if !is_meant {
            return Err(Refusal::Receiver);
        }
        let directory_id = self.storage.myself().directory_id;
        if ![Uuid::ZERO, directory_id].contains(&address.receiver_directory) {
            return Err(Refusal::Directory);
        }
        // Every voter that is known by its id alone has written the first entry itself, before anybody reaches it. This node
        // is none by its own configuration, as a voter may look that has lost its disk, and with it whom it voted for.
        let is_meant_by_id = !is_observer && address.receiver_directory == Uuid::ZERO;
        if is_meant_by_id && self.storage.last_index().is_none() {
            return Err(Refusal::Empty);
        }
        let is_another = address.sender != self.node_id;
        let is_heard = match request {
            // A twin is told that it is one. Whoever asks at an address of its own is none.
            Request::Observe { observer, .. } => {
                is_another || observer.directory_id != directory_id
            }
            Request::Vote(_)
            | Request::PreVote(_)
            | Request::Append(_)
            | Request::TransferLeader(_)
            | Request::Piece(_) => is_another && self.may_vote(address.sender),
        };
        if !is_heard {
            return Err(Refusal::Sender);
        }
        match address.origin.zip(self.storage.origin()) {
            Some((theirs, ours)) if theirs != ours => Err(Refusal::Origin),
            _ => Ok(()),
        }
    }

    /// Where voters are known by their ids alone, those never change. Where they are known by their directories, a
    /// voter may be newer than this node's log.
    fn may_vote(&self, id: BrokerId) -> bool {
        self.storage.voters().is_none_or(|voters| {
            is_voter(&voters, id.0)
                || voters.nodes().all(|(_, voter)| voter.directory_id != Uuid::ZERO)
        })
    }

    /// Whether a leader was heard of lately.
    pub(crate) fn hears_a_leader(&self) -> bool {
        self.heard.within(self.lease)
    }

    async fn answer(
        &self,
        raft: &QuorumRaft,
        address: &Address,
        request: Request,
    ) -> Result<Answer, ServeError> {
        let stopped = |error: &dyn ToString| ServeError::Stopped(error.to_string());
        Ok(match request {
            Request::Vote(vote) => {
                Answer::Vote(raft.vote(vote).await.map_err(|error| stopped(&error))?)
            }
            Request::PreVote(vote) => Answer::Vote(self.pre_vote(raft, vote).await?),
            Request::Append(append) => Answer::Append(self.append(raft, append).await?),
            Request::TransferLeader(transfer) => {
                let accepted = raft.handle_transfer_leader(transfer).await;
                let accepted = accepted.map_err(|error| stopped(&error))?.is_ok();
                Answer::TransferLeader { accepted }
            }
            Request::Piece(piece) => self.inbox.take(raft, &self.storage, piece).await?,
            Request::Observe { observer, wants_vote } => {
                let at = observer.endpoints.clone();
                let answer = self.observers.feed(raft, address.sender, observer, wants_vote).await;
                if answer == Answer::Taken {
                    self.say_twin(address.sender, &at);
                }
                answer
            }
        })
    }

    async fn append(
        &self,
        raft: &QuorumRaft,
        mut append: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, ServeError> {
        let received = Instant::now();
        let myself = self.storage.myself();
        append.entries = append.entries.into_iter().map(|entry| myself.sees_in(entry)).collect();
        let response = match append.entries.is_empty() {
            true => self.follow(raft, append).await,
            false => raft.append_entries(append).await,
        };
        let response = response.map_err(|error| ServeError::Stopped(error.to_string()))?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.heard.note(received);
        }
        Ok(response)
    }

    /// Answers a leader that sends no entries, as a heartbeat does, once it is followed and what it asks about is on disk.
    ///
    /// openraft answers when everything that it has accepted is on disk, which on a disk that stands still is too late for
    /// whoever only wants to know whether it still leads. What an answer says is less: that the leader's vote is this node's,
    /// and that the log has `prev_log_id` and all before.
    async fn follow(
        &self,
        raft: &QuorumRaft,
        append: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>> {
        let (vote, upto, storage) = (append.vote, append.prev_log_id, self.storage.clone());
        let mut answer = pin!(raft.append_entries(append));
        // Asked after it, and so seen after it: who knows of a later leader, or has another entry there, has said so.
        let is_seen = async {
            let (seen, is_seen) = oneshot::channel();
            let look = move |state: &RaftState<TypeConfig>| {
                let is_durable = *state.vote_ref() == vote && storage.is_durable(&vote, upto);
                // Nobody waits for this any more where the answer was quicker.
                let _ = seen.send(is_durable);
            };
            raft.external_request(look).await.map_err(RaftError::Fatal)?;
            // An error means that openraft has stopped, which the answer says, too.
            Ok::<_, RaftError<TypeConfig>>(is_seen.await.unwrap_or(false))
        };
        let is_seen = tokio::select! {
            biased;
            answer = &mut answer => return answer,
            is_seen = is_seen => is_seen?,
        };
        if let Some(answer) = answer.as_mut().now_or_never() {
            return answer;
        }
        if is_seen {
            return Ok(AppendEntriesResponse::Success);
        }
        answer.await
    }

    /// openraft forgets for the rest of a term that it has heard of a leader once it was told that the leader is gone,
    /// even if that was a mistake: it is remembered here.
    async fn pre_vote(
        &self,
        raft: &QuorumRaft,
        vote: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, ServeError> {
        let response = raft.pre_vote(vote).await;
        let mut response = response.map_err(|error| ServeError::Stopped(error.to_string()))?;
        response.vote_granted &= !self.heard.within(self.lease);
        Ok(response)
    }
}
