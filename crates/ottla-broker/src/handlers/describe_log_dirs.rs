//! DescribeLogDirs (key 35), versions 1–5: the log directories, the logs in them and their sizes, and the room on their
//! disks. One that has failed, now or before the start, is answered with KAFKA_STORAGE_ERROR and nothing else.
//!
//! - v3: an error for the request as a whole. v4: total and usable bytes. v5: whether the directory is cordoned.
//! - Null topics mean all; the metadata log is not among them.
//! - A log that moves to another directory meanwhile is in one of the two.
//! - How far a replica is behind is told against what is visible, and of a copy on its way to another directory against the
//!   replica.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{ErrorCode, PartitionIndex, TopicId, TopicPartition};
use ottla_log::Log;
use ottla_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ottla_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use tracing::warn;

use super::Context;
use crate::answer::Outcome;
use crate::log_directories::Member;

/// The offset lag of a log that no topic owns.
const UNKNOWN_LAG: i64 = -1;

pub(super) async fn handle(context: Context, request: DescribeLogDirsRequest) -> Outcome {
    // The file system may take its time.
    let answered = tokio::task::spawn_blocking(move || {
        let results = describe_all(&context, &request);
        context.answer(&DescribeLogDirsResponse { results, ..Default::default() })
    });
    answered.await.expect("a look at the disk does not panic")
}

fn describe_all(context: &Context, request: &DescribeLogDirsRequest) -> Vec<DescribeLogDirsResult> {
    let directories = &context.broker.directories;
    // The copies first: one that becomes a log is found as one of the two at least.
    let held = |it: &Member| Held { futures: it.directory.futures(), logs: it.logs() };
    let held: Vec<Held> = directories.members().iter().map(held).collect();
    let places = places(&held, directories.are_all_online());
    let members = directories.members().iter().zip(&held).enumerate();
    let members = members
        .map(|(at, (member, held))| describe(context, request, member, held.at(at, &places)));
    members.chain(directories.unreadable().iter().map(|it| offline(&it.path))).collect()
}

/// What a directory holds.
struct Held {
    /// Copies in the making.
    futures: Vec<Arc<Log>>,
    logs: Vec<Arc<Log>>,
}

/// In which directory a partition is, and as what it was seen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Log(usize),
    Copy(usize),
}

/// Topics of one name, of which one was deleted, are told apart.
type Key<'a> = (&'a TopicPartition, Option<TopicId>);

type Places<'a> = HashMap<Key<'a>, Place>;

fn key(log: &Log) -> Key<'_> {
    (log.topic_partition(), log.topic_id())
}

/// What is told of a directory.
struct Told<'a> {
    logs: Vec<&'a Arc<Log>>,
    futures: Vec<&'a Arc<Log>>,
}

/// A move may end while one directory is looked at after the other: its log was seen in both, and is in the later one, or in
/// neither, when the copy was about to take its place, and counts as the log. Where a directory has failed, a copy
/// without a log may be all that is left, and does not.
fn places(held: &[Held], are_all_online: bool) -> Places<'_> {
    let all = held.iter().enumerate();
    let copies = all.clone().filter(|_| are_all_online);
    let copies = copies.flat_map(|(at, it)| it.futures.iter().map(move |it| (it, Place::Copy(at))));
    let logs = all.flat_map(|(at, it)| it.logs.iter().map(move |it| (it, Place::Log(at))));
    copies.chain(logs).map(|(log, place)| (key(log), place)).collect()
}

impl Held {
    fn at(&self, at: usize, places: &Places<'_>) -> Told<'_> {
        let place = |log: &Arc<Log>| places.get(&key(log)).copied();
        let is_log = |log: &&Arc<Log>| place(log) == Some(Place::Log(at));
        let copies = self.futures.iter().filter(|copy| !is_log(copy));
        let (ended, futures): (Vec<_>, Vec<_>) =
            copies.partition(|copy| place(copy) == Some(Place::Copy(at)));
        let logs = self.logs.iter().filter(is_log).chain(ended).collect();
        Told { logs, futures }
    }
}

fn offline(path: &Path) -> DescribeLogDirsResult {
    let absolute = std::path::absolute(path);
    DescribeLogDirsResult {
        log_dir: absolute.as_deref().unwrap_or(path).display().to_string().into(),
        error_code: ErrorCode::KAFKA_STORAGE_ERROR,
        ..DescribeLogDirsResult::default()
    }
}

fn describe(
    context: &Context,
    request: &DescribeLogDirsRequest,
    member: &Member,
    told: Told<'_>,
) -> DescribeLogDirsResult {
    let offline = offline(member.path());
    if !member.is_online() {
        return offline;
    }
    let space = match ottla_env::sys::disk_space(member.path()) {
        Ok(space) => space,
        Err(error) => {
            warn!(%error, "the file system does not say how much room it has");
            return offline;
        }
    };
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    DescribeLogDirsResult {
        topics: topics(context, request, &told),
        total_bytes: bytes(space.total),
        usable_bytes: bytes(space.usable),
        ..DescribeLogDirsResult { error_code: ErrorCode::NONE, ..offline }
    }
}

fn topics(
    context: &Context,
    request: &DescribeLogDirsRequest,
    told: &Told<'_>,
) -> Vec<DescribeLogDirsTopic> {
    let asked = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|index| (&*topic.topic, PartitionIndex(*index)))
        });
        partitions.collect::<HashSet<_>>()
    });
    let is_asked = |log: &&&Arc<Log>| {
        let name = log.topic_partition();
        let key = (&*name.topic, name.partition);
        asked.as_ref().is_none_or(|asked| asked.contains(&key))
    };
    let mut topics = BTreeMap::<ByteString, Vec<DescribeLogDirsPartition>>::new();
    let name = |log: &Log| ByteString::from(&*log.topic_partition().topic);
    for log in told.logs.iter().filter(is_asked) {
        topics.entry(name(log)).or_default().push(partition(context, log, false));
    }
    for future in told.futures.iter().filter(is_asked) {
        topics.entry(name(future)).or_default().push(partition(context, future, true));
    }
    let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
    topics.into_iter().map(topic).collect()
}

/// A log, or a copy of one in the making.
fn partition(context: &Context, log: &Log, is_future_key: bool) -> DescribeLogDirsPartition {
    let index = log.topic_partition().partition.0;
    let replica = log.topic_id().and_then(|id| context.broker.replicas.find(id, index));
    let lag = replica.map(|it| match is_future_key {
        true => it.log().log_end_offset() - log.log_end_offset(),
        false => (it.high_watermark() - log.log_end_offset()).max(0),
    });
    DescribeLogDirsPartition {
        partition_index: index,
        partition_size: i64::try_from(log.size_in_bytes()).unwrap_or(i64::MAX),
        offset_lag: lag.unwrap_or(UNKNOWN_LAG),
        is_future_key,
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{Timestamp, Uuid};
    use ottla_env::ManualClock;
    use ottla_log::{DirectoryOptions, LogConfig, LogDirectory, Move};

    use super::*;

    /// A log in the first of two directories, of which a copy is about to become one in the second.
    fn moving() -> (tempfile::TempDir, [Arc<LogDirectory>; 2], Move) {
        let temporary = tempfile::tempdir().unwrap();
        let directories = ["a", "b"].map(|name| {
            let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
            let (config, options) = (LogConfig::default(), DirectoryOptions::default());
            let path = temporary.path().join(name);
            Arc::new(LogDirectory::open(&path, config, options, clock).unwrap())
        });
        let partition = TopicPartition::new("t", 0);
        let [from, to] = directories.each_ref().map(Arc::clone);
        let config = Arc::new(LogConfig::default());
        let log = from.create(partition, Uuid([7; 16]), config).unwrap();
        let moving = Move::begin(from, to, &log).unwrap();
        (temporary, directories, moving)
    }

    fn held_by(directory: &LogDirectory) -> Held {
        Held { futures: directory.futures(), logs: directory.logs() }
    }

    fn counts(held: [Held; 2], are_all_online: bool) -> [(usize, usize); 2] {
        let places = places(&held, are_all_online);
        [0, 1].map(|at| {
            let told = held[at].at(at, &places);
            (told.logs.len(), told.futures.len())
        })
    }

    #[test]
    fn a_log_that_moves_while_its_directories_are_looked_at_is_in_one_of_them() {
        let (_temporary, [a, b], moving) = moving();
        let before = [(); 2].map(|()| [held_by(&a), held_by(&b)]);
        assert_eq!(counts([held_by(&a), held_by(&b)], true), [(1, 0), (0, 1)]);
        assert!(moving.step().unwrap().nearly_done);
        moving.finish().unwrap();
        let ([in_a, _], [_, in_b]) = before.into();
        assert_eq!(counts([in_a, held_by(&b)], true), [(0, 0), (1, 0)], "seen in both");
        assert_eq!(counts([held_by(&a), in_b], true), [(0, 0), (1, 0)], "seen in neither");
        assert_eq!(counts([held_by(&a), held_by(&b)], true), [(0, 0), (1, 0)]);
    }

    #[test]
    fn a_copy_whose_log_may_be_in_a_directory_that_failed_is_no_log() {
        let (_temporary, [a, b], moving) = moving();
        let in_b = held_by(&b);
        assert!(moving.step().unwrap().nearly_done);
        moving.finish().unwrap();
        assert_eq!(counts([held_by(&a), in_b], false), [(0, 0), (0, 1)]);
    }
}
