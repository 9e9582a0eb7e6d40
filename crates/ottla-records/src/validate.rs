//! Whether a producer's batch may go into the log, with Kafka's code for each reason why not. Pure.
//!
//! One pass for the CRC and one over the records, which are never copied unless the topic demands
//! another codec. The order of the checks is Kafka's, because it decides which code a batch with
//! two faults gets. Known differences from Kafka 4.3, each stricter or safer:
//!
//! - Offset deltas must be 0, 1, 2, …: Kafka stores an uncompressed batch with others as it is, numbers records anew where it
//!   compresses them anew, and fails with UNKNOWN_SERVER_ERROR on a batch that stays compressed.
//! - A record's size must be the sum of its fields in compressed batches too: Kafka checks it in
//!   uncompressed ones and where it compresses anew, and consumers fail later.
//! - A batch that decompresses to more than 2 GiB is refused, and at most 10,000 records are listed as faulty.

use std::fmt::Display;

use bytes::Bytes;
use ottla_base::{ErrorCode, Timestamp, TopicPartition};

use crate::NO_TIMESTAMP;
use crate::batch::{RawBatch, ValidBatch};
use crate::compression::{Codec, Compression, Recompressor};
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_LEN, TimestampType};
use crate::input::{Compressed, DECOMPRESSED_MAX, Input, Plain, Tee};
use crate::record::{BYTES_AFTER_LAST, Outline, timestamp_of};

/// Bytes that a recompressed batch may have: the largest int32, so that its length fits its field.
pub(crate) const BATCH_LEN_MAX: usize = 0x7fff_ffff;
/// Faulty records that a rejection lists one by one.
const RECORD_ERRORS_MAX: usize = 10_000;
/// The first version of Produce whose clients may send zstd.
const ZSTD_SINCE_PRODUCE_VERSION: i16 = 7;

/// What a partition's topic demands of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Named in messages, as Kafka does.
    pub partition: TopicPartition,
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

impl Rules {
    /// Kafka's defaults.
    #[must_use]
    pub const fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
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
    /// For the log. Clients get it only together with record errors: see [`Rejection::wire_message`].
    pub message: String,
    /// The records at fault, when the batch itself is sound; from Produce v8 they are sent.
    pub record_errors: Vec<RecordError>,
}

impl Rejection {
    /// The answer's error message: Kafka sends null unless single records are at fault.
    #[must_use]
    pub fn wire_message(&self) -> Option<&str> {
        (!self.record_errors.is_empty()).then_some(&self.message)
    }
}

/// One record's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in the batch, from 0.
    pub batch_index: i32,
    pub message: String,
}

/// What can be wrong with a batch as a whole.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a produce request must carry a record batch for each partition")]
    NoBatch,
    #[error("a produce request may carry only one record batch for each partition")]
    MoreThanOneBatch,
    #[error("only record batches of magic 2 are accepted, not {0}")]
    OldMagic(i8),
    #[error("zstd is accepted from Produce version 7 only")]
    ZstdTooEarly,
    #[error("the base offset of a batch from a client must be 0, not {0}")]
    BaseOffset(i64),
    #[error("the batch takes {size} bytes, more than max.message.bytes = {max}")]
    TooLarge { size: usize, max: usize },
    #[error("recompressed, the batch takes more than max.message.bytes = {max}")]
    TooLargeRecompressed { max: usize },
    #[error("the batch claims {count} records for the offsets 0..={last_offset_delta}")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("clients must not write control records")]
    Control,
    #[error("producer id {producer_id} comes with the invalid sequence number {base_sequence}")]
    Sequence { producer_id: i64, base_sequence: i32 },
    #[error("record {expected} of the batch claims to be record {found}")]
    OffsetDelta { expected: i32, found: i32 },
    #[error(transparent)]
    Bytes(BatchError),
}

impl From<BatchError> for Fault {
    fn from(error: BatchError) -> Self {
        if let BatchError::OldMagic(magic) = error {
            Self::OldMagic(magic)
        } else if error == BatchError::MoreThanOne {
            Self::MoreThanOneBatch
        } else if let BatchError::Truncated { .. } = error {
            Self::NoBatch
        } else {
            Self::Bytes(error)
        }
    }
}

impl Fault {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NoBatch
            | Self::MoreThanOneBatch
            | Self::OldMagic(_)
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::Control
            | Self::Sequence { .. }
            | Self::OffsetDelta { .. } => ErrorCode::INVALID_RECORD,
            Self::ZstdTooEarly => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
            Self::TooLarge { .. } | Self::TooLargeRecompressed { .. } => {
                ErrorCode::MESSAGE_TOO_LARGE
            }
            Self::Bytes(error) => code_of_bytes(error),
        }
    }
}

/// The code that Kafka answers when the bytes themselves are bad.
fn code_of_bytes(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::TooSmall { .. }
        | BatchError::UnknownMagic(_)
        | BatchError::CrcMismatch { .. } => ErrorCode::CORRUPT_MESSAGE,
        // Kafka has no code of its own for these; its exceptions fall through to the last resort.
        BatchError::UnknownCompression(_) | BatchError::Decompression(..) => {
            ErrorCode::UNKNOWN_SERVER_ERROR
        }
        BatchError::TooMuchDecompressed { .. } | BatchError::TooMuchRetained { .. } => {
            ErrorCode::MESSAGE_TOO_LARGE
        }
        BatchError::Truncated { .. }
        | BatchError::OldMagic(_)
        | BatchError::NegativeRecordCount(_)
        | BatchError::Record(_)
        | BatchError::MoreThanOne => ErrorCode::INVALID_RECORD,
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code(), message: fault.to_string(), record_errors: Vec::new() }
    }
}

impl From<BatchError> for Rejection {
    fn from(error: BatchError) -> Self {
        Fault::from(error).into()
    }
}

/// Takes one partition's bytes of a Produce request for what they must be: exactly one batch.
///
/// # Errors
/// [`Rejection`]: INVALID_RECORD where there is no batch, more than one, or one of an old format; CORRUPT_MESSAGE where its
/// header makes no sense; UNSUPPORTED_COMPRESSION_TYPE for zstd before version 7.
pub fn parse_produced(records: Bytes, produce_version: i16) -> Result<RawBatch, Rejection> {
    let raw = RawBatch::parse(records)?;
    if produce_version < ZSTD_SINCE_PRODUCE_VERSION
        && raw.header().attributes.compression()? == Compression::Zstd
    {
        return Err(Fault::ZstdTooEarly.into());
    }
    Ok(raw)
}

/// Decides whether a client's batch may be appended to a log with these rules, now.
///
/// # Errors
/// [`Rejection`], with the records that are at fault where single ones are.
pub fn validate(raw: RawBatch, rules: &Rules, now: Timestamp) -> Result<ValidBatch, Rejection> {
    let mut unlimited = u64::MAX;
    let valid = validate_within(&raw, rules, now, &mut unlimited)?;
    Ok(valid.expect("nothing is larger than this budget"))
}

/// The same, unless the batch decompresses to more than is left of `budget`, bytes: then `None`, and nothing is left of it.
/// Else what it took is taken off.
///
/// # Errors
/// As [`validate`]; what was decompressed is taken off the budget all the same.
pub fn validate_within(
    raw: &RawBatch,
    rules: &Rules,
    now: Timestamp,
    budget: &mut u64,
) -> Result<Option<ValidBatch>, Rejection> {
    let source = check_batch(raw, rules)?;
    let header = *raw.header();
    let mut check = RecordCheck::new(&header, rules, now, DECOMPRESSED_MAX.min(*budget));
    let checked = check_records(&mut check, source, &raw.body());
    let is_beyond = matches!(
        &checked,
        Err(Fault::Bytes(BatchError::TooMuchDecompressed { limit })) if *limit < DECOMPRESSED_MAX
    );
    if source != Compression::None {
        *budget = if is_beyond { 0 } else { budget.saturating_sub(check.walked) };
    }
    if is_beyond {
        return Ok(None);
    }
    let recompressed = checked?;
    let max_timestamp = check.finish()?;
    let Some((recompressor, target)) = recompressed else {
        return Ok(Some(keep(header, raw.body(), rules, max_timestamp)));
    };
    let max = rules.max_message_bytes;
    let body = recompressor.finish().ok_or(Fault::TooLargeRecompressed { max })?;
    Ok(Some(rebuild(header, body, rules, target, max_timestamp)))
}

/// Walks over the records, and compresses them anew where the rules say so.
fn check_records(
    check: &mut RecordCheck<'_>,
    source: Compression,
    body: &[u8],
) -> Result<Option<(Recompressor, Codec)>, Fault> {
    let rules = check.rules;
    let target = rules.codec.unwrap_or_else(|| source.into());
    if target.compression == source {
        check.all_in(source, body)?;
        return Ok(None);
    }
    let limit = rules.max_message_bytes.min(BATCH_LEN_MAX).saturating_sub(HEADER_LEN);
    let mut recompressor = Recompressor::new(target, limit);
    check.all_while_recompressing(source, body, &mut recompressor)?;
    Ok(Some((recompressor, target)))
}

/// What can be seen without looking at the records.
fn check_batch(raw: &RawBatch, rules: &Rules) -> Result<Compression, Fault> {
    let header = raw.header();
    if header.base_offset != 0 {
        return Err(Fault::BaseOffset(header.base_offset));
    }
    if header.size_in_bytes() > rules.max_message_bytes {
        return Err(Fault::TooLarge { size: header.size_in_bytes(), max: rules.max_message_bytes });
    }
    raw.check_crc()?;
    let compression = header.attributes.compression()?;
    let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(Fault::Count { count, last_offset_delta });
    }
    if header.attributes.is_control() {
        return Err(Fault::Control);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let (producer_id, base_sequence) = (header.producer_id, header.base_sequence);
        return Err(Fault::Sequence { producer_id, base_sequence });
    }
    Ok(compression)
}

/// The batch as it was sent. The header changes, and the CRC with it, only when the broker stamps
/// its own time, or when the producer's maximum is not that of its records.
fn keep(mut header: BatchHeader, body: Bytes, rules: &Rules, max_timestamp: i64) -> ValidBatch {
    let attributes = header.attributes;
    if attributes.timestamp_type() == rules.timestamp_type && header.max_timestamp == max_timestamp
    {
        return ValidBatch::new(header, body);
    }
    header.attributes = attributes.known().with_timestamp_type(rules.timestamp_type);
    header.max_timestamp = max_timestamp;
    ValidBatch::with_new_crc(header, body)
}

/// The batch with its records in another codec.
fn rebuild(
    mut header: BatchHeader,
    body: Vec<u8>,
    rules: &Rules,
    target: Codec,
    max_timestamp: i64,
) -> ValidBatch {
    header.attributes = header
        .attributes
        .known()
        .with_delete_horizon(false)
        .with_compression(target.compression)
        .with_timestamp_type(rules.timestamp_type);
    header.max_timestamp = max_timestamp;
    ValidBatch::with_new_crc(header, body.into())
}

/// One walk over the records of a batch.
struct RecordCheck<'a> {
    header: &'a BatchHeader,
    rules: &'a Rules,
    now: i64,
    /// How much may be decompressed, and how much was walked over.
    limit: u64,
    walked: u64,
    max_timestamp: i64,
    errors: Vec<RecordError>,
    error_count: usize,
    /// One fault of this kind makes the code of the whole batch INVALID_TIMESTAMP.
    timestamp_errors: bool,
}

impl<'a> RecordCheck<'a> {
    fn new(header: &'a BatchHeader, rules: &'a Rules, now: Timestamp, limit: u64) -> Self {
        Self {
            header,
            rules,
            now: now.0,
            limit,
            walked: 0,
            max_timestamp: NO_TIMESTAMP,
            errors: Vec::new(),
            error_count: 0,
            timestamp_errors: false,
        }
    }

    fn all_in(&mut self, source: Compression, body: &[u8]) -> Result<(), Fault> {
        if source == Compression::None {
            self.all(Plain::new(body))
        } else {
            self.all(Compressed::new(source, body, self.limit)?)
        }
    }

    fn all_while_recompressing(
        &mut self,
        source: Compression,
        body: &[u8],
        recompressor: &mut Recompressor,
    ) -> Result<(), Fault> {
        if source == Compression::None {
            self.all(Tee { input: Plain::new(body), recompressor })
        } else {
            let input = Compressed::new(source, body, self.limit)?;
            self.all(Tee { input, recompressor })
        }
    }

    fn all(&mut self, mut input: impl Input) -> Result<(), Fault> {
        let walked = self.walk(&mut input);
        self.walked = input.position();
        walked
    }

    fn walk(&mut self, input: &mut impl Input) -> Result<(), Fault> {
        for index in 0..self.header.record_count {
            let record = Outline::read(input)?;
            if record.offset_delta != index {
                return Err(Fault::OffsetDelta { expected: index, found: record.offset_delta });
            }
            let timestamp = timestamp_of(self.header, record.timestamp_delta);
            self.max_timestamp = self.max_timestamp.max(timestamp);
            if self.is_at_fault(&record, timestamp) {
                self.describe(index, &record, timestamp);
            }
        }
        if input.at_end()? { Ok(()) } else { Err(BYTES_AFTER_LAST.into()) }
    }

    /// The largest timestamp of the batch as it will be stored.
    fn finish(self) -> Result<i64, Rejection> {
        if self.error_count > 0 {
            return Err(self.reject());
        }
        Ok(match self.rules.timestamp_type {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => self.now,
        })
    }

    #[inline(always)]
    fn is_at_fault(&self, record: &Outline, timestamp: i64) -> bool {
        self.lacks_key(record)
            || if self.has_create_time(timestamp) {
                self.is_out_of_range(timestamp)
            } else {
                self.header.attributes.timestamp_type() == TimestampType::LogAppendTime
            }
    }

    #[inline(always)]
    fn lacks_key(&self, record: &Outline) -> bool {
        self.rules.compacted && record.key_len < 0
    }

    #[inline(always)]
    fn has_create_time(&self, timestamp: i64) -> bool {
        self.rules.timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP
    }

    #[inline(always)]
    fn is_out_of_range(&self, timestamp: i64) -> bool {
        let age = self.now.wrapping_sub(timestamp);
        age > self.rules.timestamp_before_max_ms
            || age.wrapping_neg() > self.rules.timestamp_after_max_ms
    }

    /// Clients read these messages: the words are Kafka's.
    #[cold]
    fn describe(&mut self, index: i32, record: &Outline, timestamp: i64) {
        let message = if self.lacks_key(record) {
            format!(
                "Compacted topic cannot accept message without key in topic partition {}",
                self.rules.partition
            )
        } else if self.has_create_time(timestamp) {
            self.timestamp_errors = true;
            format!(
                "Timestamp {timestamp} of message with offset {index} is out of range. \
                 The timestamp should be within [{}, {}]",
                self.now.wrapping_sub(self.rules.timestamp_before_max_ms),
                self.now.wrapping_add(self.rules.timestamp_after_max_ms),
            )
        } else {
            self.timestamp_errors = true;
            format!(
                "Invalid timestamp type in message {}. \
                 Producer should not set timestamp type to LogAppendTime.",
                self.name(index, record, timestamp)
            )
        };
        self.error_count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError { batch_index: index, message });
        }
    }

    /// A record in Kafka's words, which differ when Kafka has not read keys and values.
    fn name(&self, index: i32, record: &Outline, timestamp: i64) -> impl Display {
        let in_place = match self.rules.codec {
            None => self.header.attributes.compression() != Ok(Compression::None),
            Some(codec) => {
                codec.compression != Compression::None
                    && self.header.attributes.compression() == Ok(codec.compression)
            }
        };
        let (kind, null) =
            if in_place { ("PartialDefaultRecord", -1) } else { ("DefaultRecord", 0) };
        let (key_len, value_len) = (record.key_len.max(null), record.value_len.max(null));
        format!(
            "{kind}(offset={index}, timestamp={timestamp}, key={key_len} bytes, value={value_len} bytes)"
        )
    }

    fn reject(self) -> Rejection {
        if self.timestamp_errors {
            return Rejection {
                code: ErrorCode::INVALID_TIMESTAMP,
                message: "One or more records have been rejected due to invalid timestamp"
                    .to_owned(),
                record_errors: self.errors,
            };
        }
        let first_three: Vec<String> = self
            .errors
            .iter()
            .take(3)
            .map(|error| {
                format!(
                    "RecordError(batchIndex={}, message='{}')",
                    error.batch_index, error.message
                )
            })
            .collect();
        Rejection {
            code: ErrorCode::INVALID_RECORD,
            message: format!(
                "One or more records have been rejected due to {} record errors in total, \
                 and only showing the first three errors at most: [{}]",
                self.error_count,
                first_three.join(", ")
            ),
            record_errors: self.errors,
        }
    }
}
