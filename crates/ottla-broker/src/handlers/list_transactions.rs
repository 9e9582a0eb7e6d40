//! ListTransactions (key 66), versions 0–2: the transactions that this broker coordinates; there are none yet.
//!
//! - v1: by duration. v2: by a pattern of the transactional id.
//! - States that nobody knows are named in the answer.
//! - Known difference: a pattern is not looked at, for want of anything that it could match.

use ottla_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};

use super::Context;

const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "PrepareEpochFence",
    "Dead",
];

pub(super) fn handle(
    _context: &Context,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let mut unknown: Vec<_> =
        request.state_filters.into_iter().filter(|state| !STATES.contains(&&**state)).collect();
    unknown.sort();
    unknown.dedup();
    ListTransactionsResponse {
        unknown_state_filters: unknown,
        ..ListTransactionsResponse::default()
    }
}
