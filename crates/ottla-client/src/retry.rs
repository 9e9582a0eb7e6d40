//! How long to go on trying, and how long to wait in between.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A moment after which no further attempt is made, and the pause before the next one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, pause: FIRST_PAUSE }
    }

    /// Waits before the next attempt; false, without waiting, when the time would be up by then.
    pub(crate) async fn pause(&mut self) -> bool {
        let next = Instant::now() + self.pause;
        if self.until < next {
            return false;
        }
        tokio::time::sleep_until(next).await;
        self.pause = longer(self.pause);
        true
    }
}

/// The pause after this one.
pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_second() {
        assert_eq!(longer(Duration::ZERO), FIRST_PAUSE);
        assert_eq!(longer(FIRST_PAUSE), Duration::from_millis(40));
        assert_eq!(longer(LONGEST_PAUSE), LONGEST_PAUSE);
    }
}
