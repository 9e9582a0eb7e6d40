//! CreateAcls (key 30), versions 1–3: without an authorizer each of them is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.
//! - A client that says UNKNOWN loses its connection, as with Kafka.

use ottla_base::ErrorCode;
use ottla_protocol::messages::create_acls_request::AclCreation;
use ottla_protocol::messages::create_acls_response::AclCreationResult;
use ottla_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::Context;
use super::describe_acls::UNKNOWN;
use crate::answer::{CloseReason, Outcome};

pub(super) fn handle(context: Context, request: CreateAclsRequest) -> Outcome {
    let is_unknown = |acl: &AclCreation| {
        [acl.resource_type, acl.resource_pattern_type, acl.operation, acl.permission_type]
            .contains(&UNKNOWN)
    };
    if request.creations.iter().any(is_unknown) {
        return Outcome::Close(CloseReason::UnknownKind);
    }
    let refused = AclCreationResult {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured.".into()),
    };
    context.answer(&CreateAclsResponse {
        results: vec![refused; request.creations.len()],
        ..CreateAclsResponse::default()
    })
}
