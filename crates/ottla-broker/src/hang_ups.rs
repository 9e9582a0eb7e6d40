//! Which leaders have hung up on this broker a moment ago (shell: a lock around a map; the time is told).
//!
//! A connection that ends tells a follower of a dead leader as soon as it tells the leader's clients, and 300 ms before the
//! controller gives its partitions to others. Clients ask for the new leader at once. Two things are worth knowing then:
//!
//! - *In doubt*: the controller will soon decide. Who is told of the old leader now asks again only after a pause, a whole
//!   second with librdkafka, so that an answer which waits comes sooner than one which does not.
//! - *Still named*: a broker that is left out of Metadata in the very answer that moves its partitions away makes librdkafka
//!   (2.12.1) end that broker's thread while the partitions are on their way; the thread takes them along to nobody, and the
//!   next look comes a second later.
//!
//! Invariants: whoever was connected to last is in no doubt and named by nothing but the metadata; a doubt ends by itself.

use std::collections::HashMap;
use std::time::Duration;

use ottla_base::BrokerId;
use parking_lot::Mutex;

/// The controller decides 300 ms after its own connection has broken; a new controller has to be elected first, and a busy
/// machine takes its time. An answer that comes before the decision costs franz-go five seconds (`MetadataMinAge`).
const DOUBT: Duration = Duration::from_secs(2);
/// librdkafka looks every second for leaders that are down. Kafka, which waits for nine seconds of silence, names a dead broker
/// for longer than this.
const NAMED: Duration = Duration::from_secs(3);

/// Since when, on a clock that never runs backwards, by broker.
#[derive(Debug, Default)]
pub(crate) struct HangUps(Mutex<HashMap<BrokerId, Duration>>);

impl HangUps {
    /// A connection to a broker has broken, or could not be made. The first time counts.
    pub(crate) fn hung_up(&self, id: BrokerId, now: Duration) {
        self.0.lock().entry(id).or_insert(now);
    }

    /// A connection to it stands.
    pub(crate) fn is_back(&self, id: BrokerId) {
        self.0.lock().remove(&id);
    }

    /// Who is in doubt, and how long to wait at most for the decision.
    pub(crate) fn doubts(&self, now: Duration) -> HashMap<BrokerId, Duration> {
        let hung_up = self.0.lock();
        hung_up.iter().filter_map(|(id, since)| Some((*id, left(*since, now, DOUBT)?))).collect()
    }

    /// Whether clients are told of it although the controller has fenced it.
    pub(crate) fn is_named(&self, id: BrokerId, now: Duration) -> bool {
        self.0.lock().get(&id).is_some_and(|since| left(*since, now, NAMED).is_some())
    }
}

/// What is left of a time that has begun.
fn left(since: Duration, now: Duration, of: Duration) -> Option<Duration> {
    of.checked_sub(now.saturating_sub(since)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BrokerId = BrokerId(1);
    const START: Duration = Duration::from_secs(100);

    fn doubt(hang_ups: &HangUps, now: Duration) -> Option<Duration> {
        hang_ups.doubts(now).get(&ONE).copied()
    }

    #[test]
    fn a_broker_that_hung_up_is_in_doubt_for_a_moment_and_named_for_longer() {
        let hang_ups = HangUps::default();
        assert_eq!((doubt(&hang_ups, START), hang_ups.is_named(ONE, START)), (None, false));
        hang_ups.hung_up(ONE, START);
        assert_eq!(doubt(&hang_ups, START), Some(DOUBT));
        assert_eq!(doubt(&hang_ups, START + DOUBT), None);
        assert!(hang_ups.is_named(ONE, START + DOUBT));
        assert!(!hang_ups.is_named(ONE, START + NAMED));
    }

    #[test]
    fn vain_attempts_to_connect_do_not_prolong_it() {
        let hang_ups = HangUps::default();
        hang_ups.hung_up(ONE, START);
        hang_ups.hung_up(ONE, START + NAMED);
        assert!(!hang_ups.is_named(ONE, START + NAMED));
    }

    #[test]
    fn a_new_connection_ends_all_doubt_and_the_next_hang_up_begins_anew() {
        let hang_ups = HangUps::default();
        hang_ups.hung_up(ONE, START);
        hang_ups.is_back(ONE);
        assert_eq!(doubt(&hang_ups, START), None);
        assert!(hang_ups.0.lock().is_empty());
        hang_ups.hung_up(ONE, START + NAMED);
        assert_eq!(doubt(&hang_ups, START + NAMED), Some(DOUBT));
    }
}
