//! A quorum of one in a temporary directory.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ottla_base::{BrokerId, ErrorCode, Uuid};
use ottla_env::SystemClock;
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::controller::{self, BrokerEpoch};
use ottla_metadata::{Delta, Endpoint, Image, feature};
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::{
    BrokerRegistrationRequest, CreateTopicsRequest, CreateTopicsResponse,
};
use ottla_quorum::{
    Config, Dependencies, NoTransport, Publisher, Quorum, SnapshotLimits, StartError, SubmitError,
    Threads,
};

/// Notes what was published.
#[derive(Debug, Default)]
pub struct Recorder(pub Mutex<Vec<(Arc<Image>, Delta)>>);

impl Publisher for Recorder {
    fn publish(&self, image: &Arc<Image>, delta: &Delta) {
        self.0.lock().unwrap().push((Arc::clone(image), delta.clone()));
    }
}

impl Recorder {
    pub fn last(&self) -> (Arc<Image>, Delta) {
        self.0.lock().unwrap().last().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A running quorum, and all that belongs to it.
#[derive(Debug)]
pub struct Node {
    pub quorum: Quorum,
    pub directory: Arc<LogDirectory>,
    pub recorder: Arc<Recorder>,
}

pub async fn try_start(path: &Path) -> Result<Node, StartError> {
    try_start_with(path, 1 << 30).await
}

pub async fn try_start_with(path: &Path, segment_bytes: u64) -> Result<Node, StartError> {
    try_start_snapshotting(path, segment_bytes, SnapshotLimits::default()).await
}

pub async fn try_start_snapshotting(
    path: &Path,
    segment_bytes: u64,
    snapshots: SnapshotLimits,
) -> Result<Node, StartError> {
    let clock = Arc::new(SystemClock::new());
    let options = DirectoryOptions::default();
    let directory = LogDirectory::open(path, LogConfig::default(), options, clock.clone()).unwrap();
    let directory = Arc::new(directory);
    let recorder = Arc::new(Recorder::default());
    let config = Config {
        controller_endpoints: vec![Endpoint {
            listener: "CONTROLLER".into(),
            host: "localhost".into(),
            port: 9093,
            security_protocol: 0,
        }],
        segment_bytes,
        snapshots,
        ..Config::alone(BrokerId(1), "cluster", Uuid([7; 16]), Uuid([8; 16]))
    };
    let dependencies = Dependencies {
        directory: Arc::clone(&directory),
        clock,
        publisher: Arc::clone(&recorder) as Arc<dyn Publisher>,
        transport: Arc::new(NoTransport),
        workers: Arc::new(Threads),
    };
    let quorum = Quorum::start(config, dependencies).await?;
    Ok(Node { quorum, directory, recorder })
}

pub async fn start(path: &Path) -> Node {
    try_start(path).await.unwrap()
}

/// With an unfenced broker, so that topics can be placed.
pub async fn start_with_broker(path: &Path) -> Node {
    let node = start(path).await;
    let epoch = node.register().await;
    node.unfence(epoch).await;
    node
}

impl Node {
    pub async fn register(&self) -> BrokerEpoch {
        let mut incarnation = [0; 16];
        ottla_env::sys::random_bytes(&mut incarnation).unwrap();
        let request = BrokerRegistrationRequest {
            broker_id: 1,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid(incarnation),
            features: feature::of_registration(),
            rack: None,
            log_dirs: vec![Uuid([7; 16])],
            ..Default::default()
        };
        self.quorum.register_broker(request).await.unwrap().unwrap()
    }

    /// Lets the broker lead and be seen, without a heartbeat and without a session that could end.
    pub async fn unfence(&self, epoch: BrokerEpoch) {
        let decided = self.quorum.decide_or_reject(move |desk| {
            controller::unfence_broker(desk.image, desk.policy, BrokerId(1), epoch.0)
        });
        decided.await.unwrap().unwrap();
    }

    pub async fn create_with(
        &self,
        request: CreateTopicsRequest,
    ) -> Result<CreateTopicsResponse, SubmitError> {
        let decided = self.quorum.decide(move |desk| {
            controller::create_topics(desk.image, desk.policy, &request, desk.draw)
        });
        decided.await
    }

    pub async fn create(&self, names: &[&str]) -> Result<Vec<ErrorCode>, SubmitError> {
        let response = self.create_with(create_request(names, 1)).await?;
        Ok(response.topics.iter().map(|topic| topic.error_code).collect())
    }

    pub fn topics(&self) -> Vec<String> {
        self.quorum.image().topics().map(|topic| topic.name.to_string()).collect()
    }

    /// Stops in order, so that the next start finds a clean directory.
    pub async fn stop(self) {
        self.quorum.shutdown().await;
        self.directory.close(-1).unwrap();
    }
}

pub fn create_request(names: &[&str], num_partitions: i32) -> CreateTopicsRequest {
    let topic = |name: &&str| CreatableTopic {
        name: (*name).into(),
        num_partitions,
        replication_factor: 1,
        ..Default::default()
    };
    CreateTopicsRequest { topics: names.iter().map(topic).collect(), ..Default::default() }
}

/// What a crash right now would leave, without the lock.
///
/// A crash comes at one moment, a copy takes its time: it is made again if files came, went or were renamed meanwhile,
/// such as a snapshot that is installed, and the segment that begins after it.
pub fn copy_of(path: &Path) -> tempfile::TempDir {
    loop {
        let before = files_in(path);
        let copy = tempfile::tempdir().unwrap();
        copy_files(path, copy.path());
        if files_in(path) == before {
            return copy;
        }
    }
}

fn files_in(path: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            files.extend(files_in(&entry.path()));
        }
        files.insert(entry.path());
    }
    files
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else if entry.file_name() != ".lock" {
            match std::fs::copy(entry.path(), target) {
                // A file that was being written to take another's place has done so.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

pub fn metadata_log(path: &Path) -> PathBuf {
    path.join("__cluster_metadata-0")
}

pub fn segment(path: &Path) -> PathBuf {
    metadata_log(path).join("00000000000000000000.log")
}
