//! The scrub: reads again, in the background and slowly, what was flushed long ago, and quarantines what the disk has
//! changed. Shell.
//!
//! Each segment is read whole once per interval, and a closed one once more when its last part has never been read.
//! The page cache stays as it is ([`ottla_env::DirectFile`]), so that nobody who reads or writes feels it. What was
//! read when is in memory only: after a start all is due again.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla_env::disk::Open;
use ottla_env::{DirectFile, Disk};

use crate::audit::Source;
use crate::environment::Environment;
use crate::error::{Context, StorageError};
use crate::log::{Auditable, Log};
use crate::names;

/// How often it is looked whether anything is due, at least.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether anything is due, so that a short interval is kept, too.
pub(crate) fn look_interval(scrub_interval_ms: u64) -> Duration {
    Duration::from_millis(scrub_interval_ms).min(LOOK_INTERVAL_MAX)
}

/// What the scrub has done since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
}

/// What the scrub has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    pub bytes: u64,
    pub segments: u64,
}

impl Counters {
    pub(crate) fn progress(&self) -> ScrubProgress {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScrubProgress { bytes: load(&self.bytes), segments: load(&self.segments) }
    }
}

/// When a segment was read whole, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scrubbed {
    pub(crate) at: Duration,
    pub(crate) size: u64,
}

/// Called before so many bytes are read; `false` ends the scrub.
pub(crate) type Pace<'a> = &'a dyn Fn(usize) -> bool;

/// Reads everything in these logs that is due.
pub(crate) fn round(env: &Environment, logs: &[Arc<Log>], pace: Pace<'_>) {
    for log in logs {
        let parts = match log.auditable(|part| is_due(env, part)) {
            Ok(parts) => parts,
            Err(error) => {
                tracing::debug!(partition = %log.topic_partition(), %error, "not scrubbed");
                continue;
            }
        };
        for part in parts {
            match scrub(env, log, &part, pace) {
                Ok(()) => {}
                Err(StorageError::Io { source, .. }) if is_stop(&source) => return,
                // Retention took it away, or the disk can't read it: whoever asks for these records is told.
                Err(error) => {
                    tracing::warn!(partition = %log.topic_partition(), %error, "can't be scrubbed");
                    note(env, &part);
                }
            }
        }
    }
}

fn is_due(env: &Environment, part: &Auditable) -> bool {
    let Some(scrubbed) = part.segment.scrubbed() else { return true };
    let interval = Duration::from_millis(env.options.scrub_interval_ms);
    env.clock.monotonic() >= scrubbed.at.saturating_add(interval)
        || (part.is_sealed && scrubbed.size < part.size)
}

fn scrub(
    env: &Environment,
    log: &Log,
    part: &Auditable,
    pace: Pace<'_>,
) -> Result<(), StorageError> {
    let disk = &*env.disk;
    let path = part.segment.path(names::LOG);
    let reader = match disk.open_direct(&path).context("open", &path)? {
        Some(direct) => Reader::Direct(direct),
        None => Reader::Plain(disk, disk.open(&path, Open::Read).context("open", &path)?),
    };
    let mut source = Paced { reader, pace, bytes: &env.scrubbed.bytes };
    log.audit_segment(part, &mut source)?;
    env.scrubbed.segments.fetch_add(1, Ordering::Relaxed);
    note(env, part);
    Ok(())
}

fn note(env: &Environment, part: &Auditable) {
    part.segment.set_scrubbed(Scrubbed { at: env.clock.monotonic(), size: part.size });
}

enum Reader<'a> {
    Direct(DirectFile),
    Plain(&'a dyn Disk, File),
}

struct Paced<'a> {
    reader: Reader<'a>,
    pace: Pace<'a>,
    bytes: &'a AtomicU64,
}

impl Source for Paced<'_> {
    fn read_at(&mut self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        if !(self.pace)(out.len()) {
            return Err(io::Error::other(Stopped));
        }
        let read = match &mut self.reader {
            Reader::Direct(file) => file.read_at(position, out)?,
            Reader::Plain(disk, file) => disk.read_at(file, out, position)?,
        };
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn was_read_beside(&mut self, bytes: usize) -> io::Result<()> {
        if (self.pace)(bytes) { Ok(()) } else { Err(io::Error::other(Stopped)) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the directory is being closed")]
struct Stopped;

fn is_stop(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopped>())
}

/// How long reading so many bytes may take at least.
pub(crate) fn pause(bytes: usize, bytes_per_second: u64) -> Duration {
    let nanoseconds =
        (bytes as u128).saturating_mul(1_000_000_000) / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_read_twice_a_minute_is_looked_for_as_often() {
        assert_eq!(look_interval(30_000), Duration::from_secs(30));
        assert_eq!(look_interval(7 * 24 * 60 * 60 * 1000), Duration::from_secs(60));
    }

    #[test]
    fn ten_mebibytes_a_second_are_forty_reads() {
        assert_eq!(pause(256 * 1024, 10 << 20), Duration::from_millis(25));
        assert_eq!(pause(0, 1), Duration::ZERO);
        assert!(pause(usize::MAX, 1) > Duration::from_secs(1 << 30));
    }
}
