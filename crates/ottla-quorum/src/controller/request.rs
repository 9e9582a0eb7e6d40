//! What the controller can be asked. Shell.

use ottla_base::BrokerId;
use ottla_metadata::Rejection;
use ottla_metadata::controller::BrokerEpoch;
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, BrokerRegistrationRequest,
    ControllerRegistrationRequest, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse,
};
use tokio::sync::oneshot;

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
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, SubmitError>>;

pub(crate) enum Request {
    CreateTopics(CreateTopicsRequest, Reply<CreateTopicsResponse>),
    /// With the version of the request.
    DeleteTopics(DeleteTopicsRequest, i16, Reply<DeleteTopicsResponse>),
    AllocateProducerIds(AllocateProducerIdsRequest, Reply<AllocateProducerIdsResponse>),
    RegisterBroker(BrokerRegistrationRequest, Reply<Result<BrokerEpoch, Rejection>>),
    /// With the broker's epoch.
    UnfenceBroker(BrokerId, i64, Reply<Result<(), Rejection>>),
    RegisterController(ControllerRegistrationRequest, Reply<()>),
}

impl Request {
    pub(crate) fn refuse(self, error: SubmitError) {
        // Whoever asked may have gone away.
        match self {
            Self::CreateTopics(_, reply) => drop(reply.send(Err(error))),
            Self::DeleteTopics(_, _, reply) => drop(reply.send(Err(error))),
            Self::AllocateProducerIds(_, reply) => drop(reply.send(Err(error))),
            Self::RegisterBroker(_, reply) => drop(reply.send(Err(error))),
            Self::UnfenceBroker(_, _, reply) => drop(reply.send(Err(error))),
            Self::RegisterController(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
