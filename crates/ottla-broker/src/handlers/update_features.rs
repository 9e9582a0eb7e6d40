//! UpdateFeatures (key 57), versions 0–2: moves the levels of the cluster's features; the controller decides.
//!
//! - v1: upgrade types, and checks without a change. v2: no result for each feature.
//! - Known difference: only `metadata.version` is there, and only at the level that this release writes.

use ottla_metadata::controller;
use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: UpdateFeaturesRequest) -> Outcome {
    let version = context.version;
    let decide = context.broker.quorum.decide(move |desk| {
        controller::update_features(desk.image, desk.policy, &request, version)
    });
    let response = decide.await.unwrap_or_else(|error| UpdateFeaturesResponse {
        error_code: context.submit_error(&error),
        error_message: Some(error.to_string().into()),
        ..UpdateFeaturesResponse::default()
    });
    context.answer(&response)
}
