//! Runs coordinators' state machines on the partitions that this broker leads: one task for each. Shell.
//!
//! What a coordinator decides is in `ottla-coordinator`. Here is where its records go, who waits for which reply, and
//! when a partition is taken up and put down: as leadership comes and goes.
//!
//! Invariants:
//! - a partition has at most one task, and none that is not in `partitions`
//! - whoever asks a partition that can't be read, or whose task has ended as its disk failed, is told NOT_COORDINATOR, as with
//!   one that is led elsewhere

mod coordinator;
mod log;
mod partition;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ottla_base::{ErrorCode, LeaderEpoch};
use ottla_coordinator::Shard;
use ottla_env::Clock;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::replica::Replica;
pub use coordinator::{Coordinator, Event, ReplySender};
pub use log::{LoadError, PartitionLog};

/// How many partitions are read at the same time when many are taken up.
const LOADING_MAX: usize = 4;

/// A partition that is led here. Its channel has no bound of its own: each connection has one such request under way,
/// and connections are bounded.
struct Led<S: Shard> {
    replica: Arc<Replica>,
    /// In which it was taken up.
    since: LeaderEpoch,
    events: mpsc::UnboundedSender<Event<S>>,
}

/// The coordinators of one internal topic.
pub(crate) struct Coordinators<S: Shard> {
    make_shard: Arc<dyn Fn() -> S + Send + Sync>,
    log_settings: log::Settings,
    clock: Arc<dyn Clock>,
    loading: Arc<Semaphore>,
    partitions: RwLock<HashMap<i32, Led<S>>>,
}

pub use log::Settings as LogSettings;

impl<S: Shard> fmt::Debug for Coordinators<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinators").field("led", &self.partitions.read().len()).finish()
    }
}

impl<S> Coordinators<S>
where
    S: Shard + Send + 'static,
    S::Request: Send,
    S::Query: Send,
    S::Reply: Send,
    S::Record: Send,
    S::Timer: Send,
    S::Next: Send,
{
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        log_settings: LogSettings,
        make_shard: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            make_shard: Arc::new(make_shard),
            log_settings,
            clock,
            loading: Arc::new(Semaphore::new(LOADING_MAX)),
            partitions: RwLock::default(),
        }
    }

    /// This broker leads a partition of the topic: reads it, and coordinates from then on. Said again, it changes nothing, nor
    /// does a later leader epoch in which this broker goes on: there is one for each replica that is removed. Once others have
    /// led, who may have written to the partition, it is read anew.
    pub(crate) fn elected(&self, replica: &Arc<Replica>) {
        let Some(epoch) = replica.led_epoch() else { return };
        let partition = replica.partition.partition.0;
        let mut partitions = self.partitions.write();
        let is_led = partitions.get(&partition).is_some_and(|led| {
            Arc::ptr_eq(&led.replica, replica)
                && replica.has_led_since(led.since)
                && !led.events.is_closed()
        });
        if is_led {
            return;
        }
        let (sender, events) = mpsc::unbounded_channel();
        let (replica, clock) = (Arc::clone(replica), Arc::clone(&self.clock));
        let task = partition::Task {
            make_shard: Arc::clone(&self.make_shard),
            log: PartitionLog::new(Arc::clone(&replica), epoch, self.log_settings, clock),
            clock: Arc::clone(&self.clock),
            loading: Arc::clone(&self.loading),
            events,
        };
        partitions.insert(partition, Led { replica, since: epoch, events: sender });
        tokio::spawn(task.run());
    }

    /// This broker leads a partition no longer.
    pub(crate) fn resigned(&self, partition: i32) {
        self.partitions.write().remove(&partition);
    }

    /// Asks for something that may change the state. Answered when what it changed is committed.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, or why the records were not stored.
    pub(crate) async fn ask(
        &self,
        partition: i32,
        request: S::Request,
    ) -> Result<S::Reply, ErrorCode> {
        self.send(partition, |reply| Event::Ask(request, reply)).await
    }

    /// Asks for something that is committed.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS
    pub(crate) async fn query(
        &self,
        partition: i32,
        query: S::Query,
    ) -> Result<S::Reply, ErrorCode> {
        self.send(partition, |reply| Event::Query(query, reply)).await
    }

    async fn send(
        &self,
        partition: i32,
        event: impl FnOnce(ReplySender<S>) -> Event<S>,
    ) -> Result<S::Reply, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let sent = match self.partitions.read().get(&partition) {
            Some(led) => led.events.send(event(sender)).is_ok(),
            None => false,
        };
        if !sent {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        receiver.await.unwrap_or(Err(ErrorCode::NOT_COORDINATOR))
    }

    /// Tells every partition of something whose reply nobody waits for.
    pub(crate) fn tell_all(&self, request: impl Fn() -> S::Request) {
        for led in self.partitions.read().values() {
            // A task that has ended has nothing to learn.
            let _ = led.events.send(Event::Tell(request()));
        }
    }

    /// The partitions that are led here.
    pub(crate) fn led(&self) -> Vec<i32> {
        self.partitions.read().keys().copied().collect()
    }
}
