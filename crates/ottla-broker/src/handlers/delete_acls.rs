//! DeleteAcls (key 31), versions 1–3: without an authorizer each filter is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.
//! - A client that says UNKNOWN loses its connection, as with Kafka.

use ottla_base::ErrorCode;
use ottla_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ottla_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use ottla_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::Context;
use super::describe_acls::UNKNOWN;
use crate::answer::{CloseReason, Outcome};

pub(super) fn handle(context: Context, request: DeleteAclsRequest) -> Outcome {
    let is_unknown = |acl: &DeleteAclsFilter| {
        [acl.resource_type_filter, acl.pattern_type_filter, acl.operation, acl.permission_type]
            .contains(&UNKNOWN)
    };
    if request.filters.iter().any(is_unknown) {
        return Outcome::Close(CloseReason::UnknownKind);
    }
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured.".into()),
        matching_acls: Vec::new(),
    };
    context.answer(&DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..DeleteAclsResponse::default()
    })
}
