//! A snapshot of the cluster's metadata, read by Kafka's own metadata shell (shell).
//!
//! What it must show is written down here once, and holds for Apache Kafka's snapshots, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Test;
use super::adapter::{Adapter, Library};
use super::disk::sorted;
use super::fetch;
use super::session::{SETTINGS, Session, eventually};
use crate::kafka;
use crate::process::{Finished, run};

/// Every change is followed by a snapshot.
const AT_ONCE: &[(&str, &str)] = &[("metadata.log.max.record.bytes.between.snapshots", "1")];
const LIMIT: Duration = Duration::from_secs(60);

/// Everything below `/image` but what is called after ids, and the features, which are each broker's own.
const PATHS: &str = "\
/image
/image/acls
/image/acls/byId
/image/clientQuotas
/image/cluster
/image/cluster/brokers
/image/cluster/brokers/1
/image/cluster/controllers
/image/cluster/controllers/1
/image/configs
/image/configs/BROKER
/image/configs/BROKER/min.insync.replicas
/image/configs/TOPIC:orders
/image/configs/TOPIC:orders/cleanup.policy
/image/configs/TOPIC:orders/retention.ms
/image/delegationToken
/image/features
/image/features/metadataVersion
/image/producerIds
/image/producerIds/nextProducerId
/image/provenance
/image/scram
/image/scram/SCRAM-SHA-256
/image/scram/SCRAM-SHA-512
/image/topics
/image/topics/byId
/image/topics/byId/ID
/image/topics/byId/ID/0
/image/topics/byId/ID/1
/image/topics/byId/ID/id
/image/topics/byId/ID/name
/image/topics/byName
/image/topics/byName/last
/image/topics/byName/last/0
/image/topics/byName/last/id
/image/topics/byName/last/name
/image/topics/byName/orders
/image/topics/byName/orders/0
/image/topics/byName/orders/1
/image/topics/byName/orders/id
/image/topics/byName/orders/name";

/// Commands, and all that each prints.
const SHOWN: &[(&[&str], &str)] = &[
    (
        &["ls", "/image"],
        "acls\nclientQuotas\ncluster\nconfigs\ndelegationToken\nfeatures\nproducerIds\nprovenance\nscram\ntopics",
    ),
    (
        &["cat", "/image/topics/byName/orders/1"],
        "PartitionRegistration(replicas=[1], directories=[ID], isr=[1], removingReplicas=[], \
         addingReplicas=[], elr=[], lastKnownElr=[], leader=1, leaderRecoveryState=RECOVERED, \
         leaderEpoch=0, partitionEpoch=0)",
    ),
    (&["cat", "/image/topics/byName/orders/id"], "ID"),
    (
        &["tree", "/image/configs"],
        "BROKER:\n  min.insync.replicas:\n    1\n\
         TOPIC:orders:\n  cleanup.policy:\n    compact\n  retention.ms:\n    123456",
    ),
    (&["cat", "/image/features/metadataVersion"], "Optional[4.3-IV0]"),
    (&["cat", "/image/features/finalized_eligible.leader.replicas.version"], "1"),
];

pub(super) fn tests() -> Vec<Test> {
    let name = "disk: MetadataShell shows of a snapshot what it shows of Apache Kafka's";
    vec![Test::new(name, Library::Java.needs(), read_snapshot).without_broker()]
}

fn read_snapshot(session: &mut Session) -> Result<()> {
    let directory = session.directory().join("metadata-shell");
    let mut broker = session.target().start(&directory, &[SETTINGS, AT_ONCE].concat())?;
    let mut java = Adapter::new(Library::Java, broker.address(), &directory);
    let configs = [("retention.ms", "123456"), ("cleanup.policy", "compact")];
    java.create("orders", 2, &configs)?;
    java.create("last", 1, &[])?;
    let data = broker.data_directory();
    let metadata = data.join("__cluster_metadata-0");
    eventually(LIMIT, || Ok(newest(&metadata)?.filter(|snapshot| names(snapshot, "last"))))
        .context("no snapshot tells of the latest topic")?;
    let snapshot = newest(&metadata)?.context("there is one")?;

    let refused = shell(&snapshot, &["ls", "/image"])?;
    ensure!(
        !refused.status.success() && refused.stderr_text().contains("Unable to lock"),
        "a running broker does not keep it out: {}",
        refused.stderr_text()
    );
    broker.stop()?;

    await_shown(&snapshot, &["find", "/image"], |found| {
        ensure!(paths(found) == PATHS, "and not\n{PATHS}");
        Ok(())
    })?;
    for (command, expected) in SHOWN {
        await_shown(&snapshot, command, |found| {
            ensure!(found == *expected, "and not\n{expected}");
            Ok(())
        })?;
    }
    let registration = ["cat", "/image/cluster/brokers/1"];
    await_shown(&snapshot, &registration, |found| check_registration(found, broker.address()))
}

/// The tool may answer from what it has read until then, of Apache Kafka's snapshots as of ours.
fn await_shown(
    snapshot: &Path,
    command: &[&str],
    check: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let mut latest = Ok(());
    let found = eventually(LIMIT, || {
        latest = shown(snapshot, command)
            .and_then(|found| check(&found).with_context(|| format!("it shows\n{found}")));
        Ok(latest.is_ok().then_some(()))
    });
    found.or(latest).with_context(|| format!("{command:?}"))
}

fn check_registration(found: &str, address: &str) -> Result<()> {
    let port = address.rsplit(':').next().unwrap_or_default();
    for part in [
        "BrokerRegistration(id=1, epoch=",
        &format!("securityProtocol=PLAINTEXT, host='127.0.0.1', port={port})]"),
        "metadata.version: 7-30",
        "rack=Optional.empty",
        "directories=[ID]",
    ] {
        ensure!(found.contains(part), "{part:?} is missing: {found}");
    }
    Ok(())
}

/// The latest snapshot in a directory.
fn newest(metadata: &Path) -> Result<Option<PathBuf>> {
    let mut files = sorted(metadata)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "checkpoint"));
    Ok(files.pop())
}

/// Whether the bytes of a snapshot, which is not compressed, hold a name.
fn names(snapshot: &Path, name: &str) -> bool {
    let bytes = std::fs::read(snapshot).unwrap_or_default();
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

/// In a process of its own: the tool leaves threads behind that only end with it.
fn shell(snapshot: &Path, command: &[&str]) -> Result<Finished> {
    let mut java = kafka::java_tools(&fetch::kafka_jars()?, &fetch::java_classes()?);
    java.args(["org.apache.kafka.shell.MetadataShell", "--snapshot"]).arg(snapshot).args(command);
    run(java, b"", LIMIT)
}

/// What a command prints, with ids called ID. Of control records the tool complains whoever wrote them; of anything else it
/// must not.
fn shown(snapshot: &Path, command: &[&str]) -> Result<String> {
    let finished = shell(snapshot, command)?;
    let complaints = finished.stderr_text();
    ensure!(finished.status.success(), "{command:?}: {complaints}");
    let is_harmless = |line: &str| line.contains("Ignoring control record with type");
    if let Some(line) = complaints.lines().find(|line| !is_harmless(line)) {
        bail!("{command:?} complains: {line}\n{complaints}");
    }
    Ok(without_ids(finished.stdout_text().trim_end()))
}

/// Of several topics' ids one is enough; features are left out but for the version of the metadata.
fn paths(found: &str) -> String {
    let is_meant = |line: &&str| !line.contains("/features/finalized_");
    let mut paths: Vec<&str> = found.lines().filter(is_meant).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.join("\n")
}

/// Ids are 22 characters of the URL's base 64.
fn without_ids(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut rest = text;
    let mut all = String::new();
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        all += before;
        all += if word.len() == 22 { "ID" } else { word };
        rest = after;
    }
    all + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_other_words() {
        let shown = "a=[q_sLVNlnR7Gb-71AX3leTQ], leaderRecoveryState=x, /vmA5SIOZTNqHGoArrGPnKQ/0";
        assert_eq!(without_ids(shown), "a=[ID], leaderRecoveryState=x, /ID/0");
    }
}
