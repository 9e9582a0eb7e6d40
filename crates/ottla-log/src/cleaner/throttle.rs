//! How long whoever has read or written so many bytes must wait, so that no more than a rate come together (pure).

use std::time::Duration;

/// Bytes of all threads together, since somebody last had to wait.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    since: Duration,
    bytes: f64,
}

/// As in Kafka: shorter peaks are not smoothed.
const LOOK_EVERY: Duration = Duration::from_millis(300);

impl Throttle {
    /// Notes bytes that were moved at a moment. Returns how long to wait now.
    pub(super) fn moved(&mut self, bytes: usize, now: Duration, bytes_per_second: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let moved = bytes as f64;
        self.bytes += moved;
        let elapsed = now.saturating_sub(self.since);
        if elapsed < LOOK_EVERY || self.bytes <= 0.0 {
            return Duration::ZERO;
        }
        let should_have_taken = Duration::try_from_secs_f64(self.bytes / bytes_per_second.max(1.0))
            .unwrap_or(Duration::MAX);
        let wait = should_have_taken.saturating_sub(elapsed);
        (self.since, self.bytes) = (now.saturating_add(wait), 0.0);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn nobody_waits_below_the_rate() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.moved(100, MS(200), 1_000.0), MS(0));
        assert_eq!(throttle.moved(200, MS(400), 1_000.0), MS(0));
        assert_eq!(throttle.moved(usize::MAX, MS(900), f64::MAX), MS(0));
    }

    #[test]
    fn whoever_is_ahead_waits_until_the_rate_is_kept() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.moved(1_000, MS(100), 1_000.0), MS(0), "too early to say");
        assert_eq!(throttle.moved(1_000, MS(500), 1_000.0), MS(1_500));
        // Two seconds have passed then, and everything begins anew.
        assert_eq!(throttle.moved(100, MS(2_000), 1_000.0), MS(0));
        assert_eq!(throttle.moved(1_400, MS(2_500), 1_000.0), MS(1_000));
    }
}
