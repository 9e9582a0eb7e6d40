//! Where the coordinator of a group is, and of what nobody coordinates.

use anyhow::Result;
use ottla_base::ErrorCode;
use ottla_protocol::messages::{DescribeGroupsRequest, FindCoordinatorRequest};

use super::super::both::Both;
use super::super::subject::Subject;
use super::versions;

const SEVERAL_SINCE: i16 = 4;

pub(super) fn run(both: &mut Both) -> Result<()> {
    // The first question makes Apache Kafka make the topic in which groups live.
    both.set_up(wait_for_a_coordinator)?;
    for version in versions::<FindCoordinatorRequest>() {
        both.ask(version, "a group", |_| request(version, 0, &["group"]))?;
        both.ask(version, "a group without a name", |_| request(version, 0, &[""]))?;
        for key_type in [3, -1, i8::MAX].into_iter().filter(|_| version >= 1) {
            let what = format!("coordinators of type {key_type}");
            both.ask(version, &what, |_| request(version, key_type, &["group"]))?;
        }
        if version >= SEVERAL_SINCE {
            both.ask(version, "two groups", |_| request(version, 0, &["b", "a"]))?;
            both.ask(version, "a group twice", |_| request(version, 0, &["a", "a"]))?;
            both.ask(version, "no group", |_| request(version, 0, &[]))?;
        }
    }
    Ok(())
}

fn request(version: i16, key_type: i8, keys: &[&str]) -> FindCoordinatorRequest {
    let mut request = FindCoordinatorRequest { key_type, ..Default::default() };
    if version < SEVERAL_SINCE {
        request.key = keys.first().copied().unwrap_or_default().into();
    } else {
        request.coordinator_keys = keys.iter().map(|key| (*key).into()).collect();
    }
    request
}

/// Waits until groups of every partition are coordinated.
pub(super) fn wait_for_a_coordinator(subject: &mut Subject) -> Result<()> {
    subject.wait_for("a coordinator", |subject| {
        let response = subject.expect(3, &request(3, 0, &["group"]))?;
        Ok(response.error_code == ErrorCode::NONE)
    })?;
    let groups: Vec<_> = (0..50).map(|number| format!("probe-{number}").into()).collect();
    let request = DescribeGroupsRequest { groups, ..DescribeGroupsRequest::default() };
    subject.wait_for("all coordinators", |subject| {
        let response = subject.expect(5, &request)?;
        Ok(response.groups.iter().all(|group| !group.error_code.is_error()))
    })
}
