//! Arbitrary bytes as the files of a log: opening it ends and never panics, and of what lies behind the recovery point
//! no batch with a wrong checksum is served.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory};
use ottla_records::{BatchBuilder, Batches, Compression};

/// What the bytes may become: a name below the directory.
pub const FILES: [&str; 11] = [
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/00000000000000000000.txnindex",
    "t-0/00000000000000000004.log",
    "t-0/00000000000000000004.snapshot",
    "t-0/leader-epoch-checkpoint",
    "t-0/partition.metadata",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    ".kafka_cleanshutdown",
];

/// Takes `data` apart into files (a byte says which one, two how long it is), opens them as a log directory after a
/// crash, reads all that there is, appends, and opens it again.
pub fn run(data: &[u8]) {
    let in_memory = Path::new("/dev/shm");
    let temporary =
        if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    let temporary = temporary.expect("there is room for a temporary directory");
    fs::create_dir(temporary.path().join("t-0")).expect("it is empty");
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let [which, high, low] = *head;
        let name = FILES[usize::from(which) % FILES.len()];
        let len = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (bytes, behind) = tail.split_at(len);
        fs::write(temporary.path().join(name), bytes).expect("there is room for a file");
        rest = behind;
    }
    let is_clean = temporary.path().join(".kafka_cleanshutdown").exists();
    let points = fs::read(temporary.path().join("recovery-point-offset-checkpoint"));
    let is_flushed = points.is_ok_and(|points| !points.is_empty());
    check(temporary.path(), !is_clean && !is_flushed);
}

/// Opens twice. With `is_verified` everything has been read whole.
fn check(path: &Path, is_verified: bool) {
    for _ in 0..2 {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let options =
            DirectoryOptions { threads: false, recovery_threads: 1, ..DirectoryOptions::default() };
        let Ok(directory) = LogDirectory::open(path, LogConfig::default(), options, clock) else {
            return;
        };
        let Some(log) = directory.log(&TopicPartition::new("t", 0)) else { return };
        assert!(log.log_start_offset() <= log.log_end_offset());
        read(&log, is_verified);
        for timestamp in [0, 1_000, i64::MAX] {
            let _ = log.offset_for_timestamp(Timestamp(timestamp));
        }
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
        let _ = log.append_batch(builder.build(), LeaderEpoch(1));
    }
}

fn read(log: &Log, is_verified: bool) {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    while at < end {
        let Ok(slice) = log.read(at, 4096, end, true) else { return };
        let Some(bytes) = slice.source.and_then(|source| source.read().ok()) else { return };
        let before = at;
        for batch in Batches::new(bytes) {
            let Ok(batch) = batch else { break };
            at = Offset(batch.header().next_offset());
            let sound = batch.verify_crc();
            assert!(!is_verified || sound.is_ok(), "a batch with a wrong checksum was let in");
        }
        if at <= before {
            return;
        }
    }
}
