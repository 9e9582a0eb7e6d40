//! Transactions, of which there are none.

use anyhow::Result;
use ottla_base::ErrorCode;
use ottla_protocol::messages::{
    DescribeTransactionsRequest, FindCoordinatorRequest, ListTransactionsRequest,
};

use super::super::both::Both;
use super::super::subject::Subject;
use super::versions;

const DURATION_SINCE: i16 = 1;
const PATTERN_SINCE: i16 = 2;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(wait_for_a_coordinator)?;
    for version in versions::<DescribeTransactionsRequest>() {
        for ids in [&[][..], &["a"], &["a", "b"], &["a", "a"], &[""]] {
            both.ask(version, &format!("transactions {ids:?}"), |_| DescribeTransactionsRequest {
                transactional_ids: ids.iter().map(|id| (*id).into()).collect(),
            })?;
        }
    }
    for version in versions::<ListTransactionsRequest>() {
        list(both, version)?;
    }
    Ok(())
}

fn list(both: &mut Both, version: i16) -> Result<()> {
    let all = ListTransactionsRequest::default();
    both.ask(version, "all", |_| all.clone())?;
    for states in [&["Ongoing"][..], &["Ongoing", "Empty"], &["ongoing"], &["x", "y", "x"], &[""]] {
        both.ask(version, &format!("states {states:?}"), |_| ListTransactionsRequest {
            state_filters: states.iter().map(|state| (*state).into()).collect(),
            ..all.clone()
        })?;
    }
    for state in [
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "PrepareEpochFence",
        "Dead",
    ] {
        both.ask(version, &format!("state {state}"), |_| ListTransactionsRequest {
            state_filters: vec![state.into()],
            ..all.clone()
        })?;
    }
    both.ask(version, "of producers", |_| ListTransactionsRequest {
        producer_id_filters: vec![0, -1],
        ..all.clone()
    })?;
    for duration_filter in
        [0, 1, i64::MIN, i64::MAX].into_iter().filter(|_| version >= DURATION_SINCE)
    {
        both.ask(version, &format!("older than {duration_filter} ms"), |_| {
            ListTransactionsRequest { duration_filter, ..all.clone() }
        })?;
    }
    for pattern in
        [None, Some(""), Some("a.*"), Some("(")].into_iter().filter(|_| version >= PATTERN_SINCE)
    {
        both.ask(version, &format!("pattern {pattern:?}"), |_| ListTransactionsRequest {
            transactional_id_pattern: pattern.map(Into::into),
            ..all.clone()
        })?;
    }
    Ok(())
}

/// Apache Kafka knows no transactional id, not even that it does not exist, before the topic of transactions is there.
fn wait_for_a_coordinator(subject: &mut Subject) -> Result<()> {
    let find = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["a".into(), "b".into()],
        ..Default::default()
    };
    let describe = DescribeTransactionsRequest { transactional_ids: vec!["a".into(), "b".into()] };
    subject.wait_for("a coordinator of transactions", |subject| {
        subject.expect(4, &find)?;
        let response = subject.expect(0, &describe)?;
        Ok(response
            .transaction_states
            .iter()
            .all(|state| state.error_code == ErrorCode::TRANSACTIONAL_ID_NOT_FOUND))
    })
}
