//! Topics that another broker wrote: found out about, and announced to the next start, while no broker runs. Shell.
//!
//! `ottla.adopt` in the directory of a topic's partition 0 says that the topic is to be adopted:
//!
//! ```text
//! version=0
//! topic_id=rMv-1dJXTC-3YzE5hHnIrg
//! partitions=3
//! largest_producer_id=4711
//! config.cleanup.policy=compact
//! ```
//!
//! It is written last, durably and at once, when all of the topic has been checked and flushed and the recovery points
//! of all data directories that have partitions of it say so. So a crash leaves a directory that is as it was, or one that the next start adopts; the broker removes the
//! file when the topic is known. Apache Kafka passes over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use ottla_base::{Offset, TopicId, TopicPartition};
use ottla_env::disk::Open;
use ottla_env::{Disk, OsDisk};
use ottla_records::NO_PRODUCER_ID;

use crate::checkpoint;
use crate::directory;
use crate::error::{Context, OpenError, StorageError};
use crate::journal;
use crate::names::{self, DirectoryName};
use crate::producers::snapshot;
use crate::verify::{self, Finding, Options, VerifyError, Weight};

/// A topic whose logs are in a data directory that does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    pub topic: String,
    pub topic_id: TopicId,
    pub partitions: i32,
    /// The largest id of a producer in the logs, −1 for none: another cluster's, and not to be given out in this one.
    pub largest_producer_id: i64,
    pub configs: Vec<(String, String)>,
}

/// Why a topic cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("{} is not the directory of a partition (TOPIC-N)", .0.display())]
    NotAPartition(PathBuf),
    #[error("{} is not a data directory of Ottla: it has no meta.properties", .0.display())]
    NotADataDirectory(PathBuf),
    #[error("{first} and {second} are two topics")]
    TwoTopics { first: String, second: String },
    #[error("{partition} is in {} and in {}", .first.display(), .second.display())]
    Twice { partition: TopicPartition, first: PathBuf, second: PathBuf },
    #[error("partition {missing} of {topic} is missing: all of 0 to {last} must be there")]
    Missing { topic: String, missing: i32, last: i32 },
    #[error("{} names no topic id", .0.display())]
    NoTopicId(PathBuf),
    #[error("{} belongs to topic id {found}, and partition 0 to {expected}", .path.display())]
    OtherTopic { path: PathBuf, found: TopicId, expected: TopicId },
    #[error("{} was not stopped properly, and its journal has appends to {topic}: start a broker on it, and stop that", .data.display())]
    Journaled { data: PathBuf, topic: String },
    #[error("{0:?} can't be the value of a configuration")]
    Config(String),
    #[error("{} is not as it was written: {}", .0.path.display(), .0.what)]
    Damaged(Box<Finding>),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A partition's log, and the data directory that it is in.
#[derive(Debug, Clone)]
struct Found {
    partition: TopicPartition,
    data: PathBuf,
}

impl Found {
    fn path(&self) -> PathBuf {
        self.data.join(self.partition.to_string())
    }
}

/// Announces the topic that has the partitions in `paths`, with all of its partitions beside them: where a broker has
/// several data directories, one partition of each that has some is named. The directories must not be in use. With
/// `despite_damage` what is damaged is no reason to refuse: it will be quarantined.
///
/// # Errors
/// [`AdoptError`] where the partitions are not those of one whole topic, one of them is damaged, a value has a line
/// break, a data directory is in use, or the disk fails. Nothing is announced then, though recovery points may say
/// already that the logs are on disk.
pub fn announce(
    paths: &[PathBuf],
    configs: Vec<(String, String)>,
    despite_damage: bool,
) -> Result<Adoption, AdoptError> {
    let disk: &dyn Disk = &OsDisk;
    let (topic, directories) = named(paths)?;
    if let Some(data) =
        directories.iter().find(|data| disk.status(&data.join(names::META_PROPERTIES)).is_err())
    {
        return Err(AdoptError::NotADataDirectory(data.clone()));
    }
    if let Some((_, value)) = configs.iter().find(|(_, value)| value.contains(['\n', '\r'])) {
        return Err(AdoptError::Config(value.clone()));
    }
    let lock = |data: &PathBuf| directory::lock(disk, data);
    let _locks: Vec<_> = directories.iter().map(lock).collect::<Result<_, _>>()?;
    check_journals(disk, &directories, &topic)?;
    let logs = partitions_of(disk, &directories, &topic)?;
    let first = logs.first().ok_or_else(|| AdoptError::NotAPartition(PathBuf::from(&topic)))?;
    let topic_id = common_id(disk, first, &logs)?;
    let (ends, largest_producer_id) = check(disk, &logs, despite_damage)?;
    flush(disk, &directories, &logs)?;
    for data in &directories {
        let here = logs.iter().zip(&ends).filter(|(log, _)| log.data == *data);
        note_offsets(disk, data, here.map(|(log, end)| (log.partition.clone(), *end)).collect())?;
    }
    let partitions = i32::try_from(logs.len()).unwrap_or(i32::MAX);
    let marker = marker(&first.data, &topic);
    let adoption = Adoption { topic, topic_id, partitions, largest_producer_id, configs };
    checkpoint::replace_durably(disk, &marker, &adoption.to_text())?;
    Ok(adoption)
}

/// What the next start would write back, over what is adopted.
fn check_journals(disk: &dyn Disk, directories: &[PathBuf], topic: &str) -> Result<(), AdoptError> {
    let is_of_topic = |log: &String| {
        let name = DirectoryName::parse(log);
        matches!(name, DirectoryName::Log(partition) if *partition.topic == *topic)
    };
    for data in directories {
        let was_closed = disk.status(&data.join(names::CLEAN_SHUTDOWN)).is_ok();
        let contents = journal::contents(disk, data)?;
        if !was_closed && contents.iter().flat_map(|it| &it.logs).any(is_of_topic) {
            return Err(AdoptError::Journaled { data: data.clone(), topic: topic.to_owned() });
        }
    }
    Ok(())
}

/// The topic that has the partitions in these directories, and the data directories that they are in, once each.
fn named(paths: &[PathBuf]) -> Result<(String, Vec<PathBuf>), AdoptError> {
    let mut topic: Option<String> = None;
    let mut directories = Vec::new();
    for path in paths {
        let absolute = std::path::absolute(path).context("find", path)?;
        let name = absolute.file_name().unwrap_or_default().to_string_lossy();
        let not_a_partition = || AdoptError::NotAPartition(path.clone());
        let DirectoryName::Log(partition) = DirectoryName::parse(&name) else {
            return Err(not_a_partition());
        };
        let data = absolute.parent().ok_or_else(not_a_partition)?.to_owned();
        let first = topic.get_or_insert_with(|| partition.topic.to_string());
        if **first != *partition.topic {
            let (first, second) = (first.clone(), partition.topic.to_string());
            return Err(AdoptError::TwoTopics { first, second });
        }
        if !directories.contains(&data) {
            directories.push(data);
        }
    }
    let topic = topic.ok_or_else(|| AdoptError::NotAPartition(PathBuf::new()))?;
    Ok((topic, directories))
}

/// Topics that wait to be adopted.
pub(crate) fn pending(disk: &dyn Disk, data: &Path) -> Result<Vec<Adoption>, StorageError> {
    let mut adoptions = Vec::new();
    for entry in disk.list(data).context("list", data)? {
        let DirectoryName::Log(partition) = DirectoryName::parse(&entry.name.to_string_lossy())
        else {
            continue;
        };
        if partition.partition.0 != 0 || !entry.is_directory {
            continue;
        }
        let path = marker(data, &partition.topic);
        let Some(text) = checkpoint::read_if_exists(disk, &path)? else { continue };
        match Adoption::from_text(&partition.topic, &text) {
            Some(adoption) => adoptions.push(adoption),
            None => tracing::error!(path = %path.display(), "not a wish to adopt a topic; ignored"),
        }
    }
    Ok(adoptions)
}

/// The topic is known: nothing is left to be done.
pub(crate) fn forget(disk: &dyn Disk, data: &Path, topic: &str) -> Result<(), StorageError> {
    let path = marker(data, topic);
    disk.remove_file(&path).context("remove", &path)
}

fn marker(data: &Path, topic: &str) -> PathBuf {
    data.join(format!("{topic}-0")).join(names::ADOPT)
}

/// The topic's partitions, 0 to the last one without a gap, each in one directory.
fn partitions_of(
    disk: &dyn Disk,
    directories: &[PathBuf],
    topic: &str,
) -> Result<Vec<Found>, AdoptError> {
    let mut logs = BTreeMap::new();
    for data in directories {
        for partition in partitions_in(disk, data, topic)? {
            let found = Found { partition: partition.clone(), data: data.clone() };
            if let Some(Found { data: first, .. }) = logs.insert(partition.clone(), found) {
                return Err(AdoptError::Twice { partition, first, second: data.clone() });
            }
        }
    }
    let last = logs.keys().last().map_or(0, |log| log.partition.0);
    let is_missing = |at: &i32| !logs.contains_key(&TopicPartition::new(topic, *at));
    match (0..=last).find(is_missing) {
        Some(missing) => Err(AdoptError::Missing { topic: topic.to_owned(), missing, last }),
        None => Ok(logs.into_values().collect()),
    }
}

fn partitions_in(
    disk: &dyn Disk,
    data: &Path,
    topic: &str,
) -> Result<Vec<TopicPartition>, StorageError> {
    let mut logs = Vec::new();
    for entry in disk.list(data).context("list", data)? {
        match DirectoryName::parse(&entry.name.to_string_lossy()) {
            DirectoryName::Log(log) if &*log.topic == topic && entry.is_directory => logs.push(log),
            DirectoryName::Log(_)
            | DirectoryName::Future(_)
            | DirectoryName::Deleted
            | DirectoryName::Other => {}
        }
    }
    Ok(logs)
}

fn common_id(disk: &dyn Disk, first: &Found, logs: &[Found]) -> Result<TopicId, AdoptError> {
    let id_in = |path: PathBuf| {
        let found = directory::read_topic_id(disk, &path)?;
        found.ok_or(AdoptError::NoTopicId(path))
    };
    let expected = id_in(first.path())?;
    for log in logs {
        let found = id_in(log.path())?;
        if found != expected {
            return Err(AdoptError::OtherTopic { path: log.path(), found, expected });
        }
    }
    Ok(expected)
}

/// Reads all of it, and gives each log's end, and the largest id of a producer.
fn check(
    disk: &dyn Disk,
    logs: &[Found],
    despite_damage: bool,
) -> Result<(Vec<Offset>, i64), AdoptError> {
    let (mut ends, mut largest_producer_id) = (Vec::new(), NO_PRODUCER_ID);
    for log in logs {
        let path = log.path();
        let (report, end) = verify::verify_log(disk, &path, Options { deep: true })?;
        // An index that Kafka left unfinished is made anew, and is no reason.
        let damage = report.findings.into_iter().find(|it| it.weight == Weight::Damage);
        if let Some(damage) = damage.filter(|_| !despite_damage) {
            return Err(AdoptError::Damaged(Box::new(damage)));
        }
        largest_producer_id = largest_producer_id
            .max(report.largest_producer_id)
            .max(largest_remembered_producer(disk, &path)?);
        ends.push(end);
    }
    Ok((ends, largest_producer_id))
}

/// Of those in the snapshots, −1 for none. A log remembers producers, and compares their sequence numbers, whose batches
/// are deleted.
fn largest_remembered_producer(disk: &dyn Disk, path: &Path) -> Result<i64, StorageError> {
    let mut largest = NO_PRODUCER_ID;
    for entry in disk.list(path).context("list", path)? {
        let name = entry.name.to_string_lossy();
        let Some((offset, names::SNAPSHOT)) = names::parse_segment_file(&name) else { continue };
        let path = path.join(&entry.name);
        let bytes = disk.read(&path).context("read", &path)?;
        // One that makes no sense is believed by nobody.
        let Ok(producers) = snapshot::decode(&bytes, offset) else { continue };
        largest = producers.iter().fold(largest, |largest, (id, _)| largest.max(id.0));
    }
    Ok(largest)
}

fn flush(disk: &dyn Disk, directories: &[PathBuf], logs: &[Found]) -> Result<(), StorageError> {
    for log in logs {
        let path = log.path();
        for entry in disk.list(&path).context("list", &path)? {
            let path = path.join(&entry.name);
            let file = disk.open(&path, Open::Read).context("open", &path)?;
            disk.sync_data(&file).context("flush", &path)?;
        }
        disk.sync_directory(&path).context("flush", &path)?;
    }
    for data in directories {
        disk.sync_directory(data).context("flush", data)?;
    }
    Ok(())
}

/// Everything is on disk, so that nothing of it is ever taken for a torn end; and what the data directory said of
/// earlier logs of these names is not true of them.
fn note_offsets(
    disk: &dyn Disk,
    data: &Path,
    ends: Vec<(TopicPartition, Offset)>,
) -> Result<(), StorageError> {
    for name in [names::LOG_START_OFFSETS, names::CLEANED_OFFSETS] {
        let path = data.join(name);
        let mut offsets = checkpoint::read_offsets(disk, &path)?;
        let before = offsets.len();
        offsets.retain(|log, _| !ends.iter().any(|(adopted, _)| adopted == log));
        if offsets.len() < before {
            checkpoint::write_offsets(disk, &path, &offsets)?;
        }
    }
    let path = data.join(names::RECOVERY_POINTS);
    let mut points = checkpoint::read_offsets(disk, &path)?;
    points.extend(ends);
    checkpoint::write_offsets(disk, &path, &points)
}

impl Adoption {
    fn to_text(&self) -> String {
        let Self { topic_id, partitions, largest_producer_id, configs, .. } = self;
        let mut text = format!(
            "version=0\ntopic_id={topic_id}\npartitions={partitions}\nlargest_producer_id={largest_producer_id}\n"
        );
        for (name, value) in configs {
            text.push_str(&format!("config.{name}={value}\n"));
        }
        text
    }

    fn from_text(topic: &str, text: &str) -> Option<Self> {
        let entries: Vec<(&str, &str)> =
            text.lines().map(|line| line.split_once('=')).collect::<Option<_>>()?;
        let value = |name| entries.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        if value("version") != Some("0") {
            return None;
        }
        let configs = entries.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix("config.")?.to_owned(), (*value).to_owned()))
        });
        Some(Self {
            topic: topic.to_owned(),
            topic_id: TopicId::from_str(value("topic_id")?).ok()?,
            partitions: value("partitions")?.parse().ok()?,
            largest_producer_id: value("largest_producer_id")?.parse().ok()?,
            configs: configs.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_the_file() {
        let adoption = Adoption {
            topic: "orders".to_owned(),
            topic_id: ottla_base::Uuid([7; 16]),
            partitions: 3,
            largest_producer_id: 4711,
            configs: vec![("cleanup.policy".to_owned(), "compact,delete=x".to_owned())],
        };
        assert_eq!(Adoption::from_text("orders", &adoption.to_text()), Some(adoption));
        for damaged in ["", "version=1\n", "version=0\ntopic_id=x\npartitions=1\n", "0\n"] {
            assert_eq!(Adoption::from_text("orders", damaged), None, "{damaged:?}");
        }
    }
}
