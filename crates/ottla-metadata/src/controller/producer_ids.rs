//! AllocateProducerIds: each broker gets producer ids in blocks of a thousand, no id twice. Pure.

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use ottla_protocol::records::ProducerIdsRecord;

use super::brokers::check_epoch;
use super::{Outcome, Rejection};
use crate::image::Image;

/// Ids in one block.
pub const BLOCK_SIZE: i32 = 1000;

/// Reserves the next block for the broker that asks.
#[must_use]
pub fn allocate_producer_ids(
    image: &Image,
    request: &AllocateProducerIdsRequest,
) -> Outcome<AllocateProducerIdsResponse> {
    match next_block(image, request) {
        Err(rejection) => Outcome::unchanged(AllocateProducerIdsResponse {
            error_code: rejection.code,
            ..Default::default()
        }),
        Ok(record) => Outcome {
            records: vec![record.into()],
            reply: AllocateProducerIdsResponse {
                producer_id_start: image.next_producer_id().0,
                producer_id_len: BLOCK_SIZE,
                ..Default::default()
            },
        },
    }
}

fn next_block(
    image: &Image,
    request: &AllocateProducerIdsRequest,
) -> Result<ProducerIdsRecord, Rejection> {
    check_epoch(image, BrokerId(request.broker_id), request.broker_epoch)?;
    let next = image.next_producer_id().0.checked_add(i64::from(BLOCK_SIZE));
    let exhausted = || Rejection::new(ErrorCode::UNKNOWN_SERVER_ERROR, "no producer ids are left");
    Ok(ProducerIdsRecord {
        broker_id: request.broker_id,
        broker_epoch: request.broker_epoch,
        next_producer_id: next.ok_or_else(exhausted)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::image_with_brokers;

    fn request(broker_epoch: i64) -> AllocateProducerIdsRequest {
        AllocateProducerIdsRequest { broker_id: 1, broker_epoch }
    }

    #[test]
    fn blocks_of_a_thousand_follow_one_another() {
        let mut image = image_with_brokers(&[1]);
        for start in [0, 1000, 2000] {
            let outcome = allocate_producer_ids(&image, &request(1));
            let record =
                ProducerIdsRecord { broker_id: 1, broker_epoch: 1, next_producer_id: start + 1000 };
            assert_eq!(outcome.records, [record.into()]);
            assert_eq!(outcome.reply.producer_id_start, start);
            assert_eq!(outcome.reply.producer_id_len, 1000);
            image.apply(&outcome.records[0]).unwrap();
        }
    }

    #[test]
    fn a_broker_of_an_older_epoch_gets_nothing() {
        let outcome = allocate_producer_ids(&image_with_brokers(&[1]), &request(0));
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.error_code, ErrorCode::STALE_BROKER_EPOCH);
    }

    #[test]
    fn the_last_ids_are_not_handed_out_twice() {
        let mut image = image_with_brokers(&[1]);
        let record = ProducerIdsRecord { next_producer_id: i64::MAX - 5, ..Default::default() };
        image.apply(&record.into()).unwrap();
        let outcome = allocate_producer_ids(&image, &request(1));
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
    }
}
