//! The driver: what is done to the directory, in which order, and how each of its processes ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, ProducerId, Timestamp, TopicPartition, Uuid};
use ottla_env::{Clock, Disk, ManualClock};
use ottla_log::producers::{Decision, Sender, Written};
use ottla_log::{AppendError, CreateError, DirectoryOptions, Log, LogConfig, LogDirectory, Origin};
use ottla_records::{Batches, ValidBatch, increment_sequence};
use parking_lot::Mutex;

use super::batches::{Draft, marker};
use super::flips::Flip;
use super::model::{Found, Model};
use super::{Checked, Violation, law};
use crate::planted::{Bug, PlantedDisk};
use crate::{Plan, Random, SharedRandom, SimulatedDisk};

/// See the module.
pub struct World {
    disk: Arc<SimulatedDisk>,
    for_log: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    pub(super) work: Random,
    chance: Arc<SharedRandom>,
    directory: Option<LogDirectory>,
    heard: Arc<Mutex<BTreeMap<Uuid, i64>>>,
    pub(super) models: BTreeMap<TopicPartition, Model>,
    /// Logs whose first flush is done: they cannot vanish any more.
    durable: BTreeSet<Uuid>,
    deleted: BTreeSet<Uuid>,
    drawn: u64,
    /// The platform has no sync of a whole file system.
    no_sync_file_system: bool,
    alive: bool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("models", &self.models).finish_non_exhaustive()
    }
}

const LOGS_MAX: usize = 3;
const NOW_MS: i64 = 1_000_000;

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
            alive: false,
        }
    }

    #[must_use]
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Lives of several processes, one after the other.
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
                law!(had_reason, "closing failed without a reason: {error}");
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
        if power {
            self.disk.lose_power();
            self.disk.count("power lost");
        } else {
            self.disk.restart();
            self.disk.count("process killed");
        }
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
            match self.open() {
                Ok(directory) if !self.disk.has_stopped() => break directory,
                Ok(directory) => drop(directory),
                Err(error) => {
                    law!(self.disk.faults() > before, "it cannot be opened: {error}");
                    self.disk.count("recovery failed");
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
                law!(is_leftover, "nobody knows {name} with the id {:?}", log.topic_id());
                self.disk.count("leftover set aside");
                let directory = self.directory.as_ref().expect("it was opened");
                drop(log);
                directory.set_aside(&name).map_err(|error| Violation(error.to_string()))?;
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
            let model = self.models.get_mut(&name).expect("it is known");
            let was = (model.batches.len(), model.end);
            let goes_on =
                model.accept(found).map_err(|it| Violation(format!("{name}: {}", it.0)))?;
            if !goes_on {
                self.disk.count("restart interrupted halfway");
                self.delete_calmly(&name)?;
                continue;
            }
            if model.end < was.1 {
                self.disk.count("unflushed records lost");
            } else if model.batches.len() > was.0 {
                self.disk.count("what had failed or been cut off is there");
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
            law!(!self.durable.contains(&model.id), "{name} is gone");
            self.deleted.insert(model.id);
            self.disk.count("log gone that was never flushed");
        }
        self.check_open()
    }

    fn delete_calmly(&mut self, name: &TopicPartition) -> Checked {
        let model = self.models.remove(name).expect("it is known");
        self.deleted.insert(model.id);
        let directory = self.directory.as_ref().expect("it is open");
        let deleted = self.disk.calmly(|| directory.delete(name));
        law!(matches!(deleted, Ok(true)), "{name} cannot be deleted: {deleted:?}");
        Ok(())
    }

    /// Reads everything that a consumer may.
    fn look_at(&self, log: &Log) -> Checked<Found> {
        let name = log.topic_partition();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let mut batches: Vec<ValidBatch> = Vec::new();
        let mut at = start;
        while at < end {
            let slice = log.read(at, 700, end, true);
            let slice = slice.map_err(|error| format!("{name} cannot be read at {at}: {error}"))?;
            let Some(source) = slice.source else { break };
            let bytes = source.read().map_err(|error| format!("{name} at {at}: {error}"))?;
            let before = at;
            for batch in Batches::new(bytes) {
                let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
                let batch = batch.map_err(|error| format!("{name} at {at}: {error}"))?;
                at = batch.next_offset();
                batches.push(batch);
            }
            law!(at > before, "{name}: nothing is read at {at}");
        }
        let infos = log.segment_infos().map_err(|error| error.to_string())?;
        let first_segment = infos.first().map_or(0, |info| info.base_offset.0);
        let producers = log.producers();
        Ok(Found { start: start.0, end: end.0, batches, producers, first_segment })
    }

    /// Every entry of an index names a batch that is there.
    fn check_indexes(&self, log: &Log) -> Checked {
        let infos = log.segment_infos().map_err(|error| error.to_string())?;
        let files: BTreeMap<_, _> = self.disk.files().into_iter().collect();
        let folder = std::path::Path::new("data").join(log.topic_partition().to_string());
        for info in infos.iter().filter(|info| info.size > 0) {
            let base = info.base_offset.0;
            let file = |suffix| files.get(&folder.join(format!("{base:020}.{suffix}")));
            let segment = file("log").cloned().unwrap_or_default();
            let (mut position, mut by_position, mut times) =
                (0_u32, BTreeMap::new(), BTreeSet::new());
            let mut largest = -1;
            for batch in Batches::new(segment.into()).flatten() {
                let header = *batch.header();
                by_position.insert(position, header.last_offset() - base);
                times.insert((header.max_timestamp, header.last_offset() - base));
                largest = largest.max(header.max_timestamp);
                position += batch.bytes().len() as u32;
            }
            for entry in file("index").into_iter().flat_map(|bytes| bytes.chunks(8)) {
                let numbers = entry.split_first_chunk::<4>().zip(entry.last_chunk::<4>());
                let Some(((relative, _), position)) = numbers else {
                    law!(false, "{}: half an entry in the index of {base}", log.topic_partition());
                    continue;
                };
                let (relative, position) =
                    (u32::from_be_bytes(*relative), u32::from_be_bytes(*position));
                law!(
                    by_position.get(&position) == Some(&i64::from(relative)),
                    "{}: the index of segment {base} says that {relative} is at {position}",
                    log.topic_partition()
                );
            }
            let mut last = -1;
            for entry in file("timeindex").into_iter().flat_map(|bytes| bytes.chunks(12)) {
                let numbers = entry.split_first_chunk::<8>().zip(entry.last_chunk::<4>());
                let Some(((timestamp, _), relative)) = numbers else {
                    law!(
                        false,
                        "{}: half an entry in the time index of {base}",
                        log.topic_partition()
                    );
                    continue;
                };
                let entry =
                    (i64::from_be_bytes(*timestamp), i64::from(u32::from_be_bytes(*relative)));
                law!(
                    times.contains(&entry),
                    "{}: no batch is as the time index of {base} says: {entry:?}",
                    log.topic_partition()
                );
                last = entry.0;
            }
            law!(
                info.is_active || last == largest,
                "{}: the time index of {base} ends at {last}, not {largest}",
                log.topic_partition()
            );
        }
        Ok(())
    }

    /// What is alive is exactly its model.
    fn check_open(&mut self) -> Checked {
        let logs = self.directory.as_ref().expect("it is open").logs();
        law!(logs.len() == self.models.len(), "{} logs, not {}", logs.len(), self.models.len());
        for log in logs {
            let name = log.topic_partition().clone();
            let disk = Arc::clone(&self.disk);
            let found = disk.calmly(|| self.look_at(&log))?;
            let model = self.models.get(&name);
            let model = model.ok_or_else(|| Violation(format!("nobody knows {name}")))?;
            model.check_open(&found).map_err(|it| Violation(format!("{name}: {}", it.0)))?;
            if self.directory.as_ref().is_some_and(|directory| directory.check_health().is_err()) {
                continue;
            }
            for _ in 0..2 {
                let wanted = NOW_MS + self.work.between(-1000, 4000);
                let looked_up = disk.calmly(|| log.offset_for_timestamp(Timestamp(wanted)));
                let looked_up = looked_up.map_err(|error| error.to_string())?.map(|it| it.offset.0);
                let records =
                    model.batches.iter().filter_map(|batch| batch.records().ok()).flatten();
                let mut records = records.flatten().filter(|record| record.offset.0 >= model.start);
                let expected =
                    records.find(|record| record.timestamp.0 >= wanted).map(|it| it.offset.0);
                law!(
                    looked_up == expected,
                    "{name}: at {wanted} {looked_up:?} is found, not {expected:?}"
                );
            }
        }
        Ok(())
    }

    /// What has been said to be on the disk.
    fn hear(&mut self) -> Checked {
        let heard = std::mem::take(&mut *self.heard.lock());
        let Some(directory) = &self.directory else { return Ok(()) };
        for (name, model) in &mut self.models {
            let Some(log) = directory.log(name) else { continue };
            let flushed = log.flushed_offset().0.max(heard.get(&model.id).copied().unwrap_or(0));
            law!(flushed <= model.end, "{name}: {flushed} is flushed of {}", model.end);
            if flushed > model.flushed {
                model.flushed = flushed;
                self.durable.insert(model.id);
            }
        }
        Ok(())
    }

    /// The value of what was done; `None` when it failed and had a reason to.
    fn done<T, E: Display>(
        &mut self,
        activity: &str,
        faults: u64,
        result: Result<T, E>,
    ) -> Checked<Option<T>> {
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
            self.disk.faults() > faults || self.is_poisoned() || self.is_full(),
            "{activity} failed without a reason: {error}"
        );
        if self.is_poisoned() {
            self.disk.count(format!("offline after {activity}"));
            self.disk.count("directory offline");
            self.alive = false;
            // Reads go on. What was interrupted may be half done.
            if !matches!(activity, "truncate" | "restart" | "retention") {
                self.check_open()?;
            }
            return Ok(None);
        }
        self.disk.count(format!("{activity} refused"));
        Ok(None)
    }

    /// After a write that had no room, clients wait until the housekeeper lets one try.
    fn is_full(&self) -> bool {
        self.directory.as_ref().is_some_and(LogDirectory::is_full)
    }

    fn is_poisoned(&self) -> bool {
        self.directory.as_ref().is_some_and(|directory| directory.check_health().is_err())
    }

    fn number(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn step(&mut self) -> Checked {
        let names: Vec<TopicPartition> = self.models.keys().cloned().collect();
        let Some(name) = self.work.pick(&names).cloned() else { return self.create() };
        let directory = self.directory.as_ref().expect("it is alive");
        let log = directory.log(&name).ok_or_else(|| Violation(format!("{name} is gone")))?;
        match self.work.below(100) {
            0..16 => self.append_as_leader(&name, &log),
            16..38 => self.produce(&name, &log),
            38..44 => self.replicate(&name, &log),
            44..46 => self.new_epoch(&name, &log),
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
            _ => self.read(&name, &log),
        }
    }

    fn try_to<T, E: Display>(
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
        let config = Arc::new(LogConfig {
            segment_bytes: work.between(300, 5_000) as u64,
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

    fn draft(&mut self, producer: Option<(i64, i16, i32)>) -> Draft {
        let now_ms = self.clock.now_ms().0;
        let longest = if self.work.happens(500) { 5_000 } else { 250 };
        Draft {
            producer,
            in_transaction: false,
            records: self.work.between(1, 4),
            value_len: self.work.below(longest),
            timestamp: now_ms - self.work.between(0, 300),
            number: self.number(),
        }
    }

    fn append(
        &mut self,
        name: &TopicPartition,
        log: &Log,
        mut batches: Vec<ValidBatch>,
        origin: Origin,
    ) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        if let Origin::Client(epoch) | Origin::Leader(epoch) = origin {
            let mut end = Offset(model.end);
            for batch in &mut batches {
                batch.assign(end, epoch);
                end = batch.next_offset();
            }
        }
        model.offer(&batches);
        let mut given = batches.clone();
        let appended = self.try_to("append", |_| log.append(&mut given, origin))?;
        if appended.is_some() {
            let model = self.models.get_mut(name).expect("it is known");
            model.appended(&batches);
            if self.work.happens(6_000) {
                log.join_next_flush();
            }
        }
        Ok(())
    }

    fn append_as_leader(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let count = self.work.between(1, 3);
        let batches = (0..count).map(|_| self.draft(None).build()).collect();
        let epoch = LeaderEpoch(self.models[name].epoch);
        self.append(name, log, batches, Origin::Leader(epoch))
    }

    fn replicate(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = &self.models[name];
        let (mut at, epoch) = (model.end, model.epoch);
        let mut batches = Vec::new();
        for _ in 0..self.work.between(1, 3) {
            if self.work.happens(1_500) {
                at += self.work.between(1, 3);
            }
            let mut batch = self.draft(None).build();
            batch.assign(Offset(at), LeaderEpoch(epoch));
            at = batch.next_offset().0;
            batches.push(batch);
        }
        self.append(name, log, batches, Origin::Replica)
    }

    fn produce(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let producers = self.models[name].producers();
        let id = self.work.between(1, 3);
        let known = producers.get(ProducerId(id));
        let epoch = known.map_or(0, |producer| producer.epoch);
        let first = if id == 1 { i32::MAX - 20 } else { 0 };
        let sequence = known.map_or(first, |producer| match producer.last_sequence() {
            -1 => 0,
            last => increment_sequence(last, 1),
        });
        let open = known.is_some_and(|producer| producer.transaction_first_offset.is_some());
        let next = Draft { in_transaction: open, ..self.draft(Some((id, epoch, sequence))) };
        let mut sender = Sender::Client;
        let batch = match self.work.below(14) {
            0 => Draft { in_transaction: true, ..next }.build(),
            1 => Draft { producer: Some((id, epoch + 1, 0)), ..next }.build(),
            2 => {
                let sequence = increment_sequence(sequence, 3);
                Draft { producer: Some((id, epoch, sequence)), ..next }.build()
            }
            3 | 4 => {
                sender = Sender::Coordinator;
                let bump = i16::from(self.work.happens(5_000));
                marker(id, epoch + bump, self.work.happens(5_000), next.timestamp)
            }
            // A retry of something that is there, was lost, or was never appended.
            5..8 => {
                let back = self.work.below(7);
                let of_producer = |batch: &&ValidBatch| {
                    let header = batch.header();
                    header.producer_id == id && !header.attributes.is_control()
                };
                let again = self.models[name].offered().rev().filter(of_producer).nth(back);
                let Some(batch) = again else { return Ok(()) };
                batch.clone()
            }
            _ => next.build(),
        };
        let epoch = LeaderEpoch(self.models[name].epoch);
        let origin =
            if sender == Sender::Client { Origin::Client(epoch) } else { Origin::Leader(epoch) };
        match producers.check(&Written::of(&batch), sender) {
            Decision::Append => self.append(name, log, vec![batch], origin),
            Decision::Duplicate(written) => {
                let mut given = [batch];
                let appended = self.try_to("append", |_| log.append(&mut given, origin))?;
                let Some(appended) = appended else { return Ok(()) };
                law!(appended.duplicate, "{name}: a duplicate was appended: {appended:?}");
                law!(
                    appended.base_offset == written.first_offset(),
                    "{name}: a duplicate is {appended:?}"
                );
                self.disk.count("duplicate refused");
                Ok(())
            }
            Decision::Refuse(expected) => {
                let mut given = [batch];
                let refused = self.try_to("append", |_| match log.append(&mut given, origin) {
                    Err(AppendError::Refused(refusal)) => Ok(Some(refusal)),
                    Err(AppendError::Storage(error)) => Err(error),
                    Ok(_) => Ok(None),
                })?;
                let Some(refused) = refused else { return Ok(()) };
                law!(refused == Some(expected), "{name}: {refused:?}, not {expected:?}");
                Ok(())
            }
        }
    }

    fn new_epoch(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        model.epoch += 1;
        let epoch = LeaderEpoch(model.epoch);
        if self.work.happens(5_000) {
            self.try_to("assign epoch", |_| log.assign_epoch(epoch))?;
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

    /// A restart of what went wrong halfway: the replica is taken offline, and its broker restarted.
    fn give_up(&mut self) {
        self.alive = false;
    }

    fn truncate(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let low =
            if self.work.happens(2_000) { model.start } else { model.flushed.max(model.start) };
        let offset = self.work.between(low, model.end);
        model.about_to_cut(offset);
        self.heard.lock().remove(&model.id);
        self.disk.note(|| format!("truncate {name} to {offset}"));
        match self.try_to("truncate", |_| log.truncate_to(Offset(offset)))? {
            Some(()) => {
                let model = self.models.get_mut(name).expect("it is known");
                if offset < model.end {
                    model.cut(offset, log.log_end_offset().0)?;
                }
                // Whoever leads after a truncation does so in an epoch of its own.
                model.epoch += 1;
            }
            None => self.give_up(),
        }
        Ok(())
    }

    fn restart(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let offset = self.work.between(model.start, model.end + 5);
        model.restarting = true;
        model.flushed = 0;
        self.heard.lock().remove(&model.id);
        self.disk.note(|| format!("restart {name} at {offset}"));
        match self.try_to("restart", |_| log.truncate_fully_and_start_at(Offset(offset)))? {
            Some(()) => {
                let model = self.models.get_mut(name).expect("it is known");
                model.restart_at(offset);
                model.epoch += 1;
            }
            None => self.give_up(),
        }
        Ok(())
    }

    fn delete_records(&mut self, name: &TopicPartition, log: &Log) -> Checked {
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
            (low..=high.max(low)).contains(&start),
            "{name} starts at {start}, not in {low}..={high}"
        );
        model.start_at(start);
        Ok(())
    }

    fn retain(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        let safe_below = model.flushed;
        model.start_max = model.start_max.max(safe_below);
        let now_ms = self.clock.now_ms().0;
        let done =
            self.try_to("retention", |_| log.enforce_retention(now_ms, Offset(safe_below)))?;
        if done.is_some_and(|removed| removed.segments > 0) {
            self.disk.count("segment deleted by retention");
        }
        let start = done.map(|_| log.log_start_offset().0);
        self.moved_start(name, log, start, safe_below)
    }

    fn delete(&mut self, name: &TopicPartition, log: Arc<Log>) -> Checked {
        drop(log);
        // From now on it may be gone.
        let id = self.models[name].id;
        self.deleted.insert(id);
        let done = self.try_to("delete", |directory| directory.delete(name))?;
        match done {
            Some(there) => {
                law!(there, "{name} is not there to be deleted");
                self.models.remove(name);
            }
            None if self.alive => self.delete_calmly(name)?,
            None => {}
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
        for batch in Batches::new(bytes) {
            let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
            let batch = batch.map_err(|error| format!("{name} at {from}: {error}"))?;
            law!(
                batch.base_offset() >= first_offset && model.was_offered(&batch),
                "{name}: read what nobody wrote"
            );
        }
        Ok(())
    }
}
