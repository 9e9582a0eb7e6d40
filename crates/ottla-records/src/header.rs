//! The 61 bytes before a batch's records, field by field. Pure.
//!
//! | at | bytes | field | | at | bytes | field |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | 0 | 8 | base offset | | 27 | 8 | base timestamp (delete horizon when bit 6 is set) |
//! | 8 | 4 | length of all that follows | | 35 | 8 | max timestamp |
//! | 12 | 4 | partition leader epoch | | 43 | 8 | producer id |
//! | 16 | 1 | magic (2) | | 51 | 2 | producer epoch |
//! | 17 | 4 | CRC-32C of 21..end | | 53 | 4 | base sequence |
//! | 21 | 2 | attributes | | 57 | 4 | record count |
//! | 23 | 4 | last offset delta | | 61 | … | records |
//!
//! All integers are big-endian. The CRC covers neither the base offset nor the leader epoch,
//! so that a broker assigns both without reading the records again.

use crate::compression::Compression;
use crate::error::BatchError;

/// Bytes of a batch's header: a batch without records is exactly this long.
pub const HEADER_LEN: usize = 61;
/// Bytes before the part that the length field counts: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// The only record format that is written, and, as in Kafka 4, the only one that is accepted.
pub const MAGIC: i8 = 2;
/// Where the CRC's coverage begins.
pub(crate) const CRC_START: usize = 21;

/// Who sets the timestamp of a record: the producer, or the broker when it appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// The flags of a batch. As Kafka does, only the lower byte is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION_MASK: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;
    const KNOWN: i16 = 0x7f;

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for 5 to 7, which name no codec.
    pub fn compression(self) -> Result<Compression, BatchError> {
        let id = self.0 & Self::COMPRESSION_MASK;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the records are the cluster's own (commit markers, leader changes), hidden from applications.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time from which compaction may drop tombstones.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    #[must_use]
    pub const fn with_compression(self, compression: Compression) -> Self {
        Self(self.0 & !Self::COMPRESSION_MASK | compression.id())
    }

    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(Self::LOG_APPEND_TIME, matches!(timestamp_type, TimestampType::LogAppendTime))
    }

    #[must_use]
    pub const fn with_transactional(self, transactional: bool) -> Self {
        self.with(Self::TRANSACTIONAL, transactional)
    }

    #[must_use]
    pub const fn with_control(self, control: bool) -> Self {
        self.with(Self::CONTROL, control)
    }

    #[must_use]
    pub const fn with_delete_horizon(self, delete_horizon: bool) -> Self {
        self.with(Self::DELETE_HORIZON, delete_horizon)
    }

    /// Without the bits that have no meaning yet: what is left after Kafka recomputes attributes.
    pub(crate) const fn known(self) -> Self {
        Self(self.0 & Self::KNOWN)
    }

    const fn with(self, flag: i16, set: bool) -> Self {
        Self(if set { self.0 | flag } else { self.0 & !flag })
    }
}

/// A batch's header. Parsing checks what is needed to find the end of the batch, nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field; at least 49.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: Attributes,
    /// Offset of the last record minus the base offset; compaction keeps it when it drops that record.
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// How many records there are.
    ///
    /// # Errors
    /// If that is negative.
    pub(crate) fn checked_record_count(&self) -> Result<i32, BatchError> {
        let count = self.record_count;
        if count < 0 { Err(BatchError::NegativeRecordCount(count)) } else { Ok(count) }
    }

    /// Reads the header at the start of `bytes`, which may be shorter or longer than the whole batch.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] for less than [`HEADER_LEN`] bytes; [`BatchError::TooSmall`], [`BatchError::OldMagic`]
    /// or [`BatchError::UnknownMagic`] where length or magic is no batch's.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Self::describe_short(bytes));
        };
        let mut fields = Fields(header);
        let header = Self {
            base_offset: i64::from_be_bytes(fields.take()),
            batch_length: i32::from_be_bytes(fields.take()),
            partition_leader_epoch: i32::from_be_bytes(fields.take()),
            magic: i8::from_be_bytes(fields.take()),
            crc: u32::from_be_bytes(fields.take()),
            attributes: Attributes(i16::from_be_bytes(fields.take())),
            last_offset_delta: i32::from_be_bytes(fields.take()),
            base_timestamp: i64::from_be_bytes(fields.take()),
            max_timestamp: i64::from_be_bytes(fields.take()),
            producer_id: i64::from_be_bytes(fields.take()),
            producer_epoch: i16::from_be_bytes(fields.take()),
            base_sequence: i32::from_be_bytes(fields.take()),
            record_count: i32::from_be_bytes(fields.take()),
        };
        check_size(header.batch_length, header.magic)?;
        Ok(header)
    }

    /// The header as it stands on disk and wire.
    pub fn write(&self, out: &mut [u8; HEADER_LEN]) {
        let mut rest = out.as_mut_slice();
        put(&mut rest, &self.base_offset.to_be_bytes());
        put(&mut rest, &self.batch_length.to_be_bytes());
        put(&mut rest, &self.partition_leader_epoch.to_be_bytes());
        put(&mut rest, &self.magic.to_be_bytes());
        put(&mut rest, &self.crc.to_be_bytes());
        put(&mut rest, &self.attributes.0.to_be_bytes());
        put(&mut rest, &self.last_offset_delta.to_be_bytes());
        put(&mut rest, &self.base_timestamp.to_be_bytes());
        put(&mut rest, &self.max_timestamp.to_be_bytes());
        put(&mut rest, &self.producer_id.to_be_bytes());
        put(&mut rest, &self.producer_epoch.to_be_bytes());
        put(&mut rest, &self.base_sequence.to_be_bytes());
        put(&mut rest, &self.record_count.to_be_bytes());
    }

    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        self.write(&mut bytes);
        bytes
    }

    /// Bytes of the whole batch, header included; at least [`HEADER_LEN`].
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).expect("parse refuses a negative length")
    }

    /// The offset of the last record. Wraps on hostile input; a valid batch has none that does.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The base offset that a batch right after this one has.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    #[must_use]
    pub const fn has_producer_id(&self) -> bool {
        self.producer_id > crate::NO_PRODUCER_ID
    }

    /// The sequence number of the last record, which wraps from `i32::MAX` to 0; −1 without a sequence.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == crate::NO_SEQUENCE {
            return crate::NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The time from which compaction may drop this batch's tombstones, once a compaction has set it.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Says of fewer than 61 bytes what is wrong with them, as far as they go.
    fn describe_short(bytes: &[u8]) -> BatchError {
        let truncated = |needed| BatchError::Truncated { needed, available: bytes.len() };
        let Some(batch_length) = field(bytes, 8).map(i32::from_be_bytes) else {
            return truncated(HEADER_LEN);
        };
        // Without a magic to judge, the length alone can already be wrong.
        let magic = field(bytes, 16).map_or(MAGIC, i8::from_be_bytes);
        match check_size(batch_length, magic) {
            Ok(size) => truncated(size),
            Err(error) => error,
        }
    }
}

/// Adds to a sequence number, which has no negative values: after `i32::MAX` comes 0.
#[must_use]
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment.wrapping_sub(i32::MAX.wrapping_sub(sequence)).wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// Subtracts from a sequence number: before 0 comes `i32::MAX`.
#[must_use]
pub fn decrement_sequence(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement {
        i32::MAX.wrapping_sub(decrement.wrapping_sub(sequence)).wrapping_add(1)
    } else {
        sequence.wrapping_sub(decrement)
    }
}

/// The size of the whole batch, if length and magic are those of a batch at all.
fn check_size(batch_length: i32, magic: i8) -> Result<usize, BatchError> {
    // The smallest message of the old formats: 14 bytes after offset and length. Kafka tests it before the magic.
    const OLD_MESSAGE_MIN: i32 = 14;
    let size = i64::from(batch_length) + 12;
    if batch_length < OLD_MESSAGE_MIN {
        return Err(BatchError::TooSmall { size, minimum: HEADER_LEN });
    }
    match magic {
        MAGIC => {}
        0 | 1 => return Err(BatchError::OldMagic(magic)),
        _ => return Err(BatchError::UnknownMagic(magic)),
    }
    usize::try_from(size)
        .ok()
        .filter(|size| *size >= HEADER_LEN)
        .ok_or(BatchError::TooSmall { size, minimum: HEADER_LEN })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The rest of a header; each `take` is checked against 61 by the test that reads all fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields add up to 61 bytes");
        self.0 = rest;
        *field
    }
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (target, after) =
        std::mem::take(rest).split_at_mut_checked(field.len()).expect("fields add up to 61 bytes");
    target.copy_from_slice(field);
    *rest = after;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: 1,
            batch_length: 49,
            partition_leader_epoch: 2,
            magic: MAGIC,
            crc: 3,
            attributes: Attributes(4),
            last_offset_delta: 5,
            base_timestamp: 6,
            max_timestamp: 7,
            producer_id: 8,
            producer_epoch: 9,
            base_sequence: 10,
            record_count: 11,
        }
    }

    #[test]
    fn a_header_survives_write_and_parse() {
        assert_eq!(BatchHeader::parse(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn every_prefix_of_a_header_is_truncated() {
        let bytes = header().to_bytes();
        for length in 0..HEADER_LEN {
            assert_eq!(
                BatchHeader::parse(&bytes[..length]),
                Err(BatchError::Truncated { needed: 61, available: length })
            );
        }
    }

    #[test]
    fn lengths_below_an_empty_batch_are_refused() {
        for length in [i32::MIN, -1, 0, 13, 48] {
            let bytes = BatchHeader { batch_length: length, ..header() }.to_bytes();
            assert_eq!(
                BatchHeader::parse(&bytes),
                Err(BatchError::TooSmall { size: i64::from(length) + 12, minimum: 61 })
            );
        }
    }

    #[test]
    fn the_largest_length_is_only_a_number() {
        let bytes = BatchHeader { batch_length: i32::MAX, ..header() }.to_bytes();
        assert_eq!(BatchHeader::parse(&bytes).map(|header| header.size_in_bytes()), Ok(2147483659));
    }

    #[test]
    fn old_and_unknown_magic_are_told_apart() {
        let parse = |magic| BatchHeader::parse(&BatchHeader { magic, ..header() }.to_bytes());
        assert_eq!(parse(0), Err(BatchError::OldMagic(0)));
        assert_eq!(parse(1), Err(BatchError::OldMagic(1)));
        assert_eq!(parse(3), Err(BatchError::UnknownMagic(3)));
        assert_eq!(parse(-1), Err(BatchError::UnknownMagic(-1)));
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(increment_sequence(7, 0), 7);
        for (sequence, increment) in [(i32::MAX, 1), (i32::MAX - 1, 3), (7, 0), (0, 5)] {
            let later = increment_sequence(sequence, increment);
            assert_eq!(decrement_sequence(later, increment), sequence);
        }
    }
}
