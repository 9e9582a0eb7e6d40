//! Topics that grow: by counts, by assignments, and not for each reason that there is.

use anyhow::Result;
use ottla_protocol::messages::CreatePartitionsRequest;
use ottla_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};

use super::super::both::Both;
use super::{batches, invalid_names, produce_request, versions};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("grow-three", 3, &[])?;
    for version in versions::<CreatePartitionsRequest>() {
        grown(both, version)?;
        refused(both, version)?;
    }
    both.through_controllers(|both| {
        versions::<CreatePartitionsRequest>().try_for_each(|version| refused(both, version))
    })
}

fn ask(
    both: &mut Both,
    version: i16,
    what: &str,
    topics: Vec<CreatePartitionsTopic>,
) -> Result<()> {
    let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: false };
    both.ask(version, what, |_| request.clone())?;
    Ok(())
}

fn check(
    both: &mut Both,
    version: i16,
    what: &str,
    topics: Vec<CreatePartitionsTopic>,
) -> Result<()> {
    let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: true };
    both.ask(version, &format!("{what}, checked only"), |_| request.clone())?;
    Ok(())
}

fn topic(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic { name: name.into(), count, assignments: None }
}

fn assigned(name: &str, count: i32, assignments: &[&[i32]]) -> CreatePartitionsTopic {
    let assignment = |ids: &&[i32]| CreatePartitionsAssignment { broker_ids: ids.to_vec() };
    let assignments = Some(assignments.iter().map(assignment).collect());
    CreatePartitionsTopic { assignments, ..topic(name, count) }
}

fn grown(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("grow-{version}");
    both.create(&name, 1, &[])?;
    check(both, version, "to three", vec![topic(&name, 3)])?;
    ask(both, version, "to three", vec![topic(&name, 3)])?;
    both.set_up(|subject| subject.wait_until_usable(&name, 3))?;
    both.ask(12, "a batch for a new partition", |subject| {
        produce_request(subject, 12, &name, 2, Some(batches::three()))
    })?;
    ask(both, version, "to where it is", vec![topic(&name, 3)])?;
    ask(both, version, "by assignments", vec![assigned(&name, 5, &[&[1], &[1]])])?;
    both.set_up(|subject| subject.wait_until_usable(&name, 5))?;
    let mixed = vec![topic(&name, 6), topic("nobody-made-this", 2), topic("grow-three", 3)];
    ask(both, version, "one of three topics", mixed)?;
    both.set_up(|subject| subject.wait_until_usable(&name, 6))
}

fn refused(both: &mut Both, version: i16) -> Result<()> {
    for count in [3, 2, 1, 0, -1, i32::MIN] {
        ask(
            both,
            version,
            &format!("three partitions to {count}"),
            vec![topic("grow-three", count)],
        )?;
    }
    ask(both, version, "a topic twice", vec![topic("grow-three", 4), topic("grow-three", 5)])?;
    ask(both, version, "no topics", Vec::new())?;
    ask(both, version, "an unknown topic", vec![topic("nobody-made-this", 2)])?;
    ask(both, version, "the metadata log", vec![topic("__cluster_metadata", 2)])?;
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        ask(both, version, &format!("the invalid name {short:?}"), vec![topic(&name, 2)])?;
    }
    check(both, version, "far too many", vec![topic("grow-three", 10_004)])?;
    let assignments: &[(&str, &[&[i32]])] = &[
        ("no assignments", &[]),
        ("too few assignments", &[&[1]]),
        ("too many assignments", &[&[1], &[1], &[1]]),
        ("an unknown broker", &[&[1], &[99]]),
        ("a negative broker", &[&[1], &[-1]]),
        ("no replicas", &[&[1], &[]]),
        ("a broker twice", &[&[1], &[1, 1]]),
        ("another replication factor", &[&[1], &[1, 99]]),
    ];
    for (what, assignments) in assignments {
        ask(both, version, what, vec![assigned("grow-three", 5, assignments)])?;
    }
    let impatient = CreatePartitionsRequest {
        topics: vec![topic("grow-three", 4)],
        timeout_ms: 0,
        validate_only: true,
    };
    both.ask(version, "no time to wait, checked only", |_| impatient.clone())?;
    for timeout_ms in [0, -1] {
        let mut ask = |what: &str, topics| {
            let request = CreatePartitionsRequest { topics, timeout_ms, validate_only: false };
            both.ask(version, &format!("{what}, in {timeout_ms} ms"), |_| request.clone()).map(drop)
        };
        ask("four partitions", vec![topic("grow-three", 4)])?;
        ask("a topic twice", vec![topic("grow-three", 4), topic("grow-three", 5)])?;
        ask("no topics", Vec::new())?;
    }
    // It has three still.
    check(both, version, "to three", vec![topic("grow-three", 3)])
}
