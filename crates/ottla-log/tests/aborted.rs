//! What readers of committed data are told of aborted transactions: those with records in what they get, and few others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what it does not expect, and its numbers are small"
)]

mod support;

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_base::{LeaderEpoch, Offset};
use ottla_env::{Disk, DiskLayer, OsDisk};
use ottla_log::{Log, LogConfig, Slice};
use ottla_records::{Batches, ControlType};
use support::{Directory, Draft, marker};

/// One record each, and its marker. With as many producers the log has little to remember.
fn abort_transactions(log: &Log, count: i32) {
    for n in 0..count {
        let (id, epoch) = (i64::from(n % 10), LeaderEpoch(0));
        let draft = Draft { id, in_transaction: true, ..Draft::new(n / 10, 1) };
        log.append_produced(draft.build(), epoch).unwrap();
        log.append_batch(marker(ControlType::Abort, id, 0, 0, 1_000), epoch).unwrap();
    }
}

/// Kafka's bound: the offset of the first index entry at or behind the slice's end, else where the next segment begins, else
/// where the log ends; and nobody is shown more than what is stable.
fn kafka_s_bound(directory: &Directory, log: &Log, slice: &Slice, stable: Offset) -> Offset {
    let segments = log.segment_infos().unwrap();
    let at = segments.iter().rposition(|it| it.base_offset <= slice.first_offset).unwrap();
    let range = slice.source.as_ref().unwrap();
    let path = directory.path().join("t-0").join(format!("{:020}.index", segments[at].base_offset));
    let index = fs::read(path).unwrap();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let behind = index
        .chunks_exact(8)
        .find(|entry| u64::from(number(&entry[4..])) >= range.position + range.len as u64);
    let found = behind.map(|it| segments[at].base_offset.0 + i64::from(number(&it[..4])));
    stable.min(Offset(found.unwrap_or(segments[at].end_offset.0)))
}

#[test]
fn the_aborted_transactions_of_a_slice_are_those_up_to_the_next_index_entry() {
    let directory = Directory::new();
    let config =
        LogConfig { segment_bytes: 64 * 1024, index_interval_bytes: 1_000, ..LogConfig::default() };
    let open = directory.open(config);
    let log = open.create("t", 0);
    abort_transactions(&log, 1_000);
    assert!(log.segment_count() > 2);
    let end = log.log_end_offset();
    let stable = Offset(end.0 - 1);
    let mut looked = Vec::new();
    for from in (0..end.0 - 1).step_by(7) {
        for max_bytes in [1, 900, 5_000] {
            let slice = log.read(Offset(from), max_bytes, stable, true).unwrap();
            let before_it_is_written = log.end_of(&slice);
            looked.push((from, slice, before_it_is_written));
        }
    }
    open.checkpoint().unwrap();
    for (from, slice, bound) in looked {
        let bytes = slice.source.as_ref().unwrap().read().unwrap();
        let batches = Batches::new(bytes).map_while(Result::ok);
        let last = batches.last().map_or(from, |last| last.header().last_offset());
        assert_eq!(bound, log.end_of(&slice));
        assert_eq!(bound, kafka_s_bound(&directory, &log, &slice, stable), "from {from}");
        assert!(bound.0 > last);
        let told = log.aborted_transactions(&(Offset(from)..bound)).unwrap();
        // Each is two offsets long, and an index interval has less than eight of them.
        let needed = last / 2 - from / 2 + 1;
        let told_i64 = i64::try_from(told.len()).unwrap();
        assert!((needed..needed + 8).contains(&told_i64), "{told_i64} of {needed} from {from}");
        assert_eq!(told.first().unwrap().first_offset, Offset(from / 2 * 2));
    }
}

#[test]
fn what_was_read_keeps_no_directory_locked() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    abort_transactions(&log, 2);
    let slice = log.read(Offset(0), 1, Offset(4), true).unwrap();
    drop((log, open.close()));
    let open = directory.open(LogConfig::default());
    let log = open.log("t", 0);
    assert_eq!(log.end_of(&slice), Offset(4), "what is not known is told of");
}

/// The operating system's disk, and how many bytes were read from it.
#[derive(Debug, Default)]
struct CountingDisk(AtomicU64);

impl DiskLayer for CountingDisk {
    fn below(&self) -> &dyn Disk {
        &OsDisk
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = OsDisk.read_at(file, buffer, position)?;
        self.0.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[test]
fn whoever_looks_for_a_few_aborted_transactions_of_many_reads_about_these() {
    let mut directory = Directory::new();
    let disk = Arc::new(CountingDisk::default());
    directory.options.disk = Arc::clone(&disk) as _;
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    abort_transactions(&log, 8_000);
    let all = 8_000 * 34;
    for from in [0, 8_001, 15_990] {
        disk.0.store(0, Ordering::Relaxed);
        let found = log.aborted_transactions(&(Offset(from)..Offset(from + 8))).unwrap();
        let first_offsets: Vec<i64> = found.iter().map(|it| it.first_offset.0).collect();
        let expected: Vec<i64> = (from / 2 * 2..from + 8).step_by(2).collect();
        assert_eq!(first_offsets, expected);
        let read = disk.0.load(Ordering::Relaxed);
        assert!(read < all / 5, "{read} bytes are read of {all}");
    }
}

/// Three segments: transactions that are aborted in the next segment, in the same one, and committed ones between them.
fn three_segments(directory: &Directory) -> (support::Open, Arc<Log>) {
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    let mut sequences = [0; 4];
    let mut write = |id: i64| {
        let sequence = &mut sequences[usize::try_from(id).unwrap()];
        let draft = Draft { id, in_transaction: true, ..Draft::new(*sequence, 1) };
        *sequence += 1;
        log.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
    };
    let end = |id, how| {
        log.append_batch(marker(how, id, 0, 0, 1_000), LeaderEpoch(0)).unwrap();
    };
    for segment in 0..3 {
        if segment > 0 {
            log.roll().unwrap();
        }
        write(2);
        write(3);
        end(3, ControlType::Abort);
        if segment > 0 {
            write(1);
            end(1, ControlType::Abort);
        }
        write(3);
        end(3, ControlType::Commit);
        end(2, ControlType::Abort);
        write(1);
    }
    log.flush().unwrap();
    drop(log);
    let log = open.log("t", 0);
    (open, log)
}

fn index_path(directory: &Directory, base_offset: i64) -> std::path::PathBuf {
    directory.path().join(format!("t-0/{base_offset:020}.txnindex"))
}

/// What every reader of committed data is told; `None` where one is refused.
fn told(log: &Log) -> Option<Vec<Vec<ottla_log::AbortedTransaction>>> {
    let end = log.log_end_offset().0;
    (0..end).map(|from| log.aborted_transactions(&(Offset(from)..Offset(end))).ok()).collect()
}

#[test]
fn the_scrub_mends_every_bit_of_a_transaction_index_that_the_disk_has_turned() {
    for damage_snapshots in [false, true] {
        let directory = Directory::always_due();
        let (open, log) = three_segments(&directory);
        let expected = told(&log).unwrap();
        open.scrub_changes_no_index();
        assert_eq!(expected[0].len(), 8);
        for base_offset in log.segment_infos().unwrap().iter().map(|it| it.base_offset.0) {
            if damage_snapshots && base_offset > 0 {
                fs::remove_file(index_path(&directory, base_offset).with_extension("snapshot"))
                    .unwrap();
            }
            let path = index_path(&directory, base_offset);
            let sound = fs::read(&path).unwrap();
            for bit in 0..sound.len() * 8 {
                let mut flipped = sound.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                open.scrub();
                assert!(fs::read(&path).unwrap() == sound, "bit {bit} of {base_offset}");
                assert_eq!(told(&log).as_ref(), Some(&expected));
            }
        }
        drop((log, open));
    }
}

#[test]
fn the_scrub_mends_a_transaction_index_that_is_gone_or_cut_off_or_too_long() {
    let directory = Directory::always_due();
    let (open, log) = three_segments(&directory);
    let expected = told(&log).unwrap();
    let path = index_path(&directory, log.segment_infos().unwrap()[1].base_offset.0);
    let sound = fs::read(&path).unwrap();
    let too_long = [&sound[..], &sound[sound.len() - 34..]].concat();
    let ragged = [&sound[..], &[0; 7][..]].concat();
    for damaged in [None, Some(&sound[..34]), Some(&sound[..50]), Some(&too_long), Some(&ragged)] {
        match damaged {
            None => fs::remove_file(&path).unwrap(),
            Some(damaged) => fs::write(&path, damaged).unwrap(),
        }
        open.scrub();
        assert_eq!(fs::read(&path).unwrap(), sound);
        assert_eq!(told(&log).as_ref(), Some(&expected));
    }
    assert!(!path.with_extension("txnindex.tmp").exists());
}

#[test]
fn an_entry_that_nobody_can_have_written_is_refused_until_the_index_is_made_anew() {
    let mut directory = Directory::always_due();
    directory.options.threads = false;
    let (open, log) = three_segments(&directory);
    let expected = told(&log).unwrap();
    let path = index_path(&directory, 0);
    let sound = fs::read(&path).unwrap();
    // The version, the highest bits of numbers, and a last stable offset that would hide what follows.
    for bit in [7, 16, 80, 208, 34 * 8 - 27] {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 0x80 >> (bit % 8);
        fs::write(&path, &flipped).unwrap();
        assert_eq!(told(&log), None, "bit {bit}");
        open.housekeep();
        assert_eq!(told(&log).as_ref(), Some(&expected), "bit {bit}");
    }
}

#[test]
fn where_damage_hides_a_marker_the_transaction_index_stays_as_it_is() {
    let directory = Directory::always_due();
    let (open, log) = three_segments(&directory);
    let path = index_path(&directory, 0);
    let mut bytes = fs::read(path.with_extension("log")).unwrap();
    let up_to_marker =
        Batches::new(bytes.clone().into()).take(3).map(|it| it.unwrap().bytes().len());
    let end_of_marker = up_to_marker.sum::<usize>();
    bytes[end_of_marker - 1] ^= 1;
    fs::write(path.with_extension("log"), bytes).unwrap();
    open.scrub_changes_no_index();
    assert_eq!(log.quarantined_count(), 1);
}
