//! Which follower a consumer is sent to, because it is in the consumer's rack (KIP-392). Pure.
//!
//! The choice is that of Kafka's `RackAwareReplicaSelector`: the leader where it is in that rack or nobody is; otherwise
//! of those in the rack the one that has most of the log, then the one that was caught up latest, then the one with the
//! largest id.

use std::time::Duration;

use ottla_base::{BrokerId, Offset};

/// A follower that has what a consumer asks for, as far as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readable {
    pub replica: BrokerId,
    /// What it has on disk; exclusive. Kafka compares what was copied: an offset that is on disk is there in any case.
    pub flushed: Offset,
    /// The latest time at which it had everything.
    pub caught_up_at: Duration,
}

/// The follower to read from, or `None` for the leader. `rack_of` knows the brokers that can be reached.
pub fn nearest<'a>(
    rack: &str,
    leader: BrokerId,
    followers: impl IntoIterator<Item = Readable>,
    rack_of: impl Fn(BrokerId) -> Option<&'a str>,
) -> Option<BrokerId> {
    let is_near = |replica| rack_of(replica) == Some(rack);
    if rack.is_empty() || is_near(leader) {
        return None;
    }
    let near = followers.into_iter().filter(|it| is_near(it.replica));
    near.max_by_key(|it| (it.flushed, it.caught_up_at, it.replica)).map(|it| it.replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: BrokerId = BrokerId(1);

    fn follower(id: i32, flushed: i64, caught_up_at: u64) -> Readable {
        Readable {
            replica: BrokerId(id),
            flushed: Offset(flushed),
            caught_up_at: Duration::from_secs(caught_up_at),
        }
    }

    fn choose(rack: &str, racks: &[Option<&'static str>], followers: &[Readable]) -> Option<i32> {
        let rack_of =
            |id: BrokerId| usize::try_from(id.0 - 1).ok().and_then(|at| *racks.get(at)?);
        nearest(rack, LEADER, followers.iter().copied(), rack_of).map(|id| id.0)
    }

    #[test]
    fn a_consumer_without_a_rack_or_in_the_leaders_reads_from_the_leader() {
        let followers = [follower(2, 9, 9), follower(3, 9, 9)];
        let racks = [Some("a"), Some("a"), Some("b")];
        assert_eq!(choose("", &[Some(""), Some("")], &followers), None);
        assert_eq!(choose("a", &racks, &followers), None);
        assert_eq!(choose("c", &racks, &followers), None, "nobody is there");
        assert_eq!(choose("b", &racks, &followers), Some(3));
    }

    #[test]
    fn of_several_in_the_rack_the_one_that_is_furthest_is_chosen() {
        let racks = [Some("a"), Some("b"), Some("b"), Some("b")];
        let choose = |followers: &[Readable]| choose("b", &racks, followers);
        assert_eq!(choose(&[follower(2, 9, 1), follower(3, 8, 5)]), Some(2));
        assert_eq!(choose(&[follower(2, 9, 1), follower(3, 9, 5)]), Some(3));
        assert_eq!(choose(&[follower(4, 9, 5), follower(2, 9, 5), follower(3, 9, 5)]), Some(4));
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_not_chosen() {
        let racks = [Some("a"), None, Some("b")];
        assert_eq!(choose("b", &racks, &[follower(2, 9, 9), follower(3, 1, 1)]), Some(3));
    }
}
