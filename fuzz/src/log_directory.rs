//! Arbitrary bytes as the files of a log directory: opening it ends and never panics, what it says of its logs can be true, and
//! of what lies behind the recovery point no batch with a wrong checksum is served. And as those files that say nothing of
//! which records there are: beside sound segments they take none away.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::ManualClock;
use ottla_log::{
    CleanableLogs, CleanerOptions, DirectoryOptions, Log, LogCleaner, LogConfig, LogDirectory,
    settle,
};
use ottla_records::{BatchBuilder, Batches, Compression};

use crate::files;

/// What the bytes may become: a name below the directory. All that is read when a directory is opened; `.lock`,
/// `.ottla_sync_failed` and whatever is on its way out (`.deleted`, `-delete`, `.tmp`) count by their names alone.
pub const FILES: [&str; 32] = [
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.index",
    "t-0/00000000000000000000.timeindex",
    "t-0/00000000000000000000.txnindex",
    "t-0/00000000000000000004.log",
    "t-0/00000000000000000004.index",
    "t-0/00000000000000000004.timeindex",
    "t-0/00000000000000000004.txnindex",
    "t-0/00000000000000000004.snapshot",
    "t-0/00000000000000000012.snapshot",
    "t-0/leader-epoch-checkpoint",
    "t-0/partition.metadata",
    QUARANTINE,
    ADOPT,
    "t-0/00000000000000000000.log.swap",
    "t-0/00000000000000000000.index.swap",
    "t-0/00000000000000000000.timeindex.swap",
    "t-0/00000000000000000000.txnindex.swap",
    "t-0/00000000000000000004.log.cleaned",
    "u-0.0123456789abcdef0123456789abcdef-future/00000000000000000000.log",
    "u-0.0123456789abcdef0123456789abcdef-future/00000000000000000000.index",
    "u-0.0123456789abcdef0123456789abcdef-future/leader-epoch-checkpoint",
    "u-0.0123456789abcdef0123456789abcdef-future/partition.metadata",
    "u-0.0123456789abcdef0123456789abcdef-future/copy-complete",
    RECOVERY_POINTS,
    "log-start-offset-checkpoint",
    HIGH_WATERMARKS,
    CLEANED,
    SYNC_FAILED,
    CLEAN,
    "ottla.journal.0",
    "ottla.journal.1",
];

const QUARANTINE: &str = "t-0/ottla.quarantine";
const ADOPT: &str = "t-0/ottla.adopt";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";
const SYNC_FAILED: &str = ".ottla_sync_failed";
pub const CLEAN: &str = ".kafka_cleanshutdown";

/// What says nothing of which records there are.
pub const HINTS: [&str; 4] = [QUARANTINE, ADOPT, HIGH_WATERMARKS, CLEANED];

/// Takes `data` apart into files, opens them as a log directory after a crash, reads all that there is, compacts, appends,
/// and opens it again.
pub fn run(data: &[u8]) {
    let temporary = files::directory();
    let root = temporary.path();
    fs::create_dir(root.join("t-0")).expect("it is empty");
    files::lay(root, &FILES, data);
    let is_clean = root.join(CLEAN).exists();
    let points = fs::read(root.join(RECOVERY_POINTS));
    let is_flushed = points.is_ok_and(|points| !points.is_empty());
    check(root, !is_clean && !is_flushed);
}

/// Lays [`HINTS`] beside a sound log, which must be all there. The first byte says whether that was closed properly.
pub fn run_hints(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let temporary = files::directory();
    for (name, bytes) in sound().iter().filter(|(name, _)| *name != CLEAN || first & 1 == 0) {
        files::put(temporary.path(), name, bytes);
    }
    files::lay(temporary.path(), &HINTS, data);
    let directory = open(temporary.path()).expect("hints are no reason not to open it");
    let log = directory.log(&TopicPartition::new("t", 0)).expect("it is there");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(12)));
    assert_eq!(read(&log, true), Offset(12), "sound records are not served");
    check_log(&log, true);
}

fn open(path: &Path) -> Option<Arc<LogDirectory>> {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let options =
        DirectoryOptions { threads: false, recovery_threads: 1, ..DirectoryOptions::default() };
    let opened = LogDirectory::open(path, LogConfig::default(), options, clock);
    opened.ok().map(Arc::new)
}

/// Where the log ends, once it is opened.
#[must_use]
pub fn end(path: &Path) -> Option<Offset> {
    Some(open(path)?.log(&TopicPartition::new("t", 0))?.log_end_offset())
}

/// Opens twice. With `is_verified` everything has been read whole.
fn check(path: &Path, is_verified: bool) {
    for _ in 0..2 {
        let Some(directory) = open(path) else { return };
        // As a broker does that starts.
        let _ = (directory.adoptions(), settle(std::slice::from_ref(&directory)));
        directory.logs().iter().for_each(|log| check_log(log, is_verified));
    }
}

fn check_log(log: &Arc<Log>, is_verified: bool) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(Offset(0) <= start && start <= end, "{start}..{end}");
    let noted = log.noted_high_watermark();
    assert!(
        noted.is_none_or(|noted| (start..=end).contains(&noted)),
        "{noted:?} of {start}..{end}"
    );
    for damage in log.quarantined() {
        let is_within = damage.end_offset <= end;
        assert!(damage.position < damage.end_position && is_within, "{damage:?} of {start}..{end}");
    }
    read(log, is_verified);
    for timestamp in [0, 1_000, i64::MAX] {
        let _ = log.offset_for_timestamp(Timestamp(timestamp));
    }
    compact(log);
    read(log, is_verified);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
    let end = log.log_end_offset();
    if let Ok(appended) = log.append_batch(builder.build(), LeaderEpoch(1)) {
        assert_eq!(appended.base_offset, end);
        assert!(
            log.read(end, 4096, end.next(), true).is_ok(),
            "what was just appended is not served"
        );
    }
}

/// Reads from the beginning as far as that is possible, and returns where that ends.
fn read(log: &Log, is_verified: bool) -> Offset {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    while at < end {
        let Ok(slice) = log.read(at, 4096, end, true) else { return at };
        let Some(bytes) = slice.source.and_then(|source| source.read().ok()) else { return at };
        let before = at;
        for batch in Batches::new(bytes) {
            let Ok(batch) = batch else { break };
            at = Offset(batch.header().next_offset());
            let sound = batch.verify_crc();
            assert!(!is_verified || sound.is_ok(), "a batch with a wrong checksum was let in");
        }
        if at <= before {
            return at;
        }
    }
    at
}

#[derive(Debug)]
struct OneLog(Arc<Log>);

impl CleanableLogs for OneLog {
    fn logs(&self) -> Vec<(Arc<Log>, Offset)> {
        vec![(Arc::clone(&self.0), self.0.log_end_offset())]
    }
}

fn compact(log: &Arc<Log>) {
    let config =
        LogConfig { compact: true, min_cleanable_dirty_ratio: 0.0, ..LogConfig::default() };
    log.set_config(Arc::new(config));
    let _ = log.roll();
    let options = CleanerOptions {
        threads: 0,
        dedupe_buffer_bytes: 1 << 12,
        io_buffer_bytes: 1 << 12,
        ..CleanerOptions::default()
    };
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let logs = Arc::new(OneLog(Arc::clone(log)));
    let cleaner = LogCleaner::start(logs, options, clock).expect("it has no threads");
    cleaner.clean_all_due();
}

/// The files of a log with two segments and twelve records that was closed properly, and of what there may be beside one.
pub fn sound() -> &'static [(&'static str, Vec<u8>)] {
    static SOUND: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let temporary = files::directory();
        close_properly(temporary.path());
        let there =
            |name: &&'static str| Some((*name, fs::read(temporary.path().join(name)).ok()?));
        FILES.iter().filter_map(there).collect()
    })
}

fn close_properly(path: &Path) {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let options = DirectoryOptions { threads: false, ..DirectoryOptions::default() };
    let config = LogConfig { index_interval_bytes: 50, ..LogConfig::default() };
    let directory = LogDirectory::open(path, config.clone(), options, clock);
    let directory = directory.expect("it is empty");
    let log = directory.create(TopicPartition::new("t", 0), Uuid([7; 16]), Arc::new(config));
    let log = log.expect("there is none yet");
    for n in 0..6 {
        if n == 2 {
            log.roll().expect("there is room");
        }
        let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, n * 2);
        for record in 0..2 {
            let key = [record];
            builder.append(Timestamp(1_000 + i64::from(n)), Some(&key), Some(&[record; 30]), &[]);
        }
        log.append_produced(builder.build(), LeaderEpoch(n / 3)).expect("there is room");
    }
    log.note_high_watermark(Offset(10));
    drop(log);
    directory.close(1).expect("the disk does not fail");
}
