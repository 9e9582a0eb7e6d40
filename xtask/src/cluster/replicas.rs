//! Whether all replicas of a partition hold the same bytes (shell).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::SETTLE_LIMIT;
use super::nodes::Cluster;

/// The records of a partition as they lie in one of a node's log directories: its segments, one after another.
///
/// A file may end in zeros that were set aside for more, so that zeros at the end say nothing.
fn records(data: &[PathBuf], topic: &str, partition: i32) -> Result<Vec<u8>> {
    let directory = directory(data, topic, partition)?;
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut segments: Vec<PathBuf> = paths.collect::<std::io::Result<_>>()?;
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let mut all = Vec::new();
    for segment in segments {
        let bytes =
            fs::read(&segment).with_context(|| format!("cannot read {}", segment.display()))?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        all.extend_from_slice(bytes.get(..end).unwrap_or_default());
    }
    Ok(all)
}

/// Where a node has a partition.
pub(super) fn directory(data: &[PathBuf], topic: &str, partition: i32) -> Result<PathBuf> {
    let mut places = data.iter().map(|data| data.join(format!("{topic}-{partition}")));
    let found = places.find(|place| place.is_dir());
    found.with_context(|| format!("there is no {topic}-{partition} in {data:?}"))
}

/// Waits until they do: followers may be behind by what nobody waits for any more, but not for long.
pub(super) fn await_alike(cluster: &mut Cluster, topic: &str, partitions: i32) -> Result<()> {
    let nodes = cluster.data_directories();
    cluster.until("replicas that are alike", SETTLE_LIMIT, |_| {
        match difference(&nodes, topic, partitions)? {
            Some(difference) => bail!(difference),
            None => Ok(Some(())),
        }
    })?;
    println!("the replicas of all {partitions} partitions are alike, byte by byte");
    Ok(())
}

/// The first difference between the nodes' replicas of a topic, in words.
fn difference(
    nodes: &[(i32, Vec<PathBuf>)],
    topic: &str,
    partitions: i32,
) -> Result<Option<String>> {
    for partition in 0..partitions {
        let mut first: Option<(i32, Vec<u8>)> = None;
        for (id, data) in nodes {
            let bytes = records(data, topic, partition)?;
            let Some((other, expected)) = &first else {
                first = Some((*id, bytes));
                continue;
            };
            if *expected != bytes {
                let at = expected.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
                return Ok(Some(format!(
                    "{topic}-{partition} differs between nodes {other} and {id} from byte {at} on ({} and {} bytes)",
                    expected.len(),
                    bytes.len()
                )));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn replica(directory: &Path, segments: &[(&str, &[u8])]) {
        let partition = directory.join("t-0");
        fs::create_dir_all(&partition).unwrap();
        for (name, bytes) in segments {
            fs::write(partition.join(name), bytes).unwrap();
        }
    }

    #[test]
    fn replicas_are_alike_whatever_their_segments_and_differ_where_a_byte_does() {
        let root = std::env::temp_dir().join(format!("ottla-replicas-{}", std::process::id()));
        let nodes: Vec<_> = (1..=2).map(|id| (id, vec![root.join(id.to_string())])).collect();
        replica(&nodes[0].1[0], &[("00.log", b"abc"), ("03.log", b"def\0\0"), ("00.index", b"x")]);
        replica(&nodes[1].1[0], &[("00.log", b"abcdef"), ("00.index", b"y")]);
        assert_eq!(difference(&nodes, "t", 1).unwrap(), None);
        replica(&nodes[1].1[0], &[("00.log", b"abcxef")]);
        let found = difference(&nodes, "t", 1).unwrap().unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(found.contains("between nodes 1 and 2 from byte 3 on"), "{found}");
    }
}
