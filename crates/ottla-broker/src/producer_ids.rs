//! Hands out producer ids from a block that the controller gave this broker.
//!
//! Invariant: each id is handed out at most once, ever: a block belongs to one run of one broker,
//! and what is left of it at a restart is never used.

use std::ops::Range;

use ottla_base::{ErrorCode, ProducerId};
use ottla_quorum::Quorum;
use tokio::sync::Mutex;

/// The block in use, empty at first.
#[derive(Debug, Default)]
pub struct ProducerIds {
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// The next id; asks the controller for another block when this one is used up.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, which clients retry, when the controller gives no block.
    pub async fn next(&self, quorum: &Quorum) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            *block = quorum
                .allocate_producer_ids()
                .await
                .map_err(|_| ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)?;
        }
        block.next().map(ProducerId).ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
    }
}
