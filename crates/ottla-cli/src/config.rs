//! `ottla config`: describe, set and delete properties of topics, brokers, groups and more, while the cluster runs.

use std::str::FromStr;

use clap::{Args, Subcommand};
use ottla_base::{BrokerId, ErrorCode};
use ottla_client::{Client, ClientError, ConfigChange, ConfigEntry, ConfigResource};
use ottla_config::property::{Scope, Status};
use ottla_config::table::{find, listener_base, nearest};
use serde::Serialize;

use crate::connection::ConnectionArguments;
use crate::failure::{EXIT_CODES, Exit, Failure, note};
use crate::output::{print_json, print_line, table};
use crate::topic::key_value;

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct ConfigArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show what is set, and where
    #[command(after_help = "Examples:
  ottla config describe topic/orders
  ottla config describe topic/orders --all            with everything that it inherits
  ottla config describe broker/1 --all
  ottla config describe brokers                       the defaults of all brokers
  ottla config describe loggers/1
  ottla config describe topic/orders -o json | jq -r '.[] | .name + \"=\" + .value'")]
    Describe {
        /// topic/NAME, broker/ID, brokers, group/NAME, client-metrics/NAME or loggers/ID
        #[arg(value_name = "RESOURCE", value_parser = resource)]
        resource: ConfigResource,
        /// Show what is inherited and what is a default, too
        #[arg(short, long)]
        all: bool,
    },
    /// Set properties; they take effect at once, and all or none of them
    #[command(after_help = "Examples:
  ottla config set topic/orders retention.ms=86400000 cleanup.policy=compact,delete
  ottla config set broker/1 log.cleaner.backoff.ms=5000
  ottla config set brokers log.retention.ms=604800000
  ottla config set group/billing consumer.session.timeout.ms=60000
  ottla config set loggers/1 ottla_log=DEBUG")]
    Set {
        /// topic/NAME, broker/ID, brokers, group/NAME, client-metrics/NAME or loggers/ID
        #[arg(value_name = "RESOURCE", value_parser = resource)]
        resource: ConfigResource,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
        properties: Vec<(String, String)>,
    },
    /// Delete properties, so that what is inherited counts again
    #[command(after_help = "Examples:
  ottla config delete topic/orders retention.ms
  ottla config delete brokers log.retention.ms")]
    Delete {
        /// topic/NAME, broker/ID, brokers, group/NAME, client-metrics/NAME or loggers/ID
        #[arg(value_name = "RESOURCE", value_parser = resource)]
        resource: ConfigResource,
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// `topic/NAME`, `broker/ID`, `brokers`, `group/NAME`, `client-metrics/NAME` or `loggers/ID`.
fn resource(text: &str) -> Result<ConfigResource, String> {
    let wrong = || {
        "write topic/NAME, broker/ID, brokers, group/NAME, client-metrics/NAME or loggers/ID"
            .to_owned()
    };
    let id = |id: &str| i32::from_str(id).map(BrokerId).map_err(|_| wrong());
    match text.split_once('/') {
        None if text == "brokers" => Ok(ConfigResource::AllBrokers),
        Some((_, "")) | None => Err(wrong()),
        Some(("topic", name)) => Ok(ConfigResource::Topic(name.to_owned())),
        Some(("broker", broker)) => Ok(ConfigResource::Broker(id(broker)?)),
        Some(("group", name)) => Ok(ConfigResource::Group(name.to_owned())),
        Some(("client-metrics", name)) => Ok(ConfigResource::ClientMetrics(name.to_owned())),
        Some(("loggers", broker)) => Ok(ConfigResource::BrokerLoggers(id(broker)?)),
        Some(_) => Err(wrong()),
    }
}

pub(crate) async fn run(arguments: ConfigArguments) -> Result<(), Failure> {
    let client = arguments.connection.connect().await?;
    let json = arguments.connection.wants_json();
    match arguments.command {
        ConfigCommand::Describe { resource, all } => describe(&client, &resource, all, json).await,
        ConfigCommand::Set { resource, properties } => {
            check_names(&resource, properties.iter().map(|(name, _)| name.as_str()))?;
            let set = |(name, value)| ConfigChange::Set { name, value };
            let changes: Vec<_> = properties.into_iter().map(set).collect();
            change(&client, &resource, &changes, json).await
        }
        ConfigCommand::Delete { resource, keys } => {
            let delete = |name| ConfigChange::Delete { name };
            let changes: Vec<_> = keys.into_iter().map(delete).collect();
            change(&client, &resource, &changes, json).await
        }
    }
}

#[derive(Serialize)]
struct PropertyJson {
    name: String,
    /// Null when it is a secret, or not set.
    value: Option<String>,
    source: &'static str,
    read_only: bool,
}

async fn describe(
    client: &Client,
    resource: &ConfigResource,
    all: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut entries = client.configs(resource).await.map_err(|error| named(resource, error))?;
    entries.retain(|entry| all || is_own(resource, entry));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        let property = |entry: ConfigEntry| PropertyJson {
            name: entry.name,
            value: entry.value,
            source: entry.source.name(),
            read_only: entry.read_only,
        };
        return print_json(&entries.into_iter().map(property).collect::<Vec<_>>());
    }
    if entries.is_empty() {
        let hint = if all { "" } else { "; --all shows what it inherits" };
        note(&format!("Nothing is set for {resource}{hint}."));
        return Ok(());
    }
    let row = |entry: ConfigEntry| {
        let value = entry.value.unwrap_or_else(|| "-".to_owned());
        [entry.name, value, entry.source.name().to_owned()]
    };
    print_line(&table(["PROPERTY", "VALUE", "SOURCE"], entries.into_iter().map(row).collect()))
}

/// Set for the resource itself. What a topic inherits from its brokers is not its own; what stands in a broker's file is.
fn is_own(resource: &ConfigResource, entry: &ConfigEntry) -> bool {
    use ottla_client::ConfigSource;
    match resource {
        ConfigResource::Topic(_) => entry.source == ConfigSource::Topic,
        ConfigResource::Group(_) => entry.source == ConfigSource::Group,
        ConfigResource::Broker(_) => {
            entry.source == ConfigSource::StaticBroker || entry.source.is_dynamic()
        }
        ConfigResource::AllBrokers
        | ConfigResource::BrokerLoggers(_)
        | ConfigResource::ClientMetrics(_) => entry.source.is_dynamic(),
    }
}

async fn change(
    client: &Client,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    json: bool,
) -> Result<(), Failure> {
    client.change_configs(resource, changes).await.map_err(|error| named(resource, error))?;
    let names = changes.iter().map(|change| match change {
        ConfigChange::Set { name, .. } | ConfigChange::Delete { name } => name.as_str(),
    });
    let names: Vec<&str> = names.collect();
    if json {
        print_json(&names)?;
    } else {
        print_line(&format!("Changed {resource}: {}.", names.join(", ")))?;
    }
    let without_effect = names.iter().filter(|name| {
        let property = scope(resource).and_then(|scope| find(scope, name));
        property.is_some_and(|property| matches!(property.status, Status::Accepted))
    });
    for name in without_effect {
        note(&format!("note: Ottla accepts {name}; it has no effect there"));
    }
    Ok(())
}

/// Whose properties a resource has; a log's levels have names of their own.
fn scope(resource: &ConfigResource) -> Option<Scope> {
    match resource {
        ConfigResource::Topic(_) => Some(Scope::Topic),
        ConfigResource::Broker(_) | ConfigResource::AllBrokers => Some(Scope::Broker),
        ConfigResource::ClientMetrics(_) => Some(Scope::ClientMetrics),
        ConfigResource::Group(_) => Some(Scope::Group),
        ConfigResource::BrokerLoggers(_) => None,
    }
}

/// Brokers take names that nobody knows, as Apache Kafka's do for the sake of plugins, and a slip of the hand would go
/// unnoticed.
fn check_names<'a>(
    resource: &ConfigResource,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let Some(scope) = scope(resource) else { return Ok(()) };
    for name in names {
        let known = |name| find(scope, name).is_some();
        let of_listener = scope == Scope::Broker && listener_base(name).is_some_and(known);
        if known(name) || of_listener {
            continue;
        }
        let failure =
            Failure::new(Exit::Failed, format!("{resource}: no property is called {name}"));
        return Err(match nearest(scope, name) {
            Some(nearest) => failure.with_cure(format!("Did you mean {nearest}?")),
            None => failure,
        });
    }
    Ok(())
}

/// A broker that nobody has told of is a wrong name, rather than one that does not answer.
fn named(resource: &ConfigResource, error: ClientError) -> Failure {
    match (resource, &error) {
        (
            ConfigResource::Broker(id) | ConfigResource::BrokerLoggers(id),
            ClientError::Refused { code: ErrorCode::BROKER_NOT_AVAILABLE, .. },
        ) => Failure::new(
            Exit::NotFound,
            format!("broker {id} is not in the cluster, or does not run"),
        )
        .with_cure("`ottla cluster info` shows those that are."),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_its_kind_and_its_name() {
        assert_eq!(resource("topic/a/b"), Ok(ConfigResource::Topic("a/b".to_owned())));
        assert_eq!(resource("broker/7"), Ok(ConfigResource::Broker(BrokerId(7))));
        assert_eq!(resource("brokers"), Ok(ConfigResource::AllBrokers));
        assert_eq!(resource("group/g"), Ok(ConfigResource::Group("g".to_owned())));
        assert_eq!(resource("loggers/1"), Ok(ConfigResource::BrokerLoggers(BrokerId(1))));
        for wrong in ["", "orders", "topic/", "broker/one", "table/x", "brokers/1"] {
            assert!(resource(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_refused_with_the_one_that_was_meant() {
        let check = |of: &str, name: &str| check_names(&resource(of).unwrap(), [name].into_iter());
        let known = [
            ("brokers", "log.retention.ms"),
            ("broker/1", "listener.name.internal.ssl.keystore.location"),
            ("topic/t", "retention.ms"),
            ("loggers/1", "any.name"),
        ];
        for (of, name) in known {
            assert_eq!(check(of, name), Ok(()), "{of} {name}");
        }
        let cure = |of, name| check(of, name).unwrap_err().cure;
        assert_eq!(cure("topic/t", "retention.m").unwrap(), "Did you mean retention.ms?");
        assert_eq!(
            cure("brokers", "num.network.thread").unwrap(),
            "Did you mean num.network.threads?"
        );
        assert_eq!(cure("brokers", "nonsense"), None);
    }

    #[test]
    fn a_broker_that_is_not_there_is_not_found() {
        let code = ErrorCode::BROKER_NOT_AVAILABLE;
        let error = ClientError::Refused { what: "w".to_owned(), code, message: None };
        let failure = named(&ConfigResource::Broker(BrokerId(7)), error);
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.message.starts_with("broker 7 is not in the cluster"), "{failure:?}");
    }
}
