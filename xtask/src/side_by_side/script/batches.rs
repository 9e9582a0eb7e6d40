//! Record batches for the scripts: sound ones, and ones that are wrong in one place (pure).

use bytes::{Bytes, BytesMut};
use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Codec, Compression, crc32c};

/// A time long ago, so that it is never taken for a broker's clock.
pub(super) const LONG_AGO: i64 = 1_500_000_000_000;

const CRC_AT: usize = 17;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 21;

/// Where a batch keeps its fields.
pub(super) mod at {
    pub(in super::super) const BASE_OFFSET: usize = 0;
    pub(in super::super) const LENGTH: usize = 8;
    pub(in super::super) const LEADER_EPOCH: usize = 12;
    pub(in super::super) const MAGIC: usize = 16;
    pub(in super::super) const CRC: usize = super::CRC_AT;
    pub(in super::super) const ATTRIBUTES: usize = 21;
    pub(in super::super) const LAST_OFFSET_DELTA: usize = 23;
    pub(in super::super) const BASE_TIMESTAMP: usize = 27;
    pub(in super::super) const MAX_TIMESTAMP: usize = 35;
    pub(in super::super) const PRODUCER_ID: usize = 43;
    pub(in super::super) const PRODUCER_EPOCH: usize = 51;
    pub(in super::super) const BASE_SEQUENCE: usize = 53;
    pub(in super::super) const RECORD_COUNT: usize = 57;
    pub(in super::super) const RECORDS: usize = 61;
}

/// A record to be: milliseconds after [`LONG_AGO`], key, value.
pub(super) type Draft<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>);

pub(super) fn compressed(compression: Compression, drafts: &[Draft<'_>]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::from(compression));
    for (after, key, value) in drafts {
        builder.append(Timestamp(LONG_AGO + after), *key, *value, &[]);
    }
    builder.build_bytes()
}

pub(super) fn plain(drafts: &[Draft<'_>]) -> Bytes {
    compressed(Compression::None, drafts)
}

/// Three records with keys, values and headers.
pub(super) fn three() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let time = |after| Timestamp(LONG_AGO + after);
    builder.append(time(0), Some(b"key"), Some(b"value"), &[]);
    builder.append(time(1), None, Some(b""), &[("header", Some(b"of a record")), ("", None)]);
    builder.append(time(2), Some(b""), None, &[]);
    builder.build_bytes()
}

/// One record whose value has so many bytes.
pub(super) fn sized(value_bytes: usize) -> Bytes {
    plain(&[(0, Some(b"key"), Some(&vec![b'v'; value_bytes]))])
}

/// The batch with other bytes in one place and a checksum that does not fit them.
pub(super) fn damaged(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    if let Some(place) = changed.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
    changed.freeze()
}

/// The batch with other bytes in one place and a checksum that fits them.
pub(super) fn changed(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let changed = damaged(batch, at, bytes);
    let crc = crc32c(changed.get(CHECKED_FROM..).unwrap_or_default());
    damaged(&changed, CRC_AT, &crc.to_be_bytes())
}

/// The batch with another body behind the header, length and checksum put right.
pub(super) fn with_body(batch: &Bytes, body: &[u8]) -> Bytes {
    let header = batch.get(..at::RECORDS).unwrap_or_default();
    let whole: Bytes = [header, body].concat().into();
    let length = i32::try_from(whole.len() - 12).expect("scripts write small batches");
    changed(&whole, at::LENGTH, &length.to_be_bytes())
}
