//! What other nodes of the cluster send that Kafka has no message for (`ottla_protocol::peer`).

use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::peer::{PeerKey, PeerRequest, encode_answer};

use super::Session;
use crate::answer::{Answer, CloseReason, Outcome};
use crate::broker::Broker;
use crate::listener::Role;
use crate::standing::Standing;

pub(super) fn handle(broker: &Arc<Broker>, session: &mut Session, request: PeerRequest) -> Outcome {
    let PeerRequest { key, correlation_id, body } = request;
    match (key, session.listener.role) {
        (PeerKey::Quorum, role) if role == Role::Controller || !broker.is_controller => {
            session.voter = ottla_quorum::sender_of(&body).or(session.voter);
            Outcome::Later(Box::pin(ask_quorum(Arc::clone(broker), correlation_id, body)))
        }
        (PeerKey::Flushed, Role::Broker) => {
            broker.replicas.on_flushed_elsewhere(body);
            Outcome::Answer(Answer::raw(encode_answer(correlation_id, &[])))
        }
        (PeerKey::Standing, Role::Controller) => {
            let body = Standing::Formed(broker.cluster_id.to_string()).encode(broker.node_id);
            Outcome::Answer(Answer::raw(encode_answer(correlation_id, &body)))
        }
        (PeerKey::Quorum, _)
        | (PeerKey::Standing, Role::Broker)
        | (PeerKey::Flushed, Role::Controller) => {
            Outcome::Close(CloseReason::NotServed("a peer's message"))
        }
    }
}

async fn ask_quorum(broker: Arc<Broker>, correlation_id: i32, body: Bytes) -> Outcome {
    match broker.quorum.serve(body).await {
        Ok(answer) => Outcome::Answer(Answer::raw(encode_answer(correlation_id, &answer))),
        Err(error) => {
            tracing::warn!(%error, "a voter's message is refused");
            Outcome::Close(CloseReason::NotServed("this voter's message"))
        }
    }
}
