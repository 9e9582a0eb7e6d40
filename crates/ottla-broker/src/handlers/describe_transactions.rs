//! DescribeTransactions (key 65), version 0: the state of transactions; there are none yet.
//!
//! - A transactional id that nobody uses is TRANSACTIONAL_ID_NOT_FOUND, an empty one INVALID_REQUEST.

use ottla_base::ErrorCode;
use ottla_protocol::messages::describe_transactions_response::TransactionState;
use ottla_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use super::Context;

pub(super) fn handle(
    _context: &Context,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|transactional_id| TransactionState {
        error_code: if transactional_id.is_empty() {
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::TRANSACTIONAL_ID_NOT_FOUND
        },
        transactional_id,
        ..TransactionState::default()
    });
    DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..DescribeTransactionsResponse::default()
    }
}
