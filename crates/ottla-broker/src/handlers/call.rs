//! The way of a request from its bytes to its handler, or to the controller on another node. Shell.

use std::time::Duration;

use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::{Decoder, Request};

use super::{Api, Context};
use crate::answer::{Answer, CloseReason, Outcome};
use crate::controller_channel::Forwarded;
use crate::controller_requests::ControllerRequest;

/// What comes of a request, or why its connection ends.
pub(super) type Called = Result<Outcome, CloseReason>;

/// How long a client's request may look for a controller: as long as in Apache Kafka.
pub(super) const FORWARDING_MAX: Duration = Duration::from_secs(60);

/// A request whose body is not read yet.
pub(super) struct Call {
    pub api: &'static Api,
    pub context: Context,
    pub body: Decoder,
    /// The whole frame, if another node is to decide.
    pub carried_in: Option<Bytes>,
}

impl Call {
    /// For a handler that knows at once whether there is an answer.
    pub(super) fn at_once<R: Request>(self, handler: impl FnOnce(Context, R) -> Outcome) -> Called {
        let Self { api, context, body, carried_in } = self;
        match carried_in {
            None => {
                let request = read(&context, body)?;
                Ok(handler(context, request))
            }
            Some(frame) => {
                // One that cannot be read ends its client's connection, not that to the controller.
                read::<R>(&context, body.clone())?;
                Ok(Outcome::Later(Box::pin(forward(api, context, body, frame))))
            }
        }
    }

    /// For a handler that answers from what is in memory.
    pub(super) fn now<R: Request>(
        self,
        handler: impl FnOnce(&Context, R) -> R::Response,
    ) -> Called {
        self.at_once(|context, request| context.answer(&handler(&context, request)))
    }

    /// For a handler that waits: for records, for the controller, for a disk.
    pub(super) fn later<R: Request, F: Future<Output = Outcome> + Send + 'static>(
        self,
        handler: impl FnOnce(Context, R) -> F,
    ) -> Called {
        self.at_once(|context, request| Outcome::Later(Box::pin(handler(context, request))))
    }

    /// For what a broker asks a controller.
    pub(super) fn asked<R: ControllerRequest>(self) -> Called {
        self.later(|context, request: R| async move {
            let response = request.decide(&context.broker.quorum, context.version).await;
            if R::error_of(&response) == ErrorCode::NOT_CONTROLLER {
                context.not_controller();
            }
            context.answer(&response)
        })
    }
}

fn read<R: Request>(context: &Context, mut body: Decoder) -> Result<R, CloseReason> {
    // Bytes behind the request are passed over, as Apache Kafka passes them over.
    Ok(R::decode(&mut body, context.version)?)
}

/// Lets the controller answer, which may be this node by then. Where none has, the handler says so.
async fn forward(api: &'static Api, mut context: Context, body: Decoder, frame: Bytes) -> Outcome {
    let deadline = tokio::time::Instant::now() + FORWARDING_MAX;
    match context.broker.controller.forward(frame, context.peer, deadline).await {
        Ok(Forwarded::Answer(answer)) => {
            context.done();
            return Outcome::Answer(Answer::raw(with_length(&answer)));
        }
        Ok(Forwarded::Here) => {}
        Err(error) => {
            tracing::debug!(api = context.api_key.name(), %error, "not forwarded");
            context.unanswered = Some(error.code());
        }
    }
    let here = Call { api, context, body, carried_in: None };
    (api.call)(here).unwrap_or_else(Outcome::Close)
}

fn with_length(frame: &[u8]) -> Bytes {
    let length = i32::try_from(frame.len()).expect("an answer came in a frame");
    [&length.to_be_bytes(), frame].concat().into()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ottla_protocol::messages::{AllocateProducerIdsRequest, CreateTopicsRequest};

    use super::*;
    use crate::handlers::Session;
    use crate::listener::{Role, unused};
    use crate::node::Node;

    /// Whether a node tells the broker that has carried a request here to look for another controller.
    async fn sends_on<R: Request>(node: &Node, request: R) -> bool {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut session = Session::forwarded(&unused(Role::Broker, true), client);
        node.answer_to(&mut session, &request).await;
        session.carried.unwrap().found_no_controller()
    }

    #[tokio::test]
    async fn whoever_carries_a_request_here_is_sent_on_once_this_node_does_not_decide() {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::alone(directory.path()).await;
        assert!(!sends_on(&node, AllocateProducerIdsRequest::default()).await);
        assert!(!sends_on(&node, CreateTopicsRequest::default()).await);
        node.broker().quorum.shutdown().await;
        assert!(sends_on(&node, AllocateProducerIdsRequest::default()).await);
        assert!(sends_on(&node, CreateTopicsRequest::default()).await);
    }
}
