//! Every property that Kafka 4.3.1 or Ottla knows, each once (pure).
//!
//! Parsing, defaults, error messages, DescribeConfigs and the reference page all read these rows.
//! That the rows agree with Kafka is a test: `tests/kafka_agrees.rs`.

mod client_metrics;
mod cluster;
mod group;
mod groups;
mod log;
mod metrics;
mod network;
mod ottla;
mod remote;
mod replication;
mod security;
mod topic;
mod transactions;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::property::{Property, Scope};

/// One heading of the reference page and its rows.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub title: &'static str,
    pub scope: Scope,
    pub rows: &'static [Property],
}

const fn family(title: &'static str, scope: Scope, rows: &'static [Property]) -> Family {
    Family { title, scope, rows }
}

pub const FAMILIES: &[Family] = &[
    family("Ottla's own", Scope::Broker, ottla::ROWS),
    family("Node, controller and topics", Scope::Broker, cluster::ROWS),
    family("Listeners, connections and quotas", Scope::Broker, network::ROWS),
    family("Logs", Scope::Broker, log::ROWS),
    family("Replication", Scope::Broker, replication::ROWS),
    family("Groups", Scope::Broker, groups::ROWS),
    family("Producers and transactions", Scope::Broker, transactions::ROWS),
    family("Security", Scope::Broker, security::ROWS),
    family("Remote storage", Scope::Broker, remote::ROWS),
    family("Kafka's metrics reporters", Scope::Broker, metrics::ROWS),
    family("Topic properties", Scope::Topic, topic::ROWS),
    family("Group properties", Scope::Group, group::ROWS),
    family("Client metrics subscriptions", Scope::ClientMetrics, client_metrics::ROWS),
];

/// All properties of a scope, in the order of the table.
pub fn properties(scope: Scope) -> impl Iterator<Item = &'static Property> {
    FAMILIES.iter().filter(move |family| family.scope == scope).flat_map(|family| family.rows)
}

static BROKER: LazyLock<HashMap<&'static str, &'static Property>> =
    LazyLock::new(|| by_name(Scope::Broker));
static TOPIC: LazyLock<HashMap<&'static str, &'static Property>> =
    LazyLock::new(|| by_name(Scope::Topic));
static GROUP: LazyLock<HashMap<&'static str, &'static Property>> =
    LazyLock::new(|| by_name(Scope::Group));
static CLIENT_METRICS: LazyLock<HashMap<&'static str, &'static Property>> =
    LazyLock::new(|| by_name(Scope::ClientMetrics));

fn by_name(scope: Scope) -> HashMap<&'static str, &'static Property> {
    properties(scope).map(|property| (property.name, property)).collect()
}

/// The property of that exact name.
pub fn find(scope: Scope, name: &str) -> Option<&'static Property> {
    let index = match scope {
        Scope::Broker => &BROKER,
        Scope::Topic => &TOPIC,
        Scope::Group => &GROUP,
        Scope::ClientMetrics => &CLIENT_METRICS,
    };
    index.get(name).copied()
}

/// The property whose name is nearest to a misspelt one, when one is near enough to be meant.
pub fn nearest(scope: Scope, name: &str) -> Option<&'static str> {
    const NEAR: f64 = 0.8;
    properties(scope)
        .map(|property| (strsim::normalized_damerau_levenshtein(name, property.name), property))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, property)| property.name)
}

/// How a broker property's number becomes the topic property's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Same,
    MinutesToMs,
    HoursToMs,
}

impl Conversion {
    pub(crate) fn apply(self, number: i64) -> i64 {
        match self {
            Self::Same => number,
            Self::MinutesToMs => number.saturating_mul(60_000),
            Self::HoursToMs => number.saturating_mul(3_600_000),
        }
    }
}

/// The broker properties that a topic property falls back to, the strongest first.
pub fn topic_synonyms(topic_property: &str) -> &'static [(&'static str, Conversion)] {
    use Conversion::{HoursToMs, MinutesToMs, Same};
    match topic_property {
        "cleanup.policy" => &[("log.cleanup.policy", Same)],
        "compression.gzip.level" => &[("compression.gzip.level", Same)],
        "compression.lz4.level" => &[("compression.lz4.level", Same)],
        "compression.type" => &[("compression.type", Same)],
        "compression.zstd.level" => &[("compression.zstd.level", Same)],
        "delete.retention.ms" => &[("log.cleaner.delete.retention.ms", Same)],
        "file.delete.delay.ms" => &[("log.segment.delete.delay.ms", Same)],
        "flush.messages" => &[("log.flush.interval.messages", Same)],
        "flush.ms" => &[("log.flush.interval.ms", Same), ("log.flush.scheduler.interval.ms", Same)],
        "index.interval.bytes" => &[("log.index.interval.bytes", Same)],
        "local.retention.bytes" => &[("log.local.retention.bytes", Same)],
        "local.retention.ms" => &[("log.local.retention.ms", Same)],
        "max.compaction.lag.ms" => &[("log.cleaner.max.compaction.lag.ms", Same)],
        "max.message.bytes" => &[("message.max.bytes", Same)],
        "message.timestamp.after.max.ms" => &[("log.message.timestamp.after.max.ms", Same)],
        "message.timestamp.before.max.ms" => &[("log.message.timestamp.before.max.ms", Same)],
        "message.timestamp.type" => &[("log.message.timestamp.type", Same)],
        "min.cleanable.dirty.ratio" => &[("log.cleaner.min.cleanable.ratio", Same)],
        "min.compaction.lag.ms" => &[("log.cleaner.min.compaction.lag.ms", Same)],
        "min.insync.replicas" => &[("min.insync.replicas", Same)],
        "preallocate" => &[("log.preallocate", Same)],
        "retention.bytes" => &[("log.retention.bytes", Same)],
        "retention.ms" => &[
            ("log.retention.ms", Same),
            ("log.retention.minutes", MinutesToMs),
            ("log.retention.hours", HoursToMs),
        ],
        "segment.bytes" => &[("log.segment.bytes", Same)],
        "segment.index.bytes" => &[("log.index.size.max.bytes", Same)],
        "segment.jitter.ms" => {
            &[("log.roll.jitter.ms", Same), ("log.roll.jitter.hours", HoursToMs)]
        }
        "segment.ms" => &[("log.roll.ms", Same), ("log.roll.hours", HoursToMs)],
        "unclean.leader.election.enable" => &[("unclean.leader.election.enable", Same)],
        _ => &[],
    }
}

/// The names under which a broker property can be set, the strongest first.
pub fn broker_synonyms(name: &str) -> Vec<&str> {
    const GROUPS: &[&[&str]] = &[
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    ];
    if name == "log.flush.interval.ms" {
        return vec!["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    }
    match GROUPS.iter().find(|group| group.contains(&name)) {
        Some(group) => group.to_vec(),
        None => vec![name],
    }
}

/// The property that `listener.name.NAME.PROPERTY` sets for one listener.
pub fn listener_base(name: &str) -> Option<&str> {
    let (_, base) = name.strip_prefix("listener.name.")?.split_once('.')?;
    Some(base)
}

/// The property that a name for one listener is about, where DescribeConfigs tells its type: for what belongs to one of
/// its SASL mechanisms there is the mechanism's name in between.
pub fn listener_synonym(name: &str) -> Option<&str> {
    const OF_A_MECHANISM: &[&str] = &[
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
        "connections.max.reauth.ms",
    ];
    let base = listener_base(name)?;
    Some(OF_A_MECHANISM.iter().copied().find(|it| base.ends_with(it)).unwrap_or(base))
}

/// The broker property that a group property falls back to.
pub fn group_synonym(group_property: &str) -> Option<&'static str> {
    let name = format!("group.{group_property}");
    // Three of a share group's properties have no counterpart for all groups.
    find(Scope::Broker, &name).map(|property| property.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn no_name_occurs_twice_in_a_scope() {
        for scope in [Scope::Broker, Scope::Topic, Scope::Group, Scope::ClientMetrics] {
            assert_eq!(by_name(scope).len(), properties(scope).count(), "{scope:?}");
        }
    }

    #[test]
    fn every_default_is_a_value_that_its_own_row_allows() {
        for family in FAMILIES {
            for property in family.rows {
                let Some(text) = property.default else { continue };
                let value = Value::parse(property.kind, text)
                    .unwrap_or_else(|e| panic!("{}: {e}", property.name));
                assert_eq!(value.to_string(), text, "{}", property.name);
                let checked = property.check.apply(property.name, Some(&value));
                assert!(checked.is_ok(), "{}: {checked:?}", property.name);
            }
        }
    }

    #[test]
    fn every_property_has_one_sentence_of_text() {
        for property in FAMILIES.iter().flat_map(|family| family.rows) {
            assert!(property.text.ends_with('.'), "{}", property.name);
        }
    }

    #[test]
    fn every_synonym_is_a_broker_property() {
        for property in properties(Scope::Topic) {
            for (synonym, _) in topic_synonyms(property.name) {
                assert!(find(Scope::Broker, synonym).is_some(), "{synonym}");
            }
        }
    }

    #[test]
    fn a_mechanisms_property_is_found_behind_the_mechanism() {
        let jaas = "listener.name.sasl.plain.sasl.jaas.config";
        assert_eq!(listener_synonym(jaas), Some("sasl.jaas.config"));
        assert_eq!(
            listener_synonym("listener.name.sasl.ssl.key.password"),
            Some("ssl.key.password")
        );
        assert_eq!(listener_synonym("sasl.jaas.config"), None);
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        assert_eq!(nearest(Scope::Broker, "log.retention.hour"), Some("log.retention.hours"));
        assert_eq!(nearest(Scope::Broker, "advertised.listener"), Some("advertised.listeners"));
        assert_eq!(nearest(Scope::Broker, "confluent.license"), None);
    }
}
