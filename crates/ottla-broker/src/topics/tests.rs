//! A broker with two log directories is told metadata, and has the logs that it is to have.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ottla_base::{ErrorCode, LeaderEpoch, Offset, Timestamp};
use ottla_config::{Loaded, Sources};
use ottla_env::{Disk, DiskLayer, OsDisk, SystemClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory, Move};
use ottla_protocol::records::{
    ConfigRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
    RemoveTopicRecord, TopicRecord,
};
use ottla_replication::Windows;
use tokio::sync::watch;

use super::*;
use crate::fetchers::FetchSettings;
use crate::hang_ups::HangUps;
use crate::log_directories::{DataDirectories, DataDirectory};
use crate::log_moves::Step;
use crate::replica::one_record;

const ME: BrokerId = BrokerId(1);
const INCARNATION: Uuid = Uuid([5; 16]);
const TOPIC: TopicId = Uuid([7; 16]);
const TOPIC_MADE_ANEW: TopicId = Uuid([8; 16]);
const A: Uuid = Uuid([1; 16]);
const B: Uuid = Uuid([2; 16]);

/// A broker that has registered, and knows of nothing else.
struct Fixture {
    root: tempfile::TempDir,
    disk: Arc<TestDisk>,
    image: Image,
    topics: Arc<Topics>,
}

/// The system's disk, on which something happens while the copy of a log that moves is made, and that may have no room or
/// fail.
#[derive(Default)]
struct TestDisk {
    /// What can't be flushed any more once there is such a directory in it.
    fails_with: Mutex<Option<PathBuf>>,
    /// Where nothing can be made.
    full: Mutex<Option<PathBuf>>,
    /// Where nothing can be made, though there is room.
    broken: Mutex<Option<PathBuf>>,
    /// In which directory nothing can be renamed.
    keeps_names: Mutex<Option<PathBuf>>,
    on_copy: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for TestDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDisk").finish_non_exhaustive()
    }
}

impl DiskLayer for TestDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if self.full.lock().as_ref().is_some_and(|full| path.starts_with(full)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.broken.lock().as_ref().is_some_and(|broken| path.starts_with(broken)) {
            return Err(io::Error::other("injected: nothing can be made"));
        }
        if path.to_string_lossy().ends_with("-future")
            && let Some(happens) = self.on_copy.lock().take()
        {
            happens();
        }
        OsDisk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let keeps_names = self.keeps_names.lock().clone();
        if keeps_names.is_some_and(|it| from.parent() == Some(&it)) {
            return Err(io::Error::other("injected: names stay as they are"));
        }
        OsDisk.rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let fails_with = self.fails_with.lock().clone();
        if fails_with.is_some_and(|it| it.parent() == Some(path) && it.exists()) {
            return Err(io::Error::other("injected: the disk is broken"));
        }
        OsDisk.sync_directory(path)
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(&[])
    }

    /// Logs of these topics are in these directories already.
    fn with(logs: &[(&str, TopicId)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::<TestDisk>::default();
        for (directory, topic_id) in logs {
            let (config, options) = (LogConfig::default(), DirectoryOptions::default());
            let path = root.path().join(directory);
            let directory =
                LogDirectory::open(&path, config.clone(), options, Arc::new(SystemClock::new()));
            let name = TopicPartition::new("t", 0);
            directory.unwrap().create(name, *topic_id, Arc::new(config)).unwrap();
        }
        Self::begin(root, disk, [])
    }

    /// Directory B can't be read, and this is in the metadata when the broker begins.
    fn without_b<const N: usize>(records: [MetadataRecord; N]) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("b"), "no directory").unwrap();
        Self::begin(root, Arc::default(), records)
    }

    fn begin<const N: usize>(
        root: tempfile::TempDir,
        disk: Arc<TestDisk>,
        records: [MetadataRecord; N],
    ) -> Self {
        let topics = Arc::new(topics_in(open_directories(&root, Arc::clone(&disk) as _)));
        let mut fixture = Self { root, disk, image: Image::new("cluster"), topics };
        fixture.learn([registration()].into_iter().chain(records));
        fixture
    }

    /// Applies records and carries them out together, as a broker does that has not heard of them for a while.
    fn learn(&mut self, records: impl IntoIterator<Item = MetadataRecord>) {
        self.about_to_learn(records)();
    }

    /// What [`Self::learn`] does, to be done at some time.
    fn about_to_learn<R: IntoIterator<Item = MetadataRecord>>(
        &mut self,
        records: R,
    ) -> impl FnOnce() + Send + use<R> {
        let mut delta = Delta::default();
        for record in records {
            self.image.apply_into(&record, &mut delta).unwrap();
        }
        let (topics, image) = (Arc::clone(&self.topics), Arc::new(self.image.clone()));
        move || topics.publish(&image, &delta)
    }

    fn replica(&self, topic: TopicId) -> Option<Arc<Replica>> {
        self.topics.replicas.find(topic, 0)
    }

    /// The topic id of the log that has the name.
    fn log_id(&self) -> Option<TopicId> {
        let name = TopicPartition::new("t", 0);
        let ids: Vec<_> = self.topics.directories.named(&name).collect();
        assert!(ids.len() < 2);
        ids.first().and_then(|log| log.topic_id())
    }

    /// What is there of logs, in both directories, without the random part of a name.
    fn names(&self) -> Vec<String> {
        let list = |name: &str| std::fs::read_dir(self.root.path().join(name)).unwrap();
        let entries = ["a", "b"].into_iter().flat_map(list);
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.filter(|name| name.starts_with("t-"));
        let mut names: Vec<String> = names
            .map(|name| match (name.split_once('.'), name.rsplit_once('-')) {
                (Some((log, _)), Some((_, what))) => format!("{log} {what}"),
                _ => name,
            })
            .collect();
        names.sort();
        names
    }
}

fn open_directories(root: &tempfile::TempDir, disk: Arc<dyn Disk>) -> Arc<LogDirectories> {
    let path = |name: &str| -> PathBuf { root.path().join(name) };
    let usable =
        vec![DataDirectory { path: path("a"), id: A }, DataDirectory { path: path("b"), id: B }];
    let metadata = DataDirectory { path: path("metadata"), id: Uuid([3; 16]) };
    let given = DataDirectories { usable, unreadable: Vec::new(), metadata };
    let options = DirectoryOptions { disk, ..DirectoryOptions::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Arc::new(LogDirectories::open(&given, &LogConfig::default(), &options, &clock).unwrap())
}

fn topics_in(directories: Arc<LogDirectories>) -> Topics {
    let Loaded { config, settings, .. } = ottla_config::load(&Sources::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (replicas, reports) = (Arc::<Replicas>::default(), Arc::<DirectoryReports>::default());
    let configuration = Arc::new(Configuration::new(ME, settings));
    let moves = Arc::new(LogMoves::new(
        Arc::clone(&directories),
        Arc::clone(&replicas),
        Arc::clone(&reports),
        Arc::clone(&configuration),
    ));
    let windows = Windows { count: 11, size: Duration::from_secs(1) };
    let throttles = Arc::new(Throttles::new(windows));
    let fetch = FetchSettings {
        wait_max_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        response_max_bytes: 10 << 20,
        fetchers: 1,
    };
    let hang_ups = Arc::<HangUps>::default();
    let fetchers = Fetchers::new(
        Arc::clone(&directories),
        Arc::clone(&clock),
        fetch,
        Arc::clone(&throttles),
        hang_ups,
    );
    Topics {
        me: Incarnation { broker: ME, id: INCARNATION },
        lag_max: Duration::from_secs(30),
        fetch_backoff: Duration::from_secs(1),
        fetchers: Arc::new(fetchers),
        throttles,
        directories,
        replicas,
        configuration,
        groups: Arc::new(GroupCoordinator::new(&config, Arc::clone(&clock))),
        clock,
        reports,
        moves,
        started: AtomicBool::new(false),
        strays: Mutex::default(),
        absent: Mutex::default(),
        returned: Mutex::default(),
        missing: MissingLogs::default(),
        published: Mutex::default(),
        cleaner: None,
    }
}

fn registration() -> MetadataRecord {
    registration_of(INCARNATION, &[A, B])
}

fn registration_of(incarnation_id: Uuid, directories: &[Uuid]) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: ME.0,
        broker_epoch: 1,
        incarnation_id,
        log_dirs: directories.to_vec(),
        ..RegisterBrokerRecord::default()
    }
    .into()
}

fn topic(topic_id: TopicId) -> MetadataRecord {
    topic_named("t", topic_id)
}

fn topic_named(name: &'static str, topic_id: TopicId) -> MetadataRecord {
    TopicRecord { name: name.into(), topic_id }.into()
}

/// A partition that the first of its replicas leads; this broker's replica is in directory A.
fn partition(topic_id: TopicId, replicas: &[i32]) -> MetadataRecord {
    partition_in(A, topic_id, 0, replicas)
}

fn partition_in(
    directory: Uuid,
    topic_id: TopicId,
    partition_id: i32,
    replicas: &[i32],
) -> MetadataRecord {
    PartitionRecord {
        partition_id,
        topic_id,
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
        leader: *replicas.first().unwrap(),
        directories: vec![directory; replicas.len()],
        ..PartitionRecord::default()
    }
    .into()
}

fn held_by(topic_id: TopicId, replicas: &[i32]) -> MetadataRecord {
    PartitionChangeRecord {
        partition_id: 0,
        topic_id,
        replicas: Some(replicas.to_vec()),
        isr: Some(replicas.to_vec()),
        leader: *replicas.first().unwrap(),
        directories: Some(vec![A; replicas.len()]),
        ..PartitionChangeRecord::default()
    }
    .into()
}

/// What the metadata says once the controller has taken where the replica is.
fn now_in(directory: Uuid) -> MetadataRecord {
    PartitionChangeRecord {
        partition_id: 0,
        topic_id: TOPIC,
        directories: Some(vec![directory, A]),
        ..PartitionChangeRecord::default()
    }
    .into()
}

fn removal(topic_id: TopicId) -> MetadataRecord {
    RemoveTopicRecord { topic_id }.into()
}

#[test]
fn a_topic_that_left_this_broker_and_was_deleted_in_one_run_leaves_nothing_here() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    let replica = fixture.replica(TOPIC).unwrap();
    assert_eq!(fixture.log_id(), Some(TOPIC));
    fixture.learn([held_by(TOPIC, &[2, 3]), removal(TOPIC)]);
    assert!(fixture.replica(TOPIC).is_none());
    replica.check_alive().unwrap_err();
    assert_eq!((fixture.log_id(), fixture.names()), (None, vec!["t-0 delete".to_owned()]));
}

#[test]
fn a_topic_of_the_same_name_begins_anew_although_the_one_before_had_left_in_the_same_run() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    let made_anew = [topic(TOPIC_MADE_ANEW), partition(TOPIC_MADE_ANEW, &[1, 2])];
    fixture.learn([held_by(TOPIC, &[2, 3]), removal(TOPIC)].into_iter().chain(made_anew));
    assert!(fixture.replica(TOPIC).is_none());
    let log = fixture.replica(TOPIC_MADE_ANEW).unwrap().log();
    assert_eq!((log.topic_id(), fixture.log_id()), (Some(TOPIC_MADE_ANEW), Some(TOPIC_MADE_ANEW)));
    assert_eq!(fixture.names(), ["t-0", "t-0 delete"]);
}

#[test]
fn a_topic_that_came_to_this_broker_and_was_deleted_in_one_run_was_never_here() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1]), removal(TOPIC)]);
    assert!(fixture.replica(TOPIC).is_none());
    fixture.learn([topic(TOPIC), partition(TOPIC, &[2, 3])]);
    fixture.learn([held_by(TOPIC, &[1, 2]), removal(TOPIC)]);
    assert!(fixture.replica(TOPIC).is_none());
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn nothing_moves_for_a_replica_that_was_dropped_and_whose_name_another_topic_has() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1])]);
    let replica = fixture.replica(TOPIC).unwrap();
    let made_anew = [topic(TOPIC_MADE_ANEW), partition(TOPIC_MADE_ANEW, &[1])];
    fixture.learn([removal(TOPIC)].into_iter().chain(made_anew));
    let to_b = fixture.topics.directories.with_id(B).unwrap();
    let refused = fixture.topics.moves.begin(&replica, to_b);
    assert_eq!(refused, Err(ErrorCode::REPLICA_NOT_AVAILABLE));
    assert_eq!(fixture.names(), ["t-0", "t-0 delete"]);
}

#[test]
fn a_move_whose_replica_is_dropped_while_it_begins_leaves_no_copy() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1])]);
    let replica = fixture.replica(TOPIC).unwrap();
    let made_anew = [topic(TOPIC_MADE_ANEW), partition(TOPIC_MADE_ANEW, &[1])];
    let next = fixture.about_to_learn([removal(TOPIC)].into_iter().chain(made_anew));
    *fixture.disk.on_copy.lock() = Some(Box::new(next));
    let to_b = fixture.topics.directories.with_id(B).unwrap();
    let refused = fixture.topics.moves.begin(&replica, to_b);
    assert_eq!(refused, Err(ErrorCode::REPLICA_NOT_AVAILABLE));
    assert_eq!(fixture.log_id(), Some(TOPIC_MADE_ANEW));
    // That of the copy goes at once, which some other thread may have done by now.
    let names = fixture.names();
    assert!(names.starts_with(&["t-0".to_owned(), "t-0 delete".to_owned()]), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("future")), "{names:?}");
    let log = fixture.replica(TOPIC_MADE_ANEW).unwrap().log();
    assert_eq!(
        fixture.topics.moves.begin(&fixture.replica(TOPIC_MADE_ANEW).unwrap(), to_b),
        Ok(())
    );
    assert!(
        fixture.topics.directories.id_of(&log) == Some(A)
            && fixture.names().contains(&"t-0 future".to_owned())
    );
}

#[test]
fn a_log_is_made_where_there_is_room_although_another_directory_has_none_yet() {
    let mut fixture = Fixture::new();
    let disk = Arc::clone(&fixture.disk);
    *disk.full.lock() = Some(fixture.root.path().to_owned());
    let [in_a, also_in_a] = [0, 1].map(|index| partition_in(A, TOPIC, index, &[1]));
    fixture.learn([topic(TOPIC), in_a, also_in_a, partition_in(B, TOPIC, 2, &[1])]);
    assert_eq!(fixture.names(), [""; 0]);
    *disk.full.lock() = Some(fixture.root.path().join("a"));
    fixture.topics.make_missing();
    assert_eq!(fixture.names(), ["t-2"]);
    *disk.full.lock() = None;
    fixture.topics.make_missing();
    assert_eq!(fixture.names(), ["t-0", "t-1", "t-2"]);
    assert!(fixture.topics.missing.logs.lock().is_empty());
}

/// Broker 2 is there, and its directories have the ids of those here.
fn another_broker() -> MetadataRecord {
    let log_dirs = vec![A, B];
    let broker =
        RegisterBrokerRecord { broker_id: 2, broker_epoch: 2, log_dirs, ..Default::default() };
    RegisterBrokerRecord { fenced: false, ..broker }.into()
}

impl Fixture {
    /// Nothing can be made in either directory.
    fn broken(records: impl IntoIterator<Item = MetadataRecord>) -> Self {
        let mut fixture = Self::new();
        *fixture.disk.broken.lock() = Some(fixture.root.path().to_owned());
        fixture.learn(records);
        assert_eq!(fixture.names(), [""; 0]);
        assert!(fixture.topics.replicas.is_unopened(TOPIC, PartitionIndex(0)));
        fixture
    }

    fn mend(&self) {
        *self.disk.broken.lock() = None;
        self.topics.make_missing();
    }

    /// Where the controller is told that the replica is.
    fn told(&self) -> Option<Uuid> {
        self.topics.reports.waiting_for(TOPIC, 0)
    }
}

#[test]
fn a_log_that_could_not_be_made_is_tried_again() {
    let fixture = Fixture::broken([topic(TOPIC), partition(TOPIC, &[1])]);
    fixture.topics.make_missing();
    assert_eq!(fixture.told(), None, "there is nobody else");
    fixture.mend();
    assert_eq!(fixture.names(), ["t-0"]);
    fixture.replica(TOPIC).unwrap().check_enough_replicas().unwrap();
    assert!(fixture.topics.missing.logs.lock().is_empty());
}

#[test]
fn a_log_that_could_not_be_made_does_not_keep_others_of_its_directory_from_it() {
    let mut fixture = Fixture::new();
    *fixture.disk.broken.lock() = Some(fixture.root.path().join("a").join("t-0"));
    let in_a = [0, 1].map(|index| partition_in(A, TOPIC, index, &[1]));
    *fixture.disk.full.lock() = Some(fixture.root.path().join("a").join("t-1"));
    fixture.learn([topic(TOPIC)].into_iter().chain(in_a));
    *fixture.disk.full.lock() = None;
    fixture.topics.make_missing();
    assert_eq!(fixture.names(), ["t-1"]);
}

#[test]
fn others_take_over_from_a_replica_whose_log_could_not_be_made_until_it_is() {
    let mut fixture =
        Fixture::broken([another_broker(), topic(TOPIC), partition_in(B, TOPIC, 0, &[1, 2])]);
    assert_eq!(fixture.told(), Some(Uuid::LOST_DIR));
    fixture.topics.reports.all_taken();
    let led_by_the_other = PartitionChangeRecord {
        partition_id: 0,
        topic_id: TOPIC,
        isr: Some(vec![2]),
        leader: 2,
        directories: Some(vec![Uuid::LOST_DIR, A]),
        ..PartitionChangeRecord::default()
    };
    fixture.learn([led_by_the_other.into()]);
    assert_eq!(fixture.told(), None, "the metadata says it already");
    fixture.mend();
    assert_eq!(fixture.names(), ["t-0"]);
    let directory = fixture.topics.directories.id_of(&fixture.replica(TOPIC).unwrap().log());
    // Where something may be left from before.
    assert_eq!((fixture.told(), directory), (Some(B), Some(B)));
}

#[test]
fn others_take_over_as_soon_as_they_are_there() {
    let mut fixture = Fixture::broken([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    assert_eq!(fixture.told(), None);
    fixture.learn([another_broker()]);
    fixture.topics.make_missing();
    assert_eq!(fixture.told(), Some(Uuid::LOST_DIR));
    // That was told, and nothing came of it yet.
    fixture.topics.reports.all_taken();
    fixture.mend();
    assert_eq!(fixture.told(), Some(A));
}

/// As when the other one, which could not make its log either, has said so first.
#[test]
fn a_log_that_could_not_be_made_and_is_said_to_be_lost_is_made_all_the_same() {
    let mut fixture = Fixture::broken([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    let alone = PartitionChangeRecord {
        partition_id: 0,
        topic_id: TOPIC,
        isr: Some(vec![1]),
        directories: Some(vec![Uuid::LOST_DIR; 2]),
        ..PartitionChangeRecord::default()
    };
    fixture.learn([alone.into()]);
    fixture.mend();
    assert_eq!(fixture.names(), ["t-0"]);
    assert_eq!(fixture.told(), Some(A));
}

/// Of a topic that gets its copies by itself; of another one as many must be in sync as there are by then.
#[tokio::test]
async fn groups_can_commit_while_their_topic_gets_more_copies() {
    for (name, expected) in [(topic_name::CONSUMER_OFFSETS, true), ("t", false)] {
        let mut fixture = Fixture::new();
        let two_in_sync = ConfigRecord {
            resource_type: ConfigResource::TOPIC,
            resource_name: name.into(),
            name: "min.insync.replicas".into(),
            value: Some("2".into()),
        };
        fixture.learn([topic_named(name, TOPIC), two_in_sync.into(), partition(TOPIC, &[1])]);
        let replica = fixture.replica(TOPIC).unwrap();
        replica.check_enough_replicas().unwrap();
        let growing = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC,
            replicas: Some(vec![1, 2, 3]),
            adding_replicas: Some(vec![2, 3]),
            directories: Some(vec![A; 3]),
            ..PartitionChangeRecord::default()
        };
        fixture.learn([growing.into()]);
        assert_eq!(replica.check_enough_replicas().is_ok(), expected, "{name}");
        let grown = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC,
            adding_replicas: Some(vec![]),
            ..PartitionChangeRecord::default()
        };
        fixture.learn([grown.into()]);
        assert!(replica.check_enough_replicas().is_err(), "{name}");
    }
}

#[test]
fn others_take_over_from_a_replica_whose_log_was_given_away_to_a_disk_that_fails() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    let replica = fixture.replica(TOPIC).unwrap();
    let topics = Arc::clone(&fixture.topics);
    let to_b = topics.directories.with_id(B).unwrap();
    assert_eq!(topics.moves.begin(&replica, to_b), Ok(()));
    assert_eq!(topics.moves.step_all(), [Step::Waits]);
    fixture.learn([now_in(B)]);
    topics.reports.all_taken();
    *fixture.disk.fails_with.lock() = Some(to_b.path().join("t-0"));
    assert_eq!(topics.moves.step_all(), [Step::Ended]);
    assert!(!to_b.is_online() && topics.directories.online() == [A]);
    assert_eq!(replica.check_disk(), Err(ErrorCode::KAFKA_STORAGE_ERROR));
    assert_eq!(topics.reports.waiting_for(TOPIC, 0), Some(B));
    // The copy is all that the next start finds.
    assert_eq!(fixture.names(), ["t-0", "t-0 delete"]);
    assert_eq!(topics.moves.step_all(), []);
}

#[test]
fn the_log_of_a_topic_that_was_made_anew_while_a_directory_was_out_is_served_and_the_old_one_set_aside()
 {
    let mut fixture = Fixture::with(&[("a", TOPIC), ("b", TOPIC_MADE_ANEW)]);
    fixture.learn([topic(TOPIC_MADE_ANEW), partition_in(B, TOPIC_MADE_ANEW, 0, &[1])]);
    let log = fixture.replica(TOPIC_MADE_ANEW).unwrap().log();
    assert_eq!(fixture.topics.directories.id_of(&log), Some(B));
    fixture.topics.set_strays_aside();
    assert_eq!(fixture.log_id(), Some(TOPIC_MADE_ANEW));
    assert_eq!(fixture.names(), ["t-0", "t-0 stray"]);
}

#[test]
fn a_log_that_nobody_owns_is_set_aside_beside_one_of_the_same_name_that_somebody_does() {
    let mut fixture = Fixture::with(&[("a", TOPIC), ("b", TOPIC_MADE_ANEW)]);
    // The metadata that the broker begins with does not have the topic yet.
    fixture.topics.set_strays_aside();
    assert_eq!(fixture.names(), ["t-0 stray", "t-0 stray"]);
    fixture = Fixture::with(&[("a", TOPIC), ("b", TOPIC_MADE_ANEW)]);
    *fixture.disk.keeps_names.lock() = Some(fixture.root.path().join("a"));
    fixture.learn([topic(TOPIC_MADE_ANEW), partition_in(B, TOPIC_MADE_ANEW, 0, &[1])]);
    assert_eq!(fixture.names(), ["t-0", "t-0"]);
    *fixture.disk.keeps_names.lock() = None;
    fixture.topics.set_strays_aside();
    assert_eq!(fixture.log_id(), Some(TOPIC_MADE_ANEW));
}

#[test]
fn a_log_is_deleted_with_its_topic_although_one_of_the_same_name_could_not_be() {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1])]);
    *fixture.disk.keeps_names.lock() = Some(fixture.root.path().join("a"));
    let made_anew =
        [topic(TOPIC_MADE_ANEW), partition_in(Uuid::UNASSIGNED_DIR, TOPIC_MADE_ANEW, 0, &[1])];
    fixture.learn([removal(TOPIC)].into_iter().chain(made_anew));
    let log = fixture.replica(TOPIC_MADE_ANEW).unwrap().log();
    assert_eq!(fixture.topics.directories.id_of(&log), Some(B), "in A the name is taken");
    assert_eq!(fixture.topics.reports.waiting_for(TOPIC_MADE_ANEW, 0), Some(B));
    fixture.learn([removal(TOPIC_MADE_ANEW)]);
    assert_eq!(
        (fixture.names(), fixture.log_id()),
        (vec!["t-0".to_owned(), "t-0 delete".to_owned()], Some(TOPIC))
    );
}

/// A partition that another broker leads, and whose replica here was in a directory that is not among ours any more.
fn lost(partition_id: i32, relied_on: fn(&mut PartitionRecord)) -> MetadataRecord {
    let mut record = PartitionRecord {
        partition_id,
        topic_id: TOPIC,
        replicas: vec![2, ME.0],
        isr: vec![2],
        leader: 2,
        directories: vec![Uuid([9; 16]), Uuid([4; 16])],
        ..PartitionRecord::default()
    };
    relied_on(&mut record);
    record.into()
}

#[test]
fn a_replica_whose_disk_was_replaced_is_made_anew_unless_somebody_counts_on_what_it_had() {
    let mut fixture = Fixture::new();
    fixture.learn([
        topic(TOPIC),
        lost(0, |_| ()),
        lost(1, |it| it.isr.push(ME.0)),
        lost(2, |it| it.eligible_leader_replicas = Some(vec![ME.0])),
        lost(3, |it| it.last_known_elr = Some(vec![ME.0])),
    ]);
    let replica = fixture.replica(TOPIC).unwrap();
    let place = fixture.topics.directories.id_of(&replica.log()).unwrap();
    assert_eq!(fixture.topics.reports.waiting_for(TOPIC, 0), Some(place));
    assert_eq!(replica.followed_leader(), Some(BrokerId(2)));
    assert_eq!((fixture.names(), fixture.topics.replicas.len()), (vec!["t-0".to_owned()], 1));

    // Somebody else was elected after all.
    fixture.learn([PartitionChangeRecord {
        partition_id: 1,
        topic_id: TOPIC,
        isr: Some(vec![2]),
        ..PartitionChangeRecord::default()
    }
    .into()]);
    assert_eq!(fixture.names(), ["t-0", "t-1"]);
}

#[test]
fn no_replica_is_made_anew_while_its_directory_may_be_one_that_cannot_be_read() {
    let mut fixture = Fixture::without_b([]);
    fixture.learn([topic(TOPIC), lost(0, |_| ())]);
    assert!(fixture.replica(TOPIC).is_none());
    assert_eq!(fixture.topics.reports.waiting_for(TOPIC, 0), None);
}

/// It was moved to B, and the controller has not heard of that.
#[test]
fn no_log_is_made_for_what_may_be_in_a_directory_that_cannot_be_read_whatever_changes_later() {
    let mut fixture = Fixture::without_b([topic(TOPIC), partition(TOPIC, &[1])]);
    assert!(fixture.replica(TOPIC).is_none());
    fixture.learn([held_by(TOPIC, &[1, 2])]);
    assert!(fixture.replica(TOPIC).is_none(), "it is elected, and an empty log would pass for it");
    let is_unopened = |it: &Fixture| it.topics.replicas.is_unopened(TOPIC, PartitionIndex(0));
    assert!(is_unopened(&fixture), "which clients are told");
    fixture.learn([topic_named("u", TOPIC_MADE_ANEW), partition(TOPIC_MADE_ANEW, &[1])]);
    assert!(fixture.replica(TOPIC_MADE_ANEW).is_some(), "what is new is made");
    fixture.learn([held_by(TOPIC, &[2, 3])]);
    assert!(!is_unopened(&fixture));
    fixture.learn([held_by(TOPIC, &[1, 2])]);
    assert!(fixture.replica(TOPIC).is_some(), "it has left, and comes again");
}

/// A replica on its way from A to B, of whose copy nothing lacks but that the controller knows.
fn waiting_to_move() -> (Fixture, Arc<Replica>) {
    let mut fixture = Fixture::new();
    fixture.learn([topic(TOPIC), partition(TOPIC, &[1, 2])]);
    let replica = fixture.replica(TOPIC).unwrap();
    let to_b = fixture.topics.directories.with_id(B).unwrap();
    assert_eq!(fixture.topics.moves.begin(&replica, to_b), Ok(()));
    assert_eq!(fixture.topics.moves.step_all(), [Step::Waits]);
    (fixture, replica)
}

#[test]
fn a_log_moves_only_once_the_controller_knows_where_it_is_going_to_be() {
    let (mut fixture, replica) = waiting_to_move();
    let topics = Arc::clone(&fixture.topics);
    let is_in = || topics.directories.id_of(&replica.log()).unwrap();
    assert_eq!((is_in(), topics.reports.waiting_for(TOPIC, 0)), (A, Some(B)));
    assert_eq!(topics.moves.step_all(), [Step::Waits], "it can't be reached");
    topics.reports.all_taken();
    assert_eq!(topics.moves.step_all(), [Step::Waits], "the metadata is on its way");
    fixture.learn([now_in(B)]);
    assert_eq!(topics.moves.step_all(), [Step::Ended]);
    assert_eq!((is_in(), fixture.names()), (B, vec!["t-0".to_owned(), "t-0 delete".to_owned()]));
}

#[tokio::test]
async fn a_move_that_lacks_nothing_does_not_wait_for_the_throttle_of_others() {
    let (mut fixture, replica) = waiting_to_move();
    let no_rate = ConfigRecord {
        resource_type: ConfigResource::BROKER,
        resource_name: ME.to_string().into(),
        name: "replica.alter.log.dirs.io.max.bytes.per.second".into(),
        value: Some("0".into()),
    };
    fixture.learn([partition_in(A, TOPIC, 1, &[1]), no_rate.into()]);
    let topics = Arc::clone(&fixture.topics);
    topics.reports.all_taken();
    let other = topics.replicas.find(TOPIC, 1).unwrap();
    // More than one step copies.
    while other.log().size_in_bytes() < 3 << 20 {
        other.log().append_batch(one_record(Timestamp(1_000)), LeaderEpoch(0)).unwrap();
    }
    let to_b = topics.directories.with_id(B).unwrap();
    assert_eq!(topics.moves.begin(&other, to_b), Ok(()));
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(Arc::clone(&topics.moves).run(stopping));
    // The other one has copied something, and owes for it for ever.
    let copied = || to_b.directory.futures().iter().any(|log| log.log_end_offset() > Offset(0));
    until(copied).await;
    fixture.learn([now_in(B)]);
    until(|| topics.directories.id_of(&replica.log()) == Some(B)).await;
    assert_eq!(topics.directories.id_of(&other.log()), Some(A), "it owes");
    stop.send_replace(true);
    running.await.unwrap();
}

/// Lets others work until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it comes to be");
}

#[test]
fn a_move_waits_while_the_controller_is_to_be_told_something_else() {
    let (mut fixture, replica) = waiting_to_move();
    fixture.learn([now_in(B)]);
    // Such as that the disk is full.
    fixture.topics.reports.assigned(TOPIC, 0, Uuid::LOST_DIR);
    assert_eq!(fixture.topics.moves.step_all(), [Step::Waits]);
    assert_eq!(fixture.topics.directories.id_of(&replica.log()), Some(A));
}

#[test]
fn what_the_controller_was_told_of_a_move_is_taken_back_when_it_is_given_up() {
    let (mut fixture, replica) = waiting_to_move();
    let topics = Arc::clone(&fixture.topics);
    topics.reports.all_taken();
    fixture.learn([now_in(B)]);
    let back = topics.directories.with_id(A).unwrap();
    assert_eq!(topics.moves.begin(&replica, back), Ok(()));
    assert_eq!(topics.reports.waiting_for(TOPIC, 0), Some(A));
    assert_eq!(topics.moves.step_all(), []);
    assert_eq!(topics.directories.id_of(&replica.log()), Some(A));
}

#[test]
fn nothing_is_said_of_a_replica_that_is_dropped_while_it_moves() {
    let (mut fixture, _) = waiting_to_move();
    fixture.topics.reports.all_taken();
    fixture.learn([held_by(TOPIC, &[2, 3])]);
    assert_eq!(fixture.topics.reports.waiting_for(TOPIC, 0), None);
}

#[test]
fn others_take_over_from_a_replica_whose_disk_fails_before_it_has_moved() {
    let (mut fixture, replica) = waiting_to_move();
    let topics = Arc::clone(&fixture.topics);
    topics.reports.all_taken();
    fixture.learn([now_in(B)]);
    *fixture.disk.fails_with.lock() = Some(fixture.root.path().join("a/t-0"));
    replica.log().append_batch(one_record(Timestamp(1_000)), LeaderEpoch(0)).unwrap();
    replica.log().flush().unwrap_err();
    assert_eq!(topics.directories.online(), [B]);
    assert_eq!(topics.moves.step_all(), [Step::Ended]);
    assert_eq!(topics.reports.waiting_for(TOPIC, 0), Some(A), "it is lost, and not in B");
}

/// The controller took the log to be in B, and then the disk that it still was on was replaced.
#[test]
fn no_log_is_made_where_one_was_about_to_be_moved_to_unless_nobody_counts_on_it() {
    for (relied_on, is_made) in [(true, false), (false, true)] {
        let root = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| {
            let (config, options) = (LogConfig::default(), DirectoryOptions::default());
            let clock = Arc::new(SystemClock::new());
            Arc::new(LogDirectory::open(&root.path().join(name), config, options, clock).unwrap())
        });
        let config = Arc::new(LogConfig::default());
        let log = a.create(TopicPartition::new("t", 0), TOPIC, config).unwrap();
        drop((Move::begin(a, b, &log).unwrap(), log));
        std::fs::remove_dir_all(root.path().join("a")).unwrap();
        let isr = if relied_on { vec![1, 2] } else { vec![2] };
        let in_isr = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC,
            isr: Some(isr),
            ..PartitionChangeRecord::default()
        };
        let there = [topic(TOPIC), partition_in(B, TOPIC, 0, &[2, 1]), in_isr.into()];
        let fixture = Fixture::begin(root, Arc::default(), there);
        assert_eq!(fixture.replica(TOPIC).is_some(), is_made);
    }
}

/// The partition was made anew in B while A was out, and now B is.
#[test]
fn a_log_from_a_directory_that_was_out_is_not_taken_for_the_newer_one_of_a_directory_that_is_out_now()
 {
    let out = "t-0 stray";
    for (known_before, place, isr, expected) in [
        (B, B, [1], (false, out)),
        // All directories were replaced meanwhile, and nothing was made anew: this may be all there is.
        (B, Uuid::LOST_DIR, [1], (true, "t-0")),
        // Somebody else has everything, and what this log has beyond that is cut off.
        (B, B, [2], (true, "t-0")),
        // Its directory was there all the time: an operator has moved the log by hand, or a move was called off.
        (A, B, [1], (true, "t-0")),
        (B, A, [1], (true, "t-0")),
        (B, Uuid::UNASSIGNED_DIR, [1], (true, "t-0")),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        let clock = Arc::new(SystemClock::new());
        let a = LogDirectory::open(&root.path().join("a"), config.clone(), options, clock).unwrap();
        a.create(TopicPartition::new("t", 0), TOPIC, Arc::new(config)).unwrap();
        drop(a);
        std::fs::write(root.path().join("b"), "no directory").unwrap();
        let topics = Arc::new(topics_in(open_directories(&root, Arc::new(OsDisk))));
        let mut fixture =
            Fixture { root, disk: Arc::default(), image: Image::new("cluster"), topics };
        let in_isr = PartitionChangeRecord {
            partition_id: 0,
            topic_id: TOPIC,
            isr: Some(isr.to_vec()),
            leader: isr[0],
            ..PartitionChangeRecord::default()
        };
        let before = registration_of(Uuid([6; 16]), &[known_before]);
        fixture.learn([
            before,
            topic(TOPIC),
            partition_in(place, TOPIC, 0, &[1, 2]),
            in_isr.into(),
        ]);
        fixture.learn([registration_of(INCARNATION, &[A])]);
        std::fs::remove_file(fixture.root.path().join("b")).unwrap();
        std::fs::create_dir(fixture.root.path().join("b")).unwrap();
        let found = (fixture.replica(TOPIC).is_some(), &*fixture.names().join(" "));
        assert_eq!(found, expected, "{known_before} {place} {isr:?}");
    }
}
