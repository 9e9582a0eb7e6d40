//! DescribeUserScramCredentials (key 50), version 0: which users have SCRAM credentials; none have.
//!
//! - No users, or null, means all. A user without credentials is RESOURCE_NOT_FOUND, one named twice
//!   DUPLICATE_RESOURCE.
//! - AlterUserScramCredentials is not served: nobody could log in with what it stores.

use std::collections::BTreeMap;

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use ottla_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::Context;

pub(super) fn handle(
    _context: &Context,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let users = request.users.unwrap_or_default();
    let mut times = BTreeMap::<_, usize>::new();
    for user in &users {
        *times.entry(&user.name).or_default() += 1;
    }
    let result = |(user, times): (&ByteString, usize)| {
        let (error_code, message) = if times > 1 {
            let message =
                "Cannot describe SCRAM credentials for the same user twice in a single request: ";
            (ErrorCode::DUPLICATE_RESOURCE, message)
        } else {
            let message = "Attempt to describe a user credential that does not exist: ";
            (ErrorCode::RESOURCE_NOT_FOUND, message)
        };
        DescribeUserScramCredentialsResult {
            error_code,
            error_message: Some(format!("{message}{user}").into()),
            user: user.clone(),
            ..DescribeUserScramCredentialsResult::default()
        }
    };
    DescribeUserScramCredentialsResponse {
        results: times.into_iter().map(result).collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}
