//! One compaction of one log: two ways through it, the first to learn the newest offset of each key, the second to write
//! what is kept. Shell; what is kept is decided in [`policy::compaction`](crate::policy::compaction).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ottla_base::{Offset, ProducerId};
use ottla_env::sys;

use super::input::Input;
use super::output::{Cleaned, Output};
use crate::config::LogConfig;
use crate::error::{Context, StorageError};
use crate::log::{Compactable, Log, Overtaken, Source};
use crate::policy::compaction::batches::{Filter, LastWritten, Outcome, Survey, last_written};
use crate::policy::compaction::keys::NewestOffsets;
use crate::policy::compaction::{self, Dirtiness};
use crate::txn_index::AbortedTransaction;

/// After so much written the file system is asked how much is free.
const ASK_EVERY_BYTES: u64 = 1 << 20;

/// How much memory a compaction may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) keys_bytes: u64,
    pub(super) load_factor: f64,
    pub(super) buffer_bytes: usize,
}

/// Why a compaction came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    #[error("the cleaner stops")]
    Stopped,
    #[error("the log was cut off, closed or deleted meanwhile, or is not to be compacted any more")]
    Overtaken,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<Overtaken> for Interrupted {
    fn from(Overtaken: Overtaken) -> Self {
        Self::Overtaken
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Report {
    pub(super) end: Offset,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) batches_dropped: u64,
    pub(super) keys: usize,
    pub(super) keys_max: usize,
}

/// Called after so many bytes were read or written; waits, or says that the work is to end.
pub(super) type Pace<'a> = &'a dyn Fn(usize) -> Result<(), Interrupted>;

/// Compacts a log whose lock for it the caller holds.
pub(super) fn clean(
    log: &Arc<Log>,
    found: Compactable,
    limits: Limits,
    now_ms: i64,
    pace: Pace<'_>,
) -> Result<Report, Interrupted> {
    let truncations = found.truncations;
    let cleaned = clean_uncut(log, found, limits, now_ms, pace);
    // Who reads while the log is cut off reads anything.
    match cleaned {
        Err(Interrupted::Storage(_)) if log.check_compactable() != Ok(truncations) => {
            Err(Interrupted::Overtaken)
        }
        cleaned => cleaned,
    }
}

fn clean_uncut(
    log: &Arc<Log>,
    Compactable { dirtiness, mut sources, truncations }: Compactable,
    limits: Limits,
    now_ms: i64,
    pace: Pace<'_>,
) -> Result<Report, Interrupted> {
    let end = dirtiness.first_uncleanable_offset;
    sources.retain(|source| source.policy.base_offset < end);
    // What a producer has written last lets its earlier batches go: it must be on disk before they are gone.
    let last_written = last_written(&log.producers());
    let log_end_offset = log.log_end_offset();
    log.settle(end)?;
    if log.recovery_point() < log_end_offset {
        log.flush()?;
    }
    let pace = |bytes| {
        // Most batches come from what was read before, and go to what is written later.
        if bytes == 0 {
            return Ok(());
        }
        pace(bytes)?;
        if log.check_compactable()? == truncations { Ok(()) } else { Err(Interrupted::Overtaken) }
    };
    let aborted = log.aborted_by_markers(end, pace)?;
    let mut job = Job {
        log,
        dirtiness,
        config: log.config(),
        last_written,
        aborted,
        limits,
        pace: &pace,
        report: Report::default(),
        unasked: 0,
    };
    let newest = job.survey(&sources)?;
    job.report.end = Offset(newest.latest().0 + 1);
    (job.report.keys, job.report.keys_max) = (newest.len(), newest.max());
    sources.retain(|source| source.policy.base_offset < job.report.end);
    let filter = Filter::new(newest, end, now_ms, job.config.delete_retention_ms);
    job.rewrite(&sources, filter)?;
    log.note_cleaned(job.report.end, truncations)??;
    Ok(job.report)
}

struct Job<'a> {
    log: &'a Arc<Log>,
    dirtiness: Dirtiness,
    config: Arc<LogConfig>,
    last_written: BTreeMap<ProducerId, LastWritten>,
    aborted: Vec<AbortedTransaction>,
    limits: Limits,
    pace: Pace<'a>,
    report: Report,
    /// What may be written before the file system is asked again how much is free.
    unasked: u64,
}

impl Job<'_> {
    /// A compaction takes nothing of what is kept for the broker's other writes: a disk that is full for clients hands over
    /// what it leads.
    fn ask_for_room(&mut self, bytes: u64) -> Result<(), StorageError> {
        if self.unasked < bytes {
            self.unasked = bytes.max(ASK_EVERY_BYTES);
            self.log.check_spare_room(self.unasked)?;
        }
        self.unasked -= bytes;
        Ok(())
    }

    fn aborted_in(&self, range: &Range<Offset>) -> Vec<AbortedTransaction> {
        self.aborted.iter().filter(|it| it.overlaps(range)).copied().collect()
    }

    fn survey(&self, sources: &[Source]) -> Result<NewestOffsets, Interrupted> {
        let (from, end) =
            (self.dirtiness.first_dirty_offset, self.dirtiness.first_uncleanable_offset);
        let mut seed = [0; 16];
        sys::random_bytes(&mut seed).context("draw a seed for", &self.log.home().path())?;
        let records_max = u64::try_from(end.0 - from.0).unwrap_or(0);
        let newest =
            NewestOffsets::new(self.limits.keys_bytes, self.limits.load_factor, records_max, seed);
        let mut survey = Survey::new(from, newest, &self.aborted_in(&(from..end)));
        let after = sources.partition_point(|source| source.policy.base_offset <= from);
        let first = after.saturating_sub(1);
        for (at, source) in sources.iter().enumerate().skip(first) {
            let mut input = Input::from(source, from, self.limits.buffer_bytes)?;
            while let Some(read) = input.next()? {
                (self.pace)(read.bytes_read)?;
                let added = survey.add(&read.batch);
                if added.map_err(|error| input.unusable_at(read.position, &error))?.is_err() {
                    return Ok(survey.finish());
                }
            }
            survey.end_segment(next_base(sources, at, end));
        }
        Ok(survey.finish())
    }

    fn rewrite(&mut self, sources: &[Source], mut filter: Filter) -> Result<(), Interrupted> {
        let segments: Vec<_> = sources.iter().map(|source| source.policy).collect();
        let end = self.dirtiness.first_uncleanable_offset;
        let mut from = 0;
        for count in compaction::group(&segments, end, &self.config) {
            let group = sources.get(from..from + count).unwrap_or_default();
            from += count;
            let after = next_base(sources, from - 1, end);
            let cleaned = self.rewrite_group(group, after, &mut filter)?;
            self.log.swap_in(group, cleaned)??;
        }
        Ok(())
    }

    fn rewrite_group(
        &mut self,
        group: &[Source],
        end: Offset,
        filter: &mut Filter,
    ) -> Result<Cleaned, Interrupted> {
        let Some((first, last)) = group.first().zip(group.last()) else {
            return Err(Interrupted::Overtaken);
        };
        self.unasked = 0;
        let mut output = Output::create(
            self.log.home(),
            first.policy.base_offset,
            self.limits.buffer_bytes,
            self.config.index_interval_bytes,
        )?;
        let filled = self.fill(&mut output, group, end, filter);
        let finished = filled.and_then(|()| Ok(output.finish(last.segment.modified()?)?));
        match finished {
            Ok(()) => Ok(output.into_cleaned()),
            Err(interrupted) => {
                self.log.abandon(&output.into_cleaned());
                Err(interrupted)
            }
        }
    }

    fn fill(
        &mut self,
        output: &mut Output,
        group: &[Source],
        end: Offset,
        filter: &mut Filter,
    ) -> Result<(), Interrupted> {
        for (at, source) in group.iter().enumerate() {
            let range = source.policy.base_offset..next_base(group, at, end);
            filter.expect(&self.aborted_in(&range));
            let mut input = Input::whole(source, self.limits.buffer_bytes)?;
            while let Some(read) = input.next()? {
                (self.pace)(read.bytes_read)?;
                let judged = filter.judge(&read.batch, &self.last_written);
                let verdict = judged.map_err(|error| input.unusable_at(read.position, &error))?;
                if let Some(aborted) = verdict.aborted {
                    output.note_aborted(aborted);
                }
                self.ask_for_room(verdict.size_in_bytes(&read.batch) as u64)?;
                let written = match &verdict.outcome {
                    Outcome::Drop => {
                        self.report.batches_dropped += 1;
                        0
                    }
                    Outcome::Keep => output.append(read.batch.header(), read.batch.body())?,
                    Outcome::Replace(batch) => output.append(batch.header(), batch.body())?,
                };
                (self.pace)(written)?;
                self.report.bytes_read += read.batch.size_in_bytes() as u64;
                self.report.bytes_written += verdict.size_in_bytes(&read.batch) as u64;
            }
        }
        Ok(())
    }
}

/// Where the segment after one of these begins.
fn next_base(sources: &[Source], at: usize, end: Offset) -> Offset {
    sources.get(at + 1).map_or(end, |next| next.policy.base_offset)
}
