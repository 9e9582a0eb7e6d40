//! What a new topic's configuration is in effect, and where each value comes from. Pure.

use std::collections::BTreeMap;

use ottla_base::BrokerId;
use ottla_config::Value;
use ottla_config::property::{Property, Scope};
use ottla_config::table::{Conversion, properties, topic_synonyms};
use ottla_protocol::messages::create_topics_response::CreatableTopicConfigs;

use crate::controller::Policy;
use crate::delta::ConfigResource;
use crate::image::Image;

/// Where a value was set, under the codes of Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Topic = 1,
    Broker = 2,
    DefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// All properties of a topic that sets `overrides`, ordered by name.
pub(super) fn effective(
    image: &Image,
    policy: &Policy,
    overrides: &BTreeMap<String, String>,
) -> Vec<CreatableTopicConfigs> {
    let sources = Sources::new(image, policy);
    let mut entries: Vec<_> = properties(Scope::Topic)
        // Internal properties show only where somebody sets them.
        .filter(|property| !property.internal || overrides.contains_key(property.name))
        .map(|property| entry(property, overrides, &sources))
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn entry(
    property: &Property,
    overrides: &BTreeMap<String, String>,
    sources: &Sources<'_>,
) -> CreatableTopicConfigs {
    let own = overrides.get(property.name).map(|value| (value.clone(), Source::Topic));
    let (value, source) = own.or_else(|| sources.find(property.name)).map_or_else(
        || (property.default.map(str::to_owned), Source::Default),
        |(value, source)| (Some(value), source),
    );
    CreatableTopicConfigs {
        name: property.name.into(),
        value: value.filter(|_| !property.is_sensitive()).map(Into::into),
        read_only: false,
        config_source: source as i8,
        is_sensitive: property.is_sensitive(),
    }
}

/// What is set for brokers, the strongest source first.
struct Sources<'a> {
    policy: &'a Policy,
    broker: BTreeMap<&'a str, &'a str>,
    default_broker: BTreeMap<&'a str, &'a str>,
}

impl<'a> Sources<'a> {
    fn new(image: &'a Image, policy: &'a Policy) -> Self {
        let node = match policy.settings.value("node.id") {
            Some(Value::Int(id)) => BrokerId(id),
            _ => BrokerId::NONE,
        };
        Self {
            policy,
            broker: image.config(&ConfigResource::broker(node)).collect(),
            default_broker: image.config(&ConfigResource::default_broker()).collect(),
        }
    }

    fn find(&self, topic_property: &str) -> Option<(String, Source)> {
        let synonyms = topic_synonyms(topic_property);
        let in_map = |map: &BTreeMap<&str, &str>, source| {
            synonyms
                .iter()
                .find_map(|(name, conversion)| Some((convert(map.get(name)?, *conversion), source)))
        };
        in_map(&self.broker, Source::Broker)
            .or_else(|| in_map(&self.default_broker, Source::DefaultBroker))
            .or_else(|| {
                synonyms.iter().find_map(|(name, conversion)| {
                    let setting = self.policy.settings.get(name)?;
                    Some((convert(&setting.text, *conversion), Source::StaticBroker))
                })
            })
    }
}

fn convert(text: &str, conversion: Conversion) -> String {
    let factor: i64 = match conversion {
        Conversion::Same => return text.to_owned(),
        Conversion::MinutesToMs => 60_000,
        Conversion::HoursToMs => 3_600_000,
    };
    let number = text.trim().parse::<i64>();
    number.map_or_else(|_| text.to_owned(), |number| number.saturating_mul(factor).to_string())
}
