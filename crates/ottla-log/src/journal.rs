//! The journal of a log directory: what many logs have appended since their last flush, once more and side by side, so that
//! one flush of one file covers all of them. Shell; `journal/entry.rs` has the format.
//!
//! A disk writes a page of each of a thousand files in a thousand requests, and one file in a few. So a round of flushes with
//! many files copies the ends of their logs here, and the files themselves follow later, when the whole file system is flushed:
//! at a checkpoint, or when the journal is long. Only appends are in it; whoever changes a log otherwise lets it leave first
//! ([`Journal::release`]). After a crash, [`replay`] writes back what is here before anybody looks at a log.
//!
//! There are two files, of which one is written while the other is settled. A file that is settled is written again from its
//! beginning, over blocks that it has: such a write changes nothing of the file but its bytes, and is flushed in one request.
//! Until the first entry is there again, it has none.
//!
//! Who flushes the file system for it has that to himself: the system tells of a page that it has lost once, and whoever was not
//! told must not empty what still has it. So nothing is emptied either once the directory is offline.
//!
//! Invariants: an entry that is on the disk says of each of its logs what is in that log's file, or was before a loss of power;
//! `first <= last <= sequence` for what a file holds, and the ranges of the two files do not overlap; each file is
//! shorter than `max_bytes` and an entry.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{Offset, Uuid};
use ottla_env::disk::Open;
use ottla_env::{Disk, Random};
use parking_lot::{Mutex, MutexGuard};

use crate::directory::read_topic_id;
use crate::environment::Environment;
use crate::error::{Context, StorageError};
use crate::names::{self, DirectoryName};
use entry::Entry;
pub(crate) use entry::Tail;

/// A round with more than this is written as well where it belongs.
const ENTRY_BYTES_MAX: usize = 2 << 20;
/// Each of the two files is no more than such a part of the disk.
const DISK_PARTS: u64 = 64;
/// What a position in an index can say.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    directory: PathBuf,
    max_bytes: u64,
    /// Held during a flush of the file system, before the state.
    flushing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The file that is written.
    written: Part,
    /// The other one.
    settling: Part,
    /// Of the latest entry, or of one that could not be written.
    sequence: u64,
    /// Whether the platform can flush a whole file system: nobody could settle anything without that.
    can_settle: bool,
}

impl State {
    /// Lets the other file be written if it is empty, so that this one can be emptied. Returns the latest entry.
    fn turn(&mut self) -> u64 {
        if self.settling.entries.is_none() && self.written.entries.is_some() {
            std::mem::swap(&mut self.written, &mut self.settling);
        }
        self.sequence
    }

    const fn both(&mut self) -> [&mut Part; 2] {
        [&mut self.written, &mut self.settling]
    }
}

/// One of the two files.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    /// That of its entries.
    mark: u64,
    /// Which entries it holds, or may hold.
    entries: Option<RangeInclusive<u64>>,
}

impl Part {
    const fn new(path: PathBuf) -> Self {
        Self { path, file: None, len: 0, mark: 0, entries: None }
    }

    /// Whether it may have something of a log whose latest entry this is.
    fn may_hold(&self, sequence: u64) -> bool {
        self.entries.as_ref().is_some_and(|entries| *entries.start() <= sequence)
    }

    fn is_older_than(&self, sequence: u64) -> bool {
        self.entries.as_ref().is_some_and(|entries| *entries.end() <= sequence)
    }
}

/// What has come of an attempt to write an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Also of one that failed: its bytes may be there.
    pub(crate) sequence: u64,
    pub(crate) is_durable: bool,
}

impl Journal {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        directory: &Path,
        max_bytes: u64,
    ) -> Self {
        // On a small disk there are better uses for room. Some file systems do not say how large they are.
        let total = disk.space(directory).map_or(0, |space| space.total);
        let max_bytes = if total > 0 { max_bytes.min(total / DISK_PARTS) } else { max_bytes };
        let [written, settling] = paths(directory).map(Part::new);
        let state = State { written, settling, sequence: 0, can_settle: false };
        let directory = directory.to_owned();
        let (flushing, state) = (Mutex::default(), Mutex::new(state));
        Self { disk, random, directory, max_bytes, flushing, state }
    }

    /// Makes the ends of these logs durable, in one entry. `None` if nothing was tried: there is too much of it, or no room
    /// before something is settled, or nobody knows yet that anything could be. What cannot be written is not durable, and
    /// takes nothing with it; a sync that fails is an error, and nobody's second try.
    ///
    /// The caller keeps others from flushing or changing these logs.
    pub(crate) fn append(&self, tails: &[Tail<'_>]) -> Result<Option<Noted>, StorageError> {
        let size: usize = tails.iter().map(|tail| tail.bytes.len()).sum();
        let mut state = self.state.lock();
        let is_long = state.written.len >= self.max_bytes;
        if !state.can_settle || size > ENTRY_BYTES_MAX || is_long {
            return Ok(None);
        }
        state.sequence += 1;
        let sequence = state.sequence;
        let part = &mut state.written;
        if part.len == 0 {
            let mut mark = [0; 8];
            if self.random.fill(&mut mark).is_err() {
                return Ok(None);
            }
            part.mark = u64::from_be_bytes(mark);
        }
        let first = part.entries.as_ref().map_or(sequence, |entries| *entries.start());
        part.entries = Some(first..=sequence);
        let bytes = entry::encode(part.mark, sequence, tails);
        if let Err(error) = self.write(part, &bytes) {
            // What is written next takes the place of it. Of a full disk others tell.
            if !error.is_full() {
                tracing::warn!(%error, "nothing is noted in the journal: flushing each log where it is");
            }
            return Ok(Some(Noted { sequence, is_durable: false }));
        }
        if let Some(file) = &part.file {
            self.disk.sync_data(file).context("flush", &part.path)?;
        }
        part.len += bytes.len() as u64;
        Ok(Some(Noted { sequence, is_durable: true }))
    }

    fn write(&self, part: &mut Part, bytes: &[u8]) -> Result<(), StorageError> {
        let file = match &part.file {
            Some(file) => file,
            None => part.file.insert(self.create(&part.path)?),
        };
        self.disk.write_all_at(file, bytes, part.len).context("write", &part.path)
    }

    /// Its name is on the disk before anybody relies on what it holds.
    fn create(&self, path: &Path) -> Result<File, StorageError> {
        let file = self.disk.open(path, Open::Create).context("create", path)?;
        self.disk.sync_directory(&self.directory).context("flush", &self.directory)?;
        Ok(file)
    }

    /// Whether so much waits that it should be settled before nothing more fits.
    pub(crate) fn is_settling_due(&self) -> bool {
        let written = &self.state.lock().written;
        written.entries.is_some() && written.len >= self.max_bytes / 2
    }

    /// Flushes the file system, and empties what everything in it is where it belongs of by then. `false` where the platform
    /// cannot.
    pub(crate) fn sync_file_system(&self, env: &Environment) -> Result<bool, StorageError> {
        let flushing = self.flushing.lock();
        let sequence = self.state.lock().turn();
        if !self.sync(env, &flushing)? {
            return Ok(false);
        }
        let mut state = self.state.lock();
        state.can_settle = true;
        if let Err(error) = self.empty_up_to(&mut state, sequence) {
            // It says what is so until somebody wants it gone.
            tracing::warn!(%error, "the journal cannot be emptied");
        }
        Ok(true)
    }

    /// Lets nothing of a log be in here whose latest entry this is, since it is about to be changed in another way than by
    /// appends: a crash would bring back what it was. The caller keeps others from flushing the log.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`], or [`StorageError::Io`]: what it holds still says what is so.
    pub(crate) fn release(&self, env: &Environment, sequence: u64) -> Result<(), StorageError> {
        let holds = |state: &mut State| state.both().iter().any(|part| part.may_hold(sequence));
        if !holds(&mut self.state.lock()) {
            return Ok(());
        }
        let flushing = self.flushing.lock();
        let settled = self.state.lock().turn();
        self.sync(env, &flushing)?;
        let mut state = self.state.lock();
        self.empty_up_to(&mut state, settled)?;
        if holds(&mut state) {
            // Both files were in use, and more was noted: not this time.
            self.sync(env, &flushing)?;
            self.empty_up_to(&mut state, u64::MAX)?;
        }
        Ok(())
    }

    /// Flushes the file system; `false` where the platform cannot.
    fn sync(
        &self,
        env: &Environment,
        _flushing: &MutexGuard<'_, ()>,
    ) -> Result<bool, StorageError> {
        env.check_health()?;
        match self.disk.sync_file_system(&self.directory, &env.lock) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error).context("flush the file system of", &self.directory),
        }
        // Somebody else may have been told of what was lost.
        env.check_health()?;
        Ok(true)
    }

    /// Empties the files that hold nothing later, the one with the older entries first: of a log that is in both, those that are
    /// left are the later ones.
    fn empty_up_to(&self, state: &mut State, sequence: u64) -> Result<(), StorageError> {
        let [written, settling] = state.both();
        let old = [settling, written].into_iter().filter(|part| part.is_older_than(sequence));
        old.map(|part| self.empty(part)).fold(Ok(()), Result::and)
    }

    /// Durably, before anything else may change: an entry that came back would undo that. Without its first header, a file has
    /// none, and torn this one is no header either.
    fn empty(&self, part: &mut Part) -> Result<(), StorageError> {
        // Nothing more is written behind a header that may be gone.
        part.len = self.max_bytes;
        if let Some(file) = &part.file {
            let written = self.disk.write_all_at(file, &[0; entry::HEADER_LEN], 0);
            written.context("empty", &part.path)?;
            self.disk.sync_data(file).context("flush", &part.path)?;
        }
        (part.len, part.entries) = (0, None);
        Ok(())
    }
}

fn paths(directory: &Path) -> [PathBuf; 2] {
    names::JOURNALS.map(|name| directory.join(name))
}

/// Empties the journal of a directory that was closed properly: durably, while that can still be seen. Whatever another program
/// has done to the logs since, that does not know of a journal, stays.
pub(crate) fn discard(disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
    for path in paths(directory) {
        let file = disk.open_if_there(&path, Open::Write).context("open", &path)?;
        file.map_or(Ok(()), |file| empty(disk, &path, &file))?;
    }
    Ok(())
}

/// Writes what the last process has noted to where it belongs, since it has not closed the directory, and empties the journal:
/// durably both. Nobody has changed a log since.
///
/// # Errors
/// [`StorageError::Io`] where something cannot be read or written: records would be missing that somebody relies on.
pub(crate) fn replay(env: &Environment) -> Result<(), StorageError> {
    let (disk, directory) = (&*env.disk, &env.path);
    let files = read(disk, directory, Open::Write)?;
    let mut entries = Vec::new();
    for (path, _, bytes) in &files {
        let (found, is_damaged) = entry::decode(bytes);
        if is_damaged {
            tracing::error!(journal = %path.display(), "an entry of the journal is damaged: what it has noted is lost where a log lacks it");
        }
        entries.extend(found);
    }
    if !entries.is_empty() {
        entries.sort_by_key(|entry| entry.sequence);
        let written = write_back(disk, directory, &entries)?;
        let synced = disk.sync_file_system(directory, &env.lock);
        synced.context("flush the file system of", directory)?;
        tracing::info!(
            directory = %directory.display(), entries = entries.len(), segments = written,
            "wrote back what the journal has"
        );
    }
    files.iter().try_for_each(|(path, file, _)| empty(disk, path, file))
}

/// Those of the two files that are there, and what they hold.
fn read(
    disk: &dyn Disk,
    directory: &Path,
    how: Open,
) -> Result<Vec<(PathBuf, File, Vec<u8>)>, StorageError> {
    let mut files = Vec::new();
    for path in paths(directory) {
        if let Some(file) = disk.open_if_there(&path, how).context("open", &path)? {
            let bytes = disk.read(&path).context("read", &path)?;
            files.push((path, file, bytes));
        }
    }
    Ok(files)
}

fn empty(disk: &dyn Disk, path: &Path, file: &File) -> Result<(), StorageError> {
    if file.metadata().context("look at", path)?.len() > 0 {
        disk.set_len(file, 0).context("empty", path)?;
        disk.sync_data(file).context("flush", path)?;
    }
    Ok(())
}

/// What a file of the journal holds, for whoever only looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) path: PathBuf,
    /// The names of the logs that it has something of.
    pub(crate) logs: BTreeSet<String>,
    /// Of one of its entries there is nothing.
    pub(crate) is_damaged: bool,
}

pub(crate) fn contents(disk: &dyn Disk, directory: &Path) -> Result<Vec<Contents>, StorageError> {
    let contents = |(path, _, bytes): (PathBuf, File, Vec<u8>)| {
        let (entries, is_damaged) = entry::decode(&bytes);
        let tails = entries.into_iter().flat_map(|entry| entry.tails);
        Contents { path, logs: tails.map(|tail| tail.log).collect(), is_damaged }
    };
    Ok(read(disk, directory, Open::Read)?.into_iter().map(contents).collect())
}

/// Returns how many segments were written to.
fn write_back(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[Entry<'_>],
) -> Result<usize, StorageError> {
    // By segment, each in the order in which it was appended.
    let mut segments: BTreeMap<(&str, Uuid, i64), Vec<&Tail<'_>>> = BTreeMap::new();
    let may_be = |tail: &&Tail<'_>| is_log(&tail.log) && tail.end_position() <= SEGMENT_BYTES_MAX;
    for tail in entries.iter().flat_map(|entry| &entry.tails).filter(may_be) {
        segments.entry((&tail.log, tail.topic_id, tail.base_offset)).or_default().push(tail);
    }
    let mut written = 0;
    for ((log, topic_id, base_offset), tails) in segments {
        let home = directory.join(log);
        let segment = names::segment_file(&home, Offset(base_offset), names::LOG);
        let is_same = read_topic_id(disk, &home)?.is_none_or(|found| found == topic_id);
        let file = disk.open_if_there(&segment, Open::Write).context("open", &segment)?;
        let Some(file) = file.filter(|_| is_same) else {
            // Retention, or whoever has deleted the topic, has taken it away.
            tracing::debug!(segment = %segment.display(), "the journal has something of a segment that is gone");
            continue;
        };
        for tail in tails {
            disk.write_all_at(&file, &tail.bytes, tail.position).context("write", &segment)?;
        }
        written += 1;
    }
    Ok(written)
}

/// Whether a directory may be a log's. That of a copy in the making is not: what it lacks after a crash is copied again.
fn is_log(name: &str) -> bool {
    matches!(DirectoryName::parse(name), DirectoryName::Log(_)) && !name.contains('/')
}

#[cfg(test)]
mod tests;
