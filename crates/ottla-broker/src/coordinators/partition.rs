//! The task of one partition: reads the log, then wakes the coordinator for events, timers and commits. Shell.
//!
//! The loop owns everything it works with, and is reached through a channel only.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::ErrorCode;
use ottla_coordinator::{Loading, Shard};
use ottla_env::Clock;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tracing::{debug, error, info};

use super::coordinator::{Coordinator, Event};
use super::log::{LoadError, PartitionLog};

/// How long a partition that could not be read is left alone: the first time, and at most.
const READ_AGAIN: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(30);

/// A partition that was just taken up.
pub(super) struct Task<S: Shard> {
    pub make_shard: Arc<dyn Fn() -> S + Send + Sync>,
    pub log: PartitionLog,
    pub clock: Arc<dyn Clock>,
    pub loading: Arc<Semaphore>,
    pub events: mpsc::UnboundedReceiver<Event<S>>,
}

impl<S> Task<S>
where
    S: Shard + Send + 'static,
    S::Request: Send,
    S::Record: Send,
{
    /// Runs until the partition is put down, is taken away, or its disk fails. What can't be read is tried again, and what
    /// somebody else has written to is read anew.
    pub(super) async fn run(mut self) {
        // What was told while nobody listened.
        let mut told = Vec::new();
        let mut wait = READ_AGAIN.start;
        loop {
            let started = self.clock.monotonic();
            let reading = read((self.make_shard)(), self.log.clone(), Arc::clone(&self.loading));
            let refusal = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
            let Some(result) = refuse(reading, refusal, &mut self.events, &mut told).await else {
                return;
            };
            match result {
                Ok(loaded) => {
                    wait = READ_AGAIN.start;
                    let coordinator =
                        Coordinator::new(loaded, self.log.clone(), Arc::clone(&self.clock));
                    self.note_loaded(started);
                    if !self.coordinate(coordinator, &mut told).await {
                        return debug!(partition = %self.log, "coordinator ended");
                    }
                    error!(partition = %self.log, "somebody else has written to the coordinator's partition: it is read anew");
                }
                Err(LoadError::Stopped) => return,
                Err(error) => {
                    error!(partition = %self.log, %error, ?wait, "the coordinator can't read its partition: that is tried again");
                    let pause = tokio::time::sleep(wait);
                    let refusal = ErrorCode::NOT_COORDINATOR;
                    if refuse(pause, refusal, &mut self.events, &mut told).await.is_none() {
                        return;
                    }
                    wait = (wait * 2).min(READ_AGAIN.end);
                }
            }
        }
    }

    fn note_loaded(&self, started: Duration) {
        let took = self.clock.monotonic().saturating_sub(started);
        let end = self.log.end();
        if end.0 > 0 {
            info!(partition = %self.log, ms = took.as_millis(), records = end.0, "coordinator loaded");
        }
    }

    /// Runs the machine until it has to end. Says whether it is to be read anew.
    async fn coordinate(
        &mut self,
        mut coordinator: Coordinator<S>,
        told: &mut Vec<S::Request>,
    ) -> bool {
        for request in told.drain(..) {
            coordinator.on_event(Event::Tell(request));
        }
        let woken = Arc::new(Notify::new());
        let replica = Arc::clone(coordinator.replica());
        let _registration = replica.waiters.register(&woken);
        let mut alarm = Alarm::new();
        while coordinator.settle() {
            alarm.set(coordinator.next_deadline(), self.clock.monotonic());
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => coordinator.on_event(event),
                    None => return false,
                },
                () = woken.notified() => {}
                () = alarm.sleep.as_mut() => {
                    coordinator.on_time();
                    alarm.deadline = None;
                }
            }
        }
        coordinator.is_out_of_step()
    }
}

/// Reads the partition, on a thread that may block if there is anything to read.
async fn read<S>(
    shard: S,
    log: PartitionLog,
    loading: Arc<Semaphore>,
) -> Result<Loading<S>, LoadError>
where
    S: Shard + Send + 'static,
{
    if log.is_empty() {
        return Ok(log.loading(shard));
    }
    let _turn = loading.acquire().await.map_err(|_| LoadError::Stopped)?;
    match tokio::task::spawn_blocking(move || log.load(shard)).await {
        Ok(loaded) => loaded,
        Err(error) if error.is_panic() => Err(LoadError::Panicked),
        Err(_) => Err(LoadError::Stopped),
    }
}

/// Refuses whoever asks while something else is under way. What was told meanwhile is kept for later. `None` when the
/// partition was put down before.
async fn refuse<S: Shard, T>(
    work: impl Future<Output = T>,
    refusal: ErrorCode,
    events: &mut mpsc::UnboundedReceiver<Event<S>>,
    told: &mut Vec<S::Request>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return Some(result),
            event = events.recv() => match event? {
                Event::Ask(_, reply) | Event::Query(_, reply) => {
                    // Whoever asked may have gone away.
                    let _ = reply.send(Err(refusal));
                }
                Event::Tell(request) => told.push(request),
            },
        }
    }
}

/// Longer than anybody waits for a timer.
const NO_TIMER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Sleeps until the next timer is due; armed anew only when that changes.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    deadline: Option<Duration>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(NO_TIMER)), deadline: None }
    }

    fn set(&mut self, deadline: Option<Duration>, now: Duration) {
        if self.deadline != deadline {
            let wait = deadline.map_or(NO_TIMER, |deadline| deadline.saturating_sub(now));
            self.sleep.as_mut().reset(Instant::now() + wait);
            self.deadline = deadline;
        }
    }
}
