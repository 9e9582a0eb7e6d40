//! What a broker asks the controller, and how the controller decides it: the same, whether the request came over a socket or
//! not. Shell.

use ottla_base::ErrorCode;
use ottla_metadata::Rejection;
use ottla_protocol::Request;
use ottla_quorum::{Quorum, SubmitError};

/// A request that a broker makes by itself. How each is decided is in its API's file among the handlers.
pub(crate) trait ControllerRequest: Request + Clone + Send + Sync + 'static {
    /// What this node's controller says; NOT_CONTROLLER if it is not the active one.
    ///
    /// `version` is the request's.
    fn decide(self, quorum: &Quorum, version: i16) -> impl Future<Output = Self::Response> + Send;

    /// The error of an answer as a whole.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// The code of a request's not having been taken. Who answers with it where a broker may have carried the request uses
/// `Context::submit_error`, or the broker does not look for another controller.
pub(crate) const fn code_of(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::NotController | SubmitError::Stopped => ErrorCode::NOT_CONTROLLER,
        SubmitError::Unwritable => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// The code of a refusal, of whatever kind. Brokers are told no messages; they are for the log.
pub(crate) fn refusal<T>(
    asked: &str,
    result: Result<Result<T, Rejection>, SubmitError>,
) -> Result<T, ErrorCode> {
    if let Ok(Err(rejection)) = &result {
        tracing::warn!(%rejection, "{asked} refused");
    }
    code_of_refusal(result)
}

/// The same, of what is in the log already: [`Quorum`] says which brokers it refuses, once and not each time that they ask.
pub(crate) fn code_of_refusal<T>(
    result: Result<Result<T, Rejection>, SubmitError>,
) -> Result<T, ErrorCode> {
    match result {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rejection)) => Err(rejection.code),
        Err(error) => Err(code_of(&error)),
    }
}
