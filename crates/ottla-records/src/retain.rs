//! What compaction makes of a batch: the same batch with some of its records, or with none. Pure.
//!
//! Offsets, producer, sequence numbers, leader epoch and the last offset stay, whatever is left of the records: a
//! producer's next batch follows its last sequence number, not its last record.

use std::convert::Infallible;
use std::hash::Hasher;
use std::ops::ControlFlow;

use bytes::Bytes;
use ottla_base::Timestamp;

use crate::NO_TIMESTAMP;
use crate::batch::ValidBatch;
use crate::builder::write_opening;
use crate::compression::{Codec, Compression, Recompressor, decompress};
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_LEN, TimestampType};
use crate::input::{Compressed, DECOMPRESSED_MAX, Input, Plain};
use crate::record::{Opening, RECORDS_LEN_MAX, WRONG_SIZE, timestamp_of};
use crate::validate::BATCH_LEN_MAX;
use crate::walk::{Hashed, Seen, walk};

/// Bytes of decompressed records that are held from the decision to the writing. More are decompressed twice.
const HELD_MAX: usize = 1 << 20;
/// How many times longer the records that stay may be than all were, both compressed.
const GROWTH_MAX: usize = 4;
/// What they may take in any case: twice what a broker accepts by default.
const RETAINED_MIN: usize = 2 << 20;

/// A batch, and which of its records stay.
#[derive(Debug)]
pub struct Sifted<'a> {
    batch: &'a ValidBatch,
    /// `None` if they are too many bytes once decompressed.
    held: Option<Bytes>,
    stays: Bits,
    kept: i32,
    has_tombstones: bool,
    first_timestamp: i64,
    max_timestamp: i64,
}

impl ValidBatch {
    /// Decides of each record whether it stays. A key is shown as in [`ValidBatch::look_over_keys`].
    ///
    /// Beside the decision, a bit each, at most 1 MiB of the records is held.
    ///
    /// # Errors
    /// [`BatchError`] where the records cannot be decompressed or read.
    pub fn sift<H: Hasher>(
        &self,
        new_hasher: impl Fn() -> H,
        stays: impl Fn(&Seen<H>) -> bool,
    ) -> Result<Sifted<'_>, BatchError> {
        let mut sifted = Sifted {
            batch: self,
            held: self.held()?,
            stays: Bits::default(),
            kept: 0,
            has_tombstones: false,
            first_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        };
        self.header().checked_record_count()?;
        let held = sifted.held.clone();
        let visit = |record: Seen<H>| {
            sifted.take(&record, stays(&record));
            ControlFlow::<Infallible>::Continue(())
        };
        match held {
            Some(bytes) => walk(self.header(), Plain::new(&bytes), Hashed(new_hasher), visit)?,
            None => self.look_over_keys(new_hasher, visit)?,
        };
        Ok(sifted)
    }

    /// The records as they are uncompressed, if that is not too much.
    fn held(&self) -> Result<Option<Bytes>, BatchError> {
        let compression = self.header().attributes.compression()?;
        if compression == Compression::None || self.header().record_count <= 0 {
            return Ok(Some(self.body().clone()));
        }
        match decompress(compression, self.body(), HELD_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BatchError::TooMuchDecompressed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// This batch without records: it still tells its producer's last sequence number, and where the log ended.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let header = self.header();
        let attributes = header.attributes.known().with_compression(Compression::None);
        Self::with_new_crc(
            BatchHeader {
                attributes: attributes.with_delete_horizon(false),
                base_timestamp: NO_TIMESTAMP,
                record_count: 0,
                ..*header
            },
            Bytes::new(),
        )
    }
}

impl Sifted<'_> {
    fn take<K>(&mut self, record: &Seen<K>, stays: bool) {
        self.stays.push(stays);
        if stays {
            if self.kept == 0 {
                self.first_timestamp = record.timestamp.0;
            }
            self.kept += 1;
            self.has_tombstones |= !record.has_value;
            self.max_timestamp = self.max_timestamp.max(record.timestamp.0);
        }
    }

    /// Whether no record stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// Whether all records stay.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.kept == self.batch.header().record_count
    }

    /// Whether a record without a value stays.
    #[must_use]
    pub fn has_tombstones(&self) -> bool {
        self.has_tombstones
    }

    /// The batch with only the records that stay, compressed as it was. With a delete horizon, readers of the log
    /// know from when on its tombstones may go (KIP-534).
    ///
    /// The result is in memory: up to four times what the batch takes, or 2 MiB if that is more. A codec does not do much
    /// worse than another of its kind; but a batch may be made for that, with repetitions as far apart as no level by default
    /// looks for them.
    ///
    /// # Errors
    /// [`BatchError::TooMuchRetained`]
    ///
    /// # Panics
    /// Without a record; see [`ValidBatch::emptied`].
    pub fn retained(&self, delete_horizon: Option<Timestamp>) -> Result<ValidBatch, BatchError> {
        assert!(self.kept > 0, "a batch without records has another form");
        let header = self.batch.header();
        let base_timestamp = delete_horizon.map_or(self.first_timestamp, |horizon| horizon.0);
        let max_timestamp = match header.attributes.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => self.max_timestamp,
        };
        let attributes = header.attributes.known().with_delete_horizon(delete_horizon.is_some());
        let body = self.write(base_timestamp)?;
        Ok(ValidBatch::with_new_crc(
            BatchHeader {
                attributes,
                base_timestamp,
                max_timestamp,
                record_count: self.kept,
                ..*header
            },
            body.into(),
        ))
    }

    fn write(&self, base_timestamp: i64) -> Result<Vec<u8>, BatchError> {
        let (header, body) = (self.batch.header(), self.batch.body());
        let compression = header.attributes.compression()?;
        let limit = limit(compression, body.len());
        let mut out = Recompressor::staging(Codec::from(compression), limit, HELD_MAX);
        let is_written = match &self.held {
            Some(bytes) => self.copy(Plain::new(bytes), base_timestamp, &mut out)?,
            None => {
                let input = Compressed::new(compression, body, DECOMPRESSED_MAX)?;
                self.copy(input, base_timestamp, &mut out)?
            }
        };
        let written = if is_written { out.finish() } else { None };
        written.ok_or(BatchError::TooMuchRetained { limit })
    }

    /// Returns whether what was written can be read: times that are counted from another one take more bytes, and there
    /// may be no room for those.
    fn copy(
        &self,
        mut input: impl Input,
        base_timestamp: i64,
        out: &mut Recompressor,
    ) -> Result<bool, BatchError> {
        let header = self.batch.header();
        let mut opening_bytes = Vec::new();
        let mut room = RECORDS_LEN_MAX;
        for stays in self.stays.iter() {
            let opening = Opening::read(&mut input)?;
            let rest = opening.end.checked_sub(input.position()).ok_or(WRONG_SIZE)?;
            let rest = usize::try_from(rest).map_err(|_| WRONG_SIZE)?;
            if !stays {
                input.skip(rest)?;
                continue;
            }
            let timestamp = timestamp_of(header, opening.timestamp_delta);
            let delta = timestamp.wrapping_sub(base_timestamp);
            opening_bytes.clear();
            let is_record = write_opening(delta, opening.offset_delta, rest, &mut opening_bytes);
            match room.checked_sub(opening_bytes.len() + rest) {
                Some(left) if is_record.is_some() => room = left,
                _ => return Ok(false),
            }
            out.write(&opening_bytes);
            input.pieces(rest, |piece| out.write(piece))?;
        }
        Ok(true)
    }
}

/// Bytes that the records may take which stay of so many. Those that are not compressed take little more than before.
fn limit(compression: Compression, len: usize) -> usize {
    let format_max = BATCH_LEN_MAX - HEADER_LEN;
    if compression == Compression::None {
        return format_max;
    }
    len.saturating_mul(GROWTH_MAX).max(RETAINED_MIN).min(format_max)
}

/// One bit for each record: of very many that fit into a batch at most 40 MB.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    len: usize,
}

const WORD_BITS: usize = 64;

impl Bits {
    fn push(&mut self, bit: bool) {
        let at = self.len % WORD_BITS;
        if at == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(bit) << at;
        }
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = bool> {
        let words = self.words.iter();
        let bits = words.flat_map(|word| (0..WORD_BITS).map(move |at| word >> at & 1 == 1));
        bits.take(self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use ottla_base::{LeaderEpoch, Offset};

    use super::*;
    use crate::record::Record;
    use crate::{BatchBuilder, HEADER_LEN, RawBatch};

    fn batch(compression: Compression) -> ValidBatch {
        let mut builder = BatchBuilder::new(compression)
            .at(Offset(100), LeaderEpoch(7))
            .producer(5, 2, 40)
            .transactional();
        for n in 0..4_i64 {
            let key = [b'k', b'0' + u8::try_from(n).unwrap()];
            let headers = [("h", Some(&b"x"[..])), ("null", None)];
            let value = (n != 2).then_some(&b"value"[..]);
            builder.append(Timestamp(1_000 + n), Some(&key), value, &headers);
        }
        builder.build()
    }

    fn records(batch: &ValidBatch) -> Vec<Record> {
        // Through the bytes, as the next reader gets it.
        let raw = RawBatch::parse(batch.to_bytes()).unwrap();
        let valid = raw.verify_crc().unwrap();
        valid.records().unwrap().map(Result::unwrap).collect()
    }

    /// The records stay whose place in the batch fits.
    fn sift(batch: &ValidBatch, fits: impl Fn(i64) -> bool) -> Sifted<'_> {
        let base = batch.header().base_offset;
        batch.sift(DefaultHasher::new, |record| fits(record.offset.0 - base)).unwrap()
    }

    #[test]
    fn the_records_that_are_kept_are_the_same_records_at_the_same_offsets() {
        for compression in Compression::ALL {
            let all = batch(compression);
            let kept: Vec<Record> = records(&all).into_iter().skip(1).step_by(2).collect();
            for horizon in [None, Some(Timestamp(77_000))] {
                let retained = sift(&all, |n| n % 2 == 1).retained(horizon).unwrap();
                assert_eq!(records(&retained), kept);
                let (before, after) = (all.header(), retained.header());
                assert_eq!(after.base_offset, 100);
                assert_eq!(after.last_offset(), before.last_offset());
                assert_eq!(after.last_sequence(), before.last_sequence());
                assert_eq!(after.partition_leader_epoch, 7);
                assert_eq!(after.attributes.compression().unwrap(), compression);
                assert!(after.attributes.is_transactional());
                assert_eq!(after.max_timestamp, 1_003);
                assert_eq!(after.delete_horizon_ms(), horizon.map(|horizon| horizon.0));
                assert_eq!(after.record_count, 2);
            }
        }
    }

    #[test]
    fn the_largest_timestamp_is_that_of_what_is_left_or_the_brokers() {
        let all = batch(Compression::None);
        let kept: Vec<Record> = records(&all).into_iter().take(2).collect();
        let retained = sift(&all, |n| n < 2).retained(None).unwrap();
        assert_eq!(records(&retained), kept);
        assert_eq!(retained.header().max_timestamp, 1_001);
        let mut builder = BatchBuilder::new(Compression::None).log_append_time(Timestamp(9_000));
        builder.append(Timestamp(1), Some(b"a"), None, &[]);
        builder.append(Timestamp(2), Some(b"b"), None, &[]);
        let broker_time = builder.build();
        let kept: Vec<Record> = records(&broker_time).into_iter().take(1).collect();
        let retained = sift(&broker_time, |n| n == 0).retained(None).unwrap();
        assert_eq!(retained.header().max_timestamp, 9_000);
        assert_eq!(records(&retained), kept);
    }

    #[test]
    fn records_that_are_too_many_to_be_held_are_kept_in_the_same_way() {
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(compression).at(Offset(100), LeaderEpoch(7));
            for n in 0..40_u8 {
                let value: Vec<u8> = (0..=n).cycle().take(64 << 10).collect();
                builder.append(Timestamp(i64::from(n)), Some(&[n]), Some(&value), &[("h", None)]);
            }
            let all = builder.build();
            let kept: Vec<Record> = records(&all).into_iter().skip(1).step_by(2).collect();
            let sifted = sift(&all, |n| n % 2 == 1);
            assert_eq!(sifted.held.is_some(), compression == Compression::None);
            for horizon in [None, Some(Timestamp(77_000))] {
                let retained = sifted.retained(horizon).unwrap();
                assert_eq!(records(&retained), kept);
                assert_eq!(retained.header().attributes.compression(), Ok(compression));
                assert_eq!(retained.header().max_timestamp, 39);
            }
        }
    }

    #[test]
    fn an_emptied_batch_keeps_its_place_and_its_producer() {
        let all = batch(Compression::Zstd);
        let emptied = all.emptied();
        assert_eq!(emptied.size_in_bytes(), HEADER_LEN);
        assert_eq!(records(&emptied), []);
        let (before, after) = (all.header(), emptied.header());
        assert_eq!((after.base_offset, after.last_offset()), (100, before.last_offset()));
        assert_eq!(after.last_sequence(), before.last_sequence());
        assert_eq!(after.max_timestamp, before.max_timestamp);
        assert_eq!(after.base_timestamp, NO_TIMESTAMP);
        assert_eq!(after.attributes.compression().unwrap(), Compression::None);
        assert!(after.attributes.is_transactional());
    }
}
