//! DescribeConfigs (key 32), versions 1–4: every property of a topic, a broker, a group or a subscription, where its
//! value comes from, and the levels of log lines.
//!
//! - v1: synonyms. v3: types and documentation.
//! - A broker answers for itself and for the defaults of all brokers (the empty name), not for others.
//! - A topic must exist; a group or subscription that nobody configured has the defaults.
//! - Known difference: an answer of more than 64 MiB is not given; the connection is closed.
//! - Known difference: documentation is in our own words, and log lines are of this program's parts.
//! - Known difference: a broker has seven properties that Apache Kafka's has not: `log.dir.reserved.bytes`, `log.flush.on.commit` and the
//!   five that begin with `ottla.`.

use std::collections::BTreeMap;

use ottla_base::{BrokerId, ErrorCode};
use ottla_config::describe::{
    Entry, Source, Synonym, describe_broker, describe_broker_defaults, describe_group,
    describe_subscription, describe_topic,
};
use ottla_metadata::{ConfigResource, topic_name};
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ottla_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::Context;
use crate::answer::{CloseReason, Outcome, Room};

pub(super) fn handle(context: Context, request: DescribeConfigsRequest) -> Outcome {
    match describe_all(&context, &request) {
        Ok(results) => context
            .answer(&DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }),
        Err(reason) => Outcome::Close(reason),
    }
}

fn describe_all(
    context: &Context,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResult>, CloseReason> {
    let is_known = |it: &DescribeConfigsResource| ConfigResource::KINDS.contains(&it.resource_type);
    // One type that nobody knows spoils the whole request, as in Apache Kafka.
    if !request.resources.iter().all(is_known) {
        let refuse = |resource| refused(resource, invalid("The request names an unknown type."));
        return Ok(request.resources.iter().map(refuse).collect());
    }
    let mut room = Room::new(context.version);
    let describe = |resource| room.admit(describe(context, request, resource));
    request.resources.iter().map(describe).collect()
}

fn describe(
    context: &Context,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> DescribeConfigsResult {
    match entries(context, resource) {
        Err(refusal) => refused(resource, refusal),
        Ok(entries) => {
            let is_asked = |entry: &Entry| match resource.configuration_keys.as_deref() {
                None | Some([]) => true,
                Some(keys) => keys.iter().any(|key| **key == *entry.name),
            };
            let shown = |entry| shown(request, entry);
            DescribeConfigsResult {
                configs: entries.into_iter().filter(is_asked).map(shown).collect(),
                ..about(resource)
            }
        }
    }
}

/// Why a resource is not described; Kafka has no words for some of the reasons.
type Refusal = (ErrorCode, Option<String>);

fn invalid(message: impl Into<String>) -> Refusal {
    (ErrorCode::INVALID_REQUEST, Some(message.into()))
}

fn entries(context: &Context, resource: &DescribeConfigsResource) -> Result<Vec<Entry>, Refusal> {
    let name = &*resource.resource_name;
    let (image, live) = (context.broker.image(), context.broker.configuration.live());
    let settings = &context.broker.configuration.settings;
    let own = || {
        let resource = ConfigResource { kind: resource.resource_type, name: name.into() };
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        image.config(&resource).map(owned).collect::<BTreeMap<_, _>>()
    };
    match resource.resource_type {
        ConfigResource::TOPIC => {
            let invalid_name = |message| (ErrorCode::INVALID_TOPIC_EXCEPTION, Some(message));
            topic_name::validate(name).map_err(invalid_name)?;
            image.topic_by_name(name).ok_or((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None))?;
            Ok(describe_topic(settings, &live.dynamic, &live.in_effect, &own()))
        }
        ConfigResource::BROKER if name.is_empty() => {
            Ok(describe_broker_defaults(settings, &live.dynamic, &live.in_effect))
        }
        ConfigResource::BROKER => {
            check_is_this_broker(context.broker.node_id, name, " or empty string,")?;
            Ok(describe_broker(settings, &live.dynamic, &live.in_effect))
        }
        ConfigResource::BROKER_LOGGER if name.is_empty() => {
            Err(invalid("Broker id must not be empty"))
        }
        ConfigResource::BROKER_LOGGER => {
            check_is_this_broker(context.broker.node_id, name, "")?;
            Ok(context.broker.log_levels.all().into_iter().map(logger).collect())
        }
        ConfigResource::CLIENT_METRICS if name.is_empty() => {
            Err(invalid("Client metrics subscription name must not be empty"))
        }
        ConfigResource::CLIENT_METRICS => Ok(describe_subscription(&own())),
        ConfigResource::GROUP if name.is_empty() => Err(invalid("Group name must not be empty")),
        _ => Ok(describe_group(settings, &live.dynamic, &live.in_effect, &own())),
    }
}

fn check_is_this_broker(node_id: BrokerId, name: &str, or: &str) -> Result<(), Refusal> {
    let id: i32 = name
        .parse()
        .map_err(|_| invalid(format!("Broker id must be an integer, but it is: {name}")))?;
    if BrokerId(id) == node_id {
        return Ok(());
    }
    Err(invalid(format!("Unexpected broker id, expected {node_id}{or} but received {name}")))
}

fn logger((part, level): (&str, &str)) -> Entry {
    Entry {
        name: part.to_owned(),
        value: Some(level.to_owned()),
        kind: None,
        source: Source::DynamicBrokerLogger,
        sensitive: false,
        read_only: false,
        synonyms: Vec::new(),
        text: None,
    }
}

fn shown(request: &DescribeConfigsRequest, entry: Entry) -> DescribeConfigsResourceResult {
    let synonym = |synonym: Synonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: synonym.value.map(Into::into),
        source: synonym.source.code(),
    };
    let asked = entry.text.filter(|_| request.include_documentation);
    let documentation = if entry.source == Source::DynamicBrokerLogger { Some("") } else { asked };
    let synonyms = if request.include_synonyms { &*entry.synonyms } else { &[] };
    DescribeConfigsResourceResult {
        config_type: entry.type_code(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms.iter().cloned().map(synonym).collect(),
        documentation: documentation.map(Into::into),
        name: entry.name.into(),
    }
}

fn about(resource: &DescribeConfigsResource) -> DescribeConfigsResult {
    DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    }
}

fn refused(
    resource: &DescribeConfigsResource,
    (error_code, message): Refusal,
) -> DescribeConfigsResult {
    DescribeConfigsResult {
        error_code,
        error_message: Some(message.unwrap_or_default().into()),
        ..about(resource)
    }
}
