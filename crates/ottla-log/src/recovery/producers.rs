//! Brings back what a log knew of its producers: from a snapshot that can be trusted, and the batches after it. Shell.
//!
//! - A snapshot of more offsets than the log has is removed: other batches may take their place. So is one of more than
//!   was flushed, but for that of the log's start.
//! - One that cannot be read is removed, and the one before it is taken; before the first one nobody was known.
//! - What was idle for too long when the snapshot is read is left out, as in Kafka.
//!
//! The newest snapshot is one segment old at most, unless a crash took it, and at the log's end after a clean close:
//! then nothing is read beside it. Only where a transaction has ended above the high watermark the close leaves that out, since
//! the next start has to know what was open before. Of the batches after a snapshot the index says where they begin.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::Offset;
use ottla_env::Disk;
use ottla_records::{BatchHeader, RawBatch};

use crate::environment::Home;
use crate::error::{Context, StorageError};
use crate::index::{Index, OffsetEntry};
use crate::log::{Active, Sealed};
use crate::names;
use crate::policy::roll;
use crate::producers::{MARKER_BYTES_MAX, Producers, Written, snapshot};
use crate::segment::Segment;
use crate::transactions::Transactions;
use crate::txn_index::AbortedTransaction;

/// The producers of a log, and where their newest snapshot was taken.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) producers: Producers,
    pub(crate) newest_snapshot: Option<Offset>,
}

/// A segment as far as it is sound, with its offset index.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    segment: Arc<Segment>,
    size: u64,
    offsets: Index<OffsetEntry>,
}

/// Producers on their way to the end of a log.
///
/// Invariant: `producers` is what the batches before `end` make of them, and none lies across `end`.
#[derive(Debug, Clone)]
pub(crate) struct Replay<'a> {
    home: &'a Home,
    /// Where there are snapshots, in order.
    snapshots: Vec<Offset>,
    producers: Producers,
    transactions: Transactions,
    /// Ends of transactions are remembered: they may be cut off again.
    keeps_ends: bool,
    end: Offset,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(home: &'a Home, mut snapshots: Vec<Offset>) -> Self {
        snapshots.sort_unstable();
        let (producers, transactions) = (Producers::default(), Transactions::default());
        let end = Offset(i64::MIN);
        Self { home, snapshots, producers, transactions, keeps_ends: false, end }
    }

    /// Takes in all batches that end before an offset, from the newest snapshot of some of them on. The segments are those
    /// from the log's first one on. What is read is what lies between the two.
    pub(crate) fn advance_to(
        &mut self,
        offset: Offset,
        segments: impl Iterator<Item = Extent>,
    ) -> Result<(), StorageError> {
        if self.end >= offset {
            return Ok(());
        }
        if self.load_newest_up_to(offset)? >= offset {
            return Ok(());
        }
        let mut end = offset;
        for extent in overlapping(segments, self.end..offset) {
            end = end.min(self.scan(&extent, offset)?);
        }
        self.end = self.end.max(end);
        Ok(())
    }

    /// Takes a snapshot for what the batches before it make of their producers: where those are flushed it may know of
    /// some whose batches are deleted, or in another directory.
    pub(crate) fn believe_snapshot_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        if self.end > offset || !self.snapshots.contains(&offset) {
            return Ok(());
        }
        if let Some(mut producers) = self.read(offset)? {
            let env = &self.home.env;
            env.expire(&mut producers, env.now_ms());
            (self.producers, self.end) = (producers, offset);
        }
        Ok(())
    }

    /// `None` when there is a snapshot at this offset that can be trusted, and otherwise what would have to be in it.
    pub(crate) fn was_written_at(
        &mut self,
        offset: Offset,
        segments: impl Iterator<Item = Extent>,
    ) -> Result<Option<Producers>, StorageError> {
        self.load_newest_up_to(offset)?;
        if self.end == offset {
            return Ok(None);
        }
        self.advance_to(offset, segments)?;
        Ok(Some(std::mem::take(&mut self.producers)))
    }

    /// The transactions as all batches before `end` leave them, if what ended before `settled` has ended for good, and
    /// nothing else has.
    pub(crate) fn transactions_at(
        mut self,
        end: Offset,
        settled: Offset,
        segments: impl Iterator<Item = Extent> + Clone,
    ) -> Result<Transactions, StorageError> {
        self.advance_to(settled, segments.clone())?;
        // A snapshot tells of no transaction that has ended.
        self.snapshots.clear();
        self.keeps_ends = true;
        self.advance_to(end, segments)?;
        Ok(self.transactions.settled_to(settled))
    }

    /// Up to where all batches are known.
    pub(crate) const fn end(&self) -> Offset {
        self.end
    }

    /// Which transactions are open there.
    pub(crate) fn into_transactions(self) -> Transactions {
        self.transactions
    }

    /// Takes over what snapshots there are now.
    pub(crate) fn with_snapshots(self, mut snapshots: Vec<Offset>) -> Self {
        snapshots.sort_unstable();
        Self { snapshots, ..self }
    }

    /// Forgets everything if that is of more batches than those before an offset: a snapshot was believed in vain.
    pub(crate) fn forget_more_than(&mut self, offset: Offset) {
        if self.end > offset {
            (self.producers, self.end) = (Producers::default(), Offset(i64::MIN));
            self.transactions = Transactions::default();
        }
    }

    /// Takes in the next batch, unless it is known, whose bytes `read` gives if they are needed. Returns the transaction
    /// that it aborts.
    pub(crate) fn observe(
        &mut self,
        header: &BatchHeader,
        read: impl FnOnce() -> io::Result<Bytes>,
    ) -> io::Result<Option<AbortedTransaction>> {
        if header.base_offset < self.end.0 {
            return Ok(None);
        }
        let batch = match Written::needs_records(header) {
            true => RawBatch::parse(read()?).ok(),
            false => None,
        };
        let records = batch.and_then(|batch| batch.records_within(MARKER_BYTES_MAX).ok());
        let written = Written::new(header, records);
        self.producers.append(&written);
        self.end = Offset(header.next_offset());
        let aborted = self.transactions.append(&written);
        if !self.keeps_ends {
            self.transactions.settle();
        }
        Ok(aborted)
    }

    /// What was found. Of the snapshots those are kept that a truncation may need: where a segment begins, and the
    /// newest.
    pub(crate) fn finish(&mut self, segment_bases: &[i64]) -> Result<Restored, StorageError> {
        self.remove_after(self.end)?;
        let newest_snapshot = self.snapshots.last().copied();
        let is_needed = |at: &Offset| {
            Some(*at) == newest_snapshot || segment_bases.binary_search(&at.0).is_ok()
        };
        self.remove_unless(is_needed)?;
        Ok(Restored { producers: std::mem::take(&mut self.producers), newest_snapshot })
    }

    /// Removes the snapshots of more than so many offsets, durably: other batches will take the place of those that
    /// they tell of.
    pub(crate) fn remove_after(&mut self, offset: Offset) -> Result<(), StorageError> {
        if self.remove_unless(|at| *at <= offset)? {
            let directory = self.home.path();
            self.home.env.disk.sync_directory(&directory).context("flush", &directory)?;
        }
        Ok(())
    }

    /// Removes all other snapshots. Returns whether there were any.
    pub(crate) fn remove_unless(
        &mut self,
        keep: impl Fn(&Offset) -> bool,
    ) -> Result<bool, StorageError> {
        let (kept, removed) = std::mem::take(&mut self.snapshots).into_iter().partition(keep);
        self.snapshots = kept;
        let removed: Vec<Offset> = removed;
        removed.iter().try_for_each(|at| self.remove(*at))?;
        Ok(!removed.is_empty())
    }

    /// Goes on from the newest snapshot of no more than the batches before an offset, if that is of more than is known
    /// already. Returns up to where all batches are known now.
    pub(crate) fn load_newest_up_to(&mut self, offset: Offset) -> Result<Offset, StorageError> {
        let newest = |snapshots: &[Offset]| snapshots.iter().copied().rfind(|at| *at <= offset);
        while let Some(at) = newest(&self.snapshots).filter(|at| *at > self.end) {
            if let Some(mut producers) = self.read(at)? {
                let env = &self.home.env;
                env.expire(&mut producers, env.now_ms());
                self.transactions = Transactions::of(&producers, at);
                (self.producers, self.end) = (producers, at);
                break;
            }
            self.remove(at)?;
            self.snapshots.retain(|other| *other != at);
        }
        Ok(self.end)
    }

    /// `None` when the snapshot is worth nothing.
    fn read(&self, at: Offset) -> Result<Option<Producers>, StorageError> {
        let path = names::segment_file(&self.home.path(), at, names::SNAPSHOT);
        let bytes = match self.home.env.disk.read(&path) {
            Ok(bytes) => bytes,
            // It went with an empty segment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read", &path),
        };
        match snapshot::decode(&bytes, at) {
            Ok(producers) => Ok(Some(producers)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "removing a snapshot that cannot be trusted");
                Ok(None)
            }
        }
    }

    fn remove(&self, at: Offset) -> Result<(), StorageError> {
        let path = names::segment_file(&self.home.path(), at, names::SNAPSHOT);
        self.home.env.disk.remove_if_there(&path).map(drop).context("remove", &path)
    }

    /// Takes in the batches of one segment that lie between what is known and an offset. Returns that offset, or where a
    /// batch begins that it lies in.
    fn scan(&mut self, extent: &Extent, offset: Offset) -> Result<Offset, StorageError> {
        let Extent { segment, size, .. } = extent;
        if *size == 0 {
            return Ok(offset);
        }
        let (file, path) = (segment.log_file()?, segment.path(names::LOG));
        let mut scan = segment.scan(&file, &path, extent.floor(&file, self.end)?, *size);
        loop {
            let found = match scan.next() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(offset),
                Err(StorageError::Corrupt { position, what, .. }) => {
                    // Damage to flushed data is left alone, and whoever reads it is told.
                    tracing::warn!(path = %path.display(), position, what, "producers may be forgotten");
                    return Ok(offset);
                }
                Err(error) => return Err(error),
            };
            if found.header.next_offset() > offset.0 {
                return Ok(offset.min(Offset(found.header.base_offset)));
            }
            if found.header.base_offset >= self.end.0 {
                let read = || {
                    let size = found.header.size_in_bytes();
                    segment.disk().read_up_to(&file, found.position, size).map(Bytes::from)
                };
                self.observe(&found.header, read).context("read", &path)?;
            }
        }
    }
}

impl Extent {
    pub(crate) fn base_offset(&self) -> Offset {
        Offset(self.segment.base_offset)
    }

    fn floor(&self, file: &File, offset: Offset) -> Result<u64, StorageError> {
        let base_offset = self.segment.base_offset;
        let Some(relative_offset) = roll::relative(base_offset, offset.0) else { return Ok(0) };
        let floor = self.offsets.floor(|entry| entry.relative_offset <= relative_offset);
        self.segment.begin_of(file, floor, offset, self.size)
    }

    /// Whether a transaction may end in a range of offsets.
    fn has_marker(&self, range: &Range<Offset>) -> Result<bool, StorageError> {
        if self.size == 0 {
            return Ok(false);
        }
        let (file, path) = (self.segment.log_file()?, self.segment.path(names::LOG));
        let mut scan = self.segment.scan(&file, &path, self.floor(&file, range.start)?, self.size);
        while let Some(found) = scan.next()? {
            if found.header.base_offset >= range.end.0 {
                break;
            }
            if found.header.next_offset() > range.start.0 && Written::needs_records(&found.header) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl From<&Sealed> for Extent {
    fn from(sealed: &Sealed) -> Self {
        let offsets = Index::on_disk(sealed.offset_entries, None);
        Self { segment: Arc::clone(&sealed.segment), size: sealed.size, offsets }
    }
}

impl From<&Active> for Extent {
    fn from(active: &Active) -> Self {
        let Active { segment, size, offsets, .. } = active;
        Self { segment: Arc::clone(segment), size: *size, offsets: offsets.clone() }
    }
}

/// Those that may hold some of a range of offsets, of all segments in order.
fn overlapping(
    segments: impl Iterator<Item = Extent>,
    range: Range<Offset>,
) -> impl Iterator<Item = Extent> {
    let mut segments = segments.peekable();
    std::iter::from_fn(move || {
        let extent = segments.next()?;
        let next = segments.peek().map_or(i64::MAX, |next| next.segment.base_offset);
        Some((extent, next))
    })
    .filter(move |(extent, next)| *next > range.start.0 && extent.segment.base_offset < range.end.0)
    .map(|(extent, _)| extent)
}

/// Whether a transaction ends in a range of offsets; what is in quarantine says nothing, here as in a replay.
pub(crate) fn any_marker(
    segments: impl Iterator<Item = Extent>,
    range: &Range<Offset>,
) -> Result<bool, StorageError> {
    for extent in overlapping(segments, range.clone()) {
        match extent.has_marker(range) {
            Ok(false) => {}
            Ok(true) | Err(StorageError::Corrupt { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Where a log has snapshots.
pub(crate) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<Offset>, StorageError> {
    let mut offsets = Vec::new();
    for entry in disk.list(directory).context("list", directory)? {
        let name = entry.name.to_string_lossy();
        if let Some((offset, names::SNAPSHOT)) = names::parse_segment_file(&name) {
            offsets.push(offset);
        }
    }
    Ok(offsets)
}
