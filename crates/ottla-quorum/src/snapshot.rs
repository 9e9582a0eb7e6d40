//! Snapshots of the metadata log: an image as a file beside it, in Kafka's format, so that the log's beginning may go. Pure.
//!
//! | room | |
//! | --- | --- |
//! | [`format`](mod@format) | a snapshot byte by byte |
//! | [`store`] | the files: written, read, the newest whole one found |
//! | [`policy`] | when one is due, and which ones go |
//! | [`keeper`] | the task that carries this out |
//! | [`transfer`] | a snapshot on its way to another voter |
//!
//! Invariants: `log_start_offset <= newest.end_offset`, where the newest is whole and durable; a snapshot holds
//! committed records only.

pub(crate) mod format;
pub(crate) mod keeper;
pub(crate) mod policy;
pub(crate) mod store;
pub(crate) mod transfer;

use std::fmt;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_records::ValidBatch;

use crate::members::Myself;
use crate::raft::{LogId, Membership, StoredMembership, log_id};

/// What a snapshot is called: the offset after the last record that it holds, and that record's leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SnapshotId {
    pub(crate) end_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
}

impl SnapshotId {
    /// `00000000000000000042-0000000003.checkpoint`
    pub(crate) fn file_name(self) -> String {
        format!("{self}{}", Self::SUFFIX)
    }

    pub(crate) const SUFFIX: &'static str = ".checkpoint";

    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let (offset, epoch) = file_name.strip_suffix(Self::SUFFIX)?.split_once('-')?;
        let digits =
            |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        let is_name = digits(offset, 20) && digits(epoch, 10);
        let (end_offset, epoch) = (offset.parse().ok()?, epoch.parse().ok()?);
        is_name.then_some(Self { end_offset: Offset(end_offset), epoch: LeaderEpoch(epoch) })
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}", self.end_offset.0, self.epoch.0)
    }
}

/// How far the log reaches where an entry ends, in everything that it is counted by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Extent {
    pub(crate) id: SnapshotId,
    /// The entries up to here: openraft's index of the last one is one less.
    pub(crate) entries: u64,
    /// The time of the last entry.
    pub(crate) timestamp: Timestamp,
    /// The CRC of the log's first entry, where it is still known.
    pub(crate) origin: Option<u32>,
    pub(crate) voters: Arc<Voters>,
}

/// The last entry that named the voters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Voters {
    pub(crate) index: u64,
    /// As the log names them.
    pub(crate) membership: Membership,
    /// As it is, or was, in the log.
    pub(crate) batch: ValidBatch,
}

impl Extent {
    pub(crate) fn last(&self) -> LogId {
        log_id(self.id.epoch.0, self.entries.saturating_sub(1))
    }

    /// The members, as this node's openraft sees them.
    pub(crate) fn membership(&self, myself: Myself) -> StoredMembership {
        let Voters { index, membership, batch } = &*self.voters;
        let epoch = batch.header().partition_leader_epoch;
        StoredMembership::new(Some(log_id(epoch, *index)), myself.sees(membership.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kafkas_and_nothing_else_is_one() {
        let id = SnapshotId { end_offset: Offset(42), epoch: LeaderEpoch(3) };
        assert_eq!(id.file_name(), "00000000000000000042-0000000003.checkpoint");
        assert_eq!(SnapshotId::parse(&id.file_name()), Some(id));
        for other in [
            "00000000000000000042-0000000003.checkpoint.part",
            "00000000000000000042-0000000003.checkpoint.deleted",
            "00000000000000000042.log",
            "0000000000000000042-0000000003.checkpoint",
            "+0000000000000000042-0000000003.checkpoint",
            "99999999999999999999-0000000003.checkpoint",
            "leader-epoch-checkpoint",
        ] {
            assert_eq!(SnapshotId::parse(other), None, "{other}");
        }
    }
}
