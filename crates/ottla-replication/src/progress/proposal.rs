//! Another ISR that a leader has asked the controller for, and what it makes of a refusal. Pure.
//!
//! An answer may be lost and its change applied all the same. So a proposal stays in force until it is known that it
//! was not applied and never will be: the controller says so, or the partition epoch has moved on.
//!
//! What the controller says of one copy is no word about another that may still be on its way to it: for [`DOUBT`] after a
//! copy was given up, a refusal is not believed, and the controller is asked again.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, LeaderEpoch};

/// How long a copy of a proposal that was given up may still reach the controller that it was sent to. Whoever carries it
/// sees to it that nothing of it is sent any more; what the controller's machine has received by then, it looks at soon, or
/// is not the active controller any longer when it does (it must hear from the others within four seconds, whatever is configured).
pub const DOUBT: Duration = Duration::from_secs(5);

/// What AlterPartition asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Tells this one from others of the same leader epoch.
    pub number: u64,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: Vec<IsrMember>,
}

/// Which proposal an answer is to. An answer may come so late that the same broker leads again, and has proposed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalId {
    leader_epoch: LeaderEpoch,
    number: u64,
}

impl Proposal {
    #[must_use]
    pub const fn id(&self) -> ProposalId {
        ProposalId { leader_epoch: self.leader_epoch, number: self.number }
    }
}

/// A replica in an ISR, and the registration that it was in sync under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsrMember {
    pub broker: BrokerId,
    /// −1 where it is not known; the controller does not compare it then.
    pub broker_epoch: i64,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) proposal: Proposal,
    pub(super) change: Change,
    pub(super) waiting: Waiting,
    /// An earlier copy may arrive until then.
    pub(super) doubtful_until: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Change {
    Join(BrokerId),
    Leave(BTreeSet<BrokerId>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    ForAnswer,
    /// To be sent again then.
    Until(Duration),
    ForMetadata,
}

/// What follows from the controller's refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// It was not applied, and never will be.
    GiveUp,
    /// The metadata here is behind: only what comes next tells whether it was applied.
    AwaitMetadata,
    Retry,
}

impl Change {
    pub(super) fn applied_to(&self, isr: &BTreeSet<BrokerId>) -> impl Iterator<Item = BrokerId> {
        let (joins, leaves) = match self {
            Self::Join(joiner) => (Some(*joiner), None),
            Self::Leave(leavers) => (None, Some(leavers)),
        };
        let stays = move |replica: &BrokerId| leaves.is_none_or(|it| !it.contains(replica));
        isr.iter().copied().filter(stays).chain(joins)
    }
}

impl Pending {
    pub(super) fn joiner(&self) -> Option<BrokerId> {
        match self.change {
            Change::Join(joiner) => Some(joiner),
            Change::Leave(_) => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.waiting {
            Waiting::Until(time) => Some(time),
            Waiting::ForAnswer | Waiting::ForMetadata => None,
        }
    }

    pub(super) fn is_doubtful(&self, now: Duration) -> bool {
        self.doubtful_until.is_some_and(|until| now < until)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn check(&self, leader: BrokerId, partition_epoch: i32, isr: &BTreeSet<BrokerId>) {
        assert!(self.proposal.partition_epoch == partition_epoch, "about the ISR that is known");
        let proposes = |replica| self.proposal.isr.iter().any(|member| member.broker == replica);
        assert!(proposes(leader), "a leader does not leave the ISR by itself");
        match &self.change {
            Change::Join(joiner) => assert!(!isr.contains(joiner) && proposes(*joiner)),
            Change::Leave(leavers) => assert!(leavers.iter().all(|leaver| isr.contains(leaver))),
        }
    }
}

impl Reaction {
    /// As Kafka's leaders react.
    pub(super) const fn to(error: ErrorCode) -> Self {
        match error {
            ErrorCode::OPERATION_NOT_ATTEMPTED | ErrorCode::INELIGIBLE_REPLICA => Self::GiveUp,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::INVALID_UPDATE_VERSION
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::NEW_LEADER_ELECTED => Self::AwaitMetadata,
            _ => Self::Retry,
        }
    }
}
