//! Ids for producers without transactions.

use anyhow::Result;
use ottla_protocol::messages::InitProducerIdRequest;

use super::super::both::Both;
use super::super::subject::Subject;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(wait_for_an_id)?;
    for version in versions::<InitProducerIdRequest>() {
        let plain = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        both.ask(version, "an id", |_| plain.clone())?;
        both.ask(version, "another id", |_| plain.clone())?;
        for timeout in [0, -1, 1] {
            both.ask(version, &format!("a transaction timeout of {timeout} ms"), |_| {
                InitProducerIdRequest { transaction_timeout_ms: timeout, ..plain.clone() }
            })?;
        }
        both.ask(version, "an empty transactional id", |_| InitProducerIdRequest {
            transactional_id: Some("".into()),
            ..plain.clone()
        })?;
        for (producer_id, producer_epoch) in
            [(5, 0), (5, i16::MAX), (-1, 0), (5, -1), (-2, -1)].into_iter().filter(|_| version >= 3)
        {
            let what = format!("a bump of id {producer_id}, epoch {producer_epoch}");
            both.ask(version, &what, |_| InitProducerIdRequest {
                producer_id,
                producer_epoch,
                ..plain.clone()
            })?;
        }
    }
    Ok(())
}

/// Apache Kafka answers COORDINATOR_LOAD_IN_PROGRESS until its controller gave it a block of ids.
pub(super) fn wait_for_an_id(subject: &mut Subject) -> Result<()> {
    subject.wait_for("an id", |subject| {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 1000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        Ok(!subject.expect(5, &request)?.error_code.is_error())
    })
}
