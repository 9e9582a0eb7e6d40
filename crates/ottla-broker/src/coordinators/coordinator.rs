//! A partition's machine on its log, with those who wait for its replies. Shell; without the task that wakes it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, Offset};
use ottla_coordinator::{Loading, Now, Replies, ReplyTo, Runtime, Shard};
use ottla_env::Clock;
use tokio::sync::oneshot;

use super::log::PartitionLog;
use crate::replica::Replica;

/// Where a reply goes. Dropped without one, it says NOT_COORDINATOR.
pub type ReplySender<S> = oneshot::Sender<Result<<S as Shard>::Reply, ErrorCode>>;

/// What a coordinator hears.
pub enum Event<S: Shard> {
    Ask(S::Request, ReplySender<S>),
    Query(S::Query, ReplySender<S>),
    Tell(S::Request),
}

impl<S: Shard> fmt::Debug for Event<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask(..) => "Ask",
            Self::Query(..) => "Query",
            Self::Tell(_) => "Tell",
        })
    }
}

/// A partition that is coordinated, for as long as nobody else leads.
pub struct Coordinator<S: Shard> {
    runtime: Runtime<S>,
    log: PartitionLog,
    clock: Arc<dyn Clock>,
    waiting: HashMap<ReplyTo, ReplySender<S>>,
    next_reply: u64,
}

impl<S: Shard> fmt::Debug for Coordinator<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runtime, log, waiting, .. } = self;
        f.debug_struct("Coordinator")
            .field("log", log)
            .field("runtime", runtime)
            .field("waiting", &waiting.len())
            .finish_non_exhaustive()
    }
}

impl<S: Shard> Coordinator<S> {
    /// All of the log has been read.
    pub fn new(loaded: Loading<S>, mut log: PartitionLog, clock: Arc<dyn Clock>) -> Self {
        let runtime = loaded.finish(now(&*clock), &mut log);
        Self { runtime, log, clock, waiting: HashMap::new(), next_reply: 0 }
    }

    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        self.log.replica()
    }

    #[must_use]
    pub const fn shard(&self) -> &S {
        self.runtime.shard()
    }

    /// Whether somebody else has written to the partition, so that it must be read anew.
    #[must_use]
    pub const fn is_out_of_step(&self) -> bool {
        self.runtime.is_out_of_step()
    }

    /// When [`Self::on_time`] is due, on the monotonic clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.runtime.next_deadline()
    }

    pub fn on_event(&mut self, event: Event<S>) {
        match event {
            Event::Ask(request, reply) => {
                let to = self.next_reply();
                self.waiting.insert(to, reply);
                self.request(to, request);
            }
            Event::Query(query, reply) => {
                // Whoever asked may have gone away.
                let _ = reply.send(Ok(self.runtime.query(query)));
            }
            Event::Tell(request) => {
                let to = self.next_reply();
                self.request(to, request);
            }
        }
    }

    /// Timers may be due.
    pub fn on_time(&mut self) {
        let replies = self.runtime.on_time(now(&*self.clock), &mut self.log);
        self.give(replies);
    }

    /// Lets go of everything that waits for what is committed by now. What follows may append, and be committed, too.
    /// Says whether the partition is still led, and all that is in it known: if not, this coordinator has to end.
    pub fn settle(&mut self) -> bool {
        while let Some(committed) = self.log.committed() {
            self.on_committed(committed);
            if self.is_out_of_step() {
                return false;
            }
            if self.log.replica().high_watermark() == committed {
                return true;
            }
        }
        false
    }

    /// Everything below this offset is committed.
    pub fn on_committed(&mut self, committed: Offset) {
        let replies = self.runtime.on_committed(now(&*self.clock), committed, &mut self.log);
        self.give(replies);
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    fn request(&mut self, to: ReplyTo, request: S::Request) {
        let replies = self.runtime.request(now(&*self.clock), to, request, &mut self.log);
        self.give(replies);
    }

    fn give(&mut self, replies: Replies<S::Reply>) {
        for (to, reply) in replies {
            if let Some(sender) = self.waiting.remove(&to) {
                // Whoever asked may have gone away.
                let _ = sender.send(reply);
            }
        }
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now { time: clock.now_ms(), monotonic: clock.monotonic() }
}
