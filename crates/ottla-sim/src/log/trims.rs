//! How a log becomes shorter at either end, or goes.

use std::sync::Arc;

use ottla_base::{Offset, TopicPartition};
use ottla_env::Clock;
use ottla_log::Log;

use super::World;
use crate::law::{Checked, law};

impl World {
    pub(super) fn truncate(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let low =
            if self.work.happens(2_000) { model.start } else { model.flushed.max(model.start) };
        let low = low.max(model.compacted.end.min(model.end)).max(model.compacted.bound);
        let offset = self.work.between(low, model.end);
        self.truncate_to(name, log, offset)
    }

    fn truncate_to(&mut self, name: &TopicPartition, log: &Log, offset: i64) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        model.about_to_cut(offset);
        self.heard.lock().remove(&model.id);
        self.disk.note(|| format!("truncate {name} to {offset}"));
        let was_journaled = self.has_journal();
        match self.try_to("truncate", |_| log.truncate_to(Offset(offset)))? {
            Some(()) => {
                if was_journaled && !self.has_journal() {
                    self.disk.count("journal emptied for a truncation");
                }
                self.was_cut(name, log, offset)?;
            }
            None if self.alive => {
                // All of it or nothing, but for what a retry or the next append makes up for.
                let is_cut = log.log_end_offset().0 < self.models[name].end;
                self.disk.count(if is_cut { "truncated in part" } else { "not truncated" });
                if is_cut {
                    self.was_cut(name, log, offset)?;
                }
                if self.work.happens(5_000) {
                    return self.truncate_to(name, log, offset);
                }
            }
            None => {}
        }
        Ok(())
    }

    fn was_cut(&mut self, name: &TopicPartition, log: &Log, offset: i64) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        if offset < model.end {
            model.cut(offset, log.log_end_offset().0)?;
        }
        // Whoever leads after a truncation does so in an epoch of its own.
        model.epoch += 1;
        Ok(())
    }

    pub(super) fn restart(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let offset = self.work.between(model.start, model.end + 5);
        self.restart_at(name, log, offset)
    }

    fn restart_at(&mut self, name: &TopicPartition, log: &Log, offset: i64) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let was_restarting = std::mem::replace(&mut model.restarting, true);
        model.flushed = 0;
        self.heard.lock().remove(&model.id);
        self.disk.note(|| format!("restart {name} at {offset}"));
        match self.try_to("restart", |_| log.truncate_fully_and_start_at(Offset(offset)))? {
            Some(()) => {
                let model = self.models.get_mut(name).expect("it is known");
                model.restart_at(offset);
                model.restarting = false;
                model.epoch += 1;
            }
            None if self.alive => {
                let model = self.models.get_mut(name).expect("it is known");
                let extent = (log.log_start_offset().0, log.log_end_offset().0);
                let is_changed = extent != (model.start, model.end) || log.producers().is_empty();
                let has_restarted = extent == (offset, offset) && is_changed;
                // Not durably before something is appended and flushed.
                model.restarting = has_restarted || was_restarting;
                if has_restarted {
                    model.restart_at(offset);
                    model.epoch += 1;
                }
                self.disk.count(if has_restarted { "restarted in part" } else { "not restarted" });
                if self.work.happens(5_000) {
                    return self.restart_at(name, log, offset);
                }
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn delete_records(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let offset = self.work.between(model.start, model.flushed.max(model.start));
        model.start_max = model.start_max.max(offset);
        self.disk.note(|| format!("delete records of {name} to {offset}"));
        let done = self.try_to("delete records", |_| log.delete_records_to(Offset(offset)))?;
        self.moved_start(name, log, done.map(|start| start.0), offset)
    }

    /// After something that may have let the log start later: an error leaves it as it was, or as it was to be.
    fn moved_start(
        &mut self,
        name: &TopicPartition,
        log: &Log,
        done: Option<i64>,
        high: i64,
    ) -> Checked {
        let is_alive = self.alive;
        let model = self.models.get_mut(name).expect("it is known");
        let start = match done {
            Some(start) => start,
            None if is_alive => log.log_start_offset().0,
            None => return Ok(()),
        };
        let low = model.start;
        law!(
            Start,
            (low..=high.max(low)).contains(&start),
            "{name} starts at {start}, not in {low}..={high}"
        );
        model.start_at(start);
        Ok(())
    }

    pub(super) fn retain(&mut self, name: &TopicPartition, log: &Arc<Log>) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let safe_below = model.flushed;
        model.start_max = model.start_max.max(safe_below);
        let now_ms = self.clock.now_ms().0;
        let done =
            self.try_to("retention", |_| log.enforce_retention(now_ms, Offset(safe_below)))?;
        if done.is_some_and(|removed| removed.segments > 0) {
            self.disk.count("segment deleted by retention");
        }
        if done.is_none() {
            self.models.get_mut(name).expect("it is known").lacks_snapshots = true;
        }
        let start = done.map(|_| log.log_start_offset().0);
        self.moved_start(name, log, start, safe_below)
    }

    pub(super) fn delete(&mut self, name: &TopicPartition, log: Arc<Log>) -> Checked {
        drop(log);
        // From now on it may be gone.
        let id = self.models[name].id;
        self.deleted.insert(id);
        let done = self.try_to("delete", |directory| directory.delete(name))?;
        match done {
            Some(there) => {
                law!(OpenLog, there, "{name} is not there to be deleted");
                self.models.remove(name);
            }
            None if self.alive => self.delete_calmly(name)?,
            None => {}
        }
        Ok(())
    }
}
