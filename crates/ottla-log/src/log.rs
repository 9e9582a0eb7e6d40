//! One partition's log: an append-only sequence of record batches, cut into segments. Shell.
//!
//! Two locks: `writer` is held by whoever changes files, `state` is what readers see and is held only for a moment.
//! Readers never wait for a write. Lock order: `cleaning`, `mending`, the directory's flush round, `flush`, `writer`,
//! `transactions`, `state`.
//!
//! Invariants, checked after every change by `State::check`:
//! - `log_start_offset <= log_end_offset`, `flushed_offset <= log_end_offset`
//! - base offsets rise strictly from segment to segment, and the last one is `<= log_end_offset`
//! - bytes before the active segment's `size` are never changed, only cut off with the segment or by a truncation
//!
//! And checked by a test: the producers are what all batches make of them that were ever appended and not cut off
//! again, but for those that were idle for too long.
//!
//! The high watermark is not decided here: what readers may see is replication's business, and passed to [`Log::read`] as
//! an upper bound. The log notes what it is told, for the checkpoint.

mod aborted;
mod active;
mod append;
mod clean;
mod dirty;
mod flush;
mod follow;
mod lookup;
mod moved;
mod producers;
mod quarantined;
mod read;
mod transactions;
mod trim;
mod watermark;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use ottla_base::{LeaderEpoch, Offset, TopicId, TopicPartition};
use parking_lot::{Mutex, RwLock};

pub(crate) use append::RecoveryPoint;
pub use append::{Appended, Origin};
pub use lookup::TimestampLookup;
pub use read::{FileRange, Slice};
pub use trim::Removed;

pub(crate) use clean::{Compactable, Overtaken, Source};
pub(crate) use trim::Trim;

pub(crate) use active::Active;
pub(crate) use dirty::DirtyLimit;
pub(crate) use flush::{FlushWork, NoFlush};
pub(crate) use quarantined::Auditable;

use crate::checkpoint;
use crate::config::LogConfig;
use crate::environment::{Environment, Home};
use crate::epochs::{EpochCache, EpochEntry};
use crate::error::StorageError;
use crate::names;
use crate::producers::Producers;
use crate::quarantine;
use crate::recovery::producers::Restored;
use crate::segment::Segment;
use crate::transactions::Transactions;
use dirty::DirtyFiles;

/// A partition's log. Cheap to keep while idle: no open files, and memory for little more than its name.
pub struct Log {
    partition: TopicPartition,
    topic_id: Option<TopicId>,
    home: Arc<Home>,
    this: Weak<Self>,
    config: RwLock<Arc<LogConfig>>,
    /// Held during a flush, so that a second one does not report what the first has not finished, and by whoever renames the
    /// log's directory.
    flush: Mutex<()>,
    /// The latest entry of the journal that has, or may have, something of this log; changed only while its flush is held.
    journaled: AtomicU64,
    flush_requested: AtomicBool,
    /// A copy for those who must not wait for the writer.
    producer_count: AtomicUsize,
    /// Bytes after the newest snapshot of producers: what recovery would have to look through.
    unsnapshotted_bytes: AtomicU64,
    /// As this log was told last; −1 before anybody has.
    high_watermark: AtomicI64,
    /// How often the log's end was cut off: whoever has looked at the log without the writer can tell. Changed by the writer.
    truncations: AtomicU64,
    writer: Mutex<Writer>,
    /// Locked for a moment at a time, by writers and readers.
    transactions: Mutex<Transactions>,
    /// Held by whoever compacts the log.
    pub(crate) cleaning: Mutex<()>,
    /// Held by whoever makes a transaction index anew.
    mending: Mutex<()>,
    /// Compaction has met something that it must not touch.
    pub(crate) uncleanable: AtomicBool,
    /// What is known of damage could not be written down.
    is_quarantine_stale: AtomicBool,
    /// Compaction waits for damage to be mended, and has said so.
    kept_by_damage: AtomicBool,
    state: RwLock<State>,
}

/// What only those who change files need to know.
#[derive(Debug)]
struct Writer {
    dirty: DirtyFiles,
    dirty_since_ms: i64,
    unsynced_names: UnsyncedNames,
    /// What all batches in the log make of them.
    producers: Producers,
    /// Where the producers were written down last.
    newest_snapshot: Option<Offset>,
    closed: bool,
    /// Nothing may be appended until somebody has tried to put another log in this one's place.
    paused: bool,
    /// While a copy of the log is made: from which offset on the copy has what was cut off here since it followed last.
    copied: Option<Offset>,
}

impl Writer {
    fn accepts_writes(&self) -> bool {
        !self.closed && !self.paused
    }
}

/// Which directories have entries that a crash could take back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UnsyncedNames {
    #[default]
    None,
    /// A file was created in the log's directory.
    Files,
    /// The log's directory was created, too.
    Directory,
}

/// What readers see.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log_start_offset: i64,
    pub(crate) log_end_offset: i64,
    pub(crate) flushed_offset: i64,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) active: Active,
    pub(crate) epochs: EpochCache,
}

/// A segment that is no longer written.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u64,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
}

impl From<Active> for Sealed {
    fn from(active: Active) -> Self {
        Self {
            size: active.size,
            offset_entries: active.offsets.len(),
            time_entries: active.times.len(),
            segment: active.segment,
        }
    }
}

impl State {
    /// A log without records that begins at this offset.
    pub(crate) fn empty(active: Active, epochs: EpochCache) -> Self {
        let start = active.segment.base_offset;
        Self {
            log_start_offset: start,
            log_end_offset: start,
            flushed_offset: start,
            sealed: Vec::new(),
            active,
            epochs,
        }
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.sealed.iter().map(|sealed| &sealed.segment).chain([&self.active.segment])
    }

    pub(crate) fn first_segment(&self) -> &Arc<Segment> {
        self.sealed.first().map_or(&self.active.segment, |sealed| &sealed.segment)
    }

    /// The last segment that begins at or before an offset, how many bytes it has, and how many entries of its offset index.
    fn segment_of(&self, offset: Offset) -> (Arc<Segment>, u64, u32) {
        let begins_before = |segment: &Segment| segment.base_offset <= offset.0;
        let Active { segment, size, offsets, .. } = &self.active;
        match self.sealed.iter().rfind(|sealed| begins_before(&sealed.segment)) {
            Some(sealed) if !begins_before(segment) => {
                (Arc::clone(&sealed.segment), sealed.size, sealed.offset_entries)
            }
            _ => (Arc::clone(segment), *size, offsets.len()),
        }
    }

    /// What is known of a segment, if it is closed and still here.
    fn sealed_as(&self, segment: &Arc<Segment>) -> Option<&Sealed> {
        self.sealed.iter().find(|it| Arc::ptr_eq(&it.segment, segment))
    }

    /// What stays of a log that is cut off at an offset ends before this one: of damage that the offset lies in, nothing stays.
    fn whole_before(&self, offset: Offset) -> Offset {
        let (segment, ..) = self.segment_of(offset);
        let damage = segment.damage().unwrap_or_default();
        let damage = quarantine::first_after(&damage, offset.0);
        let whole_before = damage.map_or(offset, |damage| damage.first_offset.min(offset));
        whole_before.max(Offset(segment.base_offset))
    }

    /// The segments that are no longer written, each with the base offset of the one that follows it.
    pub(crate) fn sealed_with_ends(&self) -> impl Iterator<Item = (&Sealed, i64)> {
        let ends = self.segments().skip(1).map(|segment| segment.base_offset);
        self.sealed.iter().zip(ends)
    }

    /// What is known to be damaged, and the base offset of its segment.
    pub(crate) fn damage(&self) -> Vec<quarantine::Entry> {
        let mut entries = Vec::new();
        for segment in self.segments() {
            let damage = segment.damage().unwrap_or_default();
            entries.extend(damage.iter().map(|damage| (segment.base_offset, damage.clone())));
        }
        entries
    }

    pub(crate) fn check(&self) {
        assert!(self.log_start_offset <= self.log_end_offset);
        assert!(self.flushed_offset <= self.log_end_offset);
        assert!(self.active.segment.base_offset <= self.log_end_offset);
        if let Some(last) = self.sealed.last() {
            assert!(last.segment.base_offset < self.active.segment.base_offset);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(
        partition: TopicPartition,
        topic_id: Option<TopicId>,
        home: Arc<Home>,
        config: Arc<LogConfig>,
        state: State,
        restored: Restored,
        unsynced_names: UnsyncedNames,
    ) -> Arc<Self> {
        state.check();
        let Restored { producers, newest_snapshot } = restored;
        let producer_count = AtomicUsize::new(producers.len());
        let transactions = Mutex::new(Transactions::of(&producers, Offset(state.log_end_offset)));
        let is_snapshotted = newest_snapshot == Some(Offset(state.log_end_offset));
        let unsnapshotted_bytes = if is_snapshotted { 0 } else { state.active.size };
        let writer = Writer {
            dirty: DirtyFiles::new(Arc::clone(&home.env.dirty_limit)),
            dirty_since_ms: 0,
            unsynced_names,
            producers,
            newest_snapshot,
            closed: false,
            paused: false,
            copied: None,
        };
        Arc::new_cyclic(|this| Self {
            partition,
            topic_id,
            home,
            this: Weak::clone(this),
            config: RwLock::new(config),
            flush: Mutex::default(),
            journaled: AtomicU64::new(0),
            flush_requested: AtomicBool::new(false),
            producer_count,
            unsnapshotted_bytes: AtomicU64::new(unsnapshotted_bytes),
            high_watermark: AtomicI64::new(-1),
            truncations: AtomicU64::new(0),
            writer: Mutex::new(writer),
            transactions,
            cleaning: Mutex::default(),
            mending: Mutex::default(),
            uncleanable: AtomicBool::new(false),
            is_quarantine_stale: AtomicBool::new(false),
            kept_by_damage: AtomicBool::new(false),
            state: RwLock::new(state),
        })
    }

    /// The log is about to be cut off at an offset; at the least there is when nothing stays.
    fn note_cut(&self, writer: &mut Writer, offset: Offset) {
        self.truncations.fetch_add(1, Ordering::AcqRel);
        writer.copied = writer.copied.map(|lowest| lowest.min(offset));
    }

    /// How often the log was cut off so far.
    fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// From `partition.metadata`; `None` when that file is missing.
    #[must_use]
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    /// The log directory that it is in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.env().path
    }

    #[must_use]
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read())
    }

    /// Takes effect from the next append or retention run on, and on a compaction from the next segments on that it would replace.
    pub fn set_config(&self, config: Arc<LogConfig>) {
        let jitter = |it: &LogConfig| (it.segment_jitter_ms, it.segment_ms);
        // A log is opened before anybody knows its topic's.
        if jitter(&config) != jitter(&self.config.read()) {
            self.state.write().active.jitter_ms = self.env().draw_jitter_ms(&config);
        }
        *self.config.write() = config;
    }

    /// The first offset that can be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        Offset(self.state.read().log_start_offset)
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        Offset(self.state.read().log_end_offset)
    }

    /// Everything before this offset counts as flushed: it is on disk, or, with `log.flush.on.commit=false`,
    /// at least in the page cache.
    #[must_use]
    pub fn flushed_offset(&self) -> Offset {
        let state = self.state.read();
        if self.flushes_on_commit() {
            Offset(state.flushed_offset)
        } else {
            Offset(state.log_end_offset)
        }
    }

    /// `log.flush.on.commit`: whether what counts as flushed is on the disk.
    #[must_use]
    pub fn flushes_on_commit(&self) -> bool {
        self.env().options.flush_on_commit
    }

    /// Bytes of records on disk.
    #[must_use]
    pub fn size_in_bytes(&self) -> u64 {
        let state = self.state.read();
        state.sealed.iter().map(|sealed| sealed.size).sum::<u64>() + state.active.size
    }

    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.state.read().sealed.len() + 1
    }

    #[must_use]
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.state.read().epochs.latest().map(|entry| entry.epoch)
    }

    #[must_use]
    pub fn epoch_entries(&self) -> Vec<EpochEntry> {
        self.state.read().epochs.entries().to_vec()
    }

    /// The epoch that wrote the record at this offset.
    #[must_use]
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.state.read().epochs.epoch_for(offset)
    }

    /// The largest epoch up to `epoch`, and the offset after its last record; see [`EpochCache::end_offset_for`].
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.state.read();
        state.epochs.end_offset_for(epoch, Offset(state.log_end_offset))
    }

    /// Notes that a leader epoch begins at the log's end, as an append does before it fails. For tests.
    ///
    /// # Errors
    /// [`StorageError::Closed`], [`StorageError::Poisoned`], or the file of the epochs can't be written: nothing is
    /// noted then.
    pub fn assign_epoch(&self, epoch: LeaderEpoch) -> Result<(), StorageError> {
        let _writer = self.lock_writer()?;
        self.update_epochs(|epochs| epochs.assign(epoch, self.log_end_offset()))
    }

    /// Only between two flushes: one that is under way knows the directory by its old name, would not find it, and would
    /// take that for a disk that fails.
    pub(crate) fn rename(&self, to: &Path, _no_flush: &NoFlush<'_>) -> Result<(), StorageError> {
        self.home.rename(to)
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    fn env(&self) -> &Environment {
        &self.home.env
    }

    fn lock_writer(&self) -> Result<parking_lot::MutexGuard<'_, Writer>, StorageError> {
        let writer = self.writer.lock();
        if !writer.accepts_writes() {
            return Err(StorageError::Closed { log: self.partition.to_string() });
        }
        self.env().check_health()?;
        Ok(writer)
    }

    /// Changes the epochs on disk, then in memory. The caller holds the writer.
    fn update_epochs(
        &self,
        change: impl FnOnce(&mut EpochCache) -> bool,
    ) -> Result<(), StorageError> {
        let mut epochs = self.state.read().epochs.clone();
        if change(&mut epochs) {
            self.write_epochs(&epochs)?;
            self.state.write().epochs = epochs;
        }
        Ok(())
    }

    /// Recovery finds the epochs of unflushed records in the records themselves; those of others are made durable by the
    /// flush that precedes every checkpoint.
    fn write_epochs(&self, epochs: &EpochCache) -> Result<(), StorageError> {
        let path = self.home.path().join(names::LEADER_EPOCHS);
        checkpoint::replace_lazily(&*self.env().disk, &path, &epochs.to_text())
    }
}
