//! ControllerRegistration (key 70), version 0: a controller says where it listens and which features it knows.
//!
//! - Controllers only, for brokers and each other.
//! - Known difference: a controller that lacks a finalized level of a feature is refused (UNSUPPORTED_VERSION), as a broker is, and its
//!   start ends with that. Apache Kafka notes it, and it fails on the level itself.

use ottla_base::ErrorCode;
use ottla_metadata::{Rejection, controller};
use ottla_protocol::messages::{ControllerRegistrationRequest, ControllerRegistrationResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, code_of};

impl ControllerRequest for ControllerRegistrationRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> ControllerRegistrationResponse {
        let decided =
            quorum.decide_or_reject(move |desk| controller::register_controller(desk.image, &self));
        match decided.await {
            Ok(Ok(())) => ControllerRegistrationResponse::default(),
            Ok(Err(rejection)) => {
                let (error_code, error_message) = Rejection::fields(Some(rejection));
                ControllerRegistrationResponse {
                    error_code,
                    error_message,
                    ..ControllerRegistrationResponse::default()
                }
            }
            Err(error) => ControllerRegistrationResponse {
                error_code: code_of(&error),
                error_message: Some(error.to_string().into()),
                ..ControllerRegistrationResponse::default()
            },
        }
    }

    fn error_of(response: &ControllerRegistrationResponse) -> ErrorCode {
        response.error_code
    }
}
