//! The files of a log that no flush has covered yet. They are kept open, so that the flush is told of every write that
//! failed; but only so many in a directory: beyond, one is let go of, and only a flush of the whole file system covers it.
//! Shell.
//!
//! Invariant: `held` is how many files all logs of a directory keep open for their flushes.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}

/// What a flush has to cover.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    pub(crate) files: Vec<Arc<File>>,
    /// Beside these: only a flush of the whole file system covers them.
    pub(crate) has_others: bool,
}

impl DirtyFiles {
    pub(super) const fn new(limit: Arc<DirtyLimit>) -> Self {
        Self { limit, files: Vec::new(), has_others: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.has_others
    }

    pub(super) fn add(&mut self, file: &Arc<File>) {
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
        let has_others = std::mem::take(&mut self.has_others);
        Unflushed { files: std::mem::take(&mut self.files), has_others }
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
