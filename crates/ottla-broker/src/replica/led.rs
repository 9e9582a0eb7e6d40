//! In which leader epochs this broker leads, for those who must not wait for the replica's state.

use std::sync::atomic::{AtomicU64, Ordering};

use ottla_base::LeaderEpoch;

/// The leader epochs in which this broker has led without a break, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reign {
    pub since: LeaderEpoch,
    pub now: LeaderEpoch,
}

impl Reign {
    /// Whether nobody else has led since this epoch: what this broker appended in it is still there.
    pub(super) fn covers(self, epoch: LeaderEpoch) -> bool {
        (self.since..=self.now).contains(&epoch)
    }
}

/// The reign that lasts, if one does.
///
/// Both of its ends are in one word. Read one after the other, the beginning of one reign would go with the end of the next,
/// and hide that somebody else has led between the two.
#[derive(Debug)]
pub(super) struct Led(AtomicU64);

impl Led {
    /// No leader epoch is negative.
    const NOT: u64 = u64::MAX;

    pub(super) const fn not() -> Self {
        Self(AtomicU64::new(Self::NOT))
    }

    pub(super) fn reign(&self) -> Option<Reign> {
        let bits = self.0.load(Ordering::Acquire);
        (bits != Self::NOT).then(|| unpack(bits))
    }

    /// Goes on in an epoch, or begins with it.
    pub(super) fn lead(&self, now: LeaderEpoch) {
        let since = self.reign().map_or(now, |reign| reign.since);
        self.0.store(pack(Reign { since, now }), Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.0.store(Self::NOT, Ordering::Release);
    }
}

fn pack(Reign { since, now }: Reign) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (since.0.to_be_bytes(), now.0.to_be_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn unpack(bits: u64) -> Reign {
    let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
    let epoch = |bytes| LeaderEpoch(i32::from_be_bytes(bytes));
    Reign { since: epoch([a, b, c, d]), now: epoch([e, f, g, h]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(led: &Led) -> Vec<i32> {
        let covers = |epoch: &i32| led.reign().is_some_and(|it| it.covers(LeaderEpoch(*epoch)));
        (0..10).filter(covers).collect()
    }

    #[test]
    fn a_reign_goes_on_over_epochs_until_somebody_else_leads() {
        let led = Led::not();
        assert!(covered(&led).is_empty());
        led.lead(LeaderEpoch(0));
        assert_eq!(covered(&led), [0]);
        led.lead(LeaderEpoch(2));
        assert_eq!(covered(&led), [0, 1, 2]);
        led.end();
        assert!(covered(&led).is_empty());
        led.lead(LeaderEpoch(4));
        assert_eq!(covered(&led), [4]);
    }

    #[test]
    fn both_ends_of_a_reign_fit_into_a_word() {
        for (since, now) in [(0, 0), (0, i32::MAX), (i32::MAX, i32::MAX), (3, 0x0102_0304)] {
            let reign = Reign { since: LeaderEpoch(since), now: LeaderEpoch(now) };
            assert_eq!(unpack(pack(reign)), reign);
        }
    }
}
