//! The active controller: decides on what was appended, replies when that is committed. Shell.
//!
//! One task owns the *speculative* image: the committed one, and on top of it every record that was proposed and is
//! not committed yet. So many requests are in flight at once, and no two of them see the same state. Whenever a
//! proposal fails, or another leader epoch begins, the speculative image is dropped for the committed one.
//!
//! Invariant: while `epoch` is set, every decision is proposed in that epoch, and openraft appends it in no other.

mod request;
mod waiting;

use std::sync::Arc;

use openraft::Raft;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use ottla_base::{LeaderEpoch, Offset};
use ottla_env::Clock;
use ottla_log::Log;
use ottla_metadata::controller::{self, Draw, Policy};
use ottla_metadata::{Image, Outcome, record};
use tokio::sync::{mpsc, watch};

pub use request::{Desk, SubmitError};
pub(crate) use request::{Request, Submitted};
use waiting::{Respond, Waiting};

use crate::raft::{CommittedLeaderId, Completion, Proposal, TypeConfig, Verdict};
use crate::state_machine::{Applied, StateMachine};

pub(crate) type QuorumRaft = Raft<TypeConfig, StateMachine>;

/// What the controller needs to work.
pub(crate) struct Parts {
    pub(crate) raft: QuorumRaft,
    pub(crate) log: Arc<Log>,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) policy: Policy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) draw: Box<dyn Draw + Send>,
}

/// The controller's handle: where requests go, and in which epoch it is active.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) requests: mpsc::Sender<Box<dyn Request>>,
    pub(crate) active: watch::Receiver<Option<LeaderEpoch>>,
}

/// Requests that wait to be looked at; more than this make their senders wait.
const REQUESTS_MAX: usize = 1024;

pub(crate) struct Controller {
    parts: Parts,
    server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    requests: mpsc::Receiver<Box<dyn Request>>,
    failures: mpsc::UnboundedReceiver<LeaderEpoch>,
    failed: mpsc::UnboundedSender<LeaderEpoch>,
    active: watch::Sender<Option<LeaderEpoch>>,
    /// The epoch in which this node is the active controller.
    epoch: Option<LeaderEpoch>,
    /// The last epoch in which a proposal failed: it is not led any more, whatever openraft still says.
    lost: LeaderEpoch,
    speculative: Image,
    /// The offset that the next proposal's first record will have.
    next_offset: Offset,
    /// The replies that hang on the last proposal.
    last: Waiting,
}

impl Controller {
    /// Starts the task. It ends when the last handle is gone, or openraft has stopped.
    pub(crate) fn start(parts: Parts) -> Handle {
        let (requests_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (failed, failures) = mpsc::unbounded_channel();
        let (active, active_receiver) = watch::channel(None);
        let speculative = Image::clone(&parts.applied.borrow().image);
        let controller = Self {
            server: parts.raft.server_metrics(),
            speculative,
            parts,
            requests,
            failures,
            failed,
            active,
            epoch: None,
            lost: LeaderEpoch(-1),
            next_offset: Offset::ZERO,
            last: Waiting::done(),
        };
        tokio::spawn(controller.run());
        Handle { requests: requests_sender, active: active_receiver }
    }

    async fn run(mut self) {
        loop {
            self.observe_leadership().await;
            tokio::select! {
                biased;
                Some(epoch) = self.failures.recv() => self.step_down(epoch),
                changed = self.server.changed() => if changed.is_err() { return },
                // While active, what is applied is what was proposed here.
                changed = self.parts.applied.changed(), if self.epoch.is_none() => {
                    if changed.is_err() { return }
                }
                request = self.requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => return,
                },
            }
        }
    }

    /// A leader is active once the first entry of its epoch is applied: then it knows all that was committed before.
    async fn observe_leadership(&mut self) {
        let led = {
            let server = self.server.borrow_watched();
            server.state.is_leader().then(|| LeaderEpoch(server.vote.leader_id.term))
        };
        if led == self.epoch {
            return;
        }
        let applied = self.parts.applied.borrow_and_update().clone();
        self.epoch = led.filter(|epoch| applied.epoch == Some(*epoch) && *epoch > self.lost);
        self.speculative = Image::clone(&applied.image);
        self.last = Waiting::done();
        if let Some(epoch) = self.epoch {
            self.next_offset = self.parts.log.log_end_offset();
            tracing::info!(%epoch, offset = %self.next_offset, "this node is the active controller");
            self.format().await;
        }
        self.active.send_replace(self.epoch);
    }

    /// The first leader of a cluster writes what every cluster begins with.
    async fn format(&mut self) {
        let Outcome { records, reply: () } = controller::format(&self.speculative);
        if !records.is_empty() {
            self.propose(records, Box::new(|_| ())).await;
        }
    }

    fn step_down(&mut self, epoch: LeaderEpoch) {
        self.lost = self.lost.max(epoch);
        if self.epoch != Some(epoch) {
            return;
        }
        tracing::warn!(%epoch, "a metadata change could not be committed; this node stops deciding in this epoch");
        self.epoch = None;
        self.speculative = Image::clone(&self.parts.applied.borrow().image);
        self.active.send_replace(None);
    }

    /// Decides, and proposes what was decided; the reply goes out when that, and all before it, is committed and applied.
    async fn handle(&mut self, request: Box<dyn Request>) {
        if self.epoch.is_none() {
            request.refuse(SubmitError::NotController);
            return;
        }
        let (records, respond) = request.decide(&mut self.desk());
        if records.is_empty() {
            // Even an answer that changes nothing tells of records that may not be committed yet.
            self.last.add(respond);
        } else if let Some(error) = records.iter().find_map(|it| record::encode(it).err()) {
            // Found out by the log's writer, it would stop the node: a client's long name must not.
            tracing::warn!(%error, "a metadata change is refused, as it cannot be written");
            respond(Err(SubmitError::Unwritable));
        } else {
            self.propose(records, respond).await;
        }
    }

    fn desk(&mut self) -> Desk<'_> {
        Desk {
            image: &self.speculative,
            policy: &self.parts.policy,
            draw: &mut *self.parts.draw,
            next_offset: self.next_offset.0,
        }
    }

    async fn propose(&mut self, records: Vec<ottla_metadata::MetadataRecord>, respond: Respond) {
        let epoch = self.epoch.expect("only an active controller decides");
        for record in &records {
            self.speculative.apply(record).expect("a decision fits the image that it was made on");
        }
        self.next_offset = self.next_offset + i64::try_from(records.len()).expect("a small count");
        self.last = Waiting::new();
        self.last.add(respond);
        let (waiting, failed) = (self.last.clone(), self.failed.clone());
        let completion = Completion::new(move |result: WriteResult| {
            let committed = matches!(&result, Ok(response) if response.data == Verdict::Applied);
            if let Err(error) = &result {
                tracing::debug!(%epoch, %error, "a metadata change was not committed");
            }
            waiting.finish(if committed { Ok(()) } else { Err(SubmitError::NotController) });
            if !committed {
                // Nobody listens any more when the controller has ended.
                let _ = failed.send(epoch);
            }
        });
        let proposal =
            Proposal { epoch, timestamp: self.parts.clock.now_ms(), records: records.into() };
        let write = self.parts.raft.write(proposal).responder(completion);
        let write = write.with_leader(CommittedLeaderId::new(epoch.0));
        if let Err(error) = write.await {
            tracing::error!(%error, "the quorum has stopped");
            self.last.finish(Err(SubmitError::Stopped));
            self.step_down(epoch);
        }
    }
}

type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;
