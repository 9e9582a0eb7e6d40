//! SaslAuthenticate (key 36), versions 0–2: on a listener without SASL it is ILLEGAL_SASL_STATE.

use ottla_base::ErrorCode;
use ottla_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::Context;

pub(super) fn handle(
    _context: &Context,
    _request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::ILLEGAL_SASL_STATE,
        error_message: Some(
            "SaslAuthenticate request received after successful authentication".into(),
        ),
        ..SaslAuthenticateResponse::default()
    }
}
