//! What DescribeConfigs and CreateTopics say about a broker's and a topic's configuration (pure).
//!
//! The order of strength is Kafka's: topic, this broker's dynamic value, the cluster's dynamic
//! default, the start-up configuration, the default.

use std::collections::{BTreeMap, BTreeSet};

use crate::property::{Kind, Property, Scope, Update};
use crate::settings::{Settings, read};
use crate::table::{broker_synonyms, find, properties, topic_synonyms};
use crate::topic::{TopicConfig, broker_default};

/// One property in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Null for secrets, for what is not set, and for names that nobody knows.
    pub value: Option<String>,
    /// `None` for names that nobody knows.
    pub kind: Option<Kind>,
    pub source: Source,
    pub sensitive: bool,
    pub read_only: bool,
    pub synonyms: Vec<Synonym>,
    pub text: Option<&'static str>,
}

impl Entry {
    /// The type code of the answer: 0 is unknown.
    pub fn type_code(&self) -> i8 {
        self.kind.map_or(0, Kind::code)
    }
}

/// Another place that sets, or would set, the same property; the strongest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// Who set a value, with DescribeConfigs' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

impl Source {
    pub const fn code(self) -> i8 {
        self as i8
    }
}

/// Broker properties changed at run time, as the metadata log holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// For this broker.
    pub broker: BTreeMap<String, String>,
    /// For every broker.
    pub default: BTreeMap<String, String>,
}

/// A broker's own configuration, by name: all properties that are not internal, and everything
/// that was set.
pub fn describe_broker(settings: &Settings, dynamic: &Dynamic) -> Vec<Entry> {
    let listed = properties(Scope::Broker).filter(|p| !p.internal && !is_dynamic_only(p));
    let mut names: BTreeSet<&str> = listed.map(|property| property.name).collect();
    names.extend(settings.iter().map(|(name, _)| name));
    names.extend(settings.unknown().map(|(name, _)| name));
    names.extend(dynamic.broker.keys().chain(dynamic.default.keys()).map(String::as_str));
    names.into_iter().map(|name| broker_entry(settings, dynamic, name)).collect()
}

/// The dynamic defaults of all brokers (DescribeConfigs of the broker with the empty name).
pub fn describe_broker_defaults(settings: &Settings, dynamic: &Dynamic) -> Vec<Entry> {
    let only_defaults = |name: &String| {
        let mut entry = broker_entry(settings, dynamic, name);
        entry.value = dynamic.default.get(name).filter(|_| !entry.sensitive).cloned();
        entry.synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
        entry.source = source_of(&entry.synonyms);
        entry
    };
    dynamic.default.keys().map(only_defaults).collect()
}

/// A topic's configuration, by name. `overrides` is what the topic sets for itself.
pub fn describe_topic(
    settings: &Settings,
    dynamic: &Dynamic,
    overrides: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let effective = overlay(settings, dynamic);
    let listed = properties(Scope::Topic)
        .filter(|property| !property.internal || overrides.contains_key(property.name));
    let mut entries: Vec<Entry> = listed
        .map(|property| {
            let own = own_value(property, overrides);
            let mut synonyms: Vec<Synonym> = topic_synonyms(property.name)
                .first()
                .map(|(name, _)| synonyms_of(settings, dynamic, name, false))
                .unwrap_or_default();
            if let Some(value) = &own {
                let value = Some(value.clone());
                let name = property.name.to_owned();
                synonyms.insert(0, Synonym { name, value, source: Source::Topic });
            }
            let value = own.or_else(|| inherited(&effective, property));
            entry(property, value, source_of(&synonyms), synonyms)
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// The configuration that CreateTopics answers with: as [`describe_topic`], but a value from
/// `log.retention.hours` counts as set by the broker, and there are no synonyms.
pub fn created_topic(
    settings: &Settings,
    dynamic: &Dynamic,
    overrides: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let mut entries = describe_topic(settings, dynamic, overrides);
    for entry in &mut entries {
        let any = |names: &dyn Fn(&str) -> bool| {
            topic_synonyms(&entry.name).iter().any(|(name, _)| names(name))
        };
        entry.source = if overrides.contains_key(&entry.name) {
            Source::Topic
        } else if any(&|name| dynamic.broker.contains_key(name)) {
            Source::DynamicBroker
        } else if any(&|name| dynamic.default.contains_key(name)) {
            Source::DynamicDefaultBroker
        } else if any(&|name| settings.is_set(name)) {
            Source::StaticBroker
        } else {
            Source::Default
        };
        entry.synonyms.clear();
    }
    entries
}

/// Defaults for topics on a broker whose properties were changed at run time.
pub fn topic_defaults(settings: &Settings, dynamic: &Dynamic) -> TopicConfig {
    TopicConfig::from_broker(&overlay(settings, dynamic))
}

/// Quotas that exist at run time only: DescribeConfigs of a broker does not list them unset.
fn is_dynamic_only(property: &Property) -> bool {
    matches!(
        property.name,
        "leader.replication.throttled.rate"
            | "follower.replication.throttled.rate"
            | "replica.alter.log.dirs.io.max.bytes.per.second"
    )
}

fn own_value(property: &Property, overrides: &BTreeMap<String, String>) -> Option<String> {
    let text = overrides.get(property.name)?;
    Some(read(property, text).map_or_else(|_| text.clone(), |value| value.to_string()))
}

fn inherited(effective: &Settings, property: &'static Property) -> Option<String> {
    let value = broker_default(effective, property)?.to_string();
    // Any negative retention of the broker is the topic's -1.
    let unlimited = property.name == "retention.ms" && value.starts_with('-');
    Some(if unlimited { "-1".to_owned() } else { value })
}

/// Start-up settings with the dynamic ones on top. A value that does not parse was refused when
/// somebody tried to set it, so none is lost here.
fn overlay(settings: &Settings, dynamic: &Dynamic) -> Settings {
    let mut effective = settings.clone();
    for (name, text) in dynamic.default.iter().chain(&dynamic.broker) {
        drop(effective.set(name, text, crate::settings::Origin::BuiltIn));
    }
    effective
}

fn broker_entry(settings: &Settings, dynamic: &Dynamic, name: &str) -> Entry {
    let Some(property) = find(Scope::Broker, name) else {
        // Kafka treats what it does not know as a secret.
        let synonyms = synonyms_of(settings, dynamic, name, true);
        return Entry {
            name: name.to_owned(),
            value: None,
            kind: None,
            source: source_of(&synonyms),
            sensitive: true,
            read_only: true,
            synonyms,
            text: None,
        };
    };
    let synonyms = synonyms_of(settings, dynamic, name, property.is_sensitive());
    let value = overlay_value(settings, dynamic, property);
    entry(property, value, source_of(&synonyms), synonyms)
}

fn overlay_value(settings: &Settings, dynamic: &Dynamic, property: &Property) -> Option<String> {
    let changed = dynamic.broker.get(property.name).or_else(|| dynamic.default.get(property.name));
    match changed.and_then(|text| read(property, text).ok()) {
        Some(value) => Some(value.to_string()),
        None => settings.value(property.name).map(|value| value.to_string()),
    }
}

fn entry(
    property: &Property,
    value: Option<String>,
    source: Source,
    synonyms: Vec<Synonym>,
) -> Entry {
    let sensitive = property.is_sensitive();
    Entry {
        name: property.name.to_owned(),
        value: value.filter(|_| !sensitive),
        kind: Some(property.kind),
        source,
        sensitive,
        read_only: property.update == Update::ReadOnly,
        synonyms,
        text: Some(property.text),
    }
}

fn source_of(synonyms: &[Synonym]) -> Source {
    synonyms.first().map_or(Source::Default, |synonym| synonym.source)
}

/// All that is set for a broker property under any of its names. What precedes the first mention
/// of `name` itself is left out, so `log.retention.ms` shows nothing when only hours are set:
/// odd, but what Kafka answers.
fn synonyms_of(settings: &Settings, dynamic: &Dynamic, name: &str, hidden: bool) -> Vec<Synonym> {
    let names = broker_synonyms(name);
    let mut all = Vec::new();
    let mut add = |name: &str, value: Option<String>, source| {
        if let Some(value) = value {
            let value = (!hidden).then_some(value);
            all.push(Synonym { name: name.to_owned(), value, source });
        }
    };
    for name in &names {
        add(name, dynamic.broker.get(*name).cloned(), Source::DynamicBroker);
    }
    for name in &names {
        add(name, dynamic.default.get(*name).cloned(), Source::DynamicDefaultBroker);
    }
    for name in &names {
        add(name, written(settings, name), Source::StaticBroker);
    }
    for name in &names {
        let default = find(Scope::Broker, name).filter(|property| !is_dynamic_only(property));
        let default = default.and_then(|property| property.default);
        add(name, default.map(str::to_owned), Source::Default);
    }
    all.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

/// What was written for a name at start, known or not.
fn written(settings: &Settings, name: &str) -> Option<String> {
    let known = settings.get(name).map(|setting| setting.text.clone());
    known.or_else(|| Some(settings.unknown.get(name)?.text.clone()))
}
