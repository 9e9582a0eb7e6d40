//! A segment in the making: what compaction keeps, under names that nobody looks for until all of it is on disk. Shell.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut, BytesMut};
use ottla_base::Offset;
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_records::BatchHeader;

use crate::environment::Home;
use crate::error::{Context, StorageError};
use crate::index::{Entry, Index};
use crate::log::{Active, Sealed};
use crate::names;
use crate::policy::roll;
use crate::segment::Segment;
use crate::txn_index::{self, AbortedTransaction};

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Output {
    active: Active,
    log: File,
    /// What the file does not have yet; it ends where `active.size` says.
    pending: BytesMut,
    buffer_bytes: usize,
    aborted: Vec<AbortedTransaction>,
    end: Offset,
    index_interval_bytes: u64,
}

/// What is there of a segment that has not its name yet; once finished it is complete and on disk.
#[derive(Debug)]
pub(crate) struct Cleaned {
    active: Active,
    end: Offset,
    has_aborted: bool,
}

impl Output {
    pub(super) fn create(
        home: &Arc<Home>,
        base_offset: Offset,
        buffer_bytes: usize,
        index_interval_bytes: u64,
    ) -> Result<Self, StorageError> {
        let segment = Arc::new(Segment::new(Arc::clone(home), base_offset.0));
        let path = names::with_ending(&segment.path(names::LOG), names::CLEANED);
        let log = segment.disk().open(&path, Open::Replace).context("create", &path)?;
        Ok(Self {
            active: Active::planned(segment, 0, 0),
            log,
            pending: BytesMut::new(),
            buffer_bytes,
            aborted: Vec::new(),
            end: Offset(0),
            index_interval_bytes,
        })
    }

    /// Appends a batch. Returns how many bytes were written to the file for it and those before.
    pub(super) fn append(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
    ) -> Result<usize, StorageError> {
        let size = self.active.size + header.size_in_bytes() as u64;
        let base_offset = self.active.segment.base_offset;
        if i32::try_from(size).is_err()
            || roll::relative(base_offset, header.last_offset()).is_none()
        {
            return Err(StorageError::TooLarge { what: "what compaction keeps" });
        }
        self.active.appended(header, self.index_interval_bytes);
        self.end = Offset(header.next_offset());
        self.pending.put_slice(&header.to_bytes());
        self.pending.put_slice(body);
        if self.pending.len() < self.buffer_bytes { Ok(0) } else { self.write_pending() }
    }

    pub(super) fn note_aborted(&mut self, aborted: AbortedTransaction) {
        self.aborted.push(aborted);
    }

    fn write_pending(&mut self) -> Result<usize, StorageError> {
        let written = self.pending.len();
        let position = self.active.size - written as u64;
        let path = self.unfinished(names::LOG);
        let disk = self.active.segment.disk();
        disk.write_all_at(&self.log, &self.pending, position).context("write", &path)?;
        self.pending.clear();
        Ok(written)
    }

    fn unfinished(&self, suffix: &str) -> PathBuf {
        names::with_ending(&self.active.segment.path(suffix), names::CLEANED)
    }

    /// Brings everything to disk. The file keeps the time at which its sources were written last: retention looks at
    /// it where records have no time.
    pub(super) fn finish(&mut self, modified: SystemTime) -> Result<(), StorageError> {
        self.write_pending()?;
        self.active.push_largest_timestamp();
        let path = self.unfinished(names::LOG);
        self.log.set_modified(modified).context("set the time of", &path)?;
        self.sync(&self.log, &path)?;
        self.write_small(names::INDEX, &all_of(&self.active.offsets))?;
        self.write_small(names::TIME_INDEX, &all_of(&self.active.times))?;
        self.write_small(names::TXN_INDEX, &txn_index::encode(&self.aborted))?;
        self.active.offsets.written();
        self.active.times.written();
        Ok(())
    }

    /// What is complete once [`Output::finish`] has succeeded, and is to be abandoned if not.
    pub(super) fn into_cleaned(self) -> Cleaned {
        let has_aborted = !self.aborted.is_empty();
        Cleaned { active: self.active, end: self.end, has_aborted }
    }

    fn write_small(&self, suffix: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.unfinished(suffix);
        let file = self.active.segment.disk().write(&path, bytes).context("write", &path)?;
        self.sync(&file, &path)
    }

    fn sync(&self, file: &File, path: &Path) -> Result<(), StorageError> {
        let synced = self.active.segment.disk().sync_data(file).context("flush", path);
        if let Err(error) = &synced {
            // The disk fails. That nothing of this was promised to anybody does not make it better.
            self.active.segment.environment().poison(error);
        }
        synced
    }
}

fn all_of<E: Entry>(index: &Index<E>) -> Vec<u8> {
    index.unwritten().1
}

impl Cleaned {
    fn disk(&self) -> &dyn Disk {
        self.active.segment.disk()
    }

    /// The offset after its last batch.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Gives the files the names by which recovery knows that they are complete, durably.
    pub(crate) fn announce(&self, directory: &Path) -> Result<(), StorageError> {
        names::CLEANED_SUFFIXES.iter().try_for_each(|suffix| {
            let path = self.active.segment.path(suffix);
            let from = names::with_ending(&path, names::CLEANED);
            self.disk()
                .rename(&from, &names::with_ending(&path, names::SWAP))
                .context("rename", &from)
        })?;
        let synced = self.disk().sync_directory(directory).context("flush", directory);
        // Whether the next start finds these names nobody knows: nothing may change any more that they would replace.
        synced.inspect_err(|error| self.active.segment.environment().poison(error))
    }

    /// Throws everything away. The log's file goes last: as long as it has not been announced, the next start throws the
    /// others away with it.
    pub(crate) fn abandon(&self) -> Result<(), StorageError> {
        names::CLEANED_SUFFIXES.iter().try_for_each(|suffix| {
            let path = self.active.segment.path(suffix);
            [names::SWAP, names::CLEANED].iter().try_for_each(|ending| {
                let path = names::with_ending(&path, ending);
                self.disk().remove_if_there(&path).map(drop).context("remove", &path)
            })
        })
    }

    /// Gives the files their names, those of the segments that they replace.
    pub(crate) fn take_place(&self) -> Result<(), StorageError> {
        names::CLEANED_SUFFIXES.iter().try_for_each(|suffix| {
            let path = self.active.segment.path(suffix);
            let from = names::with_ending(&path, names::SWAP);
            self.disk().rename(&from, &path).context("rename", &from)
        })
    }

    /// Removes an index that says nothing.
    pub(crate) fn tidy(&self) -> Result<(), StorageError> {
        if self.has_aborted { Ok(()) } else { self.active.segment.replace_aborted(&[]) }
    }

    pub(crate) fn into_sealed(self) -> Sealed {
        self.active.into()
    }
}
