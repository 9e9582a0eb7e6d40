//! What the active controller looks after from time to time, without being asked. Pure.
//!
//! - Leaderships go back to the preferred replicas (`auto.leader.rebalance.enable`,
//!   `leader.imbalance.check.interval.seconds`), whatever the share of those that have strayed:
//!   `leader.imbalance.per.broker.percentage` has no effect in Kafka either, since it has no ZooKeeper.
//! - Partitions without a leader, or whose leader only reads since its directory has failed, get one from outside their ISR
//!   where their topic accepts that (`unclean.leader.election.interval.ms`): it may have been allowed to after that.
//! - Topics of the cluster's own that were made with one copy get the others, as soon as there are brokers for them
//!   (`internal_topics`).
//!
//! Where there is only one broker nothing of this can change anything, and there is no deadline.

use std::time::Duration;

use ottla_base::PartitionIndex;

use super::draft::Draft;
use super::fencing::partitions;
use super::internal_topics::{self, Grown, Wanted};
use super::partition_change::{Election, Elections, PartitionChange};
use super::{Outcome, Policy, Situation};
use crate::MetadataRecord;
use crate::image::{Image, Partition, Topic};

/// More elections than this in one round, of either kind, are left to a next one that follows at once.
const ELECTIONS_MAX: usize = 1000;

/// When the next rounds are due, while this node is the active controller.
#[derive(Debug)]
pub struct Rounds {
    balance_at: Option<Duration>,
    unclean_at: Duration,
    wanted: Wanted,
}

impl Rounds {
    #[must_use]
    pub fn new(policy: &Policy, now: Duration) -> Self {
        Self {
            balance_at: policy.leader_balance_interval.map(|interval| now.saturating_add(interval)),
            unclean_at: now.saturating_add(policy.unclean_election_interval),
            wanted: Wanted::by(&policy.settings),
        }
    }

    /// When [`Rounds::on_deadline`] is to be called. Changes when a broker is registered or unfenced.
    #[must_use]
    pub fn deadline(&self, image: &Image) -> Option<Duration> {
        image.brokers().nth(1)?;
        if self.wanted.next(image).is_some() {
            return Some(Duration::ZERO);
        }
        Some(self.balance_at.map_or(self.unclean_at, |balance_at| balance_at.min(self.unclean_at)))
    }

    /// Holds the elections of the rounds that are due, unless a topic grows; they follow at once then.
    pub fn on_deadline(&mut self, situation: Situation<'_>) -> Outcome<Option<Grown>> {
        let Situation { image, policy, now, .. } = situation;
        let mut draft = Draft::on(image);
        if let Some(grown) = internal_topics::grow(&mut draft, policy, &self.wanted) {
            return Outcome { records: draft.records, reply: Some(grown) };
        }
        // A full round is not the whole work.
        let next = |elections: usize, interval| {
            if elections < ELECTIONS_MAX { now.saturating_add(interval) } else { now }
        };
        if let (Some(at), Some(interval)) = (self.balance_at, policy.leader_balance_interval)
            && at <= now
        {
            self.balance_at = Some(next(balance_leaders(&mut draft, policy), interval));
        }
        if self.unclean_at <= now {
            let elections = elect_uncleanly(&mut draft, policy);
            self.unclean_at = next(elections, policy.unclean_election_interval);
        }
        Outcome { records: draft.records, reply: None }
    }
}

/// Returns how many leaders were elected.
fn balance_leaders(draft: &mut Draft, policy: &Policy) -> usize {
    elect(draft, policy, |_, _, _, partition| {
        let is_preferred = partition.replicas.first() == Some(&partition.leader);
        (!is_preferred).then_some(Election::Preferred)
    })
}

fn elect_uncleanly(draft: &mut Draft, policy: &Policy) -> usize {
    elect(draft, policy, |elections, image, topic, partition| {
        let has_none = !image.has_usable_replica(partition, partition.leader);
        (has_none && elections.is_unclean(image, topic)).then_some(Election::Unclean)
    })
}

fn elect(
    draft: &mut Draft,
    policy: &Policy,
    election: impl Fn(&Elections, &Image, &Topic, &Partition) -> Option<Election>,
) -> usize {
    let image = &draft.image;
    let elections = Elections::of(image, policy);
    let record = |(topic, index, partition): (&Topic, PartitionIndex, &Partition)| {
        let election = election(&elections, image, topic, partition)?;
        PartitionChange::new(&elections, image, topic, index, partition, election).record()
    };
    let records: Vec<MetadataRecord> =
        partitions(image).filter_map(record).take(ELECTIONS_MAX).collect();
    let elections = records.len();
    draft.extend(records);
    elections
}

#[cfg(test)]
mod tests {
    use ottla_base::{Offset, TopicId};
    use ottla_protocol::records::{
        BrokerRegistrationChangeRecord, ConfigRecord, PartitionChangeRecord, TopicRecord,
    };

    use super::*;
    use crate::controller::brokers::tests::{
        directory_of, fence, image_with_brokers, partition_record,
    };
    use crate::delta::ConfigResource;

    const TOPIC: TopicId = TopicId::from_u128(9);
    const INTERVAL: Duration = Duration::from_secs(300);

    /// A partition that prefers broker 1 and is led by the first of its ISR.
    fn image(isr: &[i32]) -> Image {
        let mut image = image_with_brokers(&[1, 2]);
        image.apply(&TopicRecord { name: "t".into(), topic_id: TOPIC }.into()).unwrap();
        image.apply(&partition_record(TOPIC, 0, &[1, 2], isr)).unwrap();
        image
    }

    fn round(rounds: &mut Rounds, image: &Image, now: Duration) -> Vec<MetadataRecord> {
        let policy = Policy::default();
        let situation = Situation { image, policy: &policy, next_offset: Offset(1), now };
        rounds.on_deadline(situation).records
    }

    fn change(leader: i32) -> PartitionChangeRecord {
        PartitionChangeRecord { partition_id: 0, topic_id: TOPIC, leader, ..Default::default() }
    }

    fn accepts_loss() -> ConfigRecord {
        ConfigRecord {
            resource_type: ConfigResource::TOPIC,
            resource_name: "t".into(),
            name: "unclean.leader.election.enable".into(),
            value: Some("true".into()),
        }
    }

    #[test]
    fn a_leadership_that_has_strayed_goes_back_when_its_time_has_come() {
        let image = image(&[2, 1]);
        let mut rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        assert_eq!(rounds.deadline(&image), Some(INTERVAL));
        assert_eq!(round(&mut rounds, &image, INTERVAL / 2), []);
        assert_eq!(round(&mut rounds, &image, INTERVAL), [change(1).into()]);
        assert_eq!(rounds.deadline(&image), Some(INTERVAL * 2));
    }

    #[test]
    fn a_preferred_replica_that_is_not_in_sync_gets_no_leadership() {
        let mut rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        assert_eq!(round(&mut rounds, &image(&[2]), INTERVAL), []);
    }

    #[test]
    fn a_topic_that_may_lose_data_gets_a_leader_from_outside_the_isr() {
        let mut image = image(&[2]);
        fence(&mut image, 2);
        image.apply(&change(-1).into()).unwrap();
        let mut rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        assert_eq!(round(&mut rounds, &image, INTERVAL), []);
        image.apply(&accepts_loss().into()).unwrap();
        let isr = Some(vec![1]);
        let elected = PartitionChangeRecord { isr, leader_recovery_state: 1, ..change(1) };
        assert_eq!(round(&mut rounds, &image, INTERVAL * 2), [elected.into()]);
    }

    #[test]
    fn so_it_does_where_the_leader_has_lost_its_directory() {
        let mut image = image(&[1]);
        let lost = BrokerRegistrationChangeRecord {
            broker_id: 1,
            broker_epoch: 1,
            log_dirs: vec![directory_of(8)],
            ..Default::default()
        };
        image.apply(&lost.into()).unwrap();
        let mut rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        assert_eq!(round(&mut rounds, &image, INTERVAL), []);
        image.apply(&accepts_loss().into()).unwrap();
        let isr = Some(vec![2]);
        let elected = PartitionChangeRecord { isr, leader_recovery_state: 1, ..change(2) };
        assert_eq!(round(&mut rounds, &image, INTERVAL * 2), [elected.into()]);
    }

    #[test]
    fn a_round_that_is_full_is_followed_by_another_at_once() {
        let mut image = image(&[2, 1]);
        for index in 1..1500 {
            image.apply(&partition_record(TOPIC, index, &[1, 2], &[2, 1])).unwrap();
        }
        let mut rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        let first = round(&mut rounds, &image, INTERVAL);
        assert_eq!((first.len(), rounds.deadline(&image)), (1000, Some(INTERVAL)));
        first.iter().for_each(|record| image.apply(record).unwrap());
        assert_eq!(round(&mut rounds, &image, INTERVAL).len(), 500);
        assert_eq!(rounds.deadline(&image), Some(INTERVAL * 2));
    }

    #[test]
    fn a_single_broker_has_nobody_to_balance_with() {
        let rounds = Rounds::new(&Policy::default(), Duration::ZERO);
        assert_eq!(rounds.deadline(&image_with_brokers(&[1])), None);
    }
}
