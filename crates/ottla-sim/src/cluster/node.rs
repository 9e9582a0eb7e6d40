//! A broker: its disk and its clock, and the process that runs on them, or does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, LeaderEpoch, Offset, Timestamp, Uuid};
use ottla_broker::parts::{NamedLog, Registration, Replicas, Waiting};
use ottla_env::{Clock, Disk, ManualClock};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::Image;
use ottla_replication::follower::Fetch;

use super::coordinating::Coordinated;
use super::network::{Follower, Key};
use crate::{Plan, Random, SharedRandom, SimulatedDisk};

/// What a process wants to do later.
#[derive(Debug, Clone)]
pub(super) enum Wake {
    Register,
    Heartbeat,
    /// One more, for a broker that is fenced.
    HeartbeatAgain,
    Flush,
    Housekeep,
    /// Whatever may be due by now.
    Look,
    /// A question to another broker is taken for lost.
    GiveUpFetch(Key, u64),
    GiveUpAlter(u64),
    /// Nobody has let it go, and it goes.
    GiveUpLeaving,
    /// A partition that was taken up is read.
    Load(u64),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: BrokerId,
    seed: u64,
    disks: u64,
    pub(super) disk: Arc<SimulatedDisk>,
    pub(super) clock: Arc<ManualClock>,
    /// When the clock was last set by the world's time.
    clock_set_at: Duration,
    /// In thousandths of the world's.
    pace: u32,
    pub(super) directory_id: Uuid,
    chance: Arc<SharedRandom>,
    pub(super) plan: Plan,
    /// How many commits of the metadata log its disk has.
    pub(super) applied: usize,
    pub(super) process: Option<Process>,
    /// How many processes there were, one after the other.
    pub(super) life: u64,
    pub(super) paused_until: Option<Duration>,
    paused_since: Duration,
    /// Until then whoever applies metadata here is busy: what is committed meanwhile is learned at once.
    pub(super) learns_from: Option<Duration>,
    /// There was something to be learned meanwhile.
    pub(super) metadata_waits: bool,
    pub(super) flush_takes: Duration,
    /// The process ends when it has sent so many messages more.
    pub(super) sends: Option<usize>,
    /// That is why it has ended.
    pub(super) is_cut_short: bool,
    /// The last process that ran here has closed its logs.
    pub(super) is_clean: bool,
}

/// A running broker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) directory: LogDirectory,
    pub(super) replicas: Arc<Replicas>,
    pub(super) image: Image,
    pub(super) applied: usize,
    pub(super) incarnation: Uuid,
    /// Whether what was there at the start has been taken up.
    pub(super) has_begun: bool,
    /// What was there at the start and nothing has come to own.
    pub(super) strays: BTreeSet<NamedLog>,
    pub(super) epoch: Option<i64>,
    /// Whom each partition follows.
    pub(super) follows: BTreeMap<Key, BrokerId>,
    /// What leaders are asked and have not answered.
    pub(super) questions: BTreeMap<Key, Question>,
    /// How often each log was cut off since it last took records: as often it was compared with its leader's.
    pub(super) cut_off: BTreeMap<Key, u32>,
    /// Fetches that wait for records.
    pub(super) parked: Vec<Parked>,
    pub(super) produces: Vec<Unacknowledged>,
    /// What it led, and in which epoch, when its session ended and somebody else was elected. It may have learned that by now.
    pub(super) zombie_in: BTreeMap<Key, LeaderEpoch>,
    /// The partitions of groups that it leads, or has led until now.
    pub(super) coordinators: Vec<Coordinated>,
    /// How many it has taken up.
    pub(super) taken_up: u64,
    /// The one AlterPartition that is under way.
    pub(super) alter: Option<(u64, Waiting)>,
    pub(super) flush_is_due: bool,
    /// It wants to end, and waits for the controller to let it.
    pub(super) leaves: bool,
    /// A log could not be made or deleted: somebody must start the process again.
    pub(super) is_doomed: bool,
    /// When it looks next by itself.
    pub(super) looks_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) leader: BrokerId,
    /// Not for records, but where the leader's log begins and ends.
    pub(super) for_offsets: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Parked {
    pub(super) key: Key,
    pub(super) number: u64,
    pub(super) from: Follower,
    pub(super) fetch: Fetch,
    pub(super) until: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Unacknowledged {
    pub(super) key: Key,
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) number: u64,
    pub(super) base: Offset,
    pub(super) until: Offset,
    pub(super) epoch: LeaderEpoch,
    /// Whoever waits for it does not look before.
    pub(super) looks_from: Duration,
    /// Somebody else had been elected when it was appended, and the leader's session was over.
    pub(super) is_of_zombie: bool,
}

impl Node {
    pub(super) fn new(at: usize, seed: u64) -> Self {
        let id = BrokerId(at as i32 + 1);
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let chance = SharedRandom::new(Random::new(seed, 40 + at as u64));
        let disk = new_disk(seed, at as u64, &clock);
        let mut node = Self {
            id,
            seed,
            disks: 0,
            disk,
            clock,
            clock_set_at: Duration::ZERO,
            pace: 990 + 7 * at as u32,
            directory_id: Uuid::ZERO,
            chance: Arc::new(chance),
            plan: Plan::default(),
            applied: 0,
            process: None,
            life: 0,
            paused_until: None,
            paused_since: Duration::ZERO,
            learns_from: None,
            metadata_waits: false,
            flush_takes: Duration::ZERO,
            sends: None,
            is_cut_short: false,
            is_clean: false,
        };
        node.name_directory();
        node
    }

    fn name_directory(&mut self) {
        self.directory_id = Uuid::from_u128(u128::from(self.disks + 1) << 64 | self.id.0 as u128);
    }

    /// Another disk takes the place of this one; nothing is on it.
    pub(super) fn wipe(&mut self, keeps_name: bool) {
        self.disks += 1;
        self.disk = new_disk(self.seed, self.disks * 100 + self.id.0 as u64, &self.clock);
        self.applied = 0;
        if !keeps_name {
            self.name_directory();
        }
    }

    /// This node's time, which passes as its clock says.
    pub(super) fn time(&mut self, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.clock_set_at);
        self.clock_set_at = now;
        self.clock.advance(elapsed * self.pace / 1_000);
        self.clock.monotonic()
    }

    /// Whether another message leaves this node, or its process ends before that.
    pub(super) fn sends_one(&mut self) -> bool {
        match &mut self.sends {
            Some(0) if !self.disk.has_stopped() => {
                self.disk.stop();
                self.is_cut_short = true;
            }
            Some(0) => {}
            Some(left) => *left -= 1,
            None => {}
        }
        !self.disk.has_stopped()
    }

    pub(super) fn pause(&mut self, now: Duration, until: Duration) {
        (self.paused_since, self.paused_until) = (now, Some(until));
    }

    /// How long it has been paused, if that is over.
    pub(super) fn wake_up(&mut self, now: Duration) -> Option<Duration> {
        self.paused_until.take_if(|until| *until <= now)?;
        Some(now.saturating_sub(self.paused_since))
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some() && self.paused_until.is_none()
    }

    pub(super) fn registration(&self) -> Option<Registration> {
        let epoch = self.process.as_ref()?.epoch?;
        Some(Registration { id: self.id, epoch })
    }

    /// Opens the log directory, as the first thing a process does.
    pub(super) fn open(&self, is_cached: bool) -> Result<LogDirectory, ottla_log::OpenError> {
        let options = DirectoryOptions {
            recovery_threads: 1,
            flush_on_commit: !is_cached,
            open_files_max: 12,
            checkpoint_interval_ms: 4_000,
            high_watermark_interval_ms: 1_500,
            producer_id_expiration_ms: i64::MAX,
            // On every other node all flushes go to the journal.
            flush_at_once_from: if self.id.0 % 2 == 0 { 1 } else { 8 },
            journal_bytes: 20_000,
            disk: Arc::clone(&self.disk) as _,
            random: Arc::clone(&self.chance) as _,
            threads: false,
            ..DirectoryOptions::default()
        };
        let path = self.disk.root().join("data");
        let clock = Arc::clone(&self.clock);
        LogDirectory::open(&path, LogConfig::default(), options, clock)
    }

    /// The process ends here, and nothing of it remains but what is on the disk, or in its cache.
    pub(super) fn end_process(&mut self, loses_power: bool) {
        self.disk.stop();
        if let Some(process) = self.process.take() {
            // They hold the directory's lock, and the directory tells them of flushes.
            for replica in process.replicas.all() {
                process.replicas.remove(replica.topic_id, replica.partition.partition);
            }
        }
        self.life += 1;
        self.paused_until = None;
        (self.learns_from, self.metadata_waits) = (None, false);
        (self.sends, self.is_cut_short) = (None, false);
        self.plan = Plan::default();
        if loses_power {
            self.disk.lose_power();
        } else {
            self.disk.restart();
        }
    }
}

/// A disk that is formatted, and otherwise empty.
fn new_disk(seed: u64, number: u64, clock: &Arc<ManualClock>) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new(Random::new(seed, 1_000 + number), Arc::clone(clock));
    let layer: &dyn Disk = &disk;
    let made = layer.create_directory(&disk.root().join("data"));
    made.and_then(|()| layer.sync_directory(disk.root())).expect("nothing goes wrong yet");
    Arc::new(disk)
}

/// The records of a range, as they are sent.
pub(super) fn bytes_of(source: Option<ottla_log::FileRange>) -> std::io::Result<Bytes> {
    source.map_or_else(|| Ok(Bytes::new()), |range| range.read())
}
