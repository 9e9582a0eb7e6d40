//! DescribeAcls (key 29), versions 1–3: who may do what; without an authorizer that is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.
//! - A client that says UNKNOWN loses its connection, as with Kafka.

use ottla_base::ErrorCode;
use ottla_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::Context;
use crate::answer::{CloseReason, Outcome};

/// The code of every kind that the client does not know itself.
pub(super) const UNKNOWN: i8 = 0;

pub(super) fn handle(context: Context, request: DescribeAclsRequest) -> Outcome {
    let DescribeAclsRequest { resource_type_filter, pattern_type_filter, .. } = request;
    let DescribeAclsRequest { operation, permission_type, .. } = request;
    if [resource_type_filter, pattern_type_filter, operation, permission_type].contains(&UNKNOWN) {
        return Outcome::Close(CloseReason::UnknownKind);
    }
    context.answer(&DescribeAclsResponse {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..DescribeAclsResponse::default()
    })
}
