//! What other nodes of the cluster send that Kafka has no message for (`ottla_protocol::peer`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, Uuid};
use ottla_protocol::peer::{PeerKey, PeerRequest, encode_answer};
use ottla_quorum::Quorum;

use super::Session;
use crate::answer::{Answer, CloseReason, Outcome};
use crate::broker::Broker;
use crate::joining::{Applicant, ControllerAddress, Introduction, Verdict, Wish};
use crate::listener::Role;
use crate::standing::Standing;

pub(super) fn handle(broker: &Arc<Broker>, session: &mut Session, request: PeerRequest) -> Outcome {
    let PeerRequest { key, correlation_id, body } = request;
    let serves_controllers = session.listener.serves_controllers;
    let answer = match key {
        // A broker follows the metadata log where clients come in.
        PeerKey::Quorum if serves_controllers || !broker.is_controller => {
            session.voter = ottla_quorum::sender_of(&body).or(session.voter);
            return Outcome::Later(Box::pin(ask_quorum(Arc::clone(broker), correlation_id, body)));
        }
        PeerKey::Flushed if session.listener.role == Role::Broker => {
            broker.replicas.on_flushed_elsewhere(body);
            Some(Bytes::new())
        }
        PeerKey::Standing if serves_controllers => {
            Some(Standing::Formed(broker.cluster_id.to_string()).encode(broker.node_id))
        }
        PeerKey::Joining => Applicant::decode(body).and_then(|it| introduce(broker, it).encode()),
        PeerKey::Quorum | PeerKey::Flushed | PeerKey::Standing => None,
    };
    match answer {
        Some(body) => Outcome::Answer(Answer::raw(encode_answer(correlation_id, &body))),
        None => Outcome::Close(CloseReason::NotServed("a peer's message")),
    }
}

/// What a node is told that wants to join.
fn introduce(broker: &Broker, applicant: Applicant) -> Introduction {
    let is_active = broker.controller.is_here();
    let verdict = match applicant.wish {
        Wish::NoId => Verdict::Unsaid,
        Wish::ThisId(_) | Wish::AnyId if !is_active => Verdict::Unsaid,
        Wish::ThisId(id) if is_alive(broker, id) => Verdict::Taken,
        Wish::ThisId(id) => {
            give_id(broker, applicant.claim, Some(id)).map_or(Verdict::Taken, Verdict::Welcome)
        }
        Wish::AnyId => {
            give_id(broker, applicant.claim, None).map_or(Verdict::Unsaid, Verdict::Welcome)
        }
    };
    let known: Vec<BrokerId> = if is_active {
        broker.quorum.voters().iter().map(|voter| voter.id).collect()
    } else {
        broker.controller.leader().into_iter().collect()
    };
    let address = |id: BrokerId| {
        let address = broker.controller.address_of(id).ok()?;
        Some(ControllerAddress { id, host: address.host, port: address.port })
    };
    Introduction {
        cluster_id: broker.cluster_id.to_string(),
        verdict,
        controllers: known.into_iter().filter_map(address).collect(),
    }
}

fn give_id(broker: &Broker, claim: Uuid, own: Option<BrokerId>) -> Option<BrokerId> {
    broker.state.claims.give(claim, own, is_taken(broker), broker.clock.monotonic())
}

/// Whether a node id is this one's, or that of a broker that serves, or of a voter whose vote a stranger would have.
fn is_alive(broker: &Broker, id: BrokerId) -> bool {
    id == broker.node_id
        || broker.image().broker(id).is_some_and(|it| !it.fenced)
        || is_voter(&broker.quorum, id)
}

/// Whoever comes with an empty directory under the id of a voter that is known by nothing else could vote again where that one
/// has voted. One that is known by its directory, too, has only to be gone.
fn is_voter(quorum: &Quorum, id: BrokerId) -> bool {
    let by_id_alone = quorum.kraft_version() == 0;
    let mut voters = quorum.voter_states().into_iter();
    voters.any(|it| it.voter.id == id && (by_id_alone || it.silent_for < GONE_AFTER))
}

/// A voter that lives answers many times a second.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// Whether a node id belongs to somebody: a broker, fenced or not, a controller, or whoever follows the metadata log.
fn is_taken(broker: &Broker) -> impl Fn(BrokerId) -> bool + use<> {
    let (image, quorum) = (broker.image(), &broker.quorum);
    let members = quorum.voters().into_iter().map(|voter| voter.id);
    let observers = quorum.observer_states().into_iter().map(|it| it.voter.id);
    let members: BTreeSet<BrokerId> = members.chain(observers).collect();
    move |id| {
        image.broker(id).is_some()
            || image.controllers().any(|controller| controller.id == id.0)
            || members.contains(&id)
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
