//! Batches to fill a log with, each of which can be told from all others. Pure.

use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker, ValidBatch};

/// The header that tells a record's batch.
const NUMBER: &str = "n";

/// A batch to be built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft {
    /// Its producer's id, epoch and next sequence number.
    pub(crate) producer: Option<(i64, i16, i32)>,
    pub(crate) in_transaction: bool,
    pub(crate) records: i64,
    pub(crate) value_len: usize,
    pub(crate) timestamp: i64,
    /// No other batch has it.
    pub(crate) number: u64,
    /// Of a log that is compacted: what its records' keys are, and which are tombstones.
    pub(crate) keys: Option<u64>,
}

impl Draft {
    pub(crate) fn build(self) -> ValidBatch {
        let mut builder = BatchBuilder::new(Compression::None);
        if let Some((id, epoch, sequence)) = self.producer {
            builder = builder.producer(id, epoch, sequence);
        }
        builder.transactional = self.in_transaction;
        for n in 0..self.records {
            let value = vec![n.to_le_bytes()[0]; self.value_len];
            let key = self.keys.map(|drawn| drawn.to_le_bytes()[n as usize % 8]);
            let is_tombstone = key.is_some_and(|drawn| drawn >> 5 == 0);
            let key = key.filter(|drawn| *drawn < 250).map(|drawn| [b'a' + drawn % 8]);
            builder.append(
                Timestamp(self.timestamp + n),
                key.as_ref().map(|key| &key[..]),
                (!is_tombstone).then_some(&value[..]),
                &[(NUMBER, Some(&self.number.to_be_bytes()))],
            );
        }
        builder.build()
    }
}

/// The end of a producer's transaction.
pub(crate) fn marker(id: i64, epoch: i16, commit: bool, timestamp: i64) -> ValidBatch {
    let marker = EndTransactionMarker { coordinator_epoch: 7 };
    let control = if commit { ControlType::Commit } else { ControlType::Abort };
    BatchBuilder::end_of_transaction((id, epoch), control, marker, Timestamp(timestamp)).build()
}

/// The number of a batch that has one: a header of each of its records.
pub(crate) fn number_of(batch: &ValidBatch) -> Option<u64> {
    if batch.header().attributes.is_control() {
        return None;
    }
    let record = batch.records().ok()?.next()?.ok()?;
    Some(u64::from_be_bytes(*record.headers.first()?.value.as_ref()?.first_chunk()?))
}
