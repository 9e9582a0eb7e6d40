//! The thread that makes the metadata log durable: many appends with one flush, and votes in their place. Shell.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use ottla_base::{BrokerId, Uuid};
use ottla_log::Log;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::vote::VoteFile;
use crate::raft::{TypeConfig, Vote};

/// What the thread is asked to do, in order.
enum Job {
    /// Make everything appended so far durable.
    Flush(IOFlushed<TypeConfig>),
    SaveVote(Vote, oneshot::Sender<io::Result<()>>),
}

/// A handle to the thread.
pub(crate) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    flushes: AtomicU64,
    appends: AtomicU64,
}

impl Writer {
    pub(crate) fn start(
        log: Arc<Log>,
        vote_file: VoteFile,
        directory_id: Uuid,
        node_id: BrokerId,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let worker = Worker { log, vote_file, directory_id, node_id, counts: Arc::clone(&counts) };
        let thread = std::thread::Builder::new()
            .name("quorum-writer".to_owned())
            .spawn(move || worker.run(&receiver))?;
        let (jobs, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { jobs, thread, counts })
    }

    /// Runs the callback once everything appended so far is on disk, or cannot be.
    pub(crate) fn flush(&self, callback: IOFlushed<TypeConfig>) {
        if let Err(Job::Flush(callback)) = self.send(Job::Flush(callback)) {
            callback.io_completed(Err(stopped()));
        }
    }

    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let (sender, saved) = oneshot::channel();
        // A refused job drops its sender, which ends the wait.
        drop(self.send(Job::SaveVote(vote, sender)));
        saved.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Returns the job if the thread is gone.
    fn send(&self, job: Job) -> Result<(), Job> {
        match &*self.jobs.lock() {
            Some(jobs) => jobs.send(job).map_err(|mpsc::SendError(job)| job),
            None => Err(job),
        }
    }

    /// Ends the thread after the jobs that it has.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the metadata log panicked");
        }
    }

    /// Flushes done, and appends that they served.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Counts { flushes, appends } = &*self.counts;
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
    log: Arc<Log>,
    vote_file: VoteFile,
    directory_id: Uuid,
    node_id: BrokerId,
    counts: Arc<Counts>,
}

impl Worker {
    fn run(&self, jobs: &mpsc::Receiver<Job>) {
        let mut callbacks = Vec::new();
        while let Ok(first) = jobs.recv() {
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Flush(callback) => callbacks.push(callback),
                    Job::SaveVote(vote, saved) => {
                        self.flush(&mut callbacks);
                        let written = self.vote_file.write(&vote, self.node_id, self.directory_id);
                        // Nobody waits for the vote of a node that is stopping.
                        let _ = saved.send(written.map_err(io::Error::other));
                    }
                }
            }
            self.flush(&mut callbacks);
        }
    }

    /// One flush for all who wait.
    fn flush(&self, callbacks: &mut Vec<IOFlushed<TypeConfig>>) {
        if callbacks.is_empty() {
            return;
        }
        let flushed = self.log.flush().map(drop).map_err(|error| error.to_string());
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        self.counts.appends.fetch_add(callbacks.len() as u64, Ordering::Relaxed);
        for callback in callbacks.drain(..) {
            callback.io_completed(flushed.clone().map_err(io::Error::other));
        }
    }
}
