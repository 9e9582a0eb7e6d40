//! InitProducerId (key 22), versions 0–5: an id for an idempotent producer.
//!
//! - Version 6 is unstable in Kafka 4.3 and not served.
//! - Known difference: transactions are not there yet; a transactional id is refused with
//!   UNSUPPORTED_VERSION, which clients report at once, but librdkafka after its own timeout.

use ottla_base::ErrorCode;
use ottla_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: InitProducerIdRequest) -> Outcome {
    let result = if !is_well_formed(&request) {
        Err(ErrorCode::INVALID_REQUEST)
    } else if request.transactional_id.is_some() {
        Err(ErrorCode::UNSUPPORTED_VERSION)
    } else {
        context.broker.next_producer_id().await
    };
    let (error_code, producer_id, producer_epoch) = match result {
        Ok(id) => (ErrorCode::NONE, id.0, 0),
        Err(code) => (code, -1, -1),
    };
    context.answer(&InitProducerIdResponse {
        error_code,
        producer_id,
        producer_epoch,
        ..InitProducerIdResponse::default()
    })
}

/// A producer that bumps its epoch names both its id and its epoch, any other neither.
fn is_well_formed(request: &InitProducerIdRequest) -> bool {
    let names_id = request.producer_id != -1;
    let names_epoch = request.producer_epoch != -1;
    names_id == names_epoch && request.transactional_id.as_deref() != Some("")
}
