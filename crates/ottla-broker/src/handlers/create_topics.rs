//! CreateTopics (key 19), versions 2–7: the controller decides, this only carries the request there and back.
//!
//! - v5: the answer has partitions, replication factor and configuration. v7: the topic id.
//! - Known difference: the answer comes after the node of the active controller has applied the new topics (Apache Kafka
//!   may answer before); in a cluster of one a client can produce to them at once.

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_metadata::{controller, topic_name};
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use ottla_quorum::{Desk, Quorum, SubmitError};

use super::Context;
use super::impatience::{has_no_time, names_any_once};
use crate::answer::Outcome;
use crate::controller_requests::{ControllerRequest, code_of};

pub(super) async fn handle(context: Context, request: CreateTopicsRequest) -> Outcome {
    if has_no_time(request.timeout_ms) && asks_the_controller(&request) {
        return context.answer(&timed_out(&request));
    }
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let response = decide(&context.broker.quorum, request).await;
    let response =
        response.unwrap_or_else(|error| refused(names, context.submit_error(&error), &error));
    context.answer(&response)
}

/// Whether there is anything that the controller has to decide.
fn asks_the_controller(request: &CreateTopicsRequest) -> bool {
    let names = request.topics.iter().map(|topic| &*topic.name);
    names_any_once(names.filter(|name| *name != topic_name::CLUSTER_METADATA))
}

/// Topics that a broker wants by itself: those that are created automatically, and the cluster's own.
impl ControllerRequest for CreateTopicsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> CreateTopicsResponse {
        let names: Vec<_> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let response = decide(quorum, self).await;
        response.unwrap_or_else(|error| refused(names, code_of(&error), &error))
    }

    /// There is none for the whole; a controller that does not lead says so for each topic.
    fn error_of(response: &CreateTopicsResponse) -> ErrorCode {
        let is_refused =
            |topic: &CreatableTopicResult| topic.error_code == ErrorCode::NOT_CONTROLLER;
        if response.topics.iter().any(is_refused) {
            return ErrorCode::NOT_CONTROLLER;
        }
        ErrorCode::NONE
    }
}

async fn decide(
    quorum: &Quorum,
    request: CreateTopicsRequest,
) -> Result<CreateTopicsResponse, SubmitError> {
    let decide = move |desk: &mut Desk<'_>| {
        controller::create_topics(desk.image, desk.policy, &request, desk.draw)
    };
    quorum.decide(decide).await
}

/// The controller has not taken the request.
fn refused(
    names: Vec<ByteString>,
    error_code: ErrorCode,
    error: &SubmitError,
) -> CreateTopicsResponse {
    let topics = names.into_iter().map(|name| CreatableTopicResult {
        name,
        error_code,
        error_message: Some(error.to_string().into()),
        ..CreatableTopicResult::default()
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}

fn timed_out(request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let topics = request.topics.iter().map(|topic| CreatableTopicResult {
        name: topic.name.clone(),
        error_code: ErrorCode::REQUEST_TIMED_OUT,
        num_partitions: -1,
        replication_factor: -1,
        error_message: None,
        ..CreatableTopicResult::default()
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}
