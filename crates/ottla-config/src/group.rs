//! What one group sets for itself: checks in Kafka's words, and the values that it inherits (pure).

use std::collections::BTreeMap;

use crate::property::{Property, Scope};
use crate::settings::{Settings, judge};
use crate::table::{find, group_synonym, properties};
use crate::value::Value;

/// Checks all that a group is to set for itself on a broker with these settings.
///
/// # Errors
/// Kafka's sentence about the first thing that is wrong: a name, a value, or what lies out of the broker's bounds.
pub fn check_group(settings: &Settings, wanted: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(unknown) = wanted.keys().find(|name| find(Scope::Group, name).is_none()) {
        return Err(format!("Unknown group config name: {unknown}"));
    }
    let mut values = BTreeMap::new();
    for property in properties(Scope::Group) {
        let value = match wanted.get(property.name) {
            Some(text) => Some(judge(property, text)?),
            None => inherited(settings, property),
        };
        values.extend(value.and_then(|value| Some((property.name, value.integer()?))));
    }
    let check = Check { settings, wanted, values };
    BOUNDS.iter().try_for_each(|bound| check.bound(bound))?;
    ["consumer", "share", "streams"].iter().try_for_each(|kind| check.heartbeats(kind))
}

/// What the broker's properties make of a group property. Kafka shows the built-in default of an
/// assignment interval whatever the broker's is, but uses the broker's.
pub(crate) fn inherited(settings: &Settings, property: &Property) -> Option<Value> {
    if property.name.ends_with(".assignment.interval.ms") {
        return Value::parse(property.kind, property.default?).ok();
    }
    match group_synonym(property.name) {
        Some(synonym) => settings.value(synonym),
        None => Value::parse(property.kind, property.default?).ok(),
    }
}

/// A group property between two broker properties of the same name.
struct Bound {
    kind: &'static str,
    name: &'static str,
    has_minimum: bool,
}

impl Bound {
    const fn new(kind: &'static str, name: &'static str) -> Self {
        Self { kind, name, has_minimum: true }
    }

    fn property(&self) -> String {
        format!("{}.{}", self.kind, self.name)
    }

    fn minimum(&self) -> Option<String> {
        self.has_minimum.then(|| format!("group.{}.min.{}", self.kind, self.name))
    }

    fn maximum(&self) -> String {
        match self.name {
            "num.standby.replicas" => format!("group.{}.max.standby.replicas", self.kind),
            name => format!("group.{}.max.{name}", self.kind),
        }
    }
}

/// In the order in which Kafka checks.
const BOUNDS: &[Bound] = &[
    Bound::new("consumer", "heartbeat.interval.ms"),
    Bound::new("consumer", "session.timeout.ms"),
    Bound::new("consumer", "assignment.interval.ms"),
    Bound::new("share", "heartbeat.interval.ms"),
    Bound::new("share", "session.timeout.ms"),
    Bound::new("share", "record.lock.duration.ms"),
    Bound::new("share", "delivery.count.limit"),
    Bound::new("share", "partition.max.record.locks"),
    Bound::new("share", "assignment.interval.ms"),
    Bound::new("streams", "heartbeat.interval.ms"),
    Bound::new("streams", "session.timeout.ms"),
    Bound { kind: "streams", name: "num.standby.replicas", has_minimum: false },
    Bound::new("streams", "assignment.interval.ms"),
];

struct Check<'a> {
    settings: &'a Settings,
    wanted: &'a BTreeMap<String, String>,
    values: BTreeMap<&'static str, i64>,
}

impl Check<'_> {
    fn value(&self, name: &str) -> i64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    fn bound(&self, bound: &Bound) -> Result<(), String> {
        let name = bound.property();
        // The default of an assignment interval is never held against a group.
        if bound.name == "assignment.interval.ms" && !self.wanted.contains_key(&name) {
            return Ok(());
        }
        let value = self.value(&name);
        if let Some(minimum) = bound.minimum()
            && value < i64::from(self.settings.int(&minimum))
        {
            return Err(format!("{name} must be greater than or equal to {minimum}"));
        }
        let maximum = bound.maximum();
        if value > i64::from(self.settings.int(&maximum)) {
            return Err(format!("{name} must be less than or equal to {maximum}"));
        }
        Ok(())
    }

    fn heartbeats(&self, kind: &str) -> Result<(), String> {
        let session = format!("{kind}.session.timeout.ms");
        let heartbeat = format!("{kind}.heartbeat.interval.ms");
        if self.value(&session) > self.value(&heartbeat) {
            return Ok(());
        }
        Err(format!("{session} must be greater than {heartbeat}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn objection(pairs: &[(&str, &str)]) -> String {
        check_group(&Settings::default(), &set(pairs)).unwrap_err()
    }

    #[test]
    fn values_within_the_brokers_bounds_are_accepted() {
        let good = [
            ("consumer.session.timeout.ms", "50000"),
            ("share.auto.offset.reset", "by_duration:PT1H"),
            ("streams.num.standby.replicas", "2"),
        ];
        assert_eq!(check_group(&Settings::default(), &set(&good)), Ok(()));
        assert_eq!(check_group(&Settings::default(), &BTreeMap::new()), Ok(()));
    }

    #[test]
    fn values_outside_the_brokers_bounds_are_refused_by_the_name_of_the_bound() {
        assert_eq!(
            objection(&[("consumer.session.timeout.ms", "44999")]),
            "consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms"
        );
        assert_eq!(
            objection(&[("streams.num.standby.replicas", "3")]),
            "streams.num.standby.replicas must be less than or equal to \
             group.streams.max.standby.replicas"
        );
    }

    #[test]
    fn unknown_names_and_values_that_do_not_parse_are_refused() {
        assert_eq!(objection(&[("no.such", "1")]), "Unknown group config name: no.such");
        assert!(objection(&[("consumer.session.timeout.ms", "long")]).contains("Not a number"));
    }
    #[test]
    fn a_group_that_sets_nothing_has_the_brokers_value() {
        let mut settings = Settings::default();
        settings.set("group.consumer.session.timeout.ms", "50000", Origin::BuiltIn).unwrap();
        let property = find(Scope::Group, "consumer.session.timeout.ms").unwrap();
        assert_eq!(inherited(&settings, property), Some(Value::Int(50_000)));
    }
}
