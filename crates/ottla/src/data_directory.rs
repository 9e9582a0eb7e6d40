//! Formats a data directory at its first start, and checks at every later one that it is ours.
//!
//! `meta.properties` is Kafka's, version 1: `cluster.id`, `node.id`, `directory.id`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use ottla_base::{BrokerId, Uuid};
use ottla_config::properties;

const FILE: &str = "meta.properties";
const VERSION: &str = "1";

/// Whose data a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: String,
    pub(crate) directory_id: Uuid,
}

/// Reads the identity of a directory; creates and formats the directory if it does not exist or is empty.
///
/// # Errors
/// If the directory belongs to another node, or holds something but no `meta.properties`: data whose
/// origin is unknown is never touched.
pub(crate) fn open(directory: &Path, node_id: BrokerId) -> anyhow::Result<Identity> {
    let file = directory.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            parse(&text, node_id).with_context(|| format!("{} is not usable", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format(directory, node_id),
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

fn parse(text: &str, node_id: BrokerId) -> anyhow::Result<Identity> {
    let entries = properties::parse(text)?;
    let values: BTreeMap<_, _> =
        entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let value = |name: &str| values.get(name).with_context(|| format!("{name} is missing"));
    let version = value("version")?;
    ensure!(version == VERSION, "version {version} is not known, only {VERSION}");
    let owner = value("node.id")?;
    ensure!(
        *owner == node_id.to_string(),
        "it belongs to node {owner}, but node.id is {node_id}: set node.id={owner}, or choose another directory"
    );
    Ok(Identity {
        cluster_id: value("cluster.id")?.clone(),
        directory_id: value("directory.id")?.parse().context("directory.id")?,
    })
}

fn format(directory: &Path, node_id: BrokerId) -> anyhow::Result<Identity> {
    fs::create_dir_all(directory)
        .with_context(|| format!("can't create the data directory {}", directory.display()))?;
    let mut entries = fs::read_dir(directory)?.filter_map(Result::ok);
    // A crash in the middle of formatting leaves the temporary file or the lock, nothing else.
    let foreign = entries.find(|entry| {
        let name = entry.file_name();
        name != "lost+found" && name != ".lock" && name != format!("{FILE}.tmp").as_str()
    });
    if let Some(entry) = foreign {
        bail!(
            "{} is not a data directory: it holds {:?} but no {FILE}; choose an empty directory with --data-dir",
            directory.display(),
            entry.file_name()
        );
    }
    let identity = Identity {
        cluster_id: ottla_env::random_uuid()?.to_string(),
        directory_id: ottla_env::random_uuid()?,
    };
    write(directory, node_id, &identity)
        .with_context(|| format!("can't format the data directory {}", directory.display()))?;
    Ok(identity)
}

/// Written beside, synced, renamed, directory synced: after a crash it is there as a whole or not at all.
fn write(directory: &Path, node_id: BrokerId, identity: &Identity) -> anyhow::Result<()> {
    let temporary = directory.join(format!("{FILE}.tmp"));
    let mut file = fs::File::create(&temporary)?;
    write!(
        file,
        "version={VERSION}\ncluster.id={}\nnode.id={node_id}\ndirectory.id={}\n",
        identity.cluster_id, identity.directory_id
    )?;
    file.sync_all()?;
    fs::rename(temporary, directory.join(FILE))?;
    ottla_env::sys::sync_directory(directory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_formatted_once_and_recognised_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        let first = open(&path, BrokerId(7)).unwrap();
        assert_eq!(open(&path, BrokerId(7)).unwrap(), first);
    }

    #[test]
    fn another_nodes_directory_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), BrokerId(7)).unwrap();
        let error = format!("{:#}", open(directory.path(), BrokerId(8)).unwrap_err());
        assert!(error.contains("set node.id=7"), "{error}");
    }

    #[test]
    fn a_directory_with_somebody_elses_files_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.txt"), "draft").unwrap();
        assert!(open(directory.path(), BrokerId(1)).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
