//! BrokerHeartbeat (key 63), versions 0–2: a broker shows that it lives, says what it wants, and hears whether it is fenced.
//!
//! - Controllers only, for brokers.
//! - v1: log directories that have failed. v2: those that are cordoned.
//! - Known difference: whoever leads from a directory that has failed, and is alone in the ISR, keeps the leadership where no unclean
//!   election is allowed or asked for, since it can still read. Apache Kafka leaves the partition without a leader.
//! - Known difference: a connection that is cut ends the broker's session 300 ms later, unless the broker is heard from again. In
//!   Apache Kafka nothing but `broker.session.timeout.ms` does. A broker that is told to end has no session, and may
//!   come back at once.

use ottla_base::{BrokerId, ErrorCode};
use ottla_metadata::controller::BrokerEpoch;
use ottla_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};
use ottla_quorum::Quorum;

use super::Context;
use crate::answer::Outcome;
use crate::controller_requests::{ControllerRequest, code_of_refusal};

pub(super) async fn handle(context: Context, request: BrokerHeartbeatRequest) -> Outcome {
    let (id, epoch) = (BrokerId(request.broker_id), BrokerEpoch(request.broker_epoch));
    let response = request.decide(&context.broker.quorum, context.version).await;
    if !response.error_code.is_error() {
        context.broker.state.heartbeat_connections.note(id, epoch, context.session);
    }
    context.answer(&response)
}

impl ControllerRequest for BrokerHeartbeatRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> BrokerHeartbeatResponse {
        code_of_refusal(quorum.broker_heartbeat(self).await).unwrap_or_else(|error_code| {
            BrokerHeartbeatResponse { error_code, ..BrokerHeartbeatResponse::default() }
        })
    }

    fn error_of(response: &BrokerHeartbeatResponse) -> ErrorCode {
        response.error_code
    }
}
