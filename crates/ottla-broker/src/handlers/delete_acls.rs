//! DeleteAcls (key 31), versions 1–3: without an authorizer each filter is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.

use ottla_base::ErrorCode;
use ottla_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use ottla_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::Context;

pub(super) fn handle(_context: &Context, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured.".into()),
        matching_acls: Vec::new(),
    };
    DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..DeleteAclsResponse::default()
    }
}
