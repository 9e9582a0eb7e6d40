//! The active controller: decides on what was appended, replies when that is committed. Shell.
//!
//! One task owns the *speculative* image: the committed one, and on top of it every record that was proposed and is
//! not committed yet. So many requests are in flight at once, and no two of them see the same state. Whenever a
//! proposal fails, or another leader epoch begins, the speculative image is dropped for the committed one.
//!
//! An answer that changes nothing is appended nowhere: a majority confirms it (`confirmation`).
//!
//! A controller that stops before its proposals are committed tells so to everybody who waits, and resigns: nobody
//! decides in that epoch any more, whatever becomes of the entries that are in the log.
//!
//! The offsets that decisions are made for are those that their records get, unless somebody else appends meanwhile: the
//! quorum's members change without a decision. Where that has happened, `Liveness` is told once the records are committed, before
//! anybody else learns of them ([`Shift`]).
//!
//! Invariant: while `epoch` is set, every decision is proposed in that epoch, and openraft appends it in no other.

mod confirmation;
mod contact;
mod request;
mod vigil;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Raft;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::VoteRequest;
use ottla_base::{BrokerId, LeaderEpoch, Offset};
use ottla_env::Clock;
use ottla_log::Log;
use ottla_metadata::controller::{self, Draw, Policy, Situation};
use ottla_metadata::{Image, MetadataRecord, Outcome, record};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) use confirmation::Round;
use contact::Contact;
pub(crate) use contact::Limits;
pub use request::{Desk, SubmitError};
pub(crate) use request::{Request, Submitted};
use vigil::Vigil;
use waiting::{Respond, Waiting};

use crate::raft::{
    CommittedLeaderId, Completion, LeaderId, Proposal, TypeConfig, Verdict, Vote, log_id,
};
use crate::standstill;
use crate::state_machine::{Applied, StateMachine};
use crate::storage::Storage;

pub(crate) type QuorumRaft = Raft<TypeConfig, StateMachine>;

/// What the controller needs to work.
pub(crate) struct Parts {
    pub(crate) raft: QuorumRaft,
    pub(crate) log: Arc<Log>,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) policy: Policy,
    /// The levels of features that a new cluster begins with.
    pub(crate) levels: BTreeMap<String, i16>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) draw: Box<dyn Draw + Send>,
    pub(crate) storage: Storage,
    pub(crate) limits: Limits,
}

/// The voter that leads, as far as this node knows. It is the active controller, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    pub id: BrokerId,
    pub epoch: LeaderEpoch,
}

/// The controller's handle: where requests go, in which epoch it is active, and who leads.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) requests: mpsc::Sender<Box<dyn Request>>,
    pub(crate) active: watch::Receiver<Option<LeaderEpoch>>,
    pub(crate) leader: watch::Receiver<Option<Leader>>,
    /// Whether this node is about to stop, and has begun to hand over.
    pub(crate) leaving: Arc<AtomicBool>,
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
    leader: watch::Sender<Option<Leader>>,
    leaving: Arc<AtomicBool>,
    contact: Contact,
    /// The epoch in which this node is the active controller, and what it keeps watch over meanwhile.
    epoch: Option<LeaderEpoch>,
    vigil: Option<Vigil>,
    /// The last other node that led.
    predecessor: Option<BrokerId>,
    /// The last epoch in which a proposal failed: it is not led any more, whatever openraft still says.
    lost: LeaderEpoch,
    speculative: Image,
    /// The offset that the next proposal's first record will have, if nobody else appends before.
    next_offset: Offset,
    /// How many proposals of this epoch there were.
    proposed: u64,
    shifts: mpsc::UnboundedReceiver<Shift>,
    shifted: mpsc::UnboundedSender<Shift>,
    /// The replies that hang on proposals of this epoch, in their order; the last ones are those of the last proposal.
    pending: VecDeque<Waiting>,
}

/// The records of a proposal are committed, further on in the log than it was made for.
#[derive(Debug)]
struct Shift {
    epoch: LeaderEpoch,
    expected: Range<Offset>,
    by: i64,
}

impl Controller {
    /// Starts the task. It ends when the last handle is gone, or openraft has stopped.
    pub(crate) fn start(parts: Parts) -> Handle {
        let (requests_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (failed, failures) = mpsc::unbounded_channel();
        let (shifted, shifts) = mpsc::unbounded_channel();
        let (active, active_receiver) = watch::channel(None);
        let (leader, leader_receiver) = watch::channel(None);
        let leaving = Arc::<AtomicBool>::default();
        let speculative = Image::clone(&parts.applied.borrow().image);
        let controller = Self {
            server: parts.raft.server_metrics(),
            contact: Contact::new(&parts.raft, parts.storage.clone(), parts.limits),
            speculative,
            parts,
            requests,
            failures,
            failed,
            active,
            leader,
            leaving: Arc::clone(&leaving),
            epoch: None,
            predecessor: None,
            vigil: None,
            lost: LeaderEpoch(-1),
            next_offset: Offset::ZERO,
            proposed: 0,
            shifts,
            shifted,
            pending: VecDeque::new(),
        };
        standstill::spawn(controller.run());
        Handle {
            requests: requests_sender,
            active: active_receiver,
            leader: leader_receiver,
            leaving,
        }
    }

    async fn run(mut self) {
        loop {
            self.observe_leadership().await;
            let (silence, deadline) = (self.contact.deadline(), self.deadline());
            tokio::select! {
                biased;
                Some(epoch) = self.failures.recv() => self.step_down(epoch).await,
                // Before the silence, which lasts: openraft that has stopped takes no resignation.
                changed = self.server.changed() => if changed.is_err() { return },
                () = until(silence) => if let Some(epoch) = self.contact.lost() {
                    self.step_down(epoch).await;
                },
                // While active, what is applied is what was proposed here.
                changed = self.parts.applied.changed(), if self.epoch.is_none() => {
                    if changed.is_err() { return }
                }
                request = self.requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => return,
                },
                () = until(deadline) => self.on_deadline().await,
            }
        }
    }

    /// A leader is active once the first entry of its epoch is applied: then it knows all that was committed before.
    async fn observe_leadership(&mut self) {
        let led = self.observe_leader();
        self.contact.note_led(led);
        if led == self.epoch {
            return;
        }
        let applied = self.parts.applied.borrow_and_update().clone();
        self.refuse_pending();
        self.epoch = led.filter(|epoch| applied.epoch == Some(*epoch) && *epoch > self.lost);
        self.speculative = Image::clone(&applied.image);
        self.vigil = None;
        if let Some(epoch) = self.epoch {
            self.proposed = 0;
            // Whoever leads after this node has led is somebody's successor, and not that one's.
            let predecessor = self.predecessor.take();
            self.vigil = Some(Vigil::begin(&self.speculative, &self.parts.policy, predecessor));
            self.next_offset = self.parts.log.log_end_offset();
            tracing::info!(%epoch, offset = %self.next_offset, "this node is the active controller");
            self.format().await;
        }
        self.active.send_replace(self.epoch);
    }

    /// The epoch in which this node leads, if it does. Tells others who leads.
    fn observe_leader(&mut self) -> Option<LeaderEpoch> {
        let server = self.server.borrow_watched();
        let Vote { leader_id, committed } = server.vote;
        let epoch = LeaderEpoch(leader_id.term);
        let leader = committed.then_some(Leader { id: BrokerId(leader_id.voted_for), epoch });
        let leads = server.state.is_leader();
        drop(server);
        let is_news =
            self.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        if let Some(other) = leader.filter(|_| !leads) {
            self.predecessor = Some(other.id);
            if is_news {
                tracing::info!(node = %other.id, %epoch, "another node is the active controller");
            }
        }
        leads.then_some(epoch)
    }

    /// The first leader of a cluster writes what every cluster begins with.
    async fn format(&mut self) {
        let Parts { policy, levels, .. } = &self.parts;
        let Outcome { records, reply: () } = controller::format(&self.speculative, policy, levels);
        if !records.is_empty() {
            self.propose(records, Box::new(|_| ())).await;
        }
    }

    async fn step_down(&mut self, epoch: LeaderEpoch) {
        self.lost = self.lost.max(epoch);
        if self.epoch == Some(epoch) {
            if self.is_leaving() {
                // Whoever takes over has the next epoch: that this one's last proposals fail is part of it.
                tracing::debug!(%epoch, "this node stops deciding, as it hands over");
            } else {
                tracing::warn!(%epoch, "changes cannot be committed; this node stops deciding in this epoch");
            }
            self.epoch = None;
            self.vigil = None;
            self.speculative = Image::clone(&self.parts.applied.borrow().image);
            self.refuse_pending();
            self.active.send_replace(None);
        }
        if !self.parts.storage.is_alone() {
            self.resign(epoch).await;
        }
    }

    /// openraft is gone, which a stop begins with.
    fn say_stopped(&self, error: &dyn fmt::Display) {
        if self.is_leaving() {
            tracing::debug!(%error, "the quorum has stopped");
        } else {
            tracing::error!(%error, "the quorum has stopped");
        }
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whoever waits for proposals of an epoch that is over is told so. Some of those may be committed later
    /// nevertheless, by the next leader.
    fn refuse_pending(&mut self) {
        for waiting in self.pending.drain(..) {
            waiting.finish(Err(SubmitError::NotController));
        }
    }

    /// Makes openraft give the epoch up too: it enters the next one, in which it has voted for nobody. If the others
    /// are in a later one already, this changes nothing.
    async fn resign(&mut self, epoch: LeaderEpoch) {
        if self.observe_leader() != Some(epoch) {
            return;
        }
        let leader_id = LeaderId { term: epoch.0 + 1, voted_for: NOBODY };
        let mut request = VoteRequest::new(
            Vote { leader_id, committed: false },
            // It passes for a candidate that has everything, and that the leader itself has called.
            Some(log_id(i32::MAX, u64::MAX)),
        );
        request.leadership_transfer = true;
        if let Err(error) = self.parts.raft.vote(request).await {
            self.say_stopped(&error);
        }
    }

    /// Decides, and proposes what was decided; the reply goes out when that, and all before it, is committed and applied.
    async fn handle(&mut self, request: Box<dyn Request>) {
        let may_decide = self.contact.may_decide();
        let round = request.round();
        let (records, respond) = match self.desk().filter(|_| may_decide) {
            Some(mut desk) => request.decide(&mut desk),
            None => return request.refuse(SubmitError::NotController),
        };
        if records.is_empty() {
            self.answer(respond, round);
        } else if let Some(error) = records.iter().find_map(|it| record::encode(it).err()) {
            // Found out by the log's writer, it would stop the node: a client's long name must not.
            tracing::warn!(%error, "a metadata change is refused, as it cannot be written");
            respond(Err(SubmitError::Unwritable));
        } else {
            self.propose(records, respond).await;
        }
    }

    /// Answers what changes nothing. It tells of records that may not be committed yet, and somebody else may lead
    /// already, and may have answered something that was not known here.
    fn answer(&self, respond: Respond, round: Round) {
        let last = self.pending.back().cloned();
        let release = move |confirmed| match (confirmed, last) {
            (Ok(()), Some(last)) => last.add(respond),
            (confirmed, _) => respond(confirmed),
        };
        if self.parts.storage.is_alone() {
            return release(Ok(()));
        }
        let epoch = self.epoch.expect("only an active controller decides");
        let confirmed = confirmation::confirm(self.parts.raft.clone(), epoch, round);
        standstill::spawn(async move { release(confirmed.await) });
    }

    /// Takes into account what somebody else has appended.
    fn note_shifts(&mut self) {
        self.next_offset = self.next_offset.max(self.parts.log.log_end_offset());
        while let Ok(Shift { epoch, expected, by }) = self.shifts.try_recv() {
            if let Some(vigil) = self.vigil.as_mut().filter(|_| self.epoch == Some(epoch)) {
                vigil.liveness.on_shifted(&expected, by);
            }
        }
    }

    /// Only an active controller has one.
    fn desk(&mut self) -> Option<Desk<'_>> {
        self.note_shifts();
        let vigil = self.vigil.as_mut()?;
        Some(Desk {
            image: &self.speculative,
            policy: &self.parts.policy,
            draw: &mut *self.parts.draw,
            next_offset: self.next_offset.0,
            now: vigil.now(),
            liveness: &mut vigil.liveness,
        })
    }

    /// A node that is about to stop watches over nobody: that it closes its connections is not the others' silence.
    fn deadline(&self) -> Option<Instant> {
        if self.is_leaving() {
            return None;
        }
        let deadline = self.vigil.as_ref()?.deadline(&self.speculative)?;
        // Without a majority nothing is decided; the next controller gives all brokers a new session.
        let sure = self.contact.may_decide();
        Some(if sure { deadline } else { deadline.max(Instant::now() + UNDECIDED_PAUSE) })
    }

    /// A heartbeat that has waited here for its turn was in time: what is in the queue comes first.
    async fn on_deadline(&mut self) {
        for _ in 0..self.requests.len() {
            let Ok(request) = self.requests.try_recv() else { break };
            self.handle(request).await;
        }
        while self.contact.may_decide()
            && !self.is_leaving()
            && let Some(records) = self.due_records()
        {
            self.propose(records, Box::new(|_| ())).await;
        }
    }

    /// What is due now, and has not been decided on.
    fn due_records(&mut self) -> Option<Vec<MetadataRecord>> {
        self.note_shifts();
        let vigil = self.vigil.as_mut()?;
        let situation = Situation {
            image: &self.speculative,
            policy: &self.parts.policy,
            next_offset: self.next_offset,
            now: vigil.now(),
        };
        let records = vigil.on_deadline(situation);
        (!records.is_empty()).then_some(records)
    }

    async fn propose(&mut self, records: Vec<MetadataRecord>, respond: Respond) {
        let epoch = self.epoch.expect("only an active controller decides");
        for record in &records {
            self.speculative.apply(record).expect("a decision fits the image that it was made on");
        }
        let expected = self.next_offset;
        self.next_offset = expected + i64::try_from(records.len()).expect("a small count");
        let expected = expected..self.next_offset;
        while self.pending.front().is_some_and(Waiting::is_finished) {
            self.pending.pop_front();
        }
        let waiting = Waiting::new();
        waiting.add(respond);
        self.pending.push_back(waiting.clone());
        let (failed, shifted) = (self.failed.clone(), self.shifted.clone());
        let storage = self.parts.storage.clone();
        let completion = Completion::new(move |result: WriteResult| {
            let committed = matches!(&result, Ok(response) if response.data == Verdict::Applied);
            let last = result.as_ref().ok().and_then(|it| storage.last_offset(it.log_id.index()));
            let by = last.map_or(0, |last| last.next().0 - expected.end.0);
            if committed && by != 0 {
                let _ = shifted.send(Shift { epoch, expected, by });
            }
            if let Err(error) = &result {
                tracing::debug!(%epoch, %error, "a metadata change was not committed");
            }
            waiting.finish(if committed { Ok(()) } else { Err(SubmitError::NotController) });
            if !committed {
                // Nobody listens any more when the controller has ended.
                let _ = failed.send(epoch);
            }
        });
        let proposal = Proposal {
            epoch,
            number: Some(self.proposed),
            verdict: Verdict::Applied,
            timestamp: self.parts.clock.now_ms(),
            records: records.into(),
        };
        self.proposed += 1;
        let write = self.parts.raft.write(proposal).responder(completion);
        let write = write.with_leader(CommittedLeaderId::new(epoch.0));
        if let Err(error) = write.await {
            self.say_stopped(&error);
            if let Some(last) = self.pending.back() {
                last.finish(Err(SubmitError::Stopped));
            }
            // It cannot be undone: openraft is gone.
            let _ = self.failed.send(epoch);
        }
    }
}

/// How long what is due waits, at a time, for a majority to be heard of.
const UNDECIDED_PAUSE: Duration = Duration::from_millis(10);

/// No voter has this id.
const NOBODY: i32 = -1;

/// Returns at a time, or never.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}

type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;
