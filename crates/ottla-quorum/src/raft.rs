//! What openraft is told about our terms, nodes and entries. Shell.

use std::fmt;
use std::sync::Arc;

use openraft::entry::{RaftEntry, RaftPayload};
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, RaftTypeConfig};
use ottla_base::{LeaderEpoch, Timestamp, Uuid};
use ottla_metadata::{Endpoint, MetadataRecord};
use ottla_records::ValidBatch;

use crate::runtime::Runtime;

/// A term is a leader epoch, with at most one leader in each; a node id is Kafka's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Verdict;
    type NodeId = i32;
    type Node = Voter;
    type Term = i32;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Completion<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_std::LeaderId<i32, i32>;
pub(crate) type CommittedLeaderId = openraft::vote::leader_id_std::CommittedLeaderId<i32>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Proposal, i32, Voter>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Membership = openraft::Membership<i32, Voter>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, i32, Voter>;

/// The leader epoch that an entry was written in.
pub(crate) fn epoch_of(log_id: &LogId) -> LeaderEpoch {
    LeaderEpoch(**log_id.committed_leader_id())
}

pub(crate) fn log_id(term: i32, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// An entry, and the bytes that it is in the log.
///
/// The leader makes the bytes when it appends. Whoever gets the entry from it appends the same ones, times included:
/// so the logs of all voters are equal byte by byte.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) log_id: LogId,
    pub(crate) payload: Payload,
    /// `None` until it has been appended somewhere.
    pub(crate) batch: Option<ValidBatch>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (&self.log_id, &self.payload) == (&other.log_id, &other.payload)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.log_id, self.payload)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log_id, self.payload)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Self { log_id, payload, batch: None }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (self.log_id.committed_leader_id(), self.log_id.index())
    }

    fn set_log_id(&mut self, new: LogId) {
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

/// Records that belong together, decided in one leader epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    /// The epoch of the decision. In a log of any other epoch nothing of it may appear.
    pub(crate) epoch: LeaderEpoch,
    /// How many proposals of the epoch came before. It was decided on what all of them say, and nothing of it may appear where
    /// one of them is missing. Its author counts; a log does not tell.
    pub(crate) number: Option<u64>,
    /// What it becomes when it is committed.
    pub(crate) verdict: Verdict,
    pub(crate) timestamp: Timestamp,
    pub(crate) records: Arc<[MetadataRecord]>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records of epoch {}", self.records.len(), self.epoch)
    }
}

/// What became of a proposal that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    /// The epoch had ended, or what it was decided on is not in the log: a record that does nothing was written in its place.
    Superseded,
}

/// A member of the quorum, as the log's own records tell (`VotersRecord`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voter {
    /// Zero where the voters are known by their ids alone (`kraft.version` 0).
    pub(crate) directory_id: Uuid,
    /// None where the voters are known by their ids alone: then each node's configuration tells.
    pub(crate) endpoints: Vec<Endpoint>,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory_id.fmt(f)
    }
}

/// Runs when openraft is done with a request, on openraft's task: it must not block.
/// Dropped without having run, it means that the quorum has stopped.
pub(crate) struct Completion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Completion<T> {
    pub(crate) fn new(run: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(run))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Completion<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
