//! ElectLeaders (key 43), versions 0–2: preferred or other leaders for partitions; the controller decides.
//!
//! - v0 knows preferred leaders only. v1: unclean elections, and an error for the request as a whole.
//! - Null topics mean all partitions, of which those that need no election are left out.

use ottla_metadata::controller;
use ottla_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use super::Context;
use crate::answer::Outcome;

const ERROR_SINCE: i16 = 1;

pub(super) async fn handle(context: Context, request: ElectLeadersRequest) -> Outcome {
    let decide = context
        .broker
        .quorum
        .decide(move |desk| controller::elect_leaders(desk.image, desk.policy, &request));
    let mut response = decide.await.unwrap_or_else(|error| ElectLeadersResponse {
        error_code: context.submit_error(&error),
        ..ElectLeadersResponse::default()
    });
    if context.version < ERROR_SINCE {
        response.error_code = ottla_base::ErrorCode::NONE;
    }
    context.answer(&response)
}
