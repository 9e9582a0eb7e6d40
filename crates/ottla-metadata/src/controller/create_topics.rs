//! CreateTopics: names, counts, placement and configuration of new topics, each topic on its own. Pure.

use std::collections::BTreeMap;

use ottla_base::{ErrorCode, PartitionIndex, TopicId};
use ottla_config::describe::{Entry, created_topic};
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use ottla_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use ottla_protocol::records::{ConfigRecord, TopicRecord};

use super::new_partitions::{
    Placed, check_assignment, invalid_assignment, partition_record, place_next,
};
use super::placement::Placer;
use super::policy::InEffect;
use super::{Outcome, Policy, RECORDS_MAX, Rejection};
use crate::MetadataRecord;
use crate::delta::ConfigResource;
use crate::image::Image;
use crate::topic_name;

/// More partitions than this in one request are refused, as in Kafka.
const PARTITIONS_MAX: i64 = 10_000;
/// The longest value of a configuration, in UTF-16 units.
const CONFIG_VALUE_MAX: usize = 32_767;

/// Chance, drawn outside: this room has no random source.
pub trait Draw {
    /// An identifier that no topic ever had.
    fn topic_id(&mut self) -> TopicId;
    /// Decides where the replicas of one topic begin.
    fn placement_seed(&mut self) -> u64;
}

/// Creates the topics of a request that can be created, and says of each other one why not.
#[must_use]
pub fn create_topics(
    image: &Image,
    policy: &Policy,
    request: &CreateTopicsRequest,
    draw: &mut dyn Draw,
) -> Outcome<CreateTopicsResponse> {
    match decide(image, policy, request, draw) {
        Ok((records, topics)) => Outcome {
            records: if request.validate_only { Vec::new() } else { records },
            reply: CreateTopicsResponse { topics, ..Default::default() },
        },
        Err(rejection) => {
            let refuse = |topic: &CreatableTopic| refused(&topic.name, rejection.clone());
            let topics = request.topics.iter().map(refuse).collect();
            Outcome::unchanged(CreateTopicsResponse { topics, ..Default::default() })
        }
    }
}

/// An error is about the request as a whole.
fn decide(
    image: &Image,
    policy: &Policy,
    request: &CreateTopicsRequest,
    draw: &mut dyn Draw,
) -> Result<(Vec<MetadataRecord>, Vec<CreatableTopicResult>), Rejection> {
    let Names { wanted, refused: names_refused } = Names::of(request);
    check_partition_total(&wanted, policy)?;
    let in_effect = policy.in_effect(image);
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in wanted {
        results.push(match create_topic(image, policy, &in_effect, topic, draw) {
            Ok(created) => {
                records.extend(created.records);
                created.reply
            }
            Err(rejection) => refused(&topic.name, rejection),
        });
        if records.len() > RECORDS_MAX {
            return Err(Rejection::too_many_records());
        }
    }
    results.extend(names_refused);
    Ok((records, results))
}

/// The topics of a request, without those that may not even be looked at.
struct Names<'a> {
    wanted: Vec<&'a CreatableTopic>,
    refused: Vec<CreatableTopicResult>,
}

impl<'a> Names<'a> {
    fn of(request: &'a CreateTopicsRequest) -> Self {
        let mut times = BTreeMap::<&str, usize>::new();
        for topic in &request.topics {
            *times.entry(&topic.name).or_default() += 1;
        }
        let refuse = |name: &str, message: &str| {
            refused(name, Rejection::new(ErrorCode::INVALID_REQUEST, message))
        };
        let is_wanted =
            |name: &str| times.get(name) == Some(&1) && name != topic_name::CLUSTER_METADATA;
        let wanted = request.topics.iter().filter(|topic| is_wanted(&topic.name)).collect();
        let twice = times.iter().filter(|(_, times)| **times > 1);
        let mut refused: Vec<_> =
            twice.map(|(name, _)| refuse(name, "Duplicate topic name.")).collect();
        if times.get(topic_name::CLUSTER_METADATA) == Some(&1) {
            let name = topic_name::CLUSTER_METADATA;
            refused
                .push(refuse(name, &format!("Creation of internal topic {name} is prohibited.")));
        }
        Self { wanted, refused }
    }
}

fn refused(name: &str, rejection: Rejection) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.into(),
        error_code: rejection.code,
        error_message: Some(rejection.message.into()),
        ..Default::default()
    }
}

fn check_partition_total(topics: &[&CreatableTopic], policy: &Policy) -> Result<(), Rejection> {
    let partitions = |topic: &&CreatableTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => {
            i64::try_from(topic.assignments.len()).unwrap_or(i64::MAX)
        }
        -1 => i64::from(policy.num_partitions),
        count => i64::from(count.max(0)),
    };
    let total = topics.iter().map(partitions).fold(0, i64::saturating_add);
    if total <= PARTITIONS_MAX {
        return Ok(());
    }
    let message = "Excessively large number of partitions per request.";
    Err(Rejection::new(ErrorCode::POLICY_VIOLATION, message))
}

pub(super) fn create_topic(
    image: &Image,
    policy: &Policy,
    in_effect: &InEffect,
    topic: &CreatableTopic,
    draw: &mut dyn Draw,
) -> Result<Outcome<CreatableTopicResult>, Rejection> {
    check_name(image, &topic.name)?;
    let configs = check_configs(in_effect, topic)?;
    let partitions = if topic.assignments.is_empty() {
        place(image, policy, topic, draw)?
    } else {
        take_assignments(image, topic)?
    };
    let topic_id = draw.topic_id();
    let factor = partitions.first().map_or(0, |(replicas, _)| replicas.len());
    let reply = CreatableTopicResult {
        name: topic.name.clone(),
        topic_id,
        error_message: None,
        num_partitions: count(partitions.len()),
        replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
        configs: Some(described(policy, in_effect, &configs)),
        ..Default::default()
    };
    let mut records = vec![TopicRecord { name: topic.name.clone(), topic_id }.into()];
    records.extend(configs.iter().map(|(key, value)| config_record(&topic.name, key, value)));
    records.extend((0..).zip(&partitions).map(|(index, (replicas, isr))| {
        partition_record(image, topic_id, PartitionIndex(index), replicas, isr)
    }));
    Ok(Outcome { records, reply })
}

/// The whole configuration of the new topic, as the answer shows it.
fn described(
    policy: &Policy,
    in_effect: &InEffect,
    overrides: &BTreeMap<String, String>,
) -> Vec<CreatableTopicConfigs> {
    let entries = created_topic(&policy.settings, &in_effect.dynamic, overrides);
    let described = |entry: Entry| CreatableTopicConfigs {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
    };
    entries.into_iter().map(described).collect()
}

fn check_name(image: &Image, name: &str) -> Result<(), Rejection> {
    let invalid = |message| Rejection::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
    if image.topic_by_name(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(Rejection::new(ErrorCode::TOPIC_ALREADY_EXISTS, message));
    }
    if let Some(existing) = image.colliding_topic(name) {
        return Err(invalid(format!("Topic '{name}' collides with existing topic: {existing}")));
    }
    topic_name::validate(name).map_err(invalid)
}

/// The configuration that was asked for, ordered by key; of a key given twice the last value.
fn check_configs(
    in_effect: &InEffect,
    topic: &CreatableTopic,
) -> Result<BTreeMap<String, String>, Rejection> {
    let invalid = |message: String| Rejection::new(ErrorCode::INVALID_CONFIG, message);
    let nulls: Vec<&str> =
        topic.configs.iter().filter(|it| it.value.is_none()).map(|it| &*it.name).collect();
    if !nulls.is_empty() {
        let nulls = nulls.join(",");
        return Err(invalid(format!("Null value not supported for topic configs: {nulls}")));
    }
    let configs: BTreeMap<String, String> = topic
        .configs
        .iter()
        .filter_map(|it| Some((it.name.to_string(), it.value.as_ref()?.to_string())))
        .collect();
    if configs.values().any(|value| value.encode_utf16().count() > CONFIG_VALUE_MAX) {
        return Err(invalid(format!(
            "The configuration value cannot be added because it exceeds the maximum value size of \
             {CONFIG_VALUE_MAX} bytes."
        )));
    }
    let overrides = configs.iter().map(|(key, value)| (&**key, Some(&**value)));
    let checked = in_effect.topic_defaults.validate_overrides(overrides);
    checked.map_err(|error| invalid(error.to_string()))?;
    Ok(configs)
}

fn place(
    image: &Image,
    policy: &Policy,
    topic: &CreatableTopic,
    draw: &mut dyn Draw,
) -> Result<Vec<Placed>, Rejection> {
    let invalid_factor = |message| Rejection::new(ErrorCode::INVALID_REPLICATION_FACTOR, message);
    let factor = match topic.replication_factor {
        -1 => policy.default_replication_factor,
        factor if factor > 0 => factor,
        _ => {
            let message =
                "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(invalid_factor(message.to_owned()));
        }
    };
    let partitions = match topic.num_partitions {
        -1 => policy.num_partitions,
        partitions if partitions > 0 => partitions,
        _ => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Rejection::new(ErrorCode::INVALID_PARTITIONS, message));
        }
    };
    let mut placer = Placer::new(image, draw.placement_seed());
    let unable = |reason: String| {
        invalid_factor(format!("Unable to replicate the partition {factor} time(s): {reason}"))
    };
    placer.check(factor).map_err(unable)?;
    (0..partitions).map(|_| place_next(image, &mut placer, factor)).collect()
}

fn take_assignments(image: &Image, topic: &CreatableTopic) -> Result<Vec<Placed>, Rejection> {
    let contradiction = |what: &str| {
        let message =
            format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(Rejection::new(ErrorCode::INVALID_REQUEST, message))
    };
    if topic.replication_factor != -1 {
        return contradiction("replication factor");
    }
    if topic.num_partitions != -1 {
        return contradiction("numPartitions");
    }
    let mut partitions = BTreeMap::new();
    let mut factor = None;
    for assignment in &topic.assignments {
        let partition = assignment.partition_index;
        if partitions.contains_key(&partition) {
            return Err(invalid_assignment(format!(
                "Found multiple manual partition assignments for partition {partition}"
            )));
        }
        let placed = check_assignment(image, partition, &assignment.broker_ids, factor)?;
        factor = Some(placed.0.len());
        partitions.insert(partition, placed);
    }
    if !partitions.keys().copied().eq(0..count(partitions.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(invalid_assignment(message.to_owned()));
    }
    Ok(partitions.into_values().collect())
}

fn config_record(topic: &str, key: &str, value: &str) -> MetadataRecord {
    ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: topic.into(),
        name: key.into(),
        value: Some(value.into()),
    }
    .into()
}

fn count(items: usize) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
