//! The flusher of a log directory: one thread that gathers requests and makes them durable together. Shell.
//!
//! While one flush is under way, the next requests gather; all of them cost one more flush. When there are some, the
//! next round waits a moment for those whom this one has just answered, and longer if nobody waits for it. Where flushes
//! are quick, whoever has appended and would only wait may do the round itself. How a round is done depends on how many
//! files it has, and how much of each: see docs/decisions/003-flusher.md.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ottla_base::Offset;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::environment::Environment;
use crate::error::StorageError;
use crate::log::{FlushWork, Log};

/// A round of fewer logs is likely to be quick.
const FEW_LOGS: usize = 8;

/// A busy flusher waits for company for so many parts of the time that its last flush took,
const GATHER_PARTS: u32 = 2;
/// and no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// A round that nobody waits for begins so long after the last one of the flusher's thread.
const UNAWAITED_PAUSE: Duration = Duration::from_millis(2);
/// A flush that takes no longer than this costs less than to wake another thread for it, and to be woken by that.
const QUICK_MAX: Duration = Duration::from_micros(500);

/// Whoever wants to know what has reached the disk.
///
/// Called from the flusher's thread, and `poisoned` from any thread: be short, and do not call into a log's
/// changing operations from here.
pub trait FlushListener: Send + Sync {
    /// Everything in `log` before `flushed_offset` is durable.
    fn flushed(&self, _log: &Arc<Log>, _flushed_offset: Offset) {}

    /// The directory is offline: no flush of a log in it will complete any more.
    fn poisoned(&self, _directory: &Path, _error: &StorageError) {}
}

impl<F: Fn(&Arc<Log>, Offset) + Send + Sync> FlushListener for F {
    fn flushed(&self, log: &Arc<Log>, flushed_offset: Offset) {
        self(log, flushed_offset);
    }
}

impl Debug for dyn FlushListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlushListener")
    }
}

/// Logs that wait for a flush.
///
/// Invariant: a log is in here at most once, exactly while its `flush_requested` is set.
#[derive(Debug, Default)]
pub(crate) struct FlushQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by whoever locks the flushes of several logs: in whatever order, there is only one at a time.
    round: Mutex<()>,
    /// Microseconds that the latest round took.
    latest_took_us: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    logs: Vec<Arc<Log>>,
    hurry: Hurry,
    stopped: bool,
}

/// What the flusher's thread has been asked for since these logs gather.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hurry {
    /// Nothing: whoever has pushed begins the round.
    #[default]
    None,
    /// A round that nobody waits for.
    Later,
    /// A round that somebody waits for.
    Now,
}

impl Waiting {
    fn take(&mut self) -> Vec<Arc<Log>> {
        self.hurry = Hurry::None;
        std::mem::take(&mut self.logs)
    }
}

impl FlushQueue {
    /// Lets a log wait for the next round, which nobody begins because of this.
    pub(crate) fn push(&self, log: Arc<Log>) {
        let mut waiting = self.waiting.lock();
        if !waiting.stopped {
            waiting.logs.push(log);
        }
    }

    /// Has the flusher's thread begin a round if something waits for one: the caller, or somebody, awaits its end.
    pub(crate) fn wake(&self) {
        let mut waiting = self.waiting.lock();
        // Without any, somebody else has taken the caller's along.
        if !waiting.logs.is_empty() {
            waiting.hurry = Hurry::Now;
            self.changed.notify_one();
        }
    }

    /// Has the flusher's thread begin a round when it has paused.
    pub(crate) fn wake_unawaited(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.logs.is_empty() && waiting.hurry == Hurry::None {
            waiting.hurry = Hurry::Later;
            self.changed.notify_one();
        }
    }

    /// Whoever waits now waits in vain. They hold the directory, and the directory holds this.
    pub(crate) fn stop(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock();
            waiting.stopped = true;
            waiting.take()
        };
        self.changed.notify_all();
        waiting.iter().for_each(|log| log.flush_dequeued());
    }

    /// What waits, if so little does that a round is likely to be quick.
    fn take_few(&self) -> Option<Vec<Arc<Log>>> {
        let was_quick =
            Duration::from_micros(self.latest_took_us.load(Ordering::Relaxed)) <= QUICK_MAX;
        let mut waiting = self.waiting.lock();
        let few = waiting.logs.len() < FEW_LOGS;
        (was_quick && few && !waiting.stopped).then(|| waiting.take())
    }

    /// Everything that waits; `None` once stopped. If somebody waits for it already, others have `gather` to join it; what
    /// nobody waits for is left until `unawaited`.
    fn take(&self, gather: Duration, unawaited: Instant) -> Option<Vec<Arc<Log>>> {
        let mut waiting = self.waiting.lock();
        if waiting.hurry == Hurry::Now && !gather.is_zero() {
            MutexGuard::unlocked(&mut waiting, || thread::sleep(gather));
        }
        while !waiting.stopped {
            if waiting.logs.is_empty() {
                self.changed.wait(&mut waiting);
            } else if waiting.hurry == Hurry::Now || Instant::now() >= unawaited {
                return Some(waiting.take());
            } else {
                self.changed.wait_until(&mut waiting, unawaited);
            }
        }
        None
    }
}

/// Starts the thread; it ends when the queue is stopped.
pub(crate) fn start(env: Arc<Environment>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("log-flusher".to_owned()).spawn(move || {
        let (mut gather, mut unawaited) = (Duration::ZERO, Instant::now());
        while let Some(logs) = env.flushes.take(gather, unawaited) {
            let took = flush(&env, &logs, env.flushes.round.lock());
            gather = (took / GATHER_PARTS).min(GATHER_MAX);
            unawaited = Instant::now() + UNAWAITED_PAUSE;
        }
    })
}

/// Does the next round on this thread, once nobody else is at one. Returns how many logs it was of.
pub(crate) fn flush_here(env: &Environment) -> usize {
    let round = env.flushes.round.lock();
    let logs = env.flushes.waiting.lock().take();
    flush(env, &logs, round);
    logs.len()
}

/// Does the next round on this thread if that is quick and nobody is at one; leaves it to the flusher's thread
/// otherwise.
pub(crate) fn flush_here_or_there(env: &Environment) {
    let Some(round) = env.flushes.round.try_lock() else { return env.flushes.wake() };
    match env.flushes.take_few() {
        Some(logs) if logs.is_empty() => {}
        Some(logs) => _ = flush(env, &logs, round),
        None => env.flushes.wake(),
    }
}

/// Makes everything in these logs durable, and tells the listeners. Returns how long the disk took.
fn flush(env: &Environment, logs: &[Arc<Log>], round: MutexGuard<'_, ()>) -> Duration {
    logs.iter().for_each(|log| log.flush_dequeued());
    if env.check_health().is_err() {
        return Duration::ZERO;
    }
    let started = env.clock.monotonic();
    let flushed = flush_together(env, logs);
    let took = env.clock.monotonic().saturating_sub(started);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    env.flushes.latest_took_us.store(took_us, Ordering::Relaxed);
    drop(round);
    match flushed {
        Ok(flushed) => tell_listeners(env, logs, &flushed),
        Err(error) => env.poison(&error),
    }
    took
}

fn tell_listeners(env: &Environment, logs: &[Arc<Log>], flushed: &[Offset]) {
    let listeners = env.health.listeners.read().clone();
    for (log, offset) in logs.iter().zip(flushed) {
        for listener in &listeners {
            listener.flushed(log, *offset);
        }
    }
}

/// The caller has the round.
fn flush_together(env: &Environment, logs: &[Arc<Log>]) -> Result<Vec<Offset>, StorageError> {
    let _flushing: Vec<_> = logs.iter().map(|log| log.flush_lock()).collect();
    let work: Vec<FlushWork> = logs.iter().map(|log| log.take_flush_work()).collect();
    let all: Vec<_> = logs.iter().zip(&work).collect();
    make_durable(env, &all)?;
    // What failed before these were locked, and has taken something of theirs with it, fails this, too.
    env.check_health()?;
    Ok(logs.iter().zip(&work).map(|(log, work)| log.flush_done(work)).collect())
}

/// A log and what waits to be flushed of it.
type Waits<'a> = (&'a Arc<Log>, &'a FlushWork);

/// Few files one by one. Of many, the ends of logs go to the journal; if much is left then, or it takes nothing, the whole
/// file system is flushed. The first append to a new log counts for four: its file, its directory, the directory's name, and
/// its metadata.
fn make_durable(env: &Environment, all: &[Waits<'_>]) -> Result<(), StorageError> {
    let are_few = |waits: &[Waits<'_>]| {
        let calls: usize = waits.iter().map(|(_, work)| work.sync_calls()).sum();
        calls < env.options.flush_at_once_from
    };
    if are_few(all) {
        return sync_each(all);
    }
    let (ends, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|(_, work)| work.may_be_journaled());
    if are_few(&others) && note_in_journal(env, &ends)? {
        return sync_each(&others);
    }
    if sync_file_system(env)? { Ok(()) } else { sync_each(all) }
}

fn sync_each(waits: &[Waits<'_>]) -> Result<(), StorageError> {
    waits.iter().try_for_each(|(log, work)| log.sync(work))
}

/// Whether the ends of these logs are durable now.
fn note_in_journal(env: &Environment, ends: &[Waits<'_>]) -> Result<bool, StorageError> {
    let tails: Option<Vec<_>> = ends.iter().map(|(log, work)| log.tail(work)).collect();
    let Some(tails) = tails else { return Ok(false) };
    let Some(noted) = env.journal.append(&tails)? else { return Ok(false) };
    ends.iter().for_each(|(log, _)| log.note_journaled(noted.sequence));
    Ok(noted.is_durable)
}

/// Makes everything durable that these logs and their directory have, indexes, epochs and names included.
pub(crate) fn flush_everything(env: &Environment, logs: &[Arc<Log>]) -> Result<(), StorageError> {
    env.check_health()?;
    let _round = env.flushes.round.lock();
    let _flushing: Vec<_> = logs.iter().map(|log| log.flush_lock()).collect();
    let work: Vec<FlushWork> = logs.iter().map(|log| log.take_flush_work()).collect();
    if let Err(error) = sync_everything(env, logs, &work) {
        env.poison(&error);
        return Err(error);
    }
    for (log, work) in logs.iter().zip(&work) {
        log.flush_done(work);
    }
    Ok(())
}

fn sync_everything(
    env: &Environment,
    logs: &[Arc<Log>],
    work: &[FlushWork],
) -> Result<(), StorageError> {
    if sync_file_system(env)? {
        return Ok(());
    }
    for (log, work) in logs.iter().zip(work) {
        log.sync(work)?;
        if env.recovery_points.get(log.topic_partition()) != Some(Offset(work.end_offset)) {
            log.sync_all_files()?;
        }
    }
    Ok(())
}

/// Makes the logs durable that were just recovered, when nothing else is known about them.
pub(crate) fn sync_recovered(env: &Environment, logs: &[Arc<Log>]) -> Result<(), StorageError> {
    if sync_file_system(env)? {
        return Ok(());
    }
    logs.iter().try_for_each(|log| log.sync_all_files())
}

/// `false` where the platform cannot.
pub(crate) fn sync_file_system(env: &Environment) -> Result<bool, StorageError> {
    env.journal.sync_file_system(env)
}
