//! The files that hold snapshots, beside the metadata log's. Shell.
//!
//! A snapshot is written under a temporary name (`….checkpoint.N.part`, never used twice), flushed, renamed, and its directory flushed: only
//! then is it the newest one, and only what the newest one holds may go from the log. What is temporary at a start is
//! half-written, and is removed.
//!
//! Invariants: the newest snapshot was read or written to its end by this process; snapshots newer than it are none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use ottla_base::{Offset, Timestamp};
use ottla_env::Disk;
use ottla_env::disk::Open;
use ottla_metadata::Image;
use ottla_records::{BatchHeader, RawBatch};
use parking_lot::Mutex;

use super::format::{self, BATCH_BYTES_MAX, Contents, Reader, SnapshotError};
use super::{Extent, SnapshotId};

/// What is read from a file at once, but for a batch that is longer.
const READ_BYTES: usize = 1 << 20;
/// The same where only the header is wanted.
const HEADER_BYTES: usize = 4 << 10;
/// What a file is called until it is whole.
const PART: &str = ".part";
/// What a file is called that was taken for a snapshot and is none.
const DAMAGED: &str = ".damaged";

/// A snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Damaged { path: PathBuf, source: SnapshotError },
    #[error("the metadata log begins at offset {log_start}, and no whole snapshot reaches from the beginning to there: {}", .tried.join("; "))]
    None { log_start: Offset, tried: Vec<String> },
}

impl LoadError {
    /// Whether an older snapshot may be whole where this one is not.
    fn is_damage(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Damaged { source, .. } => !matches!(source, SnapshotError::NotUnderstood(_)),
            Self::None { .. } => false,
        }
    }
}

/// A whole snapshot, or one that was received as a whole.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) extent: Arc<Extent>,
    /// What it was read from; it can be read even if its name is gone.
    pub(crate) file: Arc<File>,
    pub(crate) len: u64,
    /// What it holds, where it was just read.
    pub(crate) image: Option<Image>,
    /// Its temporary name, if it has no other yet.
    part: Option<PathBuf>,
}

/// A snapshot in the making. Nobody else writes to its file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    id: SnapshotId,
    path: PathBuf,
    file: Arc<File>,
}

/// What is known of a snapshot's file without reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) id: SnapshotId,
    pub(crate) entries: u64,
    pub(crate) len: u64,
    /// Of the last record that it holds.
    pub(crate) timestamp: Timestamp,
}

pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cluster_id: Arc<str>,
    parts: AtomicU64,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    kept: BTreeMap<SnapshotId, Kept>,
    newest: Option<(Arc<Extent>, Arc<File>, u64)>,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept: Vec<SnapshotId> = self.files.lock().kept.keys().copied().collect();
        f.debug_struct("Snapshots").field("kept", &kept).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Finds the newest whole snapshot of the log in this directory, which begins and ends at these offsets.
    ///
    /// Nothing is an answer only where the log begins with the first record, and has all that any snapshot was about.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        cluster_id: Arc<str>,
        log: std::ops::Range<Offset>,
    ) -> Result<(Self, Option<Checkpoint>), LoadError> {
        let (parts, files) = (AtomicU64::new(0), Mutex::default());
        let snapshots = Self { disk, directory, cluster_id, parts, files };
        let ids = snapshots.list()?;
        let newest = snapshots.newest_whole(&ids, log)?;
        if let Some(checkpoint) = &newest {
            let older = ids.into_iter().filter(|id| *id < checkpoint.extent.id);
            let kept = older.filter_map(|id| snapshots.look_at(id));
            let kept: BTreeMap<_, _> = kept.map(|kept| (kept.id, kept)).collect();
            snapshots.files.lock().kept = kept;
            snapshots.adopt(checkpoint);
        }
        Ok((snapshots, newest))
    }

    /// The snapshots by their names, oldest first; what is half-written is removed.
    fn list(&self) -> Result<Vec<SnapshotId>, LoadError> {
        let entries = self.disk.list(&self.directory);
        let entries = entries.map_err(|source| failed("list", &self.directory, source))?;
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if let Some(id) = SnapshotId::parse(&name) {
                // Kafka's storage tool leaves one of no records, which says who the first voters are.
                ids.extend((id.end_offset > Offset::ZERO).then_some(id));
            } else if is_part(&name) {
                let path = self.directory.join(&entry.name);
                let removed = self.disk.remove_file(&path);
                removed.map_err(|source| failed("remove", &path, source))?;
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn newest_whole(
        &self,
        ids: &[SnapshotId],
        log: std::ops::Range<Offset>,
    ) -> Result<Option<Checkpoint>, LoadError> {
        let mut damaged = Vec::new();
        for id in ids.iter().rev().filter(|id| id.end_offset >= log.start) {
            match self.load(*id) {
                Ok(checkpoint) => {
                    damaged.iter().for_each(|(id, _)| self.set_aside(*id));
                    return Ok(Some(checkpoint));
                }
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "a snapshot of the metadata is damaged; an older one is tried");
                    damaged.push((*id, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        let furthest = ids.last().map_or(Offset::ZERO, |id| id.end_offset);
        if log.start == Offset::ZERO && log.end >= furthest {
            damaged.iter().for_each(|(id, _)| self.set_aside(*id));
            return Ok(None);
        }
        let tried = match damaged.is_empty() {
            true => vec!["there is none".to_owned()],
            false => damaged.into_iter().map(|(_, error)| error).collect(),
        };
        Err(LoadError::None { log_start: log.start, tried })
    }

    /// For whoever wants to know what has happened to it; Kafka's tools don't take it for a snapshot any more.
    fn set_aside(&self, id: SnapshotId) {
        let path = self.path(id);
        let mut aside = path.clone().into_os_string();
        aside.push(DAMAGED);
        if let Err(error) = self.disk.rename(&path, Path::new(&aside)) {
            tracing::warn!(path = %path.display(), %error, "a damaged snapshot can't be set aside");
        }
    }

    pub(crate) fn load(&self, id: SnapshotId) -> Result<Checkpoint, LoadError> {
        self.load_from(&self.path(id), id)
    }

    pub(crate) fn load_image(&self, id: SnapshotId) -> io::Result<Image> {
        let checkpoint = self.load(id).map_err(io::Error::other)?;
        checkpoint.image.ok_or_else(|| io::Error::other("a snapshot that was not read"))
    }

    fn load_from(&self, path: &Path, id: SnapshotId) -> Result<Checkpoint, LoadError> {
        let file = self.disk.open(path, Open::Read);
        let file = file.map_err(|source| failed("open", path, source))?;
        let len = file.metadata().map_err(|source| failed("look at", path, source))?.len();
        let mut reader = Reader::new(id, Image::new(Arc::clone(&self.cluster_id)));
        self.for_each_batch(path, &file, len, READ_BYTES, |batch| {
            reader.take(batch)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let contents = reader.finish();
        let Contents { extent, image } =
            contents.map_err(|source| LoadError::Damaged { path: path.to_owned(), source })?;
        let (extent, file) = (Arc::new(extent), Arc::new(file));
        Ok(Checkpoint { extent, file, len, image: Some(image), part: None })
    }

    /// What the header of a snapshot tells; nothing if that can't be read.
    fn look_at(&self, id: SnapshotId) -> Option<Kept> {
        let path = self.path(id);
        let file = self.disk.open(&path, Open::Read).ok()?;
        let len = file.metadata().ok()?.len();
        let mut extent = None;
        let read = self.for_each_batch(&path, &file, len, HEADER_BYTES, |batch| {
            extent = Some(format::read_header(id, batch)?);
            Ok(ControlFlow::Break(()))
        });
        if let Err(error) = read {
            tracing::warn!(%error, "an old snapshot of the metadata is left alone");
        }
        extent.map(|extent| kept(&extent, len))
    }

    /// Reads batches to the file's end, or until `visit` has seen enough, about so many bytes at once.
    fn for_each_batch(
        &self,
        path: &Path,
        file: &File,
        len: u64,
        at_once: usize,
        mut visit: impl FnMut(&RawBatch) -> Result<ControlFlow<()>, SnapshotError>,
    ) -> Result<(), LoadError> {
        let damaged = |source| LoadError::Damaged { path: path.to_owned(), source };
        let mut rest = Bytes::new();
        let mut position = 0;
        loop {
            let needed = match BatchHeader::parse(&rest) {
                Ok(header) => header.size_in_bytes(),
                Err(ottla_records::BatchError::Truncated { .. }) => 0,
                Err(error) => return Err(damaged(error.into())),
            };
            if 0 < needed && needed <= rest.len() {
                let batch = RawBatch::parse(rest.split_to(needed));
                let batch = batch.map_err(|error| damaged(error.into()))?;
                if visit(&batch).map_err(damaged)?.is_break() {
                    return Ok(());
                }
                continue;
            }
            if position == len {
                let cut = SnapshotError::Unexpected("it is cut off");
                return if rest.is_empty() { Ok(()) } else { Err(damaged(cut)) };
            }
            if needed > BATCH_BYTES_MAX {
                return Err(damaged(SnapshotError::Unexpected("a batch is too long")));
            }
            let wanted = at_once.max(needed).saturating_sub(rest.len());
            let more = self.disk.read_up_to(file, position, wanted);
            let more = more.map_err(|source| failed("read", path, source))?;
            if more.is_empty() {
                return Err(damaged(SnapshotError::Unexpected("it became shorter")));
            }
            position += more.len() as u64;
            let mut joined = BytesMut::from(rest);
            joined.extend_from_slice(&more);
            rest = joined.freeze();
        }
    }

    /// Writes a snapshot, and makes it the newest one once it is on disk. Ends early, as an error, when told to stop.
    pub(crate) fn write(
        &self,
        extent: &Arc<Extent>,
        image: &Image,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let Part { path, file, .. } = self.begin(extent.id)?;
        let written = self.write_batches(&file, extent, image, stop);
        let len = written.inspect_err(|_| self.discard(&path))?;
        let extent = Arc::clone(extent);
        self.install(&Checkpoint { extent, file, len, image: None, part: Some(path) })
    }

    fn write_batches(
        &self,
        file: &File,
        extent: &Extent,
        image: &Image,
        stop: &AtomicBool,
    ) -> io::Result<u64> {
        let mut position = 0;
        for batch in format::encode(extent, image) {
            if stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the node stops"));
            }
            let bytes = batch?.to_bytes();
            self.disk.write_all_at(file, &bytes, position)?;
            position += bytes.len() as u64;
        }
        self.disk.sync_data(file)?;
        Ok(position)
    }

    /// Gives a snapshot that is on disk its name, durably; it is the newest one from now on.
    pub(crate) fn install(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        if let Some(part) = &checkpoint.part {
            self.disk.rename(part, &self.path(checkpoint.extent.id))?;
            self.disk.sync_directory(&self.directory)?;
        }
        self.adopt(checkpoint);
        Ok(())
    }

    fn adopt(&self, checkpoint: &Checkpoint) {
        let Checkpoint { extent, file, len, .. } = checkpoint;
        let mut files = self.files.lock();
        let is_newer = files.newest.as_ref().is_none_or(|(newest, ..)| newest.id < extent.id);
        files.kept.insert(extent.id, kept(extent, *len));
        if is_newer {
            files.newest = Some((Arc::clone(extent), Arc::clone(file), *len));
        }
    }

    pub(crate) fn newest(&self) -> Option<Checkpoint> {
        let files = self.files.lock();
        let (extent, file, len) = files.newest.as_ref()?;
        let (extent, file) = (Arc::clone(extent), Arc::clone(file));
        Some(Checkpoint { extent, file, len: *len, image: None, part: None })
    }

    pub(crate) fn newest_extent(&self) -> Option<Arc<Extent>> {
        self.files.lock().newest.as_ref().map(|(extent, ..)| Arc::clone(extent))
    }

    /// All snapshots that there are, oldest first.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.files.lock().kept.values().copied().collect()
    }

    /// Removes the snapshots before one. Whoever reads one of them reads on.
    pub(crate) fn delete_before(&self, first: SnapshotId) -> io::Result<()> {
        let gone: Vec<SnapshotId> =
            self.files.lock().kept.range(..first).map(|(id, _)| *id).collect();
        for id in gone {
            tracing::info!(snapshot = %id, "deleting an old snapshot of the metadata");
            self.disk.remove_if_there(&self.path(id))?;
            self.files.lock().kept.remove(&id);
        }
        Ok(())
    }

    /// A piece of a whole snapshot; shorter than asked for only at its end.
    pub(crate) fn read(&self, file: &File, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_up_to(file, position, len)
    }

    /// An empty file for a snapshot that comes to be.
    pub(crate) fn begin(&self, id: SnapshotId) -> io::Result<Part> {
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{}.{number}{PART}", id.file_name()));
        let file = Arc::new(self.disk.open(&path, Open::Replace)?);
        Ok(Part { id, path, file })
    }

    pub(crate) fn add(&self, part: &Part, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.write_all_at(&part.file, bytes, position)
    }

    /// Makes a file that was received durable, and reads it to its end. What is no whole snapshot is removed.
    pub(crate) fn complete(&self, part: &Part) -> Result<Checkpoint, LoadError> {
        let Part { id, path, file } = part;
        self.disk.sync_data(file).map_err(|source| failed("flush", path, source))?;
        let checkpoint = self.load_from(path, *id).inspect_err(|_| self.discard(path))?;
        Ok(Checkpoint { part: Some(path.clone()), ..checkpoint })
    }

    pub(crate) fn give_up(&self, part: &Part) {
        self.discard(&part.path);
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove_if_there(path) {
            tracing::debug!(path = %path.display(), %error, "it is removed at the next start");
        }
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.directory.join(id.file_name())
    }
}

fn is_part(name: &str) -> bool {
    let unfinished = name.strip_suffix(PART).and_then(|name| name.rsplit_once('.'));
    unfinished.is_some_and(|(name, _number)| SnapshotId::parse(name).is_some())
}

fn kept(extent: &Extent, len: u64) -> Kept {
    Kept { id: extent.id, entries: extent.entries, len, timestamp: extent.timestamp }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> LoadError {
    LoadError::Io { action, path: path.to_owned(), source }
}
