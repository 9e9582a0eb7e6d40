//! A controller that elects members of the ISR only, and never forgets: each of its states is a version, which the brokers
//! learn of in order, some later than others.

use std::collections::{BTreeMap, BTreeSet};

use ottla_base::{BrokerId, ErrorCode};
use ottla_replication::{CommittedIsr, Proposal};

#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub broker_epoch: i64,
    pub is_fenced: bool,
}

/// What the metadata says.
#[derive(Debug, Clone)]
pub struct Version {
    pub leader: Option<BrokerId>,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub isr: BTreeSet<BrokerId>,
    pub brokers: BTreeMap<BrokerId, Registration>,
}

impl Version {
    pub fn is_eligible(&self, broker: BrokerId, broker_epoch: i64) -> bool {
        self.brokers.get(&broker).is_some_and(|it| !it.is_fenced && it.broker_epoch == broker_epoch)
    }

    pub fn committed(&self) -> CommittedIsr {
        CommittedIsr {
            leader_epoch: ottla_base::LeaderEpoch(self.leader_epoch),
            partition_epoch: self.partition_epoch,
            isr: self.isr.clone(),
        }
    }
}

#[derive(Debug)]
pub struct Controller {
    pub versions: Vec<Version>,
    broker_epochs: i64,
}

impl Controller {
    pub fn new(brokers: &[BrokerId]) -> Self {
        let registered = |(at, broker): (usize, &BrokerId)| {
            let broker_epoch = i64::try_from(at).unwrap() + 1;
            (*broker, Registration { broker_epoch, is_fenced: false })
        };
        let first = Version {
            leader: Some(brokers[0]),
            leader_epoch: 0,
            partition_epoch: 0,
            isr: brokers.iter().copied().collect(),
            brokers: brokers.iter().enumerate().map(registered).collect(),
        };
        Self { versions: vec![first], broker_epochs: 100 }
    }

    pub fn now(&self) -> &Version {
        self.versions.last().unwrap()
    }

    fn change(&mut self, change: impl FnOnce(&mut Version)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.versions.push(next);
    }

    /// Whoever was silent for too long leaves the ISR, unless it is the last one there.
    pub fn fence(&mut self, broker: BrokerId) {
        self.change(|it| {
            it.brokers.get_mut(&broker).unwrap().is_fenced = true;
            let is_changed = it.isr.len() > 1 && it.isr.remove(&broker);
            let leads = it.leader == Some(broker);
            if leads {
                it.elect(None);
            } else if is_changed {
                it.partition_epoch += 1;
            }
        });
    }

    pub fn unfence(&mut self, broker: BrokerId) {
        self.change(|it| {
            it.brokers.get_mut(&broker).unwrap().is_fenced = false;
            if it.leader.is_none() {
                it.elect(None);
            }
        });
    }

    /// A broker that has started comes with a new epoch, and fenced.
    pub fn register(&mut self, broker: BrokerId) -> i64 {
        self.fence(broker);
        self.broker_epochs += 1;
        let broker_epoch = self.broker_epochs;
        let registration = Registration { broker_epoch, is_fenced: true };
        self.change(|it| _ = it.brokers.insert(broker, registration));
        broker_epoch
    }

    /// Somebody asks for another leader.
    pub fn elect(&mut self, wish: BrokerId) {
        self.change(|it| it.elect(Some(wish)));
    }

    pub fn alter(
        &mut self,
        from: BrokerId,
        proposal: &Proposal,
    ) -> Result<CommittedIsr, ErrorCode> {
        let now = self.now();
        if now.leader != Some(from) || now.leader_epoch != proposal.leader_epoch.0 {
            return Err(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if now.partition_epoch != proposal.partition_epoch {
            return Err(ErrorCode::INVALID_UPDATE_VERSION);
        }
        for member in &proposal.isr {
            let is_known = now.brokers.get(&member.broker).is_some_and(|it| {
                !it.is_fenced && [it.broker_epoch, -1].contains(&member.broker_epoch)
            });
            if !is_known {
                return Err(ErrorCode::INELIGIBLE_REPLICA);
            }
        }
        self.change(|it| {
            it.isr = proposal.isr.iter().map(|member| member.broker).collect();
            it.partition_epoch += 1;
        });
        Ok(self.now().committed())
    }
}

impl Version {
    /// In a new leader epoch, and nobody if all of the ISR are fenced.
    fn elect(&mut self, wish: Option<BrokerId>) {
        let may_lead = |it: &&BrokerId| self.isr.contains(it) && !self.brokers[*it].is_fenced;
        let leader = wish.as_ref().filter(may_lead).or_else(|| self.isr.iter().find(may_lead));
        self.leader = leader.copied();
        self.leader_epoch += 1;
        self.partition_epoch += 1;
    }
}
