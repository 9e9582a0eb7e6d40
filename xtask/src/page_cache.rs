//! What of a file is in the page cache (shell).

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_ok;

const FINCORE_LIMIT: Duration = Duration::from_secs(10);

/// How many bytes of a file are there, as `fincore` of util-linux asks the kernel (`mincore`): to read it to find out, even
/// without waiting, would bring it back.
pub(crate) fn resident_bytes(file: &Path) -> Result<u64> {
    let mut command = Command::new("fincore");
    command.args(["--bytes", "--noheadings", "--output", "RES"]).arg(file);
    let told = run_ok(command, b"", FINCORE_LIMIT)?.stdout_text();
    told.trim().parse().with_context(|| format!("fincore said {told:?}"))
}

/// Lets go of a file, but for what is dirty.
pub(crate) fn drop_file(file: &File) -> Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).context("cannot drop a file")
}
