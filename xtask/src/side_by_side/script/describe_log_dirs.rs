//! The log directory: what is in it, how large it is, how much room is left.

use std::collections::BTreeMap;

use anyhow::Result;
use ottla_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use ottla_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic;
use ottla_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::super::both::Both;
use super::{batches, invalid_names, versions, write};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("dirs", 3, &[])?;
    both.create("dirs-other", 1, &[])?;
    for (topic, partition) in [("dirs", 0), ("dirs", 0), ("dirs", 2), ("dirs-other", 0)] {
        write(both, topic, partition, &batches::three())?;
    }
    for version in versions::<DescribeLogDirsRequest>() {
        ask(both, version, "everything", None)?;
        ask(both, version, "nothing", Some(&[]))?;
        for asked in [
            &[("dirs", &[0, 1, 2][..])][..],
            &[("dirs", &[2]), ("dirs-other", &[0])],
            &[("dirs", &[2, 2])],
            &[("dirs", &[0]), ("dirs", &[1])],
            &[("dirs", &[3, -1])],
            &[("dirs", &[])],
            &[("nobody-made-this", &[0])],
            &[("__cluster_metadata", &[0])],
        ] {
            ask(both, version, &format!("{asked:?}"), Some(asked))?;
        }
        for name in invalid_names() {
            let short: String = name.chars().take(10).collect();
            ask(both, version, &format!("the invalid name {short:?}"), Some(&[(&name, &[0])]))?;
        }
    }
    Ok(())
}

fn ask(both: &mut Both, version: i16, what: &str, topics: Option<&[(&str, &[i32])]>) -> Result<()> {
    let topic = |(topic, partitions): &(&str, &[i32])| DescribableLogDirTopic {
        topic: (*topic).into(),
        partitions: partitions.to_vec(),
    };
    let topics = topics.map(|topics| topics.iter().map(topic).collect());
    let request = DescribeLogDirsRequest { topics };
    both.ask_edited(version, what, |_, _| request.clone(), comparable)?;
    Ok(())
}

/// Each broker has directories of its own on one file system, on which others write, too; other scripts' topics may
/// have been compressed by one library or another. Which of two directories with as many logs gets a partition, nobody
/// says: what is in them is compared as if it were in the first.
fn comparable(response: &mut DescribeLogDirsResponse) {
    for directory in &mut response.results {
        directory.log_dir =
            if directory.log_dir.starts_with('/') { "(absolute)" } else { "" }.into();
        directory.usable_bytes = directory.usable_bytes.min(1);
        directory.topics.retain(|topic| topic.name.starts_with("dirs"));
    }
    let all = response.results.iter_mut().flat_map(|it| std::mem::take(&mut it.topics));
    let mut merged: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for topic in all {
        merged.entry(topic.name).or_default().extend(topic.partitions);
    }
    if let Some(first) = response.results.first_mut() {
        let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
        first.topics = merged.into_iter().map(topic).collect();
    }
}
