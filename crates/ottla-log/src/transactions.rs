//! Which transactions of a log are open, and which have ended so lately that the high watermark has not passed their
//! markers: what readers of committed data, and the cleaner, must not go beyond. Pure.
//!
//! Invariants: `open` and `first_offsets` say the same, one by producer and one by offset; a producer has at most one
//! open transaction; `ended` has all that have ended at or after `settled`.

use std::collections::BTreeMap;

use ottla_base::{Offset, ProducerId};

use crate::producers::{Ending, Producers, Written};
use crate::txn_index::AbortedTransaction;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    open: BTreeMap<ProducerId, Offset>,
    first_offsets: BTreeMap<Offset, ProducerId>,
    /// Those that have ended above the high watermark, from first offset to marker.
    ended: BTreeMap<Offset, Offset>,
    /// What has ended before may be forgotten.
    settled: Offset,
}

impl Transactions {
    /// What is open after the batches that made these producers, all of which are before an offset. Their ends are taken for
    /// final.
    pub(crate) fn of(producers: &Producers, settled: Offset) -> Self {
        let mut transactions = Self { settled, ..Self::default() };
        for (id, producer) in producers.iter() {
            if let Some(first_offset) = producer.transaction_first_offset {
                transactions.begin(id, first_offset);
            }
        }
        transactions
    }

    /// Whether a batch can change anything here.
    pub(crate) fn concern(written: &Written<'_>) -> bool {
        let attributes = written.header().attributes;
        written.header().has_producer_id()
            && (attributes.is_transactional() || attributes.is_control())
    }

    /// A batch is appended. Returns the transaction that it aborts, if there are records in it.
    pub(crate) fn append(&mut self, written: &Written<'_>) -> Option<AbortedTransaction> {
        if !Self::concern(written) {
            return None;
        }
        let header = written.header();
        let producer_id = ProducerId(header.producer_id);
        if !header.attributes.is_control() {
            self.begin(producer_id, Offset(header.base_offset));
            return None;
        }
        let ending = written.ending()?;
        let last_offset = Offset(header.last_offset());
        let first_offset = self.end(producer_id, last_offset)?;
        (ending == Ending::Abort).then(|| AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: self.first_open().unwrap_or_else(|| Offset(header.next_offset())),
        })
    }

    /// Forgets what was noted of batches that are not in the log, which ends at `log_end_offset`.
    pub(crate) fn restore(&mut self, producers: &Producers, log_end_offset: Offset) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|_, last_offset| *last_offset < log_end_offset);
        *self = Self { ended, ..Self::of(producers, self.settled.min(log_end_offset)) };
    }

    /// From where on all ends are remembered.
    pub(crate) const fn settled(&self) -> Offset {
        self.settled
    }

    /// The same, where it is known that all are remembered which have ended at or after this offset.
    pub(crate) fn settled_to(self, settled: Offset) -> Self {
        Self { settled, ..self }
    }

    /// Nothing has ended between this offset and where everything is settled.
    pub(crate) fn unsettle(&mut self, offset: Offset) {
        self.settled = self.settled.min(offset);
    }

    /// What has ended stays so.
    pub(crate) fn settle(&mut self) {
        self.ended.clear();
    }

    /// Everything before this offset is decided for good: no transaction is open there, and no marker can be lost.
    pub(crate) fn last_stable_offset(&mut self, high_watermark: Offset) -> Offset {
        self.ended.retain(|_, last_offset| *last_offset >= high_watermark);
        self.settled = self.settled.max(high_watermark);
        let first_ended = self.ended.first_key_value().map(|(first_offset, _)| *first_offset);
        let unstable = self.first_open().into_iter().chain(first_ended).min();
        unstable.map_or(high_watermark, |unstable| unstable.min(high_watermark))
    }

    /// Whether any has ended at or after this high watermark, or what is settled.
    pub(crate) fn has_ended_from(&mut self, high_watermark: Offset) -> bool {
        self.last_stable_offset(high_watermark);
        !self.ended.is_empty()
    }

    fn begin(&mut self, producer_id: ProducerId, first_offset: Offset) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.open.entry(producer_id) {
            entry.insert(first_offset);
            self.first_offsets.insert(first_offset, producer_id);
        }
    }

    fn end(&mut self, producer_id: ProducerId, last_offset: Offset) -> Option<Offset> {
        let first_offset = self.open.remove(&producer_id)?;
        self.first_offsets.remove(&first_offset);
        self.ended.insert(first_offset, last_offset);
        Some(first_offset)
    }

    fn first_open(&self) -> Option<Offset> {
        self.first_offsets.first_key_value().map(|(first_offset, _)| *first_offset)
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker, ValidBatch};

    use super::*;

    fn data(producer: i64, offset: i64) -> ValidBatch {
        let mut builder = BatchBuilder::new(Compression::None)
            .at(Offset(offset), LeaderEpoch(0))
            .producer(producer, 0, 0)
            .transactional();
        builder.append(Timestamp(1), Some(b"k"), Some(b"v"), &[]);
        builder.build()
    }

    fn marker(producer: i64, offset: i64, control: ControlType) -> ValidBatch {
        let marker = EndTransactionMarker { coordinator_epoch: 0 };
        BatchBuilder::end_of_transaction((producer, 0), control, marker, Timestamp(1))
            .at(Offset(offset), LeaderEpoch(0))
            .build()
    }

    fn append(transactions: &mut Transactions, batch: &ValidBatch) -> Option<AbortedTransaction> {
        transactions.append(&Written::of(batch))
    }

    #[test]
    fn the_oldest_open_transaction_holds_the_last_stable_offset_back() {
        let mut log = Transactions::default();
        assert_eq!(log.last_stable_offset(Offset(5)), Offset(5));
        append(&mut log, &data(1, 5));
        append(&mut log, &data(2, 6));
        append(&mut log, &data(1, 7));
        assert_eq!(log.last_stable_offset(Offset(4)), Offset(4));
        assert_eq!(log.last_stable_offset(Offset(8)), Offset(5));
        assert_eq!(append(&mut log, &marker(1, 8, ControlType::Commit)), None);
        assert_eq!(log.last_stable_offset(Offset(9)), Offset(6));
    }

    #[test]
    fn a_marker_counts_once_the_high_watermark_has_passed_it() {
        let mut log = Transactions::default();
        append(&mut log, &data(1, 5));
        append(&mut log, &marker(1, 6, ControlType::Commit));
        assert_eq!(log.last_stable_offset(Offset(6)), Offset(5));
        assert_eq!(log.last_stable_offset(Offset(7)), Offset(7));
        assert_eq!(log, Transactions::default().settled_to(Offset(7)));
    }

    #[test]
    fn an_aborted_transaction_is_told_with_what_was_open_beside_it() {
        let mut log = Transactions::default();
        append(&mut log, &data(1, 5));
        append(&mut log, &data(2, 6));
        let aborted = append(&mut log, &marker(2, 7, ControlType::Abort)).unwrap();
        assert_eq!((aborted.producer_id, aborted.first_offset), (ProducerId(2), Offset(6)));
        assert_eq!((aborted.last_offset, aborted.last_stable_offset), (Offset(7), Offset(5)));
        let aborted = append(&mut log, &marker(1, 8, ControlType::Abort)).unwrap();
        assert_eq!((aborted.last_offset, aborted.last_stable_offset), (Offset(8), Offset(9)));
        // Nothing was written since.
        assert_eq!(append(&mut log, &marker(1, 9, ControlType::Abort)), None);
    }

    #[test]
    fn what_was_cut_off_is_undone() {
        let mut log = Transactions::default();
        append(&mut log, &data(1, 5));
        let mut producers = Producers::default();
        producers.append(&Written::of(&data(1, 5)));
        let before = log.clone();
        append(&mut log, &marker(1, 6, ControlType::Abort));
        append(&mut log, &data(2, 7));
        log.restore(&producers, Offset(6));
        assert_eq!(log, before);
    }
}
