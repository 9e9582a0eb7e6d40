//! DescribeAcls (key 29), versions 1–3: who may do what; without an authorizer that is SECURITY_DISABLED.
//!
//! - v2: flexible encoding. v3: users as resources.

use ottla_base::ErrorCode;
use ottla_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::Context;

pub(super) fn handle(_context: &Context, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SECURITY_DISABLED,
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..DescribeAclsResponse::default()
    }
}
