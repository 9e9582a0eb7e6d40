//! openraft's view of the log: what was appended is read back, from memory and from disk, until it is truncated.

use openraft::storage::RaftLogStorageExt;
use openraft::type_config::TypeConfigExt;
use ottla_base::{LeaderEpoch, Timestamp, TopicPartition};
use ottla_env::{FaultyDisk, OsDisk, SystemClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::{Endpoint, MetadataRecord};
use ottla_protocol::records::FeatureLevelRecord;
use tokio::task::JoinHandle;

use super::*;
use crate::raft::{Proposal, Verdict};
use crate::snapshot::SnapshotId;
use crate::workers::Threads;

const NODE: BrokerId = BrokerId(1);

struct Fixture {
    storage: Storage,
    restored: Option<Checkpoint>,
    _directory: LogDirectory,
}

fn open(path: &std::path::Path) -> Fixture {
    try_open(path).unwrap()
}

fn try_open(path: &std::path::Path) -> Result<Fixture, LogError> {
    open_on(Arc::new(OsDisk), path)
}

fn open_on(disk: Arc<dyn Disk>, path: &std::path::Path) -> Result<Fixture, LogError> {
    let clock = Arc::new(SystemClock::new());
    let (config, options) =
        (LogConfig::default(), DirectoryOptions { disk, ..DirectoryOptions::default() });
    let directory = LogDirectory::open(path, config.clone(), options, clock.clone()).unwrap();
    let partition = TopicPartition::new("__cluster_metadata", 0);
    let log = directory.log(&partition).unwrap_or_else(|| {
        directory.create(partition, Uuid::from_u128(1), Arc::new(config)).unwrap()
    });
    let votes =
        VoteFile::in_directory(Arc::clone(directory.disk()), &path.join("__cluster_metadata-0"));
    let place = Place {
        cluster_id: "cluster".into(),
        node_id: NODE,
        directory_id: Uuid([7; 16]),
        disk: Arc::clone(directory.disk()),
        path: path.join("__cluster_metadata-0"),
    };
    let (storage, restored) = Storage::open(log, votes, place, clock, Arc::new(Threads))?;
    Ok(Fixture { storage, restored, _directory: directory })
}

fn voters(ids: &[i32]) -> BTreeMap<i32, Voter> {
    let endpoint = Endpoint {
        listener: "CONTROLLER".into(),
        host: "localhost".into(),
        port: 9093,
        security_protocol: 0,
    };
    let voter = Voter { directory_id: Uuid([7; 16]), endpoints: vec![endpoint] };
    ids.iter().map(|id| (*id, voter.clone())).collect()
}

fn membership(term: i32, index: u64, configs: &[&[i32]]) -> Entry {
    let configs: Vec<_> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
    let all: Vec<i32> = configs.iter().flatten().copied().collect();
    let membership = Membership::new(configs, voters(&all)).unwrap();
    Entry::new(log_id(term, index), EntryPayload::Membership(membership))
}

fn blank(term: i32, index: u64) -> Entry {
    Entry::new_blank(log_id(term, index))
}

fn normal(term: i32, index: u64, records: i16) -> Entry {
    let record = |feature_level| FeatureLevelRecord { name: "f".into(), feature_level }.into();
    let proposal = Proposal {
        epoch: LeaderEpoch(term),
        number: None,
        verdict: Verdict::Applied,
        timestamp: Timestamp(i64::from(term) * 1000),
        records: (0..records).map(record).collect(),
    };
    Entry::new_normal(log_id(term, index), proposal)
}

fn entries() -> Vec<Entry> {
    vec![
        membership(0, 0, &[&[1]]),
        blank(1, 1),
        normal(1, 2, 1),
        normal(1, 3, 5),
        membership(1, 4, &[&[1], &[1, 2, 3]]),
        blank(4, 5),
        normal(4, 6, 2),
    ]
}

async fn append(fixture: &mut Fixture, entries: Vec<Entry>) {
    fixture.storage.blocking_append(entries).await.unwrap();
}

async fn read(fixture: &mut Fixture, range: Range<u64>) -> Vec<Entry> {
    fixture.storage.try_get_log_entries(range).await.unwrap()
}

#[tokio::test]
async fn every_kind_of_entry_is_read_back_from_memory_and_from_disk() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, entries()).await;
    assert_eq!(read(&mut fixture, 0..100).await, entries());
    assert_eq!(read(&mut fixture, 2..4).await, entries()[2..4]);
    for forgotten in [1, 3, 7] {
        fixture.storage.forget_before(forgotten);
        assert_eq!(read(&mut fixture, 0..100).await, entries());
        assert_eq!(read(&mut fixture, 2..6).await, entries()[2..6]);
    }
    drop(fixture);
    let mut fixture = open(path.path());
    assert_eq!(read(&mut fixture, 0..100).await, entries());
    assert_eq!(read(&mut fixture, 7..9).await, []);
    let state = fixture.storage.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(4, 6)));
    let keys = fixture.storage.get_key_log_ids(log_id(0, 0)..=log_id(4, 6)).await.unwrap();
    assert_eq!(keys, [(0, 0), (1, 4), (4, 6)].map(|(term, at)| log_id(term, at)));
}

/// Reads entries, and leaves the rest to openraft's own code.
struct EntriesOnly(Storage);

impl RaftLogReader<TypeConfig> for EntriesOnly {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        self.0.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.0.read_vote().await
    }
}

#[tokio::test]
async fn the_key_entries_are_those_that_openraft_would_find_by_reading() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, entries()).await;
    let all = entries();
    for first in 0..all.len() {
        for last in first..all.len() {
            let range = all[first].log_id()..=all[last].log_id();
            let found = fixture.storage.get_key_log_ids(range.clone()).await.unwrap();
            let mut reader = EntriesOnly(fixture.storage.clone());
            assert_eq!(found, reader.get_key_log_ids(range).await.unwrap(), "{first}..={last}");
        }
    }
}

#[tokio::test]
async fn what_is_read_for_another_voter_is_bounded_and_is_one_entry_at_least() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, (0..10).map(|index| normal(1, index, 100)).collect()).await;
    let size = fixture.storage.read_entries(0..1).unwrap()[0].batch.clone().unwrap();
    let size = size.size_in_bytes();
    for forgotten in [0, 2, 10] {
        fixture.storage.forget_before(forgotten);
        for (bytes_max, expected) in [(0, 1), (size, 1), (3 * size, 3), (3 * size + 1, 3)] {
            let read = fixture.storage.read_some_entries(1..10, bytes_max).unwrap();
            let indexes: Vec<u64> = read.iter().map(RaftEntry::index).collect();
            assert_eq!(indexes, (1..=expected).collect::<Vec<_>>(), "{bytes_max} bytes");
        }
        assert_eq!(fixture.storage.read_some_entries(1..10, usize::MAX).unwrap().len(), 9);
    }
}

#[tokio::test]
async fn what_comes_from_a_leader_is_written_with_its_bytes() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut leader, mut follower] = paths.each_ref().map(|path| open(path.path()));
    append(&mut leader, entries()).await;
    leader.storage.forget_before(3);
    let sent = read(&mut leader, 0..100).await;
    append(&mut follower, sent).await;
    let bytes = |path: &tempfile::TempDir| {
        std::fs::read(path.path().join("__cluster_metadata-0/00000000000000000000.log")).unwrap()
    };
    assert_eq!(bytes(&paths[0]), bytes(&paths[1]));
    assert_eq!(read(&mut follower, 0..100).await, entries());
    assert_eq!(follower.storage.origin(), leader.storage.origin());
}

/// openraft refuses a proposal while it hears nothing of a majority, and may take the next one of the same epoch.
#[tokio::test]
async fn a_decision_on_what_is_missing_is_never_appended_nor_what_follows_it() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    let decided = |index, number| {
        let mut entry = normal(1, index, 1);
        let EntryPayload::Normal(proposal) = &mut entry.payload else { unreachable!() };
        proposal.number = Some(number);
        entry
    };
    append(&mut fixture, vec![decided(0, 0), decided(1, 1)]).await;
    append(&mut fixture, vec![decided(2, 3)]).await;
    append(&mut fixture, vec![decided(3, 4), blank(2, 4)]).await;
    let kept = |entry: Entry| match entry.payload {
        EntryPayload::Normal(proposal) => {
            let is_kept = proposal.records == decided_records();
            assert_eq!(is_kept, proposal.verdict == Verdict::Applied);
            is_kept
        }
        EntryPayload::Blank | EntryPayload::Membership(_) => true,
    };
    let found = read(&mut fixture, 0..100).await;
    assert_eq!(found.into_iter().map(kept).collect::<Vec<_>>(), [true, true, false, false, true]);
    // Another epoch begins to count anew.
    let mut first = decided(5, 0);
    first.log_id = log_id(2, 5);
    if let EntryPayload::Normal(proposal) = &mut first.payload {
        proposal.epoch = LeaderEpoch(2);
    }
    append(&mut fixture, vec![first]).await;
    assert!(read(&mut fixture, 5..6).await.into_iter().all(kept));
}

fn decided_records() -> Arc<[MetadataRecord]> {
    let EntryPayload::Normal(proposal) = normal(1, 0, 1).payload else { unreachable!() };
    proposal.records
}

#[tokio::test]
async fn what_is_elsewhere_at_another_offset_is_not_written() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut leader, mut follower] = paths.each_ref().map(|path| open(path.path()));
    append(&mut leader, vec![normal(1, 0, 2), normal(1, 1, 1)]).await;
    append(&mut follower, vec![normal(1, 0, 1)]).await;
    let sent = read(&mut leader, 1..2).await;
    assert!(follower.storage.blocking_append(sent).await.is_err());
    assert_eq!(read(&mut follower, 0..100).await, [normal(1, 0, 1)]);
}

#[tokio::test]
async fn several_voters_begin_with_the_same_bytes_each_for_itself() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let begun = paths.each_ref().map(|path| open(path.path()));
    for fixture in &begun {
        fixture.storage.begin(voters(&[1, 2, 3])).unwrap();
    }
    assert!(begun[0].storage.origin().is_some());
    assert_eq!(begun[0].storage.origin(), begun[1].storage.origin());
    let other = tempfile::tempdir().unwrap();
    let other = open(other.path());
    other.storage.begin(voters(&[1, 2, 4])).unwrap();
    assert_ne!(other.storage.origin(), begun[0].storage.origin());
}

#[tokio::test]
async fn voters_that_are_truncated_are_forgotten() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, vec![membership(0, 0, &[&[1]]), membership(1, 1, &[&[1, 2, 3]])]).await;
    let ids = |fixture: &Fixture| -> Vec<i32> {
        fixture
            .storage
            .voters()
            .iter()
            .flat_map(|voters| voters.voter_ids().collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(ids(&fixture), [1, 2, 3]);
    fixture.storage.truncate_after(Some(log_id(0, 0))).await.unwrap();
    assert_eq!(ids(&fixture), [1]);
    fixture.storage.truncate_after(None).await.unwrap();
    assert_eq!((ids(&fixture), fixture.storage.origin()), (vec![], None));
}

#[tokio::test]
async fn voters_who_are_known_by_ids_alone_are_written_and_read_as_such() {
    let path = tempfile::tempdir().unwrap();
    let fixture = open(path.path());
    let unknown = Voter { directory_id: Uuid::ZERO, endpoints: Vec::new() };
    let voters: BTreeMap<_, _> = [1, 2].into_iter().map(|id| (id, unknown.clone())).collect();
    fixture.storage.begin(voters.clone()).unwrap();
    drop(fixture);
    let read = open(path.path()).storage.voters().unwrap();
    assert_eq!(
        read.nodes().map(|(id, voter)| (*id, voter.clone())).collect::<BTreeMap<_, _>>(),
        voters
    );
}

#[tokio::test]
async fn a_long_range_is_streamed_in_pieces_and_in_order() {
    use futures_util::StreamExt;
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, (0..1000).map(|index| normal(1, index, 1)).collect()).await;
    fixture.storage.forget_before(900);
    let stream = fixture.storage.entries_stream(10..1000).await;
    let indexes: Vec<u64> = stream.map(|entry| entry.unwrap().index()).collect().await;
    assert_eq!(indexes, (10..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_truncated_is_gone_and_other_entries_take_its_place() {
    let path = tempfile::tempdir().unwrap();
    for cached in [true, false] {
        for keep in 1..7_u64 {
            let path = path.path().join(format!("{cached}-{keep}"));
            let mut fixture = open(&path);
            append(&mut fixture, entries()).await;
            if !cached {
                fixture.storage.forget_before(7);
            }
            let kept: Vec<_> = entries().into_iter().take(usize::try_from(keep).unwrap()).collect();
            let last = kept.last().unwrap().log_id();
            fixture.storage.truncate_after(Some(last)).await.unwrap();
            assert_eq!(read(&mut fixture, 0..100).await, kept);

            append(&mut fixture, vec![blank(9, keep), normal(9, keep + 1, 3)]).await;
            let expected = [kept, vec![blank(9, keep), normal(9, keep + 1, 3)]].concat();
            assert_eq!(read(&mut fixture, 0..100).await, expected);
            drop(fixture);
            assert_eq!(read(&mut open(&path), 0..100).await, expected);
        }
    }
}

#[tokio::test]
async fn all_may_be_truncated() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, entries()).await;
    fixture.storage.truncate_after(None).await.unwrap();
    assert_eq!(fixture.storage.get_log_state().await.unwrap().last_log_id, None);
    append(&mut fixture, entries()).await;
    assert_eq!(read(&mut fixture, 0..100).await, entries());
}

#[tokio::test]
async fn a_hole_is_refused() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, vec![blank(1, 0)]).await;
    assert!(fixture.storage.blocking_append([blank(1, 2)]).await.is_err());
    assert_eq!(read(&mut fixture, 0..100).await, [blank(1, 0)]);
}

#[tokio::test]
async fn only_a_quorum_of_one_takes_what_is_on_disk_for_committed() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    assert_eq!(fixture.storage.read_committed().await.unwrap(), None);
    append(&mut fixture, vec![membership(0, 0, &[&[1]]), blank(1, 1)]).await;
    assert_eq!(fixture.storage.read_committed().await.unwrap(), Some(log_id(1, 1)));
    for configs in [&[&[1][..], &[1, 2, 3]][..], &[&[1, 2, 3]], &[&[2]]] {
        let index = fixture.storage.last_index().unwrap() + 1;
        append(&mut fixture, vec![membership(1, index, configs)]).await;
        assert_eq!(fixture.storage.read_committed().await.unwrap(), None, "{configs:?}");
    }
}

#[tokio::test]
async fn a_vote_is_kept_and_known_at_once() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    assert_eq!(fixture.storage.read_vote().await.unwrap(), None);
    let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: false };
    fixture.storage.save_vote(&vote).await.unwrap();
    assert_eq!(fixture.storage.read_vote().await.unwrap(), Some(vote));
    drop(fixture);
    assert_eq!(open(path.path()).storage.read_vote().await.unwrap(), Some(vote));
}

#[tokio::test]
async fn what_is_on_disk_is_told_from_what_is_only_written() {
    let path = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let mut fixture = open_on(Arc::clone(&disk) as _, path.path()).unwrap();
    let [vote, other] = [4, 5].map(|term| Vote::new_committed(term, 2));
    let mut entries = entries();
    let last = entries.pop().unwrap();
    append(&mut fixture, entries).await;
    assert!(!fixture.storage.is_durable(&vote, None), "nobody was voted for");
    fixture.storage.save_vote(&vote).await.unwrap();
    let stall = disk.stall_syncs();
    let (flushed, has_flushed) = TypeConfig::oneshot();
    fixture.storage.append([last], IOFlushed::signal(flushed)).await.unwrap();
    let storage = &fixture.storage;
    let is_durable = |upto| storage.is_durable(&vote, upto);
    assert!(is_durable(None) && is_durable(Some(log_id(4, 5))));
    assert!(!is_durable(Some(log_id(3, 5))), "what is there is another entry");
    assert!(!is_durable(Some(log_id(4, 6))), "it is only written");
    assert!(!storage.is_durable(&other, Some(log_id(4, 5))), "the vote is another one's");
    drop(stall);
    has_flushed.await.unwrap().unwrap();
    assert!(is_durable(Some(log_id(4, 6))));
    assert!(!is_durable(Some(log_id(4, 7))), "it is not there");
}

#[tokio::test]
async fn once_closed_it_writes_nothing_more() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    fixture.storage.close();
    assert!(fixture.storage.blocking_append([blank(1, 0)]).await.is_err());
    let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: false };
    assert!(fixture.storage.save_vote(&vote).await.is_err());
}

/// Applies all entries, and takes a snapshot after the one at `index`.
fn take_snapshot(fixture: &Fixture, index: u64) -> Arc<Extent> {
    let entries = fixture.storage.read_entries(0..index + 1).unwrap();
    let voters = entries.iter().rev().find_map(|entry| {
        let membership = openraft::entry::RaftPayload::get_membership(&entry.payload)?;
        let batch = entry.batch.clone().unwrap();
        Some(crate::snapshot::Voters { index: entry.index(), membership, batch })
    });
    let last = entries.last().unwrap();
    let batch = last.batch.as_ref().unwrap();
    let extent = Arc::new(Extent {
        id: SnapshotId { end_offset: batch.next_offset(), epoch: epoch_of(&last.log_id) },
        entries: index + 1,
        timestamp: batch.max_timestamp(),
        origin: fixture.storage.origin(),
        voters: Arc::new(voters.unwrap()),
    });
    let image = ottla_metadata::Image::new("cluster");
    fixture.storage.snapshots().write(&extent, &image, &false.into()).unwrap();
    extent
}

#[tokio::test]
async fn what_is_purged_is_gone_and_the_rest_keeps_its_place_also_after_a_restart() {
    for upto in 0..7_u64 {
        let path = tempfile::tempdir().unwrap();
        let mut fixture = open(path.path());
        append(&mut fixture, entries()).await;
        let origin = fixture.storage.origin();
        let extent = take_snapshot(&fixture, upto);
        let last = entries()[usize::try_from(upto).unwrap()].log_id();
        assert_eq!(extent.last(), last);
        fixture.storage.purge(last).await.unwrap();
        fixture.storage.trim_to(extent.id.end_offset).unwrap();
        for reopened in [false, true] {
            if reopened {
                drop(fixture);
                fixture = open(path.path());
                assert_eq!(fixture.restored.as_ref().unwrap().extent, extent);
            }
            let state = fixture.storage.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id, Some(last));
            assert_eq!(state.last_log_id, Some(log_id(4, 6)));
            let rest = entries().split_off(usize::try_from(upto).unwrap() + 1);
            assert_eq!(read(&mut fixture, upto + 1..100).await, rest);
            assert!(fixture.storage.try_get_log_entries(upto..100).await.is_err());
            assert_eq!(fixture.storage.origin(), origin);
            let ids: Vec<i32> = fixture.storage.voters().unwrap().voter_ids().collect();
            assert_eq!(ids, [1, 2, 3]);
        }
        append(&mut fixture, vec![blank(9, 7)]).await;
        fixture.storage.truncate_after(Some(last)).await.unwrap();
        let state = fixture.storage.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(last));
        append(&mut fixture, vec![blank(9, upto + 1)]).await;
        assert_eq!(read(&mut fixture, upto + 1..100).await, [blank(9, upto + 1)]);
    }
}

#[tokio::test]
async fn nothing_is_purged_that_no_snapshot_on_disk_holds() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    append(&mut fixture, entries()).await;
    assert!(fixture.storage.purge(log_id(0, 0)).await.is_err());
    take_snapshot(&fixture, 3);
    assert!(fixture.storage.purge(log_id(1, 4)).await.is_err());
    assert_eq!(read(&mut fixture, 0..100).await, entries());
    fixture.storage.purge(log_id(1, 2)).await.unwrap();
    // The files keep what openraft may still read, whatever is asked for.
    fixture.storage.trim_to(Offset(1_000)).unwrap();
    assert_eq!(read(&mut fixture, 3..100).await, entries()[3..]);
}

#[tokio::test]
async fn a_log_that_does_not_lead_to_a_snapshot_begins_again_after_it() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut leader, mut follower] = paths.each_ref().map(|path| open(path.path()));
    append(&mut leader, entries()).await;
    let extent = take_snapshot(&leader, 5);
    let name = format!("__cluster_metadata-0/{}", extent.id.file_name());
    let first = read(&mut leader, 0..1).await.remove(0);
    // Shorter, longer with other records, and just as long in another epoch.
    let logs = [
        vec![first.clone()],
        vec![first.clone(), normal(3, 1, 100)],
        vec![first, blank(1, 1), normal(3, 2, 10)],
        vec![],
    ];
    for log in logs {
        append(&mut follower, log).await;
        drop(follower);
        std::fs::copy(paths[0].path().join(&name), paths[1].path().join(&name)).unwrap();
        follower = open(paths[1].path());
        let state = follower.storage.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(extent.last()));
        assert_eq!(state.last_log_id, Some(extent.last()));
        let rest = read(&mut leader, 6..100).await;
        append(&mut follower, rest).await;
        assert_eq!(read(&mut follower, 6..100).await, entries()[6..]);
        // Its own log leads to it now, and stays.
        drop(follower);
        follower = open(paths[1].path());
        assert_eq!(read(&mut follower, 6..100).await, entries()[6..]);
        follower.storage.truncate_after(Some(extent.last())).await.unwrap();
        std::fs::remove_file(paths[1].path().join(&name)).unwrap();
        drop(follower);
        let directory = paths[1].path().join("__cluster_metadata-0");
        std::fs::remove_dir_all(directory).unwrap();
        std::fs::remove_file(paths[1].path().join("ottla.begun")).unwrap();
        follower = open(paths[1].path());
    }
}

#[tokio::test]
async fn who_has_had_a_snapshot_alone_has_had_a_log() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut leader, follower] = paths.each_ref().map(|path| open(path.path()));
    append(&mut leader, entries()).await;
    let id = take_snapshot(&leader, 5).id;
    let note = paths[1].path().join("ottla.begun");
    assert!(!note.exists(), "it has had nothing");
    follower.storage.install(&leader.storage.snapshots().load(id).unwrap()).unwrap();
    assert!(note.exists());
    drop(follower);
    assert!(matches!(try_open(paths[1].path()), Err(LogError::Gone(_))));
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_an_error_and_deletes_nothing() {
    let paths = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut one, mut other] = paths.each_ref().map(|path| open(path.path()));
    append(&mut one, entries()).await;
    append(&mut other, vec![membership(0, 0, &[&[2]]), blank(1, 1)]).await;
    let extent = take_snapshot(&one, 5);
    let name = format!("__cluster_metadata-0/{}", extent.id.file_name());
    let log = paths[1].path().join("__cluster_metadata-0/00000000000000000000.log");
    let before = std::fs::read(&log).unwrap();
    drop(other);
    std::fs::copy(paths[0].path().join(&name), paths[1].path().join(&name)).unwrap();
    let error = try_open(paths[1].path()).err().unwrap().to_string();
    assert!(error.contains("has begun with something else"), "{error}");
    assert_eq!(std::fs::read(&log).unwrap(), before);
}

const RESERVE: &str = "__cluster_metadata-0/reserve";
/// Longer than a write is left alone for want of room.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(2);

/// Something that has not come to its end after a while.
async fn waiting<F>(fixture: &Fixture, work: impl FnOnce(Storage) -> F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut waiting = tokio::spawn(work(fixture.storage.clone()));
    assert!(tokio::time::timeout(A_WHILE, &mut waiting).await.is_err(), "there is room");
    waiting
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_on_the_disk_waits_for_it() {
    let (path, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let mut fixture = open_on(Arc::clone(&disk) as _, path.path()).unwrap();
    append(&mut fixture, entries()).await;
    let vote = Vote { leader_id: LeaderId { term: 5, voted_for: 2 }, committed: false };

    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    let appending = waiting(&fixture, |mut storage| async move {
        storage.blocking_append(vec![normal(4, 7, 3)]).await
    })
    .await;
    let voting =
        waiting(&fixture, move |mut storage| async move { storage.save_vote(&vote).await }).await;
    assert_eq!(fixture.storage.read_vote().await.unwrap(), None, "it is not on disk");
    assert_eq!(read(&mut fixture, 0..100).await, entries());

    disk.fail_writes(None);
    appending.await.unwrap().unwrap();
    voting.await.unwrap().unwrap();
    let all = [entries(), vec![normal(4, 7, 3)]].concat();
    assert_eq!(read(&mut fixture, 0..100).await, all);
    drop(fixture);
    let mut fixture = open(path.path());
    assert_eq!(read(&mut fixture, 0..100).await, all);
    assert_eq!(fixture.storage.read_vote().await.unwrap(), Some(vote));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_for_no_room_and_other_errors_are_errors_at_once() {
    let (path, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let mut fixture = open_on(Arc::clone(&disk) as _, path.path()).unwrap();
    append(&mut fixture, entries()).await;
    disk.fail_writes(Some(io::ErrorKind::Other));
    fixture.storage.blocking_append(vec![normal(4, 7, 3)]).await.unwrap_err();

    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    let appending = waiting(&fixture, |mut storage| async move {
        storage.blocking_append(vec![normal(4, 7, 3)]).await
    })
    .await;
    fixture.storage.room().stop();
    appending.await.unwrap().unwrap_err();
    assert_eq!(read(&mut fixture, 0..100).await, entries());
}

#[tokio::test(start_paused = true)]
async fn the_reserve_goes_when_there_is_no_room_and_comes_back_when_there_is_plenty() {
    let (path, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let reserve = path.path().join(RESERVE);
    let mut fixture = open_on(Arc::clone(&disk) as _, path.path()).unwrap();
    append(&mut fixture, entries()).await;
    assert_eq!(disk.status(&reserve).unwrap().len, 0, "blocks, and no bytes");

    disk.fail_writes(Some(io::ErrorKind::QuotaExceeded));
    let appending = waiting(&fixture, |mut storage| async move {
        storage.blocking_append(vec![normal(4, 7, 3)]).await
    })
    .await;
    assert!(!reserve.exists());
    disk.fail_writes(None);
    disk.set_free(Some(1 << 20));
    appending.await.unwrap().unwrap();
    tokio::time::advance(A_WHILE * 10).await;
    append(&mut fixture, vec![blank(4, 8)]).await;
    assert!(!reserve.exists(), "the little that there is may be needed");

    disk.set_free(None);
    append(&mut fixture, vec![blank(4, 9)]).await;
    assert!(!reserve.exists(), "it was looked for just now");
    tokio::time::advance(A_WHILE * 10).await;
    append(&mut fixture, vec![blank(4, 10)]).await;
    assert!(reserve.exists());

    // Where it was there before, it stays however little is free.
    drop(fixture);
    disk.set_free(Some(0));
    drop(open_on(Arc::clone(&disk) as _, path.path()).unwrap());
    assert!(reserve.exists());
}

#[tokio::test(start_paused = true)]
async fn a_log_is_cut_off_only_when_there_is_room_for_it() {
    let (path, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let mut fixture = open_on(Arc::clone(&disk) as _, path.path()).unwrap();
    append(&mut fixture, entries()).await;
    disk.set_free(Some(1 << 10));
    let cutting =
        waiting(
            &fixture,
            |mut storage| async move { storage.truncate_after(Some(log_id(1, 3))).await },
        )
        .await;
    assert_eq!(read(&mut fixture, 0..100).await, entries());
    disk.set_free(Some(1 << 20));
    cutting.await.unwrap().unwrap();
    assert_eq!(read(&mut fixture, 0..100).await, entries()[..4]);
}

#[tokio::test]
async fn a_vote_that_is_older_than_the_log_gives_none_away_in_the_logs_epoch() {
    let path = tempfile::tempdir().unwrap();
    let mut fixture = open(path.path());
    assert_eq!(fixture.storage.read_vote().await.unwrap(), None);
    append(&mut fixture, entries()).await;
    drop(fixture);
    let quorum_state = path.path().join("__cluster_metadata-0/quorum-state");
    let vote = |term, voted_for, committed| {
        Some(Vote::from_leader_id(LeaderId { term, voted_for }, committed))
    };
    let ours = vote(4, NODE.0, false);
    for (text, expected) in [
        (None, ours),
        (Some(r#"{"leaderId":2,"leaderEpoch":3,"votedId":-1,"data_version":1}"#), ours),
        (Some(r#"{"leaderId":2,"leaderEpoch":4,"votedId":-1,"data_version":1}"#), vote(4, 2, true)),
        (
            Some(r#"{"leaderId":-1,"leaderEpoch":5,"votedId":3,"data_version":1}"#),
            vote(5, 3, false),
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&quorum_state, text).unwrap();
        }
        let mut fixture = open(path.path());
        assert_eq!(fixture.storage.read_vote().await.unwrap(), expected, "{text:?}");
    }
}
