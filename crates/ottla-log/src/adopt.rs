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
//! say so. So a crash leaves a directory that is as it was, or one that the next start adopts; the broker removes the
//! file when the topic is known. Apache Kafka passes over it.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use ottla_base::{Offset, TopicId, TopicPartition};
use ottla_env::disk::Open;
use ottla_env::{Disk, OsDisk};
use ottla_records::NO_PRODUCER_ID;

use crate::checkpoint;
use crate::directory;
use crate::error::{Context, OpenError, StorageError};
use crate::names::{self, DirectoryName};
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
    #[error("partition {missing} of {topic} is missing: all of 0 to {last} must be there")]
    Missing { topic: String, missing: i32, last: i32 },
    #[error("{} names no topic id", .0.display())]
    NoTopicId(PathBuf),
    #[error("{} belongs to topic id {found}, and partition 0 to {expected}", .path.display())]
    OtherTopic { path: PathBuf, found: TopicId, expected: TopicId },
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

/// Announces the topic that has the partition in `path`, with all of its partitions beside it. The data directory must
/// not be in use. With `despite_damage` what is damaged is no reason to refuse: it will be quarantined.
pub fn announce(
    path: &Path,
    configs: Vec<(String, String)>,
    despite_damage: bool,
) -> Result<Adoption, AdoptError> {
    let disk: &dyn Disk = &OsDisk;
    let absolute = std::path::absolute(path).context("find", path)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy();
    let not_a_partition = || AdoptError::NotAPartition(path.to_owned());
    let DirectoryName::Log(partition) = DirectoryName::parse(&name) else {
        return Err(not_a_partition());
    };
    let data = absolute.parent().ok_or_else(not_a_partition)?;
    if disk.status(&data.join(names::META_PROPERTIES)).is_err() {
        return Err(AdoptError::NotADataDirectory(data.to_owned()));
    }
    if let Some((_, value)) = configs.iter().find(|(_, value)| value.contains(['\n', '\r'])) {
        return Err(AdoptError::Config(value.clone()));
    }
    let _lock = directory::lock(disk, data)?;
    let logs = partitions_of(disk, data, &partition.topic)?;
    let topic_id = common_id(disk, data, &logs)?;
    let (ends, largest_producer_id) = check(disk, data, &logs, despite_damage)?;
    flush(disk, data, &logs)?;
    note_offsets(disk, data, ends)?;
    let adoption = Adoption {
        topic: partition.topic.to_string(),
        topic_id,
        partitions: i32::try_from(logs.len()).unwrap_or(i32::MAX),
        largest_producer_id,
        configs,
    };
    checkpoint::replace_durably(disk, &marker(data, &adoption.topic), &adoption.to_text())?;
    Ok(adoption)
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

/// The topic's partitions, 0 to the last one without a gap.
fn partitions_of(
    disk: &dyn Disk,
    data: &Path,
    topic: &str,
) -> Result<Vec<TopicPartition>, AdoptError> {
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
    logs.sort();
    let last = logs.last().map_or(0, |log| log.partition.0);
    for expected in 0..=last {
        let at = usize::try_from(expected).unwrap_or(usize::MAX);
        if logs.get(at).is_none_or(|log| log.partition.0 != expected) {
            return Err(AdoptError::Missing { topic: topic.to_owned(), missing: expected, last });
        }
    }
    Ok(logs)
}

fn common_id(disk: &dyn Disk, data: &Path, logs: &[TopicPartition]) -> Result<TopicId, AdoptError> {
    let mut common = None;
    for log in logs {
        let path = data.join(log.to_string());
        let found = directory::read_topic_id(disk, &path)?;
        let found = found.ok_or_else(|| AdoptError::NoTopicId(path.clone()))?;
        let expected = *common.get_or_insert(found);
        if found != expected {
            return Err(AdoptError::OtherTopic { path, found, expected });
        }
    }
    common.ok_or_else(|| AdoptError::NotAPartition(data.to_owned()))
}

/// Reads all of it, and gives each log's end, and the largest id of a producer.
fn check(
    disk: &dyn Disk,
    data: &Path,
    logs: &[TopicPartition],
    despite_damage: bool,
) -> Result<(Vec<(TopicPartition, Offset)>, i64), AdoptError> {
    let (mut ends, mut largest_producer_id) = (Vec::new(), NO_PRODUCER_ID);
    for log in logs {
        let path = data.join(log.to_string());
        let (report, end) = verify::verify_log(disk, &path, Options { deep: true })?;
        largest_producer_id = largest_producer_id.max(report.largest_producer_id);
        // An index that Kafka left unfinished is made anew, and is no reason.
        let damage = report.findings.into_iter().find(|it| it.weight == Weight::Damage);
        if let Some(damage) = damage.filter(|_| !despite_damage) {
            return Err(AdoptError::Damaged(Box::new(damage)));
        }
        ends.push((log.clone(), end));
    }
    Ok((ends, largest_producer_id))
}

fn flush(disk: &dyn Disk, data: &Path, logs: &[TopicPartition]) -> Result<(), StorageError> {
    for log in logs {
        let path = data.join(log.to_string());
        for entry in disk.list(&path).context("list", &path)? {
            let path = path.join(&entry.name);
            let file = disk.open(&path, Open::Read).context("open", &path)?;
            disk.sync_data(&file).context("flush", &path)?;
        }
        disk.sync_directory(&path).context("flush", &path)?;
    }
    disk.sync_directory(data).context("flush", data)
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
