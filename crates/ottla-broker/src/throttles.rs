//! What replication may take of the network while an operator holds it back (`leader.` and
//! `follower.replication.throttled.rate`). Shell: it owns the rates and is asked from many connections.
//!
//! Which replicas are held back is each replica's to know; that those in sync never are, is decided where they are asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla_replication::{Rate, Windows};
use parking_lot::Mutex;

/// Of this broker.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// What it sends to followers that are held back.
    pub leader: Throttle,
    /// What it fetches for replicas that are held back.
    pub follower: Throttle,
}

/// Bytes per second that are allowed, and those that were taken.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Mutex<Rate>,
    /// [`u64::MAX`] is no bound.
    per_second: AtomicU64,
}

const NO_BOUND: u64 = u64::MAX;

impl Throttles {
    pub(crate) fn new(windows: Windows) -> Self {
        let throttle =
            || Throttle { rate: Mutex::new(Rate::new(windows)), per_second: NO_BOUND.into() };
        Self { leader: throttle(), follower: throttle() }
    }
}

impl Throttle {
    /// From now on so many; `None` is no bound.
    pub(crate) fn allow(&self, per_second: Option<u64>) {
        self.per_second.store(per_second.unwrap_or(NO_BOUND), Ordering::Relaxed);
    }

    /// Whether there is a bound at all.
    #[must_use]
    pub(crate) fn is_bound(&self) -> bool {
        self.per_second.load(Ordering::Relaxed) != NO_BOUND
    }

    /// Bytes of replicas that are held back, be they in sync or not: the bound is on all of them, as in Kafka.
    pub(crate) fn note(&self, bytes: usize, now: Duration) {
        if bytes > 0 {
            self.rate.lock().note(bytes as u64, now);
        }
    }

    /// How long replicas that are not in sync have to wait, if they do.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        match self.per_second.load(Ordering::Relaxed) {
            NO_BOUND => None,
            per_second => self.rate.lock().wait(per_second, now),
        }
    }
}
