//! UnregisterBroker (key 64), version 0: forgets a broker that is gone for good.
//!
//! - A broker that nobody has registered is BROKER_ID_NOT_REGISTERED.
//! - Known difference: this broker itself, which is the only one, is not forgotten while it runs (INVALID_REQUEST).
//!   Apache Kafka does forget it, and is left with topics that nobody leads.

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::Context;

pub(super) fn handle(
    context: &Context,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = request.broker_id;
    let (error_code, message) = if context.broker.image().broker(BrokerId(id)).is_some() {
        (ErrorCode::INVALID_REQUEST, format!("Broker {id} is running"))
    } else {
        let message = format!("Broker ID {id} is not currently registered");
        (ErrorCode::BROKER_ID_NOT_REGISTERED, message)
    };
    UnregisterBrokerResponse {
        error_code,
        error_message: Some(message.into()),
        ..UnregisterBrokerResponse::default()
    }
}
