//! Carries what leaders propose about their ISRs to the controller, and its answers back (AlterPartition, KIP-497). Shell.
//!
//! One request is under way at a time, and has all that was proposed meanwhile, so that a broker that loses a follower of a
//! thousand partitions asks once. The latest proposal of a partition counts.
//!
//! Invariant: whoever is told that a request is unanswered knows that nothing of it is sent any more: its connection, which
//! has no other purpose, was abandoned. What the controller's machine has received may still be looked at; for that there is
//! [`ottla_replication::DOUBT`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, PartitionIndex, TopicId};
use ottla_env::Clock;
use ottla_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ottla_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, alter_partition_response,
};
use ottla_replication::Proposal;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use crate::broker::Registration;
use crate::controller_channel::{ControllerChannel, Unanswered};
use crate::listener::stopped;
use crate::peers::Purpose;
use crate::replicas::Replicas;

/// Of so many partitions that change at once each is named in the log; of more there are too many when a broker comes or goes.
const NAMED_MAX: usize = 3;

/// Proposals by their partitions.
pub type Waiting = BTreeMap<(TopicId, PartitionIndex), Proposal>;

/// What is to be proposed.
#[derive(Debug, Default)]
pub struct IsrChanges {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl IsrChanges {
    pub(crate) fn propose(&self, topic: TopicId, partition: PartitionIndex, proposal: Proposal) {
        self.waiting.lock().insert((topic, partition), proposal);
        self.changed.notify_one();
    }

    /// What has been proposed since the last time.
    pub fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Sends proposals until the node stops.
    pub(crate) async fn send(self: Arc<Self>, sender: Sender, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stopped(&mut stopping) => return,
            }
            let proposals = self.take();
            if !proposals.is_empty() {
                tokio::select! {
                    () = sender.send(&proposals) => {}
                    () = stopped(&mut stopping) => return,
                }
            }
        }
    }
}

/// What stands for an answer where there is none, and a copy of the request may still arrive.
const UNANSWERED: ErrorCode = ErrorCode::NETWORK_EXCEPTION;

/// What it takes to ask the controller, and to tell the leaders what it says.
#[derive(Debug)]
pub(crate) struct Sender {
    pub registration: Registration,
    pub controller: Arc<ControllerChannel>,
    pub replicas: Arc<Replicas>,
    pub clock: Arc<dyn Clock>,
}

impl Sender {
    async fn send(&self, proposals: &Waiting) {
        let request = request(self.registration, proposals);
        let answer = match self.controller.ask(Purpose::IsrChanges, request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                debug!(%error, "ISRs are proposed in vain");
                Err(match error {
                    // It was not sent, or whoever heard of it has nothing to decide.
                    Unanswered::NoController | Unanswered::NotController => {
                        ErrorCode::NOT_CONTROLLER
                    }
                    Unanswered::Unreachable(_)
                    | Unanswered::Replaced
                    | Unanswered::Refused(_)
                    | Unanswered::TimedOut => UNANSWERED,
                })
            }
        };
        self.replicas.on_isrs_answered(proposals, answer, self.clock.monotonic());
    }
}

/// What asks the controller for other ISRs.
#[must_use]
pub fn request(registration: Registration, proposals: &Waiting) -> AlterPartitionRequest {
    let mut topics: BTreeMap<TopicId, Vec<PartitionData>> = BTreeMap::new();
    for ((topic, partition), proposal) in proposals {
        let member = |it: &ottla_replication::IsrMember| BrokerState {
            broker_id: it.broker.0,
            broker_epoch: it.broker_epoch,
        };
        topics.entry(*topic).or_default().push(PartitionData {
            partition_index: partition.0,
            leader_epoch: proposal.leader_epoch.0,
            new_isr_with_epochs: proposal.isr.iter().map(member).collect(),
            partition_epoch: proposal.partition_epoch,
            ..PartitionData::default()
        });
    }
    let topic = |(topic_id, partitions)| TopicData { topic_id, partitions };
    AlterPartitionRequest {
        broker_id: registration.id.0,
        broker_epoch: registration.epoch,
        topics: topics.into_iter().map(topic).collect(),
    }
}

/// One line for what has changed at once.
fn summary(changed: &[String]) -> Option<String> {
    match changed {
        [] => None,
        few if few.len() <= NAMED_MAX => Some(few.join(", ")),
        many => Some(format!("the ISRs of {} partitions have changed", many.len())),
    }
}

impl Replicas {
    /// Tells the leaders what the controller says to their proposals.
    pub fn on_isrs_answered(
        &self,
        proposals: &Waiting,
        answer: Result<AlterPartitionResponse, ErrorCode>,
        now: Duration,
    ) {
        match answer {
            Ok(response) if response.error_code.is_error() => {
                debug!(code = %response.error_code, "proposed ISRs are refused");
                self.refuse_all(proposals, response.error_code, now);
            }
            Ok(response) => self.tell(proposals, &response, now),
            Err(code) => self.refuse_all(proposals, code, now),
        }
    }

    fn refuse_all(&self, proposals: &Waiting, code: ErrorCode, now: Duration) {
        for ((topic, partition), proposal) in proposals {
            self.refuse(*topic, *partition, proposal, code, now);
        }
    }

    fn refuse(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
        proposal: &Proposal,
        code: ErrorCode,
        now: Duration,
    ) {
        if let Some(replica) = self.find(topic, partition.0) {
            if code == UNANSWERED {
                replica.on_isr_unanswered(proposal.id(), now);
            } else {
                replica.on_isr_refused(proposal.id(), code, now);
            }
        }
    }

    fn tell(&self, proposals: &Waiting, response: &AlterPartitionResponse, now: Duration) {
        let answers = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(move |partition| (topic.topic_id, partition))
        });
        let answers: BTreeMap<_, _> =
            answers.map(|(topic, it)| ((topic, PartitionIndex(it.partition_index)), it)).collect();
        let mut changed = Vec::new();
        for (key @ (topic, partition), proposal) in proposals {
            match answers.get(key) {
                Some(answer) if !answer.error_code.is_error() => {
                    changed.extend(self.accepted(*topic, *partition, proposal, answer));
                }
                Some(answer) => self.refuse(*topic, *partition, proposal, answer.error_code, now),
                None => {
                    self.refuse(*topic, *partition, proposal, ErrorCode::UNKNOWN_SERVER_ERROR, now)
                }
            }
        }
        if let Some(summary) = summary(&changed) {
            info!("{summary}");
            changed.iter().for_each(|change| debug!("{change}"));
        }
    }

    /// Returns what has changed, in words.
    fn accepted(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
        proposal: &Proposal,
        answer: &alter_partition_response::PartitionData,
    ) -> Option<String> {
        let replica = self.find(topic, partition.0)?;
        replica.on_isr_accepted(proposal.id());
        Some(format!("the ISR of {} is now {:?}", replica.partition, answer.isr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isrs_that_change_at_once_are_one_line_which_names_them_while_they_are_few() {
        let changed: Vec<String> =
            (0..1000).map(|it| format!("the ISR of a-{it} is now [1, 2]")).collect();
        let summary = |count: usize| summary(&changed[..count]);
        assert_eq!(summary(0), None);
        let two = "the ISR of a-0 is now [1, 2], the ISR of a-1 is now [1, 2]";
        assert_eq!(summary(2).unwrap(), two);
        assert!(summary(3).unwrap().contains("a-2"));
        assert_eq!(summary(4).unwrap(), "the ISRs of 4 partitions have changed");
        assert_eq!(summary(1000).unwrap(), "the ISRs of 1000 partitions have changed");
    }
}
