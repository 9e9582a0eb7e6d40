//! A log against a list of batches: whatever is done to both, and however the log's process ends, they agree.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test stops at what it does not expect, and its numbers are small"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use ottla_base::{LeaderEpoch, Offset, ProducerId, Timestamp};
use ottla_log::producers::{Decision, Producers, Sender, Written};
use ottla_log::{AbortedTransaction, AppendError, Appended, Log, LogConfig, Origin};
use ottla_records::{Batches, ControlType, RawBatch, ValidBatch, increment_sequence};
use proptest::prelude::*;
use support::{Directory, Draft, Open, batch_at, configuration, marker, read_all, share_of};

/// What is done to the log.
#[derive(Debug, Clone)]
enum Step {
    Append {
        records: i64,
        value_len: usize,
        timestamp: i64,
    },
    Produce {
        producer: i64,
        records: i64,
        timestamp: i64,
        what: Produced,
    },
    NewEpoch,
    Roll,
    Checkpoint,
    Reopen,
    Crash,
    /// A crash that takes the end of the log with it, from this share of the batches not known to be on disk.
    TornCrash {
        share: f64,
        within: f64,
        cut: bool,
    },
    TruncateTo {
        share: f64,
    },
    DeleteRecordsTo {
        share: f64,
    },
    EnforceRetention,
}

/// What an idempotent producer does.
#[derive(Debug, Clone, Copy)]
enum Produced {
    Next,
    InTransaction,
    InNewEpoch,
    WithGap,
    /// Sends its last batch but so many again.
    Again(usize),
    /// Its coordinator ends its transaction, in the same epoch or the next one.
    Marker(ControlType, i16),
}

fn produced() -> impl Strategy<Value = Produced> {
    prop_oneof![
        6 => Just(Produced::Next),
        2 => Just(Produced::InTransaction),
        1 => Just(Produced::InNewEpoch),
        1 => Just(Produced::WithGap),
        3 => (0..7_usize).prop_map(Produced::Again),
        1 => (0..2_i16).prop_map(|bump| Produced::Marker(ControlType::Commit, bump)),
        2 => (0..2_i16).prop_map(|bump| Produced::Marker(ControlType::Abort, bump)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let append = (1..5_i64, 0..300_usize, 0..10_000_i64)
        .prop_map(|(records, value_len, timestamp)| Step::Append { records, value_len, timestamp });
    let produce = (1..4_i64, 1..5_i64, 0..10_000_i64, produced()).prop_map(
        |(producer, records, timestamp, what)| Step::Produce { producer, records, timestamp, what },
    );
    let torn = (0.0..1.0, 0.0..1.0, any::<bool>())
        .prop_map(|(share, within, cut)| Step::TornCrash { share, within, cut });
    prop_oneof![
        10 => append,
        14 => produce,
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Roll),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        2 => torn,
        1 => (0.0..1.0).prop_map(|share| Step::TruncateTo { share }),
        1 => (0.0..1.0).prop_map(|share| Step::DeleteRecordsTo { share }),
        1 => Just(Step::EnforceRetention),
    ]
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 250,
        retention_ms: -1,
        retention_bytes: 6000,
        ..LogConfig::default()
    }
}

/// What batches ought to make of transactions.
#[derive(Debug, Default)]
struct Transactions {
    /// Where they have begun.
    open: BTreeMap<i64, i64>,
    /// From first offset to marker, whichever it is.
    ended: Vec<(i64, i64)>,
    aborted: Vec<AbortedTransaction>,
}

impl Transactions {
    fn append(&mut self, batch: &ValidBatch) {
        let header = batch.header();
        if !header.attributes.is_control() {
            if header.attributes.is_transactional() {
                self.open.entry(header.producer_id).or_insert(header.base_offset);
            }
            return;
        }
        let Some(first_offset) = self.open.remove(&header.producer_id) else { return };
        let last_offset = header.last_offset();
        self.ended.push((first_offset, last_offset));
        if is_abort(batch) {
            let first_open = self.open.values().copied().min();
            self.aborted.push(AbortedTransaction {
                producer_id: ProducerId(header.producer_id),
                first_offset: Offset(first_offset),
                last_offset: Offset(last_offset),
                last_stable_offset: Offset(first_open.unwrap_or(last_offset + 1)),
            });
        }
    }

    /// What is decided below a high watermark, in a log that begins at this offset.
    fn last_stable_offset(&self, start: i64, high_watermark: i64) -> Offset {
        let ended_above = self.ended.iter().filter(|(_, marker)| *marker >= high_watermark);
        let undecided = self.open.values().chain(ended_above.map(|(first, _)| first)).min();
        Offset(undecided.map_or(high_watermark, |first| (*first).max(start).min(high_watermark)))
    }

    fn aborted_in(&self, range: &Range<Offset>) -> Vec<AbortedTransaction> {
        let has_records_there =
            |it: &&AbortedTransaction| it.last_offset >= range.start && it.first_offset < range.end;
        self.aborted.iter().filter(has_records_there).copied().collect()
    }
}

fn is_abort(marker: &ValidBatch) -> bool {
    let record = RawBatch::parse(marker.to_bytes()).unwrap().records().unwrap().next();
    record.unwrap().unwrap().key.unwrap() == ControlType::Abort.key()[..]
}

/// A crash takes the end of a transaction index, too: from this share on of what is about markers not known to be on disk.
fn tear_aborted(path: &Path, doubtful_from: i64, within: f64, cut: bool) {
    const ENTRY_LEN: usize = 34;
    let Ok(mut bytes) = fs::read(path) else { return };
    let is_durable = |entry: &&[u8]| {
        let marker = i64::from_be_bytes(entry[18..26].try_into().unwrap());
        marker < doubtful_from
    };
    let durable = ENTRY_LEN * bytes.chunks_exact(ENTRY_LEN).take_while(is_durable).count();
    let at = durable + share_of((bytes.len() - durable) as i64, within) as usize;
    if cut {
        bytes.truncate(at);
    } else {
        bytes[at..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    }
    fs::write(path, bytes).unwrap();
}

/// The log, and what ought to be in it.
struct Pair {
    directory: Directory,
    open: Option<Open>,
    batches: Vec<RawBatch>,
    /// Those from before the log's start as well: producers are remembered although their records are deleted.
    history: Vec<ValidBatch>,
    end: i64,
    start: i64,
    epoch: i32,
    /// So many of the batches are known to be on disk.
    durable: usize,
}

impl Pair {
    fn new() -> Self {
        let directory = Directory::always_due();
        let open = directory.open(config());
        open.create("t", 0);
        let open = Some(open);
        let (batches, history) = (Vec::new(), Vec::new());
        Self { directory, open, batches, history, end: 0, start: 0, epoch: 0, durable: 0 }
    }

    fn log(&self) -> std::sync::Arc<Log> {
        self.open.as_ref().unwrap().log("t", 0)
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Append { records, value_len, timestamp } => {
                let batch = batch_at(records, value_len, timestamp);
                self.log().append_batch(batch.clone(), LeaderEpoch(self.epoch)).unwrap();
                self.appended(batch);
            }
            Step::Produce { producer, records, timestamp, what } => {
                self.produce(producer, records, timestamp, what);
            }
            Step::NewEpoch => self.epoch += 1,
            Step::Roll => self.log().roll().unwrap(),
            Step::Checkpoint => {
                self.open.as_ref().unwrap().checkpoint().unwrap();
                self.durable = self.batches.len();
            }
            Step::Reopen => {
                self.open.take().unwrap().close();
                self.reopen();
            }
            Step::Crash => {
                self.open = None;
                self.reopen();
            }
            Step::TornCrash { share, within, cut } => self.crash_torn(share, within, cut),
            Step::TruncateTo { share } => {
                let target = self.start + share_of(self.end - self.start, share);
                self.log().truncate_to(Offset(target)).unwrap();
                self.batches.retain(|batch| batch.header().next_offset() <= target);
                self.history.retain(|batch| batch.next_offset() <= Offset(target));
                self.end = self.batches.last().map_or(self.start, |b| b.header().next_offset());
                self.start = self.start.min(self.end);
                self.durable = self.durable.min(self.batches.len());
            }
            Step::DeleteRecordsTo { share } => {
                let target = self.start + share_of(self.end - self.start, share);
                self.log().delete_records_to(Offset(target)).unwrap();
                self.start = self.start.max(target);
                self.drop_before_start();
            }
            Step::EnforceRetention => {
                self.log().enforce_retention(0, Offset(self.end)).unwrap();
                self.start = self.log().log_start_offset().0;
                self.drop_before_start();
                // It notes that what goes is on disk, and with it what follows.
                let point = self.recovery_point();
                let before = |batch: &RawBatch| batch.header().next_offset() <= point;
                let noted = self.batches.partition_point(before);
                self.durable = self.durable.max(noted);
            }
        }
    }

    /// What the directory's checkpoint says of this log.
    fn recovery_point(&self) -> i64 {
        let path = self.directory.path().join("recovery-point-offset-checkpoint");
        let text = fs::read_to_string(path).unwrap_or_default();
        let point = text.lines().find_map(|line| line.strip_prefix("t 0 "));
        point.map_or(0, |point| point.parse().unwrap())
    }

    fn appended(&mut self, mut batch: ValidBatch) {
        batch.assign(Offset(self.end), LeaderEpoch(self.epoch));
        self.end = batch.next_offset().0;
        self.batches.push(RawBatch::parse(batch.to_bytes()).unwrap());
        self.history.push(batch);
    }

    /// What the log ought to know of its producers.
    fn producers(&self) -> Producers {
        let mut producers = Producers::default();
        self.history.iter().for_each(|batch| producers.append(&Written::of(batch)));
        producers
    }

    fn transactions(&self) -> Transactions {
        let mut transactions = Transactions::default();
        self.history.iter().for_each(|batch| transactions.append(batch));
        transactions
    }

    fn produce(&mut self, id: i64, records: i64, timestamp: i64, what: Produced) {
        let producers = self.producers();
        let known = producers.get(ProducerId(id));
        let epoch = known.map_or(0, |producer| producer.epoch);
        // Some begin so that they soon wrap.
        let first = if id == 1 { i32::MAX - 20 } else { 0 };
        let sequence = known.map_or(first, |producer| match producer.last_sequence() {
            -1 => 0,
            last => increment_sequence(last, 1),
        });
        let in_transaction = known.is_some_and(|it| it.transaction_first_offset.is_some());
        let next = Draft { id, epoch, sequence, records, timestamp, in_transaction };
        let batch = match what {
            Produced::Next => next.build(),
            Produced::InTransaction => Draft { in_transaction: true, ..next }.build(),
            Produced::InNewEpoch => Draft { epoch: epoch + 1, sequence: 0, ..next }.build(),
            Produced::WithGap => {
                Draft { sequence: increment_sequence(sequence, 3), ..next }.build()
            }
            Produced::Again(back) => {
                let of_producer = |batch: &&ValidBatch| {
                    batch.header().producer_id == id && !batch.header().attributes.is_control()
                };
                match self.history.iter().rev().filter(of_producer).nth(back) {
                    Some(batch) => batch.clone(),
                    None => return,
                }
            }
            Produced::Marker(control, bump) => marker(control, id, epoch + bump, 7, timestamp),
        };
        let is_marker = matches!(what, Produced::Marker(..));
        let sender = if is_marker { Sender::Coordinator } else { Sender::Client };
        let expected = producers.check(&Written::of(&batch), sender);
        let found = self.append_from(sender, batch.clone());
        match (expected, found) {
            (Decision::Append, Ok(appended)) if !appended.duplicate => self.appended(batch),
            (Decision::Duplicate(written), Ok(appended)) if appended.duplicate => {
                assert_eq!(appended.base_offset, written.first_offset());
                assert_eq!(appended.last_offset, written.last_offset);
            }
            (Decision::Refuse(refusal), Err(AppendError::Refused(found))) => {
                assert_eq!(found, refusal);
            }
            (expected, found) => panic!("{expected:?}, but {found:?}"),
        }
    }

    fn append_from(&self, sender: Sender, mut batch: ValidBatch) -> Result<Appended, AppendError> {
        let epoch = LeaderEpoch(self.epoch);
        let origin = match sender {
            Sender::Client => Origin::Client(epoch),
            Sender::Coordinator => Origin::Leader(epoch),
        };
        self.log().append(std::slice::from_mut(&mut batch), origin)
    }

    fn crash_torn(&mut self, share: f64, within: f64, cut: bool) {
        let doubtful = self.batches.len() - self.durable;
        if doubtful == 0 {
            return self.apply(&Step::Crash);
        }
        let torn = self.durable + usize::try_from(share_of(doubtful as i64, share)).unwrap();
        let batch = &self.batches[torn];
        let (base, size) = (batch.header().base_offset, batch.bytes().len());
        let log = self.log();
        let place = log.read(Offset(base.max(self.start)), 1, Offset(i64::MAX), true).unwrap();
        let position = usize::try_from(place.source.unwrap().position).unwrap();
        let infos = log.segment_infos().unwrap();
        let segment = infos.iter().rev().find(|info| info.base_offset.0 <= base).unwrap();
        let name = format!("{:020}.log", segment.base_offset.0);
        let path = self.directory.path().join("t-0").join(name);
        drop((log, self.open.take()));
        let mut bytes = fs::read(&path).unwrap();
        // Bytes 0..16 hold what no checksum protects: harm them and the batch may still look well.
        let at = position + 16 + usize::try_from(share_of((size - 16) as i64, within)).unwrap();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
        fs::write(&path, bytes).unwrap();
        let doubtful_from = self.batches[self.durable].header().base_offset;
        tear_aborted(&path.with_extension("txnindex"), doubtful_from, within, cut);
        self.batches.truncate(torn);
        self.history.retain(|batch| batch.base_offset() < Offset(base));
        self.end = base;
        self.reopen();
        if self.end < self.start {
            // Records were deleted up to a point that was not yet on disk.
            self.end = self.start;
            self.history.clear();
        }
    }

    fn reopen(&mut self) {
        self.open = Some(self.directory.open(config()));
        // A truncation may have left nothing at or after the start: such a log begins again, as in Kafka.
        let last = self.history.last().map_or(self.start, |batch| batch.next_offset().0);
        let first_segment = self.log().segment_infos().unwrap()[0];
        if last < self.start && first_segment.base_offset == Offset(self.start) {
            self.history.clear();
        }
        self.durable = 0;
        self.open.as_ref().unwrap().checkpoint().unwrap();
        self.durable = self.batches.len();
    }

    fn drop_before_start(&mut self) {
        let start = self.start;
        let before = self.batches.len();
        self.batches.retain(|batch| batch.header().next_offset() > start);
        self.durable = self.durable.saturating_sub(before - self.batches.len());
    }

    fn check(&self) {
        let log = self.log();
        assert_eq!(log.log_end_offset(), Offset(self.end));
        assert_eq!(log.log_start_offset(), Offset(self.start));
        assert_eq!(read_all(&log), self.batches);
        assert!(log.flushed_offset() <= log.log_end_offset());
        assert_eq!(log.producers(), self.producers());
        assert_eq!(log.producer_count(), self.producers().len());
        let (start, end) = (self.start, self.end);
        let (transactions, all) = (self.transactions(), Offset(start)..Offset(end));
        assert_eq!(log.aborted_transactions(&all).unwrap(), transactions.aborted_in(&all));
        self.open.as_ref().unwrap().scrub_changes_no_index();
        assert_eq!(
            log.last_stable_offset(Offset(end)),
            transactions.last_stable_offset(start, end)
        );
        let epochs = log.epoch_entries();
        assert!(epochs.is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
        for batch in &self.batches {
            let header = batch.header();
            let offset = Offset(header.base_offset.max(self.start));
            assert_eq!(
                log.epoch_for_offset(offset),
                Some(LeaderEpoch(header.partition_leader_epoch))
            );
        }
    }

    fn check_reads(&self, from: f64, bound: f64, max_bytes: usize) {
        let log = self.log();
        let from = self.start + share_of(self.end - self.start, from);
        let bound = self.start + share_of(self.end - self.start + 1, bound);
        let slice = log.read(Offset(from), max_bytes, Offset(bound), true).unwrap();
        let wanted = |batch: &&RawBatch| {
            batch.header().last_offset() >= from && batch.header().last_offset() < bound
        };
        let expected: Vec<_> = self.batches.iter().filter(wanted).collect();
        let Some(source) = slice.source else {
            assert!(expected.is_empty() || from >= bound);
            return;
        };
        let bytes = source.read().unwrap();
        let first_len = expected[0].bytes().len();
        assert!(bytes.len() >= first_len && bytes.len() <= max_bytes.max(first_len));
        assert_eq!(slice.first_offset.0, expected[0].header().base_offset);
        let mut rest = Batches::new(bytes);
        let whole: Vec<_> = rest.by_ref().map(Result::unwrap).collect();
        assert!(whole.iter().eq(expected.iter().copied().take(whole.len())));
        if let Some(cut_off) = expected.get(whole.len()).filter(|_| slice.next_segment.is_none()) {
            assert!(cut_off.bytes().starts_with(rest.remaining()));
        }
    }

    /// As the leader's replica would that knows of a high watermark only from a checkpoint.
    fn check_transactions(&self, from: f64, bound: f64) {
        let log = self.log();
        let [from, bound] =
            [from, bound].map(|share| self.start + share_of(self.end - self.start, share));
        let (transactions, range) = (self.transactions(), Offset(from)..Offset(bound));
        assert_eq!(log.aborted_transactions(&range).unwrap(), transactions.aborted_in(&range));
        log.unsettle_transactions(range.end).unwrap();
        assert_eq!(
            log.last_stable_offset(range.end),
            transactions.last_stable_offset(self.start, bound)
        );
    }

    fn check_time(&self, timestamp: i64) {
        let records = || {
            let of =
                |batch: &RawBatch| batch.records().unwrap().map(Result::unwrap).collect::<Vec<_>>();
            self.batches.iter().flat_map(of).filter(|record| record.offset.0 >= self.start)
        };
        let expected = records().find(|record| record.timestamp >= Timestamp(timestamp));
        let found = self.log().offset_for_timestamp(Timestamp(timestamp)).unwrap();
        assert_eq!(
            found.map(|found| (found.offset, found.timestamp)),
            expected.map(|record| (record.offset, record.timestamp))
        );
    }
}

proptest! {
    #![proptest_config(configuration(150))]

    #[test]
    fn a_log_holds_what_was_appended_and_neither_cut_off_nor_torn(
        steps in prop::collection::vec(step(), 1..80),
        reads in prop::collection::vec((0.0..1.0, 0.0..=1.0, 0..3000_usize), 20),
        times in prop::collection::vec(0..11_000_i64, 5),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
        for (from, bound, max_bytes) in reads {
            pair.check_reads(from, bound, max_bytes);
            pair.check_transactions(from, bound);
        }
        for timestamp in times {
            pair.check_time(timestamp);
        }
    }
}
