//! A segment's transaction index, held against the segment's batches by whoever reads these whole, and made anew where it
//! says something else: it has no checksum.
//!
//! What it should say follows from the batches and from which transactions were open before them, which the snapshot of the
//! producers tells where the segment begins. Where damage hides some of that, nothing is said of the index.
//!
//! After a compaction it may say more than the batches do: of transactions whose records are gone. Then it is made anew,
//! too, as a wrong entry among those leaves out records that are committed; but that is no damage.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::Offset;
use ottla_env::disk::Open;
use ottla_records::{BatchHeader, RawBatch};

use super::quarantined::Auditable;
use super::{Log, Writer};
use crate::error::{Context, StorageError};
use crate::index;
use crate::names;
use crate::producers::{Ending, MARKER_BYTES_MAX, Written};
use crate::recovery::producers::{self, Replay};
use crate::segment::Segment;
use crate::transactions::Transactions;
use crate::txn_index::{AbortedTransaction, ENTRY_LEN, Versioned};

/// Entries that are read, or written, at once.
const ENTRIES_AT_ONCE: u32 = 512;

/// Why nothing can be said of an index.
#[derive(Debug)]
enum Unknown {
    /// Damage before the segment may hide where a transaction began; or the log is closed.
    Before,
    Failed(StorageError),
}

impl From<StorageError> for Unknown {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// Aborted transactions as the batches of a segment tell of them, in the order of their markers.
struct Told<'a> {
    log: &'a Log,
    base_offset: Offset,
    /// Not before the first batch that matters.
    transactions: Option<Transactions>,
}

impl<'a> Told<'a> {
    const fn new(log: &'a Log, segment: &Segment) -> Self {
        Self { log, base_offset: Offset(segment.base_offset), transactions: None }
    }

    fn batch(&mut self, written: &Written<'_>) -> Result<Option<AbortedTransaction>, Unknown> {
        if !Transactions::concern(written) {
            return Ok(None);
        }
        let transactions = match &mut self.transactions {
            Some(transactions) => transactions,
            before => before.insert(self.log.open_before(self.base_offset)?),
        };
        let aborted = transactions.append(written);
        transactions.settle();
        Ok(aborted)
    }
}

/// The entries of an index, some at a time.
struct Entries {
    file: Option<(File, PathBuf)>,
    ahead: std::vec::IntoIter<Versioned>,
    read: u32,
}

impl Entries {
    fn peek(&mut self, segment: &Segment) -> Result<Option<Versioned>, StorageError> {
        if self.ahead.as_slice().is_empty()
            && let Some((file, path)) = &self.file
        {
            let read = index::read_entries(segment.disk(), file, self.read, ENTRIES_AT_ONCE);
            self.ahead = read.context("read", path)?.into_iter();
            self.read += u32::try_from(self.ahead.len()).unwrap_or(u32::MAX);
        }
        Ok(self.ahead.as_slice().first().copied())
    }

    /// Whether the file ends within an entry.
    fn is_ragged(&self) -> Result<bool, StorageError> {
        let Some((file, path)) = &self.file else { return Ok(false) };
        let len = file.metadata().context("stat", path)?.len();
        Ok(!len.is_multiple_of(ENTRY_LEN as u64))
    }
}

/// An index says something else than the batches.
#[derive(Debug)]
struct Difference {
    what: String,
    is_damage: bool,
}

/// An index on the way through the batches of its segment.
pub(super) struct Comparison<'a> {
    part: &'a Auditable,
    told: Told<'a>,
    entries: Entries,
    /// Where the log's first segment begins: of what lay before, a log may know more than its batches tell.
    first_offset: Offset,
    is_compacted: bool,
    found: Result<Option<Difference>, Unknown>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(log: &'a Log, part: &'a Auditable) -> Result<Self, StorageError> {
        let base_offset = Offset(part.segment.base_offset);
        let is_compacted =
            log.config().compact || log.cleaned_to().is_some_and(|end| end > base_offset);
        let file = part.segment.open_txn_index()?;
        Ok(Self {
            part,
            told: Told::new(log, &part.segment),
            entries: Entries { file, ahead: Vec::new().into_iter(), read: 0 },
            first_offset: log.first_base_offset(),
            is_compacted,
            found: Ok(None),
        })
    }

    pub(super) fn batch(&mut self, batch: &RawBatch) {
        if self.found.is_ok()
            && let Err(unknown) = self.compare(batch)
        {
            self.found = Err(unknown);
        }
    }

    fn compare(&mut self, batch: &RawBatch) -> Result<(), Unknown> {
        let (header, written) = (batch.header(), Written::of_raw(batch));
        let mut told = self.told.batch(&written)?;
        while let Some(entry) = self.entries.peek(&self.part.segment)?
            && entry.transaction.last_offset.0 <= header.last_offset()
        {
            self.entries.ahead.next();
            let told = told.take();
            if told.is_none_or(|told| entry.known() != Some(told)) {
                self.note(&entry, told, is_marker(&written, header, &entry.transaction));
            }
        }
        if let Some(told) = told {
            let what = format!("nothing of the transaction that ends at {}", told.last_offset);
            self.differ(what, !self.is_compacted);
        }
        Ok(())
    }

    /// An entry is not what the batches tell.
    fn note(&mut self, entry: &Versioned, told: Option<AbortedTransaction>, is_marker: bool) {
        let it = &entry.transaction;
        let is_possible = entry.may_be_in(self.part.segment.base_offset)
            && (is_marker || self.is_compacted && told.is_none());
        let is_of_before = it.first_offset.min(it.last_stable_offset) < self.first_offset;
        let is_damage = !(is_possible && (self.is_compacted || is_of_before));
        self.differ(format!("{entry}, and the batches {}", Expected(told)), is_damage);
    }

    fn differ(&mut self, what: String, is_damage: bool) {
        match &mut self.found {
            Ok(Some(known)) if known.is_damage || !is_damage => {}
            Ok(found) => *found = Some(Difference { what, is_damage }),
            Err(_) => {}
        }
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.entries.read).unwrap_or(usize::MAX).saturating_mul(ENTRY_LEN)
    }

    fn finish(mut self) -> Result<Option<Difference>, Unknown> {
        if let Some(entry) = self.entries.peek(&self.part.segment)?
            // Of what is appended meanwhile, or not flushed, there may be some.
            && (self.part.is_sealed || entry.transaction.last_offset.0 < self.part.end_offset)
        {
            self.note(&entry, None, false);
        }
        if self.part.is_sealed && self.entries.is_ragged()? {
            self.differ("a part of an entry".to_owned(), true);
        }
        self.found
    }
}

/// Whether a batch is the marker that an entry names.
fn is_marker(written: &Written<'_>, header: &BatchHeader, entry: &AbortedTransaction) -> bool {
    written.ending() == Some(Ending::Abort)
        && header.producer_id == entry.producer_id.0
        && (header.base_offset..=header.last_offset()).contains(&entry.last_offset.0)
}

impl std::fmt::Display for Versioned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, transaction: it } = self;
        write!(f, "version {version}, ")?;
        Expected(Some(*it)).fmt(f)
    }
}

struct Expected(Option<AbortedTransaction>);

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(it) = self.0 else { return f.write_str("nothing") };
        write!(
            f,
            "producer {} from {} to {}, stable to {}",
            it.producer_id, it.first_offset, it.last_offset, it.last_stable_offset
        )
    }
}

/// An index on its way to take the place of another.
struct Rebuilt<'a> {
    told: Told<'a>,
    file: File,
    path: PathBuf,
    pending: Vec<u8>,
    written: u64,
    unknown: Option<Unknown>,
}

impl<'a> Rebuilt<'a> {
    fn create(log: &'a Log, segment: &Segment) -> Result<Self, StorageError> {
        let path = names::with_ending(&segment.path(names::TXN_INDEX), names::TEMPORARY);
        let file = segment.disk().open(&path, Open::Replace).context("create", &path)?;
        let told = Told::new(log, segment);
        Ok(Self { told, file, path, pending: Vec::new(), written: 0, unknown: None })
    }

    fn add(&mut self, written: &Written<'_>) -> Result<(), Unknown> {
        let Some(aborted) = self.told.batch(written)? else { return Ok(()) };
        aborted.encode(&mut self.pending);
        if self.pending.len() >= ENTRY_LEN * ENTRIES_AT_ONCE as usize {
            self.write()?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RawBatch) {
        if self.unknown.is_none() {
            self.unknown = self.add(&Written::of_raw(batch)).err();
        }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let disk = self.told.log.env().disk.as_ref();
        disk.write_all_at(&self.file, &self.pending, self.written).context("write", &self.path)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Takes in what was appended since the part was read.
    fn follow(&mut self, part: &Auditable, size: u64) -> Result<(), Unknown> {
        let segment = &part.segment;
        let (file, path) = (segment.log_file()?, segment.path(names::LOG));
        let mut scan = segment.scan(&file, &path, part.size, size);
        while let Some(found) = scan.next()? {
            let marker = match Written::needs_records(&found.header) {
                true => Some(segment.read_batch(&file, &found)?),
                false => None,
            };
            let records = marker.and_then(|it| it.records_within(MARKER_BYTES_MAX).ok());
            self.add(&Written::new(&found.header, records))?;
        }
        Ok(())
    }

    /// Lets the index be this one, durably.
    fn take_place(mut self, segment: &Segment) -> Result<(), StorageError> {
        self.write()?;
        segment.disk().sync_data(&self.file).context("flush", &self.path)?;
        segment.put_aborted(&self.path, self.written == 0)?;
        let directory = self.told.log.home.path();
        segment.disk().sync_directory(&directory).context("flush", &directory)
    }
}

impl Log {
    /// Which transactions are open where a segment begins.
    fn open_before(&self, base_offset: Offset) -> Result<Transactions, Unknown> {
        let (mut replay, extents, damage) = {
            // Snapshots come and go with the writer only.
            let Ok(_writer) = self.lock_writer() else { return Err(Unknown::Before) };
            let snapshots = producers::list(&*self.env().disk, &self.home.path())?;
            let mut replay = Replay::new(&self.home, snapshots);
            replay.load_newest_up_to(base_offset)?;
            (replay, self.extents(), self.state.read().damage())
        };
        let end = replay.end();
        let hides = |first: i64, last: Offset| first < base_offset.0 && last > end;
        if end < base_offset && damage.iter().any(|(base, it)| hides(*base, it.end_offset)) {
            return Err(Unknown::Before);
        }
        let before = extents.into_iter().filter(|extent| extent.base_offset() < base_offset);
        replay.advance_to(base_offset, before)?;
        Ok(replay.into_transactions())
    }

    /// What comes of holding the transaction index of an undamaged part against its batches. `read` shows all of them again.
    pub(super) fn judge_aborted(
        &self,
        comparison: Comparison<'_>,
        read: impl FnOnce(&mut dyn FnMut(&RawBatch)) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        let part = comparison.part;
        let difference = match comparison.finish() {
            Ok(None) | Err(Unknown::Before) => return Ok(()),
            Ok(Some(difference)) => difference,
            Err(Unknown::Failed(error)) => return Err(error),
        };
        // Whoever else has read the same makes it anew already.
        let Some(_mending) = self.mending.try_lock() else { return Ok(()) };
        if !self.is_as_read(&self.writer.lock(), part) {
            return Ok(());
        }
        let mut rebuilt = Rebuilt::create(self, &part.segment)?;
        let path = rebuilt.path.clone();
        let is_sound = read(&mut |batch| rebuilt.batch(batch));
        let replaced = match is_sound {
            Ok(true) => self.replace_aborted(part, rebuilt, &difference),
            Ok(false) => Ok(false),
            Err(error) => Err(error),
        };
        if !matches!(replaced, Ok(true)) {
            self.forget_unfinished(&path);
        }
        replaced.map(drop)
    }

    /// Whether it is in place.
    fn replace_aborted(
        &self,
        part: &Auditable,
        mut rebuilt: Rebuilt<'_>,
        difference: &Difference,
    ) -> Result<bool, StorageError> {
        let Ok(writer) = self.lock_writer() else { return Ok(false) };
        if !self.is_as_read(&writer, part) {
            return Ok(false);
        }
        let unknown = match rebuilt.unknown.take() {
            Some(unknown) => Err(unknown),
            None => rebuilt.follow(part, self.size_of(&part.segment)),
        };
        match unknown {
            Ok(()) => {}
            Err(Unknown::Before) => return Ok(false),
            Err(Unknown::Failed(error)) => return Err(error),
        }
        rebuilt.take_place(&part.segment)?;
        let index = part.segment.path(names::TXN_INDEX);
        let (partition, index, what) = (&self.partition, index.display(), &difference.what);
        if difference.is_damage {
            tracing::warn!(%partition, %index, what, "a damaged transaction index: made anew from its segment");
        } else {
            tracing::info!(%partition, %index, what, "a transaction index from before a compaction: made anew from its segment");
        }
        Ok(true)
    }

    fn forget_unfinished(&self, path: &Path) {
        if let Err(error) = self.env().disk.remove_if_there(path) {
            tracing::debug!(path = %path.display(), %error, "cannot remove an unfinished index");
        }
    }

    pub(super) fn is_as_read(&self, _writer: &Writer, part: &Auditable) -> bool {
        self.truncations() == part.truncations && self.holds(part)
    }

    /// How many bytes a segment of the log has.
    fn size_of(&self, segment: &Arc<Segment>) -> u64 {
        let state = self.state.read();
        state.sealed_as(segment).map_or(state.active.size, |it| it.size)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_env::OsDisk;
    use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker, ValidBatch};

    use super::*;
    use crate::LogConfig;
    use crate::audit::{FileSource, Source};
    use crate::testing::log_on;

    fn aborted(producer: i64) -> [ValidBatch; 2] {
        let builder = BatchBuilder::new(Compression::None).producer(producer, 0, 0);
        let mut builder = builder.transactional();
        builder.append(Timestamp(1), Some(b"k"), Some(b"v"), &[]);
        let (abort, marker) = (ControlType::Abort, EndTransactionMarker { coordinator_epoch: 0 });
        let end = BatchBuilder::end_of_transaction((producer, 0), abort, marker, Timestamp(1));
        [builder.build(), end.build()]
    }

    /// Does something when it is read first.
    struct Interrupted<'a, F>(FileSource<'a>, Option<F>);

    impl<F: FnOnce()> Source for Interrupted<'_, F> {
        fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read_at(position, out);
            if let Some(meanwhile) = self.1.take() {
                meanwhile();
            }
            read
        }
    }

    /// Turns a bit of a producer id.
    fn flip(log: &Log) -> PathBuf {
        let path = log.state.read().active.segment.path(names::TXN_INDEX);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn audit_while(log: &Log, meanwhile: impl FnOnce()) {
        let part = log.auditable(|_| true).unwrap().pop().unwrap();
        let file = part.segment.log_file().unwrap();
        let source = FileSource(part.segment.disk(), &file);
        log.audit_segment(&part, &mut Interrupted(source, Some(meanwhile))).unwrap();
    }

    #[test]
    fn what_is_aborted_while_the_index_is_made_anew_is_in_it() {
        for is_closed in [false, true] {
            let temporary = tempfile::tempdir().unwrap();
            let (_directory, log) =
                log_on(temporary.path(), Arc::new(OsDisk), LogConfig::default());
            let append = |batch| log.append_batch(batch, LeaderEpoch(0)).unwrap();
            for batch in aborted(1) {
                append(batch);
            }
            log.flush().unwrap();
            let path = flip(&log);
            audit_while(&log, || {
                for batch in aborted(2).into_iter().chain(aborted(3)) {
                    append(batch);
                }
                if is_closed {
                    log.roll().unwrap();
                }
            });
            let found = log.aborted_transactions(&(Offset(0)..Offset(9))).unwrap();
            let ids: Vec<i64> = found.iter().map(|it| it.producer_id.0).collect();
            assert_eq!(ids, [1, 2, 3], "{is_closed}");
            assert_eq!(std::fs::metadata(path).unwrap().len(), 3 * ENTRY_LEN as u64);
        }
    }

    #[test]
    fn a_log_that_is_cut_off_meanwhile_keeps_its_index() {
        let temporary = tempfile::tempdir().unwrap();
        let (_directory, log) = log_on(temporary.path(), Arc::new(OsDisk), LogConfig::default());
        for batch in aborted(1).into_iter().chain(aborted(2)) {
            log.append_batch(batch, LeaderEpoch(0)).unwrap();
        }
        log.flush().unwrap();
        let path = flip(&log);
        audit_while(&log, || log.truncate_to(Offset(2)).unwrap());
        let entry = std::fs::read(&path).unwrap();
        assert_eq!((entry.len(), entry[9]), (ENTRY_LEN, 0), "it is as it was, and shorter");
        // The next one finds it.
        log.flush().unwrap();
        audit_while(&log, || {});
        assert_eq!(std::fs::read(&path).unwrap()[9], 1);
    }
}
