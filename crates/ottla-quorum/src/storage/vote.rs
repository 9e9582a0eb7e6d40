//! The vote on disk: Kafka's `quorum-state` beside the log. Shell.
//!
//! One line of JSON, `{"leaderId":-1,"leaderEpoch":2,"votedId":1,"votedDirectoryId":"…","data_version":1}`:
//! whom this node voted for in the epoch, or who leads in it, once that is known. The file is replaced whole: a
//! crash leaves the old vote or the new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::vote::RaftVote;
use ottla_base::{BrokerId, Uuid};
use ottla_env::Disk;
use serde::{Deserialize, Serialize};

use crate::raft::Vote;

const FILE_NAME: &str = "quorum-state";

#[derive(Debug, thiserror::Error)]
pub(crate) enum VoteError {
    #[error("{action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
}

/// Of the kind that tells whether the disk was full.
impl From<VoteError> for io::Error {
    fn from(error: VoteError) -> Self {
        let kind = match &error {
            VoteError::Io { source, .. } => source.kind(),
            VoteError::Damaged { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// The file, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuorumState {
    #[serde(default = "nobody")]
    leader_id: i32,
    leader_epoch: i32,
    #[serde(default = "nobody")]
    voted_id: i32,
    #[serde(default)]
    voted_directory_id: Option<String>,
    #[serde(rename = "data_version")]
    data_version: i16,
}

const fn nobody() -> i32 {
    -1
}

#[derive(Debug, Clone)]
pub(crate) struct VoteFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl VoteFile {
    /// The file in a log's directory.
    pub(crate) fn in_directory(disk: Arc<dyn Disk>, directory: &Path) -> Self {
        Self { disk, path: directory.join(FILE_NAME) }
    }

    /// `None` where nobody has voted yet. An epoch without a vote is one in which this node may still vote for itself.
    pub(crate) fn read(&self, node_id: BrokerId) -> Result<Option<Vote>, VoteError> {
        let text = match self.disk.read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read", source)),
        };
        let damaged = |what: String| VoteError::Damaged { path: self.path.clone(), what };
        let state: QuorumState =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let is_epoch = (0..i32::MAX).contains(&state.leader_epoch);
        let are_ids = state.leader_id >= nobody() && state.voted_id >= nobody();
        if !(0..=1).contains(&state.data_version) || !is_epoch || !are_ids {
            return Err(damaged(text.trim_end().to_owned()));
        }
        let (candidate, committed) = match (state.leader_id, state.voted_id) {
            (-1, -1) => (node_id.0, false),
            (-1, voted) => (voted, false),
            (leader, _) => (leader, true),
        };
        let leader_id = openraft::impls::leader_id_std::LeaderId {
            term: state.leader_epoch,
            voted_for: candidate,
        };
        Ok(Some(Vote::from_leader_id(leader_id, committed)))
    }

    /// Replaces the vote, and returns once that is on disk.
    pub(crate) fn write(
        &self,
        vote: &Vote,
        node_id: BrokerId,
        directory_id: Uuid,
    ) -> Result<(), VoteError> {
        let leader = vote.leader_id();
        let (leader_id, voted_id) = if vote.is_committed() {
            (leader.voted_for, nobody())
        } else {
            (nobody(), leader.voted_for)
        };
        let voted_directory = if voted_id == node_id.0 { directory_id } else { Uuid::ZERO };
        let state = QuorumState {
            leader_id,
            leader_epoch: leader.term,
            voted_id,
            voted_directory_id: Some(voted_directory.to_string()),
            data_version: 1,
        };
        let text = serde_json::to_string(&state).expect("numbers and a text are JSON");
        self.replace(text.as_bytes()).map_err(|source| self.failed("write", source))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        self.disk.create_directories(directory)?;
        let temporary = self.path.with_extension("tmp");
        let file = self.disk.write(&temporary, bytes)?;
        self.disk.sync_data(&file)?;
        self.disk.rename(&temporary, &self.path)?;
        self.disk.sync_directory(directory)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> VoteError {
        VoteError::Io { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ottla_env::OsDisk;

    use super::*;

    fn vote(term: i32, candidate: i32, committed: bool) -> Vote {
        let leader_id = openraft::impls::leader_id_std::LeaderId { term, voted_for: candidate };
        Vote::from_leader_id(leader_id, committed)
    }

    #[test]
    fn a_vote_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = VoteFile::in_directory(Arc::new(OsDisk), directory.path());
        let node = BrokerId(1);
        assert_eq!(file.read(node).unwrap(), None);
        for vote in [vote(1, 1, false), vote(1, 1, true), vote(2, 3, false), vote(5, 2, true)] {
            file.write(&vote, node, Uuid([9; 16])).unwrap();
            assert_eq!(file.read(node).unwrap(), Some(vote));
        }
    }

    #[test]
    fn the_file_reads_like_kafkas() {
        let directory = tempfile::tempdir().unwrap();
        let file = VoteFile::in_directory(Arc::new(OsDisk), directory.path());
        let id = Uuid([0x55; 16]);
        let text = || fs::read_to_string(directory.path().join("quorum-state")).unwrap();
        file.write(&vote(2, 1, false), BrokerId(1), id).unwrap();
        assert_eq!(
            text(),
            format!(
                r#"{{"leaderId":-1,"leaderEpoch":2,"votedId":1,"votedDirectoryId":"{id}","data_version":1}}"#
            )
        );
        file.write(&vote(2, 1, true), BrokerId(1), id).unwrap();
        assert!(text().starts_with(r#"{"leaderId":1,"leaderEpoch":2,"votedId":-1,"#), "{}", text());
    }

    #[test]
    fn an_epoch_in_which_nobody_was_voted_for_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = VoteFile::in_directory(Arc::new(OsDisk), directory.path());
        let text = r#"{"leaderId":-1,"leaderEpoch":7,"votedId":-1,"data_version":1}"#;
        fs::write(directory.path().join("quorum-state"), text).unwrap();
        assert_eq!(file.read(BrokerId(4)).unwrap(), Some(vote(7, 4, false)));
    }

    #[test]
    fn a_damaged_vote_is_an_error_and_never_no_vote() {
        let directory = tempfile::tempdir().unwrap();
        let file = VoteFile::in_directory(Arc::new(OsDisk), directory.path());
        let numbers = [
            r#"{"leaderEpoch":1,"data_version":9}"#,
            r#"{"leaderEpoch":-1,"data_version":1}"#,
            // There is no next one to be elected in.
            r#"{"leaderEpoch":2147483647,"data_version":1}"#,
            r#"{"leaderEpoch":1,"leaderId":-2,"data_version":1}"#,
            r#"{"leaderEpoch":1,"votedId":-7,"data_version":1}"#,
        ];
        for text in ["", "{"].into_iter().chain(numbers) {
            fs::write(directory.path().join("quorum-state"), text).unwrap();
            assert!(file.read(BrokerId(1)).is_err(), "{text}");
        }
    }
}
