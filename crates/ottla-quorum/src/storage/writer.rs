//! Makes the metadata log durable, beside everything else: many appends with one flush, and votes in their place. Shell.
//!
//! Invariant: where jobs wait, somebody has been given the work of doing them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::IOFlushed;
use ottla_base::{BrokerId, Uuid};
use ottla_log::Log;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::begun::Begun;
use super::vote::VoteFile;
use crate::raft::{TypeConfig, Vote};
use crate::workers::{InOrder, Workers};

/// What is asked for, in order.
enum Job {
    /// Make everything appended so far durable.
    Flush(IOFlushed<TypeConfig>),
    SaveVote(Vote, oneshot::Sender<io::Result<()>>),
}

/// What is written to.
pub(crate) struct Files {
    pub(crate) log: Arc<Log>,
    pub(crate) vote_file: VoteFile,
    pub(crate) begun: Arc<Begun>,
}

/// Whom to ask.
pub(crate) struct Writer {
    worker: Arc<Worker>,
    /// Gone once it is closed.
    order: Mutex<Option<Box<dyn InOrder>>>,
}

#[derive(Debug, Default)]
struct Counts {
    flushes: AtomicU64,
    appends: AtomicU64,
}

impl Writer {
    pub(crate) fn start(
        files: Files,
        directory_id: Uuid,
        node_id: BrokerId,
        workers: &dyn Workers,
    ) -> io::Result<Self> {
        let (jobs, counts) = (Mutex::default(), Counts::default());
        let worker = Arc::new(Worker { files, directory_id, node_id, jobs, counts });
        Ok(Self { worker, order: Mutex::new(Some(workers.in_order("quorum-writer")?)) })
    }

    /// Runs the callback once everything appended so far is on disk, or cannot be.
    pub(crate) fn flush(&self, callback: IOFlushed<TypeConfig>) {
        self.ask(Job::Flush(callback));
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let (sender, saved) = oneshot::channel();
        self.ask(Job::SaveVote(vote, sender));
        saved.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Jobs that come before the work is begun are done with it.
    fn ask(&self, job: Job) {
        if self.worker.add(job) {
            return;
        }
        let worker = Arc::clone(&self.worker);
        let work = Box::new(move || worker.work());
        let is_given = self.order.lock().as_ref().is_some_and(|order| order.give(work).is_ok());
        if !is_given {
            self.worker.refuse();
        }
    }

    /// Does what it was asked for, and nothing after that.
    pub(crate) fn close(&self) {
        // Waits, where there is somebody to wait for.
        let order = self.order.lock().take();
        drop(order);
        self.worker.work();
    }

    /// Flushes done, and appends that they served.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Counts { flushes, appends } = &self.worker.counts;
        (flushes.load(Ordering::Relaxed), appends.load(Ordering::Relaxed))
    }
}

/// Whoever drops the last handle waits for what is under way: the log is free afterwards.
impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn stopped() -> io::Error {
    io::Error::other("the writer of the metadata log has stopped")
}

struct Worker {
    files: Files,
    directory_id: Uuid,
    node_id: BrokerId,
    jobs: Mutex<Jobs>,
    counts: Counts,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    /// Somebody has been given the work, and has not begun.
    is_given: bool,
}

impl Worker {
    /// Returns whether somebody will do it who has been given the work before.
    fn add(&self, job: Job) -> bool {
        let mut jobs = self.jobs.lock();
        jobs.waiting.push(job);
        std::mem::replace(&mut jobs.is_given, true)
    }

    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut *self.jobs.lock()).waiting
    }

    fn work(&self) {
        let mut callbacks = Vec::new();
        for job in self.take() {
            match job {
                Job::Flush(callback) => callbacks.push(callback),
                Job::SaveVote(vote, saved) => {
                    self.flush(&mut callbacks);
                    let written =
                        self.files.vote_file.write(&vote, self.node_id, self.directory_id);
                    // Nobody waits for the vote of a node that is stopping.
                    let _ = saved.send(written.map_err(io::Error::from));
                }
            }
        }
        self.flush(&mut callbacks);
    }

    /// A vote that is not saved drops its sender, which ends the wait.
    fn refuse(&self) {
        for job in self.take() {
            if let Job::Flush(callback) = job {
                callback.io_completed(Err(stopped()));
            }
        }
    }

    fn flush_log(&self) -> io::Result<()> {
        self.files.log.flush().map_err(io::Error::other)?;
        self.files.begun.note()
    }

    /// One flush for all who wait.
    fn flush(&self, callbacks: &mut Vec<IOFlushed<TypeConfig>>) {
        if callbacks.is_empty() {
            return;
        }
        let flushed = self.flush_log().map_err(|error| error.to_string());
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        self.counts.appends.fetch_add(callbacks.len() as u64, Ordering::Relaxed);
        for callback in callbacks.drain(..) {
            callback.io_completed(flushed.clone().map_err(io::Error::other));
        }
    }
}
