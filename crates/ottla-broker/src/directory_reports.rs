//! What the controller has to learn about this broker's log directories: which replicas are where, and which directories
//! have failed. Shell.
//!
//! Reports are gathered at any time, from any thread, and go out in the order of their importance: a failure first. What
//! the controller does not take is sent again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ottla_base::{ErrorCode, Offset, TopicId, Uuid};
use ottla_log::{FlushListener, StorageError};
use ottla_protocol::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData, TopicData,
};
use ottla_protocol::messages::{AssignReplicasToDirsRequest, BrokerHeartbeatRequest};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::broker::Registration;
use crate::controller_channel::{ControllerChannel, Unanswered};
use crate::controller_requests::ControllerRequest;
use crate::log_directories::LogDirectories;
use crate::peers::Purpose;

/// How long the controller is left alone that has not taken a report.
const RETRY: Duration = Duration::from_millis(500);

/// What is to be reported.
#[derive(Debug, Default)]
pub(crate) struct DirectoryReports {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default, Clone)]
struct Waiting {
    /// The last word on each replica counts.
    assigned: BTreeMap<(TopicId, i32), Uuid>,
    failed: BTreeSet<Uuid>,
}

impl DirectoryReports {
    /// A replica is in this directory now.
    pub(crate) fn assigned(&self, topic_id: TopicId, partition: i32, directory: Uuid) {
        self.waiting.lock().assigned.insert((topic_id, partition), directory);
        self.changed.notify_one();
    }

    /// Where the controller is to be told that a replica is, until it has taken that.
    pub(crate) fn waiting_for(&self, topic_id: TopicId, partition: i32) -> Option<Uuid> {
        self.waiting.lock().assigned.get(&(topic_id, partition)).copied()
    }

    /// The controller has taken where replicas are.
    #[cfg(test)]
    pub(crate) fn all_taken(&self) {
        self.waiting.lock().assigned.clear();
    }

    fn failed(&self, directory: Uuid) {
        self.waiting.lock().failed.insert(directory);
        self.changed.notify_one();
    }

    /// Sends what there is to report, until the quorum has stopped or the node stops.
    pub(crate) async fn send(
        self: Arc<Self>,
        controller: Arc<ControllerChannel>,
        registration: Registration,
        mut stopping: watch::Receiver<bool>,
    ) {
        let work = async {
            loop {
                self.changed.notified().await;
                while !self.send_once(&controller, registration).await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    /// Whether all was taken that there was.
    async fn send_once(&self, controller: &ControllerChannel, registration: Registration) -> bool {
        let sent = self.waiting.lock().clone();
        let taken = send_failed(controller, registration, &sent.failed).await
            && send_assigned(controller, registration, &sent.assigned).await;
        if taken {
            let mut waiting = self.waiting.lock();
            waiting.failed.retain(|directory| !sent.failed.contains(directory));
            waiting.assigned.retain(|replica, at| sent.assigned.get(replica) != Some(at));
        }
        taken
    }
}

async fn send_failed(
    controller: &ControllerChannel,
    registration: Registration,
    failed: &BTreeSet<Uuid>,
) -> bool {
    if failed.is_empty() {
        return true;
    }
    let request = heartbeat(registration, controller.metadata_offset(), failed);
    // Not over another connection: the controller takes the end of the one that the latest came on for a sign of death.
    is_taken::<BrokerHeartbeatRequest>(
        controller.ask(Purpose::Heartbeats, request).await,
        "that log directories have failed",
    )
}

/// One that the controller takes as it takes the others: while brokers shut down it waits for what each of them knows.
fn heartbeat(
    Registration { id, epoch }: Registration,
    metadata_offset: Offset,
    failed: &BTreeSet<Uuid>,
) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id: id.0,
        broker_epoch: epoch,
        current_metadata_offset: metadata_offset.0,
        offline_log_dirs: failed.iter().copied().collect(),
        ..BrokerHeartbeatRequest::default()
    }
}

async fn send_assigned(
    controller: &ControllerChannel,
    Registration { id, epoch }: Registration,
    assigned: &BTreeMap<(TopicId, i32), Uuid>,
) -> bool {
    if assigned.is_empty() {
        return true;
    }
    let directories = by_directory(assigned);
    let request = AssignReplicasToDirsRequest { broker_id: id.0, broker_epoch: epoch, directories };
    // A partition that the controller does not know was deleted meanwhile.
    is_taken::<AssignReplicasToDirsRequest>(
        controller.ask(Purpose::Controller, request).await,
        "where replicas are",
    )
}

fn is_taken<R: ControllerRequest>(answer: Result<R::Response, Unanswered>, what: &str) -> bool {
    match answer.map(|response| R::error_of(&response)) {
        Ok(ErrorCode::NONE) => true,
        Ok(code) => {
            warn!(%code, "the controller does not take {what}");
            false
        }
        Err(error) => {
            warn!(%error, "the controller can't be told {what}");
            false
        }
    }
}

fn by_directory(assigned: &BTreeMap<(TopicId, i32), Uuid>) -> Vec<DirectoryData> {
    let mut sorted: BTreeMap<Uuid, BTreeMap<TopicId, Vec<PartitionData>>> = BTreeMap::new();
    for ((topic_id, partition), directory) in assigned {
        let partitions = sorted.entry(*directory).or_default().entry(*topic_id).or_default();
        partitions.push(PartitionData { partition_index: *partition });
    }
    let topic = |(topic_id, partitions)| TopicData { topic_id, partitions };
    let directory = |(id, topics): (Uuid, BTreeMap<_, _>)| DirectoryData {
        id,
        topics: topics.into_iter().map(topic).collect(),
    };
    sorted.into_iter().map(directory).collect()
}

/// Is told when a directory fails, and decides whether the node can go on.
#[derive(Debug)]
pub(crate) struct FailureWatch {
    reports: Arc<DirectoryReports>,
    ids: HashMap<PathBuf, Uuid>,
    metadata: PathBuf,
    /// Members that have not failed.
    online: AtomicUsize,
    fatal: watch::Sender<Option<String>>,
}

impl FailureWatch {
    pub(crate) fn new(directories: &LogDirectories, reports: Arc<DirectoryReports>) -> Self {
        let path_and_id = directories.members().iter().map(|it| (it.path().to_owned(), it.id));
        let ids: HashMap<PathBuf, Uuid> = path_and_id.collect();
        Self {
            reports,
            metadata: directories.metadata().path().to_owned(),
            online: AtomicUsize::new(ids.len()),
            ids,
            fatal: watch::Sender::new(None),
        }
    }

    /// Why the node can't go on, once it can't.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    fn stop_node(&self, reason: String) {
        self.fatal.send_if_modified(|fatal| {
            let is_first = fatal.is_none();
            fatal.get_or_insert(reason);
            is_first
        });
    }
}

impl FlushListener for FailureWatch {
    /// Told once for each directory.
    fn poisoned(&self, directory: &Path, error: &StorageError) {
        if let Some(id) = self.ids.get(directory) {
            self.reports.failed(*id);
            if self.online.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.stop_node(format!(
                    "all log directories have failed, the last one with: {error}"
                ));
            }
        }
        if directory == self.metadata {
            let directory = directory.display();
            self.stop_node(format!(
                "the log directory with the metadata, {directory}, has failed: {error}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::BrokerId;

    use super::*;

    #[test]
    fn a_failure_is_told_with_a_heartbeat_that_says_how_far_this_broker_s_metadata_goes() {
        let registration = Registration { id: BrokerId(1), epoch: 7 };
        let directory = Uuid::from_u128(1000);
        let told = heartbeat(registration, Offset(41), &BTreeSet::from([directory]));
        let expected = BrokerHeartbeatRequest {
            broker_id: 1,
            broker_epoch: 7,
            current_metadata_offset: 41,
            want_fence: false,
            want_shut_down: false,
            offline_log_dirs: vec![directory],
            cordoned_log_dirs: None,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn the_last_word_on_a_replica_is_reported_once_under_its_directory() {
        let reports = DirectoryReports::default();
        let [topic, first, second] = [7, 1000, 1001].map(Uuid::from_u128);
        reports.assigned(topic, 0, first);
        reports.assigned(topic, 0, second);
        reports.assigned(topic, 1, second);
        let data = by_directory(&reports.waiting.lock().assigned);
        let [data] = &*data else { panic!("{data:?}") };
        let partitions: Vec<_> =
            data.topics[0].partitions.iter().map(|it| it.partition_index).collect();
        assert_eq!((data.id, data.topics.len(), partitions), (second, 1, vec![0, 1]));
    }
}
