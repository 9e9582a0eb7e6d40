//! The cleaner at work on a log of the world, whatever the disk does meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_base::{Offset, TopicPartition};
use ottla_env::Clock;
use ottla_log::{CleanableLogs, CleanerOptions, Log, LogCleaner};
use ottla_records::{Batches, RawBatch};

use super::World;
use super::compaction::Terms;
use super::flips::is_what_was_offered;
use crate::law::{Checked, law};

/// The log that is to be compacted, and its high watermark.
#[derive(Debug)]
struct OneLog(Arc<Log>, Offset);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.1)]
    }
}

/// The bytes of a key in the cleaner's memory.
const KEY_BYTES: u64 = 24;

impl World {
    pub(super) fn clean(&mut self, name: &TopicPartition, log: &Arc<Log>) -> Checked {
        let cleaner = self.cleaner(name, log)?;
        let terms = self.terms(name, log)?;
        let model = self.models.get_mut(name).expect("it is known");
        model.compacted.interrupted = Some(terms);
        model.compacted.end = model.end;
        let faults = self.disk().faults();
        let cleaned = self.try_to("compaction", |directory| {
            let cleaned = cleaner.clean_all_due();
            let is_told = directory.check_health().map_err(|error| error.to_string());
            is_told.map(|()| cleaned)
        })?;
        // What was flushed for it is flushed, although it may have come no further.
        let model = self.models.get_mut(name).expect("it is known");
        model.flushed = model.flushed.max(log.flushed_offset().0);
        if !self.alive {
            return Ok(());
        }
        let was_interrupted = self.disk().faults() > faults;
        if was_interrupted {
            self.disk().count("compaction interrupted by an error");
        }
        self.take_over(name, log, cleaned.unwrap_or(0) > 0, was_interrupted)
    }

    fn cleaner(&mut self, name: &TopicPartition, log: &Arc<Log>) -> Checked<LogCleaner> {
        let high_watermark = Offset(self.models[name].flushed);
        let keys = if self.work.happens(3_000) { self.work.between(8, 16) } else { 1_000 };
        let options = CleanerOptions {
            threads: 0,
            dedupe_buffer_bytes: keys as u64 * KEY_BYTES,
            io_buffer_bytes: self.work.between(200, 4_000) as usize,
            ..CleanerOptions::default()
        };
        let logs = Arc::new(OneLog(Arc::clone(log), high_watermark));
        let cleaner = LogCleaner::start(logs, options, Arc::clone(&self.clock) as _);
        Ok(cleaner.map_err(|error| error.to_string())?)
    }

    /// What a compaction now is held to.
    fn terms(&self, name: &TopicPartition, log: &Log) -> Checked<Terms> {
        let model = &self.models[name];
        let infos =
            self.disk().calmly(|| log.segment_infos()).map_err(|error| error.to_string())?;
        let active = infos.last().map_or(model.end, |info| info.base_offset.0);
        Ok(Terms {
            bound: active.min(model.last_stable_offset(model.flushed)),
            now_ms: self.clock.now_ms().0,
            min_compaction_lag_ms: model.config.min_compaction_lag_ms,
            delete_retention_ms: model.config.delete_retention_ms,
        })
    }

    /// Holds what a compaction has left to its laws, while the log is open.
    fn take_over(
        &mut self,
        name: &TopicPartition,
        log: &Arc<Log>,
        is_cleaned: bool,
        was_interrupted: bool,
    ) -> Checked {
        let compacted = &mut self.models.get_mut(name).expect("it is known").compacted;
        compacted.is_given_up |= was_interrupted && log.is_uncleanable();
        law!(
            Compaction,
            compacted.is_given_up == log.is_uncleanable(),
            "{name} cannot be compacted, and nothing is wrong with it"
        );
        if compacted.is_given_up {
            self.disk.count("compaction given up for what it has left behind");
        }
        let disk = Arc::clone(&self.disk);
        let found = disk.calmly(|| self.look_at(log))?;
        let model = self.models.get_mut(name).expect("it is known");
        let terms = model.compacted.interrupted.take().expect("it was noted before");
        let done = model
            .compacted_to(&found.batches, terms)
            .map_err(|violation| violation.within(name))?;
        done.names().for_each(|what| disk.count(what));
        law!(
            Compaction,
            is_cleaned || was_interrupted || done.batches == 0,
            "{name}: nothing was due, and is gone"
        );
        if is_cleaned {
            disk.count("compaction ran");
            let model = &self.models[name];
            let cleaned_to = log.cleaned_to().map_or(0, |offset| offset.0);
            law!(
                Compaction,
                cleaned_to <= terms.bound,
                "{name} is compacted to {cleaned_to} of {terms:?}"
            );
            model.check_complete(cleaned_to).map_err(|it| it.within(name))?;
        }
        self.check_open()?;
        disk.calmly(|| self.check_indexes(log))
    }

    /// Compaction copies nothing that is damaged, and what is goes on to be seen by every reader.
    pub(super) fn clean_flipped(&mut self, name: &TopicPartition, log: &Arc<Log>) -> Checked {
        let model = self.models.get_mut(name).expect("it was picked from these");
        if !model.config.compact {
            return Ok(());
        }
        log.set_config(Arc::clone(&model.config));
        model.flushed = log.log_end_offset().0;
        let before = self.damaged_batches(name);
        let cleaner = self.cleaner(name, log)?;
        cleaner.clean_all_due();
        let after = self.damaged_batches(name);
        law!(TurnedBit, before == after, "{name}: compaction has changed what is damaged");
        if log.is_uncleanable() {
            self.disk().count("flip stopped a compaction");
        }
        let model = &self.models[name];
        for batch in self.batches_on_disk(name) {
            if let Ok(batch) = batch.verify_crc() {
                is_what_was_offered(model, &batch)?;
            }
        }
        Ok(())
    }

    fn batches_on_disk(&self, name: &TopicPartition) -> Vec<RawBatch> {
        let folder = std::path::Path::new("data").join(name.to_string());
        let files: BTreeMap<_, _> = self.disk().files().into_iter().collect();
        let is_segment = |path: &std::path::Path| {
            path.starts_with(&folder) && path.extension().is_some_and(|it| it == "log")
        };
        let segments = files.into_iter().filter(|(path, _)| is_segment(path));
        segments.flat_map(|(_, bytes)| Batches::new(bytes.into()).flatten()).collect()
    }

    fn damaged_batches(&self, name: &TopicPartition) -> Vec<bytes::Bytes> {
        let batches = self.batches_on_disk(name).into_iter();
        let damaged = batches.filter(|batch| batch.clone().verify_crc().is_err());
        damaged.map(|batch| batch.bytes().clone()).collect()
    }
}
