//! Records inside a batch: looking one over without keeping it, and reading one for keeps. Pure.
//!
//! A record is its body's length (varint), then: attributes (1 byte, unused), timestamp delta
//! (varlong), offset delta (varint), key and value (varint length, −1 for null, bytes), header
//! count (varint), and per header a key (varint length, bytes) and a value (as above).

use std::borrow::Cow;

use bytes::Bytes;
use ottla_base::{Offset, Timestamp};

use crate::batch::{RawBatch, ValidBatch};
use crate::compression::decompress;
use crate::error::BatchError;
use crate::header::{BatchHeader, TimestampType};
use crate::input::{Input, Plain};
use crate::varint::{read_varint, read_varlong};

/// Java's arrays end here, so no Kafka client can have more in one piece.
pub(crate) const RECORDS_LEN_MAX: usize = 0x7fff_ffff;

/// A record as a consumer sees it. Key, value and headers share the batch's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// A record's header. Kafka's clients treat the key as UTF-8; brokers never look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl Header {
    #[must_use]
    pub fn key_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }
}

/// The records of a batch, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
    rest: std::ops::Range<usize>,
    left: i32,
}

impl Records {
    /// `limit` bounds the memory that a compressed body may take.
    fn new(header: &BatchHeader, body: &Bytes, limit: usize) -> Result<Self, BatchError> {
        let left = header.checked_record_count()?;
        let compression = header.attributes.compression()?;
        // A compacted batch may have lost all of its records, and its compressed body with them.
        let body = if left == 0 { Bytes::new() } else { decompress(compression, body, limit)? };
        Ok(Self { header: *header, rest: 0..body.len(), body, left })
    }

    fn read_next(&mut self) -> Result<Record, BatchError> {
        let mut reader = Reader::new(&self.body, self.rest.clone());
        let record = reader.record(&self.header)?;
        self.rest = reader.rest();
        if self.left == 0 && !self.rest.is_empty() {
            return Err(BYTES_AFTER_LAST);
        }
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = self.read_next();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl RawBatch {
    /// Reads the records, without checking the CRC.
    ///
    /// # Errors
    /// As [`RawBatch::records_within`].
    pub fn records(&self) -> Result<Records, BatchError> {
        self.records_within(RECORDS_LEN_MAX)
    }

    /// Reads the records, unless they take more than `limit` bytes once decompressed.
    ///
    /// # Errors
    /// [`BatchError`] where the count is negative, the codec unknown, the body not decompressible or larger than
    /// `limit`. That a record is malformed is said when its turn comes.
    pub fn records_within(&self, limit: usize) -> Result<Records, BatchError> {
        Records::new(self.header(), &self.body(), limit)
    }
}

impl ValidBatch {
    /// Reads the records.
    ///
    /// # Errors
    /// As [`RawBatch::records_within`].
    pub fn records(&self) -> Result<Records, BatchError> {
        self.records_within(RECORDS_LEN_MAX)
    }

    /// Reads the records, unless they take more than `limit` bytes once decompressed.
    ///
    /// # Errors
    /// As [`RawBatch::records_within`].
    pub fn records_within(&self, limit: usize) -> Result<Records, BatchError> {
        Records::new(self.header(), self.body(), limit)
    }
}

/// The timestamp of a record: its own, or the broker's for the whole batch.
pub(crate) fn timestamp_of(header: &BatchHeader, delta: i64) -> i64 {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

/// What validation asks of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    /// Negative for null, as on the wire.
    pub(crate) key_len: i32,
    pub(crate) value_len: i32,
}

/// What a record begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// The position after the record.
    pub(crate) end: u64,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
}

impl Opening {
    #[inline(always)]
    pub(crate) fn read(input: &mut impl Input) -> Result<Self, BatchError> {
        let length = u64::try_from(read_varint(|| input.byte())?)
            .map_err(|_| BatchError::Record("a record has a negative size"))?;
        let end = input.position() + length;
        input.byte()?;
        let timestamp_delta = read_varlong(|| input.byte())?;
        let offset_delta = read_varint(|| input.byte())?;
        Ok(Self { end, timestamp_delta, offset_delta })
    }
}

impl Outline {
    /// Looks one record over: every length inside it is checked, nothing is kept.
    #[inline]
    pub(crate) fn read(input: &mut impl Input) -> Result<Self, BatchError> {
        Self::read_with_key(input, Input::skip)
    }

    /// The same; `take_key` reads so many bytes from the input, those of a key that is not null.
    #[inline(always)]
    pub(crate) fn read_with_key<I: Input>(
        input: &mut I,
        take_key: impl FnOnce(&mut I, usize) -> Result<(), BatchError>,
    ) -> Result<Self, BatchError> {
        let Opening { end, timestamp_delta, offset_delta } = Opening::read(input)?;
        let key_len = read_field(input, end, take_key)?;
        let value_len = skip_field(input, end)?;
        let header_count = read_varint(|| input.byte())?;
        if header_count != 0 {
            skip_headers(input, end, header_count)?;
        }
        if input.position() != end {
            return Err(WRONG_SIZE);
        }
        Ok(Self { timestamp_delta, offset_delta, key_len, value_len })
    }
}

pub(crate) const BYTES_AFTER_LAST: BatchError =
    BatchError::Record("there are bytes after the last record");
pub(crate) const WRONG_SIZE: BatchError =
    BatchError::Record("a record's fields do not add up to its size");

#[inline(always)]
fn skip_field(input: &mut impl Input, end: u64) -> Result<i32, BatchError> {
    read_field(input, end, Input::skip)
}

#[inline(always)]
fn read_field<I: Input>(
    input: &mut I,
    end: u64,
    take: impl FnOnce(&mut I, usize) -> Result<(), BatchError>,
) -> Result<i32, BatchError> {
    let length = read_varint(|| input.byte())?;
    if let Ok(count) = usize::try_from(length) {
        // Before a decompressor is set to work on a length that cannot be true.
        if input.position().saturating_add(u64::try_from(count).unwrap_or(u64::MAX)) > end {
            return Err(WRONG_SIZE);
        }
        take(input, count)?;
    }
    Ok(length)
}

fn skip_headers(input: &mut impl Input, end: u64, count: i32) -> Result<(), BatchError> {
    if count < 0 {
        return Err(BatchError::Record("a record has a negative number of headers"));
    }
    for _ in 0..count {
        if skip_field(input, end)? < 0 {
            return Err(NULL_HEADER_KEY);
        }
        skip_field(input, end)?;
    }
    Ok(())
}

const NULL_HEADER_KEY: BatchError = BatchError::Record("a header has no key");

/// Reads records for keeps, as slices of the shared body.
struct Reader<'a> {
    body: &'a Bytes,
    input: Plain<'a>,
    start: usize,
}

impl<'a> Reader<'a> {
    fn new(body: &'a Bytes, rest: std::ops::Range<usize>) -> Self {
        let start = rest.start;
        Self { body, input: Plain::new(body.get(rest).unwrap_or_default()), start }
    }

    fn at(&self) -> usize {
        self.start + usize::try_from(self.input.position()).expect("a position in memory")
    }

    fn rest(&self) -> std::ops::Range<usize> {
        self.at()..self.body.len()
    }

    fn varint(&mut self) -> Result<i32, BatchError> {
        read_varint(|| self.input.byte())
    }

    fn record(&mut self, header: &BatchHeader) -> Result<Record, BatchError> {
        let length = usize::try_from(self.varint()?)
            .map_err(|_| BatchError::Record("a record has a negative size"))?;
        let end = self.at().saturating_add(length);
        self.input.byte()?;
        let timestamp_delta = read_varlong(|| self.input.byte())?;
        let offset_delta = self.varint()?;
        let key = self.field()?;
        let value = self.field()?;
        let headers = self.headers()?;
        if self.at() != end {
            return Err(WRONG_SIZE);
        }
        Ok(Record {
            offset: Offset(header.base_offset.wrapping_add(i64::from(offset_delta))),
            timestamp: Timestamp(timestamp_of(header, timestamp_delta)),
            key,
            value,
            headers,
        })
    }

    fn field(&mut self) -> Result<Option<Bytes>, BatchError> {
        let Ok(length) = usize::try_from(self.varint()?) else {
            return Ok(None);
        };
        let start = self.at();
        self.input.skip(length)?;
        Ok(Some(self.body.slice(start..self.at())))
    }

    fn headers(&mut self) -> Result<Vec<Header>, BatchError> {
        let count = usize::try_from(self.varint()?)
            .map_err(|_| BatchError::Record("a record has a negative number of headers"))?;
        // A header takes two bytes at least, so a count that is a lie takes no memory.
        let mut headers = Vec::with_capacity(count.min(self.rest().len() / 2));
        for _ in 0..count {
            let key = self.field()?.ok_or(NULL_HEADER_KEY)?;
            headers.push(Header { key, value: self.field()? });
        }
        Ok(headers)
    }
}
