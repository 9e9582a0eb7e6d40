//! What a partition that is read remembers of the way: enough to show what is committed, and no more than it must.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{ErrorCode, Offset, Timestamp};
use ottla_coordinator::shard::Outcome;
use ottla_coordinator::{Loading, Log, Now, ReplyTo, Runtime, Shard, StoredRecord, Timeline};
use ottla_protocol::{DecodeError, EncodeError};

const NOW: Now = Now { time: Timestamp(1), monotonic: Duration::ZERO };

/// The number that was stored last.
#[derive(Default)]
struct Last {
    number: Timeline<i64>,
    /// How often what there was had to be kept.
    kept: usize,
}

struct Number(i64);

impl StoredRecord for Number {
    fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        unreachable!("nothing is appended")
    }

    fn decode(_: Bytes, _: Option<Bytes>) -> Result<Option<Self>, DecodeError> {
        unreachable!("numbers are replayed as they are")
    }
}

impl Shard for Last {
    type Request = ();
    type Query = ();
    type Reply = i64;
    type Record = Number;
    type Timer = ();
    type Next = ();

    fn handle(&mut self, _: Timestamp, _: ReplyTo, (): ()) -> Outcome<Self> {
        Outcome::default()
    }

    fn records_bytes_min(&self, (): &()) -> usize {
        0
    }

    fn on_timer(&mut self, _: Timestamp, (): ()) -> Outcome<Self> {
        Outcome::default()
    }

    fn on_committed(&mut self, _: Timestamp, (): ()) -> Outcome<Self> {
        Outcome::default()
    }

    fn on_refused(&mut self, _: Timestamp, (): (), _: ErrorCode) -> Outcome<Self> {
        Outcome::default()
    }

    fn on_overdue(&mut self, _: Timestamp, (): (), _: ErrorCode) -> Outcome<Self> {
        Outcome::default()
    }

    fn on_loaded(&mut self, _: Timestamp) -> Outcome<Self> {
        Outcome::default()
    }

    fn query(&self, (): ()) -> i64 {
        *self.number.committed()
    }

    fn replay(&mut self, _: Offset, record: &Number) {
        *self.number.replay() = record.0;
    }

    fn appended(&mut self, end: Offset) {
        self.kept += 1;
        self.number.appended(end);
    }

    fn committed(&mut self, end: Offset) {
        self.number.commit(end);
    }
}

struct NoLog;

impl Log<Number> for NoLog {
    fn fitting(&self, _: &[Number]) -> usize {
        1
    }

    fn bytes_max(&self) -> usize {
        0
    }

    fn append(&mut self, _: &[Number]) -> Result<Range<Offset>, ErrorCode> {
        unreachable!("nothing is appended")
    }
}

/// Reads batches of two records, each of which has its offset as its number, while this is the high watermark.
fn read(loading: &mut Loading<Last>, offsets: Range<i64>, high_watermark: i64) {
    for base in offsets.step_by(2) {
        loading.next_batch(Offset(base + 2), Offset(high_watermark));
        for at in [base, base + 1] {
            loading.replay(Offset(at), &Number(at));
        }
    }
}

fn loading() -> Loading<Last> {
    Loading::new(Last::default(), Offset(0), Duration::from_secs(5))
}

fn finish(loading: Loading<Last>) -> Runtime<Last> {
    loading.finish(NOW, &mut NoLog)
}

/// What is shown when this is the high watermark.
fn shown(runtime: &mut Runtime<Last>, high_watermark: i64) -> i64 {
    assert!(runtime.on_committed(NOW, Offset(high_watermark), &mut NoLog).is_empty());
    runtime.query(())
}

#[test]
fn what_is_committed_is_shown_at_once_and_the_rest_as_it_is_committed() {
    let mut loading = loading();
    read(&mut loading, 0..20, 10);
    let mut runtime = finish(loading);
    // Half of a batch is never committed.
    for (high_watermark, last) in [(10, 9), (11, 9), (12, 11), (18, 17), (20, 19)] {
        assert_eq!(shown(&mut runtime, high_watermark), last, "{high_watermark}");
    }
}

#[test]
fn nothing_is_kept_of_the_way_to_the_high_watermark() {
    for (high_watermark, kept) in [(100_000, 1), (99_998, 2), (99_990, 6)] {
        let mut loading = loading();
        read(&mut loading, 0..100_000, high_watermark);
        let mut runtime = finish(loading);
        assert_eq!(runtime.shard().kept, kept);
        assert_eq!(shown(&mut runtime, high_watermark), high_watermark - 1);
    }
}

#[test]
fn a_high_watermark_amid_a_batch_shows_the_batches_before_it() {
    let mut loading = loading();
    read(&mut loading, 0..20, 11);
    let mut runtime = finish(loading);
    assert_eq!(shown(&mut runtime, 11), 9);
}

#[test]
fn a_high_watermark_that_rises_while_the_log_is_read_counts() {
    let mut loading = loading();
    read(&mut loading, 0..10, 4);
    read(&mut loading, 10..20, 16);
    read(&mut loading, 20..40, 30);
    let mut runtime = finish(loading);
    assert_eq!(shown(&mut runtime, 30), 29);
    assert_eq!(shown(&mut runtime, 36), 35);
}

/// A log whose high watermark is not known any more: nothing says how much of it is committed.
#[test]
fn far_beyond_the_high_watermark_little_is_kept_and_little_is_missing() {
    let end = 2_000_000;
    let mut loading = loading();
    read(&mut loading, 0..end, 0);
    let mut runtime = finish(loading);
    assert!(runtime.shard().kept < 10_000, "{}", runtime.shard().kept);
    for high_watermark in [2, 1_000, 10_000, 777_778, 1_999_998] {
        let missing = high_watermark - 1 - shown(&mut runtime, high_watermark);
        let allowed = high_watermark / 1_000 + 2;
        assert!((0..=allowed).contains(&missing), "{high_watermark}: {missing}");
    }
    assert_eq!(shown(&mut runtime, end), end - 1);
}
