//! The way to the active controller, be it this node's own or another's. Shell.
//!
//! What a broker asks for itself goes by [`ControllerChannel::ask`], what a client asks through a broker by
//! [`ControllerChannel::forward`] (KIP-590). Where this node is the active controller, neither touches a socket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, Offset};
use ottla_client::{Address, ClientError, Connection, Limits};
use ottla_protocol::Request;
use ottla_protocol::messages::{EnvelopeRequest, EnvelopeResponse};
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
    #[error("the node that leads is not the active controller")]
    NotController,
    #[error("the controller does not take the request: {0}")]
    Refused(ErrorCode),
    #[error("no controller has answered in time")]
    TimedOut,
}

impl Unanswered {
    /// What a client is told whose request was carried in vain: nothing that it would take for this broker's.
    #[must_use]
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
            Self::NoController
            | Self::Unreachable(_)
            | Self::Replaced
            | Self::NotController
            | Self::TimedOut => ErrorCode::REQUEST_TIMED_OUT,
        }
    }
}

/// Who decides on a client's request.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// Another node has, and this is its answer, header and body.
    Answer(Bytes),
    /// This node is the active controller by now.
    Here,
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

    /// Whether this node is the active controller.
    #[must_use]
    pub(crate) fn is_here(&self) -> bool {
        self.quorum.active().borrow().is_some()
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.quorum.leader().borrow().as_ref().map(|leader| leader.id)
    }

    /// Whether this node does not get the metadata, as another node with its id is in the cluster.
    pub(crate) fn is_id_taken(&self) -> bool {
        self.quorum.is_id_taken()
    }

    /// How far the metadata of this node goes.
    pub(crate) fn metadata_offset(&self) -> Offset {
        self.quorum.image().offset
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
            self.send(leader, purpose, &request).await?
        };
        match R::error_of(&response) {
            ErrorCode::NOT_CONTROLLER => Err(Unanswered::NotController),
            _ => Ok(response),
        }
    }

    /// Until the connection of this purpose to the active controller breaks; for ever if there is none.
    pub(crate) async fn broken(&self, purpose: Purpose) {
        match self.leader().map(|leader| self.address_of(leader)) {
            Some(Ok(address)) => self.peers.broken(purpose, &address).await,
            Some(Err(_)) | None => std::future::pending().await,
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

    /// Carries a client's request, header and body, to the controller, and to the next one if it is none any longer.
    ///
    /// # Errors
    /// When no controller has answered by the deadline, or one that leads does not take the request.
    pub(crate) async fn forward(
        &self,
        request: Bytes,
        client: IpAddr,
        deadline: Instant,
    ) -> Result<Forwarded, Unanswered> {
        let envelope = EnvelopeRequest {
            request_data: request,
            request_principal: None,
            client_host_address: octets(client),
        };
        let attempts = async {
            while !self.is_here() {
                match self.forward_once(&envelope).await {
                    Ok(answer) => return Ok(Forwarded::Answer(answer)),
                    Err(refused @ Unanswered::Refused(_)) => return Err(refused),
                    Err(error) => tracing::debug!(%error, "forwarded in vain"),
                }
                self.pause().await;
            }
            Ok(Forwarded::Here)
        };
        tokio::time::timeout_at(deadline, attempts).await.unwrap_or(Err(Unanswered::TimedOut))
    }

    async fn forward_once(&self, envelope: &EnvelopeRequest) -> Result<Bytes, Unanswered> {
        let leader = self.leader().ok_or(Unanswered::NoController)?;
        if leader == self.node_id {
            // It is about to be active.
            return Err(Unanswered::NotController);
        }
        answer_in(self.send(leader, Purpose::Forwarding, envelope).await?)
    }

    /// Gives up once another controller leads: one that has lost its machine does not even hang up.
    async fn send<R: Request>(
        &self,
        leader: BrokerId,
        purpose: Purpose,
        request: &R,
    ) -> Result<R::Response, Unanswered> {
        let address = self.address_of(leader)?;
        let mut unanswered = AbandonUnlessAnswered::default();
        let exchange = async {
            let connection = self.peers.connection(purpose, &address).await?;
            if purpose == Purpose::IsrChanges {
                unanswered.abandon(Arc::clone(&connection));
            }
            let answer = connection.send(request, Limits::within(request_timeout(purpose))).await?;
            unanswered.answered();
            Ok(answer)
        };
        let mut now = self.quorum.leader();
        let replaced = now.wait_for(|now| now.is_some_and(|now| now.id != leader));
        tokio::select! {
            answer = exchange => answer.map_err(|error: ClientError| error.into()),
            _ = replaced => Err(Unanswered::Replaced),
        }
    }

    /// Where a controller is reached.
    ///
    /// # Errors
    /// When neither the configuration nor the metadata knows it.
    pub(crate) fn address_of(&self, controller: BrokerId) -> Result<Address, Unanswered> {
        if let Some(address) = self.configured.get(&controller) {
            return Ok(address.clone());
        }
        if let Some(endpoint) = self.quorum.endpoints_of(controller).first() {
            return Ok(address_of(endpoint));
        }
        let image = self.quorum.image();
        let registered = image.controllers().find(|it| it.id == controller.0);
        let endpoint = registered.and_then(|it| it.endpoints.first());
        endpoint.map(address_of).ok_or(Unanswered::NoController)
    }

    /// Until another controller leads, or this one is active, but not for long: the one that did may answer again.
    pub(crate) async fn pause(&self) {
        let (mut leader, mut active) = (self.quorum.leader(), self.quorum.active());
        leader.mark_unchanged();
        active.mark_unchanged();
        tokio::select! {
            _ = leader.changed() => {}
            _ = active.changed() => {}
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

fn answer_in(response: EnvelopeResponse) -> Result<Bytes, Unanswered> {
    match (response.error_code, response.response_data) {
        (ErrorCode::NONE, Some(answer)) => Ok(answer),
        (ErrorCode::NONE, None) => Err(Unanswered::Refused(ErrorCode::UNKNOWN_SERVER_ERROR)),
        (ErrorCode::NOT_CONTROLLER, _) => Err(Unanswered::NotController),
        (code, _) => Err(Unanswered::Refused(code)),
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
        Purpose::Quorum
        | Purpose::Leadership
        | Purpose::Controller
        | Purpose::IsrChanges
        | Purpose::Forwarding
        | Purpose::Flushed
        | Purpose::Hearsay => REQUEST_TIMEOUT,
    }
}

/// Abandons a connection on which a request stays without an answer, however that comes.
#[derive(Debug, Default)]
struct AbandonUnlessAnswered(Option<Arc<Connection>>);

impl AbandonUnlessAnswered {
    fn abandon(&mut self, connection: Arc<Connection>) {
        self.0 = Some(connection);
    }

    fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbandonUnlessAnswered {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_is_no_controller_is_worth_another_attempt() {
        let opened = |error_code, data: Option<&'static [u8]>| {
            answer_in(EnvelopeResponse { error_code, response_data: data.map(Bytes::from_static) })
        };
        assert_eq!(opened(ErrorCode::NONE, Some(b"answer")).unwrap(), &b"answer"[..]);
        let not_controller = opened(ErrorCode::NOT_CONTROLLER, None);
        assert!(matches!(not_controller, Err(Unanswered::NotController)));
        for (code, data) in [(ErrorCode::INVALID_REQUEST, None), (ErrorCode::NONE, None)] {
            let refused = opened(code, data).unwrap_err();
            assert!(matches!(refused, Unanswered::Refused(_)));
            assert_eq!(refused.code(), ErrorCode::UNKNOWN_SERVER_ERROR);
        }
    }
}
