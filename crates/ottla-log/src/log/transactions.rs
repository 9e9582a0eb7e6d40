//! The log's transactions: which are undecided, and which were aborted.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use ottla_base::Offset;
use ottla_records::{HEADER_LEN, ValidBatch};

use super::{Log, UnsyncedNames, Writer};
use crate::error::{Context, StorageError};
use crate::names;
use crate::producers::{MARKER_BYTES_MAX, Written};
use crate::recovery::producers::{self, Replay};
use crate::segment::Segment;
use crate::transactions::Transactions;
use crate::txn_index::{self, AbortedTransaction};

/// The transaction index with new entries, and where those begin.
#[derive(Debug)]
pub(super) struct Indexed {
    file: Arc<File>,
    len_before: u64,
}

impl Log {
    /// Everything before this offset is decided and stays so: what readers of committed data may see, and what may be
    /// compacted. Never beyond the high watermark, and not before the log's start, where a transaction has begun that is still
    /// open.
    ///
    /// After a restart the ends of all transactions in the log are taken for final; where the high watermark is below where
    /// the log ended then, [`Log::unsettle_transactions`] says otherwise.
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        let start = self.log_start_offset();
        let stable = self.transactions.lock().last_stable_offset(high_watermark);
        stable.max(start).min(high_watermark)
    }

    /// The high watermark has risen: what ended before it has ended for good, and need not be remembered.
    pub fn settle_transactions(&self, high_watermark: Offset) {
        self.transactions.lock().last_stable_offset(high_watermark);
    }

    /// The log may be cut off down to the high watermark: which transactions end above is read from it again, if it is not
    /// remembered. For a replica that begins with a high watermark from a checkpoint; whatever has ended since is remembered.
    /// Where no transaction has ended in what is to be read again, nothing else is read.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or the log can't be read; never where nothing has to be
    /// read. What is remembered stays as it was.
    pub fn unsettle_transactions(&self, high_watermark: Offset) -> Result<(), StorageError> {
        if self.transactions.lock().settled() <= high_watermark {
            return Ok(());
        }
        let _writer = self.lock_writer()?;
        let settled = self.transactions.lock().settled();
        let extents = self.extents();
        if producers::any_marker(extents.iter().cloned(), &(high_watermark..settled))? {
            let snapshots = producers::list(&*self.env().disk, &self.home.path())?;
            let (replay, end) = (Replay::new(&self.home, snapshots), self.log_end_offset());
            let read = replay.transactions_at(end, high_watermark, extents.into_iter())?;
            *self.transactions.lock() = read;
        } else {
            self.transactions.lock().unsettle(high_watermark);
        }
        Ok(())
    }

    /// Whether a transaction has ended above the high watermark, as far as that was noted.
    pub(super) fn has_unsettled_ends(&self) -> bool {
        let mut transactions = self.transactions.lock();
        self.noted_high_watermark().is_some_and(|noted| transactions.has_ended_from(noted))
    }

    /// The aborted transactions that have records in a range of offsets, in no order that is promised.
    ///
    /// # Errors
    /// [`StorageError`] where a transaction index cannot be read, or has entries that nobody can have written: it is then
    /// made anew soon.
    pub fn aborted_transactions(
        &self,
        range: &Range<Offset>,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        let segments: Vec<_> = {
            let state = self.state.read();
            let begins_before = |segment: &Segment| segment.base_offset <= range.start.0;
            let before = match begins_before(&state.active.segment) {
                true => state.sealed.len(),
                false => {
                    let after = state.sealed.partition_point(|it| begins_before(&it.segment));
                    after.saturating_sub(1)
                }
            };
            state.segments().skip(before).cloned().collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            let aborted_in = segment.aborted_in(range);
            let (aborted, is_complete) =
                aborted_in.inspect_err(|error| self.note_corruption(error))?;
            found.extend(aborted);
            if is_complete {
                break;
            }
        }
        Ok(found)
    }

    /// The aborted transactions that begin before an offset which none crosses that is open, as their markers say: for who drops
    /// records because of it. An index has no checksum, and with a flipped bit it tells of another producer, or of other
    /// offsets. Nothing where no index tells of any. `pace` is called after so many bytes were read.
    ///
    /// # Errors
    /// What `pace` says, and [`StorageError`]: of a marker that is damaged, too.
    pub(crate) fn aborted_by_markers<E: From<StorageError>>(
        &self,
        before: Offset,
        pace: impl Fn(usize) -> Result<(), E>,
    ) -> Result<Vec<AbortedTransaction>, E> {
        let segments: Vec<(Arc<Segment>, u64)> = {
            let state = self.state.read();
            let sealed = state.sealed.iter().map(|it| (Arc::clone(&it.segment), it.size));
            sealed.chain([(Arc::clone(&state.active.segment), state.active.size)]).collect()
        };
        let (mut aborted, mut transactions) = (Vec::new(), Transactions::default());
        let mut has_index = false;
        for (segment, _) in &segments {
            has_index |= segment.has_aborted()?;
        }
        if !has_index {
            return Ok(aborted);
        }
        for (segment, size) in segments.iter().filter(|(_, size)| *size > 0) {
            let (file, path) = (segment.log_file()?, segment.path(names::LOG));
            let mut scan = segment.scan(&file, &path, 0, *size);
            while let Some(found) = scan.next()? {
                pace(HEADER_LEN)?;
                if found.header.base_offset >= before.0
                    && transactions.last_stable_offset(before) >= before
                {
                    return Ok(aborted);
                }
                let marker = match Written::needs_records(&found.header) {
                    true => Some(segment.read_batch(&file, &found)?),
                    false => None,
                };
                let records = marker.and_then(|it| it.records_within(MARKER_BYTES_MAX).ok());
                aborted.extend(transactions.append(&Written::new(&found.header, records)));
                transactions.settle();
            }
        }
        Ok(aborted)
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
        let (file, len_before) = segment.open_aborted()?;
        let indexed = Indexed { file: Arc::new(file), len_before };
        writer.mark_dirty(&indexed.file, self.env().now_ms());
        writer.unsynced_names = writer.unsynced_names.max(UnsyncedNames::Files);
        let bytes = txn_index::encode(aborted);
        let written = self.env().disk.write_all_at(&indexed.file, &bytes, len_before);
        if let Err(error) = written.context("write", &segment.path(names::TXN_INDEX)) {
            // A part of an entry is passed over when the file is read, but not when the next one follows it.
            self.cut_aborted(&indexed);
            return Err(error);
        }
        Ok(Some(indexed))
    }

    pub(super) fn cut_aborted(&self, indexed: &Indexed) {
        let path = self.state.read().active.segment.path(names::TXN_INDEX);
        if let Err(error) =
            self.env().disk.set_len(&indexed.file, indexed.len_before).context("cut back", &path)
        {
            // It would tell of a marker that is not there, or hold a part of an entry before others.
            self.env().poison(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_env::disk::Open;
    use ottla_env::{Disk, DiskLayer, OsDisk};
    use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker};

    use super::*;
    use crate::LogConfig;
    use crate::testing::log_on;

    /// Counts how often somebody looks for a transaction index.
    #[derive(Debug, Default)]
    struct CountingDisk(AtomicUsize);

    impl DiskLayer for CountingDisk {
        fn below(&self) -> &dyn Disk {
            &OsDisk
        }

        fn open(&self, path: &Path, how: Open) -> io::Result<File> {
            if path.extension().is_some_and(|suffix| suffix == names::TXN_INDEX) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            OsDisk.open(path, how)
        }
    }

    fn data(producer: i64) -> ValidBatch {
        let builder = BatchBuilder::new(Compression::None).producer(producer, 0, 0);
        let mut builder = builder.transactional();
        builder.append(Timestamp(1), Some(b"k"), Some(b"v"), &[]);
        builder.build()
    }

    fn abort(producer: i64) -> ValidBatch {
        let (abort, marker) = (ControlType::Abort, EndTransactionMarker { coordinator_epoch: 0 });
        BatchBuilder::end_of_transaction((producer, 0), abort, marker, Timestamp(1)).build()
    }

    #[test]
    fn whoever_looks_for_aborted_transactions_again_opens_no_file_and_finds_what_was_aborted_since()
    {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Arc::new(CountingDisk::default());
        let config = LogConfig::default();
        let (_directory, log) = log_on(temporary.path(), Arc::clone(&disk) as _, config);
        let append = |batch| log.append_batch(batch, LeaderEpoch(0)).unwrap();
        let look = |from| {
            disk.0.store(0, Ordering::Relaxed);
            let range = Offset(from)..log.log_end_offset();
            let found = log.aborted_transactions(&range).unwrap();
            let offsets = |it: &AbortedTransaction| (it.producer_id.0, it.first_offset.0);
            (found.iter().map(offsets).collect::<Vec<_>>(), disk.0.load(Ordering::Relaxed))
        };
        for producer in 0..3 {
            append(data(producer));
            log.roll().unwrap();
        }
        append(data(3));
        assert_eq!(look(1), (vec![], 3), "those that end before are none of its business");
        assert_eq!(look(0), (vec![], 1), "only that one is not known");
        assert_eq!(look(0), (vec![], 0));
        assert_eq!(look(3), (vec![], 0));
        append(abort(1));
        let aborted = || vec![(1, 1)];
        assert_eq!(look(0), (aborted(), 1));
        assert_eq!(look(0), (aborted(), 1), "what is there is read");
        // Cut off again: the file goes, and comes back.
        log.truncate_to(Offset(4)).unwrap();
        assert_eq!(look(0).0, vec![]);
        assert_eq!(look(0), (vec![], 0));
        append(abort(1));
        assert_eq!(look(0), (aborted(), 1));
    }

    /// Writes half of what a transaction index is told, and cannot take it back.
    #[derive(Debug, Default)]
    struct TornDisk {
        tears: AtomicBool,
        keeps: AtomicBool,
    }

    impl DiskLayer for TornDisk {
        fn below(&self) -> &dyn Disk {
            &OsDisk
        }

        fn write_at(
            &self,
            file: &File,
            buffers: &mut [IoSlice<'_>],
            position: u64,
        ) -> io::Result<()> {
            let len: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            if self.tears.load(Ordering::Relaxed) && len == txn_index::ENTRY_LEN {
                let half = &buffers[0][..len / 2];
                OsDisk.write_at(file, &mut [IoSlice::new(half)], position)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            OsDisk.write_at(file, buffers, position)
        }

        fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
            if self.keeps.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is gone"));
            }
            OsDisk.set_len(file, len)
        }
    }

    #[test]
    fn part_of_an_entry_is_taken_back_or_nothing_more_is_written() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = Arc::new(TornDisk::default());
        let config = LogConfig::default();
        let (directory, log) = log_on(temporary.path(), Arc::clone(&disk) as _, config);
        let append = |batch| log.append_batch(batch, LeaderEpoch(0));
        append(data(1)).unwrap();
        disk.tears.store(true, Ordering::Relaxed);
        append(abort(1)).unwrap_err();
        directory.check_health().expect("the index is as it was");
        disk.tears.store(false, Ordering::Relaxed);
        append(abort(1)).unwrap();
        let found = log.aborted_transactions(&(Offset(0)..log.log_end_offset())).unwrap();
        assert_eq!(found.len(), 1);

        append(data(2)).unwrap();
        disk.tears.store(true, Ordering::Relaxed);
        disk.keeps.store(true, Ordering::Relaxed);
        append(abort(2)).unwrap_err();
        directory.check_health().expect_err("the next entry would follow a part of one");
    }

    #[test]
    fn a_log_whose_transaction_index_cannot_be_read_is_cut_off_nowhere_and_goes_on() {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, log) = log_on(temporary.path(), Arc::new(OsDisk), LogConfig::default());
        let append = |batch| log.append_batch(batch, LeaderEpoch(0)).unwrap();
        append(data(1));
        append(abort(1));
        append(data(2));
        let end = log.log_end_offset();
        let path = log.state.read().active.segment.path(names::TXN_INDEX);
        let sound = std::fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[0] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        log.truncate_to(Offset(2)).unwrap_err();
        assert_eq!(log.log_end_offset(), end);
        directory.check_health().unwrap();
        append(data(2));

        std::fs::write(&path, &sound).unwrap();
        log.truncate_to(Offset(2)).unwrap();
        assert_eq!(log.log_end_offset(), Offset(2));
    }
}
