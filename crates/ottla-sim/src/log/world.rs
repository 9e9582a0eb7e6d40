//! The driver: what is done to the directory, in which order, and how each of its processes ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, ManualClock};
use ottla_log::{CreateError, DirectoryOptions, Log, LogConfig, LogDirectory};
use ottla_records::Batches;
use parking_lot::Mutex;

use super::flips::Flip;
use super::model::Model;
use crate::law::{Checked, Law, Violation, law};
use crate::planted::{Bug, PlantedDisk};
use crate::{Plan, Random, SharedRandom, SimulatedDisk};

/// See the module.
pub struct World {
    pub(super) disk: Arc<SimulatedDisk>,
    for_log: Arc<dyn Disk>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) work: Random,
    chance: Arc<SharedRandom>,
    pub(super) directory: Option<LogDirectory>,
    pub(super) heard: Arc<Mutex<BTreeMap<Uuid, i64>>>,
    pub(super) models: BTreeMap<TopicPartition, Model>,
    /// Logs whose first flush is done: they cannot vanish any more.
    durable: BTreeSet<Uuid>,
    pub(super) deleted: BTreeSet<Uuid>,
    pub(super) drawn: u64,
    /// The platform has no sync of a whole file system.
    no_sync_file_system: bool,
    /// From so many files on a flush goes to the journal, which is so long.
    flush_at_once_from: usize,
    journal_bytes: u64,
    pub(super) alive: bool,
    /// Before the directory was opened.
    failed_syncs: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("models", &self.models).finish_non_exhaustive()
    }
}

const LOGS_MAX: usize = 3;
pub(super) const NOW_MS: i64 = 1_000_000;

impl World {
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(NOW_MS)));
        let disk = Arc::new(SimulatedDisk::new(Random::new(seed, 1), Arc::clone(&clock)));
        let for_log: Arc<dyn Disk> = match bug {
            None => Arc::clone(&disk) as _,
            Some(bug) => Arc::new(PlantedDisk::new(bug, Arc::clone(&disk))),
        };
        let mut work = Random::new(seed, 2);
        // Never here: on Linux recovery believes the file of leader epochs, as a sync of the whole file system leaves it.
        let no_sync_file_system = cfg!(not(target_os = "linux")) && work.happens(2_500);
        let flush_at_once_from = if work.happens(6_000) { 1 } else { 8 };
        let journal_bytes = work.between(300, 4_000) as u64;
        Self {
            disk,
            for_log,
            clock,
            work,
            chance: Arc::new(SharedRandom::new(Random::new(seed, 3))),
            directory: None,
            heard: Arc::default(),
            models: BTreeMap::new(),
            durable: BTreeSet::new(),
            deleted: BTreeSet::new(),
            drawn: 0,
            no_sync_file_system,
            flush_at_once_from,
            journal_bytes,
            alive: false,
            failed_syncs: 0,
        }
    }

    #[must_use]
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Lives of several processes, one after the other.
    ///
    /// # Errors
    /// [`Violation`], the first.
    pub fn play(&mut self) -> Checked {
        let path = self.disk.root().join("data");
        self.disk
            .create_directory(&path)
            .and_then(|()| self.disk.sync_directory(self.disk.root()))
            .unwrap();
        self.start(None, true)?;
        for _ in 0..self.work.between(2, 5) {
            self.live()?;
            let clean = self.end()?;
            let flip = if self.work.happens(800) { self.flip_a_bit() } else { None };
            self.start(flip, clean)?;
        }
        if !self.disk.has_failed_sync() {
            self.disk.check();
        }
        Ok(())
    }

    fn live(&mut self) -> Checked {
        let plan = self.draw_plan();
        self.disk.set_plan(plan);
        for _ in 0..self.work.between(3, 50) {
            self.clock.advance(Duration::from_millis(self.work.below(200) as u64));
            let faults = self.disk.faults();
            self.step()?;
            if !self.alive {
                if self.is_poisoned() && !self.disk.has_stopped() {
                    self.go_on_offline()?;
                }
                break;
            }
            self.hear()?;
            if self.disk.faults() != faults || self.work.happens(1_000) {
                self.check_open()?;
            }
        }
        Ok(())
    }

    fn draw_plan(&mut self) -> Plan {
        let work = &mut self.work;
        let stop_in = work.happens(7_000).then(|| work.below(400) as u64);
        let mut rate =
            |often: u32| if work.happens(often) { 50 + work.below(800) as u32 } else { 0 };
        Plan {
            stop_after: None,
            stop_in,
            no_space: rate(2_000),
            read_error: rate(700),
            write_error: rate(1_000),
            name_error: rate(700),
            sync_error: rate(1_000) / 2,
            no_sync_file_system: self.no_sync_file_system,
        }
    }

    fn calm_plan(&self) -> Plan {
        Plan { no_sync_file_system: self.no_sync_file_system, ..Plan::default() }
    }

    /// Ends the process in one way or another. Returns whether it has closed everything.
    fn end(&mut self) -> Checked<bool> {
        let mut clean = false;
        if self.alive && self.work.happens(3_000) {
            self.disk.enter("close");
            let (before, was_offline) = (self.disk.faults(), self.is_poisoned());
            let directory = self.directory.take().expect("it is alive");
            let closed = directory.close(5);
            drop(directory);
            clean = closed.is_ok();
            if let Err(error) = closed {
                let had_reason = was_offline || self.disk.faults() > before;
                law!(Reason, had_reason, "closing failed without a reason: {error}");
                self.disk.count("close failed");
            }
        }
        if clean {
            self.disk.count("clean close");
            for model in self.models.values_mut() {
                model.flushed = model.end;
                self.durable.insert(model.id);
            }
        }
        self.disk.stop();
        self.directory = None;
        self.alive = false;
        self.crash();
        Ok(clean)
    }

    fn crash(&mut self) {
        // Pages that a failed sync has lost are still in the system's cache, as the next process must be told.
        let mark = self.disk.root().join("data/.ottla_sync_failed");
        let is_untold = self.disk.has_failed_sync() && !mark.exists();
        let power = self.work.happens(7_500) || is_untold;
        self.disk.note(|| format!("== crash, power lost: {power}"));
        let is_journaled = self.has_journal();
        if power {
            self.disk.lose_power();
            self.disk.count("power lost");
            if is_journaled {
                self.disk.count("power lost with something in the journal");
            }
        } else {
            self.disk.restart();
            self.disk.count("process killed");
        }
    }

    /// Whether there is something in the journal, of which a later entry may be the first.
    pub(super) fn has_journal(&self) -> bool {
        let names = ["ottla.journal.0", "ottla.journal.1"];
        let mut paths = names.iter().map(|name| self.disk.root().join("data").join(name));
        paths.any(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"OJ01")))
    }

    /// Opens the directory, which may take several processes, and holds every log to what it has promised.
    fn start(&mut self, flip: Option<Flip>, clean: bool) -> Checked {
        let mut attempts = 0;
        let directory = loop {
            attempts += 1;
            let plan = if attempts < 4 && self.work.happens(2_500) {
                Plan { stop_in: Some(self.work.below(120) as u64), ..self.draw_plan() }
            } else {
                self.calm_plan()
            };
            self.disk.set_plan(plan);
            self.disk.enter("recovery");
            let before = self.disk.faults();
            self.failed_syncs = self.disk.failed_syncs();
            match self.open() {
                Ok(directory) if !self.disk.has_stopped() => break directory,
                Ok(directory) => drop(directory),
                Err(error) => {
                    law!(Reason, self.disk.faults() > before, "it cannot be opened: {error}");
                    if !self.disk.has_stopped() {
                        self.disk.count("recovery failed");
                    }
                }
            }
            self.disk.stop();
            self.crash();
        };
        self.disk.set_plan(self.calm_plan());
        self.disk.enter("checks");
        let heard = Arc::clone(&self.heard);
        heard.lock().clear();
        directory.add_listener(Arc::new(move |log: &Arc<Log>, offset: Offset| {
            if let Some(id) = log.topic_id() {
                heard.lock().insert(id, offset.0);
            }
        }));
        self.directory = Some(directory);
        self.alive = true;
        self.check_start(flip, clean && attempts == 1)
    }

    fn open(&self) -> Result<LogDirectory, ottla_log::OpenError> {
        let options = DirectoryOptions {
            recovery_threads: 1,
            open_files_max: 6,
            checkpoint_interval_ms: 1_500,
            producer_id_expiration_ms: i64::MAX,
            flush_at_once_from: self.flush_at_once_from,
            journal_bytes: self.journal_bytes,
            disk: Arc::clone(&self.for_log),
            random: Arc::clone(&self.chance) as _,
            threads: false,
            ..DirectoryOptions::default()
        };
        let clock = Arc::clone(&self.clock);
        let config = LogConfig { index_interval_bytes: 200, ..LogConfig::default() };
        LogDirectory::open(&self.disk.root().join("data"), config, options, clock)
    }

    fn check_start(&mut self, flip: Option<Flip>, clean: bool) -> Checked {
        let logs = self.directory.as_ref().expect("it was opened").logs();
        let mut there = BTreeSet::new();
        for log in logs {
            let name = log.topic_partition().clone();
            let model = self.models.get(&name);
            let is_known = model.is_some_and(|model| log.topic_id() == Some(model.id));
            if !is_known {
                let is_leftover = log.topic_id().is_none_or(|id| self.deleted.contains(&id));
                law!(OpenLog, is_leftover, "nobody knows {name} with the id {:?}", log.topic_id());
                self.disk.count("leftover set aside");
                let directory = self.directory.as_ref().expect("it was opened");
                drop(log);
                directory
                    .set_aside(&name)
                    .map_err(|error| Violation::of(Law::Reason, error.to_string()))?;
                continue;
            }
            there.insert(name.clone());
            // It was about to be deleted, and was not.
            self.deleted.retain(|id| Some(*id) != log.topic_id());
            if let Some(flip) = flip.as_ref().filter(|flip| flip.log == name) {
                self.check_flipped(&log, flip, clean)?;
                self.delete_calmly(&name)?;
                continue;
            }
            let found = self.look_at(&log)?;
            let has_epochs = self.check_epochs(&log, &found.batches);
            let model = self.models.get_mut(&name).expect("it is known");
            let was_restarting = model.restarting;
            let was = (model.batches.len(), model.end);
            let goes_on = model.accept(found).map_err(|it| it.within(&name))?;
            if !goes_on || was_restarting && has_epochs.is_err() {
                self.disk.count("restart interrupted halfway");
                self.delete_calmly(&name)?;
                continue;
            }
            if model.end < was.1 {
                self.disk.count("unflushed records lost");
            } else if model.batches.len() > was.0 {
                self.disk.count("what had failed or been cut off is there");
            }
            if let Some(done) = model.compacted.found_done.take() {
                self.disk.count("compaction found done after a crash");
                done.names().for_each(|what| self.disk.count(what));
            }
            self.durable.insert(model.id);
            log.set_config(Arc::clone(&model.config));
            self.check_indexes(&log)?;
        }
        let gone: Vec<_> =
            self.models.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            let Some(model) = self.models.remove(&name) else { continue };
            if self.deleted.contains(&model.id) {
                continue;
            }
            law!(Flushed, !self.durable.contains(&model.id), "{name} is gone");
            self.deleted.insert(model.id);
            self.disk.count("log gone that was never flushed");
        }
        self.check_open()
    }

    pub(super) fn delete_calmly(&mut self, name: &TopicPartition) -> Checked {
        let model = self.models.remove(name).expect("it is known");
        self.deleted.insert(model.id);
        let directory = self.directory.as_ref().expect("it is open");
        let deleted = self.disk.calmly(|| directory.delete(name));
        law!(Reason, matches!(deleted, Ok(true)), "{name} cannot be deleted: {deleted:?}");
        Ok(())
    }

    /// What has been said to be on the disk.
    fn hear(&mut self) -> Checked {
        let heard = std::mem::take(&mut *self.heard.lock());
        let Some(directory) = &self.directory else { return Ok(()) };
        for (name, model) in &mut self.models {
            let Some(log) = directory.log(name) else { continue };
            let flushed = log.flushed_offset().0.max(heard.get(&model.id).copied().unwrap_or(0));
            law!(OpenLog, flushed <= model.end, "{name}: {flushed} is flushed of {}", model.end);
            if flushed > model.flushed {
                model.flushed = flushed;
                // What was appended after it, and its segment's name.
                model.restarting &= flushed <= model.start;
                self.durable.insert(model.id);
            }
        }
        Ok(())
    }

    /// The value of what was done; `None` when it failed and had a reason to.
    pub(super) fn done<T, E: Display>(
        &mut self,
        activity: &str,
        faults: u64,
        result: Result<T, E>,
    ) -> Checked<Option<T>> {
        let may_be_online = self.disk.failed_syncs() == self.failed_syncs;
        law!(
            FailedSync,
            may_be_online || self.is_poisoned() || self.disk.has_stopped(),
            "the directory is online although {activity} could not sync something"
        );
        let error = match result {
            Ok(value) if !self.disk.has_stopped() => return Ok(Some(value)),
            Ok(_) => "it has stopped".to_owned(),
            Err(error) => error.to_string(),
        };
        self.disk.note(|| format!("{activity} failed: {error}"));
        if self.disk.has_stopped() {
            self.alive = false;
            return Ok(None);
        }
        law!(
            Reason,
            self.disk.faults() > faults || self.is_poisoned() || self.is_full(),
            "{activity} failed without a reason: {error}"
        );
        if self.is_poisoned() {
            self.disk.count(format!("offline after {activity}"));
            self.disk.count("directory offline");
            self.alive = false;
            // Reads go on. What was interrupted may be half done.
            if !matches!(activity, "truncate" | "restart" | "retention" | "compaction") {
                self.check_open()?;
            }
            return Ok(None);
        }
        self.disk.count(format!("{activity} refused"));
        Ok(None)
    }

    /// What a broker still does with a directory that is offline: nothing goes with it that was flushed before.
    fn go_on_offline(&mut self) -> Checked {
        self.disk.enter("offline");
        for _ in 0..self.work.below(5) {
            let names: Vec<TopicPartition> = self.models.keys().cloned().collect();
            let Some(name) = self.work.pick(&names) else { return Ok(()) };
            let directory = self.directory.as_ref().expect("nobody has closed it");
            let (Some(log), model) = (directory.log(name), &self.models[name]) else { continue };
            match self.work.below(4) {
                0 => {
                    self.deleted.insert(model.id);
                    if directory.delete(name).is_ok() {
                        self.models.remove(name);
                        self.disk.count("deleted offline");
                    }
                }
                1 if model.start < model.end => {
                    let cut = log.truncate_to(Offset(model.start));
                    law!(Reason, cut.is_err(), "{name} is cut off in a directory that is offline");
                }
                1 | 2 => _ = directory.checkpoint(),
                _ => directory.housekeep(),
            }
        }
        Ok(())
    }

    /// After a write that had no room, clients wait until the housekeeper lets one try.
    fn is_full(&self) -> bool {
        self.directory.as_ref().is_some_and(LogDirectory::is_full)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.check_health().is_err())
    }

    fn step(&mut self) -> Checked {
        let names: Vec<TopicPartition> = self.models.keys().cloned().collect();
        let Some(name) = self.work.pick(&names).cloned() else { return self.create() };
        let directory = self.directory.as_ref().expect("it is alive");
        let log = directory
            .log(&name)
            .ok_or_else(|| Violation::of(Law::OpenLog, format!("{name} is gone")))?;
        if self.flush_at_once_from == 1 && self.work.happens(2_500) {
            // What is flushed one append after the other is what the journal is for.
            self.append_as_leader(&name, &log)?;
            return if self.alive { self.flush_requested(&log) } else { Ok(()) };
        }
        match self.work.below(100) {
            0..16 => self.append_as_leader(&name, &log),
            16..38 => self.produce(&name, &log),
            38..44 => self.replicate(&name, &log),
            44..46 => self.new_epoch(&name, &log),
            46..52 if self.models[&name].config.compact => self.clean(&name, &log),
            46..58 => self.flush_requested(&log),
            58..61 => self.try_to("flush", |_| log.flush().map(drop)).map(drop),
            61..64 => self.try_to("roll", |_| log.roll()).map(drop),
            64..67 => self.checkpoint(),
            67..73 => {
                self.disk.note(|| "housekeep".to_owned());
                self.disk.enter("housekeeping");
                self.directory.as_ref().expect("it is alive").housekeep();
                self.done::<(), Violation>("housekeeping", 0, Ok(())).map(drop)
            }
            73..76 => self.truncate(&name, &log),
            76..77 => self.restart(&name, &log),
            77..82 => self.delete_records(&name, &log),
            82..88 => self.retain(&name, &log),
            88..90 => self.delete(&name, log),
            90..94 if self.models.len() < LOGS_MAX => self.create(),
            _ if self.models[&name].config.compact && self.work.happens(7_000) => {
                self.clean(&name, &log)
            }
            _ => self.read(&name, &log),
        }
    }

    pub(super) fn try_to<T, E: Display>(
        &mut self,
        activity: &'static str,
        work: impl FnOnce(&LogDirectory) -> Result<T, E>,
    ) -> Checked<Option<T>> {
        self.disk.note(|| activity.to_owned());
        self.disk.enter(activity);
        let faults = self.disk.faults();
        let result = work(self.directory.as_ref().expect("it is alive"));
        self.done(activity, faults, result)
    }

    fn create(&mut self) -> Checked {
        let (topic, partition) = [("t", 0), ("t", 1), ("u", 0)][self.work.below(LOGS_MAX)];
        let name = TopicPartition::new(topic, partition);
        let id = Uuid(u128::from(self.number() + (1 << 40)).to_be_bytes());
        let work = &mut self.work;
        let compact = work.happens(4_000);
        let config = Arc::new(LogConfig {
            compact,
            delete: !compact || work.happens(3_000),
            delete_retention_ms: work.between(1, 800),
            min_cleanable_dirty_ratio: if work.happens(7_000) { 0.0 } else { 0.4 },
            min_compaction_lag_ms: if work.happens(8_000) { 0 } else { work.between(1, 500) },
            max_compaction_lag_ms: if work.happens(7_000) {
                i64::MAX
            } else {
                work.between(1, 500)
            },
            segment_bytes: work.between(300, if compact { 2_000 } else { 5_000 }) as u64,
            segment_ms: work.between(200, 100_000),
            segment_jitter_ms: work.between(0, 100),
            index_interval_bytes: work.between(50, 600) as u64,
            retention_ms: if work.happens(5_000) { -1 } else { work.between(100, 5_000) },
            retention_bytes: if work.happens(5_000) { -1 } else { work.between(0, 10_000) },
            file_delete_delay_ms: work.between(0, 1_000),
            flush_messages: if work.happens(8_000) { i64::MAX } else { work.between(1, 10) },
            flush_ms: if work.happens(8_000) { i64::MAX } else { work.between(1, 1_000) },
            preallocate: work.happens(2_000),
            ..LogConfig::default()
        });
        let known = self.models.contains_key(&name);
        let created = self.try_to("create", |directory| {
            match directory.create(name.clone(), id, Arc::clone(&config)) {
                Err(CreateError::Exists { .. }) if known => Ok(false),
                created => created.map(|_| true),
            }
        })?;
        match created {
            Some(true) => _ = self.models.insert(name, Model::new(id, config)),
            Some(false) => {}
            // It may be there in part, and then nobody misses it.
            None => _ = self.deleted.insert(id),
        }
        Ok(())
    }

    fn flush_requested(&mut self, log: &Log) -> Checked {
        if self.work.happens(5_000) {
            log.join_next_flush();
        }
        self.try_to("flush", |directory| {
            directory.flush_requested();
            directory.check_health()
        })?;
        Ok(())
    }

    fn checkpoint(&mut self) -> Checked {
        let done = self.try_to("checkpoint", LogDirectory::checkpoint)?;
        if done.is_some() {
            self.hear()?;
            for (name, model) in &self.models {
                law!(
                    Flushed,
                    model.flushed == model.end,
                    "{name}: a checkpoint flushed {} of {}",
                    model.flushed,
                    model.end
                );
                self.durable.insert(model.id);
            }
        }
        Ok(())
    }

    fn read(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = &self.models[name];
        let (from, bound) = (self.work.between(model.start, model.end), model.end);
        let wanted = self.work.below(3_000);
        let read = self.try_to("read", |_| {
            let slice =
                log.read(Offset(from), wanted, Offset(bound), true).map_err(|it| it.to_string())?;
            let source = slice.source.map(|source| source.read()).transpose();
            source
                .map(|bytes| bytes.map(|bytes| (slice.first_offset, bytes)))
                .map_err(|it| it.to_string())
        })?;
        let Some(Some((first_offset, bytes))) = read else { return Ok(()) };
        let model = &self.models[name];
        let there = model.there();
        let mut expected = there.iter().skip_while(|batch| batch.next_offset().0 <= from);
        for batch in Batches::new(bytes) {
            let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
            let batch = batch.map_err(|error| format!("{name} at {from}: {error}"))?;
            law!(
                OpenLog,
                batch.base_offset() >= first_offset && expected.next() == Some(&batch),
                "{name}: read at {from} what is not there"
            );
        }
        Ok(())
    }
}
