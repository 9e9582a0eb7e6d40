//! `ottla topic adopt`: a topic that Apache Kafka wrote, put among this broker's logs, is served under the id it has.

use std::path::PathBuf;

use clap::Args;
use ottla_log::adopt::{AdoptError, Adoption, announce};
use serde::Serialize;

use super::key_value;
use crate::connection::OutputFormat;
use crate::failure::{EXIT_CODES, Exit, Failure};
use crate::output::{print_json, print_line};

#[derive(Debug, Args)]
#[command(after_help = format!("How to move a topic:
  1. Stop Apache Kafka, so that its files are whole, and stop Ottla.
  2. Copy all of the topic's directories (orders-0, orders-1, …) into Ottla's data directory, or into several of its
     log.dirs, each into one.
  3. ottla topic adopt ./ottla-data/orders-0 --config cleanup.policy=compact
     With several log.dirs, name a directory in each that has some: ottla topic adopt /disk1/orders-0 /disk2/orders-1
  4. Start Ottla: it makes the topic known under the id in partition.metadata, with all of its records.

The directories are read whole, and refused if anything in them is not as it was written. The topic's configuration is \
not in them: give it here. Directories that Ottla does not know and that nobody has it adopt are set aside as -stray.

{EXIT_CODES}"))]
pub struct AdoptArguments {
    /// The directory of one of the topic's partitions in the data directory; the others are found beside it. Where they
    /// are in several of the broker's log.dirs: one in each of these
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,
    /// A property of the topic, such as retention.ms=86400000
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub configs: Vec<(String, String)>,
    /// Adopt it even if some of its records are damaged: these are then refused to consumers
    #[arg(long)]
    pub despite_damage: bool,
}

pub(super) fn run(arguments: AdoptArguments, output: OutputFormat) -> Result<(), Failure> {
    let AdoptArguments { directories, configs, despite_damage } = arguments;
    let adoption =
        announce(&directories, configs, despite_damage).map_err(|error| failure(&error))?;
    match output {
        OutputFormat::Json => print_json(&AdoptionJson::from(&adoption)),
        OutputFormat::Table => print_line(&format!(
            "{} is adopted when the broker starts next: {} partitions, id {}",
            adoption.topic, adoption.partitions, adoption.topic_id
        )),
    }
}

fn failure(error: &AdoptError) -> Failure {
    let failure = Failure::new(exit(error), error.to_string());
    match error {
        AdoptError::Damaged(_) => failure.with_cure(
            "`ottla log verify` tells all that is wrong. Was Kafka stopped before its files were copied? \
             --despite-damage adopts the rest.",
        ),
        AdoptError::Open(_) => failure.with_cure("Stop the broker, adopt, and start it again."),
        AdoptError::Missing { .. } => failure.with_cure(
            "Copy all of the topic's directories. Are they in several of log.dirs? Then name one in each of these.",
        ),
        AdoptError::NotAPartition(_)
        | AdoptError::TwoTopics { .. }
        | AdoptError::Journaled { .. }
        | AdoptError::Twice { .. }
        | AdoptError::NotADataDirectory(_)
        | AdoptError::NoTopicId(_)
        | AdoptError::OtherTopic { .. }
        | AdoptError::Config(_)
        | AdoptError::Verify(_)
        | AdoptError::Storage(_) => failure,
    }
}

const fn exit(error: &AdoptError) -> Exit {
    match error {
        AdoptError::NotAPartition(_)
        | AdoptError::NotADataDirectory(_)
        | AdoptError::TwoTopics { .. }
        | AdoptError::Config(_) => Exit::Usage,
        AdoptError::Missing { .. } => Exit::NotFound,
        AdoptError::NoTopicId(_)
        | AdoptError::OtherTopic { .. }
        | AdoptError::Twice { .. }
        | AdoptError::Damaged(_)
        | AdoptError::Journaled { .. }
        | AdoptError::Verify(_)
        | AdoptError::Open(_)
        | AdoptError::Storage(_) => Exit::Failed,
    }
}

#[derive(Serialize)]
struct AdoptionJson<'a> {
    topic: &'a str,
    topic_id: String,
    partitions: i32,
}

impl<'a> From<&'a Adoption> for AdoptionJson<'a> {
    fn from(adoption: &'a Adoption) -> Self {
        let Adoption { topic, topic_id, partitions, .. } = adoption;
        Self { topic, topic_id: topic_id.to_string(), partitions: *partitions }
    }
}
