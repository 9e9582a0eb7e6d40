//! IncrementalAlterConfigs (key 44), versions 0–1: sets, deletes, adds to and takes from single properties, at once.
//!
//! - Both versions mean the same.
//! - Answered once the change is in effect on this broker; it is there again after a restart, except for the levels
//!   of log lines.
//! - Known difference: an operation that nobody knows is refused for its resource (INVALID_REQUEST); Apache Kafka
//!   fails inside and takes all resources of the request with it.
//! - Known difference: `listeners` and `listener.security.protocol.map` do not change while the broker runs, and a class of
//!   Java cannot be set.

use ottla_metadata::controller::{ConfigAnswer, ConfigChange, Operation};
use ottla_metadata::{ConfigResource, Rejection};
use ottla_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use ottla_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ottla_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use ottla_protocol::{ApiKey, Decoder, Message as _};

use super::{Context, config_changes};
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: IncrementalAlterConfigsRequest) -> Outcome {
    let changes = request.resources.iter().map(change).collect();
    let answers =
        config_changes::carry_out(&context, changes, request.validate_only, LOG_LEVELS).await;
    context.answer(&IncrementalAlterConfigsResponse {
        responses: answers.into_iter().map(answer).collect(),
        ..IncrementalAlterConfigsResponse::default()
    })
}

/// Whether a request is about a broker's log levels, which that broker changes itself. Clients ask for nothing else at the
/// same time, as they send such a request to that broker.
pub(super) fn is_about_log_levels(context: &Context, body: &Decoder) -> bool {
    context.api_key == ApiKey::IncrementalAlterConfigs
        && IncrementalAlterConfigsRequest::decode(&mut body.clone(), context.version).is_ok_and(
            |request| {
                let is_logger =
                    |it: &AlterConfigsResource| it.resource_type == ConfigResource::BROKER_LOGGER;
                request.resources.iter().any(is_logger)
            },
        )
}

/// Levels of log lines change through this API only.
const LOG_LEVELS: bool = true;

fn change(resource: &AlterConfigsResource) -> ConfigChange {
    let operations = resource.configs.iter().map(|config| Operation {
        key: config.name.clone(),
        code: config.config_operation,
        value: config.value.clone(),
    });
    ConfigChange {
        kind: resource.resource_type,
        name: resource.resource_name.clone(),
        operations: operations.collect(),
        replaces_all: false,
    }
}

fn answer(answer: ConfigAnswer) -> AlterConfigsResourceResponse {
    let (error_code, error_message) = Rejection::fields(answer.rejection);
    AlterConfigsResourceResponse {
        error_code,
        error_message,
        resource_type: answer.kind,
        resource_name: answer.name,
    }
}
