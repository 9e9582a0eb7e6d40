//! What time it is: a trait, the system's clock, and a clock that tests turn by hand. Shell.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ottla_base::Timestamp;
use parking_lot::Mutex;

/// A source of time, passed to every shell that needs one.
pub trait Clock: Debug + Send + Sync {
    /// Wall-clock time, which the operator or NTP may set back.
    fn now_ms(&self) -> Timestamp;

    /// Time since some fixed moment in the past; never runs backwards. For measuring durations.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> Timestamp {
        // Before 1970 the machine has no usable time at all; zero is as wrong as any other answer.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock {
    time: Mutex<(i64, Duration)>,
}

impl ManualClock {
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { time: Mutex::new((now.0, Duration::ZERO)) }
    }

    /// Lets this much time pass, on both clocks.
    pub fn advance(&self, elapsed: Duration) {
        let mut time = self.time.lock();
        time.0 = time.0.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        time.1 = time.1.saturating_add(elapsed);
    }

    /// Sets the wall clock, forwards or backwards, as an operator would.
    pub fn set(&self, now: Timestamp) {
        self.time.lock().0 = now.0;
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> Timestamp {
        Timestamp(self.time.lock().0)
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp(1_000));
        assert_eq!(clock.now_ms(), Timestamp(1_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now_ms(), Timestamp(3_000));
        clock.set(Timestamp(5));
        assert_eq!(clock.now_ms(), Timestamp(5));
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
    }

    #[test]
    fn the_system_clock_knows_that_this_was_written_after_2020() {
        assert!(SystemClock::new().now_ms() > Timestamp(1_577_836_800_000));
    }
}
