//! Kafka's record batch v2, the one format of wire and disk: views, validation, building, CRC, compression. Pure.
//!
//! A batch is trusted by type: [`RawBatch`] is bytes that have the shape of one batch,
//! [`ValidBatch`] is a batch that may go into a log. Only this room turns the one into the other.

mod batch;
mod builder;
pub mod compression;
mod control;
mod crc;
mod error;
mod header;
mod input;
mod record;
mod retain;
mod validate;
mod varint;
mod walk;

pub use batch::{Batches, RawBatch, ValidBatch};
pub use builder::{BatchBuilder, HeaderSlice};
pub use compression::{Codec, Compression};
pub use control::{ControlType, EndTransactionMarker, InvalidControlKey};
pub use crc::crc32c;
pub use error::BatchError;
pub use header::{
    Attributes, BatchHeader, HEADER_LEN, LOG_OVERHEAD, MAGIC, TimestampType, decrement_sequence,
    increment_sequence,
};
pub use record::{Header, Record, Records};
pub use retain::Sifted;
pub use validate::{RecordError, Rejection, Rules, parse_produced, validate, validate_within};
pub use walk::Seen;

/// "No timestamp" in a record or batch.
pub const NO_TIMESTAMP: i64 = -1;
/// "No producer id": the batch is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// "No sequence number": the batch is not idempotent, or is a control batch.
pub const NO_SEQUENCE: i32 = -1;
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;
