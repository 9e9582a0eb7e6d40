//! Broker properties that change while a broker runs: which ones may, what Kafka says against a
//! change, and what is in effect afterwards (pure).
//!
//! The order of strength is Kafka's: this broker's dynamic value, the dynamic default of all
//! brokers, the start-up configuration, the default.

use std::collections::BTreeMap;

use crate::cleaner::CleanerConfig;
use crate::connections::{ConnectionLimits, listener_limits, parse_overrides};
use crate::property::{Property, Scope, Status, Update};
use crate::settings::{Origin, Settings, judge};
use crate::table::{broker_synonyms, find, listener_base};
use crate::topic::TopicConfig;
use crate::value::Value;

/// Broker properties changed at run time, as the metadata log holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// For this broker.
    pub broker: BTreeMap<String, String>,
    /// For every broker.
    pub default: BTreeMap<String, String>,
}

/// What a change has an effect on, as it is after the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// What a topic gets where it sets nothing.
    pub topic_defaults: TopicConfig,
    pub connections: ConnectionLimits,
    pub producer_id_expiration_ms: i32,
    pub log_dir_reserved_bytes: i64,
    pub num_replica_fetchers: i32,
    pub cleaner: CleanerConfig,
}

impl Effective {
    /// Reads a whole configuration: [`Dynamic::over`] or, where nothing is dynamic, the start-up one.
    pub fn new(settings: &Settings) -> Self {
        Self {
            topic_defaults: TopicConfig::from_broker(settings),
            connections: ConnectionLimits::from_settings(settings),
            producer_id_expiration_ms: settings.int("producer.id.expiration.ms"),
            num_replica_fetchers: settings.int("num.replica.fetchers"),
            log_dir_reserved_bytes: settings.long("log.dir.reserved.bytes"),
            cleaner: CleanerConfig::from_settings(settings),
        }
    }
}

/// Whose value a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    ThisBroker,
    AllBrokers,
}

impl Dynamic {
    /// What is stored for this broker and for all brokers, without what Kafka passes over: names
    /// that change at the start only, names out of reach, and values that do not parse. Nor with what cannot be honoured:
    /// Apache Kafka, or an earlier release, may have stored that.
    pub fn from_stored<'a>(
        broker: impl IntoIterator<Item = (&'a str, &'a str)>,
        default: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        let valid = |reach| move |(name, text): &(&str, &str)| is_valid(reach, name, text);
        Self {
            broker: broker.into_iter().filter(valid(Reach::ThisBroker)).map(owned).collect(),
            default: default.into_iter().filter(valid(Reach::AllBrokers)).map(owned).collect(),
        }
    }

    /// What is set within one reach.
    pub fn of(&self, reach: Reach) -> &BTreeMap<String, String> {
        match reach {
            Reach::ThisBroker => &self.broker,
            Reach::AllBrokers => &self.default,
        }
    }

    /// The start-up settings with the dynamic ones on top.
    pub fn over(&self, settings: &Settings) -> Settings {
        let mut effective = self.unbounded_over(settings);
        for [value, minimum, maximum] in BOUNDED {
            let bounded =
                effective.int(value).clamp(effective.int(minimum), effective.int(maximum));
            if bounded != effective.int(value) {
                put(&mut effective, value, &bounded.to_string());
            }
        }
        effective
    }

    /// A dynamic value hides all names of the same thing: `log.flush.interval.ms` hides a
    /// `log.flush.scheduler.interval.ms` in a file.
    fn unbounded_over(&self, settings: &Settings) -> Settings {
        let mut effective = settings.clone();
        for (name, text) in self.default.iter().chain(&self.broker) {
            broker_synonyms(name).into_iter().for_each(|synonym| effective.unset(synonym));
            put(&mut effective, name, text);
        }
        effective
    }

    fn with(&self, reach: Reach, wanted: &BTreeMap<String, String>) -> Self {
        match reach {
            Reach::ThisBroker => Self { broker: wanted.clone(), ..self.clone() },
            Reach::AllBrokers => Self { default: wanted.clone(), ..self.clone() },
        }
    }
}

/// What of this broker's disks and network moving and lagging replicas may take: dynamic values alone, as in Apache Kafka, so
/// that a throttle is lifted even where something else that is stored keeps the rest from taking effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttles {
    /// `leader.replication.throttled.rate`, bytes per second; `None`: no bound, as in the others.
    pub leader: Option<u64>,
    /// `follower.replication.throttled.rate`.
    pub follower: Option<u64>,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`.
    pub moves: Option<u64>,
}

impl From<&Dynamic> for Throttles {
    fn from(dynamic: &Dynamic) -> Self {
        // Kafka's way to say that there is none is the largest number.
        let bound = |text: &String| text.parse().ok().filter(|rate| *rate < i64::MAX as u64);
        let stored = |name| dynamic.broker.get(name).or_else(|| dynamic.default.get(name));
        let rate = |name| stored(name).and_then(bound);
        Self {
            leader: rate("leader.replication.throttled.rate"),
            follower: rate("follower.replication.throttled.rate"),
            moves: rate("replica.alter.log.dirs.io.max.bytes.per.second"),
        }
    }
}

/// What does not parse was refused when somebody tried to set it.
fn put(settings: &mut Settings, name: &str, text: &str) {
    drop(settings.set(name, text, Origin::BuiltIn));
}

/// What Kafka says against replacing all dynamic values of one reach by `wanted`.
///
/// # Errors
/// A sentence about the first thing that is wrong: Kafka's, or ours about what no broker here can do.
pub fn check_change(
    settings: &Settings,
    dynamic: &Dynamic,
    reach: Reach,
    wanted: &BTreeMap<String, String>,
) -> Result<(), String> {
    let which = |is_meant: fn(&str) -> bool| -> Vec<&str> {
        wanted.keys().map(String::as_str).filter(|name| is_meant(name)).collect()
    };
    refuse_any(&which(is_read_only), "Cannot update these configs dynamically")?;
    refuse_any(
        &which(is_tls_store),
        "These security configs can be dynamically updated only per-listener using the listener \
         prefix",
    )?;
    wanted.iter().try_for_each(|(name, text)| check_value(name, text))?;
    if reach == Reach::AllBrokers {
        refuse_any(
            &which(is_per_broker),
            "Cannot update these configs at default cluster level, broker id must be specified",
        )?;
    }
    let old = dynamic.over(settings);
    let new = dynamic.with(reach, wanted).unbounded_over(settings);
    check_together(&new)?;
    // Apache Kafka takes the reason for a value and its own sentence for a name. Clients see that, and tools look for it.
    check_step(&old, &new).map_err(|reason| {
        format!(
            "Invalid value org.apache.kafka.common.config.ConfigException: {reason} for \
             configuration Invalid dynamic configuration"
        )
    })?;
    check_within_reach(&old, &new)
}

/// What Kafka says against letting stored values take effect. Somebody may have stored what
/// [`check_change`] would have refused: a change that goes to the controller is not checked.
///
/// How far thread pools may be resized at once is left out: a broker that was led to a size in steps
/// would refuse it when it starts again.
///
/// # Errors
/// Kafka's sentence about the first thing that is wrong.
pub fn check_stored(in_effect: &Settings, new: &Settings) -> Result<(), String> {
    check_together(new)?;
    require(TopicConfig::from_broker(new).flush_ms >= 0, || {
        "log.flush.interval.ms must be at least 0".to_owned()
    })?;
    check_limits(in_effect, new)
}

fn refuse_any(names: &[&str], message: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{message}: [{}]", names.join(", "))) }
}

fn is_valid(reach: Reach, name: &str, text: &str) -> bool {
    let in_reach = reach == Reach::ThisBroker || !is_per_broker(name);
    in_reach
        && !is_read_only(name)
        && !is_tls_store(name)
        && check_value(name, text).is_ok()
        && check_honoured(name, text).is_ok()
}

/// A name that Kafka does not know may hold anything: a plug-in may read it.
fn check_value(name: &str, text: &str) -> Result<(), String> {
    match find(Scope::Broker, listener_base(name).unwrap_or(name)) {
        Some(property) if property.update != Update::ReadOnly => judge(property, text).map(drop),
        Some(_) | None => Ok(()),
    }
}

fn is_read_only(name: &str) -> bool {
    find(Scope::Broker, name).is_some_and(|property| property.update == Update::ReadOnly)
}

/// Keys and certificates, which Kafka reads anew while it runs, but for one listener at a time.
fn is_tls_store(name: &str) -> bool {
    name == "ssl.key.password"
        || name.starts_with("ssl.keystore.")
        || name.starts_with("ssl.truststore.")
}

fn is_per_broker(name: &str) -> bool {
    const FOR_EVERY_LISTENER: &[&str] =
        &["max.connections", "max.connection.creation.rate", "num.network.threads"];
    match listener_base(name) {
        Some(base) => !FOR_EVERY_LISTENER.contains(&base),
        None => find(Scope::Broker, name).is_some_and(|it| it.update == Update::PerBroker),
    }
}

/// A value, its lower and its upper bound. A value that a later change of a bound left outside is
/// used as if it were the bound.
const BOUNDED: [[&str; 3]; 3] = [
    [
        "group.consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ],
    [
        "group.share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ],
    [
        "group.streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ],
];

/// What a configuration must fulfil as a whole, in so far as dynamic values can break it.
fn check_together(new: &Settings) -> Result<(), String> {
    for [value, minimum, maximum] in BOUNDED {
        require(new.int(value) >= new.int(minimum), || {
            format!("{value} must be greater than or equal to {minimum}")
        })?;
        require(new.int(value) <= new.int(maximum), || {
            format!("{value} must be less than or equal to {maximum}")
        })?;
    }
    let at_least = |name, minimum| number(new, name).is_none_or(|number| number >= minimum);
    let failed = |what: &str| format!("requirement failed: {what}");
    require(at_least("log.roll.ms", 1), || {
        failed("log.roll.ms must be greater than or equal to 1")
    })?;
    require(at_least("log.roll.jitter.ms", 0), || {
        failed("log.roll.jitter.ms must be greater than or equal to 0")
    })?;
    require(number(new, "log.retention.ms") != Some(0), || {
        failed("log.retention.ms must be unlimited (-1) or, greater than or equal to 1")
    })?;
    let cleaners = i64::from(new.int("log.cleaner.threads").max(1));
    require(new.long("log.cleaner.dedupe.buffer.size") / cleaners > 1024 * 1024, || {
        failed("log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")
    })?;
    let overrides = parse_overrides(new)?;
    require(new.int("max.connections.per.ip") > 0 || !overrides.is_empty(), || {
        failed(
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides \
             property is set.",
        )
    })
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.value(name)?.integer()
}

/// How far one change may go: Kafka resizes its pools step by step.
fn check_step(old: &Settings, new: &Settings) -> Result<(), String> {
    for name in [
        "num.io.threads",
        "num.replica.fetchers",
        "num.recovery.threads.per.data.dir",
        "background.threads",
        "num.network.threads",
        "remote.log.reader.threads",
        "remote.log.manager.copier.thread.pool.size",
        "remote.log.manager.expiration.thread.pool.size",
        "remote.log.manager.follower.thread.pool.size",
    ] {
        check_threads(name, old.int(name), new.int(name))?;
    }
    check_cleaners(old.int("log.cleaner.threads"), new.int("log.cleaner.threads"))?;
    check_limits(old, new)
}

/// What the parts of a broker refuse to be told.
fn check_limits(old: &Settings, new: &Settings) -> Result<(), String> {
    for name in ["max.connections", "max.connection.creation.rate"] {
        let value = new.int(name);
        require(value == old.int(name) || value > 0, || format!("Invalid {name} {value}"))?;
    }
    let cleaners = new.int("log.cleaner.threads");
    require(cleaners == old.int("log.cleaner.threads") || cleaners > 0, || {
        "Log cleaner threads should be at least 1".to_owned()
    })?;
    let before: BTreeMap<_, _> = listener_limits(old).collect();
    for (listener, value) in listener_limits(new) {
        require(value > 0 || before.get(&listener) == Some(&value), || {
            format!("Invalid max.connections {value}")
        })?;
    }
    let [before, after] = [old, new].map(TopicConfig::from_broker);
    check_local_retention("ms", old, new, [before.retention_ms, after.retention_ms])?;
    check_local_retention("bytes", old, new, [before.retention_bytes, after.retention_bytes])
}

fn check_threads(name: &str, old: i32, new: i32) -> Result<(), String> {
    let failed = |what: &str| {
        format!(
            "Dynamic thread count update validation failed for {name}={new}, value should {what}"
        )
    };
    if new == old {
        return Ok(());
    }
    require(new >= old / 2, || failed(&format!("be at least half the current value {old}")))?;
    require(i64::from(new) <= i64::from(old) * 2, || {
        failed(&format!("not be greater than double the current value {old}"))
    })
}

fn check_cleaners(old: i32, new: i32) -> Result<(), String> {
    let change = |what: &str, bound: &str| {
        format!("Log cleaner threads cannot be {what} {bound} the current value {old}")
    };
    if new == old {
        return Ok(());
    }
    require(new >= old / 2, || change("reduced to less than", "half"))?;
    require(i64::from(new) <= i64::from(old) * 2, || change("increased to more than", "double"))
}

/// What stays on this disk cannot be more than what stays at all, `total` before and after. A start is not refused for it, nor
/// may it keep other things from changing afterwards.
fn check_local_retention(
    unit: &str,
    old: &Settings,
    new: &Settings,
    [total_before, total]: [i64; 2],
) -> Result<(), String> {
    let (name, whole) = (format!("log.local.retention.{unit}"), format!("log.retention.{unit}"));
    let local = new.long(&name);
    let is_as_before = (local, total) == (old.long(&name), total_before);
    if is_as_before || total < 0 || local == AS_TOTAL {
        return Ok(());
    }
    let failed = |what: String| format!("Invalid value {local} for configuration {name}: {what}");
    require(local != UNBOUNDED, || {
        failed(format!("Value must not be -1 as {whole} value is set as {total}."))
    })?;
    require(local <= total, || {
        failed(format!("Value must not be more than {whole} property value: {total}"))
    })
}

const AS_TOTAL: i64 = -2;
const UNBOUNDED: i64 = -1;

/// Changes that Kafka carries out and this broker would only pretend to.
fn check_within_reach(old: &Settings, new: &Settings) -> Result<(), String> {
    let changed = |name: &str| old.value(name) != new.value(name);
    for name in ["listeners", "listener.security.protocol.map"] {
        require(!changed(name), || {
            format!("{name} cannot change while this broker runs: set it in the file and restart")
        })?;
    }
    let known = "org.apache.kafka.common.metrics.JmxReporter";
    // One that the file names is passed over at the start.
    if changed("metric.reporters")
        && let Some(class) = new.list("metric.reporters").iter().find(|class| *class != known)
    {
        return Err(format!("{class} is a Java class, which cannot run here: leave it out"));
    }
    new.iter()
        .filter(|(name, _)| changed(name))
        .try_for_each(|(name, setting)| check_value_honoured(name, &setting.value))
}

/// What is said against a value that no broker here could honour, and that would be shown as if it were in effect. What does
/// not parse, or needs a restart, is in effect nowhere, and is stored as Apache Kafka stores it.
///
/// # Errors
/// A sentence with the value, and what to do instead.
pub fn check_honoured(name: &str, text: &str) -> Result<(), String> {
    let Some(property) = find(Scope::Broker, name) else { return Ok(()) };
    match judge(property, text) {
        Ok(value) if property.update != Update::ReadOnly => check_value_honoured(name, &value),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_value_honoured(name: &str, value: &Value) -> Result<(), String> {
    match find(Scope::Broker, name) {
        Some(Property { status: Status::Refused(cure), default, .. })
            if Some(value.to_string().as_str()) != *default =>
        {
            Err(format!("{name}={value} cannot be honoured; {cure}"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
