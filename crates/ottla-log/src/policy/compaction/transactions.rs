//! The transactions that a compaction meets on its way through a log. Pure.
//!
//! All of them have ended: nothing is compacted beyond the last stable offset. So the transaction index tells ahead of
//! time which are aborted. A marker may go once nothing of its transaction is left.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{Offset, ProducerId};
use ottla_records::ValidBatch;

use crate::producers::{Ending, Written};
use crate::txn_index::AbortedTransaction;

#[derive(Debug, Default)]
pub(super) struct Met {
    /// Those ahead, by first offset, marker and producer.
    aborted: BTreeMap<(Offset, Offset, ProducerId), AbortedTransaction>,
    /// Those under way, and whether a batch of them was met.
    aborting: BTreeMap<ProducerId, (AbortedTransaction, bool)>,
    committing: BTreeSet<ProducerId>,
}

/// What a batch is to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It may go, as far as its transaction is concerned.
    Dispensable,
    Needed,
    /// The marker of an aborted transaction of which something is left: it stays in the index.
    AbortMarker(AbortedTransaction),
}

impl Met {
    /// Makes known what is aborted in the part of the log that comes next.
    pub(super) fn expect(&mut self, aborted: &[AbortedTransaction]) {
        let place = |it: &AbortedTransaction| (it.first_offset, it.last_offset, it.producer_id);
        self.aborted.extend(aborted.iter().map(|it| (place(it), *it)));
    }

    pub(super) fn meet(&mut self, batch: &ValidBatch) -> Part {
        let header = batch.header();
        self.begin_aborted_up_to(batch.last_offset());
        let producer_id = ProducerId(header.producer_id);
        if header.attributes.is_control() {
            return self.meet_control(batch, producer_id);
        }
        if !header.attributes.is_transactional() {
            return Part::Needed;
        }
        match self.aborting.get_mut(&producer_id) {
            Some((_, is_met)) => {
                *is_met = true;
                Part::Dispensable
            }
            None => {
                self.committing.insert(producer_id);
                Part::Needed
            }
        }
    }

    fn meet_control(&mut self, batch: &ValidBatch, producer_id: ProducerId) -> Part {
        if batch.header().record_count == 0 {
            // An earlier compaction has found that it may go.
            return Part::Dispensable;
        }
        match Written::of(batch).ending() {
            Some(Ending::Abort) => match self.aborting.remove(&producer_id) {
                Some((transaction, true)) => Part::AbortMarker(transaction),
                _ => Part::Dispensable,
            },
            Some(Ending::Commit) if self.committing.remove(&producer_id) => Part::Needed,
            Some(Ending::Commit) => Part::Dispensable,
            None => Part::Needed,
        }
    }

    fn begin_aborted_up_to(&mut self, offset: Offset) {
        while let Some(ahead) = self.aborted.first_entry()
            && ahead.get().first_offset <= offset
        {
            let transaction = ahead.remove();
            self.aborting.entry(transaction.producer_id).or_insert((transaction, false));
        }
    }
}
