//! What AlterConfigs and IncrementalAlterConfigs have in common: this broker's log levels are changed here, everything
//! else by the controller.

use ottla_base::ErrorCode;
use ottla_metadata::controller::{self, ConfigAnswer, ConfigChange, Via, screen_config_changes};
use ottla_metadata::{ConfigResource, Rejection};

use super::Context;
use crate::listener::Role;

/// Changes what can be changed. Through a broker, here or elsewhere, there is one answer per change, in their order; through a
/// controller's there is one per resource.
pub(super) async fn carry_out(
    context: &Context,
    changes: Vec<ConfigChange>,
    validate_only: bool,
    log_levels: bool,
) -> Vec<ConfigAnswer> {
    let (via, screened) = match context.listener.role {
        Role::Controller if context.carried.is_some() => {
            (Via::Broker, screen_config_changes(&changes))
        }
        Role::Broker => (Via::Broker, screen_config_changes(&changes)),
        Role::Controller => (Via::Controller, vec![None; changes.len()]),
    };
    // What is answered already, and what is left for the controller, in turn.
    let mut answers: Vec<Option<ConfigAnswer>> = Vec::with_capacity(changes.len());
    let mut left = Vec::new();
    for (change, refusal) in changes.into_iter().zip(screened) {
        answers.push(if refusal.is_some() {
            Some(ConfigAnswer::of(&change, refusal))
        } else if log_levels && change.kind == ConfigResource::BROKER_LOGGER {
            let refusal = change_log_levels(context, &change, validate_only).err();
            Some(ConfigAnswer::of(&change, refusal))
        } else {
            left.push(change);
            None
        });
    }
    let mut decided = decide(context, left, via, validate_only).await.into_iter();
    let mut all: Vec<ConfigAnswer> =
        answers.into_iter().filter_map(|answer| answer.or_else(|| decided.next())).collect();
    all.extend(decided);
    all
}

fn change_log_levels(
    context: &Context,
    change: &ConfigChange,
    validate_only: bool,
) -> Result<(), Rejection> {
    let invalid = |message| Rejection::new(ErrorCode::INVALID_REQUEST, message);
    let (name, node_id) = (&change.name, context.broker.node_id);
    let id: i32 = name
        .parse()
        .map_err(|_| invalid(format!("Node id must be an integer, but it is: {name}")))?;
    if id != node_id.0 {
        let message = format!("Unexpected node id. Expected {node_id}, but received {id}");
        return Err(invalid(message));
    }
    context.broker.log_levels.alter(&change.operations, validate_only)
}

async fn decide(
    context: &Context,
    changes: Vec<ConfigChange>,
    via: Via,
    validate_only: bool,
) -> Vec<ConfigAnswer> {
    if changes.is_empty() {
        return Vec::new();
    }
    let refused: Vec<_> = changes.iter().map(|change| (change.kind, change.name.clone())).collect();
    let decided = context.broker.quorum.decide(move |desk| {
        controller::alter_configs(desk.image, desk.policy, &changes, via, validate_only)
    });
    decided.await.unwrap_or_else(|error| {
        let rejection = Rejection::new(context.submit_error(&error), error.to_string());
        let answer = |(kind, name)| ConfigAnswer { kind, name, rejection: Some(rejection.clone()) };
        refused.into_iter().map(answer).collect()
    })
}
