//! BrokerRegistration (key 62), versions 0–4: a broker comes, and is given its epoch.
//!
//! - Controllers only, for brokers.
//! - v2: log directories. v3: the epoch of its last clean shutdown. v4: features whose lowest level is 0.
//! - Known difference: a broker that has none of the directories that it had has lost its logs. Where it was the last of
//!   an ISR it stays in it, with its directory LOST, and is not elected. In Apache Kafka it may lead with an empty log.

use ottla_base::ErrorCode;
use ottla_metadata::controller::BrokerEpoch;
use ottla_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, code_of_refusal};

impl ControllerRequest for BrokerRegistrationRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> BrokerRegistrationResponse {
        match code_of_refusal(quorum.register_broker(self).await) {
            Ok(BrokerEpoch(broker_epoch)) => {
                BrokerRegistrationResponse { broker_epoch, ..BrokerRegistrationResponse::default() }
            }
            Err(error_code) => {
                BrokerRegistrationResponse { error_code, ..BrokerRegistrationResponse::default() }
            }
        }
    }

    fn error_of(response: &BrokerRegistrationResponse) -> ErrorCode {
        response.error_code
    }
}
