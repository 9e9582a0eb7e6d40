//! Real logs that follow each other by the rules of `ottla-replication`, while leaders change and logs begin later: in the end
//! they hold the same bytes, and know the same of them.
//!
//! Anybody may become the leader, whatever it lacks: nothing is promised to clients here, and as much as possible is to be
//! cut off.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{ErrorCode, LeaderEpoch, Offset, SplitMix64};
use ottla_log::{Log, LogConfig, ReadError};
use ottla_records::ControlType;
use ottla_replication::Follower;
use ottla_replication::follower::{
    Answer, Command, EpochEnd, Fetch, LeaderOffsets, LocalLog, Start,
};
use support::{Directory, Draft, marker, read_all};

const NOW: Duration = Duration::from_secs(1);
const NAMES: [&str; 3] = ["a", "b", "c"];

struct Replicas {
    directory: Directory,
    open: Option<support::Open>,
    logs: Vec<Arc<Log>>,
    leader: usize,
    epoch: i32,
    followers: Vec<Follower>,
    random: SplitMix64,
    truncations: usize,
    restarts: usize,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 600, index_interval_bytes: 100, ..LogConfig::default() }
}

fn local(log: &Log) -> LocalLog {
    LocalLog {
        log_start: log.log_start_offset(),
        log_end: log.log_end_offset(),
        flushed: log.flushed_offset(),
        last_epoch: log.latest_epoch(),
    }
}

fn end_of(log: &Log, epoch: LeaderEpoch) -> Option<EpochEnd> {
    let (epoch, end_offset) = log.end_offset_for_epoch(epoch)?;
    Some(EpochEnd { epoch, end_offset })
}

/// What a leader answers, as Kafka's does. The records may end within a batch.
fn serve(
    leader: &Log,
    fetch: &Fetch,
    bytes_max: usize,
) -> (Bytes, Result<Option<EpochEnd>, ErrorCode>) {
    let refused = || (Bytes::new(), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    if let Some(last) = fetch.last_fetched_epoch {
        let Some(end) = end_of(leader, last) else { return refused() };
        if fetch.fetch_offset < leader.log_start_offset() {
            return refused();
        }
        if end.epoch < last || end.end_offset < fetch.fetch_offset {
            return (Bytes::new(), Ok(Some(end)));
        }
    }
    match leader.read(fetch.fetch_offset, bytes_max, leader.log_end_offset(), true) {
        Ok(slice) => (slice.source.map_or_else(Bytes::new, |it| it.read().unwrap()), Ok(None)),
        Err(ReadError::OutOfRange { .. }) => refused(),
        Err(error) => panic!("{error}"),
    }
}

impl Replicas {
    fn new(seed: u64) -> Self {
        let mut directory = Directory::new();
        directory.options.threads = false;
        let open = directory.open(config());
        let logs = NAMES.map(|name| open.create(name, 0)).into();
        let mut replicas = Self {
            directory,
            open: Some(open),
            logs,
            leader: 0,
            epoch: -1,
            followers: Vec::new(),
            random: SplitMix64::new(seed),
            truncations: 0,
            restarts: 0,
        };
        replicas.elect(0);
        replicas
    }

    fn elect(&mut self, leader: usize) {
        self.leader = leader;
        self.epoch += 1;
        self.logs[leader].assign_epoch(LeaderEpoch(self.epoch)).unwrap();
        self.follow();
    }

    fn follow(&mut self) {
        let leader_epoch = LeaderEpoch(self.epoch);
        let start = |log: &Arc<Log>| Start {
            leader_epoch,
            log: local(log),
            high_watermark: log.noted_high_watermark().unwrap_or(Offset::ZERO),
            backoff: Duration::ZERO,
        };
        self.followers = self.logs.iter().map(|log| Follower::new(start(log))).collect();
        for at in 0..3 {
            self.carry_out(at, &Bytes::new());
        }
    }

    fn reopen(&mut self) {
        self.logs.clear();
        self.open.take().unwrap().close();
        let open = self.directory.open(config());
        self.logs = NAMES.map(|name| open.log(name, 0)).into();
        self.open = Some(open);
        self.follow();
    }

    fn write(&mut self) {
        let (log, epoch) = (&self.logs[self.leader], LeaderEpoch(self.epoch));
        let id = self.random.below(3) as i64;
        let known = log.producers();
        let producer = known.get(ottla_base::ProducerId(id));
        let is_open = producer.is_some_and(|it| it.transaction_first_offset.is_some());
        if is_open && self.random.below(3) == 0 {
            let control =
                if self.random.below(2) == 0 { ControlType::Abort } else { ControlType::Commit };
            log.append_batch(marker(control, id, 0, 0, 1_000), epoch).unwrap();
            return;
        }
        let sequence = producer.map_or(0, |it| it.last_sequence() + 1);
        let records = 1 + self.random.below(3) as i64;
        let in_transaction = is_open || self.random.below(4) == 0;
        let draft = Draft { id, in_transaction, ..Draft::new(sequence, records) };
        log.append_produced(draft.build(), epoch).unwrap();
    }

    /// One Fetch, and all that follows from its answer. Returns whether there is more.
    fn fetch(&mut self, at: usize, bytes_max: usize) -> bool {
        if at == self.leader {
            return false;
        }
        let Some(fetch) = self.followers[at].fetch(NOW) else { panic!("{:?}", self.followers[at]) };
        let leader = Arc::clone(&self.logs[self.leader]);
        let (records, answer) = serve(&leader, &fetch, bytes_max);
        let answer = match answer {
            Ok(None) => Answer::Records {
                is_empty: records.is_empty(),
                high_watermark: leader.log_end_offset(),
                log_start: leader.log_start_offset(),
            },
            Ok(Some(end)) => {
                Answer::Diverged { leader: end, local: end_of(&self.logs[at], end.epoch) }
            }
            Err(error) => Answer::Refused(error),
        };
        let is_last = matches!(answer, Answer::Records { is_empty: true, .. });
        self.followers[at].on_answer(&fetch, answer, NOW);
        self.carry_out(at, &records);
        !is_last
    }

    fn carry_out(&mut self, at: usize, records: &Bytes) {
        let (log, leader) = (&self.logs[at], &self.logs[self.leader]);
        let follower = &mut self.followers[at];
        loop {
            let commands = follower.take_commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                match command {
                    Command::Append { up_to } => {
                        log.append_as_follower(records.clone(), up_to).unwrap();
                        follower.on_appended(local(log));
                    }
                    Command::Truncate { to } => {
                        self.truncations += usize::from(to < log.log_end_offset());
                        log.truncate_to(to).unwrap();
                        follower.on_truncated(local(log));
                    }
                    Command::RestartAt(start) => {
                        self.restarts += 1;
                        log.truncate_fully_and_start_at(start).unwrap();
                        follower.on_truncated(local(log));
                    }
                    Command::AskLeaderOffsets => {
                        let (log_start, log_end) =
                            (leader.log_start_offset(), leader.log_end_offset());
                        follower.on_leader_offsets(Ok(LeaderOffsets { log_start, log_end }), NOW);
                    }
                    Command::SetHighWatermark(offset) => log.note_high_watermark(offset),
                    Command::DeleteRecordsTo(offset) => _ = log.delete_records_to(offset).unwrap(),
                    Command::ReportFlushed(report) => {
                        assert!(report.flushed <= log.flushed_offset());
                    }
                }
            }
        }
    }

    fn step(&mut self, deletes: bool) {
        let at = self.random.below(3);
        match self.random.below(100) {
            0..35 => self.write(),
            35..80 => {
                let bytes_max = 1 + self.random.below(900);
                self.fetch(at, bytes_max);
            }
            80..88 => self.elect(at),
            88..92 if deletes => {
                let end = self.logs[self.leader].log_end_offset().0;
                let start = Offset(self.random.below(end as usize + 1) as i64);
                self.logs[self.leader].delete_records_to(start).unwrap();
            }
            88..94 => self.logs[at].roll().unwrap(),
            94..98 => _ = self.logs[at].flush().unwrap(),
            _ => self.reopen(),
        }
    }

    fn catch_up(&mut self) {
        for at in 0..3 {
            let mut fetches = 0;
            while self.fetch(at, 500) {
                fetches += 1;
                assert!(fetches < 1_000, "{at} never arrives: {:?}", self.followers[at]);
            }
        }
    }

    fn compare(&self, seed: u64, deletes: bool) {
        let leader = &self.logs[self.leader];
        // Whoever begins later stays so under a leader that begins earlier.
        let start = self.logs.iter().map(|log| log.log_start_offset()).max().unwrap();
        let end = leader.log_end_offset();
        let from_start = |log: &Log| {
            let mut batches = read_all(log);
            batches.retain(|batch| batch.header().last_offset() >= start.0);
            batches
        };
        for log in &self.logs {
            let name = log.topic_partition();
            assert_eq!(log.log_end_offset(), end, "seed {seed}, {name}");
            assert!(log.log_start_offset() >= leader.log_start_offset(), "seed {seed}, {name}");
            assert_eq!(from_start(log), from_start(leader), "seed {seed}, {name}");
            for offset in start.0..end.0 {
                let epoch = |log: &Log| log.epoch_for_offset(Offset(offset));
                assert_eq!(epoch(log), epoch(leader), "seed {seed}, {name}, offset {offset}");
            }
            if !deletes {
                assert_eq!(log.producers(), leader.producers(), "seed {seed}, {name}");
                let aborted = |log: &Log| {
                    let mut aborted = log.aborted_transactions(&(start..end)).unwrap();
                    aborted.sort_by_key(|it| it.last_offset);
                    aborted
                };
                assert_eq!(aborted(log), aborted(leader), "seed {seed}, {name}");
                assert_eq!(
                    log.last_stable_offset(end),
                    leader.last_stable_offset(end),
                    "seed {seed}, {name}"
                );
            }
        }
    }
}

#[test]
fn logs_that_follow_come_to_hold_the_same_whoever_leads_and_know_the_same_of_it() {
    let (mut truncations, mut restarts) = (0, 0);
    for seed in 0..60 {
        let deletes = seed % 2 == 1;
        let mut replicas = Replicas::new(seed);
        for _ in 0..6 {
            for _ in 0..50 {
                replicas.step(deletes);
            }
            replicas.catch_up();
            replicas.compare(seed, deletes);
        }
        truncations += replicas.truncations;
        restarts += replicas.restarts;
    }
    println!("{truncations} truncations, {restarts} logs that began again");
    assert!(truncations > 100 && restarts > 10, "{truncations}, {restarts}");
}
