//! Properties set, deleted, added to and replaced: what is refused, and what is described afterwards.

use anyhow::{Result, ensure};
use ottla_protocol::messages::alter_configs_request;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};

use super::super::both::Both;
use super::describe_configs::{self, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::versions;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("altered", 1, &[])?;
    for version in versions::<IncrementalAlterConfigsRequest>() {
        topic_lists(both, version)?;
        for (kind, name) in kinds(both) {
            well_formed(both, version, kind, name)?;
        }
        wrong_values(both, version)?;
        wrong_resources(both, version)?;
        log_levels(both, version)?;
    }
    for version in versions::<AlterConfigsRequest>() {
        replaced(both, version)?;
    }
    both.through_controllers(|both| {
        for version in versions::<IncrementalAlterConfigsRequest>() {
            for (kind, name) in kinds(both) {
                well_formed(both, version, kind, name)?;
            }
            wrong_values(both, version)?;
            wrong_resources(both, version)?;
            log_levels(both, version)?;
        }
        versions::<AlterConfigsRequest>().try_for_each(|version| replaced(both, version))
    })
}

/// A resource of each kind that there is.
const KINDS: &[(i8, &str)] = &[
    (TOPIC, "altered"),
    (BROKER, "1"),
    (BROKER, ""),
    (GROUP, "altered"),
    (CLIENT_METRICS, "altered"),
];

/// A controller stores for brokers whatever it is given: what brokers refuse would stay.
fn kinds(both: &Both) -> impl Iterator<Item = (i8, &'static str)> + use<> {
    let all = !both.is_through_controllers();
    KINDS.iter().copied().filter(move |(kind, _)| all || *kind != BROKER)
}

/// A property of a kind, with two values for it.
fn property(kind: i8) -> (&'static str, &'static str, &'static str) {
    match kind {
        TOPIC => ("retention.bytes", "1000", "2000"),
        BROKER => ("log.retention.bytes", "1000", "2000"),
        GROUP => ("consumer.session.timeout.ms", "46000", "47000"),
        _ => ("interval.ms", "1000", "2000"),
    }
}

type Operation<'a> = (&'a str, i8, Option<&'a str>);

fn incremental(kind: i8, name: &str, operations: &[Operation<'_>]) -> AlterConfigsResource {
    let config = |(name, operation, value): &Operation<'_>| AlterableConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(Into::into),
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: operations.iter().map(config).collect(),
    }
}

fn ask(
    both: &mut Both,
    version: i16,
    what: &str,
    resources: Vec<AlterConfigsResource>,
) -> Result<()> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
    both.ask(version, what, |_| request.clone())?;
    Ok(())
}

fn check(
    both: &mut Both,
    version: i16,
    what: &str,
    resources: Vec<AlterConfigsResource>,
) -> Result<()> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only: true };
    both.ask(version, &format!("{what}, checked only"), |_| request.clone())?;
    Ok(())
}

/// Sets properties on both, which is not compared.
pub(super) fn set_for_both(
    both: &mut Both,
    kind: i8,
    name: &str,
    pairs: &[(&str, &str)],
) -> Result<()> {
    let operations: Vec<_> = pairs.iter().map(|(key, value)| (*key, SET, Some(*value))).collect();
    change_both(both, incremental(kind, name, &operations))?;
    settle(both, kind, name, pairs)
}

/// Sets properties of both where nothing is checked, and compares the answers.
pub(super) fn set_for_both_controllers(
    both: &mut Both,
    kind: i8,
    name: &str,
    pairs: &[(&str, &str)],
) -> Result<()> {
    let operations: Vec<_> = pairs.iter().map(|(key, value)| (*key, SET, Some(*value))).collect();
    both.through_controllers(|both| {
        let resource = incremental(kind, name, &operations);
        ask(both, 1, &format!("{pairs:?}"), vec![resource])
    })?;
    settle(both, kind, name, pairs)
}

/// Deletes a property on both, which is not compared.
pub(super) fn delete_for_both(both: &mut Both, kind: i8, name: &str, key: &str) -> Result<()> {
    change_both(both, incremental(kind, name, &[(key, DELETE, None)]))?;
    until(both, kind, name, key, None)
}

fn change_both(both: &mut Both, resource: AlterConfigsResource) -> Result<()> {
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    both.set_up(|subject| {
        let response = subject.expect(1, &request)?;
        ensure!(response.responses.iter().all(|it| !it.error_code.is_error()), "{response:?}");
        Ok(())
    })
}

/// Apache Kafka answers before its broker has applied a change.
fn settle(both: &mut Both, kind: i8, name: &str, pairs: &[(&str, &str)]) -> Result<()> {
    pairs.iter().try_for_each(|(key, value)| until(both, kind, name, key, Some(value)))
}

/// Waits until a resource itself sets a property to a value, or does not set it.
fn until(both: &mut Both, kind: i8, name: &str, key: &str, value: Option<&str>) -> Result<()> {
    let own_source = match kind {
        TOPIC => 1,
        BROKER if !name.is_empty() => 2,
        BROKER => 3,
        CLIENT_METRICS => 7,
        _ => 8,
    };
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs::resource(kind, name)],
        ..Default::default()
    };
    both.set_up(|subject| {
        subject.wait_for(&format!("{key} of {name:?} to be {value:?}"), |subject| {
            let response = subject.expect(4, &request)?;
            let mut configs = response.results.iter().flat_map(|result| &result.configs);
            let own = configs.find(|it| &*it.name == key && it.config_source == own_source);
            Ok(own.map(|it| it.value.as_deref()) == value.map(Some))
        })
    })
}

fn describe(both: &mut Both, kind: i8, name: &str, what: &str) -> Result<()> {
    describe_configs::ask(both, 4, what, vec![describe_configs::resource(kind, name)])
}

fn well_formed(both: &mut Both, version: i16, kind: i8, name: &str) -> Result<()> {
    let (key, one, two) = property(kind);
    let about = format!("{kind} {name:?}");
    let change = |operations: &[Operation<'_>]| vec![incremental(kind, name, operations)];
    check(both, version, &format!("set, {about}"), change(&[(key, SET, Some(one))]))?;
    ask(both, version, &format!("set, {about}"), change(&[(key, SET, Some(one))]))?;
    settle(both, kind, name, &[(key, one)])?;
    describe(both, kind, name, &format!("what was set by v{version}, {about}"))?;
    ask(both, version, &format!("set anew, {about}"), change(&[(key, SET, Some(two))]))?;
    settle(both, kind, name, &[(key, two)])?;
    ask(both, version, &format!("set to the same, {about}"), change(&[(key, SET, Some(two))]))?;
    let steps = [
        ("null", &[(key, SET, None)][..]),
        ("a key twice", &[(key, SET, Some(one)), (key, SET, Some(two))]),
        ("a key set and deleted", &[(key, SET, Some(one)), (key, DELETE, None)]),
        ("no number", &[(key, SET, Some("x"))]),
        ("an empty value", &[(key, SET, Some(""))]),
        ("append to no list", &[(key, APPEND, Some("1"))]),
        ("subtract from no list", &[(key, SUBTRACT, Some("1"))]),
        ("append to an unknown", &[("no.such", APPEND, Some("1"))]),
        ("nothing", &[]),
        ("delete an unknown", &[("no.such", DELETE, None)]),
    ];
    for (what, operations) in steps {
        ask(both, version, &format!("{what}, {about}"), change(operations))?;
    }
    // These Apache Kafka's controller stumbles over, and resigns.
    if !both.is_through_controllers() {
        ask(both, version, &format!("append null, {about}"), change(&[(key, APPEND, None)]))?;
        let unknown = change(&[(key, 9, Some("1"))]);
        ask(both, version, &format!("an unknown operation, {about}"), unknown)?;
    }
    ask(both, version, &format!("delete, {about}"), change(&[(key, DELETE, Some("ignored"))]))?;
    until(both, kind, name, key, None)?;
    describe(both, kind, name, &format!("what v{version} has deleted, {about}"))?;
    ask(both, version, &format!("delete again, {about}"), change(&[(key, DELETE, None)]))
}

fn topic_lists(both: &mut Both, version: i16) -> Result<()> {
    let steps = [
        ("cleanup.policy", APPEND, "compact"),
        ("cleanup.policy", APPEND, "compact,delete"),
        ("cleanup.policy", SUBTRACT, "delete"),
        ("cleanup.policy", SUBTRACT, "delete,nothing"),
        ("cleanup.policy", APPEND, "shred"),
        ("cleanup.policy", APPEND, ""),
        ("cleanup.policy", SUBTRACT, "compact"),
        ("follower.replication.throttled.replicas", APPEND, "0:1,1:1"),
        ("follower.replication.throttled.replicas", APPEND, "0:1,2:1"),
        ("follower.replication.throttled.replicas", SUBTRACT, "1:1"),
        ("follower.replication.throttled.replicas", APPEND, "x"),
        ("no.such", SUBTRACT, "x"),
    ];
    for (index, (key, operation, value)) in steps.into_iter().enumerate() {
        let what = format!("{index}: {key} {operation} {value:?}");
        let change = incremental(TOPIC, "altered", &[(key, operation, Some(value))]);
        ask(both, version, &what, vec![change])?;
        both.set_up(|subject| subject.wait_until_usable("altered", 1))?;
    }
    // A text in a request ends at 32,767 bytes, but a list can grow beyond.
    let pairs = |range: std::ops::Range<i32>| {
        range.map(|partition| format!("{partition}:1")).collect::<Vec<_>>().join(",")
    };
    for (operation, range) in [(SET, 0..4000), (APPEND, 4000..8000), (SET, 0..1)] {
        let what = format!("{} replicas {operation}", range.len());
        let key = "leader.replication.throttled.replicas";
        let change = incremental(TOPIC, "altered", &[(key, operation, Some(&pairs(range)))]);
        ask(both, version, &what, vec![change])?;
    }
    until(both, TOPIC, "altered", "leader.replication.throttled.replicas", Some("0:1"))?;
    until(both, TOPIC, "altered", "follower.replication.throttled.replicas", Some("0:1,2:1"))?;
    describe(both, TOPIC, "altered", &format!("lists after v{version}"))?;
    let delete = [
        ("cleanup.policy", DELETE, None),
        ("follower.replication.throttled.replicas", DELETE, None),
        ("leader.replication.throttled.replicas", DELETE, None),
    ];
    ask(both, version, "lists deleted", vec![incremental(TOPIC, "altered", &delete)])?;
    until(both, TOPIC, "altered", "cleanup.policy", None)?;
    let policies = [
        ("log.cleanup.policy", APPEND, "compact"),
        ("log.cleanup.policy", SUBTRACT, "delete"),
        ("log.cleanup.policy", APPEND, "shred"),
        ("listeners", APPEND, "PLAINTEXT://:1"),
        ("log.dirs", APPEND, "/x"),
    ];
    for (index, (key, operation, value)) in policies.into_iter().enumerate() {
        let what = format!("{index}: the broker's {key} {operation} {value:?}, checked only");
        check(
            both,
            version,
            &what,
            vec![incremental(BROKER, "1", &[(key, operation, Some(value))])],
        )?;
    }
    Ok(())
}

/// Not every value here is refused: that is for Apache Kafka to say.
type Pairs = &'static [(&'static str, &'static str)];

const VALUES: &[(i8, &str, Pairs)] = &[
    (TOPIC, "altered", &[("no.such", "1")]),
    (TOPIC, "altered", &[("", "1")]),
    (TOPIC, "altered", &[("num.partitions", "1")]),
    (TOPIC, "altered", &[("retention.ms", "-2")]),
    (TOPIC, "altered", &[("segment.bytes", "1")]),
    (TOPIC, "altered", &[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")]),
    (TOPIC, "altered", &[("remote.storage.enable", "true")]),
    (TOPIC, "altered", &[("retention.ms", "5"), ("segment.ms", "five")]),
    (BROKER, "1", &[("no.such", "1")]),
    (BROKER, "1", &[("num.partitions", "3")]),
    (BROKER, "1", &[("node.id", "7")]),
    (BROKER, "1", &[("broker.rack", "r")]),
    (BROKER, "1", &[("auto.create.topics.enable", "false")]),
    (BROKER, "1", &[("log.retention.hours", "3")]),
    (BROKER, "1", &[("log.retention.ms", "0")]),
    (BROKER, "1", &[("log.retention.ms", "-5")]),
    (BROKER, "1", &[("log.retention.ms", "soon")]),
    (BROKER, "1", &[("log.roll.ms", "0")]),
    (BROKER, "1", &[("log.segment.bytes", "1")]),
    (BROKER, "1", &[("log.cleaner.threads", "0")]),
    (BROKER, "1", &[("log.cleaner.threads", "2")]),
    (BROKER, "1", &[("log.cleaner.threads", "3")]),
    (BROKER, "1", &[("log.cleaner.dedupe.buffer.size", "1000")]),
    (BROKER, "1", &[("log.cleaner.min.cleanable.ratio", "0.3")]),
    (BROKER, "1", &[("log.cleaner.min.cleanable.ratio", "2")]),
    (BROKER, "1", &[("num.io.threads", "16")]),
    (BROKER, "1", &[("num.io.threads", "17")]),
    (BROKER, "1", &[("num.io.threads", "3")]),
    (BROKER, "1", &[("num.io.threads", "0")]),
    (BROKER, "1", &[("num.network.threads", "6")]),
    (BROKER, "1", &[("num.network.threads", "7")]),
    (BROKER, "1", &[("num.replica.fetchers", "2")]),
    (BROKER, "1", &[("num.recovery.threads.per.data.dir", "9")]),
    (BROKER, "1", &[("background.threads", "21")]),
    (BROKER, "1", &[("max.connections", "0")]),
    (BROKER, "1", &[("max.connections.per.ip", "0")]),
    (BROKER, "1", &[("max.connections.per.ip.overrides", "127.0.0.1:100")]),
    (BROKER, "1", &[("max.connection.creation.rate", "0")]),
    (BROKER, "1", &[("message.max.bytes", "-1")]),
    (BROKER, "1", &[("compression.type", "zip")]),
    (BROKER, "1", &[("min.insync.replicas", "1")]),
    (BROKER, "1", &[("unclean.leader.election.enable", "maybe")]),
    (BROKER, "1", &[("ssl.keystore.location", "/x")]),
    (BROKER, "1", &[("ssl.client.auth", "none")]),
    (BROKER, "1", &[("listener.name.plaintext.max.connections", "100")]),
    (BROKER, "1", &[("listener.name.plaintext.max.connections", "many")]),
    (BROKER, "1", &[("listener.name.plaintext.ssl.keystore.location", "/x")]),
    (BROKER, "1", &[("leader.replication.throttled.rate", "100")]),
    (BROKER, "1", &[("leader.replication.throttled.rate", "-1")]),
    (BROKER, "1", &[("producer.id.expiration.ms", "0")]),
    (BROKER, "1", &[("transaction.partition.verification.enable", "false")]),
    (BROKER, "1", &[("group.consumer.assignment.interval.ms", "20000")]),
    (BROKER, "1", &[("group.coordinator.cached.buffer.max.bytes", "1")]),
    (BROKER, "1", &[("log.local.retention.ms", "10"), ("log.retention.ms", "5")]),
    (BROKER, "1", &[("remote.log.reader.threads", "100")]),
    (BROKER, "1", &[("log.dirs", "/x"), ("message.max.bytes", "x")]),
    (BROKER, "", &[("no.such", "1")]),
    (BROKER, "", &[("num.partitions", "3")]),
    (BROKER, "", &[("listeners", "PLAINTEXT://:1")]),
    (BROKER, "", &[("listener.name.plaintext.max.connections", "100")]),
    (BROKER, "", &[("ssl.client.auth", "none")]),
    (BROKER, "", &[("min.insync.replicas", "2")]),
    (GROUP, "altered", &[("no.such", "1")]),
    (GROUP, "altered", &[("consumer.session.timeout.ms", "44999")]),
    (GROUP, "altered", &[("consumer.session.timeout.ms", "60001")]),
    (GROUP, "altered", &[("consumer.session.timeout.ms", "0")]),
    (GROUP, "altered", &[("consumer.heartbeat.interval.ms", "4999")]),
    (GROUP, "altered", &[("consumer.heartbeat.interval.ms", "15001")]),
    (GROUP, "altered", &[("consumer.assignment.interval.ms", "15001")]),
    (GROUP, "altered", &[("share.auto.offset.reset", "earliest")]),
    (GROUP, "altered", &[("share.auto.offset.reset", "never")]),
    (GROUP, "altered", &[("share.isolation.level", "read_committed")]),
    (GROUP, "altered", &[("share.isolation.level", "dirty")]),
    (GROUP, "altered", &[("share.record.lock.duration.ms", "14999")]),
    (GROUP, "altered", &[("share.delivery.count.limit", "11")]),
    (GROUP, "altered", &[("share.partition.max.record.locks", "4001")]),
    (GROUP, "altered", &[("share.renew.acknowledge.enable", "perhaps")]),
    (GROUP, "altered", &[("streams.num.standby.replicas", "3")]),
    (GROUP, "altered", &[("streams.session.timeout.ms", "50000")]),
    (GROUP, "altered", &[("streams.initial.rebalance.delay.ms", "-1")]),
    (GROUP, "", &[("consumer.session.timeout.ms", "46000")]),
    (CLIENT_METRICS, "altered", &[("no.such", "1")]),
    (CLIENT_METRICS, "altered", &[("interval.ms", "99")]),
    (CLIENT_METRICS, "altered", &[("interval.ms", "3600001")]),
    (CLIENT_METRICS, "altered", &[("metrics", "a,b")]),
    (CLIENT_METRICS, "altered", &[("metrics", "a,a")]),
    (CLIENT_METRICS, "altered", &[("match", "client_id=a.*,client_software_name=b")]),
    (CLIENT_METRICS, "altered", &[("match", "client_id")]),
    (CLIENT_METRICS, "altered", &[("match", "client_id=a=b")]),
    (CLIENT_METRICS, "altered", &[("match", "client_id=")]),
    (CLIENT_METRICS, "altered", &[("match", "no_such=a")]),
    (CLIENT_METRICS, "", &[("interval.ms", "1000")]),
];

fn wrong_values(both: &mut Both, version: i16) -> Result<()> {
    for (kind, name, pairs) in VALUES {
        let operations: Vec<_> =
            pairs.iter().map(|(key, value)| (*key, SET, Some(*value))).collect();
        let what = format!("{kind} {name:?} {pairs:?}");
        check(both, version, &what, vec![incremental(*kind, name, &operations)])?;
    }
    Ok(())
}

fn wrong_resources(both: &mut Both, version: i16) -> Result<()> {
    let set = &[("retention.ms", SET, Some("1"))][..];
    for (kind, name) in [
        (TOPIC, "nobody-made-this"),
        (TOPIC, ""),
        (TOPIC, "a b"),
        (BROKER, "2"),
        (BROKER, "-1"),
        (BROKER, "one"),
        (0, "x"),
        (1, "x"),
        (3, ""),
        (-1, "x"),
        (127, "x"),
    ] {
        ask(
            both,
            version,
            &format!("resource {kind} {name:?}"),
            vec![incremental(kind, name, set)],
        )?;
        let what = format!("nothing of resource {kind} {name:?}");
        ask(both, version, &what, vec![incremental(kind, name, &[])])?;
    }
    let topic = |name| incremental(TOPIC, name, &[("segment.ms", SET, Some("9"))]);
    check(both, version, "a resource twice", vec![topic("altered"), topic("altered")])?;
    let thrice = vec![topic("altered"), topic("altered"), topic("altered")];
    check(both, version, "a resource thrice", thrice)?;
    let mixed = vec![topic("altered"), topic("nobody-made-this"), incremental(5, "x", &[])];
    check(both, version, "one of three resources", mixed)?;
    ask(both, version, "no resources", Vec::new())
}

fn log_levels(both: &mut Both, version: i16) -> Result<()> {
    let steps: &[(&str, &str, i8, Option<&str>)] = &[
        ("1", "root", SET, Some("WARN")),
        ("1", "root", SET, Some("INFO")),
        ("1", "root", SET, Some("warn")),
        ("1", "root", SET, Some("OFF")),
        ("1", "root", SET, None),
        ("1", "root", DELETE, None),
        ("1", "root", APPEND, Some("INFO")),
        ("1", "root", SUBTRACT, Some("INFO")),
        ("1", "root", 9, Some("INFO")),
        ("1", "no.such.logger", SET, Some("INFO")),
        ("1", "no.such.logger", DELETE, None),
        ("2", "root", SET, Some("INFO")),
        ("", "root", SET, Some("INFO")),
        ("one", "root", SET, Some("INFO")),
    ];
    for (node, logger, operation, value) in steps {
        let what = format!("level of {logger} of node {node:?}: {operation} {value:?}");
        let change = vec![incremental(BROKER_LOGGER, node, &[(logger, *operation, *value)])];
        check(both, version, &what, change.clone())?;
        ask(both, version, &what, change)?;
    }
    Ok(())
}

fn replacement(
    kind: i8,
    name: &str,
    pairs: &[(&str, Option<&str>)],
) -> alter_configs_request::AlterConfigsResource {
    let config = |(name, value): &(&str, Option<&str>)| alter_configs_request::AlterableConfig {
        name: (*name).into(),
        value: value.map(Into::into),
    };
    alter_configs_request::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: pairs.iter().map(config).collect(),
    }
}

/// What a resource is to set for itself: the cluster's min.insync.replicas, which Apache Kafka has from the start,
/// cannot be deleted there.
fn with_the_clusters<'a>(
    (kind, name): (i8, &str),
    pairs: &[(&'a str, Option<&'a str>)],
) -> Vec<(&'a str, Option<&'a str>)> {
    let is_cluster = kind == BROKER && name.is_empty();
    let clusters = is_cluster.then_some(("min.insync.replicas", Some("1")));
    pairs.iter().copied().chain(clusters).collect()
}

fn replaced(both: &mut Both, version: i16) -> Result<()> {
    let kinds: Vec<_> = kinds(both).collect();
    let mut replace = |what: &str, resources, validate_only| {
        let request = AlterConfigsRequest { resources, validate_only };
        both.ask(version, what, |_| request.clone()).map(drop)
    };
    for &(kind, name) in &kinds {
        let (key, one, _) = property(kind);
        let what = |what: &str| format!("{what}, {kind} {name:?}");
        let change = |pairs: &[(&str, Option<&str>)]| {
            vec![replacement(kind, name, &with_the_clusters((kind, name), pairs))]
        };
        replace(&what("replaced, checked only"), change(&[(key, Some(one))]), true)?;
        replace(&what("replaced"), change(&[(key, Some(one))]), false)?;
        replace(&what("null"), change(&[(key, None)]), false)?;
        replace(&what("a key twice"), change(&[(key, Some(one)), (key, Some(one))]), false)?;
        replace(&what("no number"), change(&[(key, Some("x"))]), false)?;
        replace(&what("an unknown property"), change(&[("no.such", Some("x"))]), true)?;
        replace(&what("all deleted, checked only"), change(&[]), true)?;
    }
    let log_level = replacement(BROKER_LOGGER, "1", &[("root", Some("INFO"))]);
    replace("a log level", vec![log_level], false)?;
    for (kind, name) in
        [(TOPIC, "nobody-made-this"), (TOPIC, ""), (BROKER, "2"), (0, "x"), (9, "x")]
    {
        let what = format!("resource {kind} {name:?}");
        replace(&what, vec![replacement(kind, name, &[])], false)?;
    }
    replace("no resources", Vec::new(), false)?;
    for &(kind, name) in &kinds {
        let (key, one, _) = property(kind);
        until(both, kind, name, key, Some(one))?;
        let request = AlterConfigsRequest {
            resources: vec![replacement(kind, name, &with_the_clusters((kind, name), &[]))],
            validate_only: false,
        };
        both.ask(version, &format!("all deleted, {kind} {name:?}"), |_| request.clone())?;
        until(both, kind, name, key, None)?;
        describe(both, kind, name, &format!("what is left after v{version}, {kind} {name:?}"))?;
    }
    Ok(())
}
