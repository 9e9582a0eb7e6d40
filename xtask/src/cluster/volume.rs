//! A small file system for each node, which can be full (shell).
//!
//! Needs rights that not every machine gives. Unmounted when it is dropped; the nodes must be gone by then.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::run_ok;

const LIMIT: Duration = Duration::from_secs(20);
const FILLER: &str = "filler";
const CHUNK: usize = 1 << 20;

/// Mounted in memory: what is tried is a disk without space, not one that forgets.
#[derive(Debug)]
pub(super) struct Volume(PathBuf);

impl Volume {
    /// # Errors
    /// Where this machine does not allow it, too.
    pub(super) fn mount(at: &Path, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot create {}", at.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "ottla-test"]).arg(at);
        run_ok(mount, b"", LIMIT)?;
        Ok(Self(at.to_path_buf()))
    }

    /// Whether this machine lets us mount one below `directory`.
    pub(super) fn is_possible(directory: &Path) -> bool {
        Self::mount(&directory.join("probe"), 1).is_ok()
    }

    /// Takes all the space that is left.
    pub(super) fn fill(&self) -> Result<()> {
        let filled = take_all(&self.0.join(FILLER))?;
        ensure!(filled >= CHUNK as u64, "the disk was full already");
        Ok(())
    }

    /// Gives it back.
    pub(super) fn free(&self) -> Result<()> {
        fs::remove_file(self.0.join(FILLER)).context("cannot free a disk")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        // Lazily: whoever still looks into it must not keep it for ever.
        unmount.arg("-l").arg(&self.0);
        run_ok(unmount, b"", LIMIT).ok();
    }
}

/// Lets a file take all the space that its disk has left; how long it is then.
pub(crate) fn take_all(file: &Path) -> Result<u64> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let mut file = opened.context("cannot fill a disk")?;
    let chunk = vec![0; CHUNK];
    // A chunk that does not fit is written as far as it does.
    while file.write_all(&chunk).is_ok() {}
    Ok(file.metadata().context("cannot fill a disk")?.len())
}
