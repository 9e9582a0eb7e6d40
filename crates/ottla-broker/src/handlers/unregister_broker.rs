//! UnregisterBroker (key 64), version 0: forgets a broker that is gone for good; the controller decides.
//!
//! - The broker leaves the ISRs, and stays among the replicas of its partitions.
//! - A broker that nobody has registered is BROKER_ID_NOT_REGISTERED.
//! - Known difference: a lone broker is not forgotten before it is fenced (INVALID_REQUEST). Apache Kafka forgets it while it
//!   runs, and is left with topics that nobody leads.

use ottla_metadata::controller;
use ottla_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: UnregisterBrokerRequest) -> Outcome {
    let decided = context
        .broker
        .quorum
        .decide(move |desk| controller::unregister_broker(desk.image, desk.policy, &request));
    let response = decided.await.unwrap_or_else(|error| UnregisterBrokerResponse {
        error_code: context.submit_error(&error),
        error_message: Some(error.to_string().into()),
        ..UnregisterBrokerResponse::default()
    });
    context.answer(&response)
}
