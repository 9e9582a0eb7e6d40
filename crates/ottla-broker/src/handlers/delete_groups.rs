//! DeleteGroups (key 42), versions 0–2: groups without members go, and their offsets with them.

use bytestring::ByteString;
use ottla_base::ErrorCode;
use ottla_coordinator::group::Request;
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::Context;
use crate::answer::Outcome;

pub(super) async fn handle(context: Context, request: DeleteGroupsRequest) -> Outcome {
    let mut ids = request.groups_names;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let mut results = Vec::with_capacity(ids.len());
    for ids in context.broker.groups.by_partition(ids) {
        results.extend(delete(&context, ids).await);
    }
    context.answer(&DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() })
}

/// Groups of one partition.
async fn delete(context: &Context, groups: Vec<ByteString>) -> Vec<DeletableGroupResult> {
    let Some(first) = groups.first().cloned() else { return Vec::new() };
    let request = Request::DeleteGroups(groups.clone());
    let deleted = context.broker.groups.ask(&first, request).await;
    let refuse =
        |error_code: ErrorCode| move |group_id| DeletableGroupResult { group_id, error_code };
    deleted.unwrap_or_else(|error| groups.into_iter().map(refuse(error)).collect())
}
