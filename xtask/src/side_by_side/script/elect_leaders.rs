//! Elections, of which a single broker never needs one.

use anyhow::Result;
use ottla_protocol::messages::ElectLeadersRequest;
use ottla_protocol::messages::elect_leaders_request::TopicPartitions;

use super::super::both::Both;
use super::{invalid_names, versions};

/// Before that all elections are of preferred leaders.
const TYPES_SINCE: i16 = 1;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("elected", 2, &[])?;
    ask_all(both)?;
    both.through_controllers(ask_all)
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<ElectLeadersRequest>() {
        let types = [0, 1, 2, -1, i8::MAX].into_iter().filter(|_| version >= TYPES_SINCE);
        for election_type in types.chain([0].into_iter().filter(|_| version < TYPES_SINCE)) {
            let mut ask = |topics| ask(both, version, election_type, topics);
            ask(None)?;
            ask(Some(&[]))?;
            ask(Some(&[("elected", &[0, 1])]))?;
            ask(Some(&[("elected", &[1, 1]), ("elected", &[0])]))?;
            ask(Some(&[("elected", &[2, -1])]))?;
            ask(Some(&[("elected", &[])]))?;
            ask(Some(&[("nobody-made-this", &[0]), ("elected", &[0])]))?;
            ask(Some(&[("__cluster_metadata", &[0])]))?;
            for timeout_ms in [0, -1] {
                let mut ask = |topics| ask_within(both, version, election_type, topics, timeout_ms);
                ask(None)?;
                ask(Some(&[]))?;
                ask(Some(&[("elected", &[1, 1]), ("nobody-made-this", &[])]))?;
            }
        }
        for name in invalid_names() {
            ask(both, version, 0, Some(&[(&name, &[0])]))?;
        }
    }
    Ok(())
}

fn ask(
    both: &mut Both,
    version: i16,
    election_type: i8,
    topics: Option<&[(&str, &[i32])]>,
) -> Result<()> {
    ask_within(both, version, election_type, topics, 10_000)
}

fn ask_within(
    both: &mut Both,
    version: i16,
    election_type: i8,
    topics: Option<&[(&str, &[i32])]>,
    timeout_ms: i32,
) -> Result<()> {
    let topic = |(topic, partitions): &(&str, &[i32])| TopicPartitions {
        topic: (*topic).into(),
        partitions: partitions.to_vec(),
    };
    let request = ElectLeadersRequest {
        election_type,
        topic_partitions: topics.map(|topics| topics.iter().map(topic).collect()),
        timeout_ms,
    };
    let what = format!("type {election_type}, {topics:?}, in {timeout_ms} ms");
    both.ask(version, &what, |_| request.clone())?;
    Ok(())
}
