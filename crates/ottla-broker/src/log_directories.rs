//! All log directories of this broker behind one door: which of them holds a log, and where a new one goes. Shell.
//!
//! Invariant: no two directories hold a log of the same partition of the same topic. They may hold logs of one name, such as
//! that of a topic that was deleted and made anew while one of the directories was out: only the metadata tells which of
//! them is nobody's.
//!
//! A directory that fails keeps its place here: what it holds is still read, and nobody takes what is in it for gone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use ottla_base::{Offset, TopicId, TopicPartition, Uuid};
use ottla_env::Clock;
use ottla_log::{
    CreateError, DirectoryOptions, FlushListener, Leftover, Log, LogConfig, LogDirectory,
    OpenError, StorageError, settle,
};
use ottla_metadata::topic_name;
use ottla_quorum::give_up_reserve;

/// A formatted directory, and the id in its `meta.properties`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    pub path: PathBuf,
    pub id: Uuid,
}

/// A directory of `log.dirs` that could not be used when the node started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub path: PathBuf,
    pub reason: String,
}

/// Where the data of a node is.
#[derive(Debug, Clone)]
pub struct DataDirectories {
    /// `log.dirs`, in the order of the configuration.
    pub usable: Vec<DataDirectory>,
    pub unreadable: Vec<Unreadable>,
    /// `metadata.log.dir`: one of those above, or another one, that holds no partitions then.
    pub metadata: DataDirectory,
}

impl DataDirectories {
    /// Those that can be used, and the one with the metadata, once each.
    pub(crate) fn to_open(&self) -> impl Iterator<Item = &DataDirectory> {
        let apart = Some(&self.metadata).filter(|it| !self.usable.contains(it));
        self.usable.iter().chain(apart)
    }
}

/// Why a node can't start with these directories.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("none of the directories in log.dirs is usable: {0}")]
    None(String),
    #[error(
        "{log} is in {} and in {}: one of them is what is left of a move that a failing disk interrupted, or was made while \
         the other directory was not in log.dirs. Move the older one away by hand; it is most likely the one in the directory \
         that failed, or was not there",
        .first.display(), .second.display()
    )]
    Twice { log: TopicPartition, first: PathBuf, second: PathBuf },
}

/// The directories of `log.dirs` that were opened, those that were not, and the one with the metadata.
#[derive(Debug)]
pub(crate) struct LogDirectories {
    members: Vec<Member>,
    unreadable: Vec<Unreadable>,
    metadata: Arc<LogDirectory>,
    /// Moves that were under way when the last process ended, and where to.
    interrupted_moves: Vec<(Leftover, PathBuf)>,
}

/// What is known of a path.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Online(&'a Member),
    Offline,
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub id: Uuid,
    pub directory: Arc<LogDirectory>,
}

impl LogDirectories {
    /// Opens all directories at the same time, and recovers what is in them. One that can't be opened is reported, and
    /// the others go on without it; not without the one that holds the metadata, and not if none is left.
    ///
    /// # Errors
    /// [`StartError`]
    pub(crate) fn open(
        given: &DataDirectories,
        config: &LogConfig,
        options: &DirectoryOptions,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let try_open = |path: &Path| {
            let (config, options) = (config.clone(), options.clone());
            LogDirectory::open(path, config, options, Arc::clone(clock)).map(Arc::new)
        };
        // A recovery writes indexes, also on a full disk.
        let open = |DataDirectory { path, .. }: &DataDirectory| match try_open(path) {
            Err(error) if error.is_full() && give_up_reserve(&*options.disk, path) => {
                tracing::warn!(directory = %path.display(), %error, "the metadata's reserve is given up, and the directory opened again");
                try_open(path)
            }
            opened => opened,
        };
        let all: Vec<&DataDirectory> = given.to_open().collect();
        let opened: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = all.iter().map(|it| scope.spawn(|| open(it))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|it| it.expect("opening a directory does not panic")).collect()
        });
        let mut members = Vec::new();
        let mut unreadable = given.unreadable.clone();
        let mut metadata = None;
        for (given_directory, opened) in all.into_iter().zip(opened) {
            let holds_metadata = given.metadata == *given_directory;
            let DataDirectory { path, id } = given_directory.clone();
            match opened {
                Ok(directory) => {
                    if holds_metadata {
                        metadata = Some(Arc::clone(&directory));
                    }
                    if given.usable.contains(given_directory) {
                        members.push(Member { id, directory });
                    }
                }
                // A second broker with the same data must not go on with a part of it.
                Err(error @ OpenError::Locked { .. }) => return Err(error.into()),
                Err(error) if holds_metadata => return Err(error.into()),
                Err(error) => unreadable.push(Unreadable { path, reason: error.to_string() }),
            }
        }
        let metadata = metadata.expect("the one with the metadata was opened, or this has ended");
        Self::check(members, unreadable, metadata)
    }

    fn check(
        members: Vec<Member>,
        unreadable: Vec<Unreadable>,
        metadata: Arc<LogDirectory>,
    ) -> Result<Self, StartError> {
        for Unreadable { path, reason } in &unreadable {
            let directory = path.display();
            tracing::error!(%directory, %reason, "a log directory is offline, and so are the partitions in it");
        }
        if members.is_empty() {
            return Err(StartError::None(list(&unreadable)));
        }
        let directories: Vec<_> = members.iter().map(|it| Arc::clone(&it.directory)).collect();
        let interrupted = settle(&directories).map_err(OpenError::Storage)?;
        let with_path = |(copy, to): (_, Arc<LogDirectory>)| (copy, to.path().to_owned());
        let interrupted_moves = interrupted.into_iter().map(with_path).collect();
        for (at, member) in members.iter().enumerate() {
            for log in member.directory.logs() {
                let name = log.topic_partition();
                let is_twice = |other: &&Member| {
                    other.directory.log(name).is_some_and(|it| may_be_one(&log, &it))
                };
                if let Some(other) = members.iter().skip(at + 1).find(is_twice) {
                    return Err(StartError::Twice {
                        log: name.clone(),
                        first: member.path().to_owned(),
                        second: other.path().to_owned(),
                    });
                }
            }
        }
        Ok(Self { members, unreadable, metadata, interrupted_moves })
    }

    /// The directory that holds the metadata log.
    #[must_use]
    pub(crate) const fn metadata(&self) -> &Arc<LogDirectory> {
        &self.metadata
    }

    /// Those that hold partitions, in the order of `log.dirs`.
    #[must_use]
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Those that were not usable at the start.
    #[must_use]
    pub(crate) fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// The members, and the directory of the metadata if that is none of them.
    fn all(&self) -> impl Iterator<Item = &Arc<LogDirectory>> {
        let members = self.members.iter().map(|member| &member.directory);
        let is_member = self.members.iter().any(|it| Arc::ptr_eq(&it.directory, &self.metadata));
        members.chain((!is_member).then_some(&self.metadata))
    }

    /// Adds somebody who is told when records reach the disk, and when a disk fails.
    pub(crate) fn add_listener(&self, listener: &Arc<dyn FlushListener>) {
        self.all().for_each(|directory| directory.add_listener(Arc::clone(listener)));
    }

    #[must_use]
    pub(crate) fn are_all_online(&self) -> bool {
        self.unreadable.is_empty() && self.members.iter().all(Member::is_online)
    }

    /// Moves that are to begin again, and where to.
    #[must_use]
    pub(crate) fn interrupted_moves(&self) -> &[(Leftover, PathBuf)] {
        &self.interrupted_moves
    }

    /// Whether there is a copy of a log that is nowhere: its move had not come to an end.
    #[must_use]
    pub(crate) fn has_unfinished_copy(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
    ) -> bool {
        let mut left = self.members.iter().flat_map(|member| member.directory.leftovers());
        left.any(|it| it.partition == *partition && it.topic_id == Some(topic_id))
    }

    /// The directory that a client names, by its absolute path.
    #[must_use]
    pub(crate) fn find(&self, path: &Path) -> Found<'_> {
        let is_it = |ours: &Path| std::path::absolute(ours).is_ok_and(|ours| ours == path);
        match self.members.iter().find(|member| is_it(member.path())) {
            Some(member) if member.is_online() => Found::Online(member),
            Some(_) => Found::Offline,
            None if self.unreadable.iter().any(|it| is_it(&it.path)) => Found::Offline,
            None => Found::Unknown,
        }
    }

    /// The ids of those that can take new records.
    #[must_use]
    pub(crate) fn online(&self) -> Vec<Uuid> {
        let online = self.members.iter().filter(|member| member.is_online());
        online.map(|member| member.id).collect()
    }

    #[must_use]
    pub(crate) fn with_id(&self, id: Uuid) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    #[must_use]
    pub(crate) fn at(&self, path: &Path) -> Option<&Member> {
        self.members.iter().find(|member| member.path() == path)
    }

    /// The id of the directory that a log is in.
    #[must_use]
    pub(crate) fn id_of(&self, log: &Log) -> Option<Uuid> {
        self.at(log.directory()).map(|member| member.id)
    }

    /// The log of a partition of this very topic.
    #[must_use]
    pub(crate) fn log(&self, partition: &TopicPartition, topic_id: TopicId) -> Option<Arc<Log>> {
        self.named(partition).find(|log| log.topic_id() == Some(topic_id))
    }

    /// The logs of this name, whosever they are.
    pub(crate) fn named(&self, partition: &TopicPartition) -> impl Iterator<Item = Arc<Log>> {
        self.members.iter().filter_map(|member| member.directory.log(partition))
    }

    /// The logs of all partitions, without that of the metadata.
    #[must_use]
    pub(crate) fn logs(&self) -> Vec<Arc<Log>> {
        self.members.iter().flat_map(Member::logs).collect()
    }

    /// Creates an empty log in the directory of this id, or in the one with the fewest logs.
    ///
    /// # Errors
    /// When that directory is not online, or none is; or as [`LogDirectory::create`].
    pub(crate) fn create(
        &self,
        partition: TopicPartition,
        topic_id: TopicId,
        config: Arc<LogConfig>,
        place: Option<Uuid>,
    ) -> Result<Arc<Log>, CreateError> {
        let member = match place {
            Some(id) => self.with_id(id),
            None => self.least_loaded(&partition),
        };
        let Some(member) = member else {
            return Err(CreateError::NoDirectory { log: partition.to_string() });
        };
        member.directory.create(partition, topic_id, config)
    }

    /// Of several with as few logs, the first. Not where the name is taken, by a log that could not be taken away.
    fn least_loaded(&self, partition: &TopicPartition) -> Option<&Member> {
        let is_free = |member: &&Member| member.directory.log(partition).is_none();
        let online = self.members.iter().filter(|member| member.is_online()).filter(is_free);
        online.min_by_key(|member| member.directory.log_count() - member.metadata_log_count())
    }

    /// As [`LogDirectory::delete`], wherever the log of this topic is.
    pub(crate) fn delete(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
    ) -> Result<bool, StorageError> {
        let log = self.log(partition, topic_id);
        let member = log.and_then(|log| self.at(log.directory()));
        member.map_or(Ok(false), |member| member.directory.delete(partition))
    }

    /// As [`LogDirectory::set_aside`].
    pub(crate) fn set_aside(&self, log: &Log) -> Result<bool, StorageError> {
        let member = self.at(log.directory());
        member.map_or(Ok(false), |member| member.directory.set_aside(log.topic_partition()))
    }

    /// As [`LogDirectory::delete_records`]: the file with the starts is written once in each directory. `refuse` makes
    /// of a failure what each log in that directory gets as its answer.
    pub(crate) fn delete_records<E: Clone>(
        &self,
        trims: &[(Arc<Log>, Offset)],
        refuse: impl Fn(StorageError) -> E,
    ) -> Vec<Result<Offset, E>> {
        let mut starts: Vec<Option<Result<Offset, E>>> = vec![None; trims.len()];
        for member in &self.members {
            let is_here = |(_, (log, _)): &(usize, &(Arc<Log>, Offset))| member.holds(log);
            let (places, here): (Vec<usize>, Vec<(Arc<Log>, Offset)>) =
                trims.iter().enumerate().filter(is_here).map(|(at, it)| (at, it.clone())).unzip();
            if here.is_empty() {
                continue;
            }
            let answers: Vec<_> = match member.directory.delete_records(&here) {
                Ok(answers) => answers.into_iter().map(|it| it.map_err(&refuse)).collect(),
                Err(error) => vec![Err(refuse(error)); here.len()],
            };
            for (at, answer) in places.into_iter().zip(answers) {
                if let Some(start) = starts.get_mut(at) {
                    *start = Some(answer);
                }
            }
        }
        starts.into_iter().map(|start| start.expect("each log is in one directory")).collect()
    }

    /// As [`LogDirectory::begin_flush`], in all that hold partitions.
    pub(crate) fn begin_flush(&self) {
        self.members.iter().for_each(|member| member.directory.begin_flush());
    }

    /// What is wrong with each directory that is not as it should be, a line each.
    #[must_use]
    pub(crate) fn problems(&self) -> String {
        let mut text = String::new();
        for Unreadable { path, reason } in &self.unreadable {
            let _ = writeln!(text, "log directory {} is offline: {reason}", path.display());
        }
        for member in &self.members {
            if let Err(error) = member.directory.check_health() {
                let _ = writeln!(text, "{error}");
            } else if member.directory.is_full() {
                let path = member.path().display();
                let _ = writeln!(text, "log directory {path} has no room for clients' records");
            }
        }
        text
    }

    /// Whether there is no room for clients' records where this log is.
    #[must_use]
    pub(crate) fn is_full(&self, log: &Log) -> bool {
        self.at(log.directory()).is_some_and(|member| member.directory.is_full())
    }

    pub(crate) fn set_producer_id_expiration_ms(&self, expiration_ms: i64) {
        self.all().for_each(|it| it.set_producer_id_expiration_ms(expiration_ms));
    }

    pub(crate) fn set_reserved_bytes(&self, bytes: u64) {
        self.members.iter().for_each(|it| it.directory.set_reserved_bytes(bytes));
    }

    /// The epoch that this broker had when it last closed all of its directories; `None` if it did not, or if one of
    /// them can't be asked.
    #[must_use]
    pub(crate) fn previous_broker_epoch(&self) -> Option<i64> {
        let mut epochs = self.members.iter().map(|member| member.directory.previous_broker_epoch());
        let first = epochs.next()??;
        let agree = self.unreadable.is_empty() && epochs.all(|epoch| epoch == Some(first));
        agree.then_some(first)
    }

    /// Closes all directories at the same time. One that has failed does not keep the others from it.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn close(&self, broker_epoch: i64) -> Result<(), StorageError> {
        thread::scope(|scope| {
            let closing: Vec<_> =
                self.all().map(|it| scope.spawn(move || it.close(broker_epoch))).collect();
            let closed = closing.into_iter().map(|thread| thread.join());
            let mut closed = closed.map(|it| it.expect("closing a directory does not panic"));
            let first = closed.find(Result::is_err).unwrap_or(Ok(()));
            closed.for_each(drop);
            first
        })
    }
}

impl Member {
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its logs, without that of the metadata.
    #[must_use]
    pub(crate) fn logs(&self) -> Vec<Arc<Log>> {
        self.directory.logs().into_iter().filter(|log| !is_metadata(log)).collect()
    }

    /// Whether new records can be written.
    #[must_use]
    pub(crate) fn is_online(&self) -> bool {
        self.directory.check_health().is_ok()
    }

    fn holds(&self, log: &Log) -> bool {
        log.directory() == self.path()
    }

    fn metadata_log_count(&self) -> usize {
        let metadata = TopicPartition::new(topic_name::CLUSTER_METADATA, 0);
        usize::from(self.directory.log(&metadata).is_some())
    }
}

/// Whether two logs of one name are the same partition's, as far as is known: one that does not tell its topic may be.
fn may_be_one(one: &Log, other: &Log) -> bool {
    let ids = one.topic_id().zip(other.topic_id());
    ids.is_none_or(|(one, other)| one == other)
}

fn is_metadata(log: &Log) -> bool {
    &*log.topic_partition().topic == topic_name::CLUSTER_METADATA
}

fn list(unreadable: &[Unreadable]) -> String {
    let mut text = String::new();
    for Unreadable { path, reason } in unreadable {
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}{}: {reason}", path.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use ottla_base::{LeaderEpoch, Timestamp};
    use ottla_env::{FaultyDisk, SystemClock};

    use super::*;
    use crate::replica::one_record;

    struct Fixture {
        root: tempfile::TempDir,
        disk: Arc<FaultyDisk>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), disk: Arc::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        /// `a`, which has the metadata, and `b`.
        fn open(&self) -> Result<LogDirectories, StartError> {
            let directory = |(name, id)| DataDirectory { path: self.path(name), id: uuid(id) };
            let usable: Vec<_> = [("a", 1001), ("b", 1002)].map(directory).into();
            let metadata = usable[0].clone();
            let given = DataDirectories { usable, unreadable: Vec::new(), metadata };
            let disk = Arc::clone(&self.disk) as _;
            let options = DirectoryOptions { disk, ..DirectoryOptions::default() };
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            LogDirectories::open(&given, &LogConfig::default(), &options, &clock)
        }
    }

    fn uuid(id: u128) -> Uuid {
        Uuid::from_u128(id)
    }

    #[test]
    fn a_directory_with_nothing_but_the_metadata_is_opened_beside_the_others_and_no_other_twice() {
        let [a, b, apart] = ["a", "b", "m"]
            .map(|name| DataDirectory { path: PathBuf::from(name), id: uuid(name.len() as u128) });
        let opened = |metadata: &DataDirectory| {
            let (usable, metadata) = (vec![a.clone(), b.clone()], metadata.clone());
            DataDirectories { usable, unreadable: Vec::new(), metadata }.to_open().count()
        };
        assert_eq!((opened(&a), opened(&b), opened(&apart)), (2, 2, 3));
    }

    #[test]
    fn a_directory_on_a_full_disk_is_opened_with_the_room_of_the_reserve() {
        let fixture = Fixture::new();
        fixture.open().unwrap().close(-1).unwrap();
        let home = fixture.path("a").join("__cluster_metadata-0");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("00000000000000000000.log"), b"").unwrap();
        let reserve = home.join("reserve");
        std::fs::write(&reserve, b"").unwrap();
        fixture.disk.fail_writes(Some(io::ErrorKind::StorageFull));
        fixture.open().unwrap_err();
        assert!(!reserve.exists(), "without it there may be room");
        fixture.disk.fail_writes(None);
        fixture.open().unwrap();
    }

    fn create(
        directories: &LogDirectories,
        partition: i32,
        place: Option<Uuid>,
    ) -> Result<Arc<Log>, CreateError> {
        let name = TopicPartition::new("t", partition);
        directories.create(name, uuid(7), Arc::new(LogConfig::default()), place)
    }

    fn append(log: &Log) -> bool {
        log.append_batch(one_record(Timestamp(1_000)), LeaderEpoch(0)).is_ok()
            && log.flush().is_ok()
    }

    #[test]
    fn a_log_is_put_where_the_fewest_are_or_where_it_is_wanted() {
        let fixture = Fixture::new();
        let directories = fixture.open().unwrap();
        let metadata = TopicPartition::new(topic_name::CLUSTER_METADATA, 0);
        let config = Arc::new(LogConfig::default());
        directories.metadata().create(metadata, uuid(1), config).unwrap();
        let wanted = Some(uuid(1001));
        let places = [(0, None), (1, None), (2, wanted), (3, None), (4, None)];
        let ids = places.map(|(partition, place)| {
            let log = create(&directories, partition, place).unwrap();
            directories.id_of(&log).unwrap()
        });
        assert_eq!(ids, [1001, 1002, 1001, 1002, 1001].map(uuid));
        assert_eq!(directories.logs().len(), 5);
        assert!(create(&directories, 9, Some(uuid(1003))).is_err(), "there is no such directory");
        let name = TopicPartition::new("t", 1);
        assert!(!directories.delete(&name, uuid(8)).unwrap());
        assert!(directories.delete(&name, uuid(7)).unwrap());
        assert!(directories.named(&name).next().is_none());
        assert!(!directories.delete(&name, uuid(7)).unwrap());
    }

    #[test]
    fn a_directory_that_has_failed_is_read_and_gets_no_new_logs() {
        let fixture = Fixture::new();
        let directories = fixture.open().unwrap();
        let [a, b] = [0, 1].map(|partition| create(&directories, partition, None).unwrap());
        assert!(append(&a) && append(&b));
        fixture.disk.fail_syncs_under(&fixture.path("b"));
        assert!(!append(&b) && append(&a));
        assert_eq!(directories.online(), [uuid(1001)]);
        assert!(matches!(directories.find(&fixture.path("b")), Found::Offline));
        assert!(directories.problems().contains(&fixture.path("b").display().to_string()));
        let more = [2, 3].map(|partition| create(&directories, partition, None).unwrap());
        assert!(more.iter().all(|log| directories.id_of(log) == Some(uuid(1001))));
        assert!(create(&directories, 4, Some(uuid(1002))).is_err());
        let read = b.read(Offset(0), 1_000, Offset(1), true).unwrap();
        assert!(!read.is_empty());
        let starts = directories.delete_records(&[(a, Offset(1)), (b, Offset(1))], drop);
        assert_eq!(starts, [Ok(Offset(1)), Err(())]);
        directories.close(1).unwrap_err();
        let marker = |name| fixture.path(name).join(".kafka_cleanshutdown").exists();
        assert_eq!([marker("a"), marker("b")], [true, false]);
    }

    #[test]
    fn a_log_that_is_in_two_directories_is_refused() {
        let fixture = Fixture::new();
        drop(create(&fixture.open().unwrap(), 0, None).unwrap());
        let of = |name| fixture.path(name).join("t-0");
        std::fs::create_dir(of("b")).unwrap();
        let refused = fixture.open().unwrap_err();
        assert!(matches!(refused, StartError::Twice { .. }), "{refused}");
        std::fs::remove_dir(of("b")).unwrap();
        let in_b = |topic_id| {
            let directories = fixture.open().unwrap();
            let b = directories.with_id(uuid(1002)).unwrap();
            let config = Arc::new(LogConfig::default());
            b.directory.create(TopicPartition::new("t", 0), uuid(topic_id), config).unwrap();
        };
        in_b(7);
        assert!(matches!(fixture.open(), Err(StartError::Twice { .. })));
        std::fs::remove_dir_all(of("b")).unwrap();
        in_b(8);
        fixture.open().unwrap();
    }

    /// The topic was deleted and made anew while one of the directories was out.
    #[test]
    fn logs_of_one_name_and_two_topics_are_told_apart() {
        let fixture = Fixture::new();
        let directories = fixture.open().unwrap();
        let name = TopicPartition::new("t", 0);
        let config = || Arc::new(LogConfig::default());
        let [in_a, in_b] = [(1001, 7), (1002, 8)].map(|(directory, topic)| {
            let member = directories.with_id(uuid(directory)).unwrap();
            member.directory.create(name.clone(), uuid(topic), config()).unwrap()
        });
        let found = [7, 8, 9].map(|topic| directories.log(&name, uuid(topic)));
        let [Some(seven), Some(eight), None] = found else { panic!("{found:?}") };
        assert!(Arc::ptr_eq(&seven, &in_a) && Arc::ptr_eq(&eight, &in_b));
        assert!(directories.create(name.clone(), uuid(9), config(), None).is_err());
        assert!(directories.delete(&name, uuid(8)).unwrap());
        assert_eq!(
            directories.named(&name).map(|log| log.topic_id()).collect::<Vec<_>>(),
            [Some(uuid(7))]
        );
        let third = directories.create(name.clone(), uuid(9), config(), None).unwrap();
        assert_eq!(directories.id_of(&third), Some(uuid(1002)), "in a its name is taken");
        assert!(directories.set_aside(&in_a).unwrap());
        assert!(directories.log(&name, uuid(7)).is_none());
        assert!(directories.log(&name, uuid(9)).is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_opened_is_left_out_unless_it_has_the_metadata() {
        let fixture = Fixture::new();
        std::fs::write(fixture.path("b"), "no directory").unwrap();
        let directories = fixture.open().unwrap();
        assert_eq!(directories.unreadable()[0].path, fixture.path("b"));
        assert!(!directories.are_all_online());
        assert_eq!(directories.previous_broker_epoch(), None);
        drop(directories);
        std::fs::remove_dir_all(fixture.path("a")).unwrap();
        std::fs::rename(fixture.path("b"), fixture.path("a")).unwrap();
        assert!(matches!(fixture.open(), Err(StartError::Open(_))));
    }
}
