//! AlterConfigs (key 33), versions 0–2: replaces everything that a resource sets for itself.
//!
//! - All versions mean the same. Kafka deprecates it: who reads, changes and writes back loses what others changed in
//!   between, and all secrets, which are not shown.
//! - Answered once the change is in effect on this broker.

use ottla_metadata::Rejection;
use ottla_metadata::controller::{ConfigAnswer, ConfigChange, Operation};
use ottla_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ottla_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use ottla_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::config_changes::{ChangesConfigs, answer_of};

impl ChangesConfigs for AlterConfigsRequest {
    /// Levels of log lines do not change through this API.
    const LOG_LEVELS: bool = false;

    fn validate_only(&self) -> bool {
        self.validate_only
    }

    fn changes(&self) -> Vec<ConfigChange> {
        self.resources.iter().map(change).collect()
    }

    fn of(changes: &[ConfigChange], validate_only: bool) -> Self {
        let config =
            |it: &Operation| AlterableConfig { name: it.key.clone(), value: it.value.clone() };
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

    fn response(answers: Vec<ConfigAnswer>) -> AlterConfigsResponse {
        AlterConfigsResponse {
            responses: answers.into_iter().map(answer).collect(),
            ..AlterConfigsResponse::default()
        }
    }
}

fn change(resource: &AlterConfigsResource) -> ConfigChange {
    let operations = resource.configs.iter().map(|config| Operation {
        key: config.name.clone(),
        code: Operation::SET,
        value: config.value.clone(),
    });
    ConfigChange {
        kind: resource.resource_type,
        name: resource.resource_name.clone(),
        operations: operations.collect(),
        replaces_all: true,
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
