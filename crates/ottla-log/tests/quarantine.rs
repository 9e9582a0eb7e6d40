//! Damage to what was flushed is found by the scrub and by recovery, refused to readers, and freed when it is mended.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::{LeaderEpoch, Offset};
use ottla_log::{DirectoryOptions, Log, LogConfig, ReadError, StorageError};
use ottla_records::{BatchHeader, Batches, ControlType};
use support::{Directory, Draft, batch_at, marker};

const BATCHES: i64 = 6;
const RECORDS: i64 = 3;

/// A segment of six batches of three records, and one batch in the next segment.
fn fill(directory: &Directory) -> support::Open {
    let open = directory.open(config());
    let log = open.create("t", 0);
    for n in 0..=BATCHES {
        let epoch = LeaderEpoch(i32::try_from(n).unwrap() / 4);
        log.append_batch(batch_at(RECORDS, 20, 1_000 + 10 * n), epoch).unwrap();
    }
    log.flush().unwrap();
    open
}

fn config() -> LogConfig {
    let size = batch_at(RECORDS, 20, 1_000).size_in_bytes() as u64;
    let segment_bytes = size * u64::try_from(BATCHES).unwrap() + 10;
    LogConfig { segment_bytes, index_interval_bytes: 200, ..LogConfig::default() }
}

fn segment(directory: &Directory, base_offset: i64) -> PathBuf {
    directory.path().join(format!("t-0/{base_offset:020}.log"))
}

/// Changes one bit of a file in place.
fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << (at * 3 % 8);
    write_in_place(path, &bytes);
}

fn write_in_place(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
}

/// All batches that a consumer gets, offset by offset, and the offsets that it is refused.
fn consume(log: &Log) -> (Vec<Bytes>, Vec<i64>) {
    let (mut batches, mut refused) = (Vec::new(), Vec::new());
    let mut at = log.log_start_offset();
    while at < log.log_end_offset() {
        match log.read(at, 1 << 20, log.log_end_offset(), true) {
            Ok(slice) => {
                let source = slice.source.expect("there is something to read");
                let asked = at;
                for batch in Batches::new(source.read().unwrap()) {
                    let batch = batch.unwrap();
                    at = Offset(batch.header().next_offset());
                    batches.push(batch.bytes().clone());
                }
                assert!(at > asked, "no whole batch is read at {asked}");
            }
            Err(ReadError::Quarantined { requested, end_offset, .. }) => {
                assert_eq!(requested, at);
                refused.extend(at.0..end_offset.0);
                at = end_offset;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (batches, refused)
}

fn without(batches: &[Bytes], number: usize) -> Vec<Bytes> {
    let mut rest = batches.to_vec();
    rest.remove(number);
    rest
}

fn offsets_of(number: usize) -> Vec<i64> {
    let first = number as i64 * RECORDS;
    (first..first + RECORDS).collect()
}

#[test]
fn the_scrub_finds_a_flip_in_every_byte_refuses_that_batch_and_serves_the_others() {
    let directory = Directory::always_due();
    let open = fill(&directory);
    let log = open.log("t", 0);
    let (sound, refused) = consume(&log);
    assert_eq!((sound.len(), refused), (7, vec![]));
    let size = sound[0].len();
    for (base_offset, batches) in [(0, 0..6), (BATCHES * RECORDS, 6..7)] {
        let path = segment(&directory, base_offset);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), size * batches.len());
        for at in 0..bytes.len() {
            flip(&path, at);
            open.scrub();
            let number = batches.start + at / size;
            let expected = (without(&sound, number), offsets_of(number));
            assert_eq!(consume(&log), expected, "byte {at} of {base_offset}");
            assert_eq!(log.quarantined_count(), 1);
            write_in_place(&path, &bytes);
            open.scrub();
            assert_eq!(log.quarantined(), [], "byte {at} is restored");
        }
    }
    assert_eq!(consume(&log).0, sound);
    assert!(!directory.path().join("t-0/ottla.quarantine").exists());
}

#[test]
fn after_a_crash_damage_to_what_was_flushed_is_refused_and_nothing_is_cut() {
    let written = Directory::new();
    let open = fill(&written);
    let (sound, _) = consume(&open.log("t", 0));
    open.checkpoint().unwrap();
    drop(open);
    let size = sound[0].len();
    for base_offset in [0, BATCHES * RECORDS] {
        let len = std::fs::metadata(segment(&written, base_offset)).unwrap().len() as usize;
        for at in 0..len {
            let directory = Directory::always_due();
            copy(&written.path(), &directory.path());
            flip(&segment(&directory, base_offset), at);
            // The indexes went with the crash, so that everything is read again.
            std::fs::remove_file(segment(&directory, base_offset).with_extension("index")).unwrap();
            let open = directory.open(config());
            let log = open.log("t", 0);
            let number = base_offset as usize / RECORDS as usize + at / size;
            let length = std::fs::metadata(segment(&directory, base_offset)).unwrap().len();
            assert_eq!(length as usize, len, "byte {at}: something was cut off");
            assert_eq!(log.log_end_offset(), Offset((BATCHES + 1) * RECORDS), "byte {at}");
            // Recovery reads the headers; what it cannot see the scrub does.
            let (found, refused) = consume(&log);
            let in_header = at % size < 16 || (23..27).contains(&(at % size));
            if !refused.is_empty() {
                assert_eq!((&found, &refused), (&without(&sound, number), &offsets_of(number)));
            } else {
                assert!(!in_header, "byte {at} of {base_offset}");
                open.scrub();
                let expected = (without(&sound, number), offsets_of(number));
                assert_eq!(consume(&log), expected, "byte {at} of {base_offset}");
            }
            log.append_batch(batch_at(RECORDS, 20, 5_000), LeaderEpoch(9)).unwrap();
            let (after, _) = consume(&log);
            assert_eq!(after.len(), 7, "byte {at}: records go on behind the damage");
        }
    }
}

#[test]
fn what_is_quarantined_stays_so_over_a_restart_until_its_bytes_are_restored() {
    let directory = Directory::always_due();
    let open = fill(&directory);
    let path = segment(&directory, 0);
    let bytes = std::fs::read(&path).unwrap();
    let (sound, _) = consume(&open.log("t", 0));
    flip(&path, 3 * sound[0].len() + 70);
    open.scrub();
    open.close();
    let text = std::fs::read_to_string(directory.path().join("t-0/ottla.quarantine")).unwrap();
    let size = sound[0].len();
    assert_eq!(text, format!("0\n1\n0 {} {} 9 12 checksum\n", 3 * size, 4 * size));
    for _ in 0..2 {
        let open = directory.open(config());
        assert_eq!(consume(&open.log("t", 0)), (without(&sound, 3), offsets_of(3)));
        open.close();
    }
    write_in_place(&path, &bytes);
    let open = directory.open(config());
    assert_eq!(consume(&open.log("t", 0)), (sound, vec![]));
    assert!(!directory.path().join("t-0/ottla.quarantine").exists());
}

/// As an audit would have left it that was overtaken by a truncation: it ends within a batch, and all is sound.
#[test]
fn what_is_said_to_be_damaged_and_is_not_takes_nothing_with_it_at_the_next_start() {
    for is_clean in [true, false] {
        let directory = Directory::new();
        let open = fill(&directory);
        let (sound, _) = consume(&open.log("t", 0));
        let size = sound[0].len();
        open.checkpoint().unwrap();
        if is_clean {
            open.close();
        } else {
            drop(open);
            // The indexes went with the crash, so that everything is read again.
            std::fs::remove_file(segment(&directory, 0).with_extension("index")).unwrap();
        }
        let text = format!("0\n1\n0 {} {} 6 7 not-a-batch\n", 2 * size, 2 * size + 20);
        std::fs::write(directory.path().join("t-0/ottla.quarantine"), text).unwrap();
        let open = directory.open(config());
        let log = open.log("t", 0);
        assert_eq!(log.quarantined(), [], "{is_clean}");
        assert_eq!(consume(&log), (sound, vec![]), "{is_clean}");
        assert!(!directory.path().join("t-0/ottla.quarantine").exists());
    }
}

#[test]
fn whoever_reads_a_bad_batch_has_its_segment_looked_at() {
    let directory = Directory::new();
    let open = fill(&directory);
    let log = open.log("t", 0);
    let size = consume(&log).0[0].len();
    flip(&segment(&directory, 0), size + 70);
    log.doubt(Offset(5)).unwrap();
    assert_eq!(consume(&log).1, offsets_of(1));
    assert!(matches!(
        log.read(Offset(4), 1 << 20, log.log_end_offset(), true),
        Err(ReadError::Quarantined { first_offset: Offset(3), end_offset: Offset(6), .. })
    ));
}

#[test]
fn a_reader_that_finds_no_batch_where_one_should_be_is_told_more_the_next_time() {
    let directory = Directory::new();
    let open = fill(&directory);
    let log = open.log("t", 0);
    let size = consume(&log).0[0].len();
    let path = segment(&directory, 0);
    // The length of the second batch.
    flip(&path, size + 9);
    let read = |offset| log.read(Offset(offset), 1, log.log_end_offset(), true);
    assert!(matches!(read(4), Err(ReadError::Storage(StorageError::Corrupt { .. }))));
    open.housekeep();
    assert!(matches!(read(4), Err(ReadError::Quarantined { .. })));
    assert_eq!(consume(&log).1, offsets_of(1));
}

#[test]
fn what_was_flushed_is_looked_at_while_what_follows_it_is_not_flushed_yet() {
    // The flushed end is one of the latest batches, behind an index entry, or neither.
    for (unflushed, index_interval_bytes) in [(1, 200), (100, 200), (100, 1 << 20)] {
        for is_doubted in [false, true] {
            let directory = Directory::always_due();
            let open = directory.open(LogConfig { index_interval_bytes, ..LogConfig::default() });
            let log = open.create("t", 0);
            for _ in 0..BATCHES {
                log.append_batch(batch_at(RECORDS, 20, 1_000), LeaderEpoch(0)).unwrap();
            }
            log.flush().unwrap();
            for _ in 0..unflushed {
                log.append_batch(batch_at(RECORDS, 20, 1_000), LeaderEpoch(0)).unwrap();
            }
            let (sound, _) = consume(&log);
            for number in [1, BATCHES as usize - 1] {
                let path = segment(&directory, 0);
                let bytes = std::fs::read(&path).unwrap();
                // Its length.
                flip(&path, number * sound[0].len() + 9);
                if is_doubted {
                    log.doubt(Offset(number as i64 * RECORDS)).unwrap();
                } else {
                    open.scrub();
                }
                let case = format!("{unflushed} {index_interval_bytes} {is_doubted} {number}");
                assert_eq!(consume(&log), (without(&sound, number), offsets_of(number)), "{case}");
                write_in_place(&path, &bytes);
                log.doubt(Offset(0)).unwrap();
                assert_eq!(log.quarantined(), [], "{case}");
            }
        }
    }
}

#[test]
fn what_is_quarantined_goes_with_its_segment_and_with_a_truncation() {
    let directory = Directory::always_due();
    let open = fill(&directory);
    let log = open.log("t", 0);
    let size = consume(&log).0[0].len();
    flip(&segment(&directory, 0), 4 * size + 70);
    open.scrub();
    assert_eq!(log.quarantined_count(), 1);
    // In the middle of the damage: it goes as a whole, and what is appended is read.
    log.truncate_to(Offset(13)).unwrap();
    assert_eq!((log.log_end_offset(), log.quarantined_count()), (Offset(12), 0));
    log.append_batch(batch_at(RECORDS, 20, 9_000), LeaderEpoch(9)).unwrap();
    let (found, refused) = consume(&log);
    assert_eq!((found.len(), refused), (5, vec![]));
    flip(&segment(&directory, 0), 70);
    log.flush().unwrap();
    open.scrub();
    assert_eq!(consume(&log).1, offsets_of(0));
    log.truncate_fully_and_start_at(Offset(0)).unwrap();
    assert_eq!(log.quarantined_count(), 0);
    assert!(!directory.path().join("t-0/ottla.quarantine").exists());
}

#[test]
fn a_log_is_cut_off_before_damage_that_is_longer_than_what_its_indexes_pass_over() {
    for asked in 7..15 {
        let directory = Directory::always_due();
        let open = fill(&directory);
        let log = open.log("t", 0);
        let (sound, _) = consume(&log);
        let size = sound[0].len();
        for number in 2..5 {
            flip(&segment(&directory, 0), number * size + 70);
        }
        open.scrub();
        assert_eq!(consume(&log).1, (6..15).collect::<Vec<i64>>());
        assert_eq!(log.quarantined_count(), 1);
        log.truncate_to(Offset(asked)).unwrap();
        assert_eq!((log.log_end_offset(), log.quarantined_count()), (Offset(6), 0), "{asked}");
        let largest = log.max_timestamp().unwrap().unwrap();
        assert_eq!((largest.timestamp.0, largest.offset), (1_012, Offset(5)), "{asked}");
        for n in 0..3 {
            log.append_batch(batch_at(RECORDS, 20, 500 + n), LeaderEpoch(9)).unwrap();
        }
        log.flush().unwrap();
        let before = consume(&log);
        assert_eq!((before.0.len(), &before.1), (5, &vec![]), "{asked}");
        let largest = log.max_timestamp().unwrap().unwrap();
        assert_eq!((largest.timestamp.0, largest.offset), (1_012, Offset(5)), "{asked}");
        drop((log, open));
        let open = directory.open(config());
        assert_eq!(consume(&open.log("t", 0)), before, "{asked}");
    }
}

#[test]
fn transactions_and_producers_of_damaged_batches_are_forgotten_when_a_log_is_cut_off_behind_them() {
    let directory = Directory::always_due();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let in_transaction = |id| Draft { id, in_transaction: true, ..Draft::new(0, 1) }.build();
    let abort = |id| marker(ControlType::Abort, id, 0, 0, 1_000);
    let drafts = [1, 2].map(|id| [in_transaction(id), abort(id)]);
    let ends: Vec<i64> = drafts
        .into_iter()
        .flatten()
        .map(|batch| {
            log.append_batch(batch, LeaderEpoch(0)).unwrap();
            log.size_in_bytes() as i64
        })
        .collect();
    let last = batch_at(RECORDS, 20, 1_000);
    log.append_batch(last, LeaderEpoch(0)).unwrap();
    let ids = |log: &Log| -> (Vec<i64>, Vec<i64>) {
        let aborted = log.aborted_transactions(&(Offset(0)..Offset(99))).unwrap();
        let known = log.producers();
        (
            aborted.iter().map(|it| it.producer_id.0).collect(),
            known.iter().map(|(id, _)| id.0).collect(),
        )
    };
    assert_eq!(ids(&log), (vec![1, 2], vec![1, 2]));
    // A snapshot of the producers, in the middle of what is about to be damaged.
    open.checkpoint().unwrap();
    for position in &ends[1..4] {
        flip(&segment(&directory, 0), *position as usize + 62);
    }
    open.scrub();
    assert_eq!(log.quarantined_count(), 1);
    log.truncate_to(Offset(5)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(2));
    assert_eq!(ids(&log), (vec![1], vec![1]));
}

#[test]
fn the_scrub_leaves_the_page_cache_as_it_is() {
    // In memory nothing is dropped: this needs a disk.
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Arc::new(ottla_env::ManualClock::at(ottla_base::Timestamp(1_000)));
    let config = LogConfig { segment_bytes: 4 << 20, ..LogConfig::default() };
    let options = DirectoryOptions::default();
    let path = temporary.path().join("data");
    let open = ottla_log::LogDirectory::open(&path, config.clone(), options, clock).unwrap();
    let partition = ottla_base::TopicPartition::new("t", 0);
    let log = open.create(partition, ottla_base::Uuid([7; 16]), Arc::new(config)).unwrap();
    for _ in 0..60 {
        log.append_batch(batch_at(2, 100_000, 1_000), LeaderEpoch(0)).unwrap();
    }
    open.checkpoint().unwrap();
    let segments: Vec<PathBuf> = std::fs::read_dir(path.join("t-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    assert_eq!(segments.len(), 3);
    for segment in &segments[1..] {
        let file = std::fs::File::open(segment).unwrap();
        ottla_env::sys::drop_cached(&file, 0, file.metadata().unwrap().len()).unwrap();
    }
    let before: Vec<u64> = segments.iter().map(|path| resident(path)).collect();
    assert!(before[0] > 3 << 20, "{before:?}: somebody reads this");
    assert_eq!(before[1..], [0, 0], "and nobody these");
    open.scrub();
    let after: Vec<u64> = segments.iter().map(|path| resident(path)).collect();
    assert_eq!(after, before);
    assert_eq!(open.scrub_progress().segments, 3);
    assert!(open.scrub_progress().bytes > 11 << 20);
}

/// How many bytes of a file are in the page cache, as `fincore` of util-linux tells.
fn resident(path: &Path) -> u64 {
    let mut command = Command::new("fincore");
    let output = command.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output();
    let text = String::from_utf8(output.expect("fincore is part of util-linux").stdout).unwrap();
    text.trim().parse().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn headers_tell_what_the_test_above_calls_a_header() {
    let bytes = batch_at(1, 20, 1_000).to_bytes();
    let mut changed = bytes.to_vec();
    changed[26] ^= 1;
    let delta = |bytes: &[u8]| BatchHeader::parse(bytes).unwrap().last_offset_delta;
    assert_ne!(delta(&bytes), delta(&changed));
}

#[test]
fn a_line_of_the_file_takes_no_sound_record_away_whatever_range_it_names() {
    let written = Directory::new();
    let open = fill(&written);
    let (sound, _) = consume(&open.log("t", 0));
    open.close();
    let active = BATCHES * RECORDS;
    for line in [
        // From within a batch on, where nothing looks like one.
        "0 10 100000 0 500 checksum".to_owned(),
        format!("{active} 1 9223372036854775807 {active} 9223372036854775807 not-a-batch"),
        format!("{active} 0 70 -5 {active} offsets"),
    ] {
        for is_clean in [true, false] {
            let directory = Directory::new();
            copy(&written.path(), &directory.path());
            let quarantine = directory.path().join("t-0/ottla.quarantine");
            std::fs::write(&quarantine, format!("0\n1\n{line}\n")).unwrap();
            if !is_clean {
                std::fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
            }
            let log = directory.open(config()).log("t", 0);
            assert_eq!(consume(&log), (sound.clone(), vec![]), "{line}, clean: {is_clean}");
            assert_eq!(log.log_end_offset(), Offset((BATCHES + 1) * RECORDS), "{line}");
            assert!(!quarantine.exists(), "{line}");
        }
    }
}

#[test]
fn what_follows_the_last_batch_of_a_segment_that_is_no_longer_written_is_cut_off_for_good() {
    let directory = Directory::new();
    let open = fill(&directory);
    let (sound, _) = consume(&open.log("t", 0));
    open.close();
    let path = segment(&directory, 0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes[..], &bytes[..100]].concat()).unwrap();
    // Its indexes are gone, too, so that it is read.
    std::fs::remove_file(path.with_extension("index")).unwrap();
    for _ in 0..2 {
        let open = directory.open(config());
        assert_eq!(consume(&open.log("t", 0)), (sound.clone(), vec![]));
        open.close();
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_log_that_is_said_to_start_before_the_first_offset_starts_there() {
    let directory = Directory::new();
    let open = directory.open(config());
    open.create("t", 0);
    open.close();
    let file = directory.path().join("log-start-offset-checkpoint");
    std::fs::write(file, "0\n1\nt 0 -1\n").unwrap();
    let log = directory.open(config()).log("t", 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(0)));
}

#[test]
fn an_epoch_that_a_crash_has_taken_from_the_file_is_no_damage_behind_some_that_is() {
    let directory = Directory::new();
    let large = LogConfig::default;
    let epochs = directory.path().join("t-0/leader-epoch-checkpoint");
    let size = batch_at(RECORDS, 20, 1_000).size_in_bytes();
    {
        let open = directory.open(large());
        let log = open.create("t", 0);
        for n in 0..3 {
            log.append_batch(batch_at(RECORDS, 20, 1_000 + n), LeaderEpoch(0)).unwrap();
        }
        open.checkpoint().unwrap();
    }
    // The magic of the last batch: what is appended follows it.
    flip(&segment(&directory, 0), 2 * size + 16);
    let before = {
        let open = directory.open(large());
        let log = open.log("t", 0);
        assert_eq!(log.quarantined().len(), 1);
        let before = std::fs::read(&epochs).unwrap();
        log.append_batch(batch_at(RECORDS, 20, 1_010), LeaderEpoch(1)).unwrap();
        log.flush().unwrap();
        before
    };
    std::fs::write(&epochs, before).unwrap();
    let open = directory.open(large());
    let log = open.log("t", 0);
    assert_eq!(log.log_end_offset(), Offset(12));
    assert_eq!(consume(&log).1, [6, 7, 8]);
}

#[test]
fn a_torn_append_behind_a_gap_up_to_the_logs_start_is_cut_off() {
    let directory = Directory::new();
    let large = LogConfig::default;
    let path = segment(&directory, 0);
    let size = batch_at(RECORDS, 20, 1_000).size_in_bytes() as u64;
    let append =
        |log: &Log| log.append_batch(batch_at(RECORDS, 20, 1_000), LeaderEpoch(0)).unwrap();
    {
        let open = directory.open(large());
        let log = open.create("t", 0);
        append(&log);
        append(&log);
        log.delete_records_to(Offset(5)).unwrap();
        log.truncate_to(Offset(4)).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(4), Offset(4)));
        open.checkpoint().unwrap();
        append(&log);
    }
    // Of the append, which nobody has flushed, the disk has a little.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size + 4).unwrap();
    {
        let open = directory.open(large());
        let log = open.log("t", 0);
        assert_eq!((log.quarantined(), log.log_end_offset()), (Vec::new(), Offset(4)));
        append(&log);
        log.flush().unwrap();
    }
    assert_eq!(directory.open(large()).log("t", 0).log_end_offset(), Offset(7));
}
