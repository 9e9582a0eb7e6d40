//! The way to the active controller, be it this node's own or another's. Shell.
//!
//! What a broker asks for itself goes by [`ControllerChannel::ask`], what a client asks through a broker by
//! [`ControllerChannel::forward`] (KIP-590). Where this node is the active controller, neither touches a socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode};
use ottla_client::{Address, ClientError, Limits};
use ottla_protocol::messages::EnvelopeRequest;
use ottla_quorum::Quorum;
use tokio::time::Instant;

use crate::controller_requests::ControllerRequest;
use crate::peers::{Peers, Purpose, address_of};

/// How long a controller may take for one answer (`controller.quorum.request.timeout.ms` is for the quorum's own).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a heartbeat: the next one is due.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a controller is left alone that could not be reached, or was none.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why the controller has not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no controller is known to lead")]
    NoController,
    #[error("the controller cannot be reached: {0}")]
    Unreachable(#[from] ClientError),
    #[error("another controller leads meanwhile")]
    Replaced,
    #[error("the controller says {0}")]
    NotController(ErrorCode),
}

#[derive(Debug)]
pub(crate) struct ControllerChannel {
    node_id: BrokerId,
    quorum: Arc<Quorum>,
    peers: Arc<Peers>,
    /// Where controllers are by this node's configuration (`controller.quorum.voters`).
    configured: HashMap<BrokerId, Address>,
}

impl ControllerChannel {
    pub(crate) const fn new(
        node_id: BrokerId,
        quorum: Arc<Quorum>,
        peers: Arc<Peers>,
        configured: HashMap<BrokerId, Address>,
    ) -> Self {
        Self { node_id, quorum, peers, configured }
    }

    /// Whether this node is the active controller, or about to be.
    #[must_use]
    pub(crate) fn is_here(&self) -> bool {
        self.leader() == Some(self.node_id)
    }

    fn leader(&self) -> Option<BrokerId> {
        self.quorum.leader().borrow().as_ref().map(|leader| leader.id)
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`Unanswered`]: what becomes of the request is not known.
    pub(crate) async fn ask<R: ControllerRequest>(
        &self,
        purpose: Purpose,
        request: R,
    ) -> Result<R::Response, Unanswered> {
        let leader = self.leader().ok_or(Unanswered::NoController)?;
        let response = if leader == self.node_id {
            request.decide(&self.quorum, *R::KEY.stable_versions().end()).await
        } else {
            let address = self.address_of(leader)?;
            let exchange = async {
                let connection = self.peers.connection(purpose, &address).await?;
                connection.send(&request, Limits::within(request_timeout(purpose))).await
            };
            self.unless_replaced(leader, exchange).await?
        };
        match R::error_of(&response) {
            code @ ErrorCode::NOT_CONTROLLER => Err(Unanswered::NotController(code)),
            _ => Ok(response),
        }
    }

    /// Asks until a controller answers.
    pub(crate) async fn ask_until_answered<R: ControllerRequest>(
        &self,
        purpose: Purpose,
        request: R,
    ) -> R::Response {
        loop {
            match self.ask(purpose, request.clone()).await {
                Ok(response) => return response,
                Err(error) => tracing::debug!(api = R::KEY.name(), %error, "asked in vain"),
            }
            self.pause().await;
        }
    }

    /// Carries a client's request, header and body, to the controller; what comes back is header and body of the answer.
    ///
    /// # Errors
    /// When no controller has answered by the deadline.
    pub(crate) async fn forward(
        &self,
        request: Bytes,
        client: IpAddr,
        deadline: Instant,
    ) -> Result<Bytes, Unanswered> {
        let envelope = EnvelopeRequest {
            request_data: request,
            request_principal: None,
            client_host_address: octets(client),
        };
        loop {
            let error = match self.forward_once(&envelope).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if deadline <= Instant::now() || self.is_here() {
                return Err(error);
            }
            tracing::debug!(%error, "forwarded in vain");
            self.pause().await;
        }
    }

    async fn forward_once(&self, envelope: &EnvelopeRequest) -> Result<Bytes, Unanswered> {
        let leader = self.leader().ok_or(Unanswered::NoController)?;
        let address = self.address_of(leader)?;
        let exchange = async {
            let connection = self.peers.connection(Purpose::Forwarding, &address).await?;
            connection.send(envelope, Limits::within(REQUEST_TIMEOUT)).await
        };
        let response = self.unless_replaced(leader, exchange).await?;
        match (response.error_code, response.response_data) {
            (ErrorCode::NONE, Some(answer)) => Ok(answer),
            (code, _) => Err(Unanswered::NotController(code)),
        }
    }

    /// Gives up once another controller leads: one that has lost its machine does not even hang up.
    async fn unless_replaced<T>(
        &self,
        leader: BrokerId,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Unanswered> {
        let mut now = self.quorum.leader();
        let replaced = now.wait_for(|now| now.is_some_and(|now| now.id != leader));
        tokio::select! {
            answer = exchange => Ok(answer?),
            _ = replaced => Err(Unanswered::Replaced),
        }
    }

    fn address_of(&self, leader: BrokerId) -> Result<Address, Unanswered> {
        if let Some(address) = self.configured.get(&leader) {
            return Ok(address.clone());
        }
        let image = self.quorum.image();
        let registered = image.controllers().find(|controller| controller.id == leader.0);
        let endpoint = registered.and_then(|controller| controller.endpoints.first());
        endpoint.map(address_of).ok_or(Unanswered::NoController)
    }

    /// Until another controller leads, but not for long: the one that did may answer again.
    pub(crate) async fn pause(&self) {
        let mut leader = self.quorum.leader();
        leader.mark_unchanged();
        let _ = tokio::time::timeout(RETRY_PAUSE, leader.changed()).await;
    }
}

fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

const fn request_timeout(purpose: Purpose) -> Duration {
    match purpose {
        Purpose::Heartbeats => HEARTBEAT_TIMEOUT,
        Purpose::Quorum | Purpose::Controller | Purpose::Forwarding | Purpose::Flushed => {
            REQUEST_TIMEOUT
        }
    }
}
