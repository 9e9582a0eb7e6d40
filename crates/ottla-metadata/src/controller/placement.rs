//! Which brokers hold a new partition: striped over racks and brokers, unfenced ones first. Pure.
//!
//! As Kafka's placer does, each partition begins one rack further than the one before, and inside
//! a rack one broker further than the last that was there; the first replica, which will lead, is on
//! an unfenced broker. After as many partitions as there are unfenced brokers all orders are shuffled,
//! so that a broker's followers are not always the same. Where Kafka draws random numbers, a seed that
//! comes in decides. A rack that was due to lead and has only fenced brokers comes last; with Kafka
//! it provides the second replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{BrokerId, SplitMix64, Uuid};

use crate::image::{Broker, Image};

/// Places the replicas of one topic's partitions; the error is Kafka's message about it.
#[derive(Debug)]
pub(super) struct Placer {
    /// Ordered by name; brokers without a rack share one.
    racks: Vec<Rack>,
    /// The rack that the next partition begins with.
    first_rack: usize,
    /// Counts the partitions.
    round: usize,
    brokers: usize,
    unfenced: usize,
    draws: Draws,
}

#[derive(Debug, Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

/// Brokers in a circle, each returned once per round, beginning one further in each round that it is asked in.
#[derive(Debug, Default)]
struct Ring {
    brokers: Vec<BrokerId>,
    start: usize,
    taken: usize,
    /// The last round that it was asked in.
    round: usize,
}

impl Ring {
    fn next(&mut self, round: usize) -> Option<BrokerId> {
        if self.round != round {
            self.round = round;
            self.taken = 0;
            self.start = self.start.wrapping_add(1);
        }
        if self.taken == self.brokers.len() {
            return None;
        }
        let at = (self.start + self.taken) % self.brokers.len();
        self.taken += 1;
        self.brokers.get(at).copied()
    }
}

impl Placer {
    /// `seed` decides where the stripes begin.
    pub(super) fn new(image: &Image, seed: u64) -> Self {
        Self::among(image, seed, |_| true)
    }

    /// Over some of the brokers only.
    pub(super) fn among(image: &Image, seed: u64, is_meant: impl Fn(&Broker) -> bool) -> Self {
        let mut by_rack: BTreeMap<Option<Arc<str>>, Rack> = BTreeMap::new();
        // A fenced broker may come back; one that shuts down is on its way out.
        let may_come = |it: &&Broker| it.fenced || !it.in_controlled_shutdown;
        let takes_replicas = |it: &&Broker| it.has_uncordoned_directory() && may_come(it);
        for broker in image.brokers().filter(takes_replicas).filter(|it| is_meant(it)) {
            let rack = by_rack.entry(broker.rack.clone()).or_default();
            let ring = if broker.fenced { &mut rack.fenced } else { &mut rack.unfenced };
            ring.brokers.push(broker.id);
        }
        let mut racks: Vec<Rack> = by_rack.into_values().collect();
        let count = |ring: fn(&Rack) -> &Ring, racks: &[Rack]| -> usize {
            racks.iter().map(|rack| ring(rack).brokers.len()).sum()
        };
        let unfenced = count(|rack| &rack.unfenced, &racks);
        let brokers = unfenced + count(|rack| &rack.fenced, &racks);
        let mut draws = Draws(SplitMix64::new(seed));
        for rack in &mut racks {
            rack.unfenced.start = draws.next();
            rack.fenced.start = draws.next();
        }
        Self { racks, first_rack: draws.next(), round: 0, brokers, unfenced, draws }
    }

    pub(super) fn check(&self, replication_factor: i16) -> Result<(), String> {
        if self.unfenced == 0 {
            return Err("All brokers are currently fenced, or have all their log directories \
                        cordoned."
                .to_owned());
        }
        let brokers = self.brokers;
        if usize::try_from(replication_factor).is_ok_and(|factor| factor > brokers) {
            return Err(format!(
                "The target replication factor of {replication_factor} cannot be reached because \
                 only {brokers} broker(s) are registered or some brokers have all their log \
                 directories cordoned."
            ));
        }
        Ok(())
    }

    /// The replicas of the next partition, the leader first. [`Placer::check`] must have passed.
    pub(super) fn place(&mut self, replication_factor: i16) -> Vec<BrokerId> {
        let factor = usize::try_from(replication_factor).unwrap_or_default().min(self.brokers);
        if self.round > 0 && self.round.is_multiple_of(self.unfenced) {
            self.shuffle();
        }
        let (racks, round) = (self.racks.len(), self.round);
        let mut replicas = Vec::with_capacity(factor);
        let leader_rack =
            (self.first_rack..self.first_rack + racks).map(|rack| rack % racks).find(|rack| {
                let rack = self.racks.get_mut(*rack).expect("an index below the length");
                let leader = rack.unfenced.next(round);
                replicas.extend(leader);
                leader.is_some()
            });
        // The leader's rack has had its turn; the others follow, then all again.
        let mut rack = leader_rack.map_or(0, |rack| rack + 1);
        while replicas.len() < factor {
            let at = self.racks.get_mut(rack % racks).expect("an index below the length");
            replicas.extend(at.unfenced.next(round).or_else(|| at.fenced.next(round)));
            rack += 1;
        }
        self.first_rack = (self.first_rack + 1) % racks;
        self.round += 1;
        replicas
    }

    fn shuffle(&mut self) {
        self.draws.shuffle(&mut self.racks);
        for rack in &mut self.racks {
            self.draws.shuffle(&mut rack.unfenced.brokers);
            self.draws.shuffle(&mut rack.fenced.brokers);
        }
    }
}

/// Small numbers that differ from seed to seed.
#[derive(Debug)]
struct Draws(SplitMix64);

impl Draws {
    fn next(&mut self) -> usize {
        // Sixteen bits are plenty for a starting point, and leave room to count up from there.
        usize::from(u16::try_from(self.0.draw() >> 48).expect("sixteen bits"))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.next() % (last + 1));
        }
    }
}

/// The directory of a broker's new replica, where it is known.
pub(super) fn directory(image: &Image, id: BrokerId) -> Uuid {
    image.broker(id).map_or(Uuid::UNASSIGNED_DIR, Broker::default_directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::{fence, image_with_brokers};
    use ottla_protocol::records::{BrokerRegistrationChangeRecord, RegisterBrokerRecord};
    use std::collections::BTreeSet;

    fn place(image: &Image, partitions: usize, factor: i16, seed: u64) -> Vec<Vec<i32>> {
        let mut placer = Placer::new(image, seed);
        placer.check(factor).unwrap();
        let mut place = || placer.place(factor).into_iter().map(|broker| broker.0).collect();
        (0..partitions).map(|_| place()).collect()
    }

    #[test]
    fn a_single_broker_holds_everything() {
        assert_eq!(place(&image_with_brokers(&[7]), 3, 1, 42), [[7], [7], [7]]);
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly_whatever_the_seed() {
        let image = image_with_brokers(&[1, 2, 3]);
        for seed in 0..100 {
            let placed = place(&image, 3, 2, seed);
            let leaders: BTreeSet<_> = placed.iter().map(|replicas| replicas[0]).collect();
            assert_eq!(leaders, BTreeSet::from([1, 2, 3]), "{placed:?}");
            assert!(placed.iter().all(|replicas| replicas[0] != replicas[1]), "{placed:?}");
        }
    }

    /// Nine brokers, three to a rack.
    fn image_with_racks() -> Image {
        let mut image = image_with_brokers(&[]);
        for id in 0..9 {
            let rack = Some(format!("rack {}", id / 3).into());
            let broker = RegisterBrokerRecord { broker_id: id, rack, ..Default::default() };
            image.apply(&RegisterBrokerRecord { fenced: false, ..broker }.into()).unwrap();
        }
        image
    }

    #[test]
    fn each_rack_has_a_replica_and_each_broker_its_share_whatever_the_seed() {
        let image = image_with_racks();
        for seed in 0..100 {
            let placed = place(&image, 900, 3, seed);
            for replicas in &placed {
                let racks: BTreeSet<_> = replicas.iter().map(|id| id / 3).collect();
                assert_eq!(racks.len(), 3, "{replicas:?}");
            }
            for id in 0..9 {
                let held = placed.iter().filter(|replicas| replicas.contains(&id)).count();
                assert_eq!(held, 300, "broker {id}, seed {seed}");
                let led = placed.iter().filter(|replicas| replicas[0] == id).count();
                assert!((50..=150).contains(&led), "broker {id} leads {led}, seed {seed}");
            }
        }
    }

    #[test]
    fn with_one_replica_each_all_brokers_of_all_racks_lead() {
        let placed = place(&image_with_racks(), 9, 1, 7);
        let leaders: BTreeSet<_> = placed.iter().map(|replicas| replicas[0]).collect();
        assert_eq!(leaders.len(), 9, "{placed:?}");
    }

    #[test]
    fn the_same_brokers_do_not_always_follow_the_same_leader() {
        let placed = place(&image_with_brokers(&[1, 2, 3, 4]), 100, 2, 1);
        let followers: BTreeSet<_> =
            placed.iter().filter(|replicas| replicas[0] == 1).map(|replicas| replicas[1]).collect();
        assert_eq!(followers, BTreeSet::from([2, 3, 4]));
    }

    #[test]
    fn a_broker_that_shuts_down_gets_no_new_replica() {
        let mut image = image_with_brokers(&[1, 2, 3]);
        let change = BrokerRegistrationChangeRecord {
            broker_id: 2,
            broker_epoch: 1,
            in_controlled_shutdown: 1,
            ..Default::default()
        };
        image.apply(&change.into()).unwrap();
        assert!(place(&image, 10, 2, 0).iter().all(|replicas| !replicas.contains(&2)));
        assert!(Placer::new(&image, 0).check(3).unwrap_err().contains("only 2 broker(s)"));
    }

    #[test]
    fn a_fenced_broker_holds_a_replica_only_where_it_must_and_never_leads() {
        let mut image = image_with_brokers(&[1, 2, 3]);
        fence(&mut image, 2);
        for seed in 0..100 {
            assert!(place(&image, 4, 2, seed).iter().all(|replicas| !replicas.contains(&2)));
            assert!(place(&image, 4, 3, seed).iter().all(|replicas| replicas[2] == 2));
        }
    }

    #[test]
    fn too_few_brokers_are_told_apart_from_none_that_works() {
        let mut image = image_with_brokers(&[1]);
        let message = Placer::new(&image, 0).check(2).unwrap_err();
        assert_eq!(
            message,
            "The target replication factor of 2 cannot be reached because only 1 broker(s) are \
             registered or some brokers have all their log directories cordoned."
        );
        fence(&mut image, 1);
        let message = Placer::new(&image, 0).check(1).unwrap_err();
        assert!(message.starts_with("All brokers are currently fenced"), "{message}");
    }
}
