//! Transactions, of which there are none.

use anyhow::{Result, ensure};
use ottla_base::ErrorCode;
use ottla_protocol::messages::{
    DescribeTransactionsRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ListTransactionsRequest,
};

use super::super::both::Both;
use super::super::subject::Subject;
use super::versions;

const DURATION_SINCE: i16 = 1;
const PATTERN_SINCE: i16 = 2;
/// Apache Kafka knows this one from then on.
const BEGUN: &str = "begun";

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
    begin(both)
}

/// What a client asks first is refused once and for all: UNSUPPORTED_VERSION is no reason to ask again.
fn begin(both: &mut Both) -> Result<()> {
    for version in versions::<FindCoordinatorRequest>().filter(|version| *version >= 1) {
        let mut find = FindCoordinatorRequest { key_type: 1, ..Default::default() };
        if version < 4 {
            find.key = BEGUN.into();
        } else {
            find.coordinator_keys = vec![BEGUN.into()];
        }
        let [_, ottla] = both.ask(version, "for transactions", |_| find.clone())?;
        let code = ottla.map(|answer| {
            answer.coordinators.first().map_or(answer.error_code, |first| first.error_code)
        });
        ensure!(code == Some(ErrorCode::UNSUPPORTED_VERSION), "{code:?}");
    }
    for version in versions::<InitProducerIdRequest>() {
        let [_, ottla] = both.ask(version, "for transactions", |_| InitProducerIdRequest {
            transactional_id: Some(BEGUN.into()),
            transaction_timeout_ms: 1_000,
            producer_id: (-1).into(),
            producer_epoch: -1,
            ..Default::default()
        })?;
        let code = ottla.map(|answer| answer.error_code);
        ensure!(code == Some(ErrorCode::UNSUPPORTED_VERSION), "{code:?}");
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
pub(super) fn wait_for_a_coordinator(subject: &mut Subject) -> Result<()> {
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
