//! What consumers and their commits are told of errors while something happens to the cluster, and which of it a client
//! must not be told of (pure).
//!
//! A library tries most errors again by itself; what is left reaches the application. Of that, whatever Kafka calls
//! retriable is no fault of the cluster's while a node is away. Records that are given up fail elsewhere: no producer may
//! be told of anything.

use std::collections::BTreeMap;
use std::fmt;

use ottla_base::ErrorCode;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A consumer that was given its partitions.
    Reader,
    /// A member of a group, by a poll or by a commit.
    Member,
}

/// Of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Complaint {
    /// A broker's answer.
    Answer(ErrorCode),
    /// Nobody could be reached, or nobody answered in time.
    Unreachable,
    /// Anything else, in the library's words.
    Other(String),
}

impl Complaint {
    /// As recorders number them: Kafka's codes, and 0 for what is no answer.
    pub(super) fn numbered(code: i16, words: &str) -> Self {
        match ErrorCode(code) {
            ErrorCode::NONE => Self::Unreachable,
            ErrorCode::UNKNOWN_SERVER_ERROR => Self::Other(words.to_owned()),
            code => Self::Answer(code),
        }
    }

    /// Whether somebody may be told of it whom nothing is promised but that trying again helps.
    fn is_forgivable(&self, role: Role) -> bool {
        match self {
            Self::Answer(code) => is_answer_forgivable(*code, role),
            Self::Unreachable => true,
            Self::Other(_) => false,
        }
    }
}

fn is_answer_forgivable(code: ErrorCode, role: Role) -> bool {
    match code {
        // Kafka calls it retriable, for producers, whose bytes a network may have changed. Who reads such bytes has been
        // given what nobody wrote.
        ErrorCode::CORRUPT_MESSAGE => false,
        // What a member hears of a rebalance. Its session may have run out while the coordinator was moving, or others
        // of its group have joined since; it joins anew, and goes on from what was committed.
        ErrorCode::REBALANCE_IN_PROGRESS
        | ErrorCode::ILLEGAL_GENERATION
        | ErrorCode::UNKNOWN_MEMBER_ID => role == Role::Member,
        code => code.is_retriable(),
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(code) => code.fmt(f),
            Self::Unreachable => f.write_str("nobody reached in time"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// Everything that consumers were told of, counted, by the name of the client.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<(&'static str, Role, Complaint), usize>);

impl Complaints {
    pub(super) fn note(&mut self, client: &'static str, role: Role, complaint: Complaint) {
        *self.0.entry((client, role, complaint)).or_default() += 1;
    }

    /// A line for each.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(line).collect()
    }

    /// Those that no client may be told of.
    pub(super) fn unforgivable(&self) -> Vec<String> {
        let unforgivable =
            self.0.iter().filter(|((_, role, complaint), _)| !complaint.is_forgivable(*role));
        unforgivable.map(line).collect()
    }
}

fn line(((client, role, complaint), count): (&(&'static str, Role, Complaint), &usize)) -> String {
    let who = match role {
        Role::Reader => "consumer",
        Role::Member => "member of a group",
    };
    format!("{client}'s {who} was told {count} x {complaint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unforgivable(role: Role, codes: &[i16]) -> Vec<String> {
        let mut told = Complaints::default();
        for code in codes {
            told.note("java", role, Complaint::numbered(*code, "its words"));
        }
        assert_eq!(told.lines().len(), codes.len());
        told.unforgivable()
    }

    #[test]
    fn what_is_retriable_and_who_is_away_are_forgiven() {
        let away = [ErrorCode::NOT_COORDINATOR, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS];
        let codes = [away.map(|code| code.0), [0, ErrorCode::NOT_LEADER_OR_FOLLOWER.0]].concat();
        assert_eq!(unforgivable(Role::Member, &codes), [""; 0]);
        assert_eq!(unforgivable(Role::Reader, &codes), [""; 0]);
    }

    #[test]
    fn a_rebalance_is_forgiven_to_members_only() {
        let codes = [
            ErrorCode::REBALANCE_IN_PROGRESS,
            ErrorCode::ILLEGAL_GENERATION,
            ErrorCode::UNKNOWN_MEMBER_ID,
        ];
        let codes = codes.map(|code| code.0);
        assert_eq!(unforgivable(Role::Member, &codes), [""; 0]);
        assert_eq!(unforgivable(Role::Reader, &codes).len(), 3);
    }

    #[test]
    fn all_else_is_not_and_is_told_with_who_was_told_and_how_often() {
        let mut told = Complaints::default();
        for _ in 0..2 {
            told.note("java", Role::Member, Complaint::numbered(12, ""));
        }
        told.note("franz-go", Role::Reader, Complaint::numbered(-1, "a panic"));
        let expected = [
            "franz-go's consumer was told 1 x a panic",
            "java's member of a group was told 2 x OFFSET_METADATA_TOO_LARGE",
        ];
        assert_eq!(told.unforgivable(), expected);
        for code in [ErrorCode::OFFSET_OUT_OF_RANGE, ErrorCode::CORRUPT_MESSAGE] {
            assert_eq!(unforgivable(Role::Reader, &[code.0]).len(), 1, "{code}");
        }
    }
}
