//! The controller's decisions: what a request does to the cluster, as records, and what is answered. Pure.
//!
//! Every decision reads an [`Image`](crate::Image) that includes all records appended so far, and
//! returns an [`Outcome`]. The caller appends the records as one batch — all of them or none come
//! to be — and gives the reply once they are committed.

mod adopt_topic;
mod alter_configs;
mod alter_partition;
mod brokers;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod directories;
mod draft;
mod elect_leaders;
mod eligible;
mod fencing;
mod format;
mod internal_topics;
mod liveness;
mod new_partitions;
mod partition_change;
mod placement;
mod policy;
mod producer_ids;
mod reassignments;
mod rounds;
mod unregister_broker;
mod update_features;

use bytestring::ByteString;
use ottla_base::ErrorCode;

pub use adopt_topic::{Adoption, adopt_topic};
pub use alter_configs::{
    ConfigAnswer, ConfigChange, Operation, Via, alter_configs, check_own_configs,
    screen_config_changes,
};
pub use alter_partition::alter_partition;
pub use brokers::{BrokerEpoch, register_broker, register_controller, unfence_broker};
pub use create_partitions::create_partitions;
pub use create_topics::{Draw, create_topics};
pub use delete_topics::delete_topics;
pub use directories::assign_replicas_to_dirs;
pub use elect_leaders::elect_leaders;
pub use format::format;
pub use internal_topics::Grown;
pub use liveness::{Liveness, RECONNECT_GRACE, Situation};
pub use policy::Policy;
pub use producer_ids::{BLOCK_SIZE, allocate_producer_ids};
pub use reassignments::{alter_partition_reassignments, list_partition_reassignments};
pub use rounds::Rounds;
pub use unregister_broker::unregister_broker;
pub use update_features::update_features;

use crate::MetadataRecord;

/// More records than this in one request are refused, as in Kafka.
pub(crate) const RECORDS_MAX: usize = 10_000;

/// What was decided: records to append as one batch, and the reply for when they are committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<R> {
    pub records: Vec<MetadataRecord>,
    pub reply: R,
}

impl<R> Outcome<R> {
    /// A reply that changes nothing.
    pub const fn unchanged(reply: R) -> Self {
        Self { records: Vec::new(), reply }
    }
}

/// Why a request, or the part of it that is about one topic, is refused: Kafka's code and message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Rejection {
    pub code: ErrorCode,
    pub message: String,
}

impl Rejection {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A decision would need more than [`RECORDS_MAX`].
    pub(crate) fn too_many_records() -> Self {
        let message = "Unable to perform excessively large batch operation.";
        Self::new(ErrorCode::POLICY_VIOLATION, message)
    }

    /// Kafka has no words for some refusals.
    #[must_use]
    pub const fn wordless(code: ErrorCode) -> Self {
        Self { code, message: String::new() }
    }

    /// Code and message as an answer carries them.
    #[must_use]
    pub fn fields(rejection: Option<Self>) -> (ErrorCode, Option<ByteString>) {
        match rejection {
            None => (ErrorCode::NONE, None),
            Some(Self { code, message }) if message.is_empty() => (code, None),
            Some(Self { code, message }) => (code, Some(message.into())),
        }
    }
}
