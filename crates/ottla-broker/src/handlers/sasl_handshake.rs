//! SaslHandshake (key 17), versions 0–1: on a listener without SASL it is ILLEGAL_SASL_STATE.

use ottla_base::ErrorCode;
use ottla_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::Context;

pub(super) fn handle(_context: &Context, _request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse {
        error_code: ErrorCode::ILLEGAL_SASL_STATE,
        ..SaslHandshakeResponse::default()
    }
}
