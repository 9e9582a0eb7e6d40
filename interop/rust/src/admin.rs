//! What administrators ask for: topics, their configuration, groups and their offsets.

use std::collections::HashMap;

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

use crate::{Answer, LIMIT, config, consumer, number, text};

type Failure = Box<dyn std::error::Error>;

fn admin(request: &Value) -> Result<AdminClient<DefaultClientContext>, Failure> {
    Ok(config(request)?.create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

fn first(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Answer {
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(json!({})),
        Some(Err((topic, code))) => Err(format!("{topic}: {code}").into()),
        None => Err("no result".into()),
    }
}

fn configs_in(request: &Value) -> Result<Vec<(&str, &str)>, Failure> {
    let configs = request["configs"].as_object().ok_or("configs is an object")?;
    configs
        .iter()
        .map(|(name, value)| Ok((name.as_str(), value.as_str().ok_or("a config is text")?)))
        .collect()
}

pub(crate) fn create(request: &Value) -> Answer {
    let partitions = i32::try_from(number(request, "partitions")?)?;
    let mut topic = NewTopic::new(text(request, "topic")?, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs_in(request)? {
        topic = topic.set(name, value);
    }
    first(block_on(admin(request)?.create_topics([&topic], &options()))?)
}

pub(crate) fn delete(request: &Value) -> Answer {
    first(block_on(admin(request)?.delete_topics(&[text(request, "topic")?], &options()))?)
}

pub(crate) fn topics(request: &Value) -> Answer {
    let metadata = consumer(request)?.fetch_metadata(None, LIMIT)?;
    let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    Ok(json!({ "topics": names }))
}

pub(crate) fn configs(request: &Value) -> Answer {
    let topic = [ResourceSpecifier::Topic(text(request, "topic")?)];
    let described = block_on(admin(request)?.describe_configs(&topic, &options()))?;
    let described = described.into_iter().next().ok_or("no result")??;
    let configs: HashMap<String, Option<String>> =
        described.entries.into_iter().map(|entry| (entry.name, entry.value)).collect();
    Ok(json!({ "configs": configs }))
}

pub(crate) fn set_configs(request: &Value) -> Answer {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(text(request, "topic")?));
    for (name, value) in configs_in(request)? {
        change = change.set(name, value);
    }
    let changed = block_on(admin(request)?.alter_configs([&change], &options()))?;
    match changed.into_iter().next() {
        Some(Ok(_)) => Ok(json!({})),
        Some(Err((_, code))) => Err(code.to_string().into()),
        None => Err("no result".into()),
    }
}

pub(crate) fn partitions(request: &Value) -> Answer {
    let name = text(request, "topic")?;
    let metadata = consumer(request)?.fetch_metadata(Some(name), LIMIT)?;
    let topic = metadata.topics().first().ok_or("no such topic")?;
    Ok(json!({ "partitions": topic.partitions().len() }))
}

pub(crate) fn add_partitions(request: &Value) -> Answer {
    let count = usize::try_from(number(request, "partitions")?)?;
    let more = NewPartitions::new(text(request, "topic")?, count);
    first(block_on(admin(request)?.create_partitions([&more], &options()))?)
}

pub(crate) fn groups(request: &Value) -> Answer {
    let listed = consumer(request)?.fetch_group_list(None, LIMIT)?;
    let names: Vec<&str> = listed.groups().iter().map(|group| group.name()).collect();
    Ok(json!({ "groups": names }))
}

pub(crate) fn describe_group(request: &Value) -> Answer {
    let listed = consumer(request)?.fetch_group_list(Some(text(request, "group")?), LIMIT)?;
    let group = listed.groups().first().ok_or("no such group")?;
    let members: Vec<Vec<String>> =
        group.members().iter().map(|member| assigned(member.assignment())).collect();
    Ok(json!({ "state": group.state(), "members": members }))
}

/// The crate leaves a member's assignment as bytes: version, topics with partitions, user data.
fn assigned(bytes: Option<&[u8]>) -> Vec<String> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<i64> {
        let (head, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(head.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
    }
    fn read(bytes: &mut &[u8]) -> Option<Vec<String>> {
        let mut names = Vec::new();
        number::<2>(bytes)?;
        for _ in 0..number::<4>(bytes)? {
            let length = usize::try_from(number::<2>(bytes)?).ok()?;
            let (topic, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            let topic = String::from_utf8_lossy(topic).into_owned();
            for _ in 0..number::<4>(bytes)? {
                names.push(format!("{topic}-{}", number::<4>(bytes)?));
            }
        }
        Some(names)
    }
    read(&mut bytes.unwrap_or_default()).unwrap_or_default()
}

fn of_group(request: &Value) -> Result<BaseConsumer, Failure> {
    let mut config = config(request)?;
    Ok(config
        .set("group.id", text(request, "group")?)
        .set("enable.auto.commit", "false")
        .create()?)
}

pub(crate) fn committed(request: &Value) -> Answer {
    let topic = text(request, "topic")?;
    let consumer = of_group(request)?;
    let count = partitions(request)?["partitions"].as_i64().unwrap_or_default();
    let mut asked = TopicPartitionList::new();
    for partition in 0..i32::try_from(count)? {
        asked.add_partition(topic, partition);
    }
    let mut offsets = Map::new();
    for element in consumer.committed_offsets(asked, LIMIT)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition().to_string(), json!(offset));
        }
    }
    Ok(json!({ "offsets": offsets }))
}

pub(crate) fn commit(request: &Value) -> Answer {
    let topic = text(request, "topic")?;
    let mut wanted = TopicPartitionList::new();
    for (partition, offset) in request["offsets"].as_object().ok_or("offsets is an object")? {
        let offset = Offset::Offset(offset.as_i64().ok_or("an offset is a number")?);
        wanted.add_partition_offset(topic, partition.parse()?, offset)?;
    }
    let consumer = of_group(request)?;
    consumer.assign(&wanted)?;
    consumer.commit(&wanted, CommitMode::Sync)?;
    Ok(json!({}))
}

#[cfg(not(feature = "delete-groups"))]
pub(crate) fn delete_group(_request: &Value) -> Answer {
    Err("this version of the crate cannot delete groups".into())
}

#[cfg(feature = "delete-groups")]
pub(crate) fn delete_group(request: &Value) -> Answer {
    first(block_on(admin(request)?.delete_groups(&[text(request, "group")?], &options()))?)
}
