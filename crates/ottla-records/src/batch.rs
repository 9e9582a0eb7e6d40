//! A batch as bytes, by how far it is trusted: [`RawBatch`] has the shape of one, [`ValidBatch`] may be appended.
//! Pure.
//!
//! Invariants: `bytes.len() == header.size_in_bytes()` of a raw batch;
//! `HEADER_LEN + body.len() == header.size_in_bytes()` and a CRC that is right of a valid one.

use bytes::{BufMut, Bytes, BytesMut};
use ottla_base::{LeaderEpoch, Offset, Timestamp};

use crate::builder::int;
use crate::crc::{crc32c, crc32c_of_parts};
use crate::error::BatchError;
use crate::header::{BatchHeader, CRC_START, HEADER_LEN, LOG_OVERHEAD};

/// The bytes of one batch, whole, of the right magic; nothing inside has been checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RawBatch {
    /// Exactly one batch, as a producer must send it. Bytes after it that cannot be a further
    /// batch, because they are too few, are dropped as Kafka drops them.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] where the bytes end before the batch does, [`BatchError::MoreThanOne`], or what
    /// [`BatchHeader::parse`] says of it or of what follows it.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let mut batches = Batches::new(bytes);
        let first = batches.next().ok_or_else(|| batches.truncation())??;
        match batches.next() {
            None => Ok(first),
            Some(Ok(_)) => Err(BatchError::MoreThanOne),
            Some(Err(error)) => Err(error),
        }
    }

    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included, as it was received.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records, compressed when the attributes say so.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// Accepts a batch that another broker has validated: followers and recovery check the CRC only.
    ///
    /// # Errors
    /// [`BatchError::CrcMismatch`]
    pub fn verify_crc(self) -> Result<ValidBatch, BatchError> {
        self.check_crc()?;
        Ok(ValidBatch::new(self.header, self.body()))
    }

    /// Whether the checksum is that of the bytes.
    ///
    /// # Errors
    /// [`BatchError::CrcMismatch`]
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let covered = self.bytes.get(CRC_START..).expect("a raw batch is at least a header long");
        let computed = crc32c(covered);
        let stored = self.header.crc;
        if stored == computed { Ok(()) } else { Err(BatchError::CrcMismatch { stored, computed }) }
    }
}

/// The batches in a run of bytes: a segment, a fetch, a produce request. Ends quietly before a
/// batch that is cut off, which is legal at the end of a fetch; ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    failed: bool,
}

impl Batches {
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// The bytes that have not been returned: the cut-off batch, once the iteration has ended.
    #[must_use]
    pub fn remaining(&self) -> &Bytes {
        &self.rest
    }

    fn truncation(&self) -> BatchError {
        match BatchHeader::parse(&self.rest) {
            Ok(header) => {
                BatchError::Truncated { needed: header.size_in_bytes(), available: self.rest.len() }
            }
            Err(error) => error,
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RawBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match BatchHeader::parse(&self.rest) {
            Ok(header) if header.size_in_bytes() <= self.rest.len() => {
                Some(Ok(RawBatch { header, bytes: self.rest.split_to(header.size_in_bytes()) }))
            }
            Ok(_) | Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// A batch that may be appended. The log assigns its place, then writes header and body as they
/// are; the body still shares the memory of the request that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidBatch {
    header: BatchHeader,
    body: Bytes,
}

impl ValidBatch {
    pub(crate) fn new(header: BatchHeader, body: Bytes) -> Self {
        debug_assert_eq!(header.size_in_bytes(), HEADER_LEN + body.len());
        Self { header, body }
    }

    /// Sets the length, and computes the CRC, after the body or header fields that it covers were changed.
    pub(crate) fn with_new_crc(mut header: BatchHeader, body: Bytes) -> Self {
        header.batch_length = int(HEADER_LEN - LOG_OVERHEAD + body.len());
        let bytes = header.to_bytes();
        let covered = bytes.get(CRC_START..).expect("the CRC begins inside the header");
        header.crc = crc32c_of_parts(covered, &body);
        Self::new(header, body)
    }

    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// What follows the 61 bytes of the header.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Gives the batch its place in the log. The CRC covers neither field, so it stays right.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.header.base_offset = base_offset.0;
        self.header.partition_leader_epoch = leader_epoch.0;
    }

    /// The whole batch in one piece. This copies; a log writes header and body from where they are.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size_in_bytes());
        bytes.put_slice(&self.header.to_bytes());
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    #[must_use]
    pub fn base_offset(&self) -> Offset {
        Offset(self.header.base_offset)
    }

    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.header.last_offset())
    }

    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.header.next_offset())
    }

    #[must_use]
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.header.max_timestamp)
    }
}
