//! Partitions that move to another log directory, and those that may not.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use ottla_protocol::messages::{AlterReplicaLogDirsRequest, DescribeLogDirsRequest};

use super::super::both::Both;
use super::super::subject::Subject;
use super::super::value::Value;
use super::{batches, invalid_names, versions, write};

const MOVE_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Which of a broker's directories, or a path that is none.
#[derive(Debug, Clone, Copy)]
enum Place {
    Own(usize),
    Path(&'static str),
}

type Wish<'a> = (Place, &'a [(&'a str, &'a [i32])]);

pub(super) fn run(both: &mut Both) -> Result<()> {
    use Place::{Own, Path};
    both.create("moving", 2, &[])?;
    // Its copy's directory would have a longer name than file systems allow.
    let long = "m".repeat(220);
    both.create(&long, 1, &[])?;
    for _ in 0..3 {
        write(both, "moving", 0, &batches::three())?;
    }
    let paths = both_paths(both)?;
    let mut target = 0;
    for version in versions::<AlterReplicaLogDirsRequest>() {
        let mut ask =
            |what: &str, wishes: &[Wish<'_>]| ask_for(both, version, what, &paths, wishes);
        ask("nothing", &[])?;
        ask("a directory without topics", &[(Own(0), &[])])?;
        ask("a topic without partitions", &[(Own(0), &[("moving", &[])])])?;
        for path in ["/nowhere", "", "data", "/"] {
            ask(path, &[(Path(path), &[("moving", &[0])])])?;
        }
        for partition in [2, -1, i32::MAX] {
            ask(&format!("partition {partition}"), &[(Own(0), &[("moving", &[partition])])])?;
        }
        ask("no such topic", &[(Own(0), &[("nobody-made-this", &[0])])])?;
        ask("neither topic nor directory", &[(Path("/nowhere"), &[("nobody-made-this", &[0])])])?;
        ask("the metadata", &[(Own(0), &[("__cluster_metadata", &[0])])])?;
        ask("a long name", &[(Own(0), &[(&long, &[0])])])?;
        ask("a long name that nobody has", &[(Own(1), &[(&"n".repeat(249), &[0])])])?;
        for name in invalid_names() {
            let short: String = name.chars().take(10).collect();
            ask(&format!("the invalid name {short:?}"), &[(Own(0), &[(&name, &[0])])])?;
        }
        let wishes: &[Wish<'_>] = &[(Own(target), &[("moving", &[0, 1])])];
        ask("to one directory", wishes)?;
        arrived(both, target)?;
        let mut ask =
            |what: &str, wishes: &[Wish<'_>]| ask_for(both, version, what, &paths, wishes);
        ask("to where it is", wishes)?;
        ask(
            "to two directories",
            &[(Own(target), &[("moving", &[0, 1])]), (Own(1 - target), &[("moving", &[0, 1])])],
        )?;
        arrived(both, 1 - target)?;
        target = 1 - target;
    }
    Ok(())
}

fn paths_of(subject: &mut Subject) -> Result<Vec<String>> {
    let request = DescribeLogDirsRequest { topics: Some(Vec::new()) };
    let described = subject.ask(4, &request)?.answer().context("no answer")?;
    let mut paths: Vec<_> = described.results.iter().map(|it| it.log_dir.to_string()).collect();
    paths.sort();
    ensure!(paths.len() == 2, "{paths:?} are not two directories");
    Ok(paths)
}

fn both_paths(both: &mut Both) -> Result<[Vec<String>; 2]> {
    both.each(paths_of)
}

/// Waits until the topic is in this directory on both, and on its way nowhere; then it is as large there.
fn arrived(both: &mut Both, at: usize) -> Result<()> {
    let sizes = both.each(|subject| {
        let path = paths_of(subject)?.swap_remove(at);
        let deadline = Instant::now() + MOVE_LIMIT;
        loop {
            let found = whereabouts(subject)?;
            let is_there = |(at, _, is_copy): &(String, i64, bool)| *at == path && !is_copy;
            if found.len() == 2 && found.iter().all(is_there) {
                let mut all: Vec<i64> = found.iter().map(|(_, size, _)| *size).collect();
                all.sort_unstable();
                return Ok(all);
            }
            ensure!(Instant::now() < deadline, "not all of them are in {path}: {found:?}");
            thread::sleep(PAUSE);
        }
    })?;
    both.observe(&format!("sizes in directory {at}"), |_, index| {
        Ok(Value::leaf(format!("{:?}", sizes.get(index))))
    })
}

/// Directory, size, and whether it is a copy in the making, of each log of the topic.
fn whereabouts(subject: &mut Subject) -> Result<Vec<(String, i64, bool)>> {
    let request = DescribeLogDirsRequest { topics: None };
    let described = subject.ask(4, &request)?.answer().context("no answer")?;
    let mut found = Vec::new();
    for directory in &described.results {
        let topics = directory.topics.iter().filter(|topic| &*topic.name == "moving");
        for partition in topics.flat_map(|topic| &topic.partitions) {
            let path = directory.log_dir.to_string();
            found.push((path, partition.partition_size, partition.is_future_key));
        }
    }
    Ok(found)
}

fn ask_for(
    both: &mut Both,
    version: i16,
    what: &str,
    paths: &[Vec<String>; 2],
    wishes: &[Wish<'_>],
) -> Result<()> {
    let make = |_: &Subject, index: usize| {
        let path = |place: &Place| match place {
            Place::Own(at) => paths.get(index).and_then(|paths| paths.get(*at)).cloned(),
            Place::Path(path) => Some((*path).to_owned()),
        };
        let topic = |(name, partitions): &(&str, &[i32])| AlterReplicaLogDirTopic {
            name: (*name).into(),
            partitions: partitions.to_vec(),
        };
        let dirs = wishes.iter().map(|(place, topics)| AlterReplicaLogDir {
            path: path(place).unwrap_or_default().into(),
            topics: topics.iter().map(topic).collect(),
        });
        AlterReplicaLogDirsRequest { dirs: dirs.collect() }
    };
    both.ask_each(version, what, make)?;
    Ok(())
}
