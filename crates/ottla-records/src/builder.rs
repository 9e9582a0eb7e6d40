//! Builds batches: for clients, for the metadata log, and for the coordinators' topics. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use ottla_base::{LeaderEpoch, Offset, Timestamp};

use crate::batch::ValidBatch;
use crate::compression::{Codec, Compression, compress};
use crate::control::{ControlType, EndTransactionMarker};
use crate::header::{Attributes, BatchHeader, HEADER_LEN, MAGIC, TimestampType};
use crate::varint::{varint_len, varlong_len, write_varint, write_varlong};
use crate::{
    NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
};

/// A header to be written: its key, and its value or null.
pub type HeaderSlice<'a> = (&'a str, Option<&'a [u8]>);

/// Gathers records, and makes one batch of them.
///
/// Set the public fields before or after appending; they describe the batch as a whole.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    pub codec: Codec,
    pub base_offset: i64,
    pub partition_leader_epoch: i32,
    /// Set with [`BatchBuilder::log_append_time`] when the broker's time replaces the records' own.
    log_append_time: Option<i64>,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
    control: bool,
    /// Room for the header, then the records as they are uncompressed.
    bytes: BytesMut,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// A batch of applications' records at offset 0, not idempotent: what most producers send.
    #[must_use]
    pub fn new(codec: impl Into<Codec>) -> Self {
        Self {
            codec: codec.into(),
            base_offset: 0,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            log_append_time: None,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            bytes: BytesMut::zeroed(HEADER_LEN),
            record_count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// A control batch, to which [`BatchBuilder::append_control`] adds. Never compressed.
    #[must_use]
    pub fn control() -> Self {
        Self { control: true, ..Self::new(Compression::None) }
    }

    /// What ends a producer's transaction, as its coordinator writes it: one control record, of type abort or commit.
    #[must_use]
    pub fn end_of_transaction(
        (id, epoch): (i64, i16),
        control: ControlType,
        marker: EndTransactionMarker,
        timestamp: Timestamp,
    ) -> Self {
        let mut builder = Self::control().producer(id, epoch, NO_SEQUENCE).transactional();
        builder.append_control(timestamp, control, &marker.to_bytes());
        builder
    }

    /// Where the batch will lie, when whoever builds it is the one who appends it.
    #[must_use]
    pub fn at(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        self.base_offset = base_offset.0;
        self.partition_leader_epoch = leader_epoch.0;
        self
    }

    /// The producer's identity, and the sequence number of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Marks the timestamp as the broker's: all records appear to have it.
    #[must_use]
    pub fn log_append_time(mut self, now: Timestamp) -> Self {
        self.log_append_time = Some(now.0);
        self
    }

    /// Adds a record at the next offset. The bytes are copied into the batch.
    pub fn append(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderSlice<'_>],
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp.0;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        let timestamp_delta = timestamp.0.wrapping_sub(self.base_timestamp);
        let headers = headers.iter().map(|(key, value)| (key.as_bytes(), *value));
        write_record(timestamp_delta, self.record_count, key, value, headers, &mut self.bytes);
        self.record_count += 1;
    }

    /// Adds a control record, whose value is a message of its type.
    pub fn append_control(&mut self, timestamp: Timestamp, control: ControlType, value: &[u8]) {
        self.append(timestamp, Some(&control.key()), Some(value), &[]);
    }

    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch before compression, header included: an upper bound but for a codec's overhead.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch, ready for a log.
    ///
    /// # Panics
    /// Without a record: no such batch may be sent or appended.
    #[must_use]
    pub fn build(self) -> ValidBatch {
        let header = self.header();
        let compression = self.codec.compression;
        let mut body = self.bytes.freeze().split_off(HEADER_LEN);
        if compression != Compression::None {
            body = compress(self.codec, &body).into();
        }
        ValidBatch::with_new_crc(header, body)
    }

    /// The finished batch as a client sends it.
    ///
    /// # Panics
    /// Without a record: no such batch may be sent or appended.
    #[must_use]
    pub fn build_bytes(self) -> Bytes {
        self.build().to_bytes()
    }

    /// Everything but length and CRC.
    fn header(&self) -> BatchHeader {
        assert!(self.record_count > 0, "a batch has at least one record");
        let timestamp_type = match self.log_append_time {
            None => TimestampType::CreateTime,
            Some(_) => TimestampType::LogAppendTime,
        };
        BatchHeader {
            base_offset: self.base_offset,
            batch_length: 0,
            partition_leader_epoch: self.partition_leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes::default()
                .with_compression(self.codec.compression)
                .with_timestamp_type(timestamp_type)
                .with_transactional(self.transactional)
                .with_control(self.control),
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.log_append_time.unwrap_or(self.max_timestamp),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        }
    }
}

/// Writes a record: times and offsets are counted from the batch's, and headers are keys and values.
pub(crate) fn write_record<'a>(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    out: &mut BytesMut,
) {
    let header_count = int(headers.len());
    let header_len = |(key, value)| field_len(Some(key)) + field_len(value);
    let length = 1
        + varlong_len(timestamp_delta)
        + varint_len(offset_delta)
        + field_len(key)
        + field_len(value)
        + varint_len(header_count)
        + headers.clone().map(header_len).sum::<usize>();
    out.reserve(varint_len(int(length)) + length);
    write_varint(int(length), out);
    out.put_i8(0);
    write_varlong(timestamp_delta, out);
    write_varint(offset_delta, out);
    write_field(key, out);
    write_field(value, out);
    write_varint(header_count, out);
    for (key, value) in headers {
        write_field(Some(key), out);
        write_field(value, out);
    }
}

/// Writes what a record begins with, up to its key; so many bytes follow. `None` if it is too long to be a record.
pub(crate) fn write_opening(
    timestamp_delta: i64,
    offset_delta: i32,
    rest_len: usize,
    out: &mut impl BufMut,
) -> Option<()> {
    let length = 1 + varlong_len(timestamp_delta) + varint_len(offset_delta) + rest_len;
    write_varint(i32::try_from(length).ok()?, out);
    out.put_i8(0);
    write_varlong(timestamp_delta, out);
    write_varint(offset_delta, out);
    Some(())
}

fn write_field(field: Option<&[u8]>, out: &mut BytesMut) {
    match field {
        None => write_varint(-1, out),
        Some(bytes) => {
            write_varint(int(bytes.len()), out);
            out.put_slice(bytes);
        }
    }
}

fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_len(int(bytes.len())) + bytes.len())
}

/// A length as the format has it. Whoever builds a batch keeps it below `max.message.bytes`, an int32.
pub(crate) fn int(length: usize) -> i32 {
    i32::try_from(length).expect("a batch is shorter than 2 GiB")
}
