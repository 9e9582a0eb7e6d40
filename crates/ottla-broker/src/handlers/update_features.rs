//! UpdateFeatures (key 57), versions 0–2: moves the levels of the cluster's features; the controller decides.
//!
//! - v1: upgrade types, and checks without a change. v2: no result for each feature.
//! - A level that a registered broker or controller does not understand is refused, or while a voter is not registered.
//! - Known difference: `kraft.version` may be asked for at the level that it has, and moves nowhere (INVALID_UPDATE_VERSION).
//!   Apache Kafka moves it from 0 to 1.
//! - Known difference: of Kafka's other features `metadata.version` is there, only at the level that this release writes, and
//!   `eligible.leader.replicas.version`. When the latter goes back to 0 with partitions that nobody leads, their eligible
//!   replicas become their ISR, where Apache Kafka leaves the ISR empty.

use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: UpdateFeaturesRequest) -> Outcome {
    let version = context.version;
    let response = context.broker.quorum.update_features(request, version).await;
    let response = response.unwrap_or_else(|error| UpdateFeaturesResponse {
        error_code: context.submit_error(&error),
        error_message: Some(error.to_string().into()),
        ..UpdateFeaturesResponse::default()
    });
    context.answer(&response)
}
