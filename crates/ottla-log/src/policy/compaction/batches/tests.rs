//! What stays of batches, case by case.

use ottla_base::LeaderEpoch;
use ottla_records::{BatchBuilder, Compression, ControlType, EndTransactionMarker, Record};

use super::*;
use crate::producers::Written;
use crate::transactions::Transactions;

const NOW_MS: i64 = 1_000_000;
const DELETE_RETENTION_MS: i64 = 5_000;

/// A part of a log that is compacted again and again.
#[derive(Default)]
struct Part {
    batches: Vec<ValidBatch>,
    aborted: Vec<AbortedTransaction>,
    producers: Producers,
    transactions: Transactions,
    next_offset: i64,
}

type Pair = (Option<&'static str>, Option<&'static str>);

impl Part {
    fn add(&mut self, mut builder: BatchBuilder, pairs: &[Pair]) {
        for (key, value) in pairs {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            builder.append(Timestamp(500 + self.next_offset), key, value, &[]);
        }
        self.push(builder);
    }

    fn put(&mut self, pairs: &[Pair]) {
        self.add(BatchBuilder::new(Compression::None), pairs);
    }

    fn put_as(&mut self, id: i64, sequence: i32, pairs: &[Pair]) {
        self.add(BatchBuilder::new(Compression::None).producer(id, 0, sequence), pairs);
    }

    fn put_in_transaction(&mut self, id: i64, sequence: i32, pairs: &[Pair]) {
        let builder = BatchBuilder::new(Compression::None).producer(id, 0, sequence);
        self.add(builder.transactional(), pairs);
    }

    fn end(&mut self, id: i64, control: ControlType) {
        let marker = EndTransactionMarker { coordinator_epoch: 0 };
        self.push(BatchBuilder::end_of_transaction((id, 0), control, marker, Timestamp(500)));
    }

    fn push(&mut self, builder: BatchBuilder) {
        let batch = builder.at(Offset(self.next_offset), LeaderEpoch(3)).build();
        self.next_offset = batch.next_offset().0;
        let written = Written::of(&batch);
        self.producers.append(&written);
        self.aborted.extend(self.transactions.append(&written));
        self.batches.push(batch);
    }

    fn newest(&self) -> NewestOffsets {
        let map = NewestOffsets::new(1 << 20, 0.9, 1_000, [1; 16]);
        let mut survey = Survey::new(Offset(0), map, &self.aborted);
        for batch in &self.batches {
            survey.add(batch).unwrap().unwrap();
        }
        survey.end_segment(Offset(self.next_offset));
        survey.finish()
    }

    /// Compacts all of it. The part goes on, so that its last batch is no different from others.
    fn compact(&mut self, now_ms: i64) {
        self.compact_up_to(self.newest(), Offset(i64::MAX), now_ms);
    }

    fn compact_up_to(&mut self, newest: NewestOffsets, end: Offset, now_ms: i64) {
        let mut filter = Filter::new(newest, end, now_ms, DELETE_RETENTION_MS);
        filter.expect(&self.aborted);
        self.aborted.clear();
        let last_written = last_written(&self.producers);
        let mut left = Vec::new();
        for batch in self.batches.drain(..) {
            let verdict = filter.judge(&batch, &last_written).unwrap();
            self.aborted.extend(verdict.aborted);
            match verdict.outcome {
                Outcome::Drop => {}
                Outcome::Keep => left.push(batch),
                Outcome::Replace(batch) => left.push(batch),
            }
        }
        self.batches = left;
    }

    /// Offset, key and value of every record, in Kafka's console style; `[a..b]` is a batch without any.
    fn shown(&self) -> String {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"null")).into_owned();
        let mut shown = Vec::new();
        for batch in &self.batches {
            let records: Vec<Record> = batch.records().unwrap().map(Result::unwrap).collect();
            if records.is_empty() {
                shown.push(format!("[{}..{}]", batch.base_offset(), batch.last_offset()));
            }
            for record in records {
                if batch.header().attributes.is_control() {
                    shown.push(format!("{} marker", record.offset));
                    continue;
                }
                let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
                shown.push(format!("{} {key}={value}", record.offset));
            }
        }
        shown.join(", ")
    }
}

const fn pair(key: &'static str, value: &'static str) -> Pair {
    (Some(key), Some(value))
}

const fn tombstone(key: &'static str) -> Pair {
    (Some(key), None)
}

#[test]
fn the_newest_record_of_a_key_stays_where_it_is() {
    let mut part = Part::default();
    part.put(&[pair("a", "1"), pair("b", "1"), pair("c", "1")]);
    part.put(&[pair("b", "2"), pair("a", "2")]);
    part.put(&[pair("a", "3")]);
    let untouched = part.batches[2].clone();
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "2 c=1, 3 b=2, 5 a=3");
    assert_eq!(part.batches[0].header().base_offset, 0);
    assert_eq!(part.batches[1].last_offset(), Offset(4), "where the batch ended");
    assert_eq!(part.batches[2], untouched);
}

#[test]
fn a_record_without_a_key_goes() {
    let mut part = Part::default();
    part.put(&[(None, Some("x")), pair("a", "1")]);
    part.put(&[(None, Some("y"))]);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "1 a=1");
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_hides_its_key_at_once() {
    let mut part = Part::default();
    part.put(&[pair("a", "1"), pair("b", "1")]);
    part.put(&[tombstone("a"), pair("c", "1")]);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "1 b=1, 2 a=null, 3 c=1");
    let horizon = NOW_MS + DELETE_RETENTION_MS;
    assert_eq!(part.batches[0].header().delete_horizon_ms(), None);
    assert_eq!(part.batches[1].header().delete_horizon_ms(), Some(horizon));
    let timestamps: Vec<_> =
        part.batches[1].records().unwrap().map(|record| record.unwrap().timestamp.0).collect();
    assert_eq!(timestamps, [502, 502], "the horizon takes the place of the base timestamp only");
    // The next compaction does not set it again.
    part.compact(horizon - 1);
    assert_eq!(part.batches[1].header().delete_horizon_ms(), Some(horizon));
    assert_eq!(part.shown(), "1 b=1, 2 a=null, 3 c=1");
    part.compact(horizon);
    assert_eq!(part.shown(), "1 b=1, 3 c=1");
    assert_eq!(part.batches[1].header().delete_horizon_ms(), Some(horizon));
}

#[test]
fn what_an_aborted_transaction_wrote_goes_and_hides_nothing() {
    let mut part = Part::default();
    part.put(&[pair("a", "1")]);
    part.put_in_transaction(7, 0, &[pair("a", "aborted"), pair("b", "aborted")]);
    part.put(&[pair("c", "1")]);
    part.end(7, ControlType::Abort);
    part.put_in_transaction(7, 2, &[pair("d", "1")]);
    part.end(7, ControlType::Commit);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "0 a=1, 3 c=1, 4 marker, 5 d=1, 6 marker");
    // Its records were met, so the marker is still needed, and known to be an abort.
    assert_eq!(part.aborted.len(), 1);
    assert_eq!(part.batches[2].header().delete_horizon_ms(), None);
}

#[test]
fn a_marker_goes_once_nothing_of_its_transaction_was_left_for_long_enough() {
    let mut part = Part::default();
    part.put_in_transaction(7, 0, &[pair("a", "1")]);
    part.end(7, ControlType::Commit);
    part.put_in_transaction(8, 0, &[pair("b", "1")]);
    part.end(8, ControlType::Abort);
    part.put_as(7, 1, &[pair("a", "2")]);
    part.put_as(8, 1, &[pair("b", "2")]);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "1 marker, 3 marker, 4 a=2, 5 b=2");
    let horizons = |part: &Part| {
        part.batches.iter().map(|batch| batch.header().delete_horizon_ms()).collect::<Vec<_>>()
    };
    assert_eq!(horizons(&part), [None; 4], "their records were there a moment ago");
    part.compact(NOW_MS + 1);
    let horizon = Some(NOW_MS + 1 + DELETE_RETENTION_MS);
    assert_eq!(horizons(&part), [horizon, horizon, None, None]);
    assert_eq!(part.aborted, [], "no record is left that a reader would have to leave out");
    part.compact(NOW_MS + DELETE_RETENTION_MS);
    assert_eq!(part.shown(), "1 marker, 3 marker, 4 a=2, 5 b=2");
    part.compact(NOW_MS + 1 + DELETE_RETENTION_MS);
    assert_eq!(part.shown(), "4 a=2, 5 b=2");
}

#[test]
fn a_producers_last_batch_stays_without_its_records() {
    let mut part = Part::default();
    part.put_as(7, 0, &[pair("a", "1")]);
    part.put_as(7, 1, &[pair("a", "2"), pair("b", "2")]);
    part.put(&[pair("a", "3"), pair("b", "3")]);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "[1..2], 3 a=3, 4 b=3");
    assert_eq!(part.batches[0].header().last_sequence(), 2);
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "[1..2], 3 a=3, 4 b=3");
    // It goes when the producer is forgotten.
    part.producers = Producers::default();
    part.compact(NOW_MS);
    assert_eq!(part.shown(), "3 a=3, 4 b=3");
}

#[test]
fn a_producers_aborted_last_batch_stays_without_its_records() {
    let mut part = Part::default();
    part.put_in_transaction(7, 0, &[pair("a", "1")]);
    part.end(7, ControlType::Abort);
    for _ in 0..2 {
        part.compact(NOW_MS);
        // The batch still belongs to the aborted transaction, which keeps the marker.
        assert_eq!(part.shown(), "[0..0], 1 marker");
        assert_eq!(part.aborted.len(), 1);
    }
}

#[test]
fn the_marker_of_a_producer_that_wrote_nothing_else_stays_for_its_epoch() {
    let mut part = Part::default();
    part.end(7, ControlType::Abort);
    part.compact(NOW_MS);
    part.compact(NOW_MS + DELETE_RETENTION_MS);
    assert_eq!(part.shown(), "[0..0]");
    assert!(part.batches[0].header().attributes.is_control());
    part.compact(NOW_MS + DELETE_RETENTION_MS);
    assert_eq!(part.shown(), "[0..0]");
}

#[test]
fn the_last_batch_of_what_is_compacted_tells_where_that_ends() {
    let mut part = Part::default();
    part.put(&[pair("a", "1")]);
    part.put(&[(None, Some("x")), (None, Some("y"))]);
    part.compact_up_to(part.newest(), Offset(3), NOW_MS);
    assert_eq!(part.shown(), "0 a=1, [1..2]");
}

#[test]
fn nothing_goes_beyond_the_offset_up_to_which_keys_are_known() {
    let mut part = Part::default();
    part.put(&[pair("a", "1"), pair("b", "1")]);
    part.put(&[pair("c", "1"), pair("a", "2")]);
    part.put(&[(None, Some("x")), pair("b", "2")]);
    // Room for two keys: the third ends the survey.
    let map = NewestOffsets::new(24 * 3, 0.9, 1_000, [1; 16]);
    let mut survey = Survey::new(Offset(0), map, &[]);
    assert_eq!(survey.add(&part.batches[0]), Ok(Ok(())));
    assert_eq!(survey.add(&part.batches[1]), Ok(Err(Full)));
    let newest = survey.finish();
    assert_eq!(newest.latest(), Offset(1));
    part.compact_up_to(newest, Offset(6), NOW_MS);
    assert_eq!(part.shown(), "0 a=1, 1 b=1, 2 c=1, 3 a=2, 4 null=x, 5 b=2");
}

#[test]
fn a_batch_keeps_its_codec_and_is_not_touched_without_need() {
    for compression in Compression::ALL {
        let mut part = Part::default();
        part.add(BatchBuilder::new(compression), &[pair("a", "1"), pair("b", "1")]);
        part.add(BatchBuilder::new(compression), &[pair("c", "1")]);
        part.put(&[pair("a", "2")]);
        let untouched = part.batches[1].to_bytes();
        part.compact(NOW_MS);
        assert_eq!(part.shown(), "1 b=1, 2 c=1, 3 a=2");
        assert_eq!(part.batches[0].header().attributes.compression(), Ok(compression));
        assert_eq!(part.batches[1].to_bytes(), untouched);
    }
}
