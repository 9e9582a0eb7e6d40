//! One segment's identity and files; what is written to it is its log's business. Shell.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ottla_base::{Offset, Timestamp};
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_records::{BatchHeader, RawBatch, ValidBatch};
use parking_lot::{Mutex, RwLock};

use crate::audit::Damage;
use crate::environment::{Environment, Home};
use crate::error::{Context, StorageError};
use crate::files::{Handles, Kind};
use crate::index::{self, Entry, Floor, OffsetEntry, TimeEntry};
use crate::names;
use crate::policy::roll;
use crate::scan::{Found, HeaderScan};
use crate::scrub::Scrubbed;
use crate::txn_index::{self, AbortedTransaction, Versioned};

/// Entries of a transaction index that are read at once.
const ABORTED_AT_ONCE: u32 = 512;

/// A timestamp and the last offset of the batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: Timestamp,
    pub(crate) offset: Offset,
}

/// The largest timestamp of a segment's batches, on the way through them.
#[derive(Debug)]
pub(crate) struct Newest {
    base_offset: i64,
    largest: TimeEntry,
    entry: Option<TimeEntry>,
    is_borne_out: bool,
}

impl Newest {
    pub(crate) const fn of(base_offset: i64) -> Self {
        let largest = TimeEntry { timestamp: -1, relative_offset: 0 };
        Self { base_offset, largest, entry: None, is_borne_out: false }
    }

    /// Looks for the batch that an entry names, too.
    pub(crate) fn against(self, entry: Option<TimeEntry>) -> Self {
        Self { entry, ..self }
    }

    /// The entry that it was held against, if that is not the largest timestamp and where it is.
    pub(crate) fn contradicts(&self) -> Option<TimeEntry> {
        self.entry.filter(|it| it.timestamp != self.largest.timestamp || !self.is_borne_out)
    }

    pub(crate) fn add(&mut self, header: &BatchHeader) {
        if let Some(entry) = self.entry {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            let is_named = (header.base_offset..=header.last_offset()).contains(&offset);
            self.is_borne_out |= is_named && header.max_timestamp == entry.timestamp;
        }
        if header.max_timestamp > self.largest.timestamp
            && let Some(last) = roll::relative(self.base_offset, header.last_offset())
        {
            let timestamp = header.max_timestamp;
            self.largest = TimeEntry { timestamp, relative_offset: last };
        }
    }

    /// `None` where no batch has one.
    pub(crate) fn largest(&self) -> Option<TimeEntry> {
        Some(self.largest).filter(|it| it.timestamp >= 0)
    }
}

/// A segment, shared by its log and whoever reads from it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    home: Arc<Home>,
    handles: Arc<Handles>,
    /// The last time index entry, read once, or what it should be; only for segments that are no longer written.
    largest: Mutex<Option<Option<TimeEntry>>>,
    /// The largest timestamp of the first batch; of the same segments.
    first_timestamp: OnceLock<Option<i64>>,
    /// Whether it surely has no transaction index. Held while that file is looked for or made: nobody may note that it
    /// was not there once it is.
    lacks_txn_index: Mutex<bool>,
    /// What its files' names end with since they were renamed out of the way; others may have taken those names.
    retired: RwLock<Option<String>>,
    /// What is known to be damaged, by rising position; `None` rather than nothing.
    damage: RwLock<Option<Arc<[Damage]>>>,
    scrubbed: Mutex<Option<Scrubbed>>,
}

impl Segment {
    pub(crate) fn new(home: Arc<Home>, base_offset: i64) -> Self {
        Self {
            base_offset,
            home,
            handles: Arc::default(),
            largest: Mutex::default(),
            first_timestamp: OnceLock::new(),
            lacks_txn_index: Mutex::new(false),
            retired: RwLock::new(None),
            damage: RwLock::default(),
            scrubbed: Mutex::default(),
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.home.env.disk
    }

    pub(crate) fn damage(&self) -> Option<Arc<[Damage]>> {
        self.damage.read().clone()
    }

    pub(crate) fn set_damage(&self, damage: Vec<Damage>) {
        *self.damage.write() = (!damage.is_empty()).then(|| damage.into());
    }

    /// When it was last read whole.
    pub(crate) fn scrubbed(&self) -> Option<Scrubbed> {
        *self.scrubbed.lock()
    }

    pub(crate) fn set_scrubbed(&self, scrubbed: Scrubbed) {
        *self.scrubbed.lock() = Some(scrubbed);
    }

    /// The headers between two positions, but for those of damaged batches.
    pub(crate) fn scan<'a>(
        &'a self,
        file: &'a File,
        path: &'a Path,
        position: u64,
        end: u64,
    ) -> HeaderScan<'a> {
        HeaderScan::new(self.disk(), file, path, position, end).around(self.damage())
    }

    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        self.path_with(suffix, self.retired.read().as_deref())
    }

    fn path_with(&self, suffix: &str, retired: Option<&str>) -> PathBuf {
        let path = names::segment_file(&self.home.path(), Offset(self.base_offset), suffix);
        match retired {
            Some(ending) => names::with_ending(&path, ending),
            None => path,
        }
    }

    /// Renames these of its files out of the way. Whoever still reads the segment finds them under their new names,
    /// for as long as they are there. Returns these.
    pub(crate) fn retire(&self, suffixes: &[&str]) -> Result<Vec<PathBuf>, StorageError> {
        let mut retired = self.retired.write();
        let ending = self.free_ending();
        let mut renamed = Vec::new();
        for suffix in suffixes {
            let (from, to) = (self.path_with(suffix, None), self.path_with(suffix, Some(&ending)));
            match self.disk().rename(&from, &to) {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if renamed.is_empty() || *suffix == names::LOG => {
                    return Err(error).context("rename", &from);
                }
                // Without its log file it is gone: the next start removes what is left.
                Err(error) => tracing::warn!(path = %from.display(), %error, "cannot rename"),
            }
        }
        *retired = Some(ending);
        Ok(renamed)
    }

    /// Where an earlier segment of this name waits for its deletion, its readers must not find this one.
    fn free_ending(&self) -> String {
        let is_taken =
            |ending: &String| self.disk().status(&self.path_with(names::LOG, Some(ending))).is_ok();
        let plain = names::DELETED.to_owned();
        let numbered = (1_u32..).map(|n| format!(".{n}{}", names::DELETED));
        let mut endings = [plain].into_iter().chain(numbered);
        endings.find(|ending| !is_taken(ending)).expect("there are fewer files than numbers")
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.home.env
    }

    /// The log file, opened when it is not.
    pub(crate) fn log_file(&self) -> Result<Arc<File>, StorageError> {
        self.open(Kind::Log, names::LOG, Open::Write)
    }

    /// Creates the three files of a new segment; whatever has their names is a leftover without records.
    pub(crate) fn create_files(&self) -> Result<Arc<File>, StorageError> {
        for suffix in [names::INDEX, names::TIME_INDEX] {
            let path = self.path(suffix);
            self.disk().open(&path, Open::Replace).context("create", &path)?;
        }
        self.open(Kind::Log, names::LOG, Open::Replace)
    }

    /// Forgets the open files, as when others took their names.
    pub(crate) fn close_files(&self) {
        self.home.env.files.close(&self.handles);
    }

    /// Removes everything that belongs to this segment.
    pub(crate) fn remove_files(&self) -> Result<(), StorageError> {
        self.close_files();
        for suffix in names::SEGMENT_SUFFIXES {
            let path = self.path(suffix);
            self.disk().remove_if_there(&path).context("remove", &path)?;
        }
        Ok(())
    }

    /// The last offset index entry up to a relative offset, among the first `len` in the file.
    pub(crate) fn offset_floor(
        &self,
        floor: Floor<OffsetEntry>,
        relative_offset: u32,
    ) -> Result<Option<OffsetEntry>, StorageError> {
        match floor {
            Floor::Known(entry) => Ok(entry),
            Floor::InFile(0) => Ok(None),
            Floor::InFile(len) => {
                let file = self.open(Kind::Index, names::INDEX, Open::Write)?;
                index::floor_in_file(self.disk(), &file, len, |e: &OffsetEntry| {
                    e.relative_offset <= relative_offset
                })
                .context("read", &self.path(names::INDEX))
            }
        }
    }

    /// The same of an offset that is `part` of all on the way to the segment's end, and the entry behind it if that is
    /// known, too.
    pub(crate) fn offset_neighbours(
        &self,
        floor: Floor<OffsetEntry>,
        relative_offset: u32,
        part: f64,
    ) -> Result<(Option<OffsetEntry>, Option<OffsetEntry>), StorageError> {
        let Floor::InFile(len @ 1..) = floor else {
            return Ok((self.offset_floor(floor, relative_offset)?, None));
        };
        let file = self.open(Kind::Index, names::INDEX, Open::Write)?;
        let guess = index::guess(len, part);
        let found = index::floor_in_file_near(self.disk(), &file, len, guess, |e: &OffsetEntry| {
            e.relative_offset <= relative_offset
        });
        let found = found.context("read", &self.path(names::INDEX))?;
        Ok((found.floor, found.next))
    }

    /// The first offset index entry at or behind a position, among the first `len` in the file.
    pub(crate) fn offset_ceiling(
        &self,
        len: u32,
        position: u64,
    ) -> Result<Option<OffsetEntry>, StorageError> {
        let file = self.open(Kind::Index, names::INDEX, Open::Write)?;
        index::ceiling_in_file(self.disk(), &file, len, |entry: &OffsetEntry| {
            u64::from(entry.position) < position
        })
        .context("read", &self.path(names::INDEX))
    }

    /// The last time index entry up to a timestamp, among the first `len` in the file.
    pub(crate) fn time_floor(
        &self,
        floor: Floor<TimeEntry>,
        timestamp: i64,
    ) -> Result<Option<TimeEntry>, StorageError> {
        match floor {
            Floor::Known(entry) => Ok(entry),
            Floor::InFile(0) => Ok(None),
            Floor::InFile(len) => {
                let (file, path) = self.open_unshared(names::TIME_INDEX)?;
                index::floor_in_file(self.disk(), &file, len, |e: &TimeEntry| {
                    e.timestamp <= timestamp
                })
                .context("read", &path)
            }
        }
    }

    /// The last of `len` time index entries: the largest timestamp of a closed segment.
    pub(crate) fn largest(&self, len: u32) -> Result<Option<TimeEntry>, StorageError> {
        if let Some(largest) = *self.largest.lock() {
            return Ok(largest);
        }
        let largest = self.last_time_entry(len)?;
        Ok(*self.largest.lock().get_or_insert(largest))
    }

    /// The last of `len` time index entries, as it is on disk.
    pub(crate) fn last_time_entry(&self, len: u32) -> Result<Option<TimeEntry>, StorageError> {
        let Some(last) = len.checked_sub(1) else { return Ok(None) };
        let (file, path) = self.open_unshared(names::TIME_INDEX)?;
        let entries = index::read_entries(self.disk(), &file, last, 1);
        Ok(entries.context("read", &path)?.first().copied())
    }

    /// The largest timestamp of a closed segment; where its records have none, when it was written.
    pub(crate) fn newest_ms(&self, len: u32) -> Result<i64, StorageError> {
        match self.largest(len)?.filter(|entry| entry.timestamp >= 0) {
            Some(entry) => Ok(entry.timestamp),
            None => self.modified_ms(),
        }
    }

    /// The same for who deletes the segment if it is old enough: a time index has no checksum, so the batches are asked.
    pub(crate) fn newest_ms_by_batches(
        &self,
        time_entries: u32,
        offset_entries: u32,
        size: u64,
    ) -> Result<i64, StorageError> {
        let Some(entry) = self.largest(time_entries)? else { return self.modified_ms() };
        if self.bears_out(&entry, offset_entries, size)? {
            return Ok(entry.timestamp);
        }
        let largest = self.largest_by_batches(size)?;
        // What is damaged may be what the entry is of.
        let is_known =
            |largest: &TimeEntry| self.damage().is_none() || largest.timestamp > entry.timestamp;
        if let Some(largest) = largest.filter(is_known) {
            self.correct_largest(&entry, largest);
        }
        self.newest_ms(time_entries)
    }

    /// What the last entry of the time index of a closed segment should be.
    pub(crate) fn largest_by_batches(&self, size: u64) -> Result<Option<TimeEntry>, StorageError> {
        let (file, path) = (self.log_file()?, self.path(names::LOG));
        let mut scan = self.scan(&file, &path, 0, size);
        let mut newest = Newest::of(self.base_offset);
        while let Some(found) = scan.next()? {
            newest.add(&found.header);
        }
        Ok(newest.largest())
    }

    /// Goes by the batches from here on.
    pub(crate) fn correct_largest(&self, entry: &TimeEntry, largest: TimeEntry) {
        let index = self.path(names::TIME_INDEX);
        tracing::warn!(index = %index.display(), ?entry, ?largest, "a damaged time index: going by the batches");
        *self.largest.lock() = Some(Some(largest));
    }

    /// The largest timestamp of the first batch that is not damaged.
    pub(crate) fn first_timestamp(&self, size: u64) -> Result<Option<i64>, StorageError> {
        let (file, path) = (self.log_file()?, self.path(names::LOG));
        let first = self.scan(&file, &path, 0, size).next()?;
        Ok(first.map(|found| found.header.max_timestamp))
    }

    /// The same of a closed segment, read once. Not while it is damaged: what is sound again counts again.
    pub(crate) fn first_timestamp_of_sealed(&self, size: u64) -> Result<Option<i64>, StorageError> {
        if let Some(first) = self.first_timestamp.get() {
            return Ok(*first);
        }
        let first = self.first_timestamp(size)?;
        if self.damage().is_some() {
            return Ok(first);
        }
        Ok(*self.first_timestamp.get_or_init(|| first))
    }

    /// When the log file was last written, for segments whose records have no timestamps.
    pub(crate) fn modified_ms(&self) -> Result<i64, StorageError> {
        let modified = self.modified()?;
        let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn modified(&self) -> Result<SystemTime, StorageError> {
        let path = self.path(names::LOG);
        Ok(self.disk().status(&path).context("stat", &path)?.modified)
    }

    /// The transactions whose abort marker is in here.
    pub(crate) fn aborted_transactions(&self) -> Result<Vec<AbortedTransaction>, StorageError> {
        let Some((file, path)) = self.open_txn_index()? else { return Ok(Vec::new()) };
        let len = file.metadata().context("stat", &path)?.len();
        let len = usize::try_from(len).unwrap_or(0);
        let bytes = self.disk().read_up_to(&file, 0, len).context("read", &path)?;
        let unknown = || StorageError::corrupt(&path, 0, "entries of an unknown version");
        txn_index::decode(&bytes).ok_or_else(unknown)
    }

    /// Whether there is a transaction index.
    pub(crate) fn has_aborted(&self) -> Result<bool, StorageError> {
        Ok(self.open_txn_index()?.is_some())
    }

    /// Those of them that have records in a range of offsets, and whether none in a later segment has. What is read is what
    /// may be in the range, some entries at a time.
    pub(crate) fn aborted_in(
        &self,
        range: &Range<Offset>,
    ) -> Result<(Vec<AbortedTransaction>, bool), StorageError> {
        let mut found = Vec::new();
        let Some((file, path)) = self.open_txn_index()? else { return Ok((found, false)) };
        let len = file.metadata().context("stat", &path)?.len() / txn_index::ENTRY_LEN as u64;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        // In the order of their markers.
        let ends_before = |entry: &Versioned| entry.transaction.last_offset < range.start;
        let first = index::count_in_file(self.disk(), &file, len, ends_before);
        let mut first = first.context("read", &path)?;
        while first < len {
            let count = (len - first).min(ABORTED_AT_ONCE);
            let entries = index::read_entries::<Versioned>(self.disk(), &file, first, count);
            for entry in entries.context("read", &path)? {
                if !entry.may_be_in(self.base_offset) {
                    return Err(StorageError::corrupt(&path, 0, format!("no entry is {entry}")));
                }
                let aborted = entry.transaction;
                if aborted.overlaps(range) {
                    found.push(aborted);
                }
                if aborted.last_stable_offset >= range.end {
                    // Later markers end transactions that began after that.
                    return Ok((found, true));
                }
            }
            first += count;
        }
        Ok((found, false))
    }

    /// `None` if there is none, which is remembered.
    pub(crate) fn open_txn_index(&self) -> Result<Option<(File, PathBuf)>, StorageError> {
        let mut lacks_txn_index = self.lacks_txn_index.lock();
        if *lacks_txn_index {
            return Ok(None);
        }
        let retired = self.retired.read();
        let path = || self.path_with(names::TXN_INDEX, retired.as_deref());
        loop {
            let looked_at = path();
            let opened = self.disk().open_if_there(&looked_at, Open::Read);
            if let Some(file) = opened.context("open", &looked_at)? {
                return Ok(Some((file, looked_at)));
            }
            // It says nothing if the directory got another name meanwhile.
            if path() == looked_at {
                *lacks_txn_index = true;
                return Ok(None);
            }
        }
    }

    /// The transaction index, to add transactions to whose markers are about to be appended. Returns how long it is, too.
    pub(crate) fn open_aborted(&self) -> Result<(File, u64), StorageError> {
        let path = self.path(names::TXN_INDEX);
        let mut lacks_txn_index = self.lacks_txn_index.lock();
        *lacks_txn_index = false;
        let file = self.disk().open(&path, Open::Create).context("open", &path)?;
        let len = file.metadata().context("stat", &path)?.len();
        Ok((file, len))
    }

    /// How many entries of the transaction index stay when it is to tell only of the transactions whose markers are before an
    /// offset; `None` if all do.
    pub(crate) fn aborted_before(&self, offset: Offset) -> Result<Option<usize>, StorageError> {
        let aborted = self.aborted_transactions()?;
        let kept = aborted.iter().take_while(|aborted| aborted.last_offset < offset).count();
        Ok((kept < aborted.len()).then_some(kept))
    }

    /// Cuts the transaction index off behind so many entries. That takes no room.
    pub(crate) fn cut_aborted(&self, kept: usize) -> Result<(), StorageError> {
        if kept == 0 {
            return self.replace_aborted(&[]);
        }
        let path = self.path(names::TXN_INDEX);
        let file = self.disk().open(&path, Open::Write).context("open", &path)?;
        let len = (kept * txn_index::ENTRY_LEN) as u64;
        self.disk().set_len(&file, len).context("truncate", &path)
    }

    /// Lets the transaction index say this, and nothing else.
    pub(crate) fn replace_aborted(
        &self,
        aborted: &[AbortedTransaction],
    ) -> Result<(), StorageError> {
        let path = self.path(names::TXN_INDEX);
        let mut lacks_txn_index = self.lacks_txn_index.lock();
        *lacks_txn_index = false;
        if aborted.is_empty() {
            return self.disk().remove_if_there(&path).map(drop).context("remove", &path);
        }
        self.disk().write(&path, &txn_index::encode(aborted)).map(drop).context("write", &path)
    }

    /// Lets the transaction index be what is in another file, or nothing.
    pub(crate) fn put_aborted(&self, from: &Path, is_empty: bool) -> Result<(), StorageError> {
        let path = self.path(names::TXN_INDEX);
        let mut lacks_txn_index = self.lacks_txn_index.lock();
        *lacks_txn_index = false;
        if !is_empty {
            return self.disk().rename(from, &path).context("replace", &path);
        }
        self.disk().remove_if_there(from).context("remove", from)?;
        self.disk().remove_if_there(&path).map(drop).context("remove", &path)
    }

    /// Writes index entries at the end of an index file.
    pub(crate) fn write_index<E: Entry>(
        &self,
        suffix: &str,
        entries: &index::Index<E>,
    ) -> Result<(), StorageError> {
        let (position, bytes) = entries.unwritten();
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.path(suffix);
        let file = self.disk().open(&path, Open::Create).context("open", &path)?;
        self.disk().write_all_at(&file, &bytes, position).context("write", &path)
    }

    /// Durably replaces the last of so many entries of the time index.
    pub(crate) fn write_largest(&self, len: u32, largest: &TimeEntry) -> Result<(), StorageError> {
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        let path = self.path(names::TIME_INDEX);
        let file = self.disk().open(&path, Open::Write).context("open", &path)?;
        let mut bytes = Vec::new();
        largest.encode(&mut bytes);
        let position = u64::from(last) * TimeEntry::SIZE as u64;
        self.disk().write_all_at(&file, &bytes, position).context("write", &path)?;
        self.disk().sync_data(&file).context("flush", &path)
    }

    /// Both index files of a segment with records.
    pub(crate) fn open_indexes(&self) -> Result<[File; 2], StorageError> {
        let open = |suffix| {
            let path = self.path(suffix);
            self.disk().open(&path, Open::Create).context("open", &path)
        };
        Ok([open(names::INDEX)?, open(names::TIME_INDEX)?])
    }

    /// The first batch from `position` on that ends at or after `offset`. A position that comes from an index is
    /// only believed if a batch begins there: otherwise the search starts again from the front.
    pub(crate) fn find(
        &self,
        file: &File,
        position: u64,
        size: u64,
        offset: i64,
    ) -> Result<Option<Found>, StorageError> {
        let path = self.path(names::LOG);
        let search = |from| self.scan(file, &path, from, size).find(offset);
        if position == 0 {
            return search(0);
        }
        match search(position) {
            Err(StorageError::Corrupt { .. }) => {}
            Ok(None) if position >= size => {}
            Ok(Some(found)) if found.position == position && found.header.base_offset > offset => {}
            found => return found,
        }
        tracing::warn!(segment = %path.display(), position, "an index entry points nowhere; scanning the segment");
        search(0)
    }

    /// The batch that begins at a position, if one does that is not known to be damaged.
    pub(crate) fn batch_at(
        &self,
        file: &File,
        position: u64,
        size: u64,
    ) -> Result<Option<Found>, StorageError> {
        let path = self.path(names::LOG);
        let found = self.scan(file, &path, position, size).one_header().next()?;
        Ok(found.filter(|found| found.position == position))
    }

    /// Where a batch begins, so that all before it end before an offset. An index is a hint: what it says is believed if
    /// there is a batch that begins at that offset or before.
    pub(crate) fn begin_of(
        &self,
        file: &File,
        floor: Floor<OffsetEntry>,
        offset: Offset,
        size: u64,
    ) -> Result<u64, StorageError> {
        let Some(relative_offset) = roll::relative(self.base_offset, offset.0) else {
            return Ok(0);
        };
        let Some(entry) = self.offset_floor(floor, relative_offset)? else { return Ok(0) };
        let position = u64::from(entry.position);
        match self.batch_at(file, position, size) {
            Ok(Some(found)) if found.header.base_offset <= offset.0 => Ok(position),
            Ok(_) | Err(StorageError::Corrupt { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether an entry of the time index is what it was: the batch that it names has its timestamp.
    pub(crate) fn bears_out(
        &self,
        entry: &TimeEntry,
        offset_entries: u32,
        size: u64,
    ) -> Result<bool, StorageError> {
        let offset = self.base_offset + i64::from(entry.relative_offset);
        let file = self.log_file()?;
        let position = self.begin_of(&file, Floor::InFile(offset_entries), Offset(offset), size)?;
        let found = self.find(&file, position, size, offset)?;
        let of_batch = found.filter(|found| found.header.base_offset <= offset);
        Ok(of_batch.is_some_and(|found| found.header.max_timestamp == entry.timestamp))
    }

    /// A batch that a scan has found, all of it, if it fits its checksum.
    pub(crate) fn read_batch(
        &self,
        file: &File,
        found: &Found,
    ) -> Result<ValidBatch, StorageError> {
        let path = self.path(names::LOG);
        let size = found.header.size_in_bytes();
        let bytes = self.disk().read_up_to(file, found.position, size).context("read", &path)?;
        let batch = RawBatch::parse(bytes.into()).and_then(RawBatch::verify_crc);
        batch.map_err(|error| StorageError::corrupt(&path, found.position, error))
    }

    fn open(&self, kind: Kind, suffix: &str, how: Open) -> Result<Arc<File>, StorageError> {
        let mut path = None;
        let opened = self.home.env.files.get(&self.handles, kind, || {
            // Until the file is open its name must not become another one's.
            let retired = self.retired.read();
            self.disk().open(path.insert(self.path_with(suffix, retired.as_deref())), how)
        });
        opened.map_err(|source| StorageError::Io {
            action: "open",
            path: path.unwrap_or_default(),
            source,
        })
    }
}

impl Segment {
    /// Opens a file for one use.
    fn open_unshared(&self, suffix: &str) -> Result<(File, PathBuf), StorageError> {
        let retired = self.retired.read();
        let path = self.path_with(suffix, retired.as_deref());
        Ok((self.disk().open(&path, Open::Read).context("open", &path)?, path))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.close_files();
    }
}
