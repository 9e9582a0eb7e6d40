//! DeleteTopics (key 20), versions 1–6: the controller decides, this only carries the request there and back.
//!
//! - v4: a disabled deletion is TOPIC_DELETION_DISABLED. v5: error messages. v6: topics by id.

use bytestring::ByteString;
use ottla_base::{ErrorCode, Uuid};
use ottla_metadata::controller;
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;
use ottla_protocol::messages::delete_topics_response::DeletableTopicResult;
use ottla_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::Context;
use super::impatience::{has_no_time, names_any_once};
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: DeleteTopicsRequest) -> Outcome {
    let asked = asked(&request);
    let version = context.version;
    let late = (has_no_time(request.timeout_ms) && asks_the_controller(&asked))
        .then(|| refuse(asked.clone(), ErrorCode::REQUEST_TIMED_OUT, None));
    let decided = context.broker.quorum.decide(move |desk| match late {
        // Where nothing is ever deleted, that is said whatever the time.
        Some(timed_out) if desk.policy.delete_topic_enable => {
            controller::Outcome::unchanged(timed_out)
        }
        _ => controller::delete_topics(desk.image, desk.policy, &request, version),
    });
    let response = decided.await.unwrap_or_else(|error| {
        refuse(asked, context.submit_error(&error), Some(error.to_string().into()))
    });
    context.answer(&response)
}

/// Whether there is anything that the controller has to look up.
fn asks_the_controller(asked: &[DeleteTopicState]) -> bool {
    let names = asked.iter().filter(|topic| topic.topic_id == Uuid::ZERO);
    let ids = asked.iter().filter(|topic| topic.name.is_none() && topic.topic_id != Uuid::ZERO);
    names_any_once(names.filter_map(|topic| topic.name.as_deref()))
        || names_any_once(ids.map(|topic| topic.topic_id))
}

fn refuse(
    asked: Vec<DeleteTopicState>,
    error_code: ErrorCode,
    error_message: Option<ByteString>,
) -> DeleteTopicsResponse {
    let responses = asked.into_iter().map(|topic| DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        error_code,
        error_message: error_message.clone(),
    });
    DeleteTopicsResponse { responses: responses.collect(), ..DeleteTopicsResponse::default() }
}

/// What is to be deleted, whichever way the version says it.
fn asked(request: &DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    let by_name = request
        .topic_names
        .iter()
        .map(|name| DeleteTopicState { name: Some(name.clone()), ..DeleteTopicState::default() });
    request.topics.iter().cloned().chain(by_name).collect()
}
