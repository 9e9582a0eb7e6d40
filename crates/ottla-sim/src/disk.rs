//! A disk that loses whatever it may lose: real files in a temporary directory, and beside them what is durable.
//!
//! Everybody who reads sees what was written; [`SimulatedDisk::lose_power`] leaves of it what was synced and any part of
//! the rest. Calls fail as the [`Plan`] says, and from one call on the process stops: nothing happens any more, and every
//! call fails, until the caller has dropped what it had open and the disk is started again.
//!
//! What it does not play: a rename from one directory to another (nobody does that here), a failed sync of a directory
//! that loses names for good, reads that go around `Disk` (`sendfile`), and other processes.
//!
//! Invariant, checked by [`SimulatedDisk::check`]: the files are what `Contents` and `Directory` say, byte by byte, until a
//! sync fails.

mod contents;
mod names;
mod plan;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ottla_env::disk::{DirectoryEntry, Open, Status};
use ottla_env::sys::DiskSpace;
use ottla_env::{Clock, Disk, ManualClock, OsDisk};
use parking_lot::{Mutex, MutexGuard};

use crate::{Counts, Random};
use contents::Contents;
use names::{Change, Directory, Names, Node};
pub use plan::Plan;
use plan::{Call, Fault, Faults};

/// What a call fails with after the process has stopped.
const STOPPED: &str = "the process has stopped";

/// See the module.
#[derive(Debug)]
pub struct SimulatedDisk {
    root: PathBuf,
    clock: Arc<ManualClock>,
    state: Mutex<State>,
    _temporary: tempfile::TempDir,
}

#[derive(Debug)]
struct FileNode {
    contents: Contents,
    modified_ms: i64,
    /// Kept open, so that nobody else gets the inode's number.
    file: File,
}

#[derive(Debug)]
struct State {
    files: Vec<FileNode>,
    directories: Vec<Directory>,
    by_inode: HashMap<u64, usize>,
    random: Random,
    faults: Faults,
    /// What is going on, for the counts.
    activity: &'static str,
    counts: Counts,
    has_failed_sync: bool,
    /// Of files, directories and the whole of it.
    failed_syncs: u64,
    trace: Option<Vec<String>>,
}

const ROOT: usize = 0;

impl SimulatedDisk {
    /// An empty disk.
    ///
    /// # Panics
    /// Where there is no room for a temporary directory.
    #[must_use]
    pub fn new(random: Random, clock: Arc<ManualClock>) -> Self {
        // In memory where the machine has such a place: a simulation syncs a hundred times in a millisecond.
        let in_memory = Path::new("/dev/shm");
        let temporary =
            if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
        let temporary = temporary.expect("there is room for a temporary directory");
        let state = State {
            files: Vec::new(),
            directories: vec![Directory::default()],
            by_inode: HashMap::new(),
            random,
            faults: Faults::default(),
            activity: "",
            counts: Counts::default(),
            has_failed_sync: false,
            failed_syncs: 0,
            trace: None,
        };
        let root = temporary.path().to_owned();
        Self { root, clock, state: Mutex::new(state), _temporary: temporary }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What goes wrong from now on.
    pub fn set_plan(&self, plan: Plan) {
        self.state.lock().faults.set(plan);
    }

    /// Says what is being done: faults are counted by it, and what recovery does is counted as such.
    pub fn enter(&self, activity: &'static str) {
        self.state.lock().activity = activity;
    }

    #[must_use]
    pub fn activity(&self) -> &'static str {
        self.state.lock().activity
    }

    /// How many calls have failed so far because the plan said so.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state.lock().faults.drawn()
    }

    /// Does something during which nothing goes wrong.
    pub fn calmly<T>(&self, work: impl FnOnce() -> T) -> T {
        let plan = self.state.lock().faults.suspend();
        let done = work();
        self.state.lock().faults.resume(plan);
        done
    }

    /// Reads what a process has left that may have stopped.
    pub fn read_remains<T>(&self, look: impl FnOnce() -> T) -> T {
        self.calmly(|| {
            self.restart();
            look()
        })
    }

    /// What a sync of the whole file system would do if it forgot the names.
    pub fn sync_all_files(&self) {
        self.state.lock().files.iter_mut().for_each(|node| node.contents.sync());
    }

    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.state.lock().faults.stopped()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.lock().counts.clone()
    }

    pub fn count(&self, what: impl Into<String>) {
        self.state.lock().counts.add(what);
    }

    /// Notes every call from now on.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.state.lock().trace {
            trace.push(line());
        }
    }

    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        self.state.lock().trace.take().unwrap_or_default()
    }

    /// Whether a reader may see what no later sync writes to disk.
    #[must_use]
    pub fn has_failed_sync(&self) -> bool {
        self.state.lock().has_failed_sync
    }

    /// How many syncs have failed so far.
    #[must_use]
    pub fn failed_syncs(&self) -> u64 {
        self.state.lock().failed_syncs
    }

    /// The process ends here.
    pub fn stop(&self) {
        self.state.lock().faults.stop();
    }

    /// The next process starts: it finds what the last one wrote, whether or not that is on the disk.
    pub fn restart(&self) {
        self.state.lock().faults.restart();
    }

    /// The power goes, and comes back: of what was not synced any part is gone.
    ///
    /// # Panics
    /// Where the files of the temporary directory cannot be written.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        state.faults.restart();
        state.has_failed_sync = false;
        for entry in OsDisk.list(&self.root).expect("the root is there") {
            let path = self.root.join(entry.name);
            let removed =
                if entry.is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.expect("what is there can be removed");
        }
        let old = std::mem::replace(&mut state.directories, vec![Directory::default()]);
        let files = std::mem::take(&mut state.files);
        state.by_inode.clear();
        let root = self.root.clone();
        self.rebuild(&mut state, ROOT, &root, &old, &files).expect("the root can be written");
    }

    fn rebuild(
        &self,
        state: &mut State,
        at: usize,
        path: &Path,
        old: &[Directory],
        old_files: &[FileNode],
    ) -> io::Result<()> {
        // The directory at `at` is new, its names are still those of the old nodes.
        let source = if at == ROOT { ROOT } else { state.source_of(at) };
        let directory = old.get(source).expect("every node that a name stands for exists");
        let (names, lost) = directory.after_crash(&mut state.random);
        (0..lost).for_each(|_| state.counts.add("name change lost"));
        let mut rebuilt = Names::new();
        for (name, node) in names {
            let path = path.join(&name);
            let node = match node {
                Node::File(file) => {
                    let file =
                        old_files.get(file).expect("every file that a name stands for exists");
                    let bytes = file.contents.after_crash(&mut state.random);
                    state.count_loss(&file.contents, &bytes);
                    fs::write(&path, &bytes)?;
                    let handle = OsDisk.open(&path, Open::Write)?;
                    Node::File(state.add_file(
                        handle,
                        Contents::durable(bytes),
                        file.modified_ms,
                    )?)
                }
                Node::Directory(source) => {
                    fs::create_dir(&path)?;
                    state.directories.push(Directory::rebuilding(source));
                    let child = state.directories.len() - 1;
                    self.rebuild(state, child, &path, old, old_files)?;
                    Node::Directory(child)
                }
            };
            rebuilt.insert(name, node);
        }
        *state.directory_mut(at) = Directory::durable(rebuilt);
        Ok(())
    }

    /// Turns one bit of a file, on the disk and for every reader.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn flip(&self, path: &Path, at: usize, bit: u8) {
        let mut state = self.state.lock();
        let Some(Node::File(node)) = self.find(&state, path) else {
            panic!("no file {}", path.display())
        };
        let node = state.file_mut(node);
        node.contents.flip(at, bit);
        let visible = node.contents.visible();
        OsDisk
            .write_at(&node.file, &mut [IoSlice::new(&visible)], 0)
            .expect("the file can be written");
    }

    /// The files' visible bytes, by their paths below the root: for assertions, and never a fault.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state.lock();
        let mut found = Vec::new();
        let mut waiting = vec![(PathBuf::new(), ROOT)];
        while let Some((path, at)) = waiting.pop() {
            for (name, node) in &state.directory(at).visible {
                match node {
                    Node::File(file) => {
                        found.push((path.join(name), state.file(*file).contents.visible()))
                    }
                    Node::Directory(directory) => waiting.push((path.join(name), *directory)),
                }
            }
        }
        found.sort();
        found
    }

    /// Whether the real files are what the notes say.
    ///
    /// # Panics
    /// If not.
    pub fn check(&self) {
        for (path, bytes) in self.files() {
            let real = fs::read(self.root.join(&path)).expect("a noted file exists");
            assert!(real == bytes, "{} is not what was noted", path.display());
        }
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).expect("a simulated disk has nothing outside of its root")
    }

    fn find(&self, state: &State, path: &Path) -> Option<Node> {
        let mut node = Node::Directory(ROOT);
        for part in self.relative(path).components() {
            let (Component::Normal(name), Node::Directory(at)) = (part, node) else { return None };
            node = *state.directory(at).visible.get(name)?;
        }
        Some(node)
    }

    /// The directory that a path is in, and its name there.
    fn parent<'a>(&self, state: &State, path: &'a Path) -> io::Result<(usize, &'a OsStr)> {
        let (parent, name) =
            path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        match self.find(state, parent) {
            Some(Node::Directory(at)) => Ok((at, name)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What every call begins with: it may be the one that fails, or that never happens.
    fn begin(
        &self,
        call: Call,
        what: &Path,
        detail: &str,
    ) -> (MutexGuard<'_, State>, io::Result<()>) {
        let mut state = self.state.lock();
        let State { faults, random, .. } = &mut *state;
        let was_stopped = faults.stopped();
        let fault = faults.draw(call, random);
        if let Some(trace) = &mut state.trace {
            let name = what.strip_prefix(&self.root).unwrap_or(what);
            trace.push(format!("{call:?} {} {detail} {fault:?}", name.display()));
        }
        let activity = state.activity;
        let result = match fault {
            None => Ok(()),
            Some(Fault::Stop) => {
                if !was_stopped {
                    state.counts.add(format!("crash in {activity}"));
                    state.counts.add(format!("crash at a {call:?}"));
                }
                Err(io::Error::other(STOPPED))
            }
            Some(Fault::NoSpace) => {
                state.counts.add(format!("ENOSPC in {activity}"));
                Err(io::Error::from_raw_os_error(NO_SPACE))
            }
            Some(Fault::Io) => {
                state.counts.add(format!("EIO at a {call:?}"));
                let is_unsupported =
                    call == Call::SyncFileSystem && state.faults.plan().no_sync_file_system;
                state.failed_syncs += u64::from(call.is_sync() && !is_unsupported);
                Err(io::Error::from_raw_os_error(INPUT_OUTPUT))
            }
        };
        (state, result)
    }

    /// The same for a call on an open file.
    fn begin_on(
        &self,
        call: Call,
        file: &File,
        detail: &str,
    ) -> io::Result<(MutexGuard<'_, State>, usize, io::Result<()>)> {
        let inode = file.metadata()?.ino();
        let node = self.state.lock().by_inode.get(&inode).copied();
        let name = PathBuf::from(node.map_or_else(String::new, |node| format!("#{node}")));
        let (state, result) = self.begin(call, &name, detail);
        // Nobody has a file open that was there before the power went, but those who have not noticed.
        let node = node.ok_or_else(|| io::Error::other(STOPPED))?;
        Ok((state, node, result))
    }
}

const NO_SPACE: i32 = 28;
const INPUT_OUTPUT: i32 = 5;

impl State {
    fn directory(&self, at: usize) -> &Directory {
        self.directories.get(at).expect("every node that a name stands for exists")
    }

    fn directory_mut(&mut self, at: usize) -> &mut Directory {
        self.directories.get_mut(at).expect("every node that a name stands for exists")
    }

    fn source_of(&self, at: usize) -> usize {
        self.directory(at).source.expect("it is being rebuilt")
    }

    fn file(&self, at: usize) -> &FileNode {
        self.files.get(at).expect("every file that a name stands for exists")
    }

    fn file_mut(&mut self, at: usize) -> &mut FileNode {
        self.files.get_mut(at).expect("every file that a name stands for exists")
    }

    fn add_file(&mut self, file: File, contents: Contents, modified_ms: i64) -> io::Result<usize> {
        let inode = file.metadata()?.ino();
        self.files.push(FileNode { contents, modified_ms, file });
        let node = self.files.len() - 1;
        self.by_inode.insert(inode, node);
        Ok(node)
    }

    fn count_loss(&mut self, before: &Contents, after: &[u8]) {
        if before.is_synced() {
            return;
        }
        let visible = before.visible();
        if after == visible {
            self.counts.add("unsynced file survived");
        } else if after.len() > visible.len() {
            self.counts.add("length cut back was longer again");
        } else if visible.starts_with(after) {
            self.counts.add("end of a file lost");
        } else {
            self.counts.add("page torn");
        }
    }

    /// What recovery does, told by what it does to files.
    fn count_recovery(&mut self, path: &Path, what: &'static str) {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let is_log = path
            .file_stem()
            .is_some_and(|stem| Path::new(stem).extension() == Some(OsStr::new("log")));
        if self.activity == "recovery" {
            let what = match (extension, what) {
                ("log", "remove") => "segment removed by recovery",
                ("index" | "timeindex", "replace") => "index rebuilt",
                ("snapshot", "remove") => "snapshot discarded",
                ("cleaned" | "swap", "remove") if is_log => "compaction discarded by recovery",
                ("swap", "rename") if is_log => "compaction completed by recovery",
                ("deleted" | "cleaned", "remove") => "leftover removed by recovery",
                _ => return,
            };
            self.counts.add(what);
        }
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let exists = self.find(&self.state.lock(), path);
        let creates = matches!(how, Open::Create | Open::Replace) && exists.is_none();
        let call = if creates { Call::Create } else { Call::Open };
        let (mut state, result) = self.begin(call, path, &format!("{how:?}"));
        result?;
        let file = OsDisk.open(path, how)?;
        match exists {
            Some(Node::File(node)) if how == Open::Replace => {
                let modified_ms = self.clock.now_ms().0;
                let node = state.file_mut(node);
                node.contents.set_len(0);
                node.modified_ms = modified_ms;
                state.count_recovery(path, "replace");
            }
            Some(Node::File(_)) => {}
            Some(Node::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                let (parent, name) = self.parent(&state, path)?;
                let contents = Contents::default();
                // One of its own: a copy of the handle would keep the lock that somebody may take on it.
                let own = OsDisk.open(path, Open::Write)?;
                let node = state.add_file(own, contents, self.clock.now_ms().0)?;
                state.directory_mut(parent).change(Change::Put(name.to_owned(), Node::File(node)));
            }
        }
        Ok(file)
    }

    fn status(&self, path: &Path) -> io::Result<Status> {
        let (state, result) = self.begin(Call::Open, path, "status");
        result?;
        let status = OsDisk.status(path)?;
        let modified_ms = match self.find(&state, path) {
            Some(Node::File(node)) => state.file(node).modified_ms,
            _ => 0,
        };
        let modified = UNIX_EPOCH + Duration::from_millis(u64::try_from(modified_ms).unwrap_or(0));
        Ok(Status { modified, ..status })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let (mut state, result) = self.begin(Call::Open, directory, "list");
        result?;
        let mut entries = OsDisk.list(directory)?;
        entries.sort();
        state.random.shuffle(&mut entries);
        Ok(entries)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::Create, path, "directory");
        result?;
        OsDisk.create_directory(path)?;
        let (parent, name) = self.parent(&state, path)?;
        state.directories.push(Directory::default());
        let node = Node::Directory(state.directories.len() - 1);
        state.directory_mut(parent).change(Change::Put(name.to_owned(), node));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::Name, from, &format!("to {}", file_name(to)));
        result?;
        assert_eq!(from.parent(), to.parent(), "names stay in their directory");
        OsDisk.rename(from, to)?;
        state.count_recovery(from, "rename");
        state.faults.named(&file_name(to));
        let (parent, from) = self.parent(&state, from)?;
        let change = Change::Rename(from.to_owned(), file_name(to).into());
        state.directory_mut(parent).change(change);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::Name, path, "remove");
        result?;
        OsDisk.remove_file(path)?;
        state.count_recovery(path, "remove");
        let (parent, name) = self.parent(&state, path)?;
        state.directory_mut(parent).change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::Name, path, "remove directory");
        result?;
        let Some(Node::Directory(at)) = self.find(&state, path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        OsDisk.remove_directory(path)?;
        let (parent, name) = self.parent(&state, path)?;
        let names: Vec<OsString> = state.directory(at).visible.keys().cloned().collect();
        names.into_iter().for_each(|name| state.directory_mut(at).change(Change::Remove(name)));
        state.directory_mut(parent).change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let detail = format!("{} at {position}", buffer.len());
        let (state, _, result) = self.begin_on(Call::Read, file, &detail)?;
        result?;
        drop(state);
        OsDisk.read_at(file, buffer, position)
    }

    fn drop_cached(&self, file: &File) -> io::Result<()> {
        let (mut state, node, result) = self.begin_on(Call::Read, file, "anew")?;
        result?;
        let node = state.file_mut(node);
        let mut bytes = node.contents.visible();
        // The length is the inode's, and that stays in memory.
        bytes.resize(usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?, 0);
        let mut cached = vec![0; bytes.len()];
        OsDisk.read_at(&node.file, &mut cached, 0)?;
        if cached != bytes {
            OsDisk.write_at(&node.file, &mut [IoSlice::new(&bytes)], 0)?;
            state.counts.add("cached pages that a failed sync had lost");
        }
        Ok(())
    }

    fn write_at(&self, file: &File, buffers: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|part| part.iter().copied()).collect();
        let detail = format!("{} at {position}", bytes.len());
        let (mut state, node, result) = self.begin_on(Call::Write, file, &detail)?;
        if result.is_err() {
            if state.faults.stopped() {
                return result;
            }
            let kept = state.random.below(bytes.len() + 1);
            bytes.truncate(kept);
        }
        OsDisk.write_at(file, &mut [IoSlice::new(&bytes)], position)?;
        let at = usize::try_from(position).map_err(io::Error::other)?;
        let modified_ms = self.clock.now_ms().0;
        let node = state.file_mut(node);
        node.contents.write(at, bytes);
        node.modified_ms = modified_ms;
        result
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let (mut state, node, result) = self.begin_on(Call::SetLen, file, &len.to_string())?;
        result?;
        let is_shorter = len < file.metadata()?.len();
        OsDisk.set_len(file, len)?;
        if state.activity == "recovery"
            && is_shorter
            && self.extension_of(&state, node).is_some_and(|extension| extension == "log")
        {
            state.counts.add("torn tail cut off");
        }
        let at = usize::try_from(len).map_err(io::Error::other)?;
        let modified_ms = self.clock.now_ms().0;
        let node = state.file_mut(node);
        node.contents.set_len(at);
        node.modified_ms = modified_ms;
        Ok(())
    }

    fn allocate(&self, file: &File, position: u64, len: u64) -> io::Result<()> {
        let detail = format!("{len} at {position}");
        let (_state, _, result) = self.begin_on(Call::Allocate, file, &detail)?;
        result
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let (mut state, node, result) = self.begin_on(Call::Sync, file, "")?;
        if result.is_err() {
            if !state.faults.stopped() {
                let State { files, random, has_failed_sync, .. } = &mut *state;
                *has_failed_sync = true;
                files.get_mut(node).expect("it was found").contents.fail_sync(random);
            }
            return result;
        }
        state.file_mut(node).contents.sync();
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::SyncDirectory, path, "");
        result?;
        match self.find(&state, path) {
            Some(Node::Directory(at)) => {
                state.directory_mut(at).sync();
                Ok(())
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// There is always room by this account: a disk may refuse a write all the same, as where a quota ends.
    fn space(&self, _path: &Path) -> io::Result<DiskSpace> {
        Ok(DiskSpace { total: 1 << 40, usable: 1 << 39 })
    }

    fn sync_file_system(&self, path: &Path, _: &File) -> io::Result<()> {
        let (mut state, result) = self.begin(Call::SyncFileSystem, path, "");
        if state.faults.plan().no_sync_file_system && !state.faults.stopped() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let State { files, directories, random, faults, has_failed_sync, .. } = &mut *state;
        match &result {
            Ok(()) => {
                files.iter_mut().for_each(|node| node.contents.sync());
                directories.iter_mut().for_each(Directory::sync);
            }
            Err(_) if faults.stopped() => {}
            Err(_) => {
                *has_failed_sync = true;
                files.iter_mut().for_each(|node| node.contents.fail_sync(random));
            }
        }
        result
    }
}

impl SimulatedDisk {
    /// Of a file that has a name.
    fn extension_of(&self, state: &State, file: usize) -> Option<OsString> {
        let mut names = state.directories.iter().flat_map(|directory| &directory.visible);
        let (name, _) = names.find(|(_, node)| **node == Node::File(file))?;
        Path::new(name).extension().map(OsStr::to_owned)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
