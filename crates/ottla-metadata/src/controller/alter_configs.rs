//! AlterConfigs and IncrementalAlterConfigs: what is set for topics, brokers, groups and client metrics. Pure.
//!
//! Each resource is changed wholly or not at all. What a broker checks before it hands a change to its controller is
//! checked here, too, for changes that came through a broker's listener; the controller itself takes any broker
//! property, as Kafka's does.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode};
use ottla_config::client_metrics::{InvalidSubscription, check_subscription};
use ottla_config::dynamic::{Reach, check_change, check_honoured};
use ottla_config::group::check_group;
use ottla_config::property::{Kind, Property, Scope};
use ottla_config::table::find;
use ottla_protocol::records::ConfigRecord;

use super::partition_change::MIN_INSYNC_REPLICAS;
use super::policy::InEffect;
use super::{Outcome, Policy, RECORDS_MAX, Rejection, eligible};
use crate::MetadataRecord;
use crate::delta::ConfigResource;
use crate::image::Image;
use crate::topic_name;

/// The longest value of a configuration, in UTF-16 units.
const VALUE_MAX: usize = 32_767;

/// Which kind of listener a change came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// That of the broker that decides.
    Broker,
    /// The same, where it serves controllers as well: whoever asks the active controller means other brokers, too.
    Shared,
    /// That of another broker, which has looked at it with [`check_own_configs`] and carried it here.
    AnotherBroker,
    Controller,
}

/// What is to become of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The type code of Kafka's protocol, known or not.
    pub kind: i8,
    pub name: ByteString,
    pub operations: Vec<Operation>,
    /// What no operation names is deleted.
    pub replaces_all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub key: ByteString,
    /// The code of Kafka's protocol, known or not.
    pub code: i8,
    pub value: Option<ByteString>,
}

impl Operation {
    pub const SET: i8 = 0;
    pub const DELETE: i8 = 1;
    pub const APPEND: i8 = 2;
    pub const SUBTRACT: i8 = 3;
}

/// What came of the change of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigAnswer {
    pub kind: i8,
    pub name: ByteString,
    pub rejection: Option<Rejection>,
}

impl ConfigAnswer {
    #[must_use]
    pub fn of(change: &ConfigChange, rejection: Option<Rejection>) -> Self {
        Self { kind: change.kind, name: change.name.clone(), rejection }
    }
}

/// Looks at changes as a broker does before it looks at what they are about: why each is refused, if it is.
#[must_use]
pub fn screen_config_changes(changes: &[ConfigChange]) -> Vec<Option<Rejection>> {
    let mut times = BTreeMap::<(i8, &str), usize>::new();
    for change in changes {
        *times.entry((change.kind, &change.name)).or_default() += 1;
    }
    let screen = |change: &ConfigChange| {
        if times.get(&(change.kind, &change.name)) != Some(&1) {
            return Some(invalid_request("Each resource must appear at most once."));
        }
        screen(change).err()
    };
    changes.iter().map(screen).collect()
}

fn screen(change: &ConfigChange) -> Result<(), Rejection> {
    let mut keys = BTreeSet::new();
    if !change.operations.iter().all(|operation| keys.insert(&operation.key)) {
        return Err(invalid_request("Error due to duplicate config keys"));
    }
    let lacks_value = |it: &&Operation| it.code != Operation::DELETE && it.value.is_none();
    let nulls: Vec<&str> =
        change.operations.iter().filter(lacks_value).map(|it| &*it.key).collect();
    if !nulls.is_empty() {
        let nulls = nulls.join(", ");
        return Err(invalid_request(format!("Null value not supported for : {nulls}")));
    }
    Ok(())
}

/// Changes the resources that can be changed, and says of each other one why not.
///
/// Through a broker there is one answer for each change, in the order of the changes, which must have passed
/// [`screen_config_changes`]; through a controller there is one for each resource. `voters` elect the controllers' leader.
#[must_use]
pub fn alter_configs(
    image: &Image,
    policy: &Policy,
    voters: &[BrokerId],
    changes: &[ConfigChange],
    via: Via,
    validate_only: bool,
) -> Outcome<Vec<ConfigAnswer>> {
    let (wanted, mut answers) = match via {
        Via::Broker | Via::Shared | Via::AnotherBroker => (changes.iter().collect(), Vec::new()),
        Via::Controller => sort_out(changes),
    };
    let decider = Decider { image, policy, voters, via, in_effect: policy.in_effect(image) };
    let mut records = Vec::new();
    for &change in &wanted {
        let decided = decider.decide(change);
        let rejection = decided.map(|decided| records.extend(decided)).err();
        answers.push(ConfigAnswer::of(change, rejection));
    }
    records.extend(eligible::after_config_changes(image, &records));
    if records.len() > RECORDS_MAX {
        let refusal = Rejection::too_many_records();
        let refuse = |change: &ConfigChange| ConfigAnswer::of(change, Some(refusal.clone()));
        return Outcome::unchanged(changes.iter().map(refuse).collect());
    }
    let records = if validate_only { Vec::new() } else { records };
    Outcome { records, reply: answers }
}

/// What a controller looks at, and what it answers at once: of a resource named twice it changes nothing.
fn sort_out(changes: &[ConfigChange]) -> (Vec<&ConfigChange>, Vec<ConfigAnswer>) {
    let mut by_resource = BTreeMap::<(i8, &str), Vec<&ConfigChange>>::new();
    for change in changes {
        by_resource.entry((change.kind, &change.name)).or_default().push(change);
    }
    let (mut wanted, mut answers) = (Vec::new(), Vec::new());
    for ((kind, _), named) in by_resource {
        let refusal = if !is_resource(kind) {
            let message = format!("Unknown resource type {kind}.");
            Rejection::new(ErrorCode::UNSUPPORTED_VERSION, message)
        } else if named.len() > 1 {
            invalid_request("Duplicate resource.")
        } else if kind == ConfigResource::BROKER_LOGGER {
            invalid_request("Unexpected resource type BROKER_LOGGER.")
        } else {
            wanted.extend(named);
            continue;
        };
        let times = if is_resource(kind) { 1 } else { named.len() };
        let named = named.into_iter().take(times);
        answers.extend(named.map(|change| ConfigAnswer::of(change, Some(refusal.clone()))));
    }
    (wanted, answers)
}

fn is_resource(kind: i8) -> bool {
    ConfigResource::KINDS.contains(&kind)
}

/// What the changes of one request are decided with.
struct Decider<'a> {
    image: &'a Image,
    policy: &'a Policy,
    voters: &'a [BrokerId],
    via: Via,
    in_effect: InEffect,
}

impl Decider<'_> {
    fn decide(&self, change: &ConfigChange) -> Result<Vec<MetadataRecord>, Rejection> {
        let Self { image, policy, via, .. } = self;
        let resource = ConfigResource { kind: change.kind, name: (&*change.name).into() };
        if matches!(via, Via::Broker | Via::Shared) {
            check_own_configs(image, policy, change, *via)?;
        }
        let current: Properties = owned(image.config(&resource));
        let (wanted, touched) = apply(change, &current, &controller_list_default)?;
        let is_change = |key: &&String| {
            // A broker's record is written even where nothing changes: files that it names are read anew.
            resource.kind == ConfigResource::BROKER || current.get(*key) != wanted.get(*key)
        };
        let deleted = current.keys().filter(|key| !wanted.contains_key(*key));
        let written: BTreeSet<&String> = touched.iter().filter(is_change).chain(deleted).collect();
        if image.has_eligible_leader_replicas()
            && written.iter().any(|key| *key == MIN_INSYNC_REPLICAS)
        {
            check_min_isr(&resource, wanted.contains_key(MIN_INSYNC_REPLICAS))?;
        }
        if resource.kind == ConfigResource::BROKER && *via != Via::AnotherBroker {
            check_unseen(&current, &wanted, &written)?;
        }
        if wanted.values().any(|value| value.encode_utf16().count() > VALUE_MAX) {
            return Err(invalid_config(format!(
                "The configuration value cannot be added because it exceeds the maximum value size \
                 of {VALUE_MAX} bytes."
            )));
        }
        self.validate(&resource, &wanted)?;
        self.check_exists(&resource)?;
        let record =
            |key: &String| config_record(&resource, key, wanted.get(key).map(String::as_str));
        Ok(written.into_iter().map(record).collect())
    }

    /// Everything that the resource will set for itself must be allowed, not only what is new.
    fn validate(&self, resource: &ConfigResource, wanted: &Properties) -> Result<(), Rejection> {
        match resource.kind {
            ConfigResource::TOPIC => {
                if resource.name.is_empty() {
                    return Err(invalid_request("Default topic resources are not allowed."));
                }
                let invalid = |message| Rejection::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
                topic_name::validate(&resource.name).map_err(invalid)?;
                let overrides = wanted.iter().map(|(key, value)| (&**key, Some(&**value)));
                let checked = self.in_effect.topic_defaults.validate_overrides(overrides);
                checked.map(drop).map_err(|error| invalid_config(error.to_string()))
            }
            ConfigResource::BROKER => check_broker_name(&resource.name),
            ConfigResource::CLIENT_METRICS if resource.name.is_empty() => {
                Err(invalid_request("Subscription name can't be empty"))
            }
            ConfigResource::CLIENT_METRICS => check_subscription(wanted).map_err(|why| match why {
                InvalidSubscription::Request(message) => invalid_request(message),
                InvalidSubscription::Config(message) => invalid_config(message),
            }),
            ConfigResource::GROUP if resource.name.is_empty() => {
                Err(invalid_request("Default group resources are not allowed."))
            }
            ConfigResource::GROUP => {
                check_group(&self.in_effect.settings, wanted).map_err(invalid_config)
            }
            other => Err(invalid_request(format!("Unknown resource type {other}"))),
        }
    }

    /// Groups and subscriptions may be configured before anybody uses them.
    fn check_exists(&self, resource: &ConfigResource) -> Result<(), Rejection> {
        let name = &resource.name;
        match resource.kind {
            ConfigResource::TOPIC if self.image.topic_by_name(name).is_none() => {
                let message = format!("The topic '{name}' does not exist.");
                Err(Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message))
            }
            ConfigResource::BROKER => match name.parse().map(BrokerId) {
                Ok(id) if !self.is_node(id) => {
                    let message = format!("No node with id {id} found.");
                    Err(Rejection::new(ErrorCode::BROKER_ID_NOT_REGISTERED, message))
                }
                Ok(_) | Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Controllers, too, whoever of them decides: a static voter may be down, and have registered never.
    fn is_node(&self, id: BrokerId) -> bool {
        self.image.broker(id).is_some()
            || self.voters.contains(&id)
            || self.image.controllers().any(|controller| controller.id == id.0)
    }
}

/// What the broker that a change is about has not looked at. A controller knows directories by their ids alone: of those that
/// are cordoned it lets some be taken away. And nobody sets what no broker could honour.
fn check_unseen(
    current: &Properties,
    wanted: &Properties,
    written: &BTreeSet<&String>,
) -> Result<(), Rejection> {
    for &key in written {
        let Some(value) = wanted.get(key) else { continue };
        if key == CORDONED_LOG_DIRS {
            check_cordoned(current.get(key), value)?;
        } else {
            check_honoured(key, value).map_err(invalid_config)?;
        }
    }
    Ok(())
}

const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";

fn check_cordoned(current: Option<&String>, wanted: &str) -> Result<(), Rejection> {
    let current: BTreeSet<&str> =
        current.into_iter().flat_map(|text| text.split(',')).map(str::trim).collect();
    if wanted.trim().is_empty() || wanted.split(',').all(|it| current.contains(it.trim())) {
        return Ok(());
    }
    Err(invalid_config(format!(
        "When updating {CORDONED_LOG_DIRS} via controllers,  the new value must be a subset of the \
         current configuration value."
    )))
}

/// Who has all that was acknowledged depends on one `min.insync.replicas`, which must be the same for all brokers.
fn check_min_isr(resource: &ConfigResource, is_set: bool) -> Result<(), Rejection> {
    let what = match (resource.kind, &*resource.name) {
        (ConfigResource::BROKER, "") if is_set => return Ok(()),
        (ConfigResource::BROKER, "") => "Cluster-level min.insync.replicas cannot be removed",
        (ConfigResource::BROKER, _) => "Broker-level min.insync.replicas cannot be altered",
        _ => return Ok(()),
    };
    Err(invalid_config(format!("{what} while ELR is enabled.")))
}

type Properties = BTreeMap<String, String>;

fn owned<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Properties {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The default of a key that holds a list, or why nothing can be added to the key.
type ListDefault<'a> = &'a dyn Fn(&ConfigChange, &Operation) -> Result<Vec<String>, Rejection>;

/// What is set after the operations, and the keys that they name.
fn apply(
    change: &ConfigChange,
    current: &Properties,
    list_default: ListDefault<'_>,
) -> Result<(Properties, BTreeSet<String>), Rejection> {
    let mut wanted = if change.replaces_all { Properties::new() } else { current.clone() };
    let mut touched = BTreeSet::new();
    for operation in &change.operations {
        let key = operation.key.to_string();
        let value = operation.value.as_deref().unwrap_or_default();
        match operation.code {
            Operation::SET if operation.value.is_some() => {
                wanted.insert(key.clone(), value.to_owned());
            }
            // To set nothing is to delete; a broker lets no such change through.
            Operation::SET | Operation::DELETE => {
                wanted.remove(&key);
            }
            Operation::APPEND | Operation::SUBTRACT => {
                let default = list_default(change, operation)?;
                let items = current.get(&key).map_or(default, |text| split(text));
                let items = edit(items, operation.code, &operands(value));
                wanted.insert(key.clone(), items.join(","));
            }
            code => return Err(invalid_request(format!("Unknown operations type {code}"))),
        }
        touched.insert(key);
    }
    Ok((wanted, touched))
}

fn split(text: &str) -> Vec<String> {
    text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// As Java splits: an empty text is one empty piece, and empty pieces at the end do not count.
fn operands(text: &str) -> Vec<&str> {
    let mut pieces: Vec<&str> = text.split(',').collect();
    while !text.is_empty() && pieces.last().is_some_and(|piece| piece.is_empty()) {
        pieces.pop();
    }
    pieces
}

/// Adds what is not there, or takes each operand away once, where it is first. A request may bring thousands of operands for a
/// list of thousands, so that neither is searched.
fn edit(mut items: Vec<String>, code: i8, operands: &[&str]) -> Vec<String> {
    if code == Operation::APPEND {
        let mut present: BTreeSet<&str> = items.iter().map(String::as_str).collect();
        let new = operands.iter().copied().filter(|operand| present.insert(operand));
        let new: Vec<String> = new.map(str::to_owned).collect();
        items.extend(new);
        return items;
    }
    let mut removals = BTreeMap::<&str, usize>::new();
    for operand in operands {
        *removals.entry(operand).or_default() += 1;
    }
    items.retain(|item| match removals.get_mut(item.as_str()) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        Some(_) | None => true,
    });
    items
}

/// Kafka's controller knows the properties of brokers and topics only.
fn controller_list_default(
    change: &ConfigChange,
    operation: &Operation,
) -> Result<Vec<String>, Rejection> {
    let scope = match change.kind {
        ConfigResource::TOPIC => Some(Scope::Topic),
        ConfigResource::BROKER => Some(Scope::Broker),
        _ => None,
    };
    let key = &operation.key;
    list_of(scope.and_then(|scope| find(scope, key))).ok_or_else(|| {
        let verb = if operation.code == Operation::APPEND { "APPEND" } else { "SUBTRACT" };
        invalid_config(format!("Can't {verb} to key {key} because its type is not LIST."))
    })
}

fn broker_list_default(_: &ConfigChange, operation: &Operation) -> Result<Vec<String>, Rejection> {
    let key = &operation.key;
    let property = find(Scope::Broker, key)
        .ok_or_else(|| invalid_config(format!("Unknown config name: {key}")))?;
    list_of(Some(property)).ok_or_else(|| {
        let verb = if operation.code == Operation::APPEND { "append" } else { "subtract" };
        invalid_config(format!("Config value {verb} is not allowed for config key: {key}"))
    })
}

fn list_of(property: Option<&Property>) -> Option<Vec<String>> {
    let property = property.filter(|property| property.kind == Kind::List)?;
    Some(split(property.default.unwrap_or_default()))
}

/// What a broker checks before it hands a change to its controller: it knows its own properties better, and looks at no
/// other broker's: those it refuses, unless they came through a listener that is a controller's as well.
///
/// # Errors
/// INVALID_REQUEST, INVALID_CONFIG
pub fn check_own_configs(
    image: &Image,
    policy: &Policy,
    change: &ConfigChange,
    via: Via,
) -> Result<(), Rejection> {
    match change.kind {
        ConfigResource::TOPIC | ConfigResource::CLIENT_METRICS | ConfigResource::GROUP => Ok(()),
        ConfigResource::BROKER
            if via == Via::Shared && is_another_broker(policy.node_id, &change.name) =>
        {
            Ok(())
        }
        ConfigResource::BROKER => {
            let reach = if change.name.is_empty() { Reach::AllBrokers } else { Reach::ThisBroker };
            if reach == Reach::ThisBroker {
                check_is_this_broker(policy.node_id, &change.name)?;
            }
            let dynamic = policy.dynamic(image);
            let (wanted, _) = apply(change, dynamic.of(reach), &broker_list_default)?;
            check_change(&policy.settings, &dynamic, reach, &wanted).map_err(invalid_request)
        }
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

fn is_another_broker(node_id: BrokerId, name: &str) -> bool {
    name.parse().is_ok_and(|id| BrokerId(id) != node_id)
}

fn check_is_this_broker(node_id: BrokerId, name: &str) -> Result<(), Rejection> {
    let id: i32 = name
        .parse()
        .map_err(|_| invalid_request(format!("Node id must be an integer, but it is: {name}")))?;
    if BrokerId(id) == node_id {
        return Ok(());
    }
    let message = format!("Unexpected broker id, expected {node_id}, but received {name}");
    Err(invalid_request(message))
}

fn check_broker_name(name: &str) -> Result<(), Rejection> {
    match name.parse::<i32>() {
        _ if name.is_empty() => Ok(()),
        Ok(0..) => Ok(()),
        Ok(_) => Err(invalid_request("Invalid negative broker ID.")),
        Err(_) => Err(invalid_request("Unable to parse broker name as a base 10 number.")),
    }
}

fn config_record(resource: &ConfigResource, key: &str, value: Option<&str>) -> MetadataRecord {
    ConfigRecord {
        resource_type: resource.kind,
        resource_name: (&*resource.name).into(),
        name: key.into(),
        value: value.map(Into::into),
    }
    .into()
}

fn invalid_request(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::INVALID_REQUEST, message)
}

fn invalid_config(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::INVALID_CONFIG, message)
}

#[cfg(test)]
mod tests;
