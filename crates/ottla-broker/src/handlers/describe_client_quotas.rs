//! DescribeClientQuotas (key 48), versions 0–1: the quotas of users, clients and addresses; there are none.
//!
//! - v1: flexible encoding.
//! - AlterClientQuotas is not served: nothing would be throttled. The filter is checked as Apache Kafka checks it.

use std::collections::BTreeSet;

use ottla_base::ErrorCode;
use ottla_metadata::Rejection;
use ottla_protocol::messages::describe_client_quotas_request::ComponentData;
use ottla_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use super::Context;

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

const IP: &str = "ip";
const ENTITY_TYPES: [&str; 3] = [IP, "user", "client-id"];

pub(super) fn handle(
    _context: &Context,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    match check(&request.components) {
        Ok(()) => DescribeClientQuotasResponse {
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        },
        Err(Rejection { code, message }) => DescribeClientQuotasResponse {
            error_code: code,
            error_message: Some(message.into()),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    }
}

fn check(components: &[ComponentData]) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    for component in components {
        let kind = &*component.entity_type;
        if kind.is_empty() {
            return Err(invalid("Invalid empty entity type."));
        }
        if !seen.insert(kind) {
            let message = format!("Entity type {kind} cannot appear more than once in the filter.");
            return Err(invalid(message));
        }
        if !ENTITY_TYPES.contains(&kind) {
            let message = format!("Unsupported entity type {kind}");
            return Err(Rejection::new(ErrorCode::UNSUPPORTED_VERSION, message));
        }
        check_match(component)?;
    }
    if seen.contains(IP) && seen.len() > 1 {
        return Err(invalid(
            "Invalid entity filter component combination. IP filter component should not be used \
             with user or clientId filter component.",
        ));
    }
    Ok(())
}

fn check_match(component: &ComponentData) -> Result<(), Rejection> {
    let specified = |name: &str| {
        invalid(format!("Request specified {name}, but also specified a match string."))
    };
    match (component.match_type, &component.r#match) {
        (EXACT, Some(_)) | (DEFAULT | SPECIFIED, None) => Ok(()),
        (EXACT, None) => {
            Err(invalid("Request specified MATCH_TYPE_EXACT, but set match string to null."))
        }
        (DEFAULT, Some(_)) => Err(specified("MATCH_TYPE_DEFAULT")),
        (SPECIFIED, Some(_)) => Err(specified("MATCH_TYPE_SPECIFIED")),
        (other, _) => Err(invalid(format!("Unknown match type {other}"))),
    }
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::INVALID_REQUEST, message)
}
