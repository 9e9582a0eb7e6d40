//! What a process has used, as Linux tells it (shell).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Linux counts CPU time for user space in hundredths of a second, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Everything mapped and present.
    pub(super) resident: f64,
    /// The same with shared pages divided among those who share them.
    pub(super) proportional: f64,
}

/// User and system time of all threads of a process, also of those that have ended.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    ticks_in(&text).map(|ticks| TICK * ticks).with_context(|| format!("cannot parse {path}"))
}

/// The program's name, in parentheses, may contain spaces and parentheses itself.
fn ticks_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

pub(super) fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory {
        resident: mebibytes(&format!("/proc/{pid}/status"), "VmRSS:")?,
        proportional: mebibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?,
    })
}

/// A field of the form `Name:   123 kB`, in MiB.
pub(crate) fn mebibytes(path: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix(field)).and_then(|rest| {
        rest.trim().strip_suffix("kB").and_then(|number| number.trim().parse::<f64>().ok())
    });
    Ok(kibibytes.with_context(|| format!("{path} has no {field}"))? / 1024.0)
}

/// The threads of a process at this moment.
pub(super) fn threads(pid: u32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_any_program_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 10 20 30 40 150 25 0 0 20 0 9 0 5 1 2";
        assert_eq!(ticks_in(stat), Some(175));
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident > 0.5 && memory.proportional > 0.1);
    }
}
