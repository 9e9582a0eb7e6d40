//! UnregisterBroker: forgets a broker that will not come back. Pure.

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use ottla_protocol::records::UnregisterBrokerRecord;

use super::draft::Draft;
use super::fencing::leave;
use super::{Outcome, Policy, RECORDS_MAX, Rejection};
use crate::image::Image;

/// Takes the broker out of every ISR and removes its registration. It stays among the replicas of its partitions, and
/// may register again. A lone broker that is not fenced runs on: nobody would be left to lead anything.
#[must_use]
pub fn unregister_broker(
    image: &Image,
    policy: &Policy,
    request: &UnregisterBrokerRequest,
) -> Outcome<UnregisterBrokerResponse> {
    match decide(image, policy, BrokerId(request.broker_id)) {
        Ok(records) => Outcome { records, reply: UnregisterBrokerResponse::default() },
        Err(rejection) => {
            let (error_code, error_message) = Rejection::fields(Some(rejection));
            Outcome::unchanged(UnregisterBrokerResponse {
                error_code,
                error_message,
                ..Default::default()
            })
        }
    }
}

fn decide(
    image: &Image,
    policy: &Policy,
    id: BrokerId,
) -> Result<Vec<crate::MetadataRecord>, Rejection> {
    let broker = image.broker(id).ok_or_else(|| {
        let message = format!("Broker ID {id} is not currently registered");
        Rejection::new(ErrorCode::BROKER_ID_NOT_REGISTERED, message)
    })?;
    if !broker.fenced && image.brokers().count() == 1 {
        return Err(Rejection::new(ErrorCode::INVALID_REQUEST, format!("Broker {id} is running")));
    }
    let mut draft = Draft::on(image);
    let record = UnregisterBrokerRecord { broker_id: id.0, broker_epoch: broker.epoch };
    draft.push(record);
    leave(&mut draft, policy, id);
    if draft.records.len() > RECORDS_MAX {
        return Err(Rejection::too_many_records());
    }
    Ok(draft.records)
}

#[cfg(test)]
mod tests {
    use ottla_base::TopicId;
    use ottla_protocol::records::{PartitionChangeRecord, TopicRecord};

    use super::*;
    use crate::controller::brokers::tests::{fence, image_with_brokers, partition_record};

    const TOPIC: TopicId = TopicId::from_u128(9);

    fn unregister(image: &Image, id: i32) -> Outcome<UnregisterBrokerResponse> {
        let request = UnregisterBrokerRequest { broker_id: id };
        unregister_broker(image, &Policy::default(), &request)
    }

    #[test]
    fn a_broker_that_is_forgotten_leads_nothing_and_is_in_no_isr() {
        let mut image = image_with_brokers(&[1, 2]);
        image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC }.into()).unwrap();
        image.apply(&partition_record(TOPIC, 0, &[1, 2], &[1, 2])).unwrap();
        image.apply(&partition_record(TOPIC, 1, &[1], &[1])).unwrap();
        let outcome = unregister(&image, 1);
        let led_by = |partition_id, leader, isr| PartitionChangeRecord {
            partition_id,
            topic_id: TOPIC,
            leader,
            isr,
            ..Default::default()
        };
        let expected = [
            UnregisterBrokerRecord { broker_id: 1, broker_epoch: 1 }.into(),
            led_by(0, 2, Some(vec![2])).into(),
            led_by(1, -1, None).into(),
        ];
        assert_eq!(outcome.records, expected);
        assert_eq!(outcome.reply.error_code, ErrorCode::NONE);
    }

    #[test]
    fn a_lone_broker_is_forgotten_only_when_it_is_gone() {
        let mut image = image_with_brokers(&[1]);
        let outcome = unregister(&image, 1);
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.error_code, ErrorCode::INVALID_REQUEST);
        assert_eq!(outcome.reply.error_message.as_deref(), Some("Broker 1 is running"));
        fence(&mut image, 1);
        let expected = UnregisterBrokerRecord { broker_id: 1, broker_epoch: 1 };
        assert_eq!(unregister(&image, 1).records, [expected.into()]);
    }

    #[test]
    fn a_broker_that_is_not_registered_cannot_be_forgotten() {
        let outcome = unregister(&image_with_brokers(&[1]), 2);
        assert_eq!(outcome.records, []);
        assert_eq!(outcome.reply.error_code, ErrorCode::BROKER_ID_NOT_REGISTERED);
        let message = outcome.reply.error_message.unwrap();
        assert_eq!(message, "Broker ID 2 is not currently registered");
    }
}
