//! A group's partition on a real log: read, coordinated, put down, taken up again, failing.

use std::fs::File;
use std::io;
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
use ottla_coordinator::group::{
    Caller, CommitOffsets, DescribeGroups, FetchOffsets, GroupShard, JoinGroup, ListGroups, Query,
    Reply, Request, Settings,
};
use ottla_env::{Disk, DiskLayer, OsDisk, SystemClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::{JoinGroupRequest, OffsetCommitRequest};
use ottla_records::{BatchBuilder, Batches, Compression, Record, ValidBatch};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::replica::{Outboxes, deposed, lead_again, leading, unflushed_log};
use crate::replicas::Replicas;

const LOG_SETTINGS: LogSettings =
    LogSettings { compression: Compression::None, store_timeout: Duration::from_secs(60) };

/// One partition that nobody leads yet.
struct Fixture {
    _directory: tempfile::TempDir,
    replicas: Arc<Replicas>,
    replica: Arc<Replica>,
    coordinators: Coordinators<GroupShard>,
}

fn fixture() -> Fixture {
    fixture_on(Arc::new(OsDisk))
}

fn fixture_on(disk: Arc<dyn Disk>) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let config = LogConfig::default();
    let options = DirectoryOptions { disk, ..DirectoryOptions::default() };
    let logs =
        LogDirectory::open(directory.path(), config.clone(), options, Arc::clone(&clock) as _);
    let logs = logs.unwrap();
    let (partition, id) = (TopicPartition::new("__consumer_offsets", 0), Uuid([7; 16]));
    let log = logs.create(partition, id, Arc::new(config)).unwrap();
    let replicas = Arc::new(Replicas::default());
    let replica = Arc::new(leading(log, &replicas.outboxes));
    replicas.insert(Arc::clone(&replica));
    logs.add_listener(Arc::clone(&replicas) as _);
    let coordinators =
        Coordinators::new(clock, LOG_SETTINGS, || GroupShard::new(Settings::default()));
    // The directory's threads go on flushing for as long as the log lives.
    std::mem::forget(logs);
    Fixture { _directory: directory, replicas, replica, coordinators }
}

/// What is said to a commit of nobody in particular.
const HAS_MEMBERS: Reply = Reply::Commit(Err(ErrorCode::UNKNOWN_MEMBER_ID));

fn commit(offset: i64) -> Request {
    commit_of("group", offset)
}

fn commit_of(group: &str, offset: i64) -> Request {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "topic".into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    Request::Commit(CommitOffsets { version: 9, request })
}

/// A first join of an old version, which is parked until the group's initial delay is over.
fn join() -> Request {
    let protocol = JoinGroupRequestProtocol { name: "range".into(), ..Default::default() };
    Request::Join(JoinGroup {
        caller: Caller { version: 3, client_id: "client".into(), client_host: "/::1".into() },
        request: JoinGroupRequest {
            group_id: "group".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        },
        random: Uuid([1; 16]),
    })
}

/// What the group has committed, everywhere.
fn fetch_all() -> Query {
    fetch_all_of("group")
}

fn fetch_all_of(group: &str) -> Query {
    let group = OffsetFetchRequestGroup {
        group_id: group.into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    Query::Fetch(FetchOffsets { group })
}

impl Fixture {
    /// Asks again while the partition is being read.
    async fn query(&self) -> Result<Reply, ErrorCode> {
        loop {
            match self.coordinators.query(0, fetch_all()).await {
                Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => tokio::task::yield_now().await,
                result => return result,
            }
        }
    }

    async fn offset(&self) -> Option<i64> {
        let Ok(Reply::Fetch(group)) = self.query().await else { panic!("no answer") };
        Some(group.topics.first()?.partitions.first()?.committed_offset)
    }

    /// As [`Self::offset`], once the partition has been read.
    async fn offset_in_time(&self) -> Option<i64> {
        let read = async {
            while self.query().await == Err(ErrorCode::NOT_COORDINATOR) {
                tokio::task::yield_now().await;
            }
            self.offset().await
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("it is read")
    }

    /// A first member whose join waits for others; the coordinator knows of it.
    async fn joining(&self) -> impl Future<Output = Result<Reply, ErrorCode>> {
        let mut joining = Box::pin(self.coordinators.ask(0, join()));
        assert!(futures_util::poll!(&mut joining).is_pending());
        // Heard after the join, so that it is at rest with it.
        assert_eq!(self.coordinators.ask(0, commit(1)).await, Ok(HAS_MEMBERS));
        assert_eq!(self.member_count().await, 1);
        joining
    }

    async fn member_count(&self) -> usize {
        let Ok(Reply::Describe(groups)) = self.describe().await else { panic!("no answer") };
        groups.first().unwrap().members.len()
    }

    async fn describe(&self) -> Result<Reply, ErrorCode> {
        let asked =
            DescribeGroups { version: 6, groups: vec!["group".into()], last_rebalance: false };
        self.coordinators.query(0, Query::Describe(asked)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_led_has_no_coordinator() {
    let fixture = fixture();
    assert_eq!(fixture.query().await, Err(ErrorCode::NOT_COORDINATOR));
    assert_eq!(fixture.coordinators.ask(0, commit(1)).await, Err(ErrorCode::NOT_COORDINATOR));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_when_the_partition_is_taken_up_again() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    assert_eq!(fixture.offset().await, None);
    for offset in 1..=50 {
        fixture.coordinators.ask(0, commit(offset)).await.unwrap();
        assert_eq!(fixture.offset().await, Some(offset));
    }
    assert_eq!(fixture.replica.high_watermark(), Offset(50), "answered when it was on disk");
    fixture.coordinators.resigned(0);
    assert_eq!(fixture.query().await, Err(ErrorCode::NOT_COORDINATOR));
    fixture.coordinators.elected(&fixture.replica);
    assert_eq!(fixture.offset().await, Some(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn being_elected_twice_keeps_the_members_that_there_are() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    let _joining = fixture.joining().await;
    fixture.coordinators.elected(&fixture.replica);
    assert_eq!(fixture.coordinators.ask(0, commit(1)).await, Ok(HAS_MEMBERS));
    assert_eq!(fixture.member_count().await, 1);
}

/// As when a replica of the partition is removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_epoch_in_which_this_broker_goes_on_leading_is_nothing_to_members_and_offsets() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    fixture.coordinators.ask(0, commit_of("another", 7)).await.unwrap();
    let mut joining = std::pin::pin!(fixture.joining().await);
    lead_again(&fixture.replica, LeaderEpoch(1));
    fixture.coordinators.elected(&fixture.replica);
    let committed = fixture.coordinators.ask(0, commit_of("another", 8)).await;
    assert!(matches!(committed, Ok(Reply::Commit(Ok(_)))), "{committed:?}");
    assert_eq!(fixture.replica.log().latest_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(fixture.member_count().await, 1);
    assert!(futures_util::poll!(&mut joining).is_pending());
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_partition_is_put_down() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    let joining = fixture.joining().await;
    fixture.coordinators.resigned(0);
    assert_eq!(told(joining).await, Err(ErrorCode::NOT_COORDINATOR));
}

/// On one thread: the coordinator sleeps by the time that this goes on, and hears of the end only if it is woken.
#[tokio::test]
async fn whoever_waits_is_told_when_the_disk_fails_or_the_broker_stops() {
    for end in [Replica::take_offline, Replica::retire] {
        let fixture = fixture();
        fixture.coordinators.elected(&fixture.replica);
        fixture.offset().await;
        let joining = fixture.joining().await;
        end(&fixture.replica);
        assert_eq!(told(joining).await, Err(ErrorCode::NOT_COORDINATOR));
    }
}

/// An answer that nobody can wait for in vain.
async fn told(answer: impl Future<Output = Result<Reply, ErrorCode>>) -> Result<Reply, ErrorCode> {
    tokio::time::timeout(Duration::from_secs(10), answer).await.expect("it is answered")
}

/// A coordinator that gets its turn late: its broker has heard of the next leader, and follows it.
#[test]
fn what_another_leader_has_committed_is_not_what_a_coordinator_of_before_waits_for() {
    let [directory, other_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let log = unflushed_log(&directory, &[]);
    let replica = Arc::new(leading(log, &Outboxes::default()));
    let mut coordinator = taken_up(&replica);
    let (sender, mut answer) = oneshot::channel();
    coordinator.on_event(Event::Ask(commit(7), sender));
    assert!(coordinator.settle());
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "nothing is on disk");

    let others = unflushed_log(&other_directory, &[]);
    let mut batch = BatchBuilder::new(Compression::None);
    batch.append(Timestamp(1), Some(b"key"), Some(b"of another"), &[]);
    others.append_batch(batch.build(), LeaderEpoch(1)).unwrap();
    deposed(&replica, &others);
    assert!(!coordinator.settle(), "another broker leads");
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "the commit is gone");

    lead_again(&replica, LeaderEpoch(2));
    let end = replica.log().log_end_offset();
    let (sender, mut answer) = oneshot::channel();
    coordinator.on_event(Event::Ask(commit(8), sender));
    assert_eq!(answer.try_recv(), Ok(Err(ErrorCode::NOT_COORDINATOR)));
    assert_eq!(replica.log().log_end_offset(), end, "others have led: it does not know the log");
    assert!(!coordinator.settle());
}

/// As a broker is that was just elected: those in sync with it have not told yet how far they are.
#[test]
fn a_partition_that_was_just_taken_up_shows_what_is_committed_and_not_what_comes_after() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Arc::new(leading(unflushed_log(&directory, &[]), &Outboxes::default()));
    let flush = || {
        replica.log().flush().unwrap();
        replica.on_flushed();
    };
    let mut before = taken_up(&replica);
    for (value, is_flushed) in [(4, true), (5, true), (6, false), (7, false)] {
        let (sender, _) = oneshot::channel();
        before.on_event(Event::Ask(commit(value), sender));
        if is_flushed {
            flush();
        }
    }
    drop(before);
    assert_eq!((replica.high_watermark(), replica.log().log_end_offset()), (Offset(2), Offset(4)));

    let mut coordinator = taken_up(&replica);
    assert!(coordinator.settle());
    assert_eq!(shown(&mut coordinator), (Some(5), 1));
    flush();
    assert!(coordinator.settle());
    assert_eq!(shown(&mut coordinator), (Some(7), 1));
}

fn taken_up(replica: &Arc<Replica>) -> Coordinator<GroupShard> {
    let clock = Arc::new(SystemClock::new());
    let partition = PartitionLog::new(
        Arc::clone(replica),
        LeaderEpoch(0),
        LOG_SETTINGS,
        Arc::clone(&clock) as _,
    );
    let loaded = partition.load(GroupShard::new(Settings::default())).unwrap();
    Coordinator::new(loaded, partition, clock)
}

/// What the only group has committed, and how many groups there are.
fn shown(coordinator: &mut Coordinator<GroupShard>) -> (Option<i64>, usize) {
    let mut ask = |query| {
        let (sender, mut answer) = oneshot::channel();
        coordinator.on_event(Event::Query(query, sender));
        answer.try_recv().unwrap().unwrap()
    };
    let Reply::Fetch(group) = ask(fetch_all()) else { panic!("no offsets") };
    let Reply::List(groups) = ask(Query::List(ListGroups::default().into())) else {
        panic!("no list")
    };
    let offset = group.topics.first().and_then(|topic| topic.partitions.first());
    (offset.map(|partition| partition.committed_offset), groups.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_read_has_no_coordinator() {
    let fixture = fixture();
    let mut batch = BatchBuilder::new(Compression::None);
    // The key of a commit, and nothing behind it.
    batch.append(Timestamp(1), Some(&[0, 1]), Some(&[0, 4]), &[]);
    fixture.replica.append(batch.build(), LeaderEpoch(0)).unwrap();
    fixture.coordinators.elected(&fixture.replica);
    assert_eq!(fixture.query().await, Err(ErrorCode::NOT_COORDINATOR));
}

type OnRead = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// The system's disk, with which something happens when it is read next.
#[derive(Default)]
struct ReadDisk(parking_lot::Mutex<Option<OnRead>>);

impl fmt::Debug for ReadDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadDisk")
    }
}

impl DiskLayer for ReadDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let happens = self.0.lock().take();
        happens.map_or(Ok(()), |happens| happens())?;
        OsDisk.read_at(file, buffer, position)
    }
}

/// Group `group` has committed these offsets. Nobody coordinates, until the partition is taken up with the next read doing this.
async fn committed_and_read_again(
    offsets: &[i64],
    on_read: impl FnOnce(&Fixture) -> OnRead,
) -> Fixture {
    let disk = Arc::<ReadDisk>::default();
    let fixture = fixture_on(Arc::clone(&disk) as _);
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    for offset in offsets {
        fixture.coordinators.ask(0, commit(*offset)).await.unwrap();
    }
    fixture.coordinators.resigned(0);
    let on_read = on_read(&fixture);
    *disk.0.lock() = Some(on_read);
    fixture.coordinators.elected(&fixture.replica);
    fixture.query().await.ok();
    assert!(disk.0.lock().is_none());
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_could_not_be_read_is_read_again() {
    let failures: [fn() -> io::Result<()>; 2] =
        [|| Err(io::Error::other("injected: unreadable")), || panic!("injected: a panic")];
    for failure in failures {
        let fixture = committed_and_read_again(&[7], |_| Box::new(failure)).await;
        assert_eq!(fixture.offset_in_time().await, Some(7));
    }
}

impl Fixture {
    /// The only record of the batch at this offset.
    fn record(&self, at: i64) -> Record {
        let log = self.replica.log();
        let slice = log.read(Offset(at), 1, Offset(at + 1), true).unwrap();
        let bytes = slice.source.unwrap().read().unwrap();
        let batch = Batches::new(bytes).next().unwrap().unwrap().verify_crc().unwrap();
        batch.records().unwrap().next().unwrap().unwrap()
    }
}

/// What somebody writes who is no coordinator.
fn written(key: Option<&[u8]>, value: Option<&[u8]>) -> ValidBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.append(Timestamp(1), key, value, &[]);
    batch.build()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_writes_while_a_partition_is_read_is_read_too() {
    let fixture = committed_and_read_again(&[4, 5], |fixture| {
        let (replica, first) = (Arc::clone(&fixture.replica), fixture.record(0));
        Box::new(move || {
            let again = written(first.key.as_deref(), first.value.as_deref());
            replica.append(again, LeaderEpoch(0)).unwrap();
            Ok(())
        })
    });
    let fixture = fixture.await;
    let committed = fixture.coordinators.ask(0, commit_of("another", 6)).await;
    assert!(matches!(committed, Ok(Reply::Commit(Ok(_)))), "{committed:?}");
    assert_eq!(fixture.offset().await, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_somebody_else_has_written_to_is_read_anew() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    fixture.coordinators.ask(0, commit_of("another", 1)).await.unwrap();
    let tombstone = written(fixture.record(0).key.as_deref(), None);
    fixture.replica.append(tombstone, LeaderEpoch(0)).unwrap();
    let refused = fixture.coordinators.ask(0, commit(5)).await;
    assert_eq!(refused, Err(ErrorCode::NOT_COORDINATOR));
    fixture.offset_in_time().await;
    // Answered when what is before it is committed, too.
    fixture.coordinators.ask(0, commit_of("third", 2)).await.unwrap();
    assert_eq!(fixture.offset().await, Some(5), "it was stored all the same");
    let other = fixture.coordinators.query(0, fetch_all_of("another")).await;
    let Ok(Reply::Fetch(other)) = other else { panic!("no answer") };
    assert_eq!(other.topics, [], "its offset is deleted");
    fixture.coordinators.ask(0, commit(6)).await.unwrap();
    assert_eq!(fixture.offset().await, Some(6));
}

/// Between the two nobody is told.
#[test]
fn what_somebody_else_writes_after_a_partition_was_read_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Arc::new(leading(unflushed_log(&directory, &[]), &Outboxes::default()));
    let (sender, _) = oneshot::channel();
    taken_up(&replica).on_event(Event::Ask(commit(4), sender));
    let clock = Arc::new(SystemClock::new());
    let partition = PartitionLog::new(
        Arc::clone(&replica),
        LeaderEpoch(0),
        LOG_SETTINGS,
        Arc::clone(&clock) as _,
    );
    let loaded = partition.load(GroupShard::new(Settings::default())).unwrap();
    let (sender, _) = oneshot::channel();
    taken_up(&replica).on_event(Event::Ask(commit(5), sender));
    let mut late = Coordinator::new(loaded, partition, clock);
    let (sender, mut answer) = oneshot::channel();
    late.on_event(Event::Ask(commit(6), sender));
    assert_eq!(answer.try_recv(), Ok(Err(ErrorCode::NOT_COORDINATOR)));
    assert!(late.is_out_of_step() && !late.settle());
    replica.log().flush().unwrap();
    replica.on_flushed();
    let mut anew = taken_up(&replica);
    assert!(anew.settle() && !anew.is_out_of_step());
    assert_eq!(shown(&mut anew), (Some(6), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_kinds_that_nobody_knows_and_records_without_keys_are_passed_over() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    fixture.coordinators.ask(0, commit(7)).await.unwrap();
    let mut batch = BatchBuilder::new(Compression::Zstd);
    batch.append(Timestamp(1), Some(&[0x7f, 0xff]), Some(&[1]), &[]);
    batch.append(Timestamp(1), None, Some(&[1]), &[]);
    fixture.replica.append(batch.build(), LeaderEpoch(0)).unwrap();
    fixture.coordinators.resigned(0);
    fixture.coordinators.elected(&fixture.replica);
    assert_eq!(fixture.offset().await, Some(7));
    assert!(fixture.replicas.find(Uuid([7; 16]), PartitionIndex(0).0).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_would_take_gigabytes_is_refused_before_it_does() {
    let fixture = fixture();
    fixture.coordinators.elected(&fixture.replica);
    fixture.offset().await;
    let Request::Commit(mut commit) = commit(1) else { panic!("not a commit") };
    commit.request.group_id = "g".repeat(32_767).into();
    for topic in &mut commit.request.topics {
        topic.partitions = vec![OffsetCommitRequestPartition::default(); 100_000];
    }
    let answer = fixture.coordinators.ask(0, Request::Commit(commit)).await;
    assert_eq!(answer, Err(ErrorCode::UNKNOWN_SERVER_ERROR));
    fixture.coordinators.ask(0, self::commit(2)).await.unwrap();
    assert_eq!(fixture.offset().await, Some(2));
}
