//! Formats data directories at their first start, and checks at every later one that they are ours and belong together.
//!
//! `meta.properties` is Kafka's, version 1: `cluster.id`, `node.id`, `directory.id`.
//!
//! A directory that can't be read or written is left to the node to go on without, but not the one with the metadata.
//! What may belong to somebody else stops the start, whichever directory it is in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use ottla_base::{BrokerId, Uuid};
use ottla_broker::{DataDirectories, DataDirectory, Unreadable};
use ottla_config::properties;

const FILE: &str = "meta.properties";
const VERSION: &str = "1";
/// The log that tells which directory has the metadata.
const METADATA_LOG: &str = "__cluster_metadata-0";

/// Whose data a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    cluster_id: String,
    directory_id: Uuid,
}

/// What was found where a directory should be.
#[derive(Debug)]
enum Found {
    Formatted(Identity),
    /// It is empty, or not there.
    Empty,
    Unreadable(io::Error),
}

/// The directories of a node, formatted, and the cluster that they belong to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) cluster_id: String,
    pub(crate) directories: DataDirectories,
}

/// Reads who the directories belong to; creates and formats those that do not exist or are empty.
///
/// # Errors
/// If a directory belongs to another node or cluster, or holds something but no `meta.properties`: data whose origin is
/// unknown is never touched. If the metadata is not where it should be. If the directory of the metadata, or all others,
/// can't be used.
pub(crate) fn open(
    log_dirs: &[PathBuf],
    metadata: &Path,
    node_id: BrokerId,
) -> anyhow::Result<Opened> {
    let mut paths: Vec<&Path> = log_dirs.iter().map(PathBuf::as_path).collect();
    if !log_dirs.iter().any(|path| is_same(path, metadata)) {
        paths.push(metadata);
    }
    check_distinct(&paths)?;
    // Should a first start end early, it is not the metadata that is missing.
    paths.sort_by_key(|path| !is_same(path, metadata));
    let found: Vec<Found> =
        paths.iter().map(|path| look(path, node_id)).collect::<anyhow::Result<_>>()?;
    let cluster_id = cluster_id(&paths, &found, metadata)?;
    let mut usable = Vec::new();
    let mut unreadable = Vec::new();
    for (path, found) in paths.iter().zip(found) {
        let identity = match found {
            Found::Formatted(identity) => Ok(identity),
            Found::Empty => format(path, node_id, &cluster_id),
            Found::Unreadable(error) => Err(error),
        };
        match identity {
            Ok(identity) => {
                usable.push(DataDirectory { path: path.to_path_buf(), id: identity.directory_id });
            }
            Err(error) => {
                let reason = error.to_string();
                unreadable.push(Unreadable { path: path.to_path_buf(), reason });
            }
        }
    }
    check_distinct_ids(&usable)?;
    if let Some(failed) = unreadable.iter().find(|it| is_same(&it.path, metadata)) {
        let path = failed.path.display();
        bail!("the directory of the metadata, {path}, can't be used: {}", failed.reason);
    }
    let metadata = usable.iter().find(|it| is_same(&it.path, metadata)).cloned();
    let metadata = metadata.context("the directory of the metadata is one of those above")?;
    usable.retain(|it| log_dirs.contains(&it.path));
    usable.sort_by_key(|it| log_dirs.iter().position(|path| *path == it.path));
    Ok(Opened { cluster_id, directories: DataDirectories { usable, unreadable, metadata } })
}

/// One directory under two names would be locked, and counted, twice.
fn check_distinct(paths: &[&Path]) -> anyhow::Result<()> {
    for (at, path) in paths.iter().enumerate() {
        if let Some(twin) = paths.iter().skip(at + 1).find(|other| is_same(path, other)) {
            let (path, twin) = (path.display(), twin.display());
            bail!("log.dirs names the same directory twice: {path} and {twin}");
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn check_distinct_ids(directories: &[DataDirectory]) -> anyhow::Result<()> {
    for (at, directory) in directories.iter().enumerate() {
        if let Some(twin) = directories.iter().skip(at + 1).find(|it| it.id == directory.id) {
            let (path, twin) = (directory.path.display(), twin.path.display());
            let id = directory.id;
            bail!("{path} and {twin} have the same directory.id={id}: one is a copy of the other");
        }
    }
    Ok(())
}

/// The cluster that all directories belong to, a new one at the very first start.
fn cluster_id(paths: &[&Path], found: &[Found], metadata: &Path) -> anyhow::Result<String> {
    let mut cluster: Option<(&Path, &str)> = None;
    let mut metadata_is_empty = false;
    for (path, found) in paths.iter().zip(found) {
        match (found, cluster) {
            (Found::Formatted(identity), None) => cluster = Some((path, &identity.cluster_id)),
            (Found::Formatted(identity), Some((first, id))) => {
                ensure!(
                    identity.cluster_id == id,
                    "{} belongs to cluster {id}, but {} to cluster {}",
                    first.display(),
                    path.display(),
                    identity.cluster_id
                );
            }
            (Found::Empty, _) => metadata_is_empty |= is_same(path, metadata),
            (Found::Unreadable(_), _) => {}
        }
    }
    let elsewhere = paths.iter().filter(|path| !is_same(path, metadata));
    let elsewhere = elsewhere.map(|path| path.join(METADATA_LOG)).find(|log| log.exists());
    let metadata_log = metadata.join(METADATA_LOG);
    if let Some(log) = elsewhere.filter(|_| !metadata_log.exists()) {
        bail!(
            "the metadata is in {}, but metadata.log.dir is {}: set it to where the metadata is, or move the log there",
            log.display(),
            metadata.display()
        );
    }
    match cluster {
        // Without the metadata, all data would be that of unknown topics.
        Some((path, _)) if metadata_is_empty => bail!(
            "{} should hold the metadata and is empty, but {} has data: is its disk mounted?",
            metadata.display(),
            path.display()
        ),
        Some((_, id)) => Ok(id.to_owned()),
        None => match found.iter().zip(paths).find_map(|(found, path)| match found {
            Found::Unreadable(error) => Some((path, error)),
            Found::Formatted(_) | Found::Empty => None,
        }) {
            // It may hold a cluster's data already.
            Some((path, error)) => bail!("can't use {} at a first start: {error}", path.display()),
            None => Ok(ottla_env::random_uuid()?.to_string()),
        },
    }
}

fn look(directory: &Path, node_id: BrokerId) -> anyhow::Result<Found> {
    let file = directory.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let identity = parse(&text, node_id);
            let identity = identity.with_context(|| format!("{} is not usable", file.display()))?;
            Ok(Found::Formatted(identity))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => look_for_others(directory),
        Err(error) => Ok(Found::Unreadable(error)),
    }
}

/// A directory without `meta.properties` must hold nothing else.
fn look_for_others(directory: &Path) -> anyhow::Result<Found> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Empty),
        Err(error) => return Ok(Found::Unreadable(error)),
    };
    // A crash in the middle of formatting leaves the temporary file or the lock, nothing else.
    let foreign = entries.filter_map(Result::ok).find(|entry| {
        let name = entry.file_name();
        name != "lost+found" && name != ".lock" && name != format!("{FILE}.tmp").as_str()
    });
    match foreign {
        None => Ok(Found::Empty),
        Some(entry) => bail!(
            "{} is not a data directory: it holds {:?} but no {FILE}; choose an empty directory with --data-dir",
            directory.display(),
            entry.file_name()
        ),
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

fn format(directory: &Path, node_id: BrokerId, cluster_id: &str) -> io::Result<Identity> {
    fs::create_dir_all(directory)?;
    let directory_id = ottla_env::random_uuid()?;
    let identity = Identity { cluster_id: cluster_id.to_owned(), directory_id };
    write(directory, node_id, &identity)?;
    Ok(identity)
}

/// Written beside, synced, renamed, directory synced: after a crash it is there as a whole or not at all.
fn write(directory: &Path, node_id: BrokerId, identity: &Identity) -> io::Result<()> {
    let temporary = directory.join(format!("{FILE}.tmp"));
    let mut file = fs::File::create(&temporary)?;
    write!(
        file,
        "version={VERSION}\ncluster.id={}\nnode.id={node_id}\ndirectory.id={}\n",
        identity.cluster_id, identity.directory_id
    )?;
    file.sync_all()?;
    fs::rename(temporary, directory.join(FILE))?;
    ottla_env::sys::sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens directories of these names, the first of which has the metadata.
    fn open_in(root: &tempfile::TempDir, names: &[&str], node_id: i32) -> anyhow::Result<Opened> {
        let paths: Vec<PathBuf> = names.iter().map(|name| root.path().join(name)).collect();
        open(&paths, &paths[0], BrokerId(node_id))
    }

    fn refusal(result: anyhow::Result<Opened>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn empty_directories_are_formatted_once_for_one_cluster_and_recognised_later() {
        let root = tempfile::tempdir().unwrap();
        let first = open_in(&root, &["a", "b"], 7).unwrap();
        let [a, b] = &*first.directories.usable else { panic!("{first:?}") };
        assert_ne!(a.id, b.id);
        assert_eq!(first.directories.metadata, *a);
        let later = open_in(&root, &["a", "b", "c"], 7).unwrap();
        assert_eq!(later.cluster_id, first.cluster_id);
        assert_eq!(later.directories.usable[..2], first.directories.usable[..]);
        assert_eq!(later.directories.usable.len(), 3, "one more may be added");
    }

    #[test]
    fn another_nodes_directory_is_refused_with_the_cure() {
        let root = tempfile::tempdir().unwrap();
        open_in(&root, &["a"], 7).unwrap();
        let error = refusal(open_in(&root, &["a"], 8));
        assert!(error.contains("set node.id=7"), "{error}");
    }

    #[test]
    fn a_directory_with_somebody_elses_files_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("b")).unwrap();
        fs::write(root.path().join("b/thesis.txt"), "draft").unwrap();
        assert!(open_in(&root, &["a", "b"], 1).is_err());
        assert_eq!(fs::read_dir(root.path().join("b")).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_reported_and_the_others_are_opened() {
        let root = tempfile::tempdir().unwrap();
        open_in(&root, &["a"], 1).unwrap();
        fs::write(root.path().join("b"), "a file").unwrap();
        let opened = open_in(&root, &["a", "b"], 1).unwrap().directories;
        assert_eq!(opened.usable.len(), 1);
        assert_eq!(opened.unreadable[0].path, root.path().join("b"));
        let error = refusal(open_in(&root, &["b", "a"], 1));
        assert!(error.contains("metadata"), "{error}");
    }

    #[test]
    fn a_first_start_needs_all_directories() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("b"), "a file").unwrap();
        let error = refusal(open_in(&root, &["a", "b"], 1));
        assert!(error.contains("first start"), "{error}");
        assert!(!root.path().join("a/meta.properties").exists());
    }

    #[test]
    fn one_directory_under_two_names_is_refused() {
        let root = tempfile::tempdir().unwrap();
        open_in(&root, &["a"], 1).unwrap();
        std::os::unix::fs::symlink(root.path().join("a"), root.path().join("b")).unwrap();
        let error = refusal(open_in(&root, &["a", "b"], 1));
        assert!(error.contains("the same directory twice"), "{error}");
    }

    #[test]
    fn directories_of_two_clusters_and_copies_of_one_are_refused() {
        let root = tempfile::tempdir().unwrap();
        open_in(&root, &["a"], 1).unwrap();
        open_in(&root, &["b"], 1).unwrap();
        let error = refusal(open_in(&root, &["a", "b"], 1));
        assert!(error.contains("but"), "{error}");
        fs::copy(root.path().join("a").join(FILE), root.path().join("b").join(FILE)).unwrap();
        let error = refusal(open_in(&root, &["a", "b"], 1));
        assert!(error.contains("one is a copy of the other"), "{error}");
    }

    #[test]
    fn metadata_that_is_not_where_it_should_be_is_not_begun_anew() {
        let root = tempfile::tempdir().unwrap();
        open_in(&root, &["a"], 1).unwrap();
        let error = refusal(open_in(&root, &["b", "a"], 1));
        assert!(error.contains("is its disk mounted?"), "{error}");
        open_in(&root, &["a", "b"], 1).unwrap();
        fs::create_dir(root.path().join("a").join(METADATA_LOG)).unwrap();
        let error = refusal(open_in(&root, &["b", "a"], 1));
        assert!(error.contains("set it to where the metadata is"), "{error}");
    }

    #[test]
    fn the_metadata_may_have_a_directory_that_holds_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let [data, metadata] = ["data", "metadata"].map(|name| root.path().join(name));
        let opened = open(std::slice::from_ref(&data), &metadata, BrokerId(1)).unwrap().directories;
        assert_eq!(opened.usable.len(), 1);
        assert_eq!((&opened.usable[0].path, &opened.metadata.path), (&data, &metadata));
    }
}
