//! A quorum of one on a disk that loses what it may: whatever moment a process or the power ends at, while snapshots are
//! written and the log's beginning goes, what was answered is there at the next start.
//!
//! Unlike the other worlds this one has threads, so that a seed does not repeat itself exactly.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use ottla_base::{BrokerId, Timestamp, Uuid};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::{ConfigResource, Image, Outcome};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::{Config, Dependencies, NoTransport, Quorum, SnapshotLimits, Threads};
use ottla_sim::{Plan, Random, SimulatedDisk};

const KEYS: usize = 5;
const LIVES: usize = 12;

fn config() -> Config {
    Config {
        segment_bytes: 700,
        snapshots: SnapshotLimits {
            bytes_between: 900,
            interval_ms: 0,
            retention_bytes: 3000,
            retention_ms: -1,
        },
        ..Config::alone(BrokerId(1), "cluster", Uuid([7; 16]), Uuid([8; 16]))
    }
}

fn open(disk: &Arc<SimulatedDisk>, clock: &Arc<ManualClock>) -> Option<Arc<LogDirectory>> {
    let options = DirectoryOptions {
        disk: Arc::clone(disk) as _,
        threads: false,
        recovery_threads: 1,
        ..DirectoryOptions::default()
    };
    let log_config = LogConfig { file_delete_delay_ms: 0, ..LogConfig::default() };
    let opened = LogDirectory::open(disk.root(), log_config, options, Arc::clone(clock) as _);
    opened.ok().map(Arc::new)
}

fn key(number: usize) -> String {
    format!("group-{}", number % KEYS)
}

/// The number that was last written under this one's key.
fn number_at(image: &Image, number: usize) -> Option<usize> {
    let resource = ConfigResource::group(key(number));
    image.config(&resource).next().map(|(_, value)| value.parse().unwrap())
}

/// What is known of the changes, which are numbered.
#[derive(Debug, Default)]
struct Changes {
    /// By key, the last number that was answered, and the last one that was asked for.
    answered: [Option<usize>; KEYS],
    asked: [Option<usize>; KEYS],
    next: usize,
}

impl Changes {
    fn check(&self, image: &Image, seed: u64) {
        for (at, (answered, asked)) in self.answered.iter().zip(&self.asked).enumerate() {
            let there = number_at(image, at);
            assert!(
                there >= *answered,
                "seed {seed}: {answered:?} was answered, {there:?} is there"
            );
            assert!(there <= *asked, "seed {seed}: {asked:?} was asked for, {there:?} is there");
        }
    }

    /// Makes changes until the disk is gone, or that is enough. Their keys take turns.
    async fn make(&mut self, quorum: &Quorum, count: usize) {
        for _ in 0..count {
            let number = self.next;
            self.next += 1;
            let record = ConfigRecord {
                resource_type: ConfigResource::GROUP,
                resource_name: key(number).into(),
                name: "consumer.session.timeout.ms".into(),
                value: Some(number.to_string().into()),
            };
            *self.asked.get_mut(number % KEYS).unwrap() = Some(number);
            let decision =
                quorum.decide(move |_| Outcome { records: vec![record.into()], reply: () });
            match tokio::time::timeout(Duration::from_secs(10), decision).await {
                Ok(Ok(())) => *self.answered.get_mut(number % KEYS).unwrap() = Some(number),
                Ok(Err(_)) => return,
                Err(_) => panic!("no answer"),
            }
        }
    }
}

/// One process: it starts, makes changes, and ends at any moment. Returns whether it came so far as to lead.
fn live(
    disk: &Arc<SimulatedDisk>,
    clock: &Arc<ManualClock>,
    changes: &mut Changes,
    count: usize,
    seed: u64,
) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(directory) = open(disk, clock) else {
            assert!(disk.has_stopped(), "seed {seed}: it can't be opened");
            return false;
        };
        let dependencies = Dependencies {
            directory,
            clock: Arc::clone(clock) as _,
            publisher: Arc::new(()),
            transport: Arc::new(NoTransport),
            workers: Arc::new(Threads),
        };
        let quorum = match Quorum::start(config(), dependencies).await {
            Ok(quorum) => quorum,
            Err(error) => {
                assert!(disk.has_stopped(), "seed {seed}: it does not start: {error}");
                return false;
            }
        };
        changes.check(&quorum.image(), seed);
        changes.make(&quorum, count).await;
        true
    })
}

fn run(seed: u64) -> usize {
    let mut random = Random::new(seed, 0);
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let disk = Arc::new(SimulatedDisk::new(Random::new(seed, 1), Arc::clone(&clock)));
    let mut changes = Changes::default();
    let mut led = 0;
    for _ in 0..LIVES {
        let stop_in = Some(random.below(600) as u64);
        disk.set_plan(Plan { stop_in, ..Plan::default() });
        led += usize::from(live(&disk, &clock, &mut changes, 200, seed));
        disk.stop();
        if random.below(2) == 0 {
            disk.lose_power();
        } else {
            disk.restart();
        }
        clock.advance(Duration::from_secs(1));
    }
    disk.set_plan(Plan::default());
    assert!(live(&disk, &clock, &mut changes, 200, seed), "seed {seed}");
    let files = disk.files();
    let is_snapshot = |name: &str| name.ends_with(".checkpoint") && name.contains('/');
    let snapshots = files.iter().filter(|(path, _)| is_snapshot(&path.to_string_lossy())).count();
    let first = files.iter().any(|(path, _)| path.ends_with("00000000000000000000.log"));
    assert!(snapshots > 0 && !first, "seed {seed}: the log is still whole");
    led
}

#[test]
fn what_was_answered_outlives_every_end_of_a_process_and_of_the_power() {
    let seeds = 12;
    let led: usize = (0..seeds).map(run).sum();
    assert!(led > LIVES, "hardly any process came so far as to do something: {led}");
}
