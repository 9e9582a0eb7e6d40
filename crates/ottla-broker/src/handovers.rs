//! What this broker leads on a full disk it hands over to members of the ISR elsewhere, and it does not follow there until
//! there is room: a follower that can't append would come back into the ISR while nothing is written, and then hold
//! everybody up for `replica.lag.time.max.ms`. A follower in the ISR that could not append leaves it at once for the same reason.
//! Shell, around a pure plan.
//!
//! The controller is told with Kafka's AssignReplicasToDirs that the replica's directory is lost, which takes the broker out
//! of the ISR and elects another member (`docs/decisions/018-full-disk.md` says why not otherwise). Who is the only member
//! keeps leading: records are refused and can still be read.
//!
//! Invariant: a partition that is away is not fetched.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{BrokerId, PartitionIndex, TopicId, Uuid};
use ottla_metadata::{Image, Partition};
use ottla_quorum::Quorum;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::directory_reports::DirectoryReports;
use crate::fetchers::Fetchers;
use crate::listener::stopped;
use crate::log_directories::LogDirectories;
use crate::replica::Replica;
use crate::replicas::Replicas;

type Key = (TopicId, PartitionIndex);

/// How often a full disk is looked at, while something has been handed over because of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which partitions are away.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    away: Mutex<HashSet<Key>>,
    /// Followers that could not append for want of room.
    stuck: Mutex<HashSet<Key>>,
    due: Notify,
}

/// What is to be done about one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Nothing,
    HandOver,
    /// The controller takes the log for lost, and nobody else has one.
    Reclaim,
    /// There is room again.
    Return,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
struct Situation {
    is_full: bool,
    is_away: bool,
    leads: bool,
    /// It follows, could not append, and is waited for.
    holds_up: bool,
    is_lost: bool,
    /// Whether somebody else in the ISR can take over.
    has_others: bool,
}

impl Situation {
    const fn plan(self) -> Plan {
        match self {
            Self { is_lost: true, has_others: false, .. } => Plan::Reclaim,
            Self { is_full: true, leads: true, has_others: true, .. }
            | Self { is_full: true, holds_up: true, has_others: true, .. } => Plan::HandOver,
            Self { is_full: false, is_away: true, .. } => Plan::Return,
            Self { .. } => Plan::Nothing,
        }
    }
}

/// Whom a handover takes.
#[derive(Debug)]
pub(crate) struct Parts {
    pub node_id: BrokerId,
    pub quorum: Arc<Quorum>,
    pub directories: Arc<LogDirectories>,
    pub replicas: Arc<Replicas>,
    pub fetchers: Arc<Fetchers>,
    pub reports: Arc<DirectoryReports>,
}

impl Handovers {
    /// A disk is full, or is no longer, or something is led from it: see what follows.
    pub(crate) fn look(&self) {
        self.due.notify_one();
    }

    /// A follower could not append for want of room.
    pub(crate) fn stuck(&self, replica: &Replica) {
        if self.stuck.lock().insert(key(replica)) {
            self.look();
        }
    }

    /// Lets a replica be fetched, or not, as long as nothing changes about that.
    pub(crate) fn with<T>(&self, replica: &Replica, work: impl FnOnce(IsAway) -> T) -> T {
        let away = self.away.lock();
        work(away.contains(&key(replica)))
    }

    pub(crate) async fn run(self: Arc<Self>, parts: Parts, mut stopping: watch::Receiver<bool>) {
        loop {
            let is_waiting = !self.away.lock().is_empty() || !self.stuck.lock().is_empty();
            tokio::select! {
                () = self.due.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if is_waiting => {}
                () = stopped(&mut stopping) => return,
            }
            let (image, all) = (parts.quorum.image(), parts.replicas.all());
            for replica in &all {
                self.look_at(&parts, &image, replica);
            }
            if is_waiting {
                self.forget_others(&all);
            }
        }
    }

    /// What is known of replicas that have gone.
    fn forget_others(&self, all: &[Arc<Replica>]) {
        let all: HashSet<Key> = all.iter().map(|replica| key(replica)).collect();
        for known in [&self.away, &self.stuck] {
            known.lock().retain(|key| all.contains(key));
        }
    }

    /// Whether a follower lacks room still.
    fn is_stuck(&self, replica: &Replica, is_full: bool) -> bool {
        let mut stuck = self.stuck.lock();
        if !is_full {
            stuck.remove(&key(replica));
        }
        stuck.contains(&key(replica))
    }

    fn look_at(&self, parts: &Parts, image: &Image, replica: &Arc<Replica>) {
        let (topic_id, index) = key(replica);
        let partition = image.topic(topic_id).and_then(|topic| topic.partition(index));
        let Some(partition) = partition else { return };
        let member = parts.directories.at(replica.log().directory());
        let Some(member) = member.filter(|member| member.is_online()) else { return };
        let is_full = member.directory.is_full();
        let is_stuck = self.is_stuck(replica, is_full);
        let situation = Situation {
            is_full,
            is_away: self.away.lock().contains(&key(replica)),
            leads: replica.led_epoch().is_some(),
            holds_up: is_stuck && partition.isr.contains(&parts.node_id),
            is_lost: partition.directory_of(parts.node_id) == Some(Uuid::LOST_DIR),
            has_others: has_others(image, partition, parts.node_id),
        };
        let name = &replica.partition;
        match situation.plan() {
            Plan::Nothing => {}
            Plan::HandOver => {
                if self.away.lock().insert(key(replica)) {
                    warn!(partition = %name, "the disk is full: the other replicas go on without this one");
                }
                parts.reports.assigned(topic_id, index.0, Uuid::LOST_DIR);
            }
            Plan::Reclaim => {
                warn!(partition = %name, "nobody else can lead: it stays here, on the full disk");
                self.away.lock().remove(&key(replica));
                parts.reports.assigned(topic_id, index.0, member.id);
            }
            Plan::Return => {
                info!(partition = %name, "the disk has room again: the leader is followed");
                let mut away = self.away.lock();
                away.remove(&key(replica));
                parts.fetchers.follow(replica, replica.followed_leader());
                parts.reports.assigned(topic_id, index.0, member.id);
            }
        }
    }
}

type IsAway = bool;

fn key(replica: &Replica) -> Key {
    (replica.topic_id, replica.partition.partition)
}

/// Whether somebody else in the ISR can lead.
pub(crate) fn has_others(image: &Image, partition: &Partition, me: BrokerId) -> bool {
    partition.isr.iter().any(|id| *id != me && image.has_usable_replica(partition, *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADS: Situation = Situation {
        is_full: true,
        is_away: false,
        leads: true,
        holds_up: false,
        is_lost: false,
        has_others: true,
    };

    #[test]
    fn a_leader_on_a_full_disk_hands_over_if_there_is_somebody() {
        assert_eq!(LEADS.plan(), Plan::HandOver);
        assert_eq!(Situation { has_others: false, ..LEADS }.plan(), Plan::Nothing);
        assert_eq!(Situation { is_full: false, ..LEADS }.plan(), Plan::Nothing);
        let elected_again = Situation { is_away: true, ..LEADS };
        assert_eq!(elected_again.plan(), Plan::HandOver);
    }

    #[test]
    fn a_follower_comes_back_when_there_is_room() {
        let away = Situation { is_away: true, leads: false, ..LEADS };
        assert_eq!(away.plan(), Plan::Nothing);
        assert_eq!(Situation { is_full: false, ..away }.plan(), Plan::Return);
        let never_away = Situation { is_away: false, leads: false, ..LEADS };
        assert_eq!(never_away.plan(), Plan::Nothing, "it may still catch up");
    }

    #[test]
    fn a_follower_that_could_not_append_holds_nobody_up() {
        let idle = Situation { leads: false, ..LEADS };
        assert_eq!(idle.plan(), Plan::Nothing, "nothing has been written");
        let stuck = Situation { holds_up: true, ..idle };
        assert_eq!(stuck.plan(), Plan::HandOver);
        assert_eq!(Situation { is_full: false, ..stuck }.plan(), Plan::Nothing);
        assert_eq!(Situation { has_others: false, ..stuck }.plan(), Plan::Nothing);
    }

    #[test]
    fn the_last_one_of_the_isr_takes_its_log_back() {
        let lost = Situation { is_lost: true, has_others: false, leads: false, ..LEADS };
        assert_eq!(lost.plan(), Plan::Reclaim);
        assert_eq!(Situation { is_full: false, ..lost }.plan(), Plan::Reclaim);
        let handing_over = Situation { is_lost: true, is_away: true, leads: false, ..LEADS };
        assert_eq!(handing_over.plan(), Plan::Nothing);
    }
}
