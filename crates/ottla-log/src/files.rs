//! Files that are opened when they are needed and closed when too many are open. Shell.
//!
//! Each segment keeps its own handles; the queue here decides whose are closed first (second chance: a segment that
//! was used since it was last looked at goes to the back). A handle that a read or a pending flush still holds is
//! never closed: for a flush that would lose the kernel's report of a failed write.
//!
//! Invariants: `open` counts the handles that segments keep; beyond `max` only those in use stay. The queue has at most
//! `2 * max` entries, or twice as many as there were segments when it was last rid of those that are gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A segment's handles, which the cache may close.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    slots: Mutex<Slots>,
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Slots {
    log: Option<Arc<File>>,
    index: Option<Arc<File>>,
    queued: bool,
}

/// Which of a segment's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Index,
}

impl Slots {
    fn slot(&mut self, kind: Kind) -> &mut Option<Arc<File>> {
        match kind {
            Kind::Log => &mut self.log,
            Kind::Index => &mut self.index,
        }
    }

    fn close_idle(&mut self) -> usize {
        let mut closed = 0;
        for slot in [&mut self.log, &mut self.index] {
            if slot.as_ref().is_some_and(|file| Arc::strong_count(file) == 1) {
                *slot = None;
                closed += 1;
            }
        }
        closed
    }

    fn count(&self) -> usize {
        usize::from(self.log.is_some()) + usize::from(self.index.is_some())
    }
}

/// The bound on open files, shared by all logs of a directory.
#[derive(Debug)]
pub(crate) struct FileCache {
    max: usize,
    open: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Weak<Handles>>,
    /// How many there were when those were dropped that are gone.
    lived: usize,
}

impl Queue {
    /// As long as few files are open nobody takes anything from the front: segments that are gone would stay for ever.
    fn push(&mut self, handles: &Arc<Handles>, max: usize) {
        self.segments.push_back(Arc::downgrade(handles));
        if self.segments.len() > 2 * max.max(self.lived) {
            self.segments.retain(|handles| handles.strong_count() > 0);
            self.lived = self.segments.len();
        }
    }
}

impl FileCache {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0), queue: Mutex::default() }
    }

    /// The open file, opened with `open` if it is not.
    pub(crate) fn get(
        &self,
        handles: &Arc<Handles>,
        kind: Kind,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        let mut slots = handles.slots.lock();
        handles.used.store(true, Ordering::Relaxed);
        if let Some(file) = slots.slot(kind) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open()?);
        *slots.slot(kind) = Some(Arc::clone(&file));
        let queue_now = !std::mem::replace(&mut slots.queued, true);
        // While the slots are locked: whoever closes this file must find it counted.
        let is_one_too_many = self.open.fetch_add(1, Ordering::Relaxed) >= self.max;
        drop(slots);
        if queue_now {
            self.queue.lock().push(handles, self.max);
        }
        if is_one_too_many {
            self.evict();
        }
        Ok(file)
    }

    /// Forgets the handles of a segment that is renamed, truncated or gone.
    pub(crate) fn close(&self, handles: &Handles) {
        let mut slots = handles.slots.lock();
        self.open.fetch_sub(slots.count(), Ordering::Relaxed);
        slots.log = None;
        slots.index = None;
    }

    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn evict(&self) {
        let queue = &mut self.queue.lock().segments;
        // Twice round at most: once to take the second chances away, once to close.
        for _ in 0..queue.len() * 2 {
            if self.open.load(Ordering::Relaxed) <= self.max {
                return;
            }
            let Some(front) = queue.pop_front() else { return };
            let Some(handles) = front.upgrade() else { continue };
            if handles.used.swap(false, Ordering::Relaxed) {
                queue.push_back(front);
                continue;
            }
            // Whoever holds this lock is opening the very file: not idle.
            let Some(mut slots) = handles.slots.try_lock() else {
                queue.push_back(front);
                continue;
            };
            self.open.fetch_sub(slots.close_idle(), Ordering::Relaxed);
            if slots.count() > 0 {
                queue.push_back(front);
            } else {
                slots.queued = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &FileCache, handles: &Arc<Handles>) -> Arc<File> {
        cache.get(handles, Kind::Log, tempfile::tempfile).unwrap()
    }

    #[test]
    fn no_more_files_stay_open_than_allowed_except_those_in_use() {
        let cache = FileCache::new(4);
        let all: Vec<_> = (0..20).map(|_| Arc::new(Handles::default())).collect();
        let held: Vec<_> = all.iter().take(3).map(|handles| get(&cache, handles)).collect();
        for handles in &all {
            drop(get(&cache, handles));
        }
        assert!(cache.open_count() <= 5, "{} files are open", cache.open_count());
        for (handles, file) in all.iter().zip(&held) {
            assert!(Arc::ptr_eq(&get(&cache, handles), file), "a file in use was closed");
        }
    }

    #[test]
    fn segments_that_are_gone_are_forgotten_however_few_files_are_open() {
        let cache = FileCache::new(4);
        let held: Vec<_> = (0..3).map(|_| Arc::new(Handles::default())).collect();
        for handles in &held {
            drop(get(&cache, handles));
        }
        for _ in 0..100 {
            let handles = Arc::new(Handles::default());
            drop(get(&cache, &handles));
            cache.close(&handles);
        }
        assert_eq!(cache.open_count(), 3);
        let queued = cache.queue.lock().segments.len();
        assert!(queued <= 8, "{queued} segments are remembered");
        // Those that live are still closed when their turn comes.
        let more: Vec<_> = (0..4).map(|_| Arc::new(Handles::default())).collect();
        for handles in &more {
            drop(get(&cache, handles));
        }
        assert_eq!(cache.open_count(), 4);
    }

    #[test]
    fn an_open_file_is_opened_once() {
        let cache = FileCache::new(4);
        let handles = Arc::new(Handles::default());
        assert!(Arc::ptr_eq(&get(&cache, &handles), &get(&cache, &handles)));
        assert_eq!(cache.open_count(), 1);
        cache.close(&handles);
        assert_eq!(cache.open_count(), 0);
    }
}
