//! DeleteTopics (key 20), versions 1–6: the controller decides, this only carries the request there and back.
//!
//! - v4: a disabled deletion is TOPIC_DELETION_DISABLED. v5: error messages. v6: topics by id.

use ottla_metadata::controller;
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;
use ottla_protocol::messages::delete_topics_response::DeletableTopicResult;
use ottla_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: DeleteTopicsRequest) -> Outcome {
    let asked = asked(&request);
    let version = context.version;
    let decided = context
        .broker
        .quorum
        .decide(move |desk| controller::delete_topics(desk.image, desk.policy, &request, version));
    let response = decided.await.unwrap_or_else(|error| DeleteTopicsResponse {
        responses: asked
            .into_iter()
            .map(|topic| DeletableTopicResult {
                name: topic.name,
                topic_id: topic.topic_id,
                error_code: context.submit_error(&error),
                error_message: Some(error.to_string().into()),
            })
            .collect(),
        ..DeleteTopicsResponse::default()
    });
    context.answer(&response)
}

/// What is to be deleted, whichever way the version says it.
fn asked(request: &DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    let by_name = request
        .topic_names
        .iter()
        .map(|name| DeleteTopicState { name: Some(name.clone()), ..DeleteTopicState::default() });
    request.topics.iter().cloned().chain(by_name).collect()
}
