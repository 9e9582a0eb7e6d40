//! What a process has used, as Linux tells it (shell).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Everything mapped and present.
    pub(super) resident: f64,
    /// The same with shared pages divided among those who share them.
    pub(super) proportional: f64,
}

/// User and system time of all threads of a process, also of those that have ended, in nanoseconds.
///
/// `/proc/PID/stat` tells the same time in hundredths of a second, which is much where a gigabyte costs a tenth of a
/// second; `/proc/PID/task/*/schedstat` tells nanoseconds, but nothing of threads that have ended. The process's CPU clock
/// has both, and anybody may read it while the process is there, ended or not (clock_getcpuclockid(3)).
#[expect(unsafe_code, reason = "rustix has no clocks of other processes")]
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = cpu_clock(pid).with_context(|| format!("no process has the number {pid}"))?;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` to the address of a live one, and keeps it no longer.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("cannot read the CPU clock of process {pid}"));
    }
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

/// The number of a process's CPU clock, as Linux makes it up (include/linux/posix-timers_types.h): the process's number
/// inverted, and 2 for the time that the scheduler has counted.
fn cpu_clock(pid: u32) -> Option<libc::clockid_t> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0 && *pid < i32::MAX >> 3)?;
    Some(!pid << 3 | 2)
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

    /// In hundredths of a second: user and system time.
    fn ticks(pid: u32) -> u128 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_ascii_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u128>().unwrap()).sum()
    }

    #[test]
    fn the_time_of_threads_that_have_ended_counts_in_nanoseconds() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let work = move || {
            let mut number = 1_u64;
            while cpu_time(pid).unwrap() < before + Duration::from_millis(30) {
                number = std::hint::black_box(number.wrapping_mul(3));
            }
        };
        std::thread::spawn(work).join().unwrap();
        let after = cpu_time(pid).unwrap();
        assert!(after >= before + Duration::from_millis(30));
        assert!(!(after - before).as_nanos().is_multiple_of(10_000_000));
    }

    #[test]
    fn a_process_that_has_ended_tells_its_time_until_somebody_waits_for_it() {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]);
        let mut shell = shell.spawn().unwrap();
        let pid = shell.id();
        while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        let told = cpu_time(pid).unwrap();
        // Linux makes the ticks of the same sum.
        assert!(!told.is_zero() && (told.as_millis() / 10).abs_diff(ticks(pid)) <= 2, "{told:?}");
        shell.wait().unwrap();
        assert!(cpu_time(pid).is_err());
    }

    #[test]
    fn our_own_memory_can_be_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident > 0.5 && memory.proportional > 0.1);
    }
}
