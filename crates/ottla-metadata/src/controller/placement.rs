//! Which brokers hold a new partition: striped over racks and brokers, unfenced ones first. Pure.
//!
//! As Kafka's placer does, each partition begins one rack further than the one before, and inside
//! a rack one broker further; the first replica, which will lead, is on an unfenced broker. Where
//! Kafka draws random numbers, a seed that comes in decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::BrokerId;

use crate::image::{Broker, Image};

/// Places the replicas of one topic's partitions; the error is Kafka's message about it.
#[derive(Debug)]
pub(super) struct Placer {
    /// Ordered by name; brokers without a rack share one.
    racks: Vec<Rack>,
    /// The rack that the next partition begins with.
    first_rack: usize,
    brokers: usize,
    unfenced: usize,
}

#[derive(Debug, Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

/// Brokers in a circle, each returned once per partition, beginning one further for each partition.
#[derive(Debug, Default)]
struct Ring {
    brokers: Vec<BrokerId>,
    start: usize,
    taken: usize,
}

impl Ring {
    fn next(&mut self) -> Option<BrokerId> {
        if self.taken == self.brokers.len() {
            return None;
        }
        let at = (self.start + self.taken) % self.brokers.len();
        self.taken += 1;
        self.brokers.get(at).copied()
    }

    fn turn(&mut self) {
        self.taken = 0;
        self.start = self.start.wrapping_add(1);
    }
}

impl Placer {
    /// `seed` decides where the stripes begin.
    pub(super) fn new(image: &Image, seed: u64) -> Self {
        let mut by_rack: BTreeMap<Option<Arc<str>>, Rack> = BTreeMap::new();
        for broker in image.brokers().filter(|broker| broker.has_uncordoned_directory()) {
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
        let mut draw = Draws(seed);
        for rack in &mut racks {
            rack.unfenced.start = draw.next();
            rack.fenced.start = draw.next();
        }
        Self { racks, first_rack: draw.next(), brokers, unfenced }
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
        let racks = self.racks.len();
        let mut replicas = Vec::with_capacity(factor);
        let leader_rack =
            (self.first_rack..self.first_rack + racks).map(|rack| rack % racks).find(|rack| {
                let rack = self.racks.get_mut(*rack).expect("an index below the length");
                let leader = rack.unfenced.next();
                replicas.extend(leader);
                leader.is_some()
            });
        // The leader's rack has had its turn; the others follow, then all again.
        let mut rack = leader_rack.map_or(0, |rack| rack + 1);
        while replicas.len() < factor {
            let at = self.racks.get_mut(rack % racks).expect("an index below the length");
            replicas.extend(at.unfenced.next().or_else(|| at.fenced.next()));
            rack += 1;
        }
        self.turn();
        replicas
    }

    fn turn(&mut self) {
        self.first_rack = (self.first_rack + 1) % self.racks.len();
        for rack in &mut self.racks {
            rack.unfenced.turn();
            rack.fenced.turn();
        }
    }
}

/// Small numbers that differ from seed to seed (SplitMix64).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Sixteen bits are plenty for a starting point, and leave room to count up from there.
        usize::from(u16::try_from(mixed >> 48).expect("sixteen bits"))
    }
}

/// The directory of each replica, where it is known.
pub(super) fn directories(image: &Image, replicas: &[BrokerId]) -> Vec<ottla_base::Uuid> {
    let directory = |id: &BrokerId| {
        image.broker(*id).map_or(ottla_base::Uuid::UNASSIGNED_DIR, Broker::default_directory)
    };
    replicas.iter().map(directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::brokers::tests::{fence, image_with_brokers};
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
