//! What an active controller does without being asked: it notices silent brokers, and holds the elections that are due.
//! Shell.
//!
//! Begins with the epoch and ends with it: nothing of it is in the log.

use std::time::Duration;

use ottla_base::BrokerId;
use ottla_metadata::controller::{BrokerEpoch, Grown, Liveness, Policy, Rounds, Situation};
use ottla_metadata::{Image, MetadataRecord};
use tokio::time::Instant;

/// The state that only an active controller has.
#[derive(Debug)]
pub(crate) struct Vigil {
    began: Instant,
    pub(crate) liveness: Liveness,
    rounds: Rounds,
}

impl Vigil {
    /// Another leader is elected mostly because the one before is gone, and its broker with it. That broker has sent
    /// heartbeats to nobody but itself, so that its silence tells nothing; it has to report in at once.
    pub(crate) fn begin(image: &Image, policy: &Policy, predecessor: Option<BrokerId>) -> Self {
        let now = Duration::ZERO;
        let mut liveness = Liveness::new(image, policy, now);
        if let Some(broker) = predecessor.and_then(|id| image.broker(id)) {
            liveness.on_connection_lost(broker.id, BrokerEpoch(broker.epoch), now);
        }
        Self { began: Instant::now(), liveness, rounds: Rounds::new(policy, now) }
    }

    /// Since the epoch began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn deadline(&self, image: &Image) -> Option<Instant> {
        let due = [self.liveness.deadline(), self.rounds.deadline(image)];
        // An interval may be too long to end at any time that there is.
        self.began.checked_add(due.into_iter().flatten().min()?)
    }

    /// The records of one of the things that are due; call again until there are none.
    pub(crate) fn on_deadline(&mut self, situation: Situation<'_>) -> Vec<MetadataRecord> {
        let Situation { image, now, .. } = situation;
        let is_due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.liveness.deadline()) {
            let outcome = self.liveness.on_deadline(situation);
            if !outcome.reply.is_empty() {
                tracing::info!(brokers = ?outcome.reply, "brokers are fenced: they fell silent");
            }
            return outcome.records;
        }
        if is_due(self.rounds.deadline(image)) {
            let outcome = self.rounds.on_deadline(situation);
            if let Some(Grown { topic, partitions, replication_factor }) = outcome.reply {
                tracing::info!(
                    %topic,
                    partitions,
                    replication_factor,
                    "there are brokers enough now: the topic, of which there was one copy, gets more"
                );
            }
            return outcome.records;
        }
        Vec::new()
    }
}
