//! How many bytes a second replication has taken of late, compared with what an operator allows. Pure.
//!
//! The rate is Kafka's: what was noted in the latest windows, divided by the time since the oldest of them began. So the
//! allowance of the first second may be used at once, and a burst is paid for with silence until the average fits again.
//!
//! Invariant: windows begin in order, none begins before the last one is over, and there are at most `count + 1`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// `replication.quota.window.num` and `replication.quota.window.size.seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    pub count: usize,
    pub size: Duration,
}

/// Bytes by time. Times are counted from any fixed moment.
#[derive(Debug)]
pub struct Rate {
    windows: Windows,
    noted: VecDeque<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Duration,
    latest: Duration,
    bytes: u64,
}

impl Rate {
    #[must_use]
    pub const fn new(windows: Windows) -> Self {
        Self { windows, noted: VecDeque::new() }
    }

    /// So many bytes have gone now.
    pub fn note(&mut self, bytes: u64, now: Duration) {
        self.forget(now);
        let size = self.windows.size;
        match self.noted.back_mut() {
            Some(window) if now.saturating_sub(window.began) < size => {
                window.bytes = window.bytes.saturating_add(bytes);
                window.latest = window.latest.max(now);
            }
            Some(_) | None => self.noted.push_back(Window { began: now, latest: now, bytes }),
        }
        self.check();
    }

    /// How long nothing more may go, if it is more than `per_second` now. What is left over is at most a millisecond's
    /// worth: whoever waits looks again.
    pub fn wait(&mut self, per_second: u64, now: Duration) -> Option<Duration> {
        self.forget(now);
        let oldest = self.noted.front()?;
        let bytes = self.noted.iter().map(|window| window.bytes).fold(0, u64::saturating_add);
        let elapsed = now.saturating_sub(oldest.began).max(self.windows.size);
        let fits_after = time_of(bytes, per_second);
        if fits_after <= elapsed {
            return None;
        }
        let forgotten = (oldest.latest + self.age_max()).saturating_sub(now);
        let fits = (oldest.began.saturating_add(fits_after)).saturating_sub(now);
        Some(fits.min(forgotten).max(Duration::from_millis(1)))
    }

    fn age_max(&self) -> Duration {
        self.windows.size.saturating_mul(u32::try_from(self.windows.count).unwrap_or(u32::MAX))
    }

    fn forget(&mut self, now: Duration) {
        let age_max = self.age_max();
        while self.noted.front().is_some_and(|it| now.saturating_sub(it.latest) >= age_max) {
            self.noted.pop_front();
        }
    }

    fn check(&self) {
        assert!(self.noted.len() <= self.windows.count + 1, "older windows are forgotten");
    }
}

/// How long so many bytes take.
fn time_of(bytes: u64, per_second: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Which replicas of a topic are held back (`leader.replication.throttled.replicas`, `follower.…`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Throttled {
    #[default]
    None,
    All,
    /// Partition and broker.
    Some(BTreeSet<(i32, i32)>),
}

impl Throttled {
    /// From the property's items, `*` or `PARTITION:BROKER`; what is neither was refused where it came from.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut pairs = BTreeSet::new();
        for item in items {
            if item.trim() == "*" {
                return Self::All;
            }
            let pair = item.split_once(':');
            let number = |text: &str| text.trim().parse().ok();
            pairs.extend(
                pair.and_then(|(partition, broker)| Some((number(partition)?, number(broker)?))),
            );
        }
        if pairs.is_empty() { Self::None } else { Self::Some(pairs) }
    }

    #[must_use]
    pub fn includes(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(pairs) => pairs.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { count: 11, size: Duration::from_secs(1) };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_second_is_there_at_once_and_a_burst_is_paid_for() {
        let mut rate = Rate::new(WINDOWS);
        assert_eq!(rate.wait(1_000, at(0)), None);
        rate.note(1_000, at(0));
        assert_eq!(rate.wait(1_000, at(0)), None, "as much as is allowed");
        rate.note(4_000, at(10));
        assert_eq!(rate.wait(1_000, at(10)), Some(at(4_990)));
        assert_eq!(rate.wait(1_000, at(4_999)), Some(at(1)));
        assert_eq!(rate.wait(1_000, at(5_000)), None);
    }

    #[test]
    fn what_is_older_than_all_windows_is_forgotten() {
        let mut rate = Rate::new(WINDOWS);
        rate.note(1_000_000, at(0));
        assert_eq!(rate.wait(1_000, at(10_999)), Some(at(1)));
        assert_eq!(rate.wait(1_000, at(11_000)), None);
        rate.note(1, at(60_000));
        assert_eq!(rate.wait(1, at(60_000)), None);
    }

    #[test]
    fn a_rate_of_nothing_stops_all_until_what_was_noted_is_forgotten() {
        let mut rate = Rate::new(WINDOWS);
        rate.note(20, at(0));
        assert_eq!(rate.wait(0, at(0)), Some(at(11_000)));
    }

    /// Whoever sends whenever it may, in pieces of any size, sends no more than was allowed, but for the last piece.
    #[test]
    fn in_the_long_run_no_more_goes_than_is_allowed() {
        let mut random: u64 = 7;
        for _ in 0..200 {
            let mut next = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) % below
            };
            let allowed = 1_000 + next(1_000_000);
            let piece = 1 + next(3 * allowed);
            let (mut rate, mut now, mut sent) = (Rate::new(WINDOWS), at(next(1_000)), 0);
            let begun = now;
            for _ in 0..500 {
                match rate.wait(allowed, now) {
                    Some(wait) => now += wait,
                    None => {
                        rate.note(piece, now);
                        sent += piece;
                        now += at(next(50));
                    }
                }
            }
            let seconds = (now - begun).as_secs() + 1;
            // One window's worth at the start, and one piece that was still allowed to begin.
            let most = allowed * (seconds + 1) + piece;
            // What is forgotten is forgotten by whole windows.
            assert!(sent <= most + most / 5, "{sent} of {most} with {piece} at {allowed}");
            assert!(sent + piece + allowed >= allowed * seconds / 3, "{sent} in {seconds} s");
        }
    }

    #[test]
    fn replicas_are_named_one_by_one_or_all_at_once() {
        assert_eq!(Throttled::parse([]), Throttled::None);
        let some = Throttled::parse(["0:1", "3:2"]);
        assert!(some.includes(0, 1) && some.includes(3, 2));
        assert!(!some.includes(0, 2) && !some.includes(1, 1));
        assert!(Throttled::parse(["*"]).includes(9, 9));
    }
}
