//! Formats data directories, and checks at every start that they are ours and belong together.
//!
//! `meta.properties` is Kafka's, version 1: `cluster.id`, `node.id`, `directory.id`. Beside it in the directory of the
//! metadata may be the controllers that the cluster begins with ([`crate::initial_controllers`]), the levels of features that
//! it begins with ([`crate::bootstrap`]), and for a short time the note that the node is forming a cluster with others ([`crate::forming`]);
//! or the note that it has joined a cluster ([`crate::joining`]): the addresses of the controllers that it was told, a line
//! each. A node with this note never begins a metadata log of its own, however early it was killed.
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
use ottla_config::{BrokerConfig, Formation, Formatted, properties};
use ottla_env::{Clock as _, SystemClock};

use crate::bootstrap::{self, Levels};
use crate::foreign;
use crate::forming::Standing;
use crate::initial_controllers::{self, InitialControllers};

const FILE: &str = "meta.properties";
const VERSION: &str = "1";
/// The log that tells which directory has the metadata.
const METADATA_LOG: &str = "__cluster_metadata-0";
/// The note that a node is forming, in the directory of the metadata.
const FORMING: &str = "ottla.forming";
/// The note that a node has joined a cluster, likewise.
const JOINED: &str = "ottla.joined";

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

/// What directories that are empty are formatted with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub(crate) cluster_id: &'a str,
    /// The controllers that the cluster begins with, and the name of the listener where they are.
    pub(crate) initial_controllers: Option<(&'a InitialControllers, &'a str)>,
    /// The levels of features that the cluster begins with, if somebody chose them.
    pub(crate) levels: Option<&'a Levels>,
    /// Whether others have to agree before this node takes part.
    pub(crate) forming: bool,
    /// `HOST:PORT` of the controllers of the cluster that the node joins, if it joins one.
    pub(crate) joined: Option<&'a [String]>,
}

impl<'a> Stamp<'a> {
    /// The cluster's id, and nothing more.
    pub(crate) const fn of(cluster_id: &'a str) -> Self {
        Self { cluster_id, initial_controllers: None, levels: None, forming: false, joined: None }
    }
}

/// What formatted directories say about the node before anything else is known; whether it is right, [`survey`] finds out.
pub(crate) fn formatted(directories: &[PathBuf]) -> Option<Formatted> {
    let identity = |path: &PathBuf| {
        let entries = properties::parse(&fs::read_to_string(path.join(FILE)).ok()?).ok()?;
        let id = entries.into_iter().rfind(|entry| entry.key == "node.id")?.value;
        Some((path.display().to_string(), id.parse().ok()?))
    };
    let (path, node_id) = directories.iter().find_map(identity)?;
    let note = directories.iter().find_map(|it| fs::read_to_string(it.join(JOINED)).ok());
    let joined = note.map(|note| note.lines().map(str::to_owned).collect());
    Some(Formatted { path, node_id, joined })
}

/// A node's directories, looked at and not changed.
#[derive(Debug)]
pub(crate) struct Survey {
    node_id: BrokerId,
    log_dirs: Vec<PathBuf>,
    metadata: PathBuf,
    /// That of the metadata first: should a first start end early, it is not the metadata that is missing.
    directories: Vec<(PathBuf, Found)>,
    cluster_id: Option<String>,
}

/// The directories of a node, formatted, and the cluster that they belong to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) cluster_id: String,
    pub(crate) directories: DataDirectories,
    /// Those that the cluster was begun with, if `ottla format` or Kafka's tool wrote them down.
    pub(crate) initial_controllers: Option<InitialControllers>,
    /// The levels of features that it was to begin with, likewise.
    pub(crate) levels: Levels,
}

/// Reads who a node's directories belong to.
///
/// # Errors
/// If a directory belongs to another node or cluster, or holds something but no `meta.properties`: data whose origin is
/// unknown is never touched. If Apache Kafka wrote the metadata. If it is not where it should be. If none was formatted and one can't be used.
///
/// `to_format` is the command that formats this node's directories, without the cluster.
pub(crate) fn survey(config: &BrokerConfig, to_format: &str) -> anyhow::Result<Survey> {
    let survey = Survey::of(&config.log_dirs, &config.metadata_log_dir, config.node_id)?;
    survey.check_metadata(|survey| survey.cure_of_lost_metadata(config, to_format))?;
    foreign::check(&config.metadata_log_dir, METADATA_LOG)?;
    Ok(survey)
}

impl Survey {
    /// The same, where the metadata may be lost: for whoever formats a new disk for it.
    pub(crate) fn of(
        log_dirs: &[PathBuf],
        metadata: &Path,
        node_id: BrokerId,
    ) -> anyhow::Result<Self> {
        let mut paths: Vec<&Path> = log_dirs.iter().map(PathBuf::as_path).collect();
        if !log_dirs.iter().any(|path| is_same(path, metadata)) {
            paths.push(metadata);
        }
        check_distinct(&paths)?;
        paths.sort_by_key(|path| !is_same(path, metadata));
        let found: Vec<Found> =
            paths.iter().map(|path| look(path, node_id)).collect::<anyhow::Result<_>>()?;
        let cluster_id = cluster_id(&paths, &found, metadata)?;
        let paths = paths.into_iter().map(Path::to_path_buf);
        Ok(Self {
            node_id,
            log_dirs: log_dirs.to_vec(),
            metadata: metadata.to_path_buf(),
            directories: paths.zip(found).collect(),
            cluster_id,
        })
    }

    /// Without the metadata, all data would be that of unknown topics.
    fn check_metadata(&self, cure: impl FnOnce(&Self) -> String) -> anyhow::Result<()> {
        match (self.empty().find(|path| self.is_metadata(path)), self.formatted().next()) {
            (Some(empty), Some(other)) => bail!(
                "{} should hold the metadata and is empty, but {} has data: is its disk mounted? {}",
                empty.display(),
                other.display(),
                cure(self)
            ),
            _ => Ok(()),
        }
    }

    fn cure_of_lost_metadata(&self, config: &BrokerConfig, to_format: &str) -> String {
        let formation = config.formation();
        if formation == Formation::Alone || config.joins {
            return format!(
                "If it is lost, and the cluster has other nodes, empty the other directories, too, and start this node with \
                 --join HOST:PORT of another one and --set node.id={}: it gets from them what they have. A node alone begins \
                 with an empty directory, and lets it have the topics that are left: ottla topic adopt --help has the steps",
                self.node_id
            );
        }
        let cluster_id = self.cluster_id().unwrap_or("ID");
        let must_say = formation == Formation::RecordedVoters && config.process_roles.controller;
        let controllers = if must_say { " --no-initial-controllers" } else { "" };
        format!(
            "A new disk is prepared, while the other nodes run, by {to_format} --cluster-id {cluster_id} \
             --ignore-formatted{controllers} (operations.md, \"A lost metadata log\")"
        )
    }

    /// `None` where nothing is formatted.
    pub(crate) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    pub(crate) fn formatted(&self) -> impl Iterator<Item = &Path> {
        self.directories
            .iter()
            .filter(|(_, found)| matches!(found, Found::Formatted(_)))
            .map(|(path, _)| path.as_path())
    }

    pub(crate) fn empty(&self) -> impl Iterator<Item = &Path> {
        self.directories
            .iter()
            .filter(|(_, found)| matches!(found, Found::Empty))
            .map(|(path, _)| path.as_path())
    }

    pub(crate) fn is_metadata(&self, path: &Path) -> bool {
        is_same(path, &self.metadata)
    }

    /// Where this node stands among voters that form a cluster.
    pub(crate) fn standing(&self) -> Standing {
        match &self.cluster_id {
            None => Standing::Empty,
            Some(id) if self.metadata.join(FORMING).exists() => Standing::Forming(id.clone()),
            Some(id) => Standing::Formed(id.clone()),
        }
    }

    /// Takes the note away that this node is forming. Durable when it returns.
    pub(crate) fn formed(&self) -> io::Result<()> {
        remove_durably(&self.metadata, FORMING)
    }

    /// Creates and formats those directories that do not exist or are empty, and gives back all.
    ///
    /// # Errors
    /// If the directory of the metadata, or all others, can't be used.
    pub(crate) fn open(self, stamp: &Stamp<'_>) -> anyhow::Result<Opened> {
        let mut usable = Vec::new();
        let mut unreadable = Vec::new();
        for (path, found) in self.directories {
            let identity = match found {
                Found::Formatted(identity) => Ok(identity),
                Found::Empty => format(&path, &self.metadata, self.node_id, stamp),
                Found::Unreadable(error) => Err(error),
            };
            match identity {
                Ok(identity) => usable.push(DataDirectory { path, id: identity.directory_id }),
                Err(error) => unreadable.push(Unreadable { path, reason: error.to_string() }),
            }
        }
        check_distinct_ids(&usable)?;
        let metadata = &self.metadata;
        if let Some(failed) = unreadable.iter().find(|it| is_same(&it.path, metadata)) {
            let path = failed.path.display();
            bail!("the directory of the metadata, {path}, can't be used: {}", failed.reason);
        }
        let metadata = usable.iter().find(|it| is_same(&it.path, metadata)).cloned();
        let metadata = metadata.context("the directory of the metadata is one of those above")?;
        usable.retain(|it| self.log_dirs.contains(&it.path));
        usable.sort_by_key(|it| self.log_dirs.iter().position(|path| *path == it.path));
        Ok(Opened {
            cluster_id: stamp.cluster_id.to_owned(),
            initial_controllers: read_initial_controllers(&metadata.path)?,
            levels: bootstrap::read(&metadata.path)?,
            directories: DataDirectories { usable, unreadable, metadata },
        })
    }
}

fn read_initial_controllers(metadata: &Path) -> anyhow::Result<Option<InitialControllers>> {
    let file = metadata.join(METADATA_LOG).join(initial_controllers::FILE);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let read = InitialControllers::from_checkpoint(bytes.into());
    read.map(Some).with_context(|| format!("{} is not usable", file.display()))
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

/// The cluster that all directories belong to; none before they are formatted.
fn cluster_id(paths: &[&Path], found: &[Found], metadata: &Path) -> anyhow::Result<Option<String>> {
    let mut cluster: Option<(&Path, &str)> = None;
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
            (Found::Empty | Found::Unreadable(_), _) => {}
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
        Some((_, id)) => Ok(Some(id.to_owned())),
        None => match found.iter().zip(paths).find_map(|(found, path)| match found {
            Found::Unreadable(error) => Some((path, error)),
            Found::Formatted(_) | Found::Empty => None,
        }) {
            // It may hold a cluster's data already.
            Some((path, error)) => bail!("can't use {} at a first start: {error}", path.display()),
            None => Ok(None),
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
    let foreign = entries.filter_map(Result::ok).find(|entry| !is_left_by_formatting(entry));
    match foreign {
        None => Ok(Found::Empty),
        Some(entry) => bail!(
            "{} is not a data directory: it holds {:?} but no {FILE}; choose an empty directory with --data-dir",
            directory.display(),
            entry.file_name()
        ),
    }
}

/// A crash in the middle of formatting leaves temporary files, what is written before `meta.properties`, or the lock.
fn is_left_by_formatting(entry: &fs::DirEntry) -> bool {
    const KNOWN: [&str; 5] = ["lost+found", ".lock", FORMING, JOINED, bootstrap::FILE];
    let name = entry.file_name();
    if name == METADATA_LOG {
        let begin = initial_controllers::FILE;
        return fs::read_dir(entry.path()).is_ok_and(|files| {
            files.flatten().all(|file| file.file_name().to_string_lossy().starts_with(begin))
        });
    }
    let temporary = [FILE, FORMING, JOINED, bootstrap::FILE].map(|file| format!("{file}.tmp"));
    KNOWN.iter().any(|known| name == *known) || temporary.iter().any(|it| name == it.as_str())
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

/// Formats one directory; `meta.properties` comes last, so that it is there only with all that belongs to it.
fn format(
    directory: &Path,
    metadata: &Path,
    node_id: BrokerId,
    stamp: &Stamp<'_>,
) -> io::Result<Identity> {
    fs::create_dir_all(directory)?;
    let mut directory_id = ottla_env::random_uuid()?;
    let holds_metadata = is_same(directory, metadata);
    // Formatting with more than this may have been cut short here, and what is left of it would count.
    let stamp = if holds_metadata { *stamp } else { Stamp::of(stamp.cluster_id) };
    match stamp.initial_controllers {
        Some((controllers, listener)) => {
            write_initial_controllers(directory, controllers, listener)?;
            directory_id = controllers.get(node_id).map_or(directory_id, |it| it.directory_id);
        }
        None => remove_durably(&directory.join(METADATA_LOG), initial_controllers::FILE)?,
    }
    let levels = stamp.levels.map(|levels| {
        let now = SystemClock::new().now_ms();
        bootstrap::to_checkpoint(levels, now).map_err(io::Error::other)
    });
    put_durably(directory, bootstrap::FILE, levels.transpose()?.as_deref())?;
    put_durably(directory, FORMING, stamp.forming.then_some(b""))?;
    let joined: Option<String> =
        stamp.joined.map(|controllers| controllers.iter().map(|it| format!("{it}\n")).collect());
    put_durably(directory, JOINED, joined.as_deref().map(str::as_bytes))?;
    let identity = Identity { cluster_id: stamp.cluster_id.to_owned(), directory_id };
    let text = format!(
        "version={VERSION}\ncluster.id={}\nnode.id={node_id}\ndirectory.id={}\n",
        identity.cluster_id, identity.directory_id
    );
    write_durably(directory, FILE, text.as_bytes())?;
    Ok(identity)
}

fn write_initial_controllers(
    directory: &Path,
    controllers: &InitialControllers,
    listener: &str,
) -> io::Result<()> {
    let log = directory.join(METADATA_LOG);
    fs::create_dir_all(&log)?;
    let now = SystemClock::new().now_ms();
    let bytes = controllers.to_checkpoint(listener, now).map_err(io::Error::other)?;
    write_durably(&log, initial_controllers::FILE, &bytes)?;
    ottla_env::sys::sync_directory(directory)
}

/// The file as it is to be: with these bytes, or not there.
fn put_durably(directory: &Path, name: &str, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        Some(bytes) => write_durably(directory, name, bytes),
        None => remove_durably(directory, name),
    }
}

/// Written beside, synced, renamed, directory synced: after a crash it is there as a whole or not at all.
fn write_durably(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, directory.join(name))?;
    ottla_env::sys::sync_directory(directory)
}

fn remove_durably(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Ok(()) => ottla_env::sys::sync_directory(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use ottla_metadata::feature;

    use super::*;

    /// Opens directories of these names, the first of which has the metadata.
    fn open_in(root: &tempfile::TempDir, names: &[&str], node_id: i32) -> anyhow::Result<Opened> {
        let paths: Vec<PathBuf> = names.iter().map(|name| root.path().join(name)).collect();
        open(&paths, &paths[0], node_id)
    }

    fn open(log_dirs: &[PathBuf], metadata: &Path, node_id: i32) -> anyhow::Result<Opened> {
        let survey = Survey::of(log_dirs, metadata, BrokerId(node_id))?;
        survey.check_metadata(|_| String::new())?;
        let cluster_id = match survey.cluster_id() {
            Some(id) => id.to_owned(),
            None => ottla_env::random_uuid()?.to_string(),
        };
        survey.open(&Stamp::of(&cluster_id))
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
        let opened = open(std::slice::from_ref(&data), &metadata, 1).unwrap().directories;
        assert_eq!(opened.usable.len(), 1);
        assert_eq!((&opened.usable[0].path, &opened.metadata.path), (&data, &metadata));
    }

    const THREE: &str = "1@one:9093:JEXY6aqzQY-32P5TStzaFg,2@two:9093:MvDxzVmcRsaTz33bUuRU6A";

    fn survey_of(path: &Path) -> Survey {
        Survey::of(&[path.to_path_buf()], path, BrokerId(1)).unwrap()
    }

    #[test]
    fn the_controllers_that_a_cluster_begins_with_are_kept_for_its_first_start() {
        let root = tempfile::tempdir().unwrap();
        let controllers: InitialControllers = THREE.parse().unwrap();
        let initial_controllers = Some((&controllers, "CONTROLLER"));
        let stamp = Stamp { initial_controllers, ..Stamp::of("c") };
        let path = root.path().join("data");
        let opened = survey_of(&path).open(&stamp).unwrap();
        assert_eq!(opened.initial_controllers, Some(controllers.clone()));
        assert_eq!(opened.directories.metadata.id.to_string(), "JEXY6aqzQY-32P5TStzaFg");
        let again = open_in(&root, &["data"], 1).unwrap();
        assert_eq!((again.cluster_id, again.initial_controllers), ("c".into(), Some(controllers)));
    }

    #[test]
    fn formatting_that_was_cut_short_is_begun_again() {
        let root = tempfile::tempdir().unwrap();
        let controllers: InitialControllers = THREE.parse().unwrap();
        let initial_controllers = Some((&controllers, "CONTROLLER"));
        let stamp = Stamp { initial_controllers, forming: true, ..Stamp::of("c") };
        let path = root.path().join("data");
        survey_of(&path).open(&stamp).unwrap();
        fs::rename(path.join(FILE), path.join(format!("{FILE}.tmp"))).unwrap();
        assert_eq!(survey_of(&path).standing(), Standing::Empty);
        survey_of(&path).open(&stamp).unwrap();
        assert_eq!(survey_of(&path).standing(), Standing::Forming("c".into()));
        fs::remove_file(path.join(FILE)).unwrap();
        fs::write(path.join(METADATA_LOG).join("00000000000000000000.log"), "data").unwrap();
        let error = Survey::of(std::slice::from_ref(&path), &path, BrokerId(1)).unwrap_err();
        assert!(error.to_string().contains("is not a data directory"), "{error}");
    }

    #[test]
    fn a_node_is_forming_until_that_is_over() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        assert_eq!(survey_of(&path).standing(), Standing::Empty);
        let stamp = Stamp { forming: true, ..Stamp::of("c") };
        survey_of(&path).open(&stamp).unwrap();
        assert_eq!(survey_of(&path).standing(), Standing::Forming("c".into()));
        survey_of(&path).formed().unwrap();
        assert_eq!(survey_of(&path).standing(), Standing::Formed("c".into()));
        survey_of(&path).formed().unwrap();
    }

    #[test]
    fn who_has_joined_a_cluster_is_written_down_with_its_id_and_where_the_controllers_are() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let paths = [root.path().join("none"), path.clone()];
        assert_eq!(formatted(&paths), None);
        let controllers = ["one:9092".to_owned(), "[::1]:9092".to_owned()];
        let stamp = Stamp { joined: Some(&controllers), ..Stamp::of("c") };
        survey_of(&path).open(&stamp).unwrap();
        let path = path.display().to_string();
        let expected = Formatted { path, node_id: 1, joined: Some(controllers.to_vec()) };
        assert_eq!(formatted(&paths), Some(expected));
    }

    /// What a first start finds after formatting with `cut` was killed before its end and was then begun again with `stamp`.
    fn begun_again(cut: &Stamp<'_>, stamp: &Stamp<'_>) -> (Standing, Opened) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        survey_of(&path).open(cut).unwrap();
        fs::remove_file(path.join(FILE)).unwrap();
        survey_of(&path).open(stamp).unwrap();
        let survey = survey_of(&path);
        (survey.standing(), survey.open(stamp).unwrap())
    }

    #[test]
    fn a_voter_whose_forming_was_cut_short_can_begin_a_cluster_of_its_own() {
        let cut = Stamp { forming: true, ..Stamp::of("c") };
        let (standing, _) = begun_again(&cut, &Stamp::of("d"));
        assert_eq!(standing, Standing::Formed("d".into()));
    }

    #[test]
    fn controllers_of_a_formatting_that_was_cut_short_are_not_waited_for() {
        let controllers: InitialControllers = THREE.parse().unwrap();
        let initial_controllers = Some((&controllers, "CONTROLLER"));
        let cut = Stamp { initial_controllers, ..Stamp::of("c") };
        let (_, opened) = begun_again(&cut, &Stamp::of("d"));
        assert_eq!((&*opened.cluster_id, opened.initial_controllers), ("d", None));
        assert_ne!(opened.directories.metadata.id.to_string(), "JEXY6aqzQY-32P5TStzaFg");
    }

    #[test]
    fn levels_of_a_formatting_that_was_cut_short_do_not_count() {
        let levels = |elr: i16| {
            let elr = (feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), elr);
            Levels::from([
                (feature::METADATA_VERSION.to_owned(), feature::METADATA_VERSION_LEVEL),
                elr,
            ])
        };
        let (cut, other) = (levels(0), levels(1));
        let cut = Stamp { levels: Some(&cut), ..Stamp::of("c") };
        let (_, opened) = begun_again(&cut, &Stamp::of("d"));
        assert_eq!(opened.levels, Levels::new());
        let (_, opened) = begun_again(&cut, &Stamp { levels: Some(&other), ..Stamp::of("d") });
        assert_eq!(opened.levels, other);
    }

    #[test]
    fn a_directory_that_was_to_have_the_metadata_and_has_not_keeps_nothing_of_that() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        let controllers = ["one:9092".to_owned()];
        let cut = Stamp { joined: Some(&controllers), forming: true, ..Stamp::of("c") };
        survey_of(&one).open(&cut).unwrap();
        fs::remove_file(one.join(FILE)).unwrap();
        let both = [one, two.clone()];
        let survey = || Survey::of(&both, &two, BrokerId(1)).unwrap();
        survey().open(&Stamp::of("d")).unwrap();
        assert_eq!(survey().standing(), Standing::Formed("d".into()));
        assert_eq!(formatted(&both).unwrap().joined, None);
        assert!(!both[0].join(FORMING).exists());
    }

    #[test]
    fn a_node_whose_joining_was_cut_short_can_begin_a_cluster_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let controllers = ["one:9092".to_owned()];
        survey_of(&path).open(&Stamp { joined: Some(&controllers), ..Stamp::of("c") }).unwrap();
        fs::remove_file(path.join(FILE)).unwrap();
        survey_of(&path).open(&Stamp::of("d")).unwrap();
        let found = formatted(std::slice::from_ref(&path)).unwrap();
        assert_eq!((found.node_id, found.joined), (1, None));
    }
}
