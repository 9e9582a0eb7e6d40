//! How a command fails: an exit code that scripts can tell apart, what happened, and what helps.

use std::io::{self, Write as _};
use std::process::ExitCode;

use ottla_base::ErrorCode;
use ottla_client::ClientError;

/// The exit codes, as the help text of each command lists them.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 the operation failed; 2 wrong usage; \
3 no broker answered, or not in time; 4 there is no such topic, partition or group; \
5 it exists already";

/// What the exit code says. Wrong usage is 2, as clap has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed,
    Usage,
    Unreachable,
    NotFound,
    AlreadyExists,
}

/// Why a command ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// What to do about it, if we know.
    pub cure: Option<String>,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), cure: None }
    }

    #[must_use]
    pub fn with_cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    /// Tells the user; the exit code is for the shell.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        note(&format!("error: {}", self.message));
        if let Some(cure) = &self.cure {
            note(&format!("  {cure}"));
        }
        ExitCode::from(match self.exit {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::NotFound => 4,
            Exit::AlreadyExists => 5,
        })
    }
}

/// A line on standard error, for people. Nobody can be told when even that is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(exit(&error), in_words(&error));
        match cure(&error) {
            Some(cure) => failure.with_cure(cure),
            None => failure,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Where the broker sent no words of its own, the code's name alone would have to be looked up.
fn in_words(error: &ClientError) -> String {
    if let ClientError::Refused { what, code, message: None } = error
        && let Some(words) = words_of_code(*code)
    {
        return format!("{what}: {words} ({})", code.name().unwrap_or("unnamed"));
    }
    error.to_string()
}

fn words_of_code(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::OFFSET_OUT_OF_RANGE => Some("the partition does not hold that offset"),
        ErrorCode::NON_EMPTY_GROUP => Some("the group has members"),
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC => Some("the group's members read the topic"),
        ErrorCode::GROUP_ID_NOT_FOUND => Some("there is no such group"),
        ErrorCode::BROKER_NOT_AVAILABLE => Some("it is not in the cluster, or does not run"),
        _ => None,
    }
}

fn exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Unreachable(_)
        | ClientError::Connection { .. }
        | ClientError::TimedOut { .. } => Exit::Unreachable,
        ClientError::NoSuchTopic(_) | ClientError::NoSuchPartition(_) => Exit::NotFound,
        ClientError::Address(_) => Exit::Usage,
        ClientError::Refused { code, .. } => exit_of_code(*code),
        ClientError::UnsupportedApi { .. }
        | ClientError::UnsupportedVersion { .. }
        | ClientError::Malformed { .. }
        | ClientError::Encode { .. }
        | ClientError::TopicRecreated(_)
        | ClientError::CorruptBatch { .. } => Exit::Failed,
    }
}

fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => Exit::AlreadyExists,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::GROUP_ID_NOT_FOUND => Exit::NotFound,
        ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::NOT_COORDINATOR => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn cure(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Unreachable(_) | ClientError::Connection { .. } => Some(
            "Start a broker with `ottla serve`, or say where one is with --bootstrap HOST:PORT."
                .to_owned(),
        ),
        ClientError::TimedOut { .. } => {
            Some("Is it a Kafka broker without TLS? Give it longer with --timeout.".to_owned())
        }
        ClientError::NoSuchTopic(topic) => Some(format!(
            "Create it with `ottla topic create {topic}`; `ottla topic list` shows what is there."
        )),
        ClientError::NoSuchPartition(partition) => {
            Some(format!("`ottla topic describe {}` shows its partitions.", partition.topic))
        }
        ClientError::TopicRecreated(_) => {
            Some("Start again to read the new topic from where you want.".to_owned())
        }
        ClientError::Refused { code, .. } => cure_of_code(*code).map(str::to_owned),
        ClientError::Address(_)
        | ClientError::UnsupportedApi { .. }
        | ClientError::UnsupportedVersion { .. }
        | ClientError::Malformed { .. }
        | ClientError::Encode { .. }
        | ClientError::CorruptBatch { .. } => None,
    }
}

fn cure_of_code(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => Some("Use --if-not-exists if that is fine."),
        ErrorCode::INVALID_REPLICATION_FACTOR => {
            Some("There cannot be more replicas than brokers: `ottla cluster info` shows those.")
        }
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
            Some("Raise the topic's max.message.bytes, or send smaller records.")
        }
        ErrorCode::NOT_ENOUGH_REPLICAS => {
            Some("Fewer replicas are in sync than the topic's min.insync.replicas asks for.")
        }
        ErrorCode::GROUP_ID_NOT_FOUND => Some("`ottla group list` shows what is there."),
        ErrorCode::NON_EMPTY_GROUP => {
            Some("Stop its members first: `ottla group describe` shows who they are.")
        }
        // Of a commit from outside of the group.
        ErrorCode::UNKNOWN_MEMBER_ID => {
            Some("The group has members now. Stop them: `ottla group describe` shows who they are.")
        }
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC => {
            Some("A member still reads this topic: `ottla group describe` shows who.")
        }
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL => Some(
            "The group's members share partitions in another way: add \"range\" to their \
             partition.assignment.strategy, or read as another group.",
        ),
        ErrorCode::INVALID_SESSION_TIMEOUT => Some(
            "Choose another --session-timeout: the brokers' group.min.session.timeout.ms and \
             group.max.session.timeout.ms are its limits.",
        ),
        ErrorCode::GROUP_MAX_SIZE_REACHED => {
            Some("The brokers' group.max.size allows no more members. Stop one, or raise it.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_failures_apart() {
        let refused = |code| ClientError::Refused { what: "w".to_owned(), code, message: None };
        let exits = [
            (ClientError::Unreachable(vec![]), Exit::Unreachable),
            (ClientError::NoSuchTopic("t".into()), Exit::NotFound),
            (refused(ErrorCode::TOPIC_ALREADY_EXISTS), Exit::AlreadyExists),
            (refused(ErrorCode::INVALID_CONFIG), Exit::Failed),
        ];
        for (error, exit) in exits {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }

    #[test]
    fn a_code_without_words_of_the_broker_is_put_into_words() {
        let code = ErrorCode::OFFSET_OUT_OF_RANGE;
        let refused = |message| ClientError::Refused { what: "w".to_owned(), code, message };
        let said = |message| Failure::from(refused(message)).message;
        assert_eq!(said(None), "w: the partition does not hold that offset (OFFSET_OUT_OF_RANGE)");
        assert_eq!(said(Some("theirs".to_owned())), "w: theirs (OFFSET_OUT_OF_RANGE)");
    }

    #[test]
    fn an_unreachable_broker_is_named_with_what_helps() {
        let address = "127.0.0.1:9092".parse().unwrap();
        let error = ClientError::Unreachable(vec![(address, "Connection refused".to_owned())]);
        let failure = Failure::from(error);
        assert_eq!(failure.message, "no broker answers at 127.0.0.1:9092 (Connection refused)");
        assert!(failure.cure.unwrap().contains("`ottla serve`"));
    }
}
