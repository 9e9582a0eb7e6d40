//! The task of one partition: reads the log, then wakes the coordinator for events, timers and commits. Shell.
//!
//! The loop owns everything it works with, and is reached through a channel only.

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

/// A partition that was just taken up.
pub(super) struct Task<S: Shard> {
    pub shard: S,
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
    /// Runs until the partition is put down, is taken away, or its disk fails.
    pub(super) async fn run(self) {
        let Self { shard, log, clock, loading, mut events } = self;
        let name = log.to_string();
        let started = clock.monotonic();
        let reading = read(shard, log, loading);
        let Some((result, told)) = answer_loading(reading, &mut events).await else { return };
        let (loaded, log) = match result {
            Ok(loaded) => loaded,
            Err(LoadError::Stopped) => return,
            Err(error) => {
                // Whoever asks is told NOT_COORDINATOR: the channel is closed.
                return error!(partition = name, %error, "the coordinator can't read its partition");
            }
        };
        let end = log.end();
        let mut coordinator = Coordinator::new(loaded, log, Arc::clone(&clock));
        let took = clock.monotonic().saturating_sub(started);
        if end.0 > 0 {
            info!(partition = name, ms = took.as_millis(), records = end.0, "coordinator loaded");
        }
        for request in told {
            coordinator.on_event(Event::Tell(request));
        }
        coordinate(coordinator, &*clock, events).await;
        debug!(partition = name, "coordinator ended");
    }
}

type Read<S> = Result<(Loading<S>, PartitionLog), LoadError>;

/// Reads the partition, on a thread that may block if there is anything to read.
async fn read<S>(shard: S, log: PartitionLog, loading: Arc<Semaphore>) -> Read<S>
where
    S: Shard + Send + 'static,
{
    if log.is_empty() {
        return Ok((log.loading(shard), log));
    }
    let _turn = loading.acquire().await.map_err(|_| LoadError::Stopped)?;
    let reading = tokio::task::spawn_blocking(move || log.load(shard).map(|read| (read, log)));
    reading.await.map_err(|_| LoadError::Stopped)?
}

/// Answers whoever asks while the partition is read. What was told meanwhile is kept for later. `None` when the
/// partition was put down before it was read.
async fn answer_loading<S: Shard>(
    reading: impl Future<Output = Read<S>>,
    events: &mut mpsc::UnboundedReceiver<Event<S>>,
) -> Option<(Read<S>, Vec<S::Request>)> {
    let mut reading = std::pin::pin!(reading);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            biased;
            result = &mut reading => return Some((result, told)),
            event = events.recv() => match event? {
                Event::Ask(_, reply) | Event::Query(_, reply) => {
                    // Whoever asked may have gone away.
                    let _ = reply.send(Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
                }
                Event::Tell(request) => told.push(request),
            },
        }
    }
}

/// Longer than anybody waits for a timer.
const NO_TIMER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs the machine until it has to end.
async fn coordinate<S: Shard>(
    mut coordinator: Coordinator<S>,
    clock: &dyn Clock,
    mut events: mpsc::UnboundedReceiver<Event<S>>,
) {
    let woken = Arc::new(Notify::new());
    let replica = Arc::clone(coordinator.replica());
    let _registration = replica.waiters.register(&woken);
    let mut alarm = Alarm::new();
    while coordinator.settle() {
        alarm.set(coordinator.next_deadline(), clock.monotonic());
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => coordinator.on_event(event),
                None => return,
            },
            () = woken.notified() => {}
            () = alarm.sleep.as_mut() => {
                coordinator.on_time();
                alarm.deadline = None;
            }
        }
    }
}

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
