//! What a broker asks the controller, and how the controller decides it: the same, whether the request came over a socket or
//! not. Shell.

use ottla_base::ErrorCode;
use ottla_metadata::Rejection;
use ottla_protocol::Request;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use ottla_quorum::{Quorum, SubmitError};

use crate::handlers::submit_error;

/// A request that a broker makes by itself. How each is decided is in its API's file among the handlers.
pub(crate) trait ControllerRequest: Request + Clone + Send + Sync + 'static {
    /// What this node's controller says; NOT_CONTROLLER if it is not the active one.
    ///
    /// `version` is the request's.
    fn decide(self, quorum: &Quorum, version: i16) -> impl Future<Output = Self::Response> + Send;

    /// The error of an answer as a whole.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// The code of a refusal, of whatever kind. Brokers are told no messages; they are for the log.
pub(crate) fn refusal<T>(
    asked: &str,
    result: Result<Result<T, Rejection>, SubmitError>,
) -> Result<T, ErrorCode> {
    match result {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rejection)) => {
            tracing::warn!(%rejection, "{asked} refused");
            Err(rejection.code)
        }
        Err(error) => Err(submit_error(&error)),
    }
}

/// Topics that a broker wants by itself: those that are created automatically, and the cluster's own.
impl ControllerRequest for CreateTopicsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> CreateTopicsResponse {
        let names: Vec<_> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        quorum.create_topics(self).await.unwrap_or_else(|error| CreateTopicsResponse {
            topics: names
                .into_iter()
                .map(|name| CreatableTopicResult {
                    name,
                    error_code: submit_error(&error),
                    error_message: Some(error.to_string().into()),
                    ..CreatableTopicResult::default()
                })
                .collect(),
            ..CreateTopicsResponse::default()
        })
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
