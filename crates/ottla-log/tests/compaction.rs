//! A compacted log against a map from keys to newest values: whatever is appended, compacted and interrupted, readers
//! find what the map says, every record where it always was, and nothing that was aborted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    reason = "a test stops at what it does not expect, and its numbers are small"
)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, ProducerId, Timestamp};
use ottla_env::{Clock, FaultyDisk};
use ottla_log::{CleanableLogs, CleanerOptions, Log, LogCleaner, LogConfig};
use ottla_records::{BatchBuilder, Compression, ControlType, Record, ValidBatch};
use proptest::prelude::*;
use support::{Directory, Open, configuration, marker, read_all, share_of};

/// One log, all of which is on disk.
#[derive(Debug)]
struct OneLog(Arc<Log>);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.0.log_end_offset())]
    }
}

fn cleaner(log: &Arc<Log>, clock: Arc<dyn Clock>, options: CleanerOptions) -> LogCleaner {
    let options = CleanerOptions { threads: 0, ..options };
    LogCleaner::start(Arc::new(OneLog(Arc::clone(log))), options, clock).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        writer: Writer,
        keys: Vec<(u8, bool)>,
        compression: usize,
    },
    EndTransaction {
        id: i64,
        commit: bool,
    },
    Roll,
    Checkpoint,
    Wait {
        ms: u64,
    },
    Clean {
        keys_max: u64,
    },
    /// A compaction that is killed after so many changes of the disk.
    CleanInterrupted {
        changes: u64,
    },
    Reopen,
    Crash,
    DeleteRecordsTo {
        share: f64,
    },
    TruncateTo {
        share: f64,
    },
}

#[derive(Debug, Clone, Copy)]
enum Writer {
    Anybody,
    Idempotent(i64),
    InTransaction(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let writer = prop_oneof![
        3 => Just(Writer::Anybody),
        2 => (1..3_i64).prop_map(Writer::Idempotent),
        4 => (11..14_i64).prop_map(Writer::InTransaction),
    ];
    let keys = prop::collection::vec((0..8_u8, prop::bool::weighted(0.8)), 1..5);
    let append = (writer, keys, 0..5_usize).prop_map(|(writer, keys, compression)| Step::Append {
        writer,
        keys,
        compression,
    });
    let end =
        (11..14_i64, any::<bool>()).prop_map(|(id, commit)| Step::EndTransaction { id, commit });
    prop_oneof![
        12 => append,
        5 => end,
        4 => Just(Step::Roll),
        1 => Just(Step::Checkpoint),
        2 => (1..4_000_u64).prop_map(|ms| Step::Wait { ms }),
        4 => prop_oneof![2 => Just(1_000_u64), 1 => 3..20_u64]
            .prop_map(|keys_max| Step::Clean { keys_max }),
        3 => (0..60_u64).prop_map(|changes| Step::CleanInterrupted { changes }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => (0.0..1.0).prop_map(|share| Step::DeleteRecordsTo { share }),
        1 => (0.0..1.0).prop_map(|share| Step::TruncateTo { share }),
    ]
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 150,
        delete: false,
        compact: true,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 2_000,
        ..LogConfig::default()
    }
}

/// A record that was appended, and in which transaction.
#[derive(Debug, Clone)]
struct Appended {
    offset: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    transaction: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed(i64),
    Aborted(i64),
}

/// The log, and what ought to be in it.
struct Pair {
    directory: Directory,
    disk: Arc<FaultyDisk>,
    open: Option<Open>,
    records: Vec<Appended>,
    transactions: Vec<(i64, Fate)>,
    sequences: BTreeMap<i64, i32>,
    /// The ends of batches that are in the log, so that a truncation can be foretold.
    batches: Vec<(i64, i64)>,
    end: i64,
    start: i64,
    /// Where the log ended, and was committed, when it was last compacted.
    touched_to: i64,
}

impl Pair {
    fn new() -> Self {
        let disk = Arc::new(FaultyDisk::default());
        let mut directory = Directory::always_due();
        directory.options.disk = Arc::clone(&disk) as _;
        directory.options.threads = false;
        let open = directory.open(config());
        open.create("t", 0);
        Self {
            directory,
            disk,
            open: Some(open),
            records: Vec::new(),
            transactions: Vec::new(),
            sequences: BTreeMap::new(),
            batches: Vec::new(),
            end: 0,
            start: 0,
            touched_to: 0,
        }
    }

    fn log(&self) -> Arc<Log> {
        self.open.as_ref().unwrap().log("t", 0)
    }

    fn reopen(&mut self) {
        self.disk.stop_after(None);
        self.open = Some(self.directory.open(config()));
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { writer, keys, compression } => self.append(*writer, keys, *compression),
            Step::EndTransaction { id, commit } => self.end_transaction(*id, *commit),
            Step::Roll => self.log().roll().unwrap(),
            Step::Checkpoint => self.open.as_ref().unwrap().checkpoint().unwrap(),
            Step::Wait { ms } => {
                self.directory.clock.advance(Duration::from_millis(*ms));
                self.open.as_ref().unwrap().housekeep();
            }
            Step::Clean { keys_max } => self.clean(*keys_max),
            Step::CleanInterrupted { changes } => {
                self.touched_to = self.end;
                self.disk.stop_after(Some(*changes));
                let log = self.log();
                cleaner(&log, self.clock(), CleanerOptions::default()).clean_all_due();
                // What it has left behind cannot be removed from a disk that is gone.
                assert!(self.disk.has_stopped() || !log.is_uncleanable());
                drop(log);
                self.open = None;
                self.reopen();
            }
            Step::Reopen => {
                self.open.take().unwrap().close();
                self.reopen();
            }
            Step::Crash => {
                self.open = None;
                self.reopen();
            }
            Step::DeleteRecordsTo { share } => {
                let target = self.start + share_of(self.end - self.start, *share);
                self.log().delete_records_to(Offset(target)).unwrap();
                self.start = self.start.max(target);
            }
            Step::TruncateTo { share } => {
                // Nobody truncates what was committed, and nothing else is compacted.
                let floor = self.touched_to.max(self.start);
                let target = floor + share_of(self.end - floor, *share);
                // To where a batch ends: it is not truncation that is on trial here.
                let ends = self.batches.iter().map(|(_, last)| last + 1);
                if let Some(target) = ends.filter(|end| *end >= floor && *end <= target).max() {
                    self.truncate(target);
                }
            }
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.directory.clock) as _
    }

    /// Of what is compacted no record may be left that a later one makes obsolete.
    fn clean(&mut self, keys_max: u64) {
        self.touched_to = self.end;
        let log = self.log();
        let dedupe_buffer_bytes = keys_max * 24;
        let options = CleanerOptions {
            dedupe_buffer_bytes,
            io_buffer_bytes: 600,
            ..CleanerOptions::default()
        };
        let cleaned = cleaner(&log, self.clock(), options).clean_all_due();
        assert!(!log.is_uncleanable());
        let Some(cleaned_to) = log.cleaned_to().filter(|_| cleaned > 0) else { return };
        assert!(cleaned_to <= log.last_stable_offset(log.log_end_offset()));
        // Compaction knows nothing of what was deleted before it: a record that hides another is gone with it.
        let newest = self.newest_before(cleaned_to.0);
        for record in committed(&log, Offset(0).max(log.log_start_offset()), cleaned_to) {
            let key = record.key.unwrap().to_vec();
            assert_eq!(
                newest.get(&key).map(|(offset, _)| *offset),
                Some(record.offset.0),
                "{key:?}"
            );
        }
    }

    fn append(&mut self, writer: Writer, keys: &[(u8, bool)], compression: usize) {
        let mut builder = BatchBuilder::new(Compression::ALL[compression]);
        let mut transaction = None;
        if let Writer::Idempotent(id) | Writer::InTransaction(id) = writer {
            let sequence = self.sequences.entry(id).or_insert(0);
            builder = builder.producer(id, 0, *sequence);
            *sequence += i32::try_from(keys.len()).unwrap();
        }
        if let Writer::InTransaction(id) = writer {
            builder = builder.transactional();
            let is_open = |(owner, fate): &(i64, Fate)| *owner == id && *fate == Fate::Open;
            let known = self.transactions.iter().position(is_open);
            transaction = Some(known.unwrap_or_else(|| {
                self.transactions.push((id, Fate::Open));
                self.transactions.len() - 1
            }));
        }
        for (n, (key, has_value)) in keys.iter().enumerate() {
            let offset = self.end + n as i64;
            let key = vec![b'a' + key];
            let value = has_value.then(|| format!("value at {offset}").into_bytes());
            builder.append(Timestamp(1_000 + offset), Some(&key), value.as_deref(), &[]);
            self.records.push(Appended { offset, key, value, transaction });
        }
        self.push(builder.build());
    }

    fn end_transaction(&mut self, id: i64, commit: bool) {
        let control = if commit { ControlType::Commit } else { ControlType::Abort };
        let batch = marker(control, id, 0, 0, 1_000 + self.end);
        for (owner, fate) in &mut self.transactions {
            if *owner == id && *fate == Fate::Open {
                *fate = if commit { Fate::Committed(self.end) } else { Fate::Aborted(self.end) };
            }
        }
        self.push(batch);
    }

    fn push(&mut self, batch: ValidBatch) {
        let log = self.log();
        let appended =
            match batch.header().attributes.is_control() || !batch.header().has_producer_id() {
                true => log.append_batch(batch, LeaderEpoch(0)),
                false => log.append_produced(batch, LeaderEpoch(0)),
            };
        let appended = appended.unwrap();
        assert!(!appended.duplicate);
        self.batches.push((appended.base_offset.0, appended.last_offset.0));
        self.end = appended.last_offset.0 + 1;
    }

    fn truncate(&mut self, target: i64) {
        self.log().truncate_to(Offset(target)).unwrap();
        // The batches up to there may have been compacted away, all of them.
        let kept = self.batches.iter().filter(|(_, last)| *last < target).copied().collect();
        self.batches = kept;
        self.records.retain(|record| record.offset < target);
        let end = self.log().log_end_offset().0;
        assert!(end <= target && self.batches.last().is_none_or(|(_, last)| end > *last));
        self.end = end;
        self.records.retain(|record| record.offset < end);
        self.start = self.start.min(end);
        for (_, fate) in &mut self.transactions {
            if let Fate::Committed(at) | Fate::Aborted(at) = *fate
                && at >= end
            {
                *fate = Fate::Open;
            }
        }
        self.forget_transactions_without_records();
        let producers = self.log().producers();
        for (id, sequence) in &mut self.sequences {
            // Truncation goes back to the last batch that the log still knows, which may be an earlier one.
            *sequence = producers.get(ProducerId(*id)).map_or(0, |it| it.last_sequence() + 1);
        }
    }

    fn forget_transactions_without_records(&mut self) {
        let alive: HashSet<usize> =
            self.records.iter().filter_map(|record| record.transaction).collect();
        for (at, (owner, fate)) in self.transactions.iter_mut().enumerate() {
            if *fate == Fate::Open && !alive.contains(&at) {
                *owner = -1;
                *fate = Fate::Committed(-1);
            }
        }
    }

    fn fate(&self, record: &Appended) -> Option<Fate> {
        record.transaction.map(|at| self.transactions[at].1)
    }

    /// Where each key was written last before an offset, aborted writes left out.
    fn newest_before(&self, end: i64) -> BTreeMap<Vec<u8>, (i64, Option<Vec<u8>>)> {
        let mut newest = BTreeMap::new();
        for record in &self.records {
            if record.offset < end && !matches!(self.fate(record), Some(Fate::Aborted(_))) {
                newest.insert(record.key.clone(), (record.offset, record.value.clone()));
            }
        }
        newest
    }

    fn last_stable_offset(&self) -> i64 {
        let open = |record: &&Appended| self.fate(record) == Some(Fate::Open);
        let first = self.records.iter().find(open).map_or(self.end, |record| record.offset);
        first.max(self.start)
    }

    fn check(&self) {
        let log = self.log();
        assert_eq!(log.log_start_offset(), Offset(self.start));
        assert_eq!(log.log_end_offset(), Offset(self.end));
        let last_stable_offset = self.last_stable_offset();
        assert_eq!(log.last_stable_offset(Offset(self.end)), Offset(last_stable_offset));
        self.check_records(&log);
        self.check_newest(&log, last_stable_offset);
        // What the transaction indexes say of what compaction has dropped may go; once.
        let open = self.open.as_ref().unwrap();
        open.scrub();
        self.check_newest(&log, last_stable_offset);
        open.scrub_changes_no_index();
        for (id, sequence) in self.sequences.iter().filter(|(_, sequence)| **sequence > 0) {
            let producer = log.producers().get(ProducerId(*id)).cloned();
            assert_eq!(producer.map(|it| it.last_sequence() + 1), Some(*sequence), "{id}");
        }
    }

    /// Every record is the one that was appended at its offset.
    fn check_records(&self, log: &Log) {
        let by_offset: BTreeMap<i64, &Appended> =
            self.records.iter().map(|record| (record.offset, record)).collect();
        let mut next = 0;
        for batch in read_all(log) {
            let batch = batch.verify_crc().unwrap();
            assert!(batch.header().base_offset >= next);
            next = batch.next_offset().0;
            if batch.header().attributes.is_control() {
                continue;
            }
            for record in batch.records().unwrap().map(Result::unwrap) {
                let expected = by_offset[&record.offset.0];
                assert_eq!(record.key.as_deref(), Some(&*expected.key));
                assert_eq!(record.value.as_deref(), expected.value.as_deref());
                assert_eq!(record.timestamp, Timestamp(1_000 + record.offset.0));
            }
        }
    }

    /// A reader of committed data ends up with the same map as somebody who has read all along.
    fn check_newest(&self, log: &Log, last_stable_offset: i64) {
        let from = Offset(self.start);
        let mut read = BTreeMap::new();
        for record in committed(log, from, Offset(last_stable_offset)) {
            read.insert(record.key.unwrap().to_vec(), (record.offset.0, record.value));
        }
        for (key, (offset, value)) in self.newest_before(last_stable_offset) {
            let found =
                read.remove(&key).map(|(at, value)| (at, value.map(|value| value.to_vec())));
            if offset < self.start {
                assert_eq!(found, None);
            } else if found.is_none() {
                assert_eq!(value, None, "only a tombstone may be gone: {key:?} at {offset}");
            } else {
                assert_eq!(found, Some((offset, value)), "{key:?}");
            }
        }
        assert_eq!(read, BTreeMap::new());
    }

    /// From any offset a reader goes on with the first batch that ends there or later.
    fn check_reads(&self) {
        let log = self.log();
        let ends: Vec<i64> =
            read_all(&log).iter().map(|batch| batch.header().last_offset()).collect();
        for from in self.start..self.end {
            let slice = log.read(Offset(from), 1, log.log_end_offset(), true).unwrap();
            let expected = ends.iter().find(|end| **end >= from);
            match (slice.source, expected) {
                (None, None) => {}
                (Some(source), Some(end)) => {
                    let bytes = source.read().unwrap();
                    let header = ottla_records::BatchHeader::parse(&bytes).unwrap();
                    assert_eq!(header.last_offset(), *end, "from {from}");
                }
                other => panic!("from {from}: {other:?}"),
            }
        }
    }
}

/// What a reader of committed data gets to see: it leaves out what the log says is aborted, as Kafka's consumer does.
fn committed(log: &Log, from: Offset, to: Offset) -> Vec<Record> {
    let aborted = log.aborted_transactions(&(from..to)).unwrap();
    let mut found = Vec::new();
    for batch in read_all(log) {
        let header = batch.header();
        let is_aborted = header.attributes.is_transactional()
            && aborted.iter().any(|it| {
                it.producer_id.0 == header.producer_id
                    && (it.first_offset.0..it.last_offset.0).contains(&header.base_offset)
            });
        if header.attributes.is_control() || is_aborted {
            continue;
        }
        let records = batch.records().unwrap().map(Result::unwrap);
        found.extend(records.filter(|record| (from..to).contains(&record.offset)));
    }
    found
}

proptest! {
    #![proptest_config(configuration(200))]

    #[test]
    fn a_compacted_log_tells_the_newest_value_of_every_key(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
        pair.check_reads();
    }
}

/// Several segments of every kind of record, most of which compaction drops.
fn filled() -> Pair {
    let mut pair = Pair::new();
    let keys = |from: u8| vec![(from, true), (from + 1, true), (7, true)];
    for round in 0..6_u8 {
        for writer in [Writer::Anybody, Writer::Idempotent(1), Writer::InTransaction(11)] {
            pair.append(writer, &keys(round % 3), usize::from(round % 5));
        }
        pair.end_transaction(11, round % 2 == 0);
        pair.append(Writer::InTransaction(12), &[(round % 4, true)], 0);
        pair.end_transaction(12, false);
        pair.append(Writer::Anybody, &[(5, false)], 0);
        pair.log().roll().unwrap();
    }
    pair
}

#[test]
fn a_crash_after_any_change_of_the_disk_leaves_the_log_as_it_was_or_compacted() {
    let mut interrupted_at = 0;
    let (mut swaps, mut leftovers) = (0, 0);
    loop {
        let mut pair = filled();
        pair.apply(&Step::Checkpoint);
        let end = pair.end;
        pair.disk.stop_after(Some(interrupted_at));
        let log = pair.log();
        let cleaned = cleaner(&log, pair.clock(), CleanerOptions::default()).clean_all_due();
        drop(log);
        let is_done = cleaned > 0 && !pair.disk.has_stopped() && pair.log().cleaned_to().is_some();
        pair.open = None;
        let partition = pair.directory.path().join("t-0");
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(&partition).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let count = |ending: &str| names().iter().filter(|name| name.ends_with(ending)).count();
        swaps += count(".swap");
        leftovers += count(".cleaned");
        pair.reopen();
        for ending in [".swap", ".cleaned"] {
            assert_eq!(count(ending), 0, "after {interrupted_at} changes");
        }
        assert_eq!(pair.log().log_end_offset(), Offset(end));
        pair.check();
        pair.check_reads();
        // The next compaction is no different from one that was never interrupted.
        pair.clean(1_000);
        pair.check();
        pair.check_reads();
        if is_done {
            break;
        }
        interrupted_at += 1;
    }
    assert!(interrupted_at > 20, "{interrupted_at} changes");
    assert!(swaps > 0 && leftovers > 0, "every state was met: {swaps} {leftovers}");
}

#[test]
fn who_reads_while_segments_are_replaced_notices_nothing() {
    let pair = filled();
    let log = pair.log();
    let newest = pair.newest_before(i64::MAX);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) || reads < 3 {
                for (key, (offset, value)) in &newest {
                    if value.is_none() {
                        continue;
                    }
                    let slice = log.read(Offset(*offset), 1, log.log_end_offset(), true).unwrap();
                    let bytes = slice.source.unwrap().read().unwrap();
                    let batch = ottla_records::RawBatch::parse(bytes).unwrap();
                    let mut found = batch.records().unwrap().map(Result::unwrap);
                    let found = found.find(|record| record.offset == Offset(*offset));
                    assert_eq!(found.unwrap().key.as_deref(), Some(&**key));
                }
                reads += 1;
            }
            reads
        });
        for _ in 0..30 {
            log.append_batch(support::batch(1, 10), LeaderEpoch(0)).unwrap();
            log.roll().unwrap();
            let cleaned = cleaner(&log, pair.clock(), CleanerOptions::default()).clean_all_due();
            assert!(cleaned > 0);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 0);
}

#[test]
fn a_batch_with_a_wrong_checksum_stops_the_compaction_of_its_log_and_is_not_copied() {
    let pair = filled();
    let log = pair.log();
    pair.open.as_ref().unwrap().checkpoint().unwrap();
    let path = pair.directory.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let cleaner = cleaner(&log, pair.clock(), CleanerOptions::default());
    assert_eq!(cleaner.clean_all_due(), 0);
    assert!(log.is_uncleanable());
    assert_eq!(log.cleaned_to(), None);
    assert_eq!(cleaner.clean_all_due(), 0);
    let state = cleaner.state();
    assert_eq!((state.cleanings, state.uncleanable_logs), (0, 1));
    assert!(state.uncleanable_bytes > 0);
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "what is damaged stays as it is");
    let names = std::fs::read_dir(pair.directory.path().join("t-0")).unwrap();
    let leftovers = names.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.ends_with(".cleaned") || name.ends_with(".swap")
    });
    assert_eq!(leftovers.count(), 0);
}

/// Two producers whose ids differ by one bit; one aborts, and both commit.
fn side_by_side() -> Pair {
    let mut pair = Pair::new();
    let (one, other) = (Writer::InTransaction(12), Writer::InTransaction(13));
    pair.append(one, &[(0, true)], 0);
    pair.end_transaction(12, true);
    pair.append(one, &[(0, true), (2, true)], 0);
    pair.append(other, &[(3, true)], 0);
    pair.end_transaction(12, false);
    pair.append(one, &[(4, true)], 0);
    pair.append(other, &[(5, true)], 0);
    pair.end_transaction(12, true);
    pair.end_transaction(13, true);
    pair.log().roll().unwrap();
    // What ends these is not compacted yet.
    pair.append(one, &[(6, true)], 0);
    pair.append(other, &[(7, true)], 0);
    pair.log().roll().unwrap();
    pair.end_transaction(12, false);
    pair.end_transaction(13, true);
    pair.append(other, &[(8, true)], 0);
    pair.end_transaction(13, false);
    pair
}

#[test]
fn compaction_goes_by_the_markers_whatever_a_flipped_bit_makes_of_a_transaction_index() {
    // An index of one entry, one of two: version, producer, first offset, marker, last stable offset.
    for bit in 0..3 * 34 * 8 {
        let pair = side_by_side();
        let log = pair.log();
        let entries = std::fs::read_dir(pair.directory.path().join("t-0")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_index = |path: &PathBuf| path.extension().is_some_and(|it| it == "txnindex");
        let mut paths: Vec<_> = paths.filter(is_index).collect();
        paths.sort();
        let mut bytes: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(bytes.iter().map(Vec::len).collect::<Vec<_>>(), [34, 68]);
        let (at, bit_there) = if bit < 34 * 8 { (0, bit) } else { (1, bit - 34 * 8) };
        bytes[at][bit_there / 8] ^= 1 << (bit_there % 8);
        std::fs::write(&paths[at], &bytes[at]).unwrap();
        cleaner(&log, pair.clock(), CleanerOptions::default()).clean_all_due();
        assert!(log.cleaned_to().is_some(), "bit {bit}");
        if at == 0 {
            let aborted = |record: &&Appended| matches!(pair.fate(record), Some(Fate::Aborted(_)));
            let hidden: Vec<_> = pair.records.iter().filter(aborted).map(|it| it.offset).collect();
            let seen = committed(&log, Offset(0), log.log_end_offset());
            assert!(!seen.iter().any(|record| hidden.contains(&record.offset.0)), "bit {bit}");
        }
        for (key, (offset, _)) in pair.newest_before(i64::MAX) {
            let slice = log.read(Offset(offset), 1, log.log_end_offset(), true).unwrap();
            let bytes = slice.source.unwrap().read().unwrap();
            let batch = ottla_records::RawBatch::parse(bytes).unwrap();
            let mut found = batch.records().unwrap().map(Result::unwrap);
            let is_it =
                |it: &Record| it.offset == Offset(offset) && it.key.as_deref() == Some(&*key);
            assert!(found.any(|record| is_it(&record)), "bit {bit}: {offset} is gone");
        }
    }
}

#[test]
fn a_log_with_a_damaged_segment_counts_as_one_that_is_not_compacted_until_its_bytes_are_restored() {
    let pair = filled();
    let log = pair.log();
    let open = pair.open.as_ref().unwrap();
    open.checkpoint().unwrap();
    let path = pair.directory.path().join("t-0/00000000000000000000.log");
    let bytes = std::fs::read(&path).unwrap();
    let scrub_with = |flipped: u8| {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let at = bytes.len() - 1;
        file.write_all_at(&[bytes[at] ^ flipped], at as u64).unwrap();
        log.doubt(Offset(0)).unwrap();
        log.quarantined_count()
    };
    assert_eq!(scrub_with(1), 1);
    let cleaner = cleaner(&log, pair.clock(), CleanerOptions::default());
    for _ in 0..2 {
        assert_eq!(cleaner.clean_all_due(), 0);
        let state = cleaner.state();
        assert_eq!(state.uncleanable_logs, 1);
        assert!(state.uncleanable_bytes > 0);
    }
    assert_eq!(scrub_with(0), 0);
    assert!(cleaner.clean_all_due() > 0);
    assert_eq!((cleaner.state().uncleanable_logs, cleaner.state().uncleanable_bytes), (0, 0));
}

#[test]
fn a_topic_that_is_no_longer_compacted_is_left_alone_and_one_that_is_both_is_shortened_too() {
    let pair = filled();
    let log = pair.log();
    let cleaner = cleaner(&log, pair.clock(), CleanerOptions::default());
    log.set_config(Arc::new(LogConfig { compact: false, ..config() }));
    assert_eq!(cleaner.clean_all_due(), 0);
    let both = LogConfig { delete: true, retention_ms: -1, retention_bytes: 1, ..config() };
    log.set_config(Arc::new(both));
    assert!(cleaner.clean_all_due() > 0);
    let before = log.log_start_offset();
    log.enforce_retention(0, log.log_end_offset()).unwrap();
    assert!(log.log_start_offset() > before);
    // What was deleted is not looked for, and the log goes on to be compacted.
    log.append_batch(support::batch(1, 10), LeaderEpoch(0)).unwrap();
    log.roll().unwrap();
    assert!(cleaner.clean_all_due() > 0);
    log.set_config(Arc::new(LogConfig { delete: false, compact: false, ..config() }));
    let (start, size) = (log.log_start_offset(), log.size_in_bytes());
    log.enforce_retention(i64::MAX, log.log_end_offset()).unwrap();
    assert_eq!(cleaner.clean_all_due(), 0);
    assert_eq!(
        (log.log_start_offset(), log.size_in_bytes()),
        (start, size),
        "the empty policy keeps all"
    );
}

#[test]
fn a_compaction_takes_nothing_of_what_is_kept_for_the_brokers_other_writes() {
    let pair = filled();
    let (log, open) = (pair.log(), pair.open.as_ref().unwrap());
    let cleaner = cleaner(&log, pair.clock(), CleanerOptions::default());
    pair.disk.set_free(Some(100_000));
    open.set_reserved_bytes(50_000);
    assert_eq!(cleaner.clean_all_due(), 0);
    assert!(!log.is_uncleanable() && !open.is_full());
    pair.disk.set_free(Some(2 << 20));
    assert!(cleaner.clean_all_due() > 0);
}

#[test]
fn a_checkpoint_of_what_is_compacted_beyond_the_end_of_a_log_counts_for_nothing() {
    let mut pair = filled();
    pair.open.take().unwrap().close();
    let path = pair.directory.path().join("cleaner-offset-checkpoint");
    std::fs::write(path, format!("0\n1\nt 0 {}\n", pair.end + 10)).unwrap();
    pair.reopen();
    let log = pair.log();
    assert!(log.cleaned_to().is_none_or(|offset| offset <= log.log_start_offset()));
}

#[test]
fn what_is_cut_off_and_written_anew_is_compacted_anew() {
    let mut pair = filled();
    pair.clean(1_000);
    let cleaned_to = pair.log().cleaned_to().unwrap();
    pair.truncate(pair.end / 2);
    let log = pair.log();
    assert!(log.cleaned_to().unwrap() < cleaned_to);
    assert!(log.cleaned_to().unwrap() <= log.log_end_offset());
}

#[test]
fn a_deleted_topics_successor_does_not_inherit_how_far_it_was_compacted() {
    let mut pair = filled();
    pair.clean(1_000);
    assert!(pair.log().cleaned_to().is_some());
    let open = pair.open.as_ref().unwrap();
    let old = pair.log();
    assert!(open.delete(old.topic_partition()).unwrap());
    assert_eq!(open.create("t", 0).cleaned_to(), None);
    // And whoever still holds the old one can do no harm with it.
    assert_eq!(cleaner(&old, pair.clock(), CleanerOptions::default()).clean_all_due(), 0);
    assert!(!old.is_uncleanable());
}

/// Waits for what other threads do.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn threads_compact_by_themselves_and_there_are_as_many_as_the_options_say() {
    let pair = filled();
    let log = pair.log();
    let options = |threads| CleanerOptions {
        threads,
        backoff: Duration::from_millis(1),
        ..CleanerOptions::default()
    };
    let logs = Arc::new(OneLog(Arc::clone(&log)));
    let cleaner = LogCleaner::start(logs, options(1), pair.clock()).unwrap();
    until("the log is compacted", || cleaner.state().cleanings > 0);
    cleaner.reconfigure(options(0));
    until("the thread ends", || cleaner.threads_running() == 0);
    let before = cleaner.state().cleanings;
    log.append_batch(support::batch(1, 10), LeaderEpoch(0)).unwrap();
    log.roll().unwrap();
    cleaner.reconfigure(options(3));
    until("more threads compact", || cleaner.state().cleanings > before);
    assert_eq!(cleaner.threads_running(), 3);
    cleaner.stop();
    assert_eq!(cleaner.threads_running(), 0);
}

#[test]
fn a_cleaner_that_is_held_to_a_rate_stops_at_once_when_it_is_told_to() {
    let pair = filled();
    let log = pair.log();
    let options = CleanerOptions { io_bytes_per_second: 1.0, ..CleanerOptions::default() };
    let logs = Arc::new(OneLog(Arc::clone(&log)));
    let clock: Arc<dyn Clock> = Arc::new(ottla_env::SystemClock::new());
    // A second from its start on, the clock is far enough for the first look at the rate.
    until("some time passes", || clock.monotonic() > Duration::from_millis(350));
    let cleaner = LogCleaner::start(logs, options, clock).unwrap();
    until("the log is being compacted", || cleaner.state().dirtiest_ratio > 0.0);
    cleaner.stop();
    assert_eq!(cleaner.state().cleanings, 0);
    assert_eq!(log.cleaned_to(), None);
}
