//! A metadata log that Apache Kafka wrote: known by how it begins, and left alone. Shell, which only reads.
//!
//! A log that this program writes begins with its voters, the same on every node. Apache Kafka's begins with a leader's
//! `LeaderChangeMessage`. Where that beginning is gone into a snapshot, there is neither the note that a metadata log has
//! begun here nor the room that is kept for it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use ottla_broker::{BEGUN_NAME, RESERVE_NAME};
use ottla_records::{Batches, ControlType};

use crate::initial_controllers::control_records;

/// The first batch of a metadata log is smaller.
const FIRST_BYTES: u64 = 64 * 1024;

/// Refuses the directory of the metadata if the log in it is Apache Kafka's. What can't be read is left to whoever opens it.
pub(crate) fn check(metadata: &Path, log: &str) -> anyhow::Result<()> {
    if is_kafkas(&metadata.join(log)).unwrap_or(false) {
        bail!(
            "{} holds the metadata of an Apache Kafka cluster, which is not taken over as a whole: start with an empty \
             directory, and move the topics there with `ottla topic adopt` (operations.md, \"From Apache Kafka\")",
            metadata.display()
        );
    }
    Ok(())
}

fn is_kafkas(log: &Path) -> io::Result<bool> {
    let Some((begin, path)) = first_segment(log)? else { return Ok(false) };
    if begin > 0 {
        let beside = log.parent().unwrap_or(log).join(BEGUN_NAME);
        return Ok(!beside.exists() && !log.join(RESERVE_NAME).exists());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FIRST_BYTES).read_to_end(&mut bytes)?;
    let first = Batches::new(bytes.into()).next().and_then(Result::ok);
    let records = first.and_then(|batch| control_records(batch).ok()).unwrap_or_default();
    Ok(records.first().is_some_and(|(kind, _)| *kind == ControlType::LeaderChange))
}

/// The offset at which a log begins, and the segment there, if it has any.
fn first_segment(log: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let begin = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
    let segments = fs::read_dir(log)?.filter_map(Result::ok).map(|entry| entry.path());
    let segments = segments.filter(|path| path.extension().is_some_and(|it| it == "log"));
    Ok(segments.filter_map(|path| Some((begin(&path)?, path))).min())
}

#[cfg(test)]
mod tests {
    use ottla_base::{Offset, Timestamp};
    use ottla_protocol::records::{KRaftVersionRecord, LeaderChangeMessage};

    use super::*;
    use crate::initial_controllers::{batch, encode};

    const LOG: &str = "__cluster_metadata-0";
    const FIRST: &str = "00000000000000000000.log";

    fn refusal(segment: &str, bytes: &[u8], others: &[&str]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(LOG)).unwrap();
        fs::write(root.path().join(LOG).join(segment), bytes).unwrap();
        others.iter().for_each(|it| fs::write(root.path().join(it), "").unwrap());
        check(root.path(), LOG).err().map(|error| error.to_string())
    }

    #[test]
    fn a_metadata_log_that_begins_with_a_leader_is_apache_kafkas() {
        let leader = encode(&LeaderChangeMessage::default()).unwrap();
        let kafkas = batch(Offset(0), Timestamp(1), &[(ControlType::LeaderChange, leader)]);
        let refused = refusal(FIRST, &kafkas, &["ottla.begun"]).unwrap();
        assert!(refused.contains("`ottla topic adopt`"), "{refused}");
        let version = encode(&KRaftVersionRecord::default()).unwrap();
        let own = batch(Offset(0), Timestamp(1), &[(ControlType::KRaftVersion, version)]);
        assert_eq!(refusal(FIRST, &own, &[]), None);
    }

    #[test]
    fn a_metadata_log_without_its_beginning_is_apache_kafkas_where_nothing_of_ours_is_beside_it() {
        let later = "00000000000000001234.log";
        assert!(refusal(later, b"", &[]).is_some());
        assert_eq!(refusal(later, b"", &["ottla.begun"]), None);
        assert_eq!(refusal(later, b"", &["__cluster_metadata-0/reserve"]), None);
    }

    #[test]
    fn a_directory_that_was_only_formatted_and_one_that_is_not_there_are_not_refused() {
        let checkpoint = "00000000000000000000-0000000000.checkpoint";
        assert_eq!(refusal(checkpoint, b"", &["bootstrap.checkpoint"]), None);
        assert_eq!(refusal(FIRST, b"", &[]), None);
        check(Path::new("/nowhere"), LOG).unwrap();
    }
}
