//! How Kafka names the files and directories of a log. Pure.

use std::path::{Path, PathBuf};

use ottla_base::{Offset, TopicPartition, Uuid};

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
/// The transactions whose abort marker is in the segment; there only if there are any.
pub(crate) const TXN_INDEX: &str = "txnindex";
/// The producers as they were where the segment of this name begins, or where the log ended.
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Everything that belongs to one segment and goes when it goes.
pub(crate) const SEGMENT_SUFFIXES: [&str; 5] = [LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT];
/// What a cleaned segment takes the place of: all but the producers, who are the same as before.
pub(crate) const CLEANED_SUFFIXES: [&str; 4] = [INDEX, TIME_INDEX, TXN_INDEX, LOG];

/// A removed file waits under this suffix for readers to finish.
pub(crate) const DELETED: &str = ".deleted";
/// A small file that is being written, on its way to replace the one without this ending.
pub(crate) const TEMPORARY: &str = ".tmp";
/// An unfinished compaction.
pub(crate) const CLEANED: &str = ".cleaned";
/// A finished one, on its way to replace what it was made from.
pub(crate) const SWAP: &str = ".swap";

pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// The wish that the next start adopts a topic; ours alone.
pub(crate) const ADOPT: &str = "ottla.adopt";
/// Ranges of the log that are known to be damaged; ours alone.
pub(crate) const QUARANTINE: &str = "ottla.quarantine";
/// What was flushed beside the logs, for many of them at once; ours alone.
pub(crate) const JOURNALS: [&str; 2] = ["ottla.journal.0", "ottla.journal.1"];
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Up to where each log has been compacted.
pub(crate) const CLEANED_OFFSETS: &str = "cleaner-offset-checkpoint";
pub(crate) const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Up to where each log was replicated, in Kafka's opinion.
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Whose data directory it is.
pub(crate) const META_PROPERTIES: &str = "meta.properties";
/// Who was voted for, in the directory of the metadata's log.
pub(crate) const QUORUM_STATE: &str = "quorum-state";
/// A snapshot that KRaft took of the metadata: batches, too.
pub(crate) const METADATA_SNAPSHOT: &str = ".checkpoint";
/// A write to disk has failed: what the page cache holds need not be on the disk, nor ever get there.
pub(crate) const SYNC_FAILED: &str = ".ottla_sync_failed";
pub(crate) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(crate) const LOCK: &str = ".lock";

/// In a copy of a log in another directory: says that the copy is as good as the log.
pub(crate) const COMPLETE_COPY: &str = "copy-complete";

pub(crate) const FUTURE_SUFFIX: &str = "-future";
pub(crate) const DELETE_SUFFIX: &str = "-delete";
pub(crate) const STRAY_SUFFIX: &str = "-stray";
const FILE_NAME_MAX: usize = 255;

/// What a directory inside a log directory is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DirectoryName {
    Log(TopicPartition),
    /// Its topic was deleted; the data is on its way out.
    Deleted,
    /// A copy of a log in another directory, on its way to this one.
    Future(TopicPartition),
    /// Nothing of ours, or set aside (`-stray`).
    Other,
}

impl DirectoryName {
    pub(crate) fn parse(name: &str) -> Self {
        if name.ends_with(DELETE_SUFFIX) {
            return Self::Deleted;
        }
        if let Some((log, _unique)) =
            name.strip_suffix(FUTURE_SUFFIX).and_then(|name| name.rsplit_once('.'))
            && let Self::Log(partition) = Self::parse(log)
        {
            return Self::Future(partition);
        }
        let Some((topic, partition)) = name.rsplit_once('-') else { return Self::Other };
        let digits = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
        match partition.parse() {
            Ok(partition) if digits && !topic.is_empty() => {
                Self::Log(TopicPartition::new(topic, partition))
            }
            _ => Self::Other,
        }
    }
}

/// `00000000000000000042.log`
pub(crate) fn segment_file(directory: &Path, base_offset: Offset, suffix: &str) -> PathBuf {
    directory.join(format!("{:020}.{suffix}", base_offset.0))
}

/// This path with something after its name.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The base offset and suffix of a segment's file.
pub(crate) fn parse_segment_file(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let numeric = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let base_offset = digits.parse().ok().filter(|_| numeric)?;
    Some((Offset(base_offset), suffix))
}

/// A name that no log has, and that the next start recognises as garbage.
pub(crate) fn deleted_directory(log: &TopicPartition, unique: Uuid) -> String {
    renamed(log, unique, DELETE_SUFFIX)
}

/// The name of a copy in the making. It is not shortened: a log whose name leaves no room for it can't be moved.
pub(crate) fn future_directory(log: &TopicPartition, unique: Uuid) -> String {
    format!("{log}.{:032x}{FUTURE_SUFFIX}", u128::from_be_bytes(unique.0))
}

/// A name for the data of a log that the cluster does not know; never deleted by us.
pub(crate) fn stray_directory(log: &TopicPartition, unique: Uuid) -> String {
    renamed(log, unique, STRAY_SUFFIX)
}

fn renamed(log: &TopicPartition, unique: Uuid, suffix: &str) -> String {
    let tail = format!("-{}.{:032x}{suffix}", log.partition, u128::from_be_bytes(unique.0));
    let room = FILE_NAME_MAX - tail.len();
    let topic: String = log.topic.chars().take(room).collect();
    topic + &tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_follows_the_last_dash() {
        let parse = DirectoryName::parse;
        assert_eq!(parse("a-b-12"), DirectoryName::Log(TopicPartition::new("a-b", 12)));
        for other in ["a", "a-", "-1", "a-x", "a-+1", "a-99999999999", "a-1.abc-stray", "a--"] {
            assert_eq!(parse(other), DirectoryName::Other, "{other}");
        }
        assert_eq!(parse("a--1"), DirectoryName::Log(TopicPartition::new("a-", 1)));
    }

    #[test]
    fn a_deleted_log_is_recognised_and_its_name_fits_the_file_system() {
        let log = TopicPartition::new("t".repeat(249).as_str(), 2_000_000_000);
        let name = deleted_directory(&log, Uuid([0xab; 16]));
        assert!(name.len() <= FILE_NAME_MAX);
        assert_eq!(DirectoryName::parse(&name), DirectoryName::Deleted);
        let name = deleted_directory(&TopicPartition::new("t", 0), Uuid([0xab; 16]));
        assert_eq!(name, format!("t-0.{}-delete", "ab".repeat(16)));
    }

    #[test]
    fn a_copy_in_the_making_is_told_from_a_topic_with_dots_and_dashes() {
        let log = TopicPartition::new("a.b-c", 3);
        let name = future_directory(&log, Uuid([0xab; 16]));
        assert_eq!(name, format!("a.b-c-3.{}-future", "ab".repeat(16)));
        assert_eq!(DirectoryName::parse(&name), DirectoryName::Future(log));
        assert_eq!(DirectoryName::parse("a-future"), DirectoryName::Other);
    }

    #[test]
    fn segment_files_carry_their_base_offset() {
        let path = segment_file(Path::new("/d"), Offset(42), LOG);
        assert_eq!(path, Path::new("/d/00000000000000000042.log"));
        assert_eq!(parse_segment_file("00000000000000000042.log"), Some((Offset(42), "log")));
        let deleted = parse_segment_file("00000000000000000042.log.deleted");
        assert_eq!(deleted, Some((Offset(42), "log.deleted")));
        for other in ["42.log", "leader-epoch-checkpoint", "0000000000000000004x.log", "x"] {
            assert_eq!(parse_segment_file(other), None);
        }
    }
}
