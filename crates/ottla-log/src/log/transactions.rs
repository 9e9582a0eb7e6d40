//! The log's transactions: which are undecided, and which were aborted.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use ottla_base::Offset;
use ottla_records::ValidBatch;

use super::{Log, UnsyncedNames, Writer};
use crate::error::{Context, StorageError};
use crate::names;
use crate::producers::Written;
use crate::transactions::Transactions;
use crate::txn_index::AbortedTransaction;

/// The transaction index with new entries, and where those begin.
#[derive(Debug)]
pub(super) struct Indexed {
    file: Arc<File>,
    len_before: u64,
}

impl Log {
    /// Everything before this offset is decided and stays so: what readers of committed data may see, and what may be
    /// compacted. Never beyond the high watermark.
    ///
    /// After a restart the high watermark must not fall below where the log ended then: the ends of the transactions
    /// before are taken for final.
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        self.transactions.lock().last_stable_offset(high_watermark)
    }

    /// The high watermark has risen: what ended before it has ended for good, and need not be remembered.
    pub fn settle_transactions(&self, high_watermark: Offset) {
        self.transactions.lock().last_stable_offset(high_watermark);
    }

    /// The aborted transactions that have records in a range of offsets, in no order that is promised.
    pub fn aborted_transactions(
        &self,
        range: &Range<Offset>,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        let segments: Vec<_> = {
            let state = self.state.read();
            let sealed = state.sealed.iter().map(|sealed| &sealed.segment);
            let all: Vec<_> = sealed.chain([&state.active.segment]).cloned().collect();
            let after = all.partition_point(|segment| segment.base_offset <= range.start.0);
            all.into_iter().skip(after.saturating_sub(1)).collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            let aborted = segment.aborted_transactions()?;
            found.extend(aborted.iter().filter(|aborted| aborted.overlaps(range)));
            // Later markers end transactions that began after that.
            if aborted.iter().any(|aborted| aborted.last_stable_offset >= range.end) {
                break;
            }
        }
        Ok(found)
    }

    /// Notes what batches mean for transactions. Returns those that they abort.
    pub(super) fn note_transactions(&self, batches: &[ValidBatch]) -> Vec<AbortedTransaction> {
        let written = || batches.iter().map(Written::of).filter(Transactions::concern);
        if written().next().is_none() {
            return Vec::new();
        }
        let mut transactions = self.transactions.lock();
        written().filter_map(|written| transactions.append(&written)).collect()
    }

    /// Takes back what was noted of batches that are not in the log.
    pub(super) fn restore_transactions(&self, writer: &Writer) {
        let end = self.log_end_offset();
        self.transactions.lock().restore(&writer.producers, end);
    }

    pub(super) fn write_aborted(
        &self,
        writer: &mut Writer,
        aborted: &[AbortedTransaction],
    ) -> Result<Option<Indexed>, StorageError> {
        if aborted.is_empty() {
            return Ok(None);
        }
        let segment = Arc::clone(&self.state.read().active.segment);
        let (file, len_before) = segment.append_aborted(aborted)?;
        let file = Arc::new(file);
        writer.mark_dirty(&file, self.env().now_ms());
        writer.unsynced_names = writer.unsynced_names.max(UnsyncedNames::Files);
        Ok(Some(Indexed { file, len_before }))
    }

    pub(super) fn cut_aborted(&self, indexed: &Indexed) {
        let path = self.state.read().active.segment.path(names::TXN_INDEX);
        if let Err(error) =
            self.env().disk.set_len(&indexed.file, indexed.len_before).context("cut back", &path)
        {
            // It would tell of a marker that is not there.
            self.env().poison(&error);
        }
    }
}
