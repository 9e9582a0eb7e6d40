//! Topics made by hand, checked only, and refused for each reason that there is.

use anyhow::Result;
use ottla_protocol::messages::CreateTopicsRequest;
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};

use super::super::both::Both;
use super::{invalid_names, versions};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("create-existing", 1, &[])?;
    both.create("create.collision", 1, &[])?;
    for version in versions::<CreateTopicsRequest>() {
        made(both, version)?;
        counts(both, version)?;
        names(both, version)?;
        assignments(both, version)?;
        configs(both, version)?;
    }
    Ok(())
}

fn ask(both: &mut Both, version: i16, what: &str, topics: Vec<CreatableTopic>) -> Result<()> {
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
    ask_for(both, version, what, &request)
}

fn check(both: &mut Both, version: i16, what: &str, topics: Vec<CreatableTopic>) -> Result<()> {
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: true };
    ask_for(both, version, &format!("{what}, checked only"), &request)
}

fn ask_for(both: &mut Both, version: i16, what: &str, request: &CreateTopicsRequest) -> Result<()> {
    both.ask(version, what, |_| request.clone())?;
    Ok(())
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn made(both: &mut Both, version: i16) -> Result<()> {
    let name = |what: &str| format!("create-{version}-{what}");
    check(both, version, "two topics", vec![topic(&name("a"), 3, 1), topic(&name("b"), 1, 1)])?;
    ask(both, version, "two topics", vec![topic(&name("a"), 3, 1), topic(&name("b"), 1, 1)])?;
    both.set_up(|subject| subject.wait_until_usable(&name("a"), 3))?;
    ask(both, version, "a topic that is there", vec![topic("create-existing", 1, 1)])?;
    check(both, version, "a topic that is there", vec![topic("create-existing", 1, 1)])?;
    ask(
        both,
        version,
        "a topic that is there, and one that is not",
        vec![topic("create-existing", 1, 1), topic(&name("c"), 1, 1)],
    )?;
    let twice = vec![topic(&name("d"), 1, 1), topic(&name("d"), 2, 1), topic(&name("e"), 1, 1)];
    ask(both, version, "a topic twice, and another one", twice)?;
    ask(both, version, "no topics", Vec::new())?;
    Ok(())
}

fn counts(both: &mut Both, version: i16) -> Result<()> {
    for (partitions, factor) in
        [(-1, -1), (-1, 1), (2, -1), (0, 1), (-2, 1), (1, 0), (1, -2), (1, 2), (-1, 0), (0, 0)]
    {
        let what = format!("{partitions} partitions, replication factor {factor}");
        let name = format!("create-{version}-counts{partitions}{factor}");
        check(both, version, &what, vec![topic(&name, partitions, factor)])?;
        ask(both, version, &what, vec![topic(&name, partitions, factor)])?;
    }
    check(both, version, "too many partitions", vec![topic("create-many", 10_001, 1)])?;
    check(both, version, "far too many partitions", vec![topic("create-many", i32::MAX, 1)])?;
    let request = CreateTopicsRequest {
        topics: vec![topic(&format!("create-{version}-impatient"), 1, 1)],
        timeout_ms: 0,
        validate_only: true,
    };
    ask_for(both, version, "no time to wait, checked only", &request)?;
    let name = format!("create-{version}-impatient");
    let request =
        |timeout_ms, topics| CreateTopicsRequest { topics, timeout_ms, validate_only: false };
    let metadata_log = || topic("__cluster_metadata", 1, 1);
    for timeout_ms in [0, -1] {
        let mut ask = |what: &str, topics| {
            ask_for(
                both,
                version,
                &format!("{what}, in {timeout_ms} ms"),
                &request(timeout_ms, topics),
            )
        };
        ask("a topic", vec![topic(&name, 1, 1)])?;
        ask("a topic twice", vec![topic(&name, 1, 1), topic(&name, 1, 1)])?;
        let three = vec![topic(&name, 1, 1), topic(&name, 1, 1), topic("create-existing", 1, 1)];
        ask("a topic twice, and one that is there", three)?;
        ask("the metadata log", vec![metadata_log()])?;
        ask("the metadata log, and a topic", vec![metadata_log(), topic(&name, 1, 1)])?;
        ask("no topics", Vec::new())?;
    }
    // None was made.
    ask(both, version, "a topic that was asked for in no time", vec![topic(&name, 1, 1)])
}

fn names(both: &mut Both, version: i16) -> Result<()> {
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        ask(both, version, &format!("the invalid name {short:?}"), vec![topic(&name, 1, 1)])?;
    }
    ask(both, version, "a name that collides", vec![topic("create_collision", 1, 1)])?;
    ask(
        both,
        version,
        "names that collide with each other",
        vec![
            topic(&format!("create-{version}.pair"), 1, 1),
            topic(&format!("create-{version}_pair"), 1, 1),
        ],
    )?;
    ask(both, version, "the metadata log's name", vec![topic("__cluster_metadata", 1, 1)])?;
    Ok(())
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(partition_index, broker_ids): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: broker_ids.to_vec(),
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic(name, -1, -1)
    }
}

fn assignments(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("create-{version}-assigned");
    let mut wrong = |what: &str, assignments: &[(i32, &[i32])]| {
        check(both, version, what, vec![assigned(&name, assignments)])
    };
    wrong("an unknown broker", &[(0, &[99])])?;
    wrong("a broker twice", &[(0, &[1, 1])])?;
    wrong("a negative broker", &[(0, &[-1])])?;
    wrong("no replicas", &[(0, &[])])?;
    wrong("a gap between partitions", &[(0, &[1]), (2, &[1])])?;
    wrong("partitions that begin at 1", &[(1, &[1])])?;
    wrong("a negative partition", &[(-1, &[1])])?;
    wrong("a partition twice", &[(0, &[1]), (0, &[1])])?;
    wrong("different replication factors", &[(0, &[1]), (1, &[1, 99])])?;
    wrong("in another order", &[(1, &[1]), (0, &[1])])?;
    ask(both, version, "an assignment", vec![assigned(&name, &[(0, &[1]), (1, &[1])])])?;
    for (partitions, factor) in [(2, -1), (-1, 1), (2, 1), (5, 3)] {
        let topic = CreatableTopic {
            num_partitions: partitions,
            replication_factor: factor,
            ..assigned("create-assigned-counted", &[(0, &[1]), (1, &[1])])
        };
        let what = format!("an assignment and counts {partitions}, {factor}");
        check(both, version, &what, vec![topic])?;
    }
    Ok(())
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: (*name).into(),
        value: value.map(Into::into),
    };
    CreatableTopic { configs: configs.iter().map(config).collect(), ..topic(name, 1, 1) }
}

fn configs(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("create-{version}-configured");
    let good = [
        ("cleanup.policy", Some("compact,delete")),
        ("retention.ms", Some("1000")),
        ("compression.type", Some("zstd")),
        ("max.message.bytes", Some("2000")),
        ("message.timestamp.type", Some("LogAppendTime")),
        ("min.insync.replicas", Some("2")),
        ("segment.bytes", Some("1048576")),
        ("preallocate", Some("true")),
        ("unclean.leader.election.enable", Some("TRUE")),
    ];
    check(both, version, "good configuration", vec![configured(&name, &good)])?;
    ask(both, version, "good configuration", vec![configured(&name, &good)])?;
    let mut wrong = |what: &str, configs: &[(&str, Option<&str>)]| {
        check(both, version, what, vec![configured(&format!("{name}-wrong"), configs)])
    };
    wrong("an unknown property", &[("no.such.property", Some("1"))])?;
    wrong("a broker's property", &[("num.partitions", Some("1"))])?;
    wrong("an empty property name", &[("", Some("1"))])?;
    wrong("null for a value", &[("retention.ms", None)])?;
    wrong("null for an unknown property's value", &[("no.such.property", None)])?;
    wrong("one property twice", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))])?;
    for (property, value) in WRONG_VALUES {
        wrong(&format!("{property}={value}"), &[(property, Some(value))])?;
    }
    check(
        both,
        version,
        "one good and one badly configured topic",
        vec![
            configured(&format!("{name}-good"), &[("retention.ms", Some("5"))]),
            configured(&format!("{name}-bad"), &[("retention.ms", Some("five"))]),
        ],
    )
}

/// Not every value here is refused: that is for Apache Kafka to say.
const WRONG_VALUES: &[(&str, &str)] = &[
    ("retention.ms", "five"),
    ("retention.ms", ""),
    ("retention.ms", "-2"),
    ("retention.ms", " 5 "),
    ("retention.ms", "5.0"),
    ("retention.ms", "99999999999999999999"),
    ("retention.bytes", "-3"),
    ("cleanup.policy", "shred"),
    ("cleanup.policy", ""),
    ("cleanup.policy", "compact,compact"),
    ("cleanup.policy", " delete , compact "),
    ("compression.type", "zip"),
    ("compression.type", "ZSTD"),
    ("compression.gzip.level", "10"),
    ("compression.zstd.level", "23"),
    ("compression.lz4.level", "0"),
    ("max.message.bytes", "-1"),
    ("max.message.bytes", "2147483648"),
    ("message.timestamp.type", "Whenever"),
    ("min.insync.replicas", "0"),
    ("min.cleanable.dirty.ratio", "1.1"),
    ("min.cleanable.dirty.ratio", "half"),
    ("segment.bytes", "13"),
    ("segment.ms", "0"),
    ("segment.index.bytes", "3"),
    ("index.interval.bytes", "-1"),
    ("preallocate", "yes"),
    ("unclean.leader.election.enable", "1"),
    ("delete.retention.ms", "-1"),
    ("file.delete.delay.ms", "-1"),
    ("flush.messages", "0"),
    ("flush.ms", "-1"),
    ("message.timestamp.before.max.ms", "-1"),
    ("message.timestamp.difference.max.ms", "1"),
    ("message.format.version", "3.0"),
    ("follower.replication.throttled.replicas", "x"),
    ("leader.replication.throttled.replicas", "*"),
    ("remote.storage.enable", "true"),
    ("local.retention.ms", "-3"),
];
