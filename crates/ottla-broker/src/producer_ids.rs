//! Hands out producer ids from a block that the controller gave this broker.
//!
//! Invariant: each id is handed out at most once, ever: a block belongs to one run of one broker,
//! and what is left of it at a restart is never used.

use std::ops::Range;

use ottla_base::{ErrorCode, ProducerId};
use ottla_protocol::messages::AllocateProducerIdsRequest;
use tokio::sync::Mutex;

use crate::broker::Registration;
use crate::controller_channel::ControllerChannel;
use crate::peers::Purpose;

/// The block in use, empty at first.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// The next id; asks the controller for another block when this one is used up.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, which clients retry, when the controller gives no block.
    pub(crate) async fn next(
        &self,
        controller: &ControllerChannel,
        broker: &Registration,
    ) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            *block =
                ask(controller, broker).await.ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)?;
        }
        block.next().map(ProducerId).ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
    }
}

/// The next block, or `None` if the controller does not give one.
async fn ask(controller: &ControllerChannel, broker: &Registration) -> Option<Range<i64>> {
    let request = AllocateProducerIdsRequest { broker_id: broker.id.0, broker_epoch: broker.epoch };
    let response = controller.ask(Purpose::Controller, request).await.ok()?;
    if response.error_code.is_error() {
        tracing::warn!(code = %response.error_code, "the controller gave no producer ids");
        return None;
    }
    let start = response.producer_id_start;
    Some(start..start + i64::from(response.producer_id_len))
}
