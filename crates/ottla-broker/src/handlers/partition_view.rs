//! What a client is told of a partition: who leads it, and which of its replicas are away.

use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_metadata::{Image, Partition};

/// The partitions of a cluster as a client of one listener sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub image: &'a Image,
    /// Brokers are named by their endpoints of this listener.
    pub listener: &'a str,
}

impl View<'_> {
    /// The leader, if a client can reach it.
    ///
    /// # Errors
    /// LEADER_NOT_AVAILABLE, or LISTENER_NOT_FOUND if it is there but not on this listener.
    pub(super) fn leader(self, partition: &Partition) -> Result<BrokerId, ErrorCode> {
        let leader = partition.leader;
        let broker = self.image.broker(leader).ok_or(ErrorCode::LEADER_NOT_AVAILABLE)?;
        broker.endpoint(self.listener).map(|_| leader).ok_or(ErrorCode::LISTENER_NOT_FOUND)
    }

    /// Replicas whose broker is fenced or unknown, or whose log directory has failed.
    pub(super) fn offline_replicas(self, partition: &Partition) -> Vec<i32> {
        let is_offline = |id: &&BrokerId| {
            self.image.broker(**id).is_none_or(|broker| {
                let directory = partition.directory_of(**id).unwrap_or(Uuid::UNASSIGNED_DIR);
                broker.fenced
                    || broker.endpoint(self.listener).is_none()
                    || !is_online(directory, &broker.directories)
            })
        };
        partition.replicas.iter().filter(is_offline).map(|id| id.0).collect()
    }

    /// Whether a client of this listener can reach a broker.
    pub(super) fn is_reachable(self, id: BrokerId) -> bool {
        let broker = self.image.broker(id).filter(|broker| !broker.fenced);
        broker.is_some_and(|broker| broker.endpoint(self.listener).is_some())
    }
}

fn is_online(directory: Uuid, online: &[Uuid]) -> bool {
    match directory {
        Uuid::UNASSIGNED_DIR | Uuid::MIGRATING_DIR => true,
        Uuid::LOST_DIR => false,
        directory => online.is_empty() || online.contains(&directory),
    }
}

pub(super) fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}
