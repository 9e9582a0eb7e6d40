//! What the controller's configuration says about decisions. Pure.

use ottla_config::settings::Settings;
use ottla_config::topic::TopicConfig;
use ottla_config::value::Value;

/// The configuration that decisions depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// `num.partitions`: what a topic gets that asks for −1.
    pub num_partitions: i32,
    /// `default.replication.factor`: what a topic gets that asks for −1.
    pub default_replication_factor: i16,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// What a topic gets where it sets nothing.
    pub topic_defaults: TopicConfig,
    /// Everything that is set on this node, for the configuration shown in answers.
    pub settings: Settings,
}

impl Default for Policy {
    /// A node that sets nothing.
    fn default() -> Self {
        Self::from_settings(Settings::default())
    }
}

impl Policy {
    #[must_use]
    pub fn from_settings(settings: Settings) -> Self {
        let int = |name: &str| match settings.value(name) {
            Some(Value::Int(number)) => number,
            other => unreachable!("{name} is an INT with a default, not {other:?}"),
        };
        let factor = int("default.replication.factor");
        Self {
            num_partitions: int("num.partitions"),
            default_replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
            delete_topic_enable: settings.value("delete.topic.enable")
                == Some(Value::Boolean(true)),
            topic_defaults: TopicConfig::from_broker(&settings),
            settings,
        }
    }
}
