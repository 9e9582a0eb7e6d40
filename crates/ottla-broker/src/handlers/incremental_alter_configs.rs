//! IncrementalAlterConfigs (key 44), versions 0–1: sets, deletes, adds to and takes from single properties, at once.
//!
//! - Both versions mean the same.
//! - Answered once the change is in effect on this broker; it is there again after a restart, except for the levels
//!   of log lines.
//! - Known difference: an operation that nobody knows is refused for its resource (INVALID_REQUEST); Apache Kafka
//!   fails inside and takes all resources of the request with it.
//! - Known difference: a listener that serves clients and controllers takes changes for other brokers, as a controller does.
//! - Known difference: `listeners` and `listener.security.protocol.map` do not change while the broker runs, and a class of
//!   Java cannot be set.
//! - Known difference: of a broker's values those are looked at that change, and what they go together with; Apache Kafka also looks
//!   at the others of the same component, such as a `log.local.retention.ms` in the file that it has started with.
//! - Known difference: what no broker of this release could honour, as `config.providers`, is refused through a controller, too
//!   (INVALID_CONFIG); Apache Kafka's stores it.
//! - Known difference: a partition without a leader keeps its eligible leader replicas when its `min.insync.replicas` changes:
//!   nothing was acknowledged since. Apache Kafka forgets them, and such a partition waits for an unclean election.

use ottla_metadata::Rejection;
use ottla_metadata::controller::{ConfigAnswer, ConfigChange, Operation};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ottla_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::config_changes::{ChangesConfigs, answer_of};

impl ChangesConfigs for IncrementalAlterConfigsRequest {
    /// Levels of log lines change through this API only.
    const LOG_LEVELS: bool = true;

    fn validate_only(&self) -> bool {
        self.validate_only
    }

    fn changes(&self) -> Vec<ConfigChange> {
        self.resources.iter().map(change).collect()
    }

    fn of(changes: &[ConfigChange], validate_only: bool) -> Self {
        let config = |it: &Operation| AlterableConfig {
            name: it.key.clone(),
            config_operation: it.code,
            value: it.value.clone(),
        };
        let resource = |change: &ConfigChange| AlterConfigsResource {
            resource_type: change.kind,
            resource_name: change.name.clone(),
            configs: change.operations.iter().map(config).collect(),
        };
        Self { resources: changes.iter().map(resource).collect(), validate_only }
    }

    fn answers(response: Self::Response) -> Vec<ConfigAnswer> {
        let answer = |it: AlterConfigsResourceResponse| {
            answer_of(it.resource_type, it.resource_name, it.error_code, it.error_message)
        };
        response.responses.into_iter().map(answer).collect()
    }

    fn response(answers: Vec<ConfigAnswer>) -> IncrementalAlterConfigsResponse {
        IncrementalAlterConfigsResponse {
            responses: answers.into_iter().map(answer).collect(),
            ..IncrementalAlterConfigsResponse::default()
        }
    }
}

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
