//! What can be wrong with the bytes of a batch, whoever sent or stored them. Pure.

use crate::compression::Compression;

/// Why bytes are not a readable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: an empty file tail, or a cut-off fetch.
    #[error("a record batch of {needed} bytes is cut off after {available}")]
    Truncated { needed: usize, available: usize },
    #[error(
        "the declared batch size of {size} bytes is smaller than the {minimum} of an empty batch"
    )]
    TooSmall { size: i64, minimum: usize },
    #[error("magic {0} is not a version of the record format")]
    UnknownMagic(i8),
    /// Kafka 0.x message formats, which Kafka 4 refuses too.
    #[error("magic {0} is a message format from before record batches")]
    OldMagic(i8),
    #[error("Record is corrupt (stored crc = {stored}, computed crc = {computed})")]
    CrcMismatch { stored: u32, computed: u32 },
    #[error("unknown compression type {0}")]
    UnknownCompression(i16),
    #[error("found invalid record count {0}")]
    NegativeRecordCount(i32),
    #[error("the body of the batch is not valid {}: {}", .0.name(), .1)]
    Decompression(Compression, &'static str),
    /// A small batch can hold gigabytes of zeros; the reader sets a bound.
    #[error("the records take more than {limit} bytes once decompressed")]
    TooMuchDecompressed { limit: u64 },
    /// What compaction leaves of a batch must not fill the memory either.
    #[error("the records that stay take more than {limit} bytes once compressed again")]
    TooMuchRetained { limit: usize },
    /// A record inside the batch is malformed.
    #[error("{0}")]
    Record(&'static str),
    #[error("more than one record batch")]
    MoreThanOne,
}
