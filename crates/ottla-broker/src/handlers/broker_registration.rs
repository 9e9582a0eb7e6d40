//! BrokerRegistration (key 62), versions 0–4: a broker comes, and is given its epoch.
//!
//! - Controllers only, for brokers.
//! - v2: log directories. v3: the epoch of its last clean shutdown. v4: features whose lowest level is 0.

use ottla_base::ErrorCode;
use ottla_metadata::controller::BrokerEpoch;
use ottla_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};
use ottla_quorum::Quorum;

use crate::controller_requests::{ControllerRequest, refusal};

impl ControllerRequest for BrokerRegistrationRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> BrokerRegistrationResponse {
        match refusal("a broker's registration is", quorum.register_broker(self).await) {
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
