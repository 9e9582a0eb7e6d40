//! A snapshot byte by byte: record batches, as Kafka writes and reads them (KIP-630). Pure.
//!
//! | batch | records |
//! | --- | --- |
//! | the first, control | `SnapshotHeaderRecord`; where voters are known by directory, `KRaftVersionRecord` and `VotersRecord` |
//! | any number | metadata records, in the order of [`Image::records`] |
//! | the last, control | `SnapshotFooterRecord` |
//!
//! Offsets count from 0, every batch has the epoch of the snapshot and the time of the last record that it stands for:
//! the same state is the same bytes on every voter.
//!
//! openraft counts batches, and the log's beginning, with which they could be counted, may be gone. So the header record
//! carries a tagged field, which Kafka's readers pass over (KIP-482), under the tag [`TAG`], all numbers big-endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | version of this format: 0 |
//! | 8 | the batches of the log before the snapshot's end offset |
//! | 1 + 4 | whether the CRC of the log's first batch is known, and that CRC |
//! | 8 | the number of the batch, counted from 0, that has named the voters last |
//! | | that batch, as it is in the log |
//!
//! A snapshot is whole if every batch has its CRC, they follow one another, and the last one is the footer: nothing less
//! is taken for one.

use std::sync::Arc;

use bytes::Bytes;
use ottla_base::{Offset, Timestamp};
use ottla_metadata::{Delta, Image, MetadataRecord, record};
use ottla_protocol::records::{SnapshotFooterRecord, SnapshotHeaderRecord};
use ottla_protocol::{Decoder, Encoder, Malformed};
use ottla_records::{BatchBuilder, Compression, ControlType, RawBatch, Record, ValidBatch};

use super::{Extent, SnapshotId, Voters};
use crate::storage::format;

/// "Ot", far from the tags that Kafka gives in their order.
const TAG: u32 = 0x4f74;
const VERSION: i8 = 0;

/// A batch of metadata records ends when it is larger than this.
const BATCH_BYTES: usize = 256 << 10;
/// A longer batch is in no snapshot: Kafka's limit is 8 MiB, and one record more may be in it.
pub(crate) const BATCH_BYTES_MAX: usize = 16 << 20;

/// Bytes that are no snapshot, or none that this version understands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Batch(#[from] ottla_records::BatchError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Message(#[from] ottla_protocol::DecodeError),
    #[error(transparent)]
    Entry(#[from] format::FormatError),
    #[error(transparent)]
    ControlKey(#[from] ottla_records::InvalidControlKey),
    #[error("{0}")]
    Unexpected(&'static str),
    /// It is whole as far as can be seen, but this node can't act on it: an older one would be no better.
    #[error("{0}")]
    NotUnderstood(String),
}

type Result<T> = std::result::Result<T, SnapshotError>;

/// All batches of a snapshot, in order.
pub(crate) fn encode<'a>(
    extent: &'a Extent,
    image: &'a Image,
) -> impl Iterator<Item = std::io::Result<ValidBatch>> + 'a {
    let mut records = image.records().peekable();
    let batches = std::iter::from_fn(move || {
        records.peek().is_some().then(|| metadata(&mut records, extent.timestamp))
    });
    let mut next_offset = Offset::ZERO;
    std::iter::once_with(|| header(extent))
        .chain(batches)
        .chain(std::iter::once_with(|| footer(extent.timestamp)))
        .map(move |batch| {
            let mut batch = batch?;
            batch.assign(next_offset, extent.id.epoch);
            next_offset = batch.next_offset();
            Ok(batch)
        })
}

fn header(extent: &Extent) -> std::io::Result<ValidBatch> {
    let mut builder = BatchBuilder::control();
    let record = header_record(extent)?;
    builder.append_control(extent.timestamp, ControlType::SnapshotHeader, &record);
    let membership = &extent.voters.membership;
    // Kafka has neither record where the voters are known by their ids alone.
    if format::is_by_directory(membership) {
        for (kind, value) in format::newest_voters_records(membership)? {
            builder.append_control(extent.timestamp, kind, &value);
        }
    }
    Ok(builder.build())
}

fn header_record(extent: &Extent) -> std::io::Result<Bytes> {
    let mut field = Encoder::new();
    field.i8(VERSION);
    field.i64(extent.entries.try_into().map_err(std::io::Error::other)?);
    field.bool(extent.origin.is_some());
    field.u32(extent.origin.unwrap_or_default());
    field.i64(extent.voters.index.try_into().map_err(std::io::Error::other)?);
    field.raw(&extent.voters.batch.to_bytes());
    let field = field.into_bytes();
    let record =
        SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: extent.timestamp.0 };
    let plain = format::encode_message(&record)?;
    let [fields @ .., _no_tags] = &*plain else { return Err(std::io::Error::other("no tags")) };
    let mut output = Encoder::new();
    output.raw(fields);
    output.unsigned_varint(1);
    output.unsigned_varint(TAG);
    output.unsigned_varint(field.len().try_into().map_err(std::io::Error::other)?);
    output.raw(&field);
    Ok(output.into_bytes())
}

fn metadata(
    records: &mut impl Iterator<Item = MetadataRecord>,
    timestamp: Timestamp,
) -> std::io::Result<ValidBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let value = record::encode(&record).map_err(std::io::Error::other)?;
        builder.append(timestamp, None, Some(&value), &[]);
        if builder.size_in_bytes() >= BATCH_BYTES {
            break;
        }
    }
    Ok(builder.build())
}

fn footer(timestamp: Timestamp) -> std::io::Result<ValidBatch> {
    let mut builder = BatchBuilder::control();
    let record = format::encode_message(&SnapshotFooterRecord { version: 0 })?;
    builder.append_control(timestamp, ControlType::SnapshotFooter, &record);
    Ok(builder.build())
}

/// A snapshot that was read to its end.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) extent: Extent,
    pub(crate) image: Image,
}

/// Takes a snapshot batch by batch.
#[derive(Debug)]
pub(crate) struct Reader {
    id: SnapshotId,
    extent: Option<Extent>,
    image: Image,
    next_offset: i64,
    has_ended: bool,
}

impl Reader {
    /// `image` is an empty one of this cluster.
    pub(crate) fn new(id: SnapshotId, image: Image) -> Self {
        Self { id, extent: None, image, next_offset: 0, has_ended: false }
    }

    pub(crate) fn take(&mut self, batch: &RawBatch) -> Result<()> {
        batch.check_crc()?;
        let header = batch.header();
        if self.has_ended {
            return Err(SnapshotError::Unexpected("something follows the footer"));
        }
        if header.base_offset != self.next_offset {
            return Err(SnapshotError::Unexpected("a batch does not follow the one before"));
        }
        if header.partition_leader_epoch != self.id.epoch.0 {
            return Err(SnapshotError::Unexpected("a batch of another epoch"));
        }
        self.next_offset = header.next_offset();
        match (&self.extent, header.attributes.is_control()) {
            (None, _) => self.extent = Some(read_header(self.id, batch)?),
            (Some(_), true) => self.has_ended = is_footer(batch)?,
            (Some(_), false) => self.take_metadata(batch)?,
        }
        Ok(())
    }

    fn take_metadata(&mut self, batch: &RawBatch) -> Result<()> {
        for record in batch.records()? {
            let value = record?.value.ok_or(SnapshotError::Unexpected("a record is null"))?;
            let understood = MetadataRecord::decode(value);
            let not = |error: &dyn ToString| SnapshotError::NotUnderstood(error.to_string());
            let (_, record) = understood.map_err(|error| not(&error))?;
            let applied = self.image.apply_into(&record, &mut Delta::default());
            applied.map_err(|error| not(&error))?;
        }
        Ok(())
    }

    /// What was read, if that was all of it.
    pub(crate) fn finish(self) -> Result<Contents> {
        let missing = SnapshotError::Unexpected("it has no header");
        let (extent, mut image) = (self.extent.ok_or(missing)?, self.image);
        if !self.has_ended {
            return Err(SnapshotError::Unexpected("it ends before its footer"));
        }
        image.offset = Offset(self.id.end_offset.0 - 1);
        image.epoch = self.id.epoch;
        Ok(Contents { extent, image })
    }
}

fn is_footer(batch: &RawBatch) -> Result<bool> {
    let mut kinds = Vec::new();
    for record in batch.records()? {
        kinds.push(kind(&record?)?);
    }
    match *kinds {
        [ControlType::SnapshotFooter] => Ok(true),
        _ => Err(SnapshotError::Unexpected("a control batch that is no footer")),
    }
}

fn kind(record: &Record) -> Result<ControlType> {
    let key =
        record.key.as_ref().ok_or(SnapshotError::Unexpected("a control record has no key"))?;
    let unknown = SnapshotError::Unexpected("a control record of an unknown type");
    ControlType::from_key(key)?.ok_or(unknown)
}

/// What the first batch of a snapshot tells.
pub(crate) fn read_header(id: SnapshotId, batch: &RawBatch) -> Result<Extent> {
    batch.check_crc()?;
    let no_header = || SnapshotError::Unexpected("it does not begin with a header");
    if !batch.header().attributes.is_control() {
        return Err(no_header());
    }
    let first = batch.records()?.next().ok_or_else(no_header)??;
    if kind(&first)? != ControlType::SnapshotHeader {
        return Err(no_header());
    }
    let value = first.value.ok_or_else(no_header)?;
    let mut input = Decoder::new(value);
    let (_version, timestamp) = (input.i16()?, Timestamp(input.i64()?));
    let field = tagged_field(&mut input)?;
    extent(id, timestamp, field)
}

fn tagged_field(input: &mut Decoder) -> Result<Bytes> {
    let mut found = None;
    for _ in 0..input.unsigned_varint()? {
        let (tag, len) = (input.unsigned_varint()?, input.unsigned_varint()?);
        let value = input.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        if tag == TAG {
            found = Some(value);
        }
    }
    let none = "it was not written by Ottla: how many batches the log had before it is not known";
    found.ok_or_else(|| SnapshotError::NotUnderstood(none.to_owned()))
}

fn extent(id: SnapshotId, timestamp: Timestamp, field: Bytes) -> Result<Extent> {
    let negative = |_| SnapshotError::Unexpected("a number is negative");
    let mut input = Decoder::new(field);
    let version = input.i8()?;
    if version != VERSION {
        let what = format!("version {version} of what Ottla adds to a snapshot's header");
        return Err(SnapshotError::NotUnderstood(what));
    }
    let entries = u64::try_from(input.i64()?).map_err(negative)?;
    let (has_origin, origin) = (input.bool()?, input.u32()?);
    let index = u64::try_from(input.i64()?).map_err(negative)?;
    let named = format::entry(&RawBatch::parse(input.rest())?, index)?;
    let no_voters = || SnapshotError::Unexpected("it does not name the voters");
    let batch = named.batch.clone().ok_or_else(no_voters)?;
    let membership = openraft::entry::RaftPayload::get_membership(&named.payload);
    let membership = membership.ok_or_else(no_voters)?;
    if index >= entries || batch.next_offset() > id.end_offset {
        return Err(SnapshotError::Unexpected("it names voters of later"));
    }
    let voters = Arc::new(Voters { index, membership, batch });
    Ok(Extent { id, entries, timestamp, origin: has_origin.then_some(origin), voters })
}

#[cfg(test)]
mod tests;
