//! The kinds of clients that write, read and commit while faults happen (pure).

use clap::ValueEnum;

use super::ledger::Writer;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    Librdkafka,
    Java,
    FranzGo,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Librdkafka, Self::Java, Self::FranzGo];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Librdkafka => "librdkafka",
            Self::Java => "java",
            Self::FranzGo => "franz-go",
        }
    }

    /// The producers that are its.
    pub(super) fn writers(self) -> &'static [Writer] {
        match self {
            Self::Librdkafka => &[Writer::Idempotent, Writer::Plain],
            Self::Java => &[Writer::Java],
            Self::FranzGo => &[Writer::Franz],
        }
    }

    /// The group that its member commits in. Each kind has its own, so that none has to understand another's assignment.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Librdkafka => "members",
            Self::Java => "members-java",
            Self::FranzGo => "members-franz-go",
        }
    }

    /// The programs without which it can't be built.
    pub(super) fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Librdkafka => &[],
            Self::Java => &["java", "javac", "mvn"],
            Self::FranzGo => &["go"],
        }
    }
}
