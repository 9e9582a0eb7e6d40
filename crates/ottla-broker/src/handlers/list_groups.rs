//! ListGroups (key 16), versions 0–5: the groups that this broker coordinates.
//!
//! - v4: state, and filtered by state. v5: type, and filtered by type. Case does not matter.

use std::sync::Arc;

use ottla_coordinator::group::{self, Query};
use ottla_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: ListGroupsRequest) -> Outcome {
    let asked = group::ListGroups::new(&request.states_filter, &request.types_filter);
    let asked = Arc::new(asked);
    let listed = context.broker.groups.query_all(|| Query::List(Arc::clone(&asked))).await;
    context.answer(&match listed {
        Ok(groups) => ListGroupsResponse { groups, ..ListGroupsResponse::default() },
        Err(error_code) => ListGroupsResponse { error_code, ..ListGroupsResponse::default() },
    })
}
