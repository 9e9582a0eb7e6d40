//! What AlterConfigs and IncrementalAlterConfigs have in common: this broker's log levels are changed here, everything
//! else by the controller, and this broker's own properties not before it has looked at them itself. Other brokers' are
//! theirs to look at; who asks a controller means those, too, and asks here where no listener is for controllers alone.

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode};
use ottla_metadata::controller::{
    self, ConfigAnswer, ConfigChange, Policy, Via, check_own_configs, screen_config_changes,
};
use ottla_metadata::{ConfigResource, Rejection};
use ottla_protocol::Request;
use ottla_protocol::frame::{decode_response, encode_request};

use super::Context;
use super::call::FORWARDING_MAX;
use crate::answer::Outcome;
use crate::controller_channel::Forwarded;
use crate::listener::Role;

/// A request of the two that change configurations.
pub(super) trait ChangesConfigs: Request + Send + 'static {
    /// Whether it changes the levels of log lines.
    const LOG_LEVELS: bool;

    fn validate_only(&self) -> bool;
    fn changes(&self) -> Vec<ConfigChange>;
    /// What is left for a controller elsewhere.
    fn of(changes: &[ConfigChange], validate_only: bool) -> Self;
    /// What that has answered.
    fn answers(response: Self::Response) -> Vec<ConfigAnswer>;
    fn response(answers: Vec<ConfigAnswer>) -> Self::Response;
}

pub(super) async fn handle<R: ChangesConfigs>(context: Context, request: R) -> Outcome {
    let answers = carry_out::<R>(&context, request.changes(), request.validate_only()).await;
    context.answer(&R::response(answers))
}

/// Changes what can be changed. Through a broker, here or elsewhere, there is one answer per change, in their order; through a
/// controller's there is one per resource.
async fn carry_out<R: ChangesConfigs>(
    context: &Context,
    changes: Vec<ConfigChange>,
    validate_only: bool,
) -> Vec<ConfigAnswer> {
    let (via, screened) = match context.listener.role {
        Role::Controller if context.carried.is_some() => {
            (Via::AnotherBroker, screen_config_changes(&changes))
        }
        Role::Broker if context.listener.serves_controllers => {
            (Via::Shared, screen_config_changes(&changes))
        }
        Role::Broker => (Via::Broker, screen_config_changes(&changes)),
        Role::Controller => (Via::Controller, vec![None; changes.len()]),
    };
    // What is answered already, and what is left for the controller, in turn.
    let mut answers: Vec<Option<ConfigAnswer>> = Vec::with_capacity(changes.len());
    let mut left = Vec::new();
    let is_carried = context.listener.role == Role::Broker && !context.broker.controller.is_here();
    // Why this broker does not hand a change to its controller. One that is here looks itself.
    let own_policy =
        is_carried.then(|| Policy::from_settings(context.broker.configuration.settings.clone()));
    let own_refusal = |change: &ConfigChange| {
        check_own_configs(&context.broker.image(), own_policy.as_ref()?, change, via).err()
    };
    for (change, refusal) in changes.into_iter().zip(screened) {
        answers.push(if refusal.is_some() {
            Some(ConfigAnswer::of(&change, refusal))
        } else if R::LOG_LEVELS && change.kind == ConfigResource::BROKER_LOGGER {
            let refusal = change_log_levels(context, &change, validate_only).err();
            Some(ConfigAnswer::of(&change, refusal))
        } else if let Some(refusal) = own_refusal(&change) {
            Some(ConfigAnswer::of(&change, Some(refusal)))
        } else {
            left.push(change);
            None
        });
    }
    let decided = if is_carried {
        carry::<R>(context, left, via, validate_only).await
    } else {
        decide(context, left, via, validate_only).await
    };
    let mut decided = decided.into_iter();
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

/// What a controller elsewhere has answered about one resource.
pub(super) fn answer_of(
    kind: i8,
    name: ByteString,
    code: ErrorCode,
    message: Option<ByteString>,
) -> ConfigAnswer {
    let rejection = || Rejection::new(code, message.unwrap_or_default());
    ConfigAnswer { kind, name, rejection: code.is_error().then(rejection) }
}

/// Has the controller decide, which is another node.
async fn carry<R: ChangesConfigs>(
    context: &Context,
    changes: Vec<ConfigChange>,
    via: Via,
    validate_only: bool,
) -> Vec<ConfigAnswer> {
    if changes.is_empty() {
        return Vec::new();
    }
    let refuse = |code: ErrorCode| {
        let rejection = Rejection::new(code, code.to_string());
        changes.iter().map(|it| ConfigAnswer::of(it, Some(rejection.clone()))).collect()
    };
    let (version, client_id) = (context.version, context.client_id.clone());
    let request = R::of(&changes, validate_only);
    let Ok(frame) = encode_request(version, context.correlation_id, client_id, &request) else {
        return refuse(ErrorCode::INVALID_REQUEST);
    };
    // Without its length.
    let frame = frame.bytes.slice(size_of::<i32>()..);
    let deadline = tokio::time::Instant::now() + FORWARDING_MAX;
    match context.broker.controller.forward(frame, context.peer, deadline).await {
        Ok(Forwarded::Answer(answer)) => match decode_response::<R>(answer, version) {
            Ok((_, response)) => R::answers(response),
            Err(_) => refuse(ErrorCode::UNKNOWN_SERVER_ERROR),
        },
        Ok(Forwarded::Here) => decide(context, changes, via, validate_only).await,
        Err(error) => {
            tracing::debug!(api = R::NAME, %error, "not forwarded");
            refuse(error.code())
        }
    }
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
    let voters: Vec<BrokerId> = context.broker.quorum.voters().iter().map(|it| it.id).collect();
    let decided = context.broker.quorum.decide(move |desk| {
        controller::alter_configs(desk.image, desk.policy, &voters, &changes, via, validate_only)
    });
    decided.await.unwrap_or_else(|error| {
        let rejection = Rejection::new(context.submit_error(&error), error.to_string());
        let answer = |(kind, name)| ConfigAnswer { kind, name, rejection: Some(rejection.clone()) };
        refused.into_iter().map(answer).collect()
    })
}
