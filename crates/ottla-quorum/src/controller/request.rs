//! What the controller is asked: a decision to make, and where the answer goes. Shell.

use std::fmt;
use std::time::Duration;

use ottla_base::Offset;
use ottla_metadata::controller::{Draw, Liveness, Policy, Situation};
use ottla_metadata::{Image, MetadataRecord, Outcome};
use tokio::sync::oneshot;

use super::confirmation::Round;
use super::waiting::Respond;

/// Why a request was not decided on, or not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// This node does not lead, or stopped leading before the request was committed; another controller, or this one
    /// a little later, may know what became of it. NOT_CONTROLLER to clients.
    #[error("this node is not the active controller")]
    NotController,
    /// Nothing more will be decided here.
    #[error("the quorum has stopped")]
    Stopped,
    /// A record of the decision cannot be written in its format, such as a text longer than the format can say.
    /// Nothing was changed. UNKNOWN_SERVER_ERROR to clients, as from Kafka's controller.
    #[error("the change does not fit into a record")]
    Unwritable,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, SubmitError>>;

/// What a decision is made with.
pub struct Desk<'a> {
    /// The cluster with every record that was appended so far, committed or not.
    pub image: &'a Image,
    pub policy: &'a Policy,
    pub draw: &'a mut dyn Draw,
    /// The offset that the first record of this decision will have.
    pub next_offset: i64,
    /// Since this node became the active controller.
    pub now: Duration,
    /// What is known of the brokers' heartbeats.
    pub liveness: &'a mut Liveness,
}

impl<'a> Desk<'a> {
    /// What is decided with about brokers.
    #[must_use]
    pub fn situation(&self) -> Situation<'a> {
        let next_offset = Offset(self.next_offset);
        Situation { image: self.image, policy: self.policy, next_offset, now: self.now }
    }
}

impl fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("next_offset", &self.next_offset).finish_non_exhaustive()
    }
}

/// A decision that waits for its turn, whatever its reply is.
pub(crate) trait Request: Send {
    /// What confirms its answer if it changes nothing.
    fn round(&self) -> Round;
    /// The records to append, and whom to tell when they are committed.
    fn decide(self: Box<Self>, desk: &mut Desk<'_>) -> (Vec<MetadataRecord>, Respond);
    fn refuse(self: Box<Self>, error: SubmitError);
}

/// A decision and its reply.
pub(crate) struct Submitted<D, R> {
    pub(crate) decide: D,
    pub(crate) reply: Reply<R>,
    pub(crate) round: Round,
}

impl<D, R> Request for Submitted<D, R>
where
    D: FnOnce(&mut Desk<'_>) -> Outcome<R> + Send,
    R: Send + 'static,
{
    fn round(&self) -> Round {
        self.round
    }

    fn decide(self: Box<Self>, desk: &mut Desk<'_>) -> (Vec<MetadataRecord>, Respond) {
        let Self { decide, reply, .. } = *self;
        let Outcome { records, reply: answer } = decide(desk);
        // Whoever asked may have gone away; the decision stands nevertheless.
        let respond =
            move |result: Result<(), SubmitError>| drop(reply.send(result.map(|()| answer)));
        (records, Box::new(respond))
    }

    fn refuse(self: Box<Self>, error: SubmitError) {
        drop(self.reply.send(Err(error)));
    }
}
