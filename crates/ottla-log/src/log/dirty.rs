//! The files of a log that no flush has covered yet. They are kept open, so that the flush is told of every write that
//! failed; but only so many in a directory: beyond, one is let go of, and only a flush of the whole file system covers it.
//! As long as only little was appended, its bytes are kept, too, for the journal. Shell.
//!
//! Invariant: `held` is how many files all logs of a directory keep open for their flushes.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ottla_records::ValidBatch;

use super::append::size_of;

/// More of one log than a page the disk takes as easily where it belongs.
const END_BYTES_MAX: u64 = 4096;

/// How many files may be kept open for their flush.
#[derive(Debug)]
pub(crate) struct DirtyLimit {
    held: AtomicUsize,
    max: usize,
}

impl DirtyLimit {
    pub(crate) const fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }
}

/// What a log has written to since its last flush.
#[derive(Debug)]
pub(super) struct DirtyFiles {
    limit: Arc<DirtyLimit>,
    files: Vec<Arc<File>>,
    /// Whether some are not kept open.
    has_others: bool,
    change: Change,
}

/// What was done to a log's files since their last flush.
#[derive(Debug, Default)]
enum Change {
    #[default]
    Nothing,
    /// Only this, to the active segment.
    Appended(End),
    More,
}

/// What a segment has got at its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Of the segment.
    pub(crate) base_offset: i64,
    /// In its file.
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
}

impl End {
    /// Whether what is appended there follows it, and is still little.
    fn goes_on_with(&self, base_offset: i64, position: u64, size: u64) -> bool {
        let len = self.bytes.len() as u64;
        self.base_offset == base_offset
            && self.position + len == position
            && len + size <= END_BYTES_MAX
    }

    fn add(&mut self, batches: &[ValidBatch]) {
        for batch in batches {
            self.bytes.extend_from_slice(&batch.header().to_bytes());
            self.bytes.extend_from_slice(batch.body());
        }
    }
}

/// What a flush has to cover.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    pub(crate) files: Vec<Arc<File>>,
    /// Beside these: only a flush of the whole file system covers them.
    pub(crate) has_others: bool,
    /// What was appended, if nothing else was done and it is little.
    pub(crate) end: Option<End>,
}

impl DirtyFiles {
    pub(super) const fn new(limit: Arc<DirtyLimit>) -> Self {
        Self { limit, files: Vec::new(), has_others: false, change: Change::Nothing }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.has_others
    }

    /// A file was changed in any way.
    pub(super) fn add(&mut self, file: &Arc<File>) {
        self.change = Change::More;
        self.hold(file);
    }

    /// Batches are about to be appended to a segment, at a position of its file.
    pub(super) fn add_appended(
        &mut self,
        file: &Arc<File>,
        (base_offset, position): (i64, u64),
        batches: &[ValidBatch],
    ) {
        let end = match std::mem::take(&mut self.change) {
            Change::Nothing => Some(End { base_offset, position, bytes: Vec::new() }),
            Change::Appended(end) => Some(end),
            Change::More => None,
        };
        let goes_on = |end: &End| end.goes_on_with(base_offset, position, size_of(batches));
        if let Some(mut end) = end.filter(goes_on) {
            end.add(batches);
            self.change = Change::Appended(end);
        } else {
            self.change = Change::More;
        }
        self.hold(file);
    }

    fn hold(&mut self, file: &Arc<File>) {
        if self.files.iter().rev().any(|dirty| Arc::ptr_eq(dirty, file)) {
            return;
        }
        if self.limit.held.fetch_add(1, Ordering::Relaxed) < self.limit.max {
            self.files.push(Arc::clone(file));
        } else {
            self.limit.held.fetch_sub(1, Ordering::Relaxed);
            self.has_others = true;
        }
    }

    pub(super) fn take(&mut self) -> Unflushed {
        self.limit.held.fetch_sub(self.files.len(), Ordering::Relaxed);
        Unflushed {
            files: std::mem::take(&mut self.files),
            has_others: std::mem::take(&mut self.has_others),
            end: match std::mem::take(&mut self.change) {
                Change::Appended(end) => Some(end),
                Change::Nothing | Change::More => None,
            },
        }
    }
}

impl Drop for DirtyFiles {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_files_are_kept_open_than_allowed_and_the_rest_are_not_forgotten() {
        let limit = Arc::new(DirtyLimit::new(3));
        let file = || Arc::new(tempfile::tempfile().unwrap());
        let mut first = DirtyFiles::new(Arc::clone(&limit));
        let mut second = DirtyFiles::new(Arc::clone(&limit));
        let again = file();
        first.add(&again);
        first.add(&again);
        first.add(&file());
        second.add(&file());
        second.add(&file());
        let taken = second.take();
        assert_eq!((taken.files.len(), taken.has_others), (1, true));
        assert!(second.is_empty());
        second.add(&file());
        let taken = second.take();
        assert_eq!((taken.files.len(), taken.has_others), (1, false));
        drop(first);
        assert_eq!(limit.held.load(Ordering::Relaxed), 0, "a log that is gone holds nothing");
    }
}
