//! Whether this node still led after it was asked something: what changes nothing is answered only then (Raft's read index). Shell.
//!
//! That a majority was heard of lately is not enough: voters that lose their connections to a leader elect another one without
//! waiting. So a majority answers heartbeats that were sent after the question. openraft knows which those are, and one round
//! of them confirms all who wait by then.

use std::time::Duration;

use openraft::errors::RaftError;
use openraft::raft::linearizable_read::LinearizerOption;
use ottla_base::LeaderEpoch;

use super::{QuorumRaft, SubmitError};
use crate::raft::epoch_of;

/// Which heartbeats confirm an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Some are sent for it: somebody waits.
    Own,
    /// Those that are due next, so that it costs nothing: nobody minds a tenth of a second.
    Next,
}

impl Round {
    /// It is waited for as long as a leader without a majority may change anything (openraft's lease).
    fn option(self) -> LinearizerOption {
        LinearizerOption::new(Some(Duration::ZERO), self == Self::Own)
    }
}

/// Returns once a majority has confirmed that this node leads in an epoch.
pub(crate) async fn confirm(
    raft: QuorumRaft,
    epoch: LeaderEpoch,
    round: Round,
) -> Result<(), SubmitError> {
    match raft.get_read_linearizer(round.option()).await {
        // It may have lost an epoch and won another one since it was asked.
        Ok(confirmed) if epoch_of(confirmed.read_log_id().log_id()) == epoch => Ok(()),
        Ok(_) | Err(RaftError::APIError(_)) => Err(SubmitError::NotController),
        Err(RaftError::Fatal(_)) => Err(SubmitError::Stopped),
    }
}
