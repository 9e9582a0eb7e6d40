//! Bringing a log back: after a clean shutdown from its indexes, after a crash by reading what may be torn. Shell.
//!
//! What a crash can leave, and what happens to it:
//!
//! - A torn batch, zeros or garbage at the end of the last segment: cut off, from the first batch that is not whole,
//!   not of the right magic, wrong by its CRC, or not after its predecessor. Segments after it are deleted, and
//!   those after a segment that does not reach up to the next one, or beyond its beginning.
//! - Indexes that are missing, short, or longer than the log: rebuilt from the log.
//! - Anything behind a segment's last batch, where the next segment goes on with the offset after that: cut off.
//! - A segment without records: kept if it is the last (its name tells where the log ends) or the first (where it
//!   starts, although compaction has left nothing there), else removed.
//! - A transaction index that cannot be true: rebuilt with the others.
//! - `.deleted` and `.cleaned` files: removed. `.swap` files: see [`swaps`].
//! - Snapshots of producers that are damaged, or of more than is left of the log: see [`producers`].
//!
//! Damage to what was flushed is no torn end: it is quarantined, and the batches behind it are served. What was
//! quarantined before still is, unless its bytes are sound again.
//!
//! Only batches from the recovery point on are read whole: what was flushed is not torn. What lies before it is believed
//! to its indexes, and the headers are read of what they do not cover: see [`trusted`]. How long recovery takes depends
//! on what was written since the last checkpoint, not on how much there is.

mod damage;
pub(crate) mod indexes;
mod inventory;
pub(crate) mod producers;
pub(crate) mod swaps;
mod trusted;

use std::fs::File;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset};
use ottla_records::{BatchHeader, HEADER_LEN, RawBatch};

use crate::audit::{Damage, FileSource, Window};
use crate::checkpoint;
use crate::config::LogConfig;
use crate::environment::Home;
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::index::Index;
use crate::log::{Active, Sealed, State};
use crate::names;
use crate::policy::roll;
use crate::quarantine;
use crate::segment::Segment;
use crate::txn_index::{self, AbortedTransaction};
use inventory::Inventory;
use producers::{Extent, Replay, Restored};
use trusted::Trusted;

/// What is known about a log before it is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// The last process closed it properly.
    pub(crate) clean: bool,
    /// Everything before this is on disk.
    pub(crate) recovery_point: Offset,
    /// Everything before this may have been compacted: where records are missing, they are meant to be.
    pub(crate) cleaned_to: Offset,
    pub(crate) log_start_offset: Offset,
    pub(crate) config: &'a LogConfig,
}

/// A log as it was found, or made.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) state: State,
    pub(crate) restored: Restored,
    /// Files were made anew, and nobody has flushed them.
    pub(crate) mended: bool,
}

/// Reads a log's directory, mends what is broken, and returns what to go on from.
pub(crate) fn open(home: &Arc<Home>, opening: &Opening<'_>) -> Result<Opened, StorageError> {
    let (disk, directory) = (&*home.env.disk, home.path());
    let mut entries = disk.list(&directory).context("list", &directory)?;
    if swaps::complete(disk, &directory, &entries)? {
        entries = disk.list(&directory).context("list", &directory)?;
    }
    let Inventory { logs, snapshots, txn_indexes } = inventory::take(disk, &directory, &entries)?;
    let epochs = inventory::read_epochs(disk, &directory)?;
    let quarantined = quarantine::read(disk, &directory, &entries)?;
    let mut replay = Replay::new(home, snapshots);
    // Others may tell of batches that are not there, or of producers that this start forgets. The next one, after all of
    // this is flushed, would believe them.
    let known_to = logs.first().copied().unwrap_or_default().max(opening.recovery_point);
    let is_forgotten = !opening.clean && replay.remove_unless(|at| *at <= known_to)?;
    let mut loader = Loader {
        home,
        opening,
        epochs: epochs.clone(),
        quarantined: quarantined.clone(),
        epochs_lost: epochs.entries().is_empty(),
        replay,
        txn_indexes,
        sealed: Vec::new(),
        next_offset: 0,
        mended: is_forgotten,
    };
    let active = loader.load(&logs)?;
    let mended = loader.mended;
    let (state, restored) = loader.finish(active)?;
    if state.epochs != epochs {
        let path = directory.join(names::LEADER_EPOCHS);
        checkpoint::replace_lazily(disk, &path, &state.epochs.to_text())?;
    }
    let damage = state.damage();
    if damage != quarantined {
        quarantine::write(disk, &directory, &damage)?;
    }
    Ok(Opened { state, restored, mended })
}

/// How far a segment is trusted.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// Batches that end before this offset are not read whole.
    verify_from: i64,
    /// Whether what makes no sense is a torn end, to be cut off, and not damage to flushed data, to be left alone.
    may_cut: bool,
    /// Whether a next start, after a crash in the middle of this one, would believe the indexes that it finds.
    is_indexed: bool,
    /// Everything before this offset was flushed.
    flushed_end: i64,
    /// Where the next segment begins.
    next: Option<i64>,
    /// The file of leader epochs can be believed about all that was flushed.
    are_epochs_known: bool,
}

/// Whether checkpoints wait for the file of leader epochs: they do where a whole file system can be flushed.
const EPOCHS_ARE_FLUSHED: bool = cfg!(target_os = "linux");

/// How far a segment was read, and what stopped that.
struct Recovered {
    active: Active,
    aborted: Vec<AbortedTransaction>,
    failure: Option<String>,
}

/// Read ahead where only headers are wanted.
const HEADERS_BYTES: usize = 8 * 1024;
/// Read ahead where whole batches are.
const BATCHES_BYTES: usize = 1024 * 1024;

struct Loader<'a> {
    home: &'a Arc<Home>,
    opening: &'a Opening<'a>,
    epochs: EpochCache,
    /// What was known to be damaged.
    quarantined: Vec<quarantine::Entry>,
    /// Only the records tell.
    epochs_lost: bool,
    replay: Replay<'a>,
    txn_indexes: Vec<Offset>,
    sealed: Vec<Sealed>,
    next_offset: i64,
    mended: bool,
}

impl Loader<'_> {
    /// Opens segment after segment; the last one becomes the active one.
    fn load(&mut self, base_offsets: &[Offset]) -> Result<Option<Active>, StorageError> {
        for (at, base_offset) in base_offsets.iter().enumerate() {
            let next = base_offsets.get(at + 1);
            let segment = Arc::new(Segment::new(Arc::clone(self.home), base_offset.0));
            self.restore_quarantine(&segment, next)?;
            // An empty segment contributes its name.
            self.next_offset = self.next_offset.max(base_offset.0);
            let flushed = next.is_some_and(|next| *next <= self.opening.recovery_point);
            let intact = self.opening.clean || flushed;
            // The last entries are written when the segment ends, which may be after all of it was flushed; the next
            // flush, of something in the next segment, covers them.
            let indexed = next.is_some_and(|next| *next < self.opening.recovery_point);
            let is_indexed = (self.opening.clean || indexed) && !self.epochs_lost;
            let opened = if is_indexed { self.open_intact(&segment, next)? } else { None };
            let active = match opened {
                Some(active) => active,
                None => {
                    let doubt = self.doubt(next, intact, indexed);
                    let (active, is_cut) = self.recover(&segment, doubt)?;
                    let is_flushed = self.opening.clean || indexed;
                    if next.is_some_and(|next| self.is_torn_off(*next, is_cut, intact, is_flushed))
                    {
                        self.delete_from(base_offsets.get(at + 1..).unwrap_or_default())?;
                        return Ok(Some(active));
                    }
                    active
                }
            };
            if next.is_none() {
                return Ok(Some(active));
            }
            self.seal(active)?;
        }
        Ok(None)
    }

    fn doubt(&self, next: Option<&Offset>, intact: bool, is_indexed: bool) -> Doubt {
        let Opening { clean, recovery_point, .. } = *self.opening;
        Doubt {
            verify_from: if clean { i64::MAX } else { recovery_point.0 },
            may_cut: !intact || next.is_none(),
            is_indexed,
            flushed_end: next.filter(|_| intact).unwrap_or(&recovery_point).0,
            next: next.map(|next| next.0),
            are_epochs_known: EPOCHS_ARE_FLUSHED && !self.epochs_lost,
        }
    }

    /// Whether the segments from `next` on cannot follow the one that has just been recovered.
    fn is_torn_off(&self, next: Offset, is_cut: bool, intact: bool, next_is_flushed: bool) -> bool {
        // A file may have been cut off between two batches: what follows it is missing, too.
        let Opening { cleaned_to, log_start_offset, .. } = *self.opening;
        let is_gap = self.next_offset < next.0 && next > cleaned_to.max(log_start_offset);
        // Or it has got back what a truncation took. What follows was written after that, and with its first flush the
        // truncation would be on disk.
        let overlaps = self.next_offset > next.0;
        (is_cut || is_gap) && !intact || overlaps && !next_is_flushed
    }

    fn seal(&mut self, active: Active) -> Result<(), StorageError> {
        if active.size == 0 && !self.sealed.is_empty() {
            return active.segment.remove_files();
        }
        self.sealed.push(active.into());
        Ok(())
    }

    fn delete_from(&self, base_offsets: &[Offset]) -> Result<(), StorageError> {
        for base_offset in base_offsets {
            let segment = Segment::new(Arc::clone(self.home), base_offset.0);
            let path = segment.path(names::LOG);
            tracing::warn!(segment = %path.display(), "deleting a segment that follows a torn one");
            segment.remove_files()?;
        }
        Ok(())
    }

    /// Opens a segment by its indexes alone; `None` when they must be rebuilt.
    fn open_intact(
        &mut self,
        segment: &Arc<Segment>,
        next: Option<&Offset>,
    ) -> Result<Option<Active>, StorageError> {
        if !self.is_txn_index_plausible(segment)? {
            return Ok(None);
        }
        let Some(mut active) = indexes::open(segment)? else { return Ok(None) };
        active.created_ms = self.home.env.now_ms();
        active.jitter_ms = self.home.env.draw_jitter_ms(self.opening.config);
        if let Some(next) = next {
            self.next_offset = next.0;
            return Ok(Some(active));
        }
        match indexes::observe_tail(&mut active, self.opening.config.index_interval_bytes) {
            // A properly closed log ends where it was flushed up to.
            Ok(next_offset)
                if self.opening.recovery_point.0 > 0
                    && next_offset > self.opening.recovery_point.0 =>
            {
                Ok(None)
            }
            Ok(next_offset) => {
                self.next_offset = next_offset;
                Ok(Some(active))
            }
            Err(StorageError::Corrupt { path, position, what }) => {
                tracing::warn!(path = %path.display(), position, what, "recovering a segment closed properly");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn is_txn_index_plausible(&self, segment: &Segment) -> Result<bool, StorageError> {
        if !self.txn_indexes.contains(&Offset(segment.base_offset)) {
            return Ok(true);
        }
        let path = segment.path(names::TXN_INDEX);
        let bytes = segment.disk().read(&path).context("read", &path)?;
        Ok(txn_index::is_plausible(&bytes, segment.base_offset))
    }

    /// Reads a segment from where its indexes can no longer be believed, completes them, quarantines what is damaged of what
    /// was flushed, and cuts the rest off where it stops making sense. Returns whether it does.
    fn recover(
        &mut self,
        segment: &Arc<Segment>,
        doubt: Doubt,
    ) -> Result<(Active, bool), StorageError> {
        let (disk, file) = (segment.disk(), segment.log_file()?);
        let path = segment.path(names::LOG);
        let len = file.metadata().context("stat", &path)?.len();
        self.mended = true;
        let before = (self.epochs.clone(), self.replay.clone(), self.next_offset);
        let mut trusted = if doubt.is_indexed { None } else { self.trusted(segment, &file, len)? };
        let begun_at = trusted.as_ref().map(|trusted| trusted.position);
        let mut recovered = self.read_from(segment, &file, doubt, &trusted)?;
        if recovered.failure.is_some() && begun_at == Some(recovered.active.size) {
            // Nothing makes sense where reading began, and only what lies before that tells where the offsets go on.
            (self.epochs, self.replay, self.next_offset) = before;
            trusted = None;
            recovered = self.read_from(segment, &file, doubt, &trusted)?;
        }
        let begins_anew = trusted.is_none();
        let Recovered { mut active, aborted, failure } = recovered;
        if let Some(what) = &failure {
            let (position, lost) = (active.size, len - active.size);
            tracing::warn!(segment = %path.display(), position, lost, what, "not a record batch");
        }
        // Behind the last of a segment's offsets there is nothing that anybody could ask for, and the next start, by the indexes
        // alone, would take it for batches.
        let is_beyond = doubt.next == Some(self.next_offset);
        if failure.is_some() && (doubt.may_cut || is_beyond) {
            disk.set_len(&file, active.size).context("truncate", &path)?;
        }
        if doubt.next.is_some() {
            active.push_largest_timestamp();
        }
        if begins_anew {
            // The next start believes what it finds of the batches before the recovery point.
            let as_a_whole = self.opening.recovery_point.0 > segment.base_offset;
            indexes::replace(segment, names::INDEX, &active.offsets, as_a_whole)?;
            indexes::replace(segment, names::TIME_INDEX, &active.times, as_a_whole)?;
        } else {
            segment.write_index(names::TIME_INDEX, &active.times)?;
            self.sync_times_before_offsets(&active)?;
            segment.write_index(names::INDEX, &active.offsets)?;
        }
        active.offsets.written();
        active.times.written();
        if !aborted.is_empty() || self.txn_indexes.contains(&Offset(segment.base_offset)) {
            segment.replace_aborted(&aborted)?;
        }
        Ok((active, failure.is_some()))
    }

    /// Reads a segment from where its indexes can no longer be believed, and once more if something of what was flushed was found
    /// to be damaged.
    fn read_from(
        &mut self,
        segment: &Arc<Segment>,
        file: &File,
        doubt: Doubt,
        trusted: &Option<Trusted>,
    ) -> Result<Recovered, StorageError> {
        let base_offset = Offset(segment.base_offset);
        if trusted.is_none() {
            self.replay.forget_more_than(base_offset);
        }
        self.replay.advance_to(base_offset, self.sealed.iter().map(Extent::from))?;
        if base_offset <= self.opening.recovery_point {
            self.replay.believe_snapshot_at(base_offset)?;
        }
        let before = (self.epochs.clone(), self.replay.clone(), self.next_offset);
        let begun = self.begin(segment, trusted.clone());
        let recovered = self.read_through(segment, file, doubt, begun)?;
        let is_damaged = recovered.failure.is_some()
            && before.2 < doubt.flushed_end
            && self.quarantine_flushed(segment, file, doubt, &before.0)?;
        if !is_damaged {
            return Ok(recovered);
        }
        (self.epochs, self.replay, self.next_offset) = before;
        let begun = self.begin(segment, trusted.clone());
        self.read_through(segment, file, doubt, begun)
    }

    /// With another index interval than the one before, there are new entries of batches before the recovery point. The
    /// next start, after a crash in the middle of this one, believes what the offsets' index says of those, and that the
    /// times' index goes as far.
    fn sync_times_before_offsets(&self, active: &Active) -> Result<(), StorageError> {
        let segment = &active.segment;
        let flushed = self.opening.recovery_point.0.saturating_sub(segment.base_offset);
        let first = active.offsets.first_unwritten();
        if first.is_none_or(|entry| i64::from(entry.relative_offset) >= flushed) {
            return Ok(());
        }
        let [_, times] = segment.open_indexes()?;
        let path = segment.path(names::TIME_INDEX);
        segment.disk().sync_data(&times).context("flush", &path)
    }

    /// Reads batches up to the first that makes no sense and is not known to be damaged.
    fn read_through(
        &mut self,
        segment: &Arc<Segment>,
        file: &File,
        doubt: Doubt,
        (mut active, mut aborted): (Active, Vec<AbortedTransaction>),
    ) -> Result<Recovered, StorageError> {
        let path = segment.path(names::LOG);
        let len = file.metadata().context("stat", &path)?.len();
        let mut source = FileSource(segment.disk(), file);
        let mut window = Window::new(&mut source, len);
        let mut known = segment.damage().unwrap_or_default().to_vec();
        while active.size < len {
            // Reading may begin within it, where the last index entry is of a batch that others contradict.
            let holds =
                |damage: &&Damage| (damage.position..damage.end_position).contains(&active.size);
            if let Some(damage) = known.iter().find(holds) {
                active.size = damage.end_position;
                self.next_offset = self.next_offset.max(damage.end_offset.0);
                continue;
            }
            let checked =
                self.check(&mut window, active.size, segment.base_offset, doubt.verify_from);
            let header = match checked.context("read", &path)? {
                Ok(header) => header,
                Err(failure) => return Ok(Recovered { active, aborted, failure: Some(failure) }),
            };
            if let Some(damage) = self.missing(active.size, &header, doubt) {
                quarantine::report_damage(None, &path, &damage);
                known.push(damage);
                segment.set_damage(known.clone());
                continue;
            }
            let (base, last) = (header.base_offset, header.last_offset());
            let is_across = (base..=last).contains(&doubt.flushed_end) && base < doubt.flushed_end;
            // Flushes end between two batches. Where this one has the right checksum, and begins where the one before it ends,
            // it is the recovery point that is not what it was.
            let is_sound = base == self.next_offset && last >= doubt.verify_from;
            if is_across && !is_sound {
                let failure = format!(
                    "offset {last} of a batch that was flushed up to {}",
                    doubt.flushed_end
                );
                return Ok(Recovered { active, aborted, failure: Some(failure) });
            }
            if let Err(failure) = self.observe_epoch(&header, doubt) {
                return Ok(Recovered { active, aborted, failure: Some(failure) });
            }
            let (position, size) = (active.size, header.size_in_bytes());
            let read = || window.get_ahead(position, size, 0).map(bytes::Bytes::copy_from_slice);
            aborted.extend(self.replay.observe(&header, read).context("read", &path)?);
            active.appended(&header, self.opening.config.index_interval_bytes);
            self.next_offset = header.next_offset();
        }
        Ok(Recovered { active, aborted, failure: None })
    }

    /// Takes in the leader epoch of a batch, unless it contradicts what was flushed.
    fn observe_epoch(&mut self, header: &BatchHeader, doubt: Doubt) -> Result<(), String> {
        let (epoch, base) =
            (LeaderEpoch(header.partition_leader_epoch), Offset(header.base_offset));
        if doubt.are_epochs_known && base.0 < doubt.flushed_end {
            let known = self.epochs.epoch_for(base).filter(|known| *known != epoch);
            let what =
                |known| format!("leader epoch {epoch} at offset {base}, which is of {known}");
            return known.map_or(Ok(()), |known| Err(what(known)));
        }
        if epoch.0 >= 0 && self.epochs.epoch_for(base) != Some(epoch) {
            // The file tells of what was appended after a truncation, and a crash has brought back what that took.
            self.epochs.truncate_from_end(Offset(self.next_offset.min(base.0)));
        }
        if self.epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
            self.epochs.assign(epoch, base);
        }
        Ok(())
    }

    /// What of a segment need not be read: what its indexes cover and the producers' newest snapshot has.
    fn trusted(
        &mut self,
        segment: &Segment,
        file: &File,
        len: u64,
    ) -> Result<Option<Trusted>, StorageError> {
        let recovery_point = self.opening.recovery_point;
        if self.epochs_lost || recovery_point.0 <= segment.base_offset {
            return Ok(None);
        }
        let known = self.replay.load_newest_up_to(recovery_point)?;
        let has_aborted = self.txn_indexes.contains(&Offset(segment.base_offset));
        trusted::open(segment, file, len, known.min(recovery_point), has_aborted)
    }

    /// A segment with its indexes as far as they are believed, transactions included.
    fn begin(
        &self,
        segment: &Arc<Segment>,
        trusted: Option<Trusted>,
    ) -> (Active, Vec<AbortedTransaction>) {
        let (segment, env) = (Arc::clone(segment), &self.home.env);
        let (now_ms, jitter_ms) = (env.now_ms(), env.draw_jitter_ms(self.opening.config));
        match trusted {
            Some(Trusted { position, offsets, times, aborted }) => {
                (Active::existing(segment, now_ms, jitter_ms, position, offsets, times), aborted)
            }
            None => {
                let (offsets, times) = (Index::empty(), Index::empty());
                (Active::existing(segment, now_ms, jitter_ms, 0, offsets, times), Vec::new())
            }
        }
    }

    /// The header of the batch at a position, or what is wrong with it.
    fn check(
        &self,
        window: &mut Window<'_>,
        position: u64,
        segment_base_offset: i64,
        verify_from: i64,
    ) -> std::io::Result<Result<BatchHeader, String>> {
        let read_ahead = if self.next_offset < verify_from { HEADERS_BYTES } else { BATCHES_BYTES };
        let header = match BatchHeader::parse(window.get_ahead(position, HEADER_LEN, read_ahead)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let size = header.size_in_bytes();
        if window.left(position) < size {
            return Ok(Err(format!("a batch of {size} bytes is cut off")));
        }
        if header.last_offset_delta < 0 || header.base_offset < self.next_offset {
            return Ok(Err(format!("offset {} follows {}", header.base_offset, self.next_offset)));
        }
        if roll::relative(segment_base_offset, header.last_offset()).is_none() {
            return Ok(Err(format!("offset {} is too large", header.last_offset())));
        }
        if header.last_offset() < verify_from {
            return Ok(Ok(header));
        }
        let bytes =
            bytes::Bytes::copy_from_slice(window.get_ahead(position, size, BATCHES_BYTES)?);
        let verified = RawBatch::parse(bytes).and_then(RawBatch::verify_crc);
        Ok(verified.map(|_| header).map_err(|error| error.to_string()))
    }

    fn finish(mut self, active: Option<Active>) -> Result<(State, Restored), StorageError> {
        let mut wanted_start = self.opening.log_start_offset.0;
        let now_ms = self.home.env.now_ms();
        let plan = |base_offset| {
            let segment = Arc::new(Segment::new(Arc::clone(self.home), base_offset));
            let jitter_ms = self.home.env.draw_jitter_ms(self.opening.config);
            Active::planned(segment, now_ms, jitter_ms)
        };
        let Some(active) = active else {
            self.replay.remove_after(Offset(-1))?;
            let state = State::empty(plan(wanted_start), EpochCache::default());
            return Ok((state, Restored::default()));
        };
        if self.next_offset < wanted_start && self.ends_where_it_did() {
            let directory = self.home.path();
            tracing::warn!(
                directory = %directory.display(), log_end_offset = self.next_offset, log_start_offset = wanted_start,
                "the log has all that it had, and is said to start behind that: going by its first segment"
            );
            wanted_start = 0;
        } else if self.next_offset < wanted_start {
            let directory = self.home.path();
            tracing::warn!(
                directory = %directory.display(), log_end_offset = self.next_offset, log_start_offset = wanted_start,
                "the log ends before it starts: its segments were lost; beginning again at its start"
            );
            for segment in self.sealed.iter().map(|sealed| &sealed.segment).chain([&active.segment])
            {
                segment.remove_files()?;
            }
            return self.finish(None);
        }
        let first = self.sealed.first().map_or(&active.segment, |sealed| &sealed.segment);
        let log_start_offset = wanted_start.max(first.base_offset);
        self.epochs.truncate_from_end(Offset(self.next_offset));
        self.epochs.truncate_from_start(Offset(log_start_offset));
        let restored = self.restore_producers(&active)?;
        let state = State {
            log_start_offset,
            log_end_offset: self.next_offset,
            // The directory flushes everything that was recovered before it opens.
            flushed_offset: self.next_offset,
            sealed: self.sealed,
            active,
            epochs: self.epochs,
        };
        Ok((state, restored))
    }

    /// Whether the recovery point of a log that was closed properly says that nothing is lost: then no start is behind its end.
    const fn ends_where_it_did(&self) -> bool {
        let Opening { clean, recovery_point, .. } = *self.opening;
        clean && recovery_point.0 > 0 && self.next_offset >= recovery_point.0
    }

    fn restore_producers(&mut self, active: &Active) -> Result<Restored, StorageError> {
        let segments = self.sealed.iter().map(Extent::from).chain([Extent::from(active)]);
        let bases: Vec<i64> = segments.clone().map(|extent| extent.base_offset().0).collect();
        self.replay.forget_more_than(Offset(self.next_offset));
        self.replay.advance_to(Offset(self.next_offset), segments)?;
        self.replay.finish(&bases)
    }
}
