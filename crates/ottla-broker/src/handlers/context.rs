//! What a handler has beside a request's body: who asks, by which listener, and how to answer. Shell.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, TopicId};
use ottla_coordinator::group::Caller;
use ottla_metadata::{Broker as BrokerRegistration, Image};
use ottla_protocol::header::RequestHeader;
use ottla_protocol::{ApiKey, Message};
use ottla_quorum::SubmitError;

use super::session::{Carried, Session};
use crate::answer::{Answer, Outcome, Source};
use crate::broker::Broker;
use crate::controller_requests::code_of;
use crate::listener::Listener;
use crate::replica::Replica;

/// The version of Produce and of Fetch from which on topics have their ids in the place of their names.
const TOPIC_IDS_SINCE: i16 = 13;

/// What a handler knows of its request beside the body.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub broker: Arc<Broker>,
    pub listener: Arc<Listener>,
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<ByteString>,
    pub(super) peer: IpAddr,
    pub(super) carried: Option<Arc<Carried>>,
    /// That of the connection.
    pub(super) session: u64,
    /// Why this broker has carried the request to no controller.
    pub(super) unanswered: Option<ErrorCode>,
    received: Instant,
}

impl Context {
    pub(super) fn new(
        broker: &Arc<Broker>,
        session: &Session,
        api_key: ApiKey,
        header: &RequestHeader,
    ) -> Self {
        Self {
            broker: Arc::clone(broker),
            listener: Arc::clone(&session.listener),
            api_key,
            version: header.request_api_version,
            correlation_id: header.correlation_id,
            client_id: session.client_id.clone(),
            peer: session.peer,
            carried: session.carried.clone(),
            session: session.id,
            unanswered: None,
            received: Instant::now(),
        }
    }

    pub(super) fn done(&self) {
        self.broker.state.metrics.request_done(self.api_key, self.received.elapsed());
    }

    /// The replica that Produce or Fetch asks for, by its topic's id or, in a version that has none, by its name.
    ///
    /// # Errors
    /// As [`Broker::replica_by_id`] and [`Broker::replica`].
    pub(super) fn replica(
        &self,
        (topic_id, topic): (TopicId, &str),
        partition: i32,
    ) -> Result<Arc<Replica>, ErrorCode> {
        if self.names_topics_by_id() {
            self.broker.replica_by_id(topic_id, partition)
        } else {
            self.broker.replica(topic, partition)
        }
    }

    /// Whether a request to Produce or Fetch names topics by their ids.
    pub(super) const fn names_topics_by_id(&self) -> bool {
        self.version >= TOPIC_IDS_SINCE
    }

    /// Who asks, as groups remember their members.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            version: self.version,
            client_id: self.client_id.clone().unwrap_or_default(),
            client_host: java_address(self.peer).into(),
        }
    }

    /// What is said when the controller did not take a request.
    pub(super) fn submit_error(&self, error: &SubmitError) -> ErrorCode {
        match code_of(error) {
            ErrorCode::NOT_CONTROLLER => self.not_controller(),
            code => code,
        }
    }

    /// What is said where this node is not the active controller.
    pub(super) fn not_controller(&self) -> ErrorCode {
        if let Some(carried) = &self.carried {
            carried.note_no_controller();
        }
        self.unanswered.unwrap_or(ErrorCode::NOT_CONTROLLER)
    }

    /// The listener by whose endpoints the brokers are named in an answer.
    pub(super) fn endpoint_name(&self) -> &str {
        &self.listener.name
    }

    /// Whom clients are told to ask for the controller's decisions: a broker that carries them there, this one if it serves.
    pub(super) fn controller_id(&self, image: &Image) -> i32 {
        let serves = |broker: &&BrokerRegistration| !broker.fenced;
        let this = image.broker(self.broker.node_id).filter(serves);
        this.or_else(|| image.brokers().find(serves)).map_or(BrokerId::NONE, |broker| broker.id).0
    }

    pub(super) fn answer<M: Message>(&self, body: &M) -> Outcome {
        self.answer_with(body, Vec::new())
    }

    /// Answers with file ranges in the slots of the body's deferred records.
    pub(super) fn answer_with<M: Message>(&self, body: &M, sources: Vec<Source>) -> Outcome {
        self.done();
        match Answer::new(self.api_key, self.version, self.correlation_id, body, sources) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Close(error.into()),
        }
    }
}

/// An address as Java writes one without a name: `/127.0.0.1`, `/0:0:0:0:0:0:0:1`.
fn java_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}
