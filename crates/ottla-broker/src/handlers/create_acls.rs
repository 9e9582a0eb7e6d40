//! CreateAcls (key 30), versions 1–3: without an authorizer each of them is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.

use ottla_base::ErrorCode;
use ottla_protocol::messages::create_acls_response::AclCreationResult;
use ottla_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::Context;

pub(super) fn handle(_context: &Context, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured.".into()),
    };
    CreateAclsResponse {
        results: vec![refused; request.creations.len()],
        ..CreateAclsResponse::default()
    }
}
