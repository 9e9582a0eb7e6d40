//! All log directories of this broker behind one door: which of them holds a log, and where a new one goes. Shell.
//!
//! Invariant: no two directories hold a log of the same partition.
//!
//! A directory that fails keeps its place here: what it holds is still read, and nobody takes what is in it for gone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use ottla_base::{Offset, TopicId, TopicPartition, Uuid};
use ottla_env::Clock;
use ottla_log::{
    CreateError, DirectoryOptions, FlushListener, Log, LogConfig, LogDirectory, OpenError,
    StorageError,
};
use ottla_metadata::topic_name;

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

/// Why a node can't start with these directories.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("none of the directories in log.dirs is usable: {0}")]
    None(String),
    #[error(
        "{log} is in {} and in {}: one of them is what is left of a move that a failing disk interrupted. Move it \
         away by hand; it is most likely the one in the directory that failed",
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
        let open = |directory: &DataDirectory| {
            let (config, options) = (config.clone(), options.clone());
            LogDirectory::open(&directory.path, config, options, Arc::clone(clock)).map(Arc::new)
        };
        let apart = Some(&given.metadata).filter(|it| !given.usable.contains(it));
        let all: Vec<&DataDirectory> = given.usable.iter().chain(apart).collect();
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
        for (at, member) in members.iter().enumerate() {
            for log in member.directory.logs() {
                let name = log.topic_partition();
                let mut others = members.iter().skip(at + 1);
                if let Some(other) = others.find(|other| other.directory.log(name).is_some()) {
                    return Err(StartError::Twice {
                        log: name.clone(),
                        first: member.path().to_owned(),
                        second: other.path().to_owned(),
                    });
                }
            }
        }
        Ok(Self { members, unreadable, metadata })
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

    #[must_use]
    pub(crate) fn log(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.members.iter().find_map(|member| member.directory.log(partition))
    }

    /// The logs of all partitions, without that of the metadata.
    #[must_use]
    pub(crate) fn logs(&self) -> Vec<Arc<Log>> {
        let logs = self.members.iter().flat_map(|member| member.directory.logs());
        logs.filter(|log| !is_metadata(log)).collect()
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
            None => self.least_loaded(),
        };
        let Some(member) = member else {
            return Err(CreateError::NoDirectory { log: partition.to_string() });
        };
        member.directory.create(partition, topic_id, config)
    }

    /// Of several with as few logs, the first.
    fn least_loaded(&self) -> Option<&Member> {
        let online = self.members.iter().filter(|member| member.is_online());
        online.min_by_key(|member| member.directory.log_count() - member.metadata_log_count())
    }

    /// As [`LogDirectory::delete`], wherever the log is.
    pub(crate) fn delete(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        self.holder(partition).map_or(Ok(false), |member| member.directory.delete(partition))
    }

    /// As [`LogDirectory::set_aside`], wherever the log is.
    pub(crate) fn set_aside(&self, partition: &TopicPartition) -> Result<bool, StorageError> {
        self.holder(partition).map_or(Ok(false), |member| member.directory.set_aside(partition))
    }

    fn holder(&self, partition: &TopicPartition) -> Option<&Member> {
        self.members.iter().find(|member| member.directory.log(partition).is_some())
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
