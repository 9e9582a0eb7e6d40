//! CreatePartitions (key 37), versions 0–3: topics get more partitions; the controller decides.
//!
//! - All versions mean the same.
//! - Known difference: the answer comes after the node of the active controller has made its logs (Apache Kafka may
//!   answer before).
//! - Known difference: more than 10,000 new partitions at once are refused with POLICY_VIOLATION; Apache Kafka makes the
//!   first 10,000 and answers UNKNOWN_SERVER_ERROR.

use ottla_base::ErrorCode;
use ottla_metadata::controller;
use ottla_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ottla_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::Context;
use super::impatience::{has_no_time, names_any_once};
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: CreatePartitionsRequest) -> Outcome {
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let fail_all = |error_code: ErrorCode, message: Option<String>| CreatePartitionsResponse {
        results: names
            .iter()
            .map(|name| CreatePartitionsTopicResult {
                name: name.clone(),
                error_code,
                error_message: message.clone().map(Into::into),
            })
            .collect(),
        ..CreatePartitionsResponse::default()
    };
    if has_no_time(request.timeout_ms) && names_any_once(&names) {
        return context.answer(&fail_all(ErrorCode::REQUEST_TIMED_OUT, None));
    }
    let decide = context
        .broker
        .quorum
        .decide(move |desk| controller::create_partitions(desk.image, &request, desk.draw));
    let response = decide
        .await
        .unwrap_or_else(|error| fail_all(context.submit_error(&error), Some(error.to_string())));
    context.answer(&response)
}
