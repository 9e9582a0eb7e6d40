//! A log moves from one directory to another, and whatever comes in between, it is in one of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::{Disk, DiskLayer, FaultyDisk, ManualClock, OsDisk};
use ottla_log::{
    CleanableLogs, CleanerOptions, Copied, DirectoryOptions, Log, LogCleaner, LogConfig,
    LogDirectory, Move, MoveError, settle,
};
use ottla_records::{BatchBuilder, Compression, ValidBatch};
use proptest::prelude::*;
use support::{Draft, batch, configuration, read_all, share_of, temporary_directory};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// Two directories on one disk.
struct Pair {
    temporary: tempfile::TempDir,
    disk: Arc<FaultyDisk>,
    clock: Arc<ManualClock>,
    config: LogConfig,
}

impl Pair {
    fn new() -> Self {
        Self {
            temporary: temporary_directory(),
            disk: Arc::default(),
            clock: Arc::new(ManualClock::at(Timestamp(1_000_000))),
            config: LogConfig { segment_bytes: 1_000, ..LogConfig::default() },
        }
    }

    fn with(config: LogConfig) -> Self {
        Self { config, ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn open(&self) -> [Arc<LogDirectory>; 2] {
        self.open_on(Arc::clone(&self.disk) as _)
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> [Arc<LogDirectory>; 2] {
        ["a", "b"].map(|name| {
            let options = DirectoryOptions {
                disk: Arc::clone(&disk),
                threads: false,
                recovery_threads: 1,
                ..DirectoryOptions::default()
            };
            let (config, clock) = (self.config.clone(), Arc::clone(&self.clock) as _);
            Arc::new(LogDirectory::open(&self.path(name), config, options, clock).unwrap())
        })
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.path(directory)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("t-0")).collect()
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn create(directory: &LogDirectory, config: &LogConfig) -> Arc<Log> {
    directory.create(partition(), Uuid([7; 16]), Arc::new(config.clone())).unwrap()
}

fn append(log: &Log, batches: usize, records: i64, value_len: usize) {
    for _ in 0..batches {
        log.append_batch(batch(records, value_len), EPOCH).unwrap();
    }
}

fn begin([from, to]: &[Arc<LogDirectory>; 2]) -> Result<Move, MoveError> {
    Move::begin(Arc::clone(from), Arc::clone(to), &from.log(&partition()).unwrap())
}

fn copy_all(moving: &Move) -> Result<(), MoveError> {
    for _ in 0..10_000 {
        if moving.step()?.nearly_done {
            return Ok(());
        }
    }
    panic!("the copy does not come to its end: {:?}", moving.future());
}

fn bases(log: &Log) -> Vec<i64> {
    read_all(log).iter().map(|batch| batch.header().base_offset).collect()
}

#[test]
fn a_log_moves_with_what_is_appended_meanwhile() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    append(&log, 20, 2, 100);
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    log.append_batch(batch(2, 100), EPOCH).unwrap();
    assert_eq!(both[1].futures().len(), 1);
    assert!(both[1].log(&partition()).is_none(), "a copy in the making is no log");
    let moved = moving.finish().unwrap();
    assert_eq!(read_all(&moved), read_all(&log), "whoever still reads the old one may go on");
    assert!(moved.segment_infos().unwrap().len() > 2);
    assert_eq!(moved.flushed_offset(), Offset(42));
    log.append_batch(batch(1, 1), EPOCH).unwrap_err();
    moved.append_batch(batch(1, 1), EPOCH).unwrap();
    assert_eq!((both[0].log_count(), both[1].log_count()), (0, 1));
    assert!(both[1].futures().is_empty());
    assert_eq!(pair.names("b"), ["t-0"]);
    let bases_before = bases(&moved);
    drop((moving, log, moved));
    for directory in both {
        directory.close(1).unwrap();
    }
    let both = pair.open();
    assert_eq!(bases(&both[1].log(&partition()).unwrap()), bases_before);
    both[0].housekeep();
    assert_eq!(pair.names("a"), [""; 0]);
}

#[test]
fn what_the_batches_alone_do_not_tell_moves_too() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    let draft = |id, sequence| Draft { id, ..Draft::new(sequence, 3) };
    log.append_produced(draft(5, 0).build(), LeaderEpoch(1)).unwrap();
    for sequence in [0, 3, 6] {
        log.append_produced(draft(6, sequence).build(), LeaderEpoch(2)).unwrap();
    }
    log.assign_epoch(LeaderEpoch(9)).unwrap();
    log.flush().unwrap();
    // Into the middle of a batch, and behind all that producer 5 has written.
    log.delete_records_to(Offset(5)).unwrap();
    let (epochs, producers) = (log.epoch_entries(), log.producers());
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    let moved = moving.finish().unwrap();
    drop((moving, log));
    let check = |moved: &Log| {
        assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(5), Offset(12)));
        assert_eq!(moved.producers(), producers);
        assert_eq!(bases(moved), [3, 6, 9]);
    };
    check(&moved);
    assert_eq!(moved.epoch_entries(), epochs);
    // A crash.
    drop((moved, both));
    let both = pair.open();
    check(&both[1].log(&partition()).unwrap());
}

#[test]
fn records_deleted_while_the_log_is_copied_do_not_come_back() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    append(&log, 20, 2, 100);
    log.flush().unwrap();
    log.delete_records_to(Offset(30)).unwrap();
    log.enforce_retention(1_000_000, Offset(30)).unwrap();
    let moved = moving.finish().unwrap();
    assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(30), Offset(42)));
    drop((moving, log, moved, both));
    let both = pair.open();
    let moved = both[1].log(&partition()).unwrap();
    assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(30), Offset(42)));
}

#[test]
fn a_flipped_bit_is_not_copied() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    log.flush().unwrap();
    let moving = begin(&both).unwrap();
    let size = log.size_in_bytes();
    for position in 0..size {
        pair.disk.flip_reads_at(Some(position));
        let copied = moving.step();
        pair.disk.flip_reads_at(None);
        // Kafka's checksum does not cover a batch's place, nor its leader epoch; nor is a length that a flip has made
        // too large more than a batch that is not all there yet.
        let in_batch = position % (size / 2);
        if in_batch >= 16 {
            assert!(matches!(copied, Err(MoveError::Corrupt { .. })), "{position}: {copied:?}");
            assert_eq!(log.quarantined_count(), 1, "{position}");
        }
        // The bytes are sound again.
        log.doubt(Offset(0)).unwrap();
        assert_eq!(log.quarantined_count(), 0, "{position}");
        moving.future().truncate_fully_and_start_at(Offset(0)).unwrap();
    }
    copy_all(&moving).unwrap();
    assert_eq!(read_all(&moving.finish().unwrap()), read_all(&log));
}

#[test]
fn a_move_that_is_given_up_leaves_nothing() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    assert!(begin(&both).is_err(), "there is one copy");
    moving.abandon().unwrap();
    both[1].housekeep();
    assert_eq!(pair.names("b"), [""; 0]);
    log.append_batch(batch(2, 10), EPOCH).unwrap();
    begin(&both).unwrap();
}

#[test]
fn a_log_that_has_the_name_of_one_that_was_to_move_stays_where_it_is() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    append(&log, 5, 1, 10);
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    assert!(both[0].set_aside(&partition()).unwrap());
    let config = Arc::new(pair.config.clone());
    let others = both[0].create(partition(), Uuid([8; 16]), config).unwrap();
    append(&others, 1, 3, 10);
    moving.step().unwrap();
    assert!(matches!(moving.finish(), Err(MoveError::Gone(_))));
    moving.abandon().unwrap();
    let [from, to] = both.each_ref().map(Arc::clone);
    assert!(matches!(Move::begin(from, to, &log), Err(MoveError::Gone(_))));
    assert!(both[0].log(&partition()).is_some_and(|it| Arc::ptr_eq(&it, &others)));
    assert!(both[1].log(&partition()).is_none() && both[1].futures().is_empty());
    append(&others, 1, 2, 10);
    drop((log, others, both));
    let both = pair.open();
    assert!(settle(&both).unwrap().is_empty());
    let others = both[0].log(&partition()).unwrap();
    assert_eq!((others.topic_id(), bases(&others)), (Some(Uuid([8; 16])), vec![0, 3]));
}

/// What the end of a process has left of a move: a copy that lacks nothing, and is as good as its log or not.
fn left_of_a_move(is_complete: bool) -> Pair {
    for changes in 0.. {
        let pair = Pair::new();
        let both = pair.open();
        let log = create(&both[0], &pair.config);
        append(&log, 5, 1, 10);
        log.flush().unwrap();
        let moving = begin(&both).unwrap();
        copy_all(&moving).unwrap();
        pair.disk.stop_after(Some(changes));
        let finished = moving.finish().map(drop);
        pair.disk.stop_after(None);
        drop((log, moving, both));
        if matches!(finished, Err(MoveError::GivenAway { .. })) == is_complete {
            return pair;
        }
    }
    unreachable!()
}

#[test]
fn what_is_left_of_a_move_is_not_taken_for_one_of_another_topics_log() {
    for is_complete in [false, true] {
        let pair = left_of_a_move(is_complete);
        // The log is gone, and its topic was made anew.
        for name in pair.names("a") {
            std::fs::remove_dir_all(pair.path("a").join(name)).unwrap();
        }
        let both = pair.open();
        assert_eq!(both[1].leftovers()[0].is_complete, is_complete);
        let config = Arc::new(pair.config.clone());
        both[0].create(partition(), Uuid([8; 16]), config).unwrap();
        assert!(settle(&both).unwrap().is_empty());
        let ids = both.each_ref().map(|it| it.log(&partition()).and_then(|log| log.topic_id()));
        let of_copy = is_complete.then_some(Uuid([7; 16]));
        assert_eq!(ids, [Some(Uuid([8; 16])), of_copy]);
        assert_eq!(both[1].leftovers().len(), usize::from(!is_complete), "it may be needed yet");
    }
}

#[test]
fn wherever_a_move_is_cut_off_the_log_is_in_one_directory_as_a_whole() {
    let (mut in_source, mut in_target, mut promoted, mut given_away) = (0, 0, 0, 0);
    for changes in 0.. {
        let pair = Pair::new();
        let both = pair.open();
        let log = create(&both[0], &pair.config);
        append(&log, 10, 2, 100);
        log.flush().unwrap();
        log.delete_records_to(Offset(5)).unwrap();
        let written = read_all(&log);
        pair.disk.stop_after(Some(changes));
        let moved = begin(&both).and_then(|moving| {
            copy_all(&moving)?;
            moving.finish().map(drop)
        });
        pair.disk.stop_after(None);
        drop((log, both));

        let both = pair.open();
        let promotes = both[1].leftovers().iter().any(|leftover| leftover.is_complete);
        settle(&both).unwrap();
        let logs: Vec<_> = both.iter().map(|it| it.log(&partition())).collect();
        assert_eq!(logs.iter().flatten().count(), 1, "after {changes} changes");
        let log = logs.iter().flatten().next().unwrap();
        assert_eq!(read_all(log), written, "after {changes} changes");
        assert_eq!(log.log_start_offset(), Offset(5), "after {changes} changes");
        log.append_batch(batch(1, 1), EPOCH).unwrap();
        both.iter().for_each(|directory| directory.housekeep());
        let names = [pair.names("a"), pair.names("b")].concat();
        assert_eq!(names, ["t-0"], "after {changes} changes");
        if let Err(MoveError::GivenAway { .. }) = moved {
            assert!(logs[1].is_some(), "after {changes} changes");
            given_away += 1;
        }
        match logs[1] {
            Some(_) if promotes => promoted += 1,
            Some(_) => in_target += 1,
            None => in_source += 1,
        }
        if moved.is_ok() {
            break;
        }
    }
    assert!(in_source > 10 && in_target > 0 && promoted > 0, "{in_source} {in_target} {promoted}");
    assert!(given_away > 1, "{given_away}");
}

#[test]
fn a_copy_is_nearly_done_when_it_has_the_whole_log_and_not_at_the_end_of_a_segment() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    append(&log, 20, 2, 100);
    let moving = begin(&both).unwrap();
    let mut steps = 1;
    while !moving.step().unwrap().nearly_done {
        assert!(moving.future().log_end_offset() < log.log_end_offset());
        steps += 1;
    }
    assert_eq!(moving.future().log_end_offset(), log.log_end_offset());
    assert_eq!(steps, log.segment_infos().unwrap().len());
}

#[test]
fn appends_do_not_wait_until_much_is_copied() {
    let pair = Pair::with(LogConfig::default());
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(batch(1, 100), EPOCH).unwrap();
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    append(&log, 20, 1, 500_000);
    assert!(matches!(moving.finish(), Err(MoveError::Behind(_))));
    assert!(moving.future().log_end_offset() < log.log_end_offset());
    log.append_batch(batch(1, 100), EPOCH).unwrap();
    copy_all(&moving).unwrap();
    assert!(moving.future().flushed_offset() >= Offset(20), "what is to be flushed is little, too");
    assert_eq!(read_all(&moving.finish().unwrap()), read_all(&log));
}

#[test]
fn what_a_follower_cuts_off_meanwhile_is_not_in_the_copy() {
    let pair = Pair::new();
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    append(&log, 10, 1, 100);
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    log.truncate_to(Offset(6)).unwrap();
    for _ in 0..20 {
        log.append_batch(batch(1, 90), LeaderEpoch(4)).unwrap();
    }
    let moved = moving.finish().unwrap();
    assert_eq!(read_all(&moved), read_all(&log));
    assert_eq!(moved.epoch_entries(), log.epoch_entries());

    // Nor where nothing has taken its place.
    let moving = Move::begin(Arc::clone(&both[1]), Arc::clone(&both[0]), &moved).unwrap();
    copy_all(&moving).unwrap();
    moved.truncate_to(Offset(3)).unwrap();
    let moved = moving.finish().unwrap();
    assert_eq!(moved.log_end_offset(), Offset(3));
}

/// The system's disk, on which something happens once, when a file gets shorter.
#[derive(Default)]
struct Interrupted(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupted").finish()
    }
}

impl DiskLayer for Interrupted {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let happens = self.0.lock().unwrap().take();
        happens.into_iter().for_each(|happens| happens());
        OsDisk.set_len(file, len)
    }
}

#[test]
fn a_move_goes_on_where_what_comes_next_is_deleted_just_before_it_is_read() {
    let pair = Pair::new();
    let disk = Arc::<Interrupted>::default();
    let both = pair.open_on(Arc::clone(&disk) as _);
    let log = create(&both[0], &pair.config);
    append(&log, 10, 1, 100);
    let moving = begin(&both).unwrap();
    copy_all(&moving).unwrap();
    log.truncate_to(Offset(6)).unwrap();
    append(&log, 14, 1, 90);
    // When the copy is cut off as the log was.
    let trimmed = Arc::clone(&log);
    *disk.0.lock().unwrap() = Some(Box::new(move || {
        trimmed.delete_records_to(Offset(15)).unwrap();
    }));
    assert_eq!(moving.step().unwrap(), Copied { bytes: 0, nearly_done: false });
    assert!(disk.0.lock().unwrap().is_none());
    copy_all(&moving).unwrap();
    let moved = moving.finish().unwrap();
    assert_eq!((moved.log_start_offset(), moved.log_end_offset()), (Offset(15), Offset(20)));
    assert_eq!(read_all(&moved), read_all(&log));
}

/// One log, all of which is on disk.
#[derive(Debug)]
struct OneLog(Arc<Log>);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.0.log_end_offset())]
    }
}

fn compact(pair: &Pair, log: &Arc<Log>) -> usize {
    let options = CleanerOptions { threads: 0, ..CleanerOptions::default() };
    let logs = Arc::new(OneLog(Arc::clone(log)));
    LogCleaner::start(logs, options, Arc::clone(&pair.clock) as _).unwrap().clean_all_due()
}

fn compacted() -> LogConfig {
    LogConfig {
        segment_bytes: 300,
        delete: false,
        compact: true,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 1_000,
        ..LogConfig::default()
    }
}

fn keyed(key: u8, value: Option<&[u8]>) -> ValidBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), Some(&[key]), value, &[]);
    builder.build()
}

/// Writes another key again and again.
fn overwrite(log: &Log, times: usize) {
    for _ in 0..times {
        log.append_batch(keyed(2, Some(&[b'x'; 60])), EPOCH).unwrap();
    }
}

#[test]
fn a_key_that_is_deleted_stays_so_although_its_log_is_compacted_while_it_moves() {
    let pair = Pair::with(compacted());
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    log.append_batch(keyed(1, Some(b"lives")), EPOCH).unwrap();
    overwrite(&log, 10);
    let moving = begin(&both).unwrap();
    moving.step().unwrap();
    log.append_batch(keyed(1, None), EPOCH).unwrap();
    overwrite(&log, 10);
    assert_eq!(compact(&pair, &log), 0, "a log that moves is left alone");
    let after_deletion = Duration::from_secs(2);
    pair.clock.advance(after_deletion);
    assert_eq!(compact(&pair, &log), 0);
    copy_all(&moving).unwrap();
    let moved = moving.finish().unwrap();
    for _ in 0..3 {
        overwrite(&moved, 10);
        assert_eq!(compact(&pair, &moved), 1);
        pair.clock.advance(after_deletion);
    }
    let keys = read_all(&moved).into_iter().flat_map(|batch| {
        let records = batch.verify_crc().unwrap().records().unwrap();
        records.into_iter().map(|record| record.unwrap().key.unwrap().to_vec()).collect::<Vec<_>>()
    });
    assert!(keys.into_iter().all(|key| key == [2]), "neither its value nor the tombstone is left");
}

#[test]
fn a_log_whose_move_was_given_up_is_compacted_again() {
    let pair = Pair::with(compacted());
    let both = pair.open();
    let log = create(&both[0], &pair.config);
    overwrite(&log, 20);
    let moving = begin(&both).unwrap();
    begin(&both).unwrap_err();
    assert_eq!(compact(&pair, &log), 0);
    moving.abandon().unwrap();
    assert_eq!(compact(&pair, &log), 1);
}

#[derive(Debug, Clone)]
enum Event {
    Append { records: i64 },
    NewEpoch,
    TruncateTo { share: f64 },
    BeginAnew,
    DeleteRecordsTo { share: f64 },
    EnforceRetention,
    Flush,
    Compact,
    Step,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (1..6_i64).prop_map(|records| Event::Append { records }),
        2 => Just(Event::NewEpoch),
        3 => (0.0..1.0).prop_map(|share| Event::TruncateTo { share }),
        1 => Just(Event::BeginAnew),
        2 => (0.0..1.0).prop_map(|share| Event::DeleteRecordsTo { share }),
        1 => Just(Event::EnforceRetention),
        2 => Just(Event::Flush),
        2 => Just(Event::Compact),
        8 => Just(Event::Step),
    ]
}

fn happen(event: &Event, pair: &Pair, log: &Arc<Log>, moving: Option<&Move>, epoch: &mut i32) {
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    let at = |share: f64| Offset(start + share_of(end - start, share));
    match *event {
        Event::Append { records } => {
            let draft = Draft { id: end, ..Draft::new(0, records) };
            log.append_produced(draft.build(), LeaderEpoch(*epoch)).unwrap();
        }
        Event::NewEpoch => *epoch += 1,
        Event::TruncateTo { share } => log.truncate_to(at(share)).unwrap(),
        Event::BeginAnew => log.truncate_fully_and_start_at(Offset(end + 3)).unwrap(),
        Event::DeleteRecordsTo { share } => {
            log.delete_records_to(at(share)).unwrap();
        }
        Event::EnforceRetention => {
            log.enforce_retention(2_000_000, log.log_end_offset()).unwrap();
        }
        Event::Flush => drop(log.flush().unwrap()),
        Event::Compact => drop(compact(pair, log)),
        Event::Step => drop(moving.map(|moving| moving.step().unwrap())),
    }
}

proptest! {
    #![proptest_config(configuration(200))]

    #[test]
    fn whatever_happens_to_a_log_while_it_moves_it_arrives_as_it_is(
        before in prop::collection::vec(event(), 0..30),
        meanwhile in prop::collection::vec(event(), 0..60),
        at_the_end in prop::collection::vec(event(), 0..5),
    ) {
        let pair = Pair::with(LogConfig { delete: true, retention_bytes: 3_000, ..compacted() });
        let both = pair.open();
        let log = create(&both[0], &pair.config);
        let mut epoch = 1;
        before.iter().for_each(|event| happen(event, &pair, &log, None, &mut epoch));
        let moving = begin(&both).unwrap();
        meanwhile.iter().for_each(|event| happen(event, &pair, &log, Some(&moving), &mut epoch));
        copy_all(&moving).unwrap();
        at_the_end.iter().for_each(|event| happen(event, &pair, &log, Some(&moving), &mut epoch));
        let facts = |log: &Log| {
            let (start, end) = (log.log_start_offset(), log.log_end_offset());
            (start, end, log.producers(), read_all(log))
        };
        let moved = moving.finish().unwrap();
        pair.clock.advance(Duration::from_millis(pair.config.file_delete_delay_ms.unsigned_abs()));
        both[1].housekeep();
        let files = std::fs::read_dir(pair.path("b").join("t-0")).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        prop_assert!(!names.any(|name| name.ends_with(".deleted")));
        let expected = facts(&log);
        prop_assert_eq!(&facts(&moved), &expected);
        prop_assert_eq!(moved.epoch_entries(), log.epoch_entries());
        // A crash, and nothing of the copy is left beside it. Where all records were cut off up to the log's start, recovery
        // may find an epoch again of which nothing is left.
        drop((moving, log, moved, both));
        let both = pair.open();
        prop_assert_eq!(&facts(&both[1].log(&partition()).unwrap()), &expected);
        prop_assert_eq!(pair.names("b"), ["t-0"]);
    }
}
