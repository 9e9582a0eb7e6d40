//! What a client-metrics subscription may hold (pure).

use std::collections::BTreeMap;

use crate::property::Scope;
use crate::settings::judge;
use crate::table::find;
use crate::value::Value;

/// Why a subscription is refused, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidSubscription {
    /// INVALID_REQUEST
    Request(String),
    /// INVALID_CONFIG
    Config(String),
}

const CLIENT_FIELDS: &[&str] = &[
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Checks all that a subscription is to hold.
///
/// # Errors
/// The first thing that is wrong: a name, a value, an interval out of 100 ms to 1 h, or a pattern.
pub fn check_subscription(wanted: &BTreeMap<String, String>) -> Result<(), InvalidSubscription> {
    use InvalidSubscription::{Config, Request};
    if let Some(unknown) = wanted.keys().find(|name| find(Scope::ClientMetrics, name).is_none()) {
        return Err(Request(format!("Unknown client metrics configuration: {unknown}")));
    }
    let mut values = BTreeMap::new();
    for (name, text) in wanted {
        let Some(property) = find(Scope::ClientMetrics, name) else { continue };
        values.insert(property.name, judge(property, text).map_err(Config)?);
    }
    if let Some(Value::Int(interval)) = values.get("interval.ms")
        && !(100..=3_600_000).contains(interval)
    {
        return Err(Request(format!(
            "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
        )));
    }
    let patterns = values.get("match").and_then(Value::items).unwrap_or_default();
    match patterns.iter().find(|pattern| !is_pattern(pattern)) {
        Some(pattern) => Err(Config(format!("Illegal client matching pattern: {pattern}"))),
        None => Ok(()),
    }
}

/// `field=expression`. Kafka compiles the expression, too; here nobody matches with it.
fn is_pattern(pattern: &str) -> bool {
    // Java's split passes over empty pieces at the end.
    let mut pieces: Vec<&str> = pattern.split('=').collect();
    while pieces.last().is_some_and(|piece| piece.is_empty()) {
        pieces.pop();
    }
    matches!(*pieces, [field, _] if CLIENT_FIELDS.contains(&field.trim()))
}
