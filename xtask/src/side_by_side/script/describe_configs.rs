//! What is set for topics, brokers, groups and subscriptions, and where each value comes from.

use anyhow::Result;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::super::both::Both;
use super::alter_configs::{delete_for_both, set_for_both};
use super::{invalid_names, versions};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("described", 1, &[])?;
    both.create(
        "described-set",
        1,
        &[
            ("retention.ms", " 5 "),
            ("cleanup.policy", "delete , compact"),
            ("compression.type", "zstd"),
            ("min.cleanable.dirty.ratio", "1"),
            ("internal.segment.bytes", "1000000"),
        ],
    )?;
    both.through_controllers(ask_all)?;
    ask_all(both)?;
    for_one_listener(both)
}

/// What belongs to one of a listener's SASL mechanisms has the type of the property that it is about.
fn for_one_listener(both: &mut Both) -> Result<()> {
    let names = ["plain.connections.max.reauth.ms", "connections.max.reauth.ms"];
    for name in names.map(|name| format!("listener.name.sasl.{name}")) {
        set_for_both(both, BROKER, "1", &[(&name, "7")])?;
        let asked = DescribeConfigsResource {
            configuration_keys: Some(vec![name.as_str().into()]),
            ..resource(BROKER, "1")
        };
        ask(both, 4, &name, vec![asked])?;
        delete_for_both(both, BROKER, "1", &name)?;
    }
    Ok(())
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<DescribeConfigsRequest>() {
        whole(both, version)?;
        keys(both, version)?;
        min_insync_replicas(both, version)?;
        refused(both, version)?;
        log_levels(both, version)?;
    }
    Ok(())
}

pub(super) fn resource(kind: i8, name: &str) -> DescribeConfigsResource {
    DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    }
}

/// Describes with everything that can be asked for; leaves out what each broker was started with.
pub(super) fn ask(
    both: &mut Both,
    version: i16,
    what: &str,
    resources: Vec<DescribeConfigsResource>,
) -> Result<()> {
    let request = DescribeConfigsRequest {
        resources,
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    ask_for(both, version, what, &request)
}

fn ask_for(
    both: &mut Both,
    version: i16,
    what: &str,
    request: &DescribeConfigsRequest,
) -> Result<()> {
    both.ask_edited(version, what, |_, _| request.clone(), comparable)?;
    Ok(())
}

/// The properties that the launchers set, and those that only one of the two has.
fn comparable(response: &mut DescribeConfigsResponse) {
    const STARTED_WITH: &[&str] = &[
        "advertised.listeners",
        "controller.listener.names",
        "controller.quorum.bootstrap.servers",
        "listeners",
        "log.dirs",
        "log.dir.reserved.bytes",
        "log.flush.on.commit",
        // Compared in a step of its own.
        MIN_INSYNC_REPLICAS,
    ];
    for result in &mut response.results {
        result.configs.retain(|config| {
            !STARTED_WITH.contains(&&*config.name) && !config.name.starts_with("ottla.")
        });
    }
}

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

fn min_insync_replicas(both: &mut Both, version: i16) -> Result<()> {
    for (kind, name) in [(TOPIC, "described"), (BROKER, "1"), (BROKER, "")] {
        let keys = Some(vec![MIN_INSYNC_REPLICAS.into()]);
        let resource = DescribeConfigsResource { configuration_keys: keys, ..resource(kind, name) };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: false,
        };
        both.ask(version, &format!("min.insync.replicas of {kind} {name:?}"), |_| request.clone())?;
    }
    Ok(())
}

fn whole(both: &mut Both, version: i16) -> Result<()> {
    let resources = [
        (TOPIC, "described"),
        (TOPIC, "described-set"),
        (BROKER, "1"),
        (BROKER, ""),
        (GROUP, "described"),
        (CLIENT_METRICS, "described"),
    ];
    for (kind, name) in resources {
        let resources = vec![resource(kind, name)];
        ask(both, version, &format!("resource {kind} {name:?}"), resources.clone())?;
        let plain = DescribeConfigsRequest { resources, ..Default::default() };
        ask_for(both, version, &format!("resource {kind} {name:?}, values only"), &plain)?;
    }
    let resources = vec![resource(TOPIC, "described"), resource(TOPIC, "described")];
    ask(both, version, "a topic twice", resources)?;
    ask(both, version, "nothing", Vec::new())
}

fn keys(both: &mut Both, version: i16) -> Result<()> {
    let with_keys = |kind, name, keys: &[&str]| {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        vec![DescribeConfigsResource { configuration_keys: Some(keys), ..resource(kind, name) }]
    };
    for keys in [
        &[][..],
        &["retention.ms"],
        &["retention.ms", "no.such"],
        &["no.such"],
        &["retention.ms", "retention.ms"],
    ] {
        let what = format!("the topic's {keys:?}");
        ask(both, version, &what, with_keys(TOPIC, "described-set", keys))?;
    }
    for keys in [
        &["log.retention.ms", "log.retention.hours", "log.roll.ms", "log.flush.interval.ms"][..],
        &["ssl.keystore.password", "node.id", "broker.id", "num.io.threads"],
        &["leader.replication.throttled.rate"],
    ] {
        ask(both, version, &format!("the broker's {keys:?}"), with_keys(BROKER, "1", keys))?;
    }
    Ok(())
}

fn refused(both: &mut Both, version: i16) -> Result<()> {
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        ask(both, version, &format!("the invalid name {short:?}"), vec![resource(TOPIC, &name)])?;
    }
    for (kind, name) in [
        (TOPIC, "nobody-made-this"),
        (BROKER, "2"),
        (BROKER, "one"),
        (BROKER, "-1"),
        (BROKER, " 1"),
        (BROKER, "01"),
        (BROKER_LOGGER, ""),
        (BROKER_LOGGER, "2"),
        (BROKER_LOGGER, "one"),
        (GROUP, ""),
        (CLIENT_METRICS, ""),
    ] {
        let what = format!("resource {kind} {name:?}, refused");
        ask(both, version, &what, vec![resource(kind, name)])?;
    }
    for kind in [0, 1, 3, -1, 64, 127] {
        ask(both, version, &format!("the unknown type {kind}"), vec![resource(kind, "x")])?;
    }
    let mixed = vec![resource(TOPIC, "described"), resource(TOPIC, "nobody-made-this")];
    ask(both, version, "a topic and an unknown one", mixed)?;
    let spoilt = vec![resource(TOPIC, "described"), resource(9, "x")];
    ask(both, version, "a topic and an unknown type", spoilt)
}

/// Which parts a program has is its own matter; how a level is described is not.
fn log_levels(both: &mut Both, version: i16) -> Result<()> {
    let request = DescribeConfigsRequest {
        resources: vec![resource(BROKER_LOGGER, "1")],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    both.ask_edited(
        version,
        "the root of all log levels",
        |_, _| request.clone(),
        |response| {
            for result in &mut response.results {
                result.configs.retain(|config| &*config.name == "root");
                result.configs.iter_mut().for_each(|root| root.value = None);
            }
        },
    )?;
    Ok(())
}
