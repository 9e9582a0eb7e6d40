//! Envelope (key 58), version 0: a client's request that a broker carries to the controller (KIP-590).
//!
//! - Controllers only. What is inside is handled as if it had come by itself, from the client's address; the answer goes back
//!   in one piece, header and body.
//! - NOT_CONTROLLER if this node does not lead, or has lost the lead before it could decide, so that the broker looks for
//!   the one that does.
//! - The principal is passed over: nobody is authenticated yet.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use ottla_base::ErrorCode;
use ottla_protocol::messages::{EnvelopeRequest, EnvelopeResponse};

use super::{Context, Session};
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: EnvelopeRequest) -> Outcome {
    let refuse = |error_code| EnvelopeResponse { error_code, response_data: None };
    let Some(client) = address(&request.client_host_address) else {
        return context.answer(&refuse(ErrorCode::INVALID_REQUEST));
    };
    if context.broker.quorum.active().borrow().is_none() {
        return context.answer(&refuse(ErrorCode::NOT_CONTROLLER));
    }
    let mut session = Session::forwarded(&context.listener, client);
    let carried = session.carried.clone();
    let mut outcome = super::handle(&context.broker, &mut session, request.request_data);
    let response = loop {
        match outcome {
            Outcome::Later(pending) | Outcome::Alone(pending) => outcome = pending.await,
            Outcome::Answer(answer) => {
                break match answer.into_body() {
                    Some(body) => {
                        EnvelopeResponse { response_data: Some(body), error_code: ErrorCode::NONE }
                    }
                    None => refuse(ErrorCode::UNKNOWN_SERVER_ERROR),
                };
            }
            Outcome::Silent => break refuse(ErrorCode::INVALID_REQUEST),
            Outcome::Close(reason) => {
                tracing::warn!(%reason, "a forwarded request can't be handled");
                break refuse(ErrorCode::INVALID_REQUEST);
            }
        }
    };
    let found_no_controller =
        carried.is_some_and(|it| it.found_no_controller.load(Ordering::Acquire));
    if found_no_controller {
        return context.answer(&refuse(ErrorCode::NOT_CONTROLLER));
    }
    context.answer(&response)
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
