//! Envelope (key 58), version 0: a client's request that a broker carries to the controller (KIP-590).
//!
//! - Controllers only. What is inside is handled as if it had come by itself, from the client's address; the answer goes back
//!   in one piece, header and body.
//! - INVALID_REQUEST unless it is one of those that Apache Kafka lets brokers carry, of which another Envelope is none;
//!   UNSUPPORTED_VERSION if it can't be read.
//! - NOT_CONTROLLER if this node does not lead, or has lost the lead before it could decide, so that the broker looks for
//!   the one that does.
//! - The principal is passed over: nobody is authenticated yet.

use std::net::IpAddr;

use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::ApiKey;
use ottla_protocol::frame::Incoming;
use ottla_protocol::messages::{EnvelopeRequest, EnvelopeResponse};

use super::{Context, Session, is_forwarded};
use crate::answer::{CloseReason, Outcome};

pub(super) async fn handle(context: Context, request: EnvelopeRequest) -> Outcome {
    let refuse = |error_code| EnvelopeResponse { error_code, response_data: None };
    let Some(client) = address(&request.client_host_address) else {
        return context.answer(&refuse(ErrorCode::INVALID_REQUEST));
    };
    if let Err(code) = check_forwardable(&request.request_data) {
        return context.answer(&refuse(code));
    }
    if context.broker.quorum.active().borrow().is_none() {
        return context.answer(&refuse(ErrorCode::NOT_CONTROLLER));
    }
    let mut session = Session::forwarded(&context.listener, client);
    let carried = session.carried.clone();
    let outcome = super::handle(&context.broker, &mut session, request.request_data);
    let response = match outcome.in_the_end().await {
        Outcome::Answer(answer) => match answer.into_body() {
            Some(body) => {
                EnvelopeResponse { response_data: Some(body), error_code: ErrorCode::NONE }
            }
            None => refuse(ErrorCode::UNKNOWN_SERVER_ERROR),
        },
        Outcome::Close(reason) => {
            tracing::warn!(%reason, "a forwarded request can't be handled");
            refuse(code_of(&reason))
        }
        Outcome::Silent | Outcome::Later(_) | Outcome::AfterFlush { .. } | Outcome::Alone(_) => {
            refuse(ErrorCode::INVALID_REQUEST)
        }
    };
    if carried.is_some_and(|it| it.found_no_controller()) {
        return context.answer(&refuse(ErrorCode::NOT_CONTROLLER));
    }
    context.answer(&response)
}

/// Whether what is carried is for anybody to carry. Nothing else may be handled here: whatever a controller serves would be
/// served to everybody, and an envelope in an envelope as deep as it likes to be.
fn check_forwardable(carried: &Bytes) -> Result<(), ErrorCode> {
    let incoming = Incoming::decode(carried.clone()).map_err(|_| ErrorCode::UNSUPPORTED_VERSION)?;
    if is_forwardable(incoming.api) { Ok(()) } else { Err(ErrorCode::INVALID_REQUEST) }
}

/// Apache Kafka's `ApiKeys.forwardable`, without those that are not served.
fn is_forwardable(api: ApiKey) -> bool {
    // Brokers ask for producer ids by themselves, and Kafka's list has it nevertheless.
    is_forwarded(api) || api == ApiKey::AllocateProducerIds
}

/// INVALID_REQUEST would say that something is wrong with the envelope.
const fn code_of(reason: &CloseReason) -> ErrorCode {
    match reason {
        CloseReason::Malformed(_) | CloseReason::UnsupportedVersion { .. } => {
            ErrorCode::UNSUPPORTED_VERSION
        }
        CloseReason::NotServed(_)
        | CloseReason::UnknownKind
        | CloseReason::SilentProduceFailed(_)
        | CloseReason::TooLarge
        | CloseReason::Encode(_) => ErrorCode::INVALID_REQUEST,
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|it| IpAddr::from(*it)),
        16 => octets.first_chunk::<16>().map(|it| IpAddr::from(*it)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_four_bytes_or_sixteen() {
        assert_eq!(address(&[127, 0, 0, 1]), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(address(&[0; 16]), Some(IpAddr::from([0_u8; 16])));
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
