//! Who is refused, as far as that was said in the log: when it begins, and once a minute while it goes on. Whoever is refused asks
//! again at once, for as long as nobody stops it.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_base::BrokerId;
use parking_lot::Mutex;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);
/// So many are said within a minute: anybody can ask under any id.
const SAID_MAX: usize = 100;

/// When a refusal was last said, by who was refused and why.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<(BrokerId, String), Instant>>);

impl Refusals {
    /// Whether a refusal of this moment is to be said.
    pub(crate) fn is_due(&self, id: BrokerId, why: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        said.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        let key = (id, why.to_owned());
        let is_due = said.len() < SAID_MAX && !said.contains_key(&key);
        if is_due {
            said.insert(key, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_when_it_begins_and_once_a_minute_while_it_goes_on() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let mut said = Vec::new();
        // Twice a second, as a broker asks that waits.
        for asked in 0..=300 {
            let now = begin + asked * Duration::from_millis(500);
            if refusals.is_due(BrokerId(4), "it is there twice", now) {
                said.push((now - begin).as_secs());
            }
        }
        assert_eq!(said, [0, 60, 120]);
        let later = begin + Duration::from_secs(151);
        assert!(refusals.is_due(BrokerId(5), "it is there twice", later), "another one");
        assert!(refusals.is_due(BrokerId(4), "another cluster's", later), "something else");
        assert!(!refusals.is_due(BrokerId(4), "it is there twice", later));
        let due = (100..1_000).filter(|id| refusals.is_due(BrokerId(*id), "nobody", later));
        assert_eq!(due.count(), SAID_MAX - 3);
    }
}
