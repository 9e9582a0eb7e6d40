//! Partitions of topics, page by page.

use anyhow::Result;
use ottla_protocol::messages::DescribeTopicPartitionsRequest;
use ottla_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};

use super::super::both::Both;
use super::{invalid_names, versions};

const A: &str = "describe-a";
const B: &str = "describe-b";
const C: &str = "describe-c";

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create(A, 3, &[])?;
    both.create(B, 5, &[])?;
    both.create(C, 1, &[])?;
    for version in versions::<DescribeTopicPartitionsRequest>() {
        pages(both, version)?;
        cursors(both, version)?;
        errors(both, version)?;
    }
    Ok(())
}

fn request(
    topics: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsRequest {
    DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| TopicRequest { name: (*name).into() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic_name, partition_index)| Cursor {
            topic_name: topic_name.into(),
            partition_index,
        }),
    }
}

fn pages(both: &mut Both, version: i16) -> Result<()> {
    for limit in [2000, 5000, 9, 8, 4, 3, 2, 1, 0, -1, i32::MAX, i32::MIN] {
        both.ask(version, &format!("a limit of {limit}"), |_| request(&[C, A, B], limit, None))?;
    }
    both.ask(version, "a topic twice", |_| request(&[A, A], 2000, None))?;
    Ok(())
}

fn cursors(both: &mut Both, version: i16) -> Result<()> {
    for (topic, partition) in [
        (A, 0),
        (A, 2),
        (A, 3),
        (A, 9),
        (B, 1),
        (C, 0),
        ("describe-aa", 0),
        ("describe-aa", 2),
        ("describe-z", 0),
        ("", 0),
        (B, -1),
        (B, i32::MAX),
        ("in valid", 0),
    ] {
        for limit in [2000, 2] {
            let what = format!("from {topic} {partition} on, a limit of {limit}");
            both.ask(version, &what, |_| request(&[A, B, C], limit, Some((topic, partition))))?;
        }
    }
    // All topics from a place on; the other scripts' topics come before or are cut off.
    both.ask(version, "all topics from a cursor on", |_| request(&[], 7, Some((A, 1))))?;
    Ok(())
}

fn errors(both: &mut Both, version: i16) -> Result<()> {
    both.ask(version, "an unknown topic", |_| request(&["describe-unknown"], 2000, None))?;
    both.ask(version, "an unknown topic among others", |_| {
        request(&[A, "describe-aunt", B], 2000, None)
    })?;
    both.ask(version, "unknown topics and a limit", |_| {
        request(&[A, "describe-aunt", "describe-avis", B], 3, None)
    })?;
    both.ask(version, "an unknown topic under the cursor", |_| {
        request(&["describe-aunt", B], 2000, Some(("describe-aunt", 0)))
    })?;
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        both.ask(version, &format!("the invalid name {short:?}"), |_| request(&[&name], 10, None))?;
    }
    Ok(())
}
