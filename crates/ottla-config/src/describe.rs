//! What DescribeConfigs and CreateTopics say about a broker's and a topic's configuration (pure).
//!
//! The order of strength is Kafka's: topic, this broker's dynamic value, the cluster's dynamic
//! default, the start-up configuration, the default.

use std::collections::{BTreeMap, BTreeSet};

use crate::dynamic::Dynamic;
use crate::group::inherited;
use crate::property::{Kind, Property, Scope, Update};
use crate::settings::{Settings, read};
use crate::table::{
    Conversion, broker_synonyms, find, group_synonym, listener_synonym, properties, topic_synonyms,
};
use crate::topic::{TopicConfig, broker_default};
use crate::value::java_trim;

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

impl Synonym {
    fn new(name: &str, value: String, source: Source) -> Self {
        Self { name: name.to_owned(), value: Some(value), source }
    }
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

/// A broker's own configuration, by name: all properties that are not internal, and everything
/// that was set. Here and below, values are those `in_effect`: what is stored as dynamic may not be.
pub fn describe_broker(settings: &Settings, dynamic: &Dynamic, in_effect: &Settings) -> Vec<Entry> {
    let listed = properties(Scope::Broker).filter(|p| !p.internal && !is_dynamic_only(p));
    let mut names: BTreeSet<&str> = listed.map(|property| property.name).collect();
    names.extend(settings.iter().map(|(name, _)| name));
    names.extend(settings.unknown().map(|(name, _)| name));
    names.extend(dynamic.broker.keys().chain(dynamic.default.keys()).map(String::as_str));
    names.into_iter().map(|name| broker_entry(settings, dynamic, in_effect, name)).collect()
}

/// The dynamic defaults of all brokers (DescribeConfigs of the broker with the empty name).
pub fn describe_broker_defaults(
    settings: &Settings,
    dynamic: &Dynamic,
    in_effect: &Settings,
) -> Vec<Entry> {
    let only_defaults = |name: &String| {
        let mut entry = broker_entry(settings, dynamic, in_effect, name);
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
    in_effect: &Settings,
    overrides: &BTreeMap<String, String>,
) -> Vec<Entry> {
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
                synonyms.insert(0, Synonym::new(property.name, value.clone(), Source::Topic));
            }
            let value = own.or_else(|| from_broker(in_effect, property));
            entry(property, value, source_of(&synonyms), synonyms)
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// The configuration that CreateTopics answers with. Other than in [`describe_topic`] values stay as
/// they were written, a value from `log.retention.hours` counts as set by the broker, and there are
/// no synonyms.
pub fn created_topic(
    settings: &Settings,
    dynamic: &Dynamic,
    overrides: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let listed = properties(Scope::Topic)
        .filter(|property| !property.internal || overrides.contains_key(property.name));
    let created = |property: &'static Property| {
        let own = overrides.get(property.name).map(|text| (text.clone(), Source::Topic));
        match own.or_else(|| set_for_brokers(settings, dynamic, property.name)) {
            Some((value, source)) => entry(property, Some(value), source, Vec::new()),
            None => {
                let default = property.default.map(str::to_owned);
                entry(property, default, Source::Default, Vec::new())
            }
        }
    };
    let mut entries: Vec<Entry> = listed.map(created).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// What is set for brokers under any name that a topic property falls back to, the strongest first.
fn set_for_brokers(
    settings: &Settings,
    dynamic: &Dynamic,
    topic_property: &str,
) -> Option<(String, Source)> {
    let find_in = |text_of: &dyn Fn(&str) -> Option<String>, source| {
        topic_synonyms(topic_property)
            .iter()
            .find_map(|(name, conversion)| Some((convert(&text_of(name)?, *conversion), source)))
    };
    find_in(&|name| dynamic.broker.get(name).cloned(), Source::DynamicBroker)
        .or_else(|| {
            find_in(&|name| dynamic.default.get(name).cloned(), Source::DynamicDefaultBroker)
        })
        .or_else(|| find_in(&|name| Some(settings.get(name)?.text.clone()), Source::StaticBroker))
}

fn convert(text: &str, conversion: Conversion) -> String {
    let number = (conversion != Conversion::Same).then(|| java_trim(text).parse().ok()).flatten();
    number.map_or_else(|| text.to_owned(), |number| conversion.apply(number).to_string())
}

/// A group's configuration. `own` is what the group sets for itself.
pub fn describe_group(
    settings: &Settings,
    dynamic: &Dynamic,
    in_effect: &Settings,
    own: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let described = |property: &'static Property| {
        let mut synonyms = match group_synonym(property.name) {
            Some(synonym) => synonyms_of(settings, dynamic, synonym, false),
            None => default_synonym(property).into_iter().collect(),
        };
        let set = own_value(property, own);
        if let Some(value) = set.clone() {
            synonyms.insert(0, Synonym::new(property.name, value, Source::Group));
        }
        let inherited = || inherited(in_effect, property).map(|value| value.to_string());
        entry(property, set.or_else(inherited), source_of(&synonyms), synonyms)
    };
    properties(Scope::Group).map(described).collect()
}

/// A client-metrics subscription; one that nobody made has the defaults.
pub fn describe_subscription(own: &BTreeMap<String, String>) -> Vec<Entry> {
    let described = |property: &'static Property| {
        let set = own_value(property, own);
        let synonym = |value: String| Synonym::new(property.name, value, Source::ClientMetrics);
        let synonyms: Vec<Synonym> = set.clone().map(synonym).into_iter().collect();
        let value = set.or_else(|| property.default.map(str::to_owned));
        entry(property, value, source_of(&synonyms), synonyms)
    };
    properties(Scope::ClientMetrics).map(described).collect()
}

fn default_synonym(property: &Property) -> Option<Synonym> {
    Some(Synonym::new(property.name, property.default?.to_owned(), Source::Default))
}

/// Defaults for topics on a broker whose properties were changed at run time.
pub fn topic_defaults(settings: &Settings, dynamic: &Dynamic) -> TopicConfig {
    TopicConfig::from_broker(&dynamic.over(settings))
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

fn from_broker(effective: &Settings, property: &'static Property) -> Option<String> {
    let value = broker_default(effective, property)?.to_string();
    // Any negative retention of the broker is the topic's -1.
    let unlimited = property.name == "retention.ms" && value.starts_with('-');
    Some(if unlimited { "-1".to_owned() } else { value })
}

fn broker_entry(settings: &Settings, dynamic: &Dynamic, effective: &Settings, name: &str) -> Entry {
    let Some(property) = find(Scope::Broker, name) else {
        return stray_entry(settings, dynamic, name);
    };
    let synonyms = synonyms_of(settings, dynamic, name, property.is_sensitive());
    let value = effective.value(property.name).map(|value| value.to_string());
    entry(property, value, source_of(&synonyms), synonyms)
}

/// A name that is no property. One for a single listener has the type of the property that it is
/// about; what is not known at all, Kafka treats as a secret.
fn stray_entry(settings: &Settings, dynamic: &Dynamic, name: &str) -> Entry {
    let base = listener_synonym(name).and_then(|base| find(Scope::Broker, base));
    let sensitive = base.is_none_or(Property::is_sensitive);
    let synonyms = synonyms_of(settings, dynamic, name, sensitive);
    Entry {
        name: name.to_owned(),
        value: synonyms.first().and_then(|synonym| synonym.value.clone()),
        kind: base.map(|property| property.kind),
        source: source_of(&synonyms),
        sensitive,
        read_only: true,
        synonyms,
        text: None,
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
    let names = match listener_synonym(name) {
        Some(base) => vec![name, base],
        None => broker_synonyms(name),
    };
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
