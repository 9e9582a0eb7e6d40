//! When leaders are to look after followers that lag: a deadline for each partition that has one. Shell, around a queue.
//!
//! A partition whose followers have everything has none, so that a node whose partitions are idle is not woken for them.
//!
//! Invariant: a replica that leads and has a deadline is in the queue, or on its way there, with one that is no later.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{PartitionIndex, TopicId};
use ottla_env::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::listener::stopped;
use crate::replicas::Replicas;

type Key = (TopicId, PartitionIndex);

/// Deadlines that the queue does not have yet.
#[derive(Debug, Default)]
pub(crate) struct FollowerWatch {
    earlier: Mutex<Vec<(Key, Duration)>>,
    changed: Notify,
}

impl FollowerWatch {
    pub(crate) fn watch(&self, topic: TopicId, partition: PartitionIndex, at: Duration) {
        self.earlier.lock().push(((topic, partition), at));
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<(Key, Duration)> {
        std::mem::take(&mut *self.earlier.lock())
    }
}

/// The next deadline of each partition. Pure.
#[derive(Debug, Default)]
struct Deadlines {
    order: BTreeSet<(Duration, Key)>,
    by_partition: HashMap<Key, Duration>,
}

impl Deadlines {
    fn bring_forward(&mut self, key: Key, at: Duration) {
        match self.by_partition.get(&key).copied() {
            Some(before) if before <= at => return,
            Some(before) => drop(self.order.remove(&(before, key))),
            None => {}
        }
        self.by_partition.insert(key, at);
        self.order.insert((at, key));
    }

    fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    fn take_due(&mut self, now: Duration) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((_, key)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.pop_first();
            self.by_partition.remove(&key);
            due.push(key);
        }
        due
    }
}

/// No partition is looked at more often.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Lets leaders look after followers when it is time, until the node stops.
pub(crate) async fn watch_followers(
    replicas: Arc<Replicas>,
    clock: Arc<dyn Clock>,
    mut stopping: watch::Receiver<bool>,
) {
    let watch = Arc::clone(&replicas.outboxes.follower_watch);
    let mut deadlines = Deadlines::default();
    loop {
        let now = clock.monotonic();
        for (key, at) in watch.take() {
            deadlines.bring_forward(key, at.max(now + PAUSE_MIN));
        }
        for (topic, partition) in deadlines.take_due(now) {
            if let Some(replica) = replicas.find(topic, partition.0) {
                replica.look_after_followers(now);
            }
        }
        let pause = deadlines.next().map(|at| at.saturating_sub(now));
        tokio::select! {
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = watch.changed.notified() => {}
            () = stopped(&mut stopping) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        (TopicId::from_u128(7), PartitionIndex(partition))
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn of_a_partition_the_earliest_deadline_counts() {
        let mut deadlines = Deadlines::default();
        deadlines.bring_forward(key(0), at(9));
        deadlines.bring_forward(key(0), at(5));
        deadlines.bring_forward(key(0), at(7));
        deadlines.bring_forward(key(1), at(6));
        assert_eq!(deadlines.next(), Some(at(5)));
        assert_eq!(deadlines.take_due(at(4)), []);
        assert_eq!(deadlines.take_due(at(8)), [key(0), key(1)]);
        assert_eq!(deadlines.next(), None);
    }
}
