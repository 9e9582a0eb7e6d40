//! Which batches of a fetch an application may see. Pure.
//!
//! A broker sends everything below the last stable offset, with the list of transactions that
//! were rolled back: a producer's batches count as aborted from the listed offset up to its abort
//! marker. Control batches are never shown.

use std::collections::BTreeSet;

use ottla_protocol::messages::fetch_response::AbortedTransaction;
use ottla_records::{BatchError, ControlType, RawBatch};

/// Walks over the batches of one partition's answer, in order.
#[derive(Debug, Default)]
pub(crate) struct Visibility {
    /// Sorted so that the transaction with the smallest first offset is last.
    to_come: Vec<AbortedTransaction>,
    /// Producers inside a transaction that was aborted.
    aborted: BTreeSet<i64>,
}

impl Visibility {
    /// `None`, as brokers send when read_uncommitted was asked for, hides control batches only.
    pub(crate) fn new(aborted: Option<Vec<AbortedTransaction>>) -> Self {
        let mut to_come = aborted.unwrap_or_default();
        to_come.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { to_come, aborted: BTreeSet::new() }
    }

    pub(crate) fn shows(&mut self, batch: &RawBatch) -> Result<bool, BatchError> {
        let header = batch.header();
        while let Some(next) = self.to_come.last()
            && next.first_offset <= header.last_offset()
        {
            self.aborted.insert(next.producer_id);
            self.to_come.pop();
        }
        if header.attributes.is_control() {
            if is_abort_marker(batch)? {
                self.aborted.remove(&header.producer_id);
            }
            return Ok(false);
        }
        let rolled_back =
            header.attributes.is_transactional() && self.aborted.contains(&header.producer_id);
        Ok(!rolled_back)
    }
}

fn is_abort_marker(batch: &RawBatch) -> Result<bool, BatchError> {
    // Compaction may have removed the record and kept the batch.
    let Some(marker) = batch.records()?.next().transpose()? else { return Ok(false) };
    let key = marker.key.as_deref().unwrap_or_default();
    let control = ControlType::from_key(key)
        .map_err(|_| BatchError::Record("a control record has an invalid key"))?;
    Ok(control == Some(ControlType::Abort))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_base::{LeaderEpoch, Offset, Timestamp};
    use ottla_records::{BatchBuilder, Compression};

    fn raw(builder: BatchBuilder) -> RawBatch {
        RawBatch::parse(builder.build_bytes()).unwrap()
    }

    fn data(offset: i64, producer: i64) -> RawBatch {
        let mut builder = BatchBuilder::new(Compression::None)
            .at(Offset(offset), LeaderEpoch(0))
            .producer(producer, 0, 0)
            .transactional();
        builder.append(Timestamp(0), None, Some(b"v"), &[]);
        raw(builder)
    }

    fn marker(offset: i64, producer: i64, control: ControlType) -> RawBatch {
        let mut builder = BatchBuilder::control()
            .at(Offset(offset), LeaderEpoch(0))
            .producer(producer, 0, -1)
            .transactional();
        builder.append_control(Timestamp(0), control, &[0; 6]);
        raw(builder)
    }

    fn shown(aborted: Option<&[(i64, i64)]>, batches: &[RawBatch]) -> Vec<i64> {
        let aborted = aborted.map(|aborted| {
            let transaction =
                |&(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset };
            aborted.iter().map(transaction).collect()
        });
        let mut visibility = Visibility::new(aborted);
        let mut shown = Vec::new();
        for batch in batches {
            if visibility.shows(batch).unwrap() {
                shown.push(batch.header().base_offset);
            }
        }
        shown
    }

    #[test]
    fn a_transaction_is_hidden_from_its_first_batch_to_its_abort_marker() {
        let log = [
            data(0, 7),
            data(1, 8),
            marker(2, 7, ControlType::Abort),
            data(3, 7),
            marker(4, 7, ControlType::Commit),
            marker(5, 8, ControlType::Commit),
        ];
        assert_eq!(shown(Some(&[(7, 0)]), &log), [1, 3]);
    }

    #[test]
    fn reading_may_begin_in_the_middle_of_an_aborted_transaction() {
        let log = [data(5, 7), marker(6, 7, ControlType::Abort), data(7, 7)];
        assert_eq!(shown(Some(&[(7, 2)]), &log), [7]);
    }

    #[test]
    fn a_producer_may_abort_twice_in_one_answer() {
        let log = [
            data(0, 7),
            marker(1, 7, ControlType::Abort),
            data(2, 7),
            marker(3, 7, ControlType::Commit),
            data(4, 7),
            marker(5, 7, ControlType::Abort),
        ];
        assert_eq!(shown(Some(&[(7, 4), (7, 0)]), &log), [2]);
    }

    #[test]
    fn read_uncommitted_hides_only_control_batches() {
        let log = [data(0, 7), marker(1, 7, ControlType::Abort)];
        assert_eq!(shown(None, &log), [0]);
    }
}
