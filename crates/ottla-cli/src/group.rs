//! `ottla group`: list, describe and delete groups, and set or forget what they have committed.

mod csv;
mod describe;
mod list;
mod reset;
mod scope;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Subcommand};
use ottla_base::ErrorCode;
use ottla_client::{Client, ClientError};
use serde::Serialize;

pub use self::describe::DescribeGroupsArguments;
pub use self::reset::ResetOffsetsArguments;
pub use self::scope::TopicScope;
use crate::connection::ConnectionArguments;
use crate::failure::{EXIT_CODES, Exit, Failure, note};
use crate::output::{print_json, print_line, printable, table};

/// Kafka's names of the states of all types of groups.
const STATES: [&str; 8] = [
    "Empty",
    "Stable",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "NotReady",
    "Dead",
];
const TYPES: [&str; 4] = ["classic", "consumer", "share", "streams"];

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct GroupArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(subcommand)]
    pub command: GroupCommand,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups, with their states and how many members they have
    #[command(after_help = "Examples:
  ottla group list
  ottla group list --state empty,preparingrebalance
  ottla group list --output json | jq -r '.[] | select(.members == 0).group'")]
    List {
        /// Only groups in one of these states
        #[arg(
            long = "state",
            value_name = "STATE",
            value_delimiter = ',',
            ignore_case = true,
            value_parser = PossibleValuesParser::new(STATES)
        )]
        states: Vec<String>,
        /// Only groups of one of these types
        #[arg(
            long = "type",
            value_name = "TYPE",
            value_delimiter = ',',
            ignore_case = true,
            value_parser = PossibleValuesParser::new(TYPES)
        )]
        types: Vec<String>,
    },
    /// Show how far groups have read and lag behind, and who their members are
    Describe(DescribeGroupsArguments),
    /// Delete groups that have no members, and all that they have committed
    #[command(after_help = "Examples:
  ottla group delete inventory
  ottla group delete inventory mailer --if-exists")]
    Delete {
        /// One group or several
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Do not mind a group that is not there
        #[arg(long)]
        if_exists: bool,
    },
    /// Choose where a group without members goes on reading
    ResetOffsets(Box<ResetOffsetsArguments>),
    /// Forget what a group has committed in topics that none of its members reads
    #[command(after_help = "Examples:
  ottla group delete-offsets inventory --topic old-orders
  ottla group delete-offsets inventory --topic orders:0,3")]
    DeleteOffsets {
        /// Which group
        #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
        group: String,
        /// A topic, or some of its partitions; may be repeated
        #[arg(long = "topic", required = true, value_name = "TOPIC[:P,…]")]
        topics: Vec<TopicScope>,
    },
}

pub(crate) async fn run(arguments: GroupArguments) -> Result<(), Failure> {
    let client = arguments.connection.connect().await?;
    let json = arguments.connection.wants_json();
    match arguments.command {
        GroupCommand::List { states, types } => list::run(&client, states, types, json).await,
        GroupCommand::Describe(arguments) => describe::run(&client, &arguments, json).await,
        GroupCommand::Delete { groups, if_exists } => {
            delete(&client, &groups, if_exists, json).await
        }
        GroupCommand::ResetOffsets(arguments) => reset::run(&client, &arguments, json).await,
        GroupCommand::DeleteOffsets { group, topics } => {
            delete_offsets(&client, &group, &topics, json).await
        }
    }
}

/// What went wrong with several things, told at the end of what went well.
#[derive(Debug, Default)]
struct Failures(Option<Failure>);

impl Failures {
    /// Keeps the first failure for the end, and tells of the others at once.
    fn add(&mut self, failure: impl Into<Failure>) {
        let failure = failure.into();
        match &self.0 {
            None => self.0 = Some(failure),
            Some(_) => note(&format!("error: {}", failure.message)),
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), Err)
    }
}

fn is_not_found(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: ErrorCode::GROUP_ID_NOT_FOUND, .. })
}

/// The group's name, and what the cluster says, which for a group that is not there is only that.
fn failure(group: &str, error: ClientError) -> Failure {
    // Apache Kafka says the same of a group of another type, and names it in its words.
    if let ClientError::Refused { code: ErrorCode::GROUP_ID_NOT_FOUND, message, .. } = &error
        && message.as_ref().is_none_or(|said| said.contains("not found"))
    {
        let message = format!("group \"{}\" does not exist", printable(group));
        let cure = "`ottla group list` shows what is there.";
        return Failure::new(Exit::NotFound, message).with_cure(cure);
    }
    error.into()
}

async fn delete(
    client: &Client,
    groups: &[String],
    if_exists: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let mut deleted = Vec::new();
    for group in groups {
        match client.delete_group(group).await {
            Ok(()) => deleted.push(group),
            Err(error) if if_exists && is_not_found(&error) => {}
            Err(error) => {
                let cure = "`ottla group list` shows what is there; --if-exists does not mind.";
                let missing = is_not_found(&error);
                let failure = failure(group, error);
                failures.add(if missing { failure.with_cure(cure) } else { failure });
            }
        }
    }
    if json {
        print_json(&deleted)?;
    } else {
        for group in deleted {
            print_line(&format!("Deleted group {}.", printable(group)))?;
        }
    }
    failures.into_result()
}

#[derive(Serialize)]
struct PartitionJson {
    topic: String,
    partition: i32,
}

async fn delete_offsets(
    client: &Client,
    group: &str,
    topics: &[TopicScope],
    json: bool,
) -> Result<(), Failure> {
    let partitions = scope::partitions(client, topics).await?;
    let outcomes =
        client.delete_committed(group, &partitions).await.map_err(|error| failure(group, error))?;
    let mut failures = Failures::default();
    let mut deleted = Vec::new();
    for (partition, outcome) in outcomes {
        match outcome {
            Ok(()) => deleted.push(PartitionJson {
                topic: partition.topic.to_string(),
                partition: partition.partition.0,
            }),
            Err(error) => failures.add(error),
        }
    }
    if json {
        print_json(&deleted)?;
    } else if !deleted.is_empty() {
        let row = |it: PartitionJson| [it.topic, it.partition.to_string()];
        let rows = deleted.into_iter().map(row).collect();
        print_line(&format!("Forgotten:\n\n{}", table(["TOPIC", "PARTITION"], rows)))?;
    }
    failures.into_result()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(said: Option<&str>) -> String {
        let error = ClientError::Refused {
            what: "group \"g\"".to_owned(),
            code: ErrorCode::GROUP_ID_NOT_FOUND,
            message: said.map(str::to_owned),
        };
        let failure = failure("g", error);
        assert_eq!(failure.exit, Exit::NotFound);
        failure.message
    }

    #[test]
    fn a_group_that_is_not_there_is_told_from_one_of_another_type() {
        assert_eq!(message(None), "group \"g\" does not exist");
        assert_eq!(message(Some("Group g not found.")), "group \"g\" does not exist");
        let other = message(Some("Group g is not a classic group."));
        assert_eq!(other, "group \"g\": Group g is not a classic group. (GROUP_ID_NOT_FOUND)");
    }
}
