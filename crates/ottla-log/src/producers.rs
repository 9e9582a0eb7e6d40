//! What a log remembers of its idempotent producers: what each may append next, and where its latest batches went.
//! Pure.
//!
//! The state follows from the batches in the log: it changes only in [`Producers::append`], and forgets the idle in
//! [`Producers::expire`]. Whether a batch may be appended is asked before, in [`Producers::check`] (KIP-98, KIP-360):
//!
//! - A producer that is not known begins with any sequence number: its earlier records may have been deleted.
//! - A known one goes on right after its last batch, or at 0 in a newer epoch. After `i32::MAX` comes 0.
//! - One of its latest five batches, sent again, is a duplicate. Any other batch is out of order.
//! - Coordinators are held to epochs only, what is replicated or recovered to nothing: it is in the log already.
//!
//! Of transactions it is kept where each one began, and which coordinator ended the last.
//!
//! Invariant: a producer has at most [`BATCHES_MAX`] batches, all of its epoch, in the order of their offsets.

pub(crate) mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ottla_base::{Offset, ProducerId, Timestamp};
use ottla_records::{
    BatchHeader, ControlType, EndTransactionMarker, NO_PRODUCER_EPOCH, NO_SEQUENCE, RawBatch,
    Records, ValidBatch, decrement_sequence,
};

/// How many of a producer's latest batches are remembered: as many as its client may have in flight.
pub const BATCHES_MAX: usize = 5;

/// All producers of one log, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// Of the coordinator that wrote its last transaction marker; −1 before the first.
    pub coordinator_epoch: i32,
    /// The largest timestamp of its last batch, or that of a marker after it.
    pub last_timestamp: Timestamp,
    /// Where the transaction began that it has not ended yet.
    pub transaction_first_offset: Option<Offset>,
    batches: Vec<WrittenBatch>,
}

/// One of a producer's latest batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenBatch {
    pub last_sequence: i32,
    pub last_offset: Offset,
    /// The offset of the last record minus that of the first.
    pub offset_delta: i32,
    pub timestamp: Timestamp,
}

/// Who wants to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Somebody who numbers its records.
    Client,
    /// A part of the cluster, which does not.
    Coordinator,
}

/// What a batch tells about its producer.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    header: &'a BatchHeader,
    marker: Option<Marker>,
}

/// Bytes of a control batch's records, which are some dozens where a broker has written them.
pub(crate) const MARKER_BYTES_MAX: usize = 64 * 1024;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Commit,
    Abort,
}

/// The end of a transaction, as a coordinator writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marker {
    ending: Ending,
    coordinator_epoch: i32,
    timestamp: Timestamp,
}

/// Whether a batch may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Append,
    /// It is in the log already.
    Duplicate(WrittenBatch),
    Refuse(ProducerRefusal),
}

/// Why a batch may not be appended: something is wrong with what its producer sent before, or has not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerRefusal {
    #[error("producer {producer_id} is in epoch {current} now, and this batch in epoch {found}")]
    OldEpoch { producer_id: ProducerId, found: i16, current: i16 },
    #[error("producer {producer_id} goes on with sequence number {found} after {last}")]
    OutOfOrderSequence { producer_id: ProducerId, found: i32, last: i32 },
    #[error("producer {producer_id} has a transaction open, and this batch is outside of it")]
    OutsideTransaction { producer_id: ProducerId },
    #[error(
        "coordinator epoch {current} wrote producer {producer_id}'s last marker, and {found} this one"
    )]
    OldCoordinatorEpoch { producer_id: ProducerId, found: i32, current: i32 },
}

impl<'a> Written<'a> {
    #[must_use]
    pub fn of(batch: &'a ValidBatch) -> Self {
        Self::reading(batch.header(), || batch.records_within(MARKER_BYTES_MAX).ok())
    }

    pub(crate) fn of_raw(batch: &'a RawBatch) -> Self {
        Self::reading(batch.header(), || batch.records_within(MARKER_BYTES_MAX).ok())
    }

    fn reading(header: &'a BatchHeader, read: impl FnOnce() -> Option<Records>) -> Self {
        Self::new(header, Self::needs_records(header).then(read).flatten())
    }

    /// Whether more than the header of a batch is of interest: the marker in a producer's control batch.
    pub(crate) fn needs_records(header: &BatchHeader) -> bool {
        header.has_producer_id() && header.attributes.is_control()
    }

    pub(crate) fn new(header: &'a BatchHeader, records: Option<Records>) -> Self {
        Self { header, marker: records.and_then(Marker::first_of) }
    }

    pub(crate) fn header(&self) -> &BatchHeader {
        self.header
    }

    /// How it ends its producer's transaction, if it does.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.marker.map(|marker| marker.ending)
    }

    fn batch(&self) -> WrittenBatch {
        WrittenBatch {
            last_sequence: self.header.last_sequence(),
            last_offset: Offset(self.header.last_offset()),
            offset_delta: self.header.last_offset_delta,
            timestamp: Timestamp(self.header.max_timestamp),
        }
    }

    fn is_transactional(&self) -> bool {
        self.header.attributes.is_transactional()
    }
}

impl Marker {
    /// `None` where compaction has left nothing of a transaction, its marker included.
    fn first_of(mut records: Records) -> Option<Self> {
        let record = records.next()?.ok()?;
        let control = ControlType::from_key(record.key.as_deref()?).ok()??;
        let ending = match control {
            ControlType::Abort => Ending::Abort,
            ControlType::Commit => Ending::Commit,
            ControlType::LeaderChange
            | ControlType::SnapshotHeader
            | ControlType::SnapshotFooter
            | ControlType::KRaftVersion
            | ControlType::KRaftVoters => return None,
        };
        let EndTransactionMarker { coordinator_epoch } =
            EndTransactionMarker::parse(record.value.as_deref()?)?;
        Some(Self { ending, coordinator_epoch, timestamp: record.timestamp })
    }
}

impl WrittenBatch {
    #[must_use]
    pub fn first_sequence(&self) -> i32 {
        decrement_sequence(self.last_sequence, self.offset_delta)
    }

    #[must_use]
    pub fn first_offset(&self) -> Offset {
        Offset(self.last_offset.0.wrapping_sub(i64::from(self.offset_delta)))
    }
}

impl Producers {
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[must_use]
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    /// Whether a batch may be appended next. Without a producer id it always may.
    #[must_use]
    pub fn check(&self, written: &Written<'_>, sender: Sender) -> Decision {
        if !written.header.has_producer_id() {
            return Decision::Append;
        }
        let unknown = Producer::UNKNOWN;
        let producer = self.get(ProducerId(written.header.producer_id)).unwrap_or(&unknown);
        if let Some(duplicate) = producer.duplicate(written).filter(|_| sender == Sender::Client) {
            return Decision::Duplicate(duplicate);
        }
        match producer.refusal(written, sender) {
            Some(refusal) => Decision::Refuse(refusal),
            None => Decision::Append,
        }
    }

    /// A batch was appended, whoever decided it: one that is replicated or recovered is believed.
    pub fn append(&mut self, written: &Written<'_>) {
        let header = written.header;
        let is_control = header.attributes.is_control();
        if !header.has_producer_id() || is_control && written.marker.is_none() {
            return;
        }
        let id = ProducerId(header.producer_id);
        let producer = self.by_id.entry(id).or_insert(Producer::UNKNOWN);
        producer.enter(header.producer_epoch);
        match written.marker {
            Some(marker) => producer.end_transaction(marker),
            None => producer.append(written),
        }
    }

    /// Forgets producers that have no open transaction and whose last timestamp is so old.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.by_id.retain(|_, producer| !producer.is_expired(now_ms, expiration_ms));
    }
}

impl Producer {
    /// A producer of which nothing is known.
    const UNKNOWN: Self = Self {
        epoch: NO_PRODUCER_EPOCH,
        coordinator_epoch: -1,
        last_timestamp: Timestamp::NONE,
        transaction_first_offset: None,
        batches: Vec::new(),
    };

    /// Its latest batches, oldest first.
    #[must_use]
    pub fn batches(&self) -> &[WrittenBatch] {
        &self.batches
    }

    /// The sequence number of its last record; −1 when it has none in its epoch.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn duplicate(&self, written: &Written<'_>) -> Option<WrittenBatch> {
        let header = written.header;
        let range = (header.base_sequence, header.last_sequence());
        let same = |batch: &&WrittenBatch| (batch.first_sequence(), batch.last_sequence) == range;
        self.batches.iter().find(same).filter(|_| header.producer_epoch == self.epoch).copied()
    }

    fn refusal(&self, written: &Written<'_>, sender: Sender) -> Option<ProducerRefusal> {
        let producer_id = ProducerId(written.header.producer_id);
        let (found, current) = (written.header.producer_epoch, self.epoch);
        if found < current {
            return Some(ProducerRefusal::OldEpoch { producer_id, found, current });
        }
        if let Some(marker) = written.marker {
            let (found, current) = (marker.coordinator_epoch, self.coordinator_epoch);
            let refusal = ProducerRefusal::OldCoordinatorEpoch { producer_id, found, current };
            return (found < current).then_some(refusal);
        }
        if sender == Sender::Client && !self.is_next(written.header) {
            let (found, last) = (written.header.base_sequence, self.last_sequence());
            return Some(ProducerRefusal::OutOfOrderSequence { producer_id, found, last });
        }
        let outside = self.transaction_first_offset.is_some() && !written.is_transactional();
        outside.then_some(ProducerRefusal::OutsideTransaction { producer_id })
    }

    fn is_next(&self, header: &BatchHeader) -> bool {
        let next = header.base_sequence;
        if self.epoch == NO_PRODUCER_EPOCH {
            return true;
        }
        if header.producer_epoch != self.epoch {
            return next == 0;
        }
        let last = self.last_sequence();
        i64::from(next) == i64::from(last) + 1 || next == 0 && last == i32::MAX
    }

    /// Batches of another epoch are no longer asked for.
    fn enter(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }

    fn append(&mut self, written: &Written<'_>) {
        self.remember(written.batch());
        self.last_timestamp = Timestamp(written.header.max_timestamp);
        if written.is_transactional() {
            self.transaction_first_offset.get_or_insert(Offset(written.header.base_offset));
        }
    }

    fn remember(&mut self, batch: WrittenBatch) {
        if self.batches.len() == BATCHES_MAX {
            self.batches.remove(0);
        }
        self.batches.reserve_exact(BATCHES_MAX - self.batches.len());
        self.batches.push(batch);
    }

    fn end_transaction(&mut self, marker: Marker) {
        self.coordinator_epoch = marker.coordinator_epoch;
        self.last_timestamp = marker.timestamp;
        self.transaction_first_offset = None;
    }

    fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        let idle_ms = now_ms.saturating_sub(self.last_timestamp.0);
        self.transaction_first_offset.is_none() && idle_ms >= expiration_ms
    }
}
