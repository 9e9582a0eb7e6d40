//! Looking over the records of a batch without holding them: to find one, or to learn their keys. Pure.
//!
//! A few kilobytes can hold records of gigabytes. However much it is, it goes by in the memory of one chunk: 32 KiB, or a
//! block of the codec where its blocks are larger (4 MiB of LZ4, 22 times the compressed bytes of snappy).

use std::hash::Hasher;
use std::ops::ControlFlow;

use ottla_base::{Offset, Timestamp};

use crate::batch::{RawBatch, ValidBatch};
use crate::compression::Compression;
use crate::error::BatchError;
use crate::header::BatchHeader;
use crate::input::{Compressed, DECOMPRESSED_MAX, Input, Plain};
use crate::record::{BYTES_AFTER_LAST, Outline, timestamp_of};

/// What is seen of a record in passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<K = ()> {
    pub offset: Offset,
    pub timestamp: Timestamp,
    /// What was made of its key; `None` for null.
    pub key: Option<K>,
    pub has_value: bool,
}

impl RawBatch {
    /// Shows each record, in order, until `visit` breaks off; with what, is returned. The CRC is not checked.
    ///
    /// # Errors
    /// [`BatchError`] where the records cannot be decompressed or read, as far as they were looked at.
    pub fn look_over<B>(
        &self,
        visit: impl FnMut(Seen) -> ControlFlow<B>,
    ) -> Result<Option<B>, BatchError> {
        look_over(self.header(), &self.body(), Unread, visit)
    }

    /// The offset of the first record whose timestamp is the batch's largest: what ListOffsets
    /// answers to "max timestamp" (−3). The log finds the batch, this finds the record.
    ///
    /// # Errors
    /// As [`RawBatch::look_over`].
    pub fn offset_of_max_timestamp(&self) -> Result<Option<Offset>, BatchError> {
        let max_timestamp = Timestamp(self.header().max_timestamp);
        self.look_over(|record| {
            if record.timestamp == max_timestamp {
                return ControlFlow::Break(record.offset);
            }
            ControlFlow::Continue(())
        })
    }

    /// The first record at or after both a timestamp and an offset: what ListOffsets answers to a time.
    ///
    /// # Errors
    /// As [`RawBatch::look_over`].
    pub fn first_at_or_after(
        &self,
        timestamp: Timestamp,
        offset: Offset,
    ) -> Result<Option<(Timestamp, Offset)>, BatchError> {
        self.look_over(|record| {
            if record.timestamp >= timestamp && record.offset >= offset {
                return ControlFlow::Break((record.timestamp, record.offset));
            }
            ControlFlow::Continue(())
        })
    }
}

impl ValidBatch {
    /// Shows each record, in order, until `visit` breaks off; with what, is returned. A key is shown as a hasher of
    /// `new_hasher` that its bytes have gone through: in pieces, which must not matter to it.
    ///
    /// # Errors
    /// As [`RawBatch::look_over`].
    pub fn look_over_keys<H: Hasher, B>(
        &self,
        new_hasher: impl Fn() -> H,
        visit: impl FnMut(Seen<H>) -> ControlFlow<B>,
    ) -> Result<Option<B>, BatchError> {
        look_over(self.header(), self.body(), Hashed(new_hasher), visit)
    }
}

fn look_over<K: Keys, B>(
    header: &BatchHeader,
    body: &[u8],
    keys: K,
    visit: impl FnMut(Seen<K::Key>) -> ControlFlow<B>,
) -> Result<Option<B>, BatchError> {
    let count = header.checked_record_count()?;
    let compression = header.attributes.compression()?;
    if count == 0 {
        // A compacted batch may have lost all of its records, and its compressed body with them.
        return Ok(None);
    }
    if compression == Compression::None {
        return walk(header, Plain::new(body), keys, visit);
    }
    walk(header, Compressed::new(compression, body, DECOMPRESSED_MAX)?, keys, visit)
}

/// Shows each record of what `input` gives.
pub(crate) fn walk<K: Keys, B>(
    header: &BatchHeader,
    mut input: impl Input,
    keys: K,
    mut visit: impl FnMut(Seen<K::Key>) -> ControlFlow<B>,
) -> Result<Option<B>, BatchError> {
    for left in (0..header.record_count).rev() {
        let mut key = None;
        let record = Outline::read_with_key(&mut input, |input, len| {
            key = Some(keys.take(input, len)?);
            Ok(())
        })?;
        if left == 0 && !input.at_end()? {
            return Err(BYTES_AFTER_LAST);
        }
        let seen = Seen {
            offset: Offset(header.base_offset.wrapping_add(i64::from(record.offset_delta))),
            timestamp: Timestamp(timestamp_of(header, record.timestamp_delta)),
            key,
            has_value: record.value_len >= 0,
        };
        if let ControlFlow::Break(found) = visit(seen) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What is made of keys.
pub(crate) trait Keys {
    type Key;

    /// Reads so many bytes.
    fn take(&self, input: &mut impl Input, len: usize) -> Result<Self::Key, BatchError>;
}

/// Nothing.
struct Unread;

impl Keys for Unread {
    type Key = ();

    #[inline(always)]
    fn take(&self, input: &mut impl Input, len: usize) -> Result<(), BatchError> {
        input.skip(len)
    }
}

/// A hash, for which a key need not be in memory whole.
pub(crate) struct Hashed<F>(pub(crate) F);

impl<H: Hasher, F: Fn() -> H> Keys for Hashed<F> {
    type Key = H;

    #[inline(always)]
    fn take(&self, input: &mut impl Input, len: usize) -> Result<H, BatchError> {
        let mut hasher = (self.0)();
        input.pieces(len, |piece| hasher.write(piece))?;
        Ok(hasher)
    }
}
