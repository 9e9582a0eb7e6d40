//! `ottla topic`: create, list, describe, alter and delete topics, delete records from their front, and adopt what
//! Apache Kafka wrote.

mod adopt;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use ottla_base::{BrokerId, ErrorCode, Offset, TopicPartition};
use ottla_client::{
    Client, ClientError, ConfigEntry, ConfigResource, ConfigSource, CreatedTopic, Isolation,
    NewTopic, OffsetQuery, Topic, TopicFilter,
};
use serde::Serialize;

pub use adopt::AdoptArguments;

use crate::connection::ConnectionArguments;
use crate::failure::{EXIT_CODES, Exit, Failure, note};
use crate::output::{list, or_dash, print_json, print_line, table};

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct TopicArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(subcommand)]
    pub command: TopicCommand,
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create(CreateArguments),
    /// Serve a topic that Apache Kafka wrote, from its directories
    Adopt(AdoptArguments),
    /// List topics
    #[command(after_help = "Examples:
  ottla topic list
  ottla topic list --output json | jq -r '.[].name'")]
    List {
        /// Show the cluster's own topics, too
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions, offsets and configuration
    #[command(after_help = "Examples:
  ottla topic describe orders
  ottla topic describe orders --output json | jq '.[0].partitions[].latest'")]
    Describe {
        /// One topic or several
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
    },
    /// Give a topic more partitions
    #[command(
        after_help = "Records with keys: a key's new records may go to another partition than its old ones.

Examples:
  ottla topic alter orders --partitions 12"
    )]
    Alter {
        /// Which topic
        #[arg(value_name = "TOPIC")]
        name: String,
        /// How many partitions it has afterwards; more than before
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
    },
    /// Delete a topic's oldest records
    #[command(after_help = "Examples:
  ottla topic delete-records orders --partition 0 --before 1500
  ottla topic delete-records orders --before end          every record of every partition")]
    DeleteRecords {
        /// Which topic
        #[arg(value_name = "TOPIC")]
        name: String,
        /// The offset to begin with from now on, or `end`
        #[arg(long, value_name = "OFFSET", value_parser = before)]
        before: Before,
        /// Only this partition; may be repeated
        #[arg(long = "partition", value_name = "N")]
        partitions: Vec<i32>,
    },
    /// Delete topics and all of their records
    #[command(after_help = "Examples:
  ottla topic delete orders
  ottla topic delete orders payments --if-exists")]
    Delete {
        /// One topic or several
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Do not mind a topic that is not there
        #[arg(long)]
        if_exists: bool,
        /// Delete even the cluster's own topics, with what groups have committed and transactions stand at
        #[arg(long)]
        internal: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla topic create orders
  ottla topic create orders --partitions 12 --replication-factor 3
  ottla topic create prices --config cleanup.policy=compact --config retention.ms=86400000
  ottla topic create orders --if-not-exists")]
pub struct CreateArguments {
    /// How the topic is called
    #[arg(value_name = "TOPIC")]
    pub name: String,
    /// How many partitions it has; the cluster's num.partitions if not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// How many brokers hold each partition; the cluster's default.replication.factor if not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: Option<i16>,
    /// A property of the topic, under Kafka's name; may be repeated
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    pub configs: Vec<(String, String)>,
    /// Do not mind a topic that is there already, whatever its partitions and properties
    #[arg(long)]
    pub if_not_exists: bool,
}

/// What is deleted: everything below an offset, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Offset(Offset),
    End,
}

fn before(text: &str) -> Result<Before, String> {
    match text.parse() {
        _ if text == "end" => Ok(Before::End),
        Ok(offset @ 0..) => Ok(Before::Offset(Offset(offset))),
        Ok(_) | Err(_) => Err("write an offset, or end".to_owned()),
    }
}

pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE, such as retention.ms=86400000".to_owned()),
    }
}

pub(crate) async fn run(arguments: TopicArguments) -> Result<(), Failure> {
    let TopicArguments { connection, command } = arguments;
    let json = connection.wants_json();
    // A topic is adopted while its broker does not run.
    let connect = || connection.connect();
    match command {
        TopicCommand::Create(arguments) => create(&connect().await?, arguments, json).await,
        TopicCommand::Adopt(arguments) => adopt::run(arguments, connection.output),
        TopicCommand::List { internal } => list_topics(&connect().await?, internal, json).await,
        TopicCommand::Describe { names } => describe(&connect().await?, &names, json).await,
        TopicCommand::Alter { name, partitions } => {
            alter(&connect().await?, &name, partitions, json).await
        }
        TopicCommand::DeleteRecords { name, before, partitions } => {
            delete_records(&connect().await?, &name, before, &partitions, json).await
        }
        TopicCommand::Delete { names, if_exists, internal } => {
            let client = connect().await?;
            if !internal {
                check_not_internal(&client, &names).await?;
            }
            delete(&client, &names, if_exists, json).await
        }
    }
}

#[derive(Serialize)]
struct CreatedJson {
    name: String,
    created: bool,
    topic_id: Option<String>,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
}

async fn create(client: &Client, arguments: CreateArguments, json: bool) -> Result<(), Failure> {
    let topic = NewTopic {
        name: arguments.name,
        partitions: arguments.partitions,
        replication_factor: arguments.replication_factor,
        configs: arguments.configs,
    };
    match client.create_topic(&topic).await {
        Ok(created) => print_created(created, json),
        Err(ClientError::Refused { code: ErrorCode::TOPIC_ALREADY_EXISTS, .. })
            if arguments.if_not_exists =>
        {
            print_existing(&client.topic(&topic.name).await?, json)
        }
        Err(error) => Err(error.into()),
    }
}

fn print_created(topic: CreatedTopic, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&CreatedJson {
            name: topic.name,
            created: true,
            topic_id: topic.id.map(|id| id.to_string()),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
        });
    }
    let size = match (topic.partitions, topic.replication_factor) {
        (Some(partitions), Some(replicas)) => {
            format!(" ({}, {})", count(partitions, "partition"), count(replicas, "replica"))
        }
        _ => String::new(),
    };
    print_line(&format!("Created topic {}{size}.", topic.name))
}

fn print_existing(topic: &Topic, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&CreatedJson {
            name: topic.name.to_string(),
            created: false,
            topic_id: Some(topic.id.to_string()),
            partitions: i32::try_from(topic.partitions.len()).ok(),
            replication_factor: i16::try_from(topic.replication_factor()).ok(),
        });
    }
    print_line(&format!("Topic {} exists already.", topic.name))
}

fn count(number: impl Into<i32>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[derive(Serialize)]
struct ListedJson {
    name: String,
    topic_id: String,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

async fn list_topics(client: &Client, internal: bool, json: bool) -> Result<(), Failure> {
    client.refresh(TopicFilter::All).await?;
    let metadata = client.metadata();
    let topics = metadata.topics.values().filter(|topic| internal || !topic.is_internal);
    let listed: Vec<_> = topics
        .map(|topic| ListedJson {
            name: topic.name.to_string(),
            topic_id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            replication_factor: topic.replication_factor(),
            internal: topic.is_internal,
        })
        .collect();
    if json {
        return print_json(&listed);
    }
    if listed.is_empty() {
        note("There are no topics yet: create one with `ottla topic create TOPIC`.");
        return Ok(());
    }
    let row = |topic: ListedJson| {
        [topic.name, topic.partitions.to_string(), topic.replication_factor.to_string()]
    };
    let rows = listed.into_iter().map(row).collect();
    print_line(&table(["TOPIC", "PARTITIONS", "REPLICAS"], rows))
}

/// Before any of them is deleted. Whether they are there, the deletion tells.
async fn check_not_internal(client: &Client, names: &[String]) -> Result<(), Failure> {
    client.refresh(TopicFilter::All).await?;
    let topics = &client.metadata().topics;
    let internal = |name: &&String| topics.get(name.as_str()).is_some_and(|it| it.is_internal);
    match names.iter().find(internal) {
        None => Ok(()),
        Some(name) => {
            let message = format!("topic \"{name}\" is the cluster's own; nothing was deleted");
            Err(Failure::new(Exit::Failed, message).with_cure(
                "Groups or transactions lose their state with it: --internal deletes it.",
            ))
        }
    }
}

async fn delete(
    client: &Client,
    names: &[String],
    if_exists: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut failure = None;
    let mut deleted = Vec::new();
    for name in names {
        match client.delete_topic(name).await {
            Ok(()) => deleted.push(name),
            Err(ClientError::NoSuchTopic(_)) if if_exists => {}
            Err(ClientError::NoSuchTopic(_)) => {
                let message = format!("topic \"{name}\" does not exist");
                let cure = "`ottla topic list` shows what is there; --if-exists does not mind.";
                put_off(&mut failure, Failure::new(Exit::NotFound, message).with_cure(cure));
            }
            Err(error) => put_off(&mut failure, error.into()),
        }
    }
    if json {
        print_json(&deleted)?;
    } else {
        for name in deleted {
            print_line(&format!("Deleted topic {name}."))?;
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn alter(client: &Client, name: &str, partitions: i32, json: bool) -> Result<(), Failure> {
    client.create_partitions(name, partitions).await?;
    if json {
        return print_json(&client.topic(name).await?.partitions.len());
    }
    print_line(&format!("Topic {name} has {} now.", count(partitions, "partition")))
}

#[derive(Serialize)]
struct DeletedJson {
    partition: i32,
    earliest: i64,
}

async fn delete_records(
    client: &Client,
    name: &str,
    before: Before,
    partitions: &[i32],
    json: bool,
) -> Result<(), Failure> {
    let topic = client.topic(name).await?;
    let all: Vec<i32> = topic.partitions.keys().copied().collect();
    let partitions = if partitions.is_empty() { &all } else { partitions };
    let before = match before {
        Before::Offset(offset) => Some(offset),
        Before::End => None,
    };
    let (mut failure, mut deleted) = (None, Vec::new());
    for &partition in partitions {
        let which = TopicPartition::new(topic.name.clone(), partition);
        match client.delete_records(&which, before).await {
            Ok(earliest) => deleted.push(DeletedJson { partition, earliest: earliest.0 }),
            Err(error) => put_off(&mut failure, error.into()),
        }
    }
    if json {
        print_json(&deleted)?;
    } else {
        for DeletedJson { partition, earliest } in deleted {
            print_line(&format!("{name}-{partition} begins at offset {earliest} now."))?;
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Keeps the first failure for the end, and tells of the others at once.
fn put_off(first: &mut Option<Failure>, failure: Failure) {
    if first.is_none() {
        *first = Some(failure);
    } else {
        note(&format!("error: {}", failure.message));
    }
}

#[derive(Serialize)]
struct TopicJson {
    name: String,
    topic_id: String,
    internal: bool,
    partitions: Vec<PartitionJson>,
    /// Null when the cluster does not tell.
    configs: Option<Vec<ConfigJson>>,
}

#[derive(Serialize)]
struct PartitionJson {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    offline_replicas: Vec<i32>,
    earliest: Option<i64>,
    latest: Option<i64>,
}

#[derive(Serialize)]
struct ConfigJson {
    name: String,
    value: Option<String>,
    source: &'static str,
}

async fn describe(client: &Client, names: &[String], json: bool) -> Result<(), Failure> {
    let mut described = Vec::new();
    for name in names {
        described.push(describe_one(client, name).await?);
    }
    if json {
        return print_json(&described);
    }
    let texts: Vec<_> = described.iter().map(text).collect();
    print_line(&texts.join("\n\n"))
}

async fn describe_one(client: &Client, name: &str) -> Result<TopicJson, Failure> {
    let topic = client.topic(name).await?;
    let earliest = offsets(client, &topic, OffsetQuery::Earliest).await;
    let latest = offsets(client, &topic, OffsetQuery::Latest).await;
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    let partitions = topic.partitions.values().map(|partition| PartitionJson {
        partition: partition.index,
        leader: partition.leader.map(|id| id.0),
        leader_epoch: partition.leader_epoch.0,
        replicas: ids(&partition.replicas),
        isr: ids(&partition.isr),
        offline_replicas: ids(&partition.offline_replicas),
        earliest: earliest.get(&partition.index).copied(),
        latest: latest.get(&partition.index).copied(),
    });
    Ok(TopicJson {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        internal: topic.is_internal,
        partitions: partitions.collect(),
        configs: configs(client, name).await,
    })
}

/// By partition; those without leader are not asked, and missing.
async fn offsets(client: &Client, topic: &Topic, query: OffsetQuery) -> BTreeMap<i32, i64> {
    let led = topic.partitions.values().filter(|partition| partition.leader.is_some());
    let queries =
        led.map(|partition| (TopicPartition::new(topic.name.clone(), partition.index), query));
    let listed = client.list_offsets(queries.collect(), Isolation::ReadUncommitted).await;
    let mut offsets = BTreeMap::new();
    for (partition, result) in listed {
        match result {
            Ok(Some(found)) => {
                offsets.insert(partition.partition.0, found.offset.0);
            }
            Ok(None) => {}
            Err(error) => note(&format!("note: {error}")),
        }
    }
    offsets
}

/// A description without configuration is better than none.
async fn configs(client: &Client, name: &str) -> Option<Vec<ConfigJson>> {
    match client.configs(&ConfigResource::Topic(name.to_owned())).await {
        Ok(entries) => Some(entries.into_iter().map(config_json).collect()),
        Err(error) => {
            note(&format!("note: the configuration is not shown: {error}"));
            None
        }
    }
}

fn config_json(entry: ConfigEntry) -> ConfigJson {
    ConfigJson { name: entry.name, value: entry.value, source: entry.source.name() }
}

fn text(topic: &TopicJson) -> String {
    let row = |partition: &PartitionJson| {
        [
            partition.partition.to_string(),
            or_dash(partition.leader),
            list(&partition.replicas),
            list(&partition.isr),
            or_dash(partition.earliest),
            or_dash(partition.latest),
        ]
    };
    let partitions = table(
        ["PARTITION", "LEADER", "REPLICAS", "ISR", "EARLIEST", "LATEST"],
        topic.partitions.iter().map(row).collect(),
    );
    let own = |config: &&ConfigJson| config.source == ConfigSource::Topic.name();
    let value = |config: &ConfigJson| config.value.clone().unwrap_or_else(|| "(secret)".to_owned());
    let configs = topic.configs.iter().flatten().filter(own);
    let configs: Vec<_> =
        configs.map(|config| format!("  {}={}", config.name, value(config))).collect();
    let mut text = format!("Topic {} (id {})\n\n{partitions}", topic.name, topic.topic_id);
    if !configs.is_empty() {
        text.push_str("\n\nConfiguration of its own:\n");
        text.push_str(&configs.join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_has_a_name_and_perhaps_an_empty_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err());
        assert!(key_value("=b").is_err());
    }

    #[test]
    fn records_are_deleted_up_to_an_offset_or_to_the_end() {
        assert_eq!(before("0"), Ok(Before::Offset(Offset(0))));
        assert_eq!(before("end"), Ok(Before::End));
        for wrong in ["-1", "all", ""] {
            assert!(before(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1, "partition"), "1 partition");
        assert_eq!(count(2_i16, "replica"), "2 replicas");
    }
}
