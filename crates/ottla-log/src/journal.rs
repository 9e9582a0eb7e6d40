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
//! Invariants: an entry that is on the disk says of each of its logs what is in that log's file, or was before a loss of power;
//! `first <= last <= sequence` for what a file holds, and the ranges of the two files do not overlap; what is not settled is at
//! most `2 * max_bytes` and one entry.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{Offset, Uuid};
use ottla_env::Disk;
use ottla_env::disk::Open;
use parking_lot::Mutex;

use crate::directory::read_topic_id;
use crate::environment::Environment;
use crate::error::{Context, StorageError};
use crate::names::{self, DirectoryName};
use entry::Entry;
pub(crate) use entry::Tail;

/// A round with more than this is written as well where it belongs.
const ENTRY_BYTES_MAX: usize = 2 << 20;
/// What a position in an index can say.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    max_bytes: u64,
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
    /// Which entries it holds, or may hold.
    entries: Option<RangeInclusive<u64>>,
}

impl Part {
    const fn new(path: PathBuf) -> Self {
        Self { path, file: None, len: 0, entries: None }
    }

    fn holds(&self, sequence: u64) -> bool {
        self.entries.as_ref().is_some_and(|entries| entries.contains(&sequence))
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
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: &Path, max_bytes: u64) -> Self {
        let [written, settling] = paths(directory).map(Part::new);
        let state = State { written, settling, sequence: 0, can_settle: false };
        let directory = directory.to_owned();
        Self { disk, directory, max_bytes, state: Mutex::new(state) }
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
        let first = part.entries.as_ref().map_or(sequence, |entries| *entries.start());
        part.entries = Some(first..=sequence);
        let bytes = entry::encode(sequence, tails);
        if let Err(error) = self.write(part, &bytes) {
            // What is written next takes the place of it.
            tracing::warn!(%error, "nothing is noted in the journal: flushing each log where it is");
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
        self.state.lock().written.len >= self.max_bytes / 2
    }

    /// Somebody is about to flush the file system. What is noted from here on goes to the other file if that is empty, so that
    /// this one can be emptied. Returns what [`Self::settled`] is told afterwards.
    pub(crate) fn begin_settling(&self) -> u64 {
        let mut state = self.state.lock();
        let State { written, settling, .. } = &mut *state;
        if settling.entries.is_none() && written.entries.is_some() {
            std::mem::swap(written, settling);
        }
        state.sequence
    }

    /// The file system was flushed since: all entries up to `sequence` are where they belong.
    pub(crate) fn settled(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.can_settle = true;
        for part in state.both() {
            if part.entries.as_ref().is_some_and(|entries| *entries.end() <= sequence)
                && let Err(error) = self.empty(part)
            {
                // It says what is so until somebody wants it gone.
                tracing::warn!(%error, "the journal cannot be emptied");
            }
        }
    }

    /// Lets nothing of a log be in here whose latest entry this is, since it is about to be changed in another way than by
    /// appends: a crash would bring back what it was. The caller keeps others from flushing the log.
    pub(crate) fn release(&self, env: &Environment, sequence: u64) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        if !state.both().iter().any(|part| part.holds(sequence)) {
            return Ok(());
        }
        let synced = self.disk.sync_file_system(&self.directory, &env.lock);
        synced.context("flush the file system of", &self.directory)?;
        let mut held = state.both().into_iter().filter(|part| part.entries.is_some());
        held.try_for_each(|part| self.empty(part))
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

/// Writes what the last process has noted to where it belongs, if that process has not closed the directory properly, and
/// empties the journal: durably both. Nobody has changed a log since.
///
/// # Errors
/// [`StorageError::Io`] where something cannot be read or written: records would be missing that somebody relies on.
pub(crate) fn replay(env: &Environment, was_closed: bool) -> Result<(), StorageError> {
    let (disk, directory) = (&*env.disk, &env.path);
    let mut files = Vec::new();
    for path in paths(directory) {
        let Some(file) = disk.open_if_there(&path, Open::Write).context("open", &path)? else {
            continue;
        };
        let bytes =
            if was_closed { Vec::new() } else { disk.read(&path).context("read", &path)? };
        files.push((path, file, bytes));
    }
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
        disk.sync_file_system(directory, &env.lock)
            .context("flush the file system of", directory)?;
        tracing::info!(
            directory = %directory.display(), entries = entries.len(), segments = written,
            "wrote back what the journal has"
        );
    }
    for (path, file, _) in files {
        let len = file.metadata().context("look at", &path)?.len();
        if len > 0 {
            disk.set_len(&file, 0).context("empty", &path)?;
            disk.sync_data(&file).context("flush", &path)?;
        }
    }
    Ok(())
}

/// What a file of the journal holds, for whoever only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Of how many logs it has something.
    pub(crate) logs: usize,
    /// Of one of its entries there is nothing.
    pub(crate) is_damaged: bool,
}

pub(crate) fn contents(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Vec<(PathBuf, Contents)>, StorageError> {
    let mut all = Vec::new();
    for path in paths(directory) {
        let Some(file) = disk.open_if_there(&path, Open::Read).context("open", &path)? else {
            continue;
        };
        drop(file);
        let bytes = disk.read(&path).context("read", &path)?;
        let (entries, is_damaged) = entry::decode(&bytes);
        let names: BTreeSet<&str> =
            entries.iter().flat_map(|entry| &entry.tails).map(|tail| tail.log.as_str()).collect();
        all.push((path, Contents { logs: names.len(), is_damaged }));
    }
    Ok(all)
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
        let found = read_topic_id(disk, &home)?.unwrap_or(topic_id);
        let file = disk.open_if_there(&segment, Open::Write).context("open", &segment)?;
        let Some(file) = file.filter(|_| found == topic_id || topic_id == Uuid::ZERO) else {
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
