//! Configuration: what topics, brokers, groups and more set, where each value comes from, and how it changes.

use std::fmt;

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::admin::check;
use crate::client::{Client, Target};
use crate::error::ClientError;

/// What has a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    Topic(String),
    Broker(BrokerId),
    /// The default of all brokers.
    AllBrokers,
    /// The levels of a broker's own log lines.
    BrokerLoggers(BrokerId),
    ClientMetrics(String),
    Group(String),
}

impl ConfigResource {
    /// The type code of Kafka's protocol.
    const fn code(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) | Self::AllBrokers => 4,
            Self::BrokerLoggers(_) => 8,
            Self::ClientMetrics(_) => 16,
            Self::Group(_) => 32,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) | Self::ClientMetrics(name) | Self::Group(name) => name.clone(),
            Self::Broker(id) | Self::BrokerLoggers(id) => id.to_string(),
            Self::AllBrokers => String::new(),
        }
    }

    /// A broker knows its own properties better than others do.
    const fn target(&self) -> Target {
        match self {
            Self::Broker(id) | Self::BrokerLoggers(id) => Target::Broker(*id),
            Self::Topic(_) | Self::AllBrokers | Self::ClientMetrics(_) | Self::Group(_) => {
                Target::Any
            }
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic \"{name}\""),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::AllBrokers => f.write_str("all brokers"),
            Self::BrokerLoggers(id) => write!(f, "the log of broker {id}"),
            Self::ClientMetrics(name) => write!(f, "client metrics \"{name}\""),
            Self::Group(name) => write!(f, "group \"{name}\""),
        }
    }
}

/// One property, and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` when the value is a secret, or there is none.
    pub value: Option<String>,
    pub source: ConfigSource,
    /// Whether it changes only with a restart.
    pub read_only: bool,
}

/// Which of Kafka's places for configuration a value was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    DynamicBrokerLogger,
    ClientMetrics,
    Group,
    Other(i8),
}

impl ConfigSource {
    fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            6 => Self::DynamicBrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            other => Self::Other(other),
        }
    }

    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::DynamicBrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
            Self::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
            Self::Group => "DYNAMIC_GROUP_CONFIG",
            Self::Other(_) => "UNKNOWN",
        }
    }

    /// Whether the value was set while the cluster ran.
    #[must_use]
    pub fn is_dynamic(self) -> bool {
        !matches!(self, Self::StaticBroker | Self::Default | Self::Other(_))
    }
}

/// What is to become of one property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    Set {
        name: String,
        value: String,
    },
    /// Back to what it is without being set here.
    Delete {
        name: String,
    },
}

impl Client {
    /// The properties of a resource, its own and those that it inherits.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], [`ClientError::Refused`], or what has kept a broker from being asked until the
    /// client's timeout.
    pub async fn configs(
        &self,
        resource: &ConfigResource,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name().into(),
                configuration_keys: None,
            }],
            ..DescribeConfigsRequest::default()
        };
        let what = || format!("configuration of {resource}");
        self.persist(|| async {
            let response = self.send(resource.target(), &request).await?;
            let Some(result) = response.results.into_iter().next() else {
                return Err(ClientError::refused(what(), ErrorCode::UNKNOWN_SERVER_ERROR));
            };
            check_resource(resource, what(), result.error_code, result.error_message.as_deref())?;
            Ok(result.configs.into_iter().map(entry).collect())
        })
        .await
    }

    /// Makes all of the changes, or none.
    ///
    /// # Errors
    /// As [`Client::configs`]; all of them may be made then all the same.
    pub async fn change_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
    ) -> Result<(), ClientError> {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name().into(),
                configs: changes.iter().map(alterable).collect(),
            }],
            validate_only: false,
        };
        let what = || format!("configuration of {resource} was not changed");
        self.persist(|| async {
            let response = self.send(resource.target(), &request).await?;
            let Some(result) = response.responses.into_iter().next() else {
                return Err(ClientError::refused(what(), ErrorCode::UNKNOWN_SERVER_ERROR));
            };
            check_resource(resource, what(), result.error_code, result.error_message.as_deref())
        })
        .await
    }
}

fn check_resource(
    resource: &ConfigResource,
    what: String,
    code: ErrorCode,
    message: Option<&str>,
) -> Result<(), ClientError> {
    match resource {
        ConfigResource::Topic(name) if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            Err(ClientError::NoSuchTopic(name.as_str().into()))
        }
        _ => check(what, code, message.filter(|message| !message.is_empty()).map(str::to_owned)),
    }
}

fn alterable(change: &ConfigChange) -> AlterableConfig {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let (name, config_operation, value) = match change {
        ConfigChange::Set { name, value } => (name, SET, Some(value)),
        ConfigChange::Delete { name } => (name, DELETE, None),
    };
    AlterableConfig {
        name: name.as_str().into(),
        config_operation,
        value: value.map(|value| value.as_str().into()),
    }
}

fn entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: config.name.to_string(),
        value: config.value.map(|value| value.to_string()),
        source: ConfigSource::from_code(config.config_source),
        read_only: config.read_only,
    }
}
