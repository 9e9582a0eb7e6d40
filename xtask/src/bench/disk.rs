//! What is left for the disk to do, and how often it was told to make durable what it has, as Linux counts it (shell).

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

/// Flushes that the disk below a directory has done since the system started, by whomever: at least as many as rounds of a
/// broker's flusher meanwhile, of which each waits for one at least.
pub(super) fn flushes(directory: &Path) -> Result<u64> {
    let device = rustix::fs::stat(directory).context("cannot look at the directory")?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    flushes_in(&text).with_context(|| format!("{path} has no flushes"))
}

/// Has the disk write whatever is left on the file system of a directory, by whomever.
pub(super) fn write_everything(directory: &Path) -> Result<()> {
    let opened = File::open(directory).context("cannot open the directory")?;
    rustix::fs::syncfs(&opened).context("cannot flush the file system")
}

/// Behind reads, writes, the queue and discards: Documentation/block/stat.rst.
fn flushes_in(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().nth(15)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_are_the_last_number_but_one() {
        let stat = "  5097253 144484 587749154 17164978 7278645 4016140 1058666720 6733700 0 1601996 24467562 \
            2538787 266 928954528 311778 1963870 257104\n";
        assert_eq!(flushes_in(stat), Some(1_963_870));
        assert_eq!(flushes_in("1 2 3"), None);
    }
}
