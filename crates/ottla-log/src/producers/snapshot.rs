//! `NNNNNNNNNNNNNNNNNNNN.snapshot`: the producers of a log as its first N offsets leave them, in Kafka's format. Pure.
//!
//! Big endian: version (int16, 1), CRC-32C of all that follows it (uint32), the number of entries (int32), and for
//! each entry 46 bytes: producer id (int64), epoch (int16), last sequence (int32), last offset (int64), offset delta
//! (int32), timestamp (int64), coordinator epoch (int32), first offset of the open transaction or −1 (int64). A last
//! offset of −1 stands for a producer without batches.
//!
//! Kafka writes one entry for a producer, with its last batch; after a restart it takes a retry of any batch before
//! that one for a gap. We write one entry for every batch that is remembered, oldest first. Kafka reads them one
//! after the other into a map, so that the last one counts, which is the one that it would have written.
//!
//! Reading trusts nothing: any other version or length, a wrong checksum, or an offset that the first N do not have
//! make the whole snapshot worthless. The batches of the log can tell all of it again.

use ottla_base::{Offset, ProducerId, Timestamp};
use ottla_records::{NO_SEQUENCE, crc32c};

use super::{Producer, Producers, WrittenBatch};

const VERSION: i16 = 1;
const ENTRIES_AT: usize = 6;

/// Why a snapshot cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("version {0} of a snapshot is not known")]
    Version(i16),
    #[error("a snapshot is cut off, or longer than its entries")]
    Length,
    #[error("a snapshot's checksum is wrong")]
    Checksum,
    #[error("a snapshot of the first {snapshot} offsets names offset {found}")]
    Offset { snapshot: Offset, found: Offset },
}

/// One producer after one of its batches.
#[derive(Debug, Clone, Copy)]
struct Entry {
    producer_id: ProducerId,
    epoch: i16,
    batch: Option<WrittenBatch>,
    timestamp: Timestamp,
    coordinator_epoch: i32,
    transaction_first_offset: Option<Offset>,
}

/// The file's bytes.
#[must_use]
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let entries: Vec<Entry> = producers.iter().flat_map(|(id, it)| entries_of(id, it)).collect();
    let mut checked = Vec::new();
    let count = i32::try_from(entries.len()).expect("memory has no room for so many producers");
    checked.extend(count.to_be_bytes());
    entries.iter().for_each(|entry| entry.write(&mut checked));
    let mut bytes = VERSION.to_be_bytes().to_vec();
    bytes.extend(crc32c(&checked).to_be_bytes());
    bytes.extend(checked);
    bytes
}

/// Reads the file that is named after this offset.
pub(crate) fn decode(bytes: &[u8], offset: Offset) -> Result<Producers, SnapshotError> {
    let (version, _) = bytes.split_first_chunk().ok_or(SnapshotError::Length)?;
    let version = i16::from_be_bytes(*version);
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    let (head, checked) = bytes.split_at_checked(ENTRIES_AT).ok_or(SnapshotError::Length)?;
    let (_, crc) = head.split_last_chunk().ok_or(SnapshotError::Length)?;
    if u32::from_be_bytes(*crc) != crc32c(checked) {
        return Err(SnapshotError::Checksum);
    }
    let mut fields = Fields(checked);
    let count = i32::from_be_bytes(fields.take()?);
    let count = u32::try_from(count).map_err(|_| SnapshotError::Length)?;
    let mut producers = Producers::default();
    for _ in 0..count {
        let entry = Entry::read(&mut fields)?;
        if let Some(found) = entry.last_offset().filter(|found| *found >= offset) {
            return Err(SnapshotError::Offset { snapshot: offset, found });
        }
        entry.apply(&mut producers);
    }
    if fields.0.is_empty() { Ok(producers) } else { Err(SnapshotError::Length) }
}

fn entries_of(producer_id: ProducerId, producer: &Producer) -> Vec<Entry> {
    let entry = |batch: Option<WrittenBatch>, timestamp| Entry {
        producer_id,
        epoch: producer.epoch,
        batch,
        timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        transaction_first_offset: producer.transaction_first_offset,
    };
    let batches = producer.batches().iter();
    let mut entries: Vec<Entry> =
        batches.map(|batch| entry(Some(*batch), batch.timestamp)).collect();
    // A marker that came after the last batch has changed the timestamp.
    if entries.last().is_none_or(|last| last.timestamp != producer.last_timestamp) {
        entries.push(entry(producer.batches().last().copied(), producer.last_timestamp));
    }
    entries
}

impl Entry {
    fn last_offset(&self) -> Option<Offset> {
        self.batch.map(|batch| batch.last_offset)
    }

    fn apply(self, producers: &mut Producers) {
        let producer = producers.by_id.entry(self.producer_id).or_insert(Producer::UNKNOWN);
        producer.enter(self.epoch);
        let known = producer.batches.last().map(|batch| batch.last_offset);
        if let Some(batch) = self.batch.filter(|batch| known != Some(batch.last_offset)) {
            producer.remember(batch);
        }
        producer.last_timestamp = self.timestamp;
        producer.coordinator_epoch = self.coordinator_epoch;
        producer.transaction_first_offset = self.transaction_first_offset;
    }

    fn write(&self, out: &mut Vec<u8>) {
        let batch = self.batch;
        out.extend(self.producer_id.0.to_be_bytes());
        out.extend(self.epoch.to_be_bytes());
        out.extend(batch.map_or(NO_SEQUENCE, |batch| batch.last_sequence).to_be_bytes());
        out.extend(batch.map_or(-1, |batch| batch.last_offset.0).to_be_bytes());
        out.extend(batch.map_or(0, |batch| batch.offset_delta).to_be_bytes());
        out.extend(self.timestamp.0.to_be_bytes());
        out.extend(self.coordinator_epoch.to_be_bytes());
        let first_offset = self.transaction_first_offset.map_or(-1, |offset| offset.0);
        out.extend(first_offset.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, SnapshotError> {
        let producer_id = ProducerId(i64::from_be_bytes(fields.take()?));
        let epoch = i16::from_be_bytes(fields.take()?);
        let last_sequence = i32::from_be_bytes(fields.take()?);
        let last_offset = Offset(i64::from_be_bytes(fields.take()?));
        let offset_delta = i32::from_be_bytes(fields.take()?);
        let timestamp = Timestamp(i64::from_be_bytes(fields.take()?));
        let batch = WrittenBatch { last_sequence, last_offset, offset_delta, timestamp };
        let coordinator_epoch = i32::from_be_bytes(fields.take()?);
        let first_offset = Offset(i64::from_be_bytes(fields.take()?));
        Ok(Self {
            producer_id,
            epoch,
            batch: (last_offset >= Offset::ZERO).then_some(batch),
            timestamp,
            coordinator_epoch,
            transaction_first_offset: (first_offset >= Offset::ZERO).then_some(first_offset),
        })
    }
}

/// The bytes that have not been read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(SnapshotError::Length)?;
        self.0 = rest;
        Ok(*field)
    }
}
